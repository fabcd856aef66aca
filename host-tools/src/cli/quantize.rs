//! `foolproof quantize`: an f32 model as an int8 model.

use super::Ended;
use super::args::QuantizeArgs;
use super::console::Console;
use super::model::ModelFile;
use crate::classifier::Inputs;
use crate::data::{self, Purpose};
use crate::document::{Data, Document};
use crate::error::{Error, Result};
use crate::files;
use crate::graph::{from_image, to_image};
use crate::quantize::{Options, quantize};
use foolproof::memory::Mode;

pub(crate) fn run(args: &QuantizeArgs, console: &Console) -> Result<Ended> {
    if args
        .out
        .extension()
        .is_some_and(|extension| extension == "tflite")
    {
        return Err(Error::new(
            "this version does not write TensorFlow Lite models",
            args.out.display(),
            "a name that ends in .fpi: the model is written as an image",
        ));
    }
    let file = ModelFile::read(&args.model.model)?;
    let data =
        data::load(&args.calibrate, Purpose::Learn)?.take(args.limit.unwrap_or(usize::MAX))?;
    let refuse = |error: &dyn std::fmt::Display| {
        Error::new(
            error,
            file.path(),
            "an f32 model that foolproof can quantize",
        )
    };
    let (_, inputs) = file.with_data(&args.model.input, &data)?;
    let graph = from_image(&file.model()?);
    let calibration = match &inputs {
        Inputs::F32(values) => values.as_slice(),
        // An int8 model: quantize says so.
        Inputs::I8(_) => &[],
    };
    let quantized =
        quantize(&graph, calibration, &Options::default()).map_err(|error| refuse(&error))?;
    let image = to_image(&quantized).map_err(|error| refuse(&error))?;
    files::write(&args.out, image.bytes())?;
    let written = ModelFile::of_image(args.out.display().to_string(), image);
    let mut document = Document::new("quantize");
    document.model = Some(written.describe()?);
    document.data = Some(Data {
        path: data.name().into(),
        n: data.len(),
    });
    document.outputs = vec![args.out.display().to_string()];
    let model = written.model()?;
    console.finish(&document, || {
        format!(
            "{}: {} bytes (the f32 model has {}), calibrated on {} samples; buffer: {} bytes to infer, {} to attack",
            written.path(),
            written.image().bytes().len(),
            file.image().bytes().len(),
            data.len(),
            model.required_buffer(Mode::Infer),
            model.required_buffer(Mode::Attack)
        )
    })?;
    Ok(Ended::Well)
}
