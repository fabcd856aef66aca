//! AvgPool2d and MaxPool2d over `[N, H, W, C]`. Only cells inside the image count.

use super::{Activation, Context, OpError, Pool2d, Seen, check};
use crate::kernels::{self, Window, scalar::pool};
use crate::tensor::{DType, Data, DataMut, Operand, Shape};

/// The saved index of a maximum that the fused activation clamped.
const CLAMPED: u8 = 255;

impl Pool2d {
    pub(super) fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, OpError> {
        let x = check::shape(inputs, 0)?;
        if x.rank() != 4 {
            return Err(OpError::Shape { operand: 0 });
        }
        let p = self.padding;
        let [kh, kw] = self.window;
        // Every window then holds at least one cell of the image.
        if p.top >= kh || p.bottom >= kh || p.left >= kw || p.right >= kw {
            return Err(OpError::Attribute);
        }
        let rows = check::extent(x.dim(1), kh as usize, self.stride[0], 1, (p.top, p.bottom));
        let columns = check::extent(x.dim(2), kw as usize, self.stride[1], 1, (p.left, p.right));
        let (Some(rows), Some(columns)) = (rows, columns) else {
            return Err(OpError::Attribute);
        };
        check::output_shape(&[x.dim(0) as u32, rows, columns, x.dim(3) as u32])
    }

    pub(super) fn check(
        &self,
        max: bool,
        inputs: &[Operand],
        output: &Operand,
    ) -> Result<(), OpError> {
        check::count(inputs.len(), 1)?;
        let [x] = inputs else {
            return Err(OpError::Attribute);
        };
        let dtype = check::activation_types(x, output)?;
        if dtype == DType::I8 {
            check::same_quantization(x, 0, output)?;
        }
        // An average sums int8 values in 32 bits; the index of a maximum is a byte.
        let cells = self.window[0] as u32 * self.window[1] as u32;
        let most = match (max, self.activation) {
            (true, Activation::None) => 256,
            (true, _) => 255,
            (false, _) => 1 << 23,
        };
        if cells > most {
            return Err(OpError::Attribute);
        }
        Ok(())
    }

    fn window(&self, x: &Shape, y: &Shape) -> Window {
        Window {
            batch: x.dim(0),
            input: [x.dim(1), x.dim(2)],
            in_channels: x.dim(3),
            output: [y.dim(1), y.dim(2)],
            out_channels: y.dim(3),
            kernel: self.window.map(usize::from),
            stride: self.stride.map(usize::from),
            dilation: [1, 1],
            padding: [self.padding.top as usize, self.padding.left as usize],
        }
    }

    pub(super) fn average(&self, cx: &Context, x: &Operand, output: &Operand, y: DataMut) {
        let g = &self.window(&x.shape, &output.shape);
        match (x.data, y) {
            (Data::F32(x), DataMut::F32(y)) => {
                kernels::average_pool_f32(cx.kernels, g, x, self.activation, y);
            }
            (Data::I8(x), DataMut::I8(y)) => {
                let range = self.activation.range_i8(&output.quant);
                kernels::average_pool_i8(cx.kernels, g, x, range, y);
            }
            _ => {}
        }
    }

    pub(super) fn maximum(&self, cx: &Context, x: &Operand, output: &Operand, y: DataMut) {
        let g = &self.window(&x.shape, &output.shape);
        match (x.data, y) {
            (Data::F32(x), DataMut::F32(y)) => {
                kernels::max_pool_f32(cx.kernels, g, x, self.activation, y);
            }
            (Data::I8(x), DataMut::I8(y)) => {
                let (low, high) = self.activation.range_i8(&output.quant);
                for ((n, rows, columns), y) in g.windows().zip(y.chunks_exact_mut(g.out_channels)) {
                    y.fill(i8::MIN);
                    for cell in g.cells(n, rows, columns) {
                        let x = &x[cell.pixel * g.in_channels..][..y.len()];
                        for (y, &x) in y.iter_mut().zip(x) {
                            *y = x.max(*y);
                        }
                    }
                    for y in y {
                        *y = (*y as i32).max(low).min(high) as i8;
                    }
                }
            }
            _ => {}
        }
    }

    /// Which cell of each window was the maximum, the first of equals; [`CLAMPED`] where a fused activation stops
    /// the gradient.
    pub(super) fn save(&self, cx: &Context, x: &Operand, output: &Operand, saved: &mut [u8]) {
        let g = &self.window(&x.shape, &output.shape);
        match x.data {
            Data::F32(x) => kernels::max_pool_index_f32(cx.kernels, g, x, saved),
            Data::I8(x) => pool::argmax(g, x, |x, best| x > best, saved),
            _ => {}
        }
        let clamps = self.activation != Activation::None;
        match output.data {
            Data::F32(y) if clamps => self.name_clamped(y, saved),
            Data::I8(y) if clamps => {
                let (low, high) = self.activation.range_i8(&output.quant);
                for (index, &q) in saved.iter_mut().zip(y) {
                    if q as i32 <= low || q as i32 >= high {
                        *index = CLAMPED;
                    }
                }
            }
            _ => {}
        }
    }

    /// [`CLAMPED`] where the fused activation stops the gradient, in f32.
    #[inline(always)]
    fn name_clamped(&self, y: &[f32], saved: &mut [u8]) {
        for (index, &y) in saved.iter_mut().zip(y) {
            if !self.activation.passes(y) {
                *index = CLAMPED;
            }
        }
    }

