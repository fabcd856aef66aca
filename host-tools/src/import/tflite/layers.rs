//! Convolutions and dense layers, and what is imported as one.

use super::file::{Info, Kind, Step};
use super::schema::{Conv2dOptions, DenseOptions, DepthwiseOptions};
use super::window::Sliding;
use super::{Importer, Reason, fused, shape};
use crate::graph::{Quant, TensorData, TensorId};
use crate::quantize::multiplier;
use foolproof::ops::{
    Activation, Conv2d, Dense, DepthwiseConv2d, Multiplier, Numerics, Op, Padding, Pool2d,
};
use foolproof::tensor::{DType, Shape};

const TOO_FAR: &str = "the scales of its operands are too far apart for 32-bit fixed point";

/// Weights that were read, int8.
struct Weights {
    values: Vec<i8>,
    shape: Shape,
    /// One scale, or one per channel.
    scales: Vec<f32>,
    name: String,
}

impl<'a> Importer<'a> {
    pub(super) fn conv2d(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        let options = step
            .table
            .options::<Conv2dOptions<'a>>()
            .ok_or("it has no options")?;
        let x = self.operand(step, 0)?;
        let w = shape(self.info(self.input(step, 1)?))?;
        let window = Sliding {
            kernel: [w.dim(1) as u32, w.dim(2) as u32],
            stride: [options.stride_h(), options.stride_w()],
            dilation: [options.dilation_h(), options.dilation_w()],
            padding: options.padding(),
        };
        let placed = window.over(&self.graph.tensors[x].shape)?;
        let op = Op::Conv2d(Conv2d {
            stride: placed.stride,
            dilation: placed.dilation,
            padding: placed.padding,
            activation: fused(options.activation())?,
        });
        let inputs = self.layer(step, x, t, 0, w.dim(0))?;
        self.emit(op, inputs, t)
    }

    pub(super) fn depthwise(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        let options = step
            .table
            .options::<DepthwiseOptions<'a>>()
            .ok_or("it has no options")?;
        let x = self.operand(step, 0)?;
        let w = shape(self.info(self.input(step, 1)?))?;
        let window = Sliding {
            kernel: [w.dim(1) as u32, w.dim(2) as u32],
            stride: [options.stride_h(), options.stride_w()],
            dilation: [options.dilation_h(), options.dilation_w()],
            padding: options.padding(),
        };
        let placed = window.over(&self.graph.tensors[x].shape)?;
        let op = Op::DepthwiseConv2d(DepthwiseConv2d {
            stride: placed.stride,
            dilation: placed.dilation,
            padding: placed.padding,
            activation: fused(options.activation())?,
        });
        let inputs = self.layer(step, x, t, 3, w.dim(3))?;
        self.emit(op, inputs, t)
    }

    pub(super) fn dense(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        let options = step.table.options::<DenseOptions<'a>>();
        if options.is_some_and(|o| o.weights_format().unwrap_or(0) != 0) {
            return Err("its weights are shuffled".into());
        }
        let activation = fused(options.and_then(|o| o.activation()))?;
        let source = self.input(step, 0)?;
        let w = shape(self.info(self.input(step, 1)?))?;
        let transposed = self
            .transposed
            .get(&source)
            .filter(|_| self.ids[source].is_none());
        let transposed = transposed.and_then(|t| Some((t.source, t.order(w.dim(1))?)));
        let x = match &transposed {
            Some((source, _)) => *source,
            None => self.operand(step, 0)?,
        };
        let mut inputs = self.layer(step, x, t, 0, w.dim(0))?;
        if let Some((_, order)) = transposed {
            inputs[1] = self.permuted_columns(inputs[1], &order)?;
        }
        self.emit_reshaped(Op::Dense(Dense { activation }), inputs, t)
    }

