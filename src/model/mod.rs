//! The model image: a view of bytes in flash, checked once, then read without a way to go wrong.
//!
//! [`Model::from_bytes`] is the gate. Behind it every index, shape, type, constant and memory slot is known
//! to be good, and no accessor fails.

pub mod format;
mod tables;
mod validate;

pub use tables::{Node, Tables};

use crate::memory::{Mode, Role};
use crate::ops::Numerics;
use crate::tensor::Shape;
use core::ops::Range;
use format::{Header, Span, TensorRole};

/// Where in a run a slot is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub mode: Mode,
    pub batch: usize,
    /// The pass that is running, see [`crate::memory::Pass`].
    pub pass: usize,
}

/// A model image that passed every check.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    tables: Tables<'a>,
    batchable: bool,
    stateful: bool,
    keeps_ties: bool,
}

impl<'a> Model<'a> {
    /// Checks an image and gives a view of it. `bytes` must start at a multiple of 16 and stay where they are.
    ///
    /// # Errors
    /// [`ModelError`] says what is wrong and where. Nothing in a malformed image leads to a panic, an access
    /// out of bounds or unbounded work.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Model<'a>, ModelError> {
        let tables = Tables::parse(bytes)?;
        let header = tables.header();
        let checksum = format::checksum(tables.bytes());
        if checksum != header.crc.get() {
            return Err(ModelError::Checksum {
                stored: header.crc.get(),
                computed: checksum,
            });
        }
        validate::operators(&tables)?;
        for mode in [Mode::Infer, Mode::Attack, Mode::Train] {
            if mode.is_built_in() && tables.arena_bytes(mode) > 0 {
                validate::plan(&tables, mode)?;
            }
        }
        Ok(Model {
            batchable: validate::batchable(&tables),
            stateful: (0..tables.tensor_count()).any(|t| tables.role(t) == TensorRole::State),
            keeps_ties: (0..tables.op_count()).any(|k| tables.node(k).op.tells_ties()),
            tables,
        })
    }

    /// The tables behind the model.
    pub fn tables(&self) -> &Tables<'a> {
        &self.tables
    }

    /// Shape of the input for one sample, batch dimension included.
    pub fn input_shape(&self) -> Shape {
        self.tables.shape(self.tables.input())
    }

    /// Shape of the output for one sample, batch dimension included.
    pub fn output_shape(&self) -> Shape {
        self.tables.shape(self.tables.output())
    }

    /// Number of class scores: the elements of the logits of one sample; 2 for an anomaly detector.
    pub fn classes(&self) -> usize {
        match self.anomaly_above() {
            Some(_) => 2,
            None => self.tables.shape(self.tables.logits()).len(),
        }
    }

    /// Where the model is an autoencoder that detects anomalies: the mean squared difference between its output and its
    /// input, in real units, above which an input is one. Such a model has two classes, 0 for normal and 1 for an anomaly,
    /// and its logits are `-r` and `r` with `r = ln(difference / threshold)`: whatever attacks a classifier attacks it.
    pub fn anomaly_above(&self) -> Option<f32> {
        self.tables.anomaly_above()
    }

    /// Whose int8 arithmetic it has.
    pub fn numerics(&self) -> Numerics {
        self.tables.numerics()
    }

    /// Smallest and largest value of an input element, in real units.
    pub fn input_range(&self) -> (f32, f32) {
        let header = self.tables.header();
        (header.input_low.get(), header.input_high.get())
    }

    /// Class names, in order; empty where the image has none.
    pub fn labels(&self) -> impl Iterator<Item = &'a str> {
        self.tables.labels().lines()
    }

    /// Whether several samples can run at once: every activation's outermost dimension is 1 and no operator
    /// mixes it with others.
    pub fn is_batchable(&self) -> bool {
        self.batchable
    }

    /// Whether it keeps anything from one run to the next ([`crate::session::Session::reset_state`]).
    pub fn is_stateful(&self) -> bool {
        self.stateful
    }

    /// Whether an operator tells ties from differences by rounding ([`crate::ops::Op::tells_ties`]), so that those before it keep them.
    pub(crate) fn keeps_ties(&self) -> bool {
        self.keeps_ties
    }

    /// Whether the image can run in this mode: Train needs an f32 image that was built for it, and the feature `train`.
    pub fn supports(&self, mode: Mode) -> bool {
        mode.is_built_in() && self.tables.arena_bytes(mode) > 0
    }

    /// Exactly how many bytes a session for one sample needs in this mode. 0: the mode is not supported.
    pub fn required_buffer(&self, mode: Mode) -> usize {
        self.required_buffer_for(mode, 1).unwrap_or(0)
    }

    /// The same for a batch; `None` where it does not fit in 31 bits or the mode is not supported.
    pub fn required_buffer_for(&self, mode: Mode, batch: usize) -> Option<usize> {
        if !self.supports(mode) {
            return None;
        }
        let total = self
            .tables
            .arena_bytes(mode)
            .checked_mul(batch)?
            .checked_add(self.fixed_bytes(mode))?;
        (total <= i32::MAX as usize).then_some(total)
    }

    /// Bytes of a buffer in which a session for a batch also has room for its convolutions' weights in the order in which vector loops read
    /// them, and for what they know of int8 layers' weights: which of a dense one's may saturate (those with VNNI have them in order, too), and which
    /// filters of a convolution of single pixels answer the same whatever they see. They are behind those bytes that it requires; on machines
    /// without such loops it is what it requires. None where that is.
    pub fn preferred_buffer_for(&self, mode: Mode, batch: usize) -> Option<usize> {
        let required = self.required_buffer_for(mode, batch)?;
        // as is the limit for what is required
        let preferred = required.saturating_add(self.kept_bytes(mode));
        Some(if preferred <= i32::MAX as usize {
            preferred
        } else {
            required
        })
    }

    #[cfg(not(foolproof_simd))]
    fn kept_bytes(&self, _: Mode) -> usize {
        0
    }

    #[cfg(foolproof_simd)]
    fn kept_bytes(&self, mode: Mode) -> usize {
        if mode.trains() {
            return 0;
        }
        let tables = &self.tables;
        let bytes = |k: usize| {
            let node = tables.node(k);
            let weights = tables.operand(node.inputs().nth(1)?);
            let images = [node.output, node.inputs().next()?].map(|t| tables.operand(t).shape);
            Some(node.op.kept_bytes(
                &weights,
                images.each_ref(),
                mode.goes_back(),
                self.keeps_ties,
            ))
        };
        let all = (0..tables.op_count())
            .filter_map(bytes)
            .fold(0, usize::saturating_add);
        match all {
            0 => 0,
            // the memory begins with a cache line
            _ => all.saturating_add(64),
        }
    }

    /// Multiply-accumulates that Attack mode runs again for one gradient, because its backward is cut into several passes
    /// to save memory; 0 where it is not. See [`crate::memory::Pass`].
    pub fn recomputed_macs(&self) -> u64 {
        let tables = &self.tables;
        let passes = tables.pass_count(Mode::Attack);
        let ends = (0..passes - 1).map(|i| tables.pass(Mode::Attack, i).end);
        ends.map(|end| (0..end).map(|k| tables.macs(k)).sum::<u64>())
            .sum()
    }

    /// Bytes at the start of the buffer that do not grow with the batch: parameters and their gradients.
    pub(crate) fn fixed_bytes(&self, mode: Mode) -> usize {
        match mode {
            Mode::Train => self.tables.header().parameter_bytes.get() as usize,
            Mode::Infer | Mode::Attack => 0,
        }
    }

    /// Where a slot lies in the buffer of a session with this batch: the elements' bytes without padding.
    pub(crate) fn slot(&self, run: Run, tensor: usize, role: Role) -> Option<Range<usize>> {
        let Run { mode, batch, pass } = run;
        let span = self.tables.span(mode, pass, tensor, role)?;
        let offset = span.offset.get() as usize;
        let shape = self.tables.shape(tensor);
        if self.tables.is_in_image(tensor) {
            // a parameter: in the part of the buffer that does not grow with the batch
            return Some(offset..offset + shape.len() * 4);
        }
        let len = shape.len() * batch;
        let bytes = match role {
            Role::Value => len * self.tables.dtype(tensor).size(),
            Role::Gradient => len * 4,
            Role::Saved => {
                let producer = self.tables.producer(tensor)?;
                let node = self.tables.node(producer);
                let saved = self.tables.needs(&node, mode).saved;
                saved.bytes(&shape.with_batch(batch))
            }
        };
        let start = self.fixed_bytes(mode) + offset * batch;
        Some(start..start + bytes)
    }
}

