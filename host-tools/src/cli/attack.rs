//! `foolproof attack`: adversarial inputs in a file.

use super::Ended;
use super::args::AttackArgs;
use super::console::Console;
use super::evaluate::{self, Subject};
use super::model::ModelFile;
use crate::classifier::Inputs;
use crate::data::{self, Dataset, Purpose, npy, npz};
use crate::error::{Error, Result};
use crate::evaluate::AttackResult;
use crate::files;
use crate::report::terminal;
use std::path::{Path, PathBuf};

pub(crate) fn run(args: &AttackArgs, seed: u64, console: &Console) -> Result<Ended> {
    let terms = args.attack.settings.terms(args.eps, args.targeted);
    let plans = args.attack.attack.plans(&terms)?;
    let read = data::files_of(&args.data.data);
    let read = read.iter().chain([&args.model.model]).map(PathBuf::as_path);
    files::refuse_overwriting(&args.out, read)?;
    let file = ModelFile::read_for(&args.model.model, &args.model.input)?.within(args.memory)?;
    let data = data::load(&args.data.data, Purpose::Judge)?;
    let data = data.take(args.data.limit.unwrap_or(usize::MAX))?;
    let (classifier, inputs) = file.with_data(&args.model.input, args.model.kernels, &data)?;
    let classes = classifier.model().classes();
    if let Some(target) = args.targeted
        && target >= classes
    {
        return Err(Error::new(
            format!("class {target} is out of range for a model of {classes} classes"),
            "--targeted",
            format!("a class from 0 to {}", classes - 1),
        ));
    }
    let subject = Subject {
        file: &file,
        classifier: &classifier,
        inputs: &inputs,
        data: &data,
        seed,
    };
    let (evaluation, mut document) = evaluate::measure("attack", &subject, &plans, console)?;
    write(&args.out, &data, &evaluation.attacks)?;
    document.outputs = vec![args.out.display().to_string()];
    console.finish(&document, || {
        format!(
            "{}\n\n{} adversarial inputs written to {}",
            terminal::render(&document),
            data.len(),
            args.out.display()
        )
    })?;
    Ok(Ended::Well)
}

/// For each sample the first attack's input that won; where none did, the last attack's.
fn write(path: &Path, data: &Dataset, attacks: &[AttackResult]) -> Result<()> {
    let n = data.len();
    let size = data.sample_len();
    let chosen: Vec<&AttackResult> = (0..n)
        .filter_map(|i| {
            attacks
                .iter()
                .find(|attack| attack.attacked.outcomes[i].fooled)
                .or(attacks.last())
        })
        .collect();
    let fooled: Vec<bool> = chosen
        .iter()
        .enumerate()
        .map(|(i, attack)| attack.attacked.outcomes[i].fooled)
        .collect();
    let predicted: Vec<i64> = chosen
        .iter()
        .enumerate()
        .map(|(i, attack)| attack.attacked.outcomes[i].label as i64)
        .collect();
    let labels: Vec<i64> = data
        .labels()
        .unwrap_or_default()
        .iter()
        .map(|&label| label as i64)
        .collect();
    let (mut real, mut steps) = (Vec::new(), Vec::new());
    for (i, attack) in chosen.iter().enumerate() {
        match &attack.attacked.inputs {
            Inputs::F32(x) => real.extend_from_slice(&x[i * size..(i + 1) * size]),
            Inputs::I8(x) => steps.extend_from_slice(&x[i * size..(i + 1) * size]),
        }
    }
    let x = if steps.is_empty() {
        npy::View::F32(&real)
    } else {
        npy::View::I8(&steps)
    };
    let shape: Vec<usize> = [n]
        .into_iter()
        .chain(data.shape().iter().copied())
        .collect();
    npz::write(
        path,
        &[
            npz::Entry {
                name: "x",
                shape: &shape,
                values: x,
            },
            npz::Entry {
                name: "y",
                shape: &[n],
                values: npy::View::I64(&labels),
            },
            npz::Entry {
                name: "fooled",
                shape: &[n],
                values: npy::View::Bool(&fooled),
            },
            npz::Entry {
                name: "predicted",
                shape: &[n],
                values: npy::View::I64(&predicted),
            },
        ],
    )
}
