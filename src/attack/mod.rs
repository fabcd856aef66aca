//! Attacks that run anywhere, on the host and on the chip, one file each. They see an oracle
//! (see [`crate::threat`]), never a model.
//!
//! An attack starts from one input, stays inside a ball around it and inside the box of values that an input
//! can have, and returns the best point that it found. On f32 inputs epsilon and step are in the input's real
//! units. On int8 inputs they are in LSB: the attack searches on the grid that the device sees, so nothing
//! that it finds is lost in rounding.

mod ball;
mod fgsm;
mod nes;
mod pgd;
mod square;
pub mod universal;

pub use ball::{Ball, Norm};
pub use fgsm::fgsm;
pub use nes::{Nes, nes};
pub use pgd::{Pgd, pgd};
pub use square::{Square, square};

use crate::loss::{Goal, Loss, Objective};
use crate::threat::{
    Budget, Counted, CountedError, Element, GradientOracle, LabelOracle, ScoreOracle,
};
use rand_core::Rng;

/// The generator behind every random choice of an attack: small, portable, the same on host and chip.
pub type AttackRng = rand_pcg::Pcg32;

/// The generator for one sample. It depends on seed and sample only, so neither the number of threads nor the
/// order of samples changes a result.
pub fn rng(seed: u64, sample: u64) -> AttackRng {
    AttackRng::new(seed ^ 0x9e37_79b9_7f4a_7c15, sample)
}

/// A uniform number in [0, 1), multiples of 2^-24.
pub(crate) fn uniform(rng: &mut impl Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// Which attack.
#[derive(Clone, Copy, PartialEq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[cfg_attr(feature = "link", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Kind {
    /// One step (Goodfellow et al. 2014).
    Fgsm,
    /// Many steps with projection (Kurakin et al. 2016, Madry et al. 2017).
    Pgd,
    /// Random search with squares, without gradients (Andriushchenko et al. 2020). Its `steps` are queries.
    Square {
        /// Share of the image that the first squares cover.
        share: f32,
        /// Height, width and channels of the input.
        shape: [u16; 3],
    },
    /// Gradients estimated from scores (Ilyas et al. 2018).
    Nes {
        /// Pairs of probes per step.
        pairs: u16,
        /// Standard deviation of the probes, in the units of epsilon.
        sigma: f32,
    },
    /// One perturbation for all inputs (Moosavi-Dezfooli et al. 2017), fitted by passes over them; see [`universal`]. On a single
    /// input ([`Spec::run`]) it is fitted on that one.
    Universal,
}

impl Kind {
    /// Whether the attack needs gradients, or scores only.
    pub const fn needs_gradients(&self) -> bool {
        matches!(self, Kind::Fgsm | Kind::Pgd | Kind::Universal)
    }
}

/// An attack with all its parameters: what a host sends to a chip, and what a report repeats.
#[derive(Clone, Copy, PartialEq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[cfg_attr(feature = "link", derive(serde::Serialize, serde::Deserialize))]
pub struct Spec {
    /// Which attack.
    pub kind: Kind,
    /// The ball and the box.
    pub ball: Ball,
    /// Size of one step, in the units of epsilon; PGD and NES. For a universal perturbation the first pass's.
    pub step: f32,
    /// Steps per start; for the square attack the most queries, for a universal perturbation passes over the inputs.
    pub steps: u16,
    /// Starts in all, at least 1; PGD only.
    pub starts: u16,
    /// Whether the first start is random too (later ones always are); PGD only.
    pub random_start: bool,
    /// Whether the class given with an input is one to reach rather than to avoid.
    pub targeted: bool,
    /// What is climbed.
    pub loss: Loss,
}

impl Spec {
    /// FGSM with cross-entropy.
    pub const fn fgsm(ball: Ball) -> Spec {
        Spec {
            kind: Kind::Fgsm,
            ball,
            step: ball.epsilon,
            steps: 1,
            starts: 1,
            random_start: false,
            targeted: false,
            loss: Loss::CrossEntropy,
        }
    }

    /// PGD with cross-entropy, one random start and step size `2.5 epsilon / steps` (Madry et al. 2017).
    pub fn pgd(ball: Ball, steps: u16) -> Spec {
        Spec {
            kind: Kind::Pgd,
            step: 2.5 * ball.epsilon / f32::from(steps.max(1)),
            steps,
            random_start: true,
            ..Spec::fgsm(ball)
        }
    }

