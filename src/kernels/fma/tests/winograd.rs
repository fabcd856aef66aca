//! Minimal filtering, with tiles of either size.

use super::super::winograd::{places, takes};
use super::*;

/// Sizes of an image, channels and padding.
type Case = ([usize; 2], [usize; 2], usize);

/// In gradients, tiles of 2x2 places one way, the other or both; then tiles of 4x4, whole ones and such that lie over the edge.
const SMALL: [Case; 16] = [
    ([4, 4], [8, 8], 0),
    ([2, 2], [8, 16], 1),
    ([5, 7], [16, 8], 1),
    ([6, 3], [24, 40], 2),
    ([9, 4], [128, 16], 1),
    ([10, 10], [16, 128], 0),
    ([2, 13], [64, 8], 1),
    ([8, 8], [8, 8], 1),
    ([7, 12], [64, 64], 1),
    ([7, 7], [24, 40], 1),
    ([8, 13], [16, 24], 1),
    ([11, 12], [32, 16], 2),
    ([13, 8], [40, 56], 0),
    ([3, 16], [8, 48], 2),
    ([12, 14], [48, 8], 1),
    ([22, 11], [8, 64], 1),
];

/// Numbers of very different size side by side.
fn spread(numbers: &mut Numbers, n: usize) -> Vec<f32> {
    let sizes = [1.0, 1e-6, 1e3, 1e6];
    let all = numbers.floats(n);
    all.iter()
        .map(|v| v * sizes[numbers.within(0, 3)])
        .collect()
}

/// What counts as magnitudes, as [`tolerance`] has it, added to what is there.
fn crosswise(s: &Slide, ends: &Ends, source: &[f32], weights: &Weights, sizes: &mut [f32]) {
    let [row, column, from, to] = s.weight_step;
    let mut sums = std::vec![0.0; s.source_channels * s.channels];
    for (i, sum) in sums.iter_mut().enumerate() {
        let (c, o) = (i / s.channels, i % s.channels);
        let first = s.weight as isize + c as isize * from + o as isize * to;
        for cell in 0..9 {
            let at = first + cell / 3 * row + cell % 3 * column;
            *sum += weights.get(at as usize, c).abs();
        }
    }
    let side = places(s, ends.keeps_ties);
    for n in 0..s.batch {
        for y in 0..s.count[0] {
            for x in 0..s.count[1] {
                let pixel = (n * s.destination[0] + y) * s.destination[1] + x;
                let sizes = &mut sizes[pixel * s.channels..][..s.channels];
                let seen = |axis: usize, at: usize| {
                    let first = (at / side * side) as isize - s.padding[axis];
                    (first..first + side as isize + 2)
                        .filter(move |&i| (0..s.source[axis] as isize).contains(&i))
                };
                for c in 0..s.source_channels {
                    let mut pixels = 0.0;
                    for y in seen(0, y) {
                        for x in seen(1, x) {
                            let at = (n * s.source[0] + y as usize) * s.source[1] + x as usize;
                            pixels += source[at * s.source_channels + c].abs();
                        }
                    }
                    for (size, sum) in sizes.iter_mut().zip(&sums[c * s.channels..]) {
                        *size += pixels * sum;
                    }
                }
            }
        }
    }
}

/// The slides of a convolution and of its gradient, either of which may be the transposed one's: their source, weights and destination.
fn slides(g: &Window) -> [Slide; 2] {
    let mut back = None;
    let (row, image, at_places) = steps(PLAIN, g);
    let channels = [g.out_channels, g.in_channels];
    conv::backward(g, channels, row, [at_places, image], |s| back = Some(*s));
    let both = [to_places(PLAIN, g), back.unwrap()];
    assert!(both.iter().all(takes), "{g:?}");
    both
}

/// Runs a slide in these loops, and as the sum is written, one number after the other.
fn run(s: &Slide, source: &[f32], weights: &Weights, ends: &Ends, start: &[f32]) -> [Vec<f32>; 2] {
    let (mut got, mut expected) = (start.to_vec(), start.to_vec());
    // SAFETY: there is a token, and all sizes are the slide's.
    unsafe { s.run(&Work::new(source, weights, ends, &mut got)) };
    for (at, y) in expected.iter_mut().enumerate() {
        let (pixel, o) = (at / s.channels, at % s.channels);
        let (row, x) = (pixel / s.destination[1], pixel % s.destination[1]);
        let (n, y_at) = (row / s.destination[0], row % s.destination[0]);
        let mut sum = f64::from(ends.bias.map_or(*y, |bias| bias[o]));
        for cell in 0..9isize {
            let [i, j] = [
                y_at as isize + cell / 3 - s.padding[0],
                x as isize + cell % 3 - s.padding[1],
            ];
            if !(0..s.source[0] as isize).contains(&i) || !(0..s.source[1] as isize).contains(&j) {
                continue;
            }
            let pixel = (n * s.source[0] + i as usize) * s.source[1] + j as usize;
            for c in 0..s.source_channels {
                let [row, column, from, to] = s.weight_step;
                let w = s.weight as isize
                    + cell / 3 * row
                    + cell % 3 * column
                    + c as isize * from
                    + o as isize * to;
                let w = weights.get(w as usize, c);
                sum += f64::from(source[pixel * s.source_channels + c]) * f64::from(w);
            }
        }
        *y = ends.activation.apply(sum as f32);
    }
    [got, expected]
}

