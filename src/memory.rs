//! Memory: which tensor must be in the buffer when, and where. Lifetimes in, offsets out.
//!
//! Time runs in steps. With `n` operators, operator `k` runs forward at time `k` and backward at time
//! `2n - 1 - k`; the caller reads results at time `n` (Infer) or from `n` to `2n`. [`uses`] is the one
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
    Attack,
    /// Forward, and the gradients with respect to the input and all parameters. The parameters are in the buffer.
    Train,
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

/// Slots are multiples of this, bytes.
pub const SLOT_ALIGN: usize = 4;

/// Calls `visit(tensor, role, time)` for every time at which a slot must be alive. An output of `Reshape`
/// shares the slots of its input, which is named instead.
pub fn uses(model: &Tables<'_>, mode: Mode, visit: &mut dyn FnMut(usize, Role, u16)) {
    let n = model.op_count();
    let end = match mode {
        Mode::Infer => n,
        Mode::Attack | Mode::Train => 2 * n,
    };
    let mut at = |tensor: usize, role: Role, time: usize| {
        visit(model.storage_of(tensor), role, time as u16);
    };
    at(model.input(), Role::Value, 0);
    for k in 0..n {
        let node = model.node(k);
        for t in node.inputs() {
            if model.role(t) == TensorRole::Activation {
                at(t, Role::Value, k);
            }
        }
        at(node.output, Role::Value, k);
    }
    for t in [model.output(), model.logits()] {
        at(t, Role::Value, end);
    }
    if mode == Mode::Infer {
        return;
    }
    for k in 0..n {
        let node = model.node(k);
        let back = 2 * n - 1 - k;
        let needs = model.needs(&node, mode);
        for (i, t) in node.inputs().enumerate() {
            if model.role(t) == TensorRole::Activation {
                if needs.inputs & (1 << i) != 0 {
                    at(t, Role::Value, back);
                }
                at(t, Role::Gradient, back);
            }
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
    for t in [model.output(), model.logits()] {
        at(t, Role::Gradient, n);
    }
    at(model.input(), Role::Gradient, end);
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
