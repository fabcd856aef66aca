//! Add and Mul, with NumPy broadcasting: shapes are aligned at the last axis, and an axis of 1 repeats.

use super::{Add, Context, Mul, Numerics, OpError, activation, check};
use crate::kernels::fixed_point::requantize;
use crate::kernels::{self, AddI8, MulI8, Rounding};
use crate::tensor::{DType, Data, DataMut, MAX_RANK, Operand, Shape};

/// The broadcast shape of two.
pub(super) fn output_shape(inputs: &[Shape]) -> Result<Shape, OpError> {
    let (a, b) = (check::shape(inputs, 0)?, check::shape(inputs, 1)?);
    let rank = a.rank().max(b.rank());
    let mut dims = [1; MAX_RANK];
    for (i, dim) in dims.iter_mut().enumerate().take(rank) {
        let (da, db) = (aligned(&a, rank, i), aligned(&b, rank, i));
        if da != db && da != 1 && db != 1 {
            return Err(OpError::Shape { operand: 1 });
        }
        *dim = da.max(db) as u32;
    }
    check::output_shape(&dims[..rank])
}

/// Dimension `i` of a shape that is extended on the left to `rank`.
fn aligned(x: &Shape, rank: usize, i: usize) -> usize {
    let missing = rank - x.rank().min(rank);
    if i < missing { 1 } else { x.dim(i - missing) }
}

/// How an input is walked while the output is walked in order.
#[derive(Clone, Copy)]
struct Walk {
    /// Elements to skip per step along each axis of the output; 0 where the input repeats.
    steps: [usize; MAX_RANK],
}

impl Walk {
    fn new(x: &Shape, rank: usize) -> Walk {
        let mut steps = [0; MAX_RANK];
        let mut step = 1;
        for i in (0..rank).rev() {
            let dim = aligned(x, rank, i);
            if dim > 1 {
                steps[i] = step;
            }
            step *= dim;
        }
        Walk { steps }
    }
}

/// Calls `f(output, a, b)` with element numbers, in order of the output.
#[inline(always)]
fn for_each(a: &Shape, b: &Shape, output: &Shape, mut f: impl FnMut(usize, usize, usize)) {
    if a.len() == output.len() && b.len() == output.len() {
        for i in 0..output.len() {
            f(i, i, i);
        }
        return;
    }
    let rank = output.rank();
    let (wa, wb) = (Walk::new(a, rank), Walk::new(b, rank));
    let inner = output.channels();
    let last = rank.saturating_sub(1);
    let (sa, sb) = (wa.steps[last], wb.steps[last]);
    let mut at = [0usize; MAX_RANK];
    let (mut ia, mut ib) = (0, 0);
    let mut i = 0;
    while i < output.len() {
        for k in 0..inner {
            f(i + k, ia + k * sa, ib + k * sb);
        }
        i += inner;
        // The next row: count up, the outer axes carry.
        for axis in (0..last).rev() {
            at[axis] += 1;
            ia += wa.steps[axis];
            ib += wb.steps[axis];
            if at[axis] < output.dim(axis) {
                break;
            }
            ia -= wa.steps[axis] * at[axis];
            ib -= wb.steps[axis] * at[axis];
            at[axis] = 0;
        }
    }
}

/// Elements of a row that is repeated.
const REPEATED: usize = 256;

/// Whether an input holds one element for each channel of the output, few enough for [`repeat`].
fn is_repeated(x: &Shape, output: &Shape) -> bool {
    x.len() == x.channels() && x.len() == output.channels() && x.len() <= REPEATED
}

/// Calls `f` with parts of an input of the output's shape, as many elements of a row that is repeated, and parts of the output.
fn repeat(x: &[i8], row: &[i8], y: &mut [i8], f: impl Fn(&[i8], &[i8], &mut [i8])) {
    let mut rows = [0; REPEATED];
    let many = REPEATED / row.len().max(1) * row.len();
    for rows in rows[..many].chunks_exact_mut(row.len().max(1)) {
        rows.copy_from_slice(row);
    }
    for (x, y) in x.chunks(many.max(1)).zip(y.chunks_mut(many.max(1))) {
        f(x, &rows[..x.len()], y);
    }
}

