//! Windows: kernels, strides, dilations and padding from the file's numbers to the engine's, and the pools.

use super::node::Node;
use super::value::Value;
use super::{Importer, Reason};
use crate::graph::{Quant, TensorId};
use foolproof::ops::{Activation, ConvTranspose2d, Op, Pad, Padding, Pool2d};
use foolproof::tensor::MAX_RANK;

/// What slides over rows and columns. A window over a sequence has one column.
pub(super) struct Sliding {
    kernel: [u32; 2],
    stride: [u32; 2],
    dilation: [u32; 2],
    /// Before and after the rows, before and after the columns.
    pads: [[u32; 2]; 2],
    auto: Auto,
    ceil: bool,
}

/// Who says how much padding there is.
enum Auto {
    File,
    None,
    Upper,
    Lower,
}

/// The same as the engine has it.
pub(super) struct Placed {
    pub kernel: [u16; 2],
    pub stride: [u16; 2],
    pub dilation: [u16; 2],
    pub padding: Padding,
    /// Whether the last windows reach beyond the padding (`ceil_mode`).
    pub beyond: bool,
}

fn small(what: &str, v: i64) -> Result<u32, Reason> {
    let fits =
        u16::try_from(v).map_err(|_| format!("its {what} is {v}; at most 65535 is supported"));
    fits.map(u32::from)
}

impl Sliding {
    /// The attributes of an operator with this kernel over `axes` axes (1 or 2).
    pub fn read(node: &Node<'_>, kernel: [u32; 2], axes: usize) -> Result<Sliding, Reason> {
        let list = |name: &str, count: usize, default: i64| -> Result<Vec<u32>, Reason> {
            let values = match node.ints(name) {
                Some(values) if values.len() == count => values.to_vec(),
                Some([]) | None => vec![default; count],
                Some(values) => {
                    return Err(format!("its {name} are {values:?}; {count} are needed"));
                }
            };
            values.into_iter().map(|v| small(name, v)).collect()
        };
        let pair = |name: &str| -> Result<[u32; 2], Reason> {
            let values = list(name, axes, 1)?;
            match values.contains(&0) {
                true => Err(format!("its {name} are {values:?}; at least 1 is right")),
                false => Ok([values[0], values.get(1).copied().unwrap_or(1)]),
            }
        };
        let pads = list("pads", 2 * axes, 0)?;
        let along = |axis: usize| match axis < axes {
            true => [pads[axis], pads[axis + axes]],
            false => [0, 0],
        };
        let auto = match node.text("auto_pad") {
            None | Some(b"" | b"NOTSET") => Auto::File,
            Some(b"VALID") => Auto::None,
            Some(b"SAME_UPPER") => Auto::Upper,
            Some(b"SAME_LOWER") => Auto::Lower,
            Some(_) => return Err("its auto_pad is not known".into()),
        };
        if kernel.iter().any(|&k| k == 0 || k > u32::from(u16::MAX)) {
            return Err(format!(
                "its window is {kernel:?}; 1 to 65535 are supported"
            ));
        }
        Ok(Sliding {
            kernel,
            stride: pair("strides")?,
            dilation: pair("dilations")?,
            pads: [along(0), along(1)],
            auto,
            ceil: node.int("ceil_mode", 0) != 0,
        })
    }

    /// Over an image of so many rows and columns.
    pub fn over(&self, image: [u32; 2], pool: bool) -> Result<Placed, Reason> {
        let mut beyond = false;
        let mut along = |i: usize| -> Result<[u16; 2], Reason> {
            let same = || Padding::same(image[i], self.kernel[i], self.stride[i], self.dilation[i]);
            let [before, mut after] = match self.auto {
                Auto::File => self.pads[i],
                Auto::None => [0, 0],
                Auto::Upper => same().into(),
                Auto::Lower => {
                    let (less, more) = same();
                    [more, less]
                }
            };
            if pool && self.ceil {
                let reach = (u64::from(self.kernel[i]) - 1) * u64::from(self.dilation[i]) + 1;
                let padded = u64::from(image[i]) + u64::from(before) + u64::from(after);
                let stride = u64::from(self.stride[i]);
                let room = padded
                    .checked_sub(reach)
                    .ok_or("its window is larger than its input")?;
                let last = room.div_ceil(stride) * stride;
                // a window that starts behind the image is left out
                if last > room && last < u64::from(image[i]) + u64::from(before) {
                    after += (last - room) as u32;
                    beyond = true;
                }
            }
            let narrow = |v: u32| {
                u16::try_from(v)
                    .map_err(|_| format!("its padding is {v}; at most 65535 is supported"))
            };
            Ok([narrow(before)?, narrow(after)?])
        };
        let ([top, bottom], [left, right]) = (along(0)?, along(1)?);
        let narrow = |pair: [u32; 2]| pair.map(|v| v as u16);
        Ok(Placed {
            kernel: narrow(self.kernel),
            stride: narrow(self.stride),
            dilation: narrow(self.dilation),
            padding: Padding {
                top,
                left,
                bottom,
                right,
            },
            beyond,
        })
    }

