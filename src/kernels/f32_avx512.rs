//! f32 loops of [`f32_avx2`](super::f32_avx2) with AVX-512: those that divide, since dividers are twice as wide there, and masks of activations,
//! which are registers of their own. The same steps in the same order, to the same bits.
#![allow(unsafe_code)] // loads and stores of vectors

use super::f32_avx2::tanh::{
    INVERSE_LN2, LARGE, LN2, MIDDLE, NEGLIGIBLE, NORMAL, ONE_STEP, Q, REDUCED, TEN,
};
use super::simd::ran_wide;
use super::{Activation, AdamF32};
use core::arch::x86_64::*;
use core::ops::Range;

/// As [`tanh`](super::f32_avx2), of whole sixteens; returns how many elements.
///
/// # Safety
/// The CPU has AVX-512.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn tanh(x: &[f32], y: &mut [f32]) -> usize {
    ran_wide();
    let (x, _) = x.as_chunks::<16>();
    let (y, _) = y.as_chunks_mut::<16>();
    for (y, x) in y.iter_mut().zip(x) {
        // SAFETY: both are sixteen elements.
        unsafe { _mm512_storeu_ps(y.as_mut_ptr(), sixteen(_mm512_loadu_ps(x.as_ptr()))) };
    }
    16 * x.len().min(y.len())
}

/// As [`passing`](super::f32_avx2), of whole sixteens and activations that block; returns how many elements.
///
/// # Safety
/// The CPU has AVX-512.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn passing(activation: Activation, y: &[f32], bits: &mut [u8]) -> usize {
    ran_wide();
    let zero = _mm512_setzero_ps();
    let high = match activation {
        Activation::Relu6 => _mm512_set1_ps(6.0),
        // not-a-number, and "not at least" holds for that
        _ => _mm512_set1_ps(f32::NAN),
    };
    let ((y, _), (bits, _)) = (y.as_chunks::<16>(), bits.as_chunks_mut::<2>());
    for (bits, y) in bits.iter_mut().zip(y) {
        // SAFETY: sixteen elements.
        let y = unsafe { _mm512_loadu_ps(y.as_ptr()) };
        let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(y, zero);
        *bits = _mm512_mask_cmp_ps_mask::<_CMP_NGE_UQ>(above, y, high).to_le_bytes();
    }
    16 * y.len().min(bits.len())
}

/// As [`block`](super::f32_avx2), of whole sixteens; returns how many elements.
///
/// # Safety
/// The CPU has AVX-512.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn block(bits: &[u8], blocked: f32, gy: &mut [f32]) -> usize {
    ran_wide();
    let (factor, one) = (_mm512_set1_ps(blocked), _mm512_set1_ps(1.0));
    let ((gy, _), (bits, _)) = (gy.as_chunks_mut::<16>(), bits.as_chunks::<2>());
    for (&bits, gy) in bits.iter().zip(&mut *gy) {
        let passes = u16::from_le_bytes(bits);
        // SAFETY: sixteen elements.
        unsafe {
            let g = match blocked == 0.0 {
                true => _mm512_maskz_loadu_ps(passes, gy.as_ptr()),
                false => {
                    let factor = _mm512_mask_blend_ps(passes, factor, one);
                    _mm512_mul_ps(_mm512_loadu_ps(gy.as_ptr()), factor)
                }
            };
            _mm512_storeu_ps(gy.as_mut_ptr(), g);
        }
    }
    16 * gy.len().min(bits.len())
}

