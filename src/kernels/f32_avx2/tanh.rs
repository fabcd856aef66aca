//! The hyperbolic tangent: the steps of libm's `tanhf` and `expm1f` (FreeBSD's msun), which choose between formulas by the argument.
//! Here all of them are computed, and each lane takes its own.

use super::super::scalar::elementwise as scalar;
use core::arch::x86_64::*;

/// The upper part of ln 2, so short that its product with an exponent is exact, and what is left.
pub(in super::super) const LN2: [f32; 2] = [0.693_138_1, 9.058_001e-6];
pub(in super::super) const INVERSE_LN2: f32 = core::f32::consts::LOG2_E;
/// `r(z) = 1 + z (Q[0] + z Q[1])`, of the square of the reduced argument.
pub(in super::super) const Q: [f32; 2] = [-3.333_321_2e-2, 1.580_717e-3];

/// Where formulas change, as bits of the magnitude: log(3) / 2, log(5/3) / 2, 10, and the least normal number.
pub(in super::super) const LARGE: i32 = 0x3f0c_9f54;
pub(in super::super) const MIDDLE: i32 = 0x3e82_c578;
pub(in super::super) const TEN: i32 = 0x4120_0000;
pub(in super::super) const NORMAL: i32 = 0x0080_0000;
/// Of the exponential's argument: ln(2) / 2, 3 ln(2) / 2, and 2^-25.
pub(in super::super) const REDUCED: i32 = 0x3eb1_7218;
pub(in super::super) const ONE_STEP: i32 = 0x3f85_1592;
pub(in super::super) const NEGLIGIBLE: i32 = 0x3300_0000;

/// `y = tanh(x)`.
#[target_feature(enable = "avx2")]
pub(in super::super) fn tanh(x: &[f32], y: &mut [f32]) {
    if cfg!(feature = "micromath") {
        return scalar::tanh_f32(x, y);
    }
    let (x, x_rest) = x.as_chunks::<8>();
    let (y, y_rest) = y.as_chunks_mut::<8>();
    for (y, x) in y.iter_mut().zip(x) {
        // SAFETY: both are eight elements.
        unsafe { _mm256_storeu_ps(y.as_mut_ptr(), eight(_mm256_loadu_ps(x.as_ptr()))) };
    }
    scalar::tanh_f32(x_rest, y_rest);
}

/// Whether the bits of magnitudes, as integers, are above a limit.
#[target_feature(enable = "avx2")]
#[inline]
fn above(magnitude: __m256, limit: i32) -> __m256 {
    let bits = _mm256_castps_si256(magnitude);
    _mm256_castsi256_ps(_mm256_cmpgt_epi32(bits, _mm256_set1_epi32(limit)))
}

/// `of` in the lanes of `lanes`, in the others `otherwise`.
#[target_feature(enable = "avx2")]
#[inline]
fn choose(lanes: __m256, of: __m256, otherwise: __m256) -> __m256 {
    _mm256_blendv_ps(otherwise, of, lanes)
}

#[target_feature(enable = "avx2")]
#[inline]
fn eight(x: __m256) -> __m256 {
    let (one, two) = (_mm256_set1_ps(1.0), _mm256_set1_ps(2.0));
    let minus = _mm256_set1_ps(-0.0);
    let sign = _mm256_and_ps(x, minus);
    let x = _mm256_xor_ps(x, sign);
    let (large, middle) = (above(x, LARGE), above(x, MIDDLE));
    // near zero e^(-2x) is taken; beyond ten, where the result is 1, an argument that is in range
    let flip = _mm256_andnot_ps(middle, minus);
    let double = _mm256_mul_ps(two, choose(above(x, TEN), one, x));
    let e = exponential_less_one(_mm256_xor_ps(double, flip), double);
    let top = choose(large, two, _mm256_xor_ps(e, flip));
    let ratio = _mm256_div_ps(top, _mm256_add_ps(e, two));
    let y = choose(large, _mm256_sub_ps(one, ratio), ratio);
    let y = choose(above(x, TEN), one, y);
    let y = choose(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x), _mm256_add_ps(x, x), y);
    let y = choose(above(x, NORMAL - 1), y, x);
    _mm256_xor_ps(y, sign)
}

