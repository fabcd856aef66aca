//! Functions of each element: computed in f32, looked up in int8.

use super::{Activation, Context, OpError, Seen, Unary, activation, check};
use crate::kernels;
use crate::tensor::{DType, Data, DataMut, Operand};

/// Entries of an int8 table: one per input value, from -128 on.
const ENTRIES: usize = 256;

impl Unary {
    pub(super) fn check(&self, inputs: &[Operand], output: &Operand) -> Result<(), OpError> {
        let Some(x) = inputs.first() else {
            return check::count(0, 1);
        };
        if let Unary::LeakyRelu { alpha } = self
            && !(alpha.is_finite() && *alpha >= 0.0)
        {
            return Err(OpError::Attribute);
        }
        match *self {
            // not-a-number is in no order
            Unary::Clip { low, high } if low.is_nan() || high.is_nan() || low > high => {
                return Err(OpError::Attribute);
            }
            Unary::Elu { alpha } if !alpha.is_finite() => return Err(OpError::Attribute),
            _ => {}
        }
        match check::activation_types(x, output)? {
            DType::I8 => {
                check::count(inputs.len(), 3)?;
                let [_, table, slope] = inputs else {
                    return Err(OpError::Attribute);
                };
                check::constant(table, 1, DType::I8, ENTRIES)?;
                check::constant(slope, 2, DType::F32, ENTRIES)
            }
            _ => check::count(inputs.len(), 1),
        }
    }

    /// Relu and Relu6 as the activation that they are.
    fn clamp(&self) -> Activation {
        match self {
            Unary::Relu => Activation::Relu,
            Unary::Relu6 => Activation::Relu6,
            _ => Activation::None,
        }
    }

    /// The function itself.
    pub(super) fn apply(&self, x: f32) -> f32 {
        match *self {
            Unary::Relu | Unary::Relu6 => self.clamp().apply(x),
            Unary::LeakyRelu { alpha } if x < 0.0 => alpha * x,
            Unary::LeakyRelu { .. } | Unary::Requantize => x,
            Unary::Tanh => crate::math::tanh(x),
            Unary::Sigmoid => 1.0 / (1.0 + crate::math::exp(-x)),
            // not-a-number stays
            Unary::Clip { low, .. } if x < low => low,
            Unary::Clip { high, .. } if x > high => high,
            Unary::Clip { .. } => x,
            Unary::Elu { alpha } if x < 0.0 => alpha * libm::expm1f(x),
            Unary::Elu { .. } => x,
            Unary::Abs => x.abs(),
            Unary::Exp => crate::math::exp(x),
            Unary::Log => crate::math::log(x),
            Unary::Sqrt => libm::sqrtf(x),
            Unary::Reciprocal => 1.0 / x,
            Unary::Softplus => x.max(0.0) + libm::log1pf(libm::expf(-x.abs())),
            Unary::Erf => libm::erff(x),
        }
    }

    /// The derivative at `x`, of those whose backward sees their input.
    pub(super) fn slope(&self, x: f32) -> f32 {
        match *self {
            Unary::Clip { low, high } => f32::from(u8::from(x > low && x < high)),
            Unary::Elu { alpha } if x < 0.0 => alpha * libm::expf(x),
            Unary::Abs if x < 0.0 => -1.0,
            Unary::Abs if x > 0.0 => 1.0,
            Unary::Abs => 0.0,
            Unary::Exp => libm::expf(x),
            Unary::Log => 1.0 / x,
            Unary::Sqrt => 0.5 / libm::sqrtf(x),
            Unary::Reciprocal => -1.0 / (x * x),
            Unary::Softplus => 1.0 / (1.0 + libm::expf(-x)),
            Unary::Erf => core::f32::consts::FRAC_2_SQRT_PI * libm::expf(-x * x),
            _ => 1.0,
        }
    }

    pub(super) fn forward(&self, cx: &Context, inputs: &[Operand], y: DataMut) {
        let Some(x) = inputs.first() else { return };
        match (x.data, y) {
            (Data::F32(x), DataMut::F32(y)) => match *self {
                Unary::Tanh => kernels::tanh_f32(cx.kernels, x, y),
                Unary::Relu | Unary::Relu6 => {
                    let clamp = self.clamp();
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = clamp.apply(x);
                    }
                }
                Unary::LeakyRelu { alpha } => {
                    // without a branch in the loop: signs come at random
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = if x < 0.0 { alpha * x } else { x };
                    }
                }
                _ => {
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = self.apply(x);
                    }
                }
            },
            (Data::I8(x), DataMut::I8(y)) => {
                let table = inputs.get(1).map_or(&[][..], |t| t.i8());
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = table[entry(x)];
                }
            }
            _ => {}
        }
    }

    pub(super) fn save(&self, cx: &Context, output: &Operand, saved: &mut [u8]) {
        // A leaky ReLU's output is positive just where its input is.
        let clamp = match self {
            Unary::LeakyRelu { .. } => Activation::Relu,
            _ => self.clamp(),
        };
        activation::save_bits(cx, clamp, output, saved);
    }

    pub(super) fn activation_gradient(&self, cx: &Context, seen: &Seen, gy: &mut [f32]) {
        let Seen {
            inputs,
            output,
            saved,
        } = *seen;
        if let [
            Operand {
                data: Data::I8(x), ..
            },
            _,
            slope,
        ] = inputs
        {
            let slope = slope.f32();
            for (gy, &x) in gy.iter_mut().zip(*x) {
                *gy *= slope[entry(x)];
            }
            return;
        }
        match *self {
            Unary::Relu | Unary::Relu6 => activation::mask(cx, saved, 0.0, gy),
            Unary::LeakyRelu { alpha } => activation::mask(cx, saved, alpha, gy),
            Unary::Tanh => {
                for (gy, &y) in gy.iter_mut().zip(output.f32()) {
                    *gy *= 1.0 - y * y;
                }
            }
            Unary::Sigmoid => {
                for (gy, &y) in gy.iter_mut().zip(output.f32()) {
                    *gy *= y * (1.0 - y);
                }
            }
            Unary::Requantize => {}
            _ => {
                let x = inputs.first().map_or(&[][..], |x| x.f32());
                for (gy, &x) in gy.iter_mut().zip(x) {
                    *gy *= self.slope(x);
                }
            }
        }
    }
}

/// Where the table holds the value for input `q`.
fn entry(q: i8) -> usize {
    (q as i32 + 128) as usize
}
