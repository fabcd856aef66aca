//! What is AVX2's own: its two ways to requantize, and dense layers of whole inputs. The layers are compared in `int8_tests`.

extern crate std;
use super::super::int8_tests::{Random, range};
use super::super::kept::{Kept, dense_bytes};
use super::super::wide_in_tests::without;
use super::super::{Constant, DenseI8, Requantize, Rounding, Simd};
use super::*;
use std::vec::Vec;

/// Every lane, any sum, any factor that an image may hold.
#[test]
fn requantization_is_exact() {
    if Simd::new().is_none() {
        return;
    }
    let mut random = Random(1);
    for round in 0..200_000 {
        let sums: [i32; 8] = core::array::from_fn(|_| random.extreme());
        let bias: Vec<i32> = (0..8).map(|_| random.extreme() >> (round % 32)).collect();
        let multiplier: Vec<i32> = (0..8).map(|_| random.mantissa()).collect();
        let shift: Vec<i32> = (0..8).map(|_| random.next().rem_euclid(62) - 31).collect();
        let p = Requantize {
            bias: &bias,
            multiplier: &multiplier,
            shift: &shift,
            rounding: Rounding::Double,
            zero_point: random.next().rem_euclid(256) - 128,
            range: (-128, 127),
        };
        let expected: Vec<i8> = (0..8).map(|o| p.finish(sums[o], o)).collect();
        // SAFETY: the CPU has AVX2.
        let got = unsafe { finished(&p, usize::MAX, sums) };
        assert_eq!(expected, got, "{p:?} of {sums:?}");
    }
}

/// Factors below one and sums that are not near the limits: the shorter way, at its limits.
#[test]
fn plain_requantization_is_exact() {
    if Simd::new().is_none() {
        return;
    }
    let mut random = Random(2);
    for round in 0..200_000 {
        let shift: Vec<i32> = (0..8)
            .map(|_| {
                -random
                    .next()
                    .rem_euclid(32)
                    .min(random.next().rem_euclid(32))
            })
            .collect();
        let sums: [i32; 8] = core::array::from_fn(|i| match random.next() & 7 {
            0 => (1 << 29) - 1,
            1 => 1 - (1 << 29),
            // halves, exactly
            2 | 3 => (random.next() & 63) << (-shift[i] - 1).clamp(0, 20),
            4 => -((random.next() & 63) << (-shift[i] - 1).clamp(0, 20)),
            5 => random.next() % 1000,
            _ => random.next() >> 3,
        });
        let bias: Vec<i32> = (0..8).map(|_| random.next() >> 3 >> (round % 30)).collect();
        let mantissa = |r: i32| match r & 7 {
            0..=2 => 1 << 30,
            3 => i32::MAX,
            4 => 0,
            _ => (r & i32::MAX) | 1 << 30,
        };
        let multiplier: Vec<i32> = (0..8).map(|_| mantissa(random.next())).collect();
        let range = range(round);
        let p = Requantize {
            bias: &bias,
            multiplier: &multiplier,
            shift: &shift,
            rounding: Rounding::Double,
            zero_point: random.next().rem_euclid(256) - 128,
            range,
        };
        let expected: Vec<i8> = (0..8).map(|o| p.finish(sums[o], o)).collect();
        // SAFETY: the CPU has AVX2.
        unsafe {
            assert!(Finish::new(&p, 1 << 14).is_some_and(|f| f.kind.is_plain));
            assert!(Finish::new(&p, (1 << 14) + 1).is_some_and(|f| !f.kind.is_plain));
            assert_eq!(expected, finished(&p, 1 << 14, sums), "{p:?} of {sums:?}");
        }
    }
}

#[target_feature(enable = "avx2")]
fn finished(p: &Requantize, depth: usize, s: [i32; 8]) -> [i8; 8] {
    let Some(finish) = Finish::new(p, depth) else {
        panic!("{p:?} is not taken")
    };
    let lanes = finish.lanes(p, 0);
    let mut y = [0; 8];
    let sums = s.map(|s| s << finish.doubling());
    let [a, b, c, d, e, f, g, h] = sums;
    let sums = _mm256_add_epi32(_mm256_setr_epi32(a, b, c, d, e, f, g, h), lanes.bias);
    store(finish.narrow([&lanes; 2], [sums; 2]), &mut y);
    y
}

