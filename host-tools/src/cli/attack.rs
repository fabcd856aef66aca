//! `foolproof attack`: adversarial inputs in a file.

mod boxes;
mod surrogate;

use super::Ended;
use super::args::AttackArgs;
use super::console::Console;
use super::evaluate::{self, Subject, Way};
use super::model::{ModelFile, preprocess};
use crate::attack::Terms;
use crate::attack::journal::Journal;
use crate::attack::suite::refuse_universal;
use crate::classifier::{Classifier, Inputs};
use crate::data::{self, Dataset, Purpose, npy, npz};
use crate::document::{Data, Document, summary};
use crate::error::{Error, Result};
use crate::evaluate::{AttackResult, Evaluation, Plan};
use crate::files;
use crate::report::terminal;
use crate::target::{Local, Target, Work};
use foolproof::threat::Budget;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    let epsilon = args.eps.unwrap_or(f32::INFINITY);
    let terms = Terms {
        nearest: args.nearest,
        ..args.attack.settings.terms(epsilon, target)
    };
    let plans = args.attack.attack.plans(&terms)?;
    let read = data::files_of(data);
    let models = args.model.iter().chain(&args.surrogate);
    let read = read.iter().chain(models).map(PathBuf::as_path);
    files::refuse_overwriting(out, read)?;
    let file = match &args.model {
        Some(model) => Some(
            ModelFile::read_for(model, &args.input, args.runtime.numerics)?.within(args.memory)?,
        ),
        None => None,
    };
    let data = data::load(data, Purpose::Judge)?;
    let data = data.take(args.limit.unwrap_or(usize::MAX))?;
    let together = args.attack.settings.total() != Budget::UNLIMITED;
    if together && (args.target.is_some() || !args.surrogate.is_empty()) {
        return Err(Error::new(
            "a black box is asked sample by sample",
            "--max-total-queries and --max-total-gradients",
            "--max-queries, for each sample",
        ));
    }
    let (evaluation, mut document, journal) = match (&args.target, &file) {
        (Some(spec), file) => {
            let patience = Duration::from_secs(args.timeout);
            let mut target = super::target::open(spec, file.as_ref(), patience, console)?;
            let task = (&data, &plans[..], seed, out);
            on_target(args, target.as_mut(), file.as_ref(), task, console)?
        }
        (None, Some(file)) if !args.surrogate.is_empty() => {
            let classifier = Classifier::new(file.model()?, args.loops.kernels.fast());
            let mut target = Local::new(file.path(), classifier);
            let task = (&data, &plans[..], seed, out);
            on_target(args, &mut target, Some(file), task, console)?
        }
        (None, Some(file)) => {
            let (classifier, inputs) =
                file.with_data(&args.input, args.loops.kernels.fast(), &data)?;
            check_target(target, classifier.model().classes())?;
            let subject = Subject {
                file,
                classifier: &classifier,
                inputs: &inputs,
                data: &data,
                seed,
            };
            let labels = data.labels().unwrap_or_default();
            // the model as the samples and options make it: its range bounds what is searched
            let model = format!(
                "{:?} {:?}",
                classifier.form(),
                classifier.model().anomaly_above()
            );
            let samples = (model.as_str(), &inputs, labels, classifier.input_len());
            let key = key(args, &[file], (&plans, seed), samples)?;
            let journal = journal(out, &key, args, console)?;
            let way = Way {
                journal: Some(&journal),
                cascade: true,
                total: args.attack.settings.total(),
            };
            let (evaluation, mut document) =
                evaluate::measure("attack", &subject, &plans, &way, console)?;
            let together = evaluate::ensembles(&args.attack.attack, &evaluation, &subject);
            document.attacks.extend(together);
            (evaluation, document, journal)
        }
        (None, None) => return Err(Error::new("no model", "attack", "a model, or --target")),
    };
    let settings = &args.attack.settings;
    document
        .warnings
        .extend(evaluate::cut_short(settings, &evaluation));
    if args.resume && plans.iter().any(|plan| plan.attack.is_universal()) {
        console.say(
            "a perturbation for all samples is fitted anew: nothing of it is kept between runs",
        );
    }
    if args.surrogate.is_empty() {
        document
            .warnings
            .extend(evaluate::gradients_alone(&evaluation));
    }
    write(out, file.as_ref(), &data, &evaluation.attacks)?;
    journal.finish();
    document.outputs = vec![out.display().to_string()];
    console.finish(&document, || {
        format!(
            "{}\n{}\n{} adversarial inputs written to {}",
            terminal::render(&document),
            surrogate::describe(&document),
            data.len(),
            out.display()
        )
    })?;
    Ok(Ended::Well)
}

