use super::super::white::analytic::Analytic;
use super::super::{Aim, Attack, Portable};
use super::*;
use foolproof::attack::{Ball, Norm};
use foolproof::loss::{Goal, Loss};

const W: [f32; 4] = [2.0, -1.0, 0.5, 0.25];
const X: [f32; 4] = [0.3, -0.1, 0.2, 0.0];

/// A target that can do no more than name labels.
struct LabelsOnly(Analytic);

impl<E: Element> LabelOracle<E> for LabelsOnly {
    type Error = std::convert::Infallible;
    fn input_len(&self) -> usize {
        LabelOracle::<E>::input_len(&self.0)
    }
    fn classes(&self) -> usize {
        LabelOracle::<E>::classes(&self.0)
    }
    fn classify(&mut self, x: &[E]) -> std::result::Result<usize, Self::Error> {
        self.0.classify(x)
    }
}

fn plan(epsilon: f32, steps: u16) -> Plan {
    Plan {
        attack: Attack::Portable(Portable::Pgd {
            steps,
            starts: 1,
            step: Some(0.02),
            random_start: false,
            loss: Loss::CrossEntropy,
        }),
        aim: Aim::Any,
        ..Plan::pgd(epsilon, steps)
    }
}

fn problem<E>(x: &[E], epsilon: f32) -> Problem<'_, E> {
    Problem {
        x,
        goal: Goal::Avoid(0),
        ball: Ball {
            norm: Norm::Linf,
            epsilon,
            low: -1.0,
            high: 1.0,
        },
        unit: 1.0,
        classes: 2,
        shape: [1, x.len(), 1],
    }
}

const STREAM: Stream = Stream { seed: 1, sample: 0 };

#[test]
fn what_is_crafted_costs_the_target_one_query() {
    let target = Analytic::half_space(&W, 0.1);
    // the surrogate's plane is nearer, so its adversarial inputs do not all carry over
    let near = Analytic::half_space(&W, -0.1);
    let far = Analytic::half_space(&W, 0.3);
    let problem = problem(&X, 0.5);
    for (mut surrogate, carries) in [(near, false), (far, true)] {
        let found = craft(&mut surrogate, &problem, &plan(0.5, 60), STREAM).expect("an answer");
        assert!(found.outcome.fooled, "the surrogate is fooled");
        target.asked.set((0, 0));
        let labels = LabelsOnly(target.clone());
        let delivered = deliver(labels, &problem, &plan(0.5, 60), &found.x).expect("an answer");
        assert_eq!(delivered.outcome.fooled, carries);
        assert_eq!((delivered.outcome.queries, target.asked.get()), (1, (1, 0)));
    }
}

#[test]
fn feedback_fools_the_target_where_crafting_alone_stops_short() {
    let target = Analytic::half_space(&W, 0.1);
    let mut surrogate = Analytic::half_space(&W, -0.1);
    let problem = problem(&X, 0.5);
    target.asked.set((0, 0));
    let labels = LabelsOnly(target.clone());
    let found = with_feedback(&mut surrogate, labels, &problem, &plan(0.5, 60), STREAM);
    let outcome = found.expect("an answer").outcome;
    assert!(outcome.fooled);
    // as many queries as steps to the plane, no gradient, and the counts are the target's own
    assert_eq!((outcome.queries, outcome.gradients), target.asked.get());
    assert_eq!(outcome.gradients, 0);
    assert!((5..60).contains(&outcome.queries), "{outcome:?}");
    // and a budget ends it to the query
    let labels = LabelsOnly(target.clone());
    let limited = Plan {
        budget: Budget {
            queries: 3,
            gradients: 0,
        },
        ..plan(0.5, 60)
    };
    target.asked.set((0, 0));
    let found = with_feedback(&mut surrogate, labels, &problem, &limited, STREAM);
    let outcome = found.expect("an answer").outcome;
    assert_eq!((outcome.queries, target.asked.get().0), (3, 3));
    assert!(!outcome.fooled);
}

#[test]
fn only_samples_that_were_right_are_counted() {
    let outcome = |fooled| Outcome {
        label: 0,
        fooled,
        queries: 1,
        gradients: 0,
    };
    let right = [true, true, true, false];
    let on_target = [true, false, true, true].map(outcome);
    let carried = Carried::count(right.into_iter(), &[true, true, false, true], &on_target);
    assert_eq!(
        carried,
        Carried {
            crafted: 2,
            carried: 1
        }
    );
}
