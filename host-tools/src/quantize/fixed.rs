//! tanh and the logistic function in 32-bit fixed point, step by step as gemmlowp's `fixedpoint.h` defines them:
//! TFLite Micro's int8 operators are these, so their tables are made with these.
//!
//! The engine has the parts that softmax needs; here is the rest, which never runs on a chip.
//! A value with `b` integer bits is `raw / 2^(31 - b)`.

use foolproof::kernels::fixed_point::{doubling_high_mul, rounding_shift};

/// Just below 1 with no integer bits.
const ONE: i32 = i32::MAX;

/// tanh of a value with 4 integer bits, with none.
pub(super) fn tanh(x: i32) -> i32 {
    if x == 0 {
        return 0;
    }
    // exp(-2 |x|): the same bits, read with one integer bit more, are twice the value
    let e = exp_of_negative(-x.saturating_abs(), 5);
    let t = saturating_shift(reciprocal(e).wrapping_sub(1 << 29), 2);
    if x < 0 { -t } else { t }
}

/// 1 / (1 + exp(-x)) of a value with 4 integer bits, with none.
pub(super) fn logistic(x: i32) -> i32 {
    if x == 0 {
        return 1 << 30;
    }
    let e = exp_of_negative(-x.saturating_abs(), 4);
    let positive = saturating_shift(reciprocal(e), 1);
    if x > 0 { positive } else { ONE - positive }
}

/// exp(x) for x <= 0 with at most 5 integer bits: a series on the quarter, then one factor per bit of the rest.
fn exp_of_negative(x: i32, integer_bits: i32) -> i32 {
    if x == 0 {
        return ONE;
    }
    let fraction_bits = 31 - integer_bits;
    let quarter = 1 << (fraction_bits - 2);
    let part = (x & (quarter - 1)) - quarter;
    let rest = part.wrapping_sub(x);
    let mut result = exp_of_quarter(saturating_shift(part, integer_bits));
    for exponent in -2..integer_bits {
        if rest & (1 << (fraction_bits + exponent)) != 0 {
            let factor = constant((-2_f64.powi(exponent)).exp(), 31);
            result = doubling_high_mul(result, factor);
        }
    }
    result
}

/// exp(x) for x in -1/4..0, no integer bits: the Taylor series around -1/8 to the fourth power.
fn exp_of_quarter(x: i32) -> i32 {
    let middle = constant((-0.125_f64).exp(), 31);
    let third = constant(1.0 / 3.0, 31);
    let x = x + (1 << 28);
    let x2 = doubling_high_mul(x, x);
    let x3 = doubling_high_mul(x2, x);
    let x4 = doubling_high_mul(x2, x2);
    let higher = doubling_high_mul(rounding_shift(x4, 2) + x3, third) + x2;
    middle + doubling_high_mul(middle, x + rounding_shift(higher, 1))
}

/// 2 / (1 + x) for x in 0..1 with no integer bits, with two: three Newton steps.
fn reciprocal(x: i32) -> i32 {
    let half_denominator = ((i64::from(x) + i64::from(ONE) + 1) / 2) as i32;
    let mut r = constant(48.0 / 17.0, 29).wrapping_add(doubling_high_mul(
        half_denominator,
        constant(-32.0 / 17.0, 29),
    ));
    for _ in 0..3 {
        let error = (1 << 29) - doubling_high_mul(half_denominator, r);
        r = r.wrapping_add(saturating_shift(doubling_high_mul(r, error), 2));
    }
    r
}

fn saturating_shift(x: i32, left: i32) -> i32 {
    (i64::from(x) << left).clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

fn constant(real: f64, fraction_bits: i32) -> i32 {
    (real * 2_f64.powi(fraction_bits)).round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_the_published_ones() {
        // gemmlowp/fixedpoint/fixedpoint.h lists them as integers
        assert_eq!(constant((-0.125_f64).exp(), 31), 1_895_147_668);
        assert_eq!(constant(1.0 / 3.0, 31), 715_827_883);
        assert_eq!(constant(48.0 / 17.0, 29), 1_515_870_810);
        assert_eq!(constant(-32.0 / 17.0, 29), -1_010_580_540);
        let factors = [
            1_672_461_947,
            1_302_514_674,
            790_015_084,
            290_630_308,
            39_332_535,
            720_401,
            242,
        ];
        for (exponent, factor) in (-2..).zip(factors) {
            assert_eq!(constant((-2_f64.powi(exponent)).exp(), 31), factor);
        }
    }

    #[test]
    fn both_functions_are_good_to_six_digits() {
        let mut raw = i32::MIN + 1;
        loop {
            let x = f64::from(raw) / 2_f64.powi(27);
            let t = f64::from(tanh(raw)) / 2_f64.powi(31);
            let s = f64::from(logistic(raw)) / 2_f64.powi(31);
            assert!((t - x.tanh()).abs() < 4e-7, "tanh {x}: {t}");
            assert!(
                (s - 1.0 / (1.0 + (-x).exp())).abs() < 4e-7,
                "logistic {x}: {s}"
            );
            match raw.checked_add(1_000_003) {
                Some(next) => raw = next,
                None => break,
            }
        }
    }

    #[test]
    fn the_ends_and_the_middle_are_exact() {
        assert_eq!((tanh(0), logistic(0)), (0, 1 << 30));
        for raw in [i32::MIN, i32::MIN + 1, i32::MAX] {
            assert!(tanh(raw).abs() > i32::MAX - 64);
            assert!((0..=i32::MAX).contains(&logistic(raw)));
        }
    }
}
