//! Backward through fused activations: the bit that says where the gradient passes, and what it does.

use super::{Activation, Context};
use crate::kernels::{self, scalar::elementwise::pack};
use crate::tensor::{Data, Operand};

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
