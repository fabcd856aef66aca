//! 32-bit fixed-point arithmetic as TFLite Micro and gemmlowp define it, and the floating-point factors of other runtimes. Wherever a hostile constant could
//! overflow, the operation wraps: what the reference does in practice, and never a panic.

/// How a 32-bit accumulator times a fixed-point multiplier is rounded to the output's scale.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Rounding {
    /// gemmlowp's two roundings (doubling high multiply, then rounding shift): TFLite Micro and CMSIS-NN.
    Double = 0,
    /// One rounding of the 64-bit product: builds with `TFLITE_SINGLE_ROUNDING`.
    Single = 1,
    /// The accumulator as f32 times an f32 factor, to the nearest integer, halves to even: XNNPACK. The mantissa of the
    /// [`Multiplier`] is the factor's bits, its shift 0. In a convolution another shift holds the bits of an f32 zero point that
    /// is added before rounding: XNNPACK's means.
    Float32 = 2,
    /// The accumulator times an f64 factor, to the nearest integer, halves away from zero: LiteRT's reference kernel of
    /// FULLY_CONNECTED. The mantissa of the [`Multiplier`] is the upper half of the factor's bits, its shift the lower one.
    Float64 = 3,
}

impl Rounding {
    /// Whether requantization is defined for this factor.
    pub(crate) fn takes(self, factor: Multiplier) -> bool {
        match self {
            Rounding::Double | Rounding::Single => factor.is_valid(),
            Rounding::Float32 => {
                let (real, zero_point) = (factor.as_f32(), f32::from_bits(factor.shift as u32));
                real.is_finite() && real.is_sign_positive() && zero_point.is_finite()
            }
            Rounding::Float64 => {
                let real = factor.as_f64();
                real.is_finite() && real.is_sign_positive()
            }
        }
    }
}

/// A 32-bit fixed-point factor, `mantissa * 2^(shift - 31)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Multiplier {
    /// Not negative; at least 2^30 where the factor is not 0.
    pub mantissa: i32,
    /// In -31..=30; positive is a left shift.
    pub shift: i32,
}

impl Multiplier {
    /// Whether requantization is defined for it.
    pub(crate) fn is_valid(self) -> bool {
        self.mantissa >= 0 && (-31..=30).contains(&self.shift)
    }

    /// A factor for [`Rounding::Float32`].
    pub const fn from_f32(factor: f32) -> Multiplier {
        Multiplier {
            mantissa: factor.to_bits() as i32,
            shift: 0,
        }
    }

    /// A factor for [`Rounding::Float32`] with a zero point that is added before rounding, instead of the output's after it.
    pub const fn with_zero_point(factor: f32, zero_point: f32) -> Multiplier {
        // 0 says that there is none
        let zero_point = if zero_point == 0.0 { -0.0 } else { zero_point };
        Multiplier {
            mantissa: factor.to_bits() as i32,
            shift: zero_point.to_bits() as i32,
        }
    }

    /// A factor for [`Rounding::Float64`].
    pub const fn from_f64(factor: f64) -> Multiplier {
        let bits = factor.to_bits();
        Multiplier {
            mantissa: (bits >> 32) as i32,
            shift: bits as i32,
        }
    }

    /// `x` with [`Rounding::Float32`] on a grid with this zero point.
    #[inline(always)]
    pub(crate) fn onto_grid(self, x: i32, zero_point: i32) -> i32 {
        let real = x as f32 * self.as_f32();
        match self.shift {
            0 => nearest_even(real) + zero_point,
            bits => nearest_even(real + f32::from_bits(bits as u32)),
        }
    }

    fn as_f32(self) -> f32 {
        f32::from_bits(self.mantissa as u32)
    }

    fn as_f64(self) -> f64 {
        f64::from_bits((self.mantissa as u32 as u64) << 32 | self.shift as u32 as u64)
    }
}

/// `a b / 2^31`, rounded to nearest, halves up; saturates for `a = b = i32::MIN`.
/// (gemmlowp `SaturatingRoundingDoublingHighMul`, ARM `VQRDMULH`.)
#[inline]
pub fn doubling_high_mul(a: i32, b: i32) -> i32 {
    if a == i32::MIN && b == i32::MIN {
        return i32::MAX;
    }
    let product = a as i64 * b as i64;
    // For a negative product gemmlowp adds 1 - 2^30 and divides towards zero: that is this, without the branch.
    ((product + (1 << 30)) >> 31) as i32
}

