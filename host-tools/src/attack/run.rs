//! Attacks over many samples: one session per thread, the same result for any number of threads.

use super::erased::{Erased, Failed};
use super::journal::{Journal, Kept};
use super::minimum::Bisection;
use super::problem::image_shape;
use super::{Aim, Attack, Hunt, InputKind, Portable, Problem, Stop, Stream, universal};
use crate::classifier::{Classifier, Inputs};
use crate::lines::Lines;
use foolproof::attack::{AttackError, Ball, Kind, Norm, Outcome, Spec, Task};
use foolproof::loss::Goal;
use foolproof::memory::Mode;
use foolproof::session::{Session, SessionError};
use foolproof::threat::{Budget, Element, GradientOracle, LabelOracle, ScoreOracle};
use rayon::prelude::*;

/// What an attack on a data set is told.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// The attack.
    pub attack: Attack,
    /// Whether any adversarial input will do, or the nearest is wanted.
    pub aim: Aim,
    /// Where to search, in units of the model's input elements (see [`Classifier::ball`]).
    pub ball: Ball,
    /// For each sample the label to avoid, or the target.
    pub classes: &'a [usize],
    /// Whether `classes` are targets.
    pub targeted: bool,
    /// What each sample may cost.
    pub budget: Budget,
    /// What all samples together may cost. They are served in their order; when it is spent, the rest is not asked about.
    pub total: Budget,
    /// Samples that are not attacked; empty where all are.
    pub skip: &'a [bool],
    /// Seed.
    pub seed: u64,
    /// Called with 1 after every sample.
    pub progress: &'a (dyn Fn(u64) + Sync),
    /// Where results are written down, and found again.
    pub page: Option<Page<'a>>,
}

/// The part of a journal that belongs to one attack.
#[derive(Clone, Copy)]
pub struct Page<'a> {
    /// The journal.
    pub journal: &'a Journal,
    /// The attack's number in it.
    pub attack: usize,
}

impl Page<'_> {
    /// What the attack came to on a sample of `n` elements, if that is known.
    pub fn find<E: Kept>(&self, sample: usize, n: usize) -> Option<Found<E>> {
        self.journal.find(self.attack, sample, n)
    }

    /// Writes that down.
    pub fn note<E: Kept>(&self, sample: usize, found: &Found<E>) {
        self.journal.note(self.attack, sample, found);
    }
}

impl<'a> Run<'a> {
    /// Exactly what a chip is told.
    pub fn of_spec(
        spec: Spec,
        classes: &'a [usize],
        seed: u64,
        progress: &'a (dyn Fn(u64) + Sync),
    ) -> Run<'a> {
        Run {
            attack: Attack::Portable(Portable::Ready(spec)),
            aim: Aim::Any,
            ball: spec.ball,
            classes,
            targeted: spec.targeted,
            budget: Budget::UNLIMITED,
            total: Budget::UNLIMITED,
            skip: &[],
            seed,
            progress,
            page: None,
        }
    }
}

/// What came of attacking every sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Attacked {
    /// The adversarial inputs, sample after sample. Where an attack found none, the last input that it tried.
    pub inputs: Inputs,
    /// One outcome per sample.
    pub outcomes: Vec<Outcome>,
    /// Size of each perturbation, in real units of the input.
    pub norms: Vec<Norms>,
    /// Whether a budget ended the fitting of one perturbation for all samples before it was done.
    pub unfinished: bool,
}