    /// Weights `[O, I]` with column `order[i]` where column `i` was read from.
    fn permuted_columns(&mut self, w: TensorId, order: &[usize]) -> Result<TensorId, Reason> {
        let mut tensor = self.graph.tensors[w].clone();
        fn permuted<T: Copy + Default>(values: &[T], order: &[usize]) -> Vec<T> {
            let mut all = vec![T::default(); values.len()];
            for (to, from) in all
                .chunks_exact_mut(order.len())
                .zip(values.chunks_exact(order.len()))
            {
                for (&value, &column) in from.iter().zip(order) {
                    to[column] = value;
                }
            }
            all
        }
        tensor.data = match &tensor.data {
            TensorData::F32(v) => TensorData::F32(permuted(v, order)),
            TensorData::I8(v) => TensorData::I8(permuted(v, order)),
            _ => return Err("its weights are not a constant".into()),
        };
        self.spend(tensor.shape.len() * tensor.data.dtype().size())?;
        Ok(self.graph.add(tensor))
    }

    /// The operands of a convolution or dense layer behind `x`: the input, weights, bias, and for int8 the factors. `axis` is the
    /// axis of the weights with the output's `channels`.
    fn layer(
        &mut self,
        step: &Step<'a>,
        x: TensorId,
        t: usize,
        axis: i32,
        channels: usize,
    ) -> Result<Vec<TensorId>, Reason> {
        self.no_uint8(step)?;
        let w = self.info(self.input(step, 1)?);
        let bias = step.inputs.get(2).copied().flatten().map(|b| self.info(b));
        let (x_type, y_type) = (self.dtype(x), self.info(t).kind);
        match (x_type, w.kind, y_type) {
            (DType::F32, Kind::F32 | Kind::I8, Kind::F32) => {
                self.float_layer(step, x, axis, channels)
            }
            (DType::I8, Kind::I8, Kind::I8) => {
                let weights = weights(w, axis, channels)?;
                let bias = self.bias(bias, channels)?;
                let dense = step.code == 9;
                self.int8_layer(x, t, weights, bias, dense)
            }
            _ => Err(format!(
                "its input is {}, its weights {}, its output {}; all float32 or all int8 are supported",
                if x_type == DType::F32 {
                    "float32"
                } else {
                    "int8"
                },
                w.kind.name(),
                y_type.name(),
            )),
        }
    }

    /// Weights that the file keeps in int8 to save space are dequantized.
    fn float_layer(
        &mut self,
        step: &Step<'a>,
        x: TensorId,
        axis: i32,
        channels: usize,
    ) -> Result<Vec<TensorId>, Reason> {
        let info = self.info(self.input(step, 1)?);
        let w = match info.kind {
            Kind::I8 => {
                let w = weights(info, axis, channels)?;
                self.spend(4 * w.values.len())?;
                let inner = if axis == 0 {
                    w.values.len() / channels
                } else {
                    1
                };
                let scale = |i: usize| match &w.scales[..] {
                    &[scale] => scale,
                    several => several[i / inner % several.len()],
                };
                let real = w.values.iter().enumerate();
                let real = real.map(|(i, &q)| scale(i) * f32::from(q)).collect();
                self.constant(
                    w.name.clone(),
                    w.shape,
                    Quant::default(),
                    TensorData::F32(real),
                )?
            }
            _ => self.operand(step, 1)?,
        };
        let b = match step.inputs.get(2).copied().flatten() {
            Some(b) => self.tensor(b)?,
            None => {
                let data = TensorData::F32(vec![0.0; channels]);
                self.vector("no bias".into(), Quant::default(), channels, data)?
            }
        };
        Ok(vec![x, w, b])
    }

