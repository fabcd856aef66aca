//! `foolproof device advgan`: a chip makes adversarial inputs in one forward pass each, and a chip classifies them.

use super::super::Ended;
use super::super::args::InputArgs;
use super::super::console::Console;
use super::super::model::ModelFile;
use super::sample::{ended, entry, on_chip, real_of};
use super::{chosen_boards, leave_nothing_behind};
use crate::attack::success::{Verdict, inside};
use crate::classifier::{Answer, Classifier, Inputs};
use crate::data::{self, Purpose};
use crate::device::{Board, Inferred};
use crate::document::{self, Document, summary};
use crate::error::{Error, Result};
use clap::Args;
use foolproof::kernels::Kernels;
use foolproof::link::{Input, Ready};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct AdvGanArgs {
    /// Board to run on, may be repeated; all for every one
    #[arg(long, value_name = "B", default_value = "mps2-an386")]
    pub board: Vec<String>,
    /// A generator of train advgan: a model image (.fpi) or a TensorFlow Lite model, float or int8
    #[arg(long, value_name = "G")]
    pub model: PathBuf,
    /// The classifier to fool, float or int8
    #[arg(long, value_name = "MODEL")]
    pub target: PathBuf,
    /// Samples with labels: as elsewhere
    #[arg(long, value_name = "D")]
    pub data: String,
    /// Use only the first N samples
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// Radius of the linf ball that the generator must not leave, real units of the target's input
    #[arg(long, value_name = "E", value_parser = super::super::train::advgan::epsilon)]
    pub eps: f64,
    /// The class that every input shall be taken for [default: any but its own]
    #[arg(long, value_name = "C")]
    pub class: Option<u16>,
    /// Give up on a board after this many seconds
    #[arg(long, value_name = "S", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,
}

/// Inputs as they are, and what the generator made of them, as the classifier takes them.
struct Pairs<'a> {
    host: &'a Classifier<'a>,
    before: &'a Inputs,
    labels: &'a [usize],
    epsilon: f64,
    class: i64,
}

impl Pairs<'_> {
    /// What the labels of both are worth.
    fn verdict(&self, after: &Inputs, [clean, said]: [&[usize]; 2]) -> Verdict {
        let n = self.host.input_len();
        let range = self.host.form().range;
        let inside: Vec<bool> = self
            .host
            .real(self.before)
            .chunks_exact(n)
            .zip(self.host.real(after).chunks_exact(n))
            .map(|(x, y)| inside(x, y, self.epsilon, range))
            .collect();
        Verdict::count((clean, said), &inside, self.labels, self.class)
    }
}

pub(super) fn run(args: &AdvGanArgs, seed: u64, console: &Console) -> Result<Ended> {
    let boards = chosen_boards(&args.board)?;
    leave_nothing_behind()?;
    let target = ModelFile::read(&args.target, None)?;
    let generator = ModelFile::read(&args.model, None)?;
    let data = data::load(&args.data, Purpose::Judge)?;
    let data = data.take(args.limit.map_or(usize::MAX, |n| n as usize))?;
    // the chip's bits are those of the scalar kernels
    let (host, before) = target.with_data(&InputArgs::default(), Kernels::Scalar, &data)?;
    let labels = data.require_labels("device advgan")?;
    let maker = Classifier::new(generator.model()?, Kernels::Scalar);
    let sizes = [maker.input_len(), maker.model().output_shape().len()];
    if sizes != [host.input_len(); 2] {
        let what = format!(
            "the generator makes {} numbers of {}, and the classifier takes {}",
            sizes[1],
            sizes[0],
            host.input_len()
        );
        return Err(Error::new(
            what,
            generator.path(),
            "a generator of train advgan for this classifier",
        ));
    }
    let class = args.class.map_or(-1, i64::from);
    if class >= host.model().classes() as i64 {
        let what = format!("class {class} of {} classes", host.model().classes());
        return Err(Error::new(what, "--class", "a smaller number"));
    }
    let refuse = |error| Error::new(error, generator.path(), "a generator");
    let given = maker.inputs(&host.real(&before));
    let made = maker.answers(&given).map_err(refuse)?;
    let after = host.inputs(&real_of(
        maker.model(),
        &joined(made.iter().map(|a| &a.output)),
    ));
    let answers = [&before, &after].map(|inputs| host.answers(inputs));
    let [clean, said] =
        answers.map(|answers| answers.map_err(|e| Error::new(e, target.path(), "")));
    let (clean, said) = (clean?, said?);
    let pairs = Pairs {
        host: &host,
        before: &before,
        labels,
        epsilon: args.eps,
        class,
    };
    let on_host = pairs.verdict(&after, [&labels_of(&clean), &labels_of(&said)]);

    let mut document = Document::new("device advgan");
    document.model = Some(target.describe()?);
    document.data = Some(document::Data {
        path: data.name().into(),
        n: data.len(),
    });
    document.seed = Some(seed);
    let mut lines = vec![format!("host: {}", sentence(&on_host))];
    for board in boards {
        let limit = Duration::from_secs(args.timeout);
        let ask = |file: &ModelFile, inputs: &[&Inputs], n: usize| {
            answers_of(board, (file, limit), (inputs, n), console)
        };
        let (ready, crafted) = ask(&generator, &[&given], maker.input_len())?;
        let chips = joined(crafted.iter().map(|a| &a.output));
        let chips = host.inputs(&real_of(maker.model(), &chips));
        let (_, judged) = ask(&target, &[&before, &chips], host.input_len())?;
        let (first, second) = judged.split_at(labels.len());
        let verdict = pairs.verdict(
            &chips,
            [first, second]
                .map(chip_labels)
                .each_ref()
                .map(Vec::as_slice),
        );
        let differing = |chip: &[Inferred], host: &[Answer]| {
            let both = chip.iter().zip(host);
            both.filter(|(chip, host)| chip.output != host.output)
                .count()
        };
        let mismatches = differing(first, &clean) + differing(second, &said);
        let instructions: u64 = crafted.iter().map(|a| a.instructions).sum();
        let mean = instructions / labels.len().max(1) as u64;
        document.device.push(document::Device {
            samples: labels.len(),
            logits_compared: 2 * labels.len(),
            adversarial_compared: labels.len(),
            adversarial_mismatches: differing(&crafted, &made),
            accuracy: Some(share(
                chip_labels(first)
                    .iter()
                    .zip(labels)
                    .filter(|(a, b)| a == b)
                    .count(),
                labels.len(),
            )),
            ..entry(board, &(ready, mean), labels.len(), mismatches)
        });
        document.attacks.push(attack(
            &document,
            args,
            &verdict,
            &fooled(second, labels, class),
        ));
        lines.push(format!("{}: {}", board.name, sentence(&verdict)));
        if let Some(entry) = document.device.last() {
            lines.push(format!(
                "{}: {} of {} adversarial inputs and {} of {} outputs differ from the host's; {mean} instructions make an adversarial input, {} bytes of buffer",
                board.name,
                entry.adversarial_mismatches,
                entry.adversarial_compared,
                entry.logit_mismatches,
                entry.logits_compared,
                ready.infer_buffer
            ));
        }
    }
    console.finish(&document, || lines.join("\n"))?;
    Ok(ended(&document))
}

