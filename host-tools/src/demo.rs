//! The main job, end to end: train, quantize, fool, flash, compare.

use crate::classifier::{Answer, Classifier, Inputs, accuracy};
use crate::data::{Dataset, Samples, digits};
use crate::device::{self, Board, Comparison, Work, compare_emulated};
use crate::document::{self, Document, summary};
use crate::evaluate::{Evaluation, Plan, evaluate};
use crate::graph::{Image, to_image};
use crate::networks;
use crate::quantize::{self, quantize};
use crate::report::build::{self, Pictured};
use crate::report::{Progress, ReportData};
use crate::train::classifier::{Config, Epoch, Samples as TrainSamples, train};
use anyhow::Result;
use foolproof::attack::{Kind, Spec};
use foolproof::kernels::Kernels;
use foolproof::model::Model;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Epsilons of the curve, in the digits' units (ink is 1).
const EPSILONS: [f32; 6] = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3];
/// The epsilon of the headline, the gallery and the chip's attacks.
pub const HEADLINE_EPSILON: f32 = 0.25;
/// Steps of PGD on the host and on the chip.
const PGD_STEPS: u16 = 10;
/// An emulator that takes longer is killed.
const EMULATOR_LIMIT: Duration = Duration::from_secs(600);

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Seed of weights, training order and random starts.
    pub seed: u64,
    /// Boards to emulate.
    pub boards: Vec<&'static Board>,
}

/// What the demo tells while it runs.
pub trait Observer: Sync {
    /// A stage begins; it takes `steps` steps, where that is known.
    fn stage(&mut self, name: &str, steps: Option<u64>);
    /// `count` more steps of this stage are done.
    fn advance(&self, count: u64);
    /// An epoch of training is done.
    fn epoch(&mut self, epoch: &Epoch);
}

/// What came of it.
#[derive(Debug)]
pub struct Demo {
    /// Figures and pictures.
    pub report: ReportData,
    /// The trained model.
    pub float: Image,
    /// The model that is flashed.
    pub int8: Image,
    /// Why a chip was not run, a line for each that was not; the report's warnings say so too.
    pub chips_missing: Vec<String>,
}

/// The configuration of the demo's training: noise on the inputs instead of shifts keeps the small network from learning by heart.
pub fn config() -> Config {
    Config {
        epochs: 40,
        learning_rate: 8e-3,
        weight_decay: 1e-2,
        noise: 0.3,
        ..Config::default()
    }
}

/// Runs the demo.
///
/// # Errors
/// Training or quantization fails (they do not on the embedded data). A chip that cannot be run is none: the rest is worth having.
pub fn run(options: &Options, observer: &mut dyn Observer) -> Result<Demo> {
    let training = digits::load(digits::Part::Train)?;
    let test = digits::load(digits::Part::Test)?;
    let labels = test.require_labels("the demo")?.to_vec();

    let config = config();
    observer.stage("train", Some(config.epochs as u64));
    let mut graph = networks::digits(options.seed)?;
    let samples = TrainSamples {
        x: real(&training)?,
        y: training.require_labels("the demo")?,
    };
    let started = Instant::now();
    let history = train(&mut graph, samples, &config, options.seed, &mut |epoch| {
        observer.epoch(epoch);
    })?;
    let seconds = started.elapsed().as_secs_f64();

    observer.stage("quantize", None);
    let quantized = quantize(&graph, samples.x, &quantize::Options::default())?;
    let (float, int8) = (to_image(&graph)?, to_image(&quantized)?);
    let (float_model, int8_model) = (float.model()?, int8.model()?);

    let plans = plans();
    observer.stage("attack", Some((2 * plans.len() * labels.len()) as u64));
    let x = real(&test)?;
    let evaluate_model =
        |model: &Model<'_>, observer: &dyn Observer| -> Result<(Inputs, Evaluation)> {
            // the scalar kernels: what a chip runs, so that the report's figures are the chip's
            let classifier = Classifier::new(*model, Kernels::Scalar);
            let inputs = classifier.inputs(x);
            let progress = |n| observer.advance(n);
            let evaluation = evaluate(
                &classifier,
                &inputs,
                &labels,
                &plans,
                options.seed,
                &progress,
            )?;
            Ok((inputs, evaluation))
        };
    let (_, float_evaluation) = evaluate_model(&float_model, observer)?;
    let (inputs, int8_evaluation) = evaluate_model(&int8_model, observer)?;

    let mut document = Document::new("demo");
    document.model = Some(document::Model {
        path: "digits (trained by this demo)".to_string(),
        sha256: hex(&Sha256::digest(int8.bytes())),
        numerics: "tflm".to_string(),
    });
    document.data = Some(document::Data {
        path: test.name().to_string(),
        n: labels.len(),
    });
    document.seed = Some(options.seed);
    document.accuracy = Some(summary::accuracy(&said(&int8_evaluation.clean), &labels));
    document.accuracy_float = Some(summary::accuracy(&said(&float_evaluation.clean), &labels));
    for (evaluation, numerics) in [(&int8_evaluation, "tflm"), (&float_evaluation, "f32")] {
        for result in &evaluation.attacks {
            let attack = summary::attack(result, &evaluation.clean, &labels, numerics);
            document.attacks.push(attack);
        }
    }
    document.train = Some(train_summary(
        &history,
        seconds,
        samples.y.len(),
        accuracy(&float_evaluation.clean, &labels),
    ));

    let classifier = Classifier::new(int8_model, Kernels::Scalar);
    let specs: Vec<Spec> = [
        Plan::fgsm(HEADLINE_EPSILON),
        Plan::pgd(HEADLINE_EPSILON, PGD_STEPS),
    ]
    .iter()
    .filter_map(|plan| plan.spec(&classifier))
    .collect();
    let work = Work {
        image: int8.bytes(),
        classifier,
        inputs: &inputs,
        labels: &labels,
        attacks: &specs,
        seed: options.seed,
        progress: &|_| {},
    };
    let chips_missing = run_chips(&options.boards, &work, observer, &mut document);
    let report = report(
        document,
        &history,
        &classifier,
        &inputs,
        &labels,
        &int8_evaluation,
    );
    Ok(Demo {
        report,
        float,
        int8,
        chips_missing,
    })
}

