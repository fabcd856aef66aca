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
        if document.schema != crate::document::SCHEMA {
            return Err(refuse(format!("it is of schema {:?}", document.schema)));
        }
        if document.attacks.is_empty() {
            return Err(refuse("no attacks in it".into()));
        }
        Ok(Baseline { document })
    }

    /// What keeps the two from being compared in full: attacks that were run before and are not in `now`, other data.
    pub fn gaps(&self, now: &Document) -> Vec<String> {
        let is_there = |old: &&Attack| now.attacks.iter().any(|new| is_same(old, new));
        let gone = self.document.attacks.iter().filter(|old| !is_there(old));
        let mut gaps: Vec<String> = gone
            .map(|old| {
                format!(
                    "--baseline: {} was run before, on {} samples, and not now: whether it became worse is not known",
                    title(old),
                    old.fooled.len()
                )
            })
            .collect();
        if let (Some(before), Some(after)) = (&self.document.data, &now.data)
            && before.path != after.path
        {
            gaps.push(format!(
                "--baseline: its samples were those of {}",
                before.path
            ));
        }
        gaps
    }

    /// The attacks of `now` that were run before on as many samples, and are withstood less by more than `tolerance`.
    ///
    /// # Errors
    /// No attack is in both, or the data are not the same number of samples: nothing can be compared.
    pub fn compare(&self, now: &Document, tolerance: f64) -> Result<Vec<Regression>> {
        let mut compared = 0;
        let mut worse = Vec::new();
        for attack in &now.attacks {
            let before = self
                .document
                .attacks
                .iter()
                .find(|old| is_same(old, attack));
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

/// The same attack, in the same ball, on as many samples.
fn is_same(a: &Attack, b: &Attack) -> bool {
    (&a.name, &a.norm, a.eps, a.targeted, &a.numerics)
        == (&b.name, &b.norm, b.eps, b.targeted, &b.numerics)
        && a.fooled.len() == b.fooled.len()
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
        assert!(baseline.gaps(&now).is_empty());
        let gone = now.attacks.pop().unwrap();
        now.data.as_mut().unwrap().path = "elsewhere".into();
        let gaps = baseline.gaps(&now);
        assert!(
            gaps.len() == 2 && gaps[0].contains(&title(&gone)),
            "{gaps:?}"
        );
        now.attacks.iter_mut().for_each(|a| a.name = "other".into());
        assert!(baseline.compare(&now, 0.0).is_err());
    }
}
