//! Each kernel beside the portable one that it replaces, and beside nothing else: bit for bit.

extern crate std;
use super::super::{
    AddI8, Avx2, ConvI8, DenseI8, Kernels, Multiplier, Requantize, Rounding, Window, scalar,
};
use super::*;
use std::vec::Vec;

struct Random(u64);

impl Random {
    fn next(&mut self) -> i32 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 32) as i32
    }

    fn bytes(&mut self, n: usize) -> Vec<i8> {
        // the extremes often
        let byte = |r: i32| match r & 7 {
            0 => -128,
            1 => 127,
            _ => (r >> 8) as i8,
        };
        (0..n).map(|_| byte(self.next())).collect()
    }
}

struct Constants {
    bias: Vec<i32>,
    multiplier: Vec<i32>,
    shift: Vec<i32>,
}

impl Constants {
    /// Of all kinds, left shifts and zeros among them.
    fn new(n: usize, random: &mut Random) -> Constants {
        let mantissa = |r: i32| match r & 7 {
            0 => 0,
            1 => i32::MAX,
            _ => r & i32::MAX | 1 << 30,
        };
        Constants {
            bias: (0..n).map(|_| random.next() >> 14).collect(),
            multiplier: (0..n).map(|_| mantissa(random.next())).collect(),
            shift: (0..n).map(|_| -8 + random.next() % 5).collect(),
        }
    }

    fn requantize(&self) -> Requantize<'_> {
        Requantize {
            bias: &self.bias,
            multiplier: &self.multiplier,
            shift: &self.shift,
            rounding: Rounding::Double,
            zero_point: -7,
            range: (-120, 127),
        }
    }
}

fn window(input: [usize; 2], c: usize, o: usize, kernel: [usize; 2]) -> Window {
    Window {
        batch: 1,
        input,
        in_channels: c,
        output: [0; 2],
        out_channels: o,
        kernel,
        stride: [1, 1],
        dilation: [1, 1],
        padding: [0, 0],
    }
}

/// With the output that follows for this padding behind.
fn sized(mut g: Window, behind: [usize; 2]) -> Window {
    for (axis, behind) in behind.into_iter().enumerate() {
        let reach = (g.kernel[axis] - 1) * g.dilation[axis] + 1;
        let room = g.input[axis] + g.padding[axis] + behind - reach;
        g.output[axis] = room / g.stride[axis] + 1;
    }
    g
}

fn compare(avx2: Avx2, g: &Window, is_depthwise: bool, taken: bool) {
    let mut random = Random((g.in_channels * 31 + g.out_channels) as u64);
    let channels = if is_depthwise { 1 } else { g.in_channels };
    let weights = g.kernel[0] * g.kernel[1] * channels * g.out_channels;
    let x = random.bytes(g.batch * g.input[0] * g.input[1] * g.in_channels);
    let w = random.bytes(weights);
    let constants = Constants::new(g.out_channels, &mut random);
    let outputs = g.batch * g.output[0] * g.output[1] * g.out_channels;
    let (mut expected, mut got) = (std::vec![99; outputs], std::vec![0; outputs]);
    for x_zero_point in [-128, 3, 127] {
        let p = ConvI8 {
            window: g,
            x: &x,
            x_zero_point,
            w: &w,
            output: constants.requantize(),
        };
        let done = match is_depthwise {
            true => {
                scalar::depthwise::forward_i8(&p, &mut expected);
                super::super::depthwise_i8(Kernels::Avx2(avx2), &p, &mut got);
                assert_eq!(got, expected, "{g:?}");
                // SAFETY: `avx2` exists.
                unsafe { depthwise(&p, &mut got) }
            }
            false => {
                scalar::conv::forward_i8(&p, &mut expected);
                super::super::conv_i8(Kernels::Avx2(avx2), &p, &mut got);
                assert_eq!(got, expected, "{g:?}");
                // SAFETY: `avx2` exists.
                unsafe { conv(&p, &mut got) }
            }
        };
        assert_eq!(done, taken, "{g:?}");
        assert_eq!(got, expected, "{g:?}");
    }
}

