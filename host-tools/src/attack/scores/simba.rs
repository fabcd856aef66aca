//! SimBA: Guo, Gardner, You, Wilson, Weinberger, "Simple black-box adversarial attacks" (2019), algorithm 1: one direction of an
//! orthonormal basis after the other, a step forth or back, kept where the probability of the label falls. The
//! basis is that of the elements, or (section 3.2) of the lowest frequencies of the cosine transform.
//!
//! Default step: 0.2 of the box (section 4), in random order without replacement; when all directions were taken, they are
//! taken again. A step that the ball or the box cuts to nothing is not asked about.

use super::super::problem::Problem;
use super::super::random::below;
use super::asked::Asked;
use foolproof::attack::AttackRng;
use foolproof::loss::Loss;
use foolproof::threat::{Element, ScoreOracle};
use std::f32::consts::PI;

/// Simple black-box attack.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Simba {
    /// The most that is asked.
    pub queries: u32,
    /// Length of a step, a share of the box.
    pub step: f32,
    /// The share of frequencies in each direction that are used, or the elements themselves.
    pub frequencies: Option<f32>,
}

impl Simba {
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
        let step = self.step * (problem.ball.high - problem.ball.low);
        let mut asked = Asked::new(oracle, problem, Loss::CrossEntropy);
        let mut iterate = problem.real();
        let mut best = asked.value(&mut iterate)?;
        asked.keep();
        let mut order = self.directions(problem.shape);
        let mut left = self.queries - 1;
        while left > 0 {
            let before = left;
            for i in (1..order.len()).rev() {
                order.swap(i, below(rng, i + 1));
            }
            for &direction in &order {
                for sign in [step, -step] {
                    if left == 0 {
                        return Ok(());
                    }
                    let mut trial = iterate.clone();
                    self.add(direction, sign, problem.shape, &mut trial);
                    let Some(value) = asked.value_of_another(&mut trial)? else {
                        continue;
                    };
                    left -= 1;
                    if value > best {
                        best = value;
                        iterate = trial;
                        asked.keep();
                        break;
                    }
                }
            }
            if left == before {
                // nothing can be changed
                break;
            }
        }
        Ok(())
    }

    /// The basis: row, column and channel of an element, or of a frequency.
    fn directions(&self, [h, w, c]: [usize; 3]) -> Vec<[usize; 3]> {
        let kept = |side: usize| match self.frequencies {
            Some(share) => ((side as f32 * share).ceil() as usize).clamp(1, side),
            None => side,
        };
        let (rows, columns) = (kept(h), kept(w));
        let cells = (0..rows).flat_map(|r| (0..columns).map(move |k| (r, k)));
        cells
            .flat_map(|(r, k)| (0..c).map(move |channel| [r, k, channel]))
            .collect()
    }

    /// Adds a direction of length 1, `step` times.
    fn add(&self, [r, k, channel]: [usize; 3], step: f32, [h, w, c]: [usize; 3], v: &mut [f32]) {
        if self.frequencies.is_none() {
            v[(r * w + k) * c + channel] += step;
            return;
        }
        let (down, across) = (cosine(r, h), cosine(k, w));
        for (row, a) in down.iter().enumerate() {
            for (column, b) in across.iter().enumerate() {
                v[(row * w + column) * c + channel] += step * a * b;
            }
        }
    }
}

/// A row of the orthonormal cosine transform (DCT-II) of `n` points.
fn cosine(frequency: usize, n: usize) -> Vec<f32> {
    let scale = match frequency {
        0 => (1.0 / n as f32).sqrt(),
        _ => (2.0 / n as f32).sqrt(),
    };
    (0..n)
        .map(|i| {
            let angle = PI * (2 * i + 1) as f32 * frequency as f32 / (2 * n) as f32;
            scale * libm::cosf(angle)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::cosine;

    #[test]
    fn cosines_are_orthonormal() {
        for n in [1, 5, 8] {
            for a in 0..n {
                for b in 0..n {
                    let pairs = cosine(a, n).into_iter().zip(cosine(b, n));
                    let dot: f32 = pairs.map(|(a, b)| a * b).sum();
                    let expected = if a == b { 1.0 } else { 0.0 };
                    assert!((dot - expected).abs() < 1e-5, "{a} {b} of {n}: {dot}");
                }
            }
        }
    }
}
