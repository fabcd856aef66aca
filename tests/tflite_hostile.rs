//! Damaged and hostile `.tflite` files: an error in one line, in bounded time and memory, never a panic.

mod support;

use foolproof_host::data::Samples;
use foolproof_host::data::digits::{self, Part};
use foolproof_host::graph::to_image;
use foolproof_host::import::tflite;
use foolproof_host::quantize::{Options, quantize};
use foolproof_host::{export, networks};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::Random;
use support::allocation::{Counting, peak_of};

#[global_allocator]
static COUNTING: Counting = Counting;

/// What a file may cost: bytes held at once, beside a few times its own size, and time on a busy machine.
const MEMORY: usize = 16 << 20;
const TIME: Duration = Duration::from_secs(20);

fn shared(part: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/data")
        .join(part);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is not there", path.display());
    None
}

/// What a file cost.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
struct Cost {
    time: Duration,
    /// Bytes held at once, beside the file.
    memory: usize,
}

impl Cost {
    fn and(self, other: Cost) -> Cost {
        Cost {
            time: self.time.max(other.time),
            memory: self.memory.max(other.memory),
        }
    }
}

/// Imports and writes an image, in bounded time and memory; the error, which is one line, or whether it worked.
fn load(bytes: &[u8]) -> (Result<(), String>, Cost) {
    let started = Instant::now();
    let (result, memory) = peak_of(|| {
        let graph = tflite::import(bytes).map_err(|error| error.to_string())?;
        to_image(&graph)
            .map(drop)
            .map_err(|error| error.to_string())
    });
    let time = started.elapsed();
    if let Err(error) = &result {
        assert!(
            !error.is_empty() && !error.contains(['\n', '\r', '\0']),
            "{error:?}"
        );
    }
    let most = MEMORY + 16 * bytes.len();
    assert!(
        memory <= most,
        "{memory} bytes held for {} of file: {result:?}",
        bytes.len()
    );
    assert!(time <= TIME, "{time:?}: {result:?}");
    (result, Cost { time, memory })
}

/// The files in a folder, by name.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "tflite"))
        .collect();
    paths.sort();
    let named = |path: PathBuf| {
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        (name, std::fs::read(&path).expect("a file"))
    };
    paths.into_iter().map(named).collect()
}

/// Well-formed files that make no sense (`oracle/make_hostile.py`): cycles, shapes that overflow, indices of nothing.
#[test]
fn nonsense_is_refused() {
    let all = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hostile"));
    for (name, bytes) in &all {
        let (result, _) = load(bytes);
        eprintln!("{name}: {result:?}");
        assert_eq!(result.is_ok(), name == "valid", "{name}: {result:?}");
    }
    assert!(all.len() >= 27, "{} files", all.len());
}

#[test]
fn the_malformed_corpus_is_refused() {
    let Some(folder) = shared("malformed") else {
        return;
    };
    let all = files(&folder);
    for (name, bytes) in &all {
        let (result, _) = load(bytes);
        eprintln!("{name}: {result:?}");
        if !name.starts_with("valid") {
            assert!(result.is_err(), "{name} is not a model");
        }
    }
    assert!(all.len() >= 8, "{} files", all.len());
}

/// A damaged copy: bits flipped, words replaced by awkward ones, a part cut off or repeated.
fn mutated(model: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = model.to_vec();
    for _ in 0..=random.below(4) {
        let len = bytes.len() as u64;
        match random.below(8) {
            0 => bytes.truncate(random.below(len) as usize + 1),
            1 | 2 => {
                let at = random.below(len) as usize;
                bytes[at] ^= 1 << random.below(8);
            }
            3 => {
                let (from, to) = (random.below(len) as usize, random.below(len) as usize);
                let count = (random.below(64) as usize).min(bytes.len() - from.max(to));
                bytes.copy_within(from..from + count, to);
            }
            _ => {
                let words = [
                    0,
                    1,
                    2,
                    3,
                    127,
                    128,
                    255,
                    0x7fff,
                    0x8000,
                    0xffff,
                    0x0001_0000,
                    0x7fff_ffff,
                    0x8000_0000,
                    0xffff_ffff,
                    len as u32,
                    (len / 2) as u32,
                ];
                let word = words[random.below(words.len() as u64) as usize];
                let at = random.below(len / 4 + 1) as usize * 4;
                let at = small_word(&bytes, at, random);
                if let Some(place) = bytes.get_mut(at..at + 4) {
                    place.copy_from_slice(&u32::to_le_bytes(word));
                }
            }
        }
    }
    bytes
}

/// The place of a word that could be an offset, a count or an index, `at` or another one: most of a model's bytes are weights, in which
/// nothing goes wrong.
fn small_word(bytes: &[u8], at: usize, random: &mut Random) -> usize {
    let words = bytes.len() as u64 / 4 + 1;
    let tries = std::iter::once(at).chain((0..40).map(|_| random.below(words) as usize * 4));
    let fits = |&at: &usize| {
        let word = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
        word.is_some_and(|b| u32::from_le_bytes(b) < bytes.len() as u32)
    };
    tries.take(41).find(fits).unwrap_or(at)
}

fn attack(name: &str, model: &[u8], count: u64) {
    let (whole, _) = load(model);
    let workers = 4;
    let (refused, cost) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|worker| {
                scope.spawn(move || {
                    let (mut refused, mut cost) = (0, Cost::default());
                    for i in 0..count / workers {
                        let mut random = Random(worker << 32 | i);
                        let (result, one) = load(&mutated(model, &mut random));
                        refused += u64::from(result.is_err());
                        cost = cost.and(one);
                    }
                    (refused, cost)
                })
            })
            .collect();
        let results = threads.into_iter().map(|t| t.join().expect("no panic"));
        results.fold((0, Cost::default()), |(refused, cost), (r, c)| {
            (refused + r, cost.and(c))
        })
    });
    eprintln!(
        "{name}: {count} mutations, {refused} refused, at most {:?} and {} KiB",
        cost.time,
        cost.memory >> 10
    );
    let some_of_both = refused > count / 20 && (refused < count || whole.is_err());
    assert!(some_of_both, "{name}: {refused} of {count}");
}

#[test]
fn mutations_of_a_model_of_ours_do_no_harm() {
    let data = digits::load(Part::Train)
        .and_then(|d| d.take(50))
        .expect("the digits");
    let Samples::F32(values) = data.samples() else {
        panic!("the digits are f32")
    };
    let graph = networks::digits(1).expect("a network");
    let graph = quantize(&graph, values, &Options::default()).expect("an int8 model");
    let model = export::tflite::export(&graph).expect("a file");
    attack("our own", &model, 10_000);
}

#[test]
fn mutations_of_third_party_models_do_no_harm() {
    let Some(models) = shared("models") else {
        return;
    };
    let mut seen = 0;
    for (name, model) in files(&models) {
        // small models are written fast, and most of their bytes are structure
        let count = if model.len() < 20_000 { 4000 } else { 240 };
        attack(&name, &model, count);
        seen += 1;
    }
    assert!(seen >= 20, "{seen} models");
}