#[test]
fn convolutions_of_awkward_shapes() {
    let Some(avx2) = Avx2::new() else { return };
    let mut count = 0;
    for kernel in [[1, 1], [3, 3], [2, 5], [4, 1]] {
        for (c, o) in [
            (1, 1),
            (3, 8),
            (5, 17),
            (16, 16),
            (17, 9),
            (33, 40),
            (8, 25),
        ] {
            for stride in [[1, 1], [2, 3]] {
                for (before, behind) in [([0, 0], [0, 0]), ([1, 2], [2, 0])] {
                    let g = Window {
                        batch: 2,
                        stride,
                        padding: before,
                        ..window([7, 6], c, o, kernel)
                    };
                    compare(avx2, &sized(g, behind), false, true);
                    count += 1;
                }
            }
        }
    }
    assert_eq!(count, 112);
}

#[test]
fn convolutions_in_several_strips() {
    let Some(avx2) = Avx2::new() else { return };
    // rows in strips; a row in strips of columns; weights in groups
    for (input, c, o, kernel) in [
        ([90, 50], 16, 5, [3, 3]),
        ([5, 700], 9, 3, [3, 2]),
        ([5, 9], 400, 2, [3, 3]),
        ([3, 3], 300, 250, [1, 1]),
    ] {
        let g = Window {
            padding: [kernel[0] / 2, kernel[1] / 2],
            ..window(input, c, o, kernel)
        };
        compare(avx2, &sized(g, [0, 1]), false, true);
    }
}

#[test]
fn what_is_left_to_the_portable_loops() {
    let Some(avx2) = Avx2::new() else { return };
    let dilation = [2, 1];
    let dilated = Window {
        dilation,
        ..window([7, 7], 8, 8, [3, 3])
    };
    compare(avx2, &sized(dilated, [0, 0]), false, false);
    compare(avx2, &sized(dilated, [0, 0]), true, false);
    // a window larger than a strip, filters larger than the packed weights
    let large = window([40, 40], 9, 2, [40, 40]);
    compare(avx2, &sized(large, [0, 0]), false, false);
    let narrow = window([7, 7], 7, 7, [3, 3]);
    compare(avx2, &sized(narrow, [0, 0]), true, false);
}

#[test]
fn depthwise_of_awkward_shapes() {
    let Some(avx2) = Avx2::new() else { return };
    for kernel in [[3, 3], [1, 1], [2, 5], [10, 4]] {
        for c in [8, 11, 15, 16, 23, 64] {
            for stride in [[1, 1], [2, 3]] {
                let g = Window {
                    batch: 2,
                    stride,
                    padding: [1, 0],
                    ..window([11, 7], c, c, kernel)
                };
                compare(avx2, &sized(g, [0, 2]), true, true);
            }
        }
    }
    // columns
    for (kernel, stride, before, behind) in
        [(1, 2, 0, 0), (4, 1, 3, 1), (5, 3, 2, 2), (15, 1, 0, 0)]
    {
        let g = Window {
            batch: 2,
            stride: [stride, 2],
            padding: [before, 0],
            ..window([15, 1], 19, 19, [kernel, 1])
        };
        compare(avx2, &sized(g, [behind, 0]), true, true);
    }
    // one channel, many filters; several strips
    for o in [1, 8, 13] {
        let g = window([49, 40], 1, o, [10, 8]);
        compare(avx2, &sized(g, [3, 3]), true, true);
    }
    compare(
        avx2,
        &sized(window([40, 41], 24, 24, [3, 3]), [0, 0]),
        true,
        true,
    );
}

#[test]
fn dense_layers_of_awkward_shapes() {
    let Some(avx2) = Avx2::new() else { return };
    for depth in [1, 7, 8, 31, 32, 33, 128, 160, 300, 640, 8192, 8193] {
        for outputs in [1, 3, 4, 7, 8, 15, 17, 40, 131] {
            let mut random = Random((depth * 64 + outputs) as u64);
            let (x, w) = (random.bytes(3 * depth), random.bytes(depth * outputs));
            let mut constants = Constants::new(outputs, &mut random);
            compare_dense(avx2, depth, &constants, &x, &w);
            if depth < 1000 {
                // one factor for all, as where weights are not quantized per channel
                let (mantissa, shift) = (constants.multiplier[0], constants.shift[0]);
                constants.multiplier.fill(mantissa);
                constants.shift.fill(shift);
                compare_dense(avx2, depth, &constants, &x, &w);
            }
        }
    }
}

