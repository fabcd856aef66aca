//! Inner loops with AVX-512: a register holds the sixteen lanes that AVX2 has in two. Every lane is an output of its own, and its terms come in
//! the same order, so the bits are the same; what has eight lanes to the sum has those of two samples in a register (dense layers forward) or of
//! two places (`dots`). (Where several numbers of a sum are not-a-number, which of them is left may differ.)

#![allow(clippy::needless_range_loop)] // rows are registers: numbered, in loops that are unrolled

use super::gemm::Tile;
use super::tile::{Outcome, Rails, Segment, Sides};
use super::winograd::Transforms;
use crate::kernels::f32x8::F8;
use crate::kernels::simd::ran_wide;
use crate::kernels::{Activation, DenseF32};
use core::arch::x86_64::*;

/// The first `lanes` of sixteen, all or none.
fn first(lanes: usize) -> __mmask16 {
    ((1_u32 << lanes.min(16)) - 1) as __mmask16
}

/// [`Activation::apply`] in sixteen lanes.
#[target_feature(enable = "avx512vl")]
#[inline]
fn activate(activation: Activation, x: __m512) -> __m512 {
    // a choice that compilers take out of loops: with limits in registers, as `rails`, small blocks take a tenth longer
    let zero = _mm512_setzero_ps();
    match activation {
        Activation::None => x,
        Activation::Relu => _mm512_max_ps(zero, x),
        Activation::Relu6 => _mm512_min_ps(_mm512_set1_ps(6.0), _mm512_max_ps(zero, x)),
    }
}

/// The lanes of `P` panels that are there.
fn panels<const P: usize>(lanes: usize) -> [__mmask16; P] {
    core::array::from_fn(|p| first(lanes.saturating_sub(16 * p)))
}

/// As `tile::block` where `V` is `2 P`, masked or not.
///
/// # Safety
/// As `tile::block`.
#[target_feature(enable = "avx512vl")]
pub(super) unsafe fn block<const M: usize, const P: usize>(sides: &Sides<M>, out: &Outcome<M>) {
    ran_wide();
    let there = panels::<P>(out.lanes);
    let mut sums = [[_mm512_setzero_ps(); P]; M];
    for r in 0..M {
        for p in 0..P {
            let to = out.to[r].wrapping_add(p * out.to_panel);
            sums[r][p] = match out.bias {
                // SAFETY: `bias` has 32 elements.
                Some(bias) => unsafe { _mm512_loadu_ps(bias.as_ptr().add(16 * p)) },
                None if r >= out.rows => sums[r][p],
                // SAFETY: the caller's promise about `to`; lanes that are not there are not read.
                None => unsafe { _mm512_maskz_loadu_ps(there[p], to) },
            };
        }
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
        for p in 0..P {
            let y = activate(out.activation, sums[r][p]);
            let to = out.to[r].wrapping_add(p * out.to_panel);
            // SAFETY: the caller's promise about `to`; lanes that are not there are not written.
            unsafe { _mm512_mask_storeu_ps(to, there[p], y) };
        }
    }
}

/// Adds all terms to a block's sums.
///
/// # Safety
/// As [`block`].
#[target_feature(enable = "avx512vl")]
#[inline]
unsafe fn terms<const M: usize, const P: usize>(
    sides: &Sides<M>,
    a_step: usize,
    there: [__mmask16; P],
    mut sums: [[__m512; P]; M],
) -> [[__m512; P]; M] {
    for segment in sides.segments {
        let mut at = segment.a;
        let mut b = sides.b.wrapping_add(segment.b);
        for _ in 0..segment.len {
            let mut lanes = [_mm512_setzero_ps(); P];
            for p in 0..P {
                let b = b.wrapping_add(p * sides.b_panel);
                // SAFETY: the caller's promise about `b`; lanes that are not there are not read.
                lanes[p] = unsafe { _mm512_maskz_loadu_ps(there[p], b) };
            }
            for r in 0..M {
                // SAFETY: the caller's promise about `a`.
                let x = unsafe { _mm512_set1_ps(*sides.a[r].add(at)) };
                for p in 0..P {
                    sums[r][p] = _mm512_fmadd_ps(x, lanes[p], sums[r][p]);
                }
            }
            at += a_step;
            b = b.wrapping_add(sides.b_step);
        }
    }
    sums
}

