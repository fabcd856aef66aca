//! A firmware that runs one model and holds only what that model needs: how much flash, stack and buffer it takes, by section of the
//! ELF and by running it in the emulator, beside the limits in `firmware/flash.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use foolproof::kernels::Kernels;
use foolproof::memory::{self, Mode, Role};
use foolproof::model::format::ALIGN;
use foolproof::model::{Model, Tables};
use foolproof::session::{Options, Session};
use foolproof::tensor::{DType, Data};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind};
use serde::Deserialize;

use crate::boards::{self, Board};
use crate::emulator;
use crate::firmware::{build_by, build_with, folder};
use crate::image::{Aligned, Image};
use crate::setup::Toolchain;
use crate::tool::{output, root, step};

/// The program is built for size, whatever the board: the loops that take the time are assembly.
const OPTIMIZE: &str = "s";

/// By how much a recorded figure may be exceeded.
const TOLERANCE: f64 = 1.03;

/// The operators' features and the modules that hold their code and nothing else.
const MODULES: [(&str, &[&str]); 20] = [
    ("op-conv-transpose2d", &["ops::conv_transpose"]),
    ("op-dense", &["ops::dense", "scalar::dense"]),
    ("op-add", &["ops::arithmetic"]),
    ("op-mul", &["ops::arithmetic"]),
    ("op-avg-pool2d", &["ops::pool"]),
    ("op-max-pool2d", &["ops::pool"]),
    ("op-softmax", &["ops::softmax"]),
    ("op-unary", &["ops::unary"]),
    ("op-batch-norm", &["ops::batch_norm"]),
    ("op-quantize", &["ops::quantize"]),
    ("op-dequantize", &["ops::quantize"]),
    ("op-log-softmax", &["ops::log_softmax"]),
    ("op-reduce-max", &["ops::reduce"]),
    ("op-transpose", &["ops::shuffle"]),
    ("op-slice", &["ops::shuffle"]),
    ("op-lstm", &["ops::lstm"]),
    ("op-svdf", &["ops::svdf"]),
    ("op-state", &["ops::state"]),
    ("op-conv2d", &["ops::conv", "scalar::conv"]),
    ("op-depthwise-conv2d", &["scalar::depthwise"]),
];

/// What a program takes on a board; bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taken {
    /// Code: vectors and `.text`.
    pub text: u64,
    /// The code's constants, and first values of statics.
    pub constants: u64,
    /// The deepest use of the stack, from start to answer.
    pub stack: u64,
    /// The session's buffer.
    pub buffer: u64,
    /// The bytes of the model's activations that are alive together at most: no buffer can be smaller.
    pub alive: u64,
    /// The model's image; of these, constants.
    pub image: u64,
    /// Weights, biases and requantization constants in the image.
    pub weights: u64,
    /// Of one run.
    pub instructions: u64,
}

/// By board, by model.
type Recorded = BTreeMap<String, BTreeMap<String, Taken>>;

