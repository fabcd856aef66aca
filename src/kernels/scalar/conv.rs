//! 2-D convolution.

use super::{
    FILTERS, LANES, ROWS_I8, Terms, axpy_f32, blocks, dot_f32, dot_i8, dots_i8, sum_lanes,
};
use crate::kernels::{ConvF32, ConvI8, Window};

/// `y[n, oy, ox, o] = activation(sum x w[o] + bias[o])`.
#[inline(always)]
pub fn forward_f32(p: &ConvF32, y: &mut [f32]) {
    let g = p.window;
    let (c, filter) = (g.in_channels, g.filter_len());
    for ((n, rows, columns), y) in g.windows().zip(y.chunks_exact_mut(g.out_channels)) {
        let blocks = y.chunks_mut(FILTERS);
        let weights = p.w.chunks(FILTERS * filter);
        for ((y, w), bias) in blocks.zip(weights).zip(p.bias.chunks(FILTERS)) {
            let mut lanes = [[0.0; LANES]; FILTERS];
            for run in g.runs(n, rows, columns) {
                let len = run.count * c;
                let x = &p.x[run.pixel * c..][..len];
                let w = &w[run.cell * c..];
                if y.len() == FILTERS {
                    for (k, lanes) in lanes.iter_mut().enumerate() {
                        dot_f32(lanes, x, &w[k * filter..][..len]);
                    }
                } else {
                    for (k, lanes) in lanes.iter_mut().enumerate().take(y.len()) {
                        dot_f32(lanes, x, &w[k * filter..][..len]);
                    }
                }
            }
            for ((y, lanes), bias) in y.iter_mut().zip(&lanes).zip(bias) {
                *y = p.activation.apply(sum_lanes(lanes) + bias);
            }
        }
    }
}

/// `gx += w^T gy`.
#[inline(always)]
pub fn input_gradient_f32(g: &Window, w: &[f32], gy: &[f32], gx: &mut [f32]) {
    let (c, filter) = (g.in_channels, g.filter_len());
    for ((n, rows, columns), gy) in g.windows().zip(gy.chunks_exact(g.out_channels)) {
        for (&gy, w) in gy.iter().zip(w.chunks_exact(filter)) {
            if gy == 0.0 {
                continue;
            }
            for run in g.runs(n, rows, columns) {
                let len = run.count * c;
                axpy_f32(
                    &mut gx[run.pixel * c..][..len],
                    gy,
                    &w[run.cell * c..][..len],
                );
            }
        }
    }
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
    let (c, filter) = (g.in_channels, g.filter_len());
    for ((n, rows, columns), gy) in g.windows().zip(gy.chunks_exact(g.out_channels)) {
        Terms::for_each(
            gy,
            |o, gy| gy * scale(o),
            |terms| {
                for run in g.runs(n, rows, columns) {
                    let gx = &mut gx[run.pixel * c..][..run.count * c];
                    terms.add(gx, &w[run.cell * c..], filter);
                }
            },
        );
    }
}

/// `gw += gy x^T`.
#[inline(always)]
pub fn weight_gradient_f32(g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    let (c, filter) = (g.in_channels, g.filter_len());
    for ((n, rows, columns), gy) in g.windows().zip(gy.chunks_exact(g.out_channels)) {
        for (&gy, gw) in gy.iter().zip(gw.chunks_exact_mut(filter)) {
            if gy == 0.0 {
                continue;
            }
            for run in g.runs(n, rows, columns) {
                let len = run.count * c;
                axpy_f32(
                    &mut gw[run.cell * c..][..len],
                    gy,
                    &x[run.pixel * c..][..len],
                );
            }
        }
    }
}

/// The largest filter, elements, whose window is copied together before it meets the filters.
const PATCH: usize = 128;

/// The integer convolution of TFLite Micro.
#[inline(always)]
pub fn forward_i8(p: &ConvI8, y: &mut [i8]) {
    let g = p.window;
    let (c, filter) = (g.in_channels, g.filter_len());
    // A small window is cut into short runs, once for each filter: one copy of it saves that. A cell outside the
    // image holds the zero point there, which adds nothing.
    let mut patch = [0; PATCH];
    let mut patch = match g.out_channels {
        ..ROWS_I8 => None,
        _ => patch.get_mut(..filter),
    };
    for ((n, rows, columns), y) in g.windows().zip(y.chunks_exact_mut(g.out_channels)) {
        if let Some(patch) = &mut patch {
            if rows.count * columns.count < g.kernel[0] * g.kernel[1] {
                patch.fill(p.x_zero_point as i8);
            }
            for run in g.runs(n, rows, columns) {
                let len = run.count * c;
                let x = &p.x[run.pixel * c..][..len];
                patch[run.cell * c..][..len].copy_from_slice(x);
            }
        }
        for first in blocks(g.out_channels) {
            let w = &p.w[first * filter..];
            let mut sums = [0; ROWS_I8];
            match &patch {
                Some(patch) => dots_i8(patch, p.x_zero_point, w, filter, &mut sums),
                None => {
                    for run in g.runs(n, rows, columns) {
                        let x = &p.x[run.pixel * c..][..run.count * c];
                        dots_i8(x, p.x_zero_point, &w[run.cell * c..], filter, &mut sums);
                    }
                }
            }
            p.output.finish_rows(&sums, first, y);
        }
        if g.out_channels < ROWS_I8 {
            for (o, (y, w)) in y.iter_mut().zip(p.w.chunks_exact(filter)).enumerate() {
                let mut sum = 0i32;
                for run in g.runs(n, rows, columns) {
                    let len = run.count * c;
                    let x = &p.x[run.pixel * c..][..len];
                    let w = &w[run.cell * c..][..len];
                    sum = sum.wrapping_add(dot_i8(x, p.x_zero_point, w));
                }
                *y = p.output.finish(sum, o);
            }
        }
    }
}
