//! `foolproof pack`: a model as an image to flash.

use super::Ended;
use super::args::PackArgs;
use super::console::Console;
use super::model::ModelFile;
use crate::document::Document;
use crate::error::{Error, Result};
use crate::files;
use crate::graph::{from_image, to_image};
use foolproof::memory::Mode;

pub(crate) fn run(args: &PackArgs, console: &Console) -> Result<Ended> {
    let file = ModelFile::read(&args.model)?;
    let image = to_image(&from_image(&file.model()?))
        .map_err(|error| Error::new(error, file.path(), "a smaller model"))?;
    files::write(&args.out, image.bytes())?;
    let packed = ModelFile::of_image(args.out.display().to_string(), image);
    let model = packed.model()?;
    let mut document = Document::new("pack");
    document.model = Some(packed.describe()?);
    document.outputs = vec![args.out.display().to_string()];
    console.finish(&document, || {
        format!(
            "{}: {} bytes; buffer: {} bytes to infer, {} to attack",
            packed.path(),
            packed.image().bytes().len(),
            model.required_buffer(Mode::Infer),
            model.required_buffer(Mode::Attack)
        )
    })?;
    Ok(Ended::Well)
}
