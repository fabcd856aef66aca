//! The shortest way from a point to a hyperplane inside a box: the step that boundary attacks are made of.

use foolproof::attack::Norm;

/// `w z = b`, and the box `low..=high` that `z` must be in.
pub(super) struct Plane<'a> {
    pub w: &'a [f32],
    pub b: f64,
    pub low: f32,
    pub high: f32,
}

/// The dual norm of `w`: the change of `w z` per unit of length in `norm`.
pub(super) fn dual(norm: Norm, w: &[f32]) -> f32 {
    match norm {
        Norm::Linf => w.iter().map(|w| f64::from(w.abs())).sum::<f64>() as f32,
        Norm::L1 => w.iter().fold(0.0, |most, w| most.max(w.abs())),
        _ => {
            let squares = w.iter().map(|&w| f64::from(w) * f64::from(w));
            squares.sum::<f64>().sqrt() as f32
        }
    }
}

impl Plane<'_> {
    /// The change of `v`, shortest in `norm` (linf, l1 or l2), that reaches the plane without leaving the box; where the box does
    /// not meet the plane, the one that comes nearest to it. `v` should be in the box.
    ///
    /// By duality (Croce and Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack",
    /// section 2.2) every element moves with or against the sign of its weight: as far as all others or to the box (linf), in
    /// proportion to its weight or to the box (l2), or to the box, the largest weights first (l1).
    pub fn shortest_way(&self, norm: Norm, v: &[f32]) -> Vec<f32> {
        let product: f64 = self.w.iter().zip(v).map(|(&w, &v)| prod(w, v)).sum();
        let side = if self.b >= product { 1.0 } else { -1.0 };
        let missing = (self.b - product).abs();
        // how far each element may move in the direction that helps
        let room = |w: f32, v: f32| match side * w > 0.0 {
            true => (self.high - v).max(0.0),
            false => (v - self.low).max(0.0),
        };
        let rooms: Vec<f32> = self.w.iter().zip(v).map(|(&w, &v)| room(w, v)).collect();
        let lengths = match norm {
            Norm::L1 => self.largest_first(missing, &rooms),
            Norm::Linf => self.together(missing, &rooms, |_| 1.0),
            _ => self.together(missing, &rooms, f32::abs),
        };
        let ways = lengths.iter().zip(self.w);
        ways.map(|(length, &w)| match side * w {
            w if w > 0.0 => *length,
            w if w < 0.0 => -*length,
            _ => 0.0,
        })
        .collect()
    }

    /// `min(t pace(w), room)` for the `t` at which the sum of `|w|` times it is `missing`. The sum is concave in `t`, so
    /// Newton's steps from 0 come to it from below, and arrive when no further element meets the box.
    fn together(&self, missing: f64, rooms: &[f32], pace: impl Fn(f32) -> f32) -> Vec<f32> {
        let mut t = 0.0_f64;
        loop {
            let (mut gain, mut slope) = (0.0, 0.0);
            for (&w, &room) in self.w.iter().zip(rooms) {
                let pace = f64::from(pace(w));
                let way = t * pace;
                if way < f64::from(room) {
                    slope += f64::from(w.abs()) * pace;
                    gain += f64::from(w.abs()) * way;
                } else {
                    gain += prod(w.abs(), room);
                }
            }
            let step = (missing - gain) / slope;
            // everything is at the box, or the sum is reached but for rounding
            if slope <= 0.0 || !step.is_finite() || step <= 1e-7 * t {
                break;
            }
            t += step;
        }
        let ways = self.w.iter().zip(rooms);
        ways.map(|(&w, &room)| ((t * f64::from(pace(w))) as f32).min(room))
            .collect()
    }

    /// Elements move to the box, those with the largest weights first, the last one as far as is missing.
    fn largest_first(&self, missing: f64, rooms: &[f32]) -> Vec<f32> {
        let mut order: Vec<usize> = (0..rooms.len()).collect();
        order.sort_by(|&a, &b| self.w[b].abs().total_cmp(&self.w[a].abs()));
        let mut lengths = vec![0.0; rooms.len()];
        let mut missing = missing;
        for i in order {
            let weight = f64::from(self.w[i].abs());
            if missing <= 0.0 || weight <= 0.0 {
                break;
            }
            let length = (missing / weight).min(f64::from(rooms[i]));
            lengths[i] = length as f32;
            missing -= weight * length;
        }
        lengths
    }
}

fn prod(a: f32, b: f32) -> f64 {
    f64::from(a) * f64::from(b)
}

/// `w z`.
pub(super) fn product(w: &[f32], z: &[f32]) -> f64 {
    w.iter().zip(z).map(|(&w, &z)| prod(w, z)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::random::{normal, uniform};

    const NORMS: [Norm; 3] = [Norm::Linf, Norm::L2, Norm::L1];

    fn size(norm: Norm, d: &[f32]) -> f32 {
        norm.distance(d, &vec![0.0; d.len()])
    }

    #[test]
    fn without_the_box_the_way_is_the_distance_over_the_dual_norm() {
        let w = [3.0, -4.0, 0.0, 1.0];
        let plane = Plane {
            w: &w,
            b: 10.0,
            low: -100.0,
            high: 100.0,
        };
        for norm in NORMS {
            let d = plane.shortest_way(norm, &[0.5, 1.0, 7.0, -0.5]);
            // w v = 1.5 - 4 - 0.5 = -3
            let expected = 13.0 / dual(norm, &w);
            assert!((size(norm, &d) - expected).abs() < 1e-5, "{norm:?} {d:?}");
            assert!((product(&w, &d) - 13.0).abs() < 1e-4);
            assert_eq!(d[2], 0.0);
        }
    }

    #[test]
    fn inside_the_box_no_other_way_is_shorter() {
        let mut rng = foolproof::attack::rng(5, 6);
        for _ in 0..200 {
            let n = 6;
            let w: Vec<f32> = (0..n).map(|_| normal(&mut rng)).collect();
            let v: Vec<f32> = (0..n).map(|_| uniform(&mut rng)).collect();
            // a plane through another point of the box, so it can be reached
            let goal: Vec<f32> = (0..n).map(|_| uniform(&mut rng)).collect();
            let plane = Plane {
                w: &w,
                b: product(&w, &goal),
                low: 0.0,
                high: 1.0,
            };
            for norm in NORMS {
                let d = plane.shortest_way(norm, &v);
                let end: Vec<f32> = v.iter().zip(&d).map(|(v, d)| v + d).collect();
                assert!(end.iter().all(|z| (-1e-6..=1.000_001).contains(z)));
                assert!((product(&w, &end) - plane.b).abs() < 1e-4);
                // towards the goal the way can only get longer: the set of feasible ends is convex
                for share in [0.001, 0.1, 1.0] {
                    let other: Vec<f32> =
                        (0..n).map(|i| d[i] + share * (goal[i] - end[i])).collect();
                    assert!(size(norm, &other) >= size(norm, &d) - 1e-5, "{norm:?}");
                }
            }
        }
    }

    #[test]
    fn where_the_plane_is_out_of_reach_the_way_ends_in_the_corner() {
        let plane = Plane {
            w: &[1.0, -2.0],
            b: 50.0,
            low: 0.0,
            high: 1.0,
        };
        for norm in NORMS {
            let d = plane.shortest_way(norm, &[0.25, 0.75]);
            assert_eq!(d, [0.75, -0.75]);
        }
        let flat = Plane {
            w: &[0.0, 0.0],
            ..plane
        };
        for norm in NORMS {
            assert_eq!(flat.shortest_way(norm, &[0.25, 0.75]), [0.0, 0.0]);
        }
    }
}
