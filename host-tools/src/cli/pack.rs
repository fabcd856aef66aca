//! `foolproof pack`: a model as an image to flash, or back as a TensorFlow Lite model.

use super::Ended;
use super::args::PackArgs;
use super::console::Console;
use super::model::ModelFile;
use crate::document::Document;
use crate::error::Result;
use crate::files;
use crate::graph::from_image;
use foolproof::memory::Mode;

pub(crate) fn run(args: &PackArgs, console: &Console) -> Result<Ended> {
    files::refuse_overwriting(&args.out, [args.model.as_path()])?;
    let file = ModelFile::read(&args.model)?;
    let packed = ModelFile::write(&args.out, &from_image(&file.model()?))?;
    let model = packed.model()?;
    let mut document = Document::new("pack");
    document.model = Some(packed.describe()?);
    document.outputs = vec![args.out.display().to_string()];
    console.finish(&document, || {
        format!(
            "{}: {} bytes; buffer: {} bytes to infer, {} to attack",
            packed.path(),
            packed.file_bytes(),
            model.required_buffer(Mode::Infer),
            model.required_buffer(Mode::Attack)
        )
    })?;
    Ok(Ended::Well)
}
