//! Black box, decisions only: attacks that ask for labels, one file each.

pub mod boundary;
mod ground;
pub mod hopskipjump;
pub mod noise;

use super::Attack;
use super::catalog::{Access, Entry, Settings};
use super::problem::Problem;
use crate::error::Result;
use boundary::Boundary;
use foolproof::attack::{AttackRng, Norm};
use foolproof::threat::{Element, LabelOracle};
use hopskipjump::HopSkipJump;
use noise::Noise;

/// An attack that asks for labels.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum Labels {
    /// Estimates the boundary's normal.
    HopSkipJump(HopSkipJump),
    /// Walks along the boundary.
    Boundary(Boundary),
    /// Knows nothing.
    Noise(Noise),
}

impl Labels {
    /// Attacks one sample. What is found, the oracle's watcher keeps (see [`super::hunt`]).
    ///
    /// # Errors
    /// The oracle's, which is also how a hunt ends.
    pub fn run<E: Element, O: LabelOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
        rng: &mut AttackRng,
    ) -> std::result::Result<(), O::Error> {
        match self {
            Labels::HopSkipJump(attack) => attack.run(oracle, problem, rng),
            Labels::Boundary(attack) => attack.run(oracle, problem, rng),
            Labels::Noise(attack) => attack.run(oracle, problem, rng),
        }
    }
}

/// The decision-based attacks by name.
pub const CATALOG: &[Entry] = &[
    Entry::new(
        "hopskipjump",
        Access::Labels,
        &[Norm::L2, Norm::Linf],
        hopskipjump,
    )
    .about("steps along the boundary's normal, estimated from labels (Chen et al. 2020)")
    .with(&[
        ("queries", "25000"),
        ("steps", "64"),
        ("neighbours", "100"),
        ("draws", "64"),
        ("memory", "0.7"),
        ("radius", "1 / elements (int8: 0.3)"),
    ])
    .nearest(),
    Entry::new("boundary", Access::Labels, &[Norm::L2], |s| {
        s.queries(30_000)?;
        Ok(Attack::Labels(Labels::Boundary(Boundary {
            steps: s.whole("steps", 25_000, 1, 10_000_000)?,
            draws: s.whole("draws", 64, 1, 100_000)?,
        })))
    })
    .about("a random walk along the boundary (Brendel et al. 2018)")
    .with(&[("queries", "30000"), ("steps", "25000"), ("draws", "64")])
    .nearest(),
    Entry::new(
        "gaussian-noise",
        Access::Labels,
        &[Norm::L2, Norm::Linf, Norm::L1],
        |s| noise(s, noise::Kind::Gaussian),
    )
    .about("the floor: normal noise, stronger and stronger (Hendrycks and Dietterich 2019)")
    .with(NOISE)
    .nearest(),
    Entry::new(
        "uniform-noise",
        Access::Labels,
        &[Norm::Linf, Norm::L2, Norm::L1],
        |s| noise(s, noise::Kind::Uniform),
    )
    .about("the floor: uniform noise, stronger and stronger")
    .with(NOISE)
    .nearest(),
    Entry::new(
        "contrast",
        Access::Labels,
        &[Norm::L2, Norm::Linf, Norm::L1],
        |s| {
            s.queries(2000)?;
            Ok(Attack::Labels(Labels::Noise(Noise {
                kind: noise::Kind::Contrast,
                repeats: 1,
                steps: s.whole("steps", 100, 1, 100_000)?,
            })))
        },
    )
    .about("the floor: contrast fades to grey")
    .with(&[("queries", "2000"), ("steps", "100")])
    .nearest(),
    Entry::new(
        "salt-and-pepper",
        Access::Labels,
        &[Norm::L0, Norm::L2, Norm::L1],
        |s| noise(s, noise::Kind::SaltAndPepper),
    )
    .about("the floor: more and more elements become black or white")
    .with(NOISE)
    .nearest(),
];

const NOISE: &[(&str, &str)] = &[("queries", "2000"), ("repeats", "10"), ("steps", "100")];

fn noise(s: &mut Settings, kind: noise::Kind) -> Result<Attack> {
    s.queries(2000)?;
    Ok(Attack::Labels(Labels::Noise(Noise {
        kind,
        repeats: s.whole("repeats", 10, 1, 100_000)?,
        steps: s.whole("steps", 100, 1, 100_000)?,
    })))
}

fn hopskipjump(s: &mut Settings) -> Result<Attack> {
    s.queries(25_000)?;
    Ok(Attack::Labels(Labels::HopSkipJump(HopSkipJump {
        steps: s.whole("steps", 64, 1, 100_000)?,
        neighbours: s.whole("neighbours", 100, 1, 10_000)?,
        draws: s.whole("draws", 64, 1, 100_000)?,
        memory: s.number("memory", 0.7, 0.0, 1.0)? as f32,
        radius: s.given("radius", 1e-6, 1.0)?,
    })))
}
