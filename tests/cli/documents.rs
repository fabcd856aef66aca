//! Every command's document satisfies the schema, and says what its files say.

mod support;

use foolproof_host::data::npz;
use serde_json::Value;
use std::fs;
use std::path::Path;
use support::Bench;

/// Runs a command with `--json`; its stdout must be one document that satisfies the schema.
fn document(bench: &Bench, line: &str) -> Value {
    let output = bench.run(&format!("{line} --json"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "foolproof {line}: {stderr}");
    let document: Value =
        serde_json::from_slice(&output.stdout).expect("stdout is one JSON document");
    check(&document, line);
    document
}

fn check(document: &Value, line: &str) {
    let schema =
        serde_json::from_str(include_str!("../../host-tools/schema/foolproof-1.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "foolproof {line}: {errors:#?}");
}

#[test]
fn every_command_prints_one_valid_document() {
    let bench = Bench::new();
    let train = document(
        &bench,
        "train classifier --data digits --epochs 10 --out trained",
    );
    assert!(
        train["accuracy"]["clean"].as_f64().unwrap() > 0.9,
        "{train}"
    );
    assert_eq!(
        train["train"]["metrics"]["test_accuracy"],
        train["accuracy"]["clean"]
    );
    assert_eq!(train["data"]["n"], 1433);

    let inspect = document(&bench, "inspect trained/model.fpi");
    assert_eq!(inspect["model"], train["model"]);
    assert_eq!(
        inspect["inspect"]["input"]["shape"],
        serde_json::json!([1, 8, 8, 1])
    );
    assert_eq!(inspect["inspect"]["buffers"].as_object().unwrap().len(), 3);
    let boards = inspect["inspect"]["boards"].as_array().unwrap();
    assert_eq!(boards.len(), 7);
    for board in boards {
        // The network is made to fit, the attack included, into the 9 KiB that the smallest board spares.
        assert_eq!(
            (&board["infer"], &board["attack"]),
            (&true.into(), &true.into()),
            "{board}"
        );
        assert!(
            board["session_room_bytes"].as_u64().unwrap() >= 9216,
            "{board}"
        );
    }
    let text = bench.run("inspect trained/model.fpi");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains("Inference fits 7 of 7 boards; an attack on the chip fits 7."),
        "{text}"
    );

    let pack = document(&bench, "pack trained/model.fpi --out packed.fpi");
    assert_eq!(
        pack["model"]["sha256"], train["model"]["sha256"],
        "packing a packed model changes nothing"
    );

    let infer = document(&bench, "infer packed.fpi --inputs digits --outputs y.npy");
    assert_eq!(infer["accuracy"], train["accuracy"]);
    document(
        &bench,
        "infer packed.fpi --inputs digits:test --outputs y.npy --dump-tensors t.npz",
    );
    let same = document(
        &bench,
        "infer trained/model.fpi --inputs digits:test --outputs y.npy --kernels scalar --compare t.npz",
    );
    assert_eq!(same["dump"]["ran_on"], "host");
    assert_eq!(same["dump"]["compared_with"], "t.npz");
    assert!(same["dump"]["first_difference"].is_null(), "{same}");
    assert!(same["dump"]["tensors"].as_u64().unwrap() > 3);

    let attack = document(
        &bench,
        "attack packed.fpi --data digits --limit 100 --attack pgd --eps 0.25 --out adv.npz",
    );
    let entry = &attack["attacks"][0];
    let fooled: Vec<bool> = entry["fooled"]
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_bool().unwrap())
        .collect();
    assert_eq!(fooled.len(), 100);
    assert!(entry["robust_accuracy"].as_f64().unwrap() < 0.5, "{entry}");
    assert!(entry["mean_norm"]["linf"].as_f64().unwrap() <= 0.25 + 1e-6);
    let file = fs::read(bench.path("adv.npz")).unwrap();
    let written = npz::read_array(&file, "fooled")
        .unwrap()
        .unwrap()
        .values
        .into_integers()
        .unwrap();
    assert_eq!(
        written,
        fooled
            .iter()
            .map(|&fooled| i64::from(fooled))
            .collect::<Vec<_>>()
    );

    // What was written fools the model when it is read again.
    let again = document(&bench, "infer packed.fpi --inputs adv.npz --outputs y.npy");
    let right = fooled.iter().filter(|&&fooled| !fooled).count() as f64 / 100.0;
    assert_eq!(again["accuracy"]["clean"].as_f64().unwrap(), right);

    let evaluate = document(
        &bench,
        "evaluate packed.fpi --data digits --limit 50 --eps 1/16..4/16 --report report",
    );
    // FGSM, PGD and the gradient-free control at each of four sizes, and what they come to together
    assert_eq!(evaluate["attacks"].as_array().unwrap().len(), 16);
    let saved: Value =
        serde_json::from_slice(&fs::read(bench.path("report/results.json")).unwrap()).unwrap();
    assert_eq!(saved, evaluate);
    let page = fs::read_to_string(bench.path("report/report.html")).unwrap();
    assert!(
        page.contains("<svg") && page.contains("data:image/png;base64,") && !page.contains("http")
    );
    let lines = fs::read_to_string(bench.path("report/results.csv")).unwrap();
    assert_eq!(lines.lines().count(), 17);
    let cases = fs::read_to_string(bench.path("report/junit.xml")).unwrap();
    assert!(cases.contains("tests=\"16\" failures=\"0\""), "{cases}");

    // the same is no worse than itself; a better past is a missed threshold
    let line = "evaluate packed.fpi --data digits --limit 50 --eps 1/16..4/16 --report report --baseline old.json";
    let mut old = saved.clone();
    fs::write(bench.path("old.json"), old.to_string()).unwrap();
    assert_eq!(bench.run(line).status.code(), Some(0));
    old["attacks"][0]["robust_accuracy"] = Value::from(1.0);
    fs::write(bench.path("old.json"), old.to_string()).unwrap();
    let worse = bench.run(line);
    assert_eq!(worse.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&worse.stderr).contains("worse than --baseline"));
    let cases = fs::read_to_string(bench.path("report/junit.xml")).unwrap();
    assert!(cases.contains("failures=\"1\""), "{cases}");
    fs::write(bench.path("old.json"), "{}").unwrap();
    assert_eq!(bench.run(line).status.code(), Some(2));
}

#[test]
fn the_demo_runs_the_chip_and_what_it_writes_can_be_used() {
    let bench = Bench::new();
    let demo = document(&bench, "demo --report out --board mps2-an386");
    let share = |value: &Value| {
        value
            .as_f64()
            .unwrap_or_else(|| panic!("{value} is no number"))
    };
    assert!(
        share(&demo["accuracy_float"]["clean"]) >= 0.98,
        "{}",
        demo["accuracy_float"]
    );
    assert!(share(&demo["accuracy"]["clean"]) >= share(&demo["accuracy_float"]["clean"]) - 0.005);
    let fgsm = |attack: &&Value| {
        attack["name"] == "fgsm" && attack["numerics"] == "tflm" && attack["eps"] == 0.25
    };
    let fgsm = demo["attacks"]
        .as_array()
        .unwrap()
        .iter()
        .find(fgsm)
        .expect("FGSM at 0.25 on the int8 model");
    assert!(share(&fgsm["robust_accuracy"]) < 0.3, "{fgsm}");
    let device = demo["device"].as_array().unwrap();
    assert_eq!(device.len(), 1);
    for (field, least) in [
        ("samples", 300),
        ("logits_compared", 900),
        ("adversarial_compared", 600),
    ] {
        assert!(
            device[0][field].as_u64().unwrap() >= least,
            "{field}: {}",
            device[0]
        );
    }
    assert_eq!(
        (
            &device[0]["logit_mismatches"],
            &device[0]["adversarial_mismatches"]
        ),
        (&0.into(), &0.into())
    );
    for field in [
        "instructions_per_inference",
        "instructions_per_fgsm",
        "instructions_per_pgd",
        "stack_bytes",
        "flash_bytes",
    ] {
        assert!(device[0][field].as_u64().unwrap() > 0, "{field}");
    }
    let page = fs::read_to_string(bench.path("out/report.html")).unwrap();
    assert!(
        page.contains("bit for bit") && page.contains("foolproof demo") && !page.contains("http")
    );

    // The int8 model is the f32 model quantized, and the same on a chip that is served or alone.
    let quantize = document(
        &bench,
        "quantize out/digits_f32.fpi --calibrate digits --out q.fpi",
    );
    assert_eq!(quantize["model"]["sha256"], demo["model"]["sha256"]);
    let line = "--model q.fpi --data digits --limit 8 --eps 0.25 --steps 5";
    let run = document(&bench, &format!("device run {line}"));
    let alone = document(&bench, &format!("device eval {line}"));
    for (way, outputs) in [(&run, 24), (&alone, 8)] {
        let entry = &way["device"][0];
        assert_eq!(
            (
                &entry["samples"],
                &entry["logits_compared"],
                &entry["adversarial_compared"]
            ),
            (&8.into(), &outputs.into(), &16.into())
        );
        assert_eq!(
            (&entry["logit_mismatches"], &entry["adversarial_mismatches"]),
            (&0.into(), &0.into())
        );
    }
    for same in ["accuracy", "infer_buffer_bytes", "attack_buffer_bytes"] {
        assert_eq!(run["device"][0][same], alone["device"][0][same], "{same}");
    }
}

#[test]
fn without_a_chip_the_demo_and_the_list_of_boards_are_documents_too() {
    let bench = Bench::new();
    let demo = document(&bench, "demo --no-chip --report out");
    assert!(demo.get("device").is_none());
    let list = document(&bench, "device list");
    assert!(
        list["boards"]
            .as_array()
            .unwrap()
            .iter()
            .any(|board| board["name"] == "microbit")
    );
}

#[test]
fn what_bench_measures_is_a_document_of_figures_that_fit_together() {
    let bench = Bench::new();
    bench.train();
    let rows = |document: &Value| document["bench"]["rows"].as_array().unwrap().clone();
    let found = document(
        &bench,
        "bench trained/model.fpi --seconds 0.001 --batch 4,1 --threads 2",
    );
    assert!(found["bench"]["macs"].as_u64().unwrap() > 0, "{found}");
    let mut seen = Vec::new();
    for row in rows(&found) {
        let number = |field: &str| row[field].as_f64().unwrap();
        let (batch, threads) = (number("batch"), number("threads"));
        assert_eq!(number("amount") % (batch * threads), 0.0, "{row}");
        let median = row["seconds"]["median"].as_f64().unwrap();
        let rate = number("amount") / median;
        assert!((number("per_second") / rate - 1.0).abs() < 1e-9, "{row}");
        seen.push((row["work"].as_str().unwrap().to_string(), batch, threads));
    }
    let mut expected = Vec::new();
    for work in ["infer", "gradient", "fgsm", "pgd-40"] {
        for (batch, threads) in [(1.0, 1.0), (1.0, 2.0), (4.0, 1.0), (4.0, 2.0)] {
            expected.push((work.to_string(), batch, threads));
        }
    }
    assert_eq!(seen, expected);

    document(
        &bench,
        "quantize trained/model.fpi --calibrate digits --out q.fpi",
    );
    let int8 = document(
        &bench,
        "bench q.fpi --seconds 0.001 --batch 1 --only infer,fgsm --threads 1",
    );
    assert_eq!(rows(&int8).len(), 2);
    assert_eq!(
        int8["bench"]["bits"],
        serde_json::json!({"inputs": 100, "different": 0})
    );

    let training = document(&bench, "bench --seconds 0.001 --threads 1");
    let works: Vec<Value> = rows(&training)
        .iter()
        .map(|row| row["work"].clone())
        .collect();
    let expected = [
        "train-classifier",
        "train-gan-mlp",
        "train-gan-dcgan",
        "peak-fma",
        "gemm-256",
        "gemm-512",
        "gemm-1024",
        "triad",
    ];
    // a CPU without fused multiply-adds has no peak of them
    let known = |name: &&str| *name != "peak-fma" || works.contains(&"peak-fma".into());
    assert_eq!(
        works,
        expected.into_iter().filter(known).collect::<Vec<_>>()
    );
    let text = bench.run("bench q.fpi --seconds 0.001 --batch 1 --threads 1");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains("FGSM takes") && text.contains("0 of 100 random inputs"),
        "{text}"
    );
}

