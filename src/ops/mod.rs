//! Operators: one file per family, and in it side by side the shape rule, forward in f32, forward in int8,
//! the input gradient and the parameter gradient.
//!
//! An operator sees [`Operand`]s (a shape, a quantization, elements) and never a model or a session.
//!
//! Operands by operator, in this order (int8 forms take their requantization constants as int32 tensors):
//!
//! | operator | f32 | int8 |
//! |---|---|---|
//! | Conv2d | x `[N,H,W,C]`, w `[O,kh,kw,C]`, bias `[O]` | the same, bias int32, multiplier `[O]`, shift `[O]` |
//! | DepthwiseConv2d | x, w `[1,kh,kw,C*m]`, bias `[C*m]` | the same, multiplier, shift |
//! | Dense | x (flattened to `[N,I]`), w `[O,I]`, bias `[O]` | the same, multiplier `[O]`, shift `[O]` |
//! | Add, Mul | a, b (NumPy broadcasting) | a, b |
//! | AvgPool2d, MaxPool2d, Pad, Reshape, Softmax | x | x |
//! | Concat | 1 to 8 tensors | the same, all of the output's quantization |
//! | Unary (Relu, Relu6, LeakyRelu, Tanh, Sigmoid, Requantize) | x | x, table int8 `[256]`, slope f32 `[256]` |
//! | BatchNorm | x, gamma, beta, mean, variance `[C]` | folded before |
//! | Quantize | x f32 -> int8 | |
//! | Dequantize | | x int8 -> f32 |

use crate::kernels::Kernels;
use crate::tensor::{DType, DataMut, Operand};

/// How a 32-bit accumulator times a fixed-point multiplier is rounded to the output's scale.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Rounding {
    /// gemmlowp's two roundings (doubling high multiply, then rounding shift): TFLite Micro and CMSIS-NN.
    Double = 0,
    /// One rounding of the 64-bit product: builds with `TFLITE_SINGLE_ROUNDING`.
    Single = 1,
}

/// What every operator is told besides its operands.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Which inner loops to use.
    pub kernels: Kernels,
    /// Rounding of int8 requantization.
    pub rounding: Rounding,
}

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

/// What backward needs of what forward saw. The memory plan keeps exactly this alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Needs {
    /// Bit i set: the elements of input i (activations; constants are always there).
    pub inputs: u8,
    /// The elements of the output.
    pub output: bool,
    /// A side note written during forward.
    pub saved: Saved,
}

/// A side note that forward leaves for backward.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Saved {
    /// Nothing.
    Nothing,
    /// One bit per output element, set where the gradient passes; written after forward.
    Bits,
    /// One byte per output element: which cell of the window was the maximum; written after forward.
    Indices,
    /// Mean and 1/sqrt(variance + eps) per channel of this batch, f32; written *before* forward.
    Statistics,
}

/// Why an operator cannot take the operands it was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum OpError {
    /// Too many or too few inputs.
    InputCount {
        /// How many the operator takes.
        expected: u8,
        /// How many there are.
        got: u8,
    },
    /// Input (or, with 255, output) of an element type that the operator does not take.
    Type {
        /// Which input; 255 is the output.
        operand: u8,
    },
    /// An operand's shape does not follow from the others.
    Shape {
        /// Which input; 255 is the output.
        operand: u8,
    },
    /// A scale, zero point, multiplier or shift out of range, or scales that should be equal and are not.
    Quantization {
        /// Which input; 255 is the output.
        operand: u8,
    },
    /// A stride, dilation, padding, axis or window out of range.
    Attribute,
    /// A constant was expected.
    NotConstant {
        /// Which input.
        operand: u8,
    },
}
