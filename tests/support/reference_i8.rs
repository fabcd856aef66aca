//! int8 operators in wide integers, written from TFLite's definitions: one output element at a time, rounding as
//! exact division of 128-bit integers, nothing shared with the kernels.

use super::Tensor;
use super::reference::{broadcast, cell, meeting, position};
use foolproof::kernels::lut;
use foolproof::ops::{Activation, Lstm, Multiplier, Op, Rounding};
use foolproof::tensor::Quant;

/// `floor(a / b)`.
fn floor_div(a: i128, b: i128) -> i128 {
    a.div_euclid(b)
}

/// Nearest integer to a / b, halves away from zero.
fn round_away(a: i128, b: i128) -> i128 {
    let magnitude = (2 * a.abs() + b) / (2 * b);
    if a < 0 { -magnitude } else { magnitude }
}

/// An accumulator times a fixed-point factor. Double: the doubling high multiply rounds halves up (and
/// saturates), the shift rounds halves away from zero. Single: halves up, once.
pub fn requantize(x: i128, factor: Multiplier, rounding: Rounding) -> i128 {
    let Multiplier { mantissa, shift } = factor;
    let (m, two) = (mantissa as i128, 2i128);
    match rounding {
        Rounding::Double => {
            let x = x << shift.max(0);
            assert!(i32::try_from(x).is_ok(), "the left shift overflows");
            let high = floor_div(x * m + (1 << 30), 1 << 31).min(i32::MAX as i128);
            round_away(high, two.pow((-shift).max(0) as u32))
        }
        Rounding::Single => floor_div(
            x * m + two.pow((30 - shift) as u32),
            two.pow((31 - shift) as u32),
        ),
        Rounding::Float32 => {
            let real = x as f32 * f32::from_bits(mantissa as u32);
            real.round_ties_even() as i128
        }
        Rounding::Float64 => {
            let bits = (mantissa as u64) << 32 | u64::from(shift as u32);
            (x as f64 * f64::from_bits(bits)).round() as i128
        }
    }
}

/// The factor as TFLite's converter makes it: `QuantizeMultiplier`.
pub fn multiplier(real: f64) -> Multiplier {
    if real == 0.0 {
        return Multiplier::default();
    }
    let mut shift = real.log2().floor() as i32 + 1;
    let mut mantissa = (real / 2f64.powi(shift) * 2f64.powi(31)).round() as i64;
    if mantissa == 1 << 31 {
        mantissa /= 2;
        shift += 1;
    }
    Multiplier {
        mantissa: mantissa as i32,
        shift,
    }
}

/// Smallest and largest output.
pub fn range(activation: Activation, quant: &Quant) -> (i128, i128) {
    let quantize =
        |real: f32| ((real / quant.scale).round() as i64 + quant.zero_point as i64) as i128;
    match activation {
        Activation::None => (-128, 127),
        Activation::Relu => (quantize(0.0).max(-128), 127),
        Activation::Relu6 => (quantize(0.0).max(-128), quantize(6.0).min(127)),
    }
}

/// The element at a position, with the zero point where that is outside.
fn at(t: &Tensor, position: &[i64]) -> i128 {
    let mut index = 0;
    for (&p, &d) in position.iter().zip(t.shape.dims()) {
        if p < 0 || p >= d as i64 {
            return t.zero_point as i128;
        }
        index = index * d as usize + p as usize;
    }
    t.i8s()[index] as i128
}

/// The element minus the zero point: 0 outside.
fn real(t: &Tensor, position: &[i64]) -> i128 {
    at(t, position) - t.zero_point as i128
}

/// The operator's output; `output` gives shape and quantization.
pub fn forward(op: &Op, inputs: &[Tensor], output: &Tensor, rounding: Rounding) -> Vec<i8> {
    if let Op::Lstm(lstm) = op {
        let steps = self::lstm(lstm, inputs, output, rounding);
        return steps.iter().map(|s| s.output).collect();
    }
    (0..output.len())
        .map(|i| {
            let o = position(&output.shape, i);
            let (value, activation) = element(op, inputs, output, rounding, &o, i);
            let (low, high) = range(activation, &output.quant());
            i8::try_from(value.clamp(low, high)).expect("in the range of int8")
        })
        .collect()
}

