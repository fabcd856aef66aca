//! Tables for the terminal.

use super::{arithmetic, format, verdict};
use crate::document::Document;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

/// The verdict, then one table of accuracies and one of devices, as far as the document has them.
pub fn render(document: &Document) -> String {
    let mut parts = vec![verdict(document)];
    if !document.attacks.is_empty() || document.accuracy.is_some() {
        parts.push(accuracies(document).to_string());
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

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    table
}

fn right(text: impl ToString) -> Cell {
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
