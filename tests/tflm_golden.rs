//! int8 operators against TFLite Micro itself: the same bits, for every golden vector in `golden/tflm.txt`
//! (`golden/README.md` says how they were made).

mod support;

use foolproof::kernels::Kernels;
use foolproof::ops::{Context, Numerics, Op, WORDS};
use foolproof::tensor::{DataMut, Operand};
use std::collections::BTreeMap;
use support::{Tensor, Values};

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |c: u8| (c as char).to_digit(16).expect("a hexadecimal digit") as u8;
    hex.as_bytes()
        .chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

/// `KIND TYPE DIMS SCALES ZERO_POINT ELEMENTS`.
fn tensor(line: &str) -> Tensor {
    let fields: Vec<&str> = line.split(' ').collect();
    let [kind, dtype, dims, scales, zero_point, elements] = fields[..] else {
        panic!("six fields: {line}")
    };
    let dims: Vec<u32> = dims
        .split(',')
        .map(|d| d.parse().expect("a dimension"))
        .collect();
    let elements = bytes(elements);
    let words = || {
        elements
            .chunks(4)
            .map(|b| b.try_into().expect("four bytes"))
    };
    let values = match dtype {
        "i8" => Values::I8(elements.iter().map(|&b| b as i8).collect()),
        "i32" => Values::I32(words().map(i32::from_le_bytes).collect()),
        "f32" => Values::F32(words().map(f32::from_le_bytes).collect()),
        _ => panic!("a type: {dtype}"),
    };
    let scales: Vec<f32> = scales
        .split(',')
        .map(|s| f32::from_bits(u32::from_str_radix(s, 16).expect("hexadecimal")))
        .collect();
    let mut t =
        Tensor::new(&dims, values).quantized(scales[0], zero_point.parse().expect("a zero point"));
    if scales.len() > 1 && dtype == "i8" {
        t.channel_scales = scales;
    }
    t.constant = kind == "constant";
    t
}

#[test]
fn int8_operators_equal_tflite_micro() {
    let text = include_str!("golden/tflm.txt");
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut lines = text.lines().filter(|l| !l.starts_with('#')).peekable();
    while let Some(line) = lines.next() {
        let mut numbers = line
            .strip_prefix("op ")
            .expect("a case")
            .split(' ')
            .map(|n| n.parse::<u32>().expect("a number"));
        let code = numbers.next().expect("a code") as u8;
        let mut words = [0; WORDS];
        for (word, n) in words.iter_mut().zip(numbers) {
            *word = n;
        }
        let op = Op::decode(code, &words).expect("an operator");
        let mut inputs = Vec::new();
        while let Some(line) = lines.next_if(|l| !l.starts_with("output")) {
            inputs.push(tensor(line));
        }
        let output = tensor(lines.next().expect("an output"));
        if let Op::Unary(unary) = op {
            // The table is the host's to make.
            let table = unary
                .table(&inputs[0].quant(), &output.quant(), Numerics::Tflm)
                .expect("a table");
            inputs.push(Tensor::new(&[256], Values::I8(table.values.to_vec())).constant());
            inputs.push(Tensor::new(&[256], Values::F32(table.slopes.to_vec())).constant());
        }
        let checked: Vec<Operand> = inputs
            .iter()
            .map(|t| if t.constant { t.operand() } else { t.absent() })
            .collect();
        op.check(Numerics::Tflm, &checked, &output.absent())
            .unwrap_or_else(|e| panic!("{op:?}: {e:?}"));
        let operands: Vec<Operand> = inputs.iter().map(|t| t.operand()).collect();
        let cx = Context::new(Kernels::Scalar, Numerics::Tflm);
        match &output.values {
            Values::I8(expected) => {
                let mut y = vec![0; expected.len()];
                op.forward(&cx, &operands, &[], &output.absent(), DataMut::I8(&mut y));
                assert_eq!(&y, expected, "{op:?}");
            }
            Values::F32(expected) => {
                let mut y = vec![0.0; expected.len()];
                op.forward(&cx, &operands, &[], &output.absent(), DataMut::F32(&mut y));
                assert_eq!(&y, expected, "{op:?}");
            }
            Values::I32(_) => panic!("no operator writes int32"),
        }
        *seen.entry(op.name()).or_default() += output.len();
    }
    println!("outputs compared: {seen:?}");
    assert_eq!(seen.len(), 18, "every operator has a vector");
    assert!(seen.values().sum::<usize>() > 8000);
}
