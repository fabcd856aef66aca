//! Adding operators and constants to the graph, and moving elements where the order in memory has to change.

use super::value::{Layout, Value, long_axes};
use super::{Importer, Reason};
use crate::graph::{self, Quant, Tensor, TensorData, TensorId};
use foolproof::model::format::TensorRole;
use foolproof::ops::{Activation, Conv2d, Op, Padding};
use foolproof::tensor::{DType, Data, Operand, Quant as NoQuant, Shape};

/// Weights of a convolution that swaps two blocks of axes; more would be slower than useful.
const MOST_MOVES: usize = 1 << 18;

const NO_SHAPE: &str = "it needs a tensor of a shape that no tensor can have";

impl Importer<'_> {
    /// Adds an operator; its output's shape follows from its inputs.
    pub(super) fn emit(
        &mut self,
        op: Op,
        inputs: Vec<TensorId>,
        name: String,
    ) -> Result<TensorId, Reason> {
        let shapes: Vec<Shape> = inputs
            .iter()
            .map(|&t| self.graph.tensors[t].shape)
            .collect();
        let shape = op
            .output_shape(&shapes)
            .map_err(|error| error.to_string())?;
        self.push(op, inputs, name, shape)
    }

    fn push(
        &mut self,
        op: Op,
        inputs: Vec<TensorId>,
        name: String,
        shape: Shape,
    ) -> Result<TensorId, Reason> {
        let tensor = Tensor {
            name,
            shape,
            role: TensorRole::Activation,
            quant: Quant::default(),
            data: TensorData::Runtime(DType::F32),
        };
        let operands: Vec<Operand<'_>> = inputs
            .iter()
            .map(|&t| operand(&self.graph.tensors[t]))
            .collect();
        op.check(&operands, &operand(&tensor))
            .map_err(|error| error.to_string())?;
        let output = self.graph.add(tensor);
        self.graph.nodes.push(graph::Node { op, inputs, output });
        Ok(output)
    }

    /// The tensor with these dimensions; a view of it where it has others.
    pub(super) fn shaped(&mut self, id: TensorId, dims: &[u32]) -> Result<TensorId, Reason> {
        let tensor = &self.graph.tensors[id];
        if tensor.shape.dims() == dims {
            return Ok(id);
        }
        let shape = Shape::new(dims).ok_or(NO_SHAPE)?;
        let name = format!("{}.view", tensor.name);
        // views of a view would only lengthen the chain
        let source = self.graph.producer(id).filter(|n| n.op == Op::Reshape);
        let source = source.map_or(id, |n| n.inputs[0]);
        if self.graph.tensors[source].shape == shape {
            return Ok(source);
        }
        self.push(Op::Reshape, vec![source], name, shape)
    }

    /// A trainable constant.
    pub(super) fn parameter(
        &mut self,
        name: String,
        dims: &[u32],
        data: Vec<f32>,
    ) -> Result<TensorId, Reason> {
        self.stored(TensorRole::Parameter, name, dims, data)
    }

    /// A constant that training leaves alone.
    pub(super) fn fixed(
        &mut self,
        name: String,
        dims: &[u32],
        data: Vec<f32>,
    ) -> Result<TensorId, Reason> {
        self.stored(TensorRole::Constant, name, dims, data)
    }

    fn stored(
        &mut self,
        role: TensorRole,
        name: String,
        dims: &[u32],
        data: Vec<f32>,
    ) -> Result<TensorId, Reason> {
        let shape = Shape::new(dims).filter(|s| s.len() == data.len());
        let shape = shape.ok_or("a constant of it has a shape that does not fit")?;
        self.spend(4 * data.len())?;
        Ok(self.graph.add(Tensor {
            name,
            shape,
            role,
            quant: Quant::default(),
            data: TensorData::F32(data),
        }))
    }

    /// The activation in memory in the file's order.
    pub(super) fn plain(&mut self, value: &Value) -> Result<TensorId, Reason> {
        let (view, order) = value.view();
        let target = long_axes(&view);
        self.moved(value.id, &view, &order, &target)
    }

    /// The activation as a tensor whose axis `i` is axis `axes[i]` of the file; all axes are named.
    pub(super) fn arranged(&mut self, value: &Value, axes: &[usize]) -> Result<TensorId, Reason> {
        let value = match value.layout {
            Layout::Axes(_) => value.clone(),
            Layout::Scattered { .. } => Value::plain(self.plain(value)?, value.dims.clone()),
        };
        let (_, order) = value.view();
        let target: Vec<usize> = axes
            .iter()
            .copied()
            .filter(|&a| value.dims[a] != 1)
            .collect();
        let id = self.moved(value.id, &value.dims, &order, &target)?;
        let dims: Vec<u32> = axes.iter().map(|&a| value.dims[a]).collect();
        self.shaped(id, &dims)
    }

    /// From one order of the axes longer than 1 to another. At run time where they differ: `[P, A, B, S]` becomes `[P, B, A, S]`.
    fn moved(
        &mut self,
        id: TensorId,
        dims: &[u32],
        from: &[usize],
        to: &[usize],
    ) -> Result<TensorId, Reason> {
        if from == to {
            return Ok(id);
        }
        let first = from.iter().zip(to).take_while(|(a, b)| a == b).count();
        let last = from
            .iter()
            .rev()
            .zip(to.iter().rev())
            .take_while(|(a, b)| a == b)
            .count();
        let middle = &from[first..from.len().saturating_sub(last)];
        let wanted = &to[first.min(to.len())..to.len().saturating_sub(last)];
        let turn = (1..middle.len()).find(|&k| [&middle[k..], &middle[..k]].concat() == wanted);
        let turn = turn.ok_or("it needs its input with the axes in another order, which is supported for two blocks of axes only")?;
        let product = |axes: &[usize]| axes.iter().map(|&a| dims[a] as usize).product::<usize>();
        let (p, a) = (product(&from[..first]), product(&middle[..turn]));
        let (b, s) = (
            product(&middle[turn..]),
            product(&from[from.len() - last..]),
        );
        let channels = a.saturating_mul(s);
        let weights = channels.saturating_mul(channels);
        if weights > MOST_MOVES {
            return Err(format!(
                "it needs its input with the axes in another order, and blocks of {a} and {b} are too large for that"
            ));
        }
        let image = self.shaped(id, &[p, a, b, s].map(|v| v as u32))?;
        // output channel (a, s) takes row a, channel s
        let data = (0..weights)
            .map(|i| f32::from(u8::from(i / channels == i % channels)))
            .collect();
        let name = format!("{}.moved", self.graph.tensors[id].name);
        let w = self.fixed(
            format!("{name}.weights"),
            &[channels as u32, a as u32, 1, s as u32],
            data,
        )?;
        let bias = self.fixed(
            format!("{name}.bias"),
            &[channels as u32],
            vec![0.0; channels],
        )?;
        let op = Op::Conv2d(Conv2d {
            stride: [1, 1],
            dilation: [1, 1],
            padding: Padding::VALID,
            activation: Activation::None,
        });
        self.emit(op, vec![image, w, bias], name)
    }
}

/// A tensor as operators check it.
fn operand(tensor: &Tensor) -> Operand<'_> {
    Operand {
        dtype: tensor.data.dtype(),
        shape: tensor.shape,
        quant: NoQuant {
            scale: 1.0,
            zero_point: 0,
            channel_scales: &[],
        },
        data: match &tensor.data {
            TensorData::F32(v) => Data::F32(v),
            _ => Data::Absent,
        },
    }
}
