//! Attacks on the host. Those of the engine run anywhere; the others need a heap and are here, one file each,
//! by what they ask: [`white`] (gradients), [`scores`], [`labels`].
//!
//! An attack sees an oracle (see [`foolproof::threat`]) and a [`Problem`], never a model. Its oracle is watched
//! by a [`Hunt`], which counts, ends and keeps; so an attack only has to ask good questions.

pub mod boxes;
pub mod catalog;
pub mod hunt;
pub mod labels;
pub mod problem;
pub mod run;
pub mod scores;
pub mod suite;
pub mod white;

pub use catalog::{Access, Entry, Settings};
pub use hunt::{Aim, Hunt, Stop, Witness};
pub use problem::Problem;
pub use run::{Attacked, Found, Norms, Run, attack, norms};
pub use suite::{Choice, Suite, Terms};

use foolproof::attack::{Ball, Spec, rng};
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
    /// As it is, whatever the ball: in units of the model's input elements already.
    Ready(Spec),
}

impl Portable {
    /// The attack in a ball. Both in units of the model's input elements; `unit` is the real size of one.
    pub fn spec(&self, ball: Ball, unit: f32) -> Spec {
        match *self {
            Portable::Fgsm => Spec::fgsm(ball),
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

impl Attack {
    /// What it asks.
    pub fn access(&self) -> Access {
        match self {
            Attack::Portable(_) | Attack::White(_) => Access::Gradients,
            Attack::Scores(_) => Access::Scores,
            Attack::Labels(_) => Access::Labels,
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
        match self {
            Attack::Portable(portable) => run::portable(portable, oracle, problem, stream),
            Attack::White(attack) => attack.run(oracle, problem, rng),
            Attack::Scores(attack) => attack.run(oracle, problem, rng),
            Attack::Labels(attack) => attack.run(oracle, problem, rng),
        }
    }

    /// Runs on an oracle that gives scores; `None` where the attack needs more.
    pub fn on_scores<E: Element, O: ScoreOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
        stream: Stream,
    ) -> Option<Result<(), O::Error>> {
        let rng = &mut rng(stream.seed, stream.sample);
        match self {
            Attack::Scores(attack) => Some(attack.run(oracle, problem, rng)),
            Attack::Labels(attack) => Some(attack.run(oracle, problem, rng)),
            Attack::Portable(_) | Attack::White(_) => None,
        }
    }

    /// Runs on an oracle that gives labels; `None` where the attack needs more.
    pub fn on_labels<E: Element, O: LabelOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
        stream: Stream,
    ) -> Option<Result<(), O::Error>> {
        let rng = &mut rng(stream.seed, stream.sample);
        match self {
            Attack::Labels(attack) => Some(attack.run(oracle, problem, rng)),
            _ => None,
        }
    }
}

/// The random stream of one sample: neither threads nor the order of samples matter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stream {
    /// The run's seed.
    pub seed: u64,
    /// The sample's number.
    pub sample: u64,
}
