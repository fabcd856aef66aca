//! Which operators are compiled in: one feature of the crate each, all by default. The dispatching functions of [`Op`] name these constants
//! in their arms, so that the code behind an arm is left out with its feature.

use super::Op;

pub(super) const CONV: bool = cfg!(feature = "op-conv2d");
pub(super) const DEPTHWISE: bool = cfg!(feature = "op-depthwise-conv2d");
pub(super) const CONV_TRANSPOSE: bool = cfg!(feature = "op-conv-transpose2d");
pub(super) const DENSE: bool = cfg!(feature = "op-dense");
pub(super) const ADD: bool = cfg!(feature = "op-add");
pub(super) const MUL: bool = cfg!(feature = "op-mul");
pub(super) const AVG_POOL: bool = cfg!(feature = "op-avg-pool2d");
pub(super) const MAX_POOL: bool = cfg!(feature = "op-max-pool2d");
pub(super) const PAD: bool = cfg!(feature = "op-pad");
pub(super) const RESHAPE: bool = cfg!(feature = "op-reshape");
pub(super) const CONCAT: bool = cfg!(feature = "op-concat");
pub(super) const SOFTMAX: bool = cfg!(feature = "op-softmax");
pub(super) const UNARY: bool = cfg!(feature = "op-unary");
pub(super) const BATCH_NORM: bool = cfg!(feature = "op-batch-norm");
pub(super) const QUANTIZE: bool = cfg!(feature = "op-quantize");
pub(super) const DEQUANTIZE: bool = cfg!(feature = "op-dequantize");
pub(super) const LOG_SOFTMAX: bool = cfg!(feature = "op-log-softmax");
pub(super) const REDUCE_MAX: bool = cfg!(feature = "op-reduce-max");
pub(super) const TRANSPOSE: bool = cfg!(feature = "op-transpose");
pub(super) const SLICE: bool = cfg!(feature = "op-slice");
pub(super) const LSTM: bool = cfg!(feature = "op-lstm");
pub(super) const SVDF: bool = cfg!(feature = "op-svdf");
pub(super) const STATE: bool = cfg!(feature = "op-state");

impl Op {
    /// The crate's feature that brings the operator's code, and whether this build has it. Where it has not, [`Op::check`]
    /// refuses the operator ([`OpError::NotLinked`](super::OpError::NotLinked)), and so
    /// [`Model::from_bytes`](crate::model::Model::from_bytes) does every model with it.
    pub fn feature(&self) -> (&'static str, bool) {
        match self {
            Op::Conv2d(_) => ("op-conv2d", CONV),
            Op::DepthwiseConv2d(_) => ("op-depthwise-conv2d", DEPTHWISE),
            Op::ConvTranspose2d(_) => ("op-conv-transpose2d", CONV_TRANSPOSE),
            Op::Dense(_) => ("op-dense", DENSE),
            Op::Add(_) => ("op-add", ADD),
            Op::Mul(_) => ("op-mul", MUL),
            Op::AvgPool2d(_) => ("op-avg-pool2d", AVG_POOL),
            Op::MaxPool2d(_) => ("op-max-pool2d", MAX_POOL),
            Op::Pad(_) => ("op-pad", PAD),
            Op::Reshape => ("op-reshape", RESHAPE),
            Op::Concat(_) => ("op-concat", CONCAT),
            Op::Softmax(_) => ("op-softmax", SOFTMAX),
            Op::Unary(_) => ("op-unary", UNARY),
            Op::BatchNorm(_) => ("op-batch-norm", BATCH_NORM),
            Op::Quantize => ("op-quantize", QUANTIZE),
            Op::Dequantize => ("op-dequantize", DEQUANTIZE),
            Op::LogSoftmax(_) => ("op-log-softmax", LOG_SOFTMAX),
            Op::ReduceMax(_) => ("op-reduce-max", REDUCE_MAX),
            Op::Transpose(_) => ("op-transpose", TRANSPOSE),
            Op::Slice(_) => ("op-slice", SLICE),
            Op::Lstm(_) => ("op-lstm", LSTM),
            Op::Svdf(_) => ("op-svdf", SVDF),
            Op::Remember => ("op-state", STATE),
            Op::Recall => ("op-state", STATE),
        }
    }
}
