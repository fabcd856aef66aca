//! Attacks on the host. Those of the engine run anywhere; the others need a heap and are here, one file each,
//! by what they ask: [`white`] (gradients), [`scores`], [`labels`].
//!
//! An attack sees an oracle (see [`foolproof::threat`]) and a [`Problem`], never a model. Its oracle is watched
//! by a [`Hunt`], which counts, ends and keeps; so an attack only has to ask good questions.

pub mod boxes;
pub mod catalog;
pub mod erased;
pub mod hunt;
pub mod journal;
pub mod labels;
pub mod minimum;
pub mod problem;
pub mod random;
pub mod run;
pub mod scores;
pub mod success;
pub mod suite;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod transfer;
pub mod universal;
pub mod white;

pub use catalog::{Access, Entry, Settings};
use erased::{Erased, Failed};
pub use hunt::{Aim, Hunt, Stop, Witness};
pub use problem::{Problem, image_shape};
pub use run::{Attacked, Found, Norms, Run, attack, norms};
pub use suite::{Choice, Suite, Terms};

use foolproof::attack::{AttackRng, Ball, Kind, Spec, rng};
use foolproof::loss::Loss;
use foolproof::threat::{Element, GradientOracle, LabelOracle, ScoreOracle};

/// An attack with its settings, before it meets a ball.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum Attack {
    /// One of the engine's, which run on the chip too.
    Portable(Portable),
    /// Asks for gradients.
    White(white::White),
    /// Asks for scores.
    Scores(scores::Scores),
    /// Asks for labels.
    Labels(labels::Labels),
    /// One perturbation for all samples; asks for gradients.
    Universal(universal::Universal),
}

/// An attack of the engine with its settings.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum Portable {
    /// One step.
    Fgsm,
    /// Many steps.
    Pgd {
        /// Steps per start.
        steps: u16,
        /// Starts.
        starts: u16,
        /// Length of a step, real units; otherwise `2.5 epsilon / steps`.
        step: Option<f32>,
        /// Whether the first start is random too.
        random_start: bool,
        /// What is climbed.
        loss: Loss,
    },
    /// Random search with squares.
    Square {
        /// The most that is asked.
        queries: u16,
        /// Share of the image that the first squares cover; otherwise the authors' choice.
        share: Option<f32>,
        /// What is climbed.
        loss: Loss,
    },
    /// Gradients estimated from scores.
    Nes {
        /// The most that is asked.
        queries: u16,
        /// Pairs of probes per step.
        pairs: u16,
        /// Standard deviation of the probes, real units; otherwise a thousandth of the box, and at least 2 LSB.
        sigma: Option<f32>,
        /// Length of a step, real units; otherwise 0.3 epsilon.
        step: Option<f32>,
        /// What is climbed.
        loss: Loss,
    },
    /// One perturbation for all samples, fitted on one after the other.
    Universal {
        /// Passes over the samples.
        passes: u16,
    },
    /// As it is, whatever the ball: in units of the model's input elements already.
    Ready(Spec),
}

impl Portable {
    /// The attack in a ball. Both in units of the model's input elements.
    pub fn spec(&self, ball: Ball, input: InputKind) -> Spec {
        let InputKind {
            unit,
            lattice,
            shape,
        } = input;
        match *self {
            Portable::Square {
                queries,
                share,
                loss,
            } => {
                // a side that no chip could hold is refused by the engine: the length will not fit
                let shape = shape.map(|side| u16::try_from(side).unwrap_or(u16::MAX));
                let plain = Spec::square(ball, queries, shape);
                let kind = match (share, plain.kind) {
                    (Some(share), Kind::Square { shape, .. }) => Kind::Square { share, shape },
                    (_, kind) => kind,
                };
                Spec {
                    kind,
                    loss,
                    ..plain
                }
            }
            Portable::Nes {
                queries,
                pairs,
                sigma,
                step,
                loss,
            } => {
                let least = if lattice { 2.0 } else { 0.0 };
                // and one question more, about the last iterate
                let steps = (u32::from(queries) - 1) / (2 * u32::from(pairs) + 1);
                let plain = Spec::nes(ball, steps.max(1) as u16);
                let sigma = match sigma {
                    Some(real) => real / unit,
                    None => (0.001 * (ball.high - ball.low)).max(least),
                };
                Spec {
                    kind: Kind::Nes { pairs, sigma },
                    step: step.map_or(plain.step, |real| real / unit),
                    loss,
                    ..plain
                }
            }
            Portable::Fgsm => Spec::fgsm(ball),
            Portable::Universal { passes } => Spec::universal(ball, passes),
            Portable::Ready(spec) => spec,
            Portable::Pgd {
                steps,
                starts,
                step,
                random_start,
                loss,
            } => {
                let plain = Spec::pgd(ball, steps);
                Spec {
                    step: step.map_or(plain.step, |real| real / unit),
                    starts,
                    random_start,
                    loss,
                    ..plain
                }
            }
        }
    }
}

