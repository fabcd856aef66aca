//! The DSP extension of Cortex-M4 and M7 (and of M33 and M55, where the compiler is told that they have it): two
//! 16-bit multiply-adds in one instruction. Integer sums have one value in any order, so the results are those of
//! `scalar` to the bit.
//!
//! Inline assembly, because the intrinsics are unstable; `build.rs` finds out whether the target has the instructions.
#![allow(unsafe_code)] // instructions that the language has no name for

use super::scalar::ROWS_I8;
use core::arch::asm;

/// `sums[k] += (x - zero_point) . w[k stride..]`, modulo 2^32. `w` holds all rows as far as `x` reaches.
// Once in a program: its registers are all used, and so inlining would only spill.
#[inline(never)]
pub fn dots_i8(x: &[i8], zero_point: i16, w: &[i8], stride: usize, sums: &mut [i32; ROWS_I8]) {
    let (x4, x_rest) = x.as_chunks::<4>();
    let words = x.len() - x_rest.len();
    // The last row reaches farthest. That it lies inside `w` is checked here, whatever the numbers are.
    let _last = &w[stride..][stride..][stride..][..x.len()];
    let [mut s0, mut s1, mut s2, mut s3] = *sums;
    if !x4.is_empty() {
        // SAFETY: runs `x4.len()` times, at least once. Time `i` reads 4 bytes at `4 i` of `x4` and at `4 i`,
        // `stride + 4 i`, `2 stride + 4 i` and `3 stride + 4 i` of `w`, where `4 i + 4` is at most `x.len()`: inside `w`,
        // by the check above. These cores read words from any address. The rest is register arithmetic of the
        // DSP extension, which the target has (see `build.rs`); an overflow wraps and sets the Q flag, which nothing
        // reads.
        unsafe {
            asm!(
                "2:",
                // elements 0 and 2, and 1 and 3, as 16-bit halves, less the zero point
                "ldr {odd}, [{x}], #4",
                "sxtab16 {even}, {offset}, {odd}",
                "sxtab16 {odd}, {offset}, {odd}, ror #8",
                "ldr {w}, [{row}, {stride}]",
                "sxtb16 {t}, {w}",
                "sxtb16 {w}, {w}, ror #8",
                "smlad {s1}, {t}, {even}, {s1}",
                "smlad {s1}, {w}, {odd}, {s1}",
                "ldr {w}, [{row}, {stride}, lsl #1]",
                "sxtb16 {t}, {w}",
                "sxtb16 {w}, {w}, ror #8",
                "smlad {s2}, {t}, {even}, {s2}",
                "smlad {s2}, {w}, {odd}, {s2}",
                "add {t}, {row}, {stride}",
                "ldr {w}, [{t}, {stride}, lsl #1]",
                "sxtb16 {t}, {w}",
                "sxtb16 {w}, {w}, ror #8",
                "smlad {s3}, {t}, {even}, {s3}",
                "smlad {s3}, {w}, {odd}, {s3}",
                "ldr {w}, [{row}], #4",
                "sxtb16 {t}, {w}",
                "sxtb16 {w}, {w}, ror #8",
                "smlad {s0}, {t}, {even}, {s0}",
                "smlad {s0}, {w}, {odd}, {s0}",
                "subs {n}, {n}, #1",
                "bne 2b",
                s0 = inout(reg) s0,
                s1 = inout(reg) s1,
                s2 = inout(reg) s2,
                s3 = inout(reg) s3,
                even = out(reg) _,
                odd = out(reg) _,
                t = out(reg) _,
                w = out(reg) _,
                x = inout(reg) x4.as_ptr() => _,
                row = inout(reg) w.as_ptr() => _,
                n = inout(reg) x4.len() => _,
                stride = in(reg) stride,
                offset = in(reg) u32::from(zero_point.wrapping_neg() as u16) * 0x1_0001,
                options(readonly, nostack),
            );
        }
    }
    *sums = [s0, s1, s2, s3];
    if !x_rest.is_empty() {
        for (k, sum) in sums.iter_mut().enumerate() {
            let w = &w[k * stride + words..][..x_rest.len()];
            for (&x, &w) in x_rest.iter().zip(w) {
                let product = (i32::from(x) - i32::from(zero_point)) * i32::from(w);
                *sum = sum.wrapping_add(product);
            }
        }
    }
}
