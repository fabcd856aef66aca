//! One shard of one step: the samples as the method wants them, forward, loss, backward.

use super::Samples;
use super::adversary::{Adversary, Method};
use super::config::Config;
use crate::quantize::Aware;
use crate::train::Replica;
use foolproof::attack::AttackRng;
use foolproof::loss::{Loss, argmax};
use foolproof::session::{Session, SessionError};
use rand_core::Rng;

/// What a step of a shard depends on.
pub(super) struct Shard<'a> {
    pub samples: Samples<'a>,
    pub rows: &'a [usize],
    /// As the network sees them.
    pub parameters: &'a [f32],
    pub config: &'a Config,
    /// As wide as it is in this step.
    pub adversary: &'a Adversary,
    pub random: AttackRng,
    /// What [`Method::Free`] (one for each of the shard's samples) and [`Method::Universal`] (one) add to the samples.
    pub perturbation: &'a [f32],
    /// The grids, in quantization-aware training.
    pub aware: Option<&'a Aware>,
}

/// What a shard has to say, besides its loss and its parameters' gradients.
pub(super) struct Learned {
    /// How many of its samples were right, as they were seen.
    pub right: usize,
    /// Gradient of the loss with respect to the perturbation; empty where the method has none.
    pub ascent: Vec<f32>,
}

