//! Adding operators and constants to the graph, and moving elements where the order in memory has to change.

use super::value::{Layout, Value, long_axes};
use super::{Importer, Reason};
use crate::graph::{self, Quant, Tensor, TensorData, TensorId};
use foolproof::model::format::TensorRole;
use foolproof::ops::{Op, Transpose};
use foolproof::tensor::{DType, Data, MAX_RANK, Operand, Shape};

const NO_SHAPE: &str = "it needs a tensor of a shape that no tensor can have";

impl Importer<'_> {
    /// Adds an operator. Its output's shape follows from its inputs; type and grid are those of the first.
    pub(super) fn emit(
        &mut self,
        op: Op,
        inputs: Vec<TensorId>,
        name: String,
    ) -> Result<TensorId, Reason> {
        let first = inputs.first().ok_or("it has no input")?;
        let first = &self.graph.tensors[*first];
        let (dtype, quant) = (first.data.dtype(), first.quant.clone());
        self.push(op, inputs, name, None, (dtype, quant))
    }

    /// Adds an operator whose output is int8 on this grid.
    pub(super) fn emit_on(
        &mut self,
        op: Op,
        inputs: Vec<TensorId>,
        name: String,
        grid: Quant,
    ) -> Result<TensorId, Reason> {
        self.push(op, inputs, name, None, (DType::I8, grid))
    }

    /// The activation in real numbers: itself, or what an int8 one stands for.
    pub(super) fn real_id(&mut self, id: TensorId) -> Result<TensorId, Reason> {
        if !self.is_int8(id) {
            return Ok(id);
        }
        let same = |n: &&graph::Node| n.op == Op::Dequantize && n.inputs[0] == id;
        if let Some(node) = self.graph.nodes.iter().find(same) {
            return Ok(node.output);
        }
        let name = format!("{}.real", self.graph.tensors[id].name);
        let kind = (DType::F32, Quant::default());
        self.push(Op::Dequantize, vec![id], name, None, kind)
    }

    pub(super) fn is_int8(&self, id: TensorId) -> bool {
        self.graph.tensors[id].data.dtype() == DType::I8
    }

    fn push(
        &mut self,
        op: Op,
        inputs: Vec<TensorId>,
        name: String,
        shape: Option<Shape>,
        (dtype, quant): (DType, Quant),
    ) -> Result<TensorId, Reason> {
        let shapes: Vec<Shape> = inputs
            .iter()
            .map(|&t| self.graph.tensors[t].shape)
            .collect();
        let shape = match shape {
            Some(shape) => shape,
            None => op
                .output_shape(&shapes)
                .map_err(|error| error.to_string())?,
        };
        let tensor = Tensor {
            name,
            shape,
            role: TensorRole::Activation,
            quant,
            data: TensorData::Runtime(dtype),
        };
        let operands: Vec<Operand<'_>> = inputs
            .iter()
            .map(|&t| operand(&self.graph.tensors[t]))
            .collect();
        op.check(self.graph.numerics, &operands, &operand(&tensor))
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
        let like = &self.graph.tensors[source];
        let kind = (like.data.dtype(), like.quant.clone());
        self.push(Op::Reshape, vec![source], name, Some(shape), kind)
    }

    /// A trainable constant.
    pub(super) fn parameter(
        &mut self,
        name: String,
        dims: &[u32],
        data: Vec<f32>,
    ) -> Result<TensorId, Reason> {
        self.stored(
            TensorRole::Parameter,
            name,
            dims,
            Quant::default(),
            TensorData::F32(data),
        )
    }

    /// A constant that training leaves alone.
    pub(super) fn fixed(
        &mut self,
        name: String,
        dims: &[u32],
        data: TensorData,
    ) -> Result<TensorId, Reason> {
        self.stored(TensorRole::Constant, name, dims, Quant::default(), data)
    }

    /// The same on a grid.
    pub(super) fn fixed_on(
        &mut self,
        name: String,
        dims: &[u32],
        grid: Quant,
        data: TensorData,
    ) -> Result<TensorId, Reason> {
        self.stored(TensorRole::Constant, name, dims, grid, data)
    }

    fn stored(
        &mut self,
        role: TensorRole,
        name: String,
        dims: &[u32],
        quant: Quant,
        data: TensorData,
    ) -> Result<TensorId, Reason> {
        let (len, size) = match &data {
            TensorData::F32(v) => (v.len(), 4),
            TensorData::I32(v) => (v.len(), 4),
            TensorData::I8(v) => (v.len(), 1),
            TensorData::Runtime(_) => (0, 0),
        };
        let shape = Shape::new(dims).filter(|s| s.len() == len);
        let shape = shape.ok_or("a constant of it has a shape that does not fit")?;
        self.spend(size * len)?;
        Ok(self.graph.add(Tensor {
            name,
            shape,
            role,
            quant,
            data,
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

    /// From one order of the axes longer than 1 to another. At run time where they differ.
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
        if from.len() > MAX_RANK {
            return Err(NO_SHAPE.into());
        }
        // an axis of length 1 in front, where there is room: samples of a batch then stay apart
        let front = usize::from(from.len() < MAX_RANK);
        let mut shape = vec![1; front];
        shape.extend(from.iter().map(|&a| dims[a]));
        let place = |a: &usize| from.iter().position(|f| f == a).map(|p| (p + front) as u8);
        let mut axes = [0; MAX_RANK];
        for (axis, to) in axes[front..].iter_mut().zip(to) {
            *axis = place(to).ok_or("it needs its input with an axis that is not there")?;
        }
        let image = self.shaped(id, &shape)?;
        let name = format!("{}.moved", self.graph.tensors[id].name);
        self.emit(Op::Transpose(Transpose { axes }), vec![image], name)
    }
}

/// A tensor as operators check it.
fn operand(tensor: &Tensor) -> Operand<'_> {
    Operand {
        dtype: tensor.data.dtype(),
        shape: tensor.shape,
        quant: grid(&tensor.quant),
        data: match &tensor.data {
            TensorData::Runtime(_) => Data::Absent,
            TensorData::F32(v) => Data::F32(v),
            TensorData::I8(v) => Data::I8(v),
            TensorData::I32(v) => Data::I32(v),
        },
    }
}

/// A grid as operators see it.
pub(super) fn grid(quant: &Quant) -> foolproof::tensor::Quant<'_> {
    foolproof::tensor::Quant {
        scale: quant.scale,
        zero_point: quant.zero_point,
        channel_scales: &quant.channel_scales,
    }
}
