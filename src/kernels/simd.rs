//! Wide registers: AVX2 on x86-64, NEON on aarch64. The portable loops, compiled for them: a dot product has eight lanes in both,
//! nothing is reordered and nothing is fused, so the results are those of `scalar` to the bit. The int8 forward kernels have
//! loops of their own, in `int8_avx2` and `int8_neon`, and on x86-64 so have f32 loops without sums, in `f32_avx2`.
// where the registers are part of every CPU nobody has to promise that they are there
#![cfg_attr(target_arch = "aarch64", allow(unused_unsafe))]
#![allow(unsafe_code)] // calls of functions that need a CPU feature; the token proves that it is there

#[cfg(target_arch = "x86_64")]
use super::int8_avx2 as int8;
#[cfg(target_arch = "aarch64")]
use super::int8_neon as int8;
use super::scalar::{batch_norm, conv, dense, depthwise, pool, spread};
use super::{
    AddI8, BatchNormF32, Constant, ConvF32, ConvI8, DenseF32, DenseI8, NORMALIZED, Spread,
    WeightsI8, Window,
};

/// Proof that this CPU has AVX2, or NEON: one exists only where [`Simd::new`] found it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Simd(());

impl Simd {
    /// What they are called on the command line.
    pub const NAME: &'static str = if cfg!(target_arch = "x86_64") {
        "avx2"
    } else {
        "neon"
    };

    /// The token, where the CPU has them.
    pub fn new() -> Option<Simd> {
        found().registers.then_some(Simd(()))
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn conv_f32(self, p: &ConvF32, y: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { conv_f32(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn conv_i8(self, p: &ConvI8, y: &mut [i8]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { conv_i8(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn add_i8(self, p: &AddI8, y: &mut [i8]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { int8::add(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn batch_norm_statistics_f32(self, p: &BatchNormF32) -> [[f64; NORMALIZED]; 2] {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { batch_norm_statistics_f32(p) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn batch_norm_f32(
        self,
        p: &BatchNormF32,
        constants: [&[f32; NORMALIZED]; 3],
        y: &mut [f32],
    ) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { batch_norm_f32(p, constants, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn batch_norm_sums_f32(
        self,
        p: &BatchNormF32,
        normalizer: [&[f32; NORMALIZED]; 2],
        gy: &[f32],
    ) -> [[f64; NORMALIZED]; 2] {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { batch_norm_sums_f32(p, normalizer, gy) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn batch_norm_input_gradient_f32(
        self,
        p: &BatchNormF32,
        constants: [&[f32; NORMALIZED]; 5],
        gy: &[f32],
        gx: &mut [f32],
    ) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { batch_norm_input_gradient_f32(p, constants, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn average_pool_i8(self, g: &Window, x: &[i8], range: (i32, i32), y: &mut [i8]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { average_pool_i8(g, x, range, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn conv_input_gradient_f32(self, g: &Window, w: Constant<f32>, gy: &[f32], gx: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { conv_input_gradient_f32(g, &w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn conv_input_gradient_i8(self, g: &Window, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { conv_input_gradient_i8(g, w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn conv_weight_gradient_f32(self, g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { conv_weight_gradient_f32(g, x, gy, gw) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn depthwise_f32(self, p: &ConvF32, y: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { depthwise_f32(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn depthwise_i8(self, p: &ConvI8, y: &mut [i8]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { depthwise_i8(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn depthwise_input_gradient_f32(
        self,
        g: &Window,
        w: Constant<f32>,
        gy: &[f32],
        gx: &mut [f32],
    ) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { depthwise_input_gradient_f32(g, &w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn depthwise_input_gradient_i8(self, g: &Window, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { depthwise_input_gradient_i8(g, w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn depthwise_weight_gradient_f32(self, g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { depthwise_weight_gradient_f32(g, x, gy, gw) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn dense_f32(self, p: &DenseF32, y: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { dense_f32(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn dense_i8(self, p: &DenseI8, y: &mut [i8]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { dense_i8(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn dense_input_gradient_f32(self, depth: usize, w: &[f32], gy: &[f32], gx: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { dense_input_gradient_f32(depth, w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn dense_input_gradient_i8(self, depth: usize, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { dense_input_gradient_i8(depth, w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn dense_weight_gradient_f32(self, depth: usize, x: &[f32], gy: &[f32], gw: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { dense_weight_gradient_f32(depth, x, gy, gw) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn spread_f32(self, spread: Spread, p: &ConvF32, y: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { spread_f32(spread, p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn spread_i8(self, spread: Spread, p: &ConvI8, y: &mut [i8]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { spread_i8(spread, p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn spread_input_gradient_f32(
        self,
        spread: Spread,
        g: &Window,
        w: Constant<f32>,
        gy: &[f32],
        gx: &mut [f32],
    ) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { spread_input_gradient_f32(spread, g, &w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn spread_input_gradient_i8(
        self,
        spread: Spread,
        g: &Window,
        w: WeightsI8,
        gy: &[f32],
        gx: &mut [f32],
    ) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { spread_input_gradient_i8(spread, g, w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn spread_weight_gradient_f32(
        self,
        spread: Spread,
        g: &Window,
        x: &[f32],
        gy: &[f32],
        gw: &mut [f32],
    ) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { spread_weight_gradient_f32(spread, g, x, gy, gw) }
    }
}

/// What the CPU has.
pub(super) struct Found {
    pub registers: bool,
    /// Multiply-adds that round once.
    pub fma: bool,
    /// AVX-512: registers of 512 bits. Inner loops that have them go twice as wide, to the same bits.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub wide: bool,
    /// Those, and AVX-512's sums of integer products (VNNI).
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub wide_products: bool,
}

/// What this CPU has, of which a test may leave out the widest registers.
pub(super) fn found() -> Found {
    let found = look();
    #[cfg(test)]
    let found = super::wide_in_tests::allowed(found);
    found
}

/// Looks at run time; without feature `std` it is what the compiler was told.
fn look() -> Found {
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    {
        extern crate std;
        Found {
            registers: std::arch::is_x86_feature_detected!("avx2"),
            fma: std::arch::is_x86_feature_detected!("fma"),
            wide: std::arch::is_x86_feature_detected!("avx512vl"),
            wide_products: std::arch::is_x86_feature_detected!("avx512vl")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512vnni"),
        }
    }
    #[cfg(all(not(feature = "std"), target_arch = "x86_64"))]
    {
        Found {
            registers: cfg!(target_feature = "avx2"),
            fma: cfg!(target_feature = "fma"),
            wide: cfg!(target_feature = "avx512vl"),
            wide_products: cfg!(all(
                target_feature = "avx512vl",
                target_feature = "avx512bw",
                target_feature = "avx512vnni"
            )),
        }
    }
    // NEON is both, and `build.rs` saw that it is there
    #[cfg(target_arch = "aarch64")]
    {
        Found {
            registers: true,
            fma: true,
            wide: false,
            wide_products: false,
        }
    }
}

/// Counts a run of a 512-bit loop in tests.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn ran_wide() {
    #[cfg(test)]
    super::wide_in_tests::ran();
}

/// Counts a run in tests.
#[inline(always)]
pub(super) fn ran() {
    #[cfg(test)]
    super::wide_in_tests::ran_simd();
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn conv_f32(p: &ConvF32, y: &mut [f32]) {
    conv::forward_f32(p, y);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
#[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
fn conv_i8(p: &ConvI8, y: &mut [i8]) {
    if !int8::conv(p, y) {
        conv::forward_i8(p, y);
    }
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn batch_norm_statistics_f32(p: &BatchNormF32) -> [[f64; NORMALIZED]; 2] {
    batch_norm::statistics(p)
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn batch_norm_f32(p: &BatchNormF32, constants: [&[f32; NORMALIZED]; 3], y: &mut [f32]) {
    batch_norm::normalize(p, constants, y);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn batch_norm_sums_f32(
    p: &BatchNormF32,
    normalizer: [&[f32; NORMALIZED]; 2],
    gy: &[f32],
) -> [[f64; NORMALIZED]; 2] {
    batch_norm::gradient_sums(p, normalizer, gy)
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn batch_norm_input_gradient_f32(
    p: &BatchNormF32,
    constants: [&[f32; NORMALIZED]; 5],
    gy: &[f32],
    gx: &mut [f32],
) {
    batch_norm::add_gradient(p, constants, gy, gx);
}

/// Channels that an average is taken of at once.
const AVERAGED: usize = 64;

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn average_pool_i8(g: &Window, x: &[i8], range: (i32, i32), y: &mut [i8]) {
    if !g.out_channels.is_multiple_of(AVERAGED) {
        return pool::average_i8(g, x, range, y);
    }
    for ((n, rows, columns), y) in g.windows().zip(y.chunks_exact_mut(g.out_channels)) {
        let count = ((rows.count * columns.count) as i32).max(1);
        for (block, y) in y.as_chunks_mut::<AVERAGED>().0.iter_mut().enumerate() {
            let mut sums = [0i32; AVERAGED];
            for cell in g.cells(n, rows, columns) {
                let at = cell.pixel * g.in_channels + block * AVERAGED;
                let Some(x) = x[at..].first_chunk::<AVERAGED>() else {
                    continue;
                };
                for (sum, &x) in sums.iter_mut().zip(x) {
                    *sum += i32::from(x);
                }
            }
            for (y, sum) in y.iter_mut().zip(sums) {
                *y = pool::average(sum, count, range);
            }
        }
    }
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn conv_input_gradient_f32(g: &Window, w: &[f32], gy: &[f32], gx: &mut [f32]) {
    conv::input_gradient_f32(g, w, gy, gx);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn conv_input_gradient_i8(g: &Window, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
    conv::input_gradient_i8(g, &w.w, |o| w.quant.scale_of(o), gy, gx);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn conv_weight_gradient_f32(g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    conv::weight_gradient_f32(g, x, gy, gw);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn depthwise_f32(p: &ConvF32, y: &mut [f32]) {
    depthwise::forward_f32(p, y);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
#[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
fn depthwise_i8(p: &ConvI8, y: &mut [i8]) {
    if !int8::depthwise(p, y) {
        depthwise::forward_i8(p, y);
    }
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn depthwise_input_gradient_f32(g: &Window, w: &[f32], gy: &[f32], gx: &mut [f32]) {
    depthwise::input_gradient_f32(g, w, gy, gx);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn depthwise_input_gradient_i8(g: &Window, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
    depthwise::input_gradient_i8(g, &w.w, |o| w.quant.scale_of(o), gy, gx);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn depthwise_weight_gradient_f32(g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    depthwise::weight_gradient_f32(g, x, gy, gw);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn dense_f32(p: &DenseF32, y: &mut [f32]) {
    dense::forward_f32(p, y);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
#[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
fn dense_i8(p: &DenseI8, y: &mut [i8]) {
    if !int8::dense(p, y) {
        dense::forward_i8(p, y);
    }
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn dense_input_gradient_f32(depth: usize, w: &[f32], gy: &[f32], gx: &mut [f32]) {
    dense::input_gradient_f32(depth, w, gy, gx);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn dense_input_gradient_i8(depth: usize, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
    dense::input_gradient_i8(depth, &w.w, |o| w.quant.scale_of(o), gy, gx);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn dense_weight_gradient_f32(depth: usize, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    dense::weight_gradient_f32(depth, x, gy, gw);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn spread_f32(spread: Spread, p: &ConvF32, y: &mut [f32]) {
    spread::forward_f32(spread, p, y);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn spread_i8(spread: Spread, p: &ConvI8, y: &mut [i8]) {
    spread::forward_i8(spread, p, y);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn spread_input_gradient_f32(spread: Spread, g: &Window, w: &[f32], gy: &[f32], gx: &mut [f32]) {
    spread::input_gradient_f32(spread, g, w, gy, gx);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn spread_input_gradient_i8(spread: Spread, g: &Window, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
    spread::input_gradient_i8(spread, g, &w.w, |o| w.quant.scale_of(o), gy, gx);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn spread_weight_gradient_f32(spread: Spread, g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    spread::weight_gradient_f32(spread, g, x, gy, gw);
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::super::{Kernels, Requantize};
    use super::*;
    use crate::kernels::wide_in_tests::counted_simd;
    use crate::kernels::{Activation, Rounding};
    use crate::tensor::Quant;
    use std::vec::Vec;

    /// Numbers without a pattern, in -1..1.
    fn floats(n: usize, seed: u32) -> Vec<f32> {
        ints(n, seed).iter().map(|&i| i as f32 / 128.0).collect()
    }

    fn ints(n: usize, seed: u32) -> Vec<i8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 24) as i8
        };
        (0..n).map(|_| next()).collect()
    }

    /// Runs both, wants the same bits and that the vectors' form was the one that ran.
    fn same<T: PartialEq + Clone + core::fmt::Debug>(
        simd: Simd,
        start: &[T],
        run: impl Fn(Kernels, &mut [T]),
    ) {
        let (mut a, mut b) = (start.to_vec(), start.to_vec());
        run(Kernels::Scalar, &mut a);
        let runs = counted_simd(|| run(Kernels::Simd(simd), &mut b));
        assert_eq!(runs, 1, "the forced kernels did not run");
        assert_eq!(a, b);
        assert_ne!(a, start, "the kernel did nothing");
    }

    fn compare_window(simd: Simd, g: &Window, depthwise: bool) {
        let (x_len, y_len) = (
            g.batch * g.input[0] * g.input[1] * g.in_channels,
            g.batch * g.output[0] * g.output[1] * g.out_channels,
        );
        let cells = g.kernel[0] * g.kernel[1];
        let w_len = cells * g.out_channels * if depthwise { 1 } else { g.in_channels };
        let (x, w, gy) = (floats(x_len, 1), floats(w_len, 2), floats(y_len, 3));
        let (x8, w8) = (ints(x_len, 4), ints(w_len, 5));
        let bias = floats(g.out_channels, 6);
        let bias8: Vec<i32> = bias.iter().map(|b| (b * 1e4) as i32).collect();
        let scales: Vec<f32> = bias.iter().map(|b| b.abs() + 0.1).collect();
        let (multiplier, shift) = (
            std::vec![1 << 30; g.out_channels],
            std::vec![-6; g.out_channels],
        );
        let weights = WeightsI8 {
            w: w8[..].into(),
            quant: Quant {
                scale: 1.0,
                zero_point: 0,
                channel_scales: &scales,
            },
        };
        let pf = ConvF32 {
            window: g,
            x: &x,
            w: w[..].into(),
            bias: &bias,
            keeps_ties: true,
            activation: Activation::Relu6,
        };
        let pi = ConvI8 {
            window: g,
            x: &x8,
            x_zero_point: 7,
            w: w8[..].into(),
            output: Requantize {
                bias: &bias8,
                multiplier: &multiplier,
                shift: &shift,
                rounding: Rounding::Double,
                zero_point: -5,
                range: (-128, 127),
            },
        };
        let (y0, y8) = (std::vec![9.0; y_len], std::vec![99; y_len]);
        let (gx0, gw0) = (floats(x_len, 7), floats(w_len, 8));
        if depthwise {
            same(simd, &y0, |k, y| super::super::depthwise_f32(k, &pf, y));
            same(simd, &y8, |k, y| super::super::depthwise_i8(k, &pi, y));
            same(simd, &gx0, |k, g_| {
                super::super::depthwise_input_gradient_f32(k, g, w[..].into(), &gy, g_)
            });
            same(simd, &gx0, |k, g_| {
                super::super::depthwise_input_gradient_i8(k, g, weights, &gy, g_)
            });
            same(simd, &gw0, |k, g_| {
                super::super::depthwise_weight_gradient_f32(k, g, &x, &gy, g_)
            });
        } else {
            same(simd, &y0, |k, y| super::super::conv_f32(k, &pf, y));
            same(simd, &y8, |k, y| super::super::conv_i8(k, &pi, y));
            same(simd, &gx0, |k, g_| {
                super::super::conv_input_gradient_f32(k, g, w[..].into(), &gy, g_)
            });
            same(simd, &gx0, |k, g_| {
                super::super::conv_input_gradient_i8(k, g, weights, &gy, g_)
            });
            same(simd, &gw0, |k, g_| {
                super::super::conv_weight_gradient_f32(k, g, &x, &gy, g_)
            });
        }
    }

    fn compare_dense(simd: Simd, n: usize, depth: usize, o: usize) {
        let (x, w, bias, gy) = (
            floats(n * depth, 1),
            floats(o * depth, 2),
            floats(o, 3),
            floats(n * o, 4),
        );
        let (x8, w8) = (ints(n * depth, 5), ints(o * depth, 6));
        let (bias8, multiplier, shift) =
            (std::vec![100; o], std::vec![1 << 30; o], std::vec![-5; o]);
        let pf = DenseF32 {
            depth,
            x: &x,
            w: &w,
            bias: &bias,
            activation: Activation::None,
        };
        let pi = DenseI8 {
            depth,
            x: &x8,
            x_zero_point: -128,
            w: w8[..].into(),
            output: Requantize {
                bias: &bias8,
                multiplier: &multiplier,
                shift: &shift,
                rounding: Rounding::Single,
                zero_point: 3,
                range: (-128, 127),
            },
        };
        let weights = WeightsI8 {
            w: w8[..].into(),
            quant: Quant::NONE,
        };
        let (y0, y8) = (std::vec![9.0; n * o], std::vec![99; n * o]);
        let (gx0, gw0) = (floats(n * depth, 7), floats(o * depth, 8));
        same(simd, &y0, |k, y| super::super::dense_f32(k, &pf, y));
        same(simd, &y8, |k, y| super::super::dense_i8(k, &pi, y));
        same(simd, &gx0, |k, g| {
            super::super::dense_input_gradient_f32(k, depth, &w, &gy, g)
        });
        same(simd, &gx0, |k, g| {
            super::super::dense_input_gradient_i8(k, depth, weights, &gy, g)
        });
        same(simd, &gw0, |k, g| {
            super::super::dense_weight_gradient_f32(k, depth, &x, &gy, g)
        });
    }

    /// Over shapes that leave every kind of remainder. (One test, since the runs are counted globally.)
    fn compare_spread(simd: Simd, g: &Window, transposed: bool) {
        let spread = Spread {
            groups: 1,
            transposed,
        };
        let large = g.batch * g.input[0] * g.input[1] * g.in_channels;
        let small = g.batch * g.output[0] * g.output[1] * g.out_channels;
        let (x_len, y_len, o) = match transposed {
            true => (small, large, g.in_channels),
            false => (large, small, g.out_channels),
        };
        let w_len = g.kernel[0] * g.kernel[1] * g.in_channels * g.out_channels;
        let (x, w, gy) = (floats(x_len, 1), floats(w_len, 2), floats(y_len, 3));
        let (x8, w8) = (ints(x_len, 4), ints(w_len, 5));
        let bias = floats(o, 6);
        let bias8: Vec<i32> = bias.iter().map(|b| (b * 1e4) as i32).collect();
        let (multiplier, shift) = (std::vec![1 << 30; o], std::vec![-6; o]);
        let pf = ConvF32 {
            window: g,
            x: &x,
            w: w[..].into(),
            bias: &bias,
            keeps_ties: true,
            activation: Activation::Relu,
        };
        let pi = ConvI8 {
            window: g,
            x: &x8,
            x_zero_point: -3,
            w: w8[..].into(),
            output: Requantize {
                bias: &bias8,
                multiplier: &multiplier,
                shift: &shift,
                rounding: Rounding::Double,
                zero_point: 5,
                range: (-128, 127),
            },
        };
        let weights = WeightsI8 {
            w: w8[..].into(),
            quant: Quant {
                scale: 0.3,
                zero_point: 0,
                channel_scales: &[],
            },
        };
        use super::super as kernels;
        same(simd, &std::vec![9.0; y_len], |k, y| {
            kernels::spread_f32(k, spread, &pf, y)
        });
        same(simd, &std::vec![99; y_len], |k, y| {
            kernels::spread_i8(k, spread, &pi, y)
        });
        same(simd, &floats(x_len, 7), |k, gx| {
            kernels::spread_input_gradient_f32(k, spread, g, w[..].into(), &gy, gx)
        });
        same(simd, &floats(x_len, 7), |k, gx| {
            kernels::spread_input_gradient_i8(k, spread, g, weights, &gy, gx)
        });
        same(simd, &floats(w_len, 8), |k, gw| {
            kernels::spread_weight_gradient_f32(k, spread, g, &x, &gy, gw)
        });
    }

    /// Rows of so many channels, block by block.
    fn compare_batch_norm(simd: Simd, rows: usize, channels: usize) {
        let (x, gy) = (floats(rows * channels, 1), floats(rows * channels, 2));
        let constants = floats(5 * NORMALIZED, 3);
        let constants = constants.as_chunks::<NORMALIZED>().0;
        let [mean, inverse, scale, shift, other] = [0, 1, 2, 3, 4].map(|i| &constants[i]);
        use super::super as kernels;
        for first in (0..channels).step_by(NORMALIZED) {
            let p = BatchNormF32 {
                x: &x,
                channels,
                first,
            };
            let none = [9.0f64; 2 * NORMALIZED];
            same(simd, &none, |k, to| {
                let sums = kernels::batch_norm_statistics_f32(k, &p);
                to.copy_from_slice(sums.as_flattened());
            });
            same(simd, &none, |k, to| {
                let sums = kernels::batch_norm_sums_f32(k, &p, [mean, inverse], &gy);
                to.copy_from_slice(sums.as_flattened());
            });
            same(simd, &floats(rows * channels, 4), |k, y| {
                kernels::batch_norm_f32(k, &p, [mean, scale, shift], y);
            });
            same(simd, &floats(rows * channels, 5), |k, gx| {
                let constants = [mean, inverse, scale, shift, other];
                kernels::batch_norm_input_gradient_f32(k, &p, constants, &gy, gx);
            });
        }
    }

    /// An int8 average of windows that reach beyond the image.
    fn compare_average(simd: Simd, channels: usize) {
        let g = Window {
            batch: 2,
            input: [7, 6],
            in_channels: channels,
            output: [4, 3],
            out_channels: channels,
            kernel: [3, 4],
            stride: [2, 2],
            dilation: [1, 1],
            padding: [1, 1],
        };
        let x = ints(2 * 7 * 6 * channels, 1);
        for range in [(-128, 127), (-3, 5)] {
            same(simd, &std::vec![99; 2 * 4 * 3 * channels], |k, y| {
                super::super::average_pool_i8(k, &g, &x, range, y);
            });
        }
    }

    #[test]
    fn channels_of_one_kind_have_the_scalar_bits() {
        let Some(simd) = Simd::new() else {
            std::eprintln!("SKIPPED: AVX2 or NEON is not there");
            return;
        };
        for channels in [1, 7, 16, 17, 40, 64] {
            for rows in [1, 2, 9, 50] {
                compare_batch_norm(simd, rows, channels);
            }
        }
        for channels in [1, 16, 63, 64, 65, 128] {
            compare_average(simd, channels);
        }
    }

    #[test]
    fn same_bits_as_scalar() {
        let Some(simd) = Simd::new() else {
            std::eprintln!(
                "SKIPPED: AVX2 or NEON is not there, or not detected without feature `std`"
            );
            return;
        };
        for (batch, input, c, o, kernel, stride, dilation, padding) in [
            (1, [1, 1], 1, 1, [1, 1], 1, 1, 0),
            (2, [7, 5], 3, 5, [3, 2], 1, 1, 1),
            (1, [9, 8], 8, 4, [3, 3], 2, 1, 1),
            (1, [6, 11], 17, 9, [2, 3], 1, 2, 2),
            (3, [5, 5], 33, 6, [1, 1], 1, 1, 0),
            (1, [4, 40], 2, 31, [3, 7], 1, 1, 3),
        ] {
            for depthwise in [false, true] {
                let extent = |i: usize| {
                    (input[i] + 2 * padding - (kernel[i] - 1) * dilation - 1) / stride + 1
                };
                let g = Window {
                    batch,
                    input,
                    in_channels: c,
                    output: [extent(0), extent(1)],
                    out_channels: if depthwise { c * (1 + o % 2) } else { o },
                    kernel,
                    stride: [stride; 2],
                    dilation: [dilation; 2],
                    padding: [padding; 2],
                };
                compare_spread(simd, &g, depthwise);
                compare_window(simd, &g, depthwise);
            }
        }
        for (n, depth, o) in [(1, 1, 1), (3, 7, 5), (2, 64, 10), (1, 131, 9)] {
            compare_dense(simd, n, depth, o);
        }
    }
}
