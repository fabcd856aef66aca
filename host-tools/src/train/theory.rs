//! The theory of the game on densities that are known: the best discriminator against a fixed generator is `p / (p + q)`, and the
//! value of the game is then `2 JS(p, q) - log 4` (Goodfellow et al. 2014, proposition 1 and theorem 1). A discriminator is trained to
//! convergence on samples alone and compared with both.

use super::gan::descend;
use super::gan::networks::{Form, spread};
use super::gan::objective::{Objective, sigmoid, softplus};
use super::player::{Average, Player};
use super::source::Mixture;
use super::{TrainError, answers, buffers, store};
use crate::graph::{Builder, Graph, GraphError, to_image};
use foolproof::ops::{Activation, Unary};
use foolproof::session::SessionError;
use rayon::prelude::*;

/// How the discriminator is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// Units of its two hidden layers (tanh).
    pub hidden: u32,
    /// Steps.
    pub steps: u64,
    /// Samples of either density in a step, a multiple of 128.
    pub batch: usize,
    /// Adam's learning rate, which falls to 0 as half a cosine.
    pub rate: f64,
}

/// A density beside another: real and generated.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The data's.
    pub p: Mixture,
    /// The fixed generator's.
    pub q: Mixture,
    /// A box outside of which both are negligible: low and high along every axis.
    pub range: (f64, f64),
    /// Points along every axis for quadrature (midpoints).
    pub points: usize,
}

impl Pair {
    /// On a line: three humps against one that is too wide and off centre.
    pub fn line() -> Pair {
        Pair {
            p: Mixture::line(),
            q: Mixture::even(1.5, vec![vec![0.5]]),
            range: (-8.0, 9.0),
            points: 3400,
        }
    }

    /// On a plane: four humps against two others.
    pub fn plane() -> Pair {
        let p = [[-1.2, -1.2], [-1.2, 1.2], [1.2, -1.2], [1.2, 1.2]].map(|c| c.to_vec());
        Pair {
            p: Mixture::even(0.6, p.to_vec()),
            q: Mixture::even(0.9, vec![vec![-0.8, 0.0], vec![1.0, 0.3]]),
            range: (-6.5, 6.5),
            points: 260,
        }
    }

    fn place(&self, i: usize) -> f64 {
        let (low, high) = self.range;
        low + (high - low) * (i as f64 + 0.5) / self.points as f64
    }

    /// The midpoints of the quadrature.
    pub fn grid(&self) -> Vec<Vec<f64>> {
        match self.p.dimensions {
            1 => (0..self.points).map(|i| vec![self.place(i)]).collect(),
            _ => (0..self.points * self.points)
                .map(|i| vec![self.place(i / self.points), self.place(i % self.points)])
                .collect(),
        }
    }

    fn cell(&self) -> f64 {
        let (low, high) = self.range;
        ((high - low) / self.points as f64).powi(self.p.dimensions as i32)
    }

    /// JS(p, q) by quadrature, nats.
    pub fn divergence(&self) -> f64 {
        let part = |a: f64, mean: f64| if a > 0.0 { a * (a / mean).ln() } else { 0.0 };
        let sum: f64 = self
            .grid()
            .iter()
            .map(|x| {
                let (p, q) = (self.p.density(x), self.q.density(x));
                part(p, 0.5 * (p + q)) + part(q, 0.5 * (p + q))
            })
            .sum();
        0.5 * sum * self.cell()
    }
}

/// A discriminator beside its closed form.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// `2 JS - log 4`, by quadrature.
    pub best_value: f64,
    /// The value of the game that the trained discriminator reaches, by quadrature over both densities.
    pub value: f64,
    /// Largest `|D - p / (p + q)|` where p or q is above 1 % of its peak.
    pub largest_error: f64,
    /// The points of the quadrature.
    pub grid: Vec<Vec<f64>>,
    /// p, q, `p / (p + q)` and D at each of them.
    pub curves: Vec<[f64; 4]>,
}

