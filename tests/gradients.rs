//! Every operator's f32 forward against a double-precision reference, and its gradients (input and parameters)
//! against central differences of that reference. Backward gets exactly what `Op::needs` asks for, and no more.

mod support;

use foolproof::kernels::Kernels;
use foolproof::ops::*;
use foolproof::tensor::{DType, Operand};
use std::collections::BTreeSet;
use support::reference::{self, Real};
use support::{Random, Tensor, Values, shape};

/// Allowed error. `relative` is of the norms and of each element; an element may also be off by `floor` times
/// the largest one, since a sum of large terms that cancel has no relative precision.
struct Tolerance {
    relative: f64,
    floor: f64,
}

const FORWARD: Tolerance = Tolerance {
    relative: 1e-5,
    floor: 1e-6,
};
const GRADIENT: Tolerance = Tolerance {
    relative: 1e-3,
    floor: 1e-5,
};

/// Operators that have no gradient case here, and why.
const EXEMPT: [(&str, &str); 3] = [
    (
        "recall",
        "its input belongs to an earlier run, where no gradient goes: tested in session.rs",
    ),
    (
        "quantize",
        "piecewise constant: its gradient is straight-through by definition, tested in int8_reference.rs",
    ),
    (
        "dequantize",
        "its input is an integer, which has no finite differences: tested in int8_reference.rs",
    ),
];

struct Case {
    op: Op,
    inputs: Vec<Tensor>,
    /// Where no rule gives it (reshape).
    output: Option<Vec<u32>>,
}

fn case(op: Op, inputs: Vec<Tensor>) -> Case {
    Case {
        op,
        inputs,
        output: None,
    }
}

fn tensor(random: &mut Random, dims: &[u32]) -> Tensor {
    let n = dims.iter().product::<u32>() as usize;
    Tensor::new(dims, Values::F32(random.floats(n, -2.0, 2.0)))
}

