//! Classifiers with known geometry, to test attacks on: where the nearest adversarial input is, is known in closed form.
//!
//! They count what they are asked themselves, so a [`Hunt`]'s figures can be compared, and they refuse inputs outside of the
//! box.

use super::run::{Found, hunt};
use super::{Aim, Hunt, Problem, Stop};
use foolproof::attack::{AttackRng, Ball, Norm, rng};
use foolproof::loss::{Goal, Objective, argmax};
use foolproof::threat::{Budget, Element, Gradient, GradientOracle, LabelOracle, ScoreOracle};

/// The shape of the decision boundaries.
pub(crate) enum Shape {
    /// `z = W r + b`, `W` row after row.
    Linear { weights: Vec<f32>, bias: Vec<f32> },
    /// `z = (0, |r - centre|^2 - radius^2, -1000)`: class 1 outside of a sphere.
    Bowl { centre: Vec<f32>, radius: f32 },
}

/// A classifier of inputs of `n` elements, `r = unit * element`.
pub(crate) struct Known {
    pub shape: Shape,
    pub unit: f32,
    pub n: usize,
    pub classes: usize,
    /// Smallest and largest element.
    pub range: (f32, f32),
    pub queries: u64,
    pub gradients: u64,
    gradient: Vec<f32>,
}

impl Known {
    /// A linear classifier; `weights` has a row of `n` for each class.
    pub fn linear(weights: &[f32], bias: &[f32], unit: f32, range: (f32, f32)) -> Known {
        Known {
            n: weights.len() / bias.len(),
            classes: bias.len(),
            shape: Shape::Linear {
                weights: weights.to_vec(),
                bias: bias.to_vec(),
            },
            unit,
            range,
            queries: 0,
            gradients: 0,
            gradient: Vec::new(),
        }
    }

    /// A sphere in real units.
    pub fn bowl(centre: &[f32], radius: f32, unit: f32, range: (f32, f32)) -> Known {
        Known {
            n: centre.len(),
            classes: 3,
            shape: Shape::Bowl {
                centre: centre.to_vec(),
                radius,
            },
            unit,
            range,
            queries: 0,
            gradients: 0,
            gradient: Vec::new(),
        }
    }

    /// A problem in this classifier's units.
    pub fn problem<'a, E: Element>(
        &self,
        x: &'a [E],
        goal: Goal,
        norm: Norm,
        epsilon: f32,
    ) -> Problem<'a, E> {
        Problem {
            x,
            goal,
            ball: Ball {
                norm,
                epsilon,
                low: self.range.0,
                high: self.range.1,
            },
            unit: self.unit,
            classes: self.classes,
            shape: [1, self.n, 1],
        }
    }

    fn real<E: Element>(&self, x: &[E]) -> Vec<f32> {
        assert_eq!(x.len(), self.n);
        let (low, high) = self.range;
        x.iter()
            .map(|x| {
                let x = x.to_f32();
                assert!((low..=high).contains(&x), "{x} is outside of the box");
                self.unit * x
            })
            .collect()
    }

    fn logits(&self, r: &[f32]) -> Vec<f32> {
        match &self.shape {
            Shape::Linear { weights, bias } => weights
                .chunks(self.n)
                .zip(bias)
                .map(|(row, b)| b + row.iter().zip(r).map(|(w, r)| w * r).sum::<f32>())
                .collect(),
            Shape::Bowl { centre, radius } => {
                let square: f32 = r.iter().zip(centre).map(|(r, c)| (r - c) * (r - c)).sum();
                vec![0.0, square - radius * radius, -1000.0]
            }
        }
    }

    fn pull_back(&self, r: &[f32], slope: &[f32]) -> Vec<f32> {
        match &self.shape {
            Shape::Linear { weights, .. } => (0..self.n)
                .map(|i| {
                    let column = weights.iter().skip(i).step_by(self.n);
                    column.zip(slope).map(|(w, s)| w * s).sum()
                })
                .collect(),
            Shape::Bowl { centre, .. } => r
                .iter()
                .zip(centre)
                .map(|(r, c)| slope[1] * 2.0 * (r - c))
                .collect(),
        }
    }
}

impl<E: Element> LabelOracle<E> for Known {
    type Error = std::convert::Infallible;
    fn input_len(&self) -> usize {
        self.n
    }
    fn classes(&self) -> usize {
        self.classes
    }
    fn classify(&mut self, x: &[E]) -> Result<usize, Self::Error> {
        self.queries += 1;
        Ok(argmax(&self.logits(&self.real(x))))
    }
}

impl<E: Element> ScoreOracle<E> for Known {
    fn scores(&mut self, x: &[E], scores: &mut [f32]) -> Result<usize, Self::Error> {
        self.queries += 1;
        scores.copy_from_slice(&self.logits(&self.real(x)));
        Ok(argmax(scores))
    }
}

