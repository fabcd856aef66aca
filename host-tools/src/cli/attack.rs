//! `foolproof attack`: adversarial inputs in a file.

mod boxes;

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
    match (&args.boxes, &args.data, &args.out) {
        (Some(boxes), _, _) => boxes::run(args, boxes, seed, console),
        (None, Some(data), Some(out)) => on_samples(args, (data, out), seed, console),
        _ => Err(Error::new(
            "nothing to attack",
            "attack",
            "--data D.npz --out ADV.npz, or --box BOX.npz",
        )),
    }
}

fn on_samples(
    args: &AttackArgs,
    (data, out): (&str, &Path),
    seed: u64,
    console: &Console,
) -> Result<Ended> {
    let target = match args.targeted {
        Some(None) => {
            return Err(Error::new(
                "no class to reach",
                "--targeted",
                "the number of a class, from 0; without one only with --box",
            ));
        }
        Some(target) => target,
        None => None,
    };
    let terms = args
        .attack
        .settings
        .terms(args.eps.unwrap_or(f32::INFINITY), target);
    let plans = args.attack.attack.plans(&terms)?;
    let read = data::files_of(data);
    let read = read.iter().chain([&args.model.model]).map(PathBuf::as_path);
    files::refuse_overwriting(out, read)?;
    let file = ModelFile::read_for(&args.model.model, &args.model.input, args.model.numerics)?
        .within(args.memory)?;
    let data = data::load(data, Purpose::Judge)?;
    let data = data.take(args.limit.unwrap_or(usize::MAX))?;
    let (classifier, inputs) = file.with_data(&args.model.input, args.model.kernels, &data)?;
    let classes = classifier.model().classes();
    if let Some(target) = target
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
    write(out, &file, &data, &evaluation.attacks)?;
    document.outputs = vec![out.display().to_string()];
    console.finish(&document, || {
        format!(
            "{}\n\n{} adversarial inputs written to {}",
            terminal::render(&document),
            data.len(),
            out.display()
        )
    })?;
    Ok(Ended::Well)
}

/// For each sample the first attack's input that won; where none did, the last attack's.
fn write(path: &Path, file: &ModelFile, data: &Dataset, attacks: &[AttackResult]) -> Result<()> {
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
    let inputs = match steps.is_empty() {
        true => Inputs::F32(real),
        false => Inputs::I8(steps),
    };
    let shape: Vec<usize> = [n]
        .into_iter()
        .chain(data.shape().iter().copied())
        .collect();
    write_adversarial(
        path,
        &shape,
        &Adversarial {
            // in the order in which the samples came
            inputs: file.as_given(data.shape(), inputs),
            labels,
            fooled,
            predicted,
        },
    )
}

/// What the archive of an attack holds.
pub(super) struct Adversarial {
    /// Sample after sample.
    pub inputs: Inputs,
    /// The samples' labels; empty where they have none.
    pub labels: Vec<i64>,
    /// Whether the attack won.
    pub fooled: Vec<bool>,
    /// What the model says.
    pub predicted: Vec<i64>,
}

/// Writes `x`, `y`, `fooled` and `predicted`.
pub(super) fn write_adversarial(path: &Path, shape: &[usize], found: &Adversarial) -> Result<()> {
    let n = [found.fooled.len()];
    let x = match &found.inputs {
        Inputs::F32(x) => npy::View::F32(x),
        Inputs::I8(x) => npy::View::I8(x),
    };
    let entry = |name, shape, values| npz::Entry {
        name,
        shape,
        values,
    };
    npz::write(
        path,
        &[
            entry("x", shape, x),
            entry("y", &n, npy::View::I64(&found.labels)),
            entry("fooled", &n, npy::View::Bool(&found.fooled)),
            entry("predicted", &n, npy::View::I64(&found.predicted)),
        ],
    )
}