#[test]
fn a_missed_threshold_is_exit_code_1_and_still_a_document() {
    let bench = Bench::new();
    bench.train();
    let line = "evaluate trained/model.fpi --data digits --limit 20 --eps 1.0 --suite pgd --json --fail-under";
    let missed = bench.run(&format!("{line} 1.0"));
    assert_eq!(missed.status.code(), Some(1));
    check(&serde_json::from_slice(&missed.stdout).unwrap(), line);
    assert!(String::from_utf8_lossy(&missed.stderr).contains("--fail-under 1"));
    assert_eq!(bench.run(&format!("{line} 0")).status.code(), Some(0));
}

#[test]
fn results_do_not_depend_on_threads_and_do_depend_on_the_seed() {
    let bench = Bench::new();
    let trained = |out: &str, options: &str| {
        document(
            &bench,
            &format!("train classifier --data digits --epochs 2 --out {out} {options}"),
        )["model"]["sha256"]
            .clone()
    };
    let one = trained("one", "--threads 1");
    assert_eq!(one, trained("three", "--threads 3"));
    assert_ne!(one, trained("other", "--threads 3 --seed 2"));
    let attacked = |options: &str| {
        let line = format!(
            "attack one/model.fpi --data digits --limit 40 --attack pgd --eps 0.1 --out a.npz {options}"
        );
        document(&bench, &line);
        fs::read(bench.path("a.npz")).unwrap()
    };
    let file = attacked("--threads 1");
    assert!(
        file == attacked("--threads 3"),
        "adversarial inputs depend on the number of threads"
    );
    assert!(
        file != attacked("--seed 2"),
        "random starts do not depend on the seed"
    );
}

