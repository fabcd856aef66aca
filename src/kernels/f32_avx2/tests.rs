//! Every loop beside the scalar one, to the bit, with numbers that are none, infinite, equal, and zeros of either sign among them.

extern crate std;
use crate::kernels::simd::found;
use crate::kernels::{self, Activation, Kernels, Simd, Window, wide_in_tests};
use std::vec;
use std::vec::Vec;

const ACTIVATIONS: [Activation; 3] = [Activation::None, Activation::Relu, Activation::Relu6];

/// Few different numbers, so that windows have equal ones.
fn awkward(n: usize, seed: u32) -> Vec<f32> {
    let kinds = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        6.0,
        7.5,
        -3.0,
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
    ];
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 16) as usize
    };
    (0..n)
        .map(|_| match next() % 3 {
            0 => (next() % 2000) as f32 / 100.0 - 10.0,
            1 => kinds[next() % 8],
            _ => kinds[next() % kinds.len()],
        })
        .collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Runs both forms from the same start and wants the same bytes.
fn same<T: Clone + PartialEq + core::fmt::Debug>(
    simd: Simd,
    start: &[T],
    what: &dyn core::fmt::Debug,
    shown: impl Fn(&[T]) -> Vec<u32>,
    kernel: impl Fn(Kernels, &mut [T]),
) {
    let mut expected = start.to_vec();
    kernel(Kernels::Scalar, &mut expected);
    let check = || {
        let mut got = start.to_vec();
        kernel(Kernels::Simd(simd), &mut got);
        assert_eq!(shown(&expected), shown(&got), "{what:?}");
    };
    check();
    wide_in_tests::without(check);
}

/// Where the CPU has AVX-512, its loops are what runs.
fn is_wide(kernel: impl FnOnce()) {
    let runs = wide_in_tests::counted(kernel);
    assert_eq!(runs > 0, found().wide);
}

#[test]
fn max_pooling_has_the_bits_of_scalar() {
    let Some(simd) = Simd::new() else { return };
    for (i, (batch, input, channels, kernel, stride, padding)) in [
        (1, [1, 1], 1, [1, 1], 1, 0),
        (2, [4, 6], 8, [2, 2], 2, 0),
        (2, [9, 11], 24, [2, 2], 2, 0),
        (3, [7, 5], 16, [3, 3], 2, 1),
        (1, [5, 9], 11, [2, 3], 1, 1),
        (2, [6, 6], 3, [3, 2], 3, 1),
        (1, [17, 16], 33, [16, 16], 1, 0),
        // some windows without a cell in the image
        (1, [3, 4], 9, [2, 2], 1, 2),
    ]
    .into_iter()
    .enumerate()
    {
        let extent = |axis: usize| (input[axis] + 2 * padding - kernel[axis]) / stride + 1;
        let g = &Window {
            batch,
            input,
            in_channels: channels,
            output: [extent(0), extent(1)],
            out_channels: channels,
            kernel,
            stride: [stride; 2],
            dilation: [1; 2],
            padding: [padding; 2],
        };
        let places = batch * g.output[0] * g.output[1] * channels;
        let x = awkward(batch * input[0] * input[1] * channels, i as u32);
        for activation in ACTIVATIONS {
            let what = &(g, activation);
            same(simd, &vec![0.0; places], what, bits, |k, y| {
                kernels::max_pool_f32(k, g, &x, activation, y);
            });
            one_reading_finds_what_two_do(simd, g, &x, activation);
        }
        let wide = |x: &[u8]| x.iter().map(|&x| u32::from(x)).collect();
        same(simd, &vec![0xaa; places], g, wide, |k, index| {
            kernels::max_pool_index_f32(k, g, &x, index);
        });
        let mut index = vec![0; places];
        kernels::max_pool_index_f32(Kernels::Scalar, g, &x, &mut index);
        // what a fused activation stops is no cell's
        index.iter_mut().step_by(3).for_each(|i| *i = 255);
        let gy = awkward(places, 100 + i as u32);
        same(simd, &x, g, bits, |k, gx| {
            kernels::max_pool_gradient(k, g, &index, &gy, gx);
        });
        let mut set = vec![f32::NAN; x.len()];
        let covers = kernel == [2, 2] && stride == 2 && input.map(|n| n % 2) == [0; 2];
        assert_eq!(simd.max_pool_set_gradient(g, &index, &gy, &mut set), covers);
        if covers {
            let mut added = vec![0.0; x.len()];
            kernels::max_pool_gradient(Kernels::Scalar, g, &index, &gy, &mut added);
            // of zeros only the sign may differ
            added.iter_mut().chain(&mut set).for_each(|v| *v += 0.0);
            assert_eq!(bits(&added), bits(&set), "{g:?}");
        }
    }
}

