//! Convolutions and dense layers.

use super::node::Node;
use super::pool::Sliding;
use super::quantized::Filters;
use super::value::{Const, Elements, Value};
use super::{Importer, Reason};
use foolproof::ops::{Activation, Conv2d, Dense, DepthwiseConv2d, Op};
use std::rc::Rc;

impl<'a> Importer<'a> {
    /// Weights `[O, C/groups, kh, kw]`.
    pub(super) fn conv(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let x = self.value(node, 0)?;
        let w = self.needed(node, 1, "weights")?;
        let bias = self.constant(node, 2)?;
        if bias.is_none() && node.has_input(2) {
            return Err("its bias must be a constant".into());
        }
        let filters = Filters {
            w: &w,
            axis: 0,
            bias: bias.as_deref(),
            target: self.target(node),
        };
        self.convolution(node, &x, &filters)
    }

    /// Conv and QLinearConv.
    pub(super) fn convolution(
        &mut self,
        node: &Node<'a>,
        x: &Value,
        filters: &Filters<'_>,
    ) -> Result<Value, Reason> {
        let w = filters.w;
        let rank = x.dims.len();
        let (image, channels) = self.image(x)?;
        if w.dims.len() != rank {
            return Err(format!(
                "its weights have {} axes, its input {rank}",
                w.dims.len()
            ));
        }
        let [outputs, share] = [w.dims[0], w.dims[1]];
        let kernel = match w.dims[2..] {
            [length] => [length, 1],
            [rows, columns] => [rows, columns],
            _ => return Err("its weights are not a window".into()),
        };
        if let Some(named) = node.ints("kernel_shape")
            && !named
                .iter()
                .copied()
                .eq(w.dims[2..].iter().map(|&d| i64::from(d)))
        {
            return Err(format!(
                "its kernel_shape is {named:?} and its weights are {:?}",
                w.dims
            ));
        }
        let groups = node.int("group", 1);
        let depthwise = groups > 1 && groups == i64::from(channels) && share == 1;
        let count = u32::try_from(groups).ok().filter(|&g| g > 0);
        let count = count.ok_or_else(|| format!("it has {groups} groups"))?;
        if outputs == 0
            || share.checked_mul(count) != Some(channels)
            || !outputs.is_multiple_of(count)
        {
            return Err(format!(
                "its weights are {:?} for {channels} input channels",
                w.dims
            ));
        }
        let window = Sliding::read(node, kernel, rank - 2)?;
        let dims = &self.graph.tensors[image].shape;
        let placed = window.over([dims.dim(1) as u32, dims.dim(2) as u32], false)?;
        let [kh, kw] = kernel;
        let cells = kh as usize * kw as usize;
        self.spend(8 * w.len())?;
        let (shape, order): (_, Vec<usize>) = if depthwise {
            let o = outputs as usize;
            let order = (0..w.len()).map(|i| i % o * cells + i / o).collect();
            ([1, kh, kw, outputs], order)
        } else {
            // O, cells, C from O, C, cells
            let (c, row) = (share as usize, share as usize * cells);
            let from = |i: usize| i / row * row + i % c * cells + i % row / c;
            ([outputs, kh, kw, share], (0..w.len()).map(from).collect())
        };
        let op = match depthwise {
            true => Op::DepthwiseConv2d(DepthwiseConv2d {
                stride: placed.stride,
                dilation: placed.dilation,
                padding: placed.padding,
                activation: Activation::None,
            }),
            false => Op::Conv2d(Conv2d {
                stride: placed.stride,
                dilation: placed.dilation,
                padding: placed.padding,
                activation: Activation::None,
            }),
        };
        let int8 = self.int8_layer(image, filters, outputs as usize)?;
        let image = match int8 {
            Some(_) => image,
            None => self.real_id(image)?,
        };
        let mut inputs = vec![image];
        let constants = (&shape[..], &order[..]);
        let o = outputs as usize;
        inputs.extend(self.layer_constants(node, filters, int8.as_ref(), constants, o)?);
        let id = match int8 {
            Some(layer) => self.emit_on(op, inputs, node.name(), layer.target)?,
            None => self.emit(op, inputs, node.name())?,
        };
        Ok(self.of_image(id, rank))
    }

