//! A model and a caller's buffer: forward, and backward from any output gradient.
//!
//! One backward serves classifiers, attacks and GANs: [`Session::backward`] is a vector-Jacobian product. A
//! loss makes the output gradient, an attack reads the input's, a trainer the parameters'.
//!
//! Through an int8 model the forward pass is the integer one, to the bit. The backward pass is the
//! straight-through estimator (Bengio et al. 2013, section 4): rounding counts as the identity, weights are
//! dequantized, and the gradient is zero where an activation lies on a rail (saturated, or clamped by a fused ReLU).

mod backward;
pub(crate) mod detector;
mod error;
mod forward;
#[cfg(foolproof_simd)]
mod prepared;
mod view;

pub use error::SessionError;

use crate::kernels::Kernels;
#[cfg(foolproof_simd)]
use crate::kernels::kept::Kept;
use crate::memory::{Mode, Role};
use crate::model::format::{ALIGN, TensorRole};
use crate::model::{Model, Node};
#[cfg(foolproof_simd)]
use view::{KNOWN, Known};

/// A buffer for a session: aligned as sessions ask for.
///
/// ```
/// static BUFFER: foolproof::session::Buffer<4096> = foolproof::session::Buffer::new();
/// ```
#[derive(Clone, Debug)]
#[repr(C, align(16))]
pub struct Buffer<const N: usize>(pub [u8; N]);

impl<const N: usize> Buffer<N> {
    /// All zero.
    pub const fn new() -> Buffer<N> {
        Buffer([0; N])
    }
}

impl<const N: usize> Default for Buffer<N> {
    fn default() -> Self {
        Buffer::new()
    }
}

/// How a session runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// What the buffer is for.
    pub mode: Mode,
    /// Samples per run, at least 1.
    pub batch: usize,
    /// Which inner loops.
    pub kernels: Kernels,
}

impl Options {
    /// One sample at a time, with the reference kernels: what a chip does.
    pub const fn new(mode: Mode) -> Options {
        Options {
            mode,
            batch: 1,
            kernels: Kernels::Scalar,
        }
    }
}
/// What the buffer holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Empty,
    /// Everything that backward needs.
    Forward,
    /// Gradients have been written over what backward no longer needs; output and logits are still there.
    Backward,
}

/// Operators that a session decodes once.
#[cfg(foolproof_simd)]
const NODES: usize = 32;

/// A model ready to run in a caller's buffer.
#[derive(Debug)]
pub struct Session<'a> {
    model: Model<'a>,
    options: Options,
    buffer: &'a mut [u8],
    state: State,
    /// The pass that is running, or ran last ([`crate::memory::Pass`]).
    pass: usize,
    /// Weights in the order in which vector loops read them.
    #[cfg(foolproof_simd)]
    kept: Kept<'a>,
    /// The first operators, decoded once: that takes as long as a small layer's products.
    #[cfg(foolproof_simd)]
    nodes: heapless::Vec<Node, NODES>,
    /// Those of them that are ready to run.
    #[cfg(foolproof_simd)]
    steps: prepared::Steps<'a>,
    /// The first tensors, as operators see them.
    #[cfg(foolproof_simd)]
    known: heapless::Vec<Known<'a>, KNOWN>,
    /// Whether the parameters' gradients are zero and their slots hold something else: whoever comes first to one writes it whole.
    cleared: bool,
}

