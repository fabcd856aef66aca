//! Iterated FGSM with projection: Kurakin, Goodfellow, Bengio, "Adversarial examples in the physical world"
//! (2016), equation 2 (BIM), and with random starts Madry et al., "Towards deep learning models resistant to
//! adversarial attacks" (2017), section 2.1 (PGD): `x_i = clip_eps(x_{i-1} + step * sign(grad L(x_{i-1})))`. In the l1 norm a step
//! is shared by the elements with the largest slopes, one in a hundred of those that the box lets move: sparse l1 descent
//! (Tramer and Boneh, "Adversarial training and robustness for multiple perturbations" (2019), section 3.1 and algorithm 1, q = 99 %).
//!
//! Default step: `2.5 epsilon / steps`, with which any point of the ball can be reached from any other (Madry et al., section 5).

use super::AttackRng;
use super::ball::{Ball, Norm, sign};
use crate::loss::Objective;
use crate::threat::{Element, GradientOracle};

/// Parameters of [`pgd`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pgd {
    /// Where to search.
    pub ball: Ball,
    /// Length of a step, in the units of epsilon.
    pub step: f32,
    /// Steps per start.
    pub steps: u16,
    /// Starts.
    pub starts: u16,
    /// Whether the first start is random too.
    pub random_start: bool,
}

/// Searches until a point fools the oracle or all starts are used. `out` receives that point, or else the last one;
/// returns its label. An input that already meets the goal without a random start is returned as it is. Costs at
/// most `starts * (steps + 1)` queries, of which `starts * steps` with a gradient.
///
/// In the l2 and l1 norms the second element of `state`, as long as `x`, holds the iterate before it is
/// rounded to the lattice: small steps add up instead of being lost.
///
/// # Errors
/// The oracle's.
pub fn pgd<E: Element, O: GradientOracle<E>>(
    oracle: &mut O,
    parameters: &Pgd,
    objective: Objective,
    x: &[E],
    out: &mut [E],
    state: (&mut AttackRng, &mut [f32]),
) -> Result<usize, O::Error> {
    let ball = &parameters.ball;
    let (rng, shadow) = state;
    let mut label = 0;
    for start in 0..parameters.starts {
        let random = start > 0 || parameters.random_start;
        begin(ball, x, random.then_some(&mut *rng), out, shadow);
        for _ in 0..parameters.steps {
            let answer = oracle.gradient(out, objective)?;
            if objective.goal.is_met(answer.label) {
                return Ok(answer.label);
            }
            advance(ball, parameters.step, answer.input, x, out, shadow);
        }
        label = oracle.classify(out)?;
        if objective.goal.is_met(label) {
            break;
        }
    }
    Ok(label)
}

fn begin<E: Element>(
    ball: &Ball,
    x: &[E],
    rng: Option<&mut AttackRng>,
    out: &mut [E],
    shadow: &mut [f32],
) {
    match (ball.norm, rng) {
        (Norm::Linf | Norm::L0, None) => out.copy_from_slice(x),
        (Norm::Linf | Norm::L0, Some(rng)) => {
            ball.random_start(x, rng, |i, v| out[i] = E::from_f32(v));
        }
        (Norm::L2 | Norm::L1, rng) => {
            match rng {
                Some(rng) => ball.random_start(x, rng, |i, v| shadow[i] = v),
                None => {
                    for (s, x) in shadow.iter_mut().zip(x) {
                        *s = x.to_f32();
                    }
                }
            }
            ball.place(shadow, x, out);
        }
    }
}

fn advance<E: Element>(
    ball: &Ball,
    step: f32,
    gradient: &[f32],
    x: &[E],
    out: &mut [E],
    shadow: &mut [f32],
) {
    let scale = ball.direction_scale(gradient);
    match ball.norm {
        Norm::Linf | Norm::L0 => {
            for ((o, x), &g) in out.iter_mut().zip(x).zip(gradient) {
                let moved = o.to_f32() + step * ball.direction(g, scale);
                *o = E::from_f32(toward(ball.clip(moved, x.to_f32()), x));
            }
        }
        Norm::L2 => {
            for (s, &g) in shadow.iter_mut().zip(gradient) {
                *s += step * ball.direction(g, scale);
            }
            ball.place(shadow, x, out);
        }
        Norm::L1 => {
            step_along_largest(ball, step, gradient, shadow);
            ball.place(shadow, x, out);
        }
    }
}

/// One in so many elements moves in the l1 norm.
const SPARSITY: usize = 100;

/// A step of that l1 length, shared by the elements with the largest slopes of those that the box lets move.
fn step_along_largest(ball: &Ball, step: f32, gradient: &[f32], v: &mut [f32]) {
    // the slope of an element at the end of its box does not count
    let slope = |g: f32, v: f32| match (g > 0.0 && v < ball.high) || (g < 0.0 && v > ball.low) {
        true => libm::fabsf(g),
        false => 0.0,
    };
    let largest = gradient
        .iter()
        .zip(v.iter())
        .map(|(g, v)| slope(*g, *v))
        .fold(0.0_f32, f32::max);
    if largest <= 0.0 || !largest.is_finite() {
        return;
    }
    let count = |v: &[f32], least: f32| {
        let slopes = gradient.iter().zip(v).map(|(g, v)| slope(*g, *v));
        slopes.filter(|&slope| slope >= least).count()
    };
    let most = gradient.len().div_ceil(SPARSITY);
    // a threshold that few enough pass, found without sorting; the largest slopes always pass
    let (mut below, mut least) = (0.0, largest);
    for _ in 0..30 {
        let middle = 0.5 * (below + least);
        match count(v, middle) > most {
            true => below = middle,
            false => least = middle,
        }
    }
    let each = step / count(v, least).max(1) as f32;
    for (v, &g) in v.iter_mut().zip(gradient) {
        if slope(g, *v) >= least {
            *v += each * sign(g);
        }
    }
}

/// On the lattice, the whole step nearest to `v` on the side of `x`: stays in a ball of fractional radius.
fn toward<E: Element>(v: f32, x: &E) -> f32 {
    match E::LATTICE {
        true => x.to_f32() + libm::truncf(v - x.to_f32()),
        false => v,
    }
}
