//! The set that an attack may search: a norm ball around the input, cut by the box of possible values.

use super::uniform;
use crate::threat::Element;
use rand_core::Rng;

/// How the size of a perturbation is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[cfg_attr(feature = "link", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Norm {
    /// The largest change of an element.
    Linf,
    /// The Euclidean length of the change.
    L2,
    /// The sum of the changes' sizes.
    L1,
    /// The number of elements that change.
    L0,
}

impl Norm {
    /// The distance of two inputs, in their elements' units. Sums in f64 in a fixed order.
    pub fn distance<E: Element>(self, a: &[E], b: &[E]) -> f32 {
        let differences = a.iter().zip(b).map(|(a, b)| a.to_f32() - b.to_f32());
        match self {
            Norm::Linf => differences.fold(0.0, |most, d| most.max(libm::fabsf(d))),
            Norm::L2 => length(differences),
            Norm::L1 => differences.map(|d| f64::from(libm::fabsf(d))).sum::<f64>() as f32,
            Norm::L0 => differences.filter(|&d| d != 0.0).count() as f32,
        }
    }
}

/// A ball of radius `epsilon`, and the box `low..=high` of values that an element can have. All three in the
/// input's units: real for f32, LSB for int8.
#[derive(Clone, Copy, PartialEq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[cfg_attr(feature = "link", derive(serde::Serialize, serde::Deserialize))]
pub struct Ball {
    /// How distance is measured.
    pub norm: Norm,
    /// Radius, not negative.
    pub epsilon: f32,
    /// Smallest value of an element.
    pub low: f32,
    /// Largest value of an element.
    pub high: f32,
}

impl Ball {
    /// Moves `v` to a point of the ball and the box near it, and writes the nearest input that the type can
    /// represent and that is still inside into `out`. An infinite epsilon leaves the box alone as the bound.
    /// In the linf norm the point is the nearest there is; in the others it is near.
    pub fn place<E: Element>(&self, v: &mut [f32], x: &[E], out: &mut [E]) {
        match self.norm {
            Norm::Linf => {
                for ((v, o), &x) in v.iter_mut().zip(out).zip(x) {
                    let centre = x.to_f32();
                    *v = self.clip(*v, centre);
                    // on the lattice a fractional radius is cut towards the centre
                    let rounded = E::from_f32(*v);
                    *o = match !E::LATTICE || libm::fabsf(rounded.to_f32() - centre) <= self.epsilon
                    {
                        true => rounded,
                        false => E::from_f32(centre + libm::truncf(*v - centre)),
                    };
                }
            }
            Norm::L2 => {
                self.project_l2(v, x);
                self.snap_l2(v, x, out);
            }
            Norm::L1 => {
                self.project_l1(v, x);
                for ((v, o), &x) in v.iter().zip(out).zip(x) {
                    let centre = x.to_f32();
                    *o = match E::LATTICE && self.epsilon.is_finite() {
                        true => E::from_f32(centre + libm::truncf(*v - centre)),
                        false => E::from_f32(*v),
                    };
                }
            }
            Norm::L0 => {
                self.project_l0(v, x);
                for (v, o) in v.iter().zip(out) {
                    *o = E::from_f32(*v);
                }
            }
        }
    }

    /// Whether `y` is in the ball around `x` and in the box, but for f32 rounding.
    pub fn contains<E: Element>(&self, x: &[E], y: &[E]) -> bool {
        let boxed = y
            .iter()
            .all(|y| (self.low..=self.high).contains(&y.to_f32()));
        boxed && self.norm.distance(x, y) <= self.epsilon * (1.0 + 1e-5) + 1e-6
    }

