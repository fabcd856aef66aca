//! Functions of each element: sums and products, batch normalization, activations, softmax.

use super::node::{Node, axis};
use super::value::{Const, Elements, Layout, Value, long_axes, walk};
use super::{Importer, Reason};
use crate::graph::{TensorData, TensorId};
use foolproof::ops::{Activation, Add, LogSoftmax, Mul, Multiplier, Op, Softmax, Unary};

/// What is done with a constant.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    Plus,
    Times,
}

impl<'a> Importer<'a> {
    pub(super) fn arithmetic(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let (left, right) = (self.constant(node, 0)?, self.constant(node, 1)?);
        let map = |c: &Const, f: &dyn Fn(f32) -> f32| -> Result<Const, Reason> {
            let values = c.f32()?.iter().map(|&v| f(v)).collect();
            Ok(Const::new(c.dims.clone(), Elements::F32(values)))
        };
        match (node.operator, left, right) {
            ("Add", None, Some(c)) => self.with_constant(node, 0, &c, Step::Plus),
            ("Add", Some(c), None) => self.with_constant(node, 1, &c, Step::Plus),
            ("Mul", None, Some(c)) => self.with_constant(node, 0, &c, Step::Times),
            ("Mul", Some(c), None) => self.with_constant(node, 1, &c, Step::Times),
            ("Sub", None, Some(c)) => {
                let c = map(&c, &|v| -v)?;
                self.with_constant(node, 0, &c, Step::Plus)
            }
            ("Div", None, Some(c)) => {
                let c = map(&c, &|v| 1.0 / v)?;
                self.with_constant(node, 0, &c, Step::Times)
            }
            ("Sub", Some(c), None) => {
                let x = self.real(node, 1)?;
                let negative = self.negative(node, &x)?;
                self.apply(node, &negative, &c, Step::Plus)
            }
            ("Div", Some(c), None) => {
                let x = self.real(node, 1)?;
                let inverse = self.of(node, &x, Unary::Reciprocal)?;
                self.apply(node, &inverse, &c, Step::Times)
            }
            ("Div", None, None) => {
                let (a, b) = (self.real(node, 0)?, self.real(node, 1)?);
                let inverse = self.of(node, &b, Unary::Reciprocal)?;
                self.product(node, &a, &inverse)
            }
            ("Add" | "Mul" | "Sub", None, None) => self.both(node),
            _ => Err("both of its inputs are constants".into()),
        }
    }

    fn negative(&mut self, node: &Node<'a>, x: &Value) -> Result<Value, Reason> {
        let minus = TensorData::F32(vec![-1.0]);
        let minus = self.fixed(format!("{}.minus", node.name()), &[1], minus)?;
        let op = Op::Mul(Mul::float(Activation::None));
        let id = self.emit(op, vec![x.id, minus], format!("{}.negative", node.name()))?;
        Ok(Value { id, ..x.clone() })
    }

    /// Two activations, with NumPy's broadcasting.
    fn both(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let (a, b) = (self.value(node, 0)?, self.value(node, 1)?);
        if self.is_int8(a.id)
            && self.is_int8(b.id)
            && node.operator != "Sub"
            && let Some(target) = self.target(node)
        {
            return self.int8_pair(node, (&a, &b), node.operator == "Mul", target);
        }
        let (a, mut b) = (self.real(node, 0)?, self.real(node, 1)?);
        let op = match node.operator {
            "Mul" => Op::Mul(Mul::float(Activation::None)),
            _ => Op::Add(Add::float(Activation::None)),
        };
        if node.operator == "Sub" {
            b = self.negative(node, &b)?;
        }
        let (left, right, dims, axes) = self.side_by_side(&a, &b)?;
        let id = self.emit(op, vec![left, right], node.name())?;
        Ok(match axes {
            Some(axes) => Value::new(id, dims, &axes),
            None => Value { id, ..a },
        })
    }

