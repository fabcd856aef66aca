//! `foolproof quantize`: an f32 model as an int8 model.

use super::Ended;
use super::args::QuantizeArgs;
use super::console::{Console, warning_lines};
use super::model::ModelFile;
use crate::classifier::Inputs;
use crate::data::{self, Purpose};
use crate::document::{Data, Document};
use crate::error::{Error, Result};
use crate::files;
use crate::graph::from_image;
use crate::quantize::{Options, quantize};
use foolproof::kernels::Kernels;
use foolproof::memory::Mode;
use std::path::PathBuf;

pub(crate) fn run(args: &QuantizeArgs, console: &Console) -> Result<Ended> {
    let read = data::files_of(&args.calibrate);
    let read = read.iter().chain([&args.model]).map(PathBuf::as_path);
    files::refuse_overwriting(&args.out, read)?;
    let file = ModelFile::read_for(&args.model, &args.input, None)?;
    let data =
        data::load(&args.calibrate, Purpose::Learn)?.take(args.limit.unwrap_or(usize::MAX))?;
    let refuse = |error: &dyn std::fmt::Display| {
        Error::new(
            error,
            file.path(),
            "an f32 model that foolproof can quantize",
        )
    };
    let (_, inputs) = file.with_data(&args.input, Kernels::detect(), &data)?;
    let graph = from_image(&file.model()?);
    let calibration = match &inputs {
        Inputs::F32(values) => values.as_slice(),
        // An int8 model: quantize says so.
        Inputs::I8(_) => &[],
    };
    let quantized =
        quantize(&graph, calibration, &Options::default()).map_err(|error| refuse(&error))?;
    let written = ModelFile::write(&args.out, &quantized)?;
    let mut document = Document::new("quantize");
    document.model = Some(written.describe()?);
    document.data = Some(Data {
        path: data.name().into(),
        n: data.len(),
    });
    document.outputs = vec![args.out.display().to_string()];
    document.warnings.extend(file.assumptions());
    let model = written.model()?;
    console.finish(&document, || {
        format!(
            "{}: {} bytes (the f32 model has {}), calibrated on {} samples; buffer: {} bytes to infer, {} to attack{}",
            written.path(),
            written.file_bytes(),
            file.file_bytes(),
            data.len(),
            model.required_buffer(Mode::Infer),
            model.required_buffer(Mode::Attack),
            warning_lines(&document)
        )
    })?;
    Ok(Ended::Well)
}
