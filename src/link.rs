//! What host and chip say to each other, over any serial line.
//!
//! A message is encoded with [postcard](https://postcard.jamesmunns.com/wire-format), followed by
//! its CRC-32 (ISO-HDLC, little-endian), framed with COBS (Cheshire and Baker, "Consistent Overhead
//! Byte Stuffing", 1999) and ended by a zero byte. The host asks, the chip answers each [`Request`]
//! with exactly one [`Response`] (a [`Request::Trace`] with one per tensor before it); a frame that cannot be understood is answered by
//! [`Response::Error`], and the next zero byte starts afresh. Nothing here allocates or panics,
//! whatever bytes arrive.

use core::fmt;

use crc::{CRC_32_ISO_HDLC, Crc, Digest};
use serde::{Deserialize, Serialize};

use crate::attack::Spec;
use crate::model::Tables;
use crate::session::detector;
use crate::tensor::{DType, MAX_RANK};

/// The version of the messages; host and chip must have the same.
pub const PROTOCOL: u16 = 5;

/// The checksum of messages, bundles and model images on the line: CRC-32/ISO-HDLC.
pub static CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

const CRC_BYTES: usize = 4;

/// Where an input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input<'a> {
    /// The input itself, in the model's own number type, little-endian.
    Bytes(&'a [u8]),
    /// A sample of the bundle in the slot, by its index.
    Sample(u32),
}

/// What the host asks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// Who are you? Answer: [`Response::Hello`].
    Hello,
    /// A model of `length` bytes follows. Answer: [`Response::Loading`].
    LoadBegin {
        /// The image's length in bytes.
        length: u32,
    },
    /// The model's bytes from `offset` on. Answer: [`Response::Loading`].
    LoadData {
        /// Where these bytes belong; they must follow the ones before.
        offset: u32,
        /// At most the chip's `max_data` bytes.
        bytes: &'a [u8],
    },
    /// The model is complete: check it and use it. Answer: [`Response::Ready`].
    LoadEnd,
    /// Use the model of the bundle in the slot. Answer: [`Response::Ready`].
    UseSlot,
    /// Classify. Answer: [`Response::Logits`].
    Infer {
        /// What to classify.
        input: Input<'a>,
    },
    /// Classify, and show every tensor on the way. Answer: a [`Response::Tensor`] for the input and for the output of each
    /// operator, in running order, then [`Response::Traced`].
    Trace {
        /// What to classify.
        #[serde(borrow)]
        input: Input<'a>,
    },
    /// Craft an adversarial input. Answer: [`Response::Adversarial`].
    Attack {
        /// Which attack, and how strong.
        spec: Spec,
        /// The true label, or the label to reach.
        label: u16,
        /// The seed of the run.
        seed: u64,
        /// The sample's index in the run: with the seed it fixes every random choice.
        index: u32,
        /// What to start from.
        #[serde(borrow)]
        input: Input<'a>,
    },
    /// Fit a universal perturbation, which the chip keeps until it attacks otherwise, or apply it (see
    /// [`crate::attack::universal`]). Answer: [`Response::Adversarial`], the input with the perturbation that was asked about.
    Universal {
        /// What to do with the perturbation.
        turn: Turn,
        /// The attack, and how strong.
        spec: Spec,
        /// The true label, or the label to reach.
        label: u16,
        /// The input.
        #[serde(borrow)]
        input: Input<'a>,
    },
    /// How much memory is in use? Answer: [`Response::Stats`].
    Stats,
    /// Make a sample of noise that the chip draws itself (see [`crate::latent::Latent`]); the model is a generator. Answer:
    /// [`Response::Logits`].
    Generate {
        /// The seed of the run.
        seed: u64,
        /// The sample's number in the run.
        index: u32,
        /// Classes that the generator is told; 0 where it is told none.
        classes: u16,
    },
    /// Stop. Answer: [`Response::Bye`], and the program ends.
    Quit,
}

/// What happens to a universal perturbation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Turn {
    /// It begins at zero, and learns from this input in pass 0.
    Begin,
    /// It learns from this input.
    Learn {
        /// In which pass, counted from 0.
        pass: u16,
    },
    /// It stays, and is judged on this input.
    Apply,
}

