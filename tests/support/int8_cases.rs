//! Random int8 operators with what they read and write, of all kinds that have an integer form.

use super::support::{Random, Tensor, Values, reference_i8};
use foolproof::ops::*;

pub struct Case {
    pub op: Op,
    pub inputs: Vec<Tensor>,
    /// Shape and quantization.
    pub output: Tensor,
}

const ACTIVATIONS: [Activation; 3] = [Activation::None, Activation::Relu, Activation::Relu6];

pub fn quantized(random: &mut Random, dims: &[u32]) -> Tensor {
    let n = dims.iter().product::<u32>() as usize;
    let (scale, zero_point) = (random.float(0.005, 0.1), random.int(-128, 127) as i32);
    Tensor::new(dims, Values::I8(random.int8s(n))).quantized(scale, zero_point)
}

fn output(random: &mut Random, op: &Op, inputs: &[Tensor]) -> Tensor {
    let shapes: Vec<_> = inputs.iter().map(|t| t.shape).collect();
    let dims = op.output_shape(&shapes).expect("a shape");
    quantized(random, dims.dims())
}

/// Bias, multiplier and shift for weights with scales, so that typical sums use the output's range.
fn finish_weights(
    random: &mut Random,
    op: Op,
    x: Tensor,
    mut w: Tensor,
    channels: usize,
    depth: usize,
) -> Case {
    w.constant = true;
    w.zero_point = 0;
    if random.below(4) != 0 {
        w.channel_scales = random.floats(channels, 0.001, 0.05);
    } else {
        w.scale = random.float(0.001, 0.05);
    }
    let bias: Vec<i32> = (0..channels)
        .map(|_| random.int(-20000, 20000) as i32)
        .collect();
    let mut y = output(random, &op, &[x.clone(), w.clone()]);
    y.scale = x.scale * 0.03 * (depth as f32).sqrt() * 60.0 * random.float(0.5, 2.0);
    let factors: Vec<Multiplier> = (0..channels)
        .map(|c| {
            reference_i8::multiplier(x.scale as f64 * w.quant().scale_of(c) as f64 / y.scale as f64)
        })
        .collect();
    let c = channels as u32;
    let ints = |v: Vec<i32>| Tensor::new(&[c], Values::I32(v)).constant();
    let mantissas = factors.iter().map(|f| f.mantissa).collect();
    let shifts = factors.iter().map(|f| f.shift).collect();
    let inputs = vec![x, w, ints(bias), ints(mantissas), ints(shifts)];
    Case {
        op,
        inputs,
        output: y,
    }
}

fn conv_case(random: &mut Random, depthwise: bool) -> Case {
    loop {
        let mut dim = |n| random.int(1, n) as u32;
        let x_dims = [dim(3), dim(9), dim(9), dim(11)];
        let (kh, kw, out) = (dim(4), dim(4), dim(10));
        let mut pair = |n| [random.int(1, n) as u16, random.int(1, n) as u16];
        let (stride, dilation) = (pair(3), pair(2));
        let mut pad = || random.int(0, 2) as u16;
        let padding = Padding {
            top: pad(),
            left: pad(),
            bottom: pad(),
            right: pad(),
        };
        let activation = random.pick(&ACTIVATIONS);
        let x = quantized(random, &x_dims);
        let (op, w_dims) = if depthwise {
            let multiplier = random.int(1, 3) as u32;
            let conv = DepthwiseConv2d {
                stride,
                dilation,
                padding,
                activation,
            };
            (
                Op::DepthwiseConv2d(conv),
                [1, kh, kw, x_dims[3] * multiplier],
            )
        } else {
            let conv = Conv2d {
                stride,
                dilation,
                padding,
                activation,
            };
            (Op::Conv2d(conv), [out, kh, kw, x_dims[3]])
        };
        let w = quantized(random, &w_dims);
        if op.output_shape(&[x.shape, w.shape]).is_err() {
            continue; // the window is larger than the padded image
        }
        let channels = if depthwise { w_dims[3] } else { out } as usize;
        let depth = w.len() / channels;
        return finish_weights(random, op, x, w, channels, depth);
    }
}

