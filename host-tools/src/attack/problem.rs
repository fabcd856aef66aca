//! What one attack on one sample is given.

use foolproof::attack::Ball;
use foolproof::loss::Goal;
use foolproof::threat::Element;

/// One sample to attack, in the units of its elements: real for f32, LSB for int8.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a, E> {
    /// The input.
    pub x: &'a [E],
    /// What the attacker wants.
    pub goal: Goal,
    /// Where to search. An attack that looks for the nearest adversarial input may be given an infinite epsilon; then
    /// the box alone is the bound.
    pub ball: Ball,
    /// Real units per unit of an element: the input's scale for int8, 1 for f32. Gradients are in real units;
    /// times this they are per unit of an element.
    pub unit: f32,
    /// Number of classes.
    pub classes: usize,
    /// Height, width and channels of the input; a list of numbers is one row (see [`image_shape`]).
    pub shape: [usize; 3],
}

/// Height, width and channels of an input with these dimensions (batch left out): the last is the channels if there are three
/// or more. Two dimensions are a picture of one channel, one dimension is a row. Dimensions before the last three
/// count as rows.
pub fn image_shape(dims: &[usize]) -> [usize; 3] {
    match *dims {
        [] => [1, 1, 1],
        [n] => [1, n, 1],
        [h, w] => [h, w, 1],
        [ref before @ .., h, w, c] => [before.iter().product::<usize>() * h, w, c],
    }
}

impl<E: Element> Problem<'_, E> {
    /// The input as numbers.
    pub fn real(&self) -> Vec<f32> {
        self.x.iter().map(|x| x.to_f32()).collect()
    }

    /// Moves `v` into the ball and the box, and writes the nearest input that the device can see into `out`
    /// (see [`Ball::place`]).
    pub fn place(&self, v: &mut [f32], out: &mut [E]) {
        self.ball.place(v, self.x, out);
    }

    /// The middle and half the width of the box: for attacks that search in `atanh` space.
    pub fn box_centre(&self) -> (f32, f32) {
        let Ball { low, high, .. } = self.ball;
        (0.5 * (low + high), 0.5 * (high - low))
    }

    /// A label that does not meet the goal.
    pub fn unmet_label(&self) -> usize {
        match self.goal {
            Goal::Avoid(class) => class,
            Goal::Reach(class) => usize::from(class == 0),
        }
    }
}
