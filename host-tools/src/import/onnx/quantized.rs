//! int8: activations on a grid, layers with int8 weights, and the two ways in which files say so.
//!
//! QDQ files hold float operators between `DequantizeLinear` and `QuantizeLinear`; QOperator files hold operators that take
//! scales and zero points (`QLinearConv`, ...). Both become the engine's int8 operators, with the arithmetic of a TFLite Micro that
//! rounds once: sums in int32, one fixed-point factor of 31 bits per output channel. uint8 is int8 with all steps moved by 128.
//!
//! An int8 tensor of the graph stands for real numbers; a `DequantizeLinear` costs nothing as long as its readers can be int8
//! operators. An operator is computed in int8 where its inputs are int8 and a `QuantizeLinear` behind it says on which grid the
//! output lies; in f32 where there is none.

use super::node::{Node, axis};
use super::value::{Const, Elements, Grid, Value};
use super::{Importer, Reason, emit};
use crate::graph::{Quant, TensorData, TensorId};
use crate::quantize::multiplier;
use foolproof::ops::{Activation, DepthwiseConv2d, Multiplier, Op, Padding, Pool2d, Table, Unary};

pub(super) const TOO_FAR: &str =
    "the scales of its operands are too far apart for 32-bit fixed point";

/// What a layer has besides its input.
pub(super) struct Filters<'c> {
    pub w: &'c Const,
    /// Which axis of the weights is the output channel.
    pub axis: usize,
    pub bias: Option<&'c Const>,
    /// The grid of the output, where the layer may be int8.
    pub target: Option<Quant>,
}

/// int8 constants of a layer; weights in the file's order.
pub(super) struct Int8Layer {
    weights: Vec<i8>,
    /// One scale, or one per output channel.
    scales: Vec<f32>,
    bias: Vec<i32>,
    bias_scales: Vec<f32>,
    factors: Vec<Multiplier>,
    pub target: Quant,
}

fn on(scales: &[f32]) -> Quant {
    match scales {
        &[scale] => Quant {
            scale,
            ..Quant::default()
        },
        several => Quant {
            channel_scales: several.to_vec(),
            ..Quant::default()
        },
    }
}

fn same_grid(a: &Quant, b: &Quant) -> bool {
    (a.scale, a.zero_point) == (b.scale, b.zero_point)
}

impl<'a> Importer<'a> {
    /// The grid of an activation from inputs `scale` and `zero` of an operator, as int8; and whether the file has uint8.
    pub(super) fn grid_at(
        &mut self,
        node: &Node<'a>,
        scale: usize,
        zero: usize,
    ) -> Result<(Quant, bool), Reason> {
        let s = self.needed(node, scale, "scale")?;
        let s = match (s.len(), &s.data) {
            (1, Elements::F32(v)) => v[0],
            (1, _) => return Err("its scale is not float".into()),
            (n, _) => {
                return Err(format!(
                    "an activation of it has {n} scales; one is supported"
                ));
            }
        };
        let declared = match node.operator {
            "QuantizeLinear" => node.int("output_dtype", 0),
            _ => 0,
        };
        let (zero_point, unsigned) = match self.constant(node, zero)? {
            None if declared == 3 => (0, false),
            None if declared == 0 || declared == 2 => (-128, true),
            Some(z) if z.len() == 1 => match &z.data {
                Elements::I8(v) => (i32::from(v[0]), false),
                Elements::U8(v) => (i32::from(v[0]) - 128, true),
                _ => return Err("its zero point is not int8 or uint8".into()),
            },
            _ => return Err("its zero point is not one int8 or uint8".into()),
        };
        if !(s.is_finite() && s > 0.0) {
            return Err(format!("its scale is {s}"));
        }
        let grid = Quant {
            scale: s,
            zero_point,
            channel_scales: Vec::new(),
        };
        Ok((grid, unsigned))
    }

    /// QuantizeLinear of an activation.
    pub(super) fn quantize(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let x = self.value(node, 0)?;
        let (grid, unsigned) = self.grid_at(node, 1, 2)?;
        let id = self.on_grid(x.id, &grid, node.name())?;
        self.raw.insert(node.outputs[0], unsigned);
        Ok(Value { id, ..x })
    }

