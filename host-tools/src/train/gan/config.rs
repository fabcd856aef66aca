//! What a GAN's training depends on, besides the data.

use super::objective::Objective;
use crate::train::{EPOCHS, TrainError};
use serde::{Deserialize, Serialize};

/// The two networks' form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Dense layers with leaky ReLU (0.2).
    Mlp,
    /// Images with sides that 4 divides: transposed 4x4 convolutions with batch normalization against 4x4 convolutions
    /// (Radford et al., "Unsupervised representation learning with deep convolutional GANs", 2016, section 3).
    Dcgan,
}

/// Everything that a run depends on, besides the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The networks.
    pub network: Network,
    /// Numbers of noise per sample, drawn from the standard normal distribution.
    pub latent: u32,
    /// How many of them, from the first, become 2 or -2, by their sign: samples can then fall into as many as `2^codes` parts with
    /// nothing in between. 0 is none.
    pub codes: u32,
    /// Units of each hidden layer of both players (`mlp`).
    pub hidden: Vec<u32>,
    /// The game.
    pub objective: Objective,
    /// Passes over the data; for data that never ends, 1000 steps each.
    pub epochs: usize,
    /// Samples per step, a multiple of `shard`.
    pub batch: usize,
    /// Samples per session. Part of the result: batch normalization sees one shard, and shards can run side by side.
    pub shard: usize,
    /// Adam's learning rate for the generator.
    pub generator_rate: f64,
    /// Adam's learning rate for the discriminator.
    pub discriminator_rate: f64,
    /// Both rates stay for the first three fifths of the steps and then fall evenly to this share of themselves.
    pub final_rate: f64,
    /// Adam's decay of the first moment.
    pub beta1: f64,
    /// Adam's decay of the second moment.
    pub beta2: f64,
    /// Steps of the discriminator for each of the generator.
    pub discriminator_steps: u64,
    /// What a real sample counts as: below 1 is one-sided label smoothing.
    pub real_label: f64,
    /// Weight of the gradient penalty between real and generated samples, `(|gradient| - 1)^2` (WGAN-GP); 0 is none.
    pub gradient_penalty: f64,
    /// Weight gamma of the gradient penalty on real samples, `gamma / 2 |gradient|^2` (R1); 0 is none.
    pub r1: f64,
    /// Step of the finite difference that makes the penalties' second derivatives, in units of the input.
    pub penalty_step: f64,
    /// Standard deviation of normal noise on everything that the discriminator sees, real or generated, at the start; over the
    /// first four fifths of the steps it falls to `final_noise`, by the same factor at every step (Sønderby et al., "Amortised MAP
    /// inference for image super-resolution", 2017, section 3.3). 0 is none.
    pub instance_noise: f64,
    /// Where instance noise ends.
    pub final_noise: f64,
    /// Decay of the average of the generator's parameters that samples are drawn from; 0 is the last iterate.
    pub ema: f64,
    /// Whether both players are told the class.
    pub conditional: bool,
    /// Early stop: training ends after this many judgements without a better one, and the best generator is kept. What is judged
    /// is the Jensen-Shannon divergence on points and the Fréchet distance on images. 0 never stops.
    pub patience: usize,
}

/// The most weights between the hidden layers: a gigabyte with what Adam keeps of them.
const WEIGHTS: u64 = 1 << 26;
impl Config {
    /// The game of the reference in `docs/training.md`.
    pub fn for_samples() -> Config {
        Config {
            network: Network::Mlp,
            latent: 64,
            codes: 0,
            hidden: vec![256],
            objective: Objective::NonSaturating,
            epochs: 20,
            batch: 64,
            shard: 32,
            generator_rate: 2e-4,
            discriminator_rate: 2e-4,
            final_rate: 1.0,
            beta1: 0.5,
            beta2: 0.999,
            discriminator_steps: 1,
            real_label: 1.0,
            gradient_penalty: 0.0,
            r1: 0.0,
            penalty_step: 0.01,
            instance_noise: 0.0,
            final_noise: 0.05,
            ema: 0.0,
            conditional: false,
            patience: 0,
        }
    }

    /// Defaults for images, where `given` is [`Config::for_samples`] with what a user wants otherwise. The dense players of a game of
    /// probabilities get the penalty R1: generators end nearer to the data (`docs/training.md`). Convolutional ones would lose their
    /// batch normalization by it ([`Config::penalizes`]).
    pub fn beside(given: &Config) -> Config {
        let gains = given.network == Network::Mlp
            && given.objective.has_probabilities()
            && given.gradient_penalty == 0.0;
        Config {
            r1: if gains { 0.05 } else { 0.0 },
            ..Config::for_samples()
        }
    }

    /// Defaults for points of known density: batches large enough to hold every mode, noise that blurs the modes at first, codes that
    /// let the generator tear them apart, and falling rates.
    pub fn for_points() -> Config {
        Config {
            latent: 10,
            codes: 8,
            hidden: vec![128, 128],
            epochs: 6,
            batch: 256,
            shard: 64,
            generator_rate: 1e-3,
            discriminator_rate: 1e-3,
            final_rate: 0.05,
            instance_noise: 1.0,
            ema: 0.995,
            ..Config::for_samples()
        }
    }

    /// The share of the rates that is left after `done` of all steps (0 to 1).
    pub fn rate_left(&self, done: f64) -> f64 {
        1.0 - (1.0 - self.final_rate) * ((done - 0.6) / 0.4).max(0.0)
    }