/// FGSM and PGD at every epsilon.
fn plans() -> Vec<Plan> {
    let fgsm = EPSILONS.iter().map(|&e| Plan::fgsm(e));
    let pgd = EPSILONS.iter().map(|&e| Plan::pgd(e, PGD_STEPS));
    fgsm.chain(pgd).collect()
}

/// Emulates every board; returns why one could not be, for each such board.
fn run_chips(
    boards: &[&Board],
    work: &Work<'_>,
    observer: &mut dyn Observer,
    document: &mut Document,
) -> Vec<String> {
    let mut missing = Vec::new();
    for board in boards {
        match run_chip(board, work, observer) {
            Ok(device) => document.device.push(device),
            Err(error) => missing.push(format!("no chip was run on {}: {error:#}", board.name)),
        }
    }
    document.warnings.extend_from_slice(&missing);
    missing
}

fn run_chip(
    board: &Board,
    work: &Work<'_>,
    observer: &mut dyn Observer,
) -> Result<document::Device> {
    observer.stage(&format!("build the firmware for {}", board.name), None);
    let elf = device::prepare(board)?;
    observer.stage(
        &format!("run on {} ({}, emulated)", board.name, board.core),
        Some((work.labels.len() * (1 + work.attacks.len())) as u64),
    );
    let observer: &dyn Observer = observer;
    let progress = |n| observer.advance(n);
    let work = Work {
        progress: &progress,
        ..*work
    };
    let comparison = compare_emulated(board, &elf, &work, EMULATOR_LIMIT)?;
    Ok(device_entry(board, &comparison, &work))
}

/// The document's entry for a comparison.
pub fn device_entry(board: &Board, comparison: &Comparison, work: &Work<'_>) -> document::Device {
    let instructions = |kind: Kind| {
        let attack = work.attacks.iter().position(|spec| spec.kind == kind)?;
        let figures = comparison
            .attacks
            .iter()
            .find(|a| a.attack_index == attack)?;
        Some(figures.instructions)
    };
    let flash = comparison.footprint.flash as usize + comparison.image_bytes;
    document::Device {
        board: board.name.clone(),
        core: Some(board.core.clone()),
        ran: Some("emulated".to_string()),
        samples: comparison.samples,
        logit_mismatches: comparison.logit_mismatches,
        logits_compared: comparison.outputs_compared,
        adversarial_mismatches: comparison.adversarial_mismatches,
        adversarial_compared: comparison.adversarial_compared,
        accuracy: Some(comparison.correct as f64 / comparison.samples as f64),
        instructions_per_inference: Some(comparison.instructions_per_inference),
        instructions_per_fgsm: instructions(Kind::Fgsm),
        instructions_per_pgd: instructions(Kind::Pgd),
        buffer_bytes: Some(comparison.attack_buffer.max(comparison.infer_buffer)),
        infer_buffer_bytes: Some(comparison.infer_buffer),
        attack_buffer_bytes: Some(comparison.attack_buffer),
        attack_passes: comparison.cut.map(|cut| cut.passes),
        attack_extra_forwards: comparison.cut.map(|cut| cut.extra_forwards),
        stack_bytes: Some(comparison.stack_used),
        flash_bytes: Some(flash),
        static_ram_bytes: Some(comparison.footprint.ram as usize),
    }
}

fn real(data: &Dataset) -> Result<&[f32]> {
    match data.samples() {
        Samples::F32(x) => Ok(x),
        other => anyhow::bail!("the digits are {}, not float32", other.type_name()),
    }
}

fn said(answers: &[Answer]) -> Vec<usize> {
    answers.iter().map(|a| a.label).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn train_summary(
    history: &[Epoch],
    seconds: f64,
    samples: usize,
    test_accuracy: f64,
) -> document::Train {
    let mut metrics = BTreeMap::from([("test_accuracy".to_string(), test_accuracy)]);
    if let Some(last) = history.last() {
        metrics.insert("loss".to_string(), last.loss);
        metrics.insert("accuracy".to_string(), last.accuracy);
    }
    document::Train {
        steps: history.last().map_or(0, |e| e.steps),
        seconds,
        samples_per_second: (samples * history.len()) as f64 / seconds.max(1e-9),
        metrics,
    }
}

fn report(
    document: Document,
    history: &[Epoch],
    classifier: &Classifier<'_>,
    inputs: &Inputs,
    labels: &[usize],
    evaluation: &Evaluation,
) -> ReportData {
    let headline = evaluation
        .attacks
        .iter()
        .find(|a| a.plan == Plan::fgsm(HEADLINE_EPSILON));
    let subject = Pictured {
        classifier,
        inputs,
        labels,
    };
    let (gallery, confusion) = match headline {
        Some(result) => (
            build::gallery(&subject, &evaluation.clean, result),
            Some(build::confusion(&subject, &evaluation.clean, result)),
        ),
        None => (Vec::new(), None),
    };
    ReportData {
        document,
        command_line: String::new(),
        versions: Vec::new(),
        gallery,
        training: history
            .iter()
            .map(|e| Progress {
                epoch: e.epoch,
                loss: e.loss,
                accuracy: e.accuracy,
            })
            .collect(),
        confusion,
    }
}
