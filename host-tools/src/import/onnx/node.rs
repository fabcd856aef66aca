//! One operator of the file: its names and attributes.

use super::Reason;
use super::proto::{self, Attribute};

/// An operator as it was read.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub operator: &'a str,
    pub domain: Option<&'a str>,
    /// Empty where an optional input is left out.
    pub inputs: Vec<&'a str>,
    pub outputs: Vec<&'a str>,
    attributes: &'a [Attribute],
}

impl<'a> Node<'a> {
    pub fn new(node: &'a proto::Node) -> Node<'a> {
        Node {
            operator: node.op_type.as_deref().unwrap_or(""),
            domain: node.domain.as_deref(),
            inputs: node.input.iter().map(String::as_str).collect(),
            outputs: node.output.iter().map(String::as_str).collect(),
            attributes: &node.attribute,
        }
    }

    /// The name of input `i`.
    pub fn input(&self, i: usize) -> Result<&'a str, Reason> {
        let name = self.inputs.get(i).copied().filter(|name| !name.is_empty());
        name.ok_or_else(|| format!("it has no input {i}"))
    }

    pub fn has_input(&self, i: usize) -> bool {
        self.input(i).is_ok()
    }

    pub fn attribute(&self, name: &str) -> Option<&'a Attribute> {
        let named = |a: &&Attribute| a.name.as_deref() == Some(name);
        self.attributes.iter().find(named)
    }

    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).and_then(|a| a.i).unwrap_or(default)
    }

    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).and_then(|a| a.f).unwrap_or(default)
    }

    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|a| &a.ints[..])
    }

    pub fn text(&self, name: &str) -> Option<&'a [u8]> {
        self.attribute(name).and_then(|a| a.s.as_deref())
    }

    /// Its name for a tensor of the graph.
    pub fn name(&self) -> String {
        super::clean(self.outputs.first().copied().unwrap_or(""))
    }
}

/// An axis as the file writes it, for an array of so many axes: negative ones count from the end.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize, Reason> {
    let from_start = if axis < 0 {
        axis.saturating_add(rank as i64)
    } else {
        axis
    };
    let index = usize::try_from(from_start).ok().filter(|&a| a < rank);
    index.ok_or_else(|| format!("it has axis {axis}, its input {rank} axes"))
}

/// Operators that can be imported, in some form.
pub(super) fn is_known(operator: &str) -> bool {
    const OTHERS: [&str; 32] = [
        "Cast",
        "Constant",
        "ConvTranspose",
        "DepthToSpace",
        "DequantizeLinear",
        "Expand",
        "Gather",
        "Gemm",
        "LogSoftmax",
        "MatMul",
        "Max",
        "Mean",
        "Min",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceSum",
        "ReduceSumSquare",
        "Shape",
        "Slice",
        "Softmax",
        "SpaceToDepth",
        "Split",
        "Sum",
        "Tile",
    ];
    OTHERS.contains(&operator)
        || is_function(operator)
        || moves(operator)
        || takes_channels_first(operator)
        || keeps_axes(operator)
}

/// Functions of each element.
pub(super) fn is_function(operator: &str) -> bool {
    matches!(
        operator,
        "Abs"
            | "Celu"
            | "Clip"
            | "Elu"
            | "Erf"
            | "Exp"
            | "Gelu"
            | "HardSigmoid"
            | "HardSwish"
            | "LeakyRelu"
            | "Log"
            | "Mish"
            | "Neg"
            | "PRelu"
            | "Pow"
            | "Reciprocal"
            | "Relu"
            | "Selu"
            | "Sigmoid"
            | "Softplus"
            | "Softsign"
            | "Sqrt"
            | "Swish"
            | "Tanh"
    )
}

/// Operators of the domain `com.microsoft` that can be imported, in some form.
pub(super) fn is_extension(operator: &str) -> bool {
    is_quantized(operator) || matches!(operator, "QuantizeLinear" | "DequantizeLinear")
}

/// Operators on whole numbers, with scales and zero points among their inputs.
pub(super) fn is_quantized(operator: &str) -> bool {
    matches!(
        operator,
        "QLinearConv"
            | "QLinearMatMul"
            | "QGemm"
            | "QLinearAdd"
            | "QLinearMul"
            | "QLinearSigmoid"
            | "QLinearLeakyRelu"
            | "QLinearAveragePool"
            | "QLinearGlobalAveragePool"
            | "QLinearConcat"
    )
}

/// Operators whose output has the elements of their first input.
pub(super) fn moves(operator: &str) -> bool {
    matches!(
        operator,
        "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" | "Transpose" | "Identity" | "Dropout"
    )
}

/// Operators whose first axis after the batch is the channel.
pub(super) fn takes_channels_first(operator: &str) -> bool {
    matches!(
        operator,
        "Conv"
            | "MaxPool"
            | "AveragePool"
            | "GlobalAveragePool"
            | "GlobalMaxPool"
            | "BatchNormalization"
            | "ConvTranspose"
            | "DepthToSpace"
            | "SpaceToDepth"
            | "QLinearConv"
            | "QLinearAveragePool"
            | "QLinearGlobalAveragePool"
    )
}

/// Operators whose output has the axes of their input, whatever they mean.
pub(super) fn keeps_axes(operator: &str) -> bool {
    is_function(operator)
        || matches!(
            operator,
            "Max"
                | "Min"
                | "Sum"
                | "Mean"
                | "Add"
                | "Sub"
                | "Mul"
                | "Div"
                | "Pad"
                | "Concat"
                | "Identity"
                | "Dropout"
                | "Cast"
                | "QuantizeLinear"
                | "DequantizeLinear"
                | "QLinearAdd"
                | "QLinearMul"
                | "QLinearSigmoid"
                | "QLinearLeakyRelu"
                | "QLinearConcat"
        )
}
