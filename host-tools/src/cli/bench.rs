//! `foolproof bench`: how fast a model or training is on this machine.

use super::Ended;
use super::args::BenchArgs;
use super::console::{Console, Progress, warning_lines};
use super::model::ModelFile;
use crate::bench::{memory, model, training};
use crate::document::{Bench, BenchBits, BenchRow, Document};
use crate::error::{Error, Result};
use crate::graph::from_image;
use crate::report::speed;
use std::path::Path;
use std::thread::available_parallelism;

/// Random inputs on which an int8 model's answers are compared with the scalar kernels'.
const COMPARED: usize = 100;
const TRIAD: &str = "triad";

pub(crate) fn run(
    args: &BenchArgs,
    seed: u64,
    threads: Option<usize>,
    console: &Console,
) -> Result<Ended> {
    let most = threads.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
    let threads = if most == 1 { vec![1] } else { vec![1, most] };
    let mut document = Document::new("bench");
    document.seed = Some(seed);
    document.bench = Some(match &args.model {
        Some(path) => of_model(args, path, (seed, &threads), console, &mut document)?,
        None => of_training(args, (seed, &threads), console)?,
    });
    console.finish(&document, || {
        speed::render(&document) + &warning_lines(&document)
    })?;
    Ok(Ended::Well)
}

/// The works that `--only` leaves, of those there are.
fn chosen<T: Copy>(args: &BenchArgs, all: &[(T, &str)]) -> Result<Vec<T>> {
    for name in &args.only {
        if all.iter().all(|(_, known)| known != name) {
            let names: Vec<&str> = all.iter().map(|(_, name)| *name).collect();
            let subject = args
                .model
                .as_ref()
                .map_or("without MODEL", |_| "of a model");
            return Err(Error::new(
                format!("{name:?} is not measured {subject}"),
                "--only",
                names.join(", "),
            ));
        }
    }
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let chosen = all.iter().filter(|(_, name)| wanted(name));
    Ok(chosen.map(|(work, _)| *work).collect())
}

fn of_model(
    args: &BenchArgs,
    path: &Path,
    (seed, threads): (u64, &[usize]),
    console: &Console,
    document: &mut Document,
) -> Result<Bench> {
    let works = chosen(args, &model::Work::ALL.map(|work| (work, work.name())))?;
    let file = ModelFile::read(path, args.numerics)?;
    document.model = Some(file.describe()?);
    let graph = from_image(&file.model()?);
    let one = model::Setup {
        model: file.model()?,
        kernels: args.kernels,
        batch: 1,
        threads: 1,
        seed,
    };
    let different = |error| Error::new(error, file.path(), "");
    let bits = match graph.is_quantized() {
        false => None,
        true => Some(BenchBits {
            inputs: COMPARED,
            different: one.different_answers(COMPARED).map_err(different)?,
        }),
    };
    let mut batches = args.batch.clone();
    batches.sort_unstable();
    batches.dedup();
    let mut rows = Vec::new();
    let progress = console.progress("", (works.len() * batches.len() * threads.len()) as u64);
    for &work in &works {
        for &batch in &batches {
            for &threads in threads {
                let setup = model::Setup {
                    batch,
                    threads,
                    ..one
                };
                progress.note(format!("{} at batch {batch}", work.name()));
                if setup.supports(work) {
                    rows.extend(setup.row(work, args.seconds)?);
                } else {
                    let why = format!("the model cannot do {} at batch {batch}", work.name());
                    if document.warnings.last() != Some(&why) {
                        document.warnings.push(why);
                    }
                }
                progress.advance(1);
            }
        }
    }
    if rows.is_empty() {
        return Err(Error::new(
            "the model can do nothing of what was to be measured",
            file.path(),
            "--batch 1",
        ));
    }
    Ok(Bench {
        macs: Some(graph.macs()),
        bits,
        rows,
    })
}

fn of_training(
    args: &BenchArgs,
    (seed, threads): (u64, &[usize]),
    console: &Console,
) -> Result<Bench> {
    let trained = training::Work::ALL.map(|work| (Some(work), work.name()));
    let mut all = trained.to_vec();
    all.push((None, TRIAD));
    let works = chosen(args, &all)?;
    let progress = console.progress("", (works.len() * threads.len()) as u64);
    let row = |work: Option<training::Work>, threads: usize, progress: &Progress| {
        progress.note(work.map_or(TRIAD, training::Work::name).to_string());
        let row = match work {
            Some(work) => work.row(threads, args.seconds, seed),
            None => memory::triad(threads, args.seconds),
        };
        progress.advance(1);
        row
    };
    let mut rows: Vec<BenchRow> = Vec::new();
    for &work in &works {
        for &threads in threads {
            rows.extend(row(work, threads, &progress)?);
        }
    }
    Ok(Bench {
        rows,
        ..Bench::default()
    })
}
