//! Any bytes as a `.tflite` file: refused in one line, or imported for each runtime's arithmetic and made an image.
#![no_main]

use foolproof::ops::Numerics;
use foolproof_host::graph::to_image;
use foolproof_host::import::tflite;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let sum = data.iter().fold(0_usize, |sum, &b| sum + usize::from(b));
    let numerics = Numerics::ALL[sum % Numerics::ALL.len()];
    let line = match tflite::import_for(data, numerics) {
        Ok(graph) => match to_image(&graph) {
            Ok(image) => {
                assert!(image.model().is_ok(), "what is imported is a valid image");
                return;
            }
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    assert!(!line.is_empty() && !line.contains(['\n', '\r', '\0']));
});
