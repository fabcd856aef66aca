//! int8 loops with AVX2: the sums of `scalar` in another order, which for integers modulo 2^32 gives the same bits, and
//! requantization eight lanes at a time, exact for every input.
//!
//! Products are of 16-bit numbers, added in pairs (`vpmaddwd`): an input less its zero point is in -255..=255, a weight in
//! -128..=127, so nothing saturates. (`vpmaddubsw` would.) Weights are packed once a call, on the stack, by the layer: that
//! costs one or two hundredths of the layer's time, and nobody has to keep anything.
//!
//! Each function says whether it took the layer. What it leaves (dilations, layers whose window does not fit the
//! stack buffers, roundings other than two) goes through the portable loops, compiled for AVX2.
#![allow(unsafe_code)] // loads and stores of vectors; every one is inside a slice or behind a slice that is cut to what the loop reads

mod add;
mod conv;
mod dense;
mod depthwise;
mod strip;
#[cfg(test)]
mod tests;

pub(super) use add::add;
pub(super) use conv::conv;
pub(super) use dense::dense;
pub(super) use depthwise::depthwise;

use super::{Requantize, Rounding};
use core::arch::x86_64::*;

/// Fixed-point factors of eight lanes, two roundings.
#[derive(Clone, Copy)]
struct Factors {
    mantissa: __m256i,
    left: __m256i,
    right: __m256i,
    /// `2^right - 1`.
    mask: __m256i,
    /// `(2^right - 1) / 2`.
    half: __m256i,
}

impl Factors {
    #[target_feature(enable = "avx2")]
    #[inline]
    fn new(mantissa: __m256i, shift: __m256i) -> Factors {
        let zero = _mm256_setzero_si256();
        let right = _mm256_max_epi32(_mm256_sub_epi32(zero, shift), zero);
        let one = _mm256_set1_epi32(1);
        let mask = _mm256_sub_epi32(_mm256_sllv_epi32(one, right), one);
        Factors {
            mantissa,
            left: _mm256_max_epi32(shift, zero),
            right,
            mask,
            half: _mm256_srli_epi32(mask, 1),
        }
    }

    /// `fixed_point::requantize` with [`Rounding::Double`], in every lane.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn apply(&self, x: __m256i) -> __m256i {
        let x = _mm256_sllv_epi32(x, self.left);
        // gemmlowp's doubling high multiply: (x m + 2^30) >> 31, of which the low 32 bits count. x = m = i32::MIN, the case that
        // saturates, cannot be: mantissas are not negative.
        let round = _mm256_set1_epi64x(1 << 30);
        let even = _mm256_add_epi64(_mm256_mul_epi32(x, self.mantissa), round);
        let odd = _mm256_mul_epi32(
            _mm256_srli_epi64(x, 32),
            _mm256_srli_epi64(self.mantissa, 32),
        );
        let odd = _mm256_add_epi64(odd, round);
        let (even, odd) = (_mm256_srli_epi64(even, 31), _mm256_slli_epi64(odd, 1));
        let high = _mm256_blend_epi32::<0b1010_1010>(even, odd);
        // gemmlowp's rounding shift: halves away from zero
        let remainder = _mm256_and_si256(high, self.mask);
        let threshold = _mm256_sub_epi32(self.half, _mm256_srai_epi32(high, 31));
        let up = _mm256_cmpgt_epi32(remainder, threshold);
        _mm256_sub_epi32(_mm256_srav_epi32(high, self.right), up)
    }
}

/// From accumulators to outputs, eight lanes.
#[derive(Clone, Copy)]
struct Lanes {
    bias: __m256i,
    factors: Factors,
}

/// Zero point and range of a layer's output.
#[derive(Clone, Copy)]
struct Rails {
    zero_point: __m256i,
    low: __m256i,
    high: __m256i,
}

