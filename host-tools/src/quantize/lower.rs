//! From an f32 graph and the grids of its activations to an int8 graph.

use super::fold::{channel_axis, channel_of};
use super::grids::{Grids, spanning};
use super::multiplier;
use super::ranges::Range;
use super::tables::{self, Grid};
use super::{Options, QuantizeError, units, unsupported};
use crate::graph::{Graph, Node, Quant, Tensor, TensorData, TensorId};
use foolproof::model::format::TensorRole;
use foolproof::ops::{Multiplier, Op, Unary};
use foolproof::tensor::{DType, Shape};

/// A bias has at most this many steps, so that it leaves room in 32 bits for the products.
pub(super) const BIAS_LIMIT: f64 = (1_u32 << 29) as f64;
/// A weight's step is at least this part of what moves the output by one step: it keeps the factor between the two in range
/// for channels whose weights are all (almost) 0.
const LEAST_FACTOR: f64 = 1.0 / (1_u32 << 28) as f64;

/// Writes the int8 graph.
pub(super) fn lower(
    graph: &Graph,
    grids: &Grids,
    options: &Options,
) -> Result<Graph, QuantizeError> {
    let mut out = graph.clone();
    out.numerics = options.numerics;
    out.nodes.clear();
    for (t, tensor) in out.tensors.iter_mut().enumerate() {
        if tensor.role == TensorRole::Activation {
            tensor.quant = quant(grids.get(t));
            tensor.data = TensorData::Runtime(DType::I8);
        }
    }
    let mut lowering = Lowering {
        graph,
        grids,
        options,
        out,
    };
    for operator in 0..graph.nodes.len() {
        lowering.node(operator)?;
    }
    let mut out = lowering.out;
    out.prune();
    Ok(out)
}

struct Lowering<'a> {
    graph: &'a Graph,
    grids: &'a Grids,
    options: &'a Options,
    out: Graph,
}

