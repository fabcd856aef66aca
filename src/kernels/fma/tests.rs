//! Every loop beside the scalar one, over awkward sizes: within [`tolerance`], and independent of the batch.

extern crate std;
#[cfg(test)]
// as this file is: what reads the sources for `tests/house_rules.rs` looks at one file at a time
mod depthwise;
#[cfg(test)]
mod kept;
#[cfg(test)]
mod same_bits;
#[cfg(test)]
mod winograd;

use super::*;
use crate::kernels::{self, Activation, Kernels};
use crate::tensor::Quant;
use core::sync::atomic::Ordering;
use std::vec::Vec;

/// Numbers without a pattern.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as u32
    }

    /// In `low..=high`.
    fn within(&mut self, low: usize, high: usize) -> usize {
        low + self.next() as usize % (high - low + 1)
    }

    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n)
            .map(|_| (self.next() % 20001) as f32 / 1e4 - 1.0)
            .collect()
    }
}

fn magnitudes(x: &[f32]) -> Vec<f32> {
    x.iter().map(|x| x.abs()).collect()
}

/// Runs `kernel(kernels, magnitudes?, start)` in both forms and wants them close: the sums of magnitudes say how close.
fn close(
    terms: usize,
    start: &[f32],
    what: &dyn core::fmt::Debug,
    kernel: impl Fn(Kernels, bool, &mut [f32]),
) {
    let Some(fma) = Fma::new() else { return };
    let (mut expected, mut got) = (start.to_vec(), start.to_vec());
    let mut sizes = magnitudes(start);
    kernel(Kernels::Scalar, false, &mut expected);
    kernel(Kernels::Scalar, true, &mut sizes);
    let before = RUNS.load(Ordering::Relaxed);
    kernel(Kernels::Fma(fma), false, &mut got);
    assert!(
        RUNS.load(Ordering::Relaxed) > before,
        "the forced kernels did not run: {what:?}"
    );
    for (i, ((a, b), size)) in expected.iter().zip(&got).zip(&sizes).enumerate() {
        let allowed = 2.0 * tolerance(terms) * size;
        assert!(
            (a - b).abs() <= allowed,
            "{what:?}: element {i} is {b}, not {a} within {allowed}"
        );
    }
}

/// From weights and the output's gradient to the input's.
type GradientF32<'a> = dyn Fn(Kernels, &[f32], &[f32], &mut [f32]) + 'a;
type GradientI8<'a> = dyn Fn(Kernels, WeightsI8, &[f32], &mut [f32]) + 'a;

/// The loops of a convolution, but for the gradient of its weights.
struct Loops<'a> {
    forward: &'a dyn Fn(Kernels, &ConvF32, &mut [f32]),
    gradient_f32: &'a GradientF32<'a>,
    gradient_i8: &'a GradientI8<'a>,
}

impl Loops<'_> {
    /// Each beside the scalar one, on numbers of these lengths: input, weights, output, filters.
    fn are_close(
        &self,
        (g, what): (&Window, &dyn core::fmt::Debug),
        [x_len, w_len, y_len, filters]: [usize; 4],
        terms: usize,
        numbers: &mut Numbers,
    ) {
        let (x, w, gy) = (
            numbers.floats(x_len),
            numbers.floats(w_len),
            numbers.floats(y_len),
        );
        let bias = numbers.floats(filters);
        let activations = [Activation::None, Activation::Relu, Activation::Relu6];
        let activation = activations[numbers.within(0, 2)];
        let w8: Vec<i8> = w.iter().map(|w| (w * 127.0) as i8).collect();
        let w8_sizes: Vec<i8> = w8.iter().map(|w| w.abs()).collect();
        let scales: Vec<f32> = bias.iter().map(|b| b.abs() + 0.1).collect();
        let [ax, aw, agy, abias] = [&x, &w, &gy, &bias].map(|v| magnitudes(v));
        close(terms, &numbers.floats(y_len), what, |k, sizes, y| {
            let p = ConvF32 {
                window: g,
                x: if sizes { &ax } else { &x },
                w: if sizes { aw[..].into() } else { w[..].into() },
                bias: if sizes { &abias } else { &bias },
                keeps_ties: true,
                activation: if sizes { Activation::None } else { activation },
            };
            (self.forward)(k, &p, y);
        });
        close(terms, &numbers.floats(x_len), what, |k, sizes, gx| {
            let (w, gy) = if sizes { (&aw, &agy) } else { (&w, &gy) };
            (self.gradient_f32)(k, w, gy, gx);
        });
        close(terms, &numbers.floats(x_len), what, |k, sizes, gx| {
            let (w, gy) = if sizes { (&w8_sizes, &agy) } else { (&w8, &gy) };
            let quant = Quant {
                scale: 1.0,
                zero_point: 0,
                channel_scales: &scales,
            };
            (self.gradient_i8)(
                k,
                WeightsI8 {
                    w: w[..].into(),
                    quant,
                },
                gy,
                gx,
            );
        });
    }
}

