//! The widest int8 loops beside the scalar ones, bit for bit, and that they are what runs. `int8_tests` compares whole layers, too.

extern crate std;
use super::super::int8_tests::{Constants, Random, range, sized, window};
use super::super::kept::{Kept, Sizes, dense_bytes};
use super::super::strip::Layout;
use super::super::wide_in_tests::counted;
use super::super::{AddI8, Constant, Multiplier, Window, scalar, simd};
use super::super::{DenseI8, Rounding};
use super::*;
use std::vec::Vec;

/// Whether the CPU has what these loops need.
fn is_there() -> bool {
    let there = simd::found().wide_products;
    if !there {
        std::eprintln!("SKIPPED: AVX-512 with VNNI is not there");
    }
    there
}

fn conv_layer<'a>(
    window: &'a Window,
    x: &'a [i8],
    x_zero_point: i16,
    w: Constant<'a, i8>,
    output: Requantize<'a>,
) -> ConvI8<'a> {
    ConvI8 {
        window,
        x,
        x_zero_point,
        w,
        output,
    }
}

/// Runs a layer, which has to be taken, and compares it with the scalar one.
fn check(p: &ConvI8, is_depthwise: bool) {
    let g = p.window;
    let outputs = g.batch * g.output[0] * g.output[1] * g.out_channels;
    let (mut expected, mut got) = (std::vec![99; outputs], std::vec![0; outputs]);
    let layout = Layout {
        filter: g.filter_len(),
        element: 1,
    };
    let mut taken = false;
    let runs = counted(|| {
        // SAFETY: the CPU has what they need.
        taken = unsafe {
            match is_depthwise {
                true => depthwise(p, &mut got),
                false => conv(p, layout, &mut got),
            }
        }
    });
    match is_depthwise {
        true => scalar::depthwise::forward_i8(p, &mut expected),
        false => scalar::conv::forward_i8(p, &mut expected),
    }
    assert!(taken && runs > 0, "{g:?}");
    assert_eq!(got, expected, "{g:?}");
}

/// Room for what is kept of a layer, no more than a session asks for.
fn room(g: &Window, is_depthwise: bool) -> Vec<u8> {
    let channels = if is_depthwise { 1 } else { g.in_channels };
    let sizes = Sizes {
        kernel: g.kernel,
        weight: 1,
        forward: [channels, g.out_channels],
        backward: None,
        images: [g.output, g.input],
        keeps_ties: false,
        phases: 1,
    };
    std::vec![0xa5; sizes.bytes()]
}

/// Twice with one place, for three zero points, of which each finds its own order or no room.
fn check_shape(g: &Window, is_depthwise: bool) {
    let mut random = Random((g.in_channels * 37 + g.out_channels) as u64);
    let channels = if is_depthwise { 1 } else { g.in_channels };
    let x = random.bytes(g.batch * g.input[0] * g.input[1] * g.in_channels);
    let w = random.bytes(g.kernel[0] * g.kernel[1] * channels * g.out_channels);
    let constants = Constants::new(g.out_channels, &mut random);
    for zero_point in [-128, 3, 127] {
        let mut memory = room(g, is_depthwise);
        let kept = Kept::new(&mut memory);
        let w = Constant::new(&w, Some(&kept));
        let p = conv_layer(g, &x, zero_point, w, constants.requantize());
        check(&p, is_depthwise);
        check(&p, is_depthwise);
    }
}

#[test]
fn convolutions_of_all_blocks_and_rests() {
    if !is_there() {
        return;
    }
    for o in [
        1, 7, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 80, 96, 100, 128, 131,
    ] {
        for pixels in [1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 25] {
            let g = sized(window([1, pixels], 5, o, [1, 1]), [0, 0]);
            check_shape(&g, false);
        }
    }
}