/// Whether there are kernels for sums and products of tensors of one shape.
const PC: bool = cfg!(foolproof_simd);

/// What both operators require.
fn check_operands(inputs: &[Operand], output: &Operand) -> Result<DType, OpError> {
    let [a, b] = inputs else {
        check::count(inputs.len(), 2)?;
        return Err(OpError::Attribute);
    };
    let dtype = check::activation_types(a, output)?;
    check::dtype(b, 1, dtype)?;
    check::per_tensor(b, 1)?;
    Ok(dtype)
}

impl Add {
    pub(super) fn check(
        &self,
        numerics: Numerics,
        inputs: &[Operand],
        output: &Operand,
    ) -> Result<(), OpError> {
        let dtype = check_operands(inputs, output)?;
        let factors = [self.inputs[0], self.inputs[1], self.output];
        let valid = match numerics {
            Numerics::Xnnpack if self.left_shift == 0 => (1..=30).contains(&self.output.shift),
            _ => self.left_shift <= 22 && factors.iter().all(|f| f.is_valid()),
        };
        if dtype == DType::I8 && !valid {
            return Err(OpError::Attribute);
        }
        Ok(())
    }

    pub(super) fn forward(&self, cx: &Context, inputs: &[Operand], output: &Operand, y: DataMut) {
        let [a, b] = inputs else { return };
        let shapes = (&a.shape, &b.shape, &output.shape);
        match (a.data, b.data, y) {
            // chips have one form of the sum, and less flash for it
            (Data::F32(xa), Data::F32(xb), DataMut::F32(y)) if PC && a.shape == b.shape => {
                kernels::add_f32(cx.kernels, [xa, xb], self.activation, y);
            }
            (Data::F32(xa), Data::F32(xb), DataMut::F32(y)) => {
                for_each(shapes.0, shapes.1, shapes.2, |i, ia, ib| {
                    y[i] = self.activation.apply(xa[ia] + xb[ib]);
                });
            }
            (Data::I8(xa), Data::I8(xb), DataMut::I8(y)) => {
                let (low, high) = self.activation.range_i8(&output.quant);
                let (za, zb) = (a.quant.zero_point, b.quant.zero_point);
                let rounding = cx.rounding();
                let xnnpack = cx.numerics == Numerics::Xnnpack && self.left_shift == 0;
                let sum = |x: [&[i8]; 2], y: &mut [i8]| {
                    let p = AddI8 {
                        x,
                        zero_points: [za, zb],
                        left_shift: u32::from(self.left_shift),
                        factors: self.inputs,
                        output: self.output,
                        zero_point: output.quant.zero_point,
                        range: (low, high),
                    };
                    kernels::add_i8(cx.kernels, &p, y);
                };
                if PC && rounding == Rounding::Double && !xnnpack {
                    if a.shape == b.shape {
                        return sum([xa, xb], y);
                    }
                    if a.shape == output.shape && is_repeated(&b.shape, &output.shape) {
                        return repeat(xa, xb, y, |a, b, y| sum([a, b], y));
                    }
                    if b.shape == output.shape && is_repeated(&a.shape, &output.shape) {
                        return repeat(xb, xa, y, |b, a, y| sum([a, b], y));
                    }
                }
                for_each(shapes.0, shapes.1, shapes.2, |i, ia, ib| {
                    let (a, b) = (xa[ia] as i32 - za, xb[ib] as i32 - zb);
                    let q = if xnnpack {
                        self.once(a, b)
                    } else {
                        let term = |x: i32, k: usize| {
                            requantize(x << self.left_shift, self.inputs[k], rounding)
                        };
                        let sum = term(a, 0).wrapping_add(term(b, 1));
                        requantize(sum, self.output, rounding)
                    };
                    let q = q.wrapping_add(output.quant.zero_point);
                    y[i] = q.max(low).min(high) as i8;
                });
            }
            _ => {}
        }
    }

    /// XNNPACK's sum: integer factors, and one rounding, halves up.
    #[inline(always)]
    fn once(&self, a: i32, b: i32) -> i32 {
        let shift = self.output.shift as u32;
        let [fa, fb] = self.inputs.map(|factor| factor.mantissa);
        let sum = a.wrapping_mul(fa).wrapping_add(b.wrapping_mul(fb));
        sum.wrapping_add(1 << (shift - 1)) >> shift
    }

