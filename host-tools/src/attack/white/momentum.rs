//! Momentum iterative FGSM: Dong et al., "Boosting adversarial attacks with momentum" (CVPR 2018), algorithm 1: the direction is a
//! sum of all gradients so far, each over its l1 norm, the older the fainter: `g <- mu g + grad / |grad|_1` (equation 6),
//! `x <- x + alpha sign(g)` (equation 7); in the l2 norm `alpha g / |g|_2` (equation 9). It transfers to other models better than
//! plain iteration. Defaults are the paper's: 10 steps, decay 1, step `epsilon / steps`, from the sample itself.
//!
//! Costs one gradient a step and a last query.

use super::White;
use super::hyperplane::dual;
use crate::attack::{Access, Attack, Entry, Problem, Settings};
use crate::error::Result;
use foolproof::attack::Norm;
use foolproof::loss::{Loss, Objective};
use foolproof::threat::{Element, GradientOracle};

/// Momentum iterative FGSM with its settings.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Momentum {
    /// Steps.
    pub steps: u16,
    /// How much of the older gradients stays.
    pub decay: f32,
    /// Length of a step, real units; otherwise `epsilon / steps`.
    pub step: Option<f32>,
}

/// `mi-fgsm`.
pub const ENTRY: Entry = Entry::new("mi-fgsm", Access::Gradients, &[Norm::Linf, Norm::L2], make)
    .about("iterated FGSM with momentum (Dong et al. 2018)")
    .with(&[("steps", "10"), ("decay", "1"), ("step", "eps / steps")]);

fn make(s: &mut Settings) -> Result<Attack> {
    Ok(Attack::White(White::Momentum(Momentum {
        steps: s.whole("steps", 10, 1, 10_000)? as u16,
        decay: s.number("decay", 1.0, 0.0, 1e3)? as f32,
        step: s.given("step", 0.0, 1e9)?,
    })))
}

impl Momentum {
    pub(super) fn run<E: Element, O: GradientOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
    ) -> std::result::Result<(), O::Error> {
        let ball = &problem.ball;
        let step = match self.step {
            Some(real) => real / problem.unit,
            None => ball.epsilon / f32::from(self.steps),
        };
        let objective = Objective {
            loss: Loss::CrossEntropy,
            goal: problem.goal,
        };
        let mut v = problem.real();
        let mut seen = problem.x.to_vec();
        let mut sum = vec![0.0; v.len()];
        for _ in 0..self.steps {
            let gradient = oracle.gradient(&seen, objective)?.input;
            // the linf norm's dual is the l1 norm
            let size = dual(Norm::Linf, gradient).max(f32::MIN_POSITIVE);
            for (sum, &g) in sum.iter_mut().zip(gradient) {
                *sum = self.decay * *sum + g / size;
            }
            let length = match ball.norm {
                Norm::Linf => 1.0,
                _ => dual(Norm::L2, &sum).max(f32::MIN_POSITIVE),
            };
            for (v, &sum) in v.iter_mut().zip(&sum) {
                *v += match ball.norm {
                    Norm::Linf if sum > 0.0 => step,
                    Norm::Linf if sum < 0.0 => -step,
                    Norm::Linf => 0.0,
                    _ => step * sum / length,
                };
            }
            problem.place(&mut v, &mut seen);
        }
        oracle.classify(&seen)?;
        Ok(())
    }
}
