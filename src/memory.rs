//! Memory: which tensor must be in the buffer when, and where. Lifetimes in, offsets out.
//!
//! Time runs in steps. With `n` operators, operator `k` runs forward at time `k` and backward at time
//! `2n - 1 - k`; the caller reads results at time `n` (Infer) or from `n` to `2n`. Where backward is cut into several
//! passes ([`Pass`]), each has its own time. [`uses`] is the one
//! statement of what must be alive when: the host's planner makes the shortest spans that cover all uses,
//! and [`crate::model::Model::from_bytes`] checks that an image's spans cover them and never collide.
//!
//! A slot holds a tensor's elements (`Value`), the f32 gradient of the loss with respect to them
//! (`Gradient`), or the note that an operator's forward leaves for its backward (`Saved`: a bit per
//! element, an index per element). All sizes are per sample and grow linearly with the batch, so one plan
//! serves every batch size.

use crate::model::Tables;
use crate::model::format::TensorRole;
use crate::ops::Saved;

/// What a buffer is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Mode {
    /// Forward only.
    Infer,
    /// Forward, and the gradient with respect to the input. Weights stay in the image.
    /// Needs the crate's feature `gradients` (on by default); without it no image supports this mode.
    Attack,
    /// Forward, and the gradients with respect to the input and all parameters. The parameters are in the buffer.
    /// Needs the crate's feature `train`; without it no image supports this mode.
    Train,
}

impl Mode {
    /// Whether backward may follow forward. A constant in a build that only infers, so that the code for it is left out.
    pub(crate) const fn goes_back(self) -> bool {
        match self {
            Mode::Infer => false,
            Mode::Attack => cfg!(feature = "gradients"),
            Mode::Train => cfg!(feature = "train"),
        }
    }

    /// Whether this is Train mode. A constant in a build without it, so that the code for it is left out.
    pub(crate) const fn trains(self) -> bool {
        cfg!(feature = "train") && matches!(self, Mode::Train)
    }

    /// Whether this build has the mode at all.
    pub(crate) const fn is_built_in(self) -> bool {
        matches!(self, Mode::Infer) || self.goes_back()
    }
}

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The tensor's elements.
    Value,
    /// The gradient with respect to them, f32.
    Gradient,
    /// What forward saved for the backward of the operator that made the tensor.
    Saved,
}

impl Role {
    /// All roles, in the order of their codes in an image.
    pub const ALL: [Role; 3] = [Role::Value, Role::Gradient, Role::Saved];
}

/// Slots are multiples of this, bytes.
pub const SLOT_ALIGN: usize = 4;

/// One forward pass and the part of backward that follows it: operators `0..end` run forward, then `start..end` run
/// backward, the last first.
///
/// A plain plan has one pass over everything. Where that needs too much memory, backward is cut into several
/// (gradient checkpointing with the input as the only checkpoint; Chen et al., "Training deep nets with sublinear memory
/// cost", 2016): the notes of a pass's own operators are all that is saved at a time, and the operators before them run
/// again for each pass. The last pass runs first. From one to the next the buffer keeps the input, the answer, and the
/// gradients that are still wanted, each in its place. A model that keeps a state is not cut: what runs again would begin
/// with another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pass {
    /// The first operator that runs backward.
    pub start: usize,
    /// One more than the last operator that runs forward, and backward.
    pub end: usize,
}

