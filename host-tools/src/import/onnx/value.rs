//! What a name of the file stands for: an activation with its layout, or a constant.

use super::Reason;
use super::proto;
use crate::graph::TensorId;
use std::borrow::Cow;
use std::rc::Rc;

/// An activation. The file's axes are logical; the engine's tensor has the same elements in an order of its own.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Value {
    /// The tensor in the graph. Only the order of its elements counts here, not its shape.
    pub id: TensorId,
    /// Dimensions as the file sees them, the batch (1) included.
    pub dims: Vec<u32>,
    /// The order of the elements.
    pub layout: Layout,
}

/// How the elements of an activation lie in memory.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Layout {
    /// The axes that are longer than 1, outermost first.
    Axes(Vec<usize>),
    /// The elements, in the file's order, are those of an array with dimensions `view`, all longer than 1; in memory the axes of
    /// that array lie in this order, outermost first. A reshape of an activation whose axes were moved gives this.
    Scattered { view: Vec<u32>, order: Vec<usize> },
}

/// The axes that are longer than 1.
pub(super) fn long_axes(dims: &[u32]) -> Vec<usize> {
    (0..dims.len()).filter(|&i| dims[i] != 1).collect()
}

fn long_dims(dims: &[u32]) -> Vec<u32> {
    dims.iter().copied().filter(|&d| d != 1).collect()
}

impl Value {
    /// Elements in memory in the order of `axes` (all of them, or at least the long ones).
    pub fn new(id: TensorId, dims: Vec<u32>, axes: &[usize]) -> Value {
        let long = |&a: &usize| dims.get(a).is_some_and(|&d| d != 1);
        let axes = axes.iter().copied().filter(long).collect();
        Value {
            id,
            dims,
            layout: Layout::Axes(axes),
        }
    }

    /// Elements in memory in the file's order.
    pub fn plain(id: TensorId, dims: Vec<u32>) -> Value {
        let axes = long_axes(&dims);
        Value::new(id, dims, &axes)
    }

    pub fn len(&self) -> usize {
        self.dims.iter().map(|&d| d as usize).product()
    }

    pub fn is_plain(&self) -> bool {
        match &self.layout {
            Layout::Axes(axes) => axes.is_sorted(),
            Layout::Scattered { .. } => false,
        }
    }

    /// The same with the elements as an array that has its axes: `(dimensions, order in memory)`.
    pub fn view(&self) -> (Vec<u32>, Vec<usize>) {
        match &self.layout {
            Layout::Axes(axes) => (self.dims.clone(), axes.clone()),
            Layout::Scattered { view, order } => (view.clone(), order.clone()),
        }
    }

    /// The same elements with other dimensions (as many elements; the caller has checked).
    pub fn reshaped(&self, dims: Vec<u32>) -> Value {
        let long = long_axes(&dims);
        if self.is_plain() {
            return Value::plain(self.id, dims);
        }
        let (view, order) = match &self.layout {
            Layout::Axes(axes) => {
                let before = long_axes(&self.dims);
                let rank = |axis: &usize| before.iter().position(|b| b == axis).unwrap_or(0);
                (long_dims(&self.dims), axes.iter().map(rank).collect())
            }
            Layout::Scattered { view, order } => (view.clone(), order.clone()),
        };
        if view == long_dims(&dims) {
            let axes: Vec<usize> = order.iter().map(|&o| long[o]).collect();
            return Value::new(self.id, dims, &axes);
        }
        Value {
            id: self.id,
            dims,
            layout: Layout::Scattered { view, order },
        }
    }

    /// For each element in memory, its number in the file's order.
    pub fn order(&self) -> Vec<usize> {
        let (view, order) = self.view();
        walk(&view, &order)
    }
}

/// The elements of an array with dimensions `dims`, visited with its axes nested in this order: the number of each.
pub(super) fn walk(dims: &[u32], order: &[usize]) -> Vec<usize> {
    let step = |axis: usize| -> usize { dims[axis + 1..].iter().map(|&d| d as usize).product() };
    let mut all = vec![0];
    for &axis in order {
        let step = step(axis);
        all = all
            .iter()
            .flat_map(|&at| (0..dims[axis] as usize).map(move |i| at + i * step))
            .collect();
    }
    all
}

/// A constant of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Const {
    pub dims: Vec<u32>,
    pub data: Elements,
    /// Where its whole numbers stand for real ones.
    pub grid: Option<Grid>,
}

/// Its elements, in the file's order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Elements {
    F32(Vec<f32>),
    I64(Vec<i64>),
    I8(Vec<i8>),
    U8(Vec<u8>),
}

/// The whole number q stands for `scale (q - zero_point)`. One scale and zero point for all elements, or one for each index along
/// an axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Grid {
    pub scales: Vec<f32>,
    /// As many as scales.
    pub zero_points: Vec<i64>,
    /// Of several scales.
    pub axis: usize,
}

impl Grid {
    /// Which scale belongs to element `i` of an array with these dimensions.
    pub fn index(&self, dims: &[u32], i: usize) -> usize {
        match self.scales.len() {
            0 | 1 => 0,
            n => {
                let behind = dims.get(self.axis + 1..).unwrap_or(&[]);
                let inner: usize = behind.iter().map(|&d| d as usize).product();
                i / inner.max(1) % n
            }
        }
    }
}

impl Const {
    pub fn new(dims: Vec<u32>, data: Elements) -> Const {
        Const {
            dims,
            data,
            grid: None,
        }
    }

    pub fn integers(values: Vec<i64>) -> Const {
        Const::new(vec![values.len() as u32], Elements::I64(values))
    }

