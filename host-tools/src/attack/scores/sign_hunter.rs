//! SignHunter: Al-Dujaili, O'Reilly, "Sign bits are all you need for black-box attacks" (2020), algorithm 1. It walks the corners
//! of the ball: the signs of the whole perturbation are flipped, then of its halves, its quarters and so on down to single
//! elements, and a flip that does not lower the margin stays; then from the top again.
//!
//! It has no randomness and no parameter but its length (by default 1,000 queries, a tenth of the paper's budget), needs no idea of what the input is, and on an int8 model every point that it
//! tries lies on the grid: the control that stands beside gradient attacks (see [`crate::honest`]).

use crate::attack::problem::Problem;
use foolproof::attack::{Ball, Norm};
use foolproof::loss::{Loss, Objective};
use foolproof::threat::{Element, ScoreOracle};

/// How long it searches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SignHunter {
    /// Most queries for a sample, at least 1. The paper's experiments stop at 10,000.
    pub queries: u32,
}

impl SignHunter {
    /// Attacks one sample.
    ///
    /// # Errors
    /// The oracle's, which is also how a hunt ends.
    pub fn run<E: Element, O: ScoreOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
    ) -> Result<(), O::Error> {
        let n = problem.x.len();
        let corner = Corner::of::<E>(&problem.ball, n);
        let objective = Objective {
            loss: Loss::Margin,
            goal: problem.goal,
        };
        let mut scores = vec![0.0; problem.classes];
        let mut out = problem.x.to_vec();
        let mut signs = vec![1.0f32; n];
        let mut ask = |signs: &[f32]| {
            corner.place(problem, signs, &mut out);
            oracle.scores(&out, &mut scores)?;
            Ok(objective.differentiate(&mut scores))
        };
        let mut best = ask(&signs)?;
        let (mut size, mut start) = (n, 0);
        for _ in 1..self.queries {
            let end = (start + size).min(n);
            flip(&mut signs[start..end]);
            let value = ask(&signs)?;
            // equal margins are taken: on an int8 model plateaus are the rule
            if value >= best {
                best = value;
            } else {
                flip(&mut signs[start..end]);
            }
            start = end;
            if start >= n {
                start = 0;
                size = if size > 1 { size.div_ceil(2) } else { n };
            }
        }
        Ok(())
    }
}

fn flip(signs: &mut [f32]) {
    signs.iter_mut().for_each(|s| *s = -*s);
}

/// How far each element moves: to the faces of the linf ball; in the l2 ball as far as all elements together may, and on
/// the grid, where that is less than a step, one step for as many elements as fit, spread evenly.
#[derive(Clone, Copy, Debug)]
struct Corner {
    step: f32,
    moved: usize,
    n: usize,
}

impl Corner {
    fn of<E: Element>(ball: &Ball, n: usize) -> Self {
        let e = ball.epsilon;
        let (step, moved) = match (ball.norm, E::LATTICE) {
            (Norm::L2, false) => (e / (n as f32).sqrt(), n),
            (Norm::L2, true) if e * e < n as f32 => (1.0, (e * e) as usize),
            (Norm::L2, true) => ((e / (n as f32).sqrt()).floor(), n),
            (_, false) => (e, n),
            (_, true) => (e.floor(), n),
        };
        Self { step, moved, n }
    }