fn element(
    op: &Op,
    inputs: &[Tensor],
    output: &Tensor,
    rounding: Rounding,
    o: &[i64],
    index: usize,
) -> (i128, Activation) {
    let x = &inputs[0];
    let dims = |t: &Tensor, i: usize| t.shape.dim(i) as i64;
    let zero_point = output.zero_point as i128;
    let finish = |sum: i128, channel: i64| {
        let channel = channel as usize;
        let factor = Multiplier {
            mantissa: inputs[3].i32s()[channel],
            shift: inputs[4].i32s()[channel],
        };
        requantize(sum + inputs[2].i32s()[channel] as i128, factor, rounding) + zero_point
    };
    match op {
        Op::Conv2d(conv) => {
            let w = &inputs[1];
            let mut sum = 0;
            for i in 0..dims(w, 1) {
                for j in 0..dims(w, 2) {
                    let (y, z) = cell(o, [i, j], conv.stride, conv.dilation, conv.padding);
                    let share = dims(w, 3);
                    let group = o[3] / (dims(w, 0) / (dims(x, 3) / share));
                    for c in 0..share {
                        sum += real(x, &[o[0], y, z, group * share + c]) * at(w, &[o[3], i, j, c]);
                    }
                }
            }
            (finish(sum, o[3]), conv.activation)
        }
        Op::ConvTranspose2d(conv) => {
            let w = &inputs[1];
            let mut sum = 0;
            for (y, z, i, j) in meeting(conv, &x.shape, &w.shape, o) {
                let share = dims(w, 3);
                let group = o[3] / (dims(w, 0) / (dims(x, 3) / share));
                for c in 0..share {
                    sum += real(x, &[o[0], y, z, group * share + c]) * at(w, &[o[3], i, j, c]);
                }
            }
            (finish(sum, o[3]), conv.activation)
        }
        Op::DepthwiseConv2d(conv) => {
            let w = &inputs[1];
            let multiplier = dims(w, 3) / dims(x, 3);
            let mut sum = 0;
            for i in 0..dims(w, 1) {
                for j in 0..dims(w, 2) {
                    let (y, z) = cell(o, [i, j], conv.stride, conv.dilation, conv.padding);
                    sum += real(x, &[o[0], y, z, o[3] / multiplier]) * at(w, &[0, i, j, o[3]]);
                }
            }
            (finish(sum, o[3]), conv.activation)
        }
        Op::Dense(dense) => {
            let w = &inputs[1];
            let depth = w.shape.dim(1);
            let row = &x.i8s()[o[0] as usize * depth..][..depth];
            let product =
                |i: usize| (row[i] as i128 - x.zero_point as i128) * at(w, &[o[1], i as i64]);
            (
                finish((0..depth).map(product).sum(), o[1]),
                dense.activation,
            )
        }
        Op::Add(add) => {
            let term = |k: usize| {
                let t = &inputs[k];
                let shifted = real(t, &broadcast(&t.shape, o)) << add.left_shift;
                requantize(shifted, add.inputs[k], rounding)
            };
            let sum = requantize(term(0) + term(1), add.output, rounding);
            (sum + zero_point, add.activation)
        }
        Op::Mul(mul) => {
            let factors = inputs.iter().map(|t| real(t, &broadcast(&t.shape, o)));
            let product = requantize(factors.product(), mul.output, rounding);
            (product + zero_point, mul.activation)
        }
        Op::AvgPool2d(pool) | Op::MaxPool2d(pool) => {
            let cells = pool_cells(op, x, o);
            let value = if let Op::MaxPool2d(_) = op {
                cells
                    .iter()
                    .map(|c| c.1)
                    .max()
                    .expect("a window is never empty")
            } else {
                round_away(cells.iter().map(|c| c.1).sum(), cells.len() as i128)
            };
            (value, pool.activation)
        }
        Op::Pad(pad) => {
            let from: Vec<i64> = o
                .iter()
                .zip(pad.before)
                .map(|(&p, b)| p - b as i64)
                .collect();
            (at(x, &from), Activation::None)
        }
        Op::Reshape | Op::Remember | Op::Recall => (x.i8s()[index] as i128, Activation::None),
        Op::Transpose(transpose) => {
            let mut from = vec![0; o.len()];
            for (&p, &axis) in o.iter().zip(&transpose.axes) {
                from[axis as usize] = p;
            }
            (at(x, &from), Activation::None)
        }
        Op::Slice(slice) => {
            let mut from = o.to_vec();
            let along = &mut from[slice.axis as usize];
            *along = i64::from(slice.begin) + *along * i64::from(slice.step);
            (at(x, &from), Activation::None)
        }
        Op::ReduceMax(reduce) => {
            let axis = reduce.axis as usize;
            let mut from = o.to_vec();
            let along = (0..dims(x, axis)).map(|i| {
                from[axis] = i;
                at(x, &from)
            });
            (along.max().expect("an element"), Activation::None)
        }
        Op::Svdf(svdf) => {
            let (state, w, time) = (&inputs[1], &inputs[2], &inputs[3]);
            let (filters, memory) = (dims(w, 0), dims(time, 1));
            let mut sum = inputs[4].i32s()[o[1] as usize] as i128;
            for f in o[1] * i64::from(svdf.rank)..(o[1] + 1) * i64::from(svdf.rank) {
                let product = |c: i64| real(x, &[o[0], c]) * at(w, &[f, c]);
                let feature = (0..dims(x, 1)).map(product).sum();
                let feature = requantize(feature, svdf.feature, rounding);
                let zero = svdf.state_zero_point as i128;
                let newest = match svdf.narrow {
                    true => (feature.clamp(-128, 127) + zero) as i8 as i128,
                    false => feature.clamp(-32768, 32767) + zero,
                };
                for j in 0..memory {
                    let kept = match j + 1 < memory {
                        true => {
                            let at = (o[0] * filters + f) * memory + j + 1;
                            state.i32s()[at as usize] as i128
                        }
                        false => newest,
                    };
                    sum += (kept - zero) * time.i32s()[(f * memory + j) as usize] as i128;
                }
            }
            (
                requantize(sum, svdf.output, rounding) + zero_point,
                Activation::None,
            )
        }
        Op::Concat(concat) => {
            let axis = concat.axis as usize;
            let mut from = o.to_vec();
            for t in inputs {
                if from[axis] < dims(t, axis) {
                    return (at(t, &from), Activation::None);
                }
                from[axis] -= dims(t, axis);
            }
            unreachable!("the inputs fill the output")
        }
        Op::Unary(_) => {
            let q = x.i8s()[index] as i64;
            (
                inputs[1].i8s()[(q + 128) as usize] as i128,
                Activation::None,
            )
        }
        Op::Quantize => {
            let steps = x.f32s()[index] / output.scale;
            let steps = steps.abs().min(1e6).copysign(steps);
            // Halves away from zero, in double precision, where adding 0.5 is exact.
            let rounded =
                ((steps.abs() as f64 + 0.5).floor() as i128) * if steps < 0.0 { -1 } else { 1 };
            (rounded + zero_point, Activation::None)
        }
        _ => unimplemented!("{}", op.name()),
    }
}

