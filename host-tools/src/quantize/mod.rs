//! Post-training quantization: an f32 graph and some typical inputs in, an int8 graph out.
//!
//! The scheme is TFLite's ("TensorFlow Lite 8-bit quantization specification"; Jacob et al. 2018, section 2): int8
//! activations with one scale and zero point per tensor, from the range that calibration saw (always with 0 in
//! it); int8 weights symmetric around 0 with a scale per output channel; int32 biases in steps of `s_x s_w`.
//! Convolutions have a scale per `O` (axis 0), depthwise convolutions per `C m` (the last axis). Dense layers
//! have one per `O` too, which TFLite Micro takes; a runtime that does not is served by
//! [`Options::per_tensor_dense`].
//!
//! Before that, batch normalization is folded into the layer before it and a standalone ReLU or ReLU6 is fused
//! into it ([`fold`]). Pooling, padding and reshaping keep their input's grid, as TFLite demands; the inputs of a
//! concatenation get its output's, or a requantization in front where they already have one that is fixed.

mod aware;
pub mod fold;
mod grids;
mod lower;
pub mod multiplier;
mod ranges;
pub mod tables;
pub mod units;

pub use aware::Aware;

use crate::graph::{Graph, GraphError};
use foolproof::ops::Numerics;
use foolproof::session::SessionError;

/// Choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// One scale for all weights of a dense layer instead of one per output.
    pub per_tensor_dense: bool,
    /// How the device rounds.
    pub numerics: Numerics,
    /// The input's grid spans the graph's declared `input_range`, so that it holds everything that the device can
    /// see; else what calibration saw.
    pub input_from_range: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            per_tensor_dense: false,
            numerics: Numerics::Tflm,
            input_from_range: true,
        }
    }
}

/// Why a graph cannot be quantized.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum QuantizeError {
    /// The graph has int8 activations already.
    #[error("the model is quantized already; quantize takes an f32 model")]
    AlreadyQuantized,
    /// The calibration set is empty or does not consist of whole samples.
    #[error(
        "the calibration set has {len} values; the model takes {input_len} per sample, so at least that many and a multiple of it are needed"
    )]
    CalibrationLength {
        /// Values there are.
        len: usize,
        /// Values per sample.
        input_len: usize,
    },
    /// A calibration sample is not a number.
    #[error(
        "calibration sample {sample} has {value} at element {element}; all values must be finite"
    )]
    CalibrationValue {
        /// Which sample.
        sample: usize,
        /// Which of its elements.
        element: usize,
        /// What it is.
        value: f32,
    },
    /// A weight or another constant is not a number.
    #[error("constant `{tensor}` has {value} at element {element}; all values must be finite")]
    ConstantValue {
        /// The tensor's name.
        tensor: String,
        /// Which element.
        element: usize,
        /// What it is.
        value: f32,
    },
    /// An activation is not a number although the sample and the weights are.
    #[error(
        "activation `{tensor}` becomes {value} on calibration sample {sample}: the model overflows there"
    )]
    ActivationValue {
        /// The tensor's name.
        tensor: String,
        /// Which sample.
        sample: usize,
        /// What it is.
        value: f32,
    },
    /// A batch normalization stands where it cannot be folded.
    #[error(
        "operator {operator} (batch_norm, output `{tensor}`) cannot be folded: it must directly follow a convolution or dense layer without activation, whose output nothing else reads"
    )]
    BatchNorm {
        /// Which operator.
        operator: usize,
        /// Its output's name.
        tensor: String,
    },
    /// An operator that has no int8 form, or not with these operands.
    #[error("operator {operator} ({name}, output `{tensor}`) cannot be quantized: {reason}")]
    Unsupported {
        /// Which operator.
        operator: usize,
        /// Its name.
        name: &'static str,
        /// Its output's name.
        tensor: String,
        /// Why.
        reason: &'static str,
    },
    /// The graph is not well formed.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The graph does not run.
    #[error("calibration cannot run: {0}")]
    Session(#[from] SessionError),
}

/// Quantizes an f32 graph. `calibration` holds whole samples one after another, `[n, input elements]`, in real units; a
/// few hundred typical ones are enough. The result has int8 input and output, and the same `input_range` (real units) and labels.
///
/// # Errors
/// The calibration set is empty, misshapen or not finite; a constant is not finite; an operator has no int8 form.
pub fn quantize(
    graph: &Graph,
    calibration: &[f32],
    options: &Options,
) -> Result<Graph, QuantizeError> {
    if graph.is_quantized() {
        return Err(QuantizeError::AlreadyQuantized);
    }
    ranges::check_constants(graph)?;
    let folded = fold::fold(graph)?;
    // folding divides by the root of a variance
    ranges::check_constants(&folded)?;
    quantize_within(&folded, &observe(&folded, calibration)?, options)
}

/// What each tensor of a graph reaches, constants left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranges(Vec<ranges::Range>);

/// Runs the calibration set, as for [`quantize`].
///
/// # Errors
/// The calibration set is empty, misshapen or not finite.
pub fn observe(graph: &Graph, calibration: &[f32]) -> Result<Ranges, QuantizeError> {
    ranges::observe(graph, calibration).map(Ranges)
}

/// [`quantize`] for a graph without batch normalizations ([`fold::fold`]) whose activations reach `ranges`.
///
/// # Errors
/// As [`quantize`].
pub fn quantize_within(
    graph: &Graph,
    ranges: &Ranges,
    options: &Options,
) -> Result<Graph, QuantizeError> {
    ranges::check_constants(graph)?;
    let grids = grids::assign(graph, &ranges.0, options)?;
    lower::lower(graph, &grids, options)
}

/// An error about one operator.
fn unsupported(graph: &Graph, operator: usize, reason: &'static str) -> QuantizeError {
    let node = &graph.nodes[operator];
    QuantizeError::Unsupported {
        operator,
        name: node.op.name(),
        tensor: graph.tensors[node.output].name.clone(),
        reason,
    }
}
