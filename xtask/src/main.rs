//! Set-up, firmware builds and checks: what a shell script would do, in Rust.
//!
//! `cargo xtask setup` makes this machine able to build and emulate the firmware, `cargo xtask
//! firmware` builds it, `cargo xtask ci` runs everything that must pass before a change is merged.

mod aarch64;
mod apt;
mod avx512;
mod bench_chip;
mod bench_models;
mod boards;
mod ci;
mod emulator;
mod firmware;
mod flash;
mod image;
mod oracle;
mod setup;
mod source;
mod tool;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use pico_args::Arguments;

use crate::boards::Board;
use crate::oracle::Oracle;
use crate::setup::Way;

const HELP: &str = "\
cargo xtask setup    [--from-source] [--board B]...   bare-metal targets and emulators
cargo xtask setup    --oracle                         the vendors' interpreters, which tests compare with (Python)
cargo xtask firmware --board B [--from-source]        build; the last line on stdout is the ELF's path
cargo xtask bench-chip [--board B]... [--bless]       instructions per MAC of int8 layers; --bless writes the budgets
cargo xtask bench-chip --model M... [--board B]... [--bless]  instructions of whole models, forward and back
cargo xtask flash    --board B... --model M... [--input BYTES] [--bless]   a program with one model and its operators only: flash, stack, buffer
cargo xtask aarch64  [--from-source]                  the engine on an emulated 64-bit Arm: build, lints, tests
cargo xtask avx512                                    kernel tests on an emulated CPU with AVX-512 (Bochs, Debian's packages; no part of ci)
cargo xtask ci       [--from-source]                  every check, one verdict
cargo xtask boards                                    what the firmware supports

--from-source builds Rust's `core` for the bare-metal targets from source (for 64-bit Arm: takes Debian's libraries) and never calls rustup;
the environment variable FOOLPROOF_SETUP=from-source means the same.";

fn main() -> ExitCode {
    match run(Arguments::from_env()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(mut arguments: Arguments) -> Result<ExitCode> {
    if arguments.contains(["-h", "--help"]) {
        println!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    let command = arguments.subcommand()?;
    let way = Way::from_flag(arguments.contains("--from-source"))?;
    let oracle = arguments.contains("--oracle");
    let bless = arguments.contains("--bless");
    let names: Vec<String> = arguments.values_from_str("--board")?;
    let input: Option<PathBuf> = arguments.opt_value_from_str("--input")?;
    let models: Vec<PathBuf> = arguments.values_from_str("--model")?;
    let rest = arguments.finish();
    if let Some(extra) = rest.first() {
        bail!("unexpected argument {extra:?}; see cargo xtask --help");
    }
    let boards = boards::select(&names)?;
    if oracle && (command.as_deref() != Some("setup") || !names.is_empty()) {
        bail!("--oracle belongs to setup, and to no board");
    }
    if bless && !matches!(command.as_deref(), Some("bench-chip" | "flash")) {
        bail!("--bless belongs to bench-chip and flash");
    }
    if input.is_some() && command.as_deref() != Some("flash") {
        bail!("--input belongs to flash");
    }
    match command.as_deref() {
        Some("setup") if oracle => match oracle::install()? {
            Oracle::Ready(folder) => println!("{}", folder.display()),
            Oracle::Unavailable(why) => bail!("the interpreters cannot be installed: {why}"),
        },
        Some("setup") => {
            setup::toolchain(&targets(&boards), way)?;
            emulator::install(&boards)?;
        }
        Some("firmware") => {
            if names.is_empty() {
                bail!("firmware needs --board, one of: {}", boards::names(&boards));
            }
            for board in &boards {
                println!("{}", firmware::build(board, way)?.display());
            }
        }
        Some("bench-chip") => {
            let toolchain = setup::toolchain(&targets(&boards), way)?;
            emulator::install(&boards)?;
            match models.is_empty() {
                true => bench_chip::run(&boards, &toolchain, bless)?,
                false => bench_models::run(&boards, &toolchain, &models, bless)?,
            }
        }
        Some("flash") => {
            if names.is_empty() || models.is_empty() {
                bail!(
                    "flash needs --model, and --board, one of: {}",
                    boards::names(&boards)
                );
            }
            let toolchain = setup::toolchain(&targets(&boards), way)?;
            emulator::install(&boards)?;
            flash::run(&boards, &toolchain, &models, (input.as_deref(), bless))?;
        }
        Some("aarch64") => {
            let machine = aarch64::set_up(way)?;
            machine.build()?;
            machine.lint()?;
            machine.test()?;
        }
        Some("avx512") => avx512::test()?,
        Some("ci") => return ci::run(way),
        Some("boards") => {
            for board in &boards {
                println!(
                    "{:<12} {:<12} {:<28} tested: {}",
                    board.name, board.core, board.target, board.tested
                );
            }
        }
        Some(other) => bail!("unknown command {other:?}; see cargo xtask --help"),
        None => println!("{HELP}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// The boards' targets, each once.
fn targets(boards: &[Board]) -> Vec<&str> {
    let mut targets: Vec<&str> = boards.iter().map(|board| board.target.as_str()).collect();
    targets.sort_unstable();
    targets.dedup();
    targets
}