/// All four loops of a convolution.
fn check(g: &Window, spread: Spread, numbers: &mut Numbers) {
    let [image, places] = conv::images(g);
    let (x_len, y_len, filters) = match spread.transposed {
        false => (image, places, g.out_channels),
        true => (places, image, g.in_channels),
    };
    let cells = g.kernel[0] * g.kernel[1];
    let w_len = cells * g.in_channels * g.out_channels;
    let what = (g, spread);
    let loops = Loops {
        forward: &|k, p, y| match spread {
            PLAIN => kernels::conv_f32(k, p, y),
            _ => kernels::spread_f32(k, spread, p, y),
        },
        gradient_f32: &|k, w, gy, gx| match spread {
            PLAIN => kernels::conv_input_gradient_f32(k, g, w.into(), gy, gx),
            _ => kernels::spread_input_gradient_f32(k, spread, g, w.into(), gy, gx),
        },
        gradient_i8: &|k, w, gy, gx| match spread {
            PLAIN => kernels::conv_input_gradient_i8(k, g, w, gy, gx),
            _ => kernels::spread_input_gradient_i8(k, spread, g, w, gy, gx),
        },
    };
    let terms = cells * g.in_channels.max(g.out_channels);
    loops.are_close((g, &what), [x_len, w_len, y_len, filters], terms, numbers);
    let (x, gy) = (numbers.floats(x_len), numbers.floats(y_len));
    let (ax, agy) = (magnitudes(&x), magnitudes(&gy));
    let terms = g.batch * g.output[0] * g.output[1];
    close(terms, &numbers.floats(w_len), &what, |k, sizes, gw| {
        let (x, gy) = if sizes { (&ax, &agy) } else { (&x, &gy) };
        match spread {
            PLAIN => kernels::conv_weight_gradient_f32(k, g, x, gy, gw),
            _ => kernels::spread_weight_gradient_f32(k, spread, g, x, gy, gw),
        }
    });
}

/// A window over an image of `input`, padded by `padding` before and by `after` behind; None where it does not fit.
fn window(
    batch: usize,
    input: [usize; 2],
    channels: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    [padding, after]: [[usize; 2]; 2],
) -> Option<Window> {
    let mut output = [0; 2];
    for axis in 0..2 {
        let reach = (kernel[axis] - 1) * dilation[axis] + 1;
        let padded = input[axis] + padding[axis] + after[axis];
        output[axis] = padded.checked_sub(reach)? / stride[axis] + 1;
    }
    Some(Window {
        batch,
        input,
        in_channels: channels[0],
        output,
        out_channels: channels[1],
        kernel,
        stride,
        dilation,
        padding,
    })
}

#[test]
fn convolutions_are_close_to_scalar() {
    let mut numbers = Numbers(1);
    let channels = [1, 2, 3, 7, 8, 9, 16, 17, 33];
    let mut checked = 0;
    while checked < 150 {
        let mut pair = |low, high| [numbers.within(low, high), numbers.within(low, high)];
        let (kernel, stride) = (pair(1, 5), pair(1, 3));
        let (input, padding, after) = (pair(1, 12), pair(0, 3), pair(0, 3));
        let dilation = stride.map(|s| if s == 1 { numbers.within(1, 2) } else { 1 });
        let c = [0; 2].map(|_| channels[numbers.within(0, 8)]);
        let batch = numbers.within(1, 3);
        let g = window(batch, input, c, kernel, stride, dilation, [padding, after]);
        let Some(g) = g else { continue };
        for transposed in [false, true] {
            let spread = Spread {
                groups: 1,
                transposed,
            };
            check(&g, spread, &mut numbers);
        }
        checked += 1;
    }
}

