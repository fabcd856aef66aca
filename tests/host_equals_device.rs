//! The promise: what the host says about a model is what the chip does, to the last bit. And the demo's classifier is worth
//! attacking. Runs the whole demo on every board; needs the emulators (`cargo xtask setup`).

use foolproof_host::demo::{self, HEADLINE_EPSILON, Observer, Options};
use foolproof_host::device;
use foolproof_host::document::Document;
use foolproof_host::train::classifier::Epoch;

/// The test digits, every one.
const SAMPLES: usize = 364;

struct Quiet;

impl Observer for Quiet {
    fn stage(&mut self, name: &str, _: Option<u64>) {
        eprintln!("{name}");
    }
    fn advance(&self, _: u64) {}
    fn epoch(&mut self, _: &Epoch) {}
}

fn robust_accuracy(document: &Document, attack: &str, numerics: &str) -> f64 {
    let found = document.attacks.iter().find(|a| {
        a.name == attack
            && a.numerics == numerics
            && a.eps
                .is_some_and(|eps| (eps - f64::from(HEADLINE_EPSILON)).abs() < 1e-6)
    });
    found.expect("the demo runs this attack").robust_accuracy
}

#[test]
fn every_board_agrees_with_the_host_on_every_test_digit() {
    let options = Options {
        seed: 0,
        boards: device::boards().iter().collect(),
    };
    assert_eq!(options.boards.len(), 7);
    let demo = demo::run(&options, &mut Quiet).unwrap_or_else(|e| panic!("{e:#}"));
    assert_eq!(demo.chips_missing, [""; 0]);
    let document = &demo.report.document;

    let (float, int8) = (document.accuracy_float.unwrap(), document.accuracy.unwrap());
    assert_eq!((float.n, int8.n), (SAMPLES, SAMPLES));
    assert!(float.clean >= 0.98, "float accuracy {}", float.clean);
    assert!(
        (float.clean - int8.clean).abs() <= 0.005,
        "float {} int8 {}",
        float.clean,
        int8.clean
    );
    for numerics in ["tflm", "f32"] {
        let fgsm = robust_accuracy(document, "fgsm", numerics);
        let pgd = robust_accuracy(document, "pgd", numerics);
        assert!(fgsm < 0.3, "{numerics}: {fgsm} withstand FGSM");
        assert!(
            pgd <= fgsm,
            "{numerics}: PGD must be at least as strong: {pgd} {fgsm}"
        );
    }

    assert_eq!(document.device.len(), options.boards.len());
    for chip in &document.device {
        eprintln!("{chip:?}");
        assert_eq!(chip.samples, SAMPLES, "{}", chip.board);
        // every clean sample, and both crafted ones, FGSM's and PGD's
        assert_eq!(chip.logits_compared, 3 * SAMPLES, "{}", chip.board);
        assert_eq!(chip.adversarial_compared, 2 * SAMPLES, "{}", chip.board);
        assert_eq!(chip.logit_mismatches, 0, "{}", chip.board);
        assert_eq!(chip.adversarial_mismatches, 0, "{}", chip.board);
        assert_eq!(chip.accuracy, Some(int8.clean), "{}", chip.board);
        assert!(
            chip.instructions_per_inference.is_some_and(|i| i > 10_000),
            "{}",
            chip.board
        );
    }
}
