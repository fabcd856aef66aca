//! Black box, decisions only: attacks that ask for labels, one file each.

use super::catalog::Entry;
use super::problem::Problem;
use foolproof::attack::AttackRng;
use foolproof::threat::{Element, LabelOracle};

/// An attack that asks for labels.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum Labels {}

impl Labels {
    /// Attacks one sample. What is found, the oracle's watcher keeps (see [`super::hunt`]).
    ///
    /// # Errors
    /// The oracle's, which is also how a hunt ends.
    pub fn run<E: Element, O: LabelOracle<E>>(
        &self,
        _oracle: &mut O,
        _problem: &Problem<'_, E>,
        _rng: &mut AttackRng,
    ) -> Result<(), O::Error> {
        match *self {}
    }
}

/// The decision-based attacks by name.
pub const CATALOG: &[Entry] = &[];