    /// The square attack with the margin, for inputs of this height, width and channels. The first squares cover
    /// 0.8 of the image (the authors' choice for MNIST and in AutoAttack).
    pub const fn square(ball: Ball, queries: u16, shape: [u16; 3]) -> Spec {
        Spec {
            kind: Kind::Square { share: 0.8, shape },
            steps: queries,
            loss: Loss::Margin,
            ..Spec::fgsm(ball)
        }
    }

    /// NES on the margin with steps of 0.3 epsilon, 25 pairs of probes each (the paper's 50 probes), their deviation 0.001 of
    /// the box (the paper's). The paper climbs cross-entropy with steps of 0.01; on the reference networks f32 has no digits left
    /// for the differences of a small cross-entropy.
    pub fn nes(ball: Ball, steps: u16) -> Spec {
        Spec {
            kind: Kind::Nes {
                pairs: 25,
                sigma: 0.001 * (ball.high - ball.low),
            },
            step: 0.3 * ball.epsilon,
            steps,
            loss: Loss::Margin,
            ..Spec::fgsm(ball)
        }
    }

    /// A universal perturbation by gradient ascent on the margin, with steps that fall from a quarter of epsilon, as the host's
    /// `universal` has them.
    pub const fn universal(ball: Ball, passes: u16) -> Spec {
        Spec {
            kind: Kind::Universal,
            step: 0.25 * ball.epsilon,
            steps: passes,
            loss: Loss::Margin,
            ..Spec::fgsm(ball)
        }
    }

    /// The same attack on the grid: a step in the linf norm is a whole number of LSB, at least 1. (A universal perturbation is a sum
    /// of many steps; only the inputs with it lie on the grid.)
    pub fn on_lattice(self) -> Spec {
        match (self.ball.norm, self.kind) {
            (_, Kind::Universal) => self,
            (Norm::Linf, _) => Spec {
                step: libm::roundf(self.step).max(1.0),
                ..self
            },
            _ => self,
        }
    }

    /// The same attack towards a class instead of away from one.
    pub fn targeted(self) -> Spec {
        Spec {
            targeted: true,
            ..self
        }
    }

    /// The goal that a class means to this attack.
    pub fn goal(&self, class: usize) -> Goal {
        match self.targeted {
            true => Goal::Reach(class),
            false => Goal::Avoid(class),
        }
    }

    /// Elements of scratch that [`Spec::run`] needs for inputs of `n` elements and so many classes.
    pub fn scratch_len(&self, n: usize, classes: usize) -> usize {
        match (self.kind, self.ball.norm) {
            (Kind::Pgd, Norm::L2 | Norm::L1) => n,
            (Kind::Square { shape, .. }, norm) => {
                Square::scratch_len(norm, shape.map(usize::from), classes)
            }
            (Kind::Nes { .. }, _) => Nes::scratch_len(n, classes),
            (Kind::Universal, _) => 2 * n,
            _ => 0,
        }
    }

    /// Whether every number is usable: epsilon and step finite and not negative, low < high, at least one
    /// step and one start, and a norm that the attack knows (linf, l2 or l1).
    pub fn is_valid(&self) -> bool {
        let Ball {
            epsilon, low, high, ..
        } = self.ball;
        let finite = |v: f32| v.is_finite() && v >= 0.0;
        finite(epsilon)
            && finite(self.step)
            && low.is_finite()
            && high.is_finite()
            && low < high
            && self.steps > 0
            && self.starts > 0
            && match self.kind {
                Kind::Square { share, .. } => share > 0.0 && share <= 1.0,
                Kind::Nes { pairs, sigma } => pairs > 0 && finite(sigma) && sigma > 0.0,
                Kind::Fgsm | Kind::Pgd | Kind::Universal => true,
            }
            && match (self.ball.norm, self.kind) {
                (Norm::Linf | Norm::L2, _) | (Norm::L1, Kind::Fgsm | Kind::Pgd) => true,
                (Norm::L1 | Norm::L0, _) => false,
            }
    }

