//! Attacks end with the same bytes whatever the number of threads and however often they are interrupted, and never cost more
//! than they may.

mod support;

use serde_json::Value;
use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::Bench;

fn document(output: &Output) -> Value {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("one document")
}

/// The same without the names of files.
fn figures(mut document: Value) -> Value {
    document["outputs"] = Value::Null;
    document
}

#[test]
fn threads_and_interruptions_change_nothing() {
    let bench = Bench::new();
    bench.train();
    let line =
        "attack trained/model.fpi --data digits --limit 200 --attack standard --eps 0.08 --json";
    let one = document(&bench.run(&format!("{line} --threads 1 --out one.npz")));
    let two = document(&bench.run(&format!("{line} --threads 2 --out two.npz")));
    let bytes = |name: &str| fs::read(bench.path(name)).unwrap();
    assert_eq!(figures(one.clone()), figures(two));
    assert_eq!(bytes("one.npz"), bytes("two.npz"));

    // killed as soon as it has written down some results
    let partial = bench.path("three.npz.partial");
    let mut child = Command::new(env!("CARGO_BIN_EXE_foolproof"))
        .args(format!("{line} --out three.npz").split_whitespace())
        .current_dir(bench.path("."))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while fs::metadata(&partial).map_or(0, |file| file.len()) < 20_000 {
        assert!(
            begin.elapsed() < Duration::from_secs(120),
            "nothing is written down"
        );
        assert!(
            child.try_wait().unwrap().is_none(),
            "it was done before it was killed"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(partial.exists() && !bench.path("three.npz").exists());

    // another command has no use for these results
    let other = bench.run(&format!("{line} --seed 9 --resume --out three.npz"));
    assert_eq!(other.status.code(), Some(2));
    let resumed = bench.run(&format!("{line} --resume --out three.npz"));
    assert!(String::from_utf8_lossy(&resumed.stderr).contains("of the interrupted run are kept"));
    assert_eq!(figures(document(&resumed)), figures(one));
    assert_eq!(bytes("one.npz"), bytes("three.npz"));
    assert!(!partial.exists());
}

#[test]
fn budgets_are_never_overdrawn() {
    let bench = Bench::new();
    bench.train();
    let line = "attack trained/model.fpi --data digits --limit 60 --attack pgd --eps 0.02 --json";
    let cost = |document: &Value, what: &str| {
        let mean = document["attacks"][0][what].as_f64().unwrap();
        (mean * 60.0).round() as u64
    };
    let free = document(&bench.run(&format!("{line} --out free.npz")));
    assert!(cost(&free, "queries_mean") > 700);
    let mut last = None;
    for threads in [1, 2] {
        let limits = "--max-queries 15 --max-total-queries 333 --max-total-gradients 300";
        let output = bench.run(&format!(
            "{line} {limits} --threads {threads} --out few.npz"
        ));
        let few = document(&output);
        assert!(cost(&few, "queries_mean") <= 333, "{few}");
        assert!(cost(&few, "gradients_mean") <= 300, "{few}");
        assert!(cost(&few, "queries_mean") >= 300, "{few}");
        let few = (figures(few), fs::read(bench.path("few.npz")).unwrap());
        assert!(last.is_none_or(|last| last == few), "threads matter");
        last = Some(few);
    }
}
