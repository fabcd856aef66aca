//! `foolproof attack --box`: is there a point in each box that the model gets wrong?

use super::super::Ended;
use super::super::args::AttackArgs;
use super::super::console::Console;
use super::super::evaluate::over_budget;
use super::super::model::ModelFile;
use super::{Adversarial, write_adversarial};
use crate::attack::Norms;
use crate::attack::boxes::{Boxes, Searched, Work, search};
use crate::attack::catalog::norm_name;
use crate::attack::run::Page;
use crate::attack::suite::refuse_universal;
use crate::classifier::{Classifier, Inputs};
use crate::document::{Attack, Data, Document, MeanNorm, summary};
use crate::error::{Error, Result};
use crate::evaluate::{Plan, Threat};
use crate::files;
use crate::inspect::numerics;
use crate::report::terminal;
use foolproof::attack::{Norm, Outcome};
use foolproof::threat::Budget;
use std::path::Path;

pub(super) fn run(args: &AttackArgs, path: &Path, seed: u64, console: &Console) -> Result<Ended> {
    if let Some(Some(class)) = args.targeted {
        return Err(Error::new(
            format!("class {class} for all rows"),
            "--targeted",
            "--targeted alone: with --box each row's label is the target",
        ));
    }
    let model = args.model.as_deref().ok_or_else(|| {
        Error::new(
            "no model",
            "attack --box",
            "foolproof attack MODEL --box BOX.npz",
        )
    })?;
    let settings = &args.attack.settings;
    if settings.total() != Budget::UNLIMITED {
        return Err(Error::new(
            "boxes have no budget together",
            "--max-total-queries and --max-total-gradients",
            "--max-queries and --max-gradients, for each box",
        ));
    }
    let targeted = args.targeted.is_some();
    let terms = settings.terms(1.0, None);
    let plans = args.attack.attack.plans(&terms)?;
    refuse_universal(&plans, "--box", "an attack on single samples")?;
    if let Some(out) = &args.out {
        files::refuse_overwriting(out, [path, model])?;
    }
    let file = ModelFile::read(model, args.runtime.numerics)?.within(args.memory)?;
    let classifier = Classifier::new(file.model()?, args.loops.kernels.fast());
    let boxes = Boxes::read(path)?.take(args.limit.unwrap_or(usize::MAX));
    if boxes.sample_len() != classifier.input_len() {
        return Err(Error::new(
            format!("boxes of {} elements", boxes.sample_len()),
            path.display(),
            format!(
                "{} elements, as the model takes them",
                classifier.input_len()
            ),
        ));
    }
    let classes = classifier.model().classes();
    if let Some(label) = boxes.labels().iter().find(|&&label| label >= classes) {
        return Err(Error::new(
            format!("label {label} is out of range for a model of {classes} classes"),
            path.display(),
            format!("labels from 0 to {}", classes - 1),
        ));
    }
    let bounds = boxes.bounds();
    let boxes = boxes.reordered(|rows| file.to_graph_order(rows));

    let mut document = Document::new("attack");
    document.model = Some(file.describe()?);
    document.data = Some(Data {
        path: path.display().to_string(),
        n: boxes.len(),
    });
    document.seed = Some(seed);
    let centres = boxes.centres(&classifier);
    if !targeted {
        let answers = classifier
            .answers(&centres)
            .map_err(|error| Error::new(error, file.path(), ""))?;
        let predicted: Vec<usize> = answers.iter().map(|answer| answer.label).collect();
        document.accuracy = Some(summary::accuracy(&predicted, boxes.labels()));
    }

    let journal = match &args.out {
        Some(out) => {
            let samples = ("box", &bounds, boxes.labels(), 2 * boxes.sample_len());
            let key = super::key(args, &[&file], (&plans, seed), samples)?;
            Some(super::journal(out, &key, args, console)?)
        }
        None => None,
    };
    let progress = console.progress("searching", (plans.len() * boxes.len()) as u64);
    let mut best = Best::new(&classifier, &centres, &boxes, targeted);
    for (attack, plan) in plans.iter().enumerate() {
        let work = Work {
            targeted,
            broken: &best.broken.clone(),
            seed,
            progress: &|rows| progress.advance(rows),
            page: journal.as_ref().map(|journal| Page { journal, attack }),
        };
        let searched = search(&classifier, &boxes, plan, &work)?;
        if settings.are_limits() {
            let rows = searched.outcomes.iter().zip(&best.broken);
            let over = |o: &Outcome| plan.is_over(o, settings.each());
            let count = rows.filter(|(o, broken)| !**broken && over(o)).count();
            if count > 0 {
                let warning = over_budget(plan.name, count, boxes.len());
                document.warnings.push(warning);
            }
        }
        best.merge(&searched);
        let entry = best.entry(plan, numerics(classifier.model()));
        document.attacks.push(entry);
    }
    drop(progress);
    if let Some(out) = &args.out {
        write_adversarial(
            out,
            &[boxes.len(), boxes.sample_len()],
            &Adversarial {
                inputs: file.in_file_order(best.inputs.clone()),
                labels: boxes.labels().iter().map(|&label| label as i64).collect(),
                fooled: best.broken.clone(),
                predicted: best.outcomes.iter().map(|o| o.label as i64).collect(),
            },
        )?;
        document.outputs = vec![out.display().to_string()];
    }
    if let Some(journal) = journal {
        journal.finish();
    }
    let broken = best.broken.iter().filter(|&&b| b).count();
    console.finish(&document, || {
        let written: Vec<String> = document
            .outputs
            .iter()
            .map(|path| format!("; witnesses written to {path}"))
            .collect();
        format!(
            "{}\n\n{broken} of {} boxes broken{}",
            terminal::render(&document),
            boxes.len(),
            written.concat()
        )
    })?;
    Ok(Ended::Well)
}

