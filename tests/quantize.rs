//! Post-training quantization: int8 against f32, edge cases of calibration, folding, and tables against TFLite Micro.

#[path = "support/networks.rs"]
mod networks;

use foolproof::kernels::fixed_point::requantize;
use foolproof::memory::Mode;
use foolproof::ops::{Activation, Numerics, Op, Rounding, Unary};
use foolproof::session::Session;
use foolproof::tensor::DType;
use foolproof_host::graph::{Graph, Image, TensorData, TensorId, Window, to_image};
use foolproof_host::quantize::tables::{Grid, table};
use foolproof_host::quantize::{
    Aware, Options, QuantizeError, Ranges, fold::fold, multiplier, observe, quantize,
    quantize_within, units,
};
use networks::{Build, HALVES, SINGLE, build, deep};
use std::collections::BTreeSet;

// --- running ---------------------------------------------------------------------------------------------

struct Runner {
    image: Image,
    buffer: Vec<u128>,
    mode: Mode,
}

impl Runner {
    fn new(graph: &Graph, mode: Mode) -> Runner {
        let image = to_image(graph).expect("a well-formed graph");
        let bytes = image.model().expect("a model").required_buffer(mode);
        Runner {
            image,
            buffer: vec![0; bytes.div_ceil(16)],
            mode,
        }
    }

