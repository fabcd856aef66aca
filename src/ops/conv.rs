//! Conv2d and DepthwiseConv2d: x `[N, H, W, C]`, w `[O, kh, kw, C / groups]` or `[1, kh, kw, C m]`, bias `[O]`.

#[cfg(foolproof_simd)]
use super::activation::layer_numbers;
use super::activation::{self, requantize};
use super::check;
use super::{Activation, Context, Conv2d, DepthwiseConv2d, Numerics, OpError};
use crate::kernels::{self, ConvF32, ConvI8, Requantize, Spread, WeightsI8, Window};
#[cfg(foolproof_simd)]
use crate::kernels::{Kind, Layer};
use crate::tensor::{DType, DataMut, Operand, Shape};

/// What both convolutions are, apart from which channels meet.
#[derive(Clone, Copy)]
pub(super) struct Convolution {
    pub(super) depthwise: bool,
    stride: [u16; 2],
    dilation: [u16; 2],
    padding: super::Padding,
    activation: Activation,
}

impl From<&Conv2d> for Convolution {
    fn from(conv: &Conv2d) -> Convolution {
        Convolution {
            depthwise: false,
            stride: conv.stride,
            dilation: conv.dilation,
            padding: conv.padding,
            activation: conv.activation,
        }
    }
}

impl From<&DepthwiseConv2d> for Convolution {
    fn from(conv: &DepthwiseConv2d) -> Convolution {
        Convolution {
            depthwise: true,
            stride: conv.stride,
            dilation: conv.dilation,
            padding: conv.padding,
            activation: conv.activation,
        }
    }
}

impl Convolution {
    /// Output channels, or the operand whose shape is wrong.
    fn channels(&self, x: &Shape, w: &Shape) -> Result<usize, OpError> {
        if x.rank() != 4 {
            return Err(OpError::Shape { operand: 0 });
        }
        let fits = if self.depthwise {
            w.dim(0) == 1 && w.dim(3).is_multiple_of(x.dim(3))
        } else {
            super::conv_transpose::groups(x.dim(3), w).is_some()
        };
        if w.rank() != 4 || !fits {
            return Err(OpError::Shape { operand: 1 });
        }
        Ok(if self.depthwise { w.dim(3) } else { w.dim(0) })
    }

    pub(super) fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, OpError> {
        let (x, w) = (check::shape(inputs, 0)?, check::shape(inputs, 1)?);
        let channels = self.channels(&x, &w)?;
        let p = self.padding;
        let rows = check::extent(
            x.dim(1),
            w.dim(1),
            self.stride[0],
            self.dilation[0],
            (p.top, p.bottom),
        );
        let columns = check::extent(
            x.dim(2),
            w.dim(2),
            self.stride[1],
            self.dilation[1],
            (p.left, p.right),
        );
        let (Some(rows), Some(columns)) = (rows, columns) else {
            return Err(OpError::Attribute);
        };
        check::output_shape(&[x.dim(0) as u32, rows, columns, channels as u32])
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
        let channels = self.channels(&x.shape, &w.shape)?;
        check::weights(inputs, channels, numerics.convolution())
    }

    /// In groups, where the weights have fewer channels than the input.
    fn spread(&self, x: &Shape, w: &Shape) -> Option<Spread> {
        let groups = x.dim(3) / w.dim(3).max(1);
        (!self.depthwise && groups > 1).then_some(Spread {
            groups,
            transposed: false,
        })
    }

    fn window(&self, x: &Shape, w: &Shape, y: &Shape) -> Window {
        Window {
            batch: x.dim(0),
            input: [x.dim(1), x.dim(2)],
            in_channels: x.dim(3),
            output: [y.dim(1), y.dim(2)],
            out_channels: y.dim(3),
            kernel: [w.dim(1), w.dim(2)],
            stride: self.stride.map(usize::from),
            dilation: self.dilation.map(usize::from),
            padding: [self.padding.top as usize, self.padding.left as usize],
        }
    }

