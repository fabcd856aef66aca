//! The bytes of a model image (`.fpi`), version 1. Little-endian throughout.
//!
//! ```text
//! Header            fixed size, at 0
//! TensorRecord[]    at header.tensors
//! OpRecord[]        at header.ops
//! Span[]            at header.plan: one per tensor for Infer, then three (value, gradient, saved) per
//!                   tensor for Attack where it has no passes, then three per tensor for Train where the image
//!                   can be trained
//! PassRecord[]      at header.passes: where the backward of Attack mode is cut into passes, in their order (the
//!                   last one runs first), and then
//! PassSpan[]        right after them: the slots of each pass, in the order of tensors and roles
//! names, constants  anywhere after; constants aligned to 4 bytes from the image's start
//! ```
//! The image itself must be placed at an address that is a multiple of [`ALIGN`]; constants are read in
//! place. `crc` is CRC-32/ISO-HDLC over everything from byte 16 to `total_len`.

use crate::ops::{MAX_INPUTS, WORDS};
use crate::tensor::MAX_RANK;
use zerocopy::little_endian::{F32, I32, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First four bytes of an image.
pub const MAGIC: [u8; 4] = *b"FPI\x1a";
/// Version of the format that this crate reads and writes.
pub const VERSION: u16 = 1;
/// The image's address, and the address of a session's buffer, are multiples of this (bytes).
pub const ALIGN: usize = 16;
/// The first byte that the checksum covers.
pub const CRC_FROM: usize = 16;
/// No offset: the tensor has no such slot in this mode.
pub const NONE: u32 = u32::MAX;
/// No operator computes this tensor.
pub const NO_OP: u16 = u16::MAX;
/// Most tensors an image may have.
pub const MAX_TENSORS: usize = 4096;
/// Most of them that may be activations.
pub const MAX_ACTIVATIONS: usize = 1024;
/// Most operators an image may have.
pub const MAX_OPS: usize = 1024;

/// Most passes of Attack mode.
pub const MAX_PASSES: usize = 24;

/// The head of an image.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// [`VERSION`].
    pub version: U16,
    /// Whose int8 arithmetic: a [`crate::ops::Numerics`].
    pub numerics: u8,
    /// Zero.
    pub reserved: u8,
    /// Length of the whole image, bytes.
    pub total_len: U32,
    /// CRC-32/ISO-HDLC of bytes `CRC_FROM..total_len`.
    pub crc: U32,
    /// Number of tensors.
    pub tensor_count: U16,
    /// Number of operators.
    pub op_count: U16,
    /// The tensor that the caller fills.
    pub input: U16,
    /// The tensor that the model answers with.
    pub output: U16,
    /// The tensor of class scores before a final softmax; the output where there is none.
    pub logits: U16,
    /// How many passes Attack mode takes ([`crate::memory::Pass`]); 0: one, planned in the table at `plan`.
    pub pass_count: U16,
    /// Offset of the tensor table.
    pub tensors: U32,
    /// Offset of the operator table.
    pub ops: U32,
    /// Offset of the memory plan.
    pub plan: U32,
    /// Buffer for inference, bytes per sample of a batch.
    pub infer_bytes: U32,
    /// Buffer for forward and the input gradient, bytes per sample of a batch.
    pub attack_bytes: U32,
    /// Buffer for training: bytes per sample of a batch. 0: the image cannot be trained.
    pub train_bytes: U32,
    /// Buffer for training: bytes for parameters and their gradients, whatever the batch.
    pub parameter_bytes: U32,
    /// Smallest value of an input element, in real units.
    pub input_low: F32,
    /// Largest value of an input element, in real units.
    pub input_high: F32,
    /// Class names, UTF-8, one per line; 0 where there are none.
    pub labels: U32,
    /// Length of the class names, bytes.
    pub labels_len: U32,
    /// Offset of the passes; 0 where there are none.
    pub passes: U32,
    /// An anomaly detector: the mean squared difference between output and input (real units) above which an input is
    /// an anomaly. 0: the output are class scores.
    pub anomaly_above: F32,
}