fn conv_cases(random: &mut Random, cases: &mut Vec<Case>) {
    let same = |h: u32, w: u32, k: [u32; 2], s: u32, d: u32| {
        let (rows, columns) = (Padding::same(h, k[0], s, d), Padding::same(w, k[1], s, d));
        Padding {
            top: rows.0 as u16,
            left: columns.0 as u16,
            bottom: rows.1 as u16,
            right: columns.1 as u16,
        }
    };
    /// Input, kernel, stride, dilation, same padding, output channels (or depth multiplier), activation.
    type Row = ([u32; 4], [u32; 2], u32, u32, bool, u32, Activation);
    let table: [Row; 9] = [
        ([1, 1, 1, 1], [1, 1], 1, 1, false, 1, Activation::None),
        ([2, 5, 4, 3], [3, 3], 1, 1, true, 5, Activation::None),
        ([1, 7, 5, 2], [3, 2], 2, 1, true, 4, Activation::Relu),
        ([3, 6, 7, 1], [3, 3], 1, 2, true, 3, Activation::Relu6),
        ([1, 9, 8, 2], [2, 3], 2, 2, false, 2, Activation::Relu),
        ([2, 4, 4, 9], [2, 2], 1, 1, false, 6, Activation::Relu6),
        ([1, 1, 11, 3], [1, 4], 3, 1, true, 2, Activation::None),
        ([1, 2, 3, 17], [1, 1], 1, 1, false, 8, Activation::Relu),
        ([1, 3, 3, 2], [5, 5], 1, 1, true, 2, Activation::None),
    ];
    for (x, k, s, d, padded, out, activation) in table {
        let padding = if padded {
            same(x[1], x[2], k, s, d)
        } else {
            Padding::VALID
        };
        let (stride, dilation) = ([s as u16; 2], [d as u16; 2]);
        let weights = tensor(random, &[out, k[0], k[1], x[3]]).constant();
        let bias = tensor(random, &[out]).constant();
        let conv = Conv2d {
            stride,
            dilation,
            padding,
            activation,
        };
        cases.push(case(
            Op::Conv2d(conv),
            vec![tensor(random, &x), weights, bias],
        ));
        let multiplier = out.min(3);
        let channels = x[3] * multiplier;
        for channels in [channels, x[3]] {
            let weights = tensor(random, &[1, k[0], k[1], channels]).constant();
            let bias = tensor(random, &[channels]).constant();
            let conv = DepthwiseConv2d {
                stride,
                dilation,
                padding,
                activation,
            };
            let inputs = vec![tensor(random, &x), weights, bias];
            cases.push(case(Op::DepthwiseConv2d(conv), inputs));
        }
    }
    // Uneven strides, dilations and padding.
    let odd = Conv2d {
        stride: [2, 3],
        dilation: [3, 1],
        padding: Padding {
            top: 3,
            left: 0,
            bottom: 1,
            right: 4,
        },
        activation: Activation::None,
    };
    let inputs = vec![
        tensor(random, &[2, 6, 5, 3]),
        tensor(random, &[5, 2, 3, 3]).constant(),
        tensor(random, &[5]).constant(),
    ];
    cases.push(case(Op::Conv2d(odd), inputs));
    // groups
    for (activation, groups, o) in [
        (Activation::None, 2, 4),
        (Activation::Relu, 3, 3),
        (Activation::Relu6, 6, 12),
    ] {
        let conv = Conv2d { activation, ..odd };
        let inputs = vec![
            tensor(random, &[2, 6, 5, 6]),
            tensor(random, &[o, 2, 3, 6 / groups]).constant(),
            tensor(random, &[o]).constant(),
        ];
        cases.push(case(Op::Conv2d(conv), inputs));
    }
    for (stride, dilation, extra, share, activation) in [
        ([1, 1], [1, 1], [0, 0], 4, Activation::None),
        ([2, 3], [1, 2], [1, 2], 4, Activation::Relu),
        ([3, 1], [2, 1], [2, 0], 2, Activation::None),
    ] {
        let conv = ConvTranspose2d {
            stride,
            dilation,
            padding: Padding {
                top: 1,
                left: 0,
                bottom: 0,
                right: 1,
            },
            extra,
            activation,
        };
        let inputs = vec![
            tensor(random, &[2, 3, 2, 4]),
            tensor(random, &[6, 3, 2, share]).constant(),
            tensor(random, &[6]).constant(),
        ];
        cases.push(case(Op::ConvTranspose2d(conv), inputs));
    }
    for (x, o, activation) in [
        (vec![1, 1], 1, Activation::None),
        (vec![3, 7], 5, Activation::Relu),
        (vec![2, 3, 3, 2], 9, Activation::Relu6),
        (vec![19], 3, Activation::None),
    ] {
        let depth: u32 = if x.len() == 1 {
            x[0]
        } else {
            x[1..].iter().product()
        };
        let inputs = vec![
            tensor(random, &x),
            tensor(random, &[o, depth]).constant(),
            tensor(random, &[o]).constant(),
        ];
        cases.push(case(Op::Dense(Dense { activation }), inputs));
    }
}

