//! The gradient of a first layer with respect to an image of one channel: 3x3 windows that move by one pixel, over many channels, to
//! one number each. A pixel of the source is loaded once for the three windows that it is in, where `dots` would load it three times.
//! Sums are those of `dots`, to the bit: the same terms in the same order in each of eight lanes, and the same tree.

#![allow(clippy::needless_range_loop)] // places and columns of a window are registers: numbered, in loops that are unrolled

use super::conv::{Ends, PACKED, STRIP, Slide, Strip, Work};
use super::tile::Scratch;
use crate::kernels::Activation;
use crate::kernels::f32x8::{F4, F8};
use crate::kernels::kept::Loops;

/// The most places at once.
const PLACES: usize = 8;

/// Whether the loops below can do this slide: the sizes of a layer decide, not of a batch.
pub(super) fn takes(s: &Slide, ends: &Ends) -> bool {
    s.kernel == [3; 2]
        && [s.stride, s.dilation, s.step] == [[1; 2]; 3]
        && s.first == [0; 2]
        && s.count == s.destination
        && s.count[1] >= PLACES
        && s.channels == 1
        && matches!(s.source_channels, 8 | 16 | 24 | 32)
        && s.cut(PACKED).0 == s.source_channels
        && 9 * s.source_channels <= PACKED
        && ends.activation == Activation::None
}

/// As [`Slide::run`], for slides that [`takes`] names.
///
/// # Safety
/// As [`Slide::run`].
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
pub(super) unsafe fn run(s: &Slide, work: &Work) {
    let Work {
        source,
        weights,
        ends,
        destination,
    } = *work;
    let (mut packed, mut strip) = (Scratch::<PACKED>::new(), Scratch::<STRIP>::new());
    let (packed, strip) = (packed.start(), strip.start());
    let (channels, columns) = (s.source_channels, s.count[1]);
    let pack = |to: *mut f32| {
        // SAFETY: `takes` saw that there is room for nine cells of all channels.
        unsafe { s.pack(weights, [0, channels], [0, 1], [1, 9 * channels], to) };
    };
    let loops = (Loops::One, 0);
    // SAFETY: all weights are written.
    let packed = unsafe { s.in_order(weights, loops, (9 * channels, packed), pack) };
    let start = ends.bias.and_then(|bias| bias.first().copied());
    // with seven places at a time a row takes no more blocks than with eight: less of it is computed twice (one vector of channels only:
    // rows of 28 pixels, where it was measured)
    let few = columns.div_ceil(PLACES - 1) == columns.div_ceil(PLACES);
    let (_, rows) = s.cut(PACKED);
    for n in 0..s.batch {
        for first in (0..s.count[0]).step_by(rows) {
            let rows = rows.min(s.count[0] - first);
            // SAFETY: `cut` gave the rows, for all channels.
            let strip = unsafe { s.strip(source, n, [first, rows], [0, channels], strip) };
            for y in 0..rows {
                let to = destination.wrapping_add((n * s.count[0] + first + y) * columns);
                let row = Strip {
                    start: strip.start.wrapping_add(y * strip.row),
                    ..strip
                };
                // SAFETY: the strip holds the windows of this row; the rest is the caller's promise.
                unsafe {
                    match (channels, few) {
                        (8, true) => line::<1, { PLACES - 1 }>(&row, columns, packed, start, to),
                        (8, _) => line::<1, PLACES>(&row, columns, packed, start, to),
                        (16, _) => line::<2, PLACES>(&row, columns, packed, start, to),
                        (24, _) => line::<3, PLACES>(&row, columns, packed, start, to),
                        _ => line::<4, PLACES>(&row, columns, packed, start, to),
                    }
                }
            }
        }
    }
}

/// A row of places, `M` at a time, over `8 C` channels.
///
/// # Safety
/// Their windows can be read, and the weights of nine cells; from `to` on the places can be read and written.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
unsafe fn line<const C: usize, const M: usize>(
    strip: &Strip,
    columns: usize,
    weights: *const f32,
    start: Option<f32>,
    to: *mut f32,
) {
    for x in (0..columns).step_by(M) {
        // the last ones of a row are computed again where they do not fill a block
        let from = x.min(columns - M);
        // SAFETY: the caller's promise.
        unsafe {
            let sums = places::<C, M>(strip, from, weights);
            write(sums, x - from, start, to.add(from));
        }
    }
}

/// The sums of `M` places of a row, from column `x` on, over `8 C` channels.
///
/// # Safety
/// Their windows can be read, and the weights of nine cells.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
#[inline]
unsafe fn places<const C: usize, const M: usize>(
    strip: &Strip,
    x: usize,
    weights: *const f32,
) -> [F8; M] {
    let mut sums = [F8::zero(); M];
    for i in 0..3 {
        let pixels = strip.start.wrapping_add(i * strip.row + 8 * C * x);
        let weights = weights.wrapping_add(3 * i * 8 * C);
        for k in 0..M + 2 {
            for c in 0..C {
                // SAFETY: eight channels of pixel `k` of `M + 2`.
                let pixel = unsafe { F8::load(pixels.add(8 * (C * k + c))) };
                for j in 0..3 {
                    // pixel `k` is column `j` of the window of place `k - j`
                    if k < j || k - j >= M {
                        continue;
                    }
                    // SAFETY: eight channels of a cell.
                    let w = unsafe { F8::load(weights.add((j * C + c) * 8)) };
                    sums[k - j] = F8::mul_add(pixel, w, sums[k - j]);
                }
            }
        }
    }
    sums
}

/// Adds the sums of a block's lanes to `start`, or to what is there; not those of the first `known` places.
///
/// # Safety
/// From `to` on `M` places, four to eight, can be read and written.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
#[inline]
unsafe fn write<const M: usize>(sums: [F8; M], known: usize, start: Option<f32>, to: *mut f32) {
    let ends = match start {
        Some(start) => [F4::splat(start); 2],
        // SAFETY: the caller's promise.
        None => unsafe { [F4::load(to), F4::load(to.add(M - 4))] },
    };
    // the first four and the last four
    let first = F8::sum_4([sums[0], sums[1], sums[2], sums[3]]);
    let last = F8::sum_4([sums[M - 4], sums[M - 3], sums[M - 2], sums[M - 1]]);
    let halves = [F4::add(ends[0], first), F4::add(ends[1], last)];
    let mut places = [0.0; PLACES];
    let into = if known == 0 { to } else { places.as_mut_ptr() };
    // SAFETY: `M` places, or more. What both halves hold is the same.
    unsafe {
        halves[0].store(into);
        halves[1].store(into.add(M - 4));
    }
    if known > 0 {
        for (place, y) in places.iter().enumerate().take(M).skip(known) {
            // SAFETY: the caller's promise.
            unsafe { *to.add(place) = *y };
        }
    }
}
