//! A model and a caller's buffer: forward, and backward from any output gradient.
//!
//! One backward serves classifiers, attacks and GANs: [`Session::backward`] is a vector-Jacobian product. A
//! loss makes the output gradient, an attack reads the input's, a trainer the parameters'.
//!
//! Through an int8 model the forward pass is the integer one, to the bit. The backward pass is the
//! straight-through estimator (Bengio et al. 2013, section 4): rounding counts as the identity, weights are
//! dequantized, and the gradient is zero where an activation lies on a rail (saturated, or clamped by a fused ReLU).

use crate::kernels::Kernels;
use crate::loss::Objective;
use crate::memory::{Mode, Role};
use crate::model::Model;
use crate::model::format::{ALIGN, TensorRole};
use crate::ops::{Activation, Context, MAX_INPUTS, Op, Saved};
use crate::tensor::{DType, Data, Operand, Quant, typed, typed_mut};
use core::ops::Range;
use zerocopy::{FromBytes, IntoBytes};

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
    /// The buffer does not start at a multiple of 16 (see [`Buffer`]).
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

/// What the buffer holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Empty,
    /// Everything that backward needs.
    Forward,
    /// Gradients have been written over what backward no longer needs; output and logits are still there.
    Backward,
}

/// A model ready to run in a caller's buffer.
#[derive(Debug)]
pub struct Session<'a> {
    model: Model<'a>,
    options: Options,
    buffer: &'a mut [u8],
    state: State,
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
    /// image's parameters are copied there.
    ///
    /// # Errors
    /// The buffer is too small or misaligned, or the model cannot run in this mode or with this batch.
    pub fn with_options(
        model: &Model<'a>,
        options: Options,
        buffer: &'a mut [u8],
    ) -> Result<Session<'a>, SessionError> {
        let Options { mode, batch, .. } = options;
        if !model.supports(mode) {
            return Err(SessionError::ModeUnsupported { mode });
        }
        if batch == 0 || (batch > 1 && !model.is_batchable()) {
            return Err(SessionError::Batch { batch });
        }
        let needed = model
            .required_buffer_for(mode, batch)
            .ok_or(SessionError::Batch { batch })?;
        let got = buffer.len();
        let buffer = buffer
            .get_mut(..needed)
            .ok_or(SessionError::BufferTooSmall { needed, got })?;
        if !(buffer.as_ptr() as usize).is_multiple_of(ALIGN) {
            return Err(SessionError::BufferMisaligned);
        }
        let mut session = Session {
            model: *model,
            options,
            buffer,
            state: State::Empty,
        };
        if mode == Mode::Train {
            session.load_parameters();
        }
        Ok(session)
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

    // --- forward -------------------------------------------------------------------------------------

    /// Runs an f32 model on `batch` samples and returns its output.
    ///
    /// # Errors
    /// The model's input or output is not f32, or `x` has the wrong length.
    pub fn forward_f32(&mut self, x: &[f32]) -> Result<&[f32], SessionError> {
        self.run_f32(x)?;
        let t = self.model.tables().output();
        match self.value(t) {
            Data::F32(y) => Ok(y),
            _ => Err(SessionError::Type {
                dtype: self.model.tables().dtype(t),
            }),
        }
    }

    /// Runs an int8 model on `batch` samples and returns its output.
    ///
    /// # Errors
    /// The model's input or output is not int8, or `x` has the wrong length.
    pub fn forward_i8(&mut self, x: &[i8]) -> Result<&[i8], SessionError> {
        self.run_i8(x)?;
        let t = self.model.tables().output();
        match self.value(t) {
            Data::I8(y) => Ok(y),
            _ => Err(SessionError::Type {
                dtype: self.model.tables().dtype(t),
            }),
        }
    }

    /// Runs a model on `batch` samples given as bytes: f32 little-endian or int8, as the model's input is.
    ///
    /// # Errors
    /// `x` has the wrong length.
    pub fn forward_bytes(&mut self, x: &[u8]) -> Result<Data<'_>, SessionError> {
        let dtype = self.model.tables().dtype(self.model.tables().input());
        self.set_input(x, dtype, x.len() / dtype.size())?;
        self.run();
        Ok(self.value(self.model.tables().output()))
    }

    pub(crate) fn run_f32(&mut self, x: &[f32]) -> Result<(), SessionError> {
        self.set_input(x.as_bytes(), DType::F32, x.len())?;
        self.run();
        Ok(())
    }

    pub(crate) fn run_i8(&mut self, x: &[i8]) -> Result<(), SessionError> {
        self.set_input(x.as_bytes(), DType::I8, x.len())?;
        self.run();
        Ok(())
    }

    fn set_input(&mut self, x: &[u8], dtype: DType, got: usize) -> Result<(), SessionError> {
        let t = self.model.tables().input();
        let expected = self.model.tables().dtype(t);
        if dtype != expected {
            return Err(SessionError::Type { dtype: expected });
        }
        let range = self.slot(t, Role::Value).unwrap_or(0..0);
        if x.len() != range.len() {
            return Err(SessionError::Length {
                needed: range.len() / dtype.size(),
                got,
            });
        }
        self.buffer[range].copy_from_slice(x);
        Ok(())
    }

    fn run(&mut self) {
        for k in 0..self.model.tables().op_count() {
            self.forward_op(k);
        }
        self.state = State::Forward;
    }

    fn forward_op(&mut self, k: usize) {
        let model = self.model;
        let tables = model.tables();
        if tables.is_reshape(k) {
            return;
        }
        let node = tables.node(k);
        let backward = self.options.mode != Mode::Infer;
        let saved = match backward {
            true => tables.needs(&node, self.options.mode).saved,
            false => Saved::Nothing,
        };
        if saved == Saved::Statistics {
            self.with_output(node.output, Role::Saved, |s, rest, saved| {
                node.op.prepare(&s.inputs(k, rest), saved);
            });
        }
        self.with_output(node.output, Role::Value, |s, rest, out| {
            let dtype = tables.dtype(node.output);
            let Some(y) = typed_mut(dtype, out) else {
                return;
            };
            let output = s.operand(rest, node.output, false);
            let statistics = match saved {
                Saved::Statistics => s.slice(rest, node.output, Role::Saved),
                _ => &[],
            };
            node.op
                .forward(&s.context(), &s.inputs(k, rest), statistics, &output, y);
        });
        if matches!(saved, Saved::Bits | Saved::Indices) {
            self.with_output(node.output, Role::Saved, |s, rest, saved| {
                let output = s.operand(rest, node.output, true);
                node.op.save(&s.inputs(k, rest), &output, saved);
            });
        }
    }

    /// The elements of the model's output after a run.
    pub fn output(&self) -> Data<'_> {
        self.value(self.model.tables().output())
    }

    /// The class scores before a final softmax, in real units, after a run: `out[i] = scale * (q - zero_point)`
    /// for an int8 model.
    ///
    /// # Errors
    /// `out` is not `batch` times [`Model::classes`] long, or nothing ran.
    pub fn logits(&self, out: &mut [f32]) -> Result<(), SessionError> {
        let t = self.model.tables().logits();
        if self.state == State::Empty {
            return Err(SessionError::NotRun);
        }
        let needed = self.model.classes() * self.options.batch;
        if out.len() != needed {
            let got = out.len();
            return Err(SessionError::Length { needed, got });
        }
        dequantize(self.value(t), self.model.tables().quant(t), out);
        Ok(())
    }

    /// The elements of any activation that is still in the buffer: all of them in Train mode, what the plan
    /// has kept in the others. `Absent` where the tensor has no slot.
    pub fn value(&self, t: usize) -> Data<'_> {
        match self.slot(t, Role::Value) {
            Some(range) => typed(self.model.tables().dtype(t), &self.buffer[range]),
            None => Data::Absent,
        }
    }

    /// Runs the operators one by one and shows every activation to `inspect` (tensor, elements) while it is
    /// there: to find the first one that differs.
    ///
    /// # Errors
    /// `x` has the wrong length.
    pub fn trace(
        &mut self,
        x: &[u8],
        inspect: &mut dyn FnMut(usize, Data<'_>),
    ) -> Result<(), SessionError> {
        let dtype = self.model.tables().dtype(self.model.tables().input());
        self.set_input(x, dtype, x.len() / dtype.size())?;
        for k in 0..self.model.tables().op_count() {
            self.forward_op(k);
            let t = self.model.tables().node(k).output;
            inspect(t, self.value(t));
        }
        self.state = State::Forward;
        Ok(())
    }

    // --- backward ------------------------------------------------------------------------------------

    /// The gradient of `sum(gradient * logits)` with respect to the input, in real units per real unit
    /// (multiply by the input's scale for units per LSB). In Train mode the parameters' gradients are
    /// *added* to [`Session::parameter_gradients`]. One forward serves one backward.
    ///
    /// # Errors
    /// The session is in Infer mode, nothing ran, or the gradient has the wrong length.
    pub fn backward(&mut self, gradient: &[f32]) -> Result<&[f32], SessionError> {
        self.backward_from(self.model.tables().logits(), gradient)
    }

    /// The same from the model's output, through a final softmax if there is one.
    ///
    /// # Errors
    /// As [`Session::backward`].
    pub fn backward_from_output(&mut self, gradient: &[f32]) -> Result<&[f32], SessionError> {
        self.backward_from(self.model.tables().output(), gradient)
    }

    /// The value of an objective of the logits of one sample, and its gradient with respect to the input.
    ///
    /// # Errors
    /// The session is in Infer mode or runs more than one sample, or nothing ran.
    pub fn differentiate(&mut self, objective: Objective) -> Result<(f32, &[f32]), SessionError> {
        let batch = self.options.batch;
        if batch != 1 {
            return Err(SessionError::Batch { batch });
        }
        let logits = self.model.tables().logits();
        self.begin_backward(logits)?;
        let value = {
            // the logits' gradient slot holds first the logits, then the gradient
            let quant = self.model.tables().quant(logits);
            let mut value = 0.0;
            self.with_output(logits, Role::Gradient, |s, rest, out| {
                let Ok(z) = <[f32]>::mut_from_bytes(out) else {
                    return;
                };
                dequantize(s.operand(rest, logits, true).data, quant, z);
                value = objective.differentiate(z);
            });
            value
        };
        Ok((value, self.finish_backward(logits)))
    }

    fn backward_from(&mut self, from: usize, gradient: &[f32]) -> Result<&[f32], SessionError> {
        let seed = self.begin_backward(from)?;
        if seed.len() != gradient.len() * 4 {
            return Err(SessionError::Length {
                needed: seed.len() / 4,
                got: gradient.len(),
            });
        }
        self.buffer[seed].copy_from_slice(gradient.as_bytes());
        Ok(self.finish_backward(from))
    }

    /// Clears what must be clear; returns where the gradient of tensor `from` goes.
    fn begin_backward(&mut self, from: usize) -> Result<Range<usize>, SessionError> {
        if self.options.mode == Mode::Infer {
            return Err(SessionError::WrongMode { mode: Mode::Infer });
        }
        if self.state != State::Forward {
            return Err(SessionError::NotRun);
        }
        self.state = State::Backward;
        self.zero_gradients(0, self.backward_start(from));
        Ok(self.slot(from, Role::Gradient).unwrap_or(0..0))
    }

    /// The time just before the first backward step from tensor `from`.
    fn backward_start(&self, from: usize) -> usize {
        let tables = self.model.tables();
        let last = tables.producer(from).map_or(0, |k| k + 1);
        2 * tables.op_count() - last
    }

    fn finish_backward(&mut self, from: usize) -> &[f32] {
        let model = self.model;
        let tables = model.tables();
        let n = tables.op_count();
        let start = self.backward_start(from);
        for k in (0..2 * n - start).rev() {
            let time = 2 * n - 1 - k;
            if time > start {
                self.zero_gradients(time, time);
            }
            self.backward_op(k);
        }
        self.zero_gradients(2 * n, 2 * n);
        let range = self.slot(tables.input(), Role::Gradient).unwrap_or(0..0);
        <[f32]>::ref_from_bytes(&self.buffer[range]).unwrap_or(&[])
    }

    /// Gradient slots whose life begins from time `first` to time `last` start at zero.
    fn zero_gradients(&mut self, first: usize, last: usize) {
        let tables = self.model.tables();
        for t in 0..tables.tensor_count() {
            if self.in_image(t) {
                continue;
            }
            let begins = tables
                .span(self.options.mode, t, Role::Gradient)
                .map(|s| s.first.get() as usize);
            if let (Some(time), Some(range)) = (begins, self.slot(t, Role::Gradient))
                && (first..=last).contains(&time)
            {
                self.buffer[range].fill(0);
            }
        }
    }

    fn backward_op(&mut self, k: usize) {
        let model = self.model;
        let tables = model.tables();
        if tables.is_reshape(k) {
            return;
        }
        let node = tables.node(k);
        // a model that answers with raw logits: a rail there is no reason to be silent, the attacker
        // still wants to move the score, so the last operator's saturation bits are not applied
        let is_answer = node.output == tables.storage_of(tables.logits());
        let integer = tables.dtype(node.output) == DType::I8;
        if !(is_answer && integer && saturates_only(&node.op)) {
            self.with_output(node.output, Role::Gradient, |s, rest, out| {
                let Ok(gy) = <[f32]>::mut_from_bytes(out) else {
                    return;
                };
                let output = s.operand(rest, node.output, true);
                let saved = s.slice(rest, node.output, Role::Saved);
                node.op
                    .activation_gradient(&s.inputs(k, rest), &output, saved, gy);
            });
        }
        for (i, t) in node.inputs().enumerate() {
            let parameter = self.in_image(t);
            if parameter && self.slot(t, Role::Gradient).is_none() {
                continue;
            }
            self.with_output(t, Role::Gradient, |s, rest, out| {
                let Ok(gx) = <[f32]>::mut_from_bytes(out) else {
                    return;
                };
                let inputs = s.inputs(k, rest);
                let output = s.operand(rest, node.output, true);
                let saved = s.slice(rest, node.output, Role::Saved);
                let gy = s.slice(rest, node.output, Role::Gradient);
                let gy = <[f32]>::ref_from_bytes(gy).unwrap_or(&[]);
                let cx = s.context();
                match parameter {
                    false => node
                        .op
                        .input_gradient(&cx, i, &inputs, &output, saved, gy, gx),
                    true => node
                        .op
                        .parameter_gradient(&cx, i, &inputs, &output, saved, gy, gx),
                }
            });
        }
    }

    // --- training ------------------------------------------------------------------------------------

    /// All parameters and running statistics, in tensor order, as one slice (see [`Session::parameter_table`]).
    ///
    /// # Errors
    /// The session is not in Train mode.
    pub fn parameters(&mut self) -> Result<&mut [f32], SessionError> {
        Ok(self.parameters_and_gradients()?.0)
    }

    /// Their gradients, in the same order, summed since the last [`Session::zero_parameter_gradients`].
    ///
    /// # Errors
    /// The session is not in Train mode.
    pub fn parameter_gradients(&mut self) -> Result<&mut [f32], SessionError> {
        Ok(self.parameters_and_gradients()?.1)
    }

    /// Both at once, for an optimizer.
    ///
    /// # Errors
    /// The session is not in Train mode.
    pub fn parameters_and_gradients(&mut self) -> Result<(&mut [f32], &mut [f32]), SessionError> {
        let mode = self.options.mode;
        let wrong = SessionError::WrongMode { mode };
        if mode != Mode::Train {
            return Err(wrong);
        }
        let fixed = self.model.fixed_bytes(mode);
        let both = <[f32]>::mut_from_bytes(&mut self.buffer[..fixed]).map_err(|_| wrong)?;
        let half = both.len() / 2;
        Ok(both.split_at_mut(half))
    }

    /// Sets the parameters' gradients to zero.
    ///
    /// # Errors
    /// The session is not in Train mode.
    pub fn zero_parameter_gradients(&mut self) -> Result<(), SessionError> {
        self.parameter_gradients()?.fill(0.0);
        Ok(())
    }

    /// Which tensors the slices of [`Session::parameters`] hold: tensor, role, and its elements' range.
    pub fn parameter_table(
        &self,
    ) -> impl Iterator<Item = (usize, TensorRole, Range<usize>)> + use<'a> {
        let tables = *self.model.tables();
        let mut at = 0;
        (0..tables.tensor_count())
            .filter(move |&t| {
                matches!(
                    tables.role(t),
                    TensorRole::Parameter | TensorRole::Statistic
                )
            })
            .map(move |t| {
                let start = at;
                at += tables.shape(t).len();
                (t, tables.role(t), start..at)
            })
    }

    // --- slots ---------------------------------------------------------------------------------------

    fn in_image(&self, t: usize) -> bool {
        self.model.tables().is_in_image(t)
    }

    fn slot(&self, t: usize, role: Role) -> Option<Range<usize>> {
        let Options { mode, batch, .. } = self.options;
        self.model.slot(mode, batch, t, role)
    }

    /// Takes one slot out of the buffer to write it, while the rest can be read.
    fn with_output(
        &mut self,
        t: usize,
        role: Role,
        write: impl FnOnce(&View<'a>, &Rest<'_>, &mut [u8]),
    ) {
        let Some(range) = self.slot(t, role) else {
            return;
        };
        let view = View {
            model: self.model,
            options: self.options,
        };
        let (before, tail) = self.buffer.split_at_mut(range.start);
        let (out, after) = tail.split_at_mut(range.len());
        let rest = Rest {
            before,
            after,
            after_start: range.end,
        };
        write(&view, &rest, out);
    }
}