fn elementwise_cases(random: &mut Random, cases: &mut Vec<Case>) {
    let shapes: [(&[u32], &[u32]); 7] = [
        (&[2, 3, 4], &[2, 3, 4]),
        (&[2, 3, 4], &[4]),
        (&[2, 1, 4], &[3, 1]),
        (&[1], &[2, 5]),
        (&[2, 2, 1, 3, 1, 2], &[2, 1, 2, 3, 2, 1]),
        (&[3, 1, 1, 5], &[3, 2, 2, 5]),
        (&[], &[4]),
    ];
    for (i, (a, b)) in shapes.into_iter().enumerate() {
        let activation = [Activation::None, Activation::Relu, Activation::Relu6][i % 3];
        for op in [
            Op::Add(Add::float(activation)),
            Op::Mul(Mul::float(activation)),
        ] {
            let (ta, tb) = (tensor(random, a), tensor(random, b));
            cases.push(case(op, vec![ta.clone(), tb.clone()]));
            cases.push(case(op, vec![ta, tb.constant()]));
        }
    }
    for unary in [
        Unary::Relu,
        Unary::Relu6,
        Unary::LeakyRelu { alpha: 0.1 },
        Unary::LeakyRelu { alpha: 0.0 },
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::Requantize,
        Unary::Clip {
            low: -1.5,
            high: 2.5,
        },
        Unary::Elu { alpha: 0.7 },
        Unary::Abs,
        Unary::Exp,
        Unary::Softplus,
        Unary::Erf,
    ] {
        for dims in [&[1][..], &[3, 2, 5], &[17]] {
            let n = dims.iter().product::<u32>() as usize;
            let x = Tensor::new(dims, Values::F32(random.floats(n, -4.0, 9.0)));
            cases.push(case(Op::Unary(unary), vec![x]));
        }
    }
    // of positive numbers
    for unary in [Unary::Log, Unary::Sqrt, Unary::Reciprocal] {
        let x = Tensor::new(&[23], Values::F32(random.floats(23, 0.2, 9.0)));
        cases.push(case(Op::Unary(unary), vec![x]));
    }
    for (dims, beta) in [
        (&[3, 10][..], 1.0),
        (&[2, 2, 3], 0.5),
        (&[1], 1.0),
        (&[2, 7], -1.5),
    ] {
        let softmax = Softmax {
            beta,
            input: Multiplier::default(),
            diff_min: 0,
        };
        cases.push(case(Op::Softmax(softmax), vec![tensor(random, dims)]));
    }
    for dims in [&[3, 4, 4, 2][..], &[5, 11], &[2, 3, 8]] {
        let c = *dims.last().expect("a shape");
        let variance = Values::F32(random.floats(c as usize, 0.5, 3.0));
        let inputs = vec![
            tensor(random, dims),
            tensor(random, &[c]).constant(),
            tensor(random, &[c]).constant(),
            tensor(random, &[c]).constant(),
            Tensor::new(&[c], variance).constant(),
        ];
        cases.push(case(Op::BatchNorm(BatchNorm { epsilon: 1e-3 }), inputs));
    }
}

fn moving_cases(random: &mut Random, cases: &mut Vec<Case>) {
    let pads = |top, left, bottom, right| Padding {
        top,
        left,
        bottom,
        right,
    };
    for (x, window, stride, padding, activation) in [
        (
            [1, 4, 4, 1],
            [2, 2],
            [2, 2],
            Padding::VALID,
            Activation::None,
        ),
        (
            [2, 5, 7, 3],
            [3, 2],
            [2, 1],
            pads(1, 0, 1, 1),
            Activation::Relu,
        ),
        (
            [3, 3, 3, 9],
            [3, 3],
            [1, 1],
            pads(2, 1, 2, 1),
            Activation::Relu6,
        ),
        (
            [1, 6, 1, 2],
            [6, 1],
            [1, 1],
            Padding::VALID,
            Activation::None,
        ),
        (
            [1, 16, 16, 2],
            [16, 16],
            [1, 1],
            Padding::VALID,
            Activation::None,
        ),
    ] {
        let pool = Pool2d {
            window,
            stride,
            padding,
            activation,
        };
        cases.push(case(Op::AvgPool2d(pool), vec![tensor(random, &x)]));
        cases.push(case(Op::MaxPool2d(pool), vec![tensor(random, &x)]));
    }
    for (x, before, after) in [
        (&[2, 3][..], [0, 1, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0]),
        (&[1, 3, 2, 2], [0, 1, 2, 0, 0, 0], [0, 0, 1, 1, 0, 0]),
        (&[2, 1, 2, 1, 3, 2], [1, 0, 1, 0, 2, 1], [0, 3, 0, 1, 0, 1]),
    ] {
        cases.push(case(
            Op::Pad(Pad { before, after }),
            vec![tensor(random, x)],
        ));
    }
    cases.push(Case {
        op: Op::Reshape,
        inputs: vec![tensor(random, &[2, 3, 4])],
        output: Some(vec![2, 12]),
    });
    for (axis, shapes) in [
        (
            3,
            vec![vec![2, 2, 3, 1], vec![2, 2, 3, 4], vec![2, 2, 3, 2]],
        ),
        (1, vec![vec![2, 5], vec![2, 1]]),
        (0, vec![vec![3, 2], vec![1, 2]]),
        (1, vec![vec![2, 3, 2]]),
    ] {
        let inputs = shapes.iter().map(|s| tensor(random, s)).collect();
        cases.push(case(Op::Concat(Concat { axis }), inputs));
    }
}