    /// Its elements as real numbers.
    pub fn f32(&self) -> Result<Cow<'_, [f32]>, Reason> {
        match (&self.data, &self.grid) {
            (Elements::F32(v), _) => Ok(Cow::Borrowed(v)),
            (_, Some(grid)) => {
                let real = |i: usize| {
                    let k = grid.index(&self.dims, i);
                    (self.whole(i) - grid.zero_points[k]) as f32 * grid.scales[k]
                };
                Ok(Cow::Owned((0..self.len()).map(real).collect()))
            }
            _ => Err("a constant of it is of whole numbers; float is supported".into()),
        }
    }

    /// Element `i` of a constant of whole numbers; 0 of another.
    pub fn whole(&self, i: usize) -> i64 {
        match &self.data {
            Elements::F32(_) => 0,
            Elements::I64(v) => v.get(i).copied().unwrap_or(0),
            Elements::I8(v) => v.get(i).copied().unwrap_or(0).into(),
            Elements::U8(v) => v.get(i).copied().unwrap_or(0).into(),
        }
    }

    /// The same with real numbers as its elements, where it stands for them.
    pub fn real(self: &Rc<Const>) -> Result<Rc<Const>, Reason> {
        match &self.grid {
            None => Ok(self.clone()),
            Some(_) => Ok(Rc::new(Const::new(
                self.dims.clone(),
                Elements::F32(self.f32()?.into_owned()),
            ))),
        }
    }

    pub fn i64(&self) -> Result<&[i64], Reason> {
        match &self.data {
            Elements::I64(v) => Ok(v),
            _ => Err("a constant of it is not int32 or int64 where whole numbers belong".into()),
        }
    }

    pub fn len(&self) -> usize {
        match &self.data {
            Elements::F32(v) => v.len(),
            Elements::I64(v) => v.len(),
            Elements::I8(v) => v.len(),
            Elements::U8(v) => v.len(),
        }
    }

    /// The only element.
    pub fn scalar(&self) -> Option<f32> {
        match self.len() {
            1 => self.f32().ok()?.first().copied(),
            _ => None,
        }
    }

    /// Reads a tensor of the file.
    pub fn read(tensor: &proto::Tensor) -> Result<Const, Reason> {
        if tensor.data_location.unwrap_or(0) != 0 {
            return Err(
                "a constant of it lies in another file; only constants in the model file are read"
                    .into(),
            );
        }
        let mut dims = Vec::with_capacity(tensor.dims.len().min(16));
        let mut len = 1usize;
        for &d in &tensor.dims {
            let d =
                u32::try_from(d).map_err(|_| format!("a constant of it has a dimension {d}"))?;
            len = len
                .checked_mul(d as usize)
                .filter(|&len| len <= i32::MAX as usize)
                .ok_or("a constant of it has too many elements")?;
            dims.push(d);
        }
        if len == 0 && dims.len() != 1 {
            return Err("a constant of it has no elements".into());
        }
        let raw = tensor.raw_data.as_deref();
        let data = match tensor.data_type.unwrap_or(0) {
            1 => Elements::F32(match raw {
                Some(raw) => words::<4>(raw).map(f32::from_le_bytes).collect(),
                None => tensor.float_data.clone(),
            }),
            11 => Elements::F32(match raw {
                Some(raw) => words::<8>(raw)
                    .map(|b| f64::from_le_bytes(b) as f32)
                    .collect(),
                None => tensor.double_data.iter().map(|&v| v as f32).collect(),
            }),
            6 => Elements::I64(match raw {
                Some(raw) => words::<4>(raw)
                    .map(|b| i32::from_le_bytes(b).into())
                    .collect(),
                None => tensor.int32_data.iter().map(|&v| v.into()).collect(),
            }),
            7 => Elements::I64(match raw {
                Some(raw) => words::<8>(raw).map(i64::from_le_bytes).collect(),
                None => tensor.int64_data.clone(),
            }),
            2 => Elements::U8(match raw {
                Some(raw) => raw.to_vec(),
                None => tensor.int32_data.iter().map(|&v| v as u8).collect(),
            }),
            3 => Elements::I8(match raw {
                Some(raw) => raw.iter().map(|&b| b as i8).collect(),
                None => tensor.int32_data.iter().map(|&v| v as i8).collect(),
            }),
            9 => Elements::I64(match raw {
                Some(raw) => raw.iter().map(|&b| b.into()).collect(),
                None => tensor.int32_data.iter().map(|&v| v.into()).collect(),
            }),
            other => {
                return Err(format!(
                    "a constant of it is {}; float, double, int8, uint8, int32 and int64 are supported",
                    type_name(other)
                ));
            }
        };
        let read = Const::new(dims, data);
        match read.len() == len {
            true => Ok(read),
            false => Err(format!(
                "a constant of it has {} elements where its dimensions make {len}",
                read.len()
            )),
        }
    }
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.chunks(N).filter_map(|chunk| chunk.try_into().ok())
}

/// The name of an element type of the file.
pub(super) fn type_name(code: i32) -> String {
    match code {
        1 => "float".into(),
        2 => "uint8".into(),
        3 => "int8".into(),
        4 => "uint16".into(),
        5 => "int16".into(),
        6 => "int32".into(),
        7 => "int64".into(),
        8 => "string".into(),
        9 => "bool".into(),
        10 => "float16".into(),
        11 => "double".into(),
        16 => "bfloat16".into(),
        other => format!("of type {other}"),
    }
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Slot<'a> {
    /// Computed at run time.
    Value(Value),
    /// A constant that was read or folded.
    Const(Rc<Const>),
    /// A constant of the file that was not read yet.
    Stored(&'a proto::Tensor),
    /// The output of an operator that cannot be imported.
    Broken,
}