/// As [`adam`](super::f32_avx2), of whole sixteens; returns where the rest begins.
///
/// # Safety
/// The CPU has AVX-512; all slices have these elements.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn adam(
    adam: &AdamF32,
    gradients: &[&[f32]],
    parameters: &mut [&mut [f32]],
    [first, second]: [&mut [f32]; 2],
    which: Range<usize>,
) -> usize {
    let (Some((g, shards)), Some((p, copies))) =
        (gradients.split_first(), parameters.split_first_mut())
    else {
        return which.start;
    };
    ran_wide();
    let kept = adam.betas.map(|beta| _mm512_set1_ps(beta));
    let new = adam.betas.map(|beta| _mm512_set1_ps(1.0 - beta));
    let corrections = adam.corrections.map(|c| _mm512_set1_ps(c));
    let (epsilon, rate) = (_mm512_set1_ps(adam.epsilon), _mm512_set1_ps(adam.rate));
    let decay = _mm512_set1_ps(adam.decay);
    let settled = adam.corrections[0] == 1.0;
    let mut at = which.start;
    while at + 16 <= which.end {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sum = _mm512_loadu_ps(g.as_ptr().add(at));
            for shard in shards {
                sum = _mm512_add_ps(sum, _mm512_loadu_ps(shard.as_ptr().add(at)));
            }
            let (p, m) = (p.as_mut_ptr().add(at), first.as_mut_ptr().add(at));
            let v = second.as_mut_ptr().add(at);
            let old = _mm512_mul_ps(kept[0], _mm512_loadu_ps(m));
            let mean = _mm512_add_ps(old, _mm512_mul_ps(new[0], sum));
            _mm512_storeu_ps(m, mean);
            let old = _mm512_mul_ps(kept[1], _mm512_loadu_ps(v));
            let square = _mm512_mul_ps(_mm512_mul_ps(new[1], sum), sum);
            let square = _mm512_add_ps(old, square);
            _mm512_storeu_ps(v, square);
            let root = _mm512_sqrt_ps(_mm512_div_ps(square, corrections[1]));
            let mean = match settled {
                true => mean,
                false => _mm512_div_ps(mean, corrections[0]),
            };
            let step = _mm512_div_ps(mean, _mm512_add_ps(root, epsilon));
            let old = _mm512_loadu_ps(p);
            let step = _mm512_add_ps(step, _mm512_mul_ps(decay, old));
            let next = _mm512_sub_ps(old, _mm512_mul_ps(rate, step));
            _mm512_storeu_ps(p, next);
            for copy in copies.iter_mut() {
                _mm512_storeu_ps(copy.as_mut_ptr().add(at), next);
            }
        }
        at += 16;
    }
    at
}

/// Whether the bits of magnitudes, as integers, are above a limit.
#[target_feature(enable = "avx512f")]
#[inline]
fn above(magnitude: __m512, limit: i32) -> __mmask16 {
    _mm512_cmpgt_epi32_mask(_mm512_castps_si512(magnitude), _mm512_set1_epi32(limit))
}

/// `of` in the lanes of `lanes`, in the others `otherwise`.
#[target_feature(enable = "avx512f")]
#[inline]
fn choose(lanes: __mmask16, of: __m512, otherwise: __m512) -> __m512 {
    _mm512_mask_blend_ps(lanes, otherwise, of)
}

/// The bits of both. (AVX-512F has this for integers alone.)
#[target_feature(enable = "avx512f")]
#[inline]
fn and(a: __m512, b: __m512) -> __m512 {
    _mm512_castsi512_ps(_mm512_and_si512(
        _mm512_castps_si512(a),
        _mm512_castps_si512(b),
    ))
}

/// The bits of either.
#[target_feature(enable = "avx512f")]
#[inline]
fn or(a: __m512, b: __m512) -> __m512 {
    _mm512_castsi512_ps(_mm512_or_si512(
        _mm512_castps_si512(a),
        _mm512_castps_si512(b),
    ))
}

/// The bits of one and not the other.
#[target_feature(enable = "avx512f")]
#[inline]
fn xor(a: __m512, b: __m512) -> __m512 {
    _mm512_castsi512_ps(_mm512_xor_si512(
        _mm512_castps_si512(a),
        _mm512_castps_si512(b),
    ))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn sixteen(x: __m512) -> __m512 {
    let (one, two) = (_mm512_set1_ps(1.0), _mm512_set1_ps(2.0));
    let minus = _mm512_set1_ps(-0.0);
    let sign = and(x, minus);
    let x = xor(x, sign);
    let (large, middle) = (above(x, LARGE), above(x, MIDDLE));
    // near zero e^(-2x) is taken; beyond ten, where the result is 1, an argument that is in range
    let flip = _mm512_maskz_mov_ps(!middle, minus);
    let double = _mm512_mul_ps(two, choose(above(x, TEN), one, x));
    let e = exponential_less_one(xor(double, flip), double);
    let top = choose(large, two, xor(e, flip));
    let ratio = _mm512_div_ps(top, _mm512_add_ps(e, two));
    let y = choose(large, _mm512_sub_ps(one, ratio), ratio);
    let y = choose(above(x, TEN), one, y);
    let y = choose(
        _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x),
        _mm512_add_ps(x, x),
        y,
    );
    let y = choose(above(x, NORMAL - 1), y, x);
    xor(y, sign)
}

