//! The checks behind [`super::Model::from_bytes`] that need more than one record at a time.

use super::format::TensorRole;
use super::{MAX_MACS, ModelError, Tables};
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
        let mut shapes = heapless::Vec::<_, MAX_INPUTS>::new();
        for t in node.inputs() {
            if !available(model, t, k) {
                return Err(ModelError::Order { op: k, tensor: t });
            }
            // node.inputs() has at most MAX_INPUTS items
            let _ = operands.push(model.operand(t));
            let _ = shapes.push(model.shape(t));
        }
        let written_before = model.producer(node.output) != Some(k);
        if written_before || model.is_in_image(node.output) || node.output == model.input() {
            return Err(ModelError::Order {
                op: k,
                tensor: node.output,
            });
        }
        let output = model.operand(node.output);
        node.op
            .check(&operands, &output)
            .map_err(|error| ModelError::Op { op: k, error })?;
        if model.is_reshape(k) && node.inputs().any(|t| model.is_in_image(t)) {
            let tensor = node.output;
            return Err(ModelError::Order { op: k, tensor });
        }
        macs = macs.saturating_add(node.op.macs(&shapes, &output.shape));
    }
    if macs > MAX_MACS {
        return Err(ModelError::TooMuchWork { macs });
    }
    for tensor in [model.output(), model.logits()] {
        if !available(model, tensor, model.op_count()) || model.is_in_image(tensor) {
            return Err(ModelError::NotComputed { tensor });
        }
    }
    Ok(())
}

/// Whether a tensor's elements are there before operator `k` runs.
fn available(model: &Tables<'_>, t: usize, k: usize) -> bool {
    model.is_in_image(t) || t == model.input() || model.producer(t).is_some_and(|p| p < k)
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
/// is in use at the same time.
pub(super) fn plan(model: &Tables<'_>, mode: Mode) -> Result<(), ModelError> {
    let mut missing = None;
    memory::uses(model, mode, &mut |tensor, role, time| {
        let covered = model
            .span(mode, tensor, role)
            .is_some_and(|span| span.covers(time));
        if !covered && missing.is_none() {
            missing = Some(tensor);
        }
    });
    if let Some(tensor) = missing {
        return Err(ModelError::Plan { mode, tensor });
    }
    if mode == Mode::Train
        && parameters_bytes(model) != model.header().parameter_bytes.get() as usize
    {
        return Err(ModelError::Header);
    }
    for t in 0..model.tensor_count() {
        for role in [Role::Value, Role::Gradient, Role::Saved] {
            slot(model, mode, t, role)?;
        }
    }
    Ok(())
}

fn slot(model: &Tables<'_>, mode: Mode, t: usize, role: Role) -> Result<(), ModelError> {
    let bad = ModelError::Plan { mode, tensor: t };
    if model.is_in_image(t) {
        return parameter_slot(model, mode, t, role);
    }
    let storage = model.storage_of(t);
    let span = model.span(mode, t, role);
    if storage != t {
        // saved notes belong to an operator's own output; Reshape saves none
        return match role == Role::Saved || span == model.span(mode, storage, role) {
            true => Ok(()),
            false => Err(bad),
        };
    }
    let Some(span) = span else { return Ok(()) };
    let start = span.offset.get() as usize;
    let size = memory::slot_bytes(model, t, role, mode);
    let aligned = start.is_multiple_of(memory::SLOT_ALIGN);
    if !aligned || start.saturating_add(size) > model.arena_bytes(mode) {
        return Err(bad);
    }
    for other in 0..=t {
        if model.is_in_image(other) || model.is_alias(other) {
            continue;
        }
        for other_role in [Role::Value, Role::Gradient, Role::Saved] {
            if other == t && other_role as u8 >= role as u8 {
                continue;
            }
            let Some(o) = model.span(mode, other, other_role) else {
                continue;
            };
            let in_time = span.first <= o.last && o.first <= span.last;
            let o_start = o.offset.get() as usize;
            let o_size = memory::slot_bytes(model, other, other_role, mode);
            let in_space = start < o_start.saturating_add(o_size) && o_start < start + size;
            if in_time && in_space {
                return Err(ModelError::Overlap {
                    mode,
                    tensor: t,
                    other,
                });
            }
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
        .span(mode, t, role)
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
