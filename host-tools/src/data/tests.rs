use super::*;
use std::fs;
use std::io::Write;

/// An `.npy` file with the given header text: what a hostile or a foreign writer may produce.
fn npy_file(version: u8, header: &str, body: &[u8]) -> Vec<u8> {
    let mut file = npy::MAGIC.to_vec();
    file.extend_from_slice(&[version, 0]);
    match version {
        1 => file.extend_from_slice(&(header.len() as u16).to_le_bytes()),
        _ => file.extend_from_slice(&(header.len() as u32).to_le_bytes()),
    }
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(body);
    file
}

fn header(descr: &str, fortran: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n")
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn reads_every_element_type_in_both_orders() {
    let expected = |array: npy::Array| match array.values {
        npy::Values::F32(v) => v.iter().map(|&x| x as i64).collect::<Vec<_>>(),
        npy::Values::U8(v) => v.iter().map(|&x| x.into()).collect(),
        npy::Values::I8(v) => v.iter().map(|&x| x.into()).collect(),
        npy::Values::I64(v) => v,
    };
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("<f4", floats(&[1., 2., 3., 4., 5., 6.])),
        (
            ">f4",
            [1f32, 2., 3., 4., 5., 6.]
                .iter()
                .flat_map(|v| v.to_be_bytes())
                .collect(),
        ),
        (
            "<f8",
            [1f64, 2., 3., 4., 5., 6.]
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect(),
        ),
        ("|u1", vec![1, 2, 3, 4, 5, 6]),
        ("|i1", vec![1, 2, 3, 4, 5, 6]),
        ("<i2", (1i16..7).flat_map(i16::to_le_bytes).collect()),
        (">u2", (1u16..7).flat_map(u16::to_be_bytes).collect()),
        ("<i4", (1i32..7).flat_map(i32::to_le_bytes).collect()),
        ("<u4", (1u32..7).flat_map(u32::to_le_bytes).collect()),
        ("<i8", (1i64..7).flat_map(i64::to_le_bytes).collect()),
        ("<u8", (1u64..7).flat_map(u64::to_le_bytes).collect()),
    ];
    for (descr, body) in bodies {
        for version in [1, 2, 3] {
            let c =
                npy::parse(&npy_file(version, &header(descr, "False", "(2, 3)"), &body)).unwrap();
            assert_eq!(c.shape, [2, 3], "{descr}");
            assert_eq!(expected(c), [1, 2, 3, 4, 5, 6], "{descr}");
            // The same bytes, first axis fastest: rows (1, 3, 5) and (2, 4, 6).
            let f =
                npy::parse(&npy_file(version, &header(descr, "True", "(2, 3)"), &body)).unwrap();
            assert_eq!(expected(f), [1, 3, 5, 2, 4, 6], "{descr}");
        }
    }
}

#[test]
fn hostile_npy_headers_end_in_one_line() {
    let deep = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': {}1}}",
        "(".repeat(9000)
    );
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (
            npy_file(1, &header("<f4", "False", "(18446744073709551615, 2)"), b""),
            "too large",
        ),
        (
            npy_file(
                1,
                &header("<f4", "False", "(99999999999999999999999, 2)"),
                b"",
            ),
            "shape",
        ),
        (
            npy_file(1, &header("<f4", "False", "(4611686018427387904, 4)"), b""),
            "too large",
        ),
        (
            npy_file(1, &header("<f8", "False", "(1099511627776, 2)"), b""),
            "too large",
        ),
        (
            npy_file(1, &header("<f4", "False", "(-1, 2)"), b""),
            "shape",
        ),
        (
            npy_file(1, &header("<f4", "False", "(2, 2)"), &[0; 15]),
            "needs 16 bytes",
        ),
        (
            npy_file(1, &header("<f4", "False", "(2, 2)"), &[0; 17]),
            "needs 16 bytes",
        ),
        (
            npy_file(1, &header("|O", "False", "(2, 2)"), &[0; 16]),
            "element type",
        ),
        (
            npy_file(1, &header("<f4", "Maybe", "(2, 2)"), &[0; 16]),
            "dictionary",
        ),
        (
            npy_file(
                1,
                "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
                &[0; 4],
            ),
            "plain numbers",
        ),
        (npy_file(1, "{'descr': '<f4'}", &[0; 4]), "dictionary"),
        (npy_file(1, "{", b""), "dictionary"),
        (npy_file(1, &deep, b""), "shape"),
        (
            npy_file(9, &header("<f4", "False", "(1, 1)"), &[0; 4]),
            "version 9",
        ),
        (npy_file(2, &" ".repeat(20_000), b""), "20000 bytes"),
        (b"\x93NUMPY".to_vec(), "ends inside"),
        (b"\x93NUMPY\x01\x00\xff\xff{".to_vec(), "header"),
    ];
    for (file, expected) in cases {
        let error = npy::parse(&file).unwrap_err().to_string();
        assert!(
            error.contains(expected),
            "{error:?} does not say {expected:?}"
        );
        assert!(!error.contains('\n'));
    }
}

