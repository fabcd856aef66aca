//! `.tflite` models that others made: every int8 output byte for byte what TFLite Micro gives.
//!
//! The models and what TFLite Micro answers (`out_tflm`, 32 inputs each) lie outside of the repository, in
//! `../shared/data`; without that folder these tests say so and pass.

use foolproof::kernels::Kernels;
use foolproof_host::classifier::{Answer, Classifier, Inputs};
use foolproof_host::data::npy::Values;
use foolproof_host::data::npz;
use foolproof_host::graph::to_image;
use foolproof_host::import::{ImportError, tflite};
use std::path::{Path, PathBuf};

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

/// Models with golden outputs, and the file that holds these. (lenet_300_100 and the float models have none.)
const EXACT: [(&str, &str); 13] = [
    ("ad01_int8", "mlperf_ad_int8"),
    ("arm_cifar10_int8", "arm_cifar_int8"),
    ("hello_world_int8", "tflm_hello_world_int8"),
    ("kws_ref_model", "mlperf_kws_dscnn_int8"),
    ("magic_wand_imu_int8", "imu_magic_wand_int8"),
    ("micro_speech_quantized", "tflm_micro_speech_int8"),
    ("person_detect", "tflm_person_detect_int8"),
    ("pretrainedResnet_quant", "mlperf_resnet8_int8"),
    ("str_ww_ref_model", "mlperf_sww_int8"),
    ("tinymaix_mnist_resnet_int8", "tinymaix_mnist_resnet_int8"),
    ("tinymaix_mnist_valid_int8", "tinymaix_mnist_valid_int8"),
    ("trained_lstm_int8", "tflm_mnist_lstm_int8"),
    ("vww_96_int8", "mlperf_vww_mbv1_int8"),
];

fn int8(file: &[u8], name: &str) -> Vec<i8> {
    let array = npz::read_array(file, name)
        .expect("a readable archive")
        .expect(name);
    match array.values {
        Values::I8(values) => values,
        _ => panic!("{name} is int8"),
    }
}

fn outputs(answers: &[Answer]) -> Vec<i8> {
    answers
        .iter()
        .flat_map(|a| a.output.iter().map(|&b| b as i8))
        .collect()
}

#[test]
fn int8_models_answer_what_tflite_micro_answers() {
    let (Some(models), Some(goldens)) = (shared("models"), shared("goldens")) else {
        return;
    };
    let mut failures = Vec::new();
    for (model, golden) in EXACT {
        let bytes = std::fs::read(models.join(format!("{model}.tflite"))).expect(model);
        let graph = match tflite::import(&bytes) {
            Ok(graph) => graph,
            Err(error) => {
                failures.push(format!("{model}: {error}"));
                continue;
            }
        };
        let image = match to_image(&graph) {
            Ok(image) => image,
            Err(error) => {
                failures.push(format!("{model}: {error}"));
                continue;
            }
        };
        let golden = std::fs::read(goldens.join(format!("{golden}.npz"))).expect(golden);
        let inputs = Inputs::I8(int8(&golden, "inputs"));
        let expected = int8(&golden, "out_tflm");
        for kernels in [Kernels::Scalar, Kernels::detect()] {
            let classifier = Classifier::new(image.model().expect("a checked image"), kernels);
            // recurrent ones go on from sample to sample, as they did for the golden outputs
            let answers = classifier.stream(&inputs).expect(model);
            let got = outputs(&answers);
            assert_eq!(got.len(), expected.len(), "{model}");
            assert!(
                !got.is_empty() && got.iter().any(|&g| g != got[0]),
                "{model} answers"
            );
            let differ = got.iter().zip(&expected).filter(|(g, e)| g != e).count();
            eprintln!(
                "{model} ({kernels:?}): {differ} of {} bytes differ",
                expected.len()
            );
            if differ > 0 {
                failures.push(format!(
                    "{model} ({kernels:?}): {differ} of {} bytes differ",
                    expected.len()
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn what_is_missing_is_named_all_at_once() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/missing.tflite");
    let bytes = std::fs::read(path).expect("a file of the repository");
    let Err(ImportError::Unsupported(missing)) = tflite::import(&bytes) else {
        panic!("it is imported, or fails for another reason");
    };
    let names: Vec<(&str, usize)> = missing
        .iter()
        .map(|m| (m.operator.as_str(), m.count))
        .collect();
    assert_eq!(names, [("REVERSE_SEQUENCE", 2), ("RELU_N1_TO_1", 1)]);
}

/// Small models in forms that the shared ones do not have (`oracle/make_cases.py`): uint8 at the ends, means, slices,
/// transposes, broadcasting, many inputs.
#[test]
fn small_models_answer_what_tflite_micro_answers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tflite");
    let mut seen = 0;
    let mut failures = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|e| e != "tflite") {
            continue;
        }
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let read = |extension: &str| std::fs::read(path.with_extension(extension)).expect("a file");
        let graph = match tflite::import(&read("tflite")) {
            Ok(graph) => graph,
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        // uint8 is int8 with all steps moved by 128
        let moved = |ends: bool| if ends { 0x80 } else { 0 };
        let (low, high) = (
            name.starts_with("uint8"),
            name.starts_with("uint8") && !["out", "moves"].iter().any(|end| name.ends_with(end)),
        );
        let inputs = read("in").iter().map(|&b| (b ^ moved(low)) as i8).collect();
        let expected: Vec<u8> = read("out").iter().map(|&b| b ^ moved(high)).collect();
        let image = to_image(&graph).expect(&name);
        let inputs = Inputs::I8(inputs);
        for kernels in [Kernels::Scalar, Kernels::detect()] {
            let classifier = Classifier::new(image.model().expect("a checked image"), kernels);
            let answers = classifier.stream(&inputs).expect(&name);
            let got: Vec<u8> = answers.into_iter().flat_map(|a| a.output).collect();
            let differ = got.iter().zip(&expected).filter(|(g, e)| g != e).count();
            if got.len() != expected.len() || differ > 0 {
                failures.push(format!(
                    "{name} ({kernels:?}): {differ} of {} bytes differ",
                    expected.len()
                ));
            }
        }
        seen += 1;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(seen >= 43, "{seen} models");
}

/// Nothing in the shared folder is left out.
#[test]
fn every_shared_model_is_imported() {
    let (Some(models), Some(reference)) = (shared("models"), shared("reference")) else {
        return;
    };
    let mut seen = 0;
    for folder in [models, reference] {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            if path.extension().is_none_or(|e| e != "tflite") {
                continue;
            }
            let bytes = std::fs::read(&path).expect("a file");
            let graph = tflite::import(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            to_image(&graph).unwrap_or_else(|error| panic!("{name}: {error}"));
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen} models");
}
