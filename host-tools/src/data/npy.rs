//! NumPy's `.npy` format, read with every size checked and written so that NumPy loads it.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>, versions 1.0, 2.0 and 3.0. The header is
//! parsed here and not by a crate because the readers that exist multiply the shape unchecked and parse the header
//! with unbounded recursion, and a data file may come from anyone.

use super::Samples;
use crate::error::{Error, Result};
use crate::files::MAX_BYTES;

/// The first bytes of every `.npy` file.
pub const MAGIC: &[u8] = b"\x93NUMPY";

/// NumPy itself refuses longer headers (`max_header_size`).
const MAX_HEADER: usize = 10_000;
/// NumPy 2 allows 64 axes; nothing here has more than a handful.
const MAX_AXES: usize = 16;

/// An array in C order (the last axis varies fastest).
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Axes, outermost first.
    pub shape: Vec<usize>,
    /// `product(shape)` values.
    pub values: Values,
}

/// The values of an [`Array`].
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// float32, or float64 rounded to float32.
    F32(Vec<f32>),
    /// uint8 and bool.
    U8(Vec<u8>),
    /// int8.
    I8(Vec<i8>),
    /// Every wider integer type.
    I64(Vec<i64>),
}

impl Values {
    /// As samples: wide integers become float32 where that loses nothing.
    pub fn into_samples(self) -> Result<Samples> {
        Ok(match self {
            Self::F32(values) => Samples::F32(values),
            Self::U8(values) => Samples::U8(values),
            Self::I8(values) => Samples::I8(values),
            Self::I64(values) => {
                let exact = |v: &i64| v.unsigned_abs() <= 1 << 24;
                if let Some(at) = values.iter().position(|v| !exact(v)) {
                    return Err(Error::new(
                        format!("{} does not fit a 32-bit float", values[at]),
                        format!("x, value {at}"),
                        "float32, uint8 or int8 samples",
                    ));
                }
                Samples::F32(values.into_iter().map(|v| v as f32).collect())
            }
        })
    }

    /// As whole numbers; floats are refused, whatever their values.
    pub fn into_integers(self) -> Result<Vec<i64>> {
        match self {
            Self::F32(_) => Err(Error::new(
                "floating-point labels",
                "",
                "whole numbers, for example int64",
            )),
            Self::U8(values) => Ok(values.into_iter().map(i64::from).collect()),
            Self::I8(values) => Ok(values.into_iter().map(i64::from).collect()),
            Self::I64(values) => Ok(values),
        }
    }
}

/// Element types that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    F32,
    F64,
    U8,
    I8,
    I16,
    I32,
    I64,
    U16,
    U32,
    U64,
}

impl Element {
    fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }
}

struct Header {
    element: Element,
    big_endian: bool,
    fortran: bool,
    shape: Vec<usize>,
    /// Where the values start.
    start: usize,
}

/// Reads a whole `.npy` file.
pub fn parse(file: &[u8]) -> Result<Array> {
    let header = header(file)?;
    let count = checked_count(&header.shape)?;
    let needed = count
        .checked_mul(header.element.bytes())
        .filter(|&bytes| bytes as u64 <= MAX_BYTES)
        .ok_or_else(|| too_large(&header.shape))?;
    let body = &file[header.start..];
    if body.len() != needed {
        return Err(Error::new(
            format!(
                "shape {:?} needs {needed} bytes of values, the file has {}",
                header.shape,
                body.len()
            ),
            "npy header",
            "a complete file",
        ));
    }
    let mut values = decode(body, header.element, header.big_endian)?;
    if header.fortran && header.shape.len() > 1 {
        values = match values {
            Values::F32(v) => Values::F32(to_c_order(&v, &header.shape)),
            Values::U8(v) => Values::U8(to_c_order(&v, &header.shape)),
            Values::I8(v) => Values::I8(to_c_order(&v, &header.shape)),
            Values::I64(v) => Values::I64(to_c_order(&v, &header.shape)),
        };
    }
    Ok(Array {
        shape: header.shape,
        values,
    })
}

fn too_large(shape: &[usize]) -> Error {
    Error::new(
        format!("an array of shape {shape:?} is too large"),
        "npy header",
        format!("at most {} MiB of values", MAX_BYTES >> 20),
    )
}

/// The number of elements of `shape`, or an error where it overflows.
pub(super) fn checked_count(shape: &[usize]) -> Result<usize> {
    shape
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size))
        .ok_or_else(|| too_large(shape))
}

