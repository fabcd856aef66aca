//! Functions of each element: those that the engine has, and those that are made of them.

use super::node::Node;
use super::value::{Const, Elements, Value};
use super::{Importer, Reason};
use crate::graph::TensorData;
use foolproof::ops::{Activation, Add, Mul, Op, Unary};

impl<'a> Importer<'a> {
    pub(super) fn function(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let float = |name: &str, default: f32| node.float(name, default);
        match node.operator {
            "Relu" => self.unary(node, Unary::Relu),
            "LeakyRelu" => match float("alpha", 0.01) {
                alpha if alpha >= 0.0 => {
                    let leaky = self.leaky(node)?;
                    self.unary(node, leaky)
                }
                // the engine's slope is not negative
                alpha => {
                    let x = self.real(node, 0)?;
                    let slope = Const::new(vec![], Elements::F32(vec![alpha]));
                    self.leaning(node, &x, &slope)
                }
            },
            "Sigmoid" => self.unary(node, Unary::Sigmoid),
            "Tanh" => self.unary(node, Unary::Tanh),
            "Abs" => self.unary(node, Unary::Abs),
            "Exp" => self.unary(node, Unary::Exp),
            "Log" => self.unary(node, Unary::Log),
            "Sqrt" => self.unary(node, Unary::Sqrt),
            "Reciprocal" => self.unary(node, Unary::Reciprocal),
            "Softplus" => self.unary(node, Unary::Softplus),
            "Erf" => self.unary(node, Unary::Erf),
            "Elu" => {
                let alpha = float("alpha", 1.0);
                self.unary(node, Unary::Elu { alpha })
            }
            "Clip" => match self.bounds(node)? {
                (0.0, 6.0) => self.unary(node, Unary::Relu6),
                (0.0, high) if high >= f32::MAX => self.unary(node, Unary::Relu),
                (low, high) if low <= f32::MIN && high >= f32::MAX => self.value(node, 0),
                (low, high) => {
                    // where they are in the wrong order, the upper one counts
                    let low = low.min(high);
                    self.unary(node, Unary::Clip { low, high })
                }
            },
            _ => {
                let x = self.real(node, 0)?;
                self.composed(node, &x)
            }
        }
    }

    fn composed(&mut self, node: &Node<'a>, x: &Value) -> Result<Value, Reason> {
        let float = |name: &str, default: f32| node.float(name, default);
        match node.operator {
            "Neg" => self.scaled(node, x, -1.0),
            "Selu" => {
                let alpha = float("alpha", 1.673_263_2);
                let y = self.of(node, x, Unary::Elu { alpha })?;
                self.scaled(node, &y, float("gamma", 1.050_701))
            }
            "Celu" => {
                let alpha = float("alpha", 1.0);
                let y = self.scaled(node, x, 1.0 / alpha)?;
                let y = self.of(node, &y, Unary::Elu { alpha: 1.0 })?;
                self.scaled(node, &y, alpha)
            }
            "HardSigmoid" => self.hard_sigmoid(node, x, float("alpha", 0.2), float("beta", 0.5)),
            "HardSwish" => {
                let gate = self.hard_sigmoid(node, x, 1.0 / 6.0, 0.5)?;
                self.product(node, x, &gate)
            }
            "Swish" => {
                let y = match float("alpha", 1.0) {
                    1.0 => x.clone(),
                    alpha => self.scaled(node, x, alpha)?,
                };
                let gate = self.of(node, &y, Unary::Sigmoid)?;
                self.product(node, x, &gate)
            }
            "Mish" => {
                let y = self.of(node, x, Unary::Softplus)?;
                let gate = self.of(node, &y, Unary::Tanh)?;
                self.product(node, x, &gate)
            }
            "Softsign" => {
                let y = self.of(node, x, Unary::Abs)?;
                let y = self.shifted(node, &y, 1.0)?;
                let y = self.of(node, &y, Unary::Reciprocal)?;
                self.product(node, x, &y)
            }
            "Gelu" => {
                let y = match node.text("approximate") {
                    Some(b"tanh") => {
                        let cube = self.product(node, x, x)?;
                        let cube = self.product(node, &cube, x)?;
                        let cube = self.scaled(node, &cube, 0.044_715)?;
                        let y = self.sum(node, x, &cube)?;
                        let factor = (2.0 / std::f32::consts::PI).sqrt();
                        let y = self.scaled(node, &y, factor)?;
                        self.of(node, &y, Unary::Tanh)?
                    }
                    _ => {
                        let y = self.scaled(node, x, std::f32::consts::FRAC_1_SQRT_2)?;
                        self.of(node, &y, Unary::Erf)?
                    }
                };
                let y = self.shifted(node, &y, 1.0)?;
                let y = self.product(node, x, &y)?;
                self.scaled(node, &y, 0.5)
            }
            "PRelu" => {
                let slope = self.needed(node, 1, "slope")?;
                self.leaning(node, x, &slope)
            }
            "Pow" => self.power(node, x),
            _ => Err("it is not supported".into()),
        }
    }