#[test]
fn convolutions_of_all_windows() {
    if !is_there() {
        return;
    }
    for kernel in [[1, 1], [3, 3], [2, 5], [4, 1], [10, 4]] {
        for (c, o) in [
            (1, 1),
            (2, 16),
            (3, 8),
            (4, 33),
            (5, 17),
            (16, 64),
            (67, 40),
        ] {
            for stride in [[1, 1], [2, 3], [3, 1]] {
                let g = Window {
                    batch: 2,
                    stride,
                    padding: [1, 2],
                    ..window([11, 9], c, o, kernel)
                };
                check_shape(&sized(g, [1, 0]), false);
            }
        }
    }
    // rows in strips, and a row in strips of columns
    let padding = [1, 1];
    for (input, c) in [([90, 50], 16), ([5, 1500], 9), ([5, 9], 700)] {
        let g = Window {
            padding,
            ..window(input, c, 20, [3, 3])
        };
        check_shape(&sized(g, [0, 1]), false);
    }
}

/// Sixteen filters or fewer, the last of more among them, over rows of windows that overlap.
#[test]
fn convolutions_whose_windows_share_loads() {
    if !is_there() {
        return;
    }
    for kernel in [[3, 3], [1, 3], [2, 3]] {
        for (c, o) in [(4, 16), (16, 16), (8, 80), (12, 7), (20, 9)] {
            for input in [[11, 19], [5, 10], [4, 8], [3, 24]] {
                for padding in [[0, 0], [1, 1]] {
                    let g = Window {
                        padding,
                        ..window(input, c, o, kernel)
                    };
                    check_shape(&sized(g, padding), false);
                }
            }
        }
    }
}

#[test]
fn depthwise_of_all_channels_and_windows() {
    if !is_there() {
        return;
    }
    for c in [2, 3, 8, 11, 16, 24, 31, 32, 40, 63, 64, 65, 96, 128, 200] {
        for kernel in [[3, 3], [1, 1], [2, 5], [5, 9], [10, 4]] {
            for stride in [[1, 1], [2, 2], [2, 3], [3, 5]] {
                let g = Window {
                    batch: 2,
                    stride,
                    padding: [1, 2],
                    ..window([13, 10], c, c, kernel)
                };
                check_shape(&sized(g, [0, 1]), true);
            }
        }
    }
    // rows in parts
    for (width, c) in [(600, 24), (700, 8), (90, 130)] {
        check_shape(&sized(window([4, width], c, c, [3, 3]), [0, 0]), true);
    }
    // a stride that leaves rows out
    let g = Window {
        stride: [4, 1],
        ..window([17, 6], 16, 16, [2, 3])
    };
    check_shape(&sized(g, [0, 0]), true);
}

/// Whatever sum and factor: no input, all that is left of a sum is the bias. Blocks of both forms come up.
#[test]
fn requantization_is_exact() {
    if !is_there() {
        return;
    }
    let mut random = Random(11);
    let (mut forms, mut apart) = ([0; 3], 0);
    for round in 0..20_000 {
        let channels = [16, 32, 64, 70, 130][round as usize % 5];
        // one pixel, or more of them
        let pixels = [1, 5][round as usize / 5 % 2];
        let g = sized(window([1, pixels], 1, channels, [1, 1]), [0, 0]);
        let is_tame = round % 3 > 0;
        let bias: Vec<i32> = (0..channels)
            .map(|_| match is_tame {
                true => random.extreme() >> 2,
                false => random.extreme() >> (round % 32),
            })
            .collect();
        let multiplier: Vec<i32> = (0..channels).map(|_| random.mantissa()).collect();
        // of two blocks only one may be tame
        let wild = [channels, 64, 0][round as usize / 10 % 3];
        let shift: Vec<i32> = (0..channels)
            .map(|o| match is_tame && (o < wild || o > 127) {
                true => -1 - random.next().rem_euclid(22),
                false => random.next().rem_euclid(62) - 31,
            })
            .collect();
        let output = Requantize {
            bias: &bias,
            multiplier: &multiplier,
            shift: &shift,
            rounding: Rounding::Double,
            zero_point: random.next().rem_euclid(256) - 128,
            range: range(round / 7),
        };
        let w = std::vec![1; channels];
        let mut memory = room(&g, false);
        let kept = Kept::new(&mut memory);
        let x = &[3; 5][..pixels];
        let p = conv_layer(&g, x, 3, Constant::new(&w, Some(&kept)), output);
        check(&p, false);
        let layout = Layout {
            filter: 1,
            element: 1,
        };
        let blocks = super::conv::in_order(&p, layout, p.w.place().unwrap()).unwrap();
        forms[blocks[0] as usize] += 1;
        if channels == 130 && blocks[block_len(4, 1)] != blocks[0] {
            apart += 1;
        }
    }
    assert!(
        forms[0] == 0 && forms[1] > 5_000 && forms[2] > 5_000 && apart > 500,
        "{forms:?} {apart}"
    );
}