    /// Two activations as operands of an operator that broadcasts; the dimensions of its output, and the order of its axes in memory
    /// where it is not that of the first.
    #[allow(clippy::type_complexity)]
    pub(super) fn side_by_side(
        &mut self,
        a: &Value,
        b: &Value,
    ) -> Result<(TensorId, TensorId, Vec<u32>, Option<Vec<usize>>), Reason> {
        if a.dims == b.dims && a.layout == b.layout {
            let dims = self.graph.tensors[a.id].shape;
            let right = self.shaped(b.id, dims.dims())?;
            return Ok((a.id, right, a.dims.clone(), None));
        }
        let rank = a.dims.len().max(b.dims.len());
        let extended = |v: &Value| {
            let mut dims = vec![1; rank - v.dims.len()];
            dims.extend(&v.dims);
            v.reshaped(dims)
        };
        let (a, b) = (extended(a), extended(b));
        let mut dims = Vec::new();
        for (&da, &db) in a.dims.iter().zip(&b.dims) {
            if da != db && da != 1 && db != 1 {
                return Err(format!(
                    "its inputs have dimensions {:?} and {:?}",
                    a.dims, b.dims
                ));
            }
            dims.push(da.max(db));
        }
        // the order in memory of the larger one, with the axes of length 1 in front
        let leader = if a.len() >= b.len() { &a } else { &b };
        let long = match &leader.layout {
            Layout::Axes(long) => long.clone(),
            Layout::Scattered { .. } => long_axes(&leader.dims),
        };
        let mut axes: Vec<usize> = (0..rank).filter(|axis| !long.contains(axis)).collect();
        axes.extend(long);
        let (left, right) = (self.arranged(&a, &axes)?, self.arranged(&b, &axes)?);
        Ok((left, right, dims, Some(axes)))
    }

    /// Input `i` plus or times a constant; part of the layer before where nothing else reads that.
    fn with_constant(
        &mut self,
        node: &Node<'a>,
        i: usize,
        c: &Const,
        step: Step,
    ) -> Result<Value, Reason> {
        let x = self.value(node, i)?;
        if self.is_own(node, i) && self.absorb(&x, c, step)? {
            return Ok(x);
        }
        let x = self.real(node, i)?;
        self.apply(node, &x, c, step)
    }

    /// Multiplies a layer's weights and bias, or adds to its bias; false where `x` is not a layer's, or the constant differs
    /// within a channel.
    fn absorb(&mut self, x: &Value, c: &Const, step: Step) -> Result<bool, Reason> {
        let Some(k) = self.graph.nodes.iter().rposition(|n| n.output == x.id) else {
            return Ok(false);
        };
        if self.is_int8(x.id) {
            return Ok(false);
        }
        let layer = &self.graph.nodes[k];
        let (activation, depthwise) = match layer.op {
            Op::Conv2d(conv) => (conv.activation, false),
            Op::DepthwiseConv2d(conv) => (conv.activation, true),
            Op::ConvTranspose2d(conv) => (conv.activation, false),
            Op::Dense(dense) => (dense.activation, false),
            _ => return Ok(false),
        };
        let (w, b) = (layer.inputs[1], layer.inputs[2]);
        let channels = self.graph.tensors[x.id].shape.channels();
        let (Layout::Axes(axes), true) = (&x.layout, c.dims.len() <= x.dims.len()) else {
            return Ok(false);
        };
        let shift = x.dims.len() - c.dims.len();
        let varies: Vec<usize> = long_axes(&c.dims).iter().map(|a| a + shift).collect();
        let per_channel = match varies[..] {
            [] => true,
            [axis] => {
                axes.last() == Some(&axis)
                    && x.dims[axis] as usize == channels
                    && c.len() == channels
            }
            _ => false,
        };
        if activation != Activation::None || !per_channel {
            return Ok(false);
        }
        let values = c.f32()?;
        if values.is_empty() {
            return Err("a constant of it is empty".into());
        }
        let value = |channel: usize| values[channel % values.len()];
        let bias = floats(&mut self.graph.tensors[b].data);
        for (channel, bias) in bias.iter_mut().enumerate() {
            match step {
                Step::Plus => *bias += value(channel),
                Step::Times => *bias *= value(channel),
            }
        }
        if step == Step::Times {
            let weights = floats(&mut self.graph.tensors[w].data);
            let row = (weights.len() / channels).max(1);
            for (i, weight) in weights.iter_mut().enumerate() {
                *weight *= value(if depthwise { i % channels } else { i / row });
            }
        }
        Ok(true)
    }

