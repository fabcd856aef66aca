//! Is the straight-through gradient of an int8 graph worth anything, and is a gradient that is worth nothing flagged?
//!
//! The third-party models and data lie outside of the repository, in `../shared/data`; without that folder the tests that need
//! them say so and pass. `docs/gradients.md` is made from them by
//! `cargo test -p foolproof-host --test gradient_quality -- --ignored`.

mod support;

use foolproof::kernels::Kernels;
use foolproof::memory::Mode;
use foolproof::ops::Activation;
use foolproof_host::classifier::Classifier;
use foolproof_host::data::npy::{Values, View};
use foolproof_host::data::npz;
use foolproof_host::document::{Attack, Check, Document, Estimate, Share};
use foolproof_host::graph::{Builder, Image, TensorData, from_image, to_image};
use foolproof_host::import::tflite;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use support::Bench;

/// The shared folder; says so where it is not there.
fn shared(part: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/data")
        .join(part);
    if path.exists() {
        return Some(path);
    }
    eprintln!(
        "SKIPPED: {} is not there, so nothing was measured",
        path.display()
    );
    None
}

/// What `foolproof LINE --json` says.
fn document(bench: &Bench, line: &str) -> Document {
    let output = bench.run(&format!("{line} --json"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "foolproof {line}: {stderr}");
    let value: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("stdout is one JSON document");
    let schema =
        serde_json::from_str(include_str!("../../host-tools/schema/foolproof-1.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    assert!(
        validator.is_valid(&value),
        "{:?}",
        validator.validate(&value)
    );
    serde_json::from_value(value).expect("a document")
}

fn failed(document: &Document) -> Vec<&str> {
    document
        .checks
        .iter()
        .filter(|check| check.passed == Some(false))
        .map(|check| check.name.as_str())
        .collect()
}

/// The digits' network, its int8 form, and one whose logits are so far apart that the cross-entropy has no gradient.
fn digits(bench: &Bench) {
    for line in [
        "train classifier --data digits --epochs 8 --out trained",
        "quantize trained/model.fpi --calibrate digits --out int8.fpi",
    ] {
        let output = bench.run(line);
        assert!(output.status.success(), "{line}: {output:?}");
    }
    let image = Image::from_bytes(&std::fs::read(bench.path("trained/model.fpi")).unwrap());
    let mut graph = from_image(&image.model().unwrap());
    let last = graph.nodes.last().expect("a layer").inputs.clone();
    for t in last {
        if let TensorData::F32(values) = &mut graph.tensors[t].data {
            values.iter_mut().for_each(|v| *v *= 1e4);
        }
    }
    std::fs::write(bench.path("masked.fpi"), to_image(&graph).unwrap().bytes()).unwrap();
    let line = "quantize masked.fpi --calibrate digits --out masked8.fpi";
    assert!(bench.run(line).status.success());
}

#[test]
fn a_masked_gradient_is_flagged_and_an_honest_one_is_not() {
    let bench = Bench::new();
    digits(&bench);
    let honest = document(
        &bench,
        "evaluate int8.fpi --data digits --limit 200 --eps 0.1,0.2 --float trained/model.fpi",
    );
    assert_eq!(failed(&honest), [""; 0], "{:?}", honest.checks);
    assert_eq!(honest.checks.len(), 10);
    assert!(honest.checks.iter().all(|check| check.passed.is_some()));
    assert!(honest.warnings.is_empty(), "{:?}", honest.warnings);
    for gradient in &honest.gradients {
        let float = gradient.float.as_ref().expect("the float model was given");
        assert!(float.cosine.unwrap().mean > 0.8, "{gradient:?}");
        assert!(float.sign_agreement.unwrap().mean > 0.8, "{gradient:?}");
        assert!(float.ascent.unwrap().mean > 0.8, "{gradient:?}");
    }
    assert_eq!(honest.transfer.len(), 2);
    assert!(honest.float_model.is_some() && honest.accuracy_float.is_some());

    // The same labels, and nothing for a gradient attack to climb: it looks robust, and is not.
    for model in ["masked.fpi", "masked8.fpi"] {
        let line =
            format!("evaluate {model} --data digits --limit 200 --eps 0.2 --control-queries 400");
        let masked = document(&bench, &line);
        let failed = failed(&masked);
        for name in [
            "the white box is no weaker than a gradient-free attack",
            "there is a gradient to climb",
            "an unbounded attack fools everything",
        ] {
            assert!(failed.contains(&name), "{model}: {:?}", masked.checks);
            assert!(masked.warnings.iter().any(|w| w.contains(name)));
        }
        assert!(masked.gradients[0].vanished.share > 0.5, "{model}");
        // the margin has a gradient all the same
        assert_eq!(masked.gradients[1].vanished.share, 0.0, "{model}");
    }
    let output = bench.run("evaluate masked8.fpi --data digits --limit 100 --eps 0.2 --report r");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("FAIL there is a gradient to climb"), "{text}");
    let page = std::fs::read_to_string(bench.path("r/report.html")).unwrap();
    assert!(page.contains("Can these figures be believed?"));
    assert!(page.contains("Warning: robust accuracy may be overstated"));

    // What was not run is said not to be known.
    let bare = document(
        &bench,
        "evaluate int8.fpi --data digits --limit 20 --eps 0.1 --control-queries 0",
    );
    assert_eq!(bare.checks[0].passed, None);
    assert!(
        bare.warnings
            .iter()
            .any(|w| w.contains("only gradient attacks"))
    );
}

#[test]
fn no_other_model_is_taken_for_the_float_model() {
    let bench = Bench::new();
    bench.train();
    let line = "quantize trained/model.fpi --calibrate digits --out int8.fpi";
    assert!(bench.run(line).status.success());
    let mut b = Builder::new(&[5, 5, 1], (0.0, 1.0), 1).unwrap();
    let logits = b.dense(b.input(), 10, Activation::None).unwrap();
    let other = to_image(&b.finish(logits)).unwrap();
    std::fs::write(bench.path("other.fpi"), other.bytes()).unwrap();
    for (model, float, says) in [
        ("int8.fpi", "int8.fpi", "names an int8 model"),
        (
            "trained/model.fpi",
            "trained/model.fpi",
            "this is a float model",
        ),
        ("int8.fpi", "other.fpi", "takes 25 values"),
        ("int8.fpi", "nothing.tflite", "no such file"),
    ] {
        let line = format!("evaluate {model} --data digits --eps 0.1 --float {float}");
        let output = bench.run(&line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
    }
}

/// A model of MLPerf Tiny and its float form, its data, and sizes of balls of a few steps of its input's grid.
struct Net {
    name: &'static str,
    model: &'static str,
    float: &'static str,
    data: &'static str,
    eps: &'static str,
    /// Samples for the documentation.
    n: usize,
}

const NETS: [Net; 3] = [
    Net {
        name: "image classification, ResNet-8",
        model: "pretrainedResnet_quant.tflite",
        float: "pretrainedResnet.tflite",
        data: "cifar10_test_1000.npz",
        eps: "1,2,4",
        n: 100,
    },
    Net {
        name: "keyword spotting, DS-CNN",
        model: "kws_ref_model.tflite",
        float: "kws_ref_model_float32.tflite",
        data: "kws_mfcc_1000.npz",
        eps: "0.6,1.2,2.4",
        n: 60,
    },
    Net {
        name: "visual wake words, MobileNetV1",
        model: "vww_96_int8.tflite",
        float: "vww_96_float.tflite",
        data: "vww_200.npz",
        eps: "1/255,2/255,4/255",
        n: 40,
    },
];

impl Net {
    fn evaluate(&self, shared: &Path, eps: &str, n: usize) -> Document {
        let path = |folder: &str, name: &str| shared.join(folder).join(name).display().to_string();
        let line = format!(
            "evaluate {} --data {} --float {} --eps {eps} --limit {n}",
            path("models", self.model),
            path("datasets", self.data),
            path("models", self.float),
        );
        document(&Bench::new(), &line)
    }
}

#[test]
fn gradients_of_deployed_int8_models_point_where_the_float_models_do() {
    let Some(shared) = shared("") else { return };
    for net in &NETS {
        let eps = net.eps.split(',').nth(1).unwrap();
        let document = net.evaluate(&shared, eps, 12);
        for gradient in &document.gradients {
            let float = gradient.float.as_ref().unwrap();
            let (cosine, signs) = (float.cosine.unwrap(), float.sign_agreement.unwrap());
            eprintln!(
                "{}, {}: cosine {:.3}, signs {:.3}",
                net.name, gradient.objective, cosine.mean, signs.mean
            );
            assert!(cosine.mean > 0.6 && signs.mean > 0.7, "{gradient:?}");
            assert_eq!((cosine.n, gradient.vanished.share), (12, 0.0));
        }
        assert_eq!(
            failed(&document),
            [""; 0],
            "{}: {:?}",
            net.name,
            document.checks
        );
        let accuracy = |name: &str| {
            let attack = document.attacks.iter().find(|a| a.name == name);
            attack.expect(name).robust_accuracy
        };
        assert!(
            accuracy("pgd") + 0.2 < accuracy("signhunter"),
            "{}",
            net.name
        );
    }
}

/// A network that was trained against FGSM until it only withstood FGSM, beside ones without that flaw.
#[test]
fn the_overfitted_network_is_flagged_and_its_neighbours_are_not() {
    let Some(shared) = shared("") else { return };
    for (model, flagged) in [
        ("wong_fgsm_overfit", true),
        ("wong_pgd_at", false),
        ("wong_standard", false),
    ] {
        let document = mnist(&shared, model, "0.3", 150);
        let name = "a larger ball is no safer than a smaller one";
        // one start of PGD is too few for either of the networks that adversarial training left half robust; that masks nothing
        let failed: Vec<&str> = failed(&document)
            .into_iter()
            .filter(|check| *check != "more random starts change little")
            .collect();
        let expected: &[&str] = if flagged { &[name] } else { &[] };
        assert_eq!(failed, expected, "{model}: {:?}", document.checks);
    }
}

fn mnist(shared: &Path, model: &str, eps: &str, n: usize) -> Document {
    let file = |name: &str| {
        shared
            .join("datasets/mnist")
            .join(name)
            .display()
            .to_string()
    };
    let line = format!(
        "evaluate {} --data {},{} --input-range 0,1 --eps {eps} --limit {n}",
        shared.join(format!("reference/{model}.onnx")).display(),
        file("t10k-images-idx3-ubyte.gz"),
        file("t10k-labels-idx1-ubyte.gz"),
    );
    document(&Bench::new(), &line)
}

/// MLPerf Tiny's anomaly detector on the inputs that come with its golden outputs, all of them normal: the attacker wants
/// false alarms. The threshold is a hair above the largest reconstruction error of these inputs.
fn anomaly(shared: &Path, steps: &[f32]) -> Document {
    let bench = Bench::new();
    let model = shared.join("models/ad01_int8.tflite");
    let mut graph = tflite::import(&std::fs::read(&model).unwrap()).unwrap();
    graph.anomaly_above = Some(1.0);
    let image = to_image(&graph).unwrap();
    let classifier = Classifier::new(image.model().unwrap(), Kernels::detect());
    let golden = std::fs::read(shared.join("goldens/mlperf_ad_int8.npz")).unwrap();
    let inputs = npz::read_array(&golden, "inputs").unwrap().unwrap();
    let Values::I8(x) = inputs.values else {
        panic!("int8 inputs")
    };
    let n = classifier.input_len();
    let mut buffer = classifier.buffer(Mode::Infer);
    let mut session = classifier.session(Mode::Infer, &mut buffer).unwrap();
    let errors = x.chunks(n).map(|x| {
        session.forward_i8(x).unwrap();
        session.reconstruction_error(0)
    });
    let threshold = 1.001 * errors.fold(0.0, f32::max);
    let count = x.len() / n;
    let entry = |name, shape, values| npz::Entry {
        name,
        shape,
        values,
    };
    let normal = vec![0i64; count];
    npz::write(
        &bench.path("normal.npz"),
        &[
            entry("x", &[count, n][..], View::I8(&x)),
            entry("y", &[count][..], View::I64(&normal)),
        ],
    )
    .unwrap();
    let eps: Vec<String> = steps
        .iter()
        .map(|steps| (steps * classifier.input_scale()).to_string())
        .collect();
    let line = format!(
        "evaluate {} --data normal.npz --anomaly-above {threshold} --float {} --eps {}",
        model.display(),
        shared.join("models/ad01_fp32.tflite").display(),
        eps.join(",")
    );
    document(&bench, &line)
}

#[test]
fn the_anomaly_detectors_gradient_is_worth_climbing_too() {
    let Some(shared) = shared("") else { return };
    let document = anomaly(&shared, &[8.0]);
    assert_eq!(document.accuracy.unwrap().clean, 1.0, "no alarm yet");
    for gradient in &document.gradients {
        let float = gradient.float.as_ref().unwrap();
        assert!(float.cosine.unwrap().mean > 0.8, "{gradient:?}");
        assert!(float.sign_agreement.unwrap().mean > 0.7, "{gradient:?}");
        assert_eq!(gradient.vanished.share, 0.0);
    }
    let left = |name: &str| {
        let attack = document.attacks.iter().find(|a| a.name == name);
        attack.expect(name).robust_accuracy
    };
    assert!(
        left("pgd") + 0.2 < left("signhunter"),
        "{:?}",
        document.checks
    );
}

/// Writes `docs/gradients.md`. Minutes of work.
#[test]
#[ignore = "writes docs/gradients.md; run it where the figures may have changed"]
fn docs() {
    let Some(shared) = shared("") else { return };
    let (measured, anomaly, suspects) = std::thread::scope(|scope| {
        let shared = &shared;
        let nets: Vec<_> = NETS
            .iter()
            .map(|net| scope.spawn(move || (net.name, net.evaluate(shared, net.eps, net.n))))
            .collect();
        let anomaly = scope.spawn(|| anomaly(shared, &[1.0, 2.0, 4.0, 8.0, 16.0]));
        let suspects = scope.spawn(|| suspects(shared));
        let nets: Vec<(&str, Document)> = nets.into_iter().map(|n| n.join().unwrap()).collect();
        (nets, anomaly.join().unwrap(), suspects.join().unwrap())
    });
    let mut rows: Vec<(&str, &Document)> = measured.iter().map(|(name, d)| (*name, d)).collect();
    rows.push(("anomaly detection, autoencoder", &anomaly));
    let mut text = String::from(INTRODUCTION);
    text += &agreement(&rows);
    text += ATTACKS;
    text += &strengths(&rows);
    text += MASKED;
    rows.extend(suspects.iter().map(|(name, document)| (*name, document)));
    text += &checks(&rows);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/gradients.md");
    std::fs::write(path, text).unwrap();
}

const INTRODUCTION: &str = "# What the gradient of an int8 graph is worth

An int8 graph is a staircase: its true gradient is zero nearly everywhere. White-box attacks here climb the straight-through estimate
(rounding counts as the identity, saturated activations pass nothing). Below is what that is worth on the int8 models of MLPerf Tiny,
beside the float models that they were made of. The page is made anew by

```
cargo test -p foolproof-host --test gradient_quality -- --ignored
```

from third-party models and data that are not part of this repository. The figures of one model are those of
`foolproof evaluate MODEL --data D --eps E --float FLOAT_MODEL`. Brackets hold 95 % intervals: Wilson's for shares, 1.96 standard
errors for means over samples.

## Agreement with the float model's gradient

At the unchanged samples. *Signs agree*: of the elements that are zero in neither gradient. *Ascent*: what a small step along the signs of
the int8 gradient gains on the float model, as a share of what the float gradient's own signs gain (0 is chance, 1 is perfect; an FGSM step is such a
step). *Zero*: share of elements that are exactly zero. *Vanished*: samples whose whole gradient is zero.

";

const ATTACKS: &str = "
## White box, gradient-free, transfer

Accuracy of the int8 model under attack, linf, epsilon in real units of its input (1, 2 and 4 steps of its grid; the autoencoder 1 to 16). The gradient-free
control is SignHunter with at most 100 queries a sample, more than twice the passes of PGD with 20 steps. Transfer: PGD on the float model in the same ball,
rounded to the grid, tried on the int8 model. *Carries over*: of the samples that both models had right and that fooled the float model, the share that
fools the int8 model too. PGD stops where it has fooled the model that it attacks, so near the boundary much is lost in rounding and in other arithmetic.

The autoencoder, `ad01_int8.tflite`, raises an alarm where its mean squared reconstruction error is above a threshold (`--anomaly-above`). No labelled data
come with it: its 32 golden inputs count as normal, the threshold is a hair above their largest error, and the attacker wants false
alarms.

";

const MASKED: &str = "
## Is a masked gradient flagged?

Every evaluation runs named checks (`checks` in the JSON document; see `host-tools/src/checks.rs` for their rules and sources). A check that fails
is a warning in the terminal, the document and the report.

";

fn mean(e: Option<Estimate>, as_percent: bool) -> String {
    e.map_or("–".into(), |e| {
        let ([low, high], mean) = (e.interval, e.mean);
        match as_percent {
            true => format!(
                "{:.1} % ({:.1}–{:.1})",
                100.0 * mean,
                100.0 * low,
                100.0 * high
            ),
            false => format!("{mean:.3} ({low:.3}–{high:.3})"),
        }
    })
}

fn with_interval(share: f64, [low, high]: [f64; 2]) -> String {
    format!(
        "{:.1} % ({:.1}–{:.1})",
        100.0 * share,
        100.0 * low,
        100.0 * high
    )
}

fn share(share: Share) -> String {
    with_interval(share.share, share.interval)
}

fn agreement(measured: &[(&str, &Document)]) -> String {
    let mut text = String::from(
        "| model | gradient of | n | cosine | signs agree | ascent | zero: int8 | zero: float | vanished |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    let rows = measured
        .iter()
        .flat_map(|(name, document)| document.gradients.iter().map(move |g| (name, g)));
    for (name, g) in rows {
        let float = g.float.as_ref().unwrap();
        let zero = |e: Estimate| format!("{:.1} %", 100.0 * e.mean);
        writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} |",
            g.objective,
            g.n,
            mean(float.cosine, false),
            mean(float.sign_agreement, true),
            mean(float.ascent, true),
            zero(g.zero),
            zero(float.zero),
            share(g.vanished),
        )
        .unwrap();
    }
    text
}

