//! Transposed 2-D convolution: x `[N, H, W, C]`, w `[O, kh, kw, C / groups]`, bias `[O]`. Every input cell adds a window of
//! weights to the output; the gradient of a convolution with the same numbers.

use super::activation::{self, requantize};
use super::{Activation, Context, Numerics, OpError, Padding, check};
use crate::kernels::{self, ConvF32, ConvI8, Spread, WeightsI8, Window};
use crate::tensor::{DType, DataMut, Operand, Shape};

/// Outputs stay below this along each axis.
const MAX_EXTENT: u64 = 1 << 30;

/// Transposed 2-D convolution. The groups follow from the shapes: output channel `o` of `O` sees the channels of group
/// `o / (O / groups)`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ConvTranspose2d {
    /// Rows, columns between the windows of neighbouring inputs; at least 1.
    pub stride: [u16; 2],
    /// Rows, columns between the cells of a window; at least 1.
    pub dilation: [u16; 2],
    /// Cut off around the output.
    pub padding: Padding,
    /// Rows, columns added below and to the right of the output, which no window may reach.
    pub extra: [u16; 2],
    /// Fused activation.
    pub activation: Activation,
}

/// One axis of the output: `stride (in - 1) + reach + extra - before - after`.
fn extent(
    input: usize,
    kernel: usize,
    (stride, dilation): (u16, u16),
    (before, after, extra): (u16, u16, u16),
) -> Option<u32> {
    if input == 0 || kernel == 0 || stride == 0 || dilation == 0 {
        return None;
    }
    let reach = (kernel as u64 - 1).checked_mul(dilation as u64)? + 1;
    let all = (stride as u64).checked_mul(input as u64 - 1)? + reach + extra as u64;
    let left = all.checked_sub(before as u64 + after as u64)?;
    (left > 0 && all < MAX_EXTENT).then_some(left as u32)
}

impl ConvTranspose2d {
    fn groups(x: &Shape, w: &Shape) -> Result<usize, OpError> {
        if x.rank() != 4 {
            return Err(OpError::Shape { operand: 0 });
        }
        groups(x.dim(3), w).ok_or(OpError::Shape { operand: 1 })
    }

    pub(super) fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, OpError> {
        let (x, w) = (check::shape(inputs, 0)?, check::shape(inputs, 1)?);
        Self::groups(&x, &w)?;
        let p = self.padding;
        let along = |axis: usize, before: u16, after: u16| {
            let steps = (self.stride[axis], self.dilation[axis]);
            let ends = (before, after, self.extra[axis]);
            extent(x.dim(axis + 1), w.dim(axis + 1), steps, ends).ok_or(OpError::Attribute)
        };
        let rows = along(0, p.top, p.bottom)?;
        let columns = along(1, p.left, p.right)?;
        check::output_shape(&[x.dim(0) as u32, rows, columns, w.dim(0) as u32])
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
        Self::groups(&x.shape, &w.shape)?;
        check::weights(inputs, w.shape.dim(0), numerics.convolution())
    }

    /// The convolution whose gradient this is: its window slides over our output.
    fn window(&self, x: &Shape, w: &Shape, y: &Shape) -> (Spread, Window) {
        let spread = Spread {
            groups: (x.dim(3) / w.dim(3).max(1)).max(1),
            transposed: true,
        };
        let window = Window {
            batch: x.dim(0),
            input: [y.dim(1), y.dim(2)],
            in_channels: y.dim(3),
            output: [x.dim(1), x.dim(2)],
            out_channels: x.dim(3),
            kernel: [w.dim(1), w.dim(2)],
            stride: self.stride.map(usize::from),
            dilation: self.dilation.map(usize::from),
            padding: [self.padding.top as usize, self.padding.left as usize],
        };
        (spread, window)
    }

    pub(super) fn forward(&self, cx: &Context, inputs: &[Operand], output: &Operand, y: DataMut) {
        let [x, w, bias, rest @ ..] = inputs else {
            return;
        };
        let (spread, window) = &self.window(&x.shape, &w.shape, &output.shape);
        match y {
            DataMut::F32(y) => {
                let p = ConvF32 {
                    window,
                    x: x.f32(),
                    w: cx.constant(w.f32()),
                    bias: bias.f32(),
                    activation: self.activation,
                    keeps_ties: cx.keeps_ties,
                };
                kernels::spread_f32(cx.kernels, *spread, &p, y);
            }
            DataMut::I8(y) => {
                let [multiplier, shift] = rest else { return };
                let p = ConvI8 {
                    window,
                    x: x.i8(),
                    x_zero_point: x.quant.zero_point as i16,
                    w: cx.constant(w.i8()),
                    output: requantize(
                        (cx.numerics.convolution(), self.activation),
                        [bias, multiplier, shift],
                        output,
                    ),
                };
                kernels::spread_i8(cx.kernels, *spread, &p, y);
            }
        }
    }

    pub(super) fn input_gradient(
        &self,
        cx: &Context,
        inputs: &[Operand],
        output: &Operand,
        gy: &[f32],
        gx: &mut [f32],
    ) {
        let [x, w, ..] = inputs else { return };
        let (spread, g) = &self.window(&x.shape, &w.shape, &output.shape);
        if w.dtype == DType::I8 {
            let int8 = WeightsI8 {
                w: cx.constant(w.i8()),
                quant: w.quant,
            };
            kernels::spread_input_gradient_i8(cx.kernels, *spread, g, int8, gy, gx);
        } else {
            kernels::spread_input_gradient_f32(
                cx.kernels,
                *spread,
                g,
                cx.constant(w.f32()),
                gy,
                gx,
            );
        }
    }

    /// Weights (1) or bias (2).
    pub(super) fn parameter_gradient(
        &self,
        cx: &Context,
        which: usize,
        inputs: &[Operand],
        output: &Operand,
        gy: &[f32],
        gw: &mut [f32],
    ) {
        let [x, w, ..] = inputs else { return };
        if which == 2 {
            for gy in gy.chunks_exact(gw.len().max(1)) {
                activation::accumulate(gw, gy);
            }
            return;
        }
        let (spread, g) = &self.window(&x.shape, &w.shape, &output.shape);
        kernels::spread_weight_gradient_f32(cx.kernels, *spread, g, x.f32(), gy, gw);
    }
}

/// In how many groups weights `[O, kh, kw, C / groups]` divide so many channels; `None` where they do not.
pub(super) fn groups(channels: usize, w: &Shape) -> Option<usize> {
    let share = w.dim(3);
    if w.rank() != 4 || share == 0 || !channels.is_multiple_of(share) {
        return None;
    }
    let groups = channels / share;
    w.dim(0).is_multiple_of(groups).then_some(groups)
}
