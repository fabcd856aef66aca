//! Fast adaptive boundary attack: Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack"
//! (ICML 2020), algorithm 1. It looks for the nearest adversarial input, in the linf, l2 or l1 norm, with the box as its only bound.
//!
//! Each iteration linearizes the classifier, picks the nearest of the linear boundaries (equation 7), and goes to a mix of the
//! projections of the iterate and of the sample on it (equation 9), `eta = 1.05` times as far as needed (equation 10); the share of
//! the sample's is `alpha_max = 0.1` at most (equation 8). On the far side of the boundary it comes back towards the sample by
//! `beta = 0.9` (equation 11). `fab` looks at the boundaries to all other classes; `fab-t` has a search for each of the nine
//! classes that score highest (section 5 of Croce and Hein, "Reliable evaluation of adversarial robustness", ICML 2020).
//! Defaults are those of AutoAttack's standard version: 100 iterations, one start, from the sample. After that the segment to
//! the best point is bisected, as the paper's final search does.
//!
//! On the lattice the classifier is linearized at the input that the device saw, and the iterate keeps its fraction.
//!
//! Costs per iteration one query, and one gradient for each boundary looked at: one for `fab-t` and for a goal that names a
//! class to reach, `classes - 1` for `fab`.

use super::White;
use super::hyperplane::{Plane, dual, product};
use super::rank;
use crate::attack::random::{normal, uniform};
use crate::attack::{Access, Attack, Entry, Problem, Settings};
use crate::error::Result as Made;
use foolproof::attack::{AttackRng, Ball, Norm};
use foolproof::loss::{Goal, Loss, Objective};
use foolproof::threat::{Element, GradientOracle, LabelOracle};

/// The fast adaptive boundary attack with its settings.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Fab {
    /// Other classes to search towards one by one; `None` looks at all their boundaries at once.
    pub targets: Option<u16>,
    /// Iterations per start.
    pub steps: u16,
    /// Starts; the first is the sample itself, later ones are random.
    pub starts: u16,
    /// Largest share of the sample's projection.
    pub alpha_max: f32,
    /// How much further than the linear boundary a step goes.
    pub eta: f32,
    /// The share of the perturbation that is left after a success.
    pub beta: f32,
}

/// `fab`.
pub const ENTRY: Entry = Entry::new("fab", Access::Gradients, NORMS, |s| make(s, None))
    .about("fast adaptive boundary attack (Croce and Hein 2020)")
    .with(&[
        ("steps", "100"),
        ("starts", "1"),
        ("alpha_max", "0.1"),
        ("eta", "1.05"),
        ("beta", "0.9"),
    ])
    .nearest();

/// `fab-t`.
pub const CLASS_BY_CLASS: Entry = Entry::new("fab-t", Access::Gradients, NORMS, |s| {
    let targets = s.whole("targets", 9, 1, 10_000)? as u16;
    make(s, Some(targets))
})
.about("fast adaptive boundary attack, class by class (Croce and Hein 2020)")
.with(&[
    ("steps", "100"),
    ("starts", "1"),
    ("targets", "9"),
    ("alpha_max", "0.1"),
    ("eta", "1.05"),
    ("beta", "0.9"),
])
.nearest();

const NORMS: &[Norm] = &[Norm::Linf, Norm::L2, Norm::L1];

fn make(s: &mut Settings, targets: Option<u16>) -> Made<Attack> {
    Ok(Attack::White(White::Fab(Fab {
        targets,
        steps: s.whole("steps", 100, 1, 10_000)? as u16,
        starts: s.whole("starts", 1, 1, 1_000)? as u16,
        alpha_max: s.number("alpha_max", 0.1, 0.0, 1.0)? as f32,
        eta: s.number("eta", 1.05, 1.0, 10.0)? as f32,
        beta: s.number("beta", 0.9, 0.0, 1.0)? as f32,
    })))
}

