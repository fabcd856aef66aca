//! Depthwise convolutions.

use super::*;
use crate::kernels::wide_in_tests::{counted, without};

/// Windows over images of a few rows, of all sizes that slides can do; half of them three by three, which have loops of their own.
fn windows(numbers: &mut Numbers, count: usize) -> Vec<Window> {
    let channels = [1, 3, 8, 9, 16, 24, 33, 40, 70];
    let mut windows = std::vec![];
    while windows.len() < count {
        let mut pair = |low, high| [numbers.within(low, high), numbers.within(low, high)];
        let (mut kernel, stride) = (pair(1, 5), pair(1, 3));
        if windows.len() % 2 == 0 {
            kernel = [3, 3];
        }
        let (input, padding, after) = (pair(1, 24), pair(0, 3), pair(0, 3));
        let dilation = stride.map(|s| if s == 1 { numbers.within(1, 2) } else { 1 });
        let c = [channels[numbers.within(0, 8)]; 2];
        let batch = numbers.within(1, 3);
        windows.extend(window(
            batch,
            input,
            c,
            kernel,
            stride,
            dilation,
            [padding, after],
        ));
    }
    windows
}

#[test]
fn depthwise_convolutions_are_close_to_scalar() {
    let mut numbers = Numbers(8);
    let mut shapes = windows(&mut numbers, 200);
    // backward windows three by three over every second row and column of the image
    for (kernel, stride) in [
        ([6, 6], [2, 2]),
        ([5, 5], [2, 2]),
        ([3, 6], [1, 2]),
        ([9, 7], [3, 2]),
    ] {
        for (c, input) in [(16, [9, 12]), (24, [12, 9]), (40, [11, 13])] {
            let padding = [[1, 2], [2, 1]];
            shapes.push(window(2, input, [c; 2], kernel, stride, [1; 2], padding).unwrap());
        }
    }
    for g in shapes {
        let [image, places] = conv::images(&g);
        let cells = g.kernel[0] * g.kernel[1];
        let loops = Loops {
            forward: &|k, p, y| kernels::depthwise_f32(k, p, y),
            gradient_f32: &|k, w, gy, gx| {
                kernels::depthwise_input_gradient_f32(k, &g, w.into(), gy, gx);
            },
            gradient_i8: &|k, w, gy, gx| kernels::depthwise_input_gradient_i8(k, &g, w, gy, gx),
        };
        let lens = [image, cells * g.in_channels, places, g.in_channels];
        loops.are_close((&g, &g), lens, cells, &mut numbers);
    }
}

/// The sum goes over the cells inside, in their order, each product added with one rounding; then comes the bias.
#[test]
fn depthwise_sums_are_in_order() {
    let Some(fma) = Fma::new() else { return };
    let mut numbers = Numbers(15);
    let mut shapes = windows(&mut numbers, 300);
    // no cell inside at some places, one at others; edges alone
    for (input, padding) in [([1, 1], 2), ([2, 3], 3), ([4, 1], 1), ([1, 9], 1)] {
        let g = window(2, input, [24; 2], [3; 2], [1; 2], [1; 2], [[padding; 2]; 2]);
        shapes.push(g.unwrap());
    }
    for g in shapes {
        let [image, places] = conv::images(&g);
        let c = g.in_channels;
        let (x, bias) = (numbers.floats(image), numbers.floats(c));
        let w = numbers.floats(g.kernel[0] * g.kernel[1] * c);
        let mut expected = std::vec![];
        for (n, rows, columns) in g.windows() {
            for o in 0..c {
                let mut sum = 0.0f32;
                for cell in g.cells(n, rows, columns) {
                    sum = x[cell.pixel * c + o].mul_add(w[cell.cell * c + o], sum);
                }
                expected.push((sum + bias[o]).clamp(0.0, 6.0).to_bits());
            }
        }
        let p = ConvF32 {
            window: &g,
            x: &x,
            w: w[..].into(),
            bias: &bias,
            keeps_ties: true,
            activation: Activation::Relu6,
        };
        let run = || {
            let mut y = std::vec![9.0; places];
            kernels::depthwise_f32(Kernels::Fma(fma), &p, &mut y);
            y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let mut found = std::vec![];
        let runs = counted(|| found = run());
        assert_eq!(found, expected, "{g:?}");
        if g.kernel == [3; 2] && g.padding == [1; 2] && g.input[1] > 2 && c >= 16 {
            assert_eq!(runs > 0, crate::kernels::simd::found().wide, "{g:?}");
        }
        assert_eq!(without(run), expected, "{g:?}");
    }
}

/// Each sample of a batch gets the bits that it gets alone, and a place those that it gets in another column.
#[test]
fn depthwise_convolutions_do_not_feel_batch_or_neighbours() {
    let Some(fma) = Fma::new() else { return };
    let fma = Kernels::Fma(fma);
    let mut numbers = Numbers(9);
    for g in windows(&mut numbers, 60) {
        let [image, places] = conv::images(&g).map(|n| n / g.batch);
        let w = numbers.floats(g.kernel[0] * g.kernel[1] * g.in_channels);
        let bias = numbers.floats(g.in_channels);
        let (x, gy) = (
            numbers.floats(g.batch * image),
            numbers.floats(g.batch * places),
        );
        let run = |samples: core::ops::Range<usize>| {
            let g = Window {
                batch: samples.len(),
                ..g
            };
            let [x_of, y_of] = [image, places].map(|n| samples.start * n..samples.end * n);
            let (mut y, mut gx) = (std::vec![0.0; y_of.len()], std::vec![0.5; x_of.len()]);
            let p = ConvF32 {
                window: &g,
                x: &x[x_of],
                w: w[..].into(),
                bias: &bias,
                keeps_ties: true,
                activation: Activation::Relu,
            };
            kernels::depthwise_f32(fma, &p, &mut y);
            kernels::depthwise_input_gradient_f32(fma, &g, w[..].into(), &gy[y_of], &mut gx);
            (y, gx)
        };
        let (y, gx) = run(0..g.batch);
        for n in 0..g.batch {
            let (alone_y, alone_gx) = run(n..n + 1);
            assert_eq!(alone_y, y[n * places..][..places], "{g:?}");
            assert_eq!(alone_gx, gx[n * image..][..image], "{g:?}");
        }
    }
    // every column holds the same pixels: what its places get does not depend on how many are summed side by side
    let g = window(1, [5, 23], [9; 2], [3, 3], [1; 2], [1; 2], [[1, 0]; 2]).unwrap();
    let row = numbers.floats(9);
    let x: Vec<f32> = (0..5 * 23 * 9).map(|i| row[i % 9]).collect();
    let (w, bias) = (numbers.floats(9 * 9), numbers.floats(9));
    let p = ConvF32 {
        window: &g,
        x: &x,
        w: w[..].into(),
        bias: &bias,
        keeps_ties: true,
        activation: Activation::None,
    };
    let mut y = std::vec![0.0; 5 * 21 * 9];
    kernels::depthwise_f32(fma, &p, &mut y);
    for row in y.chunks(21 * 9) {
        for place in row.chunks(9) {
            assert_eq!(place, &row[..9]);
        }
    }
}
