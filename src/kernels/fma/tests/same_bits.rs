//! What these loops compute has the same bits on every CPU that has them: sums in an order of their own, but in one order.

use super::*;
use crate::kernels::{simd::found, wide_in_tests};

/// FNV-1a over the bits of numbers.
struct Fingerprint(u64);

impl Fingerprint {
    fn add(&mut self, numbers: &[f32]) {
        for byte in numbers.iter().flat_map(|x| x.to_bits().to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// Forward, and both gradients, of a convolution (depthwise with as many channels as filters).
fn convolution(k: Kernels, g: &Window, is_depthwise: bool, numbers: &mut Numbers) -> [Vec<f32>; 3] {
    let [image, places] = conv::images(g);
    let cells = g.kernel[0] * g.kernel[1];
    let weights = cells * g.out_channels * if is_depthwise { 1 } else { g.in_channels };
    let (x, w, gy) = (
        numbers.floats(image),
        numbers.floats(weights),
        numbers.floats(places),
    );
    let bias = numbers.floats(g.out_channels);
    let p = ConvF32 {
        window: g,
        x: &x,
        w: w[..].into(),
        bias: &bias,
        keeps_ties: true,
        activation: Activation::Relu,
    };
    let (mut y, mut gx, mut gw) = (std::vec![0.0; places], x.clone(), w.clone());
    match is_depthwise {
        true => {
            kernels::depthwise_f32(k, &p, &mut y);
            kernels::depthwise_input_gradient_f32(k, g, w[..].into(), &gy, &mut gx);
        }
        false => {
            kernels::conv_f32(k, &p, &mut y);
            kernels::conv_input_gradient_f32(k, g, w[..].into(), &gy, &mut gx);
            kernels::conv_weight_gradient_f32(k, g, &x, &gy, &mut gw);
        }
    }
    [y, gx, gw]
}

/// Forward, and both gradients, of a fully connected layer.
fn dense_layer(
    k: Kernels,
    [batch, depth, outputs]: [usize; 3],
    numbers: &mut Numbers,
) -> [Vec<f32>; 3] {
    let (x, w) = (
        numbers.floats(batch * depth),
        numbers.floats(outputs * depth),
    );
    let (bias, gy) = (numbers.floats(outputs), numbers.floats(batch * outputs));
    let p = DenseF32 {
        depth,
        x: &x,
        w: w[..].into(),
        bias: &bias,
        activation: Activation::Relu6,
    };
    let (mut y, mut gx, mut gw) = (std::vec![0.0; batch * outputs], x.clone(), w.clone());
    kernels::dense_f32(k, &p, &mut y);
    kernels::dense_input_gradient_f32(k, depth, &w, &gy, &mut gx);
    kernels::dense_weight_gradient_f32(k, depth, &x, &gy, &mut gw);
    [y, gx, gw]
}

#[test]
fn bits_are_the_same_on_every_cpu() {
    let Some(fma) = Fma::new() else { return };
    let check = || {
        let found = fingerprint(Kernels::Fma(fma));
        assert_eq!(found, 0x8cca_9b9a_9230_a25c, "{found:#x}");
    };
    check();
    wide_in_tests::without(check);
}

fn fingerprint(k: Kernels) -> u64 {
    let mut numbers = Numbers(14);
    let mut found = Fingerprint(0xcbf2_9ce4_8422_2325);
    // minimal filtering with tiles of 4x4 and 2x2 places, first layers, one channel back, strides, dilations, windows of other sizes
    for (input, channels, kernel, stride, dilation) in [
        ([9, 12], [16, 24], [3, 3], [1, 1], [1, 1]),
        ([5, 6], [24, 16], [3, 3], [1, 1], [1, 1]),
        ([8, 10], [3, 16], [3, 3], [1, 1], [1, 1]),
        ([12, 9], [1, 8], [3, 3], [1, 1], [1, 1]),
        ([11, 8], [17, 33], [3, 3], [2, 2], [1, 1]),
        ([11, 13], [5, 9], [2, 4], [1, 1], [2, 1]),
        ([6, 7], [40, 20], [1, 1], [1, 1], [1, 1]),
        ([10, 10], [7, 2], [5, 5], [3, 1], [1, 1]),
    ] {
        let padding = kernel.map(|k: usize| k / 2);
        let g = window(2, input, channels, kernel, stride, dilation, [padding; 2]).unwrap();
        let plain = convolution(k, &g, false, &mut numbers);
        let g = Window {
            out_channels: g.in_channels,
            ..g
        };
        let depthwise = convolution(k, &g, true, &mut numbers);
        plain
            .iter()
            .chain(&depthwise)
            .for_each(|part| found.add(part));
    }
    for sizes in [[1, 100, 10], [7, 64, 33], [5, 17, 3], [33, 300, 40]] {
        let dense = dense_layer(k, sizes, &mut numbers);
        dense.iter().for_each(|part| found.add(part));
    }
    found.0
}

/// Each kind of loop with registers of 512 bits beside the same with 256, over every remainder of rows and lanes.
#[test]
fn the_widest_loops_have_the_bits_of_the_others() {
    let Some(fma) = Fma::new() else { return };
    if !found().wide {
        std::eprintln!("SKIPPED: AVX-512 is not there");
        return;
    }
    let k = Kernels::Fma(fma);
    let bits = |parts: [Vec<f32>; 3]| parts.map(|part| part.iter().map(|x| x.to_bits()).collect());
    let compare = |name: &str, run: &dyn Fn() -> [Vec<f32>; 3]| {
        let (mut wide, mut others): ([Vec<u32>; 3], [Vec<u32>; 3]) = Default::default();
        let runs = wide_in_tests::counted(|| wide = bits(run()));
        wide_in_tests::without(|| others = bits(run()));
        assert_eq!(wide, others, "{name}");
        assert!(runs > 0, "{name}: none ran");
    };
    let conv = |kernel: [usize; 2], stride, input, channels| {
        let padding = kernel.map(|k| k / 2);
        let g = window(2, input, channels, kernel, stride, [1, 1], [padding; 2]).unwrap();
        compare(&std::format!("{g:?}"), &|| {
            convolution(k, &g, false, &mut Numbers(15))
        });
    };
    for channels in 9..70 {
        // plain, one panel or two: forward over `channels` filters, back over 41 - `channels`
        conv(
            [2, 3],
            [1, 1],
            [5, channels],
            [(41 - channels % 41).max(1), channels],
        );
        conv([1, 1], [2, 1], [9, 7], [5, channels]);
    }
    for tiles in 1..14 {
        // minimal filtering
        conv([3, 3], [1, 1], [4, 2 * tiles], [16, 16]);
        conv([3, 3], [1, 1], [9, 4 * tiles], [24, 40]);
        conv([3, 3], [1, 1], [10, 3 * tiles], [64, 48]);
    }
    for columns in 7..20 {
        // first layers, and back to two or three channels: over whole eights of terms, or not
        for channels in [[1, 16], [3, 32], [3, 16], [2, 24], [3, 20]] {
            conv([3, 3], [1, 1], [4, columns], channels);
            conv([3, 5], [1, 1], [4, columns], channels);
        }
    }
    for rows in 2..40 {
        let name = std::format!("{rows} rows");
        compare(&name, &|| {
            dense_layer(k, [rows, 50 - rows, rows + 7], &mut Numbers(16))
        });
    }
    for rows in 3..20 {
        // pairs of samples, packed
        let name = std::format!("{rows} samples");
        compare(&name, &|| {
            dense_layer(k, [rows, 24, 30 + rows], &mut Numbers(18))
        });
    }
    // groups of samples, the last a pair and a single one, and blocks of filters
    compare("several groups", &|| {
        dense_layer(k, [15, 8192, 41], &mut Numbers(19))
    });
    // terms, rows and lanes in several parts
    compare("several parts", &|| {
        dense_layer(k, [300, 130, 270], &mut Numbers(17))
    });
}
