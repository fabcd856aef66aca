//! `foolproof device sample`: a generator draws samples on a chip, from noise that the chip makes itself.

use super::super::Ended;
use super::super::console::Console;
use super::super::model::ModelFile;
use super::super::spinner::Spinner;
use super::{chosen_boards, leave_nothing_behind};
use crate::classifier::{Classifier, Inputs};
use crate::data::{npy, npz};
use crate::device::{self, Board, Chip, Emulator, Options, Payload};
use crate::document::{self, Document};
use crate::error::{Error, Result};
use crate::files;
use crate::train::gan::networks::Form;
use crate::train::pictures;
use clap::Args;
use foolproof::kernels::Kernels;
use foolproof::latent::Latent;
use foolproof::link::Ready;
use foolproof::model::Model;
use foolproof::tensor::DType;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct SampleArgs {
    /// Board to run on, may be repeated; all for every one
    #[arg(long, value_name = "B", default_value = "mps2-an386")]
    pub board: Vec<String>,
    /// A generator: a model image (.fpi) or a TensorFlow Lite model, float or int8
    #[arg(long, value_name = "G")]
    pub model: PathBuf,
    /// Samples to draw
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub count: u32,
    /// Classes that the generator is told (of a conditional GAN); sample i is of class i modulo N
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub classes: u16,
    /// The samples: .npz, or a picture of them (.png)
    #[arg(long, value_name = "F")]
    pub out: PathBuf,
    /// Give up on a board after this many seconds
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,
}

pub(super) fn run(args: &SampleArgs, seed: u64, console: &Console) -> Result<Ended> {
    let boards = chosen_boards(&args.board)?;
    leave_nothing_behind()?;
    files::refuse_overwriting(&args.out, [args.model.as_path()])?;
    let ending = args.out.extension().and_then(|e| e.to_str());
    if !matches!(ending, Some("npz" | "png")) {
        let what = "the name ends neither in .npz nor in .png";
        return Err(Error::new(what, args.out.display(), "one of these"));
    }
    let file = ModelFile::read(&args.model, None)?;
    let model = file.model()?;
    let form = Form {
        shape: model.output_shape().dims()[1..].to_vec(),
        image: true,
    };
    if ending == Some("png") && pictures::grid(&vec![0.0; form.len()], &form).is_none() {
        return Err(Error::new(
            "samples that are no images have no picture",
            args.out.display(),
            "an .npz file",
        ));
    }
    let inputs = noise(&model, &args.model, (args.count, args.classes), seed)?;
    let host = Classifier::new(model, Kernels::Scalar);
    let answers = host
        .answers(&inputs)
        .map_err(|error| Error::new(error, file.path(), "a generator"))?;
    let mut document = Document::new("device sample");
    document.model = Some(file.describe()?);
    document.seed = Some(seed);
    for board in boards {
        let progress = console.progress(&board.name, u64::from(args.count));
        let mut mismatches = 0;
        let ran = on_chip(
            board,
            file.image().bytes(),
            Duration::from_secs(args.timeout),
            console,
            |chip| {
                let mut instructions = 0;
                for (index, answer) in (0..args.count).zip(&answers) {
                    let made = chip.generate((seed, index), args.classes)?;
                    instructions += made.instructions;
                    mismatches += usize::from(made.output != answer.output);
                    progress.advance(1);
                }
                Ok(instructions / u64::from(args.count))
            },
        )?;
        document
            .device
            .push(entry(board, &ran, args.count as usize, mismatches));
    }
    let bytes: Vec<u8> = answers.into_iter().flat_map(|a| a.output).collect();
    write(
        &args.out,
        host.model(),
        (&bytes, &form),
        args.count as usize,
    )?;
    document.outputs = vec![args.out.display().to_string()];
    console.finish(&document, || {
        let mut lines: Vec<String> = document.device.iter().map(line).collect();
        lines.push(format!("written: {}", args.out.display()));
        lines.join("\n")
    })?;
    Ok(ended(&document))
}

/// One line about a board.
pub(super) fn line(board: &document::Device) -> String {
    format!(
        "{}: {} outputs, {} mismatches with the host, {} instructions each, {} bytes of buffer",
        board.board,
        board.logits_compared,
        board.logit_mismatches,
        board.instructions_per_inference.unwrap_or(0),
        board.infer_buffer_bytes.unwrap_or(0)
    )
}

/// A chip that says something else than the host is a missed promise.
pub(super) fn ended(document: &Document) -> Ended {
    match document.device.iter().any(|d| d.logit_mismatches > 0) {
        true => Ended::Missed,
        false => Ended::Well,
    }
}

