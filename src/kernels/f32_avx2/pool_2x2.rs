//! Windows of 2x2 cells that touch and lie inside the image, over whole vectors of channels: the pooling of most small networks. What
//! the loops for any window do, with nothing left to look up.

use super::activate;
use super::pool::{as_bytes, greater};
use crate::kernels::{Activation, Window};
use core::arch::x86_64::*;

/// Whether the loops below can do this window.
pub(in super::super) fn takes(g: &Window) -> bool {
    [g.kernel, g.stride, g.dilation] == [[2; 2], [2; 2], [1; 2]]
        && g.padding == [0; 2]
        && (0..2).all(|axis| 2 * g.output[axis] <= g.input[axis])
        && g.in_channels.is_multiple_of(8)
}

/// Whether each cell of the image is one window's.
pub(in super::super) fn covers(g: &Window) -> bool {
    takes(g) && (0..2).all(|axis| 2 * g.output[axis] == g.input[axis])
}

/// Calls with where the four cells of a window lie, eight channels of them, and where those lie in the output.
#[target_feature(enable = "avx2")]
#[inline]
fn each(g: &Window, mut visit: impl FnMut([usize; 4], usize)) {
    let channels = g.in_channels;
    let pitch = g.input[1] * channels;
    let mut to = 0;
    for n in 0..g.batch {
        for y in 0..g.output[0] {
            let row = (n * g.input[0] + 2 * y) * pitch;
            for x in 0..g.output[1] {
                let first = row + 2 * x * channels;
                for at in (first..first + channels).step_by(8) {
                    visit([at, at + channels, at + pitch, at + pitch + channels], to);
                    to += 8;
                }
            }
        }
    }
}

/// As the function of this name in `pool`.
///
/// # Safety
/// The CPU has AVX2, `fits` said yes to `x` and `y`, and [`takes`] to the window.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn maximum(g: &Window, x: &[f32], activation: Activation, y: &mut [f32]) {
    each(g, |cells, to| {
        // SAFETY: cells of the image.
        let cells = cells.map(|at| unsafe { _mm256_loadu_ps(x.as_ptr().add(at)) });
        let mut best = cells[0];
        for &x in &cells[1..] {
            best = _mm256_blendv_ps(best, x, greater(x, best));
        }
        // SAFETY: the channels of one place.
        unsafe { _mm256_storeu_ps(y.as_mut_ptr().add(to), activate(activation, best)) };
    });
}

/// As the function of this name in `pool`.
///
/// # Safety
/// As [`maximum`], of `x` and `y`, and of `x` and `index`.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn maximum_and_index(
    g: &Window,
    x: &[f32],
    activation: Activation,
    y: &mut [f32],
    index: &mut [u8],
) {
    each(g, |cells, to| {
        // SAFETY: cells of the image.
        let cells = cells.map(|at| unsafe { _mm256_loadu_ps(x.as_ptr().add(at)) });
        let mut best = cells[0];
        let mut number = _mm256_setzero_si256();
        for (cell, x) in (0..).zip(cells).skip(1) {
            let more = greater(x, best);
            best = _mm256_blendv_ps(best, x, more);
            let more = _mm256_castps_si256(more);
            number = _mm256_blendv_epi8(number, _mm256_set1_epi32(cell), more);
        }
        // SAFETY: the channels of one place.
        unsafe {
            _mm256_storeu_ps(y.as_mut_ptr().add(to), activate(activation, best));
            _mm_storel_epi64(index.as_mut_ptr().add(to).cast(), as_bytes(number));
        }
    });
}

/// As the function of this name in `pool`; with `SET`, for windows that [`covers`] names, `gx` holds nothing yet.
///
/// # Safety
/// As [`maximum`], of `gx` and `gy`, and of `gx` and `index`.
#[target_feature(enable = "avx2")]
pub(in super::super) unsafe fn maximum_gradient<const SET: bool>(
    g: &Window,
    index: &[u8],
    gy: &[f32],
    gx: &mut [f32],
) {
    each(g, |cells, to| {
        // SAFETY: the channels of one place.
        let (number, gy) = unsafe {
            (
                _mm_loadl_epi64(index.as_ptr().add(to).cast()),
                _mm256_loadu_ps(gy.as_ptr().add(to)),
            )
        };
        let number = _mm256_cvtepu8_epi32(number);
        for (cell, at) in (0..).zip(cells) {
            let here = _mm256_castsi256_ps(_mm256_cmpeq_epi32(number, _mm256_set1_epi32(cell)));
            // SAFETY: a cell of the image.
            unsafe {
                let gx = gx.as_mut_ptr().add(at);
                let sum = match SET {
                    true => _mm256_and_ps(here, gy),
                    false => {
                        // minus zero changes no sum
                        let more = _mm256_blendv_ps(_mm256_set1_ps(-0.0), gy, here);
                        _mm256_add_ps(_mm256_loadu_ps(gx), more)
                    }
                };
                _mm256_storeu_ps(gx, sum);
            }
        }
    });
}
