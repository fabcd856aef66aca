//! Small models that together have every operator: what `tests/hostile_images.rs` mutates and what
//! `fuzz/` starts from.

use foolproof::memory::Mode;
use foolproof::ops::{
    Activation, LogSoftmax, Multiplier, Op, OpError, ReduceMax, Slice, Transpose, Unary,
};
use foolproof::tensor::DType;
use foolproof_host::graph::{
    Builder, Graph, GraphError, TensorData, TensorId, Window, to_image, to_image_within,
};
use foolproof_host::import::tflite;
use foolproof_host::quantize::{Options, quantize};

const HALVES: Window = Window {
    kernel: [2; 2],
    stride: [2; 2],
    dilation: [1; 2],
    same: false,
};

/// The images of all models: the two complete ones first; then those of them whose backward can be cut, cut.
pub fn images() -> Vec<Vec<u8>> {
    let mut graphs = vec![complete_f32(), complete_int8()];
    graphs.extend(small());
    let image = |g: &Graph| to_image(g).expect("a well-formed graph").bytes().to_vec();
    let mut images: Vec<Vec<u8>> = graphs.iter().map(image).collect();
    images.extend(graphs.iter().filter_map(cut));
    images
}

/// The image with the smallest buffer for an attack, where its backward is cut into passes.
fn cut(graph: &Graph) -> Option<Vec<u8>> {
    let Err(GraphError::AttackBuffer { needed, .. }) = to_image_within(graph, 0) else {
        panic!("no buffer at all cannot be enough");
    };
    let image = to_image_within(graph, needed).expect("what the search found");
    let model = image.model().expect("a model");
    (model.tables().pass_count(Mode::Attack) > 1).then(|| image.bytes().to_vec())
}

/// Every f32 operator but those that change the type.
pub fn complete_f32() -> Graph {
    build(&[4, 4, 1], |b, x| {
        let c = b.conv2d(x, 2, Window::same(3), Activation::Relu)?;
        let n = b.batch_norm(c)?;
        rest(b, n, true)
    })
}

/// Every int8 operator.
pub fn complete_int8() -> Graph {
    let graph = build(&[4, 4, 1], |b, x| {
        let c = b.conv2d(x, 2, Window::same(3), Activation::Relu)?;
        rest(b, c, false)
    });
    int8(&graph)
}

/// Everything after the first convolution.
fn rest(b: &mut Builder, x: TensorId, float: bool) -> Result<TensorId, OpError> {
    let d = b.depthwise_conv2d(x, 1, Window::same(3), Activation::Relu6)?;
    let s = b.add(x, d, Activation::None)?;
    let m = b.max_pool2d(s, HALVES)?;
    let l = b.unary(m, Unary::LeakyRelu { alpha: 0.1 })?;
    let g = b.unary(l, Unary::Sigmoid)?;
    let p = b.mul(l, g, Activation::None)?;
    let t = b.unary(p, Unary::Tanh)?;
    let j = b.concat(vec![p, t], 3)?;
    let pad = b.pad(j, &[(0, 0), (1, 0), (0, 1), (0, 0)])?;
    let mut a = b.avg_pool2d(pad, HALVES)?;
    a = b.unary(a, Unary::Relu)?;
    a = b.unary(a, Unary::Relu6)?;
    if float {
        a = b.unary(a, Unary::Requantize)?;
    }
    let len = b.shape(a).len() as u32;
    a = b.reshape(a, &[1, len])?;
    let h = b.dense(a, 3, Activation::None)?;
    b.softmax(h)
}

