//! Inner loops with AVX-512: a register holds the sixteen lanes that AVX2 has in two. Every lane is an output of its own, and its terms come in
//! the same order, so the bits are the same; what has eight lanes to the sum (`dots`, dense layers forward) is not here.

#![allow(clippy::needless_range_loop)] // rows are registers: numbered, in loops that are unrolled

use super::gemm::Tile;
use super::tile::{Outcome, Sides};
use super::winograd::Transforms;
use crate::kernels::Activation;
use crate::kernels::simd::ran_wide;
use core::arch::x86_64::*;

/// The first `lanes` of sixteen, or all.
fn first(lanes: usize) -> __mmask16 {
    0xffff >> 16_usize.saturating_sub(lanes)
}

/// [`Activation::apply`] in sixteen lanes.
#[target_feature(enable = "avx512vl")]
#[inline]
fn activate(activation: Activation, x: __m512) -> __m512 {
    let zero = _mm512_setzero_ps();
    match activation {
        Activation::None => x,
        Activation::Relu => _mm512_max_ps(zero, x),
        Activation::Relu6 => _mm512_min_ps(_mm512_set1_ps(6.0), _mm512_max_ps(zero, x)),
    }
}

/// As `tile::block` where `V` is 2, masked or not.
///
/// # Safety
/// As `tile::block`.
#[target_feature(enable = "avx512vl")]
pub(super) unsafe fn block<const M: usize>(sides: &Sides<M>, out: &Outcome<M>) {
    ran_wide();
    let there = first(out.lanes);
    let mut sums = [_mm512_setzero_ps(); M];
    for r in 0..M {
        sums[r] = match out.bias {
            // SAFETY: `bias` has 16 elements.
            Some(bias) => unsafe { _mm512_loadu_ps(bias.as_ptr()) },
            None if r >= out.rows => sums[r],
            // SAFETY: the caller's promise about `to`; lanes that are not there are not read.
            None => unsafe { _mm512_maskz_loadu_ps(there, out.to[r]) },
        };
    }
    // with a step that the compiler knows rows need one index, not a pointer each that moves
    // SAFETY: the caller's promise.
    sums = unsafe {
        match sides.a_step {
            1 => terms(sides, 1, there, sums),
            step => terms(sides, step, there, sums),
        }
    };
    for r in 0..M {
        if r >= out.rows {
            continue;
        }
        let y = activate(out.activation, sums[r]);
        // SAFETY: the caller's promise about `to`; lanes that are not there are not written.
        unsafe { _mm512_mask_storeu_ps(out.to[r], there, y) };
    }
}

/// Adds all terms to a block's sums.
///
/// # Safety
/// As [`block`].
#[target_feature(enable = "avx512vl")]
#[inline]
unsafe fn terms<const M: usize>(
    sides: &Sides<M>,
    a_step: usize,
    there: __mmask16,
    mut sums: [__m512; M],
) -> [__m512; M] {
    for segment in sides.segments {
        let mut at = segment.a;
        let mut b = sides.b.wrapping_add(segment.b);
        for _ in 0..segment.len {
            // SAFETY: the caller's promise about `b`; lanes that are not there are not read.
            let lanes = unsafe { _mm512_maskz_loadu_ps(there, b) };
            for r in 0..M {
                // SAFETY: the caller's promise about `a`.
                let x = unsafe { _mm512_set1_ps(*sides.a[r].add(at)) };
                sums[r] = _mm512_fmadd_ps(x, lanes, sums[r]);
            }
            at += a_step;
            b = b.wrapping_add(sides.b_step);
        }
    }
    sums
}

/// As [`Tile::add`], of `T` tiles with `M` rows each, one behind the other.
///
/// # Safety
/// As [`Tile::add`], for rows of all of them.
#[target_feature(enable = "avx512vl")]
pub(super) unsafe fn add<const M: usize, const T: usize>(tile: &Tile) {
    ran_wide();
    let there = first(tile.lanes);
    let mut sums = [[_mm512_setzero_ps(); M]; T];
    for (r, sum) in sums.as_flattened_mut().iter_mut().enumerate() {
        let at = tile.to.wrapping_add(r * tile.row);
        if r < tile.rows && tile.adds {
            // SAFETY: the caller's promise; lanes that are not there are not read.
            *sum = unsafe { _mm512_maskz_loadu_ps(there, at) };
        }
        // the same lanes of the next rows, as `Tile::add`
        let next = at.wrapping_add(M * T * tile.row);
        _mm_prefetch::<_MM_HINT_T0>(next.cast());
        _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(15).cast());
    }
    let (mut a, mut b) = (tile.a, tile.b);
    for _ in 0..tile.terms {
        // SAFETY: terms that were packed, of sixteen lanes.
        let lanes = unsafe { _mm512_loadu_ps(b) };
        for t in 0..T {
            for r in 0..M {
                // SAFETY: terms that were packed, tile behind tile.
                let x = unsafe { _mm512_set1_ps(*a.add(t * M * tile.terms + r)) };
                sums[t][r] = _mm512_fmadd_ps(x, lanes, sums[t][r]);
            }
        }
        (a, b) = (a.wrapping_add(M), b.wrapping_add(16));
    }
    for (r, sum) in sums.as_flattened().iter().enumerate().take(tile.rows) {
        let at = tile.to.wrapping_add(r * tile.row);
        // SAFETY: the caller's promise; lanes that are not there are not written.
        unsafe { _mm512_mask_storeu_ps(at, there, *sum) };
    }
}

/// As `product` in `winograd`, where `V` is 2.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx512vl")]
pub(super) unsafe fn product<F: Transforms, const M: usize>(
    channels: usize,
    a: *const f32,
    b: *const f32,
    to: *mut f32,
) {
    ran_wide();
    let mut sums = [_mm512_setzero_ps(); M];
    let (mut a, mut b, row) = (a, b, F::tile_pitch(channels));
    for _ in 0..channels / 8 {
        for k in 0..8 {
            // SAFETY: the caller's promise.
            let lanes = unsafe { _mm512_loadu_ps(b.add(16 * k)) };
            for r in 0..M {
                // SAFETY: the caller's promise.
                let x = unsafe { _mm512_set1_ps(*a.add(r * row + k)) };
                sums[r] = _mm512_fmadd_ps(x, lanes, sums[r]);
            }
        }
        (a, b) = (a.wrapping_add(F::BLOCK), b.wrapping_add(8 * 16));
    }
    for r in 0..M {
        let to = to.wrapping_add(2 * r * F::BLOCK);
        let high = _mm512_castps_pd(sums[r]);
        let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(high));
        // SAFETY: the caller's promise.
        unsafe {
            _mm256_storeu_ps(to, _mm512_castps512_ps256(sums[r]));
            _mm256_storeu_ps(to.add(F::BLOCK), high);
        }
    }
}

/// As `peak::multiply_adds`, of `N` sums side by side.
#[target_feature(enable = "avx512vl")]
pub(super) fn multiply_adds<const N: usize>(rounds: usize) -> f32 {
    ran_wide();
    let factor = _mm512_set1_ps(core::hint::black_box(0.999));
    let mut sums = [factor; N];
    for (i, sum) in sums.iter_mut().enumerate() {
        // different, so that no two are one
        *sum = _mm512_set1_ps(core::hint::black_box(i as f32));
    }
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, factor, factor);
        }
    }
    let all = sums.into_iter().reduce(|a, b| _mm512_add_ps(a, b));
    all.map_or(0.0, |all| _mm512_cvtss_f32(all))
}
