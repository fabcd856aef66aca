//! Operators that a session looks at once, so that a run goes straight to their loops.

use super::view::Known;
use super::{NODES, Session};
use crate::kernels::Prepared;
use crate::memory::Role;
use crate::ops::{Context, MAX_INPUTS};
use crate::tensor::{Operand, typed, typed_mut};
use core::ops::Range;

/// An operator that is ready to run, and where in the buffer its input and its output are.
#[derive(Debug)]
pub(super) struct Step<'a> {
    layer: Prepared<'a>,
    input: Range<usize>,
    output: Range<usize>,
}

/// The first operators, those among them that are.
pub(super) type Steps<'a> = heapless::Vec<Option<Step<'a>>, NODES>;

impl<'a> Session<'a> {
    /// Looks at the first operators. Only for runs that no backward pass follows: nothing is noted for one.
    pub(super) fn prepare_layers(&mut self) {
        self.steps.clear();
        if !self.options.mode.goes_back() {
            let count = self.nodes.len();
            self.steps = (0..count).map(|k| self.step(k)).collect();
        }
    }

    fn step(&self, k: usize) -> Option<Step<'a>> {
        let (model, run, node) = (&self.model, self.at(), self.nodes.get(k)?);
        let operand = |t: usize| Known::new(model, run, t).operand;
        let operands: heapless::Vec<Operand<'a>, MAX_INPUTS> = node.inputs().map(operand).collect();
        let context = Context {
            keeps_ties: model.keeps_ties(),
            ..Context::new(self.options.kernels, model.numerics())
        };
        let layer = node.op.layer(&context, &operands, &operand(node.output))?;
        let input = self.slot(node.inputs().next()?, Role::Value)?;
        let output = self.slot(node.output, Role::Value)?;
        Some(Step {
            layer: Prepared::new(self.options.kernels, layer, &self.kept),
            input,
            output,
        })
    }

    /// Runs operator `k` if it is prepared, or says false.
    #[inline]
    pub(super) fn run_prepared(&mut self, k: usize) -> bool {
        let Some(Some(step)) = self.steps.get(k) else {
            return false;
        };
        let ranges = [step.input.clone(), step.output.clone()];
        // a checked plan has no two slots in one place
        let Ok([x, y]) = self.buffer.get_disjoint_mut(ranges) else {
            return false;
        };
        let (layer, kernels) = (&step.layer, self.options.kernels);
        let Some(y) = typed_mut(layer.dtype(), y) else {
            return false;
        };
        layer.run(kernels, &self.kept, typed(layer.dtype(), x), y);
        true
    }
}
