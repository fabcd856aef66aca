//! Instructions per multiply-accumulate of single int8 layers on the emulated chips: the firmware's program `layers`, beside
//! the budgets in `firmware/budgets.toml` and the figures of CMSIS-NN.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::boards::{self, Board};
use crate::firmware::build_program;
use crate::setup::Toolchain;
use crate::tool::{output, root};
use crate::{bench_models, emulator};

/// Layers, their multiply-accumulates, and what CMSIS-NN (99f736a6, gcc 12.2, `-mcpu=cortex-m4`, its better optimization level) takes
/// for one of these on the emulated Cortex-M4, instructions.
const LAYERS: [(&str, &str, u64, Option<f64>); 11] = [
    (
        "conv_3x3_8_16",
        "conv 3x3, 16x16x8 to 16",
        294_912,
        Some(2.870),
    ),
    (
        "conv_3x3_16_16",
        "conv 3x3, 16x16x16 to 16",
        589_824,
        Some(2.328),
    ),
    (
        "conv_3x3_16_32_s2",
        "conv 3x3, stride 2, 16x16x16 to 32",
        294_912,
        None,
    ),
    ("conv_1x1_8_16", "conv 1x1, 16x16x8 to 16", 32_768, None),
    (
        "conv_1x1_16_32",
        "conv 1x1, 16x16x16 to 32",
        131_072,
        Some(3.975),
    ),
    (
        "conv_1x1_16_32_s2",
        "conv 1x1, stride 2, 16x16x16 to 32",
        32_768,
        None,
    ),
    (
        "conv_1x1_64_64",
        "conv 1x1, 16x16x64 to 64",
        1_048_576,
        None,
    ),
    ("conv_3x3_3_16", "conv 3x3, 16x16x3 to 16", 110_592, None),
    (
        "conv_10x4_1_64_s2",
        "conv 10x4, stride 2, 16x16x1 to 64",
        163_840,
        None,
    ),
    (
        "depthwise_3x3_16",
        "depthwise 3x3, 16x16x16",
        36_864,
        Some(8.285),
    ),
    ("dense_256_64", "dense, 256 to 64", 16_384, Some(2.075)),
];

/// By how much a budget may be exceeded.
const TOLERANCE: f64 = 1.03;

/// Instructions by layer, by board.
type Budgets = BTreeMap<String, BTreeMap<String, u64>>;

/// Measures all `boards` that have room for the layers, prints the table, and fails where a budget is exceeded. With `bless` the figures
/// become the budgets, and `docs/chip-speed.md` is written anew.
pub fn run(boards: &[Board], toolchain: &Toolchain, bless: bool) -> Result<()> {
    let mut budgets = read_budgets()?;
    let mut measured = Budgets::new();
    // 16 KB of RAM hold none of these layers.
    for board in boards.iter().filter(|board| board.name != "microbit") {
        let elf = build_program(board, toolchain, "layers")?;
        measured.insert(board.name.clone(), measure(board, &elf)?);
    }
    println!("{}", render(boards, &measured));
    if bless {
        budgets.extend(measured);
        write_budgets(&budgets)?;
        return write_page();
    }
    check(&budgets, &measured)
}

/// Writes `docs/chip-speed.md` from what is recorded of layers and of whole models, on all boards.
pub fn write_page() -> Result<()> {
    let layers = render(&boards::select(&[])?, &read_budgets()?);
    let models = bench_models::section()?;
    let path = root().join("docs/chip-speed.md");
    fs::write(&path, format!("{INTRODUCTION}\n{layers}{NOTES}\n{models}"))
        .with_context(|| format!("writing {}", path.display()))
}

/// Fails where a figure is more than 3 % above its budget, or has none.
fn check(budgets: &Budgets, measured: &Budgets) -> Result<()> {
    let mut faults = Vec::new();
    for (board, counts) in measured {
        for (layer, &count) in counts {
            let budget = budgets.get(board).and_then(|own| own.get(layer));
            match budget {
                None => faults.push(format!("{board}, {layer}: no budget")),
                Some(&budget) if count as f64 > budget as f64 * TOLERANCE => {
                    faults.push(format!(
                        "{board}, {layer}: {count} instructions, the budget is {budget}"
                    ));
                }
                Some(_) => {}
            }
        }
    }
    ensure!(
        faults.is_empty(),
        "{} (cargo xtask bench-chip --bless makes the figures the budgets)",
        faults.join("; ")
    );
    Ok(())
}

