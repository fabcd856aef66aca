//! 2-D convolution.

use super::{FILTERS, LANES, axpy_f32, axpy_i8, dot_f32, dot_i8, sum_lanes};
use crate::kernels::{ConvF32, ConvI8, Window};

/// `y[n, oy, ox, o] = activation(sum x w[o] + bias[o])`.
#[inline(always)]
pub fn forward_f32(p: &ConvF32, y: &mut [f32]) {
    let g = p.window;
    let filter = g.filter_len();
    let mut outputs = y.chunks_exact_mut(g.out_channels);
    g.windows(|n, rows, columns| {
        let Some(y) = outputs.next() else { return };
        let blocks = y.chunks_mut(FILTERS);
        let weights = p.w.chunks(FILTERS * filter);
        for ((y, w), bias) in blocks.zip(weights).zip(p.bias.chunks(FILTERS)) {
            let mut lanes = [[0.0; LANES]; FILTERS];
            if y.len() == FILTERS {
                g.runs(n, rows, columns, |xo, wo, len| {
                    let x = &p.x[xo..xo + len];
                    for (k, lanes) in lanes.iter_mut().enumerate() {
                        dot_f32(lanes, x, &w[k * filter + wo..k * filter + wo + len]);
                    }
                });
            } else {
                g.runs(n, rows, columns, |xo, wo, len| {
                    let x = &p.x[xo..xo + len];
                    for (lanes, w) in lanes.iter_mut().zip(w.chunks_exact(filter)) {
                        dot_f32(lanes, x, &w[wo..wo + len]);
                    }
                });
            }
            for ((y, lanes), bias) in y.iter_mut().zip(&lanes).zip(bias) {
                *y = p.activation.apply(sum_lanes(lanes) + bias);
            }
        }
    });
}

/// `gx += w^T gy`.
#[inline(always)]
pub fn input_gradient_f32(g: &Window, w: &[f32], gy: &[f32], gx: &mut [f32]) {
    let filter = g.filter_len();
    let mut gradients = gy.chunks_exact(g.out_channels);
    g.windows(|n, rows, columns| {
        let Some(gy) = gradients.next() else { return };
        for (&gy, w) in gy.iter().zip(w.chunks_exact(filter)) {
            if gy != 0.0 {
                g.runs(n, rows, columns, |x, wo, len| {
                    axpy_f32(&mut gx[x..x + len], gy, &w[wo..wo + len]);
                });
            }
        }
    });
}

/// `gx += w^T gy` with int8 weights of `scale(o)` per step.
#[inline(always)]
pub fn input_gradient_i8(
    g: &Window,
    w: &[i8],
    scale: impl Fn(usize) -> f32,
    gy: &[f32],
    gx: &mut [f32],
) {
    let filter = g.filter_len();
    let mut gradients = gy.chunks_exact(g.out_channels);
    g.windows(|n, rows, columns| {
        let Some(gy) = gradients.next() else { return };
        for (o, (&gy, w)) in gy.iter().zip(w.chunks_exact(filter)).enumerate() {
            if gy != 0.0 {
                let gy = gy * scale(o);
                g.runs(n, rows, columns, |x, wo, len| {
                    axpy_i8(&mut gx[x..x + len], gy, &w[wo..wo + len]);
                });
            }
        }
    });
}

/// `gw += gy x^T`.
#[inline(always)]
pub fn weight_gradient_f32(g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    let filter = g.filter_len();
    let mut gradients = gy.chunks_exact(g.out_channels);
    g.windows(|n, rows, columns| {
        let Some(gy) = gradients.next() else { return };
        for (&gy, gw) in gy.iter().zip(gw.chunks_exact_mut(filter)) {
            if gy != 0.0 {
                g.runs(n, rows, columns, |xo, wo, len| {
                    axpy_f32(&mut gw[wo..wo + len], gy, &x[xo..xo + len]);
                });
            }
        }
    });
}

/// The integer convolution of TFLite Micro.
#[inline(always)]
pub fn forward_i8(p: &ConvI8, y: &mut [i8]) {
    let g = p.window;
    let filter = g.filter_len();
    let mut outputs = y.chunks_exact_mut(g.out_channels);
    g.windows(|n, rows, columns| {
        let Some(y) = outputs.next() else { return };
        for (o, (y, w)) in y.iter_mut().zip(p.w.chunks_exact(filter)).enumerate() {
            let mut sum = 0i32;
            g.runs(n, rows, columns, |x, wo, len| {
                let dot = dot_i8(&p.x[x..x + len], p.x_zero_point, &w[wo..wo + len]);
                sum = sum.wrapping_add(dot);
            });
            *y = p.output.finish(sum, o);
        }
    });
}
