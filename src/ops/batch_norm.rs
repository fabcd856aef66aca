//! Batch normalization over the last axis (Ioffe and Szegedy, 2015): x, gamma, beta, running mean, running
//! variance.
//!
//! Inference uses the running statistics. Training normalizes by the batch's mean and *biased* variance; the running
//! variance follows the *unbiased* one, as in PyTorch. With one element per channel, both are the biased one.

use super::{BatchNorm, OpError, check};
use crate::tensor::{DType, Operand};

/// Channels at once, summed in double precision: as many sums as hide how long an addition takes.
const BLOCK: usize = 16;

impl BatchNorm {
    pub(super) fn check(&self, inputs: &[Operand], output: &Operand) -> Result<(), OpError> {
        check::count(inputs.len(), 5)?;
        let [x, constants @ ..] = inputs else {
            return Err(OpError::Attribute);
        };
        check::dtype(x, 0, DType::F32)?;
        check::dtype(output, check::OUTPUT, DType::F32)?;
        for (i, constant) in constants.iter().enumerate() {
            check::constant(constant, i as u8 + 1, DType::F32, x.shape.channels())?;
        }
        if !(self.epsilon.is_finite() && self.epsilon > 0.0) {
            return Err(OpError::Attribute);
        }
        Ok(())
    }

    /// Writes the batch's means, then its 1/sqrt(variance + epsilon).
    pub(super) fn prepare(&self, x: &Operand, saved: &mut [u8]) {
        let channels = x.shape.channels();
        let (means, inverses) = saved.split_at_mut((4 * channels).min(saved.len()));
        let blocks = means
            .chunks_mut(4 * BLOCK)
            .zip(inverses.chunks_mut(4 * BLOCK));
        for (block, (means, inverses)) in blocks.enumerate() {
            let first = block * BLOCK;
            let (mean, variance) = statistics(x.f32(), channels, first);
            let values = mean.iter().zip(&variance);
            let bytes = means.chunks_exact_mut(4).zip(inverses.chunks_exact_mut(4));
            for ((mean_bytes, inverse_bytes), (&mean, &variance)) in bytes.zip(values) {
                let inverse = 1.0 / libm::sqrtf(variance as f32 + self.epsilon);
                mean_bytes.copy_from_slice(&(mean as f32).to_ne_bytes());
                inverse_bytes.copy_from_slice(&inverse.to_ne_bytes());
            }
        }
    }

    /// Mean and 1/sqrt(variance + epsilon) of channel `c`: the batch's where saved, else the running ones.
    fn normalizer(&self, inputs: &[Operand], saved: &[u8], c: usize) -> (f32, f32) {
        let channels = inputs.first().map_or(1, |x| x.shape.channels());
        if let (Some(mean), Some(inverse)) = (read(saved, c), read(saved, channels + c)) {
            return (mean, inverse);
        }
        let running = |i: usize| {
            inputs
                .get(i)
                .and_then(|x| x.f32().get(c).copied())
                .unwrap_or(0.0)
        };
        (running(3), 1.0 / libm::sqrtf(running(4) + self.epsilon))
    }

    pub(super) fn forward(&self, inputs: &[Operand], saved: &[u8], y: &mut [f32]) {
        let [x, gamma, beta, ..] = inputs else { return };
        let channels = x.shape.channels();
        for first in (0..channels).step_by(BLOCK) {
            let width = BLOCK.min(channels - first);
            let (mut mean, mut scale, mut shift) = ([0.0; BLOCK], [0.0; BLOCK], [0.0; BLOCK]);
            for k in 0..width {
                let (m, inverse) = self.normalizer(inputs, saved, first + k);
                mean[k] = m;
                scale[k] = gamma.f32()[first + k] * inverse;
                shift[k] = beta.f32()[first + k];
            }
            let x = x.f32();
            normalize(x, first, &mean, &scale, &shift, y, channels);
        }
    }

