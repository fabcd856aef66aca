//! Fully connected layers: few samples straight from row-major weights, which are read once so that a packed copy would not pay, and
//! many by blocks of packed operands.

use super::gemm::{self, Rows};
use super::many;
use super::tile::{Segment, dots};
use crate::kernels::DenseF32;
use core::arch::x86_64::*;

/// Lengths that are those of weights `[outputs, depth]`, inputs `[batch, depth]` and outputs `[batch, outputs]`: the loops below
/// count on it.
pub(super) fn takes(depth: usize, w: usize, x: usize, y: usize) -> bool {
    let (outputs, batch) = (w / depth.max(1), x / depth.max(1));
    w == outputs * depth && x == batch * depth && y == batch * outputs
}

/// `y = activation(x w^T + bias)`.
///
/// # Safety
/// The CPU has AVX2 and FMA; [`takes`] said yes, and there is a bias for each output.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn forward(p: &DenseF32, y: &mut [f32]) {
    let outputs = p.bias.len();
    let batch = p.x.len() / p.depth.max(1);
    // SAFETY: the caller's promise.
    let first = unsafe { many::forward(p, y) };
    let mut o = 0;
    while o < outputs && first < batch {
        let filters = match outputs - o {
            8.. if batch - first < 3 => 8,
            4.. => 4,
            _ => 1,
        };
        let mut n = first;
        while n < batch {
            let samples = if batch - n >= 3 { 3 } else { 1 };
            // SAFETY: rows `o..o + filters` of `w`, rows `n..n + samples` of `x`.
            unsafe {
                match (filters, samples) {
                    (8, _) => tile::<8, 1>(p, n, o, y),
                    (4, 3) => tile::<4, 3>(p, n, o, y),
                    (4, _) => tile::<4, 1>(p, n, o, y),
                    (_, 3) => tile::<1, 3>(p, n, o, y),
                    _ => tile::<1, 1>(p, n, o, y),
                }
            }
            n += if filters == 8 { 1 } else { samples };
        }
        o += filters;
    }
}

/// `M` filters, `C` samples.
///
/// # Safety
/// They exist.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn tile<const M: usize, const C: usize>(p: &DenseF32, n: usize, o: usize, y: &mut [f32]) {
    let mut w = [p.w.as_ptr(); M];
    for (r, w) in w.iter_mut().enumerate() {
        *w = w.wrapping_add((o + r) * p.depth);
    }
    let mut x = [p.x.as_ptr(); C];
    for (c, x) in x.iter_mut().enumerate() {
        *x = x.wrapping_add((n + c) * p.depth);
    }
    let all = [Segment {
        a: 0,
        b: 0,
        len: p.depth,
    }];
    // SAFETY: rows of `w` and `x` are `depth` long.
    let sums = unsafe { dots(&w, &x, &all) };
    let outputs = p.bias.len();
    for (r, sums) in sums.iter().enumerate() {
        for (c, sum) in sums.iter().enumerate() {
            let sum = sum + p.bias[o + r];
            y[(n + c) * outputs + o + r] = p.activation.apply(sum);
        }
    }
}

/// `gx += gy w`.
///
/// # Safety
/// The CPU has AVX2 and FMA; [`takes`] said yes.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn input_gradient(depth: usize, w: &[f32], gy: &[f32], gx: &mut [f32]) {
    let outputs = w.len() / depth.max(1);
    product(
        Rows {
            x: gy,
            row: outputs,
            step: 1,
        },
        w,
        outputs,
        depth,
        gx,
    );
}

/// `gw += gy^T x`.
///
/// # Safety
/// The CPU has AVX2 and FMA; [`takes`] said yes.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn weight_gradient(depth: usize, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    let outputs = gw.len() / depth.max(1);
    let batch = x.len() / depth.max(1);
    product(
        Rows {
            x: gy,
            row: 1,
            step: outputs,
        },
        x,
        batch,
        depth,
        gw,
    );
}

/// `to [M, lanes] += a [M, terms] b [terms, lanes]`.
#[target_feature(enable = "avx2,fma")]
fn product(a: Rows, b: &[f32], terms: usize, lanes: usize, to: &mut [f32]) {
    let m = to.len() / lanes.max(1);
    match m {
        0 => {}
        1 => add_rows(a, b, lanes, to),
        // SAFETY: the two callers' operands have these sizes.
        _ => unsafe { gemm::product(&a, b, [m, terms, lanes], to) },
    }
}

/// One row: `to += a b`, four rows of `b` at a time, in the order of the terms.
#[target_feature(enable = "avx2,fma")]
fn add_rows(a: Rows, b: &[f32], lanes: usize, to: &mut [f32]) {
    let whole = lanes / 8 * 8;
    let terms = b.len() / lanes;
    for first in (0..terms).step_by(4) {
        let count = (terms - first).min(4);
        let mut factors = [_mm256_setzero_ps(); 4];
        for (k, f) in factors.iter_mut().enumerate().take(count) {
            *f = _mm256_set1_ps(a.x[(first + k) * a.step]);
        }
        let rows = &b[first * lanes..][..count * lanes];
        for l in (0..whole).step_by(8) {
            // SAFETY: `l + 8` is at most `lanes`, the length of `to` and of each row.
            unsafe {
                let at = to.as_mut_ptr().add(l);
                let mut sum = _mm256_loadu_ps(at);
                for (k, f) in factors.iter().enumerate().take(count) {
                    let row = _mm256_loadu_ps(rows.as_ptr().add(k * lanes + l));
                    sum = _mm256_fmadd_ps(*f, row, sum);
                }
                _mm256_storeu_ps(at, sum);
            }
        }
        for l in whole..lanes {
            for k in 0..count {
                let row = _mm_set_ss(rows[k * lanes + l]);
                let sum = _mm_fmadd_ss(_mm256_castps256_ps128(factors[k]), row, _mm_set_ss(to[l]));
                to[l] = _mm_cvtss_f32(sum);
            }
        }
    }
}
