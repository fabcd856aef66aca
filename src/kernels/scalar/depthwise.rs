//! Depthwise 2-D convolution: `w [1, kh, kw, C m]`, output channel `c m + j` sees input channel `c`.

use crate::kernels::{ConvF32, ConvI8, Window};

/// Calls `f(x, w)` with the first element of each cell of a window: in the input and in the weights.
#[inline(always)]
fn cells(
    g: &Window,
    n: usize,
    rows: crate::kernels::window::Inside,
    columns: crate::kernels::window::Inside,
    mut f: impl FnMut(usize, usize),
) {
    for i in 0..rows.count {
        let row = n * g.input[0] + rows.at + i * g.dilation[0];
        let weights = (rows.first + i) * g.kernel[1] + columns.first;
        for j in 0..columns.count {
            let x = row * g.input[1] + columns.at + j * g.dilation[1];
            f(x * g.in_channels, (weights + j) * g.out_channels);
        }
    }
}

/// `y[c m + j] = activation(sum x[c] w[c m + j] + bias[c m + j])`, cells in order, one sum per channel.
#[inline(always)]
pub fn forward_f32(p: &ConvF32, y: &mut [f32]) {
    let g = p.window;
    let (c, o) = (g.in_channels, g.out_channels);
    let m = o / c.max(1);
    let mut outputs = y.chunks_exact_mut(o);
    g.windows(|n, rows, columns| {
        let Some(y) = outputs.next() else { return };
        y.fill(0.0);
        cells(g, n, rows, columns, |x, w| {
            let (x, w) = (&p.x[x..x + c], &p.w[w..w + o]);
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
        });
        for (y, bias) in y.iter_mut().zip(p.bias) {
            *y = p.activation.apply(*y + bias);
        }
    });
}

/// `gx[c] += sum over j of w[c m + j] gy[c m + j]`, with `w` read through `weight(element, channel)`.
#[inline(always)]
pub fn input_gradient(
    g: &Window,
    weight: impl Fn(usize, usize) -> f32,
    gy: &[f32],
    gx: &mut [f32],
) {
    let (c, o) = (g.in_channels, g.out_channels);
    let m = o / c.max(1);
    let mut gradients = gy.chunks_exact(o);
    g.windows(|n, rows, columns| {
        let Some(gy) = gradients.next() else { return };
        cells(g, n, rows, columns, |x, w| {
            let gx = &mut gx[x..x + c];
            if m == 1 {
                for (k, (gx, &gy)) in gx.iter_mut().zip(gy).enumerate() {
                    *gx += gy * weight(w + k, k);
                }
            } else {
                for (k, (gx, gy)) in gx.iter_mut().zip(gy.chunks_exact(m)).enumerate() {
                    for (j, &gy) in gy.iter().enumerate() {
                        *gx += gy * weight(w + k * m + j, k * m + j);
                    }
                }
            }
        });
    });
}

/// `gw[c m + j] += x[c] gy[c m + j]`.
#[inline(always)]
pub fn weight_gradient_f32(g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    let (c, o) = (g.in_channels, g.out_channels);
    let m = o / c.max(1);
    let mut gradients = gy.chunks_exact(o);
    g.windows(|n, rows, columns| {
        let Some(gy) = gradients.next() else { return };
        cells(g, n, rows, columns, |xo, w| {
            let (x, gw) = (&x[xo..xo + c], &mut gw[w..w + o]);
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
        });
    });
}

/// Output channels summed at once by the integer form.
const BLOCK: usize = 8;

/// The integer depthwise convolution of TFLite Micro.
#[inline(always)]
pub fn forward_i8(p: &ConvI8, y: &mut [i8]) {
    let g = p.window;
    let (c, o) = (g.in_channels, g.out_channels);
    let m = o / c.max(1);
    let mut outputs = y.chunks_exact_mut(o);
    g.windows(|n, rows, columns| {
        let Some(y) = outputs.next() else { return };
        for (block, y) in y.chunks_mut(BLOCK).enumerate() {
            let first = block * BLOCK;
            let mut sums = [0i32; BLOCK];
            cells(g, n, rows, columns, |x, w| {
                let w = &p.w[w + first..w + first + y.len()];
                if m == 1 {
                    let x = &p.x[x + first..x + first + y.len()];
                    for ((sum, &x), &w) in sums.iter_mut().zip(x).zip(w) {
                        let x = x as i16 - p.x_zero_point;
                        *sum = sum.wrapping_add(x as i32 * w as i32);
                    }
                } else {
                    // Channel (first + k) / m, counted instead of divided.
                    let (mut channel, mut j) = (first / m, first % m);
                    for (sum, &w) in sums.iter_mut().zip(w) {
                        let x = p.x[x + channel] as i16 - p.x_zero_point;
                        *sum = sum.wrapping_add(x as i32 * w as i32);
                        j += 1;
                        if j == m {
                            (channel, j) = (channel + 1, 0);
                        }
                    }
                }
            });
            for (k, (y, &sum)) in y.iter_mut().zip(&sums).enumerate() {
                *y = p.output.finish(sum, first + k);
            }
        }
    });
}