    /// Inference: `gamma / sqrt(variance + epsilon) gy`. Training: the full gradient, through the batch's mean
    /// and variance too: `gamma inverse (gy - mean(gy) - normalized mean(gy normalized))`.
    pub(super) fn input_gradient(
        &self,
        inputs: &[Operand],
        saved: &[u8],
        gy: &[f32],
        gx: &mut [f32],
    ) {
        let [x, gamma, ..] = inputs else { return };
        let channels = x.shape.channels();
        let rows = (gy.len() / channels) as f32;
        for first in (0..channels).step_by(BLOCK) {
            let width = BLOCK.min(channels - first);
            let (mut mean, mut inverse, mut scale) = ([0.0; BLOCK], [0.0; BLOCK], [0.0; BLOCK]);
            for k in 0..width {
                (mean[k], inverse[k]) = self.normalizer(inputs, saved, first + k);
                scale[k] = gamma.f32()[first + k] * inverse[k];
            }
            // what it saves is for training only
            if !cfg!(feature = "train") || saved.is_empty() {
                for (gy, gx) in gy.chunks_exact(channels).zip(gx.chunks_exact_mut(channels)) {
                    let gy = block(gy, first);
                    write(gx, first, |k| scale[k] * gy[k], |gx, value| *gx += value);
                }
                continue;
            }
            let (mean_gy, mean_gy_normalized) = {
                let (sum, sum_normalized) = self.sums(inputs, saved, first, gy);
                (
                    sum.map(|s| s as f32 / rows),
                    sum_normalized.map(|s| s as f32 / rows),
                )
            };
            let normalizer = [&mean, &inverse, &scale, &mean_gy, &mean_gy_normalized];
            let x = x.f32();
            add_gradient([x, gy], first, normalizer, gx, channels);
        }
    }

    /// Sums of gy and of gy times the normalized input, for the channels from `first` on.
    fn sums(
        &self,
        inputs: &[Operand],
        saved: &[u8],
        first: usize,
        gy: &[f32],
    ) -> ([f64; BLOCK], [f64; BLOCK]) {
        let Some(x) = inputs.first() else {
            return ([0.0; BLOCK], [0.0; BLOCK]);
        };
        let channels = x.shape.channels();
        let width = BLOCK.min(channels - first);
        let (mut mean, mut inverse) = ([0.0; BLOCK], [0.0; BLOCK]);
        for k in 0..width {
            (mean[k], inverse[k]) = self.normalizer(inputs, saved, first + k);
        }
        let x = x.f32();
        gradient_sums([x, gy], first, &mean, &inverse, channels)
    }

    /// gamma (1), beta (2); mean (3) and variance (4) as `running - batch`.
    pub(super) fn parameter_gradient(
        &self,
        which: usize,
        inputs: &[Operand],
        saved: &[u8],
        gy: &[f32],
        gw: &mut [f32],
    ) {
        let [x, _, _, mean, variance] = inputs else {
            return;
        };
        let channels = x.shape.channels();
        let rows = (x.shape.len() / channels) as f64;
        let unbiased = if rows > 1.0 { rows / (rows - 1.0) } else { 1.0 };
        for (block, gw) in gw.chunks_mut(BLOCK).enumerate() {
            let first = block * BLOCK;
            if which <= 2 {
                let (sum, sum_normalized) = self.sums(inputs, saved, first, gy);
                let sums = if which == 1 { sum_normalized } else { sum };
                for (gw, sum) in gw.iter_mut().zip(sums) {
                    *gw += sum as f32;
                }
            } else if which == 3 {
                for (k, gw) in (first..).zip(gw) {
                    // the batch's, if there was one
                    if let Some(batch) = read(saved, k) {
                        *gw += mean.f32()[k] - batch;
                    }
                }
            } else if !saved.is_empty() {
                let (_, batch_variance) = statistics(x.f32(), channels, first);
                for (k, gw) in gw.iter_mut().enumerate() {
                    *gw += variance.f32()[first + k] - (batch_variance[k] * unbiased) as f32;
                }
            }
        }
    }
}

