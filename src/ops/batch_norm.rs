//! Batch normalization over the last axis (Ioffe and Szegedy, 2015): x, gamma, beta, running mean, running
//! variance.
//!
//! Inference uses the running statistics. Training normalizes by the batch's mean and *biased* variance; the running
//! variance follows the *unbiased* one, as in PyTorch. With one element per channel, both are the biased one.

use super::{BatchNorm, Context, OpError, check};
use crate::kernels::{self, BatchNormF32, NORMALIZED as BLOCK};
use crate::tensor::{DType, Operand};

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
    pub(super) fn prepare(&self, cx: &Context, x: &Operand, saved: &mut [u8]) {
        let channels = x.shape.channels();
        let (means, inverses) = saved.split_at_mut((4 * channels).min(saved.len()));
        let blocks = means
            .chunks_mut(4 * BLOCK)
            .zip(inverses.chunks_mut(4 * BLOCK));
        for (block, (means, inverses)) in blocks.enumerate() {
            let first = block * BLOCK;
            let p = channels_from(x, first);
            let [mean, variance] = kernels::batch_norm_statistics_f32(cx.kernels, &p);
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

    pub(super) fn forward(&self, cx: &Context, inputs: &[Operand], saved: &[u8], y: &mut [f32]) {
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
            let p = channels_from(x, first);
            kernels::batch_norm_f32(cx.kernels, &p, [&mean, &scale, &shift], y);
        }
    }

    /// Inference: `gamma / sqrt(variance + epsilon) gy`. Training: the full gradient, through the batch's mean
    /// and variance too: `gamma inverse (gy - mean(gy) - normalized mean(gy normalized))`.
    pub(super) fn input_gradient(
        &self,
        cx: &Context,
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
                    let (gy, gx) = (&gy[first..][..width], &mut gx[first..][..width]);
                    for k in 0..width {
                        gx[k] += scale[k] * gy[k];
                    }
                }
                continue;
            }
            let (mean_gy, mean_gy_normalized) = {
                let [sum, sum_normalized] = self.sums(cx, inputs, saved, first, gy);
                (
                    sum.map(|s| s as f32 / rows),
                    sum_normalized.map(|s| s as f32 / rows),
                )
            };
            let normalizer = [&mean, &inverse, &scale, &mean_gy, &mean_gy_normalized];
            let p = channels_from(x, first);
            kernels::batch_norm_input_gradient_f32(cx.kernels, &p, normalizer, gy, gx);
        }
    }

    /// Sums of gy and of gy times the normalized input, for the channels from `first` on.
    fn sums(
        &self,
        cx: &Context,
        inputs: &[Operand],
        saved: &[u8],
        first: usize,
        gy: &[f32],
    ) -> [[f64; BLOCK]; 2] {
        let Some(x) = inputs.first() else {
            return [[0.0; BLOCK]; 2];
        };
        let channels = x.shape.channels();
        let width = BLOCK.min(channels - first);
        let (mut mean, mut inverse) = ([0.0; BLOCK], [0.0; BLOCK]);
        for k in 0..width {
            (mean[k], inverse[k]) = self.normalizer(inputs, saved, first + k);
        }
        let p = channels_from(x, first);
        kernels::batch_norm_sums_f32(cx.kernels, &p, [&mean, &inverse], gy)
    }

    /// gamma (1), beta (2); mean (3) and variance (4) as `running - batch`.
    pub(super) fn parameter_gradient(
        &self,
        cx: &Context,
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
                let [sum, sum_normalized] = self.sums(cx, inputs, saved, first, gy);
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
                let p = channels_from(x, first);
                let [_, batch_variance] = kernels::batch_norm_statistics_f32(cx.kernels, &p);
                for (k, gw) in gw.iter_mut().enumerate() {
                    *gw += variance.f32()[first + k] - (batch_variance[k] * unbiased) as f32;
                }
            }
        }
    }
}

/// The input, whose channels from `first` on are looked at.
fn channels_from<'a>(x: &Operand<'a>, first: usize) -> BatchNormF32<'a> {
    BatchNormF32 {
        x: x.f32(),
        channels: x.shape.channels(),
        first,
    }
}

/// f32 number `i` of a side note.
fn read(saved: &[u8], i: usize) -> Option<f32> {
    let bytes = saved.get(4 * i..4 * i + 4)?;
    Some(f32::from_ne_bytes(bytes.try_into().ok()?))
}