    /// Attacks one input. `class` is the input's label (or the target), `out` receives the adversarial input.
    ///
    /// # Errors
    /// [`AttackError`]: wrong lengths, impossible parameters, or the oracle's own.
    pub fn run<E: Element, O: GradientOracle<E>>(
        &self,
        oracle: &mut O,
        task: Task<'_, E>,
        out: &mut [E],
    ) -> Result<Outcome, AttackError<O::Error>> {
        let ready = self.ready(oracle, task, out)?;
        let objective = ready.objective;
        let mut counted = Counted::new(oracle, Budget::UNLIMITED);
        let label = match self.kind.needs_gradients() {
            true => self.climb(&mut counted, ready),
            false => self.search(&mut counted, ready),
        };
        outcome(label, objective, &counted)
    }

    /// The same on an oracle that gives scores only; `None` where the attack needs gradients.
    ///
    /// # Errors
    /// As [`Spec::run`].
    pub fn run_on_scores<E: Element, O: ScoreOracle<E>>(
        &self,
        oracle: &mut O,
        task: Task<'_, E>,
        out: &mut [E],
    ) -> Option<Result<Outcome, AttackError<O::Error>>> {
        if self.kind.needs_gradients() {
            return None;
        }
        let ready = match self.ready(oracle, task, out) {
            Ok(ready) => ready,
            Err(error) => return Some(Err(error)),
        };
        let objective = ready.objective;
        let mut counted = Counted::new(oracle, Budget::UNLIMITED);
        let label = self.search(&mut counted, ready);
        Some(outcome(label, objective, &counted))
    }

    /// Checks everything before the first question.
    fn ready<'a, E: Element, O: LabelOracle<E>>(
        &self,
        oracle: &O,
        task: Task<'a, E>,
        out: &'a mut [E],
    ) -> Result<Ready<'a, E>, AttackError<O::Error>> {
        let (n, classes) = (oracle.input_len(), oracle.classes());
        let length = |got| AttackError::Length { needed: n, got };
        if task.x.len() != n {
            return Err(length(task.x.len()));
        }
        if out.len() != n {
            return Err(length(out.len()));
        }
        if let Kind::Square { shape, .. } = self.kind {
            let size: u64 = shape.iter().map(|&side| u64::from(side)).product();
            if size != n as u64 {
                return Err(length(size as usize));
            }
        }
        let needed = self.scratch_len(n, classes);
        let got = task.scratch.len();
        let scratch = task
            .scratch
            .get_mut(..needed)
            .ok_or(AttackError::Length { needed, got })?;
        if !self.is_valid() {
            return Err(AttackError::Parameters);
        }
        if task.class >= classes {
            return Err(AttackError::Class {
                class: task.class,
                classes,
            });
        }
        Ok(Ready {
            objective: Objective {
                loss: self.loss,
                goal: self.goal(task.class),
            },
            x: task.x,
            out,
            state: (rng(task.seed, task.sample), scratch),
        })
    }

    /// The attacks that ask for gradients.
    fn climb<E: Element, O: GradientOracle<E>>(
        &self,
        oracle: &mut O,
        ready: Ready<'_, E>,
    ) -> Result<usize, O::Error> {
        let Ready {
            objective,
            x,
            out,
            state: (mut rng, scratch),
        } = ready;
        if self.kind == Kind::Fgsm {
            return fgsm(oracle, &self.ball, objective, x, out);
        }
        if self.kind == Kind::Universal {
            let (delta, v) = scratch.split_at_mut(x.len());
            return universal::alone(oracle, (self, objective), x, (delta, v), out);
        }
        let parameters = Pgd {
            ball: self.ball,
            step: self.step,
            steps: self.steps,
            starts: self.starts,
            random_start: self.random_start,
        };
        pgd(oracle, &parameters, objective, x, out, (&mut rng, scratch))
    }

    /// The attacks that ask for scores. Those that ask for more find nothing here.
    fn search<E: Element, O: ScoreOracle<E>>(
        &self,
        oracle: &mut O,
        ready: Ready<'_, E>,
    ) -> Result<usize, O::Error> {
        let Ready {
            objective,
            x,
            out,
            state: (mut rng, scratch),
        } = ready;
        let state = (&mut rng, scratch);
        match self.kind {
            Kind::Square { share, shape } => {
                let parameters = Square {
                    ball: self.ball,
                    queries: self.steps,
                    share,
                    shape: shape.map(usize::from),
                };
                square(oracle, &parameters, objective, x, out, state)
            }
            Kind::Nes { pairs, sigma } => {
                let parameters = Nes {
                    ball: self.ball,
                    step: self.step,
                    steps: self.steps,
                    pairs,
                    sigma,
                };
                nes(oracle, &parameters, objective, x, out, state)
            }
            Kind::Fgsm | Kind::Pgd | Kind::Universal => {
                out.copy_from_slice(x);
                oracle.classify(out)
            }
        }
    }
}

