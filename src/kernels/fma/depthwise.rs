//! Depthwise convolutions and their gradients with respect to the input, which are slides too (`conv`): eight channels in the lanes, up to
//! eight places side by side, so that a cell's weights are loaded once for all of them, or few places and up to four registers of channels.
//! Windows of three by three have loops of their own (`three`) as far as there are eight channels.
//!
//! A sum goes over the cells inside the image in their order, whatever lies beside its place.

#![allow(clippy::needless_range_loop)] // places are registers: numbered, in loops that are unrolled

use super::conv::{self, Ends, PACKED, Slide, Work};
use super::packing::Weights;
use super::three;
use super::tile::{Rails, Scratch};
use crate::kernels::Window;
use crate::kernels::f32x8::{F8, Mask};
use crate::kernels::kept::Loops;
use core::ops::Range;

/// One filter for each channel, a window that slides can do, and slices as long as the sizes say.
pub(super) fn takes(g: &Window, weights: usize, image: usize, places: usize) -> bool {
    let cells = g.kernel[0] * g.kernel[1];
    g.in_channels == g.out_channels
        && conv::takes(g)
        && weights == cells * g.out_channels
        && weights <= PACKED
        && conv::images(g) == [image, places]
}

/// From the image that the window slides over to its places.
pub(super) fn forward(g: &Window) -> Slide {
    let channels = [g.in_channels, g.out_channels];
    conv::forward(g, channels, g.out_channels, [1, 0])
}

/// From places to the image: slides that add to it.
pub(super) fn backward(g: &Window, each: impl FnMut(&Slide)) {
    let channels = [g.out_channels, g.in_channels];
    conv::backward(g, channels, g.out_channels, [1, 0], each);
}

/// The cells along an axis that lie inside the source, at place `q`.
pub(super) fn inside(s: &Slide, axis: usize, q: usize) -> Range<usize> {
    let (step, size) = (s.dilation[axis] as isize, s.source[axis] as isize);
    let start = (q * s.stride[axis]) as isize - s.padding[axis];
    // so many cells lie before a position
    let before = |position: isize| match position - start {
        ..=0 => 0,
        // a division takes as long as a place
        far if step == 1 => far as usize,
        far => ((far + step - 1) / step) as usize,
    };
    let end = before(size).min(s.kernel[axis]);
    before(0).min(end)..end
}

/// The places along an axis whose windows lie inside the source with all of their cells.
pub(super) fn whole(s: &Slide, axis: usize) -> Range<usize> {
    let (stride, padding) = (s.stride[axis] as isize, s.padding[axis]);
    let reach = (s.kernel[axis].max(1) - 1) * s.dilation[axis];
    let first = (padding.max(0) + stride - 1) / stride;
    let end = match s.source[axis] as isize + padding - reach as isize {
        ..=0 => 0,
        room => (room + stride - 1) / stride,
    };
    first as usize..(end as usize).min(s.count[axis])
}

/// The slide of one filter a channel.
///
/// # Safety
/// A token of [`Fma`](super::Fma) exists; images and weights have the slide's sizes, as [`takes`] said of the window that it comes from.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
pub(super) unsafe fn run(s: &Slide, work: &Work) {
    let len = s.kernel[0] * s.kernel[1] * s.channels;
    // SAFETY: all weights are written; the rest is the caller's promise.
    unsafe {
        let pack = |to| pack(s, work.weights, to);
        match s.kept(work.weights, (Loops::Depthwise, 0), len, pack) {
            Some(packed) => all(s, work, packed),
            None => unkept(s, work),
        }
    }
}

/// With weights in order on the stack. No part of its caller, which would keep room for them.
///
/// # Safety
/// As [`run`].
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
#[inline(never)]
unsafe fn unkept(s: &Slide, work: &Work) {
    let mut packed = Scratch::<PACKED>::new();
    // SAFETY: [`takes`] saw that there is room; the rest is the caller's promise.
    unsafe {
        pack(s, work.weights, packed.start());
        all(s, work, packed.start());
    }
}

