//! Fully connected layers. Forward, samples and weights are read where they are, in blocks that caches hold; gradients are products of
//! packed operands.

#![allow(clippy::needless_range_loop)] // rows and lanes are registers: numbered, in loops that are unrolled

use super::gemm::{self, Onto, Rows};
use super::tile::{Rails, Scratch};
#[cfg(target_arch = "x86_64")]
use super::wide;
use crate::kernels::f32x8::{F4, F8, Mask, mul_add, prefetch};
use crate::kernels::{DenseF32, simd};
use core::ops::Range;

/// Lengths that are those of weights `[outputs, depth]`, inputs `[batch, depth]` and outputs `[batch, outputs]`: the loops below
/// count on it.
pub(super) fn takes(depth: usize, w: usize, x: usize, y: usize) -> bool {
    let (outputs, batch) = (w / depth.max(1), x / depth.max(1));
    w == outputs * depth && x == batch * depth && y == batch * outputs
}

/// Samples of a tile.
const HIGH: usize = 3;
/// Samples of a tile where registers have 512 bits, which hold eight lanes of a pair.
const PAIRED: usize = 2 * HIGH;
/// Outputs of a tile.
const WIDE: usize = 4;
/// Elements of samples that all weights go past before the next: two fifths of what the usual second-level cache holds.
const SAMPLES: usize = 52 * 1024;
/// The same where registers have 512 bits: such CPUs have larger caches.
const PAIRED_SAMPLES: usize = 2 * SAMPLES;
/// Elements of weights that these samples go past before the next: half of what the usual first-level cache holds.
const WEIGHTS: usize = 4 * 1024;
/// Elements of a cache line.
const LINE: usize = 16;

/// `y = activation(x w^T + bias)`, by tiles of three samples and four outputs, or of six and eight. A sum has eight lanes, which become one
/// as a tree: what a sample gets does not depend on the tile that it is in.
///
/// # Safety
/// A token of [`Fma`](super::Fma) exists; [`takes`] said yes, and there is a bias for each output.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
pub(super) unsafe fn forward(p: &DenseF32, y: &mut [f32]) {
    let outputs = p.bias.len();
    let batch = p.x.len() / p.depth.max(1);
    let rows = |room: usize, tile: usize| (room / p.depth.max(1) / tile * tile).max(tile);
    let (high, wide, room) = match simd::found().wide {
        true => (PAIRED, 2 * WIDE, PAIRED_SAMPLES),
        false => (HIGH, WIDE, SAMPLES),
    };
    let (samples, filters) = match batch < HIGH {
        true => (HIGH, outputs.max(1)),
        false => (rows(room, high), rows(WEIGHTS, wide)),
    };
    // Loads of several rows, all from the same part of a cache line, wait for each other: samples that meet many weights go side by side
    // first.
    let pack = batch >= HIGH
        && p.depth.is_multiple_of(8)
        && samples * p.depth <= room
        && outputs > 8 * WIDE;
    // SAFETY: the caller's promise; there is room for so many samples.
    unsafe {
        match pack {
            true if high == PAIRED => {
                pass_packed::<PAIRED_SAMPLES>(p, [samples, filters], high, y);
            }
            true => pass_packed::<SAMPLES>(p, [samples, filters], high, y),
            false => pass(p, [samples, filters], None, y),
        }
    }
}

/// As [`pass`], with samples side by side: apart, since room for them on the stack is touched page by page whoever uses it.
///
/// # Safety
/// As there; a group of samples has `ROOM` elements at most.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
#[inline(never)]
unsafe fn pass_packed<const ROOM: usize>(
    p: &DenseF32,
    sizes: [usize; 2],
    high: usize,
    y: &mut [f32],
) {
    let mut room = Scratch::<ROOM>::new();
    // SAFETY: the caller's promise.
    unsafe { pass(p, sizes, Some((room.start(), high)), y) }
}