fn header(file: &[u8]) -> Result<Header> {
    let broken = |what: &str| Error::new(what, "npy header", "a file written by numpy.save");
    if !file.starts_with(MAGIC) {
        return Err(broken("not an .npy file"));
    }
    let truncated = || broken("the file ends inside its header");
    let (length, text_start) = match file.get(6).copied() {
        Some(1) => {
            let bytes = file.get(8..10).ok_or_else(truncated)?;
            (u16::from_le_bytes([bytes[0], bytes[1]]) as usize, 10)
        }
        Some(2 | 3) => {
            let bytes = file.get(8..12).ok_or_else(truncated)?;
            (
                u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize,
                12,
            )
        }
        Some(version) => {
            return Err(broken(&format!(
                "version {version} of the format is unknown"
            )));
        }
        None => return Err(truncated()),
    };
    if length > MAX_HEADER {
        return Err(broken(&format!("a header of {length} bytes")));
    }
    let start = text_start + length;
    let text = file.get(text_start..start).ok_or_else(truncated)?;
    let text = std::str::from_utf8(text).map_err(|_| broken("the header is not text"))?;
    let mut parser = Literal { rest: text };
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    let wrong = || {
        broken(&format!(
            "the header {:?} is not a dictionary of descr, fortran_order and shape",
            text.trim()
        ))
    };
    parser.take('{').ok_or_else(wrong)?;
    while parser.take('}').is_none() {
        let key = parser.string().ok_or_else(wrong)?;
        parser.take(':').ok_or_else(wrong)?;
        match key {
            "descr" => {
                descr = Some(
                    parser
                        .string()
                        .ok_or_else(|| broken("not an array of plain numbers"))?,
                )
            }
            "fortran_order" => fortran = Some(parser.boolean().ok_or_else(wrong)?),
            "shape" => {
                shape = Some(
                    parser
                        .shape()
                        .ok_or_else(|| broken("the shape is not a list of whole numbers"))?,
                )
            }
            _ => return Err(wrong()),
        }
        if parser.take(',').is_none() {
            parser.take('}').ok_or_else(wrong)?;
            break;
        }
    }
    if !parser.rest.trim().is_empty() {
        return Err(wrong());
    }
    let (Some(descr), Some(fortran), Some(shape)) = (descr, fortran, shape) else {
        return Err(wrong());
    };
    if shape.len() > MAX_AXES {
        return Err(broken(&format!("an array of {} axes", shape.len())));
    }
    let (element, big_endian) = element(descr)?;
    Ok(Header {
        element,
        big_endian,
        fortran,
        shape,
        start,
    })
}

fn element(descr: &str) -> Result<(Element, bool)> {
    let (order, kind) = match descr.as_bytes().first() {
        Some(b'<' | b'>' | b'|' | b'=') => descr.split_at(1),
        _ => ("|", descr),
    };
    let element = match kind {
        "f4" => Element::F32,
        "f8" => Element::F64,
        "u1" | "b1" => Element::U8,
        "i1" => Element::I8,
        "i2" => Element::I16,
        "i4" => Element::I32,
        "i8" => Element::I64,
        "u2" => Element::U16,
        "u4" => Element::U32,
        "u8" => Element::U64,
        _ => {
            return Err(Error::new(
                format!("element type {descr:?} is not supported"),
                "npy header",
                "float32, float64, uint8, int8 or a wider integer",
            ));
        }
    };
    Ok((element, order == ">"))
}

/// The little of Python's literals that a header needs.
struct Literal<'a> {
    rest: &'a str,
}

impl<'a> Literal<'a> {
    fn take(&mut self, expected: char) -> Option<()> {
        self.rest = self.rest.trim_start();
        self.rest = self.rest.strip_prefix(expected)?;
        Some(())
    }

    fn string(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_start();
        let quote = self
            .rest
            .chars()
            .next()
            .filter(|c| matches!(c, '\'' | '"'))?;
        let (text, rest) = self.rest[1..].split_once(quote)?;
        self.rest = rest;
        Some(text)
    }

    fn boolean(&mut self) -> Option<bool> {
        self.rest = self.rest.trim_start();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Some(value);
            }
        }
        None
    }

    fn shape(&mut self) -> Option<Vec<usize>> {
        self.take('(')?;
        let mut shape = Vec::new();
        while self.take(')').is_none() {
            self.rest = self.rest.trim_start();
            let end = self
                .rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(self.rest.len());
            // Python 2 wrote 3L for a long integer.
            let (digits, rest) = self.rest.split_at(end);
            self.rest = rest.strip_prefix('L').unwrap_or(rest);
            shape.push(digits.parse().ok()?);
            if self.take(',').is_none() {
                self.take(')')?;
                break;
            }
        }
        Some(shape)
    }
}

