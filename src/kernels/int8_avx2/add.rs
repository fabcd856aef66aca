//! Elementwise sum of two tensors of one shape.

use super::super::strip::bytes;
use super::super::{AddI8, Multiplier, int8_avx512, simd};
use super::{Factors, Rails, narrow, store};
use core::arch::x86_64::*;

/// TFLite Micro's integer sum, two roundings.
#[target_feature(enable = "avx2")]
pub(in super::super) fn add(p: &AddI8, y: &mut [i8]) {
    // SAFETY: the CPU has what they need.
    if simd::found().wide_products && unsafe { int8_avx512::add(p, y) } {
        return;
    }
    let factors =
        |m: Multiplier| Factors::new(_mm256_set1_epi32(m.mantissa), _mm256_set1_epi32(m.shift));
    let terms = p.factors.map(factors);
    let output = factors(p.output);
    let left = _mm_cvtsi32_si128(p.left_shift as i32);
    let zero_points = p.zero_points.map(|z| _mm256_set1_epi32(z));
    let rails = Rails::new(p.zero_point, p.range);
    let sum = |a: __m128i, b: __m128i| {
        let term = |x: __m128i, i: usize| {
            let x = _mm256_sub_epi32(_mm256_cvtepi8_epi32(x), zero_points[i]);
            terms[i].apply(_mm256_sll_epi32(x, left))
        };
        rails.clamp(output.apply(_mm256_add_epi32(term(a, 0), term(b, 1))))
    };
    for ((a, b), y) in p.x[0]
        .chunks(16)
        .zip(p.x[1].chunks(16))
        .zip(y.chunks_mut(16))
    {
        let (a, b) = (load(a), load(b));
        let upper = |v| _mm_unpackhi_epi64(v, v);
        store(narrow(sum(a, b), sum(upper(a), upper(b))), y);
    }
}

/// Up to sixteen elements, zeros behind them.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn load(x: &[i8]) -> __m128i {
    let mut room = [0; 16];
    let x = bytes(x, &mut room);
    // SAFETY: `x` is 16 bytes long.
    unsafe { _mm_loadu_si128(x.as_ptr().cast()) }
}
