//! Counts the instructions of single int8 layers, of the shapes that CMSIS-NN's figures are known for, and checks each
//! against a sum made by hand. One line a layer: name, instructions, multiply-accumulates (those of padding cells counted in).
#![no_std]
#![no_main]

use core::hint::black_box;

use foolproof::kernels::{ConvI8, DenseI8, Kernels, Requantize, Rounding, Window};
use foolproof::kernels::{conv_i8, dense_i8, depthwise_i8};
use foolproof_firmware::board::{Board, Counter};
use foolproof_firmware::meter::Meter;
use semihosting::println;
use semihosting::process::exit;

/// Pixels of the images, which have up to 64 channels as input and as output; weights are 256x64 at most. The chip with the smallest
/// memory has no room for them.
const CELLS: usize = 16 * 16;
const CHANNELS: usize = 64;
const ZERO_POINT: i16 = -3;

#[derive(Clone, Copy)]
enum Kind {
    Conv,
    Depthwise,
    Dense,
}

struct Layer {
    name: &'static str,
    kind: Kind,
    /// Rows and columns of the window.
    kernel: [usize; 2],
    channels: [usize; 2],
    stride: usize,
}

const LAYERS: [Layer; 11] = [
    layer("conv_3x3_8_16", Kind::Conv, [3, 3], [8, 16], 1),
    layer("conv_3x3_16_16", Kind::Conv, [3, 3], [16, 16], 1),
    layer("conv_3x3_16_32_s2", Kind::Conv, [3, 3], [16, 32], 2),
    layer("conv_1x1_8_16", Kind::Conv, [1, 1], [8, 16], 1),
    layer("conv_1x1_16_32", Kind::Conv, [1, 1], [16, 32], 1),
    layer("conv_1x1_16_32_s2", Kind::Conv, [1, 1], [16, 32], 2),
    layer("conv_1x1_64_64", Kind::Conv, [1, 1], [64, 64], 1),
    layer("conv_3x3_3_16", Kind::Conv, [3, 3], [3, 16], 1),
    layer("conv_10x4_1_64_s2", Kind::Conv, [10, 4], [1, 64], 2),
    layer("depthwise_3x3_16", Kind::Depthwise, [3, 3], [16, 16], 1),
    layer("dense_256_64", Kind::Dense, [1, 1], [256, 64], 1),
];

const fn layer(
    name: &'static str,
    kind: Kind,
    kernel: [usize; 2],
    channels: [usize; 2],
    stride: usize,
) -> Layer {
    Layer {
        name,
        kind,
        kernel,
        channels,
        stride,
    }
}

#[repr(align(16))]
struct Aligned<const N: usize>([i8; N]);

#[cfg_attr(target_arch = "arm", cortex_m_rt::entry)]
#[cfg_attr(target_arch = "riscv32", riscv_rt::entry)]
fn main() -> ! {
    let mut meter = Meter::new(Board::take().counter);
    println!(
        "calibration {} {}",
        meter.calibrate(),
        foolproof::link::CALIBRATION_INSTRUCTIONS
    );
    let mut right = true;
    for layer in &LAYERS {
        right &= measure(layer, &mut meter);
    }
    for odd in &ODD {
        right &= check(odd);
    }
    exit(if right { 0 } else { 1 })
}

/// A layer that is only checked: rows and columns of the window, channels, stride, dilation, padding.
type Odd = (Kind, [usize; 2], [usize; 2], usize, usize, usize);

