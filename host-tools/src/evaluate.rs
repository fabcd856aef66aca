//! Clean and robust accuracy of one model on one data set.

use crate::attack::{Access, Aim, Attack, Attacked, InputKind, Portable, Run, attack};
use crate::classifier::{Answer, Classifier, Inputs};
use foolproof::attack::{AttackError, Ball, Norm, Outcome, Spec};
use foolproof::loss::Loss;
use foolproof::session::SessionError;
use foolproof::threat::Budget;

/// An attack before it meets a model: epsilon in real units of the input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Its name on the command line.
    pub name: &'static str,
    /// Which attack.
    pub attack: Attack,
    /// Whether any adversarial input will do, or the nearest is wanted.
    pub aim: Aim,
    /// The norm of its ball.
    pub norm: Norm,
    /// The ball's radius, real units; infinite where only the box is the bound.
    pub epsilon: f32,
    /// The class to reach, if there is one.
    pub target: Option<usize>,
    /// What each sample may cost.
    pub budget: Budget,
}

impl Plan {
    /// FGSM in the linf norm.
    pub fn fgsm(epsilon: f32) -> Plan {
        Plan {
            name: "fgsm",
            attack: Attack::Portable(Portable::Fgsm),
            aim: Aim::Any,
            norm: Norm::Linf,
            epsilon,
            target: None,
            budget: Budget::UNLIMITED,
        }
    }

    /// PGD in the linf norm with one random start.
    pub fn pgd(epsilon: f32, steps: u16) -> Plan {
        Plan {
            name: "pgd",
            attack: Attack::Portable(Portable::Pgd {
                steps,
                starts: 1,
                step: None,
                random_start: true,
                loss: Loss::CrossEntropy,
            }),
            ..Plan::fgsm(epsilon)
        }
    }

    /// The attack as a chip takes it, in units of the model's input elements; `None` for those of the host.
    pub fn spec(&self, classifier: &Classifier<'_>) -> Option<Spec> {
        let Attack::Portable(portable) = self.attack else {
            return None;
        };
        let input = InputKind {
            unit: classifier.input_scale(),
            lattice: classifier.is_quantized(),
            shape: classifier.image_shape(),
        };
        let make = |ball: Ball| portable.spec(ball, input);
        let spec = classifier.spec(make, self.norm, self.epsilon);
        Some(match self.target {
            Some(_) => spec.targeted(),
            None => spec,
        })
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

/// What an attacker may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threat {
    /// The model's own gradients.
    WhiteBox,
    /// A surrogate's gradients, and the model's answers.
    GrayBox,
    /// The model's answers alone.
    BlackBox,
}

impl Threat {
    /// The threat model of an attack on the model itself.
    pub fn of(access: Access) -> Threat {
        match access {
            Access::Gradients => Threat::WhiteBox,
            Access::Scores | Access::Labels => Threat::BlackBox,
        }
    }

    /// As documents write it.
    pub fn name(self) -> &'static str {
        match self {
            Threat::WhiteBox => "white-box",
            Threat::GrayBox => "gray-box",
            Threat::BlackBox => "black-box",
        }
    }
}

/// One attack on every sample.
#[derive(Clone, Debug)]
pub struct AttackResult {
    /// What it was allowed to touch.
    pub threat: Threat,
    /// What was asked.
    pub plan: Plan,
    /// Where it searched, in units of the model's input elements.
    pub ball: Ball,
    /// Adversarial inputs, outcomes and norms.
    pub attacked: Attacked,
    /// For each sample whether it withstood: classified rightly before, and the attack did not reach its goal.
    pub robust: Vec<bool>,
}

impl AttackResult {
    /// Whether the ball holds any input but the sample itself: on an int8 grid it must reach one step.
    pub fn can_change_anything(&self) -> bool {
        match self.attacked.inputs {
            Inputs::F32(_) => self.ball.epsilon > 0.0,
            Inputs::I8(_) => self.ball.epsilon >= 1.0,
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
            let ball = classifier.ball(plan.norm, plan.epsilon);
            let run = Run {
                attack: plan.attack,
                aim: plan.aim,
                ball,
                classes,
                targeted: plan.target.is_some(),
                budget: plan.budget,
                seed,
                progress,
            };
            let attacked = attack(classifier, inputs, &run)?;
            Ok(AttackResult {
                threat: Threat::of(plan.attack.access()),
                plan: *plan,
                ball,
                robust: withstood(&clean, labels, plan, &attacked.outcomes),
                attacked,
            })
        })
        .collect::<std::result::Result<_, _>>()?;
    Ok(Evaluation { clean, attacks })
}

/// For each sample whether it withstood: classified rightly before, and the attack did not reach its goal.
pub fn withstood(
    clean: &[Answer],
    labels: &[usize],
    plan: &Plan,
    outcomes: &[Outcome],
) -> Vec<bool> {
    clean
        .iter()
        .zip(labels)
        .zip(outcomes)
        .map(|((answer, &label), outcome)| {
            // a sample of the target class is not a success of a targeted attack
            let fooled = outcome.fooled && plan.target != Some(label);
            answer.label == label && !fooled
        })
        .collect()
}
