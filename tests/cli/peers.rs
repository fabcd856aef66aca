//! Our attacks beside Foolbox, torchattacks, ART and AutoAttack, on the same networks and the same images.
//!
//! The networks, the images and what the peers measured lie outside of the repository, in `../shared/data`; without that folder
//! the tests say so and pass. `docs/attacks.md` is made by
//! `cargo test --release -p foolproof-host --test cli_peers -- --ignored`.

mod support;

use foolproof_host::data::npy::{self, Values};
use foolproof_host::data::npz;
use foolproof_host::document::{Attack, Document};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use support::Bench;

/// What is compared, and how much worse than the strongest peer we may be.
#[derive(Clone, Copy)]
enum Measure {
    /// Accuracy on the attacked inputs, samples that were wrong before included: how the peers' FGSM rows are counted.
    Accuracy,
    /// Robust accuracy: at most 0.5 points above.
    Robust,
    /// Mean l2 norm of the perturbations: at most 2 % above.
    Norm,
    /// Robust accuracy, and mean queries at most 5 % above.
    Queries(f64),
    /// Share of the other 9000 images whose label changes under one perturbation: at most 0.02 below.
    Fooling,
}

/// One row: our command line, and the strongest peer's figure for the same work.
struct Row {
    net: &'static str,
    /// Without model, data and seed.
    attack: String,
    n: usize,
    /// Seeds 0 to this; figures are means over them.
    seeds: u32,
    measure: Measure,
    peer: f64,
    who: &'static str,
    /// The backward passes that the peer spent on an image, where they bound ours.
    gradients: Option<f64>,
}

/// What came of a row.
struct Seen {
    ours: f64,
    least: f64,
    most: f64,
    queries: f64,
    gradients: f64,
}

const NETS: [&str; 4] = ["wong_standard", "cnn", "wong_pgd_at", "wong_fgsm_overfit"];

/// FGSM: Foolbox, torchattacks and ART agree in every one of these (percent, at 0.05, 0.1, 0.2, 0.3).
const FGSM: [[f64; 4]; 4] = [
    [87.0, 47.3, 4.9, 1.3],
    [87.5, 55.9, 5.8, 0.3],
    [96.5, 94.7, 89.3, 76.3],
    [90.5, 71.6, 85.7, 94.2],
];

/// PGD, 40 steps of 0.01, at 0.1 and 0.3: percent, the strongest of three tools, which one, and our starts.
const PGD: [[(f64, &str, u32); 2]; 4] = [
    [(21.5, "Foolbox", 2), (0.0, "Foolbox", 1)],
    [(16.8, "Foolbox", 2), (0.0, "Foolbox", 1)],
    [(94.4, "Foolbox", 1), (58.7, "Foolbox", 1)],
    [(67.9, "ART", 1), (21.3, "ART", 2)],
];

/// AutoAttack's members and their ensemble on 200 images, percent: APGD-CE, APGD-T, FAB-T, Square, all.
const AUTO_ATTACK: [(&str, f64, [f64; 5]); 3] = [
    ("wong_standard", 0.1, [22.0, 20.0, 20.0, 27.0, 20.0]),
    ("wong_pgd_at", 0.3, [8.0, 6.5, 16.5, 5.5, 4.0]),
    ("wong_fgsm_overfit", 0.3, [5.0, 2.0, 21.0, 1.5, 1.0]),
];

fn row(
    net: &'static str,
    attack: impl Into<String>,
    n: usize,
    peer: f64,
    who: &'static str,
) -> Row {
    Row {
        net,
        attack: attack.into(),
        n,
        seeds: 1,
        measure: Measure::Robust,
        peer,
        who,
        gradients: None,
    }
}

fn fgsm() -> Vec<Row> {
    let mut rows = Vec::new();
    for (net, figures) in NETS.into_iter().zip(FGSM) {
        for (eps, peer) in [0.05, 0.1, 0.2, 0.3].into_iter().zip(figures) {
            rows.push(Row {
                measure: Measure::Accuracy,
                ..row(net, format!("fgsm --eps {eps}"), 1000, peer, "all three")
            });
        }
    }
    rows
}

fn pgd() -> Vec<Row> {
    let mut rows = Vec::new();
    for (net, figures) in NETS.into_iter().zip(PGD) {
        for (eps, (peer, who, starts)) in [0.1, 0.3].into_iter().zip(figures) {
            let attack = format!("pgd --steps 40 --set step=0.01 --starts {starts} --eps {eps}");
            rows.push(Row {
                seeds: 5,
                gradients: Some(40.0),
                ..row(net, attack, 1000, peer, who)
            });
        }
    }
    rows
}