impl Rails {
    #[target_feature(enable = "avx2")]
    #[inline]
    fn new(zero_point: i32, range: (i32, i32)) -> Rails {
        Rails {
            zero_point: _mm256_set1_epi32(zero_point),
            low: _mm256_set1_epi32(range.0),
            high: _mm256_set1_epi32(range.1),
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn clamp(&self, q: __m256i) -> __m256i {
        let q = _mm256_add_epi32(q, self.zero_point);
        _mm256_min_epi32(_mm256_max_epi32(q, self.low), self.high)
    }
}

impl Lanes {
    /// Channels `first[0]..first[0] + 4` in the lower half, those from `first[1]` on in the upper one. A channel that does
    /// not exist gets the last one's constants.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn new(p: &Requantize, first: [usize; 2]) -> Lanes {
        let last = p.bias.len() - 1;
        let of = |constants: &[i32]| {
            let c = |lane: usize| constants[(first[lane / 4] + lane % 4).min(last)];
            _mm256_setr_epi32(c(0), c(1), c(2), c(3), c(4), c(5), c(6), c(7))
        };
        Lanes {
            bias: of(p.bias),
            factors: Factors::new(of(p.multiplier), of(p.shift)),
        }
    }

    /// [`Requantize::finish`], still 32 bits wide.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn finish(&self, rails: &Rails, sum: __m256i) -> __m256i {
        rails.clamp(self.factors.apply(_mm256_add_epi32(sum, self.bias)))
    }
}

/// Whether [`Lanes::finish`] is [`Requantize::finish`] for this layer, whatever the sum.
fn takes(p: &Requantize) -> bool {
    let is_i8 = |q: i32| (-128..=127).contains(&q);
    let n = p.bias.len();
    p.rounding == Rounding::Double
        && n > 0
        && (p.multiplier.len(), p.shift.len()) == (n, n)
        && is_i8(p.range.0)
        && is_i8(p.range.1)
        && p.multiplier.iter().all(|&m| m >= 0)
        && p.shift.iter().all(|s| (-31..=30).contains(s))
}

/// Sixteen numbers that fit in 8 bits, from 32 bits each, to 8; in the order of `a` and `b` where those hold the
/// elements 0..4, 8..12 and 4..8, 12..16.
#[target_feature(enable = "avx2")]
#[inline]
fn narrow(a: __m256i, b: __m256i) -> __m128i {
    let words = _mm256_packs_epi32(a, b);
    _mm_packs_epi16(
        _mm256_castsi256_si128(words),
        _mm256_extracti128_si256::<1>(words),
    )
}

/// Writes the first `y.len()` of sixteen numbers, 16 at most.
#[target_feature(enable = "avx2")]
#[inline]
fn store(q: __m128i, y: &mut [i8]) {
    if let Ok(y) = <&mut [i8; 16]>::try_from(&mut *y) {
        // SAFETY: `y` is 16 bytes long.
        unsafe { _mm_storeu_si128(y.as_mut_ptr().cast(), q) }
        return;
    }
    if let Ok(y) = <&mut [i8; 8]>::try_from(&mut *y) {
        // SAFETY: `y` is 8 bytes long.
        unsafe { _mm_storel_epi64(y.as_mut_ptr().cast(), q) }
        return;
    }
    let mut all = [0i8; 16];
    // SAFETY: `all` is 16 bytes long.
    unsafe { _mm_storeu_si128(all.as_mut_ptr().cast(), q) }
    y.copy_from_slice(&all[..y.len()]);
}

/// A buffer on the stack that is not cleared before use: up to `N` elements of it, zero.
struct Scratch<const N: usize>(core::mem::MaybeUninit<[i16; N]>);

impl<const N: usize> Scratch<N> {
    #[inline(always)]
    fn new() -> Self {
        Scratch(core::mem::MaybeUninit::uninit())
    }

    /// The first `n` elements, cleared.
    #[inline(always)]
    fn zeroed(&mut self, n: usize) -> &mut [i16] {
        let n = n.min(N);
        let start: *mut i16 = self.0.as_mut_ptr().cast();
        // SAFETY: `n` elements lie inside the array, they are written here before they are read, any bits are an `i16`, and the
        // slice borrows `self`.
        unsafe {
            start.write_bytes(0, n);
            core::slice::from_raw_parts_mut(start, n)
        }
    }
}
