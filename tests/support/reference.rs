//! Every operator in double precision, written from its definition: one output element at a time, indices
//! spelled out, nothing shared with the kernels.

use foolproof::ops::{Activation, ConvTranspose2d, Op, Padding, Unary};
use foolproof::tensor::Shape;

/// A tensor of real numbers.
#[derive(Clone)]
pub struct Real {
    pub shape: Shape,
    pub data: Vec<f64>,
}

impl Real {
    /// The element at a position; 0 outside.
    fn at(&self, position: &[i64]) -> f64 {
        let mut index = 0;
        for (&p, &d) in position.iter().zip(self.shape.dims()) {
            if p < 0 || p >= d as i64 {
                return 0.0;
            }
            index = index * d as usize + p as usize;
        }
        self.data[index]
    }
}

/// The position of element `index`.
pub fn position(shape: &Shape, mut index: usize) -> Vec<i64> {
    let mut position = vec![0; shape.rank()];
    for (p, &d) in position.iter_mut().zip(shape.dims()).rev() {
        *p = (index % d as usize) as i64;
        index /= d as usize;
    }
    position
}

fn clamp(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
    }
}

/// Where cell (i, j) of the window at output row `oy`, column `ox` lies in the input.
pub fn cell(
    o: &[i64],
    k: [i64; 2],
    stride: [u16; 2],
    dilation: [u16; 2],
    padding: Padding,
) -> (i64, i64) {
    (
        o[1] * stride[0] as i64 + k[0] * dilation[0] as i64 - padding.top as i64,
        o[2] * stride[1] as i64 + k[1] * dilation[1] as i64 - padding.left as i64,
    )
}

/// Input rows and columns, and cells of the window, that a transposed convolution adds up at output `o`: from its definition,
/// every input cell puts a window down.
pub fn meeting(
    conv: &ConvTranspose2d,
    x: &Shape,
    w: &Shape,
    o: &[i64],
) -> Vec<(i64, i64, i64, i64)> {
    let mut all = Vec::new();
    for y in 0..x.dim(1) as i64 {
        for z in 0..x.dim(2) as i64 {
            for i in 0..w.dim(1) as i64 {
                for j in 0..w.dim(2) as i64 {
                    let from = [o[0], y, z];
                    let at = cell(&from, [i, j], conv.stride, conv.dilation, conv.padding);
                    if at == (o[1], o[2]) {
                        all.push((y, z, i, j));
                    }
                }
            }
        }
    }
    all
}

/// The element of a broadcast operand that output position `o` reads.
pub fn broadcast(shape: &Shape, o: &[i64]) -> Vec<i64> {
    let skip = o.len() - shape.rank();
    let own = o[skip..].iter().zip(shape.dims());
    own.map(|(&p, &d)| if d == 1 { 0 } else { p }).collect()
}

/// The operator's output of the given shape. `training`: batch normalization by the batch's own statistics.
pub fn forward(op: &Op, inputs: &[Real], output: &Shape, training: bool) -> Vec<f64> {
    if let Op::Lstm(lstm) = op {
        return self::lstm(f64::from(lstm.clip), inputs);
    }
    (0..output.len())
        .map(|i| element(op, inputs, output, training, &position(output, i), i))
        .collect()
}

