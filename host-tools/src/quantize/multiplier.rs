//! Real factors as 32-bit fixed-point multipliers: what TFLite Micro computes once, when it loads a model, is
//! computed here, in the same precision (`f64`, with the products that TFLite takes in `f32` taken in `f32`),
//! and stored in the image. The quantizer and the `.tflite` importer share these functions.
//!
//! A `None` says that the factor is not one that the arithmetic can hold: negative, not finite, or at least 2^30.

pub use foolproof::kernels::fixed_point::multiplier as quantize_multiplier;
use foolproof::ops::{Activation, Add, Multiplier, Numerics, Rounding};

/// The largest shift that the engine's requantization takes.
const MAX_SHIFT: i32 = 30;
/// Bits before the point in the fixed-point differences of softmax (TFLite's kScaledDiffIntegerBits).
const SOFTMAX_INTEGER_BITS: i32 = 5;
/// By how much the inputs of an int8 sum are shifted left before they are scaled.
const ADD_LEFT_SHIFT: u8 = 20;

/// A convolution's factor `x w / y` for one output channel.
pub fn convolution(numerics: Numerics, x: f32, w: f32, y: f32) -> Option<Multiplier> {
    match numerics.convolution() {
        Rounding::Float32 => in_single_precision(x * w / y),
        _ => per_channel(x, w, y),
    }
}

/// A dense layer's factor for one output; `one_scale`: all its weights have the scale `w`.
pub fn dense(numerics: Numerics, one_scale: bool, x: f32, w: f32, y: f32) -> Option<Multiplier> {
    match (numerics.dense(), one_scale) {
        (Rounding::Float32, _) => in_single_precision(x * w / y),
        (Rounding::Float64, _) => {
            let real = f64::from(x) * f64::from(w) / f64::from(y);
            real.is_finite().then(|| Multiplier::from_f64(real))
        }
        (_, true) => dense_per_tensor(x, w, y),
        (_, false) => per_channel(x, w, y),
    }
}

/// The factor that leaves an accumulator of a convolution as it is, `1`, or another real factor.
pub fn accumulator(numerics: Numerics, real: f64) -> Option<Multiplier> {
    match numerics.convolution() {
        Rounding::Float32 => in_single_precision(real as f32),
        _ => quantize_multiplier(real),
    }
}

/// XNNPACK refuses factors of 256 and more.
fn in_single_precision(real: f32) -> Option<Multiplier> {
    (real < 256.0).then(|| Multiplier::from_f32(real))
}

/// Convolutions, and dense layers with a scale per channel: `x w / y`, all in double precision.
pub fn per_channel(x: f32, w: f32, y: f32) -> Option<Multiplier> {
    quantize_multiplier(f64::from(x) * f64::from(w) / f64::from(y))
}

/// Dense layers with one scale for all weights: TFLite multiplies the two scales in single precision.
pub fn dense_per_tensor(x: f32, w: f32, y: f32) -> Option<Multiplier> {
    quantize_multiplier(f64::from(x * w) / f64::from(y))
}

/// Elementwise products.
pub fn mul(numerics: Numerics, a: f32, b: f32, y: f32) -> Option<Multiplier> {
    match numerics.convolution() {
        Rounding::Float32 => in_single_precision(a * b / y),
        _ => quantize_multiplier(f64::from(a) * f64::from(b) / f64::from(y)),
    }
}

/// An elementwise sum. `None` also where the output's scale is so small against the inputs' that the last factor is not below 1.
pub fn add(numerics: Numerics, activation: Activation, [a, b, y]: [f32; 3]) -> Option<Add> {
    let delegated = |ratio: f32| (1.0 / 1024.0..256.0).contains(&ratio);
    let (left_shift, (inputs, output)) =
        if numerics == Numerics::Xnnpack && delegated(a / y) && delegated(b / y) {
            (0, add_once(a / y, b / y))
        } else {
            (ADD_LEFT_SHIFT, add_in_fixed_point(a, b, y)?)
        };
    Some(Add {
        activation,
        left_shift,
        inputs,
        output,
    })
}

