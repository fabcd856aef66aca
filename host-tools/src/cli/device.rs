//! `foolproof device`: the same evaluation on a chip.

pub(super) mod advgan;
mod alone;
pub(super) mod sample;

use super::Ended;
use super::args::{DeviceArgs, DeviceRunArgs, DeviceWhat};
use super::console::Console;
use super::model::ModelFile;
use super::spinner::Spinner;
use crate::classifier::{Classifier, Inputs};
use crate::data::{self, Dataset, Purpose};
use crate::demo::device_entry;
use crate::device::{self, Board, Work, compare_emulated};
use crate::document::{self, Document};
use crate::error::{Error, Result};
use crate::graph::Cut;
use crate::report::{agreement, terminal};
use comfy_table::{Table, presets};
use foolproof::attack::Spec;
use foolproof::kernels::Kernels;
use std::path::Path;
use std::time::Duration;

pub(crate) fn run(args: &DeviceArgs, seed: u64, console: &Console) -> Result<Ended> {
    match &args.what {
        DeviceWhat::List => list(console),
        DeviceWhat::Run(args) => on_boards("device run", args, seed, console, &served),
        DeviceWhat::Eval(args) => on_boards("device eval", args, seed, console, &alone::evaluate),
        DeviceWhat::Sample(args) => sample::run(args, seed, console),
        DeviceWhat::Advgan(args) => advgan::run(args, seed, console),
    }
}

fn list(console: &Console) -> Result<Ended> {
    let mut document = Document::new("device list");
    document.boards = device::boards()
        .iter()
        .map(|board| document::Board {
            name: board.name.clone(),
            core: board.core.clone(),
            tested: match board.tested.as_str() {
                "emulator" => "run in an emulator".into(),
                other => other.into(),
            },
            flash_bytes: board.flash as usize,
            slot_bytes: board.slot.size as usize,
            ram_bytes: board.ram as usize,
            session_bytes: board.session_ram as usize,
        })
        .collect();
    console.finish(&document, || {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header([
            "board",
            "core",
            "flash",
            "slot for a model",
            "RAM",
            "for a session",
            "tested",
        ]);
        for board in &document.boards {
            let kib = |bytes: usize| format!("{} KiB", bytes >> 10);
            table.add_row([
                &board.name,
                &board.core,
                &kib(board.flash_bytes),
                &kib(board.slot_bytes),
                &kib(board.ram_bytes),
                &kib(board.session_bytes),
                &board.tested,
            ]);
        }
        table.to_string()
    })?;
    Ok(Ended::Well)
}

/// The boards of these names, `all` for every one; each at most once.
pub(crate) fn chosen_boards(names: &[String]) -> Result<Vec<&'static Board>> {
    if names.iter().any(|name| name == "all") {
        return Ok(device::boards().iter().collect());
    }
    let mut chosen: Vec<&'static Board> = Vec::new();
    for name in names {
        let board = device::board(name).map_err(|_| {
            let known: Vec<&str> = device::boards()
                .iter()
                .map(|board| board.name.as_str())
                .collect();
            Error::new(
                format!("unknown board {name:?}"),
                "--board",
                format!("one of {}, or all", known.join(", ")),
            )
        })?;
        if !chosen.contains(&board) {
            chosen.push(board);
        }
    }
    Ok(chosen)
}

/// A command that is stopped takes its emulators and their files along.
pub(crate) fn leave_nothing_behind() -> Result<()> {
    device::remove_folders_on_signals()
        .map_err(|error| Error::new(format!("{error:#}"), "starting", "a system with signals"))
}

/// One board's work, ready to be done.
pub(crate) struct Job<'a> {
    board: &'static Board,
    /// Its firmware.
    elf: &'a Path,
    work: Work<'a>,
    limit: Duration,
}

