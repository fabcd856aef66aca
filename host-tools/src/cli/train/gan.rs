//! `foolproof train gan`.

use super::super::Ended;
use super::super::args::GanArgs;
use super::super::console::{Console, Progress, to_json};
use super::super::model::ModelFile;
use super::input_range;
use crate::data::{self, Dataset, Purpose};
use crate::document::{Data, Document, Train};
use crate::error::{Error, Result};
use crate::files;
use crate::graph::{Graph, from_image, to_image};
use crate::report::Picture;
use crate::report::learning::{self, Chart, Learning};
use crate::train::gan::{self, Config, Game, Stand, Watch};
use crate::train::quality::{self, Features, NEIGHBOURS};
use crate::train::source::{Mixture, Set, Source};
use crate::train::theory::{self, Fit, Pair, Verdict};
use crate::train::{TrainError, pictures, run};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Points drawn after every epoch to judge by.
const POINTS: usize = 20_000;
/// Samples judged in feature space, at most.
const JUDGED: usize = 10_000;
/// Samples of each side that precision and recall are taken of, at most: both fall as there are more, so figures compare only where
/// there are as many. With so many the known figures of the networks in PyTorch come out (docs/training.md).
const MANIFOLD: usize = 2_000;
/// Samples in a picture of images.
const SHOWN: usize = 100;

pub(super) fn run(args: &GanArgs, seed: u64, console: &Console) -> Result<Ended> {
    let (source, data) = source(&args.data)?;
    let refuse = |error: TrainError| match error {
        TrainError::Run(error) => error,
        error => Error::new(error, &args.data, ""),
    };
    let mut config = run::configure(&defaults(&args.data, &source), args.config.as_deref())?;
    if let Source::Set(set) = &source
        && set.form.image
    {
        config = run::configure(&Config::beside(&config), args.config.as_deref())?;
    }
    if let Some(epochs) = args.epochs {
        config.epochs = epochs;
    }
    config
        .check()
        .map_err(|error| super::out_of_range(error, args.config.as_deref()))?;
    let start = match &args.start {
        Some(path) => Some(from_image(&ModelFile::read(path, None)?.model()?)),
        None => None,
    };
    let judge = judge(args, &source)?;
    let judged = matches!(source, Source::Points(_)) || args.judge_every.is_some();
    if config.patience > 0 && !judged {
        return Err(refuse(TrainError::Config(
            "patience needs a judgement between epochs: --features and --judge-every would be right".into(),
        )));
    }
    files::create_folder(&args.out)?;
    files::create_folder(&args.out.join("samples"))?;
    let settings = run::Settings {
        out: &args.out,
        trainer: "gan",
        config: run::to_toml(&config)?,
        seed,
        data: fingerprint(args, &source, start.as_ref(), judge.as_ref()),
        resume: args.resume,
        every: Duration::from_secs_f64(args.checkpoint),
    };
    let (mut run, checkpoint) = run::begin(&settings)?;
    let first = checkpoint.as_ref().map_or(0, |c| c.step);
    if args.resume {
        console.say(super::resumed(first));
    }
    let game = Game {
        source: &source,
        config: &config,
        seed,
    };
    let mut watcher = Watcher {
        progress: console.progress("training", steps(&source, &config)),
        source: &source,
        classes: if config.conditional {
            source.classes()
        } else {
            0
        },
        judge: judge.as_ref(),
        every: args.judge_every,
        epochs: config.epochs,
        out: args.out.clone(),
        seed,
        objective: config.objective,
    };
    watcher.progress.advance(first);
    let started = Instant::now();
    let trained = gan::train(
        game,
        start.as_ref(),
        &mut run,
        checkpoint.as_ref(),
        &mut watcher,
    )
    .map_err(refuse)?;
    let seconds = started.elapsed().as_secs_f64();
    drop(watcher);
    if config.patience > 0 {
        console.say(format!(
            "the generator is the one after epoch {}",
            trained.epoch
        ));
    }

    let mut outputs: Vec<PathBuf> = Vec::new();
    let mut file = None;
    for (name, graph) in [
        ("discriminator.fpi", &trained.discriminator),
        ("generator.fpi", &trained.generator),
    ] {
        let path = args.out.join(name);
        let image = to_image(graph).map_err(|error| Error::new(error, name, "smaller networks"))?;
        files::write(&path, image.bytes())?;
        file = Some(ModelFile::of_image(path.display().to_string(), image));
        outputs.push(path);
    }
    let mut metrics: BTreeMap<String, f64> = BTreeMap::new();
    let of_epoch = |record: &&run::Record| {
        let epoch = record.figures.iter().find(|(name, _)| name == "epoch");
        epoch.is_some_and(|(_, epoch)| *epoch == trained.epoch as f64)
    };
    if let Some(record) = run.records().iter().rev().find(of_epoch) {
        metrics.extend(
            record
                .figures
                .iter()
                .filter(|(name, _)| name != "epoch")
                .cloned(),
        );
    }
    let verdicts = theory_of(&args.data, seed, console, &mut metrics)?;
    let frames = run.pictures()?;
    if !frames.is_empty() {
        let path = args.out.join("samples.gif");
        files::write(&path, &pictures::animation(&frames, 30)?)?;
        outputs.push(path);
    }

    let mut document = Document::new("train gan");
    if let Some(file) = &file {
        document.model = Some(file.describe()?);
    }
    document.data = Some(Data {
        path: args.data.clone(),
        n: data.as_ref().map_or(0, Dataset::len),
    });
    document.seed = Some(seed);
    let ran = trained.steps - first;
    let samples_per_second = (ran * config.batch as u64) as f64 / seconds.max(1e-9);
    document.train = Some(Train {
        steps: trained.steps,
        seconds,
        samples_per_second,
        metrics,
    });
    let page = report(
        &document,
        &run,
        &settings.config,
        &args.data,
        &verdicts,
        frames.last(),
    );
    let html = args.out.join("report.html");
    files::write(&html, learning::page(&page).as_bytes())?;
    outputs.extend([html, args.out.join(run::LOG), args.out.join("train.json")]);
    document.outputs = outputs
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    files::write(&args.out.join("train.json"), to_json(&document)?.as_bytes())?;
    console.finish(&document, || super::describe(&document))?;
    Ok(Ended::Well)
}