/// A dense layer of weights that are small but for these: row, element, value.
fn with_large(depth: usize, outputs: usize, large: &[(usize, usize, i8)]) -> Vec<i8> {
    let mut random = Random((depth + outputs) as u64);
    let mut w: Vec<i8> = (0..depth * outputs)
        .map(|_| (random.next() % 65) as i8)
        .collect();
    for &(row, at, value) in large {
        w[row * depth + at] = value;
    }
    w
}

/// Whole inputs, and pairs that saturate: the first and the last, in a last part of fewer than 32, in the last row.
#[test]
fn whole_inputs_lose_nothing() {
    if Simd::new().is_none() {
        return;
    }
    for (depth, outputs) in [
        (32, 16),
        (33, 20),
        (64, 131),
        (129, 7),
        (640, 40),
        (1000, 5),
    ] {
        let last = (depth / 2 - 1) * 2;
        let large = [
            (0, 0, 127),
            (0, 1, 127),
            (outputs - 1, last, -128),
            (outputs - 1, last + 1, -128),
            (1, 2, 127),
            (1, 3, 2),
        ];
        let some = &large[..if depth * outputs < 3 * 128 { 2 } else { 6 }];
        let w = with_large(depth, outputs, some);
        let bias: Vec<i32> = (0..outputs as i32).map(|o| 1000 * o - 9000).collect();
        let mut random = Random(8);
        for x in [
            std::vec![127; 2 * depth],
            std::vec![-128; 2 * depth],
            (0..2 * depth).map(|_| (random.next() >> 8) as i8).collect(),
        ] {
            for x_zero_point in [-128, -3, 127] {
                for shift in [-12, 1] {
                    let mut memory = std::vec![0; 1 << 20];
                    let kept = Kept::new(&mut memory);
                    let factors = factors(outputs, shift);
                    let p = DenseI8 {
                        depth,
                        x: &x,
                        x_zero_point,
                        w: Constant::new(&w, Some(&kept)),
                        output: output(&bias, factors.each_ref().map(|f| &f[..])),
                    };
                    compare(&p, Some(some.len() / 2));
                }
            }
        }
    }
}

/// What vector loops make of a layer, which must be what the scalar ones do, knowing so many pairs that may saturate.
fn compare(p: &DenseI8, pairs: Option<usize>) {
    // SAFETY: the CPU has AVX2.
    let known = unsafe { whole::Known::of(p) };
    assert_eq!(known.map(|known| known.pairs()), pairs);
    let outputs = p.output.bias.len();
    let mut expected = std::vec![0; p.x.len() / p.depth * outputs];
    super::super::scalar::dense::forward_i8(p, &mut expected);
    let mut got = std::vec![0; expected.len()];
    // 512-bit loops take inputs in another way
    // SAFETY: the CPU has AVX2.
    without(|| assert!(unsafe { dense(p, &mut got) }));
    let (zero_point, shift) = (p.x_zero_point, p.output.shift[0]);
    assert_eq!(got, expected, "{} {outputs} {zero_point} {shift}", p.depth);
}

/// Whether the loops take a layer, and what they make of it, is the same without a place for what is known.
fn same_without_memory(p: &DenseI8) {
    let outputs = p.output.bias.len();
    let done = |p: &DenseI8| {
        let mut y = std::vec![0; p.x.len() / p.depth * outputs];
        let mut taken = false;
        // SAFETY: the CPU has AVX2.
        without(|| taken = unsafe { dense(p, &mut y) });
        (taken, y)
    };
    let w = p.w[..].into();
    assert_eq!(done(p), done(&DenseI8 { w, ..*p }));
}

