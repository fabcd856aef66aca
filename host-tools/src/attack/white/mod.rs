//! White box: attacks that ask for gradients, one file each.

use super::catalog::Entry;
use super::problem::Problem;
use foolproof::attack::AttackRng;
use foolproof::threat::{Element, GradientOracle};

/// An attack that asks for gradients.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum White {}

impl White {
    /// Attacks one sample. What is found, the oracle's watcher keeps (see [`super::hunt`]).
    ///
    /// # Errors
    /// The oracle's, which is also how a hunt ends.
    pub fn run<E: Element, O: GradientOracle<E>>(
        &self,
        _oracle: &mut O,
        _problem: &Problem<'_, E>,
        _rng: &mut AttackRng,
    ) -> Result<(), O::Error> {
        match *self {}
    }
}

/// The white-box attacks by name.
pub const CATALOG: &[Entry] = &[];
