//! Reports for people: one self-contained HTML page, and tables for the terminal. Both are views of a
//! [`crate::document::Document`], with pictures.

pub mod build;
pub mod chart;
pub mod csv;
pub(crate) mod format;
mod html;
pub mod junit;
pub mod learning;
pub mod markdown;
pub mod picture;
#[cfg(test)]
pub(crate) mod sample;
pub mod speed;
pub mod terminal;

pub use html::page;
pub use picture::Picture;

use crate::document::{Attack, Document};
use format::percent;

/// Everything that a report shows.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportData {
    /// The figures.
    pub document: Document,
    /// The command line that made them.
    pub command_line: String,
    /// Names and versions that a reader needs to make them again: foolproof, compiler, emulator.
    pub versions: Vec<(String, String)>,
    /// Samples that were fooled, with pictures; may be empty.
    pub gallery: Vec<Example>,
    /// Training, epoch by epoch; empty where nothing was trained.
    pub training: Vec<Progress>,
    /// What was taken for what, before and after an attack.
    pub confusion: Option<Confusion>,
}

/// A sample before and after an attack.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Its number in the data set.
    pub sample: usize,
    /// The attack, for people: `FGSM, eps 0.25`.
    pub attack: String,
    /// The right label.
    pub label: String,
    /// The sample.
    pub original: Picture,
    /// What was added to it.
    pub perturbation: Picture,
    /// How many times larger than it is the perturbation is shown.
    pub amplification: f64,
    /// The sum.
    pub adversarial: Picture,
    /// What the model said before, and how sure it was (0 to 1).
    pub before: (String, f64),
    /// What it said after.
    pub after: (String, f64),
}

/// One epoch of training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Counted from 1.
    pub epoch: usize,
    /// Mean training loss.
    pub loss: f64,
    /// Training accuracy, 0 to 1.
    pub accuracy: f64,
}

/// Two confusion matrices over the same classes.
#[derive(Debug, Clone, PartialEq)]
pub struct Confusion {
    /// Class names.
    pub classes: Vec<String>,
    /// Right class by predicted class, row after row, on unchanged samples.
    pub clean: Vec<usize>,
    /// The same on adversarial samples.
    pub adversarial: Vec<usize>,
    /// The attack, for people.
    pub attack: String,
}

impl Confusion {
    /// Counts `predicted` against `labels`, both below `classes.len()`; others are left out.
    pub fn count(classes: usize, labels: &[usize], predicted: &[usize]) -> Vec<usize> {
        let mut counts = vec![0; classes * classes];
        for (&label, &answer) in labels.iter().zip(predicted) {
            if label < classes && answer < classes {
                counts[label * classes + answer] += 1;
            }
        }
        counts
    }
}

/// How the model came out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The worst attack fools less than a tenth of the samples that the model had right.
    Held,
    /// Less than half.
    Weakened,
    /// Half or more.
    Fooled,
    /// No sample that was right could be attacked: none was right, or epsilon let nothing be changed.
    NothingToFool,
    /// Nothing was attacked, or no attack was allowed to ask anything.
    Untested,
    /// It looks as if it held, but a check says that the figures cannot be believed.
    Doubtful,
}

impl ReportData {
    /// The attack that leaves the least accuracy on the model that the document is about.
    pub fn worst(&self) -> Option<&Attack> {
        worst(&self.document)
    }

    /// How the model came out of it.
    pub fn outcome(&self) -> Outcome {
        outcome(&self.document)
    }
}

fn numerics(document: &Document) -> &str {
    document
        .model
        .as_ref()
        .map_or("f32", |model| &model.numerics)
}

/// The attack that leaves the least accuracy on the model that the document is about: an untargeted one where there is any.
pub fn worst(document: &Document) -> Option<&Attack> {
    let least = |targeted: bool| {
        document
            .attacks
            .iter()
            .filter(|attack| attack.targeted == targeted && attack.numerics == numerics(document))
            .min_by(|a, b| {
                let nothing_tried = |attack: &Attack| attack.success_rate.is_none();
                nothing_tried(a)
                    .cmp(&nothing_tried(b))
                    .then(a.robust_accuracy.total_cmp(&b.robust_accuracy))
            })
    };
    least(false).or_else(|| least(true))
}

