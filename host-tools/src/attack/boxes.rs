//! Attacks inside given boxes `[lo, hi]` instead of balls: local robustness as verifiers state it.
//!
//! A box is searched as the unit linf ball of another variable: `x = centre + half_width * u` with `u` in [-1, 1]. So every
//! attack in the linf norm works in a box without knowing of it, and an element whose box is a point stays where it is.

use super::journal::Kept;
use super::run::{Page, hunt, white_box};
use super::{Aim, Found, Problem, Run, Stream};
use crate::classifier::{Classifier, Inputs};
use crate::data::{npy, npz};
use crate::error::{Error, Result};
use crate::evaluate::Plan;
use crate::files;
use foolproof::attack::{AttackError, Ball, Norm, Outcome};
use foolproof::loss::{Goal, Objective};
use foolproof::memory::Mode;
use foolproof::session::{Session, SessionError};
use foolproof::threat::{Budget, Element, Gradient, GradientOracle, LabelOracle, ScoreOracle};
use rayon::prelude::*;
use std::path::Path;

/// Boxes in the model's own units, one per row, and the class that each row is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Boxes {
    name: String,
    /// Elements of one row.
    len: usize,
    lo: Vec<f32>,
    hi: Vec<f32>,
    labels: Vec<usize>,
}

impl Boxes {
    /// Reads `lo`, `hi` (`[n, d]` or `[n, ...]`) and `label` (`[n]`) from an `.npz` archive.
    ///
    /// # Errors
    /// An array is missing or of another shape, or a box is empty or not finite.
    pub fn read(path: &Path) -> Result<Boxes> {
        let name = path.display().to_string();
        let file = files::read(path)?;
        let right = "lo and hi [n, d] and label [n], as numpy.savez(path, lo=lo, hi=hi, label=label) writes them";
        let array = |key: &str| {
            npz::read_array(&file, key)
                .map_err(|error| Error::new(error, &name, right))?
                .ok_or_else(|| Error::new(format!("no array {key}"), &name, right))
        };
        let (lo, hi, label) = (array("lo")?, array("hi")?, array("label")?);
        let count = label.shape.first().copied().unwrap_or(0);
        let fits = label.shape.len() == 1
            && count > 0
            && lo.shape == hi.shape
            && lo.shape.first() == Some(&count)
            && lo.shape.len() >= 2;
        if !fits {
            return Err(Error::new(
                format!(
                    "lo {:?}, hi {:?} and label {:?} do not go together",
                    lo.shape, hi.shape, label.shape
                ),
                &name,
                right,
            ));
        }
        let real = |array: npy::Array| match array.values.into_samples() {
            Ok(crate::data::Samples::F32(values)) => Ok(values),
            Ok(other) => Err(Error::new(
                format!("boxes of type {}", other.type_name()),
                &name,
                "lo and hi in float32",
            )),
            Err(error) => Err(Error::new(error, &name, right)),
        };
        let (lo, hi) = (real(lo)?, real(hi)?);
        let len = lo.len() / count;
        let within = |i: usize| lo[i].is_finite() && hi[i].is_finite() && lo[i] <= hi[i];
        if let Some(i) = (0..lo.len()).find(|&i| !within(i)) {
            return Err(Error::new(
                format!(
                    "row {} has an element from {} to {}",
                    i / len.max(1),
                    lo[i],
                    hi[i]
                ),
                &name,
                "finite ends, lo <= hi for every element",
            ));
        }
        let labels = label
            .values
            .into_integers()
            .map_err(|error| Error::new(error, &name, right))?
            .into_iter()
            .map(|label| {
                usize::try_from(label).map_err(|_| {
                    Error::new(
                        format!("label {label}"),
                        &name,
                        "labels are classes, from 0",
                    )
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Boxes {
            name,
            len,
            lo,
            hi,
            labels,
        })
    }

    /// Where they come from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Elements of one row.
    pub fn sample_len(&self) -> usize {
        self.len
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The class that each row is about: to avoid, or to reach.
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// The first `count` rows.
    pub fn take(mut self, count: usize) -> Boxes {
        let count = count.min(self.len());
        self.labels.truncate(count);
        self.lo.truncate(count * self.len);
        self.hi.truncate(count * self.len);
        self
    }

    /// The same boxes with every row's elements in another order.
    pub fn reordered(self, turn: impl Fn(&[f32]) -> Vec<f32>) -> Boxes {
        Boxes {
            lo: turn(&self.lo),
            hi: turn(&self.hi),
            ..self
        }
    }

    fn row(&self, i: usize) -> (&[f32], &[f32]) {
        let range = i * self.len..(i + 1) * self.len;
        (&self.lo[range.clone()], &self.hi[range])
    }

    /// Both corners of every row, one row after the other.
    pub fn bounds(&self) -> Inputs {
        let rows = (0..self.len()).map(|i| self.row(i));
        Inputs::F32(rows.flat_map(|(lo, hi)| [lo, hi].concat()).collect())
    }

    /// The middles, as the model takes them.
    pub fn centres(&self, classifier: &Classifier<'_>) -> Inputs {
        let middles = self
            .lo
            .iter()
            .zip(&self.hi)
            .map(|(lo, hi)| middle(*lo, *hi));
        let middles: Vec<f32> = middles.collect();
        classifier.inputs(&middles)
    }
}

fn middle(lo: f32, hi: f32) -> f32 {
    (0.5 * (f64::from(lo) + f64::from(hi))) as f32
}

/// What one attack made of every row.
#[derive(Clone, Debug)]
pub struct Searched {
    /// The point of each row: a witness where the row is broken.
    pub inputs: Inputs,
    /// One outcome per row.
    pub outcomes: Vec<Outcome>,
}

/// Attacks every row that `broken` does not name yet.
///
/// # Errors
/// A box that holds no point of the model's grid, a class that the model does not have, impossible parameters.
pub fn search(
    classifier: &Classifier<'_>,
    boxes: &Boxes,
    plan: &Plan,
    work: &Work<'_>,
) -> Result<Searched> {
    match classifier.is_quantized() {
        false => {
            let (x, outcomes) = search_elements::<f32>(classifier, boxes, plan, work)?;
            Ok(Searched {
                inputs: Inputs::F32(x),
                outcomes,
            })
        }
        true => {
            let (x, outcomes) = search_elements::<i8>(classifier, boxes, plan, work)?;
            Ok(Searched {
                inputs: Inputs::I8(x),
                outcomes,
            })
        }
    }
}

/// How a search goes on.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// Whether a row's class is one to reach.
    pub targeted: bool,
    /// Rows that need no more searching.
    pub broken: &'a [bool],
    /// Seed.
    pub seed: u64,
    /// Called with 1 after every row.
    pub progress: &'a (dyn Fn(u64) + Sync),
    /// What an interrupted run had found, and where results are noted; and this attack's number there.
    pub page: Option<Page<'a>>,
}

fn search_elements<E>(
    classifier: &Classifier<'_>,
    boxes: &Boxes,
    plan: &Plan,
    work: &Work<'_>,
) -> Result<(Vec<E>, Vec<Outcome>)>
where
    E: Kept + Default + Send + Sync,
    for<'s> Session<'s>: GradientOracle<E, Error = SessionError>,
{
    let n = boxes.len;
    let start = vec![0.0_f32; n];
    let found: Vec<Result<(Vec<E>, Outcome)>> = (0..boxes.len())
        .into_par_iter()
        .map_init(
            || classifier.buffer(Mode::Attack),
            |buffer, i| {
                if let Some(found) = work.page.and_then(|page| page.find(i, n)) {
                    (work.progress)(1);
                    return Ok((found.x, found.outcome));
                }
                let session = classifier
                    .session(Mode::Attack, buffer)
                    .map_err(|error| Error::new(error, &boxes.name, ""))?;
                let mut oracle = BoxOracle::<E, _>::new(session, classifier, boxes.row(i))
                    .ok_or_else(|| {
                        Error::new(
                            format!("row {i} holds no point of the model's int8 grid"),
                            &boxes.name,
                            "boxes of at least one step of the input",
                        )
                    })?;
                let class = boxes.labels[i];
                let problem = Problem {
                    x: &start,
                    goal: match work.targeted {
                        true => Goal::Reach(class),
                        false => Goal::Avoid(class),
                    },
                    ball: UNIT_BOX,
                    unit: 1.0,
                    classes: classifier.model().classes(),
                    shape: classifier.image_shape(),
                };
                let run = Run {
                    attack: plan.attack,
                    aim: Aim::Any,
                    ball: UNIT_BOX,
                    classes: &[],
                    targeted: work.targeted,
                    budget: plan.budget,
                    total: Budget::UNLIMITED,
                    skip: &[],
                    seed: work.seed,
                    progress: work.progress,
                    page: None,
                };
                let stream = Stream {
                    seed: work.seed,
                    sample: i as u64,
                };
                let found = match work.broken[i] {
                    true => unasked(&problem),
                    false => any_witness(&mut oracle, &problem, &run, stream)
                        .map_err(|error| Error::new(error, &boxes.name, "other settings"))?,
                };
                (work.progress)(1);
                oracle.place(&found.x);
                let found = Found {
                    x: oracle.x,
                    outcome: found.outcome,
                };
                if let Some(page) = work.page {
                    page.note(i, &found);
                }
                Ok((found.x, found.outcome))
            },
        )
        .collect();
    let found = found.into_iter().collect::<Result<Vec<_>>>()?;
    let outcomes = found.iter().map(|(_, outcome)| *outcome).collect();
    Ok((found.into_iter().flat_map(|(x, _)| x).collect(), outcomes))
}

const UNIT_BOX: Ball = Ball {
    norm: Norm::Linf,
    epsilon: 1.0,
    low: -1.0,
    high: 1.0,
};

/// A row that was not searched.
fn unasked(problem: &Problem<'_, f32>) -> Found<f32> {
    Found {
        x: problem.x.to_vec(),
        outcome: Outcome {
            label: problem.unmet_label(),
            fooled: false,
            queries: 0,
            gradients: 0,
        },
    }
}

/// Attacks under watch, so that any point that the attack meets on its way is a witness, not its last one only.
fn any_witness<O: GradientOracle<f32>>(
    oracle: &mut O,
    problem: &Problem<'_, f32>,
    run: &Run<'_>,
    stream: Stream,
) -> std::result::Result<Found<f32>, AttackError<O::Error>> {
    match run.attack {
        super::Attack::Portable(_) => {
            let watched = hunt(&mut *oracle, problem, (run.aim, run.budget), |oracle| {
                run.attack.on_gradients(oracle, problem, stream)
            });
            watched.map_err(AttackError::Oracle)
        }
        _ => white_box(oracle, problem, run, stream),
    }
}

/// An oracle for points of a box, asked about `u` in [-1, 1].
struct BoxOracle<E, O> {
    oracle: O,
    /// Middle and half the width of each element's box, real units.
    centre: Vec<f32>,
    half: Vec<f32>,
    /// Bounds in units of an element.
    bounds: Vec<(f32, f32)>,
    /// From real units to those of an element: what an int8 element counts.
    grid: Option<Grid>,
    x: Vec<E>,
    gradient: Vec<f32>,
}

#[derive(Clone, Copy)]
struct Grid {
    scale: f32,
    zero_point: f32,
}

impl<E: Element + Default, O: LabelOracle<E>> BoxOracle<E, O> {
    /// `None` where the box holds no point of the grid.
    fn new(oracle: O, classifier: &Classifier<'_>, (lo, hi): (&[f32], &[f32])) -> Option<Self> {
        let tables = classifier.model().tables();
        let quant = tables.quant(tables.input());
        let grid = E::LATTICE.then_some(Grid {
            scale: quant.scale,
            zero_point: quant.zero_point as f32,
        });
        let bound = |(lo, hi): (f32, f32)| match grid {
            None => Some((lo, hi)),
            Some(grid) => {
                // a hair of slack: the box's ends may be points of the grid
                let low = (lo / grid.scale + grid.zero_point - 1e-3)
                    .ceil()
                    .max(-128.0);
                let high = (hi / grid.scale + grid.zero_point + 1e-3)
                    .floor()
                    .min(127.0);
                (low <= high).then_some((low, high))
            }
        };
        let pairs = || lo.iter().copied().zip(hi.iter().copied());
        Some(BoxOracle {
            oracle,
            centre: pairs().map(|(lo, hi)| middle(lo, hi)).collect(),
            half: pairs()
                .map(|(lo, hi)| (0.5 * (f64::from(hi) - f64::from(lo))) as f32)
                .collect(),
            bounds: pairs().map(bound).collect::<Option<_>>()?,
            grid,
            x: vec![E::default(); lo.len()],
            gradient: vec![0.0; lo.len()],
        })
    }

    /// The point of the box that `u` names: never outside, whatever is rounded.
    fn place(&mut self, u: &[f32]) {
        let elements = self.centre.iter().zip(&self.half).zip(&self.bounds);
        for ((x, &u), ((&centre, &half), &(low, high))) in self.x.iter_mut().zip(u).zip(elements) {
            let real = centre + half * u;
            let v = match self.grid {
                None => real,
                Some(grid) => (real / grid.scale + grid.zero_point).round(),
            };
            // at the ends exactly the bound
            let v = if u >= 1.0 && self.grid.is_none() {
                high
            } else if u <= -1.0 && self.grid.is_none() {
                low
            } else {
                v
            };
            *x = E::from_f32(v.max(low).min(high));
        }
    }
}

impl<E: Element + Default, O: LabelOracle<E>> LabelOracle<f32> for BoxOracle<E, O> {
    type Error = O::Error;
    fn input_len(&self) -> usize {
        self.oracle.input_len()
    }
    fn classes(&self) -> usize {
        self.oracle.classes()
    }
    fn classify(&mut self, u: &[f32]) -> std::result::Result<usize, O::Error> {
        self.place(u);
        self.oracle.classify(&self.x)
    }
}

impl<E: Element + Default, O: ScoreOracle<E>> ScoreOracle<f32> for BoxOracle<E, O> {
    fn scores(&mut self, u: &[f32], scores: &mut [f32]) -> std::result::Result<usize, O::Error> {
        self.place(u);
        self.oracle.scores(&self.x, scores)
    }
}

impl<E: Element + Default, O: GradientOracle<E>> GradientOracle<f32> for BoxOracle<E, O> {
    fn gradient(
        &mut self,
        u: &[f32],
        objective: Objective,
    ) -> std::result::Result<Gradient<'_>, O::Error> {
        self.place(u);
        let Gradient {
            label,
            value,
            input,
        } = self.oracle.gradient(&self.x, objective)?;
        // dx/du, all in real units
        for ((g, &d), &half) in self.gradient.iter_mut().zip(input).zip(&self.half) {
            *g = d * half;
        }
        Ok(Gradient {
            label,
            value,
            input: &self.gradient,
        })
    }
}
