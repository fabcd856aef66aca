//! Natural evolution strategies: Ilyas, Engstrom, Athalye, Lin, "Black-box adversarial attacks with limited queries and
//! information" (2018), section 2.1 and algorithm 1: the gradient is estimated from scores at pairs of probes
//! `x + sigma u` and `x - sigma u` with normal `u`, and projected gradient steps follow it.
//!
//! Defaults: 50 probes of deviation 0.001 of the box (the paper's), momentum 0.9 (the authors' code), and steps of 0.3 epsilon up the
//! margin; see [`Spec::nes`](super::Spec::nes).
//!
//! Probes are moved into the ball and the box, onto the grid of an int8 input: a probe that fools is a success.

use super::AttackRng;
use super::ball::{Ball, gaussian};
use crate::loss::Objective;
use crate::threat::{Element, ScoreOracle};
use rand_core::Rng;

/// How much of the last steps' estimates goes on counting (0.9 in the authors' code).
const MOMENTUM: f32 = 0.9;

/// Parameters of [`nes`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Nes {
    /// Where to search.
    pub ball: Ball,
    /// Length of a step, in the units of epsilon.
    pub step: f32,
    /// Steps.
    pub steps: u16,
    /// Pairs of probes per step.
    pub pairs: u16,
    /// Standard deviation of the probes, in the units of epsilon.
    pub sigma: f32,
}

impl Nes {
    /// Elements of scratch for [`nes`].
    pub const fn scratch_len(n: usize, classes: usize) -> usize {
        classes + 4 * n
    }
}

/// Searches until an input meets the goal or all steps are made. `out` receives that input, or else the last iterate;
/// returns its label. Costs at most `steps * (2 pairs + 1)` queries and one more. `state` is the generator and at least
/// [`Nes::scratch_len`] elements.
///
/// # Errors
/// The oracle's.
///
/// # Panics
/// Slices shorter than said.
pub fn nes<E: Element, O: ScoreOracle<E>>(
    oracle: &mut O,
    parameters: &Nes,
    objective: Objective,
    x: &[E],
    out: &mut [E],
    state: (&mut AttackRng, &mut [f32]),
) -> Result<usize, O::Error> {
    let Nes {
        ball,
        step,
        steps,
        pairs,
        sigma,
    } = *parameters;
    let (rng, scratch) = state;
    let n = x.len();
    let (scores, scratch) = scratch.split_at_mut(oracle.classes());
    let (iterate, scratch) = scratch.split_at_mut(n);
    let (gradient, scratch) = scratch.split_at_mut(n);
    let (normal, probe) = scratch.split_at_mut(n);
    let probe = &mut probe[..n];
    for (v, x) in iterate.iter_mut().zip(x) {
        *v = x.to_f32();
    }
    gradient.fill(0.0);
    ball.place(iterate, x, out);
    for _ in 0..steps {
        let label = oracle.classify(out)?;
        if objective.goal.is_met(label) {
            return Ok(label);
        }
        gradient.iter_mut().for_each(|g| *g *= MOMENTUM);
        for _ in 0..pairs {
            let base = rng.next_u32();
            for (i, u) in normal.iter_mut().enumerate() {
                *u = gaussian(base, i as u32);
            }
            let mut slope = 0.0;
            for sign in [1.0, -1.0] {
                for ((p, v), u) in probe.iter_mut().zip(iterate.iter()).zip(normal.iter()) {
                    *p = v + sign * sigma * u;
                }
                ball.place(probe, x, out);
                let label = oracle.scores(out, scores)?;
                if objective.goal.is_met(label) {
                    return Ok(label);
                }
                slope += sign * objective.differentiate(scores);
            }
            for (g, u) in gradient.iter_mut().zip(normal.iter()) {
                *g += slope * u;
            }
        }
        let scale = ball.direction_scale(gradient);
        for (v, &g) in iterate.iter_mut().zip(gradient.iter()) {
            *v += step * ball.direction(g, scale);
        }
        ball.place(iterate, x, out);
    }
    oracle.classify(out)
}