/// What the measured layers leave out: other numbers of channels, strides, dilations, windows of one row, outputs beyond a part.
const ODD: [Odd; 18] = [
    (Kind::Conv, [3, 3], [5, 7], 1, 1, 1),
    (Kind::Conv, [3, 3], [3, 70], 2, 1, 0),
    (Kind::Conv, [2, 3], [4, 9], 2, 2, 2),
    (Kind::Conv, [5, 1], [16, 6], 1, 2, 3),
    (Kind::Conv, [1, 3], [7, 5], 2, 1, 1),
    (Kind::Conv, [1, 1], [13, 66], 2, 1, 0),
    (Kind::Conv, [1, 1], [6, 4], 1, 1, 1),
    (Kind::Conv, [3, 3], [2, 3], 1, 1, 1),
    (Kind::Conv, [3, 3], [1, 2], 1, 1, 1),
    (Kind::Conv, [3, 3], [3, 9], 3, 1, 0),
    (Kind::Conv, [1, 1], [16, 5], 16, 1, 0),
    (Kind::Conv, [1, 1], [32, 7], 1, 1, 0),
    (Kind::Conv, [1, 1], [37, 66], 3, 1, 0),
    (Kind::Conv, [1, 1], [40, 6], 16, 1, 0),
    (Kind::Conv, [16, 16], [1, 4], 1, 1, 1),
    (Kind::Conv, [5, 5], [40, 11], 3, 1, 2),
    (Kind::Depthwise, [3, 3], [7, 7], 2, 1, 1),
    (Kind::Depthwise, [2, 3], [9, 9], 1, 2, 2),
];

/// Whether a layer's outputs are right.
fn check(&(kind, kernel, [c, o], stride, dilation, padding): &Odd) -> bool {
    let mut x = Aligned([0; CELLS * CHANNELS]);
    let mut w = Aligned([0; 256 * 64]);
    let mut y = Aligned([0; CELLS * CHANNELS]);
    fill(&mut x.0, 3);
    fill(&mut w.0, 4);
    let filter = match kind {
        Kind::Depthwise => kernel[0] * kernel[1],
        _ => kernel[0] * kernel[1] * c,
    };
    let output = kernel.map(|kernel| {
        let reach = (kernel - 1) * dilation + 1;
        (16 + 2 * padding - reach) / stride + 1
    });
    let bias: [i32; 80] = core::array::from_fn(|i| 100 * i as i32 - 700);
    let multiplier: [i32; 80] = core::array::from_fn(|i| (1 << 30) + 12_345_678 * i as i32);
    let shift: [i32; 80] = core::array::from_fn(|i| -6 - (i % 3) as i32);
    let window = Window {
        batch: 1,
        input: [16, 16],
        in_channels: c,
        output,
        out_channels: o,
        kernel,
        stride: [stride; 2],
        dilation: [dilation; 2],
        padding: [padding; 2],
    };
    let conv = black_box(ConvI8 {
        window: &window,
        x: &x.0[..CELLS * c],
        x_zero_point: ZERO_POINT,
        w: w.0[..filter * o].into(),
        output: Requantize {
            bias: &bias[..o],
            multiplier: &multiplier[..o],
            shift: &shift[..o],
            rounding: Rounding::Double,
            zero_point: 5,
            range: (-100, 120),
        },
    });
    let y = &mut y.0[..output[0] * output[1] * o];
    match kind {
        Kind::Depthwise => depthwise_i8(Kernels::Scalar, &conv, y),
        _ => conv_i8(Kernels::Scalar, &conv, y),
    }
    let wrong = (0..y.len()).find(|&i| y[i] != by_hand(kind, &conv, i / o, i % o));
    if let Some(i) = wrong {
        println!("{:?}: output {} is {}, which is wrong", window, i, y[i]);
    }
    wrong.is_none()
}

