//! Convolution: four pixels meet sixteen filters, one element of a window at a time.

use super::super::ConvI8;
use super::super::kept::Loops;
use super::super::strip::{Cut, Layout, Pixels, STRIP, Scratch, Strip, flattened, kept};
use super::{Eight, Finish, Lanes, multiply_add, store, widen};
use core::arch::aarch64::*;
use core::mem::MaybeUninit;

/// Elements of packed weights at one time: 128 KiB.
const PACKED: usize = 64 * 1024;

/// Filters in a tile.
const TILE: usize = 16;

/// Elements of a window that are loaded together.
const STEP: usize = 4;

/// The integer convolution; false where it was left undone.
#[target_feature(enable = "neon")]
pub(in super::super) fn conv(p: &ConvI8, y: &mut [i8]) -> bool {
    conv_of(p, Layout::of(p.window), y)
}

/// The same, with weights in any order.
#[target_feature(enable = "neon")]
pub(super) fn conv_of(p: &ConvI8, layout: Layout, y: &mut [i8]) -> bool {
    let flat = flattened(p.window);
    let p = &ConvI8 {
        window: &flat,
        ..*p
    };
    let g = p.window;
    let (filter, outputs) = (g.filter_len(), g.out_channels);
    let tile = filter * TILE;
    let sized = outputs == p.output.bias.len() && p.w.len() == filter * outputs;
    if g.dilation != [1, 1] || filter == 0 || tile > PACKED || !sized {
        return false;
    }
    let Some(finish) = Finish::of(&p.output) else {
        return false;
    };
    let Some(cut) = Cut::new(g, STRIP) else {
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
            let x = widened.uncleared(strip.input_rows(g) * strip.pitch);
            for (r, row) in x.chunks_exact_mut(strip.pitch).enumerate() {
                strip.row(p, 0, r, row);
            }
            // SAFETY: all rows have been written.
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
                let w = &w[..filter * 8 * eights(valid)];
                // SAFETY: `pack` has written so many, for this strip or an earlier one.
                let w = unsafe { w.assume_init_ref() };
                match eights(valid) {
                    2 => part(p, &strip, x, w, &Target::<2>::new(p, &finish, o, valid), y),
                    _ => part(p, &strip, x, w, &Target::<1>::new(p, &finish, o, valid), y),
                }
            }
        }
    }
    true
}

/// Groups of eight filters for so many, sixteen at most.
fn eights(filters: usize) -> usize {
    if filters > TILE / 2 { 2 } else { 1 }
}

/// Sixteen filters from `first` on (the last one again where there are fewer): `[elements, 16]`. Up to eight filters: `[elements, 8]`.
#[target_feature(enable = "neon")]
fn pack(p: &ConvI8, layout: Layout, first: usize, packed: &mut [MaybeUninit<i16>]) {
    let g = p.window;
    let (filter, eights) = (g.filter_len(), eights(g.out_channels - first));
    let step = 8 * eights;
    for t in 0..eights {
        let packed = &mut packed[8 * t..];
        let filters: [usize; 8] =
            core::array::from_fn(|i| (first + 8 * t + i).min(g.out_channels - 1) * layout.filter);
        let done = match layout.element {
            1 => pack_in_order(filters.map(|at| &p.w[at..][..filter]), step, packed),
            _ => 0,
        };
        for k in done..filter {
            for (to, at) in packed[k * step..].iter_mut().zip(filters) {
                to.write(i16::from(p.w[at + k * layout.element]));
            }
        }
    }
}

/// Packs eight elements at a time of eight filters whose elements lie in order. Returns how many of each. The next eight are `step`
/// further on.
#[target_feature(enable = "neon")]
#[inline]
fn pack_in_order(filters: [&[i8]; 8], step: usize, packed: &mut [MaybeUninit<i16>]) -> usize {
    let mut blocks = filters.map(|filter| filter.as_chunks::<8>().0.iter());
    let mut done = 0;
    loop {
        let mut v = [vdup_n_s8(0); 8];
        for (v, block) in v.iter_mut().zip(&mut blocks) {
            let Some(block) = block.next() else {
                return done;
            };
            // SAFETY: `block` is 8 bytes long.
            *v = unsafe { vld1_s8(block.as_ptr()) };
        }
        for (i, elements) in transposed(v).into_iter().enumerate() {
            widen(elements, &mut packed[(done + i) * step..]);
        }
        done += 8;
    }
}

/// Eight rows of eight bytes, columns for rows.
#[target_feature(enable = "neon")]
#[inline]
fn transposed(v: [int8x8_t; 8]) -> [int8x8_t; 8] {
    let mut v = v;
    // rows `i` and `i + 4`: four bytes change places, then two, then one
    for i in 0..4 {
        let (a, b) = (vreinterpret_s32_s8(v[i]), vreinterpret_s32_s8(v[i + 4]));
        v[i] = vreinterpret_s8_s32(vtrn1_s32(a, b));
        v[i + 4] = vreinterpret_s8_s32(vtrn2_s32(a, b));
    }
    for i in [0, 1, 4, 5] {
        let (a, b) = (vreinterpret_s16_s8(v[i]), vreinterpret_s16_s8(v[i + 2]));
        v[i] = vreinterpret_s8_s16(vtrn1_s16(a, b));
        v[i + 2] = vreinterpret_s8_s16(vtrn2_s16(a, b));
    }
    for i in [0, 2, 4, 6] {
        let (a, b) = (v[i], v[i + 1]);
        v[i] = vtrn1_s8(a, b);
        v[i + 1] = vtrn2_s8(a, b);
    }
    v
}

