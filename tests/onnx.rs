//! `.onnx` models that others made: logits, input gradients and robust accuracy as their own tools measure them.
//!
//! Models, data and what the tools say lie outside of the repository, in `../shared/data`; without that folder these tests say
//! so and pass.

mod support;

use foolproof::attack::{Norm, Spec};
use foolproof::kernels::Kernels;
use foolproof::loss::{Goal, Loss, Objective};
use foolproof::memory::Mode;
use foolproof::ops::Op;
use foolproof_host::attack::{Run, attack};
use foolproof_host::classifier::{Classifier, Inputs, accuracy};
use foolproof_host::data::npy::Values;
use foolproof_host::data::{Purpose, Samples, load, npz};
use foolproof_host::graph::{Image, to_image};
use foolproof_host::import::onnx;
use std::path::{Path, PathBuf};
use support::Random;

/// The shared folder; says so where it is not there.
fn shared(part: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/data")
        .join(part);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!(
        "SKIPPED: {} is not there, so nothing was compared",
        path.display()
    );
    None
}

fn imported(path: &Path) -> onnx::Imported {
    let bytes = std::fs::read(path).expect("a readable model");
    onnx::read(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn image(path: &Path) -> Image {
    to_image(&imported(path).graph).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An array of an archive as real numbers.
fn reals(path: &Path, name: &str) -> Vec<f64> {
    let file = std::fs::read(path).expect("a readable archive");
    let array = npz::read_array(&file, name)
        .expect("a readable array")
        .expect(name);
    match array.values {
        Values::F32(v) => v.into_iter().map(f64::from).collect(),
        _ => match array.values.into_integers() {
            Ok(v) => v.into_iter().map(|v| v as f64).collect(),
            Err(error) => panic!("{name}: {error}"),
        },
    }
}

fn f32s(path: &Path, name: &str) -> Vec<f32> {
    reals(path, name).into_iter().map(|v| v as f32).collect()
}

fn norm(v: impl Iterator<Item = f64>) -> f64 {
    v.map(|x| x * x).sum::<f64>().sqrt()
}

/// Largest difference of logits; largest relative difference of input gradients (in the Euclidean norm, by sample) beyond what
/// rounding explains; labels that agree.
///
/// The gradient of the cross-entropy starts at `p - 1` for the label's probability p, which an f32 near 1 holds to 2^-24. Where
/// a classifier is all but certain this rounding, and not the network, decides the gradient; the reference has it too.
/// It is worth a few 2^-24 times the gradient of the label's logit.
fn compare(model: &Path, io: &Path, kernels: Kernels) -> (f64, f64, usize) {
    let image = image(model);
    let classifier = Classifier::new(image.model().expect("a checked image"), kernels);
    let (x, y) = (f32s(io, "x"), reals(io, "y"));
    let (logits, gradients) = (reals(io, "logits"), reals(io, "grad_sumCE"));
    let n = classifier.input_len();
    let classes = logits.len() / y.len();
    assert_eq!((x.len(), gradients.len()), (y.len() * n, y.len() * n));
    assert_eq!(classes, classifier.model().classes());
    let mut buffer = classifier.buffer(Mode::Attack);
    let (mut worst_logit, mut worst_gradient, mut agree) = (0.0f64, 0.0f64, 0);
    for (i, &class) in y.iter().enumerate() {
        let mut session = classifier
            .session(Mode::Attack, &mut buffer)
            .expect("a buffer");
        let got = session
            .forward_f32(&x[i * n..(i + 1) * n])
            .expect("an input")
            .to_vec();
        let expected = &logits[i * classes..(i + 1) * classes];
        for (got, expected) in got.iter().zip(expected) {
            worst_logit = worst_logit.max((f64::from(*got) - expected).abs());
        }
        let argmax = (0..classes).max_by(|&a, &b| expected[a].total_cmp(&expected[b]));
        agree += usize::from(argmax == Some(foolproof::loss::argmax(&got)));
        let objective = Objective {
            loss: Loss::CrossEntropy,
            goal: Goal::Avoid(class as usize),
        };
        let (_, gradient) = session.differentiate(objective).expect("a gradient");
        let expected = &gradients[i * n..(i + 1) * n];
        let pairs = gradient.iter().zip(expected);
        let difference = norm(pairs.map(|(&g, e)| f64::from(g) - e));
        let size = norm(expected.iter().copied());
        assert!(size > 0.0, "sample {i} has a reference gradient");
        let mut one = vec![0.0; classes];
        one[class as usize] = 1.0;
        session
            .forward_f32(&x[i * n..(i + 1) * n])
            .expect("an input");
        let slope = session.backward(&one).expect("a gradient");
        let rounding = 4.0 * 2f64.powi(-24) * norm(slope.iter().map(|&g| f64::from(g)));
        worst_gradient = worst_gradient.max((difference - rounding) / size);
    }
    (worst_logit, worst_gradient, agree)
}

#[test]
fn logits_and_input_gradients_are_the_references() {
    let Some(reference) = shared("reference") else {
        return;
    };
    for name in ["cnn", "wong_standard"] {
        let model = reference.join(format!("{name}.onnx"));
        let io = reference.join(format!("{name}_io100.npz"));
        for kernels in [Kernels::Scalar, Kernels::detect_exact(), Kernels::detect()] {
            let (logit, gradient, agree) = compare(&model, &io, kernels);
            eprintln!(
                "{name} ({kernels:?}): logits within {logit:.2e}, gradients within {gradient:.2e}, {agree} labels agree"
            );
            assert!(logit < 1e-4, "{name}: a logit differs by {logit}");
            assert!(gradient < 1e-4, "{name}: a gradient differs by {gradient}");
            assert_eq!(agree, 100, "{name}");
        }
    }
}

/// The first `count` MNIST test images in [0, 1], and their labels.
fn mnist(count: usize) -> Option<(Vec<f32>, Vec<usize>)> {
    let path = shared("datasets/mnist")?.join("t10k-images-idx3-ubyte.gz");
    let data = load(&path.display().to_string(), Purpose::Judge).expect("MNIST");
    let data = data.take(count).expect("enough images");
    let Samples::U8(x) = data.samples() else {
        panic!("MNIST is bytes");
    };
    let x = x.iter().map(|&v| f32::from(v) / 255.0).collect();
    Some((x, data.labels().expect("labels").to_vec()))
}

#[test]
fn fgsm_is_as_strong_as_the_peers_fgsm() {
    let (Some(reference), Some((x, y))) = (shared("reference"), mnist(1000)) else {
        return;
    };
    // Right answers of 1000 under attack, by epsilon; three tools agree on them. 49 and 9 of the images are classified with a
    // probability that rounds to 1, so that the gradient of their loss is rounding error, ours and theirs; at large epsilons hardly
    // any other image is left.
    let expected = [
        ("wong_standard", [(870, 0), (473, 0), (49, 2), (13, 2)]),
        ("cnn", [(875, 0), (559, 0), (58, 2), (3, 2)]),
    ];
    for (name, robust) in expected {
        let image = image(&reference.join(format!("{name}.onnx")));
        let classifier =
            Classifier::new(image.model().expect("a checked image"), Kernels::detect());
        let inputs = classifier.inputs(&x);
        for (epsilon, (robust, slack)) in [0.05, 0.1, 0.2, 0.3].into_iter().zip(robust) {
            let spec = classifier.spec(Spec::fgsm, Norm::Linf, epsilon);
            let run = Run::of_spec(spec, &y, 0, &|_| {});
            let attacked = attack(&classifier, &inputs, &run).expect("an attack");
            let answers = classifier.answers(&attacked.inputs).expect("answers");
            let right = answers
                .iter()
                .zip(&y)
                .filter(|(a, y)| a.label == **y)
                .count();
            eprintln!("{name}: FGSM {epsilon}: {right} of 1000 right, the peers say {robust}");
            assert!(
                right.abs_diff(robust) <= slack,
                "{name}, epsilon {epsilon}: {right}, not {robust}"
            );
        }
    }
}

#[test]
fn all_reference_classifiers_are_as_good_as_trained() {
    let (Some(reference), Some((x, y))) = (shared("reference"), mnist(1000)) else {
        return;
    };
    for name in ["cnn", "wong_standard", "wong_pgd_at", "wong_fgsm_overfit"] {
        let image = image(&reference.join(format!("{name}.onnx")));
        let classifier =
            Classifier::new(image.model().expect("a checked image"), Kernels::detect());
        let answers = classifier.answers(&classifier.inputs(&x)).expect("answers");
        let right = accuracy(&answers, &y);
        eprintln!("{name}: {:.1} % of 1000", 100.0 * right);
        assert!(right > 0.96, "{name}: {right}");
    }
}

/// Three channels, channels first and last: the class at the centre of each box is the one that the verifiers name.
#[test]
fn centres_of_verified_boxes_have_their_label() {
    let Some(truth) = shared("truth") else {
        return;
    };
    let nets = [
        "oval21/cifar_base_kw",
        "oval21/cifar_deep_kw",
        "oval21/cifar_wide_kw",
        "mnistfc/mnist-net_256x2",
        "mnistfc/mnist-net_256x4",
        "mnistfc/mnist-net_256x6",
        "marabou-cifar10/cifar10_small",
        "marabou-cifar10/cifar10_medium",
        "marabou-cifar10/cifar10_large",
    ];
    for net in nets {
        let imported = imported(&truth.join(format!("{net}.onnx")));
        assert_eq!(imported.channels_moved, net.starts_with("oval21"), "{net}");
        let boxes = truth.join(format!("{net}.npz"));
        let (low, high) = (f32s(&boxes, "lo"), f32s(&boxes, "hi"));
        let mut label = reals(&boxes, "label");
        if net.starts_with("marabou") {
            // here it is the class that the centre is to be taken for: the one after its own
            label.iter_mut().for_each(|y| *y = (*y + 9.0) % 10.0);
        }
        let centre: Vec<f32> = low.iter().zip(&high).map(|(l, h)| (l + h) / 2.0).collect();
        let image = to_image(&imported.graph).expect("an image");
        let classifier =
            Classifier::new(image.model().expect("a checked image"), Kernels::detect());
        let n = classifier.input_len();
        assert_eq!(centre.len(), n * label.len(), "{net}");
        let x = imported.order().to_graph(&centre);
        assert_eq!(imported.order().to_file(&x), centre, "{net}");
        let answers = classifier.answers(&Inputs::F32(x)).expect("answers");
        assert_eq!(answers.len(), label.len());
        let right = answers
            .iter()
            .zip(&label)
            .filter(|(a, y)| a.label as f64 == **y)
            .count();
        eprintln!("{net}: {right} of {} centres have their label", label.len());
        assert_eq!(right, label.len(), "{net}");
    }
}

/// Right answers on the data that the models were made for: as many as ONNX Runtime's.
#[test]
fn deployed_float_models_are_as_good_as_in_onnx_runtime() {
    let (Some(models), Some(data)) = (shared("models"), shared("datasets")) else {
        return;
    };
    let cifar = data.join("cifar10_test_1000.npz");
    let (mean, deviation) = ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]);
    let images: Vec<f32> = f32s(&cifar, "x")
        .iter()
        .enumerate()
        .map(|(i, v)| (v / 255.0 - mean[i % 3]) / deviation[i % 3])
        .collect();
    let classes: Vec<usize> = reals(&cifar, "y").iter().map(|&y| y as usize).collect();
    // clips of 119 rows, a file for each gesture; acceleration within 4 g, rotation within 2000 degrees a second
    let mut files: Vec<PathBuf> = std::fs::read_dir(data.join("magic_wand/test"))
        .expect("a folder")
        .map(|file| file.expect("a file").path())
        .collect();
    files.sort();
    let (mut clips, mut gestures) = (Vec::new(), Vec::new());
    for (gesture, file) in files.iter().enumerate() {
        let text = std::fs::read_to_string(file).expect("a readable file");
        let values: Vec<f32> = text
            .lines()
            .skip(1)
            .flat_map(|row| row.split(','))
            .map(|v| v.trim().parse().expect("a number"))
            .collect();
        gestures.extend(vec![gesture; values.len() / (119 * 6)]);
        clips.extend(values.iter().enumerate().map(|(i, v)| match i % 6 {
            0..3 => (v + 4.0) / 8.0,
            _ => (v + 2000.0) / 4000.0,
        }));
    }
    for (name, x, y, expected) in [
        ("alibaba_ic_float", images, classes, 820),
        ("magic_wand_imu_float", clips, gestures, 22),
    ] {
        let image = image(&models.join(format!("{name}.onnx")));
        let classifier =
            Classifier::new(image.model().expect("a checked image"), Kernels::detect());
        let answers = classifier.answers(&Inputs::F32(x)).expect("answers");
        assert_eq!(answers.len(), y.len(), "{name}");
        let right = answers
            .iter()
            .zip(&y)
            .filter(|(a, y)| a.label == **y)
            .count();
        eprintln!(
            "{name}: {right} of {} right, ONNX Runtime {expected}",
            y.len()
        );
        assert_eq!(right, expected, "{name}");
    }
}

/// A network with depthwise convolutions and normalizations, and one over a sequence.
#[test]
fn deployed_float_models_are_read() {
    let Some(models) = shared("models") else {
        return;
    };
    for (model, input, classes) in [
        ("alibaba_ic_float", &[1u32, 32, 32, 3][..], 10),
        ("magic_wand_imu_float", &[1, 119, 6], 5),
    ] {
        let image = image(&models.join(format!("{model}.onnx")));
        let checked = image.model().expect("a checked image");
        assert_eq!(checked.input_shape().dims(), input, "{model}");
        assert_eq!(checked.classes(), classes, "{model}");
    }
    // normalizations are part of the layers, activations too
    let graph = imported(&models.join("alibaba_ic_float.onnx")).graph;
    let names: std::collections::BTreeSet<&str> = graph.nodes.iter().map(|n| n.op.name()).collect();
    let expected = ["add", "avg_pool2d", "conv2d", "dense", "depthwise_conv2d"];
    let names: Vec<&str> = names.into_iter().filter(|&n| n != "reshape").collect();
    assert_eq!(names, expected);
}

/// One of the int8 models, and how far from ONNX Runtime's its last int8 tensor may be.
struct Int8 {
    model: &'static str,
    /// Steps: the largest difference, and the mean of all.
    most: i32,
    mean: f64,
    /// Samples whose label may differ from ONNX Runtime's.
    labels: usize,
    /// Right answers of all samples, where they have labels.
    right: Option<usize>,
}

/// Int8 files in both forms: sums in int32 and one fixed-point factor where ONNX Runtime rounds a float product. Sums of two grids are
/// TFLite Micro's (three roundings), which is where the first model's second step comes from.
#[test]
fn int8_models_answer_as_in_onnx_runtime() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/onnx_int8.npz");
    let (Some(models), Some(data)) = (shared("models"), shared("datasets")) else {
        return;
    };
    let cifar = f32s(&data.join("cifar10_test_1000.npz"), "x");
    let kws = f32s(&data.join("kws_mfcc_1000.npz"), "x_f32");
    let vww = f32s(&data.join("vww_200.npz"), "x");
    let vww: Vec<f32> = vww.iter().map(|v| v / 255.0).collect();
    let Some((digits, digit_labels)) = mnist(1000) else {
        return;
    };
    let digits: Vec<f32> = digits.iter().map(|v| 255.0 * v).collect();
    let sounds = sounds(&models);
    let labels = |archive: &str| -> Vec<usize> {
        let y = reals(&data.join(archive), "y");
        y.into_iter().map(|y| y as usize).collect()
    };
    let cases = [
        (
            Int8 {
                model: "mlperf_resnet_qdq",
                most: 2,
                mean: 0.03,
                labels: 1,
                right: Some(878),
            },
            cifar,
            labels("cifar10_test_1000.npz"),
        ),
        (
            Int8 {
                model: "mlperf_kws_ref_model_qdq",
                most: 1,
                mean: 0.002,
                labels: 0,
                right: Some(924),
            },
            kws,
            labels("kws_mfcc_1000.npz"),
        ),
        (
            Int8 {
                model: "mlperf_mobilenet_v1_qdq",
                most: 1,
                mean: 0.01,
                labels: 0,
                right: Some(164),
            },
            vww,
            labels("vww_200.npz"),
        ),
        (
            Int8 {
                model: "mlperf_deep_autoencoder_qdq",
                most: 0,
                mean: 0.0,
                labels: 0,
                right: None,
            },
            sounds,
            Vec::new(),
        ),
        (
            Int8 {
                model: "mnist8_qdq_i8",
                most: 0,
                mean: 0.0,
                labels: 0,
                right: Some(987),
            },
            digits.clone(),
            digit_labels.clone(),
        ),
        (
            Int8 {
                model: "mnist8_qoperator_u8i8",
                most: 0,
                mean: 0.0,
                labels: 0,
                right: Some(987),
            },
            digits,
            digit_labels,
        ),
    ];
    for (case, x, y) in cases {
        let name = case.model;
        let mut graph = imported(&models.join(format!("{name}.onnx"))).graph;
        // between input and scores all is int8
        let float = |n: &&foolproof_host::graph::Node| {
            graph.tensors[n.output].data.dtype() == foolproof::tensor::DType::F32
        };
        let float: Vec<&str> = graph
            .nodes
            .iter()
            .filter(float)
            .map(|n| n.op.name())
            .collect();
        assert!(
            float == ["dequantize"] || float == ["dequantize", "softmax"],
            "{name}: {float:?}"
        );
        let last = graph.nodes.iter().rposition(|n| n.op == Op::Dequantize);
        let last = last.expect("a Dequantize");
        graph.output = graph.nodes[last].inputs[0];
        graph.nodes.truncate(last);
        graph.prune();
        let image = to_image(&graph).expect("an image");
        let reference = reals(&golden, name);
        let n = image.model().expect("a checked image").input_shape().len();
        let classes = reference.len() / (x.len() / n);
        // the reference kernels take their time
        for (kernels, count) in [(Kernels::Scalar, 20), (Kernels::detect(), x.len() / n)] {
            let classifier = Classifier::new(image.model().expect("a checked image"), kernels);
            let answers = classifier
                .answers(&Inputs::F32(x[..count * n].to_vec()))
                .expect("answers");
            let (mut most, mut sum, mut differ, mut right) = (0, 0.0, 0, 0);
            for (i, answer) in answers.iter().enumerate() {
                let expected = &reference[i * classes..(i + 1) * classes];
                assert_eq!(answer.output.len(), classes, "{name}");
                for (&got, expected) in answer.output.iter().zip(expected) {
                    let steps = (i32::from(got as i8) - *expected as i32).abs();
                    most = most.max(steps);
                    sum += f64::from(steps);
                }
                let mut theirs = 0;
                for (k, v) in expected.iter().enumerate() {
                    if *v > expected[theirs] {
                        theirs = k;
                    }
                }
                differ += usize::from(theirs != answer.label);
                right += usize::from(y.get(i) == Some(&answer.label));
            }
            let mean = sum / (count * classes) as f64;
            eprintln!(
                "{name} ({}): at most {most} steps from ONNX Runtime, {mean:.4} on average; {differ} of {} labels differ; {right} right",
                kernels.name(),
                answers.len(),
            );
            assert!(most <= case.most, "{name}: {most} steps");
            if let (Some(expected), true) = (case.right, count > 20) {
                assert!(mean <= case.mean, "{name}: {mean} steps on average");
                assert!(differ <= case.labels, "{name}: {differ} labels differ");
                assert!(
                    right.abs_diff(expected) <= case.labels,
                    "{name}: {right} right, ONNX Runtime {expected}"
                );
            }
        }
    }
}

