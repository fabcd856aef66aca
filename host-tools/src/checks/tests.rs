use super::*;
use crate::attack::Attacked;
use crate::classifier::Inputs;
use crate::document::summary::{estimate, share_of};
use crate::evaluate::Plan;
use foolproof::attack::{Ball, Norm, Outcome};

/// An attack in a ball of radius `epsilon` that the first `left` of `n` samples withstand.
fn attack(
    name: &'static str,
    threat: Threat,
    epsilon: f32,
    (left, n): (usize, usize),
) -> AttackResult {
    let plan = match name {
        "pgd" | "transfer-pgd" => Plan::pgd(epsilon, 10),
        _ => Plan::fgsm(epsilon),
    };
    AttackResult {
        threat,
        plan: Plan { name, ..plan },
        ball: Ball {
            norm: Norm::Linf,
            epsilon,
            low: 0.0,
            high: 1.0,
        },
        attacked: Attacked {
            unfinished: false,
            inputs: Inputs::F32(vec![]),
            outcomes: (0..n)
                .map(|i| Outcome {
                    label: usize::from(i >= left),
                    fooled: i >= left,
                    queries: 50,
                    gradients: 0,
                })
                .collect(),
            norms: vec![],
        },
        robust: (0..n).map(|i| i < left).collect(),
    }
}

fn white(name: &'static str, epsilon: f32, left: usize) -> AttackResult {
    attack(name, Threat::WhiteBox, epsilon, (left, 100))
}

#[test]
fn the_paired_test_is_the_binomial_one() {
    // 9 of 10 and more by a fair coin: 11 / 1024
    assert!((upper_tail(9, 10) - 11.0 / 1024.0).abs() < 1e-12);
    assert_eq!(upper_tail(0, 0), 1.0);
    assert!((upper_tail(500, 1000) - 0.5126).abs() < 1e-4);
    let first = [true, false, false, true, false];
    let second = [true, true, true, false, false];
    let paired = Paired::of(&first, &second);
    assert_eq!((paired.only_first, paired.only_second), (2, 1));
    assert!(!paired.is_stronger());
}

#[test]
fn a_gradient_free_attack_that_wins_more_is_flagged_and_one_that_wins_a_little_more_is_not() {
    let with_control = |left| {
        let attacks = [
            white("fgsm", 0.1, 60),
            white("pgd", 0.1, 50),
            attack("signhunter", Threat::BlackBox, 0.1, (left, 100)),
        ];
        gradient_free_is_no_stronger(&attacks.each_ref())
    };
    assert_eq!(with_control(90).passed, Some(true));
    assert_eq!(
        with_control(48).passed,
        Some(true),
        "2 of 100 may be chance"
    );
    let failed = with_control(30);
    assert_eq!(failed.passed, Some(false));
    assert_eq!(failed.figures["only_gradient_free_wins"], 20.0);
    assert_eq!(failed.figures["white_box_accuracy"], 0.5);
    assert!(failed.explanation.contains("masked"));
    // in another ball it says nothing
    let elsewhere = [
        white("pgd", 0.1, 50),
        attack("signhunter", Threat::BlackBox, 0.2, (10, 100)),
    ];
    assert_eq!(
        gradient_free_is_no_stronger(&elsewhere.each_ref()).passed,
        None
    );
    let transferred = [
        white("pgd", 0.1, 50),
        attack("transfer-pgd", Threat::GrayBox, 0.1, (10, 100)),
    ];
    assert_eq!(
        transfer_is_no_stronger(&transferred.each_ref()).passed,
        Some(false)
    );
}

#[test]
fn one_step_that_beats_many_is_flagged() {
    let with =
        |one, many| iterated_is_no_weaker(&[&white("fgsm", 0.1, one), &white("pgd", 0.1, many)]);
    assert_eq!(with(60, 50).passed, Some(true));
    assert_eq!(with(50, 52).passed, Some(true));
    assert_eq!(with(20, 50).passed, Some(false));
    assert_eq!(
        iterated_is_no_weaker(&[&white("pgd", 0.1, 50)]).passed,
        None
    );
}

#[test]
fn accuracy_that_grows_with_the_ball_is_flagged() {
    let with = |second| {
        larger_balls_are_no_safer(&[
            &white("fgsm", 0.1, 50),
            &white("pgd", 0.2, 90),
            &white("fgsm", 0.2, second),
        ])
    };
    assert_eq!(with(40).passed, Some(true));
    let failed = with(80);
    assert_eq!(failed.passed, Some(false));
    assert!(
        failed.explanation.contains("FGSM leaves 50.0"),
        "{failed:?}"
    );
    assert_eq!(
        larger_balls_are_no_safer(&[&white("fgsm", 0.1, 5)]).passed,
        None
    );
    // black boxes spend their queries by nature, and are looked at all the same
    let black = |epsilon, left| {
        let mut black = attack("square", Threat::BlackBox, epsilon, (left, 100));
        black.plan.budget.queries = 50;
        black
    };
    let with = |large| larger_balls_are_no_safer(&[&black(0.1, 40), &black(0.2, large)]).passed;
    assert_eq!([with(30), with(80)], [Some(true), Some(false)]);
}