    /// `x` plus a constant.
    pub(super) fn plus(&mut self, node: &Node<'a>, x: &Value, c: &Const) -> Result<Value, Reason> {
        self.apply(node, x, c, Step::Plus)
    }

    /// `x` times a constant.
    pub(super) fn times(&mut self, node: &Node<'a>, x: &Value, c: &Const) -> Result<Value, Reason> {
        self.apply(node, x, c, Step::Times)
    }

    /// `x` plus or times a constant, as an operator.
    fn apply(
        &mut self,
        node: &Node<'a>,
        x: &Value,
        c: &Const,
        step: Step,
    ) -> Result<Value, Reason> {
        let op = match step {
            Step::Plus => Op::Add(Add::float(Activation::None)),
            Step::Times => Op::Mul(Mul::float(Activation::None)),
        };
        let missing = c.dims.len().saturating_sub(x.dims.len());
        let wider = c.dims[..missing].iter().any(|&d| d != 1)
            || c.dims[missing..]
                .iter()
                .rev()
                .zip(x.dims.iter().rev())
                .any(|(&c, &x)| x == 1 && c != 1);
        if wider {
            // the activation is the one that repeats
            let name = format!("{}.constant", self.part_name(node));
            let dims = if c.dims.is_empty() { &[1] } else { &c.dims[..] };
            let id = self.parameter(name, dims, c.f32()?.into_owned())?;
            let constant = Value::plain(id, c.dims.clone());
            let plain = Value::plain(self.plain(x)?, x.dims.clone());
            let rank = c.dims.len().max(x.dims.len());
            let (x_dims, c_dims) = (extended(&x.dims, rank), extended(&c.dims, rank));
            let fits = |(&a, &b): (&u32, &u32)| a == b || a == 1 || b == 1;
            if !x_dims.iter().zip(&c_dims).all(fits) {
                return Err(format!(
                    "its constant has dimensions {:?}, its input {:?}",
                    c.dims, x.dims
                ));
            }
            let left = self.shaped(plain.id, &x_dims)?;
            // constants have no views: its shape is given anew
            self.graph.tensors[constant.id].shape =
                foolproof::tensor::Shape::new(&c_dims).ok_or("it has too many axes")?;
            let id = self.emit(op, vec![left, constant.id], self.part_name(node))?;
            let dims = x_dims
                .iter()
                .zip(&c_dims)
                .map(|(&a, &b)| a.max(b))
                .collect();
            return Ok(Value::plain(id, dims));
        }
        let (input, dims, data) = self.beside(x, c)?;
        let constant = self.parameter(format!("{}.constant", node.name()), &dims, data)?;
        let id = self.emit(op, vec![input, constant], node.name())?;
        Ok(Value { id, ..x.clone() })
    }

