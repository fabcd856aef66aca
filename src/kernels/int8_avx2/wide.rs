//! Inner loops of 512 bits, with AVX-512's sums of products (VNNI): one instruction multiplies, adds and broadcasts where AVX2 takes three. What they
//! read is in the order that AVX2's loops read it in, and the sums go where theirs go; in whatever order integers are added, modulo
//! 2^32 the bits are the same.

use super::super::Window;
use super::super::simd::ran_wide;
use super::super::strip::Pixels;
use super::conv::{Sizes, Target};
use super::dense::{AHEAD, Four, ROWS};
use core::arch::x86_64::*;
use core::mem::MaybeUninit;

/// Pixels at once: so many sums hide how long each takes.
const PIXELS: usize = 8;

/// Bytes of a register.
const STEP: usize = 64;

/// The sixteen biases of a tile, of two vectors.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
#[inline]
fn biases<const T: usize>(to: &Target<T>) -> __m512i {
    let low = _mm512_castsi256_si512(to.lanes[0].bias);
    _mm512_inserti64x4::<1>(low, to.lanes[T - 1].bias)
}

/// Sixteen sums of each pixel as two vectors.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
#[inline]
fn halves<const T: usize>(sums: [__m512i; PIXELS]) -> [[__m256i; T]; PIXELS] {
    let mut both = [[_mm256_setzero_si256(); T]; PIXELS];
    for (both, sum) in both.iter_mut().zip(sums) {
        both[0] = _mm512_castsi512_si256(sum);
        both[T - 1] = _mm512_extracti64x4_epi64::<1>(sum);
    }
    both
}

/// As `conv::part` where `T` is 2: eight pixels at a time, as long as there are so many.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
pub(super) fn conv<const T: usize>(
    pixels: &mut Pixels,
    x: &[i16],
    w: &[i16],
    sizes: Sizes,
    to: &Target<T>,
    y: &mut [i8],
) {
    let Sizes { rows, pitch, pairs } = sizes;
    // what the loops read, and no more
    let w = &w[..rows * pairs * 32];
    let reach = (rows - 1) * pitch + 2 * pairs;
    while let Some(at) = pixels.take::<PIXELS>() {
        ran_wide();
        let start = at.map(|(at, _)| x[at..][..reach].as_ptr());
        let mut sums = [biases(to); PIXELS];
        let mut w = w.as_ptr();
        for row in 0..rows {
            for k in 0..pairs {
                // SAFETY: vectors of 32 elements, of which `w` has `rows pairs`.
                let weights = unsafe { _mm512_loadu_si512(w.cast()) };
                // SAFETY: as above; at the end of the loops this is the end of `w`.
                w = unsafe { w.add(32) };
                for i in 0..PIXELS {
                    // SAFETY: elements `row pitch + 2k` and the next of a slice of `reach`; the largest is `reach - 1`.
                    let pair = unsafe {
                        let pair = start[i].add(row * pitch + 2 * k).cast::<i32>();
                        _mm512_set1_epi32(pair.read_unaligned())
                    };
                    sums[i] = _mm512_dpwssd_epi32(sums[i], weights, pair);
                }
            }
        }
        to.write(at, halves(sums), y);
    }
}

/// As `depthwise::part` where `T` is 2: eight pixels at a time, as long as there are so many.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
pub(super) fn depthwise<const T: usize>(
    pixels: &mut Pixels,
    x: &[i16],
    w: [&[i16]; T],
    pitch: usize,
    g: &Window,
    to: &Target<T>,
    y: &mut [i8],
) {
    let (rows, pairs, c) = (g.kernel[0], g.kernel[1].div_ceil(2), g.in_channels);
    // what the loops read, and no more
    let reach = 2 * ((rows - 1) * pitch + 2 * (pairs - 1) * c) + 32;
    let (low, high) = (
        w[0][..rows * pairs * 16].as_ptr(),
        w[T - 1][..rows * pairs * 16].as_ptr(),
    );
    while let Some(at) = pixels.take::<PIXELS>() {
        ran_wide();
        let start = at.map(|(at, _)| x[at..][..reach].as_ptr());
        let mut sums = [biases(to); PIXELS];
        for row in 0..rows {
            for k in 0..pairs {
                let n = (row * pairs + k) * 16;
                // SAFETY: vector `row pairs + k` of the `rows pairs` of each.
                let weights = unsafe {
                    let low = _mm256_loadu_si256(low.add(n).cast());
                    let high = _mm256_loadu_si256(high.add(n).cast());
                    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
                };
                let from = 2 * (row * pitch + 2 * k * c);
                for i in 0..PIXELS {
                    // SAFETY: elements `from` and 31 more of a slice of `reach`; the largest is `reach - 1`.
                    let x = unsafe { _mm512_loadu_si512(start[i].add(from).cast()) };
                    sums[i] = _mm512_dpwssd_epi32(sums[i], weights, x);
                }
            }
        }
        to.write(at, halves(sums), y);
    }
}

