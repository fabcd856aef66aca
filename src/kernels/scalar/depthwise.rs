//! Depthwise 2-D convolution: `w [1, kh, kw, C m]`, output channel `c m + j` sees input channel `c`.

use crate::kernels::{ConvF32, ConvI8, Window};

/// `y[c m + j] = activation(sum x[c] w[c m + j] + bias[c m + j])`, cells in order, one sum per channel.
#[inline(always)]
pub fn forward_f32(p: &ConvF32, y: &mut [f32]) {
    let g = p.window;
    let (c, o) = (g.in_channels, g.out_channels);
    let m = o / c.max(1);
    for ((n, rows, columns), y) in g.windows().zip(y.chunks_exact_mut(o)) {
        y.fill(0.0);
        for cell in g.cells(n, rows, columns) {
            let (x, w) = (&p.x[cell.pixel * c..][..c], &p.w[cell.cell * o..][..o]);
            if m == 1 {
                for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
                    *y += x * w;
                }
            } else {
                for ((y, &x), w) in y.chunks_exact_mut(m).zip(x).zip(w.chunks_exact(m)) {
                    for (y, &w) in y.iter_mut().zip(w) {
                        *y += x * w;
                    }
                }
            }
        }
        for (y, bias) in y.iter_mut().zip(p.bias) {
            *y = p.activation.apply(*y + bias);
        }
    }
}

/// `gx[c] += sum over j of w[c m + j] gy[c m + j]`.
#[inline(always)]
pub fn input_gradient_f32(g: &Window, w: &[f32], gy: &[f32], gx: &mut [f32]) {
    let (c, o) = (g.in_channels, g.out_channels);
    let m = o / c.max(1);
    for ((n, rows, columns), gy) in g.windows().zip(gy.chunks_exact(o)) {
        for cell in g.cells(n, rows, columns) {
            let (gx, w) = (&mut gx[cell.pixel * c..][..c], &w[cell.cell * o..][..o]);
            if m == 1 {
                for ((gx, &gy), &w) in gx.iter_mut().zip(gy).zip(w) {
                    *gx += gy * w;
                }
            } else {
                let blocks = gx.iter_mut().zip(gy.chunks_exact(m)).zip(w.chunks_exact(m));
                for ((gx, gy), w) in blocks {
                    for (&gy, &w) in gy.iter().zip(w) {
                        *gx += gy * w;
                    }
                }
            }
        }
    }
}

/// The same with int8 weights of `scale(o)` per step, which `gy` is multiplied by first.
#[inline(always)]
pub fn input_gradient_i8(
    g: &Window,
    w: &[i8],
    scale: impl Fn(usize) -> f32,
    gy: &[f32],
    gx: &mut [f32],
) {
    let (c, o) = (g.in_channels, g.out_channels);
    let m = o / c.max(1);
    for ((n, rows, columns), gy) in g.windows().zip(gy.chunks_exact(o)) {
        for (block, gy) in gy.chunks(BLOCK).enumerate() {
            let first = block * BLOCK;
            let mut scaled = [0.0; BLOCK];
            for (k, (to, gy)) in scaled.iter_mut().zip(gy).enumerate() {
                *to = gy * scale(first + k);
            }
            for cell in g.cells(n, rows, columns) {
                let w = &w[cell.cell * o + first..][..gy.len()];
                let gx = &mut gx[cell.pixel * c..][..c];
                if m > 1 {
                    // Channel (first + k) / m, counted instead of divided.
                    let (mut channel, mut j) = (first / m, first % m);
                    for (gy, &w) in scaled.iter().zip(w) {
                        gx[channel] += gy * f32::from(w);
                        j += 1;
                        if j == m {
                            (channel, j) = (channel + 1, 0);
                        }
                    }
                    continue;
                }
                let gx = &mut gx[first..][..gy.len()];
                if let (Some(gx), Some(w)) = (gx.first_chunk_mut(), w.first_chunk()) {
                    add_block(gx, &scaled, w);
                } else {
                    for ((gx, gy), &w) in gx.iter_mut().zip(&scaled).zip(w) {
                        *gx += gy * f32::from(w);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn add_block(gx: &mut [f32; BLOCK], gy: &[f32; BLOCK], w: &[i8; BLOCK]) {
    for k in 0..BLOCK {
        gx[k] += gy[k] * f32::from(w[k]);
    }
}

/// `gw[c m + j] += x[c] gy[c m + j]`.
#[inline(always)]
pub fn weight_gradient_f32(g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    let (c, o) = (g.in_channels, g.out_channels);
    let m = o / c.max(1);
    for ((n, rows, columns), gy) in g.windows().zip(gy.chunks_exact(o)) {
        for cell in g.cells(n, rows, columns) {
            let (x, gw) = (&x[cell.pixel * c..][..c], &mut gw[cell.cell * o..][..o]);
            if m == 1 {
                for ((gw, &x), &gy) in gw.iter_mut().zip(x).zip(gy) {
                    *gw += gy * x;
                }
            } else {
                let blocks = gw.chunks_exact_mut(m).zip(x).zip(gy.chunks_exact(m));
                for ((gw, &x), gy) in blocks {
                    for (gw, &gy) in gw.iter_mut().zip(gy) {
                        *gw += gy * x;
                    }
                }
            }
        }
    }
}

/// Output channels summed at once by the integer forms.
const BLOCK: usize = 8;

/// The integer depthwise convolution of TFLite Micro.
#[inline(always)]
pub fn forward_i8(p: &ConvI8, y: &mut [i8]) {
    let g = p.window;
    let (c, o) = (g.in_channels, g.out_channels);
    let m = o / c.max(1);
    for ((n, rows, columns), y) in g.windows().zip(y.chunks_exact_mut(o)) {
        for (block, y) in y.chunks_mut(BLOCK).enumerate() {
            let first = block * BLOCK;
            let mut sums = [0i32; BLOCK];
            for cell in g.cells(n, rows, columns) {
                let w = &p.w[cell.cell * o + first..][..y.len()];
                let x = &p.x[cell.pixel * c..][..c];
                if m == 1 {
                    for ((sum, &x), &w) in sums.iter_mut().zip(&x[first..]).zip(w) {
                        let x = x as i16 - p.x_zero_point;
                        *sum = sum.wrapping_add(x as i32 * w as i32);
                    }
                } else {
                    // Channel (first + k) / m, counted instead of divided.
                    let (mut channel, mut j) = (first / m, first % m);
                    for (sum, &w) in sums.iter_mut().zip(w) {
                        let x = x[channel] as i16 - p.x_zero_point;
                        *sum = sum.wrapping_add(x as i32 * w as i32);
                        j += 1;
                        if j == m {
                            (channel, j) = (channel + 1, 0);
                        }
                    }
                }
            }
            for (k, (y, &sum)) in y.iter_mut().zip(&sums).enumerate() {
                *y = p.output.finish(sum, first + k);
            }
        }
    }
}