impl Turn {
    /// The pass of `spec` that is learned in: none where nothing is learned, an error where `spec` has no such pass.
    ///
    /// # Errors
    /// [`FaultCode::NoPass`]: the passes are over, a step would lead back.
    pub fn pass(self, spec: &Spec) -> Result<Option<u16>, Fault> {
        let pass = match self {
            Turn::Apply => return Ok(None),
            Turn::Begin => 0,
            Turn::Learn { pass } => pass,
        };
        match pass < spec.steps {
            true => Ok(Some(pass)),
            false => Err(Fault::new(
                FaultCode::NoPass,
                spec.steps.into(),
                pass.into(),
            )),
        }
    }
}

/// What the chip answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Response<'a> {
    /// The answer to [`Request::Hello`].
    #[serde(borrow)]
    Hello(Hello<'a>),
    /// The model is being received.
    Loading {
        /// Bytes received so far.
        received: u32,
    },
    /// A model is ready.
    Ready(Ready),
    /// The answer to [`Request::Infer`] and [`Request::Generate`].
    Logits(Logits<'a>),
    /// A tensor of a [`Request::Trace`]; more follow.
    Tensor {
        /// Its number in the model.
        tensor: u32,
        /// Its elements, little-endian.
        bytes: &'a [u8],
    },
    /// The end of a [`Request::Trace`].
    Traced {
        /// How many tensors there were.
        tensors: u32,
    },
    /// The answer to [`Request::Attack`].
    Adversarial(Adversarial<'a>),
    /// The answer to [`Request::Stats`].
    Stats(Stats),
    /// The answer to [`Request::Quit`].
    Bye,
    /// The request could not be done.
    Error(Fault),
}

/// The chip introduces itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello<'a> {
    /// The chip's [`PROTOCOL`].
    pub protocol: u16,
    /// The board's name.
    pub board: &'a str,
    /// The most bytes that one [`Request::LoadData`] or one input may carry.
    pub max_data: u32,
    /// Bytes of RAM for a model that is streamed; 0: flash only.
    pub model_ram: u32,
    /// Bytes of RAM for the session.
    pub session_ram: u32,
    /// Bytes of the slot.
    pub slot: u32,
    /// The instruction counter's own test, in instructions: what a loop of
    /// [`CALIBRATION_INSTRUCTIONS`] measured.
    pub calibration: u32,
}

/// The length of the loop that the chip counts at its start, in instructions.
pub const CALIBRATION_INSTRUCTIONS: u32 = 100_000;

/// An input or an output as the outside sees it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// int8 on a grid; otherwise f32.
    pub is_int8: bool,
    /// Real units per step of the grid; 1 for f32.
    pub scale: f32,
    /// The integer that stands for 0; 0 for f32.
    pub zero_point: i32,
    rank: u8,
    shape: [u32; MAX_RANK],
}

impl Port {
    /// Of a model's tensor.
    pub fn of(tables: &Tables<'_>, tensor: usize) -> Port {
        let quant = tables.quant(tensor);
        let is_int8 = tables.dtype(tensor) == DType::I8;
        let mut shape = [0; MAX_RANK];
        let all = tables.shape(tensor);
        let dims = all.dims().get(1..).unwrap_or(&[]);
        for (to, &from) in shape.iter_mut().zip(dims) {
            *to = from;
        }
        Port {
            is_int8,
            scale: if is_int8 { quant.scale } else { 1.0 },
            zero_point: if is_int8 { quant.zero_point } else { 0 },
            rank: dims.len().min(MAX_RANK) as u8,
            shape,
        }
    }

    /// Dimensions of one sample, without the batch.
    pub fn dims(&self) -> &[u32] {
        self.shape.get(..usize::from(self.rank)).unwrap_or(&[])
    }

    /// Elements of one sample; `None` where no memory could hold them.
    pub fn len(&self) -> Option<usize> {
        self.dims()
            .iter()
            .try_fold(1_usize, |len, &d| len.checked_mul(d as usize))
    }

