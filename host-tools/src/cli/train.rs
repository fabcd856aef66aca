//! `foolproof train`: classifiers, and surrogates in `surrogate`.

pub(super) mod advgan;
mod classifier;
mod gan;
mod surrogate;
pub(super) mod vae;

use super::Ended;
use super::args::{TrainArgs, TrainWhat};
use super::console::{Console, to_json};
use crate::classifier::Classifier;
use crate::data::{Dataset, Samples};
use crate::document::{Document, summary};
use crate::error::{Error, Result};
use crate::files;
use crate::graph::{Graph, Image};
use crate::networks;
use crate::preprocess::Preprocess;
use crate::train::TrainError;
use crate::train::{classifier as trainer, run};
use foolproof::kernels::Kernels;
use std::path::Path;

pub(crate) fn run(args: &TrainArgs, seed: u64, console: &Console) -> Result<Ended> {
    match &args.what {
        TrainWhat::Classifier(args) => classifier::run(args, seed, console),
        TrainWhat::Gan(args) => gan::run(args, seed, console),
        TrainWhat::Advgan(args) => advgan::run(args, seed, console),
        TrainWhat::Vae(args) => vae::run(args, seed, console),
        TrainWhat::Surrogate(args) => surrogate::run(args, seed, console),
    }
}

/// Writes what a training says about itself beside its model, and ends the command.
fn finish(
    mut document: Document,
    out: &Path,
    history: &[trainer::Epoch],
    console: &Console,
) -> Result<Ended> {
    let epochs = history;
    let [model, json, history] =
        ["model.fpi", "train.json", "history.json"].map(|name| out.join(name));
    document.outputs = [&model, &json, &history]
        .map(|path| path.display().to_string())
        .to_vec();
    let epochs = serde_json::to_string_pretty(epochs)
        .map_err(|error| Error::new(error, history.display(), "finite figures"))?;
    files::write(&history, epochs.as_bytes())?;
    files::write(&json, to_json(&document)?.as_bytes())?;
    console.finish(&document, || describe(&document))?;
    Ok(Ended::Well)
}

/// The settings of a training by themselves, with what a file and the command line say instead.
fn configuration(
    defaults: &trainer::Config,
    file: Option<&Path>,
    epochs: Option<usize>,
) -> Result<trainer::Config> {
    let mut config = run::configure(defaults, file)?;
    if let Some(epochs) = epochs {
        config.epochs = epochs;
    }
    config.check().map_err(|error| out_of_range(error, file))?;
    Ok(config)
}

/// A network for data of this shape.
fn network(data: &Dataset, which: trainer::Network, seed: u64) -> Result<Graph> {
    data.require_labels("train")?;
    let (make, right): (fn(&[u32], _, _, _) -> _, _) = match which {
        trainer::Network::Default => (networks::default_for, "samples of at most three axes"),
        trainer::Network::WongMnist => (networks::wong_mnist, "images"),
    };
    let refuse = |what: &dyn std::fmt::Display| Error::new(what, data.name(), right);
    let shape: Vec<u32> = data
        .shape()
        .iter()
        .map(|&size| u32::try_from(size))
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| refuse(&error))?;
    let labels = (0..data.classes().max(2))
        .map(|class| class.to_string())
        .collect();
    make(&shape, input_range(data), labels, seed).map_err(|error| refuse(&error))
}

/// Bytes stand for 0 to 1; real values for themselves, where 0 to 1 is taken as the range of an image even if no pixel reaches it.
fn input_range(data: &Dataset) -> (f32, f32) {
    let Samples::F32(values) = data.samples() else {
        return (0.0, 1.0);
    };
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    match (low, high) {
        (low, high) if low >= 0.0 && high <= 1.0 => (0.0, 1.0),
        (low, high) if low < high => (low, high),
        (low, _) => (low, low + 1.0),
    }
}

/// The samples' real values: bytes stand for the range.
fn real(data: &Dataset, (low, high): (f32, f32)) -> Result<Vec<f32>> {
    match data.samples() {
        Samples::F32(values) => Ok(values.clone()),
        Samples::U8(values) => Ok(values
            .iter()
            .map(|&v| low + (high - low) * f32::from(v) / 255.0)
            .collect()),
        Samples::I8(_) => Err(Error::new(
            "int8 samples have no real values",
            data.name(),
            "float32 or uint8 samples",
        )),
    }
}

/// Accuracy of a model image on `data`.
pub(crate) fn accuracy_of(image: &Image, data: &Dataset) -> Result<crate::document::Accuracy> {
    let refuse = |error: &dyn std::fmt::Display| Error::new(error, data.name(), "");
    let classifier = Classifier::new(
        image.model().map_err(|error| refuse(&error))?,
        Kernels::detect(),
    );
    let labels = data.require_labels("test")?;
    data.check_labels(classifier.model().classes())?;
    let inputs = Preprocess::default().inputs(data, &classifier.form())?;
    let answers = classifier
        .answers(&inputs)
        .map_err(|error| refuse(&error))?;
    let predicted: Vec<usize> = answers.iter().map(|answer| answer.label).collect();
    Ok(summary::accuracy(&predicted, labels))
}

/// A setting out of its range: in the file, or on the command line.
fn out_of_range(error: TrainError, file: Option<&Path>) -> Error {
    let place = file.map_or(String::new(), |path| path.display().to_string());
    Error::new(error, place, "")
}

/// Where a resumed run goes on.
fn resumed(step: u64) -> String {
    match step {
        0 => "no checkpoint yet: training from the beginning".to_string(),
        step => format!("resumed after step {step}"),
    }
}

fn describe(document: &Document) -> String {
    let mut lines = Vec::new();
    if let Some(train) = &document.train {
        lines.push(format!(
            "trained {} steps in {:.1} s ({:.0} samples a second)",
            train.steps, train.seconds, train.samples_per_second
        ));
        let metrics: Vec<String> = train
            .metrics
            .iter()
            .map(|(name, value)| format!("{name} {value:.4}"))
            .collect();
        lines.push(metrics.join(", "));
    }
    lines.extend(
        document
            .outputs
            .iter()
            .map(|path| format!("written: {path}")),
    );
    lines.join("\n")
}
