//! `foolproof train vae`.

use super::super::Ended;
use super::super::console::{Console, Progress, to_json};
use super::super::model::ModelFile;
use super::input_range;
use crate::data::{self, Dataset, Purpose};
use crate::document::{Data, Document, Train};
use crate::error::{Error, Result};
use crate::files;
use crate::graph::to_image;
use crate::report::Picture;
use crate::report::learning::{self, Chart, Learning};
use crate::train::source::Set;
use crate::train::vae::{self, Config, Pair, Stand, Task, Watch};
use crate::train::{TrainError, gan, pictures, run};
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Samples in a picture.
const SHOWN: usize = 100;
/// Samples that the bound is measured on, at most.
const MEASURED: usize = 10_000;

#[derive(Debug, Args)]
pub(crate) struct VaeArgs {
    /// Samples: as elsewhere (plain digits means digits:train)
    #[arg(long, value_name = "D")]
    pub data: String,
    /// Folder for encoder.fpi, decoder.fpi, samples, log.csv, report.html and the checkpoint
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Networks, likelihood, beta, learning rate and so on, as TOML; DIR/config.toml of any run holds all keys
    #[arg(long, value_name = "F.toml")]
    pub config: Option<PathBuf>,
    /// Passes over the data, instead of the configuration's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub epochs: Option<u32>,
    /// Samples to measure the bound on after every epoch [default: digits:test for the digits]
    #[arg(long, value_name = "D")]
    pub test: Option<String>,
    /// Seconds between checkpoints
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..))]
    pub checkpoint: u32,
    /// Go on from DIR's checkpoint, to the same bytes as without the interruption
    #[arg(long)]
    pub resume: bool,
}

pub(super) fn run(args: &VaeArgs, seed: u64, console: &Console) -> Result<Ended> {
    let data = data::load(&args.data, Purpose::Learn)?;
    let set = set_of(&data)?;
    let test = match (&args.test, data.name()) {
        (Some(test), _) => Some(set_of(&data::load(test, Purpose::Judge)?)?),
        (None, "digits:train") => Some(set_of(&data::load("digits:test", Purpose::Judge)?)?),
        _ => None,
    };
    let refuse = |error: TrainError| match error {
        TrainError::Run(error) => error,
        error => Error::new(error, &args.data, ""),
    };
    if let Some(test) = test.as_ref().filter(|test| test.form != set.form) {
        let what = format!(
            "samples of shape {:?} to measure on, and {:?} to learn from",
            test.form.shape, set.form.shape
        );
        return Err(Error::new(what, "--test", "samples of the same shape"));
    }
    let mut config: Config =
        run::configure(&Config::defaults(set.form.image), args.config.as_deref())?;
    if let Some(epochs) = args.epochs {
        config.epochs = epochs as usize;
    }
    config
        .check(set.form.image)
        .map_err(|error| super::out_of_range(error, args.config.as_deref()))?;
    files::create_folder(&args.out.join("samples"))?;
    let bytes: Vec<u8> = set.x.iter().flat_map(|v| v.to_le_bytes()).collect();
    let settings = run::Settings {
        out: &args.out,
        trainer: "vae",
        config: run::to_toml(&config)?,
        seed,
        data: run::digest(&[&bytes]),
        resume: args.resume,
        every: Duration::from_secs(args.checkpoint.into()),
    };
    let (mut run, checkpoint) = run::begin(&settings)?;
    let first = checkpoint.as_ref().map_or(0, |c| c.step);
    if args.resume {
        console.say(super::resumed(first));
    }
    let steps = (set.len() / config.batch * config.epochs) as u64;
    let mut watcher = Watcher {
        progress: console.progress("training", steps),
        test: test.as_ref().map(|test| first_of(test, MEASURED)),
        config: &config,
        out: &args.out,
        seed,
    };
    watcher.progress.advance(first);
    let task = Task {
        set: &set,
        config: &config,
        seed,
    };
    let started = Instant::now();
    let pair = vae::train(task, &mut run, checkpoint.as_ref(), &mut watcher).map_err(refuse)?;
    let seconds = started.elapsed().as_secs_f64();
    drop(watcher);

    let mut outputs: Vec<PathBuf> = Vec::new();
    let mut file = None;
    for (name, graph) in [
        ("encoder.fpi", &pair.encoder),
        ("decoder.fpi", &pair.decoder),
    ] {
        let path = args.out.join(name);
        let image = to_image(graph).map_err(|error| Error::new(error, name, "smaller networks"))?;
        files::write(&path, image.bytes())?;
        file = Some(ModelFile::of_image(path.display().to_string(), image));
        outputs.push(path);
    }
    let shown = first_of(test.as_ref().unwrap_or(&set), SHOWN / 2);
    let both = reconstructions(&pair, &shown, config.latent as usize).map_err(refuse)?;
    if let Some(picture) = &both {
        let path = args.out.join("reconstructions.png");
        files::write(&path, &png(picture, &path)?)?;
        outputs.push(path);
    }
    let frames = run.pictures()?;
    if !frames.is_empty() {
        let path = args.out.join("samples.gif");
        files::write(&path, &pictures::animation(&frames, 30)?)?;
        outputs.push(path);
    }
    let mut document = Document::new("train vae");
    if let Some(file) = &file {
        document.model = Some(file.describe()?);
    }
    document.data = Some(Data {
        path: data.name().into(),
        n: data.len(),
    });
    document.seed = Some(seed);
    let last = run.records().last().map(|record| record.figures.clone());
    let figures = last.unwrap_or_default().into_iter();
    document.train = Some(Train {
        steps,
        seconds,
        samples_per_second: ((steps - first) * config.batch as u64) as f64 / seconds.max(1e-9),
        metrics: figures.filter(|(name, _)| name != "epoch").collect(),
    });
    let html = args.out.join("report.html");
    let page = report(&document, &run, &settings.config, frames.last(), both);
    files::write(&html, learning::page(&page).as_bytes())?;
    let json = args.out.join("train.json");
    outputs.extend([html, args.out.join(run::LOG), json.clone()]);
    document.outputs = outputs.iter().map(|p| p.display().to_string()).collect();
    files::write(&json, to_json(&document)?.as_bytes())?;
    console.finish(&document, || super::describe(&document))?;
    Ok(Ended::Well)
}

