//! Networks that are trained here.

use crate::graph::{Builder, Graph, Window};
use foolproof::ops::{Activation, OpError};

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