impl Shard<'_> {
    /// Forward, loss, backward.
    pub fn run(mut self, replica: &mut Replica<'_>) -> Result<Learned, SessionError> {
        let Replica { session, loss } = replica;
        session.parameters()?.copy_from_slice(self.parameters);
        session.zero_parameter_gradients()?;
        let mut x = self.batch(session);
        let steps = self.adversary.steps;
        match self.config.method {
            Method::Standard => {}
            Method::Fast => x = self.examples(session, &x, 1)?,
            Method::Pgd => x = self.examples(session, &x, steps)?,
            Method::Trades => {
                self.round(&mut x);
                let (right, value) = self.trades(session, &x)?;
                *loss = value;
                let ascent = Vec::new();
                return Ok(Learned { right, ascent });
            }
            Method::Free | Method::Universal => self.perturb(&mut x, session.model().input_range()),
        }
        self.round(&mut x);
        let mut logits = self.logits(session, &x)?;
        let (right, value) = self.cross_entropy(&mut logits);
        *loss = value;
        let ascent = match self.config.method {
            Method::Free => session.backward(&logits)?.to_vec(),
            Method::Universal => {
                let mut sum = vec![0.0; self.perturbation.len()];
                for sample in session.backward(&logits)?.chunks_exact(sum.len()) {
                    sum.iter_mut().zip(sample).for_each(|(s, g)| *s += g);
                }
                sum
            }
            _ => {
                session.backward_parameters(&logits)?;
                Vec::new()
            }
        };
        Ok(Learned { right, ascent })
    }

    /// The samples, shifted and with noise.
    fn batch(&mut self, session: &Session<'_>) -> Vec<f32> {
        let shape = session.model().input_shape();
        let n = shape.len();
        let mut x = Vec::with_capacity(n * self.rows.len());
        for &row in self.rows {
            let start = x.len();
            x.extend_from_slice(&self.samples.x[row * n..(row + 1) * n]);
            let size = [shape.dim(1), shape.dim(2), shape.dim(3)];
            self.augment(&mut x[start..], size, session.model().input_range());
        }
        x
    }

    fn logits(&self, session: &mut Session<'_>, x: &[f32]) -> Result<Vec<f32>, SessionError> {
        session.forward_f32(x)?;
        let mut logits = vec![0.0; session.model().classes() * self.rows.len()];
        session.logits(&mut logits)?;
        Ok(logits)
    }

    /// Rounds inputs to those that the int8 model can be given.
    fn round(&self, x: &mut [f32]) {
        if let Some(aware) = self.aware {
            aware.round_inputs(x);
        }
    }

    fn label(&self, i: usize) -> usize {
        self.samples.y[self.rows[i]]
    }

    /// Replaces logits by the gradient of their cross-entropy, the mean over the batch; how many were right, and this shard's part
    /// of the mean.
    fn cross_entropy(&self, logits: &mut [f32]) -> (usize, f64) {
        let (mut right, mut loss) = (0, 0.0);
        let weight = 1.0 / self.config.batch as f32;
        let classes = logits.len() / self.rows.len();
        for (i, z) in logits.chunks_exact_mut(classes).enumerate() {
            let label = self.label(i);
            right += usize::from(argmax(z) == label);
            loss += f64::from(Loss::CrossEntropy.differentiate(label, z) * weight);
            z.iter_mut().for_each(|g| *g *= weight);
        }
        (right, loss)
    }

    /// Adversarial examples: away from the label, or towards a random other one.
    fn examples(
        &mut self,
        session: &mut Session<'_>,
        x: &[f32],
        steps: usize,
    ) -> Result<Vec<f32>, SessionError> {
        let adversary = self.adversary;
        let labels: Vec<usize> = (0..self.rows.len()).map(|i| self.label(i)).collect();
        if !adversary.targeted {
            let away = |i: usize, z: &mut [f32]| {
                Loss::CrossEntropy.differentiate(labels[i], z);
            };
            return adversary.examples(session, x, steps, &mut self.random, away);
        }
        let others = session.model().classes().saturating_sub(1).max(1);
        let targets: Vec<usize> = labels
            .iter()
            .map(|label| (label + 1 + self.random.next_u32() as usize % others) % (others + 1))
            .collect();
        let towards = |i: usize, z: &mut [f32]| {
            Loss::CrossEntropy.differentiate(targets[i], z);
            z.iter_mut().for_each(|g| *g = -*g);
        };
        adversary.examples(session, x, steps, &mut self.random, towards)
    }

    /// Cross-entropy of the samples plus beta times the divergence from the answers to them to those to examples that make it
    /// large (Zhang et al. 2019, equation 5 and algorithm 1). How many examples were right, and the loss.
    fn trades(
        &mut self,
        session: &mut Session<'_>,
        x: &[f32],
    ) -> Result<(usize, f64), SessionError> {
        let adversary = self.adversary;
        let weight = 1.0 / self.config.batch as f32;
        let factor = adversary.beta * weight;
        let classes = session.model().classes();
        let mut clean = self.logits(session, x)?;
        clean.chunks_exact_mut(classes).for_each(log_softmax);
        let apart = |i: usize, z: &mut [f32]| {
            log_softmax(z);
            for (z, p) in z.iter_mut().zip(&clean[i * classes..]) {
                *z = libm::expf(*z) - libm::expf(*p);
            }
        };
        let steps = adversary.steps;
        let mut near = adversary.examples(session, x, steps, &mut self.random, apart)?;
        self.round(&mut near);
        let mut logits = self.logits(session, &near)?;
        let (mut right, mut loss) = (0, 0.0);
        // with respect to the logits of the samples
        let mut pull = Vec::with_capacity(clean.len());
        let pairs = logits
            .chunks_exact_mut(classes)
            .zip(clean.chunks_exact(classes));
        for (i, (q, p)) in pairs.enumerate() {
            right += usize::from(argmax(q) == self.label(i));
            log_softmax(q);
            let terms = p.iter().zip(q.iter());
            let divergence: f32 = terms.map(|(p, q)| libm::expf(*p) * (p - q)).sum();
            loss += f64::from(factor * divergence);
            for (q, p) in q.iter_mut().zip(p) {
                pull.push(factor * libm::expf(*p) * (p - *q - divergence));
                *q = factor * (libm::expf(*q) - libm::expf(*p));
            }
        }
        session.backward_parameters(&logits)?;
        let mut logits = self.logits(session, x)?;
        loss += self.cross_entropy(&mut logits).1;
        logits
            .iter_mut()
            .zip(&pull)
            .for_each(|(g, pull)| *g += pull);
        session.backward_parameters(&logits)?;
        Ok((right, loss))
    }

    fn perturb(&self, x: &mut [f32], (low, high): (f32, f32)) {
        for (v, delta) in x.iter_mut().zip(self.perturbation.iter().cycle()) {
            *v = (*v + delta).clamp(low, high);
        }
    }

    fn augment(&mut self, x: &mut [f32], [h, w, c]: [usize; 3], (low, high): (f32, f32)) {
        let shift = self.config.shift as i64;
        if shift > 0 {
            let mut draw = || i64::from(self.random.next_u32() % (2 * shift as u32 + 1)) - shift;
            let (dy, dx) = (draw(), draw());
            let original = x.to_vec();
            for i in 0..h {
                for j in 0..w {
                    let (from_i, from_j) = (i as i64 - dy, j as i64 - dx);
                    let inside = (0..h as i64).contains(&from_i) && (0..w as i64).contains(&from_j);
                    for k in 0..c {
                        x[(i * w + j) * c + k] = match inside {
                            true => original[(from_i as usize * w + from_j as usize) * c + k],
                            false => low,
                        };
                    }
                }
            }
        }
        let noise = self.config.noise;
        if noise > 0.0 {
            for v in x {
                let unit = (self.random.next_u32() >> 8) as f32 / 16_777_216.0;
                *v = (*v + noise * (2.0 * unit - 1.0)).clamp(low, high);
            }
        }
    }
}

fn log_softmax(z: &mut [f32]) {
    let largest = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = z.iter().map(|&v| libm::expf(v - largest)).sum();
    let log_sum = largest + libm::logf(sum);
    z.iter_mut().for_each(|v| *v -= log_sum);
}