/// `e^a - 1` for `a` from -0.52 to 20; `size` is its magnitude.
#[target_feature(enable = "avx512f")]
#[inline]
fn exponential_less_one(a: __m512, size: __m512) -> __m512 {
    let [half, one, two] = [0.5, 1.0, 2.0].map(|v| _mm512_set1_ps(v));
    let sign = and(a, _mm512_set1_ps(-0.0));
    // a = k ln 2 + x, with what x lacks in c
    let nearest = _mm512_add_ps(_mm512_mul_ps(_mm512_set1_ps(INVERSE_LN2), a), half);
    let nearest = _mm512_roundscale_ps::<{ _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC }>(nearest);
    let k = choose(above(size, ONE_STEP - 1), nearest, or(one, sign));
    let k = _mm512_maskz_mov_ps(above(size, REDUCED), k);
    let high = _mm512_sub_ps(a, _mm512_mul_ps(k, _mm512_set1_ps(LN2[0])));
    let low = _mm512_mul_ps(k, _mm512_set1_ps(LN2[1]));
    let x = _mm512_sub_ps(high, low);
    let c = _mm512_sub_ps(_mm512_sub_ps(high, x), low);
    // the primary range
    let hfx = _mm512_mul_ps(half, x);
    let hxs = _mm512_mul_ps(x, hfx);
    let r = _mm512_mul_ps(hxs, _mm512_set1_ps(Q[1]));
    let r = _mm512_mul_ps(hxs, _mm512_add_ps(_mm512_set1_ps(Q[0]), r));
    let r = _mm512_add_ps(one, r);
    let t = _mm512_sub_ps(_mm512_set1_ps(3.0), _mm512_mul_ps(r, hfx));
    let below = _mm512_sub_ps(_mm512_set1_ps(6.0), _mm512_mul_ps(x, t));
    let e = _mm512_mul_ps(hxs, _mm512_div_ps(_mm512_sub_ps(r, t), below));
    let at_0 = _mm512_sub_ps(x, _mm512_sub_ps(_mm512_mul_ps(x, e), hxs));
    let e = _mm512_sub_ps(_mm512_mul_ps(x, _mm512_sub_ps(e, c)), c);
    let e = _mm512_sub_ps(e, hxs);
    let rest = _mm512_sub_ps(x, e);
    // one formula for each k
    let below_0 = _mm512_sub_ps(_mm512_mul_ps(half, rest), half);
    let low_1 = _mm512_sub_ps(e, _mm512_add_ps(x, half));
    let low_1 = _mm512_mul_ps(_mm512_set1_ps(-2.0), low_1);
    let high_1 = _mm512_add_ps(one, _mm512_mul_ps(two, rest));
    let at_1 = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, _mm512_set1_ps(-0.25));
    let at_1 = choose(at_1, low_1, high_1);
    let exponent = _mm512_slli_epi32::<23>(_mm512_cvttps_epi32(k));
    let bias = _mm512_castps_si512(one);
    let power = _mm512_castsi512_ps(_mm512_add_epi32(bias, exponent));
    let inverse = _mm512_castsi512_ps(_mm512_sub_epi32(bias, exponent));
    let small = _mm512_add_ps(rest, _mm512_sub_ps(one, inverse));
    let great = _mm512_add_ps(_mm512_sub_ps(x, _mm512_add_ps(e, inverse)), one);
    let is_small = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(k, _mm512_set1_ps(23.0));
    let more = _mm512_mul_ps(choose(is_small, small, great), power);
    let y = choose(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(k, one), at_1, more);
    let y = choose(
        _mm512_cmp_ps_mask::<_CMP_LT_OQ>(k, _mm512_setzero_ps()),
        below_0,
        y,
    );
    let y = choose(above(size, REDUCED), y, at_0);
    choose(above(size, NEGLIGIBLE - 1), y, a)
}
