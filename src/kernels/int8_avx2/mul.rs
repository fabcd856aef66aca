//! Elementwise product of two tensors of one shape.

use super::super::{MulI8, Multiplier, int8_avx512, simd};
use super::add::load;
use super::{Factors, Rails, narrow, store};
use core::arch::x86_64::*;

/// TFLite Micro's integer product, two roundings.
#[target_feature(enable = "avx2")]
pub(in super::super) fn mul(p: &MulI8, y: &mut [i8]) {
    // SAFETY: the CPU has what they need.
    if simd::found().wide_products && unsafe { int8_avx512::mul(p, y) } {
        return;
    }
    let Multiplier { mantissa, shift } = p.output;
    let output = Factors::new(_mm256_set1_epi32(mantissa), _mm256_set1_epi32(shift));
    let zero_points = p.zero_points.map(|z| _mm256_set1_epi32(z));
    let rails = Rails::new(p.zero_point, p.range);
    let product = |a: __m128i, b: __m128i| {
        let a = _mm256_sub_epi32(_mm256_cvtepi8_epi32(a), zero_points[0]);
        let b = _mm256_sub_epi32(_mm256_cvtepi8_epi32(b), zero_points[1]);
        rails.clamp(output.apply(_mm256_mullo_epi32(a, b)))
    };
    let [a, b] = p.x.map(|x| x.chunks(16));
    for ((a, b), y) in a.zip(b).zip(y.chunks_mut(16)) {
        let (a, b) = (load(a), load(b));
        let upper = |v| _mm_unpackhi_epi64(v, v);
        store(narrow(product(a, b), product(upper(a), upper(b))), y);
    }
}
