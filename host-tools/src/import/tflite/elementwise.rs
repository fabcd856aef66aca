//! Sums, products, functions of one element, and conversions between number systems.

use super::file::{Kind, Step};
use super::schema::{ArithmeticOptions, LeakyReluOptions, SoftmaxOptions};
use super::{Importer, Reason, fused};
use crate::graph::{Quant, TensorData, TensorId};
use crate::quantize::multiplier;
use foolproof::ops::{Add, LogSoftmax, Mul, Multiplier, Numerics, Op, Softmax, Unary};
use foolproof::tensor::DType;

const TOO_FAR: &str = "the scales of its operands are too far apart for 32-bit fixed point";

impl<'a> Importer<'a> {
    pub(super) fn add(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        let (activation, inputs) = self.pair(step)?;
        let mut add = Add::float(activation);
        if self.dtype(inputs[0]) == DType::I8 {
            let y = super::per_tensor(self.info(t))?;
            let (a, b) = (self.scale(inputs[0]), self.scale(inputs[1]));
            add =
                multiplier::add(self.graph.numerics, activation, [a, b, y.scale]).ok_or(TOO_FAR)?;
        }
        self.emit(Op::Add(add), inputs, t)
    }

    pub(super) fn mul(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        let (activation, inputs) = self.pair(step)?;
        let mut mul = Mul::float(activation);
        if self.dtype(inputs[0]) == DType::I8 {
            let y = super::per_tensor(self.info(t))?;
            let (a, b) = (self.scale(inputs[0]), self.scale(inputs[1]));
            mul.output = multiplier::mul(self.graph.numerics, a, b, y.scale).ok_or(TOO_FAR)?;
        }
        self.emit(Op::Mul(mul), inputs, t)
    }

    fn pair(
        &mut self,
        step: &Step<'a>,
    ) -> Result<(foolproof::ops::Activation, Vec<TensorId>), Reason> {
        self.no_uint8(step)?;
        let options = step.table.options::<ArithmeticOptions<'a>>();
        let activation = fused(options.and_then(|o| o.activation()))?;
        Ok((
            activation,
            vec![self.operand(step, 0)?, self.operand(step, 1)?],
        ))
    }

    pub(super) fn softmax(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        self.no_uint8(step)?;
        let options = step
            .table
            .options::<SoftmaxOptions<'a>>()
            .ok_or("it has no options")?;
        let beta = options.beta().unwrap_or(0.0);
        let x = self.operand(step, 0)?;
        let mut inputs = vec![x];
        let mut softmax = Softmax {
            beta,
            input: Multiplier::default(),
            diff_min: 0,
        };
        if self.dtype(x) == DType::I8 {
            (softmax.input, softmax.diff_min) = multiplier::softmax(beta, self.scale(x))
                .ok_or_else(|| format!("its beta is {beta}, or its input's scale out of range"))?;
            if self.graph.numerics == Numerics::Xnnpack {
                let table = Softmax::exponentials(beta, self.scale(x)).to_vec();
                let name = format!("{}.exponentials", self.info(t).name);
                self.spend(4 * table.len())?;
                inputs.push(self.vector(name, Quant::default(), 256, TensorData::F32(table))?);
            }
        }
        self.emit(Op::Softmax(softmax), inputs, t)
    }

    pub(super) fn log_softmax(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        self.no_uint8(step)?;
        let x = self.operand(step, 0)?;
        let mut softmax = LogSoftmax {
            input: Multiplier::default(),
            diff_min: 0,
            back: Multiplier::default(),
        };
        if self.dtype(x) == DType::I8 {
            (softmax.input, softmax.diff_min, softmax.back) =
                multiplier::log_softmax(self.scale(x))
                    .ok_or("its input's scale is out of range")?;
        }
        self.emit(Op::LogSoftmax(softmax), vec![x], t)
    }

    pub(super) fn leaky_relu(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        let options = step
            .table
            .options::<LeakyReluOptions<'a>>()
            .ok_or("it has no options")?;
        let alpha = options.alpha().unwrap_or(0.0);
        self.unary(Unary::LeakyRelu { alpha }, step, t)
    }

    pub(super) fn unary(
        &mut self,
        function: Unary,
        step: &Step<'a>,
        t: usize,
    ) -> Result<(), Reason> {
        self.no_uint8(step)?;
        let x = self.operand(step, 0)?;
        let int8 = self.dtype(x) == DType::I8;
        if int8
            && function == Unary::Relu6
            && self.graph.tensors[x].quant != super::per_tensor(self.info(t))?
        {
            return Err("its output has another grid than its input, and TFLite Micro does not rescale there".into());
        }
        self.apply(function, x, t)
    }

