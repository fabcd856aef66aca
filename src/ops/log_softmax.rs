//! Logarithm of the softmax over the last axis: `x - log(sum of exp(x))`.

use super::{Context, Multiplier, OpError, check};
use crate::kernels::fixed_point::{
    doubling_high_mul, exp_on_negative_values, one_over_one_plus, requantize, rounding_shift,
    saturating_shl,
};
use crate::tensor::{DType, Data, DataMut, Operand};

/// As for softmax: exponentials are summed with 12 integer bits.
const MAX_CLASSES: usize = 4095;

/// Logarithm of the softmax over the last axis.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LogSoftmax {
    /// int8: `scale 2^26`, with a shift in 0..=30. f32: 0.
    pub input: Multiplier,
    /// int8: differences from the maximum below this many LSB count as exp = 0; not positive. f32: 0.
    pub diff_min: i32,
    /// int8: the inverse of `input`. f32: 0.
    pub back: Multiplier,
}

impl LogSoftmax {
    pub(super) fn check(&self, inputs: &[Operand], output: &Operand) -> Result<(), OpError> {
        check::count(inputs.len(), 1)?;
        let [x] = inputs else {
            return Err(OpError::Attribute);
        };
        if check::activation_types(x, output)? == DType::F32 {
            return Ok(());
        }
        if output.quant.scale != 1.0 / 16.0 || output.quant.zero_point != 127 {
            return Err(OpError::Quantization {
                operand: check::OUTPUT,
            });
        }
        let factors = self.input.is_valid() && self.input.shift >= 0 && self.back.is_valid();
        if !factors || self.diff_min > 0 {
            return Err(OpError::Attribute);
        }
        if x.shape.channels() > MAX_CLASSES {
            return Err(OpError::Shape { operand: 0 });
        }
        Ok(())
    }

    pub(super) fn forward(&self, cx: &Context, x: &Operand, y: DataMut) {
        let classes = x.shape.channels();
        match (x.data, y) {
            (Data::F32(x), DataMut::F32(y)) => {
                for (x, y) in x.chunks_exact(classes).zip(y.chunks_exact_mut(classes)) {
                    let max = x.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
                    let sum = x.iter().fold(0.0, |s, &x| s + crate::math::exp(x - max));
                    let log = crate::math::log(sum);
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = x - max - log;
                    }
                }
            }
            (Data::I8(x), DataMut::I8(y)) => {
                for (x, y) in x.chunks_exact(classes).zip(y.chunks_exact_mut(classes)) {
                    self.row_i8(cx, x, y);
                }
            }
            _ => {}
        }
    }

    /// TFLite Micro's arithmetic: differences and logarithms with 5 integer bits, the output with 4.
    fn row_i8(&self, cx: &Context, x: &[i8], y: &mut [i8]) {
        let max = x.iter().fold(i8::MIN, |max, &x| max.max(x)) as i32;
        let scaled = |difference| requantize(difference, self.input, cx.rounding());
        let mut sum = 0i32;
        for &x in x {
            let difference = x as i32 - max;
            if difference >= self.diff_min {
                let e = exp_on_negative_values::<5>(scaled(difference));
                sum = sum.wrapping_add(rounding_shift(e, 12));
            }
        }
        let log = log_of_sum(sum);
        let smallest = requantize(log.wrapping_add(i32::MIN), self.back, cx.rounding());
        let smallest = smallest.max(self.diff_min.saturating_sub(1));
        for (y, &x) in y.iter_mut().zip(x) {
            let difference = x as i32 - max;
            *y = if difference > smallest {
                let q = rounding_shift(scaled(difference).wrapping_sub(log), 31 - 5 - 4);
                q.saturating_add(127).clamp(-128, 127) as i8
            } else {
                i8::MIN
            };
        }
    }
}

/// `log x` for x >= 1 with 12 integer bits in and 5 out: a power of two, and a rational approximation of the rest around
/// the fourth root of one half. (TFLite `log_x_for_x_greater_than_or_equal_to_1`.)
fn log_of_sum(x: i32) -> i32 {
    const LOG_2: i32 = 1488522236;
    const ROOT_HALF: i32 = 1518500250;
    const FOURTH_ROOT_HALF: i32 = 1805811301;
    const ALPHA_N: i32 = 117049297;
    const ALPHA_D: i32 = 127690142;
    const ALPHA_I: i32 = 1057819769;
    const ALPHA_F: i32 = 638450708;
    // one quarter with 6 integer bits
    const QUARTER: i32 = 1 << 23;
    let mul = doubling_high_mul;
    let zeros = |v: i32| (v as u32).leading_zeros() as i32;
    let whole = |bits: i32| saturating_shl(bits, 25);
    let shl = |v: i32, bits: i32| saturating_shl(v, bits.clamp(0, 30) as u32);

    let headroom = zeros(x);
    let r_a = shl(mul(shl(x, headroom - 1), ROOT_HALF), 1);
    let power_a = whole(12 - headroom).saturating_add(QUARTER);
    let half = zeros(mul(x, ROOT_HALF)) - 1;
    let r_b = shl(x, half);
    let power_b = whole(12 - half).saturating_sub(QUARTER);
    let (r, power) = (r_a.min(r_b), power_a.max(power_b));

    let sum = i64::from(r) + i64::from(FOURTH_ROOT_HALF);
    let p = ((sum + if sum >= 0 { 1 } else { -1 }) / 2) as i32;
    let q = r.wrapping_sub(FOURTH_ROOT_HALF).wrapping_mul(2);
    let square = mul(q, q);
    let numerator = mul(q, r).wrapping_add(mul(mul(q, square), ALPHA_N));
    let inner = ALPHA_I.wrapping_add(q).wrapping_add(mul(ALPHA_D, square));
    let denominator = mul(p, inner).wrapping_add(mul(ALPHA_F, q));
    let fraction = mul(rounding_shift(numerator, 6), one_over_one_plus(denominator));
    saturating_shl(mul(power, LOG_2).wrapping_add(fraction), 1)
}

/// `gy - softmax * sum of gy`, by row.
pub(super) fn input_gradient(output: &Operand, gy: &[f32], gx: &mut [f32]) {
    let classes = output.shape.channels();
    let real = |i: usize| match output.data {
        Data::F32(y) => y[i],
        Data::I8(y) => (y[i] as i32 - output.quant.zero_point) as f32 * output.quant.scale,
        _ => f32::NEG_INFINITY,
    };
    let rows = gy.chunks_exact(classes).zip(gx.chunks_exact_mut(classes));
    for (row, (gy, gx)) in rows.enumerate() {
        let sum: f32 = gy.iter().fold(0.0, |sum, g| sum + g);
        for (c, (gx, &gy)) in gx.iter_mut().zip(gy).enumerate() {
            *gx += gy - crate::math::exp(real(row * classes + c)) * sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_close_to_the_real_one() {
        for i in 0..4000 {
            let x = 1.0 + i as f64;
            let got = f64::from(log_of_sum((x * f64::from(1 << 19)) as i32)) / f64::from(1 << 26);
            assert!((got - x.ln()).abs() < 1e-6, "log {x} = {got}");
        }
    }
}
