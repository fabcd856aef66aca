//! How long one int8 inference takes, one thread, batch 1, and whether the fast kernels give the bits of the scalar ones:
//! `cargo run --release --example latency -- MODEL.tflite...`
//!
//! One line per model: best and median of many single runs in microseconds, then those of the scalar kernels, then how many of 100
//! random inputs got other bits. `tests/oracle/latency_litert.py` puts LiteRT's figures beside these.

use foolproof::kernels::Kernels;
use foolproof::memory::Mode;
use foolproof::model::Model;
use foolproof::session::{Options, Session};
use foolproof_host::graph::to_image;
use foolproof_host::import::tflite;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("model best_us median_us scalar_best_us scalar_median_us different_of_100");
    for path in std::env::args().skip(1) {
        let image = to_image(&tflite::import(&std::fs::read(&path)?)?)?;
        let model = Model::from_bytes(image.bytes())?;
        let (fast, answers) = measure(&model, Kernels::detect_exact())?;
        let (scalar, expected) = measure(&model, Kernels::Scalar)?;
        let different = answers
            .iter()
            .zip(&expected)
            .filter(|(a, b)| a != b)
            .count();
        let name = std::path::Path::new(&path).file_stem().unwrap_or_default();
        println!(
            "{} {:.2} {:.2} {:.2} {:.2} {different}",
            name.display(),
            fast.0,
            fast.1,
            scalar.0,
            scalar.1
        );
    }
    Ok(())
}

/// Best and median time of a run in microseconds, and what the model says about 100 inputs.
#[allow(clippy::type_complexity)] // one pair of pairs
fn measure(
    model: &Model,
    kernels: Kernels,
) -> Result<((f64, f64), Vec<Vec<i8>>), Box<dyn std::error::Error>> {
    let options = Options {
        kernels,
        ..Options::new(Mode::Infer)
    };
    let mut words = vec![0u128; model.required_buffer(Mode::Infer).div_ceil(16)];
    let buffer = zerocopy::IntoBytes::as_mut_bytes(&mut words[..]);
    let mut session = Session::with_options(model, options, buffer)?;
    let mut state = 1u32;
    let mut random = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 24) as i8
    };
    let n = model.input_shape().len();
    let mut answers = Vec::new();
    let mut x = Vec::new();
    for _ in 0..100 {
        x = (0..n).map(|_| random()).collect();
        session.reset_state();
        answers.push(session.forward_i8(&x)?.to_vec());
    }
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < Duration::from_millis(500) {
        let run = Instant::now();
        session.forward_i8(&x)?;
        times.push(run.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(((times[0], times[times.len() / 2]), answers))
}
