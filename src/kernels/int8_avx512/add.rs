//! Elementwise sum of two tensors of one shape.

use super::super::simd::ran_wide;
use super::super::strip::bytes;
use super::super::{AddI8, Multiplier, Rounding, fixed_point};
use super::{CONSTANTS, Finish, Form, LANES, WIDE, is_plain, plain_constants, store};
use core::arch::x86_64::*;

/// TFLite Micro's integer sum, two roundings; false where it was left undone.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
pub(in super::super) fn add(p: &AddI8, y: &mut [i8]) -> bool {
    // the input with the larger scale has the factor 1/2: it is shifted, and nothing is rounded
    let exact = (0..2).find(|&i| is_power_of_two(p.factors[i]));
    let Some((doubles, other)) = exact.and_then(|i| Some((i, Term::of(p, 1 - i)?))) else {
        return false;
    };
    let shift = p.left_shift as i32 - 1 + p.factors[doubles].shift;
    // never less of more: an input's first value or its last brings the most
    let most = 256i64 << shift.max(0);
    let in_range = (-128..=127).contains(&p.zero_points[doubles]);
    if shift < 0 || !in_range || !is_plain(p.output, p.zero_point, most + i64::from(other.most)) {
        return false;
    }
    // zero points bring the same whatever the inputs
    let start = (-i64::from(p.zero_points[doubles]) << shift) - other.of_zero_point;
    let mut constants = [[0; LANES]; CONSTANTS];
    for lane in 0..LANES {
        let of_lane = plain_constants(p.output, p.zero_point, start);
        of_lane.write(lane, constants.as_flattened_mut());
    }
    ran_wide();
    let constants = core::slice::from_ref(&constants);
    let finish = Finish::new(Form::Plain, constants, p.zero_point, p.range);
    let shift = _mm_cvtsi32_si128(shift);
    let [first, second] = [doubles, 1 - doubles].map(|i| p.x[i].chunks(WIDE));
    for ((first, second), y) in first.zip(second).zip(y.chunks_mut(WIDE)) {
        let mut room = [[0; WIDE]; 2];
        let [room, more_room] = &mut room;
        let (first, second) = (bytes(first, room), bytes(second, more_room));
        let mut sums = [finish.start(0); 4];
        for (i, sum) in sums.iter_mut().enumerate() {
            let first = _mm512_sll_epi32(sixteen(first, i), shift);
            let second = other.apply(sixteen(second, i));
            *sum = _mm512_add_epi32(*sum, _mm512_add_epi32(first, second));
        }
        store(finish.plain::<1>(&sums), y);
    }
    true
}

/// Elements from number `16 i` on.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
#[inline]
pub(super) fn sixteen(x: &[i8; WIDE], i: usize) -> __m512i {
    let x = &x[i * LANES..][..LANES];
    // SAFETY: sixteen bytes.
    _mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(x.as_ptr().cast()) })
}

fn is_power_of_two(factor: Multiplier) -> bool {
    factor.mantissa == 1 << 30 && factor.shift <= 0
}

/// What an input `x`, less its zero point, brings: with the factor `m 2^(-31-right)` and `x` shifted to the left by `l`, gemmlowp's two
/// roundings are `(x m + 2^(30-l) + half) >> s`, where `s = 31 - l + right` and `half` is `2^(s-1)`, less `2^(31-l)` for a negative `x`;
/// without a second rounding it is zero. Cut after its lower 16 bits `m` meets `x` in products of 32 bits.
struct Term {
    zero_point: __m512i,
    /// Upper bits of the factor, shifted to where they count.
    upper: __m512i,
    /// What they make of the zero point.
    of_zero_point: i64,
    lower: __m512i,
    more: __m512i,
    less: __m512i,
    shift: __m128i,
    /// What it brings at most, without its sign.
    most: i32,
}

impl Term {
    /// None where it does not fit these 32 bits.
    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    fn of(p: &AddI8, i: usize) -> Option<Term> {
        let (Multiplier { mantissa, shift }, zero_point) = (p.factors[i], p.zero_points[i]);
        let left = p.left_shift as i32;
        let right = -shift;
        let whole = 31 - left + right;
        let fits = (0..=15).contains(&right) && (9..=16).contains(&whole);
        if !fits || mantissa < 0 || !(-128..=127).contains(&zero_point) {
            return None;
        }
        let (half, less) = match right {
            0 => (0, 0),
            _ => (1 << (whole - 1), 1 << (31 - left)),
        };
        let ends = [-128, 127].map(|x| {
            let x = (x - zero_point) << left;
            fixed_point::requantize(x, p.factors[i], Rounding::Double)
        });
        let (upper, lower) = ((mantissa >> 16) << (16 - whole), mantissa & 0xffff);
        Some(Term {
            zero_point: _mm512_set1_epi32(zero_point),
            upper: _mm512_set1_epi32(upper),
            of_zero_point: i64::from(upper) * i64::from(zero_point),
            lower: _mm512_set1_epi32(lower),
            more: _mm512_set1_epi32((1 << (30 - left)) + half - zero_point * lower),
            less: _mm512_set1_epi32(less),
            shift: _mm_cvtsi32_si128(whole),
            most: ends[0].abs().max(ends[1].abs()),
        })
    }

    /// Without what the upper bits make of the zero point.
    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    #[inline]
    fn apply(&self, x: __m512i) -> __m512i {
        let lower = _mm512_add_epi32(_mm512_mullo_epi32(x, self.lower), self.more);
        let is_negative = _mm512_cmplt_epi32_mask(x, self.zero_point);
        let lower = _mm512_mask_sub_epi32(lower, is_negative, lower, self.less);
        let upper = _mm512_mullo_epi32(x, self.upper);
        _mm512_add_epi32(upper, _mm512_sra_epi32(lower, self.shift))
    }
}