    pub(super) fn forward(&self, cx: &Context, inputs: &[Operand], output: &Operand, y: DataMut) {
        let [x, w, bias, rest @ ..] = inputs else {
            return;
        };
        let window = &self.window(&x.shape, &w.shape, &output.shape);
        let spread = self.spread(&x.shape, &w.shape);
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
                match spread {
                    Some(spread) => kernels::spread_f32(cx.kernels, spread, &p, y),
                    None if self.depthwise => kernels::depthwise_f32(cx.kernels, &p, y),
                    None => kernels::conv_f32(cx.kernels, &p, y),
                }
            }
            DataMut::I8(y) => {
                let [multiplier, shift] = rest else { return };
                let p = ConvI8 {
                    window,
                    x: x.i8(),
                    x_zero_point: x.quant.zero_point as i16,
                    w: cx.constant(w.i8()),
                    output: self.requantize(cx, [bias, multiplier, shift], output),
                };
                match spread {
                    Some(spread) => kernels::spread_i8(cx.kernels, spread, &p, y),
                    None if self.depthwise => kernels::depthwise_i8(cx.kernels, &p, y),
                    None => kernels::conv_i8(cx.kernels, &p, y),
                }
            }
        }
    }

    fn requantize<'a>(
        &self,
        cx: &Context,
        constants: [&Operand<'a>; 3],
        output: &Operand,
    ) -> Requantize<'a> {
        requantize(
            (cx.numerics.convolution(), self.activation),
            constants,
            output,
        )
    }

    /// All but the input. None of channels in groups, and of what was not checked.
    #[cfg(foolproof_simd)]
    pub(super) fn layer<'a>(
        &self,
        cx: &Context,
        inputs: &[Operand<'a>],
        output: &Operand,
    ) -> Option<Layer<'a>> {
        let [x, w, ..] = inputs else { return None };
        if self.spread(&x.shape, &w.shape).is_some() {
            return None;
        }
        let how = (cx.numerics.convolution(), self.activation, cx.keeps_ties);
        let numbers = layer_numbers(how, inputs, output)?;
        let kind = match self.depthwise {
            true => Kind::Depthwise,
            false => Kind::Conv,
        };
        let window = self.window(&x.shape, &w.shape, &output.shape);
        Some(Layer {
            kind,
            window,
            numbers,
        })
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
        let g = &self.window(&x.shape, &w.shape, &output.shape);
        let int8 = WeightsI8 {
            w: cx.constant(w.i8()),
            quant: w.quant,
        };
        if let Some(spread) = self.spread(&x.shape, &w.shape) {
            match w.dtype {
                DType::I8 => kernels::spread_input_gradient_i8(cx.kernels, spread, g, int8, gy, gx),
                _ => kernels::spread_input_gradient_f32(
                    cx.kernels,
                    spread,
                    g,
                    cx.constant(w.f32()),
                    gy,
                    gx,
                ),
            }
            return;
        }
        match (w.dtype, self.depthwise) {
            (DType::I8, true) => kernels::depthwise_input_gradient_i8(cx.kernels, g, int8, gy, gx),
            (DType::I8, false) => kernels::conv_input_gradient_i8(cx.kernels, g, int8, gy, gx),
            (_, true) => {
                kernels::depthwise_input_gradient_f32(cx.kernels, g, cx.constant(w.f32()), gy, gx)
            }
            (_, false) => {
                kernels::conv_input_gradient_f32(cx.kernels, g, cx.constant(w.f32()), gy, gx)
            }
        }
    }

    /// [`input_gradient`](Self::input_gradient) into a buffer that was not cleared, or false.
    pub(super) fn set_input_gradient(
        &self,
        cx: &Context,
        inputs: &[Operand],
        output: &Operand,
        gy: &[f32],
        gx: &mut [f32],
    ) -> bool {
        let [x, w, ..] = inputs else { return false };
        if self.depthwise || w.dtype != DType::F32 || self.spread(&x.shape, &w.shape).is_some() {
            return false;
        }
        let g = &self.window(&x.shape, &w.shape, &output.shape);
        kernels::conv_set_input_gradient_f32(cx.kernels, g, cx.constant(w.f32()), gy, gx)
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
        let g = &self.window(&x.shape, &w.shape, &output.shape);
        if let Some(spread) = self.spread(&x.shape, &w.shape) {
            kernels::spread_weight_gradient_f32(cx.kernels, spread, g, x.f32(), gy, gw);
        } else if self.depthwise {
            kernels::depthwise_weight_gradient_f32(cx.kernels, g, x.f32(), gy, gw);
        } else {
            kernels::conv_weight_gradient_f32(cx.kernels, g, x.f32(), gy, gw);
        }
    }
}