/// XNNPACK's sum: factors of at most 21 bits, the larger of which has all of them, and one shift.
fn add_once(a: f32, b: f32) -> ([Multiplier; 2], Multiplier) {
    // between 2^-10 and 2^8: a normal number
    let exponent = (a.max(b).to_bits() >> 23) as i32 - 127;
    let shift = 20 - exponent;
    let factor = |ratio: f32| Multiplier {
        mantissa: (f64::from(ratio) * 2_f64.powi(shift)).round_ties_even() as i32,
        shift: 0,
    };
    let output = Multiplier { mantissa: 0, shift };
    ([factor(a), factor(b)], output)
}

fn add_in_fixed_point(a: f32, b: f32, y: f32) -> Option<([Multiplier; 2], Multiplier)> {
    let twice_max = 2.0 * f64::from(a.max(b));
    let output = twice_max / (f64::from(1_u32 << ADD_LEFT_SHIFT) * f64::from(y));
    if output >= 1.0 {
        return None;
    }
    let inputs = [
        quantize_multiplier(f64::from(a) / twice_max)?,
        quantize_multiplier(f64::from(b) / twice_max)?,
    ];
    let output = quantize_multiplier(output)?;
    (output.shift <= 0).then_some((inputs, output))
}

/// The multiplier of the differences from the maximum, and the difference below which an exponential counts as
/// 0, for `softmax(beta x)` (TFLite's `PreprocessSoftmaxScaling` and `CalculateInputRadius`).
pub fn softmax(beta: f32, x: f32) -> Option<(Multiplier, i32)> {
    let factor = f64::from(beta) * f64::from(x) * f64::from(1_u32 << (31 - SOFTMAX_INTEGER_BITS));
    // TFLite refuses a factor that is not above 1; it would need a scale below 2^-26
    if !factor.is_finite() || factor <= 1.0 {
        return None;
    }
    match quantize_multiplier(factor) {
        Some(m) => Some((m, -(input_radius(SOFTMAX_INTEGER_BITS, m.shift) as i32))),
        // steps of 16 and more: TFLite saturates the factor, and only equals of the maximum count
        None => Some((LARGEST, 0)),
    }
}

/// The same for the logarithm of the softmax, and the factor that leads back (TFLite's `PreprocessLogSoftmaxScalingExp`).
pub fn log_softmax(x: f32) -> Option<(Multiplier, i32, Multiplier)> {
    let (forth, diff_min) = softmax(1.0, x)?;
    let inverse = 2_f64.powi(31 - forth.shift) / f64::from(forth.mantissa);
    Some((forth, diff_min, quantize_multiplier(inverse)?))
}

/// The largest factor that requantization takes.
const LARGEST: Multiplier = Multiplier {
    mantissa: i32::MAX,
    shift: MAX_SHIFT,
};

