//! The boundary attack: Brendel, Rauber, Bethge, "Decision-based adversarial attacks: reliable attacks against black-box machine
//! learning models" (2018), algorithm 1: a walk along the boundary, a random step on the sphere around the sample and a
//! step towards the sample at a time; kept where it still fools. Both lengths adapt (section 2.3): the
//! first so that about half of the points on the sphere fool, the second so that about a quarter of the steps do.
//!
//! Defaults are those of the authors' toolbox: both steps 0.01 of the distance, adapted by 1.5, a
//! look at the sphere in every tenth step, 25,000 steps. The start is the nearest of several random patterns.

use super::super::problem::Problem;
use super::super::random::normal;
use super::ground::Ground;
use foolproof::attack::{AttackRng, Norm};
use foolproof::threat::{Element, LabelOracle};
use std::collections::VecDeque;

/// The boundary attack.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Boundary {
    /// Steps.
    pub steps: u32,
    /// Patterns to start from.
    pub draws: u32,
}

/// First length of both steps, as a share of the distance.
const FIRST_STEP: f32 = 0.01;
/// By how much lengths are changed.
const FACTOR: f32 = 1.5;
/// A step towards the sample shorter than this: the walk has arrived.
const ARRIVED: f32 = 1e-7;
/// How often the sphere is looked at.
const LOOK: u32 = 10;

/// The last answers of one kind.
struct Answers {
    last: VecDeque<bool>,
    size: usize,
}

impl Answers {
    fn new(size: usize) -> Answers {
        Answers {
            last: VecDeque::new(),
            size,
        }
    }

    fn push(&mut self, answer: bool) {
        if self.last.len() == self.size {
            self.last.pop_front();
        }
        self.last.push_back(answer);
    }

    /// The share of yes where there are enough answers.
    fn share(&self) -> Option<f32> {
        let yes = self.last.iter().filter(|&&yes| yes).count();
        (self.last.len() == self.size).then(|| yes as f32 / self.size as f32)
    }
}

impl Boundary {
    /// Attacks one sample.
    ///
    /// # Errors
    /// The oracle's, which is also how a hunt ends.
    pub fn run<E: Element, O: LabelOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
        rng: &mut AttackRng,
    ) -> Result<(), O::Error> {
        let ground = &mut Ground::new(oracle, problem);
        if ground.fools(&ground.x.clone())? {
            return Ok(());
        }
        let Some(v) = ground.start(rng, self.draws)? else {
            return Ok(());
        };
        let mut v = ground.bisect(&v, 1e-3)?;
        let (mut aside, mut ahead) = (FIRST_STEP, FIRST_STEP);
        let (mut on_sphere, mut nearer) = (Answers::new(100 / LOOK as usize), Answers::new(30));
        for step in 1..=self.steps {
            let distance = Norm::L2.distance(&ground.x, &v);
            if ahead < ARRIVED || distance <= 0.0 {
                break;
            }
            // on the grid a shorter step would be lost in rounding
            let least = match E::LATTICE {
                true => (v.len() as f32).sqrt() / distance,
                false => 0.0,
            };
            let sphere = on_the_sphere(ground, &v, distance * aside.max(least), rng);
            let candidate = towards(ground, &sphere, distance * (1.0 - ahead));
            let fools = ground.fools(&candidate)?;
            nearer.push(fools);
            if fools && Norm::L2.distance(&ground.x, &candidate) < distance {
                v = candidate;
            }
            if step % LOOK == 0 {
                let fools = ground.fools(&sphere)?;
                on_sphere.push(fools);
                match on_sphere.share() {
                    Some(share) if share > 0.5 => {
                        (aside, ahead) = (aside * FACTOR, ahead * FACTOR);
                        on_sphere.last.clear();
                    }
                    Some(share) if share < 0.2 => {
                        (aside, ahead) = (aside / FACTOR, ahead / FACTOR);
                        on_sphere.last.clear();
                    }
                    _ => {}
                }
                match nearer.share() {
                    Some(share) if share > 0.25 => {
                        ahead *= FACTOR;
                        nearer.last.clear();
                    }
                    Some(share) if share < 0.1 => {
                        ahead /= FACTOR;
                        nearer.last.clear();
                    }
                    _ => {}
                }
            }
            ahead = ahead.min(0.5);
        }
        Ok(())
    }
}

/// A random point `length` aside of `v`, pulled back to the sphere on which `v` lies, and cut to the box.
fn on_the_sphere<E: Element, O: LabelOracle<E>>(
    ground: &Ground<'_, '_, E, O>,
    v: &[f32],
    length: f32,
    rng: &mut AttackRng,
) -> Vec<f32> {
    let away: Vec<f32> = v.iter().zip(&ground.x).map(|(v, x)| v - x).collect();
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    let squared = dot(&away, &away);
    let mut aside: Vec<f32> = away.iter().map(|_| normal(rng)).collect();
    let along = (dot(&aside, &away) / squared) as f32;
    for (a, r) in aside.iter_mut().zip(&away) {
        *a -= along * r;
    }
    let scale = f64::from(length) / dot(&aside, &aside).sqrt().max(1e-12);
    let shrink = (squared / (squared + f64::from(length) * f64::from(length))).sqrt();
    let points = ground.x.iter().zip(&away).zip(&aside);
    points
        .map(|((x, r), a)| {
            let moved = f64::from(*r) + scale * f64::from(*a);
            ground.boxed(x + (shrink * moved) as f32)
        })
        .collect()
}

/// The point on the way from `v` to the sample that is `distance` away from it, or `v` where that is nearer.
fn towards<E: Element, O: LabelOracle<E>>(
    ground: &Ground<'_, '_, E, O>,
    v: &[f32],
    distance: f32,
) -> Vec<f32> {
    let from = Norm::L2.distance(&ground.x, v);
    let share = (distance / from.max(1e-12)).min(1.0);
    let pairs = ground.x.iter().zip(v);
    pairs.map(|(x, v)| x + share * (v - x)).collect()
}
