//! Files as the tools read and write them: read whole within a bound, written whole or not at all.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// No input may hold, once unpacked, more than this (1 GiB): a compressed file of a few kilobytes can claim
/// terabytes, and memory must stay bounded whatever is read.
pub const MAX_BYTES: u64 = 1 << 30;

/// Opens a file for reading. A missing file, a directory, a file without permission and what is no regular file (a FIFO
/// would wait for ever, a device may never end) each say so.
pub fn open(path: &Path) -> Result<File> {
    let right = "give the path of a file that can be read";
    let refuse = |error: io::Error| {
        let what = match error.kind() {
            ErrorKind::NotFound => "no such file".to_string(),
            _ => format!("cannot open the file ({error})"),
        };
        Error::new(what, path.display(), right)
    };
    // Before it is opened: opening a FIFO waits for its writer.
    let metadata = fs::metadata(path).map_err(refuse)?;
    if metadata.is_dir() {
        return Err(Error::new("this is a directory", path.display(), right));
    }
    if !metadata.is_file() {
        return Err(Error::new(
            "this is not a regular file",
            path.display(),
            "write the data to a file first and give its path",
        ));
    }
    File::open(path).map_err(refuse)
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
/// the old file or the new one, never a part of either. A file that is there keeps its permissions, a symbolic link
/// stays and its target is replaced; a character device or a FIFO is written into, not replaced.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let fail = |error: io::Error| cannot_write(&strip_path(error), path);
    let existing = fs::metadata(path).ok();
    if let Some(metadata) = &existing
        && !metadata.is_file()
    {
        let direct = !metadata.is_dir() && can_be_streamed_into(metadata);
        return match direct {
            true => stream(path, bytes).map_err(fail),
            false => Err(Error::new(
                match metadata.is_dir() {
                    true => "this is a directory",
                    false => "this is not a regular file",
                },
                path.display(),
                "give the path of a file to write",
            )),
        };
    }
    let path = &resolved(path)?;
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
    let mut file = builder.tempfile_in(folder).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    if let Some(metadata) = existing {
        file.as_file()
            .set_permissions(metadata.permissions())
            .map_err(fail)?;
    }
    file.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}

fn cannot_write(error: &io::Error, path: &Path) -> Error {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::new(
            "cannot write the file: no space is left there",
            path.display(),
            "free some space, or give a path on another disk",
        ),
        _ => Error::new(
            format!("cannot write the file ({error})"),
            path.display(),
            "give a path in a folder that exists and can be written",
        ),
    }
}

#[cfg(unix)]
fn can_be_streamed_into(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_char_device() || metadata.file_type().is_fifo()
}

#[cfg(not(unix))]
fn can_be_streamed_into(_: &fs::Metadata) -> bool {
    false
}

fn stream(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    file.write_all(bytes)?;
    file.flush()
}

/// Where a chain of symbolic links ends, whether or not there is a file.
fn resolved(path: &Path) -> Result<PathBuf> {
    let mut path = path.to_path_buf();
    // As many links as Linux follows.
    for _ in 0..40 {
        let Ok(target) = fs::read_link(&path) else {
            return Ok(path);
        };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    Err(Error::new(
        "too many symbolic links",
        path.display(),
        "give the path of a file to write",
    ))
}

/// Refuses to write a result over a file that the same command reads, or where a folder is: before the work, not after it.
pub fn refuse_overwriting<'a>(
    output: &Path,
    inputs: impl IntoIterator<Item = &'a Path>,
) -> Result<()> {
    let Ok(output_file) = fs::canonicalize(output) else {
        return Ok(());
    };
    if output_file.is_dir() {
        return Err(Error::new(
            "this is a directory",
            output.display(),
            "give the path of a file to write",
        ));
    }
    for input in inputs {
        if fs::canonicalize(input).is_ok_and(|input| input == output_file) {
            return Err(Error::new(
                format!("the output would replace the input {}", input.display()),
                output.display(),
                "give another path to write to",
            ));
        }
    }
    Ok(())
}

/// `tempfile` adds the random temporary name to its errors; the user did not choose it.
fn strip_path(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
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

    #[cfg(unix)]
    #[test]
    fn replaces_what_a_link_points_at_and_keeps_permissions() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a.bin"), folder.path().join("link"));
        fs::write(&file, b"old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("a.bin", &link).unwrap();
        write(&link, b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let dangling = folder.path().join("dangling");
        symlink("b.bin", &dangling).unwrap();
        write(&dangling, b"made").unwrap();
        assert_eq!(fs::read(folder.path().join("b.bin")).unwrap(), b"made");
        symlink("loop", folder.path().join("loop")).unwrap();
        assert!(write(&folder.path().join("loop"), b"x").is_err());
        assert!(refuse_overwriting(&link, [file.as_path()]).is_err());
        assert!(refuse_overwriting(&dangling, [file.as_path()]).is_ok());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn devices_are_written_into_and_not_read() {
        write(Path::new("/dev/null"), b"x").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        let full = write(Path::new("/dev/full"), b"x").unwrap_err().to_string();
        assert!(
            full.contains("no space") && full.contains("/dev/full"),
            "{full}"
        );
        let zero = read(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(zero.contains("not a regular file"), "{zero}");
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
