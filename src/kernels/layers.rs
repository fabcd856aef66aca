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

/// The elementwise sum of two int8 tensors of one shape as TFLite Micro computes it, two roundings: each term is
/// `(x - zero_point) << left_shift` times its factor, their sum times that of the output.
#[derive(Clone, Copy, Debug)]
pub struct AddI8<'a> {
    /// The terms, as long as the output.
    pub x: [&'a [i8]; 2],
    /// Their zero points.
    pub zero_points: [i32; 2],
    /// At most 22.
    pub left_shift: u32,
    /// The terms' factors.
    pub factors: [Multiplier; 2],
    /// The sum's factor.
    pub output: Multiplier,
    /// Added last.
    pub zero_point: i32,
    /// Smallest and largest output, in -128..=127.
    pub range: (i32, i32),
}

impl AddI8<'_> {
    #[inline(always)]
    pub(super) fn finish(&self, a: i8, b: i8) -> i8 {
        let term = |x: i8, i: usize| {
            let x = (i32::from(x) - self.zero_points[i]) << self.left_shift;
            fixed_point::requantize(x, self.factors[i], Rounding::Double)
        };
        let sum = term(a, 0).wrapping_add(term(b, 1));
        let q = fixed_point::requantize(sum, self.output, Rounding::Double);
        let q = q.wrapping_add(self.zero_point);
        q.max(self.range.0).min(self.range.1) as i8
    }
}

/// The elementwise product of two int8 tensors of one shape as TFLite Micro computes it, two roundings: the product of both less their zero points
/// times a factor.
#[derive(Clone, Copy, Debug)]
pub struct MulI8<'a> {
    /// The factors, as long as the output.
    pub x: [&'a [i8]; 2],
    /// Their zero points.
    pub zero_points: [i32; 2],
    /// The product's factor.
    pub output: Multiplier,
    /// Added last.
    pub zero_point: i32,
    /// Smallest and largest output, in -128..=127.
    pub range: (i32, i32),
}

impl MulI8<'_> {
    #[inline(always)]
    pub(super) fn finish(&self, a: i8, b: i8) -> i8 {
        let product = (i32::from(a) - self.zero_points[0]) * (i32::from(b) - self.zero_points[1]);
        let q = fixed_point::requantize(product, self.output, Rounding::Double);
        let q = q.wrapping_add(self.zero_point);
        q.max(self.range.0).min(self.range.1) as i8
    }
}