    /// A function of one element; in int8 with its table.
    fn apply(&mut self, function: Unary, x: TensorId, t: usize) -> Result<(), Reason> {
        let mut inputs = vec![x];
        if self.dtype(x) == DType::I8 {
            let y = self.define(t)?;
            // `emit` defines it again
            self.ids[t] = None;
            let grid = |q: &Quant| foolproof::tensor::Quant {
                scale: q.scale,
                zero_point: q.zero_point,
                channel_scales: &[],
            };
            let (from, to) = (&self.graph.tensors[x].quant, &self.graph.tensors[y].quant);
            let table = function.table(&grid(from), &grid(to), self.graph.numerics);
            let table = table.ok_or("its output's scale and zero point are not those that TFLite demands, or too far from its input's")?;
            let to = to.clone();
            self.spend(256 * 5)?;
            let name = self.info(t).name.clone();
            let (values, slopes) = (table.values.to_vec(), table.slopes.to_vec());
            inputs.push(self.vector(format!("{name}.table"), to, 256, TensorData::I8(values))?);
            inputs.push(self.vector(
                format!("{name}.slope"),
                Quant::default(),
                256,
                TensorData::F32(slopes),
            )?);
        }
        self.emit(Op::Unary(function), inputs, t)
    }

    /// QUANTIZE: to int8 or uint8, from f32 or from another grid.
    pub(super) fn quantize(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        let x = self.operand(step, 0)?;
        if !matches!(self.info(t).kind, Kind::I8 | Kind::U8) {
            return Err(format!(
                "it makes {}; int8 and uint8 are supported",
                self.info(t).kind.name()
            ));
        }
        if self.dtype(x) == DType::F32 {
            return self.emit(Op::Quantize, vec![x], t);
        }
        let y = self.define(t)?;
        self.ids[t] = None;
        if self.graph.tensors[x].quant == self.graph.tensors[y].quant
            && self.graph.tensors[x].shape == self.graph.tensors[y].shape
        {
            // from uint8 to int8 and back, often: the same steps
            self.ids[t] = Some(x);
            return Ok(());
        }
        self.apply(Unary::Requantize, x, t)
    }

    pub(super) fn dequantize(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        let source = self.input(step, 0)?;
        if self.info(source).data.is_some() {
            return self.dequantized(source, t);
        }
        let x = self.operand(step, 0)?;
        self.emit(Op::Dequantize, vec![x], t)
    }

    /// Weights that the file keeps in 16-bit floats or in int8, as float32.
    fn dequantized(&mut self, source: usize, t: usize) -> Result<(), Reason> {
        let info = self.info(source);
        let (Some(bytes), None) = (info.data, info.trouble) else {
            return Err(format!("its input `{}` cannot be read", info.name));
        };
        let own = super::shape(info)?;
        self.spend(4 * own.len())?;
        let values: Vec<f32> = match info.kind {
            Kind::F16 => {
                let pairs = bytes.chunks_exact(2).filter_map(|b| b.try_into().ok());
                pairs.map(|b| half(u16::from_le_bytes(b))).collect()
            }
            Kind::I8 => {
                let axis = usize::try_from(info.axis).unwrap_or(usize::MAX);
                let inner: usize = (axis.saturating_add(1)..own.rank())
                    .map(|i| own.dim(i))
                    .product();
                let (n, channels) = (info.scales.len(), own.dim(axis));
                if n == 0 || n != info.zero_points.len() || n != 1 && n != channels {
                    return Err(format!("its input `{}` has {n} scales", info.name));
                }
                let one = |(i, &b): (usize, &u8)| {
                    let c = if n == 1 { 0 } else { i / inner % n };
                    let steps = i64::from(b as i8).saturating_sub(info.zero_points[c]);
                    info.scales[c] * steps as f32
                };
                bytes.iter().enumerate().map(one).collect()
            }
            other => {
                return Err(format!(
                    "its constant input is {}; float16 and int8 are supported",
                    other.name()
                ));
            }
        };
        let name = self.info(t).name.clone();
        let data = TensorData::F32(values);
        let id = self.constant(name, own, Quant::default(), data)?;
        self.ids[t] = Some(id);
        Ok(())
    }
}

/// A 16-bit float (IEEE 754 binary16) as a 32-bit one: exactly.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction * 2_f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * 2_f32.powi(exponent - 25),
    };
    sign * magnitude
}

#[cfg(test)]
mod tests {
    #[test]
    fn half_precision_is_read_exactly() {
        for (bits, real) in [
            (0x0000, 0.0),
            (0x8000, -0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0x7bff, 65504.0),
            (0x7c00, f32::INFINITY),
        ] {
            assert_eq!(super::half(bits).to_bits(), f32::to_bits(real), "{bits:x}");
        }
        assert!(super::half(0x7e00).is_nan());
    }
}