/// Few operators each, so that a mutation hits what matters; f32 and int8.
pub fn small() -> Vec<Graph> {
    let f32 = [
        build(&[3, 3, 1], |b, x| {
            let c = b.conv2d(x, 2, Window::same(2), Activation::Relu)?;
            b.dense(c, 2, Activation::None)
        }),
        build(&[4, 2, 1], |b, x| {
            let c = b.depthwise_conv2d(x, 2, Window::same(2), Activation::Relu6)?;
            let m = b.max_pool2d(c, HALVES)?;
            b.softmax(m)
        }),
        build(&[2, 2, 2], |b, x| {
            let s = b.unary(x, Unary::Sigmoid)?;
            let a = b.add(x, s, Activation::None)?;
            let m = b.mul(a, s, Activation::Relu)?;
            let j = b.concat(vec![m, x], 2)?;
            b.avg_pool2d(j, HALVES)
        }),
        build(&[5], |b, x| {
            let r = b.reshape(x, &[1, 5, 1])?;
            let p = b.pad(r, &[(0, 0), (1, 1), (0, 1)])?;
            let l = b.unary(p, Unary::LeakyRelu { alpha: 0.2 })?;
            b.dense(l, 2, Activation::None)
        }),
        build(&[3], |b, x| {
            let d = b.dense(x, 3, Activation::None)?;
            let t = b.unary(d, Unary::Tanh)?;
            b.dense(t, 2, Activation::Relu6)
        }),
        // much to keep for backward: worth cutting
        build(&[8], |b, x| {
            let a = b.unary(x, Unary::Sigmoid)?;
            let a = b.unary(a, Unary::Tanh)?;
            let a = b.unary(a, Unary::Sigmoid)?;
            let a = b.unary(a, Unary::Tanh)?;
            b.dense(a, 2, Activation::None)
        }),
    ];
    let with_norm = build(&[2, 2, 2], |b, x| {
        let n = b.batch_norm(x)?;
        b.unary(n, Unary::Relu)
    });
    let mut all: Vec<Graph> = f32.iter().map(int8).collect();
    all.extend(f32);
    let mut detector = build(&[4], |b, x| {
        let h = b.dense(x, 2, Activation::Relu)?;
        b.dense(h, 4, Activation::None)
    });
    detector.anomaly_above = Some(0.5);
    all.extend([with_norm, changes_type(), int8(&detector), detector]);
    all.push(recurrent_f32());
    all.extend(RECURRENT.map(|file| tflite::import(file).expect("a file of the repository")));
    all
}

/// int8 models that keep a state.
const RECURRENT: [&[u8]; 4] = [
    include_bytes!("../golden/tflite/lstm_zero_point.tflite"),
    include_bytes!("../golden/tflite/svdf_16.tflite"),
    include_bytes!("../golden/tflite/streaming.tflite"),
    include_bytes!("../golden/tflite/log_softmax.tflite"),
];

/// An LSTM, a variable, and what moves elements.
fn recurrent_f32() -> Graph {
    build(&[3, 2], |b, x| {
        let h = b.lstm(x, 2)?;
        let state = b.state(&[1, 3, 2], vec![0.5; 6])?;
        let old = b.op(Op::Recall, vec![state])?;
        let sum = b.add(h, old, Activation::None)?;
        let kept = b.op(Op::Remember, vec![sum, state])?;
        let axes = [0, 2, 1, 0, 0, 0];
        let turned = b.op(Op::Transpose(Transpose { axes }), vec![kept])?;
        let last = Slice {
            axis: 2,
            begin: 2,
            count: 2,
            step: -1,
        };
        let part = b.op(Op::Slice(last), vec![turned])?;
        let most = b.op(Op::ReduceMax(ReduceMax { axis: 2 }), vec![part])?;
        let flat = b.reshape(most, &[1, 2])?;
        let softmax = LogSoftmax {
            input: Multiplier::default(),
            diff_min: 0,
            back: Multiplier::default(),
        };
        b.op(Op::LogSoftmax(softmax), vec![flat])
    })
}

/// f32 to int8 and back.
fn changes_type() -> Graph {
    let mut b = Builder::new(&[4], (-1.0, 1.0), 3).expect("an input");
    let x = b.input();
    let q = b.op(Op::Quantize, vec![x]).expect("any shape");
    let y = b.op(Op::Dequantize, vec![q]).expect("any shape");
    let mut graph = b.finish(y);
    graph.tensors[q].data = TensorData::Runtime(DType::I8);
    graph.tensors[q].quant.scale = 0.01;
    graph.tensors[q].quant.zero_point = 3;
    graph
}

fn build(shape: &[u32], f: fn(&mut Builder, TensorId) -> Result<TensorId, OpError>) -> Graph {
    let mut b = Builder::new(shape, (-1.0, 1.0), 1).expect("an input");
    let x = b.input();
    let y = f(&mut b, x).expect("shapes fit");
    let mut graph = b.finish(y);
    graph.labels = vec!["a".to_string(), "b".to_string()];
    for tensor in &mut graph.tensors {
        // short names: their bytes are of little interest
        tensor.name.truncate(3);
    }
    graph
}

fn int8(graph: &Graph) -> Graph {
    let n = graph.tensors[graph.input].shape.len();
    let samples: Vec<f32> = (0..4 * n)
        .map(|i| ((i * 7919) % 200) as f32 / 100.0 - 1.0)
        .collect();
    let mut int8 = quantize(graph, &samples, &Options::default()).expect("quantizes");
    for tensor in &mut int8.tensors {
        tensor.name.truncate(3);
    }
    int8
}
