//! Operators that pick elements or bring them into another order, and maxima over axes: TRANSPOSE, SLICE, STRIDED_SLICE,
//! SPLIT, SPLIT_V, UNPACK, PACK, REDUCE_MAX.

use super::file::Step;
use super::schema::{PackOptions, SliceOptions};
use super::{Importer, Reason, shape};
use crate::graph::{Tensor, TensorData, TensorId};
use foolproof::model::format::TensorRole;
use foolproof::ops::{self, Concat, MAX_INPUTS, Op, ReduceMax};
use foolproof::tensor::{MAX_RANK, Shape};

/// A tensor that is another one with its axes in another order, and was not computed yet.
#[derive(Clone, Debug)]
pub(super) struct Transposed {
    /// Whose elements it has.
    pub source: TensorId,
    shape: Shape,
    /// Axis `i` of the transposed tensor is this axis of the source.
    axes: Vec<usize>,
}

impl Transposed {
    /// For each element of the transposed tensor, flattened, where it lies in the source. `None` where rows of this length are
    /// not whole samples.
    pub fn order(&self, len: usize) -> Option<Vec<usize>> {
        if self.shape.len() != len {
            return None;
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
        Some(order)
    }
}

impl<'a> Importer<'a> {
    /// Not computed before something reads it: a dense layer takes its weights in another order instead.
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

    /// Computes a transposed tensor after all.
    pub(super) fn transposed_tensor(&mut self, t: usize) -> Result<Option<TensorId>, Reason> {
        let Some(Transposed { source, axes, .. }) = self.transposed.get(&t).cloned() else {
            return Ok(None);
        };
        let dims = shape(self.info(t))?.dims().to_vec();
        let moved = self.reordered(source, &axes)?;
        let id = self.reshaped(moved, &dims)?;
        self.ids[t] = Some(id);
        Ok(Some(id))
    }

    /// `x` with its axes in this order.
    pub(super) fn reordered(&mut self, x: TensorId, order: &[usize]) -> Result<TensorId, Reason> {
        let mut axes = [0; MAX_RANK];
        for (to, &from) in axes.iter_mut().zip(order) {
            *to = from as u8;
        }
        self.between(Op::Transpose(ops::Transpose { axes }), vec![x])
    }

    /// The result of an operator that the file does not have, on the grid of its first input.
    fn between(&mut self, op: Op, inputs: Vec<TensorId>) -> Result<TensorId, Reason> {
        let shapes: Vec<Shape> = inputs
            .iter()
            .map(|&i| self.graph.tensors[i].shape)
            .collect();
        let shape = op
            .output_shape(&shapes)
            .map_err(|error| error.to_string())?;
        let like = inputs.first().map(|&i| self.graph.tensors[i].clone());
        let like = like.ok_or("it has no inputs")?;
        let id = self.graph.add(Tensor {
            name: format!("{}.{}", like.name, op.name()),
            shape,
            role: TensorRole::Activation,
            quant: like.quant,
            data: TensorData::Runtime(like.data.dtype()),
        });
        self.push(op, inputs, id)?;
        Ok(id)
    }

    /// The file's tensor `t` is the result of a last operator on `inputs`, perhaps in another shape.
    fn last(&mut self, op: Op, inputs: Vec<TensorId>, t: usize) -> Result<(), Reason> {
        self.emit_reshaped(op, inputs, t)
    }

