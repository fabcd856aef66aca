//! Remember and Recall: variables, which keep their elements from one run to the next.
//!
//! A gradient goes through what a run computed itself, never into an earlier run.

use super::{OpError, check};
use crate::tensor::{DType, Data, DataMut, Operand, StateMut};

/// One quantization, one type, as many elements.
fn check_pair(x: &Operand, state: &Operand, which: u8) -> Result<(), OpError> {
    check::dtype(state, which, x.dtype)?;
    check::per_tensor(x, 0)?;
    check::per_tensor(state, which)?;
    if state.shape.len() != x.shape.len() {
        return Err(OpError::Shape { operand: which });
    }
    check::same_quantization(state, which, x)
}

pub(super) fn check_remember(inputs: &[Operand], output: &Operand) -> Result<(), OpError> {
    check::count(inputs.len(), 2)?;
    let [x, state] = inputs else {
        return Err(OpError::Attribute);
    };
    check::activation_types(x, output)?;
    check_pair(x, state, 1)?;
    check::same_quantization(x, 0, output)?;
    same_shape(x, output)
}

pub(super) fn check_recall(inputs: &[Operand], output: &Operand) -> Result<(), OpError> {
    check::count(inputs.len(), 1)?;
    let [state] = inputs else {
        return Err(OpError::Attribute);
    };
    if output.dtype == DType::I32 {
        return Err(OpError::Type {
            operand: check::OUTPUT,
        });
    }
    check_pair(output, state, 0)?;
    same_shape(state, output)
}

fn same_shape(x: &Operand, output: &Operand) -> Result<(), OpError> {
    match x.shape == output.shape {
        true => Ok(()),
        false => Err(OpError::Shape {
            operand: check::OUTPUT,
        }),
    }
}

/// Both the output and the state get the input's elements.
pub(super) fn remember(inputs: &[Operand], y: DataMut, state: StateMut) {
    let Some(x) = inputs.first() else { return };
    match (x.data, y, state) {
        (Data::F32(x), DataMut::F32(y), StateMut::F32(state))
            if x.len() == y.len() && x.len() == state.len() =>
        {
            y.copy_from_slice(x);
            state.copy_from_slice(x);
        }
        (Data::I8(x), DataMut::I8(y), StateMut::I8(state))
            if x.len() == y.len() && x.len() == state.len() =>
        {
            y.copy_from_slice(x);
            state.copy_from_slice(x);
        }
        _ => {}
    }
}
