//! No image, however malformed, makes the engine panic: a million mutated images are checked, and those that pass are
//! run forward and backward. And no slice or buffer of the wrong length does.

#[path = "support/exercise.rs"]
mod exercise;
#[path = "support/seeds.rs"]
mod seeds;

use exercise::{Arena, Noise, Verdict, exercise, reseal};
use foolproof::attack::{AttackError, Ball, Norm, Spec, Task};
use foolproof::loss::{Goal, Loss, Objective};
use foolproof::memory::Mode;
use foolproof::model::format::{Header, OpRecord, Span, TensorRecord};
use foolproof::model::{Model, ModelError};
use foolproof::session::{Options, Session, SessionError};
use foolproof::threat::{GradientOracle, LabelOracle, ScoreOracle};
use foolproof_host::graph::Image;
use seeds::images;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use zerocopy::IntoBytes;

const IMAGES: usize = 1_000_000;
const THREADS: usize = 2;

/// What happened to many images.
#[derive(Default, Debug)]
struct Tally {
    rejected: BTreeMap<String, usize>,
    too_large: usize,
    ran: usize,
    forward: u64,
    backward: u64,
    panics: Vec<String>,
}

impl Tally {
    fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Rejected(error) => {
                let text = format!("{error:?}");
                let kind = text.split([' ', '{']).next().unwrap_or("").to_string();
                *self.rejected.entry(kind).or_default() += 1;
            }
            Verdict::TooLarge => self.too_large += 1,
            Verdict::Ran { forward, backward } => {
                self.ran += 1;
                self.forward += u64::from(forward);
                self.backward += u64::from(backward);
            }
        }
    }

    fn merge(&mut self, other: Tally) {
        for (kind, n) in other.rejected {
            *self.rejected.entry(kind).or_default() += n;
        }
        self.too_large += other.too_large;
        self.ran += other.ran;
        self.forward += other.forward;
        self.backward += other.backward;
        self.panics.extend(other.panics);
    }
}

/// Numbers that break arithmetic, and this image's own limits.
fn extreme(random: &mut Noise, len: usize) -> u32 {
    let len = len as u32;
    let all = [
        0,
        1,
        2,
        3,
        4,
        7,
        127,
        128,
        255,
        256,
        0x7fff,
        0x8000,
        0xffff,
        0x1_0000,
        i32::MAX as u32,
        i32::MAX as u32 + 1,
        u32::MAX,
        u32::MAX - 3,
        f32::NAN.to_bits(),
        f32::INFINITY.to_bits(),
        1_f32.to_bits(),
        f32::MIN_POSITIVE.to_bits(),
        f32::MAX.to_bits(),
        len,
        len - 4,
        len / 2,
    ];
    all[random.below(all.len())]
}

