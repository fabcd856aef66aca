//! Building f32 networks by hand, layer after layer, with fresh weights.

use super::{Graph, Node, Quant, Tensor, TensorData, TensorId};
use foolproof::attack::AttackRng;
use foolproof::model::format::TensorRole;
use foolproof::ops::{
    Activation, Add, BatchNorm, Concat, Conv2d, ConvTranspose2d, Dense, DepthwiseConv2d, Lstm, Mul,
    Multiplier, Numerics, Op, OpError, Pad, Padding, Pool2d, Softmax, Unary,
};
use foolproof::tensor::{DType, Shape};
use rand_core::Rng;

/// Builds a graph. Layers take and give tensors; weights are drawn from the builder's generator (He et al. 2015:
/// uniform in `±sqrt(6 / fan_in)`), biases are zero.
#[derive(Debug)]
pub struct Builder {
    graph: Graph,
    rng: AttackRng,
}

/// A convolution's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Rows, columns.
    pub kernel: [u16; 2],
    /// Rows, columns.
    pub stride: [u16; 2],
    /// Rows, columns.
    pub dilation: [u16; 2],
    /// Zeros around the input so that the output has `ceil(input / stride)` cells; else none.
    pub same: bool,
}

impl Window {
    /// A square window with stride 1 and padding `same`.
    pub fn same(kernel: u16) -> Window {
        Window {
            kernel: [kernel; 2],
            stride: [1; 2],
            dilation: [1; 2],
            same: true,
        }
    }

    /// The same window with this stride in both directions.
    pub fn stride(self, stride: u16) -> Window {
        Window {
            stride: [stride; 2],
            ..self
        }
    }

    fn padding(&self, x: &Shape) -> Padding {
        let same = |axis: usize| match self.same {
            true => Padding::same(
                x.dim(axis + 1) as u32,
                u32::from(self.kernel[axis]),
                u32::from(self.stride[axis]),
                u32::from(self.dilation[axis]),
            ),
            false => (0, 0),
        };
        let ((top, bottom), (left, right)) = (same(0), same(1));
        Padding {
            top: top as u16,
            left: left as u16,
            bottom: bottom as u16,
            right: right as u16,
        }
    }
}

impl Builder {
    /// A graph with an input of this shape for one sample (without the batch), with elements in `input_range`.
    ///
    /// # Errors
    /// The shape is not one that a tensor can have.
    pub fn new(input: &[u32], input_range: (f32, f32), seed: u64) -> Result<Builder, OpError> {
        let mut dims = vec![1];
        dims.extend_from_slice(input);
        let shape = Shape::new(&dims).ok_or(OpError::Shape { operand: 0 })?;
        let mut builder = Builder {
            graph: Graph {
                tensors: Vec::new(),
                nodes: Vec::new(),
                input: 0,
                output: 0,
                numerics: Numerics::Tflm,
                input_range,
                anomaly_above: None,
                labels: Vec::new(),
            },
            rng: foolproof::attack::rng(seed, u64::MAX),
        };
        builder.activation("input".to_string(), shape);
        Ok(builder)
    }

    /// The input.
    pub fn input(&self) -> TensorId {
        self.graph.input
    }

    /// A tensor's shape.
    pub fn shape(&self, t: TensorId) -> Shape {
        self.graph.tensors[t].shape
    }

    /// The graph that answers with `output`.
    pub fn finish(mut self, output: TensorId) -> Graph {
        self.graph.output = output;
        self.graph
    }

    fn activation(&mut self, name: String, shape: Shape) -> TensorId {
        self.graph.add(Tensor {
            name,
            shape,
            role: TensorRole::Activation,
            quant: Quant::default(),
            data: TensorData::Runtime(DType::F32),
        })
    }

    /// A trainable tensor.
    ///
    /// # Errors
    /// The shape is not one that a tensor can have, or the data does not fill it.
    pub fn parameter(&mut self, dims: &[u32], data: Vec<f32>) -> Result<TensorId, OpError> {
        self.constant(TensorRole::Parameter, dims, data)
    }

