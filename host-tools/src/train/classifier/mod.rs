//! Training of a classifier: cross-entropy on the samples or on adversarial examples of them, Adam or SGD, checkpoints, an eye on
//! held-out samples.
//!
//! A step's random numbers come from the seed, the epoch and the step, so neither the number of threads nor an interruption changes
//! a bit.

pub mod adversary;
mod best;
pub mod calibration;
pub mod config;
pub mod held_out;
mod order;
mod shard;
mod stepper;

pub use adversary::{Adversary, Method};
pub use calibration::calibration;
pub use config::{Config, Network, OnOverfitting, Optimizer, Schedule};
pub use held_out::{Attacked, HeldOut};
pub(super) use order::shuffle;

use super::player::Average;
use super::run::{Checkpoint, Record, Run};
use super::{ParameterTable, Replica, TrainError, buffers, reduce, replicas, store};
use crate::graph::{Graph, GraphError, to_image};
use crate::quantize::{self, Aware, Ranges, fold};
use best::Best;
use foolproof::kernels::Kernels;
use foolproof::session::SessionError;
use order::{Order, divide};
use rayon::prelude::*;
use serde::Serialize;
use shard::{Learned, Shard};
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
            if let Some(universal) = held_out.universal {
                figures.push(("held_out_universal", universal));
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
                universal: figure("held_out_universal"),
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
    /// The perturbation of the methods free (one for each sample of a batch) and universal (one), else empty.
    pub perturbation: Vec<f32>,
    /// What the activations reach, for the grids that quantization-aware training was on.
    pub ranges: Option<Ranges>,
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
    (rows / config.batch.max(1) * config.replays() * config.epochs) as u64
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
    if config.quantization_aware {
        *graph = fold::fold(graph)?;
    }
    let (rows, held_out) = divide(samples.y.len(), config.held_out, seed);
    let (table, parameters) = parameters_of(graph)?;
    let count = parameters.len();
    let n = graph.tensors[graph.input].shape.len();
    let per_epoch = rows.len() / config.batch * config.replays();
    let mut trainer = Trainer {
        config,
        seed,
        samples,
        calibration: rows[..rows.len().min(calibration::ROWS)].to_vec(),
        held_out,
        per_epoch: per_epoch as u64,
        steps: (per_epoch * config.epochs) as u64,
        order: Order::new(rows, seed),
        average: Average::new(&parameters, config.ema),
        parameters,
        stepper: Stepper::new(config, &table, count),
        table: &table,
        perturbation: vec![0.0; config.perturbation_len(n)],
        ranges: Vec::new(),
        step: 0,
        loss: 0.0,
        right: 0,
        stopped: false,
        best: Best::default(),
        outcome: Outcome {
            history: Vec::new(),
            epoch: 0,
            warnings: Vec::new(),
            perturbation: Vec::new(),
            ranges: None,
        },
    };
    if let Some((run, Some(checkpoint))) = &run {
        trainer.restore(checkpoint, run, graph.tensors.len())?;
    }
    let mut run = run.as_mut().map(|(run, _)| &mut **run);
    if let Some(run) = &run {
        run.open()?;
    }
    while trainer.step < trainer.steps && !trainer.stopped {
        trainer.stage(graph, &mut run, watch)?;
    }
    Ok(trainer.finish(graph))
}

/// Where a training stands, and what it depends on.
struct Trainer<'a> {
    config: &'a Config,
    seed: u64,
    samples: Samples<'a>,
    /// Rows whose activations decide the grids.
    calibration: Vec<usize>,
    held_out: Vec<usize>,
    per_epoch: u64,
    steps: u64,
    order: Order,
    parameters: Vec<f32>,
    stepper: Stepper<'a>,
    /// What is judged and given back.
    average: Average,
    table: &'a ParameterTable,
    /// What the methods free and universal add to the samples; else empty.
    perturbation: Vec<f32>,
    /// What the activations reached when the epoch began, in quantization-aware training; else empty.
    ranges: Vec<f32>,
    step: u64,
    /// Sums over the epoch so far.
    loss: f64,
    right: usize,
    stopped: bool,
    best: Best,
    outcome: Outcome,
}

