//! `foolproof evaluate`: clean and robust accuracy, a report, and an exit code for CI.

use super::Ended;
use super::args::{EvaluateArgs, SettingArgs};
use super::console::{Console, to_json};
use super::model::ModelFile;
use crate::attack::Choice;
use crate::attack::journal::Journal;
use crate::baseline::Baseline;
use crate::classifier::{Classifier, Inputs};
use crate::data::{self, Dataset, Purpose};
use crate::document::{Attack, Data, Document, summary};
use crate::error::{Error, Result};
use crate::evaluate::{
    AttackResult, Conditions, Evaluation, Plan, Threat, ensemble, evaluate_under,
};
use crate::files;
use crate::honest::Examination;
use crate::inspect::numerics;
use crate::report::csv::csv;
use crate::report::format::number;
use crate::report::junit::junit;
use crate::report::{self, terminal};
use foolproof::threat::Budget;

/// What `--report` writes.
const REPORT: [&str; 4] = ["report.html", "results.json", "results.csv", "junit.xml"];

pub(crate) fn run(args: &EvaluateArgs, seed: u64, console: &Console) -> Result<Ended> {
    let baseline = args.baseline.as_deref().map(Baseline::read).transpose()?;
    let mut plans = Vec::new();
    for &epsilon in &args.eps.0 {
        plans.extend(args.suite.plans(&args.settings.terms(epsilon, None))?);
    }
    let file = ModelFile::read_for(
        &args.model.model,
        &args.model.input,
        args.model.runtime.numerics,
    )?
    .within(args.memory)?;
    let data = data::load(&args.data.data, Purpose::Judge)?;
    let data = data.take(args.data.limit.unwrap_or(usize::MAX))?;
    let (classifier, inputs) =
        file.with_data(&args.model.input, args.model.loops.kernels.fast(), &data)?;
    if args.float.is_some() && numerics(classifier.model()) == "f32" {
        return Err(Error::new(
            "--float is for int8 models, and this is a float model",
            file.path(),
            "the int8 model that was made of it, or no --float",
        ));
    }
    let float_file = match &args.float {
        Some(path) => Some(ModelFile::read_twin(path, &classifier)?),
        None => None,
    };
    let float = match &float_file {
        Some(file) => Some(Classifier::new(
            file.model()?,
            args.model.loops.kernels.fast(),
        )),
        None => None,
    };
    if let Some(folder) = &args.report {
        files::create_folder(folder)?;
        for name in REPORT {
            files::refuse_overwriting(&folder.join(name), [args.model.model.as_path()])?;
        }
    }
    let subject = Subject {
        file: &file,
        classifier: &classifier,
        inputs: &inputs,
        data: &data,
        seed,
    };
    let way = Way {
        total: args.settings.total(),
        ..Way::default()
    };
    let (mut evaluation, mut document) = measure("evaluate", &subject, &plans, &way, console)?;
    document
        .warnings
        .extend(cut_short(&args.settings, &evaluation));
    let examination = Examination {
        classifier: &classifier,
        inputs: &inputs,
        labels: data.require_labels("evaluate")?,
        plans: &plans,
        float: float.as_ref(),
        queries: args.control_queries,
        total: args.settings.total(),
        nearest: args.nearest,
        seed,
    };
    let progress = console.progress("checking", examination.steps());
    let findings = examination
        .run(&mut evaluation, &|steps| progress.advance(steps))
        .map_err(|error| Error::new(error, file.path(), "a model that can be attacked"))?;
    drop(progress);
    examination.describe(&evaluation, &findings, &mut document);
    document.float_model = match &float_file {
        Some(file) => Some(file.describe()?),
        None => None,
    };
    document.warnings.extend(gradients_alone(&evaluation));
    if let Some(worst) = report::build::worst(&evaluation) {
        document.classes = summary::classes(
            &report::build::class_names(&classifier),
            worst,
            &evaluation.clean,
            examination.labels,
        );
    }
    let together = ensembles(&args.suite, &evaluation, &subject);
    document.attacks.extend(together);
    let regressions = match &baseline {
        Some(baseline) => {
            let worse = baseline.compare(&document, args.tolerance)?;
            document.warnings.extend(baseline.gaps(&document));
            worse
        }
        None => Vec::new(),
    };
    if let Some(folder) = &args.report {
        let path = |name: &str| folder.join(name);
        let failures: Vec<(String, String)> = regressions
            .iter()
            .map(|regression| (regression.attack.clone(), regression.text()))
            .collect();
        let names = REPORT;
        document.outputs = names.map(|name| path(name).display().to_string()).into();
        let report =
            report::build::of_evaluation(&subject.pictured(), &evaluation, document.clone());
        files::write(&path(names[0]), report::page(&report).as_bytes())?;
        files::write(&path(names[1]), to_json(&document)?.as_bytes())?;
        files::write(&path(names[2]), csv(&document).as_bytes())?;
        let cases = junit(&document, args.fail_under, &failures);
        files::write(&path(names[3]), cases.as_bytes())?;
    }
    console.finish(&document, || {
        let written: Vec<String> = document
            .outputs
            .iter()
            .map(|path| format!("written: {path}"))
            .collect();
        format!("{}\n{}", terminal::render(&document), written.join("\n"))
    })?;
    let arithmetic = numerics(classifier.model());
    let worst = document
        .attacks
        .iter()
        .filter(|attack| attack.numerics == arithmetic)
        .map(|attack| attack.robust_accuracy)
        .fold(1.0, f64::min);
    let mut ended = Ended::Well;
    for regression in &regressions {
        console.say(format!("worse than --baseline: {}", regression.text()));
        ended = Ended::Missed;
    }
    if let Some(threshold) = args.fail_under
        && worst < threshold
    {
        console.say(format!(
            "robust accuracy {worst:.4} is below --fail-under {threshold}"
        ));
        ended = Ended::Missed;
    }
    Ok(ended)
}

