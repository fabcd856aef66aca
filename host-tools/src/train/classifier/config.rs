//! What a classifier's training depends on, besides the data and the network's first weights.

use super::adversary::{Adversary, Method};
use crate::train::{EPOCHS, SHARD, TrainError};
use serde::{Deserialize, Serialize};

/// Everything that a run depends on, besides the data and the first weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The network, where training does not start from a model.
    pub network: Network,
    /// Passes over the data.
    pub epochs: usize,
    /// Samples per step, a multiple of `shard`.
    pub batch: usize,
    /// Samples per session. Part of the result: batch normalization sees one shard, and shards can run side by side.
    pub shard: usize,
    /// `adam` or `sgd`.
    pub optimizer: Optimizer,
    /// Largest learning rate.
    pub learning_rate: f32,
    /// How the learning rate changes over the steps.
    pub schedule: Schedule,
    /// Share of all steps over which the learning rate rises from 0.
    pub warmup: f32,
    /// Momentum of SGD.
    pub momentum: f32,
    /// Weight decay (decoupled for Adam).
    pub weight_decay: f32,
    /// Decay of the average of the parameters, taken after every step, that is judged and given back; 0 is the last ones themselves
    /// (Gowal et al., "Uncovering the limits of adversarial training", 2020).
    pub ema: f32,
    /// Images are shifted by up to this many pixels in each direction, at random.
    pub shift: usize,
    /// Uniform noise of up to this size is added to every input element, in real units.
    pub noise: f32,
    /// Training samples that are kept aside: the network is judged by them after every epoch, and catastrophic overfitting is
    /// seen on them.
    pub held_out: usize,
    /// Training ends after this many epochs without a better figure on the held-out samples, and gives back the best; 0 is never.
    pub patience: usize,
    /// What follows when catastrophic overfitting is seen.
    pub on_overfitting: OnOverfitting,
    /// What the network learns from: the samples, or adversarial examples of them.
    pub method: Method,
    /// Whether the network is trained with its weights and activations rounded as in the int8 model, with the grids of each epoch's
    /// beginning; batch normalizations are folded before.
    pub quantization_aware: bool,
    /// The adversary in training.
    pub adversary: Adversary,
}

/// A network with fresh weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Two small convolutions for images, two dense layers for anything else.
    Default,
    /// The MNIST network of Wong, Rice, Kolter 2020: two 4x4 convolutions with stride 2 (16 and 32 filters), dense layers of
    /// 100 units and one per class; PyTorch's first weights.
    WongMnist,
}

/// The rule that turns gradients into steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// Adam.
    Adam,
    /// SGD with momentum.
    Sgd,
}

/// How the learning rate changes over the steps, after it has risen evenly from 0 during the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Half a cosine down to 0 (Loshchilov and Hutter 2017, equation 5 without restarts).
    Cosine,
    /// No change.
    Constant,
    /// Evenly down to 0: with the warm-up one cycle (Smith 2017, "Cyclical learning rates"), which has its peak at its end.
    Cyclic,
    /// A tenth after half of all steps, a hundredth after three quarters (Rice, Wong, Kolter 2020, section 3).
    Step,
}

/// What follows when catastrophic overfitting is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnOverfitting {
    /// A warning, after every epoch that shows it.
    Warn,
    /// A warning, the end of training, and the parameters of the epoch that was best on the held-out samples.
    Stop,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            network: Network::Default,
            epochs: 30,
            batch: 32,
            shard: SHARD,
            optimizer: Optimizer::Adam,
            learning_rate: 4e-3,
            schedule: Schedule::Cosine,
            warmup: 0.05,
            momentum: 0.9,
            weight_decay: 1e-4,
            ema: 0.0,
            shift: 0,
            noise: 0.0,
            held_out: 0,
            patience: 0,
            on_overfitting: OnOverfitting::Warn,
            method: Method::Standard,
            quantization_aware: false,
            adversary: Adversary::default(),
        }
    }
}

impl Config {
    /// Fast adversarial training on MNIST after Wong, Rice, Kolter, "Fast is better than free: revisiting adversarial training" (2020),
    /// section 4.1 and the code that they published (one step of 0.375 from a random start in the ball of 0.3, a cyclic learning
    /// rate, 10 epochs), and what keeps it from overfitting for 30 epochs: noise on the samples before the step (de Jorge et al.,
    /// "Make some noise: reliable and efficient single-step adversarial training", 2022), an adversary that grows from 0
    /// over the first 0.15 of all steps, and averaged parameters.
    pub fn fast_mnist() -> Config {
        Config {
            network: Network::WongMnist,
            epochs: 30,
            batch: 100,
            shard: 25,
            learning_rate: 5e-3,
            schedule: Schedule::Cyclic,
            warmup: 0.4,
            weight_decay: 0.0,
            ema: 0.998,
            noise: 0.1,
            held_out: 500,
            method: Method::Fast,
            adversary: Adversary {
                epsilon: 0.3,
                step: 0.375,
                ramp: 0.15,
                ..Adversary::default()
            },
            ..Config::default()
        }
    }

