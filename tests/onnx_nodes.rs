//! The ONNX project's own tests of single operators (its "backend node tests"), all of them: what we import must give their results.
//!
//! A case is a model of one operator (or of the operators that define one) with inputs and outputs. One input stays an input; the
//! others become constants, as weights are in a deployed model. The table of what passes and what is not supported, and why, is
//! `docs/onnx-operators.md`: the test fails where that is not what it finds, and `UPDATE_DOCS=1` writes it anew.
//!
//! The cases lie outside of the repository, in `../shared/data`; without them this test says so and passes.

#[path = "support/wire.rs"]
mod wire;

use foolproof::kernels::Kernels;
use foolproof::memory::Mode;
use foolproof::session::{Options, Session};
use foolproof::tensor::Data;
use foolproof_host::graph::to_image;
use foolproof_host::import::{ImportError, onnx};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;
use wire::{FLOAT, INT8, UINT8, field, fields, tensor, text};
use zerocopy::IntoBytes;

/// The files of one case by their names: `model.onnx`, `test_data_set_0/input_0.pb`, ...
type Case = BTreeMap<String, Vec<u8>>;

/// All cases by name; `None` without the archive.
fn cases() -> Option<BTreeMap<String, Case>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/onnx-node-tests.tar.xz");
    let Ok(file) = std::fs::File::open(&path) else {
        eprintln!(
            "SKIPPED: {} is not there, so no operator was compared with the ONNX project's tests",
            path.display()
        );
        return None;
    };
    let mut bytes = Vec::new();
    lzma_rs::xz_decompress(&mut std::io::BufReader::new(file), &mut bytes).expect("an xz file");
    let mut all: BTreeMap<String, Case> = BTreeMap::new();
    for entry in tar::Archive::new(&bytes[..]).entries().expect("an archive") {
        let mut entry = entry.expect("a file");
        let path = entry.path().expect("a name").to_string_lossy().into_owned();
        let parts: Vec<&str> = path.split('/').filter(|p| *p != ".").collect();
        if let ["node", case, file @ ..] = &parts[..]
            && entry.header().entry_type().is_file()
        {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("its content");
            all.entry(case.to_string())
                .or_default()
                .insert(file.join("/"), content);
        }
    }
    Some(all)
}

/// How a case ended.
#[derive(Debug)]
enum Verdict {
    Passed,
    /// Why it cannot be imported, or asked.
    Not(String),
    /// It was imported, and its result is not the right one.
    Wrong(String),
}

/// What a case's model consists of.
struct Parts<'a> {
    graph: &'a [u8],
    operators: BTreeSet<String>,
    inputs: Vec<String>,
    outputs: Vec<&'a [u8]>,
}

fn parts(model: &[u8]) -> Parts<'_> {
    let graph = fields(model)
        .into_iter()
        .find(|f| f.number == 7)
        .expect("a graph")
        .payload;
    let (mut operators, mut inputs, mut outputs) = (BTreeSet::new(), Vec::new(), Vec::new());
    for f in fields(graph) {
        match f.number {
            1 => {
                let (domain, operator) = (text(f.payload, 7), text(f.payload, 4));
                operators.insert(match domain.as_str() {
                    "" => operator,
                    _ => format!("{domain}.{operator}"),
                });
            }
            11 => inputs.push(text(f.payload, 1)),
            12 => outputs.push(f.payload),
            _ => {}
        }
    }
    Parts {
        graph,
        operators,
        inputs,
        outputs,
    }
}

/// The model with one of its outputs only, and constants for all inputs but one.
fn rebuilt(
    model: &[u8],
    parts: &Parts<'_>,
    output: usize,
    constants: &[(String, &[u8])],
) -> Vec<u8> {
    let mut graph = Vec::new();
    for f in fields(parts.graph) {
        if f.number != 12 {
            graph.extend(f.whole);
        }
    }
    graph.extend(field(12, parts.outputs[output]));
    for (name, data) in constants {
        // the last name is the one that counts
        let named = [data, &field(8, name.as_bytes())[..]].concat();
        graph.extend(field(5, &named));
    }
    let mut all = Vec::new();
    for f in fields(model) {
        if f.number != 7 {
            all.extend(f.whole);
        }
    }
    all.extend(field(7, &graph));
    all
}