/// Runs the program `layers` in the emulator.
fn measure(board: &Board, elf: &Path) -> Result<BTreeMap<String, u64>> {
    let mut emulator = emulator::command(board, 120);
    let text = output(emulator.arg("-kernel").arg(elf))
        .with_context(|| format!("the layers on {}", board.name))?;
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, instructions, macs] = words[..] else {
            bail!("{}: {line}", board.name);
        };
        let (instructions, macs): (u64, u64) = (instructions.parse()?, macs.parse()?);
        if name == "calibration" {
            let error = instructions.abs_diff(macs);
            ensure!(
                error <= 10,
                "{}: counts {instructions} of {macs}",
                board.name
            );
        } else {
            let known = LAYERS
                .iter()
                .any(|layer| (layer.0, layer.2) == (name, macs));
            ensure!(known, "{name} with {macs} multiply-accumulates");
            counts.insert(name.to_string(), instructions);
        }
    }
    ensure!(
        counts.len() == LAYERS.len(),
        "{}: {} layers were measured, of {}",
        board.name,
        counts.len(),
        LAYERS.len()
    );
    Ok(counts)
}

const INTRODUCTION: &str = "\
# Instructions per multiply-accumulate on the chips

Made by `cargo xtask bench-chip --bless`: single int8 layers in the emulator, exact counts under its `-icount`, divided by the
multiply-accumulates of the layer (those of padding cells counted in). They are not cycles. The outputs are checked against sums made
by hand. CMSIS-NN (99f736a6, gcc 12.2, the better of -O2 and -Ofast) runs the same shapes on the same emulated Cortex-M4F.
";

const NOTES: &str = "
The counts belong to the compiler of the from-source set-up. `firmware/budgets.toml` holds the instructions of each layer; `cargo xtask
bench-chip`, and with it `cargo xtask ci`, fails where one is exceeded by 3 %.

On Cortex-M55 the inner loops of a convolution make four outputs at a time, two pixels by two channels. With filters of up to 16 weights they
take 18 instructions, up to 32 weights 24, and with longer filters 16, and 9 for each 16 weights. So filters of fewer than 13 weights (1x1 on
8 channels, 3x3 on one) cannot come down to 0.35 per multiply-accumulate: of an output's 4.5 instructions one multiplies, the others load,
requantize and store. Putting windows together comes on top; it weighs most where output channels are few and images small.
";

fn render(boards: &[Board], counts: &Budgets) -> String {
    let boards = boards
        .iter()
        .filter_map(|board| Some((board, counts.get(&board.name)?)));
    let (boards, counts): (Vec<_>, Vec<_>) = boards.unzip();
    let mut text = String::from("| layer | CMSIS-NN, M4 |");
    for board in &boards {
        let _ = write!(text, " {} |", board.core);
    }
    let _ = writeln!(text, "\n|---|---|{}", "---|".repeat(boards.len()));
    for (layer, title, macs, peer) in LAYERS {
        let peer = peer.map_or("–".to_string(), |peer| format!("{peer:.3}"));
        let _ = write!(text, "| {title} | {peer} |");
        for counts in &counts {
            let ratio = counts.get(layer).map(|&count| count as f64 / macs as f64);
            let _ = write!(text, " {:.3} |", ratio.unwrap_or(f64::NAN));
        }
        text.push('\n');
    }
    text
}

fn budgets_file() -> PathBuf {
    root().join("firmware/budgets.toml")
}

fn read_budgets() -> Result<Budgets> {
    let path = budgets_file();
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{}", path.display()))
}

fn write_budgets(budgets: &Budgets) -> Result<()> {
    let mut text = String::from(
        "# Instructions of single int8 layers on each emulated board. `cargo xtask bench-chip` fails where one is exceeded by 3 %;\n# with --bless it writes this file.\n",
    );
    for (board, layers) in budgets {
        let _ = writeln!(text, "\n[{board}]");
        for (layer, instructions) in layers {
            let _ = writeln!(text, "{layer} = {instructions}");
        }
    }
    let path = budgets_file();
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}
