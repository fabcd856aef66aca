//! From an evaluation to the pictures and matrices of a report.

use super::{Confusion, Example, Picture, ReportData};
use crate::classifier::{Answer, Classifier, Inputs};
use crate::data::Dataset;
use crate::document::{Document, summary};
use crate::evaluate::{AttackResult, Evaluation};

/// Most examples that a report shows.
const EXAMPLES: usize = 6;

/// What was evaluated, as far as pictures need it.
#[derive(Clone, Copy)]
pub struct Pictured<'a> {
    /// The model.
    pub classifier: &'a Classifier<'a>,
    /// The samples, as the model takes them.
    pub inputs: &'a Inputs,
    /// The samples, with shape and labels.
    pub data: &'a Dataset,
}

/// A report on an evaluation of one model.
pub fn of_evaluation(
    subject: &Pictured<'_>,
    evaluation: &Evaluation,
    document: Document,
) -> ReportData {
    // The untargeted attack that the verdict names.
    let worst = evaluation
        .attacks
        .iter()
        .filter(|result| result.plan.target.is_none())
        .min_by(|a, b| a.robust_accuracy().total_cmp(&b.robust_accuracy()));
    let labels = subject.data.labels().unwrap_or_default();
    let name = |result: &AttackResult| {
        super::title(&summary::attack(result, &evaluation.clean, labels, ""))
    };
    ReportData {
        document,
        command_line: command_line(),
        versions: versions(),
        gallery: worst
            .map(|result| gallery(subject, &evaluation.clean, result, &name(result)))
            .unwrap_or_default(),
        training: Vec::new(),
        confusion: worst.map(|result| {
            let classes = class_names(subject.classifier);
            let before: Vec<usize> = evaluation.clean.iter().map(|answer| answer.label).collect();
            let after: Vec<usize> = result
                .attacked
                .outcomes
                .iter()
                .map(|outcome| outcome.label)
                .collect();
            Confusion {
                clean: Confusion::count(classes.len(), labels, &before),
                adversarial: Confusion::count(classes.len(), labels, &after),
                attack: name(result),
                classes,
            }
        }),
    }
}

/// The model's class names, or numbers where it has none.
fn class_names(classifier: &Classifier<'_>) -> Vec<String> {
    let mut names: Vec<String> = classifier.model().labels().map(str::to_string).collect();
    for class in names.len()..classifier.model().classes() {
        names.push(class.to_string());
    }
    names.truncate(classifier.model().classes());
    names
}

/// Samples that were right and then were not: one of each class first, in the order of the data.
fn gallery(
    subject: &Pictured<'_>,
    clean: &[Answer],
    result: &AttackResult,
    attack: &str,
) -> Vec<Example> {
    let labels = subject.data.labels().unwrap_or_default();
    let n = subject.classifier.input_len();
    let won = |&i: &usize| clean[i].label == labels[i] && result.attacked.outcomes[i].fooled;
    let mut seen = Vec::new();
    let (first, again): (Vec<usize>, Vec<usize>) = (0..labels.len()).filter(won).partition(|&i| {
        let new = !seen.contains(&labels[i]);
        seen.push(labels[i]);
        new
    });
    let chosen: Vec<usize> = first.into_iter().chain(again).take(EXAMPLES).collect();
    let pick = |inputs: &Inputs, i: usize| match inputs {
        Inputs::F32(x) => Inputs::F32(x[i * n..(i + 1) * n].to_vec()),
        Inputs::I8(x) => Inputs::I8(x[i * n..(i + 1) * n].to_vec()),
    };
    chosen
        .into_iter()
        .filter_map(|i| {
            let adversarial = pick(&result.attacked.inputs, i);
            let after = subject.classifier.answers(&adversarial).ok()?.pop()?;
            example(
                subject,
                i,
                &pick(subject.inputs, i),
                &adversarial,
                (&clean[i], &after),
                attack,
            )
        })
        .collect()
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
    let range = classifier.model().input_range();
    let shape = subject.data.shape();
    let said = |answer: &Answer| (name(answer.label), f64::from(answer.confidence()));
    Some(Example {
        sample: i,
        attack: attack.to_string(),
        label: name(*subject.data.labels()?.get(i)?),
        original: Picture::of_sample(&x, shape, range)?,
        perturbation: Picture::of_change(&change, shape, largest)?,
        amplification: if largest > 0.0 {
            f64::from((range.1 - range.0) / largest)
        } else {
            1.0
        },
        adversarial: Picture::of_sample(&y, shape, range)?,
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

/// What made the report.
pub fn versions() -> Vec<(String, String)> {
    vec![
        ("foolproof".into(), env!("CARGO_PKG_VERSION").into()),
        (
            "machine".into(),
            format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        ),
    ]
}