pub(super) fn entry(
    board: &Board,
    (ready, instructions): &(Ready, u64),
    samples: usize,
    mismatches: usize,
) -> document::Device {
    document::Device {
        board: board.name.clone(),
        core: Some(board.core.clone()),
        ran: Some("emulated".into()),
        samples,
        logit_mismatches: mismatches,
        logits_compared: samples,
        instructions_per_inference: Some(*instructions),
        buffer_bytes: Some(ready.infer_buffer as usize),
        infer_buffer_bytes: Some(ready.infer_buffer as usize),
        ..document::Device::default()
    }
}

/// Flashes `image`, starts the board and lets `work` talk to it.
pub(super) fn on_chip<T>(
    board: &'static Board,
    image: &[u8],
    limit: Duration,
    console: &Console,
    work: impl FnOnce(&mut Chip<Emulator>) -> anyhow::Result<T>,
) -> Result<(Ready, T)> {
    let at_board = |error: anyhow::Error| {
        Error::new(format!("{error:#}"), format!("board {}", board.name), "")
    };
    console.say(format!("build the firmware for {} ...", board.name));
    let spinner = Spinner::new("building");
    let elf = device::prepare(board).map_err(at_board)?;
    drop(spinner);
    let payload = Payload {
        image: image.to_vec(),
        ..Payload::default()
    };
    let options = Options {
        limit,
        slot: payload.for_board(board).map_err(at_board)?,
        ..Options::default()
    };
    let mut chip = Chip::new(Emulator::start(board, &elf, options).map_err(at_board)?);
    chip.hello().map_err(at_board)?;
    let ready = chip.use_slot().map_err(at_board)?;
    let done = work(&mut chip).map_err(at_board)?;
    let outcome = chip.quit().and_then(Emulator::wait).map_err(at_board)?;
    match outcome.code {
        Some(0) => Ok((ready, done)),
        code => Err(at_board(anyhow::anyhow!(
            "the firmware ended with code {code:?}"
        ))),
    }
}

/// The noise of every sample, as the model takes it.
fn noise(
    model: &Model<'_>,
    path: &Path,
    (count, classes): (u32, u16),
    seed: u64,
) -> Result<Inputs> {
    let tables = model.tables();
    let len = model.input_shape().len();
    if usize::from(classes) >= len {
        let what = format!("{classes} classes, and the generator takes {len} numbers");
        return Err(Error::new(what, path.display(), "fewer --classes"));
    }
    let named = |index| Latent {
        seed,
        index,
        classes: classes.into(),
    };
    let quant = tables.quant(tables.input());
    Ok(match tables.dtype(tables.input()) {
        DType::I8 => {
            let mut all = vec![0i8; count as usize * len];
            for (i, z) in (0..).zip(all.chunks_exact_mut(len)) {
                named(i).draw_on_grid(z, quant.scale, quant.zero_point);
            }
            Inputs::I8(all)
        }
        _ => {
            let mut all = vec![0f32; count as usize * len];
            for (i, z) in (0..).zip(all.chunks_exact_mut(len)) {
                named(i).draw(z);
            }
            Inputs::F32(all)
        }
    })
}

fn write(
    path: &Path,
    model: &Model<'_>,
    (bytes, form): (&[u8], &Form),
    count: usize,
) -> Result<()> {
    let real = real_of(model, bytes);
    if path.extension().is_some_and(|e| e == "png") {
        let refuse = |what: &dyn std::fmt::Display| Error::new(what, path.display(), "");
        let picture = pictures::grid(&real, form).ok_or_else(|| refuse(&"not an image"))?;
        let png = picture.png().map_err(|error| refuse(&error))?;
        return files::write(path, &png);
    }
    let mut shape = vec![count];
    shape.extend(form.shape.iter().map(|&d| d as usize));
    let entry = npz::Entry {
        name: "x",
        shape: &shape,
        values: npy::View::F32(&real),
    };
    npz::write(path, &[entry])
}

/// A model's outputs, as bytes, in real units.
pub(super) fn real_of(model: &Model<'_>, bytes: &[u8]) -> Vec<f32> {
    let tables = model.tables();
    let quant = tables.quant(tables.output());
    match tables.dtype(tables.output()) {
        DType::I8 => bytes
            .iter()
            .map(|&b| quant.scale * (i32::from(b as i8) - quant.zero_point) as f32)
            .collect(),
        _ => {
            let words = bytes.as_chunks().0.iter();
            words.map(|&b| f32::from_le_bytes(b)).collect()
        }
    }
}