    /// An int32 bias; zeros where there is none. Its own scales are those of input and weights, whatever the file says about them.
    pub(super) fn bias(
        &mut self,
        bias: Option<&'a Info<'a>>,
        channels: usize,
    ) -> Result<(String, Vec<i32>), Reason> {
        let Some(bias) = bias else {
            return Ok(("no bias".into(), vec![0; channels]));
        };
        if let Some(trouble) = bias.trouble {
            return Err(format!("bias `{}`: {trouble}", bias.name));
        }
        let (Kind::I32, Some(bytes)) = (bias.kind, bias.data) else {
            return Err(format!(
                "bias `{}` is {}; a constant int32 is supported",
                bias.name,
                bias.kind.name()
            ));
        };
        self.spend(bytes.len())?;
        let words = bytes.chunks_exact(4).filter_map(|b| b.try_into().ok());
        Ok((bias.name.clone(), words.map(i32::from_le_bytes).collect()))
    }

    fn int8_layer(
        &mut self,
        x: TensorId,
        t: usize,
        weights: Weights,
        (bias_name, bias): (String, Vec<i32>),
        dense: bool,
    ) -> Result<Vec<TensorId>, Reason> {
        let channels = bias.len();
        let x_scale = self.scale(x);
        let y_scale = super::per_tensor(self.info(t))?.scale;
        let scales = &weights.scales;
        let (numerics, one) = (self.graph.numerics, scales.len() == 1);
        let factor = |s: f32| match dense {
            true => multiplier::dense(numerics, one, x_scale, s, y_scale),
            false => multiplier::convolution(numerics, x_scale, s, y_scale),
        };
        let factors: Option<Vec<Multiplier>> = match scales[..] {
            [s] => factor(s).map(|m| vec![m; channels]),
            _ => scales.iter().map(|&s| factor(s)).collect(),
        };
        let factors = factors.ok_or(TOO_FAR)?;
        let on = |scales: &[f32]| match scales {
            &[scale] => Quant {
                scale,
                ..Quant::default()
            },
            several => Quant {
                channel_scales: several.to_vec(),
                ..Quant::default()
            },
        };
        let products: Vec<f32> = scales.iter().map(|s| x_scale * s).collect();
        let (w_quant, b_quant) = (on(scales), on(&products));
        self.spend(weights.values.len() + 12 * channels)?;
        let w_name = weights.name;
        let w = self.constant(
            w_name.clone(),
            weights.shape,
            w_quant,
            TensorData::I8(weights.values),
        )?;
        let b = self.vector(bias_name, b_quant, channels, TensorData::I32(bias))?;
        let (mantissas, shifts) = factors.iter().map(|f| (f.mantissa, f.shift)).unzip();
        let none = Quant::default;
        let m = self.vector(
            format!("{w_name}.multiplier"),
            none(),
            channels,
            TensorData::I32(mantissas),
        )?;
        let s = self.vector(
            format!("{w_name}.shift"),
            none(),
            channels,
            TensorData::I32(shifts),
        )?;
        Ok(vec![x, w, b, m, s])
    }

    /// A constant with one axis.
    pub(super) fn vector(
        &mut self,
        name: String,
        quant: Quant,
        len: usize,
        data: TensorData,
    ) -> Result<TensorId, Reason> {
        let shape = u32::try_from(len).ok().and_then(|len| Shape::new(&[len]));
        self.constant(
            name,
            shape.ok_or("a constant without elements")?,
            quant,
            data,
        )
    }

