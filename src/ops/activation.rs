//! Fused activations: the range of an int8 output, and backward the bit that says where the gradient passes, and what it does.

use super::{Activation, Context, Rounding};
use crate::kernels::{self, Requantize, scalar::elementwise::pack};
#[cfg(foolproof_simd)]
use crate::kernels::{Numbers, NumbersF32, NumbersI8};
#[cfg(foolproof_simd)]
use crate::tensor::DType;
use crate::tensor::{Data, Operand};

/// From the sums of an int8 layer to its outputs. `constants`: bias, multiplier, shift.
#[inline(always)]
pub(super) fn requantize<'a>(
    (rounding, activation): (Rounding, Activation),
    [bias, multiplier, shift]: [&Operand<'a>; 3],
    output: &Operand,
) -> Requantize<'a> {
    Requantize {
        bias: bias.i32(),
        multiplier: multiplier.i32(),
        shift: shift.i32(),
        rounding,
        zero_point: output.quant.zero_point,
        range: activation.range_i8(&output.quant),
    }
}

/// A layer's constants as its loops take them, from its operands; None of operands that were not checked. `how`: rounding, activation, and whether it
/// keeps ties.
#[cfg(foolproof_simd)]
pub(super) fn layer_numbers<'a>(
    (rounding, activation, keeps_ties): (Rounding, Activation, bool),
    operands: &[Operand<'a>],
    output: &Operand,
) -> Option<Numbers<'a>> {
    match (output.dtype, operands) {
        (DType::F32, [_, w, bias]) => Some(Numbers::F32(NumbersF32 {
            w: w.f32(),
            bias: bias.f32(),
            activation,
            keeps_ties,
        })),
        (DType::I8, [x, w, bias, multiplier, shift]) => Some(Numbers::I8(NumbersI8 {
            x_zero_point: x.quant.zero_point as i16,
            w: w.i8(),
            output: requantize((rounding, activation), [bias, multiplier, shift], output),
        })),
        _ => None,
    }
}

/// Writes one bit per element, lowest first: whether the gradient passes.
pub(super) fn save_bits(cx: &Context, activation: Activation, output: &Operand, saved: &mut [u8]) {
    match output.data {
        Data::F32(y) => kernels::passing_f32(cx.kernels, activation, y, saved),
        Data::I8(y) => {
            let (low, high) = activation.range_i8(&output.quant);
            for (byte, y) in saved.iter_mut().zip(y.chunks(8)) {
                *byte = pack(y.iter().map(|&q| (q as i32) > low && (q as i32) < high));
            }
        }
        _ => {}
    }
}

/// Multiplies the gradient by `blocked` where the bit is 0.
pub(super) fn mask(cx: &Context, saved: &[u8], blocked: f32, gy: &mut [f32]) {
    kernels::block_f32(cx.kernels, saved, blocked, gy);
}

/// `y += x`.
pub(super) fn accumulate(y: &mut [f32], x: &[f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += x;
    }
}