/// Every slide with all that it starts from, forward and as a gradient (of either convolution, the transposed one too): f32 weights, and
/// int8 ones back.
fn each(
    seed: u64,
    floats: fn(&mut Numbers, usize) -> Vec<f32>,
    check: impl Fn(&Slide, &[f32], &Weights, &Ends, &[f32]),
) {
    if Fma::new().is_none() {
        return;
    }
    let mut numbers = Numbers(seed);
    for (input, channels, padding) in SMALL {
        for batch in [1, 3] {
            let g = small(batch, input, channels, padding);
            let [image, at_places] = conv::images(&g);
            let n = &mut numbers;
            let (x, gy) = (floats(n, image), floats(n, at_places));
            let w = floats(n, 9 * channels[0] * channels[1]);
            let bias = floats(n, channels[1]);
            let w8: Vec<i8> = w.iter().map(|w| (w * 127.0) as i8).collect();
            let quant = Quant {
                scale: 1.0,
                zero_point: 0,
                channel_scales: &bias,
            };
            let float = Weights::F32(w[..].into());
            let int8 = Weights::I8(WeightsI8 {
                w: w8[..].into(),
                quant,
            });
            let activation = [Activation::Relu, Activation::Relu6][numbers.within(0, 1)];
            let [forward, backward] = slides(&g);
            for keeps_ties in [false, true] {
                let ends = Ends {
                    bias: Some(&bias),
                    activation,
                    keeps_ties,
                };
                check(&forward, &x, &float, &ends, &std::vec![9.0; at_places]);
                let ends = Ends { keeps_ties, ..ADD };
                check(&backward, &gy, &float, &ends, &x);
            }
            check(&backward, &gy, &int8, &ADD, &x);
        }
    }
}

/// What [`tolerance`] says of such windows, where numbers are alike and where they are not. Half of it: the reference does not err.
#[test]
fn minimal_filtering_errs_no_more_than_stated() {
    for (seed, floats) in [
        (7, Numbers::floats as fn(&mut Numbers, usize) -> Vec<f32>),
        (8, spread),
    ] {
        each(seed, floats, |s, source, weights, ends, start| {
            let [got, expected] = run(s, source, weights, ends, start);
            let mut sizes: Vec<f32> = match ends.bias {
                Some(bias) => (0..start.len())
                    .map(|i| bias[i % s.channels].abs())
                    .collect(),
                None => magnitudes(start),
            };
            crosswise(s, ends, source, weights, &mut sizes);
            for ((a, b), size) in expected.iter().zip(&got).zip(&sizes) {
                let allowed = tolerance(9 * s.source_channels) * size;
                assert!(
                    (a - b).abs() <= allowed,
                    "{s:?}: {b}, not {a} within {allowed}"
                );
            }
        });
    }
}

/// With numbers that are alike it is close in the sense of any sum, too.
#[test]
fn minimal_filtering_is_close_to_scalar() {
    let mut numbers = Numbers(6);
    for (input, channels, padding) in SMALL {
        let g = small(2, input, channels, padding);
        for transposed in [false, true] {
            let spread = Spread {
                groups: 1,
                transposed,
            };
            check(&g, spread, &mut numbers);
        }
    }
}

/// Weights that are all one, and such without a pattern, none of them zero.
fn unlike(n: usize) -> (Vec<f32>, Vec<f32>) {
    let odd = (0..n).map(|i| (i * 7919 % 1009) as f32 / 512.0 - 0.999);
    (std::vec![1.0; n], odd.collect())
}

