//! Batch normalization, a block of channels at a time: of one length, so that the loops over them are vectors.

use crate::kernels::{BatchNormF32, NORMALIZED as BLOCK};

/// As [`batch_norm_f32`](crate::kernels::batch_norm_f32).
#[inline(always)]
pub fn normalize(p: &BatchNormF32, [mean, scale, shift]: [&[f32; BLOCK]; 3], y: &mut [f32]) {
    let BatchNormF32 { x, channels, first } = *p;
    let rows = x.chunks_exact(channels).zip(y.chunks_exact_mut(channels));
    for (x, y) in rows {
        let x = block(x, first);
        let of = |k: usize| (x[k] - mean[k]) * scale[k] + shift[k];
        write(y, first, of, |y, value| *y = value);
    }
}

/// As [`batch_norm_input_gradient_f32`](crate::kernels::batch_norm_input_gradient_f32).
#[inline(always)]
pub fn add_gradient(
    p: &BatchNormF32,
    [mean, inverse, scale, mean_gy, mean_gy_normalized]: [&[f32; BLOCK]; 5],
    gy: &[f32],
    gx: &mut [f32],
) {
    let BatchNormF32 { x, channels, first } = *p;
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

/// As [`batch_norm_sums_f32`](crate::kernels::batch_norm_sums_f32).
#[inline(always)]
pub fn gradient_sums(
    p: &BatchNormF32,
    [mean, inverse]: [&[f32; BLOCK]; 2],
    gy: &[f32],
) -> [[f64; BLOCK]; 2] {
    let BatchNormF32 { x, channels, first } = *p;
    let (mut sum, mut sum_normalized) = ([0.0f64; BLOCK], [0.0f64; BLOCK]);
    for (x, gy) in x.chunks_exact(channels).zip(gy.chunks_exact(channels)) {
        let (x, gy) = (block(x, first), block(gy, first));
        for k in 0..BLOCK {
            sum[k] += gy[k] as f64;
            sum_normalized[k] += (gy[k] * ((x[k] - mean[k]) * inverse[k])) as f64;
        }
    }
    [sum, sum_normalized]
}

/// As [`batch_norm_statistics_f32`](crate::kernels::batch_norm_statistics_f32).
#[inline(always)]
pub fn statistics(p: &BatchNormF32) -> [[f64; BLOCK]; 2] {
    let BatchNormF32 { x, channels, first } = *p;
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
    [mean, variance.map(|sum| sum / rows)]
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
