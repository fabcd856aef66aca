//! A model in the making: what importers, trainers and the quantizer work on, before it becomes an image.
//!
//! Shapes are per sample with the batch dimension (1) included, channels last.

mod build;
mod image;
mod plan;

pub use build::{Builder, Window};
pub use image::{
    Cut, GraphError, Image, from_image, seal, to_image, to_image_smallest, to_image_within,
};

use foolproof::model::format::TensorRole;
use foolproof::ops::{Numerics, Op};
use foolproof::tensor::{DType, Shape};

/// The index of a tensor in [`Graph::tensors`].
pub type TensorId = usize;

/// A model: tensors, and operators in an order in which they can run.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// All tensors.
    pub tensors: Vec<Tensor>,
    /// All operators, in running order.
    pub nodes: Vec<Node>,
    /// The tensor that the caller fills.
    pub input: TensorId,
    /// The tensor that the model answers with.
    pub output: TensorId,
    /// How int8 requantization rounds.
    pub numerics: Numerics,
    /// Smallest and largest value of an input element, in real units.
    pub input_range: (f32, f32),
    /// An autoencoder that detects anomalies: see [`foolproof::model::Model::anomaly_above`].
    pub anomaly_above: Option<f32>,
    /// Class names; may be empty.
    pub labels: Vec<String>,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its name, for people.
    pub name: String,
    /// Dimensions.
    pub shape: Shape,
    /// What it is for.
    pub role: TensorRole,
    /// Scale, zero point, scales per channel.
    pub quant: Quant,
    /// The elements of a constant or parameter; of an activation only the type.
    pub data: TensorData,
}

/// How integers stand for real numbers; scale 1, zero point 0, no channel scales where they do not.
#[derive(Clone, Debug, PartialEq)]
pub struct Quant {
    /// Real units per step.
    pub scale: f32,
    /// The integer that stands for 0.
    pub zero_point: i32,
    /// One scale per output channel, or empty.
    pub channel_scales: Vec<f32>,
}

impl Default for Quant {
    fn default() -> Self {
        Quant {
            scale: 1.0,
            zero_point: 0,
            channel_scales: Vec::new(),
        }
    }
}

/// Elements, or the promise of them.
#[derive(Clone, Debug, PartialEq)]
pub enum TensorData {
    /// Computed at run time.
    Runtime(DType),
    /// Single precision.
    F32(Vec<f32>),
    /// int8.
    I8(Vec<i8>),
    /// int32.
    I32(Vec<i32>),
}

impl TensorData {
    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            TensorData::Runtime(dtype) => *dtype,
            TensorData::F32(_) => DType::F32,
            TensorData::I8(_) => DType::I8,
            TensorData::I32(_) => DType::I32,
        }
    }
}

/// One operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// What it reads, in the order of the table in [`foolproof::ops`].
    pub inputs: Vec<TensorId>,
    /// What it writes.
    pub output: TensorId,
}

impl Graph {
    /// Adds a tensor.
    pub fn add(&mut self, tensor: Tensor) -> TensorId {
        self.tensors.push(tensor);
        self.tensors.len() - 1
    }

    /// The class scores before a final softmax; the output where there is none.
    pub fn logits(&self) -> TensorId {
        let mut t = self.output;
        // a Dequantize after the softmax of an int8 model is looked through
        while let Some(node) = self.producer(t) {
            match node.op {
                Op::Softmax(_) | Op::LogSoftmax(_) => return node.inputs[0],
                Op::Dequantize | Op::Reshape => t = node.inputs[0],
                _ => break,
            }
        }
        self.output
    }

    /// The operator that computes a tensor.
    pub fn producer(&self, t: TensorId) -> Option<&Node> {
        self.nodes.iter().find(|n| n.output == t)
    }

    /// Whether it computes in int8 (its input or any activation is int8).
    pub fn is_quantized(&self) -> bool {
        self.tensors
            .iter()
            .any(|t| t.role == TensorRole::Activation && t.data.dtype() == DType::I8)
    }

    /// Whether it can be trained: all of it is f32, but for what [`Op::Quantize`] hands to [`Op::Dequantize`] (fake quantization).
    pub fn is_trainable(&self) -> bool {
        self.tensors.iter().enumerate().all(|(t, tensor)| {
            let activation = tensor.role == TensorRole::Activation;
            let rounded = || self.producer(t).is_some_and(|n| n.op == Op::Quantize);
            !activation || tensor.data.dtype() == DType::F32 || rounded()
        })
    }

    /// The f32 elements of a constant or parameter; empty for anything else.
    pub fn f32(&self, t: TensorId) -> &[f32] {
        match &self.tensors[t].data {
            TensorData::F32(v) => v,
            _ => &[],
        }
    }

    /// Multiply-accumulates of one run over one sample.
    pub fn macs(&self) -> u64 {
        self.nodes
            .iter()
            .map(|n| {
                let inputs: Vec<Shape> = n.inputs.iter().map(|&t| self.tensors[t].shape).collect();
                n.op.macs(&inputs, &self.tensors[n.output].shape)
            })
            .sum()
    }

    /// Removes tensors that no operator touches, and renumbers the rest.
    pub fn prune(&mut self) {
        let mut used = vec![false; self.tensors.len()];
        used[self.input] = true;
        used[self.output] = true;
        for node in &self.nodes {
            used[node.output] = true;
            for &t in &node.inputs {
                used[t] = true;
            }
        }
        let mut new_id = vec![0; self.tensors.len()];
        let mut kept = 0;
        for (t, &u) in used.iter().enumerate() {
            new_id[t] = kept;
            kept += usize::from(u);
        }
        let mut keep = used.iter();
        self.tensors
            .retain(|_| keep.next().copied().unwrap_or(false));
        self.input = new_id[self.input];
        self.output = new_id[self.output];
        for node in &mut self.nodes {
            node.output = new_id[node.output];
            for t in &mut node.inputs {
                *t = new_id[*t];
            }
        }
    }
}
