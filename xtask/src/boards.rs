//! `firmware/boards.toml`: the boards, as far as building needs them.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// One board; the other keys of the file matter to the host tools only.
#[derive(Debug, Clone, Deserialize)]
pub struct Board {
    /// The name used everywhere; also the firmware's cargo feature.
    pub name: String,
    /// The processor core, for people.
    pub core: String,
    /// Rust's target triple.
    pub target: String,
    /// The emulator's program.
    pub qemu: String,
    /// The emulator's machine.
    pub machine: String,
    /// The emulator's arguments besides.
    #[serde(default)]
    pub args: Vec<String>,
    /// The emulator's `-icount`.
    pub icount: String,
    /// Where a model is placed.
    pub slot: Slot,
    /// What the compiler is told about the core beyond the target.
    #[serde(default)]
    pub rustflags: Vec<String>,
    /// Cargo's `opt-level`, if not that of the manifest.
    pub optimize: Option<String>,
    /// How the board was tested.
    pub tested: String,
}

/// Memory for a model, beside the firmware.
#[derive(Debug, Clone, Deserialize)]
pub struct Slot {
    /// Where it begins.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

#[derive(Deserialize)]
struct File {
    board: Vec<Board>,
}

/// The boards called `names`, or all of them if `names` is empty.
pub fn select(names: &[String]) -> Result<Vec<Board>> {
    let file: File = toml::from_str(include_str!("../../firmware/boards.toml"))
        .context("firmware/boards.toml")?;
    for name in names {
        if !file.board.iter().any(|board| &board.name == name) {
            bail!(
                "unknown board {name:?}; one of: {}",
                self::names(&file.board)
            );
        }
    }
    Ok(file
        .board
        .into_iter()
        .filter(|board| names.is_empty() || names.contains(&board.name))
        .collect())
}

/// The boards' names, for a message.
pub fn names(boards: &[Board]) -> String {
    let names: Vec<&str> = boards.iter().map(|board| board.name.as_str()).collect();
    names.join(", ")
}
