//! Operators: one file per family, and in it side by side the shape rule, forward in f32, forward in int8,
//! the input gradient and the parameter gradient.
//!
//! An operator sees [`Operand`]s (a shape, a quantization, elements) and never a model or a session.
//!
//! Operands by operator, in this order (int8 forms take their requantization constants as int32 tensors):
//!
//! | operator | f32 | int8 |
//! |---|---|---|
//! | Conv2d | x `[N,H,W,C]`, w `[O,kh,kw,C/groups]`, bias `[O]` | the same, bias int32, multiplier `[O]`, shift `[O]` |
//! | ConvTranspose2d | x `[N,H,W,C]`, w `[O,kh,kw,C/groups]`, bias `[O]` | the same, bias int32, multiplier `[O]`, shift `[O]` |
//! | DepthwiseConv2d | x, w `[1,kh,kw,C*m]`, bias `[C*m]` | the same, multiplier, shift |
//! | Dense | x (flattened to `[N,I]`), w `[O,I]`, bias `[O]` | the same, multiplier `[O]`, shift `[O]` |
//! | Add, Mul | a, b (NumPy broadcasting) | a, b |
//! | AvgPool2d, MaxPool2d, Pad, Reshape | x | x |
//! | Softmax | x | x; for XNNPACK exponentials f32 `[256]` |
//! | Concat | 1 to 8 tensors | the same, all of the output's quantization |
//! | Unary (Relu, Relu6, LeakyRelu, Tanh, Sigmoid, Requantize, Clip, Elu, Abs, Exp, Log, Sqrt, Reciprocal, Softplus, Erf) | x | x, table int8 `[256]`, slope f32 `[256]` |
//! | LogSoftmax, ReduceMax, Transpose, Slice | x | x |
//! | Lstm | x `[N,T,I]`, state `[N,2S]`, w `[4S,I]`, recurrent w `[4S,S]`, bias `[4S]` | the same, state and bias int32, multiplier `[8]`, shift `[8]` |
//! | Svdf | x `[N,I]`, state `[N,F*M]`, feature w `[F,I]`, time w `[F,M]`, bias `[U]` | the same; state, time w and bias int32 |
//! | Remember | x, state of as many elements | the same |
//! | Recall | state | the same |
//! | BatchNorm | x, gamma, beta, mean, variance `[C]` | folded before |
//! | Quantize | x f32 -> int8 | |
//! | Dequantize | | x int8 -> f32 |

mod activation;
mod arithmetic;
mod attributes;
mod batch_norm;
mod check;
mod conv;
mod conv_transpose;
mod dense;
mod error;
mod layout;
mod linked;
mod log_softmax;
mod lstm;
mod numerics;
mod pool;
mod quantize;
mod reduce;
mod shuffle;
mod softmax;
mod state;
mod svdf;
mod table;
mod unary;

pub use crate::kernels::{Activation, Multiplier, Rounding};
pub use attributes::{
    Add, BatchNorm, Concat, Conv2d, Dense, DepthwiseConv2d, Mul, Pad, Padding, Pool2d, Softmax,
    Unary,
};
pub use conv_transpose::ConvTranspose2d;
pub use error::OpError;
pub use log_softmax::LogSoftmax;
pub use lstm::Lstm;
pub use numerics::Numerics;
pub use reduce::ReduceMax;
pub use shuffle::{Slice, Transpose};
pub use svdf::Svdf;
pub use table::Table;

use conv::Convolution;
use linked::*;

use crate::kernels::{Constant, Kernels, Place};
#[cfg(foolproof_simd)]
use crate::kernels::{Layer, kept};
use crate::tensor::{DType, DataMut, Operand, Shape, StateMut};

/// The largest number of inputs (activations and constants together) of one operator.
pub const MAX_INPUTS: usize = 8;

/// How many 32-bit words hold the attributes of one operator in a model image.
pub const WORDS: usize = 12;

/// What every operator is told besides its operands.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Which inner loops to use.
    pub kernels: Kernels,
    /// Whose int8 arithmetic.
    pub numerics: Numerics,
    /// Whether equal windows must give equal sums ([`Op::tells_ties`]).
    pub keeps_ties: bool,
    /// Where loops keep weights in their order.
    pub(crate) place: Place<'a>,
}

