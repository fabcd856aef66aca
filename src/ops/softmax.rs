//! Softmax over the last axis.

use super::{Context, OpError, Softmax, check};
use crate::kernels::fixed_point::{
    doubling_high_mul, exp_on_negative_values, reciprocal, requantize, rounding_shift,
};
use crate::tensor::{DType, Data, DataMut, Operand};

/// Integer softmax sums exponentials with 12 integer bits.
const MAX_CLASSES: usize = 4095;
/// Entries of a table of exponentials: one per difference from the maximum.
const EXPONENTIALS: usize = 256;

impl Softmax {
    pub(super) fn check(&self, inputs: &[Operand], output: &Operand) -> Result<(), OpError> {
        let [x, table @ ..] = inputs else {
            return check::count(inputs.len(), 1);
        };
        let dtype = check::activation_types(x, output)?;
        if !self.beta.is_finite() {
            return Err(OpError::Attribute);
        }
        if dtype == DType::I8 {
            if output.quant.scale != 1.0 / 256.0 || output.quant.zero_point != -128 {
                return Err(OpError::Quantization {
                    operand: check::OUTPUT,
                });
            }
            if !self.input.is_valid() || self.input.shift < 0 || self.diff_min > 0 {
                return Err(OpError::Attribute);
            }
            if x.shape.channels() > MAX_CLASSES {
                return Err(OpError::Shape { operand: 0 });
            }
        }
        match (table, dtype) {
            ([], _) => {}
            ([table], DType::I8) => check::constant(table, 1, DType::F32, EXPONENTIALS)?,
            _ => return check::count(inputs.len(), 1),
        }
        Ok(())
    }

    /// `exp(-beta scale d)` for differences `d` of 0 to 255 steps: operand 1 of an int8 softmax with XNNPACK's numerics, which
    /// leaves it to LiteRT's optimized kernel (`PopulateSoftmaxLookupTable`). Made where models are made: on the host.
    pub fn exponentials(beta: f32, scale: f32) -> [f32; EXPONENTIALS] {
        core::array::from_fn(|d| libm::exp((-scale * beta * d as f32) as f64) as f32)
    }

    pub(super) fn forward(&self, cx: &Context, inputs: &[Operand], y: DataMut) {
        let Some(x) = inputs.first() else { return };
        let classes = x.shape.channels();
        match (x.data, y) {
            (Data::F32(x), DataMut::F32(y)) => {
                for (x, y) in x.chunks_exact(classes).zip(y.chunks_exact_mut(classes)) {
                    self.row_f32(x, y);
                }
            }
            (Data::I8(x), DataMut::I8(y)) if inputs.len() == 2 => {
                let table = inputs[1].f32();
                for (x, y) in x.chunks_exact(classes).zip(y.chunks_exact_mut(classes)) {
                    row_by_table(table, x, y);
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

    fn row_f32(&self, x: &[f32], y: &mut [f32]) {
        // The largest exponent is 0, whatever the sign of beta.
        let mut max = f32::NEG_INFINITY;
        for (y, &x) in y.iter_mut().zip(x) {
            *y = self.beta * x;
            if *y > max {
                max = *y;
            }
        }
        let mut sum = 0.0;
        for y in y.iter_mut() {
            *y = crate::math::exp(*y - max);
            sum += *y;
        }
        for y in y {
            *y /= sum;
        }
    }

    /// TFLite Micro's int8 softmax, which is gemmlowp's fixed-point arithmetic: differences with 5 integer
    /// bits, exponentials with 0, their sum with 12.
    fn row_i8(&self, cx: &Context, x: &[i8], y: &mut [i8]) {
        let max = x.iter().fold(i8::MIN, |max, &x| max.max(x)) as i32;
        let exponential = |x: i8| {
            let difference = x as i32 - max;
            (difference >= self.diff_min).then(|| {
                exp_on_negative_values::<5>(requantize(difference, self.input, cx.rounding()))
            })
        };
        let mut sum = 0i32;
        for &x in x {
            if let Some(e) = exponential(x) {
                sum = sum.wrapping_add(rounding_shift(e, 12));
            }
        }
        let (scale, bits) = reciprocal(sum);
        // Above 512 in the sum, everything rounds to 0.
        let shift = bits + 31 - 8;
        for (y, &x) in y.iter_mut().zip(x) {
            let q = match exponential(x) {
                Some(e) if (0..=31).contains(&shift) => {
                    rounding_shift(doubling_high_mul(scale, e), shift as u32)
                }
                _ => 0,
            };
            *y = q.saturating_sub(128).clamp(-128, 127) as i8;
        }
    }

    /// `beta y (gy - sum of gy y)` by row, with int8 outputs in real units.
    pub(super) fn input_gradient(&self, output: &Operand, gy: &[f32], gx: &mut [f32]) {
        let classes = output.shape.channels();
        match output.data {
            Data::F32(y) => self.gradient_rows(classes, y, |y| y, gy, gx),
            Data::I8(y) => {
                let real = |q: i8| (q as i32 - output.quant.zero_point) as f32 * output.quant.scale;
                self.gradient_rows(classes, y, real, gy, gx);
            }
            _ => {}
        }
    }

    fn gradient_rows<T: Copy>(
        &self,
        classes: usize,
        y: &[T],
        real: impl Fn(T) -> f32,
        gy: &[f32],
        gx: &mut [f32],
    ) {
        let rows = y.chunks_exact(classes).zip(gy.chunks_exact(classes));
        for ((y, gy), gx) in rows.zip(gx.chunks_exact_mut(classes)) {
            let mut mean = 0.0;
            for (&y, &gy) in y.iter().zip(gy) {
                mean += real(y) * gy;
            }
            for ((&y, &gy), gx) in y.iter().zip(gy).zip(gx) {
                *gx += self.beta * real(y) * (gy - mean);
            }
        }
    }
}

/// LiteRT's optimized int8 softmax: f32, summed in order.
fn row_by_table(table: &[f32], x: &[i8], y: &mut [i8]) {
    let max = x.iter().fold(i8::MIN, |max, &x| max.max(x)) as i32;
    let exponential = |x: i8| table[(max - x as i32) as usize];
    let mut sum = 0.0;
    for &x in x {
        sum += exponential(x);
    }
    let inverse = 1.0 / (sum * (1.0 / 256.0));
    for (y, &x) in y.iter_mut().zip(x) {
        let q = libm::roundf(exponential(x) * inverse) as i32;
        *y = q.saturating_sub(128).clamp(-128, 127) as i8;
    }
}