#[test]
fn no_cut_or_flipped_byte_makes_the_readers_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.npz");
    let data = Dataset::new(
        "d",
        vec![2, 2],
        Samples::F32(vec![0.5; 8]),
        Some(vec![1, 0]),
    )
    .unwrap();
    data.write_npz(&path).unwrap();
    let file = fs::read(&path).unwrap();
    assert_eq!(
        load(path.to_str().unwrap(), Purpose::Judge)
            .unwrap()
            .samples(),
        data.samples()
    );
    for end in 0..file.len() {
        assert!(
            from_bytes(file[..end].to_vec(), &path).is_err(),
            "cut at {end}"
        );
    }
    let npy = npy::to_bytes(&[2, 2, 2], npy::View::F32(&[0.5; 8])).unwrap();
    for file in [&file, &npy] {
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut mutant = file.clone();
                mutant[at] ^= 1 << bit;
                // Any answer but a panic: a flipped bit in the values is a valid file.
                let _ = from_bytes(mutant, &path);
            }
        }
    }
}

#[test]
fn a_decompression_bomb_is_stopped_at_the_limit() {
    // 2 GiB of zeros in 2 MB of gzip.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder
        .write_all(&[0, 0, 8, 3, 0, 0, 128, 0, 0, 0, 1, 0, 0, 0, 1, 0])
        .unwrap();
    let zeros = vec![0u8; 1 << 20];
    for _ in 0..1025 {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let error = from_bytes(bomb, Path::new("bomb.gz"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("more than 1024 MiB"), "{error}");
}

#[test]
fn bad_values_and_labels_are_named() {
    let x = |values: &[f32]| npy::Array {
        shape: vec![values.len() / 4, 2, 2],
        values: npy::Values::F32(values.to_vec()),
    };
    let y = |values: &[i64]| npy::Array {
        shape: vec![values.len()],
        values: npy::Values::I64(values.to_vec()),
    };
    let check = |x: npy::Array, y: Option<npy::Array>, expected: &str| {
        let error = Dataset::from_array(x, y, "d".into())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(expected),
            "{error:?} does not say {expected:?}"
        );
    };
    let mut values = [0f32; 12];
    values[10] = f32::NAN;
    check(x(&values), None, "NaN; x, sample 2, index [1, 0]");
    values[10] = f32::INFINITY;
    check(x(&values), None, "inf; x, sample 2, index [1, 0]");
    check(
        x(&[0.; 8]),
        Some(y(&[0, -1])),
        "label -1 is out of range; y[1]",
    );
    check(x(&[0.; 8]), Some(y(&[0, 1, 2])), "2 samples, but 3 labels");
    check(
        x(&[0.; 8]),
        Some(npy::Array {
            shape: vec![2, 2],
            values: npy::Values::I64(vec![0; 4]),
        }),
        "shape [2, 2]",
    );
    check(
        x(&[0.; 8]),
        Some(npy::Array {
            shape: vec![2],
            values: npy::Values::F32(vec![0.; 2]),
        }),
        "floating-point",
    );
    check(x(&[]), None, "no samples");
    check(
        npy::Array {
            shape: vec![2, 0],
            values: npy::Values::F32(vec![]),
        },
        None,
        "no samples",
    );
    check(
        npy::Array {
            shape: vec![],
            values: npy::Values::F32(vec![1.]),
        },
        None,
        "single number",
    );
    check(
        npy::Array {
            shape: vec![3],
            values: npy::Values::U8(vec![1; 3]),
        },
        None,
        "shape [3]",
    );
    let data = Dataset::from_array(x(&[0.; 8]), Some(y(&[0, 7])), "d".into()).unwrap();
    assert!(data.check_labels(8).is_ok());
    let error = data.check_labels(7).unwrap_err().to_string();
    assert_eq!(
        error,
        "label 7 is out of range for a model of 7 classes; d, y[1]; labels 0 to 6"
    );
}

#[test]
fn the_digits_split_is_stratified_fixed_and_disjoint() {
    let (all, train, test) = (
        load("digits:all", Purpose::Judge).unwrap(),
        load("digits", Purpose::Learn).unwrap(),
        load("digits", Purpose::Judge).unwrap(),
    );
    assert_eq!((all.len(), train.len(), test.len()), (1797, 1433, 364));
    assert_eq!((train.name(), test.name()), ("digits:train", "digits:test"));
    assert_eq!(test.shape(), [8, 8, 1]);
    for class in 0..10 {
        let count = test
            .labels()
            .unwrap()
            .iter()
            .filter(|&&label| label == class)
            .count();
        assert!(
            (35..=37).contains(&count),
            "{count} test images of digit {class}"
        );
    }
    let Samples::F32(values) = all.samples() else {
        panic!("digits are float32")
    };
    assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
    assert_eq!(
        &values[..8],
        [0., 0., 5. / 16., 13. / 16., 9. / 16., 1. / 16., 0., 0.]
    );
    let total = |data: &Dataset| match data.samples() {
        Samples::F32(v) => v.iter().map(|&v| (v * 16.0) as u64).sum::<u64>(),
        _ => unreachable!(),
    };
    assert_eq!(total(&all), total(&train) + total(&test));
    assert!(
        load("digits:tset", Purpose::Judge)
            .unwrap_err()
            .to_string()
            .contains("digits:test")
    );
}

#[test]
fn idx_pairs_are_found_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("t10k-images-idx3-ubyte");
    let labels = folder.path().join("t10k-labels-idx1-ubyte.gz");
    fs::write(
        &images,
        [
            &[0u8, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2][..],
            &[1, 2, 3, 4],
        ]
        .concat(),
    )
    .unwrap();
    assert!(
        load(images.to_str().unwrap(), Purpose::Judge)
            .unwrap()
            .labels()
            .is_none()
    );
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&[0, 0, 8, 1, 0, 0, 0, 2, 7, 9]).unwrap();
    fs::write(&labels, encoder.finish().unwrap()).unwrap();
    let data = load(images.to_str().unwrap(), Purpose::Judge).unwrap();
    assert_eq!(
        (data.shape(), data.labels().unwrap()),
        (&[1, 2][..], &[7, 9][..])
    );
    assert_eq!(data.samples(), &Samples::U8(vec![1, 2, 3, 4]));
    let pair = format!("{},{}", images.display(), labels.display());
    assert_eq!(load(&pair, Purpose::Judge).unwrap().labels(), data.labels());
    fs::write(
        &images,
        [
            0u8, 0, 8, 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ],
    )
    .unwrap();
    let error = load(images.to_str().unwrap(), Purpose::Judge)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("too large") && error.contains("t10k-images"),
        "{error}"
    );
}