    /// Steps that each batch is used for.
    pub fn replays(&self) -> usize {
        match self.method {
            Method::Free => self.adversary.replays,
            _ => 1,
        }
    }

    /// Elements of the perturbation that is kept from step to step, for inputs of `n`.
    pub(super) fn perturbation_len(&self, n: usize) -> usize {
        match self.method {
            Method::Free => self.batch * n,
            Method::Universal => n,
            _ => 0,
        }
    }

    /// The share of the learning rate in a step, counted from 1, of `total`.
    pub fn rate_share(&self, step: u64, total: u64) -> f32 {
        let done = step as f32 / total.max(1) as f32;
        if done < self.warmup {
            return done / self.warmup;
        }
        let after = (done - self.warmup) / (1.0 - self.warmup).max(1e-6);
        match self.schedule {
            Schedule::Cosine => 0.5 * (1.0 + (std::f32::consts::PI * after).cos()),
            Schedule::Constant => 1.0,
            Schedule::Cyclic => (1.0 - after).max(0.0),
            Schedule::Step if done <= 0.5 => 1.0,
            Schedule::Step if done <= 0.75 => 0.1,
            Schedule::Step => 0.01,
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// Says which setting is out of its range.
    pub fn check(&self) -> Result<(), TrainError> {
        let fail = |text: String| Err(TrainError::Config(text));
        let (batch, shard) = (self.batch, self.shard);
        if shard == 0 || shard > 4096 {
            return fail(format!("shard {shard}; 1 to 4096 would be right"));
        }
        if batch == 0 || batch > 65536 || !batch.is_multiple_of(shard) {
            return fail(format!("batch {batch}; it must be a multiple of {shard}"));
        }
        if self.epochs == 0 || self.epochs > EPOCHS {
            let epochs = self.epochs;
            return fail(format!("epochs {epochs}; 1 to {EPOCHS} would be right"));
        }
        for (name, value, low, high) in [
            ("learning_rate", self.learning_rate, 1e-12, 1e38),
            ("warmup", self.warmup, 0.0, 1.0),
            ("momentum", self.momentum, 0.0, 0.999_999),
            ("ema", self.ema, 0.0, 0.999_999),
            ("weight_decay", self.weight_decay, 0.0, 1e3),
            ("noise", self.noise, 0.0, 1e3),
        ] {
            if !(low..=high).contains(&value) {
                return fail(format!(
                    "{name} {value:?}; {low:?} to {high:?} would be right"
                ));
            }
        }
        let judged = self.patience > 0 || self.on_overfitting == OnOverfitting::Stop;
        if judged && self.held_out == 0 {
            return fail("patience and on_overfitting = \"stop\" need held_out samples".into());
        }
        let (method, adversary) = (self.method, &self.adversary);
        if method == Method::Trades && !adversary.random_start {
            return fail(
                "method = \"trades\" needs adversary.random_start: at the sample there is nothing to climb"
                    .into(),
            );
        }
        if adversary.targeted && !matches!(method, Method::Fast | Method::Pgd) {
            return fail("adversary.targeted is for the methods fast and pgd".into());
        }
        adversary.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cycle_has_its_peak_after_two_fifths() {
        let config = Config::fast_mnist();
        let shares = [1, 20, 40, 70, 100].map(|step| config.rate_share(step, 100));
        for (share, expected) in shares.into_iter().zip([0.025, 0.5, 1.0, 0.5, 0.0]) {
            assert!((share - expected).abs() < 1e-6, "{shares:?}");
        }
        let steps = Config {
            schedule: Schedule::Step,
            warmup: 0.0,
            ..Config::default()
        };
        assert_eq!(
            [50, 75, 100].map(|step| steps.rate_share(step, 100)),
            [1.0, 0.1, 0.01]
        );
    }

    #[test]
    fn what_is_out_of_its_range_is_named() {
        let plain = Config::default();
        assert!(plain.check().is_ok());
        let wrong = [
            (
                Config {
                    learning_rate: f32::NAN,
                    ..plain.clone()
                },
                "learning_rate NaN",
            ),
            (
                Config {
                    learning_rate: 0.0,
                    ..plain.clone()
                },
                "learning_rate 0",
            ),
            (
                Config {
                    momentum: 1.0,
                    ..plain.clone()
                },
                "momentum 1",
            ),
            (
                Config {
                    epochs: usize::MAX,
                    ..plain.clone()
                },
                "epochs 18446744073709551615",
            ),
            (
                Config {
                    noise: -1.0,
                    ..plain
                },
                "noise -1",
            ),
        ];
        for (config, what) in wrong {
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
