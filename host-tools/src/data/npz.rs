//! NumPy's `.npz`: a zip archive of `.npy` files, here `x` (samples) and `y` (labels).

use super::{Dataset, npy};
use crate::error::{Error, Result};
use crate::files::{self, MAX_BYTES};
use std::io::{Cursor, Write};
use std::path::Path;
use zip::result::ZipError;

type Archive<'a> = zip::ZipArchive<Cursor<&'a [u8]>>;

/// Reads `x` and, where it is there, `y`.
pub(super) fn parse(file: &[u8], name: String) -> Result<Dataset> {
    let mut archive = open(file)?;
    let x = array(&mut archive, "x")?.ok_or_else(|| {
        let names = archive.file_names().filter_map(|name| name.ok());
        let mut names: Vec<String> = names
            .map(|name| name.trim_end_matches(".npy").to_string())
            .take(8)
            .collect();
        names.sort_unstable();
        Error::new(
            format!("no array x in the archive (it holds: {})", names.join(", ")),
            "",
            "samples x [N, ...] and labels y [N], as numpy.savez(path, x=x, y=y) writes them",
        )
    })?;
    let y = array(&mut archive, "y")?;
    Dataset::from_array(x, y, name)
}

/// Reads one array of an archive by name; `None` where the archive has none of that name.
pub fn read_array(file: &[u8], name: &str) -> Result<Option<npy::Array>> {
    array(&mut open(file)?, name)
}

fn open(file: &[u8]) -> Result<Archive<'_>> {
    zip::ZipArchive::new(Cursor::new(file)).map_err(|error| {
        Error::new(
            format!("not a readable .npz archive ({error})"),
            "",
            "a complete file written by numpy.savez",
        )
    })
}

fn array(archive: &mut Archive<'_>, name: &str) -> Result<Option<npy::Array>> {
    let unreadable = |error: &dyn std::fmt::Display| {
        Error::new(
            format!("cannot unpack the array ({error})"),
            name,
            "a complete file written by numpy.savez",
        )
    };
    let entry = match archive.by_name(&format!("{name}.npy")) {
        Ok(entry) => entry,
        Err(ZipError::FileNotFound) => return Ok(None),
        Err(error) => return Err(unreadable(&error)),
    };
    // The size in the archive is a claim: the bytes are counted while they are unpacked.
    let content = files::read_bounded(entry, MAX_BYTES).map_err(|error| error.within(name))?;
    npy::parse(&content)
        .map(Some)
        .map_err(|error| error.within(name))
}

/// One array to write.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its name in the archive, without `.npy`.
    pub name: &'a str,
    /// Its axes, outermost first.
    pub shape: &'a [usize],
    /// Its values in C order.
    pub values: npy::View<'a>,
}

/// Writes a compressed `.npz` file that `numpy.load` reads.
pub fn write(path: &Path, arrays: &[Entry<'_>]) -> Result<()> {
    let fail = |error: &dyn std::fmt::Display| {
        Error::new(
            format!("cannot pack the arrays ({error})"),
            path.display(),
            "smaller arrays",
        )
    };
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    // No time stamp: the same arrays give the same bytes.
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated);
    for array in arrays {
        let bytes = npy::to_bytes(array.shape, array.values)?;
        writer
            .start_file(format!("{}.npy", array.name), options)
            .map_err(|error| fail(&error))?;
        writer.write_all(&bytes).map_err(|error| fail(&error))?;
    }
    let content = writer.finish().map_err(|error| fail(&error))?;
    files::write(path, &content.into_inner())
}
