//! Asking an oracle of scores for one number to climb.

use super::super::problem::Problem;
use foolproof::loss::{Loss, Objective};
use foolproof::threat::{Element, ScoreOracle};

/// An oracle, and what is climbed on its scores.
pub(super) struct Asked<'a, 'p, E, O> {
    oracle: &'a mut O,
    problem: &'a Problem<'p, E>,
    objective: Objective,
    scores: Vec<f32>,
    out: Vec<E>,
    last: Vec<E>,
}

impl<'a, 'p, E: Element, O: ScoreOracle<E>> Asked<'a, 'p, E, O> {
    pub fn new(oracle: &'a mut O, problem: &'a Problem<'p, E>, loss: Loss) -> Self {
        Asked {
            oracle,
            problem,
            objective: Objective {
                loss,
                goal: problem.goal,
            },
            scores: vec![0.0; problem.classes],
            out: problem.x.to_vec(),
            last: problem.x.to_vec(),
        }
    }

    /// Moves `v` into the ball and the box, and asks about the input nearest to it.
    pub fn value(&mut self, v: &mut [f32]) -> Result<f32, O::Error> {
        self.problem.place(v, &mut self.out);
        self.ask()
    }

    fn ask(&mut self) -> Result<f32, O::Error> {
        self.oracle.scores(&self.out, &mut self.scores)?;
        Ok(self.objective.differentiate(&mut self.scores))
    }

    /// As [`Asked::value`]; `None`, without a question, where the input is the one that was kept.
    pub fn value_of_another(&mut self, v: &mut [f32]) -> Result<Option<f32>, O::Error> {
        self.problem.place(v, &mut self.out);
        match self.out == self.last {
            true => Ok(None),
            false => self.ask().map(Some),
        }
    }

    /// The input asked about last is the one to differ from.
    pub fn keep(&mut self) {
        self.last.copy_from_slice(&self.out);
    }

    /// One element of the input asked about last, as the device saw it.
    pub fn seen(&self, i: usize) -> f32 {
        self.out[i].to_f32()
    }
}

/// Adam (Kingma and Ba 2015, algorithm 1) on some of the elements at a time, each with its own count of steps.
pub(super) struct Adam {
    rate: f32,
    mean: Vec<f32>,
    square: Vec<f32>,
    steps: Vec<u32>,
}

impl Adam {
    pub fn new(n: usize, rate: f32) -> Adam {
        Adam {
            rate,
            mean: vec![0.0; n],
            square: vec![0.0; n],
            steps: vec![0; n],
        }
    }

    /// How far to move element `i` up a gradient.
    pub fn step(&mut self, i: usize, gradient: f32) -> f32 {
        const MEAN: f32 = 0.9;
        const SQUARE: f32 = 0.999;
        self.steps[i] += 1;
        self.mean[i] = MEAN * self.mean[i] + (1.0 - MEAN) * gradient;
        self.square[i] = SQUARE * self.square[i] + (1.0 - SQUARE) * gradient * gradient;
        let t = self.steps[i].min(10_000) as i32;
        let mean = self.mean[i] / (1.0 - MEAN.powi(t));
        let square = self.square[i] / (1.0 - SQUARE.powi(t));
        self.rate * mean / (square.sqrt() + 1e-8)
    }
}
