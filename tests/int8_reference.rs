//! int8 operators against naive references in wide integers, bit for bit in both roundings; and their
//! straight-through gradients against those of the real operator on dequantized weights.

mod support;

use foolproof::kernels::{Kernels, fixed_point};
use foolproof::ops::*;
use foolproof::tensor::{DType, DataMut, Operand};
use std::collections::BTreeMap;
use support::reference::{self, Real};
use support::{Random, Tensor, Values, reference_i8};

struct Case {
    op: Op,
    inputs: Vec<Tensor>,
    /// Shape and quantization.
    output: Tensor,
}

const ACTIVATIONS: [Activation; 3] = [Activation::None, Activation::Relu, Activation::Relu6];

fn quantized(random: &mut Random, dims: &[u32]) -> Tensor {
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

fn lstm_case(random: &mut Random) -> Case {
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

fn cases(random: &mut Random) -> Vec<Case> {
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

fn operands(tensors: &[Tensor]) -> Vec<Operand<'_>> {
    tensors.iter().map(|t| t.operand()).collect()
}

/// Checks, runs forward, and returns the output with its elements.
fn forward(case: &Case, numerics: Numerics) -> Tensor {
    let checked: Vec<Operand> = case
        .inputs
        .iter()
        .map(|t| if t.constant { t.operand() } else { t.absent() })
        .collect();
    case.op
        .check(numerics, &checked, &case.output.absent())
        .unwrap_or_else(|e| panic!("{:?}: {e:?}", case.op));
    let cx = Context {
        kernels: Kernels::Scalar,
        numerics,
    };
    let mut output = case.output.clone();
    let mut inputs = case.inputs.clone();
    output.values = support::forward(&case.op, &cx, &mut inputs, &case.output, &mut []);
    output
}

#[test]
fn forward_is_exact_in_both_roundings() {
    let mut random = Random(3);
    let mut seen: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for case in &cases(&mut random) {
        let mut outputs = Vec::new();
        for numerics in [Numerics::Tflm, Numerics::TflmSingle] {
            let got = forward(case, numerics);
            let rounding = numerics.fixed_point();
            let expected = reference_i8::forward(&case.op, &case.inputs, &case.output, rounding);
            assert_eq!(got.i8s(), expected, "{:?} {numerics:?}", case.op);
            let entry = seen.entry(case.op.name()).or_default();
            entry.0 += expected.len();
            entry.1 += expected.iter().filter(|q| !matches!(q, -128 | 127)).count();
            outputs.push(expected);
        }
    }
    for (name, (all, inside)) in &seen {
        println!("{name}: {all} outputs, {inside} not saturated");
        assert!(
            inside * 4 > *all,
            "{name}: the test saturates too much to mean anything"
        );
    }
    assert_eq!(seen.len(), 20);
}

#[test]
fn requantize_agrees_with_128_bit_arithmetic() {
    let mut random = Random(5);
    let edges = [
        i32::MIN,
        i32::MIN + 1,
        -(1 << 30),
        -3,
        -2,
        -1,
        0,
        1,
        2,
        3,
        (1 << 30) - 1,
        1 << 30,
        i32::MAX,
    ];
    let mut compared = 0;
    let mut differ = 0;
    let mut check = |x: i32, factor: Multiplier| {
        let mut results = [0; 2];
        for (result, rounding) in results.iter_mut().zip([Rounding::Double, Rounding::Single]) {
            let fits = i32::try_from((x as i128) << factor.shift.max(0)).is_ok();
            if rounding == Rounding::Double && !fits {
                // Not defined by TFLite: it only must not panic.
                fixed_point::requantize(x, factor, rounding);
                return;
            }
            let got = fixed_point::requantize(x, factor, rounding);
            let expected = reference_i8::requantize(x as i128, factor, rounding);
            assert_eq!(got, expected as i32, "{x} {factor:?} {rounding:?}");
            compared += 1;
            *result = got;
        }
        differ += (results[0] != results[1]) as usize;
    };
    let mantissas = [0, 1, 1 << 30, (1 << 30) + 1, i32::MAX - 1, i32::MAX];
    for x in edges {
        for mantissa in mantissas {
            for shift in -31..=30 {
                check(x, Multiplier { mantissa, shift });
            }
        }
    }
    for _ in 0..200_000 {
        let mantissa = random.int(1 << 30, i32::MAX as i64) as i32;
        let shift = random.int(-31, 4) as i32;
        let x = (random.next() as i32) >> random.below(31);
        check(x, Multiplier { mantissa, shift });
    }
    println!("{compared} compared, the roundings differ in {differ}");
    assert!(compared > 300_000 && differ > 100);
}

/// The straight-through gradient is that of the operator without its clamp on the dequantized numbers, with gy
/// zero where the output sits on a rail.
#[test]
fn input_gradients_are_straight_through() {
    let mut random = Random(9);
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    let mut clamped = 0;
    for case in &cases(&mut random) {
        let op = &case.op;
        // through time: see below; and no gradient goes to an earlier run
        if matches!(op, Op::Lstm(_) | Op::Recall) {
            continue;
        }
        let cx = Context {
            kernels: Kernels::Scalar,
            numerics: Numerics::Tflm,
        };
        let y = forward(case, Numerics::Tflm);
        let needs = op.needs(case.inputs[0].dtype(), false);
        let mut saved = vec![0x55; needs.saved.bytes(&y.shape)];
        let all = operands(&case.inputs);
        if needs.saved != Saved::Nothing {
            op.save(&cx, &all, &y.operand(), &mut saved);
        }
        let kept: Vec<Operand> = case
            .inputs
            .iter()
            .enumerate()
            .map(|(i, t)| match t.constant || needs.inputs >> i & 1 == 1 {
                true => t.operand(),
                false => t.absent(),
            })
            .collect();
        let y_kept = if needs.output {
            y.operand()
        } else {
            y.absent()
        };
        let gy = random.floats(y.len(), -1.0, 1.0);
        let mut through = gy.clone();
        let seen = Seen {
            inputs: &kept,
            output: &y_kept,
            saved: &saved,
        };
        op.activation_gradient(&cx, &seen, &mut through);

        // The mask, from its definition.
        let activation = Activation::from_code(match op {
            Op::Conv2d(_) | Op::DepthwiseConv2d(_) | Op::AvgPool2d(_) | Op::MaxPool2d(_) => {
                op.words()[8]
            }
            Op::ConvTranspose2d(_) => op.words()[10],
            Op::Dense(_) | Op::Add(_) | Op::Mul(_) => op.words()[0],
            _ => 0,
        })
        .expect("an activation");
        let (low, high) = reference_i8::range(activation, &y.quant());
        // Pooling without an activation cannot saturate, moving neither.
        let moves = matches!(
            op,
            Op::Pad(_)
                | Op::Reshape
                | Op::Concat(_)
                | Op::Unary(_)
                | Op::Transpose(_)
                | Op::Slice(_)
                | Op::ReduceMax(_)
                | Op::Remember
        );
        let pools =
            matches!(op, Op::AvgPool2d(_) | Op::MaxPool2d(_)) && activation == Activation::None;
        let mut masked: Vec<f64> = gy.iter().map(|&g| g as f64).collect();
        for (g, &q) in masked.iter_mut().zip(y.i8s()) {
            if !moves && !pools && (q as i128 <= low || q as i128 >= high) {
                *g = 0.0;
                clamped += 1;
            }
        }
        for (which, input) in case.inputs.iter().enumerate().filter(|(_, t)| !t.constant) {
            if op.state_operand() == Some(which) {
                continue;
            }
            let mut gx = vec![0.25f32; input.len()];
            op.input_gradient(&cx, which, &seen, &through, &mut gx);
            let expected = straight_through(case, which, &masked);
            let largest = expected.iter().fold(1e-6f64, |m, e| m.max(e.abs()));
            for (i, (&g, e)) in gx.iter().zip(&expected).enumerate() {
                let off = (g as f64 - 0.25 - e).abs();
                assert!(
                    off <= 1e-4 * largest + 1e-6,
                    "{op:?}: gradient {i} of input {which} is {}, should be {e}",
                    g - 0.25
                );
            }
            *count.entry(op.name()).or_default() += 1;
        }
    }
    println!("{count:?}, {clamped} outputs clamped");
    assert!(count.len() == 18 && clamped > 100);
}

fn straight_through(case: &Case, which: usize, gy: &[f64]) -> Vec<f64> {
    let op = &case.op;
    let mut gx = vec![0.0; case.inputs[which].len()];
    match op {
        Op::MaxPool2d(pool) => {
            let x = &case.inputs[0];
            for (i, g) in gy.iter().enumerate() {
                let o = reference::position(&case.output.shape, i);
                let cells = reference_i8::pool_cells(op, x, &o);
                let max = cells
                    .iter()
                    .map(|c| c.1)
                    .max()
                    .expect("a window is never empty");
                let first = cells.iter().find(|c| c.1 == max).expect("it was there").0 as i64;
                let k = [first / pool.window[1] as i64, first % pool.window[1] as i64];
                let (y, z) = reference::cell(&o, k, pool.stride, [1, 1], pool.padding);
                let (h, w, c) = (
                    x.shape.dim(1) as i64,
                    x.shape.dim(2) as i64,
                    x.shape.dim(3) as i64,
                );
                gx[(((o[0] * h + y) * w + z) * c + o[3]) as usize] += g;
            }
        }
        Op::Unary(_) => {
            for ((gx, g), &q) in gx.iter_mut().zip(gy).zip(case.inputs[0].i8s()) {
                *gx = g * case.inputs[2].f32s()[(q as i32 + 128) as usize] as f64;
            }
        }
        Op::Quantize => gx.copy_from_slice(gy),
        Op::ReduceMax(reduce) => {
            // the first of the largest
            let x = &case.inputs[0];
            for (i, g) in gy.iter().enumerate() {
                let mut from = reference::position(&case.output.shape, i);
                let axis = reduce.axis as usize;
                let index = |p: &[i64]| {
                    let dims = x.shape.dims().iter();
                    dims.zip(p)
                        .fold(0, |index, (&d, &p)| index * d as usize + p as usize)
                };
                let mut best: Option<usize> = None;
                for p in 0..x.shape.dim(axis) as i64 {
                    from[axis] = p;
                    let at = index(&from);
                    if best.is_none_or(|b| x.i8s()[at] > x.i8s()[b]) {
                        best = Some(at);
                    }
                }
                gx[best.expect("an element")] += g;
            }
        }
        Op::Svdf(svdf) => {
            let (x, w, time) = (&case.inputs[0], &case.inputs[2], &case.inputs[3]);
            let (depth, memory) = (x.shape.dim(1), time.shape.dim(1));
            let units = case.output.shape.dim(1);
            for (i, g) in gy.iter().enumerate() {
                let (n, u) = (i / units, i % units);
                for f in u * usize::from(svdf.rank)..(u + 1) * usize::from(svdf.rank) {
                    let newest =
                        f64::from(time.i32s()[(f + 1) * memory - 1]) * f64::from(time.scale);
                    for c in 0..depth {
                        let w = f64::from(w.i8s()[f * depth + c]) * f64::from(w.scale);
                        gx[n * depth + c] += g * newest * w;
                    }
                }
            }
        }
        _ => {
            let reals: Vec<Real> = case
                .inputs
                .iter()
                .take(if matches!(op, Op::Concat(_)) { 8 } else { 3 })
                .enumerate()
                .map(|(i, t)| Real {
                    shape: t.shape,
                    // The bias does not matter, and its scale is not stored.
                    data: if i == 2 { vec![0.0; t.len()] } else { t.real() },
                })
                .collect();
            let linear = without_activation(op);
            gx = reference::gradient(&linear, &reals, &case.output.shape, false, which, gy);
        }
    }
    gx
}

fn without_activation(op: &Op) -> Op {
    let mut op = *op;
    match &mut op {
        Op::Conv2d(Conv2d { activation, .. })
        | Op::DepthwiseConv2d(DepthwiseConv2d { activation, .. })
        | Op::ConvTranspose2d(ConvTranspose2d { activation, .. })
        | Op::Dense(Dense { activation })
        | Op::Add(Add { activation, .. })
        | Op::Mul(Mul { activation, .. })
        | Op::AvgPool2d(Pool2d { activation, .. }) => *activation = Activation::None,
        _ => {}
    }
    op
}

/// Through an LSTM: the chain rule over the gates that the integers gave, step by step, written as a sum over all paths.
#[test]
fn recurrent_gradients_are_straight_through_time() {
    let mut random = Random(17);
    let mut blocked = 0;
    for _ in 0..80 {
        let case = lstm_case(&mut random);
        let Op::Lstm(lstm) = case.op else {
            panic!("an LSTM")
        };
        let cx = Context {
            kernels: Kernels::Scalar,
            numerics: Numerics::Tflm,
        };
        let needs = case.op.needs(DType::I8, false);
        let mut saved = vec![0x55; needs.saved.bytes(&case.output.shape)];
        let mut inputs = case.inputs.clone();
        support::forward(&case.op, &cx, &mut inputs, &case.output, &mut saved);
        let gy = random.floats(case.output.len(), -1.0, 1.0);
        let mut through = gy.clone();
        let mut gx = vec![0.25f32; case.inputs[0].len()];
        let kept: Vec<Operand> = inputs
            .iter()
            .map(|t| if t.constant { t.operand() } else { t.absent() })
            .collect();
        case.op.unrolled_gradient(
            &kept,
            &case.output.absent(),
            &mut saved,
            &mut through,
            &mut gx,
        );

        let steps = reference_i8::lstm(&lstm, &case.inputs, &case.output, Rounding::Double);
        let (x, w, r) = (&case.inputs[0], &case.inputs[2], &case.inputs[3]);
        let (count, depth) = (x.shape.dim(1), x.shape.dim(2));
        let units = case.output.shape.dim(2);
        let weight = |t: &Tensor, row: usize, column: usize| {
            let columns = t.shape.dim(1);
            f64::from(t.i8s()[row * columns + column]) * f64::from(t.channel_scales[row / units])
        };
        let mut expected = vec![0.0; x.len()];
        for n in 0..x.shape.dim(0) {
            let mut gh = vec![0.0; units];
            let mut gc = vec![0.0; units];
            for t in (0..count).rev() {
                let mut gates = vec![0.0; 4 * units];
                for j in 0..units {
                    let s = &steps[(n * count + t) * units + j];
                    let [i, f, g, o] = s.gates.map(|v| f64::from(v) / 32768.0);
                    let scale = f64::from(lstm.cell_power).exp2();
                    let before = f64::from(s.before) * scale;
                    let free = f * before + i * g;
                    let bounded = lstm.clip > 0.0 && free.abs() > f64::from(lstm.clip);
                    let c = match bounded {
                        true => free.signum() * f64::from(lstm.clip),
                        false => free,
                    };
                    let mut total = gh[j] + f64::from(gy[(n * count + t) * units + j]);
                    if matches!(s.output, -128 | 127) {
                        total = 0.0;
                        blocked += 1;
                    }
                    let mut cell = gc[j] + total * o * (1.0 - c.tanh() * c.tanh());
                    if bounded {
                        cell = 0.0;
                        blocked += 1;
                    }
                    gates[j] = cell * g * i * (1.0 - i);
                    gates[units + j] = cell * before * f * (1.0 - f);
                    gates[2 * units + j] = cell * i * (1.0 - g * g);
                    gates[3 * units + j] = total * c.tanh() * o * (1.0 - o);
                    gc[j] = cell * f;
                }
                gh.fill(0.0);
                for (row, g) in gates.iter().enumerate() {
                    for k in 0..depth {
                        expected[(n * count + t) * depth + k] += g * weight(w, row, k);
                    }
                    for (k, gh) in gh.iter_mut().enumerate() {
                        *gh += g * weight(r, row, k);
                    }
                }
            }
        }
        let largest = expected.iter().fold(1e-6f64, |m, e| m.max(e.abs()));
        for (i, (&g, e)) in gx.iter().zip(&expected).enumerate() {
            let off = (f64::from(g) - 0.25 - e).abs();
            assert!(
                off <= 1e-4 * largest + 1e-6,
                "{lstm:?}: gradient {i} is {}, should be {e}",
                g - 0.25
            );
        }
    }
    assert!(blocked > 50, "{blocked} steps blocked");
}

#[test]
fn dequantize_and_its_gradient() {
    let mut random = Random(13);
    let x = quantized(&mut random, &[4, 64]);
    let y = Tensor::new(&[4, 64], Values::F32(vec![0.0; 256]));
    let op = Op::Dequantize;
    op.check(Numerics::Tflm, &[x.absent()], &y.absent())
        .expect("valid");
    let cx = Context {
        kernels: Kernels::Scalar,
        numerics: Numerics::Tflm,
    };
    let mut got = vec![0.0; 256];
    op.forward(
        &cx,
        &[x.operand()],
        &[],
        &y.absent(),
        DataMut::F32(&mut got),
    );
    for (&g, e) in got.iter().zip(x.real()) {
        assert_eq!(g, e as f32);
    }
    let gy = random.floats(256, -1.0, 1.0);
    let mut through = gy.clone();
    let seen = Seen {
        inputs: &[x.absent()],
        output: &y.absent(),
        saved: &[],
    };
    op.activation_gradient(&cx, &seen, &mut through);
    let mut gx = vec![1.0; 256];
    op.input_gradient(&cx, 0, &seen, &through, &mut gx);
    assert!(gx.iter().zip(&gy).all(|(gx, gy)| *gx == 1.0 + gy));
}

fn softmax(beta: f32, input_scale: f32) -> Softmax {
    // TFLite's PreprocessSoftmaxScaling and CalculateInputRadius, with 5 integer bits.
    let real =
        (beta as f64 * input_scale as f64 * (1u64 << 26) as f64).min(((1u64 << 31) - 1) as f64);
    let input = reference_i8::multiplier(real);
    let radius = (31.0 * 2f64.powi(26) / 2f64.powi(input.shift)).floor();
    Softmax {
        beta,
        input,
        diff_min: -(radius as i32),
    }
}

/// The integer softmax is close to the real one, and its gradient is the real one's at the integer outputs. (Its
/// exact bits are compared with TFLite Micro's in tflm_golden.rs.)
#[test]
fn softmax_approximates_and_its_gradient_uses_the_outputs() {
    let mut random = Random(17);
    for (n, scale, beta) in [
        (10, 0.1, 1.0),
        (3, 0.02, 1.0),
        (1, 0.1, 1.0),
        (100, 0.25, 0.5),
        (600, 0.001, 1.0),
    ] {
        let mut x = quantized(&mut random, &[4, n]);
        x.scale = scale;
        let y = quantized(&mut random, &[4, n]).quantized(1.0 / 256.0, -128);
        let case = Case {
            op: Op::Softmax(softmax(beta, scale)),
            inputs: vec![x],
            output: y,
        };
        let y = forward(&case, Numerics::Tflm);
        let real = Real {
            shape: case.inputs[0].shape,
            data: case.inputs[0].real(),
        };
        let expected = reference::forward(&case.op, &[real], &y.shape, false);
        for (&q, e) in y.i8s().iter().zip(&expected) {
            let steps = (e * 256.0 - 128.0).min(127.0);
            assert!(
                (q as f64 - steps).abs() < 1.0,
                "softmax of {n}: {q}, real {steps}"
            );
        }
        let gy = random.floats(y.len(), -1.0, 1.0);
        let mut gx = vec![0.0; y.len()];
        let cx = Context {
            kernels: Kernels::Scalar,
            numerics: Numerics::Tflm,
        };
        assert!(case.op.needs(DType::I8, false).output);
        let x = [case.inputs[0].absent()];
        let seen = Seen {
            inputs: &x,
            output: &y.operand(),
            saved: &[],
        };
        case.op.input_gradient(&cx, 0, &seen, &gy, &mut gx);
        for row in 0..4 {
            let (n, from) = (n as usize, row * n as usize);
            let p = &y.real()[from..from + n];
            let mean: f64 = p.iter().zip(&gy[from..]).map(|(p, &g)| p * g as f64).sum();
            for i in 0..n {
                let e = beta as f64 * p[i] * (gy[from + i] as f64 - mean);
                assert!((gx[from + i] as f64 - e).abs() < 1e-6);
            }
        }
    }
}
