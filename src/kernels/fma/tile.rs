//! The loops everything else is made of: a block of outputs that stays in registers while the sum runs.

#![allow(clippy::needless_range_loop)] // rows and vectors are registers: numbered, in loops that are unrolled

use crate::kernels::Activation;
use core::arch::x86_64::*;

/// Output channels that a panel of packed weights holds.
pub(super) const WIDE: usize = 16;

/// A run of the sum: where it starts behind each row of `a`, where in `b`, and how many terms it has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Segment {
    pub a: usize,
    pub b: usize,
    pub len: usize,
}

/// The two sides of a block of sums, `M` rows by up to 16 lanes: `sum[r][lane] = sum_k a[r][k a_step] b[k b_step + lane]`, over all
/// segments. Offsets and steps count elements.
#[derive(Clone, Copy)]
pub(super) struct Sides<'a, const M: usize> {
    pub a: [*const f32; M],
    pub a_step: usize,
    pub b: *const f32,
    pub b_step: usize,
    pub segments: &'a [Segment],
}

/// Where a block of sums goes, and what happens to it.
#[derive(Clone, Copy)]
pub(super) struct Outcome<'a, const M: usize> {
    pub to: [*mut f32; M],
    /// How many of the rows, the first ones, are written.
    pub rows: usize,
    /// How many lanes are written.
    pub lanes: usize,
    /// What the sums start from; without it what is at `to`.
    pub bias: Option<&'a [f32; WIDE]>,
    pub activation: Activation,
}

/// The first `lanes` of eight.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn mask(lanes: usize) -> __m256i {
    let numbers = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes.min(8) as i32), numbers)
}

/// [`Activation::apply`] in eight lanes. (Of two numbers that do not compare `max` and `min` give the second.)
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn activate(activation: Activation, x: __m256) -> __m256 {
    let zero = _mm256_setzero_ps();
    match activation {
        Activation::None => x,
        Activation::Relu => _mm256_max_ps(zero, x),
        Activation::Relu6 => _mm256_min_ps(_mm256_set1_ps(6.0), _mm256_max_ps(zero, x)),
    }
}

/// A block of sums, `M` rows by `8 V` lanes.
///
/// # Safety
/// Every element of `a` and `b` that the segments name can be read (of `b` only the first `lanes` of a row where `MASKED`), and the
/// first `rows` of `to` can be read and written for `lanes` elements. No element of `to` is an element of `a` or `b`.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) unsafe fn block<const M: usize, const V: usize, const MASKED: bool>(
    sides: &Sides<M>,
    out: &Outcome<M>,
) {
    let mut masks = [_mm256_setzero_si256(); V];
    for (v, m) in masks.iter_mut().enumerate() {
        *m = mask(out.lanes.saturating_sub(8 * v));
    }
    let full = out.lanes >= 8 * V;
    let mut sums = [[_mm256_setzero_ps(); V]; M];
    for r in 0..M {
        for v in 0..V {
            sums[r][v] = match out.bias {
                // SAFETY: `bias` has 16 elements and `8 V` is at most that.
                Some(bias) => unsafe { _mm256_loadu_ps(bias.as_ptr().add(8 * v)) },
                None if r >= out.rows => sums[r][v],
                // SAFETY: the caller's promise about `to`.
                None if full => unsafe { _mm256_loadu_ps(out.to[r].add(8 * v)) },
                // SAFETY: the same; lanes that are not there are not read.
                None => unsafe { _mm256_maskload_ps(out.to[r].wrapping_add(8 * v), masks[v]) },
            };
        }
    }
    for segment in sides.segments {
        let mut at = segment.a;
        let mut b = sides.b.wrapping_add(segment.b);
        for _ in 0..segment.len {
            let mut lanes = [_mm256_setzero_ps(); V];
            for v in 0..V {
                lanes[v] = match MASKED {
                    // SAFETY: the caller's promise about `b`; lanes that are not there are not read.
                    true => unsafe { _mm256_maskload_ps(b.wrapping_add(8 * v), masks[v]) },
                    // SAFETY: the caller's promise about `b`.
                    false => unsafe { _mm256_loadu_ps(b.add(8 * v)) },
                };
            }
            for r in 0..M {
                // SAFETY: the caller's promise about `a`.
                let x = unsafe { _mm256_broadcast_ss(&*sides.a[r].add(at)) };
                for v in 0..V {
                    sums[r][v] = _mm256_fmadd_ps(x, lanes[v], sums[r][v]);
                }
            }
            at += sides.a_step;
            b = b.wrapping_add(sides.b_step);
        }
    }
    for r in 0..M {
        if r >= out.rows {
            continue;
        }
        for v in 0..V {
            let y = activate(out.activation, sums[r][v]);
            match full {
                // SAFETY: the caller's promise about `to`.
                true => unsafe { _mm256_storeu_ps(out.to[r].add(8 * v), y) },
                // SAFETY: the same; lanes that are not there are not written.
                false => unsafe { _mm256_maskstore_ps(out.to[r].wrapping_add(8 * v), masks[v], y) },
            }
        }
    }
}