/// All weights, `[cell][channel]`.
///
/// # Safety
/// As [`run`], and `to` has room for them.
unsafe fn pack(s: &Slide, weights: &Weights, to: *mut f32) {
    let channels = s.channels;
    for i in 0..s.kernel[0] {
        for j in 0..s.kernel[1] {
            let steps = i as isize * s.weight_step[0] + j as isize * s.weight_step[1];
            let from = s.weight.wrapping_add_signed(steps);
            let to = to.wrapping_add((i * s.kernel[1] + j) * channels);
            // SAFETY: a slide has no more cells than the window, whose weights fit.
            unsafe {
                match weights {
                    Weights::F32(w) => {
                        to.copy_from_nonoverlapping(w[from..from + channels].as_ptr(), channels);
                    }
                    Weights::I8(_) => {
                        for c in 0..channels {
                            *to.add(c) = weights.get(from + c, c);
                        }
                    }
                }
            }
        }
    }
}

/// All places.
///
/// # Safety
/// As [`run`]; `packed` are all weights, `[cell][channel]`.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
unsafe fn all(s: &Slide, work: &Work, packed: *const f32) {
    let first = match three::takes(s) {
        // SAFETY: the caller's promise.
        true => unsafe { three::run(s, work, packed) },
        false => 0,
    };
    if first < s.channels {
        // SAFETY: the caller's promise.
        unsafe { from(first, s, work, packed) }
    }
}

/// All places, channels from `first` on.
///
/// # Safety
/// As [`all`].
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
unsafe fn from(first: usize, s: &Slide, work: &Work, packed: *const f32) {
    let channels = s.channels;
    let together = whole(s, 1);
    for n in 0..s.batch {
        let image = n * s.source[0] * s.source[1] * channels;
        let result = n * s.destination[0] * s.destination[1] * channels;
        for y in 0..s.count[0] {
            let rows = inside(s, 0, y);
            let mut x = 0;
            while x < s.count[1] {
                let columns = inside(s, 1, x);
                // the next places that have all columns of the window inside
                let alike = match together.contains(&x) {
                    true => together.end - x,
                    false => 1,
                };
                let at = Places {
                    slide: s,
                    source: work.source.wrapping_add(image),
                    weights: packed,
                    first: [y, x],
                    rows: rows.clone(),
                    columns,
                    ends: work.ends,
                    destination: work.destination.wrapping_add(result),
                };
                // SAFETY: so many places from `x` on are there, alike in which cells are inside.
                x += unsafe {
                    match alike {
                        8.. => at.run::<8, 1>(first),
                        4.. => at.run::<4, 2>(first),
                        2.. => at.run::<2, 4>(first),
                        _ => at.run::<1, 4>(first),
                    }
                };
            }
        }
    }
}

/// Places of a row side by side, whose windows have the same cells inside the image.
struct Places<'a> {
    slide: &'a Slide,
    /// Its image, of this sample.
    source: *const f32,
    /// `[cell][channel]`.
    weights: *const f32,
    first: [usize; 2],
    rows: Range<usize>,
    columns: Range<usize>,
    ends: &'a Ends<'a>,
    destination: *mut f32,
}

/// What all channels of some places have in common.
struct Cells {
    /// Where the first cell's channels are in the source, and its weights.
    from: *const f32,
    weights: *const f32,
    /// From a row's first cell to the next one's, and from cell to cell: of the source, and of the weights.
    rows: [usize; 2],
    columns: [usize; 2],
    count: [usize; 2],
    /// From place to place in the source.
    step: usize,
    /// The first place's outputs, and from place to place.
    to: *mut f32,
    step_to: usize,
}