    /// [`input_gradient`](Self::input_gradient) into a buffer that was not cleared, or false.
    pub(super) fn set_input_gradient(&self, gy: &[f32], gx: &mut [f32]) -> bool {
        let same = gx.len() == gy.len();
        if same {
            gx.copy_from_slice(gy);
        }
        same
    }

    pub(super) fn input_gradient(
        &self,
        which: usize,
        inputs: &[Operand],
        output: &Operand,
        gy: &[f32],
        gx: &mut [f32],
    ) {
        let [a, b] = inputs else { return };
        if which == 0 && a.shape.len() == output.shape.len()
            || which == 1 && b.shape.len() == output.shape.len()
        {
            activation::accumulate(gx, gy);
            return;
        }
        for_each(&a.shape, &b.shape, &output.shape, |i, ia, ib| {
            gx[if which == 0 { ia } else { ib }] += gy[i];
        });
    }
}

impl Mul {
    pub(super) fn check(
        &self,
        numerics: Numerics,
        inputs: &[Operand],
        output: &Operand,
    ) -> Result<(), OpError> {
        let dtype = check_operands(inputs, output)?;
        if dtype == DType::I8 && !numerics.convolution().takes(self.output) {
            return Err(OpError::Attribute);
        }
        Ok(())
    }

    pub(super) fn forward(&self, cx: &Context, inputs: &[Operand], output: &Operand, y: DataMut) {
        let [a, b] = inputs else { return };
        let shapes = (&a.shape, &b.shape, &output.shape);
        match (a.data, b.data, y) {
            (Data::F32(xa), Data::F32(xb), DataMut::F32(y)) => {
                for_each(shapes.0, shapes.1, shapes.2, |i, ia, ib| {
                    y[i] = self.activation.apply(xa[ia] * xb[ib]);
                });
            }
            (Data::I8(xa), Data::I8(xb), DataMut::I8(y)) => {
                let (low, high) = self.activation.range_i8(&output.quant);
                let (za, zb) = (a.quant.zero_point, b.quant.zero_point);
                let product = |x: [&[i8]; 2], y: &mut [i8]| {
                    let p = MulI8 {
                        x,
                        zero_points: [za, zb],
                        output: self.output,
                        zero_point: output.quant.zero_point,
                        range: (low, high),
                    };
                    kernels::mul_i8(cx.kernels, &p, y);
                };
                if PC && cx.numerics.convolution() == Rounding::Double {
                    if a.shape == b.shape {
                        return product([xa, xb], y);
                    }
                    if a.shape == output.shape && is_repeated(&b.shape, &output.shape) {
                        return repeat(xa, xb, y, |a, b, y| product([a, b], y));
                    }
                    if b.shape == output.shape && is_repeated(&a.shape, &output.shape) {
                        return repeat(xb, xa, y, |b, a, y| product([a, b], y));
                    }
                }
                for_each(shapes.0, shapes.1, shapes.2, |i, ia, ib| {
                    let product = (xa[ia] as i32 - za) * (xb[ib] as i32 - zb);
                    let q = requantize(product, self.output, cx.numerics.convolution())
                        .wrapping_add(output.quant.zero_point);
                    y[i] = q.max(low).min(high) as i8;
                });
            }
            _ => {}
        }
    }

    /// The other input, in real units, times the gradient.
    pub(super) fn input_gradient(
        &self,
        which: usize,
        inputs: &[Operand],
        output: &Operand,
        gy: &[f32],
        gx: &mut [f32],
    ) {
        let [a, b] = inputs else { return };
        let other = if which == 0 { b } else { a };
        let (scale, zero_point) = (other.quant.scale, other.quant.zero_point);
        let value = |i: usize| match other.data {
            Data::F32(x) => x[i],
            Data::I8(x) => (x[i] as i32 - zero_point) as f32 * scale,
            _ => 0.0,
        };
        for_each(&a.shape, &b.shape, &output.shape, |i, ia, ib| {
            let (target, source) = if which == 0 { (ia, ib) } else { (ib, ia) };
            gx[target] += gy[i] * value(source);
        });
    }
}