/// Groups of so many samples, in tiles of so many side by side in `packed`, if there is such, meet so many filters at a time.
///
/// # Safety
/// As [`forward`]; `packed` has room for a group of samples, whose depth is a multiple of eight. Tiles of [`PAIRED`] are for CPUs with
/// registers of 512 bits.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
unsafe fn pass(
    p: &DenseF32,
    [samples, filters]: [usize; 2],
    packed: Option<(*mut f32, usize)>,
    y: &mut [f32],
) {
    let outputs = p.bias.len();
    let batch = p.x.len() / p.depth.max(1);
    let high = packed.map_or(HIGH, |(_, high)| high);
    for n in (0..batch).step_by(samples) {
        let samples = n..batch.min(n + samples);
        if let Some((packed, _)) = packed {
            // SAFETY: these samples exist, and there is room for so many.
            unsafe { interleave(p, samples.clone(), high, packed) };
        }
        for o in (0..outputs).step_by(filters) {
            let filters = o..outputs.min(o + filters);
            let behind = p.w.get(filters.end * p.depth..).unwrap_or_default();
            let next = filters.len() * p.depth;
            let next = &behind[..behind.len().min(next).min(2 * WEIGHTS)];
            let mut next = next.chunks(share(next.len(), samples.len().div_ceil(high)));
            for n in samples.clone().step_by(high) {
                // tiles of pairs do better without
                if high == HIGH {
                    fetch(next.next().unwrap_or_default());
                }
                let left = (samples.end - n).min(high);
                let beside = packed.map(|(packed, _)| {
                    let tile = packed.wrapping_add((n - samples.start) * p.depth);
                    tile.cast_const()
                });
                // SAFETY: so many samples from `n` on, and these filters, exist; what is beside each other was packed.
                unsafe {
                    match beside {
                        #[cfg(target_arch = "x86_64")]
                        Some(beside) if high == PAIRED => {
                            let whole = left / 2 * 2;
                            past_pairs(p, beside, [n, whole], filters.clone(), y);
                            some(p, [n + whole, left - whole], filters.clone(), y);
                        }
                        Some(beside) if left == HIGH => {
                            let x = [0, 8, 16].map(|c| beside.wrapping_add(c));
                            past::<3, 24>(p, x, n, filters.clone(), y);
                        }
                        _ => some(p, [n, left], filters.clone(), y),
                    }
                }
            }
        }
    }
}

/// Up to three samples from the `n`th on, where they lie, meet filters.
///
/// # Safety
/// The samples and filters exist.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
unsafe fn some(p: &DenseF32, [n, count]: [usize; 2], filters: Range<usize>, y: &mut [f32]) {
    let rows = [0, 1, 2].map(|c| p.x.as_ptr().wrapping_add((n + c) * p.depth));
    // SAFETY: the caller's promise.
    unsafe {
        match count {
            0 => {}
            1 => past::<1, 8>(p, [rows[0]], n, filters, y),
            2 => past::<2, 8>(p, [rows[0], rows[1]], n, filters, y),
            _ => past::<3, 8>(p, rows, n, filters, y),
        }
    }
}

/// Two, four or six samples from the `n`th on, packed from `x` on, meet filters.
///
/// # Safety
/// The samples and filters exist, and the CPU has registers of 512 bits.
#[cfg(target_arch = "x86_64")]
unsafe fn past_pairs(
    p: &DenseF32,
    x: *const f32,
    [n, count]: [usize; 2],
    filters: Range<usize>,
    y: &mut [f32],
) {
    let mut o = filters.start;
    while o < filters.end {
        // SAFETY: the caller's promise; so many filters from `o` on.
        o += unsafe {
            match (filters.end - o, count) {
                (8.., 6) => wide::dense::<8, 3>(p, x, [n, o], y),
                (8.., 4) => wide::dense::<8, 2>(p, x, [n, o], y),
                (8.., 2) => wide::dense::<8, 1>(p, x, [n, o], y),
                (4.., 6) => wide::dense::<4, 3>(p, x, [n, o], y),
                (4.., 4) => wide::dense::<4, 2>(p, x, [n, o], y),
                (4.., 2) => wide::dense::<4, 1>(p, x, [n, o], y),
                (few, _) => {
                    for n in (n..n + count).step_by(2) {
                        some(p, [n, 2], o..filters.end, y);
                    }
                    few
                }
            }
        };
    }
}