    /// Of a transposed convolution over an image of so many rows and columns.
    pub fn transposed(&self, node: &Node<'_>, image: [u32; 2]) -> Result<ConvTranspose2d, Reason> {
        let pair = |name: &str| -> Result<Option<[i64; 2]>, Reason> {
            match node.ints(name) {
                None | Some([]) => Ok(None),
                Some([rows]) => Ok(Some([*rows, if name == "output_shape" { 1 } else { 0 }])),
                Some([rows, columns]) => Ok(Some([*rows, *columns])),
                Some(values) => Err(format!("its {name} is {values:?}")),
            }
        };
        let extra = pair("output_padding")?.unwrap_or([0, 0]);
        let wanted = pair("output_shape")?;
        let mut pads = self.pads.map(|p| p.map(i64::from));
        let mut more = extra;
        for i in 0..2 {
            let reach = (i64::from(self.kernel[i]) - 1) * i64::from(self.dilation[i]) + 1;
            let all = i64::from(self.stride[i]) * (i64::from(image[i]) - 1) + reach + extra[i];
            let out = match (&wanted, &self.auto) {
                (Some(wanted), _) => wanted[i],
                (None, Auto::Upper | Auto::Lower) => {
                    i64::from(image[i]) * i64::from(self.stride[i])
                }
                (None, Auto::None) => {
                    pads[i] = [0, 0];
                    continue;
                }
                (None, Auto::File) => continue,
            };
            let total = all - out;
            // what is missing is added at the end
            more[i] += (-total).max(0);
            let total = total.max(0);
            let (less, rest) = (total / 2, total - total / 2);
            // an odd one falls on the end for SAME_UPPER only
            let begins_small = matches!(self.auto, Auto::Upper);
            pads[i] = if begins_small {
                [less, rest]
            } else {
                [rest, less]
            };
        }
        let narrow = |v: i64| {
            u16::try_from(v).map_err(|_| format!("its padding is {v}; 0 to 65535 are supported"))
        };
        Ok(ConvTranspose2d {
            stride: self.stride.map(|v| v as u16),
            dilation: self.dilation.map(|v| v as u16),
            padding: Padding {
                top: narrow(pads[0][0])?,
                bottom: narrow(pads[0][1])?,
                left: narrow(pads[1][0])?,
                right: narrow(pads[1][1])?,
            },
            extra: [narrow(more[0])?, narrow(more[1])?],
            activation: Activation::None,
        })
    }
}

impl<'a> Importer<'a> {
    /// An activation `[N, C, H, W]` or `[N, C, L]` as `[N, H, W, C]` or `[N, L, 1, C]`, and its channels.
    pub(super) fn image(&mut self, x: &Value) -> Result<(TensorId, u32), Reason> {
        match x.dims[..] {
            [_, c, _, _] => Ok((self.arranged(x, &[0, 2, 3, 1])?, c)),
            [n, c, length] => {
                let sequence = self.arranged(x, &[0, 2, 1])?;
                Ok((self.shaped(sequence, &[n, length, 1, c])?, c))
            }
            _ => Err(format!(
                "its input has {} axes; images and sequences, 4 and 3, are supported",
                x.dims.len()
            )),
        }
    }

