//! Attacks that run anywhere, on the host and on the chip, one file each. They see an oracle
//! (see [`crate::threat`]), never a model.
//!
//! An attack starts from one input, stays inside a ball around it and inside the box of values that an input
//! can have, and returns the best point that it found. On f32 inputs epsilon and step are in the input's real
//! units. On int8 inputs they are in LSB: the attack searches on the grid that the device sees, so nothing
//! that it finds is lost in rounding.

mod ball;
mod fgsm;
mod pgd;

pub use ball::{Ball, Norm};
pub use fgsm::fgsm;
pub use pgd::{Pgd, pgd};

use crate::loss::{Goal, Loss, Objective};
use crate::threat::{Budget, Counted, CountedError, Element, GradientOracle};
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[cfg_attr(feature = "link", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Kind {
    /// One step (Goodfellow et al. 2014).
    Fgsm,
    /// Many steps with projection (Kurakin et al. 2016, Madry et al. 2017).
    Pgd,
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
    /// Size of one step, in the units of epsilon; PGD only.
    pub step: f32,
    /// Steps per start; PGD only.
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

    /// The same attack on the grid: a step in the linf norm is a whole number of LSB, at least 1.
    pub fn on_lattice(self) -> Spec {
        match self.ball.norm {
            Norm::Linf => Spec {
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

    /// Elements of scratch that [`Spec::run`] needs for inputs of `n` elements.
    pub fn scratch_len(&self, n: usize) -> usize {
        match (self.kind, self.ball.norm) {
            (Kind::Pgd, Norm::L2) => n,
            _ => 0,
        }
    }

    /// Whether every number is usable: epsilon and step finite and not negative, low < high, at least one
    /// step and one start, and a norm that the attack knows (linf or l2).
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
            && matches!(self.ball.norm, Norm::Linf | Norm::L2)
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
        let n = oracle.input_len();
        let length = |got| AttackError::Length { needed: n, got };
        if task.x.len() != n {
            return Err(length(task.x.len()));
        }
        if out.len() != n {
            return Err(length(out.len()));
        }
        let scratch_len = self.scratch_len(n);
        let got = task.scratch.len();
        let scratch = task
            .scratch
            .get_mut(..scratch_len)
            .ok_or(AttackError::Length {
                needed: scratch_len,
                got,
            })?;
        if !self.is_valid() {
            return Err(AttackError::Parameters);
        }
        if task.class >= oracle.classes() {
            return Err(AttackError::Class {
                class: task.class,
                classes: oracle.classes(),
            });
        }
        let objective = Objective {
            loss: self.loss,
            goal: self.goal(task.class),
        };
        let mut counted = Counted::new(oracle, Budget::UNLIMITED);
        let label = match self.kind {
            Kind::Fgsm => fgsm(&mut counted, &self.ball, objective, task.x, out),
            Kind::Pgd => {
                let pgd_parameters = Pgd {
                    ball: self.ball,
                    step: self.step,
                    steps: self.steps,
                    starts: self.starts,
                    random_start: self.random_start,
                };
                let mut rng = rng(task.seed, task.sample);
                pgd(
                    &mut counted,
                    &pgd_parameters,
                    objective,
                    task.x,
                    out,
                    (&mut rng, scratch),
                )
            }
        }
        .map_err(|e| match e {
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
                "epsilon and step must be finite and not negative, low < high, steps and starts at least 1, the norm linf or l2"
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
impl<E: Element, O: crate::threat::LabelOracle<E>> crate::threat::LabelOracle<E> for &mut O {
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

impl<E: Element, O: crate::threat::ScoreOracle<E>> crate::threat::ScoreOracle<E> for &mut O {
    fn scores(&mut self, x: &[E], scores: &mut [f32]) -> Result<usize, O::Error> {
        (**self).scores(x, scores)
    }
}

impl<E: Element, O: GradientOracle<E>> GradientOracle<E> for &mut O {
    fn gradient(
        &mut self,
        x: &[E],
        objective: Objective,
    ) -> Result<crate::threat::Gradient<'_>, O::Error> {
        (**self).gradient(x, objective)
    }
}
