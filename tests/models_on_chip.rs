//! Models that others made, on emulated chips: every byte of every output is what TFLite Micro answers, and what the chip
//! crafts against them is what the host crafts.
//!
//! The models and what TFLite Micro answers (`out_tflm`, 32 inputs each) lie outside of the repository, in
//! `../shared/data`; without that folder these tests say so and pass. They need the emulators (`cargo xtask setup`).

use foolproof::attack::{Norm, Spec};
use foolproof::kernels::Kernels;
use foolproof::link::Input;
use foolproof::memory::Mode;
use foolproof_host::classifier::{Classifier, Inputs};
use foolproof_host::data::npy::Values;
use foolproof_host::data::npz;
use foolproof_host::device::{
    Board, Chip, Emulator, Options, Payload, Work, board, compare_emulated, fitted, prepare,
};
use foolproof_host::graph::{Cut, Image, from_image, to_image, to_image_within};
use foolproof_host::import::{ImportError, tflite};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The M4F and the M55.
const BOARDS: [&str; 2] = ["mps2-an386", "mps3-an547"];

/// Emulators run slowly when many share a machine.
const LIMIT: Duration = Duration::from_secs(600);

/// Every int8 model with golden outputs, and the file that holds these; both chips run all 32 inputs of each. What the importer
/// does not read is left out with a word.
///
/// `trained_lstm_int8` keeps a state, and its golden outputs are of one stream of 32 samples, which `tests/tflite.rs` reproduces. A
/// chip, like an attack, begins every sample with the reset state: there it is compared with the host that does the same.
const GOLDEN: [(&str, &str); 13] = [
    ("ad01_int8", "mlperf_ad_int8"),
    ("arm_cifar10_int8", "arm_cifar_int8"),
    ("hello_world_int8", "tflm_hello_world_int8"),
    ("kws_ref_model", "mlperf_kws_dscnn_int8"),
    ("magic_wand_imu_int8", "imu_magic_wand_int8"),
    ("micro_speech_quantized", "tflm_micro_speech_int8"),
    ("person_detect", "tflm_person_detect_int8"),
    ("pretrainedResnet_quant", "mlperf_resnet8_int8"),
    ("str_ww_ref_model", "mlperf_sww_int8"),
    ("trained_lstm_int8", "tflm_mnist_lstm_int8"),
    ("tinymaix_mnist_resnet_int8", "tinymaix_mnist_resnet_int8"),
    ("tinymaix_mnist_valid_int8", "tinymaix_mnist_valid_int8"),
    ("vww_96_int8", "mlperf_vww_mbv1_int8"),
];

/// Inputs in a golden file.
const ALL: usize = 32;

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

