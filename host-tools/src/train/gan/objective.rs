//! What the two players want: losses of the discriminator's answer `a` (a logit: the probability that the input is real is
//! `1 / (1 + exp(-a))`; a plain score in the objectives that know no probability), with their slopes.

use serde::{Deserialize, Serialize};

/// The game.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Goodfellow et al., "Generative adversarial nets" (2014), equation 1: the generator descends `log(1 - D)`.
    Minimax,
    /// The same paper, section 3: the generator climbs `log D`, which has a slope where the discriminator is sure.
    NonSaturating,
    /// Mao et al., "Least squares generative adversarial networks" (2017), equation 9: targets 1, 0 and (generator) 1.
    LeastSquares,
    /// Lim and Ye, "Geometric GAN" (2017); Miyato et al. (2018), equations 16 and 17.
    Hinge,
    /// Gulrajani et al., "Improved training of Wasserstein GANs" (2017), equation 3: scores, and a gradient penalty.
    WganGp,
}

/// A loss and its slope with respect to `a`.
pub type Priced = (f64, f32);

/// `log(1 + exp(a))`, without overflow.
pub fn softplus(a: f32) -> f64 {
    let a = f64::from(a);
    a.max(0.0) + libm::log1p(libm::exp(-a.abs()))
}

/// `1 / (1 + exp(-a))`.
pub fn sigmoid(a: f32) -> f64 {
    1.0 / (1.0 + libm::exp(-f64::from(a)))
}

impl Objective {
    /// The discriminator's loss on a real sample. `label` is what "real" counts as: 1, or less with one-sided label
    /// smoothing (Salimans et al., "Improved techniques for training GANs", 2016, section 3.4).
    pub fn real(self, a: f32, label: f32) -> Priced {
        let label64 = f64::from(label);
        match self {
            Objective::Minimax | Objective::NonSaturating => {
                let loss = label64 * softplus(-a) + (1.0 - label64) * softplus(a);
                (loss, (sigmoid(a) - label64) as f32)
            }
            Objective::LeastSquares => (0.5 * f64::from(a - label).powi(2), a - label),
            Objective::Hinge if a < 1.0 => (f64::from(1.0 - a), -1.0),
            Objective::Hinge => (0.0, 0.0),
            Objective::WganGp => (f64::from(-a), -1.0),
        }
    }

    /// The discriminator's loss on a generated sample.
    pub fn fake(self, a: f32) -> Priced {
        match self {
            Objective::Minimax | Objective::NonSaturating => (softplus(a), sigmoid(a) as f32),
            Objective::LeastSquares => (0.5 * f64::from(a).powi(2), a),
            Objective::Hinge if a > -1.0 => (f64::from(1.0 + a), 1.0),
            Objective::Hinge => (0.0, 0.0),
            Objective::WganGp => (f64::from(a), 1.0),
        }
    }

    /// The generator's loss on a sample of its own.
    pub fn generator(self, a: f32) -> Priced {
        match self {
            Objective::Minimax => (-softplus(a), -sigmoid(a) as f32),
            Objective::NonSaturating => (softplus(-a), (sigmoid(a) - 1.0) as f32),
            Objective::LeastSquares => (0.5 * f64::from(a - 1.0).powi(2), a - 1.0),
            Objective::Hinge | Objective::WganGp => (f64::from(-a), -1.0),
        }
    }

    /// Whether `a` is a logit, so that the value of the game is `2 JS - log 4` at the best discriminator.
    pub fn has_probabilities(self) -> bool {
        matches!(self, Objective::Minimax | Objective::NonSaturating)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Objective; 5] = [
        Objective::Minimax,
        Objective::NonSaturating,
        Objective::LeastSquares,
        Objective::Hinge,
        Objective::WganGp,
    ];

    #[test]
    fn slopes_are_those_of_the_losses() {
        let h = 1e-3;
        for objective in ALL {
            for a in [-3.0f32, -0.4, 0.3, 2.0] {
                let parts: [&dyn Fn(f32) -> Priced; 3] =
                    [&|a| objective.real(a, 0.9), &|a| objective.fake(a), &|a| {
                        objective.generator(a)
                    }];
                for part in parts {
                    let numeric = (part(a + h).0 - part(a - h).0) / f64::from((a + h) - (a - h));
                    let slope = f64::from(part(a).1);
                    assert!(
                        (numeric - slope).abs() < 1e-3,
                        "{objective:?} at {a}: {slope} and {numeric}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_discriminator_that_knows_nothing_pays_log_4() {
        let (real, _) = Objective::Minimax.real(0.0, 1.0);
        let (fake, _) = Objective::Minimax.fake(0.0);
        assert!((real + fake - 4f64.ln()).abs() < 1e-12);
        // and far out nothing overflows
        assert_eq!(Objective::Minimax.fake(1000.0), (1000.0, 1.0));
        assert_eq!(Objective::NonSaturating.generator(1000.0).0, 0.0);
    }
}