impl<'a> Session<'a> {
    /// One sample at a time, reference kernels.
    ///
    /// # Errors
    /// As [`Session::with_options`].
    pub fn new(
        model: &Model<'a>,
        mode: Mode,
        buffer: &'a mut [u8],
    ) -> Result<Session<'a>, SessionError> {
        Session::with_options(model, Options::new(mode), buffer)
    }

    /// A session that uses the first [`Model::required_buffer_for`] bytes of `buffer`. In Train mode the
    /// image's parameters are copied there. In the other modes vector loops keep weights in the order in which they read them, or what they know of them, behind these
    /// bytes, as far as `buffer` goes ([`Model::preferred_buffer_for`]): runs are faster, results the same to the bit. Some of it happens here, so that a
    /// session is worth more than one run.
    ///
    /// # Errors
    /// The buffer is too small or misaligned, or the model cannot run in this mode or with this batch.
    pub fn with_options(
        model: &Model<'a>,
        options: Options,
        buffer: &'a mut [u8],
    ) -> Result<Session<'a>, SessionError> {
        let mode = options.mode;
        let needed = needed(model, options)?;
        let got = buffer.len();
        let (buffer, behind) = buffer
            .split_at_mut_checked(needed)
            .ok_or(SessionError::BufferTooSmall { needed, got })?;
        if !(buffer.as_ptr() as usize).is_multiple_of(ALIGN) {
            return Err(SessionError::BufferMisaligned);
        }
        // training changes weights
        #[cfg(foolproof_simd)]
        let kept = Kept::new(if mode.trains() { &mut [] } else { behind });
        #[cfg(not(foolproof_simd))]
        let _ = behind;
        let mut session = Session {
            model: *model,
            options,
            buffer,
            state: State::Empty,
            pass: 0,
            #[cfg(foolproof_simd)]
            kept,
            #[cfg(foolproof_simd)]
            nodes: (0..model.tables().op_count().min(NODES))
                .map(|k| model.tables().node(k))
                .collect(),
            #[cfg(foolproof_simd)]
            steps: heapless::Vec::new(),
            #[cfg(foolproof_simd)]
            known: heapless::Vec::new(),
            cleared: false,
        };
        #[cfg(foolproof_simd)]
        session.know();
        #[cfg(foolproof_simd)]
        session.prepare_layers();
        if mode.trains() {
            session.load_parameters();
        }
        session.reset_state();
        Ok(session)
    }

    /// From now on a run takes so many samples: at most those that the session was made for. Parameters and their gradients stay;
    /// what the last run left is forgotten, and what the model kept from earlier ones ([`Session::reset_state`]).
    ///
    /// # Errors
    /// There are none, or more than the buffer is for, or the model mixes samples.
    pub fn set_batch(&mut self, batch: usize) -> Result<(), SessionError> {
        let options = Options {
            batch,
            ..self.options
        };
        let (needed, got) = (needed(&self.model, options)?, self.buffer.len());
        if needed > got {
            return Err(SessionError::BufferTooSmall { needed, got });
        }
        self.options = options;
        #[cfg(foolproof_simd)]
        self.know();
        #[cfg(foolproof_simd)]
        self.prepare_layers();
        self.state = State::Empty;
        self.reset_state();
        Ok(())
    }

    /// Forgets what the model kept from earlier runs (the state of recurrent layers and streaming models): the next run
    /// is as the first of a new session.
    ///
    /// The `forward` functions go on from where the last run left the state, as a device does that is fed window after
    /// window. What attacks see of a session (the traits of [`crate::threat`]) begins every run with the reset state, so that
    /// the same input always gets the same answer; and so do all runs in Train mode.
    pub fn reset_state(&mut self) {
        if !self.model.is_stateful() {
            return;
        }
        let tables = *self.model.tables();
        for t in 0..tables.tensor_count() {
            let first = tables.data(t);
            if tables.role(t) == TensorRole::State
                && !first.is_empty()
                && let Some(range) = self.slot(t, Role::Value)
            {
                for sample in self.buffer[range].chunks_exact_mut(first.len()) {
                    sample.copy_from_slice(first);
                }
            }
        }
    }

    fn load_parameters(&mut self) {
        for t in 0..self.model.tables().tensor_count() {
            let (Some(range), true) = (self.slot(t, Role::Value), self.in_image(t)) else {
                continue;
            };
            self.buffer[range].copy_from_slice(self.model.tables().data(t));
        }
    }

    /// The model.
    pub fn model(&self) -> &Model<'a> {
        &self.model
    }

    /// How the session runs.
    pub fn options(&self) -> Options {
        self.options
    }

    /// Bytes of the buffer in use.
    pub fn buffer_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Operator `k`.
    #[inline]
    fn node(&self, k: usize) -> Node {
        #[cfg(foolproof_simd)]
        if let Some(node) = self.nodes.get(k) {
            return *node;
        }
        self.model.tables().node(k)
    }

    /// The next run begins with the pass that runs first.
    fn begin(&mut self) {
        self.pass = self.model.tables().pass_count(self.options.mode) - 1;
    }

    fn operators(&self) -> crate::memory::Pass {
        self.model.tables().pass(self.options.mode, self.pass)
    }
}

/// Bytes that a session needs.
fn needed(model: &Model<'_>, options: Options) -> Result<usize, SessionError> {
    let Options { mode, batch, .. } = options;
    if !model.supports(mode) {
        return Err(SessionError::ModeUnsupported { mode });
    }
    if batch == 0 || (batch > 1 && !model.is_batchable()) {
        return Err(SessionError::Batch { batch });
    }
    model
        .required_buffer_for(mode, batch)
        .ok_or(SessionError::Batch { batch })
}