/// A dense layer's input. Its elements get 128 added, so that they are unsigned, and weights are as they lie. The zero point is 128 and
/// `above` then: what it brings is a sum of products, too, and taken off.
pub(super) struct Dense<'a> {
    pub x: &'a [i8],
    pub above: u8,
    /// How far sums are to be shifted to the left.
    pub doubling: u32,
}

impl Dense<'_> {
    /// As `dense::Layer::groups`: the sums of the first rows of `w`, four at a time; all of `to` has been written then. `ABOVE`: `above`
    /// is not zero.
    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    pub(super) fn groups<'a, const ABOVE: bool>(
        &self,
        w: &[i8],
        to: &'a mut [MaybeUninit<Four>],
    ) -> &'a [Four] {
        ran_wide();
        let depth = self.x.len();
        let four = ROWS * depth;
        let doubling = _mm_cvtsi32_si128(self.doubling as i32);
        let whole = &w[..to.len() * four];
        for (to, w) in to.iter_mut().zip(whole.chunks_exact(four)) {
            let mut sums = [_mm512_setzero_si512(); ROWS];
            let mut above = sums;
            for k in (0..depth / STEP * STEP).step_by(STEP) {
                for r in 0..ROWS {
                    // as many bytes as are read here, of rows that follow
                    let ahead = w.as_ptr().wrapping_add(AHEAD + ROWS * k + STEP * r);
                    _mm_prefetch::<_MM_HINT_T0>(ahead);
                }
                self.step::<ABOVE>(w, k, !0, &mut sums, &mut above);
            }
            if !depth.is_multiple_of(STEP) {
                let there = !0 >> (STEP - depth % STEP);
                self.step::<ABOVE>(w, depth / STEP * STEP, there, &mut sums, &mut above);
            }
            let mut four = [_mm256_setzero_si256(); ROWS];
            for r in 0..ROWS {
                let sum = _mm512_sub_epi32(sums[r], above[r]);
                let half = _mm512_extracti64x4_epi64::<1>(sum);
                let sum = _mm256_add_epi32(_mm512_castsi512_si256(sum), half);
                four[r] = _mm256_sll_epi32(sum, doubling);
            }
            to.write(four);
        }
        // SAFETY: the loop has written each one.
        unsafe { to.assume_init_ref() }
    }

    /// Adds the products of elements `k..k + 64`, those that are `there`, with each of four rows.
    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    #[inline]
    fn step<const ABOVE: bool>(
        &self,
        w: &[i8],
        k: usize,
        there: __mmask64,
        sums: &mut [__m512i; ROWS],
        above: &mut [__m512i; ROWS],
    ) {
        // SAFETY: elements that are not there are not read.
        let x = unsafe { _mm512_maskz_loadu_epi8(there, self.x.as_ptr().add(k)) };
        let x = _mm512_xor_si512(x, _mm512_set1_epi8(-128));
        for r in 0..ROWS {
            // SAFETY: as above, of row `r` of the four that begin with `w`. Those that are not there are zeros.
            let w = unsafe {
                let w = w.as_ptr().add(r * self.x.len() + k);
                _mm512_maskz_loadu_epi8(there, w)
            };
            sums[r] = _mm512_dpbusd_epi32(sums[r], x, w);
            if ABOVE {
                let factor = _mm512_set1_epi8(self.above as i8);
                above[r] = _mm512_dpbusd_epi32(above[r], factor, w);
            }
        }
    }
}
