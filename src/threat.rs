//! What an attacker may touch: threat models as traits.
//!
//! An attack's bound *is* its threat model, so the compiler refuses an attack more than it may know. Nobody may
//! touch the weights. Inputs are of type `E`: f32 in real units, or int8 on the grid that the device really sees.
//! A session in this process, a chip on a line, or another program can stand behind these traits.
//!
//! A black-box attack that asks for a gradient does not compile:
//! ```compile_fail,E0599
//! # use foolproof::loss::{Goal, Loss, Objective};
//! use foolproof::threat::{Element, GradientOracle, ScoreOracle};
//! # let _ = |_: &dyn GradientOracle<f32, Error = ()>| ();
//! fn attack<E: Element, O: ScoreOracle<E>>(oracle: &mut O, x: &[E]) -> Result<f32, O::Error> {
//! #   let objective = Objective { loss: Loss::Margin, goal: Goal::Avoid(0) };
//!     Ok(oracle.gradient(x, objective)?.value)
//! }
//! ```
//! The same attack as a white box does; its bound is the only difference:
//! ```
//! # use foolproof::loss::{Goal, Loss, Objective};
//! use foolproof::threat::{Element, GradientOracle, ScoreOracle};
//! # let _ = |_: &dyn GradientOracle<f32, Error = ()>| ();
//! fn attack<E: Element, O: GradientOracle<E>>(oracle: &mut O, x: &[E]) -> Result<f32, O::Error> {
//! #   let objective = Objective { loss: Loss::Margin, goal: Goal::Avoid(0) };
//!     Ok(oracle.gradient(x, objective)?.value)
//! }
//! ```
//! Nor can a white-box attack be aimed at a target that only answers with labels:
//! ```compile_fail,E0277
//! # use foolproof::attack::{Ball, Norm, fgsm};
//! # use foolproof::loss::{Goal, Loss, Objective};
//! # use foolproof::threat::LabelOracle;
//! # let ball = Ball { norm: Norm::Linf, epsilon: 0.1, low: 0.0, high: 1.0 };
//! # let objective = Objective { loss: Loss::Margin, goal: Goal::Avoid(0) };
//! struct Chip;
//! impl LabelOracle<f32> for Chip {
//!     // ...
//! #   type Error = ();
//! #   fn input_len(&self) -> usize { 1 }
//! #   fn classes(&self) -> usize { 2 }
//! #   fn classify(&mut self, x: &[f32]) -> Result<usize, ()> { Ok(usize::from(x[0] > 0.5)) }
//! }
//! let label = fgsm(&mut Chip, &ball, objective, &[0.45], &mut [0.0]);
//! ```
//! With the two other traits it can:
//! ```
//! # use foolproof::attack::{Ball, Norm, fgsm};
//! # use foolproof::loss::{Goal, Loss, Objective};
//! # use foolproof::threat::{Gradient, GradientOracle, LabelOracle, ScoreOracle};
//! # let ball = Ball { norm: Norm::Linf, epsilon: 0.1, low: 0.0, high: 1.0 };
//! # let objective = Objective { loss: Loss::Margin, goal: Goal::Avoid(0) };
//! struct Chip;
//! impl LabelOracle<f32> for Chip {
//!     // ...
//! #   type Error = ();
//! #   fn input_len(&self) -> usize { 1 }
//! #   fn classes(&self) -> usize { 2 }
//! #   fn classify(&mut self, x: &[f32]) -> Result<usize, ()> { Ok(usize::from(x[0] > 0.5)) }
//! }
//! impl ScoreOracle<f32> for Chip {
//!     // ...
//! #   fn scores(&mut self, x: &[f32], z: &mut [f32]) -> Result<usize, ()> { z.copy_from_slice(&[0.5, x[0]]); self.classify(x) }
//! }
//! impl GradientOracle<f32> for Chip {
//!     // ...
//! #   fn gradient(&mut self, x: &[f32], _: Objective) -> Result<Gradient<'_>, ()> {
//! #       Ok(Gradient { label: self.classify(x)?, value: x[0] - 0.5, input: &[1.0] })
//! #   }
//! }
//! let label = fgsm(&mut Chip, &ball, objective, &[0.45], &mut [0.0]);
//! assert_eq!(label, Ok(1));
//! ```

use crate::loss::Objective;

/// The type of an input's elements.
pub trait Element: Copy + PartialEq {
    /// Whether values lie on a grid of integers.
    const LATTICE: bool;
    /// The value as a number: real units, or LSB.
    fn to_f32(self) -> f32;
    /// The nearest value of this type, saturating; NaN gives zero on the lattice.
    fn from_f32(v: f32) -> Self;
}

