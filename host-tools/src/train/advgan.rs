//! AdvGAN (Xiao et al., "Generating adversarial examples with adversarial networks", IJCAI 2018): a generator that turns an input
//! into an adversarial one in a single forward pass, trained against a classifier that gives gradients.
//!
//! The generator's answer is `clip(x + eps tanh(g(x)))`: no input leaves the ball or the box, by construction. In training the network
//! ends at the tanh; the rest is computed here, so that a gradient that leads back into the box is not lost at its edge. The
//! adversarial loss is that of Carlini and Wagner (2017, f6), as in the paper's equation 3 for either goal; a discriminator, if wanted,
//! makes the results look real (equation 1, in the least squares form that the paper trains with).

use super::gan::objective::Objective;
use super::gan::{self, networks::Form};
use super::player::Player;
use super::run::{Checkpoint, Run};
use super::{EPOCHS, Replica, TrainError, buffers, store};
use crate::classifier::{Classifier, InputForm};
use crate::graph::{Builder, Graph, GraphError, Window, to_image};
use crate::lines::Lines;
use foolproof::memory::Mode;
use foolproof::model::format::TensorRole;
use foolproof::ops::{Activation, OpError, Unary};
use foolproof::session::{Options, Session, SessionError};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes;

/// Everything that a run depends on, besides data and target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Radius of the linf ball, real units of the target's input.
    pub epsilon: f64,
    /// The class to reach; below 0: any but the true one.
    pub class: i64,
    /// Channels of the three convolutions of a network on images with sides that 2 divides; units of its two hidden
    /// layers (the first two numbers) on anything else.
    pub channels: [u32; 3],
    /// The margin by which the target shall be wrong, in its logits.
    pub kappa: f64,
    /// Weight of the discriminator's loss; 0: no discriminator.
    pub realism: f64,
    /// Passes over the data.
    pub epochs: usize,
    /// Samples per step, a multiple of `shard`.
    pub batch: usize,
    /// Samples per session.
    pub shard: usize,
    /// Adam's learning rate.
    pub rate: f64,
    /// It falls evenly to this share of itself.
    pub final_rate: f64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            epsilon: 0.3,
            class: -1,
            channels: [8, 16, 16],
            kappa: 10.0,
            realism: 0.0,
            epochs: 10,
            batch: 64,
            shard: 16,
            rate: 2e-3,
            final_rate: 0.1,
        }
    }
}

impl Config {
    /// Checks the ranges; the target has so many classes.
    ///
    /// # Errors
    /// Names the first setting out of its range.
    pub fn check(&self, classes: usize) -> Result<(), TrainError> {
        let fail = |text: String| Err(TrainError::Config(text));
        for (name, value, low, high) in [
            ("epsilon", self.epsilon, 1e-6, 1e6),
            ("kappa", self.kappa, 0.0, 1e6),
            ("realism", self.realism, 0.0, 1e6),
            ("rate", self.rate, 1e-12, 1e3),
            ("final_rate", self.final_rate, 0.0, 1.0),
        ] {
            if !(low..=high).contains(&value) {
                return fail(format!("{name} {value}; {low} to {high} would be right"));
            }
        }
        if self.channels.iter().any(|&c| c == 0 || c > 4096) {
            return fail("channels must be 1 to 4096 each".into());
        }
        if self.class < -1 || self.class >= classes as i64 {
            return fail(format!(
                "class {}; the target has {classes} classes, from 0 on, and -1 is any",
                self.class
            ));
        }
        if self.epochs == 0 || self.epochs > EPOCHS {
            let epochs = self.epochs;
            return fail(format!("epochs {epochs}; 1 to {EPOCHS} would be right"));
        }
        let (batch, shard) = (self.batch, self.shard);
        if shard == 0 || batch == 0 || batch > 65536 || !batch.is_multiple_of(shard) {
            return fail(format!(
                "batch {batch} with shard {shard}; the batch must be a multiple of the shard, and at most 65536"
            ));
        }
        Ok(())
    }
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stand {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// The epoch, counted from 1.
    pub epoch: usize,
    /// The generator's mean loss over the epoch so far.
    pub loss: f64,
    /// The share of the epoch's samples so far that reached the goal.
    pub success: f64,
}

/// What is trained against what.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// The target; int8 ones pass gradients straight through their rounding.
    pub target: &'a Classifier<'a>,
    /// Inputs in real units, sample after sample.
    pub x: &'a [f32],
    /// The true labels.
    pub labels: &'a [usize],
    /// Everything else.
    pub config: &'a Config,
    /// The seed of every random choice.
    pub seed: u64,
}

