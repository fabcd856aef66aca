//! The int8 loops of a chip with the DSP extension: what `scalar` computes, to the bit, with each window widened to 16 bits
//! once for all filters.

use super::arm::{self, WORD};
#[cfg(foolproof_mve)]
use super::mve;
use super::scalar::ROWS_I8;
#[cfg(not(foolproof_mve))]
use super::scalar::blocks;
use super::{ConvI8, DenseI8, Requantize, plain, scalar};
use core::ops::Range;

#[cfg(foolproof_mve)]
pub use super::mve_conv::conv_i8;

/// The largest window, elements, that is widened: 1152 bytes of stack.
#[cfg(not(foolproof_mve))]
const WIDE: usize = 576;
/// The largest window of a number of channels that is no multiple of 4, whose bytes are put together first.
#[cfg(not(foolproof_mve))]
const NARROW: usize = 160;

/// Output channels that are summed before they are finished.
#[cfg(not(foolproof_mve))]
const PART: usize = 64;
/// Output channels that are summed before they are finished.
#[cfg(foolproof_mve)]
const PART: usize = mve::CHANNELS;

/// The channels in parts of [`PART`]; the last one, of fewer, takes channels of the one before it, so that it has
/// [`ROWS_I8`] at least.
fn parts(channels: usize) -> impl Iterator<Item = Range<usize>> {
    (0..channels).step_by(PART).map(move |first| {
        let last = channels - ROWS_I8;
        first.min(last)..channels.min(first + PART)
    })
}

/// Requantization of some channels.
fn of<'a>(p: &Requantize<'a>, channels: Range<usize>) -> Requantize<'a> {
    Requantize {
        bias: &p.bias[channels.clone()],
        multiplier: &p.multiplier[channels.clone()],
        shift: &p.shift[channels],
        ..*p
    }
}

/// The integer convolution.
#[cfg(not(foolproof_mve))]
#[inline(never)]
pub fn conv_i8(p: &ConvI8, y: &mut [i8]) {
    let g = p.window;
    let (c, filter) = (g.in_channels, g.filter_len());
    let limit = if c.is_multiple_of(WORD) { WIDE } else { NARROW };
    let suits = (WORD..=limit).contains(&filter) && g.out_channels >= ROWS_I8;
    if !suits || !plain::is_plain(&p.output, filter) {
        return scalar::conv::forward_i8(p, y);
    }
    let mut wide = [[0; 2]; WIDE / WORD];
    let wide = &mut wide[..filter.div_ceil(WORD)];
    let cells = g.kernel[0] * g.kernel[1];
    let mut sums = [0; PART];
    for ((n, rows, columns), y) in g.windows().zip(y.chunks_exact_mut(g.out_channels)) {
        let whole = rows.count * columns.count == cells;
        if c.is_multiple_of(WORD) {
            // Cells outside the image hold the zero point: zero, widened.
            if !whole {
                wide.fill([0; 2]);
            }
            for run in g.runs(n, rows, columns) {
                let len = run.count * c;
                let x = &p.x[run.pixel * c..][..len];
                arm::widen(x, p.x_zero_point, &mut wide[run.cell * c / WORD..]);
            }
        } else {
            let mut narrow = [0; NARROW];
            let narrow = &mut narrow[..filter];
            if !whole {
                narrow.fill(p.x_zero_point as i8);
            }
            for run in g.runs(n, rows, columns) {
                let len = run.count * c;
                let x = &p.x[run.pixel * c..][..len];
                for (to, &x) in narrow[run.cell * c..][..len].iter_mut().zip(x) {
                    *to = x;
                }
            }
            arm::widen(narrow, p.x_zero_point, wide);
        }
        for channels in parts(g.out_channels) {
            let sums = &mut sums[..channels.len()];
            let (y, output) = (&mut y[channels.clone()], of(&p.output, channels.clone()));
            arm::dots_wide(wide, filter, &p.w[channels.start * filter..], sums);
            arm::finish(&output, sums, y);
        }
    }
}

/// The integer fully connected layer.
#[inline(never)]
pub fn dense_i8(p: &DenseI8, y: &mut [i8]) {
    let outputs = p.output.bias.len();
    if outputs < ROWS_I8 || !plain::is_plain(&p.output, p.depth) {
        return scalar::dense::forward_i8(p, y);
    }
    #[cfg(foolproof_mve)]
    let mut part = mve::Part::new();
    #[cfg(foolproof_mve)]
    for channels in parts(outputs) {
        let output = of(&p.output, channels.clone());
        let w = &p.w[channels.start * p.depth..];
        part.ready(&output, p.x_zero_point, w, p.depth);
        for (x, y) in p.x.chunks_exact(p.depth).zip(y.chunks_exact_mut(outputs)) {
            part.outputs(x, &mut y[channels.clone()]);
        }
    }
    #[cfg(not(foolproof_mve))]
    for (x, y) in p.x.chunks_exact(p.depth).zip(y.chunks_exact_mut(outputs)) {
        for first in blocks(outputs) {
            let mut sums = [0; ROWS_I8];
            let w = &p.w[first * p.depth..];
            arm::dots_i8(x, p.x_zero_point, w, p.depth, &mut sums);
            let channels = first..first + ROWS_I8;
            let output = of(&p.output, channels.clone());
            arm::finish(&output, &sums, &mut y[channels]);
        }
    }
}

/// The integer depthwise convolution.
#[inline(never)]
pub fn depthwise_i8(p: &ConvI8, y: &mut [i8]) {
    let g = p.window;
    let c = g.in_channels;
    let cells = g.kernel[0] * g.kernel[1];
    if g.out_channels != c || c < WORD || !plain::is_plain(&p.output, cells) {
        return scalar::depthwise::forward_i8(p, y);
    }
    let row = g.input[1] * c;
    let mut sums = [0; PART];
    for ((n, rows, columns), y) in g.windows().zip(y.chunks_exact_mut(c)) {
        let pixel = (n * g.input[0] + rows.at) * g.input[1] + columns.at;
        let x = &p.x[pixel * c..];
        let w = &p.w[(rows.first * g.kernel[1] + columns.first) * c..];
        let inside = arm::Cells {
            count: [rows.count, columns.count],
            x: [g.dilation[0] * row, g.dilation[1] * c],
            w: [g.kernel[1] * c, c],
        };
        for channels in parts(c) {
            let sums = &mut sums[..channels.len()];
            let (y, output) = (&mut y[channels.clone()], of(&p.output, channels.clone()));
            let (x, w) = (&x[channels.start..], &w[channels.start..]);
            arm::meet(x, p.x_zero_point, w, &inside, sums);
            arm::finish(&output, sums, y);
        }
    }
}