impl Attacked {
    /// Takes what `other` came to for the samples that `which` names; they cost nothing here.
    pub fn take_over(&mut self, other: &Attacked, which: &[bool], input_len: usize) {
        for i in (0..which.len()).filter(|&i| which[i]) {
            self.outcomes[i] = Outcome {
                queries: 0,
                gradients: 0,
                ..other.outcomes[i]
            };
            self.norms[i] = other.norms[i];
            let range = i * input_len..(i + 1) * input_len;
            match (&mut self.inputs, &other.inputs) {
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
}

/// Size of one perturbation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norms {
    /// Euclidean.
    pub l2: f64,
    /// Largest element.
    pub linf: f64,
    /// Sum of sizes.
    pub l1: f64,
    /// Elements that changed.
    pub l0: f64,
}

impl Norms {
    /// The size in one norm.
    pub fn get(&self, norm: Norm) -> f64 {
        match norm {
            Norm::Linf => self.linf,
            Norm::L1 => self.l1,
            Norm::L0 => self.l0,
            _ => self.l2,
        }
    }
}

/// What came of attacking one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Found<E> {
    /// The adversarial input, or the last one tried.
    pub x: Vec<E>,
    /// Label, success, and what it cost.
    pub outcome: Outcome,
}

/// Attacks every sample of `inputs` with a white box in this process.
///
/// # Errors
/// The first sample (in order) that cannot be attacked: a class that the model does not have, impossible parameters.
pub fn attack(
    classifier: &Classifier<'_>,
    inputs: &Inputs,
    run: &Run<'_>,
) -> Result<Attacked, AttackError<SessionError>> {
    if let Attack::Universal(attack) = &run.attack {
        return universal::attack(classifier, inputs, run, attack);
    }
    if let Attack::Portable(portable) = &run.attack
        && run.aim == Aim::Any
    {
        let input = InputKind {
            unit: classifier.input_scale(),
            lattice: classifier.is_quantized(),
            shape: classifier.image_shape(),
        };
        let spec = portable.spec(run.ball, input);
        if spec.kind == Kind::Universal {
            return universal::online(classifier, inputs, run, spec);
        }
    }
    let n = classifier.input_len();
    let scale = classifier.input_scale();
    match inputs {
        Inputs::F32(x) => {
            let (adversarial, outcomes) = attack_elements(classifier, x, run)?;
            let norms = norms(x, &adversarial, n, 1.0);
            Ok(Attacked {
                inputs: Inputs::F32(adversarial),
                outcomes,
                norms,
                unfinished: false,
            })
        }
        Inputs::I8(x) => {
            let (adversarial, outcomes) = attack_elements(classifier, x, run)?;
            let norms = norms(x, &adversarial, n, f64::from(scale));
            Ok(Attacked {
                inputs: Inputs::I8(adversarial),
                outcomes,
                norms,
                unfinished: false,
            })
        }
    }
}

fn attack_elements<E>(
    classifier: &Classifier<'_>,
    x: &[E],
    run: &Run<'_>,
) -> Result<(Vec<E>, Vec<Outcome>), AttackError<SessionError>>
where
    E: Kept + Default + Send + Sync,
    for<'s> Session<'s>: GradientOracle<E, Error = SessionError>,
{
    let n = classifier.input_len();
    let one = |buffer: &mut Lines, i: usize, budget: Budget| {
        if let Some(found) = run.page.and_then(|page| page.find(i, n)) {
            return Ok(found);
        }
        let x = &x[i * n..(i + 1) * n];
        if run.skip.get(i) == Some(&true) || budget.queries == 0 {
            return Ok(unasked(x, run.classes[i], run.targeted));
        }
        let found = attack_one(classifier, buffer, (x, i), &Run { budget, ..*run })?;
        if let Some(page) = run.page {
            page.note(i, &found);
        }
        Ok(found)
    };
    let count = (x.len() / n).min(run.classes.len());
    let mut left = run.total;
    let mut all: Vec<Found<E>> = Vec::with_capacity(count);
    // A total is handed out in the samples' order: a batch is attacked at once as if all of what is left were each
    // sample's own, and the one that would overdraw it is attacked again with what is really left.
    let batch = match run.total == Budget::UNLIMITED {
        true => count.max(1),
        false => TOTAL_BATCH,
    };
    for first in (0..count).step_by(batch) {
        let allowance = least(run.budget, left);
        let found: Vec<Result<Found<E>, AttackError<SessionError>>> = (first
            ..(first + batch).min(count))
            .into_par_iter()
            .map_init(
                || classifier.buffer(Mode::Attack),
                |buffer, i| {
                    let found = one(buffer, i, allowance);
                    (run.progress)(1);
                    found
                },
            )
            .collect();
        for (i, found) in found.into_iter().enumerate() {
            let mut found = found?;
            let fits = |found: &Found<E>, left: Budget| {
                found.outcome.queries <= left.queries && found.outcome.gradients <= left.gradients
            };
            if !fits(&found, left) {
                let mut buffer = classifier.buffer(Mode::Attack);
                let budget = least(run.budget, left);
                // not the journal's: that one was allowed more
                let run = Run { page: None, ..*run };
                let x = &x[(first + i) * n..(first + i + 1) * n];
                found = match budget.queries {
                    0 => unasked(x, run.classes[first + i], run.targeted),
                    _ => attack_one(
                        classifier,
                        &mut buffer,
                        (x, first + i),
                        &Run { budget, ..run },
                    )?,
                };
            }
            left.queries -= found.outcome.queries;
            left.gradients -= found.outcome.gradients;
            all.push(found);
        }
    }
    let outcomes = all.iter().map(|found| found.outcome).collect();
    Ok((
        all.into_iter().flat_map(|found| found.x).collect(),
        outcomes,
    ))
}

/// Samples that are attacked at once where they share a budget.
const TOTAL_BATCH: usize = 32;

/// The smaller budget in each respect.
pub fn least(a: Budget, b: Budget) -> Budget {
    Budget {
        queries: a.queries.min(b.queries),
        gradients: a.gradients.min(b.gradients),
    }
}

/// The result for a sample that nobody attacked.
pub(super) fn unasked<E: Element>(x: &[E], class: usize, targeted: bool) -> Found<E> {
    Found {
        x: x.to_vec(),
        outcome: Outcome {
            // not known; certainly not taken for a success
            label: match targeted {
                false => class,
                true => usize::from(class == 0),
            },
            fooled: false,
            queries: 0,
            gradients: 0,
        },
    }
}

fn attack_one<E>(
    classifier: &Classifier<'_>,
    buffer: &mut [u8],
    (x, i): (&[E], usize),
    run: &Run<'_>,
) -> Result<Found<E>, AttackError<SessionError>>
where
    E: Element,
    for<'s> Session<'s>: GradientOracle<E, Error = SessionError>,
{
    let classes = classifier.model().classes();
    let class = run.classes[i];
    if class >= classes {
        return Err(AttackError::Class { class, classes });
    }
    let mut session = classifier
        .session(Mode::Attack, buffer)
        .map_err(AttackError::Oracle)?;
    let problem = Problem {
        x,
        goal: match run.targeted {
            true => Goal::Reach(class),
            false => Goal::Avoid(class),
        },
        ball: run.ball,
        unit: classifier.input_scale(),
        classes,
        shape: classifier.image_shape(),
    };
    let stream = Stream {
        seed: run.seed,
        sample: i as u64,
    };
    white_box(&mut session, &problem, run, stream)
}

/// Attacks one sample with a white box.
///
/// # Errors
/// Impossible parameters, or the oracle's.
pub fn white_box<E: Element, O: GradientOracle<E>>(
    oracle: &mut O,
    problem: &Problem<'_, E>,
    run: &Run<'_>,
    stream: Stream,
) -> Result<Found<E>, AttackError<O::Error>> {
    match &run.attack {
        attack if run.aim == Aim::Shrink => {
            hunt(oracle, problem, (Aim::Nearest, run.budget), |oracle| {
                Bisection::default().run(oracle, problem, |oracle, problem| {
                    attack.on_gradients(oracle, problem, stream)
                })
            })
            .map_err(AttackError::Oracle)
        }
        // one of the engine's: exactly what a chip does, so its own answer counts
        Attack::Portable(portable) => {
            let spec = portable.spec(problem.ball, problem.input_kind());
            engine(spec, oracle, problem, (run.budget, stream))
        }
        attack => hunt(oracle, problem, (run.aim, run.budget), |oracle| {
            if let Some((loss, kappa)) = attack.demand() {
                oracle.demand(loss, kappa);
            }
            attack.on_gradients(oracle, problem, stream)
        })
        .map_err(AttackError::Oracle),
    }
}

/// Lets `go` ask the oracle under watch, and says what was found.
///
/// # Errors
/// The oracle's.
pub fn hunt<'a, E: Element, O: LabelOracle<E>>(
    oracle: O,
    problem: &Problem<'a, E>,
    (aim, budget): (Aim, Budget),
    go: impl FnOnce(&mut Hunt<'a, E, O>) -> Result<(), Stop<O::Error>>,
) -> Result<Found<E>, O::Error> {
    let mut hunt = Hunt::new(oracle, *problem, aim, budget);
    match go(&mut hunt) {
        Ok(()) | Err(Stop::Fooled | Stop::BudgetSpent) => Ok(hunt.into_found()),
        Err(Stop::Oracle(error)) => Err(error),
    }
}

/// Runs an attack of the engine, on the grid where the model has one.
pub(super) fn portable<E: Element, O: GradientOracle<E>>(
    portable: &Portable,
    oracle: &mut O,
    problem: &Problem<'_, E>,
    stream: Stream,
) -> Result<(), O::Error> {
    let spec = portable.spec(problem.ball, problem.input_kind());
    found_or_not(run_spec(spec, oracle, problem, stream)).unwrap_or(Ok(()))
}

/// The same with scores only; `None` where it needs gradients.
pub(super) fn portable_on_scores<E: Element, O: ScoreOracle<E>>(
    portable: &Portable,
    oracle: &mut O,
    problem: &Problem<'_, E>,
    stream: Stream,
) -> Option<Result<(), O::Error>> {
    let spec = portable.spec(problem.ball, problem.input_kind());
    let (spec, mut scratch) = prepared(spec, problem);
    let mut out = problem.x.to_vec();
    let task = task(problem, stream, &mut scratch);
    let mut erased = Erased::new(oracle);
    let mut asked: &mut dyn ScoreOracle<E, Error = Failed> = &mut erased;
    let ran = spec.run_on_scores(&mut asked, task, &mut out)?;
    Some(found_or_not(erased.attack_result(ran)).unwrap_or(Ok(())))
}

/// The oracle's error. A ball in which an attack cannot search holds nothing that it could find.
fn found_or_not<T, Error>(ran: Result<T, AttackError<Error>>) -> Option<Result<(), Error>> {
    match ran {
        Err(AttackError::Oracle(error)) => Some(Err(error)),
        _ => None,
    }
}

/// On the grid where the model has one, towards a class where there is one; and its scratch.
fn prepared<E: Element>(spec: Spec, problem: &Problem<'_, E>) -> (Spec, Vec<f32>) {
    let spec = match E::LATTICE {
        true => spec.on_lattice(),
        false => spec,
    };
    let spec = match problem.goal {
        Goal::Reach(_) => spec.targeted(),
        Goal::Avoid(_) => spec,
    };
    let scratch = vec![0.0; spec.scratch_len(problem.x.len(), problem.classes)];
    (spec, scratch)
}

fn task<'a, E>(problem: &Problem<'a, E>, stream: Stream, scratch: &'a mut [f32]) -> Task<'a, E> {
    let Problem { x, goal, .. } = *problem;
    Task {
        x,
        class: goal.class(),
        seed: stream.seed,
        sample: stream.sample,
        scratch,
    }
}

fn run_spec<E: Element, O: GradientOracle<E>>(
    spec: Spec,
    oracle: &mut O,
    problem: &Problem<'_, E>,
    stream: Stream,
) -> Result<(Vec<E>, Outcome), AttackError<O::Error>> {
    let (spec, mut scratch) = prepared(spec, problem);
    let mut out = problem.x.to_vec();
    let task = task(problem, stream, &mut scratch);
    let mut erased = Erased::new(oracle);
    let mut asked: &mut dyn GradientOracle<E, Error = Failed> = &mut erased;
    let ran = spec.run(&mut asked, task, &mut out);
    Ok((out, erased.attack_result(ran)?))
}

fn engine<E: Element, O: GradientOracle<E>>(
    spec: Spec,
    oracle: &mut O,
    problem: &Problem<'_, E>,
    (budget, stream): (Budget, Stream),
) -> Result<Found<E>, AttackError<O::Error>> {
    // nothing ends this hunt early but its budget
    let mut hunt = Hunt::new(oracle, *problem, Aim::Nearest, budget);
    match run_spec(spec, &mut hunt, problem, stream) {
        Ok((x, outcome)) => Ok(Found { x, outcome }),
        Err(AttackError::Oracle(Stop::Oracle(error))) => Err(AttackError::Oracle(error)),
        Err(AttackError::Oracle(Stop::Fooled | Stop::BudgetSpent)) => Ok(hunt.into_found()),
        Err(AttackError::Length { needed, got }) => Err(AttackError::Length { needed, got }),
        Err(AttackError::Class { class, classes }) => Err(AttackError::Class { class, classes }),
        Err(AttackError::Parameters) => Err(AttackError::Parameters),
    }
}

/// Sizes of the differences between two lists of samples of `n` elements, times `scale`.
pub fn norms<E: Element>(x: &[E], y: &[E], n: usize, scale: f64) -> Vec<Norms> {
    x.chunks(n)
        .zip(y.chunks(n))
        .map(|(x, y)| {
            let differences = || {
                x.iter()
                    .zip(y)
                    .map(|(x, y)| scale * f64::from(y.to_f32() - x.to_f32()).abs())
            };
            Norms {
                l2: differences().map(|d| d * d).sum::<f64>().sqrt(),
                linf: differences().fold(0.0, f64::max),
                l1: differences().sum(),
                l0: differences().filter(|&d| d != 0.0).count() as f64,
            }
        })
        .collect()
}

impl<E: Element> Problem<'_, E> {
    /// What an attack of the engine must know of the input.
    pub fn input_kind(&self) -> InputKind {
        InputKind {
            unit: self.unit,
            lattice: E::LATTICE,
            shape: self.shape,
        }
    }
}

impl Classifier<'_> {
    /// Height, width and channels of the input.
    pub fn image_shape(&self) -> [usize; 3] {
        image_shape(&self.form().shape)
    }

    /// As [`crate::classifier::InputForm::ball`].
    pub fn ball(&self, norm: Norm, epsilon: f32) -> Ball {
        self.form().ball(norm, epsilon)
    }

    /// An attack with epsilon in real units, in the units of the model's input elements.
    pub fn spec(&self, make: impl Fn(Ball) -> Spec, norm: Norm, epsilon: f32) -> Spec {
        let spec = make(self.ball(norm, epsilon));
        match self.is_quantized() {
            true => spec.on_lattice(),
            false => spec,
        }
    }
}
