//! Backward through fused activations: the bit that says where the gradient passes, and what it does.

use super::Activation;
use crate::tensor::{Data, Operand};

/// Writes one bit per element, lowest first: whether the gradient passes.
pub(super) fn save_bits(activation: Activation, output: &Operand, saved: &mut [u8]) {
    match output.data {
        Data::F32(y) => {
            for (byte, y) in saved.iter_mut().zip(y.chunks(8)) {
                *byte = pack(y.iter().map(|&y| activation.passes(y)));
            }
        }
        Data::I8(y) => {
            let (low, high) = activation.range_i8(&output.quant);
            for (byte, y) in saved.iter_mut().zip(y.chunks(8)) {
                *byte = pack(y.iter().map(|&q| (q as i32) > low && (q as i32) < high));
            }
        }
        _ => {}
    }
}

fn pack(bits: impl Iterator<Item = bool>) -> u8 {
    bits.enumerate()
        .fold(0, |byte, (i, bit)| byte | (bit as u8) << i)
}

/// Multiplies the gradient by `blocked` where the bit is 0.
pub(super) fn mask(saved: &[u8], blocked: f32, gy: &mut [f32]) {
    for (byte, gy) in saved.iter().zip(gy.chunks_mut(8)) {
        for (i, gy) in gy.iter_mut().enumerate() {
            if byte >> i & 1 == 0 {
                // A product with 0 would keep infinities and the sign.
                *gy = if blocked == 0.0 { 0.0 } else { *gy * blocked };
            }
        }
    }
}

/// `y += x`.
pub(super) fn accumulate(y: &mut [f32], x: &[f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += x;
    }
}
