//! The buffer, with one slot taken out to be written while the rest is read.

use super::Session;
use crate::kernels::{Kernels, Place};
use crate::memory::Role;
use crate::model::{Model, Node, Run};
use crate::ops::{Context, MAX_INPUTS};
use crate::tensor::{Data, Operand, Quant, typed};
use core::ops::Range;

impl<'a> Session<'a> {
    pub(super) fn in_image(&self, t: usize) -> bool {
        self.model.tables().is_in_image(t)
    }

    #[inline]
    pub(super) fn slot(&self, t: usize, role: Role) -> Option<Range<usize>> {
        #[cfg(foolproof_simd)]
        if let (Some(known), Role::Value) = (self.known.get(t), role) {
            return known.slot.clone();
        }
        self.model.slot(self.at(), t, role)
    }

    /// Looks at the first tensors once, where each has one slot in all passes.
    #[cfg(foolproof_simd)]
    pub(super) fn know(&mut self) {
        let (model, run) = (self.model, self.at());
        self.known.clear();
        let count = match model.tables().pass_count(run.mode) {
            1 => model.tables().tensor_count().min(KNOWN),
            _ => 0,
        };
        self.known
            .extend((0..count).map(|t| Known::new(&model, run, t)));
    }

    pub(super) fn at(&self) -> Run {
        Run {
            mode: self.options.mode,
            batch: self.options.batch,
            pass: self.pass,
        }
    }

    /// Takes one slot out of the buffer to write it, while the rest can be read. Nothing happens where there is no such slot.
    pub(super) fn with_output(
        &mut self,
        t: usize,
        role: Role,
        write: impl FnOnce(&View<'_>, &Rest<'_>, &mut [u8]),
    ) {
        if let Some(range) = self.slot(t, role) {
            self.with_ranges([range], |view, rest, [out]| write(view, rest, out));
        }
    }

    /// Takes a few slots out of the buffer to write them, while the rest can be read. A slot that does not exist is empty.
    pub(super) fn with_outputs<const N: usize>(
        &mut self,
        slots: [(usize, Role); N],
        write: impl FnOnce(&View<'_>, &Rest<'_>, [&mut [u8]; N]),
    ) {
        self.with_ranges(
            slots.map(|(t, role)| self.slot(t, role).unwrap_or(0..0)),
            write,
        );
    }

    fn with_ranges<const N: usize>(
        &mut self,
        ranges: [Range<usize>; N],
        write: impl FnOnce(&View<'_>, &Rest<'_>, [&mut [u8]; N]),
    ) {
        let view = View {
            model: &self.model,
            kernels: self.options.kernels,
            run: self.at(),
            #[cfg(foolproof_simd)]
            known: &self.known,
            #[cfg(foolproof_simd)]
            place: Some(&self.kept),
            #[cfg(not(foolproof_simd))]
            place: Place::default(),
        };
        let mut outs: [&mut [u8]; N] = core::array::from_fn(|_| Default::default());
        let mut rest = Rest {
            pieces: [(0, &[]); MAX_OUTPUTS + 1],
        };
        let (mut tail, mut at) = (&mut *self.buffer, 0);
        let mut pieces = rest.pieces.iter_mut();
        // from the lowest slot to the highest: each splits what is left
        for _ in 0..N {
            let mut lowest = None;
            for i in 0..N {
                let left = outs[i].is_empty() && !ranges[i].is_empty();
                if left && lowest.is_none_or(|j: usize| ranges[i].start < ranges[j].start) {
                    lowest = Some(i);
                }
            }
            let Some(i) = lowest else { break };
            // a checked plan has no two slots in one place
            let Some(gap) = ranges[i].start.checked_sub(at) else {
                return;
            };
            let (before, from) = tail.split_at_mut(gap);
            let (out, after) = from.split_at_mut(ranges[i].len());
            if let Some(piece) = pieces.next() {
                *piece = (at, before);
            }
            outs[i] = out;
            (tail, at) = (after, ranges[i].end);
        }
        if let Some(piece) = pieces.next() {
            *piece = (at, tail);
        }
        write(&view, &rest, outs);
    }
}

/// The most slots that are written at once.
const MAX_OUTPUTS: usize = 3;

