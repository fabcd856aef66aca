//! Building the firmware for one board.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::boards::Board;
use crate::setup::{self, Toolchain, Way};
use crate::tool::{root, run, step, target_dir};

/// Builds the firmware for `board`, with the toolchain that can be had, and returns the ELF's path.
pub fn build(board: &Board, way: Way) -> Result<PathBuf> {
    let toolchain = setup::toolchain(&[&board.target], way)?;
    build_with(board, &toolchain)
}

/// Builds the firmware for `board` with `toolchain`.
pub fn build_with(board: &Board, toolchain: &Toolchain) -> Result<PathBuf> {
    build_program(board, toolchain, "foolproof-firmware")
}

/// Builds one of the firmware's programs for `board` with `toolchain`, and returns the ELF's path.
pub fn build_program(board: &Board, toolchain: &Toolchain, program: &str) -> Result<PathBuf> {
    let mut build = toolchain.cargo_for(board);
    if let Some(level) = &board.optimize {
        build.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", level);
    }
    let title = match program {
        "foolproof-firmware" => board.name.clone(),
        _ => format!("{}.{program}", board.name),
    };
    build_by(build, board, program, (&title, &[]))
}

/// Builds `program` with `cargo`, which has its environment, and more arguments, and keeps the ELF under the name `title`.
pub fn build_by(
    mut cargo: Command,
    board: &Board,
    program: &str,
    (title, more): (&str, &[&str]),
) -> Result<PathBuf> {
    let (out, builds) = (folder(), builds(board));
    step(format!("building the firmware for {title}"));
    cargo
        .current_dir(root().join("firmware"))
        .args(["build", "--release", "--locked", "--quiet"])
        .args(["--bin", program])
        .args(board_arguments(board))
        .args(more)
        .arg("--target-dir")
        .arg(&builds);
    run(&mut cargo).with_context(|| format!("the firmware for {}", board.name))?;
    // Boards share targets, and cargo's own output has one name: keep one ELF a board.
    let built = builds.join(&board.target).join("release").join(program);
    let elf = out.join(format!("{title}.elf"));
    let partial = out.join(format!("{title}.elf.{}", std::process::id()));
    fs::copy(&built, &partial).with_context(|| format!("copying {}", built.display()))?;
    fs::rename(&partial, &elf).with_context(|| format!("writing {}", elf.display()))?;
    Ok(elf)
}

/// The cargo arguments that pick a board.
pub fn board_arguments(board: &Board) -> [String; 4] {
    [
        "--target".to_string(),
        board.target.clone(),
        "--features".to_string(),
        board.name.clone(),
    ]
}

/// Cargo's folder for what is built for `board`. With `--remap-path-prefix` among the compiler's flags cargo keeps one build of a crate a
/// target, whatever the other flags: boards with flags of their own would drive out each other's.
pub fn builds(board: &Board) -> PathBuf {
    match board.rustflags.is_empty() {
        true => folder(),
        false => folder().join(&board.name),
    }
}

/// Where firmware goes.
pub fn folder() -> PathBuf {
    target_dir().join("firmware")
}