/// A board answers every one of the inputs, in order.
fn answers_of(
    board: &'static Board,
    (file, limit): (&ModelFile, Duration),
    (inputs, n): (&[&Inputs], usize),
    console: &Console,
) -> Result<(Ready, Vec<Inferred>)> {
    let each = |inputs: &Inputs| match inputs {
        Inputs::F32(x) => x.len() / n,
        Inputs::I8(x) => x.len() / n,
    };
    let count: usize = inputs.iter().map(|inputs| each(inputs)).sum();
    let progress = console.progress(&board.name, count as u64);
    on_chip(board, file.image().bytes(), limit, console, |chip| {
        let mut answers = Vec::with_capacity(count);
        for inputs in inputs {
            for i in 0..each(inputs) {
                answers.push(chip.infer(Input::Bytes(&inputs.bytes(i, n)))?);
                progress.advance(1);
            }
        }
        Ok(answers)
    })
}

fn joined<'a>(parts: impl Iterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    parts.flatten().copied().collect()
}

fn labels_of(answers: &[Answer]) -> Vec<usize> {
    answers.iter().map(|answer| answer.label).collect()
}

fn chip_labels(answers: &[Inferred]) -> Vec<usize> {
    answers.iter().map(|answer| answer.label.into()).collect()
}

fn fooled(answers: &[Inferred], labels: &[usize], class: i64) -> Vec<bool> {
    let said = chip_labels(answers);
    let each = said.iter().zip(labels);
    each.map(|(&said, &label)| match class {
        ..0 => said != label,
        _ => i64::try_from(said) == Ok(class),
    })
    .collect()
}

fn share(count: usize, of: usize) -> f64 {
    count as f64 / of.max(1) as f64
}

fn sentence(verdict: &Verdict) -> String {
    format!(
        "{} of {} samples that were right are fooled ({:.1} %); accuracy {:.1} % before and {:.1} % after; {} outside of ball or box",
        verdict.fooled,
        verdict.right,
        100.0 * verdict.success(),
        100.0 * share(verdict.right, verdict.samples),
        100.0 * share(verdict.robust, verdict.samples),
        verdict.outside
    )
}

fn attack(
    document: &Document,
    args: &AdvGanArgs,
    verdict: &Verdict,
    fooled: &[bool],
) -> document::Attack {
    let numerics = document.model.as_ref().map(|model| model.numerics.clone());
    let held = verdict.right - verdict.fooled;
    document::Attack {
        name: "advgan".into(),
        threat: "white-box".into(),
        numerics: numerics.unwrap_or_default(),
        norm: "linf".into(),
        eps: Some(args.eps),
        targeted: args.class.is_some(),
        robust_accuracy: share(held, verdict.samples),
        interval: summary::wilson(held, verdict.samples),
        success_rate: (verdict.right > 0).then(|| verdict.success()),
        mean_norm: None,
        queries_mean: 0.0,
        gradients_mean: 0.0,
        queries_to_success: None,
        fooled: fooled.to_vec(),
    }
}