    /// Soft-thresholds the change, then cuts it to the box, with the threshold at which its l1 length fits: that is the nearest
    /// point of the ball and the box (Croce and Hein 2021, "Mind the box", proposition 3.1). The threshold is found by
    /// bisection, which needs no sorting.
    pub(super) fn project_l1<E: Element>(&self, v: &mut [f32], x: &[E]) {
        let change_at = |v: f32, x: f32, threshold: f32| {
            let change = v - x;
            let kept = sign(change) * (libm::fabsf(change) - threshold).max(0.0);
            (x + kept).min(self.high).max(self.low) - x
        };
        let length_at = |v: &[f32], threshold: f32| -> f64 {
            let changes = v.iter().zip(x).map(|(v, x)| {
                let change = change_at(*v, x.to_f32(), threshold);
                f64::from(libm::fabsf(change))
            });
            changes.sum()
        };
        let epsilon = f64::from(self.epsilon);
        let mut threshold = 0.0;
        if length_at(v, 0.0) > epsilon {
            let most = |most: f32, (v, x): (&f32, &E)| most.max(libm::fabsf(*v - x.to_f32()));
            let (mut below, mut above) = (0.0, v.iter().zip(x).fold(0.0, most));
            for _ in 0..40 {
                let middle = 0.5 * (below + above);
                match length_at(v, middle) > epsilon {
                    true => below = middle,
                    false => above = middle,
                }
            }
            threshold = above;
        }
        for (v, x) in v.iter_mut().zip(x) {
            let x = x.to_f32();
            *v = x + change_at(*v, x, threshold);
        }
    }

    /// Keeps the `floor(epsilon)` largest changes, the first of equals.
    fn project_l0<E: Element>(&self, v: &mut [f32], x: &[E]) {
        let budget = self.epsilon.min(v.len() as f32).max(0.0) as usize;
        let mut most = 0.0_f32;
        for (v, x) in v.iter_mut().zip(x) {
            *v = v.min(self.high).max(self.low);
            most = most.max(libm::fabsf(*v - x.to_f32()));
        }
        let above = |v: &[f32], threshold: f32| {
            let changes = v.iter().zip(x).map(|(v, x)| libm::fabsf(*v - x.to_f32()));
            changes.filter(|&change| change > threshold).count()
        };
        if above(v, 0.0) <= budget {
            return;
        }
        // a threshold that too many pass and one that few enough pass, as near as f32 can have them
        let (mut below, mut enough) = (0.0, most);
        for _ in 0..60 {
            let middle = 0.5 * (below + enough);
            match above(v, middle) > budget {
                true => below = middle,
                false => enough = middle,
            }
        }
        let mut ties = budget - above(v, enough);
        for (v, x) in v.iter_mut().zip(x) {
            let x = x.to_f32();
            let change = libm::fabsf(*v - x);
            let tie = change > below && change <= enough && ties > 0;
            ties -= usize::from(tie);
            if !tie && change <= enough {
                *v = x;
            }
        }
    }

    /// The point nearest to `v` that differs from `x` by at most epsilon and lies in the box, for one element
    /// in the linf norm.
    pub(super) fn clip(&self, v: f32, x: f32) -> f32 {
        // max and min, not clamp: a NaN epsilon or an input outside the box must not panic
        let v = v.min(x + self.epsilon).max(x - self.epsilon);
        v.min(self.high).max(self.low)
    }

    /// The direction in which to step along a gradient: its sign (linf), or the gradient over its length (l2).
    /// A zero gradient gives zero. Returns the factor for [`Ball::direction`].
    pub(super) fn direction_scale(&self, gradient: &[f32]) -> f32 {
        match self.norm {
            Norm::Linf | Norm::L1 | Norm::L0 => 1.0,
            Norm::L2 => match length(gradient.iter().copied()) {
                l if l > 0.0 && l.is_finite() => 1.0 / l,
                _ => 0.0,
            },
        }
    }

    /// One element of the step direction; `scale` is from [`Ball::direction_scale`].
    pub(super) fn direction(&self, g: f32, scale: f32) -> f32 {
        match self.norm {
            Norm::Linf | Norm::L1 | Norm::L0 => sign(g),
            Norm::L2 => g * scale,
        }
    }