fn source(spec: &str) -> Result<(Source, Option<Dataset>)> {
    match spec {
        "mixture" => return Ok((Source::Points(Mixture::line()), None)),
        "grid25" => return Ok((Source::Points(Mixture::grid25()), None)),
        _ => {}
    }
    let data = data::load(spec, Purpose::Learn)?;
    let set = set(&data)?;
    Ok((Source::Set(set), Some(data)))
}

fn set(data: &Dataset) -> Result<Set> {
    Set::of(data, input_range(data)).map_err(|error| Error::new(error, data.name(), ""))
}

fn defaults(spec: &str, source: &Source) -> Config {
    match source {
        Source::Set(_) => Config::for_samples(),
        Source::Points(_) if spec == "mixture" => Config {
            latent: 2,
            codes: 0,
            hidden: vec![64, 64],
            ..Config::for_points()
        },
        Source::Points(_) => Config::for_points(),
    }
}

fn steps(source: &Source, config: &Config) -> u64 {
    let per_epoch = source.rows().map_or(gan::ENDLESS, |n| n / config.batch);
    (per_epoch * config.epochs) as u64
}

/// What tells this data, this start and what samples are judged by from others.
fn fingerprint(
    args: &GanArgs,
    source: &Source,
    start: Option<&Graph>,
    judge: Option<&Judge>,
) -> String {
    let numbers =
        |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let mut parts: Vec<Vec<u8>> = Vec::new();
    match source {
        Source::Set(set) => {
            parts.push(numbers(&set.x));
            parts.push(
                set.labels
                    .iter()
                    .flat_map(|&l| (l as u64).to_le_bytes())
                    .collect(),
            );
        }
        Source::Points(_) => parts.push(args.data.as_bytes().to_vec()),
    }
    if let Some(start) = start {
        parts.extend((0..start.tensors.len()).map(|t| numbers(start.f32(t))));
    }
    if let Some(judge) = judge {
        // of the classifier and of the samples
        parts.push(numbers(&judge.real));
        parts.push(args.judge_every.unwrap_or(0).to_le_bytes().to_vec());
    }
    run::digest(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// What samples of images are judged by.
struct Judge {
    features: Features,
    real: Vec<f32>,
    width: usize,
}

fn judge(args: &GanArgs, source: &Source) -> Result<Option<Judge>> {
    let (Some(path), Source::Set(train)) = (&args.features, source) else {
        return match (&args.features, source) {
            (Some(path), _) => Err(Error::new(
                "points have no features",
                path.display(),
                "leave --features out: they are judged by their density",
            )),
            _ => Ok(None),
        };
    };
    let refuse = |error: TrainError| Error::new(error, path.display(), "");
    let features =
        Features::of(&from_image(&ModelFile::read(path, None)?.model()?)).map_err(refuse)?;
    let test = match (&args.test, args.data.as_str()) {
        (Some(test), _) => Some(set(&data::load(test, Purpose::Judge)?)?),
        (None, "digits" | "digits:train") => {
            Some(set(&data::load("digits:test", Purpose::Judge)?)?)
        }
        _ => None,
    };
    let real = test.as_ref().unwrap_or(train);
    if real.form.len() != features.input_len() || real.form.len() != train.form.len() {
        return Err(Error::new(
            format!(
                "the classifier takes {} numbers, a sample has {}",
                features.input_len(),
                real.form.len()
            ),
            path.display(),
            "a classifier of the same samples",
        ));
    }
    if real.len() <= NEIGHBOURS {
        return Err(Error::new(
            format!(
                "{} real samples have no {NEIGHBOURS} nearest others",
                real.len()
            ),
            "--test",
            format!("more than {NEIGHBOURS} samples to judge by"),
        ));
    }
    let count = real.len().min(JUDGED) * real.form.len();
    let x = scaled(&real.x[..count], features.input_range());
    let real = features.run(&x).map_err(refuse)?;
    let width = real.len() / (count / features.input_len());
    Ok(Some(Judge {
        features,
        real,
        width,
    }))
}

/// From -1 to 1 to a classifier's range.
fn scaled(x: &[f32], (low, high): (f32, f32)) -> Vec<f32> {
    x.iter()
        .map(|v| low + (high - low) * (0.5 * v + 0.5))
        .collect()
}

impl Judge {
    fn figures(
        &self,
        samples: &[f32],
    ) -> std::result::Result<Vec<(&'static str, f64)>, TrainError> {
        let x = scaled(samples, self.features.input_range());
        let made = self.features.run(&x)?;
        let most = MANIFOLD * self.width;
        let (precision, recall) = quality::precision_recall(
            &self.real[..self.real.len().min(most)],
            &made[..made.len().min(most)],
            self.width,
        );
        let mut scores = self.features.scores(&x)?;
        let count = samples.len() / self.features.input_len();
        let classes = scores.len() / count;
        let (mut seen, mut confidence) = (vec![0.0; classes], 0.0);
        for z in scores.chunks_exact_mut(classes) {
            let best = foolproof::loss::argmax(z);
            seen[best] += 1.0 / count as f64;
            let top = z[best];
            let sum: f64 = z.iter().map(|&z| f64::from(z - top).exp()).sum();
            confidence += 1.0 / sum / count as f64;
        }
        Ok(vec![
            ("frechet", quality::frechet(&self.real, &made, self.width)),
            ("precision", precision),
            ("recall", recall),
            (
                "class_divergence",
                quality::divergence(&seen, &vec![1.0 / classes as f64; classes]),
            ),
            ("confidence", confidence),
        ])
    }
}

/// Shows progress, draws samples, judges them.
struct Watcher<'a> {
    progress: Progress,
    source: &'a Source,
    classes: usize,
    judge: Option<&'a Judge>,
    every: Option<usize>,
    epochs: usize,
    out: PathBuf,
    seed: u64,
    objective: gan::objective::Objective,
}

impl Watch for Watcher<'_> {
    fn step(&mut self, stand: &Stand) {
        self.progress.note(format!(
            "epoch {}: discriminator {:.4}, generator {:.4}",
            stand.epoch, stand.discriminator_loss, stand.generator_loss
        ));
        self.progress.advance(1);
    }

    fn epoch(
        &mut self,
        stand: &Stand,
        generator: &Graph,
    ) -> std::result::Result<Vec<(&'static str, f64)>, TrainError> {
        let mut figures = Vec::new();
        let last = stand.epoch == self.epochs;
        let picture = match self.source {
            Source::Points(mixture) => {
                let samples = gan::draw(generator, (POINTS, 0), self.seed)?;
                let bounds = bounds(mixture);
                let points = quality::points(&samples, mixture, bounds);
                figures.push(("js", points.divergence));
                if mixture.dimensions == 2 {
                    figures.push(("modes", points.modes as f64));
                    figures.push(("high_quality", points.high_quality));
                }
                let mut real = Vec::new();
                let mut rng = foolproof::attack::rng(self.seed, u64::MAX);
                (0..POINTS / 4).for_each(|_| mixture.draw(&mut rng, &mut real));
                let side = (bounds.0 as f32, bounds.1 as f32);
                (mixture.dimensions == 2)
                    .then(|| pictures::cloud(&real, &samples[..POINTS / 2], side))
            }
            Source::Set(set) => {
                let due = self
                    .every
                    .is_some_and(|every| stand.epoch.is_multiple_of(every));
                if let Some(judge) = self.judge.filter(|_| last || due) {
                    let count = JUDGED.min(judge.real.len() / judge.width);
                    let samples = gan::draw(generator, (count, self.classes), self.seed)?;
                    figures.extend(judge.figures(&samples)?);
                }
                let shown = gan::draw(generator, (SHOWN, self.classes), self.seed)?;
                if last {
                    let near = quality::nearest(&shown, &set.x, set.form.len());
                    let mean =
                        near.iter().map(|(_, d)| f64::from(*d)).sum::<f64>() / near.len() as f64;
                    figures.push(("nearest_training_sample", mean));
                }
                pictures::grid(&shown, &set.form)
            }
        };
        if let Some(js) = gan::divergence(self.objective, stand.discriminator_loss) {
            figures.push(("js_by_discriminator", js));
        }
        if let Some(picture) = picture {
            let path = run::picture(&self.out, stand.epoch);
            let png = picture
                .png()
                .map_err(|error| Error::new(error, path.display(), ""))?;
            files::write(&path, &png)?;
        }
        Ok(figures)
    }
}

