//! The checks behind [`super::Model::from_bytes`] that need more than one record at a time.

use super::format::{Span, TensorRole};
use super::{MAX_MACS, ModelError, Node, Tables};
use crate::memory::{self, Mode, Role};
use crate::ops::{MAX_INPUTS, Op};
use crate::tensor::Operand;

/// Every operator reads what is there, writes what is its own, and fits its operands.
pub(super) fn operators(model: &Tables<'_>) -> Result<(), ModelError> {
    let mut macs: u64 = 0;
    if model.role(model.input()) != TensorRole::Activation {
        return Err(ModelError::Tensor {
            tensor: model.input(),
        });
    }
    for k in 0..model.op_count() {
        let node = model.node(k);
        let mut operands: heapless::Vec<Operand<'_>, MAX_INPUTS> = heapless::Vec::new();
        for t in node.inputs() {
            let misused = model.role(t) == TensorRole::State && !is_state_of(&node, t);
            if misused || !available(model, t, k) {
                return Err(ModelError::Order { op: k, tensor: t });
            }
            // node.inputs() has at most MAX_INPUTS items
            let _ = operands.push(model.operand(t));
        }
        let written_before = model.producer(node.output) != Some(k);
        if written_before || model.is_in_image(node.output) || node.output == model.input() {
            return Err(ModelError::Order {
                op: k,
                tensor: node.output,
            });
        }
        if !has_its_state(model, &node) {
            let tensor = node.output;
            return Err(ModelError::Order { op: k, tensor });
        }
        let output = model.operand(node.output);
        node.op
            .check(model.numerics(), &operands, &output)
            .map_err(|error| ModelError::Op { op: k, error })?;
        if model.is_reshape(k) && node.inputs().any(|t| model.is_in_image(t)) {
            let tensor = node.output;
            return Err(ModelError::Order { op: k, tensor });
        }
        macs = macs.saturating_add(model.macs(k));
    }
    let macs = macs.saturating_mul(model.pass_count(Mode::Attack) as u64);
    if macs > MAX_MACS {
        return Err(ModelError::TooMuchWork { macs });
    }
    for tensor in [model.output(), model.logits()] {
        let computed = model.role(tensor) == TensorRole::Activation;
        if !computed || !available(model, tensor, model.op_count()) {
            return Err(ModelError::NotComputed { tensor });
        }
    }
    // what is compared must have as many elements
    let same = model.shape(model.output()).len() == model.shape(model.input()).len();
    if model.anomaly_above().is_some() && !same {
        return Err(ModelError::Tensor {
            tensor: model.output(),
        });
    }
    Ok(())
}

/// Whether a tensor's elements are there before operator `k` runs.
fn available(model: &Tables<'_>, t: usize, k: usize) -> bool {
    model.is_in_image(t)
        || model.role(t) == TensorRole::State
        || t == model.input()
        || model.producer(t).is_some_and(|p| p < k)
}

/// Whether `t` is what the operator keeps from one run to the next, and nothing else of it.
fn is_state_of(node: &Node, t: usize) -> bool {
    let mut uses = node.inputs().enumerate().filter(|&(_, input)| input == t);
    uses.next().map(|(i, _)| i) == node.op.state_operand() && uses.next().is_none()
}

/// Whether the operand that an operator keeps from one run to the next is a state.
fn has_its_state(model: &Tables<'_>, node: &Node) -> bool {
    let Some(i) = node.op.state_operand() else {
        return true;
    };
    let state = node.inputs().nth(i);
    state.is_some_and(|t| model.role(t) == TensorRole::State)
}

/// Whether the outermost dimension is a batch dimension throughout: 1 everywhere, and no operator mixes it
/// with others.
pub(super) fn batchable(model: &Tables<'_>) -> bool {
    let activations_ok = (0..model.tensor_count())
        .filter(|&t| !model.is_in_image(t))
        .all(|t| model.shape(t).rank() > 1 && model.shape(t).dim(0) == 1);
    activations_ok && (0..model.op_count()).all(|k| keeps_samples_apart(model, k))
}

fn keeps_samples_apart(model: &Tables<'_>, k: usize) -> bool {
    let node = model.node(k);
    match node.op {
        Op::Concat(concat) => concat.axis != 0,
        Op::ReduceMax(reduce) => reduce.axis != 0,
        Op::Slice(slice) => slice.axis != 0,
        Op::Transpose(transpose) => transpose.axes[0] == 0,
        Op::Pad(pad) => pad.before[0] == 0 && pad.after[0] == 0,
        Op::Add(_) | Op::Mul(_) => {
            // broadcasting aligns the last axes: operands of fewer axes would take the batch for another one
            let rank = model.shape(node.output).rank();
            node.inputs()
                .all(|t| model.is_in_image(t) || model.shape(t).rank() == rank)
        }
        _ => true,
    }
}