/// `sum[r][c] = sum_k a[r][k] b[c][k]` over all segments, eight terms at a time, for results with too few channels to fill lanes.
///
/// # Safety
/// Every element of `a` and `b` that the segments name can be read.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) unsafe fn dots<const M: usize, const C: usize>(
    a: &[*const f32; M],
    b: &[*const f32; C],
    segments: &[Segment],
) -> [[f32; C]; M] {
    let mut sums = [[_mm256_setzero_ps(); C]; M];
    for segment in segments {
        let whole = segment.len / 8 * 8;
        let mut k = 0;
        while k < whole {
            let mut y = [_mm256_setzero_ps(); C];
            for c in 0..C {
                // SAFETY: inside the segment.
                y[c] = unsafe { _mm256_loadu_ps(b[c].add(segment.b + k)) };
            }
            for r in 0..M {
                // SAFETY: inside the segment.
                let x = unsafe { _mm256_loadu_ps(a[r].add(segment.a + k)) };
                for c in 0..C {
                    sums[r][c] = _mm256_fmadd_ps(x, y[c], sums[r][c]);
                }
            }
            k += 8;
        }
        if whole < segment.len {
            let m = mask(segment.len - whole);
            let mut y = [_mm256_setzero_ps(); C];
            for c in 0..C {
                // SAFETY: inside the segment, as the mask has it.
                y[c] = unsafe { _mm256_maskload_ps(b[c].add(segment.b + k), m) };
            }
            for r in 0..M {
                // SAFETY: inside the segment, as the mask has it.
                let x = unsafe { _mm256_maskload_ps(a[r].add(segment.a + k), m) };
                for c in 0..C {
                    sums[r][c] = _mm256_fmadd_ps(x, y[c], sums[r][c]);
                }
            }
        }
    }
    let mut out = [[0.0; C]; M];
    for c in 0..C {
        let fours = M / 4 * 4;
        for r in (0..fours).step_by(4) {
            let mut four = [0.0; 4];
            let sums = sum_4([0, 1, 2, 3].map(|i| sums[r + i][c]));
            // SAFETY: four elements.
            unsafe { _mm_storeu_ps(four.as_mut_ptr(), sums) };
            for i in 0..4 {
                out[r + i][c] = four[i];
            }
        }
        for r in fours..M {
            out[r][c] = sum(sums[r][c]);
        }
    }
    out
}

/// [`sum`] of four at once, to the bit.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn sum_4(x: [__m256; 4]) -> __m128 {
    // of two: lanes 0 to 3 of the first and 4 to 7 of the second, each plus its opposite
    let halves = |a, b| {
        let (straight, crossed) = (
            _mm256_blend_ps::<0xf0>(a, b),
            _mm256_permute2f128_ps::<0x21>(a, b),
        );
        _mm256_add_ps(straight, crossed)
    };
    let (ab, cd) = (halves(x[0], x[1]), halves(x[2], x[3]));
    let pairs = _mm256_add_ps(_mm256_unpacklo_ps(ab, cd), _mm256_unpackhi_ps(ab, cd));
    // a, c, a, c and b, d, b, d
    let (ac, bd) = (
        _mm256_castps256_ps128(pairs),
        _mm256_extractf128_ps::<1>(pairs),
    );
    _mm_add_ps(_mm_unpacklo_ps(ac, bd), _mm_unpackhi_ps(ac, bd))
}

/// The sum of eight lanes, as a tree.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn sum(x: __m256) -> f32 {
    let half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
    _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
}

/// Rows as columns.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn transpose(rows: [__m256; 8]) -> [__m256; 8] {
    let mut pairs = rows;
    for i in 0..4 {
        pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    let mut fours = pairs;
    for i in 0..2 {
        let [a, b, c, d] = [0, 1, 2, 3].map(|k| pairs[4 * i + k]);
        fours[4 * i] = _mm256_shuffle_ps::<0x44>(a, c);
        fours[4 * i + 1] = _mm256_shuffle_ps::<0xee>(a, c);
        fours[4 * i + 2] = _mm256_shuffle_ps::<0x44>(b, d);
        fours[4 * i + 3] = _mm256_shuffle_ps::<0xee>(b, d);
    }
    let mut columns = fours;
    for i in 0..4 {
        columns[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
        columns[i + 4] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
    }
    columns
}

/// A buffer on the stack that is not cleared: whoever reads an element has written it. It begins with a cache line, so that vectors in
/// it cross none.
#[repr(align(64))]
pub(super) struct Scratch<const N: usize>(core::mem::MaybeUninit<[f32; N]>);

impl<const N: usize> Scratch<N> {
    #[inline(always)]
    pub fn new() -> Self {
        Scratch(core::mem::MaybeUninit::uninit())
    }

    /// Its first element.
    #[inline(always)]
    pub fn start(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }
}
