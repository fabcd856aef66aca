//! Classifiers whose nearest adversarial inputs are known in closed form, to test attacks on.

use super::super::{Aim, Hunt, Problem, Stop, Witness};
use foolproof::attack::{AttackRng, Ball, Norm, rng};
use foolproof::loss::{Goal, Objective, argmax};
use foolproof::threat::{Budget, Element, Gradient, GradientOracle, LabelOracle, ScoreOracle};
use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;

/// Logits `z_k = b_k + w_k . x - a_k |x|^2` of real inputs `x = unit * elements`.
#[derive(Clone, Debug)]
pub(crate) struct Analytic {
    pub w: Vec<Vec<f32>>,
    pub b: Vec<f32>,
    pub a: Vec<f32>,
    pub unit: f32,
    /// The box that no question may leave, units of an element.
    pub range: (f32, f32),
    /// Forward and backward passes, counted here and not by the hunt.
    pub asked: Rc<Cell<(u64, u64)>>,
    gradient: Vec<f32>,
}

impl Analytic {
    /// Two classes; class 0 wins where `w . x + b > 0`.
    pub fn half_space(w: &[f32], b: f32) -> Analytic {
        Analytic::new(vec![w.to_vec(), vec![0.0; w.len()]], vec![b, 0.0])
    }

    /// Two classes of points with `n` elements; class 0 wins inside the sphere of this radius around 0.
    pub fn sphere(n: usize, radius: f32) -> Analytic {
        Analytic {
            a: vec![1.0, 0.0],
            ..Analytic::new(vec![vec![0.0; n]; 2], vec![radius * radius, 0.0])
        }
    }

    /// A linear classifier.
    pub fn new(w: Vec<Vec<f32>>, b: Vec<f32>) -> Analytic {
        let n = w[0].len();
        Analytic {
            a: vec![0.0; b.len()],
            w,
            b,
            unit: 1.0,
            range: (-1.0, 1.0),
            asked: Rc::default(),
            gradient: vec![0.0; n],
        }
    }

    /// The same of int8 inputs that cover -1 to 1.
    pub fn on_lattice(self) -> Analytic {
        Analytic {
            unit: 1.0 / 127.0,
            range: (-127.0, 127.0),
            ..self
        }
    }

    fn logits<E: Element>(&self, x: &[E], backward: u64) -> Vec<f32> {
        let (low, high) = self.range;
        for v in x {
            let v = v.to_f32();
            assert!((low..=high).contains(&v), "{v} is outside of the box");
        }
        let (queries, gradients) = self.asked.get();
        self.asked.set((queries + 1, gradients + backward));
        let real: Vec<f32> = x.iter().map(|x| x.to_f32() * self.unit).collect();
        let square: f32 = real.iter().map(|v| v * v).sum();
        let dot = |w: &[f32]| w.iter().zip(&real).map(|(w, x)| w * x).sum::<f32>();
        (0..self.b.len())
            .map(|k| self.b[k] + dot(&self.w[k]) - self.a[k] * square)
            .collect()
    }
}

impl<E: Element> LabelOracle<E> for Analytic {
    type Error = Infallible;
    fn input_len(&self) -> usize {
        self.gradient.len()
    }
    fn classes(&self) -> usize {
        self.b.len()
    }
    fn classify(&mut self, x: &[E]) -> Result<usize, Infallible> {
        Ok(argmax(&self.logits(x, 0)))
    }
}

impl<E: Element> ScoreOracle<E> for Analytic {
    fn scores(&mut self, x: &[E], scores: &mut [f32]) -> Result<usize, Infallible> {
        scores.copy_from_slice(&self.logits(x, 0));
        Ok(argmax(scores))
    }
}

impl<E: Element> GradientOracle<E> for Analytic {
    fn gradient(&mut self, x: &[E], objective: Objective) -> Result<Gradient<'_>, Infallible> {
        let mut z = self.logits(x, 1);
        let label = argmax(&z);
        let value = objective.differentiate(&mut z);
        for (i, (g, x)) in self.gradient.iter_mut().zip(x).enumerate() {
            let slope = |k: usize| self.w[k][i] - 2.0 * self.a[k] * x.to_f32() * self.unit;
            *g = (0..z.len()).map(|k| z[k] * slope(k)).sum();
        }
        Ok(Gradient {
            label,
            value,
            input: &self.gradient,
        })
    }
}

/// What came of one attack on an [`Analytic`].
pub(crate) struct Hunted<E> {
    pub witness: Option<Witness<E>>,
    pub queries: u64,
    pub gradients: u64,
}

impl<E> Hunted<E> {
    /// Distance of what was found in real units.
    pub fn distance(&self, unit: f32) -> f32 {
        self.witness
            .as_ref()
            .map_or(f32::INFINITY, |witness| witness.distance * unit)
    }
}

/// Runs an attack, given as a function of the oracle under watch, and checks that the hunt's counts are the oracle's, that the
/// budget holds and that what was found is adversarial and inside.
pub(crate) fn hunted<E: Element + Default>(
    oracle: &Analytic,
    (x, goal): (&[E], Goal),
    (norm, epsilon): (Norm, f32),
    budget: Budget,
    go: impl FnOnce(
        &mut Hunt<'_, E, Analytic>,
        &Problem<'_, E>,
        &mut AttackRng,
    ) -> Result<(), Stop<Infallible>>,
) -> Hunted<E> {
    let (low, high) = oracle.range;
    let problem = Problem {
        x,
        goal,
        ball: Ball {
            norm,
            epsilon: epsilon / if norm == Norm::L0 { 1.0 } else { oracle.unit },
            low,
            high,
        },
        unit: oracle.unit,
        classes: oracle.b.len(),
        shape: [1, x.len(), 1],
    };
    oracle.asked.set((0, 0));
    let mut hunt = Hunt::new(oracle.clone(), problem, Aim::Nearest, budget);
    let ended = go(&mut hunt, &problem, &mut rng(7, 0));
    assert!(matches!(ended, Ok(()) | Err(Stop::BudgetSpent)));
    let (queries, gradients) = oracle.asked.get();
    assert_eq!((hunt.queries, hunt.gradients), (queries, gradients));
    assert!(queries <= budget.queries && gradients <= budget.gradients);
    if let Some(witness) = &hunt.witness {
        assert!(problem.ball.contains(x, &witness.x));
        let label = oracle.clone().classify(&witness.x);
        assert_eq!(label, Ok(witness.label));
        assert!(goal.is_met(witness.label));
    }
    Hunted {
        witness: hunt.witness,
        queries,
        gradients,
    }
}
