use super::super::super::catalog::Settings;
use super::super::analytic::{Analytic, Hunted, hunted};
use super::*;
use foolproof::loss::Goal;
use foolproof::threat::Budget;

const W: [f32; 4] = [2.0, -1.0, 0.5, 0.25];
const X: [f32; 4] = [0.3, -0.1, 0.2, 0.0];
const LATTICE_X: [i8; 4] = [38, -13, 25, 0];

fn attack(norm: Norm, set: &[(&str, f64)]) -> CarliniWagner {
    let mut settings = Settings::new(norm);
    for &(name, value) in set {
        settings.values.insert(name.into(), value);
    }
    match make(&mut settings) {
        Ok(Attack::White(White::CarliniWagner(attack))) => attack,
        other => panic!("{other:?}"),
    }
}

fn run<E: Element + Default>(
    oracle: &Analytic,
    x: &[E],
    goal: Goal,
    norm: Norm,
    set: &[(&str, f64)],
) -> Hunted<E> {
    let attack = attack(norm, set);
    hunted(
        oracle,
        (x, goal),
        (norm, f32::INFINITY),
        Budget::UNLIMITED,
        |hunt, problem, _| attack.run(hunt, problem),
    )
}

/// Distances of a point from the plane `w . x + b = 0` in the l2 and linf norms.
fn distances(x: &[f32], b: f32) -> (f32, f32) {
    let dot: f32 = b + W.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
    let l2 = W.iter().map(|w| w * w).sum::<f32>().sqrt();
    let l1: f32 = W.iter().map(|w| w.abs()).sum();
    (dot / l2, dot / l1)
}

#[test]
fn finds_the_nearest_point_behind_a_plane() {
    let oracle = Analytic::half_space(&W, 0.1);
    let (l2, linf) = distances(&X, 0.1);
    for goal in [Goal::Avoid(0), Goal::Reach(1)] {
        let found = run(&oracle, &X, goal, Norm::L2, &[]).distance(1.0);
        assert!((l2..l2 * 1.01).contains(&found), "{found} of {l2}");
        let found = run(&oracle, &X, goal, Norm::Linf, &[]).distance(1.0);
        assert!((linf..linf * 1.12).contains(&found), "{found} of {linf}");
        // the largest weight alone reaches the plane: 0.9 of 2 * (0.3 + 1)
        let found = run(&oracle, &X, goal, Norm::L0, &[]).distance(1.0);
        assert_eq!(found, 1.0);
    }
}

#[test]
fn finds_it_on_the_lattice_too() {
    let oracle = Analytic::half_space(&W, 0.1).on_lattice();
    let unit = oracle.unit;
    let real = LATTICE_X.map(|x| f32::from(x) * unit);
    let (l2, linf) = distances(&real, 0.1);
    let found = run(&oracle, &LATTICE_X, Goal::Avoid(0), Norm::L2, &[]).distance(unit);
    assert!((l2..l2 * 1.03).contains(&found), "{found} of {l2}");
    let found = run(&oracle, &LATTICE_X, Goal::Avoid(0), Norm::Linf, &[]).distance(unit);
    assert!((linf..linf * 1.15).contains(&found), "{found} of {linf}");
    let found = run(&oracle, &LATTICE_X, Goal::Avoid(0), Norm::L0, &[]).distance(1.0);
    assert_eq!(found, 1.0);
}

#[test]
fn leaves_a_sphere_by_the_shortest_way() {
    let oracle = Analytic::sphere(4, 0.8);
    let radius = X.iter().map(|x| x * x).sum::<f32>().sqrt();
    let found = run(&oracle, &X, Goal::Avoid(0), Norm::L2, &[]).distance(1.0);
    let shortest = 0.8 - radius;
    assert!(
        (shortest..shortest * 1.01).contains(&found),
        "{found} of {shortest}"
    );
}

#[test]
fn confidence_asks_for_a_margin_and_probabilities_work() {
    let oracle = Analytic::half_space(&W, 0.1);
    let (l2, _) = distances(&X, 0.1);
    // the hinge on probabilities has the same zero
    let found = run(
        &oracle,
        &X,
        Goal::Avoid(0),
        Norm::L2,
        &[("probabilities", 1.0)],
    );
    assert!((l2..l2 * 1.02).contains(&found.distance(1.0)));
    // with a margin of 0.5 logits the plane is 0.5 / |w| further away, and only that counts
    let attack = attack(Norm::L2, &[("kappa", 0.5)]);
    let confident = hunted(
        &oracle,
        (&X, Goal::Avoid(0)),
        (Norm::L2, f32::INFINITY),
        Budget::UNLIMITED,
        |hunt, problem, _| {
            hunt.demand(attack.hinge.loss, attack.hinge.kappa);
            attack.run(hunt, problem)
        },
    );
    let further = l2 + 0.5 / W.iter().map(|w| w * w).sum::<f32>().sqrt();
    let found = confident.distance(1.0);
    assert!(
        (further..further * 1.02).contains(&found),
        "{found} of {further}"
    );
}

#[test]
fn budgets_are_exact_and_a_ball_is_kept() {
    let oracle = Analytic::half_space(&W, 0.1);
    let (l2, _) = distances(&X, 0.1);
    for norm in [Norm::L2, Norm::Linf, Norm::L0] {
        let attack = attack(norm, &[]);
        for budget in [0, 1, 57] {
            let budget = Budget {
                queries: budget,
                gradients: 40,
            };
            let hunted = hunted(
                &oracle,
                (&X, Goal::Avoid(0)),
                (norm, f32::INFINITY),
                budget,
                |hunt, problem, _| attack.run(hunt, problem),
            );
            assert_eq!(hunted.queries, budget.queries.min(40));
            assert_eq!(hunted.gradients, hunted.queries);
        }
        // a ball that holds no adversarial input
        let epsilon = match norm {
            Norm::L0 => 0.0,
            _ => 0.4 * l2,
        };
        let hunted = hunted(
            &oracle,
            (&X, Goal::Avoid(0)),
            (norm, epsilon),
            Budget::UNLIMITED,
            |hunt, problem, _| attack.run(hunt, problem),
        );
        assert!(hunted.witness.is_none());
    }
}