fn auto_attack() -> Vec<Row> {
    let mut rows = Vec::new();
    for (net, eps, [ce, t, fab, square, all]) in AUTO_ATTACK {
        let mut member = |attack: &str, seeds, peer| {
            rows.push(Row {
                seeds,
                ..row(
                    net,
                    format!("{attack} --eps {eps}"),
                    200,
                    peer,
                    "AutoAttack",
                )
            });
        };
        member("apgd-ce --starts 1", 5, ce);
        member("apgd-t", 1, t);
        member("fab-t", 1, fab);
        member("square", 1, square);
        member("standard", 1, all);
    }
    rows
}

fn nearest() -> Vec<Row> {
    let l2 = |attack, n, peer, who| Row {
        measure: Measure::Norm,
        ..row("wong_standard", attack, n, peer, who)
    };
    vec![
        l2("deepfool --norm l2", 200, 1.261, "Foolbox"),
        l2("cw --norm l2", 100, 1.167, "Foolbox"),
        l2(
            "hopskipjump --norm l2 --set queries=993",
            30,
            4.468,
            "Foolbox",
        ),
        l2(
            "hopskipjump --norm l2 --set queries=6585",
            30,
            2.361,
            "Foolbox",
        ),
        l2(
            "boundary --norm l2 --set queries=2250",
            30,
            5.267,
            "Foolbox",
        ),
    ]
}

fn queries() -> Vec<Row> {
    let square = |net, attack, peer, queries| Row {
        measure: Measure::Queries(queries),
        ..row(net, attack, 200, peer, "torchattacks")
    };
    vec![
        square(
            "wong_standard",
            "square --eps 0.1 --set queries=1000",
            34.0,
            502.0,
        ),
        square("wong_pgd_at", "square --eps 0.3", 4.0, 576.0),
    ]
}

fn universal() -> Vec<Row> {
    let rows = [(0.1, 0.029), (0.2, 0.186), (0.3, 0.538)];
    rows.map(|(eps, peer)| Row {
        measure: Measure::Fooling,
        ..row(
            "wong_standard",
            format!("universal --set fit=1000 --eps {eps}"),
            10_000,
            peer,
            "ART",
        )
    })
    .into()
}

/// The shared folder; says so where it is not there.
fn shared() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if path.exists() {
        return Some(path.canonicalize().expect("it exists"));
    }
    eprintln!(
        "SKIPPED: {} is not there, so nothing was compared",
        path.display()
    );
    None
}

fn integers(file: &[u8], name: &str) -> Vec<i64> {
    match npz::read_array(file, name).unwrap().unwrap().values {
        Values::I64(values) => values,
        Values::U8(values) => values.into_iter().map(i64::from).collect(),
        other => panic!("{name}: {other:?}"),
    }
}

/// Runs one row once; the document's last attack is what counts (of a suite: all of it).
fn attack(bench: &Bench, shared: &Path, row: &Row, seed: u32) -> Attack {
    let root = shared.display();
    let line = format!(
        "attack {root}/reference/{}.onnx --data {root}/datasets/mnist/t10k-images-idx3-ubyte.gz,{root}/datasets/mnist/t10k-labels-idx1-ubyte.gz \
         --input-range 0,1 --limit {} --attack {} --seed {seed} --out adv.npz --json",
        row.net, row.n, row.attack
    );
    let output = bench.run(&line);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "foolproof {line}: {stderr}");
    let document: Document = serde_json::from_slice(&output.stdout).expect("a document");
    document.attacks.into_iter().next_back().expect("an attack")
}

/// The labels of the unchanged images.
fn clean_labels(bench: &Bench, shared: &Path, net: &str) -> Vec<i64> {
    let root = shared.display();
    let line = format!(
        "infer {root}/reference/{net}.onnx --inputs {root}/datasets/mnist/t10k-images-idx3-ubyte.gz --input-range 0,1 --outputs z.npy"
    );
    assert!(bench.run(&line).status.success(), "{line}");
    let logits = npy::parse(&std::fs::read(bench.path("z.npy")).unwrap()).unwrap();
    let Values::F32(logits) = logits.values else {
        panic!("logits are f32");
    };
    logits
        .chunks_exact(10)
        .map(|z| foolproof::loss::argmax(z) as i64)
        .collect()
}

