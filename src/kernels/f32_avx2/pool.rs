//! Max pooling, eight channels at a time.

use super::{activate, mask, pool_2x2};
use crate::kernels::{Activation, Window, window::Inside};
use core::arch::x86_64::*;

/// Lengths that are those of an image and of what comes out at its windows, with as many channels: the loops below count on it.
pub(in super::super) fn fits(g: &Window, image: usize, places: usize) -> bool {
    g.in_channels == g.out_channels
        && image == g.batch * g.input[0] * g.input[1] * g.in_channels
        && places == g.batch * g.output[0] * g.output[1] * g.out_channels
}

/// The cells of a window that lie inside the image, from one channel on.
struct Cells {
    /// Where the first one lies, in elements, and how far to the next row and column.
    first: usize,
    step: [usize; 2],
    rows: Inside,
    columns: Inside,
    /// Columns of the window.
    width: usize,
}

impl Cells {
    /// Calls with where each lies, and its number in the window.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn each(&self, mut visit: impl FnMut(usize, usize)) {
        for i in 0..self.rows.count {
            let first = self.first + i * self.step[0];
            let number = (self.rows.first + i) * self.width + self.columns.first;
            for j in 0..self.columns.count {
                visit(first + j * self.step[1], number + j);
            }
        }
    }
}

/// Calls with every window's cells, up to eight channels at a time; how many; and where they lie in the output.
#[target_feature(enable = "avx2")]
#[inline]
fn each(g: &Window, mut visit: impl FnMut(&Cells, usize, usize)) {
    let channels = g.in_channels;
    let pitch = g.input[1] * channels;
    let mut to = 0;
    for (n, rows, columns) in g.windows() {
        let pixel = (n * g.input[0] + rows.at) * g.input[1] + columns.at;
        let mut cells = Cells {
            first: pixel * channels,
            step: [g.dilation[0] * pitch, g.dilation[1] * channels],
            rows,
            columns,
            width: g.kernel[1],
        };
        for c in (0..channels).step_by(8) {
            let lanes = (channels - c).min(8);
            visit(&cells, lanes, to);
            cells.first += lanes;
            to += lanes;
        }
    }
}

/// # Safety
/// `lanes` elements can be read.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn load(x: *const f32, lanes: usize) -> __m256 {
    match lanes {
        // SAFETY: the caller's promise.
        8 => unsafe { _mm256_loadu_ps(x) },
        // SAFETY: the same; lanes that are not there are not read.
        _ => unsafe { _mm256_maskload_ps(x, mask(lanes)) },
    }
}

/// # Safety
/// `lanes` elements can be written.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn store(y: *mut f32, lanes: usize, v: __m256) {
    match lanes {
        // SAFETY: the caller's promise.
        8 => unsafe { _mm256_storeu_ps(y, v) },
        // SAFETY: the same; lanes that are not there are not written.
        _ => unsafe { _mm256_maskstore_ps(y, mask(lanes), v) },
    }
}

/// `scalar::pool::greater`: above, or not a number where `best` is one.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn greater(x: __m256, best: __m256) -> __m256 {
    let above = _mm256_cmp_ps::<_CMP_NLE_UQ>(x, best);
    _mm256_and_ps(above, _mm256_cmp_ps::<_CMP_ORD_Q>(best, best))
}

/// `y` = the activation of the greatest element of each window.
///
/// # Safety
/// The CPU has AVX2, and [`fits`] said yes to `x` and `y`.
#[target_feature(enable = "avx2")]
pub(in super::super) unsafe fn maximum(
    g: &Window,
    x: &[f32],
    activation: Activation,
    y: &mut [f32],
) {
    if pool_2x2::takes(g) {
        // SAFETY: the caller's promise.
        return unsafe { pool_2x2::maximum(g, x, activation, y) };
    }
    each(g, |cells, lanes, to| {
        let mut best = _mm256_set1_ps(f32::NEG_INFINITY);
        cells.each(|at, _| {
            // SAFETY: a cell inside the image.
            let x = unsafe { load(x.as_ptr().add(at), lanes) };
            best = _mm256_blendv_ps(best, x, greater(x, best));
        });
        // SAFETY: the channels of one place.
        unsafe { store(y.as_mut_ptr().add(to), lanes, activate(activation, best)) };
    });
}

