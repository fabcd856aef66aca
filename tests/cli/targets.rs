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
    let name = outside["target"].as_str().unwrap();
    assert!(name.starts_with("program:"), "{name}");
    assert!(name.ends_with("(trained/model.fpi)"), "{name}");
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
        // an answer that comes before the question is told from one that comes after it, so this one waits for it
        (
            "sh -c 'read question; echo {}'",
            "introduction is not understood",
        ),
        ("'unclosed", "quote"),
        ("sh -c 'exec >&-; sleep 300'", "closed its stdout"),
        ("yes", "more than one line"),
    ] {
        let output = attack(&bench, &format!("program:{program}"), rest);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{program}: {text}");
        assert_eq!(text.trim_end().lines().count(), 1, "{program}: {text}");
        assert!(text.contains(says), "{program}: {text}");
        assert!(!bench.path("a.npz").exists());
    }
}

#[test]
fn an_unknown_board_is_told_the_known_ones() {
    let bench = Bench::new();
    bench.train();
    let rest = "trained/model.fpi --data digits --limit 2 --attack square --eps 0.1 --out a.npz";
    let output = attack(&bench, "emulator:esp32", rest);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    for word in ["esp32", "--target", "mps2-an386", "microbit"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!text.contains("--board"), "{text}");
}

/// Whatever ends an attack, the program that it attacks ends with it, and what that has started; also where the attack was started
/// to ignore hangups, as `nohup` does.
#[test]
#[cfg(target_os = "linux")]
fn no_program_outlives_an_attack_that_is_killed() {
    for start in ["exec", "trap '' HUP; exec"] {
        outlives(start);
    }
}

/// `start`: how a shell starts the attack.
#[cfg(target_os = "linux")]
fn outlives(start: &str) {
    use std::time::{Duration, Instant};
    let bench = Bench::new();
    let rest = "--data digits --limit 2 --attack square --eps 0.1 --out a.npz";
    let target = "--target \"program:sh -c 'sleep 300 & echo \\$! > id; wait'\"";
    let mut child = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("{start} {SERVED} attack {rest} {target}"))
        .current_dir(bench.path("."))
        .spawn()
        .expect("a shell runs");
    let wait = |is_so: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !is_so() && start.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(10));
        }
        is_so()
    };
    let id = || std::fs::read_to_string(bench.path("id")).unwrap_or_default();
    // a process that waits to be reaped has no command line
    let runs = || {
        let line = std::fs::read(format!("/proc/{}/cmdline", id().trim()));
        !line.unwrap_or_default().is_empty()
    };
    assert!(wait(&|| id().ends_with('\n') && runs()), "{start}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(wait(&|| !runs()), "{start}: {} still runs", id());
}

