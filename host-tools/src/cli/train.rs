//! `foolproof train`: classifiers, and surrogates in `surrogate`.

pub(super) mod advgan;
mod gan;
mod surrogate;
pub(super) mod vae;

use super::Ended;
use super::args::{ClassifierArgs, TrainArgs, TrainWhat};
use super::console::{Console, to_json};
use super::model::ModelFile;
use crate::classifier::Classifier;
use crate::data::{self, Dataset, Purpose, Samples};
use crate::document::{Data, Document, Train, summary};
use crate::error::{Error, Result};
use crate::files;
use crate::graph::{Graph, Image, from_image, to_image};
use crate::networks;
use crate::preprocess::Preprocess;
use crate::train::{TrainError, classifier as trainer};
use foolproof::kernels::Kernels;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

pub(crate) fn run(args: &TrainArgs, seed: u64, console: &Console) -> Result<Ended> {
    match &args.what {
        TrainWhat::Classifier(args) => classifier(args, seed, console),
        TrainWhat::Gan(args) => gan::run(args, seed, console),
        TrainWhat::Advgan(args) => advgan::run(args, seed, console),
        TrainWhat::Vae(args) => vae::run(args, seed, console),
        TrainWhat::Surrogate(args) => surrogate::run(args, seed, console),
    }
}

fn classifier(args: &ClassifierArgs, seed: u64, console: &Console) -> Result<Ended> {
    let data = data::load(&args.data, Purpose::Learn)?;
    let test = match &args.test {
        Some(test) => Some(data::load(test, Purpose::Judge)?),
        None if data.name() == "digits:train" => Some(data::load("digits:test", Purpose::Judge)?),
        None => None,
    };
    let config = configuration(args.config.as_deref(), args.epochs)?;
    files::create_folder(&args.out)?;
    let model_path = args.out.join("model.fpi");
    let mut graph = match args.resume {
        true => resumed(&model_path)?,
        false => network(&data, seed)?,
    };
    let trained = train(&mut graph, &data, &config, seed, console)?;
    let image =
        to_image(&graph).map_err(|error| Error::new(error, data.name(), "smaller samples"))?;
    files::write(&model_path, image.bytes())?;
    let file = ModelFile::of_image(model_path.display().to_string(), image);

    let mut document = Document::new("train classifier");
    document.model = Some(file.describe()?);
    document.data = Some(Data {
        path: data.name().into(),
        n: data.len(),
    });
    document.seed = Some(seed);
    let mut train = trained.summary;
    if let Some(test) = &test {
        let accuracy = accuracy_of(file.image(), test)?;
        train.metrics.insert("test_accuracy".into(), accuracy.clean);
        document.accuracy = Some(accuracy);
    }
    document.train = Some(train);
    finish(document, &args.out, &trained.history, console)
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

/// The network of an earlier run.
fn resumed(path: &Path) -> Result<Graph> {
    let graph = from_image(&ModelFile::read(path, None)?.model()?);
    match graph.is_quantized() {
        false => Ok(graph),
        true => Err(Error::new(
            "an int8 model cannot be trained",
            path.display(),
            "the f32 model of an earlier run",
        )),
    }
}

fn configuration(config: Option<&Path>, epochs: Option<usize>) -> Result<trainer::Config> {
    let mut config = match config {
        None => trainer::Config::default(),
        Some(path) => {
            let right = "a TOML file with epochs, batch, optimizer, learning_rate, momentum, weight_decay, warmup, shift, noise";
            let refuse = |error: &dyn std::fmt::Display| Error::new(error, path.display(), right);
            let bytes = files::read(path)?;
            let text = std::str::from_utf8(&bytes).map_err(|error| refuse(&error))?;
            toml::from_str(text).map_err(|error| refuse(&error.message()))?
        }
    };
    if let Some(epochs) = epochs {
        config.epochs = epochs;
    }
    Ok(config)
}

/// The default network for data of this shape.
pub(crate) fn network(data: &Dataset, seed: u64) -> Result<Graph> {
    data.require_labels("train")?;
    let refuse = |what: &dyn std::fmt::Display| {
        Error::new(what, data.name(), "samples of at most three axes")
    };
    let shape: Vec<u32> = data
        .shape()
        .iter()
        .map(|&size| u32::try_from(size))
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| refuse(&error))?;
    let labels = (0..data.classes().max(2))
        .map(|class| class.to_string())
        .collect();
    networks::default_for(&shape, input_range(data), labels, seed).map_err(|error| refuse(&error))
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

/// What came of training.
pub(crate) struct Trained {
    pub summary: Train,
    pub history: Vec<trainer::Epoch>,
}

/// Trains `graph` in place, with a progress bar.
pub(crate) fn train(
    graph: &mut Graph,
    data: &Dataset,
    config: &trainer::Config,
    seed: u64,
    console: &Console,
) -> Result<Trained> {
    let labels = data.require_labels("train")?;
    let real = match data.samples() {
        Samples::F32(values) => values.clone(),
        Samples::U8(values) => {
            let (low, high) = graph.input_range;
            values
                .iter()
                .map(|&v| low + (high - low) * f32::from(v) / 255.0)
                .collect()
        }
        Samples::I8(_) => {
            return Err(Error::new(
                "int8 samples have no real values",
                data.name(),
                "float32 or uint8 samples",
            ));
        }
    };
    let samples = trainer::Samples {
        x: &real,
        y: labels,
    };
    let progress = console.progress("training", config.epochs as u64);
    let started = Instant::now();
    let history = trainer::train(graph, samples, config, seed, &mut |epoch| {
        progress.note(format!(
            "training: loss {:.4}, accuracy {:.1} %",
            epoch.loss,
            100.0 * epoch.accuracy
        ));
        progress.advance(1);
    })
    .map_err(|error| {
        let right = match error {
            TrainError::Config(_) => "other data or another configuration",
            _ => "a network that can be trained",
        };
        Error::new(error, data.name(), right)
    })?;
    drop(progress);
    let seconds = started.elapsed().as_secs_f64();
    let steps = history.last().map_or(0, |epoch| epoch.steps);
    let metrics: BTreeMap<String, f64> = history
        .last()
        .map(|last| {
            [
                ("loss".to_string(), last.loss),
                ("accuracy".to_string(), last.accuracy),
            ]
            .into()
        })
        .unwrap_or_default();
    let samples_per_second = (steps * config.batch as u64) as f64 / seconds.max(1e-9);
    Ok(Trained {
        summary: Train {
            steps,
            seconds,
            samples_per_second,
            metrics,
        },
        history,
    })
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
