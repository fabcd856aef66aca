//! The fast gradient (sign) method: Goodfellow, Shlens, Szegedy, "Explaining and harnessing adversarial
//! examples" (2014), section 4: `x' = x + epsilon * sign(grad_x L(x, label))`, cut to the box. In the l2 norm
//! the step is `epsilon * grad / |grad|`. In the l1 norm it is what gains most by the same linear view of the loss: the elements
//! with the largest slopes go to the end of the box, one after the other, until epsilon is spent. It has no parameters, so no
//! defaults.

use super::Ball;
use super::ball::{Norm, sign};
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
    if ball.norm == Norm::L1 {
        largest_first(ball, gradient, x, out);
        return oracle.classify(out);
    }
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

/// Moves the elements with the largest slopes to the end of the box while their way fits epsilon, and one of the next largest
/// for what is left (on the lattice whole steps).
fn largest_first<E: Element>(ball: &Ball, gradient: &[f32], x: &[E], out: &mut [E]) {
    let way = |g: f32, x: f32| match g {
        g if g > 0.0 => (ball.high - x).max(0.0),
        g if g < 0.0 => (x - ball.low).max(0.0),
        _ => 0.0,
    };
    let length_above = |threshold: f32| -> f64 {
        let movers = gradient
            .iter()
            .zip(x)
            .filter(|(g, _)| libm::fabsf(**g) > threshold);
        movers.map(|(g, x)| f64::from(way(*g, x.to_f32()))).sum()
    };
    let largest = |most: f32, g: &f32| most.max(libm::fabsf(*g));
    // all slopes above `enough` fit, all above `below` do not
    let (mut below, mut enough) = (0.0_f32, gradient.iter().fold(0.0, largest));
    if length_above(0.0) <= f64::from(ball.epsilon) {
        enough = 0.0;
    }
    for _ in 0..40 {
        let middle = 0.5 * (below + enough);
        match length_above(middle) > f64::from(ball.epsilon) {
            true => below = middle,
            false => enough = middle,
        }
    }
    let mut left = (f64::from(ball.epsilon) - length_above(enough)).max(0.0) as f32;
    for ((o, x), &g) in out.iter_mut().zip(x).zip(gradient) {
        let x = x.to_f32();
        let size = libm::fabsf(g);
        let mut length = 0.0;
        if size > enough {
            length = way(g, x);
        } else if size > below {
            length = way(g, x).min(left);
            length = if E::LATTICE {
                libm::truncf(length)
            } else {
                length
            };
            left -= length;
        }
        *o = E::from_f32(x + sign(g) * length);
    }
}
