//! Fully connected: x flattened to `[N, I]`, w `[O, I]`, bias `[O]`, output `[N, O]`.

#[cfg(foolproof_simd)]
use super::activation::layer_numbers;
use super::activation::{self, requantize};
use super::{Context, Dense, Numerics, OpError, check};
use crate::kernels::{self, DenseF32, DenseI8, Requantize, WeightsI8};
#[cfg(foolproof_simd)]
use crate::kernels::{Kind, Layer, Window};
use crate::tensor::{DType, DataMut, Operand, Shape};

impl Dense {
    pub(super) fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, OpError> {
        let (x, w) = (check::shape(inputs, 0)?, check::shape(inputs, 1)?);
        if w.rank() != 2 {
            return Err(OpError::Shape { operand: 1 });
        }
        if !x.len().is_multiple_of(w.dim(1)) {
            return Err(OpError::Shape { operand: 0 });
        }
        check::output_shape(&[(x.len() / w.dim(1)) as u32, w.dim(0) as u32])
    }

    pub(super) fn check(
        &self,
        numerics: Numerics,
        inputs: &[Operand],
        output: &Operand,
    ) -> Result<(), OpError> {
        let [x, w, ..] = inputs else {
            return check::count(inputs.len(), 3);
        };
        check::activation_types(x, output)?;
        check::weights(inputs, w.shape.dim(0), numerics.dense())
    }

    pub(super) fn forward(&self, cx: &Context, inputs: &[Operand], output: &Operand, y: DataMut) {
        let [x, w, bias, rest @ ..] = inputs else {
            return;
        };
        let depth = w.shape.dim(1);
        match y {
            DataMut::F32(y) => {
                let p = DenseF32 {
                    depth,
                    x: x.f32(),
                    w: w.f32(),
                    bias: bias.f32(),
                    activation: self.activation,
                };
                kernels::dense_f32(cx.kernels, &p, y);
            }
            DataMut::I8(y) => {
                let [multiplier, shift] = rest else { return };
                let p = DenseI8 {
                    depth,
                    x: x.i8(),
                    x_zero_point: x.quant.zero_point as i16,
                    w: cx.constant(w.i8()),
                    output: self.requantize(cx, [bias, multiplier, shift], output),
                };
                kernels::dense_i8(cx.kernels, &p, y);
            }
        }
    }

    fn requantize<'a>(
        &self,
        cx: &Context,
        constants: [&Operand<'a>; 3],
        output: &Operand,
    ) -> Requantize<'a> {
        requantize((cx.numerics.dense(), self.activation), constants, output)
    }

    /// All but the input. None of what was not checked.
    #[cfg(foolproof_simd)]
    pub(super) fn layer<'a>(
        &self,
        cx: &Context,
        inputs: &[Operand<'a>],
        output: &Operand,
    ) -> Option<Layer<'a>> {
        let [x, w, ..] = inputs else { return None };
        // a fully connected layer keeps ties in any case
        let how = (cx.numerics.dense(), self.activation, true);
        let numbers = layer_numbers(how, inputs, output)?;
        let (outputs, depth) = (w.shape.dim(0), w.shape.dim(1));
        Some(Layer {
            kind: Kind::Dense,
            window: Window::of_dense(depth, x.shape.len().checked_div(depth)?, outputs),
            numbers,
        })
    }

    pub(super) fn input_gradient(
        &self,
        cx: &Context,
        inputs: &[Operand],
        gy: &[f32],
        gx: &mut [f32],
    ) {
        let [_, w, ..] = inputs else { return };
        let depth = w.shape.dim(1);
        if w.dtype == DType::I8 {
            let int8 = WeightsI8 {
                w: w.i8().into(),
                quant: w.quant,
            };
            kernels::dense_input_gradient_i8(cx.kernels, depth, int8, gy, gx);
        } else {
            kernels::dense_input_gradient_f32(cx.kernels, depth, w.f32(), gy, gx);
        }
    }

    /// Whether it could, and if so did: only in f32, and not with all kernels.
    pub(super) fn set_input_gradient(
        &self,
        cx: &Context,
        inputs: &[Operand],
        gy: &[f32],
        gx: &mut [f32],
    ) -> bool {
        match inputs {
            [_, w, ..] if w.dtype == DType::F32 => {
                kernels::dense_set_input_gradient_f32(cx.kernels, w.shape.dim(1), w.f32(), gy, gx)
            }
            _ => false,
        }
    }

    /// Weights (1) or bias (2).
    pub(super) fn parameter_gradient(
        &self,
        cx: &Context,
        which: usize,
        inputs: &[Operand],
        gy: &[f32],
        gw: &mut [f32],
    ) {
        let [x, w, ..] = inputs else { return };
        if which == 2 {
            for gy in gy.chunks_exact(gw.len().max(1)) {
                activation::accumulate(gw, gy);
            }
        } else {
            kernels::dense_weight_gradient_f32(cx.kernels, w.shape.dim(1), x.f32(), gy, gw);
        }
    }

    /// Whether it could, and if so did: not with all kernels.
    pub(super) fn set_weight_gradient(
        &self,
        cx: &Context,
        inputs: &[Operand],
        gy: &[f32],
        gw: &mut [f32],
    ) -> bool {
        let [x, w, ..] = inputs else { return false };
        kernels::dense_set_weight_gradient_f32(cx.kernels, w.shape.dim(1), x.f32(), gy, gw)
    }
}
