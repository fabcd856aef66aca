//! Two windows meet two filters, on Helium: each vector that is loaded is used twice, and the four sums are finished in one vector. Short
//! filters stay in registers, from the first window to the last. Integer sums have one value in any order, so the results are those of
//! `scalar` to the bit.
//!
//! Inline assembly, because the intrinsics are unstable; `build.rs` finds out whether the target has the instructions.
#![allow(unsafe_code)] // instructions that the language has no name for

use super::{ConvI8, Requantize};
use core::arch::asm;

/// Elements of a vector.
pub const VECTOR: usize = 16;

/// The longest filter that stays in registers.
pub const RESIDENT: usize = 2 * VECTOR;

/// Output channels of a layer that is plain ([`super::plain`]), two at least.
pub struct Filters<'a> {
    /// The layer, which has weights and factors for all of its channels.
    pub layer: &'a ConvI8<'a>,
    /// The first channel.
    pub first: usize,
    /// Where their sums begin: the bias, less what the input's zero point adds.
    pub starts: &'a [i32],
}

/// What pairs of windows and pairs of channels need. In vectors the order is window and channel `[0, 0], [0, 1], [1, 0], [1, 1]`.
#[repr(C)]
struct Context {
    /// Room for those of two channels.
    starts: [i32; 4],
    /// Of the outputs.
    offsets: [usize; 4],
    zero_point: [i32; 4],
    /// Bytes from where the factors and starts of two channels are.
    channels: [usize; 4],
    one: i32,
    /// From where the second window ends, whole vectors counted, to the next two.
    next: usize,
    /// From a window to the next.
    step: usize,
    w0: *const i8,
    /// From two outputs to the next.
    y_step: usize,
    w1: *const i8,
    /// Elements of a filter that follow its first vector.
    rest: usize,
    depth: usize,
    multiplier: *const i32,
    shift: *const i32,
    start: *const i32,
    x: *const i8,
    y: *mut i8,
    window_pairs: usize,
    channel_pairs: usize,
}

impl Filters<'_> {
    /// The outputs of all channels for `count` windows of as many elements as filters have, at least two; `step` elements from one to the
    /// next, in `x` and in `y`. If filters stay in registers, windows are whole vectors, one behind the other.
    #[inline(never)]
    pub fn outputs(&self, x: &[i8], step: [usize; 2], count: usize, y: &mut [i8]) {
        let Requantize {
            multiplier,
            shift,
            zero_point,
            ..
        } = self.layer.output;
        let (depth, channels) = (self.layer.window.filter_len(), self.starts.len());
        let size = depth.next_multiple_of(VECTOR);
        let (step, len) = match size <= RESIDENT {
            true => ([size, step[1]], size),
            false => (step, depth),
        };
        // How far the last window reaches is checked here, whatever the numbers are.
        let x = &x[..(count - 1) * step[0] + len];
        let y = &mut y[..(count - 1) * step[1] + channels];
        let mut context = Context {
            starts: [0; 4],
            offsets: [0, 1, step[1], step[1] + 1],
            zero_point: [zero_point; 4],
            channels: [0, 4, 0, 4],
            one: 1,
            next: step[0].wrapping_sub(size),
            step: step[0],
            w0: core::ptr::null(),
            y_step: 2 * step[1],
            w1: core::ptr::null(),
            rest: depth.wrapping_sub(VECTOR),
            depth,
            multiplier: core::ptr::null(),
            shift: core::ptr::null(),
            start: core::ptr::null(),
            x: core::ptr::null(),
            y: core::ptr::null_mut(),
            window_pairs: count / 2,
            channel_pairs: 0,
        };
        // Where they are odd, the last window or channel follows, and the one before it again.
        let mut window = 0;
        loop {
            let (mut channel, mut pairs) = (0, channels / 2);
            loop {
                let first = self.first + channel;
                context.w0 = self.layer.w.as_ptr().wrapping_add(first * depth);
                context.w1 = context.w0.wrapping_add(depth);
                context.multiplier = multiplier.as_ptr().wrapping_add(first);
                context.shift = shift.as_ptr().wrapping_add(first);
                context.start = self.starts.as_ptr().wrapping_add(channel);
                context.x = x.as_ptr().wrapping_add(window * step[0]);
                context.y = y.as_mut_ptr().wrapping_add(window * step[1] + channel);
                context.channel_pairs = pairs;
                // SAFETY: from `window` on the windows lie in `x`, as checked above, and from `channel` on the filters, factors and starts
                // where the context points to; an output for each window and channel lies in `y`. The target has the instructions (see
                // `build.rs`).
                unsafe {
                    match size <= RESIDENT {
                        true => context.resident(),
                        false => context.more(),
                    }
                }
                if channel > 0 || channels.is_multiple_of(2) {
                    break;
                }
                (channel, pairs) = (channels - 2, 1);
            }
            if window > 0 || count.is_multiple_of(2) {
                break;
            }
            (window, context.window_pairs) = (count - 2, 1);
        }
    }
}

