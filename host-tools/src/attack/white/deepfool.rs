//! DeepFool: Moosavi-Dezfooli, Fawzi, Frossard, "DeepFool: a simple and accurate method to fool deep neural networks" (CVPR 2016),
//! algorithm 2; in the linf norm with the step of equations 10 and 11 for `p = infinity`.
//!
//! Each iteration takes the shortest step to the nearest of the linearized boundaries; the steps add up, and the sum is taken
//! `1 + overshoot` times. It ends with the first adversarial input, which is near but not the nearest. Defaults: overshoot 0.02
//! and 50 iterations as in the authors' code, and the 10 classes that score highest, as there and in Foolbox.
//!
//! Costs per iteration one gradient for each boundary looked at: `candidates - 1`, or one where the goal names a class to
//! reach; and two queries in all.

use super::White;
use super::fab::box_alone;
use super::hyperplane::dual;
use super::rank;
use crate::attack::{Access, Attack, Entry, Problem, Settings};
use crate::error::Result;
use foolproof::attack::Norm;
use foolproof::loss::{Goal, Loss, Objective};
use foolproof::threat::{Element, GradientOracle};

/// DeepFool with its settings.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DeepFool {
    /// Iterations.
    pub steps: u16,
    /// How much further than the linear boundary the sum of the steps goes.
    pub overshoot: f32,
    /// Classes looked at, the sample's own included.
    pub candidates: u16,
}

/// `deepfool`.
pub const ENTRY: Entry = Entry::new("deepfool", Access::Gradients, &[Norm::L2, Norm::Linf], make)
    .about("steps to the nearest linear boundary (Moosavi-Dezfooli et al. 2016)")
    .with(&[("steps", "50"), ("overshoot", "0.02"), ("candidates", "10")])
    .nearest();

fn make(s: &mut Settings) -> Result<Attack> {
    Ok(Attack::White(White::DeepFool(DeepFool {
        steps: s.whole("steps", 50, 1, 10_000)? as u16,
        overshoot: s.number("overshoot", 0.02, 0.0, 10.0)? as f32,
        candidates: s.whole("candidates", 10, 2, 10_000)? as u16,
    })))
}

impl Default for DeepFool {
    fn default() -> DeepFool {
        DeepFool {
            steps: 50,
            overshoot: 0.02,
            candidates: 10,
        }
    }
}

impl DeepFool {
    pub(crate) fn run<E: Element, O: GradientOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
    ) -> std::result::Result<(), O::Error> {
        let mut scores = vec![0.0; problem.classes];
        let label = oracle.scores(problem.x, &mut scores)?;
        if problem.goal.is_met(label) {
            return Ok(());
        }
        let boundaries: Vec<Objective> = match problem.goal {
            goal @ Goal::Reach(_) => vec![Objective {
                loss: Loss::Margin,
                goal,
            }],
            goal @ Goal::Avoid(class) => {
                let others = rank::others(&scores, class);
                let others = others.iter().take(usize::from(self.candidates) - 1);
                others
                    .map(|&other| Objective {
                        loss: Loss::Difference(other as u16),
                        goal,
                    })
                    .collect()
            }
        };
        let sample = problem.real();
        let ball = box_alone(&problem.ball);
        let mut seen = problem.x.to_vec();
        let mut total = vec![0.0; sample.len()];
        for _ in 0..self.steps {
            let mut nearest: Option<(f32, Vec<f32>)> = None;
            for &boundary in &boundaries {
                let answer = oracle.gradient(&seen, boundary)?;
                if problem.goal.is_met(answer.label) {
                    return Ok(());
                }
                let w: Vec<f32> = answer.input.iter().map(|g| g * problem.unit).collect();
                let distance = answer.value.abs() / dual(ball.norm, &w);
                let is_nearer = nearest.as_ref().is_none_or(|(least, _)| distance < *least);
                if distance.is_finite() && is_nearer {
                    nearest = Some((distance, w));
                }
            }
            let Some((distance, w)) = nearest else {
                return Ok(());
            };
            // a boundary that was met exactly must still be passed
            let distance = match E::LATTICE {
                true => distance.max(0.5),
                false => distance.max(1e-5 * (ball.high - ball.low)),
            };
            let length = dual(Norm::L2, &w).max(f32::MIN_POSITIVE);
            for (total, &w) in total.iter_mut().zip(&w) {
                *total += match ball.norm {
                    Norm::Linf if w > 0.0 => distance,
                    Norm::Linf if w < 0.0 => -distance,
                    Norm::Linf => 0.0,
                    _ => distance * w / length,
                };
            }
            let mut v: Vec<f32> = (sample.iter().zip(&total))
                .map(|(x, t)| x + (1.0 + self.overshoot) * t)
                .collect();
            ball.place(&mut v, problem.x, &mut seen);
        }
        oracle.classify(&seen)?;
        Ok(())
    }
}