impl Element for f32 {
    const LATTICE: bool = false;
    fn to_f32(self) -> f32 {
        self
    }
    fn from_f32(v: f32) -> f32 {
        v
    }
}

impl Element for i8 {
    const LATTICE: bool = true;
    fn to_f32(self) -> f32 {
        self as f32
    }
    fn from_f32(v: f32) -> i8 {
        libm::roundf(v) as i8
    }
}

/// Black box, decision only: answers with a label.
pub trait LabelOracle<E: Element> {
    /// What can go wrong when asking.
    type Error;
    /// Elements of one input.
    fn input_len(&self) -> usize;
    /// Number of classes.
    fn classes(&self) -> usize;
    /// The label of one input.
    fn classify(&mut self, x: &[E]) -> Result<usize, Self::Error>;
}

/// Black box with scores.
pub trait ScoreOracle<E: Element>: LabelOracle<E> {
    /// The label and, in `scores` (as long as there are classes), the logits in real units.
    fn scores(&mut self, x: &[E], scores: &mut [f32]) -> Result<usize, Self::Error>;
}

/// White box: also the gradient of any objective with respect to the input.
pub trait GradientOracle<E: Element>: ScoreOracle<E> {
    /// Runs forward and backward on one input. Costs one query and one gradient.
    fn gradient(&mut self, x: &[E], objective: Objective) -> Result<Gradient<'_>, Self::Error>;
}

/// The answer of a [`GradientOracle`].
#[derive(Clone, Copy, Debug)]
pub struct Gradient<'a> {
    /// The label of the input asked about.
    pub label: usize,
    /// The objective's value there.
    pub value: f32,
    /// Its gradient with respect to the input, in real units; as long as the input.
    pub input: &'a [f32],
}

/// An oracle that counts what it is asked and refuses beyond a budget.
#[derive(Clone, Debug)]
pub struct Counted<O> {
    oracle: O,
    budget: Budget,
    /// Forward passes so far, those of gradients included.
    pub queries: u64,
    /// Backward passes so far.
    pub gradients: u64,
}

/// How often an oracle may be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Forward passes.
    pub queries: u64,
    /// Backward passes.
    pub gradients: u64,
}

impl Budget {
    /// As often as one likes.
    pub const UNLIMITED: Budget = Budget {
        queries: u64::MAX,
        gradients: u64::MAX,
    };
}

/// What a counted oracle answers when it does not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum CountedError<E> {
    /// The budget is used up.
    BudgetSpent,
    /// The oracle itself failed.
    Oracle(E),
}

impl<E: core::fmt::Display> core::fmt::Display for CountedError<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            CountedError::BudgetSpent => write!(f, "the budget of queries or gradients is spent"),
            CountedError::Oracle(e) => e.fmt(f),
        }
    }
}

impl<E: core::fmt::Debug + core::fmt::Display> core::error::Error for CountedError<E> {}

impl<O> Counted<O> {
    /// Counts what `oracle` is asked from now on.
    pub fn new(oracle: O, budget: Budget) -> Counted<O> {
        Counted {
            oracle,
            budget,
            queries: 0,
            gradients: 0,
        }
    }

    /// The oracle inside.
    pub fn into_inner(self) -> O {
        self.oracle
    }

    fn spend<E>(&mut self, gradients: u64) -> Result<(), CountedError<E>> {
        let over = self.queries >= self.budget.queries
            || self.gradients + gradients > self.budget.gradients;
        if over {
            return Err(CountedError::BudgetSpent);
        }
        self.queries += 1;
        self.gradients += gradients;
        Ok(())
    }
}

impl<E: Element, O: LabelOracle<E>> LabelOracle<E> for Counted<O> {
    type Error = CountedError<O::Error>;
    fn input_len(&self) -> usize {
        self.oracle.input_len()
    }
    fn classes(&self) -> usize {
        self.oracle.classes()
    }
    fn classify(&mut self, x: &[E]) -> Result<usize, Self::Error> {
        self.spend(0)?;
        self.oracle.classify(x).map_err(CountedError::Oracle)
    }
}

impl<E: Element, O: ScoreOracle<E>> ScoreOracle<E> for Counted<O> {
    fn scores(&mut self, x: &[E], scores: &mut [f32]) -> Result<usize, Self::Error> {
        self.spend(0)?;
        self.oracle.scores(x, scores).map_err(CountedError::Oracle)
    }
}

impl<E: Element, O: GradientOracle<E>> GradientOracle<E> for Counted<O> {
    fn gradient(&mut self, x: &[E], objective: Objective) -> Result<Gradient<'_>, Self::Error> {
        self.spend(1)?;
        self.oracle
            .gradient(x, objective)
            .map_err(CountedError::Oracle)
    }
}