/// Sums at the limits of the short way, and halves of every shift, exactly.
#[test]
fn the_short_way_is_exact_at_its_limits() {
    if !is_there() {
        return;
    }
    let each = |right| [(right, 1), (right, 4)];
    for (right, pixels) in (1..=22).flat_map(each) {
        let g = sized(window([1, pixels], 1, 16, [1, 1]), [0, 0]);
        for zero_point in [-128, -1, 0, 127] {
            for mantissa in [1 << 30, i32::MAX, (1 << 30) + 12345, 0] {
                let half = 1i32 << right;
                let bias: [i32; 16] = core::array::from_fn(|i| match i {
                    0 => (1 << 30) - 255,
                    1 => 255 - (1 << 30),
                    // with 2^30 as the mantissa a sum is twice what is shifted
                    2..9 => half * (2 * i as i32 - 9),
                    9..12 => half * (2 * i as i32 - 21) + 1,
                    _ => half * (2 * i as i32 - 27) - 1,
                });
                let output = Requantize {
                    bias: &bias,
                    multiplier: &[mantissa; 16],
                    shift: &[-right; 16],
                    rounding: Rounding::Double,
                    zero_point,
                    range: (-128, 127),
                };
                for (x, zero) in [(3, 3), (127, -128), (-128, 127)] {
                    let mut memory = room(&g, false);
                    let kept = Kept::new(&mut memory);
                    let w = Constant::new(&[1; 16], Some(&kept));
                    let x = [x; 4];
                    let p = conv_layer(&g, &x[..pixels], zero, w, output);
                    check(&p, false);
                    let layout = Layout {
                        filter: 1,
                        element: 1,
                    };
                    let form = super::conv::in_order(&p, layout, p.w.place().unwrap()).unwrap()[0];
                    assert_eq!(form, Form::Plain as i32);
                }
            }
        }
    }
}

/// What is just beyond them goes the long way.
#[test]
fn beyond_its_limits_the_long_way_is_taken() {
    let factor = |shift| Multiplier {
        mantissa: 1 << 30,
        shift,
    };
    assert!(is_plain(factor(-1), 127, 1 << 30));
    assert!(is_plain(factor(-22), -128, 1 << 30));
    assert!(!is_plain(factor(0), 0, 0));
    assert!(!is_plain(factor(-23), 0, 0));
    assert!(!is_plain(factor(-1), 128, 0));
    assert!(!is_plain(factor(-1), 0, (1 << 30) + 1));
}