impl<E: Element> GradientOracle<E> for Known {
    fn gradient(&mut self, x: &[E], objective: Objective) -> Result<Gradient<'_>, Self::Error> {
        self.queries += 1;
        self.gradients += 1;
        let r = self.real(x);
        let mut logits = self.logits(&r);
        let label = argmax(&logits);
        let value = objective.differentiate(&mut logits);
        self.gradient = self.pull_back(&r, &logits);
        Ok(Gradient {
            label,
            value,
            input: &self.gradient,
        })
    }
}

/// How an attack under test ends.
pub(crate) type Ending = Result<(), Stop<std::convert::Infallible>>;

/// Lets an attack ask a known classifier and checks what must hold for every attack: counts are exact, budgets are kept, what was
/// found is in the ball and fools.
pub(crate) fn attacked<'a, E: Element + std::fmt::Debug>(
    known: &mut Known,
    problem: &Problem<'a, E>,
    (aim, budget): (Aim, Budget),
    go: impl FnOnce(&mut Hunt<'a, E, &mut Known>, &mut AttackRng) -> Ending,
) -> Found<E> {
    (known.queries, known.gradients) = (0, 0);
    let found = hunt(&mut *known, problem, (aim, budget), |oracle| {
        go(oracle, &mut rng(1, 2))
    });
    let found = found.expect("nothing can go wrong");
    let outcome = found.outcome;
    let counted = (known.queries, known.gradients);
    assert_eq!((outcome.queries, outcome.gradients), counted);
    assert!(outcome.queries <= budget.queries && outcome.gradients <= budget.gradients);
    assert!(problem.ball.contains(problem.x, &found.x));
    if outcome.fooled {
        let label = argmax(&known.logits(&known.real(&found.x)));
        assert!(problem.goal.is_met(label) && label == outcome.label);
    }
    found
}

/// Eight inputs in the middle of the int8 range, for `unit` 1/50 and three classes of [`WEIGHTS`]: class 0.
pub(crate) const INPUT: [i8; 8] = [10, -20, 30, 5, -15, 0, 25, -8];

/// Three classes.
pub(crate) const WEIGHTS: [f32; 24] = [
    0.5, -1.0, 0.8, 0.2, -0.4, 0.1, 0.9, -0.3, //
    -0.6, 0.7, 0.3, -0.9, 0.5, 0.4, -0.2, 0.6, //
    0.3, 0.4, -0.7, 0.6, 0.8, -0.5, 0.2, -0.1,
];

/// Their biases.
pub(crate) const BIAS: [f32; 3] = [0.4, 0.1, -0.2];

/// The linear classifier of three classes on the lattice, in steps of 1/50.
pub(crate) fn on_lattice() -> Known {
    Known::linear(&WEIGHTS, &BIAS, 0.02, (-128.0, 127.0))
}

/// The same in real units.
pub(crate) fn in_reals() -> Known {
    Known::linear(&WEIGHTS, &BIAS, 1.0, (-2.56, 2.54))
}

/// [`INPUT`] in real units.
pub(crate) fn real_input() -> [f32; 8] {
    INPUT.map(|q| 0.02 * f32::from(q))
}

/// Distance from [`INPUT`] to the boundary of class 0 and `other`, in real units, without the box: `|z_0 - z_other|` over
/// the dual norm of the difference of the rows.
pub(crate) fn distance_to(other: usize, norm: Norm) -> f32 {
    let known = in_reals();
    let z = known.logits(&real_input());
    let w: Vec<f32> = (0..8)
        .map(|i| WEIGHTS[8 * other + i] - WEIGHTS[i])
        .collect();
    let dual = match norm {
        Norm::Linf => w.iter().map(|w| w.abs()).sum(),
        Norm::L1 => w.iter().fold(0.0f32, |most, w| most.max(w.abs())),
        _ => w.iter().map(|w| w * w).sum::<f32>().sqrt(),
    };
    (z[0] - z[other]) / dual
}

#[test]
fn the_input_is_of_class_0_and_its_gradients_are_slopes() {
    let z = in_reals().logits(&real_input());
    assert_eq!(argmax(&z), 0, "{z:?}");
    for known in [
        &mut in_reals(),
        &mut Known::bowl(&[0.1; 8], 3.0, 1.0, (-4.0, 4.0)),
    ] {
        let x = real_input();
        let objective = Objective {
            loss: foolproof::loss::Loss::Difference(1),
            goal: Goal::Avoid(0),
        };
        let answer = known.gradient(&x, objective).unwrap();
        let (value, gradient) = (answer.value, answer.input.to_vec());
        for i in 0..8 {
            let mut y = x;
            y[i] += 0.01;
            let moved = known.gradient(&y, objective).unwrap().value;
            assert!(((moved - value) / 0.01 - gradient[i]).abs() < 0.02);
        }
    }
}