    /// Whether a sample has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Element `i` of a sample's bytes (little-endian) in real units; `None` where it is not there.
    pub fn real(&self, bytes: &[u8], i: usize) -> Option<f32> {
        match self.is_int8 {
            true => bytes
                .get(i)
                .map(|&q| self.scale * (i32::from(q as i8) - self.zero_point) as f32),
            false => bytes
                .as_chunks()
                .0
                .get(i)
                .map(|&value| f32::from_le_bytes(value)),
        }
    }
}

/// A model is ready to run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// Its input.
    pub input: Port,
    /// Smallest and largest real value of an input's element.
    pub input_range: (f32, f32),
    /// Its output.
    pub output: Port,
    /// Number of classes: the elements of the output; 2 for an anomaly detector.
    pub classes: u32,
    /// An anomaly detector's threshold (see [`crate::model::Model::anomaly_above`]); `None`: the output are class scores.
    pub anomaly_above: Option<f32>,
    /// [`CRC32`] of the model image.
    pub image_crc: u32,
    /// Bytes of an input.
    pub input_bytes: u32,
    /// Bytes of an output.
    pub output_bytes: u32,
    /// Buffer bytes needed to infer.
    pub infer_buffer: u32,
    /// Buffer bytes needed to attack.
    pub attack_buffer: u32,
    /// Samples in the slot's bundle; 0 for a streamed model.
    pub samples: u32,
}

impl Ready {
    /// The two scores of an anomaly detector, normal and anomaly, from the bytes of its input and of its output: to the bit what
    /// [`Session::logits`](crate::session::Session::logits) gives. `None` for other models, and where bytes are missing.
    pub fn anomaly_scores(&self, input: &[u8], output: &[u8]) -> Option<[f32; 2]> {
        let threshold = self.anomaly_above?;
        let n = self.input.len()?;
        let last = n.checked_sub(1)?;
        self.input.real(input, last)?;
        self.output.real(output, last)?;
        let error = detector::mean_squared_difference(n, |i| {
            let real = |port: &Port, bytes| port.real(bytes, i).unwrap_or(0.0);
            (real(&self.input, input), real(&self.output, output))
        });
        let score = detector::score_of(error, threshold);
        Some([-score, score])
    }
}

/// What a model said about one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logits<'a> {
    /// The output in the model's own number type, little-endian.
    pub output: &'a [u8],
    /// The index of the largest output, the first one of equals.
    pub label: u16,
    /// Instructions of the inference.
    pub instructions: u64,
}

/// What an attack found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adversarial<'a> {
    /// The crafted input in the model's own number type, little-endian.
    pub bytes: &'a [u8],
    /// What the model says about it.
    pub label: u16,
    /// Whether the attack reached its goal.
    pub fooled: bool,
    /// Forward passes used.
    pub queries: u32,
    /// Backward passes used.
    pub gradients: u32,
    /// Instructions of the attack.
    pub instructions: u64,
}

/// Memory in use on the chip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// The most stack that was in use since the start, in bytes.
    pub stack_used: u32,
    /// The stack's size in bytes.
    pub stack_size: u32,
    /// RAM for the session and for a streamed model, in bytes.
    pub session_ram: u32,
    /// RAM for a streamed model, in bytes.
    pub model_ram: u32,
    /// Frames that arrived damaged since the start.
    pub bad_frames: u32,
}

/// Why a request could not be done, with the two numbers that say how far off it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What is wrong.
    pub code: FaultCode,
    /// What was wanted: a size, a limit, an offset; the code's text says which.
    pub wanted: u32,
    /// What was there.
    pub got: u32,
}

