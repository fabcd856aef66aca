//! Variational autoencoders (Kingma and Welling, "Auto-encoding variational Bayes", 2014): an encoder says which codes a sample may
//! have (a normal distribution: mean and logarithm of the variance), a decoder makes the sample of a code, and both learn by
//! climbing the evidence lower bound (equation 10).
//!
//! Encoder and decoder are two sessions. A code is `mean + exp(log variance / 2) noise` (section 2.4), so the decoder's gradient with
//! respect to its input goes on to mean and log variance, and these are the encoder's output. The decoder in training ends before the
//! generator's tanh, where the likelihoods' slopes are simple and never lost in saturation; what is stored has it.

pub mod config;

pub use config::{Config, Likelihood};

use super::gan::config::Network;
use super::gan::networks::{self, Form};
use super::gan::objective::{sigmoid, softplus};
use super::player::Player;
use super::run::{Checkpoint, Run};
use super::source::{Set, normal};
use super::{Replica, TrainError, buffers, store};
use crate::graph::{Builder, Graph, GraphError, Window, to_image};
use foolproof::model::format::TensorRole;
use foolproof::ops::{Activation, OpError, Unary};
use foolproof::session::SessionError;
use rayon::prelude::*;

/// Log variances are held between minus and plus this: a code's spread between 1/3000 and 3000.
const LARGEST_LOG_VARIANCE: f32 = 16.0;

/// Where a run stands; figures are means per sample over the epoch so far, in nats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stand {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// The epoch, counted from 1.
    pub epoch: usize,
    /// What the two add up to, the second by its weight beta.
    pub loss: f64,
    /// Minus the log likelihood of the sample, given a code.
    pub reconstruction: f64,
    /// Divergence of the codes from the prior.
    pub divergence: f64,
}

/// Both networks.
#[derive(Clone, Debug)]
pub struct Pair {
    /// From a sample to mean and log variance, `[2 * latent]`.
    pub encoder: Graph,
    /// From a code to a sample: the form of a GAN's generator.
    pub decoder: Graph,
}

/// Who watches a training.
pub trait Watch {
    /// After every step.
    fn step(&mut self, stand: &Stand);

    /// After every epoch. Returns figures for the log.
    ///
    /// # Errors
    /// Training ends with it.
    fn epoch(&mut self, stand: &Stand, pair: &Pair)
    -> Result<Vec<(&'static str, f64)>, TrainError>;
}

/// The two networks before training.
///
/// # Errors
/// The data's shape does not fit.
pub fn networks(form: &Form, config: &Config, seed: u64) -> Result<Pair, TrainError> {
    let refuse = |error: OpError| {
        TrainError::Config(format!(
            "samples of shape {:?} do not fit the network ({error}); dcgan needs images with sides that 4 divides, mlp takes any",
            form.shape
        ))
    };
    Ok(Pair {
        encoder: encoder(form, config, seed ^ 1).map_err(refuse)?,
        decoder: networks::generator(form, &config.generator(), 0, seed).map_err(refuse)?,
    })
}

fn encoder(form: &Form, config: &Config, seed: u64) -> Result<Graph, OpError> {
    let range = if form.image { (-1.0, 1.0) } else { (-8.0, 8.0) };
    let leak = Unary::LeakyRelu { alpha: 0.2 };
    let mut b = Builder::new(&form.shape, range, seed)?;
    let mut x = b.input();
    match config.network {
        Network::Mlp => {
            for &units in config.hidden.iter().rev() {
                x = b.dense(x, units, Activation::None)?;
                x = b.unary(x, leak)?;
            }
        }
        Network::Dcgan => {
            for channels in [32, 64] {
                x = b.conv2d(x, channels, Window::same(4).stride(2), Activation::None)?;
                x = b.batch_norm(x)?;
                x = b.unary(x, leak)?;
            }
        }
    }
    let x = b.dense(x, 2 * config.latent, Activation::None)?;
    Ok(b.finish(x))
}

/// What is trained on what.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// Samples.
    pub set: &'a Set,
    /// Everything else.
    pub config: &'a Config,
    /// The seed of every random choice.
    pub seed: u64,
}