/// One place for layers that differ in one thing each: every one gets its own order.
#[test]
fn layers_of_one_place_are_kept_apart() {
    if !is_there() {
        return;
    }
    let mut random = Random(17);
    let mut memory = std::vec![0; 1 << 20];
    let kept = Kept::new(&mut memory);
    let x = random.bytes(6 * 6 * 16);
    let w = [random.bytes(9 * 16 * 16), random.bytes(9 * 16 * 16)];
    let constants = [
        Constants::new(16, &mut random),
        Constants::new(16, &mut random),
    ];
    let g = sized(window([6, 6], 16, 16, [3, 3]), [0, 0]);
    let output = constants[0].requantize();
    let first = conv_layer(&g, &x, 3, Constant::new(&w[0], Some(&kept)), output);
    // as many weights, in other shapes
    let shapes = [
        sized(window([6, 6], 16, 16, [1, 9]), [0, 5]),
        sized(window([6, 6], 16, 16, [9, 1]), [5, 0]),
    ];
    let others = [
        first,
        ConvI8 {
            w: Constant::new(&w[1], Some(&kept)),
            ..first
        },
        ConvI8 {
            x_zero_point: 4,
            ..first
        },
        ConvI8 {
            output: Requantize {
                bias: &constants[1].bias,
                ..output
            },
            ..first
        },
        ConvI8 {
            output: Requantize {
                multiplier: &constants[1].multiplier,
                ..output
            },
            ..first
        },
        ConvI8 {
            output: Requantize {
                shift: &constants[1].shift,
                ..output
            },
            ..first
        },
        ConvI8 {
            output: Requantize {
                zero_point: 9,
                ..output
            },
            ..first
        },
        ConvI8 {
            window: &shapes[0],
            ..first
        },
        ConvI8 {
            window: &shapes[1],
            ..first
        },
    ];
    for _ in 0..2 {
        for p in &others {
            check(p, false);
        }
    }
    // weights of another layout: an element of every filter beside each other
    let g = sized(window([6, 6], 1, 16, [3, 3]), [0, 0]);
    let p = ConvI8 {
        window: &g,
        w: Constant::new(&w[0][..9 * 16], Some(&kept)),
        ..first
    };
    for (filter, element) in [(9, 1), (1, 16), (9, 1)] {
        let (mut expected, mut got) = ([99; 16 * 16], [0; 16 * 16]);
        // SAFETY: the CPU has what they need.
        assert!(unsafe { conv(&p, Layout { filter, element }, &mut got) });
        match element {
            1 => scalar::conv::forward_i8(&p, &mut expected),
            _ => scalar::depthwise::forward_i8(&p, &mut expected),
        }
        assert_eq!(got, expected);
    }
}

#[test]
fn depthwise_layers_of_one_place_are_kept_apart() {
    if !is_there() {
        return;
    }
    let mut random = Random(18);
    let mut memory = std::vec![0; 1 << 20];
    let kept = Kept::new(&mut memory);
    let x = random.bytes(9 * 9 * 32);
    let w = random.bytes(9 * 32);
    let constants = Constants::new(32, &mut random);
    let shapes =
        [[3, 3], [1, 9], [9, 1]].map(|kernel| sized(window([9, 9], 32, 32, kernel), [0, 0]));
    for _ in 0..2 {
        for g in &shapes {
            for zero_point in [3, 4] {
                let w = Constant::new(&w, Some(&kept));
                check(
                    &conv_layer(g, &x, zero_point, w, constants.requantize()),
                    true,
                );
            }
        }
    }
}

#[test]
fn dense_layers_have_the_room_they_ask_for() {
    if !is_there() {
        return;
    }
    let mut random = Random(19);
    for depth in [1, 2, 5, 64, 127, 640] {
        for outputs in [1, 3, 12, 16, 40, 64, 96, 97, 128, 130, 200] {
            for samples in [1, 2, 3, 7] {
                let (x, w) = (random.bytes(samples * depth), random.bytes(depth * outputs));
                let constants = Constants::new(outputs, &mut random);
                let mut memory = std::vec![0; dense_bytes(depth * outputs, outputs)];
                let kept = Kept::new(&mut memory);
                let p = DenseI8 {
                    depth,
                    x: &x,
                    x_zero_point: -7,
                    w: Constant::new(&w, Some(&kept)),
                    output: constants.requantize(),
                };
                let n = samples * outputs;
                let (mut expected, mut got) = (std::vec![99; n], std::vec![0; n]);
                scalar::dense::forward_i8(&p, &mut expected);
                // SAFETY: the CPU has what they need.
                assert!(unsafe { dense(&p, &mut got) });
                assert_eq!(got, expected, "{depth} {outputs} {samples}");
            }
        }
    }
}