/// The radius that the generator is built with: one step less than fit into epsilon, on the target's grid or the one of 255 steps over
/// the input's range. An int8 generator rounds the perturbation (0.3 steps), the sum (0.8) and the clipped sum (0.5), and what is off
/// by less than two steps from this radius is, in whole steps, inside of epsilon.
pub fn radius(form: &InputForm, epsilon: f64) -> f64 {
    let step = match form.grid {
        Some(grid) => f64::from(grid.scale),
        None => f64::from(form.range.1 - form.range.0) / 255.0,
    };
    let whole = (epsilon / step * (1.0 + 1e-6)).floor();
    match whole >= 1.0 {
        true => (whole - 1.0).max(0.5) * step,
        false => epsilon,
    }
}

/// The network up to the tanh: perturbations in units of the radius.
fn trunk(form: &InputForm, config: &Config, seed: u64) -> Result<Graph, OpError> {
    let mut b = begin(form, seed)?;
    let x = b.input();
    let x = body(&mut b, x, form, config)?;
    Ok(b.finish(x))
}

/// The whole generator, from an input to an adversarial one.
fn whole(form: &InputForm, config: &Config, seed: u64) -> Result<Graph, OpError> {
    let mut b = begin(form, seed)?;
    let input = b.input();
    let mut x = body(&mut b, input, form, config)?;
    let radius = b.scalar(radius(form, config.epsilon) as f32)?;
    x = b.mul(x, radius, Activation::None)?;
    x = b.add(input, x, Activation::None)?;
    let (low, high) = form.range;
    x = b.unary(x, Unary::Clip { low, high })?;
    Ok(b.finish(x))
}

fn begin(form: &InputForm, seed: u64) -> Result<Builder, OpError> {
    let dims: Vec<u32> = form.shape.iter().map(|&d| d as u32).collect();
    Builder::new(&dims, form.range, seed)
}

fn body(
    b: &mut Builder,
    mut x: crate::graph::TensorId,
    form: &InputForm,
    config: &Config,
) -> Result<crate::graph::TensorId, OpError> {
    let [outer, inner, middle] = config.channels;
    let none = Activation::None;
    if let [h, w, c] = form.shape[..]
        && h % 2 == 0
        && w % 2 == 0
    {
        x = b.conv2d(x, outer, Window::same(3), Activation::Relu)?;
        x = b.conv2d(x, inner, Window::same(3).stride(2), Activation::Relu)?;
        x = b.conv2d(x, middle, Window::same(3), Activation::Relu)?;
        x = b.conv_transpose2d(x, outer, Window::same(4).stride(2), none)?;
        x = b.unary(x, Unary::Relu)?;
        x = b.conv2d(x, c as u32, Window::same(3), none)?;
        return b.unary(x, Unary::Tanh);
    }
    x = b.dense(x, outer * 16, Activation::Relu)?;
    x = b.dense(x, inner * 16, Activation::Relu)?;
    x = b.dense(x, form.input_len() as u32, none)?;
    x = b.unary(x, Unary::Tanh)?;
    let dims: Vec<u32> = [1]
        .into_iter()
        .chain(form.shape.iter().map(|&d| d as u32))
        .collect();
    b.reshape(x, &dims)
}