/// One random change; returns how many bytes are left.
fn mutate(bytes: &mut [u8], len: usize, random: &mut Noise) -> usize {
    let tables_end = size_of::<Header>() + 8 * (size_of::<TensorRecord>() + size_of::<OpRecord>());
    // most of the checks are about the first part of the image
    let limit = match random.below(4) {
        0 => len,
        _ => len.min(tables_end),
    };
    let at = random.below(limit);
    let word = (at & !3).min(len - 4);
    let read = |bytes: &[u8]| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[word + i]));
    match random.below(12) {
        0..3 => bytes[at] ^= 1 << random.below(8),
        3 => bytes[at] = extreme(random, len) as u8,
        4 => bytes[at] = random.next() as u8,
        5 => {
            let value = extreme(random, len);
            bytes[word..word + 4].copy_from_slice(&value.to_le_bytes());
        }
        6 => {
            let half = (at & !1).min(len - 2);
            let value = extreme(random, len) as u16;
            bytes[half..half + 2].copy_from_slice(&value.to_le_bytes());
        }
        7 => {
            // counts, offsets, indices, dimensions: a little off
            let value = read(bytes)
                .wrapping_add(random.below(17) as u32)
                .wrapping_sub(8);
            bytes[word..word + 4].copy_from_slice(&value.to_le_bytes());
        }
        8 => {
            let half = (at & !1).min(len - 2);
            let value = u16::from_le_bytes([bytes[half], bytes[half + 1]]);
            let value = value.wrapping_add(random.below(5) as u16).wrapping_sub(2);
            bytes[half..half + 2].copy_from_slice(&value.to_le_bytes());
        }
        9 => {
            // a piece of the image somewhere else in it
            let most = [4, 8, 64][random.below(3)];
            let size = 1 + random.below(most.min(len - 1));
            let (from, to) = (random.below(len - size), random.below(len - size));
            bytes.copy_within(from..from + size, to);
        }
        10 => {
            // two records of one table change places
            let size = [
                size_of::<TensorRecord>(),
                size_of::<OpRecord>(),
                size_of::<Span>(),
            ];
            let offset = |i: usize| {
                let field = std::mem::offset_of!(Header, tensors) + 4 * i;
                u32::from_le_bytes([0, 1, 2, 3].map(|k| bytes[field + k])) as usize
            };
            let table = random.below(3);
            let (start, size) = (offset(table), size[table]);
            let (a, b) = (
                start.wrapping_add(random.below(6) * size),
                start.wrapping_add(random.below(6) * size),
            );
            if a.max(b).saturating_add(size) <= len {
                for i in 0..size {
                    bytes.swap(a + i, b + i);
                }
            }
        }
        _ => {
            // cut off; half of the time the header admits it
            let left = match random.below(3) {
                0 => random.below(len),
                _ => len - random.below(16.min(len)),
            };
            if random.below(2) == 0 && left >= 12 {
                bytes[8..12].copy_from_slice(&(left as u32).to_le_bytes());
            }
            return left.max(8);
        }
    }
    len
}

/// Checks (and runs) `count` mutated images.
fn attack(images: &[Vec<u8>], seed: u64, count: usize) -> Tally {
    let mut random = Noise(0x9e37_79b9_7f4a_7c15 ^ seed);
    let mut arena = Arena::new();
    let mut tally = Tally::default();
    let longest = images.iter().map(Vec::len).max().unwrap_or(0);
    let mut place = Image::from_bytes(&vec![0; longest]);
    for k in 0..count {
        // the two complete models are first; they take as long as many small ones
        let i = match random.below(16) {
            0 => random.below(2),
            _ => 2 + random.below(images.len() - 2),
        };
        let image = &images[i];
        let bytes = &mut place.bytes_mut()[..image.len()];
        bytes.copy_from_slice(image);
        let state = random.0;
        let mut len = image.len();
        for _ in 0..1 + random.below(3) {
            if len > 16 {
                len = mutate(bytes, len, &mut random);
            }
        }
        // a few keep the wrong checksum
        if random.below(64) != 0 {
            reseal(&mut bytes[..len]);
        }
        let noise = random.0;
        let bytes = &bytes[..len];
        match catch_unwind(AssertUnwindSafe(|| exercise(bytes, &mut arena, noise))) {
            Ok(verdict) => tally.add(verdict),
            Err(_) => {
                tally
                    .panics
                    .push(format!("model {i}, image {k}, generator {state:#x}"));
                if tally.panics.len() >= 5 {
                    break;
                }
            }
        }
    }
    tally
}

#[test]
fn a_million_mutated_images_never_panic() {
    let images = images();
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let images = &images;
        let threads: Vec<_> = (0..THREADS)
            .map(|t| scope.spawn(move || attack(images, t as u64 + 1, IMAGES / THREADS)))
            .collect();
        for thread in threads {
            tally.merge(thread.join().expect("panics are caught inside"));
        }
    });
    println!("{tally:#?}");
    assert!(tally.panics.is_empty(), "{:#?}", tally.panics);
    let rejected: usize = tally.rejected.values().sum();
    assert_eq!(rejected + tally.too_large + tally.ran, IMAGES);
    // enough of everything, so that this test cannot pass by doing nothing
    assert!(rejected > IMAGES / 4, "only {rejected} were rejected");
    assert!(tally.ran > IMAGES / 20, "only {} ran", tally.ran);
    assert!(tally.forward > tally.ran as u64 && tally.backward > 0);
    for kind in [
        "Truncated",
        "Magic",
        "Version",
        "Checksum",
        "Header",
        "Count",
        "Range",
        "Tensor",
        "UnknownOp",
        "TensorIndex",
        "Order",
        "NotComputed",
        "Op",
        "Plan",
        "Overlap",
    ] {
        let n = tally.rejected.get(kind).copied().unwrap_or(0);
        assert!(n > 20, "only {n} images were rejected with {kind}");
    }
}

