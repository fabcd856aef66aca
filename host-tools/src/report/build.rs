//! From an evaluation to the pictures and matrices of a report.

use super::{Confusion, Example, Picture, ReportData};
use crate::classifier::{Answer, Classifier, Inputs};
use crate::device::Board;
use crate::document::{Document, summary};
use crate::evaluate::{AttackResult, Evaluation};
use std::process::{Command, Stdio};

/// Most examples that a report shows.
const EXAMPLES: usize = 9;

/// What was evaluated, as far as pictures need it.
#[derive(Clone, Copy)]
pub struct Pictured<'a> {
    /// The model.
    pub classifier: &'a Classifier<'a>,
    /// The samples, as the model takes them.
    pub inputs: &'a Inputs,
    /// The right labels.
    pub labels: &'a [usize],
}

/// A report on an evaluation of one model, with pictures of the attack that the verdict names.
pub fn of_evaluation(
    subject: &Pictured<'_>,
    evaluation: &Evaluation,
    document: Document,
) -> ReportData {
    let worst = worst(evaluation);
    ReportData {
        document,
        command_line: command_line(),
        versions: versions(&[]),
        gallery: worst
            .map(|result| gallery(subject, &evaluation.clean, result))
            .unwrap_or_default(),
        training: Vec::new(),
        confusion: worst.map(|result| confusion(subject, &evaluation.clean, result)),
    }
}

/// The untargeted attack that leaves the least accuracy.
pub fn worst(evaluation: &Evaluation) -> Option<&AttackResult> {
    evaluation
        .attacks
        .iter()
        .filter(|result| result.plan.target.is_none())
        .min_by(|a, b| a.robust_accuracy().total_cmp(&b.robust_accuracy()))
}

/// What was taken for what, before and after an attack.
pub fn confusion(subject: &Pictured<'_>, clean: &[Answer], result: &AttackResult) -> Confusion {
    let classes = class_names(subject.classifier);
    let before: Vec<usize> = clean.iter().map(|answer| answer.label).collect();
    let after: Vec<usize> = result
        .attacked
        .outcomes
        .iter()
        .map(|outcome| outcome.label)
        .collect();
    Confusion {
        clean: Confusion::count(classes.len(), subject.labels, &before),
        adversarial: Confusion::count(classes.len(), subject.labels, &after),
        attack: caption(subject, clean, result),
        classes,
    }
}

/// An attack for people, as the rest of the report calls it.
fn caption(subject: &Pictured<'_>, clean: &[Answer], result: &AttackResult) -> String {
    super::title(&summary::attack(result, clean, subject.labels, ""))
}

/// The model's class names, or numbers where it has none.
pub fn class_names(classifier: &Classifier<'_>) -> Vec<String> {
    let count = classifier.model().classes();
    let names: Vec<String> = classifier.model().labels().map(str::to_string).collect();
    match names.len() == count {
        true => names,
        false => (0..count).map(|class| class.to_string()).collect(),
    }
}

/// Samples that were right and then were not: one of each class first, in the order of the data.
pub fn gallery(subject: &Pictured<'_>, clean: &[Answer], result: &AttackResult) -> Vec<Example> {
    let Pictured {
        classifier,
        inputs,
        labels,
    } = *subject;
    let n = classifier.input_len();
    let won = |&i: &usize| clean[i].label == labels[i] && result.attacked.outcomes[i].fooled;
    let mut seen = Vec::new();
    let (first, again): (Vec<usize>, Vec<usize>) = (0..labels.len()).filter(won).partition(|&i| {
        let new = !seen.contains(&labels[i]);
        seen.push(labels[i]);
        new
    });
    let mut chosen: Vec<usize> = first.into_iter().chain(again).take(EXAMPLES).collect();
    chosen.sort_by_key(|&i| labels[i]);
    let attack = caption(subject, clean, result);
    chosen
        .into_iter()
        .filter_map(|i| {
            let adversarial = one(&result.attacked.inputs, i, n);
            let after = classifier.answers(&adversarial).ok()?.pop()?;
            example(
                subject,
                i,
                &one(inputs, i, n),
                &adversarial,
                (&clean[i], &after),
                &attack,
            )
        })
        .collect()
}

/// Sample `i` of `n` elements.
fn one(inputs: &Inputs, i: usize, n: usize) -> Inputs {
    match inputs {
        Inputs::F32(x) => Inputs::F32(x[i * n..(i + 1) * n].to_vec()),
        Inputs::I8(x) => Inputs::I8(x[i * n..(i + 1) * n].to_vec()),
    }
}

fn example(
    subject: &Pictured<'_>,
    i: usize,
    original: &Inputs,
    adversarial: &Inputs,
    (before, after): (&Answer, &Answer),
    attack: &str,
) -> Option<Example> {
    let classifier = subject.classifier;
    let names = class_names(classifier);
    let name = |label: usize| {
        names
            .get(label)
            .cloned()
            .unwrap_or_else(|| label.to_string())
    };
    let (x, y) = (classifier.real(original), classifier.real(adversarial));
    let change: Vec<f32> = x.iter().zip(&y).map(|(x, y)| y - x).collect();
    let largest = change.iter().fold(0f32, |largest, v| largest.max(v.abs()));
    let (low, high) = classifier.model().input_range();
    let shape: Vec<usize> = classifier.model().input_shape().dims()[1..]
        .iter()
        .map(|&size| size as usize)
        .collect();
    let said = |answer: &Answer| (name(answer.label), f64::from(answer.confidence()));
    Some(Example {
        sample: i,
        attack: attack.to_string(),
        label: name(*subject.labels.get(i)?),
        original: Picture::of_sample(&x, &shape, (low, high))?,
        perturbation: Picture::of_change(&change, &shape, largest)?,
        // The whole range of colours, from one end to the other, stands for twice the largest change.
        amplification: if largest > 0.0 {
            f64::from((high - low) / (2.0 * largest))
        } else {
            1.0
        },
        adversarial: Picture::of_sample(&y, &shape, (low, high))?,
        before: said(before),
        after: said(after),
    })
}

/// What was typed, with the program's name alone: a report must not tell where it lies on the machine.
pub fn command_line() -> String {
    let quote = |word: String| match word.is_empty()
        || word.contains(|c: char| c.is_whitespace() || "'\"$`\\*?&;|<>()".contains(c))
    {
        true => format!("'{}'", word.replace('\'', "'\\''")),
        false => word,
    };
    let words = std::env::args_os()
        .skip(1)
        .map(|word| quote(word.to_string_lossy().into_owned()));
    ["foolproof".to_string()]
        .into_iter()
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

/// What made the report: foolproof, the machine, and the emulators of the boards that were run.
pub fn versions(boards: &[&Board]) -> Vec<(String, String)> {
    let mut versions = vec![
        (
            "foolproof".to_string(),
            env!("CARGO_PKG_VERSION").to_string(),
        ),
        (
            "machine".to_string(),
            format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        ),
    ];
    for board in boards {
        let known = versions.iter().any(|(name, _)| *name == board.qemu);
        if let (false, Some(version)) = (known, emulator_version(&board.qemu)) {
            versions.push((board.qemu.clone(), version));
        }
    }
    versions
}

/// The first line that an emulator prints about its version; `None` where it cannot be asked.
fn emulator_version(program: &str) -> Option<String> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().next()?;
    Some(
        line.trim_start_matches("QEMU emulator version ")
            .to_string(),
    )
}