/// As [`Tile::add`], of one or two tiles of `high` rows, one behind the other, and one or two panels, which `packs` says are not packed
/// yet.
///
/// # Safety
/// As [`Tile::add`], for all rows and lanes of them; `high` is 4 or 6, and what packs has two whole panels.
pub(super) unsafe fn add_tile(tile: &Tile, high: usize, two: bool, packs: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        match (high, two, tile.lanes > 16) {
            (6, true, _) if packs => add::<6, 2, 2, true>(tile),
            (6, true, true) => add::<6, 2, 2, false>(tile),
            (6, true, false) => add::<6, 2, 1, false>(tile),
            (6, false, _) if packs => add::<6, 1, 2, true>(tile),
            (6, false, true) => add::<6, 1, 2, false>(tile),
            (6, false, false) => add::<6, 1, 1, false>(tile),
            _ if packs => add::<4, 1, 2, true>(tile),
            (_, _, true) => add::<4, 1, 2, false>(tile),
            _ => add::<4, 1, 1, false>(tile),
        }
    }
}

/// As [`Tile::add`], of `T` tiles with `M` rows each, one behind the other, and `P` panels.
///
/// # Safety
/// As [`Tile::add`], for rows and lanes of all of them.
#[target_feature(enable = "avx512vl")]
unsafe fn add<const M: usize, const T: usize, const P: usize, const PACK: bool>(tile: &Tile) {
    ran_wide();
    let there = panels::<P>(tile.lanes);
    let mut sums = [[[_mm512_setzero_ps(); P]; M]; T];
    for (r, sums) in sums.as_flattened_mut().iter_mut().enumerate() {
        let at = tile.to.wrapping_add(r * tile.row);
        // the same lanes of the next rows, as `Tile::add`
        let next = at.wrapping_add(M * T * tile.row);
        for p in 0..P {
            if r < tile.rows && tile.adds {
                // SAFETY: the caller's promise; lanes that are not there are not read.
                sums[p] = unsafe { _mm512_maskz_loadu_ps(there[p], at.wrapping_add(16 * p)) };
            }
            _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(16 * p).cast());
        }
        _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(16 * P - 1).cast());
    }
    let (mut a, mut b, mut from) = (tile.a, tile.b, tile.from);
    for _ in 0..tile.terms {
        let mut lanes = [_mm512_setzero_ps(); P];
        for p in 0..P {
            let at = b.wrapping_add(p * 16 * tile.terms);
            // SAFETY: terms that were packed, of sixteen lanes, panel behind panel, or are packed here.
            unsafe {
                if PACK {
                    lanes[p] = _mm512_loadu_ps(from.add(16 * p));
                    _mm512_storeu_ps(at, lanes[p]);
                } else {
                    lanes[p] = _mm512_loadu_ps(at);
                }
            }
        }
        for t in 0..T {
            for r in 0..M {
                // SAFETY: terms that were packed, tile behind tile.
                let x = unsafe { _mm512_set1_ps(*a.add(t * M * tile.terms + r)) };
                for p in 0..P {
                    sums[t][r][p] = _mm512_fmadd_ps(x, lanes[p], sums[t][r][p]);
                }
            }
        }
        (a, b) = (a.wrapping_add(M), b.wrapping_add(16));
        from = from.wrapping_add(tile.row);
    }
    for (r, sums) in sums.as_flattened().iter().enumerate().take(tile.rows) {
        let at = tile.to.wrapping_add(r * tile.row);
        for p in 0..P {
            // SAFETY: the caller's promise; lanes that are not there are not written.
            unsafe { _mm512_mask_storeu_ps(at.wrapping_add(16 * p), there[p], sums[p]) };
        }
    }
}

/// As `product` in `winograd`, where `V` is 2, of `P` panels `b_panel` elements apart, to products `to_panel` apart.
///
/// # Safety
/// As there, for all panels.
#[target_feature(enable = "avx512vl")]
pub(super) unsafe fn product<F: Transforms, const M: usize, const P: usize>(
    channels: usize,
    a: *const f32,
    (b, b_panel): (*const f32, usize),
    (to, to_panel): (*mut f32, usize),
) {
    ran_wide();
    let mut sums = [[_mm512_setzero_ps(); P]; M];
    let (mut a, mut b, row) = (a, b, F::tile_pitch(channels));
    for _ in 0..channels / 8 {
        for k in 0..8 {
            let mut lanes = [_mm512_setzero_ps(); P];
            for p in 0..P {
                // SAFETY: the caller's promise.
                lanes[p] = unsafe { _mm512_loadu_ps(b.add(p * b_panel + 16 * k)) };
            }
            for r in 0..M {
                // SAFETY: the caller's promise.
                let x = unsafe { _mm512_set1_ps(*a.add(r * row + k)) };
                for p in 0..P {
                    sums[r][p] = _mm512_fmadd_ps(x, lanes[p], sums[r][p]);
                }
            }
        }
        (a, b) = (a.wrapping_add(F::BLOCK), b.wrapping_add(8 * 16));
    }
    for r in 0..M {
        for p in 0..P {
            let to = to.wrapping_add(p * to_panel + 2 * r * F::BLOCK);
            let high = _mm512_castps_pd(sums[r][p]);
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(high));
            // SAFETY: the caller's promise.
            unsafe {
                _mm256_storeu_ps(to, _mm512_castps512_ps256(sums[r][p]));
                _mm256_storeu_ps(to.add(F::BLOCK), high);
            }
        }
    }
}