impl<'a> Context<'a> {
    /// For operators that run once: weights are not kept, ties are.
    pub fn new(kernels: Kernels, numerics: Numerics) -> Context<'a> {
        Context {
            kernels,
            numerics,
            keeps_ties: true,
            place: Place::default(),
        }
    }

    /// Weights, and where their order is kept.
    fn constant<'w, T>(&self, elements: &'w [T]) -> Constant<'w, T>
    where
        'a: 'w,
    {
        Constant::new(elements, self.place)
    }

    /// Rounding of int8 requantization in fixed point.
    pub fn rounding(&self) -> Rounding {
        self.numerics.fixed_point()
    }
}

/// What backward sees of forward: operands with the elements that [`Op::needs`] asked for, and the side note.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The inputs, constants included.
    pub inputs: &'a [Operand<'a>],
    /// The output.
    pub output: &'a Operand<'a>,
    /// The side note, empty for [`Saved::Nothing`].
    pub saved: &'a [u8],
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
    /// What each step of a sequence leaves for backward through time, and room to work there; written during forward.
    Steps {
        /// Bytes per output element.
        element: u8,
        /// Bytes per sample and channel.
        channel: u8,
    },
}

/// What an operator writes besides its output while it runs ([`Op::advance`]).
#[derive(Debug)]
pub struct Memory<'a> {
    /// What it keeps from one run to the next.
    pub state: StateMut<'a>,
    /// [`Saved::Steps`]; empty where nothing is kept for backward.
    pub saved: &'a mut [u8],
}

impl Saved {
    /// How many bytes the note takes for an output of this shape.
    pub fn bytes(self, output: &Shape) -> usize {
        match self {
            Saved::Nothing => 0,
            Saved::Bits => output.len().div_ceil(8),
            Saved::Indices => output.len(),
            Saved::Statistics => 2 * 4 * output.channels(),
            Saved::Steps { element, channel } => {
                let rows = output.dim(0) * output.channels();
                usize::from(element) * output.len() + usize::from(channel) * rows
            }
        }
    }
}

/// An operator with its attributes.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum Op {
    /// 2-D convolution.
    Conv2d(Conv2d),
    /// Depthwise 2-D convolution.
    DepthwiseConv2d(DepthwiseConv2d),
    /// Transposed 2-D convolution.
    ConvTranspose2d(ConvTranspose2d),
    /// Fully connected layer: `[N, I]` to `[N, O]`, where `I` is the weights' and `N` the number of elements over `I`.
    Dense(Dense),
    /// Elementwise sum.
    Add(Add),
    /// Elementwise product.
    Mul(Mul),
    /// Average over windows.
    AvgPool2d(Pool2d),
    /// Maximum over windows.
    MaxPool2d(Pool2d),
    /// Zeros around a tensor.
    Pad(Pad),
    /// The same elements in another shape.
    Reshape,
    /// Tensors joined along an axis.
    Concat(Concat),
    /// Softmax over the last axis.
    Softmax(Softmax),
    /// A function of each element.
    Unary(Unary),
    /// Batch normalization.
    BatchNorm(BatchNorm),
    /// f32 to int8.
    Quantize,
    /// int8 to f32.
    Dequantize,
    /// Logarithm of the softmax over the last axis.
    LogSoftmax(LogSoftmax),
    /// Maximum over one axis.
    ReduceMax(ReduceMax),
    /// Axes in another order.
    Transpose(Transpose),
    /// Some of the elements along one axis.
    Slice(Slice),
    /// Long short-term memory over a sequence.
    Lstm(Lstm),
    /// Singular value decomposition filter: one step of a recurrent layer.
    Svdf(Svdf),
    /// Hands its input on, and keeps it for the next run.
    Remember,
    /// What an earlier run kept.
    Recall,
}

impl Op {
    /// Whether it matters to it that two elements are equal and do not merely differ by rounding: a maximum, and its gradient, goes to the first
    /// of them. In a model with such an operator convolutions keep ties.
    pub fn tells_ties(&self) -> bool {
        matches!(self, Op::MaxPool2d(_) | Op::ReduceMax(_))
    }

