//! The same work on host and chip: does the chip do what the host says, to the last bit?

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foolproof::attack::{Kind, Spec};
use foolproof::kernels::Kernels;
use foolproof::link::{Input, Turn};
use foolproof::model::Model;

use super::{
    Board, Chip, Emulator, Footprint, Inferred, Line, Options, Payload, fitted, footprint,
};
use crate::attack::{Run, attack};
use crate::classifier::{Answer, Classifier, Inputs};
use crate::graph::{Cut, Image};

/// What host and chip both do.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// The model image. Where attacks on it take more RAM than a board has, the board gets one with its backward cut.
    pub image: &'a [u8],
    /// The same model on the host; its kernels do not matter, the reference kernels are used.
    pub classifier: Classifier<'a>,
    /// The inputs, in the model's own number type.
    pub inputs: &'a Inputs,
    /// One label per input.
    pub labels: &'a [usize],
    /// The attacks, each on every input, away from its label (or towards it, if targeted).
    pub attacks: &'a [Spec],
    /// The seed of every random choice.
    pub seed: u64,
    /// Called with 1 after every inference and attack on the chip.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// What an attack on the chip came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttackFigures {
    /// The attack.
    pub attack_index: usize,
    /// Samples that the chip still classifies as their label.
    pub robust: usize,
    /// Samples on which the attack reached its goal.
    pub fooled: usize,
    /// Instructions per sample, mean.
    pub instructions: u64,
}

/// What host and chip did, and where they differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The board's name.
    pub board: String,
    /// Samples that host and chip both classified.
    pub samples: usize,
    /// Samples that the chip classified as their label.
    pub correct: usize,
    /// Outputs compared: of the samples, and of the host's adversarial inputs.
    pub outputs_compared: usize,
    /// Outputs of which any byte, or the label, differs.
    pub logit_mismatches: usize,
    /// Adversarial inputs compared: attacks times samples.
    pub adversarial_compared: usize,
    /// Adversarial inputs of which any byte, the label or a count differs.
    pub adversarial_mismatches: usize,
    /// The first difference, for people.
    pub first_difference: Option<String>,
    /// Instructions per inference, mean.
    pub instructions_per_inference: u64,
    /// One entry per attack, in their order.
    pub attacks: Vec<AttackFigures>,
    /// Buffer bytes to infer.
    pub infer_buffer: usize,
    /// Buffer bytes to attack.
    pub attack_buffer: usize,
    /// How the backward of attacks was cut to fit the chip.
    pub cut: Option<Cut>,
    /// Bytes of the image on the chip.
    pub image_bytes: usize,
    /// The most stack that was in use, in bytes.
    pub stack_used: usize,
    /// The stack's size in bytes.
    pub stack_size: usize,
    /// What the firmware occupies.
    pub footprint: Footprint,
}

impl Comparison {
    /// Whether something was compared and nothing differs.
    pub fn is_identical(&self) -> bool {
        self.outputs_compared > 0 && self.logit_mismatches == 0 && self.adversarial_mismatches == 0
    }
}

/// Does `work` on the host and on an emulated `board` that runs the firmware `elf`, within `limit`.
pub fn compare_emulated(
    board: &Board,
    elf: &Path,
    work: &Work,
    limit: Duration,
) -> Result<Comparison> {
    let samples = check(work)?;
    let cut = fitted(board, &Model::from_bytes(work.image)?, work.attacks)?;
    let image = cut.as_ref().map_or(work.image, Image::bytes);
    let mut payload = Payload {
        image: image.to_vec(),
        ..Payload::default()
    };
    let n = work.classifier.input_len();
    let labels: Vec<u16> = work.labels.iter().map(|&label| label as u16).collect();
    let with_samples = Payload {
        inputs: (0..samples).flat_map(|i| work.inputs.bytes(i, n)).collect(),
        labels,
        ..payload.clone()
    };
    // Samples in the slot save time on the line; without them there is more room for the model.
    let in_slot = with_samples.for_board(board).is_ok();
    if in_slot {
        payload = with_samples;
    }
    let options = Options {
        limit,
        slot: payload.for_board(board)?,
        ..Options::default()
    };
    let mut chip = Chip::new(Emulator::start(board, elf, options)?);
    let mut comparison = compare(&mut chip, footprint(elf)?, in_slot, work)
        .with_context(|| format!("on the emulated {}", board.name))?;
    comparison.cut = Cut::of(&Model::from_bytes(image)?);
    comparison.image_bytes = image.len();
    let outcome = chip.quit()?.wait()?;
    ensure!(
        outcome.code == Some(0),
        "the firmware on {} ended with code {:?}",
        board.name,
        outcome.code
    );
    Ok(comparison)
}

