//! Third-party int8 models on the real data that comes with them: the labels that TFLite Micro gives, sample for sample.
//!
//! The labels are in `golden/labels.txt` (`oracle/make_labels.py` made them). Models and data lie outside of the repository, in
//! `../shared/data`; without that folder this test says so and passes.

use foolproof::kernels::Kernels;
use foolproof_host::classifier::{Classifier, Inputs};
use foolproof_host::data::{self, Dataset, Purpose, Samples};
use foolproof_host::graph::to_image;
use foolproof_host::import::tflite;
use std::path::{Path, PathBuf};

/// What the shared folder's own list says, in percent: of another number of samples where there are two.
const LISTED: [(&str, &str); 11] = [
    ("pretrainedResnet_quant", "87.02 of 10000"),
    ("kws_ref_model", "91.86 of 4890"),
    ("vww_96_int8", "85.6 of 1000"),
    ("micro_speech_quantized", "91.95 of 1640"),
    ("trained_lstm_int8 alone", "-"),
    ("trained_lstm_int8 stream", "91.95 of 2000"),
    ("tinymaix_mnist_resnet_int8", "98.22 of 10000"),
    ("tinymaix_mnist_valid_int8", "96.46 of 10000"),
    ("lenet_300_100_mnist_int8", "98.1 of 10000"),
    ("magic_wand_imu_int8", "88 of 25"),
    ("arm_cifar10_int8", "89.8 of 1000"),
];

fn shared() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    if path.is_dir() {
        return Some(path);
    }
    eprintln!(
        "SKIPPED: {} is not there, so nothing was compared",
        path.display()
    );
    None
}

/// Samples and labels of a data set by its name in the golden file.
fn read(shared: &Path, name: &str) -> (Samples, Vec<usize>) {
    let folder = shared.join("datasets");
    if name == "magic_wand" {
        return magic_wand(&folder.join("magic_wand/test"));
    }
    let spec = match name {
        "mnist" => format!(
            "{},{}",
            folder.join("mnist/t10k-images-idx3-ubyte.gz").display(),
            folder.join("mnist/t10k-labels-idx1-ubyte.gz").display()
        ),
        _ => folder.join(format!("{name}.npz")).display().to_string(),
    };
    let data: Dataset = data::load(&spec, Purpose::Judge).expect(name);
    let labels = data.labels().expect("labels").to_vec();
    (data.samples().clone(), labels)
}

/// Windows of 119 rows: accelerations from -4 to 4 g and rotations from -2000 to 2000 degrees a second to 0 to 1.
fn magic_wand(folder: &Path) -> (Samples, Vec<usize>) {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for (label, file) in files.iter().enumerate() {
        let text = std::fs::read_to_string(file).expect("a table");
        let rows: Vec<f32> = text
            .lines()
            .skip(1)
            .flat_map(|line| {
                let cells = line.split(',').enumerate();
                cells.map(|(i, cell)| {
                    let cell: f64 = cell.trim().parse().expect("a number");
                    let half = if i < 3 { 4.0 } else { 2000.0 };
                    ((cell + half) / (2.0 * half)) as f32
                })
            })
            .collect();
        y.extend(vec![label; rows.len() / (119 * 6)]);
        x.extend(rows);
    }
    (Samples::F32(x), y)
}

/// Real inputs as each model's makers prepared them; `None`: the samples are the model's own int8.
fn prepared(model: &str, samples: &Samples) -> Option<Vec<f32>> {
    let unit = |x: &[u8]| x.iter().map(|&v| f32::from(v) / 255.0).collect();
    match (model, samples) {
        (_, Samples::I8(_)) => None,
        ("pretrainedResnet_quant", Samples::U8(x)) => Some(x.iter().map(|&v| v.into()).collect()),
        ("arm_cifar10_int8", Samples::U8(x)) => {
            let mean = [0.4914_f32, 0.4822, 0.4465];
            let deviation = [0.2470_f32, 0.2435, 0.2616];
            let channel =
                |(i, &v): (usize, &u8)| (f32::from(v) / 255.0 - mean[i % 3]) / deviation[i % 3];
            Some(x.iter().enumerate().map(channel).collect())
        }
        (_, Samples::U8(x)) => Some(unit(x)),
        (_, Samples::F32(x)) => Some(x.clone()),
    }
}

#[test]
fn real_data_gets_the_labels_that_tflite_micro_gives() {
    let Some(shared) = shared() else { return };
    let mut seen = Vec::new();
    let mut failures = Vec::new();
    for line in include_str!("golden/labels.txt").lines() {
        let [model, set, count, how, labels] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("five fields: {line}")
        };
        let count: usize = count.parse().expect("a number");
        let expected: Vec<usize> = labels
            .chars()
            .map(|c| c.to_digit(36).expect("a digit") as usize)
            .collect();
        assert_eq!(expected.len(), count);
        let bytes = std::fs::read(shared.join(format!("models/{model}.tflite"))).expect(model);
        let image = to_image(&tflite::import(&bytes).expect(model)).expect(model);
        let classifier = Classifier::new(image.model().expect("an image"), Kernels::detect());
        let (samples, truth) = read(&shared, set);
        let inputs = match (prepared(model, &samples), &samples) {
            (Some(real), _) => classifier.inputs(&real),
            (None, Samples::I8(x)) => Inputs::I8(x.clone()),
            _ => panic!("{set} is int8"),
        };
        let inputs = inputs.truncated(count, classifier.input_len());
        let answers = match how {
            "stream" => classifier.stream(&inputs),
            _ => classifier.answers(&inputs),
        };
        let got: Vec<usize> = answers.expect(model).iter().map(|a| a.label).collect();
        assert_eq!(got.len(), count, "{model}");
        let wrong = got.iter().zip(&expected).filter(|(g, e)| g != e).count();
        let right = got.iter().zip(&truth).filter(|(g, t)| g == t).count();
        let listed = LISTED
            .iter()
            .find(|(m, _)| *m == model || *m == format!("{model} {how}"))
            .map_or("-", |(_, listed)| listed);
        eprintln!(
            "{model} {how}: {wrong} of {count} labels differ; accuracy {:.2} % (listed: {listed})",
            100.0 * right as f64 / count as f64
        );
        if wrong > 0 {
            failures.push(format!("{model} {how}: {wrong} of {count} labels differ"));
        }
        seen.push(model);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(seen.len(), LISTED.len());
}