/// Layers whose weights or images are cut into pieces.
#[test]
fn large_convolutions_are_close_to_scalar() {
    let mut numbers = Numbers(2);
    for (input, channels, kernel, stride) in [
        ([8, 9], [100, 70], [5, 5], [2, 2]),
        ([40, 200], [12, 20], [3, 3], [1, 1]),
        ([3, 3], [700, 40], [1, 1], [1, 1]),
        ([14, 14], [130, 1], [4, 4], [2, 2]),
        ([11, 11], [1, 260], [11, 11], [1, 1]),
    ] {
        let padding = kernel.map(|k: usize| k / 2);
        let g = window(2, input, channels, kernel, stride, [1; 2], [padding; 2]);
        for transposed in [false, true] {
            let spread = Spread {
                groups: 1,
                transposed,
            };
            check(&g.unwrap(), spread, &mut numbers);
        }
    }
}

#[test]
fn dense_layers_are_close_to_scalar() {
    let mut numbers = Numbers(3);
    for batch in [1, 2, 3, 5, 8, 13, 16] {
        for depth in [1, 3, 8, 15, 16, 17, 100] {
            for outputs in [1, 2, 4, 5, 6, 7, 8, 13, 19] {
                dense_layer_is_close_to_scalar(&mut numbers, [batch, depth, outputs]);
            }
        }
    }
    // more than one block of samples, of weights, of packed operands; rows that would meet in the cache
    for sizes in [
        [50, 1024, 41],
        [4, 512, 40],
        [32, 64, 256],
        [33, 100, 31],
        [300, 24, 40],
        [1040, 9, 7],
        [17, 900, 10],
        [4, 1700, 300],
        [140, 30, 270],
    ] {
        dense_layer_is_close_to_scalar(&mut numbers, sizes);
    }
}

fn dense_layer_is_close_to_scalar(numbers: &mut Numbers, [batch, depth, outputs]: [usize; 3]) {
    let x = numbers.floats(batch * depth);
    let (w, gy) = (
        numbers.floats(depth * outputs),
        numbers.floats(batch * outputs),
    );
    let bias = numbers.floats(outputs);
    let [ax, aw, agy, abias] = [&x, &w, &gy, &bias].map(|v| magnitudes(v));
    let what = (batch, depth, outputs);
    let start = numbers.floats(batch * outputs);
    close(depth, &start, &what, |k, sizes, y| {
        let p = DenseF32 {
            depth,
            x: if sizes { &ax } else { &x },
            w: if sizes { &aw } else { &w },
            bias: if sizes { &abias } else { &bias },
            activation: match sizes {
                true => Activation::None,
                false => Activation::Relu,
            },
        };
        kernels::dense_f32(k, &p, y);
    });
    let start = numbers.floats(batch * depth);
    close(outputs, &start, &what, |k, sizes, gx| {
        let (w, gy) = if sizes { (&aw, &agy) } else { (&w, &gy) };
        kernels::dense_input_gradient_f32(k, depth, w, gy, gx);
    });
    let start = numbers.floats(outputs * depth);
    close(batch, &start, &what, |k, sizes, gw| {
        let (x, gy) = if sizes { (&ax, &agy) } else { (&x, &gy) };
        kernels::dense_weight_gradient_f32(k, depth, x, gy, gw);
    });
}

