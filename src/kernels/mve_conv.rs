//! The int8 convolution on Helium: windows, as they lie in the image or put together first, meet the filters two by two (`mve_pairs`).
//!
//! Inline assembly, because the intrinsics are unstable; `build.rs` finds out whether the target has the instructions.
#![allow(unsafe_code)] // instructions that the language has no name for

use super::arm::clamp;
use super::mve::sum;
use super::mve_pairs::{Filters, RESIDENT, VECTOR};
use super::window::Inside;
use super::{ConvI8, plain, scalar};
use core::arch::asm;

/// The largest window, elements, whose bytes are put together; they share as many bytes of stack.
const PATCHES: usize = 1152;

/// Output channels that are made ready at a time; 4 bytes of stack each.
const CHANNELS: usize = 64;

/// The integer convolution.
#[inline(never)]
pub fn conv_i8(p: &ConvI8, y: &mut [i8]) {
    let g = p.window;
    let (depth, o) = (g.filter_len(), g.out_channels);
    let pixels = g.batch * g.input[0] * g.input[1];
    // Every pixel is a window. Filters in registers meet them in whole vectors, two at least.
    let pointwise = g.kernel == [1; 2] && g.stride == [1; 2] && g.padding == [0; 2];
    let direct = pointwise && (depth > RESIDENT || depth.is_multiple_of(VECTOR) && pixels > 1);
    let gathered = (1..=PATCHES).contains(&depth) && (g.dilation[1] == 1 || g.kernel[1] == 1);
    let factors = p.output.multiplier.len().min(p.output.shift.len());
    let known = depth > 0 && pixels > 0 && o >= 2 && factors >= o && p.w.len() >= o * depth;
    if !known || !(direct || gathered) || !plain::is_plain(&p.output, depth) {
        return portable(p, y);
    }
    let mut starts = [0; CHANNELS];
    let mut first = 0;
    while first < o {
        // Two channels at least: the last part may take one of the part before it.
        let part = first.min(o - 2);
        let starts = &mut starts[..CHANNELS.min(o - part)];
        for (k, start) in starts.iter_mut().enumerate() {
            let k = part + k;
            let zero = sum(&p.w[k * depth..(k + 1) * depth]).wrapping_mul(p.x_zero_point.into());
            *start = p.output.bias[k].wrapping_sub(zero);
        }
        let filters = Filters {
            layer: p,
            first: part,
            starts,
        };
        let y = &mut y[part..];
        match direct {
            // A single pixel is taken twice.
            true if pixels == 1 => filters.outputs(p.x, [0; 2], 2, y),
            true => filters.outputs(p.x, [depth, o], pixels, y),
            false => windows(p, &filters, y),
        }
        first += CHANNELS;
    }
    if p.output.range != (i32::from(i8::MIN), i32::from(i8::MAX)) {
        clamp(y, p.output.range);
    }
}

/// For layers that the vectors do not suit.
// No part of its caller, whose stack it does not need.
#[inline(never)]
fn portable(p: &ConvI8, y: &mut [i8]) {
    scalar::conv::forward_i8(p, y);
}

/// Windows that are put together first, as many at a time as there is room for.
fn windows(p: &ConvI8, filters: &Filters, y: &mut [i8]) {
    let g = p.window;
    let o = g.out_channels;
    let size = g.filter_len().next_multiple_of(VECTOR);
    // They meet the filters two by two.
    let room = match PATCHES.checked_div(size) {
        Some(many) if many > 1 => many & !1,
        _ => 1,
    };
    // The first column whose window lies in the image, and the first behind the last one.
    let steps = |len: usize| len.checked_div(g.stride[1]).unwrap_or(0);
    let left = steps(g.padding[1] + g.stride[1] - 1);
    let reach = (g.kernel[1] - 1) * g.dilation[1] + 1;
    let right = match g.input[1] + g.padding[1] {
        all if all < reach => 0,
        all => g.output[1].min(steps(all - reach) + 1),
    };
    let mut patches = [0; PATCHES];
    let (mut made, mut done) = (0, 0);
    let total = g.batch * g.output[0] * g.output[1];
    for n in 0..g.batch {
        for oy in 0..g.output[0] {
            let rows = g.inside(0, oy);
            let mut ox = 0;
            while ox < g.output[1] {
                let whole = Inside {
                    first: 0,
                    count: g.kernel[1],
                    at: (ox * g.stride[1]).wrapping_sub(g.padding[1]),
                };
                let (columns, count) = match left <= ox && ox < right {
                    true => (whole, (right - ox).min(room - made)),
                    false => (g.inside(1, ox), 1),
                };
                let patch = &mut patches[made * size..(made + count) * size];
                gather(p, [n, count], rows, columns, patch);
                ox += count;
                made += count;
                if made < room && done + made < total {
                    continue;
                }
                let step = if made > 1 { [size, o] } else { [0; 2] };
                if made == 1 && size <= RESIDENT {
                    // The second of the two that filters in registers meet.
                    let (first, second) = patches.split_at_mut(size);
                    second[..size].copy_from_slice(first);
                }
                filters.outputs(&patches, step, made.max(2), &mut y[done * o..]);
                done += made;
                made = 0;
            }
        }
    }
}

