//! A graph as a `.tflite` file, so that a model that was trained or hardened here goes back into its user's own tools.
//!
//! These files hold scales, not fixed-point factors: a runtime computes the factors when it loads the model. So a model is
//! written only where its factors and tables are the ones that follow from its scales, and TFLite Micro then gives the same int8
//! outputs, bit for bit.

mod write;

use super::ExportError;
use crate::graph::{Graph, Node, Tensor, TensorData, TensorId};
use crate::quantize::{fold, multiplier};
use foolproof::model::format::TensorRole;
use foolproof::ops::{Activation, Multiplier, Op, Padding, Unary};
use foolproof::tensor::{DType, MAX_RANK, Quant, Shape};
use std::collections::HashMap;
use write::{Element, Field, Operator, Plan, Value};

/// Writes a graph, f32 or int8. Batch normalization is folded into the layer before it. The rounding mode, the input's range and
/// the labels have no place in the format.
///
/// # Errors
/// [`ExportError`] names the operator that the format cannot hold.
pub fn export(graph: &Graph) -> Result<Vec<u8>, ExportError> {
    let folded;
    let graph = match graph.nodes.iter().any(|n| matches!(n.op, Op::BatchNorm(_))) {
        true => {
            folded = fold::fold(graph)?;
            &folded
        }
        false => graph,
    };
    let mut exporter = Exporter {
        graph,
        plan: Plan::default(),
        ids: HashMap::new(),
    };
    let input = exporter.tensor(graph.input);
    for (operator, node) in graph.nodes.iter().enumerate() {
        exporter
            .node(node)
            .map_err(|reason| ExportError::Unsupported {
                format: "TensorFlow Lite",
                operator,
                name: node.op.name(),
                tensor: graph.tensors[node.output].name.clone(),
                reason,
            })?;
    }
    let output = exporter.tensor(graph.output);
    Ok(exporter.plan.write(input, output))
}

type Reason = &'static str;

const FACTORS: Reason = "its fixed-point factors are not the ones that follow from its scales";

struct Exporter<'a> {
    graph: &'a Graph,
    plan: Plan,
    /// The file's tensor for the graph's.
    ids: HashMap<TensorId, i32>,
}

/// What the schema says about an operator: its code, and the versions that take f32 and int8.
struct Code(i32, i32, i32);