/// Whatever comes nearest to the limits of 16 bits.
#[test]
fn dense_layers_at_the_rails() {
    let Some(avx2) = Avx2::new() else { return };
    let (depth, outputs) = (600, 9);
    let constants = Constants {
        bias: std::vec![0; outputs],
        multiplier: std::vec![1 << 30; outputs],
        shift: std::vec![-17; outputs],
    };
    for x in [-128, 127] {
        for w in [[-128, -128], [127, 127], [-128, 127]] {
            let w: Vec<i8> = w.into_iter().cycle().take(depth * outputs).collect();
            compare_dense(avx2, depth, &constants, &std::vec![x; depth], &w);
        }
    }
}

fn compare_dense(avx2: Avx2, depth: usize, constants: &Constants, x: &[i8], w: &[i8]) {
    let outputs = constants.bias.len();
    let n = x.len() / depth * outputs;
    for x_zero_point in [-128, 3, 127] {
        let p = DenseI8 {
            depth,
            x,
            x_zero_point,
            w,
            output: constants.requantize(),
        };
        let (mut expected, mut got) = (std::vec![99; n], std::vec![0; n]);
        scalar::dense::forward_i8(&p, &mut expected);
        super::super::dense_i8(Kernels::Avx2(avx2), &p, &mut got);
        assert_eq!(got, expected, "{depth} {outputs}");
        // SAFETY: `avx2` exists.
        let taken = unsafe { dense(&p, &mut got) };
        assert_eq!(taken, depth <= 8192 && outputs >= 4, "{depth} {outputs}");
    }
}

#[test]
fn sums_of_awkward_lengths() {
    let Some(avx2) = Avx2::new() else { return };
    let mut random = Random(5);
    for n in (0..70).chain([1000]) {
        let x = [random.bytes(n), random.bytes(n)];
        let factor = |random: &mut Random| Multiplier {
            mantissa: random.next() & i32::MAX | 1 << 30,
            shift: -(random.next() & 3),
        };
        let p = AddI8 {
            x: [&x[0], &x[1]],
            zero_points: [-128, 127],
            left_shift: 20,
            factors: [factor(&mut random), factor(&mut random)],
            output: Multiplier {
                shift: -19,
                ..factor(&mut random)
            },
            zero_point: 4,
            range: (-128, 120),
        };
        let (mut expected, mut got) = (std::vec![99; n], std::vec![0; n]);
        super::super::add_i8(Kernels::Scalar, &p, &mut expected);
        super::super::add_i8(Kernels::Avx2(avx2), &p, &mut got);
        assert_eq!(got, expected);
    }
}

/// Every lane, any sum, any factor that an image may hold.
#[test]
fn requantization_is_exact() {
    if Avx2::new().is_none() {
        return;
    }
    let mut random = Random(1);
    for round in 0..200_000 {
        let any = |random: &mut Random| match random.next() & 7 {
            0 => i32::MIN,
            1 => i32::MAX,
            2 => 0,
            // halves, exactly
            3 => (random.next() & 63) << (random.next() & 31),
            4 => -((random.next() & 63) << (random.next() & 31)).max(0),
            5 => random.next() >> 16,
            _ => random.next(),
        };
        let sums: [i32; 8] = core::array::from_fn(|_| any(&mut random));
        let bias: Vec<i32> = (0..8).map(|_| any(&mut random) >> (round % 32)).collect();
        let mantissa = |r: i32| match r & 3 {
            0 => 1 << 30,
            _ => r & i32::MAX,
        };
        let multiplier: Vec<i32> = (0..8).map(|_| mantissa(any(&mut random))).collect();
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
    if Avx2::new().is_none() {
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
        let range = match round % 3 {
            0 => (-128, 127),
            1 => (-7, 90),
            _ => (5, 5),
        };
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
