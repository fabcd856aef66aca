//! Quantize (f32 to int8) and Dequantize (int8 to f32).

use super::{Numerics, OpError, check};
use crate::kernels::fixed_point::nearest_even;
use crate::tensor::{DType, Operand, Quant};

/// Quantize takes f32 to int8, Dequantize the other way.
pub(super) fn check(
    from: DType,
    to: DType,
    inputs: &[Operand],
    output: &Operand,
) -> Result<(), OpError> {
    check::count(inputs.len(), 1)?;
    let [x] = inputs else {
        return Err(OpError::Attribute);
    };
    check::dtype(x, 0, from)?;
    check::dtype(output, check::OUTPUT, to)?;
    check::per_tensor(x, 0)?;
    check::per_tensor(output, check::OUTPUT)
}

/// `round(x / scale) + zero_point`, halves away from zero, saturating; not-a-number counts as 0. (TFLite `AffineQuantize`:
/// the division is in single precision.) XNNPACK multiplies by `1 / scale` and rounds halves to even.
pub(super) fn quantize(numerics: Numerics, quant: &Quant, x: &[f32], y: &mut [i8]) {
    let inverse = 1.0 / quant.scale;
    for (y, &x) in y.iter_mut().zip(x) {
        let steps = match numerics {
            Numerics::Xnnpack => nearest_even(x * inverse),
            _ => libm::roundf(x / quant.scale) as i32,
        };
        *y = steps.saturating_add(quant.zero_point).clamp(-128, 127) as i8;
    }
}

/// `scale (q - zero_point)`.
pub(super) fn dequantize(quant: &Quant, x: &[i8], y: &mut [f32]) {
    for (y, &q) in y.iter_mut().zip(x) {
        *y = quant.scale * (q as i32 - quant.zero_point) as f32;
    }
}
