//! Has robustness become worse since an earlier evaluation?

use crate::document::{Attack, Document};
use crate::error::{Error, Result};
use crate::files;
use crate::report::title;
use std::path::Path;

/// An earlier document.
#[derive(Debug)]
pub struct Baseline {
    document: Document,
}

/// An attack that the model withstands less than before.
#[derive(Debug, Clone, PartialEq)]
pub struct Regression {
    /// The attack, for people.
    pub attack: String,
    /// Robust accuracy before and now.
    pub before: f64,
    /// Robust accuracy now.
    pub now: f64,
}

impl Regression {
    /// In one line.
    pub fn text(&self) -> String {
        format!(
            "{}: robust accuracy fell from {:.4} to {:.4}",
            self.attack, self.before, self.now
        )
    }
}

impl Baseline {
    /// Reads a document that `evaluate` or `attack` wrote.
    ///
    /// # Errors
    /// The file is no such document.
    pub fn read(path: &Path) -> Result<Baseline> {
        let refuse = |what: String| {
            Error::new(
                what,
                path.display(),
                "a document that foolproof evaluate wrote (results.json, or what --json printed)",
            )
        };
        let document: Document = serde_json::from_slice(&files::read(path)?)
            .map_err(|error| refuse(format!("not understood ({error})")))?;
        if document.attacks.is_empty() {
            return Err(refuse("no attacks in it".into()));
        }
        Ok(Baseline { document })
    }

    /// The attacks of `now` that were run before on as many samples, and are withstood less by more than `tolerance`.
    ///
    /// # Errors
    /// No attack is in both, or the data are not the same number of samples: nothing can be compared.
    pub fn compare(&self, now: &Document, tolerance: f64) -> Result<Vec<Regression>> {
        let same = |a: &Attack, b: &Attack| {
            (&a.name, &a.norm, a.eps, a.targeted, &a.numerics)
                == (&b.name, &b.norm, b.eps, b.targeted, &b.numerics)
                && a.fooled.len() == b.fooled.len()
        };
        let mut compared = 0;
        let mut worse = Vec::new();
        for attack in &now.attacks {
            let before = self.document.attacks.iter().find(|old| same(old, attack));
            let Some(before) = before else {
                continue;
            };
            compared += 1;
            if attack.robust_accuracy < before.robust_accuracy - tolerance {
                worse.push(Regression {
                    attack: title(attack),
                    before: before.robust_accuracy,
                    now: attack.robust_accuracy,
                });
            }
        }
        match compared {
            0 => Err(Error::new(
                "no attack, size and number of samples is in both documents",
                "--baseline",
                "a document of the same evaluation",
            )),
            _ => Ok(worse),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn only_a_fall_beyond_the_tolerance_is_a_regression() {
        let before = sample::data().document;
        let mut now = before.clone();
        let baseline = Baseline { document: before };
        assert_eq!(baseline.compare(&now, 0.0).unwrap(), []);
        now.attacks[0].robust_accuracy -= 0.02;
        assert_eq!(baseline.compare(&now, 0.0).unwrap().len(), 1);
        assert_eq!(baseline.compare(&now, 0.05).unwrap(), []);
        now.attacks.iter_mut().for_each(|a| a.name = "other".into());
        assert!(baseline.compare(&now, 0.0).is_err());
    }
}
