//! Pooling over `[N, H, W, C]`. Only cells inside the image count; not-a-number is greater than everything, so that it is not lost.

use crate::kernels::{Activation, Window};

/// Whether `x` takes the place of `best`.
#[inline(always)]
pub fn greater(x: f32, best: f32) -> bool {
    x > best || (x.is_nan() && !best.is_nan())
}

/// `y` = the activation of the greatest element of each window.
#[inline(always)]
pub fn maximum_f32(g: &Window, x: &[f32], activation: Activation, y: &mut [f32]) {
    for ((n, rows, columns), y) in g.windows().zip(y.chunks_exact_mut(g.out_channels)) {
        y.fill(f32::NEG_INFINITY);
        for cell in g.cells(n, rows, columns) {
            let at = cell.pixel * g.in_channels;
            for (y, &x) in y.iter_mut().zip(&x[at..]) {
                if greater(x, *y) {
                    *y = x;
                }
            }
        }
        for y in y {
            *y = activation.apply(*y);
        }
    }
}

/// `y` = the activation of the average of each window, summed in the order of its cells.
#[inline(always)]
pub fn average_f32(g: &Window, x: &[f32], activation: Activation, y: &mut [f32]) {
    for ((n, rows, columns), y) in g.windows().zip(y.chunks_exact_mut(g.out_channels)) {
        y.fill(0.0);
        for cell in g.cells(n, rows, columns) {
            let at = cell.pixel * g.in_channels;
            for (y, &x) in y.iter_mut().zip(&x[at..]) {
                *y += x;
            }
        }
        let count = (rows.count * columns.count) as f32;
        for y in y {
            *y = activation.apply(*y / count);
        }
    }
}

/// Channels whose average is summed at once.
const SUMS: usize = 16;

/// `y` = the average of each window, halves away from zero, in `range`.
#[inline(always)]
pub fn average_i8(g: &Window, x: &[i8], range: (i32, i32), y: &mut [i8]) {
    for ((n, rows, columns), y) in g.windows().zip(y.chunks_exact_mut(g.out_channels)) {
        let count = ((rows.count * columns.count) as i32).max(1);
        for (block, y) in y.chunks_mut(SUMS).enumerate() {
            let mut sums = [0i32; SUMS];
            for cell in g.cells(n, rows, columns) {
                let at = cell.pixel * g.in_channels + block * SUMS;
                for (sum, &x) in sums.iter_mut().zip(&x[at..][..y.len()]) {
                    *sum += i32::from(x);
                }
            }
            for (y, sum) in y.iter_mut().zip(sums) {
                *y = average(sum, count, range);
            }
        }
    }
}

/// Of so many elements with this sum.
#[inline(always)]
pub fn average(sum: i32, count: i32, (low, high): (i32, i32)) -> i8 {
    let half = if sum > 0 { count / 2 } else { -(count / 2) };
    ((sum + half) / count).max(low).min(high) as i8
}

/// Which cell of each window is the greatest, the first of equals.
#[inline(always)]
pub fn argmax<T: Copy>(g: &Window, x: &[T], greater: impl Fn(T, T) -> bool, index: &mut [u8]) {
    for ((n, rows, columns), index) in g.windows().zip(index.chunks_exact_mut(g.out_channels)) {
        for (c, index) in index.iter_mut().enumerate() {
            let mut best: Option<T> = None;
            for cell in g.cells(n, rows, columns) {
                let at = cell.pixel * g.in_channels;
                let x = x[at + c];
                if best.is_none_or(|best| greater(x, best)) {
                    best = Some(x);
                    *index = cell.cell as u8;
                }
            }
        }
    }
}

/// `gx += gy` at the cell that `index` names; a number that is no cell's adds nothing.
#[inline(always)]
pub fn maximum_gradient(g: &Window, index: &[u8], gy: &[f32], gx: &mut [f32]) {
    let gradients = gy.chunks_exact(g.out_channels);
    let indices = index.chunks_exact(g.out_channels);
    for (((n, rows, columns), gy), index) in g.windows().zip(gradients).zip(indices) {
        for cell in g.cells(n, rows, columns) {
            let at = cell.pixel * g.in_channels;
            for ((gx, &gy), &index) in gx[at..].iter_mut().zip(gy).zip(index) {
                if index as usize == cell.cell {
                    *gx += gy;
                }
            }
        }
    }
}