/// What a tensor is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum TensorRole {
    /// Computed at run time; lives in the caller's buffer.
    Activation = 0,
    /// Read from the image.
    Constant = 1,
    /// Read from the image; in Train mode copied to the buffer, with a gradient.
    Parameter = 2,
    /// Like a parameter, but updated with running statistics instead of a gradient step (batch norm).
    Statistic = 3,
    /// Lives in the caller's buffer from one run to the next; after a reset it holds the elements in the image.
    State = 4,
}

impl TensorRole {
    /// The role with this code in an image.
    pub const fn from_code(code: u8) -> Option<TensorRole> {
        match code {
            0 => Some(TensorRole::Activation),
            1 => Some(TensorRole::Constant),
            2 => Some(TensorRole::Parameter),
            3 => Some(TensorRole::Statistic),
            4 => Some(TensorRole::State),
            _ => None,
        }
    }
}

/// One tensor.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct TensorRecord {
    /// Dimensions, the unused ones 1.
    pub dims: [U32; MAX_RANK],
    /// A [`crate::tensor::DType`].
    pub dtype: u8,
    /// Number of dimensions.
    pub rank: u8,
    /// A [`TensorRole`].
    pub role: u8,
    /// Zero.
    pub reserved: u8,
    /// Constants and states: offset of the elements. Their length follows from the shape and type.
    pub data: U32,
    /// Real units per step; 1 where not quantized.
    pub scale: F32,
    /// The integer that stands for 0.
    pub zero_point: I32,
    /// Offset of f32 scales per output channel, with `scales_len` > 0.
    pub scales: U32,
    /// How many scales per channel; 0: `scale` holds for all.
    pub scales_len: U32,
    /// Offset of the name, UTF-8.
    pub name: U32,
    /// Length of the name, bytes; may be 0.
    pub name_len: U16,
    /// The operator that computes it; [`NO_OP`] for the input and for what is in the image.
    pub producer: U16,
}

/// One operator. They are stored in an order in which they can run.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct OpRecord {
    /// [`crate::ops::Op::code`].
    pub code: u8,
    /// How many of `inputs` are used.
    pub input_count: u8,
    /// The tensor it computes.
    pub output: U16,
    /// The tensors it reads, in the order of the table in [`crate::ops`]; unused ones 0.
    pub inputs: [U16; MAX_INPUTS],
    /// [`crate::ops::Op::words`].
    pub words: [U32; WORDS],
}

/// Where a slot lies in the buffer and when it is in use: from time `first` to time `last`, both included.
/// Times are those of [`crate::memory`].
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Span {
    /// Bytes from the start of the buffer (for one sample); [`NONE`]: no such slot.
    pub offset: U32,
    /// First time in use.
    pub first: U16,
    /// Last time in use.
    pub last: U16,
}

impl Span {
    /// No slot.
    pub const ABSENT: Span = Span {
        offset: U32::new(NONE),
        first: U16::new(0),
        last: U16::new(0),
    };

    /// Whether there is a slot.
    pub fn is_present(&self) -> bool {
        self.offset.get() != NONE
    }
}

/// One pass of Attack mode; see [`crate::memory::Pass`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PassRecord {
    /// The first operator that runs backward: the end of the pass before it in the table.
    pub start: U16,
    /// One more than the last operator that runs.
    pub end: U16,
    /// How many [`PassSpan`]s belong to this pass and those before it in the table.
    pub spans_end: U32,
}

/// A slot in one pass. Within a pass they stand in the order of tensors, and of roles for one tensor.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PassSpan {
    /// An activation that is no reshape's output.
    pub tensor: U16,
    /// 0: value, 1: gradient, 2: saved.
    pub role: u8,
    /// Zero.
    pub reserved: u8,
    /// Where and when.
    pub span: Span,
}

/// The checksum that belongs into `Header::crc` of these bytes.
pub fn checksum(image: &[u8]) -> u32 {
    const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    CRC.checksum(image.get(CRC_FROM..).unwrap_or(&[]))
}
