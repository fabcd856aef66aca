//! What the host says about a model is what the chip does, to the last bit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foolproof::attack::{Norm, Spec};
use foolproof::kernels::Kernels;
use foolproof::link::{CRC32, Input};
use foolproof_host::attack::{Run, attack};
use foolproof_host::classifier::Classifier;
use foolproof_host::data::Samples;
use foolproof_host::data::digits::{self, Part};
use foolproof_host::device::{
    Board, Chip, Comparison, Emulator, Options, Payload, Work, board, boards, compare_emulated,
    firmware_elf,
};
use foolproof_host::graph::{Graph, Image, seal, to_image};
use foolproof_host::networks;
use foolproof_host::quantize::{self, quantize};
use foolproof_host::train::gan::config::Config;
use foolproof_host::train::gan::networks::{Form, generator};
use foolproof_host::train::gan::noise;

/// A model with test digits, whose labels are what the model itself says: so an attack has work to
/// do even on a model that nobody trained.
struct Case {
    image: Image,
    values: Vec<f32>,
    labels: Vec<usize>,
}

impl Case {
    fn new(graph: &Graph, count: usize) -> Self {
        let image = to_image(graph).unwrap();
        let data = digits::load(Part::Test).unwrap().take(count).unwrap();
        let Samples::F32(values) = data.samples() else {
            panic!("the digits are f32");
        };
        let values = values.clone();
        let classifier = Classifier::new(image.model().unwrap(), Kernels::Scalar);
        let answers = classifier.answers(&classifier.inputs(&values)).unwrap();
        let labels = answers.iter().map(|answer| answer.label).collect();
        Case {
            image,
            values,
            labels,
        }
    }

    fn classifier(&self) -> Classifier<'_> {
        Classifier::new(self.image.model().unwrap(), Kernels::Scalar)
    }

    /// FGSM and PGD, in both norms, with a random start and without; the square attack in both norms, NES, and a universal
    /// perturbation in both norms.
    fn attacks(&self) -> [Spec; 8] {
        let classifier = self.classifier();
        let linf = |ball| Spec {
            starts: 2,
            ..Spec::pgd(ball, 4)
        };
        let l2 = |ball| Spec {
            random_start: false,
            ..Spec::pgd(ball, 3)
        };
        let shape = classifier.image_shape().map(|side| side as u16);
        let square = |ball| Spec::square(ball, 20, shape);
        [
            classifier.spec(Spec::fgsm, Norm::Linf, 0.05),
            classifier.spec(linf, Norm::Linf, 0.02),
            classifier.spec(l2, Norm::L2, 0.3),
            classifier.spec(square, Norm::Linf, 0.05),
            classifier.spec(square, Norm::L2, 0.3),
            classifier.spec(|ball| Spec::nes(ball, 2), Norm::Linf, 0.05),
            classifier.spec(|ball| Spec::universal(ball, 2), Norm::Linf, 0.1),
            classifier.spec(|ball| Spec::universal(ball, 2), Norm::L2, 1.0),
        ]
    }

    /// Everything on host and board.
    fn compare(&self, board: &Board) -> anyhow::Result<Comparison> {
        let comparison = self.compare_with(board, self.image.bytes())?;
        assert_eq!(comparison.correct, self.labels.len());
        Ok(comparison)
    }

    /// The same, where the chip gets another image than the host has.
    fn compare_with(&self, board: &Board, image: &[u8]) -> anyhow::Result<Comparison> {
        let elf = firmware_elf(board)?;
        let classifier = self.classifier();
        let attacks = self.attacks();
        let done = AtomicU64::new(0);
        let work = Work {
            image,
            classifier,
            inputs: &classifier.inputs(&self.values),
            labels: &self.labels,
            attacks: &attacks,
            seed: 5,
            progress: &|more| {
                done.fetch_add(more, Ordering::Relaxed);
            },
        };
        let comparison = compare_emulated(board, &elf, &work, Duration::from_secs(300))?;
        let count = self.labels.len();
        let crafted = attacks.len() * count;
        assert_eq!(done.into_inner(), (count + crafted) as u64);
        assert_eq!(comparison.outputs_compared, count + crafted);
        assert_eq!(comparison.adversarial_compared, crafted);
        Ok(comparison)
    }
}

#[test]
fn an_f32_model_is_the_same_on_every_chip() {
    let case = Case::new(&networks::digits(3).unwrap(), 4);
    for board in boards() {
        let comparison = case
            .compare(board)
            .unwrap_or_else(|error| panic!("{error:#}"));
        println!("{comparison:?}");
        assert!(comparison.is_identical(), "{comparison:#?}");
        assert!(comparison.instructions_per_inference > 10_000);
        assert!(comparison.stack_used < comparison.stack_size);
    }
}

