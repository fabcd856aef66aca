//! HopSkipJump: Chen, Jordan, Wainwright, "HopSkipJumpAttack: a query-efficient decision-based attack" (2020), algorithm 2.
//! At a point of the boundary the normal is estimated from labels of random neighbours (equation 9, with the
//! baseline of equation 16), a step along it leads away from the boundary, and bisection leads back, nearer to the sample.
//!
//! Defaults are the paper's (section V: 100 neighbours in the first step, growing with the root of the step), but for
//! three things, each of which measured better: the start is the nearest of several random patterns; neighbours of earlier steps
//! go on counting (`memory`), since the normal turns slowly; and of several step lengths the one that leads
//! nearest is taken, which costs a query for each that does not.

use super::super::problem::Problem;
use super::super::random::normal;
use super::ground::Ground;
use foolproof::attack::{AttackRng, Norm};
use foolproof::threat::{Element, LabelOracle};

/// HopSkipJump in the l2 or the linf norm.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct HopSkipJump {
    /// Steps, of which each ends at the boundary.
    pub steps: u32,
    /// Neighbours asked about in the first step.
    pub neighbours: u32,
    /// Patterns to start from.
    pub draws: u32,
    /// How much of the last step's estimate counts: 0 (the paper) to 1.
    pub memory: f32,
    /// Distance of neighbours, as a share of the distance to the sample; otherwise one over the number of elements (the paper's), and
    /// 0.3 on the grid, where what is nearer is lost in the rounding of the activations.
    pub radius: Option<f32>,
}

/// Where bisection ends, as a share of the distance.
const TOLERANCE: f32 = 1e-4;

/// The most neighbours that are asked about in a step (the paper's limit).
const MOST_NEIGHBOURS: f32 = 10_000.0;

impl HopSkipJump {
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
        let mut v = ground.bisect(&v, TOLERANCE)?;
        let mut direction = vec![0.0; v.len()];
        for step in 0..self.steps {
            let distance = ground.distance(&v);
            if distance <= 0.0 {
                break;
            }
            direction.iter_mut().for_each(|g| *g *= self.memory);
            let root = ((step + 1) as f32).sqrt();
            let neighbours = (self.neighbours as f32 * root).min(MOST_NEIGHBOURS) as u32;
            self.ask_neighbours(ground, &v, neighbours, (&mut direction, rng))?;
            let move_along = match problem.ball.norm {
                Norm::Linf => direction.iter().map(|g| g.signum()).collect(),
                _ => unit(&direction),
            };
            let Some(nearer) = jump(ground, &v, &move_along)? else {
                continue;
            };
            v = ground.bisect(&nearer, TOLERANCE)?;
        }
        Ok(())
    }

    /// Adds `(label of v + u) u` to the estimate, for random `u`, less the mean label.
    fn ask_neighbours<E: Element, O: LabelOracle<E>>(
        &self,
        ground: &mut Ground<'_, '_, E, O>,
        v: &[f32],
        neighbours: u32,
        (direction, rng): (&mut [f32], &mut AttackRng),
    ) -> Result<(), O::Error> {
        let n = v.len();
        // on the grid a neighbour is a step of some elements away at least
        let least = if E::LATTICE { (n as f32).sqrt() } else { 0.0 };
        let share = self.radius.unwrap_or(match E::LATTICE {
            true => 0.3,
            false => 1.0 / n as f32,
        });
        let radius = (share * Norm::L2.distance(&ground.x, v)).max(least);
        let (mut plus, mut all) = (vec![0.0; n], vec![0.0; n]);
        let mut fooled = 0;
        for _ in 0..neighbours {
            let u: Vec<f32> = (0..n).map(|_| normal(rng)).collect();
            let u = unit(&u);
            let w: Vec<f32> = v.iter().zip(&u).map(|(v, u)| v + radius * u).collect();
            let fools = ground.fools(&w)?;
            fooled += u32::from(fools);
            for i in 0..n {
                // as far as it really went: the box and the grid cut it
                let went = (ground.seen(i) - v[i]) / radius;
                all[i] += went;
                if fools {
                    plus[i] += went;
                }
            }
        }
        // sum of (s - mean s) u with s = 1 where it fools and -1 where not
        let share = fooled as f32 / neighbours.max(1) as f32;
        for ((g, p), a) in direction.iter_mut().zip(plus).zip(all) {
            *g += match fooled {
                0 => -a,
                f if f == neighbours => a,
                _ => 2.0 * (p - share * a),
            };
        }
        Ok(())
    }
}

/// Of points ahead on the direction, the one that leads nearest to the sample, if one leads nearer than `v`.
fn jump<E: Element, O: LabelOracle<E>>(
    ground: &mut Ground<'_, '_, E, O>,
    v: &[f32],
    direction: &[f32],
) -> Result<Option<Vec<f32>>, O::Error> {
    let distance = ground.distance(v);
    let mut best: Option<Vec<f32>> = None;
    let mut length = 2.0 * distance;
    for tried in 0..14 {
        if tried > 6 && best.is_some() {
            break;
        }
        let ahead: Vec<f32> = v
            .iter()
            .zip(direction)
            .map(|(v, g)| ground.boxed(v + length * g))
            .collect();
        length *= 0.5;
        let nearest = best.as_ref().map_or(distance, |best| ground.distance(best));
        let share = 0.998 * nearest / ground.distance(&ahead).max(1e-9);
        let candidate = ground.nearer(&ahead, share.min(1.0));
        if ground.fools(&candidate)? {
            best = Some(ground.bisect(&candidate, 0.01)?);
        } else if best.is_some() {
            // shorter steps lead back to where it came from
            break;
        }
    }
    Ok(best)
}

/// Of length 1; zero stays zero.
fn unit(v: &[f32]) -> Vec<f32> {
    let length = v
        .iter()
        .map(|&v| f64::from(v) * f64::from(v))
        .sum::<f64>()
        .sqrt();
    let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
    v.iter().map(|&v| (f64::from(v) * scale) as f32).collect()
}
