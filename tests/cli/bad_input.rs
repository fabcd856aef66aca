//! Bad input of every kind, to every command: exit code 2, one line on stderr that says what and where, nothing on stdout.

mod support;

use foolproof_host::data::npy::View;
use foolproof_host::data::npz::{Entry, write};
use std::fs;
use support::Bench;

/// What is typed, and what the one line must name: the fault and the place.
struct Case {
    line: &'static str,
    names: &'static [&'static str],
}

fn case(line: &'static str, names: &'static [&'static str]) -> Case {
    Case { line, names }
}

fn prepare() -> Bench {
    let bench = Bench::new();
    bench.train();
    let quantized = bench.run("quantize trained/model.fpi --calibrate digits --out int8.fpi");
    assert!(
        quantized.status.success(),
        "{}",
        String::from_utf8_lossy(&quantized.stderr)
    );
    fs::create_dir(bench.path("int8")).unwrap();
    fs::copy(bench.path("int8.fpi"), bench.path("int8/model.fpi")).unwrap();
    let model = fs::read(bench.path("trained/model.fpi")).unwrap();
    fs::write(bench.path("cut.fpi"), &model[..model.len() / 2]).unwrap();
    fs::write(bench.path("header.fpi"), &model[..16]).unwrap();
    let mut flipped = model.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(bench.path("flipped.fpi"), flipped).unwrap();
    fs::write(bench.path("text.txt"), "hello").unwrap();
    fs::write(bench.path("empty.fpi"), "").unwrap();
    fs::write(bench.path("lite.tflite"), b"\x1c\0\0\0TFL3 and so on").unwrap();
    let mut x = vec![0.5f32; 2 * 64];
    let data = |name: &str, shape: &[usize], x: &[f32], y: &[i64]| {
        let count = [y.len()];
        let arrays = [
            Entry {
                name: "x",
                shape,
                values: View::F32(x),
            },
            Entry {
                name: "y",
                shape: &count,
                values: View::I64(y),
            },
        ];
        write(&bench.path(name), &arrays).unwrap();
    };
    data("good.npz", &[2, 8, 8, 1], &x, &[0, 9]);
    let ends = [[0.0_f32; 64], [f32::INFINITY; 64]];
    let end = |name, values| Entry {
        name,
        shape: &[1, 64],
        values: View::F32(values),
    };
    let label = Entry {
        name: "label",
        shape: &[1],
        values: View::I64(&[0]),
    };
    let arrays = [end("lo", &ends[0]), end("hi", &ends[1]), label];
    write(&bench.path("infinite.npz"), &arrays).unwrap();
    data("label.npz", &[2, 8, 8, 1], &x, &[0, 10]);
    data("negative.npz", &[2, 8, 8, 1], &x, &[-1, 0]);
    data("counts.npz", &[2, 8, 8, 1], &x, &[0, 1, 2]);
    data("shape.npz", &[2, 4, 4, 1], &x[..32], &[0, 1]);
    data("none.npz", &[0, 8, 8, 1], &[], &[]);
    x[70] = 16.0;
    data("range.npz", &[2, 8, 8, 1], &x, &[0, 1]);
    x[70] = f32::NAN;
    data("nan.npz", &[2, 8, 8, 1], &x, &[0, 1]);
    x[70] = f32::NEG_INFINITY;
    data("inf.npz", &[2, 8, 8, 1], &x, &[0, 1]);
    let unlabelled = [Entry {
        name: "x",
        shape: &[1, 8, 8, 1],
        values: View::F32(&[0.0; 64]),
    }];
    write(&bench.path("unlabelled.npz"), &unlabelled).unwrap();
    let good = fs::read(bench.path("good.npz")).unwrap();
    fs::write(bench.path("cut.npz"), &good[..good.len() / 2]).unwrap();
    fs::write(bench.path("wrong.toml"), "epochs = 'many'").unwrap();
    fs::write(bench.path("unknown.toml"), "learning_rat = 0.1").unwrap();
    fs::write(bench.path("zero.toml"), "epochs = 0").unwrap();
    bench
}

fn cases() -> Vec<Case> {
    vec![
        // usage
        case("", &["subcommand", "evaluate"]),
        case("bogus", &["bogus"]),
        case("inspect", &["MODEL"]),
        case("inspect a b", &["'b'"]),
        case("evaluate trained/model.fpi --eps 0.1", &["--data"]),
        case("evaluate trained/model.fpi --data digits", &["--eps"]),
        case(
            "attack trained/model.fpi --data digits --attack fgsm --eps 0.1",
            &["--out"],
        ),
        case("infer trained/model.fpi --inputs digits", &["--outputs"]),
        case("pack trained/model.fpi", &["--out"]),
        case("bench trained/model.fpi --batch 0", &["--batch", "from 1"]),
        case("bench --batch 8", &["MODEL"]),
        case("bench --seconds 0", &["--seconds", "0.001"]),
        case("bench --only pgd-40", &["--only", "train-gan-mlp"]),
        case("bench trained/model.fpi --only triad", &["--only", "infer"]),
        case("train classifier --data digits", &["--out"]),
        case("train", &["subcommand", "classifier"]),
        case("train transformer --data digits --out o", &["transformer"]),
        case(
            "inspect trained/model.fpi --threads 0",
            &["--threads", "from 1"],
        ),
        case(
            "inspect trained/model.fpi --threads many",
            &["--threads", "many"],
        ),
        case(
            "inspect trained/model.fpi --seed -1",
            &["--seed", "-1", "from 0"],
        ),
        case(
            "inspect trained/model.fpi --seed 18446744073709551616",
            &["--seed", "from 0 to 18446744073709551615"],
        ),
        case(
            "inspect trained/model.fpi --threads -1",
            &["--threads", "-1", "from 1"],
        ),
        case("inspect trained/model.fpi --nonsense", &["--nonsense"]),
        case("quantize trained/model.fpi --calibrate digits", &["--out"]),
        case("device", &["subcommand", "list"]),
        case("device fly", &["fly"]),
        case("device run --data digits", &["--model"]),
        case("device eval --model trained/model.fpi", &["--data"]),
        case("demo --no-chip --board microbit", &["--no-chip", "--board"]),
        case("demo --threads 0", &["--threads"]),
        // boards
        case(
            "demo --board esp32 --report r",
            &["esp32", "--board", "microbit"],
        ),
        case(
            "device run --board esp32 --model trained/model.fpi --data digits",
            &["esp32", "--board", "microbit"],
        ),
        case(
            "device eval --board esp32 --model trained/model.fpi --data digits",
            &["esp32", "--board", "microbit"],
        ),
        case(
            "device sample --board esp32 --model trained/model.fpi --out s.npz",
            &["esp32", "--board", "microbit"],
        ),
        case("device sample --out s.npz", &["--model"]),
        case(
            "device sample --model trained/model.fpi --out s.jpg",
            &["s.jpg", ".npz", ".png"],
        ),
        case(
            "device sample --model trained/model.fpi --out s.png",
            &["no images", "s.png", ".npz"],
        ),
        case(
            "device sample --model trained/model.fpi --classes 64 --out s.npz",
            &["64 classes", "64 numbers", "--classes"],
        ),
        // models
        case("inspect nowhere.fpi", &["no such file", "nowhere.fpi"]),
        case("inspect trained", &["directory", "trained"]),
        case("inspect text.txt", &["known format", "text.txt"]),
        case("inspect empty.fpi", &["known format", "empty.fpi"]),
        case("inspect cut.fpi", &["cut.fpi", "bytes"]),
        case("inspect header.fpi", &["header.fpi", "bytes"]),
        case("inspect flipped.fpi", &["flipped.fpi", "checksum"]),
        case("inspect lite.tflite", &["TensorFlow Lite", "lite.tflite"]),
        case(
            "infer nowhere.fpi --inputs digits --outputs y.npy",
            &["no such file", "nowhere.fpi"],
        ),
        case(
            "infer cut.fpi --inputs digits --outputs y.npy",
            &["cut.fpi"],
        ),
        case(
            "attack cut.fpi --data digits --attack fgsm --eps 0.1 --out a.npz",
            &["cut.fpi"],
        ),
        case("evaluate cut.fpi --data digits --eps 0.1", &["cut.fpi"]),
        case("evaluate trained --data digits --eps 0.1", &["directory"]),
        case("pack cut.fpi --out p.fpi", &["cut.fpi"]),
        case("pack nowhere.fpi --out p.fpi", &["no such file"]),
        case("bench cut.fpi", &["cut.fpi"]),
        case(
            "quantize cut.fpi --calibrate digits --out q.fpi",
            &["cut.fpi"],
        ),
        case(
            "quantize nowhere.fpi --calibrate digits --out q.fpi",
            &["no such file", "nowhere.fpi"],
        ),
        case(
            "quantize int8.fpi --calibrate digits --out q.fpi",
            &["quantized already", "int8.fpi", "f32"],
        ),
        case("device run --model cut.fpi --data digits", &["cut.fpi"]),
        case(
            "device eval --model trained --data digits",
            &["directory", "trained"],
        ),
        case(
            "train classifier --data digits --start int8/model.fpi --out o",
            &["int8"],
        ),
        // data
        case(
            "evaluate trained/model.fpi --data nowhere.npz --eps 0.1",
            &["no such file", "nowhere.npz"],
        ),
        case(
            "evaluate trained/model.fpi --data trained --eps 0.1",
            &["directory", "trained"],
        ),
        case(
            "evaluate trained/model.fpi --data text.txt --eps 0.1",
            &["known format", "text.txt"],
        ),
        case(
            "evaluate trained/model.fpi --data cut.npz --eps 0.1",
            &["archive", "cut.npz"],
        ),
        case(
            "evaluate trained/model.fpi --data shape.npz --eps 0.1",
            &["[4, 4, 1]", "shape.npz", "[8, 8, 1]"],
        ),
        case(
            "evaluate trained/model.fpi --data nan.npz --eps 0.1",
            &["NaN", "nan.npz", "sample 1", "[0, 6, 0]"],
        ),
        case(
            "evaluate trained/model.fpi --data inf.npz --eps 0.1",
            &["inf", "inf.npz", "sample 1"],
        ),
        case(
            "evaluate trained/model.fpi --data label.npz --eps 0.1",
            &["label 10", "label.npz", "y[1]", "0 to 9"],
        ),
        case(
            "evaluate trained/model.fpi --data negative.npz --eps 0.1",
            &["label -1", "negative.npz", "y[0]"],
        ),
        case(
            "evaluate trained/model.fpi --data counts.npz --eps 0.1",
            &["2 samples", "3 labels", "counts.npz"],
        ),
        case(
            "evaluate trained/model.fpi --data none.npz --eps 0.1",
            &["no samples", "none.npz"],
        ),
        case(
            "evaluate trained/model.fpi --data unlabelled.npz --eps 0.1",
            &["no labels", "unlabelled.npz"],
        ),
        case(
            "evaluate trained/model.fpi --data digits:all:x --eps 0.1",
            &["digits:all:x"],
        ),
        case(
            "attack trained/model.fpi --data nan.npz --attack fgsm --eps 0.1 --out a.npz",
            &["NaN", "sample 1"],
        ),
        case(
            "attack trained/model.fpi --data shape.npz --attack fgsm --eps 0.1 --out a.npz",
            &["[8, 8, 1]"],
        ),
        case(
            "attack trained/model.fpi --data label.npz --attack fgsm --eps 0.1 --out a.npz",
            &["label 10"],
        ),
        case(
            "infer trained/model.fpi --inputs nan.npz --outputs y.npy",
            &["NaN", "sample 1"],
        ),
        case(
            "infer trained/model.fpi --inputs shape.npz --outputs y.npy",
            &["[8, 8, 1]"],
        ),
        case(
            "infer trained/model.fpi --inputs label.npz --outputs y.npy",
            &["label 10"],
        ),
        case(
            "infer trained/model.fpi --inputs nowhere.npy --outputs y.npy",
            &["no such file"],
        ),
        case(
            "train classifier --data nowhere.npz --out o",
            &["no such file"],
        ),
        case("train classifier --data nan.npz --out o", &["NaN"]),
        case(
            "train classifier --data unlabelled.npz --out o",
            &["no labels"],
        ),
        case(
            "train classifier --data good.npz --out o",
            &["good.npz", "2 samples"],
        ),
        case(
            "quantize trained/model.fpi --calibrate nan.npz --out q.fpi",
            &["NaN", "nan.npz", "sample 1"],
        ),
        case(
            "quantize trained/model.fpi --calibrate shape.npz --out q.fpi",
            &["[4, 4, 1]", "[8, 8, 1]"],
        ),
        case(
            "quantize trained/model.fpi --calibrate nowhere.npz --out q.fpi",
            &["no such file", "nowhere.npz"],
        ),
        case(
            "device run --model int8.fpi --data nan.npz",
            &["NaN", "sample 1"],
        ),
        case(
            "device run --model int8.fpi --data label.npz",
            &["label 10"],
        ),
        case(
            "device eval --model int8.fpi --data shape.npz",
            &["[8, 8, 1]"],
        ),
        case(
            "device eval --model int8.fpi --data unlabelled.npz",
            &["no labels"],
        ),
        // options
        case(
            "device run --model int8.fpi --data digits --eps -1",
            &["--eps", "-1"],
        ),
        case(
            "device run --model int8.fpi --data digits --eps 0.1 --attack magic",
            &["magic", "pgd"],
        ),
        case(
            "device eval --model int8.fpi --data digits --timeout 0",
            &["--timeout"],
        ),
        case(
            "evaluate trained/model.fpi --data digits --eps -0.1",
            &["--eps", "-0.1"],
        ),
        case(
            "evaluate trained/model.fpi --data digits --eps nan",
            &["--eps", "NaN"],
        ),
        case(
            "evaluate trained/model.fpi --data digits --eps inf",
            &["--eps", "inf"],
        ),
        case(
            "evaluate trained/model.fpi --data digits --eps 1/0",
            &["--eps", "zero"],
        ),
        case(
            "evaluate trained/model.fpi --data digits --eps 8/255..1/255",
            &["--eps", "empty"],
        ),
        case(
            "evaluate trained/model.fpi --data digits --eps 0.1 --suite autoattack",
            &["autoattack", "standard"],
        ),
        case(
            "evaluate trained/model.fpi --data digits --eps 0.1 --norm l7",
            &["l7", "linf"],
        ),
        case(
            "evaluate trained/model.fpi --data digits --eps 0.1 --fail-under 50",
            &["--fail-under", "0 and 1"],
        ),
        case(
            "evaluate trained/model.fpi --data digits --eps 0.1 --limit 0",
            &["--limit"],
        ),
        case(
            "evaluate trained/model.fpi --data digits --eps 0.1 --kernels fast",
            &["--kernels", "scalar"],
        ),
        case(
            "evaluate trained/model.fpi --data digits --eps 0.1 --std 0",
            &["--std"],
        ),
        case(
            "evaluate trained/model.fpi --data digits --eps 0.1 --mean 1,2",
            &["--mean"],
        ),
        case(
            "evaluate trained/model.fpi --data digits --eps 0.1 --input-range 1,0",
            &["--input-range"],
        ),
        case(
            "attack trained/model.fpi --data digits --attack magic --eps 0.1 --out a.npz",
            &["magic", "pgd"],
        ),
        case(
            "attack trained/model.fpi --data digits --attack jsma --norm l0 --eps 8/255 --out a.npz",
            &["0.03", "--norm l0", "whole number"],
        ),
        case(
            "evaluate trained/model.fpi --data digits --suite jsma --norm l0 --eps 1,2.5",
            &["2.5", "--norm l0", "whole number"],
        ),
        case(
            "attack trained/model.fpi --data digits --attack pgd --eps 0.1 --set foo=1 --out a.npz",
            &["foo", "--set foo=", "steps"],
        ),
        case(
            "attack trained/model.fpi --data digits --attack universal-online --nearest --out a.npz",
            &["universal-online", "--nearest", "--eps"],
        ),
        case(
            "attack trained/model.fpi --data digits --attack universal-online --eps 0.1 --surrogate trained/model.fpi --out a.npz",
            &["universal-online", "--surrogate", "single samples"],
        ),
        case(
            "attack trained/model.fpi --box infinite.npz --attack universal",
            &["universal", "--box", "single samples"],
        ),
        case(
            "attack trained/model.fpi --box infinite.npz --attack pgd",
            &["row 0", "inf", "infinite.npz", "finite"],
        ),
        case(
            "attack trained/model.fpi --data digits --attack fgsm --eps -1 --out a.npz",
            &["--eps", "-1"],
        ),
        case(
            "attack trained/model.fpi --data digits --attack pgd --steps 0 --eps 0.1 --out a.npz",
            &["--steps", "0"],
        ),
        case(
            "attack trained/model.fpi --data digits --attack pgd --targeted 10 --eps 0.1 --out a.npz",
            &["class 10", "0 to 9"],
        ),
        case(
            "train classifier --data digits --epochs 0 --out o",
            &["--epochs"],
        ),
        case(
            "train classifier --data digits --config nowhere.toml --out o",
            &["no such file", "nowhere.toml"],
        ),
        case(
            "train classifier --data digits --config wrong.toml --out o",
            &["wrong.toml", "epochs"],
        ),
        case(
            "train classifier --data digits --config unknown.toml --out o",
            &["unknown.toml", "learning_rat"],
        ),
        case(
            "train classifier --data digits --config zero.toml --out o",
            &["epochs"],
        ),
        case(
            "train classifier --data digits --start fresh/model.fpi --out o",
            &["no such file", "fresh/model.fpi"],
        ),
        case(
            "evaluate trained/model.fpi --data range.npz --eps 0.1",
            &["range.npz", "0.5 to 16", "takes 0 to 1", "--input-range"],
        ),
        case(
            "infer int8.fpi --inputs range.npz --outputs y.npy",
            &["range.npz", "0.5 to 16", "takes 0 to 1"],
        ),
        case(
            "evaluate trained/model.fpi --data range.npz --eps 0.1 --input-range 0,1",
            &["range.npz", "0.5 to 16", "--input-range says 0 to 1"],
        ),
        case(
            "evaluate trained/model.fpi --data digits --eps 3e38",
            &["--eps", "3e38", "0 to 1e9"],
        ),
        case(
            "evaluate trained/model.fpi --data digits --eps 0.1 --std -1,2",
            &["--std"],
        ),
        case(
            "attack trained/model.fpi --data digits --attack fgsm --steps 3 --eps 0.1 --out a.npz",
            &["--steps", "one step"],
        ),
        case(
            "attack trained/model.fpi --data digits --attack fgsm --starts 3 --eps 0.1 --out a.npz",
            &["--starts", "one start"],
        ),
        case(
            "attack trained/model.fpi --data digits --attack pgd --targeted -1 --eps 0.1 --out a.npz",
            &["--targeted", "-1", "from 0"],
        ),
        case(
            "device run --model int8.fpi --data digits --kernels auto",
            &["--kernels"],
        ),
        case(
            "device run --model int8.fpi --data digits --steps 3",
            &["--steps", "--eps"],
        ),
        case(
            "device eval --model int8.fpi --data digits --timeout nan",
            &["--timeout", "nan", "seconds"],
        ),
        // outputs
        case(
            "infer trained/model.fpi --inputs good.npz --outputs good.npz",
            &["replace the input good.npz"],
        ),
        case(
            "attack trained/model.fpi --data good.npz --attack fgsm --eps 0.1 --out ./trained/model.fpi",
            &["replace the input trained/model.fpi"],
        ),
        case(
            "quantize trained/model.fpi --calibrate digits --out trained/model.fpi",
            &["replace the input"],
        ),
        case(
            "pack trained/model.fpi --out trained/model.fpi",
            &["replace the input"],
        ),
        case(
            "infer trained/model.fpi --inputs good.npz --outputs no/such/y.npy",
            &["no/such/y.npy"],
        ),
        case(
            "infer trained/model.fpi --inputs good.npz --outputs trained",
            &["directory", "trained"],
        ),
        case(
            "attack trained/model.fpi --data good.npz --attack fgsm --eps 0.1 --out no/such/a.npz",
            &["no/such/a.npz"],
        ),
        case(
            "evaluate trained/model.fpi --data good.npz --eps 0.1 --report text.txt/report",
            &["text.txt/report"],
        ),
        case(
            "pack trained/model.fpi --out no/such/p.fpi",
            &["no/such/p.fpi"],
        ),
        case(
            "train classifier --data digits --epochs 1 --out text.txt",
            &["text.txt"],
        ),
    ]
}

#[test]
fn bad_input_ends_in_one_line_and_exit_code_2() {
    let bench = prepare();
    let mut wrong = Vec::new();
    let cases = cases();
    for case in &cases {
        for json in ["", " --json"] {
            let line = format!("{}{json}", case.line);
            let output = bench.run(&line);
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            let mut complaints = Vec::new();
            if output.status.code() != Some(2) {
                complaints.push(format!("exit {:?}", output.status.code()));
            }
            if !output.stdout.is_empty() {
                complaints.push("stdout is not empty".into());
            }
            if stderr.lines().count() != 1
                || !stderr.starts_with("error: ")
                || !stderr.ends_with('\n')
            {
                complaints.push("not one line that starts with error:".into());
            }
            complaints.extend(
                case.names
                    .iter()
                    .filter(|name| !stderr.contains(*name))
                    .map(|name| format!("does not name {name:?}")),
            );
            if !complaints.is_empty() {
                wrong.push(format!(
                    "foolproof {line}\n    {}\n    {}",
                    complaints.join(", "),
                    stderr.trim_end()
                ));
            }
        }
    }
    assert!(cases.len() > 60);
    assert!(
        wrong.is_empty(),
        "{} of {} lines:\n{}",
        wrong.len(),
        2 * cases.len(),
        wrong.join("\n")
    );
    // Nothing was left behind by what failed.
    for name in [
        "y.npy",
        "a.npz",
        "p.fpi",
        "q.fpi",
        "r/report.html",
        "fresh/model.fpi",
        "o/model.fpi",
    ] {
        assert!(!bench.path(name).exists(), "{name} was written");
    }
}

/// Runs a line of the shell with `foolproof` as `$F`, and gives the exit code and stderr.
#[cfg(target_os = "linux")]
fn shell(bench: &Bench, line: &str) -> (Option<i32>, String) {
    let output = std::process::Command::new("sh")
        .args(["-c", line])
        .env("F", env!("CARGO_BIN_EXE_foolproof"))
        .current_dir(bench.path(""))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), stderr)
}