/// `e^a - 1` for `a` from -0.52 to 20; `size` is its magnitude.
#[target_feature(enable = "avx2")]
#[inline]
fn exponential_less_one(a: __m256, size: __m256) -> __m256 {
    let [half, one, two] = [0.5, 1.0, 2.0].map(|v| _mm256_set1_ps(v));
    let sign = _mm256_and_ps(a, _mm256_set1_ps(-0.0));
    // a = k ln 2 + x, with what x lacks in c
    let nearest = _mm256_add_ps(_mm256_mul_ps(_mm256_set1_ps(INVERSE_LN2), a), half);
    let nearest = _mm256_round_ps::<{ _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC }>(nearest);
    let k = choose(above(size, ONE_STEP - 1), nearest, _mm256_or_ps(one, sign));
    let k = _mm256_and_ps(k, above(size, REDUCED));
    let high = _mm256_sub_ps(a, _mm256_mul_ps(k, _mm256_set1_ps(LN2[0])));
    let low = _mm256_mul_ps(k, _mm256_set1_ps(LN2[1]));
    let x = _mm256_sub_ps(high, low);
    let c = _mm256_sub_ps(_mm256_sub_ps(high, x), low);
    // the primary range
    let hfx = _mm256_mul_ps(half, x);
    let hxs = _mm256_mul_ps(x, hfx);
    let r = _mm256_mul_ps(hxs, _mm256_set1_ps(Q[1]));
    let r = _mm256_mul_ps(hxs, _mm256_add_ps(_mm256_set1_ps(Q[0]), r));
    let r = _mm256_add_ps(one, r);
    let t = _mm256_sub_ps(_mm256_set1_ps(3.0), _mm256_mul_ps(r, hfx));
    let below = _mm256_sub_ps(_mm256_set1_ps(6.0), _mm256_mul_ps(x, t));
    let e = _mm256_mul_ps(hxs, _mm256_div_ps(_mm256_sub_ps(r, t), below));
    let at_0 = _mm256_sub_ps(x, _mm256_sub_ps(_mm256_mul_ps(x, e), hxs));
    let e = _mm256_sub_ps(_mm256_mul_ps(x, _mm256_sub_ps(e, c)), c);
    let e = _mm256_sub_ps(e, hxs);
    let rest = _mm256_sub_ps(x, e);
    // one formula for each k
    let below_0 = _mm256_sub_ps(_mm256_mul_ps(half, rest), half);
    let low_1 = _mm256_sub_ps(e, _mm256_add_ps(x, half));
    let low_1 = _mm256_mul_ps(_mm256_set1_ps(-2.0), low_1);
    let high_1 = _mm256_add_ps(one, _mm256_mul_ps(two, rest));
    let at_1 = _mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_set1_ps(-0.25));
    let at_1 = choose(at_1, low_1, high_1);
    let exponent = _mm256_slli_epi32::<23>(_mm256_cvttps_epi32(k));
    let bias = _mm256_castps_si256(one);
    let power = _mm256_castsi256_ps(_mm256_add_epi32(bias, exponent));
    let inverse = _mm256_castsi256_ps(_mm256_sub_epi32(bias, exponent));
    let small = _mm256_add_ps(rest, _mm256_sub_ps(one, inverse));
    let great = _mm256_add_ps(_mm256_sub_ps(x, _mm256_add_ps(e, inverse)), one);
    let is_small = _mm256_cmp_ps::<_CMP_LT_OQ>(k, _mm256_set1_ps(23.0));
    let more = _mm256_mul_ps(choose(is_small, small, great), power);
    let y = choose(_mm256_cmp_ps::<_CMP_EQ_OQ>(k, one), at_1, more);
    let y = choose(
        _mm256_cmp_ps::<_CMP_LT_OQ>(k, _mm256_setzero_ps()),
        below_0,
        y,
    );
    let y = choose(above(size, REDUCED), y, at_0);
    choose(above(size, NEGLIGIBLE - 1), y, a)
}