/// As `product` in `winograd`, where `V` is 1, of two points side by side: a register holds eight filters of both. `pitch` is from a point's
/// weights to the next one's.
///
/// # Safety
/// As there, for both points.
#[target_feature(enable = "avx512vl")]
pub(super) unsafe fn product_of_points<F: Transforms, const M: usize>(
    channels: usize,
    a: *const f32,
    (b, pitch): (*const f32, usize),
    to: *mut f32,
) {
    ran_wide();
    let mut sums = [_mm512_setzero_ps(); M];
    let (mut a, mut b, row) = (a, b, F::tile_pitch(channels));
    for _ in 0..channels / 8 {
        for four in 0..2 {
            // four channels of a point twice, and of the next
            let mut pixels = [_mm512_setzero_ps(); M];
            for r in 0..M {
                // SAFETY: the caller's promise: eight channels of a point, and of the next.
                let both = unsafe { _mm512_loadu_ps(a.add(r * row)) };
                pixels[r] = match four {
                    0 => _mm512_shuffle_f32x4::<0b10_10_00_00>(both, both),
                    _ => _mm512_shuffle_f32x4::<0b11_11_01_01>(both, both),
                };
            }
            for k in 0..4 {
                // SAFETY: the caller's promise.
                let lanes = unsafe {
                    let b = b.add(8 * (4 * four + k));
                    let first = _mm512_castps256_ps512(_mm256_loadu_ps(b));
                    let second = _mm256_castps_pd(_mm256_loadu_ps(b.add(pitch)));
                    _mm512_castpd_ps(_mm512_insertf64x4::<1>(_mm512_castps_pd(first), second))
                };
                for r in 0..M {
                    let x = match k {
                        0 => _mm512_permute_ps::<0b00_00_00_00>(pixels[r]),
                        1 => _mm512_permute_ps::<0b01_01_01_01>(pixels[r]),
                        2 => _mm512_permute_ps::<0b10_10_10_10>(pixels[r]),
                        _ => _mm512_permute_ps::<0b11_11_11_11>(pixels[r]),
                    };
                    sums[r] = _mm512_fmadd_ps(x, lanes, sums[r]);
                }
            }
        }
        (a, b) = (a.wrapping_add(F::BLOCK), b.wrapping_add(8 * 8));
    }
    for r in 0..M {
        // SAFETY: the caller's promise: points lie side by side.
        unsafe { _mm512_storeu_ps(to.add(r * F::BLOCK), sums[r]) };
    }
}

