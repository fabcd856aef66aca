//! Building the firmware, by `cargo xtask firmware`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Board;

/// Does all that running `board` in its emulator takes: installs the emulator if it is missing and
/// may be installed, builds the firmware if it is not up to date, and returns its ELF file.
///
/// # Errors
/// One line that says what cannot be had, and which package or command would help.
pub fn prepare(board: &Board) -> Result<PathBuf> {
    let is_installed = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(&board.qemu).is_file())
    });
    if !is_installed {
        xtask(&["setup", "--board", &board.name])
            .with_context(|| format!("the emulator of {} cannot be had", board.name))?;
    }
    firmware_elf(board)
}

/// Builds the firmware for `board` if it is not up to date, and returns its ELF file.
///
/// This needs the repository; the error says in one line why it cannot be done. What the
/// bare-metal target takes is set up on the way; the environment variable
/// `FOOLPROOF_SETUP=from-source` keeps rustup out of it.
pub fn firmware_elf(board: &Board) -> Result<PathBuf> {
    let text = xtask(&["firmware", "--board", &board.name])
        .with_context(|| format!("the firmware for {} cannot be built", board.name))?;
    let path = PathBuf::from(text.lines().last().unwrap_or_default());
    if !path.is_file() {
        bail!("cargo xtask firmware printed {text:?}, which is no file");
    }
    Ok(path)
}

/// Runs `cargo xtask` and returns what it printed.
fn xtask(arguments: &[&str]) -> Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if !root.join("firmware/Cargo.toml").is_file() {
        bail!(
            "the firmware's sources are not at {}; run from the repository",
            root.display()
        );
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .arg("xtask")
        .args(arguments)
        .current_dir(&root)
        .stdin(Stdio::null())
        .output()
        .context("starting cargo")?;
    if !output.status.success() {
        bail!("{}", reason(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The line of a failed build's output that says most.
fn reason(text: &str) -> &str {
    let last = |start: &str| text.lines().rev().find(|line| line.starts_with(start));
    last("error")
        .or_else(|| last("xtask: ")?.strip_prefix("xtask: "))
        .or_else(|| text.lines().rev().find(|line| !line.trim().is_empty()))
        .unwrap_or("cargo said nothing")
}
