//! Why an operator is refused.

/// Why an operator cannot take the operands it was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum OpError {
    /// Too many or too few inputs.
    InputCount {
        /// How many the operator takes.
        expected: u8,
        /// How many there are.
        got: u8,
    },
    /// Input (or, with 255, output) of an element type that the operator does not take.
    Type {
        /// Which input; 255 is the output.
        operand: u8,
    },
    /// An operand's shape does not follow from the others.
    Shape {
        /// Which input; 255 is the output.
        operand: u8,
    },
    /// A scale, zero point, multiplier or shift out of range, or scales that should be equal and are not.
    Quantization {
        /// Which input; 255 is the output.
        operand: u8,
    },
    /// A stride, dilation, padding, axis or window out of range.
    Attribute,
    /// A constant was expected.
    NotConstant {
        /// Which input.
        operand: u8,
    },
    /// This build was made without the operator ([`Op::feature`](super::Op::feature)).
    NotLinked,
}

impl core::fmt::Display for OpError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let operand = |operand: u8| match operand {
            255 => ("output", 0),
            i => ("input", i),
        };
        match *self {
            OpError::InputCount { expected, got } => {
                write!(f, "{got} inputs where it takes {expected}")
            }
            OpError::Type { operand: o } => {
                let (what, i) = operand(o);
                write!(f, "{what} {i} has a type that it does not take")
            }
            OpError::Shape { operand: o } => {
                let (what, i) = operand(o);
                write!(f, "the shape of {what} {i} does not fit the others")
            }
            OpError::Quantization { operand: o } => {
                let (what, i) = operand(o);
                write!(
                    f,
                    "a scale, zero point, multiplier or shift of {what} {i} is out of range"
                )
            }
            OpError::Attribute => {
                write!(
                    f,
                    "a stride, dilation, padding, axis or window is out of range"
                )
            }
            OpError::NotConstant { operand: o } => write!(f, "input {o} must be a constant"),
            OpError::NotLinked => write!(f, "this build was made without it"),
        }
    }
}

impl core::error::Error for OpError {}
