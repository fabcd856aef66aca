//! `foolproof train advgan`.

use super::super::Ended;
use super::super::console::{Console, to_json};
use super::super::model::ModelFile;
use crate::attack::success::Verdict;
use crate::classifier::Classifier;
use crate::data::{self, Purpose};
use crate::document::{Data, Document, Train};
use crate::error::{Error, Result};
use crate::files;
use crate::graph::to_image;
use crate::report::learning::{self, Chart, Learning};
use crate::train::advgan::{self, Config, Task};
use crate::train::{TrainError, gan, pictures, run};
use clap::Args;
use foolproof::kernels::Kernels;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Inputs shown in the report.
const SHOWN: usize = 30;

#[derive(Debug, Args)]
pub(crate) struct AdvGanArgs {
    /// The classifier to fool, float or int8, told by its content
    #[arg(long, value_name = "MODEL")]
    pub target: PathBuf,
    /// Samples to learn from: as elsewhere (plain digits means digits:train)
    #[arg(long, value_name = "D")]
    pub data: String,
    /// Radius of the linf ball, real units of the target's input
    #[arg(long, value_name = "E", value_parser = epsilon)]
    pub eps: Option<f64>,
    /// The class that every input shall be taken for [default: any but its own]
    #[arg(long, value_name = "C")]
    pub class: Option<u16>,
    /// Folder for generator.fpi, gallery.png, log.csv, report.html and the checkpoint
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Networks, losses, learning rate and so on, as TOML; DIR/config.toml of any run holds all keys
    #[arg(long, value_name = "F.toml")]
    pub config: Option<PathBuf>,
    /// Passes over the data, instead of the configuration's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub epochs: Option<u32>,
    /// Samples to judge by [default: digits:test for the digits, otherwise the training samples]
    #[arg(long, value_name = "D")]
    pub test: Option<String>,
    /// Use only the first N samples of each
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// Seconds between checkpoints
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..))]
    pub checkpoint: u32,
    /// Go on from DIR's checkpoint, to the same bytes as without the interruption
    #[arg(long)]
    pub resume: bool,
}

pub(in crate::cli) fn epsilon(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 => Ok(value),
        _ => Err("a number above 0 would be right".into()),
    }
}

