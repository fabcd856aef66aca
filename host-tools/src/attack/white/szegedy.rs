//! Szegedy et al., "Intriguing properties of neural networks" (2013), section 4.1: minimise `|r|_2^2 + c L(x + r, t)` in the
//! box by box-constrained L-BFGS, with c > 0 as small as possible by line search (the paper puts its c on the other term, which
//! is the same family). `L` is the cross-entropy of the target; untargeted, minus the cross-entropy of the label.
//!
//! The optimizer is PANOC of the crate `optimization_engine`: L-BFGS directions, safeguarded by projected gradient steps onto the
//! box (Stella et al., "A simple and efficient algorithm for nonlinear model predictive control", 2017, algorithm 1). It is pure Rust and kept
//! up; ports of the original L-BFGS-B are not. Distances are measured in widths of the box.
//!
//! The line search: from the sample, c grows tenfold until the optimizer meets a point that fools. Where the classifier is sure, the
//! cross-entropy at the sample is flat, and that c leaps far beyond the boundary; so the search goes on from the nearest such point, with c
//! halved while the end still fools, then bisected.
//!
//! On the lattice the rounded point is asked, and the loss of the point itself is taken to first order from there, so that value and
//! gradient fit together.
//!
//! Defaults: the paper names none but the line search; 10 stored vectors and c from 0.01 are those of the widespread implementation
//! in CleverHans (`LBFGS`: 5 searches, 1000 iterations), with 9 searches and 100 iterations.

use super::super::catalog::{Access, Entry, Settings};
use super::super::problem::Problem;
use super::super::{Attack, white::White};
use super::penalty::{Scale, Search};
use crate::error::Result;
use foolproof::attack::Norm;
use foolproof::loss::{Loss, Objective};
use foolproof::threat::{Element, GradientOracle};
use optimization_engine::constraints::Rectangle;
use optimization_engine::panoc::{PANOCCache, PANOCOptimizer};
use optimization_engine::{FunctionCallResult, Problem as Minimise, SolverError};
use std::cell::RefCell;

/// Parameters of the attack.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Szegedy {
    /// Iterations of each optimization at most.
    pub steps: u32,
    /// Constants tried.
    pub searches: u32,
    /// The first constant.
    pub constant: f32,
}

/// Its line in the list of attacks.
pub const ENTRY: Entry = Entry::new("szegedy", Access::Gradients, &[Norm::L2], make)
    .nearest()
    .about("squared distance plus c times the cross-entropy, box-constrained L-BFGS (Szegedy et al. 2013)")
    .with(&[("steps", "100"), ("searches", "9"), ("constant", "0.01")]);

/// Vectors that L-BFGS keeps.
const MEMORY: usize = 10;
/// Constants tried from the sample, each ten times the last: to where any loss outweighs any distance.
const LEAPS: u32 = 12;
/// The fixed-point residual at which an optimization ends, widths of the box.
const TOLERANCE: f64 = 1e-4;

fn make(s: &mut Settings) -> Result<Attack> {
    Ok(Attack::White(White::Szegedy(Szegedy {
        steps: s.whole("steps", 100, 1, 100_000)?,
        searches: s.whole("searches", 9, 1, 100)?,
        constant: s.number("constant", 1e-2, 1e-9, 1e9)? as f32,
    })))
}

