//! `Op::check` meets attributes, shapes and constants that nobody sane would write. It never panics; and what it
//! lets through runs forward and backward without a panic (overflow checks are on in test builds).

mod support;

use foolproof::kernels::Kernels;
use foolproof::ops::*;
use foolproof::tensor::{DType, Operand, Shape};
use std::collections::BTreeMap;
use support::{Random, Tensor, Values};

/// Larger tensors are checked but not run.
const MAX_RUN: usize = 4000;
/// Multiply-accumulates; larger operators are not run.
const MAX_WORK: u64 = 200_000;

fn word(random: &mut Random) -> u32 {
    match random.below(8) {
        0..=4 => random.below(4) as u32,
        5 => random.below(300) as u32,
        6 => random.pick(&[
            0xffff,
            0x1_0000,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            f32::NAN.to_bits(),
        ]),
        _ => random.next() as u32,
    }
}

fn float(random: &mut Random) -> f32 {
    match random.below(6) {
        0 => random.pick(&[
            0.0,
            -0.0,
            f32::NAN,
            f32::INFINITY,
            f32::MIN_POSITIVE,
            1e-45,
            f32::MAX,
            -1.0,
        ]),
        _ => random.float(-3.0, 3.0),
    }
}

fn int(random: &mut Random) -> i32 {
    match random.below(4) {
        0 => random.pick(&[i32::MIN, i32::MAX, -1, 0, 1 << 30, -31, 30, 31]),
        1 => random.next() as i32,
        _ => random.int(-31, 30) as i32,
    }
}

fn dims(random: &mut Random) -> Vec<u32> {
    let rank = match random.below(3) {
        0 => random.below(7),
        _ => 4,
    };
    (0..rank)
        .map(|_| match random.below(40) {
            0 => random.pick(&[1 << 15, 1 << 20, 1 << 30]),
            _ => random.int(1, 5) as u32,
        })
        .collect()
}

fn quantization(random: &mut Random, mut t: Tensor) -> Tensor {
    t.scale = match random.below(8) {
        0 => float(random),
        1 => random.pick(&[f32::MIN_POSITIVE, 1e-45, f32::MAX, 1.0 / 256.0]),
        _ => random.float(0.001, 0.5),
    };
    t.zero_point = match random.below(10) {
        0 => int(random),
        1..=3 => 0,
        4 => -128,
        _ => random.int(-128, 127) as i32,
    };
    t
}

fn values(random: &mut Random, dtype: DType, n: usize) -> Values {
    match dtype {
        DType::F32 => Values::F32((0..n).map(|_| float(random)).collect()),
        DType::I8 => Values::I8(random.int8s(n)),
        DType::I32 => Values::I32((0..n).map(|_| int(random)).collect()),
    }
}

fn tensor(random: &mut Random, dtype: DType, dims: &[u32]) -> Option<Tensor> {
    let shape = Shape::new(dims)?;
    // What is too large to hold is represented by a small stand-in and never run.
    let n = if shape.len() > 1 << 16 {
        1
    } else {
        shape.len()
    };
    let mut t = Tensor::new(&[n as u32], values(random, dtype, n));
    t.shape = shape;
    Some(quantization(random, t))
}

