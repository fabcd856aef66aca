//! What the CPU's multipliers can do at most: what the speed of a loop is a share of.

#[cfg(target_arch = "x86_64")]
use super::wide;
use crate::kernels::f32x8::F8;
use crate::kernels::simd;

/// Sums side by side: more than a multiply-add's latency times what a cycle starts (4 or 5 times 2), fewer than there are registers.
const CHAINS: usize = 12;

/// Multiply-adds in a round: one for each lane of the widest registers that this CPU has.
pub(in super::super) fn round() -> usize {
    CHAINS * if simd::found().wide { 16 } else { 8 }
}

/// `rounds` times [`round`] multiply-adds that touch no memory; returns the sum of one lane's, so that they are not left out.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
pub(super) fn multiply_adds(rounds: usize) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if simd::found().wide {
        // SAFETY: the CPU has what they need.
        return unsafe { wide::multiply_adds::<CHAINS>(rounds) };
    }
    let factor = F8::splat(core::hint::black_box(0.999));
    let mut sums = [factor; CHAINS];
    for (i, sum) in sums.iter_mut().enumerate() {
        // different, so that no two are one
        *sum = F8::splat(core::hint::black_box(i as f32));
    }
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = F8::mul_add(*sum, factor, factor);
        }
    }
    let mut all = sums[0];
    for sum in &sums[1..] {
        all = F8::add(all, *sum);
    }
    all.first()
}