/// Trains to the end, from the beginning or a checkpoint; `watch` is called after every step, and after the last one of an
/// epoch with the generator. Returns the generator.
///
/// # Errors
/// [`TrainError`].
pub fn train(
    task: Task<'_>,
    run: &mut Run,
    checkpoint: Option<&Checkpoint>,
    watch: &mut dyn FnMut(&Stand),
) -> Result<Graph, TrainError> {
    let config = task.config;
    let form = task.target.form();
    config.check(task.target.model().classes())?;
    let count = task.labels.len();
    let per_epoch = (count / config.batch) as u64;
    if per_epoch == 0 {
        return Err(TrainError::Config(format!(
            "{count} samples are fewer than one batch of {}",
            config.batch
        )));
    }
    let steps = per_epoch * config.epochs as u64;
    let refuse = |error: OpError| {
        TrainError::Config(format!(
            "inputs of shape {:?} do not fit the generator ({error})",
            form.shape
        ))
    };
    let mut graph = trunk(&form, config, task.seed).map_err(refuse)?;
    let mut judge = discriminator(&form, task.seed ^ 1).map_err(refuse)?;
    let images = [to_image(&graph)?, to_image(&judge)?];
    let g_model = images[0].model().map_err(GraphError::Invalid)?;
    let d_model = images[1].model().map_err(GraphError::Invalid)?;
    let shards = config.batch / config.shard;
    let mut g_memory = buffers(&g_model, config.shard, shards)?;
    let mut d_memory = buffers(&d_model, config.shard, shards)?;
    let mut g = Player::new(&g_model, &mut g_memory, config.shard, [0.9, 0.999])?;
    let mut d = Player::new(&d_model, &mut d_memory, config.shard, [0.5, 0.999])?;
    let bytes = task
        .target
        .model()
        .preferred_buffer_for(Mode::Attack, config.shard)
        .ok_or(SessionError::ModeUnsupported { mode: Mode::Attack })?;
    let mut t_memory = vec![Lines::zeroed(bytes); shards];
    let options = Options {
        mode: Mode::Attack,
        batch: config.shard,
        kernels: task.target.kernels(),
    };
    let mut targets: Vec<Session<'_>> = t_memory
        .iter_mut()
        .map(|memory| Session::with_options(task.target.model(), options, memory))
        .collect::<Result<_, _>>()?;
    let (mut step, mut sums) = (0, [0.0; 2]);
    if let Some(checkpoint) = checkpoint {
        g.restore("generator", checkpoint)?;
        d.restore("discriminator", checkpoint)?;
        step = checkpoint.step;
        sums = ["loss.sum", "success.sum"].map(|name| checkpoint.number(name));
    }
    g.spread()?;
    d.spread()?;
    run.open()?;
    let mut order: Vec<usize> = Vec::new();
    while step < steps {
        let epoch = (step / per_epoch) as usize + 1;
        let within = (step % per_epoch) as usize;
        if within == 0 || order.is_empty() {
            order = (0..count).collect();
            let mut rng = foolproof::attack::rng(task.seed ^ 0x0adf, epoch as u64);
            super::classifier::shuffle(&mut order, &mut rng);
        }
        let batch = &order[within * config.batch..(within + 1) * config.batch];
        let left = 1.0 - (1.0 - config.final_rate) * step as f64 / steps as f64;
        step += 1;
        let parts: Vec<Result<[f64; 2], SessionError>> = g
            .replicas
            .par_iter_mut()
            .zip(&mut d.replicas)
            .zip(&mut targets)
            .zip(batch.par_chunks(config.shard))
            .map(|(((g, d), target), rows)| descend(task, &form, (g, d, target), rows))
            .collect();
        let mut here = [0.0; 2];
        for part in parts {
            let part = part?;
            here = [here[0] + part[0], here[1] + part[1]];
        }
        g.step((config.rate * left) as f32, 1)?;
        if config.realism > 0.0 {
            d.step((config.rate * left) as f32, 2)?;
        }
        if !here[0].is_finite() {
            return Err(TrainError::Diverged { step, epoch });
        }
        sums = [sums[0] + here[0], sums[1] + here[1]];
        let done = within as u64 + 1;
        let seen = (done * config.batch as u64) as f64;
        let stand = Stand {
            step,
            steps,
            epoch,
            loss: sums[0] / seen,
            success: sums[1] / seen,
        };
        watch(&stand);
        if done == per_epoch {
            let figures = [
                ("epoch", epoch as f64),
                ("loss", stand.loss),
                ("success", stand.success),
            ];
            run.record(step, &figures);
            sums = [0.0; 2];
        }
        if step == steps || run.is_due() {
            let mut checkpoint = Checkpoint {
                step,
                ..Checkpoint::default()
            };
            g.save("generator", &mut checkpoint)?;
            d.save("discriminator", &mut checkpoint)?;
            checkpoint.numbers.insert("loss.sum".into(), sums[0]);
            checkpoint.numbers.insert("success.sum".into(), sums[1]);
            run.save(checkpoint)?;
        }
    }
    let (table, parameters) = g.tensors()?;
    store(&mut graph, table, parameters);
    let (table, parameters) = d.tensors()?;
    store(&mut judge, table, parameters);
    let mut made = whole(&form, config, task.seed).map_err(refuse)?;
    let learns = |role| role == TensorRole::Parameter;
    let from = graph.tensors.iter().filter(|tensor| learns(tensor.role));
    let to = made.tensors.iter_mut().filter(|tensor| learns(tensor.role));
    for (from, to) in from.zip(to) {
        to.data = from.data.clone();
    }
    Ok(made)
}

