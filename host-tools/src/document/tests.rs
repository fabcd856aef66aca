use super::*;
use crate::attack::{Attacked, Norms};
use crate::classifier::{Answer, Inputs};
use crate::evaluate::{AttackResult, Plan, Threat};
use foolproof::attack::{Ball, Norm, Outcome};

/// The schema that ships with foolproof.
pub(crate) fn validator() -> jsonschema::Validator {
    let schema = serde_json::from_str(include_str!("../../schema/foolproof-1.json")).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

#[test]
fn wilson_agrees_with_published_values() {
    // Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    for (hits, n, low, high) in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ] {
        let interval = summary::wilson(hits, n);
        assert!(
            (interval[0] - low).abs() < 5e-5 && (interval[1] - high).abs() < 5e-5,
            "{hits}/{n}: {interval:?}"
        );
    }
    assert_eq!(summary::wilson(7, 7)[1], 1.0);
    assert_eq!(summary::wilson(0, 0), [0.0, 1.0]);
}

fn entry(target: Option<usize>) -> Attack {
    let labels = [0, 1, 2, 3];
    // The model was wrong about the last sample before anything was done to it.
    let clean = [0, 1, 2, 4].map(|label| Answer {
        label,
        logits: vec![],
        output: vec![],
    });
    let plan = Plan {
        target,
        ..Plan::fgsm(0.1)
    };
    let after: [usize; 4] = match target {
        None => [1, 1, 5, 4],
        Some(_) => [1, 1, 2, 1],
    };
    let fooled = |i: usize| target.map_or(after[i] != labels[i], |target| after[i] == target);
    let outcomes = (0..4)
        .map(|i| Outcome {
            label: after[i],
            fooled: fooled(i),
            queries: 3,
            gradients: 2,
        })
        .collect();
    let norms = (1..=4)
        .map(|i| Norms {
            l2: f64::from(i),
            linf: 0.1 * f64::from(i),
            l1: f64::from(i),
            l0: 1.0,
        })
        .collect();
    let result = AttackResult {
        threat: Threat::WhiteBox,
        plan,
        ball: Ball {
            norm: Norm::Linf,
            epsilon: 0.1,
            low: 0.0,
            high: 1.0,
        },
        attacked: Attacked {
            unfinished: false,
            inputs: Inputs::F32(vec![]),
            outcomes,
            norms,
        },
        robust: (0..4)
            .map(|i| clean[i].label == labels[i] && !(fooled(i) && target != Some(labels[i])))
            .collect(),
    };
    summary::attack(&result, &clean, &labels, "f32")
}

#[test]
fn attacks_are_summarised_over_the_samples_that_could_be_won() {
    let untargeted = entry(None);
    assert_eq!(
        (untargeted.robust_accuracy, untargeted.success_rate),
        (0.25, Some(2.0 / 3.0))
    );
    assert_eq!(
        untargeted.mean_norm.unwrap().l2,
        2.0,
        "samples 0 and 2 were won; 3 was wrong already"
    );
    assert_eq!(
        (
            untargeted.queries_mean,
            untargeted.gradients_mean,
            untargeted.eps
        ),
        (3.0, 2.0, Some(0.1))
    );
    assert_eq!(untargeted.fooled, [true, false, true, true]);
    let targeted = entry(Some(1));
    // Sample 1 is of the target class: nothing to win there. Sample 3 was wrong before.
    assert_eq!(
        (targeted.robust_accuracy, targeted.success_rate),
        (0.5, Some(0.5))
    );
    assert_eq!(targeted.mean_norm.unwrap().l2, 1.0);
}

#[test]
fn a_full_document_satisfies_the_schema_and_reads_back() {
    let document = crate::report::sample::data().document;
    let json = serde_json::to_value(&document).unwrap();
    let errors: Vec<String> = validator()
        .iter_errors(&json)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(serde_json::from_value::<Document>(json).unwrap(), document);
}

#[test]
fn the_schema_refuses_what_is_no_document() {
    let good = serde_json::to_value(crate::report::sample::data().document).unwrap();
    let broken: [(&str, serde_json::Value); 6] = [
        ("/schema", "foolproof-2".into()),
        ("/accuracy/clean", 1.5.into()),
        ("/attacks/0/robust_accuracy", "high".into()),
        ("/attacks/0/norm", "l7".into()),
        ("/device/0/logit_mismatches", (-1).into()),
        ("/model/sha256", "abc".into()),
    ];
    for (place, value) in broken {
        let mut document = good.clone();
        *document
            .pointer_mut(place)
            .unwrap_or_else(|| panic!("no {place}")) = value;
        assert!(!validator().is_valid(&document), "{place}");
    }
    let mut missing = good.clone();
    missing.as_object_mut().unwrap().remove("command");
    assert!(!validator().is_valid(&missing));
}