impl Fault {
    /// A fault with its two numbers; what does not fit 32 bits is given as the largest number.
    pub fn new(code: FaultCode, wanted: usize, got: usize) -> Self {
        let clip = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Fault {
            code,
            wanted: clip(wanted),
            got: clip(got),
        }
    }
}

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultCode {
    /// A frame is damaged: COBS or checksum.
    BadFrame,
    /// A frame is longer than the chip's buffer.
    FrameTooLong,
    /// A frame is sound, but its message is not a request of this protocol.
    UnknownRequest,
    /// The model does not fit the RAM for models.
    ModelTooLarge,
    /// Model bytes arrived in another order than they must.
    OutOfOrder,
    /// The model image is malformed.
    BadModel,
    /// The slot holds no sound bundle.
    BadBundle,
    /// The session does not fit the RAM for sessions.
    SessionTooLarge,
    /// No model was loaded yet.
    NoModel,
    /// The input has another length than the model's.
    InputLength,
    /// The bundle has no sample of this index.
    NoSample,
    /// The label is not one of the model's.
    BadLabel,
    /// The attack's numbers make no sense.
    BadAttack,
    /// The model has an operator or a type that the chip cannot run or attack.
    Unsupported,
    /// The stack grew into the statics: nothing can be trusted any more.
    StackOverflow,
    /// No universal perturbation is being fitted.
    NoPerturbation,
    /// The attack has no such pass.
    NoPass,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { wanted, got, .. } = self;
        match self.code {
            FaultCode::BadFrame => write!(f, "a frame of {got} bytes arrived damaged"),
            FaultCode::FrameTooLong => {
                write!(f, "a frame is too long: {got} bytes, at most {wanted} fit")
            }
            FaultCode::UnknownRequest => {
                write!(f, "not a request of protocol version {wanted}")
            }
            FaultCode::ModelTooLarge => write!(
                f,
                "the model has {got} bytes, the chip has room for {wanted}; place it in the slot"
            ),
            FaultCode::OutOfOrder => {
                write!(
                    f,
                    "model bytes out of order: offset {got}, expected {wanted}"
                )
            }
            FaultCode::BadModel => write!(f, "the model image is malformed ({got} bytes)"),
            FaultCode::BadBundle => write!(f, "the slot holds no sound bundle"),
            FaultCode::SessionTooLarge => write!(
                f,
                "the model needs a buffer of {wanted} bytes, the chip has {got}"
            ),
            FaultCode::NoModel => write!(f, "no model is loaded"),
            FaultCode::InputLength => {
                write!(f, "the input has {got} bytes, the model takes {wanted}")
            }
            FaultCode::NoSample => write!(f, "no sample {got}: the bundle has {wanted}"),
            FaultCode::BadLabel => write!(f, "label {got} of a model with {wanted} classes"),
            FaultCode::BadAttack => write!(f, "the attack's numbers make no sense"),
            FaultCode::Unsupported => write!(f, "the chip cannot run this model in this mode"),
            FaultCode::StackOverflow => {
                write!(f, "the stack of {wanted} bytes overflowed")
            }
            FaultCode::NoPerturbation => {
                write!(f, "no universal perturbation is there: begin one first")
            }
            FaultCode::NoPass => write!(f, "no pass {got}: the attack has {wanted}, from 0"),
        }
    }
}

impl core::error::Error for Fault {}

/// A frame that holds no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// Damaged: not COBS, too short, or the checksum differs. The frame had `length` bytes.
    Damaged {
        /// The frame's length.
        length: usize,
    },
    /// The frame is longer than the buffer.
    TooLong {
        /// The frame's length.
        length: usize,
        /// The buffer's length.
        capacity: usize,
    },
}

impl From<FrameError> for Fault {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Damaged { length } => Fault::new(FaultCode::BadFrame, 0, length),
            FrameError::TooLong { length, capacity } => {
                Fault::new(FaultCode::FrameTooLong, capacity, length)
            }
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Fault::from(*self).fmt(f)
    }
}

impl core::error::Error for FrameError {}

/// Finds frames in a stream of bytes, in a buffer of the caller.
#[derive(Debug)]
pub struct Deframer<'b> {
    buffer: &'b mut [u8],
    /// Bytes of the frame so far, also those that did not fit.
    length: usize,
}

impl<'b> Deframer<'b> {
    /// Frames of up to `buffer.len()` bytes, not counting the zero at the end.
    pub fn new(buffer: &'b mut [u8]) -> Self {
        Deframer { buffer, length: 0 }
    }

