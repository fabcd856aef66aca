//! Tables for the terminal.

use super::{arithmetic, format, verdict};
use crate::document::{Check, Document, Transfer};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

/// The verdict, then one table of accuracies and one of devices, as far as the document has them.
pub fn render(document: &Document) -> String {
    let mut parts = vec![verdict(document)];
    if !document.attacks.is_empty() || document.accuracy.is_some() {
        parts.push(accuracies(document).to_string());
    }
    if !document.gradients.is_empty() {
        parts.push(gradients(document).to_string());
    }
    parts.extend(transfer(document));
    if !document.checks.is_empty() {
        parts.push(checks(document));
    }
    if !document.device.is_empty() {
        parts.push(devices(document).to_string());
    }
    parts.extend(
        document
            .warnings
            .iter()
            .map(|warning| format!("warning: {warning}")),
    );
    parts.join("\n\n")
}

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    table
}

pub(super) fn right(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn interval([low, high]: [f64; 2]) -> String {
    format!("{:.1} to {:.1}", 100.0 * low, 100.0 * high)
}

/// How many of those compared are not the host's, to the bit.
fn differ(mismatches: usize, compared: usize) -> String {
    match compared {
        0 => "–".into(),
        _ => format!("{mismatches} of {}", format::count(compared as u64)),
    }
}

fn accuracies(document: &Document) -> Table {
    let mut table = table(&[
        "model",
        "attack",
        "box",
        "norm",
        "eps",
        "accuracy",
        "95 % interval",
        "success",
        "queries",
    ]);
    let model = document
        .model
        .as_ref()
        .map_or("", |model| arithmetic(&model.numerics));
    for (name, accuracy) in [
        ("float", document.accuracy_float),
        (model, document.accuracy),
    ] {
        if let Some(accuracy) = accuracy {
            table.add_row(vec![
                Cell::new(name),
                Cell::new("none"),
                Cell::new(""),
                Cell::new(""),
                Cell::new(""),
                right(format::percent(accuracy.clean)),
                right(interval(accuracy.interval)),
                Cell::new(""),
                Cell::new(""),
            ]);
        }
    }
    for attack in &document.attacks {
        table.add_row(vec![
            Cell::new(arithmetic(&attack.numerics)),
            Cell::new(if attack.targeted {
                format!("{} targeted", attack.name)
            } else {
                attack.name.clone()
            }),
            Cell::new(attack.threat.trim_end_matches("-box")),
            Cell::new(&attack.norm),
            right(attack.eps.map_or("–".into(), format::number)),
            right(format::percent(attack.robust_accuracy)),
            right(interval(attack.interval)),
            right(attack.success_rate.map_or("–".into(), format::percent)),
            right(format::decimal(attack.queries_mean)),
        ]);
    }
    table
}

/// What the gradients are worth that white-box attacks climbed.
fn gradients(document: &Document) -> Table {
    let beside_float = document.gradients.iter().any(|g| g.float.is_some());
    let mut header = vec!["gradient of", "zero", "vanished"];
    if beside_float {
        header.extend(["cosine with float's", "signs agree", "ascent on float"]);
    }
    let mut table = table(&header);
    for gradient in &document.gradients {
        let mut row = vec![
            Cell::new(&gradient.objective),
            right(format::percent(gradient.zero.mean)),
            right(format!(
                "{} of {}",
                format::percent(gradient.vanished.share),
                gradient.n
            )),
        ];
        if beside_float {
            let float = gradient.float.as_ref();
            row.extend([
                right(format::cosine(float.and_then(|f| f.cosine))),
                right(format::mean_percent(float.and_then(|f| f.sign_agreement))),
                right(format::mean_percent(float.and_then(|f| f.ascent))),
            ]);
        }
        table.add_row(row);
    }
    table
}

/// How much of what fools the float model fools the model, a line for each size of ball.
fn transfer(document: &Document) -> Option<String> {
    let line = |transfer: &Transfer| {
        let carried = match &transfer.carried_over {
            Some(share) => format!(
                "{} of {} ({})",
                format::percent(share.share),
                share.n,
                interval(share.interval)
            ),
            None => "nothing fooled it".into(),
        };
        format!(
            "what fools the float model ({}, eps {}) fools this one too: {carried}",
            transfer.attack,
            format::number(transfer.eps)
        )
    };
    let lines: Vec<String> = document.transfer.iter().map(line).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Whether the figures can be believed.
fn checks(document: &Document) -> String {
    let line = |check: &Check| {
        let mark = match check.passed {
            Some(true) => "ok  ",
            Some(false) => "FAIL",
            None => "?   ",
        };
        format!("{mark} {}: {}", check.name, check.explanation)
    };
    let lines: Vec<String> = document.checks.iter().map(line).collect();
    format!("Can these figures be believed?\n{}", lines.join("\n"))
}

fn devices(document: &Document) -> Table {
    let mut table = table(&[
        "board",
        "samples",
        "outputs differ",
        "attacks differ",
        "instr./inference",
        "instr./FGSM",
        "instr./PGD",
        "attack buffer",
        "stack",
        "flash",
    ]);
    for device in &document.device {
        table.add_row(vec![
            Cell::new(&device.board),
            right(device.samples),
            right(differ(device.logit_mismatches, device.logits_compared)),
            right(differ(
                device.adversarial_mismatches,
                device.adversarial_compared,
            )),
            right(format::optional(device.instructions_per_inference)),
            right(format::optional(device.instructions_per_fgsm)),
            right(format::optional(device.instructions_per_pgd)),
            right(format::optional(
                device.attack_buffer_bytes.map(|b| b as u64),
            )),
            right(format::optional(device.stack_bytes.map(|b| b as u64))),
            right(format::optional(device.flash_bytes.map(|b| b as u64))),
        ]);
    }
    table
}
