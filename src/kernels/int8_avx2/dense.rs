//! Fully connected layers: eight rows of weights, as they lie in the image, meet one widened input.

use super::super::DenseI8;
use super::conv::narrow_half;
use super::{Lanes, Rails, Scratch, store, takes};
use core::arch::x86_64::*;

/// The longest input: 16 KiB on the stack.
const DEPTH: usize = 8 * 1024;

/// Rows at once.
const ROWS: usize = 8;

/// The integer fully connected layer; false where it was left undone.
#[target_feature(enable = "avx2")]
pub(in super::super) fn dense(p: &DenseI8, y: &mut [i8]) -> bool {
    let (depth, outputs) = (p.depth, p.output.bias.len());
    let sized = p.w.len() == depth * outputs;
    if depth == 0 || depth > DEPTH || outputs < ROWS || !sized || !takes(&p.output) {
        return false;
    }
    let rails = Rails::new(p.output.zero_point, p.output.range);
    let mut widened = Scratch::<DEPTH>::new();
    for (x, y) in p.x.chunks_exact(depth).zip(y.chunks_exact_mut(outputs)) {
        let wide = widened.zeroed(depth.next_multiple_of(16));
        for (to, &x) in wide.iter_mut().zip(x) {
            *to = i16::from(x) - p.x_zero_point;
        }
        for first in (0..outputs).step_by(ROWS) {
            // the last rows again, where fewer are left
            let first = first.min(outputs - ROWS);
            let w = &p.w[first * depth..][..ROWS * depth];
            let lanes = Lanes::new(&p.output, [first, first + 4]);
            let q = lanes.finish(&rails, sums(wide, w, depth));
            store(narrow_half(q), &mut y[first..][..ROWS]);
        }
    }
    true
}

/// The dot products of `x`, which ends in zeros, with eight rows.
#[target_feature(enable = "avx2")]
#[inline]
fn sums(x: &[i16], w: &[i8], depth: usize) -> __m256i {
    // what the loops read, and no more
    let (x, w) = (&x[..depth.next_multiple_of(16)], &w[..ROWS * depth]);
    let mut sums = [_mm256_setzero_si256(); ROWS];
    let whole = depth / 16 * 16;
    for k in (0..whole).step_by(16) {
        // SAFETY: `k + 16 <= depth`, which is at most the length of `x` and of each row of `w`.
        let x = unsafe { _mm256_loadu_si256(x.as_ptr().add(k).cast()) };
        for (row, sum) in sums.iter_mut().enumerate() {
            // SAFETY: see above.
            let w = unsafe { _mm_loadu_si128(w.as_ptr().add(row * depth + k).cast()) };
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(x, _mm256_cvtepi8_epi16(w)));
        }
    }
    if whole < depth {
        let tail = &x[whole..][..16];
        // SAFETY: `tail` is 32 bytes long.
        let x = unsafe { _mm256_loadu_si256(tail.as_ptr().cast()) };
        for (row, sum) in sums.iter_mut().enumerate() {
            let mut rest = [0i8; 16];
            rest[..depth - whole].copy_from_slice(&w[row * depth..][whole..depth]);
            // SAFETY: `rest` is 16 bytes long.
            let w = unsafe { _mm_loadu_si128(rest.as_ptr().cast()) };
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(x, _mm256_cvtepi8_epi16(w)));
        }
    }
    let add = |a, b| _mm256_hadd_epi32(a, b);
    let [a, b, c, d, e, f, g, h] = sums;
    // each half of a vector now holds four sums of half a row
    let (low, high) = (add(add(a, b), add(c, d)), add(add(e, f), add(g, h)));
    _mm256_add_epi32(
        _mm256_permute2x128_si256::<0x20>(low, high),
        _mm256_permute2x128_si256::<0x31>(low, high),
    )
}
