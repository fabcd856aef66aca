//! Square attack: Andriushchenko, Croce, Flammarion, Hein, "Square Attack: a query-efficient black-box adversarial
//! attack via random search" (2020), algorithm 1 with algorithms 2 (linf) and 3 (l2): a random square of the image is
//! changed as far as the ball allows, and the change stays if the loss does not fall. It asks for scores only.
//!
//! Defaults are those of AutoAttack (Croce and Hein 2020): the margin, 5000 queries, first squares of 0.8 of the image; the
//! share falls by halves on a schedule for 10,000 queries that is stretched to the queries allowed (theirs is not, and ends at 5000). A change that would
//! change nothing is never asked about (in black corners half of them would be), squares may touch the last row and column,
//! and of equal losses the newer input stays: on int8 scores whole regions are equal, and an attack that only takes
//! better ones stands still there (measured on an int8 MNIST network, 1000 queries, linf 0.1: 73 % withstand that, 48 %
//! this).

use super::ball::{Ball, Norm, length};
use super::{AttackRng, uniform};
use crate::loss::Objective;
use crate::threat::{Element, ScoreOracle};
use rand_core::Rng;

/// Parameters of [`square`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Square {
    /// Where to search, in the linf or the l2 norm.
    pub ball: Ball,
    /// The most that is asked.
    pub queries: u16,
    /// Share of the image that the first squares cover, above 0 and at most 1.
    pub share: f32,
    /// Height, width and channels of the input; their product is its length.
    pub shape: [usize; 3],
}

impl Square {
    /// Elements of scratch for [`square`].
    pub fn scratch_len(norm: Norm, shape: [usize; 3], classes: usize) -> usize {
        let [h, w, c] = shape;
        let n = h * w * c;
        match norm {
            Norm::L2 => classes + 2 * n + rings(h, w),
            _ => classes + n,
        }
    }
}

/// Searches until an input meets the goal or `queries` are asked. `out` receives that input, or else the one with the
/// best objective; returns its label. `state` is the generator and at least [`Square::scratch_len`] elements.
///
/// # Errors
/// The oracle's.
///
/// # Panics
/// Slices shorter than said.
pub fn square<E: Element, O: ScoreOracle<E>>(
    oracle: &mut O,
    parameters: &Square,
    objective: Objective,
    x: &[E],
    out: &mut [E],
    state: (&mut AttackRng, &mut [f32]),
) -> Result<usize, O::Error> {
    let (rng, scratch) = state;
    let (scores, scratch) = scratch.split_at_mut(oracle.classes());
    let asked = Asked {
        oracle,
        objective,
        scores,
    };
    match parameters.ball.norm {
        Norm::L2 => l2(asked, parameters, x, out, (rng, scratch)),
        _ => linf(asked, parameters, x, out, (rng, scratch)),
    }
}

/// An oracle, and what is wanted of it.
struct Asked<'a, O> {
    oracle: &'a mut O,
    objective: Objective,
    scores: &'a mut [f32],
}

impl<O> Asked<'_, O> {
    /// The label of an input and the objective there.
    fn ask<E: Element>(&mut self, x: &[E]) -> Result<(usize, f32), O::Error>
    where
        O: ScoreOracle<E>,
    {
        let label = self.oracle.scores(x, self.scores)?;
        Ok((label, self.objective.differentiate(self.scores)))
    }

    fn is_met(&self, label: usize) -> bool {
        self.objective.goal.is_met(label)
    }
}

/// The share of the image to change at a query: it halves after 0.1, 0.5, 2, 5, 10, 20, 40, 60 and 80 % of them.
fn share_at(first: f32, query: u16, queries: u16) -> f32 {
    let done = 10_000.0 * f32::from(query) / f32::from(queries.max(1));
    let halvings = [
        10.0, 50.0, 200.0, 500.0, 1000.0, 2000.0, 4000.0, 6000.0, 8000.0,
    ]
    .iter()
    .filter(|&&bound| done > bound)
    .count();
    first / (1_u32 << halvings) as f32
}