    /// Weights `[C, O/groups, kh, kw]`.
    pub(super) fn conv_transpose(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let x = self.value(node, 0)?;
        let w = self.needed(node, 1, "weights")?;
        let bias = self.constant(node, 2)?;
        if bias.is_none() && node.has_input(2) {
            return Err("its bias must be a constant".into());
        }
        let rank = x.dims.len();
        let (image, channels) = self.image(&x)?;
        let kernel = match w.dims.get(2..) {
            Some(&[length]) if rank == 3 => [length, 1],
            Some(&[rows, columns]) if rank == 4 => [rows, columns],
            _ => return Err(format!("its weights are {:?}", w.dims)),
        };
        let groups = node.int("group", 1);
        let count = u32::try_from(groups).ok().filter(|&g| g > 0);
        let count = count.ok_or_else(|| format!("it has {groups} groups"))?;
        let (c, filters) = (w.dims[0], w.dims[1]);
        if c != channels || !channels.is_multiple_of(count) || filters == 0 {
            return Err(format!(
                "its weights are {:?} for {channels} input channels",
                w.dims
            ));
        }
        let outputs = filters
            .checked_mul(count)
            .ok_or("it has too many outputs")?;
        let dims = self.graph.tensors[image].shape;
        let image_size = [dims.dim(1) as u32, dims.dim(2) as u32];
        let op = Sliding::read(node, kernel, rank - 2)?.transposed(node, image_size)?;
        let [kh, kw] = kernel;
        let (cells, share) = (kh as usize * kw as usize, (channels / count) as usize);
        self.spend(8 * w.len())?;
        // O, cells, C/groups from C, O/groups, cells
        let from = |i: usize| {
            let (o, cell, k) = (i / (cells * share), i / share % cells, i % share);
            let (group, filter) = (o / filters as usize, o % filters as usize);
            ((group * share + k) * filters as usize + filter) * cells + cell
        };
        let order: Vec<usize> = (0..w.len()).map(from).collect();
        let shape = [outputs, kh, kw, share as u32];
        let layer = Filters {
            w: &w,
            axis: 1,
            bias: bias.as_deref(),
            target: self.target(node).filter(|_| count == 1),
        };
        let int8 = self.int8_layer(image, &layer, outputs as usize)?;
        let image = match int8 {
            Some(_) => image,
            None => self.real_id(image)?,
        };
        let mut inputs = vec![image];
        let constants = (&shape[..], &order[..]);
        let o = outputs as usize;
        inputs.extend(self.layer_constants(node, &layer, int8.as_ref(), constants, o)?);
        let op = Op::ConvTranspose2d(op);
        let id = match int8 {
            Some(layer) => self.emit_on(op, inputs, node.name(), layer.target)?,
            None => self.emit(op, inputs, node.name())?,
        };
        Ok(self.of_image(id, rank))
    }

    /// `alpha A B + beta C` with constant B and C.
    pub(super) fn gemm(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let mut x = self.value(node, 0)?;
        let w = self.needed(node, 1, "second input")?;
        if node.int("transA", 0) != 0 && x.dims.len() == 2 {
            x = self.turned(&x, &[1, 0])?;
        }
        if x.dims.len() != 2 {
            return Err(format!("its first input has {} axes, not 2", x.dims.len()));
        }
        let bias = self.constant(node, 2)?;
        if bias.is_none() && node.has_input(2) {
            return Err("its third input must be a constant".into());
        }
        let by_row = |b: &Rc<Const>| b.dims.iter().rev().skip(1).any(|&d| d != 1);
        let rows = bias.clone().filter(by_row);
        let bias = bias.filter(|b| !by_row(b));
        let transposed = node.int("transB", 0) != 0;
        let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
        let scaled = |c: &Const, factor: f32| -> Result<Const, Reason> {
            let values = c.f32()?.iter().map(|v| factor * v).collect();
            Ok(Const::new(c.dims.clone(), Elements::F32(values)))
        };
        let w = match alpha {
            1.0 => w,
            _ => Rc::new(scaled(&w, alpha)?),
        };
        let bias = match (bias, beta) {
            (Some(bias), beta) if beta != 1.0 => Some(Rc::new(scaled(&bias, beta)?)),
            (bias, _) => bias,
        };
        let filters = Filters {
            w: &w,
            axis: if transposed { 0 } else { 1 },
            bias: bias.as_deref(),
            target: self.target(node),
        };
        let y = self.dense(node, &x, &filters, transposed)?;
        match rows {
            // it differs from row to row
            Some(rows) => {
                let id = self.real_id(y.id)?;
                self.plus(node, &Value { id, ..y }, &scaled(&rows, beta)?)
            }
            None => Ok(y),
        }
    }