    /// DequantizeLinear of an activation: the int8 tensor stands for real numbers from here on.
    pub(super) fn dequantize(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        self.steps(node, 0, 1, 2)
    }

    /// Input `i`, whole numbers on the grid that inputs `scale` and `zero` say.
    pub(super) fn steps(
        &mut self,
        node: &Node<'a>,
        i: usize,
        scale: usize,
        zero: usize,
    ) -> Result<Value, Reason> {
        let x = self.any(node, i)?;
        let (grid, unsigned) = self.grid_at(node, scale, zero)?;
        match self.raw.get(node.input(i)?) {
            None => return Err(format!("its input {i} is float")),
            Some(&is) if is != unsigned && node.has_input(zero) => {
                return Err(format!(
                    "its input {i} is {}, its zero point is not",
                    if is { "uint8" } else { "int8" }
                ));
            }
            Some(_) => {}
        }
        match same_grid(&grid, &self.graph.tensors[x.id].quant) {
            true => Ok(x),
            false => Err(format!(
                "it reads its input {i} with another scale or zero point than that was written with"
            )),
        }
    }

    /// An activation as int8 on this grid.
    pub(super) fn on_grid(
        &mut self,
        id: TensorId,
        grid: &Quant,
        name: String,
    ) -> Result<TensorId, Reason> {
        if !self.is_int8(id) {
            return self.emit_on(Op::Quantize, vec![id], name, grid.clone());
        }
        if same_grid(&self.graph.tensors[id].quant, grid) {
            return Ok(id);
        }
        self.table(Unary::Requantize, id, grid.clone(), name)
    }

    /// A function of each element of an int8 activation.
    pub(super) fn table(
        &mut self,
        function: Unary,
        x: TensorId,
        grid: Quant,
        name: String,
    ) -> Result<TensorId, Reason> {
        let from = self.graph.tensors[x].quant.clone();
        let made = function.table(&emit::grid(&from), &emit::grid(&grid), self.graph.numerics);
        let Table { values, slopes } = match made {
            Some(table) => table,
            None => real_table(function, &from, &grid).ok_or(TOO_FAR)?,
        };
        let values = self.fixed_on(
            format!("{name}.table"),
            &[256],
            grid.clone(),
            TensorData::I8(values.to_vec()),
        )?;
        let slopes = self.fixed(
            format!("{name}.slope"),
            &[256],
            TensorData::F32(slopes.to_vec()),
        )?;
        self.emit_on(Op::Unary(function), vec![x, values, slopes], name, grid)
    }

    /// The grid that a QuantizeLinear behind this operator's output asks for. Operators that move elements, and those that clamp,
    /// may lie between. `None` where a reader needs the real numbers.
    pub(super) fn target(&mut self, node: &Node<'a>) -> Option<Quant> {
        let mut name = node.outputs.first().copied()?;
        // as far as a chain of operators can go
        for _ in 0..16 {
            let readers = self.consumers.get(name)?.clone();
            if name == self.output.name.as_deref().unwrap_or("") {
                return None;
            }
            let nodes = self.nodes;
            let mut grid: Option<Quant> = None;
            for &k in &readers {
                let reader = &nodes[k];
                if reader.operator != "QuantizeLinear" || reader.input(0) != Ok(name) {
                    grid = None;
                    break;
                }
                let (one, _) = self.grid_at(reader, 1, 2).ok()?;
                if grid.as_ref().is_some_and(|grid| !same_grid(grid, &one)) {
                    return None;
                }
                grid = Some(one);
            }
            if grid.is_some() {
                return grid;
            }
            let [k] = readers[..] else { return None };
            let reader = &nodes[k];
            let passes = super::node::moves(reader.operator)
                || matches!(
                    reader.operator,
                    "Relu" | "Clip" | "MaxPool" | "GlobalMaxPool"
                );
            if !passes || reader.input(0) != Ok(name) {
                return None;
            }
            name = reader.outputs.first().copied()?;
        }
        None
    }