/// Builds, measures and runs `models` on `boards`, prints what they take, and fails where it is more than recorded. With `bless`
/// the figures are recorded, and written to `docs/flash.md`.
pub fn run(
    boards: &[Board],
    toolchain: &Toolchain,
    models: &[PathBuf],
    (input, bless): (Option<&Path>, bool),
) -> Result<()> {
    let mut recorded = read()?;
    let mut faults = Vec::new();
    for path in models {
        let image = Image::open(path)?;
        for board in boards {
            let taken = measure(board, toolchain, &image, input)?;
            println!("{}", describe(board, &image, &taken));
            let own = recorded.entry(board.name.clone()).or_default();
            match own.get(&image.name) {
                _ if bless => {
                    own.insert(image.name.clone(), taken);
                }
                Some(limit) => faults.extend(exceeded(board, &image.name, &taken, limit)),
                None => {}
            }
        }
    }
    if bless {
        let path = file();
        fs::write(&path, write(&recorded))
            .with_context(|| format!("writing {}", path.display()))?;
        let path = root().join("docs/flash.md");
        fs::write(&path, table(&boards::select(&[])?, &recorded))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    ensure!(
        faults.is_empty(),
        "{} (cargo xtask flash --bless records the figures)",
        faults.join("; ")
    );
    Ok(())
}

/// Builds the program for one model, looks into the ELF and runs it; its answer must be the host's.
fn measure(
    board: &Board,
    toolchain: &Toolchain,
    image: &Image,
    input: Option<&Path>,
) -> Result<Taken> {
    let model = image.model()?;
    let input = match input {
        Some(path) => fs::read(path).with_context(|| format!("reading {}", path.display()))?,
        None => noise(&model),
    };
    let expected = on_host(&model, &input)?;
    let features = features(model.tables());
    let names: Vec<&str> = features.iter().copied().collect();
    step(format!(
        "{} takes the features {}",
        image.name,
        names.join(", ")
    ));
    let elf = build(board, toolchain, image, (&features, &input))?;
    let bytes = fs::read(&elf).with_context(|| format!("reading {}", elf.display()))?;
    let sizes = sections(&bytes).with_context(|| elf.display().to_string())?;
    let strangers = strangers(&bytes, &features)?;
    ensure!(
        strangers.is_empty(),
        "{} holds operators that {} does not have: {}",
        elf.display(),
        image.name,
        strangers.join(", ")
    );
    let model_bytes = sizes.of(".model");
    let image_bytes = image.bytes().len() as u64;
    ensure!(
        (image_bytes..image_bytes + ALIGN as u64).contains(&model_bytes),
        "{} holds {model_bytes} bytes of a model of {image_bytes}",
        elf.display()
    );
    let answer = answer(&output(
        emulator::command(board, 300).arg("-kernel").arg(&elf),
    )?)
    .with_context(|| format!("{} on {}", image.name, board.name))?;
    ensure!(
        answer.output == expected,
        "{} on {} answers {:02x?}, the host {expected:02x?}",
        image.name,
        board.name,
        answer.output
    );
    Ok(Taken {
        text: sizes.text,
        constants: sizes.constants - model_bytes - sizes.of(".input"),
        stack: answer.stack,
        buffer: model.required_buffer(Mode::Infer) as u64,
        alive: alive(model.tables()) as u64,
        image: image_bytes,
        weights: constants(model.tables()) as u64,
        instructions: answer.instructions,
    })
}

/// The checks of CI on one model: the recorded figures hold, a program without one of the model's operators says so, and the search for
/// operators that do not belong finds some in the program that has all of them.
pub fn check(boards: &[Board], toolchain: &Toolchain, model: &Path) -> Result<()> {
    run(boards, toolchain, &[model.to_path_buf()], (None, false))?;
    let image = Image::open(model)?;
    let features = features(image.model()?.tables());
    let Some(board) = boards.first() else {
        bail!("no board");
    };
    let everything = fs::read(build_with(board, toolchain)?)?;
    let strangers = strangers(&everything, &features)?;
    ensure!(
        strangers.len() > 10,
        "only {strangers:?} were found in the program that has every operator"
    );
    // one operator speaks for all: each is a build
    let operator = features.iter().find(|feature| feature.starts_with("op-"));
    if let Some(feature) = operator {
        let mut fewer = features.clone();
        fewer.remove(feature);
        let elf = build(board, toolchain, &image, (&fewer, &noise(&image.model()?)))?;
        let ran = emulator::command(board, 60)
            .arg("-kernel")
            .arg(&elf)
            .output()?;
        let said = String::from_utf8_lossy(&ran.stdout);
        ensure!(
            ran.status.code() == Some(1) && said.contains("this build was made without it"),
            "without {feature} the program says {said:?}, {}",
            ran.status
        );
    }
    Ok(())
}

/// The engine's features that a model needs to be run.
fn features(tables: &Tables) -> BTreeSet<&'static str> {
    let nodes = (0..tables.op_count()).map(|k| tables.node(k));
    let mut features: BTreeSet<_> = nodes.clone().map(|node| node.op.feature().0).collect();
    let weights = nodes.filter_map(|node| node.inputs().nth(1));
    if weights.into_iter().any(|t| tables.dtype(t) == DType::F32) {
        features.insert("f32");
    }
    features
}

