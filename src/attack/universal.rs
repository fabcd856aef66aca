//! One perturbation for all inputs: Moosavi-Dezfooli, Fawzi, Fawzi, Frossard, "Universal adversarial perturbations" (CVPR 2017),
//! found by stochastic gradient ascent as in Shafahi et al., "Universal adversarial training" (AAAI 2020), algorithm 2:
//! `delta <- project(delta + step * direction(sum of grad L(x_i + delta)))`.
//!
//! These are the two parts that a chip needs: to apply a perturbation, and to improve it with one input after another, without
//! storing any. They have no parameters; what drives them has (`universal` of the host tools).

use super::Ball;
use super::ball::{Norm, length};
use crate::loss::Objective;
use crate::threat::{Element, GradientOracle};

/// Writes the input nearest to `x + delta` that the device can see inside the ball and the box into `out`. `v` is scratch, as
/// long as `x`.
pub fn apply<E: Element>(ball: &Ball, delta: &[f32], x: &[E], v: &mut [f32], out: &mut [E]) {
    for ((v, x), d) in v.iter_mut().zip(x).zip(delta) {
        *v = x.to_f32() + d;
    }
    ball.place(v, x, out);
}

/// One step of that length along a gradient (or a sum of them), back into the ball. In the l2 norm along the gradient itself,
/// otherwise along its sign. In the linf and l2 norms the result is the nearest point of the ball.
pub fn climb(ball: &Ball, step: f32, gradient: &[f32], delta: &mut [f32]) {
    let scale = ball.direction_scale(gradient);
    for (d, &g) in delta.iter_mut().zip(gradient) {
        *d += step * ball.direction(g, scale);
    }
    into_ball(ball, delta);
}

/// Moves a perturbation into the ball.
pub fn into_ball(ball: &Ball, delta: &mut [f32]) {
    match ball.norm {
        Norm::L2 => {
            let size = length(delta.iter().copied());
            if size > ball.epsilon {
                delta.iter_mut().for_each(|d| *d *= ball.epsilon / size);
            }
        }
        _ => {
            for d in delta.iter_mut() {
                *d = d.min(ball.epsilon).max(-ball.epsilon);
            }
        }
    }
}

/// Asks about `x + delta`, and takes a step where the goal is not met there. Returns the label. `v` and `out` are scratch, as
/// long as `x`.
///
/// # Errors
/// The oracle's.
pub fn learn<E: Element, O: GradientOracle<E>>(
    oracle: &mut O,
    (ball, objective, step): (&Ball, Objective, f32),
    x: &[E],
    delta: &mut [f32],
    (v, out): (&mut [f32], &mut [E]),
) -> Result<usize, O::Error> {
    apply(ball, delta, x, v, out);
    let answer = oracle.gradient(out, objective)?;
    if !objective.goal.is_met(answer.label) {
        climb(ball, step, answer.input, delta);
    }
    Ok(answer.label)
}