/// What is measured.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub file: &'a ModelFile,
    pub classifier: &'a Classifier<'a>,
    pub inputs: &'a Inputs,
    pub data: &'a Dataset,
    pub seed: u64,
}

impl<'a> Subject<'a> {
    /// As reports take it.
    fn pictured(&self) -> report::build::Pictured<'a> {
        report::build::Pictured {
            classifier: self.classifier,
            inputs: self.inputs,
            labels: self.data.labels().unwrap_or_default(),
        }
    }
}

/// How attacks are run one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Way<'a> {
    /// Where results are written down.
    pub journal: Option<&'a Journal>,
    /// Whether later attacks leave alone what earlier ones have won.
    pub cascade: bool,
    /// What all samples of an attack together may cost.
    pub total: Budget,
}

impl Default for Way<'_> {
    fn default() -> Self {
        Way {
            journal: None,
            cascade: false,
            total: Budget::UNLIMITED,
        }
    }
}

/// What the attacks of a suite come to together, one entry for each ball.
pub(crate) fn ensembles(
    choice: &Choice,
    evaluation: &Evaluation,
    subject: &Subject<'_>,
) -> Vec<Attack> {
    let Choice::Suite(suite) = choice else {
        return Vec::new();
    };
    let labels = subject.data.labels().unwrap_or_default();
    let arithmetic = numerics(subject.classifier.model());
    let mut done: Vec<&AttackResult> = Vec::new();
    let mut entries = Vec::new();
    for first in &evaluation.attacks {
        if done
            .iter()
            .any(|known| known.plan.is_in_the_ball_of(&first.plan))
        {
            continue;
        }
        done.push(first);
        let same = |result: &&AttackResult| result.plan.is_in_the_ball_of(&first.plan);
        let members: Vec<&AttackResult> = evaluation.attacks.iter().filter(same).collect();
        let together = ensemble(suite.name, &members, subject.classifier.input_len());
        let entry = |result| summary::attack(&result, &evaluation.clean, labels, arithmetic);
        entries.extend(together.map(entry));
    }
    entries
}

/// Runs the attacks and makes the document of `command`.
pub(crate) fn measure(
    command: &str,
    subject: &Subject<'_>,
    plans: &[Plan],
    way: &Way<'_>,
    console: &Console,
) -> Result<(Evaluation, Document)> {
    let Subject {
        file,
        classifier,
        inputs,
        data,
        seed,
    } = *subject;
    let labels = data.require_labels(command)?;
    let progress = console.progress("attacking", (plans.len() * data.len()) as u64);
    let conditions = Conditions {
        seed,
        progress: &|steps| progress.advance(steps),
        journal: way.journal,
        cascade: way.cascade,
        total: way.total,
    };
    let evaluation =
        evaluate_under(classifier, inputs, labels, plans, &conditions).map_err(|error| {
            Error::new(
                error,
                file.path(),
                "a model that can be attacked, and parameters in range",
            )
        })?;
    drop(progress);
    let mut document = Document::new(command);
    document.model = Some(file.describe()?);
    document.data = Some(Data {
        path: data.name().into(),
        n: data.len(),
    });
    document.seed = Some(seed);
    let predicted: Vec<usize> = evaluation.clean.iter().map(|answer| answer.label).collect();
    document.accuracy = Some(summary::accuracy(&predicted, labels));
    let numerics = numerics(classifier.model());
    document.attacks = evaluation
        .attacks
        .iter()
        .map(|result| summary::attack(result, &evaluation.clean, labels, numerics))
        .collect();
    document.warnings = warnings(&evaluation);
    document.warnings.extend(subject.file.assumptions());
    Ok((evaluation, document))
}

/// What a reader should know before believing the figures.
fn warnings(evaluation: &Evaluation) -> Vec<String> {
    let mut warnings = Vec::new();
    for result in &evaluation.attacks {
        let plan = &result.plan;
        if plan.epsilon > 0.0 && !result.can_change_anything() {
            let warning = format!(
                "eps {} is less than one step of the model's int8 input: nothing could be changed",
                number(f64::from(plan.epsilon))
            );
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
    }
    warnings
}

/// What to say where limits that the user set ended attacks.
pub(crate) fn cut_short(settings: &SettingArgs, evaluation: &Evaluation) -> Vec<String> {
    if !settings.are_limits() {
        return Vec::new();
    }
    let say = |result: &AttackResult| {
        let count = result.cut_short(settings.each());
        let n = result.attacked.outcomes.len();
        (count > 0).then(|| over_budget(result.plan.name, count, n))
    };
    evaluation.attacks.iter().filter_map(say).collect()
}

/// The same of one attack.
pub(crate) fn over_budget(name: &str, count: usize, n: usize) -> String {
    format!(
        "{name}: its budget was spent on {count} of {n} samples, which count as withstanding; a larger one may win them"
    )
}

/// What to say where nothing but gradients was tried.
pub(crate) fn gradients_alone(evaluation: &Evaluation) -> Option<String> {
    let gradients = |result: &AttackResult| result.threat == Threat::WhiteBox;
    let alone = !evaluation.attacks.is_empty() && evaluation.attacks.iter().all(gradients);
    alone.then(|| {
        "only gradient attacks were run; a model whose gradients vanish can look more robust than it is".into()
    })
}