/// How many of `len` elements are fetched at once, where that is done so many times: whole cache lines.
fn share(len: usize, times: usize) -> usize {
    len.div_ceil(times.max(1)).next_multiple_of(LINE).max(LINE)
}

/// Asks for weights that come next while others are at work.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
#[inline]
fn fetch(w: &[f32]) {
    for line in w.chunks(LINE) {
        prefetch(line.as_ptr());
    }
}

/// Tiles of `high` samples, eight terms of each in turn. What is left over has fewer: as many as are there, but no half of a pair where
/// `high` is [`PAIRED`], and nothing else.
///
/// # Safety
/// The samples exist, `depth` is a multiple of eight, and `to` has room for as many elements.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
unsafe fn interleave(p: &DenseF32, samples: Range<usize>, high: usize, to: *mut f32) {
    let rows = &p.x[samples.start * p.depth..samples.end * p.depth];
    for (i, tile) in rows.chunks(high * p.depth).enumerate() {
        let here = match tile.len() / p.depth {
            all if all == high => high,
            some if high == PAIRED => some / 2 * 2,
            _ => return,
        };
        for k in (0..p.depth).step_by(8) {
            for c in 0..here {
                let from = tile.as_ptr().wrapping_add(c * p.depth + k);
                let to = to.wrapping_add(i * high * p.depth + k * here + 8 * c);
                // SAFETY: eight terms of a row, and the caller's promise.
                unsafe { F8::load(from).store(to) };
            }
        }
    }
}

/// `C` samples from the `n`th on meet filters. Eight terms of theirs are together, at `x`, and the next eight `STEP` elements on.
///
/// # Safety
/// The samples and filters exist.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
unsafe fn past<const C: usize, const STEP: usize>(
    p: &DenseF32,
    x: [*const f32; C],
    n: usize,
    filters: Range<usize>,
    y: &mut [f32],
) {
    let mut o = filters.start;
    while o < filters.end {
        // SAFETY: the caller's promise; so many filters from `o` on.
        o += unsafe {
            match filters.end - o {
                8.. if C == 1 => tile::<8, C, STEP>(p, x, [n, o], y),
                WIDE.. => tile::<4, C, STEP>(p, x, [n, o], y),
                _ => tile::<1, C, STEP>(p, x, [n, o], y),
            }
        };
    }
}

/// `M` filters, `C` samples; returns `M`.
///
/// # Safety
/// As [`past`].
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
#[inline]
unsafe fn tile<const M: usize, const C: usize, const STEP: usize>(
    p: &DenseF32,
    x: [*const f32; C],
    [n, o]: [usize; 2],
    y: &mut [f32],
) -> usize {
    let mut w = [p.w.as_ptr(); M];
    for r in 0..M {
        w[r] = w[r].wrapping_add((o + r) * p.depth);
    }
    let mut sums = [[F8::zero(); M]; C];
    let eights = p.depth / 8;
    let mut k = 0;
    while k + 4 <= eights {
        for _ in 0..4 {
            // SAFETY: eight terms that exist.
            unsafe { terms::<M, C, STEP>(x, w, k, |at| F8::load(at), &mut sums) };
            k += 1;
        }
    }
    while k < eights {
        // SAFETY: eight terms that exist.
        unsafe { terms::<M, C, STEP>(x, w, k, |at| F8::load(at), &mut sums) };
        k += 1;
    }
    if 8 * eights < p.depth {
        let there = Mask::first(p.depth - 8 * eights);
        // SAFETY: terms that are not there are not read.
        unsafe { terms::<M, C, STEP>(x, w, k, |at| F8::load_some(at, there), &mut sums) };
    }
    for c in 0..C {
        for r in (0..M / 4 * 4).step_by(4) {
            let four = F8::sum_4([0, 1, 2, 3].map(|i| sums[c][r + i]));
            end(p, four, [n + c, o + r], y);
        }
        for r in M / 4 * 4..M {
            let y = &mut y[(n + c) * p.bias.len() + o + r];
            *y = p.activation.apply(sums[c][r].sum() + p.bias[o + r]);
        }
    }
    M
}