#[test]
fn every_model_runs_before_it_is_mutated_and_together_they_have_every_operator() {
    let mut names = std::collections::BTreeSet::new();
    let mut arena = Arena::new();
    let mut cut = 0;
    for bytes in images() {
        let image = Image::from_bytes(&bytes);
        let verdict = exercise(image.bytes(), &mut arena, 1);
        assert!(
            matches!(
                verdict,
                Verdict::Ran {
                    forward: 2..,
                    backward: 1..
                }
            ),
            "{verdict:?}"
        );
        let model = image.model().expect("a model");
        let tables = model.tables();
        cut += usize::from(tables.pass_count(Mode::Attack) > 1);
        for k in 0..tables.op_count() {
            let node = tables.node(k);
            let dtype = tables.dtype(node.inputs().next().expect("an input"));
            names.insert(format!("{} {dtype:?}", node.op.name()));
        }
    }
    assert!(cut >= 3, "backward is cut in {cut} seeds");
    let both = [
        "conv2d",
        "depthwise_conv2d",
        "dense",
        "add",
        "mul",
        "avg_pool2d",
        "max_pool2d",
        "pad",
        "reshape",
        "concat",
        "softmax",
        "relu",
        "relu6",
        "leaky_relu",
        "tanh",
        "sigmoid",
        "requantize",
    ];
    let mut all: Vec<String> = ["batch_norm F32", "quantize F32", "dequantize I8"]
        .map(String::from)
        .into();
    for name in both {
        all.extend([format!("{name} F32"), format!("{name} I8")]);
    }
    for name in all {
        assert!(names.contains(&name), "{name} is in no seed: {names:?}");
    }
}

/// Writes the models that the fuzzer starts from; see `fuzz/README.md`.
#[test]
#[ignore = "writes files; run by hand before fuzzing"]
fn seed_corpus() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/image");
    std::fs::create_dir_all(&folder).expect("a writable folder");
    for (i, image) in images().iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{i:02}")), image).expect("a writable folder");
    }
}

/// Only f32 models can be trained; a header that claims more is refused before anything believes it.
#[test]
fn an_int8_model_cannot_claim_to_be_trainable() {
    let mut bytes = images().swap_remove(1);
    // room for the larger plan that such a model would have
    bytes.resize(bytes.len() + 16 * 1024, 0);
    let total = bytes.len() as u32;
    bytes[8..12].copy_from_slice(&total.to_le_bytes());
    let train = std::mem::offset_of!(Header, train_bytes);
    reseal(&mut bytes);
    assert!(Image::from_bytes(&bytes).model().is_ok());
    bytes[train..train + 4].copy_from_slice(&4_u32.to_le_bytes());
    reseal(&mut bytes);
    let error = Image::from_bytes(&bytes)
        .model()
        .expect_err("int8 activations");
    assert!(matches!(error, ModelError::Tensor { .. }), "{error:?}");
}

/// The part of the buffer for parameters follows from the tensors; a header that says otherwise would misalign the rest.
#[test]
fn parameter_bytes_must_be_those_of_the_parameters() {
    let field = std::mem::offset_of!(Header, parameter_bytes);
    for mut bytes in images() {
        let right = u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[field + i]));
        for wrong in [right + 1, right + 8, i32::MAX as u32] {
            bytes[field..field + 4].copy_from_slice(&wrong.to_le_bytes());
            reseal(&mut bytes);
            assert_eq!(
                Image::from_bytes(&bytes).model().map(|_| ()),
                Err(ModelError::Header)
            );
        }
    }
}

// --- lengths ---------------------------------------------------------------------------------------------

/// Lengths around the right one.
fn wrong_lengths(right: usize) -> impl Iterator<Item = usize> {
    [
        0,
        1,
        right / 2,
        right - 1,
        right + 1,
        2 * right,
        right + 1000,
    ]
    .into_iter()
    .filter(move |&n| n != right)
}