/// The inputs of the shared golden of the autoencoder's `.tflite` sibling, in real numbers.
fn sounds(models: &Path) -> Vec<f32> {
    let bytes = std::fs::read(models.join("ad01_int8.tflite")).expect("a readable model");
    let graph = foolproof_host::import::tflite::import(&bytes).expect("a model");
    let grid = &graph.tensors[graph.input].quant;
    let q = reals(&models.join("../goldens/mlperf_ad_int8.npz"), "inputs");
    let real = |q: &f64| grid.scale * (*q as i32 - grid.zero_point) as f32;
    q.iter().map(real).collect()
}

/// Flipped bits, changed bytes, cuts and repeated parts: an error or a model, in one line and bounded, never a panic.
#[test]
fn mutated_files_end_in_one_line() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/onnx");
    let mut originals: Vec<(PathBuf, usize)> = ["float", "moves", "qdq", "qoperator"]
        .map(|name| (seeds.join(format!("{name}.onnx")), 10_000))
        .to_vec();
    if let (Some(reference), Some(models)) = (shared("reference"), shared("models")) {
        originals.push((reference.join("cnn.onnx"), 10_000));
        originals.push((models.join("mnist8_qdq_i8.onnx"), 4_000));
        originals.push((models.join("mnist8_qoperator_u8i8.onnx"), 4_000));
        originals.push((models.join("mlperf_kws_ref_model_qdq.onnx"), 1_000));
    }
    let mut random = Random(7);
    for (path, count) in originals {
        let original = std::fs::read(&path).expect("a readable model");
        let name = path.file_name().expect("a name").to_string_lossy();
        onnx::import(&original).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (mut good, mut bad) = (0, 0);
        // the weights are most of a large file, and what is in them does not matter: aim at the rest
        let weights = long_runs(&original);
        for _ in 0..count {
            let bytes = mutated(&original, &weights, &mut random);
            let said = match onnx::import(&bytes) {
                Err(error) => error.to_string(),
                Ok(graph) => match to_image(&graph) {
                    Err(error) => error.to_string(),
                    Ok(_) => {
                        good += 1;
                        continue;
                    }
                },
            };
            bad += 1;
            assert!(!said.contains('\n') && said.len() < 20_000, "{said:?}");
        }
        eprintln!("{name}: {good} mutated files are models, {bad} are refused");
        assert!(good > 0 && bad > 0, "{name}");
    }
}

