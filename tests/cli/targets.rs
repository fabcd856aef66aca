//! Black boxes outside the process: programs on stdin and stdout, and an emulated chip.

#[path = "../support/oracle.rs"]
mod oracle;
mod support;

use serde_json::Value;
use support::Bench;

const SERVED: &str = env!("CARGO_BIN_EXE_foolproof");

/// Runs an attack on a target; words with blanks are given in `target`.
fn attack(bench: &Bench, target: &str, rest: &str) -> std::process::Output {
    std::process::Command::new(SERVED)
        .arg("attack")
        .args(rest.split_whitespace())
        .args(["--target", target])
        .current_dir(bench.path("."))
        .output()
        .expect("the foolproof binary runs")
}

fn document(output: &std::process::Output) -> Value {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("one document")
}

#[test]
fn a_program_answers_as_the_model_in_this_process_does() {
    let bench = Bench::new();
    bench.train();
    let rest = "--data digits --limit 12 --attack square --eps 0.3 --max-queries 40 --json";
    let target = format!("program:{SERVED} serve trained/model.fpi");
    let outside = document(&attack(
        &bench,
        &target,
        &format!("{rest} --out outside.npz"),
    ));
    let inside = bench.run(&format!("attack trained/model.fpi {rest} --out inside.npz"));
    let inside = document(&inside);
    assert_eq!(outside["attacks"][0], inside["attacks"][0]);
    assert_eq!(outside["accuracy"], inside["accuracy"]);
    assert!(outside["target"].as_str().unwrap().starts_with("program:"));
    let bytes = |name: &str| std::fs::read(bench.path(name)).expect("a file");
    assert_eq!(bytes("outside.npz"), bytes("inside.npz"));
}

#[test]
fn a_target_is_never_asked_for_more_than_it_gives() {
    let bench = Bench::new();
    bench.train();
    let target = format!("program:{SERVED} serve trained/model.fpi --labels-only");
    for (name, asks) in [("pgd", "gradients"), ("square", "scores")] {
        let rest = format!("--data digits --limit 2 --attack {name} --eps 0.1 --out a.npz");
        let output = attack(&bench, &target, &rest);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(
            text.contains(asks) && text.contains("gives labels"),
            "{text}"
        );
    }
}

#[test]
fn programs_that_misbehave_get_one_line() {
    let bench = Bench::new();
    bench.train();
    let rest = "--data digits --limit 2 --attack square --eps 0.1 --out a.npz --timeout 1";
    for (program, says) in [
        ("false", "ended"),
        ("/no/such/program", "cannot start"),
        ("sleep 30", "no answer within 1 s"),
        ("cat", "introduction is not understood"),
        ("echo {}", "introduction is not understood"),
        ("'unclosed", "quote"),
    ] {
        let output = attack(&bench, &format!("program:{program}"), rest);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{program}: {text}");
        assert_eq!(text.trim_end().lines().count(), 1, "{program}: {text}");
        assert!(text.contains(says), "{program}: {text}");
        assert!(!bench.path("a.npz").exists());
    }
}

/// What a black box is really asked: every line that reaches the program is written down on its way.
#[test]
#[cfg(unix)]
fn the_report_counts_what_the_program_was_asked() {
    let bench = Bench::new();
    bench.train();
    let kinds: Value = document(&bench.run("attacks --json"));
    let (samples, mut asked) = (3, 0);
    for kind in kinds["catalog"]
        .as_array()
        .expect("attacks")
        .iter()
        .filter(|kind| kind["access"] != "gradients")
    {
        let name = kind["name"].as_str().unwrap();
        let norm = kind["norms"][0].as_str().unwrap();
        for limit in [90, 17] {
            let log = bench.path("asked.log");
            let _ = std::fs::remove_file(&log);
            let target =
                format!("program:sh -c 'tee -a asked.log | \"{SERVED}\" serve trained/model.fpi'");
            let rest = format!(
                "--data digits --limit {samples} --attack {name} --norm {norm} --eps 0.2 --max-queries {limit} --json --out a.npz"
            );
            let report = document(&attack(&bench, &target, &rest));
            let queries =
                report["attacks"][0]["queries_mean"].as_f64().unwrap() * f64::from(samples);
            let lines = std::fs::read_to_string(&log).unwrap();
            let inputs = lines.lines().filter(|line| line.contains("\"x\"")).count();
            // one answer about each sample before the attack, for the clean accuracy
            assert_eq!(
                queries.round() as usize,
                inputs - samples as usize,
                "{name}, at most {limit}"
            );
            asked += 1;
        }
    }
    assert!(asked >= 20, "{asked}");
}

/// A chip that answers and nothing else, attacked over the link: the same queries get the answers that the host gives, so the same
/// inputs are found.
#[test]
fn an_emulated_chip_is_fooled_query_by_query() {
    let bench = Bench::new();
    for line in [
        "train classifier --data digits --epochs 4 --out trained",
        "quantize trained/model.fpi --calibrate digits --out int8.fpi",
    ] {
        assert!(bench.run(line).status.success(), "{line}");
    }
    for (name, limits) in [
        ("square", "--norm linf --eps 0.2 --max-queries 150"),
        ("hopskipjump", "--norm l2 --eps 3 --max-queries 300"),
    ] {
        let rest = format!("--data digits --limit 4 --attack {name} {limits} --json");
        let on = "emulator:mps2-an386";
        let mut chip = document(&attack(
            &bench,
            on,
            &format!("int8.fpi {rest} --out chip.npz"),
        ));
        let host = document(&bench.run(&format!("attack int8.fpi {rest} --out host.npz")));
        assert!(chip["target"].as_str().unwrap().contains("mps2-an386"));
        // of a black box no more is known than the type of its input
        assert_eq!(chip["attacks"][0]["numerics"], "int8");
        chip["attacks"][0]["numerics"] = host["attacks"][0]["numerics"].clone();
        assert_eq!(chip["attacks"], host["attacks"]);
        let fooled = chip["attacks"][0]["fooled"].as_array().unwrap();
        assert!(fooled.iter().any(|yes| yes == true), "{name}: {chip}");
        let queries = chip["attacks"][0]["queries_mean"].as_f64().unwrap();
        assert!(queries > 2.0, "{name}: {queries} queries each are no test");
        let bytes = |name: &str| std::fs::read(bench.path(name)).expect("a file");
        assert_eq!(bytes("chip.npz"), bytes("host.npz"), "{name}");
    }
}

/// The vendor's interpreter in Python, asked through the example that docs/targets.md names.
#[test]
fn the_python_example_is_fooled() {
    let Some(python) = oracle::python() else {
        return;
    };
    let bench = Bench::new();
    for line in [
        "train classifier --data digits --epochs 4 --out trained",
        "quantize trained/model.fpi --calibrate digits --out int8.tflite",
    ] {
        assert!(bench.run(line).status.success(), "{line}");
    }
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tflite_target.py");
    let target = format!("program:'{}' '{example}' int8.tflite", python.display());
    for (name, limits) in [
        ("square", "--norm linf --eps 0.25 --max-queries 200"),
        ("hopskipjump", "--norm l2 --eps 3 --max-queries 300"),
    ] {
        let rest = format!("--data digits --limit 6 --attack {name} {limits} --json --out a.npz");
        let report = document(&attack(&bench, &target, &rest));
        let entry = &report["attacks"][0];
        let fooled = entry["fooled"].as_array().unwrap();
        assert!(
            fooled.iter().filter(|yes| **yes == true).count() >= 3,
            "{name}: {entry}"
        );
        assert!(entry["queries_mean"].as_f64().unwrap() > 2.0, "{entry}");
    }
}
