//! The one who watches an attack: counts what it asks, enforces its budget, and keeps the best adversarial input
//! that the oracle has confirmed.
//!
//! Every attack talks to a [`Hunt`] and to nothing else. So counts are exact for all of them, an input that left the
//! ball is never taken for a success, nothing that was found is lost when a budget ends, and an attack with a fixed
//! epsilon stops with the query that fooled the oracle.

use super::problem::Problem;
use super::run::Found;
use foolproof::attack::{Norm, Outcome};
use foolproof::loss::{Loss, Objective};
use foolproof::threat::{Budget, Element, Gradient, GradientOracle, LabelOracle, ScoreOracle};

/// What an attack is after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aim {
    /// Any adversarial input in the ball; the first one ends the hunt.
    Any,
    /// The adversarial input nearest to the sample; the hunt goes on to the attack's own end.
    Nearest,
    /// The same of an attack that searches a ball: in ever better balls (see [`super::minimum`]).
    Shrink,
}

/// Why a hunt ended before the attack did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop<E> {
    /// The oracle is fooled, and that was all that was wanted.
    Fooled,
    /// The budget of queries or gradients is spent.
    BudgetSpent,
    /// The oracle failed.
    Oracle(E),
}

/// The best adversarial input so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Witness<E> {
    /// The input.
    pub x: Vec<E>,
    /// The label that the oracle gave it.
    pub label: usize,
    /// Its distance from the sample in the problem's norm, units of an element.
    pub distance: f32,
}

/// An oracle under watch.
#[derive(Debug)]
pub struct Hunt<'a, E, O> {
    oracle: O,
    problem: Problem<'a, E>,
    aim: Aim,
    budget: Budget,
    /// A loss and how much of it, beyond the label, a success must have.
    demand: Option<(Loss, f32)>,
    /// Forward passes so far, those of gradients included.
    pub queries: u64,
    /// Backward passes so far.
    pub gradients: u64,
    /// What was found.
    pub witness: Option<Witness<E>>,
    /// The last input in the ball that was tried, and its label.
    last: Option<(Vec<E>, usize)>,
}

impl<'a, E: Element, O> Hunt<'a, E, O> {
    /// Watches `oracle` from now on.
    pub fn new(oracle: O, problem: Problem<'a, E>, aim: Aim, budget: Budget) -> Self {
        Hunt {
            oracle,
            problem,
            aim,
            budget,
            demand: None,
            queries: 0,
            gradients: 0,
            witness: None,
            last: None,
        }
    }

    /// The nearest adversarial input; where there is none, the last input in the ball, or the sample itself.
    pub fn into_found(self) -> Found<E> {
        let (queries, gradients) = (self.queries, self.gradients);
        let fooled = self.witness.is_some();
        let (x, label) = match (self.witness, self.last) {
            (Some(witness), _) => (witness.x, witness.label),
            (None, Some(last)) => last,
            // nothing was asked: the label is not known, and is not the one that was wanted
            (None, None) => (self.problem.x.to_vec(), self.problem.unmet_label()),
        };
        Found {
            x,
            outcome: Outcome {
                label,
                fooled,
                queries,
                gradients,
            },
        }
    }

    /// From now on only an input counts as adversarial where this loss, turned towards the goal, is at least `kappa`: an attack
    /// with a confidence margin keeps nothing less. Labels alone then prove nothing.
    pub fn demand(&mut self, loss: Loss, kappa: f32) {
        self.demand = (kappa > 0.0).then_some((loss, kappa));
    }

    fn spend<Error>(&mut self, gradients: u64) -> Result<(), Stop<Error>> {
        let over = self.queries >= self.budget.queries
            || self.gradients + gradients > self.budget.gradients;
        if over {
            return Err(Stop::BudgetSpent);
        }
        self.queries += 1;
        self.gradients += gradients;
        Ok(())
    }

    fn saw<Error>(
        &mut self,
        x: &[E],
        label: usize,
        scores: Option<&[f32]>,
    ) -> Result<(), Stop<Error>> {
        let enough = match (self.demand, scores) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((loss, kappa)), Some(scores)) => {
                let goal = self.problem.goal;
                Objective { loss, goal }.differentiate(&mut scores.to_vec()) >= kappa
            }
        };
        let met = enough && self.problem.goal.is_met(label);
        let (witness, last) = (&mut self.witness, &mut self.last);
        note((&self.problem, self.aim), witness, last, (x, label, met))
    }
}

/// Takes an answer into account.
fn note<E: Element, Error>(
    (problem, aim): (&Problem<'_, E>, Aim),
    witness: &mut Option<Witness<E>>,
    last: &mut Option<(Vec<E>, usize)>,
    (x, label, met): (&[E], usize, bool),
) -> Result<(), Stop<Error>> {
    let ball = &problem.ball;
    if !ball.contains(problem.x, x) {
        return Ok(());
    }
    if !met {
        let (kept, kept_label) = last.get_or_insert_with(Default::default);
        kept.clear();
        kept.extend_from_slice(x);
        *kept_label = label;
        return Ok(());
    }
    let distance = ball.norm.distance(problem.x, x);
    if witness
        .as_ref()
        .is_none_or(|best| is_nearer(problem.x, (x, distance), best))
    {
        *witness = Some(Witness {
            x: x.to_vec(),
            label,
            distance,
        });
    }
    match aim {
        Aim::Any => Err(Stop::Fooled),
        Aim::Nearest | Aim::Shrink => Ok(()),
    }
}

/// Of equal distances (common in l0 and on the lattice) the one with the smaller l2 distance is nearer.
fn is_nearer<E: Element>(origin: &[E], (x, distance): (&[E], f32), best: &Witness<E>) -> bool {
    let l2 = |y: &[E]| Norm::L2.distance(origin, y);
    distance < best.distance || distance == best.distance && l2(x) < l2(&best.x)
}

impl<E: Element, O: LabelOracle<E>> LabelOracle<E> for Hunt<'_, E, O> {
    type Error = Stop<O::Error>;
    fn input_len(&self) -> usize {
        self.oracle.input_len()
    }
    fn classes(&self) -> usize {
        self.oracle.classes()
    }
    fn classify(&mut self, x: &[E]) -> Result<usize, Self::Error> {
        self.spend(0)?;
        let label = self.oracle.classify(x).map_err(Stop::Oracle)?;
        self.saw(x, label, None)?;
        Ok(label)
    }
}

impl<E: Element, O: ScoreOracle<E>> ScoreOracle<E> for Hunt<'_, E, O> {
    fn scores(&mut self, x: &[E], scores: &mut [f32]) -> Result<usize, Self::Error> {
        self.spend(0)?;
        let label = self.oracle.scores(x, scores).map_err(Stop::Oracle)?;
        self.saw(x, label, Some(scores))?;
        Ok(label)
    }
}

impl<E: Element, O: GradientOracle<E>> GradientOracle<E> for Hunt<'_, E, O> {
    fn gradient(&mut self, x: &[E], objective: Objective) -> Result<Gradient<'_>, Self::Error> {
        self.spend(1)?;
        let Hunt {
            oracle,
            problem,
            aim,
            demand,
            witness,
            last,
            ..
        } = self;
        let answer = oracle.gradient(x, objective).map_err(Stop::Oracle)?;
        let enough = demand.is_none_or(|(loss, kappa)| {
            let asked = Objective {
                loss,
                goal: problem.goal,
            };
            objective == asked && answer.value >= kappa
        });
        let met = enough && problem.goal.is_met(answer.label);
        note((problem, *aim), witness, last, (x, answer.label, met))?;
        Ok(answer)
    }
}
