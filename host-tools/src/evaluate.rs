//! Clean and robust accuracy of one model on one data set.

use crate::attack::journal::Journal;
use crate::attack::run::Page;
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
    /// Whether both look for the same in the same place.
    pub fn is_in_the_ball_of(&self, other: &Plan) -> bool {
        self.norm == other.norm && self.epsilon == other.epsilon && self.target == other.target
    }

    /// Whether an attack on a sample did not win, and had spent `limits` on it, or nothing.
    pub fn is_over(&self, outcome: &Outcome, limits: Budget) -> bool {
        let climbs = self.attack.access() == Access::Gradients;
        let spent = outcome.queries == 0
            || outcome.queries >= limits.queries
            || climbs && outcome.gradients >= limits.gradients;
        spent && !outcome.fooled
    }

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

    /// How many samples withstood although (or because) the attack had spent `limits` on them, or could not ask about them at all, since
    /// all together had cost what they may: what it would have come to is not known.
    pub fn cut_short(&self, limits: Budget) -> usize {
        let outcomes = &self.attacked.outcomes;
        match self.plan.attack.is_universal() {
            // one perturbation for all is fitted to the end, or for none
            true if !self.attacked.unfinished => 0,
            true => outcomes.iter().filter(|o| !o.fooled).count(),
            false => outcomes
                .iter()
                .filter(|o| self.plan.is_over(o, limits))
                .count(),
        }
    }

    /// Whether every sample was asked about.
    pub fn asked_about_all(&self) -> bool {
        self.attacked.outcomes.iter().all(|o| o.queries > 0)
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

/// Under which circumstances plans are run.
#[derive(Clone, Copy)]
pub struct Conditions<'a> {
    /// Seed.
    pub seed: u64,
    /// Called with 1 after every sample of every plan.
    pub progress: &'a (dyn Fn(u64) + Sync),
    /// Where results are written down, and found again.
    pub journal: Option<&'a Journal>,
    /// Whether a sample that one plan has won is left alone by the later ones in the same ball: each result is then what all
    /// plans up to it came to.
    pub cascade: bool,
    /// What all samples of a plan together may cost.
    pub total: Budget,
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
    let conditions = Conditions {
        seed,
        progress,
        journal: None,
        cascade: false,
        total: Budget::UNLIMITED,
    };
    evaluate_under(classifier, inputs, labels, plans, &conditions)
}

/// Runs every plan on every sample, under conditions.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_under(
    classifier: &Classifier<'_>,
    inputs: &Inputs,
    labels: &[usize],
    plans: &[Plan],
    conditions: &Conditions<'_>,
) -> std::result::Result<Evaluation, AttackError<SessionError>> {
    let clean = classifier.answers(inputs).map_err(AttackError::Oracle)?;
    let mut attacks: Vec<AttackResult> = Vec::new();
    for (number, plan) in plans.iter().enumerate() {
        let targets;
        let classes = match plan.target {
            Some(target) => {
                targets = vec![target; labels.len()];
                &targets
            }
            None => labels,
        };
        let before = attacks
            .iter()
            .rev()
            .find(|earlier| conditions.cascade && earlier.plan.is_in_the_ball_of(plan));
        let skip: Vec<bool> = before.map_or(Vec::new(), |before| {
            let outcomes = before.attacked.outcomes.iter();
            outcomes.map(|outcome| outcome.fooled).collect()
        });
        let ball = classifier.ball(plan.norm, plan.epsilon);
        let run = Run {
            attack: plan.attack,
            aim: plan.aim,
            ball,
            classes,
            targeted: plan.target.is_some(),
            budget: plan.budget,
            total: conditions.total,
            skip: &skip,
            seed: conditions.seed,
            progress: conditions.progress,
            page: conditions.journal.map(|journal| Page {
                journal,
                attack: number,
            }),
        };
        let mut attacked = attack(classifier, inputs, &run)?;
        if let Some(before) = before {
            attacked.take_over(&before.attacked, &skip, classifier.input_len());
        }
        attacks.push(AttackResult {
            threat: Threat::of(plan.attack.access()),
            plan: *plan,
            ball,
            robust: withstood(&clean, labels, plan, &attacked.outcomes),
            attacked,
        });
    }
    Ok(Evaluation { clean, attacks })
}

/// What several attacks in one ball come to together: a sample withstands if it withstands them all. Its input is that of the
/// first attack that won, its cost that of all.
pub fn ensemble(
    name: &'static str,
    members: &[&AttackResult],
    input_len: usize,
) -> Option<AttackResult> {
    let (first, rest) = members.split_first()?;
    let mut together = (*first).clone();
    together.plan.name = name;
    for member in rest {
        let better: Vec<bool> = member
            .attacked
            .outcomes
            .iter()
            .zip(&together.attacked.outcomes)
            .map(|(theirs, ours)| theirs.fooled && !ours.fooled)
            .collect();
        let spent: Vec<(u64, u64)> = together
            .attacked
            .outcomes
            .iter()
            .zip(&member.attacked.outcomes)
            .map(|(a, b)| (a.queries + b.queries, a.gradients + b.gradients))
            .collect();
        together
            .attacked
            .take_over(&member.attacked, &better, input_len);
        for (outcome, (queries, gradients)) in together.attacked.outcomes.iter_mut().zip(spent) {
            (outcome.queries, outcome.gradients) = (queries, gradients);
        }
        for (ours, theirs) in together.robust.iter_mut().zip(&member.robust) {
            *ours &= theirs;
        }
        if member.threat == Threat::WhiteBox {
            together.threat = Threat::WhiteBox;
        }
    }
    Some(together)
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
