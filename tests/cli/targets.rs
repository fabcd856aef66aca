//! Black boxes outside the process: programs on stdin and stdout, and an emulated chip.

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