/// Trains a discriminator against the fixed generator `q` and judges it.
///
/// # Errors
/// [`TrainError`].
pub fn judge(
    pair: &Pair,
    fit: Fit,
    seed: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<Verdict, TrainError> {
    let graph = train(pair, fit, seed, progress)?;
    let grid = pair.grid();
    let logits = at(&graph, &grid)?;
    let densities: Vec<(f64, f64)> = grid
        .iter()
        .map(|x| (pair.p.density(x), pair.q.density(x)))
        .collect();
    let peak = |f: fn(&(f64, f64)) -> f64| densities.iter().map(f).fold(0.0, f64::max);
    let peaks = (peak(|d| d.0), peak(|d| d.1));
    let (mut value, mut largest_error) = (0.0, 0.0f64);
    let mut curves = Vec::with_capacity(grid.len());
    for (&(p, q), &a) in densities.iter().zip(&logits) {
        value -= (p * softplus(-a) + q * softplus(a)) * pair.cell();
        let closed = p / (p + q).max(f64::MIN_POSITIVE);
        let said = sigmoid(a);
        if p > 0.01 * peaks.0 || q > 0.01 * peaks.1 {
            largest_error = largest_error.max((said - closed).abs());
        }
        curves.push([p, q, closed, said]);
    }
    Ok(Verdict {
        best_value: 2.0 * pair.divergence() - 4f64.ln(),
        value,
        largest_error,
        grid,
        curves,
    })
}

const SHARD: usize = 128;

fn train(
    pair: &Pair,
    fit: Fit,
    seed: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<Graph, TrainError> {
    let form = Form {
        shape: vec![pair.p.dimensions as u32],
        image: false,
    };
    let mut graph =
        network(&form, fit.hidden, seed).map_err(|error| TrainError::Config(error.to_string()))?;
    let image = to_image(&graph)?;
    let model = image.model().map_err(GraphError::Invalid)?;
    let mut memory = buffers(&model, SHARD, fit.batch / SHARD)?;
    let mut d = Player::new(&model, &mut memory, SHARD, [0.9, 0.999])?;
    let mut average = Average::new(d.parameters()?, 0.998);
    let weight = 1.0 / fit.batch as f32;
    d.spread()?;
    for step in 0..fit.steps {
        let shards = d.replicas.len() as u64;
        let losses: Vec<Result<f64, SessionError>> = d
            .replicas
            .par_iter_mut()
            .enumerate()
            .map(|(i, d)| {
                let mut rng = foolproof::attack::rng(seed ^ 0x7468_656f, step * shards + i as u64);
                let (mut real, mut made) = (Vec::new(), Vec::new());
                (0..SHARD).for_each(|_| pair.p.draw(&mut rng, &mut real));
                (0..SHARD).for_each(|_| pair.q.draw(&mut rng, &mut made));
                let real = descend(&mut d.session, &real, weight, |a| {
                    Objective::Minimax.real(a, 1.0)
                })?;
                let made = descend(&mut d.session, &made, weight, |a| {
                    Objective::Minimax.fake(a)
                })?;
                Ok(real + made)
            })
            .collect();
        let loss: f64 = losses.into_iter().sum::<Result<f64, SessionError>>()?;
        if !loss.is_finite() {
            return Err(TrainError::Diverged {
                step: step + 1,
                epoch: 1,
            });
        }
        let left = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / fit.steps as f64).cos());
        d.step((fit.rate * left) as f32, 2)?;
        average.step(d.parameters()?);
        progress(step + 1);
    }
    let (table, parameters) = d.tensors()?;
    store(&mut graph, table, average.of(parameters));
    Ok(graph)
}

fn network(form: &Form, hidden: u32, seed: u64) -> Result<Graph, foolproof::ops::OpError> {
    let mut b = Builder::new(&form.shape, (-16.0, 16.0), seed)?;
    let mut x = b.input();
    for _ in 0..2 {
        x = b.dense(x, hidden, Activation::None)?;
        x = b.unary(x, Unary::Tanh)?;
    }
    let x = b.dense(x, 1, Activation::None)?;
    let mut graph = b.finish(x);
    spread(&mut graph, SPREAD, seed);
    Ok(graph)
}

/// The units of the first layer begin to bend between minus and plus this, along every axis.
const SPREAD: f32 = 4.0;

/// The network's answers at these points.
fn at(graph: &Graph, points: &[Vec<f64>]) -> Result<Vec<f32>, TrainError> {
    let x: Vec<f32> = points.iter().flatten().map(|&v| v as f32).collect();
    answers(graph, &x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quadrature_knows_equal_and_disjoint_densities() {
        let p = Mixture::even(0.5, vec![vec![-3.0]]);
        let pair = |q: Mixture| Pair {
            p: p.clone(),
            q,
            range: (-8.0, 8.0),
            points: 3200,
        };
        assert!(pair(p.clone()).divergence().abs() < 1e-12);
        let far = pair(Mixture::even(0.5, vec![vec![4.0]])).divergence();
        assert!((far - 2f64.ln()).abs() < 1e-6, "{far}");
    }

    #[test]
    fn a_discriminator_learns_the_closed_form_from_samples() {
        let fit = Fit {
            hidden: 48,
            steps: 6000,
            batch: 512,
            rate: 5e-3,
        };
        let verdict = judge(&Pair::line(), fit, 1, &mut |_| ()).unwrap();
        assert!(
            (verdict.value - verdict.best_value).abs() < 0.02,
            "{} {}",
            verdict.value,
            verdict.best_value
        );
        // a quadrature of a discriminator can never beat the best one
        assert!(verdict.value <= verdict.best_value + 1e-6);
        assert!(verdict.largest_error < 0.12, "{}", verdict.largest_error);
    }
}
