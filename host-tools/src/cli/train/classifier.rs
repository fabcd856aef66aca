//! `foolproof train classifier`.

use super::super::Ended;
use super::super::args::{ClassifierArgs, ClassifierPreset};
use super::super::console::{Console, Progress, to_json, warning_lines};
use super::super::model::ModelFile;
use super::{accuracy_of, configuration, network, real};
use crate::data::{self, Purpose};
use crate::document::{Data, Document, Train};
use crate::error::{Error, Result};
use crate::files;
use crate::graph::{Graph, from_image, to_image};
use crate::quantize::{self, QuantizeError, quantize, quantize_within};
use crate::report::learning::{self, Chart, Learning};
use crate::train::classifier::{self as trainer, Config, Epoch, Outcome, Stand, Watch};
use crate::train::{TrainError, run};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

pub(super) fn run(args: &ClassifierArgs, seed: u64, console: &Console) -> Result<Ended> {
    let data = data::load(&args.data, Purpose::Learn)?;
    let test = match &args.test {
        Some(test) => Some(data::load(test, Purpose::Judge)?),
        None if data.name() == "digits:train" => Some(data::load("digits:test", Purpose::Judge)?),
        None => None,
    };
    let defaults = match args.preset {
        ClassifierPreset::Standard => Config::default(),
        ClassifierPreset::FastMnist => Config::fast_mnist(),
    };
    let config = configuration(&defaults, args.config.as_deref(), args.epochs)?;
    let mut graph = match &args.start {
        Some(path) => started(path)?,
        None => network(&data, config.network, seed)?,
    };
    let x = real(&data, graph.input_range)?;
    let y = data.require_labels("train")?;
    if let Some(test) = &test {
        // refused before the work, not after it
        let image = to_image(&graph).map_err(|error| Error::new(error, data.name(), ""))?;
        accuracy_of(&image, &test.clone().take(1)?)?;
        test.check_labels(graph.tensors[graph.logits()].shape.len())?;
    }
    files::create_folder(&args.out)?;
    let settings = run::Settings {
        out: &args.out,
        trainer: "classifier",
        config: run::to_toml(&config)?,
        seed,
        data: fingerprint(&x, y, &graph),
        resume: args.resume,
        every: Duration::from_secs_f64(args.checkpoint),
    };
    let (mut run, checkpoint) = run::begin(&settings)?;
    let first = checkpoint.as_ref().map_or(0, |c| c.step);
    if args.resume {
        console.say(super::resumed(first));
    }
    if config.method != trainer::Method::Standard && config.held_out == 0 {
        console.say("warning: held_out is 0, so nobody would see catastrophic overfitting");
    }
    let mut watcher = Watcher {
        progress: console.progress("training", trainer::steps(data.len(), &config)),
        console,
    };
    watcher.progress.advance(first);
    let started = Instant::now();
    let samples = trainer::Samples { x: &x, y };
    let outcome = trainer::train_run(
        &mut graph,
        samples,
        (&config, seed),
        Some((&mut run, checkpoint)),
        &mut watcher,
    )
    .map_err(|error| match error {
        TrainError::Run(error) => error,
        TrainError::Config(_) => {
            Error::new(error, data.name(), "other data or another configuration")
        }
        _ => Error::new(error, data.name(), "a network that can be trained"),
    })?;
    let seconds = started.elapsed().as_secs_f64();
    drop(watcher);

    let mut document = Document::new("train classifier");
    document.data = Some(Data {
        path: data.name().into(),
        n: data.len(),
    });
    document.seed = Some(seed);
    document.warnings.extend(outcome.warnings.iter().cloned());
    let mut outputs = vec!["model.fpi"];
    let file = ModelFile::write(&args.out.join("model.fpi"), &graph)?;
    document.model = Some(file.describe()?);
    let mut metrics = figures(&outcome);
    if let Some(test) = &test {
        let accuracy = accuracy_of(file.image(), test)?;
        metrics.insert("test_accuracy".into(), accuracy.clean);
        document.accuracy = Some(accuracy);
    }
    match int8(&graph, &outcome, (&config, seed), samples)? {
        Ok(small) => {
            let file = ModelFile::write(&args.out.join("model_int8.fpi"), &small)?;
            outputs.push("model_int8.fpi");
            match ModelFile::write(&args.out.join("model_int8.tflite"), &small) {
                Ok(_) => outputs.push("model_int8.tflite"),
                Err(error) => document.warnings.push(format!("no .tflite: {error}")),
            }
            if let Some(test) = &test {
                let accuracy = accuracy_of(file.image(), test)?;
                metrics.insert("test_accuracy_int8".into(), accuracy.clean);
            }
        }
        Err(error) => document.warnings.push(format!("no int8 model: {error}")),
    }
    let last = outcome.history.last().map_or(0, |epoch| epoch.steps);
    let ran = last.saturating_sub(first);
    document.train = Some(Train {
        steps: last,
        seconds,
        samples_per_second: (ran * config.batch as u64) as f64 / seconds.max(1e-9),
        metrics,
    });
    let history = serde_json::to_string_pretty(&outcome.history)
        .map_err(|error| Error::new(error, "history.json", "finite figures"))?;
    files::write(&args.out.join("history.json"), history.as_bytes())?;
    let page = learning::page(&page(&document, &run, &settings.config, args));
    files::write(&args.out.join("report.html"), page.as_bytes())?;
    outputs.extend(["report.html", run::LOG, "train.json", "history.json"]);
    document.outputs = outputs
        .iter()
        .map(|name| args.out.join(name).display().to_string())
        .collect();
    files::write(&args.out.join("train.json"), to_json(&document)?.as_bytes())?;
    console.finish(&document, || {
        super::describe(&document) + &warning_lines(&document)
    })?;
    Ok(Ended::Well)
}