impl Trainer<'_> {
    /// Trains one network to its end: the whole run, or in quantization-aware training, where every epoch has grids of its own, an
    /// epoch.
    fn stage(
        &mut self,
        graph: &mut Graph,
        run: &mut Option<&mut Run>,
        watch: &mut dyn Watch,
    ) -> Result<(), TrainError> {
        let config = self.config;
        let aware = match config.quantization_aware {
            true => Some(self.aware(graph)?),
            false => None,
        };
        let until = match aware {
            Some(_) => (self.step / self.per_epoch + 1) * self.per_epoch,
            None => self.steps,
        };
        let mut network = match &aware {
            Some(aware) => aware.rounded(),
            None => graph.clone(),
        };
        let image = to_image(&network)?;
        let model = image.model().map_err(GraphError::Invalid)?;
        let mut memory = buffers(&model, config.shard, config.batch / config.shard)?;
        let mut replicas = replicas(&model, config.shard, Kernels::detect(), &mut memory)?;
        let mut gradients = vec![0.0; self.parameters.len()];
        while self.step < until && !self.stopped {
            let epoch = (self.step / self.per_epoch) as usize + 1;
            let done = self.step % self.per_epoch + 1;
            self.step += 1;
            let seen = as_seen(self.table, &self.parameters, aware.as_ref());
            self.learn(&mut replicas, (epoch, done - 1), &seen, aware.as_ref())?;
            reduce(&mut replicas, &mut gradients)?;
            let rate = config.learning_rate * config.rate_share(self.step, self.steps);
            let t = self.step as u32;
            self.stepper.step(t, rate, &mut self.parameters, &gradients);
            self.average.step(&self.parameters);
            let stand = Stand {
                step: self.step,
                epoch,
                loss: self.loss / done as f64,
                accuracy: self.right as f64 / (done as usize * config.batch) as f64,
            };
            watch.step(&stand);
            if done == self.per_epoch {
                let seen = as_seen(
                    self.table,
                    self.average.of(&self.parameters),
                    aware.as_ref(),
                );
                store(&mut network, self.table, &seen);
                self.end_epoch(&network, &stand, run, watch)?;
            }
            if let Some(run) = run
                && (self.step == self.steps || self.stopped || run.is_due())
            {
                run.save(self.checkpoint())?;
            }
        }
        Ok(())
    }

    /// The grids of this epoch; at its beginning they are new.
    fn aware(&mut self, graph: &mut Graph) -> Result<Aware, TrainError> {
        let options = quantize::Options::default();
        if self.ranges.is_empty() || self.step.is_multiple_of(self.per_epoch) {
            store(graph, self.table, &self.parameters);
            let how = (self.config, self.perturbation.as_slice());
            let x = calibration(graph, self.samples, &self.calibration, how, self.seed)?;
            self.ranges = quantize::observe(graph, &x)?.to_numbers();
        }
        Ok(Aware::new(
            graph,
            &Ranges::from_numbers(&self.ranges),
            options,
        )?)
    }

    /// Gradients of one batch, in the replicas, and what else it says.
    fn learn(
        &mut self,
        replicas: &mut [Replica<'_>],
        (epoch, within): (usize, u64),
        parameters: &[f32],
        aware: Option<&Aware>,
    ) -> Result<(), TrainError> {
        let config = self.config;
        let number = within / config.replays() as u64;
        let jitter = self.order.turn(epoch, number);
        let start = number as usize * config.batch;
        let batch = &self.order.rows[start..start + config.batch];
        let (samples, perturbation) = (self.samples, &self.perturbation);
        let adversary = config.adversary.grown(self.step, self.steps);
        let part = match config.method {
            Method::Free => perturbation.len() / replicas.len(),
            _ => 0,
        };
        let learned: Vec<Result<Learned, SessionError>> = replicas
            .par_iter_mut()
            .zip(batch.par_chunks(config.shard))
            .enumerate()
            .map(|(i, (replica, rows))| {
                let shard = Shard {
                    samples,
                    rows,
                    parameters,
                    config,
                    adversary: &adversary,
                    random: foolproof::attack::rng(jitter, i as u64),
                    perturbation: match part {
                        0 => perturbation,
                        _ => &perturbation[i * part..][..part],
                    },
                    aware,
                };
                shard.run(replica)
            })
            .collect();
        let mut ascent = vec![0.0; self.perturbation.len()];
        for (i, learned) in learned.into_iter().enumerate() {
            let learned = learned?;
            self.right += learned.right;
            let into = ascent[i * part..].iter_mut();
            into.zip(learned.ascent).for_each(|(sum, g)| *sum += g);
        }
        let loss: f64 = replicas.iter().map(|r| r.loss).sum();
        self.loss += loss;
        if !loss.is_finite() {
            return Err(TrainError::Diverged {
                step: self.step,
                epoch,
            });
        }
        adversary.ascend(&mut self.perturbation, &ascent);
        Ok(())
    }

    fn end_epoch(
        &mut self,
        network: &Graph,
        stand: &Stand,
        run: &mut Option<&mut Run>,
        watch: &mut dyn Watch,
    ) -> Result<(), TrainError> {
        let (config, epoch) = (self.config, stand.epoch);
        let mut record = Epoch {
            epoch,
            loss: stand.loss,
            accuracy: stand.accuracy,
            steps: stand.step,
            held_out: None,
        };
        if !self.held_out.is_empty() {
            let how = (config, self.perturbation.as_slice());
            let judged = held_out::judge(network, self.samples, &self.held_out, how, self.seed)?;
            record.held_out = Some(judged);
            self.best.offer(
                judged.figure(),
                epoch,
                self.average.of(&self.parameters),
                &self.ranges,
            );
        }
        self.outcome.history.push(record);
        if let Some(warning) = overfitting(&self.outcome.history, config) {
            watch.warn(warning.clone());
            self.outcome.warnings.push(warning);
            self.stopped = config.on_overfitting == OnOverfitting::Stop;
        }
        self.stopped |= config.patience > 0 && epoch >= self.best.epoch + config.patience;
        watch.epoch(&record);
        if let Some(run) = run {
            run.record(stand.step, &record.record());
        }
        (self.loss, self.right) = (0.0, 0);
        Ok(())
    }

    fn checkpoint(&self) -> Checkpoint {
        let mut checkpoint = Checkpoint {
            step: self.step,
            ..Checkpoint::default()
        };
        let arrays = [
            ("parameters", self.parameters.as_slice()),
            ("average", self.average.of(&self.parameters)),
            ("optimizer", &self.stepper.state),
            ("perturbation", &self.perturbation),
            ("ranges", &self.ranges),
        ];
        for (name, array) in arrays {
            checkpoint.arrays.insert(name.into(), array.to_vec());
        }
        let numbers = [
            ("loss", self.loss),
            ("right", self.right as f64),
            ("stopped", f64::from(u8::from(self.stopped))),
        ];
        for (name, number) in numbers {
            checkpoint.numbers.insert(name.into(), number);
        }
        self.best.save(&mut checkpoint);
        checkpoint
    }

    fn restore(
        &mut self,
        checkpoint: &Checkpoint,
        run: &Run,
        tensors: usize,
    ) -> Result<(), TrainError> {
        let count = self.parameters.len();
        let ranges = match self.config.quantization_aware {
            true => 2 * tensors,
            false => 0,
        };
        let arrays = [
            ("parameters", &mut self.parameters),
            ("optimizer", &mut self.stepper.state),
            ("perturbation", &mut self.perturbation),
        ];
        for (name, array) in arrays {
            let len = array.len();
            array.copy_from_slice(checkpoint.array(name, len)?);
        }
        self.average.restore(checkpoint.array("average", count)?);
        self.ranges = checkpoint.array("ranges", ranges)?.to_vec();
        self.step = checkpoint.step;
        self.loss = checkpoint.number("loss");
        self.right = checkpoint.number("right") as usize;
        self.stopped = checkpoint.number("stopped") > 0.0;
        self.best = Best::restored(checkpoint, [count, ranges])?;
        self.outcome.history = run.records().iter().map(Epoch::of).collect();
        let history = &self.outcome.history;
        let warnings = (1..=history.len())
            .filter_map(|end| overfitting(&history[..end], self.config))
            .collect();
        self.outcome.warnings = warnings;
        Ok(())
    }

    /// Leaves the parameters that are given back in `graph`.
    fn finish(mut self, graph: &mut Graph) -> Outcome {
        let (epoch, parameters, ranges) = match self.stopped {
            true => {
                let best = &self.best;
                (best.epoch, best.parameters.as_slice(), &best.ranges)
            }
            false => {
                let last = self.average.of(&self.parameters);
                (self.config.epochs, last, &self.ranges)
            }
        };
        store(graph, self.table, parameters);
        self.outcome.epoch = epoch;
        self.outcome.perturbation = self.perturbation;
        self.outcome.ranges = (!ranges.is_empty()).then(|| Ranges::from_numbers(ranges));
        self.outcome
    }
}