    pub(super) fn strided_slice(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        let options = step
            .table
            .options::<SliceOptions<'a>>()
            .ok_or("it has no options")?;
        if [options.ellipsis_mask(), options.new_axis_mask()]
            .iter()
            .any(|mask| mask.unwrap_or(0) != 0)
        {
            return Err("its ellipsis or new axes are not supported".into());
        }
        let lists = [
            self.integers(step, 1)?,
            self.integers(step, 2)?,
            self.integers(step, 3)?,
        ];
        let (begins, ends) = (
            options.begin_mask().unwrap_or(0),
            options.end_mask().unwrap_or(0),
        );
        let shrunk = options.shrink_axis_mask().unwrap_or(0);
        let len = |x: &Shape, lists: &[Vec<i64>; 3]| {
            lists.iter().all(|l| l.len() == lists[0].len()) && lists[0].len() <= x.rank()
        };
        if let Some(list) = self.whole_numbers(self.input(step, 0)?) {
            // of a shape: a number of it, or a part of it
            let own = Shape::new(&[list.len() as u32]).ok_or("its list is empty")?;
            if !len(&own, &lists) {
                return Err("its begin, end and strides are not one per axis".into());
            }
            let bound = |list: &[i64], mask: i32| (mask & 1 == 0).then(|| list.first().copied());
            let slice = Along::new(
                list.len(),
                bound(&lists[0], begins).flatten(),
                match shrunk & 1 {
                    0 => bound(&lists[1], ends).flatten(),
                    _ => lists[0]
                        .first()
                        .map(|&b| if b == -1 { i64::MAX } else { b + 1 }),
                },
                lists[2].first().copied().unwrap_or(1),
            )?;
            let taken = (0..slice.count).filter_map(|i| {
                let at = slice.begin as i64 + i as i64 * slice.step;
                list.get(usize::try_from(at).ok()?).copied()
            });
            self.folded.insert(t, taken.collect());
            return Ok(());
        }
        let x = self.operand(step, 0)?;
        let x_shape = self.graph.tensors[x].shape;
        if !len(&x_shape, &lists) {
            return Err("its begin, end and strides are not one per axis".into());
        }
        let mut slices = Vec::new();
        for axis in 0..lists[0].len() {
            let bound = |list: &[i64], mask: i32| (mask >> axis & 1 == 0).then_some(list[axis]);
            let begin = bound(&lists[0], begins);
            let mut end = bound(&lists[1], ends);
            if options.offset() == Some(true) {
                end = end.map(|e| e.saturating_add(lists[0][axis]));
            }
            let mut stride = lists[2][axis];
            if shrunk >> axis & 1 == 1 {
                // one element, whatever the end says
                stride = 1;
                end = begin.map(|b| {
                    if b == -1 {
                        i64::MAX
                    } else {
                        b.saturating_add(1)
                    }
                });
            }
            slices.push(Along::new(x_shape.dim(axis), begin, end, stride)?);
        }
        self.slices(x, &slices, t)
    }

    pub(super) fn slice(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        let x = self.operand(step, 0)?;
        let x_shape = self.graph.tensors[x].shape;
        let (begins, sizes) = (self.integers(step, 1)?, self.integers(step, 2)?);
        if begins.len() != x_shape.rank() || sizes.len() != x_shape.rank() {
            return Err("its begin and size are not one per axis".into());
        }
        let mut slices = Vec::new();
        for (axis, (&begin, &size)) in begins.iter().zip(&sizes).enumerate() {
            let end = (size >= 0).then(|| begin.saturating_add(size));
            slices.push(Along::new(x_shape.dim(axis), Some(begin.max(0)), end, 1)?);
        }
        self.slices(x, &slices, t)
    }

