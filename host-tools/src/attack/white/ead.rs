//! Elastic-net attack: Chen, Sharma, Zhang, Yi, Hsieh, "EAD: elastic-net attacks to deep neural networks via adversarial
//! examples" (2018), algorithm 1 on equation 7: minimise `c f(x') + |x' - x|_2^2 + beta |x' - x|_1` in the box by FISTA,
//! that is gradient steps on the first two terms, shrinkage (equation 8) for the third, and momentum `k / (k + 3)`.
//! `f` is the hinge of Carlini and Wagner. The decision rule is the problem's norm: l1 or l2.
//!
//! Distances are measured in widths of the box. Defaults are those of the paper's section "Experiment setup": 9 searches from
//! c = 0.001, 1000 steps, rate 0.01 that falls as the root of what is left, kappa 0; beta is 0.001 in l2 as there, and 0.01 in
//! l1 as in Foolbox (on 10 images of a reference network 7.2 instead of 10.7). Descents that no longer get better
//! end early, as in the authors' code.

use super::super::catalog::{Access, Entry, Settings};
use super::super::problem::Problem;
use super::super::{Attack, white::White};
use super::penalty::{Hinge, KAPPA, PROBABILITIES, Patience, Scale, Search};
use crate::error::Result;
use foolproof::attack::Norm;
use foolproof::threat::{Element, GradientOracle};

/// Parameters of the attack.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ElasticNet {
    /// Distance is weighed against this.
    pub hinge: Hinge,
    /// Weight of the l1 distance.
    pub beta: f32,
    /// Steps of each descent at most.
    pub steps: u32,
    /// Constants tried.
    pub searches: u32,
    /// Length of the first step.
    pub rate: f32,
    /// The first constant.
    pub constant: f32,
}

/// Its line in the list of attacks.
pub const ENTRY: Entry = Entry::new("ead", Access::Gradients, &[Norm::L1, Norm::L2], make)
    .nearest()
    .about("elastic net: l1 and l2 distance plus c times a hinge on the margin (Chen et al. 2018)")
    .with(&[
        ("steps", "1000"),
        ("searches", "9"),
        ("rate", "0.01"),
        ("constant", "0.001"),
        ("beta", "0.01, l2 0.001"),
        KAPPA,
        PROBABILITIES,
    ]);

fn make(s: &mut Settings) -> Result<Attack> {
    let beta = if s.norm == Norm::L1 { 1e-2 } else { 1e-3 };
    Ok(Attack::White(White::ElasticNet(ElasticNet {
        hinge: Hinge::of(s)?,
        beta: s.number("beta", beta, 0.0, 1e6)? as f32,
        steps: s.whole("steps", 1000, 1, 100_000)?,
        searches: s.whole("searches", 9, 1, 100)?,
        rate: s.number("rate", 1e-2, 1e-9, 1e3)? as f32,
        constant: s.number("constant", 1e-3, 1e-9, 1e9)? as f32,
    })))
}

impl ElasticNet {
    /// Attacks one sample. A step costs two queries and one gradient: the gradient is taken where the momentum leads, the
    /// shrunk point is asked for its scores.
    ///
    /// # Errors
    /// The oracle's.
    pub fn run<E: Element, O: GradientOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
    ) -> std::result::Result<(), O::Error> {
        let Some(scale) = Scale::of(problem) else {
            return Ok(());
        };
        let mut search = Search::from(self.constant);
        for _ in 0..self.searches {
            let success = self.descend(oracle, (problem, scale), search.c)?;
            search.learn(success);
        }
        Ok(())
    }

    /// One descent; whether it succeeded.
    fn descend<E: Element, O: GradientOracle<E>>(
        &self,
        oracle: &mut O,
        (problem, scale): (&Problem<'_, E>, Scale),
        constant: f32,
    ) -> std::result::Result<bool, O::Error> {
        let objective = self.hinge.objective(problem.goal);
        let x = problem.real();
        let n = x.len();
        // changes from the sample in widths of the box: the iterate and the point ahead of it
        let (mut change, mut ahead) = (vec![0.0_f32; n], vec![0.0_f32; n]);
        let mut v = vec![0.0; n];
        let mut asked = problem.x.to_vec();
        let mut scores = vec![0.0; problem.classes];
        let mut patience = Patience::new(self.steps);
        let mut success = false;
        for step in 0..self.steps {
            let mut put = |change: &mut [f32], asked: &mut [E]| {
                for i in 0..n {
                    v[i] = x[i] + scale.width * change[i];
                }
                problem.place(&mut v, asked);
                for i in 0..n {
                    change[i] = (v[i] - x[i]) / scale.width;
                }
            };
            put(&mut ahead, &mut asked);
            let answer = oracle.gradient(&asked, objective)?;
            success |= self.hinge.is_met(problem.goal, &answer);
            let excess = self.hinge.excess(&answer);
            let pull = match excess > 0.0 {
                true => constant * scale.gradient,
                false => 0.0,
            };
            let loss: f32 = ahead.iter().map(|d| d * d + self.beta * d.abs()).sum();
            let left = 1.0 - step as f32 / self.steps as f32;
            let rate = self.rate * left.sqrt();
            let momentum = step as f32 / (step as f32 + 3.0);
            let mut next = ahead.clone();
            for (next, g) in next.iter_mut().zip(answer.input) {
                *next = shrink(*next - rate * (2.0 * *next - pull * g), self.beta);
            }
            if patience.is_over(step, loss + constant * excess) {
                break;
            }
            put(&mut next, &mut asked);
            let label = oracle.scores(&asked, &mut scores)?;
            let value = objective.differentiate(&mut scores);
            success |= problem.goal.is_met(label) && value >= self.hinge.kappa;
            for i in 0..n {
                ahead[i] = next[i] + momentum * (next[i] - change[i]);
            }
            change = next;
        }
        Ok(success)
    }
}