/// The model's answer to one input, `None` where the graph has more of them than the file's one.
fn answer(imported: &onnx::Imported, x: &[f64], kind: u64) -> Result<Vec<f64>, String> {
    let image = to_image(&imported.graph).map_err(|error| error.to_string())?;
    let model = image.model().map_err(|error| error.to_string())?;
    let mut buffer = vec![0u128; model.required_buffer(Mode::Infer).div_ceil(16)];
    let options = Options {
        kernels: Kernels::Scalar,
        ..Options::new(Mode::Infer)
    };
    let mut session = Session::with_options(&model, options, buffer.as_mut_bytes())
        .map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    let n = model.input_shape().len();
    for sample in x.chunks_exact(n) {
        let bytes: Vec<u8> = match kind {
            FLOAT => sample
                .iter()
                .flat_map(|&v| (v as f32).to_le_bytes())
                .collect(),
            UINT8 => sample.iter().map(|&v| v as u8 ^ 0x80).collect(),
            _ => sample.iter().map(|&v| v as i8 as u8).collect(),
        };
        match session.forward_bytes(&bytes).map_err(|e| e.to_string())? {
            Data::F32(y) => all.extend(y.iter().map(|&v| f64::from(v))),
            Data::I8(y) => all.extend(y.iter().map(|&v| f64::from(v))),
            _ => return Err("no output".into()),
        }
    }
    Ok(all)
}

/// The input in the graph's order: whole batches have the channels last too.
fn in_order(imported: &onnx::Imported, x: &[f64]) -> Vec<f64> {
    let batch = imported.file_shape.first().copied().unwrap_or(1).max(1) as usize;
    let order = imported.order();
    assert_eq!(x.len() % batch, 0);
    order.to_graph(x)
}

/// Whether a result is the expected one, within the tolerance of the ONNX project's own runner.
fn difference(got: &[f64], expected: &[f64]) -> Option<String> {
    if got.len() != expected.len() {
        return Some(format!("{} elements, not {}", got.len(), expected.len()));
    }
    let far = |(g, e): &(&f64, &f64)| {
        let both_nan = g.is_nan() && e.is_nan();
        !(both_nan || g == e || (*g - *e).abs() <= 1e-7 + 1e-3 * e.abs())
    };
    let wrong = got.iter().zip(expected).find(far)?;
    Some(format!("{} instead of {}", wrong.0, wrong.1))
}