/// What a sample gets of four filters.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
#[inline]
fn end(p: &DenseF32, sums: F4, [n, o]: [usize; 2], y: &mut [f32]) {
    let y = &mut y[n * p.bias.len() + o..][..4];
    let bias = &p.bias[o..o + 4];
    // SAFETY: four elements.
    unsafe {
        let sums = F4::add(sums, F4::load(bias.as_ptr()));
        let sums = Rails::new(p.activation).clamp(F8::from_lower(sums));
        sums.lower().store(y.as_mut_ptr());
    }
}

/// The `k`th eight terms of a tile's sums.
///
/// # Safety
/// `load` can read them.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
#[inline]
unsafe fn terms<const M: usize, const C: usize, const STEP: usize>(
    x: [*const f32; C],
    w: [*const f32; M],
    k: usize,
    load: impl Fn(*const f32) -> F8,
    sums: &mut [[F8; M]; C],
) {
    let x = x.map(|x| load(x.wrapping_add(STEP * k)));
    for r in 0..M {
        let w = load(w[r].wrapping_add(8 * k));
        for c in 0..C {
            sums[c][r] = F8::mul_add(w, x[c], sums[c][r]);
        }
    }
}

/// `gx += gy w`, or `=`.
///
/// # Safety
/// A token of [`Fma`](super::Fma) exists; [`takes`] said yes.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
pub(super) unsafe fn input_gradient(
    depth: usize,
    w: &[f32],
    gy: &[f32],
    gx: &mut [f32],
    onto: Onto,
) {
    let outputs = w.len() / depth.max(1);
    product(
        Rows {
            x: gy,
            row: outputs,
            step: 1,
        },
        w,
        [outputs, depth],
        gx,
        onto,
    );
}

/// `gw += gy^T x`, or `=`.
///
/// # Safety
/// A token of [`Fma`](super::Fma) exists; [`takes`] said yes.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
pub(super) unsafe fn weight_gradient(
    depth: usize,
    x: &[f32],
    gy: &[f32],
    gw: &mut [f32],
    onto: Onto,
) {
    let outputs = gw.len() / depth.max(1);
    let batch = x.len() / depth.max(1);
    product(
        Rows {
            x: gy,
            row: 1,
            step: outputs,
        },
        x,
        [batch, depth],
        gw,
        onto,
    );
}

/// `to [M, lanes] += a [M, terms] b [terms, lanes]`, or `=`.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
fn product(a: Rows, b: &[f32], [terms, lanes]: [usize; 2], to: &mut [f32], onto: Onto) {
    let m = to.len() / lanes.max(1);
    if m > 1 && terms > 0 {
        // SAFETY: the two callers' operands have these sizes.
        return unsafe { gemm::product(&a, b, [m, terms, lanes], to, onto) };
    }
    if onto == Onto::Nothing {
        to.fill(0.0);
    }
    if m == 1 {
        add_rows(a, b, lanes, to);
    }
}

/// One row: `to += a b`, four rows of `b` at a time, in the order of the terms.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
fn add_rows(a: Rows, b: &[f32], lanes: usize, to: &mut [f32]) {
    let whole = lanes / 8 * 8;
    let terms = b.len() / lanes;
    for first in (0..terms).step_by(4) {
        let count = (terms - first).min(4);
        let mut factors = [F8::zero(); 4];
        for (k, f) in factors.iter_mut().enumerate().take(count) {
            *f = F8::splat(a.x[(first + k) * a.step]);
        }
        let rows = &b[first * lanes..][..count * lanes];
        for l in (0..whole).step_by(8) {
            // SAFETY: `l + 8` is at most `lanes`, the length of `to` and of each row.
            unsafe {
                let at = to.as_mut_ptr().add(l);
                let mut sum = F8::load(at);
                for (k, f) in factors.iter().enumerate().take(count) {
                    let row = F8::load(rows.as_ptr().add(k * lanes + l));
                    sum = F8::mul_add(*f, row, sum);
                }
                sum.store(at);
            }
        }
        for l in whole..lanes {
            for k in 0..count {
                to[l] = mul_add(factors[k].first(), rows[k * lanes + l], to[l]);
            }
        }
    }
}
