//! Targets outside this process: a chip at the end of a line, or any program that answers on stdin and stdout. They
//! are black boxes: labels, and mostly scores; no gradients.

mod chip;
mod local;
mod process;
mod program;
mod surrogate;

pub use chip::ChipTarget;
pub use local::Local;
pub use program::{PROTOCOL, Program};
pub use surrogate::{Feedback, evaluate_with};

use crate::attack::journal::{Journal, Kept};
use crate::attack::minimum::Bisection;
use crate::attack::run::{Found, hunt, norms};
use crate::attack::{Access, Aim, Attacked, Hunt, Problem, Stop, Stream, image_shape};
use crate::classifier::{Answer, Grid, InputForm, Inputs};
use crate::error::{Error, Result};
use crate::evaluate::{AttackResult, Evaluation, Plan, Threat};
use foolproof::loss::Goal;
use foolproof::threat::{Element, LabelOracle, ScoreOracle};

/// One input, in the target's own element type.
#[derive(Clone, Copy, Debug)]
pub enum Sample<'a> {
    /// In real units.
    F32(&'a [f32]),
    /// On the int8 grid.
    I8(&'a [i8]),
}

/// A black box that can be asked about one input at a time.
pub trait Target {
    /// What people call it.
    fn name(&self) -> String;
    /// What its inputs look like.
    fn form(&self) -> &InputForm;
    /// Number of classes.
    fn classes(&self) -> usize;
    /// What it answers: [`Access::Labels`] or [`Access::Scores`].
    fn access(&self) -> Access;
    /// Everything that it says about itself, in one line: targets with different descriptions are different ones, so results
    /// that were noted about one are none about the other.
    fn describe(&self) -> String {
        described(self)
    }
    /// The label of one input, and into `scores` (as many as classes) the scores if the target gives them.
    ///
    /// # Errors
    /// The target is gone, or answers nonsense.
    fn ask(&mut self, x: Sample<'_>, scores: &mut [f32]) -> Result<usize>;
}

/// Name, form, classes and access; a float as the shortest text that reads back as the same number.
fn described<T: Target + ?Sized>(target: &T) -> String {
    let InputForm { shape, grid, range } = target.form();
    let elements = match grid {
        None => "f32".to_string(),
        Some(Grid { scale, zero_point }) => format!("i8 scale {scale:?} zero point {zero_point}"),
    };
    format!(
        "{:?} shape {shape:?} {elements} range {range:?} classes {} answers {}",
        target.name(),
        target.classes(),
        target.access().name()
    )
}

/// A target behind the threat traits.
struct Remote<'a> {
    target: &'a mut dyn Target,
    scores: Vec<f32>,
}

impl<'a> Remote<'a> {
    fn new(target: &'a mut dyn Target) -> Remote<'a> {
        let scores = vec![0.0; target.classes()];
        Remote { target, scores }
    }
}

/// Elements that a target can be asked about.
pub(crate) trait Asked: Kept + Default {
    fn sample(x: &[Self]) -> Sample<'_>;
}

impl Asked for f32 {
    fn sample(x: &[f32]) -> Sample<'_> {
        Sample::F32(x)
    }
}

impl Asked for i8 {
    fn sample(x: &[i8]) -> Sample<'_> {
        Sample::I8(x)
    }
}

impl<E: Asked> LabelOracle<E> for Remote<'_> {
    type Error = Error;
    fn input_len(&self) -> usize {
        self.target.form().input_len()
    }
    fn classes(&self) -> usize {
        self.target.classes()
    }
    fn classify(&mut self, x: &[E]) -> Result<usize> {
        self.target.ask(E::sample(x), &mut self.scores)
    }
}

/// Only asked where [`Target::access`] says that there are scores; see [`evaluate`].
impl<E: Asked> ScoreOracle<E> for Remote<'_> {
    fn scores(&mut self, x: &[E], scores: &mut [f32]) -> Result<usize> {
        self.target.ask(E::sample(x), scores)
    }
}

