//! The command line: what is typed, and what comes back.
//!
//! Exit codes: 0 done; 1 the run worked but missed a threshold that the user set; 2 bad usage or bad input, with exactly one
//! line on stderr. With `--json` stdout holds one document and nothing else.

mod args;
mod attack;
mod attacks;
mod bench;
mod console;
mod data;
mod demo;
mod device;
mod evaluate;
mod infer;
mod inspect;
mod model;
mod pack;
mod quantize;
mod serve;
mod spinner;
mod target;
mod train;

pub use args::Cli;
use args::Command;
use clap::Parser;
use clap::error::ErrorKind;
use console::Console;
use std::process::ExitCode;

use crate::error::{Error, Result};

/// How a command ended that did its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Everything is as the user wished.
    Well,
    /// A threshold that the user set was missed.
    Missed,
}

/// Parses the process's arguments, runs the command and says how it went.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match dispatch(&cli) {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::Missed) => ExitCode::from(1),
        Err(error) => {
            console::complain(format!("error: {error}"));
            ExitCode::from(2)
        }
    }
}

fn dispatch(cli: &Cli) -> Result<Ended> {
    if let Some(threads) = cli.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .map_err(|error| {
                Error::new(
                    format!("cannot start {threads} threads ({error})"),
                    "--threads",
                    "fewer threads",
                )
            })?;
    }
    let console = Console::new(cli.json);
    match &cli.command {
        Command::Demo(args) => demo::run(args, cli.seed, &console),
        Command::Inspect(args) => inspect::run(args, &console),
        Command::Infer(args) => infer::run(args, cli.seed, &console),
        Command::Attack(args) => attack::run(args, cli.seed, &console),
        Command::Attacks => attacks::run(&console),
        Command::Data(args) => data::run(args, &console),
        Command::Evaluate(args) => evaluate::run(args, cli.seed, &console),
        Command::Serve(args) => serve::run(args),
        Command::Train(args) => train::run(args, cli.seed, &console),
        Command::Quantize(args) => quantize::run(args, &console),
        Command::Pack(args) => pack::run(args, &console),
        Command::Bench(args) => bench::run(args, cli.seed, cli.threads, &console),
        Command::Device(args) => device::run(args, cli.seed, &console),
    }
}

/// Help and version go to stdout; any other complaint of the parser becomes one line.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return match console::printed(error.print()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                console::complain(format!("error: {error}"));
                ExitCode::from(2)
            }
        };
    }
    console::complain(one_line(error));
    ExitCode::from(2)
}

fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    // The parser's message comes first, then tips, usage and a pointer to the help, each after an empty line.
    let message: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: "));
    match usage {
        Some(usage) => format!("{}; usage: {usage}", message.join(" ")),
        None => format!("{}; see foolproof --help", message.join(" ")),
    }
}
