//! Does a chip do what the host says? The same model, the same samples, every byte compared.

use crate::attack::{Attacked, Run, attack};
use crate::classifier::{Answer, Classifier, Inputs};
use crate::device::{Board, Chip, Emulator, Options, Payload, footprint};
use crate::document::Device;
use anyhow::{Context, Result, ensure};
use foolproof::attack::{Kind, Spec};
use foolproof::link::Input;
use std::path::Path;
use std::time::Duration;

/// What the host says: to be compared with any number of chips.
#[derive(Debug)]
pub struct Expected<'a> {
    classifier: Classifier<'a>,
    inputs: Inputs,
    labels: Vec<usize>,
    seed: u64,
    answers: Vec<Answer>,
    attacks: Vec<ExpectedAttack>,
}

/// One attack as the host ran it.
#[derive(Debug)]
struct ExpectedAttack {
    spec: Spec,
    attacked: Attacked,
    answers: Vec<Answer>,
}

impl<'a> Expected<'a> {
    /// Evaluates and attacks every sample on the host. `classifier` must run the scalar kernels: they are what a chip runs.
    ///
    /// # Errors
    /// The model cannot be attacked, or inputs and labels do not fit it.
    pub fn new(
        classifier: Classifier<'a>,
        inputs: Inputs,
        labels: Vec<usize>,
        specs: &[Spec],
        seed: u64,
    ) -> Result<Expected<'a>> {
        ensure!(
            classifier.kernels() == foolproof::kernels::Kernels::Scalar,
            "host and chip are compared with the scalar kernels"
        );
        ensure!(!labels.is_empty(), "no samples to compare");
        let answers = classifier.answers(&inputs)?;
        let attacks = specs
            .iter()
            .map(|&spec| {
                let run = Run {
                    spec,
                    classes: &labels,
                    seed,
                    progress: &|_| {},
                };
                let attacked = attack(&classifier, &inputs, &run)?;
                let answers = classifier.answers(&attacked.inputs)?;
                Ok(ExpectedAttack {
                    spec,
                    attacked,
                    answers,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Expected {
            classifier,
            inputs,
            labels,
            seed,
            answers,
            attacks,
        })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Never true: an expectation of nothing is refused.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Requests that [`Expected::compare`] makes for this many samples.
    pub fn requests(&self, samples: usize) -> u64 {
        (samples * (1 + 2 * self.attacks.len())) as u64
    }

    /// Runs the first `samples` samples on an emulated board: the chip classifies them, classifies the host's
    /// adversarial inputs, and crafts its own; every byte is compared. `progress` is called after each
    /// request.
    ///
    /// # Errors
    /// The emulator or the firmware fails, or the model does not fit the board. Differences are not errors: they are counted.
    pub fn compare(
        &self,
        board: &Board,
        elf: &Path,
        samples: usize,
        limit: Duration,
        progress: &dyn Fn(),
    ) -> Result<Device> {
        let samples = samples.min(self.len());
        let n = self.classifier.input_len();
        let image = self.classifier.model().tables().bytes();
        let inputs = self.inputs.truncated(samples, n);
        let payload = Payload {
            image: image.to_vec(),
            inputs: (0..samples).flat_map(|i| inputs.bytes(i, n)).collect(),
            labels: self.labels[..samples].iter().map(|&y| y as u16).collect(),
            attacks: self.attacks.iter().map(|a| a.spec).collect(),
            seed: self.seed,
            is_self_contained: false,
        };
        let options = Options {
            limit,
            slot: payload.for_board(board)?,
            ..Options::default()
        };
        let emulator = Emulator::start(board, elf, options)?;
        let mut chip = Chip::new(emulator);
        let info = chip.hello()?;
        ensure!(
            info.board == board.name,
            "the firmware is for {}, not for {}",
            info.board,
            board.name
        );
        let ready = chip.use_slot()?;
        let mut tally = Tally::default();
        for i in 0..samples {
            let got = chip.infer(Input::Sample(i as u32))?;
            tally.inference(&got.output, &self.answers[i], got.instructions);
            tally.right += usize::from(usize::from(got.label) == self.labels[i]);
            progress();
            for expected in &self.attacks {
                let adversarial = expected.attacked.inputs.bytes(i, n);
                let got = chip.infer(Input::Bytes(&adversarial))?;
                tally.inference(&got.output, &expected.answers[i], got.instructions);
                progress();
                let label = self.labels[i] as u16;
                let input = (Input::Sample(i as u32), label);
                let got = chip.attack(expected.spec, input, (self.seed, i as u32))?;
                let outcome = expected.attacked.outcomes[i];
                let same = got.bytes == adversarial
                    && usize::from(got.label) == outcome.label
                    && got.fooled == outcome.fooled
                    && u64::from(got.queries) == outcome.queries
                    && u64::from(got.gradients) == outcome.gradients;
                tally.crafted += 1;
                tally.adversarial_mismatches += usize::from(!same);
                match expected.spec.kind {
                    Kind::Pgd => tally.pgd.add(got.instructions),
                    _ => tally.fgsm.add(got.instructions),
                }
                progress();
            }
        }
        let stats = chip.stats()?;
        let outcome = chip.quit()?.wait()?;
        ensure!(
            outcome.code == Some(0),
            "the firmware of {} ended with {:?}",
            board.name,
            outcome.code
        );
        let memory = footprint(elf).context("reading the firmware's size")?;
        Ok(Device {
            board: board.name.clone(),
            core: Some(board.core.clone()),
            ran: Some("emulated".to_string()),
            samples,
            logit_mismatches: tally.logit_mismatches,
            adversarial_mismatches: tally.adversarial_mismatches,
            adversarial_compared: tally.crafted,
            accuracy: Some(tally.right as f64 / samples as f64),
            instructions_per_inference: tally.inferences.mean(),
            instructions_per_fgsm: tally.fgsm.mean(),
            instructions_per_pgd: tally.pgd.mean(),
            buffer_bytes: Some(ready.attack_buffer.max(ready.infer_buffer) as usize),
            infer_buffer_bytes: Some(ready.infer_buffer as usize),
            attack_buffer_bytes: Some(ready.attack_buffer as usize),
            stack_bytes: Some(stats.stack_used as usize),
            flash_bytes: Some(memory.flash as usize + image.len()),
            static_ram_bytes: Some(memory.ram as usize),
        })
    }
}

/// What was seen on the chip.
#[derive(Default)]
struct Tally {
    right: usize,
    logit_mismatches: usize,
    adversarial_mismatches: usize,
    crafted: usize,
    inferences: Mean,
    fgsm: Mean,
    pgd: Mean,
}

impl Tally {
    fn inference(&mut self, output: &[u8], expected: &Answer, instructions: u64) {
        self.logit_mismatches += usize::from(output != expected.output);
        self.inferences.add(instructions);
    }
}

#[derive(Default)]
struct Mean {
    sum: u64,
    count: u64,
}

impl Mean {
    fn add(&mut self, value: u64) {
        self.sum += value;
        self.count += 1;
    }

    fn mean(&self) -> Option<u64> {
        (self.sum + self.count / 2).checked_div(self.count)
    }
}
