//! Sums, and where a gradient passes an activation.

use super::super::scalar::elementwise as scalar;
use super::activate;
use crate::kernels::Activation;
use core::arch::x86_64::*;

/// `y = activation(a + b)`.
#[target_feature(enable = "avx2")]
pub(in super::super) fn add([a, b]: [&[f32]; 2], activation: Activation, y: &mut [f32]) {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let (y, y_rest) = y.as_chunks_mut::<8>();
    for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
        // SAFETY: all three are eight elements.
        unsafe {
            let sum = _mm256_add_ps(_mm256_loadu_ps(a.as_ptr()), _mm256_loadu_ps(b.as_ptr()));
            _mm256_storeu_ps(y.as_mut_ptr(), activate(activation, sum));
        }
    }
    scalar::add_f32([a_rest, b_rest], activation, y_rest);
}

/// One bit per element: whether the gradient passes.
#[target_feature(enable = "avx2")]
pub(in super::super) fn passing(activation: Activation, y: &[f32], bits: &mut [u8]) {
    if activation == Activation::None {
        return scalar::passing_f32(activation, y, bits);
    }
    let (whole, rest) = y.as_chunks::<8>();
    let zero = _mm256_setzero_ps();
    let high = match activation {
        Activation::Relu6 => _mm256_set1_ps(6.0),
        // all ones: not-a-number, and "not at least" holds for that
        _ => _mm256_castsi256_ps(_mm256_set1_epi32(-1)),
    };
    for (byte, y) in bits.iter_mut().zip(whole) {
        // SAFETY: eight elements.
        let y = unsafe { _mm256_loadu_ps(y.as_ptr()) };
        let above = _mm256_cmp_ps::<_CMP_GT_OQ>(y, zero);
        let below = _mm256_cmp_ps::<_CMP_NGE_UQ>(y, high);
        *byte = _mm256_movemask_ps(_mm256_and_ps(above, below)) as u8;
    }
    if let Some(bits) = bits.get_mut(whole.len()..) {
        scalar::passing_f32(activation, rest, bits);
    }
}

/// Multiplies the gradient by `blocked` where the bit is 0.
#[target_feature(enable = "avx2")]
pub(in super::super) fn block(bits: &[u8], blocked: f32, gy: &mut [f32]) {
    let (whole, rest) = gy.as_chunks_mut::<8>();
    if let Some(bits) = bits.get(whole.len()..) {
        scalar::block_f32(bits, blocked, rest);
    }
    let each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    let (factor, one) = (_mm256_set1_ps(blocked), _mm256_set1_ps(1.0));
    for (&byte, gy) in bits.iter().zip(whole) {
        let passes = _mm256_and_si256(_mm256_set1_epi32(i32::from(byte)), each);
        let passes = _mm256_cmpeq_epi32(passes, each);
        // compilers make a store of some lanes of a choice between the two, which takes ten times as long on some CPUs
        // SAFETY: eight elements.
        unsafe {
            let g = match blocked == 0.0 {
                true => _mm256_maskload_ps(gy.as_ptr(), passes),
                false => {
                    let factor = _mm256_blendv_ps(factor, one, _mm256_castsi256_ps(passes));
                    _mm256_mul_ps(_mm256_loadu_ps(gy.as_ptr()), factor)
                }
            };
            _mm256_storeu_ps(gy.as_mut_ptr(), g);
        }
    }
}