    /// The activation as a tensor with a batch of 1 in front, and the constant in the order and with the axes of that tensor.
    fn beside(&mut self, x: &Value, c: &Const) -> Result<(TensorId, Vec<u32>, Vec<f32>), Reason> {
        let values = c.f32()?;
        let shift = c
            .dims
            .iter()
            .take_while(|&&d| d == 1)
            .count()
            .min(c.dims.len());
        let short = &c.dims[shift..];
        let Some(missing) = x.dims.len().checked_sub(short.len()) else {
            return Err("its constant has more axes than its input".into());
        };
        let mut dims = vec![1; missing];
        dims.extend(short);
        if dims.iter().zip(&x.dims).any(|(&c, &x)| c != 1 && c != x) {
            return Err(format!(
                "its constant has dimensions {:?}, its input {:?}",
                c.dims, x.dims
            ));
        }
        let (view, order) = x.view();
        let long: Vec<u32> = order.iter().map(|&a| view[a]).collect();
        let stored = self.graph.tensors[x.id].shape;
        let same = |dims: &[u32]| dims.iter().filter(|&&d| d != 1).eq(long.iter());
        let input = match stored.rank() > 0 && stored.dim(0) == 1 && same(stored.dims()) {
            true => x.id,
            false => self.shaped(x.id, &[&[1], &long[..]].concat())?,
        };
        let stored = self.graph.tensors[input].shape;
        if let Layout::Axes(axes) = &x.layout {
            let mut next = axes.iter();
            let along = |&d: &u32| match d {
                1 => 1,
                _ => next.next().map_or(1, |&axis| dims[axis]),
            };
            let placed: Vec<u32> = stored.dims().iter().map(along).collect();
            self.spend(12 * values.len())?;
            let data = walk(&dims, axes).iter().map(|&i| values[i]).collect();
            return Ok((input, placed, data));
        }
        // every element has its own
        self.spend(24 * x.len())?;
        let mut all = vec![0];
        for (axis, &d) in x.dims.iter().enumerate() {
            let step: usize = dims[axis + 1..].iter().map(|&d| d as usize).product();
            let step = if dims[axis] == 1 { 0 } else { step };
            all = all
                .iter()
                .flat_map(|&at: &usize| (0..d as usize).map(move |i| at + i * step))
                .collect();
        }
        let data = x.order().iter().map(|&i| values[all[i]]).collect();
        Ok((input, stored.dims().to_vec(), data))
    }

    /// `gamma (x - mean) / sqrt(variance + epsilon) + beta` per channel, with the statistics of training.
    pub(super) fn batch_norm(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        if node.int("training_mode", 0) != 0 || node.int("spatial", 1) != 1 {
            return Err("it normalizes by its own batch, or each element for itself".into());
        }
        let mut x = self.real(node, 0)?;
        let channels = *x.dims.get(1).ok_or("its input has no channels")?;
        let mut constants = Vec::new();
        for (i, what) in [(1, "scale"), (2, "bias"), (3, "mean"), (4, "variance")] {
            let c = self.needed(node, i, what)?;
            if c.len() != channels as usize {
                return Err(format!(
                    "its {what} has {} elements for {channels} channels",
                    c.len()
                ));
            }
            constants.push(c);
        }
        let [gamma, beta, mean, variance] = &constants[..] else {
            return Err("it has too few inputs".into());
        };
        let (gamma, beta) = (gamma.f32()?, beta.f32()?);
        let (mean, variance) = (mean.f32()?, variance.f32()?);
        let epsilon = f64::from(node.float("epsilon", 1e-5));
        let (mut factors, mut shifts) = (Vec::new(), Vec::new());
        for i in 0..channels as usize {
            let factor = f64::from(gamma[i]) / (f64::from(variance[i]) + epsilon).sqrt();
            factors.push(factor as f32);
            shifts.push((f64::from(beta[i]) - f64::from(mean[i]) * factor) as f32);
        }
        if factors.iter().chain(&shifts).any(|v| !v.is_finite()) {
            return Err("its variance is negative, or a constant of it is not finite".into());
        }
        let mut dims = vec![1; x.dims.len()];
        dims[1] = channels;
        let mut own = self.is_own(node, 0);
        for (data, step) in [(factors, Step::Times), (shifts, Step::Plus)] {
            let c = Const::new(dims.clone(), Elements::F32(data));
            own = own && self.absorb(&x, &c, step)?;
            if !own {
                x = self.apply(node, &x, &c, step)?;
            }
        }
        Ok(x)
    }

