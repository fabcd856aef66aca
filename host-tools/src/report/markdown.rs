//! The table of boards for documentation.

use super::format::optional;
use crate::document::Document;

/// One row per board that was run: what the firmware takes and what the model costs on it.
pub fn boards(document: &Document) -> String {
    let mut text = String::from(
        "| board | core | samples | outputs that differ | adversarial inputs that differ | flash | static RAM | stack | buffer: infer | buffer: attack | instructions: inference | instructions: FGSM | instructions: PGD |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let count = |n: Option<usize>| optional(n.map(|n| n as u64));
    for d in &document.device {
        let cells = [
            d.board.clone(),
            d.core.clone().unwrap_or_default(),
            d.samples.to_string(),
            d.logit_mismatches.to_string(),
            format!("{} of {}", d.adversarial_mismatches, d.adversarial_compared),
            count(d.flash_bytes),
            count(d.static_ram_bytes),
            count(d.stack_bytes),
            count(d.infer_buffer_bytes),
            count(d.attack_buffer_bytes),
            optional(d.instructions_per_inference),
            optional(d.instructions_per_fgsm),
            optional(d.instructions_per_pgd),
        ];
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}
