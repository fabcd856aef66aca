//! What a session refuses.

use crate::memory::Mode;
use crate::model::format::ALIGN;
use crate::tensor::DType;

/// Why a session cannot be made or asked something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SessionError {
    /// The caller's buffer is too small.
    BufferTooSmall {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        got: usize,
    },
    /// The buffer does not start at a multiple of 16 (see [`Buffer`](super::Buffer)).
    BufferMisaligned,
    /// The image cannot run in this mode (an int8 model cannot be trained).
    ModeUnsupported {
        /// Which.
        mode: Mode,
    },
    /// This model cannot run with this batch: it mixes samples, or the buffer would not fit 31 bits.
    Batch {
        /// Samples asked for.
        batch: usize,
    },
    /// The session's mode does not allow this: backward needs Attack or Train, parameters need Train.
    WrongMode {
        /// The session's.
        mode: Mode,
    },
    /// A slice of the wrong length.
    Length {
        /// Elements needed.
        needed: usize,
        /// Elements given.
        got: usize,
    },
    /// The model's tensor is of another type.
    Type {
        /// What the model has.
        dtype: DType,
    },
    /// Nothing ran yet, or a second backward after one forward (the first may overwrite what it has read).
    NotRun,
}

impl core::fmt::Display for SessionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            SessionError::BufferTooSmall { needed, got } => {
                write!(f, "the buffer has {got} bytes where {needed} are needed")
            }
            SessionError::BufferMisaligned => {
                write!(f, "the buffer must start at a multiple of {ALIGN} bytes")
            }
            SessionError::ModeUnsupported { mode } => {
                write!(f, "this model cannot run in {mode:?} mode")
            }
            SessionError::Batch { batch } => {
                write!(f, "this model cannot run {batch} samples at once")
            }
            SessionError::WrongMode { mode } => {
                write!(f, "a session in {mode:?} mode cannot do this")
            }
            SessionError::Length { needed, got } => {
                write!(f, "{got} elements where {needed} are needed")
            }
            SessionError::Type { dtype } => write!(f, "the model's elements are {dtype:?}"),
            SessionError::NotRun => write!(f, "backward needs a forward of its own before it"),
        }
    }
}

impl core::error::Error for SessionError {}