/// The best point of every row so far. A row that one attack broke is left alone by the next ones.
struct Best<'a> {
    centres: &'a Inputs,
    targeted: bool,
    scale: f64,
    size: usize,
    inputs: Inputs,
    outcomes: Vec<Outcome>,
    broken: Vec<bool>,
}

impl<'a> Best<'a> {
    fn new(
        classifier: &Classifier<'_>,
        centres: &'a Inputs,
        boxes: &Boxes,
        targeted: bool,
    ) -> Best<'a> {
        let nothing = Outcome {
            label: 0,
            fooled: false,
            queries: 0,
            gradients: 0,
        };
        Best {
            centres,
            targeted,
            scale: f64::from(match classifier.is_quantized() {
                true => classifier.input_scale(),
                false => 1.0,
            }),
            size: boxes.sample_len(),
            inputs: centres.clone(),
            outcomes: vec![nothing; boxes.len()],
            broken: vec![false; boxes.len()],
        }
    }

    /// Takes over what an attack found in the rows that were not broken yet, and adds what it cost.
    fn merge(&mut self, found: &Searched) {
        for i in 0..self.broken.len() {
            if self.broken[i] {
                continue;
            }
            let outcome = &found.outcomes[i];
            self.outcomes[i] = Outcome {
                queries: self.outcomes[i].queries + outcome.queries,
                gradients: self.outcomes[i].gradients + outcome.gradients,
                ..*outcome
            };
            self.broken[i] = outcome.fooled;
            let range = i * self.size..(i + 1) * self.size;
            match (&mut self.inputs, &found.inputs) {
                (Inputs::F32(to), Inputs::F32(from)) => {
                    to[range.clone()].copy_from_slice(&from[range]);
                }
                (Inputs::I8(to), Inputs::I8(from)) => {
                    to[range.clone()].copy_from_slice(&from[range]);
                }
                _ => {}
            }
        }
    }

    /// The document's entry for the attacks up to this one: rows broken and cost so far.
    fn entry(&self, plan: &Plan, numerics: &str) -> Attack {
        let n = self.broken.len();
        let broken = self.broken.iter().filter(|&&b| b).count();
        let norms: Vec<Norms> = match (self.centres, &self.inputs) {
            (Inputs::F32(x), Inputs::F32(y)) => crate::attack::norms(x, y, self.size, 1.0),
            (Inputs::I8(x), Inputs::I8(y)) => crate::attack::norms(x, y, self.size, self.scale),
            _ => Vec::new(),
        };
        let mean = |norm: Norm| {
            let won = norms
                .iter()
                .zip(&self.broken)
                .filter(|(_, broken)| **broken);
            won.map(|(norms, _)| norms.get(norm)).sum::<f64>() / broken as f64
        };
        let per_row = |total: u64| total as f64 / n as f64;
        Attack {
            name: plan.name.into(),
            threat: Threat::of(plan.attack.access()).name().into(),
            numerics: numerics.into(),
            norm: norm_name(Norm::Linf).into(),
            eps: None,
            targeted: self.targeted,
            robust_accuracy: (n - broken) as f64 / n as f64,
            interval: summary::wilson(n - broken, n),
            success_rate: self
                .outcomes
                .iter()
                .any(|outcome| outcome.queries > 0)
                .then(|| broken as f64 / n as f64),
            mean_norm: (broken > 0).then(|| MeanNorm {
                l2: mean(Norm::L2),
                linf: mean(Norm::Linf),
            }),
            queries_mean: per_row(self.outcomes.iter().map(|o| o.queries).sum()),
            gradients_mean: per_row(self.outcomes.iter().map(|o| o.gradients).sum()),
            queries_to_success: summary::quantiles(
                self.outcomes
                    .iter()
                    .zip(&self.broken)
                    .filter(|(_, broken)| **broken)
                    .map(|(outcome, _)| outcome.queries as f64),
            ),
            fooled: self.broken.clone(),
        }
    }
}
