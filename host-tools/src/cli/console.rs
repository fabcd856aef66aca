//! What a command says while and after it runs.

use crate::document::Document;
use crate::error::{Error, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Where output goes: a document or text on stdout, everything else on stderr.
#[derive(Debug)]
pub(crate) struct Console {
    json: bool,
}

/// Nothing shorter than this gets a progress bar.
const PATIENCE: Duration = Duration::from_secs(2);

impl Console {
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// A bar for `total` steps, drawn on a terminal once the work has taken two seconds.
    pub fn progress(&self, what: &str, total: u64) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        let style =
            ProgressStyle::with_template("{msg} [{bar:32}] {pos}/{len} {elapsed} (left: {eta})");
        bar.set_style(
            style
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> "),
        );
        bar.set_message(what.to_string());
        Progress {
            bar,
            started: Instant::now(),
            shown: AtomicBool::new(false),
        }
    }

    /// A line for people who watch.
    pub fn say(&self, text: impl std::fmt::Display) {
        complain(text);
    }

    /// Ends a command: the document with `--json`, the text without.
    pub fn finish(&self, document: &Document, text: impl FnOnce() -> String) -> Result<()> {
        let output = match self.json {
            true => to_json(document)?,
            false => text(),
        };
        let mut stdout = std::io::stdout().lock();
        let written = writeln!(stdout, "{}", output.trim_end()).and_then(|()| stdout.flush());
        printed(written)
    }
}

/// What becomes of writing to stdout: a reader that closed the pipe has what it wanted, any other loss is an error. A stdout that
/// was closed before the start (`>&-`) is `/dev/null` to us: Rust's runtime puts it there before any code of ours runs, and what
/// it looks like then is what `/dev/null` opened by other programs looks like. Who closes stdout wants no output, and gets the exit code.
pub(crate) fn printed(written: io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::new(
            format!("cannot write the result ({error})"),
            "stdout",
            "a place that can be written",
        )),
        _ => Ok(()),
    }
}

/// A line on stderr. Where stderr is lost nobody reads it, and the exit code still tells.
pub(crate) fn complain(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// The document's warnings, each on a line of its own, to follow other text.
pub(crate) fn warning_lines(document: &Document) -> String {
    let lines = document.warnings.iter();
    lines.map(|line| format!("\nwarning: {line}")).collect()
}

/// The document as it is printed.
pub(crate) fn to_json(document: &Document) -> Result<String> {
    serde_json::to_string_pretty(document)
        .map_err(|error| Error::new(format!("cannot write the document ({error})"), "--json", ""))
}

/// A progress bar that appears when the work turns out to be long.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
    shown: AtomicBool,
}

impl Progress {
    /// `steps` more are done.
    pub fn advance(&self, steps: u64) {
        if self.started.elapsed() > PATIENCE && !self.shown.swap(true, Ordering::Relaxed) {
            // Draws nothing where stderr is not a terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.inc(steps);
    }

    /// Shows how things stand beside the bar.
    pub fn note(&self, text: String) {
        self.bar.set_message(text);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
