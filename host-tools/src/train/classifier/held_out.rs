//! Judging a network in training by samples that it does not learn from, and seeing catastrophic overfitting: a network trained on
//! one step of the gradient's sign can learn to be right after exactly that step and wrong after several smaller ones (Wong, Rice,
//! Kolter 2020, section 5.4). One step then says "robust", and PGD says that it is not.

use super::Samples;
use super::adversary::{Adversary, Method};
use super::config::Config;
use crate::graph::{Graph, GraphError, to_image};
use crate::lines::Lines;
use crate::train::TrainError;
use foolproof::kernels::Kernels;
use foolproof::loss::{Loss, argmax};
use foolproof::memory::Mode;
use foolproof::session::{Options, Session, SessionError};
use rayon::prelude::*;
use serde::Serialize;

/// Accuracies on held-out training samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HeldOut {
    /// On the samples as they are.
    pub clean: f64,
    /// After one step of the whole radius from the sample (FGSM), and after [`PGD_STEPS`] smaller ones from a random start.
    /// `None` for standard training, and for that with a universal perturbation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attacked: Option<Attacked>,
    /// With the universal perturbation that the network is trained with, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub universal: Option<f64>,
}

/// Accuracies under attack.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Attacked {
    /// After FGSM.
    pub fgsm: f64,
    /// After PGD.
    pub pgd: f64,
}

/// Steps of PGD, each a quarter of the radius.
pub const PGD_STEPS: usize = 20;
/// Catastrophic overfitting: after PGD the network is right on so much less of all samples than after FGSM, and on less than
/// [`LEFT`] of what FGSM leaves. Sound networks differ by a tenth or so.
const GAP: f64 = 0.2;
/// See [`GAP`].
const LEFT: f64 = 0.7;
/// From one epoch to the next, more than this is a rise.
pub(super) const RISE: f64 = 0.02;
/// Samples per session.
const CHUNK: usize = 25;

impl HeldOut {
    /// The figure that training wants to be high.
    pub fn figure(&self) -> f64 {
        let attacked = self.attacked.map(|attacked| attacked.pgd);
        attacked.or(self.universal).unwrap_or(self.clean)
    }

    /// Whether FGSM no longer tells what the network is worth.
    pub fn overfits(&self) -> bool {
        self.attacked
            .is_some_and(|Attacked { fgsm, pgd }| fgsm - pgd > GAP && pgd < LEFT * fgsm)
    }
}

/// Judges `graph` by these rows of the samples. The same for any number of threads.
pub(super) fn judge(
    graph: &Graph,
    samples: Samples<'_>,
    rows: &[usize],
    (config, perturbation): (&Config, &[f32]),
    seed: u64,
) -> Result<HeldOut, TrainError> {
    let image = to_image(graph)?;
    let model = image.model().map_err(GraphError::Invalid)?;
    let bytes = model
        .preferred_buffer_for(Mode::Attack, CHUNK)
        .ok_or(SessionError::Batch { batch: CHUNK })?;
    let n = model.input_shape().len();
    let classes = model.classes();
    let counts: Vec<Result<[usize; 3], SessionError>> = rows
        .par_chunks(CHUNK)
        .enumerate()
        .map(|(chunk, rows)| {
            let mut buffer = Lines::zeroed(bytes);
            let options = Options {
                mode: Mode::Attack,
                batch: rows.len(),
                kernels: Kernels::detect(),
            };
            let mut session = Session::with_options(&model, options, &mut buffer)?;
            let mut x = Vec::with_capacity(n * rows.len());
            for &row in rows {
                x.extend_from_slice(&samples.x[row * n..(row + 1) * n]);
            }
            let mut logits = vec![0.0; classes * rows.len()];
            let mut right = |session: &mut Session<'_>, x: &[f32]| {
                session.forward_f32(x)?;
                session.logits(&mut logits)?;
                let answers = logits.chunks_exact(classes).map(argmax);
                Ok::<usize, SessionError>(
                    answers
                        .zip(rows)
                        .filter(|(answer, row)| *answer == samples.y[**row])
                        .count(),
                )
            };
            let mut counts = [right(&mut session, &x)?, 0, 0];
            match config.method {
                Method::Standard => return Ok(counts),
                Method::Universal => {
                    let (low, high) = model.input_range();
                    for (v, delta) in x.iter_mut().zip(perturbation.iter().cycle()) {
                        *v = (*v + delta).clamp(low, high);
                    }
                    counts[1] = right(&mut session, &x)?;
                    return Ok(counts);
                }
                _ => {}
            }
            let epsilon = config.adversary.epsilon;
            let attacks = [(epsilon, 1, false), (epsilon / 4.0, PGD_STEPS, true)];
            for (count, (step, steps, random_start)) in counts[1..].iter_mut().zip(attacks) {
                let adversary = Adversary {
                    step,
                    random_start,
                    ..config.adversary.clone()
                };
                let mut random = foolproof::attack::rng(seed, chunk as u64);
                let climb = |i: usize, z: &mut [f32]| {
                    Loss::CrossEntropy.differentiate(samples.y[rows[i]], z);
                };
                let at = adversary.examples(&mut session, &x, steps, &mut random, climb)?;
                *count = right(&mut session, &at)?;
            }
            Ok(counts)
        })
        .collect();
    let mut sums = [0; 3];
    for counts in counts {
        for (sum, count) in sums.iter_mut().zip(counts?) {
            *sum += count;
        }
    }
    let [clean, first, second] = sums.map(|sum| sum as f64 / rows.len().max(1) as f64);
    let (attacked, universal) = match config.method {
        Method::Standard => (None, None),
        Method::Universal => (None, Some(first)),
        _ => {
            let (fgsm, pgd) = (first, second);
            (Some(Attacked { fgsm, pgd }), None)
        }
    };
    Ok(HeldOut {
        clean,
        attacked,
        universal,
    })
}