/// A rectangle of the image: all channels of `rows` x `columns` cells from `(top, left)`.
#[derive(Clone, Copy)]
struct Window {
    top: usize,
    left: usize,
    rows: usize,
    columns: usize,
}

impl Window {
    /// A square that covers `share` of the image (or a longer rectangle, where the image is too narrow for it),
    /// sides at least `least` where the image allows, anywhere.
    fn random(share: f32, least: usize, odd: bool, shape: [usize; 3], rng: &mut AttackRng) -> Self {
        let [h, w, _] = shape;
        let area = share * (h * w) as f32;
        let side = libm::roundf(libm::sqrtf(area)) as usize;
        let longer = |across: usize| libm::roundf(area / across.max(1) as f32) as usize;
        let (rows, columns) = match side {
            side if side > h => (h, longer(h)),
            side if side > w => (longer(w), w),
            side => (side, side),
        };
        let fit = |side: usize, room: usize| {
            let side = side.max(least);
            (side + usize::from(odd && side.is_multiple_of(2))).min(room)
        };
        let (rows, columns) = (fit(rows, h), fit(columns, w));
        Window {
            top: below(h - rows + 1, rng),
            left: below(w - columns + 1, rng),
            rows,
            columns,
        }
    }

    /// The elements of one channel, with their row and column in the window.
    fn cells(
        self,
        channel: usize,
        shape: [usize; 3],
    ) -> impl Iterator<Item = (usize, usize, usize)> + Clone {
        let [_, w, c] = shape;
        let Window {
            top,
            left,
            rows,
            columns,
        } = self;
        (0..rows).flat_map(move |r| {
            (0..columns).map(move |k| (((top + r) * w + left + k) * c + channel, r, k))
        })
    }

    fn holds(self, element: usize, shape: [usize; 3]) -> bool {
        let [_, w, c] = shape;
        let (row, column) = (element / c / w, element / c % w);
        (self.top..self.top + self.rows).contains(&row)
            && (self.left..self.left + self.columns).contains(&column)
    }
}

/// A whole number below `n`, uniform but for what 24 bits cannot say.
fn below(n: usize, rng: &mut AttackRng) -> usize {
    ((uniform(rng) * n as f32) as usize).min(n.saturating_sub(1))
}

fn coin(rng: &mut AttackRng) -> f32 {
    match rng.next_u32() >> 31 {
        0 => -1.0,
        _ => 1.0,
    }
}

/// How often a change that changes nothing is drawn again before there is nothing left to change.
const REDRAWS: usize = 1000;

fn linf<E: Element, O: ScoreOracle<E>>(
    mut asked: Asked<'_, O>,
    parameters: &Square,
    x: &[E],
    out: &mut [E],
    (rng, saved): (&mut AttackRng, &mut [f32]),
) -> Result<usize, O::Error> {
    let Square {
        ball,
        queries,
        shape,
        ..
    } = *parameters;
    let [h, w, c] = shape;
    let radius = match E::LATTICE {
        true => libm::floorf(ball.epsilon),
        false => ball.epsilon,
    };
    let moved = |x: E, sign: f32| {
        let x = x.to_f32();
        E::from_f32(ball.clip(x + sign * radius, x))
    };
    // vertical stripes (section 3.3)
    for column in 0..w {
        for channel in 0..c {
            let sign = coin(rng);
            for row in 0..h {
                let i = (row * w + column) * c + channel;
                out[i] = moved(x[i], sign);
            }
        }
    }
    let (mut label, mut best) = asked.ask(out)?;
    for query in 1..queries {
        if asked.is_met(label) {
            break;
        }
        let share = share_at(parameters.share, query, queries);
        let Some(window) = (0..REDRAWS).find_map(|_| {
            let window = Window::random(share, 1, false, shape, rng);
            let mut changed = false;
            for channel in 0..c {
                let sign = coin(rng);
                for (k, (i, _, _)) in window.cells(channel, shape).enumerate() {
                    let new = moved(x[i], sign);
                    changed |= new != out[i];
                    saved[k * c + channel] = out[i].to_f32();
                    out[i] = new;
                }
            }
            changed.then_some(window)
        }) else {
            break;
        };
        let (new_label, value) = asked.ask(out)?;
        if value >= best || asked.is_met(new_label) {
            (label, best) = (new_label, value);
            continue;
        }
        for channel in 0..c {
            for (k, (i, _, _)) in window.cells(channel, shape).enumerate() {
                out[i] = E::from_f32(saved[k * c + channel]);
            }
        }
    }
    Ok(label)
}

