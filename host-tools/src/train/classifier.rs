//! Training of a classifier: cross-entropy, Adam or SGD, cosine learning rate with warm-up.

use super::{ParameterTable, Replica, SHARD, TrainError, buffers, reduce, replicas, store};
use crate::graph::{Graph, to_image};
use foolproof::kernels::Kernels;
use foolproof::loss::{Loss, argmax};
use foolproof::model::format::TensorRole;
use foolproof::optim::{Adam, Sgd};
use foolproof::session::SessionError;
use rand_core::Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Everything that a run depends on, besides the data and the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Passes over the data.
    pub epochs: usize,
    /// Samples per step, a multiple of the shard size (8).
    pub batch: usize,
    /// `adam` or `sgd`.
    pub optimizer: Optimizer,
    /// Largest learning rate.
    pub learning_rate: f32,
    /// Momentum of SGD.
    pub momentum: f32,
    /// Weight decay (decoupled for Adam).
    pub weight_decay: f32,
    /// Share of all steps over which the learning rate rises from 0.
    pub warmup: f32,
    /// Images are shifted by up to this many pixels in each direction, at random.
    pub shift: usize,
    /// Uniform noise of up to this size is added to every input element, in real units.
    pub noise: f32,
}

/// The rule that turns gradients into steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// Adam.
    Adam,
    /// SGD with momentum.
    Sgd,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            epochs: 30,
            batch: 32,
            optimizer: Optimizer::Adam,
            learning_rate: 4e-3,
            momentum: 0.9,
            weight_decay: 1e-4,
            warmup: 0.05,
            shift: 0,
            noise: 0.0,
        }
    }
}

/// Samples to learn from.
#[derive(Clone, Copy, Debug)]
pub struct Samples<'a> {
    /// Inputs, sample after sample, real units.
    pub x: &'a [f32],
    /// Labels.
    pub y: &'a [usize],
}

/// What happened in one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Epoch {
    /// Counted from 1.
    pub epoch: usize,
    /// Mean loss over the epoch's batches.
    pub loss: f64,
    /// Accuracy over the epoch's batches, as they were seen.
    pub accuracy: f64,
    /// Steps so far.
    pub steps: u64,
}

