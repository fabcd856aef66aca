//! What must hold for every attack that asks for scores or labels only, whichever joins the catalog.

use super::run::{Run, white_box};
use super::testing::{INPUT, Known, attacked, distance_to, in_reals, on_lattice, real_input};
use super::{Access, Aim, Entry, Problem, Settings, Stream, catalog};
use foolproof::attack::Norm;
use foolproof::loss::Goal;
use foolproof::threat::{Budget, Element};

const STREAM: Stream = Stream { seed: 1, sample: 2 };

fn black_box() -> impl Iterator<Item = &'static Entry> {
    catalog::all().filter(|entry| entry.access != Access::Gradients)
}

/// Settings that keep a test short.
fn short(entry: &Entry, norm: Norm) -> Settings {
    let mut settings = Settings::new(norm);
    let values = [
        ("queries", 2000.0),
        ("steps", 40.0),
        ("binary_steps", 3.0),
        // of eight elements, all frequencies
        ("frequencies", 1.0),
    ];
    for (name, value) in values {
        // a walk needs more steps than a descent
        let walk = entry.name == "boundary" && name == "steps";
        if !walk && entry.settings.iter().any(|(known, _)| *known == name) {
            settings.values.insert(name.into(), value);
        }
    }
    settings
}

/// Runs an attack as an oracle of its kind allows; returns success, distance in elements' units, and queries.
fn found<E: Element + std::fmt::Debug>(
    entry: &Entry,
    known: &mut Known,
    problem: &Problem<'_, E>,
    queries: u64,
) -> (bool, f32, u64) {
    let attack = entry.attack(&short(entry, problem.ball.norm)).unwrap();
    let budget = Budget {
        queries,
        gradients: 0,
    };
    let aim = match entry.nearest {
        true => Aim::Nearest,
        false => Aim::Any,
    };
    let found = attacked(known, problem, (aim, budget), |oracle, _| {
        match entry.access {
            Access::Labels => attack.on_labels(oracle, problem, STREAM),
            _ => attack.on_scores(oracle, problem, STREAM),
        }
        .expect("it needs no more than it says")
    });
    let distance = problem.ball.norm.distance(problem.x, &found.x);
    (found.outcome.fooled, distance, found.outcome.queries)
}

/// On the linear classifier: the distance to the nearest class is known, so a ball half as large again holds success,
/// and one of half the size holds none.
fn on_linear<E: Element + std::fmt::Debug>(known: &mut Known, x: &[E]) {
    for entry in black_box() {
        for &norm in entry.norms {
            for goal in [Goal::Avoid(0), Goal::Reach(1), Goal::Reach(2)] {
                let others = match goal {
                    Goal::Reach(class) => class..=class,
                    Goal::Avoid(_) => 1..=2,
                };
                let what = format!("{} {norm:?} {goal:?}", entry.name);
                let real = others
                    .map(|other| distance_to(other, norm))
                    .fold(f32::INFINITY, f32::min);
                let (epsilon, hopeless) = match norm {
                    Norm::L0 => (8.0, 0.0),
                    _ => (1.5 * real / known.unit, 0.5 * real / known.unit),
                };
                let inside = known.problem(x, goal, norm, epsilon);
                let (fooled, distance, _) = found(entry, known, &inside, 20_000);
                assert!(fooled || !is_strong(entry), "{what}: found nothing");
                assert!(
                    !fooled || distance > hopeless,
                    "{what}: closer than the boundary"
                );

                let outside = known.problem(x, goal, norm, hopeless);
                assert!(!found(entry, known, &outside, 300).0, "{what}: impossible");

                let (_, _, queries) = found(entry, known, &inside, 7);
                assert!(queries <= 7, "{what}");
            }
        }
    }
}

/// The floor (noise) is not expected to find anything in small balls.
fn is_strong(entry: &Entry) -> bool {
    !matches!(
        entry.name,
        "gaussian-noise" | "uniform-noise" | "contrast" | "salt-and-pepper"
    )
}

#[test]
fn black_boxes_find_what_is_there_in_real_units() {
    on_linear(&mut in_reals(), &real_input());
}

#[test]
fn black_boxes_find_what_is_there_on_the_lattice() {
    on_linear(&mut on_lattice(), &INPUT);
}