/// Each sample of a batch gets the bits that it gets alone.
#[test]
fn a_sample_of_a_dense_layer_does_not_feel_its_batch() {
    let Some(fma) = Fma::new() else { return };
    let fma = Kernels::Fma(fma);
    let mut numbers = Numbers(6);
    for [batch, depth, outputs] in [
        [16, 1, 6],
        [17, 7, 24],
        [19, 8, 5],
        [32, 784, 25],
        [33, 37, 31],
        [40, 900, 9],
        [140, 20, 300],
        [36, 2049, 7],
        [35, 1024, 42],
    ] {
        let [x, w] = [batch, outputs].map(|n| numbers.floats(n * depth));
        let [gy, bias] = [batch, 1].map(|n| numbers.floats(n * outputs));
        let start = numbers.floats(batch * depth);
        let run = |samples: core::ops::Range<usize>| {
            let mut y = std::vec![0.0; samples.len() * outputs];
            let [inputs, answers] = [depth, outputs].map(|n| samples.start * n..samples.end * n);
            let mut gx = start[inputs.clone()].to_vec();
            let p = DenseF32 {
                depth,
                x: &x[inputs],
                w: w[..].into(),
                bias: &bias,
                activation: Activation::Relu,
            };
            kernels::dense_f32(fma, &p, &mut y);
            kernels::dense_input_gradient_f32(fma, depth, &w, &gy[answers], &mut gx);
            let bits = |v: Vec<f32>| v.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            (bits(y), bits(gx))
        };
        let (y, gx) = run(0..batch);
        for n in 0..batch {
            let alone = run(n..n + 1);
            assert_eq!(alone.0, y[n * outputs..][..outputs], "{n} of {batch}");
            assert_eq!(alone.1, gx[n * depth..][..depth], "{n} of {batch}");
        }
    }
}

/// The first sample of a batch gets the bits that it gets alone.
#[test]
fn a_sample_does_not_feel_its_batch() {
    let Some(fma) = Fma::new() else { return };
    let fma = Kernels::Fma(fma);
    let mut numbers = Numbers(4);
    for batch in [2, 3, 4, 7] {
        let (depth, outputs) = (37, 21);
        let (x, w) = (
            numbers.floats(batch * depth),
            numbers.floats(depth * outputs),
        );
        let (bias, gy) = (numbers.floats(outputs), numbers.floats(batch * outputs));
        let run = |n: usize| {
            let (mut y, mut gx) = (std::vec![0.0; n * outputs], std::vec![0.0; n * depth]);
            let p = DenseF32 {
                depth,
                x: &x[..n * depth],
                w: w[..].into(),
                bias: &bias,
                activation: Activation::None,
            };
            kernels::dense_f32(fma, &p, &mut y);
            kernels::dense_input_gradient_f32(fma, depth, &w, &gy[..n * outputs], &mut gx);
            (y[..outputs].to_vec(), gx[..depth].to_vec())
        };
        assert_eq!(run(1), run(batch));
        let conv = |n: usize| {
            let g = window(n, [7, 7], [5, 19], [3, 3], [2, 2], [1; 2], [[1; 2]; 2]).unwrap();
            let [image, places] = conv::images(&g);
            let mut fresh = Numbers(5);
            let (w, bias) = (fresh.floats(9 * 5 * 19), fresh.floats(19));
            let (x, gy) = (fresh.floats(7 * 7 * 5), fresh.floats(4 * 4 * 19));
            let repeated =
                |v: &[f32]| -> Vec<f32> { v.iter().copied().cycle().take(n * v.len()).collect() };
            let (x, gy) = (repeated(&x), repeated(&gy));
            let (mut y, mut gx) = (std::vec![0.0; places], std::vec![0.0; image]);
            let p = ConvF32 {
                window: &g,
                x: &x,
                w: w[..].into(),
                bias: &bias,
                keeps_ties: true,
                activation: Activation::None,
            };
            kernels::conv_f32(fma, &p, &mut y);
            kernels::conv_input_gradient_f32(fma, &g, w[..].into(), &gy, &mut gx);
            let last = |v: &[f32]| v[v.len() - v.len() / n..].to_vec();
            (last(&y), last(&gx))
        };
        assert_eq!(conv(1), conv(batch));
    }
}