/// The buffer that an image needs, read from its header without checking anything: for a `static` buffer
/// whose size follows from the image that is compiled in. `None` where the bytes are too short.
///
/// ```text
/// const IMAGE: &[u8] = include_bytes!("model.fpi");
/// static BUFFER: [u8; required_buffer(IMAGE, Mode::Attack).unwrap()] = ...;
/// ```
pub const fn required_buffer(image: &[u8], mode: Mode) -> Option<usize> {
    const INFER: usize = core::mem::offset_of!(Header, infer_bytes);
    const ATTACK: usize = core::mem::offset_of!(Header, attack_bytes);
    const TRAIN: usize = core::mem::offset_of!(Header, train_bytes);
    const PARAMETERS: usize = core::mem::offset_of!(Header, parameter_bytes);
    if image.len() < size_of::<Header>() {
        return None;
    }
    Some(match mode {
        Mode::Infer => word(image, INFER),
        Mode::Attack => word(image, ATTACK),
        Mode::Train => word(image, TRAIN) + word(image, PARAMETERS),
    })
}

const fn word(b: &[u8], i: usize) -> usize {
    u32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]) as usize
}

/// A part of an image, for error messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Part {
    /// The table of tensors.
    Tensors,
    /// The table of operators.
    Ops,
    /// The memory plan.
    Plan,
    /// A tensor's elements.
    Data,
    /// A tensor's scales per channel.
    Scales,
    /// A tensor's name.
    Name,
    /// The class names.
    Labels,
    /// The passes of Attack mode and their slots.
    Passes,
}