#[test]
fn attacks_for_the_nearest_come_near_it() {
    for entry in black_box().filter(|entry| entry.nearest && is_strong(entry)) {
        for &norm in entry.norms.iter().filter(|&&norm| norm != Norm::L0) {
            let known = &mut in_reals();
            let x = real_input();
            let problem = known.problem(&x, Goal::Avoid(0), norm, f32::INFINITY);
            let (fooled, distance, _) = found(entry, known, &problem, 20_000);
            let (one, two) = (distance_to(1, norm), distance_to(2, norm));
            // who sees labels only follows the boundary of the class that it happened on
            let nearest = match entry.access {
                Access::Labels => one.max(two),
                _ => one.min(two),
            };
            assert!(fooled, "{}", entry.name);
            // 2000 queries are few for coordinate descent
            let slack = if entry.name == "zoo" { 1.4 } else { 1.1 };
            assert!(
                distance < slack * nearest,
                "{} {norm:?}: {distance}, the nearest is at {nearest}",
                entry.name
            );
            // a sphere of radius 1.5 around 0.1: the nearest point outside lies on the ray through the input
            let known = &mut Known::bowl(&[0.1; 8], 1.5, 1.0, (-4.0, 4.0));
            let problem = known.problem(&x, Goal::Avoid(0), Norm::L2, f32::INFINITY);
            if norm == Norm::L2 {
                let centre = [0.1_f32; 8];
                let inside = Norm::L2.distance(&x, &centre);
                let (_, distance, _) = found(entry, known, &problem, 20_000);
                let nearest = 1.5 - inside;
                assert!(
                    nearest > 0.0 && distance < slack * nearest,
                    "{}: {distance}, the nearest is at {nearest}",
                    entry.name
                );
            }
        }
    }
}

#[test]
fn a_black_box_is_refused_more_than_it_may_ask() {
    let known = &mut in_reals();
    let x = real_input();
    let problem = known.problem(&x, Goal::Avoid(0), Norm::Linf, 0.1);
    for entry in catalog::all() {
        let norm = entry.norms[0];
        let attack = entry.attack(&Settings::new(norm)).unwrap();
        let budget = Budget {
            queries: 3,
            gradients: 3,
        };
        attacked(known, &problem, (Aim::Any, budget), |oracle, _| {
            let ran = attack.on_labels(oracle, &problem, STREAM);
            assert_eq!(ran.is_some(), entry.access == Access::Labels);
            ran.unwrap_or(Ok(()))
        });
        attacked(known, &problem, (Aim::Any, budget), |oracle, _| {
            let ran = attack.on_scores(oracle, &problem, STREAM);
            assert_eq!(ran.is_some(), entry.access != Access::Gradients);
            ran.unwrap_or(Ok(()))
        });
    }
}

/// Every attack but those that look for one perturbation for all samples (they ask nothing of single samples), as `foolproof
/// attack` runs it: what it says that it asked is what the oracle was asked, whatever the budget.
fn counts_agree<E: Element + std::fmt::Debug>(make: fn() -> Known, x: &[E]) {
    let mut counted = 0;
    for entry in catalog::all() {
        for &norm in entry.norms {
            let attack = entry.attack(&short(entry, norm)).unwrap();
            let mut aims = vec![if entry.nearest {
                Aim::Nearest
            } else {
                Aim::Any
            }];
            if !entry.nearest {
                aims.push(Aim::Shrink);
            }
            for aim in aims {
                for (most, targeted) in
                    [(u64::MAX, false), (u64::MAX, true), (61, false), (1, true)]
                {
                    let known = &mut make();
                    let goal = match targeted {
                        true => Goal::Reach(1),
                        false => Goal::Avoid(0),
                    };
                    let epsilon = match norm {
                        Norm::L0 => 8.0,
                        _ => 0.7 * distance_to(1, norm) / known.unit,
                    };
                    let problem = known.problem(x, goal, norm, epsilon);
                    let budget = Budget {
                        queries: most,
                        gradients: most,
                    };
                    let run = Run {
                        attack,
                        aim,
                        ball: problem.ball,
                        classes: &[],
                        targeted,
                        budget,
                        total: Budget::UNLIMITED,
                        skip: &[],
                        seed: STREAM.seed,
                        progress: &|_| {},
                        page: None,
                    };
                    let found = white_box(known, &problem, &run, STREAM).unwrap();
                    let outcome = found.outcome;
                    let what = format!("{} {norm:?} {aim:?}, at most {most}", entry.name);
                    assert_eq!(outcome.queries, known.queries, "queries of {what}");
                    assert_eq!(outcome.gradients, known.gradients, "gradients of {what}");
                    assert!(
                        outcome.queries <= most && outcome.gradients <= most,
                        "{what}"
                    );
                    assert!(outcome.queries > 0, "{what} asked nothing");
                    counted += 1;
                }
            }
        }
    }
    assert!(counted > 4 * catalog::all().count(), "{counted}");
}

#[test]
fn every_attack_counts_what_it_asks() {
    counts_agree(in_reals, &real_input());
    counts_agree(on_lattice, &INPUT);
}