/// `plain::finish` of the four sums in `r0`, `r2`, `r4`, `r8`, for filters in registers.
macro_rules! finish {
    () => {
        "vmov q4[2], q4[0], r0, r4
        vmov q4[3], q4[1], r2, r8
        vqrdmulh.s32 q4, q4, q5
        vqdmlah.s32 q4, q4, r3
        vrshl.s32 q4, q4, q6
        vadd.i32 q4, q4, r5
        vqmovnb.s32 q4, q4
        vqmovnb.s16 q4, q4
        vstrb.32 q4, [r10, q7]
        add r10, r10, r9"
    };
}

impl Context {
    /// With filters in registers.
    ///
    /// # Safety
    /// The layer has filters of 1 to 32 weights. From `x` on there are `window_pairs` times two windows, each as many vectors as a filter
    /// takes; there are `channel_pairs` times two channels; from `y` on there are outputs for all of these. None of the numbers is zero.
    #[inline(never)]
    unsafe fn resident(&mut self) {
        // SAFETY: as promised. Of the filters no more than their weights are read; what lies behind them is zero.
        unsafe {
            asm!(
                "4:",
                "ldr r3, [r12, #76]", // w0
                "ldr r9, [r12, #92]", // depth
                "add r5, r3, r9",
                "add r0, r5, r9",
                "str r0, [r12, #76]",
                "subs r11, r9, #16",
                "bgt 5f",
                "vctp.8 r9",
                "vpstt",
                "vldrbt.8 q0, [r3]",
                "vldrbt.8 q2, [r5]",
                "b 6f",
                "5:",
                "vctp.8 r11",
                "vldrb.8 q0, [r3]",
                "vldrb.8 q2, [r5]",
                "vpstt",
                "vldrbt.8 q1, [r3, #16]",
                "vldrbt.8 q3, [r5, #16]",
                "6:",
                "ldr r0, [r12, #104]", // start
                "ldrd r2, r4, [r0], #8",
                "strd r2, r4, [r12]",
                "strd r2, r4, [r12, #8]",
                "str r0, [r12, #104]",
                "vldrw.32 q7, [r12, #48]", // channels
                "ldrd r3, r5, [r12, #96]", // multiplier, shift
                "vldrw.u32 q5, [r3, q7]",
                "vldrw.u32 q6, [r5, q7]",
                "add r3, r3, #8",
                "add r5, r5, #8",
                "strd r3, r5, [r12, #96]",
                "vldrw.32 q7, [r12, #16]", // offsets
                "ldr r3, [r12, #64]", // one
                "ldr r5, [r12, #32]", // zero point
                "ldr r9, [r12, #80]", // y_step
                "ldrd r1, r10, [r12, #108]", // x, y
                "add r0, r10, #2",
                "str r0, [r12, #112]",
                "ldr lr, [r12, #116]", // window_pairs
                "cmp r11, #0",
                "bgt 7f",
                "2:",
                "ldm r12, {{r0, r2, r4, r8}}", // starts
                "vldrb.8 q4, [r1], #16",
                "vmladava.s8 r0, q4, q0",
                "vmladava.s8 r2, q4, q2",
                "vldrb.8 q4, [r1], #16",
                "vmladava.s8 r4, q4, q0",
                "vmladava.s8 r8, q4, q2",
                finish!(),
                "le lr, 2b",
                "b 8f",
                "7:",
                "ldm r12, {{r0, r2, r4, r8}}",
                "vldrb.8 q4, [r1], #16",
                "vmladava.s8 r0, q4, q0",
                "vmladava.s8 r2, q4, q2",
                "vldrb.8 q4, [r1], #16",
                "vmladava.s8 r0, q4, q1",
                "vmladava.s8 r2, q4, q3",
                "vldrb.8 q4, [r1], #16",
                "vmladava.s8 r4, q4, q0",
                "vmladava.s8 r8, q4, q2",
                "vldrb.8 q4, [r1], #16",
                "vmladava.s8 r4, q4, q1",
                "vmladava.s8 r8, q4, q3",
                finish!(),
                "le lr, 7b",
                "8:",
                "ldr r0, [r12, #120]", // channel_pairs
                "subs r0, r0, #1",
                "str r0, [r12, #120]",
                "bne 4b",
                in("r12") &raw mut *self,
                out("r0") _, out("r1") _, out("r2") _, out("r3") _, out("r4") _, out("r5") _, out("r8") _,
                out("r9") _, out("r10") _, out("r11") _, out("lr") _,
                out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _,
                out("d6") _, out("d7") _, out("d8") _, out("d9") _, out("d10") _, out("d11") _,
                out("d12") _, out("d13") _, out("d14") _, out("d15") _,
                options(nostack),
            );
        }
    }

