//! Depthwise 3x3 windows: a register of channels at a time, whose weights stay in registers while the window goes along a row. For each set of
//! cells that may be inside the image there are instructions without any choice.

#![allow(clippy::needless_range_loop)] // rows and columns of a window are registers: numbered, in loops that are unrolled

use super::conv::{Slide, Work};
use super::depthwise::{inside, whole};
#[cfg(target_arch = "x86_64")]
use super::lanes::F16;
use super::lanes::Lanes;
use super::tile::rails;
use crate::kernels::f32x8::F8;
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{found, ran_wide};
use core::ops::Range;

/// The most places at either end of a row whose windows have columns outside.
const EDGES: usize = 2;

/// Whether the loops below can do this slide.
pub(super) fn takes(s: &Slide) -> bool {
    let whole = whole(s, 1);
    s.kernel == [3; 2]
        && whole.start <= EDGES
        && whole.start <= whole.end
        && s.count[1] - whole.end <= EDGES
}

/// All places of as many channels as there are whole registers for; returns how many.
///
/// # Safety
/// As [`depthwise::all`](super::depthwise::all), for slides that [`takes`] names.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
pub(super) unsafe fn run(s: &Slide, work: &Work, packed: *const f32) -> usize {
    let whole = whole(s, 1);
    let columns = |x| Columns::of(inside(s, 1, x));
    let bias = work.ends.bias.map(<[f32]>::as_ptr);
    let mut row = Row {
        left: [columns(0), columns(1)],
        lefts: whole.start,
        middle: whole.len(),
        right: [columns(whole.end), columns(whole.end + 1)],
        rights: s.count[1] - whole.end,
        from: work.source,
        weights: packed,
        bias: core::ptr::null(),
        to: work.destination,
        down: s.dilation[0] * s.source[1] * s.channels,
        across: s.dilation[1] * s.channels,
        channels: s.channels,
        step: s.stride[1] * s.channels,
        step_to: s.step[1] * s.channels,
        rails: rails(work.ends.activation),
    };
    #[cfg(target_arch = "x86_64")]
    let is_wide = found().wide;
    #[cfg(not(target_arch = "x86_64"))]
    let is_wide = false;
    let pitch = [s.source[1] * s.channels, s.destination[1] * s.channels];
    for n in 0..s.batch {
        for y in 0..s.count[0] {
            let rows = inside(s, 0, y);
            // inside the image, if any row is
            let first = (y * s.stride[0] + rows.start * s.dilation[0]) as isize - s.padding[0];
            let from = ((n * s.source[0]) as isize + first) * pitch[0] as isize;
            let from = from - s.padding[1] * s.channels as isize;
            let weights = 3 * rows.start * s.channels;
            let to = (n * s.destination[0] + s.first[0] + y * s.step[0]) * pitch[1];
            let to = to + s.first[1] * s.channels;
            let mut c = 0;
            while c + 8 <= s.channels {
                let takes_two = is_wide && c + 16 <= s.channels;
                row.from = work.source.wrapping_offset(from).wrapping_add(c);
                row.weights = packed.wrapping_add(weights + c);
                row.bias = bias.map_or(core::ptr::null(), |bias| bias.wrapping_add(c));
                row.to = work.destination.wrapping_add(to + c);
                // SAFETY: the caller's promise; so many rows of the windows are inside, and so many channels are left.
                unsafe {
                    match takes_two {
                        #[cfg(target_arch = "x86_64")]
                        true => wide(rows.len(), &row),
                        _ => narrow(rows.len(), &row),
                    }
                }
                c += if takes_two { 16 } else { 8 };
            }
        }
    }
    s.channels / 8 * 8
}

/// # Safety
/// As [`Row::places`].
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
unsafe fn narrow(rows: usize, row: &Row) {
    // SAFETY: the caller's promise.
    unsafe {
        match rows {
            3 => row.places::<F8, 3>(),
            2 => row.places::<F8, 2>(),
            1 => row.places::<F8, 1>(),
            _ => row.places::<F8, 0>(),
        }
    }
}

/// # Safety
/// As [`Row::places`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512vl")]
unsafe fn wide(rows: usize, row: &Row) {
    ran_wide();
    // SAFETY: the caller's promise.
    unsafe {
        match rows {
            3 => row.places::<F16, 3>(),
            2 => row.places::<F16, 2>(),
            1 => row.places::<F16, 1>(),
            _ => row.places::<F16, 0>(),
        }
    }
}