    /// A random point of the ball around `x`, box included: uniform in the linf ball (whole steps on the
    /// lattice), and in the l2 and l1 balls a uniform direction with a uniform radius^n.
    pub(super) fn random_start<E: Element>(
        &self,
        x: &[E],
        rng: &mut impl Rng,
        mut put: impl FnMut(usize, f32),
    ) {
        let variate: fn(u32, u32) -> f32 = match self.norm {
            Norm::Linf | Norm::L0 => {
                for (i, v) in x.iter().enumerate() {
                    let v = v.to_f32();
                    let offset = match E::LATTICE {
                        false => (2.0 * uniform(rng) - 1.0) * self.epsilon,
                        true => {
                            let e = libm::floorf(self.epsilon);
                            libm::floorf(uniform(rng) * (2.0 * e + 1.0)) - e
                        }
                    };
                    put(i, self.clip(v + offset, v));
                }
                return;
            }
            Norm::L2 => gaussian,
            Norm::L1 => laplacian,
        };
        // two passes over one random stream: the first measures, the second places
        let n = x.len();
        let radius = self.epsilon * libm::powf(uniform(rng), 1.0 / n.max(1) as f32);
        let base = rng.next_u32();
        let direction = |i: usize| variate(base, i as u32);
        let size = match self.norm {
            Norm::L1 => (0..n)
                .map(|i| f64::from(libm::fabsf(direction(i))))
                .sum::<f64>() as f32,
            _ => length((0..n).map(direction)),
        };
        let scale = if size > 0.0 { radius / size } else { 0.0 };
        for (i, v) in x.iter().enumerate() {
            let v = v.to_f32() + direction(i) * scale;
            put(i, v.min(self.high).max(self.low));
        }
    }

    /// Pulls `v` back into the l2 ball around `x` and the box. The box is convex and holds `x`, so
    /// shrinking after cutting keeps the point inside.
    pub(super) fn project_l2<E: Element>(&self, v: &mut [f32], x: &[E]) {
        for v in v.iter_mut() {
            *v = v.min(self.high).max(self.low);
        }
        let distance = length(v.iter().zip(x).map(|(v, x)| v - x.to_f32()));
        if distance > self.epsilon {
            let shrink = self.epsilon / distance;
            for (v, x) in v.iter_mut().zip(x) {
                let x = x.to_f32();
                *v = x + (*v - x) * shrink;
            }
        }
    }

    /// Writes the representable point near `v` into `out`. On the lattice rounding may leave the l2 ball, then
    /// the perturbation is shrunk until its rounding is inside; cutting towards `x` always is.
    pub(super) fn snap_l2<E: Element>(&self, v: &[f32], x: &[E], out: &mut [E]) {
        let mut shrink = 1.0;
        for _ in 0..SNAP_TRIES {
            for ((o, &v), x) in out.iter_mut().zip(v).zip(x) {
                let x = x.to_f32();
                *o = match E::LATTICE {
                    true => E::from_f32(x + libm::roundf((v - x) * shrink)),
                    false => E::from_f32(v),
                };
            }
            let distance = length(out.iter().zip(x).map(|(o, x)| o.to_f32() - x.to_f32()));
            if !E::LATTICE || distance <= self.epsilon {
                return;
            }
            shrink *= 0.97;
        }
        for ((o, &v), x) in out.iter_mut().zip(v).zip(x) {
            let x = x.to_f32();
            *o = E::from_f32(x + libm::truncf(v - x));
        }
    }
}

const SNAP_TRIES: usize = 16;

/// -1, 0 or 1; 0 for NaN.
pub(super) fn sign(v: f32) -> f32 {
    if v > 0.0 {
        1.0
    } else if v < 0.0 {
        -1.0
    } else {
        0.0
    }
}

/// Euclidean length; sums in f64 in a fixed order, so that large inputs lose nothing.
pub(super) fn length(v: impl Iterator<Item = f32>) -> f32 {
    let sum: f64 = v.map(|v| f64::from(v) * f64::from(v)).sum();
    libm::sqrt(sum) as f32
}

/// A standard normal number from a hash of `(seed, i)` (Box and Muller 1958): random access, so a vector of them
/// need not be stored.
pub(super) fn gaussian(seed: u32, i: u32) -> f32 {
    let a = hash(seed, 2 * i);
    let b = hash(seed, 2 * i + 1);
    let radius = libm::sqrtf(-2.0 * libm::logf(((a >> 8) + 1) as f32 * (1.0 / 16_777_216.0)));
    let angle = (b >> 8) as f32 * (core::f32::consts::TAU / 16_777_216.0);
    radius * libm::cosf(angle)
}

