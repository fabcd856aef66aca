//! Depthwise convolution: four pixels, sixteen channels, two columns of a row of the window at a time.
//!
//! A strip holds each element beside the one of the next column, so that one load brings what eight channels have in both.

use super::super::kept::Loops;
use super::super::strip::{Cut, Layout, Pixels, STRIP, Scratch, Strip, first_of, kept};
use super::super::{ConvI8, Window, int8_avx512, simd};
use super::conv::{Target, conv_of};
use super::{Finish, Lanes};
use core::arch::x86_64::*;
use core::mem::MaybeUninit;

/// Elements of packed weights: 64 KiB.
const PACKED: usize = 32 * 1024;

/// The integer depthwise convolution; false where it was left undone.
#[target_feature(enable = "avx2")]
pub(in super::super) fn depthwise(p: &ConvI8, y: &mut [i8]) -> bool {
    let (window, layout) = seen(p.window);
    let p = &ConvI8 {
        window: &window,
        ..*p
    };
    if let Some(layout) = layout {
        return conv_of(p, layout, y);
    }
    // SAFETY: the CPU has what they need.
    if simd::found().wide_products && unsafe { int8_avx512::depthwise(p, y) } {
        return true;
    }
    narrow(p, y)
}

/// The same with AVX2 alone. No part of its caller, which would keep room for it on the stack.
#[target_feature(enable = "avx2")]
#[inline(never)]
fn narrow(p: &ConvI8, y: &mut [i8]) -> bool {
    let g = p.window;
    let (c, outputs) = (g.in_channels, g.out_channels);
    let cells = g.kernel[0] * g.kernel[1];
    let sized = c == p.output.bias.len() && p.w.len() == cells * c;
    // of eight channels: pairs of elements
    let group = g.kernel[0] * g.kernel[1].div_ceil(2) * 16;
    let shaped = g.dilation == [1, 1] && c == outputs && c >= 8;
    if !shaped || !sized || cells == 0 || c.div_ceil(8) * group > PACKED {
        return false;
    }
    let Some(finish) = Finish::new(&p.output, cells) else {
        return false;
    };
    // a strip holds everything twice; the row behind its rows is for vectors that end there
    let Some(cut) = Cut::new(g, STRIP / 2 - 16) else {
        return false;
    };
    let mut weights = Scratch::<PACKED>::new();
    let pack = |weights: &mut [MaybeUninit<i16>]| {
        for (i, packed) in weights.chunks_exact_mut(group).enumerate() {
            pack(p, first_of(i, c), packed);
        }
    };
    let (layout, len) = (
        Layout {
            filter: 1,
            element: c,
        },
        c.div_ceil(8) * group,
    );
    let kept = kept(p, (Loops::IntegerDepthwise, layout), len, pack);
    let weights = kept.unwrap_or_else(|| {
        let weights = weights.uncleared(len);
        pack(weights);
        weights
    });
    // SAFETY: `pack` has written every group.
    let weights = unsafe { weights.assume_init_ref() };
    let (mut row, mut paired) = (Scratch::<STRIP>::new(), Scratch::<STRIP>::new());
    for strip in cut.strips(g) {
        let (rows, pitch) = (strip.input_rows(g), strip.pitch);
        let (x, whole) = (
            paired.uncleared(2 * rows * pitch + 32),
            pitch.next_multiple_of(16),
        );
        x[2 * rows * pitch..].fill(MaybeUninit::new(0));
        let row = row.uncleared(whole + c);
        row[pitch..].fill(MaybeUninit::new(0));
        for r in 0..rows {
            strip.row(p, finish.doubling(), r, &mut row[..pitch]);
            // SAFETY: all of it has been written.
            let row = unsafe { row.assume_init_ref() };
            pair(row, c, &mut x[2 * r * pitch..][..2 * whole]);
        }
        // SAFETY: every row's pairs have been written, and what is behind them.
        let x = unsafe { x.assume_init_ref() };
        let mut groups = weights.chunks_exact(group).enumerate().peekable();
        while let Some((i, w)) = groups.next() {
            let o = first_of(i, c);
            match groups.next_if(|_| o + 16 <= c) {
                Some((_, other)) => part::<2>(p, &finish, &strip, x, [w, other], o, y),
                None => part::<1>(p, &finish, &strip, x, [w], o, y),
            }
        }
    }
    true
}

/// How these loops and wider ones see a depthwise layer: a column is as good as a row, of which several elements are taken at a time; and if every
/// filter sees one channel it is a convolution, of weights in this layout.
pub(in super::super) fn seen(g: &Window) -> (Window, Option<Layout>) {
    let layout = Layout {
        filter: 1,
        element: g.out_channels,
    };
    (turned(g), (g.in_channels == 1).then_some(layout))
}

fn turned(g: &Window) -> Window {
    let is_column = [g.input[1], g.output[1], g.kernel[1]] == [1; 3] && g.padding[1] == 0;
    if !is_column {
        return *g;
    }
    let turn = |[rows, columns]: [usize; 2]| [columns, rows];
    Window {
        input: turn(g.input),
        output: turn(g.output),
        kernel: turn(g.kernel),
        stride: turn(g.stride),
        dilation: turn(g.dilation),
        padding: turn(g.padding),
        ..*g
    }
}