    /// With filters in memory.
    ///
    /// # Safety
    /// As for `resident`, but filters have more than 16 weights, and windows are as long as these, and lie `step` apart.
    #[inline(never)]
    unsafe fn more(&mut self) {
        // SAFETY: as promised. After a first vector the tail-predicated loop reads the `rest` of each window and of each filter, no more.
        unsafe {
            asm!(
                "4:",
                "vldrw.32 q0, [r12, #48]", // channels
                "ldrd r0, r2, [r12, #96]", // multiplier, shift
                "vldrw.u32 q3, [r0, q0]",
                "vldrw.u32 q4, [r2, q0]",
                "add r0, r0, #8",
                "add r2, r2, #8",
                "strd r0, r2, [r12, #96]",
                "ldr r4, [r12, #104]", // start
                "vldrw.u32 q5, [r4, q0]",
                "add r4, r4, #8",
                "str r4, [r12, #104]",
                "vldrw.32 q6, [r12, #16]", // offsets
                "vldrw.32 q7, [r12, #32]", // zero point
                "ldrd r1, r10, [r12, #108]", // x, y
                "add r0, r10, #2",
                "str r0, [r12, #112]",
                "ldr r11, [r12, #116]", // window_pairs
                "add r12, r12, #64",
                // one, next, step, w0, y_step, w1, rest
                "ldm r12, {{r0, r2, r4, r5, r8, r9, lr}}",
                "add r3, r1, r4",
                "3:",
                "vldrb.8 q0, [r1], #16",
                "vldrb.8 q2, [r5], #16",
                "vmladav.s8 r0, q0, q2",
                "vldrb.8 q1, [r3], #16",
                "vmladav.s8 r4, q1, q2",
                "vldrb.8 q2, [r9], #16",
                "vmladav.s8 r2, q0, q2",
                "vmladav.s8 r8, q1, q2",
                "dlstp.8 lr, lr",
                "2:",
                "vldrb.8 q0, [r1], #16",
                "vldrb.8 q2, [r5], #16",
                "vmladava.s8 r0, q0, q2",
                "vldrb.8 q1, [r3], #16",
                "vmladava.s8 r4, q1, q2",
                "vldrb.8 q2, [r9], #16",
                "vmladava.s8 r2, q0, q2",
                "vmladava.s8 r8, q1, q2",
                "letp lr, 2b",
                // `plain::finish` of four outputs
                "vmov q0[2], q0[0], r0, r4",
                "vmov q0[3], q0[1], r2, r8",
                "ldm r12, {{r0, r2, r4, r5, r8, r9, lr}}",
                "vadd.i32 q0, q0, q5",
                "vqrdmulh.s32 q0, q0, q3",
                "add r1, r3, r2",
                "vqdmlah.s32 q0, q0, r0", // less one below zero
                "add r3, r1, r4",
                "vrshl.s32 q0, q0, q4",
                "vadd.i32 q0, q0, q7",
                "vqmovnb.s32 q0, q0",
                "vqmovnb.s16 q0, q0",
                "vstrb.32 q0, [r10, q6]",
                "add r10, r10, r8",
                "subs r11, r11, #1",
                "bne 3b",
                "sub r12, r12, #64",
                // the next two filters
                "ldr r0, [r12, #92]", // depth
                "add r5, r9, r0",
                "add r9, r5, r0",
                "str r5, [r12, #76]",
                "str r9, [r12, #84]",
                "ldr r0, [r12, #120]", // channel_pairs
                "subs r0, r0, #1",
                "str r0, [r12, #120]",
                "bne 4b",
                in("r12") &raw mut *self,
                out("r0") _, out("r1") _, out("r2") _, out("r3") _, out("r4") _, out("r5") _, out("r8") _,
                out("r9") _, out("r10") _, out("r11") _, out("lr") _,
                out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _,
                out("d6") _, out("d7") _, out("d8") _, out("d9") _, out("d10") _, out("d11") _,
                out("d12") _, out("d13") _, out("d14") _, out("d15") _,
                options(nostack),
            );
        }
    }
}