fn grouped_case(random: &mut Random) -> Case {
    let groups = random.int(2, 3) as u32;
    let (share, filters) = (random.int(1, 5) as u32, random.int(1, 4) as u32);
    let conv = Conv2d {
        stride: [random.int(1, 2) as u16, 1],
        dilation: [1, random.int(1, 2) as u16],
        padding: Padding {
            top: 1,
            left: 0,
            bottom: 0,
            right: 2,
        },
        activation: random.pick(&ACTIVATIONS),
    };
    let x = quantized(random, &[2, 4, 5, groups * share]);
    let w = quantized(random, &[groups * filters, 2, 2, share]);
    let (channels, depth) = ((groups * filters) as usize, 4 * share as usize);
    finish_weights(random, Op::Conv2d(conv), x, w, channels, depth)
}

fn transposed_case(random: &mut Random) -> Case {
    let groups = random.int(1, 2) as u32;
    let (share, filters) = (random.int(1, 5) as u32, random.int(1, 4) as u32);
    let mut pair = |low, n| [random.int(low, n) as u16, random.int(low, n) as u16];
    let (stride, dilation, extra) = (pair(1, 3), pair(1, 2), pair(0, 2));
    let (before, after) = (pair(0, 1), pair(0, 1));
    let conv = ConvTranspose2d {
        stride,
        dilation,
        padding: Padding {
            top: before[0],
            left: before[1],
            bottom: after[0],
            right: after[1],
        },
        extra,
        activation: random.pick(&ACTIVATIONS),
    };
    let x = quantized(random, &[2, 3, 4, groups * share]);
    let w = quantized(random, &[groups * filters, 3, 2, share]);
    let (channels, depth) = ((groups * filters) as usize, 4 * share as usize);
    finish_weights(random, Op::ConvTranspose2d(conv), x, w, channels, depth)
}

fn dense_case(random: &mut Random) -> Case {
    let (n, i, o) = (
        random.int(1, 3) as u32,
        random.int(1, 70) as u32,
        random.int(1, 12) as u32,
    );
    let op = Op::Dense(Dense {
        activation: random.pick(&ACTIVATIONS),
    });
    let (x, w) = (quantized(random, &[n, i]), quantized(random, &[o, i]));
    finish_weights(random, op, x, w, o as usize, i as usize)
}

fn arithmetic_case(random: &mut Random, add: bool) -> Case {
    let shapes: [(&[u32], &[u32]); 7] = [
        (&[2, 3, 4], &[2, 3, 4]),
        (&[2, 5, 3, 4], &[4]),
        (&[4, 5, 5, 3], &[3]),
        (&[1, 1, 3], &[2, 60, 3]),
        (&[2, 1, 4], &[3, 1]),
        (&[1], &[7]),
        (&[2, 2, 1, 3, 1, 2], &[2, 1, 2, 3, 2, 1]),
    ];
    let (a, b) = random.pick(&shapes);
    let (a, b) = (quantized(random, a), quantized(random, b));
    let activation = random.pick(&ACTIVATIONS);
    let mut op = Op::Add(Add::float(activation));
    let mut y = output(random, &op, &[a.clone(), b.clone()]);
    let (sa, sb) = (a.scale as f64, b.scale as f64);
    if add {
        let twice = 2.0 * sa.max(sb);
        op = Op::Add(Add {
            activation,
            left_shift: 20,
            inputs: [
                reference_i8::multiplier(sa / twice),
                reference_i8::multiplier(sb / twice),
            ],
            output: reference_i8::multiplier(twice / ((1 << 20) as f64 * y.scale as f64)),
        });
    } else {
        y.scale = a.scale * b.scale * random.float(30.0, 100.0);
        op = Op::Mul(Mul {
            activation,
            output: reference_i8::multiplier(sa * sb / y.scale as f64),
        });
    }
    Case {
        op,
        inputs: vec![a, b],
        output: y,
    }
}

fn pool_case(random: &mut Random, max: bool) -> Case {
    loop {
        let mut pair = |n| [random.int(1, n) as u16, random.int(1, n) as u16];
        let (window, stride) = (pair(4), pair(3));
        let mut pad = |k: u16| random.int(0, k as i64 - 1) as u16;
        let pool = Pool2d {
            window,
            stride,
            padding: Padding {
                top: pad(window[0]),
                left: pad(window[1]),
                bottom: pad(window[0]),
                right: pad(window[1]),
            },
            activation: random.pick(&ACTIVATIONS),
        };
        let op = if max {
            Op::MaxPool2d(pool)
        } else {
            Op::AvgPool2d(pool)
        };
        let mut dim = |n| random.int(1, n) as u32;
        let dims = [dim(2), dim(8), dim(8), dim(10)];
        let x = quantized(random, &dims);
        if op.output_shape(&[x.shape]).is_err() {
            continue;
        }
        let y = output(random, &op, std::slice::from_ref(&x)).quantized(x.scale, x.zero_point);
        return Case {
            op,
            inputs: vec![x],
            output: y,
        };
    }
}

