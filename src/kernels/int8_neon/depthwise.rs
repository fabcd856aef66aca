//! Depthwise convolution: four pixels and sixteen channels at a time.
#![allow(clippy::needless_range_loop)] // pixels and vectors are registers: numbered, in loops that are unrolled

use super::super::kept::Loops;
use super::super::strip::{Cut, Layout, Pixels, STRIP, Scratch, Strip, first_of, kept};
use super::super::{ConvI8, Window};
use super::conv::{Target, conv_of};
use super::{Eight, Finish, multiply_add, widen};
use core::arch::aarch64::*;
use core::mem::MaybeUninit;

/// Elements of widened weights: 64 KiB.
const PACKED: usize = 32 * 1024;

/// The integer depthwise convolution; false where it was left undone.
#[target_feature(enable = "neon")]
pub(in super::super) fn depthwise(p: &ConvI8, y: &mut [i8]) -> bool {
    let g = p.window;
    let (c, outputs) = (g.in_channels, g.out_channels);
    if c == 1 {
        // every filter sees the one channel
        let layout = Layout {
            filter: 1,
            element: outputs,
        };
        return conv_of(p, layout, y);
    }
    let cells = g.kernel[0] * g.kernel[1];
    let sized = c == p.output.bias.len() && p.w.len() == cells * c;
    let shaped = g.dilation == [1, 1] && c == outputs && c >= 8;
    if !shaped || !sized || cells == 0 || p.w.len() > PACKED {
        return false;
    }
    let Some(finish) = Finish::of(&p.output) else {
        return false;
    };
    let Some(cut) = Cut::new(g, STRIP) else {
        return false;
    };
    let (mut weights, mut widened) = (Scratch::<PACKED>::new(), Scratch::<STRIP>::new());
    let pack = |weights: &mut [MaybeUninit<i16>]| {
        for i in 0..c.div_ceil(8) {
            let o = first_of(i, c);
            for (w, to) in p.w.chunks_exact(c).zip(weights.chunks_exact_mut(c)) {
                let w = &w[o..][..8];
                // SAFETY: `w` is 8 bytes long.
                widen(unsafe { vld1_s8(w.as_ptr()) }, &mut to[o..]);
            }
        }
    };
    let layout = Layout {
        filter: 1,
        element: c,
    };
    let kept = kept(p, (Loops::IntegerDepthwise, layout), p.w.len(), pack);
    let weights = kept.unwrap_or_else(|| {
        let weights = weights.uncleared(p.w.len());
        pack(weights);
        weights
    });
    // SAFETY: every channel of every cell is in one of the groups.
    let weights = unsafe { weights.assume_init_ref() };
    for strip in cut.strips(g) {
        let (rows, pitch) = (strip.input_rows(g), strip.pitch);
        let x = widened.uncleared(rows * pitch);
        for (r, row) in x.chunks_exact_mut(pitch).enumerate() {
            strip.row(p, 0, r, row);
        }
        // SAFETY: all rows have been written.
        let x = unsafe { x.assume_init_ref() };
        let mut groups = (0..c.div_ceil(8)).peekable();
        while let Some(i) = groups.next() {
            let o = first_of(i, c);
            match groups.next_if(|_| o + 16 <= c) {
                Some(_) => part::<2>(p, &finish, &strip, x, weights, o, y),
                None => part::<1>(p, &finish, &strip, x, weights, o, y),
            }
        }
    }
    true
}

/// All pixels of a strip, `8 T` channels from `o` on.
#[target_feature(enable = "neon")]
fn part<const T: usize>(
    p: &ConvI8,
    finish: &Finish,
    strip: &Strip,
    x: &[i16],
    w: &[i16],
    o: usize,
    y: &mut [i8],
) {
    let g = p.window;
    let to = Target::<T>::new(p, finish, o, 8 * T);
    let (x, w) = (&x[o..], &w[o..]);
    let mut pixels = Pixels::new(strip, g, strip.pitch, g.in_channels);
    while let Some(at) = pixels.take::<4>() {
        let sums = sums::<4, T>(x, at, w, strip.pitch, g, to.biases());
        to.write(at, sums, y);
    }
    while let Some(at) = pixels.take::<1>() {
        let sums = sums::<1, T>(x, at, w, strip.pitch, g, to.biases());
        to.write(at, sums, y);
    }
}

/// Accumulators of `P` windows, which begin at `at.0` in the strip, for the first `8 T` channels.
#[target_feature(enable = "neon")]
#[inline]
fn sums<const P: usize, const T: usize>(
    x: &[i16],
    at: [(usize, usize); P],
    w: &[i16],
    pitch: usize,
    g: &Window,
    biases: [Eight; T],
) -> [[Eight; T]; P] {
    let ([rows, columns], c) = (g.kernel, g.in_channels);
    // what the loops read, and no more
    let w = w[..(rows * columns - 1) * c + 8 * T].as_ptr();
    let reach = (rows - 1) * pitch + (columns - 1) * c + 8 * T;
    let start = at.map(|(start, _)| x[start..][..reach].as_ptr());
    let mut sums = [biases; P];
    for row in 0..rows {
        for column in 0..columns {
            let (cell, at) = ((row * columns + column) * c, row * pitch + column * c);
            for t in 0..T {
                // SAFETY: 8 elements from `8t` on behind the start of cell `rows columns - 1` at most.
                let w = unsafe { vld1q_s16(w.add(cell + 8 * t)) };
                for i in 0..P {
                    // SAFETY: elements `at + 8t` and 7 more of a slice of `reach`; the largest is `reach - 1`.
                    let x = unsafe { vld1q_s16(start[i].add(at + 8 * t)) };
                    sums[i][t] = multiply_add(sums[i][t], x, w);
                }
            }
        }
    }
    sums
}