/// The int8 model: on the grids that training was on, or on those of calibration inputs.
fn int8(
    graph: &Graph,
    outcome: &Outcome,
    (config, seed): (&Config, u64),
    samples: trainer::Samples<'_>,
) -> Result<std::result::Result<Graph, QuantizeError>> {
    let options = quantize::Options::default();
    if let Some(ranges) = &outcome.ranges {
        return Ok(quantize_within(graph, ranges, &options));
    }
    let rows: Vec<usize> = (0..samples.y.len().min(trainer::calibration::ROWS)).collect();
    let how = (config, outcome.perturbation.as_slice());
    let inputs = trainer::calibration(graph, samples, &rows, how, seed)
        .map_err(|error| Error::new(error, "calibration", "a network that runs"))?;
    Ok(quantize(graph, &inputs, &options))
}

/// The network of a model.
fn started(path: &Path) -> Result<Graph> {
    let graph = from_image(&ModelFile::read(path, None)?.model()?);
    match graph.is_quantized() {
        false => Ok(graph),
        true => Err(Error::new(
            "an int8 model cannot be trained",
            path.display(),
            "an f32 model",
        )),
    }
}

/// What tells these samples and this start from others.
fn fingerprint(x: &[f32], y: &[usize], start: &Graph) -> String {
    let numbers =
        |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let mut parts = vec![
        numbers(x),
        y.iter().flat_map(|&y| (y as u64).to_le_bytes()).collect(),
    ];
    parts.extend((0..start.tensors.len()).map(|t| numbers(start.f32(t))));
    run::digest(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// The figures of the epoch whose parameters are given back.
fn figures(outcome: &Outcome) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::new();
    let given = outcome.history.iter().find(|e| e.epoch == outcome.epoch);
    if let Some(epoch) = given {
        metrics.insert("epoch".into(), epoch.epoch as f64);
        metrics.insert("loss".into(), epoch.loss);
        metrics.insert("accuracy".into(), epoch.accuracy);
        if let Some(held_out) = &epoch.held_out {
            metrics.insert("held_out_clean".into(), held_out.clean);
            if let Some(attacked) = held_out.attacked {
                metrics.insert("held_out_fgsm".into(), attacked.fgsm);
                metrics.insert("held_out_pgd".into(), attacked.pgd);
            }
            if let Some(universal) = held_out.universal {
                metrics.insert("held_out_universal".into(), universal);
            }
        }
    }
    metrics
}

/// Shows progress, and says what must be heard.
struct Watcher<'a> {
    progress: Progress,
    console: &'a Console,
}

impl Watch for Watcher<'_> {
    fn step(&mut self, stand: &Stand) {
        self.progress.note(format!(
            "epoch {}: loss {:.4}, accuracy {:.1} %",
            stand.epoch,
            stand.loss,
            100.0 * stand.accuracy
        ));
        self.progress.advance(1);
    }

    fn epoch(&mut self, epoch: &Epoch) {
        let Some(held_out) = &epoch.held_out else {
            return;
        };
        let attacked = held_out.attacked.map_or(String::new(), |attacked| {
            format!(
                ", FGSM {:.1} %, PGD {:.1} %",
                100.0 * attacked.fgsm,
                100.0 * attacked.pgd
            )
        });
        let universal = held_out.universal.map_or(String::new(), |right| {
            format!(", with the perturbation {:.1} %", 100.0 * right)
        });
        self.console.say(format!(
            "epoch {}: loss {:.4}, held-out samples right: {:.1} %{attacked}{universal}",
            epoch.epoch,
            epoch.loss,
            100.0 * held_out.clean
        ));
    }

    fn warn(&mut self, text: String) {
        self.console.say(format!("warning: {text}"));
    }
}

fn page(document: &Document, run: &run::Run, config: &str, args: &ClassifierArgs) -> Learning {
    let mut page = Learning {
        title: format!("A classifier on {}", learning::without_folders(&args.data)),
        config: config.into(),
        command: format!("foolproof train classifier --data {}", args.data),
        ..Learning::default()
    };
    if let Some(train) = &document.train {
        let rate = format!("{:.0} samples a second", train.samples_per_second);
        page.tiles
            .push(["Training".into(), format!("{:.1} s", train.seconds), rate]);
        let shown = [
            ("test_accuracy", "Test accuracy", "float"),
            ("test_accuracy_int8", "Test accuracy", "int8"),
            ("held_out_fgsm", "After FGSM", "held-out training samples"),
            ("held_out_pgd", "After PGD", "held-out training samples"),
            (
                "held_out_universal",
                "With the perturbation",
                "held-out training samples",
            ),
        ];
        for (key, name, note) in shown {
            if let Some(value) = train.metrics.get(key) {
                let value = format!("{:.2} %", 100.0 * value);
                page.tiles.push([name.into(), value, note.into()]);
            }
        }
    }
    let curves: [(&str, &str, &[&str]); 2] = [
        ("Loss", "Mean over each epoch.", &["loss"]),
        (
            "Accuracy",
            "On the training batches as they were seen, and on held-out training samples. FGSM far above PGD is catastrophic overfitting.",
            &[
                "accuracy",
                "held_out_clean",
                "held_out_fgsm",
                "held_out_pgd",
                "held_out_universal",
            ],
        ),
    ];
    page.charts.extend(
        curves
            .iter()
            .filter_map(|(h, l, names)| Chart::of_log(h, l, run.records(), names)),
    );
    page
}
