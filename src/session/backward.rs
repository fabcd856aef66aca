//! Backward: from an output gradient to the input's and the parameters'.

use super::view::{Inputs, dequantize};
use super::{Session, SessionError, State};
use crate::loss::Objective;
use crate::memory::{Mode, Role};
use crate::model::Node;
use crate::model::format::TensorRole;
use crate::ops::{Activation, Op, Seen};
use crate::tensor::DType;
use core::ops::Range;
use zerocopy::{FromBytes, IntoBytes};

/// Which gradients a backward is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Both,
    Input,
    Parameters,
}

impl<'a> Session<'a> {
    /// The gradient of `sum(gradient * logits)` with respect to the input, in real units per real unit
    /// (multiply by the input's scale for units per LSB). In Train mode the parameters' gradients are
    /// *added* to [`Session::parameter_gradients`]. One forward serves one backward.
    ///
    /// # Errors
    /// The session is in Infer mode, nothing ran, or the gradient has the wrong length.
    pub fn backward(&mut self, gradient: &[f32]) -> Result<&[f32], SessionError> {
        match self.model.anomaly_above() {
            Some(_) => self.backward_scores(gradient, Wanted::Both),
            None => self.backward_from(self.model.tables().logits(), gradient, Wanted::Both),
        }
    }

    /// The gradient that [`Session::backward`] gives, to the bit, while the parameters' gradients stay as they are: what an
    /// attack on a network in training needs, for about two thirds of the work. In Attack mode the two are the same.
    ///
    /// # Errors
    /// As [`Session::backward`].
    pub fn input_gradient(&mut self, gradient: &[f32]) -> Result<&[f32], SessionError> {
        match self.model.anomaly_above() {
            Some(_) => self.backward_scores(gradient, Wanted::Input),
            None => self.backward_from(self.model.tables().logits(), gradient, Wanted::Input),
        }
    }

    /// Adds to the parameters' gradients what [`Session::backward`] adds, to the bit, and leaves out the gradient with respect to
    /// the input, which training on given samples has no use for: a first layer's is as much work as its forward.
    ///
    /// # Errors
    /// As [`Session::backward`], and where the session is not in Train mode.
    pub fn backward_parameters(&mut self, gradient: &[f32]) -> Result<(), SessionError> {
        let mode = self.options.mode;
        if mode != Mode::Train {
            return Err(SessionError::WrongMode { mode });
        }
        match self.model.anomaly_above() {
            Some(_) => self.backward_scores(gradient, Wanted::Parameters)?,
            None => {
                self.backward_from(self.model.tables().logits(), gradient, Wanted::Parameters)?
            }
        };
        Ok(())
    }