#[test]
fn cifar_records_become_channels_last() {
    let mut record = vec![3u8];
    record.extend((0..3 * 1024).map(|i| (i / 1024) as u8 * 10 + u8::from(i % 1024 == 1)));
    let data = from_bytes(record.repeat(2), Path::new("test_batch.bin")).unwrap();
    assert_eq!(
        (data.len(), data.shape(), data.labels().unwrap()),
        (2, &[32, 32, 3][..], &[3, 3][..])
    );
    let Samples::U8(values) = data.samples() else {
        panic!("uint8")
    };
    assert_eq!(&values[..6], [0, 10, 20, 1, 11, 21]);
}

#[test]
fn things_that_are_no_data_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.npz");
    fs::write(&text, "not a data set").unwrap();
    for (spec, expected) in [
        (folder.path().to_str().unwrap(), "directory"),
        ("nowhere.npz", "no such file; nowhere.npz"),
        (text.to_str().unwrap(), "known format"),
    ] {
        let error = load(spec, Purpose::Judge).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    fs::write(&text, b"").unwrap();
    assert!(
        load(text.to_str().unwrap(), Purpose::Judge)
            .unwrap_err()
            .to_string()
            .contains("empty")
    );
    fs::write(&text, b"PK\x03\x04 and no more").unwrap();
    assert!(
        load(text.to_str().unwrap(), Purpose::Judge)
            .unwrap_err()
            .to_string()
            .contains("archive")
    );
    let other = folder.path().join("other.npz");
    npz::write(
        &other,
        &[npz::Entry {
            name: "images",
            shape: &[1, 1],
            values: npy::View::U8(&[1]),
        }],
    )
    .unwrap();
    let error = load(other.to_str().unwrap(), Purpose::Judge)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no array x") && error.contains("images"),
        "{error}"
    );
}

#[test]
fn selects_and_takes() {
    let data = Dataset::new(
        "d",
        vec![2],
        Samples::I8(vec![1, 2, 3, 4, 5, 6]),
        Some(vec![0, 1, 2]),
    )
    .unwrap();
    let picked = data.select(&[2, 0]).unwrap();
    assert_eq!(
        (picked.samples(), picked.labels().unwrap()),
        (&Samples::I8(vec![5, 6, 1, 2]), &[2, 0][..])
    );
    assert!(data.select(&[3]).is_err());
    assert_eq!(data.clone().take(9).unwrap(), data);
    assert_eq!(data.take(1).unwrap().len(), 1);
}

/// Files that third parties wrote. They are not part of the repository: without them the test says so and checks nothing.
#[test]
fn reads_real_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/datasets");
    if !folder.is_dir() {
        eprintln!("SKIPPED reads_real_files: no ../shared/data beside the repository");
        return;
    }
    for (file, count, shape, kind, classes) in [
        (
            "mnist/t10k-images-idx3-ubyte.gz",
            10_000,
            &[28, 28][..],
            "uint8",
            10,
        ),
        ("cifar10_test_1000.npz", 1000, &[32, 32, 3], "uint8", 10),
        ("kws_mfcc_1000.npz", 1000, &[49, 10, 1], "int8", 12),
        ("vww_200.npz", 200, &[96, 96, 3], "uint8", 2),
    ] {
        let data = load(folder.join(file).to_str().unwrap(), Purpose::Judge).unwrap();
        assert_eq!(
            (data.len(), data.samples().type_name(), data.classes()),
            (count, kind, classes),
            "{file}"
        );
        assert_eq!(data.sample_len(), shape.iter().product::<usize>(), "{file}");
    }
}
