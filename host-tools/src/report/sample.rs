//! A report's data for tests: made up, and of every kind.

use super::{Confusion, Example, Picture, Progress, ReportData};
use crate::data::{self, Purpose, Samples};
use crate::document::{summary::wilson, *};

/// Digits with a checkerboard on them, and figures of the size that a demo gives.
pub fn data() -> ReportData {
    let n = 364;
    let accuracy = |hits: usize| Accuracy {
        clean: hits as f64 / n as f64,
        n,
        interval: wilson(hits, n),
    };
    let attack = |name: &str, numerics: &str, eps: f64, hits: usize| Attack {
        name: name.into(),
        threat: match name {
            "signhunter" => "black-box",
            "transfer-pgd" => "gray-box",
            _ => "white-box",
        }
        .into(),
        numerics: numerics.into(),
        norm: "linf".into(),
        eps: Some(eps),
        targeted: false,
        robust_accuracy: hits as f64 / n as f64,
        interval: wilson(hits, n),
        success_rate: Some(1.0 - hits as f64 / n as f64),
        mean_norm: (hits < n).then_some(MeanNorm {
            l2: 6.2 * eps,
            linf: eps,
        }),
        queries_mean: if name == "fgsm" { 2.0 } else { 21.0 },
        gradients_mean: if name == "fgsm" { 1.0 } else { 20.0 },
        queries_to_success: None,
        fooled: (0..n).map(|i| i >= hits).collect(),
    };
    let mut attacks = Vec::new();
    for numerics in ["tflm", "f32"] {
        for (name, hits) in [("fgsm", [340, 280, 170, 90]), ("pgd", [336, 250, 60, 4])] {
            for (i, eps) in [0.0625, 0.125, 0.1875, 0.25].into_iter().enumerate() {
                attacks.push(attack(
                    name,
                    numerics,
                    eps,
                    hits[i] + usize::from(numerics == "f32") * 3,
                ));
            }
        }
    }
    for (name, hits) in [
        ("signhunter", [345, 290, 200, 120]),
        ("transfer-pgd", [338, 260, 70, 9]),
    ] {
        for (i, eps) in [0.0625, 0.125, 0.1875, 0.25].into_iter().enumerate() {
            attacks.push(attack(name, "tflm", eps, hits[i]));
        }
    }
    let mut document = Document::new("demo");
    document.model = Some(Model {
        path: "digits-int8".into(),
        sha256: "0f".repeat(32),
        numerics: "tflm".into(),
    });
    document.data = Some(Data {
        path: "digits:test".into(),
        n,
    });
    document.seed = Some(1);
    document.accuracy = Some(accuracy(358));
    document.accuracy_float = Some(accuracy(359));
    document.attacks = attacks;
    for (board, core) in [("mps2-an386", "Cortex-M4F"), ("microbit", "Cortex-M0")] {
        document.device.push(Device {
            board: board.into(),
            core: Some(core.into()),
            ran: Some("emulated".into()),
            samples: n,
            logits_compared: 3 * n,
            adversarial_compared: 2 * n,
            accuracy: Some(358.0 / n as f64),
            instructions_per_inference: Some(412_345),
            instructions_per_fgsm: Some(1_234_567),
            instructions_per_pgd: Some(23_456_789),
            buffer_bytes: Some(6_144),
            infer_buffer_bytes: Some(2_048),
            attack_buffer_bytes: Some(6_144),
            stack_bytes: Some(1_432),
            flash_bytes: Some(48_112),
            static_ram_bytes: Some(9_216),
            ..Device::default()
        });
    }
    let estimate = |mean: f64| Estimate {
        mean,
        n,
        interval: [mean - 0.01, (mean + 0.01).min(1.0)],
    };
    let share = |part: usize| Share {
        share: part as f64 / n as f64,
        n,
        interval: wilson(part, n),
    };
    document.float_model = Some(Model {
        path: "digits-float".into(),
        sha256: "1e".repeat(32),
        numerics: "f32".into(),
    });
    document.gradients = ["cross-entropy", "margin"]
        .map(|objective| GradientQuality {
            objective: objective.into(),
            n,
            zero: estimate(0.031),
            vanished: share(2),
            float: Some(FloatAgreement {
                cosine: Some(estimate(0.947)),
                sign_agreement: Some(estimate(0.893)),
                ascent: Some(estimate(0.961)),
                zero: estimate(0.02),
                vanished: share(0),
            }),
        })
        .into();
    document.transfer = vec![
        Transfer {
            attack: "pgd".into(),
            norm: "linf".into(),
            eps: 0.0625,
            carried_over: None,
        },
        Transfer {
            attack: "pgd".into(),
            norm: "linf".into(),
            eps: 0.25,
            carried_over: Some(share(351)),
        },
    ];
    let check = |name: &str, passed, explanation: &str| Check {
        name: name.into(),
        passed,
        figures: [("eps".to_string(), 0.25)].into(),
        explanation: explanation.into(),
    };
    document.checks = vec![
        check(
            "the white box is no weaker than a gradient-free attack",
            Some(true),
            "at eps 0.25 1.1 % withstand the white box and 33.0 % an attacker who sees no gradients",
        ),
        check(
            "many steps are no weaker than one",
            Some(false),
            "at eps 0.25 10 % withstand one step and 30 % many; the gradients are masked",
        ),
        check(
            "an unbounded attack fools everything",
            None,
            "no unbounded white-box attack was run",
        ),
    ];
    document.train = Some(Train {
        steps: 1320,
        seconds: 8.25,
        samples_per_second: 5211.0,
        metrics: [
            ("loss".to_string(), 0.0123),
            ("test_accuracy".to_string(), 359.0 / n as f64),
        ]
        .into(),
    });
    document.outputs = vec!["out/report.html".into()];
    document.warnings =
        vec!["microbit evaluated 50 of 364 samples: its memory is small & its core <slow>".into()];
    let digits = data::load("digits", Purpose::Judge).unwrap();
    let Samples::F32(values) = digits.samples() else {
        unreachable!("digits are float32")
    };
    let gallery = (0..6)
        .map(|i| {
            let label = digits.labels().unwrap()[i];
            let x = &values[i * 64..(i + 1) * 64];
            let change: Vec<f32> = (0..64)
                .map(|at| {
                    if (at / 8 + at + i) % 3 == 0 {
                        0.25
                    } else {
                        -0.25
                    }
                })
                .collect();
            let after: Vec<f32> = x
                .iter()
                .zip(&change)
                .map(|(x, d)| (x + d).clamp(0.0, 1.0))
                .collect();
            let moved: Vec<f32> = after.iter().zip(x).map(|(a, x)| a - x).collect();
            let shape = digits.shape();
            Example {
                sample: i,
                attack: "PGD at eps 0.25".into(),
                label: label.to_string(),
                original: Picture::of_sample(x, shape, (0.0, 1.0)).unwrap(),
                perturbation: Picture::of_change(&moved, shape, 0.25).unwrap(),
                amplification: 4.0,
                adversarial: Picture::of_sample(&after, shape, (0.0, 1.0)).unwrap(),
                before: (label.to_string(), 0.993),
                after: (((label + 3) % 10).to_string(), 0.871),
            }
        })
        .collect();
    let training = (1..=30)
        .map(|epoch| {
            let t = epoch as f64;
            Progress {
                epoch,
                loss: 2.3 * (-t / 5.0).exp() + 0.01,
                accuracy: 1.0 - 0.9 * (-t / 4.0).exp(),
            }
        })
        .collect();
    let labels = digits.labels().unwrap();
    let shifted: Vec<usize> = labels
        .iter()
        .enumerate()
        .map(|(i, y)| if i % 5 == 0 { *y } else { (y + 3 + i % 2) % 10 })
        .collect();
    ReportData {
        document,
        command_line: "foolproof demo --seed 1".into(),
        versions: vec![
            ("foolproof".into(), "0.1.0".into()),
            ("QEMU".into(), "7.2".into()),
        ],
        gallery,
        training,
        confusion: Some(Confusion {
            classes: (0..10).map(|c| c.to_string()).collect(),
            clean: Confusion::count(10, labels, labels),
            adversarial: Confusion::count(10, labels, &shifted),
            attack: "PGD at eps 0.25".into(),
        }),
    }
}
