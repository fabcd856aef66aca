//! Optimizers on fixed buffers: the caller owns parameters, gradients and state.

use crate::kernels::{AdamF32, Kernels, adam_f32};

/// Stochastic gradient descent with momentum and weight decay, as PyTorch defines it:
/// `g += decay * p; m = momentum * m + g; p -= rate * m`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sgd {
    /// Learning rate, positive.
    pub rate: f32,
    /// Momentum, in 0..1.
    pub momentum: f32,
    /// Weight decay (L2), not negative.
    pub decay: f32,
}

impl Sgd {
    /// Elements of state for `n` parameters.
    pub const fn state_len(n: usize) -> usize {
        n
    }

    /// One step. The three slices are equally long; `state` starts at zero.
    pub fn step(&self, parameters: &mut [f32], gradients: &[f32], state: &mut [f32]) {
        for ((p, &g), m) in parameters.iter_mut().zip(gradients).zip(state) {
            *m = self.momentum * *m + (g + self.decay * *p);
            *p -= self.rate * *m;
        }
    }
}

/// Adam (Kingma and Ba 2015, algorithm 1) with decoupled weight decay (Loshchilov and Hutter 2019).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Adam {
    /// Learning rate, positive.
    pub rate: f32,
    /// Decay of the first moment, in 0..1.
    pub beta1: f32,
    /// Decay of the second moment, in 0..1.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay, not negative.
    pub decay: f32,
}

impl Adam {
    /// The paper's defaults with this learning rate.
    pub const fn new(rate: f32) -> Adam {
        Adam {
            rate,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            decay: 0.0,
        }
    }

    /// Elements of state for `n` parameters.
    pub const fn state_len(n: usize) -> usize {
        2 * n
    }

    /// Step number `t`, counted from 1. `state` is twice as long as the parameters and starts at zero.
    pub fn step(&self, t: u32, parameters: &mut [f32], gradients: &[f32], state: &mut [f32]) {
        let (first, second) = state.split_at_mut(state.len() / 2);
        adam_f32(
            Kernels::detect_exact(),
            &self.at(t),
            &[gradients],
            &mut [parameters],
            [first, second],
        );
    }

    /// What step number `t`, counted from 1, multiplies and divides by: each parameter goes its own way, so [`adam_f32`] can step parts of
    /// them side by side.
    pub fn at(&self, t: u32) -> AdamF32 {
        AdamF32 {
            betas: [self.beta1, self.beta2],
            corrections: [self.beta1, self.beta2].map(|beta| 1.0 - libm::powf(beta, t as f32)),
            epsilon: self.epsilon,
            rate: self.rate,
            decay: self.decay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sgd_with_momentum_follows_the_hand_computed_path() {
        let sgd = Sgd {
            rate: 0.1,
            momentum: 0.5,
            decay: 0.0,
        };
        let (mut p, mut m) = ([1.0_f32], [0.0]);
        sgd.step(&mut p, &[2.0], &mut m);
        assert!((p[0] - 0.8).abs() < 1e-7);
        sgd.step(&mut p, &[2.0], &mut m);
        assert!((p[0] - 0.5).abs() < 1e-7);
    }

    #[test]
    fn adams_first_step_is_the_learning_rate_whatever_the_gradients_size() {
        let adam = Adam::new(0.01);
        let (mut p, mut state) = ([1.0_f32, 1.0], [0.0; 4]);
        adam.step(1, &mut p, &[1000.0, -0.001], &mut state);
        assert!((p[0] - 0.99).abs() < 1e-5 && (p[1] - 1.01).abs() < 1e-5);
    }
}
