//! Makes an f32 graph ready for int8: batch normalization folded into the layer before, ReLU fused into it.

use super::QuantizeError;
use crate::graph::{Graph, Node, Quant, Tensor, TensorData, TensorId};
use foolproof::model::format::TensorRole;
use foolproof::ops::{Activation, Op, Unary};

/// The same function with fewer operators. In exact arithmetic nothing changes.
///
/// # Errors
/// [`QuantizeError::BatchNorm`] for a batch normalization that does not follow a layer that it can be folded into.
pub fn fold(graph: &Graph) -> Result<Graph, QuantizeError> {
    let mut folded = graph.clone();
    folded.nodes.clear();
    for (operator, node) in graph.nodes.iter().enumerate() {
        let before = match readers(graph, node.inputs[0]) {
            1 => folded.nodes.iter().position(|n| n.output == node.inputs[0]),
            _ => None,
        };
        match node.op {
            Op::BatchNorm(norm) => {
                let layer = before.filter(|&k| {
                    let op = &folded.nodes[k].op;
                    channel_axis(op).is_some() && activation(op) == Some(Activation::None)
                });
                let Some(k) = layer else {
                    return Err(QuantizeError::BatchNorm {
                        operator,
                        tensor: graph.tensors[node.output].name.clone(),
                    });
                };
                fold_norm(&mut folded, k, node, norm.epsilon);
            }
            Op::Unary(Unary::Relu) => fuse(&mut folded, before, node, Activation::Relu),
            Op::Unary(Unary::Relu6) => fuse(&mut folded, before, node, Activation::Relu6),
            _ => folded.nodes.push(node.clone()),
        }
    }
    folded.prune();
    Ok(folded)
}

/// How often a tensor is read: by operators, and by the caller.
fn readers(graph: &Graph, t: TensorId) -> usize {
    let inputs = graph.nodes.iter().flat_map(|n| &n.inputs);
    inputs.filter(|&&i| i == t).count() + usize::from(t == graph.output)
}

/// The axis of a layer's weights that counts its output channels; `None` for other operators.
pub(super) fn channel_axis(op: &Op) -> Option<usize> {
    match op {
        Op::Conv2d(_) | Op::ConvTranspose2d(_) | Op::Dense(_) => Some(0),
        Op::DepthwiseConv2d(_) => Some(3),
        _ => None,
    }
}

/// The output channel of element `i` of weights with `channels` channels along `axis`.
pub(super) fn channel_of(i: usize, axis: usize, len: usize, channels: usize) -> usize {
    match axis {
        0 => i / (len / channels),
        _ => i % channels,
    }
}

/// The fused activation of an operator that is computed at its output's own scale.
fn activation(op: &Op) -> Option<Activation> {
    match op {
        Op::Conv2d(o) => Some(o.activation),
        Op::ConvTranspose2d(o) => Some(o.activation),
        Op::DepthwiseConv2d(o) => Some(o.activation),
        Op::Dense(o) => Some(o.activation),
        Op::Add(o) => Some(o.activation),
        Op::Mul(o) => Some(o.activation),
        _ => None,
    }
}

fn fuse(graph: &mut Graph, before: Option<usize>, relu: &Node, to: Activation) {
    let before = before.filter(|&k| activation(&graph.nodes[k].op) == Some(Activation::None));
    let Some(k) = before else {
        graph.nodes.push(relu.clone());
        return;
    };
    let node = &mut graph.nodes[k];
    match &mut node.op {
        Op::Conv2d(o) => o.activation = to,
        Op::ConvTranspose2d(o) => o.activation = to,
        Op::DepthwiseConv2d(o) => o.activation = to,
        Op::Dense(o) => o.activation = to,
        Op::Add(o) => o.activation = to,
        Op::Mul(o) => o.activation = to,
        _ => {}
    }
    node.output = relu.output;
}

/// `gamma (w x + b - mean) / sqrt(variance + epsilon) + beta` as a layer of its own.
fn fold_norm(graph: &mut Graph, k: usize, norm: &Node, epsilon: f32) {
    let layer = graph.nodes[k].clone();
    let (w, b) = (layer.inputs[1], layer.inputs[2]);
    let axis = channel_axis(&layer.op).unwrap_or(0);
    let statistic = |i: usize, c: usize| f64::from(graph.f32(norm.inputs[i])[c]);
    let channels = graph.tensors[b].shape.len();
    let factors: Vec<f64> = (0..channels)
        .map(|c| statistic(1, c) / (statistic(4, c) + f64::from(epsilon)).sqrt())
        .collect();
    let weights = graph.f32(w);
    let len = weights.len();
    let weights = weights.iter().enumerate().map(|(i, &v)| {
        let factor = factors[channel_of(i, axis, len, channels)];
        (f64::from(v) * factor) as f32
    });
    let weights: Vec<f32> = weights.collect();
    let bias =
        graph.f32(b).iter().enumerate().map(|(c, &v)| {
            ((f64::from(v) - statistic(3, c)) * factors[c] + statistic(2, c)) as f32
        });
    let bias: Vec<f32> = bias.collect();
    let new = [(w, weights), (b, bias)].map(|(t, data)| {
        let tensor = Tensor {
            name: graph.tensors[t].name.clone(),
            shape: graph.tensors[t].shape,
            role: TensorRole::Parameter,
            quant: Quant::default(),
            data: TensorData::F32(data),
        };
        graph.add(tensor)
    });
    let node = &mut graph.nodes[k];
    node.inputs[1] = new[0];
    node.inputs[2] = new[1];
    node.output = norm.output;
}
