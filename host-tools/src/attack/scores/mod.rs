//! Black box with scores: attacks that ask for the scores of all classes, one file each. The square attack and NES are
//! in the engine, since they run on the chip too.

mod asked;
mod sign_hunter;
pub mod simba;
pub mod spsa;
pub mod zoo;

pub use sign_hunter::SignHunter;

use super::Attack;
use super::catalog::{Access, Entry, Settings};
use super::problem::Problem;
use crate::error::Result;
use foolproof::attack::{AttackRng, Norm};
use foolproof::threat::{Element, ScoreOracle};
use simba::Simba;
use spsa::Spsa;
use zoo::Zoo;

/// An attack that asks for scores.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum Scores {
    /// Signs of blocks, largest first.
    SignHunter(SignHunter),
    /// Gradients from random corners.
    Spsa(Spsa),
    /// One direction of a basis after the other.
    Simba(Simba),
    /// Gradients element by element.
    Zoo(Zoo),
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
        rng: &mut AttackRng,
    ) -> std::result::Result<(), O::Error> {
        match self {
            Scores::SignHunter(attack) => attack.run(oracle, problem),
            Scores::Spsa(attack) => attack.run(oracle, problem, rng),
            Scores::Simba(attack) => attack.run(oracle, problem, rng),
            Scores::Zoo(attack) => attack.run(oracle, problem, rng),
        }
    }
}

/// The score-based attacks by name.
pub const CATALOG: &[Entry] = &[
    Entry::new("signhunter", Access::Scores, &[Norm::Linf, Norm::L2], |s| {
        let queries = s.queries(1000)?;
        Ok(Attack::Scores(Scores::SignHunter(SignHunter { queries })))
    })
    .about("signs of ever smaller blocks of the perturbation (Al-Dujaili, O'Reilly 2020)")
    .with(&[("queries", "1000")]),
    Entry::new("spsa", Access::Scores, &[Norm::Linf, Norm::L2], |s| {
        Ok(Attack::Scores(Scores::Spsa(Spsa {
            queries: s.queries(5000)?,
            pairs: s.whole("pairs", 25, 1, 100_000)?,
            delta: s.number("delta", 0.01, 1e-6, 1.0)? as f32,
            rate: s.number("rate", 0.03, 0.0, 1.0)? as f32,
        })))
    })
    .about("Adam on gradients estimated at random corners (Uesato et al. 2018)")
    .with(&[
        ("queries", "5000"),
        ("pairs", "25"),
        ("delta", "0.01"),
        ("rate", "0.03"),
    ]),
    Entry::new("simba", Access::Scores, &[Norm::L2, Norm::Linf], |s| {
        simba(s, false)
    })
    .about("one element after the other, a step forth or back (Guo et al. 2019)")
    .with(&[("queries", "5000"), ("step", "0.2")]),
    Entry::new("simba-dct", Access::Scores, &[Norm::L2, Norm::Linf], |s| {
        simba(s, true)
    })
    .about("one low frequency after the other, a step forth or back (Guo et al. 2019)")
    .with(&[("queries", "5000"), ("step", "0.2"), ("frequencies", "0.5")]),
    Entry::new("zoo", Access::Scores, &[Norm::L2], |s| {
        Ok(Attack::Scores(Scores::Zoo(Zoo {
            queries: s.queries(20_000)?,
            binary_steps: s.whole("binary_steps", 5, 1, 20)?,
            c: s.number("c", 0.01, 1e-9, 1e9)? as f32,
            kappa: s.number("kappa", 0.0, 0.0, 1e6)? as f32,
            rate: s.number("rate", 0.05, 1e-6, 1.0)? as f32,
            batch: s.whole("batch", 128, 1, 1_000_000)?,
        })))
    })
    .about("the objective of Carlini and Wagner, element by element (Chen et al. 2017)")
    .with(&[
        ("queries", "20000"),
        ("binary_steps", "5"),
        ("c", "0.01"),
        ("kappa", "0"),
        ("rate", "0.05"),
        ("batch", "128"),
    ])
    .nearest(),
];

fn simba(s: &mut Settings, dct: bool) -> Result<Attack> {
    Ok(Attack::Scores(Scores::Simba(Simba {
        queries: s.queries(5000)?,
        step: s.number("step", 0.2, 1e-6, 1.0)? as f32,
        frequencies: match dct {
            true => Some(s.number("frequencies", 0.5, 1e-3, 1.0)? as f32),
            false => None,
        },
    })))
}