/// `(x - mean) scale + shift` for the channels from `first` on.
#[inline(always)]
fn normalize(
    x: &[f32],
    first: usize,
    mean: &[f32; BLOCK],
    scale: &[f32; BLOCK],
    shift: &[f32; BLOCK],
    y: &mut [f32],
    channels: usize,
) {
    let rows = x.chunks_exact(channels).zip(y.chunks_exact_mut(channels));
    for (x, y) in rows {
        let x = block(x, first);
        let of = |k: usize| (x[k] - mean[k]) * scale[k] + shift[k];
        write(y, first, of, |y, value| *y = value);
    }
}

/// What [`BatchNorm::input_gradient`] adds in training.
#[inline(always)]
fn add_gradient(
    [x, gy]: [&[f32]; 2],
    first: usize,
    [mean, inverse, scale, mean_gy, mean_gy_normalized]: [&[f32; BLOCK]; 5],
    gx: &mut [f32],
    channels: usize,
) {
    let rows = x
        .chunks_exact(channels)
        .zip(gy.chunks_exact(channels))
        .zip(gx.chunks_exact_mut(channels));
    for ((x, gy), gx) in rows {
        let (x, gy) = (block(x, first), block(gy, first));
        let of = |k: usize| {
            let normalized = (x[k] - mean[k]) * inverse[k];
            scale[k] * (gy[k] - mean_gy[k] - normalized * mean_gy_normalized[k])
        };
        write(gx, first, of, |gx, value| *gx += value);
    }
}

/// As [`BatchNorm::sums`].
#[inline(always)]
fn gradient_sums(
    [x, gy]: [&[f32]; 2],
    first: usize,
    mean: &[f32; BLOCK],
    inverse: &[f32; BLOCK],
    channels: usize,
) -> ([f64; BLOCK], [f64; BLOCK]) {
    let (mut sum, mut sum_normalized) = ([0.0f64; BLOCK], [0.0f64; BLOCK]);
    for (x, gy) in x.chunks_exact(channels).zip(gy.chunks_exact(channels)) {
        let (x, gy) = (block(x, first), block(gy, first));
        for k in 0..BLOCK {
            sum[k] += gy[k] as f64;
            sum_normalized[k] += (gy[k] * ((x[k] - mean[k]) * inverse[k])) as f64;
        }
    }
    (sum, sum_normalized)
}

/// Mean and biased variance of the channels from `first` on.
#[inline(always)]
fn statistics(x: &[f32], channels: usize, first: usize) -> ([f64; BLOCK], [f64; BLOCK]) {
    let rows = (x.len() / channels).max(1) as f64;
    let (mut mean, mut variance) = ([0.0f64; BLOCK], [0.0f64; BLOCK]);
    for x in x.chunks_exact(channels) {
        let x = block(x, first);
        for k in 0..BLOCK {
            mean[k] += x[k] as f64;
        }
    }
    mean = mean.map(|sum| sum / rows);
    for x in x.chunks_exact(channels) {
        let x = block(x, first);
        for k in 0..BLOCK {
            let d = x[k] as f64 - mean[k];
            variance[k] += d * d;
        }
    }
    (mean, variance.map(|sum| sum / rows))
}

/// The channels from `first` on, zeros behind the last: of one length, so that the loops over them are vectors.
#[inline(always)]
fn block(row: &[f32], first: usize) -> [f32; BLOCK] {
    let row = &row[first..];
    if let Some(block) = row.first_chunk() {
        return *block;
    }
    let mut block = [0.0; BLOCK];
    block[..row.len()].copy_from_slice(row);
    block
}

/// Hands each of a row's channels from `first` on, a block or less, what follows `of` its number.
#[inline(always)]
fn write(row: &mut [f32], first: usize, of: impl Fn(usize) -> f32, set: impl Fn(&mut f32, f32)) {
    let row = &mut row[first..];
    if let Some(block) = row.first_chunk_mut::<BLOCK>() {
        for (k, to) in block.iter_mut().enumerate() {
            set(to, of(k));
        }
        return;
    }
    for (k, to) in row.iter_mut().enumerate() {
        set(to, of(k));
    }
}

/// f32 number `i` of a side note.
fn read(saved: &[u8], i: usize) -> Option<f32> {
    let bytes = saved.get(4 * i..4 * i + 4)?;
    Some(f32::from_ne_bytes(bytes.try_into().ok()?))
}
