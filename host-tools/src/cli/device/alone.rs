//! `foolproof device eval`: image, samples and attacks are flashed, and the chip comes to its verdict alone. The host reads it from
//! the chip's log, and checks it by the checksums of all outputs and all crafted inputs.

use super::Job;
use crate::attack::{Run, attack};
use crate::device::{Emulator, Options, Payload, fitted, footprint};
use crate::document::Device;
use crate::graph::{Cut, Image};
use anyhow::{Context, Result, ensure};
use foolproof::attack::Kind;
use foolproof::link::CRC32;
use foolproof::memory::Mode;
use foolproof::model::Model;

pub(super) fn evaluate(job: &Job<'_>, warnings: &mut Vec<String>) -> Result<Device> {
    let Job {
        board,
        elf,
        work,
        limit,
    } = job;
    let (n, samples) = (work.classifier.input_len(), work.labels.len());
    let cut = fitted(board, work.classifier.model(), work.attacks)?;
    let image = cut.as_ref().map_or(work.image, Image::bytes);
    let model = Model::from_bytes(image)?;
    let payload = Payload {
        image: image.to_vec(),
        inputs: (0..samples).flat_map(|i| work.inputs.bytes(i, n)).collect(),
        labels: work
            .labels
            .iter()
            .map(|&label| u16::try_from(label))
            .collect::<std::result::Result<_, _>>()?,
        attacks: work.attacks.to_vec(),
        seed: work.seed,
        is_self_contained: true,
    };
    let options = Options {
        limit: *limit,
        slot: payload.for_board(board)?,
        ..Options::default()
    };
    let outcome = Emulator::start(board, elf, options)?.wait()?;
    ensure!(
        !outcome.timed_out,
        "the chip was not done after {} s; fewer samples (--limit) or more time (--timeout) would help",
        limit.as_secs()
    );
    if outcome.code != Some(0) {
        let said = outcome
            .log
            .iter()
            .rev()
            .find(|line| line.starts_with("error"));
        anyhow::bail!(
            "the firmware ended with code {:?}: {}",
            outcome.code,
            said.map_or("no word why", |line| line)
        );
    }
    let log = Log {
        lines: &outcome.log,
    };

    let mut device = Device {
        board: board.name.clone(),
        core: Some(board.core.clone()),
        ran: Some("emulated".into()),
        samples,
        logits_compared: samples,
        adversarial_compared: samples * work.attacks.len(),
        infer_buffer_bytes: Some(model.required_buffer(Mode::Infer)),
        attack_buffer_bytes: Some(model.required_buffer(Mode::Attack)),
        attack_passes: Cut::of(&model).map(|cut| cut.passes),
        attack_extra_forwards: Cut::of(&model).map(|cut| cut.extra_forwards),
        stack_bytes: Some(log.numbers("stack: ")?[0] as usize),
        ..Device::default()
    };
    let used = if work.attacks.is_empty() {
        device.infer_buffer_bytes
    } else {
        device.attack_buffer_bytes
    };
    device.buffer_bytes = used;
    let occupied = footprint(elf)?;
    device.flash_bytes = Some(occupied.flash as usize + image.len());
    device.static_ram_bytes = Some(occupied.ram as usize);

    let clean = log.numbers("clean: ")?;
    ensure!(
        clean.len() >= 3 && clean[1] as usize == samples,
        "the chip evaluated other samples than it was given"
    );
    device.accuracy = Some(clean[0] as f64 / samples.max(1) as f64);
    device.instructions_per_inference = Some(clean[2]);
    let answers = work.classifier.answers(work.inputs)?;
    if log.checksum("clean: ")? != checksum(answers.iter().map(|answer| answer.output.as_slice())) {
        device.logit_mismatches = samples;
        warnings.push(format!(
            "{}: the checksum over all outputs differs; device run tells which",
            board.name
        ));
    }
    for (number, spec) in work.attacks.iter().enumerate() {
        let start = format!("attack {number}: ");
        let figures = log.numbers(&start)?;
        ensure!(
            figures.len() >= 4,
            "the chip's line on attack {number} is incomplete"
        );
        match spec.kind {
            Kind::Fgsm => device.instructions_per_fgsm = Some(figures[3]),
            Kind::Pgd => device.instructions_per_pgd = Some(figures[3]),
            _ => {}
        }
        let run = Run::of_spec(*spec, work.labels, work.seed, &|_| {});
        let attacked = attack(&work.classifier, work.inputs, &run)?;
        let crafted: Vec<Vec<u8>> = (0..samples).map(|i| attacked.inputs.bytes(i, n)).collect();
        if log.checksum(&start)? != checksum(crafted.iter().map(Vec::as_slice)) {
            device.adversarial_mismatches += samples;
            warnings.push(format!(
                "{}: the checksum over attack {number}'s inputs differs; device run tells which",
                board.name
            ));
        }
        (work.progress)(samples as u64);
    }
    Ok(device)
}

fn checksum<'a>(parts: impl Iterator<Item = &'a [u8]>) -> u32 {
    let mut digest = CRC32.digest();
    parts.for_each(|part| digest.update(part));
    digest.finalize()
}

/// What the chip said.
struct Log<'a> {
    lines: &'a [String],
}

impl Log<'_> {
    /// What follows `start` on the line of the log that has it.
    fn after(&self, start: &str) -> Result<&str> {
        let found = self.lines.iter().find_map(|line| {
            line.strip_prefix("INFO: ")
                .or(line.strip_prefix("info: "))?
                .strip_prefix(start)
        });
        found.with_context(|| format!("the chip's log has no line {start:?}"))
    }

    /// The decimal numbers of that line, in order.
    fn numbers(&self, start: &str) -> Result<Vec<u64>> {
        let numbers: Vec<u64> = self
            .after(start)?
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        ensure!(
            !numbers.is_empty(),
            "the chip's line {start:?} has no numbers"
        );
        Ok(numbers)
    }

    /// The checksum at the end of that line.
    fn checksum(&self, start: &str) -> Result<u32> {
        let word = self
            .after(start)?
            .split_whitespace()
            .last()
            .unwrap_or_default();
        u32::from_str_radix(word, 16)
            .with_context(|| format!("the chip's line {start:?} ends in no checksum"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_read() {
        let lines = [
            "info: x evaluates 5 samples".to_string(),
            "info: clean: 4 of 5 right, 123 instructions each, outputs 0000beef".to_string(),
            "info: stack: 900 of 2048 bytes".to_string(),
        ];
        let log = Log { lines: &lines };
        assert_eq!(log.numbers("clean: ").unwrap(), [4, 5, 123]);
        assert_eq!(log.checksum("clean: ").unwrap(), 0xbeef);
        assert_eq!(log.numbers("stack: ").unwrap(), [900, 2048]);
        assert!(log.numbers("attack 0: ").is_err());
        assert!(log.checksum("stack: ").is_err());
    }
}
