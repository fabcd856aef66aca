//! White box: attacks that ask for gradients, one file each.

#[cfg(test)]
pub(crate) mod analytic;
pub mod apgd;
pub mod carlini_wagner;
pub mod deepfool;
pub mod ead;
pub mod fab;
mod hyperplane;
pub mod jsma;
pub mod momentum;
pub mod penalty;
mod rank;
pub mod szegedy;
#[cfg(test)]
mod tests;

use super::catalog::Entry;
use super::problem::Problem;
use apgd::Apgd;
use carlini_wagner::CarliniWagner;
use deepfool::DeepFool;
use ead::ElasticNet;
use fab::Fab;
use foolproof::attack::AttackRng;
use foolproof::loss::Loss;
use foolproof::threat::{Element, GradientOracle};
use jsma::SaliencyMap;
use momentum::Momentum;
use szegedy::Szegedy;

/// An attack that asks for gradients.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum White {
    /// Momentum iterative FGSM.
    Momentum(Momentum),
    /// Auto-PGD.
    Apgd(Apgd),
    /// Fast adaptive boundary attack.
    Fab(Fab),
    /// DeepFool.
    DeepFool(DeepFool),
    /// Carlini and Wagner.
    CarliniWagner(CarliniWagner),
    /// EAD.
    ElasticNet(ElasticNet),
    /// JSMA.
    SaliencyMap(SaliencyMap),
    /// Szegedy's.
    Szegedy(Szegedy),
}

impl White {
    /// Attacks one sample. What is found, the oracle's watcher keeps (see [`super::hunt`]).
    ///
    /// # Errors
    /// The oracle's, which is also how a hunt ends.
    pub fn run<E: Element, O: GradientOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
        rng: &mut AttackRng,
    ) -> Result<(), O::Error> {
        match self {
            White::Momentum(attack) => attack.run(oracle, problem),
            White::Apgd(attack) => attack.run(oracle, problem, rng),
            White::Fab(attack) => attack.run(oracle, problem, rng),
            White::DeepFool(attack) => attack.run(oracle, problem),
            White::CarliniWagner(attack) => attack.run(oracle, problem),
            White::ElasticNet(attack) => attack.run(oracle, problem),
            White::SaliencyMap(attack) => attack.run(oracle, problem),
            White::Szegedy(attack) => attack.run(oracle, problem),
        }
    }

    /// What a success needs beyond the label: a loss, turned towards the goal, and its least value.
    pub fn demand(&self) -> Option<(Loss, f32)> {
        match self {
            White::CarliniWagner(attack) => attack.hinge.demand(),
            White::ElasticNet(attack) => attack.hinge.demand(),
            _ => None,
        }
    }
}

/// The white-box attacks by name.
pub const CATALOG: &[Entry] = &[
    momentum::ENTRY,
    apgd::CROSS_ENTROPY,
    apgd::LOGIT_RATIO,
    apgd::CLASS_BY_CLASS,
    fab::ENTRY,
    fab::CLASS_BY_CLASS,
    deepfool::ENTRY,
    carlini_wagner::ENTRY,
    ead::ENTRY,
    jsma::ENTRY,
    szegedy::ENTRY,
];