/// The network for digits, quantized; nobody trained it.
fn int8_digits(seed: u64) -> Graph {
    let data = digits::load(Part::Train).unwrap().take(100).unwrap();
    let Samples::F32(calibration) = data.samples() else {
        panic!("the digits are f32");
    };
    let graph = networks::digits(seed).unwrap();
    quantize(&graph, calibration, &quantize::Options::default()).unwrap()
}

#[test]
fn an_int8_model_is_the_same_on_every_chip() {
    let graph = int8_digits(3);
    for board in boards() {
        // Gradients are f32: without an FPU they take their time.
        let count = if board.target.ends_with("hf") { 40 } else { 10 };
        let case = Case::new(&graph, count);
        let comparison = case
            .compare(board)
            .unwrap_or_else(|error| panic!("{error:#}"));
        println!("{comparison:?}");
        assert!(comparison.is_identical(), "{comparison:#?}");
        assert!(comparison.attack_buffer > comparison.infer_buffer);
        assert!(comparison.stack_used < comparison.stack_size);
    }
}

/// The chip makes its own noise: samples of seed and index are the same only if the noise is, to the last bit.
#[test]
fn generators_make_the_same_samples_on_every_chip() {
    let form = Form {
        shape: vec![8, 8, 1],
        image: true,
    };
    let config = Config {
        latent: 5,
        hidden: vec![24],
        ..Config::for_samples()
    };
    let float = generator(&form, &config, 3, 7).unwrap();
    let calibration = noise(&float, (50, 3), 1);
    let int8 = quantize(&float, &calibration, &quantize::Options::default()).unwrap();
    let seed = 0x0123_4567_89ab_cdef;
    for graph in [&float, &int8] {
        let image = to_image(graph).unwrap();
        let host = Classifier::new(image.model().unwrap(), Kernels::Scalar);
        let inputs = host.inputs(&noise(graph, (4, 3), seed));
        let answers = host.answers(&inputs).unwrap();
        for board in boards() {
            let payload = Payload {
                image: image.bytes().to_vec(),
                ..Payload::default()
            };
            let options = Options {
                slot: payload.for_board(board).unwrap(),
                ..Options::default()
            };
            let elf = firmware_elf(board).unwrap();
            let mut chip = Chip::new(Emulator::start(board, &elf, options).unwrap());
            chip.hello().unwrap();
            chip.use_slot().unwrap();
            for (index, answer) in (0..).zip(&answers) {
                let made = chip.generate((seed, index), 3).unwrap();
                assert_eq!(made.output, answer.output, "{}, {index}", board.name);
            }
            // another seed, another sample
            let other = chip.generate((seed + 1, 0), 3).unwrap();
            assert_ne!(other.output, answers[0].output, "{}", board.name);
            let error = chip.generate((seed, 0), 9).unwrap_err().to_string();
            assert!(
                error.contains("label 9 of a model with 8 classes"),
                "{error}"
            );
            assert_eq!(chip.quit().unwrap().wait().unwrap().code, Some(0));
        }
    }
}

/// A comparison that compares nothing would not notice this.
#[test]
fn one_changed_weight_on_the_chip_is_noticed() {
    let case = Case::new(&int8_digits(3), 3);
    let model = case.image.model().unwrap();
    let tables = model.tables();
    let weights = tables.node(0).inputs().find(|&t| tables.is_in_image(t));
    let weights = tables.data(weights.unwrap());
    let image = case.image.bytes();
    // The middle of the first filter: it sees every pixel.
    let at = weights.as_ptr().addr() - image.as_ptr().addr() + 4;
    let mut changed = image.to_vec();
    changed[at] ^= 0x40;
    seal(&mut changed);
    let board = board("mps2-an386").unwrap();
    let comparison = case.compare_with(board, &changed).unwrap();
    println!("{comparison:?}");
    assert!(!comparison.is_identical());
    assert!(comparison.logit_mismatches > 0, "{comparison:#?}");
    assert!(comparison.adversarial_mismatches > 0, "{comparison:#?}");
    assert!(comparison.first_difference.is_some());
    // The same way with the same image: nothing differs.
    let same = case.compare_with(board, image).unwrap();
    assert!(same.is_identical(), "{same:#?}");
}