/// As `tile` in `dense`, of `M` filters, four or eight, and `C` pairs of samples: a register holds eight lanes of both. `x` is packed.
///
/// # Safety
/// The samples and filters exist, and `depth` is a multiple of eight.
#[target_feature(enable = "avx512vl")]
pub(super) unsafe fn dense<const M: usize, const C: usize>(
    p: &DenseF32,
    x: *const f32,
    [n, o]: [usize; 2],
    y: &mut [f32],
) -> usize {
    ran_wide();
    let mut w = [p.w.as_ptr(); M];
    for r in 0..M {
        w[r] = w[r].wrapping_add((o + r) * p.depth);
    }
    let mut sums = [[_mm512_setzero_ps(); M]; C];
    let (mut x, rails) = (x, Rails::new(p.activation));
    for k in (0..p.depth).step_by(8) {
        let mut pairs = [_mm512_setzero_ps(); C];
        for c in 0..C {
            // SAFETY: eight terms of two samples.
            pairs[c] = unsafe { _mm512_loadu_ps(x.add(16 * c)) };
        }
        for r in 0..M {
            // SAFETY: eight terms of a filter.
            let eight = unsafe { _mm256_loadu_ps(w[r].add(k)) };
            let eight = _mm512_broadcast_f64x4(_mm256_castps_pd(eight));
            for c in 0..C {
                sums[c][r] = _mm512_fmadd_ps(_mm512_castpd_ps(eight), pairs[c], sums[c][r]);
            }
        }
        x = x.wrapping_add(16 * C);
    }
    let outputs = p.bias.len();
    let to = y.as_mut_ptr().wrapping_add(n * outputs + o);
    for r in (0..M).step_by(4) {
        // SAFETY: four filters.
        let bias = unsafe { _mm_loadu_ps(p.bias.as_ptr().add(o + r)) };
        let bias = _mm256_set_m128(bias, bias);
        for c in 0..C {
            let sums = [sums[c][r], sums[c][r + 1], sums[c][r + 2], sums[c][r + 3]];
            let sums = rails
                .clamp(F8::from(_mm256_add_ps(sum_4(sums), bias)))
                .into();
            let to = to.wrapping_add(2 * c * outputs + r);
            // SAFETY: what these filters give for two samples.
            unsafe {
                _mm_storeu_ps(to, _mm256_castps256_ps128(sums));
                _mm_storeu_ps(to.add(outputs), _mm256_extractf128_ps::<1>(sums));
            }
        }
    }
    M
}

/// As `tile::dots`, of eight rows, two in a register, up to four channels and segments of whole eights.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx512vl")]
pub(super) unsafe fn dots<const M: usize, const C: usize>(
    a: &[*const f32; M],
    b: &[*const f32; C],
    segments: &[Segment],
) -> [[f32; C]; M] {
    ran_wide();
    let mut sums = [[_mm512_setzero_ps(); 4]; 4];
    for segment in segments {
        for k in (0..segment.len).step_by(8) {
            let mut eights = [_mm512_setzero_pd(); C];
            for c in 0..C {
                // SAFETY: inside the segment.
                let eight = unsafe { _mm256_loadu_ps(b[c].add(segment.b + k)) };
                eights[c] = _mm512_broadcast_f64x4(_mm256_castps_pd(eight));
            }
            for r in 0..4 {
                // SAFETY: inside the segment.
                let pair = unsafe {
                    let first = _mm256_loadu_ps(a[2 * r].add(segment.a + k));
                    let second = _mm256_loadu_ps(a[2 * r + 1].add(segment.a + k));
                    let first = _mm512_castps_pd(_mm512_castps256_ps512(first));
                    _mm512_insertf64x4::<1>(first, _mm256_castps_pd(second))
                };
                for c in 0..C {
                    let eight = _mm512_castpd_ps(eights[c]);
                    sums[r][c] = _mm512_fmadd_ps(_mm512_castpd_ps(pair), eight, sums[r][c]);
                }
            }
        }
    }
    let mut out = [[0.0; C]; M];
    for (sums, out) in sums.into_iter().zip(out.as_chunks_mut::<2>().0) {
        let mut four = [[0.0; 4]; 2];
        // SAFETY: eight elements.
        unsafe { _mm256_storeu_ps(four.as_flattened_mut().as_mut_ptr(), sum_4(sums)) };
        for c in 0..C {
            (out[0][c], out[1][c]) = (four[0][c], four[1][c]);
        }
    }
    out
}

/// As [`F8::sum_4`](crate::kernels::f32x8::F8::sum_4), of both halves: the first ones' sums, then the second ones'. (Each instruction takes
/// whole registers: those of AVX2, which take halves, see half of the registers, and then so does the loop before.)
#[target_feature(enable = "avx512vl")]
#[inline]
fn sum_4(x: [__m512; 4]) -> __m256 {
    // a quarter for each half of either: four lanes, each plus its opposite
    let halves = |a: __m512, b: __m512| {
        let first = _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
        let second = _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b);
        _mm512_add_ps(first, second)
    };
    let (ab, cd) = (halves(x[0], x[1]), halves(x[2], x[3]));
    let pairs = _mm512_add_ps(_mm512_unpacklo_ps(ab, cd), _mm512_unpackhi_ps(ab, cd));
    // a, c, a, c for each half, and b, d, b, d
    let ac = _mm512_castps512_ps256(pairs);
    let bd = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(pairs)));
    _mm256_add_ps(_mm256_unpacklo_ps(ac, bd), _mm256_unpackhi_ps(ac, bd))
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
