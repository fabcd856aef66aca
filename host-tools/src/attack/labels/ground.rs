//! What decision-based attacks share: asking about points of the box, and finding the boundary.

use super::super::problem::Problem;
use super::super::random::{below, uniform};
use foolproof::attack::{AttackRng, Ball, Norm};
use foolproof::threat::{Element, LabelOracle};

/// How many patterns are tried before an attack gives up where no pattern fools.
const MOST_DRAWS: u32 = 1000;

/// An oracle that is asked about points of the box, whatever epsilon is: the watcher alone judges what counts.
pub(super) struct Ground<'a, 'p, E, O> {
    oracle: &'a mut O,
    problem: &'a Problem<'p, E>,
    /// The sample.
    pub x: Vec<f32>,
    out: Vec<E>,
}

impl<'a, 'p, E: Element, O: LabelOracle<E>> Ground<'a, 'p, E, O> {
    pub fn new(oracle: &'a mut O, problem: &'a Problem<'p, E>) -> Self {
        Ground {
            oracle,
            problem,
            x: problem.real(),
            out: problem.x.to_vec(),
        }
    }

    fn ball(&self) -> &Ball {
        &self.problem.ball
    }

    /// A value of the box nearest to `v`.
    pub fn boxed(&self, v: f32) -> f32 {
        v.min(self.ball().high).max(self.ball().low)
    }

    /// Whether the input nearest to `v` meets the goal.
    pub fn fools(&mut self, v: &[f32]) -> Result<bool, O::Error> {
        let Ball { low, high, .. } = *self.ball();
        for (o, &v) in self.out.iter_mut().zip(v) {
            *o = E::from_f32(v.min(high).max(low));
        }
        let label = self.oracle.classify(&self.out)?;
        Ok(self.problem.goal.is_met(label))
    }

    /// What was asked about last: `v` as the device saw it.
    pub fn seen(&self, i: usize) -> f32 {
        self.out[i].to_f32()
    }

    /// Distance from the sample.
    pub fn distance(&self, v: &[f32]) -> f32 {
        self.ball().norm.distance(&self.x, v)
    }

    /// A point nearer to the sample by the factor `share`: on the line in the l2 norm, in the linf norm by cutting
    /// all changes (the projections of Chen et al. 2020, section IV.A).
    pub fn nearer(&self, v: &[f32], share: f32) -> Vec<f32> {
        let pairs = self.x.iter().zip(v);
        match self.ball().norm {
            Norm::Linf => {
                let most = share * self.distance(v);
                pairs.map(|(x, v)| v.min(x + most).max(x - most)).collect()
            }
            _ => pairs.map(|(x, v)| x + share * (v - x)).collect(),
        }
    }

    /// From a point that fools towards the sample, as far as it fools: bisection to `tolerance`, a share of the distance.
    pub fn bisect(&mut self, v: &[f32], tolerance: f32) -> Result<Vec<f32>, O::Error> {
        let (mut held, mut fooled) = (0.0, 1.0);
        // on the grid, less than a tenth of a step of every element changes nothing
        let step = match E::LATTICE {
            true => 0.1 / Norm::Linf.distance(&self.x, v).max(1e-6),
            false => 0.0,
        };
        while fooled - held > tolerance.max(step) {
            let middle = 0.5 * (held + fooled);
            match self.fools(&self.nearer(v, middle))? {
                true => fooled = middle,
                false => held = middle,
            }
        }
        Ok(self.nearer(v, fooled))
    }

    /// A point at the boundary, the nearest that random patterns lead to. Patterns are drawn until one fools, and so
    /// many in all; once there is a point, a further pattern costs one query unless it leads nearer. `None` where nothing fools.
    pub fn start(&mut self, rng: &mut AttackRng, draws: u32) -> Result<Option<Vec<f32>>, O::Error> {
        let mut best: Option<Vec<f32>> = None;
        for draw in 0..MOST_DRAWS.max(draws) {
            if best.is_some() && draw >= draws {
                break;
            }
            let mut v = self.pattern(draw, rng);
            if let Some(best) = &best {
                let share = 0.95 * self.distance(best) / self.distance(&v).max(1e-9);
                if share < 1.0 {
                    v = self.nearer(&v, share);
                }
            }
            if self.fools(&v)? {
                best = Some(self.bisect(&v, 0.01)?);
            }
        }
        Ok(best)
    }

    /// Noise, and coarser and coarser random pictures: smooth or of two tones.
    fn pattern(&self, draw: u32, rng: &mut AttackRng) -> Vec<f32> {
        let Ball { low, high, .. } = *self.ball();
        let [h, w, c] = self.problem.shape;
        if draw.is_multiple_of(4) {
            let level = |_| low + (high - low) * uniform(rng);
            return (0..h * w * c).map(level).collect();
        }
        let two_tones = draw % 4 > 1;
        let (rows, columns) = (2 + below(rng, 6), 2 + below(rng, 6));
        let cells: Vec<f32> = (0..rows * columns * c)
            .map(|_| match two_tones {
                true => (below(rng, 2) as f32).min(1.0),
                false => uniform(rng),
            })
            .collect();
        let at = |r: usize, k: usize, channel: usize| {
            cells[(r.min(rows - 1) * columns + k.min(columns - 1)) * c + channel]
        };
        let mut v = Vec::with_capacity(h * w * c);
        for row in 0..h {
            for column in 0..w {
                let y = row as f32 * (rows - 1) as f32 / (h.max(2) - 1) as f32;
                let z = column as f32 * (columns - 1) as f32 / (w.max(2) - 1) as f32;
                let (r, k) = (y as usize, z as usize);
                let (b, a) = (y - r as f32, z - k as f32);
                for channel in 0..c {
                    let level = (1.0 - b)
                        * ((1.0 - a) * at(r, k, channel) + a * at(r, k + 1, channel))
                        + b * ((1.0 - a) * at(r + 1, k, channel) + a * at(r + 1, k + 1, channel));
                    v.push(low + (high - low) * level);
                }
            }
        }
        v
    }
}