    /// The same from the model's output, through a final softmax if there is one.
    ///
    /// # Errors
    /// As [`Session::backward`].
    pub fn backward_from_output(&mut self, gradient: &[f32]) -> Result<&[f32], SessionError> {
        self.backward_from(self.model.tables().output(), gradient, Wanted::Both)
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
        if let Some(threshold) = self.model.anomaly_above() {
            self.may_run_backward()?;
            let score = self.anomaly_score(0, threshold);
            let mut scores = [-score, score];
            let value = objective.differentiate(&mut scores);
            return Ok((value, self.backward_scores(&scores, Wanted::Both)?));
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
        Ok((value, self.finish_backward(logits, Wanted::Both)))
    }

    fn backward_from(
        &mut self,
        from: usize,
        gradient: &[f32],
        wanted: Wanted,
    ) -> Result<&[f32], SessionError> {
        let seed = self.begin_backward(from)?;
        if seed.len() != gradient.len() * 4 {
            return Err(SessionError::Length {
                needed: seed.len() / 4,
                got: gradient.len(),
            });
        }
        self.buffer[seed].copy_from_slice(gradient.as_bytes());
        Ok(self.finish_backward(from, wanted))
    }

    fn may_run_backward(&self) -> Result<(), SessionError> {
        match (self.options.mode, self.state) {
            (mode @ Mode::Infer, _) => Err(SessionError::WrongMode { mode }),
            (_, State::Forward) => Ok(()),
            _ => Err(SessionError::NotRun),
        }
    }

    /// Clears what must be clear; returns where the gradient of tensor `from` goes.
    pub(super) fn begin_backward(&mut self, from: usize) -> Result<Range<usize>, SessionError> {
        self.may_run_backward()?;
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

    /// Backward from the gradient of tensor `from`.
    pub(super) fn finish_backward(&mut self, from: usize, wanted: Wanted) -> &[f32] {
        let model = self.model;
        let tables = model.tables();
        let n = tables.op_count();
        let start = self.backward_start(from);
        let first = self.pass;
        // operators from here on have no part in it
        let behind = n.min(2 * n - start);
        let sets = self.options.kernels.set_gradients() && wanted != Wanted::Input;
        let cleared = sets && core::mem::take(&mut self.cleared);
        if cleared {
            self.zero_unreached(behind);
        }
        for pass in (0..=first).rev() {
            self.pass = pass;
            let operators = self.operators();
            // operators behind the tensor that backward starts from have no part in it
            let end = operators.end.min(2 * n - start).max(operators.start);
            if pass < first {
                // what an earlier pass did not save is computed again
                for k in 0..operators.end {
                    self.forward_op(k);
                }
                self.zero_gradients(n, 2 * n - end);
            }
            for k in (operators.start..end).rev() {
                if k + 1 < end {
                    self.zero_gradients(2 * n - 1 - k, 2 * n - 1 - k);
                }
                self.backward_op(k, wanted, cleared.then_some(behind));
            }
        }
        self.zero_gradients(2 * n, 2 * n);
        let range = self.slot(tables.input(), Role::Gradient).unwrap_or(0..0);
        <[f32]>::ref_from_bytes(&self.buffer[range]).unwrap_or(&[])
    }

    /// Gradient slots whose life begins from time `first` to time `last` start at zero, but for those that the operator at time `last`
    /// begins: it has them cleared where it must.
    fn zero_gradients(&mut self, first: usize, last: usize) {
        let tables = self.model.tables();
        for t in 0..tables.tensor_count() {
            if self.in_image(t) {
                continue;
            }
            let begins = tables
                .span(self.options.mode, self.pass, t, Role::Gradient)
                .map(|s| s.first.get() as usize);
            if let Some(time) = begins
                && (first..=last).contains(&time)
                && !(time == last && self.begins(t, time))
                && let Some(range) = self.slot(t, Role::Gradient)
            {
                self.buffer[range].fill(0);
            }
        }
    }

    /// Whether tensor `t` is an input of the operator that runs backward at this time, which then is the first to write its gradient.
    fn begins(&self, t: usize, time: usize) -> bool {
        let tables = self.model.tables();
        let Some(k) = (2 * tables.op_count() - 1).checked_sub(time) else {
            return false;
        };
        if !self.options.kernels.set_gradients() || k >= tables.op_count() || tables.is_reshape(k) {
            return false;
        }
        let node = self.node(k);
        let same = |i: usize| tables.storage_of(i) == tables.storage_of(t);
        !node.op.unrolls() && node.inputs().any(same)
    }

    /// Whether input `i` of operator `k`, tensor `t`, has nothing in its gradient yet, not even zeros.
    fn is_fresh(&self, k: usize, i: usize, t: usize) -> bool {
        let tables = self.model.tables();
        let time = 2 * tables.op_count() - 1 - k;
        let storage = tables.storage_of(t);
        let span = tables.span(self.options.mode, self.pass, storage, Role::Gradient);
        let node = self.node(k);
        let mut earlier = node.inputs().take(i);
        self.begins(t, time)
            && span.is_some_and(|span| span.first.get() as usize == time)
            && earlier.all(|other| tables.storage_of(other) != storage)
    }

    /// Clears the gradients of parameters that no operator before `end` has.
    fn zero_unreached(&mut self, end: usize) {
        for t in 0..self.model.tables().tensor_count() {
            if let (true, Some(range)) = (self.in_image(t), self.slot(t, Role::Gradient))
                && !self.is_read(t, 0..end)
            {
                self.buffer[range].fill(0);
            }
        }
    }

    /// Whether tensor `t` is an input of one of these operators.
    fn is_read(&self, t: usize, mut operators: Range<usize>) -> bool {
        let tables = self.model.tables();
        operators.any(|k| !tables.is_reshape(k) && self.node(k).inputs().any(|i| i == t))
    }

    /// Backward of one operator. Where the parameters' gradients were cleared, `cleared` says before which operator backward began.
    fn backward_op(&mut self, k: usize, wanted: Wanted, cleared: Option<usize>) {
        let model = self.model;
        let tables = model.tables();
        if tables.is_reshape(k) {
            return;
        }
        let node = self.node(k);
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
                let mut room = Inputs::new();
                let inputs = s.inputs(&node, rest, &mut room);
                let seen = Seen {
                    inputs,
                    output: &output,
                    saved,
                };
                node.op.activation_gradient(&s.context(), &seen, gy);
            });
        }
        if node.op.unrolls() {
            self.backward_in_time(&node);
        }
        for (i, t) in node.inputs().enumerate() {
            let parameter = self.in_image(t);
            if node.op.unrolls() && !parameter {
                continue;
            }
            if wanted == Wanted::Parameters && tables.storage_of(t) == tables.input() {
                continue;
            }
            let trains = wanted != Wanted::Input && self.options.mode.trains();
            if parameter && !(trains && self.slot(t, Role::Gradient).is_some()) {
                continue;
            }
            let fresh = match parameter {
                false => self.is_fresh(k, i, t),
                true => cleared.is_some_and(|behind| {
                    let mut earlier = node.inputs().take(i);
                    earlier.all(|other| other != t) && !self.is_read(t, k + 1..behind)
                }),
            };
            self.with_output(t, Role::Gradient, |s, rest, out| {
                let Ok(gx) = <[f32]>::mut_from_bytes(out) else {
                    return;
                };
                let mut room = Inputs::new();
                let inputs = s.inputs(&node, rest, &mut room);
                let output = s.operand(rest, node.output, true);
                let saved = s.slice(rest, node.output, Role::Saved);
                let gy = s.slice(rest, node.output, Role::Gradient);
                let gy = <[f32]>::ref_from_bytes(gy).unwrap_or(&[]);
                let cx = s.context();
                let seen = Seen {
                    inputs,
                    output: &output,
                    saved,
                };
                if fresh {
                    let done = match parameter && trains {
                        false => node.op.set_input_gradient(&cx, &seen, gy, gx),
                        true => node.op.set_parameter_gradient(&cx, i, &seen, gy, gx),
                    };
                    if done {
                        return;
                    }
                    gx.fill(0.0);
                }
                match parameter && trains {
                    false => node.op.input_gradient(&cx, i, &seen, gy, gx),
                    true => node.op.parameter_gradient(&cx, i, &seen, gy, gx),
                }
            });
        }
    }

    /// Backward through the steps of a sequence, which turns the output's gradient and the note into other things on its way.
    fn backward_in_time(&mut self, node: &Node) {
        let Some(x) = node.inputs().next() else {
            return;
        };
        let slots = [
            (x, Role::Gradient),
            (node.output, Role::Gradient),
            (node.output, Role::Saved),
        ];
        self.with_outputs(slots, |s, rest, [gx, gy, saved]| {
            let gradients = (<[f32]>::mut_from_bytes(gx), <[f32]>::mut_from_bytes(gy));
            let (Ok(gx), Ok(gy)) = gradients else {
                return;
            };
            let mut room = Inputs::new();
            let inputs = s.inputs(node, rest, &mut room);
            let output = s.operand(rest, node.output, false);
            node.op.unrolled_gradient(inputs, &output, saved, gy, gx);
        });
    }

    /// All parameters and running statistics, in tensor order, as one slice (see [`Session::parameter_table`]).
    ///
    /// # Errors
    /// The session is not in Train mode.
    pub fn parameters(&mut self) -> Result<&mut [f32], SessionError> {
        Ok(self.both()?.0)
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
        let cleared = core::mem::take(&mut self.cleared);
        let (parameters, gradients) = self.both()?;
        if cleared {
            gradients.fill(0.0);
        }
        Ok((parameters, gradients))
    }

    /// Both as they lie in the buffer.
    fn both(&mut self) -> Result<(&mut [f32], &mut [f32]), SessionError> {
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

    /// Sets the parameters' gradients to zero. Where kernels can set them, the next backward does it: a large layer's are then never
    /// written twice.
    ///
    /// # Errors
    /// The session is not in Train mode.
    pub fn zero_parameter_gradients(&mut self) -> Result<(), SessionError> {
        let later = self.options.kernels.set_gradients();
        let gradients = self.both()?.1;
        if !later {
            gradients.fill(0.0);
        }
        self.cleared = later;
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
}

/// Whether the only nonlinearity fused into an int8 operator is the saturation of its output.
fn saturates_only(op: &Op) -> bool {
    let activation = match op {
        Op::Conv2d(conv) => conv.activation,
        Op::DepthwiseConv2d(conv) => conv.activation,
        Op::ConvTranspose2d(conv) => conv.activation,
        Op::Dense(dense) => dense.activation,
        Op::Add(add) => add.activation,
        Op::Mul(mul) => mul.activation,
        _ => return false,
    };
    activation == Activation::None
}