/// How the model came out of it.
pub fn outcome(document: &Document) -> Outcome {
    let (Some(_), Some(worst)) = (document.accuracy, worst(document)) else {
        return Outcome::Untested;
    };
    match worst.success_rate {
        None if worst.queries_mean == 0.0 => Outcome::Untested,
        None => Outcome::NothingToFool,
        Some(fooled) if fooled < 0.1 => match failed(document) {
            0 => Outcome::Held,
            _ => Outcome::Doubtful,
        },
        Some(fooled) if fooled < 0.5 => Outcome::Weakened,
        Some(_) => Outcome::Fooled,
    }
}

/// How many checks failed.
fn failed(document: &Document) -> usize {
    let checks = document.checks.iter();
    checks.filter(|check| check.passed == Some(false)).count()
}

/// The figures in one sentence that a stranger understands.
pub fn verdict(document: &Document) -> String {
    let mut sentence = match (document.accuracy, worst(document)) {
        (Some(clean), Some(worst)) => {
            let outcome = outcome(document);
            let word = match outcome {
                Outcome::Fooled => "Fooled",
                Outcome::Weakened => "Weakened",
                Outcome::NothingToFool => "Nothing to fool",
                Outcome::Untested => "Not tested",
                Outcome::Doubtful => "Doubtful",
                Outcome::Held => "Held",
            };
            let clean = format!("{word}: {} accurate on clean samples", percent(clean.clean));
            let attack = title(worst);
            let left = percent(worst.robust_accuracy);
            match outcome {
                Outcome::Untested => format!("{clean}; {attack} was allowed to ask nothing."),
                Outcome::Doubtful => format!(
                    "{clean}, {left} under {attack}, but {}.",
                    match failed(document) {
                        1 => "a check speaks against these figures".to_string(),
                        several => format!("{several} checks speak against these figures"),
                    }
                ),
                _ => format!("{clean}, {left} under {attack}."),
            }
        }
        (Some(clean), None) => format!(
            "{} accurate on clean samples; nothing was attacked.",
            percent(clean.clean)
        ),
        (None, _) => "No accuracy was measured.".to_string(),
    };
    if let Some(agreement) = agreement(document) {
        sentence.push(' ');
        sentence.push_str(&agreement);
    }
    sentence
}

/// Whether the chips said the same as the host; `None` where no chip was run.
pub fn agreement(document: &Document) -> Option<String> {
    if document.device.is_empty() {
        return None;
    }
    let total = |count: fn(&crate::document::Device) -> usize| {
        document.device.iter().map(count).sum::<usize>()
    };
    let mismatches = total(|d| d.logit_mismatches + d.adversarial_mismatches);
    let compared = total(|d| d.logits_compared + d.adversarial_compared);
    let who = match document.device.len() {
        1 => "The chip".to_string(),
        2 => "Both chips".to_string(),
        boards => format!("All {boards} chips"),
    };
    Some(match (mismatches, compared) {
        (_, 0) => "Nothing was compared with a chip.".to_string(),
        (0, _) => match document.device.len() {
            1 => format!("{who} agrees with the host bit for bit."),
            _ => format!("{who} agree with the host bit for bit."),
        },
        _ => format!("Host and chip DISAGREE on {mismatches} of {compared} outputs."),
    })
}

/// An attack for people: `FGSM at eps 0.25`.
pub fn title(attack: &Attack) -> String {
    let norm = match attack.norm.as_str() {
        "linf" => "",
        "l2" => " (L2)",
        "l1" => " (L1)",
        _ => " (L0)",
    };
    let aim = if attack.targeted { "targeted " } else { "" };
    let name = attack.name.to_uppercase();
    match attack.eps {
        Some(eps) => format!("{aim}{name}{norm} at eps {}", format::number(eps)),
        None => format!("{aim}{name}{norm}"),
    }
}

/// The arithmetic of a model, for people: `float`, `int8`.
pub fn arithmetic(numerics: &str) -> &str {
    match numerics {
        "f32" => "float",
        _ => "int8",
    }
}

#[cfg(test)]
mod tests;