#[test]
fn help_and_version_go_to_stdout() {
    let bench = Bench::new();
    for line in [
        "--help",
        "--version",
        "evaluate --help",
        "train classifier --help",
    ] {
        let output = bench.run(line);
        assert_eq!(
            (output.status.code(), output.stderr.len()),
            (Some(0), 0),
            "{line}"
        );
        assert!(!output.stdout.is_empty());
    }
}

/// A length-delimited field of a protocol buffer.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    assert!(length < 128);
    [&[number << 3 | 2, length], content].concat()
}

/// An ONNX model of operators that nobody has: one twice, one once.
fn mysterious() -> Vec<u8> {
    let node = |input: &str, output: &str, op: &str| {
        let parts = [(1, input), (2, output), (4, op)];
        let node: Vec<u8> = parts
            .iter()
            .flat_map(|&(number, text)| field(number, text.as_bytes()))
            .collect();
        field(1, &node)
    };
    let port = |number: u8, name: &str| {
        let dims = [1, 4].map(|size| field(1, &[1 << 3, size])).concat();
        let tensor = [vec![1 << 3, 1], field(2, &dims)].concat();
        let info = [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat();
        field(number, &info)
    };
    let graph = [
        node("x", "a", "Mystery"),
        node("a", "b", "Enigma"),
        node("b", "y", "Mystery"),
        port(11, "x"),
        port(12, "y"),
    ]
    .concat();
    [vec![1 << 3, 8], field(7, &graph), field(8, &[2 << 3, 13])].concat()
}

#[test]
fn what_a_model_needs_and_foolproof_has_not_is_a_document_too() {
    let bench = Bench::new();
    fs::write(bench.path("m.onnx"), mysterious()).unwrap();
    let output = bench.run("inspect m.onnx --json");
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
    assert!(
        stderr.contains("Mystery") && stderr.contains("Enigma"),
        "{stderr}"
    );
    let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
    check(&document, "inspect m.onnx");
    let missing = document["inspect"]["unsupported"].as_array().unwrap();
    assert_eq!(missing.len(), 2, "{document}");
    let line = |name: &str| {
        let found = missing.iter().filter_map(Value::as_str);
        found.filter(|line| line.contains(name)).collect::<Vec<_>>()
    };
    assert!(
        line("Mystery").len() == 1 && line("Mystery")[0].contains('2'),
        "{document}"
    );
    assert!(line("Enigma").len() == 1, "{document}");
    assert!(document["inspect"]["input"].is_null());
}

#[test]
fn known_data_sets_are_listed_and_recognized() {
    let bench = Bench::new();
    let list = document(&bench, "data");
    let sets = list["sets"].as_array().unwrap();
    let names: Vec<&str> = sets.iter().filter_map(|s| s["name"].as_str()).collect();
    assert_eq!(names, ["digits", "mnist", "fashion-mnist", "cifar-10"]);
    for set in sets {
        assert!(!set["get"].as_array().unwrap().is_empty(), "{set}");
        let embedded = set["name"] == "digits";
        assert_eq!(
            set["files"].as_array().unwrap().is_empty(),
            embedded,
            "{set}"
        );
    }
    // two images of 2x3 in idx form are none of them
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3];
    images.extend(0..12);
    fs::write(bench.path("few-idx3-ubyte"), images).unwrap();
    let few = document(&bench, "data few-idx3-ubyte");
    assert_eq!(few["data"]["n"], 2);
    assert_eq!(
        few["sets"][0]["about"],
        "2 samples of shape [2, 3], uint8, no labels"
    );
    // SHA-256 of those 28 bytes, by sha256sum
    assert_eq!(
        few["sets"][0]["files"],
        serde_json::json!([{
            "path": "few-idx3-ubyte",
            "checksum": "sha256:0d74d0b1c1c92474525312c377f3e5fbc23dc7db68d5ac54b97882cde5d13581",
        }])
    );
    let mnist = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/data/datasets/mnist/t10k-images-idx3-ubyte.gz");
    if !mnist.exists() {
        eprintln!("skipped: {} is not there", mnist.display());
        return;
    }
    let mnist = document(&bench, &format!("data {}", mnist.display()));
    let files = mnist["sets"][0]["files"].as_array().unwrap();
    let known: Vec<&str> = files.iter().filter_map(|f| f["known"].as_str()).collect();
    assert_eq!(
        known,
        [
            "mnist t10k-images-idx3-ubyte",
            "mnist t10k-labels-idx1-ubyte"
        ]
    );
}
