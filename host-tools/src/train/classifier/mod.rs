//! Training of a classifier: cross-entropy on the samples or on adversarial examples of them, Adam or SGD, checkpoints, an eye on
//! held-out samples.
//!
//! A step's random numbers come from the seed, the epoch and the step, so neither the number of threads nor an interruption changes
//! a bit.

pub mod adversary;
pub mod config;
pub mod held_out;
mod stepper;

pub use adversary::{Adversary, Method};
pub use config::{Config, Network, OnOverfitting, Optimizer, Schedule};
pub use held_out::{Attacked, HeldOut};

use super::run::{Checkpoint, Record, Run};
use super::{ParameterTable, Replica, TrainError, buffers, reduce, replicas, store};
use crate::graph::{Graph, GraphError, to_image};
use foolproof::kernels::Kernels;
use foolproof::loss::{Loss, argmax};
use foolproof::session::SessionError;
use rand_core::Rng;
use rayon::prelude::*;
use serde::Serialize;
use stepper::Stepper;

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
    /// Accuracy on the held-out samples, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
}

impl Epoch {
    fn record(&self) -> Vec<(&'static str, f64)> {
        let mut figures = vec![
            ("epoch", self.epoch as f64),
            ("loss", self.loss),
            ("accuracy", self.accuracy),
        ];
        if let Some(held_out) = &self.held_out {
            figures.push(("held_out_clean", held_out.clean));
            if let Some(attacked) = held_out.attacked {
                figures.push(("held_out_fgsm", attacked.fgsm));
                figures.push(("held_out_pgd", attacked.pgd));
            }
        }
        figures
    }

    /// The epoch that a line of the log tells of.
    fn of(record: &Record) -> Epoch {
        let figure = |name: &str| {
            let found = record.figures.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| *value)
        };
        let attacked = figure("held_out_fgsm").zip(figure("held_out_pgd"));
        Epoch {
            epoch: figure("epoch").unwrap_or(0.0) as usize,
            loss: figure("loss").unwrap_or(f64::NAN),
            accuracy: figure("accuracy").unwrap_or(f64::NAN),
            steps: record.step,
            held_out: figure("held_out_clean").map(|clean| HeldOut {
                clean,
                attacked: attacked.map(|(fgsm, pgd)| Attacked { fgsm, pgd }),
            }),
        }
    }
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stand {
    /// Steps done.
    pub step: u64,
    /// The epoch, counted from 1.
    pub epoch: usize,
    /// Mean loss over the epoch so far.
    pub loss: f64,
    /// Accuracy over the epoch so far, as the samples were seen.
    pub accuracy: f64,
}

/// Who looks on.
pub trait Watch {
    /// After every step.
    fn step(&mut self, _stand: &Stand) {}
    /// After every epoch.
    fn epoch(&mut self, epoch: &Epoch);
    /// Something that must be heard.
    fn warn(&mut self, _text: String) {}
}

/// Looks on at epochs only.
struct Epochs<'a>(&'a mut dyn FnMut(&Epoch));

impl Watch for Epochs<'_> {
    fn epoch(&mut self, epoch: &Epoch) {
        (self.0)(epoch);
    }
}

/// What came of a run, besides the parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// One record per epoch, of resumed runs from their beginning.
    pub history: Vec<Epoch>,
    /// The epoch, counted from 1, whose parameters are given back.
    pub epoch: usize,
    /// What was said aloud, of resumed runs from their beginning.
    pub warnings: Vec<String>,
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
    let outcome = train_run(graph, samples, (config, seed), None, &mut Epochs(progress))?;
    Ok(outcome.history)
}

/// Steps in all.
pub fn steps(samples: usize, config: &Config) -> u64 {
    let rows = samples.saturating_sub(config.held_out);
    (rows / config.batch.max(1) * config.epochs) as u64
}