    /// A function that the engine has; part of the operator before where that is a fused activation.
    pub(super) fn unary(&mut self, node: &Node<'a>, function: Unary) -> Result<Value, Reason> {
        let x = self.value(node, 0)?;
        let fused = match function {
            Unary::Relu => Activation::Relu,
            Unary::Relu6 => Activation::Relu6,
            _ => Activation::None,
        };
        let own = fused != Activation::None && self.is_own(node, 0);
        let before = self.graph.nodes.iter_mut().rfind(|n| n.output == x.id);
        if let (Some(before), true) = (before, own) {
            let place = match &mut before.op {
                Op::Conv2d(conv) => Some(&mut conv.activation),
                Op::DepthwiseConv2d(conv) => Some(&mut conv.activation),
                Op::ConvTranspose2d(conv) => Some(&mut conv.activation),
                Op::Dense(dense) => Some(&mut dense.activation),
                Op::Add(add) => Some(&mut add.activation),
                Op::Mul(mul) => Some(&mut mul.activation),
                _ => None,
            };
            if let Some(place) = place.filter(|place| **place == Activation::None) {
                *place = fused;
                return Ok(x);
            }
        }
        if self.is_int8(x.id)
            && let Some(target) = self.target(node)
        {
            let id = self.table(function, x.id, target, node.name())?;
            return Ok(Value { id, ..x });
        }
        let id = self.real_id(x.id)?;
        let id = self.emit(Op::Unary(function), vec![id], node.name())?;
        Ok(Value { id, ..x })
    }

    pub(super) fn leaky(&self, node: &Node<'a>) -> Result<Unary, Reason> {
        let alpha = node.float("alpha", 0.01);
        match alpha.is_finite() && alpha >= 0.0 {
            true => Ok(Unary::LeakyRelu { alpha }),
            false => Err(format!("its alpha is {alpha}; 0 and more are supported")),
        }
    }

    /// What Clip clips to: attributes before opset 11, inputs from then on.
    pub(super) fn bounds(&mut self, node: &Node<'a>) -> Result<(f32, f32), Reason> {
        let (mut low, mut high) = (node.float("min", f32::MIN), node.float("max", f32::MAX));
        for (i, bound) in [(1, &mut low), (2, &mut high)] {
            if node.has_input(i) {
                let c = self.needed(node, i, "bound")?;
                *bound = c.scalar().ok_or("its bound is not one number")?;
            }
        }
        Ok((low, high))
    }

    /// Over one axis; before opset 13 over that and all that follow it.
    pub(super) fn softmax(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let x = self.real(node, 0)?;
        let rank = x.dims.len();
        let none = Multiplier {
            mantissa: 0,
            shift: 0,
        };
        let op = match node.operator {
            "LogSoftmax" => Op::LogSoftmax(LogSoftmax {
                input: none,
                diff_min: 0,
                back: none,
            }),
            _ => Op::Softmax(Softmax {
                beta: 1.0,
                input: none,
                diff_min: 0,
            }),
        };
        let product = |dims: &[u32]| dims.iter().product::<u32>();
        if self.opset < 13 {
            let axis = axis(node.int("axis", 1), rank)?;
            let flat = [product(&x.dims[..axis]), product(&x.dims[axis..])];
            let plain = self.plain(&x)?;
            let rows = self.shaped(plain, &flat)?;
            let id = self.emit(op, vec![rows], node.name())?;
            return Ok(Value::plain(id, x.dims));
        }
        let axis = axis(node.int("axis", -1), rank)?;
        let mut axes: Vec<usize> = (0..rank).filter(|&a| a != axis).collect();
        axes.push(axis);
        let rows = self.arranged(&x, &axes)?;
        let id = self.emit(op, vec![rows], node.name())?;
        Ok(Value::new(id, x.dims, &axes))
    }
}

/// With axes of length 1 in front.
fn extended(dims: &[u32], rank: usize) -> Vec<u32> {
    let mut all = vec![1; rank - dims.len()];
    all.extend(dims);
    all
}

fn floats(data: &mut crate::graph::TensorData) -> &mut [f32] {
    match data {
        crate::graph::TensorData::F32(v) => v,
        _ => &mut [],
    }
}