/// Rails and not-a-number as the scalar kernels have them.
#[test]
fn activations_keep_not_a_number() {
    let Some(fma) = Fma::new() else { return };
    let x = [f32::NAN, -1.0, 7.0, 0.5];
    for activation in [Activation::None, Activation::Relu, Activation::Relu6] {
        let g = window(1, [2, 2], [1, 9], [1, 1], [1; 2], [1; 2], [[0; 2]; 2]).unwrap();
        let p = ConvF32 {
            window: &g,
            x: &x,
            w: [1.0; 9][..].into(),
            bias: &[0.0; 9],
            keeps_ties: true,
            activation,
        };
        let (mut a, mut b) = ([0.0; 36], [0.0; 36]);
        kernels::conv_f32(Kernels::Scalar, &p, &mut a);
        kernels::conv_f32(Kernels::Fma(fma), &p, &mut b);
        assert_eq!(a.map(f32::to_bits), b.map(f32::to_bits));
    }
}

/// Every chain goes to the fixed point of `s = 0.999 s + 0.999`, 999, and there are twelve.
#[test]
fn the_peak_loop_does_its_multiply_adds() {
    let Some(fma) = Fma::new() else {
        return;
    };
    let check = || {
        // one round from 0, 1, .. 11: 0.999 (66 + 12)
        assert!((fma.peak(1) - 0.999 * 78.0).abs() < 1e-3);
        assert!((fma.peak(30_000) - 12.0 * 999.0).abs() < 12.0);
    };
    check();
    crate::kernels::wide_in_tests::without(check);
}

/// A 3x3 window that moves by one pixel.
fn small(batch: usize, input: [usize; 2], channels: [usize; 2], padding: usize) -> Window {
    let padding = [[padding; 2]; 2];
    window(batch, input, channels, [3; 2], [1; 2], [1; 2], padding).unwrap()
}

/// First layers: few channels in, whole vectors out, at least as wide as a block of places.
const STEMS: [([usize; 2], [usize; 2], usize); 6] = [
    ([9, 9], [1, 8], 0),
    ([5, 7], [1, 16], 1),
    ([6, 12], [3, 8], 1),
    ([3, 8], [3, 24], 2),
    ([28, 28], [1, 40], 1),
    ([32, 32], [3, 16], 1),
];

#[test]
fn first_layers_are_close_to_scalar() {
    let bias = [0.0; 40];
    let ends = Ends {
        bias: Some(&bias),
        activation: Activation::Relu,
        keeps_ties: true,
    };
    let mut numbers = Numbers(9);
    for (input, channels, padding) in STEMS {
        let g = small(2, input, channels, padding);
        assert!(stem::takes(&to_places(PLAIN, &g), &ends));
        check(&g, PLAIN, &mut numbers);
    }
}

#[test]
fn first_layers_do_not_feel_the_batch() {
    let Some(fma) = Fma::new() else { return };
    let fma = Kernels::Fma(fma);
    let mut numbers = Numbers(10);
    for (input, [c, o], padding) in STEMS {
        let [image, places] = conv::images(&small(1, input, [c, o], padding));
        let x = numbers.floats(3 * image);
        let (w, bias) = (numbers.floats(9 * c * o), numbers.floats(o));
        let run = |n: usize, x: &[f32]| {
            let mut y = std::vec![0.0; n * places];
            let p = ConvF32 {
                window: &small(n, input, [c, o], padding),
                x,
                w: w[..].into(),
                bias: &bias,
                keeps_ties: true,
                activation: Activation::Relu6,
            };
            kernels::conv_f32(fma, &p, &mut y);
            y
        };
        let y = run(3, &x);
        for n in 0..3 {
            let alone = run(1, &x[n * image..][..image]);
            assert_eq!(alone, y[n * places..][..places]);
        }
    }
}

