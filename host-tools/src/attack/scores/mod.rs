//! Black box with scores: attacks that ask for the scores of all classes, one file each.

use super::catalog::Entry;
use super::problem::Problem;
use foolproof::attack::AttackRng;
use foolproof::threat::{Element, ScoreOracle};

/// An attack that asks for scores.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum Scores {}

impl Scores {
    /// Attacks one sample. What is found, the oracle's watcher keeps (see [`super::hunt`]).
    ///
    /// # Errors
    /// The oracle's, which is also how a hunt ends.
    pub fn run<E: Element, O: ScoreOracle<E>>(
        &self,
        _oracle: &mut O,
        _problem: &Problem<'_, E>,
        _rng: &mut AttackRng,
    ) -> Result<(), O::Error> {
        match *self {}
    }
}

/// The score-based attacks by name.
pub const CATALOG: &[Entry] = &[];
