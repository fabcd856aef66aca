//! White box: attacks that ask for gradients, one file each.

#[cfg(test)]
pub(crate) mod analytic;
pub mod carlini_wagner;
pub mod ead;
pub mod jsma;
pub mod penalty;
pub mod szegedy;

use super::catalog::Entry;
use super::problem::Problem;
use carlini_wagner::CarliniWagner;
use ead::ElasticNet;
use foolproof::attack::AttackRng;
use foolproof::loss::Loss;
use foolproof::threat::{Element, GradientOracle};
use jsma::SaliencyMap;
use szegedy::Szegedy;

/// An attack that asks for gradients.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum White {
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
        _rng: &mut AttackRng,
    ) -> Result<(), O::Error> {
        match self {
            White::CarliniWagner(attack) => attack.run(oracle, problem),
            White::ElasticNet(attack) => attack.run(oracle, problem),
            White::SaliencyMap(attack) => attack.run(oracle, problem),
            White::Szegedy(attack) => attack.run(oracle, problem),
        }
    }
}

impl White {
    /// What a success needs beyond the label: a loss, turned towards the goal, and its least value.
    pub fn demand(&self) -> Option<(Loss, f32)> {
        match self {
            White::CarliniWagner(attack) => attack.hinge.demand(),
            White::ElasticNet(attack) => attack.hinge.demand(),
            White::SaliencyMap(_) | White::Szegedy(_) => None,
        }
    }
}

/// The white-box attacks by name.
pub const CATALOG: &[Entry] = &[
    carlini_wagner::ENTRY,
    ead::ENTRY,
    jsma::ENTRY,
    szegedy::ENTRY,
];