/// All pixels of a strip with one tile of filters.
#[target_feature(enable = "neon")]
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
        run: g.kernel[1] * g.in_channels,
    };
    let mut pixels = Pixels::new(strip, g, strip.pitch, g.in_channels);
    while let Some(at) = pixels.take::<4>() {
        let sums = sums::<4, T>(x, at, w, sizes, to.biases());
        to.write(at, sums, y);
    }
    while let Some(at) = pixels.take::<1>() {
        let sums = sums::<1, T>(x, at, w, sizes, to.biases());
        to.write(at, sums, y);
    }
}

/// Where the outputs of `8 T` channels go.
pub(super) struct Target<'a, const T: usize> {
    finish: &'a Finish,
    lanes: [Lanes; T],
    first: usize,
    valid: usize,
    /// Outputs of a pixel.
    outputs: usize,
}

impl<'a, const T: usize> Target<'a, T> {
    /// Channels from `first` on, of which `valid` exist.
    #[target_feature(enable = "neon")]
    pub(super) fn new(p: &ConvI8, finish: &'a Finish, first: usize, valid: usize) -> Self {
        let mut lanes = [Lanes::new(&p.output, first); T];
        for (t, lanes) in lanes.iter_mut().enumerate().skip(1) {
            *lanes = Lanes::new(&p.output, first + 8 * t);
        }
        Target {
            finish,
            lanes,
            first,
            valid,
            outputs: p.window.out_channels,
        }
    }

    /// Where sums begin.
    #[inline(always)]
    pub(super) fn biases(&self) -> [Eight; T] {
        self.lanes.map(|lanes| lanes.bias)
    }

    /// Writes the outputs of pixels (start in the strip, number in the output) with these sums.
    #[target_feature(enable = "neon")]
    #[inline]
    pub(super) fn write<const P: usize>(
        &self,
        at: [(usize, usize); P],
        sums: [[Eight; T]; P],
        y: &mut [i8],
    ) {
        for (t, lanes) in self.lanes.iter().enumerate() {
            let valid = (self.valid - 8 * t).min(8);
            for i in 0..P {
                let place = at[i].1 * self.outputs + self.first + 8 * t;
                let q = self.finish.requantize(lanes, sums[i][t]);
                store(q, &mut y[place..][..valid]);
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Sizes {
    /// Rows of a window.
    rows: usize,
    /// From one to the next.
    pitch: usize,
    /// Elements of a row.
    run: usize,
}

/// Accumulators of `P` windows, which begin at `at.0` in the strip, with `8 T` packed filters.
#[target_feature(enable = "neon")]
#[inline]
fn sums<const P: usize, const T: usize>(
    x: &[i16],
    at: [(usize, usize); P],
    w: &[i16],
    sizes: Sizes,
    biases: [Eight; T],
) -> [[Eight; T]; P] {
    let Sizes { rows, pitch, run } = sizes;
    // what the loops read, and no more
    let mut w = w[..rows * run * 8 * T].as_ptr();
    let reach = (rows - 1) * pitch + run;
    let start = at.map(|(start, _)| x[start..][..reach].as_ptr());
    let mut sums = [biases; P];
    for row in 0..rows {
        let whole = run / STEP * STEP;
        for k in (0..whole).step_by(STEP) {
            // SAFETY: elements `row pitch + k` and 3 more of a slice of `reach`; the largest is `reach - 1`.
            let x = start.map(|start| unsafe { vld1_s16(start.add(row * pitch + k)) });
            // SAFETY: the loops read `8 T` weights for each of `rows run` elements from the start of `w`, which has them; the same holds below.
            unsafe {
                element::<0, P, T>(&mut sums, x, load(w));
                element::<1, P, T>(&mut sums, x, load(w.add(8 * T)));
                element::<2, P, T>(&mut sums, x, load(w.add(16 * T)));
                element::<3, P, T>(&mut sums, x, load(w.add(24 * T)));
                w = w.add(32 * T);
            }
        }
        for k in whole..run {
            // SAFETY: as above.
            let weights = unsafe { load::<T>(w) };
            // SAFETY: at the end of the loops this is the end of `w`.
            w = unsafe { w.add(8 * T) };
            for i in 0..P {
                // SAFETY: element `row pitch + k` of a slice of `reach`.
                let x = unsafe { vld1q_dup_s16(start[i].add(row * pitch + k)) };
                for t in 0..T {
                    sums[i][t] = multiply_add(sums[i][t], weights[t], x);
                }
            }
        }
    }
    sums
}

/// The weights of `8 T` filters.
///
/// # Safety
///
/// So many numbers are at `w`.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn load<const T: usize>(w: *const i16) -> [int16x8_t; T] {
    let mut weights = [vdupq_n_s16(0); T];
    for (t, weights) in weights.iter_mut().enumerate() {
        // SAFETY: vector `t` of `T`.
        *weights = unsafe { vld1q_s16(w.add(8 * t)) };
    }
    weights
}

/// Adds the products of element `L` of each window.
#[target_feature(enable = "neon")]
#[inline]
fn element<const L: i32, const P: usize, const T: usize>(
    sums: &mut [[Eight; T]; P],
    x: [int16x4_t; P],
    w: [int16x8_t; T],
) {
    for i in 0..P {
        for t in 0..T {
            let [low, high] = sums[i][t];
            sums[i][t] = [
                vmlal_lane_s16::<L>(low, vget_low_s16(w[t]), x[i]),
                vmlal_high_lane_s16::<L>(high, w[t], x[i]),
            ];
        }
    }
}