fn discriminator(form: &InputForm, seed: u64) -> Result<Graph, OpError> {
    let shape = form.shape.iter().map(|&d| d as u32).collect();
    let config = gan::Config {
        hidden: vec![128],
        ..gan::Config::for_samples()
    };
    let form = Form { shape, image: true };
    gan::networks::discriminator(&form, &config, 0, seed)
}

/// One step's part of a shard: the sums of the generator's loss and of successes.
fn descend(
    task: Task<'_>,
    form: &InputForm,
    (g, d, target): (&mut Replica<'_>, &mut Replica<'_>, &mut Session<'_>),
    rows: &[usize],
) -> Result<[f64; 2], SessionError> {
    let config = task.config;
    let (n, classes) = (form.input_len(), task.target.model().classes());
    let weight = 1.0 / config.batch as f32;
    let radius = radius(form, config.epsilon) as f32;
    let (low, high) = form.range;
    let x: Vec<f32> = rows
        .iter()
        .flat_map(|&row| &task.x[row * n..(row + 1) * n])
        .copied()
        .collect();
    let wanted: Vec<f32> = {
        let pushes = g.session.forward_f32(&x)?;
        let moved = x.iter().zip(pushes);
        moved.map(|(x, push)| x + radius * push).collect()
    };
    let made: Vec<f32> = wanted.iter().map(|v| v.clamp(low, high)).collect();
    match task.target.inputs(&made) {
        crate::classifier::Inputs::F32(made) => target.forward_bytes(made.as_bytes())?,
        crate::classifier::Inputs::I8(made) => target.forward_bytes(made.as_bytes())?,
    };
    let mut logits = vec![0.0; rows.len() * classes];
    target.logits(&mut logits)?;
    let (mut loss, mut successes) = (0.0, 0.0);
    for (z, &row) in logits.chunks_exact_mut(classes).zip(rows) {
        let (value, success) = margin(z, task.labels[row], config);
        loss += value;
        successes += f64::from(u8::from(success));
        z.iter_mut().for_each(|z| *z *= weight);
    }
    let mut slopes = target.backward(&logits)?.to_vec();
    if config.realism > 0.0 {
        let kind = Objective::LeastSquares;
        gan::descend(&mut d.session, &x, weight, |a| kind.real(a, 1.0))?;
        gan::descend(&mut d.session, &made, weight, |a| kind.fake(a))?;
        let price = weight * config.realism as f32;
        let (value, part) = gan::hand_on(&mut d.session, &made, price, |a| kind.generator(a))?;
        loss += value * config.batch as f64;
        slopes.iter_mut().zip(part).for_each(|(s, p)| *s += p);
    }
    for (slope, &at) in slopes.iter_mut().zip(&wanted) {
        // beyond the box only what leads back counts
        let lost = (at < low && *slope > 0.0) || (at > high && *slope < 0.0);
        *slope = if lost { 0.0 } else { *slope * radius };
    }
    g.session.backward_parameters(&slopes)?;
    Ok([loss, successes])
}

/// Carlini and Wagner's loss of one sample's logits, which it replaces by its gradient; and whether the goal is reached.
fn margin(z: &mut [f32], label: usize, config: &Config) -> (f64, bool) {
    let targeted = config.class >= 0;
    let class = if targeted {
        config.class as usize
    } else {
        label
    };
    let mut other = usize::from(class == 0);
    for (i, &v) in z.iter().enumerate() {
        if i != class && v > z[other] {
            other = i;
        }
    }
    let (above, below) = if targeted {
        (other, class)
    } else {
        (class, other)
    };
    let gap = z[above] - z[below];
    // of equal scores the first is the label
    let success = gap < 0.0 || (gap == 0.0 && below < above);
    let kappa = config.kappa as f32;
    let slope = if gap > -kappa { 1.0 } else { 0.0 };
    z.fill(0.0);
    z[above] = slope;
    z[below] = -slope;
    (f64::from(gap.max(-kappa)), success)
}