impl Places<'_> {
    fn cells(&self) -> Cells {
        let s = self.slide;
        let [y, x] = self.first;
        let pitch = [s.source[1] * s.channels, s.destination[1] * s.channels];
        let (i, j) = (self.rows.start, self.columns.start);
        // a pixel of the source, if any row and any column is inside
        let row = (y * s.stride[0] + i * s.dilation[0]) as isize - s.padding[0];
        let column = (x * s.stride[1] + j * s.dilation[1]) as isize - s.padding[1];
        let at = row * pitch[0] as isize + column * s.channels as isize;
        let to =
            (s.first[0] + y * s.step[0]) * pitch[1] + (s.first[1] + x * s.step[1]) * s.channels;
        Cells {
            from: self.source.wrapping_offset(at),
            weights: self
                .weights
                .wrapping_add((i * s.kernel[1] + j) * s.channels),
            rows: [s.dilation[0] * pitch[0], s.kernel[1] * s.channels],
            columns: [s.dilation[1] * s.channels, s.channels],
            count: [self.rows.len(), self.columns.len()],
            step: s.stride[1] * s.channels,
            to: self.destination.wrapping_add(to),
            step_to: s.step[1] * s.channels,
        }
    }

    /// Channels from `first` on of `P` places, `8 V` at a time as long as there are so many; returns `P`.
    ///
    /// # Safety
    /// As [`run`]; there are so many places, and `rows` and `columns` of their windows lie inside the source.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    unsafe fn run<const P: usize, const V: usize>(&self, first: usize) -> usize {
        let (channels, cells) = (self.slide.channels, self.cells());
        let mut c = first;
        // SAFETY: the caller's promise; so many channels are left, and those that are not there are neither read nor written.
        unsafe {
            while c + 8 * V <= channels {
                self.sums::<P, V>(&cells, c);
                c += 8 * V;
            }
            while c + 8 <= channels {
                self.sums::<P, 1>(&cells, c);
                c += 8;
            }
            if c < channels {
                self.rest::<P>(&cells, c);
            }
        }
        P
    }

    /// `V` registers of channels from `c` on.
    ///
    /// # Safety
    /// As [`Places::run`]; so many channels are left.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    #[inline]
    unsafe fn sums<const P: usize, const V: usize>(&self, cells: &Cells, c: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [[F8::zero(); V]; P];
            let mut row = [cells.from.wrapping_add(c), cells.weights.wrapping_add(c)];
            for _ in 0..cells.count[0] {
                let [mut x, mut w] = row;
                for _ in 0..cells.count[1] {
                    for v in 0..V {
                        let w = F8::load(w.wrapping_add(v * 8));
                        for p in 0..P {
                            let x = F8::load(x.wrapping_add(p * cells.step + v * 8));
                            sums[p][v] = F8::mul_add(x, w, sums[p][v]);
                        }
                    }
                    x = x.wrapping_add(cells.columns[0]);
                    w = w.wrapping_add(cells.columns[1]);
                }
                row[0] = row[0].wrapping_add(cells.rows[0]);
                row[1] = row[1].wrapping_add(cells.rows[1]);
            }
            let rails = Rails::new(self.ends.activation);
            for p in 0..P {
                for v in 0..V {
                    let c = c + v * 8;
                    let to = cells.to.wrapping_add(p * cells.step_to + c);
                    let start = match self.ends.bias {
                        Some(bias) => F8::load(bias.as_ptr().wrapping_add(c)),
                        None => F8::load(to),
                    };
                    rails.clamp(F8::add(sums[p][v], start)).store(to);
                }
            }
        }
    }

    /// The last channels, from `c` on, of which there are fewer than eight.
    ///
    /// # Safety
    /// As [`Places::run`].
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    unsafe fn rest<const P: usize>(&self, cells: &Cells, c: usize) {
        let there = Mask::first(self.slide.channels - c);
        // SAFETY: the caller's promise; channels that are not there are neither read nor written.
        unsafe {
            let mut sums = [F8::zero(); P];
            for i in 0..cells.count[0] {
                for j in 0..cells.count[1] {
                    let at = |side: usize| i * cells.rows[side] + j * cells.columns[side] + c;
                    let w = F8::load_some(cells.weights.wrapping_add(at(1)), there);
                    let from = cells.from.wrapping_add(at(0));
                    for p in 0..P {
                        let x = F8::load_some(from.wrapping_add(p * cells.step), there);
                        sums[p] = F8::mul_add(x, w, sums[p]);
                    }
                }
            }
            let rails = Rails::new(self.ends.activation);
            for p in 0..P {
                let to = cells.to.wrapping_add(p * cells.step_to + c);
                let start = match self.ends.bias {
                    Some(bias) => bias.as_ptr().wrapping_add(c),
                    None => to,
                };
                let start = F8::load_some(start, there);
                rails.clamp(F8::add(sums[p], start)).store_some(to, there);
            }
        }
    }
}
