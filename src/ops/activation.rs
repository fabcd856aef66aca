//! Fused activations: the clamp itself, its integer form, and the bit that says where the gradient passes.

use super::Activation;
use crate::tensor::{Data, Operand, Quant};

impl Activation {
    /// The activation of one value; not-a-number stays so.
    #[inline(always)]
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Activation::None => x,
            Activation::Relu if x < 0.0 => 0.0,
            Activation::Relu6 if x < 0.0 => 0.0,
            Activation::Relu6 if x > 6.0 => 6.0,
            _ => x,
        }
    }

    /// Whether the gradient passes, told from the output: strictly between the rails.
    #[inline(always)]
    pub fn passes(self, y: f32) -> bool {
        match self {
            Activation::None => true,
            Activation::Relu => y > 0.0,
            Activation::Relu6 => y > 0.0 && y < 6.0,
        }
    }

    /// Smallest and largest int8 output. (TFLite `CalculateActivationRangeQuantized`.)
    pub fn range_i8(self, output: &Quant) -> (i32, i32) {
        let quantize = |real: f32| {
            let steps = libm::roundf(real / output.scale) as i32;
            steps.saturating_add(output.zero_point)
        };
        match self {
            Activation::None => (-128, 127),
            Activation::Relu => (quantize(0.0).max(-128), 127),
            Activation::Relu6 => (quantize(0.0).max(-128), quantize(6.0).min(127)),
        }
    }
}

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