pub(super) fn run(args: &AdvGanArgs, seed: u64, console: &Console) -> Result<Ended> {
    let refuse = |error: TrainError| match error {
        TrainError::Run(error) => error,
        error => Error::new(error, &args.data, ""),
    };
    let file = ModelFile::read(&args.target, None)?;
    let limit = args.limit.map_or(usize::MAX, |n| n as usize);
    let data = data::load(&args.data, Purpose::Learn)?.take(limit)?;
    let test = match (&args.test, data.name()) {
        (Some(test), _) => data::load(test, Purpose::Judge)?.take(limit)?,
        (None, name) if name.starts_with("digits:train") => {
            data::load("digits:test", Purpose::Judge)?.take(limit)?
        }
        _ => data.clone().take(usize::MAX)?,
    };
    let plain = super::super::args::InputArgs::default();
    let (target, inputs) = file.with_data(&plain, Kernels::detect(), &data)?;
    let labels = data.require_labels("train advgan")?;
    // refused before the work, not after it
    test.require_labels("train advgan")?;
    file.with_data(&plain, Kernels::detect(), &test)?;
    let x = target.real(&inputs);
    let mut config: Config = run::configure(&Config::default(), args.config.as_deref())?;
    if let Some(epsilon) = args.eps {
        config.epsilon = epsilon;
    }
    if let Some(class) = args.class {
        config.class = class.into();
    }
    if let Some(epochs) = args.epochs {
        config.epochs = epochs as usize;
    }
    config
        .check(target.model().classes())
        .map_err(|error| super::out_of_range(error, args.config.as_deref()))?;
    files::create_folder(&args.out)?;
    let numbers: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
    let names: Vec<u8> = labels.iter().flat_map(|&l| l.to_le_bytes()).collect();
    let settings = run::Settings {
        out: &args.out,
        trainer: "advgan",
        config: run::to_toml(&config)?,
        seed,
        data: run::digest(&[file.image().bytes(), &numbers, &names]),
        resume: args.resume,
        every: Duration::from_secs(args.checkpoint.into()),
    };
    let (mut run, checkpoint) = run::begin(&settings)?;
    let first = checkpoint.as_ref().map_or(0, |c| c.step);
    if args.resume {
        console.say(super::resumed(first));
    }
    let steps = (labels.len() / config.batch * config.epochs) as u64;
    let progress = console.progress("training", steps);
    progress.advance(first);
    let task = Task {
        target: &target,
        x: &x,
        labels,
        config: &config,
        seed,
    };
    let started = Instant::now();
    let graph = advgan::train(task, &mut run, checkpoint.as_ref(), &mut |stand| {
        progress.note(format!(
            "epoch {}: loss {:.3}, success {:.1} %",
            stand.epoch,
            stand.loss,
            100.0 * stand.success
        ));
        progress.advance(1);
    })
    .map_err(refuse)?;
    drop(progress);
    let seconds = started.elapsed().as_secs_f64();

    let path = args.out.join("generator.fpi");
    let image = to_image(&graph).map_err(|error| Error::new(error, path.display(), ""))?;
    files::write(&path, image.bytes())?;
    let written = ModelFile::of_image(path.display().to_string(), image);
    let (_, test_inputs) = file.with_data(&plain, Kernels::detect(), &test)?;
    let test_labels = test.require_labels("train advgan")?;
    let before = target.real(&test_inputs);
    let after = crate::train::answers(&graph, &before).map_err(refuse)?;
    let verdict = Verdict::of(
        &target,
        (&before, &after),
        test_labels,
        (config.epsilon, config.class),
    )
    .map_err(|error| Error::new(error, file.path(), "a classifier"))?;

    let mut document = Document::new("train advgan");
    document.model = Some(written.describe()?);
    document.data = Some(Data {
        path: data.name().into(),
        n: data.len(),
    });
    document.seed = Some(seed);
    let figures = run.records().last().map(|record| record.figures.clone());
    let mut metrics: std::collections::BTreeMap<String, f64> = figures
        .unwrap_or_default()
        .into_iter()
        .filter(|(name, _)| name != "epoch")
        .collect();
    metrics.extend(verdict.figures());
    document.train = Some(Train {
        steps,
        seconds,
        samples_per_second: ((steps - first) * config.batch as u64) as f64 / seconds.max(1e-9),
        metrics,
    });
    let mut outputs = vec![path];
    let picture = gallery(&target, &before, &after);
    if let Some(picture) = &picture {
        let path = args.out.join("gallery.png");
        let png = picture
            .png()
            .map_err(|error| Error::new(error, path.display(), ""))?;
        files::write(&path, &png)?;
        outputs.push(path);
    }
    let mut page = Learning {
        title: format!(
            "An adversarial generator against {}",
            learning::without_folders(file.path())
        ),
        config: settings.config.clone(),
        command: format!(
            "foolproof train advgan --target {} --data {} --eps {}",
            args.target.display(),
            args.data,
            config.epsilon
        ),
        ..Learning::default()
    };
    for (name, value) in verdict.figures() {
        let value = crate::report::format::number(value);
        page.tiles
            .push([name.replace('_', " "), value, String::new()]);
    }
    let charts = [
        ("Loss", "Means over each epoch.", ["loss"]),
        (
            "Success",
            "Share of the epoch's samples that reached the goal.",
            ["success"],
        ),
    ];
    page.charts.extend(
        charts
            .iter()
            .filter_map(|(h, l, names)| Chart::of_log(h, l, run.records(), names)),
    );
    if let Some(picture) = picture {
        let lead = "Every row of inputs stands above what the generator makes of it.";
        page.pictures.push(("Gallery".into(), lead.into(), picture));
    }
    let html = args.out.join("report.html");
    files::write(&html, learning::page(&page).as_bytes())?;
    let json = args.out.join("train.json");
    outputs.extend([html, args.out.join(run::LOG), json.clone()]);
    document.outputs = outputs.iter().map(|p| p.display().to_string()).collect();
    files::write(&json, to_json(&document)?.as_bytes())?;
    console.finish(&document, || super::describe(&document))?;
    Ok(Ended::Well)
}

/// Rows of inputs, each above the generator's answers.
fn gallery(
    target: &Classifier<'_>,
    before: &[f32],
    after: &[f32],
) -> Option<crate::report::Picture> {
    let form = target.form();
    let n = form.input_len();
    let (low, high) = form.range;
    let rows: Vec<f32> = before
        .chunks(10 * n)
        .zip(after.chunks(10 * n))
        .take(SHOWN / 10)
        .flat_map(|(x, y)| [x, y].concat())
        .map(|v| 2.0 * (v - low) / (high - low) - 1.0)
        .collect();
    let shape = form.shape.iter().map(|&d| d as u32).collect();
    pictures::grid(&rows, &gan::networks::Form { shape, image: true })
}