fn mutated(original: &[u8], weights: &[std::ops::Range<usize>], random: &mut Random) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..random.int(1, 4) {
        let mut at = random.below(bytes.len() as u64) as usize;
        while weights.iter().any(|r| r.contains(&at)) && random.below(50) != 0 {
            at = random.below(bytes.len() as u64) as usize;
        }
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes[at] = random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            3 if random.below(8) == 0 => bytes.truncate(at.max(1)),
            4 => {
                let end = (at + random.int(1, 40) as usize).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => {
                let value = random.pick(&[0u8, 1, 2, 8, 0x7f]);
                bytes[at] = bytes[at].wrapping_add(value);
            }
        }
    }
    bytes
}

/// The raw data of large constants: long stretches behind the field's tag.
fn long_runs(file: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut runs = Vec::new();
    let mut at = 0;
    while at + 3 < file.len() {
        // TensorProto.raw_data with a length of two or three bytes
        let length = |i: usize| usize::from(file[i] & 0x7f);
        let (len, from) = match (file[at], file[at + 1] & 0x80, file[at + 2] & 0x80) {
            (0x4a, 0x80, 0) => (length(at + 1) | length(at + 2) << 7, at + 3),
            (0x4a, 0x80, _) => (
                length(at + 1) | length(at + 2) << 7 | length(at + 3) << 14,
                at + 4,
            ),
            _ => (0, 0),
        };
        if len > 250 && from + len <= file.len() {
            runs.push(from..from + len);
            at = from + len;
        } else {
            at += 1;
        }
    }
    runs
}