/// `round(x / 2^exponent)`, halves away from zero, for an exponent in 0..=31. (gemmlowp `RoundingDivideByPOT`.)
#[inline(always)]
pub fn rounding_shift(x: i32, exponent: u32) -> i32 {
    let mask = ((1u32 << exponent) - 1) as i32;
    let remainder = x & mask;
    let threshold = (mask >> 1) + (x < 0) as i32;
    (x >> exponent) + (remainder > threshold) as i32
}

/// To the nearest integer, halves to even; saturates at 2^22.
#[inline(always)]
pub fn nearest_even(x: f32) -> i32 {
    // Above this, f32 numbers have no fraction: the sum rounds as IEEE 754 does by default.
    const STEP: f32 = 12_582_912.0;
    const LIMIT: f32 = 4_194_304.0;
    (x.clamp(-LIMIT, LIMIT) + STEP - STEP) as i32
}

/// `x` times a factor, rounded. (TFLite `MultiplyByQuantizedMultiplier` in its two forms, and what other runtimes do.)
// Once per output element, and many instructions where 64-bit products are by hand: small chips keep one copy.
#[cfg_attr(
    all(any(target_arch = "arm", target_arch = "riscv32"), not(foolproof_dsp)),
    inline(never)
)]
#[cfg_attr(
    any(foolproof_dsp, not(any(target_arch = "arm", target_arch = "riscv32"))),
    inline
)]
pub fn requantize(x: i32, factor: Multiplier, rounding: Rounding) -> i32 {
    match rounding {
        Rounding::Double => {
            let left = factor.shift.max(0) as u32;
            let right = (-factor.shift).max(0) as u32;
            rounding_shift(
                doubling_high_mul(x.wrapping_shl(left), factor.mantissa),
                right,
            )
        }
        Rounding::Single => {
            let shift = (31 - factor.shift) as u32;
            let product = x as i64 * factor.mantissa as i64;
            ((product + (1i64 << (shift - 1))) >> shift) as i32
        }
        Rounding::Float32 => nearest_even(x as f32 * factor.as_f32()),
        Rounding::Float64 => libm::round(x as f64 * factor.as_f64()) as i32,
    }
}

/// `x 2^exponent`, saturating. (gemmlowp `SaturatingRoundingMultiplyByPOT`, positive exponents.)
#[inline(always)]
pub(crate) fn saturating_shl(x: i32, exponent: u32) -> i32 {
    let limit = i32::MAX >> exponent;
    if x > limit {
        i32::MAX
    } else if x < -limit {
        i32::MIN
    } else {
        x << exponent
    }
}

/// exp(a) for a in [-1/4, 0), argument and result with 0 integer bits: a Taylor expansion around -1/8.
fn exp_near_zero(a: i32) -> i32 {
    const EXP_MINUS_1_8: i32 = 1895147668;
    const ONE_THIRD: i32 = 715827883;
    let x = a.wrapping_add(1 << 28);
    let x2 = doubling_high_mul(x, x);
    let x3 = doubling_high_mul(x2, x);
    let x4 = doubling_high_mul(x2, x2);
    let x4_over_4 = rounding_shift(x4, 2);
    let tail = rounding_shift(
        doubling_high_mul(x4_over_4.wrapping_add(x3), ONE_THIRD).wrapping_add(x2),
        1,
    );
    EXP_MINUS_1_8.wrapping_add(doubling_high_mul(EXP_MINUS_1_8, x.wrapping_add(tail)))
}

/// exp(a) for a <= 0 with `BITS` integer bits, 4 or 5; the result has 0 integer bits. (gemmlowp
/// `exp_on_negative_values`.)
pub fn exp_on_negative_values<const BITS: u32>(a: i32) -> i32 {
    // exp(-2^k) for k = -2..=4, with 0 integer bits.
    const FACTORS: [i32; 7] = [
        1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242,
    ];
    let quarter = 1 << (31 - BITS - 2);
    if a == 0 {
        return i32::MAX;
    }
    let fraction = (a & (quarter - 1)) - quarter;
    let mut result = exp_near_zero(saturating_shl(fraction, BITS));
    let remainder = fraction.wrapping_sub(a);
    for (k, &factor) in FACTORS.iter().enumerate().take(BITS as usize + 2) {
        if remainder & (quarter << k) != 0 {
            result = doubling_high_mul(result, factor);
        }
    }
    result
}

