//! The buffer, with one slot taken out to be written while the rest is read.

use super::Session;
use crate::kernels::Kernels;
use crate::memory::Role;
use crate::model::{Model, Run};
use crate::ops::{Context, MAX_INPUTS};
use crate::tensor::{Data, Operand, Quant, typed};
use core::ops::Range;

impl<'a> Session<'a> {
    pub(super) fn in_image(&self, t: usize) -> bool {
        self.model.tables().is_in_image(t)
    }

    pub(super) fn slot(&self, t: usize, role: Role) -> Option<Range<usize>> {
        self.model.slot(self.at(), t, role)
    }

    fn at(&self) -> Run {
        Run {
            mode: self.options.mode,
            batch: self.options.batch,
            pass: self.pass,
        }
    }

    /// Takes one slot out of the buffer to write it, while the rest can be read.
    pub(super) fn with_output(
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
            kernels: self.options.kernels,
            run: self.at(),
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

/// The buffer without the slot that is being written.
pub(super) struct Rest<'r> {
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
pub(super) struct View<'a> {
    model: Model<'a>,
    kernels: Kernels,
    run: Run,
}

impl<'a> View<'a> {
    pub(super) fn context(&self) -> Context {
        Context {
            kernels: self.kernels,
            numerics: self.model.numerics(),
        }
    }

    pub(super) fn slice<'r>(&self, rest: &Rest<'r>, t: usize, role: Role) -> &'r [u8] {
        match self.model.slot(self.run, t, role) {
            Some(range) => rest.get(range),
            None => &[],
        }
    }

    pub(super) fn operand<'r>(&self, rest: &Rest<'r>, t: usize, with_data: bool) -> Operand<'r>
    where
        'a: 'r,
    {
        let tables = self.model.tables();
        let mut operand: Operand<'r> = tables.operand(t);
        if !tables.is_in_image(t) {
            operand.shape = operand.shape.with_batch(self.run.batch);
        }
        if with_data && let Some(range) = self.model.slot(self.run, t, Role::Value) {
            operand.data = typed(operand.dtype, rest.get(range));
        }
        operand
    }

    pub(super) fn inputs<'r>(
        &self,
        k: usize,
        rest: &Rest<'r>,
    ) -> heapless::Vec<Operand<'r>, MAX_INPUTS>
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