/// Whether the only nonlinearity fused into an int8 operator is the saturation of its output.
fn saturates_only(op: &Op) -> bool {
    let activation = match op {
        Op::Conv2d(conv) => conv.activation,
        Op::DepthwiseConv2d(conv) => conv.activation,
        Op::Dense(dense) => dense.activation,
        Op::Add(add) => add.activation,
        Op::Mul(mul) => mul.activation,
        _ => return false,
    };
    activation == Activation::None
}

fn dequantize(z: Data<'_>, quant: Quant<'_>, out: &mut [f32]) {
    match z {
        Data::F32(z) => out.copy_from_slice(z),
        Data::I8(z) => {
            for (o, &q) in out.iter_mut().zip(z) {
                *o = quant.scale * (q as i32 - quant.zero_point) as f32;
            }
        }
        Data::I32(_) | Data::Absent => out.fill(0.0),
    }
}

/// The buffer without the slot that is being written.
struct Rest<'r> {
    before: &'r [u8],
    after: &'r [u8],
    after_start: usize,
}

impl<'r> Rest<'r> {
    fn get(&self, range: Range<usize>) -> &'r [u8] {
        let found = match range.start.checked_sub(self.after_start) {
            Some(start) => self.after.get(start..start + range.len()),
            None => self.before.get(range),
        };
        found.unwrap_or(&[])
    }
}

