//! A surrogate distilled from queries: a classifier that imitates a target of which only labels can be asked. Papernot, McDaniel, Goodfellow, Jha, Celik,
//! Swami, "Practical black-box attacks against machine learning" (2017), algorithm 1 (substitute training with
//! Jacobian-based dataset augmentation, equation 5): label what there is, train, add `x + lambda * sign(dF_label/dx)` for every x, and again.
//!
//! Defaults: lambda 0.1 of the input's range and 6 rounds are those of the paper's section 5.1. Where the queries do not suffice for all new
//! points, a random choice of them is asked about (the paper's reservoir sampling, section 5.2, with every point equally likely).

use super::TrainError;
use super::classifier::{Config, Epoch, Samples, shuffle, train};
use crate::classifier::{Classifier, Inputs};
use crate::error::{Error, Result};
use crate::graph::{Graph, to_image};
use crate::target::{Sample, Target};
use foolproof::kernels::Kernels;
use foolproof::loss::{Goal, Loss, Objective};
use foolproof::memory::Mode;
use foolproof::session::SessionError;
use foolproof::threat::GradientOracle;

/// How to imitate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distillation {
    /// Questions to the target in all.
    pub queries: usize,
    /// Trainings, at least 1.
    pub rounds: usize,
    /// How far new points are from old ones, share of the input's range.
    pub lambda: f32,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Distilled {
    /// Questions that the target was asked.
    pub queries: usize,
    /// The share of the points asked about where surrogate and target agree.
    pub agreement: f64,
    /// The trainings' records, one after the other.
    pub history: Vec<Epoch>,
}

/// Trains `graph`, an f32 classifier with the target's inputs and classes, to answer as `target` does, beginning with these `seeds`
/// in real units. `progress` is called with the number of the round, counted from 1, and each epoch.
///
/// # Errors
/// What the target does wrong, or training.
pub fn distill(
    target: &mut dyn Target,
    graph: &mut Graph,
    seeds: &[f32],
    (how, config, seed): (Distillation, &Config, u64),
    progress: &mut dyn FnMut(usize, &Epoch),
) -> Result<Distilled> {
    let n = target.form().input_len();
    let mut random = foolproof::attack::rng(seed, 0);
    let mut x: Vec<f32> = Vec::new();
    let mut y: Vec<usize> = Vec::new();
    let mut fresh: Vec<Vec<f32>> = seeds.chunks_exact(n).map(<[f32]>::to_vec).collect();
    let mut history = Vec::new();
    for round in 1..=how.rounds {
        let left = how.queries.saturating_sub(y.len());
        if fresh.len() > left {
            shuffle(&mut fresh, &mut random);
            fresh.truncate(left);
        }
        for point in fresh.drain(..) {
            // what the target sees is what the surrogate learns
            let asked = target.form().inputs(&point);
            y.push(ask(target, &asked)?);
            x.extend(match asked {
                Inputs::F32(_) => point,
                Inputs::I8(q) => {
                    let grid = target.form().grid;
                    q.iter()
                        .map(|&q| grid.map_or(f32::from(q), |grid| grid.dequantize(q)))
                        .collect()
                }
            });
        }
        let samples = Samples { x: &x, y: &y };
        let records = train(graph, samples, config, seed ^ round as u64, &mut |epoch| {
            progress(round, epoch)
        })
        .map_err(|error| match error {
            TrainError::Config(_) => {
                Error::new(error, "--queries", "more queries or a smaller batch")
            }
            _ => Error::new(error, "the surrogate", "another configuration"),
        })?;
        history.extend(records);
        if round == how.rounds || y.len() >= how.queries {
            break;
        }
        fresh = augmented(graph, &x, &y, how.lambda).map_err(untrained)?;
    }
    let agreement = agreement(graph, &x, &y).map_err(untrained)?;
    Ok(Distilled {
        queries: y.len(),
        agreement,
        history,
    })
}

fn untrained(error: TrainError) -> Error {
    Error::new(error, "the surrogate", "a network that gives gradients")
}