/// Operands that often fit the operator, and often nearly do.
fn inputs(random: &mut Random, op: &Op) -> Option<Vec<Tensor>> {
    let dtype = random.pick(&[DType::F32, DType::I8, DType::I8]);
    let x_dims = match op {
        Op::Lstm(_) if random.below(10) != 0 => (0..3).map(|_| random.int(1, 4) as u32).collect(),
        Op::Svdf(_) if random.below(10) != 0 => vec![1, random.int(1, 4) as u32],
        _ => dims(random),
    };
    let x = tensor(random, dtype, &x_dims)?;
    let channels = *x_dims.last().unwrap_or(&1);
    let mut all = vec![x];
    let mut constant = |random: &mut Random, dtype, dims: &[u32]| -> Option<()> {
        let mut t = tensor(random, dtype, dims)?.constant();
        t.zero_point = if random.below(10) == 0 { 1 } else { 0 };
        all.push(t);
        Some(())
    };
    match op {
        Op::Conv2d(_) | Op::ConvTranspose2d(_) | Op::DepthwiseConv2d(_) | Op::Dense(_) => {
            let o = random.int(1, 4) as u32;
            let (kh, kw) = (random.int(1, 4) as u32, random.int(1, 4) as u32);
            let (w, o) = match op {
                Op::Conv2d(_) | Op::ConvTranspose2d(_) => {
                    let share = match random.below(3) {
                        0 => random.int(1, 3) as u32,
                        _ => channels,
                    };
                    (vec![o, kh, kw, share], o)
                }
                Op::DepthwiseConv2d(_) => (vec![1, kh, kw, channels.checked_mul(o)?], channels * o),
                _ => (vec![o, channels], o),
            };
            constant(random, dtype, &w)?;
            let bias = if dtype == DType::I8 {
                DType::I32
            } else {
                DType::F32
            };
            constant(random, bias, &[o])?;
            if dtype == DType::I8 {
                constant(random, DType::I32, &[o])?;
                constant(random, DType::I32, &[o])?;
                // Mostly usable factors, whose sums still overflow.
                for (i, low, high) in [(3, 0, i32::MAX as i64), (4, -31, 30)] {
                    if let Values::I32(v) = &mut all[i].values {
                        for v in v {
                            if random.below(400) != 0 {
                                *v = random.int(low, high) as i32;
                            }
                        }
                    }
                }
            }
        }
        Op::Add(_) | Op::Mul(_) => {
            let b = if random.below(2) == 0 {
                x_dims.clone()
            } else {
                dims(random)
            };
            let t = tensor(random, dtype, &b)?;
            all.push(t);
        }
        Op::Concat(_) => {
            for _ in 0..random.below(9) {
                let (scale, zero_point) = (all[0].scale, all[0].zero_point);
                all.push(tensor(random, dtype, &x_dims)?.quantized(scale, zero_point));
            }
        }
        Op::Unary(_) if dtype == DType::I8 => {
            constant(random, DType::I8, &[256])?;
            constant(random, DType::F32, &[256])?;
        }
        Op::Lstm(_) | Op::Svdf(_) => {
            let (units, memory) = (random.int(1, 4) as u32, random.int(1, 4) as u32);
            let wide = match dtype {
                DType::I8 => DType::I32,
                other => other,
            };
            let lstm = matches!(op, Op::Lstm(_));
            let first = *x_dims.first()?;
            let sizes: Vec<(DType, Vec<u32>)> = match lstm {
                true => vec![
                    (wide, vec![first, 2 * units]),
                    (dtype, vec![4 * units, channels]),
                    (dtype, vec![4 * units, units]),
                    (wide, vec![4 * units]),
                    (DType::I32, vec![8]),
                    (DType::I32, vec![8]),
                ],
                false => vec![
                    (wide, vec![first, units * memory]),
                    (dtype, vec![units, channels]),
                    (wide, vec![units, memory]),
                    (wide, vec![random.int(1, i64::from(units)) as u32]),
                ],
            };
            let count = if lstm && dtype == DType::F32 {
                4
            } else {
                sizes.len()
            };
            for (dtype, dims) in &sizes[..count] {
                constant(random, *dtype, dims)?;
            }
            all[1].constant = false;
            if lstm && dtype == DType::I8 {
                for i in [2, 3] {
                    all[i].channel_scales = random.floats(4, 0.001, 0.1);
                }
                for (i, low, high) in [(5, 0, i32::MAX as i64), (6, -31, 30)] {
                    if let Values::I32(v) = &mut all[i].values {
                        v.iter_mut().for_each(|v| *v = random.int(low, high) as i32);
                    }
                }
            }
        }
        Op::Remember => {
            let (scale, zero_point) = (all[0].scale, all[0].zero_point);
            all.push(tensor(random, dtype, &x_dims)?.quantized(scale, zero_point));
        }
        Op::BatchNorm(_) => {
            for _ in 0..4 {
                constant(random, DType::F32, &[channels])?;
            }
        }
        _ => {}
    }
    match random.below(20) {
        0 => {
            all.pop();
        }
        1 => {
            let d = dims(random);
            all.push(tensor(random, dtype, &d)?);
        }
        _ => {}
    }
    Some(all)
}

