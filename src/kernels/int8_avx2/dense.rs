//! Fully connected layers: eight rows of weights, as they lie in the image, meet one widened input.

use super::super::DenseI8;
use super::{Finish, Scratch, store};
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
    if depth == 0 || depth > DEPTH || outputs < ROWS || !sized {
        return false;
    }
    let Some(finish) = Finish::new(&p.output, depth) else {
        return false;
    };
    let mut widened = Scratch::<DEPTH>::new();
    let wide = widened.take(depth.next_multiple_of(16));
    for (x, y) in p.x.chunks_exact(depth).zip(y.chunks_exact_mut(outputs)) {
        for (to, &x) in wide.iter_mut().zip(x) {
            *to = (i16::from(x) - p.x_zero_point) << finish.doubling();
        }
        for first in (0..outputs).step_by(ROWS) {
            // the last rows again, where fewer are left
            let first = first.min(outputs - ROWS);
            let lanes = finish.lanes(&p.output, first);
            let sums = _mm256_add_epi32(sums(wide, &p.w[first * depth..], depth), lanes.bias);
            let q = finish.narrow([&lanes; 2], [sums; 2]);
            store(q, &mut y[first..][..ROWS]);
        }
    }
    true
}

/// The dot products of `x`, which ends in zeros, with the first eight rows of `w`.
#[target_feature(enable = "avx2")]
#[inline]
fn sums(x: &[i16], w: &[i8], depth: usize) -> __m256i {
    let x = &x[..depth.next_multiple_of(16)];
    let whole = depth / 16 * 16;
    let mut rows = [w.as_ptr(); ROWS];
    for (r, row) in rows.iter_mut().enumerate() {
        // what the loop reads, and no more
        *row = w[r * depth..][..whole].as_ptr();
    }
    let mut sums = [_mm256_setzero_si256(); ROWS];
    for k in (0..whole).step_by(16) {
        // SAFETY: `k + 16 <= whole`, which is at most the length of `x` and that of each row.
        let x = unsafe { _mm256_loadu_si256(x.as_ptr().add(k).cast()) };
        for r in 0..ROWS {
            // SAFETY: see above.
            let w = unsafe { _mm_loadu_si128(rows[r].add(k).cast()) };
            sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(x, _mm256_cvtepi8_epi16(w)));
        }
    }
    if whole < depth {
        let tail = &x[whole..][..16];
        // SAFETY: `tail` is 32 bytes long.
        let x = unsafe { _mm256_loadu_si256(tail.as_ptr().cast()) };
        for r in 0..ROWS {
            let rest = &w[r * depth + whole..];
            let mut all = [0i8; 16];
            // what follows the row meets zeros
            let rest = match rest.first_chunk::<16>() {
                Some(rest) => rest,
                None => {
                    all[..rest.len()].copy_from_slice(rest);
                    &all
                }
            };
            // SAFETY: `rest` is 16 bytes long.
            let w = unsafe { _mm_loadu_si128(rest.as_ptr().cast()) };
            sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(x, _mm256_cvtepi8_epi16(w)));
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