impl Exporter<'_> {
    fn node(&mut self, node: &Node) -> Result<(), Reason> {
        let x = &self.graph.tensors[*node.inputs.first().ok_or("it has no input")?];
        match &node.op {
            Op::Conv2d(conv) => {
                let kernel = self.kernel(node)?;
                let window = (kernel, conv.stride, conv.dilation, conv.padding);
                let (padding, input) = self.padded(node, window)?;
                let options = vec![
                    Field(0, Value::I8(padding)),
                    Field(1, Value::I32(conv.stride[1].into())),
                    Field(2, Value::I32(conv.stride[0].into())),
                    Field(3, Value::I8(fused(conv.activation))),
                    Field(4, Value::I32(conv.dilation[1].into())),
                    Field(5, Value::I32(conv.dilation[0].into())),
                ];
                self.layer(Code(3, 1, 3), 1, options, node, input, 0)
            }
            Op::DepthwiseConv2d(conv) => {
                let kernel = self.kernel(node)?;
                let window = (kernel, conv.stride, conv.dilation, conv.padding);
                let channels = self.graph.tensors[node.output].shape.channels();
                let multiplier = (channels / x.shape.channels()) as i32;
                let (padding, input) = self.padded(node, window)?;
                let options = vec![
                    Field(0, Value::I8(padding)),
                    Field(1, Value::I32(conv.stride[1].into())),
                    Field(2, Value::I32(conv.stride[0].into())),
                    Field(3, Value::I32(multiplier)),
                    Field(4, Value::I8(fused(conv.activation))),
                    Field(5, Value::I32(conv.dilation[1].into())),
                    Field(6, Value::I32(conv.dilation[0].into())),
                ];
                self.layer(Code(4, 1, 3), 2, options, node, input, 3)
            }
            Op::Dense(dense) => {
                let options = vec![Field(0, Value::I8(fused(dense.activation)))];
                let input = self.tensor(node.inputs[0]);
                self.layer(Code(9, 1, 4), 8, options, node, input, 0)
            }
            Op::Add(add) => {
                if let Some(scales) = self.scales(node)
                    && multiplier::add(self.graph.numerics, add.activation, scales) != Some(*add)
                {
                    return Err(FACTORS);
                }
                let options = vec![Field(0, Value::I8(fused(add.activation)))];
                self.plain(Code(0, 1, 2), 11, options, node, 2);
                Ok(())
            }
            Op::Mul(mul) => {
                if let Some([a, b, y]) = self.scales(node)
                    && multiplier::mul(self.graph.numerics, a, b, y) != Some(mul.output)
                {
                    return Err(FACTORS);
                }
                let options = vec![Field(0, Value::I8(fused(mul.activation)))];
                self.plain(Code(18, 1, 2), 21, options, node, 2);
                Ok(())
            }
            Op::AvgPool2d(pool) | Op::MaxPool2d(pool) => {
                let padding = padding(&x.shape, (pool.window, pool.stride, [1, 1], pool.padding));
                let options = vec![
                    Field(
                        0,
                        Value::I8(padding.ok_or("its padding is neither SAME nor VALID")?),
                    ),
                    Field(1, Value::I32(pool.stride[1].into())),
                    Field(2, Value::I32(pool.stride[0].into())),
                    Field(3, Value::I32(pool.window[1].into())),
                    Field(4, Value::I32(pool.window[0].into())),
                    Field(5, Value::I8(fused(pool.activation))),
                ];
                let code = if matches!(node.op, Op::AvgPool2d(_)) {
                    1
                } else {
                    17
                };
                self.plain(Code(code, 1, 2), 5, options, node, 1);
                Ok(())
            }
            Op::Pad(pad) => {
                let amounts: Vec<i32> = pad
                    .before
                    .iter()
                    .zip(&pad.after)
                    .take(x.shape.rank())
                    .flat_map(|(&b, &a)| [b.into(), a.into()])
                    .collect();
                let amounts = self.integers("paddings", vec![x.shape.rank() as i32, 2], &amounts);
                let inputs = vec![self.tensor(node.inputs[0]), amounts];
                self.operator(Code(34, 1, 2), (0, Vec::new()), inputs, node);
                Ok(())
            }
            Op::Reshape => {
                let dims: Vec<i32> = dims(&self.graph.tensors[node.output].shape);
                let target = self.integers("shape", vec![dims.len() as i32], &dims);
                let inputs = vec![self.tensor(node.inputs[0]), target];
                self.operator(Code(22, 1, 1), (0, Vec::new()), inputs, node);
                Ok(())
            }
            Op::Concat(concat) => {
                let options = vec![
                    Field(0, Value::I32(concat.axis.into())),
                    Field(1, Value::I8(0)),
                ];
                self.plain(Code(2, 1, 2), 10, options, node, node.inputs.len());
                Ok(())
            }
            Op::Softmax(softmax) => {
                if is_int8(x)
                    && multiplier::softmax(softmax.beta, x.quant.scale)
                        != Some((softmax.input, softmax.diff_min))
                {
                    return Err(FACTORS);
                }
                self.plain(
                    Code(25, 1, 2),
                    9,
                    vec![Field(0, Value::F32(softmax.beta))],
                    node,
                    1,
                );
                Ok(())
            }
            Op::Unary(function) => self.unary(*function, node),
            Op::Quantize => {
                self.plain(Code(114, 1, 1), 0, Vec::new(), node, 1);
                Ok(())
            }
            Op::Dequantize => {
                self.plain(Code(6, 2, 2), 0, Vec::new(), node, 1);
                Ok(())
            }
            _ => Err("the format has no such operator"),
        }
    }

    fn unary(&mut self, function: Unary, node: &Node) -> Result<(), Reason> {
        let x = &self.graph.tensors[node.inputs[0]];
        if is_int8(x) {
            let y = &self.graph.tensors[node.output];
            let table = function.table(&grid(x), &grid(y), self.graph.numerics);
            let stored = node.inputs.get(1).map(|&t| &self.graph.tensors[t].data);
            let same = table.is_some_and(
                |table| matches!(stored, Some(TensorData::I8(v)) if v[..] == table.values),
            );
            if !same {
                return Err("its table is not the one that follows from its scales");
            }
        }
        let (code, union, options) = match function {
            Unary::Relu => (Code(19, 1, 2), 0, Vec::new()),
            Unary::Relu6 => (Code(21, 1, 2), 0, Vec::new()),
            Unary::LeakyRelu { alpha } => (Code(98, 1, 2), 75, vec![Field(0, Value::F32(alpha))]),
            Unary::Tanh => (Code(28, 1, 2), 0, Vec::new()),
            Unary::Sigmoid => (Code(14, 1, 2), 0, Vec::new()),
            Unary::Requantize if is_int8(x) => (Code(114, 2, 2), 0, Vec::new()),
            _ => return Err("the format has no such operator"),
        };
        self.plain(code, union, options, node, 1);
        Ok(())
    }

    /// An operator whose inputs are the first `count` of the node's.
    fn plain(&mut self, code: Code, union: u8, options: Vec<Field>, node: &Node, count: usize) {
        let inputs = node
            .inputs
            .iter()
            .take(count)
            .map(|&t| self.tensor(t))
            .collect();
        self.operator(code, (union, options), inputs, node);
    }

    fn operator(
        &mut self,
        code: Code,
        (union, options): (u8, Vec<Field>),
        inputs: Vec<i32>,
        node: &Node,
    ) {
        let int8 = node
            .inputs
            .iter()
            .chain([&node.output])
            .any(|&t| is_int8(&self.graph.tensors[t]));
        let Code(code, float_version, int8_version) = code;
        let output = self.tensor(node.output);
        self.plan.operators.push(Operator {
            code,
            version: if int8 { int8_version } else { float_version },
            inputs,
            output,
            union,
            options,
        });
    }

    /// A convolution or dense layer: its weights have a scale per index of `axis`, if several.
    fn layer(
        &mut self,
        code: Code,
        union: u8,
        options: Vec<Field>,
        node: &Node,
        input: i32,
        axis: i32,
    ) -> Result<(), Reason> {
        let [x, w, b, ..] = node.inputs[..] else {
            return Err("it has no bias");
        };
        let (x, y) = (&self.graph.tensors[x], &self.graph.tensors[node.output]);
        let weights = &self.graph.tensors[w];
        if is_int8(x) {
            let dense = matches!(node.op, Op::Dense(_));
            let scales = channel_scales(weights);
            let (numerics, one) = (self.graph.numerics, scales.len() == 1);
            let factor = |s: f32| match dense {
                true => multiplier::dense(numerics, one, x.quant.scale, s, y.quant.scale),
                false => multiplier::convolution(numerics, x.quant.scale, s, y.quant.scale),
            };
            let channels = self.graph.tensors[b].shape.len();
            let expected: Vec<Option<Multiplier>> = scales
                .iter()
                .map(|&s| factor(s))
                .cycle()
                .take(channels)
                .collect();
            if expected != self.factors(node) {
                return Err(FACTORS);
            }
        }
        let w_id = self.constant(w, channel_scales(weights), axis);
        let products = channel_scales(weights)
            .iter()
            .map(|s| x.quant.scale * s)
            .collect();
        let b_id = self.constant(b, products, 0);
        self.operator(code, (union, options), vec![input, w_id, b_id], node);
        Ok(())
    }

    /// The factors that a layer has, by channel.
    fn factors(&self, node: &Node) -> Vec<Option<Multiplier>> {
        let words = |i: usize| match node.inputs.get(i).map(|&t| &self.graph.tensors[t].data) {
            Some(TensorData::I32(v)) => &v[..],
            _ => &[],
        };
        let pairs = words(3).iter().zip(words(4));
        pairs
            .map(|(&mantissa, &shift)| Some(Multiplier { mantissa, shift }))
            .collect()
    }

    /// The scales of both inputs and the output of an int8 sum or product.
    fn scales(&self, node: &Node) -> Option<[f32; 3]> {
        let [a, b] = node.inputs[..] else { return None };
        let scale = |t: TensorId| self.graph.tensors[t].quant.scale;
        is_int8(&self.graph.tensors[a]).then(|| [scale(a), scale(b), scale(node.output)])
    }

    fn kernel(&self, node: &Node) -> Result<[u16; 2], Reason> {
        let w = node.inputs.get(1).ok_or("it has no weights")?;
        let shape = &self.graph.tensors[*w].shape;
        let small = |v: usize| u16::try_from(v).map_err(|_| "its window is too large");
        Ok([small(shape.dim(1))?, small(shape.dim(2))?])
    }

    /// The padding's code, and the input: itself, or behind a PAD where the format has no such padding.
    fn padded(&mut self, node: &Node, window: Window) -> Result<(i8, i32), Reason> {
        let x = &self.graph.tensors[node.inputs[0]];
        let input = self.tensor(node.inputs[0]);
        if let Some(code) = padding(&x.shape, window) {
            return Ok((code, input));
        }
        let p = window.3;
        let [rows, columns] =
            [[p.top, p.bottom], [p.left, p.right]].map(|pair| pair.map(i32::from));
        let amounts = [0, 0, rows[0], rows[1], columns[0], columns[1], 0, 0];
        let amounts = self.integers("paddings", vec![4, 2], &amounts);
        let mut shape = dims(&x.shape);
        shape[1] += rows[0] + rows[1];
        shape[2] += columns[0] + columns[1];
        let padded = self.plan.add(Element {
            name: format!("{}.padded", x.name),
            dims: shape,
            ..element(x)
        });
        self.plan.operators.push(Operator {
            code: 34,
            version: if is_int8(x) { 2 } else { 1 },
            inputs: vec![input, amounts],
            output: padded,
            union: 0,
            options: Vec::new(),
        });
        Ok((VALID, padded))
    }

    /// The file's tensor for one of the graph's.
    fn tensor(&mut self, t: TensorId) -> i32 {
        if let Some(&id) = self.ids.get(&t) {
            return id;
        }
        let id = self.plan.add(element(&self.graph.tensors[t]));
        self.ids.insert(t, id);
        id
    }

    /// The same for weights and biases, with their scales.
    fn constant(&mut self, t: TensorId, scales: Vec<f32>, axis: i32) -> i32 {
        let tensor = &self.graph.tensors[t];
        let quantized = tensor.data.dtype() != DType::F32;
        let element = Element {
            scales: if quantized { scales } else { Vec::new() },
            zero_point: 0,
            axis,
            ..element(tensor)
        };
        // a tensor may be used twice, with other scales of its bias
        self.plan.add(element)
    }

    fn integers(&mut self, name: &str, dims: Vec<i32>, values: &[i32]) -> i32 {
        let name = format!("{name}.{}", self.plan.tensors.len());
        self.plan.add(Element {
            name,
            dims,
            kind: 2,
            scales: Vec::new(),
            zero_point: 0,
            axis: 0,
            data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        })
    }
}