/// Without a place, with roundings of other kinds, and of shapes that do not fit, layers are left to others, and stay so.
#[test]
fn what_is_left_to_others() {
    if !is_there() {
        return;
    }
    let mut random = Random(20);
    let mut memory = std::vec![0; 1 << 20];
    let kept = Kept::new(&mut memory);
    let constants = Constants::new(16, &mut random);
    let (x, w) = (random.bytes(49 * 16), random.bytes(9 * 16 * 16));
    let g = sized(window([7, 7], 16, 16, [3, 3]), [0, 0]);
    let output = constants.requantize();
    let taken = conv_layer(&g, &x, 3, Constant::new(&w, Some(&kept)), output);
    let dilated = sized(
        Window {
            dilation: [2, 1],
            ..g
        },
        [0, 0],
    );
    let single = Requantize {
        rounding: Rounding::Single,
        ..output
    };
    let negative = [-1; 16];
    let negative = Requantize {
        multiplier: &negative,
        ..output
    };
    let others = [
        ConvI8 {
            w: w[..].into(),
            ..taken
        },
        ConvI8 {
            output: single,
            ..taken
        },
        ConvI8 {
            output: negative,
            ..taken
        },
        ConvI8 {
            window: &dilated,
            ..taken
        },
    ];
    for p in others.iter().chain(&others) {
        let p = *p;
        let depthwise_weights = match p.w.place() {
            Some(place) => Constant::new(&p.w[..9 * 16], Some(place)),
            None => p.w[..9 * 16].into(),
        };
        let other = ConvI8 {
            w: depthwise_weights,
            ..p
        };
        let layout = Layout {
            filter: 9 * 16,
            element: 1,
        };
        let mut y = std::vec![0; 49 * 16];
        let runs = counted(|| {
            // SAFETY: the CPU has what they need.
            unsafe {
                assert!(!conv(&p, layout, &mut y));
                assert!(!depthwise(&other, &mut y));
            }
        });
        assert_eq!(runs, 0);
    }
    check(&taken, false);
}

/// All pairs of inputs, for scales as TFLite has them: one factor is a half, the other any.
#[test]
fn sums_are_exact() {
    if !is_there() {
        return;
    }
    let mut random = Random(21);
    let all: Vec<i8> = (0..=u8::MAX).map(|x| x as i8).collect();
    let first: Vec<i8> = all.iter().flat_map(|&x| [x; 256]).collect();
    let second: Vec<i8> = all.iter().copied().cycle().take(1 << 16).collect();
    let mut taken = 0;
    for round in 0..200 {
        let half = Multiplier {
            mantissa: 1 << 30,
            shift: 0,
        };
        let any = Multiplier {
            mantissa: [1 << 30, i32::MAX, random.next() & i32::MAX | 1 << 30][round % 3],
            shift: -(round as i32 / 3 % 7),
        };
        let factors = if round % 2 == 0 {
            [half, any]
        } else {
            [any, half]
        };
        let mut zero_point = || match random.next() & 3 {
            0 => -128,
            1 => 127,
            _ => random.next().rem_euclid(256) - 128,
        };
        let p = AddI8 {
            x: [&first, &second],
            zero_points: [zero_point(), zero_point()],
            left_shift: if round % 5 == 0 { 17 } else { 20 },
            factors,
            output: Multiplier {
                mantissa: random.next() & i32::MAX | 1 << 30,
                shift: -15 - (round as i32 % 6),
            },
            zero_point: random.next().rem_euclid(256) - 128,
            range: range(round as i32),
        };
        let (mut expected, mut got) = (std::vec![99; 1 << 16], std::vec![0; 1 << 16]);
        // SAFETY: the CPU has what they need.
        if unsafe { add(&p, &mut got) } {
            taken += 1;
            super::super::add_i8(super::super::Kernels::Scalar, &p, &mut expected);
            assert!(got == expected, "{:?} {:?}", p.factors, p.zero_points);
            // fewer than fill the last vectors
            for n in [0, 1, 15, 63, 64, 65, 200] {
                let part = AddI8 {
                    x: [&first[1..=n], &second[1..=n]],
                    ..p
                };
                got.fill(0);
                // SAFETY: as above.
                assert!(unsafe { add(&part, &mut got[..n]) });
                assert_eq!(got[..n], expected[1..=n]);
            }
        }
    }
    assert!(taken > 100, "{taken}");
}