/// Trains to the end, from the beginning or a checkpoint.
///
/// # Errors
/// [`TrainError`].
pub fn train(
    task: Task<'_>,
    run: &mut Run,
    checkpoint: Option<&Checkpoint>,
    watch: &mut dyn Watch,
) -> Result<Pair, TrainError> {
    let Task { set, config, seed } = task;
    config.check(set.form.image)?;
    let per_epoch = (set.len() / config.batch) as u64;
    if per_epoch == 0 {
        return Err(TrainError::Config(format!(
            "{} samples are fewer than one batch of {}",
            set.len(),
            config.batch
        )));
    }
    let steps = per_epoch * config.epochs as u64;
    let mut pair = networks(&set.form, config, seed)?;
    let mut trunk = networks::trunk(&set.form, &config.generator(), 0, seed)
        .map_err(|error| TrainError::Config(error.to_string()))?;
    let images = [to_image(&pair.encoder)?, to_image(&trunk)?];
    let e_model = images[0].model().map_err(GraphError::Invalid)?;
    let d_model = images[1].model().map_err(GraphError::Invalid)?;
    let shards = config.batch / config.shard;
    let mut e_memory = buffers(&e_model, config.shard, shards)?;
    let mut d_memory = buffers(&d_model, config.shard, shards)?;
    let betas = [config.beta1 as f32, config.beta2 as f32];
    let mut e = Player::new(&e_model, &mut e_memory, config.shard, betas)?;
    let mut d = Player::new(&d_model, &mut d_memory, config.shard, betas)?;
    let (mut step, mut sums) = (0, [0.0; 2]);
    if let Some(checkpoint) = checkpoint {
        e.restore("encoder", checkpoint)?;
        d.restore("decoder", checkpoint)?;
        step = checkpoint.step;
        sums = ["reconstruction.sum", "divergence.sum"].map(|name| checkpoint.number(name));
    }
    e.spread()?;
    d.spread()?;
    run.open()?;
    let mut order: Vec<usize> = Vec::new();
    while step < steps {
        let epoch = (step / per_epoch) as usize + 1;
        let within = (step % per_epoch) as usize;
        if within == 0 || order.is_empty() {
            order = (0..set.len()).collect();
            let mut rng = foolproof::attack::rng(seed ^ ORDER, epoch as u64);
            super::classifier::shuffle(&mut order, &mut rng);
        }
        let batch = &order[within * config.batch..(within + 1) * config.batch];
        let left = 1.0 - (1.0 - config.final_rate) * step as f64 / steps as f64;
        step += 1;
        let losses: Vec<Result<[f64; 2], SessionError>> = e
            .replicas
            .par_iter_mut()
            .zip(&mut d.replicas)
            .zip(batch.par_chunks(config.shard))
            .enumerate()
            .map(|(i, ((e, d), rows))| descend(task, (e, d), rows, step * shards as u64 + i as u64))
            .collect();
        let mut here = [0.0; 2];
        for losses in losses {
            let [reconstruction, divergence] = losses?;
            here[0] += reconstruction / config.batch as f64;
            here[1] += divergence / config.batch as f64;
        }
        e.step((config.rate * left) as f32, 1)?;
        d.step((config.rate * left) as f32, 1)?;
        if !here.iter().all(|v| v.is_finite()) {
            return Err(TrainError::Diverged { step, epoch });
        }
        sums = [sums[0] + here[0], sums[1] + here[1]];
        let done = within as u64 + 1;
        let [reconstruction, divergence] = sums.map(|sum| sum / done as f64);
        let stand = Stand {
            step,
            steps,
            epoch,
            loss: reconstruction + config.beta * divergence,
            reconstruction,
            divergence,
        };
        watch.step(&stand);
        if done == per_epoch {
            let (table, parameters) = e.tensors()?;
            store(&mut pair.encoder, table, parameters);
            let (table, parameters) = d.tensors()?;
            store(&mut trunk, table, parameters);
            hand_over(&trunk, &mut pair.decoder);
            let mut record = vec![
                ("epoch", epoch as f64),
                ("loss", stand.loss),
                ("reconstruction", stand.reconstruction),
                ("divergence", stand.divergence),
            ];
            record.extend(watch.epoch(&stand, &pair)?);
            run.record(step, &record);
            sums = [0.0; 2];
        }
        if step == steps || run.is_due() {
            let mut checkpoint = Checkpoint {
                step,
                ..Checkpoint::default()
            };
            e.save("encoder", &mut checkpoint)?;
            d.save("decoder", &mut checkpoint)?;
            let numbers = [("reconstruction.sum", sums[0]), ("divergence.sum", sums[1])];
            let numbers = numbers.map(|(name, value)| (name.to_string(), value));
            checkpoint.numbers.extend(numbers);
            run.save(checkpoint)?;
        }
    }
    let (table, parameters) = e.tensors()?;
    store(&mut pair.encoder, table, parameters);
    let (table, parameters) = d.tensors()?;
    store(&mut trunk, table, parameters);
    hand_over(&trunk, &mut pair.decoder);
    Ok(pair)
}