    pub(super) fn matmul(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        if let Some(a) = self.constant(node, 0)? {
            // (A x)^T = x^T A^T
            let x = self.value(node, 1)?;
            let ([_, _], [_, _]) = (&a.dims[..], &x.dims[..]) else {
                return Err("its first input is a constant, and one of them has not 2 axes".into());
            };
            let x = self.turned(&x, &[1, 0])?;
            let filters = Filters {
                w: &a,
                axis: 0,
                bias: None,
                target: self.target(node),
            };
            let y = self.dense(node, &x, &filters, true)?;
            return self.turned(&y, &[1, 0]);
        }
        let mut x = self.value(node, 0)?;
        let mut w = self.needed(node, 1, "second input")?;
        // vectors are matrices of one row, or of one column
        let (row, column) = (x.dims.len() == 1, w.dims.len() == 1);
        if row {
            let n = x.dims[0];
            x = x.reshaped(vec![1, n]);
        }
        if column {
            w = Rc::new(Const {
                dims: vec![w.dims[0], 1],
                ..Const::clone(&w)
            });
        }
        let y = self.matrices(node, &x, &w)?;
        if !row && !column {
            return Ok(y);
        }
        let mut dims = y.dims.clone();
        if column {
            dims.pop();
        }
        if row {
            let last = dims.len() - usize::from(!column);
            dims.remove(last - 1);
        }
        Ok(y.reshaped(dims))
    }

    fn matrices(&mut self, node: &Node<'a>, x: &Value, w: &Const) -> Result<Value, Reason> {
        let filters = Filters {
            w,
            axis: 1,
            bias: None,
            target: self.target(node),
        };
        self.dense(node, x, &filters, false)
    }

    /// Weights `[I, O]`, or `[O, I]` where they are transposed.
    pub(super) fn dense(
        &mut self,
        node: &Node<'a>,
        x: &Value,
        filters: &Filters<'_>,
        transposed: bool,
    ) -> Result<Value, Reason> {
        let w = filters.w;
        let (inputs, outputs) = match (&w.dims[..], transposed) {
            (&[i, o], false) | (&[o, i], true) => (i as usize, o as usize),
            _ => return Err(format!("its weights have {} axes, not 2", w.dims.len())),
        };
        let Some((&last, rows)) = x.dims.split_last() else {
            return Err("its first input has no axes".into());
        };
        if last as usize != inputs || inputs == 0 || outputs == 0 {
            return Err(format!(
                "its weights are {:?} for an input of {last} elements",
                w.dims
            ));
        }
        self.spend(8 * inputs + 8 * w.len())?;
        // where the elements lie in memory in another order, the columns of the weights do
        let one_row = x.len() == inputs;
        let (source, columns) = match one_row && !x.is_plain() {
            true => (x.id, x.order()),
            false => (self.plain(x)?, (0..inputs).collect()),
        };
        let step = |o: usize, i: usize| match transposed {
            true => o * inputs + i,
            false => i * outputs + o,
        };
        let columns = &columns;
        let order: Vec<usize> = (0..outputs)
            .flat_map(|o| columns.iter().map(move |&i| step(o, i)))
            .collect();
        let int8 = self.int8_layer(source, filters, outputs)?;
        let source = match int8 {
            Some(_) => source,
            None => self.real_id(source)?,
        };
        let mut operands = vec![source];
        let dims = [outputs as u32, inputs as u32];
        let constants = (&dims[..], &order[..]);
        operands.extend(self.layer_constants(node, filters, int8.as_ref(), constants, outputs)?);
        let op = Op::Dense(Dense {
            activation: Activation::None,
        });
        let id = match int8 {
            Some(layer) => self.emit_on(op, operands, node.name(), layer.target)?,
            None => self.emit(op, operands, node.name())?,
        };
        let mut dims = rows.to_vec();
        dims.push(outputs as u32);
        Ok(Value::plain(id, dims))
    }
}