    /// What an operator on images of [`Importer::image`] made, with so many axes in the file.
    pub(super) fn of_image(&self, id: TensorId, rank: usize) -> Value {
        let dims = self.graph.tensors[id].shape;
        let [n, h, w, c] = [0, 1, 2, 3].map(|i| dims.dim(i) as u32);
        match rank {
            3 => Value::new(id, vec![n, c, h], &[0, 2, 1]),
            _ => Value::new(id, vec![n, c, h, w], &[0, 2, 3, 1]),
        }
    }

    /// MaxPool and AveragePool.
    pub(super) fn pool(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let (x, target) = match node.operator {
            "MaxPool" => (self.any(node, 0)?, None),
            _ => (self.value(node, 0)?, self.target(node)),
        };
        self.pool_of(node, &x, target)
    }

    pub(super) fn pool_of(
        &mut self,
        node: &Node<'a>,
        x: &Value,
        target: Option<Quant>,
    ) -> Result<Value, Reason> {
        let rank = x.dims.len();
        let (mut image, _) = self.image(x)?;
        let size = node.ints("kernel_shape").ok_or("it has no kernel_shape")?;
        if size.len() != rank - 2 {
            return Err(format!(
                "its kernel_shape is {size:?} for {} axes",
                rank - 2
            ));
        }
        let mut kernel = [1, 1];
        for (k, &v) in kernel.iter_mut().zip(size) {
            *k = small("kernel_shape", v)?;
        }
        let window = Sliding::read(node, kernel, rank - 2)?;
        let dims = self.graph.tensors[image].shape;
        let mut placed = window.over([dims.dim(1) as u32, dims.dim(2) as u32], true)?;
        if placed.dilation != [1, 1] {
            return Err(format!(
                "its dilations are {:?}; 1 is supported",
                placed.dilation
            ));
        }
        let max = node.operator == "MaxPool";
        let p = placed.padding;
        if !max && node.int("count_include_pad", 0) != 0 && p != Padding::VALID {
            if placed.beyond {
                return Err(
                    "it counts its padding, and with ceil_mode has windows that reach beyond it"
                        .into(),
                );
            }
            let mut pad = Pad {
                before: [0; MAX_RANK],
                after: [0; MAX_RANK],
            };
            (pad.before[1], pad.before[2]) = (p.top, p.left);
            (pad.after[1], pad.after[2]) = (p.bottom, p.right);
            if !self.is_int8(image) || target.is_none() {
                image = self.real_id(image)?;
                image = self.emit(Op::Pad(pad), vec![image], format!("{}.padded", node.name()))?;
                placed.padding = Padding::VALID;
            }
        }
        let pool = Pool2d {
            window: placed.kernel,
            stride: placed.stride,
            padding: placed.padding,
            activation: Activation::None,
        };
        let id = match max {
            true => self.emit(Op::MaxPool2d(pool), vec![image], node.name())?,
            false => {
                let everywhere = node.int("count_include_pad", 0) != 0;
                self.average(image, pool, everywhere, target, node.name())?
            }
        };
        Ok(self.of_image(id, rank))
    }

    pub(super) fn global_pool(&mut self, node: &Node<'a>) -> Result<Value, Reason> {
        let (x, target) = match node.operator {
            "GlobalMaxPool" => (self.any(node, 0)?, None),
            _ => (self.value(node, 0)?, self.target(node)),
        };
        self.global_pool_of(node, &x, target)
    }

    pub(super) fn global_pool_of(
        &mut self,
        node: &Node<'a>,
        x: &Value,
        target: Option<Quant>,
    ) -> Result<Value, Reason> {
        let (image, _) = self.image(x)?;
        let dims = self.graph.tensors[image].shape;
        let pool = whole(dims.dim(1), dims.dim(2))?;
        let id = match node.operator {
            "GlobalMaxPool" => self.emit(Op::MaxPool2d(pool), vec![image], node.name())?,
            _ => self.average(image, pool, false, target, node.name())?,
        };
        Ok(self.of_image(id, x.dims.len()))
    }
}

/// One window over all of an image.
pub(super) fn whole(rows: usize, columns: usize) -> Result<Pool2d, Reason> {
    let side = |v: usize| small("window", v as i64).map(|v| v as u16);
    Ok(Pool2d {
        window: [side(rows)?, side(columns)?],
        stride: [1, 1],
        padding: Padding::VALID,
        activation: Activation::None,
    })
}