/// What is written over anything is what is added to zeros, to the bit: with whole phases and pixels that no window reaches.
#[test]
fn a_gradient_that_is_set_is_one_that_is_added_to_nothing() {
    let Some(fma) = Fma::new() else { return };
    let mut numbers = Numbers(11);
    for (input, channels, kernel, stride) in [
        ([7, 9], [16, 8], [3, 3], [1, 1]),
        ([8, 8], [1, 8], [3, 3], [1, 1]),
        ([9, 6], [3, 16], [3, 3], [1, 1]),
        ([9, 8], [16, 32], [3, 3], [2, 2]),
        ([8, 7], [5, 9], [1, 1], [2, 2]),
        ([10, 11], [7, 24], [2, 3], [3, 2]),
    ] {
        let padding = kernel.map(|k: usize| k / 2);
        let g = window(2, input, channels, kernel, stride, [1; 2], [padding; 2]).unwrap();
        let [image, places] = conv::images(&g);
        let gy = numbers.floats(places);
        let w = numbers.floats(kernel[0] * kernel[1] * channels[0] * channels[1]);
        let (mut added, mut set) = (std::vec![0.0; image], std::vec![f32::NAN; image]);
        fma.conv_input_gradient_f32(&g, w[..].into(), &gy, &mut added);
        assert!(fma.conv_set_input_gradient_f32(&g, w[..].into(), &gy, &mut set));
        assert_eq!(added, set, "{g:?}");
    }
}

/// The same of dense layers: with one sample, one output, and lanes and rows that fill no tile; more terms than are packed at once.
#[test]
fn a_dense_gradient_that_is_set_is_one_that_is_added_to_nothing() {
    let Some(fma) = Fma::new() else { return };
    let mut numbers = Numbers(13);
    for [batch, depth, outputs] in [
        [1, 9, 1],
        [1, 20, 5],
        [6, 33, 1],
        [32, 64, 40],
        [64, 100, 31],
        [300, 24, 13],
        [3, 17, 300],
    ] {
        let x = numbers.floats(batch * depth);
        let w = numbers.floats(outputs * depth);
        let gy = numbers.floats(batch * outputs);
        let (mut added, mut set) = (std::vec![0.0; w.len()], std::vec![f32::NAN; w.len()]);
        fma.dense_weight_gradient_f32(depth, &x, &gy, &mut added);
        assert!(fma.dense_set_weight_gradient_f32(depth, &x, &gy, &mut set));
        assert_eq!(added, set, "weights {batch} {depth} {outputs}");
        let (mut added, mut set) = (std::vec![0.0; x.len()], std::vec![f32::NAN; x.len()]);
        fma.dense_input_gradient_f32(depth, &w, &gy, &mut added);
        assert!(fma.dense_set_input_gradient_f32(depth, &w, &gy, &mut set));
        assert_eq!(added, set, "input {batch} {depth} {outputs}");
    }
    assert!(!fma.dense_set_weight_gradient_f32(3, &[0.0; 3], &[0.0; 2], &mut [0.0; 5]));
    assert!(!fma.dense_set_input_gradient_f32(3, &[0.0; 6], &[0.0; 3], &mut [0.0; 3]));
}

/// Sums of one number each are those of the loops for any slide, to the bit, added to zeros or set.
#[test]
fn one_channel_is_as_any_number_of_them() {
    if Fma::new().is_none() {
        return;
    }
    let mut numbers = Numbers(12);
    for (input, filters, padding) in [
        ([28, 28], 8, 1),
        ([3, 8], 16, 1),
        ([7, 9], 24, 0),
        ([64, 31], 32, 2),
        ([5, 17], 8, 1),
    ] {
        let g = small(2, input, [1, filters], padding);
        let [image, places] = conv::images(&g);
        let (gy, w) = (numbers.floats(places), numbers.floats(9 * filters));
        let weights = Weights::F32(w[..].into());
        let before = numbers.floats(image);
        for bias in [None, Some(&[0.5][..])] {
            let ends = Ends { bias, ..conv::ADD };
            let (mut ours, mut expected) = (before.clone(), before.clone());
            let mut slides = 0;
            let (row, image_step, place_step) = steps(PLAIN, &g);
            conv::backward(&g, [filters, 1], row, [place_step, image_step], |slide| {
                assert!(one::takes(slide, &ends), "{g:?}");
                // SAFETY: the CPU has what it takes, and all sizes are the slide's.
                unsafe {
                    one::run(slide, &Work::new(&gy, &weights, &ends, &mut ours));
                    slide.run_plain(&Work::new(&gy, &weights, &ends, &mut expected));
                }
                slides += 1;
            });
            assert_eq!((ours, slides), (expected, 1), "{g:?}");
        }
    }
}