/// Low and high along every axis, and the side of a cell.
fn bounds(mixture: &Mixture) -> (f64, f64, f64) {
    match mixture.dimensions {
        1 => (-6.0, 6.0, 0.25),
        _ => (-5.0, 5.0, 0.4),
    }
}

/// With `mixture`: the discriminator against its closed form, on a line and on a plane.
fn theory_of(
    spec: &str,
    seed: u64,
    console: &Console,
    metrics: &mut BTreeMap<String, f64>,
) -> Result<Vec<(&'static str, Verdict)>> {
    if spec != "mixture" {
        return Ok(Vec::new());
    }
    let on = [
        ("line", Pair::line(), LINE),
        ("plane", Pair::plane(), PLANE),
    ];
    let mut verdicts = Vec::new();
    for (name, pair, fit) in on {
        let progress = console.progress("theory", fit.steps);
        let verdict = theory::judge(&pair, fit, seed, &mut |_| progress.advance(1))
            .map_err(|error| Error::new(error, spec, ""))?;
        for (figure, value) in [
            ("discriminator_largest_error", verdict.largest_error),
            ("game_value", verdict.value),
            ("game_value_closed_form", verdict.best_value),
        ] {
            metrics.insert(format!("{name}_{figure}"), value);
        }
        verdicts.push((name, verdict));
    }
    Ok(verdicts)
}

