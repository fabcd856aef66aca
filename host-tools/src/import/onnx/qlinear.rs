//! Operators of QOperator files: every tensor with its scale and zero point beside it. Most are of the domain `com.microsoft`, whose
//! order of inputs is ONNX Runtime's.

use super::node::Node;
use super::quantized::{Filters, TOO_FAR};
use super::value::{Const, Grid, Value};
use super::{Importer, Reason};
use crate::graph::Quant;
use crate::quantize::multiplier;
use foolproof::ops::{Activation, Mul, Op, Unary};
use std::rc::Rc;

impl<'a> Importer<'a> {
    pub(super) fn qlinear(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        match node.operator {
            "QLinearConv" => self.qlinear_conv(node),
            "QLinearMatMul" => self.qlinear_matmul(node),
            "QGemm" => self.qgemm(node),
            "QLinearAdd" | "QLinearMul" => self.qlinear_pair(node),
            "QLinearSigmoid" | "QLinearLeakyRelu" => self.qlinear_unary(node),
            "QLinearAveragePool" | "QLinearGlobalAveragePool" => self.qlinear_average(node),
            "QLinearConcat" => self.qlinear_concat(node),
            _ => Err("it is not supported".into()),
        }
    }

    /// The grid of the output from inputs `scale` and `zero`; the output is whole numbers on it.
    fn answer(&mut self, node: &Node<'a>, scale: usize, zero: usize) -> Result<Quant, Reason> {
        let (grid, unsigned) = self.grid_at(node, scale, zero)?;
        self.raw.insert(node.outputs[0], unsigned);
        Ok(grid)
    }

    /// Weights with the grid that inputs `scale` and `zero` say.
    fn weights_at(&mut self, node: &Node<'a>, i: usize, axis: i64) -> Result<Const, Reason> {
        let w = self.needed(node, i, "weights")?;
        let (grid, _) = self.grid_of(node, &w, (i + 1, i + 2), axis)?;
        Ok(Const {
            grid: Some(grid),
            ..Const::clone(&w)
        })
    }

    /// An int32 bias in steps of input times weight.
    fn bias_at(
        &mut self,
        node: &Node<'a>,
        i: usize,
        x: &Value,
        w: &Const,
    ) -> Result<Option<Rc<Const>>, Reason> {
        if !node.has_input(i) {
            return Ok(None);
        }
        let bias = self.needed(node, i, "bias")?;
        let x_scale = self.graph.tensors[x.id].quant.scale;
        let scales: Vec<f32> = match &w.grid {
            Some(grid) => grid.scales.iter().map(|s| x_scale * s).collect(),
            None => return Err("its weights have no scale".into()),
        };
        let grid = Grid {
            zero_points: vec![0; scales.len()],
            scales,
            axis: bias.dims.len().saturating_sub(1),
        };
        Ok(Some(Rc::new(Const {
            grid: Some(grid),
            ..Const::clone(&bias)
        })))
    }

    fn qlinear_conv(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let x = self.steps(node, 0, 1, 2)?;
        let w = self.weights_at(node, 3, 0)?;
        let bias = self.bias_at(node, 8, &x, &w)?;
        let target = self.answer(node, 6, 7)?;
        let filters = Filters {
            w: &w,
            axis: 0,
            bias: bias.as_deref(),
            target: Some(target),
        };
        let y = self.convolution(node, &x, &filters)?;
        self.must_be_int8(y)
    }

    /// A QOperator has no other form than int8.
    fn must_be_int8(&self, y: Value) -> Result<Value, Reason> {
        match self.is_int8(y.id) {
            true => Ok(y),
            false => Err("its weights minus their zero point do not fit in int8, or have scales along another axis than its outputs".into()),
        }
    }

    fn qlinear_matmul(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let x = self.steps(node, 0, 1, 2)?;
        let w = self.weights_at(node, 3, -1)?;
        let target = self.answer(node, 6, 7)?;
        let filters = Filters {
            w: &w,
            axis: 1,
            bias: None,
            target: Some(target),
        };
        let y = self.dense(node, &x, &filters, false)?;
        self.must_be_int8(y)
    }

