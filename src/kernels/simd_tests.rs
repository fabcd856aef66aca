//! The vector loops beside the scalar ones that they replace: the same bits, and that they are what runs.

extern crate std;
use super::simd::Simd;
use super::{
    BatchNormF32, ConvF32, ConvI8, DenseF32, DenseI8, Kernels, NORMALIZED, Requantize, Spread,
    WeightsI8, Window, scalar,
};
use crate::kernels::wide_in_tests::counted_simd;
use crate::kernels::{Activation, Rounding};
use crate::tensor::Quant;
use std::vec::Vec;

/// Numbers without a pattern, in -1..1.
fn floats(n: usize, seed: u32) -> Vec<f32> {
    ints(n, seed).iter().map(|&i| i as f32 / 128.0).collect()
}

fn ints(n: usize, seed: u32) -> Vec<i8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 24) as i8
    };
    (0..n).map(|_| next()).collect()
}

/// Runs both, wants the same bits and that the vectors' form was the one that ran.
fn same<T: PartialEq + Clone + core::fmt::Debug>(
    simd: Simd,
    start: &[T],
    run: impl Fn(Kernels, &mut [T]),
) {
    let (mut a, mut b) = (start.to_vec(), start.to_vec());
    run(Kernels::Scalar, &mut a);
    let runs = counted_simd(|| run(Kernels::Simd(simd), &mut b));
    assert_eq!(runs, 1, "the forced kernels did not run");
    assert_eq!(a, b);
    assert_ne!(a, start, "the kernel did nothing");
}

fn compare_window(simd: Simd, g: &Window, depthwise: bool) {
    let (x_len, y_len) = (
        g.batch * g.input[0] * g.input[1] * g.in_channels,
        g.batch * g.output[0] * g.output[1] * g.out_channels,
    );
    let cells = g.kernel[0] * g.kernel[1];
    let w_len = cells * g.out_channels * if depthwise { 1 } else { g.in_channels };
    let (x, w, gy) = (floats(x_len, 1), floats(w_len, 2), floats(y_len, 3));
    let (x8, w8) = (ints(x_len, 4), ints(w_len, 5));
    let bias = floats(g.out_channels, 6);
    let bias8: Vec<i32> = bias.iter().map(|b| (b * 1e4) as i32).collect();
    let scales: Vec<f32> = bias.iter().map(|b| b.abs() + 0.1).collect();
    let (multiplier, shift) = (
        std::vec![1 << 30; g.out_channels],
        std::vec![-6; g.out_channels],
    );
    let weights = WeightsI8 {
        w: w8[..].into(),
        quant: Quant {
            scale: 1.0,
            zero_point: 0,
            channel_scales: &scales,
        },
    };
    let pf = ConvF32 {
        window: g,
        x: &x,
        w: w[..].into(),
        bias: &bias,
        keeps_ties: true,
        activation: Activation::Relu6,
    };
    let pi = ConvI8 {
        window: g,
        x: &x8,
        x_zero_point: 7,
        w: w8[..].into(),
        output: Requantize {
            bias: &bias8,
            multiplier: &multiplier,
            shift: &shift,
            rounding: Rounding::Double,
            zero_point: -5,
            range: (-128, 127),
        },
    };
    let (y0, y8) = (std::vec![9.0; y_len], std::vec![99; y_len]);
    let (gx0, gw0) = (floats(x_len, 7), floats(w_len, 8));
    if depthwise {
        same(simd, &y0, |k, y| super::depthwise_f32(k, &pf, y));
        same(simd, &y8, |k, y| super::depthwise_i8(k, &pi, y));
        same(simd, &gx0, |k, g_| {
            super::depthwise_input_gradient_f32(k, g, w[..].into(), &gy, g_)
        });
        same(simd, &gx0, |k, g_| {
            super::depthwise_input_gradient_i8(k, g, weights, &gy, g_)
        });
        same(simd, &gw0, |k, g_| {
            super::depthwise_weight_gradient_f32(k, g, &x, &gy, g_)
        });
    } else {
        same(simd, &y0, |k, y| super::conv_f32(k, &pf, y));
        same(simd, &y8, |k, y| super::conv_i8(k, &pi, y));
        same(simd, &gx0, |k, g_| {
            super::conv_input_gradient_f32(k, g, w[..].into(), &gy, g_)
        });
        same(simd, &gx0, |k, g_| {
            super::conv_input_gradient_i8(k, g, weights, &gy, g_)
        });
        same(simd, &gw0, |k, g_| {
            super::conv_weight_gradient_f32(k, g, &x, &gy, g_)
        });
    }
}

