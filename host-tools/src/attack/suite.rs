//! Suites: several attacks under one name.

use super::catalog::{Settings, find};
use super::{Aim, Entry};
use crate::error::{Error, Result};
use crate::evaluate::Plan;
use foolproof::attack::Norm;
use foolproof::threat::Budget;

/// Several attacks under one name.
#[derive(Debug)]
pub struct Suite {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    members: &'static [Member],
}

#[derive(Debug)]
struct Member {
    attack: &'static str,
    settings: &'static [(&'static str, f64)],
}

const fn member(attack: &'static str, settings: &'static [(&'static str, f64)]) -> Member {
    Member { attack, settings }
}

/// All suites.
pub const SUITES: &[Suite] = &[
    Suite {
        name: "quick",
        about: "fgsm and pgd",
        members: &[member("fgsm", &[]), member("pgd", &[])],
    },
    Suite {
        name: "standard",
        about: "fgsm and pgd, then AutoAttack's four with its defaults: apgd-ce, apgd-t, fab-t and square (Croce and Hein 2020)",
        members: &[
            member("fgsm", &[]),
            member("pgd", &[("steps", 40.0)]),
            member("apgd-ce", &[("starts", 1.0)]),
            member("apgd-t", &[]),
            member("fab-t", &[]),
            member("square", &[]),
        ],
    },
    Suite {
        name: "black-box",
        about: "square with 5000 queries (scores), hopskipjump with 5000 (labels), and normal noise as the floor: no gradients",
        members: &[
            member("square", &[]),
            member("hopskipjump", &[("queries", 5000.0)]),
            member("gaussian-noise", &[]),
        ],
    },
];

/// An attack or a suite, by name.
#[derive(Clone, Copy, Debug)]
pub enum Choice {
    /// One attack.
    One(&'static Entry),
    /// A suite.
    Suite(&'static Suite),
}

/// What every attack of a choice is told.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The norm, and what the user set. Members of a suite take the settings that they know.
    pub settings: Settings,
    /// The ball's radius, real units; infinite where only the box is the bound.
    pub epsilon: f32,
    /// Whether attacks that search a ball are to find the nearest adversarial input, too.
    pub nearest: bool,
    /// The class to reach, if there is one.
    pub target: Option<usize>,
    /// What each sample may cost.
    pub budget: Budget,
}

impl Terms {
    /// Untargeted, without settings and limits.
    pub fn new(norm: Norm, epsilon: f32) -> Terms {
        Terms {
            settings: Settings::new(norm),
            epsilon,
            nearest: false,
            target: None,
            budget: Budget::UNLIMITED,
        }
    }
}

impl Choice {
    /// The choice of that name.
    pub fn find(name: &str) -> Option<Choice> {
        let suite = SUITES.iter().find(|suite| suite.name == name);
        suite.map(Choice::Suite).or(find(name).map(Choice::One))
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Choice::One(entry) => entry.name,
            Choice::Suite(suite) => suite.name,
        }
    }

    /// The attacks, ready to run.
    ///
    /// # Errors
    /// A norm, a setting or a value that an attack does not have.
    pub fn plans(&self, terms: &Terms) -> Result<Vec<Plan>> {
        match self {
            Choice::One(entry) => Ok(vec![plan(entry, &terms.settings, terms)?]),
            Choice::Suite(suite) => suite.plans(terms),
        }
    }
}

impl Suite {
    fn plans(&self, terms: &Terms) -> Result<Vec<Plan>> {
        let mut plans = Vec::new();
        let mut taken = Vec::new();
        for member in self.members {
            let entry = find(member.attack).ok_or_else(|| {
                Error::new(
                    format!("there is no attack {}", member.attack),
                    format!("the suite {}", self.name),
                    "foolproof attacks lists what there is",
                )
            })?;
            let mut settings = Settings::new(terms.settings.norm);
            for &(name, value) in member.settings {
                settings.values.insert(name.into(), value);
            }
            for (name, &value) in &terms.settings.values {
                if entry.settings.iter().any(|(known, _)| known == name) {
                    settings.values.insert(name.clone(), value);
                    taken.push(name);
                }
            }
            let mut plan = plan(entry, &settings, terms)?;
            if terms.epsilon.is_finite() && !terms.nearest {
                // a suite asks whether the ball holds an adversarial input, as AutoAttack does
                plan.aim = Aim::Any;
            }
            plans.push(plan);
        }
        match terms
            .settings
            .values
            .keys()
            .find(|name| !taken.contains(name))
        {
            None => Ok(plans),
            Some(name) => Err(Error::new(
                format!("no attack of the suite {} has a setting {name}", self.name),
                option(name),
                "an attack's name instead of a suite's",
            )),
        }
    }
}

/// What sets a setting on the command line.
pub(super) fn option(name: &str) -> String {
    match name {
        "steps" | "starts" => format!("--{name}"),
        _ => format!("--set {name}="),
    }
}

fn plan(entry: &Entry, settings: &Settings, terms: &Terms) -> Result<Plan> {
    // an attack with a setting for its queries keeps to it, and plans with less where less is allowed
    let mut settings = settings.clone();
    let mut budget = terms.budget;
    if let Some(queries) = entry.queries(&settings).filter(|_| !terms.nearest) {
        budget.queries = budget.queries.min(queries);
        if budget.queries < queries && budget.queries > 0 {
            settings
                .values
                .insert("queries".into(), budget.queries as f64);
        }
    }
    let attack = entry.attack(&settings)?;
    if !entry.nearest && !terms.nearest && !terms.epsilon.is_finite() {
        return Err(Error::new(
            format!("{} searches in a ball", entry.name),
            "--eps",
            "the size of the ball, for example 0.1 or 8/255, or --nearest to find the smallest",
        ));
    }
    let counts = settings.norm == Norm::L0 && terms.epsilon.is_finite();
    if counts && terms.epsilon.fract() != 0.0 {
        return Err(Error::new(
            format!("{} elements may change", terms.epsilon),
            "--eps with --norm l0",
            "how many elements may change, a whole number",
        ));
    }
    let plan = Plan {
        name: entry.name,
        attack,
        aim: match (entry.nearest, terms.nearest) {
            (true, _) => Aim::Nearest,
            (false, true) => Aim::Shrink,
            (false, false) => Aim::Any,
        },
        norm: settings.norm,
        epsilon: terms.epsilon,
        target: terms.target,
        budget,
    };
    if terms.nearest {
        refuse_universal(std::slice::from_ref(&plan), "--nearest", "--eps instead")?;
    }
    Ok(plan)
}

/// Refuses attacks that look for one perturbation for all samples; `place` is what needs single samples.
///
/// # Errors
/// The first such attack.
pub fn refuse_universal(plans: &[Plan], place: &str, right: &str) -> Result<()> {
    match plans.iter().find(|plan| plan.attack.is_universal()) {
        None => Ok(()),
        Some(plan) => Err(Error::new(
            format!("{} looks for one perturbation for all samples", plan.name),
            place,
            right,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_exists_and_names_are_unique() {
        for suite in SUITES {
            for member in suite.members {
                assert!(find(member.attack).is_some(), "{}", member.attack);
            }
            assert!(
                !suite
                    .plans(&Terms::new(Norm::Linf, 0.1))
                    .unwrap()
                    .is_empty()
            );
        }
        let names: Vec<&str> = super::super::catalog::all().map(|e| e.name).collect();
        for (i, name) in names.iter().enumerate() {
            assert!(!names[..i].contains(name), "{name} twice");
            assert!(SUITES.iter().all(|suite| suite.name != *name));
        }
    }

    #[test]
    fn settings_are_never_ignored() {
        let mut terms = Terms::new(Norm::Linf, 0.1);
        terms.settings.values.insert("steps".into(), 3.0);
        assert!(Choice::find("pgd").unwrap().plans(&terms).is_ok());
        assert!(Choice::find("quick").unwrap().plans(&terms).is_ok());
        assert!(Choice::find("fgsm").unwrap().plans(&terms).is_err());
        terms.settings.values.insert("kapa".into(), 3.0);
        assert!(Choice::find("quick").unwrap().plans(&terms).is_err());
        let no_eps = Terms::new(Norm::Linf, f32::INFINITY);
        assert!(Choice::find("pgd").unwrap().plans(&no_eps).is_err());
    }

    #[test]
    fn every_attack_is_made_of_its_own_defaults() {
        for entry in super::super::catalog::all() {
            for &norm in entry.norms {
                let attack = entry.attack(&Settings::new(norm)).unwrap();
                assert_eq!(attack.access(), entry.access, "{}", entry.name);
            }
            assert!(!entry.about.is_empty(), "{}", entry.name);
        }
    }
}
