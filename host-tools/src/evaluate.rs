//! Clean and robust accuracy of one model on one data set.

use crate::attack::{Attacked, Run, attack};
use crate::classifier::{Answer, Classifier, Inputs};
use foolproof::attack::{AttackError, Ball, Kind, Norm, Spec};
use foolproof::session::SessionError;

/// An attack before it meets a model: epsilon in real units of the input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Which attack.
    pub kind: Kind,
    /// The norm of its ball.
    pub norm: Norm,
    /// The ball's radius, real units.
    pub epsilon: f32,
    /// Steps per start; PGD only.
    pub steps: u16,
    /// Starts; PGD only.
    pub starts: u16,
    /// The class to reach, if there is one.
    pub target: Option<usize>,
}

impl Plan {
    /// FGSM in the linf norm.
    pub fn fgsm(epsilon: f32) -> Plan {
        Plan {
            kind: Kind::Fgsm,
            norm: Norm::Linf,
            epsilon,
            steps: 1,
            starts: 1,
            target: None,
        }
    }

    /// PGD in the linf norm with one random start.
    pub fn pgd(epsilon: f32, steps: u16) -> Plan {
        Plan {
            kind: Kind::Pgd,
            steps,
            ..Plan::fgsm(epsilon)
        }
    }

    /// The attack's name on the command line.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Pgd => "pgd",
            _ => "fgsm",
        }
    }

    /// The attack on this model, in units of its input elements.
    pub fn spec(&self, classifier: &Classifier<'_>) -> Spec {
        let make = |ball: Ball| match self.kind {
            Kind::Pgd => Spec {
                starts: self.starts,
                ..Spec::pgd(ball, self.steps)
            },
            _ => Spec::fgsm(ball),
        };
        let spec = classifier.spec(make, self.norm, self.epsilon);
        match self.target {
            Some(_) => spec.targeted(),
            None => spec,
        }
    }
}

/// What a model says about clean inputs, and what attacks make of it.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Answers to the clean inputs.
    pub clean: Vec<Answer>,
    /// One per plan.
    pub attacks: Vec<AttackResult>,
}

/// One attack on every sample.
#[derive(Clone, Debug)]
pub struct AttackResult {
    /// What was asked.
    pub plan: Plan,
    /// What ran, in units of the model's input elements.
    pub spec: Spec,
    /// Adversarial inputs, outcomes and norms.
    pub attacked: Attacked,
    /// For each sample whether it withstood: classified rightly before, and the attack did not reach its goal.
    pub robust: Vec<bool>,
}

impl AttackResult {
    /// Whether the ball holds any input but the sample itself: on an int8 grid it must reach one step.
    pub fn can_change_anything(&self) -> bool {
        match self.attacked.inputs {
            Inputs::F32(_) => self.spec.ball.epsilon > 0.0,
            Inputs::I8(_) => self.spec.ball.epsilon >= 1.0,
        }
    }

    /// The share of samples that withstood.
    pub fn robust_accuracy(&self) -> f64 {
        let count = self.robust.iter().filter(|&&r| r).count();
        count as f64 / self.robust.len().max(1) as f64
    }

    /// Of the samples that were classified rightly (and are not of the target class), the share that was fooled.
    pub fn success_rate(&self, clean: &[Answer], labels: &[usize]) -> f64 {
        let (mut tried, mut fooled) = (0, 0);
        for ((answer, &label), outcome) in clean.iter().zip(labels).zip(&self.attacked.outcomes) {
            if answer.label == label && self.plan.target != Some(label) {
                tried += 1;
                fooled += u64::from(outcome.fooled);
            }
        }
        fooled as f64 / f64::from(tried.max(1))
    }
}

/// Runs every plan on every sample.
///
/// # Errors
/// A label that the model does not have, or inputs of the wrong type or length.
pub fn evaluate(
    classifier: &Classifier<'_>,
    inputs: &Inputs,
    labels: &[usize],
    plans: &[Plan],
    seed: u64,
    progress: &(dyn Fn(u64) + Sync),
) -> std::result::Result<Evaluation, AttackError<SessionError>> {
    let clean = classifier.answers(inputs).map_err(AttackError::Oracle)?;
    let attacks = plans
        .iter()
        .map(|plan| {
            let targets;
            let classes = match plan.target {
                Some(target) => {
                    targets = vec![target; labels.len()];
                    &targets
                }
                None => labels,
            };
            let spec = plan.spec(classifier);
            let run = Run {
                spec,
                classes,
                seed,
                progress,
            };
            let attacked = attack(classifier, inputs, &run)?;
            let robust = clean
                .iter()
                .zip(labels)
                .zip(&attacked.outcomes)
                .map(|((answer, &label), outcome)| {
                    // a sample of the target class is not a success of a targeted attack
                    let fooled = outcome.fooled && plan.target != Some(label);
                    answer.label == label && !fooled
                })
                .collect();
            Ok(AttackResult {
                plan: *plan,
                spec,
                attacked,
                robust,
            })
        })
        .collect::<std::result::Result<_, _>>()?;
    Ok(Evaluation { clean, attacks })
}
