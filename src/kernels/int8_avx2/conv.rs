//! Convolution: four pixels meet sixteen filters, two elements at a time.

use super::super::{ConvI8, Window};
use super::strip::{Cut, Pixels, STRIP, Strip};
use super::{Lanes, Rails, Scratch, narrow, store, takes};
use core::arch::x86_64::*;

/// Elements of packed weights at one time: 128 KiB.
const PACKED: usize = 64 * 1024;

/// Filters in a tile.
const TILE: usize = 16;

/// Where a weight is: filter `o`, element `k` of its window at `o * filter + k * element`.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub filter: usize,
    pub element: usize,
}

/// The integer convolution; false where it was left undone.
#[target_feature(enable = "avx2")]
pub(in super::super) fn conv(p: &ConvI8, y: &mut [i8]) -> bool {
    let filter = p.window.filter_len();
    let layout = Layout { filter, element: 1 };
    conv_of(p, layout, y)
}

/// The same, with weights in any order.
#[target_feature(enable = "avx2")]
pub(super) fn conv_of(p: &ConvI8, layout: Layout, y: &mut [i8]) -> bool {
    let flat = flattened(p.window);
    let p = &ConvI8 {
        window: &flat,
        ..*p
    };
    let g = p.window;
    let run = g.kernel[1] * g.in_channels;
    let (pairs, outputs) = (run.div_ceil(2), g.out_channels);
    let tile = g.kernel[0] * pairs * 2 * TILE;
    let sized = outputs == p.output.bias.len() && p.w.len() == g.filter_len() * outputs;
    if g.dilation != [1, 1] || run == 0 || tile > PACKED || !sized || !takes(&p.output) {
        return false;
    }
    let Some(cut) = Cut::new(g) else { return false };
    let rails = Rails::new(p.output.zero_point, p.output.range);
    let (mut weights, mut widened) = (Scratch::<PACKED>::new(), Scratch::<STRIP>::new());
    let group = PACKED / tile * TILE;
    for first in (0..outputs).step_by(group) {
        let tiles = (outputs - first).min(group).div_ceil(TILE);
        let weights = weights.zeroed(tiles * tile);
        for (i, packed) in weights.chunks_exact_mut(tile).enumerate() {
            pack(p, layout, first + i * TILE, packed);
        }
        for strip in cut.strips(g) {
            let x = widened.zeroed(strip.len(g));
            strip.fill(p, x);
            for (i, w) in weights.chunks_exact(tile).enumerate() {
                let o = first + i * TILE;
                let valid = (outputs - o).min(TILE);
                match valid > TILE / 2 {
                    true => part::<2>(p, &rails, &strip, x, w, o, valid, y),
                    false => part::<1>(p, &rails, &strip, x, w, o, valid, y),
                }
            }
        }
    }
    true
}

/// A convolution whose windows are single pixels has one long row of them.
fn flattened(g: &Window) -> Window {
    if g.kernel == [1, 1] && g.stride == [1, 1] && g.padding == [0, 0] && g.input == g.output {
        let pixels = g.batch * g.input[0] * g.input[1];
        return Window {
            batch: 1,
            input: [1, pixels],
            output: [1, pixels],
            dilation: [1, 1],
            ..*g
        };
    }
    *g
}

/// Sixteen filters from `first` on (the last one again where there are fewer), their elements in pairs: `[rows, pairs, 16, 2]`. Up to
/// eight filters: `[rows, pairs, 8, 2]`. An odd last element is paired with a zero.
#[target_feature(enable = "avx2")]
fn pack(p: &ConvI8, layout: Layout, first: usize, packed: &mut [i16]) {
    let g = p.window;
    let run = g.kernel[1] * g.in_channels;
    let halves = if g.out_channels - first > TILE / 2 {
        2
    } else {
        1
    };
    let step = halves * 16;
    let rows = packed.chunks_exact_mut(run.div_ceil(2) * step);
    for (r, packed) in rows.take(g.kernel[0]).enumerate() {
        for half in 0..halves {
            let filters: [usize; 8] =
                core::array::from_fn(|i| (first + half * 8 + i).min(g.out_channels - 1));
            let mut k = 0;
            if layout.element == 1 {
                while k + 16 <= run {
                    let mut v = [_mm256_setzero_si256(); 8];
                    for (v, o) in v.iter_mut().zip(filters) {
                        let w = &p.w[o * layout.filter + r * run + k..][..16];
                        // SAFETY: `w` is 16 bytes long.
                        let w = unsafe { _mm_loadu_si128(w.as_ptr().cast()) };
                        *v = _mm256_cvtepi8_epi16(w);
                    }
                    for (i, v) in transposed(v).into_iter().enumerate() {
                        let to = &mut packed[(k / 2 + i) * step + half * 16..][..16];
                        // SAFETY: `to` is 32 bytes long.
                        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), v) };
                    }
                    k += 16;
                }
            }
            for k in k..run {
                let to = &mut packed[k / 2 * step + half * 16..][..16];
                for (i, o) in filters.into_iter().enumerate() {
                    let at = o * layout.filter + (r * run + k) * layout.element;
                    to[2 * i + k % 2] = i16::from(p.w[at]);
                }
            }
        }
    }
}

