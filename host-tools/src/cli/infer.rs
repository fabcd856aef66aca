//! `foolproof infer`: what a model answers.

use super::Ended;
use super::args::InferArgs;
use super::console::{Console, warning_lines};
use super::device::{chosen_boards, leave_nothing_behind};
use super::model::ModelFile;
use crate::classifier::{Answer, Classifier, Inputs};
use crate::data::{self, Purpose, npy};
use crate::device::{self, Board, Chip, Emulator, Options, Payload};
use crate::document::{self, Data, Document, summary};
use crate::dump::Dump;
use crate::error::{Error, Result};
use crate::files;
use foolproof::link::Input;
use foolproof::model::Model;
use foolproof::tensor::DType;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) fn run(args: &InferArgs, seed: u64, console: &Console) -> Result<Ended> {
    let read = data::files_of(&args.inputs);
    let read: Vec<&Path> = read
        .iter()
        .chain([&args.model.model])
        .chain(&args.compare)
        .map(PathBuf::as_path)
        .collect();
    for output in [&args.outputs].into_iter().chain(&args.dump_tensors) {
        files::refuse_overwriting(output, read.iter().copied())?;
    }
    if args.dump_tensors.as_ref() == Some(&args.outputs) {
        return Err(Error::new(
            "outputs and tensors would be written to the same file",
            args.outputs.display(),
            "two names",
        ));
    }
    let board = args.board.as_deref().map(one_board).transpose()?;
    let other = args.compare.as_deref().map(Dump::read).transpose()?;
    let file = ModelFile::read_for(
        &args.model.model,
        &args.model.input,
        args.model.runtime.numerics,
    )?;
    let data = data::load(&args.inputs, Purpose::Judge)?;
    let (classifier, inputs) =
        file.with_any_data(&args.model.input, args.model.loops.kernels.exact(), &data)?;
    let wants_dump = args.dump_tensors.is_some() || args.compare.is_some();
    let (answers, dump) = match board {
        Some(board) => on_board(board, &file, (&classifier, &inputs), wants_dump, console)?,
        None => {
            let dump = wants_dump.then(|| Dump::of_host(&classifier, &inputs));
            let answers = classifier
                .stream(&inputs)
                .map_err(|error| Error::new(error, file.path(), ""))?;
            (answers, dump.transpose()?)
        }
    };
    write_outputs(&args.outputs, classifier.model(), &answers)?;
    let mut document = Document::new("infer");
    document.model = Some(file.describe()?);
    document.data = Some(Data {
        path: data.name().into(),
        n: data.len(),
    });
    document.seed = Some(seed);
    document.outputs = vec![args.outputs.display().to_string()];
    document.accuracy = data.labels().map(|labels| {
        let predicted: Vec<usize> = answers.iter().map(|answer| answer.label).collect();
        summary::accuracy(&predicted, labels)
    });
    if let Some(dump) = &dump {
        if let Some(path) = &args.dump_tensors {
            dump.write(path)?;
            document.outputs.push(path.display().to_string());
        }
        let mut found = document::Dump {
            ran_on: board.map_or("host".into(), |board| board.name.clone()),
            tensors: dump.tensors.len(),
            compared_with: None,
            first_difference: None,
        };
        if let (Some(other), Some(path)) = (&other, &args.compare) {
            found.compared_with = Some(path.display().to_string());
            found.first_difference = dump.first_difference(other, path)?;
        }
        document.dump = Some(found);
    }
    document.warnings.extend(file.assumptions());
    console.finish(&document, || {
        let mut text = format!(
            "{} outputs written to {}",
            answers.len(),
            args.outputs.display()
        );
        if let Some(accuracy) = document.accuracy {
            text.push_str(&format!("; accuracy {:.2} %", 100.0 * accuracy.clean));
        }
        if let Some(dump) = &document.dump {
            text.push_str(&describe(dump, document.outputs.get(1)));
        }
        text + &warning_lines(&document)
    })?;
    match document.dump {
        Some(document::Dump {
            first_difference: Some(_),
            ..
        }) => Ok(Ended::Missed),
        _ => Ok(Ended::Well),
    }
}

