//! Networks whose robustness is known (VNN-COMP 2021, where independent verifiers agree): an attack never breaks a box that
//! holds, and finds a witness in nearly every box that does not. Every witness is in its box, and inference says again that it
//! is one. Without the shared data there is nothing to check, and the test says so.

mod support;

use foolproof_host::data::npy::{self, Values};
use foolproof_host::data::npz;
use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use support::Bench;

fn truth() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/truth");
    if !folder.is_dir() {
        eprintln!("SKIPPED: no {}", folder.display());
        return None;
    }
    Some(folder)
}

fn real(file: &[u8], name: &str) -> Vec<f32> {
    match npz::read_array(file, name).unwrap().unwrap().values {
        Values::F32(values) => values,
        other => panic!("{name}: {other:?}"),
    }
}

/// NumPy's array of strings (`<U8`): UTF-32, padded with zeros. True where it says "violated".
fn verdicts(file: &[u8]) -> Vec<bool> {
    let mut archive = zip::ZipArchive::new(Cursor::new(file)).unwrap();
    let mut bytes = Vec::new();
    let mut entry = archive.by_name("verdict.npy").unwrap();
    entry.read_to_end(&mut bytes).unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = String::from_utf8_lossy(&bytes[10..header]).to_string();
    let width: usize = text
        .split("<U")
        .nth(1)
        .unwrap()
        .split('\'')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    bytes[header..]
        .chunks_exact(4 * width)
        .map(|word| {
            let word: String = word
                .chunks_exact(4)
                .filter_map(|c| char::from_u32(u32::from_le_bytes([c[0], c[1], c[2], c[3]])))
                .filter(|&c| c != '\0')
                .collect();
            assert!(word == "violated" || word == "holds", "{word}");
            word == "violated"
        })
        .collect()
}

/// Rows that are violated, those of them that were broken, and rows that hold.
fn attack(net: &Path, targeted: bool) -> (usize, usize, usize) {
    let bench = Bench::new();
    let boxes = net.with_extension("npz");
    let flag = if targeted { "--targeted" } else { "" };
    let output = bench.run(&format!(
        "attack {} --box {} --attack standard {flag} --out adv.npz --json",
        net.display(),
        boxes.display()
    ));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let given = fs::read(&boxes).unwrap();
    let found = fs::read(bench.path("adv.npz")).unwrap();
    let (lo, hi, x) = (real(&given, "lo"), real(&given, "hi"), real(&found, "x"));
    let labels = npz::read_array(&given, "label").unwrap().unwrap();
    let labels = labels.values.into_integers().unwrap();
    let fooled = match npz::read_array(&found, "fooled").unwrap().unwrap().values {
        Values::U8(values) => values,
        other => panic!("{other:?}"),
    };
    let n = lo.len() / labels.len();

    // what inference says about the points, in the file's own order of elements
    npy::write(&bench.path("x.npy"), &[labels.len(), n], npy::View::F32(&x)).unwrap();
    let output = bench.run(&format!(
        "infer {} --inputs x.npy --outputs y.npy",
        net.display()
    ));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let logits = npy::parse(&fs::read(bench.path("y.npy")).unwrap()).unwrap();
    let Values::F32(logits) = logits.values else {
        panic!("logits are real");
    };
    let classes = logits.len() / labels.len();

    let verdicts = verdicts(&given);
    let (mut violated, mut broken, mut holds) = (0, 0, 0);
    for (row, &is_violated) in verdicts.iter().enumerate() {
        violated += usize::from(is_violated);
        holds += usize::from(!is_violated);
        if fooled[row] == 0 {
            continue;
        }
        let name = format!("{} row {row}", net.display());
        assert!(is_violated, "{name} holds, and was broken");
        broken += 1;
        let range = row * n..(row + 1) * n;
        for ((x, lo), hi) in x[range.clone()]
            .iter()
            .zip(&lo[range.clone()])
            .zip(&hi[range])
        {
            assert!(lo <= x && x <= hi, "{name}: the witness is outside its box");
        }
        let z = &logits[row * classes..(row + 1) * classes];
        let class = labels[row] as usize;
        let rival = (0..classes)
            .filter(|&c| c != class)
            .map(|c| z[c])
            .fold(f32::MIN, f32::max);
        match targeted {
            false => assert!(rival >= z[class], "{name}: no witness"),
            true => assert!(z[class] >= rival, "{name}: no witness"),
        }
    }
    eprintln!(
        "{}: {broken} of {violated} broken, {holds} hold",
        net.display()
    );
    (violated, broken, holds)
}

#[test]
fn what_holds_is_never_broken_and_what_does_not_nearly_always_is() {
    let Some(folder) = truth() else {
        return;
    };
    let (mut violated, mut broken, mut holds) = (0, 0, 0);
    for (group, targeted) in [
        ("mnistfc", false),
        ("oval21", false),
        ("marabou-cifar10", true),
    ] {
        let mut nets: Vec<PathBuf> = fs::read_dir(folder.join(group))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "onnx"))
            .collect();
        nets.sort();
        for net in nets {
            let (v, b, h) = attack(&net, targeted);
            violated += v;
            broken += b;
            holds += h;
        }
    }
    eprintln!("in all: {broken} of {violated} violated rows broken, none of {holds} that hold");
    assert_eq!((violated, holds), (77, 51));
    assert!(20 * broken >= 19 * violated, "{broken} of {violated}");
}