/// The same with a log and checkpoints in `run`, from the beginning or a checkpoint.
///
/// # Errors
/// [`TrainError`].
pub fn train_run(
    graph: &mut Graph,
    samples: Samples<'_>,
    (config, seed): (&Config, u64),
    mut run: Option<(&mut Run, Option<Checkpoint>)>,
    watch: &mut dyn Watch,
) -> Result<Outcome, TrainError> {
    check(graph, samples, config)?;
    let (rows, held_out) = divide(samples.y.len(), config.held_out, seed);
    let image = to_image(graph)?;
    let model = image.model().map_err(GraphError::Invalid)?;
    let shards = config.batch / config.shard;
    let mut memory = buffers(&model, config.shard, shards)?;
    let mut replicas = replicas(&model, config.shard, Kernels::detect(), &mut memory)?;
    let table: ParameterTable = replicas[0].session.parameter_table().collect();
    let mut parameters = replicas[0].session.parameters()?.to_vec();
    let mut gradients = vec![0.0; parameters.len()];
    let mut stepper = Stepper::new(config, &table, parameters.len());
    let per_epoch = (rows.len() / config.batch) as u64;
    let steps = per_epoch * config.epochs as u64;
    let mut outcome = Outcome {
        history: Vec::new(),
        epoch: 0,
        warnings: Vec::new(),
    };
    let (mut step, mut loss, mut right, mut stopped) = (0, 0.0, 0, false);
    let mut best = Best::default();
    if let Some((run, Some(checkpoint))) = &run {
        let count = parameters.len();
        parameters.copy_from_slice(checkpoint.array("parameters", count)?);
        let state = checkpoint.array("optimizer", stepper.state.len())?;
        stepper.state.copy_from_slice(state);
        step = checkpoint.step;
        loss = checkpoint.number("loss");
        right = checkpoint.number("right") as usize;
        stopped = checkpoint.number("stopped") > 0.0;
        best = Best::restored(checkpoint, count)?;
        outcome.history = run.records().iter().map(Epoch::of).collect();
        let warnings = outcome.history.iter().filter_map(overfitting);
        outcome.warnings = warnings.collect();
    }
    let mut order = Order::new(rows, seed);
    while step < steps && !stopped {
        let epoch = (step / per_epoch) as usize + 1;
        let within = step % per_epoch;
        let jitter = order.turn(epoch, within);
        let start = within as usize * config.batch;
        let batch = &order.rows[start..start + config.batch];
        step += 1;
        let counts: Vec<Result<usize, SessionError>> = replicas
            .par_iter_mut()
            .zip(batch.par_chunks(config.shard))
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
        let rate = config.learning_rate * config.rate_share(step, steps);
        stepper.step(step as u32, rate, &mut parameters, &gradients);
        let done = within + 1;
        let stand = Stand {
            step,
            epoch,
            loss: loss / done as f64,
            accuracy: right as f64 / (done as usize * config.batch) as f64,
        };
        watch.step(&stand);
        if done == per_epoch {
            let mut record = Epoch {
                epoch,
                loss: stand.loss,
                accuracy: stand.accuracy,
                steps: step,
                held_out: None,
            };
            if !held_out.is_empty() {
                store(graph, &table, &parameters);
                let judged = held_out::judge(graph, samples, &held_out, config, seed)?;
                record.held_out = Some(judged);
                best.offer(judged.figure(), epoch, &parameters);
            }
            if let Some(warning) = overfitting(&record) {
                watch.warn(warning.clone());
                outcome.warnings.push(warning);
                stopped = config.on_overfitting == OnOverfitting::Stop;
            }
            stopped |= config.patience > 0 && epoch >= best.epoch + config.patience;
            watch.epoch(&record);
            outcome.history.push(record);
            if let Some((run, _)) = &mut run {
                run.record(step, &record.record());
            }
            (loss, right) = (0.0, 0);
        }
        if let Some((run, _)) = &mut run
            && (step == steps || stopped || run.is_due())
        {
            let mut checkpoint = Checkpoint {
                step,
                ..Checkpoint::default()
            };
            let arrays = [("parameters", &parameters), ("optimizer", &stepper.state)];
            for (name, array) in arrays {
                checkpoint.arrays.insert(name.into(), array.clone());
            }
            let numbers = [
                ("loss", loss),
                ("right", right as f64),
                ("stopped", f64::from(u8::from(stopped))),
            ];
            for (name, number) in numbers {
                checkpoint.numbers.insert(name.into(), number);
            }
            best.save(&mut checkpoint);
            run.save(checkpoint)?;
        }
    }
    outcome.epoch = match stopped {
        true => best.epoch,
        false => config.epochs,
    };
    let given = if stopped {
        &best.parameters
    } else {
        &parameters
    };
    store(graph, &table, given);
    Ok(outcome)
}

