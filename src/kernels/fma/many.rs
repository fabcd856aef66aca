//! Forward of fully connected layers for sixteen samples at a time. Samples lie along the lanes, packed, and weights are read where
//! they are.
//!
//! What a sample gets is what `dots` gives it alone, to the bit. There a vector holds eight terms of the sum: lane `j` adds up the terms
//! `j`, `j + 8`, `j + 16` and so on, and the eight sums become one as a tree. So here the terms are packed by their number
//! modulo eight, each eighth has a sum of its own, and the same tree adds them.

#![allow(clippy::needless_range_loop)] // rows and vectors are registers: numbered, in loops that are unrolled

use super::tile::{Scratch, activate, mask, transpose};
use crate::kernels::DenseF32;
use core::arch::x86_64::*;

/// Samples of a panel.
const WIDE: usize = 16;
/// Outputs of a tile.
const HIGH: usize = 6;
/// Outputs that are computed before they are stored.
const BLOCK: usize = 24;
/// Room for packed samples, in elements: for at least one panel.
const PACKED: usize = 64 * 1024;
/// Elements of packed samples that weights go past, if they are of more than one panel: a quarter of what the usual second-level cache
/// holds.
const AT_ONCE: usize = 32 * 1024;
/// Eights of terms that a tile goes through at once: more of its weights would not stay in the first-level cache.
const EIGHTS: usize = 100;
/// Sums of a tile.
const SUMS: usize = HIGH * WIDE;

/// As many samples as it can, the first ones; returns how many.
///
/// # Safety
/// As [`super::dense::forward`].
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn forward(p: &DenseF32, y: &mut [f32]) -> usize {
    let outputs = p.bias.len();
    let panels = p.x.len() / p.depth.max(1) / WIDE;
    let eights = p.depth.div_ceil(8);
    let panel = 8 * eights * WIDE;
    if panels == 0 || outputs < HIGH || panel > PACKED {
        return 0;
    }
    let mut packed = Scratch::<PACKED>::new();
    let packed = packed.start();
    let at_once = (AT_ONCE / panel).clamp(1, panels);
    for first in (0..panels).step_by(at_once) {
        let here = at_once.min(panels - first);
        for i in 0..here {
            let x = p.x[(first + i) * WIDE * p.depth..].as_ptr();
            // SAFETY: sixteen samples; `at_once` panels fit.
            unsafe { pack(x, p.depth, packed.add(i * panel)) };
        }
        for o in (0..outputs).step_by(BLOCK) {
            for i in 0..here {
                let y = &mut y[(first + i) * WIDE * outputs..][..WIDE * outputs];
                // SAFETY: packed above.
                unsafe { block(p, packed.add(i * panel), o, y) };
            }
        }
    }
    panels * WIDE
}

/// Sixteen samples of `depth` terms: all first terms of eight, all second ones, and so on. The last eight is filled up with zeros.
///
/// # Safety
/// The samples can be read; `to` has room.
#[target_feature(enable = "avx2,fma")]
unsafe fn pack(x: *const f32, depth: usize, to: *mut f32) {
    let eights = depth.div_ceil(8);
    for q in 0..eights {
        let left = depth - 8 * q;
        let there = mask(left);
        for half in [0, 8] {
            let mut rows = [_mm256_setzero_ps(); 8];
            for (r, row) in rows.iter_mut().enumerate() {
                let at = x.wrapping_add((half + r) * depth + 8 * q);
                // SAFETY: terms that are not there are not read.
                *row = unsafe {
                    match left {
                        8.. => _mm256_loadu_ps(at),
                        _ => _mm256_maskload_ps(at, there),
                    }
                };
            }
            for (j, column) in transpose(rows).into_iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { _mm256_storeu_ps(to.add((j * eights + q) * WIDE + half), column) };
            }
        }
    }
}

/// Up to [`BLOCK`] outputs from `first` on, of a panel of samples.
///
/// # Safety
/// `panel` was packed; `y` holds the outputs of its samples.
#[target_feature(enable = "avx2,fma")]
unsafe fn block(p: &DenseF32, panel: *const f32, first: usize, y: &mut [f32]) {
    let outputs = p.bias.len();
    let rows = BLOCK.min(outputs - first);
    let mut sums = Scratch::<{ BLOCK * WIDE }>::new();
    let sums = sums.start();
    for r in (0..rows).step_by(HIGH) {
        let here = HIGH.min(rows - r);
        let mut w = [p.w.as_ptr(); HIGH];
        for k in 0..here {
            w[k] = w[k].wrapping_add((first + r + k) * p.depth);
        }
        // SAFETY: rows of `w` are `depth` long; rows that are not there read row 0; the block has room for its tiles.
        unsafe { tile(&w, p.depth, panel, sums.add(r * WIDE)) };
    }
    for r in 0..rows {
        let bias = _mm256_set1_ps(p.bias[first + r]);
        for half in [0, 8] {
            // SAFETY: written by `tile`.
            unsafe {
                let at = sums.add(r * WIDE + half);
                let sum = _mm256_add_ps(_mm256_loadu_ps(at), bias);
                _mm256_storeu_ps(at, activate(p.activation, sum));
            }
        }
    }
    for r in (0..rows).step_by(8) {
        let lanes = rows - r;
        let there = mask(lanes);
        for half in [0, 8] {
            // SAFETY: the block is that large; rows that were not written are not stored below.
            let eight = [0, 1, 2, 3, 4, 5, 6, 7]
                .map(|k| unsafe { _mm256_loadu_ps(sums.add((r + k) * WIDE + half)) });
            for (n, row) in transpose(eight).into_iter().enumerate() {
                let at = y
                    .as_mut_ptr()
                    .wrapping_add((half + n) * outputs + first + r);
                // SAFETY: lanes that are not there are not written.
                unsafe {
                    match lanes {
                        8.. => _mm256_storeu_ps(at, row),
                        _ => _mm256_maskstore_ps(at, there, row),
                    }
                }
            }
        }
    }
}

