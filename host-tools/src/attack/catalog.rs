//! The attacks by name: what they need to know, which norms they have, and how their settings are read.

use super::universal::{Method, Universal};
use super::{Attack, Portable, labels, scores, white};
use crate::error::{Error, Result};
use foolproof::attack::Norm;
use foolproof::loss::Loss;
use std::collections::BTreeMap;

/// What an attack must be allowed to ask (black, gray and white box).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Access {
    /// The label of an input.
    Labels,
    /// The scores of all classes.
    Scores,
    /// Gradients.
    Gradients,
}

impl Access {
    /// As users say it.
    pub fn name(self) -> &'static str {
        match self {
            Access::Labels => "labels",
            Access::Scores => "scores",
            Access::Gradients => "gradients",
        }
    }
}

/// One line of the list of attacks.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it asks.
    pub access: Access,
    /// The norms that it can search in; the first is its default.
    pub norms: &'static [Norm],
    /// Whether it looks for the nearest adversarial input; then epsilon may be left out.
    pub nearest: bool,
    /// What it is, in a few words, with its source.
    pub about: &'static str,
    /// What `--set` takes: names and defaults.
    pub settings: &'static [(&'static str, &'static str)],
    make: fn(&mut Settings) -> Result<Attack>,
}

impl Entry {
    /// The attack with its settings.
    ///
    /// # Errors
    /// A norm that it does not have, a setting that it does not know or that is out of range.
    pub fn attack(&self, settings: &Settings) -> Result<Attack> {
        if !self.norms.contains(&settings.norm) {
            let names: Vec<&str> = self.norms.iter().map(|&n| norm_name(n)).collect();
            return Err(Error::new(
                format!("{} has no {} norm", self.name, norm_name(settings.norm)),
                "--norm",
                names.join(" or "),
            ));
        }
        let mut left = settings.clone();
        let attack = (self.make)(&mut left)?;
        left.nothing_left(self)?;
        Ok(attack)
    }
}

/// What the user set; an attack takes what it knows, and what is left over is an error.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The norm.
    pub norm: Norm,
    /// Everything else by name: `steps`, `starts`, `kappa`, ...
    pub values: BTreeMap<String, f64>,
}

impl Settings {
    /// Nothing set.
    pub fn new(norm: Norm) -> Settings {
        Settings {
            norm,
            values: BTreeMap::new(),
        }
    }

    /// Takes a number from `least` to `most`, or the default.
    ///
    /// # Errors
    /// The number is out of range.
    pub fn number(&mut self, name: &str, default: f64, least: f64, most: f64) -> Result<f64> {
        match self.values.remove(name) {
            None => Ok(default),
            Some(value) if (least..=most).contains(&value) => Ok(value),
            Some(value) => Err(Error::new(
                format!("{name} {value} is out of range"),
                "the attack's settings",
                format!("a number from {least} to {most}"),
            )),
        }
    }

    /// Takes a number from `least` to `most`, if it is given.
    ///
    /// # Errors
    /// The number is out of range.
    pub fn given(&mut self, name: &str, least: f64, most: f64) -> Result<Option<f32>> {
        match self.values.contains_key(name) {
            true => Ok(Some(self.number(name, least, least, most)? as f32)),
            false => Ok(None),
        }
    }

    /// Takes a whole number from `least` to `most`, or the default.
    ///
    /// # Errors
    /// The number is out of range or not whole.
    pub fn whole(&mut self, name: &str, default: u32, least: u32, most: u32) -> Result<u32> {
        let value = self.number(name, f64::from(default), f64::from(least), f64::from(most))?;
        match value.fract() == 0.0 {
            true => Ok(value as u32),
            false => Err(Error::new(
                format!("{name} {value} is not whole"),
                "the attack's settings",
                format!("a whole number from {least} to {most}"),
            )),
        }
    }

    /// Takes the most queries that a sample may cost, or the default.
    ///
    /// # Errors
    /// The number is out of range.
    pub fn queries(&mut self, default: u32) -> Result<u32> {
        self.whole("queries", default, 1, u32::MAX)
    }