/// Soft threshold.
fn shrink(v: f32, threshold: f32) -> f32 {
    (v.abs() - threshold).max(0.0) * v.signum()
}

#[cfg(test)]
mod tests {
    use super::super::analytic::{Analytic, Hunted, hunted};
    use super::*;
    use foolproof::loss::Goal;
    use foolproof::threat::Budget;

    const W: [f32; 4] = [2.0, -1.0, 0.5, 0.25];
    const X: [f32; 4] = [0.3, -0.1, 0.2, 0.0];

    fn run<E: Element + Default>(oracle: &Analytic, x: &[E], goal: Goal, norm: Norm) -> Hunted<E> {
        let Ok(Attack::White(White::ElasticNet(attack))) = make(&mut Settings::new(norm)) else {
            panic!("not an elastic net");
        };
        let all = Budget::UNLIMITED;
        hunted(
            oracle,
            (x, goal),
            (norm, f32::INFINITY),
            all,
            |hunt, problem, _| attack.run(hunt, problem),
        )
    }

    #[test]
    fn finds_the_nearest_point_behind_a_plane_in_l1() {
        let oracle = Analytic::half_space(&W, 0.1);
        let margin: f32 = 0.1 + W.iter().zip(X).map(|(w, x)| w * x).sum::<f32>();
        // the largest weight alone
        let nearest = margin / 2.0;
        for goal in [Goal::Avoid(0), Goal::Reach(1)] {
            let found = run(&oracle, &X, goal, Norm::L1).distance(1.0);
            assert!(
                (nearest..nearest * 1.25).contains(&found),
                "{found} of {nearest}"
            );
            let length = W.iter().map(|w| w * w).sum::<f32>().sqrt();
            let nearest = margin / length;
            let found = run(&oracle, &X, goal, Norm::L2).distance(1.0);
            assert!(
                (nearest..nearest * 1.02).contains(&found),
                "{found} of {nearest}"
            );
        }
    }

    #[test]
    fn finds_it_on_the_lattice_and_out_of_a_sphere() {
        let oracle = Analytic::half_space(&W, 0.1).on_lattice();
        let x = [38_i8, -13, 25, 0];
        let real = x.map(|x| f32::from(x) * oracle.unit);
        let margin: f32 = 0.1 + W.iter().zip(real).map(|(w, x)| w * x).sum::<f32>();
        let nearest = margin / 2.0;
        let found = run(&oracle, &x, Goal::Avoid(0), Norm::L1).distance(oracle.unit);
        assert!(
            (nearest..nearest * 1.3).contains(&found),
            "{found} of {nearest}"
        );
        let sphere = Analytic::sphere(4, 0.8);
        let found = run(&sphere, &X, Goal::Avoid(0), Norm::L2).distance(1.0);
        let nearest = 0.8 - X.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!(
            (nearest..nearest * 1.02).contains(&found),
            "{found} of {nearest}"
        );
    }

    #[test]
    fn shrinking_pulls_towards_zero_and_never_past_it() {
        assert_eq!(
            [0.5, -0.5, 0.1, -0.1].map(|v| shrink(v, 0.2)),
            [0.3, -0.3, 0.0, -0.0]
        );
    }
}