fn compare_dense(simd: Simd, n: usize, depth: usize, o: usize) {
    let (x, w, bias, gy) = (
        floats(n * depth, 1),
        floats(o * depth, 2),
        floats(o, 3),
        floats(n * o, 4),
    );
    let (x8, w8) = (ints(n * depth, 5), ints(o * depth, 6));
    let (bias8, multiplier, shift) = (std::vec![100; o], std::vec![1 << 30; o], std::vec![-5; o]);
    let pf = DenseF32 {
        depth,
        x: &x,
        w: &w,
        bias: &bias,
        activation: Activation::None,
    };
    let pi = DenseI8 {
        depth,
        x: &x8,
        x_zero_point: -128,
        w: w8[..].into(),
        output: Requantize {
            bias: &bias8,
            multiplier: &multiplier,
            shift: &shift,
            rounding: Rounding::Single,
            zero_point: 3,
            range: (-128, 127),
        },
    };
    let weights = WeightsI8 {
        w: w8[..].into(),
        quant: Quant::NONE,
    };
    let (y0, y8) = (std::vec![9.0; n * o], std::vec![99; n * o]);
    let (gx0, gw0) = (floats(n * depth, 7), floats(o * depth, 8));
    same(simd, &y0, |k, y| super::dense_f32(k, &pf, y));
    same(simd, &y8, |k, y| super::dense_i8(k, &pi, y));
    same(simd, &gx0, |k, g| {
        super::dense_input_gradient_f32(k, depth, &w, &gy, g)
    });
    same(simd, &gx0, |k, g| {
        super::dense_input_gradient_i8(k, depth, weights, &gy, g)
    });
    same(simd, &gw0, |k, g| {
        super::dense_weight_gradient_f32(k, depth, &x, &gy, g)
    });
}

/// Over shapes that leave every kind of remainder. (One test, since the runs are counted globally.)
fn compare_spread(simd: Simd, g: &Window, transposed: bool) {
    let spread = Spread {
        groups: 1,
        transposed,
    };
    let large = g.batch * g.input[0] * g.input[1] * g.in_channels;
    let small = g.batch * g.output[0] * g.output[1] * g.out_channels;
    let (x_len, y_len, o) = match transposed {
        true => (small, large, g.in_channels),
        false => (large, small, g.out_channels),
    };
    let w_len = g.kernel[0] * g.kernel[1] * g.in_channels * g.out_channels;
    let (x, w, gy) = (floats(x_len, 1), floats(w_len, 2), floats(y_len, 3));
    let (x8, w8) = (ints(x_len, 4), ints(w_len, 5));
    let bias = floats(o, 6);
    let bias8: Vec<i32> = bias.iter().map(|b| (b * 1e4) as i32).collect();
    let (multiplier, shift) = (std::vec![1 << 30; o], std::vec![-6; o]);
    let pf = ConvF32 {
        window: g,
        x: &x,
        w: w[..].into(),
        bias: &bias,
        keeps_ties: true,
        activation: Activation::Relu,
    };
    let pi = ConvI8 {
        window: g,
        x: &x8,
        x_zero_point: -3,
        w: w8[..].into(),
        output: Requantize {
            bias: &bias8,
            multiplier: &multiplier,
            shift: &shift,
            rounding: Rounding::Double,
            zero_point: 5,
            range: (-128, 127),
        },
    };
    let weights = WeightsI8 {
        w: w8[..].into(),
        quant: Quant {
            scale: 0.3,
            zero_point: 0,
            channel_scales: &[],
        },
    };
    use crate::kernels;
    same(simd, &std::vec![9.0; y_len], |k, y| {
        kernels::spread_f32(k, spread, &pf, y)
    });
    same(simd, &std::vec![99; y_len], |k, y| {
        kernels::spread_i8(k, spread, &pi, y)
    });
    same(simd, &floats(x_len, 7), |k, gx| {
        kernels::spread_input_gradient_f32(k, spread, g, w[..].into(), &gy, gx)
    });
    same(simd, &floats(x_len, 7), |k, gx| {
        kernels::spread_input_gradient_i8(k, spread, g, weights, &gy, gx)
    });
    same(simd, &floats(w_len, 8), |k, gw| {
        kernels::spread_weight_gradient_f32(k, spread, g, &x, &gy, gw)
    });
}

/// Rows of so many channels, block by block.
fn compare_batch_norm(simd: Simd, rows: usize, channels: usize) {
    let (x, gy) = (floats(rows * channels, 1), floats(rows * channels, 2));
    let constants = floats(5 * NORMALIZED, 3);
    let constants = constants.as_chunks::<NORMALIZED>().0;
    let [mean, inverse, scale, shift, other] = [0, 1, 2, 3, 4].map(|i| &constants[i]);
    use crate::kernels;
    for first in (0..channels).step_by(NORMALIZED) {
        let p = BatchNormF32 {
            x: &x,
            channels,
            first,
        };
        let none = [9.0f64; 2 * NORMALIZED];
        same(simd, &none, |k, to| {
            let sums = kernels::batch_norm_statistics_f32(k, &p);
            to.copy_from_slice(sums.as_flattened());
        });
        same(simd, &none, |k, to| {
            let sums = kernels::batch_norm_sums_f32(k, &p, [mean, inverse], &gy);
            to.copy_from_slice(sums.as_flattened());
        });
        same(simd, &floats(rows * channels, 4), |k, y| {
            kernels::batch_norm_f32(k, &p, [mean, scale, shift], y);
        });
        same(simd, &floats(rows * channels, 5), |k, gx| {
            let constants = [mean, inverse, scale, shift, other];
            kernels::batch_norm_input_gradient_f32(k, &p, constants, &gy, gx);
        });
    }
}