fn image(models: &Path, name: &str) -> Image {
    let bytes = std::fs::read(models.join(format!("{name}.tflite"))).expect(name);
    let graph = tflite::import(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    to_image(&graph).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn int8(file: &[u8], name: &str) -> Vec<i8> {
    let array = npz::read_array(file, name)
        .expect("a readable archive")
        .expect(name);
    match array.values {
        Values::I8(values) => values,
        _ => panic!("{name} is int8"),
    }
}

/// The first `count` of the golden inputs, and what TFLite Micro answers.
fn golden(goldens: &Path, name: &str, count: usize) -> (Vec<Vec<i8>>, Vec<Vec<i8>>) {
    let file = std::fs::read(goldens.join(format!("{name}.npz"))).expect(name);
    let [inputs, outputs] = ["inputs", "out_tflm"].map(|part| {
        let values = int8(&file, part);
        values
            .chunks(values.len() / ALL)
            .take(count)
            .map(<[i8]>::to_vec)
            .collect()
    });
    (inputs, outputs)
}

/// Runs every input on the emulated board; returns how many outputs differ from the expected ones, and the instructions of one.
fn run(
    board: &Board,
    elf: &Path,
    image: &Image,
    inputs: &[Vec<i8>],
    expected: &[Vec<i8>],
) -> (usize, u64) {
    let bytes = |values: &[i8]| values.iter().map(|&v| v as u8).collect::<Vec<u8>>();
    let payload = Payload {
        image: image.bytes().to_vec(),
        inputs: inputs.iter().flat_map(|x| bytes(x)).collect(),
        labels: vec![0; inputs.len()],
        ..Payload::default()
    };
    let options = Options {
        limit: LIMIT,
        slot: payload.for_board(board).expect("room for the model"),
        ..Options::default()
    };
    let mut chip = Chip::new(Emulator::start(board, elf, options).expect("an emulator"));
    chip.hello().expect("a chip");
    chip.use_slot().expect("a model that fits");
    let (mut differ, mut instructions) = (0, 0);
    for (i, expected) in expected.iter().enumerate() {
        let inferred = chip.infer(Input::Sample(i as u32)).expect("an answer");
        differ += usize::from(inferred.output != bytes(expected));
        instructions = inferred.instructions;
    }
    let outcome = chip.quit().expect("an end").wait().expect("an end");
    assert_eq!(outcome.code, Some(0), "{:?}", outcome.log);
    (differ, instructions)
}

#[test]
fn every_model_answers_on_the_chip_what_tflite_micro_answers() {
    let (Some(models), Some(goldens)) = (shared("models"), shared("goldens")) else {
        return;
    };
    let boards = BOARDS.map(|name| board(name).expect(name));
    let elves = boards.map(|board| prepare(board).unwrap_or_else(|error| panic!("{error:#}")));
    let mut failures = Vec::new();
    let mut compared = 0;
    for (name, file) in GOLDEN {
        let bytes = std::fs::read(models.join(format!("{name}.tflite"))).expect(name);
        if let Err(error @ ImportError::Unsupported(_)) = tflite::import(&bytes) {
            eprintln!("LEFT OUT: {name}: {error}");
            continue;
        }
        compared += 1;
        let image = image(&models, name);
        let (inputs, mut expected) = golden(&goldens, file, ALL);
        let model = image.model().expect("a checked image");
        if model.is_stateful() {
            let host = Classifier::new(model, Kernels::Scalar);
            let answers = host.answers(&Inputs::I8(inputs.concat())).expect(name);
            let int8 = |bytes: &[u8]| bytes.iter().map(|&b| b as i8).collect();
            expected = answers.iter().map(|a| int8(&a.output)).collect();
        }
        let first = expected[0][0];
        assert!(
            expected.iter().flatten().any(|&y| y != first),
            "{name} answers"
        );
        for (board, elf) in boards.iter().zip(&elves) {
            let start = Instant::now();
            let (differ, instructions) = run(board, elf, &image, &inputs, &expected);
            let seconds = start.elapsed().as_secs_f32();
            let line = format!(
                "{name} on {}: {differ} of {ALL} outputs differ, {instructions} instructions each, {seconds:.1} s",
                board.name
            );
            eprintln!("{line}");
            if differ > 0 {
                failures.push(line);
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(compared >= 12, "only {compared} models were compared");
}

/// The four of MLPerf Tiny, the file of their inputs, and how many are attacked.
const ATTACKED: [(&str, &str, usize); 4] = [
    ("ad01_int8", "mlperf_ad_int8", 6),
    ("kws_ref_model", "mlperf_kws_dscnn_int8", 3),
    ("pretrainedResnet_quant", "mlperf_resnet8_int8", 2),
    ("vww_96_int8", "mlperf_vww_mbv1_int8", 2),
];

/// What an attacked chip may use, bytes.
const BUFFER: usize = 262_144;

#[test]
fn attacks_crafted_on_the_chip_are_those_of_the_host_within_256_kilobytes() {
    let (Some(models), Some(goldens)) = (shared("models"), shared("goldens")) else {
        return;
    };
    let board = board(BOARDS[0]).expect("a board");
    let elf = prepare(board).unwrap_or_else(|error| panic!("{error:#}"));
    for (name, file, count) in ATTACKED {
        let (inputs, outputs) = golden(&goldens, file, count);
        let mut image = image(&models, name);
        if name == "ad01_int8" {
            image = detector(&image, &inputs, &outputs);
        }
        let classifier = Classifier::new(image.model().expect("a checked image"), Kernels::Scalar);
        let buffer = classifier.model().required_buffer(Mode::Attack);
        assert!(
            0 < buffer && buffer <= BUFFER,
            "{name} needs {buffer} bytes"
        );
        let inputs = Inputs::I8(inputs.concat());
        let answers = classifier.answers(&inputs).expect(name);
        let labels: Vec<usize> = answers.iter().map(|answer| answer.label).collect();
        // 8 steps of the grid: attacks that work, so that early ends are compared too, and that need more than one step
        let epsilon = 8.0 * classifier.input_scale();
        let specs = [
            classifier.spec(Spec::fgsm, Norm::Linf, epsilon),
            classifier.spec(|ball| Spec::pgd(ball, 4), Norm::Linf, epsilon),
        ];
        let work = Work {
            image: image.bytes(),
            classifier,
            inputs: &inputs,
            labels: &labels,
            attacks: &specs,
            seed: 1,
            progress: &|_| {},
        };
        let start = Instant::now();
        let compared = compare_emulated(board, &elf, &work, LIMIT)
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        eprintln!(
            "{name}: {buffer} bytes of buffer, {:?}, {:.1} s",
            compared.attacks,
            start.elapsed().as_secs_f32()
        );
        assert_eq!(compared.first_difference, None, "{name}");
        assert!(compared.is_identical(), "{name}");
        assert_eq!(compared.adversarial_compared, 2 * count, "{name}");
        assert_eq!(compared.attack_buffer, buffer, "{name}");
        assert!(compared.attacks[1].fooled > 0, "{name} is never fooled");
    }
}

/// The autoencoder as what it is made for: an input is an anomaly where the output is far from it. The threshold lies
/// between the inputs' own errors, so that some hide and some raise a false alarm.
fn detector(image: &Image, inputs: &[Vec<i8>], outputs: &[Vec<i8>]) -> Image {
    let mut graph = from_image(&image.model().expect("a checked image"));
    let real = |t: usize, q: i8| {
        let quant = &graph.tensors[t].quant;
        quant.scale * (i32::from(q) - quant.zero_point) as f32
    };
    let mut errors: Vec<f32> = inputs
        .iter()
        .zip(outputs)
        .map(|(x, y)| {
            let difference = |(&x, &y): (&i8, &i8)| real(graph.output, y) - real(graph.input, x);
            let squares = x.iter().zip(y).map(difference).map(|d| d * d);
            squares.sum::<f32>() / x.len() as f32
        })
        .collect();
    errors.sort_by(f32::total_cmp);
    let middle = errors.len() / 2;
    eprintln!("reconstruction errors {errors:?}");
    graph.anomaly_above = Some((errors[middle - 1] + errors[middle]) / 2.0);
    to_image(&graph).expect("a detector")
}

/// The keyword spotter's attack takes 73,024 bytes. With its backward cut it fits 64 KB, and the chip, which runs the cut one,
/// crafts what the host crafts with the plain one.
#[test]
fn keyword_spotting_is_attacked_within_64_kilobytes() {
    let (Some(models), Some(goldens)) = (shared("models"), shared("goldens")) else {
        return;
    };
    let board = board(BOARDS[0]).expect("a board");
    let elf = prepare(board).unwrap_or_else(|error| panic!("{error:#}"));
    let plain = image(&models, "kws_ref_model");
    let plain = plain.model().expect("a checked image");
    assert!(plain.required_buffer(Mode::Attack) > 65_536);
    let small = to_image_within(&from_image(&plain), 65_536).expect("it can be cut");
    let cut = Cut::of(&small.model().expect("a checked image")).expect("it is cut");
    let (inputs, _) = golden(&goldens, "mlperf_kws_dscnn_int8", 2);
    let inputs = Inputs::I8(inputs.concat());
    let classifier = Classifier::new(plain, Kernels::Scalar);
    let answers = classifier.answers(&inputs).expect("answers");
    let labels: Vec<usize> = answers.iter().map(|answer| answer.label).collect();
    let epsilon = 4.0 * classifier.input_scale();
    let specs = [classifier.spec(|ball| Spec::pgd(ball, 4), Norm::Linf, epsilon)];
    let work = Work {
        image: small.bytes(),
        classifier,
        inputs: &inputs,
        labels: &labels,
        attacks: &specs,
        seed: 1,
        progress: &|_| {},
    };
    let compared = compare_emulated(board, &elf, &work, LIMIT).expect("a run");
    eprintln!(
        "{} bytes, {cut}: {:?}",
        compared.attack_buffer, compared.attacks
    );
    assert!(
        compared.attack_buffer <= 65_536,
        "{}",
        compared.attack_buffer
    );
    assert_eq!(compared.cut, Some(cut));
    assert_eq!(compared.first_difference, None);
    assert!(compared.is_identical());
    assert_eq!(compared.adversarial_compared, 2);
}

/// A board with too little RAM for the plain attack gets a cut one without being asked.
#[test]
fn a_board_gets_the_cut_that_it_needs() {
    let Some(models) = shared("models") else {
        return;
    };
    let image = image(&models, "kws_ref_model");
    let model = image.model().expect("a checked image");
    let spec = [Spec::fgsm(foolproof::attack::Ball {
        norm: Norm::Linf,
        epsilon: 1.0,
        low: -128.0,
        high: 127.0,
    })];
    let mut small = board(BOARDS[0]).expect("a board").clone();
    // the session, and twice the input of 490 bytes
    small.session_ram = 73_024 + 2 * 492;
    assert!(fitted(&small, &model, &spec).expect("it fits").is_none());
    small.session_ram -= 16;
    let cut = fitted(&small, &model, &spec)
        .expect("it fits")
        .expect("a cut image");
    let cut = cut.model().expect("a checked image");
    assert!(cut.required_buffer(Mode::Attack) + 2 * 492 <= small.session_ram as usize);
    assert!(Cut::of(&cut).is_some());
    assert!(
        fitted(&small, &model, &[]).expect("it fits").is_none(),
        "nothing is attacked"
    );
    small.session_ram = 60_000;
    let error = fitted(&small, &model, &spec)
        .expect_err("it cannot fit")
        .to_string();
    assert!(error.contains("bytes at least"), "{error}");
}
