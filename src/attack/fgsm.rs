//! The fast gradient (sign) method: Goodfellow, Shlens, Szegedy, "Explaining and harnessing adversarial
//! examples" (2014), section 4: `x' = x + epsilon * sign(grad_x L(x, label))`, cut to the box. In the l2 norm
//! the step is `epsilon * grad / |grad|`. It has no parameters, so no defaults.

use super::Ball;
use super::ball::Norm;
use crate::loss::Objective;
use crate::threat::{Element, GradientOracle};

/// One step. Costs one gradient and one further query. The result is the point after the step, whether it fools or not;
/// returns its label.
///
/// # Errors
/// The oracle's.
pub fn fgsm<E: Element, O: GradientOracle<E>>(
    oracle: &mut O,
    ball: &Ball,
    objective: Objective,
    x: &[E],
    out: &mut [E],
) -> Result<usize, O::Error> {
    let gradient = oracle.gradient(x, objective)?.input;
    let scale = ball.direction_scale(gradient);
    for ((o, x), &g) in out.iter_mut().zip(x).zip(gradient) {
        let x = x.to_f32();
        let step = ball.epsilon * ball.direction(g, scale);
        *o = match (ball.norm, E::LATTICE) {
            // towards x, so that the ball is not left
            (Norm::L2 | Norm::L1 | Norm::L0, true) => {
                E::from_f32((x + libm::truncf(step)).min(ball.high).max(ball.low))
            }
            (Norm::Linf, true) => E::from_f32(ball.clip(x + libm::truncf(step), x)),
            (_, false) => E::from_f32((x + step).min(ball.high).max(ball.low)),
        };
    }
    oracle.classify(out)
}
