//! One perturbation for all inputs: Moosavi-Dezfooli, Fawzi, Fawzi, Frossard, "Universal adversarial perturbations" (CVPR 2017),
//! found by stochastic gradient ascent as in Shafahi et al., "Universal adversarial training" (AAAI 2020), algorithm 2:
//! `delta <- project(delta + step * direction(sum of grad L(x_i + delta)))`.
//!
//! These are the parts that a chip needs: to apply a perturbation, and to improve it with one input after another, without
//! storing any. [`Spec::universal`](super::Spec::universal) gives them their parameters; the host tools' `universal` fits in
//! batches. The default step (a quarter of epsilon, falling to nearly zero over the passes) is ours: the authors' is constant, and a falling one
//! settles.

use super::ball::{Norm, length};
use super::{Ball, Spec};
use crate::loss::Objective;
use crate::threat::{Element, GradientOracle, LabelOracle};

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

/// The step of pass `pass` (counted from 0) of an attack: from [`Spec::step`] down to nearly zero, linearly.
pub fn step_of(spec: &Spec, pass: u16) -> f32 {
    spec.step * (1.0 - f32::from(pass) / f32::from(spec.steps.max(1)))
}

/// A perturbation fitted on one input alone: every pass of `spec` asks once. `out` receives the input with it; returns the label
/// there. `delta` and `v` are scratch, as long as `x`.
///
/// # Errors
/// The oracle's.
pub fn alone<E: Element, O: GradientOracle<E>>(
    oracle: &mut O,
    (spec, objective): (&Spec, Objective),
    x: &[E],
    (delta, v): (&mut [f32], &mut [f32]),
    out: &mut [E],
) -> Result<usize, O::Error> {
    delta.fill(0.0);
    for pass in 0..spec.steps {
        let terms = (&spec.ball, objective, step_of(spec, pass));
        learn(oracle, terms, x, delta, (v, out))?;
    }
    judge(oracle, &spec.ball, delta, x, (v, out))
}

/// The label of `x + delta`, which `out` receives.
///
/// # Errors
/// The oracle's.
pub fn judge<E: Element, O: LabelOracle<E>>(
    oracle: &mut O,
    ball: &Ball,
    delta: &[f32],
    x: &[E],
    (v, out): (&mut [f32], &mut [E]),
) -> Result<usize, O::Error> {
    apply(ball, delta, x, v, out);
    oracle.classify(out)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::{Goal, Loss};
    use crate::threat::{Gradient, LabelOracle, ScoreOracle};

    const BALL: Ball = Ball {
        norm: Norm::Linf,
        epsilon: 0.5,
        low: 0.0,
        high: 1.0,
    };

    /// Two inputs, two classes: `z_1 - z_0 = x_0 - x_1 + bias`.
    struct Tilt {
        bias: f32,
        gradient: [f32; 2],
    }

    impl Tilt {
        fn logits(&self, x: &[f32]) -> [f32; 2] {
            [0.0, x[0] - x[1] + self.bias]
        }
    }

    impl LabelOracle<f32> for Tilt {
        type Error = core::convert::Infallible;
        fn input_len(&self) -> usize {
            2
        }
        fn classes(&self) -> usize {
            2
        }
        fn classify(&mut self, x: &[f32]) -> Result<usize, Self::Error> {
            Ok(crate::loss::argmax(&self.logits(x)))
        }
    }

    impl ScoreOracle<f32> for Tilt {
        fn scores(&mut self, x: &[f32], scores: &mut [f32]) -> Result<usize, Self::Error> {
            scores.copy_from_slice(&self.logits(x));
            self.classify(x)
        }
    }

    impl GradientOracle<f32> for Tilt {
        fn gradient(
            &mut self,
            x: &[f32],
            objective: Objective,
        ) -> Result<Gradient<'_>, Self::Error> {
            let label = self.classify(x)?;
            let mut slope = self.logits(x);
            let value = objective.differentiate(&mut slope);
            self.gradient = [slope[1], -slope[1]];
            Ok(Gradient {
                label,
                value,
                input: &self.gradient,
            })
        }
    }

    #[test]
    fn one_perturbation_is_learned_from_one_input_after_the_other() {
        let objective = Objective {
            loss: Loss::Margin,
            goal: Goal::Avoid(0),
        };
        let mut oracle = Tilt {
            bias: -0.7,
            gradient: [0.0; 2],
        };
        let inputs = [[0.3, 0.3], [0.5, 0.6], [0.4, 0.4]];
        let mut delta = [0.0; 2];
        let (mut v, mut out) = ([0.0; 2], [0.0; 2]);
        let mut pass = |delta: &mut [f32; 2]| {
            inputs
                .iter()
                .filter(|x| {
                    let scratch = (&mut v[..], &mut out[..]);
                    let terms = (&BALL, objective, 0.1);
                    learn(&mut oracle, terms, x.as_slice(), delta, scratch) == Ok(1)
                })
                .count()
        };
        assert_eq!(pass(&mut delta), 0);
        pass(&mut delta);
        assert_eq!(pass(&mut delta), 3, "{delta:?}");
        // what fools already does not pull any further
        let learned = delta;
        pass(&mut delta);
        assert_eq!(delta, learned);
        assert!(delta[0] > 0.3 && delta[1] < -0.3);
    }

    #[test]
    fn on_one_input_it_is_an_attack_like_any_other() {
        let spec = Spec::universal(BALL, 8);
        let mut oracle = Tilt {
            bias: -0.7,
            gradient: [0.0; 2],
        };
        let mut scratch = [9.0; 4];
        assert_eq!(spec.scratch_len(2, 2), scratch.len());
        let task = super::super::Task {
            x: &[0.4, 0.4],
            class: 0,
            seed: 0,
            sample: 0,
            scratch: &mut scratch,
        };
        let mut out = [0.0; 2];
        let found = spec.run(&mut oracle, task, &mut out).unwrap();
        assert!(found.fooled && out[0] > 0.6 && out[1] < 0.2, "{out:?}");
        // a question in every pass, and one about what came of them
        assert_eq!((found.queries, found.gradients), (9, 8));
        assert_eq!(
            [0, 4, 7].map(|pass| step_of(&spec, pass)),
            [0.125, 0.0625, 0.015625]
        );
    }

    #[test]
    fn perturbations_and_what_they_are_applied_to_stay_inside() {
        let mut delta = [3.0, -0.2];
        into_ball(&BALL, &mut delta);
        assert_eq!(delta, [0.5, -0.2]);
        let round = Ball {
            norm: Norm::L2,
            ..BALL
        };
        let mut delta = [3.0, -4.0];
        into_ball(&round, &mut delta);
        assert!((delta[0] - 0.3).abs() < 1e-6 && (delta[1] + 0.4).abs() < 1e-6);
        let (mut v, mut out) = ([0.0; 2], [0.0; 2]);
        apply(&BALL, &[0.5, -0.2], &[0.9, 0.9], &mut v, &mut out);
        assert!(out[0] == 1.0 && (out[1] - 0.7).abs() < 1e-6);
        let whole = Ball {
            epsilon: 3.0,
            low: -128.0,
            high: 127.0,
            ..BALL
        };
        let mut out = [0_i8; 2];
        apply(&whole, &[2.6, -1.4], &[126, 5], &mut v, &mut out);
        assert_eq!(out, [127, 4]);
    }
}
