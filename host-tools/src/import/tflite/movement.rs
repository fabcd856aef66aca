//! Operators that move elements and compute none.

use super::file::Step;
use super::schema::{ConcatOptions, SliceOptions};
use super::{Importer, Reason, shape};
use crate::graph::{Tensor, TensorData, TensorId};
use foolproof::model::format::TensorRole;
use foolproof::ops::{Activation, Concat, MAX_INPUTS, Op, Pad, Padding, Pool2d};
use foolproof::tensor::{DType, MAX_RANK, Shape};

/// RESHAPE, SQUEEZE and EXPAND_DIMS: the output's declared shape says it all.
pub(super) fn only_reshapes(code: i32) -> bool {
    matches!(code, 22 | 43 | 70)
}

/// A tensor that is another one with its axes in another order, and was not computed.
#[derive(Clone, Debug)]
pub(super) struct Transposed {
    /// Whose elements it has.
    pub source: TensorId,
    shape: Shape,
    /// Axis `i` of the transposed tensor is this axis of the source.
    axes: Vec<usize>,
}

impl Transposed {
    /// For each element of the transposed tensor, flattened, where it lies in the source.
    pub fn order(&self, len: usize) -> Result<Vec<usize>, Reason> {
        if self.shape.len() != len {
            return Err("its transposed input must be one sample".into());
        }
        let stride = |axis: usize| {
            (axis + 1..self.shape.rank())
                .map(|i| self.shape.dim(i))
                .product::<usize>()
        };
        let mut order = vec![0];
        for &axis in &self.axes {
            let step = stride(axis);
            order = order
                .iter()
                .flat_map(|&at| (0..self.shape.dim(axis)).map(move |i| at + i * step))
                .collect();
        }
        Ok(order)
    }
}

impl<'a> Importer<'a> {
    pub(super) fn reshape(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        let source = self.input(step, 0)?;
        if let Some(transposed) = self.transposed.get(&source).cloned() {
            if shape(self.info(t))?.len() != transposed.shape.len() {
                return Err("its output has another number of elements".into());
            }
            self.transposed.insert(t, transposed);
            return Ok(());
        }
        let x = self.operand(step, 0)?;
        self.emit(Op::Reshape, vec![x], t)
    }

    pub(super) fn transpose(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        let x = self.operand(step, 0)?;
        let from = self.graph.tensors[x].shape;
        let axes: Vec<usize> = self
            .integers(step, 1)?
            .iter()
            .filter_map(|&a| usize::try_from(a).ok())
            .collect();
        let mut sorted = axes.clone();
        sorted.sort_unstable();
        if sorted != (0..from.rank()).collect::<Vec<usize>>() {
            return Err("its axes are not an order of its input's".into());
        }
        let dims: Vec<u32> = axes.iter().map(|&a| from.dim(a) as u32).collect();
        if shape(self.info(t))?.dims() != dims {
            return Err("its output's shape is not its input's in that order".into());
        }
        let moved: Vec<usize> = axes.iter().copied().filter(|&a| from.dim(a) > 1).collect();
        if moved.is_sorted() {
            return self.emit(Op::Reshape, vec![x], t);
        }
        let transposed = Transposed {
            source: x,
            shape: from,
            axes,
        };
        self.transposed.insert(t, transposed);
        Ok(())
    }

    /// PAD, and PADV2 with zeros.
    pub(super) fn pad(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        self.no_uint8(step)?;
        let x = self.operand(step, 0)?;
        let rank = self.graph.tensors[x].shape.rank();
        let amounts = self.integers(step, 1)?;
        if amounts.len() != 2 * rank {
            return Err("its amounts are not two per axis".into());
        }
        if step.inputs.len() > 2 {
            let value = self.operand(step, 2)?;
            let zero = self.graph.tensors[x].quant.zero_point;
            let is_zero = match &self.graph.tensors[value].data {
                TensorData::F32(v) => v[..] == [0.0],
                TensorData::I8(v) => v.len() == 1 && i32::from(v[0]) == zero,
                _ => false,
            };
            if !is_zero {
                return Err("it pads with another value than zero".into());
            }
        }
        let mut pad = Pad {
            before: [0; MAX_RANK],
            after: [0; MAX_RANK],
        };
        let convert = |v: i64| {
            u16::try_from(v).map_err(|_| format!("it pads by {v}; 0 to 65535 are supported"))
        };
        for (i, pair) in amounts.chunks_exact(2).enumerate() {
            let (Some(before), Some(after)) = (pad.before.get_mut(i), pad.after.get_mut(i)) else {
                return Err("it has too many axes".into());
            };
            (*before, *after) = (convert(pair[0])?, convert(pair[1])?);
        }
        self.emit(Op::Pad(pad), vec![x], t)
    }

