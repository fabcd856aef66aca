//! Elementwise sum of two tensors of one shape.

use super::super::strip::bytes;
use super::super::{AddI8, Multiplier};
use super::{Factors, Finish, store};
use core::arch::aarch64::*;

/// TFLite Micro's integer sum, two roundings.
#[target_feature(enable = "neon")]
pub(in super::super) fn add(p: &AddI8, y: &mut [i8]) {
    let factors = |m: Multiplier| Factors::new(vdupq_n_s32(m.mantissa), vdupq_n_s32(m.shift));
    let output = factors(p.output);
    let left = vdupq_n_s32(p.left_shift as i32);
    let terms = p.factors.map(factors).map(|term| Factors {
        // one shift in place of two; of 32 and more nothing is left, after either
        left: vaddq_s32(term.left, left),
        ..term
    });
    let zero_points = p.zero_points.map(|z| vdupq_n_s32(z));
    let finish = Finish::new(p.zero_point, p.range);
    let sum = |a: int16x4_t, b: int16x4_t| {
        let term = |x: int16x4_t, i: usize| terms[i].apply(vsubq_s32(vmovl_s16(x), zero_points[i]));
        output.apply(vaddq_s32(term(a, 0), term(b, 1)))
    };
    for ((a, b), y) in p.x[0].chunks(8).zip(p.x[1].chunks(8)).zip(y.chunks_mut(8)) {
        let (a, b) = (load(a), load(b));
        let sums = [
            sum(vget_low_s16(a), vget_low_s16(b)),
            sum(vget_high_s16(a), vget_high_s16(b)),
        ];
        store(finish.narrow(sums), y);
    }
}

/// Up to eight elements, zeros behind them.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn load(x: &[i8]) -> int16x8_t {
    let mut room = [0; 8];
    let x = bytes(x, &mut room);
    // SAFETY: `x` is 8 bytes long.
    vmovl_s8(unsafe { vld1_s8(x.as_ptr()) })
}
