//! Batch normalization's loops, for a block of channels at a time.

use super::{Kernels, scalar};

/// Channels that batch normalization takes at once: as many sums in double precision as hide how long an addition takes.
pub const NORMALIZED: usize = 16;

/// The input of a batch normalization, rows of so many channels, and which come first of those that are looked at: [`NORMALIZED`] or, at the
/// end, fewer.
#[derive(Clone, Copy, Debug)]
pub struct BatchNormF32<'a> {
    /// Input.
    pub x: &'a [f32],
    /// Channels of a row.
    pub channels: usize,
    /// The first channel.
    pub first: usize,
}

/// Mean and biased variance of each of the channels.
pub fn batch_norm_statistics_f32(kernels: Kernels, p: &BatchNormF32) -> [[f64; NORMALIZED]; 2] {
    match kernels {
        Kernels::Scalar => scalar::batch_norm::statistics(p),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.batch_norm_statistics_f32(p),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.simd().batch_norm_statistics_f32(p),
    }
}

/// `y = (x - mean) scale + shift` for the channels.
pub fn batch_norm_f32(
    kernels: Kernels,
    p: &BatchNormF32,
    constants: [&[f32; NORMALIZED]; 3],
    y: &mut [f32],
) {
    match kernels {
        Kernels::Scalar => scalar::batch_norm::normalize(p, constants, y),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.batch_norm_f32(p, constants, y),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.simd().batch_norm_f32(p, constants, y),
    }
}

/// Sums of `gy` and of `gy (x - mean) inverse` for the channels.
pub fn batch_norm_sums_f32(
    kernels: Kernels,
    p: &BatchNormF32,
    normalizer: [&[f32; NORMALIZED]; 2],
    gy: &[f32],
) -> [[f64; NORMALIZED]; 2] {
    match kernels {
        Kernels::Scalar => scalar::batch_norm::gradient_sums(p, normalizer, gy),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.batch_norm_sums_f32(p, normalizer, gy),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.simd().batch_norm_sums_f32(p, normalizer, gy),
    }
}

/// `gx += scale (gy - mean_gy - n mean_gy_n)`, where `n = (x - mean) inverse`, for the channels. Constants: mean, inverse, scale, `mean_gy`,
/// `mean_gy_n`.
pub fn batch_norm_input_gradient_f32(
    kernels: Kernels,
    p: &BatchNormF32,
    constants: [&[f32; NORMALIZED]; 5],
    gy: &[f32],
    gx: &mut [f32],
) {
    match kernels {
        Kernels::Scalar => scalar::batch_norm::add_gradient(p, constants, gy, gx),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.batch_norm_input_gradient_f32(p, constants, gy, gx),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma
            .simd()
            .batch_norm_input_gradient_f32(p, constants, gy, gx),
    }
}