    fn nothing_left(&self, entry: &Entry) -> Result<()> {
        match self.values.keys().next() {
            None => Ok(()),
            Some(name) => {
                let known: Vec<&str> = entry.settings.iter().map(|(name, _)| *name).collect();
                Err(Error::new(
                    format!("{} has no setting {name}: {}", entry.name, entry.about),
                    super::suite::option(name),
                    match known.is_empty() {
                        true => "no settings".into(),
                        false => known.join(", "),
                    },
                ))
            }
        }
    }
}

/// The name of a norm, as `--norm` takes it.
pub fn norm_name(norm: Norm) -> &'static str {
    match norm {
        Norm::Linf => "linf",
        Norm::L2 => "l2",
        Norm::L1 => "l1",
        Norm::L0 => "l0",
        _ => "unknown",
    }
}

/// The attack of that name.
pub fn find(name: &str) -> Option<&'static Entry> {
    all().find(|entry| entry.name == name)
}

/// All attacks: the portable ones first, then by what they ask, most first, then those on all samples at once.
pub fn all() -> impl Iterator<Item = &'static Entry> {
    PORTABLE
        .iter()
        .chain(white::CATALOG)
        .chain(scores::CATALOG)
        .chain(labels::CATALOG)
        .chain(UNIVERSAL)
}

impl Entry {
    /// An entry of a catalog.
    pub const fn new(
        name: &'static str,
        access: Access,
        norms: &'static [Norm],
        make: fn(&mut Settings) -> Result<Attack>,
    ) -> Entry {
        Entry {
            name,
            access,
            norms,
            nearest: false,
            about: "",
            settings: &[],
            make,
        }
    }

    /// The most queries that a sample costs: what the setting says, or its default; `None` where there is no
    /// such setting.
    pub fn queries(&self, settings: &Settings) -> Option<u64> {
        let (_, default) = self.settings.iter().find(|(name, _)| *name == "queries")?;
        match settings.values.get("queries") {
            Some(&set) => Some(set as u64),
            None => default.parse().ok(),
        }
    }

    /// With a description.
    pub const fn about(self, about: &'static str) -> Entry {
        Entry { about, ..self }
    }

    /// With settings: names and defaults.
    pub const fn with(self, settings: &'static [(&'static str, &'static str)]) -> Entry {
        Entry { settings, ..self }
    }

    /// It looks for the nearest adversarial input.
    pub const fn nearest(self) -> Entry {
        Entry {
            nearest: true,
            ..self
        }
    }
}

/// Those of the engine, which run on the chip too.
const PORTABLE: &[Entry] = &[
    Entry::new("fgsm", Access::Gradients, L_NORMS, |_| {
        Ok(Attack::Portable(Portable::Fgsm))
    })
    .about("fast gradient sign: one step from one start (Goodfellow et al. 2014)"),
    Entry::new("bim", Access::Gradients, L_NORMS, bim)
        .about("iterated FGSM with clip, from the sample itself (Kurakin et al. 2016)")
        .with(&[("steps", "10"), ("step", "2.5 eps / steps")]),
    Entry::new("pgd", Access::Gradients, L_NORMS, |s| {
        pgd(s, Loss::CrossEntropy)
    })
    .about("projected gradient descent, random start (Madry et al. 2017)")
    .with(PGD_SETTINGS),
    Entry::new("pgd-margin", Access::Gradients, L_NORMS, |s| {
        pgd(s, Loss::Margin)
    })
    .about("pgd on the margin of logits (Carlini and Wagner 2017)")
    .with(PGD_SETTINGS),
    Entry::new("pgd-dlr", Access::Gradients, L_NORMS, |s| pgd(s, Loss::Dlr))
        .about("pgd on the difference of logits ratio (Croce and Hein 2020)")
        .with(PGD_SETTINGS),
    Entry::new("square", Access::Scores, &[Norm::Linf, Norm::L2], square)
        .about("random search with squares (Andriushchenko et al. 2020)")
        .with(&[
            ("queries", "5000"),
            ("share", "0.8"),
            ("cross_entropy", "0"),
        ]),
    Entry::new("nes", Access::Scores, &[Norm::Linf, Norm::L2], nes)
        .about("PGD on gradients estimated from pairs of scores (Ilyas et al. 2018)")
        .with(&[
            ("queries", "5000"),
            ("pairs", "25"),
            ("sigma", "0.001 of the box, at least 2 LSB"),
            ("step", "0.3 eps"),
            ("cross_entropy", "0"),
        ]),
];

