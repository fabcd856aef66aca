//! Shapes, element types and quantization: what a tensor is, apart from its bytes.

use zerocopy::FromBytes;

/// The largest number of dimensions a tensor may have.
pub const MAX_RANK: usize = 6;

/// A tensor's dimensions, batch outermost, channels last (`[N, H, W, C]` for images).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Shape {
    dims: [u32; MAX_RANK],
    // as long as a dimension: a shape is copied in few pieces
    rank: u32,
}

impl Shape {
    /// No dimensions, one element.
    pub const SCALAR: Shape = Shape {
        dims: [1; MAX_RANK],
        rank: 0,
    };

    /// A shape with the given dimensions; `None` where there are more than [`MAX_RANK`] of them, one is
    /// zero, or their product does not fit in 31 bits.
    pub fn new(dims: &[u32]) -> Option<Shape> {
        if dims.len() > MAX_RANK {
            return None;
        }
        let mut all = [1; MAX_RANK];
        all[..dims.len()].copy_from_slice(dims);
        let mut len: u32 = 1;
        for &d in dims {
            len = len.checked_mul(d)?;
        }
        if len == 0 || len > i32::MAX as u32 {
            return None;
        }
        Some(Shape {
            dims: all,
            rank: dims.len() as u32,
        })
    }

    /// A shape that has been through [`Shape::new`] before: the first `rank` of the dimensions, the others 1.
    pub(crate) fn checked(dims: [u32; MAX_RANK], rank: u8) -> Shape {
        let rank = u32::from(rank);
        Shape { dims, rank }
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[u32] {
        &self.dims[..self.rank as usize]
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.rank as usize
    }

    /// Dimension `i`, or 1 where the shape has fewer.
    pub fn dim(&self, i: usize) -> usize {
        self.dims.get(i).map_or(1, |&d| d as usize)
    }

    /// The last dimension (channels), 1 for a scalar.
    pub fn channels(&self) -> usize {
        self.dims().last().map_or(1, |&d| d as usize)
    }

    /// Number of elements.
    #[cfg_attr(any(target_arch = "arm", target_arch = "riscv32"), inline(never))]
    pub fn len(&self) -> usize {
        // those behind the last are 1
        self.dims.iter().map(|&d| d as usize).product()
    }

    /// Never true: a shape has at least one element.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The same shape for `batch` samples: the outermost dimension is multiplied.
    /// The caller has checked that the product fits.
    pub(crate) fn with_batch(mut self, batch: usize) -> Shape {
        if self.rank > 0 {
            self.dims[0] *= batch as u32;
        }
        self
    }
}

/// Element type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum DType {
    /// IEEE 754 single precision.
    F32 = 0,
    /// 8-bit signed, quantized: real = scale * (q - zero_point).
    I8 = 1,
    /// 32-bit signed: biases, multipliers, shifts.
    I32 = 2,
}

impl DType {
    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::I8 => 1,
        }
    }

    /// The type with this code in a model image.
    pub const fn from_code(code: u8) -> Option<DType> {
        match code {
            0 => Some(DType::F32),
            1 => Some(DType::I8),
            2 => Some(DType::I32),
            _ => None,
        }
    }
}

/// How integers stand for real numbers: `real = scale * (q - zero_point)`, with a scale per channel for
/// weights. Not quantized: scale 1, zero point 0.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Quant<'a> {
    /// Real units per step (LSB), positive and finite.
    pub scale: f32,
    /// The integer that stands for real 0, in -128..=127 for int8.
    pub zero_point: i32,
    /// One scale per output channel (weights of convolutions and dense layers), or empty.
    pub channel_scales: &'a [f32],
}

impl Quant<'_> {
    /// Not quantized.
    pub const NONE: Quant<'static> = Quant {
        scale: 1.0,
        zero_point: 0,
        channel_scales: &[],
    };

    /// The scale of output channel `c`.
    pub fn scale_of(&self, c: usize) -> f32 {
        self.channel_scales.get(c).copied().unwrap_or(self.scale)
    }
}

/// Elements to read. `Absent`: the operator was told that it does not need them.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// Not available here.
    Absent,
    /// Single precision.
    F32(&'a [f32]),
    /// int8.
    I8(&'a [i8]),
    /// int32.
    I32(&'a [i32]),
}

/// One tensor as an operator sees it.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// Element type (also where `data` is absent).
    pub dtype: DType,
    /// Dimensions, batch included.
    pub shape: Shape,
    /// Scale and zero point.
    pub quant: Quant<'a>,
    /// The elements.
    pub data: Data<'a>,
}

impl<'a> Operand<'a> {
    /// The elements as f32; empty where they are of another type or absent.
    pub fn f32(&self) -> &'a [f32] {
        match self.data {
            Data::F32(x) => x,
            _ => &[],
        }
    }

    /// The elements as int8; empty where they are of another type or absent.
    pub fn i8(&self) -> &'a [i8] {
        match self.data {
            Data::I8(x) => x,
            _ => &[],
        }
    }

    /// The elements as int32; empty where they are of another type or absent.
    pub fn i32(&self) -> &'a [i32] {
        match self.data {
            Data::I32(x) => x,
            _ => &[],
        }
    }
}

/// Elements to write.
#[derive(Debug)]
pub enum DataMut<'a> {
    /// Single precision.
    F32(&'a mut [f32]),
    /// int8.
    I8(&'a mut [i8]),
}

/// What an operator keeps from one run to the next, to read and to write.
#[derive(Debug)]
pub enum StateMut<'a> {
    /// Single precision.
    F32(&'a mut [f32]),
    /// int8.
    I8(&'a mut [i8]),
    /// int32: what is int16 in other runtimes, too.
    I32(&'a mut [i32]),
}

/// Bytes as elements; `Absent` where length or alignment do not fit (not for anything that was validated).
pub(crate) fn typed(dtype: DType, bytes: &[u8]) -> Data<'_> {
    let data = match dtype {
        DType::F32 => <[f32]>::ref_from_bytes(bytes).map(Data::F32).ok(),
        DType::I8 => <[i8]>::ref_from_bytes(bytes).map(Data::I8).ok(),
        DType::I32 => <[i32]>::ref_from_bytes(bytes).map(Data::I32).ok(),
    };
    data.unwrap_or(Data::Absent)
}

/// The same for writing.
pub(crate) fn typed_mut(dtype: DType, bytes: &mut [u8]) -> Option<DataMut<'_>> {
    match dtype {
        DType::F32 => <[f32]>::mut_from_bytes(bytes).map(DataMut::F32).ok(),
        DType::I8 => <[i8]>::mut_from_bytes(bytes).map(DataMut::I8).ok(),
        DType::I32 => None,
    }
}

/// The same for a state.
pub(crate) fn typed_state(dtype: DType, bytes: &mut [u8]) -> Option<StateMut<'_>> {
    match dtype {
        DType::F32 => <[f32]>::mut_from_bytes(bytes).map(StateMut::F32).ok(),
        DType::I8 => <[i8]>::mut_from_bytes(bytes).map(StateMut::I8).ok(),
        DType::I32 => <[i32]>::mut_from_bytes(bytes).map(StateMut::I32).ok(),
    }
}