/// The buffer without the slots that are being written.
pub(super) struct Rest<'r> {
    /// Where each piece starts in the buffer, in order; empty ones at the end.
    pieces: [(usize, &'r [u8]); MAX_OUTPUTS + 1],
}

impl<'r> Rest<'r> {
    fn get(&self, range: Range<usize>) -> &'r [u8] {
        let mut found = self.pieces.iter().filter_map(|&(start, piece)| {
            let from = range.start.checked_sub(start)?;
            piece.get(from..from + range.len())
        });
        found.next().unwrap_or(&[])
    }
}

/// What a session knows, apart from its buffer.
pub(super) struct View<'a> {
    model: &'a Model<'a>,
    kernels: Kernels,
    run: Run,
    #[cfg(foolproof_simd)]
    known: &'a [Known<'a>],
    place: Place<'a>,
}

/// A tensor as every run of a session sees it. To find out takes as long as the products of a small layer.
#[cfg(foolproof_simd)]
#[derive(Debug)]
pub(super) struct Known<'a> {
    /// Its elements are those in the image, if they are read there.
    pub(super) operand: Operand<'a>,
    /// Where in the buffer they are otherwise.
    slot: Option<Range<usize>>,
}

/// As many tensors as small models have.
#[cfg(foolproof_simd)]
pub(super) const KNOWN: usize = 64;

#[cfg(foolproof_simd)]
impl<'a> Known<'a> {
    pub(super) fn new(model: &Model<'a>, run: Run, t: usize) -> Known<'a> {
        let mut operand = model.tables().operand(t);
        let in_image = model.tables().is_in_image(t);
        if !in_image {
            operand.shape = operand.shape.with_batch(run.batch);
        }
        Known {
            operand,
            // only what is trained has been copied to the buffer
            slot: match in_image && !run.mode.trains() {
                true => None,
                false => model.slot(run, t, Role::Value),
            },
        }
    }
}

impl<'a> View<'a> {
    pub(super) fn context(&self) -> Context<'a> {
        Context {
            kernels: self.kernels,
            numerics: self.model.numerics(),
            keeps_ties: self.model.keeps_ties(),
            place: self.place,
        }
    }

    pub(super) fn slice<'r>(&self, rest: &Rest<'r>, t: usize, role: Role) -> &'r [u8] {
        match self.model.slot(self.run, t, role) {
            Some(range) => rest.get(range),
            None => &[],
        }
    }

    // in its place: copied, it would be read in larger pieces than it was just written in, and every such read waits
    #[cfg_attr(target_arch = "x86_64", inline(always))]
    pub(super) fn operand<'r>(&self, rest: &Rest<'r>, t: usize, with_data: bool) -> Operand<'r>
    where
        'a: 'r,
    {
        #[cfg(foolproof_simd)]
        if let Some(known) = self.known.get(t) {
            let Operand { dtype, data, .. } = known.operand;
            let data = match &known.slot {
                Some(range) if with_data => typed(dtype, rest.get(range.clone())),
                _ => data,
            };
            return Operand {
                data,
                ..known.operand
            };
        }
        let tables = self.model.tables();
        let mut operand: Operand<'r> = tables.operand(t);
        match tables.is_in_image(t) {
            // only what is trained has been copied to the buffer
            true if !self.run.mode.trains() => return operand,
            true => {}
            false => operand.shape = operand.shape.with_batch(self.run.batch),
        }
        if with_data && let Some(range) = self.model.slot(self.run, t, Role::Value) {
            operand.data = typed(operand.dtype, rest.get(range));
        }
        operand
    }

    /// What an operator reads, written to `room`.
    #[cfg_attr(target_arch = "x86_64", inline(always))]
    pub(super) fn inputs<'r, 'o>(
        &self,
        node: &Node,
        rest: &Rest<'r>,
        room: &'o mut Inputs<'r>,
    ) -> &'o [Operand<'r>]
    where
        'a: 'r,
    {
        for t in node.inputs() {
            // a node has at most MAX_INPUTS inputs
            let _ = room.push(self.operand(rest, t, true));
        }
        room
    }
}

/// Room for what an operator reads.
pub(super) type Inputs<'r> = heapless::Vec<Operand<'r>, MAX_INPUTS>;

/// int8 or f32 elements as real numbers.
pub(super) fn dequantize(z: Data<'_>, quant: Quant<'_>, out: &mut [f32]) {
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
