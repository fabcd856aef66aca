//! Convolutions in groups, and transposed ones: each filter sees some of the channels, and a transposed convolution reads where a
//! plain one writes.

use super::{LANES, axpy_f32, axpy_i8, dot_f32, dot_i8, sum_lanes};
use crate::kernels::{ConvF32, ConvI8, Window};

/// Which elements meet. The window slides over the larger image: the input, or (transposed) the output. Weights
/// `[O, kh, kw, C / groups]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spread {
    /// Groups of channels, at least 1; both numbers of channels are multiples of it.
    pub groups: usize,
    /// Whether the window slides over the output.
    pub transposed: bool,
}

/// The numbers of channels.
struct Sizes {
    /// Of the input, in all and in a group.
    c: usize,
    share: usize,
    /// Of the output, in all and in a group.
    o: usize,
    filters: usize,
    cells: usize,
}

impl Spread {
    #[inline(always)]
    fn sizes(&self, g: &Window) -> Sizes {
        let (c, o) = match self.transposed {
            true => (g.out_channels, g.in_channels),
            false => (g.in_channels, g.out_channels),
        };
        Sizes {
            c,
            share: c / self.groups.max(1),
            o,
            filters: (o / self.groups.max(1)).max(1),
            cells: g.kernel[0] * g.kernel[1],
        }
    }

    /// Calls `f(first input element, output element, first weight)` for all that meet; `share` inputs and weights each.
    #[inline(always)]
    fn for_each(&self, g: &Window, mut f: impl FnMut(usize, usize, usize)) {
        let s = self.sizes(g);
        for (p, (n, rows, columns)) in g.windows().enumerate() {
            for cell in g.cells(n, rows, columns) {
                let (x, y) = match self.transposed {
                    true => (p, cell.pixel),
                    false => (cell.pixel, p),
                };
                for o in 0..s.o {
                    let group = o / s.filters;
                    let w = (o * s.cells + cell.cell) * s.share;
                    f(x * s.c + group * s.share, y * s.o + o, w);
                }
            }
        }
    }
}

/// `y = activation(sum x w + bias)`, the sum cell by cell.
#[inline(always)]
pub fn forward_f32(spread: Spread, p: &ConvF32, y: &mut [f32]) {
    let s = spread.sizes(p.window);
    for y in y.chunks_exact_mut(s.o) {
        y.copy_from_slice(p.bias);
    }
    spread.for_each(p.window, |i, o, w| {
        let mut lanes = [0.0; LANES];
        dot_f32(&mut lanes, &p.x[i..][..s.share], &p.w[w..][..s.share]);
        y[o] += sum_lanes(&lanes);
    });
    for y in y {
        *y = p.activation.apply(*y);
    }
}

/// The same in int8: every output adds up what meets it, and is then rounded as a convolution is.
#[inline(always)]
pub fn forward_i8(spread: Spread, p: &ConvI8, y: &mut [i8]) {
    let g = p.window;
    let s = spread.sizes(g);
    let large = if spread.transposed { g.input } else { g.output };
    for (pixel, y) in y.chunks_exact_mut(s.o).enumerate() {
        let (column, row) = (pixel % large[1], pixel / large[1] % large[0]);
        let n = pixel / (large[0] * large[1]);
        for (o, y) in y.iter_mut().enumerate() {
            let mut sum = 0i32;
            for i in 0..g.kernel[0] {
                let Some(from_row) = met(spread, g, 0, row, i) else {
                    continue;
                };
                for j in 0..g.kernel[1] {
                    let Some(from_column) = met(spread, g, 1, column, j) else {
                        continue;
                    };
                    let small = if spread.transposed { g.output } else { g.input };
                    let from = (n * small[0] + from_row) * small[1] + from_column;
                    let x = &p.x[from * s.c + o / s.filters * s.share..][..s.share];
                    let w = (o * s.cells + i * g.kernel[1] + j) * s.share;
                    sum = sum.wrapping_add(dot_i8(x, p.x_zero_point, &p.w[w..][..s.share]));
                }
            }
            *y = p.output.finish(sum, o);
        }
    }
}

/// The place along an axis of the input that an output place reads through a cell of the window.
#[inline(always)]
fn met(spread: Spread, g: &Window, axis: usize, place: usize, cell: usize) -> Option<usize> {
    let reach = cell * g.dilation[axis];
    if spread.transposed {
        let steps = (place + g.padding[axis]).checked_sub(reach)?;
        let inside = steps.is_multiple_of(g.stride[axis]);
        let from = steps / g.stride[axis];
        return (inside && from < g.output[axis]).then_some(from);
    }
    let from = (place * g.stride[axis] + reach).checked_sub(g.padding[axis])?;
    (from < g.input[axis]).then_some(from)
}

/// `gx += w^T gy`.
#[inline(always)]
pub fn input_gradient_f32(spread: Spread, g: &Window, w: &[f32], gy: &[f32], gx: &mut [f32]) {
    let n = spread.sizes(g).share;
    spread.for_each(g, |i, o, k| {
        axpy_f32(&mut gx[i..][..n], gy[o], &w[k..][..n]);
    });
}

/// `gx += w^T gy` with int8 weights of `scale(o)` per step.
#[inline(always)]
pub fn input_gradient_i8(
    spread: Spread,
    g: &Window,
    w: &[i8],
    scale: impl Fn(usize) -> f32,
    gy: &[f32],
    gx: &mut [f32],
) {
    let s = spread.sizes(g);
    spread.for_each(g, |i, o, k| {
        let gy = gy[o] * scale(o % s.o);
        axpy_i8(&mut gx[i..][..s.share], gy, &w[k..][..s.share]);
    });
}

/// `gw += gy x^T`.
#[inline(always)]
pub fn weight_gradient_f32(spread: Spread, g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    let n = spread.sizes(g).share;
    spread.for_each(g, |i, o, k| {
        axpy_f32(&mut gw[k..][..n], gy[o], &x[i..][..n]);
    });
}