/// A network's parameters, and which is where.
fn parameters_of(graph: &Graph) -> Result<(ParameterTable, Vec<f32>), TrainError> {
    let image = to_image(graph)?;
    let model = image.model().map_err(GraphError::Invalid)?;
    let mut memory = buffers(&model, 1, 1)?;
    let mut replicas = replicas(&model, 1, Kernels::Scalar, &mut memory)?;
    let session = &mut replicas[0].session;
    Ok((
        session.parameter_table().collect(),
        session.parameters()?.to_vec(),
    ))
}

/// Parameters as the network sees them.
fn as_seen(table: &ParameterTable, parameters: &[f32], aware: Option<&Aware>) -> Vec<f32> {
    let mut seen = parameters.to_vec();
    if let Some(aware) = aware {
        let place = |tensor: usize| {
            let found = table.iter().find(|(t, _, _)| *t == tensor);
            found.map(|(_, _, range)| range.clone())
        };
        aware.round(&mut seen, &place);
    }
    seen
}

/// The words about the last of these epochs, if it shows catastrophic overfitting. A network whose accuracy after PGD still rises,
/// beside what it was two epochs before, or whose adversary still grows, is left alone, unless it ends there.
fn overfitting(epochs: &[Epoch], config: &Config) -> Option<String> {
    let (last, earlier) = epochs.split_last()?;
    let held_out = last.held_out.filter(HeldOut::overfits)?;
    let Attacked { fgsm, pgd } = held_out.attacked?;
    let before = earlier.iter().rev().nth(1);
    let before = before.and_then(|e| e.held_out?.attacked);
    let rises = before.is_none_or(|before| pgd > before.pgd + held_out::RISE);
    let grows = (last.epoch as f32) < config.adversary.ramp * config.epochs as f32 + 1.0;
    if (rises || grows) && last.epoch < config.epochs {
        return None;
    }
    Some(format!(
        "catastrophic overfitting after epoch {}: {:.1} % right after FGSM, but {:.1} % after PGD with {} steps, on held-out training samples; the network is not robust (a random start, a smaller step or pgd would be right)",
        last.epoch,
        100.0 * fgsm,
        100.0 * pgd,
        held_out::PGD_STEPS
    ))
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
    let shape = &graph.tensors[graph.input].shape;
    let [rows, columns] = [shape.dim(1), shape.dim(2)];
    if config.shift > 0 && (shape.rank() != 4 || config.shift >= rows.min(columns)) {
        return fail(format!(
            "shift {}; 0 would be right, or for images less than their side (inputs are {rows}x{columns})",
            config.shift
        ));
    }
    let (low, high) = graph.input_range;
    let epsilon = config.adversary.epsilon;
    if config.method != Method::Standard && epsilon > high - low {
        return fail(format!(
            "adversary.epsilon {epsilon}; inputs from {low} to {high} are at most {} apart",
            high - low
        ));
    }
    if config.adversary.targeted && classes < 2 {
        return fail("adversary.targeted needs another class".into());
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether each of these accuracies after PGD, where FGSM leaves 90 %, is called overfitted.
    fn called(ramp: f32, after_pgd: &[f64]) -> Vec<bool> {
        let config = Config {
            epochs: after_pgd.len(),
            adversary: Adversary {
                ramp,
                ..Adversary::default()
            },
            ..Config::fast_mnist()
        };
        let epoch = |(i, &pgd): (usize, &f64)| Epoch {
            epoch: i + 1,
            loss: 1.0,
            accuracy: 0.9,
            steps: 10,
            held_out: Some(HeldOut {
                clean: 0.98,
                attacked: Some(Attacked { fgsm: 0.9, pgd }),
                universal: None,
            }),
        };
        let epochs: Vec<Epoch> = after_pgd.iter().enumerate().map(epoch).collect();
        (1..=epochs.len())
            .map(|end| overfitting(&epochs[..end], &config).is_some())
            .collect()
    }

    #[test]
    fn a_collapse_is_called_at_once_and_a_rise_is_left_alone() {
        let no = false;
        let warned = |after_pgd: &[f64]| called(0.0, after_pgd);
        assert_eq!(warned(&[0.1, 0.2, 0.21, 0.4, 0.7, 0.8]), [no; 6]);
        assert_eq!(
            warned(&[0.4, 0.7, 0.8, 0.3, 0.6, 0.85]),
            [no, no, no, true, true, no]
        );
        assert_eq!(warned(&[0.1, 0.0, 0.0, 0.05]), [no, no, true, true]);
        assert_eq!(warned(&[0.1, 0.4]), [no, true]);
        // one, two, three of four epochs with an adversary that grows: these are left alone
        let grown = [0.1, 0.0, 0.0, 0.0];
        assert_eq!(called(0.25, &grown), [no, no, true, true]);
        assert_eq!(called(0.5, &grown), [no, no, true, true]);
        assert_eq!(called(0.75, &grown), [no, no, no, true]);
    }
}
