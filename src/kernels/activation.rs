//! Activations that are fused into the loop before them.

use crate::tensor::Quant;

/// An activation fused into the operator before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Activation {
    /// The identity.
    None = 0,
    /// max(0, x).
    Relu = 1,
    /// min(6, max(0, x)).
    Relu6 = 2,
}

impl Activation {
    /// The activation with this code in a model image.
    pub const fn from_code(code: u32) -> Option<Activation> {
        match code {
            0 => Some(Activation::None),
            1 => Some(Activation::Relu),
            2 => Some(Activation::Relu6),
            _ => None,
        }
    }

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
            Activation::Relu => (output.zero_point.max(-128), 127),
            Activation::Relu6 => (output.zero_point.max(-128), quantize(6.0).min(127)),
        }
    }
}
