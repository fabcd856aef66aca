//! Adam's step. Roots and quotients are rounded correctly in either form, so that they have the same bits.

use super::super::scalar::elementwise as scalar;
use crate::kernels::AdamF32;
use core::arch::x86_64::*;
use core::ops::Range;

/// One step of the elements `which`. The memory's pace is hidden behind the quotients': so gradients are added up, and copies are written,
/// along the way.
///
/// # Safety
/// All slices have these elements.
#[target_feature(enable = "avx2")]
pub(in super::super) unsafe fn adam(
    adam: &AdamF32,
    gradients: &[&[f32]],
    parameters: &mut [&mut [f32]],
    [first, second]: [&mut [f32]; 2],
    which: Range<usize>,
) {
    let (Some((g, shards)), Some((p, copies))) =
        (gradients.split_first(), parameters.split_first_mut())
    else {
        return scalar::adam_f32(adam, gradients, parameters, [first, second], which);
    };
    let kept = adam.betas.map(|beta| _mm256_set1_ps(beta));
    let new = adam.betas.map(|beta| _mm256_set1_ps(1.0 - beta));
    let corrections = adam.corrections.map(|c| _mm256_set1_ps(c));
    let (epsilon, rate) = (_mm256_set1_ps(adam.epsilon), _mm256_set1_ps(adam.rate));
    let decay = _mm256_set1_ps(adam.decay);
    // after some steps the first moment's is one, and a quotient by one takes as long as any other
    let settled = adam.corrections[0] == 1.0;
    let mut at = which.start;
    while at + 8 <= which.end {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sum = _mm256_loadu_ps(g.as_ptr().add(at));
            for shard in shards {
                sum = _mm256_add_ps(sum, _mm256_loadu_ps(shard.as_ptr().add(at)));
            }
            let (p, m) = (p.as_mut_ptr().add(at), first.as_mut_ptr().add(at));
            let v = second.as_mut_ptr().add(at);
            let old = _mm256_mul_ps(kept[0], _mm256_loadu_ps(m));
            let mean = _mm256_add_ps(old, _mm256_mul_ps(new[0], sum));
            _mm256_storeu_ps(m, mean);
            let old = _mm256_mul_ps(kept[1], _mm256_loadu_ps(v));
            let square = _mm256_mul_ps(_mm256_mul_ps(new[1], sum), sum);
            let square = _mm256_add_ps(old, square);
            _mm256_storeu_ps(v, square);
            let root = _mm256_sqrt_ps(_mm256_div_ps(square, corrections[1]));
            let mean = match settled {
                true => mean,
                false => _mm256_div_ps(mean, corrections[0]),
            };
            let step = _mm256_div_ps(mean, _mm256_add_ps(root, epsilon));
            let old = _mm256_loadu_ps(p);
            let step = _mm256_add_ps(step, _mm256_mul_ps(decay, old));
            let next = _mm256_sub_ps(old, _mm256_mul_ps(rate, step));
            _mm256_storeu_ps(p, next);
            for copy in copies.iter_mut() {
                _mm256_storeu_ps(copy.as_mut_ptr().add(at), next);
            }
        }
        at += 8;
    }
    scalar::adam_f32(adam, gradients, parameters, [first, second], at..which.end);
}
