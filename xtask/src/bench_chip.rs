//! Instructions per multiply-accumulate of single int8 layers on the emulated chips: the firmware's program `layers`, beside
//! the budgets in `firmware/budgets.toml` and the figures of CMSIS-NN.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::boards::Board;
use crate::firmware::build_program;
use crate::setup::Toolchain;
use crate::tool::{output, root};

/// Layers and what CMSIS-NN (99f736a6, gcc 12.2, `-mcpu=cortex-m4`, its better optimization level) takes for them on the emulated
/// Cortex-M4, instructions per multiply-accumulate.
const LAYERS: [(&str, &str, Option<f64>); 6] = [
    ("conv_3x3_8_16", "conv 3x3, 16x16x8 to 16", Some(2.870)),
    ("conv_3x3_16_16", "conv 3x3, 16x16x16 to 16", Some(2.328)),
    ("conv_1x1_16_32", "conv 1x1, 16x16x16 to 32", Some(3.975)),
    ("conv_3x3_3_16", "conv 3x3, 16x16x3 to 16", None),
    ("depthwise_3x3_16", "depthwise 3x3, 16x16x16", Some(8.285)),
    ("dense_256_64", "dense, 256 to 64", Some(2.075)),
];

/// By how much a budget may be exceeded.
const TOLERANCE: f64 = 1.03;

/// Instructions by layer, by board.
type Budgets = BTreeMap<String, BTreeMap<String, u64>>;

/// One layer on one board.
struct Count {
    instructions: u64,
    macs: u64,
}

/// Measures all `boards` that have room for the layers, prints the table, and fails where a budget is exceeded. With `bless` the figures
/// become the budgets, and the table `docs/chip-speed.md`.
pub fn run(boards: &[Board], toolchain: &Toolchain, bless: bool) -> Result<()> {
    let mut budgets = read_budgets()?;
    let mut table: Vec<(String, BTreeMap<String, Count>)> = Vec::new();
    // 16 KB of RAM hold none of these layers.
    for board in boards.iter().filter(|board| board.name != "microbit") {
        let elf = build_program(board, toolchain, "layers")?;
        table.push((board.name.clone(), measure(board, &elf)?));
    }
    let text = render(boards, &table);
    println!("{text}");
    if bless {
        for (board, counts) in &table {
            let counts = counts.iter();
            let own = counts.map(|(layer, count)| (layer.clone(), count.instructions));
            budgets.insert(board.clone(), own.collect());
        }
        write_budgets(&budgets)?;
        if table.len() + 1 >= boards.len() && boards.len() > 1 {
            let path = root().join("docs/chip-speed.md");
            fs::write(&path, format!("{INTRODUCTION}\n{text}{NOTES}"))
                .with_context(|| format!("writing {}", path.display()))?;
        }
        return Ok(());
    }
    check(&budgets, &table)
}

/// Fails where a figure is more than 3 % above its budget, or has none.
fn check(budgets: &Budgets, table: &[(String, BTreeMap<String, Count>)]) -> Result<()> {
    let mut faults = Vec::new();
    for (board, counts) in table {
        for (layer, count) in counts {
            let budget = budgets.get(board).and_then(|own| own.get(layer));
            match budget {
                None => faults.push(format!("{board}, {layer}: no budget")),
                Some(&budget) if count.instructions as f64 > budget as f64 * TOLERANCE => {
                    faults.push(format!(
                        "{board}, {layer}: {} instructions, the budget is {budget}",
                        count.instructions
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
fn measure(board: &Board, elf: &Path) -> Result<BTreeMap<String, Count>> {
    let mut emulator = Command::new("timeout");
    emulator.arg("120").arg(&board.qemu);
    emulator.args(["-machine", &board.machine, "-icount", &board.icount]);
    emulator.args(&board.args);
    emulator.args(["-nodefaults", "-display", "none", "-monitor", "none"]);
    emulator.args(["-semihosting-config", "enable=on,target=native"]);
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
            counts.insert(name.to_string(), Count { instructions, macs });
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
";

fn render(boards: &[Board], table: &[(String, BTreeMap<String, Count>)]) -> String {
    let mut text = String::from("| layer | CMSIS-NN, M4 |");
    for (name, _) in table {
        let core = boards.iter().find(|board| &board.name == name);
        let core = core.map_or("", |board| board.core.as_str());
        let _ = write!(text, " {core} |");
    }
    let _ = writeln!(text, "\n|---|---|{}", "---|".repeat(table.len()));
    for (layer, title, peer) in LAYERS {
        let peer = peer.map_or("–".to_string(), |peer| format!("{peer:.3}"));
        let _ = write!(text, "| {title} | {peer} |");
        for (_, counts) in table {
            let ratio = counts.get(layer);
            let ratio = ratio.map_or(0.0, |count| count.instructions as f64 / count.macs as f64);
            let _ = write!(text, " {ratio:.3} |");
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