#[test]
fn a_buffer_of_the_wrong_size_or_place_is_an_error() {
    let mut refused = 0;
    for bytes in images() {
        let image = Image::from_bytes(&bytes);
        let model = image.model().expect("a model");
        for mode in [Mode::Infer, Mode::Attack, Mode::Train] {
            let needed = model.required_buffer(mode);
            let mut words = vec![0_u128; needed.div_ceil(16) + 2];
            let buffer = words.as_mut_bytes();
            if needed == 0 {
                let error = Session::new(&model, mode, buffer).expect_err("no plan for this mode");
                assert_eq!(error, SessionError::ModeUnsupported { mode });
                continue;
            }
            for got in 0..needed {
                let error = Session::new(&model, mode, &mut buffer[..got]).expect_err("too small");
                assert_eq!(error, SessionError::BufferTooSmall { needed, got });
                refused += 1;
            }
            for shift in 1..16 {
                let error = Session::new(&model, mode, &mut buffer[shift..shift + needed])
                    .expect_err("misaligned");
                assert_eq!(error, SessionError::BufferMisaligned);
            }
            assert!(Session::new(&model, mode, &mut buffer[..needed]).is_ok());
            assert!(Session::new(&model, mode, buffer).is_ok());
            for batch in [0, usize::MAX, usize::MAX / needed, i32::MAX as usize] {
                let options = Options {
                    batch,
                    ..Options::new(mode)
                };
                let error =
                    Session::with_options(&model, options, buffer).expect_err("impossible batch");
                assert_eq!(error, SessionError::Batch { batch });
            }
        }
    }
    assert!(refused > 1000);
}

fn with_session(bytes: &[u8], mode: Mode, f: impl FnOnce(&Model<'_>, &mut Session<'_>)) -> bool {
    let image = Image::from_bytes(bytes);
    let model = image.model().expect("a model");
    let needed = model.required_buffer(mode);
    let mut words = vec![0_u128; needed.div_ceil(16)];
    match Session::new(&model, mode, words.as_mut_bytes()) {
        Ok(mut session) => {
            f(&model, &mut session);
            true
        }
        Err(_) => false,
    }
}

/// Whether an input of this length is refused, in both types.
fn is_length_error<T>(result: Result<T, SessionError>, needed: usize, got: usize) -> bool {
    matches!(result, Err(SessionError::Length { needed: n, got: g }) if n == needed && g == got)
}

