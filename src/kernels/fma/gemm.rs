//! Products of matrices whose operands are cut into blocks that caches hold and packed in the order in which they are read (Goto and
//! van de Geijn, "Anatomy of high-performance matrix multiplication", 2008). How they are cut changes no bit: every sum goes over
//! its terms in their order, from what it is added to.

#![allow(clippy::needless_range_loop)] // rows and vectors are registers: numbered, in loops that are unrolled

use super::tile::{Scratch, TWICE, WIDE};
#[cfg(target_arch = "x86_64")]
use super::wide;
use crate::kernels::f32x8::{F8, Mask, prefetch};
use crate::kernels::simd;

/// Terms of a sum that are packed at once.
const TERMS: usize = 256;
/// Elements of the first operand that are packed at once: a quarter of what the usual second-level cache holds.
const BLOCK: usize = 32 * 1024;

/// How many rows the next tile has, of so many that are left: six as long as that does not leave one or two.
fn height(left: usize) -> usize {
    match left {
        ..=4 | 8 => 4,
        _ => 6,
    }
}

/// A matrix whose element `r, k` is `x[r row + k step]`.
pub(super) struct Rows<'a> {
    pub x: &'a [f32],
    pub row: usize,
    pub step: usize,
}

/// What a product does with the sums that it finds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Onto {
    /// It is added to them.
    Sums,
    /// Nothing: they were not even cleared. The bits are those of a product that is added to zeros.
    Nothing,
}

/// `to [rows, lanes] += a [rows, terms] b [terms, lanes]`, or `=`, with at least two rows and a term.
///
/// # Safety
/// A token of [`Fma`](super::Fma) exists; `a` and `b` have these elements, and `to` has `rows lanes`.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
pub(super) unsafe fn product(
    a: &Rows,
    b: &[f32],
    [rows, terms, lanes]: [usize; 3],
    to: &mut [f32],
    onto: Onto,
) {
    let (mut block, mut panel) = (
        Scratch::<{ BLOCK + 8 }>::new(),
        Scratch::<{ TERMS * TWICE }>::new(),
    );
    let (block, panel) = (block.start(), panel.start());
    let found = simd::found();
    // in registers of 512 bits two panels, so that what is read of the rows meets two registers
    let tile_lanes = if found.wide { TWICE } else { WIDE };
    for k in (0..terms).step_by(TERMS) {
        let count = TERMS.min(terms - k);
        let at_once = BLOCK / count / 6 * 6;
        for first in (0..rows).step_by(at_once) {
            let rows = at_once.min(rows - first);
            let from = a.x.as_ptr().wrapping_add(first * a.row + k * a.step);
            // SAFETY: `rows` rows, rounded up to tiles, fit into the block.
            unsafe { pack_rows(from, [a.row, a.step], [rows, count], block) };
            // as many panels as there is room for
            let group = TERMS / count * tile_lanes;
            for first_lane in (0..lanes).step_by(group) {
                let here = first_lane..lanes.min(first_lane + group);
                // the first tile that reads whole panels packs them as it goes: by then the multiplications, not the memory, set the pace
                let by_tiles = here.start..here.start + here.len() / tile_lanes * tile_lanes;
                for l in (by_tiles.end..here.end).step_by(WIDE) {
                    let from = b.as_ptr().wrapping_add(k * lanes + l);
                    let to = panel.wrapping_add((l - first_lane) * count);
                    // SAFETY: so many lanes of `count` terms exist, and there is room for the panel.
                    unsafe { pack_lanes(from, lanes, [count, WIDE.min(lanes - l)], to) };
                }
                let mut r = 0;
                while r < rows {
                    let high = height(rows - r);
                    // registers of 512 bits have room for twice as many
                    let two = found.wide && high == 6 && rows - r > 6 && height(rows - r - 6) == 6;
                    let there = (rows - r).min(if two { 12 } else { high });
                    let mut l = here.start;
                    while l < here.end {
                        let tile = Tile {
                            a: block.wrapping_add(r * count),
                            b: panel.wrapping_add((l - first_lane) * count),
                            from: b.as_ptr().wrapping_add(k * lanes + l),
                            terms: count,
                            to: to.as_mut_ptr().wrapping_add((first + r) * lanes + l),
                            row: lanes,
                            rows: there,
                            lanes: tile_lanes.min(lanes - l),
                            adds: k > 0 || onto == Onto::Sums,
                        };
                        let packs = r == 0 && by_tiles.contains(&l);
                        // SAFETY: rows and lanes exist, and were packed; or this first tile packs a whole panel, all of whose lanes exist.
                        unsafe {
                            match high {
                                #[cfg(target_arch = "x86_64")]
                                _ if found.wide => wide::add_tile(&tile, high, two, packs),
                                4 if packs => tile.add::<4, true>(),
                                4 => tile.add::<4, false>(),
                                _ if packs => tile.add::<6, true>(),
                                _ => tile.add::<6, false>(),
                            }
                        }
                        l += tile_lanes;
                    }
                    r += there.max(high);
                }
            }
        }
    }
}