impl Lowering<'_> {
    fn node(&mut self, operator: usize) -> Result<(), QuantizeError> {
        let node = &self.graph.nodes[operator];
        let fail = |reason| unsupported(self.graph, operator, reason);
        const TOO_FAR: &str = "the scales of its operands are too far apart for 32-bit fixed point";
        let takes_constants = matches!(node.op, Op::Add(_) | Op::Mul(_) | Op::Concat(_));
        if !takes_constants && !self.is_activation(node.inputs[0]) {
            return Err(fail("its first operand is a constant"));
        }
        let y = self.grids.get(node.output);
        let mut node = node.clone();
        match &mut node.op {
            Op::Conv2d(_) | Op::ConvTranspose2d(_) | Op::DepthwiseConv2d(_) | Op::Dense(_) => {
                node.inputs = self.layer(&node).ok_or_else(|| fail(TOO_FAR))?;
            }
            Op::Add(add) => {
                let (inputs, scales) = self.operands(&node.inputs);
                let scales = [scales[0], scales[1], y.scale];
                *add = multiplier::add(self.options.numerics, add.activation, scales)
                    .ok_or_else(|| fail(TOO_FAR))?;
                node.inputs = inputs;
            }
            Op::Mul(mul) => {
                let (inputs, scales) = self.operands(&node.inputs);
                mul.output = multiplier::mul(self.options.numerics, scales[0], scales[1], y.scale)
                    .ok_or_else(|| fail(TOO_FAR))?;
                node.inputs = inputs;
            }
            Op::Concat(_) => {
                for t in &mut node.inputs {
                    *t = self.on_grid(*t, y).ok_or_else(|| fail(TOO_FAR))?;
                }
            }
            Op::Softmax(softmax) => {
                let x = self.grids.get(node.inputs[0]);
                if softmax.beta <= 0.0 {
                    return Err(fail("beta must be positive"));
                }
                (softmax.input, softmax.diff_min) =
                    multiplier::softmax(softmax.beta, x.scale).ok_or_else(|| fail(TOO_FAR))?;
            }
            Op::Unary(function) => {
                let x = self.grids.get(node.inputs[0]);
                let name = self.graph.tensors[node.output].name.clone();
                let constants = self
                    .table(*function, x, y, &name)
                    .ok_or_else(|| fail(TOO_FAR))?;
                node.inputs.extend(constants);
            }
            Op::AvgPool2d(_) | Op::MaxPool2d(_) | Op::Pad(_) | Op::Reshape | Op::Slice(_) => {}
            _ => return Err(fail("it has no int8 form")),
        }
        self.out.nodes.push(node);
        Ok(())
    }

    fn is_activation(&self, t: TensorId) -> bool {
        self.graph.tensors[t].role == TensorRole::Activation
    }

    /// Activations as they are, constants on a grid of their own; and the scales of both.
    fn operands(&mut self, inputs: &[TensorId]) -> (Vec<TensorId>, Vec<f32>) {
        inputs
            .iter()
            .map(|&t| match self.is_activation(t) {
                true => (t, self.grids.get(t).scale),
                false => {
                    let grid = spanning(Range::of(self.graph.f32(t)));
                    (self.constant_on(t, grid), grid.scale)
                }
            })
            .unzip()
    }

    /// A tensor with this grid: itself, a quantized constant, or its requantization.
    fn on_grid(&mut self, t: TensorId, grid: Grid) -> Option<TensorId> {
        if !self.is_activation(t) {
            return Some(self.constant_on(t, grid));
        }
        let own = self.grids.get(t);
        if own == grid {
            return Some(t);
        }
        let tensor = &self.graph.tensors[t];
        let name = format!("{}.requantized", tensor.name);
        let shape = tensor.shape;
        let constants = self.table(Unary::Requantize, own, grid, &name)?;
        let output = self.out.add(Tensor {
            name,
            shape,
            role: TensorRole::Activation,
            quant: quant(grid),
            data: TensorData::Runtime(DType::I8),
        });
        self.out.nodes.push(Node {
            op: Op::Unary(Unary::Requantize),
            inputs: [t].into_iter().chain(constants).collect(),
            output,
        });
        Some(output)
    }

    fn constant_on(&mut self, t: TensorId, grid: Grid) -> TensorId {
        let values = self.graph.f32(t).iter();
        let values = values.map(|&v| units::quantize(v, grid.scale, grid.zero_point));
        let data = TensorData::I8(values.collect());
        let tensor = &self.graph.tensors[t];
        self.constant(tensor.name.clone(), tensor.shape, quant(grid), data)
    }

    fn constant(&mut self, name: String, shape: Shape, quant: Quant, data: TensorData) -> TensorId {
        self.out.add(Tensor {
            name,
            shape,
            role: TensorRole::Constant,
            quant,
            data,
        })
    }

    /// The table and the slopes of an int8 function.
    fn table(&mut self, function: Unary, x: Grid, y: Grid, name: &str) -> Option<[TensorId; 2]> {
        let table = tables::table(function, x, y, self.options.numerics)?;
        let shape = Shape::new(&[256])?;
        let values = TensorData::I8(table.values);
        let slopes = TensorData::F32(table.slopes);
        Some([
            self.constant(format!("{name}.table"), shape, quant(y), values),
            self.constant(format!("{name}.slope"), shape, Quant::default(), slopes),
        ])
    }

    /// The operands of a convolution or dense layer: input, weights, bias, multipliers, shifts.
    fn layer(&mut self, node: &Node) -> Option<Vec<TensorId>> {
        let [x, w, b] = node.inputs[..] else {
            return None;
        };
        let x_scale = self.grids.get(x).scale;
        let y_scale = self.grids.get(node.output).scale;
        let (weights, bias) = (self.graph.f32(w), self.graph.f32(b));
        let steps = layer_steps(&node.op, weights, bias, [x_scale, y_scale], self.options);
        let per_tensor = steps.per_tensor;
        let LayerSteps {
            scales,
            weights: quantized,
            bias: steps,
            ..
        } = steps;
        let (quantized, steps) = (TensorData::I8(quantized), TensorData::I32(steps));
        let factors: Option<Vec<Multiplier>> = scales
            .iter()
            .map(|&s| match per_tensor {
                true => multiplier::dense_per_tensor(x_scale, s, y_scale),
                false => multiplier::per_channel(x_scale, s, y_scale),
            })
            .collect();
        let factors = factors?;
        let on_scales = |scales: Vec<f32>| match per_tensor {
            true => Quant {
                scale: scales[0],
                ..Quant::default()
            },
            false => Quant {
                channel_scales: scales,
                ..Quant::default()
            },
        };
        let bias_quant = on_scales(scales.iter().map(|s| x_scale * s).collect());
        let weight_quant = on_scales(scales);
        let (w, b) = (&self.graph.tensors[w], &self.graph.tensors[b]);
        let shape = b.shape;
        let mantissas = TensorData::I32(factors.iter().map(|f| f.mantissa).collect());
        let shifts = TensorData::I32(factors.iter().map(|f| f.shift).collect());
        Some(vec![
            x,
            self.constant(w.name.clone(), w.shape, weight_quant, quantized),
            self.constant(b.name.clone(), shape, bias_quant, steps),
            self.constant(
                format!("{}.multiplier", w.name),
                shape,
                Quant::default(),
                mantissas,
            ),
            self.constant(format!("{}.shift", w.name), shape, Quant::default(), shifts),
        ])
    }
}