/// What a session knows, apart from its buffer.
struct View<'a> {
    model: Model<'a>,
    options: Options,
}

impl<'a> View<'a> {
    fn context(&self) -> Context {
        Context {
            kernels: self.options.kernels,
            rounding: self.model.rounding(),
        }
    }

    fn slice<'r>(&self, rest: &Rest<'r>, t: usize, role: Role) -> &'r [u8] {
        let Options { mode, batch, .. } = self.options;
        match self.model.slot(mode, batch, t, role) {
            Some(range) => rest.get(range),
            None => &[],
        }
    }

    fn operand<'r>(&self, rest: &Rest<'r>, t: usize, with_data: bool) -> Operand<'r>
    where
        'a: 'r,
    {
        let tables = self.model.tables();
        let Options { mode, batch, .. } = self.options;
        let mut operand: Operand<'r> = tables.operand(t);
        if !tables.is_in_image(t) {
            operand.shape = operand.shape.with_batch(batch);
        }
        if with_data && let Some(range) = self.model.slot(mode, batch, t, Role::Value) {
            operand.data = typed(operand.dtype, rest.get(range));
        }
        operand
    }

    fn inputs<'r>(&self, k: usize, rest: &Rest<'r>) -> heapless::Vec<Operand<'r>, MAX_INPUTS>
    where
        'a: 'r,
    {
        self.model
            .tables()
            .node(k)
            .inputs()
            .map(|t| self.operand(rest, t, true))
            .collect()
    }
}