/// Where all pixels of a window are zero, of either sign, what comes out is what the sum started from.
#[test]
fn windows_of_zeros_add_exactly_nothing() {
    let sparse = |numbers: &mut Numbers, n: usize| {
        let all = numbers.floats(n);
        all.iter()
            .map(|v| v * f32::from(u8::from(numbers.within(0, 99) == 0)))
            .collect()
    };
    each(9, sparse, |s, source, weights, ends, start| {
        let (ones, odd) = unlike(weights.len());
        let one = Weights::F32(ones[..].into());
        let magnitudes = magnitudes(source);
        let nothing = std::vec![0.0; start.len()];
        let [_, reached] = run(s, &magnitudes, &one, &ADD, &nothing);
        let bias: Vec<f32> = (0..s.channels).map(|o| 0.3 + o as f32).collect();
        let filters = Weights::F32(odd[..].into());
        for bias in [None, Some(&bias[..])] {
            let ends = Ends {
                bias,
                keeps_ties: ends.keeps_ties,
                ..ADD
            };
            let [got, _] = run(s, source, &filters, &ends, start);
            for (i, (y, reached)) in got.iter().zip(&reached).enumerate() {
                let expected = bias.map_or(start[i], |bias| bias[i % s.channels]);
                assert!(*reached != 0.0 || *y == expected, "{s:?}: {y}, {expected}");
            }
        }
    });
}

/// What is not finite reaches the places of the tiles that see it, and no others.
#[test]
fn what_is_not_finite_stays_in_its_tiles() {
    each(10, Numbers::floats, |s, source, weights, ends, start| {
        let ends = Ends {
            keeps_ties: ends.keeps_ties,
            ..ADD
        };
        let mut source = source.to_vec();
        let middle = source.len() / 2;
        source[middle] = [f32::NAN, f32::INFINITY][middle % 2];
        let [got, expected] = run(s, &source, weights, &ends, start);
        let mut sizes = std::vec![0.0; start.len()];
        let (ones, _) = unlike(weights.len());
        let unit = Weights::F32(ones[..].into());
        crosswise(s, &ends, &source, &unit, &mut sizes);
        for ((y, expected), size) in got.iter().zip(&expected).zip(&sizes) {
            assert!(expected.is_finite() || !y.is_finite(), "{s:?}");
            assert!(y.is_finite() || !size.is_finite(), "{s:?}");
        }
    });
}

#[test]
fn minimal_filtering_does_not_feel_the_batch() {
    each(11, Numbers::floats, |s, source, weights, ends, start| {
        let run = |s: &Slide, source: &[f32], start: &[f32]| {
            let mut y = start.to_vec();
            // SAFETY: there is a token, and all sizes are the slide's.
            unsafe { s.run(&Work::new(source, weights, ends, &mut y)) };
            y
        };
        let all = run(s, source, start);
        let alone = Slide { batch: 1, ..*s };
        let (from, to) = (source.len() / s.batch, start.len() / s.batch);
        for n in 0..s.batch {
            let y = run(&alone, &source[n * from..][..from], &start[n * to..][..to]);
            assert_eq!(y, all[n * to..][..to], "{s:?}");
        }
    });
}

/// Both sizes of tiles have cases, both ways; where ties are kept all tiles are small.
#[test]
fn sides_decide_the_tiles() {
    let mut found = [[0; 2]; 2];
    for (input, channels, padding) in SMALL {
        for (i, s) in slides(&small(1, input, channels, padding))
            .iter()
            .enumerate()
        {
            found[i][places(s, false) / 4] += 1;
            assert_eq!(places(s, true), 2);
        }
    }
    assert!(found.iter().flatten().all(|&n| n >= 4), "{found:?}");
}

/// Where ties are kept, equal windows have equal places: in a flat image all that see no edge, whatever tile they are in.
#[test]
fn flat_images_stay_flat_where_ties_are_kept() {
    each(23, Numbers::floats, |s, source, weights, ends, start| {
        if !ends.keeps_ties {
            return;
        }
        let pixels = source.len() / s.source_channels;
        let flat = source[..s.source_channels].repeat(pixels);
        let plain = Ends {
            activation: Activation::None,
            ..*ends
        };
        let start = std::vec![0.25; start.len()];
        let [got, _] = run(s, &flat, weights, &plain, &start);
        let inside = |axis: usize| {
            let first = s.padding[axis].max(0);
            let end = s.source[axis] as isize + s.padding[axis] - 2;
            first as usize..end.clamp(first, s.count[axis] as isize) as usize
        };
        let mut places = inside(0).flat_map(|i| inside(1).map(move |j| i * s.count[1] + j));
        let Some(first) = places.next() else { return };
        let at = |place: usize| &got[place * s.channels..][..s.channels];
        assert!(places.all(|place| at(place) == at(first)), "{s:?}");
    });
}