/// Refuses attacks that need to know more than the target tells.
///
/// # Errors
/// One line that names the attack and what it needs.
pub fn check(target: &dyn Target, plans: &[Plan]) -> Result<()> {
    match plans
        .iter()
        .find(|plan| plan.attack.access() > target.access())
    {
        None => Ok(()),
        Some(plan) => Err(Error::new(
            format!(
                "{} asks for {}, {} gives {}",
                plan.name,
                plan.attack.access().name(),
                target.name(),
                target.access().name()
            ),
            "--attack",
            "an attack that asks for no more than that; foolproof attacks lists them",
        )),
    }
}

/// How a run goes on.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// Seed.
    pub seed: u64,
    /// Called with 1 after every sample.
    pub progress: &'a (dyn Fn(u64) + Sync),
    /// What an interrupted run had found, and where results are noted.
    pub journal: Option<&'a Journal>,
}

impl Work<'_> {
    /// What attack number `attack` found on a sample of `n` elements: as an interrupted run noted it, or by `go`.
    fn once<E: Kept>(
        &self,
        (attack, sample): (usize, usize),
        n: usize,
        go: impl FnOnce() -> Result<Found<E>>,
    ) -> Result<Found<E>> {
        if let Some(found) = self.journal.and_then(|j| j.find(attack, sample, n)) {
            return Ok(found);
        }
        let found = go()?;
        if let Some(journal) = self.journal {
            journal.note(attack, sample, &found);
        }
        Ok(found)
    }
}

/// Runs every plan on every sample, one query after the other.
///
/// # Errors
/// An attack that needs more than the target gives, or what the target does wrong.
pub fn evaluate(
    target: &mut dyn Target,
    inputs: &Inputs,
    labels: &[usize],
    plans: &[Plan],
    work: &Work<'_>,
) -> Result<Evaluation> {
    check(target, plans)?;
    match inputs {
        Inputs::F32(x) => run_plans(target, x, labels, plans, work, &mut black_box),
        Inputs::I8(x) => run_plans(target, x, labels, plans, work, &mut black_box),
    }
}

/// How one sample is attacked.
type Go<'g, E> =
    &'g mut dyn FnMut(&mut dyn Target, &Problem<'_, E>, &Plan, Stream) -> Result<Found<E>>;

/// Asks about every sample, and lets `go` attack it.
fn run_plans<E: Asked>(
    target: &mut dyn Target,
    x: &[E],
    labels: &[usize],
    plans: &[Plan],
    work: &Work<'_>,
    go: Go<'_, E>,
) -> Result<Evaluation>
where
    Inputs: From<Vec<E>>,
{
    let n = target.form().input_len();
    let has_scores = target.access() == Access::Scores;
    let mut clean = Vec::new();
    for x in x.chunks(n) {
        let mut logits = vec![0.0; target.classes()];
        let label = target.ask(E::sample(x), &mut logits)?;
        if !has_scores {
            logits.clear();
        }
        clean.push(Answer {
            label,
            logits,
            output: Vec::new(),
        });
    }
    let mut attacks = Vec::new();
    for (attack, plan) in plans.iter().enumerate() {
        let ball = target.form().ball(plan.norm, plan.epsilon);
        let mut found = Vec::new();
        for (i, (x, &label)) in x.chunks(n).zip(labels).enumerate() {
            let problem = problem(target, (x, label), plan);
            let stream = Stream {
                seed: work.seed,
                sample: i as u64,
            };
            found.push(work.once((attack, i), n, || go(target, &problem, plan, stream))?);
            (work.progress)(1);
        }
        let outcomes: Vec<_> = found.iter().map(|found| found.outcome).collect();
        let adversarial: Vec<E> = found.into_iter().flat_map(|found| found.x).collect();
        let norms = norms(x, &adversarial, n, f64::from(target.form().unit()));
        let robust = clean
            .iter()
            .zip(labels)
            .zip(&outcomes)
            .map(|((answer, &label), outcome)| {
                answer.label == label && !(outcome.fooled && plan.target != Some(label))
            })
            .collect();
        attacks.push(AttackResult {
            threat: Threat::of(plan.attack.access()),
            plan: *plan,
            ball,
            attacked: Attacked {
                unfinished: false,
                inputs: Inputs::from(adversarial),
                outcomes,
                norms,
            },
            robust,
        });
    }
    Ok(Evaluation { clean, attacks })
}

