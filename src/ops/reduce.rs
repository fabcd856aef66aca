//! Maximum over one axis. Several axes are first brought next to one another and joined, by whoever makes the model.

use super::{OpError, check};
use crate::tensor::{Data, DataMut, MAX_RANK, Operand, Shape};

/// Maximum over one axis, which stays, with one element.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ReduceMax {
    /// Which axis.
    pub axis: u8,
}

/// An axis with what lies outside and inside of it.
struct Split {
    len: usize,
    inner: usize,
}

impl Split {
    fn at(shape: &Shape, axis: u8) -> Split {
        let axis = usize::from(axis);
        let inner = (axis + 1..shape.rank()).map(|i| shape.dim(i)).product();
        Split {
            len: shape.dim(axis),
            inner,
        }
    }

    /// Calls `f(output, input)` for every input element, in order.
    fn for_each(&self, elements: usize, mut f: impl FnMut(usize, usize)) {
        let block = self.len * self.inner;
        for i in 0..elements {
            f(i / block * self.inner + i % self.inner, i);
        }
    }
}

impl ReduceMax {
    pub(super) fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, OpError> {
        let x = check::shape(inputs, 0)?;
        let mut dims = [1; MAX_RANK];
        dims[..x.rank()].copy_from_slice(x.dims());
        match dims[..x.rank()].get_mut(usize::from(self.axis)) {
            Some(dim) => *dim = 1,
            None => return Err(OpError::Attribute),
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

    pub(super) fn forward(&self, x: &Operand, y: DataMut) {
        let split = Split::at(&x.shape, self.axis);
        match (x.data, y) {
            (Data::F32(x), DataMut::F32(y)) => {
                y.fill(f32::NEG_INFINITY);
                split.for_each(x.len(), |o, i| {
                    // not-a-number is not lost
                    if x[i] > y[o] || x[i].is_nan() {
                        y[o] = x[i];
                    }
                });
            }
            (Data::I8(x), DataMut::I8(y)) => {
                y.fill(i8::MIN);
                split.for_each(x.len(), |o, i| y[o] = y[o].max(x[i]));
            }
            _ => {}
        }
    }

    /// To the first of the largest.
    pub(super) fn input_gradient(&self, x: &Operand, output: &Operand, gy: &[f32], gx: &mut [f32]) {
        let split = Split::at(&x.shape, self.axis);
        let is_max = |o: usize, i: usize| match (x.data, output.data) {
            (Data::F32(x), Data::F32(y)) => x[i] == y[o] || x[i].is_nan(),
            (Data::I8(x), Data::I8(y)) => x[i] == y[o],
            _ => false,
        };
        let (len, inner) = (split.len, split.inner);
        for (o, &gy) in gy.iter().enumerate() {
            let first = o / inner * len * inner + o % inner;
            let mut cells = (0..len).map(|k| first + k * inner);
            if let Some(i) = cells.find(|&i| is_max(o, i)) {
                gx[i] += gy;
            }
        }
    }
}
