//! Instructions of whole models on the emulated chips: the firmware's program `models`, one run forward, and one forward and back.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::bench_chip;
use crate::boards::{self, Board};
use crate::emulator;
use crate::firmware::{build_program, folder};
use crate::flash::thousands;
use crate::image::Image;
use crate::setup::Toolchain;
use crate::tool::{output, root};

/// By how much a recorded figure may be exceeded.
const TOLERANCE: f64 = 1.03;

/// The four models of MLPerf Tiny, and cycles that were published for them on a Cortex-M4 at 120 MHz: of TFLite Micro's reference kernels,
/// and of the best vendor's software. In millions: milliseconds times 0.12.
const PUBLISHED: [(&str, &str, f64, f64); 4] = [
    (
        "kws_ref_model",
        "keyword spotting (DS-CNN)",
        182.0 * 0.12,
        43.0 * 0.12,
    ),
    (
        "pretrainedResnet_quant",
        "image classification (ResNet-8)",
        704.0 * 0.12,
        165.0 * 0.12,
    ),
    (
        "vww_96_int8",
        "visual wake words (MobileNet v1)",
        601.0 * 0.12,
        89.0 * 0.12,
    ),
    (
        "ad01_int8",
        "anomaly detection (autoencoder)",
        10.1 * 0.12,
        5.0 * 0.12,
    ),
];

/// Instructions of one model on one board.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whole {
    /// Multiply-accumulates of one run.
    pub macs: u64,
    /// Of one run.
    pub forward: u64,
    /// Of one run and the way back to the input.
    pub gradient: u64,
    /// CRC-32 of output and gradient.
    pub checksum: u64,
}

/// By board, by model.
type Recorded = BTreeMap<String, BTreeMap<String, Whole>>;