fn l2<E: Element, O: ScoreOracle<E>>(
    mut asked: Asked<'_, O>,
    parameters: &Square,
    x: &[E],
    out: &mut [E],
    (rng, scratch): (&mut AttackRng, &mut [f32]),
) -> Result<usize, O::Error> {
    let Square {
        ball,
        queries,
        shape,
        ..
    } = *parameters;
    let [h, w, c] = shape;
    let (kept, scratch) = scratch.split_at_mut(x.len());
    let (trial, sums) = scratch.split_at_mut(x.len());
    let bumps = Bumps::new(&mut sums[..rings(h, w)]);

    // a grid of 5 x 5 bumps (section 3.4)
    kept.fill(0.0);
    let (rows, columns) = ((h / 5).max(1), (w / 5).max(1));
    for top in (h % rows / 2..=h - rows).step_by(rows) {
        for left in (w % columns / 2..=w - columns).step_by(columns) {
            let window = Window {
                top,
                left,
                rows,
                columns,
            };
            let bump = bumps.bump(rows, columns, rng);
            for channel in 0..c {
                let sign = coin(rng);
                for (i, r, k) in window.cells(channel, shape) {
                    kept[i] = sign * bump.at(r, k);
                }
            }
        }
    }
    stretch(&ball, x, kept, out);
    let (mut label, mut best) = asked.ask(out)?;
    for query in 1..queries {
        if asked.is_met(label) {
            return Ok(label);
        }
        let share = share_at(parameters.share, query, queries);
        let window = Window::random(share, 3, true, shape, rng);
        let other = Window {
            top: below(h - window.rows + 1, rng),
            left: below(w - window.columns + 1, rng),
            ..window
        };
        let bump = bumps.bump(window.rows, window.columns, rng);
        let used = f64::from(length(kept.iter().copied()));
        let unused = (f64::from(ball.epsilon) * f64::from(ball.epsilon) - used * used).max(0.0);
        trial.copy_from_slice(kept);
        for channel in 0..c {
            let cells = window.cells(channel, shape);
            let others = other.cells(channel, shape);
            let here = length(cells.clone().map(|(i, _, _)| kept[i]));
            let both = cells.clone().map(|(i, _, _)| kept[i]).chain(
                others
                    .clone()
                    .filter(|&(i, _, _)| !window.holds(i, shape))
                    .map(|(i, _, _)| kept[i]),
            );
            let both = f64::from(length(both));
            let length_to_be = libm::sqrt(unused / c as f64 + both * both) as f32;
            // the other window gives its length to this one
            others.for_each(|(i, _, _)| trial[i] = 0.0);
            let sign = coin(rng);
            for (i, r, k) in cells.clone() {
                trial[i] = sign * bump.at(r, k) + kept[i] / (here + 1e-12);
            }
            let now = length(cells.clone().map(|(i, _, _)| trial[i]));
            let scale = length_to_be / (now + 1e-12);
            cells.for_each(|(i, _, _)| trial[i] *= scale);
        }
        stretch(&ball, x, trial, out);
        let (new_label, value) = asked.ask(out)?;
        if asked.is_met(new_label) {
            return Ok(new_label);
        }
        if value >= best {
            (label, best) = (new_label, value);
            kept.copy_from_slice(trial);
        }
    }
    // the one that was kept last is the best
    stretch_no_more(&ball, x, kept, out);
    Ok(label)
}