/// Tells the order of samples from the noise of codes.
const ORDER: u64 = 0x6f72_6465_7200_0001;
const NOISE: u64 = 0x6e6f_6973_6500_0002;

/// Parameters of the network in training to the one that is stored: the same ones in the same order.
fn hand_over(trunk: &Graph, whole: &mut Graph) {
    let learns = |role| matches!(role, TensorRole::Parameter | TensorRole::Statistic);
    let from = trunk.tensors.iter().filter(|tensor| learns(tensor.role));
    let to = whole
        .tensors
        .iter_mut()
        .filter(|tensor| learns(tensor.role));
    for (from, to) in from.zip(to) {
        to.data = from.data.clone();
    }
}

/// One forward and backward on a shard; the sums of reconstruction and divergence over its samples.
fn descend(
    task: Task<'_>,
    (e, d): (&mut Replica<'_>, &mut Replica<'_>),
    rows: &[usize],
    stream: u64,
) -> Result<[f64; 2], SessionError> {
    let Task { set, config, seed } = task;
    let (len, latent) = (set.form.len(), config.latent as usize);
    let weight = 1.0 / config.batch as f32;
    let x: Vec<f32> = rows
        .iter()
        .flat_map(|&row| &set.x[row * len..(row + 1) * len])
        .copied()
        .collect();
    let mut codes = e.session.forward_f32(&x)?.to_vec();
    let mut noise = vec![0.0; rows.len() * latent];
    normal(
        &mut foolproof::attack::rng(seed ^ NOISE, stream),
        &mut noise,
    );
    let z = codes_of(&codes, &noise, latent);
    let mut answer = d.session.forward_f32(&z)?.to_vec();
    let mut reconstruction = 0.0;
    for (a, &x) in answer.iter_mut().zip(&x) {
        let (loss, slope) = price(config, set.form.image, *a, x);
        reconstruction += loss;
        *a = weight * slope;
    }
    let slopes = d.session.backward(&answer)?;
    let mut divergence = 0.0;
    let beta = config.beta as f32 * weight;
    let each = codes.chunks_exact_mut(2 * latent);
    for ((code, slope), noise) in each
        .zip(slopes.chunks_exact(latent))
        .zip(noise.chunks_exact(latent))
    {
        let (means, logs) = code.split_at_mut(latent);
        for (((mean, log), &slope), &noise) in means.iter_mut().zip(logs).zip(slope).zip(noise) {
            let held = log.clamp(-LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE);
            let (variance, spread) = (libm::expf(held), libm::expf(0.5 * held));
            // appendix B of the paper
            divergence += 0.5 * f64::from(*mean * *mean + variance - 1.0 - held);
            *mean = beta * *mean + slope;
            *log = 0.5 * (beta * (variance - 1.0) + slope * noise * spread);
        }
    }
    e.session.backward_parameters(&codes)?;
    Ok([reconstruction, divergence])
}

