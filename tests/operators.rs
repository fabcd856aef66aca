//! `docs/operators.md` is made from the importer's own list: which operators of `.tflite` files, in which forms, and what shows
//! that they are right.
//!
//! The third-party models lie outside of the repository, in `../shared/data`; without that folder this test says so and
//! passes. `FOOLPROOF_BLESS=1 cargo test --test operators` writes the page anew.

use foolproof_host::import::tflite::{self, Backward, OPERATORS};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// In how many of 98 public int8 classifiers and autoencoders an operator occurs; the others of the list occur in none.
const OF_98: [(&str, u32); 23] = [
    ("CONV_2D", 82),
    ("SOFTMAX", 82),
    ("FULLY_CONNECTED", 77),
    ("QUANTIZE", 57),
    ("RESHAPE", 51),
    ("DEPTHWISE_CONV_2D", 48),
    ("DEQUANTIZE", 46),
    ("MEAN", 44),
    ("ADD", 29),
    ("PAD", 23),
    ("AVERAGE_POOL_2D", 20),
    ("MAX_POOL_2D", 19),
    ("STRIDED_SLICE", 9),
    ("CONCATENATION", 9),
    ("PACK", 8),
    ("SHAPE", 8),
    ("MUL", 5),
    ("LOGISTIC", 4),
    ("TRANSPOSE", 4),
    ("UNIDIRECTIONAL_SEQUENCE_LSTM", 4),
    ("REDUCE_MAX", 4),
    ("LOG_SOFTMAX", 2),
    ("SVDF", 2),
];

const HEAD: &str = "# Operators of `.tflite` files

Generated from the importer's list by `FOOLPROOF_BLESS=1 cargo test --test operators`; the test fails when it is stale.

All 23 operators of 98 public int8 classifiers and autoencoders are imported (the third column counts the models in which each
occurs), and those of streaming models. What a file has beyond these forms is reported all at once, with operator, tensor and
count, by `foolproof inspect` and by every command that loads it. `uint8` tensors are `int8` tensors moved by 128 wherever
that gives the same bits; `float16` weights are read as `float32`.

*Backward*: how an attack's gradient goes through. *Small models*: files in `tests/golden/tflite` whose int8 outputs equal
TFLite Micro's in every byte, on all kernels (`tests/tflite.rs`). *Third-party models*: files of the shared folder that have
the operator and are imported, int8 and float ones. Each engine operator besides has a reference in wide integers and one in
double precision, finite differences for its gradients (`tests/int8_reference.rs`, `tests/gradients.rs`), and hostile
parameters (`tests/hostile_operators.rs`).

";

fn models(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut all: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "tflite"))
        .collect();
    all.sort();
    all
}

/// How many of these files have each operator.
fn counts(folders: &[PathBuf]) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for path in folders.iter().flat_map(|f| models(f)) {
        let bytes = std::fs::read(&path).expect("a file");
        for name in tflite::operators_of(&bytes).expect("a model") {
            *counts.entry(name).or_default() += 1;
        }
    }
    counts
}

#[test]
fn the_page_of_operators_is_what_the_importer_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ours = counts(&[root.join("tests/golden/tflite")]);
    for (name, _) in OF_98 {
        assert!(
            OPERATORS.iter().any(|o| o.name() == name),
            "{name} is imported"
        );
    }
    let shared = root.join("../shared/data");
    if !shared.is_dir() {
        eprintln!(
            "SKIPPED: {} is not there, so the page was not compared",
            shared.display()
        );
        return;
    }
    let theirs = counts(&[shared.join("models"), shared.join("reference")]);
    let mut page = String::from(HEAD);
    page.push_str("| operator | becomes | of 98 | int8 | float32 | backward | small models | third-party models |\n|---|---|---|---|---|---|---|---|\n");
    let mut rows: Vec<(u32, String)> = Vec::new();
    for operator in OPERATORS {
        let name = operator.name();
        let known = OF_98.iter().find(|(n, _)| *n == name).map_or(0, |o| o.1);
        let count = |of: &BTreeMap<String, u32>| of.get(&name).copied().unwrap_or(0);
        let yes = |v: bool| if v { "yes" } else { "–" };
        let backward = match operator.backward {
            Backward::Yes => "yes",
            Backward::StraightThrough => "straight through",
            Backward::NotIntoEarlierRuns => "within a run",
            Backward::Constant => "–",
        };
        let (small, third) = (count(&ours), count(&theirs));
        assert!(small + third > 0, "nothing tests {name}");
        let row = format!(
            "| {name} | {} | {known} | {} | {} | {backward} | {small} | {third} |",
            operator.becomes,
            yes(operator.int8),
            yes(operator.float),
        );
        rows.push((known, row));
    }
    rows.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    for (_, row) in rows {
        writeln!(page, "{row}").expect("a string");
    }
    let path = root.join("docs/operators.md");
    if std::env::var_os("FOOLPROOF_BLESS").is_some() {
        std::fs::write(&path, &page).expect("docs/operators.md");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "docs/operators.md is stale: FOOLPROOF_BLESS=1 cargo test --test operators writes it"
    );
}