/// Scales a change to the ball's radius, cuts it to the box, and writes the changed input. The change stays cut.
fn stretch<E: Element>(ball: &Ball, x: &[E], change: &mut [f32], out: &mut [E]) {
    let size = length(change.iter().copied());
    let scale = match size > 0.0 {
        true => ball.epsilon / size,
        false => 0.0,
    };
    for (d, x) in change.iter_mut().zip(x) {
        let x = x.to_f32();
        *d = (x + *d * scale).min(ball.high).max(ball.low) - x;
    }
    stretch_no_more(ball, x, change, out);
}

fn stretch_no_more<E: Element>(ball: &Ball, x: &[E], change: &mut [f32], out: &mut [E]) {
    for (d, x) in change.iter_mut().zip(x) {
        *d += x.to_f32();
    }
    ball.snap_l2(change, x, out);
    for (d, x) in change.iter_mut().zip(x) {
        *d -= x.to_f32();
    }
}

/// How many sums [`Bumps`] needs for an image.
fn rings(h: usize, w: usize) -> usize {
    h.max(w) / 2 + 2
}

/// Sums of the first terms of `1 + 1/4 + 1/9 + ...`, of which bumps are made.
struct Bumps<'a> {
    sums: &'a [f32],
}

impl<'a> Bumps<'a> {
    fn new(sums: &'a mut [f32]) -> Self {
        let mut sum = 0.0;
        for (k, s) in sums.iter_mut().enumerate() {
            *s = sum;
            sum += 1.0 / ((k + 1) * (k + 1)) as f32;
        }
        Bumps { sums }
    }

    /// A bump of random orientation (equation 2): one half up, one half down, of length 1.
    fn bump(&self, rows: usize, columns: usize, rng: &mut AttackRng) -> Bump<'_> {
        let across = match (rows, columns) {
            (1, _) => true,
            (_, 1) => false,
            _ => rng.next_u32() >> 31 == 1,
        };
        let mut bump = Bump {
            sums: self.sums,
            size: if across {
                [columns, rows]
            } else {
                [rows, columns]
            },
            across,
            scales: [1.0, -1.0],
        };
        let half = bump.size[0] / 2;
        let of = |from: usize, to: usize| {
            let cells = (from..to).flat_map(|a| (0..bump.size[1]).map(move |b| (a, b)));
            length(cells.map(|(a, b)| bump.height(a, b)))
        };
        let lengths = [of(0, half), of(half, bump.size[0])];
        let halves = lengths.iter().filter(|&&l| l > 0.0).count().max(1) as f32;
        for (scale, length) in bump.scales.iter_mut().zip(lengths) {
            let size = length.max(1e-12) * libm::sqrtf(halves);
            *scale = if *scale > 0.0 {
                1.0 / size
            } else {
                -1.0 / size
            };
        }
        bump
    }
}

/// Two pyramids side by side.
#[derive(Clone, Copy)]
struct Bump<'a> {
    sums: &'a [f32],
    /// Along the two pyramids, and across.
    size: [usize; 2],
    across: bool,
    scales: [f32; 2],
}

impl Bump<'_> {
    fn at(&self, r: usize, k: usize) -> f32 {
        let (a, b) = if self.across { (k, r) } else { (r, k) };
        self.scales[usize::from(a >= self.size[0] / 2)] * self.height(a, b)
    }

    /// Before scaling: the sum of `1 / (k + 1)^2` over the rings `k` around a pyramid's middle that hold the cell.
    fn height(&self, a: usize, b: usize) -> f32 {
        let half = self.size[0] / 2;
        let (a, rows) = match a >= half {
            true => (a - half, self.size[0] - half),
            false => (a, half),
        };
        let columns = self.size[1];
        let ring = a.abs_diff(rows / 2).max(b.abs_diff(columns / 2));
        let last = rows.max(columns) / 2 + 1;
        self.sums[last] - self.sums[ring.min(last)]
    }
}
