//! F(4x4, 3x3), with the points 0, +-3/4, +-3/2 and infinity: 36 products for sixteen places, where F(2x2) has 64.
//!
//! Lavin and Gray take the points 0, +-1, +-2: with those errors are twice as large, for as many operations. These are the same points times
//! 3/4: powers of `A` become a factor of each place, which a multiply-add brings in for nothing, and what pixels are multiplied by is exact in
//! f32. (Barabasz, Anderson, Soodhalter and Gregg, "Error analysis and improving the accuracy of Winograd convolution for deep neural networks"
//! (2018), on the choice of points: theirs, 0, +-1, 1/2 and -2, have two operations more along each line, and errors that are a third larger.)

#![allow(clippy::needless_range_loop)] // rows and columns are registers: numbered, in loops that are unrolled

use super::Transforms;
use crate::kernels::f32x8::F8;
use crate::kernels::fma::lanes::Lanes;

/// Tiles of 4x4 places.
pub(super) struct Four;

/// The smaller point; the other one is its double.
const A: f32 = 0.75;
const A2: f32 = A * A;
const A4: f32 = A2 * A2;

/// `B^T d` along one line: the pixels' polynomial without one of its points each.
#[inline(always)]
fn pixels_along<L: Lanes>(d: [L; 6]) -> [L; 6] {
    // without one point of a pair: even powers, and odd ones
    let even = L::mul_add(-4.0 * A2, d[2], d[4]);
    let odd = L::mul_add(-4.0 * A2, d[1], d[3]);
    let even_2 = L::mul_add(-A2, d[2], d[4]);
    let odd_2 = L::mul_add(-A2, d[1], d[3]);
    [
        L::mul_add(4.0 * A4, d[0], L::mul_add(-5.0 * A2, d[2], d[4])),
        L::mul_add(A, odd, even),
        L::mul_add(-A, odd, even),
        L::mul_add(2.0 * A, odd_2, even_2),
        L::mul_add(-2.0 * A, odd_2, even_2),
        L::mul_add(4.0 * A4, d[1], L::mul_add(-5.0 * A2, d[3], d[5])),
    ]
}

/// `A^T m` along one line, place `k` divided by `A^k`.
#[inline(always)]
fn places_along<L: Lanes>(m: [L; 6]) -> [L; 4] {
    let (even, odd) = (L::add(m[1], m[2]), L::sub(m[1], m[2]));
    let (even_2, odd_2) = (L::add(m[3], m[4]), L::sub(m[3], m[4]));
    [
        L::add(L::add(m[0], even), even_2),
        L::mul_add(2.0, odd_2, odd),
        L::mul_add(4.0, even_2, even),
        L::add(L::mul_add(8.0, odd_2, odd), m[5]),
    ]
}

/// `G g` along one line.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
#[inline]
fn weights_along(g: [F8; 3]) -> [F8; 6] {
    // a point's weights are divided by its distances from the others
    let point = |x: f32, distances: f32| {
        let even = F8::mul_add(F8::splat(x * x), g[2], g[0]);
        let even = F8::mul(F8::splat(1.0 / distances), even);
        let odd = F8::mul(F8::splat(x / distances), g[1]);
        [F8::add(even, odd), F8::sub(even, odd)]
    };
    let ([a, b], [c, d]) = (point(A, -6.0 * A4), point(2.0 * A, 24.0 * A4));
    let first = F8::mul(F8::splat(1.0 / (4.0 * A4)), g[0]);
    // only the last place has it
    [first, a, b, c, d, F8::mul(F8::splat(1.0 / (A * A2)), g[2])]
}

impl Transforms for Four {
    const PLACES: usize = 4;
    const SCALE: f32 = A;
    const APART: bool = false;

    #[inline(always)]
    unsafe fn pixels<L: Lanes>(
        pixel: impl Fn(usize, usize) -> L,
        mut put: impl FnMut(usize, usize, L),
    ) {
        // [column][row], then the other way
        // SAFETY: the caller's promise.
        let mut rows = unsafe { [[L::splat(0.0); 6]; 6] };
        for (j, rows) in rows.iter_mut().enumerate() {
            let d = |i: usize| pixel(i, j);
            *rows = pixels_along([d(0), d(1), d(2), d(3), d(4), d(5)]);
        }
        for i in 0..6 {
            let d = |j: usize| rows[j][i];
            let row = pixels_along([d(0), d(1), d(2), d(3), d(4), d(5)]);
            for (j, d) in row.into_iter().enumerate() {
                put(i, j, d);
            }
        }
    }

    #[inline(always)]
    unsafe fn places<L: Lanes>(
        m: impl Fn(usize, usize) -> L,
        mut put: impl FnMut(usize, usize, L),
    ) {
        // SAFETY: the caller's promise.
        let mut rows = unsafe { [[L::splat(0.0); 4]; 6] };
        for (j, rows) in rows.iter_mut().enumerate() {
            let m = |i: usize| m(i, j);
            *rows = places_along([m(0), m(1), m(2), m(3), m(4), m(5)]);
        }
        for i in 0..4 {
            let m = |j: usize| rows[j][i];
            let row = places_along([m(0), m(1), m(2), m(3), m(4), m(5)]);
            for (j, y) in row.into_iter().enumerate() {
                put(i, j, y);
            }
        }
    }

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    #[inline]
    unsafe fn weights(g: [[F8; 3]; 3], mut put: impl FnMut(usize, usize, F8)) {
        let rows = [
            weights_along(g[0]),
            weights_along(g[1]),
            weights_along(g[2]),
        ];
        for j in 0..6 {
            let column = weights_along([rows[0][j], rows[1][j], rows[2][j]]);
            for (i, g) in column.into_iter().enumerate() {
                put(i, j, g);
            }
        }
    }
}