/// Rows side by side, as many as a tile has; zeros where there are no more.
///
/// # Safety
/// The rows and terms can be read; `to` has room for them, rounded up to tiles.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
unsafe fn pack_rows(
    from: *const f32,
    [row, step]: [usize; 2],
    [rows, terms]: [usize; 2],
    to: *mut f32,
) {
    let mut next = 0;
    while next < rows {
        let (first, high) = (next, height(rows - next));
        next += high;
        let (from, to) = (
            from.wrapping_add(first * row),
            to.wrapping_add(first * terms),
        );
        let here = high.min(rows - first);
        if row == 1 && here == high {
            for k in 0..terms {
                let (from, to) = (from.wrapping_add(k * step), to.wrapping_add(k * high));
                // SAFETY: so many rows exist. (A length that the compiler knows.)
                unsafe {
                    match high {
                        4 => to.copy_from_nonoverlapping(from, 4),
                        _ => to.copy_from_nonoverlapping(from, 6),
                    }
                }
            }
            continue;
        }
        if step == 1 {
            for k in (0..terms).step_by(8) {
                // SAFETY: the rows exist; there is room for eight elements behind the last one's place.
                unsafe {
                    turn(
                        from.wrapping_add(k),
                        row,
                        [here, high, terms - k],
                        to.add(k * high),
                    )
                };
            }
            continue;
        }
        for k in 0..terms {
            for r in 0..high {
                // SAFETY: the row exists.
                unsafe {
                    *to.add(k * high + r) = match r < here {
                        true => *from.add(r * row + k * step),
                        false => 0.0,
                    };
                }
            }
        }
    }
}

/// Up to eight terms of `here` rows, term after term; `high` apart.
///
/// # Safety
/// The rows and `left` terms can be read; `to` has room for eight elements from each term's place on, and what is written behind the
/// last one's six or four does not matter.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
#[inline]
unsafe fn turn(from: *const f32, row: usize, [here, high, left]: [usize; 3], to: *mut f32) {
    let there = Mask::first(left);
    let mut rows = [F8::zero(); 8];
    for r in 0..here.min(8) {
        // SAFETY: terms that are not there are not read.
        rows[r] = unsafe { F8::load_some(from.wrapping_add(r * row), there) };
    }
    for (k, term) in F8::transpose(rows).into_iter().enumerate().take(left) {
        // SAFETY: the caller's promise; the next term is written over what is too much.
        unsafe { term.store(to.add(k * high)) };
    }
}

/// The lanes of a panel, term after term, with zeros where there are no more.
///
/// # Safety
/// `width` lanes of the terms can be read; `to` has room for sixteen lanes of each.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
unsafe fn pack_lanes(from: *const f32, row: usize, [terms, width]: [usize; 2], to: *mut f32) {
    for l in (0..WIDE).step_by(8) {
        let lanes = width.saturating_sub(l);
        let there = Mask::first(lanes);
        for k in 0..terms {
            let at = from.wrapping_add(k * row + l);
            // SAFETY: lanes that are not there are not read.
            unsafe {
                let eight = match lanes {
                    8.. => F8::load(at),
                    _ => F8::load_some(at, there),
                };
                eight.store(to.add(k * WIDE + l));
            }
        }
    }
}

