//! The int8 kernels of this CPU beside the portable ones that they replace, and beside nothing else: bit for bit.
#![allow(unsafe_code)] // calls of functions that need a CPU feature

extern crate std;
#[cfg(target_arch = "x86_64")]
use super::int8_avx2 as vector;
#[cfg(target_arch = "aarch64")]
use super::int8_neon as vector;
use super::kept::Kept;
use super::wide_in_tests::{counted, without};
use super::{
    AddI8, Constant, ConvI8, DenseI8, Kernels, MulI8, Multiplier, Requantize, Rounding, Simd,
    Window, scalar,
};
use std::vec::Vec;

/// Those that hand over to [`vector`], where this CPU can run it.
fn fast() -> Option<Kernels> {
    Simd::new().map(Kernels::Simd)
}

pub(super) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> i32 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 32) as i32
    }

    pub fn bytes(&mut self, n: usize) -> Vec<i8> {
        // the extremes often
        let byte = |r: i32| match r & 7 {
            0 => -128,
            1 => 127,
            _ => (r >> 8) as i8,
        };
        (0..n).map(|_| byte(self.next())).collect()
    }

    /// As trained weights are: few of them large.
    fn weights(&mut self, n: usize) -> Vec<i8> {
        let weight = |r: i32| match r & 511 {
            0 => -128,
            1 => 127,
            _ => ((r >> 9) % 65) as i8,
        };
        (0..n).map(|_| weight(self.next())).collect()
    }

    /// Of 32 bits, near every limit.
    pub fn extreme(&mut self) -> i32 {
        match self.next() & 7 {
            0 => i32::MIN,
            1 => i32::MAX,
            2 => 0,
            // halves, exactly
            3 => (self.next() & 63) << (self.next() & 31),
            4 => -((self.next() & 63) << (self.next() & 31)).max(0),
            5 => self.next() >> 16,
            _ => self.next(),
        }
    }

    /// Whatever an image may hold.
    pub fn mantissa(&mut self) -> i32 {
        match self.next() & 3 {
            0 => 1 << 30,
            _ => self.extreme() & i32::MAX,
        }
    }
}

/// The outputs that a layer may have: all, some, one.
pub(super) fn range(round: i32) -> (i32, i32) {
    match round % 3 {
        0 => (-128, 127),
        1 => (-7, 90),
        _ => (5, 5),
    }
}

pub(super) struct Constants {
    pub bias: Vec<i32>,
    pub multiplier: Vec<i32>,
    pub shift: Vec<i32>,
}

impl Constants {
    /// Of all kinds, left shifts and zeros among them.
    pub fn new(n: usize, random: &mut Random) -> Constants {
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

    pub fn requantize(&self) -> Requantize<'_> {
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

pub(super) fn window(input: [usize; 2], c: usize, o: usize, kernel: [usize; 2]) -> Window {
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
pub(super) fn sized(mut g: Window, behind: [usize; 2]) -> Window {
    for (axis, behind) in behind.into_iter().enumerate() {
        let reach = (g.kernel[axis] - 1) * g.dilation[axis] + 1;
        let room = g.input[axis] + g.padding[axis] + behind - reach;
        g.output[axis] = room / g.stride[axis] + 1;
    }
    g
}

fn compare(fast: Kernels, g: &Window, is_depthwise: bool, taken: bool) {
    let mut random = Random((g.in_channels * 29 + g.out_channels) as u64);
    let constants = Constants::new(g.out_channels, &mut random);
    compare_with(fast, g, is_depthwise, taken, &constants);
}

fn compare_with(fast: Kernels, g: &Window, is_depthwise: bool, taken: bool, constants: &Constants) {
    let mut random = Random((g.in_channels * 31 + g.out_channels) as u64);
    let channels = if is_depthwise { 1 } else { g.in_channels };
    let weights = g.kernel[0] * g.kernel[1] * channels * g.out_channels;
    let x = random.bytes(g.batch * g.input[0] * g.input[1] * g.in_channels);
    let w = random.bytes(weights);
    let outputs = g.batch * g.output[0] * g.output[1] * g.out_channels;
    let (mut expected, mut got) = (std::vec![99; outputs], std::vec![0; outputs]);
    // packed anew, then kept from the first of the runs on
    let mut memory = std::vec![0; 1 << 20];
    let kept = Kept::new(&mut memory);
    let anew = [-128, 3, 127].map(|zero| (zero, w[..].into()));
    let again = [-128, 3, 127].map(|zero| (zero, Constant::new(&w, Some(&kept))));
    for (x_zero_point, w) in anew.into_iter().chain(again) {
        let p = ConvI8 {
            window: g,
            x: &x,
            x_zero_point,
            w,
            output: constants.requantize(),
        };
        let done = match is_depthwise {
            true => {
                scalar::depthwise::forward_i8(&p, &mut expected);
                super::depthwise_i8(fast, &p, &mut got);
                assert_eq!(got, expected, "{g:?}");
                got.fill(0);
                // SAFETY: whoever has `fast` has the feature.
                without(|| unsafe { vector::depthwise(&p, &mut got) })
            }
            false => {
                scalar::conv::forward_i8(&p, &mut expected);
                super::conv_i8(fast, &p, &mut got);
                assert_eq!(got, expected, "{g:?}");
                got.fill(0);
                // SAFETY: whoever has `fast` has the feature.
                without(|| unsafe { vector::conv(&p, &mut got) })
            }
        };
        assert_eq!(done, taken, "{g:?}");
        if taken {
            assert_eq!(got, expected, "{g:?}");
        }
        got.fill(0);
        without(|| match is_depthwise {
            true => super::depthwise_i8(fast, &p, &mut got),
            false => super::conv_i8(fast, &p, &mut got),
        });
        assert_eq!(got, expected, "without 512-bit loops: {g:?}");
    }
}

#[test]
fn convolutions_of_awkward_shapes() {
    let Some(fast) = fast() else { return };
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
                    compare(fast, &sized(g, behind), false, true);
                    count += 1;
                }
            }
        }
    }
    assert_eq!(count, 112);
}

