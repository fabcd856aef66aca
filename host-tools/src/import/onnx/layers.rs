//! Convolutions and dense layers.

use super::node::Node;
use super::pool::Sliding;
use super::value::{Const, Value};
use super::{Importer, Reason};
use crate::graph::TensorId;
use foolproof::ops::{Activation, Conv2d, Dense, DepthwiseConv2d, Op};

impl<'a> Importer<'a> {
    /// Groups 1, and one group per input channel. Weights `[O, C/groups, kh, kw]`.
    pub(super) fn conv(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let x = self.value(node, 0)?;
        let w = self.needed(node, 1, "weights")?;
        let rank = x.dims.len();
        let (image, channels) = self.image(&x)?;
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
        if !depthwise && groups != 1 {
            return Err(format!(
                "it has {groups} groups; 1, and one per input channel are supported"
            ));
        }
        if outputs == 0
            || (!depthwise && share != channels)
            || (depthwise && !outputs.is_multiple_of(channels))
        {
            return Err(format!(
                "its weights are {:?} for {channels} input channels",
                w.dims
            ));
        }
        let window = Sliding::read(node, kernel, rank - 2)?;
        let dims = &self.graph.tensors[image].shape;
        let placed = window.over([dims.dim(1) as u32, dims.dim(2) as u32], false)?;
        let values = w.f32()?;
        let [kh, kw] = kernel;
        let cells = kh as usize * kw as usize;
        let (shape, data): (_, Vec<f32>) = if depthwise {
            let o = outputs as usize;
            let data = (0..values.len())
                .map(|i| values[i % o * cells + i / o])
                .collect();
            ([1, kh, kw, outputs], data)
        } else {
            // O, cells, C from O, C, cells
            let (c, row) = (share as usize, share as usize * cells);
            let from = |i: usize| i / row * row + i % c * cells + i % row / c;
            let data = (0..values.len()).map(|i| values[from(i)]).collect();
            ([outputs, kh, kw, share], data)
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
        let weights = self.parameter(format!("{}.weights", node.name()), &shape, data)?;
        let bias = self.constant(node, 2)?;
        if bias.is_none() && node.has_input(2) {
            return Err("its bias must be a constant".into());
        }
        let bias = self.bias(node, bias.as_deref(), outputs as usize, 1.0)?;
        let id = self.emit(op, vec![image, weights, bias], node.name())?;
        Ok(self.of_image(id, rank))
    }

    /// A bias of so many elements: one for all, one each, or none.
    fn bias(
        &mut self,
        node: &Node<'a>,
        bias: Option<&Const>,
        outputs: usize,
        factor: f32,
    ) -> Result<TensorId, Reason> {
        let data = match bias {
            None => vec![0.0; outputs],
            Some(bias) => {
                let values = bias.f32()?;
                if values.len() != outputs && values.len() != 1 {
                    return Err(format!(
                        "its bias has {} elements for {outputs} outputs",
                        values.len()
                    ));
                }
                (0..outputs)
                    .map(|o| factor * values[o % values.len()])
                    .collect()
            }
        };
        self.parameter(format!("{}.bias", node.name()), &[outputs as u32], data)
    }

    /// `alpha A B + beta C` with constant B and C.
    pub(super) fn gemm(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        if node.int("transA", 0) != 0 {
            return Err("its first input is transposed".into());
        }
        let x = self.value(node, 0)?;
        let w = self.needed(node, 1, "second input")?;
        if x.dims.len() != 2 {
            return Err(format!("its first input has {} axes, not 2", x.dims.len()));
        }
        let bias = self.constant(node, 2)?;
        if bias.is_none() && node.has_input(2) {
            return Err("its third input must be a constant".into());
        }
        if bias
            .as_ref()
            .is_some_and(|b| b.dims.iter().rev().skip(1).any(|&d| d != 1))
        {
            return Err("its third input differs from row to row".into());
        }
        let transposed = node.int("transB", 0) != 0;
        let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
        self.dense(
            node,
            &x,
            &w,
            transposed,
            alpha,
            bias.as_deref().map(|b| (b, beta)),
        )
    }

    pub(super) fn matmul(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        if self.constant(node, 0)?.is_some() {
            return Err("it is supported with a constant second input only".into());
        }
        let x = self.value(node, 0)?;
        let w = self.needed(node, 1, "second input")?;
        self.dense(node, &x, &w, false, 1.0, None)
    }

    /// Weights `[I, O]`, or `[O, I]` where they are transposed.
    fn dense(
        &mut self,
        node: &Node<'a>,
        x: &Value,
        w: &Const,
        transposed: bool,
        alpha: f32,
        bias: Option<(&Const, f32)>,
    ) -> Result<Value, Reason> {
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
        let values = w.f32()?;
        self.spend(8 * inputs)?;
        // where the elements lie in memory in another order, the columns of the weights do
        let one_row = x.len() == inputs;
        let (source, columns) = match one_row && !x.is_plain() {
            true => (x.id, x.order()),
            false => (self.plain(x)?, (0..inputs).collect()),
        };
        let step = |o: usize, i: usize| {
            if transposed {
                o * inputs + i
            } else {
                i * outputs + o
            }
        };
        let columns = &columns;
        let data = (0..outputs)
            .flat_map(|o| columns.iter().map(move |&i| alpha * values[step(o, i)]))
            .collect();
        let weights = self.parameter(
            format!("{}.weights", node.name()),
            &[outputs as u32, inputs as u32],
            data,
        )?;
        let (bias, beta) = bias.unzip();
        let bias = self.bias(node, bias, outputs, beta.unwrap_or(1.0))?;
        let activation = Activation::None;
        let id = self.emit(
            Op::Dense(Dense { activation }),
            vec![source, weights, bias],
            node.name(),
        )?;
        let mut dims = rows.to_vec();
        dims.push(outputs as u32);
        Ok(Value::plain(id, dims))
    }
}