type Way = dyn Fn(&Job<'_>, &mut Vec<String>) -> anyhow::Result<document::Device>;

fn on_boards(
    command: &str,
    args: &DeviceRunArgs,
    seed: u64,
    console: &Console,
    way: &Way,
) -> Result<Ended> {
    let boards = chosen_boards(&args.board)?;
    leave_nothing_behind()?;
    if args.eps.is_none() && !args.settings.is_empty() {
        return Err(Error::new(
            "without --eps nothing is attacked",
            "--steps, --starts, --set, --max-queries and --max-gradients",
            "give --eps, or none of them",
        ));
    }
    let plans = match args.eps {
        Some(epsilon) => args.attack.plans(&args.settings.terms(epsilon, None))?,
        None => Vec::new(),
    };
    let file = ModelFile::read_for(&args.model, &args.input, args.runtime.numerics)?
        .within(args.memory)?;
    let data = data::load(&args.data.data, Purpose::Judge)?;
    let data = data.take(args.data.limit.unwrap_or(usize::MAX))?;
    // The chip's bits are those of the scalar kernels.
    let (host, inputs) = file.with_data(&args.input, Kernels::Scalar, &data)?;
    let labels = data.require_labels(command)?;
    let mut specs: Vec<Spec> = Vec::new();
    for plan in &plans {
        specs.push(plan.spec(&host).ok_or_else(|| {
            Error::new(
                format!("{} runs on the host only", plan.name),
                "--attack",
                "fgsm, bim, pgd, square, nes, universal-online or quick: attacks that run on the chip",
            )
        })?);
    }

    let (evaluation, mut document) = super::evaluate::measure(
        command,
        &subject(&file, &host, &inputs, &data, seed),
        &plans,
        &super::evaluate::Way::default(),
        console,
    )?;
    document
        .warnings
        .extend(super::evaluate::gradients_alone(&evaluation));
    for board in boards {
        let at_board = |error: anyhow::Error| {
            let what = format!("{error:#}");
            let right = match what.contains("refuses") {
                true => "foolproof inspect says which boards a model fits",
                false => "",
            };
            Error::new(what, format!("board {}", board.name), right)
        };
        console.say(format!("build the firmware for {} ...", board.name));
        let spinner = Spinner::new("building");
        let elf = device::prepare(board).map_err(at_board)?;
        drop(spinner);
        console.say(format!(
            "run on {} ({}, emulated) ...",
            board.name, board.core
        ));
        let steps = labels.len() * (1 + specs.len());
        let progress = console.progress(&board.name, steps as u64);
        let work = Work {
            image: file.image().bytes(),
            classifier: host,
            inputs: &inputs,
            labels,
            attacks: &specs,
            seed,
            progress: &|count| progress.advance(count),
        };
        let job = Job {
            board,
            elf: &elf,
            work,
            limit: Duration::from_secs(args.timeout),
        };
        let entry = way(&job, &mut document.warnings).map_err(at_board)?;
        if let (Some(passes), Some(extra_forwards)) =
            (entry.attack_passes, entry.attack_extra_forwards)
        {
            let cut = Cut {
                passes,
                extra_forwards,
            };
            console.say(format!("{}: backward is cut to fit: {cut}", board.name));
        }
        document.device.push(entry);
    }
    console.finish(&document, || terminal::render(&document))?;
    Ok(disagreement(&document, console))
}

fn subject<'a>(
    file: &'a ModelFile,
    classifier: &'a Classifier<'a>,
    inputs: &'a Inputs,
    data: &'a Dataset,
    seed: u64,
) -> super::evaluate::Subject<'a> {
    super::evaluate::Subject {
        file,
        classifier,
        inputs,
        data,
        seed,
    }
}

/// The host asks and the chip answers, sample by sample.
fn served(job: &Job<'_>, warnings: &mut Vec<String>) -> anyhow::Result<document::Device> {
    let comparison = compare_emulated(job.board, job.elf, &job.work, job.limit)?;
    if let Some(difference) = &comparison.first_difference {
        warnings.push(format!("{}: {difference}", job.board.name));
    }
    Ok(device_entry(job.board, &comparison, &job.work))
}

/// A chip that says something else than the host is a missed promise: exit code 1.
pub(crate) fn disagreement(document: &Document, console: &Console) -> Ended {
    let differ = document
        .device
        .iter()
        .any(|d| d.logit_mismatches + d.adversarial_mismatches > 0);
    match agreement(document) {
        Some(text) if differ => {
            console.say(text);
            Ended::Missed
        }
        _ => Ended::Well,
    }
}
