//! Convolution: four pixels meet sixteen filters, two elements at a time.

use super::super::kept::Loops;
use super::super::strip::{Cut, Layout, Pixels, STRIP, Scratch, Strip, flattened, kept};
use super::super::{ConvI8, int8_avx512, simd};
use super::live::Live;
use super::{Finish, Lanes, store};
use core::arch::x86_64::*;
use core::mem::MaybeUninit;

/// Elements of packed weights at one time: 128 KiB.
const PACKED: usize = 64 * 1024;

/// Filters in a tile.
const TILE: usize = 16;

/// The integer convolution; false where it was left undone.
#[target_feature(enable = "avx2")]
pub(in super::super) fn conv(p: &ConvI8, y: &mut [i8]) -> bool {
    if let Some(live) = Live::of(p) {
        return live.conv(p, y);
    }
    conv_of(p, Layout::of(p.window), y)
}

/// The same, with weights in any order.
#[target_feature(enable = "avx2")]
pub(super) fn conv_of(p: &ConvI8, layout: Layout, y: &mut [i8]) -> bool {
    // SAFETY: the CPU has what they need.
    if simd::found().wide_products && unsafe { int8_avx512::conv(p, layout, y) } {
        return true;
    }
    narrow(p, layout, y)
}

/// The same with AVX2 alone. No part of its caller, which would keep room for it on the stack.
#[target_feature(enable = "avx2")]
#[inline(never)]
fn narrow(p: &ConvI8, layout: Layout, y: &mut [i8]) -> bool {
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
    if g.dilation != [1, 1] || run == 0 || tile > PACKED || !sized {
        return false;
    }
    let Some(finish) = Finish::new(&p.output, g.kernel[0] * run) else {
        return false;
    };
    // an odd last element meets a zero, but something must be there: one element behind the strip
    let Some(cut) = Cut::new(g, STRIP - 1) else {
        return false;
    };
    let (mut weights, mut widened) = (Scratch::<PACKED>::new(), Scratch::<STRIP>::new());
    let all = outputs.div_ceil(TILE) * tile;
    let kept = kept(p, (Loops::Integer, layout), all, |weights| {
        for (i, w) in weights.chunks_exact_mut(tile).enumerate() {
            pack(p, layout, i * TILE, w);
        }
    });
    let group = match kept {
        Some(_) => outputs.next_multiple_of(TILE),
        None => PACKED / tile * TILE,
    };
    for first in (0..outputs).step_by(group) {
        let tiles = (outputs - first).min(group).div_ceil(TILE);
        for (n, strip) in cut.strips(g).enumerate() {
            let rows = strip.input_rows(g);
            let x = widened.uncleared(rows * strip.pitch + 1);
            x[rows * strip.pitch].write(0);
            for (r, row) in x.chunks_exact_mut(strip.pitch).take(rows).enumerate() {
                strip.row(p, finish.doubling(), r, row);
            }
            // SAFETY: all rows have been written, and the element behind them.
            let x = unsafe { x.assume_init_ref() };
            for i in 0..tiles {
                let o = first + i * TILE;
                let valid = (outputs - o).min(TILE);
                let w = match kept {
                    Some(kept) => &kept[i * tile..],
                    None => {
                        let w = &mut weights.uncleared(PACKED)[i * tile..][..tile];
                        if n == 0 {
                            // used at once, while it is near
                            pack(p, layout, o, w);
                        }
                        &*w
                    }
                };
                let w = &w[..tile / 2 * halves(valid)];
                // SAFETY: `pack` has written so many, for this strip or an earlier one.
                let w = unsafe { w.assume_init_ref() };
                match halves(valid) {
                    2 => part(p, &strip, x, w, &Target::<2>::new(p, &finish, o, valid), y),
                    _ => part(p, &strip, x, w, &Target::<1>::new(p, &finish, o, valid), y),
                }
            }
        }
    }
    true
}

/// Vectors of eight filters for so many, sixteen at most.
fn halves(filters: usize) -> usize {
    if filters > TILE / 2 { 2 } else { 1 }
}

/// Sixteen filters from `first` on (the last one again where there are fewer), their elements in pairs: `[rows, pairs, 16, 2]`. Up to
/// eight filters: `[rows, pairs, 8, 2]`. An odd last element is paired with a zero.
#[target_feature(enable = "avx2")]
fn pack(p: &ConvI8, layout: Layout, first: usize, packed: &mut [MaybeUninit<i16>]) {
    let g = p.window;
    let run = g.kernel[1] * g.in_channels;
    let halves = halves(g.out_channels - first);
    let step = halves * 16;
    let rows = packed.chunks_exact_mut(run.div_ceil(2) * step);
    for (r, packed) in rows.take(g.kernel[0]).enumerate() {
        for half in 0..halves {
            let mut filters = [0; 8];
            for (i, filter) in filters.iter_mut().enumerate() {
                let o = (first + half * 8 + i).min(g.out_channels - 1);
                *filter = o * layout.filter + r * run * layout.element;
            }
            let packed = &mut packed[half * 16..];
            let mut rows = [&p.w[..0]; 8];
            for (row, at) in rows.iter_mut().zip(filters) {
                *row = &p.w[at..][..run];
            }
            let done = match layout.element {
                1 => pack_in_order(rows, step, packed),
                _ => 0,
            };
            for k in done..run {
                let to = &mut packed[k / 2 * step..][..16];
                for (i, filter) in filters.into_iter().enumerate() {
                    to[2 * i + k % 2].write(i16::from(p.w[filter + k * layout.element]));
                    if k + 1 == run && k % 2 == 0 {
                        to[2 * i + 1].write(0);
                    }
                }
            }
        }
    }
}