fn share(values: impl ExactSizeIterator<Item = bool>) -> f64 {
    let n = values.len() as f64;
    values.filter(|&yes| yes).count() as f64 / n
}

fn measure(bench: &Bench, shared: &Path, row: &Row) -> Seen {
    let mut figures = Vec::new();
    let (mut queries, mut gradients) = (0.0, 0.0);
    for seed in 0..row.seeds {
        let found = attack(bench, shared, row, seed);
        let adv = || std::fs::read(bench.path("adv.npz")).unwrap();
        figures.push(match row.measure {
            Measure::Robust | Measure::Queries(_) => 100.0 * found.robust_accuracy,
            Measure::Accuracy => {
                let adv = adv();
                let (said, right) = (integers(&adv, "predicted"), integers(&adv, "y"));
                100.0 * share(said.iter().zip(&right).map(|(a, b)| a == b))
            }
            Measure::Norm => {
                assert_eq!(
                    found.robust_accuracy, 0.0,
                    "{}: some were not won",
                    row.attack
                );
                found.mean_norm.expect("some were won").l2
            }
            Measure::Fooling => {
                let said = integers(&adv(), "predicted");
                let clean = clean_labels(bench, shared, row.net);
                assert_eq!(said.len(), clean.len());
                share(said.iter().zip(&clean).skip(1000).map(|(a, b)| a != b))
            }
        });
        queries += found.queries_mean / f64::from(row.seeds);
        gradients += found.gradients_mean / f64::from(row.seeds);
    }
    Seen {
        ours: figures.iter().sum::<f64>() / figures.len() as f64,
        least: figures.iter().copied().fold(f64::INFINITY, f64::min),
        most: figures.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        queries,
        gradients,
    }
}

impl Row {
    /// The worst figure that still holds, and what ours is compared with it.
    fn holds(&self, seen: &Seen) -> bool {
        // one part in a million for what decimal fractions lose
        let near = 1e-6;
        let figure = match self.measure {
            Measure::Accuracy | Measure::Robust => seen.ours <= self.peer + 0.5 + near,
            Measure::Norm => seen.ours <= 1.02 * self.peer + near,
            Measure::Queries(queries) => {
                seen.ours <= self.peer + 0.5 + near && seen.queries <= 1.05 * queries + near
            }
            Measure::Fooling => seen.ours >= self.peer - 0.02 - near,
        };
        figure
            && self
                .gradients
                .is_none_or(|most| seen.gradients <= most + near)
    }

    fn show(&self, seen: &Seen) -> String {
        let (ours, peer) = match self.measure {
            Measure::Accuracy => (
                format!("{:.1} % right", seen.ours),
                format!("{:.1} %", self.peer),
            ),
            Measure::Robust => (
                format!("{:.1} % robust", seen.ours),
                format!("{:.1} %", self.peer),
            ),
            Measure::Norm => (format!("l2 {:.3}", seen.ours), format!("{:.3}", self.peer)),
            Measure::Queries(queries) => (
                format!("{:.1} % robust, {:.0} queries", seen.ours, seen.queries),
                format!("{:.1} %, {queries:.0} queries", self.peer),
            ),
            Measure::Fooling => (
                format!("{:.3} fooled", seen.ours),
                format!("{:.3}", self.peer),
            ),
        };
        let spread = match self.seeds {
            1 => String::new(),
            _ => format!(" ({:.1} to {:.1})", seen.least, seen.most),
        };
        format!(
            "| {} | `{}` | {} | {ours}{spread} | {:.0} / {:.0} | {peer} | {} | {} |",
            self.net,
            self.attack,
            self.n,
            seen.queries,
            seen.gradients,
            self.who,
            if self.holds(seen) { "yes" } else { "**no**" },
        )
    }
}

/// Rows that take a few seconds, of every kind.
#[test]
fn attacks_are_as_strong_as_the_peers() {
    let Some(shared) = shared() else { return };
    let bench = Bench::new();
    let quick = |row: &Row| {
        row.attack.starts_with("fgsm")
            || row.attack.starts_with("pgd") && row.net == "wong_fgsm_overfit"
            || row.attack.starts_with("apgd-t")
            || row.attack.starts_with("deepfool")
    };
    let rows = [fgsm(), pgd(), auto_attack(), nearest()];
    let mut seen_rows = 0;
    for row in rows.into_iter().flatten().filter(quick) {
        let row = Row { seeds: 1, ..row };
        let seen = measure(&bench, &shared, &row);
        assert!(row.holds(&seen), "{}", row.show(&seen));
        if matches!(row.measure, Measure::Accuracy) {
            // the peers agree with each other to the sample; of 1000 samples ours may differ in 2
            let text = row.show(&seen);
            assert!((seen.ours - row.peer).abs() <= 0.2 + 1e-6, "{text}");
        }
        seen_rows += 1;
    }
    assert_eq!(seen_rows, 16 + 2 + 3 + 1);
}

