//! What the loops of a layer are told: sizes, operands, and what happens to sums.

use super::{Activation, Constant, Multiplier, Rounding, Window, fixed_point, scalar};

/// A (depthwise) convolution in f32. Weights `[O, kh, kw, C]`, depthwise `[1, kh, kw, O]`; bias `[O]`.
#[derive(Clone, Copy, Debug)]
pub struct ConvF32<'a> {
    /// Sizes.
    pub window: &'a Window,
    /// Input.
    pub x: &'a [f32],
    /// Weights.
    pub w: Constant<'a, f32>,
    /// Bias.
    pub bias: &'a [f32],
    /// Fused activation.
    pub activation: Activation,
    /// Whether equal windows must give equal sums, as they do when written out: a maximum over such sums takes the first.
    pub keeps_ties: bool,
}

/// A (depthwise) convolution in int8; weights as in [`ConvF32`], zero point 0. Where they have a place, biases and factors stay what and where
/// they are, too: loops may keep there what follows from all of them.
#[derive(Clone, Copy, Debug)]
pub struct ConvI8<'a> {
    /// Sizes.
    pub window: &'a Window,
    /// Input.
    pub x: &'a [i8],
    /// The input's zero point, in -128..=127.
    pub x_zero_point: i16,
    /// Weights.
    pub w: Constant<'a, i8>,
    /// From accumulator to output.
    pub output: Requantize<'a>,
}

/// A fully connected layer in f32: `x [N, depth]`, `w [O, depth]`, `bias [O]`, depth at least 1.
#[derive(Clone, Copy, Debug)]
pub struct DenseF32<'a> {
    /// Elements per sample.
    pub depth: usize,
    /// Input.
    pub x: &'a [f32],
    /// Weights.
    pub w: &'a [f32],
    /// Bias.
    pub bias: &'a [f32],
    /// Fused activation.
    pub activation: Activation,
}

/// A fully connected layer in int8; weights with zero point 0. Where they have a place, biases and factors stay what and where they are, too:
/// loops may keep there what follows from all of them.
#[derive(Clone, Copy, Debug)]
pub struct DenseI8<'a> {
    /// Elements per sample.
    pub depth: usize,
    /// Input.
    pub x: &'a [i8],
    /// The input's zero point, in -128..=127.
    pub x_zero_point: i16,
    /// Weights.
    pub w: Constant<'a, i8>,
    /// From accumulator to output.
    pub output: Requantize<'a>,
}

/// From an int32 accumulator to an int8 output, per output channel.
#[derive(Clone, Copy, Debug)]
pub struct Requantize<'a> {
    /// Added to the accumulator first.
    pub bias: &'a [i32],
    /// Fixed-point factors: mantissas.
    pub multiplier: &'a [i32],
    /// Fixed-point factors: shifts, in -31..=30.
    pub shift: &'a [i32],
    /// Which rounding.
    pub rounding: Rounding,
    /// Added last.
    pub zero_point: i32,
    /// Smallest and largest output.
    pub range: (i32, i32),
}

impl Requantize<'_> {
    /// The output of channel `o` for an accumulator without its bias.
    #[inline(always)]
    pub fn finish(&self, sum: i32, o: usize) -> i8 {
        let sum = sum.wrapping_add(self.bias[o]);
        let factor = Multiplier {
            mantissa: self.multiplier[o],
            shift: self.shift[o],
        };
        let q = match self.rounding {
            Rounding::Float32 => factor.onto_grid(sum, self.zero_point),
            rounding => {
                fixed_point::requantize(sum, factor, rounding).wrapping_add(self.zero_point)
            }
        };
        q.max(self.range.0).min(self.range.1) as i8
    }

    /// `y[first + k]` from `sums[k]`, for a block of channels.
    #[cfg_attr(any(target_arch = "arm", target_arch = "riscv32"), inline(never))]
    #[cfg_attr(not(any(target_arch = "arm", target_arch = "riscv32")), inline(always))]
    pub(crate) fn finish_rows(&self, sums: &[i32; scalar::ROWS_I8], first: usize, y: &mut [i8]) {
        let n = sums.len();
        let block = Requantize {
            bias: &self.bias[first..][..n],
            multiplier: &self.multiplier[first..][..n],
            shift: &self.shift[first..][..n],
            ..*self
        };
        for (k, (y, &sum)) in y[first..][..n].iter_mut().zip(sums).enumerate() {
            *y = block.finish(sum, k);
        }
    }
}