    fn qgemm(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        if node.int("transA", 0) != 0 || node.float("alpha", 1.0) != 1.0 {
            return Err("its first input is transposed, or its alpha is not 1".into());
        }
        let transposed = node.int("transB", 0) != 0;
        let x = self.steps(node, 0, 1, 2)?;
        let w = self.weights_at(node, 3, if transposed { 0 } else { 1 })?;
        let bias = self.bias_at(node, 6, &x, &w)?;
        let target = match node.has_input(7) {
            true => Some(self.answer(node, 7, 8)?),
            false => None,
        };
        let wanted = target.is_some();
        let filters = Filters {
            w: &w,
            axis: if transposed { 0 } else { 1 },
            bias: bias.as_deref(),
            target,
        };
        let y = self.dense(node, &x, &filters, transposed)?;
        match wanted {
            true => self.must_be_int8(y),
            false => Ok(y),
        }
    }

    fn qlinear_pair(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        if self.constant(node, 0)?.is_some() || self.constant(node, 3)?.is_some() {
            return Err("it is supported for two activations only".into());
        }
        let (a, b) = (self.steps(node, 0, 1, 2)?, self.steps(node, 3, 4, 5)?);
        let target = self.answer(node, 6, 7)?;
        self.int8_pair(node, (&a, &b), node.operator == "QLinearMul", target)
    }

    /// The sum or the product of two int8 activations.
    pub(super) fn int8_pair(
        &mut self,
        node: &Node<'a>,
        (a, b): (&Value, &Value),
        product: bool,
        target: Quant,
    ) -> Result<Value, Reason> {
        let scale = |v: &Value| self.graph.tensors[v.id].quant.scale;
        let (sa, sb) = (scale(a), scale(b));
        let numerics = self.graph.numerics;
        let op = match product {
            true => Op::Mul(Mul {
                output: multiplier::mul(numerics, sa, sb, target.scale).ok_or(TOO_FAR)?,
                ..Mul::float(Activation::None)
            }),
            false => {
                let scales = [sa, sb, target.scale];
                Op::Add(multiplier::add(numerics, Activation::None, scales).ok_or(TOO_FAR)?)
            }
        };
        let (left, right, dims, axes) = self.side_by_side(a, b)?;
        let id = self.emit_on(op, vec![left, right], node.name(), target)?;
        Ok(match axes {
            Some(axes) => Value::new(id, dims, &axes),
            None => Value { id, ..a.clone() },
        })
    }

    fn qlinear_unary(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let x = self.steps(node, 0, 1, 2)?;
        let function = match node.operator {
            "QLinearSigmoid" => Unary::Sigmoid,
            _ => self.leaky(node)?,
        };
        let target = self.answer(node, 3, 4)?;
        let id = self.table(function, x.id, target, node.name())?;
        Ok(Value { id, ..x })
    }

    fn qlinear_average(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        if node.int("channels_last", 0) != 0 {
            return Err("its image has the channels last".into());
        }
        let x = self.steps(node, 0, 1, 2)?;
        let target = self.answer(node, 3, 4)?;
        match node.operator {
            "QLinearAveragePool" => self.pool_of(node, &x, Some(target)),
            _ => self.global_pool_of(node, &x, Some(target)),
        }
    }

    /// Output scale and zero point first, then each tensor with its own.
    fn qlinear_concat(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let target = self.answer(node, 0, 1)?;
        let mut inputs = Vec::new();
        for i in (2..node.inputs.len()).step_by(3) {
            let x = self.steps(node, i, i + 1, i + 2)?;
            let id = self.on_grid(x.id, &target, format!("{}.{i}", node.name()))?;
            inputs.push(Value { id, ..x });
        }
        self.joined(node, inputs)
    }
}
