//! Gray box, end to end: a surrogate distilled from a counted number of labels, and attacks on an int8 model with its gradients.

mod support;

use foolproof_host::data::npz;
use serde_json::Value;
use std::fs;
use support::Bench;

fn document(bench: &Bench, line: &str) -> Value {
    let output = bench.run(&format!("{line} --json"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "foolproof {line}: {stderr}");
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
    let schema =
        serde_json::from_str(include_str!("../../host-tools/schema/foolproof-1.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(&document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "foolproof {line}: {errors:#?}");
    document
}

#[test]
fn a_distilled_surrogate_fools_an_int8_model_that_only_tells_labels() {
    let bench = Bench::new();
    document(
        &bench,
        "train classifier --data digits --epochs 8 --out target",
    );
    document(
        &bench,
        "quantize target/model.fpi --calibrate digits --out int8.tflite",
    );
    let distilled = document(
        &bench,
        "train surrogate int8.tflite --data digits --limit 150 --queries 500 --rounds 3 --epochs 8 --out surrogate",
    );
    // 150 samples, 150 and 200 of 300 new ones: the budget ends it to the query
    assert_eq!(distilled["train"]["metrics"]["queries"], 500.0);
    let agreement = distilled["train"]["metrics"]["agreement"].as_f64().unwrap();
    assert!(agreement > 0.8, "{distilled}");

    let line = "attack int8.tflite --surrogate surrogate/model.fpi --data digits --limit 60 --attack pgd --eps 0.3";
    let once = document(&bench, &format!("{line} --out once.npz"));
    let attack = &once["attacks"][0];
    assert_eq!(
        (&attack["queries_mean"], &attack["gradients_mean"]),
        (&1.0.into(), &0.0.into())
    );
    assert_eq!(attack["threat"], "gray-box");
    let used = &once["surrogates"][0];
    let (crafted, carried) = (
        used["crafted"].as_u64().unwrap(),
        used["carried"].as_u64().unwrap(),
    );
    assert!(crafted > 40 && carried > 10 && carried <= crafted, "{used}");

    let every = document(&bench, &format!("{line} --feedback --out every.npz"));
    let attack = &every["attacks"][0];
    assert!(attack["queries_mean"].as_f64().unwrap() > 1.0);
    assert_eq!(attack["gradients_mean"], 0.0);
    assert!(every["surrogates"][0]["crafted"].is_null());
    let robust = |document: &Value| document["attacks"][0]["robust_accuracy"].as_f64().unwrap();
    assert!(robust(&every) <= robust(&once), "{every}");

    // what was written fools the target itself
    let answers = document(
        &bench,
        "infer int8.tflite --inputs once.npz --outputs answers.npy",
    );
    assert!(
        answers["accuracy"]["clean"].as_f64().unwrap() <= robust(&once) + 1e-9,
        "{answers}"
    );
    let file = fs::read(bench.path("once.npz")).unwrap();
    assert!(npz::read_array(&file, "fooled").unwrap().is_some());

    // an ensemble with resized inputs, the same for every number of threads
    let line = format!("{line} --surrogate target/model.fpi --diverse 0.5");
    let [one, two] = [1, 2].map(|threads| {
        document(
            &bench,
            &format!("{line} --threads {threads} --out t{threads}.npz"),
        );
        fs::read(bench.path(&format!("t{threads}.npz"))).unwrap()
    });
    assert_eq!(one, two);
}

#[test]
fn what_cannot_be_a_surrogate_is_refused_in_one_line() {
    let bench = Bench::new();
    bench.train();
    let attack = "attack trained/model.fpi --data digits --limit 5 --eps 0.1 --out adv.npz";
    for (line, what) in [
        (
            format!("{attack} --attack square --surrogate trained/model.fpi"),
            "square asks for no gradients",
        ),
        (
            format!("{attack} --attack universal --surrogate trained/model.fpi"),
            "one perturbation for all samples",
        ),
        (format!("{attack} --attack pgd --feedback"), "--surrogate"),
        (
            format!("{attack} --attack pgd --surrogate trained/model.fpi --diverse 2"),
            "share",
        ),
        (
            format!("{attack} --attack pgd --surrogate missing.fpi"),
            "missing.fpi",
        ),
    ] {
        let output = bench.run(&line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
        assert!(stderr.contains(what), "{line}: {stderr}");
    }
}