impl Szegedy {
    /// Attacks one sample. Every point that the optimizer looks at costs one query and one gradient.
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
        let sample: Vec<f64> = problem
            .x
            .iter()
            .map(|x| f64::from((x.to_f32() - problem.ball.low) / scale.width))
            .collect();
        let at = (problem, scale);
        // from the sample, c grows until the optimizer leaves for another class
        let mut search = Search::from(self.constant);
        let mut nearest = None;
        for _ in 0..LEAPS {
            let end = self.minimise(oracle, at, (&sample, search.c))?;
            if end.nearest.is_some() {
                nearest = end.nearest;
                break;
            }
            search.learn(false);
        }
        // from behind the boundary, c falls until it comes back; it begins where the nearest point is in balance
        let Some(mut nearest) = nearest else {
            return Ok(());
        };
        search = Search::from(nearest.balance as f32);
        for _ in 0..self.searches {
            let end = self.minimise(oracle, at, (&nearest.u, search.c))?;
            search.learn(end.fools);
            nearest = end.nearest.unwrap_or(nearest);
        }
        Ok(())
    }

    /// One optimization.
    fn minimise<E: Element, O: GradientOracle<E>>(
        &self,
        oracle: &mut O,
        at: (&Problem<'_, E>, Scale),
        (start, constant): (&[f64], f32),
    ) -> std::result::Result<End, O::Error> {
        let n = start.len();
        let (zeros, ones) = (vec![0.0; n], vec![1.0; n]);
        let probe = RefCell::new(Probe::new(oracle, at, f64::from(constant)));
        let cost = |u: &[f64], value: &mut f64| -> FunctionCallResult {
            let mut probe = probe.borrow_mut();
            probe.look(u)?;
            *value = probe.value;
            Ok(())
        };
        let slope = |u: &[f64], gradient: &mut [f64]| -> FunctionCallResult {
            let mut probe = probe.borrow_mut();
            probe.look(u)?;
            gradient.copy_from_slice(&probe.gradient);
            Ok(())
        };
        let bounds = Rectangle::new(Some(&zeros), Some(&ones));
        let minimise = Minimise::new(&bounds, slope, cost);
        let mut cache = PANOCCache::new(n, TOLERANCE, MEMORY);
        let mut optimizer =
            PANOCOptimizer::new(minimise, &mut cache).with_max_iter(self.steps as usize);
        let mut u = start.to_vec();
        // an optimizer that stops short leaves what was found on the way, and the next constant
        let _ = optimizer.solve(&mut u);
        let mut probe = probe.into_inner();
        // the oracle's error, if there is one, is in `failed`
        let _ = probe.look(&u);
        match probe.failed {
            Some(error) => Err(error),
            None => Ok(End {
                fools: probe.fools,
                nearest: probe.nearest,
            }),
        }
    }
}

/// What came of one optimization.
struct End {
    /// Whether its last point fools.
    fools: bool,
    nearest: Option<Nearest>,
}

/// The nearest point of an optimization that fools.
struct Nearest {
    u: Vec<f64>,
    /// The square of its distance.
    square: f64,
    /// The c at which distance and loss pull equally hard there.
    balance: f64,
}

/// The function to minimise. It keeps the answer to the last point, because the optimizer asks for value and slope one
/// after the other.
struct Probe<'a, 'x, E: Element, O: GradientOracle<E>> {
    oracle: &'a mut O,
    problem: &'a Problem<'x, E>,
    scale: Scale,
    constant: f64,
    at: Vec<f64>,
    value: f64,
    gradient: Vec<f64>,
    v: Vec<f32>,
    asked: Vec<E>,
    /// Whether the last point fools.
    fools: bool,
    nearest: Option<Nearest>,
    failed: Option<O::Error>,
}

impl<'a, 'x, E: Element, O: GradientOracle<E>> Probe<'a, 'x, E, O> {
    fn new(
        oracle: &'a mut O,
        (problem, scale): (&'a Problem<'x, E>, Scale),
        constant: f64,
    ) -> Self {
        let n = problem.x.len();
        Probe {
            oracle,
            problem,
            scale,
            constant,
            at: Vec::new(),
            value: 0.0,
            gradient: vec![0.0; n],
            v: vec![0.0; n],
            asked: problem.x.to_vec(),
            fools: false,
            nearest: None,
            failed: None,
        }
    }