#[test]
fn a_streamed_model_is_the_same_as_one_in_the_slot() {
    let case = Case::new(&networks::digits(4).unwrap(), 2);
    let board = board("mps2-an386").unwrap();
    let elf = firmware_elf(board).unwrap();
    let mut chip = Chip::new(Emulator::start(board, &elf, Options::default()).unwrap());
    chip.hello().unwrap();
    let ready = chip.load(case.image.bytes()).unwrap();
    assert_eq!(ready.image_crc, CRC32.checksum(case.image.bytes()));
    let classifier = case.classifier();
    let inputs = classifier.inputs(&case.values);
    let answers = classifier.answers(&inputs).unwrap();
    for (index, answer) in answers.iter().enumerate() {
        let bytes = inputs.bytes(index, classifier.input_len());
        let inferred = chip.infer(Input::Bytes(&bytes)).unwrap();
        assert_eq!(inferred.output, answer.output);
        assert_eq!(usize::from(inferred.label), answer.label);
    }
    // The chip goes on after each of these, and says what is wrong.
    let spec = case.attacks()[0];
    let bytes = inputs.bytes(0, classifier.input_len());
    let fault = |chip: &mut Chip<Emulator>, spec, bytes: &[u8], label| {
        let error = chip.attack(spec, (Input::Bytes(bytes), label), (0, 0));
        error.unwrap_err().to_string()
    };
    assert!(fault(&mut chip, spec, &bytes[1..], 0).contains("255 bytes, the model takes 256"));
    assert!(fault(&mut chip, spec, &bytes, 10).contains("label 10 of a model with 10 classes"));
    let broken = Spec { steps: 0, ..spec };
    assert!(fault(&mut chip, broken, &bytes, 0).contains("make no sense"));
    let error = chip.infer(Input::Sample(0)).unwrap_err().to_string();
    assert!(error.contains("no sample 0: the bundle has 0"), "{error}");
    // A damaged model is refused, and the chip then has none.
    let mut damaged = case.image.bytes().to_vec();
    damaged[200] ^= 1;
    let error = chip.load(&damaged).unwrap_err().to_string();
    assert!(error.contains("malformed"), "{error}");
    let error = chip.infer(Input::Bytes(&bytes)).unwrap_err().to_string();
    assert!(error.contains("no model is loaded"), "{error}");
    assert_eq!(chip.quit().unwrap().wait().unwrap().code, Some(0));
}

#[test]
fn a_self_contained_run_says_what_the_host_says() {
    let case = Case::new(&networks::digits(5).unwrap(), 4);
    let classifier = case.classifier();
    let inputs = classifier.inputs(&case.values);
    let n = classifier.input_len();
    let count = case.labels.len();
    let payload = Payload {
        image: case.image.bytes().to_vec(),
        inputs: (0..count).flat_map(|i| inputs.bytes(i, n)).collect(),
        labels: case.labels.iter().map(|&label| label as u16).collect(),
        attacks: case.attacks().to_vec(),
        seed: 9,
        is_self_contained: true,
    };
    let checksum = |parts: Vec<Vec<u8>>| CRC32.checksum(&parts.concat());
    for name in ["mps2-an386", "virt"] {
        let board = board(name).unwrap();
        let options = Options {
            slot: payload.for_board(board).unwrap(),
            ..Options::default()
        };
        let elf = firmware_elf(board).unwrap();
        let outcome = Emulator::start(board, &elf, options)
            .unwrap()
            .wait()
            .unwrap();
        assert_eq!(outcome.code, Some(0), "{:?}", outcome.log);
        let line = |start: &str| {
            let found = outcome.log.iter().find(|line| line.contains(start));
            found.unwrap_or_else(|| panic!("{:?}", outcome.log)).clone()
        };
        let answers = classifier.answers(&inputs).unwrap();
        let outputs = checksum(answers.into_iter().map(|answer| answer.output).collect());
        let clean = line("clean: 4 of 4 right");
        assert!(
            clean.ends_with(&format!("outputs {outputs:08x}")),
            "{clean}"
        );
        for (index, spec) in case.attacks().into_iter().enumerate() {
            let run = Run::of_spec(spec, &case.labels, 9, &|_| {});
            let attacked = attack(&classifier, &inputs, &run).unwrap();
            let crafted = checksum((0..count).map(|i| attacked.inputs.bytes(i, n)).collect());
            let fooled = attacked
                .outcomes
                .iter()
                .filter(|outcome| outcome.fooled)
                .count();
            let said = line(&format!("attack {index}: "));
            assert!(said.contains(&format!("{fooled} fooled")), "{said}");
            assert!(said.ends_with(&format!("inputs {crafted:08x}")), "{said}");
        }
    }
}

#[test]
fn a_self_contained_run_of_a_damaged_model_fails_with_a_code() {
    let board = board("mps2-an386").unwrap();
    let payload = Payload {
        image: vec![1; 64],
        is_self_contained: true,
        ..Payload::default()
    };
    let options = Options {
        slot: payload.for_board(board).unwrap(),
        ..Options::default()
    };
    let elf = firmware_elf(board).unwrap();
    let outcome = Emulator::start(board, &elf, options)
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(outcome.code, Some(1), "{:?}", outcome.log);
    assert!(
        outcome.log.iter().any(|line| line.contains("malformed")),
        "{:?}",
        outcome.log
    );
}