/// A block of sums that stays in registers.
pub(super) struct Tile {
    pub a: *const f32,
    pub b: *mut f32,
    /// Where the first term's lanes of `b` are before they are packed, [`Tile::row`] elements before the next term's.
    pub from: *const f32,
    pub terms: usize,
    pub to: *mut f32,
    /// From a row of `to`, or of what is packed, to the next.
    pub row: usize,
    pub rows: usize,
    pub lanes: usize,
    /// Whether `to` holds what the products are added to.
    pub adds: bool,
}

impl Tile {
    /// `to += a b`, or `=`, for `M` rows of sixteen lanes, of which `rows` and `lanes` are there. What is to `PACK` `b` takes it from where
    /// it lies.
    ///
    /// # Safety
    /// `a` is packed, and `rows` by `lanes` of `to` can be read and written. `b` is packed, or `PACK` is true, `b` has room for it, and
    /// sixteen lanes of all terms can be read.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    #[inline]
    unsafe fn add<const M: usize, const PACK: bool>(&self) {
        let full = self.lanes == WIDE;
        let mut masks = [Mask::first(0); 2];
        for (v, m) in masks.iter_mut().enumerate() {
            *m = Mask::first(self.lanes.saturating_sub(8 * v));
        }
        let mut sums = [[F8::zero(); 2]; M];
        for r in 0..M {
            if r >= self.rows || !self.adds {
                continue;
            }
            for v in 0..2 {
                let at = self.to.wrapping_add(r * self.row + 8 * v);
                // SAFETY: the caller's promise; lanes that are not there are not read.
                sums[r][v] = unsafe {
                    match full {
                        true => F8::load(at),
                        false => F8::load_some(at, masks[v]),
                    }
                };
            }
        }
        for r in 0..M {
            // the same lanes of the next rows: by the time they are loaded, or stored, they are near
            let next = self.to.wrapping_add((M + r) * self.row);
            prefetch(next);
            prefetch(next.wrapping_add(WIDE - 1));
        }
        let (mut a, mut b, mut from) = (self.a, self.b, self.from);
        let mut left = self.terms;
        while left >= 4 {
            for _ in 0..4 {
                // SAFETY: terms that were packed, or are to be.
                unsafe { step::<M, PACK>(a, b, from, &mut sums) };
                (a, b) = (a.wrapping_add(M), b.wrapping_add(WIDE));
                from = from.wrapping_add(self.row);
            }
            left -= 4;
        }
        for _ in 0..left {
            // SAFETY: terms that were packed, or are to be.
            unsafe { step::<M, PACK>(a, b, from, &mut sums) };
            (a, b) = (a.wrapping_add(M), b.wrapping_add(WIDE));
            from = from.wrapping_add(self.row);
        }
        for r in 0..M {
            if r >= self.rows {
                continue;
            }
            for v in 0..2 {
                let at = self.to.wrapping_add(r * self.row + 8 * v);
                // SAFETY: the caller's promise; lanes that are not there are not written.
                unsafe {
                    match full {
                        true => sums[r][v].store(at),
                        false => sums[r][v].store_some(at, masks[v]),
                    }
                }
            }
        }
    }
}

/// One term of a tile's sums; what is to `PACK` `b` takes it from `from`.
///
/// # Safety
/// `M` elements of `a` can be read, and sixteen of `b`, or of `from` and written to `b`.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
#[inline]
unsafe fn step<const M: usize, const PACK: bool>(
    a: *const f32,
    b: *mut f32,
    from: *const f32,
    sums: &mut [[F8; 2]; M],
) {
    let mut lanes = [F8::zero(); 2];
    for v in 0..2 {
        // SAFETY: the caller's promise.
        unsafe {
            if PACK {
                F8::load(from.add(8 * v)).store(b.add(8 * v));
            }
            lanes[v] = F8::load(b.add(8 * v));
        }
    }
    for r in 0..M {
        // SAFETY: the caller's promise.
        let x = unsafe { F8::splat(*a.add(r)) };
        for v in 0..2 {
            sums[r][v] = F8::mul_add(x, lanes[v], sums[r][v]);
        }
    }
}