/// Builds the program `infer`, and returns the ELF's path.
fn build(
    board: &Board,
    toolchain: &Toolchain,
    image: &Image,
    (features, input): (&BTreeSet<&str>, &[u8]),
) -> Result<PathBuf> {
    let title = format!("{}.infer.{}", board.name, image.name);
    fs::create_dir_all(folder())?;
    let input_file = folder().join(format!("{title}.input"));
    fs::write(&input_file, input).with_context(|| format!("writing {}", input_file.display()))?;
    let mut cargo = toolchain.cargo_for(board);
    cargo
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", OPTIMIZE)
        .env("FOOLPROOF_IMAGE", &image.path)
        .env("FOOLPROOF_INPUT", &input_file);
    let names: Vec<String> = features.iter().map(|f| format!("foolproof/{f}")).collect();
    let names = format!("infer,{}", names.join(","));
    let more = ["--no-default-features", "--features", &names];
    build_by(cargo, board, "infer", (&title, &more))
}

/// What lies in flash, bytes.
struct Sizes {
    /// Interrupt vectors and instructions.
    text: u64,
    /// The rest: constants, and first values of statics.
    constants: u64,
    sections: BTreeMap<String, u64>,
}

impl Sizes {
    fn of(&self, section: &str) -> u64 {
        self.sections.get(section).copied().unwrap_or(0)
    }
}

fn sections(elf: &[u8]) -> Result<Sizes> {
    let mut sizes = Sizes {
        text: 0,
        constants: 0,
        sections: BTreeMap::new(),
    };
    for section in object::File::parse(elf)?.sections() {
        let (name, bytes) = (section.name()?, section.size());
        match section.kind() {
            SectionKind::Text => sizes.text += bytes,
            SectionKind::ReadOnlyData if name == ".vector_table" => sizes.text += bytes,
            SectionKind::ReadOnlyData | SectionKind::ReadOnlyString | SectionKind::Data => {
                sizes.constants += bytes;
            }
            _ => continue,
        }
        *sizes.sections.entry(name.to_string()).or_default() += bytes;
    }
    ensure!(sizes.text > 0, "a program without instructions");
    Ok(sizes)
}

/// The operators besides those of `features` whose modules have functions in the ELF.
fn strangers(elf: &[u8], features: &BTreeSet<&str>) -> Result<Vec<&'static str>> {
    let file = object::File::parse(elf)?;
    let names: Vec<&str> = file
        .symbols()
        .filter_map(|symbol| symbol.name().ok())
        .collect();
    ensure!(!names.is_empty(), "the program has no symbols");
    let wanted: BTreeSet<&str> = MODULES
        .iter()
        .filter(|(feature, _)| features.contains(feature))
        .flat_map(|(_, modules)| *modules)
        .copied()
        .collect();
    let found = MODULES.iter().filter(|(_, modules)| {
        let mut own = modules.iter().filter(|module| !wanted.contains(*module));
        own.any(|module| names.iter().any(|name| is_of(name, module)))
    });
    Ok(found.map(|(feature, _)| *feature).collect())
}

/// Whether a mangled name, old style or new, is of a module `a::b` of the engine.
fn is_of(name: &str, module: &str) -> bool {
    let parts = module.split("::");
    let path: String = parts.map(|part| format!("{}{part}", part.len())).collect();
    name.contains("foolproof") && name.contains(&path)
}

/// What the program printed.
#[derive(Default)]
struct Answer {
    instructions: u64,
    stack: u64,
    output: Vec<u8>,
}

