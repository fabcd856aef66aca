//! Element by element: sums, functions, where a gradient passes an activation, and an optimizer's step.

use crate::kernels::{Activation, AdamF32};
use core::ops::Range;

/// `y = activation(a + b)`.
#[inline(always)]
pub fn add_f32(x: [&[f32]; 2], activation: Activation, y: &mut [f32]) {
    for ((y, a), b) in y.iter_mut().zip(x[0]).zip(x[1]) {
        *y = activation.apply(a + b);
    }
}

/// One bit per element of an activation's output, lowest first: whether the gradient passes. Bits behind the last element are 0.
#[inline(always)]
pub fn passing_f32(activation: Activation, y: &[f32], bits: &mut [u8]) {
    for (byte, y) in bits.iter_mut().zip(y.chunks(8)) {
        *byte = pack(y.iter().map(|&y| activation.passes(y)));
    }
}

/// Up to eight bits, the first one lowest.
#[inline(always)]
pub fn pack(bits: impl Iterator<Item = bool>) -> u8 {
    bits.enumerate()
        .fold(0, |byte, (i, bit)| byte | (bit as u8) << i)
}

/// Multiplies the gradient by `blocked` where the bit is 0.
#[inline(always)]
pub fn block_f32(bits: &[u8], blocked: f32, gy: &mut [f32]) {
    for (byte, gy) in bits.iter().zip(gy.chunks_mut(8)) {
        for (i, gy) in gy.iter_mut().enumerate() {
            if byte >> i & 1 == 0 {
                // A product with 0 would keep infinities and the sign.
                *gy = if blocked == 0.0 { 0.0 } else { *gy * blocked };
            }
        }
    }
}

/// `y = tanh(x)`.
#[inline(always)]
pub fn tanh_f32(x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = crate::math::tanh(x);
    }
}

/// One step of Adam, of the elements `which`.
#[inline(always)]
pub fn adam_f32(
    adam: &AdamF32,
    gradients: &[&[f32]],
    parameters: &mut [&mut [f32]],
    [first, second]: [&mut [f32]; 2],
    which: Range<usize>,
) {
    let ([beta1, beta2], [correction1, correction2]) = (adam.betas, adam.corrections);
    let Some((own, copies)) = parameters.split_first_mut() else {
        return;
    };
    // sums of a few elements at a time, so that each loop is a plain one over slices
    let mut sums = [0.0; 64];
    for at in which.clone().step_by(sums.len()) {
        let here = at..which.end.min(at + sums.len());
        let sums = &mut sums[..here.len()];
        for (i, gradients) in gradients.iter().enumerate() {
            let gradients = &gradients[here.clone()];
            match i {
                0 => sums.copy_from_slice(gradients),
                _ => sums.iter_mut().zip(gradients).for_each(|(s, g)| *s += g),
            }
        }
        let moments = first[here.clone()]
            .iter_mut()
            .zip(&mut second[here.clone()]);
        for ((p, &g), (m, v)) in own[here.clone()].iter_mut().zip(&*sums).zip(moments) {
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            let step = (*m / correction1) / (libm::sqrtf(*v / correction2) + adam.epsilon);
            *p -= adam.rate * (step + adam.decay * *p);
        }
        for copy in copies.iter_mut() {
            copy[here.clone()].copy_from_slice(&own[here.clone()]);
        }
    }
}