/// A Laplace number from a hash: directions of these are uniform in the l1 norm.
fn laplacian(seed: u32, i: u32) -> f32 {
    let size = -libm::logf(((hash(seed, 2 * i) >> 8) + 1) as f32 * (1.0 / 16_777_216.0));
    match hash(seed, 2 * i + 1) >> 31 {
        0 => size,
        _ => -size,
    }
}

/// A well-mixed 32-bit hash: two rounds of multiply and xor-shift (constants of murmur3's finalizer).
fn hash(seed: u32, i: u32) -> u32 {
    let mut h = seed ^ i.wrapping_mul(0x9e37_79b9);
    for _ in 0..2 {
        h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
        h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
        h ^= h >> 16;
    }
    h
}

#[cfg(test)]
mod tests {
    use super::*;

    const BALL: Ball = Ball {
        norm: Norm::L2,
        epsilon: 5.0,
        low: -128.0,
        high: 127.0,
    };

    #[test]
    fn snapping_never_leaves_the_ball() {
        let x = [0_i8; 24];
        for seed in 0..200 {
            let mut v = [0.0; 24];
            for (i, v) in v.iter_mut().enumerate() {
                *v = 100.0 * gaussian(seed, i as u32);
            }
            BALL.project_l2(&mut v, &x);
            let mut out = [0_i8; 24];
            BALL.snap_l2(&v, &x, &mut out);
            let distance = length(out.iter().map(|&o| o as f32));
            assert!(distance <= 5.0, "{distance}");
            assert!(
                distance > 2.0,
                "snapping must not throw the perturbation away: {distance}"
            );
        }
    }

    #[test]
    fn random_starts_fill_the_ball_and_stay_inside() {
        let x = [10_i8; 50];
        let mut rng = crate::attack::rng(1, 2);
        let (mut low, mut high) = (0, 0);
        let ball = Ball {
            norm: Norm::Linf,
            epsilon: 3.0,
            ..BALL
        };
        for _ in 0..50 {
            ball.random_start(&x, &mut rng, |_, v| {
                assert_eq!(v, libm::roundf(v));
                assert!((7.0..=13.0).contains(&v));
                low += usize::from(v == 7.0);
                high += usize::from(v == 13.0);
            });
        }
        // 2500 draws of 7 values: about 357 each
        assert!(low > 250 && high > 250, "{low} {high}");
    }

    #[test]
    fn every_placed_point_is_inside() {
        let x: [i8; 40] = core::array::from_fn(|i| (i as i16 * 6 - 120) as i8);
        let real: [f32; 40] = core::array::from_fn(|i| f32::from(x[i]));
        for (norm, epsilon) in [
            (Norm::Linf, 7.5),
            (Norm::L2, 20.0),
            (Norm::L1, 55.5),
            (Norm::L0, 6.0),
        ] {
            let ball = Ball {
                norm,
                epsilon,
                ..BALL
            };
            for seed in 0..100 {
                let far = |i: usize| real[i] + 90.0 * gaussian(seed, i as u32);
                let mut v: [f32; 40] = core::array::from_fn(far);
                let mut out = [0_i8; 40];
                ball.place(&mut v, &x, &mut out);
                assert!(ball.contains(&x, &out), "{norm:?} on the lattice");
                assert!(
                    norm.distance(&x, &out) > 0.5 * epsilon,
                    "{norm:?}: too timid"
                );
                let mut v: [f32; 40] = core::array::from_fn(far);
                let mut out = [0.0_f32; 40];
                ball.place(&mut v, &real, &mut out);
                assert!(ball.contains(&real, &out), "{norm:?}");
                assert!(
                    norm.distance(&real, &out) > 0.98 * epsilon,
                    "{norm:?}: too timid"
                );
            }
        }
    }

    #[test]
    fn gaussians_have_mean_zero_and_variance_one() {
        let n = 20_000;
        let (mut sum, mut squares) = (0.0, 0.0);
        for i in 0..n {
            let g = f64::from(gaussian(7, i));
            sum += g;
            squares += g * g;
        }
        assert!((sum / f64::from(n)).abs() < 0.03);
        assert!((squares / f64::from(n) - 1.0).abs() < 0.05);
    }
}