    /// A layer's int8 constants behind an input; `None` where it has to be computed in f32.
    pub(super) fn int8_layer(
        &self,
        x: TensorId,
        filters: &Filters<'_>,
        channels: usize,
    ) -> Result<Option<Int8Layer>, Reason> {
        let (Some(target), Some(grid), true) = (&filters.target, &filters.w.grid, self.is_int8(x))
        else {
            return Ok(None);
        };
        let Some(weights) = centred(filters.w, grid) else {
            return Ok(None);
        };
        let scales = grid.scales.clone();
        if scales.len() != 1 && (scales.len() != channels || grid.axis != filters.axis) {
            return Ok(None);
        }
        let x_scale = self.graph.tensors[x].quant.scale;
        let bias_scales: Vec<f32> = scales.iter().map(|s| x_scale * s).collect();
        let product = |o: usize| f64::from(x_scale) * f64::from(scales[o % scales.len()]);
        let bias = match filters.bias {
            None => vec![0; channels],
            Some(bias) => steps_of_bias(bias, channels, product)?,
        };
        let factor = |o: usize| {
            multiplier::per_channel(x_scale, scales[o % scales.len()], target.scale).ok_or(TOO_FAR)
        };
        let factors = (0..channels).map(factor).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(Int8Layer {
            weights,
            scales,
            bias,
            bias_scales,
            factors,
            target: target.clone(),
        }))
    }

    /// The constants of a layer as tensors: weights with these dimensions and in this order, bias, and factors for int8.
    pub(super) fn layer_constants(
        &mut self,
        node: &Node<'a>,
        filters: &Filters<'_>,
        int8: Option<&Int8Layer>,
        (dims, order): (&[u32], &[usize]),
        channels: usize,
    ) -> Result<Vec<TensorId>, Reason> {
        let name = node.name();
        let vector = [channels as u32];
        let Some(layer) = int8 else {
            let values = filters.w.f32()?;
            let data = order.iter().map(|&i| values[i]).collect();
            let w = self.parameter(format!("{name}.weights"), dims, data)?;
            let bias = match filters.bias {
                None => vec![0.0; channels],
                Some(bias) => {
                    let values = bias.f32()?;
                    if values.len() != channels && values.len() != 1 {
                        return Err(format!(
                            "its bias has {} elements for {channels} outputs",
                            values.len()
                        ));
                    }
                    (0..channels).map(|o| values[o % values.len()]).collect()
                }
            };
            let b = self.parameter(format!("{name}.bias"), &vector, bias)?;
            return Ok(vec![w, b]);
        };
        let data = order.iter().map(|&i| layer.weights[i]).collect();
        let w = self.fixed_on(
            format!("{name}.weights"),
            dims,
            on(&layer.scales),
            TensorData::I8(data),
        )?;
        let b = self.fixed_on(
            format!("{name}.bias"),
            &vector,
            on(&layer.bias_scales),
            TensorData::I32(layer.bias.clone()),
        )?;
        let mut all = vec![w, b];
        let (mantissas, shifts) = layer.factors.iter().map(|f| (f.mantissa, f.shift)).unzip();
        for (what, data) in [("multiplier", mantissas), ("shift", shifts)] {
            all.push(self.fixed(format!("{name}.{what}"), &vector, TensorData::I32(data))?);
        }
        Ok(all)
    }

    /// The mean of each window of an int8 image, on another grid than the image's: a sum with one factor that has 1/n in it. All
    /// cells count, those of the padding too.
    pub(super) fn mean_on(
        &mut self,
        image: TensorId,
        pool: &Pool2d,
        grid: Quant,
        name: String,
    ) -> Result<TensorId, Reason> {
        let channels = self.graph.tensors[image].shape.channels();
        let [h, w] = pool.window.map(u32::from);
        let cells = h as usize * w as usize;
        let x_scale = self.graph.tensors[image].quant.scale;
        let factor = f64::from(x_scale) / cells as f64 / f64::from(grid.scale);
        let factor = multiplier::quantize_multiplier(factor).ok_or(TOO_FAR)?;
        let share = Quant {
            scale: 1.0 / cells as f32,
            ..Quant::default()
        };
        self.spend(cells.saturating_mul(channels))?;
        let ones = TensorData::I8(vec![1; cells * channels]);
        let dims = [1, h, w, channels as u32];
        let mut inputs = vec![
            image,
            self.fixed_on(format!("{name}.ones"), &dims, share, ones)?,
        ];
        for (what, v) in [
            ("zeros", 0),
            ("multiplier", factor.mantissa),
            ("shift", factor.shift),
        ] {
            let data = TensorData::I32(vec![v; channels]);
            inputs.push(self.fixed(format!("{name}.{what}"), &[channels as u32], data)?);
        }
        let op = Op::DepthwiseConv2d(DepthwiseConv2d {
            stride: pool.stride,
            dilation: [1, 1],
            padding: pool.padding,
            activation: Activation::None,
        });
        self.emit_on(op, inputs, name, grid)
    }

    /// An average pool of an image: int8 where the image is and a grid is asked for. `everywhere`: cells of the padding count.
    pub(super) fn average(
        &mut self,
        image: TensorId,
        pool: Pool2d,
        everywhere: bool,
        target: Option<Quant>,
        name: String,
    ) -> Result<TensorId, Reason> {
        let (image, target) = match (self.is_int8(image), target) {
            (true, Some(target)) => (image, target),
            _ => {
                let image = self.real_id(image)?;
                return self.emit(Op::AvgPool2d(pool), vec![image], name);
            }
        };
        let padded = pool.padding != Padding::VALID;
        let same = same_grid(&self.graph.tensors[image].quant, &target);
        if (padded && everywhere) || (!padded && !same) {
            return self.mean_on(image, &pool, target, name);
        }
        let id = self.emit(Op::AvgPool2d(pool), vec![image], name.clone())?;
        self.on_grid(id, &target, format!("{name}.rescaled"))
    }

    /// QuantizeLinear of a constant: halves to even, as ONNX says.
    pub(super) fn quantized(&mut self, node: &Node<'a>, x: &Const) -> Result<Const, Reason> {
        let Elements::F32(values) = &x.data else {
            return Err("it quantizes a constant that is not float".into());
        };
        let declared = match node.has_input(2) {
            true => 0,
            false => node.int("output_dtype", 2),
        };
        let (grid, kind) = self.constant_grid(node, x)?;
        let step = |i: usize, low: i64, high: i64| {
            let k = grid.index(&x.dims, i);
            let q = (values[i] / grid.scales[k]).round_ties_even() as i64;
            q.saturating_add(grid.zero_points[k]).clamp(low, high)
        };
        let data = match (kind, declared) {
            (Some(3), _) | (None, 3) => Elements::I8(
                (0..values.len())
                    .map(|i| step(i, -128, 127) as i8)
                    .collect(),
            ),
            (Some(2), _) | (None, 2) => {
                Elements::U8((0..values.len()).map(|i| step(i, 0, 255) as u8).collect())
            }
            (Some(6), _) => Elements::I64(
                (0..values.len())
                    .map(|i| step(i, i32::MIN.into(), i32::MAX.into()))
                    .collect(),
            ),
            _ => return Err("it makes neither int8 nor uint8".into()),
        };
        Ok(Const::new(x.dims.clone(), data))
    }

    /// DequantizeLinear of a constant: the whole numbers stay, and stand for real ones.
    pub(super) fn dequantized(&mut self, node: &Node<'a>, x: &Const) -> Result<Const, Reason> {
        if matches!(x.data, Elements::F32(_)) {
            return Err("it dequantizes a float constant".into());
        }
        let (grid, _) = self.constant_grid(node, x)?;
        Ok(Const {
            grid: Some(grid),
            ..x.clone()
        })
    }

    /// Inputs 1 and 2 of a QuantizeLinear or DequantizeLinear of a constant, and the zero point's type.
    fn constant_grid(&mut self, node: &Node<'a>, x: &Const) -> Result<(Grid, Option<i32>), Reason> {
        if node.int("block_size", 0) != 0 {
            return Err("it has a scale for each block; one for all, or one for each index along an axis are supported".into());
        }
        self.grid_of(node, x, (1, 2), node.int("axis", 1))
    }

    /// The grid of a constant from inputs `scale` and `zero` of an operator.
    pub(super) fn grid_of(
        &mut self,
        node: &Node<'a>,
        x: &Const,
        (scale, zero): (usize, usize),
        along: i64,
    ) -> Result<(Grid, Option<i32>), Reason> {
        let s = self.needed(node, scale, "scale")?;
        let scales = s.f32()?.into_owned();
        let zero = match node.has_input(zero) {
            true => Some(self.needed(node, zero, "zero point")?),
            false => None,
        };
        let kind = zero.as_ref().map(|z| match z.data {
            Elements::F32(_) => 1,
            Elements::I64(_) => 6,
            Elements::I8(_) => 3,
            Elements::U8(_) => 2,
        });
        let zero_points: Vec<i64> = match &zero {
            None => vec![0; scales.len()],
            Some(z) => (0..z.len()).map(|i| z.whole(i)).collect(),
        };
        let zero_points = match (zero_points.len(), scales.len()) {
            (1, n) => vec![zero_points[0]; n],
            (z, n) if z == n => zero_points,
            (z, n) => return Err(format!("it has {n} scales and {z} zero points")),
        };
        let axis = match scales.len() {
            0 => return Err("it has no scale".into()),
            1 => 0,
            n => {
                let axis = axis(along, x.dims.len())?;
                if x.dims[axis] as usize != n {
                    return Err(format!(
                        "it has {n} scales along an axis of {}",
                        x.dims[axis]
                    ));
                }
                axis
            }
        };
        if let Some(wrong) = scales.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            return Err(format!("a scale of it is {wrong}"));
        }
        let grid = Grid {
            scales,
            zero_points,
            axis,
        };
        Ok((grid, kind))
    }
}