    /// `max(0, x) - slope max(0, -x)`.
    fn leaning(&mut self, node: &Node<'a>, x: &Value, slope: &Const) -> Result<Value, Reason> {
        let right = self.of(node, x, Unary::Relu)?;
        let left = self.scaled(node, x, -1.0)?;
        let left = self.of(node, &left, Unary::Relu)?;
        let values = slope.f32()?.iter().map(|v| -v).collect();
        let slope = Const::new(slope.dims.clone(), Elements::F32(values));
        let left = self.times(node, &left, &slope)?;
        self.sum(node, &right, &left)
    }

    /// A constant power, the same for all elements: a whole one, or a root.
    fn power(&mut self, node: &Node<'a>, x: &Value) -> Result<Value, Reason> {
        let exponent = self.needed(node, 1, "exponent")?;
        let exponent = match (exponent.len(), exponent.scalar()) {
            (1, Some(e)) => e,
            (1, None) => exponent.whole(0) as f32,
            _ => return Err("its exponents differ from element to element".into()),
        };
        if exponent == 0.5 {
            return self.of(node, x, Unary::Sqrt);
        }
        if exponent == -0.5 {
            let y = self.of(node, x, Unary::Sqrt)?;
            return self.of(node, &y, Unary::Reciprocal);
        }
        if exponent == -1.0 {
            return self.of(node, x, Unary::Reciprocal);
        }
        if exponent.fract() != 0.0 || !(1.0..=8.0).contains(&exponent) {
            return Err(format!(
                "its exponent is {exponent}; 1 to 8, -1, 0.5 and -0.5 are supported"
            ));
        }
        let mut y = x.clone();
        for _ in 1..exponent as u32 {
            y = self.product(node, &y, x)?;
        }
        Ok(y)
    }

    fn hard_sigmoid(
        &mut self,
        node: &Node<'a>,
        x: &Value,
        alpha: f32,
        beta: f32,
    ) -> Result<Value, Reason> {
        let y = self.scaled(node, x, alpha)?;
        let y = self.shifted(node, &y, beta)?;
        self.of(
            node,
            &y,
            Unary::Clip {
                low: 0.0,
                high: 1.0,
            },
        )
    }

    /// A function of an f32 activation.
    pub(super) fn of(&mut self, node: &Node<'a>, x: &Value, f: Unary) -> Result<Value, Reason> {
        let id = self.emit(Op::Unary(f), vec![x.id], self.part_name(node))?;
        Ok(Value { id, ..x.clone() })
    }

    /// An f32 activation times a number.
    pub(super) fn scaled(&mut self, node: &Node<'a>, x: &Value, by: f32) -> Result<Value, Reason> {
        self.with_number(node, x, Op::Mul(Mul::float(Activation::None)), by)
    }

    /// An f32 activation plus a number.
    pub(super) fn shifted(&mut self, node: &Node<'a>, x: &Value, by: f32) -> Result<Value, Reason> {
        self.with_number(node, x, Op::Add(Add::float(Activation::None)), by)
    }