/// The sums of six rows of weights for a panel of samples, row after row.
///
/// # Safety
/// The rows are `depth` long, `panel` was packed, and `to` has room for [`SUMS`] elements.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile(w: &[*const f32; HIGH], depth: usize, panel: *const f32, to: *mut f32) {
    let (eights, whole) = (depth.div_ceil(8), depth / 8);
    let parts = eights.div_ceil(EIGHTS);
    let part = eights.div_ceil(parts);
    let mut kept = Scratch::<{ 8 * SUMS }>::new();
    let kept = kept.start();
    let last = (parts - 1) * part;
    let eighth = |first: usize, j: usize| Eighth {
        at: first * 8 + j,
        b: panel.wrapping_add((j * eights + first) * WIDE),
        count: part.min(whole + usize::from(j < depth % 8) - first),
        from: (first > 0).then_some(kept.wrapping_add(j * SUMS)),
        // `dots` adds 0 where the last eight has no term: a sum of minus 0 becomes 0
        add_zero: first == last && whole < eights && j >= depth % 8,
    };
    for first in (0..last).step_by(part) {
        for j in 0..8 {
            // SAFETY: the caller's promise; sums are there from the second part on.
            unsafe { eighth(first, j).run(w, [], kept.wrapping_add(j * SUMS)) };
        }
    }
    // the tree: ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7))
    let sums = |j: usize| kept.wrapping_add(j * SUMS);
    // SAFETY: as above; a sum that is added was written before.
    unsafe {
        eighth(last, 0).run(w, [], sums(0));
        eighth(last, 4).run(w, [sums(0)], sums(0));
        eighth(last, 2).run(w, [], sums(2));
        eighth(last, 6).run(w, [sums(2), sums(0)], sums(0));
        eighth(last, 1).run(w, [], sums(1));
        eighth(last, 5).run(w, [sums(1)], sums(1));
        eighth(last, 3).run(w, [], sums(3));
        eighth(last, 7).run(w, [sums(3), sums(1), sums(0)], to);
    }
}

/// Every eighth term of a tile's sums.
struct Eighth {
    /// Where the first one is in the rows of weights.
    at: usize,
    b: *const f32,
    count: usize,
    /// What they are added to, if not to nothing.
    from: Option<*mut f32>,
    add_zero: bool,
}

impl Eighth {
    /// Writes the sums, plus others.
    ///
    /// # Safety
    /// The terms can be read; `from`, `others` and `to` have [`SUMS`] elements, and begin with a vector.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn run<const N: usize>(
        self,
        w: &[*const f32; HIGH],
        others: [*mut f32; N],
        to: *mut f32,
    ) {
        let mut sums = [[_mm256_setzero_ps(); 2]; HIGH];
        if let Some(from) = self.from {
            for r in 0..HIGH {
                for v in 0..2 {
                    // SAFETY: the caller's promise.
                    sums[r][v] = unsafe { _mm256_load_ps(from.add(r * WIDE + 8 * v)) };
                }
            }
        }
        let (mut at, mut b, mut left) = (self.at, self.b, self.count);
        while left >= 4 {
            for _ in 0..4 {
                // SAFETY: the caller's promise.
                unsafe { term(w, at, b, &mut sums) };
                (at, b) = (at + 8, b.wrapping_add(WIDE));
            }
            left -= 4;
        }
        for _ in 0..left {
            // SAFETY: the caller's promise.
            unsafe { term(w, at, b, &mut sums) };
            (at, b) = (at + 8, b.wrapping_add(WIDE));
        }
        for r in 0..HIGH {
            for v in 0..2 {
                let mut sum = sums[r][v];
                if self.add_zero {
                    sum = _mm256_add_ps(sum, _mm256_setzero_ps());
                }
                let place = r * WIDE + 8 * v;
                // SAFETY: the caller's promise.
                unsafe {
                    for other in others {
                        sum = _mm256_add_ps(_mm256_load_ps(other.add(place)), sum);
                    }
                    _mm256_store_ps(to.add(place), sum);
                }
            }
        }
    }
}

/// One term of a tile's sums.
///
/// # Safety
/// Element `at` of the rows, and sixteen lanes of `b`, can be read.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn term(w: &[*const f32; HIGH], at: usize, b: *const f32, sums: &mut [[__m256; 2]; HIGH]) {
    let mut lanes = [_mm256_setzero_ps(); 2];
    for v in 0..2 {
        // SAFETY: the caller's promise.
        lanes[v] = unsafe { _mm256_loadu_ps(b.add(8 * v)) };
    }
    for r in 0..HIGH {
        // SAFETY: the caller's promise.
        let x = unsafe { _mm256_broadcast_ss(&*w[r].add(at)) };
        for v in 0..2 {
            sums[r][v] = _mm256_fmadd_ps(x, lanes[v], sums[r][v]);
        }
    }
}