fn moving_case(random: &mut Random) -> Case {
    let (op, inputs) = match random.below(3) {
        0 => {
            let mut pads =
                || core::array::from_fn(|i| if i < 3 { random.int(0, 2) as u16 } else { 0 });
            let pad = Pad {
                before: pads(),
                after: pads(),
            };
            (Op::Pad(pad), vec![quantized(random, &[2, 3, 4])])
        }
        1 => (Op::Reshape, vec![quantized(random, &[2, 3, 5])]),
        _ => {
            let axis = random.below(3) as u8;
            let mut part = || {
                let mut dims = [2, 3, 2];
                dims[axis as usize] = random.int(1, 4) as u32;
                quantized(random, &dims)
            };
            let first = part();
            let rest = part().quantized(first.scale, first.zero_point);
            (Op::Concat(Concat { axis }), vec![first, rest])
        }
    };
    let y = output(random, &op, &inputs).quantized(inputs[0].scale, inputs[0].zero_point);
    Case {
        op,
        inputs,
        output: y,
    }
}

fn unary_case(random: &mut Random) -> Case {
    let x = quantized(random, &[2, 77]);
    let table = Tensor::new(&[256], Values::I8(random.int8s(256))).constant();
    let slope = Tensor::new(&[256], Values::F32(random.floats(256, -1.0, 1.0))).constant();
    let y = quantized(random, &[2, 77]);
    Case {
        op: Op::Unary(Unary::Sigmoid),
        inputs: vec![x, table, slope],
        output: y,
    }
}

fn quantize_case(random: &mut Random) -> Case {
    let y = quantized(random, &[3, 50]);
    let mut values = random.floats(150, -8.0, 8.0);
    // Halves of a step, and what does not fit.
    for (i, v) in values.iter_mut().enumerate().take(60) {
        *v = (i as f32 - 30.5) * y.scale;
    }
    values[60] = 1e30;
    values[61] = f32::NEG_INFINITY;
    Case {
        op: Op::Quantize,
        inputs: vec![Tensor::new(&[3, 50], Values::F32(values))],
        output: y,
    }
}

fn shuffling_case(random: &mut Random) -> Case {
    let x = quantized(random, &[2, 3, 4, 3]);
    let op = match random.below(3) {
        0 => Op::Transpose(Transpose {
            axes: random.pick(&[[0, 2, 3, 1, 0, 0], [3, 1, 0, 2, 0, 0], [1, 0, 3, 2, 0, 0]]),
        }),
        1 => {
            let (axis, begin, count, step) =
                random.pick(&[(2, 1, 3, 1), (1, 2, 3, -1), (3, 0, 2, 2), (0, 1, 1, 5)]);
            Op::Slice(Slice {
                axis,
                begin,
                count,
                step,
            })
        }
        _ => Op::ReduceMax(ReduceMax {
            axis: random.below(4) as u8,
        }),
    };
    let y = output(random, &op, std::slice::from_ref(&x)).quantized(x.scale, x.zero_point);
    Case {
        op,
        inputs: vec![x],
        output: y,
    }
}

fn state_case(random: &mut Random) -> Case {
    let x = quantized(random, &[2, 9]);
    let state = quantized(random, &[2, 9]).quantized(x.scale, x.zero_point);
    let y = x.clone();
    let (op, inputs) = match random.below(2) {
        0 => (Op::Remember, vec![x, state]),
        _ => (Op::Recall, vec![state]),
    };
    Case {
        op,
        inputs,
        output: y,
    }
}

fn ints(random: &mut Random, dims: &[u32], low: i64, high: i64) -> Tensor {
    let n = dims.iter().product::<u32>();
    let values = (0..n).map(|_| random.int(low, high) as i32).collect();
    Tensor::new(dims, Values::I32(values))
}

