//! SPSA: Uesato, O'Donoghue, van den Oord, Kohli, "Adversarial risk and the dangers of evaluating against weak attacks"
//! (2018), section 3.3 and algorithm 1: the gradient of the margin is estimated from pairs of probes at random corners
//! (Spall 1992), Adam follows it, and every iterate is projected into the ball.
//!
//! Probes are 0.01 of the box away, as in the paper (on the grid one step at least). It takes 2048 probes a step and a learning
//! rate of 0.01; the defaults here are 25 pairs and 0.03, which fool more with budgets of thousands.

use super::super::problem::Problem;
use super::super::random::below;
use super::asked::{Adam, Asked};
use foolproof::attack::AttackRng;
use foolproof::loss::Loss;
use foolproof::threat::{Element, ScoreOracle};

/// Simultaneous perturbation stochastic approximation.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spsa {
    /// The most that is asked.
    pub queries: u32,
    /// Pairs of probes per step.
    pub pairs: u32,
    /// Distance of a probe in every element, a share of the box.
    pub delta: f32,
    /// Learning rate, a share of the box.
    pub rate: f32,
}

impl Spsa {
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
        let width = problem.ball.high - problem.ball.low;
        let least = if E::LATTICE { 1.0 } else { 0.0 };
        let delta = (self.delta * width).max(least);
        let mut asked = Asked::new(oracle, problem, Loss::Margin);
        let n = problem.x.len();
        let mut adam = Adam::new(n, self.rate * width);
        let mut iterate = problem.real();
        let mut gradient = vec![0.0; n];
        let steps = (self.queries / (2 * self.pairs + 1)).max(1);
        for _ in 0..steps {
            asked.value(&mut iterate)?;
            gradient.fill(0.0);
            for _ in 0..self.pairs {
                let corner: Vec<f32> = (0..n).map(|_| below(rng, 2) as f32 * 2.0 - 1.0).collect();
                let mut slope = 0.0;
                for sign in [1.0, -1.0] {
                    let pairs = iterate.iter().zip(&corner);
                    let mut probe: Vec<f32> = pairs.map(|(v, c)| v + sign * delta * c).collect();
                    slope += sign * asked.value(&mut probe)?;
                }
                let slope = slope / (2.0 * delta * self.pairs as f32);
                for (g, c) in gradient.iter_mut().zip(&corner) {
                    *g += slope * c;
                }
            }
            for (i, v) in iterate.iter_mut().enumerate() {
                *v += adam.step(i, gradient[i]);
            }
        }
        asked.value(&mut iterate)?;
        Ok(())
    }
}
