//! Helium, the vector extension of Cortex-M55: sixteen 8-bit multiply-adds in one instruction, four channels requantized at once. Here
//! one input meets all rows of a fully connected layer; convolutions are in `mve_conv`.
//! Integer sums have one value in any order, so the results are those of `scalar` to the bit.
//!
//! Inline assembly, because the intrinsics are unstable; `build.rs` finds out whether the target has the instructions.
#![allow(unsafe_code)] // instructions that the language has no name for

use super::Requantize;
use super::scalar::{ROWS_I8, blocks};
use core::arch::asm;

/// What four channels need besides their weights.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Four {
    /// The bias, less what the input's zero point adds.
    starts: [i32; ROWS_I8],
    multiplier: [i32; ROWS_I8],
    shift: [i32; ROWS_I8],
}

/// The most channels of a [`Part`], which lies on the stack.
pub const CHANNELS: usize = 32;

/// Up to [`CHANNELS`] output channels of a layer that is plain ([`super::plain`]), made ready: at least [`ROWS_I8`], each of as many
/// weights.
pub struct Part<'a> {
    /// The weights, `depth` a channel.
    w: &'a [i8],
    depth: usize,
    channels: usize,
    /// By block; the last block may hold again channels of the one before it.
    fours: [Four; CHANNELS / ROWS_I8],
    zero_point: i32,
    range: (i32, i32),
}

impl<'a> Part<'a> {
    /// No channels, to be [made ready](Part::ready).
    pub fn new() -> Part<'a> {
        Part {
            w: &[],
            depth: 0,
            channels: 0,
            fours: Default::default(),
            zero_point: 0,
            range: (0, 0),
        }
    }

    /// The channels of `p`, for inputs of `depth` elements and this zero point.
    pub fn ready(&mut self, p: &Requantize, x_zero_point: i16, w: &'a [i8], depth: usize) {
        let channels = p.bias.len();
        self.w = &w[..depth * channels];
        (self.depth, self.channels) = (depth, channels);
        (self.zero_point, self.range) = (p.zero_point, p.range);
        for (four, first) in self.fours.iter_mut().zip(blocks(channels)) {
            for k in 0..ROWS_I8 {
                let o = first + k;
                let sum = match x_zero_point {
                    0 => 0,
                    _ => sum(&w[o * depth..][..depth]),
                };
                four.starts[k] = p.bias[o].wrapping_sub(sum.wrapping_mul(x_zero_point.into()));
                four.multiplier[k] = p.multiplier[o];
                four.shift[k] = p.shift[o];
            }
        }
    }

    /// The outputs of all channels for one input of `depth` elements.
    #[inline(always)]
    pub fn outputs(&self, x: &[i8], y: &mut [i8]) {
        let (x, y) = (&x[..self.depth], &mut y[..self.channels]);
        let blocks = self.channels / ROWS_I8;
        // SAFETY: `x` and the rows have `depth` elements. `blocks` times four rows lie in `w`, as many outputs in `y`.
        unsafe { self.run(x, self.w.as_ptr(), &self.fours[..blocks], y.as_mut_ptr()) }
        if !self.channels.is_multiple_of(ROWS_I8) {
            let first = self.channels - ROWS_I8;
            let w = &self.w[first * self.depth..];
            // SAFETY: the last four rows and outputs; there are four channels or more.
            unsafe {
                self.run(
                    x,
                    w.as_ptr(),
                    &self.fours[blocks..=blocks],
                    y[first..].as_mut_ptr(),
                )
            }
        }
    }

    /// # Safety
    /// For each of `fours`, of which there is at least one, four rows of `x.len()` weights can be read at `w` and four outputs written
    /// at `y`, one after the other.
    #[inline(never)]
    unsafe fn run(&self, x: &[i8], w: *const i8, fours: &[Four], y: *mut i8) {
        let context = Context {
            x: x.as_ptr(),
            w,
            y,
            count: fours.len(),
            constants: [self.zero_point, self.range.0, self.range.1],
        };
        // SAFETY: as promised. A tail-predicated loop reads the `x.len()` elements of `x` and of each row, no more. The target has
        // the instructions (see `build.rs`).
        unsafe {
            asm!(
                "vldmia r0!, {{s28, s29, s30, s31}}", // x, w, y, count
                "ldm r0, {{r1, r2, r3}}",
                "vdup.32 q4, r1",
                "vdup.32 q5, r2",
                "vdup.32 q6, r3",
                "3:",
                // the rows of this block, and the next block's first
                "vmov r1, r3, s28, s29",
                "add r5, r3, r12",
                "add r9, r5, r12",
                "add r10, r9, r12",
                "add r0, r10, r12",
                "vmov s29, r0",
                "ldrd r0, r2, [r11], #8",
                "ldrd r4, r8, [r11], #8",
                "dlstp.8 lr, r12",
                "2:",
                "vldrb.8 q0, [r1], #16",
                "vldrb.8 q1, [r3], #16",
                "vmladava.s8 r0, q0, q1",
                "vldrb.8 q2, [r5], #16",
                "vmladava.s8 r2, q0, q2",
                "vldrb.8 q1, [r9], #16",
                "vmladava.s8 r4, q0, q1",
                "vldrb.8 q2, [r10], #16",
                "vmladava.s8 r8, q0, q2",
                "letp lr, 2b",
                // `plain::finish` of four channels
                "vmov q0[2], q0[0], r0, r4",
                "vmov q0[3], q0[1], r2, r8",
                "vldrw.32 q1, [r11], #16",
                "vqrdmulh.s32 q0, q0, q1",
                "vldrw.32 q1, [r11], #16",
                "vshr.s32 q2, q0, #31",
                "vadd.i32 q0, q0, q2",
                "vrshl.s32 q0, q0, q1",
                "vadd.i32 q0, q0, q4",
                "vmax.s32 q0, q0, q5",
                "vmin.s32 q0, q0, q6",
                "vmov r1, r3, s30, s31",
                "vstrb.32 q0, [r1], #4",
                "subs r3, r3, #1",
                "vmov s30, s31, r1, r3",
                "bne 3b",
                inout("r0") &raw const context => _,
                inout("r11") fours.as_ptr() => _,
                in("r12") x.len(),
                out("r1") _, out("r2") _, out("r3") _, out("r4") _, out("r5") _, out("r8") _,
                out("r9") _, out("r10") _, out("lr") _,
                out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _,
                out("d8") _, out("d9") _, out("d10") _, out("d11") _, out("d12") _, out("d13") _,
                out("d14") _, out("d15") _,
                options(nostack),
            );
        }
    }
}

/// What [`Part::run`] loads.
#[repr(C)]
struct Context {
    x: *const i8,
    w: *const i8,
    y: *mut i8,
    count: usize,
    constants: [i32; 3],
}

/// The sum of the elements.
pub fn sum(x: &[i8]) -> i32 {
    let mut sum = 0;
    // SAFETY: the tail-predicated loop reads the elements of `x`, no more, and none where there are none. The target has the instructions
    // (see `build.rs`).
    unsafe {
        asm!(
            "wlstp.8 lr, {n}, 3f",
            "2:",
            "vldrb.8 q0, [{x}], #16",
            "vaddva.s8 r0, q0",
            "letp lr, 2b",
            "3:",
            n = in(reg) x.len(),
            x = inout(reg) x.as_ptr() => _,
            inout("r0") sum,
            out("lr") _,
            out("d0") _, out("d1") _,
            options(readonly, nostack),
        );
    }
    sum
}