    /// Bytes of what loops keep of its weights, its second operand. `images` are of what comes out and of the input.
    #[cfg(foolproof_simd)]
    pub(crate) fn kept_bytes(
        &self,
        w: &Operand,
        images: [&Shape; 2],
        goes_back: bool,
        keeps_ties: bool,
    ) -> usize {
        let (outputs, inputs) = (w.shape.dim(0), w.shape.dim(3));
        let (forward, backward, stride) = match self {
            Op::Conv2d(conv) => ([inputs, outputs], [outputs, inputs], conv.stride),
            Op::ConvTranspose2d(conv) => ([inputs, outputs], [outputs, inputs], conv.stride),
            // each channel alone
            Op::DepthwiseConv2d(conv) => ([1, inputs], [1, inputs], conv.stride),
            Op::Dense(_) if w.dtype == DType::I8 => {
                return kept::dense_bytes(w.shape.len(), outputs);
            }
            _ => return 0,
        };
        let sizes = kept::Sizes {
            kernel: [w.shape.dim(1), w.shape.dim(2)],
            weight: w.dtype.size(),
            forward,
            backward: goes_back.then_some(backward),
            images: images.map(|shape| [shape.dim(1), shape.dim(2)]),
            keeps_ties,
            // phases without a cell of the window have nothing in order
            phases: usize::from(stride[0]).min(w.shape.dim(1))
                * usize::from(stride[1]).min(w.shape.dim(2)),
        };
        sizes.bytes()
    }