/// What a plan means for one sample.
fn problem<'x, E: Element>(
    target: &dyn Target,
    (x, label): (&'x [E], usize),
    plan: &Plan,
) -> Problem<'x, E> {
    Problem {
        x,
        goal: match plan.target {
            Some(class) => Goal::Reach(class),
            None => Goal::Avoid(label),
        },
        ball: target.form().ball(plan.norm, plan.epsilon),
        unit: target.form().unit(),
        classes: target.classes(),
        shape: image_shape(&target.form().shape),
    }
}

/// Attacks one sample.
fn black_box<E: Asked>(
    target: &mut dyn Target,
    problem: &Problem<'_, E>,
    plan: &Plan,
    stream: Stream,
) -> Result<Found<E>> {
    let limits = (plan.aim, plan.budget);
    let access = target.access();
    let refuse = || {
        // `check` came first
        Error::new(
            format!("the attack asks for {}", plan.attack.access().name()),
            "the target",
            "an attack that asks for less",
        )
    };
    hunt(
        Remote::new(target),
        problem,
        limits,
        |oracle: &mut Hunt<'_, E, Remote<'_>>| match plan.aim {
            Aim::Shrink => Bisection::default().run(oracle, problem, |oracle, problem| {
                ask(plan, access, oracle, problem, stream)
                    .unwrap_or_else(|| Err(Stop::Oracle(Stop::Oracle(refuse()))))
            }),
            _ => ask(plan, access, oracle, problem, stream)
                .unwrap_or_else(|| Err(Stop::Oracle(refuse()))),
        },
    )
}

/// Lets the attack ask for what the target gives; `None` where it needs more.
fn ask<E: Element, O: ScoreOracle<E>>(
    plan: &Plan,
    access: Access,
    oracle: &mut O,
    problem: &Problem<'_, E>,
    stream: Stream,
) -> Option<std::result::Result<(), O::Error>> {
    match access {
        Access::Scores => plan.attack.on_scores(oracle, problem, stream),
        _ => plan.attack.on_labels(oracle, problem, stream),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Said {
        name: &'static str,
        form: InputForm,
        classes: usize,
        access: Access,
    }

    impl Target for Said {
        fn name(&self) -> String {
            self.name.into()
        }
        fn form(&self) -> &InputForm {
            &self.form
        }
        fn classes(&self) -> usize {
            self.classes
        }
        fn access(&self) -> Access {
            self.access
        }
        fn ask(&mut self, _: Sample<'_>, _: &mut [f32]) -> Result<usize> {
            Ok(0)
        }
    }

    #[test]
    fn a_description_tells_everything_that_a_target_said() {
        let grid = |scale, zero_point| Some(Grid { scale, zero_point });
        let first = Said {
            name: "a",
            form: InputForm {
                shape: vec![2, 6],
                grid: None,
                range: (0.0, 1.0),
            },
            classes: 10,
            access: Access::Labels,
        };
        let mut others = vec![first.clone(); 9];
        others[1].name = "b";
        others[2].form.shape = vec![6, 2];
        others[3].form.shape = vec![26];
        others[4].form.range = (0.0, 1.0_f32.next_up());
        others[5].form.grid = grid(0.1, -128);
        others[6].form.grid = grid(0.1_f32.next_up(), -128);
        others[7].classes = 9;
        others[8].access = Access::Scores;
        let texts: Vec<String> = others.iter().map(|other| other.describe()).collect();
        assert_eq!(texts[0], first.describe());
        for (i, text) in texts.iter().enumerate() {
            assert_eq!(text.lines().count(), 1);
            assert!(!texts[..i].contains(text), "{text}");
        }
    }
}