/// What a run is: with another key its journal is of no use.
fn key(
    args: &AttackArgs,
    files: &[&ModelFile],
    (plans, seed): (&[Plan], u64),
    (target, inputs, labels, n): (&str, &Inputs, &[usize], usize),
) -> Result<String> {
    let mut digest = Sha256::new();
    for file in files {
        digest.update(file.describe()?.sha256);
        digest.update(format!("{:?}", file.describe()?.numerics));
    }
    digest.update(format!(
        "{target} {:?} {plans:?} {:?} {seed} {:?} {} {}",
        args.input,
        args.attack.settings.total(),
        args.loops.kernels.fast(),
        args.diverse,
        args.feedback,
    ));
    for (i, label) in labels.iter().enumerate() {
        digest.update(label.to_le_bytes());
        digest.update(inputs.bytes(i, n));
    }
    let bytes = digest.finalize();
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The journal of this run beside `out`.
fn journal(out: &Path, key: &str, args: &AttackArgs, console: &Console) -> Result<Journal> {
    let journal = Journal::beside(out, key, args.resume)?;
    if journal.has_discarded() {
        console.say("results of an interrupted run are thrown away; --resume would have kept them");
    }
    if !journal.is_empty() {
        console.say(format!(
            "{} results of the interrupted run are kept",
            journal.len()
        ));
    }
    Ok(journal)
}

fn check_target(target: Option<usize>, classes: usize) -> Result<()> {
    match target {
        Some(target) if target >= classes => Err(Error::new(
            format!("class {target} is out of range for a model of {classes} classes"),
            "--targeted",
            format!("a class from 0 to {}", classes - 1),
        )),
        _ => Ok(()),
    }
}

/// Asks a black box instead of a model in this process.
fn on_target(
    args: &AttackArgs,
    target: &mut dyn Target,
    file: Option<&ModelFile>,
    (data, plans, seed, out): (&Dataset, &[Plan], u64, &Path),
    console: &Console,
) -> Result<(Evaluation, Document, Journal)> {
    let labels = data.require_labels("attack")?;
    let classes = target.classes();
    data.check_labels(classes)?;
    for plan in plans {
        check_target(plan.target, classes)?;
    }
    let inputs = match file {
        Some(file) => {
            file.with_data(&args.input, args.loops.kernels.fast(), data)?
                .1
        }
        None => preprocess(&args.input).inputs(data, target.form())?,
    };
    match args.surrogate.is_empty() {
        true => crate::target::check(target, plans)?,
        false => refuse_universal(
            plans,
            "--surrogate",
            "an attack on single samples; or fit the perturbation on the surrogate and try what --out holds on MODEL with infer",
        )?,
    }
    let surrogates = surrogate::read(args)?;
    let files: Vec<&ModelFile> = file.into_iter().chain(&surrogates).collect();
    let described = target.describe();
    let samples = (
        described.as_str(),
        &inputs,
        labels,
        target.form().input_len(),
    );
    let key = key(args, &files, (plans, seed), samples)?;
    let journal = journal(out, &key, args, console)?;
    let progress = console.progress("attacking", (plans.len() * data.len()) as u64);
    let work = Work {
        seed,
        progress: &|steps| progress.advance(steps),
        journal: Some(&journal),
    };
    let mut document = Document::new("attack");
    let evaluation = match surrogates.is_empty() {
        true => crate::target::evaluate(target, &inputs, labels, plans, &work)?,
        false => {
            let samples = (&inputs, labels, plans);
            let (evaluation, used) =
                surrogate::evaluate(args, &surrogates, target, samples, &work)?;
            document.surrogates = used;
            evaluation
        }
    };
    drop(progress);
    if args.target.is_some() {
        document.target = Some(target.name());
    }
    if let Some(file) = file {
        document.model = Some(file.describe()?);
    }
    document.data = Some(Data {
        path: data.name().into(),
        n: data.len(),
    });
    document.seed = Some(seed);
    let predicted: Vec<usize> = evaluation.clean.iter().map(|answer| answer.label).collect();
    document.accuracy = Some(summary::accuracy(&predicted, labels));
    let numerics = match target.form().grid {
        Some(_) => "int8",
        None => "f32",
    };
    document.attacks = evaluation
        .attacks
        .iter()
        .map(|result| summary::attack(result, &evaluation.clean, labels, numerics))
        .collect();
    Ok((evaluation, document, journal))
}

/// For each sample the first attack's input that won; where none did, the last attack's.
fn write(
    path: &Path,
    file: Option<&ModelFile>,
    data: &Dataset,
    attacks: &[AttackResult],
) -> Result<()> {
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
            inputs: match file {
                Some(file) => file.as_given(data.shape(), inputs),
                None => inputs,
            },
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
