//! Networks that are trained here.

use crate::graph::{Builder, Graph, TensorData, Window};
use foolproof::ops::{Activation, OpError};
use rand_core::Rng;

/// The demo's network: small enough for 16 KB of RAM with an attack on it. Two 3x3 convolutions with ReLU and max
/// pooling, one dense layer; logits out.
///
/// # Errors
/// Never for the digits' shape.
pub fn digits(seed: u64) -> Result<Graph, OpError> {
    let labels = (0..10).map(|d| d.to_string()).collect();
    convolutional(&[8, 8, 1], (0.0, 1.0), [12, 24], labels, seed)
}

/// A network for samples of any shape: two convolutions for images (`[H, W, C]` with at least 4 rows and columns), two dense
/// layers for anything else; logits out.
///
/// # Errors
/// The shape is not one that a tensor can have.
pub fn default_for(
    shape: &[u32],
    input_range: (f32, f32),
    labels: Vec<String>,
    seed: u64,
) -> Result<Graph, OpError> {
    match shape {
        [h, w, _] if *h >= 4 && *w >= 4 => {
            convolutional(shape, input_range, [12, 24], labels, seed)
        }
        [h, w] if *h >= 4 && *w >= 4 => {
            convolutional(&[*h, *w, 1], input_range, [12, 24], labels, seed)
        }
        _ => dense(shape, input_range, 64, labels, seed),
    }
}

fn convolutional(
    shape: &[u32],
    input_range: (f32, f32),
    filters: [u32; 2],
    labels: Vec<String>,
    seed: u64,
) -> Result<Graph, OpError> {
    let mut b = Builder::new(shape, input_range, seed)?;
    let mut x = b.input();
    for count in filters {
        x = b.conv2d(x, count, Window::same(3), Activation::Relu)?;
        let halves = Window {
            kernel: [2; 2],
            same: false,
            ..Window::same(2).stride(2)
        };
        x = b.max_pool2d(x, halves)?;
    }
    let logits = b.dense(x, labels.len() as u32, Activation::None)?;
    let mut graph = b.finish(logits);
    graph.labels = labels;
    Ok(graph)
}

fn dense(
    shape: &[u32],
    input_range: (f32, f32),
    hidden: u32,
    labels: Vec<String>,
    seed: u64,
) -> Result<Graph, OpError> {
    let mut b = Builder::new(shape, input_range, seed)?;
    let x = b.dense(b.input(), hidden, Activation::Relu)?;
    let logits = b.dense(x, labels.len() as u32, Activation::None)?;
    let mut graph = b.finish(logits);
    graph.labels = labels;
    Ok(graph)
}

/// The MNIST network of Wong, Rice, Kolter, "Fast is better than free: revisiting adversarial training" (2020), appendix A (the code
/// that they published), for images `[H, W]` or `[H, W, C]`: 4x4 convolutions with stride 2 and 16 and 32 filters, a dense layer of
/// 100 units, each with ReLU, and a dense layer of logits.
///
/// Weights and biases begin as PyTorch's do: uniform in `±1 / sqrt(fan_in)`.
///
/// # Errors
/// The samples are no images.
pub fn wong_mnist(
    shape: &[u32],
    input_range: (f32, f32),
    labels: Vec<String>,
    seed: u64,
) -> Result<Graph, OpError> {
    let image = match *shape {
        [h, w] => [h, w, 1],
        [h, w, c] => [h, w, c],
        _ => return Err(OpError::Shape { operand: 0 }),
    };
    let mut b = Builder::new(&image, input_range, seed)?;
    let mut x = b.input();
    for count in [16, 32] {
        x = b.conv2d(x, count, Window::same(4).stride(2), Activation::Relu)?;
    }
    let x = b.dense(x, 100, Activation::Relu)?;
    let logits = b.dense(x, labels.len() as u32, Activation::None)?;
    let mut graph = b.finish(logits);
    graph.labels = labels;
    let mut random = foolproof::attack::rng(seed, 0);
    for node in graph.nodes.clone() {
        let &[_, weights, bias] = node.inputs.as_slice() else {
            continue;
        };
        let fan_in = graph.tensors[weights].shape.len() / graph.tensors[bias].shape.len();
        let limit = 1.0 / (fan_in as f32).sqrt();
        for t in [weights, bias] {
            if let TensorData::F32(data) = &mut graph.tensors[t].data {
                data.iter_mut().for_each(|v| {
                    let unit = (random.next_u32() >> 8) as f32 / 16_777_216.0;
                    *v = limit * (2.0 * unit - 1.0);
                });
            }
        }
    }
    Ok(graph)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mnist_network_is_the_published_one() {
        let labels: Vec<String> = (0..10).map(|d| d.to_string()).collect();
        let graph = wong_mnist(&[28, 28], (0.0, 1.0), labels, 1).unwrap();
        let sizes: Vec<usize> = graph
            .nodes
            .iter()
            .map(|node| graph.tensors[node.output].shape.len())
            .filter(|&len| len > 0)
            .collect();
        assert!(sizes.starts_with(&[14 * 14 * 16, 7 * 7 * 32]), "{sizes:?}");
        // as in PyTorch: 16 (1 4 4 + 1) + 32 (16 4 4 + 1) + 100 (1568 + 1) + 10 (100 + 1)
        let parameters: usize = graph
            .tensors
            .iter()
            .filter(|t| t.role == foolproof::model::format::TensorRole::Parameter)
            .map(|t| t.shape.len())
            .sum();
        assert_eq!(parameters, 272 + 8224 + 156_900 + 1010);
        // the first convolution's fan-in is 16: nothing beyond a quarter, and biases that are not 0
        let [weights, bias] = [graph.nodes[0].inputs[1], graph.nodes[0].inputs[2]];
        let largest = |t: usize| graph.f32(t).iter().fold(0f32, |m, v| m.max(v.abs()));
        assert!((0.2..=0.25).contains(&largest(weights)));
        assert!((0.1..=0.25).contains(&largest(bias)));
        assert!(wong_mnist(&[784], (0.0, 1.0), vec!["a".into(), "b".into()], 1).is_err());
    }
}