#[test]
fn attacks_that_were_not_run_to_their_end_prove_nothing() {
    let limited = |name, left, queries| {
        let mut attack = white(name, 0.1, left);
        attack.plan.budget.queries = queries;
        attack
    };
    let control = attack("signhunter", Threat::BlackBox, 0.1, (10, 100));
    let with = |queries| {
        let many = limited("pgd", 90, queries);
        let one = white("fgsm", 0.1, 20);
        let masked = gradient_free_is_no_stronger(&[&many, &control]).passed;
        (masked, iterated_is_no_weaker(&[&one, &many]).passed)
    };
    assert_eq!(with(51), (Some(false), Some(false)));
    assert_eq!(with(50), (None, None), "each sample had cost 50");
    // a control that was not asked about all samples shows no strength, but may show a weakness
    let white = white("pgd", 0.1, 50);
    let asked = |left, unasked: usize| {
        let mut control = attack("signhunter", Threat::BlackBox, 0.1, (left, 100));
        let outcomes = &mut control.attacked.outcomes;
        outcomes[..unasked].iter_mut().for_each(|o| o.queries = 0);
        gradient_free_is_no_stronger(&[&white, &control]).passed
    };
    assert_eq!([asked(90, 0), asked(90, 1)], [Some(true), None]);
    assert_eq!([asked(10, 0), asked(10, 1)], [Some(false); 2]);
    let white = self::white;
    // one perturbation for all samples is weaker than a search for each
    let mut universal = white("universal", 0.1, 90);
    universal.plan.attack = crate::attack::catalog::find("universal")
        .unwrap()
        .attack(&crate::attack::Settings::new(Norm::Linf))
        .unwrap();
    assert_eq!(
        gradient_free_is_no_stronger(&[&universal, &control]).passed,
        None
    );
    let one = white("fgsm", 0.1, 20);
    assert_eq!(iterated_is_no_weaker(&[&one, &universal]).passed, None);
}

#[test]
fn a_common_attack_that_wins_much_more_is_flagged() {
    let common = (&white("pgd", 0.1, 50), &white("pgd", 0.1, 10));
    let with = |attacks: &[&AttackResult]| evaluated_are_no_weaker(attacks, Some(common));
    let (weak, strong) = (white("fgsm", 0.1, 56), white("pgd", 0.1, 52));
    assert_eq!(with(&[&weak]).passed, Some(false));
    assert_eq!(with(&[&weak, &strong]).passed, Some(true));
    assert_eq!(with(&[&white("fgsm", 0.2, 90)]).passed, None);
    assert_eq!(evaluated_are_no_weaker(&[&weak], None).passed, None);
}

#[test]
fn few_samples_prove_nothing() {
    let of = |n, left| attack("fgsm", Threat::WhiteBox, 0.1, (left, n));
    let many = |n, left| attack("pgd", Threat::WhiteBox, 0.1, (left, n));
    let with = |n, one, all| iterated_is_no_weaker(&[&of(n, one), &many(n, all)]).passed;
    assert_eq!(with(3, 0, 3), None, "all three, and it may be chance");
    assert_eq!(with(3, 3, 0), Some(true));
    assert_eq!(with(6, 0, 6), None);
    assert_eq!(with(7, 0, 7), Some(false));
}

#[test]
fn what_withstands_an_unbounded_attack_is_flagged() {
    let with = |left| unbounded_reaches_zero(Some(&white("pgd", 1.0, left))).passed;
    assert_eq!(
        [with(0), with(1), with(2)],
        [Some(true), Some(true), Some(false)]
    );
    assert_eq!(unbounded_reaches_zero(None).passed, None);
}

#[test]
fn gradients_that_are_zero_are_flagged() {
    let with = |zero: f64, vanished: usize| {
        let quality = GradientQuality {
            objective: "cross-entropy".into(),
            n: 100,
            zero: estimate([zero; 100], [0.0, 1.0]).unwrap(),
            vanished: share_of(vanished, 100).unwrap(),
            float: None,
        };
        there_is_a_gradient(Some(&quality)).passed
    };
    assert_eq!(with(0.2, 0), Some(true));
    assert_eq!(with(0.7, 0), Some(false));
    assert_eq!(with(0.2, 5), Some(false));
}

#[test]
fn a_float_model_that_says_other_things_is_no_twin() {
    let answers = |wrong: usize| -> Vec<Answer> {
        (0..100)
            .map(|i| Answer {
                label: usize::from(i < wrong),
                logits: vec![],
                output: vec![],
            })
            .collect()
    };
    assert_eq!(float_is_a_twin(&answers(0), &answers(3)).passed, Some(true));
    assert_eq!(
        float_is_a_twin(&answers(0), &answers(30)).passed,
        Some(false)
    );
}

#[test]
fn every_failed_check_warns_by_name() {
    let attacks = [white("fgsm", 0.1, 20), white("pgd", 0.1, 50)];
    let checks = all(&Evidence {
        attacks: &attacks.each_ref(),
        probes: &[],
        unbounded: None,
        restarts: None,
        path: None,
        gradient: None,
        twins: None,
    });
    assert_eq!(checks.len(), 8);
    let warnings = warnings(&checks);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("many steps are no weaker than one"));
}

#[test]
fn starts_that_win_much_more_are_flagged() {
    let with = |one, several| {
        let (one, several) = (white("pgd", 0.1, one), white("pgd", 0.1, several));
        restarts_change_little(Some((&one, &several)))
    };
    assert_eq!(with(40, 36).passed, Some(true));
    let failed = with(40, 20);
    assert_eq!(failed.passed, Some(false));
    assert_eq!(failed.figures["several_starts_accuracy"], 0.2);
    assert_eq!(restarts_change_little(None).passed, None);
}

#[test]
fn a_loss_that_stays_where_it_was_is_flagged() {
    let with = |risen| {
        the_loss_rises(Some(Path {
            epsilon: 0.1,
            n: 50,
            before: 0.1,
            after: 2.0,
            risen,
        }))
    };
    assert_eq!(with(0.98).passed, Some(true));
    assert_eq!(with(0.5).passed, Some(false));
    assert_eq!(the_loss_rises(None).passed, None);
}