/// The weights of eight channels from `o` on, `[rows, pairs of columns, 8, 2]`; the column behind the last is zero.
#[target_feature(enable = "avx2")]
fn pack(p: &ConvI8, o: usize, packed: &mut [MaybeUninit<i16>]) {
    let g = p.window;
    let weights = |row: usize, column: usize| {
        if column >= g.kernel[1] {
            return _mm_setzero_si128();
        }
        let w = &p.w[(row * g.kernel[1] + column) * g.in_channels + o..][..8];
        // SAFETY: `w` is 8 bytes long.
        _mm_cvtepi8_epi16(unsafe { _mm_loadl_epi64(w.as_ptr().cast()) })
    };
    let mut packed = packed.as_chunks_mut::<16>().0.iter_mut();
    for row in 0..g.kernel[0] {
        for (column, to) in (0..g.kernel[1]).step_by(2).zip(&mut packed) {
            let (a, b) = (weights(row, column), weights(row, column + 1));
            let both = _mm256_set_m128i(_mm_unpackhi_epi16(a, b), _mm_unpacklo_epi16(a, b));
            // SAFETY: `to` is 32 bytes long.
            unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), both) };
        }
    }
}

/// Each element of a row beside the one that is `c` further on.
#[target_feature(enable = "avx2")]
#[inline]
fn pair(row: &[i16], c: usize, to: &mut [MaybeUninit<i16>]) {
    let sixteens = row
        .as_chunks::<16>()
        .0
        .iter()
        .zip(row[c..].as_chunks::<16>().0);
    for ((a, b), to) in sixteens.zip(to.as_chunks_mut::<32>().0) {
        // SAFETY: both are 32 bytes long.
        let (a, b) = unsafe {
            (
                _mm256_loadu_si256(a.as_ptr().cast()),
                _mm256_loadu_si256(b.as_ptr().cast()),
            )
        };
        let (low, high) = (_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b));
        let first = _mm256_permute2x128_si256::<0x20>(low, high);
        let second = _mm256_permute2x128_si256::<0x31>(low, high);
        let (to_first, to_second) = to.split_at_mut(16);
        // SAFETY: both are 32 bytes long.
        unsafe {
            _mm256_storeu_si256(to_first.as_mut_ptr().cast(), first);
            _mm256_storeu_si256(to_second.as_mut_ptr().cast(), second);
        }
    }
}

/// All pixels of a strip, `8 T` channels from `o` on.
#[target_feature(enable = "avx2")]
fn part<const T: usize>(
    p: &ConvI8,
    finish: &Finish,
    strip: &Strip,
    x: &[i16],
    w: [&[i16]; T],
    o: usize,
    y: &mut [i8],
) {
    let g = p.window;
    let to = Target::<T>::new(p, finish, o, 8 * T);
    let x = &x[2 * o..];
    let mut pixels = Pixels::new(strip, g, 2 * strip.pitch, 2 * g.in_channels);
    while let Some(at) = pixels.take::<4>() {
        let sums = sums::<4, T>(x, at, w, strip.pitch, g, &to.lanes);
        to.write(at, sums, y);
    }
    if let Some(at) = pixels.take::<2>() {
        let sums = sums::<2, T>(x, at, w, strip.pitch, g, &to.lanes);
        to.write(at, sums, y);
    }
    if let Some(at) = pixels.take::<1>() {
        let sums = sums::<1, T>(x, at, w, strip.pitch, g, &to.lanes);
        to.write(at, sums, y);
    }
}

/// Accumulators of `P` windows, which begin at `at.0` in the strip, for the first `8 T` channels.
#[target_feature(enable = "avx2")]
#[inline]
fn sums<const P: usize, const T: usize>(
    x: &[i16],
    at: [(usize, usize); P],
    w: [&[i16]; T],
    pitch: usize,
    g: &Window,
    lanes: &[Lanes; T],
) -> [[__m256i; T]; P] {
    let (rows, pairs, c) = (g.kernel[0], g.kernel[1].div_ceil(2), g.in_channels);
    // what the loops read, and no more
    let reach = 2 * ((rows - 1) * pitch + 2 * (pairs - 1) * c) + 16 * T;
    let mut start = [x.as_ptr(); P];
    for i in 0..P {
        start[i] = x[at[i].0..][..reach].as_ptr();
    }
    let mut from = [x.as_ptr(); T];
    for t in 0..T {
        from[t] = w[t][..rows * pairs * 16].as_ptr();
    }
    let mut sums = [[_mm256_setzero_si256(); T]; P];
    for sums in &mut sums {
        for t in 0..T {
            sums[t] = lanes[t].bias;
        }
    }
    for row in 0..rows {
        for k in 0..pairs {
            let at = 2 * (row * pitch + 2 * k * c);
            let mut weights = [_mm256_setzero_si256(); T];
            for t in 0..T {
                // SAFETY: vector `row pairs + k` of the `rows pairs` in that slice.
                weights[t] =
                    unsafe { _mm256_loadu_si256(from[t].add((row * pairs + k) * 16).cast()) };
            }
            for i in 0..P {
                for t in 0..T {
                    // SAFETY: elements `at + 16t` and 15 more of a slice of `reach`; the largest is `reach - 1`.
                    let x = unsafe { _mm256_loadu_si256(start[i].add(at + 16 * t).cast()) };
                    let products = _mm256_madd_epi16(x, weights[t]);
                    sums[i][t] = _mm256_add_epi32(sums[i][t], products);
                }
            }
        }
    }
    sums
}