fn output(random: &mut Random, op: &Op, inputs: &[Tensor]) -> Option<Tensor> {
    let shapes: Vec<Shape> = inputs.iter().map(|t| t.shape).collect();
    let shape = op.output_shape(&shapes);
    let dims = match shape {
        Ok(shape) if random.below(20) != 0 => shape.dims().to_vec(),
        _ => dims(random),
    };
    let dtype = match op {
        Op::Quantize => DType::I8,
        Op::Dequantize => DType::F32,
        _ => inputs.first().map_or(DType::F32, |x| x.dtype()),
    };
    let mut y = tensor(random, dtype, &dims)?;
    if let (Some(x), true) = (inputs.first(), random.below(2) == 0) {
        (y.scale, y.zero_point) = (x.scale, x.zero_point);
    }
    if matches!(op, Op::Softmax(_)) && random.below(2) == 0 {
        (y.scale, y.zero_point) = (1.0 / 256.0, -128);
    }
    if matches!(op, Op::LogSoftmax(_)) && random.below(2) == 0 {
        (y.scale, y.zero_point) = (1.0 / 16.0, 127);
    }
    Some(y)
}

/// Forward, save, backward with respect to everything.
fn run(op: &Op, inputs: &mut [Tensor], output: &mut Tensor, training: bool, numerics: Numerics) {
    let cx = Context::new(Kernels::detect(), numerics);
    let n = output.shape.len();
    let needs = op.needs(inputs[0].dtype(), training);
    let mut saved = vec![0; needs.saved.bytes(&output.shape)];
    let statistics = needs.saved == Saved::Statistics;
    if statistics {
        let operands: Vec<Operand> = inputs.iter().map(|t| t.operand()).collect();
        op.prepare(&cx, &operands, &mut saved);
    }
    let steps = matches!(needs.saved, Saved::Steps { .. });
    let own = if statistics || steps {
        &mut saved[..]
    } else {
        &mut []
    };
    let y = support::forward(op, &cx, inputs, output, own);
    output.values = y;
    let operands: Vec<Operand> = inputs.iter().map(|t| t.operand()).collect();
    if matches!(needs.saved, Saved::Bits | Saved::Indices) {
        op.save(&cx, &operands, &output.operand(), &mut saved);
    }
    let mut gy = vec![1.5; n];
    if op.unrolls() {
        let mut gx = vec![0.0; inputs[0].shape.len()];
        op.unrolled_gradient(&operands, &output.operand(), &mut saved, &mut gy, &mut gx);
    }
    let seen = Seen {
        inputs: &operands,
        output: &output.operand(),
        saved: &saved,
    };
    op.activation_gradient(&cx, &seen, &mut gy);
    for (i, input) in inputs.iter().enumerate() {
        let mut gx = vec![0.0; input.shape.len()];
        if !input.constant {
            op.input_gradient(&cx, i, &seen, &gy, &mut gx);
        } else if training && input.dtype() == DType::F32 {
            op.parameter_gradient(&cx, i, &seen, &gy, &mut gx);
        }
    }
}