#[cfg(target_os = "linux")]
#[test]
fn lost_output_and_odd_files_end_in_one_line_too() {
    let bench = Bench::new();
    for (line, code, names) in [
        ("$F device list > /dev/full", 2, "stdout"),
        ("$F device list --json > /dev/full", 2, "stdout"),
        ("$F --help > /dev/full", 2, "stdout"),
        ("$F inspect nowhere.fpi 2> /dev/full", 2, ""),
        ("$F bogus 2> /dev/full", 2, ""),
        ("mkfifo pipe; timeout 20 $F inspect pipe", 2, "regular file"),
        (
            "echo x | timeout 20 $F inspect /dev/stdin",
            2,
            "regular file",
        ),
        ("$F inspect /dev/zero", 2, "regular file"),
    ] {
        let (got, stderr) = shell(&bench, line);
        assert_eq!(got, Some(code), "{line}: {stderr}");
        let lines = usize::from(!names.is_empty());
        assert!(
            stderr.lines().count() == lines && stderr.contains(names),
            "{line}: {stderr}"
        );
    }
    // A reader that has had enough is no error.
    let (code, stderr) = shell(
        &bench,
        "{ $F device list; echo $? > code; } | true; cat code >&2",
    );
    assert_eq!((code, stderr.trim()), (Some(0), "0"));
}
