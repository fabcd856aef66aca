//! The floor: changes that know nothing of the model, stronger and stronger until the label changes. What resists an
//! attack should resist these first; a model that they fool needs no adversary: Hendrycks and Dietterich, "Benchmarking
//! neural network robustness to common corruptions and perturbations" (2019), section 4.1.
//!
//! Defaults: 10 draws and 100 strengths up to the ball's radius or the box's far corner, so at most 1001 queries.

use super::super::problem::Problem;
use super::super::random::{below, normal, uniform};
use foolproof::attack::{AttackRng, Ball, Norm};
use foolproof::threat::{Element, LabelOracle};

/// What is added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Normal noise.
    Gaussian,
    /// Uniform noise.
    Uniform,
    /// A fading towards the middle grey.
    Contrast,
    /// Elements in random order become the smallest or the largest value.
    SaltAndPepper,
}

/// A line search over the strength of a blind change.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Noise {
    /// What is added.
    pub kind: Kind,
    /// Draws of it.
    pub repeats: u32,
    /// Strengths, evenly spaced up to the ball's radius, or to the farthest corner of the box.
    pub steps: u32,
}

impl Noise {
    /// Attacks one sample. A later draw is only tried as far as it is nearer than the best before.
    ///
    /// # Errors
    /// The oracle's, which is also how a hunt ends.
    pub fn run<E: Element, O: LabelOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
        rng: &mut AttackRng,
    ) -> Result<(), O::Error> {
        let x = problem.real();
        let mut out = problem.x.to_vec();
        let mut v = x.clone();
        problem.place(&mut v, &mut out);
        if problem.goal.is_met(oracle.classify(&out)?) {
            return Ok(());
        }
        let farthest = farthest(&problem.ball, &x);
        let mut steps = self.steps;
        for _ in 0..self.repeats {
            let change = self.draw(problem, &x, rng);
            for step in 1..=steps {
                let share = step as f32 / self.steps as f32;
                change.at(&x, share, farthest, &mut v);
                problem.place(&mut v, &mut out);
                if problem.goal.is_met(oracle.classify(&out)?) {
                    steps = step - 1;
                    break;
                }
            }
        }
        Ok(())
    }

    fn draw<E: Element>(&self, problem: &Problem<'_, E>, x: &[f32], rng: &mut AttackRng) -> Change {
        let Ball {
            norm, low, high, ..
        } = problem.ball;
        let direction: Vec<f32> = match self.kind {
            Kind::Gaussian => x.iter().map(|_| normal(rng)).collect(),
            Kind::Uniform => x.iter().map(|_| 2.0 * uniform(rng) - 1.0).collect(),
            Kind::Contrast => {
                let grey = 0.5 * (low + high);
                return Change::Fade(x.iter().map(|_| grey).collect());
            }
            Kind::SaltAndPepper => {
                let mut order: Vec<usize> = (0..x.len()).collect();
                for i in (1..order.len()).rev() {
                    order.swap(i, below(rng, i + 1));
                }
                let values = x.iter().map(|_| match below(rng, 2) {
                    0 => low,
                    _ => high,
                });
                return Change::Replace(order.into_iter().zip(values).collect());
            }
        };
        let zero = vec![0.0; x.len()];
        let size = norm.distance(&zero, &direction).max(1e-12);
        Change::Add(direction.into_iter().map(|d| d / size).collect())
    }
}

/// A change that can be made at any strength.
enum Change {
    /// Along a direction of length 1.
    Add(Vec<f32>),
    /// Blended with another input.
    Fade(Vec<f32>),
    /// The first so many elements become these values.
    Replace(Vec<(usize, f32)>),
}

impl Change {
    /// The input changed with a strength from 0 to 1.
    fn at(&self, x: &[f32], share: f32, farthest: f32, v: &mut [f32]) {
        v.copy_from_slice(x);
        match self {
            Change::Add(direction) => {
                let parts = v.iter_mut().zip(direction);
                parts.for_each(|(v, d)| *v += share * farthest * d);
            }
            Change::Fade(other) => {
                let parts = v.iter_mut().zip(other);
                parts.for_each(|(v, o)| *v += share * (o - *v));
            }
            Change::Replace(elements) => {
                let count = (share * elements.len() as f32).ceil() as usize;
                let replaced = elements.iter().take(count);
                replaced.for_each(|&(i, value)| v[i] = value);
            }
        }
    }
}

/// The ball's radius, or the distance of the farthest corner of the box where that is less.
fn farthest(ball: &Ball, x: &[f32]) -> f32 {
    let corner: Vec<f32> = x
        .iter()
        .map(|&x| match x - ball.low > ball.high - x {
            true => ball.low,
            false => ball.high,
        })
        .collect();
    let corner = match ball.norm {
        // every element is changed by noise
        Norm::L0 => x.len() as f32,
        norm => norm.distance(x, &corner),
    };
    corner.min(ball.epsilon)
}
