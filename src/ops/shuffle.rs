//! Transpose and Slice: elements move or stay behind, none is computed.

use super::{OpError, check, layout};
use crate::tensor::{Data, DataMut, MAX_RANK, Operand, Shape};

/// Axes in another order.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Transpose {
    /// Axis `i` of the output is this axis of the input; 0 from the rank on.
    pub axes: [u8; MAX_RANK],
}

/// Elements `begin, begin + step, ...` of one axis.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Slice {
    /// Which axis.
    pub axis: u8,
    /// The first.
    pub begin: u32,
    /// How many, at least 1.
    pub count: u32,
    /// From one to the next; not 0, negative is backwards.
    pub step: i32,
}

/// One input, of the output's type and quantization.
pub(super) fn check(inputs: &[Operand], output: &Operand) -> Result<(), OpError> {
    check::count(inputs.len(), 1)?;
    let [x] = inputs else {
        return Err(OpError::Attribute);
    };
    check::activation_types(x, output)?;
    check::same_quantization(x, 0, output)
}

impl Transpose {
    pub(super) fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, OpError> {
        let x = check::shape(inputs, 0)?;
        let mut seen = [false; MAX_RANK];
        let mut dims = [1; MAX_RANK];
        let (used, unused) = self.axes.split_at(x.rank());
        for (dim, &axis) in dims.iter_mut().zip(used) {
            let axis = usize::from(axis);
            match seen[..x.rank()].get_mut(axis) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(OpError::Attribute),
            }
            *dim = x.dim(axis) as u32;
        }
        if unused.iter().any(|&axis| axis != 0) {
            return Err(OpError::Attribute);
        }
        check::output_shape(&dims[..x.rank()])
    }

    /// Calls `f(output element, input element)` for all, in order of the output.
    fn for_each(&self, x: &Shape, output: &Shape, mut f: impl FnMut(usize, usize)) {
        let rank = output.rank();
        // how far apart neighbours along each axis of the output lie in the input
        let mut steps = [0; MAX_RANK];
        for (step, &axis) in steps.iter_mut().zip(&self.axes).take(rank) {
            let inner = usize::from(axis) + 1..rank;
            *step = inner.map(|i| x.dim(i)).product();
        }
        let mut at = [0; MAX_RANK];
        let mut i = 0;
        for o in 0..output.len() {
            f(o, i);
            for axis in (0..rank).rev() {
                at[axis] += 1;
                i += steps[axis];
                if at[axis] < output.dim(axis) {
                    break;
                }
                i -= steps[axis] * at[axis];
                at[axis] = 0;
            }
        }
    }

    pub(super) fn forward(&self, x: &Operand, output: &Operand, y: DataMut) {
        match (x.data, y) {
            (Data::F32(from), DataMut::F32(y)) => {
                self.for_each(&x.shape, &output.shape, |o, i| y[o] = from[i]);
            }
            (Data::I8(from), DataMut::I8(y)) => {
                self.for_each(&x.shape, &output.shape, |o, i| y[o] = from[i]);
            }
            _ => {}
        }
    }

    pub(super) fn input_gradient(&self, x: &Shape, output: &Shape, gy: &[f32], gx: &mut [f32]) {
        self.for_each(x, output, |o, i| gx[i] += gy[o]);
    }
}

impl Slice {
    pub(super) fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, OpError> {
        let x = check::shape(inputs, 0)?;
        let mut dims = [1; MAX_RANK];
        dims[..x.rank()].copy_from_slice(x.dims());
        let dim = dims[..x.rank()].get_mut(usize::from(self.axis));
        let dim = dim.ok_or(OpError::Attribute)?;
        let last = i64::from(self.begin)
            + (i64::from(self.count) - 1).saturating_mul(i64::from(self.step));
        let inside = |i: i64| (0..i64::from(*dim)).contains(&i);
        if self.count == 0 || self.step == 0 || !inside(self.begin.into()) || !inside(last) {
            return Err(OpError::Attribute);
        }
        *dim = self.count;
        check::output_shape(&dims[..x.rank()])
    }

    /// Calls `f(first output element, first input element, elements)` for every run of neighbours.
    fn runs(&self, x: &Shape, mut f: impl FnMut(usize, usize, usize)) {
        let axis = usize::from(self.axis);
        let inner: usize = (axis + 1..x.rank()).map(|i| x.dim(i)).product();
        let block = x.dim(axis) * inner;
        // neighbours along the axis are neighbours
        let (count, together) = match self.step {
            1 => (1, self.count as usize),
            _ => (self.count, 1),
        };
        let mut o = 0;
        for outer in 0..x.len() / block {
            for k in 0..i64::from(count) {
                let place = i64::from(self.begin) + k * i64::from(self.step);
                let len = inner * together;
                f(o, outer * block + place as usize * inner, len);
                o += len;
            }
        }
    }

    pub(super) fn forward(&self, x: &Operand, y: DataMut) {
        match (x.data, y) {
            (Data::F32(from), DataMut::F32(y)) => self.runs(&x.shape, |o, i, n| {
                layout::move_few(&from[i..i + n], &mut y[o..o + n]);
            }),
            (Data::I8(from), DataMut::I8(y)) => self.runs(&x.shape, |o, i, n| {
                layout::move_few(&from[i..i + n], &mut y[o..o + n]);
            }),
            _ => {}
        }
    }

    pub(super) fn input_gradient(&self, x: &Shape, gy: &[f32], gx: &mut [f32]) {
        self.runs(x, |o, i, n| {
            super::activation::accumulate(&mut gx[i..i + n], &gy[o..o + n]);
        });
    }
}
