//! int8 loops with NEON: the sums of `scalar` in another order, which for integers modulo 2^32 gives the same bits, and
//! requantization in vectors, exact for every input.
//!
//! Products are of 16-bit numbers (an input less its zero point is in -255..=255), added to sums of 32 bits one by one
//! (`smlal`). Weights are packed once a session where
//! its buffer has room for them (`kept`), else once a call on the stack.
//!
//! Each function says whether it took the layer. What it leaves (dilations, layers whose window does not fit the
//! stack buffers, roundings other than two) goes through the portable loops.
//!
//! Arithmetic on vectors is safe where a function says that it needs NEON, which every 64-bit Arm core has.
#![allow(unsafe_code)] // loads and stores of vectors; every one is of an array of its size, or behind a slice that is cut to what the loop reads

mod add;
mod conv;
mod dense;
mod depthwise;
mod mul;

pub(super) use add::add;
pub(super) use conv::conv;
pub(super) use dense::dense;
pub(super) use depthwise::depthwise;
pub(super) use mul::mul;

use super::{Requantize, Rounding, strip};
use core::arch::aarch64::*;
use core::mem::MaybeUninit;

/// 32-bit numbers of eight channels.
type Eight = [int32x4_t; 2];

/// Fixed-point factors of four lanes, two roundings.
#[derive(Clone, Copy)]
struct Factors {
    mantissa: int32x4_t,
    /// To the left, and not to the right.
    left: int32x4_t,
    /// To the right, counted negative: what `srshl` wants.
    right: int32x4_t,
}

impl Factors {
    #[target_feature(enable = "neon")]
    #[inline]
    fn new(mantissa: int32x4_t, shift: int32x4_t) -> Factors {
        let zero = vdupq_n_s32(0);
        Factors {
            mantissa,
            left: vmaxq_s32(shift, zero),
            right: vminq_s32(shift, zero),
        }
    }

    /// `fixed_point::requantize` with [`Rounding::Double`], in every lane.
    #[target_feature(enable = "neon")]
    #[inline]
    fn apply(&self, x: int32x4_t) -> int32x4_t {
        // what leaves at the left is lost, as there
        let x = vshlq_s32(x, self.left);
        // gemmlowp's doubling high multiply is this instruction
        let high = vqrdmulhq_s32(x, self.mantissa);
        // The rounding shift takes halves up, gemmlowp's away from zero: a negative number is one less before. Not where nothing is shifted,
        // nor i32::MIN, which has no half.
        let less = vshrq_n_s32::<31>(vandq_s32(high, self.right));
        vrshlq_s32(vqaddq_s32(high, less), self.right)
    }
}

/// Zero point and range of a layer's output: what follows on its factors.
struct Finish {
    zero_point: int32x4_t,
    low: int8x8_t,
    high: int8x8_t,
}

/// The constants of eight channels.
#[derive(Clone, Copy)]
struct Lanes {
    /// Where sums begin.
    bias: Eight,
    factors: [Factors; 2],
}

impl Finish {
    /// `None` where these loops leave the layer to others.
    #[target_feature(enable = "neon")]
    fn of(p: &Requantize) -> Option<Finish> {
        let is_i8 = |q: i32| (-128..=127).contains(&q);
        let n = p.bias.len();
        let takes = p.rounding == Rounding::Double
            && n > 0
            && (p.multiplier.len(), p.shift.len()) == (n, n)
            && is_i8(p.range.0)
            && is_i8(p.range.1)
            && p.shift.iter().all(|shift| (-31..=30).contains(shift));
        takes.then(|| Finish::new(p.zero_point, p.range))
    }

    /// For a range of 8-bit numbers.
    #[target_feature(enable = "neon")]
    fn new(zero_point: i32, range: (i32, i32)) -> Finish {
        Finish {
            zero_point: vdupq_n_s32(zero_point),
            low: vdup_n_s8(range.0 as i8),
            high: vdup_n_s8(range.1 as i8),
        }
    }

    /// Eight outputs from sums with their biases: [`Requantize::finish`], for whatever sum.
    #[target_feature(enable = "neon")]
    #[inline]
    fn requantize(&self, lanes: &Lanes, sums: Eight) -> int8x8_t {
        let [a, b] = &lanes.factors;
        self.narrow([a.apply(sums[0]), b.apply(sums[1])])
    }

    /// Eight outputs from numbers without the zero point.
    #[target_feature(enable = "neon")]
    #[inline]
    fn narrow(&self, [a, b]: Eight) -> int8x8_t {
        // this addition wraps; what has to saturate does so in the range, which is of 8 bits
        let (a, b) = (vaddq_s32(a, self.zero_point), vaddq_s32(b, self.zero_point));
        let q = vqmovn_s16(vqmovn_high_s32(vqmovn_s32(a), b));
        vmin_s8(vmax_s8(q, self.low), self.high)
    }
}

impl Lanes {
    /// Channels `first..first + 8`. One that does not exist gets the last one's constants.
    #[target_feature(enable = "neon")]
    #[inline]
    fn new(p: &Requantize, first: usize) -> Lanes {
        let (mantissa, shift) = (eight(p.multiplier, first), eight(p.shift, first));
        Lanes {
            bias: eight(p.bias, first),
            factors: [
                Factors::new(mantissa[0], shift[0]),
                Factors::new(mantissa[1], shift[1]),
            ],
        }
    }
}

/// Elements `first..first + 8`; the last one where there are fewer.
#[target_feature(enable = "neon")]
#[inline]
fn eight(constants: &[i32], first: usize) -> Eight {
    let mut room = [0; 8];
    let eight = strip::eight(constants, first, &mut room);
    // SAFETY: `eight` is 8 numbers long.
    unsafe { [vld1q_s32(eight.as_ptr()), vld1q_s32(eight[4..].as_ptr())] }
}

/// Writes the first `y.len()` of eight numbers, 8 at most.
#[target_feature(enable = "neon")]
#[inline]
fn store(q: int8x8_t, y: &mut [i8]) {
    if let Ok(y) = <&mut [i8; 8]>::try_from(&mut *y) {
        // SAFETY: `y` is 8 bytes long.
        unsafe { vst1_s8(y.as_mut_ptr(), q) }
        return;
    }
    let mut all = [0; 8];
    // SAFETY: `all` is 8 bytes long.
    unsafe { vst1_s8(all.as_mut_ptr(), q) }
    y.copy_from_slice(&all[..y.len()]);
}

/// Writes eight numbers to the start of `to`, 16 bits each.
#[target_feature(enable = "neon")]
#[inline]
fn widen(x: int8x8_t, to: &mut [MaybeUninit<i16>]) {
    let to = &mut to[..8];
    // SAFETY: `to` is 8 elements long.
    unsafe { vst1q_s16(to.as_mut_ptr().cast(), vmovl_s8(x)) }
}

/// Adds the products of eight channels.
#[target_feature(enable = "neon")]
#[inline]
fn multiply_add(sums: Eight, a: int16x8_t, b: int16x8_t) -> Eight {
    [
        vmlal_s16(sums[0], vget_low_s16(a), vget_low_s16(b)),
        vmlal_high_s16(sums[1], a, b),
    ]
}