/// Window, stride, dilation, padding.
type Window = ([u16; 2], [u16; 2], [u16; 2], Padding);

const SAME: i8 = 0;
const VALID: i8 = 1;

/// The schema's code of a padding, where it has one.
fn padding(x: &Shape, (kernel, stride, dilation, padding): Window) -> Option<i8> {
    let along = |axis: usize| {
        Padding::same(
            x.dim(axis + 1) as u32,
            kernel[axis].into(),
            stride[axis].into(),
            dilation[axis].into(),
        )
    };
    let own = |before: u16, after: u16| (u32::from(before), u32::from(after));
    if padding == Padding::VALID {
        Some(VALID)
    } else if own(padding.top, padding.bottom) == along(0)
        && own(padding.left, padding.right) == along(1)
    {
        Some(SAME)
    } else {
        None
    }
}

fn fused(activation: Activation) -> i8 {
    match activation {
        Activation::None => 0,
        Activation::Relu => 1,
        Activation::Relu6 => 3,
    }
}

fn is_int8(tensor: &Tensor) -> bool {
    tensor.data.dtype() == DType::I8
}

/// One scale, or one per channel.
fn channel_scales(tensor: &Tensor) -> Vec<f32> {
    match tensor.quant.channel_scales.is_empty() {
        true => vec![tensor.quant.scale],
        false => tensor.quant.channel_scales.clone(),
    }
}

fn grid(tensor: &Tensor) -> Quant<'_> {
    Quant {
        scale: tensor.quant.scale,
        zero_point: tensor.quant.zero_point,
        channel_scales: &[],
    }
}

fn dims(shape: &Shape) -> Vec<i32> {
    debug_assert!(shape.rank() <= MAX_RANK);
    shape.dims().iter().map(|&d| d as i32).collect()
}

fn element(tensor: &Tensor) -> Element {
    let activation = tensor.role == TensorRole::Activation;
    let int8 = is_int8(tensor);
    Element {
        name: tensor.name.clone(),
        dims: dims(&tensor.shape),
        kind: match tensor.data.dtype() {
            DType::F32 => 0,
            DType::I8 => 9,
            DType::I32 => 2,
        },
        scales: if int8 {
            vec![tensor.quant.scale]
        } else {
            Vec::new()
        },
        zero_point: tensor.quant.zero_point,
        axis: 0,
        data: match &tensor.data {
            TensorData::F32(v) if !activation => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
            TensorData::I32(v) if !activation => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
            TensorData::I8(v) if !activation => v.iter().map(|&v| v as u8).collect(),
            _ => Vec::new(),
        },
    }
}
