//! Attacks that are crafted on the float model and tried on the int8 model that was made of it (a gray box): how often
//! success is lost in rounding and in other arithmetic.

use crate::attack::catalog::norm_name;
use crate::attack::{Attacked, Run, attack, norms};
use crate::classifier::{Answer, Classifier, Grid, Inputs};
use crate::document;
use crate::document::summary::{decimal, share_of};
use crate::evaluate::{AttackResult, Plan, Threat, withstood};
use foolproof::attack::{AttackError, Ball, Norm, Outcome};
use foolproof::loss::Goal;
use foolproof::session::SessionError;
use foolproof::threat::Budget;

/// The float model and the model under attack, on the same samples.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// The model under attack.
    pub target: &'a Classifier<'a>,
    /// The samples as it takes them.
    pub inputs: &'a Inputs,
    /// What it says about them.
    pub clean: &'a [Answer],
    /// The float model. It takes the same real values.
    pub float: &'a Classifier<'a>,
    /// What that says about the same real values.
    pub float_clean: &'a [Answer],
    /// The right labels.
    pub labels: &'a [usize],
}

/// One attack, on both models.
#[derive(Clone, Debug)]
pub struct Transferred {
    /// The attack on the float model.
    pub on_float: AttackResult,
    /// Its adversarial inputs, rounded to the target's grid, on the target.
    pub on_target: AttackResult,
}

/// Crafts on the float model, inside the same ball and box as an attack on the target has, and tries the result.
///
/// # Errors
/// As [`attack`].
pub fn transfer(
    pair: &Pair<'_>,
    plan: &Plan,
    (seed, total): (u64, Budget),
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Transferred, AttackError<SessionError>> {
    let target = pair.target;
    let ball = target.ball(plan.norm, plan.epsilon);
    let reach = match plan.norm {
        Norm::L0 => ball.epsilon,
        _ => ball.epsilon * target.input_scale(),
    };
    let targets: Vec<usize> = match plan.target {
        Some(class) => vec![class; pair.labels.len()],
        None => pair.labels.to_vec(),
    };
    let real = Inputs::F32(target.real(pair.inputs));
    let run = Run {
        attack: plan.attack,
        aim: plan.aim,
        ball: pair.float.ball(plan.norm, reach),
        classes: &targets,
        targeted: plan.target.is_some(),
        budget: plan.budget,
        total,
        skip: &[],
        seed,
        progress,
        page: None,
    };
    let attacked = attack(pair.float, &real, &run)?;
    let on_float = AttackResult {
        threat: Threat::WhiteBox,
        plan: *plan,
        ball: run.ball,
        robust: withstood(pair.float_clean, pair.labels, plan, &attacked.outcomes),
        attacked,
    };
    let inputs = on_grid(pair, &ball, &on_float.attacked.inputs);
    let answers = target.answers(&inputs).map_err(AttackError::Oracle)?;
    // what the budget left out on the float model is not tried either
    let crafted = on_float.attacked.outcomes.iter().map(|o| o.queries > 0);
    let outcomes: Vec<Outcome> = answers
        .iter()
        .zip(&targets)
        .zip(crafted)
        .map(|((answer, &class), crafted)| {
            let goal = match run.targeted {
                true => Goal::Reach(class),
                false => Goal::Avoid(class),
            };
            Outcome {
                label: answer.label,
                fooled: crafted && goal.is_met(answer.label),
                queries: u64::from(crafted),
                gradients: 0,
            }
        })
        .collect();
    let n = target.input_len();
    let norms = norms(&target.real(pair.inputs), &target.real(&inputs), n, 1.0);
    Ok(Transferred {
        on_target: AttackResult {
            threat: Threat::GrayBox,
            plan: Plan {
                name: transferred_name(plan.name),
                ..*plan
            },
            ball,
            robust: withstood(pair.clean, pair.labels, plan, &outcomes),
            attacked: Attacked {
                unfinished: on_float.attacked.unfinished,
                inputs,
                outcomes,
                norms,
            },
        },
        on_float,
    })
}

/// What a transferred attack is called.
fn transferred_name(name: &str) -> &'static str {
    match name {
        "fgsm" => "transfer-fgsm",
        "bim" => "transfer-bim",
        "pgd" => "transfer-pgd",
        _ => "transfer",
    }
}

/// The grid points nearest to real ones; where rounding leaves the ball, the perturbation is shrunk until its rounding is
/// inside.
fn on_grid(pair: &Pair<'_>, ball: &Ball, adversarial: &Inputs) -> Inputs {
    let target = pair.target;
    let real = match adversarial {
        Inputs::F32(real) => real,
        Inputs::I8(_) => return adversarial.clone(),
    };
    let nearest = target.inputs(real);
    let (Inputs::I8(x), Inputs::I8(mut y)) = (pair.inputs, nearest.clone()) else {
        return nearest;
    };
    let n = target.input_len();
    if let Some(grid) = target.form().grid {
        for ((x, y), real) in x.chunks(n).zip(y.chunks_mut(n)).zip(real.chunks(n)) {
            snap(grid, ball, x, y, real);
        }
    }
    Inputs::I8(y)
}

/// Rounds the perturbation from `x` to `real` into `y`, which lies in the ball.
fn snap(grid: Grid, ball: &Ball, x: &[i8], y: &mut [i8], real: &[f32]) {
    let mut shrink = 1.0;
    while !ball.contains(x, y) {
        // reaches 0 in the end, where nothing moves
        shrink = if shrink < 0.01 { 0.0 } else { shrink * 0.97 };
        for ((y, &x), &real) in y.iter_mut().zip(x).zip(real) {
            let steps = shrink * (real - grid.dequantize(x)) / grid.scale;
            *y = (f32::from(x) + steps.round()).clamp(ball.low, ball.high) as i8;
        }
        if shrink == 0.0 {
            return;
        }
    }
}

/// The document's entry.
pub fn summarise(pair: &Pair<'_>, transferred: &Transferred) -> document::Transfer {
    let plan = &transferred.on_float.plan;
    let won = |i: &usize| {
        let right = |answers: &[Answer]| answers[*i].label == pair.labels[*i];
        right(pair.clean)
            && right(pair.float_clean)
            && plan.target != Some(pair.labels[*i])
            && transferred.on_float.attacked.outcomes[*i].fooled
    };
    let won: Vec<usize> = (0..pair.labels.len()).filter(won).collect();
    let carried = won
        .iter()
        .filter(|&&i| transferred.on_target.attacked.outcomes[i].fooled)
        .count();
    document::Transfer {
        attack: plan.name.into(),
        norm: norm_name(plan.norm).into(),
        eps: decimal(plan.epsilon),
        carried_over: share_of(carried, won.len()),
    }
}