fn recurrent_cases(random: &mut Random, cases: &mut Vec<Case>) {
    let zero = Multiplier::default();
    for (n, steps, depth, units, clip) in [
        (1, 1, 1, 1, 0.0),
        (1, 5, 3, 4, 0.0),
        (2, 4, 9, 2, 0.6),
        (3, 7, 2, 3, 10.0),
    ] {
        let weights = |random: &mut Random, dims: &[u32]| {
            let len = dims.iter().product::<u32>() as usize;
            Tensor::new(dims, Values::F32(random.floats(len, -0.8, 0.8)))
        };
        let inputs = vec![
            tensor(random, &[n, steps, depth]),
            weights(random, &[n, 2 * units]),
            weights(random, &[4 * units, depth]).constant(),
            weights(random, &[4 * units, units]).constant(),
            weights(random, &[4 * units]).constant(),
        ];
        let lstm = Lstm {
            clip,
            cell_power: 0,
            clip_steps: 0,
            forget: zero,
            input: zero,
            output: zero,
        };
        cases.push(case(Op::Lstm(lstm), inputs));
    }
    for (n, depth, filters, memory, rank, activation) in [
        (1, 1, 1, 1, 1, Activation::None),
        (2, 5, 6, 3, 2, Activation::None),
        (3, 4, 3, 4, 1, Activation::Relu),
    ] {
        let svdf = Svdf {
            rank,
            activation,
            narrow: false,
            state_zero_point: 0,
            feature: zero,
            output: zero,
        };
        let inputs = vec![
            tensor(random, &[n, depth]),
            tensor(random, &[n, filters * memory]),
            tensor(random, &[filters, depth]).constant(),
            tensor(random, &[filters, memory]).constant(),
            tensor(random, &[filters / u32::from(rank)]).constant(),
        ];
        cases.push(case(Op::Svdf(svdf), inputs));
    }
    let inputs = vec![tensor(random, &[2, 3]), tensor(random, &[2, 3])];
    cases.push(case(Op::Remember, inputs));
}

fn shuffling_cases(random: &mut Random, cases: &mut Vec<Case>) {
    for dims in [&[3, 10][..], &[2, 2, 3], &[1]] {
        let softmax = LogSoftmax {
            input: Multiplier::default(),
            diff_min: 0,
            back: Multiplier::default(),
        };
        cases.push(case(Op::LogSoftmax(softmax), vec![tensor(random, dims)]));
    }
    for (dims, axis) in [
        (&[3, 4][..], 1),
        (&[2, 3, 4, 2], 1),
        (&[2, 5, 3], 2),
        (&[4], 0),
    ] {
        cases.push(case(
            Op::ReduceMax(ReduceMax { axis }),
            vec![tensor(random, dims)],
        ));
    }
    for (dims, axes) in [
        (&[2, 3][..], [1, 0, 0, 0, 0, 0]),
        (&[2, 3, 4, 5], [0, 3, 1, 2, 0, 0]),
        (&[1, 2, 3, 2, 1, 2], [5, 4, 3, 2, 1, 0]),
        (&[7], [0; 6]),
    ] {
        let op = Op::Transpose(Transpose { axes });
        cases.push(case(op, vec![tensor(random, dims)]));
    }
    for (dims, axis, begin, count, step) in [
        (&[2, 7][..], 1, 1, 3, 2),
        (&[3, 2, 4], 0, 2, 3, -1),
        (&[3, 5, 4], 1, 4, 1, 9),
        (&[6], 0, 0, 6, 1),
    ] {
        let slice = Slice {
            axis,
            begin,
            count,
            step,
        };
        cases.push(case(Op::Slice(slice), vec![tensor(random, dims)]));
    }
}

fn cases() -> Vec<Case> {
    let mut random = Random(7);
    let mut cases = Vec::new();
    conv_cases(&mut random, &mut cases);
    elementwise_cases(&mut random, &mut cases);
    moving_cases(&mut random, &mut cases);
    shuffling_cases(&mut random, &mut cases);
    recurrent_cases(&mut random, &mut cases);
    cases
}

