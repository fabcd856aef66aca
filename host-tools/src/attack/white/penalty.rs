//! What attacks share that weigh a distance against a penalty: minimise `d(x, x') + c f(x')`, where `f <= 0` exactly
//! when the goal is met, with c as small as possible.

use super::super::catalog::Settings;
use super::super::problem::Problem;
use crate::error::Result;
use foolproof::loss::{Goal, Loss, Objective};
use foolproof::threat::{Element, Gradient};

/// The hinge `f = (kappa - value)+` on the margin by which the goal is met.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Hinge {
    /// [`Loss::Margin`] (of logits) or [`Loss::ProbabilityMargin`].
    pub loss: Loss,
    /// The margin that counts as success, not negative.
    pub kappa: f32,
}

impl Hinge {
    /// Settings `kappa` (default 0) and `probabilities` (default 0, the hinge is on logits).
    ///
    /// # Errors
    /// A value out of range.
    pub fn of(settings: &mut Settings) -> Result<Hinge> {
        let probabilities = settings.whole("probabilities", 0, 0, 1)? == 1;
        let (loss, most) = match probabilities {
            true => (Loss::ProbabilityMargin, 1.0),
            false => (Loss::Margin, 1e6),
        };
        Ok(Hinge {
            loss,
            kappa: settings.number("kappa", 0.0, 0.0, most)? as f32,
        })
    }

    /// What the oracle is asked to differentiate.
    pub fn objective(&self, goal: Goal) -> Objective {
        Objective {
            loss: self.loss,
            goal,
        }
    }

    /// What a success needs beyond the label.
    pub fn demand(&self) -> Option<(Loss, f32)> {
        (self.kappa > 0.0).then_some((self.loss, self.kappa))
    }

    /// The value of the hinge.
    pub fn excess(&self, answer: &Gradient<'_>) -> f32 {
        (self.kappa - answer.value).max(0.0)
    }

    /// Whether the input asked about is a success.
    pub fn is_met(&self, goal: Goal, answer: &Gradient<'_>) -> bool {
        goal.is_met(answer.label) && answer.value >= self.kappa
    }
}

/// Names and defaults of the settings that [`Hinge::of`] takes.
pub const KAPPA: (&str, &str) = ("kappa", "0");
/// See [`KAPPA`].
pub const PROBABILITIES: (&str, &str) = ("probabilities", "0");

/// The search for the smallest c that succeeds: tenfold up to the first success, then the middle between the
/// largest failure and the smallest success (Carlini and Wagner 2017, section VI.A "Choosing the constant").
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Search {
    /// The constant to try.
    pub c: f32,
    failed: f32,
    succeeded: f32,
}

/// Beyond this c the distance no longer counts (the paper's code stops here too).
const LARGEST: f32 = 1e10;

impl Search {
    /// Begins with this constant.
    pub fn from(c: f32) -> Search {
        Search {
            c,
            failed: 0.0,
            succeeded: f32::INFINITY,
        }
    }

    /// Moves on, knowing whether `c` succeeded.
    pub fn learn(&mut self, success: bool) {
        match success {
            true => self.succeeded = self.succeeded.min(self.c),
            false => self.failed = self.failed.max(self.c),
        }
        self.c = match self.succeeded.is_finite() {
            true => 0.5 * (self.failed + self.succeeded),
            false => (10.0 * self.c).min(LARGEST),
        };
    }
}

/// Ends a descent that no longer gets better: ten times in `steps` the loss must have fallen by a ten-thousandth.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Patience {
    every: u32,
    last: f32,
}

impl Patience {
    /// For a descent of at most `steps` steps.
    pub fn new(steps: u32) -> Patience {
        Patience {
            every: steps.div_ceil(10).max(1),
            last: f32::INFINITY,
        }
    }

    /// Whether to give up after `step` (counted from 0) with this loss.
    pub fn is_over(&mut self, step: u32, loss: f32) -> bool {
        if !step.is_multiple_of(self.every) {
            return false;
        }
        let better = loss <= 0.9999 * self.last;
        self.last = loss;
        !better
    }
}

/// A change of an input in units of the box's width, so that constants mean the same for every box.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Width of the box in units of an element; 0 where there is no room.
    pub width: f32,
    /// Turns a gradient in real units into one per width.
    pub gradient: f32,
}

impl Scale {
    /// The scale of a problem; `None` where the box has no room.
    pub fn of<E: Element>(problem: &Problem<'_, E>) -> Option<Scale> {
        let width = problem.ball.high - problem.ball.low;
        (width > 0.0 && width.is_finite()).then_some(Scale {
            width,
            gradient: width * problem.unit,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_closes_in_on_the_smallest_constant_that_succeeds() {
        let mut search = Search::from(1e-3);
        for _ in 0..30 {
            let c = search.c;
            search.learn(c >= 2.5);
        }
        assert!((search.c - 2.5).abs() < 1e-3, "{search:?}");
        let mut hopeless = Search::from(1e-3);
        (0..60).for_each(|_| hopeless.learn(false));
        assert_eq!(hopeless.c, LARGEST);
    }

    #[test]
    fn patience_ends_with_the_progress() {
        let mut patience = Patience::new(100);
        let end = (0..100).find(|&step| patience.is_over(step, 1.0 / (1 + step.min(35)) as f32));
        // 35 is passed between 30 and 40, and 50 is no better than 40
        assert_eq!(end, Some(50));
    }
}
