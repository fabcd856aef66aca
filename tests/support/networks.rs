//! Networks to quantize: one operator each, and a deep one.

use super::Random;
use foolproof::ops::{Activation, Op, OpError, Slice, Unary};
use foolproof_host::graph::{Builder, Graph, TensorData, TensorId, Window};

pub type Build = fn(&mut Builder, TensorId) -> Result<TensorId, OpError>;

pub const HALVES: Window = Window {
    kernel: [2; 2],
    stride: [2; 2],
    dilation: [1; 2],
    same: false,
};

/// One operator each (with what it needs in front), and how many steps of its output it may be off: half a step for the last rounding, the
/// rest for weights that are steps themselves and for the operator in front.
pub const SINGLE: &[(&str, f64, Build)] = &[
    ("conv2d", 4.0, |b, x| {
        b.conv2d(x, 6, Window::same(3), Activation::None)
    }),
    ("conv2d relu", 4.0, |b, x| {
        b.conv2d(x, 6, Window::same(3).stride(2), Activation::Relu)
    }),
    ("conv2d relu6", 4.0, |b, x| {
        b.conv2d(x, 6, Window::same(3), Activation::Relu6)
    }),
    ("depthwise_conv2d", 4.0, |b, x| {
        b.depthwise_conv2d(x, 2, Window::same(3), Activation::Relu)
    }),
    ("conv_transpose2d", 4.0, |b, x| {
        b.conv_transpose2d(x, 5, Window::same(4).stride(2), Activation::None)
    }),
    ("conv_transpose2d relu", 4.0, |b, x| {
        let t = b.conv_transpose2d(x, 5, Window::same(3), Activation::None)?;
        let n = b.batch_norm(t)?;
        b.unary(n, Unary::Relu)
    }),
    ("dense", 4.0, |b, x| b.dense(x, 7, Activation::None)),
    ("max_pool2d", 0.51, |b, x| b.max_pool2d(x, HALVES)),
    ("avg_pool2d", 0.51, |b, x| b.avg_pool2d(x, HALVES)),
    ("global average", 0.51, |b, x| b.global_avg_pool2d(x)),
    ("pad", 0.01, |b, x| {
        b.pad(x, &[(0, 0), (1, 2), (2, 1), (0, 0)])
    }),
    ("reshape", 0.01, |b, x| {
        let len = b.shape(x).len() as u32;
        b.reshape(x, &[1, len])
    }),
    ("slice", 0.01, |b, x| {
        let (axis, begin, count, step) = (3, 1, 2, 1);
        let slice = Slice {
            axis,
            begin,
            count,
            step,
        };
        b.op(Op::Slice(slice), vec![x])
    }),
    ("concat", 0.51, |b, x| b.concat(vec![x, x], 3)),
    ("add", 1.01, |b, x| b.add(x, x, Activation::None)),
    ("add relu", 1.01, |b, x| b.add(x, x, Activation::Relu)),
    ("mul", 1.01, |b, x| b.mul(x, x, Activation::None)),
    ("relu", 1.01, |b, x| b.unary(x, Unary::Relu)),
    ("relu6", 1.01, |b, x| b.unary(x, Unary::Relu6)),
    ("leaky_relu", 1.01, |b, x| {
        b.unary(x, Unary::LeakyRelu { alpha: 0.2 })
    }),
    ("tanh", 1.01, |b, x| b.unary(x, Unary::Tanh)),
    ("sigmoid", 1.01, |b, x| b.unary(x, Unary::Sigmoid)),
    ("softmax", 1.01, |b, x| b.softmax(x)),
    ("constant add", 1.51, |b, x| {
        let c = b.parameter(&[1, 1, 1, 3], vec![-0.4, 0.1, 0.9])?;
        b.add(x, c, Activation::None)
    }),
    ("constant mul", 1.51, |b, x| {
        let c = b.parameter(&[1, 1, 1, 3], vec![-0.4, 0.1, 0.9])?;
        b.mul(x, c, Activation::Relu)
    }),
    ("tanh and convolution joined", 1.6, |b, x| {
        let t = b.unary(x, Unary::Tanh)?;
        let c = b.conv2d(x, 3, Window::same(3), Activation::None)?;
        b.concat(vec![t, c], 3)
    }),
    ("relu after a pool", 1.01, |b, x| {
        let p = b.max_pool2d(x, HALVES)?;
        b.unary(p, Unary::Relu)
    }),
];

pub fn build(range: (f32, f32), seed: u64, f: Build) -> Graph {
    let mut b = Builder::new(&[6, 5, 3], range, seed).expect("an input");
    let x = b.input();
    let y = f(&mut b, x).expect("shapes fit");
    let mut graph = b.finish(y);
    // biases that are not all zero
    let mut random = Random(seed + 3);
    for k in 0..graph.nodes.len() {
        if let (
            Op::Conv2d(_) | Op::ConvTranspose2d(_) | Op::DepthwiseConv2d(_) | Op::Dense(_),
            [_, _, bias],
        ) = (graph.nodes[k].op, graph.nodes[k].inputs.clone().as_slice())
            && let TensorData::F32(values) = &mut graph.tensors[*bias].data
        {
            values
                .iter_mut()
                .for_each(|v| *v = random.within(-0.3, 0.3));
        }
    }
    graph
}

/// A deep network with every kind of layer.
pub fn deep(b: &mut Builder, x: TensorId) -> Result<TensorId, OpError> {
    let mut a = b.conv2d(x, 8, Window::same(3), Activation::None)?;
    a = b.batch_norm(a)?;
    a = b.unary(a, Unary::Relu)?;
    let d = b.depthwise_conv2d(a, 1, Window::same(3), Activation::Relu6)?;
    let p = b.conv2d(d, 8, Window::same(1), Activation::None)?;
    let s = b.add(a, p, Activation::None)?;
    let l = b.unary(s, Unary::LeakyRelu { alpha: 0.1 })?;
    let m = b.max_pool2d(l, HALVES)?;
    let gate = b.unary(m, Unary::Sigmoid)?;
    let gated = b.mul(m, gate, Activation::None)?;
    let t = b.unary(gated, Unary::Tanh)?;
    let joined = b.concat(vec![gated, t, m], 3)?;
    let padded = b.pad(joined, &[(0, 0), (1, 0), (0, 1), (0, 0)])?;
    let pooled = b.avg_pool2d(padded, HALVES)?;
    let h = b.dense(pooled, 16, Activation::Relu)?;
    let logits = b.dense(h, 5, Activation::None)?;
    let flat = b.reshape(logits, &[1, 5])?;
    b.softmax(flat)
}
