//! Every white-box attack of this folder on classifiers of known geometry.

use super::super::catalog::Settings;
use super::super::testing::{
    INPUT, Known, attacked, distance_to, in_reals, on_lattice, real_input,
};
use super::super::{Access, Aim, Attack, Stream, catalog};
use super::CATALOG;
use crate::attack::run::Found;
use foolproof::attack::Norm;
use foolproof::loss::Goal;
use foolproof::threat::{Budget, Element};

const STREAM: Stream = Stream { seed: 7, sample: 8 };

fn attack(name: &str, norm: Norm) -> Attack {
    let entry = catalog::find(name).unwrap();
    entry.attack(&Settings::new(norm)).unwrap()
}

/// Lets the attack of that name loose on a known classifier.
fn run<E: Element + std::fmt::Debug>(
    name: &str,
    known: &mut Known,
    x: &[E],
    (goal, norm, epsilon): (Goal, Norm, f32),
    (aim, budget): (Aim, Budget),
) -> Found<E> {
    let problem = known.problem(x, goal, norm, epsilon);
    attacked(known, &problem, (aim, budget), |oracle, _| {
        attack(name, norm).on_gradients(oracle, &problem, STREAM)
    })
}

const ANY: (Aim, Budget) = (Aim::Any, Budget::UNLIMITED);
const NEAREST: (Aim, Budget) = (Aim::Nearest, Budget::UNLIMITED);

/// Names and norms of the attacks of this file's folder, those of a ball or those that look for the nearest.
fn entries(nearest: bool) -> impl Iterator<Item = (&'static str, Norm)> {
    let mine = [
        "mi-fgsm", "apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "deepfool",
    ];
    CATALOG
        .iter()
        .filter(move |entry| mine.contains(&entry.name) && entry.nearest == nearest)
        .flat_map(|entry| entry.norms.iter().map(|&norm| (entry.name, norm)))
}

#[test]
fn a_ball_that_just_holds_an_adversarial_input_is_enough_and_a_smaller_one_is_not() {
    for (name, norm) in entries(false) {
        for (goal, other) in [(Goal::Avoid(0), 1), (Goal::Reach(2), 2)] {
            let least = distance_to(other, norm);
            // only class by class the nearest boundary is certain to be tried; the other one is 1.33 times as far
            let enough = match (name, norm) {
                // its steps are for shares of elements, and eight are few
                (_, Norm::L1) => 2.0,
                ("apgd-t", _) => 1.1,
                _ => 1.5,
            };
            for (share, fooled) in [(enough, true), (0.98, false)] {
                let known = &mut in_reals();
                let found = run(name, known, &real_input(), (goal, norm, share * least), ANY);
                assert_eq!(
                    found.outcome.fooled, fooled,
                    "{name} {norm:?} {goal:?} {share}"
                );
                let known = &mut on_lattice();
                let epsilon = share * least / 0.02;
                let found = run(name, known, &INPUT, (goal, norm, epsilon), ANY);
                assert_eq!(
                    found.outcome.fooled, fooled,
                    "{name} {norm:?} {goal:?} {share}, lattice"
                );
            }
        }
    }
}

#[test]
fn attacks_of_the_engine_fill_the_ball_too() {
    let names = ["fgsm", "bim", "pgd", "pgd-margin", "pgd-dlr"];
    for (name, norm) in names.into_iter().flat_map(|name| {
        let norms = catalog::find(name).unwrap().norms;
        norms.iter().map(move |&norm| (name, norm))
    }) {
        let least = distance_to(1, norm);
        // the other class's boundary is 1.33 times as far, and a margin may lead there
        for (share, fooled) in [(1.5, true), (0.98, false)] {
            let terms = (Goal::Avoid(0), norm, share * least);
            let found = run(name, &mut in_reals(), &real_input(), terms, NEAREST);
            assert_eq!(found.outcome.fooled, fooled, "{name} {norm:?} {share}");
            let terms = (Goal::Avoid(0), norm, share * least / 0.02);
            let found = run(name, &mut on_lattice(), &INPUT, terms, NEAREST);
            assert_eq!(
                found.outcome.fooled, fooled,
                "{name} {norm:?} {share}, lattice"
            );
        }
    }
}

