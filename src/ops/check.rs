//! What the checks of several operators have in common.

use super::{Multiplier, OpError, Rounding};
use crate::kernels;
use crate::tensor::{DType, Data, Operand, Shape};

/// Stands for the output in an [`OpError`].
pub(super) const OUTPUT: u8 = 255;

/// Windows, images and padding stay below this along each axis, so that positions fit in 32 bits.
const MAX_EXTENT: u64 = 1 << 30;

/// Exactly `expected` inputs.
pub(super) fn count(inputs: usize, expected: u8) -> Result<(), OpError> {
    if inputs == expected as usize {
        Ok(())
    } else {
        Err(OpError::InputCount {
            expected,
            got: inputs.min(u8::MAX as usize) as u8,
        })
    }
}

/// Input `i`, which the caller knows to exist.
pub(super) fn shape(inputs: &[Shape], i: usize) -> Result<Shape, OpError> {
    let missing = OpError::InputCount {
        expected: (i + 1) as u8,
        got: inputs.len() as u8,
    };
    inputs.get(i).copied().ok_or(missing)
}

/// What holds of every operand: data (if any) of the stated type and length; int8 with a usable quantization.
pub(super) fn operand(x: &Operand, i: u8) -> Result<(), OpError> {
    let len = match (x.data, x.dtype) {
        (Data::Absent, _) => x.shape.len(),
        (Data::F32(d), DType::F32) => d.len(),
        (Data::I8(d), DType::I8) => d.len(),
        (Data::I32(d), DType::I32) => d.len(),
        _ => return Err(OpError::Type { operand: i }),
    };
    if len != x.shape.len() {
        return Err(OpError::Shape { operand: i });
    }
    if x.dtype == DType::I8 {
        let usable = |scale: f32| scale.is_finite() && scale > 0.0;
        let scales = if x.quant.channel_scales.is_empty() {
            usable(x.quant.scale)
        } else {
            x.quant.channel_scales.iter().all(|&s| usable(s))
        };
        if !scales || !(-128..=127).contains(&x.quant.zero_point) {
            return Err(OpError::Quantization { operand: i });
        }
    }
    Ok(())
}

/// Operand `i` has this type.
pub(super) fn dtype(x: &Operand, i: u8, expected: DType) -> Result<(), OpError> {
    if x.dtype == expected {
        Ok(())
    } else {
        Err(OpError::Type { operand: i })
    }
}

/// Operand `i` is a constant of this type with `len` elements.
pub(super) fn constant(x: &Operand, i: u8, expected: DType, len: usize) -> Result<(), OpError> {
    dtype(x, i, expected)?;
    if matches!(x.data, Data::Absent) {
        return Err(OpError::NotConstant { operand: i });
    }
    if x.shape.len() != len {
        return Err(OpError::Shape { operand: i });
    }
    Ok(())
}

/// The input's type, f32 or int8, which the output shares; one scale for all of an int8 activation.
pub(super) fn activation_types(x: &Operand, output: &Operand) -> Result<DType, OpError> {
    if x.dtype == DType::I32 {
        return Err(OpError::Type { operand: 0 });
    }
    dtype(output, OUTPUT, x.dtype)?;
    per_tensor(x, 0)?;
    per_tensor(output, OUTPUT)?;
    Ok(x.dtype)
}

/// One scale for the whole tensor.
pub(super) fn per_tensor(x: &Operand, i: u8) -> Result<(), OpError> {
    if x.quant.channel_scales.is_empty() {
        Ok(())
    } else {
        Err(OpError::Quantization { operand: i })
    }
}

/// int8 tensors that an operator moves without rescaling have one quantization.
pub(super) fn same_quantization(x: &Operand, i: u8, output: &Operand) -> Result<(), OpError> {
    let same = x.quant.scale == output.quant.scale && x.quant.zero_point == output.quant.zero_point;
    if x.dtype != DType::I8 || same {
        Ok(())
    } else {
        Err(OpError::Quantization { operand: i })
    }
}

/// Operands 1 and 2 (weights, bias) and, for int8, 3 and 4 (multiplier, shift) of a convolution or dense layer
/// with `channels` outputs.
pub(super) fn weights(
    inputs: &[Operand],
    channels: usize,
    rounding: Rounding,
) -> Result<(), OpError> {
    let [x, w, bias, rest @ ..] = inputs else {
        return count(inputs.len(), 3);
    };
    constant(w, 1, x.dtype, w.shape.len())?;
    match x.dtype {
        DType::F32 if !kernels::F32 => Err(OpError::NotLinked),
        DType::F32 => {
            count(inputs.len(), 3)?;
            constant(bias, 2, DType::F32, channels)
        }
        _ => {
            count(inputs.len(), 5)?;
            let scales = w.quant.channel_scales.len();
            if w.quant.zero_point != 0 || (scales != 0 && scales != channels) {
                return Err(OpError::Quantization { operand: 1 });
            }
            constant(bias, 2, DType::I32, channels)?;
            let [mantissas, shifts] = rest else {
                return count(inputs.len(), 5);
            };
            constant(mantissas, 3, DType::I32, channels)?;
            constant(shifts, 4, DType::I32, channels)?;
            let mut factors = mantissas.i32().iter().zip(shifts.i32());
            let valid =
                |(&mantissa, &shift): (&i32, &i32)| rounding.takes(Multiplier { mantissa, shift });
            if factors.all(valid) {
                Ok(())
            } else {
                Err(OpError::Quantization { operand: 3 })
            }
        }
    }
}

/// One axis of a sliding window: `(in + before + after - reach) / stride + 1`.
pub(super) fn extent(
    input: usize,
    kernel: usize,
    stride: u16,
    dilation: u16,
    padding: (u16, u16),
) -> Option<u32> {
    let padded = input as u64 + padding.0 as u64 + padding.1 as u64;
    if kernel == 0 || stride == 0 || dilation == 0 || padded >= MAX_EXTENT {
        return None;
    }
    let reach = (kernel as u64 - 1) * dilation as u64 + 1;
    let room = padded.checked_sub(reach)?;
    Some((room / stride as u64) as u32 + 1)
}

/// The shape with these dimensions, as the output's.
pub(super) fn output_shape(dims: &[u32]) -> Result<Shape, OpError> {
    Shape::new(dims).ok_or(OpError::Shape { operand: OUTPUT })
}