/// Compares, and returns the relative error of the norm.
fn compare(what: &str, got: &[f32], expected: &[f64], tolerance: &Tolerance) -> f64 {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    let largest = expected.iter().fold(0f64, |m, x| m.max(x.abs()));
    let (mut error, mut norm) = (0.0, 0.0);
    for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
        let off = (g as f64 - e).abs();
        let allowed = tolerance.relative * e.abs() + tolerance.floor * largest.max(1e-3);
        assert!(
            off <= allowed,
            "{what}: element {i} is {g}, the reference {e}"
        );
        error += off * off;
        norm += e * e;
    }
    let relative = (error / norm.max(1e-12)).sqrt();
    assert!(
        relative <= tolerance.relative,
        "{what}: norm off by {relative:e}"
    );
    relative
}

/// Runs one case; returns the largest relative gradient error.
fn run(case: &Case, training: bool, random: &mut Random) -> f64 {
    let op = &case.op;
    let cx = Context::new(Kernels::Scalar, Numerics::Tflm);
    let shapes: Vec<_> = case.inputs.iter().map(|t| t.shape).collect();
    let what = format!(
        "{} {:?} {op:?} training {training}",
        op.name(),
        shapes[0].dims()
    );
    let out = match &case.output {
        Some(dims) => shape(dims),
        None => op
            .output_shape(&shapes)
            .unwrap_or_else(|e| panic!("{what}: {e:?}")),
    };
    let mut y = Tensor::new(out.dims(), Values::F32(vec![f32::NAN; out.len()]));
    let checked: Vec<Operand> = case
        .inputs
        .iter()
        .map(|t| if t.constant { t.operand() } else { t.absent() })
        .collect();
    op.check(Numerics::Tflm, &checked, &y.absent())
        .unwrap_or_else(|e| panic!("{what}: {e:?}"));

    let all: Vec<Operand> = case.inputs.iter().map(|t| t.operand()).collect();
    let needs = op.needs(DType::F32, training);
    let mut saved = vec![0xaa; needs.saved.bytes(&out)];
    let batch_statistics = needs.saved == Saved::Statistics;
    if batch_statistics {
        op.prepare(&cx, &all, &mut saved);
    }
    drop(all);
    let mut inputs = case.inputs.clone();
    let notes = batch_statistics || matches!(needs.saved, Saved::Steps { .. });
    let own = if notes { &mut saved[..] } else { &mut [] };
    y.values = support::forward(op, &cx, &mut inputs, &y, own);
    let all: Vec<Operand> = inputs.iter().map(|t| t.operand()).collect();
    if matches!(needs.saved, Saved::Bits | Saved::Indices) {
        op.save(&cx, &all, &y.operand(), &mut saved);
    }

    let reals: Vec<Real> = case
        .inputs
        .iter()
        .map(|t| Real {
            shape: t.shape,
            data: t.real(),
        })
        .collect();
    let expected = reference::forward(op, &reals, &out, training);
    compare(&what, y.f32s(), &expected, &FORWARD);

    // Only what the operator asked for.
    let kept: Vec<Operand> = inputs
        .iter()
        .enumerate()
        .map(|(i, t)| {
            // a state is always there
            if t.constant || needs.inputs >> i & 1 == 1 || op.state_operand() == Some(i) {
                t.operand()
            } else {
                t.absent()
            }
        })
        .collect();
    let y = if needs.output {
        y.operand()
    } else {
        y.absent()
    };
    let gy = random.floats(out.len(), -1.0, 1.0);
    let gy_real: Vec<f64> = gy.iter().map(|&g| g as f64).collect();
    let mut through = gy;
    // Gradients are added to what is there.
    let mut unrolled = vec![0.25f32; case.inputs[0].len()];
    if op.unrolls() {
        op.unrolled_gradient(&kept, &y, &mut saved, &mut through, &mut unrolled);
    }
    let seen = Seen {
        inputs: &kept,
        output: &y,
        saved: &saved,
    };
    op.activation_gradient(&cx, &seen, &mut through);
    let mut worst = 0f64;
    for (i, input) in case.inputs.iter().enumerate() {
        if input.constant && !training || op.state_operand() == Some(i) {
            continue;
        }
        let mut g = vec![0.25f32; input.len()];
        if op.unrolls() && i == 0 {
            g.copy_from_slice(&unrolled);
        } else if input.constant {
            op.parameter_gradient(&cx, i, &seen, &through, &mut g);
        } else {
            op.input_gradient(&cx, i, &seen, &through, &mut g);
        }
        for g in &mut g {
            *g -= 0.25;
        }
        let expected = match (op, i) {
            (Op::BatchNorm(_), 3 | 4) => running_minus_batch(&reals, i),
            _ => reference::gradient(op, &reals, &out, training, i, &gy_real),
        };
        let what = format!("{what}: gradient of input {i}");
        worst = worst.max(compare(&what, &g, &expected, &GRADIENT));
    }
    worst
}

