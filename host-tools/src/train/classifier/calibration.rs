//! The inputs whose activations decide the grids of an int8 model.

use super::Samples;
use super::adversary::{Adversary, Method};
use super::config::Config;
use crate::graph::{Graph, GraphError, to_image};
use crate::lines::Lines;
use crate::train::TrainError;
use foolproof::kernels::Kernels;
use foolproof::loss::Loss;
use foolproof::memory::Mode;
use foolproof::session::{Options, Session, SessionError};
use rayon::prelude::*;

/// Rows that are enough.
pub const ROWS: usize = 500;
/// Steps of the attack, each a quarter of the radius.
const STEPS: usize = 5;
/// Samples per session.
const CHUNK: usize = 25;

/// These rows of the samples, and where training has an adversary as many inputs as it leaves: examples that PGD finds for the
/// network in f32, or the samples with the universal perturbation. What an attack makes of a network is thus within its ranges.
///
/// # Errors
/// The network does not run.
pub fn calibration(
    graph: &Graph,
    samples: Samples<'_>,
    rows: &[usize],
    (config, perturbation): (&Config, &[f32]),
    seed: u64,
) -> Result<Vec<f32>, TrainError> {
    let image = to_image(graph)?;
    let model = image.model().map_err(GraphError::Invalid)?;
    let n = model.input_shape().len();
    let mut x = Vec::with_capacity(2 * n * rows.len());
    for &row in rows {
        x.extend_from_slice(&samples.x[row * n..(row + 1) * n]);
    }
    let (low, high) = model.input_range();
    let attacked: Vec<f32> = match config.method {
        Method::Standard => Vec::new(),
        Method::Universal => {
            let added = x.iter().zip(perturbation.iter().cycle());
            added
                .map(|(v, delta)| (v + delta).clamp(low, high))
                .collect()
        }
        _ => {
            let adversary = Adversary {
                step: config.adversary.epsilon / 4.0,
                random_start: true,
                ..config.adversary.clone()
            };
            let bytes = model
                .preferred_buffer_for(Mode::Attack, CHUNK)
                .ok_or(SessionError::Batch { batch: CHUNK })?;
            let chunks: Result<Vec<Vec<f32>>, SessionError> = rows
                .par_chunks(CHUNK)
                .zip(x.par_chunks(CHUNK * n))
                .enumerate()
                .map(|(chunk, (rows, x))| {
                    let mut buffer = Lines::zeroed(bytes);
                    let options = Options {
                        mode: Mode::Attack,
                        batch: rows.len(),
                        kernels: Kernels::detect(),
                    };
                    let mut session = Session::with_options(&model, options, &mut buffer)?;
                    let mut random = foolproof::attack::rng(seed, chunk as u64);
                    let away = |i: usize, z: &mut [f32]| {
                        Loss::CrossEntropy.differentiate(samples.y[rows[i]], z);
                    };
                    adversary.examples(&mut session, x, STEPS, &mut random, away)
                })
                .collect();
            chunks?.concat()
        }
    };
    x.extend(attacked);
    Ok(x)
}
