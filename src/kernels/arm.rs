//! The DSP extension of Cortex-M4 and M7 (and of M33 and M55, where the compiler is told that they have it): two
//! 16-bit multiply-adds in one instruction. Integer sums have one value in any order, so the results are those of
//! `scalar` to the bit.
//!
//! Inline assembly, because the intrinsics are unstable; `build.rs` finds out whether the target has the instructions.
#![allow(unsafe_code)] // instructions that the language has no name for

use super::Requantize;
use super::scalar::{ROWS_I8, blocks};
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

/// Elements in a word.
pub const WORD: usize = 4;

/// Elements less the zero point as 16-bit halves, four at a time: elements 0 and 2, 1 and 3. Of the last one to three, if
/// there are any, the four that end with them, those of the word before as zero.
#[cfg(not(foolproof_mve))]
#[inline(always)]
pub fn widen(x: &[i8], zero_point: i16, wide: &mut [[u32; 2]]) {
    let offset = u32::from(zero_point.wrapping_neg() as u16) * 0x1_0001;
    let halves = |x: [i8; WORD]| {
        let word = u32::from_le_bytes(x.map(|x| x as u8));
        let (mut even, mut odd): (u32, u32);
        // SAFETY: register arithmetic of the DSP extension, which the target has (see `build.rs`).
        unsafe {
            asm!(
                "sxtab16 {even}, {offset}, {word}",
                "sxtab16 {odd}, {offset}, {word}, ror #8",
                even = out(reg) even,
                odd = lateout(reg) odd,
                word = in(reg) word,
                offset = in(reg) offset,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        [even, odd]
    };
    let (words, rest) = x.as_chunks();
    for (to, &x) in wide.iter_mut().zip(words) {
        *to = halves(x);
    }
    if let (Some(to), false) = (wide.get_mut(words.len()), rest.is_empty()) {
        let mut last = [zero_point as i8; WORD];
        last[WORD - rest.len()..].copy_from_slice(rest);
        *to = halves(last);
    }
}

/// `sums[k] = x . w[k stride..]` of a widened window of `stride` elements, 4 or more; modulo 2^32. 4 sums or more; `w`
/// holds a row for each.
// Once in a program: its registers are all used, and so inlining would only spill.
#[cfg(not(foolproof_mve))]
#[inline(never)]
pub fn dots_wide(wide: &[[u32; 2]], stride: usize, w: &[i8], sums: &mut [i32]) {
    // What the loops below lean on is checked here, whatever the numbers are.
    let wide = &wide[..stride.div_ceil(WORD)];
    let _first = wide[..stride / WORD][0];
    let w = &w[..stride * sums.len()];
    let words = wide.as_ptr_range();
    let rest = stride % WORD;
    for first in blocks(sums.len()) {
        let row = w[first * stride..].as_ptr();
        let end = match rest {
            0 => words.end,
            _ => words.end.wrapping_sub(1),
        };
        // SAFETY: four rows of `stride` elements begin at `row`, as `blocks` stays below `sums.len()`; `stride / WORD` words
        // of `wide` meet as many of each row. There is one at least.
        let mut four = unsafe { four_rows(words.start, end, row, stride, [0; ROWS_I8]) };
        if rest > 0 {
            // SAFETY: the last word of `wide` meets the four elements that end with each row.
            four = unsafe { four_rows(end, words.end, row.add(stride - WORD), stride, four) };
        }
        sums[first..][..ROWS_I8].copy_from_slice(&four);
    }
}

/// `sums[k] + x . row[k stride..]`.
///
/// # Safety
/// `x..end` are widened words, at least one; as many words can be read at `row`, `row + stride`, `row + 2 stride` and
/// `row + 3 stride`.
#[cfg(not(foolproof_mve))]
#[inline(always)]
unsafe fn four_rows(
    x: *const [u32; 2],
    end: *const [u32; 2],
    row: *const i8,
    stride: usize,
    sums: [i32; ROWS_I8],
) -> [i32; ROWS_I8] {
    let [mut s0, mut s1, mut s2, mut s3] = sums;
    // SAFETY: as promised; `ldr` reads words from any address on these cores, and `ldrd` those of `wide`, which are aligned.
    // The rest is register arithmetic of the DSP extension, which the target has (see `build.rs`); an overflow wraps and
    // sets the Q flag, which nothing reads.
    unsafe {
        asm!(
            "2:",
            "ldrd {even}, {odd}, [{x}], #8",
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
            "ldr {w}, [{row}, {triple}]",
            "sxtb16 {t}, {w}",
            "sxtb16 {w}, {w}, ror #8",
            "smlad {s3}, {t}, {even}, {s3}",
            "smlad {s3}, {w}, {odd}, {s3}",
            "ldr {w}, [{row}], #4",
            "sxtb16 {t}, {w}",
            "sxtb16 {w}, {w}, ror #8",
            "smlad {s0}, {t}, {even}, {s0}",
            "smlad {s0}, {w}, {odd}, {s0}",
            "cmp {x}, {end}",
            "bne 2b",
            s0 = inout(reg) s0,
            s1 = inout(reg) s1,
            s2 = inout(reg) s2,
            s3 = inout(reg) s3,
            even = out(reg) _,
            odd = out(reg) _,
            t = out(reg) _,
            w = out(reg) _,
            x = inout(reg) x => _,
            row = inout(reg) row => _,
            end = in(reg) end,
            stride = in(reg) stride,
            triple = in(reg) 3 * stride,
            options(readonly, nostack),
        );
    }
    [s0, s1, s2, s3]
}

/// The outputs of a plain layer ([`super::plain`]) from its sums, `p` cut to these channels.
#[inline(never)]
pub fn finish(p: &Requantize, sums: &[i32], y: &mut [i8]) {
    let n = y.len();
    let (sums, bias) = (&sums[..n], &p.bias[..n]);
    let (multiplier, shift) = (&p.multiplier[..n], &p.shift[..n]);
    if n == 0 {
        return;
    }
    // SAFETY: runs `n` times, at least once; time `i` reads element `i` of the four slices above and writes that of `y`.
    // The rest is register arithmetic: `plain::finish`, saturated at the rails.
    unsafe {
        asm!(
            "2:",
            "ldr {s}, [{sums}], #4",
            "ldr {t}, [{bias}], #4",
            "add {s}, {s}, {t}",
            "ldr {t}, [{multiplier}], #4",
            "lsl {s}, {s}, #1",
            "smmulr {s}, {s}, {t}",
            "ldr {t}, [{shift}], #4",
            "mvn {t}, {t}",
            "add {s}, {s}, {s}, asr #31",
            "asr {s}, {s}, {t}",
            "add {s}, {s}, #1",
            "add {s}, {zero_point}, {s}, asr #1",
            "ssat {s}, #8, {s}",
            "strb {s}, [{y}], #1",
            "cmp {y}, {end}",
            "bne 2b",
            sums = inout(reg) sums.as_ptr() => _,
            bias = inout(reg) bias.as_ptr() => _,
            multiplier = inout(reg) multiplier.as_ptr() => _,
            shift = inout(reg) shift.as_ptr() => _,
            y = inout(reg) y.as_mut_ptr() => _,
            end = in(reg) y.as_ptr_range().end,
            zero_point = in(reg) p.zero_point,
            s = out(reg) _,
            t = out(reg) _,
            options(nostack),
        );
    }
    if p.range != (i32::from(i8::MIN), i32::from(i8::MAX)) {
        clamp(y, p.range);
    }
}

/// Keeps outputs in a plain layer's range, whose bounds are those of an int8, in order.
#[inline(never)]
pub fn clamp(y: &mut [i8], range: (i32, i32)) {
    let (low, high) = (range.0 as i8, range.1 as i8);
    for y in y {
        *y = (*y).max(low).min(high);
    }
}

/// `y[i] += a[0] x[0][i]`, then `a[1] x[1][i]` and so on; the rows are as long as `y`.
// Once in a program: its registers are all used, and so inlining would only spill.
#[cfg(target_abi = "eabihf")]
#[inline(never)]
pub fn axpys_i8(y: &mut [f32], a: &[f32; ROWS_I8], x: [&[i8]; ROWS_I8]) {
    // What the loop below leans on is checked here, whatever the numbers are.
    let x = x.map(|x| &x[..y.len()]);
    let (y4, y_rest) = y.as_chunks_mut::<4>();
    let done = 4 * y4.len();
    if !y4.is_empty() {
        let end = y4.as_ptr_range().end;
        // SAFETY: reads the four floats of `a`, and runs `y4.len()` times, at least once. Time `i` reads and writes the four
        // floats `i` of `y4`, and reads as many elements at `4 i` of each row, which is as long as `y`. `vmla` rounds the
        // product and then the sum, as two instructions would. The rest is arithmetic of registers of an FPU, which the
        // target's ABI asks for.
        unsafe {
            asm!(
                "vldmia {w}, {{s8, s9, s10, s11}}",
                "2:",
                "vldmia {y}, {{s0, s1, s2, s3}}",
                "ldrsb {t}, [{x0}, #1]",
                "ldrsb {u}, [{x0}, #2]",
                "ldrsb {v}, [{x0}, #3]",
                "ldrsb {w}, [{x0}], #4",
                "vmov s4, s5, {w}, {t}",
                "vmov s6, s7, {u}, {v}",
                "vcvt.f32.s32 s4, s4",
                "vcvt.f32.s32 s5, s5",
                "vcvt.f32.s32 s6, s6",
                "vcvt.f32.s32 s7, s7",
                "vmla.f32 s0, s8, s4",
                "vmla.f32 s1, s8, s5",
                "vmla.f32 s2, s8, s6",
                "vmla.f32 s3, s8, s7",
                "ldrsb {t}, [{x1}, #1]",
                "ldrsb {u}, [{x1}, #2]",
                "ldrsb {v}, [{x1}, #3]",
                "ldrsb {w}, [{x1}], #4",
                "vmov s4, s5, {w}, {t}",
                "vmov s6, s7, {u}, {v}",
                "vcvt.f32.s32 s4, s4",
                "vcvt.f32.s32 s5, s5",
                "vcvt.f32.s32 s6, s6",
                "vcvt.f32.s32 s7, s7",
                "vmla.f32 s0, s9, s4",
                "vmla.f32 s1, s9, s5",
                "vmla.f32 s2, s9, s6",
                "vmla.f32 s3, s9, s7",
                "ldrsb {t}, [{x2}, #1]",
                "ldrsb {u}, [{x2}, #2]",
                "ldrsb {v}, [{x2}, #3]",
                "ldrsb {w}, [{x2}], #4",
                "vmov s4, s5, {w}, {t}",
                "vmov s6, s7, {u}, {v}",
                "vcvt.f32.s32 s4, s4",
                "vcvt.f32.s32 s5, s5",
                "vcvt.f32.s32 s6, s6",
                "vcvt.f32.s32 s7, s7",
                "vmla.f32 s0, s10, s4",
                "vmla.f32 s1, s10, s5",
                "vmla.f32 s2, s10, s6",
                "vmla.f32 s3, s10, s7",
                "ldrsb {t}, [{x3}, #1]",
                "ldrsb {u}, [{x3}, #2]",
                "ldrsb {v}, [{x3}, #3]",
                "ldrsb {w}, [{x3}], #4",
                "vmov s4, s5, {w}, {t}",
                "vmov s6, s7, {u}, {v}",
                "vcvt.f32.s32 s4, s4",
                "vcvt.f32.s32 s5, s5",
                "vcvt.f32.s32 s6, s6",
                "vcvt.f32.s32 s7, s7",
                "vmla.f32 s0, s11, s4",
                "vmla.f32 s1, s11, s5",
                "vmla.f32 s2, s11, s6",
                "vmla.f32 s3, s11, s7",
                "vstmia {y}!, {{s0, s1, s2, s3}}",
                "cmp {y}, {end}",
                "bne 2b",
                y = inout(reg) y4.as_mut_ptr() => _,
                end = in(reg) end,
                x0 = inout(reg) x[0].as_ptr() => _,
                x1 = inout(reg) x[1].as_ptr() => _,
                x2 = inout(reg) x[2].as_ptr() => _,
                x3 = inout(reg) x[3].as_ptr() => _,
                t = out(reg) _,
                u = out(reg) _,
                v = out(reg) _,
                w = inout(reg) a.as_ptr() => _,
                out("s0") _, out("s1") _, out("s2") _, out("s3") _,
                out("s4") _, out("s5") _, out("s6") _, out("s7") _,
                out("s8") _, out("s9") _, out("s10") _, out("s11") _,
                options(nostack),
            );
        }
    }
    for (i, y) in y_rest.iter_mut().enumerate() {
        for (a, x) in a.iter().zip(&x) {
            *y += a * f32::from(x[done + i]);
        }
    }
}

/// Where the cells of a window lie in an image and in the weights of a depthwise convolution, elements.
#[derive(Clone, Copy)]
pub struct Cells {
    /// Rows and columns.
    pub count: [usize; 2],
    /// Of the input, from row to row and from column to column.
    pub x: [usize; 2],
    /// Of the weights.
    pub w: [usize; 2],
}

/// `sums[k]` = the sum of `(x[k] - zero_point) w[k]` over the cells of a window, for each channel, 4 or more; modulo 2^32.
// Once in a program: its registers are all used, and so inlining would only spill.
#[inline(never)]
pub fn meet(x: &[i8], zero_point: i16, w: &[i8], cells: &Cells, sums: &mut [i32]) {
    let offset = u32::from(zero_point.wrapping_neg() as u16) * 0x1_0001;
    let [rows, columns] = cells.count;
    if rows == 0 || columns == 0 {
        return sums.fill(0);
    }
    // How far the last cell reaches is checked here, whatever the numbers are.
    let channels = sums.len();
    let last = |step: [usize; 2]| (rows - 1) * step[0] + (columns - 1) * step[1] + channels;
    let (x, w) = (&x[..last(cells.x)], &w[..last(cells.w)]);
    for first in blocks(channels) {
        // SAFETY: with four channels from `first` on, all cells lie inside the slices.
        let four = unsafe { meet_four(x[first..].as_ptr(), w[first..].as_ptr(), offset, cells) };
        sums[first..][..WORD].copy_from_slice(&four);
    }
}

/// The same for four channels.
///
/// # Safety
/// A word can be read at `x` and at `w` for each of the cells.
#[inline(always)]
unsafe fn meet_four(mut x: *const i8, mut w: *const i8, offset: u32, cells: &Cells) -> [i32; WORD] {
    let [rows, columns] = cells.count;
    let mut sums = [0; WORD];
    for _ in 0..rows {
        if columns == 3 {
            // SAFETY: as below, for the three cells of a row.
            unsafe {
                asm!(
                    "ldr {odd}, [{x}]",
                    "ldr {u}, [{w}]",
                    "sxtab16 {even}, {offset}, {odd}",
                    "sxtab16 {odd}, {offset}, {odd}, ror #8",
                    "sxtb16 {t}, {u}",
                    "sxtb16 {u}, {u}, ror #8",
                    "smlabb {s0}, {even}, {t}, {s0}",
                    "smlatt {s2}, {even}, {t}, {s2}",
                    "smlabb {s1}, {odd}, {u}, {s1}",
                    "smlatt {s3}, {odd}, {u}, {s3}",
                    "ldr {odd}, [{x}, {dx}]",
                    "ldr {u}, [{w}, {dw}]",
                    "sxtab16 {even}, {offset}, {odd}",
                    "sxtab16 {odd}, {offset}, {odd}, ror #8",
                    "sxtb16 {t}, {u}",
                    "sxtb16 {u}, {u}, ror #8",
                    "smlabb {s0}, {even}, {t}, {s0}",
                    "smlatt {s2}, {even}, {t}, {s2}",
                    "smlabb {s1}, {odd}, {u}, {s1}",
                    "smlatt {s3}, {odd}, {u}, {s3}",
                    "ldr {odd}, [{x}, {dx}, lsl #1]",
                    "ldr {u}, [{w}, {dw}, lsl #1]",
                    "sxtab16 {even}, {offset}, {odd}",
                    "sxtab16 {odd}, {offset}, {odd}, ror #8",
                    "sxtb16 {t}, {u}",
                    "sxtb16 {u}, {u}, ror #8",
                    "smlabb {s0}, {even}, {t}, {s0}",
                    "smlatt {s2}, {even}, {t}, {s2}",
                    "smlabb {s1}, {odd}, {u}, {s1}",
                    "smlatt {s3}, {odd}, {u}, {s3}",
                    s0 = inout(reg) sums[0],
                    s1 = inout(reg) sums[1],
                    s2 = inout(reg) sums[2],
                    s3 = inout(reg) sums[3],
                    even = out(reg) _,
                    odd = out(reg) _,
                    t = out(reg) _,
                    u = out(reg) _,
                    x = in(reg) x,
                    w = in(reg) w,
                    dx = in(reg) cells.x[1],
                    dw = in(reg) cells.w[1],
                    offset = in(reg) offset,
                    options(readonly, nostack),
                );
            }
        } else {
            let (mut x, mut w) = (x, w);
            for _ in 0..columns {
                // SAFETY: reads the 4 bytes of a cell at `x` and at `w`, as promised; these cores
                // read words from any address. The rest is register arithmetic of the DSP extension, which the target
                // has (see `build.rs`); an overflow wraps and sets the Q flag, which nothing reads.
                unsafe {
                    asm!(
                        "ldr {odd}, [{x}]",
                        "ldr {u}, [{w}]",
                        "sxtab16 {even}, {offset}, {odd}",
                        "sxtab16 {odd}, {offset}, {odd}, ror #8",
                        "sxtb16 {t}, {u}",
                        "sxtb16 {u}, {u}, ror #8",
                        "smlabb {s0}, {even}, {t}, {s0}",
                        "smlatt {s2}, {even}, {t}, {s2}",
                        "smlabb {s1}, {odd}, {u}, {s1}",
                        "smlatt {s3}, {odd}, {u}, {s3}",
                        s0 = inout(reg) sums[0],
                        s1 = inout(reg) sums[1],
                        s2 = inout(reg) sums[2],
                        s3 = inout(reg) sums[3],
                        even = out(reg) _,
                        odd = out(reg) _,
                        t = out(reg) _,
                        u = out(reg) _,
                        x = in(reg) x,
                        w = in(reg) w,
                        offset = in(reg) offset,
                        options(readonly, nostack),
                    );
                }
                x = x.wrapping_add(cells.x[1]);
                w = w.wrapping_add(cells.w[1]);
            }
        }
        x = x.wrapping_add(cells.x[0]);
        w = w.wrapping_add(cells.w[0]);
    }
    sums
}