    fn place<E: Element>(&self, problem: &Problem<'_, E>, signs: &[f32], out: &mut [E]) {
        let Ball { low, high, .. } = problem.ball;
        for (i, ((out, x), sign)) in out.iter_mut().zip(problem.x).zip(signs).enumerate() {
            let moves = (i + 1) * self.moved / self.n > i * self.moved / self.n;
            let step = if moves { self.step * sign } else { 0.0 };
            *out = E::from_f32((x.to_f32() + step).max(low).min(high));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::run::{Found, hunt};
    use crate::attack::{Aim, Problem};
    use foolproof::loss::Goal;
    use foolproof::threat::{Budget, LabelOracle};

    /// Class 1 wins only where every element has the sign of the pattern `+ + - -`.
    struct Corners {
        n: usize,
        asked: u64,
        /// Largest distances seen, linf and l2.
        seen: (f32, f32),
    }

    impl<E: Element> LabelOracle<E> for Corners {
        type Error = ();
        fn input_len(&self) -> usize {
            self.n
        }
        fn classes(&self) -> usize {
            2
        }
        fn classify(&mut self, x: &[E]) -> Result<usize, ()> {
            self.scores(x, &mut [0.0; 2])
        }
    }

    impl<E: Element> ScoreOracle<E> for Corners {
        fn scores(&mut self, x: &[E], scores: &mut [f32]) -> Result<usize, ()> {
            self.asked += 1;
            let values = || x.iter().map(|v| v.to_f32());
            let l2 = values().map(|v| v * v).sum::<f32>().sqrt();
            let linf = values().fold(0f32, |m, v| m.max(v.abs()));
            self.seen = (self.seen.0.max(linf), self.seen.1.max(l2));
            let weights = (0..self.n).map(|i| if i % 4 < 2 { 1.0 } else { -1.0 });
            let dot: f32 = values().zip(weights).map(|(v, w)| v * w).sum();
            let reachable = 0.999 * values().map(f32::abs).sum::<f32>();
            scores.copy_from_slice(&[reachable, dot]);
            Ok(usize::from(dot > reachable))
        }
    }

    fn attack<E: Element + Default>(n: usize, ball: Ball, queries: u32) -> (Found<E>, Corners) {
        let mut oracle = Corners {
            n,
            asked: 0,
            seen: (0.0, 0.0),
        };
        let x = vec![E::default(); n];
        let problem = Problem {
            x: &x,
            goal: Goal::Avoid(0),
            ball,
            unit: 1.0,
            classes: 2,
            shape: [1, n, 1],
        };
        let found = hunt(&mut oracle, &problem, (Aim::Any, Budget::UNLIMITED), |o| {
            SignHunter { queries }.run(o, &problem)
        });
        (found.unwrap(), oracle)
    }

    const BALL: Ball = Ball {
        norm: Norm::Linf,
        epsilon: 3.0,
        low: -128.0,
        high: 127.0,
    };

    #[test]
    fn finds_the_one_corner_in_fewer_than_four_queries_an_element() {
        for n in [4usize, 16, 50] {
            let (found, oracle) = attack::<i8>(n, BALL, 10_000);
            assert!(found.outcome.fooled, "{n}");
            assert_eq!(found.outcome.queries, oracle.asked);
            // halving down to single elements decides each sign
            assert!(oracle.asked < 4 * n as u64 + 2, "{}", oracle.asked);
            assert!(attack::<f32>(n, BALL, 10_000).0.outcome.fooled);
        }
        let (found, _) = attack::<i8>(64, BALL, 7);
        assert!(!found.outcome.fooled);
        assert_eq!((found.outcome.queries, found.outcome.gradients), (7, 0));
    }

    #[test]
    fn never_leaves_the_ball() {
        for (norm, epsilon) in [
            (Norm::Linf, 2.7),
            (Norm::L2, 2.7),
            (Norm::L2, 0.5),
            (Norm::L2, 70.0),
        ] {
            let ball = Ball {
                norm,
                epsilon,
                ..BALL
            };
            for (linf, l2) in [
                attack::<i8>(49, ball, 100).1.seen,
                attack::<f32>(49, ball, 100).1.seen,
            ] {
                let size = if norm == Norm::L2 { l2 } else { linf };
                assert!(size <= epsilon * 1.0001, "{norm:?} {epsilon}: {size}");
            }
            assert!(attack::<f32>(49, ball, 100).1.seen.0 > 0.05);
        }
    }
}