fn svdf_case(random: &mut Random) -> Case {
    let (n, depth, units, memory) = (2, random.int(1, 9) as u32, 3, random.int(1, 5) as u32);
    let rank = random.int(1, 2) as u16;
    let filters = units * u32::from(rank);
    let x = quantized(random, &[n, depth]);
    let mut w = quantized(random, &[filters, depth]).constant();
    w.zero_point = 0;
    let narrow = random.below(2) == 0;
    let most = if narrow { 127 } else { 3000 };
    let time = ints(random, &[filters, memory], -most, most).constant();
    let typical = 127.0 * 60.0 * (f64::from(depth)).sqrt();
    let feature = reference_i8::multiplier(most as f64 / 2.0 / typical);
    let sum = (most * most) as f64 / 4.0 * f64::from(memory * u32::from(rank)).sqrt();
    let svdf = Svdf {
        rank,
        activation: Activation::None,
        narrow,
        state_zero_point: if narrow {
            random.int(-20, 20) as i32
        } else {
            0
        },
        feature,
        output: reference_i8::multiplier(60.0 / sum),
    };
    let inputs = vec![
        x,
        ints(random, &[n, filters * memory], -most, most),
        w,
        time.quantized(0.01, 0),
        ints(random, &[units], -1000, 1000).constant(),
    ];
    let op = Op::Svdf(svdf);
    let mut y = quantized(random, &[n, units]);
    y.zero_point /= 4;
    Case {
        op,
        inputs,
        output: y,
    }
}

pub fn lstm_case(random: &mut Random) -> Case {
    let (n, steps) = (random.int(1, 2) as u32, random.int(1, 6) as u32);
    let (depth, units) = (random.int(1, 20) as u32, random.int(1, 9) as u32);
    let x = quantized(random, &[n, steps, depth]);
    let y = quantized(random, &[n, steps, units])
        .quantized(random.float(0.0075, 0.009), random.int(-10, 10) as i32);
    let weights = |random: &mut Random, rows: u32, columns: u32| {
        let mut w = quantized(random, &[rows, columns]).constant();
        w.zero_point = 0;
        w.channel_scales = random.floats(4, 0.002, 0.012);
        w
    };
    let w = weights(random, 4 * units, depth);
    let recurrent = weights(random, 4 * units, units);
    let before = 1.0 / 4096.0;
    let mut factors = Vec::new();
    for (t, scale) in [(&w, x.scale), (&recurrent, y.scale)] {
        for s in &t.channel_scales {
            factors.push(reference_i8::multiplier(f64::from(scale * s) / before));
        }
    }
    let cell_power = random.int(-13, -9) as i32;
    let cell = f64::from(cell_power).exp2();
    let behind = 1.0 / 32768.0;
    let clip = random.pick(&[0.0_f32, 0.5, 10.0]);
    let lstm = Lstm {
        clip,
        cell_power,
        clip_steps: (f64::from(clip) / cell).min(32767.0) as i32,
        forget: reference_i8::multiplier(behind),
        input: reference_i8::multiplier(behind * behind / cell),
        output: reference_i8::multiplier(behind * behind / f64::from(y.scale)),
    };
    let vector = |v: Vec<i32>| Tensor::new(&[v.len() as u32], Values::I32(v)).constant();
    let mut state = ints(random, &[n, 2 * units], -128, 127);
    if let Values::I32(v) = &mut state.values {
        for sample in v.chunks_mut(2 * units as usize) {
            for c in &mut sample[units as usize..] {
                *c = random.int(-4000, 4000) as i32;
            }
        }
    }
    let inputs = vec![
        x,
        state,
        w,
        recurrent,
        ints(random, &[4 * units], -5000, 5000).constant(),
        vector(factors.iter().map(|f| f.mantissa).collect()),
        vector(factors.iter().map(|f| f.shift).collect()),
    ];
    Case {
        op: Op::Lstm(lstm),
        inputs,
        output: y,
    }
}

pub fn cases(random: &mut Random) -> Vec<Case> {
    let mut cases = Vec::new();
    for _ in 0..60 {
        cases.push(conv_case(random, false));
        cases.push(conv_case(random, true));
        cases.push(grouped_case(random));
        cases.push(transposed_case(random));
        cases.push(dense_case(random));
        cases.push(arithmetic_case(random, true));
        cases.push(arithmetic_case(random, false));
        cases.push(pool_case(random, false));
        cases.push(pool_case(random, true));
        cases.push(moving_case(random));
        cases.push(unary_case(random));
        cases.push(quantize_case(random));
        cases.push(shuffling_case(random));
        cases.push(state_case(random));
        cases.push(svdf_case(random));
        cases.push(lstm_case(random));
    }
    cases
}