    /// [`maximum`](Self::maximum) and [`save`](Self::save) in f32.
    #[cfg(foolproof_simd)]
    pub(crate) fn maximum_and_save(
        &self,
        cx: &Context,
        x: &Operand,
        output: &Operand,
        y: DataMut,
        saved: &mut [u8],
    ) {
        let g = &self.window(&x.shape, &output.shape);
        if let (Data::F32(x), DataMut::F32(y)) = (x.data, y) {
            kernels::max_pool_and_index_f32(cx.kernels, g, x, self.activation, y, saved);
            if self.activation != Activation::None {
                self.name_clamped(y, saved);
            }
        }
    }

    /// Zero where the fused activation clamped the maximum.
    pub(super) fn maximum_activation_gradient(&self, saved: &[u8], gy: &mut [f32]) {
        if self.activation != Activation::None {
            for (&index, gy) in saved.iter().zip(gy) {
                if index == CLAMPED {
                    *gy = 0.0;
                }
            }
        }
    }

    pub(super) fn average_gradient(
        &self,
        x: &Operand,
        output: &Operand,
        gy: &[f32],
        gx: &mut [f32],
    ) {
        let g = &self.window(&x.shape, &output.shape);
        for ((n, rows, columns), gy) in g.windows().zip(gy.chunks_exact(g.out_channels)) {
            let count = (rows.count * columns.count) as f32;
            for cell in g.cells(n, rows, columns) {
                let at = cell.pixel * g.in_channels;
                for (gx, &gy) in gx[at..].iter_mut().zip(gy) {
                    *gx += gy / count;
                }
            }
        }
    }

    /// [`maximum_gradient`](Self::maximum_gradient) into a buffer that was not cleared, or false.
    pub(super) fn set_maximum_gradient(
        &self,
        cx: &Context,
        seen: &Seen,
        gy: &[f32],
        gx: &mut [f32],
    ) -> bool {
        let Some(x) = seen.inputs.first() else {
            return false;
        };
        let g = &self.window(&x.shape, &seen.output.shape);
        kernels::max_pool_set_gradient(cx.kernels, g, seen.saved, gy, gx)
    }

    pub(super) fn maximum_gradient(&self, cx: &Context, seen: &Seen, gy: &[f32], gx: &mut [f32]) {
        if let Some(x) = seen.inputs.first() {
            let g = &self.window(&x.shape, &seen.output.shape);
            kernels::max_pool_gradient(cx.kernels, g, seen.saved, gy, gx);
        }
    }
}

#[cfg(all(test, foolproof_simd))]
mod tests {
    extern crate std;
    use super::*;
    use crate::kernels::Kernels;
    use crate::ops::{Numerics, Padding};
    use crate::tensor::Quant;
    use std::vec;
    use std::vec::Vec;

    fn operand<'a>(dims: [u32; 4], data: Data<'a>) -> Operand<'a> {
        Operand {
            dtype: DType::F32,
            shape: Shape::new(&dims).unwrap(),
            quant: Quant::NONE,
            data,
        }
    }

    #[test]
    fn maxima_and_note_written_at_once_are_those_of_two_steps() {
        let narrow = ([2, 2], 2, 0, [2, 5, 7, 16], [2, 2, 3, 16]);
        let wide = ([3, 3], 2, 1, [2, 5, 7, 11], [2, 3, 4, 11]);
        for (window, stride, edge, input, output) in [narrow, wide] {
            for activation in [Activation::None, Activation::Relu, Activation::Relu6] {
                let pool = Pool2d {
                    window,
                    stride: [stride; 2],
                    padding: Padding {
                        top: edge,
                        bottom: edge,
                        left: edge,
                        right: edge,
                    },
                    activation,
                };
                // few different numbers, below, between and above the rails
                let elements = input.iter().product::<u32>();
                let x: Vec<f32> = (0..elements)
                    .map(|i| (i.wrapping_mul(2_654_435_761) >> 16) % 37)
                    .map(|step| step as f32 * 0.5 - 10.0)
                    .collect();
                let x = operand(input, Data::F32(&x));
                let places = operand(output, Data::Absent);
                assert_eq!(pool.output_shape(&[x.shape]), Ok(places.shape));
                let n = places.shape.len();
                for kernels in [Kernels::Scalar, Kernels::detect_exact(), Kernels::detect()] {
                    let cx = Context::new(kernels, Numerics::Tflm);
                    let (mut y, mut saved) = (vec![f32::NAN; n], vec![0xaa; n]);
                    pool.maximum(&cx, &x, &places, DataMut::F32(&mut y));
                    pool.save(&cx, &x, &operand(output, Data::F32(&y)), &mut saved);
                    let (mut y2, mut saved2) = (vec![f32::NAN; n], vec![0x55; n]);
                    pool.maximum_and_save(&cx, &x, &places, DataMut::F32(&mut y2), &mut saved2);
                    assert_eq!(y, y2, "{pool:?} {kernels:?}");
                    assert_eq!(saved, saved2, "{pool:?} {kernels:?}");
                    let clamped = saved.iter().filter(|&&index| index == CLAMPED).count();
                    assert_eq!(clamped > 0, activation != Activation::None);
                    assert!(clamped < n, "{clamped} of {n}");
                }
            }
        }
    }
}