impl Default for Fab {
    fn default() -> Fab {
        Fab {
            targets: None,
            steps: 100,
            starts: 1,
            alpha_max: 0.1,
            eta: 1.05,
            beta: 0.9,
        }
    }
}

/// Queries of the final search in each start.
const BISECTIONS: usize = 4;

impl Fab {
    pub(super) fn run<E: Element, O: GradientOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
        rng: &mut AttackRng,
    ) -> Result<(), O::Error> {
        let toward = |class: usize, other: usize| Objective {
            loss: Loss::Difference(other as u16),
            goal: Goal::Avoid(class),
        };
        let searches: Vec<Vec<Objective>> = match (problem.goal, self.targets) {
            // the active one of the target's boundaries is that to its strongest rival
            (goal @ Goal::Reach(_), _) => vec![vec![Objective {
                loss: Loss::Margin,
                goal,
            }]],
            (Goal::Avoid(class), None) => {
                let others = (0..problem.classes).filter(|&c| c != class);
                vec![others.map(|other| toward(class, other)).collect()]
            }
            (Goal::Avoid(class), Some(most)) => {
                let mut scores = vec![0.0; problem.classes];
                oracle.scores(problem.x, &mut scores)?;
                let others = rank::others(&scores, class);
                let others = others.iter().take(usize::from(most));
                others.map(|&other| vec![toward(class, other)]).collect()
            }
        };
        for boundaries in &searches {
            let mut search = Search {
                fab: self,
                problem,
                sample: problem.real(),
                boundaries,
                best: None,
            };
            for start in 0..self.starts {
                let from = match start {
                    0 => search.sample.clone(),
                    _ => search.random_start(rng),
                };
                search.descend(oracle, from)?;
                search.bisect(oracle)?;
            }
        }
        Ok(())
    }
}

/// One search for the nearest point beyond some boundaries.
struct Search<'a, 'p, E> {
    fab: &'a Fab,
    problem: &'a Problem<'p, E>,
    sample: Vec<f32>,
    boundaries: &'a [Objective],
    /// The nearest adversarial input of this search, and its distance.
    best: Option<(Vec<E>, f32)>,
}

impl<E: Element> Search<'_, '_, E> {
    /// Algorithm 1 from `v`.
    fn descend<O: GradientOracle<E>>(
        &mut self,
        oracle: &mut O,
        mut v: Vec<f32>,
    ) -> Result<(), O::Error> {
        let ball = box_alone(&self.problem.ball);
        let Ball { low, high, .. } = ball;
        let norm = ball.norm;
        let mut seen = self.problem.x.to_vec();
        for _ in 0..self.fab.steps {
            ball.place(&mut v, self.problem.x, &mut seen);
            let Some((w, b)) = self.nearest_boundary(oracle, &seen)? else {
                return Ok(());
            };
            let plane = Plane {
                w: &w,
                b,
                low,
                high,
            };
            let own = plane.shortest_way(norm, &v);
            let samples = plane.shortest_way(norm, &self.sample);
            let size = |d: &[f32]| norm.distance(d, &vec![0.0; d.len()]).max(1e-8);
            let (near, far) = (size(&own), size(&samples));
            let alpha = (near / (near + far)).min(self.fab.alpha_max);
            for (i, v) in v.iter_mut().enumerate() {
                let from_iterate = *v + self.fab.eta * own[i];
                let from_sample = self.sample[i] + self.fab.eta * samples[i];
                *v = (1.0 - alpha) * from_iterate + alpha * from_sample;
            }
            ball.place(&mut v, self.problem.x, &mut seen);
            if self.is_adversarial(oracle, &seen)? {
                for ((v, seen), x) in v.iter_mut().zip(&seen).zip(&self.sample) {
                    *v = x + self.fab.beta * (seen.to_f32() - x);
                }
            }
        }
        Ok(())
    }