    pub(super) fn concat(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        self.no_uint8(step)?;
        let options = step.table.options::<ConcatOptions<'a>>();
        if super::fused(options.and_then(|o| o.activation()))? != Activation::None {
            return Err("it has a fused activation".into());
        }
        let rank = shape(self.info(t))?.rank() as i32;
        let axis = options.and_then(|o| o.axis()).unwrap_or(0);
        let axis = u8::try_from(if axis < 0 {
            axis.saturating_add(rank)
        } else {
            axis
        });
        let op = Op::Concat(Concat {
            axis: axis.map_err(|_| "an axis that its inputs do not have")?,
        });
        let mut inputs = Vec::new();
        for i in 0..step.inputs.len() {
            inputs.push(self.operand(step, i)?);
        }
        // an operator takes so many; more are joined bit by bit
        while inputs.len() > MAX_INPUTS {
            let first: Vec<TensorId> = inputs.drain(..MAX_INPUTS).collect();
            let shapes: Vec<Shape> = first.iter().map(|&i| self.graph.tensors[i].shape).collect();
            let shape = op
                .output_shape(&shapes)
                .map_err(|error| error.to_string())?;
            let like = &self.graph.tensors[first[0]];
            let part = Tensor {
                name: format!("{}.part", self.info(t).name),
                shape,
                role: TensorRole::Activation,
                quant: like.quant.clone(),
                data: TensorData::Runtime(like.data.dtype()),
            };
            let part = self.graph.add(part);
            self.push(op, first, part)?;
            inputs.insert(0, part);
        }
        self.emit(op, inputs, t)
    }

    pub(super) fn strided_slice(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        self.no_uint8(step)?;
        let options = step
            .table
            .options::<SliceOptions<'a>>()
            .ok_or("it has no options")?;
        let x = self.operand(step, 0)?;
        let x_shape = self.graph.tensors[x].shape;
        let others = [
            options.ellipsis_mask(),
            options.new_axis_mask(),
            options.shrink_axis_mask(),
        ];
        if x_shape.rank() != 4
            || others.iter().any(|mask| mask.unwrap_or(0) != 0)
            || options.offset() == Some(true)
        {
            return Err("only slices of images that keep their axes are supported".into());
        }
        let lists = [
            self.integers(step, 1)?,
            self.integers(step, 2)?,
            self.integers(step, 3)?,
        ];
        if lists.iter().any(|l| l.len() != 4) {
            return Err("its begin, end and strides are not one per axis".into());
        }
        let (begins, ends) = (
            options.begin_mask().unwrap_or(0),
            options.end_mask().unwrap_or(0),
        );
        let mut slices = [Slice::default(); 4];
        for (axis, slice) in slices.iter_mut().enumerate() {
            let bound = |list: &[i64], mask: i32| (mask >> axis & 1 == 0).then_some(list[axis]);
            *slice = Slice::new(
                x_shape.dim(axis),
                bound(&lists[0], begins),
                bound(&lists[1], ends),
                lists[2][axis],
            )?;
        }
        let [batch, rows, columns, channels] = slices;
        if !batch.is_all()
            || !rows.starts_at_edge()
            || !columns.starts_at_edge()
            || channels.stride != 1
        {
            return Err("only slices of neighbouring channels, and of every n-th row and column from the first, are supported".into());
        }
        let small = |v: usize| {
            u16::try_from(v).map_err(|_| format!("its stride is {v}; at most 65535 are supported"))
        };
        let stride = [small(rows.stride)?, small(columns.stride)?];
        if channels.is_all() {
            let pool = Pool2d {
                window: [1, 1],
                stride,
                padding: Padding::VALID,
                activation: Activation::None,
            };
            return self.emit(Op::MaxPool2d(pool), vec![x], t);
        }
        if self.dtype(x) == DType::I8 {
            let quant = super::per_tensor(self.info(t))?;
            if quant != self.graph.tensors[x].quant {
                return Err("its output has another grid than its input".into());
            }
        }
        self.channels(x, t, channels.begin, channels.count, stride)
    }
}

/// Elements `begin, begin + stride, ...` of an axis.
#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    begin: usize,
    count: usize,
    stride: usize,
    len: usize,
}

impl Slice {
    /// A slice as the file writes it: negative bounds count from the end, left out ones are the ends.
    fn new(len: usize, begin: Option<i64>, end: Option<i64>, stride: i64) -> Result<Slice, Reason> {
        let stride = usize::try_from(stride).ok().filter(|&s| s > 0);
        let stride = stride.ok_or("its strides must be positive")?;
        let all = len as i64;
        let bound = |v: i64| (if v < 0 { v.saturating_add(all) } else { v }).clamp(0, all) as usize;
        let (begin, end) = (begin.map_or(0, bound), end.map_or(len, bound));
        let count = end.saturating_sub(begin).div_ceil(stride);
        if count == 0 {
            return Err("it takes no element".into());
        }
        Ok(Slice {
            begin,
            count,
            stride,
            len,
        })
    }

    /// From the first element, and as many as the stride allows.
    fn starts_at_edge(&self) -> bool {
        self.begin == 0 && self.count == self.len.div_ceil(self.stride)
    }

    fn is_all(&self) -> bool {
        self.count == self.len
    }
}
