//! The adversary in training: which examples the network learns from.

use crate::train::TrainError;
use foolproof::attack::AttackRng;
use foolproof::session::{Session, SessionError};
use rand_core::Rng;
use serde::{Deserialize, Serialize};

/// What the network learns from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The samples as they are.
    Standard,
    /// One step of the sign of the gradient, from a random start (Wong, Rice, Kolter 2020, algorithm 3).
    Fast,
    /// Several such steps, projected to the ball (Madry et al. 2018, section 2.1).
    Pgd,
}

/// What the adversary may do. All sizes are in the input's real units, in the largest norm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adversary {
    /// How far an example may be from its sample.
    pub epsilon: f32,
    /// Size of a step.
    pub step: f32,
    /// Steps of `pgd`; `fast` has one.
    pub steps: usize,
    /// Whether the first step starts anywhere in the ball, not at the sample. Without it `fast` is FGSM, which overfits.
    pub random_start: bool,
}

impl Default for Adversary {
    fn default() -> Self {
        Adversary {
            epsilon: 0.1,
            step: 0.025,
            steps: 7,
            random_start: true,
        }
    }
}

impl Adversary {
    pub(super) fn check(&self) -> Result<(), TrainError> {
        let fail = |text: String| Err(TrainError::Config(text));
        for (name, value) in [("epsilon", self.epsilon), ("step", self.step)] {
            if !value.is_finite() || value <= 0.0 {
                return fail(format!("adversary.{name} {value}; it must be positive"));
            }
        }
        if self.steps == 0 || self.steps > 10_000 {
            return fail(format!(
                "adversary.steps {}; 1 to 10000 would be right",
                self.steps
            ));
        }
        Ok(())
    }

    /// Examples near `x`, each climbing what `price` says: it replaces the logits of the sample with this number in the shard by
    /// the gradient to climb. The session's parameter gradients stay as they are.
    pub(super) fn examples(
        &self,
        session: &mut Session<'_>,
        x: &[f32],
        steps: usize,
        random: &mut AttackRng,
        price: impl Fn(usize, &mut [f32]),
    ) -> Result<Vec<f32>, SessionError> {
        let (low, high) = session.model().input_range();
        let classes = session.model().classes();
        let samples = x.len() / session.model().input_shape().len();
        let mut logits = vec![0.0; classes * samples];
        let mut at = x.to_vec();
        if self.random_start {
            // as in the published code, the first gradient is taken where the start is, within the range or not
            at.iter_mut()
                .for_each(|v| *v += self.epsilon * (2.0 * unit(random) - 1.0));
        }
        for _ in 0..steps {
            session.forward_f32(&at)?;
            session.logits(&mut logits)?;
            for (i, z) in logits.chunks_exact_mut(classes).enumerate() {
                price(i, z);
            }
            let gradient = session.input_gradient(&logits)?;
            for ((v, &x), &g) in at.iter_mut().zip(x).zip(gradient) {
                let delta = (*v - x + self.step * sign(g)).clamp(-self.epsilon, self.epsilon);
                *v = (x + delta).clamp(low, high);
            }
        }
        Ok(at)
    }
}

/// Uniform in 0 to 1.
fn unit(random: &mut AttackRng) -> f32 {
    (random.next_u32() >> 8) as f32 / 16_777_216.0
}

/// The sign, 0 of 0.
fn sign(g: f32) -> f32 {
    if g > 0.0 {
        1.0
    } else if g < 0.0 {
        -1.0
    } else {
        0.0
    }
}
