//! `foolproof bench`: how fast a model or training is on this machine.

use super::Ended;
use super::args::BenchArgs;
use super::console::{Console, warning_lines};
use super::model::ModelFile;
use crate::bench::{machine, model, training};
use crate::document::{Bench, BenchBits, BenchRow, Document};
use crate::error::{Error, Result};
use crate::graph::from_image;
use crate::report::speed;
use std::path::Path;
use std::thread::available_parallelism;

/// Random inputs on which an int8 model's answers are compared with the scalar kernels'.
const COMPARED: usize = 100;

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
        None => without_model(args, (seed, &threads), console)?,
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
        kernels: args.kernels.fast(),
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

/// What is measured without a model.
#[derive(Clone, Copy)]
enum Alone {
    Training(training::Work),
    Machine(machine::Work),
}

impl Alone {
    fn name(self) -> &'static str {
        match self {
            Alone::Training(work) => work.name(),
            Alone::Machine(work) => work.name(),
        }
    }
}

fn without_model(
    args: &BenchArgs,
    (seed, threads): (u64, &[usize]),
    console: &Console,
) -> Result<Bench> {
    let training = training::Work::ALL.map(Alone::Training);
    let machine = machine::Work::ALL.map(Alone::Machine);
    let all = training.into_iter().chain(machine);
    let all: Vec<(Alone, &str)> = all.map(|work| (work, work.name())).collect();
    let works = chosen(args, &all)?;
    let progress = console.progress("", (works.len() * threads.len()) as u64);
    let mut rows: Vec<BenchRow> = Vec::new();
    for &work in &works {
        for &threads in threads {
            progress.note(work.name().to_string());
            rows.extend(match work {
                Alone::Training(work) => work.row(threads, args.seconds, seed)?,
                Alone::Machine(work) => work.row(threads, args.seconds)?,
            });
            progress.advance(1);
        }
    }
    Ok(Bench {
        rows,
        ..Bench::default()
    })
}