/// From sums to outputs, with one factor for all.
fn output<'a>(bias: &'a [i32], [multiplier, shift]: [&'a [i32]; 2]) -> Requantize<'a> {
    Requantize {
        bias,
        multiplier,
        shift,
        rounding: Rounding::Double,
        zero_point: 3,
        range: (-128, 127),
    }
}

/// Multipliers and shifts of so many outputs.
fn factors(outputs: usize, shift: i32) -> [Vec<i32>; 2] {
    [std::vec![1 << 30; outputs], std::vec![shift; outputs]]
}

/// What is kept fits what a model asks for, and is a layer's own: of the same weights with other biases or factors, or inputs with another
/// zero point, something else is kept.
#[test]
fn what_is_known_is_a_layers_own() {
    if Simd::new().is_none() {
        return;
    }
    for (depth, outputs) in [(40, 4), (128, 16), (64, 131), (8192, 5)] {
        let w = with_large(depth, outputs, &[(2, 0, 127), (2, 1, 127)]);
        let all = |value| std::vec![value; outputs];
        let biases = [all(10_000), all(-50_000)];
        let mut multipliers = [all(1 << 30), all(1 << 30)];
        multipliers[1][outputs - 1] += 1 << 28;
        let shifts = [all(-9), all(1)];
        // each differs from the one before in one thing
        let layers = [
            (0, 0, 0, -128),
            (1, 0, 0, -128),
            (1, 1, 0, -128),
            (1, 1, 1, -128),
            (1, 1, 1, 5),
        ];
        let bytes = (layers.len() + 4) * dense_bytes(w.len(), outputs);
        // the memory begins with a cache line
        let mut memory = std::vec![0xa5; bytes + 63];
        let kept = Kept::new(&mut memory);
        let x: Vec<i8> = (0..depth).map(|i| (i * 7 % 256) as u8 as i8).collect();
        let p = DenseI8 {
            depth,
            x: &x,
            x_zero_point: -128,
            w: Constant::new(&w, Some(&kept)),
            output: output(&biases[0], [&multipliers[0], &shifts[0]]),
        };
        let with = |output| DenseI8 { output, ..p };
        let rounding = Rounding::Single;
        for _ in 0..2 {
            for (bias, multiplier, shift, x_zero_point) in layers {
                let p = DenseI8 {
                    depth,
                    x: &x,
                    x_zero_point,
                    w: Constant::new(&w, Some(&kept)),
                    output: output(&biases[bias], [&multipliers[multiplier], &shifts[shift]]),
                };
                compare(&p, Some(1));
            }
            // what these loops leave to others, or do in another way
            same_without_memory(&with(Requantize {
                rounding,
                ..p.output
            }));
            same_without_memory(&with(Requantize {
                zero_point: 40_000,
                ..p.output
            }));
            same_without_memory(&with(Requantize {
                range: (-300, 127),
                ..p.output
            }));
            same_without_memory(&with(Requantize {
                range: (-128, 300),
                ..p.output
            }));
        }
    }
}

/// One pair of 128 weights is listed; with one more the layer is left to parts, whose bits are the same.
#[test]
fn pairs_that_saturate_are_rare() {
    if Simd::new().is_none() {
        return;
    }
    for (pairs, taken) in [(1, Some(1)), (2, Some(2)), (3, None)] {
        let large: Vec<_> = (0..2 * pairs).map(|i| (2, 10 + i, 127)).collect();
        let w = with_large(64, 4, &large);
        let mut memory = std::vec![0; 4096];
        let kept = Kept::new(&mut memory);
        let factors = factors(4, -9);
        let p = DenseI8 {
            depth: 64,
            x: &[127; 64],
            x_zero_point: -128,
            w: Constant::new(&w, Some(&kept)),
            output: output(&[0; 4], factors.each_ref().map(|f| &f[..])),
        };
        // found out, and found
        compare(&p, taken);
        compare(&p, taken);
        let w = w[..].into();
        compare(&DenseI8 { w, ..p }, None);
    }
}

/// All pairs, at all corners of what they may meet.
#[test]
fn pairs_that_may_saturate_are_known() {
    for v in i8::MIN..=i8::MAX {
        for w in i8::MIN..=i8::MAX {
            let beyond = [[0, 255], [255, 0], [255, 255]]
                .iter()
                .any(|[x, y]| i16::try_from(x * i32::from(v) + y * i32::from(w)).is_err());
            assert_eq!(whole::may_saturate([v, w]), beyond, "{v} {w}");
        }
    }
}
