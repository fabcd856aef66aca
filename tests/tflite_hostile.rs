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

/// Imports and writes an image; the error, which is one line, or whether it worked.
fn load(bytes: &[u8]) -> Result<(), String> {
    let result = tflite::import(bytes).map_err(|error| error.to_string());
    let result = result.and_then(|graph| to_image(&graph).map(|_| ()).map_err(|e| e.to_string()));
    if let Err(error) = &result {
        assert!(
            !error.is_empty() && !error.contains(['\n', '\r', '\0']),
            "{error:?}"
        );
    }
    result
}

#[test]
fn the_malformed_corpus_is_refused() {
    let Some(folder) = shared("malformed") else {
        return;
    };
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let bytes = std::fs::read(&path).expect("a file");
        let started = Instant::now();
        let result = load(&bytes);
        eprintln!("{name}: {result:?}");
        assert!(started.elapsed() < Duration::from_secs(1), "{name}");
        if !name.starts_with("valid") {
            assert!(result.is_err(), "{name} is not a model");
        }
        seen += 1;
    }
    assert!(seen >= 8, "{seen} files");
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
                if let Some(place) = bytes.get_mut(at..at + 4) {
                    place.copy_from_slice(&u32::to_le_bytes(word));
                }
            }
        }
    }
    bytes
}

fn attack(name: &str, model: &[u8], count: u64) {
    assert_eq!(load(model), Ok(()), "{name} itself is well formed");
    let workers = 4;
    let slowest = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|worker| {
                scope.spawn(move || {
                    let mut refused = 0;
                    let mut slowest = Duration::ZERO;
                    for i in 0..count / workers {
                        let mut random = Random(worker << 32 | i);
                        let bytes = mutated(model, &mut random);
                        let started = Instant::now();
                        refused += u64::from(load(&bytes).is_err());
                        slowest = slowest.max(started.elapsed());
                    }
                    (refused, slowest)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().expect("no panic"))
            .fold((0, Duration::ZERO), |(refused, slowest), (r, s)| {
                (refused + r, slowest.max(s))
            })
    });
    eprintln!(
        "{name}: {count} mutations, {} refused, the slowest took {:?}",
        slowest.0, slowest.1
    );
    assert!(
        slowest.0 > count / 10 && slowest.0 < count,
        "{name}: some of both kinds"
    );
    assert!(
        slowest.1 < Duration::from_secs(10),
        "{name}: {:?}",
        slowest.1
    );
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
    for name in ["hello_world_int8", "tinymaix_mnist_resnet_int8"] {
        let model = std::fs::read(models.join(format!("{name}.tflite"))).expect(name);
        attack(name, &model, 10_000);
    }
}