    /// The next byte of the stream. At the end of a frame: the checked message's bytes, for
    /// [`decode`], or what is wrong with it.
    pub fn push(&mut self, byte: u8) -> Option<Result<&[u8], FrameError>> {
        if byte != 0 {
            if let Some(place) = self.buffer.get_mut(self.length) {
                *place = byte;
            }
            self.length = self.length.saturating_add(1);
            return None;
        }
        let length = core::mem::take(&mut self.length);
        if length == 0 {
            // Two zeros in a row: a sender makes sure that its frame starts afresh.
            return None;
        }
        let capacity = self.buffer.len();
        let Some(frame) = self.buffer.get_mut(..length) else {
            return Some(Err(FrameError::TooLong { length, capacity }));
        };
        Some(unframe(frame).ok_or(FrameError::Damaged { length }))
    }
}

/// The message in a frame, decoded in place, if its checksum is right.
fn unframe(frame: &mut [u8]) -> Option<&[u8]> {
    let length = cobs::decode_in_place(frame).ok()?;
    let (message, checksum) = frame.get(..length)?.split_last_chunk::<CRC_BYTES>()?;
    (CRC32.checksum(message) == u32::from_le_bytes(*checksum)).then_some(message)
}

/// The message in a frame's bytes; `None` if it is none of this type or is followed by more.
pub fn decode<'a, M: Deserialize<'a>>(bytes: &'a [u8]) -> Option<M> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Some(message),
        _ => None,
    }
}

/// Frames `message` and hands the bytes to `send`, piece by piece: no buffer for the whole frame is
/// needed. Stops at the first error of `send` and returns it.
pub fn encode<M, E>(message: &M, send: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E>
where
    M: Serialize + ?Sized,
{
    let mut error = None;
    let framer = Framer {
        send,
        error: &mut error,
        digest: CRC32.digest(),
        block: [0; BLOCK],
        filled: 0,
    };
    // Messages serialize without fail, so an error is one of `send`.
    let _ = postcard::serialize_with_flavor(message, framer);
    error.map_or(Ok(()), Err)
}

/// The longest COBS block: its code byte and 254 bytes that are not zero.
const BLOCK: usize = 255;

/// A postcard flavor: checksum, COBS, and out.
struct Framer<'e, F, E> {
    send: F,
    error: &'e mut Option<E>,
    digest: Digest<'static, u32>,
    /// The block's bytes from index 1 on; its code comes to index 0.
    block: [u8; BLOCK],
    filled: usize,
}

impl<F, E> Framer<'_, F, E>
where
    F: FnMut(&[u8]) -> Result<(), E>,
{
    /// One byte of message or checksum.
    fn stuff(&mut self, byte: u8) -> postcard::Result<()> {
        if byte != 0
            && let Some(place) = self.block.get_mut(self.filled + 1)
        {
            *place = byte;
            self.filled += 1;
        }
        // A full block stands for its bytes alone, any other one for its bytes and a zero.
        if byte == 0 || self.filled + 1 == BLOCK {
            self.end_block()?;
        }
        Ok(())
    }

    fn end_block(&mut self) -> postcard::Result<()> {
        let length = self.filled + 1;
        self.block[0] = length as u8;
        self.filled = 0;
        let sent = (self.send)(&self.block[..length]);
        self.check(sent)
    }

    fn check(&mut self, sent: Result<(), E>) -> postcard::Result<()> {
        sent.map_err(|error| {
            *self.error = Some(error);
            postcard::Error::SerializeBufferFull
        })
    }
}

impl<F, E> postcard::ser_flavors::Flavor for Framer<'_, F, E>
where
    F: FnMut(&[u8]) -> Result<(), E>,
{
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.digest.update(&[byte]);
        self.stuff(byte)
    }

    fn finalize(mut self) -> postcard::Result<()> {
        let checksum = self.digest.clone().finalize();
        for byte in checksum.to_le_bytes() {
            self.stuff(byte)?;
        }
        self.end_block()?;
        let sent = (self.send)(&[0]);
        self.check(sent)
    }
}

mod places;

pub use places::Places;

#[cfg(test)]
mod tests;
