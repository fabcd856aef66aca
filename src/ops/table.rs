//! The table of an int8 [`Unary`] operator, entry for entry what the runtime computes, and its slopes. Made
//! where models are made: on the host.

use super::{Activation, Multiplier, Numerics, Rounding, Unary};
use crate::kernels::fixed_point::{
    logistic, multiplier, nearest_even, requantize, rounding_shift, tanh,
};
use crate::tensor::Quant;

/// Operands 1 and 2 of an int8 [`Unary`] operator.
#[derive(Clone, Debug)]
pub struct Table {
    /// The output for each input, from -128 on.
    pub values: [i8; 256],
    /// The derivative of the real function at each input, in real units; 0 where a piecewise linear function is clamped or
    /// its output sits on a rail.
    pub slopes: [f32; 256],
}

impl Unary {
    /// The table for these quantizations. `None`: their scales are too far apart for 32-bit factors, or
    /// the output of a sigmoid (scale 1/256, zero point -128) or tanh (1/128, 0) is not as TFLite prescribes.
    pub fn table(&self, input: &Quant, output: &Quant, numerics: Numerics) -> Option<Table> {
        let rounding = numerics.fixed_point();
        let mut table = Table {
            values: [0; 256],
            slopes: [0.0; 256],
        };
        for (i, (value, slope)) in table.values.iter_mut().zip(&mut table.slopes).enumerate() {
            let x = i as i32 - 128 - input.zero_point;
            (*value, *slope) = match self {
                Unary::Tanh | Unary::Sigmoid => {
                    let (fixed, slope) = self.smooth(x, input, output, rounding)?;
                    match numerics {
                        Numerics::Xnnpack => (self.smooth_f32(x, input, output), slope),
                        _ => (fixed, slope),
                    }
                }
                Unary::Relu | Unary::Relu6 | Unary::LeakyRelu { .. } | Unary::Requantize => {
                    match numerics {
                        Numerics::Xnnpack => self.linear_8_bits(x, input, output)?,
                        _ => self.linear(x, input, output, rounding)?,
                    }
                }
                _ => self.sampled(x, input, output),
            };
        }
        Some(table)
    }

    /// Fixed-point arithmetic with 4 integer bits; constant outside the range that they hold.
    fn smooth(
        &self,
        x: i32,
        input: &Quant,
        output: &Quant,
        rounding: Rounding,
    ) -> Option<(i8, f32)> {
        let sigmoid = *self == Unary::Sigmoid;
        let expected = if sigmoid {
            (1.0 / 256.0, -128)
        } else {
            (1.0 / 128.0, 0)
        };
        if (output.scale, output.zero_point) != expected {
            return None;
        }
        let (factor, radius) = match multiplier(input.scale as f64 * (1 << 27) as f64) {
            Some(factor) => {
                let steps = 15.0 * (1 << 27) as f64 / libm::exp2(factor.shift as f64);
                (factor, libm::floor(steps) as i32)
            }
            // Steps of 8 and more: TFLite's radius is below one step.
            None => (Multiplier::default(), 0),
        };
        let q = if x <= -radius {
            -128
        } else if x >= radius {
            127
        } else if sigmoid {
            rounding_shift(logistic(requantize(x, factor, rounding)), 31 - 8) - 128
        } else {
            rounding_shift(tanh(requantize(x, factor, rounding)), 31 - 7)
        };
        let real = x as f64 * input.scale as f64;
        let slope = if sigmoid {
            let y = 1.0 / (1.0 + libm::exp(-real));
            y * (1.0 - y)
        } else {
            let y = libm::tanh(real);
            1.0 - y * y
        };
        Some((q.clamp(-128, 127) as i8, slope as f32))
    }

    /// The function itself, rounded once: TFLite has no arithmetic of its own for these, or another one in each version.
    fn sampled(&self, x: i32, input: &Quant, output: &Quant) -> (i8, f32) {
        let real = x as f32 * input.scale;
        let steps = libm::round(self.apply(real) as f64 / output.scale as f64);
        // saturates; not-a-number becomes 0
        let q = (steps + output.zero_point as f64) as i32;
        let inside = (-128..=127).contains(&q);
        let slope = self.slope(real);
        let slope = if inside && slope.is_finite() {
            slope
        } else {
            0.0
        };
        (q.clamp(-128, 127) as i8, slope)
    }

    /// XNNPACK's table, made by its reference operator: the real function, rounded with halves to even.
    fn smooth_f32(&self, x: i32, input: &Quant, output: &Quant) -> i8 {
        let real = x as f32 * input.scale;
        let y = match self {
            Unary::Sigmoid if real > 100.0 => 1.0,
            Unary::Sigmoid if real < -100.0 => 0.0,
            Unary::Sigmoid => {
                let e = libm::exp(real as f64);
                (e / (1.0 + e)) as f32
            }
            _ => libm::tanh(real as f64) as f32,
        };
        let inverse = 1.0 / output.scale;
        nearest_even(y * inverse + output.zero_point as f32).clamp(-128, 127) as i8
    }

    /// XNNPACK's requantization and leaky ReLU: factors with 8 bits after the point, halves up. What it refuses stays with
    /// LiteRT's own kernels, in fixed point.
    fn linear_8_bits(&self, x: i32, input: &Quant, output: &Quant) -> Option<(i8, f32)> {
        let positive = input.scale / output.scale;
        let (alpha, delegated) = match *self {
            Unary::Requantize => (1.0, true),
            Unary::LeakyRelu { alpha } => {
                let negative = positive * alpha;
                let fits = alpha.is_normal()
                    && (-127.996_09..=128.0).contains(&negative)
                    && libm::fabsf(negative) >= 1.0 / 256.0;
                (alpha, fits)
            }
            _ => (1.0, false),
        };
        if !delegated || !(1.0 / 256.0..=128.0).contains(&positive) {
            return self.linear(x, input, output, Rounding::Double);
        }
        let (factor, slope) = match x < 0 {
            true => (positive * alpha, alpha),
            false => (positive, 1.0),
        };
        let q = ((x * nearest_even(256.0 * factor) + 128) >> 8) + output.zero_point;
        let passes = q > -128 && q < 127;
        Some((q.clamp(-128, 127) as i8, if passes { slope } else { 0.0 }))
    }

    /// Requantization with a slope on either side of 0, and a clamp.
    fn linear(
        &self,
        x: i32,
        input: &Quant,
        output: &Quant,
        rounding: Rounding,
    ) -> Option<(i8, f32)> {
        let activation = match self {
            Unary::Relu => Activation::Relu,
            Unary::Relu6 => Activation::Relu6,
            _ => Activation::None,
        };
        // TFLite divides in single precision here, except where it requantizes.
        let (slope, factor) = match *self {
            Unary::LeakyRelu { alpha } if x < 0 => {
                (alpha, (input.scale * alpha / output.scale) as f64)
            }
            Unary::Requantize => (1.0, input.scale as f64 / output.scale as f64),
            _ => (1.0, (input.scale / output.scale) as f64),
        };
        // A step shifted further than this would leave 32 bits.
        let factor = multiplier(factor).filter(|m| m.shift <= 22)?;
        let q = requantize(x, factor, rounding).saturating_add(output.zero_point);
        let (low, high) = activation.range_i8(output);
        let passes = q > low && q < high;
        Some((q.max(low).min(high) as i8, if passes { slope } else { 0.0 }))
    }
}