    fn with<T>(&mut self, f: impl FnOnce(&mut Session<'_>) -> T) -> T {
        let model = self.image.model().expect("a model");
        let buffer = zerocopy::IntoBytes::as_mut_bytes(self.buffer.as_mut_slice());
        f(&mut Session::new(&model, self.mode, buffer).expect("a session"))
    }

    fn f32(&mut self, x: &[f32]) -> Vec<f32> {
        self.with(|s| s.forward_f32(x).expect("runs").to_vec())
    }

    fn i8(&mut self, x: &[i8]) -> Vec<i8> {
        self.with(|s| s.forward_i8(x).expect("runs").to_vec())
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// Uniform in `low..high`.
    fn within(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * (self.next() as f32 / (1_u32 << 31) as f32)
    }

    fn fill(&mut self, n: usize, (low, high): (f32, f32)) -> Vec<f32> {
        (0..n).map(|_| self.within(low, high)).collect()
    }
}

fn grid_of(graph: &Graph, t: TensorId) -> Grid {
    let quant = &graph.tensors[t].quant;
    Grid {
        scale: quant.scale,
        zero_point: quant.zero_point,
    }
}

fn to_grid(grid: Grid, x: &[f32]) -> Vec<i8> {
    x.iter()
        .map(|&v| units::quantize(v, grid.scale, grid.zero_point))
        .collect()
}

fn to_real(grid: Grid, q: &[i8]) -> Vec<f32> {
    q.iter()
        .map(|&q| units::dequantize(q, grid.scale, grid.zero_point))
        .collect()
}

/// Quantizes, runs both on fresh inputs that lie on the input's grid, and gives the int8 graph, the signal-to-noise ratio in dB
/// and the largest difference in steps of the output.
fn compare(graph: &Graph, options: &Options) -> (Graph, f64, f64) {
    let mut random = Random(11);
    let n = graph.tensors[graph.input].shape.len();
    let calibration = random.fill(64 * n, graph.input_range);
    let int8 = quantize(graph, &calibration, options).expect("quantizes");
    assert_eq!(int8.tensors[int8.input].data.dtype(), DType::I8);
    assert_eq!(int8.tensors[int8.output].data.dtype(), DType::I8);
    let (x_grid, y_grid) = (grid_of(&int8, int8.input), grid_of(&int8, int8.output));
    let (mut a, mut b) = (
        Runner::new(graph, Mode::Infer),
        Runner::new(&int8, Mode::Infer),
    );
    let (mut signal, mut noise, mut worst) = (0.0_f64, 0.0_f64, 0.0_f64);
    for _ in 0..48 {
        let q = to_grid(x_grid, &random.fill(n, graph.input_range));
        let real = a.f32(&to_real(x_grid, &q));
        let got = to_real(y_grid, &b.i8(&q));
        // what lies beyond the range that calibration saw is cut off, rightly
        let low = y_grid.scale * (-128 - y_grid.zero_point) as f32;
        let high = y_grid.scale * (127 - y_grid.zero_point) as f32;
        for (r, g) in real.iter().zip(&got) {
            let (r, g) = (f64::from(r.clamp(low, high)), f64::from(*g));
            signal += r * r;
            noise += (r - g) * (r - g);
            worst = worst.max((r - g).abs() / f64::from(y_grid.scale));
        }
    }
    (int8, 10.0 * (signal / noise).log10(), worst)
}

fn names(graph: &Graph) -> BTreeSet<&'static str> {
    graph.nodes.iter().map(|n| n.op.name()).collect()
}

// --- agreement -------------------------------------------------------------------------------------------

#[test]
fn every_operator_agrees_with_its_f32_form() {
    let mut seen = BTreeSet::new();
    for (name, steps, f) in SINGLE {
        for numerics in [Numerics::Tflm, Numerics::TflmSingle] {
            let options = Options {
                numerics,
                ..Options::default()
            };
            for (seed, range) in [(1, (-1.0, 1.0)), (2, (0.0, 1.0)), (3, (-3.0, 9.0))] {
                let (int8, snr, worst) = compare(&build(range, seed, *f), &options);
                assert!(
                    worst <= *steps,
                    "{name} {range:?} {numerics:?}: {worst} steps off, {snr} dB"
                );
                assert!(snr > 30.0, "{name} {range:?} {numerics:?}: {snr} dB");
                assert_eq!(int8.numerics, numerics);
                seen.extend(names(&int8));
            }
        }
    }
    let all: BTreeSet<&str> = [
        "conv2d",
        "conv_transpose2d",
        "depthwise_conv2d",
        "dense",
        "add",
        "mul",
        "avg_pool2d",
        "max_pool2d",
        "pad",
        "reshape",
        "slice",
        "concat",
        "softmax",
        "relu",
        "relu6",
        "leaky_relu",
        "tanh",
        "sigmoid",
        "requantize",
    ]
    .into();
    assert_eq!(seen, all, "an operator was not compared");
}

#[test]
fn a_deep_network_agrees() {
    for seed in 0..4 {
        let graph = build((-1.0, 1.0), seed, deep);
        let (int8, snr, worst) = compare(&graph, &Options::default());
        assert!(
            snr > 28.0 && worst < 20.0,
            "seed {seed}: {snr} dB, {worst} steps"
        );
        assert!(!names(&int8).contains("batch_norm"));
        let per_tensor = Options {
            per_tensor_dense: true,
            ..Options::default()
        };
        let (_, snr, _) = compare(&graph, &per_tensor);
        assert!(
            snr > 26.0,
            "seed {seed}, one scale per dense layer: {snr} dB"
        );
    }
}

#[test]
fn the_straight_through_gradient_points_where_the_float_one_does() {
    let graph = build((-1.0, 1.0), 5, |b, x| {
        let c = b.conv2d(x, 8, Window::same(3), Activation::Relu)?;
        let m = b.max_pool2d(c, HALVES)?;
        b.dense(m, 5, Activation::None)
    });
    let mut random = Random(2);
    let n = graph.tensors[graph.input].shape.len();
    let int8 = quantize(
        &graph,
        &random.fill(64 * n, (-1.0, 1.0)),
        &Options::default(),
    )
    .expect("quantizes");
    let grid = grid_of(&int8, int8.input);
    let (mut a, mut b) = (
        Runner::new(&graph, Mode::Attack),
        Runner::new(&int8, Mode::Attack),
    );
    let direction = [1.0, -0.5, 0.25, 0.0, -1.0];
    for _ in 0..16 {
        let q = to_grid(grid, &random.fill(n, (-1.0, 1.0)));
        let x = to_real(grid, &q);
        let ga = a.with(|s| {
            s.forward_f32(&x).expect("runs");
            s.backward(&direction).expect("runs").to_vec()
        });
        let gb = b.with(|s| {
            s.forward_i8(&q).expect("runs");
            s.backward(&direction).expect("runs").to_vec()
        });
        let dot =
            |u: &[f32], v: &[f32]| u.iter().zip(v).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let cosine = dot(&ga, &gb) / (dot(&ga, &ga) * dot(&gb, &gb)).sqrt();
        assert!(cosine > 0.9, "cosine {cosine}");
    }
}

#[test]
fn fake_quantization_is_what_the_int8_model_computes_and_trains() {
    let graph = build((-1.0, 1.0), 9, |b, x| {
        let c = b.conv2d(x, 8, Window::same(3), Activation::Relu)?;
        let m = b.max_pool2d(c, HALVES)?;
        let d = b.depthwise_conv2d(m, 1, Window::same(3), Activation::None)?;
        let s = b.add(m, d, Activation::Relu)?;
        let h = b.dense(s, 12, Activation::Relu)?;
        b.dense(h, 5, Activation::None)
    });
    let mut random = Random(6);
    let n = graph.tensors[graph.input].shape.len();
    let calibration = random.fill(64 * n, (-1.0, 1.0));
    let options = Options::default();
    let seen = observe(&graph, &calibration).expect("runs");
    let ranges = Ranges::from_numbers(&seen.to_numbers());
    assert_eq!(ranges, seen);
    let int8 = quantize_within(&graph, &ranges, &options).expect("quantizes");
    assert_eq!(int8, quantize(&graph, &calibration, &options).unwrap());
    let aware = Aware::new(&graph, &ranges, options).expect("quantizes");
    let rounded = aware.rounded();
    assert!(rounded.is_trainable() && !int8.is_trainable());
    let (mut fake, mut device, mut float) = (
        Runner::new(&rounded, Mode::Train),
        Runner::new(&int8, Mode::Attack),
        Runner::new(&graph, Mode::Infer),
    );
    let grid = grid_of(&int8, int8.output);
    let direction = [1.0, -0.5, 0.25, 0.0, -1.0];
    let (mut far, mut near, mut worst) = (0.0_f64, 0.0_f64, 0.0_f64);
    for _ in 0..32 {
        let mut x = random.fill(n, (-1.0, 1.0));
        aware.round_inputs(&mut x);
        let q = to_grid(grid_of(&int8, int8.input), &x);
        let (z, g, parameters) = fake.with(|s| {
            let table: Vec<_> = s.parameter_table().collect();
            let place = |tensor: usize| {
                let found = table.iter().find(|(t, _, _)| *t == tensor);
                found.map(|(_, _, range)| range.clone())
            };
            aware.round(s.parameters().unwrap(), &place);
            s.zero_parameter_gradients().unwrap();
            let z = s.forward_f32(&x).expect("runs").to_vec();
            let g = s.backward(&direction).expect("runs").to_vec();
            let gradients = s.parameter_gradients().unwrap();
            for (tensor, _, range) in &table {
                let name = &rounded.tensors[*tensor].name;
                let moved = gradients[range.clone()].iter().any(|&g| g != 0.0);
                assert!(moved, "{name} has no gradient");
            }
            (z, g, s.parameters().unwrap().to_vec())
        });
        assert!(parameters.iter().all(|v| v.is_finite()));
        let (answer, gradient) = device.with(|s| {
            let y = to_real(grid, s.forward_i8(&q).expect("runs"));
            (y, s.backward(&direction).expect("runs").to_vec())
        });
        let real = float.f32(&x);
        for ((z, y), r) in z.iter().zip(&answer).zip(&real) {
            // the logits alone are not rounded, and beyond their range cut off
            let low = grid.scale * (-128 - grid.zero_point) as f32;
            let high = grid.scale * (127 - grid.zero_point) as f32;
            let steps = |a: &f32| f64::from((a.clamp(low, high) - y) / grid.scale);
            near += steps(z).powi(2);
            far += steps(r).powi(2);
            worst = worst.max(steps(z).abs());
        }
        let dot =
            |u: &[f32], v: &[f32]| u.iter().zip(v).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let cosine = dot(&g, &gradient) / (dot(&g, &g) * dot(&gradient, &gradient)).sqrt();
        assert!(cosine > 0.98, "cosine {cosine}");
    }
    assert!(worst < 2.0 && near < 0.6 * far, "{worst}, {near} {far}");
}

// --- grids -----------------------------------------------------------------------------------------------

#[test]
fn operators_that_only_move_values_keep_the_grid_and_fixed_outputs_have_theirs() {
    let (int8, ..) = compare(&build((-1.0, 1.0), 0, deep), &Options::default());
    let mut checked = BTreeSet::new();
    for node in &int8.nodes {
        let y = grid_of(&int8, node.output);
        match node.op {
            Op::MaxPool2d(_) | Op::AvgPool2d(_) | Op::Pad(_) | Op::Reshape | Op::Concat(_) => {
                for &t in &node.inputs {
                    assert_eq!(grid_of(&int8, t), y, "{}", node.op.name());
                }
            }
            Op::Softmax(_) | Op::Unary(Unary::Sigmoid) => assert_eq!(y, Grid::PROBABILITY),
            Op::Unary(Unary::Tanh) => assert_eq!(y, Grid::TANH),
            _ => continue,
        }
        checked.insert(node.op.name());
    }
    assert_eq!(checked.len(), 8, "{checked:?}");
}

#[test]
fn the_input_grid_covers_what_the_device_can_see_or_what_calibration_saw() {
    let graph = build((0.0, 1.0), 1, |b, x| b.dense(x, 4, Activation::None));
    let half = vec![0.5; 90];
    let int8 = quantize(&graph, &half, &Options::default()).expect("quantizes");
    assert_eq!(
        grid_of(&int8, int8.input),
        Grid {
            scale: 1.0 / 255.0,
            zero_point: -128
        }
    );
    assert_eq!(int8.input_range, (0.0, 1.0));
    let seen = Options {
        input_from_range: false,
        ..Options::default()
    };
    let int8 = quantize(&graph, &half, &seen).expect("quantizes");
    assert_eq!(
        grid_of(&int8, int8.input),
        Grid {
            scale: 0.5 / 255.0,
            zero_point: -128
        }
    );
    assert_eq!(int8.input_range, (0.0, 1.0));
}

#[test]
fn weights_have_a_scale_per_output_channel_unless_asked_otherwise() {
    let axes: [(Build, usize); 3] = [
        (|b, x| b.conv2d(x, 6, Window::same(3), Activation::None), 6),
        (
            |b, x| b.depthwise_conv2d(x, 2, Window::same(3), Activation::None),
            6,
        ),
        (|b, x| b.dense(x, 7, Activation::None), 7),
    ];
    for (f, channels) in axes {
        let graph = build((-1.0, 1.0), 1, f);
        let (int8, ..) = compare(&graph, &Options::default());
        let [_, w, bias, mantissa, shift] = int8.nodes[0].inputs[..] else {
            panic!("five operands");
        };
        let scales = &int8.tensors[w].quant.channel_scales;
        assert_eq!(scales.len(), channels);
        // the largest weight of every channel uses the whole range
        let TensorData::I8(q) = &int8.tensors[w].data else {
            panic!("int8 weights")
        };
        assert!(q.iter().filter(|q| q.unsigned_abs() == 127).count() >= channels);
        assert!(!q.contains(&-128));
        let x_scale = int8.tensors[int8.input].quant.scale;
        for (s, b) in scales.iter().zip(&int8.tensors[bias].quant.channel_scales) {
            assert_eq!(x_scale * s, *b);
        }
        for t in [mantissa, shift] {
            assert_eq!(int8.tensors[t].shape.dims(), [channels as u32]);
        }
    }
    let graph = build((-1.0, 1.0), 1, |b, x| b.dense(x, 7, Activation::None));
    let options = Options {
        per_tensor_dense: true,
        ..Options::default()
    };
    let (int8, ..) = compare(&graph, &options);
    assert!(
        int8.tensors[int8.nodes[0].inputs[1]]
            .quant
            .channel_scales
            .is_empty()
    );
}

// --- folding ---------------------------------------------------------------------------------------------

/// Statistics that are not the identity.
fn with_statistics(mut graph: Graph) -> Graph {
    let mut random = Random(77);
    for k in 0..graph.nodes.len() {
        if matches!(graph.nodes[k].op, Op::BatchNorm(_)) {
            for (i, range) in [
                (1, (-2.0, 2.0)),
                (2, (-1.0, 1.0)),
                (3, (-1.0, 1.0)),
                (4, (0.01, 4.0)),
            ] {
                let t = graph.nodes[k].inputs[i];
                let n = graph.tensors[t].shape.len();
                graph.tensors[t].data = TensorData::F32(random.fill(n, range));
            }
        }
    }
    graph
}

#[test]
fn folding_batch_norm_changes_nothing_but_the_last_bits() {
    let layers: [Build; 4] = [
        |b, x| {
            let c = b.conv2d(x, 6, Window::same(3), Activation::None)?;
            b.batch_norm(c)
        },
        |b, x| {
            let c = b.depthwise_conv2d(x, 2, Window::same(3), Activation::None)?;
            let n = b.batch_norm(c)?;
            b.unary(n, Unary::Relu)
        },
        |b, x| {
            let c = b.dense(x, 6, Activation::None)?;
            let n = b.batch_norm(c)?;
            b.unary(n, Unary::Relu6)
        },
        deep,
    ];
    for (i, f) in layers.into_iter().enumerate() {
        let graph = with_statistics(build((-1.0, 1.0), 9, f));
        let folded = fold(&graph).expect("folds");
        assert!(!names(&folded).contains("batch_norm"));
        if i < 3 {
            assert_eq!(folded.nodes.len(), 1, "the activation is fused");
        }
        let n = graph.tensors[graph.input].shape.len();
        let mut random = Random(4);
        let (mut a, mut b) = (
            Runner::new(&graph, Mode::Infer),
            Runner::new(&folded, Mode::Infer),
        );
        for _ in 0..8 {
            let x = random.fill(n, (-1.0, 1.0));
            for (u, v) in a.f32(&x).iter().zip(b.f32(&x)) {
                assert!(
                    (u - v).abs() <= 2e-5 * (1.0 + u.abs()),
                    "layer {i}: {u} {v}"
                );
            }
        }
    }
}

#[test]
fn batch_norm_that_cannot_be_folded_is_named() {
    let wrong: [Build; 3] = [
        |b, x| b.batch_norm(x),
        |b, x| {
            let c = b.conv2d(x, 6, Window::same(3), Activation::Relu)?;
            b.batch_norm(c)
        },
        |b, x| {
            let c = b.conv2d(x, 6, Window::same(3), Activation::None)?;
            let n = b.batch_norm(c)?;
            b.add(n, c, Activation::None)
        },
    ];
    for f in wrong {
        let graph = build((-1.0, 1.0), 0, f);
        let error = quantize(&graph, &[0.5; 90], &Options::default()).expect_err("must fail");
        assert!(matches!(error, QuantizeError::BatchNorm { .. }), "{error}");
        assert!(error.to_string().contains("batch_norm"));
    }
}

#[test]
fn an_activation_is_not_fused_where_the_value_before_it_is_wanted() {
    let graph = build((-1.0, 1.0), 0, |b, x| {
        let c = b.conv2d(x, 6, Window::same(3), Activation::None)?;
        let r = b.unary(c, Unary::Relu)?;
        b.add(c, r, Activation::None)
    });
    let (int8, snr, worst) = compare(&graph, &Options::default());
    assert!(names(&int8).contains("relu"));
    assert!(snr > 30.0 && worst < 4.0, "{snr} dB, {worst} steps");
}

// --- edge cases of calibration ---------------------------------------------------------------------------

fn constant(graph: &mut Graph, node: usize, input: usize) -> &mut Vec<f32> {
    let t = graph.nodes[node].inputs[input];
    match &mut graph.tensors[t].data {
        TensorData::F32(values) => values,
        _ => panic!("f32"),
    }
}

#[test]
fn bad_calibration_is_refused_by_name() {
    let graph = build((-1.0, 1.0), 1, |b, x| b.dense(x, 4, Activation::None));
    let options = Options::default();
    for len in [0, 1, 89, 91] {
        let error = quantize(&graph, &vec![0.0; len], &options).expect_err("must fail");
        assert_eq!(
            error,
            QuantizeError::CalibrationLength { len, input_len: 90 }
        );
    }
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut samples = vec![0.1; 270];
        samples[187] = value;
        let error = quantize(&graph, &samples, &options)
            .expect_err("must fail")
            .to_string();
        assert!(
            error.contains("sample 2") && error.contains("element 7"),
            "{error}"
        );
        let mut broken = graph.clone();
        constant(&mut broken, 0, 1)[3] = value;
        let name = broken.tensors[broken.nodes[0].inputs[1]].name.clone();
        let error = quantize(&broken, &[0.1; 90], &options)
            .expect_err("must fail")
            .to_string();
        assert!(
            error.contains(&name) && error.contains("element 3"),
            "{error}"
        );
    }
    let int8 = quantize(&graph, &[0.1; 90], &options).expect("quantizes");
    let error = quantize(&int8, &[0.1; 90], &options).expect_err("must fail");
    assert_eq!(error, QuantizeError::AlreadyQuantized);
}