/// Packs sixteen elements at a time of eight filters whose elements lie in order. Returns how many of each: all, or with an odd number
/// of them as long as there are sixteen more. The next eight pairs are `step` further on.
#[target_feature(enable = "avx2")]
#[inline]
fn pack_in_order(filters: [&[i8]; 8], step: usize, packed: &mut [MaybeUninit<i16>]) -> usize {
    let run = filters[0].len();
    let all = filters.iter().all(|filter| filter.len() == run);
    let Some(last) = run.checked_sub(16).filter(|_| all) else {
        return 0;
    };
    let end = if run.is_multiple_of(2) {
        run
    } else {
        run / 16 * 16
    };
    let packed = &mut packed[..(end / 2 - 1) * step + 16];
    for k in (0..end).step_by(16) {
        // at the end perhaps some once more
        let k = k.min(last);
        let mut v = [_mm_setzero_si128(); 8];
        for i in 0..8 {
            // SAFETY: 16 elements from `k` on, which is `run - 16` at most, of the `run` of each filter.
            v[i] = unsafe { _mm_loadu_si128(filters[i].as_ptr().add(k).cast()) };
        }
        for (i, pairs) in transposed(v).into_iter().enumerate() {
            // SAFETY: 16 elements from pair `k / 2 + i` on; the last one of all is `end / 2 - 1`, with which `packed` ends.
            unsafe {
                let to = packed.as_mut_ptr().add((k / 2 + i) * step);
                _mm256_storeu_si256(to.cast(), _mm256_cvtepi8_epi16(pairs));
            }
        }
    }
    end
}

/// Eight rows of eight 16-bit elements, columns for rows.
#[target_feature(enable = "avx2")]
#[inline]
fn transposed(v: [__m128i; 8]) -> [__m128i; 8] {
    let mut t = v;
    for i in 0..4 {
        t[2 * i] = _mm_unpacklo_epi16(v[2 * i], v[2 * i + 1]);
        t[2 * i + 1] = _mm_unpackhi_epi16(v[2 * i], v[2 * i + 1]);
    }
    // columns 2 j and 2 j + 1 of rows 0 to 3, then of rows 4 to 7
    let mut u = t;
    for i in [0, 4] {
        for j in 0..2 {
            u[i + 2 * j] = _mm_unpacklo_epi32(t[i + j], t[i + j + 2]);
            u[i + 2 * j + 1] = _mm_unpackhi_epi32(t[i + j], t[i + j + 2]);
        }
    }
    let mut columns = u;
    for j in 0..4 {
        columns[2 * j] = _mm_unpacklo_epi64(u[j], u[j + 4]);
        columns[2 * j + 1] = _mm_unpackhi_epi64(u[j], u[j + 4]);
    }
    columns
}

/// All pixels of a strip with one tile of filters.
#[target_feature(enable = "avx2")]
fn part<const T: usize>(
    p: &ConvI8,
    strip: &Strip,
    x: &[i16],
    w: &[i16],
    to: &Target<T>,
    y: &mut [i8],
) {
    let g = p.window;
    let sizes = Sizes {
        rows: g.kernel[0],
        pitch: strip.pitch,
        pairs: (g.kernel[1] * g.in_channels).div_ceil(2),
    };
    let mut pixels = Pixels::new(strip, g, strip.pitch, g.in_channels);
    while let Some(at) = pixels.take::<4>() {
        let sums = sums::<4, T>(x, at, w, sizes, &to.lanes);
        to.write(at, sums, y);
    }
    if let Some(at) = pixels.take::<2>() {
        let sums = sums::<2, T>(x, at, w, sizes, &to.lanes);
        to.write(at, sums, y);
    }
    if let Some(at) = pixels.take::<1>() {
        let sums = sums::<1, T>(x, at, w, sizes, &to.lanes);
        to.write(at, sums, y);
    }
}

/// Where the outputs of `8 T` channels go.
pub(super) struct Target<'a, const T: usize> {
    pub finish: &'a Finish,
    pub lanes: [Lanes; T],
    first: usize,
    valid: usize,
    /// The layer is plain, and all channels of the lanes exist.
    is_whole: bool,
    /// Outputs of a pixel.
    outputs: usize,
}