/// What is wrong with an image.
#[derive(Clone, Copy, PartialEq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ModelError {
    /// Shorter than a header, or than the length that the header gives.
    Truncated {
        /// Bytes needed.
        needed: usize,
        /// Bytes there are.
        got: usize,
    },
    /// It does not begin with the four bytes `FPI\x1a`: not a model image.
    Magic,
    /// A version of the format that this crate does not read.
    Version {
        /// The image's version.
        got: u16,
    },
    /// The bytes do not start at a multiple of 16.
    Misaligned,
    /// The bytes changed since the image was written.
    Checksum {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A header field out of range.
    Header,
    /// More tensors, activations or operators than an image may have, or none at all.
    Count {
        /// Which table.
        part: Part,
        /// How many there are.
        got: usize,
    },
    /// Something lies outside the image or is not aligned.
    Range {
        /// What.
        part: Part,
        /// Which tensor (0 for tables).
        tensor: usize,
    },
    /// A tensor's type, role, rank, dimensions, scale or zero point is impossible.
    Tensor {
        /// Which tensor.
        tensor: usize,
    },
    /// An operator code or attribute that this version does not know.
    UnknownOp {
        /// Which operator.
        op: usize,
        /// Its code.
        code: u8,
    },
    /// An operator refers to a tensor that does not exist.
    TensorIndex {
        /// Which operator.
        op: usize,
        /// The index.
        tensor: usize,
    },
    /// An operator reads a tensor that nothing has computed yet, or writes one that is not its own to write.
    Order {
        /// Which operator.
        op: usize,
        /// Which tensor.
        tensor: usize,
    },
    /// A tensor that the model needs is computed by no operator.
    NotComputed {
        /// Which tensor.
        tensor: usize,
    },
    /// An operator does not fit its operands.
    Op {
        /// Which operator.
        op: usize,
        /// Why.
        error: crate::ops::OpError,
    },
    /// One run would take more multiply-accumulates than [`MAX_MACS`].
    TooMuchWork {
        /// How many.
        macs: u64,
    },
    /// The memory plan does not keep a slot while it is needed, or puts it outside the buffer.
    Plan {
        /// In which mode.
        mode: Mode,
        /// Which tensor's.
        tensor: usize,
    },
    /// The memory plan puts two slots in one place at one time.
    Overlap {
        /// In which mode.
        mode: Mode,
        /// One tensor.
        tensor: usize,
        /// The other.
        other: usize,
    },
}

/// The most multiply-accumulates that a run over one sample may take.
pub const MAX_MACS: u64 = 1 << 40;

impl core::fmt::Display for ModelError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            ModelError::Truncated { needed, got } => {
                write!(f, "truncated: {needed} bytes needed, {got} there")
            }
            ModelError::Magic => write!(f, "not a model image: it must begin with FPI\\x1a"),
            ModelError::Version { got } => {
                write!(
                    f,
                    "format version {got}; this build reads {}",
                    format::VERSION
                )
            }
            ModelError::Misaligned => write!(f, "the image must start at a multiple of 16 bytes"),
            ModelError::Checksum { stored, computed } => write!(
                f,
                "checksum {computed:08x} where the header says {stored:08x}: the bytes are damaged"
            ),
            ModelError::Header => write!(f, "a header field is out of range"),
            ModelError::Count { part, got } => write!(f, "{got} entries in {part:?}: out of range"),
            ModelError::Range { part, tensor } => {
                write!(
                    f,
                    "{part:?} of tensor {tensor} lies outside the image or is misaligned"
                )
            }
            ModelError::Tensor { tensor } => write!(
                f,
                "tensor {tensor} has an impossible type, role, shape, scale or zero point"
            ),
            ModelError::UnknownOp { op, code } => {
                write!(f, "operator {op} has unknown code {code} or attributes")
            }
            ModelError::TensorIndex { op, tensor } => {
                write!(
                    f,
                    "operator {op} refers to tensor {tensor}, which does not exist"
                )
            }
            ModelError::Order { op, tensor } => write!(
                f,
                "operator {op} uses tensor {tensor} before it is computed, or computes what is not its own"
            ),
            ModelError::NotComputed { tensor } => write!(f, "no operator computes tensor {tensor}"),
            ModelError::Op { op, error } => write!(f, "operator {op}: {error}"),
            ModelError::TooMuchWork { macs } => {
                write!(
                    f,
                    "{macs} multiply-accumulates a run; the limit is {MAX_MACS}"
                )
            }
            ModelError::Plan { mode, tensor } => write!(
                f,
                "the {mode:?} memory plan does not hold tensor {tensor} while it is needed"
            ),
            ModelError::Overlap {
                mode,
                tensor,
                other,
            } => write!(
                f,
                "the {mode:?} memory plan puts tensors {tensor} and {other} in one place at one time"
            ),
        }
    }
}

impl core::error::Error for ModelError {}

impl Span {
    pub(crate) fn covers(&self, time: u16) -> bool {
        self.is_present() && self.first.get() <= time && time <= self.last.get()
    }
}
