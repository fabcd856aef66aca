//! Depthwise convolutions and their gradients with respect to the input, which are slides too (`conv`): eight channels in the lanes, up to
//! eight places side by side, so that a cell's weights are loaded once for all of them.
//!
//! A sum goes over the cells inside the image in their order, whatever lies beside its place.

#![allow(clippy::needless_range_loop)] // places are registers: numbered, in loops that are unrolled

use super::conv::{self, Ends, PACKED, Slide, Work};
use super::packing::Weights;
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
fn inside(s: &Slide, axis: usize, q: usize) -> Range<usize> {
    let (step, size) = (s.dilation[axis] as isize, s.source[axis] as isize);
    let start = (q * s.stride[axis]) as isize - s.padding[axis];
    // so many cells lie before a position
    let before = |position: isize| match position - start {
        ..=0 => 0,
        far => ((far + step - 1) / step) as usize,
    };
    let end = before(size).min(s.kernel[axis]);
    before(0).min(end)..end
}

/// The places along an axis whose windows lie inside the source with all of their cells.
fn whole(s: &Slide, axis: usize) -> Range<usize> {
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
    let Work {
        source,
        weights,
        ends,
        destination,
    } = *work;
    let channels = s.channels;
    let mut packed = Scratch::<PACKED>::new();
    let packed = packed.start();
    let pack = |packed: *mut f32| {
        for i in 0..s.kernel[0] {
            for j in 0..s.kernel[1] {
                let steps = i as isize * s.weight_step[0] + j as isize * s.weight_step[1];
                let from = s.weight.wrapping_add_signed(steps);
                let to = packed.wrapping_add((i * s.kernel[1] + j) * channels);
                // SAFETY: a slide has no more cells than the window, whose weights fit.
                unsafe {
                    match weights {
                        Weights::F32(w) => {
                            to.copy_from_nonoverlapping(
                                w[from..from + channels].as_ptr(),
                                channels,
                            );
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
    };
    let room = (s.kernel[0] * s.kernel[1] * channels, packed);
    // SAFETY: all weights are written.
    let packed = unsafe { s.in_order(weights, (Loops::Depthwise, 0), room, pack) };
    let together = whole(s, 1);
    for n in 0..s.batch {
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
                    source: source.wrapping_add(n * s.source[0] * s.source[1] * channels),
                    weights: packed,
                    first: [y, x],
                    rows: rows.clone(),
                    columns,
                    ends,
                    destination: destination
                        .wrapping_add(n * s.destination[0] * s.destination[1] * channels),
                };
                // SAFETY: so many places from `x` on are there, alike in which cells are inside.
                x += unsafe {
                    match alike {
                        8.. => at.run::<8>(),
                        4.. => at.run::<4>(),
                        2.. => at.run::<2>(),
                        _ => at.run::<1>(),
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

impl Places<'_> {
    /// All channels of `P` places; returns `P`.
    ///
    /// # Safety
    /// As [`run`]; there are so many places, and `rows` and `columns` of their windows lie inside the source.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    unsafe fn run<const P: usize>(&self) -> usize {
        let channels = self.slide.channels;
        let whole = channels / 8 * 8;
        for c in (0..whole).step_by(8) {
            // SAFETY: the caller's promise; eight channels.
            unsafe {
                self.eight::<P>(c, |at| F8::load(at), |to, v| v.store(to));
            }
        }
        if whole < channels {
            let there = Mask::first(channels - whole);
            // SAFETY: the caller's promise; channels that are not there are neither read nor written.
            unsafe {
                self.eight::<P>(
                    whole,
                    |at| F8::load_some(at, there),
                    |to, v| v.store_some(to, there),
                );
            }
        }
        P
    }

    /// Channels `c..c + 8`.
    ///
    /// # Safety
    /// As [`Places::run`]; `load` and `store` leave alone the channels that are not there.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    #[inline]
    unsafe fn eight<const P: usize>(
        &self,
        c: usize,
        load: impl Fn(*const f32) -> F8,
        store: impl Fn(*mut f32, F8),
    ) {
        let s = self.slide;
        let [y, x] = self.first;
        let pitch = [s.source[1] * s.channels, s.destination[1] * s.channels];
        // a pixel of the source; rows and columns inside make these numbers positive
        let row = |i: usize| {
            ((y * s.stride[0] + i * s.dilation[0]) as isize - s.padding[0]) as usize * pitch[0]
        };
        let column = |j: usize| {
            ((x * s.stride[1] + j * s.dilation[1]) as isize - s.padding[1]) as usize * s.channels
        };
        let step = s.stride[1] * s.channels;
        let mut sums = [F8::zero(); P];
        for i in self.rows.clone() {
            let from = self.source.wrapping_add(row(i) + c);
            for j in self.columns.clone() {
                let w = load(
                    self.weights
                        .wrapping_add((i * s.kernel[1] + j) * s.channels + c),
                );
                let from = from.wrapping_add(column(j));
                for p in 0..P {
                    let x = load(from.wrapping_add(p * step));
                    sums[p] = F8::mul_add(x, w, sums[p]);
                }
            }
        }
        let at =
            (s.first[0] + y * s.step[0]) * pitch[1] + (s.first[1] + x * s.step[1]) * s.channels;
        let bias = self
            .ends
            .bias
            .map(|bias| load(bias.as_ptr().wrapping_add(c)));
        let rails = Rails::new(self.ends.activation);
        for p in 0..P {
            let to = self
                .destination
                .wrapping_add(at + p * s.step[1] * s.channels + c);
            let start = match bias {
                Some(bias) => bias,
                None => load(to),
            };
            store(to, rails.clamp(F8::add(sums[p], start)));
        }
    }
}
