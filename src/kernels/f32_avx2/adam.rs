//! Adam's step. Roots and quotients are rounded correctly in either form, so that they have the same bits.

use super::super::scalar::elementwise as scalar;
use crate::kernels::AdamF32;
use core::arch::x86_64::*;

/// One step.
#[target_feature(enable = "avx2")]
pub(in super::super) fn adam(
    adam: &AdamF32,
    gradients: &[f32],
    parameters: &mut [f32],
    [first, second]: [&mut [f32]; 2],
) {
    let (g, g_rest) = gradients.as_chunks::<8>();
    let (p, p_rest) = parameters.as_chunks_mut::<8>();
    let (m, m_rest) = first.as_chunks_mut::<8>();
    let (v, v_rest) = second.as_chunks_mut::<8>();
    let kept = adam.betas.map(|beta| _mm256_set1_ps(beta));
    let new = adam.betas.map(|beta| _mm256_set1_ps(1.0 - beta));
    let corrections = adam.corrections.map(|c| _mm256_set1_ps(c));
    let (epsilon, rate) = (_mm256_set1_ps(adam.epsilon), _mm256_set1_ps(adam.rate));
    let decay = _mm256_set1_ps(adam.decay);
    // after some steps the first moment's is one, and a quotient by one takes as long as any other
    let settled = adam.corrections[0] == 1.0;
    for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
        // SAFETY: all four are eight elements.
        unsafe {
            let g = _mm256_loadu_ps(g.as_ptr());
            let old = _mm256_mul_ps(kept[0], _mm256_loadu_ps(m.as_ptr()));
            let mean = _mm256_add_ps(old, _mm256_mul_ps(new[0], g));
            _mm256_storeu_ps(m.as_mut_ptr(), mean);
            let old = _mm256_mul_ps(kept[1], _mm256_loadu_ps(v.as_ptr()));
            let square = _mm256_add_ps(old, _mm256_mul_ps(_mm256_mul_ps(new[1], g), g));
            _mm256_storeu_ps(v.as_mut_ptr(), square);
            let root = _mm256_sqrt_ps(_mm256_div_ps(square, corrections[1]));
            let mean = match settled {
                true => mean,
                false => _mm256_div_ps(mean, corrections[0]),
            };
            let step = _mm256_div_ps(mean, _mm256_add_ps(root, epsilon));
            let old = _mm256_loadu_ps(p.as_ptr());
            let step = _mm256_add_ps(step, _mm256_mul_ps(decay, old));
            _mm256_storeu_ps(
                p.as_mut_ptr(),
                _mm256_sub_ps(old, _mm256_mul_ps(rate, step)),
            );
        }
    }
    scalar::adam_f32(adam, g_rest, p_rest, [m_rest, v_rest]);
}
