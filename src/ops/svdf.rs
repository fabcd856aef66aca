//! Singular value decomposition filters (Alvarez and Park 2019, "End-to-end streaming keyword spotting"): one step of a
//! recurrent layer. Each filter keeps its last `M` features; an output is a weighted sum over the features of its filters.
//!
//! int8 keeps features in 16 or 8 bits, as TFLite Micro does. Its fused activation is ignored there, as it is in TFLite Micro:
//! the output's range does the same.

use super::{Activation, Context, Multiplier, OpError, check};
use crate::kernels::fixed_point::requantize;
use crate::kernels::scalar::{axpy_f32, axpy_i8, dot_i8};
use crate::tensor::{DType, Data, DataMut, Operand, Shape, StateMut};

/// Singular value decomposition filter.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Svdf {
    /// Filters per output, at least 1.
    pub rank: u16,
    /// f32: fused activation. int8: none.
    pub activation: Activation,
    /// int8: features have 8 bits instead of 16. f32: false.
    pub narrow: bool,
    /// int8: the feature that stands for 0, in -128..=127. f32: 0.
    pub state_zero_point: i32,
    /// int8: sum over the input to feature. f32: 0.
    pub feature: Multiplier,
    /// int8: sum over features to output. f32: 0.
    pub output: Multiplier,
}

impl Svdf {
    /// `[N, F / rank]`.
    pub(super) fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, OpError> {
        let (x, w) = (check::shape(inputs, 0)?, check::shape(inputs, 2)?);
        let rank = usize::from(self.rank);
        if rank == 0 || !w.dim(0).is_multiple_of(rank) {
            return Err(OpError::Attribute);
        }
        if x.rank() != 2 {
            return Err(OpError::Shape { operand: 0 });
        }
        if w.rank() != 2 || w.dim(1) != x.dim(1) {
            return Err(OpError::Shape { operand: 2 });
        }
        check::output_shape(&[x.dim(0) as u32, (w.dim(0) / rank) as u32])
    }

    pub(super) fn check(&self, inputs: &[Operand], output: &Operand) -> Result<(), OpError> {
        check::count(inputs.len(), 5)?;
        let [x, state, w, time, bias] = inputs else {
            return Err(OpError::Attribute);
        };
        let dtype = check::activation_types(x, output)?;
        let kept = match dtype {
            DType::I8 => DType::I32,
            _ => DType::F32,
        };
        let units = self.output_shape(&inputs_shapes(inputs))?.dim(1);
        let filters = w.shape.dim(0);
        check::constant(w, 2, dtype, w.shape.len())?;
        check::constant(time, 3, kept, time.shape.len())?;
        check::constant(bias, 4, kept, units)?;
        check::dtype(state, 1, kept)?;
        if time.shape.rank() != 2 || time.shape.dim(0) != filters {
            return Err(OpError::Shape { operand: 3 });
        }
        let memory = filters.saturating_mul(time.shape.dim(1));
        if state.shape.rank() != 2
            || state.shape.dim(0) != x.shape.dim(0)
            || state.shape.dim(1) != memory
        {
            return Err(OpError::Shape { operand: 1 });
        }
        for (t, i) in [(w, 2), (time, 3)] {
            check::per_tensor(t, i)?;
            if t.quant.zero_point != 0 {
                return Err(OpError::Quantization { operand: i });
            }
        }
        let int8 = dtype == DType::I8;
        let usable = self.feature.is_valid()
            && self.output.is_valid()
            && self.activation == Activation::None
            && (-128..=127).contains(&self.state_zero_point);
        let plain = !self.narrow && self.state_zero_point == 0;
        match if int8 { usable } else { plain } {
            true => Ok(()),
            false => Err(OpError::Attribute),
        }
    }

    pub(super) fn advance(
        &self,
        cx: &Context,
        inputs: &[Operand],
        output: &Operand,
        y: DataMut,
        state: StateMut,
    ) {
        let [x, _, w, time, bias] = inputs else {
            return;
        };
        let (depth, memory) = (w.shape.dim(1), time.shape.dim(1));
        let (filters, units) = (w.shape.dim(0), bias.shape.len());
        let x_zero = x.quant.zero_point as i16;
        match (y, state) {
            (DataMut::F32(y), StateMut::F32(state)) => {
                let samples = x.f32().chunks_exact(depth).zip(y.chunks_exact_mut(units));
                for ((x, y), state) in samples.zip(state.chunks_exact_mut(filters * memory)) {
                    for (kept, w) in state
                        .chunks_exact_mut(memory)
                        .zip(w.f32().chunks_exact(depth))
                    {
                        push(kept, sum_of_products(x, w));
                    }
                    self.outputs_f32(state, time, bias, y);
                }
            }
            (DataMut::I8(y), StateMut::I32(state)) => {
                let samples = x.i8().chunks_exact(depth).zip(y.chunks_exact_mut(units));
                for ((x, y), state) in samples.zip(state.chunks_exact_mut(filters * memory)) {
                    let rows = w.i8().chunks_exact(depth);
                    for (kept, w) in state.chunks_exact_mut(memory).zip(rows) {
                        let sum = dot_i8(x, x_zero, w);
                        push(
                            kept,
                            self.feature(requantize(sum, self.feature, cx.rounding())),
                        );
                    }
                    let outputs = y.iter_mut().zip(bias.i32()).enumerate();
                    for (u, (y, &bias)) in outputs {
                        let sum = self.sum_i8(u, state, time.i32(), memory, bias);
                        let q = requantize(sum, self.output, cx.rounding())
                            .saturating_add(output.quant.zero_point);
                        *y = q.clamp(-128, 127) as i8;
                    }
                }
            }
            _ => {}
        }
    }