    /// Slices along several axes, the one that leaves the fewest elements first.
    fn slices(&mut self, x: TensorId, slices: &[Along], t: usize) -> Result<(), Reason> {
        let mut wanted: Vec<(usize, Along)> = slices
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, s)| !s.is_all())
            .collect();
        wanted.sort_by(|a, b| (a.1.count * b.1.len).cmp(&(b.1.count * a.1.len)));
        let Some((last, first)) = wanted.split_last() else {
            return self.emit(Op::Reshape, vec![x], t);
        };
        let mut x = x;
        for (axis, slice) in first {
            x = self.between(slice.op(*axis)?, vec![x])?;
        }
        self.last(last.1.op(last.0)?, vec![x], t)
    }

    /// SPLIT, SPLIT_V and UNPACK: neighbouring parts of one axis.
    pub(super) fn split(&mut self, step: &Step<'a>) -> Result<(), Reason> {
        let outputs = step.outputs.clone();
        let axis_of = |list: Vec<i64>| list.first().copied().ok_or("it has no axis");
        let (x, axis) = match step.code {
            49 => (self.operand(step, 1)?, axis_of(self.integers(step, 0)?)?),
            102 => (self.operand(step, 0)?, axis_of(self.integers(step, 2)?)?),
            _ => {
                let options = step.table.options::<PackOptions<'a>>();
                let axis = options.and_then(|o| o.axis()).unwrap_or(0);
                (self.operand(step, 0)?, i64::from(axis))
            }
        };
        let own = self.graph.tensors[x].shape;
        let axis = axis_in(axis, own.rank())?;
        let (len, parts) = (own.dim(axis), outputs.len());
        let mut sizes = match step.code {
            102 => self.integers(step, 1)?,
            _ => vec![(len / parts.max(1)) as i64; parts],
        };
        // one size may be left out
        let known: i64 = sizes.iter().filter(|&&s| s >= 0).sum();
        let mut open = sizes.iter_mut().filter(|s| **s == -1);
        if let (Some(size), None) = (open.next(), open.next()) {
            *size = len as i64 - known;
        }
        let whole = sizes.iter().all(|&s| s > 0) && sizes.iter().sum::<i64>() == len as i64;
        if !whole || sizes.len() != parts {
            return Err("its parts do not make up its input".into());
        }
        let mut begin = 0;
        for (&t, &size) in outputs.iter().zip(&sizes) {
            self.only_once(t)?;
            let slice = Along {
                begin,
                count: size as usize,
                step: 1,
                len,
            };
            match slice.is_all() {
                true => self.emit(Op::Reshape, vec![x], t)?,
                false => self.last(slice.op(axis)?, vec![x], t)?,
            }
            begin += size as usize;
        }
        Ok(())
    }

    /// PACK: tensors joined along a new axis.
    pub(super) fn pack(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        let options = step.table.options::<PackOptions<'a>>();
        let axis = options.and_then(|o| o.axis()).unwrap_or(0);
        let mut numbers = Vec::new();
        for i in 0..step.inputs.len() {
            match self.whole_numbers(self.input(step, i)?) {
                Some(list) => numbers.extend(list),
                None => break,
            }
        }
        if numbers.len() == step.inputs.len() && axis == 0 {
            self.folded.insert(t, numbers);
            return Ok(());
        }
        let mut inputs = Vec::new();
        for i in 0..step.inputs.len() {
            let x = self.operand(step, i)?;
            let own = self.graph.tensors[x].shape;
            let axis = axis_in(i64::from(axis), own.rank() + 1)?;
            let mut dims = own.dims().to_vec();
            dims.insert(axis, 1);
            inputs.push(self.reshaped(x, &dims)?);
        }
        let rank = shape(self.info(t))?.rank();
        let axis = axis_in(i64::from(axis), rank)? as u8;
        self.joined(Op::Concat(Concat { axis }), inputs, t)
    }

    /// A concatenation of any number of tensors: an operator takes so many, more are joined bit by bit.
    pub(super) fn joined(
        &mut self,
        op: Op,
        mut inputs: Vec<TensorId>,
        t: usize,
    ) -> Result<(), Reason> {
        while inputs.len() > MAX_INPUTS {
            let first: Vec<TensorId> = inputs.drain(..MAX_INPUTS).collect();
            let part = self.between(op, first)?;
            inputs.insert(0, part);
        }
        self.emit(op, inputs, t)
    }

    pub(super) fn reduce_max(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        let x = self.operand(step, 0)?;
        let axes = self.integers(step, 1)?;
        let (x, [outer, len, inner]) = self.reduced_axes(x, &axes)?;
        let flat = self.reshaped(x, &[outer, len, inner])?;
        self.last(Op::ReduceMax(ReduceMax { axis: 1 }), vec![flat], t)
    }

    /// `x` with the axes that are reduced next to one another, and the product of the dimensions before them, of them, and
    /// behind them. Moves elements only where the file's axes have others between them.
    pub(super) fn reduced_axes(
        &mut self,
        x: TensorId,
        axes: &[i64],
    ) -> Result<(TensorId, [u32; 3]), Reason> {
        let own = self.graph.tensors[x].shape;
        let rank = own.rank();
        let mut reduced = vec![false; rank];
        for &axis in axes {
            reduced[axis_in(axis, rank)?] = true;
        }
        let first = reduced
            .iter()
            .position(|&r| r)
            .ok_or("it reduces no axis")?;
        let count = reduced.iter().filter(|&&r| r).count();
        let together = reduced[first..].iter().take_while(|&&r| r).count();
        let product = |axes: &[usize]| axes.iter().map(|&i| own.dim(i) as u32).product::<u32>();
        let all: Vec<usize> = (0..rank).collect();
        if together == count {
            let parts = [
                product(&all[..first]),
                product(&all[first..first + count]),
                product(&all[first + count..]),
            ];
            return Ok((x, parts));
        }
        let (gone, kept): (Vec<usize>, Vec<usize>) = all.iter().partition(|&&i| reduced[i]);
        let order: Vec<usize> = kept.iter().chain(&gone).copied().collect();
        let moved = self.reordered(x, &order)?;
        Ok((moved, [product(&kept), product(&gone), 1]))
    }
}

