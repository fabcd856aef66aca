//! `foolproof infer`: what a model answers.

use super::Ended;
use super::args::InferArgs;
use super::console::Console;
use super::model::ModelFile;
use crate::classifier::Answer;
use crate::data::{self, Purpose, npy};
use crate::document::{Data, Document, summary};
use crate::error::{Error, Result};
use crate::files;
use foolproof::model::Model;
use foolproof::tensor::DType;
use std::path::{Path, PathBuf};

pub(crate) fn run(args: &InferArgs, seed: u64, console: &Console) -> Result<Ended> {
    let read = data::files_of(&args.inputs);
    let read = read.iter().chain([&args.model.model]).map(PathBuf::as_path);
    files::refuse_overwriting(&args.outputs, read)?;
    let file = ModelFile::read_for(&args.model.model, &args.model.input, args.model.numerics)?;
    let data = data::load(&args.inputs, Purpose::Judge)?;
    let (classifier, inputs) = file.with_any_data(&args.model.input, args.model.kernels, &data)?;
    let answers = classifier
        .answers(&inputs)
        .map_err(|error| Error::new(error, file.path(), ""))?;
    write_outputs(&args.outputs, classifier.model(), &answers)?;
    let mut document = Document::new("infer");
    document.model = Some(file.describe()?);
    document.data = Some(Data {
        path: data.name().into(),
        n: data.len(),
    });
    document.seed = Some(seed);
    document.outputs = vec![args.outputs.display().to_string()];
    document.accuracy = data.labels().map(|labels| {
        let predicted: Vec<usize> = answers.iter().map(|answer| answer.label).collect();
        summary::accuracy(&predicted, labels)
    });
    console.finish(&document, || {
        let mut text = format!(
            "{} outputs written to {}",
            answers.len(),
            args.outputs.display()
        );
        if let Some(accuracy) = document.accuracy {
            text.push_str(&format!("; accuracy {:.2} %", 100.0 * accuracy.clean));
        }
        text
    })?;
    Ok(Ended::Well)
}

/// The outputs as one array [N, ...] in the model's own output type.
fn write_outputs(path: &Path, model: &Model<'_>, answers: &[Answer]) -> Result<()> {
    let tables = model.tables();
    let output = model.output_shape();
    let mut shape = vec![answers.len()];
    shape.extend((1..output.rank()).map(|i| output.dim(i)));
    let bytes = answers.iter().flat_map(|answer| &answer.output);
    match tables.dtype(tables.output()) {
        DType::I8 => {
            let values: Vec<i8> = bytes.map(|&byte| byte as i8).collect();
            npy::write(path, &shape, npy::View::I8(&values))
        }
        _ => {
            let bytes: Vec<u8> = bytes.copied().collect();
            let values: Vec<f32> = bytes
                .as_chunks()
                .0
                .iter()
                .map(|&b| f32::from_le_bytes(b))
                .collect();
            npy::write(path, &shape, npy::View::F32(&values))
        }
    }
}
