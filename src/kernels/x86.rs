//! AVX2: the portable loops, compiled for wider registers. A dot product has eight lanes in both, nothing is
//! reordered and nothing is fused (no FMA), so the results are those of `scalar` to the bit. The int8 forward kernels have
//! loops of their own, in `int8_avx2`, and so have f32 loops without sums, in `f32_avx2`.
#![allow(unsafe_code)] // calls of functions that need a CPU feature; the token proves that it is there

use super::scalar::{conv, dense, depthwise, pool, spread};
use super::{
    Activation, AdamF32, AddI8, ConvF32, ConvI8, DenseF32, DenseI8, Spread, WeightsI8, Window,
};
use super::{f32_avx2, int8_avx2};

/// Proof that this CPU has AVX2: one exists only where [`Avx2::new`] found it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Avx2(());

/// How often a function of this module ran, for the test that the forced kernels are those that run.
#[cfg(test)]
static RUNS: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);

impl Avx2 {
    /// The token, where the CPU has AVX2.
    pub fn new() -> Option<Avx2> {
        #[cfg(feature = "std")]
        {
            extern crate std;
            std::arch::is_x86_feature_detected!("avx2").then_some(Avx2(()))
        }
        #[cfg(not(feature = "std"))]
        {
            cfg!(target_feature = "avx2").then_some(Avx2(()))
        }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn conv_f32(self, p: &ConvF32, y: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { conv_f32(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn conv_i8(self, p: &ConvI8, y: &mut [i8]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { conv_i8(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn add_i8(self, p: &AddI8, y: &mut [i8]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { int8_avx2::add(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn max_pool_f32(self, g: &Window, x: &[f32], activation: Activation, y: &mut [f32]) {
        if !f32_avx2::fits(g, x.len(), y.len()) {
            return pool::maximum_f32(g, x, activation, y);
        }
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2; the slices were checked.
        unsafe { f32_avx2::maximum(g, x, activation, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn max_pool_index_f32(
        self,
        g: &Window,
        x: &[f32],
        maxima: Option<&[f32]>,
        index: &mut [u8],
    ) {
        if !f32_avx2::fits(g, x.len(), index.len()) {
            return pool::argmax(g, x, pool::greater, index);
        }
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2; the slices were checked.
        unsafe {
            match maxima {
                Some(y) if y.len() == index.len() && f32_avx2::is_2x2(g) => {
                    f32_avx2::find_2x2(g, x, y, index);
                }
                _ => f32_avx2::argmax(g, x, index),
            }
        }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn max_pool_gradient(self, g: &Window, index: &[u8], gy: &[f32], gx: &mut [f32]) {
        if index.len() != gy.len() || !f32_avx2::fits(g, gx.len(), gy.len()) {
            return pool::maximum_gradient(g, index, gy, gx);
        }
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2; the slices were checked.
        unsafe { f32_avx2::maximum_gradient(g, index, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn max_pool_set_gradient(
        self,
        g: &Window,
        index: &[u8],
        gy: &[f32],
        gx: &mut [f32],
    ) -> bool {
        let fits = index.len() == gy.len() && f32_avx2::fits(g, gx.len(), gy.len());
        if !fits || !f32_avx2::covers(g) {
            return false;
        }
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2; the slices and the window were checked.
        unsafe { f32_avx2::maximum_gradient_2x2::<true>(g, index, gy, gx) };
        true
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn add_f32(self, x: [&[f32]; 2], activation: Activation, y: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { f32_avx2::add(x, activation, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn passing_f32(self, activation: Activation, y: &[f32], bits: &mut [u8]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { f32_avx2::passing(activation, y, bits) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn block_f32(self, bits: &[u8], blocked: f32, gy: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { f32_avx2::block(bits, blocked, gy) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn tanh_f32(self, x: &[f32], y: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { f32_avx2::tanh(x, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn adam_f32(
        self,
        adam: &AdamF32,
        gradients: &[f32],
        parameters: &mut [f32],
        moments: [&mut [f32]; 2],
    ) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { f32_avx2::adam(adam, gradients, parameters, moments) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn conv_input_gradient_f32(self, g: &Window, w: &[f32], gy: &[f32], gx: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { conv_input_gradient_f32(g, w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn conv_input_gradient_i8(self, g: &Window, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { conv_input_gradient_i8(g, w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn conv_weight_gradient_f32(self, g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { conv_weight_gradient_f32(g, x, gy, gw) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn depthwise_f32(self, p: &ConvF32, y: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { depthwise_f32(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn depthwise_i8(self, p: &ConvI8, y: &mut [i8]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { depthwise_i8(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn depthwise_input_gradient_f32(self, g: &Window, w: &[f32], gy: &[f32], gx: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { depthwise_input_gradient_f32(g, w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn depthwise_input_gradient_i8(self, g: &Window, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { depthwise_input_gradient_i8(g, w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn depthwise_weight_gradient_f32(self, g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { depthwise_weight_gradient_f32(g, x, gy, gw) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn dense_f32(self, p: &DenseF32, y: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { dense_f32(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn dense_i8(self, p: &DenseI8, y: &mut [i8]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { dense_i8(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn dense_input_gradient_f32(self, depth: usize, w: &[f32], gy: &[f32], gx: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { dense_input_gradient_f32(depth, w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn dense_input_gradient_i8(self, depth: usize, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { dense_input_gradient_i8(depth, w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn dense_weight_gradient_f32(self, depth: usize, x: &[f32], gy: &[f32], gw: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { dense_weight_gradient_f32(depth, x, gy, gw) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn spread_f32(self, spread: Spread, p: &ConvF32, y: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { spread_f32(spread, p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn spread_i8(self, spread: Spread, p: &ConvI8, y: &mut [i8]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { spread_i8(spread, p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn spread_input_gradient_f32(
        self,
        spread: Spread,
        g: &Window,
        w: &[f32],
        gy: &[f32],
        gx: &mut [f32],
    ) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { spread_input_gradient_f32(spread, g, w, gy, gx) }
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
        // SAFETY: `self` exists, so the CPU has AVX2.
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
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { spread_weight_gradient_f32(spread, g, x, gy, gw) }
    }
}

/// Counts a run in tests.
#[inline(always)]
fn ran() {
    #[cfg(test)]
    RUNS.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
}

#[target_feature(enable = "avx2")]
fn conv_f32(p: &ConvF32, y: &mut [f32]) {
    conv::forward_f32(p, y);
}

#[target_feature(enable = "avx2")]
fn conv_i8(p: &ConvI8, y: &mut [i8]) {
    if !int8_avx2::conv(p, y) {
        conv::forward_i8(p, y);
    }
}

#[target_feature(enable = "avx2")]
fn conv_input_gradient_f32(g: &Window, w: &[f32], gy: &[f32], gx: &mut [f32]) {
    conv::input_gradient_f32(g, w, gy, gx);
}

#[target_feature(enable = "avx2")]
fn conv_input_gradient_i8(g: &Window, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
    conv::input_gradient_i8(g, w.w, |o| w.quant.scale_of(o), gy, gx);
}

#[target_feature(enable = "avx2")]
fn conv_weight_gradient_f32(g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    conv::weight_gradient_f32(g, x, gy, gw);
}

#[target_feature(enable = "avx2")]
fn depthwise_f32(p: &ConvF32, y: &mut [f32]) {
    depthwise::forward_f32(p, y);
}

#[target_feature(enable = "avx2")]
fn depthwise_i8(p: &ConvI8, y: &mut [i8]) {
    if !int8_avx2::depthwise(p, y) {
        depthwise::forward_i8(p, y);
    }
}

#[target_feature(enable = "avx2")]
fn depthwise_input_gradient_f32(g: &Window, w: &[f32], gy: &[f32], gx: &mut [f32]) {
    depthwise::input_gradient_f32(g, w, gy, gx);
}

#[target_feature(enable = "avx2")]
fn depthwise_input_gradient_i8(g: &Window, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
    depthwise::input_gradient_i8(g, w.w, |o| w.quant.scale_of(o), gy, gx);
}

#[target_feature(enable = "avx2")]
fn depthwise_weight_gradient_f32(g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    depthwise::weight_gradient_f32(g, x, gy, gw);
}

#[target_feature(enable = "avx2")]
fn dense_f32(p: &DenseF32, y: &mut [f32]) {
    dense::forward_f32(p, y);
}

#[target_feature(enable = "avx2")]
fn dense_i8(p: &DenseI8, y: &mut [i8]) {
    if !int8_avx2::dense(p, y) {
        dense::forward_i8(p, y);
    }
}

#[target_feature(enable = "avx2")]
fn dense_input_gradient_f32(depth: usize, w: &[f32], gy: &[f32], gx: &mut [f32]) {
    dense::input_gradient_f32(depth, w, gy, gx);
}

#[target_feature(enable = "avx2")]
fn dense_input_gradient_i8(depth: usize, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
    dense::input_gradient_i8(depth, w.w, |o| w.quant.scale_of(o), gy, gx);
}

#[target_feature(enable = "avx2")]
fn dense_weight_gradient_f32(depth: usize, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    dense::weight_gradient_f32(depth, x, gy, gw);
}

#[target_feature(enable = "avx2")]
fn spread_f32(spread: Spread, p: &ConvF32, y: &mut [f32]) {
    spread::forward_f32(spread, p, y);
}

#[target_feature(enable = "avx2")]
fn spread_i8(spread: Spread, p: &ConvI8, y: &mut [i8]) {
    spread::forward_i8(spread, p, y);
}

#[target_feature(enable = "avx2")]
fn spread_input_gradient_f32(spread: Spread, g: &Window, w: &[f32], gy: &[f32], gx: &mut [f32]) {
    spread::input_gradient_f32(spread, g, w, gy, gx);
}

#[target_feature(enable = "avx2")]
fn spread_input_gradient_i8(spread: Spread, g: &Window, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
    spread::input_gradient_i8(spread, g, w.w, |o| w.quant.scale_of(o), gy, gx);
}

#[target_feature(enable = "avx2")]
fn spread_weight_gradient_f32(spread: Spread, g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    spread::weight_gradient_f32(spread, g, x, gy, gw);
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::super::{Kernels, Requantize};
    use super::*;
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

    /// Runs both, wants the same bits and that the AVX2 form was the one that ran.
    fn same<T: PartialEq + Clone + core::fmt::Debug>(
        avx2: Avx2,
        start: &[T],
        run: impl Fn(Kernels, &mut [T]),
    ) {
        let (mut a, mut b) = (start.to_vec(), start.to_vec());
        run(Kernels::Scalar, &mut a);
        let before = RUNS.load(core::sync::atomic::Ordering::Relaxed);
        run(Kernels::Avx2(avx2), &mut b);
        let after = RUNS.load(core::sync::atomic::Ordering::Relaxed);
        assert_eq!(after, before + 1, "the forced kernels did not run");
        assert_eq!(a, b);
        assert_ne!(a, start, "the kernel did nothing");
    }

    fn compare_window(avx2: Avx2, g: &Window, depthwise: bool) {
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
            w: &w8,
            quant: Quant {
                scale: 1.0,
                zero_point: 0,
                channel_scales: &scales,
            },
        };
        let pf = ConvF32 {
            window: g,
            x: &x,
            w: &w,
            bias: &bias,
            activation: Activation::Relu6,
        };
        let pi = ConvI8 {
            window: g,
            x: &x8,
            x_zero_point: 7,
            w: &w8,
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
            same(avx2, &y0, |k, y| super::super::depthwise_f32(k, &pf, y));
            same(avx2, &y8, |k, y| super::super::depthwise_i8(k, &pi, y));
            same(avx2, &gx0, |k, g_| {
                super::super::depthwise_input_gradient_f32(k, g, &w, &gy, g_)
            });
            same(avx2, &gx0, |k, g_| {
                super::super::depthwise_input_gradient_i8(k, g, weights, &gy, g_)
            });
            same(avx2, &gw0, |k, g_| {
                super::super::depthwise_weight_gradient_f32(k, g, &x, &gy, g_)
            });
        } else {
            same(avx2, &y0, |k, y| super::super::conv_f32(k, &pf, y));
            same(avx2, &y8, |k, y| super::super::conv_i8(k, &pi, y));
            same(avx2, &gx0, |k, g_| {
                super::super::conv_input_gradient_f32(k, g, &w, &gy, g_)
            });
            same(avx2, &gx0, |k, g_| {
                super::super::conv_input_gradient_i8(k, g, weights, &gy, g_)
            });
            same(avx2, &gw0, |k, g_| {
                super::super::conv_weight_gradient_f32(k, g, &x, &gy, g_)
            });
        }
    }

    fn compare_dense(avx2: Avx2, n: usize, depth: usize, o: usize) {
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
            w: &w8,
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
            w: &w8,
            quant: Quant::NONE,
        };
        let (y0, y8) = (std::vec![9.0; n * o], std::vec![99; n * o]);
        let (gx0, gw0) = (floats(n * depth, 7), floats(o * depth, 8));
        same(avx2, &y0, |k, y| super::super::dense_f32(k, &pf, y));
        same(avx2, &y8, |k, y| super::super::dense_i8(k, &pi, y));
        same(avx2, &gx0, |k, g| {
            super::super::dense_input_gradient_f32(k, depth, &w, &gy, g)
        });
        same(avx2, &gx0, |k, g| {
            super::super::dense_input_gradient_i8(k, depth, weights, &gy, g)
        });
        same(avx2, &gw0, |k, g| {
            super::super::dense_weight_gradient_f32(k, depth, &x, &gy, g)
        });
    }

    /// Over shapes that leave every kind of remainder. (One test, since the runs are counted globally.)
    fn compare_spread(avx2: Avx2, g: &Window, transposed: bool) {
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
            w: &w,
            bias: &bias,
            activation: Activation::Relu,
        };
        let pi = ConvI8 {
            window: g,
            x: &x8,
            x_zero_point: -3,
            w: &w8,
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
            w: &w8,
            quant: Quant {
                scale: 0.3,
                zero_point: 0,
                channel_scales: &[],
            },
        };
        use super::super as kernels;
        same(avx2, &std::vec![9.0; y_len], |k, y| {
            kernels::spread_f32(k, spread, &pf, y)
        });
        same(avx2, &std::vec![99; y_len], |k, y| {
            kernels::spread_i8(k, spread, &pi, y)
        });
        same(avx2, &floats(x_len, 7), |k, gx| {
            kernels::spread_input_gradient_f32(k, spread, g, &w, &gy, gx)
        });
        same(avx2, &floats(x_len, 7), |k, gx| {
            kernels::spread_input_gradient_i8(k, spread, g, weights, &gy, gx)
        });
        same(avx2, &floats(w_len, 8), |k, gw| {
            kernels::spread_weight_gradient_f32(k, spread, g, &x, &gy, gw)
        });
    }

    #[test]
    fn same_bits_as_scalar() {
        let Some(avx2) = Avx2::new() else {
            std::eprintln!("SKIPPED: AVX2 is not there, or not detected without feature `std`");
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
                compare_spread(avx2, &g, depthwise);
                compare_window(avx2, &g, depthwise);
            }
        }
        for (n, depth, o) in [(1, 1, 1), (3, 7, 5), (2, 64, 10), (1, 131, 9)] {
            compare_dense(avx2, n, depth, o);
        }
    }
}