/// The words about an epoch that shows catastrophic overfitting.
fn overfitting(epoch: &Epoch) -> Option<String> {
    let held_out = epoch.held_out.filter(HeldOut::overfits)?;
    let Attacked { fgsm, pgd } = held_out.attacked?;
    Some(format!(
        "catastrophic overfitting after epoch {}: {:.1} % right after FGSM, but {:.1} % after PGD with {} steps, on held-out training samples; the network is not robust (a random start, a smaller step or pgd would be right)",
        epoch.epoch,
        100.0 * fgsm,
        100.0 * pgd,
        held_out::PGD_STEPS
    ))
}

/// The parameters that were best on the held-out samples; the first of equals.
#[derive(Default)]
struct Best {
    figure: f64,
    epoch: usize,
    parameters: Vec<f32>,
}

impl Best {
    fn offer(&mut self, figure: f64, epoch: usize, parameters: &[f32]) {
        if self.epoch == 0 || figure > self.figure {
            *self = Best {
                figure,
                epoch,
                parameters: parameters.to_vec(),
            };
        }
    }

    fn save(&self, checkpoint: &mut Checkpoint) {
        if self.epoch > 0 {
            let numbers = [
                ("best.figure", self.figure),
                ("best.epoch", self.epoch as f64),
            ];
            for (name, number) in numbers {
                checkpoint.numbers.insert(name.into(), number);
            }
            let parameters = self.parameters.clone();
            checkpoint
                .arrays
                .insert("best.parameters".into(), parameters);
        }
    }

    fn restored(checkpoint: &Checkpoint, count: usize) -> Result<Best, TrainError> {
        let epoch = checkpoint.number("best.epoch") as usize;
        Ok(match epoch {
            0 => Best::default(),
            _ => Best {
                figure: checkpoint.number("best.figure"),
                epoch,
                parameters: checkpoint.array("best.parameters", count)?.to_vec(),
            },
        })
    }
}

/// Rows to learn from, and rows to judge by: a random choice of all.
fn divide(count: usize, held_out: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut rows: Vec<usize> = (0..count).collect();
    if held_out == 0 {
        return (rows, Vec::new());
    }
    shuffle(&mut rows, &mut foolproof::attack::rng(!seed, u64::MAX));
    let mut kept = rows.split_off(count - held_out);
    rows.sort_unstable();
    kept.sort_unstable();
    (rows, kept)
}

/// The order of the rows: every epoch shuffles that of the epoch before, and gives each of its steps a number for all that is
/// random in it.
struct Order {
    rows: Vec<usize>,
    seed: u64,
    epoch: usize,
    within: u64,
    random: foolproof::attack::AttackRng,
}

impl Order {
    fn new(rows: Vec<usize>, seed: u64) -> Order {
        Order {
            rows,
            seed,
            epoch: 0,
            within: 0,
            random: foolproof::attack::rng(seed, 0),
        }
    }

    /// Goes on to a step of an epoch (counted from 1; steps within it from 0), over all that lie between; returns the step's number.
    fn turn(&mut self, epoch: usize, within: u64) -> u64 {
        while self.epoch < epoch {
            self.epoch += 1;
            self.within = 0;
            self.random = foolproof::attack::rng(self.seed, self.epoch as u64);
            shuffle(&mut self.rows, &mut self.random);
        }
        while self.within < within {
            self.random.next_u64();
            self.within += 1;
        }
        self.within += 1;
        self.random.next_u64()
    }
}

fn check(graph: &Graph, samples: Samples<'_>, config: &Config) -> Result<(), TrainError> {
    config.check()?;
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
    if samples.y.len().saturating_sub(config.held_out) < config.batch {
        let besides = match config.held_out {
            0 => String::new(),
            kept => format!(" without the {kept} that are held out"),
        };
        return fail(format!(
            "{} samples{besides} are fewer than one batch of {}",
            samples.y.len(),
            config.batch
        ));
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
        let adversary = &self.config.adversary;
        let steps = match self.config.method {
            Method::Standard => 0,
            Method::Fast => 1,
            Method::Pgd => adversary.steps,
        };
        if steps > 0 {
            let away = |i: usize, z: &mut [f32]| {
                Loss::CrossEntropy.differentiate(self.samples.y[self.rows[i]], z);
            };
            x = adversary.examples(session, &x, steps, &mut self.random, away)?;
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

/// Fisher and Yates.
pub(super) fn shuffle<T>(order: &mut [T], rng: &mut impl Rng) {
    for i in (1..order.len()).rev() {
        let j = (rng.next_u64() % (i as u64 + 1)) as usize;
        order.swap(i, j);
    }
}
