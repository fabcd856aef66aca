//! Pad, Reshape and Concat: elements move, none is computed.

use super::{Concat, OpError, Pad, activation, check};
use crate::tensor::{DType, Data, DataMut, MAX_RANK, Operand, Shape};

impl Pad {
    pub(super) fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, OpError> {
        let x = check::shape(inputs, 0)?;
        let mut dims = [1u32; MAX_RANK];
        for (i, dim) in dims.iter_mut().enumerate() {
            let extra = self.before[i] as u32 + self.after[i] as u32;
            if i >= x.rank() && extra != 0 {
                return Err(OpError::Attribute);
            }
            *dim = (x.dim(i) as u32)
                .checked_add(extra)
                .ok_or(OpError::Attribute)?;
        }
        check::output_shape(&dims[..x.rank()])
    }

    pub(super) fn check(&self, inputs: &[Operand], output: &Operand) -> Result<(), OpError> {
        check::count(inputs.len(), 1)?;
        let [x] = inputs else {
            return Err(OpError::Attribute);
        };
        check::activation_types(x, output)?;
        check::same_quantization(x, 0, output)
    }

    pub(super) fn forward(&self, x: &Operand, output: &Operand, y: DataMut) {
        match (x.data, y) {
            (Data::F32(from), DataMut::F32(y)) => {
                y.fill(0.0);
                self.rows(&x.shape, &output.shape, |i, o, len| {
                    move_few(&from[i..i + len], &mut y[o..o + len]);
                });
            }
            (Data::I8(from), DataMut::I8(y)) => {
                y.fill(output.quant.zero_point as i8);
                self.rows(&x.shape, &output.shape, |i, o, len| {
                    move_few(&from[i..i + len], &mut y[o..o + len]);
                });
            }
            _ => {}
        }
    }

    pub(super) fn input_gradient(&self, x: &Shape, output: &Shape, gy: &[f32], gx: &mut [f32]) {
        self.rows(x, output, |i, o, len| {
            activation::accumulate(&mut gx[i..i + len], &gy[o..o + len]);
        });
    }

    /// Calls `f(first input element, first output element, length)` for every row of the input.
    fn rows(&self, x: &Shape, output: &Shape, mut f: impl FnMut(usize, usize, usize)) {
        let len = x.channels();
        let last = x.rank().saturating_sub(1);
        let mut at = [0usize; MAX_RANK];
        for row in 0..x.len() / len {
            let mut o = 0;
            let position = at.iter().zip(&self.before).take(x.rank());
            for (axis, (&at, &before)) in position.enumerate() {
                o = o * output.dim(axis) + at + before as usize;
            }
            f(row * len, o, len);
            for axis in (0..last).rev() {
                at[axis] += 1;
                if at[axis] < x.dim(axis) {
                    break;
                }
                at[axis] = 0;
            }
        }
    }
}

/// Copies elements, a few of them on a PC in its loop: to call for eight bytes takes as long as for hundreds.
#[inline(always)]
pub(super) fn move_few<T: Copy>(from: &[T], to: &mut [T]) {
    const FEW: usize = 32;
    if cfg!(foolproof_simd) && from.len() <= FEW && from.len() == to.len() {
        let (from, to) = (from.as_chunks::<8>(), to.as_chunks_mut::<8>());
        for (to, from) in to.0.iter_mut().zip(from.0) {
            *to = *from;
        }
        for (to, from) in to.1.iter_mut().zip(from.1) {
            *to = *from;
        }
        return;
    }
    to.copy_from_slice(from);
}

/// Reshape: as many elements as before.
pub(super) fn check_reshape(inputs: &[Operand], output: &Operand) -> Result<(), OpError> {
    check::count(inputs.len(), 1)?;
    let [x] = inputs else {
        return Err(OpError::Attribute);
    };
    check::activation_types(x, output)?;
    if x.shape.len() != output.shape.len() {
        return Err(OpError::Shape {
            operand: check::OUTPUT,
        });
    }
    check::same_quantization(x, 0, output)
}