    /// A new feature: saturated, then moved by the zero point; 8 bits wrap around there, as in TFLite Micro.
    fn feature(&self, sum: i32) -> i32 {
        match self.narrow {
            true => i32::from((sum.clamp(-128, 127) + self.state_zero_point) as i8),
            false => {
                let sum = sum.clamp(i16::MIN.into(), i16::MAX.into());
                i32::from((sum + self.state_zero_point) as i16)
            }
        }
    }

    fn sum_i8(&self, u: usize, state: &[i32], time: &[i32], memory: usize, bias: i32) -> i32 {
        let all = usize::from(self.rank) * memory;
        let own = u * all..(u + 1) * all;
        let products = state[own.clone()].iter().zip(&time[own]);
        products.fold(bias, |sum, (&s, &t)| {
            sum.wrapping_add(s.wrapping_sub(self.state_zero_point).wrapping_mul(t))
        })
    }

    fn outputs_f32(&self, state: &[f32], time: &Operand, bias: &Operand, y: &mut [f32]) {
        let memory = time.shape.dim(1);
        let mut filters = state
            .chunks_exact(memory)
            .zip(time.f32().chunks_exact(memory));
        for (y, &bias) in y.iter_mut().zip(bias.f32()) {
            let mut sum = bias;
            for (state, time) in filters.by_ref().take(self.rank.into()) {
                sum += sum_of_products(state, time);
            }
            *y = self.activation.apply(sum);
        }
    }

    /// Through the newest feature: the older ones are of earlier runs.
    pub(super) fn input_gradient(
        &self,
        inputs: &[Operand],
        output: &Operand,
        gy: &[f32],
        gx: &mut [f32],
    ) {
        let [_, _, w, time, _] = inputs else { return };
        let (depth, memory) = (w.shape.dim(1), time.shape.dim(1));
        let newest = |f: usize| {
            let at = (f + 1) * memory - 1;
            match time.data {
                Data::F32(t) => t[at],
                Data::I32(t) => t[at] as f32 * time.quant.scale,
                _ => 0.0,
            }
        };
        let rank = usize::from(self.rank);
        let samples = gx.chunks_exact_mut(depth);
        for (gx, gy) in samples.zip(gy.chunks_exact(output.shape.dim(1))) {
            for f in 0..w.shape.dim(0) {
                let g = gy[f / rank] * newest(f);
                match w.data {
                    Data::F32(w) => axpy_f32(gx, g, &w[f * depth..][..depth]),
                    Data::I8(q) => axpy_i8(gx, g * w.quant.scale, &q[f * depth..][..depth]),
                    _ => {}
                }
            }
        }
    }

    /// Feature weights (2), time weights (3) or bias (4).
    pub(super) fn parameter_gradient(
        &self,
        which: usize,
        inputs: &[Operand],
        output: &Operand,
        gy: &[f32],
        gw: &mut [f32],
    ) {
        let [x, state, w, time, _] = inputs else {
            return;
        };
        let (depth, memory) = (w.shape.dim(1), time.shape.dim(1));
        let rank = usize::from(self.rank);
        let samples = gy.chunks_exact(output.shape.dim(1)).enumerate();
        for (n, gy) in samples {
            match which {
                2 => {
                    let x = &x.f32()[n * depth..][..depth];
                    let newest = time.f32().chunks_exact(memory).filter_map(<[f32]>::last);
                    let rows = gw.chunks_exact_mut(depth).zip(newest);
                    for (f, (gw, newest)) in rows.enumerate() {
                        axpy_f32(gw, gy[f / rank] * newest, x);
                    }
                }
                3 => {
                    let rows = gw.chunks_exact_mut(memory).enumerate();
                    let kept = &state.f32()[n * w.shape.dim(0) * memory..];
                    for ((f, gw), kept) in rows.zip(kept.chunks_exact(memory)) {
                        axpy_f32(gw, gy[f / rank], kept);
                    }
                }
                _ => super::activation::accumulate(gw, gy),
            }
        }
    }
}

fn inputs_shapes(inputs: &[Operand]) -> [Shape; 3] {
    core::array::from_fn(|i| inputs.get(i).map_or(Shape::SCALAR, |t| t.shape))
}

/// The oldest leaves, the newest comes last.
fn push<T: Copy>(kept: &mut [T], newest: T) {
    if !kept.is_empty() {
        kept.rotate_left(1);
    }
    if let Some(last) = kept.last_mut() {
        *last = newest;
    }
}

fn sum_of_products(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b)
}