#[test]
fn an_activation_that_overflows_is_named() {
    let mut graph = build((-1.0, 1.0), 1, |b, x| {
        let h = b.dense(x, 4, Activation::None)?;
        b.dense(h, 4, Activation::None)
    });
    for node in 0..2 {
        constant(&mut graph, node, 1)
            .iter_mut()
            .for_each(|w| *w = 1e30);
    }
    let name = graph.tensors[graph.output].name.clone();
    let error = quantize(&graph, &[0.9; 90], &Options::default())
        .expect_err("must fail")
        .to_string();
    assert!(
        error.contains(&name) && error.contains("sample 0"),
        "{error}"
    );
}

#[test]
fn dead_and_degenerate_layers_still_quantize() {
    // a layer that never fires, a channel without weights, a bias far larger than its weights, terms that cancel
    let mut dead = build((-1.0, 1.0), 1, |b, x| {
        let h = b.dense(x, 4, Activation::Relu)?;
        b.dense(h, 4, Activation::None)
    });
    constant(&mut dead, 0, 2).fill(-1e3);
    let mut empty_channel = build((-1.0, 1.0), 2, |b, x| b.dense(x, 4, Activation::None));
    constant(&mut empty_channel, 0, 1)[..90].fill(0.0);
    constant(&mut empty_channel, 0, 2)[0] = 0.75;
    let mut large_bias = build((-1.0, 1.0), 3, |b, x| b.dense(x, 4, Activation::None));
    constant(&mut large_bias, 0, 1)[..90].fill(1e-12);
    constant(&mut large_bias, 0, 2)[0] = 3.0;
    let mut nothing = build((-1.0, 1.0), 4, |b, x| b.dense(x, 4, Activation::None));
    constant(&mut nothing, 0, 1).fill(0.0);
    constant(&mut nothing, 0, 2).fill(0.0);
    for (name, graph) in [
        ("dead", dead),
        ("empty channel", empty_channel),
        ("large bias", large_bias),
        ("nothing", nothing),
    ] {
        let (_, _, worst) = compare(&graph, &Options::default());
        assert!(worst <= 2.0, "{name}: {worst} steps off");
    }
    let cancel = build((-1.0, 1.0), 5, |b, x| {
        let minus = b.parameter(&[1, 1, 1, 1], vec![-1.0])?;
        let tiny = b.parameter(&[1, 1, 1, 1], vec![1e-9])?;
        let negative = b.mul(x, minus, Activation::None)?;
        let zero = b.add(x, negative, Activation::None)?;
        b.add(zero, tiny, Activation::None)
    });
    let mut random = Random(1);
    let int8 =
        quantize(&cancel, &random.fill(900, (-1.0, 1.0)), &Options::default()).expect("quantizes");
    let y = grid_of(&int8, int8.output);
    let out = Runner::new(&int8, Mode::Infer).i8(&[100; 90]);
    assert!(
        to_real(y, &out).iter().all(|v| v.abs() < 0.02),
        "x - x is not 0"
    );
}