    /// A number that is not trained, to be broadcast.
    ///
    /// # Errors
    /// Never.
    pub fn scalar(&mut self, value: f32) -> Result<TensorId, OpError> {
        self.constant(TensorRole::Constant, &[1], vec![value])
    }

    /// A tensor that lives from one run to the next, with its first value.
    ///
    /// # Errors
    /// As [`Builder::parameter`].
    pub fn state(&mut self, dims: &[u32], data: Vec<f32>) -> Result<TensorId, OpError> {
        self.constant(TensorRole::State, dims, data)
    }

    /// Long short-term memory with `units` outputs at each step of a sequence `[1, steps, inputs]`.
    ///
    /// # Errors
    /// The input is not a sequence.
    pub fn lstm(&mut self, x: TensorId, units: u32) -> Result<TensorId, OpError> {
        let inputs = self.shape(x).channels() as u32;
        let fan_in = (inputs + units) as usize;
        let state = self.state(&[1, 2 * units], vec![0.0; 2 * units as usize])?;
        let w = self.weights(&[4 * units, inputs], fan_in)?;
        let recurrent = self.weights(&[4 * units, units], fan_in)?;
        let bias = self.parameter(&[4 * units], vec![0.0; 4 * units as usize])?;
        let zero = Multiplier::default();
        let lstm = Lstm {
            clip: 0.0,
            cell_power: 0,
            clip_steps: 0,
            forget: zero,
            input: zero,
            output: zero,
        };
        self.op(Op::Lstm(lstm), vec![x, state, w, recurrent, bias])
    }

    fn constant(
        &mut self,
        role: TensorRole,
        dims: &[u32],
        data: Vec<f32>,
    ) -> Result<TensorId, OpError> {
        let shape = Shape::new(dims).filter(|s| s.len() == data.len());
        let shape = shape.ok_or(OpError::Shape { operand: 1 })?;
        let name = format!("{}.{}", self.graph.nodes.len(), self.graph.tensors.len());
        Ok(self.graph.add(Tensor {
            name,
            shape,
            role,
            quant: Quant::default(),
            data: TensorData::F32(data),
        }))
    }

    /// Weights for a layer with this many inputs per output.
    fn weights(&mut self, dims: &[u32], fan_in: usize) -> Result<TensorId, OpError> {
        let limit = (6.0 / fan_in.max(1) as f32).sqrt();
        let count = dims.iter().map(|&d| d as usize).product();
        let data = (0..count)
            .map(|_| {
                let unit = (self.rng.next_u32() >> 8) as f32 / 16_777_216.0;
                limit * (2.0 * unit - 1.0)
            })
            .collect();
        self.parameter(dims, data)
    }

    /// Any operator on tensors that are there.
    ///
    /// # Errors
    /// The operator does not take these shapes.
    pub fn op(&mut self, op: Op, inputs: Vec<TensorId>) -> Result<TensorId, OpError> {
        let shapes: Vec<Shape> = inputs.iter().map(|&t| self.shape(t)).collect();
        let shape = op.output_shape(&shapes)?;
        Ok(self.node(op, inputs, shape))
    }

    fn node(&mut self, op: Op, inputs: Vec<TensorId>, shape: Shape) -> TensorId {
        let name = format!("{}.{}", self.graph.nodes.len(), op.name());
        let output = self.activation(name, shape);
        self.graph.nodes.push(Node { op, inputs, output });
        output
    }