/// What an attack must know of the input to be put in a ball.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct InputKind {
    /// Real units per unit of an element.
    pub unit: f32,
    /// Whether elements lie on a grid.
    pub lattice: bool,
    /// Height, width and channels.
    pub shape: [usize; 3],
}

impl Attack {
    /// What it asks.
    pub fn access(&self) -> Access {
        match self {
            Attack::Portable(Portable::Square { .. } | Portable::Nes { .. }) => Access::Scores,
            Attack::Portable(Portable::Ready(spec)) if !spec.kind.needs_gradients() => {
                Access::Scores
            }
            Attack::Portable(_) | Attack::White(_) | Attack::Universal(_) => Access::Gradients,
            Attack::Scores(_) => Access::Scores,
            Attack::Labels(_) => Access::Labels,
        }
    }

    /// Whether it looks for one perturbation for all samples.
    pub fn is_universal(&self) -> bool {
        match self {
            Attack::Universal(_) | Attack::Portable(Portable::Universal { .. }) => true,
            Attack::Portable(Portable::Ready(spec)) => spec.kind == Kind::Universal,
            _ => false,
        }
    }

    /// What a success needs beyond the label: a loss, turned towards the goal, and its least value.
    pub fn demand(&self) -> Option<(Loss, f32)> {
        match self {
            Attack::White(attack) => attack.demand(),
            _ => None,
        }
    }

    /// Runs on an oracle that gives gradients: every attack can.
    ///
    /// # Errors
    /// The oracle's, which is also how a hunt ends.
    pub fn on_gradients<E: Element, O: GradientOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
        stream: Stream,
    ) -> Result<(), O::Error> {
        let rng = &mut rng(stream.seed, stream.sample);
        let mut erased = Erased::new(oracle);
        let mut oracle: &mut dyn GradientOracle<E, Error = Failed> = &mut erased;
        let ran = match self {
            Attack::Portable(portable) => run::portable(portable, &mut oracle, problem, stream),
            Attack::White(attack) => attack.run(&mut oracle, problem, rng),
            Attack::Universal(attack) => attack.alone(&mut oracle, problem),
            Attack::Scores(attack) => scores_only(attack, oracle, problem, rng),
            Attack::Labels(attack) => labels_only(attack, oracle, problem, rng),
        };
        erased.result(ran)
    }

    /// Runs on an oracle that gives scores; `None` where the attack needs more.
    pub fn on_scores<E: Element, O: ScoreOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
        stream: Stream,
    ) -> Option<Result<(), O::Error>> {
        let rng = &mut rng(stream.seed, stream.sample);
        let mut erased = Erased::new(oracle);
        let ran = match self {
            Attack::Scores(attack) => scores_only(attack, &mut erased, problem, rng),
            Attack::Labels(attack) => labels_only(attack, &mut erased, problem, rng),
            Attack::Portable(portable) => {
                let mut oracle: &mut dyn ScoreOracle<E, Error = Failed> = &mut erased;
                run::portable_on_scores(portable, &mut oracle, problem, stream)?
            }
            Attack::White(_) | Attack::Universal(_) => return None,
        };
        Some(erased.result(ran))
    }

    /// Runs on an oracle that gives labels; `None` where the attack needs more.
    pub fn on_labels<E: Element, O: LabelOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
        stream: Stream,
    ) -> Option<Result<(), O::Error>> {
        let rng = &mut rng(stream.seed, stream.sample);
        let Attack::Labels(attack) = self else {
            return None;
        };
        let mut erased = Erased::new(oracle);
        let ran = labels_only(attack, &mut erased, problem, rng);
        Some(erased.result(ran))
    }
}

/// An attack that asks for scores, compiled for an oracle that gives no more.
fn scores_only<E: Element>(
    attack: &scores::Scores,
    mut oracle: &mut dyn ScoreOracle<E, Error = Failed>,
    problem: &Problem<'_, E>,
    rng: &mut AttackRng,
) -> Result<(), Failed> {
    attack.run(&mut oracle, problem, rng)
}

/// The same for labels.
fn labels_only<E: Element>(
    attack: &labels::Labels,
    mut oracle: &mut dyn LabelOracle<E, Error = Failed>,
    problem: &Problem<'_, E>,
    rng: &mut AttackRng,
) -> Result<(), Failed> {
    attack.run(&mut oracle, problem, rng)
}

/// The random stream of one sample: neither threads nor the order of samples matter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stream {
    /// The run's seed.
    pub seed: u64,
    /// The sample's number.
    pub sample: u64,
}