/// Calls `visit(tensor, role, time)` for every time of a pass at which a slot must be alive. An output of `Reshape`
/// shares the slots of its input, which is named instead. In a pass but the first to run, what an earlier one left is
/// alive at time 0; what the next one needs is alive at time `2n`.
pub fn uses(model: &Tables<'_>, mode: Mode, pass: Pass, visit: &mut dyn FnMut(usize, Role, u16)) {
    let n = model.op_count();
    let Pass { start, end } = pass;
    let close = match mode {
        Mode::Infer => n,
        Mode::Attack | Mode::Train => 2 * n,
    };
    let mut at = |tensor: usize, role: Role, time: usize| {
        visit(model.storage_of(tensor), role, time as u16);
    };
    let answers = [model.output(), model.logits()];
    at(model.input(), Role::Value, 0);
    for t in 0..model.tensor_count() {
        // from one run to the next: nothing else may ever lie there
        if model.role(t) == TensorRole::State {
            at(t, Role::Value, 0);
            at(t, Role::Value, close);
        }
    }
    if start > 0 || model.anomaly_above().is_some() {
        at(model.input(), Role::Value, close);
    }
    for k in 0..end {
        let node = model.node(k);
        for t in node.inputs() {
            if model.role(t) == TensorRole::Activation {
                at(t, Role::Value, k);
            }
        }
        at(node.output, Role::Value, k);
    }
    for t in answers {
        if end < n {
            at(t, Role::Value, 0);
        }
        at(t, Role::Value, close);
    }
    if mode == Mode::Infer {
        return;
    }
    // a gradient that is wanted before this pass's operators, or was begun after them, is handed on
    let made_before = |t: usize, k: usize| {
        let producer = model.producer(model.storage_of(t));
        producer.is_none_or(|p| p < k)
    };
    for k in start..n {
        let node = model.node(k);
        let back = 2 * n - 1 - k;
        let runs = k < end;
        let needs = model.needs(&node, mode);
        for (i, t) in node.inputs().enumerate() {
            if model.role(t) != TensorRole::Activation {
                continue;
            }
            if runs && needs.inputs & (1 << i) != 0 {
                at(t, Role::Value, back);
            }
            if runs || made_before(t, end) {
                at(t, Role::Gradient, if runs { back } else { 0 });
            }
            if made_before(t, start) {
                at(t, Role::Gradient, close);
            }
        }
        if !runs {
            continue;
        }
        if needs.output {
            at(node.output, Role::Value, back);
        }
        if needs.saved != Saved::Nothing {
            at(node.output, Role::Saved, k);
            at(node.output, Role::Saved, back);
        }
        at(node.output, Role::Gradient, back);
    }
    for t in answers {
        if end == n {
            at(t, Role::Gradient, n);
        } else if made_before(t, end) {
            at(t, Role::Gradient, 0);
        }
        if made_before(t, start) {
            at(t, Role::Gradient, close);
        }
    }
    if start == 0 {
        at(model.input(), Role::Gradient, close);
    }
}

/// Bytes of one slot for one sample, rounded up to [`SLOT_ALIGN`].
pub fn slot_bytes(model: &Tables<'_>, tensor: usize, role: Role, mode: Mode) -> usize {
    let shape = model.shape(tensor);
    let bytes = match role {
        Role::Value => shape.len() * model.dtype(tensor).size(),
        Role::Gradient => shape.len() * 4,
        Role::Saved => match model.producer(tensor) {
            Some(k) => model.needs(&model.node(k), mode).saved.bytes(&shape),
            None => 0,
        },
    };
    bytes.next_multiple_of(SLOT_ALIGN)
}

/// A slot that wants a place: its size and when it is in use, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Bytes, a multiple of [`SLOT_ALIGN`].
    pub size: usize,
    /// First time in use.
    pub first: u16,
    /// Last time in use.
    pub last: u16,
    /// Set by [`place`]: bytes from the start of the buffer.
    pub offset: usize,
}

impl Request {
    fn collides_in_time(&self, other: &Request) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Gives every request the lowest offset that is free for its whole life, in the order in which they
/// stand, and returns the bytes needed in all. The order decides how tight the packing is: largest first
/// is a good one (Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020,
/// section 5.2), and a host tries several.
pub fn place(requests: &mut [Request]) -> usize {
    let mut total = 0;
    for i in 0..requests.len() {
        let (placed, rest) = requests.split_at_mut(i);
        let Some(request) = rest.first_mut() else {
            continue;
        };
        let mut offset = 0;
        while let Some(blocker) = placed.iter().find(|p| {
            p.collides_in_time(request)
                && p.offset < offset + request.size
                && offset < p.offset + p.size
        }) {
            offset = blocker.offset + blocker.size;
        }
        request.offset = offset;
        total = total.max(offset + request.size);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(size: usize, first: u16, last: u16) -> Request {
        Request {
            size,
            first,
            last,
            offset: usize::MAX,
        }
    }

    #[test]
    fn slots_alive_together_never_share_and_dead_ones_do() {
        let mut r = [request(8, 0, 1), request(4, 1, 2), request(8, 2, 3)];
        assert_eq!(place(&mut r), 12);
        assert_eq!([r[0].offset, r[1].offset, r[2].offset], [0, 8, 0]);
    }

    #[test]
    fn a_gap_is_filled_from_below() {
        let mut r = [
            request(8, 0, 9),
            request(8, 0, 3),
            request(8, 0, 9),
            request(8, 4, 9),
        ];
        assert_eq!(place(&mut r), 24);
        assert_eq!(r[3].offset, 8);
    }
}
