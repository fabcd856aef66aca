//! `foolproof demo`: the main job on embedded data, end to end.

use super::Ended;
use super::args::DemoArgs;
use super::console::{Console, Progress, to_json};
use super::device::{chosen_boards, disagreement, leave_nothing_behind};
use super::spinner::Spinner;
use crate::demo::{Observer, Options, run as run_demo};
use crate::device::Board;
use crate::error::{Error, Result};
use crate::files;
use crate::report::{self, build, terminal};
use crate::train::classifier::Epoch;

pub(crate) fn run(args: &DemoArgs, seed: u64, console: &Console) -> Result<Ended> {
    let boards = match (args.no_chip, args.board.is_empty()) {
        (true, _) => Vec::new(),
        (false, true) => crate::device::boards().iter().take(1).collect(),
        (false, false) => chosen_boards(&args.board)?,
    };
    leave_nothing_behind()?;
    files::create_folder(&args.report)?;
    let options = Options { seed, boards };
    let mut watcher = Watcher {
        console,
        progress: None,
        spinner: None,
    };
    let demo = run_demo(&options, &mut watcher).map_err(|error| {
        Error::new(
            format!("{error:#}"),
            "demo",
            "--no-chip runs everything but the chip",
        )
    })?;
    drop(watcher);

    let mut report = demo.report;
    report.command_line = build::command_line();
    let ran = |board: &&&'static Board| {
        let devices = &report.document.device;
        devices.iter().any(|device| device.board == board.name)
    };
    let ran: Vec<&Board> = options.boards.iter().filter(ran).copied().collect();
    report.versions = build::versions(&ran);
    let files = [
        "report.html",
        "report.json",
        "digits_f32.fpi",
        "digits_int8.fpi",
        "boards.md",
    ]
    .map(|name| args.report.join(name));
    report.document.outputs = files
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    files::write(&files[0], report::page(&report).as_bytes())?;
    files::write(&files[1], to_json(&report.document)?.as_bytes())?;
    files::write(&files[2], demo.float.bytes())?;
    files::write(&files[3], demo.int8.bytes())?;
    files::write(
        &files[4],
        report::markdown::boards(&report.document).as_bytes(),
    )?;
    let document = &report.document;
    console.finish(document, || {
        format!(
            "{}\n\nOpen {} in a browser.",
            terminal::render(document),
            files[0].display()
        )
    })?;
    if let (Some(line), false) = (demo.chips_missing.first(), args.board.is_empty()) {
        // Everything else was worth writing; but this chip was asked for.
        return Err(Error::new(line, "--board", "--no-chip asks for no chip"));
    }
    Ok(disagreement(document, console))
}

/// Tells on stderr what the demo does.
struct Watcher<'a> {
    console: &'a Console,
    progress: Option<Progress>,
    /// Moves while nothing can be counted.
    spinner: Option<Spinner>,
}

impl Observer for Watcher<'_> {
    fn stage(&mut self, name: &str, steps: Option<u64>) {
        (self.progress, self.spinner) = (None, None);
        self.console.say(format!("{name} ..."));
        match steps {
            Some(steps) => self.progress = Some(self.console.progress(name, steps)),
            None => self.spinner = Some(Spinner::new(name)),
        }
    }

    fn advance(&self, count: u64) {
        if let Some(progress) = &self.progress {
            progress.advance(count);
        }
    }

    fn epoch(&mut self, epoch: &Epoch) {
        if let Some(progress) = &self.progress {
            progress.note(format!(
                "train: loss {:.4}, accuracy {:.1} %",
                epoch.loss,
                100.0 * epoch.accuracy
            ));
            progress.advance(1);
        }
    }
}
