//! ZOO: Chen, Zhang, Sharma, Yi, Hsieh, "ZOO: zeroth order optimization based black-box attacks" (2017), algorithms 1 and 2
//! (ZOO-ADAM): the objective of Carlini and Wagner, `|x - x0|^2 + c max(-margin, -kappa)` (equations 4 and 5), descended in
//! some random elements at a time, each by the symmetric difference quotient (equation 6).
//!
//! Defaults: 128 elements a step and a quotient over 0.0001 of the box (section 3.3; a step on the grid); `c` from 0.01 by
//! bisection and factors of ten (as Carlini and Wagner). The learning rate is 0.05 of the box instead of 0.01, since the default
//! budget is 20,000 queries and not millions. The box is kept by cutting, not by a change of variables.

use super::super::problem::Problem;
use super::super::random::below;
use super::asked::{Adam, Asked};
use foolproof::attack::AttackRng;
use foolproof::loss::Loss;
use foolproof::threat::{Element, ScoreOracle};

/// Zeroth order optimization.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Zoo {
    /// The most that is asked.
    pub queries: u32,
    /// Trials of `c`.
    pub binary_steps: u32,
    /// The first `c`.
    pub c: f32,
    /// Confidence, in the units of the scores.
    pub kappa: f32,
    /// Learning rate, a share of the box.
    pub rate: f32,
    /// Elements per step.
    pub batch: u32,
}

impl Zoo {
    /// Attacks one sample.
    ///
    /// # Errors
    /// The oracle's, which is also how a hunt ends.
    pub fn run<E: Element, O: ScoreOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
        rng: &mut AttackRng,
    ) -> Result<(), O::Error> {
        let n = problem.x.len();
        let batch = (self.batch as usize).clamp(1, n);
        let steps = self.queries / self.binary_steps / (2 * batch as u32 + 1);
        let mut asked = Asked::new(oracle, problem, Loss::Margin);
        let (mut least, mut most, mut c) = (0.0, f32::INFINITY, self.c);
        for _ in 0..self.binary_steps {
            let fooled = self.descend(&mut asked, problem, (c, steps.max(1)), rng)?;
            match fooled {
                true => most = c,
                false => least = c,
            }
            c = match most.is_finite() {
                true => 0.5 * (least + most),
                false => 10.0 * c,
            };
        }
        Ok(())
    }

    /// Descends with one `c`; whether a point fooled.
    fn descend<E: Element, O: ScoreOracle<E>>(
        &self,
        asked: &mut Asked<'_, '_, E, O>,
        problem: &Problem<'_, E>,
        (c, steps): (f32, u32),
        rng: &mut AttackRng,
    ) -> Result<bool, O::Error> {
        let x = problem.real();
        let n = x.len();
        let width = problem.ball.high - problem.ball.low;
        let quotient = match E::LATTICE {
            true => 1.0,
            false => 1e-4 * width,
        };
        let mut adam = Adam::new(n, self.rate * width);
        let mut iterate = x.clone();
        let mut order: Vec<usize> = (0..n).collect();
        let mut fooled = false;
        for _ in 0..steps {
            let margin = asked.value(&mut iterate)?;
            fooled |= margin > 0.0;
            for i in 0..(self.batch as usize).clamp(1, n) {
                order.swap(i, i + below(rng, n - i));
                let at = order[i];
                // the hinge is flat where the margin is wide enough
                let slope = match margin < self.kappa {
                    true => slope(asked, &iterate, at, quotient)?,
                    false => 0.0,
                };
                let real = 2.0 * problem.unit * problem.unit * (iterate[at] - x[at]);
                let uphill = c * slope - real;
                iterate[at] += adam.step(at, uphill);
            }
        }
        fooled |= asked.value(&mut iterate)? > 0.0;
        Ok(fooled)
    }
}

/// The slope of the margin along one element, per unit of it.
fn slope<E: Element, O: ScoreOracle<E>>(
    asked: &mut Asked<'_, '_, E, O>,
    iterate: &[f32],
    i: usize,
    quotient: f32,
) -> Result<f32, O::Error> {
    let mut ends = [(0.0, 0.0); 2];
    for (end, sign) in ends.iter_mut().zip([1.0, -1.0]) {
        let mut probe = iterate.to_vec();
        probe[i] += sign * quotient;
        *end = (asked.value(&mut probe)?, asked.seen(i));
    }
    let [(up, above), (down, below)] = ends;
    let apart = above - below;
    Ok(if apart > 0.0 {
        (up - down) / apart
    } else {
        0.0
    })
}