/// An axis by its number, which may count from the end.
pub(super) fn axis_in(axis: i64, rank: usize) -> Result<usize, Reason> {
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    let found = usize::try_from(axis).ok().filter(|&a| a < rank);
    found.ok_or_else(|| "an axis that its input does not have".to_string())
}

/// Elements `begin, begin + step, ...` of an axis of `len`.
#[derive(Clone, Copy, Debug)]
struct Along {
    begin: usize,
    count: usize,
    step: i64,
    len: usize,
}

impl Along {
    /// A slice as the file writes it: negative bounds count from the end, left out ones are the ends.
    fn new(len: usize, begin: Option<i64>, end: Option<i64>, step: i64) -> Result<Along, Reason> {
        let all = len as i64;
        let from_end = |v: i64| if v < 0 { v.saturating_add(all) } else { v };
        let (begin, count) = if step > 0 {
            let bound = |v: i64| from_end(v).clamp(0, all);
            let (begin, end) = (begin.map_or(0, bound), end.map_or(all, bound));
            // rounded up; a step beyond the end takes one element
            let room = (end - begin).max(0);
            (begin, room / step + i64::from(room % step != 0))
        } else if step < 0 && step > i64::MIN {
            let bound = |v: i64| from_end(v).clamp(-1, all - 1);
            let (begin, end) = (begin.map_or(all - 1, bound), end.map_or(-1, bound));
            let room = (begin - end).max(0);
            (begin, room / -step + i64::from(room % -step != 0))
        } else {
            return Err("its strides must not be 0".into());
        };
        if count == 0 {
            return Err("it takes no element".into());
        }
        Ok(Along {
            begin: begin as usize,
            count: count as usize,
            // the second element is never reached where there is one only
            step: if count == 1 { 1 } else { step },
            len,
        })
    }

    fn is_all(&self) -> bool {
        self.count == self.len && self.step == 1
    }

    fn op(&self, axis: usize) -> Result<Op, Reason> {
        let small = |v: usize| u32::try_from(v).map_err(|_| "a slice out of range".to_string());
        Ok(Op::Slice(ops::Slice {
            axis: axis as u8,
            begin: small(self.begin)?,
            count: small(self.count)?,
            step: i32::try_from(self.step).map_err(|_| "a stride out of range".to_string())?,
        }))
    }
}
