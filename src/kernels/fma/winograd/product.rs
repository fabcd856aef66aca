//! What is between the brackets: for each point a product of matrices, tiles by channels and channels by filters.

use super::{TILES, Transforms};
use crate::kernels::f32x8::F8;
#[cfg(target_arch = "x86_64")]
use crate::kernels::fma::wide;

/// One point of `M` tiles: `to[r] = sum_k a[r][k] b[k]`. Rows of `a` are tiles' `[channel / 8][point][8]`, of `b` `8 V` filters, of `to`
/// `[filter / 8][point][8]`. Where `V` is 4, two panels of sixteen filters, `b_panel` elements apart; their products [`to_panel`] apart.
/// Where it is 1 and `is_wide`, this point and the next.
///
/// # Safety
/// The rows can be read and written; `is_wide` where the CPU has registers of 512 bits, and `V` is not 4 where it has not.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
#[inline]
unsafe fn product<F: Transforms, const M: usize, const V: usize>(
    is_wide: bool,
    channels: usize,
    a: *const f32,
    (b, b_panel): (*const f32, usize),
    to: *mut f32,
) {
    #[cfg(target_arch = "x86_64")]
    if is_wide {
        let next = (b, F::pitch(channels, 1));
        let (b, to) = ((b, b_panel), (to, to_panel::<F>()));
        // SAFETY: the caller's promise.
        return unsafe {
            match V {
                1 => wide::product_of_points::<F, M>(channels, a, next, to.0),
                2 => wide::product::<F, M, 1>(channels, a, b, to),
                _ => wide::product::<F, M, 2>(channels, a, b, to),
            }
        };
    }
    let mut sums = [[F8::zero(); V]; M];
    let (mut a, mut b, row) = (a, b, F::tile_pitch(channels));
    for _ in 0..channels / 8 {
        for k in 0..8 {
            let mut lanes = [F8::zero(); V];
            for (v, lanes) in lanes.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *lanes = unsafe { F8::load(b.add((k * V + v) * 8)) };
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                let x = unsafe { F8::splat(*a.add(r * row + k)) };
                for (sum, lanes) in sums.iter_mut().zip(lanes) {
                    *sum = F8::mul_add(x, lanes, *sum);
                }
            }
        }
        (a, b) = (a.wrapping_add(F::BLOCK), b.wrapping_add(8 * V * 8));
    }
    for (r, sums) in sums.iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { sum.store(to.add((r * V + v) * F::BLOCK)) };
        }
    }
}

/// Elements from a panel's products to the next panel's.
pub(super) const fn to_panel<F: Transforms>() -> usize {
    TILES * 2 * F::BLOCK
}

/// All points' products: `[tile][channel / 8][point][8]` by `[point][channel][8 V]` to `[tile][filter / 8][point][8]`, where `V` is 4 as in
/// [`product`].
///
/// # Safety
/// All three are so long; `is_wide` where the CPU has registers of 512 bits, and `V` is not 4 where it has not.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
pub(super) unsafe fn multiply<F: Transforms, const V: usize>(
    is_wide: bool,
    channels: usize,
    tiles: usize,
    a: *const f32,
    (b, b_panel): (*const f32, usize),
    to: *mut f32,
) {
    let vectors = V.min(2);
    // of eight filters a register has room for those of two points, whose number is even
    let points = if V == 1 && is_wide { 2 } else { 1 };
    for point in (0..F::POINTS).step_by(points) {
        let b = (b.wrapping_add(point * F::pitch(channels, vectors)), b_panel);
        let mut t = 0;
        while t < tiles {
            let a = a.wrapping_add(t * F::tile_pitch(channels) + point * 8);
            let to = to.wrapping_add(t * vectors * F::BLOCK + point * 8);
            // SAFETY: so many tiles are left.
            unsafe {
                t += match tiles - t {
                    // one vector of filters, or registers of twice the width, leave room for more tiles
                    12.. if V == 1 || is_wide => {
                        product::<F, 12, V>(is_wide, channels, a, b, to);
                        12
                    }
                    // eight are four and four: two at once would wait for each other
                    6 | 7 | 9.. => {
                        product::<F, 6, V>(is_wide, channels, a, b, to);
                        6
                    }
                    4.. => {
                        product::<F, 4, V>(is_wide, channels, a, b, to);
                        4
                    }
                    2.. => {
                        product::<F, 2, V>(is_wide, channels, a, b, to);
                        2
                    }
                    _ => {
                        product::<F, 1, V>(is_wide, channels, a, b, to);
                        1
                    }
                };
            }
        }
    }
}