/// Averages of windows that reach beyond the image.
fn compare_average(simd: Simd, channels: usize) {
    let g = Window {
        batch: 2,
        input: [7, 6],
        in_channels: channels,
        output: [4, 3],
        out_channels: channels,
        kernel: [3, 4],
        stride: [2, 2],
        dilation: [1, 1],
        padding: [1, 1],
    };
    let real = floats(2 * 7 * 6 * channels, 4);
    for activation in [Activation::None, Activation::Relu6] {
        same(simd, &std::vec![9.0; 2 * 4 * 3 * channels], |k, y| {
            super::average_pool_f32(k, &g, &real, activation, y);
        });
    }
    let x = ints(2 * 7 * 6 * channels, 1);
    for range in [(-128, 127), (-3, 5)] {
        same(simd, &std::vec![99; 2 * 4 * 3 * channels], |k, y| {
            super::average_pool_i8(k, &g, &x, range, y);
        });
    }
}

#[test]
fn channels_of_one_kind_have_the_scalar_bits() {
    let Some(simd) = Simd::new() else {
        std::eprintln!("SKIPPED: AVX2 or NEON is not there");
        return;
    };
    for channels in [1, 7, 16, 17, 40, 64] {
        for rows in [1, 2, 9, 50] {
            compare_batch_norm(simd, rows, channels);
        }
    }
    for channels in [1, 16, 48, 63, 64, 65, 96, 128] {
        compare_average(simd, channels);
    }
}

/// Of so many cells that their sum has more digits than an f32.
#[test]
fn averages_of_huge_windows_are_exact() {
    let Some(simd) = Simd::new() else { return };
    let g = Window {
        batch: 1,
        input: [400, 400],
        in_channels: 16,
        output: [1, 1],
        out_channels: 16,
        kernel: [400, 400],
        stride: [1, 1],
        dilation: [1, 1],
        padding: [0, 0],
    };
    // one less than what is rounded to 110
    let (cells, least) = (400 * 400, 109 * 400 * 400 + 400 * 400 / 2);
    let mut x = std::vec![109; cells * 16];
    x[..(least - 109 * cells) * 16 - 16].fill(110);
    for y in [0, 1] {
        x[..16].fill(109 + y);
        same(simd, &[0; 16], |k, y| {
            super::average_pool_i8(k, &g, &x, (-128, 127), y);
        });
    }
}

/// Whatever the sum.
#[test]
fn averages_are_exact() {
    for count in (1..70).chain([100, 125, 1000, 4095, 65_535, 65_536]) {
        for sum in -128 * count..=127 * count {
            let expected = scalar::pool::average(sum, count, (-128, 127));
            let got = super::simd::average(sum, count);
            assert_eq!(got, i32::from(expected), "{sum} of {count}");
        }
    }
}

#[test]
fn same_bits_as_scalar() {
    let Some(simd) = Simd::new() else {
        std::eprintln!("SKIPPED: AVX2 or NEON is not there, or not detected without feature `std`");
        return;
    };
    for (batch, input, c, o, kernel, stride, dilation, padding) in [
        (1, [1, 1], 1, 1, [1, 1], 1, 1, 0),
        (2, [7, 5], 3, 5, [3, 2], 1, 1, 1),
        (1, [9, 8], 8, 4, [3, 3], 2, 1, 1),
        (1, [6, 11], 17, 9, [2, 3], 1, 2, 2),
        (3, [5, 5], 33, 6, [1, 1], 1, 1, 0),
        (1, [4, 40], 2, 31, [3, 7], 1, 1, 3),
    ] {
        for depthwise in [false, true] {
            let extent =
                |i: usize| (input[i] + 2 * padding - (kernel[i] - 1) * dilation - 1) / stride + 1;
            let g = Window {
                batch,
                input,
                in_channels: c,
                output: [extent(0), extent(1)],
                out_channels: if depthwise { c * (1 + o % 2) } else { o },
                kernel,
                stride: [stride; 2],
                dilation: [dilation; 2],
                padding: [padding; 2],
            };
            compare_spread(simd, &g, depthwise);
            compare_window(simd, &g, depthwise);
        }
    }
    for (n, depth, o) in [(1, 1, 1), (3, 7, 5), (2, 64, 10), (1, 131, 9)] {
        compare_dense(simd, n, depth, o);
    }
}