const L_NORMS: &[Norm] = &[Norm::Linf, Norm::L2, Norm::L1];
const PGD_SETTINGS: &[(&str, &str)] = &[
    ("steps", "20"),
    ("starts", "1"),
    ("step", "2.5 eps / steps"),
    ("random_start", "1"),
];

fn square(s: &mut Settings) -> Result<Attack> {
    Ok(Attack::Portable(Portable::Square {
        queries: s.whole("queries", 5000, 1, 65_535)? as u16,
        share: s.given("share", 1e-6, 1.0)?,
        loss: score_loss(s)?,
    }))
}

fn score_loss(s: &mut Settings) -> Result<Loss> {
    Ok(match s.whole("cross_entropy", 0, 0, 1)? {
        0 => Loss::Margin,
        _ => Loss::CrossEntropy,
    })
}

fn nes(s: &mut Settings) -> Result<Attack> {
    Ok(Attack::Portable(Portable::Nes {
        queries: s.whole("queries", 5000, 1, 65_535)? as u16,
        pairs: s.whole("pairs", 25, 1, 10_000)? as u16,
        sigma: s.given("sigma", 1e-9, 1e9)?,
        step: s.given("step", 0.0, 1e9)?,
        loss: score_loss(s)?,
    }))
}

fn bim(s: &mut Settings) -> Result<Attack> {
    Ok(Attack::Portable(Portable::Pgd {
        steps: s.whole("steps", 10, 1, 10_000)? as u16,
        starts: 1,
        step: s.given("step", 0.0, 1e9)?,
        random_start: false,
        loss: Loss::CrossEntropy,
    }))
}

fn pgd(s: &mut Settings, loss: Loss) -> Result<Attack> {
    Ok(Attack::Portable(Portable::Pgd {
        steps: s.whole("steps", 20, 1, 10_000)? as u16,
        starts: s.whole("starts", 1, 1, 1_000)? as u16,
        step: s.given("step", 0.0, 1e9)?,
        random_start: s.whole("random_start", 1, 0, 1)? == 1,
        loss,
    }))
}

/// One perturbation for all samples.
const UNIVERSAL: &[Entry] = &[
    Entry::new(
        "universal",
        Access::Gradients,
        &[Norm::Linf, Norm::L2],
        |s| universal(s, Method::Gradient, 20),
    )
    .about("one perturbation for all samples, by gradient ascent (Shafahi et al. 2020); judged on samples that it was not fitted on")
    .with(&[("steps", "20"), ("fit", "half")]),
    Entry::new(
        "universal-online",
        Access::Gradients,
        &[Norm::Linf, Norm::L2],
        |s| {
            let passes = s.whole("steps", 5, 1, 10_000)? as u16;
            Ok(Attack::Portable(Portable::Universal { passes }))
        },
    )
    .about("one perturbation for all samples, fitted on one after the other without storing any, as a chip does (Shafahi et al. 2020); judged on the samples that it was fitted on")
    .with(&[("steps", "5")]),
    Entry::new(
        "universal-deepfool",
        Access::Gradients,
        &[Norm::Linf, Norm::L2],
        |s| universal(s, Method::DeepFool, 10),
    )
    .about("one perturbation for all samples, a sum of DeepFool's (Moosavi-Dezfooli et al. 2017); judged on samples that it was not fitted on")
    .with(&[("steps", "10"), ("fit", "half")]),
];

fn universal(s: &mut Settings, method: Method, steps: u32) -> Result<Attack> {
    let fit = match s.values.contains_key("fit") {
        true => Some(s.whole("fit", 1, 1, u32::MAX)?),
        false => None,
    };
    Ok(Attack::Universal(Universal {
        method,
        steps: s.whole("steps", steps, 1, 10_000)? as u16,
        fit,
    }))
}
