//! Forward: from the input to the output, operator by operator.

use super::view::{Inputs, dequantize};
use super::{Session, SessionError, State};
use crate::loss::argmax;
use crate::memory::{Mode, Role};
use crate::model::Node;
use crate::ops::{Memory, Saved};
#[cfg(foolproof_simd)]
use crate::ops::{Op, Pool2d};
use crate::tensor::{DType, Data, typed, typed_mut, typed_state};
use zerocopy::IntoBytes;

impl Session<'_> {
    /// Runs an f32 model on `batch` samples and returns its output.
    ///
    /// # Errors
    /// The model's input or output is not f32, or `x` has the wrong length.
    pub fn forward_f32(&mut self, x: &[f32]) -> Result<&[f32], SessionError> {
        self.run_f32(x)?;
        self.answer_f32()
    }

    fn answer_f32(&self) -> Result<&[f32], SessionError> {
        let t = self.model.tables().output();
        match self.value(t) {
            Data::F32(y) => Ok(y),
            _ => Err(SessionError::Type {
                dtype: self.model.tables().dtype(t),
            }),
        }
    }

    /// As [`Session::forward_f32`] of all these samples, one part after the other, without a copy of them side by side.
    ///
    /// # Errors
    /// As [`Session::forward_f32`], of all parts together.
    pub fn forward_f32_parts(&mut self, parts: &[&[f32]]) -> Result<&[f32], SessionError> {
        self.set_input(parts.iter().map(|part| part.as_bytes()), DType::F32)?;
        self.run();
        self.answer_f32()
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
        self.set_input([x], dtype)?;
        self.run();
        Ok(self.value(self.model.tables().output()))
    }

    /// A run that begins with the reset state.
    pub(crate) fn run_f32_alone(&mut self, x: &[f32]) -> Result<(), SessionError> {
        self.reset_state();
        self.run_f32(x)
    }

    /// A run that begins with the reset state.
    pub(crate) fn run_i8_alone(&mut self, x: &[i8]) -> Result<(), SessionError> {
        self.reset_state();
        self.run_i8(x)
    }

    fn run_f32(&mut self, x: &[f32]) -> Result<(), SessionError> {
        self.set_input([x.as_bytes()], DType::F32)?;
        self.run();
        Ok(())
    }

    fn run_i8(&mut self, x: &[i8]) -> Result<(), SessionError> {
        self.set_input([x.as_bytes()], DType::I8)?;
        self.run();
        Ok(())
    }

    fn set_input<'x>(
        &mut self,
        parts: impl IntoIterator<Item = &'x [u8], IntoIter: Clone>,
        dtype: DType,
    ) -> Result<(), SessionError> {
        let t = self.model.tables().input();
        let expected = self.model.tables().dtype(t);
        if dtype != expected {
            return Err(SessionError::Type { dtype: expected });
        }
        self.begin();
        let range = self.slot(t, Role::Value).unwrap_or(0..0);
        let parts = parts.into_iter();
        let lens = parts.clone().map(<[u8]>::len);
        let got = lens.fold(0, usize::saturating_add);
        if got != range.len() {
            let size = dtype.size();
            return Err(SessionError::Length {
                needed: range.len() / size,
                got: got / size,
            });
        }
        let mut at = range.start;
        for part in parts {
            self.buffer[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Ok(())
    }

    fn run(&mut self) {
        if self.options.mode == Mode::Train {
            self.reset_state();
        }
        for k in 0..self.model.tables().op_count() {
            self.forward_op(k);
        }
        self.state = State::Forward;
    }

    pub(super) fn forward_op(&mut self, k: usize) {
        let tables = self.model.tables();
        if tables.is_reshape(k) {
            return;
        }
        #[cfg(foolproof_simd)]
        if self.run_prepared(k) {
            return;
        }
        let node = self.node(k);
        // an earlier pass of backward saves the notes of the operators before this one's own
        let backward = self.options.mode.goes_back() && k >= self.operators().start;
        let saved = match backward {
            true => self.model.tables().needs(&node, self.options.mode).saved,
            false => Saved::Nothing,
        };
        if self.options.mode.trains() && saved == Saved::Statistics {
            self.with_output(node.output, Role::Saved, |s, rest, saved| {
                node.op.prepare(
                    &s.context(),
                    s.inputs(&node, rest, &mut Inputs::new()),
                    saved,
                );
            });
        }
        #[cfg(foolproof_simd)]
        if let (Op::MaxPool2d(pool), Saved::Indices, DType::F32) =
            (node.op, saved, self.model.tables().dtype(node.output))
        {
            return self.compute_and_save(&node, &pool);
        }
        match node.op.writes_state() {
            true => self.advance(&node),
            false => self.compute(&node, saved),
        }
        if matches!(saved, Saved::Bits | Saved::Indices) {
            self.with_output(node.output, Role::Saved, |s, rest, saved| {
                let output = s.operand(rest, node.output, true);
                node.op.save(
                    &s.context(),
                    s.inputs(&node, rest, &mut Inputs::new()),
                    &output,
                    saved,
                );
            });
        }
    }

    fn compute(&mut self, node: &Node, saved: Saved) {
        self.with_output(node.output, Role::Value, |s, rest, out| {
            let output = s.operand(rest, node.output, false);
            let Some(y) = typed_mut(output.dtype, out) else {
                return;
            };
            let statistics = match saved {
                Saved::Statistics => s.slice(rest, node.output, Role::Saved),
                _ => &[],
            };
            node.op.forward(
                &s.context(),
                s.inputs(node, rest, &mut Inputs::new()),
                statistics,
                &output,
                y,
            );
        });
    }

    /// An f32 max pool: vector loops write its note beside its output.
    #[cfg(foolproof_simd)]
    fn compute_and_save(&mut self, node: &Node, pool: &Pool2d) {
        let slots = [Role::Value, Role::Saved].map(|role| (node.output, role));
        self.with_outputs(slots, |s, rest, [out, saved]| {
            let output = s.operand(rest, node.output, false);
            let Some(y) = typed_mut(output.dtype, out) else {
                return;
            };
            if let Some(x) = s.inputs(node, rest, &mut Inputs::new()).first() {
                pool.maximum_and_save(&s.context(), x, &output, y, saved);
            }
        });
    }

    /// An operator that also goes on with its state, and writes its note while it runs.
    fn advance(&mut self, node: &Node) {
        let operand = node.op.state_operand().unwrap_or(0);
        let Some(state) = node.inputs().nth(operand) else {
            return;
        };
        let slots = [
            (node.output, Role::Value),
            (state, Role::Value),
            (node.output, Role::Saved),
        ];
        self.with_outputs(slots, |s, rest, [out, kept, saved]| {
            let output = s.operand(rest, node.output, false);
            let kept = typed_state(s.operand(rest, state, false).dtype, kept);
            let (Some(y), Some(state)) = (typed_mut(output.dtype, out), kept) else {
                return;
            };
            let memory = Memory { state, saved };
            node.op.advance(
                &s.context(),
                s.inputs(node, rest, &mut Inputs::new()),
                &output,
                y,
                memory,
            );
        });
    }

    /// The elements of the model's output after a run.
    pub fn output(&self) -> Data<'_> {
        self.value(self.model.tables().output())
    }

    /// The class scores before a final softmax, in real units, after a run: `out[i] = scale * (q - zero_point)`
    /// for an int8 model; an anomaly detector's two scores (see [`Model::anomaly_above`](crate::model::Model::anomaly_above)).
    ///
    /// # Errors
    /// `out` is not `batch` times [`Model::classes`](crate::model::Model::classes) long, or nothing ran.
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
        match self.model.anomaly_above() {
            Some(threshold) => {
                for (sample, scores) in out.as_chunks_mut().0.iter_mut().enumerate() {
                    let score = self.anomaly_score(sample, threshold);
                    *scores = [-score, score];
                }
            }
            None => dequantize(self.value(t), self.model.tables().quant(t), out),
        }
        Ok(())
    }

    /// What the model says after a run: the first of the largest elements of the output; for an anomaly detector 1 for an
    /// anomaly, 0 otherwise. Of a batch, the first sample's.
    pub fn label(&self) -> usize {
        if let Some(threshold) = self.model.anomaly_above() {
            return usize::from(self.anomaly_score(0, threshold) > 0.0);
        }
        let n = self.model.output_shape().len();
        match self.output() {
            Data::F32(y) => argmax(y.get(..n).unwrap_or(y)),
            Data::I8(y) => argmax(y.get(..n).unwrap_or(y)),
            Data::I32(_) | Data::Absent => 0,
        }
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
    /// there, the input first: to find the first one that differs.
    ///
    /// # Errors
    /// `x` has the wrong length.
    pub fn trace(
        &mut self,
        x: &[u8],
        inspect: &mut dyn FnMut(usize, Data<'_>),
    ) -> Result<(), SessionError> {
        let dtype = self.model.tables().dtype(self.model.tables().input());
        self.set_input([x], dtype)?;
        let input = self.model.tables().input();
        inspect(input, self.value(input));
        for k in 0..self.model.tables().op_count() {
            self.forward_op(k);
            let t = self.node(k).output;
            inspect(t, self.value(t));
        }
        self.state = State::Forward;
        Ok(())
    }
}