/// 2 / (1 + a) for a in [0, 1), 0 integer bits in, 2 out: three Newton-Raphson steps.
fn two_over_one_plus(a: i32) -> i32 {
    const C48_OVER_17: i32 = 1515870810;
    const NEG_32_OVER_17: i32 = -1010580540;
    let sum = a as i64 + i32::MAX as i64;
    let half_denominator = ((sum + if sum >= 0 { 1 } else { -1 }) / 2) as i32;
    let mut x = C48_OVER_17.wrapping_add(doubling_high_mul(half_denominator, NEG_32_OVER_17));
    for _ in 0..3 {
        let error = (1i32 << 29).wrapping_sub(doubling_high_mul(half_denominator, x));
        x = x.wrapping_add(saturating_shl(doubling_high_mul(x, error), 2));
    }
    x
}

/// 1 / (1 + a) for a in [0, 1), 0 integer bits. (gemmlowp `one_over_one_plus_x_for_x_in_0_1`.)
pub(crate) fn one_over_one_plus(a: i32) -> i32 {
    saturating_shl(two_over_one_plus(a), 1)
}

/// 1 / (1 + exp(-a)), 4 integer bits in, 0 out. (gemmlowp `logistic`.)
pub fn logistic(a: i32) -> i32 {
    if a == 0 {
        return 1 << 30;
    }
    let positive = one_over_one_plus(exp_on_negative_values::<4>(a.wrapping_abs().wrapping_neg()));
    if a > 0 {
        positive
    } else {
        i32::MAX.wrapping_sub(positive)
    }
}

/// tanh(a), 4 integer bits in, 0 out. (gemmlowp `tanh`.)
pub fn tanh(a: i32) -> i32 {
    if a == 0 {
        return 0;
    }
    // (1 - e) / (1 + e) = 2 / (1 + e) - 1 with e = exp(-2 |a|); the doubling is one more integer bit.
    let e = exp_on_negative_values::<5>(a.wrapping_abs().wrapping_neg());
    let magnitude = saturating_shl(two_over_one_plus(e).wrapping_sub(1 << 29), 2);
    if a > 0 {
        magnitude
    } else {
        magnitude.wrapping_neg()
    }
}

/// A real factor as mantissa and shift; one below 2^-32 or so becomes 0. `None`: negative, not finite, or 2^30 and more.
/// (TFLite `QuantizeMultiplier`.)
pub fn multiplier(real: f64) -> Option<Multiplier> {
    if !real.is_finite() || real < 0.0 {
        return None;
    }
    let (fraction, mut shift) = libm::frexp(real);
    let mut mantissa = libm::round(fraction * (1u64 << 31) as f64) as i64;
    if mantissa == 1 << 31 {
        mantissa /= 2;
        shift += 1;
    }
    if shift < -31 || real == 0.0 {
        return Some(Multiplier::default());
    }
    let mantissa = mantissa as i32;
    (shift <= 30).then_some(Multiplier { mantissa, shift })
}

/// `1 / sum` for a positive sum with 12 integer bits, as `(mantissa, bits)`: `mantissa 2^-31 2^-bits`.
/// (TFLite `GetReciprocal`.)
pub fn reciprocal(sum: i32) -> (i32, i32) {
    let headroom = (sum as u32).leading_zeros();
    let shifted = (sum as u32).checked_shl(headroom).unwrap_or(0);
    let mantissa = one_over_one_plus(shifted.wrapping_sub(1 << 31) as i32);
    (mantissa, 12 - headroom as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_and_reciprocal_are_close_to_the_real_ones() {
        for i in 0..4000 {
            let x = -16.0 * i as f64 / 4000.0;
            let got =
                exp_on_negative_values::<5>((x * (1 << 26) as f64) as i32) as f64 / 2f64.powi(31);
            assert!((got - x.exp()).abs() < 3e-7, "exp({x}) = {got}");
            let sum = 1.0 + 500.0 * i as f64 / 4000.0;
            let (mantissa, bits) = reciprocal((sum * (1 << 19) as f64) as i32);
            let got = mantissa as f64 * 2f64.powi(-31 - bits);
            assert!((got * sum - 1.0).abs() < 1e-5, "1/{sum} = {got}");
        }
    }
}