/// `mean + exp(log variance / 2) noise`.
fn codes_of(codes: &[f32], noise: &[f32], latent: usize) -> Vec<f32> {
    codes
        .chunks_exact(2 * latent)
        .zip(noise.chunks_exact(latent))
        .flat_map(|(code, noise)| {
            let (means, logs) = code.split_at(latent);
            means
                .iter()
                .zip(logs)
                .zip(noise)
                .map(|((mean, log), noise)| {
                    let held = log.clamp(-LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE);
                    mean + libm::expf(0.5 * held) * noise
                })
        })
        .collect()
}

/// Minus the log likelihood of an element `x` where the decoder in training says `a`, and its slope.
fn price(config: &Config, image: bool, a: f32, x: f32) -> (f64, f32) {
    match config.likelihood {
        // tanh(a) is 2 p - 1 with p = sigmoid(2 a)
        Likelihood::Bernoulli => {
            let t = f64::from(0.5 * x + 0.5).clamp(0.0, 1.0);
            let loss = t * softplus(-2.0 * a) + (1.0 - t) * softplus(2.0 * a);
            (loss, (2.0 * (sigmoid(2.0 * a) - t)) as f32)
        }
        Likelihood::Gaussian => {
            let mean = if image { libm::tanhf(a) } else { a };
            let inner = if image { 1.0 - mean * mean } else { 1.0 };
            let deviation = config.deviation;
            let off = f64::from(mean - x) / deviation;
            let constant = libm::log(deviation) + 0.5 * libm::log(2.0 * std::f64::consts::PI);
            (0.5 * off * off + constant, (off / deviation) as f32 * inner)
        }
    }
}

/// Minus the evidence lower bound (reconstruction and divergence, beta not counted) per sample of `set`, in nats, with one
/// code each, drawn from the seed and the sample.
///
/// # Errors
/// The networks do not fit the samples.
pub fn bound(pair: &Pair, task: Task<'_>) -> Result<f64, TrainError> {
    let Task { set, config, seed } = task;
    let codes = super::answers(&pair.encoder, &set.x)?;
    let latent = config.latent as usize;
    let mut noise = vec![0.0; set.len() * latent];
    for (i, noise) in noise.chunks_exact_mut(latent).enumerate() {
        normal(&mut foolproof::attack::rng(seed, i as u64), noise);
    }
    let said = super::answers(&pair.decoder, &codes_of(&codes, &noise, latent))?;
    let mut sum = 0.0;
    for (&y, &x) in said.iter().zip(&set.x) {
        // back before the tanh
        let a = if set.form.image {
            libm::atanhf(y.clamp(-0.999_999, 0.999_999))
        } else {
            y
        };
        sum += price(config, set.form.image, a, x).0;
    }
    for code in codes.chunks_exact(2 * latent) {
        let (means, logs) = code.split_at(latent);
        for (mean, log) in means.iter().zip(logs) {
            let held = log.clamp(-LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE);
            sum += 0.5 * f64::from(mean * mean + libm::expf(held) - 1.0 - held);
        }
    }
    Ok(sum / set.len() as f64)
}

/// What the decoder makes of the mean code of every sample.
///
/// # Errors
/// The networks do not fit the samples.
pub fn reconstruct(pair: &Pair, x: &[f32], latent: usize) -> Result<Vec<f32>, TrainError> {
    let codes = super::answers(&pair.encoder, x)?;
    let means: Vec<f32> = codes
        .chunks_exact(2 * latent)
        .flat_map(|code| &code[..latent])
        .copied()
        .collect();
    super::answers(&pair.decoder, &means)
}