/// Whole numbers with their zero points taken off, where int8 holds all of them.
fn centred(w: &Const, grid: &Grid) -> Option<Vec<i8>> {
    let step = |i: usize| {
        let zero = grid.zero_points[grid.index(&w.dims, i)];
        i8::try_from(w.whole(i).checked_sub(zero)?).ok()
    };
    match w.data {
        Elements::F32(_) => None,
        _ => (0..w.len()).map(step).collect(),
    }
}

/// A bias in steps of input times weight. One that is stored in such steps comes back as it is.
fn steps_of_bias(
    bias: &Const,
    channels: usize,
    product: impl Fn(usize) -> f64,
) -> Result<Vec<i32>, Reason> {
    let len = bias.len();
    if len != channels && len != 1 {
        return Err(format!(
            "its bias has {len} elements for {channels} outputs"
        ));
    }
    let real = match (&bias.data, &bias.grid) {
        (Elements::F32(v), _) => Some(v),
        (_, Some(_)) => None,
        _ => return Err("its bias is of whole numbers without a scale".into()),
    };
    let step = |o: usize| {
        let (i, unit) = (o % len, product(o));
        let steps = match (real, &bias.grid) {
            (Some(v), _) => f64::from(v[i]) / unit,
            (None, Some(grid)) => {
                let k = grid.index(&bias.dims, i);
                let steps = (bias.whole(i) - grid.zero_points[k]) as f64;
                let ratio = f64::from(grid.scales[k]) / unit;
                // the product of the two scales, rounded to single precision
                match (ratio - 1.0).abs() < 1e-5 {
                    true => steps,
                    false => steps * ratio,
                }
            }
            _ => 0.0,
        };
        // saturates
        steps.round() as i32
    };
    Ok((0..channels).map(step).collect())
}

/// The table of a function for any grids, from its real values.
fn real_table(function: Unary, from: &Quant, to: &Quant) -> Option<Table> {
    let mut table = Table {
        values: [0; 256],
        slopes: [0.0; 256],
    };
    for (i, (value, slope)) in table.values.iter_mut().zip(&mut table.slopes).enumerate() {
        let x = f64::from(from.scale) * (i as i32 - 128 - from.zero_point) as f64;
        let (y, dy) = match function {
            Unary::Sigmoid => {
                let y = 1.0 / (1.0 + (-x).exp());
                (y, y * (1.0 - y))
            }
            Unary::Tanh => (x.tanh(), 1.0 - x.tanh() * x.tanh()),
            _ => return None,
        };
        let q = (y / f64::from(to.scale)).round() + f64::from(to.zero_point);
        *value = q.clamp(-128.0, 127.0) as i8;
        *slope = match (-128.0..=127.0).contains(&q) {
            true => dy as f32,
            false => 0.0,
        };
    }
    Some(table)
}