#[test]
fn a_slice_of_the_wrong_length_is_an_error_at_every_entry() {
    let objective = Objective {
        loss: Loss::CrossEntropy,
        goal: Goal::Avoid(0),
    };
    let mut checked = 0;
    for bytes in images() {
        for mode in [Mode::Infer, Mode::Attack, Mode::Train] {
            let ran = with_session(&bytes, mode, |model, s| {
                let n = model.input_shape().len();
                let f32_in =
                    s.forward_f32(&vec![0.0; n]).is_ok() || s.forward_i8(&vec![0; n]).is_err();
                let size = if f32_in { 4 } else { 1 };
                for got in wrong_lengths(n) {
                    if f32_in {
                        let x = vec![0.0; got];
                        assert!(is_length_error(s.forward_f32(&x), n, got));
                        assert!(is_length_error(s.classify(&x), n, got));
                        assert!(is_length_error(
                            s.scores(&x, &mut vec![0.0; model.classes()]),
                            n,
                            got
                        ));
                        assert!(is_length_error(s.gradient(&x, objective), n, got));
                    } else {
                        let x = vec![0_i8; got];
                        assert!(is_length_error(s.forward_i8(&x), n, got));
                        assert!(is_length_error(s.classify(&x), n, got));
                        assert!(is_length_error(
                            s.scores(&x, &mut vec![0.0; model.classes()]),
                            n,
                            got
                        ));
                        assert!(is_length_error(s.gradient(&x, objective), n, got));
                    }
                }
                for got in wrong_lengths(n * size) {
                    let x = vec![0; got];
                    assert!(is_length_error(s.forward_bytes(&x), n, got / size));
                    assert!(is_length_error(s.trace(&x, &mut |_, _| {}), n, got / size));
                    checked += 1;
                }
                // the other type
                let other = match f32_in {
                    true => s.forward_i8(&vec![0; n]).map(|_| ()),
                    false => s.forward_f32(&vec![0.0; n]).map(|_| ()),
                };
                assert!(matches!(other, Err(SessionError::Type { .. })));

                let x = vec![0; n * size];
                s.forward_bytes(&x).expect("the right length");
                for got in wrong_lengths(model.classes()) {
                    assert!(is_length_error(
                        s.logits(&mut vec![0.0; got]),
                        model.classes(),
                        got
                    ));
                }
                if mode == Mode::Infer {
                    let wrong = Err(SessionError::WrongMode { mode });
                    assert_eq!(s.backward(&vec![0.0; model.classes()]).map(|_| ()), wrong);
                    assert_eq!(s.backward_from_output(&[]).map(|_| ()), wrong);
                    assert_eq!(s.differentiate(objective).map(|_| ()), wrong);
                } else {
                    let outputs = model.output_shape().len();
                    for got in wrong_lengths(model.classes()) {
                        s.forward_bytes(&x).expect("the right length");
                        assert!(is_length_error(
                            s.backward(&vec![0.0; got]),
                            model.classes(),
                            got
                        ));
                    }
                    for got in wrong_lengths(outputs) {
                        s.forward_bytes(&x).expect("the right length");
                        assert!(is_length_error(
                            s.backward_from_output(&vec![0.0; got]),
                            outputs,
                            got
                        ));
                    }
                    s.forward_bytes(&x).expect("the right length");
                    s.backward(&vec![0.0; model.classes()])
                        .expect("the right length");
                    // one forward serves one backward
                    assert_eq!(
                        s.backward(&vec![0.0; model.classes()]).map(|_| ()),
                        Err(SessionError::NotRun)
                    );
                }
                let wrong = Err(SessionError::WrongMode { mode });
                let train = mode == Mode::Train;
                assert_eq!(
                    s.parameters().map(|_| ()),
                    if train { Ok(()) } else { wrong }
                );
                assert_eq!(
                    s.parameter_gradients().map(|_| ()),
                    if train { Ok(()) } else { wrong }
                );
                assert_eq!(
                    s.zero_parameter_gradients(),
                    if train { Ok(()) } else { wrong }
                );
            });
            let possible = mode != Mode::Train
                || Image::from_bytes(&bytes)
                    .model()
                    .expect("a model")
                    .supports(mode);
            assert_eq!(ran, possible);
            // nothing ran yet
            with_session(&bytes, mode, |model, s| {
                let mut logits = vec![0.0; model.classes()];
                assert_eq!(s.logits(&mut logits), Err(SessionError::NotRun));
                if mode != Mode::Infer {
                    assert_eq!(s.backward(&logits).map(|_| ()), Err(SessionError::NotRun));
                }
            });
        }
    }
    assert!(checked > 100);
}

#[test]
fn an_attack_with_slices_of_the_wrong_length_is_an_error() {
    let ball = Ball {
        norm: Norm::L2,
        epsilon: 0.1,
        low: -1.0,
        high: 1.0,
    };
    let mut checked = 0;
    with_session(&images()[0], Mode::Attack, |model, s| {
        let n = model.input_shape().len();
        let shape = [1, n as u16, 1];
        for spec in [
            Spec::fgsm(ball),
            Spec::pgd(ball, 3),
            Spec::square(ball, 5, shape),
            Spec::nes(ball, 2),
        ] {
            let scratch_len = spec.scratch_len(n, model.classes());
            let mut go = |x: usize, out: usize, scratch: usize| {
                let task = Task {
                    x: &vec![0.0_f32; x],
                    class: 0,
                    seed: 1,
                    sample: 0,
                    scratch: &mut vec![0.0; scratch],
                };
                spec.run(s, task, &mut vec![0.0; out])
            };
            assert!(go(n, n, scratch_len).is_ok());
            for got in wrong_lengths(n) {
                assert!(matches!(
                    go(got, n, scratch_len),
                    Err(AttackError::Length { .. })
                ));
                assert!(matches!(
                    go(n, got, scratch_len),
                    Err(AttackError::Length { .. })
                ));
                checked += 1;
            }
            if scratch_len > 0 {
                for got in [0, 1, scratch_len - 1] {
                    assert!(matches!(go(n, n, got), Err(AttackError::Length { .. })));
                }
            }
        }
    });
    assert!(checked > 5);
}
