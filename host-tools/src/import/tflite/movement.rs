//! Operators that move elements and compute none.

use super::file::Step;
use super::schema::ConcatOptions;
use super::{Importer, Reason, shape};
use crate::graph::TensorData;
use foolproof::ops::{Activation, Concat, Op, Pad};
use foolproof::tensor::MAX_RANK;

/// RESHAPE, SQUEEZE and EXPAND_DIMS: the output's declared shape says it all.
pub(super) fn only_reshapes(code: i32) -> bool {
    matches!(code, 22 | 43 | 70)
}

impl<'a> Importer<'a> {
    pub(super) fn reshape(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        let source = self.input(step, 0)?;
        if let Some(numbers) = self.whole_numbers(source) {
            self.folded.insert(t, numbers);
            return Ok(());
        }
        if let Some(transposed) = self.transposed.get(&source).cloned() {
            let source = self.graph.tensors[transposed.source].shape;
            if shape(self.info(t))?.len() != source.len() {
                return Err("its output has another number of elements".into());
            }
            self.transposed.insert(t, transposed);
            return Ok(());
        }
        let x = self.operand(step, 0)?;
        self.emit(Op::Reshape, vec![x], t)
    }

    /// PAD, and PADV2 with zeros.
    pub(super) fn pad(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        let x = self.operand(step, 0)?;
        let rank = self.graph.tensors[x].shape.rank();
        let amounts = self.integers(step, 1)?;
        if amounts.len() != 2 * rank {
            return Err("its amounts are not two per axis".into());
        }
        if step.inputs.len() > 2 {
            let value = self.operand(step, 2)?;
            let zero = self.graph.tensors[x].quant.zero_point;
            let is_zero = match &self.graph.tensors[value].data {
                TensorData::F32(v) => v[..] == [0.0],
                TensorData::I8(v) => v.len() == 1 && i32::from(v[0]) == zero,
                _ => false,
            };
            if !is_zero {
                return Err("it pads with another value than zero".into());
            }
        }
        let mut pad = Pad {
            before: [0; MAX_RANK],
            after: [0; MAX_RANK],
        };
        let convert = |v: i64| {
            u16::try_from(v).map_err(|_| format!("it pads by {v}; 0 to 65535 are supported"))
        };
        for (i, pair) in amounts.chunks_exact(2).enumerate() {
            let (Some(before), Some(after)) = (pad.before.get_mut(i), pad.after.get_mut(i)) else {
                return Err("it has too many axes".into());
            };
            (*before, *after) = (convert(pair[0])?, convert(pair[1])?);
        }
        self.emit(Op::Pad(pad), vec![x], t)
    }

    pub(super) fn concat(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        let options = step.table.options::<ConcatOptions<'a>>();
        if super::fused(options.and_then(|o| o.activation()))? != Activation::None {
            return Err("it has a fused activation".into());
        }
        let rank = shape(self.info(t))?.rank() as i32;
        let axis = options.and_then(|o| o.axis()).unwrap_or(0);
        let axis = u8::try_from(if axis < 0 {
            axis.saturating_add(rank)
        } else {
            axis
        });
        let op = Op::Concat(Concat {
            axis: axis.map_err(|_| "an axis that its inputs do not have")?,
        });
        let mut inputs = Vec::new();
        for i in 0..step.inputs.len() {
            inputs.push(self.operand(step, i)?);
        }
        self.joined(op, inputs, t)
    }
}
