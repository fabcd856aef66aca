//! Black box with scores: attacks that ask for the scores of all classes, one file each.

mod sign_hunter;

pub use sign_hunter::SignHunter;

use super::catalog::{Access, Entry};
use super::problem::Problem;
use crate::attack::Attack;
use foolproof::attack::{AttackRng, Norm};
use foolproof::threat::{Element, ScoreOracle};

/// An attack that asks for scores.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum Scores {
    /// Signs of blocks, largest first.
    SignHunter(SignHunter),
}

impl Scores {
    /// Attacks one sample. What is found, the oracle's watcher keeps (see [`super::hunt`]).
    ///
    /// # Errors
    /// The oracle's, which is also how a hunt ends.
    pub fn run<E: Element, O: ScoreOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
        _rng: &mut AttackRng,
    ) -> Result<(), O::Error> {
        match self {
            Scores::SignHunter(attack) => attack.run(oracle, problem),
        }
    }
}

/// The score-based attacks by name.
pub const CATALOG: &[Entry] =
    &[
        Entry::new("signhunter", Access::Scores, &[Norm::Linf, Norm::L2], |s| {
            let queries = s.whole("queries", 1000, 1, 1_000_000)?;
            Ok(Attack::Scores(Scores::SignHunter(SignHunter { queries })))
        })
        .about("signs of ever smaller blocks of the perturbation (Al-Dujaili, O'Reilly 2020)")
        .with(&[("queries", "1000")]),
    ];
