//! The idx format of MNIST and its relatives, gzipped or not: big-endian sizes, then values.
//!
//! Format: "The idx file format", <http://yann.lecun.com/exdb/mnist/>: two zero bytes, an element type, the number of axes, the size
//! of each axis as a 32-bit integer, values in C order.

use super::{Dataset, npy, with_name};
use crate::error::{Error, Result};
use crate::files::{self, MAX_BYTES};
use std::path::{Path, PathBuf};

/// Unpacks a gzipped file; anything else is returned as it is.
pub(super) fn inflate(content: Vec<u8>) -> Result<Vec<u8>> {
    if !content.starts_with(&[0x1f, 0x8b]) {
        return Ok(content);
    }
    files::read_bounded(
        flate2::read::MultiGzDecoder::new(content.as_slice()),
        MAX_BYTES,
    )
    .map_err(|error| error.within("gzip"))
}

/// Whether the first bytes are those of an idx file.
pub(super) fn looks_like(content: &[u8]) -> bool {
    matches!(
        content,
        [0, 0, 0x08 | 0x09 | 0x0b | 0x0c | 0x0d | 0x0e, 1..=8, ..]
    )
}

/// Reads an idx file's bytes.
pub(super) fn parse(content: &[u8]) -> Result<npy::Array> {
    let broken = |what: String| Error::new(what, "idx header", "a complete idx file");
    if !looks_like(content) {
        return Err(broken("not an idx file".into()));
    }
    let axes = content[3] as usize;
    let start = 4 + 4 * axes;
    let sizes = content
        .get(4..start)
        .ok_or_else(|| broken("the file ends inside its header".into()))?;
    let shape: Vec<usize> = sizes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&b| u32::from_be_bytes(b) as usize)
        .collect();
    let count = npy::checked_count(&shape).map_err(|error| broken(error.what().into()))?;
    let body = &content[start..];
    let element = match content[2] {
        0x08 | 0x09 => 1,
        0x0b => 2,
        0x0c | 0x0d => 4,
        _ => 8,
    };
    if count.checked_mul(element) != Some(body.len()) {
        return Err(broken(format!(
            "shape {shape:?} of {element}-byte values does not match the {} bytes that follow",
            body.len()
        )));
    }
    let values = match content[2] {
        0x08 => npy::Values::U8(body.to_vec()),
        0x09 => npy::Values::I8(body.iter().map(|&b| b as i8).collect()),
        0x0b => npy::Values::I64(
            body.as_chunks()
                .0
                .iter()
                .map(|&b| i16::from_be_bytes(b).into())
                .collect(),
        ),
        0x0c => npy::Values::I64(
            body.as_chunks()
                .0
                .iter()
                .map(|&b| i32::from_be_bytes(b).into())
                .collect(),
        ),
        0x0d => npy::Values::F32(
            body.as_chunks()
                .0
                .iter()
                .map(|&b| f32::from_be_bytes(b))
                .collect(),
        ),
        _ => npy::Values::F32(
            body.as_chunks()
                .0
                .iter()
                .map(|&b| f64::from_be_bytes(b) as f32)
                .collect(),
        ),
    };
    Ok(npy::Array { shape, values })
}

/// Reads an idx file, gzipped or not.
pub(super) fn parse_file(path: &Path) -> Result<npy::Array> {
    inflate(files::read(path)?)
        .and_then(|content| parse(&content))
        .map_err(|error| error.within(path.display()))
}

/// `IMAGES,LABELS`, both idx files.
pub(super) fn load_pair(images: &Path, labels: &Path) -> Result<Dataset> {
    let name = images.display().to_string();
    let x = parse_file(images)?;
    let y = parse_file(labels)?;
    Dataset::from_array(x, Some(y), name)
        .map_err(|error| error.within(format!("{},{}", images.display(), labels.display())))
}

/// The label file that belongs to `*-images-idx3-ubyte*`, where it is there: gzipped or not, as MNIST names them.
pub(super) fn labels_of(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?;
    let (before, after) = name.split_once("images")?;
    let after = after.replacen("idx3", "idx1", 1);
    let plain = format!("{before}labels{}", after.trim_end_matches(".gz"));
    [plain.clone(), format!("{plain}.gz")]
        .into_iter()
        .map(|name| with_name(images, &name))
        .find(|path| path.is_file())
}