/// What `foolproof serve` answers to lines.
fn served(bench: &Bench, rest: &str, lines: &[&str]) -> Vec<Value> {
    use std::io::Write;
    let mut child = std::process::Command::new(SERVED)
        .arg("serve")
        .args(rest.split_whitespace())
        .current_dir(bench.path("."))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the foolproof binary runs");
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(format!("{}\n", lines.join("\n")).as_bytes())
        .unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn serve_says_why_it_cannot_answer() {
    let bench = Bench::new();
    bench.train();
    let x = |value: &str| format!("{{\"x\": [{}]}}", vec![value; 64].join(","));
    let lines = [
        "{\"hello\": 1}",
        "{\"hello\": 2}",
        &x("0.5"),
        &x("3e38"),
        &x("1e39"),
        "{\"x\": [1]}",
        "{}",
    ];
    let says = [
        "",
        "protocol 2 is asked for, this is protocol 1",
        "",
        "overflows",
        "out of range",
        "1 elements",
        "neither hello nor x",
    ];
    for labels in ["", "--labels-only"] {
        let answers = served(&bench, &format!("trained/model.fpi {labels}"), &lines);
        assert_eq!(answers.len(), lines.len());
        assert_eq!(answers[0]["protocol"], 1);
        assert!(answers[2]["label"].is_u64());
        for (answer, says) in answers.iter().zip(says) {
            match says {
                "" => assert!(answer.get("error").is_none(), "{answer}"),
                _ => assert!(answer["error"].as_str().unwrap().contains(says), "{answer}"),
            }
        }
    }
}

#[test]
fn every_command_that_takes_onnx_says_so() {
    let bench = Bench::new();
    for command in [
        "inspect",
        "infer",
        "attack",
        "evaluate",
        "serve",
        "bench",
        "device run",
    ] {
        let output = bench.run(&format!("{command} --help"));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(".onnx"), "{command}: {text}");
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
        let eps = match norm {
            "l0" => "5",
            _ => "0.2",
        };
        for limit in [90, 17] {
            let log = bench.path("asked.log");
            let _ = std::fs::remove_file(&log);
            let target =
                format!("program:sh -c 'tee -a asked.log | \"{SERVED}\" serve trained/model.fpi'");
            let rest = format!(
                "--data digits --limit {samples} --attack {name} --norm {norm} --eps {eps} --max-queries {limit} --json --out a.npz"
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

/// An autoencoder has as many outputs as inputs, but as a detector of anomalies two classes: on a chip as in this process.
#[test]
fn an_emulated_detector_is_the_detector_of_this_process() {
    use foolproof::kernels::Kernels;
    use foolproof::ops::Activation;
    use foolproof_host::classifier::{Classifier, Inputs};
    use foolproof_host::data::npy::{Values, View};
    use foolproof_host::data::npz;
    use foolproof_host::graph::{Builder, to_image};
    use foolproof_host::quantize::quantize;

    const N: usize = 12;
    let bench = Bench::new();
    let mut b = Builder::new(&[N as u32], (-1.0, 1.0), 3).unwrap();
    let x = b.dense(b.input(), 6, Activation::Relu).unwrap();
    let x = b.dense(x, N as u32, Activation::None).unwrap();
    let mut graph = b.finish(x);
    graph.anomaly_above = Some(0.2);
    let sample = |i: usize| (0..N).map(move |j| 0.1 * (i % 10) as f32 * ((i + 5 * j) as f32).sin());
    let calibration: Vec<f32> = (0..40).flat_map(sample).collect();
    let int8 = quantize(&graph, &calibration, &Default::default()).unwrap();
    let image = to_image(&int8).unwrap();
    std::fs::write(bench.path("int8.fpi"), image.bytes()).unwrap();
    let host = Classifier::new(image.model().unwrap(), Kernels::Scalar);
    let inputs = host.form().inputs(&calibration);
    let answers = host.answers(&inputs).unwrap();
    let labels: Vec<i64> = answers.iter().map(|answer| answer.label as i64).collect();
    assert!(labels.contains(&0) && labels.contains(&1), "{labels:?}");
    let Inputs::I8(x) = &inputs else {
        panic!("an int8 model takes int8 inputs")
    };
    let entry = |name, shape, values| npz::Entry {
        name,
        shape,
        values,
    };
    npz::write(
        &bench.path("x.npz"),
        &[
            entry("x", &[labels.len(), N][..], View::I8(x)),
            entry("y", &[labels.len()][..], View::I64(&labels)),
        ],
    )
    .unwrap();
    let rest = "--data x.npz --attack square --norm linf --eps 0.3 --max-queries 40 --json";
    let on = "emulator:mps2-an386";
    let chip = document(&attack(
        &bench,
        on,
        &format!("int8.fpi {rest} --out chip.npz"),
    ));
    let host = document(&bench.run(&format!("attack int8.fpi {rest} --out host.npz")));
    for field in ["accuracy", "fooled", "queries_mean", "robust_accuracy"] {
        let of = |document: &Value| match field {
            "accuracy" => document[field].clone(),
            _ => document["attacks"][0][field].clone(),
        };
        assert!(!of(&host).is_null(), "{field}");
        assert_eq!(of(&chip), of(&host), "{field}");
    }
    let fooled = host["attacks"][0]["fooled"].as_array().unwrap();
    assert!(fooled.contains(&Value::Bool(true)) && fooled.contains(&Value::Bool(false)));
    // what an attack that failed leaves is not compared: only what fooled
    let found = |name: &str| {
        let bytes = std::fs::read(bench.path(name)).expect("a file");
        let x = npz::read_array(&bytes, "x").unwrap().unwrap();
        let Values::I8(x) = x.values else {
            panic!("int8 inputs")
        };
        let rows = x.chunks(N).zip(fooled).filter(|(_, yes)| **yes == true);
        rows.map(|(x, _)| x.to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(found("chip.npz"), found("host.npz"));
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
