//! Whose int8 arithmetic a model has.

use crate::kernels::Rounding;

/// The runtime whose int8 results a model reproduces to the bit. The constants of its operators are made for one of them.
///
/// | | convolutions | dense layers | sums | products | softmax |
/// |---|---|---|---|---|---|
/// | `Tflm` | fixed point, two roundings | the same | the same | the same | gemmlowp's fixed point |
/// | `TflmSingle` | fixed point, one rounding | the same | the same | the same | the same, one rounding |
/// | `LiteRtReference` | as `Tflm` | f64 factor, halves away from zero | as `Tflm` | as `Tflm` | as `Tflm` |
/// | `Xnnpack` | f32 factor, halves to even | the same | 21-bit factors, one rounding | f32 factor, halves to even | f32, with a table of exponentials |
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Numerics {
    /// TFLite Micro and CMSIS-NN: what chips run.
    #[default]
    Tflm = 0,
    /// The same, built with `TFLITE_SINGLE_ROUNDING`.
    TflmSingle = 1,
    /// LiteRT (TensorFlow Lite) with its reference kernels.
    LiteRtReference = 2,
    /// LiteRT with the XNNPACK delegate, its default on phones and PCs; what that leaves to LiteRT's own optimized kernels
    /// is as on x86-64.
    Xnnpack = 3,
}

impl Numerics {
    /// All of them.
    pub const ALL: [Numerics; 4] = [
        Numerics::Tflm,
        Numerics::TflmSingle,
        Numerics::LiteRtReference,
        Numerics::Xnnpack,
    ];

    /// The name on the command line and in documents.
    pub fn name(self) -> &'static str {
        match self {
            Numerics::Tflm => "tflm",
            Numerics::TflmSingle => "tflm-single",
            Numerics::LiteRtReference => "litert-ref",
            Numerics::Xnnpack => "xnnpack",
        }
    }

    /// The one with this code in an image.
    pub(crate) fn from_code(code: u8) -> Option<Numerics> {
        Numerics::ALL.get(code as usize).copied()
    }

    /// Of everything that is computed in fixed point.
    pub fn fixed_point(self) -> Rounding {
        match self {
            Numerics::TflmSingle => Rounding::Single,
            _ => Rounding::Double,
        }
    }

    /// Of the accumulators of convolutions, depthwise ones too, and of products.
    pub fn convolution(self) -> Rounding {
        match self {
            Numerics::Xnnpack => Rounding::Float32,
            _ => self.fixed_point(),
        }
    }

    /// Of the accumulators of dense layers.
    pub fn dense(self) -> Rounding {
        match self {
            Numerics::LiteRtReference => Rounding::Float64,
            _ => self.convolution(),
        }
    }
}