    /// The linear boundary nearest to `seen`: `w z = b` in units of the elements. `None` where no score has a slope.
    fn nearest_boundary<O: GradientOracle<E>>(
        &self,
        oracle: &mut O,
        seen: &[E],
    ) -> Result<Option<(Vec<f32>, f64)>, O::Error> {
        let at: Vec<f32> = seen.iter().map(|v| v.to_f32()).collect();
        let mut nearest: Option<(f32, Vec<f32>, f64)> = None;
        for &boundary in self.boundaries {
            let answer = oracle.gradient(seen, boundary)?;
            let w: Vec<f32> = answer.input.iter().map(|g| g * self.problem.unit).collect();
            let distance = answer.value.abs() / dual(self.problem.ball.norm, &w);
            let is_nearer = nearest.as_ref().is_none_or(|(least, ..)| distance < *least);
            if distance.is_finite() && is_nearer {
                let b = product(&w, &at) - f64::from(answer.value);
                nearest = Some((distance, w, b));
            }
        }
        Ok(nearest.map(|(_, w, b)| (w, b)))
    }

    fn is_adversarial<O: LabelOracle<E>>(
        &mut self,
        oracle: &mut O,
        seen: &[E],
    ) -> Result<bool, O::Error> {
        let label = oracle.classify(seen)?;
        let fooled = self.problem.goal.is_met(label);
        if fooled {
            let distance = self.problem.ball.norm.distance(self.problem.x, seen);
            if self
                .best
                .as_ref()
                .is_none_or(|(_, least)| distance < *least)
            {
                self.best = Some((seen.to_vec(), distance));
            }
        }
        Ok(fooled)
    }

    /// The final search: along the segment from the sample to the best point.
    fn bisect<O: LabelOracle<E>>(&mut self, oracle: &mut O) -> Result<(), O::Error> {
        let Some((best, _)) = self.best.clone() else {
            return Ok(());
        };
        let ball = box_alone(&self.problem.ball);
        let mut seen = best.clone();
        // a boundary search ends within a few percent of the boundary
        let (mut inside, mut outside) = (0.9_f32, 1.0_f32);
        for _ in 0..BISECTIONS {
            let share = 0.5 * (inside + outside);
            let mut v: Vec<f32> = (self.sample.iter().zip(&best))
                .map(|(x, best)| x + share * (best.to_f32() - x))
                .collect();
            ball.place(&mut v, self.problem.x, &mut seen);
            match self.is_adversarial(oracle, &seen)? {
                true => outside = share,
                false => inside = share,
            }
        }
        Ok(())
    }

    /// Half as far from the sample as the best point, and as epsilon, in a random direction (section 2.4).
    fn random_start(&self, rng: &mut AttackRng) -> Vec<f32> {
        let Ball {
            norm,
            epsilon,
            low,
            high,
        } = self.problem.ball;
        let best = self.best.as_ref().map_or(f32::INFINITY, |(_, d)| *d);
        let radius = match best.min(epsilon) {
            radius if radius.is_finite() => radius,
            // the defaults of the authors' code, for elements from 0 to 1
            _ => match norm {
                Norm::Linf => 0.3 * (high - low),
                Norm::L1 => 5.0 * (high - low),
                _ => high - low,
            },
        };
        let direction: Vec<f32> = (self.sample.iter())
            .map(|_| match norm {
                Norm::Linf => 2.0 * uniform(rng) - 1.0,
                _ => normal(rng),
            })
            .collect();
        let size = norm.distance(&direction, &vec![0.0; direction.len()]);
        let scale = 0.5 * radius / size.max(f32::MIN_POSITIVE);
        (self.sample.iter().zip(direction))
            .map(|(x, d)| x + scale * d)
            .collect()
    }
}

/// The box alone: who looks for the nearest adversarial input may pass through any.
pub(super) fn box_alone(ball: &Ball) -> Ball {
    Ball {
        epsilon: f32::INFINITY,
        ..*ball
    }
}