/// Every slot is there whenever it is used, lies inside the buffer, and shares no byte with another that
/// is in use at the same time. What one pass leaves to the next is in the same place in both.
pub(super) fn plan(model: &Tables<'_>, mode: Mode) -> Result<(), ModelError> {
    if mode == Mode::Train
        && parameters_bytes(model) != model.header().parameter_bytes.get() as usize
    {
        return Err(ModelError::Header);
    }
    for t in (0..model.tensor_count()).filter(|&t| model.is_in_image(t)) {
        for role in Role::ALL {
            parameter_slot(model, mode, t, role)?;
        }
    }
    // what is computed again would begin with another state
    let state = (0..model.tensor_count()).find(|&t| model.role(t) == TensorRole::State);
    if let Some(tensor) = state
        && model.pass_count(mode) > 1
    {
        return Err(ModelError::Plan { mode, tensor });
    }
    for pass in 0..model.pass_count(mode) {
        covers_uses(model, mode, pass)?;
        aliases(model, mode, pass)?;
        for (i, slot) in model.slots(mode, pass).enumerate() {
            keeps_apart(model, (mode, pass), i, slot)?;
        }
    }
    Ok(())
}

fn covers_uses(model: &Tables<'_>, mode: Mode, pass: usize) -> Result<(), ModelError> {
    let close = 2 * model.op_count();
    let mut missing = None;
    memory::uses(model, mode, model.pass(mode, pass), &mut |t, role, time| {
        let span = model.span(mode, pass, t, role);
        let mut good = span.is_some_and(|span| span.covers(time));
        if let Some(next) = pass.checked_sub(1)
            && time as usize == close
        {
            let place = |span: Option<Span>| span.map(|s| s.offset.get());
            good &= place(span) == place(model.span(mode, next, t, role));
        }
        if !good && missing.is_none() {
            missing = Some(t);
        }
    });
    match missing {
        Some(tensor) => Err(ModelError::Plan { mode, tensor }),
        None => Ok(()),
    }
}

/// A reshape's output lies where its input lies. Saved notes belong to an operator's own output; a reshape saves none.
fn aliases(model: &Tables<'_>, mode: Mode, pass: usize) -> Result<(), ModelError> {
    for t in (0..model.tensor_count()).filter(|&t| model.is_alias(t)) {
        let storage = model.storage_of(t);
        for role in [Role::Value, Role::Gradient] {
            if model.span(mode, pass, t, role) != model.span(mode, pass, storage, role) {
                return Err(ModelError::Plan { mode, tensor: t });
            }
        }
    }
    Ok(())
}

/// Slot `i` of a pass lies in the buffer and apart from those before it that are in use at the same time.
fn keeps_apart(
    model: &Tables<'_>,
    (mode, pass): (Mode, usize),
    i: usize,
    (t, role, span): (usize, Role, Span),
) -> Result<(), ModelError> {
    let bad = ModelError::Plan { mode, tensor: t };
    let start = span.offset.get() as usize;
    let size = memory::slot_bytes(model, t, role, mode);
    let aligned = start.is_multiple_of(memory::SLOT_ALIGN);
    if !aligned || start.saturating_add(size) > model.arena_bytes(mode) || model.is_alias(t) {
        return Err(bad);
    }
    for (other, other_role, o) in model.slots(mode, pass).take(i) {
        let in_time = span.first <= o.last && o.first <= span.last;
        if !in_time {
            continue;
        }
        let o_start = o.offset.get() as usize;
        let o_size = memory::slot_bytes(model, other, other_role, mode);
        if start < o_start.saturating_add(o_size) && o_start < start + size {
            return Err(ModelError::Overlap {
                mode,
                tensor: t,
                other,
            });
        }
    }
    Ok(())
}

/// Parameters have a place in the part of the Train buffer that does not grow with the batch: first all
/// values, then all gradients, both in tensor order. So the place follows from the table; it is checked.
fn parameter_slot(model: &Tables<'_>, mode: Mode, t: usize, role: Role) -> Result<(), ModelError> {
    let expected = match mode {
        Mode::Train => parameter_offset(model, t, role),
        Mode::Infer | Mode::Attack => None,
    };
    let got = model
        .span(mode, 0, t, role)
        .map(|span| span.offset.get() as usize);
    match expected == got {
        true => Ok(()),
        false => Err(ModelError::Plan { mode, tensor: t }),
    }
}

fn is_parameter(model: &Tables<'_>, t: usize) -> bool {
    matches!(model.role(t), TensorRole::Parameter | TensorRole::Statistic)
}

/// Elements of all parameters and statistics among the first `end` tensors.
pub(crate) fn parameters_len(model: &Tables<'_>, end: usize) -> usize {
    (0..end)
        .filter(|&t| is_parameter(model, t))
        .map(|t| model.shape(t).len())
        .fold(0, usize::saturating_add)
}

/// Bytes of the values and the gradients of all parameters.
fn parameters_bytes(model: &Tables<'_>) -> usize {
    parameters_len(model, model.tensor_count()).saturating_mul(2 * 4)
}

/// Where a parameter's values or gradients start in the Train buffer, bytes.
pub(crate) fn parameter_offset(model: &Tables<'_>, t: usize, role: Role) -> Option<usize> {
    if !is_parameter(model, t) {
        return None;
    }
    let before = match role {
        Role::Value => 0,
        Role::Gradient => parameters_len(model, model.tensor_count()),
        Role::Saved => return None,
    };
    let elements = parameters_len(model, t).saturating_add(before);
    Some(elements.saturating_mul(4))
}