/// Does `work` on the host and on `chip`, whose slot holds the model and, if `in_slot`, the samples.
pub fn compare<L: Line>(
    chip: &mut Chip<L>,
    footprint: Footprint,
    in_slot: bool,
    work: &Work,
) -> Result<Comparison> {
    let samples = check(work)?;
    let info = chip.hello()?;
    let ready = chip.use_slot()?;
    let mut both = Both {
        chip,
        host: Classifier::new(*work.classifier.model(), Kernels::Scalar),
        work,
        in_slot,
        comparison: Comparison {
            board: info.board,
            samples,
            correct: 0,
            outputs_compared: 0,
            logit_mismatches: 0,
            adversarial_compared: 0,
            adversarial_mismatches: 0,
            first_difference: None,
            instructions_per_inference: 0,
            attacks: Vec::new(),
            infer_buffer: ready.infer_buffer as usize,
            attack_buffer: ready.attack_buffer as usize,
            cut: Cut::of(work.classifier.model()),
            image_bytes: work.image.len(),
            stack_used: 0,
            stack_size: 0,
            footprint,
        },
    };
    both.infer_all()?;
    for index in 0..work.attacks.len() {
        both.attack_all(index)?;
    }
    let mut comparison = both.comparison;
    let stats = chip.stats()?;
    comparison.stack_used = stats.stack_used as usize;
    comparison.stack_size = stats.stack_size as usize;
    Ok(comparison)
}

/// The number of samples, if the work is well-formed.
fn check(work: &Work) -> Result<usize> {
    let samples = work.labels.len();
    let n = work.classifier.input_len();
    ensure!(samples > 0, "there are no samples to compare");
    ensure!(
        work.inputs.len() == samples * n,
        "{} input elements are not {samples} samples of {n}",
        work.inputs.len()
    );
    let classes = work.classifier.model().classes();
    for (index, &label) in work.labels.iter().enumerate() {
        ensure!(
            label < classes && label <= usize::from(u16::MAX),
            "sample {index} has label {label}, the model has {classes} classes"
        );
    }
    Ok(samples)
}

struct Both<'a, L> {
    chip: &'a mut Chip<L>,
    host: Classifier<'a>,
    work: &'a Work<'a>,
    in_slot: bool,
    comparison: Comparison,
}