    /// MEAN over any axes.
    pub(super) fn mean(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        self.no_uint8(step)?;
        let x = self.operand(step, 0)?;
        let axes = self.integers(step, 1)?;
        let (x, [outer, len, channels]) = self.reduced_axes(x, &axes)?;
        // rows and columns of an image: as many as 16 bits count
        let h = (1..=len)
            .rev()
            .find(|h| len % h == 0 && *h <= u32::from(u16::MAX));
        let h = h.unwrap_or(1);
        let w = len / h;
        let image = self.reshaped(x, &[outer, h, w, channels])?;
        let small = |v: u32| {
            u16::try_from(v)
                .map_err(|_| format!("an axis has {v} elements; at most 65535 are supported"))
        };
        let window = [small(h)?, small(w)?];
        if self.dtype(x) == DType::F32 {
            let pool = Pool2d {
                window,
                stride: [1, 1],
                padding: Padding::VALID,
                activation: Activation::None,
            };
            return self.emit_reshaped(Op::AvgPool2d(pool), vec![image], t);
        }
        let y = super::per_tensor(self.info(t))?;
        let n = len as usize;
        let x_quant = &self.graph.tensors[x].quant;
        let factor = mean_factor(self.graph.numerics, x_quant, &y, n);
        let (bias, factor) = factor.ok_or(TOO_FAR)?;
        let (channels, weights) = (channels as usize, n * channels as usize);
        self.spend(weights + 12 * channels)?;
        let name = self.info(t).name.clone();
        let share = Quant {
            scale: 1.0 / n as f32,
            ..Quant::default()
        };
        let shape =
            Shape::new(&[1, h, w, channels as u32]).ok_or("a shape that no tensor can have")?;
        let ones = self.constant(
            format!("{name}.ones"),
            shape,
            share,
            TensorData::I8(vec![1; weights]),
        )?;
        let mut constants = vec![image, ones];
        for (what, value) in [
            ("bias", bias),
            ("multiplier", factor.mantissa),
            ("shift", factor.shift),
        ] {
            let data = TensorData::I32(vec![value; channels]);
            constants.push(self.vector(
                format!("{name}.{what}"),
                Quant::default(),
                channels,
                data,
            )?);
        }
        let op = Op::DepthwiseConv2d(DepthwiseConv2d {
            stride: [1, 1],
            dilation: [1, 1],
            padding: Padding::VALID,
            activation: Activation::None,
        });
        self.emit_reshaped(op, constants, t)
    }
}

/// The factor of an int8 mean over `n` elements, as TFLite folds `1/n` into it (`QuantizedMeanOrSum`): a division that cuts off.
/// XNNPACK sums integers as they are and takes the zero points into account in single precision: then with the bias that undoes
/// the input's zero point.
fn mean_factor(numerics: Numerics, x: &Quant, y: &Quant, n: usize) -> Option<(i32, Multiplier)> {
    if numerics == Numerics::Xnnpack {
        let factor = x.scale / y.scale * (1.0 / n as f32);
        let zero_point = y.zero_point as f32 - (n as f32 * x.zero_point as f32) * factor;
        let bias = i32::try_from(n).ok()?.checked_mul(x.zero_point)?;
        return Some((bias, Multiplier::with_zero_point(factor, zero_point)));
    }
    let whole = multiplier::quantize_multiplier(f64::from(x.scale) / f64::from(y.scale))?;
    let bits = (n as u64).checked_ilog2()? as i32;
    let bits = bits.min(32).min(31 + whole.shift);
    let mantissa = (i64::from(whole.mantissa) << bits) / n as i64;
    let factor = Multiplier {
        mantissa: i32::try_from(mantissa).ok()?,
        shift: whole.shift - bits,
    };
    Some((0, factor))
}

/// int8 weights and their scales.
fn weights(info: &Info<'_>, axis: i32, channels: usize) -> Result<Weights, Reason> {
    let name = info.name.clone();
    if let Some(trouble) = info.trouble {
        return Err(format!("weights `{name}`: {trouble}"));
    }
    let bytes = info
        .data
        .ok_or_else(|| format!("weights `{name}` must be a constant"))?;
    let scales = info.scales.clone();
    if scales.len() != 1 && (scales.len() != channels || info.axis != axis) {
        let (n, along) = (scales.len(), info.axis);
        return Err(format!(
            "weights `{name}` have {n} scales along axis {along}; one, or {channels} along axis {axis} are supported"
        ));
    }
    if info.zero_points.iter().any(|&z| z != 0) {
        return Err(format!("weights `{name}` have a zero point that is not 0"));
    }
    Ok(Weights {
        values: bytes.iter().map(|&b| b as i8).collect(),
        shape: shape(info)?,
        scales,
        name,
    })
}