#[test]
#[ignore = "takes minutes; writes docs/attacks.md"]
fn write_the_table() {
    let Some(shared) = shared() else { return };
    let bench = Bench::new();
    let mut text = String::from(HEAD);
    let mut missed = Vec::new();
    for (title, rows) in [
        ("FGSM", fgsm()),
        ("PGD, 40 steps of 0.01", pgd()),
        ("AutoAttack", auto_attack()),
        ("The nearest adversarial input", nearest()),
        ("Queries", queries()),
        ("One perturbation for all", universal()),
    ] {
        write!(text, "\n## {title}\n\n{COLUMNS}").unwrap();
        for row in rows {
            let seen = measure(&bench, &shared, &row);
            let line = row.show(&seen);
            eprintln!("{line}");
            writeln!(text, "{line}").unwrap();
            if !row.holds(&seen) {
                missed.push(line);
            }
        }
    }
    text.push_str(TAIL);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/attacks.md");
    std::fs::write(page, text).unwrap();
    assert!(missed.is_empty(), "{missed:#?}");
}

const COLUMNS: &str = "| network | `--attack` | n | ours | queries / gradients per image | strongest peer | which | holds |\n|---|---|---|---|---|---|---|---|\n";

const HEAD: &str = "# How strong the attacks are, beside other tools

Our attacks and those of Foolbox 3.3.4, torchattacks 3.5.1, ART 1.20.1 and AutoAttack (pyautoattack 0.2.0) on the same four MNIST networks and the
first n test images, in float, linf unless the row says `--norm l2`. Each row has the strongest of the peers that ran it. The page is made anew by

```
cargo test --release -p foolproof-host --test cli_peers -- --ignored
```

from networks, images and figures of the peers that are not part of this repository. A row is the command
`foolproof attack NET.onnx --data IMAGES,LABELS --input-range 0,1 --limit N --attack ... --seed S --out ADV.npz`.

A row *holds* where robust accuracy is at most 0.5 points above the peer's, a mean norm at most 2 % above, the number of queries for no more robust
accuracy at most 5 % above, the fooling rate of a universal perturbation at most 0.02 below. Rows with a spread are the mean (smallest to largest) of seeds 0 to
4; the others are seed 0. The peers' figures are of one seed each.
";

const TAIL: &str = "
## What to know of the rows

- *FGSM* counts as the peers' rows do: accuracy on the attacked inputs, also of images that were wrong before the attack (a step can put those right: on
  `wong_fgsm_overfit` at 0.3 it does so for 13 of 19). Everywhere else such images count as not robust and are left alone. The three tools agree
  with each other to the sample, and we with them to within two of 1000: where the network is nearly certain, `1 - p` of the cross-entropy's gradient
  cancels in f32, and its last bits depend on the order of a sum of ten numbers. (Without cancellation the step is stronger, 2.3 % instead of 4.9 % on
  `wong_standard` at 0.2. We round as the peers do, so that FGSM means the same everywhere.)
- *PGD*: ours stops at the step that fools, the peers' go on to the fortieth. Where what that saves pays for a second start, ours has one; no row spends more
  than the 40 gradients per image that the peers spend.
- *APGD-CE* has one start, as in AutoAttack's `standard`. *Square* has 5000 queries, *FAB-T* and *APGD-T* nine
  targets, one start. *standard* is the ensemble of the four, after FGSM and PGD-40.
- *The nearest*: every image is won by us and by the peer, so the norms are comparable. HopSkipJump and Boundary have the queries that Foolbox's took. ART's and
  torchattacks' Carlini-Wagner and DeepFool are weaker than Foolbox's (or win only some images).
- *One perturbation for all*: fitted on the first 1000 images, judged on the 9000 others; the rate is the share whose label changes.
- What follows from `wong_fgsm_overfit` (94 % under FGSM, 0.5 % under the ensemble): [gradients.md](gradients.md) and the checks of `foolproof evaluate`, which flag it.
";