fn answer(text: &str) -> Result<Answer> {
    let mut answer = Answer::default();
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("instructions", count)) => answer.instructions = count.parse()?,
            Some(("stack", figures)) => {
                let used = figures.split(' ').next().unwrap_or_default();
                answer.stack = used.parse()?;
            }
            Some(("output", digits)) => {
                for pair in digits.as_bytes().chunks(2) {
                    let pair = str::from_utf8(pair)?;
                    answer.output.push(u8::from_str_radix(pair, 16)?);
                }
            }
            Some(("label", _)) => {}
            _ => bail!("{line}"),
        }
    }
    Ok(answer)
}

/// Random input of the model's size: bytes, for int8, and numbers in [-1, 1) for f32.
fn noise(model: &Model) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let count = model.input_shape().len();
    match model.tables().dtype(model.tables().input()) {
        DType::F32 => (0..count)
            .flat_map(|_| (f32::from(next() as i8) / 128.0).to_le_bytes())
            .collect(),
        _ => (0..count).map(|_| next()).collect(),
    }
}

/// What the host answers, as bytes.
fn on_host(model: &Model, input: &[u8]) -> Result<Vec<u8>> {
    let mut buffer = Aligned::new(model.required_buffer(Mode::Infer));
    let options = Options {
        kernels: Kernels::detect_exact(),
        ..Options::new(Mode::Infer)
    };
    let mut session = Session::with_options(model, options, buffer.bytes_mut())?;
    Ok(match session.forward_bytes(input)? {
        Data::I8(y) => y.iter().map(|&y| y as u8).collect(),
        Data::F32(y) => y.iter().flat_map(|y| y.to_le_bytes()).collect(),
        Data::I32(_) | Data::Absent => Vec::new(),
    })
}

/// The most bytes of activations that are alive at one time: by each one's first and last use, wherever they lie.
fn alive(tables: &Tables) -> usize {
    let mut spans: BTreeMap<usize, (u16, u16)> = BTreeMap::new();
    let pass = tables.pass(Mode::Infer, 0);
    memory::uses(tables, Mode::Infer, pass, &mut |tensor, _, time| {
        let (first, last) = spans.entry(tensor).or_insert((time, time));
        (*first, *last) = (time.min(*first), time.max(*last));
    });
    let bytes = |t: usize| memory::slot_bytes(tables, t, Role::Value, Mode::Infer);
    let at = |time: u16| {
        let alive = spans
            .iter()
            .filter(|(_, span)| span.0 <= time && time <= span.1);
        alive.map(|(&t, _)| bytes(t)).sum::<usize>()
    };
    (0..=tables.op_count() as u16).map(at).max().unwrap_or(0)
}

/// Bytes of all constants in an image.
fn constants(tables: &Tables) -> usize {
    (0..tables.tensor_count())
        .map(|t| tables.data(t).len())
        .sum()
}

/// One figure after the other, for people.
fn describe(board: &Board, image: &Image, taken: &Taken) -> String {
    format!(
        "{} on {}: {} bytes of code and {} of its constants; model {}, {} of it weights; stack {}; buffer {} where {} are alive \
         together; {} instructions; the host's answer",
        image.name,
        board.name,
        taken.text,
        taken.constants,
        taken.image,
        taken.weights,
        taken.stack,
        taken.buffer,
        taken.alive,
        taken.instructions
    )
}

/// The figures that are more than 3 % above what was recorded.
fn exceeded(board: &Board, model: &str, taken: &Taken, recorded: &Taken) -> Vec<String> {
    let figures = [
        ("bytes of code", taken.text, recorded.text),
        ("bytes of constants", taken.constants, recorded.constants),
        ("bytes of stack", taken.stack, recorded.stack),
        ("bytes of buffer", taken.buffer, recorded.buffer),
        ("bytes of image", taken.image, recorded.image),
        ("instructions", taken.instructions, recorded.instructions),
    ];
    let over = figures
        .iter()
        .filter(|(_, got, limit)| *got as f64 > *limit as f64 * TOLERANCE);
    over.map(|(what, got, limit)| {
        format!(
            "{model} on {}: {got} {what}, recorded are {limit}",
            board.name
        )
    })
    .collect()
}

fn file() -> PathBuf {
    root().join("firmware/flash.toml")
}