    /// The operator as a layer's loops, all but its input; `operands` with the elements of constants. None where it is no such layer.
    #[cfg(foolproof_simd)]
    pub(crate) fn layer<'a>(
        &self,
        cx: &Context,
        operands: &[Operand<'a>],
        output: &Operand,
    ) -> Option<Layer<'a>> {
        match self {
            Op::Conv2d(conv) => Convolution::from(conv).layer(cx, operands, output),
            Op::DepthwiseConv2d(conv) => Convolution::from(conv).layer(cx, operands, output),
            Op::Dense(dense) => dense.layer(cx, operands, output),
            _ => None,
        }
    }

    /// The operator's name, in lower case.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Conv2d(_) => "conv2d",
            Op::DepthwiseConv2d(_) => "depthwise_conv2d",
            Op::ConvTranspose2d(_) => "conv_transpose2d",
            Op::Dense(_) => "dense",
            Op::Add(_) => "add",
            Op::Mul(_) => "mul",
            Op::AvgPool2d(_) => "avg_pool2d",
            Op::MaxPool2d(_) => "max_pool2d",
            Op::Pad(_) => "pad",
            Op::Reshape => "reshape",
            Op::Concat(_) => "concat",
            Op::Softmax(_) => "softmax",
            Op::Unary(Unary::Relu) => "relu",
            Op::Unary(Unary::Relu6) => "relu6",
            Op::Unary(Unary::LeakyRelu { .. }) => "leaky_relu",
            Op::Unary(Unary::Tanh) => "tanh",
            Op::Unary(Unary::Sigmoid) => "sigmoid",
            Op::Unary(Unary::Requantize) => "requantize",
            Op::Unary(Unary::Clip { .. }) => "clip",
            Op::Unary(Unary::Elu { .. }) => "elu",
            Op::Unary(Unary::Abs) => "abs",
            Op::Unary(Unary::Exp) => "exp",
            Op::Unary(Unary::Log) => "log",
            Op::Unary(Unary::Sqrt) => "sqrt",
            Op::Unary(Unary::Reciprocal) => "reciprocal",
            Op::Unary(Unary::Softplus) => "softplus",
            Op::Unary(Unary::Erf) => "erf",
            Op::BatchNorm(_) => "batch_norm",
            Op::Quantize => "quantize",
            Op::Dequantize => "dequantize",
            Op::LogSoftmax(_) => "log_softmax",
            Op::ReduceMax(_) => "reduce_max",
            Op::Transpose(_) => "transpose",
            Op::Slice(_) => "slice",
            Op::Lstm(_) => "lstm",
            Op::Svdf(_) => "svdf",
            Op::Remember => "remember",
            Op::Recall => "recall",
        }
    }

    /// Checks types, shapes, quantization and attributes, for a model with this arithmetic. Constants bring their data, activations have
    /// [`Data::Absent`](crate::tensor::Data::Absent); the output has none. After `Ok` no other method can panic, overflow or leave its
    /// slices, whatever the constants hold, as long as it gets operands of these shapes (or of these with the
    /// batch multiplied) and types.
    pub fn check(
        &self,
        numerics: Numerics,
        inputs: &[Operand],
        output: &Operand,
    ) -> Result<(), OpError> {
        if inputs.len() > MAX_INPUTS {
            return check::count(inputs.len(), MAX_INPUTS as u8);
        }
        let mut shapes = [output.shape; MAX_INPUTS];
        for (i, (input, shape)) in inputs.iter().zip(&mut shapes).enumerate() {
            check::operand(input, i as u8)?;
            *shape = input.shape;
        }
        check::operand(output, check::OUTPUT)?;
        match self {
            Op::Conv2d(conv) if CONV => Convolution::from(conv).check(numerics, inputs, output)?,
            Op::DepthwiseConv2d(conv) if DEPTHWISE => {
                Convolution::from(conv).check(numerics, inputs, output)?
            }
            Op::ConvTranspose2d(conv) if CONV_TRANSPOSE => conv.check(numerics, inputs, output)?,
            Op::Dense(dense) if DENSE => dense.check(numerics, inputs, output)?,
            Op::Add(add) if ADD => add.check(numerics, inputs, output)?,
            Op::Mul(mul) if MUL => mul.check(numerics, inputs, output)?,
            Op::AvgPool2d(pool) if AVG_POOL => pool.check(false, inputs, output)?,
            Op::MaxPool2d(pool) if MAX_POOL => pool.check(true, inputs, output)?,
            Op::Pad(pad) if PAD => pad.check(inputs, output)?,
            Op::Reshape if RESHAPE => return layout::check_reshape(inputs, output),
            Op::Concat(concat) if CONCAT => concat.check(inputs, output)?,
            Op::Softmax(softmax) if SOFTMAX => softmax.check(inputs, output)?,
            Op::Unary(unary) if UNARY => unary.check(inputs, output)?,
            Op::BatchNorm(norm) if BATCH_NORM => norm.check(inputs, output)?,
            Op::Quantize if QUANTIZE => quantize::check(DType::F32, DType::I8, inputs, output)?,
            Op::Dequantize if DEQUANTIZE => quantize::check(DType::I8, DType::F32, inputs, output)?,
            Op::LogSoftmax(softmax) if LOG_SOFTMAX => softmax.check(inputs, output)?,
            Op::ReduceMax(reduce) if REDUCE_MAX => reduce.check(inputs, output)?,
            Op::Transpose(_) if TRANSPOSE => shuffle::check(inputs, output)?,
            Op::Slice(_) if SLICE => shuffle::check(inputs, output)?,
            Op::Lstm(lstm) if LSTM => lstm.check(inputs, output)?,
            Op::Svdf(svdf) if SVDF => svdf.check(inputs, output)?,
            Op::Remember if STATE => return state::check_remember(inputs, output),
            Op::Recall if STATE => return state::check_recall(inputs, output),
            _ => return Err(OpError::NotLinked),
        }
        if self.output_shape(&shapes[..inputs.len()])? != output.shape {
            return Err(OpError::Shape {
                operand: check::OUTPUT,
            });
        }
        Ok(())
    }

    /// The output's shape, from the inputs' (all operands, constants included). [`Op::Reshape`] fits any shape with as many elements: its rule gives the input's.
    pub fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, OpError> {
        match self {
            Op::Conv2d(conv) if CONV => Convolution::from(conv).output_shape(inputs),
            Op::DepthwiseConv2d(conv) if DEPTHWISE => Convolution::from(conv).output_shape(inputs),
            Op::ConvTranspose2d(conv) if CONV_TRANSPOSE => conv.output_shape(inputs),
            Op::Dense(dense) if DENSE => dense.output_shape(inputs),
            Op::Add(_) | Op::Mul(_) if ADD || MUL => arithmetic::output_shape(inputs),
            Op::AvgPool2d(pool) | Op::MaxPool2d(pool) if AVG_POOL || MAX_POOL => {
                pool.output_shape(inputs)
            }
            Op::Pad(pad) if PAD => pad.output_shape(inputs),
            Op::Concat(concat) if CONCAT => concat.output_shape(inputs),
            Op::Softmax(_) | Op::Unary(_) | Op::BatchNorm(_) => check::shape(inputs, 0),
            Op::LogSoftmax(_) | Op::Remember | Op::Recall => check::shape(inputs, 0),
            Op::ReduceMax(reduce) if REDUCE_MAX => reduce.output_shape(inputs),
            Op::Transpose(transpose) if TRANSPOSE => transpose.output_shape(inputs),
            Op::Slice(slice) if SLICE => slice.output_shape(inputs),
            Op::Lstm(_) if LSTM => lstm::output_shape(inputs),
            Op::Svdf(svdf) if SVDF => svdf.output_shape(inputs),
            Op::Reshape | Op::Quantize | Op::Dequantize => check::shape(inputs, 0),
            _ => Err(OpError::NotLinked),
        }
    }

    /// What backward will need, for an input 0 of type `dtype`; with `training`, the gradients of the parameters are
    /// wanted too. [`Op::Mul`] names both inputs: input `i` is needed for the gradient of the *other* one only.
    pub fn needs(&self, dtype: DType, training: bool) -> Needs {
        let int8 = dtype == DType::I8;
        let fused = |activation: Activation| {
            if int8 || activation != Activation::None {
                Saved::Bits
            } else {
                Saved::Nothing
            }
        };
        let (inputs, output, saved) = match self {
            Op::Conv2d(Conv2d { activation, .. })
            | Op::DepthwiseConv2d(DepthwiseConv2d { activation, .. })
            | Op::ConvTranspose2d(ConvTranspose2d { activation, .. })
            | Op::Dense(Dense { activation }) => (training as u8, false, fused(*activation)),
            Op::Add(add) => (0, false, fused(add.activation)),
            Op::Mul(mul) => (0b11, false, fused(mul.activation)),
            Op::AvgPool2d(pool) if pool.activation == Activation::None => {
                (0, false, Saved::Nothing)
            }
            Op::AvgPool2d(_) => (0, false, Saved::Bits),
            Op::MaxPool2d(_) => (0, false, Saved::Indices),
            Op::Pad(_) | Op::Reshape | Op::Concat(_) | Op::Dequantize => (0, false, Saved::Nothing),
            Op::Softmax(_) => (0, true, Saved::Nothing),
            Op::Unary(_) if int8 => (1, false, Saved::Nothing),
            Op::Unary(Unary::Relu | Unary::Relu6 | Unary::LeakyRelu { .. }) => {
                (0, false, Saved::Bits)
            }
            Op::Unary(Unary::Tanh | Unary::Sigmoid) => (0, true, Saved::Nothing),
            Op::Unary(Unary::Requantize) => (0, false, Saved::Nothing),
            Op::Unary(_) => (1, false, Saved::Nothing),
            Op::BatchNorm(_) if training => (1, false, Saved::Statistics),
            Op::BatchNorm(_) => (0, false, Saved::Nothing),
            Op::Quantize => (0, false, Saved::Bits),
            Op::LogSoftmax(_) => (0, true, Saved::Nothing),
            Op::ReduceMax(_) => (1, true, Saved::Nothing),
            Op::Transpose(_) | Op::Slice(_) | Op::Remember | Op::Recall => {
                (0, false, Saved::Nothing)
            }
            Op::Lstm(_) => (training as u8, training, lstm::note(int8)),
            Op::Svdf(svdf) => (training as u8, false, fused(svdf.activation)),
        };
        Needs {
            inputs,
            output,
            saved,
        }
    }

    /// The fused activation.
    fn fused(&self) -> Activation {
        match self {
            Op::Conv2d(Conv2d { activation, .. })
            | Op::DepthwiseConv2d(DepthwiseConv2d { activation, .. })
            | Op::ConvTranspose2d(ConvTranspose2d { activation, .. })
            | Op::Dense(Dense { activation })
            | Op::Add(Add { activation, .. })
            | Op::Mul(Mul { activation, .. })
            | Op::AvgPool2d(Pool2d { activation, .. })
            | Op::MaxPool2d(Pool2d { activation, .. })
            | Op::Svdf(Svdf { activation, .. }) => *activation,
            _ => Activation::None,
        }
    }

    /// Which operand it keeps from one run to the next: a tensor of role `State`.
    pub fn state_operand(&self) -> Option<usize> {
        match self {
            Op::Lstm(_) | Op::Svdf(_) | Op::Remember => Some(1),
            Op::Recall => Some(0),
            _ => None,
        }
    }

    /// Whether it changes what it keeps: then [`advance`](Op::advance) runs it, not [`forward`](Op::forward).
    pub fn writes_state(&self) -> bool {
        matches!(self, Op::Lstm(_) | Op::Svdf(_) | Op::Remember)
    }

    /// Whether its backward runs through the steps of a sequence: then [`unrolled_gradient`](Op::unrolled_gradient)
    /// takes the place of [`input_gradient`](Op::input_gradient).
    pub fn unrolls(&self) -> bool {
        matches!(self, Op::Lstm(_))
    }

    /// [`forward`](Op::forward) of an operator that [`writes_state`](Op::writes_state), whose operand among `inputs` has no
    /// elements then: they are in `memory`, to read and to write. Where backward will follow, `memory.saved` is as
    /// long as [`needs`](Op::needs) says.
    pub fn advance(
        &self,
        cx: &Context,
        inputs: &[Operand],
        output: &Operand,
        y: DataMut,
        memory: Memory,
    ) {
        match self {
            Op::Lstm(lstm) if LSTM => lstm.advance(cx, inputs, output, y, memory),
            Op::Svdf(svdf) if SVDF => svdf.advance(cx, inputs, output, y, memory.state),
            Op::Remember if STATE => state::remember(inputs, y, memory.state),
            _ => {}
        }
    }

    /// `gx += (d output / d input 0)^T gy` of an operator that [`unrolls`](Op::unrolls), from the last step to the first. On
    /// the way `gy` becomes the whole gradient of each step's output, and the note in `saved` (f32) that of each gate, for
    /// [`parameter_gradient`](Op::parameter_gradient).
    pub fn unrolled_gradient(
        &self,
        inputs: &[Operand],
        output: &Operand,
        saved: &mut [u8],
        gy: &mut [f32],
        gx: &mut [f32],
    ) {
        if let Op::Lstm(lstm) = self
            && LSTM
        {
            lstm.input_gradient(inputs, output, saved, gy, gx);
        }
    }

    /// Before forward, where [`needs`](Op::needs) asks for [`Saved::Statistics`]: the batch's mean and
    /// 1/sqrt(variance + epsilon) per channel.
    pub fn prepare(&self, cx: &Context, inputs: &[Operand], saved: &mut [u8]) {
        if let (Op::BatchNorm(norm), Some(x), true) = (self, inputs.first(), BATCH_NORM) {
            norm.prepare(cx, x, saved);
        }
    }

    /// Computes the output `y`. `saved` is what [`prepare`](Op::prepare) wrote (batch normalization in training), else empty.
    pub fn forward(
        &self,
        cx: &Context,
        inputs: &[Operand],
        saved: &[u8],
        output: &Operand,
        y: DataMut,
    ) {
        let Some(x) = inputs.first() else { return };
        match self {
            Op::Conv2d(conv) if CONV => Convolution::from(conv).forward(cx, inputs, output, y),
            Op::DepthwiseConv2d(conv) if DEPTHWISE => {
                Convolution::from(conv).forward(cx, inputs, output, y)
            }
            Op::ConvTranspose2d(conv) if CONV_TRANSPOSE => conv.forward(cx, inputs, output, y),
            Op::Dense(dense) if DENSE => dense.forward(cx, inputs, output, y),
            Op::Add(add) if ADD => add.forward(cx, inputs, output, y),
            Op::Mul(mul) if MUL => mul.forward(cx, inputs, output, y),
            Op::AvgPool2d(pool) if AVG_POOL => pool.average(cx, x, output, y),
            Op::MaxPool2d(pool) if MAX_POOL => pool.maximum(cx, x, output, y),
            Op::Pad(pad) if PAD => pad.forward(x, output, y),
            Op::Reshape if RESHAPE => layout::copy(x, y),
            Op::Concat(concat) if CONCAT => concat.forward(inputs, output, y),
            Op::Softmax(softmax) if SOFTMAX => softmax.forward(cx, inputs, y),
            Op::Unary(unary) if UNARY => unary.forward(cx, inputs, y),
            Op::BatchNorm(norm) if BATCH_NORM => {
                if let DataMut::F32(y) = y {
                    norm.forward(cx, inputs, saved, y);
                }
            }
            Op::Quantize if QUANTIZE => {
                if let DataMut::I8(y) = y {
                    quantize::quantize(cx.numerics, &output.quant, x.f32(), y);
                }
            }
            Op::Dequantize if DEQUANTIZE => {
                if let DataMut::F32(y) = y {
                    quantize::dequantize(&x.quant, x.i8(), y);
                }
            }
            Op::LogSoftmax(softmax) if LOG_SOFTMAX => softmax.forward(cx, x, y),
            Op::ReduceMax(reduce) if REDUCE_MAX => reduce.forward(x, y),
            Op::Transpose(transpose) if TRANSPOSE => transpose.forward(x, output, y),
            Op::Slice(slice) if SLICE => slice.forward(x, y),
            Op::Recall if STATE => layout::copy(x, y),
            // those that advance, and what is not linked
            _ => {}
        }
    }

    /// After forward, where [`needs`](Op::needs) asks for [`Saved::Bits`] or [`Saved::Indices`]: writes the note. Here `output` has its data, and so have the inputs of a max pool.
    pub fn save(&self, cx: &Context, inputs: &[Operand], output: &Operand, saved: &mut [u8]) {
        match self {
            Op::MaxPool2d(pool) if MAX_POOL => {
                if let Some(x) = inputs.first() {
                    pool.save(cx, x, output, saved);
                }
            }
            Op::Unary(unary) if UNARY => unary.save(cx, output, saved),
            _ => activation::save_bits(cx, self.fused(), output, saved),
        }
    }

    /// The first half of backward, in place on the output's gradient: the part through the fused or elementwise
    /// nonlinearity. Runs once, before [`input_gradient`](Op::input_gradient) and [`parameter_gradient`](Op::parameter_gradient).
    pub fn activation_gradient(&self, cx: &Context, seen: &Seen, gy: &mut [f32]) {
        match self {
            Op::MaxPool2d(pool) if MAX_POOL => pool.maximum_activation_gradient(seen.saved, gy),
            Op::Unary(unary) if UNARY => unary.activation_gradient(cx, seen, gy),
            Op::BatchNorm(_) | Op::Lstm(_) => {}
            // No note: nothing clamps.
            _ => activation::mask(cx, seen.saved, 0.0, gy),
        }
    }

    /// [`input_gradient`](Op::input_gradient) into a buffer that was not cleared: `gx` becomes what would have been added. False where
    /// the operator, or these kernels, can only add; then nothing is done.
    pub fn set_input_gradient(
        &self,
        cx: &Context,
        seen: &Seen,
        gy: &[f32],
        gx: &mut [f32],
    ) -> bool {
        if !cx.kernels.set_gradients() {
            return false;
        }
        match self {
            Op::Conv2d(conv) if CONV => {
                Convolution::from(conv).set_input_gradient(cx, seen.inputs, seen.output, gy, gx)
            }
            Op::Dense(dense) if DENSE => dense.set_input_gradient(cx, seen.inputs, gy, gx),
            Op::Add(add) if ADD => add.set_input_gradient(gy, gx),
            Op::MaxPool2d(pool) if MAX_POOL => pool.set_maximum_gradient(cx, seen, gy, gx),
            _ => false,
        }
    }

    /// `gx += (d output / d input which)^T gy`, after [`activation_gradient`](Op::activation_gradient). For int8
    /// straight through the rounding, with dequantized weights and in real units: the gradient with respect to the dequantized input.
    pub fn input_gradient(
        &self,
        cx: &Context,
        which: usize,
        seen: &Seen,
        gy: &[f32],
        gx: &mut [f32],
    ) {
        let Seen {
            inputs,
            output,
            saved,
        } = *seen;
        let Some(x) = inputs.first() else { return };
        match self {
            Op::Conv2d(conv) if CONV => {
                Convolution::from(conv).input_gradient(cx, inputs, output, gy, gx)
            }
            Op::DepthwiseConv2d(conv) if DEPTHWISE => {
                Convolution::from(conv).input_gradient(cx, inputs, output, gy, gx)
            }
            Op::ConvTranspose2d(conv) if CONV_TRANSPOSE => {
                conv.input_gradient(cx, inputs, output, gy, gx)
            }
            Op::Dense(dense) if DENSE => dense.input_gradient(cx, inputs, gy, gx),
            Op::Add(add) if ADD => add.input_gradient(which, inputs, output, gy, gx),
            Op::Mul(mul) if MUL => mul.input_gradient(which, inputs, output, gy, gx),
            Op::AvgPool2d(pool) if AVG_POOL => pool.average_gradient(x, output, gy, gx),
            Op::MaxPool2d(pool) if MAX_POOL => pool.maximum_gradient(cx, seen, gy, gx),
            Op::Pad(pad) if PAD => pad.input_gradient(&x.shape, &output.shape, gy, gx),
            Op::Concat(concat) if CONCAT => concat.input_gradient(which, inputs, output, gy, gx),
            Op::Softmax(softmax) if SOFTMAX => softmax.input_gradient(output, gy, gx),
            Op::BatchNorm(norm) if BATCH_NORM => norm.input_gradient(cx, inputs, saved, gy, gx),
            Op::Reshape | Op::Unary(_) | Op::Quantize | Op::Dequantize | Op::Remember => {
                activation::accumulate(gx, gy)
            }
            Op::LogSoftmax(_) if LOG_SOFTMAX => log_softmax::input_gradient(output, gy, gx),
            Op::ReduceMax(reduce) if REDUCE_MAX => reduce.input_gradient(x, output, gy, gx),
            Op::Transpose(transpose) if TRANSPOSE => {
                transpose.input_gradient(&x.shape, &output.shape, gy, gx)
            }
            Op::Slice(slice) if SLICE => slice.input_gradient(&x.shape, gy, gx),
            Op::Svdf(svdf) if SVDF => svdf.input_gradient(inputs, output, gy, gx),
            // through time, to an earlier run, or not linked
            _ => {}
        }
    }

    /// `gw += (d output / d constant which)^T gy` (f32 only): weights, biases, gamma, beta. For a batch
    /// normalization's mean (3) and variance (4) it adds `running - batch`, so that `running -= momentum * g` is the usual running average
    /// (variance: the unbiased one, as PyTorch's).
    pub fn parameter_gradient(
        &self,
        cx: &Context,
        which: usize,
        seen: &Seen,
        gy: &[f32],
        gw: &mut [f32],
    ) {
        let Seen {
            inputs,
            output,
            saved,
        } = *seen;
        match self {
            Op::Conv2d(conv) => {
                Convolution::from(conv).parameter_gradient(cx, which, inputs, output, gy, gw)
            }
            Op::DepthwiseConv2d(conv) => {
                Convolution::from(conv).parameter_gradient(cx, which, inputs, output, gy, gw)
            }
            Op::ConvTranspose2d(conv) => conv.parameter_gradient(cx, which, inputs, output, gy, gw),
            Op::Dense(dense) => dense.parameter_gradient(cx, which, inputs, gy, gw),
            Op::BatchNorm(norm) => norm.parameter_gradient(cx, which, inputs, saved, gy, gw),
            // A constant addend or factor is a parameter like any other.
            Op::Add(add) => add.input_gradient(which, inputs, output, gy, gw),
            Op::Mul(mul) => mul.input_gradient(which, inputs, output, gy, gw),
            Op::Lstm(_) => lstm::parameter_gradient(which, inputs, output, saved, gw),
            Op::Svdf(svdf) => svdf.parameter_gradient(which, inputs, output, gy, gw),
            _ => {}
        }
    }

    /// [`parameter_gradient`](Op::parameter_gradient) into a buffer that was not cleared: `gw` becomes what would have been added to zeros, to
    /// the bit. False where the operator, or these kernels, can only add; then nothing is done.
    pub fn set_parameter_gradient(
        &self,
        cx: &Context,
        which: usize,
        seen: &Seen,
        gy: &[f32],
        gw: &mut [f32],
    ) -> bool {
        match self {
            Op::Dense(dense) if cx.kernels.set_gradients() && which == 1 => {
                dense.set_weight_gradient(cx, seen.inputs, gy, gw)
            }
            _ => false,
        }
    }

    /// Multiply-accumulate operations of convolutions, dense and recurrent layers, padding cells included; 0 for the rest.
    pub fn macs(&self, inputs: &[Shape], output: &Shape) -> u64 {
        let weights = inputs.get(1);
        let per_output = match (self, weights) {
            (Op::Conv2d(_), Some(w)) => w.dim(1) * w.dim(2) * w.dim(3),
            (Op::DepthwiseConv2d(_), Some(w)) => w.dim(1) * w.dim(2),
            (Op::ConvTranspose2d(_), Some(w)) => {
                // every input cell meets every window
                let x = inputs.first().map_or(0, |x| x.len()) as u64;
                let groups = inputs.first().map_or(1, |x| x.channels() / w.dim(3).max(1));
                let filters = w.dim(0) / groups.max(1);
                return x
                    .saturating_mul((w.dim(1) * w.dim(2)) as u64)
                    .saturating_mul(filters as u64);
            }
            (Op::Dense(_), Some(w)) => w.dim(1),
            (Op::Lstm(_), Some(state)) => {
                let inputs = inputs.first().map_or(0, |x| x.channels());
                4 * (inputs + state.channels() / 2)
            }
            (Op::Svdf(svdf), Some(state)) => {
                let x = inputs.first().map_or(0, |x| x.channels());
                let filters = inputs.get(2).map_or(0, |w| w.dim(0));
                let memory = state.channels() / filters.max(1);
                usize::from(svdf.rank) * (x + memory)
            }
            _ => 0,
        };
        output.len() as u64 * per_output as u64
    }
}