/// What one unit of an LSTM did in one step.
pub struct Step {
    /// Input, forget, cell, output; 15 bits behind the point.
    pub gates: [i16; 4],
    /// The cell before.
    pub before: i16,
    pub output: i8,
}

/// A recurrent layer: for each sample, step and unit.
pub fn lstm(lstm: &Lstm, inputs: &[Tensor], output: &Tensor, rounding: Rounding) -> Vec<Step> {
    let [x, state, w, recurrent, bias, mantissas, shifts] = inputs else {
        panic!("seven operands");
    };
    let (steps, depth) = (x.shape.dim(1), x.shape.dim(2));
    let units = output.shape.dim(2);
    let narrow = |v: i128| v.clamp(-32768, 32767);
    let factor = |k: usize| Multiplier {
        mantissa: mantissas.i32s()[k],
        shift: shifts.i32s()[k],
    };
    let mut all = Vec::new();
    for n in 0..x.shape.dim(0) {
        let kept = &state.i32s()[n * 2 * units..][..2 * units];
        let mut h: Vec<i128> = kept[..units].iter().map(|&v| v as i128).collect();
        let mut c: Vec<i128> = kept[units..].iter().map(|&v| v as i128).collect();
        for t in 0..steps {
            let mut next = Vec::new();
            for (j, c) in c.iter_mut().enumerate() {
                let gates: [i16; 4] = core::array::from_fn(|gate| {
                    let row = gate * units + j;
                    let mut sum = bias.i32s()[row] as i128;
                    for i in 0..depth {
                        let position = [n as i64, t as i64, i as i64];
                        sum += real(x, &position) * at(w, &[row as i64, i as i64]);
                    }
                    let mut from_h = 0;
                    for (i, h) in h.iter().enumerate() {
                        let h = h - output.zero_point as i128;
                        from_h += h * at(recurrent, &[row as i64, i as i64]);
                    }
                    let z = narrow(requantize(sum, factor(gate), rounding))
                        + narrow(requantize(from_h, factor(4 + gate), rounding));
                    let z = narrow(z) as i16;
                    if gate == 2 {
                        lut::tanh(z, -12)
                    } else {
                        lut::sigmoid(z)
                    }
                });
                let before = *c as i16;
                let [i, f, g, o] = gates.map(|g| g as i128);
                let mut cell = narrow(
                    narrow(requantize(f * *c, lstm.forget, rounding))
                        + narrow(requantize(i * g, lstm.input, rounding)),
                );
                if lstm.clip_steps > 0 {
                    cell = cell.clamp(-lstm.clip_steps as i128, lstm.clip_steps as i128);
                }
                *c = cell;
                let tanh = lut::tanh(cell as i16, lstm.cell_power) as i128;
                let q = requantize(tanh * o, lstm.output, rounding) + output.zero_point as i128;
                let output = q.clamp(-128, 127) as i8;
                next.push(output as i128);
                all.push(Step {
                    gates,
                    before,
                    output,
                });
            }
            h = next;
        }
    }
    all
}

/// The cells of a pooling window inside the image: number in the window, value.
pub fn pool_cells(op: &Op, x: &Tensor, o: &[i64]) -> Vec<(usize, i128)> {
    let (Op::AvgPool2d(pool) | Op::MaxPool2d(pool)) = op else {
        return Vec::new();
    };
    let mut cells = Vec::new();
    for i in 0..pool.window[0] as i64 {
        for j in 0..pool.window[1] as i64 {
            let (y, z) = cell(o, [i, j], pool.stride, [1, 1], pool.padding);
            let inside = |p: i64, axis: usize| (0..x.shape.dim(axis) as i64).contains(&p);
            if inside(y, 1) && inside(z, 2) {
                let number = (i * pool.window[1] as i64 + j) as usize;
                cells.push((number, at(x, &[o[0], y, z, o[3]])));
            }
        }
    }
    cells
}