impl<'a, const T: usize> Target<'a, T> {
    /// Channels from `first` on, of which `valid` exist.
    #[target_feature(enable = "avx2")]
    pub(super) fn new(p: &ConvI8, finish: &'a Finish, first: usize, valid: usize) -> Self {
        let mut lanes = [finish.lanes(&p.output, first); T];
        for (t, lanes) in lanes.iter_mut().enumerate().skip(1) {
            *lanes = finish.lanes(&p.output, first + 8 * t);
        }
        Target {
            finish,
            lanes,
            first,
            valid,
            is_whole: finish.kind.is_plain && valid == 8 * T,
            outputs: p.window.out_channels,
        }
    }

    /// Writes the outputs of pixels (start in the strip, number in the output) with these sums.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(super) fn write<const P: usize>(
        &self,
        at: [(usize, usize); P],
        sums: [[__m256i; T]; P],
        y: &mut [i8],
    ) {
        if !self.is_whole {
            return self.write_some(at, sums, y);
        }
        // two vectors at a time: of a pixel, or of two
        for i in (0..P).step_by(3 - T) {
            let other = if T == 1 { (i + 1).min(P - 1) } else { i };
            let lanes = [&self.lanes[0], &self.lanes[T - 1]];
            let q = self
                .finish
                .narrow_plain(lanes, [sums[i][0], sums[other][T - 1]]);
            let to = &mut y[self.place(at[i])..][..8 * T];
            // SAFETY: `8 T` elements.
            unsafe {
                match T {
                    2 => _mm_storeu_si128(to.as_mut_ptr().cast(), q),
                    _ => _mm_storel_epi64(to.as_mut_ptr().cast(), q),
                }
            }
            if T == 1 && other > i {
                let to = &mut y[self.place(at[other])..][..8];
                // SAFETY: 8 elements.
                unsafe { _mm_storel_epi64(to.as_mut_ptr().cast(), _mm_unpackhi_epi64(q, q)) }
            }
        }
    }

    /// The same, of a layer that is not plain or of some of the lanes' channels.
    #[target_feature(enable = "avx2")]
    #[inline(never)]
    fn write_some<const P: usize>(
        &self,
        at: [(usize, usize); P],
        sums: [[__m256i; T]; P],
        y: &mut [i8],
    ) {
        let zero = _mm256_setzero_si256();
        for i in 0..P {
            let second = if T == 2 { sums[i][T - 1] } else { zero };
            let lanes = [&self.lanes[0], &self.lanes[T - 1]];
            let q = self.finish.narrow(lanes, [sums[i][0], second]);
            store(q, &mut y[self.place(at[i])..][..self.valid]);
        }
    }

    /// Where the outputs of a pixel are.
    #[inline(always)]
    fn place(&self, (_, number): (usize, usize)) -> usize {
        number * self.outputs + self.first
    }
}

#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// Rows of a window.
    pub rows: usize,
    /// From one to the next.
    pub pitch: usize,
    /// Pairs of elements in a row.
    pub pairs: usize,
}

/// Accumulators of `P` windows, which begin at `at.0` in the strip, with `8 T` packed filters.
#[target_feature(enable = "avx2")]
#[inline]
fn sums<const P: usize, const T: usize>(
    x: &[i16],
    at: [(usize, usize); P],
    w: &[i16],
    sizes: Sizes,
    lanes: &[Lanes; T],
) -> [[__m256i; T]; P] {
    let Sizes { rows, pitch, pairs } = sizes;
    // what the loops read, and no more
    let w = &w[..rows * pairs * 16 * T];
    let reach = (rows - 1) * pitch + 2 * pairs;
    let mut start = [x.as_ptr(); P];
    for i in 0..P {
        start[i] = x[at[i].0..][..reach].as_ptr();
    }
    let mut sums = [[_mm256_setzero_si256(); T]; P];
    for sums in &mut sums {
        for t in 0..T {
            sums[t] = lanes[t].bias;
        }
    }
    let mut w = w.as_ptr();
    for row in 0..rows {
        for k in 0..pairs {
            let at = row * pitch + 2 * k;
            let mut weights = [_mm256_setzero_si256(); T];
            for (t, weights) in weights.iter_mut().enumerate() {
                // SAFETY: the loops read `rows * pairs * T` vectors of 16 elements from the start of `w`, which has them.
                *weights = unsafe { _mm256_loadu_si256(w.add(16 * t).cast()) };
            }
            // SAFETY: as above; at the end of the loops this is the end of `w`.
            w = unsafe { w.add(16 * T) };
            for i in 0..P {
                // SAFETY: elements `row pitch + 2k` and the next of a slice of `reach`; the largest is `reach - 1`.
                let pair = unsafe { start[i].add(at).cast::<i32>().read_unaligned() };
                let pair = _mm256_set1_epi32(pair);
                for t in 0..T {
                    let products = _mm256_madd_epi16(pair, weights[t]);
                    sums[i][t] = _mm256_add_epi32(sums[i][t], products);
                }
            }
        }
    }
    sums
}