/// The largest input that a fixed-point function with this many integer bits tells from infinity, in steps
/// before the left shift (TFLite's `CalculateInputRadius`, 31 bits in all).
fn input_radius(integer_bits: i32, left_shift: i32) -> f64 {
    let largest = f64::from((1_i32 << integer_bits) - 1) * 2_f64.powi(31 - integer_bits);
    (largest / 2_f64.powi(left_shift)).floor()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn m(mantissa: i32, shift: i32) -> Option<Multiplier> {
        Some(Multiplier { mantissa, shift })
    }

    #[test]
    fn powers_of_two_have_the_smallest_mantissa() {
        assert_eq!(quantize_multiplier(1.0), m(1 << 30, 1));
        assert_eq!(quantize_multiplier(0.5), m(1 << 30, 0));
        assert_eq!(quantize_multiplier(0.25), m(1 << 30, -1));
        assert_eq!(quantize_multiplier(f64::from(1_u32 << 29)), m(1 << 30, 30));
    }

    #[test]
    fn a_mantissa_that_rounds_up_to_one_moves_into_the_shift() {
        // 1 - 2^-33 rounds to 2^31, which 32 bits do not hold
        assert_eq!(quantize_multiplier(1.0 - 2_f64.powi(-33)), m(1 << 30, 1));
        assert_eq!(quantize_multiplier(1.0 - 2_f64.powi(-31)), m(i32::MAX, 0));
        // at the upper end the same step leaves the range
        assert_eq!(quantize_multiplier(2_f64.powi(30) - 0.5), m(i32::MAX, 30));
        assert_eq!(quantize_multiplier(2_f64.powi(30) - 2_f64.powi(-4)), None);
    }

    #[test]
    fn too_small_is_zero_and_too_large_is_refused() {
        assert_eq!(quantize_multiplier(0.0), m(0, 0));
        assert_eq!(quantize_multiplier(-0.0), m(0, 0));
        assert_eq!(quantize_multiplier(2_f64.powi(-32)), m(1 << 30, -31));
        assert_eq!(quantize_multiplier(2_f64.powi(-33)), m(0, 0));
        assert_eq!(quantize_multiplier(f64::MIN_POSITIVE / 4.0), m(0, 0));
        assert_eq!(quantize_multiplier(2_f64.powi(30)), None);
        assert_eq!(quantize_multiplier(-1.0), None);
        assert_eq!(quantize_multiplier(f64::NAN), None);
        assert_eq!(quantize_multiplier(f64::INFINITY), None);
    }

    #[test]
    fn the_multiplier_is_the_factor_to_31_bits() {
        let mut factor = 1.3e-9;
        while factor < 9e8 {
            let q = quantize_multiplier(factor).unwrap();
            let back = f64::from(q.mantissa) * 2_f64.powi(q.shift - 31);
            assert!((back / factor - 1.0).abs() <= 2_f64.powi(-31), "{factor}");
            assert!(q.mantissa >= 1 << 30);
            factor *= 1.7;
        }
    }

    #[test]
    fn one_scale_for_all_weights_is_multiplied_in_single_precision() {
        let (x, w, y) = (0.1, 0.3, 0.7);
        assert_ne!(f64::from(x * w), f64::from(x) * f64::from(w));
        assert_ne!(dense_per_tensor(x, w, y), per_channel(x, w, y));
    }

    #[test]
    fn a_sum_scales_its_larger_input_by_a_half() {
        let sum = |scales| add(Numerics::Tflm, Activation::None, scales);
        let Add { inputs, output, .. } = sum([0.5, 0.25, 1.0]).unwrap();
        assert_eq!(Some(inputs[0]), m(1 << 30, 0));
        assert_eq!(Some(inputs[1]), m(1 << 30, -1));
        assert_eq!(Some(output), m(1 << 30, -19));
        // output steps 2^20 times as fine as twice the inputs'
        assert_eq!(sum([1.0, 1.0, 2_f32.powi(-19)]), None);
        assert!(sum([1.0, 1.0, 1.01 * 2_f32.powi(-19)]).is_some());
    }

    #[test]
    fn softmax_differences_have_26_bits_after_the_point() {
        let (multiplier, diff_min) = softmax(1.0, 0.1).unwrap();
        let factor = f64::from(multiplier.mantissa) * 2_f64.powi(multiplier.shift - 31);
        assert!((factor / (f64::from(0.1_f32) * 2_f64.powi(26)) - 1.0).abs() < 1e-9);
        // 31 * 2^26 / 2^23
        assert_eq!((multiplier.shift, diff_min), (23, -248));
        assert_eq!(softmax(1.0, 1e-9), None);
        assert_eq!(softmax(f32::NAN, 1.0), None);
        assert_eq!(softmax(1.0, 8.0).unwrap().1, -1);
        assert_eq!(softmax(1.0, 1000.0), Some((LARGEST, 0)));
    }
}
