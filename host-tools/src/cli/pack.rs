//! `foolproof pack`: a model as an image to flash, or back as a TensorFlow Lite model.

use super::Ended;
use super::args::PackArgs;
use super::console::{Console, warning_lines};
use super::model::ModelFile;
use crate::document::Document;
use crate::error::{Error, Result};
use crate::files;
use crate::graph::{Cut, from_image};
use foolproof::memory::Mode;

pub(crate) fn run(args: &PackArgs, console: &Console) -> Result<Ended> {
    files::refuse_overwriting(&args.out, [args.model.as_path()])?;
    let file = ModelFile::read(&args.model, args.runtime.numerics)?;
    let assumptions = file.assumptions();
    let graph = from_image(&file.model()?);
    if args.runtime.numerics.is_some() && ModelFile::is_tflite(&args.out) {
        return Err(Error::new(
            "a TensorFlow Lite model does not say whose arithmetic it wants",
            "--numerics",
            "a name that ends in .fpi, or no --numerics",
        ));
    }
    let packed = match args.memory.max_buffer {
        None => ModelFile::write(&args.out, &graph)?,
        Some(_) if ModelFile::is_tflite(&args.out) => {
            return Err(Error::new(
                "a TensorFlow Lite model holds no memory plan",
                "--max-buffer",
                "a name that ends in .fpi, or no --max-buffer",
            ));
        }
        Some(_) => ModelFile::write_image(&args.out, file.within(args.memory)?.image().clone())?,
    };
    let model = packed.model()?;
    let mut document = Document::new("pack");
    document.model = Some(packed.describe()?);
    document.outputs = vec![args.out.display().to_string()];
    document.warnings.extend(assumptions);
    console.finish(&document, || {
        let cut = Cut::of(&model).map_or(String::new(), |cut| format!(" ({cut})"));
        format!(
            "{}: {} bytes; buffer: {} bytes to infer, {} to attack{cut}{}",
            packed.path(),
            packed.file_bytes(),
            model.required_buffer(Mode::Infer),
            model.required_buffer(Mode::Attack),
            warning_lines(&document)
        )
    })?;
    Ok(Ended::Well)
}