/// Eight rows of eight 32-bit elements, columns for rows.
#[target_feature(enable = "avx2")]
#[inline]
fn transposed(v: [__m256i; 8]) -> [__m256i; 8] {
    let lo = |a, b| _mm256_unpacklo_epi32(a, b);
    let hi = |a, b| _mm256_unpackhi_epi32(a, b);
    let t = [
        lo(v[0], v[1]),
        hi(v[0], v[1]),
        lo(v[2], v[3]),
        hi(v[2], v[3]),
        lo(v[4], v[5]),
        hi(v[4], v[5]),
        lo(v[6], v[7]),
        hi(v[6], v[7]),
    ];
    let lo = |a, b| _mm256_unpacklo_epi64(a, b);
    let hi = |a, b| _mm256_unpackhi_epi64(a, b);
    let u = [
        lo(t[0], t[2]),
        hi(t[0], t[2]),
        lo(t[1], t[3]),
        hi(t[1], t[3]),
        lo(t[4], t[6]),
        hi(t[4], t[6]),
        lo(t[5], t[7]),
        hi(t[5], t[7]),
    ];
    let low = |a, b| _mm256_permute2x128_si256::<0x20>(a, b);
    let high = |a, b| _mm256_permute2x128_si256::<0x31>(a, b);
    [
        low(u[0], u[4]),
        low(u[1], u[5]),
        low(u[2], u[6]),
        low(u[3], u[7]),
        high(u[0], u[4]),
        high(u[1], u[5]),
        high(u[2], u[6]),
        high(u[3], u[7]),
    ]
}

/// All pixels of a strip with one tile of `8 T` filters, of which `valid` exist.
#[target_feature(enable = "avx2")]
#[allow(clippy::too_many_arguments)] // a loop nest cut in two
fn part<const T: usize>(
    p: &ConvI8,
    rails: &Rails,
    strip: &Strip,
    x: &[i16],
    w: &[i16],
    o: usize,
    valid: usize,
    y: &mut [i8],
) {
    let g = p.window;
    let mut pixels = Pixels {
        strip: *strip,
        window: g,
        row: 0,
        column: 0,
    };
    // lanes as `narrow` wants them
    let lanes = Lanes::of_tile::<T>(p, o);
    let mut finish = |at: (usize, usize), sums: [__m256i; T]| {
        let a = lanes[0].finish(rails, sums[0]);
        let q = match T {
            1 => narrow_half(a),
            _ => narrow_tile(a, lanes[T - 1].finish(rails, sums[T - 1])),
        };
        store(q, &mut y[at.1 * g.out_channels + o..][..valid]);
    };
    let run = g.kernel[1] * g.in_channels;
    let sizes = Sizes {
        rows: g.kernel[0],
        pitch: strip.pitch,
        pairs: run.div_ceil(2),
    };
    while let Some(at) = pixels.take::<4>() {
        let sums = sums::<4, T>(x, at.map(|at| at.0), w, sizes);
        for (at, sums) in at.into_iter().zip(sums) {
            finish(at, sums);
        }
    }
    while let Some(at) = pixels.take::<1>() {
        let [sums] = sums::<1, T>(x, at.map(|at| at.0), w, sizes);
        finish(at[0], sums);
    }
}

impl Lanes {
    /// Eight channels after the other.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn of_tile<const T: usize>(p: &ConvI8, o: usize) -> [Lanes; T] {
        let mut lanes = [Lanes::new(&p.output, [o, o + 4]); T];
        for (t, lanes) in lanes.iter_mut().enumerate().skip(1) {
            let o = o + 8 * t;
            *lanes = Lanes::new(&p.output, [o, o + 4]);
        }
        lanes
    }
}

/// Sixteen numbers in order, to 8 bits.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn narrow_tile(a: __m256i, b: __m256i) -> __m128i {
    let low = _mm256_permute2x128_si256::<0x20>(a, b);
    let high = _mm256_permute2x128_si256::<0x31>(a, b);
    narrow(low, high)
}

/// Eight numbers in order, to 8 bits; then the same again.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn narrow_half(a: __m256i) -> __m128i {
    let high = _mm256_permute4x64_epi64::<0b1110>(a);
    let words = _mm256_castsi256_si128(_mm256_packs_epi32(a, high));
    _mm_packs_epi16(words, words)
}

#[derive(Clone, Copy)]
struct Sizes {
    /// Rows of a window.
    rows: usize,
    /// From one to the next.
    pitch: usize,
    /// Pairs of elements in a row.
    pairs: usize,
}

/// Accumulators of `P` windows, which begin at `at` in the strip, with `8 T` packed filters.
#[target_feature(enable = "avx2")]
#[inline]
fn sums<const P: usize, const T: usize>(
    x: &[i16],
    at: [usize; P],
    w: &[i16],
    sizes: Sizes,
) -> [[__m256i; T]; P] {
    let Sizes { rows, pitch, pairs } = sizes;
    // what the loops read, and no more
    let w = &w[..rows * pairs * 16 * T];
    let reach = (rows - 1) * pitch + 2 * pairs;
    let mut start = [x.as_ptr(); P];
    for (start, at) in start.iter_mut().zip(at) {
        *start = x[at..][..reach].as_ptr();
    }
    let mut sums = [[_mm256_setzero_si256(); T]; P];
    let mut w = w.as_ptr();
    for row in 0..rows {
        let from = start.map(|start| start.wrapping_add(row * pitch));
        for k in 0..pairs {
            let mut weights = [_mm256_setzero_si256(); T];
            for weights in &mut weights {
                // SAFETY: the loops read `rows * pairs * T` vectors of 16 elements from the start of `w`, which has them.
                unsafe {
                    *weights = _mm256_loadu_si256(w.cast());
                    w = w.add(16);
                }
            }
            for (sums, from) in sums.iter_mut().zip(from) {
                // SAFETY: elements `row pitch + 2k` and the next of a slice of `reach`; the largest is `reach - 1`.
                let pair = unsafe { from.add(2 * k).cast::<i32>().read_unaligned() };
                let pair = _mm256_set1_epi32(pair);
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pair, weights));
                }
            }
        }
    }
    sums
}
