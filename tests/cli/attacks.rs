//! Attacks end with the same bytes whatever the number of threads and however often they are interrupted, and never cost more
//! than they may.

mod support;

use foolproof_host::data::{npy, npz};
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

/// Runs `line` whole with one thread and with two, then kills it once it has written `least` bytes down, and resumes it.
fn threads_and_interruptions(bench: &Bench, line: &[&str], least: u64) {
    let run = |rest: &str| {
        Command::new(env!("CARGO_BIN_EXE_foolproof"))
            .args(line)
            .args(rest.split_whitespace())
            .current_dir(bench.path("."))
            .output()
            .unwrap()
    };
    let one = document(&run("--threads 1 --out one.npz"));
    let two = document(&run("--threads 2 --out two.npz"));
    let bytes = |name: &str| fs::read(bench.path(name)).unwrap();
    assert_eq!(figures(one.clone()), figures(two));
    assert_eq!(bytes("one.npz"), bytes("two.npz"));

    let partial = bench.path("three.npz.partial");
    let mut child = Command::new(env!("CARGO_BIN_EXE_foolproof"))
        .args(line)
        .args(["--out", "three.npz"])
        .current_dir(bench.path("."))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while fs::metadata(&partial).map_or(0, |file| file.len()) < least {
        assert!(
            begin.elapsed() < Duration::from_secs(120),
            "nothing is written down: {line:?}"
        );
        assert!(
            child.try_wait().unwrap().is_none(),
            "it was done before it was killed: {line:?}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(partial.exists() && !bench.path("three.npz").exists());

    // another command has no use for these results
    let other = run("--seed 9 --resume --out three.npz");
    assert_eq!(other.status.code(), Some(2));
    let resumed = run("--resume --out three.npz");
    assert!(String::from_utf8_lossy(&resumed.stderr).contains("of the interrupted run are kept"));
    assert_eq!(figures(document(&resumed)), figures(one));
    assert_eq!(bytes("one.npz"), bytes("three.npz"));
    assert!(!partial.exists());
    for name in ["one.npz", "two.npz", "three.npz"] {
        fs::remove_file(bench.path(name)).unwrap();
    }
}

#[test]
fn threads_and_interruptions_change_nothing() {
    let bench = Bench::new();
    bench.train();
    let line =
        "attack trained/model.fpi --data digits --limit 200 --attack standard --eps 0.08 --json";
    let line: Vec<&str> = line.split_whitespace().collect();
    threads_and_interruptions(&bench, &line, 20_000);
}

#[test]
fn nor_do_they_where_a_black_box_is_asked() {
    let bench = Bench::new();
    bench.train();
    let target = concat!(
        "program:",
        env!("CARGO_BIN_EXE_foolproof"),
        " serve trained/model.fpi"
    );
    for rest in [
        "--attack square --set queries=300 --eps 0.02",
        "--attack pgd --steps 60 --eps 0.02 --surrogate trained/model.fpi --feedback",
        "--attack apgd-ce --eps 0.02 --surrogate trained/model.fpi",
    ] {
        let mut line = vec!["attack", "--data", "digits", "--limit", "200", "--json"];
        line.extend(["--target", target]);
        line.extend(rest.split_whitespace());
        threads_and_interruptions(&bench, &line, 10_000);
    }
}

#[test]
fn nor_do_they_in_boxes() {
    let bench = Bench::new();
    bench.train();
    let (rows, n) = (80, 64);
    // around points that only look random; most rows cannot be broken, so that the search takes its time
    let points: Vec<f32> = (0..rows * n)
        .map(|i| 0.05 + 0.9 * ((i * 7919 % 1009) as f32 / 1009.0))
        .collect();
    let corner = |by: f32| points.iter().map(|x| x + by).collect::<Vec<f32>>();
    let (lo, hi) = (corner(-0.02), corner(0.02));
    let label: Vec<i64> = (0..rows as i64).map(|row| row % 10).collect();
    let shape = [rows, n];
    let entry = |name, shape, values| npz::Entry {
        name,
        shape,
        values,
    };
    let arrays = [
        entry("lo", &shape[..], npy::View::F32(&lo)),
        entry("hi", &shape, npy::View::F32(&hi)),
        entry("label", &shape[..1], npy::View::I64(&label)),
    ];
    npz::write(&bench.path("boxes.npz"), &arrays).unwrap();
    let line = "attack trained/model.fpi --box boxes.npz --targeted --attack standard --json";
    let line: Vec<&str> = line.split_whitespace().collect();
    threads_and_interruptions(&bench, &line, 5_000);
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