fn describe(dump: &document::Dump, written: Option<&String>) -> String {
    let mut text = String::new();
    let tensors = dump.tensors;
    if let Some(path) = written {
        text.push_str(&format!("\n{tensors} tensors written to {path}"));
    }
    if let Some(other) = &dump.compared_with {
        let found = match &dump.first_difference {
            None => format!("all {tensors} tensors are the same, to the bit"),
            Some(d) => format!(
                "tensor {} ({}, made by {}) is the first that differs: {} of {} elements, by at most {}; the first is element {} of sample {}",
                d.index,
                d.tensor,
                d.operator,
                d.elements,
                d.of,
                d.max_difference
                    .map_or("more than any number".into(), |d| d.to_string()),
                d.element,
                d.sample
            ),
        };
        text.push_str(&format!("\ncompared with {other}: {found}"));
    }
    text
}

fn one_board(name: &str) -> Result<&'static Board> {
    match chosen_boards(&[name.to_string()])?.as_slice() {
        [board] => Ok(board),
        _ => Err(Error::new(
            "several boards where one runs the model",
            "--board",
            "the name of one board",
        )),
    }
}

/// How long an emulated board may take.
const LIMIT: Duration = Duration::from_secs(600);

fn on_board(
    board: &'static Board,
    file: &ModelFile,
    (classifier, inputs): (&Classifier<'_>, &Inputs),
    wants_dump: bool,
    console: &Console,
) -> Result<(Vec<Answer>, Option<Dump>)> {
    leave_nothing_behind()?;
    let at_board = |error: anyhow::Error| {
        Error::new(format!("{error:#}"), format!("board {}", board.name), "")
    };
    console.say(format!("build the firmware for {} ...", board.name));
    let elf = device::prepare(board).map_err(at_board)?;
    let payload = Payload {
        image: file.image().bytes().to_vec(),
        ..Payload::default()
    };
    let options = Options {
        limit: LIMIT,
        slot: payload.for_board(board).map_err(at_board)?,
        ..Options::default()
    };
    let emulator = Emulator::start(board, &elf, options).map_err(at_board)?;
    let mut chip = Chip::new(emulator);
    chip.hello().map_err(at_board)?;
    chip.use_slot().map_err(at_board)?;
    let n = classifier.input_len();
    let samples = inputs.len() / n;
    let runs = samples * if wants_dump { 2 } else { 1 };
    let progress = console.progress(&board.name, runs as u64);
    let mut answers = Vec::with_capacity(samples);
    for i in 0..samples {
        let inferred = chip
            .infer(Input::Bytes(&inputs.bytes(i, n)))
            .map_err(at_board)?;
        answers.push(Answer {
            label: inferred.label.into(),
            // a chip answers with its output
            logits: Vec::new(),
            output: inferred.output,
        });
        progress.advance(1);
    }
    let dump = match wants_dump {
        true => {
            let advance = |count| progress.advance(count);
            Some(Dump::of_chip(
                &mut chip,
                classifier.model(),
                inputs,
                &advance,
            )?)
        }
        false => None,
    };
    let outcome = chip.quit().and_then(Emulator::wait).map_err(at_board)?;
    match outcome.code {
        Some(0) => Ok((answers, dump)),
        code => Err(at_board(anyhow::anyhow!(
            "the firmware ended with code {code:?}"
        ))),
    }
}

/// The outputs as one array [N, ...] in the model's own output type.
fn write_outputs(path: &Path, model: &Model<'_>, answers: &[Answer]) -> Result<()> {
    let tables = model.tables();
    let output = model.output_shape();
    let mut shape = vec![answers.len()];
    shape.extend((1..output.rank()).map(|i| output.dim(i)));
    let bytes = answers.iter().flat_map(|answer| &answer.output);
    match tables.dtype(tables.output()) {
        DType::I8 => {
            let values: Vec<i8> = bytes.map(|&byte| byte as i8).collect();
            npy::write(path, &shape, npy::View::I8(&values))
        }
        _ => {
            let bytes: Vec<u8> = bytes.copied().collect();
            let values: Vec<f32> = bytes
                .as_chunks()
                .0
                .iter()
                .map(|&b| f32::from_le_bytes(b))
                .collect();
            npy::write(path, &shape, npy::View::F32(&values))
        }
    }
}