fn running_minus_batch(inputs: &[Real], which: usize) -> Vec<f64> {
    let n = inputs[0].shape.channels();
    let rows = inputs[0].data.len() / n;
    (0..n)
        .map(|c| {
            let channel: Vec<f64> = inputs[0].data.iter().skip(c).step_by(n).copied().collect();
            let (mean, variance) = reference::moments(&channel);
            let unbiased = variance * rows as f64 / (rows as f64 - 1.0);
            inputs[which].data[c] - if which == 3 { mean } else { unbiased }
        })
        .collect()
}

#[test]
fn gradients_agree_with_finite_differences() {
    let mut random = Random(11);
    let mut worst = 0f64;
    let cases = cases();
    for case in &cases {
        for training in [false, true] {
            worst = worst.max(run(case, training, &mut random));
        }
    }
    println!(
        "{} cases, largest relative gradient error {worst:.1e}",
        cases.len()
    );
    assert!(cases.len() > 80);
}

#[test]
fn every_operator_has_a_gradient_case() {
    let mut known = BTreeSet::new();
    for code in 0..=u8::MAX {
        for first in 0..=u8::MAX as u32 {
            let mut words = [0; WORDS];
            words[0] = first;
            if let Some(op) = Op::decode(code, &words) {
                assert_eq!(op.code(), code);
                known.insert(op.name());
            }
        }
    }
    assert!(known.len() >= 28, "the enumeration found only {known:?}");
    let tested: BTreeSet<&str> = cases().iter().map(|c| c.op.name()).collect();
    for name in known {
        let exempt = EXEMPT.iter().any(|(n, _)| *n == name);
        assert!(
            tested.contains(name) != exempt,
            "{name} has no gradient case and no exemption, or both"
        );
    }
}

#[test]
fn attributes_survive_the_image() {
    for case in cases() {
        let (code, words) = (case.op.code(), case.op.words());
        assert_eq!(Op::decode(code, &words), Some(case.op));
    }
    assert_eq!(Op::decode(0, &[0; WORDS]), None);
    assert_eq!(Op::decode(17, &[0; WORDS]), None);
    let mut unused = Op::Reshape.words();
    unused[WORDS - 1] = 1;
    assert_eq!(Op::decode(Op::Reshape.code(), &unused), None);
    let mut activation = Op::Dense(Dense {
        activation: Activation::Relu,
    })
    .words();
    activation[0] = 3;
    assert_eq!(Op::decode(3, &activation), None);
    let mut stride = [0; WORDS];
    stride[0] = 1 << 16;
    assert_eq!(Op::decode(1, &stride), None);
}

#[test]
fn same_padding_is_tflites() {
    // (input, kernel, stride, dilation) -> (before, after)
    for (case, expected) in [
        ((8, 3, 1, 1), (1, 1)),
        ((8, 3, 2, 1), (0, 1)),
        ((7, 3, 2, 1), (1, 1)),
        ((5, 2, 1, 1), (0, 1)),
        ((6, 3, 1, 2), (2, 2)),
        ((49, 10, 2, 1), (4, 5)),
        ((5, 1, 2, 1), (0, 0)),
    ] {
        let (input, kernel, stride, dilation) = case;
        assert_eq!(
            Padding::same(input, kernel, stride, dilation),
            expected,
            "{case:?}"
        );
    }
}