/// A layer's constants in steps of their grids.
pub(super) struct LayerSteps {
    /// Real units per step of the weights, by output channel.
    pub scales: Vec<f32>,
    /// Whether they are all the same, by choice.
    pub per_tensor: bool,
    /// By weight, its channel.
    channels: Vec<usize>,
    pub weights: Vec<i8>,
    /// In steps of `x_scale` times the channel's scale.
    pub bias: Vec<i32>,
}

impl LayerSteps {
    /// Weights and bias in real units.
    pub fn real(&self, x_scale: f32) -> [Vec<f32>; 2] {
        let weights = self.weights.iter().zip(&self.channels);
        let bias = self.bias.iter().zip(&self.scales);
        [
            weights
                .map(|(&q, &c)| self.scales[c] * f32::from(q))
                .collect(),
            bias.map(|(&q, &s)| (f64::from(x_scale) * f64::from(s) * f64::from(q)) as f32)
                .collect(),
        ]
    }
}

/// The constants of a convolution or dense layer between activations of these scales (input, output).
pub(super) fn layer_steps(
    op: &Op,
    weights: &[f32],
    bias: &[f32],
    [x_scale, y_scale]: [f32; 2],
    options: &Options,
) -> LayerSteps {
    let axis = channel_axis(op).unwrap_or(0);
    let channels: Vec<usize> = (0..weights.len())
        .map(|i| channel_of(i, axis, weights.len(), bias.len()))
        .collect();
    let per_tensor = options.per_tensor_dense && matches!(op, Op::Dense(_));
    let mut scales = weight_scales(weights, bias, &channels, x_scale, y_scale);
    if per_tensor {
        let largest = scales.iter().copied().fold(0.0, f32::max);
        scales.fill(largest);
    }
    let quantized = weights.iter().zip(&channels).map(|(&v, &c)| {
        let steps = f64::from(v) / f64::from(scales[c]);
        steps.round().clamp(-127.0, 127.0) as i8
    });
    let quantized = quantized.collect();
    let steps = bias.iter().zip(&scales).map(|(&v, &s)| {
        let steps = f64::from(v) / (f64::from(x_scale) * f64::from(s));
        steps.round().clamp(-BIAS_LIMIT, BIAS_LIMIT) as i32
    });
    let bias = steps.collect();
    LayerSteps {
        scales,
        per_tensor,
        channels,
        weights: quantized,
        bias,
    }
}

/// Per channel, 127 steps for the largest weight; more where the bias would not fit or the channel is (almost) 0.
fn weight_scales(
    weights: &[f32],
    bias: &[f32],
    channels: &[usize],
    x_scale: f32,
    y_scale: f32,
) -> Vec<f32> {
    let mut largest = vec![0_f32; bias.len()];
    for (&v, &c) in weights.iter().zip(channels) {
        largest[c] = largest[c].max(v.abs());
    }
    let (x_scale, y_scale) = (f64::from(x_scale), f64::from(y_scale));
    largest
        .iter()
        .zip(bias)
        .map(|(&largest, &bias)| {
            let for_weights = f64::from(largest) / 127.0;
            let for_bias = f64::from(bias.abs()) / (x_scale * BIAS_LIMIT);
            let for_factor = y_scale / x_scale * LEAST_FACTOR;
            for_weights.max(for_bias).max(for_factor) as f32
        })
        .collect()
}

fn quant(grid: Grid) -> Quant {
    Quant {
        scale: grid.scale,
        zero_point: grid.zero_point,
        channel_scales: Vec::new(),
    }
}