fn element(
    op: &Op,
    inputs: &[Real],
    output: &Shape,
    training: bool,
    o: &[i64],
    index: usize,
) -> f64 {
    let x = &inputs[0];
    let dims = |t: &Real, i: usize| t.shape.dim(i) as i64;
    match op {
        Op::Conv2d(conv) => {
            let (w, bias) = (&inputs[1], &inputs[2]);
            let mut sum = bias.data[o[3] as usize];
            for i in 0..dims(w, 1) {
                for j in 0..dims(w, 2) {
                    let (y, z) = cell(o, [i, j], conv.stride, conv.dilation, conv.padding);
                    let share = dims(w, 3);
                    let group = o[3] / (dims(w, 0) / (dims(x, 3) / share));
                    for c in 0..share {
                        sum += x.at(&[o[0], y, z, group * share + c]) * w.at(&[o[3], i, j, c]);
                    }
                }
            }
            clamp(conv.activation, sum)
        }
        Op::ConvTranspose2d(conv) => {
            let (w, bias) = (&inputs[1], &inputs[2]);
            let mut sum = bias.data[o[3] as usize];
            for (y, z, i, j) in meeting(conv, &x.shape, &w.shape, o) {
                let share = dims(w, 3);
                let group = o[3] / (dims(w, 0) / (dims(x, 3) / share));
                for c in 0..share {
                    sum += x.at(&[o[0], y, z, group * share + c]) * w.at(&[o[3], i, j, c]);
                }
            }
            clamp(conv.activation, sum)
        }
        Op::DepthwiseConv2d(conv) => {
            let (w, bias) = (&inputs[1], &inputs[2]);
            let multiplier = dims(w, 3) / dims(x, 3);
            let mut sum = bias.data[o[3] as usize];
            for i in 0..dims(w, 1) {
                for j in 0..dims(w, 2) {
                    let (y, z) = cell(o, [i, j], conv.stride, conv.dilation, conv.padding);
                    sum += x.at(&[o[0], y, z, o[3] / multiplier]) * w.at(&[0, i, j, o[3]]);
                }
            }
            clamp(conv.activation, sum)
        }
        Op::Dense(dense) => {
            let (w, bias) = (&inputs[1], &inputs[2]);
            let depth = w.shape.dim(1);
            let row = &x.data[o[0] as usize * depth..][..depth];
            let sum: f64 = (0..depth).map(|i| row[i] * w.at(&[o[1], i as i64])).sum();
            clamp(dense.activation, sum + bias.data[o[1] as usize])
        }
        Op::Add(add) => {
            let terms = inputs.iter().map(|t| t.at(&broadcast(&t.shape, o)));
            clamp(add.activation, terms.sum())
        }
        Op::Mul(mul) => {
            let factors = inputs.iter().map(|t| t.at(&broadcast(&t.shape, o)));
            clamp(mul.activation, factors.product())
        }
        Op::AvgPool2d(pool) | Op::MaxPool2d(pool) => {
            let mut cells = Vec::new();
            for i in 0..pool.window[0] as i64 {
                for j in 0..pool.window[1] as i64 {
                    let (y, z) = cell(o, [i, j], pool.stride, [1, 1], pool.padding);
                    if (0..dims(x, 1)).contains(&y) && (0..dims(x, 2)).contains(&z) {
                        cells.push(x.at(&[o[0], y, z, o[3]]));
                    }
                }
            }
            let value = if let Op::MaxPool2d(_) = op {
                cells.iter().copied().fold(f64::NEG_INFINITY, f64::max)
            } else {
                cells.iter().sum::<f64>() / cells.len() as f64
            };
            clamp(pool.activation, value)
        }
        Op::Pad(pad) => {
            let from: Vec<i64> = o
                .iter()
                .zip(pad.before)
                .map(|(&p, b)| p - b as i64)
                .collect();
            x.at(&from)
        }
        Op::Reshape => x.data[index],
        Op::Concat(concat) => {
            let axis = concat.axis as usize;
            let mut from = o.to_vec();
            for t in inputs {
                if from[axis] < dims(t, axis) {
                    return t.at(&from);
                }
                from[axis] -= dims(t, axis);
            }
            unreachable!("the inputs fill the output")
        }
        Op::Softmax(softmax) => {
            let n = output.channels();
            let row = &x.data[index / n * n..][..n];
            let beta = softmax.beta as f64;
            let sum: f64 = row.iter().map(|v| (beta * (v - x.data[index])).exp()).sum();
            1.0 / sum
        }
        Op::LogSoftmax(_) => {
            let n = output.channels();
            let row = &x.data[index / n * n..][..n];
            let sum: f64 = row.iter().map(|v| (v - x.data[index]).exp()).sum();
            -sum.ln()
        }
        Op::ReduceMax(reduce) => {
            let axis = reduce.axis as usize;
            let mut from = o.to_vec();
            let along = (0..dims(x, axis)).map(|i| {
                from[axis] = i;
                x.at(&from)
            });
            along.fold(f64::NEG_INFINITY, f64::max)
        }
        Op::Transpose(transpose) => {
            let mut from = vec![0; o.len()];
            for (&p, &axis) in o.iter().zip(&transpose.axes) {
                from[axis as usize] = p;
            }
            x.at(&from)
        }
        Op::Slice(slice) => {
            let mut from = o.to_vec();
            let along = &mut from[slice.axis as usize];
            *along = i64::from(slice.begin) + *along * i64::from(slice.step);
            x.at(&from)
        }
        Op::Remember | Op::Recall => x.data[index],
        Op::Svdf(svdf) => {
            let (state, w, time) = (&inputs[1], &inputs[2], &inputs[3]);
            let memory = dims(time, 1);
            let mut sum = inputs[4].data[o[1] as usize];
            for f in o[1] * i64::from(svdf.rank)..(o[1] + 1) * i64::from(svdf.rank) {
                let feature: f64 = (0..dims(x, 1))
                    .map(|c| x.at(&[o[0], c]) * w.at(&[f, c]))
                    .sum();
                for j in 0..memory {
                    let kept = match j + 1 < memory {
                        true => state.at(&[o[0], f * memory + j + 1]),
                        false => feature,
                    };
                    sum += kept * time.at(&[f, j]);
                }
            }
            clamp(svdf.activation, sum)
        }
        Op::Unary(unary) => {
            let v = x.data[index];
            match *unary {
                Unary::Relu => v.max(0.0),
                Unary::Relu6 => v.clamp(0.0, 6.0),
                Unary::LeakyRelu { alpha } => {
                    if v > 0.0 {
                        v
                    } else {
                        alpha as f64 * v
                    }
                }
                Unary::Tanh => v.tanh(),
                Unary::Sigmoid => 1.0 / (1.0 + (-v).exp()),
                Unary::Requantize => v,
                Unary::Clip { low, high } => v.max(low.into()).min(high.into()),
                Unary::Elu { alpha } if v < 0.0 => f64::from(alpha) * (v.exp() - 1.0),
                Unary::Elu { .. } => v,
                Unary::Abs => v.abs(),
                Unary::Exp => v.exp(),
                Unary::Log => v.ln(),
                Unary::Sqrt => v.sqrt(),
                Unary::Reciprocal => 1.0 / v,
                Unary::Softplus => (1.0 + v.exp()).ln(),
                Unary::Erf => libm::erf(v),
                _ => unimplemented!("{}", op.name()),
            }
        }
        Op::BatchNorm(norm) => {
            let n = output.channels();
            let c = index % n;
            let (mean, variance) = if training {
                let channel: Vec<f64> = x.data.iter().skip(c).step_by(n).copied().collect();
                moments(&channel)
            } else {
                (inputs[3].data[c], inputs[4].data[c])
            };
            let (gamma, beta) = (inputs[1].data[c], inputs[2].data[c]);
            gamma * (x.data[index] - mean) / (variance + norm.epsilon as f64).sqrt() + beta
        }
        _ => unimplemented!("{}", op.name()),
    }
}