/// Trains the parameters of `graph` in place and returns one record per epoch. `progress` is called after every
/// epoch.
///
/// # Errors
/// [`TrainError`].
pub fn train(
    graph: &mut Graph,
    samples: Samples<'_>,
    config: &Config,
    seed: u64,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<Vec<Epoch>, TrainError> {
    check(graph, samples, config)?;
    let image = to_image(graph)?;
    let model = image.model().map_err(crate::graph::GraphError::Invalid)?;
    let shards = config.batch / SHARD;
    let mut memory = buffers(&model, SHARD, shards)?;
    let mut replicas = replicas(&model, SHARD, Kernels::detect(), &mut memory)?;
    let table: ParameterTable = replicas[0].session.parameter_table().collect();
    let mut parameters = replicas[0].session.parameters()?.to_vec();
    let mut gradients = vec![0.0; parameters.len()];
    let mut stepper = Stepper::new(config, &table, parameters.len());
    let batches = samples.y.len() / config.batch;
    let total_steps = (batches * config.epochs) as u64;
    let mut order: Vec<usize> = (0..samples.y.len()).collect();
    let mut history = Vec::new();
    let mut step = 0;
    for epoch in 1..=config.epochs {
        let mut rng = foolproof::attack::rng(seed, epoch as u64);
        shuffle(&mut order, &mut rng);
        let (mut loss, mut right) = (0.0, 0);
        for batch in order.chunks_exact(config.batch) {
            step += 1;
            let jitter = rng.next_u64();
            let counts: Vec<Result<usize, SessionError>> = replicas
                .par_iter_mut()
                .zip(batch.par_chunks(SHARD))
                .enumerate()
                .map(|(i, (replica, rows))| {
                    let shard = Shard {
                        samples,
                        rows,
                        parameters: &parameters,
                        config,
                        random: foolproof::attack::rng(jitter, i as u64),
                    };
                    shard.run(replica)
                })
                .collect();
            for count in counts {
                right += count?;
            }
            let batch_loss: f64 = replicas.iter().map(|r| r.loss).sum();
            loss += batch_loss;
            if !batch_loss.is_finite() {
                return Err(TrainError::Diverged { step, epoch });
            }
            reduce(&mut replicas, &mut gradients)?;
            let rate = config.learning_rate * schedule(step, total_steps, config.warmup);
            stepper.step(step as u32, rate, &mut parameters, &gradients);
        }
        let seen = (batches * config.batch) as f64;
        let record = Epoch {
            epoch,
            loss: loss / batches as f64,
            accuracy: right as f64 / seen,
            steps: step,
        };
        progress(&record);
        history.push(record);
    }
    store(graph, &table, &parameters);
    Ok(history)
}

fn check(graph: &Graph, samples: Samples<'_>, config: &Config) -> Result<(), TrainError> {
    let fail = |text: String| Err(TrainError::Config(text));
    let n = graph.tensors[graph.input].shape.len();
    let classes = graph.tensors[graph.logits()].shape.len();
    if samples.x.len() != n * samples.y.len() {
        return fail(format!(
            "{} input elements for {} samples; the network takes {n} each",
            samples.x.len(),
            samples.y.len()
        ));
    }
    if let Some(i) = samples.y.iter().position(|&y| y >= classes) {
        let label = samples.y[i];
        return fail(format!(
            "sample {i} has label {label}; the network has {classes} classes"
        ));
    }
    if config.batch == 0 || !config.batch.is_multiple_of(SHARD) {
        let batch = config.batch;
        return fail(format!("batch {batch}; it must be a multiple of {SHARD}"));
    }
    if samples.y.len() < config.batch {
        return fail(format!(
            "{} samples are fewer than one batch of {}",
            samples.y.len(),
            config.batch
        ));
    }
    let rate = config.learning_rate;
    if config.epochs == 0 || !rate.is_finite() || rate <= 0.0 {
        return fail("epochs must be at least 1 and the learning rate positive".to_string());
    }
    let share = 0.0..=1.0;
    let others_ok = share.contains(&config.warmup)
        && (0.0..1.0).contains(&config.momentum)
        && config.weight_decay >= 0.0
        && config.noise >= 0.0;
    if !others_ok {
        return fail(
            "warmup must lie in 0..=1, momentum in 0..1, weight decay and noise not below 0"
                .to_string(),
        );
    }
    Ok(())
}

/// One shard of one step.
struct Shard<'a> {
    samples: Samples<'a>,
    rows: &'a [usize],
    parameters: &'a [f32],
    config: &'a Config,
    random: foolproof::attack::AttackRng,
}