/// Which columns of a window are inside.
#[derive(Clone, Copy)]
enum Columns {
    All,
    NotFirst,
    NotLast,
    First,
    Second,
    Last,
    None,
}

impl Columns {
    fn of(inside: Range<usize>) -> Columns {
        match (inside.start, inside.end) {
            (0, 3) => Columns::All,
            (1, 3) => Columns::NotFirst,
            (0, 2) => Columns::NotLast,
            (0, 1) => Columns::First,
            (1, 2) => Columns::Second,
            (2, 3) => Columns::Last,
            _ => Columns::None,
        }
    }
}

/// A row of places, some channels of it.
struct Row {
    /// Columns of the first places, and how many these are.
    left: [Columns; EDGES],
    lefts: usize,
    /// So many have all columns inside.
    middle: usize,
    /// Those behind.
    right: [Columns; EDGES],
    rights: usize,
    /// As the first window would begin, with the first row that is inside, and the weights of that row.
    from: *const f32,
    weights: *const f32,
    /// Where sums begin; null if with what is there.
    bias: *const f32,
    to: *mut f32,
    /// From row to row of a window, and from column to column.
    down: usize,
    across: usize,
    channels: usize,
    /// From place to place.
    step: usize,
    step_to: usize,
    rails: [f32; 2],
}

/// What places of a row have in common.
struct Channels<L, const R: usize> {
    weights: [[L; 3]; R],
    bias: L,
    has_bias: bool,
}

impl Row {
    /// All of them; `R` rows of their windows are inside.
    ///
    /// # Safety
    /// The CPU has such registers; the row is one of images and weights as [`run`] was promised.
    #[inline(always)]
    unsafe fn places<L: Lanes, const R: usize>(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut weights = [[L::splat(0.0); 3]; R];
            for i in 0..R {
                for j in 0..3 {
                    weights[i][j] = L::load(self.weights.wrapping_add((3 * i + j) * self.channels));
                }
            }
            let has_bias = !self.bias.is_null();
            let bias = match has_bias {
                true => L::load(self.bias),
                false => L::splat(0.0),
            };
            let some = Channels {
                weights,
                bias,
                has_bias,
            };
            let (mut from, mut to) = (self.from, self.to);
            for i in 0..self.lefts.min(EDGES) {
                self.edge(&some, self.left[i], from, to);
                (from, to) = (from.wrapping_add(self.step), to.wrapping_add(self.step_to));
            }
            for _ in 0..self.middle {
                self.place::<L, R, 0, 3>(&some, from, to);
                (from, to) = (from.wrapping_add(self.step), to.wrapping_add(self.step_to));
            }
            for i in 0..self.rights.min(EDGES) {
                self.edge(&some, self.right[i], from, to);
                (from, to) = (from.wrapping_add(self.step), to.wrapping_add(self.step_to));
            }
        }
    }

    /// A place of whose window some columns may be outside.
    ///
    /// # Safety
    /// As [`Row::places`].
    #[inline(always)]
    unsafe fn edge<L: Lanes, const R: usize>(
        &self,
        some: &Channels<L, R>,
        columns: Columns,
        from: *const f32,
        to: *mut f32,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match columns {
                Columns::All => self.place::<L, R, 0, 3>(some, from, to),
                Columns::NotFirst => self.place::<L, R, 1, 3>(some, from, to),
                Columns::NotLast => self.place::<L, R, 0, 2>(some, from, to),
                Columns::First => self.place::<L, R, 0, 1>(some, from, to),
                Columns::Second => self.place::<L, R, 1, 2>(some, from, to),
                Columns::Last => self.place::<L, R, 2, 3>(some, from, to),
                Columns::None => self.place::<L, R, 0, 0>(some, from, to),
            }
        }
    }

    /// A place, columns `FIRST..END` of whose window are inside: its channels in order.
    ///
    /// # Safety
    /// As [`Row::places`].
    #[inline(always)]
    unsafe fn place<L: Lanes, const R: usize, const FIRST: usize, const END: usize>(
        &self,
        some: &Channels<L, R>,
        from: *const f32,
        to: *mut f32,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sum = L::splat(0.0);
            let mut row = from;
            for i in 0..R {
                for j in FIRST..END {
                    let x = L::load(row.wrapping_add(j * self.across));
                    sum = L::mul_add_each(x, some.weights[i][j], sum);
                }
                row = row.wrapping_add(self.down);
            }
            let start = match some.has_bias {
                true => some.bias,
                false => L::load(to),
            };
            L::add(sum, start).clamp(self.rails).store(to);
        }
    }
}