fn strengths(measured: &[(&str, &Document)]) -> String {
    let mut text = String::from(
        "| model | n | clean | eps | FGSM | PGD | gradient-free | its queries, mean | transfer | carries over |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (name, document) in measured {
        let clean = document.accuracy.unwrap();
        for transfer in &document.transfer {
            let attack = |name: &str| -> &Attack {
                let found = document
                    .attacks
                    .iter()
                    .find(|a| a.name == name && a.eps == Some(transfer.eps) && a.numerics != "f32");
                found.unwrap_or_else(|| panic!("{name}"))
            };
            let left =
                |name: &str| with_interval(attack(name).robust_accuracy, attack(name).interval);
            writeln!(
                text,
                "| {} | {} | {} | {:.4} | {} | {} | {} | {:.1} | {} | {} |",
                name,
                clean.n,
                with_interval(clean.clean, clean.interval),
                transfer.eps,
                left("fgsm"),
                left("pgd"),
                left("signhunter"),
                attack("signhunter").queries_mean,
                left("transfer-pgd"),
                transfer
                    .carried_over
                    .map_or("–".into(), |s| format!("{} of {}", share(s), s.n)),
            )
            .unwrap();
        }
    }
    text
}

/// Models whose gradients may be masked: one by construction, one by its training, and two neighbours of the latter.
fn suspects(shared: &Path) -> Vec<(&'static str, Document)> {
    let bench = Bench::new();
    digits(&bench);
    let scaled = document(
        &bench,
        "evaluate masked8.fpi --data digits --eps 0.2 --control-queries 400",
    );
    let mut rows = vec![(
        "digits, int8, logits times 10,000 before quantization",
        scaled,
    )];
    for (name, model) in [
        ("MNIST, wong_standard (float), eps 0.3", "wong_standard"),
        ("MNIST, wong_pgd_at (float), eps 0.3", "wong_pgd_at"),
        (
            "MNIST, wong_fgsm_overfit (float), eps 0.3",
            "wong_fgsm_overfit",
        ),
    ] {
        rows.push((name, mnist(shared, model, "0.3", 500)));
    }
    rows
}

fn checks(rows: &[(&str, &Document)]) -> String {
    let mut text =
        String::from("| model | n | checks passed | checks that failed |\n|---|---|---|---|\n");
    for (name, document) in rows {
        let measured = document
            .checks
            .iter()
            .filter(|c| c.passed.is_some())
            .count();
        let passed = document
            .checks
            .iter()
            .filter(|c| c.passed == Some(true))
            .count();
        let failed: Vec<String> = document
            .checks
            .iter()
            .filter(|check| check.passed == Some(false))
            .map(|check: &Check| format!("{}: {}", check.name, check.explanation))
            .collect();
        let failed = match failed.is_empty() {
            true => "none".to_string(),
            false => failed.join("; "),
        };
        let n = document.accuracy.map_or(0, |a| a.n);
        writeln!(text, "| {name} | {n} | {passed} of {measured} | {failed} |").unwrap();
    }
    text
}