    /// A convolution with `filters` output channels.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn conv2d(
        &mut self,
        x: TensorId,
        filters: u32,
        window: Window,
        activation: Activation,
    ) -> Result<TensorId, OpError> {
        let shape = self.shape(x);
        let [kh, kw] = window.kernel.map(u32::from);
        let c = shape.channels() as u32;
        let w = self.weights(&[filters, kh, kw, c], (kh * kw * c) as usize)?;
        let b = self.parameter(&[filters], vec![0.0; filters as usize])?;
        let op = Op::Conv2d(Conv2d {
            stride: window.stride,
            dilation: window.dilation,
            padding: window.padding(&shape),
            activation,
        });
        self.op(op, vec![x, w, b])
    }

    /// A transposed convolution with `filters` output channels. With `same` in the window, the output has `stride` times as many
    /// rows and columns as the input; else every window is whole.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn conv_transpose2d(
        &mut self,
        x: TensorId,
        filters: u32,
        window: Window,
        activation: Activation,
    ) -> Result<TensorId, OpError> {
        let shape = self.shape(x);
        let [kh, kw] = window.kernel.map(u32::from);
        let c = shape.channels() as u32;
        // so many inputs add up at one output
        let met = |axis: usize| u32::from(window.kernel[axis].div_ceil(window.stride[axis].max(1)));
        let fan_in = met(0) * met(1) * c;
        let w = self.weights(&[filters, kh, kw, c], fan_in as usize)?;
        let b = self.parameter(&[filters], vec![0.0; filters as usize])?;
        let along = |axis: usize| -> Result<(u16, u16, u16), OpError> {
            let reach =
                (u32::from(window.kernel[axis]).max(1) - 1) * u32::from(window.dilation[axis]) + 1;
            let stride = u32::from(window.stride[axis]);
            if !window.same {
                return Ok((0, 0, 0));
            }
            // the output is `stride` per input: cut off what is more, add what is missing
            let more = reach.saturating_sub(stride);
            let narrow = |v: u32| u16::try_from(v).map_err(|_| OpError::Attribute);
            Ok((
                narrow(more / 2)?,
                narrow(more - more / 2)?,
                narrow(stride.saturating_sub(reach))?,
            ))
        };
        let ((top, bottom, below), (left, right, beside)) = (along(0)?, along(1)?);
        let op = Op::ConvTranspose2d(ConvTranspose2d {
            stride: window.stride,
            dilation: window.dilation,
            padding: Padding {
                top,
                left,
                bottom,
                right,
            },
            extra: [below, beside],
            activation,
        });
        self.op(op, vec![x, w, b])
    }

    /// A depthwise convolution with `multiplier` output channels for each input channel.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn depthwise_conv2d(
        &mut self,
        x: TensorId,
        multiplier: u32,
        window: Window,
        activation: Activation,
    ) -> Result<TensorId, OpError> {
        let shape = self.shape(x);
        let [kh, kw] = window.kernel.map(u32::from);
        let channels = shape.channels() as u32 * multiplier;
        let w = self.weights(&[1, kh, kw, channels], (kh * kw) as usize)?;
        let b = self.parameter(&[channels], vec![0.0; channels as usize])?;
        let op = Op::DepthwiseConv2d(DepthwiseConv2d {
            stride: window.stride,
            dilation: window.dilation,
            padding: window.padding(&shape),
            activation,
        });
        self.op(op, vec![x, w, b])
    }

    /// A fully connected layer with `units` outputs; the input is flattened.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn dense(
        &mut self,
        x: TensorId,
        units: u32,
        activation: Activation,
    ) -> Result<TensorId, OpError> {
        let inputs = self.shape(x).len();
        let w = self.weights(&[units, inputs as u32], inputs)?;
        let b = self.parameter(&[units], vec![0.0; units as usize])?;
        self.op(Op::Dense(Dense { activation }), vec![x, w, b])
    }

    /// Elementwise sum.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn add(
        &mut self,
        a: TensorId,
        b: TensorId,
        activation: Activation,
    ) -> Result<TensorId, OpError> {
        self.op(Op::Add(Add::float(activation)), vec![a, b])
    }

    /// Elementwise product.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn mul(
        &mut self,
        a: TensorId,
        b: TensorId,
        activation: Activation,
    ) -> Result<TensorId, OpError> {
        self.op(Op::Mul(Mul::float(activation)), vec![a, b])
    }

    /// The largest cell of each window.
    ///
    /// # Errors
    /// The window does not fit.
    pub fn max_pool2d(&mut self, x: TensorId, window: Window) -> Result<TensorId, OpError> {
        let pool = self.pool(x, window);
        self.op(Op::MaxPool2d(pool), vec![x])
    }

    /// The mean of each window.
    ///
    /// # Errors
    /// The window does not fit.
    pub fn avg_pool2d(&mut self, x: TensorId, window: Window) -> Result<TensorId, OpError> {
        let pool = self.pool(x, window);
        self.op(Op::AvgPool2d(pool), vec![x])
    }

    /// The mean over all rows and columns: `[1, 1, 1, C]`.
    ///
    /// # Errors
    /// The input is not an image.
    pub fn global_avg_pool2d(&mut self, x: TensorId) -> Result<TensorId, OpError> {
        let shape = self.shape(x);
        let whole = Window {
            kernel: [shape.dim(1) as u16, shape.dim(2) as u16],
            ..Window::same(1)
        };
        self.avg_pool2d(
            x,
            Window {
                same: false,
                ..whole
            },
        )
    }

    fn pool(&self, x: TensorId, window: Window) -> Pool2d {
        Pool2d {
            window: window.kernel,
            stride: window.stride,
            padding: window.padding(&self.shape(x)),
            activation: Activation::None,
        }
    }

    /// Zeros around a tensor, `(before, after)` for each axis, batch first.
    ///
    /// # Errors
    /// More axes than the tensor has.
    pub fn pad(&mut self, x: TensorId, amounts: &[(u16, u16)]) -> Result<TensorId, OpError> {
        let mut pad = Pad {
            before: [0; 6],
            after: [0; 6],
        };
        for (i, &(before, after)) in amounts.iter().enumerate() {
            let (Some(b), Some(a)) = (pad.before.get_mut(i), pad.after.get_mut(i)) else {
                return Err(OpError::Attribute);
            };
            (*b, *a) = (before, after);
        }
        self.op(Op::Pad(pad), vec![x])
    }

    /// The same elements in another shape (batch included).
    ///
    /// # Errors
    /// Another number of elements.
    pub fn reshape(&mut self, x: TensorId, dims: &[u32]) -> Result<TensorId, OpError> {
        let shape = Shape::new(dims).filter(|s| s.len() == self.shape(x).len());
        let shape = shape.ok_or(OpError::Shape { operand: 255 })?;
        Ok(self.node(Op::Reshape, vec![x], shape))
    }

    /// Tensors joined along an axis (batch is axis 0).
    ///
    /// # Errors
    /// The other axes differ.
    pub fn concat(&mut self, inputs: Vec<TensorId>, axis: u8) -> Result<TensorId, OpError> {
        self.op(Op::Concat(Concat { axis }), inputs)
    }

    /// Softmax over the last axis.
    ///
    /// # Errors
    /// Never for a tensor with elements.
    pub fn softmax(&mut self, x: TensorId) -> Result<TensorId, OpError> {
        let softmax = Softmax {
            beta: 1.0,
            input: foolproof::ops::Multiplier::default(),
            diff_min: 0,
        };
        self.op(Op::Softmax(softmax), vec![x])
    }

    /// A function of each element.
    ///
    /// # Errors
    /// Never for a tensor with elements.
    pub fn unary(&mut self, x: TensorId, unary: Unary) -> Result<TensorId, OpError> {
        self.op(Op::Unary(unary), vec![x])
    }

    /// Batch normalization over the last axis: gamma 1, beta 0, running mean 0, running variance 1.
    ///
    /// # Errors
    /// Never for a tensor with elements.
    pub fn batch_norm(&mut self, x: TensorId) -> Result<TensorId, OpError> {
        let c = self.shape(x).channels();
        let dims = [c as u32];
        let gamma = self.parameter(&dims, vec![1.0; c])?;
        let beta = self.parameter(&dims, vec![0.0; c])?;
        let mean = self.constant(TensorRole::Statistic, &dims, vec![0.0; c])?;
        let variance = self.constant(TensorRole::Statistic, &dims, vec![1.0; c])?;
        let op = Op::BatchNorm(BatchNorm { epsilon: 1e-5 });
        self.op(op, vec![x, gamma, beta, mean, variance])
    }
}
