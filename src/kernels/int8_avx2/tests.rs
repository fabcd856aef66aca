//! What is AVX2's own: its two ways to requantize. The layers are compared in `int8_tests`.

extern crate std;
use super::super::int8_tests::{Random, range};
use super::super::{Requantize, Rounding, Simd};
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
            assert!(Finish::new(&p, 1 << 14).is_some_and(|f| f.is_plain));
            assert!(Finish::new(&p, (1 << 14) + 1).is_some_and(|f| !f.is_plain));
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