/// The greatest of the cells, and its number: the first of equals, and the first cell where none is above minus infinity.
///
/// # Safety
/// `lanes` elements of `x` can be read from each cell on.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn greatest(cells: &Cells, lanes: usize, x: &[f32]) -> (__m256, __m256i) {
    let first = cells.rows.first * cells.width + cells.columns.first;
    let mut number = _mm256_set1_epi32(first as i32);
    let mut best = _mm256_set1_ps(f32::NEG_INFINITY);
    cells.each(|at, cell| {
        // SAFETY: the caller's promise.
        let x = unsafe { load(x.as_ptr().add(at), lanes) };
        let more = greater(x, best);
        best = _mm256_blendv_ps(best, x, more);
        let cell = _mm256_castsi256_ps(_mm256_set1_epi32(cell as i32));
        let old = _mm256_castsi256_ps(number);
        number = _mm256_castps_si256(_mm256_blendv_ps(old, cell, more));
    });
    (best, number)
}

/// Eight numbers below 256 as bytes, in the lower half.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn as_bytes(numbers: __m256i) -> __m128i {
    let halves = [
        _mm256_castsi256_si128(numbers),
        _mm256_extracti128_si256::<1>(numbers),
    ];
    let words = _mm_packs_epi32(halves[0], halves[1]);
    _mm_packus_epi16(words, words)
}

/// Writes the numbers of up to eight channels; none where no cell lies in the image.
#[target_feature(enable = "avx2")]
#[inline]
fn write_numbers(cells: &Cells, lanes: usize, numbers: __m256i, to: usize, index: &mut [u8]) {
    if cells.rows.count * cells.columns.count == 0 {
        return;
    }
    let bytes = _mm_cvtsi128_si64(as_bytes(numbers)).to_le_bytes();
    match index.get_mut(to..to + lanes) {
        Some(index) if lanes == 8 => index.copy_from_slice(&bytes),
        Some(index) => index.copy_from_slice(&bytes[..lanes]),
        None => {}
    }
}

/// Which cell of each window is the greatest, the first of equals.
///
/// # Safety
/// The CPU has AVX2, and [`fits`] said yes to `x` and `index`.
#[target_feature(enable = "avx2")]
pub(in super::super) unsafe fn argmax(g: &Window, x: &[f32], index: &mut [u8]) {
    each(g, |cells, lanes, to| {
        // SAFETY: cells inside the image.
        let (_, number) = unsafe { greatest(cells, lanes, x) };
        write_numbers(cells, lanes, number, to, index);
    });
}

/// [`maximum`] and [`argmax`], each cell read once.
///
/// # Safety
/// The CPU has AVX2, and [`fits`] said yes to `x` and `y`, and to `x` and `index`.
#[target_feature(enable = "avx2")]
pub(in super::super) unsafe fn maximum_and_index(
    g: &Window,
    x: &[f32],
    activation: Activation,
    y: &mut [f32],
    index: &mut [u8],
) {
    if pool_2x2::takes(g) {
        // SAFETY: the caller's promise.
        return unsafe { pool_2x2::maximum_and_index(g, x, activation, y, index) };
    }
    each(g, |cells, lanes, to| {
        // SAFETY: cells inside the image.
        let (best, number) = unsafe { greatest(cells, lanes, x) };
        // SAFETY: the channels of one place.
        unsafe { store(y.as_mut_ptr().add(to), lanes, activate(activation, best)) };
        write_numbers(cells, lanes, number, to, index);
    });
}

/// `gx += gy` at the cell that `index` names; a number that is no cell's adds nothing.
///
/// # Safety
/// The CPU has AVX2, and [`fits`] said yes to `gx` and `gy`, and to `gx` and `index`.
#[target_feature(enable = "avx2")]
pub(in super::super) unsafe fn maximum_gradient(
    g: &Window,
    index: &[u8],
    gy: &[f32],
    gx: &mut [f32],
) {
    if pool_2x2::takes(g) {
        // SAFETY: the caller's promise.
        return unsafe { pool_2x2::maximum_gradient::<false>(g, index, gy, gx) };
    }
    each(g, |cells, lanes, to| {
        let mut bytes = [0; 8];
        match index.get(to..to + lanes) {
            Some(index) if lanes == 8 => bytes.copy_from_slice(index),
            Some(index) => bytes[..lanes].copy_from_slice(index),
            None => {}
        }
        let number = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(bytes)));
        // SAFETY: the channels of one place.
        let gy = unsafe { load(gy.as_ptr().add(to), lanes) };
        cells.each(|at, cell| {
            let here = _mm256_cmpeq_epi32(number, _mm256_set1_epi32(cell as i32));
            // minus zero changes no sum; of a choice between sum and old value compilers make a store of some lanes, which takes ten
            // times as long on some CPUs
            let more = _mm256_blendv_ps(_mm256_set1_ps(-0.0), gy, _mm256_castsi256_ps(here));
            // SAFETY: a cell inside the image.
            unsafe {
                let gx = gx.as_mut_ptr().add(at);
                store(gx, lanes, _mm256_add_ps(load(gx, lanes), more));
            }
        });
    });
}