const LINE: Fit = Fit {
    hidden: 64,
    steps: 4000,
    batch: 1024,
    rate: 4e-3,
};
const PLANE: Fit = Fit {
    hidden: 64,
    steps: 6000,
    batch: 1024,
    rate: 4e-3,
};

fn report(
    document: &Document,
    run: &run::Run,
    config: &str,
    spec: &str,
    verdicts: &[(&'static str, Verdict)],
    samples: Option<&Picture>,
) -> Learning {
    let mut page = Learning {
        title: format!(
            "A generative adversarial network on {}",
            learning::without_folders(spec)
        ),
        config: config.into(),
        command: format!("foolproof train gan --data {spec}"),
        ..Learning::default()
    };
    if let Some(train) = &document.train {
        let rate = format!("{:.0} samples a second", train.samples_per_second);
        page.tiles
            .push(["Training".into(), format!("{:.1} s", train.seconds), rate]);
        let shown = [
            ("js", "JS divergence", "nats, of histograms; at most 0.693"),
            ("modes", "Modes covered", "of 25"),
            (
                "high_quality",
                "High quality",
                "share within 3 standard deviations of a mode",
            ),
            (
                "frechet",
                "Fréchet distance",
                "in the classifier's features",
            ),
            ("precision", "Precision", "k = 3"),
            ("recall", "Recall", "k = 3"),
            (
                "line_discriminator_largest_error",
                "Largest error of D",
                "against p / (p + q), on the line",
            ),
            (
                "plane_discriminator_largest_error",
                "Largest error of D",
                "against p / (p + q), on the plane",
            ),
        ];
        for (key, name, note) in shown {
            if let Some(value) = train.metrics.get(key) {
                page.tiles.push([
                    name.into(),
                    crate::report::format::number(*value),
                    note.into(),
                ]);
            }
        }
    }
    let curves: [(&str, &str, &[&str]); 4] = [
        (
            "Losses",
            "Means over each epoch, penalties included.",
            &["discriminator_loss", "generator_loss"],
        ),
        (
            "Jensen-Shannon divergence over time",
            "Nats. The discriminator's loss implies a lower bound; where the exact masses are known, js is of the samples' histogram.",
            &["js", "js_by_discriminator"],
        ),
        (
            "Fréchet distance over time",
            "In the feature space of the classifier.",
            &["frechet"],
        ),
        (
            "Precision and recall over time",
            "Kynkäänniemi et al. 2019, k = 3, of the first 2,000 samples of either side.",
            &["precision", "recall"],
        ),
    ];
    page.charts.extend(
        curves
            .iter()
            .filter_map(|(h, l, names)| Chart::of_log(h, l, run.records(), names)),
    );
    for (name, verdict) in verdicts {
        // of the plane, the cut through its middle
        let side = verdict.grid.len().isqrt();
        let on_line = |i: &usize| verdict.grid[0].len() == 1 || i / side == side / 2;
        let rows: Vec<usize> = (0..verdict.grid.len()).filter(on_line).collect();
        let rows: Vec<usize> = rows
            .iter()
            .copied()
            .step_by((rows.len() / 200).max(1))
            .collect();
        let line = |label: &str, colour, kind, k: usize| crate::report::chart::Series {
            name: label.into(),
            colour,
            kind,
            points: rows
                .iter()
                .map(|&i| {
                    learning::point(
                        (verdict.grid[i].last().unwrap_or(&0.0) * 100.0).round() / 100.0,
                        verdict.curves[i][k],
                    )
                })
                .collect(),
        };
        let series = vec![
            line("p, real", 1, 0, 0),
            line("q, generated", 0, 0, 1),
            line("p / (p + q)", 2, 1, 2),
            line("D, trained", 3, 0, 3),
        ];
        page.charts.push(Chart {
            heading: format!("The discriminator and its closed form, on a {name}"),
            lead: format!(
                "Trained on samples against a fixed generator. Largest error {:.3} where p or q is above 1 % of its peak; value of the game {:.4}, closed form {:.4}.",
                verdict.largest_error, verdict.value, verdict.best_value
            ),
            lines: learning::fitted("Discriminator and closed form", "x", series),
        });
    }
    if let Some(picture) = samples {
        let lead = "From fixed noise; samples.gif shows all epochs.";
        page.pictures.push((
            "Samples after the last epoch".into(),
            lead.into(),
            picture.clone(),
        ));
    }
    page
}
