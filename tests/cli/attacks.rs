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

/// What all samples of an attack cost together, of the mean that its entry gives.
fn cost(attack: &Value, what: &str, samples: u32) -> u64 {
    (attack[what].as_f64().unwrap() * f64::from(samples)).round() as u64
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

    // another command has no use for these results, nor the same one of a model that takes other inputs
    for other in ["--seed 9", "--input-range 0,2"] {
        let other = run(&format!("{other} --resume --out three.npz"));
        assert_eq!(other.status.code(), Some(2));
        assert!(partial.exists());
    }
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

/// A file that is in the journal's way, and one that a refused command has no right to leave.
#[test]
fn a_journal_replaces_nothing_and_a_refused_attack_leaves_none() {
    let bench = Bench::new();
    bench.train();
    let line =
        "attack trained/model.fpi --data digits --limit 5 --attack pgd --eps 0.1 --out a.npz";
    let partial = bench.path("a.npz.partial");
    let refused = |line: &str, named: &str| {
        let output = bench.run(line);
        let said = String::from_utf8_lossy(&output.stderr).to_string();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.lines().count() == 1 && said.contains(named), "{said}");
    };
    fs::write(&partial, "my own notes").unwrap();
    for rest in ["", " --resume"] {
        refused(&format!("{line}{rest}"), "a.npz.partial");
        assert_eq!(fs::read_to_string(&partial).unwrap(), "my own notes");
    }
    // samples in the way
    document(&bench.run(&line.replace("a.npz", "b.npz --json")));
    fs::rename(bench.path("b.npz"), &partial).unwrap();
    let samples = fs::read(&partial).unwrap();
    refused(&line.replace("digits", "a.npz.partial"), "a.npz.partial");
    assert_eq!(fs::read(&partial).unwrap(), samples);
    fs::remove_file(&partial).unwrap();
    // what the target does not give
    let target = concat!(
        "program:",
        env!("CARGO_BIN_EXE_foolproof"),
        " serve trained/model.fpi"
    );
    let output = Command::new(env!("CARGO_BIN_EXE_foolproof"))
        .args(["attack", "--target", target])
        .args(line.split_whitespace().skip(2))
        .current_dir(bench.path("."))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).to_string();
    assert!(
        output.status.code() == Some(2) && said.contains("gradients"),
        "{said}"
    );
    assert!(!partial.exists());
    refused(&line.replace("a.npz", "no/a.npz"), "no/a.npz");
}

/// What all attacks cost together and what each sample costs, for every attack that there is.
#[test]
fn every_attack_keeps_to_its_budgets() {
    let bench = Bench::new();
    bench.train();
    let attacks = document(&bench.run("attacks --json"));
    let attacks = attacks["catalog"].as_array().unwrap();
    assert!(attacks.len() > 30);
    let samples = 9;
    for entry in attacks {
        let name = entry["name"].as_str().unwrap();
        let norm = entry["norms"][0].as_str().unwrap();
        let eps = match norm {
            "linf" => 0.05,
            "l2" => 0.5,
            "l1" => 2.0,
            _ => 3.0,
        };
        let line = format!(
            "attack trained/model.fpi --data digits --limit {samples} --attack {name} --norm {norm} --eps {eps} --json --out few.npz"
        );
        for (queries, gradients) in [(100, 60), (30, 1000), (1000, 30), (4, 0), (0, 0)] {
            let together =
                format!("--max-total-queries {queries} --max-total-gradients {gradients}");
            let few = document(&bench.run(&format!("{line} {together}")));
            let attack = &few["attacks"][0];
            let spent = ["queries_mean", "gradients_mean"].map(|what| cost(attack, what, samples));
            let spent = (spent[0], spent[1]);
            assert!(
                spent.0 <= queries && spent.1 <= gradients,
                "{name} {together}: {spent:?}"
            );
            if queries > 0 && gradients > 0 {
                assert!(spent.0 > 0, "{name} {together}");
            }
        }
        let few = document(&bench.run(&format!("{line} --max-queries 7 --max-gradients 5")));
        let attack = &few["attacks"][0];
        let mean = |what: &str| attack[what].as_f64().unwrap();
        assert!(
            mean("queries_mean") <= 7.0 && mean("gradients_mean") <= 5.0,
            "{name}"
        );
    }
}