#[test]
fn hostile_operators_are_refused_or_run() {
    let mut random = Random(23);
    let mut accepted: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    let mut refused = 0;
    for round in 0..300_000 {
        let mut words = [0; WORDS];
        for word_ in words.iter_mut().take(random.below(13) as usize) {
            *word_ = word(&mut random);
        }
        // Half the time, every stride and factor that may not be 0 is not.
        let code = random.pick(&[
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20, 21, 22, 23, 24, 25, 26,
            27,
        ]);
        if round % 2 == 0 {
            match code {
                1 | 2 | 6 | 7 => words[..4].iter_mut().for_each(|w| *w = (*w).clamp(1, 5)),
                11 => {
                    words[0] = 1f32.to_bits();
                    words[1] &= 0x7fff_ffff;
                    words[2] %= 31;
                    words[3] |= 0x8000_0000;
                }
                4 => {
                    words[1] %= 23;
                    for i in [2, 4, 6] {
                        words[i] &= 0x7fff_ffff;
                        words[i + 1] = random.int(-31, 30) as u32;
                    }
                }
                5 => {
                    words[1] &= 0x7fff_ffff;
                    words[2] = random.int(-31, 30) as u32;
                }
                20 => {
                    words[0] &= 0x7fff_ffff;
                    words[1] %= 31;
                    words[2] |= 0x8000_0000;
                    words[3] &= 0x7fff_ffff;
                    words[4] = random.int(-31, 30) as u32;
                }
                21 => words[0] %= 4,
                22 => words[..4].copy_from_slice(&random.pick(&[[0, 3, 1, 2], [3, 2, 1, 0]])),
                23 => {
                    words[..3].iter_mut().for_each(|w| *w %= 3);
                    words[3] = random.int(-2, 2) as u32;
                }
                24 => {
                    words[0] = random.float(0.0, 9.0).to_bits();
                    words[1] = random.int(-15, 0) as u32;
                    words[2] = random.int(0, 32767) as u32;
                    for i in [3, 5, 7] {
                        words[i] &= 0x7fff_ffff;
                        words[i + 1] = random.int(-31, 30) as u32;
                    }
                }
                25 => {
                    words[0] = random.int(1, 2) as u32;
                    words[1] = 0;
                    words[2] %= 2;
                    words[3] = random.int(-128, 127) as u32;
                    for i in [4, 6] {
                        words[i] &= 0x7fff_ffff;
                        words[i + 1] = random.int(-31, 30) as u32;
                    }
                    if random.below(3) == 0 {
                        words[2..4].fill(0);
                    }
                }
                12 => words[0] = random.below(15) as u32,
                16 => {
                    words[..4].iter_mut().for_each(|w| *w = (*w).clamp(1, 4));
                    words[4..11].iter_mut().for_each(|w| *w %= 3);
                }
                13 => words[0] = 0.1f32.to_bits(),
                _ => {}
            }
        }
        if random.below(10) != 0 {
            // Unused words are 0.
            let used = match code {
                20.. => [5, 1, 6, 4, 9, 8, 0, 0][usize::from(code) - 20],
                _ => [0, 9, 9, 1, 8, 3, 9, 9, 12, 0, 1, 4, 1, 1, 0, 0, 11, 0, 0, 0][code as usize],
            };
            words[used..].fill(0);
        }
        let Some(op) = Op::decode(code, &words) else {
            refused += 1;
            continue;
        };
        assert_eq!(op.words(), words, "{op:?} is stored differently");
        let Some(mut inputs) = inputs(&mut random, &op) else {
            continue;
        };
        let Some(mut y) = output(&mut random, &op, &inputs) else {
            continue;
        };
        let checked: Vec<Operand> = inputs
            .iter()
            .map(|t| if t.constant { t.operand() } else { t.absent() })
            .collect();
        let numerics = random.pick(&Numerics::ALL);
        if op.check(numerics, &checked, &y.absent()).is_err() {
            refused += 1;
            continue;
        }
        let shapes: Vec<Shape> = inputs.iter().map(|t| t.shape).collect();
        let window = match &op {
            Op::AvgPool2d(p) | Op::MaxPool2d(p) => p.window[0] as u64 * p.window[1] as u64,
            _ => 1,
        };
        let work = op.macs(&shapes, &y.shape) + y.shape.len() as u64 * window;
        let held = inputs.iter().all(|t| t.len() == t.shape.len());
        if !held || y.shape.len() > MAX_RUN || work > MAX_WORK {
            continue;
        }
        run(&op, &mut inputs, &mut y, round % 3 == 0, numerics);
        let int8 = inputs[0].dtype() == DType::I8;
        *accepted.entry((op.name(), int8)).or_default() += 1;
    }
    println!("{refused} refused, accepted and run: {accepted:?}");
    // Every operator was met in a form that runs: 35 in both types, 3 in one.
    assert!(accepted.len() == 2 * 35 + 3 && accepted.values().all(|&n| n >= 20));
    assert!(refused > 1000);
}
