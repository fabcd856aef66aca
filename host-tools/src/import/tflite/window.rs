//! Windows: strides, dilations and padding from the file's numbers to the engine's, and the pools.

use super::file::Step;
use super::schema::PoolOptions;
use super::{Importer, Reason, fused};
use foolproof::ops::{Op, Padding, Pool2d};
use foolproof::tensor::Shape;

/// What slides over rows and columns.
pub(super) struct Sliding {
    /// Rows, columns.
    pub kernel: [u32; 2],
    pub stride: [Option<i32>; 2],
    /// 1 where the file says nothing.
    pub dilation: [Option<i32>; 2],
    /// The schema's `Padding`.
    pub padding: Option<i8>,
}

/// The same as the engine has it.
pub(super) struct Placed {
    pub kernel: [u16; 2],
    pub stride: [u16; 2],
    pub dilation: [u16; 2],
    pub padding: Padding,
}

impl Sliding {
    pub fn over(&self, x: &Shape) -> Result<Placed, Reason> {
        let small = |what: &str, v: u32| {
            u16::try_from(v)
                .ok()
                .filter(|&v| v > 0)
                .ok_or_else(|| format!("its {what} is {v}; 1 to 65535 are supported"))
        };
        let positive = |what: &str, v: i32| small(what, u32::try_from(v).unwrap_or(0));
        let pair = |what: &str, v: [Option<i32>; 2], default: i32| -> Result<[u16; 2], Reason> {
            Ok([
                positive(what, v[0].unwrap_or(default))?,
                positive(what, v[1].unwrap_or(default))?,
            ])
        };
        let kernel = [
            small("window", self.kernel[0])?,
            small("window", self.kernel[1])?,
        ];
        // the schema's default stride is 0, which means nothing
        let stride = pair("stride", self.stride, 0)?;
        let dilation = pair("dilation", self.dilation, 1)?;
        let along = |axis: usize| -> Result<(u16, u16), Reason> {
            let (before, after) = match self.padding.unwrap_or(0) {
                0 => Padding::same(
                    x.dim(axis + 1) as u32,
                    self.kernel[axis],
                    stride[axis].into(),
                    dilation[axis].into(),
                ),
                1 => (0, 0),
                other => return Err(format!("its padding {other} is not in the schema")),
            };
            let convert = |v: u32| {
                u16::try_from(v)
                    .map_err(|_| format!("its padding is {v}; at most 65535 are supported"))
            };
            Ok((convert(before)?, convert(after)?))
        };
        let ((top, bottom), (left, right)) = (along(0)?, along(1)?);
        Ok(Placed {
            kernel,
            stride,
            dilation,
            padding: Padding {
                top,
                left,
                bottom,
                right,
            },
        })
    }
}

impl<'a> Importer<'a> {
    /// AVERAGE_POOL_2D and MAX_POOL_2D.
    pub(super) fn pool(&mut self, step: &Step<'a>, t: usize, max: bool) -> Result<(), Reason> {
        // a mean rounds halves away from zero: which zero makes a difference
        if !max {
            self.no_uint8(step)?;
        }
        let options = step
            .table
            .options::<PoolOptions<'a>>()
            .ok_or("it has no options")?;
        let x = self.operand(step, 0)?;
        let size = |v: Option<i32>| u32::try_from(v.unwrap_or(0)).unwrap_or(0);
        let window = Sliding {
            kernel: [size(options.window_h()), size(options.window_w())],
            stride: [options.stride_h(), options.stride_w()],
            dilation: [None, None],
            padding: options.padding(),
        };
        let placed = window.over(&self.graph.tensors[x].shape)?;
        let pool = Pool2d {
            window: placed.kernel,
            stride: placed.stride,
            padding: placed.padding,
            activation: fused(options.activation())?,
        };
        let op = if max {
            Op::MaxPool2d(pool)
        } else {
            Op::AvgPool2d(pool)
        };
        self.emit(op, vec![x], t)
    }
}