/// Maxima and index, written at once and one after the other.
fn one_reading_finds_what_two_do(simd: Simd, g: &Window, x: &[f32], activation: Activation) {
    let places = g.batch * g.output[0] * g.output[1] * g.out_channels;
    let (mut y, mut index) = (vec![0.0; places], vec![0xaa; places]);
    let (mut all_y, mut all_index) = (y.clone(), index.clone());
    for k in [Kernels::Scalar, Kernels::Simd(simd)] {
        kernels::max_pool_index_f32(k, g, x, &mut index);
        kernels::max_pool_f32(k, g, x, activation, &mut y);
        for at_once in [Kernels::Scalar, Kernels::Simd(simd)] {
            all_y.fill(9.0);
            all_index.fill(0xaa);
            kernels::max_pool_and_index_f32(at_once, g, x, activation, &mut all_y, &mut all_index);
            assert_eq!(bits(&y), bits(&all_y), "{g:?} {activation:?}");
            assert_eq!(index, all_index, "{g:?} {activation:?}");
        }
    }
    // without a place for the index there are maxima all the same
    all_y.fill(9.0);
    kernels::max_pool_and_index_f32(Kernels::Simd(simd), g, x, activation, &mut all_y, &mut []);
    assert_eq!(bits(&y), bits(&all_y), "{g:?} {activation:?}");
}

/// Every window of four cells that these numbers can make, a channel each.
#[test]
fn one_reading_finds_the_first_of_equals_in_every_window() {
    let Some(simd) = Simd::new() else { return };
    let kinds = [
        -0.0,
        0.0,
        1.0,
        -1.0,
        6.0,
        7.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        // another that is no number
        f32::from_bits(0xffc0_0001),
    ];
    let all = kinds.len().pow(4);
    let x: Vec<f32> = (0..4)
        .flat_map(|cell| (0..all).map(move |i| kinds[i / kinds.len().pow(cell) % kinds.len()]))
        .collect();
    // windows that touch have loops of their own
    for stride in [2, 1] {
        let g = &Window {
            batch: 1,
            input: [2; 2],
            in_channels: all,
            output: [1; 2],
            out_channels: all,
            kernel: [2; 2],
            stride: [stride; 2],
            dilation: [1; 2],
            padding: [0; 2],
        };
        for activation in ACTIVATIONS {
            one_reading_finds_what_two_do(simd, g, &x, activation);
        }
    }
}

#[test]
fn elementwise_loops_have_the_bits_of_scalar() {
    let Some(simd) = Simd::new() else { return };
    let k = Kernels::Simd(simd);
    is_wide(|| kernels::passing_f32(k, Activation::Relu, &[1.0; 16], &mut [0; 2]));
    is_wide(|| kernels::block_f32(k, &[5; 2], 0.1, &mut [1.0; 16]));
    for n in [0, 1, 7, 8, 9, 64, 131] {
        let (a, b) = (awkward(n, 1), awkward(n, 2));
        let kept: Vec<u8> = awkward(n.div_ceil(8), 3)
            .iter()
            .map(|v| v.to_bits().to_le_bytes()[3])
            .collect();
        for activation in ACTIVATIONS {
            let what = &(n, activation);
            same(simd, &vec![9.0; n], what, bits, |k, y| {
                kernels::add_f32(k, [&a, &b], activation, y);
            });
            let wide = |x: &[u8]| x.iter().map(|&x| u32::from(x)).collect();
            same(simd, &vec![0xaa; n.div_ceil(8)], what, wide, |k, bits| {
                kernels::passing_f32(k, activation, &a, bits);
            });
        }
        for blocked in [0.0, 0.1, -2.0] {
            same(simd, &a, &(n, blocked), bits, |k, gy| {
                kernels::block_f32(k, &kept, blocked, gy);
            });
        }
    }
}