/// The cells of windows, side by side in image `n` and alike in what lies inside, one after the other in as many `patches`. Cells outside
/// hold the zero point.
fn gather(p: &ConvI8, [n, count]: [usize; 2], rows: Inside, columns: Inside, patches: &mut [i8]) {
    let g = p.window;
    let c = g.in_channels;
    let row = g.input[1] * c;
    if [rows.count, columns.count] != g.kernel {
        fill(patches, p.x_zero_point as i8);
    }
    if rows.count == 0 || columns.count == 0 {
        return;
    }
    let from = (n * g.input[0] + rows.at) * row + columns.at * c;
    let to = (rows.first * g.kernel[1] + columns.first) * c;
    let below = Steps {
        count: rows.count,
        from: g.dilation[0] * row,
        to: g.kernel[1] * c,
    };
    let beside = Steps {
        count,
        from: g.stride[1] * c,
        to: g.filter_len().next_multiple_of(VECTOR),
    };
    let (few, many) = match below.count < beside.count {
        true => (below, beside),
        false => (beside, below),
    };
    let runs = Runs {
        len: columns.count * c,
        few,
        many,
    };
    // How far the last run reaches is checked here, whatever the numbers are.
    let x = &p.x[from..from + runs.reach(|steps| steps.from)];
    let patches = &mut patches[to..to + runs.reach(|steps| steps.to)];
    // SAFETY: all runs lie in the slices.
    unsafe { copy(x.as_ptr(), patches.as_mut_ptr(), &runs) }
}

/// Of runs of elements, in an image and in what is made of it: how many, at least one, and elements from one to the next.
struct Steps {
    count: usize,
    from: usize,
    to: usize,
}

/// Runs of `len` elements, at least one: `many` for each of `few`.
struct Runs {
    len: usize,
    few: Steps,
    many: Steps,
}

impl Runs {
    /// Elements from the first of all to behind the last.
    #[inline(always)]
    fn reach(&self, step: impl Fn(&Steps) -> usize) -> usize {
        let last = |steps: &Steps| (steps.count - 1) * step(steps);
        last(&self.few) + last(&self.many) + self.len
    }
}

/// Copies runs.
///
/// # Safety
/// All runs from `x` on can be read, and those from `y` on written.
// No part of its caller, where the compiler may keep a predicate of its own.
#[inline(never)]
unsafe fn copy(x: *const i8, y: *mut i8, Runs { len, few, many }: &Runs) {
    let mut first = 0;
    while first < *len {
        // SAFETY: each loop runs `count` times, at least once; the predicate lets what is left of the first `len` elements of a run be read
        // and written, no more. The target has the instructions (see `build.rs`).
        unsafe {
            asm!(
                "vctp.8 {a}",
                "4:",
                "mov {a}, {x}",
                "mov {b}, {y}",
                "dls lr, {many}",
                "2:",
                "vpstt",
                "vldrbt.8 q0, [{a}]",
                "vstrbt.8 q0, [{b}]",
                "add {a}, {a}, {many_from}",
                "add {b}, {b}, {many_to}",
                "le lr, 2b",
                "add {x}, {x}, {few_from}",
                "add {y}, {y}, {few_to}",
                "subs {few}, {few}, #1",
                "bne 4b",
                few = inout(reg) few.count => _,
                few_from = in(reg) few.from,
                few_to = in(reg) few.to,
                many = in(reg) many.count,
                many_from = in(reg) many.from,
                many_to = in(reg) many.to,
                x = inout(reg) x.wrapping_add(first) => _,
                y = inout(reg) y.wrapping_add(first) => _,
                a = inout(reg) len - first => _,
                b = out(reg) _,
                out("lr") _,
                out("d0") _, out("d1") _,
                options(nostack),
            );
        }
        first += VECTOR;
    }
}

/// `x[i] = value`.
fn fill(x: &mut [i8], value: i8) {
    // SAFETY: the tail-predicated loop writes the elements of `x`, no more, and none where there are none. The target has the instructions
    // (see `build.rs`).
    unsafe {
        asm!(
            "vdup.8 q0, {value}",
            "wlstp.8 lr, {n}, 3f",
            "2:",
            "vstrb.8 q0, [{x}], #16",
            "letp lr, 2b",
            "3:",
            value = in(reg) i32::from(value),
            n = in(reg) x.len(),
            x = inout(reg) x.as_mut_ptr() => _,
            out("lr") _,
            out("d0") _, out("d1") _,
            options(nostack),
        );
    }
}