fn read() -> Result<Recorded> {
    let path = file();
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

fn write(recorded: &Recorded) -> String {
    let mut text = String::from(
        "# What the program `infer` takes that runs one model and holds only its operators, bytes and instructions. `cargo xtask flash`\n\
         # fails where a figure is exceeded by 3 %; with --bless it writes this file.\n",
    );
    for (board, models) in recorded {
        for (model, taken) in models {
            let _ = write!(
                text,
                "\n[{board}.{model}]\ntext = {}\nconstants = {}\nstack = {}\nbuffer = {}\nalive = {}\nimage = {}\nweights = {}\ninstructions = {}\n",
                taken.text,
                taken.constants,
                taken.stack,
                taken.buffer,
                taken.alive,
                taken.image,
                taken.weights,
                taken.instructions
            );
        }
    }
    text
}

const INTRODUCTION: &str = "\
# What one model takes of a chip

Made by `cargo xtask flash --board B --model M --bless`: a program (`firmware/src/bin/infer.rs`) that runs one model and links only that
model's operators, forward. The command reads the operators from the model, builds with the engine's features for these (`op-conv2d` ...),
looks into the ELF file, where no function of another operator may be left, and runs the program in the emulator: its answer must be the
host's, byte for byte. The optimization level is `s`. All figures are bytes.

- *code*: interrupt vectors and instructions, all that is linked: start-up, the check of the image, the engine, libraries, and printing the answer.
- *its constants*: everything else in flash that is not the model: tables, texts, first values of statics.
- *model*: the image, read in place from flash. *weights*: what of it are weights, biases and requantization constants; the rest is the
  tables of tensors and operators, names, and the memory plans.
- *stack*: the high-water mark by painting, from the start to the answer. *buffer*: all the RAM that activations take.
- *alive together*: the activations that are needed at one time, at most: no buffer can be smaller.

| board | core | model | code | its constants | model | weights | stack | buffer | alive together | instructions |
|---|---|---|---|---|---|---|---|---|---|---|
";

const NOTES: &str = "
Beside these, microflow-rs on the same emulated Cortex-M4 runs `person_detect` with 138 KB of text, 229 KB of stack and 331.7 million
instructions.

The figures belong to the compiler of the from-source set-up, and vary a little with paths. `firmware/flash.toml` holds them; `cargo xtask
flash` fails where one is exceeded by 3 %. In your own firmware: `default-features = false` and the features that the command names.
";

/// The page `docs/flash.md`.
fn table(boards: &[Board], recorded: &Recorded) -> String {
    let mut text = String::from(INTRODUCTION);
    for board in boards {
        for (model, taken) in recorded.get(&board.name).into_iter().flatten() {
            let figures = [
                taken.text,
                taken.constants,
                taken.image,
                taken.weights,
                taken.stack,
                taken.buffer,
                taken.alive,
                taken.instructions,
            ];
            let figures = figures.map(thousands).join(" | ");
            let _ = writeln!(
                text,
                "| {} | {} | {model} | {figures} |",
                board.name, board.core
            );
        }
    }
    text + NOTES
}

/// `1234567` as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_belong_to_modules() {
        let old = "_ZN9foolproof3ops4lstm4Lstm5check17h10387e02c8381f5eE";
        let new = "_RNvMNtNtCs1_9foolproof3ops4lstmNtB2_4Lstm5check";
        assert!(is_of(old, "ops::lstm") && is_of(new, "ops::lstm"));
        let other = "_ZN9foolproof3ops14conv_transpose15ConvTranspose2d7forward17h0E";
        assert!(!is_of(other, "ops::conv"));
        assert!(is_of(other, "ops::conv_transpose"));
        assert!(!is_of("_ZN4core3ops4lstm1f17h0E", "ops::lstm"));
    }

    #[test]
    fn thousands_are_kept_apart() {
        assert_eq!(
            [7, 1234, 1_234_567].map(thousands),
            ["7", "1,234", "1,234,567"]
        );
    }
}