#[test]
fn tanh_has_the_bits_of_scalar() {
    let Some(simd) = Simd::new() else { return };
    // every 1009th number there is, not-a-number included, and all around where formulas change
    let mut x: Vec<f32> = (0..u32::MAX / 1009)
        .map(|i| f32::from_bits(i * 1009))
        .collect();
    for limit in [
        0x0080_0000_u32,
        0x3280_0000,
        0x3e31_7218,
        0x3e82_c578,
        0x3f05_1592,
        0x3f0c_9f54,
        0x411f_0000,
        0x4120_0000,
        0x7f80_0000,
    ] {
        let around = (0..200).map(|i| f32::from_bits(limit - 100 + i));
        x.extend(around.flat_map(|x| [x, -x]));
    }
    x.extend((0..400_000).map(|i| (i - 200_000) as f32 * 1e-4));
    for n in [0, 1, 7, 8, 9, 15, 16, 17, 31, 32, x.len()] {
        same(simd, &vec![9.0; n], &n, bits, |k, y| {
            kernels::tanh_f32(k, &x[x.len() - n..], y);
        });
    }
    #[cfg(not(feature = "micromath"))]
    is_wide(|| kernels::tanh_f32(Kernels::Simd(simd), &x[..16], &mut [0.0; 16]));
}

#[test]
fn adam_has_the_bits_of_scalar() {
    let Some(simd) = Simd::new() else { return };
    let sane = |n, seed| -> Vec<f32> {
        let numbers = awkward(n, seed).into_iter();
        numbers
            .map(|x| if x.is_nan() { 1e-30 } else { x })
            .collect()
    };
    for n in [0, 1, 7, 8, 9, 64, 131] {
        for (step, decay) in [(1, 0.0), (2, 0.01), (1000, 0.0)] {
            let adam = kernels::AdamF32 {
                betas: [0.5, 0.999],
                corrections: [0.5_f32, 0.999].map(|beta| 1.0 - libm::powf(beta, step as f32)),
                epsilon: 1e-8,
                rate: 2e-4,
                decay,
            };
            // of longer ones the rest stays as it is
            let gradients = [1, 4, 5].map(|seed| sane(n + seed as usize % 2, seed));
            let gradients = gradients.each_ref().map(|g| g.as_slice());
            let squares = sane(n, 3).into_iter().map(|v| v.abs());
            let start: Vec<f32> = sane(2 * n, 2).into_iter().chain(squares).collect();
            let start = [start, vec![9.0; 2 * n]].concat();
            is_wide(|| {
                let [mut p, mut m, mut v] = [[1.0_f32; 16]; 3];
                let (gradients, moments) = ([&[1.0_f32; 16][..]], [&mut m[..], &mut v[..]]);
                let kernels = Kernels::Simd(simd);
                kernels::adam_f32(kernels, &adam, &gradients, &mut [&mut p[..]], moments);
            });
            for shards in 0..=gradients.len() {
                same(simd, &start, &(n, step, shards), bits, |k, all| {
                    let (p, rest) = all.split_at_mut(n);
                    let (m, rest) = rest.split_at_mut(n);
                    let (v, rest) = rest.split_at_mut(n);
                    let (a, b) = rest.split_at_mut(n);
                    let mut copies = [p, a, b];
                    // with no gradients no parameters either
                    let copies = &mut copies[..shards];
                    kernels::adam_f32(k, &adam, &gradients[..shards], copies, [m, v]);
                    for copy in 1..copies.len() {
                        assert_eq!(bits(copies[0]), bits(copies[copy]));
                    }
                });
            }
        }
    }
}
