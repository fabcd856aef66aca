//! What a variational autoencoder's training depends on, besides the data.

use crate::train::TrainError;
use crate::train::gan::config::{Config as GanConfig, Network};
use serde::{Deserialize, Serialize};

/// How an element of a sample is distributed around what the decoder says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Likelihood {
    /// Black or white: the decoder says how likely white is. Elements between the two count as that probability. Images only.
    Bernoulli,
    /// Normal, with the standard deviation `deviation`.
    Gaussian,
}

/// Everything that a run depends on, besides the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The networks: the decoder has the form of a GAN's generator.
    pub network: Network,
    /// Numbers of a code.
    pub latent: u32,
    /// Units of each hidden layer of the decoder (`mlp`); the encoder has them in reverse order.
    pub hidden: Vec<u32>,
    /// What the decoder's answer means.
    pub likelihood: Likelihood,
    /// Standard deviation of the Gaussian likelihood, in units of the decoder's output (images: -1 to 1).
    pub deviation: f64,
    /// Weight of the divergence between code and prior; 1 is the evidence lower bound (Higgins et al., "beta-VAE", 2017).
    pub beta: f64,
    /// Passes over the data.
    pub epochs: usize,
    /// Samples per step, a multiple of `shard`.
    pub batch: usize,
    /// Samples per session. Part of the result: batch normalization sees one shard.
    pub shard: usize,
    /// Adam's learning rate.
    pub rate: f64,
    /// It falls evenly to this share of itself.
    pub final_rate: f64,
    /// Adam's decay of the first moment.
    pub beta1: f64,
    /// Adam's decay of the second moment.
    pub beta2: f64,
}

impl Config {
    /// Defaults for images, or for samples of another kind.
    pub fn defaults(image: bool) -> Config {
        Config {
            network: Network::Mlp,
            latent: 16,
            hidden: vec![256],
            likelihood: if image {
                Likelihood::Bernoulli
            } else {
                Likelihood::Gaussian
            },
            deviation: if image { 0.3 } else { 1.0 },
            beta: 1.0,
            epochs: 20,
            batch: 64,
            shard: 32,
            rate: 1e-3,
            final_rate: 0.1,
            beta1: 0.9,
            beta2: 0.999,
        }
    }

    /// The configuration of a GAN whose generator has the form of the decoder.
    pub fn generator(&self) -> GanConfig {
        GanConfig {
            network: self.network,
            latent: self.latent,
            hidden: self.hidden.clone(),
            ..GanConfig::for_samples()
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the first setting out of its range.
    pub fn check(&self, image: bool) -> Result<(), TrainError> {
        let as_gan = GanConfig {
            epochs: self.epochs,
            batch: self.batch,
            shard: self.shard,
            final_rate: self.final_rate,
            beta1: self.beta1,
            beta2: self.beta2,
            ..self.generator()
        };
        as_gan.check()?;
        let ranges = [
            ("deviation", self.deviation, 1e-3, 1e3),
            ("beta", self.beta, 0.0, 1e6),
            ("rate", self.rate, 1e-12, 1e3),
        ];
        for (name, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                return Err(TrainError::Config(format!(
                    "{name} {value}; {low} to {high} would be right"
                )));
            }
        }
        if self.likelihood == Likelihood::Bernoulli && !image {
            return Err(TrainError::Config(
                "likelihood bernoulli needs images; gaussian would be right".into(),
            ));
        }
        Ok(())
    }
}
