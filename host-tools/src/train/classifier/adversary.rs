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
    /// The samples, and that the answers to examples near them are the same (TRADES; Zhang et al. 2019, equation 5).
    Trades,
    /// Every batch several times, while the gradient that trains the network also moves the examples (Shafahi et al. 2019,
    /// algorithm 1).
    Free,
    /// The samples with one perturbation for all of them, which the same gradient moves (Shafahi et al. 2020, "Universal
    /// adversarial training").
    Universal,
}

/// What the adversary may do. All sizes are in the input's real units, in the largest norm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adversary {
    /// How far an example may be from its sample.
    pub epsilon: f32,
    /// Size of a step.
    pub step: f32,
    /// Steps of `pgd` and `trades`; `fast` has one.
    pub steps: usize,
    /// Whether the first step starts anywhere in the ball, not at the sample. Without it `fast` is FGSM, which overfits.
    pub random_start: bool,
    /// `fast` and `pgd`: examples go towards another class, a random one for each, instead of away from their own.
    pub targeted: bool,
    /// `trades`: what the divergence counts, beside the loss on the samples.
    pub beta: f32,
    /// `free`: how many steps a batch is used for.
    pub replays: usize,
    /// Share of all training steps over which `epsilon` and `step` grow evenly from 0 to what they are. From the first weights a wide
    /// adversary is hard to learn from (Liu et al., "On the loss landscape of adversarial training", 2020).
    pub ramp: f32,
}

impl Default for Adversary {
    fn default() -> Self {
        Adversary {
            epsilon: 0.1,
            step: 0.025,
            steps: 7,
            random_start: true,
            targeted: false,
            beta: 6.0,
            replays: 4,
            ramp: 0.0,
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
        for (name, value) in [("steps", self.steps), ("replays", self.replays)] {
            if value == 0 || value > 10_000 {
                return fail(format!(
                    "adversary.{name} {value}; 1 to 10000 would be right"
                ));
            }
        }
        if !self.beta.is_finite() || self.beta < 0.0 {
            return fail(format!(
                "adversary.beta {}; it must not be negative",
                self.beta
            ));
        }
        if !(0.0..=1.0).contains(&self.ramp) {
            return fail(format!(
                "adversary.ramp {}; 0 to 1 would be right",
                self.ramp
            ));
        }
        Ok(())
    }

    /// The adversary of a step, counted from 1, of `total`: as wide as the ramp has come.
    pub(super) fn grown(&self, step: u64, total: u64) -> Adversary {
        let done = step as f32 / total.max(1) as f32;
        let mut grown = self.clone();
        if done < self.ramp {
            grown.epsilon *= done / self.ramp;
            grown.step *= done / self.ramp;
        }
        grown
    }

    /// Moves a perturbation up its gradient, by a step of the sign, and back into the ball.
    pub(super) fn ascend(&self, perturbation: &mut [f32], gradient: &[f32]) {
        for (delta, &g) in perturbation.iter_mut().zip(gradient) {
            *delta = (*delta + self.step * sign(g)).clamp(-self.epsilon, self.epsilon);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ball_grows_until_the_ramp_ends() {
        let adversary = Adversary {
            epsilon: 0.4,
            step: 0.5,
            ramp: 0.5,
            ..Adversary::default()
        };
        let sizes = [25, 50, 100].map(|step| {
            let grown = adversary.grown(step, 100);
            (grown.epsilon, grown.step)
        });
        assert_eq!(sizes, [(0.2, 0.25), (0.4, 0.5), (0.4, 0.5)]);
        let at_once = Adversary {
            ramp: 0.0,
            ..adversary
        };
        assert_eq!(at_once.grown(1, 100), at_once);
    }
}