impl<L: Line> Both<'_, L> {
    fn infer_all(&mut self) -> Result<()> {
        let answers = self.host.answers(self.work.inputs)?;
        let mut instructions = 0;
        for (index, answer) in answers.iter().enumerate() {
            let bytes = self.work.inputs.bytes(index, self.host.input_len());
            let inferred = self.chip.infer(self.input(index, &bytes))?;
            instructions += inferred.instructions;
            self.comparison.correct +=
                usize::from(usize::from(inferred.label) == self.work.labels[index]);
            self.note_output(&format!("sample {index}"), answer, &inferred);
            (self.work.progress)(1);
        }
        self.comparison.instructions_per_inference = instructions / answers.len() as u64;
        Ok(())
    }

    fn attack_all(&mut self, attack_index: usize) -> Result<()> {
        let n = self.host.input_len();
        let spec = self.work.attacks[attack_index];
        let run = Run::of_spec(spec, self.work.labels, self.work.seed, &|_| {});
        let attacked = attack(&self.host, self.work.inputs, &run)?;
        let answers = self.host.answers(&attacked.inputs)?;
        let mut figures = AttackFigures {
            attack_index,
            robust: 0,
            fooled: 0,
            instructions: 0,
        };
        let fitted = match spec.kind {
            Kind::Universal => self.fit_universal(spec, &mut figures.instructions)?,
            _ => 0,
        };
        for (index, outcome) in attacked.outcomes.iter().enumerate() {
            let name = format!("attack {attack_index}, sample {index}");
            let label = self.work.labels[index];
            let bytes = self.work.inputs.bytes(index, n);
            let input = (self.input(index, &bytes), label as u16);
            let mut crafted = match spec.kind {
                Kind::Universal => self.chip.universal(Turn::Apply, spec, input)?,
                _ => self
                    .chip
                    .attack(spec, input, (self.work.seed, index as u32))?,
            };
            crafted.queries += fitted;
            crafted.gradients += fitted;
            figures.instructions += crafted.instructions;
            figures.robust += usize::from(usize::from(crafted.label) == label);
            figures.fooled += usize::from(crafted.fooled);
            let of_host = attacked.inputs.bytes(index, n);
            let same = crafted.bytes == of_host
                && usize::from(crafted.label) == outcome.label
                && crafted.fooled == outcome.fooled
                && u64::from(crafted.queries) == outcome.queries
                && u64::from(crafted.gradients) == outcome.gradients;
            self.comparison.adversarial_compared += 1;
            if !same {
                self.comparison.adversarial_mismatches += 1;
                let at = crafted.bytes.iter().zip(&of_host).position(|(a, b)| a != b);
                let count = crafted
                    .bytes
                    .iter()
                    .zip(&of_host)
                    .filter(|(a, b)| a != b)
                    .count();
                self.note_difference(format!(
                    "{name}: {count} bytes differ, the first at {at:?}; the chip: label {}, {} queries, {} gradients; the host: {outcome:?}",
                    crafted.label, crafted.queries, crafted.gradients
                ));
            }
            // The chip's view of what the host crafted.
            let inferred = self.chip.infer(Input::Bytes(&of_host))?;
            self.note_output(&name, &answers[index], &inferred);
            (self.work.progress)(1);
        }
        figures.instructions /= attacked.outcomes.len() as u64;
        self.comparison.attacks.push(figures);
        Ok(())
    }

    /// Has the chip fit a universal perturbation on all samples; returns how often it asked about each.
    fn fit_universal(&mut self, spec: Spec, instructions: &mut u64) -> Result<u32> {
        for pass in 0..spec.steps {
            for index in 0..self.work.labels.len() {
                let turn = match (pass, index) {
                    (0, 0) => Turn::Begin,
                    _ => Turn::Learn { pass },
                };
                let bytes = self.work.inputs.bytes(index, self.host.input_len());
                let input = (self.input(index, &bytes), self.work.labels[index] as u16);
                *instructions += self.chip.universal(turn, spec, input)?.instructions;
            }
        }
        Ok(u32::from(spec.steps))
    }

    fn input<'b>(&self, index: usize, bytes: &'b [u8]) -> Input<'b> {
        match self.in_slot {
            true => Input::Sample(index as u32),
            false => Input::Bytes(bytes),
        }
    }

    fn note_output(&mut self, name: &str, host: &Answer, chip: &Inferred) {
        self.comparison.outputs_compared += 1;
        if chip.output != host.output || usize::from(chip.label) != host.label {
            self.comparison.logit_mismatches += 1;
            self.note_difference(format!(
                "{name}: the chip answers {:02x?} (label {}), the host {:02x?} (label {})",
                chip.output, chip.label, host.output, host.label
            ));
        }
    }

    fn note_difference(&mut self, text: String) {
        self.comparison.first_difference.get_or_insert(text);
    }
}