    /// The standard deviation of instance noise after `done` of all steps (0 to 1).
    pub fn noise_left(&self, done: f64) -> f64 {
        if self.instance_noise == 0.0 {
            return 0.0;
        }
        let ratio = self.final_noise / self.instance_noise;
        self.instance_noise * libm::pow(ratio, (done / 0.8).min(1.0))
    }

    /// Whether the discriminator's gradient is part of its loss. Batch normalization would mix the samples' gradients, so
    /// that the discriminator then has none (Gulrajani et al. 2017, section 4).
    pub fn penalizes(&self) -> bool {
        self.gradient_penalty > 0.0 || self.r1 > 0.0
    }

    /// Samples of a discriminator's session: dense players judge a shard's real and made samples at once. Batch normalization would mix
    /// them, and the gradients of convolutions' weights are summed by blocks that would be others.
    pub fn judged_at_once(&self) -> usize {
        match self.network {
            Network::Mlp => 2 * self.shard,
            Network::Dcgan => self.shard,
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the first setting out of its range.
    pub fn check(&self) -> Result<(), TrainError> {
        let fail = |text: String| Err(TrainError::Config(text));
        let whole = |v: f64, low: f64, high: f64| v.is_finite() && (low..=high).contains(&v);
        if self.latent == 0 || self.latent > 4096 {
            return fail(format!("latent {}; 1 to 4096 would be right", self.latent));
        }
        if self.hidden.iter().any(|&units| units == 0 || units > 65536) || self.hidden.len() > 16 {
            return fail("hidden must be at most 16 layers of 1 to 65536 units".into());
        }
        if self.codes > self.latent {
            return fail(format!(
                "codes {}; at most latent, {}, would be right",
                self.codes, self.latent
            ));
        }
        if self.shard == 0
            || self.shard > 4096
            || self.batch == 0
            || !self.batch.is_multiple_of(self.shard)
        {
            return fail(format!(
                "batch {} with shard {}; the batch must be a multiple of the shard, and the shard 1 to 4096",
                self.batch, self.shard
            ));
        }
        if self.batch > 65536 {
            return fail(format!(
                "batch {}; at most 65536 would be right",
                self.batch
            ));
        }
        let layers = [&[self.latent], &self.hidden[..]].concat();
        let weights = |pair: &[u32]| u64::from(pair[0]) * u64::from(pair[1]);
        if layers.windows(2).map(weights).sum::<u64>() > WEIGHTS {
            return fail(format!(
                "hidden {:?} takes more than {WEIGHTS} weights",
                self.hidden
            ));
        }
        if self.epochs > EPOCHS {
            return fail(format!(
                "epochs {}; 1 to {EPOCHS} would be right",
                self.epochs
            ));
        }
        if self.epochs == 0 || self.discriminator_steps == 0 {
            return fail("epochs and discriminator_steps must be at least 1".into());
        }
        let ranges = [
            ("generator_rate", self.generator_rate, 1e-12, 1e3),
            ("discriminator_rate", self.discriminator_rate, 1e-12, 1e3),
            ("final_rate", self.final_rate, 0.0, 1.0),
            ("beta1", self.beta1, 0.0, 0.999_999),
            ("beta2", self.beta2, 0.0, 0.999_999),
            ("real_label", self.real_label, 0.0, 1.0),
            ("gradient_penalty", self.gradient_penalty, 0.0, 1e6),
            ("r1", self.r1, 0.0, 1e6),
            ("penalty_step", self.penalty_step, 1e-6, 1e3),
            ("instance_noise", self.instance_noise, 0.0, 1e6),
            ("final_noise", self.final_noise, 1e-6, 1e6),
            ("ema", self.ema, 0.0, 0.999_999),
        ];
        for (name, value, low, high) in ranges {
            if !whole(value, low, high) {
                return fail(format!("{name} {value}; {low} to {high} would be right"));
            }
        }
        if self.objective == Objective::WganGp && self.gradient_penalty == 0.0 {
            return fail("objective wgan-gp needs a gradient_penalty; 10 is the paper's".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_noise_fall_when_they_should() {
        let config = Config {
            final_rate: 0.1,
            instance_noise: 1.0,
            final_noise: 0.01,
            ..Config::for_points()
        };
        for (done, rate, noise) in [
            (0.0, 1.0, 1.0),
            (0.4, 1.0, 0.1),
            (0.8, 0.55, 0.01),
            (1.0, 0.1, 0.01),
        ] {
            assert!((config.rate_left(done) - rate).abs() < 1e-9, "{done}");
            assert!((config.noise_left(done) - noise).abs() < 1e-9, "{done}");
        }
        assert_eq!(Config::for_samples().noise_left(0.0), 0.0);
    }

    #[test]
    fn only_dense_players_without_another_penalty_get_r1() {
        let plain = Config::for_samples();
        let r1 = |given: Config| Config::beside(&given).r1;
        assert!(r1(plain.clone()) > 0.0);
        let others = [
            Config {
                network: Network::Dcgan,
                ..plain.clone()
            },
            Config {
                objective: Objective::WganGp,
                gradient_penalty: 10.0,
                ..plain.clone()
            },
            Config {
                objective: Objective::Hinge,
                ..plain
            },
        ];
        assert!(others.into_iter().all(|given| r1(given) == 0.0));
    }
}