fn ask(target: &mut dyn Target, x: &Inputs) -> Result<usize> {
    let mut scores = vec![0.0; target.classes()];
    match x {
        Inputs::F32(x) => target.ask(Sample::F32(x), &mut scores),
        Inputs::I8(x) => target.ask(Sample::I8(x), &mut scores),
    }
}

/// Every point moved along the sign of the gradient of its label's logit, within the input's range.
fn augmented(
    graph: &Graph,
    x: &[f32],
    y: &[usize],
    lambda: f32,
) -> std::result::Result<Vec<Vec<f32>>, TrainError> {
    let image = to_image(graph)?;
    let model = image.model().map_err(crate::graph::GraphError::Invalid)?;
    let classifier = Classifier::new(model, Kernels::detect());
    let (low, high) = graph.input_range;
    let n = classifier.input_len();
    let mut buffer = classifier.buffer(Mode::Attack);
    let mut session = classifier.session(Mode::Attack, &mut buffer)?;
    let mut new = Vec::new();
    for (x, &label) in x.chunks_exact(n).zip(y) {
        let objective = Objective {
            loss: Loss::Logit(label as u16),
            goal: Goal::Avoid(label),
        };
        let slope = session.gradient(x, objective)?.input;
        let moved = x.iter().zip(slope).map(|(&x, &g)| {
            let step = if g == 0.0 { 0.0 } else { g.signum() };
            (x + lambda * (high - low) * step).clamp(low, high)
        });
        new.push(moved.collect());
    }
    Ok(new)
}

/// The share of points where the surrogate says `y`.
fn agreement(graph: &Graph, x: &[f32], y: &[usize]) -> std::result::Result<f64, TrainError> {
    let image = to_image(graph)?;
    let model = image.model().map_err(crate::graph::GraphError::Invalid)?;
    let classifier = Classifier::new(model, Kernels::detect());
    let answers: std::result::Result<_, SessionError> = classifier.answers(&classifier.inputs(x));
    Ok(crate::classifier::accuracy(&answers?, y))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Purpose, load};
    use crate::networks;
    use crate::target::Local;

    /// A target trained on the digits, and surrogates distilled from few of them.
    #[test]
    fn a_surrogate_learns_from_labels_alone_and_asks_no_more_than_it_may() {
        let data = load("digits:train", Purpose::Learn).expect("the digits");
        let data = data.take(600).expect("enough digits");
        let labels = data.labels().expect("labels").to_vec();
        let x: Vec<f32> = match data.samples() {
            crate::data::Samples::F32(x) => x.clone(),
            other => panic!("the digits are real: {other:?}"),
        };
        let config = Config {
            epochs: 6,
            ..Config::default()
        };
        let mut graph = networks::digits(1).expect("a network");
        let samples = Samples { x: &x, y: &labels };
        train(&mut graph, samples, &config, 1, &mut |_| ()).expect("training");
        let image = to_image(&graph).expect("an image");
        let classifier = Classifier::new(image.model().expect("a model"), Kernels::detect());
        let mut target = Local::new("target", classifier);
        let seeds = &x[..64 * 100];
        let longer = Config {
            epochs: 15,
            ..config.clone()
        };
        let mut agreements = Vec::new();
        for (queries, expected) in [(64, 64), (150, 150), (5000, 400)] {
            let mut surrogate = networks::digits(2).expect("a network");
            let how = Distillation {
                queries,
                rounds: 3,
                lambda: 0.1,
            };
            let distilled = distill(
                &mut target,
                &mut surrogate,
                seeds,
                (how, &longer, 3),
                &mut |_, _| (),
            )
            .expect("a surrogate");
            // 100 seeds, 100 and 200 new points in the rounds after the first
            assert_eq!(distilled.queries, expected);
            let answers = target_labels(&mut target, &x);
            let held_out = agreement(&surrogate, &x, &answers).expect("answers");
            agreements.push(held_out);
        }
        // more questions, a better imitation
        assert!(agreements[2] > 0.6, "{agreements:?}");
        assert!(agreements[2] > agreements[0], "{agreements:?}");
    }

    fn target_labels(target: &mut Local<'_>, x: &[f32]) -> Vec<usize> {
        x.chunks(64)
            .map(|x| ask(target, &Inputs::F32(x.to_vec())).expect("a label"))
            .collect()
    }
}