impl Shard<'_> {
    /// Forward, loss, backward; returns how many of the shard's samples were right.
    fn run(mut self, replica: &mut Replica<'_>) -> Result<usize, SessionError> {
        let session = &mut replica.session;
        session.parameters()?.copy_from_slice(self.parameters);
        session.zero_parameter_gradients()?;
        let shape = session.model().input_shape();
        let n = shape.len();
        let mut x = Vec::with_capacity(n * self.rows.len());
        for &row in self.rows {
            let start = x.len();
            x.extend_from_slice(&self.samples.x[row * n..(row + 1) * n]);
            let size = [shape.dim(1), shape.dim(2), shape.dim(3)];
            self.augment(&mut x[start..], size, session.model().input_range());
        }
        session.forward_f32(&x)?;
        let classes = session.model().classes();
        let mut logits = vec![0.0; classes * self.rows.len()];
        session.logits(&mut logits)?;
        let mut right = 0;
        let mut loss = 0.0;
        let weight = 1.0 / self.config.batch as f32;
        for (z, &row) in logits.chunks_exact_mut(classes).zip(self.rows) {
            let label = self.samples.y[row];
            right += usize::from(argmax(z) == label);
            loss += f64::from(Loss::CrossEntropy.differentiate(label, z) * weight);
            z.iter_mut().for_each(|g| *g *= weight);
        }
        replica.loss = loss;
        session.backward(&logits)?;
        Ok(right)
    }

    fn augment(&mut self, x: &mut [f32], [h, w, c]: [usize; 3], (low, high): (f32, f32)) {
        let shift = self.config.shift as i64;
        if shift > 0 {
            let mut draw = || i64::from(self.random.next_u32() % (2 * shift as u32 + 1)) - shift;
            let (dy, dx) = (draw(), draw());
            let original = x.to_vec();
            for i in 0..h {
                for j in 0..w {
                    let (from_i, from_j) = (i as i64 - dy, j as i64 - dx);
                    let inside = (0..h as i64).contains(&from_i) && (0..w as i64).contains(&from_j);
                    for k in 0..c {
                        x[(i * w + j) * c + k] = match inside {
                            true => original[(from_i as usize * w + from_j as usize) * c + k],
                            false => low,
                        };
                    }
                }
            }
        }
        let noise = self.config.noise;
        if noise > 0.0 {
            for v in x {
                let unit = (self.random.next_u32() >> 8) as f32 / 16_777_216.0;
                *v = (*v + noise * (2.0 * unit - 1.0)).clamp(low, high);
            }
        }
    }
}

/// The optimizer with its state; running statistics take a plain step of a tenth towards the batch's.
struct Stepper<'a> {
    config: &'a Config,
    table: &'a ParameterTable,
    state: Vec<f32>,
    count: usize,
}

/// How far running statistics move towards the batch's in one step (PyTorch's default momentum).
const STATISTICS_MOMENTUM: f32 = 0.1;

impl<'a> Stepper<'a> {
    fn new(config: &'a Config, table: &'a ParameterTable, count: usize) -> Stepper<'a> {
        let state = match config.optimizer {
            Optimizer::Adam => Adam::state_len(count),
            Optimizer::Sgd => Sgd::state_len(count),
        };
        Stepper {
            config,
            table,
            state: vec![0.0; state],
            count,
        }
    }

    fn step(&mut self, t: u32, rate: f32, parameters: &mut [f32], gradients: &[f32]) {
        let shards = (self.config.batch / SHARD) as f32;
        let old: Vec<(usize, f32)> = self
            .table
            .iter()
            .filter(|(_, role, _)| *role == TensorRole::Statistic)
            .flat_map(|(_, _, range)| range.clone())
            .map(|i| {
                (
                    i,
                    parameters[i] - STATISTICS_MOMENTUM * gradients[i] / shards,
                )
            })
            .collect();
        match self.config.optimizer {
            Optimizer::Adam => {
                let adam = Adam {
                    decay: self.config.weight_decay,
                    ..Adam::new(rate)
                };
                adam.step(t, parameters, gradients, &mut self.state);
            }
            Optimizer::Sgd => {
                let sgd = Sgd {
                    rate,
                    momentum: self.config.momentum,
                    decay: self.config.weight_decay,
                };
                sgd.step(parameters, gradients, &mut self.state[..self.count]);
            }
        }
        for (i, value) in old {
            parameters[i] = value;
        }
    }
}

/// Linear warm-up, then half a cosine down to 0 (Loshchilov and Hutter 2017, equation 5 without restarts).
fn schedule(step: u64, total: u64, warmup: f32) -> f32 {
    let done = step as f32 / total.max(1) as f32;
    match done < warmup {
        true => done / warmup,
        false => {
            0.5 * (1.0 + (std::f32::consts::PI * (done - warmup) / (1.0 - warmup).max(1e-6)).cos())
        }
    }
}

/// Fisher and Yates.
pub(super) fn shuffle<T>(order: &mut [T], rng: &mut impl Rng) {
    for i in (1..order.len()).rev() {
        let j = (rng.next_u64() % (i as u64 + 1)) as usize;
        order.swap(i, j);
    }
}
