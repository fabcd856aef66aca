//! Fully connected layers: `x [N, I]`, `w [O, I]`, `y [N, O]`.

use super::{
    FILTERS, LANES, ROWS_I8, Terms, axpy_f32, blocks, dot_f32, dot_i8, dots_i8, sum_lanes,
};
use crate::kernels::{DenseF32, DenseI8};

/// `y[n, o] = activation(x[n] . w[o] + bias[o])`.
#[inline(always)]
pub fn forward_f32(p: &DenseF32, y: &mut [f32]) {
    let outputs = p.bias.len();
    for (x, y) in p.x.chunks_exact(p.depth).zip(y.chunks_exact_mut(outputs)) {
        let blocks = y.chunks_mut(FILTERS);
        let weights = p.w.chunks(FILTERS * p.depth);
        for ((y, w), bias) in blocks.zip(weights).zip(p.bias.chunks(FILTERS)) {
            let mut lanes = [[0.0; LANES]; FILTERS];
            for (lanes, w) in lanes.iter_mut().zip(w.chunks_exact(p.depth)) {
                dot_f32(lanes, x, w);
            }
            for ((y, lanes), bias) in y.iter_mut().zip(&lanes).zip(bias) {
                *y = p.activation.apply(sum_lanes(lanes) + bias);
            }
        }
    }
}

/// `gx += w^T gy`.
#[inline(always)]
pub fn input_gradient_f32(depth: usize, w: &[f32], gy: &[f32], gx: &mut [f32]) {
    let outputs = w.len() / depth.max(1);
    for (gx, gy) in gx.chunks_exact_mut(depth).zip(gy.chunks_exact(outputs)) {
        for (&gy, w) in gy.iter().zip(w.chunks_exact(depth)) {
            if gy != 0.0 {
                axpy_f32(gx, gy, w);
            }
        }
    }
}

/// `gx += w^T gy` with int8 weights of `scale(o)` per step.
#[inline(always)]
pub fn input_gradient_i8(
    depth: usize,
    w: &[i8],
    scale: impl Fn(usize) -> f32,
    gy: &[f32],
    gx: &mut [f32],
) {
    let outputs = w.len() / depth.max(1);
    for (gx, gy) in gx.chunks_exact_mut(depth).zip(gy.chunks_exact(outputs)) {
        Terms::for_each(
            gy,
            |o, gy| gy * scale(o),
            |terms| {
                terms.add(gx, w, depth);
            },
        );
    }
}

/// `gw += gy x^T`.
#[inline(always)]
pub fn weight_gradient_f32(depth: usize, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    let outputs = gw.len() / depth.max(1);
    for (x, gy) in x.chunks_exact(depth).zip(gy.chunks_exact(outputs)) {
        for (&gy, gw) in gy.iter().zip(gw.chunks_exact_mut(depth)) {
            if gy != 0.0 {
                axpy_f32(gw, gy, x);
            }
        }
    }
}

/// The integer fully connected layer of TFLite Micro.
#[inline(always)]
pub fn forward_i8(p: &DenseI8, y: &mut [i8]) {
    let outputs = p.output.bias.len();
    for (x, y) in p.x.chunks_exact(p.depth).zip(y.chunks_exact_mut(outputs)) {
        for first in blocks(outputs) {
            let mut sums = [0; ROWS_I8];
            dots_i8(
                x,
                p.x_zero_point,
                &p.w[first * p.depth..],
                p.depth,
                &mut sums,
            );
            p.output.finish_rows(&sums, first, y);
        }
        if outputs < ROWS_I8 {
            for (o, (y, w)) in y.iter_mut().zip(p.w.chunks_exact(p.depth)).enumerate() {
                *y = p.output.finish(dot_i8(x, p.x_zero_point, w), o);
            }
        }
    }
}