#[test]
fn what_has_no_int8_form_is_refused_by_name() {
    let graph = build((-1.0, 1.0), 1, |b, x| {
        let mut f = b.softmax(x)?;
        f = b.unary(f, Unary::Relu)?;
        Ok(f)
    });
    let mut negative = graph;
    if let Op::Softmax(softmax) = &mut negative.nodes[0].op {
        softmax.beta = -1.0;
    }
    let error = quantize(&negative, &[0.5; 90], &Options::default())
        .expect_err("must fail")
        .to_string();
    assert!(
        error.contains("softmax") && error.contains("beta"),
        "{error}"
    );
}

// --- TFLite Micro's own tables ---------------------------------------------------------------------------

fn f32_of(hex: &str) -> f32 {
    f32::from_bits(
        u32::from_str_radix(hex, 16)
            .expect("hexadecimal")
            .swap_bytes(),
    )
}

#[test]
fn tables_are_tflite_micros() {
    let text = include_str!("golden/tables.txt");
    let mut compared = 0;
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        let [name, alpha, x_scale, x_zero, y_scale, y_zero, outputs] = fields[..] else {
            panic!("seven fields: {line}");
        };
        let function = match name {
            "relu" => Unary::Relu,
            "relu6" => Unary::Relu6,
            "leaky_relu" => Unary::LeakyRelu {
                alpha: f32_of(alpha),
            },
            "tanh" => Unary::Tanh,
            "sigmoid" => Unary::Sigmoid,
            "requantize" => Unary::Requantize,
            _ => panic!("a function: {name}"),
        };
        let grid = |scale: &str, zero: &str| Grid {
            scale: f32_of(scale),
            zero_point: zero.parse().expect("an integer"),
        };
        let (x, y) = (grid(x_scale, x_zero), grid(y_scale, y_zero));
        let wanted: Vec<i8> = (0..256)
            .map(|i| u8::from_str_radix(&outputs[2 * i..2 * i + 2], 16).expect("a byte") as i8)
            .collect();
        let got = table(function, x, y, Numerics::Tflm).expect("a table");
        assert_eq!(got.values, wanted, "{name} {x:?} {y:?}");
        compared += 1;
    }
    assert_eq!(compared, 88);
}