/// Decodes `body`, whose length is a multiple of the element's.
fn decode(body: &[u8], element: Element, big_endian: bool) -> Result<Values> {
    /// Applies `convert` to every `N` bytes, brought to little-endian order.
    fn each<const N: usize, T>(
        body: &[u8],
        big_endian: bool,
        convert: impl Fn([u8; N]) -> T,
    ) -> Vec<T> {
        body.as_chunks::<N>()
            .0
            .iter()
            .map(|&chunk| {
                let mut chunk = chunk;
                if big_endian {
                    chunk.reverse();
                }
                convert(chunk)
            })
            .collect()
    }
    Ok(match element {
        Element::U8 => Values::U8(body.to_vec()),
        Element::I8 => Values::I8(body.iter().map(|&b| b as i8).collect()),
        Element::F32 => Values::F32(each(body, big_endian, f32::from_le_bytes)),
        // Too large a float64 becomes infinite, and `Dataset::new` says where.
        Element::F64 => Values::F32(each(body, big_endian, |b| f64::from_le_bytes(b) as f32)),
        Element::I16 => Values::I64(each(body, big_endian, |b| i16::from_le_bytes(b).into())),
        Element::U16 => Values::I64(each(body, big_endian, |b| u16::from_le_bytes(b).into())),
        Element::I32 => Values::I64(each(body, big_endian, |b| i32::from_le_bytes(b).into())),
        Element::U32 => Values::I64(each(body, big_endian, |b| u32::from_le_bytes(b).into())),
        Element::I64 => Values::I64(each(body, big_endian, i64::from_le_bytes)),
        Element::U64 => {
            let wide = each(body, big_endian, u64::from_le_bytes);
            let signed: std::result::Result<Vec<i64>, _> =
                wide.into_iter().map(i64::try_from).collect();
            Values::I64(
                signed.map_err(|_| Error::new("an integer above 2^63", "", "smaller numbers"))?,
            )
        }
    })
}

/// Reorders values whose first axis varies fastest.
fn to_c_order<T: Copy>(values: &[T], shape: &[usize]) -> Vec<T> {
    let mut strides = Vec::with_capacity(shape.len());
    let mut stride = 1;
    for &size in shape {
        strides.push(stride);
        stride *= size;
    }
    let mut place = vec![0usize; shape.len()];
    let mut out = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        out.push(
            values[place
                .iter()
                .zip(&strides)
                .map(|(p, s)| p * s)
                .sum::<usize>()],
        );
        for axis in (0..shape.len()).rev() {
            place[axis] += 1;
            if place[axis] < shape[axis] {
                break;
            }
            place[axis] = 0;
        }
    }
    out
}

/// Values to write.
#[derive(Debug, Clone, Copy)]
pub enum View<'a> {
    /// float32
    F32(&'a [f32]),
    /// uint8
    U8(&'a [u8]),
    /// int8
    I8(&'a [i8]),
    /// int64
    I64(&'a [i64]),
    /// bool
    Bool(&'a [bool]),
}

impl<'a> View<'a> {
    /// The values of samples, in their own type.
    pub fn of_samples(samples: &'a Samples) -> Self {
        match samples {
            Samples::F32(values) => Self::F32(values),
            Samples::U8(values) => Self::U8(values),
            Samples::I8(values) => Self::I8(values),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::Bool(v) => v.len(),
        }
    }
}

/// The bytes of an `.npy` file (version 1.0, C order, little-endian) of `shape`.
pub fn to_bytes(shape: &[usize], values: View<'_>) -> Result<Vec<u8>> {
    if checked_count(shape)? != values.len() {
        return Err(Error::new(
            format!("{} values do not fill shape {shape:?}", values.len()),
            "array to write",
            "as many values as the shape says",
        ));
    }
    let descr = match values {
        View::F32(_) => "<f4",
        View::U8(_) => "|u1",
        View::I8(_) => "|i1",
        View::I64(_) => "<i8",
        View::Bool(_) => "|b1",
    };
    let axes: Vec<String> = shape.iter().map(|size| format!("{size},")).collect();
    let mut text = format!(
        "{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}",
        axes.join(" ")
    );
    // The values start at a multiple of 64 bytes; the header's last byte is a line feed.
    while !(10 + text.len() + 1).is_multiple_of(64) {
        text.push(' ');
    }
    text.push('\n');
    let length = u16::try_from(text.len()).map_err(|_| {
        Error::new(
            format!("{} axes", shape.len()),
            "array to write",
            "fewer axes",
        )
    })?;
    let mut out = Vec::with_capacity(10 + text.len() + values.len() * 8);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[1, 0]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    match values {
        View::F32(v) => v
            .iter()
            .for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        View::U8(v) => out.extend_from_slice(v),
        View::I8(v) => out.extend(v.iter().map(|&x| x as u8)),
        View::I64(v) => v
            .iter()
            .for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        View::Bool(v) => out.extend(v.iter().map(|&x| u8::from(x))),
    }
    Ok(out)
}

/// Writes one array as an `.npy` file.
pub fn write(path: &std::path::Path, shape: &[usize], values: View<'_>) -> Result<()> {
    crate::files::write(path, &to_bytes(shape, values)?)
}