/// An attack that has been checked.
struct Ready<'a, E> {
    objective: Objective,
    x: &'a [E],
    out: &'a mut [E],
    state: (AttackRng, &'a mut [f32]),
}

fn outcome<E, O>(
    label: Result<usize, CountedError<E>>,
    objective: Objective,
    counted: &Counted<O>,
) -> Result<Outcome, AttackError<E>> {
    let label = label.map_err(|e| match e {
        CountedError::Oracle(e) => AttackError::Oracle(e),
        CountedError::BudgetSpent => AttackError::Parameters,
    })?;
    Ok(Outcome {
        label,
        fooled: objective.goal.is_met(label),
        queries: counted.queries,
        gradients: counted.gradients,
    })
}

/// One input to attack.
#[derive(Debug)]
pub struct Task<'a, E> {
    /// The input.
    pub x: &'a [E],
    /// Its label, or the target of a targeted attack.
    pub class: usize,
    /// Seed of the run.
    pub seed: u64,
    /// The sample's number in the data set: it picks the random stream.
    pub sample: u64,
    /// At least [`Spec::scratch_len`] elements; what they hold does not matter.
    pub scratch: &'a mut [f32],
}

/// What came of an attack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Outcome {
    /// The label that the oracle gives to the adversarial input.
    pub label: usize,
    /// Whether that is what the attacker wanted.
    pub fooled: bool,
    /// Forward passes.
    pub queries: u64,
    /// Backward passes.
    pub gradients: u64,
}

/// Why an attack could not run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum AttackError<E> {
    /// An input, output or scratch slice of the wrong length.
    Length {
        /// Elements needed.
        needed: usize,
        /// Elements given.
        got: usize,
    },
    /// A parameter is out of range (see [`Spec::is_valid`]).
    Parameters,
    /// A class that the model does not have.
    Class {
        /// Which.
        class: usize,
        /// How many there are.
        classes: usize,
    },
    /// The oracle failed.
    Oracle(E),
}

impl<E: core::fmt::Display> core::fmt::Display for AttackError<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            AttackError::Length { needed, got } => {
                write!(f, "{got} elements where {needed} are needed")
            }
            AttackError::Parameters => write!(
                f,
                "epsilon and step must be finite and not negative, low < high, steps, starts and probes at least 1, the norm linf or l2, or l1 for FGSM and PGD"
            ),
            AttackError::Class { class, classes } => {
                write!(f, "class {class}; the model has {classes}")
            }
            AttackError::Oracle(e) => e.fmt(f),
        }
    }
}

impl<E: core::fmt::Debug + core::fmt::Display> core::error::Error for AttackError<E> {}

// an attack asks through a counter, and the counter asks through a borrowed oracle
impl<E: Element, O: crate::threat::LabelOracle<E> + ?Sized> crate::threat::LabelOracle<E>
    for &mut O
{
    type Error = O::Error;
    fn input_len(&self) -> usize {
        (**self).input_len()
    }
    fn classes(&self) -> usize {
        (**self).classes()
    }
    fn classify(&mut self, x: &[E]) -> Result<usize, O::Error> {
        (**self).classify(x)
    }
}

impl<E: Element, O: crate::threat::ScoreOracle<E> + ?Sized> crate::threat::ScoreOracle<E>
    for &mut O
{
    fn scores(&mut self, x: &[E], scores: &mut [f32]) -> Result<usize, O::Error> {
        (**self).scores(x, scores)
    }
}

impl<E: Element, O: GradientOracle<E> + ?Sized> GradientOracle<E> for &mut O {
    fn gradient(
        &mut self,
        x: &[E],
        objective: Objective,
    ) -> Result<crate::threat::Gradient<'_>, O::Error> {
        (**self).gradient(x, objective)
    }
}
