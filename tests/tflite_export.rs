//! `.tflite` models that foolproof wrote: the same answers after the way there and back, and in TFLite Micro itself.

mod support;

use foolproof::kernels::Kernels;
use foolproof::ops::{Activation, Unary};
use foolproof_host::classifier::{Classifier, Inputs};
use foolproof_host::data::Samples;
use foolproof_host::data::digits::{self, Part};
use foolproof_host::export;
use foolproof_host::graph::{Builder, Graph, Window, to_image};
use foolproof_host::import::tflite;
use foolproof_host::networks;
use foolproof_host::quantize::{Options, quantize};
use std::path::Path;
use std::process::Command;
use support::{Random, oracle};

fn calibration() -> Vec<f32> {
    let data = digits::load(Part::Train)
        .and_then(|d| d.take(200))
        .expect("the digits");
    match data.samples() {
        Samples::F32(values) => values.clone(),
        _ => panic!("the digits are f32"),
    }
}

/// A network with every operator that is quantized, on an 8x8 image.
fn all_operators() -> Graph {
    let mut b = Builder::new(&[8, 8, 1], (0.0, 1.0), 5).expect("a shape");
    let build = |b: &mut Builder| {
        let x = b.conv2d(b.input(), 6, Window::same(3), Activation::None)?;
        let x = b.unary(x, Unary::LeakyRelu { alpha: 0.1 })?;
        let x = b.depthwise_conv2d(x, 2, Window::same(3).stride(2), Activation::Relu6)?;
        let left = b.conv2d(x, 8, Window::same(1), Activation::None)?;
        let left = b.unary(left, Unary::Tanh)?;
        let right = b.conv2d(x, 8, Window::same(1), Activation::None)?;
        let right = b.unary(right, Unary::Sigmoid)?;
        let product = b.mul(left, right, Activation::None)?;
        let sum = b.add(left, product, Activation::Relu)?;
        let x = b.concat(vec![sum, right], 3)?;
        let x = b.pad(x, &[(0, 0), (1, 0), (0, 1), (0, 0)])?;
        let x = b.avg_pool2d(x, Window::same(2))?;
        let x = b.max_pool2d(x, Window::same(2).stride(2))?;
        let count = b.shape(x).len() as u32;
        let x = b.reshape(x, &[1, count])?;
        let x = b.dense(x, 10, Activation::None)?;
        b.softmax(x)
    };
    let output = build(&mut b).expect("shapes that fit");
    b.finish(output)
}

/// Our own models: name, graph.
fn models() -> Vec<(&'static str, Graph)> {
    let calibration = calibration();
    let digits = networks::digits(3).expect("a network");
    let all = all_operators();
    let int8 = |graph: &Graph, options: Options| {
        quantize(graph, &calibration, &options).expect("an int8 form")
    };
    let per_tensor = Options {
        per_tensor_dense: true,
        ..Options::default()
    };
    vec![
        ("digits_int8", int8(&digits, Options::default())),
        ("digits_int8_per_tensor", int8(&digits, per_tensor)),
        ("all_int8", int8(&all, Options::default())),
        ("digits_f32", digits),
        ("all_f32", all),
    ]
}

/// Random inputs of the model's type.
fn inputs(graph: &Graph, count: usize) -> Inputs {
    let n = count * graph.tensors[graph.input].shape.len();
    let mut random = Random(11);
    match graph.is_quantized() {
        true => Inputs::I8(random.int8s(n)),
        false => Inputs::F32(random.floats(n, 0.0, 1.0)),
    }
}

fn outputs(graph: &Graph, inputs: &Inputs) -> Vec<u8> {
    let image = to_image(graph).expect("an image");
    let classifier = Classifier::new(image.model().expect("a checked image"), Kernels::Scalar);
    let answers = classifier.answers(inputs).expect("answers");
    answers.into_iter().flat_map(|a| a.output).collect()
}

#[test]
fn models_of_ours_survive_the_way_there_and_back() {
    for (name, graph) in models() {
        let bytes = export::tflite::export(&graph).expect(name);
        let back = tflite::import(&bytes).expect(name);
        let inputs = inputs(&graph, 100);
        let expected = outputs(&graph, &inputs);
        assert!(expected.iter().any(|&b| b != expected[0]), "{name} answers");
        assert!(
            outputs(&back, &inputs) == expected,
            "{name} answers otherwise after the round trip"
        );
    }
}

#[test]
fn a_batch_normalization_is_folded_on_the_way_out() {
    let mut b = Builder::new(&[4, 4, 2], (0.0, 1.0), 1).expect("a shape");
    let x = b
        .conv2d(b.input(), 3, Window::same(3), Activation::None)
        .expect("a layer");
    let x = b.batch_norm(x).expect("a layer");
    let graph = b.finish(x);
    let back = tflite::import(&export::tflite::export(&graph).expect("a file")).expect("a model");
    assert_eq!(back.nodes.len(), 1);
}

/// A factor that does not follow from the scales cannot be said in the format.
#[test]
fn what_the_format_cannot_hold_is_refused() {
    let (_, mut graph) = models().swap_remove(0);
    let node = graph
        .nodes
        .iter()
        .position(|n| n.inputs.len() == 5)
        .expect("a layer");
    let shift = graph.nodes[node].inputs[4];
    if let foolproof_host::graph::TensorData::I32(shifts) = &mut graph.tensors[shift].data {
        shifts[0] -= 1;
    }
    let error = export::tflite::export(&graph)
        .expect_err("another factor")
        .to_string();
    assert!(
        error.contains("conv2d") && error.contains("factors"),
        "{error}"
    );
}

#[test]
fn tflite_micro_gives_the_same_bytes_on_a_thousand_inputs() {
    let Some(python) = oracle::python() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/run_tflm.py");
    for (name, graph) in models()
        .into_iter()
        .filter(|(_, graph)| graph.is_quantized())
    {
        let path = |what: &str| folder.path().join(format!("{name}.{what}"));
        let inputs = inputs(&graph, 1000);
        let Inputs::I8(values) = &inputs else {
            panic!("{name} is int8")
        };
        let bytes: Vec<u8> = values.iter().map(|&v| v as u8).collect();
        std::fs::write(path("tflite"), export::tflite::export(&graph).expect(name))
            .expect("a file");
        std::fs::write(path("in"), bytes).expect("a file");
        let run = Command::new(&python)
            .arg(&script)
            .args([path("tflite"), path("in"), path("out")])
            .output();
        let run = run.unwrap_or_else(|error| panic!("{} does not run: {error}", python.display()));
        assert!(
            run.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&run.stderr)
        );
        let theirs = std::fs::read(path("out")).expect("outputs");
        let ours = outputs(&graph, &inputs);
        assert_eq!(theirs.len(), ours.len(), "{name}");
        let differ = theirs.iter().zip(&ours).filter(|(a, b)| a != b).count();
        eprintln!(
            "{name}: {differ} of {} bytes differ from TFLite Micro's",
            ours.len()
        );
        assert_eq!(differ, 0, "{name}");
    }
}