    /// Makes `value` and `gradient` those of `u`.
    fn look(&mut self, u: &[f64]) -> FunctionCallResult {
        if self.at == u {
            return Ok(());
        }
        let stopped = SolverError::Cost("the oracle has ended the attack");
        if self.failed.is_some() {
            return Err(stopped);
        }
        let Probe { problem, scale, .. } = *self;
        let low = problem.ball.low;
        for (v, u) in self.v.iter_mut().zip(u) {
            *v = low + scale.width * *u as f32;
        }
        let wished = self.v.clone();
        problem.place(&mut self.v, &mut self.asked);
        let objective = Objective {
            loss: Loss::CrossEntropy,
            goal: problem.goal,
        };
        let answer = match self.oracle.gradient(&self.asked, objective) {
            Ok(answer) => answer,
            Err(error) => {
                self.failed = Some(error);
                return Err(stopped);
            }
        };
        self.fools = problem.goal.is_met(answer.label);
        let (mut square, mut climbed) = (0.0, f64::from(answer.value));
        for (i, slope) in self.gradient.iter_mut().enumerate() {
            let change = f64::from((wished[i] - problem.x[i].to_f32()) / scale.width);
            let rounding = f64::from((wished[i] - self.asked[i].to_f32()) / scale.width);
            let g = f64::from(answer.input[i] * scale.gradient);
            square += change * change;
            climbed += g * rounding;
            *slope = 2.0 * change - self.constant * g;
        }
        self.value = square - self.constant * climbed;
        if self.fools && self.nearest.as_ref().is_none_or(|n| square < n.square) {
            let steep = answer.input.iter().map(|g| f64::from(g * scale.gradient));
            let steep = steep.map(|g| g * g).sum::<f64>().sqrt();
            self.nearest = Some(Nearest {
                u: u.to_vec(),
                square,
                balance: (2.0 * square.sqrt() / steep.max(1e-12)).clamp(1e-9, 1e9),
            });
        }
        self.at.clear();
        self.at.extend_from_slice(u);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::analytic::{Analytic, hunted};
    use super::*;
    use foolproof::loss::Goal;
    use foolproof::threat::Budget;

    const W: [f32; 4] = [2.0, -1.0, 0.5, 0.25];
    const X: [f32; 4] = [0.3, -0.1, 0.2, 0.0];
    const ATTACK: Szegedy = Szegedy {
        steps: 100,
        searches: 9,
        constant: 0.01,
    };

    fn found<E: Element + Default>(oracle: &Analytic, x: &[E], goal: Goal) -> f32 {
        let at = (Norm::L2, f32::INFINITY);
        hunted(
            oracle,
            (x, goal),
            at,
            Budget::UNLIMITED,
            |hunt, problem, _| ATTACK.run(hunt, problem),
        )
        .distance(oracle.unit)
    }

    #[test]
    fn finds_nearly_the_nearest_point() {
        let length = W.iter().map(|w| w * w).sum::<f32>().sqrt();
        let oracle = Analytic::half_space(&W, 0.1);
        let nearest = (0.1 + W.iter().zip(X).map(|(w, x)| w * x).sum::<f32>()) / length;
        for goal in [Goal::Avoid(0), Goal::Reach(1)] {
            let found = found(&oracle, &X, goal);
            assert!(
                (nearest..nearest * 1.08).contains(&found),
                "{found} of {nearest}"
            );
        }
        let sphere = Analytic::sphere(4, 0.8);
        let nearest = 0.8 - X.iter().map(|x| x * x).sum::<f32>().sqrt();
        let out = found(&sphere, &X, Goal::Avoid(0));
        assert!(
            (nearest..nearest * 1.08).contains(&out),
            "{out} of {nearest}"
        );
        let oracle = oracle.on_lattice();
        let x = [38_i8, -13, 25, 0];
        let real = x.map(|x| f32::from(x) * oracle.unit);
        let nearest = (0.1 + W.iter().zip(real).map(|(w, x)| w * x).sum::<f32>()) / length;
        let found = found(&oracle, &x, Goal::Avoid(0));
        assert!(
            (nearest..nearest * 1.1).contains(&found),
            "{found} of {nearest}"
        );
    }

    #[test]
    fn a_spent_budget_ends_the_optimizer() {
        let oracle = Analytic::half_space(&W, 0.1);
        for queries in [0, 1, 17] {
            let budget = Budget {
                queries,
                gradients: u64::MAX,
            };
            let at = (Norm::L2, f32::INFINITY);
            let hunted = hunted(
                &oracle,
                (&X, Goal::Avoid(0)),
                at,
                budget,
                |hunt, problem, _| ATTACK.run(hunt, problem),
            );
            assert_eq!(hunted.queries, queries);
        }
    }
}