/// Measures `models` on `boards`, and prints a line for each; fails where boards answer differently, or where it is more than
/// recorded. With `bless` the figures are recorded, and written to `docs/chip-speed.md`.
pub fn run(boards: &[Board], toolchain: &Toolchain, models: &[PathBuf], bless: bool) -> Result<()> {
    let mut recorded = read()?;
    let mut faults = Vec::new();
    let images: Vec<Image> = models
        .iter()
        .map(|path| Image::open(path))
        .collect::<Result<_>>()?;
    let mut checksums = vec![None; images.len()];
    for board in boards {
        let elf = build_program(board, toolchain, "models")?;
        for (image, first) in images.iter().zip(&mut checksums) {
            let whole = measure(board, &elf, image)?;
            println!(
                "{} on {}: forward {}, forward and back {}, {:.3} times as many, checksum {:08x}",
                image.name,
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
            let own = recorded.entry(board.name.clone()).or_default();
            let limit = own
                .get(&image.name)
                .map(|limit| (limit.forward, limit.gradient));
            if bless {
                own.insert(image.name.clone(), whole);
            } else if let Some((forward, gradient)) = limit
                && (whole.forward as f64 > forward as f64 * TOLERANCE
                    || whole.gradient as f64 > gradient as f64 * TOLERANCE)
            {
                let (name, board) = (&image.name, &board.name);
                faults.push(format!(
                    "{name} on {board}: recorded are {forward} and {gradient}"
                ));
            }
        }
    }
    ensure!(
        faults.is_empty(),
        "{} (cargo xtask bench-chip --model M --bless records the figures)",
        faults.join("; ")
    );
    if bless {
        write(&recorded)?;
        bench_chip::write_page()?;
    }
    Ok(())
}

fn file() -> PathBuf {
    root().join("firmware/models.toml")
}

fn read() -> Result<Recorded> {
    let path = file();
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

fn write(recorded: &Recorded) -> Result<()> {
    let mut text = String::from(
        "# Instructions of whole models on emulated boards. `cargo xtask bench-chip --model M` fails where a figure is exceeded by 3 %;\n\
         # with --bless it writes this file.\n",
    );
    for (board, models) in recorded {
        for (model, whole) in models {
            let _ = writeln!(
                text,
                "\n[{board}.{model}]\nmacs = {}\nforward = {}\ngradient = {}\nchecksum = {}",
                whole.macs, whole.forward, whole.gradient, whole.checksum
            );
        }
    }
    let path = file();
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

const INTRODUCTION: &str = "\
# Whole models

Made by `cargo xtask bench-chip --board B --model M --bless`: millions of instructions of one run of the four int8 models of MLPerf Tiny, and
of one run and the gradient with respect to its input, in the emulator; in brackets instructions per multiply-accumulate. Beside them millions of
**cycles** on silicon, a Cortex-M4 at 120 MHz, from the published logs of MLPerf Tiny: TFLite Micro's reference kernels, and the best
vendor's software. An instruction takes one cycle at least, loads and taken branches more: the columns say how large the work is, not who is
faster.

";

/// The part of `docs/chip-speed.md` on whole models.
pub fn section() -> Result<String> {
    let recorded = read()?;
    let boards: Vec<Board> = boards::select(&[])?
        .into_iter()
        .filter(|board| recorded.contains_key(&board.name))
        .collect();
    let mut text = String::from(INTRODUCTION);
    text += "| model | MACs | published, reference: cycles | published, best: cycles |";
    for board in &boards {
        let _ = write!(text, " {0}: forward | {0}: and back |", board.core);
    }
    let _ = writeln!(
        text,
        "\n|---|---|---|---|{}",
        "---|---|".repeat(boards.len())
    );
    for (model, title, reference, best) in PUBLISHED {
        let on = |board: &Board| recorded.get(&board.name)?.get(model);
        let Some(macs) = boards.iter().find_map(on).map(|whole| whole.macs) else {
            continue;
        };
        let each = |millions: f64| format!("{millions:.2} ({:.2})", millions * 1e6 / macs as f64);
        let _ = write!(
            text,
            "| {title} | {} | {} | {} |",
            thousands(macs),
            each(reference),
            each(best)
        );
        for board in &boards {
            match on(board) {
                Some(whole) => {
                    let [forward, gradient] =
                        [whole.forward, whole.gradient].map(|n| each(n as f64 / 1e6));
                    let _ = write!(text, " {forward} | {gradient} |");
                }
                None => text += " – | – |",
            }
        }
        text.push('\n');
    }
    Ok(text)
}

/// Runs the program `models` in the emulator, the model image in the board's slot.
fn measure(board: &Board, elf: &Path, image: &Image) -> Result<Whole> {
    let bytes = image.bytes();
    let mut slot = u32::try_from(bytes.len())?.to_le_bytes().to_vec();
    slot.resize(16, 0);
    slot.extend(bytes);
    ensure!(
        slot.len() as u64 <= board.slot.size,
        "{} does not fit the slot of {}",
        image.name,
        board.name
    );
    let file = folder().join(format!("slot.{}", std::process::id()));
    fs::write(&file, slot).with_context(|| format!("writing {}", file.display()))?;
    let mut emulator = emulator::command(board, 300);
    emulator.arg("-device").arg(format!(
        "loader,force-raw=on,file={},addr={:#x}",
        file.display(),
        board.slot.address
    ));
    let text = output(emulator.arg("-kernel").arg(elf))
        .with_context(|| format!("{} on {}", image.name, board.name));
    fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
    let text = text?;
    let numbers: Vec<u64> = text
        .split_whitespace()
        .map(|word| word.parse())
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} on {}: {text}", image.name, board.name))?;
    let [forward, gradient, checksum] = numbers[..] else {
        anyhow::bail!("{} on {}: {text}", image.name, board.name);
    };
    let model = image.model()?;
    let tables = model.tables();
    Ok(Whole {
        macs: (0..tables.op_count()).map(|k| tables.macs(k)).sum(),
        forward,
        gradient,
        checksum,
    })
}
