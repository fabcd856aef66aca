//! Penalties on the discriminator's input gradient `g = dD/dx`. Their gradients with respect to the parameters are of second
//! order. With the direction `v = g / |g|` held fixed, `d|g| / dtheta = d/dt (dD/dtheta)(x + t v)` at `t = 0`: a central
//! *finite difference* of parameter gradients along `v`, two more forward and backward passes, is what is used here. The step is the
//! configuration's `penalty_step`; on piecewise linear networks its error is that of the kinks between the two points.

use foolproof::session::{Session, SessionError};

/// What the penalty of one sample costs, and its slope with respect to `|g|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Penalty {
    /// `lambda (|g| - 1)^2` (Gulrajani et al. 2017, equation 3).
    Gradient(f32),
    /// `gamma / 2 |g|^2` (Mescheder et al., "Which training methods for GANs do actually converge?", 2018, equation 9).
    R1(f32),
}

impl Penalty {
    fn price(self, norm: f32) -> (f32, f32) {
        match self {
            Penalty::Gradient(lambda) => {
                (lambda * (norm - 1.0).powi(2), 2.0 * lambda * (norm - 1.0))
            }
            Penalty::R1(gamma) => (0.5 * gamma * norm * norm, gamma * norm),
        }
    }

    /// Adds the gradient of the mean penalty at the samples `x` to the session's parameter gradients, and returns the sum of
    /// the penalties times `weight`. `free` says which elements of a sample the gradient is taken of (not the class's).
    ///
    /// # Errors
    /// As the session's.
    pub fn add(
        self,
        session: &mut Session<'_>,
        x: &[f32],
        (weight, step): (f32, f32),
        free: &dyn Fn(usize) -> bool,
    ) -> Result<f64, SessionError> {
        let batch = session.options().batch;
        let len = x.len() / batch.max(1);
        session.forward_f32(x)?;
        let mut direction = session.input_gradient(&vec![1.0; batch])?.to_vec();
        let mut slopes = Vec::with_capacity(batch);
        let mut total = 0.0;
        for g in direction.chunks_exact_mut(len) {
            for (i, g) in g.iter_mut().enumerate() {
                if !free(i) {
                    *g = 0.0;
                }
            }
            let norm = g.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt() as f32;
            let (price, slope) = self.price(norm);
            total += f64::from(weight * price);
            let inverse = if norm > 0.0 { 1.0 / norm } else { 0.0 };
            g.iter_mut().for_each(|g| *g *= inverse);
            slopes.push(weight * slope);
        }
        for sign in [1.0, -1.0] {
            let moved: Vec<f32> = x
                .iter()
                .zip(&direction)
                .map(|(&x, &v)| x + sign * step * v)
                .collect();
            let seed: Vec<f32> = slopes.iter().map(|s| sign * s / (2.0 * step)).collect();
            session.forward_f32(&moved)?;
            session.backward_parameters(&seed)?;
        }
        Ok(total)
    }
}