/// Whether the outputs are right.
fn measure<C: Counter>(layer: &Layer, meter: &mut Meter<C>) -> bool {
    // On the stack, which these boards have enough of.
    let mut x = Aligned([0; CELLS * CHANNELS]);
    let mut w = Aligned([0; 256 * 64]);
    let mut y = Aligned([0; CELLS * CHANNELS]);
    fill(&mut x.0, 1);
    fill(&mut w.0, 2);
    let [c, o] = layer.channels;
    let size = layer.kernel[0] * layer.kernel[1];
    let (filter, input, output) = match layer.kind {
        Kind::Conv => (size * c, CELLS, (16 / layer.stride).pow(2)),
        Kind::Depthwise => (size, CELLS, (16 / layer.stride).pow(2)),
        Kind::Dense => (c, 1, 1),
    };
    let (x, w) = (&x.0[..input * c], &w.0[..filter * o]);
    let (y, macs) = (&mut y.0[..output * o], filter * o * output);
    let bias: [i32; 64] = core::array::from_fn(|i| 100 * i as i32 - 700);
    let multiplier: [i32; 64] = core::array::from_fn(|i| (1 << 30) + 12_345_678 * i as i32);
    let shift: [i32; 64] = core::array::from_fn(|i| -7 - (i % 3) as i32);
    let output = Requantize {
        bias: &bias[..o],
        multiplier: &multiplier[..o],
        shift: &shift[..o],
        rounding: Rounding::Double,
        zero_point: 5,
        range: (-128, 127),
    };
    // A compiler that knows the numbers would make another kernel of it.
    let output = black_box(output);
    let window = Window {
        batch: 1,
        input: [16, 16],
        in_channels: c,
        output: [16 / layer.stride; 2],
        out_channels: o,
        kernel: layer.kernel,
        stride: [layer.stride; 2],
        dilation: [1; 2],
        // Of what is padded the lesser half is above and to the left.
        padding: layer
            .kernel
            .map(|kernel| kernel.saturating_sub(layer.stride) / 2),
    };
    let conv = ConvI8 {
        window: &window,
        x,
        x_zero_point: ZERO_POINT,
        w: w.into(),
        output,
    };
    let fully = DenseI8 {
        depth: c,
        x,
        x_zero_point: ZERO_POINT,
        w: w.into(),
        output,
    };
    let (window, y) = (black_box(&window), black_box(y));
    let conv = black_box(ConvI8 { window, ..conv });
    let fully = black_box(fully);
    meter.start();
    match layer.kind {
        Kind::Conv => conv_i8(Kernels::Scalar, &conv, y),
        Kind::Depthwise => depthwise_i8(Kernels::Scalar, &conv, y),
        Kind::Dense => dense_i8(Kernels::Scalar, &fully, y),
    }
    let instructions = meter.stop();
    println!("{} {} {}", layer.name, instructions, macs);
    let wrong = (0..y.len()).find(|&i| y[i] != by_hand(layer.kind, &conv, i / o, i % o));
    if let Some(i) = wrong {
        println!("{}: output {} is {}, which is wrong", layer.name, i, y[i]);
    }
    wrong.is_none()
}

/// Output `o` of a cell, element by element.
fn by_hand(kind: Kind, p: &ConvI8, cell: usize, o: usize) -> i8 {
    let g = p.window;
    let c = g.in_channels;
    let x = |at: usize| i32::from(p.x[at]) - i32::from(ZERO_POINT);
    let mut sum = 0;
    if let Kind::Dense = kind {
        sum = (0..c).map(|i| x(i) * i32::from(p.w[o * c + i])).sum();
        return p.output.finish(sum, o);
    }
    let out = [cell / g.output[1], cell % g.output[1]];
    let place = |axis: usize, cell: usize| {
        (out[axis] * g.stride[axis] + cell * g.dilation[axis]).wrapping_sub(g.padding[axis])
    };
    for (i, j) in (0..g.kernel[0]).flat_map(|i| (0..g.kernel[1]).map(move |j| (i, j))) {
        let (row, column) = (place(0, i), place(1, j));
        if row >= 16 || column >= 16 {
            continue;
        }
        let (pixel, k) = (row * 16 + column, i * g.kernel[1] + j);
        sum += match kind {
            Kind::Depthwise => x(pixel * c + o) * i32::from(p.w[k * g.out_channels + o]),
            _ => (0..c)
                .map(|n| {
                    let w = (o * g.kernel[0] * g.kernel[1] + k) * c + n;
                    x(pixel * c + n) * i32::from(p.w[w])
                })
                .sum(),
        };
    }
    p.output.finish(sum, o)
}

/// Numbers that look random, all values of an int8.
fn fill(values: &mut [i8], seed: u32) {
    let mut state = seed;
    for value in values {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *value = (state >> 24) as i8;
    }
}
