//! F(2x2, 3x3), with the points 0, 1, -1 and infinity: sixteen products for four places.

#![allow(clippy::needless_range_loop)] // rows and columns are registers: numbered, in loops that are unrolled

use super::Transforms;
use crate::kernels::f32x8::F8;
use crate::kernels::fma::lanes::Lanes;

/// Tiles of 2x2 places.
pub(super) struct Two;

impl Transforms for Two {
    const PLACES: usize = 2;
    const SCALE: f32 = 1.0;
    const APART: bool = true;

    #[inline(always)]
    unsafe fn pixels<L: Lanes>(
        pixel: impl Fn(usize, usize) -> L,
        mut put: impl FnMut(usize, usize, L),
    ) {
        // pixels are read as they are needed, twice: all sixteen and what becomes of them do not fit the registers
        for i in 0..4 {
            // SAFETY: the caller's promise.
            let mut d = unsafe { [L::splat(0.0); 4] };
            for (j, d) in d.iter_mut().enumerate() {
                *d = match i {
                    0 => L::sub(pixel(0, j), pixel(2, j)),
                    1 => L::add(pixel(1, j), pixel(2, j)),
                    2 => L::sub(pixel(2, j), pixel(1, j)),
                    _ => L::sub(pixel(1, j), pixel(3, j)),
                };
            }
            put(i, 0, L::sub(d[0], d[2]));
            put(i, 1, L::add(d[1], d[2]));
            put(i, 2, L::sub(d[2], d[1]));
            put(i, 3, L::sub(d[1], d[3]));
        }
    }

    #[inline(always)]
    unsafe fn places<L: Lanes>(
        m: impl Fn(usize, usize) -> L,
        mut put: impl FnMut(usize, usize, L),
    ) {
        let along = |m: [L; 4]| {
            let sum = L::add(m[1], m[2]);
            let difference = L::sub(m[1], m[2]);
            [L::add(m[0], sum), L::sub(difference, m[3])]
        };
        // [column][row], then the other way
        // SAFETY: the caller's promise.
        let mut rows = unsafe { [[L::splat(0.0); 2]; 4] };
        for (j, rows) in rows.iter_mut().enumerate() {
            *rows = along([m(0, j), m(1, j), m(2, j), m(3, j)]);
        }
        for i in 0..2 {
            let row = along([rows[0][i], rows[1][i], rows[2][i], rows[3][i]]);
            put(i, 0, row[0]);
            put(i, 1, row[1]);
        }
    }

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    #[inline]
    unsafe fn weights(g: [[F8; 3]; 3], mut put: impl FnMut(usize, usize, F8)) {
        let half = F8::splat(0.5);
        let along = |g: [F8; 3]| {
            let ends = F8::mul(half, F8::add(g[0], g[2]));
            let middle = F8::mul(half, g[1]);
            [g[0], F8::add(ends, middle), F8::sub(ends, middle), g[2]]
        };
        let rows = [along(g[0]), along(g[1]), along(g[2])];
        for j in 0..4 {
            let column = along([rows[0][j], rows[1][j], rows[2][j]]);
            for (i, g) in column.into_iter().enumerate() {
                put(i, j, g);
            }
        }
    }
}