/// A recurrent layer as its equations say: gates in the order input, forget, cell, output; the state is the output
/// and then the cell.
fn lstm(clip: f64, inputs: &[Real]) -> Vec<f64> {
    let [x, state, w, recurrent, bias] = inputs else {
        panic!("five operands");
    };
    let (steps, depth) = (x.shape.dim(1) as i64, x.shape.dim(2) as i64);
    let units = state.shape.dim(1) as i64 / 2;
    let mut y = Vec::new();
    for n in 0..x.shape.dim(0) as i64 {
        let mut h: Vec<f64> = (0..units).map(|j| state.at(&[n, j])).collect();
        let mut c: Vec<f64> = (0..units).map(|j| state.at(&[n, units + j])).collect();
        for t in 0..steps {
            let gate = |k: i64, j: i64| {
                let row = k * units + j;
                let from_x = (0..depth).map(|i| x.at(&[n, t, i]) * w.at(&[row, i]));
                let from_h = (0..units).map(|i| h[i as usize] * recurrent.at(&[row, i]));
                from_x.chain(from_h).sum::<f64>() + bias.data[row as usize]
            };
            let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
            let mut next = Vec::new();
            for j in 0..units {
                let cell = &mut c[j as usize];
                *cell = sigmoid(gate(1, j)) * *cell + sigmoid(gate(0, j)) * gate(2, j).tanh();
                if clip > 0.0 {
                    *cell = cell.clamp(-clip, clip);
                }
                next.push(sigmoid(gate(3, j)) * cell.tanh());
            }
            h = next;
            y.extend_from_slice(&h);
        }
    }
    y
}

/// Mean and biased variance.
pub fn moments(x: &[f64]) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    (
        mean,
        x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n,
    )
}

/// The gradient of `sum of gy * output` with respect to input `which`, by central differences.
pub fn gradient(
    op: &Op,
    inputs: &[Real],
    output: &Shape,
    training: bool,
    which: usize,
    gy: &[f64],
) -> Vec<f64> {
    const STEP: f64 = 1e-6;
    let mut moved = inputs.to_vec();
    (0..inputs[which].data.len())
        .map(|i| {
            let mut side = |delta: f64| -> f64 {
                moved[which].data[i] = inputs[which].data[i] + delta;
                let y = forward(op, &moved, output, training);
                moved[which].data[i] = inputs[which].data[i];
                y.iter().zip(gy).map(|(y, g)| y * g).sum()
            };
            (side(STEP) - side(-STEP)) / (2.0 * STEP)
        })
        .collect()
}
