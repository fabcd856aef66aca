//! Attacks over many samples: one session per thread, the same result for any number of threads.

use super::minimum::Bisection;
use super::problem::image_shape;
use super::{Aim, Attack, Hunt, InputKind, Portable, Problem, Stop, Stream, universal};
use crate::classifier::{Classifier, Inputs};
use foolproof::attack::{AttackError, Ball, Norm, Outcome, Spec, Task};
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
    /// Seed.
    pub seed: u64,
    /// Called with 1 after every sample.
    pub progress: &'a (dyn Fn(u64) + Sync),
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
            seed,
            progress,
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
            })
        }
        Inputs::I8(x) => {
            let (adversarial, outcomes) = attack_elements(classifier, x, run)?;
            let norms = norms(x, &adversarial, n, f64::from(scale));
            Ok(Attacked {
                inputs: Inputs::I8(adversarial),
                outcomes,
                norms,
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
    E: Element + Default + Send + Sync,
    for<'s> Session<'s>: GradientOracle<E, Error = SessionError>,
{
    let n = classifier.input_len();
    let classes = classifier.model().classes();
    let found: Vec<Result<Found<E>, AttackError<SessionError>>> = x
        .par_chunks(n)
        .zip(run.classes)
        .enumerate()
        .map_init(
            || classifier.buffer(Mode::Attack),
            |buffer, (i, (x, &class))| {
                let mut session = classifier
                    .session(Mode::Attack, buffer)
                    .map_err(AttackError::Oracle)?;
                if class >= classes {
                    return Err(AttackError::Class { class, classes });
                }
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
                let found = white_box(&mut session, &problem, run, stream);
                (run.progress)(1);
                found
            },
        )
        .collect();
    let found = found.into_iter().collect::<Result<Vec<_>, _>>()?;
    let outcomes = found.iter().map(|found| found.outcome).collect();
    Ok((
        found.into_iter().flat_map(|found| found.x).collect(),
        outcomes,
    ))
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
    let ran = spec.run_on_scores(oracle, task, &mut out)?;
    Some(found_or_not(ran).unwrap_or(Ok(())))
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
    let outcome = spec.run(oracle, task, &mut out)?;
    Ok((out, outcome))
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