    fn with_number(
        &mut self,
        node: &Node<'a>,
        x: &Value,
        op: Op,
        number: f32,
    ) -> Result<Value, Reason> {
        let name = self.part_name(node);
        let number = TensorData::F32(vec![number]);
        let number = self.fixed(format!("{name}.number"), &[1], number)?;
        let id = self.emit(op, vec![x.id, number], name)?;
        Ok(Value { id, ..x.clone() })
    }

    /// The sum of two f32 activations, with NumPy's broadcasting.
    pub(super) fn sum(&mut self, node: &Node<'a>, a: &Value, b: &Value) -> Result<Value, Reason> {
        self.joint(node, a, b, Op::Add(Add::float(Activation::None)))
    }

    /// The product of two f32 activations, with NumPy's broadcasting.
    pub(super) fn product(
        &mut self,
        node: &Node<'a>,
        a: &Value,
        b: &Value,
    ) -> Result<Value, Reason> {
        self.joint(node, a, b, Op::Mul(Mul::float(Activation::None)))
    }

    fn joint(&mut self, node: &Node<'a>, a: &Value, b: &Value, op: Op) -> Result<Value, Reason> {
        let (left, right, dims, axes) = self.side_by_side(a, b)?;
        let id = self.emit(op, vec![left, right], self.part_name(node))?;
        Ok(match axes {
            Some(axes) => Value::new(id, dims, &axes),
            None => Value { id, ..a.clone() },
        })
    }

    /// Max, Min, Sum, Mean of activations and constants.
    pub(super) fn several(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let mut y: Option<Value> = None;
        let mut constants = Vec::new();
        for i in 0..node.inputs.len() {
            if let Some(c) = self.constant(node, i)? {
                constants.push(c);
                continue;
            }
            let x = self.real(node, i)?;
            y = Some(match y {
                None => x,
                Some(y) => match node.operator {
                    "Sum" | "Mean" => self.sum(node, &y, &x)?,
                    // max(a, b) = a + max(0, b - a)
                    name => {
                        let sign = if name == "Max" { 1.0 } else { -1.0 };
                        let minus = self.scaled(node, &y, -sign)?;
                        let x = self.scaled(node, &x, sign)?;
                        let more = self.sum(node, &x, &minus)?;
                        let more = self.of(node, &more, Unary::Relu)?;
                        let more = self.scaled(node, &more, sign)?;
                        self.sum(node, &y, &more)?
                    }
                },
            });
        }
        let mut y = y.ok_or("all of its inputs are constants")?;
        for c in constants {
            y = match node.operator {
                "Sum" | "Mean" => self.plus(node, &y, &c)?,
                name => match c.scalar() {
                    Some(low) if name == "Max" => {
                        let high = f32::INFINITY;
                        self.of(node, &y, Unary::Clip { low, high })?
                    }
                    Some(high) => {
                        let low = f32::NEG_INFINITY;
                        self.of(node, &y, Unary::Clip { low, high })?
                    }
                    // max(x, c) = c + max(0, x - c); min(x, c) = c - max(0, c - x)
                    None => {
                        let sign = if name == "Max" { 1.0 } else { -1.0 };
                        let minus = c.f32()?.iter().map(|v| -v).collect();
                        let minus = Const::new(c.dims.clone(), Elements::F32(minus));
                        let more = self.plus(node, &y, &minus)?;
                        let more = self.scaled(node, &more, sign)?;
                        let more = self.of(node, &more, Unary::Relu)?;
                        let more = self.scaled(node, &more, sign)?;
                        self.plus(node, &more, &c)?
                    }
                },
            };
        }
        match node.operator {
            "Mean" => self.scaled(node, &y, 1.0 / node.inputs.len() as f32),
            _ => Ok(y),
        }
    }

    /// A name for one of several tensors that an operator becomes.
    pub(super) fn part_name(&self, node: &Node<'a>) -> String {
        format!("{}.{}", node.name(), self.graph.nodes.len())
    }
}