/// The factors in `golden/tflm.txt` were derived from the scales by another implementation.
#[test]
fn factors_of_layers_are_those_that_reproduce_tflite_micro() {
    let text = include_str!("golden/tflm.txt");
    let lines: Vec<Vec<&str>> = text
        .lines()
        .filter(|l| !l.starts_with('#'))
        .map(|l| l.split(' ').collect())
        .collect();
    let scales = |line: &[&str]| -> Vec<f32> {
        let bits = |s: &str| f32::from_bits(u32::from_str_radix(s, 16).expect("hexadecimal"));
        line[3].split(',').map(bits).collect()
    };
    let integers = |line: &[&str]| -> Vec<i32> {
        let word =
            |c: usize| u32::from_str_radix(&line[5][8 * c..8 * c + 8], 16).expect("hexadecimal");
        (0..line[5].len() / 8)
            .map(|c| word(c).swap_bytes() as i32)
            .collect()
    };
    let mut compared = 0;
    for case in lines.windows(7).filter(|case| case[0][0] == "op") {
        if !matches!(case[0][1], "1" | "2" | "3") {
            continue;
        }
        let (x, w, y) = (scales(&case[1])[0], scales(&case[2]), scales(&case[6])[0]);
        let one_scale = case[0][1] == "3" && w.len() == 1;
        let (mantissas, shifts) = (integers(&case[4]), integers(&case[5]));
        for (c, (&mantissa, &shift)) in mantissas.iter().zip(&shifts).enumerate() {
            let w = w[if w.len() > 1 { c } else { 0 }];
            let got = match one_scale {
                true => multiplier::dense_per_tensor(x, w, y),
                false => multiplier::per_channel(x, w, y),
            };
            let got = got.expect("a factor");
            assert_eq!((got.mantissa, got.shift), (mantissa, shift), "channel {c}");
            assert!(requantize(1000, got, Rounding::Double) >= 0);
            compared += 1;
        }
    }
    assert!(compared > 150, "only {compared} factors compared");
}