#[test]
fn convolutions_in_several_strips() {
    let Some(fast) = fast() else { return };
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
        compare(fast, &sized(g, [0, 1]), false, true);
    }
}

#[test]
fn what_is_left_to_the_portable_loops() {
    let Some(fast) = fast() else { return };
    let dilation = [2, 1];
    let dilated = Window {
        dilation,
        ..window([7, 7], 8, 8, [3, 3])
    };
    compare(fast, &sized(dilated, [0, 0]), false, false);
    compare(fast, &sized(dilated, [0, 0]), true, false);
    // a window larger than a strip, filters larger than the packed weights
    let large = window([40, 40], 9, 2, [40, 40]);
    compare(fast, &sized(large, [0, 0]), false, false);
    let narrow = window([7, 7], 7, 7, [3, 3]);
    compare(fast, &sized(narrow, [0, 0]), true, false);
}

#[test]
fn depthwise_of_awkward_shapes() {
    let Some(fast) = fast() else { return };
    for kernel in [[3, 3], [1, 1], [2, 5], [10, 4]] {
        for c in [8, 11, 15, 16, 23, 64] {
            for stride in [[1, 1], [2, 3]] {
                let g = Window {
                    batch: 2,
                    stride,
                    padding: [1, 0],
                    ..window([11, 7], c, c, kernel)
                };
                compare(fast, &sized(g, [0, 2]), true, true);
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
        compare(fast, &sized(g, [behind, 0]), true, true);
    }
    // one channel, many filters; several strips
    for o in [1, 8, 13] {
        let g = window([49, 40], 1, o, [10, 8]);
        compare(fast, &sized(g, [3, 3]), true, true);
    }
    compare(
        fast,
        &sized(window([40, 41], 24, 24, [3, 3]), [0, 0]),
        true,
        true,
    );
}

#[test]
fn dense_layers_of_awkward_shapes() {
    let Some(fast) = fast() else { return };
    for depth in [1, 7, 8, 31, 32, 33, 128, 160, 300, 640, 8192, 8193] {
        for outputs in [1, 3, 4, 7, 8, 15, 17, 40, 131] {
            let mut random = Random((depth * 64 + outputs) as u64);
            let (x, w) = (random.bytes(3 * depth), random.bytes(depth * outputs));
            let mut constants = Constants::new(outputs, &mut random);
            compare_dense(fast, depth, &constants, &x, &w);
            let w = random.weights(depth * outputs);
            compare_dense(fast, depth, &constants, &x, &w);
            if depth < 1000 {
                // one factor for all, as where weights are not quantized per channel
                let (mantissa, shift) = (constants.multiplier[0], constants.shift[0]);
                constants.multiplier.fill(mantissa);
                constants.shift.fill(shift);
                compare_dense(fast, depth, &constants, &x, &w);
            }
        }
    }
}

/// Whatever comes nearest to the limits of 16 bits.
#[test]
fn dense_layers_at_the_rails() {
    let Some(fast) = fast() else { return };
    let (depth, outputs) = (600, 9);
    let constants = Constants {
        bias: std::vec![0; outputs],
        multiplier: std::vec![1 << 30; outputs],
        shift: std::vec![-17; outputs],
    };
    for x in [-128, 127] {
        for w in [[-128, -128], [127, 127], [-128, 127]] {
            let w: Vec<i8> = w.into_iter().cycle().take(depth * outputs).collect();
            compare_dense(fast, depth, &constants, &std::vec![x; depth], &w);
        }
    }
}

fn compare_dense(fast: Kernels, depth: usize, constants: &Constants, x: &[i8], w: &[i8]) {
    let outputs = constants.bias.len();
    let n = x.len() / depth * outputs;
    // nothing known of the weights, then what the first of the runs has found out, then no room for that
    let mut memory = std::vec![0; 1 << 20];
    let kept = Kept::new(&mut memory);
    let anew = [-128, 3, 127].map(|zero| (zero, w.into()));
    let again = [-128, 3, 127].map(|zero| (zero, Constant::new(w, Some(&kept))));
    let mut little = [0; 100];
    let little = Kept::new(&mut little);
    let little = (3, Constant::new(w, Some(&little)));
    for (x_zero_point, w) in anew.into_iter().chain(again).chain([little]) {
        let p = DenseI8 {
            depth,
            x,
            x_zero_point,
            w,
            output: constants.requantize(),
        };
        let (mut expected, mut got) = (std::vec![99; n], std::vec![0; n]);
        scalar::dense::forward_i8(&p, &mut expected);
        super::dense_i8(fast, &p, &mut got);
        assert_eq!(got, expected, "{depth} {outputs}");
        got.fill(0);
        // SAFETY: whoever has `fast` has the feature.
        let taken = without(|| unsafe { vector::dense(&p, &mut got) });
        assert_eq!(taken, depth <= 8192 && outputs >= 4, "{depth} {outputs}");
        if taken {
            assert_eq!(got, expected, "{depth} {outputs}");
        }
        got.fill(0);
        without(|| super::dense_i8(fast, &p, &mut got));
        assert_eq!(got, expected, "without 512-bit loops: {depth} {outputs}");
    }
}

#[test]
fn sums_of_awkward_lengths() {
    let Some(fast) = fast() else { return };
    let mut random = Random(5);
    for n in (0..70).chain([1000]) {
        let factor = |random: &mut Random| Multiplier {
            mantissa: random.next() & i32::MAX | 1 << 30,
            shift: -(random.next() & 3),
        };
        let factors = [factor(&mut random), factor(&mut random)];
        let output = Multiplier {
            shift: -19,
            ..factor(&mut random)
        };
        let x = [random.bytes(n), random.bytes(n)];
        compare_add(fast, &x, 20, factors, output);
    }
}

#[test]
fn sums_with_any_factors() {
    let Some(fast) = fast() else { return };
    let mut random = Random(6);
    let x = [random.bytes(37), random.bytes(37)];
    for round in 0..20_000 {
        let mut factor = || Multiplier {
            mantissa: random.mantissa(),
            shift: random.next().rem_euclid(62) - 31,
        };
        compare_add(fast, &x, round % 23, [factor(), factor()], factor());
    }
}

fn compare_add(
    fast: Kernels,
    x: &[Vec<i8>; 2],
    left_shift: u32,
    factors: [Multiplier; 2],
    output: Multiplier,
) {
    let n = x[0].len();
    let p = AddI8 {
        x: [&x[0], &x[1]],
        zero_points: [-128, 127],
        left_shift,
        factors,
        output,
        zero_point: 4,
        range: (-128, 120),
    };
    let (mut expected, mut got) = (std::vec![99; n], std::vec![0; n]);
    super::add_i8(Kernels::Scalar, &p, &mut expected);
    super::add_i8(fast, &p, &mut got);
    assert_eq!(got, expected, "{p:?}");
    got.fill(0);
    // SAFETY: whoever has `fast` has the feature.
    unsafe { vector::add(&p, &mut got) };
    assert_eq!(got, expected, "{p:?}");
}

#[test]
fn products_of_awkward_lengths() {
    let Some(fast) = fast() else { return };
    let mut random = Random(7);
    for n in (0..70).chain([1000]) {
        let x = [random.bytes(n), random.bytes(n)];
        for shift in [-7, -22, -3, 0] {
            let mantissa = random.next() & i32::MAX | 1 << 30;
            compare_mul(fast, &x, Multiplier { mantissa, shift });
        }
    }
}

/// All pairs of elements, and factors of all kinds.
#[test]
fn products_with_any_factor() {
    let Some(fast) = fast() else { return };
    let mut random = Random(8);
    let all: Vec<i8> = (0..=u8::MAX).map(|x| x as i8).collect();
    let first: Vec<i8> = all.iter().flat_map(|&x| [x; 256]).collect();
    let second: Vec<i8> = all.iter().copied().cycle().take(1 << 16).collect();
    let pairs = [first, second];
    for shift in -31..=30 {
        let mantissa = random.mantissa();
        compare_mul(fast, &pairs, Multiplier { mantissa, shift });
    }
}

fn compare_mul(fast: Kernels, x: &[Vec<i8>; 2], output: Multiplier) {
    let n = x[0].len();
    for (zero_points, zero_point, range) in [
        ([-128, 127], 4, (-128, 120)),
        ([0, -3], -128, (-128, 127)),
        ([127, 127], 127, (-5, 127)),
    ] {
        let p = MulI8 {
            x: [&x[0], &x[1]],
            zero_points,
            output,
            zero_point,
            range,
        };
        let (mut expected, mut got) = (std::vec![99; n], std::vec![0; n]);
        super::mul_i8(Kernels::Scalar, &p, &mut expected);
        let runs = counted(|| super::mul_i8(fast, &p, &mut got));
        assert!(got == expected, "{output:?} {zero_points:?}");
        let is_plain = (-22..0).contains(&output.shift);
        let is_wide = super::simd::found().wide_products && is_plain;
        assert_eq!(runs > 0, is_wide, "{output:?}");
        got.fill(0);
        // SAFETY: whoever has `fast` has the feature.
        unsafe { vector::mul(&p, &mut got) };
        assert!(got == expected, "{output:?} {zero_points:?}");
        got.fill(0);
        without(|| super::mul_i8(fast, &p, &mut got));
        assert!(got == expected, "{output:?} {zero_points:?}");
    }
}

/// Any sum and any factor that an image may hold.
#[test]
fn requantization_of_any_sum() {
    let Some(_) = fast() else { return };
    let mut random = Random(3);
    for round in 0..100_000 {
        // inputs at their zero point: all that is left of a sum is the bias
        let bias: Vec<i32> = (0..8).map(|_| random.extreme() >> (round % 32)).collect();
        let multiplier: Vec<i32> = (0..8).map(|_| random.mantissa()).collect();
        let shift: Vec<i32> = (0..8)
            .map(|_| match round % 2 {
                0 => random.next().rem_euclid(62) - 31,
                _ => -random.next().rem_euclid(14),
            })
            .collect();
        let range = range(round);
        let output = Requantize {
            bias: &bias,
            multiplier: &multiplier,
            shift: &shift,
            rounding: Rounding::Double,
            zero_point: random.next().rem_euclid(256) - 128,
            range,
        };
        let p = DenseI8 {
            depth: 1,
            x: &[3],
            x_zero_point: 3,
            w: [1; 8][..].into(),
            output,
        };
        let expected: Vec<i8> = (0..8).map(|o| output.finish(0, o)).collect();
        let mut got = [0; 8];
        // SAFETY: the CPU has the feature.
        assert!(unsafe { vector::dense(&p, &mut got) });
        assert_eq!(got, *expected, "{output:?}");
    }
}

/// Sums that leave 32 bits come back at the other end.
#[test]
fn sums_modulo_2_to_the_32() {
    let Some(fast) = fast() else { return };
    for bias in [i32::MAX, i32::MIN] {
        for (c, is_depthwise) in [(5, false), (16, true), (1, true)] {
            let g = sized(window([6, 5], c, 16, [3, 3]), [0, 0]);
            let constants = Constants {
                bias: std::vec![bias; 16],
                multiplier: (0..16).map(|o| (1 << 30) + (o << 20)).collect(),
                shift: (0..16).map(|o| -24 + (o & 1)).collect(),
            };
            compare_with(fast, &g, is_depthwise, true, &constants);
        }
        let constants = Constants {
            bias: std::vec![bias; 9],
            multiplier: std::vec![1 << 30; 9],
            shift: std::vec![-24; 9],
        };
        let mut random = Random(4);
        let (x, w) = (random.bytes(3 * 50), random.bytes(9 * 50));
        compare_dense(fast, 50, &constants, &x, &w);
    }
}

#[test]
fn other_roundings_are_left() {
    let Some(_) = fast() else { return };
    for rounding in [Rounding::Single, Rounding::Float32, Rounding::Float64] {
        let constants = Constants::new(8, &mut Random(2));
        let output = Requantize {
            rounding,
            ..constants.requantize()
        };
        let p = ConvI8 {
            window: &sized(window([1, 1], 8, 8, [1, 1]), [0, 0]),
            x: &[1; 8],
            x_zero_point: 0,
            w: [1; 64][..].into(),
            output,
        };
        let d = ConvI8 {
            w: [1; 8][..].into(),
            ..p
        };
        let f = DenseI8 {
            depth: 8,
            x: &[1; 8],
            x_zero_point: 0,
            w: [1; 64][..].into(),
            output,
        };
        // SAFETY: the CPU has the feature.
        let taken = unsafe {
            [
                vector::conv(&p, &mut [0; 8]),
                vector::depthwise(&d, &mut [0; 8]),
                vector::dense(&f, &mut [0; 8]),
            ]
        };
        assert_eq!(taken, [false; 3], "{rounding:?}");
    }
}
