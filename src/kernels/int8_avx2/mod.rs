//! int8 loops with AVX2: the sums of `scalar` in another order, which for integers modulo 2^32 gives the same bits, and
//! requantization eight lanes at a time, exact for every input.
//!
//! Products are of 16-bit numbers, added in pairs (`vpmaddwd`): an input less its zero point is in -255..=255, a weight in
//! -128..=127, one of them perhaps doubled, so nothing saturates. (`vpmaddubsw` does: `dense` keeps it from that, and `whole` gives back what was lost.) Weights are packed once a session where
//! its buffer has room for them (`kept`), else once a call on the stack.
//!
//! Each function says whether it took the layer. What it leaves (dilations, layers whose window does not fit the
//! stack buffers, roundings other than two) goes through the portable loops, compiled for AVX2.
//!
//! Where the CPU has AVX-512 with VNNI, `int8_avx512` is asked first.
#![allow(unsafe_code)] // loads and stores of vectors; every one is inside a slice or behind a slice that is cut to what the loop reads

mod add;
mod conv;
mod dense;
mod depthwise;
pub(super) mod live;
mod mul;
#[cfg(test)]
mod tests;
pub(super) mod whole;

pub(super) use add::add;
pub(super) use conv::conv;
pub(super) use dense::dense;
pub(super) use depthwise::{depthwise, seen};
pub(super) use mul::mul;

use super::{Requantize, Rounding, strip};
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
        let odd = _mm256_mul_epi32(odd_lanes(x), odd_lanes(self.mantissa));
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

/// What a look at all channels' constants says of a layer.
#[derive(Clone, Copy)]
struct Kind {
    /// All channels have one factor.
    is_uniform: bool,
    /// As nearly every layer: its factors are below one and no sum comes near the limits of an i32. Its weights (or its input) are doubled
    /// on the way, so that the doubling high multiply is the upper half of a product.
    is_plain: bool,
}

impl Kind {
    /// For sums of `depth` products; `None` where these loops leave the layer to others.
    #[target_feature(enable = "avx2")]
    fn of(p: &Requantize, depth: usize) -> Option<Kind> {
        let is_i8 = |q: i32| (-128..=127).contains(&q);
        let n = p.bias.len();
        if n == 0 || (p.multiplier.len(), p.shift.len()) != (n, n) {
            return None;
        }
        // bits that keep a layer from being plain, and those in which factors differ
        let (mut odd, mut differences) = (0, 0);
        for ((&bias, &mantissa), &shift) in p.bias.iter().zip(p.multiplier).zip(p.shift) {
            // a negative mantissa, a shift that is not one to the right by 31 at most, a bias beyond 2^29
            odd |=
                mantissa & i32::MIN | shift.wrapping_neg() & !31 | (bias ^ bias >> 31) & !0 << 29;
            differences |= mantissa ^ p.multiplier[0] | shift ^ p.shift[0];
        }
        let takes = p.rounding == Rounding::Double
            && is_i8(p.range.0)
            && is_i8(p.range.1)
            && (odd == 0
                || p.multiplier.iter().all(|&mantissa| mantissa >= 0)
                    && p.shift.iter().all(|shift| (-31..=30).contains(shift)));
        takes.then(|| Kind {
            is_uniform: differences == 0,
            // as `plain::is_plain`: twice a sum with its bias is an i32
            is_plain: odd == 0 && depth <= 1 << 14 && is_i8(p.zero_point),
        })
    }

    /// How far the products are to be shifted to the left: by doubling one of their factors.
    #[inline(always)]
    fn doubling(self) -> u32 {
        u32::from(self.is_plain)
    }
}

/// From a layer's accumulators to its outputs: [`Requantize::finish`], for whatever sum.
struct Finish {
    kind: Kind,
    rails: Rails,
    /// As 16-bit numbers.
    zero_point: __m256i,
    low: __m128i,
    high: __m128i,
}

/// The constants of eight channels.
#[derive(Clone, Copy)]
struct Lanes {
    /// Where sums begin; doubled in a plain layer.
    bias: __m256i,
    mantissa: __m256i,
    shift: __m256i,
    /// Plain: what is added to the 64-bit products of even and odd lanes, halves of both roundings.
    even: __m256i,
    odd: __m256i,
    /// Plain: the shift that leaves what a negative sum is less by, 1 where the second rounding has a half and 0 where it has none.
    sign: __m256i,
}

