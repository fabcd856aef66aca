//! Elementwise product of two tensors of one shape.

use super::super::MulI8;
use super::add::load;
use super::{Factors, Finish, store};
use core::arch::aarch64::*;

/// TFLite Micro's integer product, two roundings.
#[target_feature(enable = "neon")]
pub(in super::super) fn mul(p: &MulI8, y: &mut [i8]) {
    let output = Factors::new(vdupq_n_s32(p.output.mantissa), vdupq_n_s32(p.output.shift));
    let zero_points = p.zero_points.map(|z| vdupq_n_s32(z));
    let finish = Finish::new(p.zero_point, p.range);
    let product = |a: int16x4_t, b: int16x4_t| {
        let a = vsubq_s32(vmovl_s16(a), zero_points[0]);
        let b = vsubq_s32(vmovl_s16(b), zero_points[1]);
        output.apply(vmulq_s32(a, b))
    };
    for ((a, b), y) in p.x[0].chunks(8).zip(p.x[1].chunks(8)).zip(y.chunks_mut(8)) {
        let (a, b) = (load(a), load(b));
        let products = [
            product(vget_low_s16(a), vget_low_s16(b)),
            product(vget_high_s16(a), vget_high_s16(b)),
        ];
        store(finish.narrow(products), y);
    }
}
