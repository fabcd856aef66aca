//! Model files for the programs that measure whole models.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use foolproof::model::Model;
use foolproof::model::format::ALIGN;

use crate::firmware::folder;
use crate::tool::{cargo, root, run, step};

/// A model image, in a file and in memory.
pub struct Image {
    /// What the model is called: its file's name without what follows the dot.
    pub name: String,
    /// The image's file.
    pub path: PathBuf,
    bytes: Aligned,
}

/// Bytes that begin where images and sessions' buffers must.
pub struct Aligned {
    room: Vec<u8>,
    range: Range<usize>,
}

impl Aligned {
    /// Zeros.
    pub fn new(len: usize) -> Aligned {
        let room = vec![0; len + ALIGN];
        let start = room.as_ptr().align_offset(ALIGN);
        Aligned {
            room,
            range: start..start + len,
        }
    }

    /// To write to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.range.clone()]
    }
}

impl Image {
    /// Reads `.fpi`; packs anything else first, with the host tools.
    pub fn open(path: &Path) -> Result<Image> {
        let stem = path.file_stem().context("a model is a file")?;
        let name = stem.to_string_lossy().into_owned();
        ensure!(path.is_file(), "{} is not there", path.display());
        let path = match path.extension().is_some_and(|end| end == "fpi") {
            true => std::path::absolute(path)?,
            false => pack(path, &name)?,
        };
        let file = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let mut bytes = Aligned::new(file.len());
        bytes.bytes_mut().copy_from_slice(&file);
        let image = Image { name, path, bytes };
        image.model()?;
        Ok(image)
    }

    /// The bytes, where a model may begin.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes.room[self.bytes.range.clone()]
    }

    /// The checked model.
    pub fn model(&self) -> Result<Model<'_>> {
        Model::from_bytes(self.bytes()).with_context(|| self.path.display().to_string())
    }
}

fn pack(model: &Path, name: &str) -> Result<PathBuf> {
    fs::create_dir_all(folder())?;
    let image = folder().join(format!("{name}.fpi"));
    step(format!("packing {}", model.display()));
    let model = std::path::absolute(model)?;
    let mut pack = cargo();
    pack.current_dir(root())
        // the profile of the tests: a CI run compiles the host's program once
        .args(["run", "--quiet", "--locked"])
        .args(["--package", "foolproof-host", "--bin", "foolproof", "--"]);
    run(pack.arg("pack").arg(&model).arg("--out").arg(&image))?;
    Ok(image)
}