#[test]
fn the_nearest_is_found_on_linear_classifiers() {
    for (name, norm) in entries(true) {
        let slack = if name == "deepfool" { 1.03 } else { 1.01 };
        for (goal, other) in [(Goal::Avoid(0), 1), (Goal::Reach(2), 2)] {
            let least = distance_to(other, norm);
            let known = &mut in_reals();
            let found = run(
                name,
                known,
                &real_input(),
                (goal, norm, f32::INFINITY),
                NEAREST,
            );
            assert!(found.outcome.fooled, "{name} {norm:?} {goal:?}");
            let distance = norm.distance(&real_input(), &found.x);
            assert!(
                distance >= 0.999 * least && distance <= slack * least,
                "{name} {norm:?} {goal:?}: {distance}, not {least}"
            );
            let known = &mut on_lattice();
            let found = run(name, known, &INPUT, (goal, norm, f32::INFINITY), NEAREST);
            assert!(found.outcome.fooled, "{name} {norm:?} {goal:?}, lattice");
            let distance = norm.distance(&INPUT, &found.x);
            let least = least / 0.02;
            // a step of the grid beyond the boundary, in each direction that matters
            assert!(
                distance >= 0.999 * least && distance <= slack * least + 2.0,
                "{name} {norm:?} {goal:?}: {distance}, not {least}, lattice"
            );
        }
    }
}

#[test]
fn curved_boundaries_are_reached_too() {
    let centre = [0.1, -0.2, 0.3, 0.0, 0.2];
    let x = [0.3, -0.1, 0.2, 0.1, 0.1];
    let offset = Norm::L2.distance(&x, &centre);
    let least = 1.0 - offset;
    for (name, norm) in entries(true).filter(|&(_, norm)| norm == Norm::L2) {
        let known = &mut Known::bowl(&centre, 1.0, 1.0, (-3.0, 3.0));
        let found = run(
            name,
            known,
            &x,
            (Goal::Avoid(0), norm, f32::INFINITY),
            NEAREST,
        );
        assert!(found.outcome.fooled, "{name}");
        let distance = norm.distance(&x, &found.x);
        // DeepFool does not come back when its first step went too far
        assert!(
            name == "deepfool" || distance >= 0.999 * least && distance <= 1.03 * least,
            "{name}: {distance}, not {least}"
        );
    }
    for (name, norm) in entries(false).filter(|&(_, norm)| norm == Norm::L2) {
        let known = &mut Known::bowl(&centre, 1.0, 1.0, (-3.0, 3.0));
        let found = run(name, known, &x, (Goal::Avoid(0), norm, 1.05 * least), ANY);
        assert!(found.outcome.fooled, "{name}");
    }
}

#[test]
fn nearest_attacks_take_an_epsilon() {
    for (name, norm) in entries(true) {
        let least = distance_to(1, norm);
        for (share, fooled) in [(1.1, true), (0.98, false)] {
            let known = &mut in_reals();
            let found = run(
                name,
                known,
                &real_input(),
                (Goal::Avoid(0), norm, share * least),
                ANY,
            );
            assert_eq!(found.outcome.fooled, fooled, "{name} {norm:?}");
        }
    }
}

#[test]
fn budgets_are_kept_to_the_unit() {
    for (name, norm) in entries(false).chain(entries(true)) {
        // out of reach, so every attack would go on
        let epsilon = 0.5 * distance_to(1, norm);
        for (queries, gradients) in [(0, 0), (1, 1), (7, 100), (100, 5)] {
            let budget = Budget { queries, gradients };
            let known = &mut in_reals();
            let goal = (Goal::Avoid(0), norm, epsilon);
            let found = run(name, known, &real_input(), goal, (Aim::Any, budget));
            assert!(!found.outcome.fooled);
        }
    }
}

#[test]
fn flat_classifiers_and_empty_balls_end_quietly() {
    for (name, norm) in entries(false).chain(entries(true)) {
        for epsilon in [0.0, 1.0] {
            let known = &mut Known::linear(&[0.0; 12], &[1.0, 0.0, 0.0], 1.0, (-1.0, 1.0));
            let goal = (Goal::Avoid(0), norm, epsilon);
            let found = run(name, known, &[0.5_f32, 0.0, -0.5, 1.0], goal, ANY);
            assert!(!found.outcome.fooled, "{name} {norm:?}");
        }
    }
}

#[test]
fn all_of_them_ask_for_gradients() {
    assert!(
        CATALOG
            .iter()
            .all(|entry| entry.access == Access::Gradients)
    );
}