fn set_of(data: &Dataset) -> Result<Set> {
    Set::of(data, input_range(data)).map_err(|error| Error::new(error, data.name(), ""))
}

fn first_of(set: &Set, count: usize) -> Set {
    Set {
        x: set.x[..set.len().min(count) * set.form.len()].to_vec(),
        ..set.clone()
    }
}

fn png(picture: &Picture, path: &Path) -> Result<Vec<u8>> {
    picture
        .png()
        .map_err(|error| Error::new(error, path.display(), ""))
}

/// Rows of samples, each above what encoder and decoder make of it.
fn reconstructions(
    pair: &Pair,
    set: &Set,
    latent: usize,
) -> std::result::Result<Option<Picture>, TrainError> {
    let made = vae::reconstruct(pair, &set.x, latent)?;
    let row = 10 * set.form.len();
    let rows: Vec<f32> = set
        .x
        .chunks_exact(row)
        .zip(made.chunks_exact(row))
        .flat_map(|(x, y)| [x, y].concat())
        .collect();
    Ok(pictures::grid(&rows, &set.form))
}

/// Shows progress, draws samples, measures the bound.
struct Watcher<'a> {
    progress: Progress,
    test: Option<Set>,
    config: &'a Config,
    out: &'a Path,
    seed: u64,
}

impl Watch for Watcher<'_> {
    fn step(&mut self, stand: &Stand) {
        self.progress.note(format!(
            "epoch {}: loss {:.2}, reconstruction {:.2}, divergence {:.2}",
            stand.epoch, stand.loss, stand.reconstruction, stand.divergence
        ));
        self.progress.advance(1);
    }

    fn epoch(
        &mut self,
        stand: &Stand,
        pair: &Pair,
    ) -> std::result::Result<Vec<(&'static str, f64)>, TrainError> {
        let samples = gan::draw(&pair.decoder, (SHOWN, 0), self.seed)?;
        let form = gan::networks::Form {
            shape: pair.decoder.tensors[pair.decoder.output].shape.dims()[1..].to_vec(),
            image: true,
        };
        if let Some(picture) = pictures::grid(&samples, &form) {
            let path = run::picture(self.out, stand.epoch);
            files::write(&path, &png(&picture, &path)?)?;
        }
        match &self.test {
            Some(set) => {
                let task = Task {
                    set,
                    config: self.config,
                    seed: self.seed,
                };
                Ok(vec![("test_loss", vae::bound(pair, task)?)])
            }
            None => Ok(Vec::new()),
        }
    }
}

fn report(
    document: &Document,
    run: &run::Run,
    config: &str,
    samples: Option<&Picture>,
    reconstructions: Option<Picture>,
) -> Learning {
    let spec = document.data.as_ref().map_or("", |data| &data.path);
    let mut page = Learning {
        title: format!(
            "A variational autoencoder on {}",
            learning::without_folders(spec)
        ),
        config: config.into(),
        command: format!("foolproof train vae --data {spec}"),
        ..Learning::default()
    };
    if let Some(train) = &document.train {
        let rate = format!("{:.0} samples a second", train.samples_per_second);
        let seconds = format!("{:.1} s", train.seconds);
        page.tiles.push(["Training".into(), seconds, rate]);
        for (key, name, note) in [
            ("loss", "Loss", "nats per sample, over the last epoch"),
            (
                "test_loss",
                "Minus the bound",
                "nats per sample, on other samples",
            ),
            (
                "divergence",
                "Divergence",
                "nats per sample, code from prior",
            ),
        ] {
            if let Some(&value) = train.metrics.get(key) {
                let value = crate::report::format::number(value);
                page.tiles.push([name.into(), value, note.into()]);
            }
        }
    }
    let curves: [(&str, &str, &[&str]); 2] = [
        (
            "Minus the evidence lower bound",
            "Nats per sample, means over each epoch.",
            &["loss", "test_loss", "reconstruction"],
        ),
        (
            "Divergence of codes from the prior",
            "Nats per sample, means over each epoch.",
            &["divergence"],
        ),
    ];
    let charts = curves.iter();
    page.charts
        .extend(charts.filter_map(|(h, l, names)| Chart::of_log(h, l, run.records(), names)));
    if let Some(picture) = samples {
        let lead = "The decoder's answers to fixed noise; samples.gif shows all epochs.";
        let heading = "Samples after the last epoch";
        page.pictures
            .push((heading.into(), lead.into(), picture.clone()));
    }
    if let Some(picture) = reconstructions {
        let lead = "Every row of samples stands above what encoder and decoder make of it.";
        page.pictures
            .push(("Reconstructions".into(), lead.into(), picture));
    }
    page
}
