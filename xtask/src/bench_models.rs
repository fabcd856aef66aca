//! Instructions of whole models on the emulated chips: the firmware's program `models`, one run forward, and one forward and back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::boards::Board;
use crate::firmware::{build_program, folder};
use crate::setup::Toolchain;
use crate::tool::output;

/// Instructions of one model on one board.
#[derive(Clone, Copy, Debug)]
pub struct Whole {
    /// Of one run.
    pub forward: u64,
    /// Of one run and the way back to the input.
    pub gradient: u64,
    /// CRC-32 of output and gradient.
    pub checksum: u64,
}

/// Measures `models`, images, on `boards`, and prints a line for each; fails where boards answer differently.
pub fn print(boards: &[Board], toolchain: &Toolchain, models: &[PathBuf]) -> Result<()> {
    let mut checksums = vec![None; models.len()];
    for board in boards {
        let elf = build_program(board, toolchain, "models")?;
        for (model, first) in models.iter().zip(&mut checksums) {
            let whole = measure(board, &elf, model)?;
            println!(
                "{} on {}: forward {}, forward and back {}, {:.3} times as many, checksum {:08x}",
                model.display(),
                board.name,
                whole.forward,
                whole.gradient,
                whole.gradient as f64 / whole.forward as f64,
                whole.checksum
            );
            ensure!(
                *first.get_or_insert(whole.checksum) == whole.checksum,
                "{} answers otherwise than the first board",
                board.name
            );
        }
    }
    Ok(())
}

/// Runs the program `models` in the emulator, the model image in the board's slot.
pub fn measure(board: &Board, elf: &Path, image: &Path) -> Result<Whole> {
    let bytes = fs::read(image).with_context(|| format!("reading {}", image.display()))?;
    let mut slot = u32::try_from(bytes.len())?.to_le_bytes().to_vec();
    slot.resize(16, 0);
    slot.extend(bytes);
    ensure!(
        slot.len() as u64 <= board.slot.size,
        "{} does not fit the slot of {}",
        image.display(),
        board.name
    );
    let file = folder().join(format!("slot.{}", std::process::id()));
    fs::write(&file, slot).with_context(|| format!("writing {}", file.display()))?;
    let mut emulator = Command::new("timeout");
    emulator.arg("300").arg(&board.qemu);
    emulator.args(["-machine", &board.machine, "-icount", &board.icount]);
    emulator.args(&board.args);
    emulator.args(["-nodefaults", "-display", "none", "-monitor", "none"]);
    emulator.args(["-semihosting-config", "enable=on,target=native"]);
    emulator.arg("-device").arg(format!(
        "loader,force-raw=on,file={},addr={:#x}",
        file.display(),
        board.slot.address
    ));
    let text = output(emulator.arg("-kernel").arg(elf))
        .with_context(|| format!("{} on {}", image.display(), board.name));
    fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
    let text = text?;
    let numbers: Vec<u64> = text
        .split_whitespace()
        .map(|word| word.parse())
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} on {}: {text}", image.display(), board.name))?;
    let [forward, gradient, checksum] = numbers[..] else {
        anyhow::bail!("{} on {}: {text}", image.display(), board.name);
    };
    Ok(Whole {
        forward,
        gradient,
        checksum,
    })
}