/// A budget that ends attacks early is said aloud, and makes no model look robust.
#[test]
fn what_was_not_asked_proves_nothing() {
    let bench = Bench::new();
    bench.train();
    let line = "trained/model.fpi --data digits --limit 60 --eps 0.1";
    let checks = |document: &Value| -> Vec<String> {
        let checks = document["checks"].as_array().unwrap().iter();
        let failed = checks.filter(|check| check["passed"] == Value::Bool(false));
        failed.map(|check| check["name"].to_string()).collect()
    };
    for limit in [
        "--max-queries 0",
        "--max-queries 2",
        "--max-total-queries 10",
    ] {
        let output = bench.run(&format!("evaluate {line} --suite pgd {limit} --json"));
        let found = document(&output);
        let warnings = found["warnings"].to_string();
        assert!(
            warnings.contains("its budget was spent"),
            "{limit}: {warnings}"
        );
        let failed = checks(&found);
        assert!(
            failed.iter().all(|name| name.contains("a common one")),
            "{limit}: {failed:?}"
        );
        let said = bench.run(&format!("evaluate {line} --suite pgd {limit}"));
        let said = String::from_utf8_lossy(&said.stdout).to_string();
        assert!(!said.contains("Held"), "{limit}: {said}");
    }
    // controls keep to what an attack may cost, too
    let limits = "--max-total-queries 50 --max-total-gradients 40 --nearest 0";
    let found = document(&bench.run(&format!("evaluate {line} --suite pgd {limits} --json")));
    let attacks = found["attacks"].as_array().unwrap();
    assert!(attacks.len() > 1);
    for attack in attacks {
        let cost = cost(attack, "queries_mean", 60);
        assert!(cost <= 50, "{}: {cost}", attack["name"]);
    }
    // a perturbation for all samples whose fitting a budget ended, and one that was done just so
    for (rest, ended) in [
        ("universal --max-queries 10", true),
        ("universal --max-total-gradients 70", true),
        ("universal", false),
        ("universal-online --max-total-queries 140", true),
        ("universal-online --max-queries 6", false),
        ("universal-deepfool --max-queries 12", true),
        // its own number of queries is no limit, nor is one of gradients, of which it takes none
        ("square --set queries=20 --max-queries 500", false),
        ("square --set queries=500 --max-queries 20", true),
        ("square --set queries=20 --max-gradients 0", false),
    ] {
        let found = bench.run(&format!("attack {line} --attack {rest} --json --out u.npz"));
        let warnings = document(&found)["warnings"].to_string();
        let said = warnings.contains("its budget was spent");
        assert_eq!(said, ended, "{rest}: {warnings}");
    }
    // an attack that looks for the nearest is held against a common one, too
    let line = "trained/model.fpi --data digits --limit 60 --eps 0.5 --norm l2";
    let found = document(&bench.run(&format!(
        "evaluate {line} --suite deepfool --nearest 2 --json"
    )));
    let answered = found["checks"].as_array().unwrap().iter();
    assert!(
        answered
            .filter(|check| check["passed"].is_boolean())
            .count()
            >= 7,
        "{found}"
    );
    let line = "trained/model.fpi --data digits --limit 60 --eps 0.1";
    for name in ["universal", "universal-online", "universal-deepfool"] {
        let found = document(&bench.run(&format!("evaluate {line} --suite {name} --json")));
        let failed = checks(&found);
        assert!(
            failed
                .iter()
                .all(|name| !name.contains("no weaker than a gradient")),
            "{failed:?}"
        );
        assert!(
            failed.iter().all(|name| !name.contains("many steps")),
            "{failed:?}"
        );
    }
}

/// A baseline that holds more than what was run now says so; and what cannot be written is refused before the work.
#[test]
fn a_smaller_evaluation_is_not_taken_for_the_whole() {
    let bench = Bench::new();
    bench.train();
    let line = "evaluate trained/model.fpi --data digits --limit 30 --eps 0.1 --nearest 0 --json";
    let whole = bench.run(&format!("{line} --suite quick"));
    let whole = document(&whole);
    fs::write(bench.path("old.json"), whole.to_string()).unwrap();
    let less = document(&bench.run(&format!("{line} --suite fgsm --baseline old.json")));
    let warnings = less["warnings"].to_string();
    assert!(
        warnings.contains("PGD at eps 0.1 was run before"),
        "{warnings}"
    );
    let other = whole.to_string().replace("foolproof-1", "foolproof-99");
    fs::write(bench.path("other.json"), other).unwrap();
    let refused = bench.run(&format!("{line} --suite fgsm --baseline other.json"));
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("foolproof-99"));

    fs::create_dir_all(bench.path("r/results.csv")).unwrap();
    let attack = "attack trained/model.fpi --data digits --limit 30 --attack pgd --eps 0.1 --out r";
    for line in [&format!("{line} --suite fgsm --report r")[..], attack] {
        let refused = bench.run(line);
        let said = String::from_utf8_lossy(&refused.stderr).to_string();
        assert!(
            refused.status.code() == Some(2) && said.contains("directory"),
            "{said}"
        );
        assert!(!bench.path("r.partial").exists() && !bench.path("r/report.html").exists());
    }
}

#[test]
fn budgets_are_never_overdrawn() {
    let bench = Bench::new();
    bench.train();
    let line = "attack trained/model.fpi --data digits --limit 60 --attack pgd --eps 0.02 --json";
    let cost = |document: &Value, what: &str| cost(&document["attacks"][0], what, 60);
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