fn one_reason(error: &ImportError) -> String {
    match error {
        ImportError::Unsupported(missing) => {
            let reasons: BTreeSet<String> = missing
                .iter()
                .map(|m| format!("{} {}", m.operator, m.reason))
                .collect();
            reasons.into_iter().collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}

/// One case: every output, with the first of the inputs that can be the one of run time.
fn judge(case: &Case) -> Verdict {
    let model = &case["model.onnx"];
    let parts = parts(model);
    let set = |kind: &str, i: usize| case.get(&format!("test_data_set_0/{kind}_{i}.pb"));
    let mut inputs = Vec::new();
    for i in 0..parts.inputs.len() {
        let Some(bytes) = set("input", i) else {
            return Verdict::Not("an input is left out".into());
        };
        inputs.push(&bytes[..]);
    }
    let usable = |i: &usize| {
        let t = tensor(inputs[*i]);
        t.values.is_some() && !parts.inputs[*i].is_empty()
    };
    let candidates: Vec<usize> = (0..inputs.len()).filter(usable).collect();
    if candidates.is_empty() {
        return Verdict::Not(match inputs.is_empty() {
            true => "it has no input".into(),
            false => "no input of it is float, int8 or uint8".into(),
        });
    }
    let mut why = String::new();
    for run_time in candidates {
        match judge_with(model, &parts, &inputs, run_time, &set) {
            Verdict::Not(reason) => {
                if why.is_empty() {
                    why = reason;
                }
            }
            verdict => return verdict,
        }
    }
    Verdict::Not(why)
}

fn judge_with<'a>(
    model: &[u8],
    parts: &Parts<'_>,
    inputs: &[&'a [u8]],
    run_time: usize,
    set: &dyn Fn(&str, usize) -> Option<&'a Vec<u8>>,
) -> Verdict {
    let x = tensor(inputs[run_time]);
    let values = x.values.unwrap_or_default();
    let constants: Vec<(String, &[u8])> = (0..inputs.len())
        .filter(|&i| i != run_time)
        .map(|i| (parts.inputs[i].clone(), inputs[i]))
        .collect();
    for output in 0..parts.outputs.len() {
        let Some(bytes) = set("output", output) else {
            return Verdict::Not("an output is left out".into());
        };
        let expected = tensor(bytes);
        let Some(wanted) = expected.values else {
            return Verdict::Not("an output of it is not float, int8 or uint8".into());
        };
        let bytes = rebuilt(model, parts, output, &constants);
        let imported = match onnx::read_whole(&bytes) {
            Ok(imported) => imported,
            Err(error) => return Verdict::Not(one_reason(&error)),
        };
        let wanted: Vec<f64> = match expected.kind {
            UINT8 => wanted.iter().map(|v| v - 128.0).collect(),
            _ => wanted,
        };
        let mut forms = vec![("", imported)];
        if let Ok(single) = onnx::read(&bytes) {
            forms.push((" one by one", single));
        }
        for (how, imported) in &forms {
            if values.is_empty() {
                return Verdict::Not("its input has no elements".into());
            }
            match answer(imported, &in_order(imported, &values), x.kind) {
                Err(error) => return Verdict::Not(error),
                Ok(got) => {
                    if let Some(wrong) = difference(&got, &wanted) {
                        return Verdict::Wrong(format!("output {output}{how}: {wrong}"));
                    }
                }
            }
        }
    }
    assert!([FLOAT, UINT8, INT8].contains(&x.kind));
    Verdict::Passed
}

/// What was found about one operator.
#[derive(Default)]
struct Row {
    passed: usize,
    not: BTreeMap<String, usize>,
}

fn table(rows: &BTreeMap<String, Row>) -> String {
    let mut page = String::from(
        "# ONNX operators\n\n\
        What the ONNX project's own tests of single operators (`onnx` 1.22.0, 1765 cases) make of foolproof's importer. Generated by\n\
        `UPDATE_DOCS=1 cargo test --test onnx_nodes`; the test fails where this page is not what it finds, and where a case that is imported\n\
        gives a wrong result. How each operator is imported: [onnx.md](onnx.md).\n\n\
        One input of each case is the model's input; the others are constants, as weights are in a deployed model.\n\
        \"Functions\" are cases of models that spell an operator out in simpler ones.\n\n",
    );
    let total = |f: &dyn Fn(&Row) -> usize| rows.values().map(f).sum::<usize>();
    let (passed, not) = (
        total(&|r| r.passed),
        total(&|r| r.not.values().sum::<usize>()),
    );
    let _ = writeln!(
        page,
        "{} cases: {passed} pass, {not} are not supported, 0 are wrong.\n",
        passed + not
    );
    page.push_str("| operator | cases | pass | not supported, and why |\n|---|---|---|---|\n");
    let mut absent = Vec::new();
    for (name, row) in rows {
        let count: usize = row.not.values().sum();
        let reasons: Vec<String> = row
            .not
            .iter()
            .map(|(why, n)| format!("{n}: {}", why.replace('|', "\\|")))
            .collect();
        if row.passed == 0
            && row
                .not
                .keys()
                .all(|why| why.contains("it is not supported"))
        {
            absent.push(format!("{name} ({count})"));
            continue;
        }
        let _ = writeln!(
            page,
            "| {name} | {} | {} | {} |",
            row.passed + count,
            row.passed,
            reasons.join("<br>")
        );
    }
    let _ = writeln!(
        page,
        "\nNot there at all, or on constants only (cases): {}.",
        absent.join(", ")
    );
    page
}

#[test]
fn every_case_of_an_operator_that_is_imported_passes() {
    let Some(cases) = cases() else { return };
    assert!(cases.len() > 1000, "{} cases", cases.len());
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (name, case) in &cases {
        let operators = parts(&case["model.onnx"]).operators;
        let row = match (name.contains("_expanded"), operators.len()) {
            (false, 1) => operators.into_iter().next().unwrap_or_default(),
            _ => "(functions)".into(),
        };
        let row = rows.entry(row.clone()).or_default();
        match judge(case) {
            Verdict::Passed => row.passed += 1,
            Verdict::Not(why) => {
                if std::env::var_os("ONNX_NODES_TRACE").is_some() {
                    eprintln!("{name}: {why}");
                }
                *row.not.entry(short(&why)).or_default() += 1;
            }
            Verdict::Wrong(why) => wrong.push(format!("{name}: {why}")),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} cases are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let page = table(&rows);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/onnx-operators.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).expect("a writable page");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/onnx-operators.md is stale: run UPDATE_DOCS=1 cargo test --test onnx_nodes"
    );
}

/// A reason without the numbers of one case, so that equal ones meet.
fn short(why: &str) -> String {
    let mut parts: Vec<&str> = why.split("; ").collect();
    let absent = parts.iter().any(|p| p.ends_with("it is not supported"));
    if absent {
        parts.retain(|p| p.ends_with("it is not supported"));
    }
    let names: BTreeSet<String> = parts.iter().map(|p| p.to_string()).collect();
    names.into_iter().collect::<Vec<_>>().join("; ")
}