impl Finish {
    /// For sums of `depth` products; `None` where these loops leave the layer to others.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn new(p: &Requantize, depth: usize) -> Option<Finish> {
        Some(Finish::of(p, Kind::of(p, depth)?))
    }

    /// Of a layer that has been looked at.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn of(p: &Requantize, kind: Kind) -> Finish {
        Finish {
            kind,
            rails: Rails::new(p.zero_point, p.range),
            zero_point: _mm256_set1_epi16(p.zero_point as i16),
            low: _mm_set1_epi8(p.range.0 as i8),
            high: _mm_set1_epi8(p.range.1 as i8),
        }
    }

    /// As [`Kind::doubling`].
    #[inline(always)]
    fn doubling(&self) -> u32 {
        self.kind.doubling()
    }

    /// Channels `first..first + 8`. One that does not exist gets the last one's constants.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn lanes(&self, p: &Requantize, first: usize) -> Lanes {
        let shift = eight(p.shift, first);
        // gemmlowp's two roundings of a sum s < 2^30: high = (2 s m + 2^31) >> 32, then (high + half - [s < 0]) >> right, or high where right = 0. The
        // second half is added to the upper 32 bits of the product together with the first one.
        let right = _mm256_sub_epi32(_mm256_setzero_si256(), shift);
        let half = _mm256_srli_epi32::<1>(_mm256_sllv_epi32(_mm256_set1_epi32(1), right));
        let first_half = _mm256_set1_epi32(i32::MIN);
        Lanes {
            bias: self.bias(p, first),
            mantissa: eight(p.multiplier, first),
            shift,
            even: _mm256_blend_epi32::<0b1010_1010>(first_half, _mm256_slli_epi64::<32>(half)),
            odd: _mm256_blend_epi32::<0b1010_1010>(first_half, half),
            sign: _mm256_sub_epi32(
                _mm256_set1_epi32(31),
                _mm256_cmpeq_epi32(right, _mm256_setzero_si256()),
            ),
        }
    }

    /// The biases of channels `first..first + 8`, as [`Lanes::bias`].
    #[target_feature(enable = "avx2")]
    #[inline]
    fn bias(&self, p: &Requantize, first: usize) -> __m256i {
        let doubling = _mm_cvtsi32_si128(self.doubling() as i32);
        _mm256_sll_epi32(eight(p.bias, first), doubling)
    }

    /// Sixteen outputs in order from the sums of eight channels each, biases added.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn narrow(&self, lanes: [&Lanes; 2], sums: [__m256i; 2]) -> __m128i {
        match self.kind.is_plain {
            true => self.narrow_plain(lanes, sums),
            false => self.narrow_any(lanes, sums),
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn narrow_plain(&self, lanes: [&Lanes; 2], sums: [__m256i; 2]) -> __m128i {
        let (a, b) = (lanes[0].plain(sums[0]), lanes[1].plain(sums[1]));
        let q = _mm256_adds_epi16(_mm256_packs_epi32(a, b), self.zero_point);
        let q = _mm_packs_epi16(_mm256_castsi256_si128(q), _mm256_extracti128_si256::<1>(q));
        let q = _mm_min_epi8(_mm_max_epi8(q, self.low), self.high);
        _mm_shuffle_epi32::<0b11_01_10_00>(q)
    }

    #[target_feature(enable = "avx2")]
    #[inline(never)]
    fn narrow_any(&self, lanes: [&Lanes; 2], sums: [__m256i; 2]) -> __m128i {
        let (a, b) = (lanes[0].any(sums[0]), lanes[1].any(sums[1]));
        narrow(self.rails.clamp(a), self.rails.clamp(b))
    }
}

impl Lanes {
    /// A plain layer's: `sum` is doubled.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn plain(&self, sum: __m256i) -> __m256i {
        let even = _mm256_mul_epi32(sum, self.mantissa);
        let odd = _mm256_mul_epi32(odd_lanes(sum), odd_lanes(self.mantissa));
        let even = odd_lanes(_mm256_add_epi64(even, self.even));
        let odd = _mm256_add_epi64(odd, self.odd);
        let high = _mm256_blend_epi32::<0b1010_1010>(even, odd);
        let high = _mm256_sub_epi32(high, _mm256_srlv_epi32(sum, self.sign));
        let right = _mm256_sub_epi32(_mm256_setzero_si256(), self.shift);
        _mm256_srav_epi32(high, right)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn any(&self, sum: __m256i) -> __m256i {
        Factors::new(self.mantissa, self.shift).apply(sum)
    }
}

/// Odd lanes in the even ones.
#[target_feature(enable = "avx2")]
#[inline]
fn odd_lanes(x: __m256i) -> __m256i {
    _mm256_shuffle_epi32::<0b11_11_01_01>(x)
}

/// Elements `first..first + 8`; the last one where there are fewer.
#[target_feature(enable = "avx2")]
#[inline]
fn eight(constants: &[i32], first: usize) -> __m256i {
    let mut room = [0; 8];
    let eight = strip::eight(constants, first, &mut room);
    // SAFETY: `eight` is 32 bytes long.
    unsafe { _mm256_loadu_si256(eight.as_ptr().cast()) }
}

/// Sixteen numbers that fit in 8 bits, from 32 bits each, to 8.
#[target_feature(enable = "avx2")]
#[inline]
fn narrow(a: __m256i, b: __m256i) -> __m128i {
    // a0..4 b0..4 | a4..8 b4..8
    let words = _mm256_packs_epi32(a, b);
    let bytes = _mm_packs_epi16(
        _mm256_castsi256_si128(words),
        _mm256_extracti128_si256::<1>(words),
    );
    _mm_shuffle_epi32::<0b11_01_10_00>(bytes)
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
    store_some(q, y);
}

// No part of its callers, which would keep room for it on their stacks, and the numbers in it.
#[target_feature(enable = "avx2")]
#[inline(never)]
fn store_some(q: __m128i, y: &mut [i8]) {
    let mut all = [0i8; 16];
    // SAFETY: `all` is 16 bytes long.
    unsafe { _mm_storeu_si128(all.as_mut_ptr().cast(), q) }
    y.copy_from_slice(&all[..y.len()]);
}
