//! int8 operators against naive references in wide integers, bit for bit in both roundings; and their
//! straight-through gradients against those of the real operator on dequantized weights.

#[path = "support/int8_cases.rs"]
mod cases;
mod support;

use cases::{Case, cases, lstm_case, quantized};
use foolproof::kernels::{Kernels, fixed_point};
use foolproof::ops::*;
use foolproof::tensor::{DType, DataMut, Operand};
use std::collections::BTreeMap;
use support::reference::{self, Real};
use support::{Random, Tensor, Values, reference_i8};

fn operands(tensors: &[Tensor]) -> Vec<Operand<'_>> {
    tensors.iter().map(|t| t.operand()).collect()
}

/// Checks, runs forward, and returns the output with its elements: with this machine's loops those of the reference loops.
fn forward(case: &Case, numerics: Numerics) -> Tensor {
    let checked: Vec<Operand> = case
        .inputs
        .iter()
        .map(|t| if t.constant { t.operand() } else { t.absent() })
        .collect();
    case.op
        .check(numerics, &checked, &case.output.absent())
        .unwrap_or_else(|e| panic!("{:?}: {e:?}", case.op));
    let mut output = case.output.clone();
    let [scalar, fast] = [Kernels::Scalar, Kernels::detect()].map(|kernels| {
        let cx = Context::new(kernels, numerics);
        let mut inputs = case.inputs.clone();
        support::forward(&case.op, &cx, &mut inputs, &case.output, &mut [])
    });
    output.values = scalar;
    let other = Tensor {
        values: fast,
        ..output.clone()
    };
    assert_eq!(other.i8s(), output.i8s(), "{:?} {numerics:?}", case.op);
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
        let cx = Context::new(Kernels::Scalar, Numerics::Tflm);
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
        let cx = Context::new(Kernels::Scalar, Numerics::Tflm);
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
    let cx = Context::new(Kernels::Scalar, Numerics::Tflm);
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
        let cx = Context::new(Kernels::Scalar, Numerics::Tflm);
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
