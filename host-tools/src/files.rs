//! Files as the tools read and write them: read whole within a bound, written whole or not at all.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

/// No input may hold, once unpacked, more than this (1 GiB): a compressed file of a few kilobytes can claim
/// terabytes, and memory must stay bounded whatever is read.
pub const MAX_BYTES: u64 = 1 << 30;

/// Opens a file for reading. A missing file, a directory and a file without permission each say so.
pub fn open(path: &Path) -> Result<File> {
    let right = "give the path of a file that can be read";
    let file = File::open(path).map_err(|error| {
        let what = match error.kind() {
            ErrorKind::NotFound => "no such file".to_string(),
            _ => format!("cannot open the file ({error})"),
        };
        Error::new(what, path.display(), right)
    })?;
    match file.metadata() {
        Ok(metadata) if metadata.is_dir() => {
            Err(Error::new("this is a directory", path.display(), right))
        }
        Ok(_) => Ok(file),
        Err(error) => Err(Error::new(
            format!("cannot open the file ({error})"),
            path.display(),
            right,
        )),
    }
}

/// Reads a whole file of at most [`MAX_BYTES`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    read_bounded(open(path)?, MAX_BYTES).map_err(|error| error.within(path.display()))
}

/// Reads to the end of `reader`, at most `limit` bytes: more is an error, found before more is kept.
pub fn read_bounded(reader: impl Read, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| Error::new(format!("cannot read ({error})"), "", "an intact file"))?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(
            format!("holds more than {} MiB", limit >> 20),
            "",
            "split the data into smaller files",
        ));
    }
    Ok(bytes)
}

/// Writes a file in one step: into a temporary file beside it, which then takes its place. An interrupted run leaves
/// the old file or the new one, never a part of either.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let right = "give a path in a folder that exists and can be written";
    let fail = |error: std::io::Error| {
        Error::new(
            format!("cannot write the file ({error})"),
            path.display(),
            right,
        )
    };
    if path.is_dir() {
        return Err(Error::new(
            "this is a directory",
            path.display(),
            "give the path of a file to write",
        ));
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".foolproof-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut file = builder
        .tempfile_in(folder)
        .map_err(|error| fail(strip_path(error)))?;
    file.write_all(bytes).map_err(fail)?;
    file.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}

/// `tempfile` adds the random temporary name to its errors; the user did not choose it.
fn strip_path(error: std::io::Error) -> std::io::Error {
    match error.raw_os_error() {
        Some(code) => std::io::Error::from_raw_os_error(code),
        None => error.kind().into(),
    }
}

/// Makes sure that `path` is a folder that files can be written into.
pub fn create_folder(path: &Path) -> Result<()> {
    let right = "give a folder that can be created and written";
    fs::create_dir_all(path).map_err(|error| {
        Error::new(
            format!("cannot create the folder ({error})"),
            path.display(),
            right,
        )
    })?;
    tempfile::tempfile_in(path).map(drop).map_err(|error| {
        Error::new(
            format!("cannot write into the folder ({})", strip_path(error)),
            path.display(),
            right,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_whole_files_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(
            write(folder.path(), b"x")
                .unwrap_err()
                .to_string()
                .contains("directory")
        );
        assert!(write(&folder.path().join("no/such.bin"), b"x").is_err());
    }

    #[test]
    fn reads_no_more_than_the_limit() {
        assert_eq!(read_bounded(&b"abc"[..], 3).unwrap(), b"abc");
        assert!(
            read_bounded(std::io::repeat(0), 1 << 20)
                .unwrap_err()
                .to_string()
                .contains("more than 1 MiB")
        );
    }
}