/// The elements as they are.
pub(super) fn copy(x: &Operand, y: DataMut) {
    match (x.data, y) {
        (Data::F32(x), DataMut::F32(y)) if x.len() == y.len() => y.copy_from_slice(x),
        (Data::I8(x), DataMut::I8(y)) if x.len() == y.len() => y.copy_from_slice(x),
        _ => {}
    }
}

impl Concat {
    pub(super) fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, OpError> {
        let first = check::shape(inputs, 0)?;
        let axis = self.axis as usize;
        if axis >= first.rank() {
            return Err(OpError::Attribute);
        }
        let mut dims = [1u32; MAX_RANK];
        dims[..first.rank()].copy_from_slice(first.dims());
        dims[axis] = 0;
        for (k, x) in inputs.iter().enumerate() {
            let fits = (0..first.rank()).all(|i| i == axis || x.dim(i) == first.dim(i));
            if x.rank() != first.rank() || !fits {
                return Err(OpError::Shape { operand: k as u8 });
            }
            let sum = dims[axis].checked_add(x.dim(axis) as u32);
            dims[axis] = sum.ok_or(OpError::Shape { operand: k as u8 })?;
        }
        check::output_shape(&dims[..first.rank()])
    }

    pub(super) fn check(&self, inputs: &[Operand], output: &Operand) -> Result<(), OpError> {
        if inputs.is_empty() || inputs.len() > super::MAX_INPUTS {
            return check::count(inputs.len(), super::MAX_INPUTS as u8);
        }
        for (k, x) in inputs.iter().enumerate() {
            check::dtype(x, k as u8, output.dtype)?;
            check::per_tensor(x, k as u8)?;
            check::same_quantization(x, k as u8, output)?;
        }
        check::per_tensor(output, check::OUTPUT)?;
        if output.dtype == DType::I32 {
            return Err(OpError::Type {
                operand: check::OUTPUT,
            });
        }
        Ok(())
    }

    /// For input `which`: the elements of one of its blocks, and where its first block starts in the output;
    /// then the elements of one block of the output.
    fn block(&self, which: usize, inputs: &[Operand], output: &Shape) -> (usize, usize, usize) {
        let axis = self.axis as usize;
        let inner: usize = (axis + 1..output.rank()).map(|i| output.dim(i)).product();
        let len = |x: &Operand| x.shape.dim(axis) * inner;
        let start = inputs.iter().take(which).map(len).sum();
        let own = inputs.get(which).map_or(0, len);
        (own, start, output.dim(axis) * inner)
    }

    pub(super) fn forward(&self, inputs: &[Operand], output: &Operand, y: DataMut) {
        match y {
            DataMut::F32(y) => {
                for (k, x) in inputs.iter().enumerate() {
                    let (own, start, all) = self.block(k, inputs, &output.shape);
                    for (x, y) in x.f32().chunks_exact(own).zip(y.chunks_exact_mut(all)) {
                        y[start..start + own].copy_from_slice(x);
                    }
                }
            }
            DataMut::I8(y) => {
                for (k, x) in inputs.iter().enumerate() {
                    let (own, start, all) = self.block(k, inputs, &output.shape);
                    for (x, y) in x.i8().chunks_exact(own).zip(y.chunks_exact_mut(all)) {
                        y[start..start + own].copy_from_slice(x);
                    }
                }
            }
        }
    }

    pub(super) fn input_gradient(
        &self,
        which: usize,
        inputs: &[Operand],
        output: &Operand,
        gy: &[f32],
        gx: &mut [f32],
    ) {
        let (own, start, all) = self.block(which, inputs, &output.shape);
        if own == 0 {
            return;
        }
        for (gx, gy) in gx.chunks_exact_mut(own).zip(gy.chunks_exact(all)) {
            activation::accumulate(gx, &gy[start..start + own]);
        }
    }
}
