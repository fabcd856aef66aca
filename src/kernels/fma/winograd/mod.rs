//! 3x3 windows that move by one pixel: Winograd's minimal filtering F(2x2, 3x3) and F(4x4, 3x3) (Lavin and Gray, "Fast algorithms for
//! convolutional neural networks" (2015), section 4), 16 products for four places or 36 for sixteen, where the plain sum has 9 for each.
//!
//! A tile of places sees a square of pixels `d`, two more along each axis. `Y = A^T [(G g G^T) * (B^T d B)] A`: what is between the brackets is
//! a product of matrices for each element of the square, tiles by channels and channels by filters. The transforms are in `two` and `four`,
//! the products in `product`.
//!
//! A place whose nine pixels are all zero gets an exact zero, as from the plain sum: an attack that steps by a gradient's sign must not follow
//! rounding errors where there is no gradient. In F(2x2) a place depends on its own nine pixels alone. In F(4x4) the others cancel but for
//! rounding, so such places are looked for ([`Tiles::zeros`]); and a pixel that is not finite reaches all places of its tile. Pixels that only
//! meet weights of zero are not looked for: there the plain sum is zero, and F(4x4) off by rounding.
//!
//! In flat parts of an image windows are equal, and so are their places in F(2x2), where differences of equal pixels are zero. In F(4x4) they
//! differ by rounding, which would decide what a maximum over them takes: it is not for layers that must keep ties
//! ([`ConvF32::keeps_ties`](crate::kernels::ConvF32::keeps_ties)).

mod four;
mod product;
mod two;

use super::conv::{Ends, STRIP, Slide, Work};
#[cfg(target_arch = "x86_64")]
use super::lanes::F16;
use super::lanes::Lanes;
use super::packing::Weights;
use super::tile::{Scratch, TWICE, WIDE, rails};
use crate::kernels::f32x8::F8;
use crate::kernels::kept::Loops;
use crate::kernels::simd;
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::ran_wide;
use core::ops::Range;
use four::Four;
use product::{multiply, to_panel};
use two::Two;

/// Pixels along an axis of the largest tile.
const SIDE: usize = 6;
/// The pixels of a row outside the image.
static ZEROS: [f32; SIDE * CHANNELS] = [0.0; SIDE * CHANNELS];
/// The most channels of the source, and the most with the larger tiles.
const CHANNELS: usize = 128;
const CHANNELS_OF_FOUR: usize = 64;
/// Elements of packed weights on the stack: 146 KiB, sixteen filters in either form.
const ROOM: usize = SIDE * SIDE * (CHANNELS_OF_FOUR * WIDE + 16);
/// Panels of sixteen filters at once, where registers have 512 bits.
const PANELS: usize = if cfg!(target_arch = "x86_64") { 2 } else { 1 };
/// Tiles at once: their transforms fit a first-level cache where channels are few.
const TILES: usize = 12;

/// The transforms of one size of tiles, each of as many channels or filters at once as there are lanes.
pub(super) trait Transforms {
    /// Places of a tile along each axis.
    const PLACES: usize;
    /// What place `(i, j)` comes out divided by the `i + j`-th power of.
    const SCALE: f32;
    /// Whether places depend on their own nine pixels alone.
    const APART: bool;
    /// Pixels that it sees along each axis.
    const SIDE: usize = Self::PLACES + 2;
    /// Elements of a transformed tile.
    const POINTS: usize = Self::SIDE * Self::SIDE;
    /// The same of eight channels: `[point][lane]`.
    const BLOCK: usize = Self::POINTS * 8;

    /// `B^T d B`, element by element to `put`.
    ///
    /// # Safety
    /// The CPU has what vectors take.
    unsafe fn pixels<L: Lanes>(pixel: impl Fn(usize, usize) -> L, put: impl FnMut(usize, usize, L));

    /// `A^T m A`, place by place to `put`.
    ///
    /// # Safety
    /// The CPU has what vectors take.
    unsafe fn places<L: Lanes>(m: impl Fn(usize, usize) -> L, put: impl FnMut(usize, usize, L));

    /// `G g G^T`, element by element to `put`.
    ///
    /// # Safety
    /// The CPU has what vectors take.
    unsafe fn weights(g: [[F8; 3]; 3], put: impl FnMut(usize, usize, F8));

    /// Elements from point to point of packed weights of `8 V` filters: a cache line more than they are, since so many steps of a power of
    /// two share one place in the cache.
    fn pitch(channels: usize, v: usize) -> usize {
        channels * 8 * v + 16
    }

    /// Elements from tile to tile of transformed pixels, for the same reason.
    fn tile_pitch(channels: usize) -> usize {
        channels * Self::POINTS + 16
    }
}

/// Whether the loops below can do this slide, and pay: the sizes of a layer decide, not of a batch.
pub(super) fn takes(s: &Slide) -> bool {
    s.kernel == [3; 2]
        && [s.stride, s.dilation, s.step] == [[1; 2]; 3]
        && s.first == [0; 2]
        && fits([s.source_channels, s.channels], s.count)
}

/// What [`takes`] asks of the channels, those that a sum goes over and those that there are sums for, and of how many places there are.
fn fits(channels: [usize; 2], count: [usize; 2]) -> bool {
    let vectors = |n: usize| n > 0 && n.is_multiple_of(8);
    channels.into_iter().all(vectors) && channels[0] <= CHANNELS && count.iter().all(|&n| n > 1)
}

/// Whether tiles of 4x4 places can be taken, and take less time than those of 2x2: not where equal windows must give equal sums, nor where
/// too few of their places are in the image (sides of 5, 6, 9 and 10) or so few tiles read so many weights, 36 for each 16.
fn takes_four(keeps_ties: bool, channels: usize, count: [usize; 2]) -> bool {
    let tiles = |side: usize| count[0].div_ceil(side) * count[1].div_ceil(side);
    !keeps_ties && channels <= CHANNELS_OF_FOUR && tiles(4) >= 4 && tiles(2) >= 3 * tiles(4)
}

/// Places of a tile along each axis.
#[cfg(test)]
pub(super) fn places(s: &Slide, keeps_ties: bool) -> usize {
    match takes_four(keeps_ties, s.source_channels, s.count) {
        true => Four::PLACES,
        false => Two::PLACES,
    }
}

/// Elements that sixteen filters' weights of a 3x3 window that moves by one pixel take in order, in these loops or, where they cannot do it,
/// in others. The numbers are those of [`fits`].
pub(in crate::kernels) fn winograd_room(
    keeps_ties: bool,
    [from, to]: [usize; 2],
    count: [usize; 2],
) -> usize {
    match fits([from, to], count) {
        true if takes_four(keeps_ties, from, count) => Four::POINTS * Four::pitch(from, 2),
        true => Two::POINTS * Two::pitch(from, 2),
        false => 9 * from * WIDE,
    }
}

/// As [`Slide::run`], for slides that [`takes`] names.
///
/// # Safety
/// As [`Slide::run`].
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
pub(super) unsafe fn run(s: &Slide, work: &Work) {
    // SAFETY: the caller's promise.
    unsafe {
        match takes_four(work.ends.keeps_ties, s.source_channels, s.count) {
            true => run_tiles::<Four>(s, work),
            false => run_tiles::<Two>(s, work),
        }
    }
}

/// A tile: its sample, the row and column of its first place, and a bit for each place (`4 row + column`) that is known to be zero.
#[derive(Clone, Copy, Default)]
struct Tile {
    n: usize,
    y: usize,
    x: usize,
    zeros: u16,
}

/// The pixels that a tile sees.
struct Seen {
    /// Where rows begin; rows outside are zeros.
    rows: [*const f32; SIDE],
    columns: [bool; SIDE],
}

/// A slide, and how its tiles lie.
struct Tiles<'a> {
    slide: &'a Slide,
    columns: usize,
    /// Tiles of one sample.
    count: usize,
}

impl Tiles<'_> {
    /// Tile `t` of all samples'.
    fn at<F: Transforms>(&self, t: usize) -> Tile {
        let (n, t) = (t / self.count, t % self.count);
        Tile {
            n,
            y: F::PLACES * (t / self.columns),
            x: F::PLACES * (t % self.columns),
            zeros: 0,
        }
    }

    fn seen<F: Transforms>(&self, tile: &Tile, source: *const f32) -> Seen {
        let s = self.slide;
        let pitch = s.source[1] * s.source_channels;
        let image = source.wrapping_add(tile.n * s.source[0] * pitch);
        let [height, width] = s.source.map(|n| n as isize);
        let (y, x) = (
            tile.y as isize - s.padding[0],
            tile.x as isize - s.padding[1],
        );
        let mut seen = Seen {
            rows: [ZEROS.as_ptr(); SIDE],
            columns: [false; SIDE],
        };
        for (row, y) in seen.rows.iter_mut().take(F::SIDE).zip(y..) {
            if (0..height).contains(&y) {
                let at = y * pitch as isize + x * s.source_channels as isize;
                *row = image.wrapping_offset(at);
            }
        }
        for (column, x) in seen.columns.iter_mut().take(F::SIDE).zip(x..) {
            *column = (0..width).contains(&x);
        }
        seen
    }

    /// The places of a tile whose pixels are all zero.
    ///
    /// # Safety
    /// The pixels can be read.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    unsafe fn zeros<F: Transforms>(&self, seen: &Seen) -> u16 {
        let channels = self.slide.source_channels;
        let zero = |i: usize, j: usize| {
            let at = seen.rows[i].wrapping_add(j * channels);
            let mut bits = [0; 8];
            if seen.columns[j] {
                for c in (0..channels).step_by(8) {
                    // SAFETY: the caller's promise; columns outside are not read.
                    let eight = unsafe { *at.add(c).cast::<[u32; 8]>() };
                    // all but the sign
                    for (bits, x) in bits.iter_mut().zip(eight) {
                        *bits |= x << 1;
                    }
                }
            }
            bits == [0; 8]
        };
        // each place sees one of the four in the middle, and they are seldom zero
        let middle = F::SIDE / 2 - 1..F::SIDE / 2 + 1;
        if !middle.clone().any(|i| middle.clone().any(|j| zero(i, j))) {
            return 0;
        }
        // rows of windows along columns, then three of those
        let mut rows = [0; SIDE];
        for (i, row) in rows.iter_mut().enumerate().take(F::SIDE) {
            let pixels = (0..F::SIDE).fold(0u16, |all, j| all | u16::from(zero(i, j)) << j);
            *row = pixels & pixels >> 1 & pixels >> 2;
        }
        (0..F::PLACES).fold(0, |all, i| {
            all | (rows[i] & rows[i + 1] & rows[i + 2] & 15) << (4 * i)
        })
    }

    /// Transforms tiles: to `[tile][channel / 8][point][8]`.
    ///
    /// # Safety
    /// `source` has the slide's sizes, `to` room for as many times [`Transforms::tile_pitch`] elements; `is_wide` where the CPU has registers
    /// of 512 bits.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    unsafe fn transform<F: Transforms>(
        &self,
        is_wide: bool,
        source: *const f32,
        tiles: &mut [Tile],
        to: *mut f32,
    ) {
        let channels = self.slide.source_channels;
        // of those that go sixteen at a time
        let whole = if is_wide { channels / 16 * 16 } else { 0 };
        for (t, tile) in tiles.iter_mut().enumerate() {
            let seen = self.seen::<F>(tile, source);
            if !F::APART {
                // SAFETY: pixels of the image, or zeros.
                tile.zeros = unsafe { self.zeros::<F>(&seen) };
            }
            let to = to.wrapping_add(t * F::tile_pitch(channels));
            // SAFETY: the caller's promise.
            unsafe {
                #[cfg(target_arch = "x86_64")]
                if whole > 0 {
                    self.transform_wide::<F>(&seen, whole, to);
                }
                self.channels::<F, F8>(&seen, whole..channels, to);
            }
        }
    }

    /// As [`Tiles::channels`], of the first ones, sixteen at a time.
    ///
    /// # Safety
    /// As there; the CPU has registers of 512 bits.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512vl")]
    unsafe fn transform_wide<F: Transforms>(&self, seen: &Seen, channels: usize, to: *mut f32) {
        ran_wide();
        // SAFETY: the caller's promise.
        unsafe { self.channels::<F, F16>(seen, 0..channels, to) };
    }

    /// Transforms some channels of a tile.
    ///
    /// # Safety
    /// Pixels inside the image can be read, and so can zeros; `to` has room for the tile; the CPU has these registers.
    #[inline(always)]
    unsafe fn channels<F: Transforms, L: Lanes>(
        &self,
        seen: &Seen,
        some: Range<usize>,
        to: *mut f32,
    ) {
        let channels = self.slide.source_channels;
        let inside = seen.columns[..F::SIDE].iter().all(|&column| column);
        for c in some.step_by(L::COUNT) {
            let to = to.wrapping_add(c * F::POINTS);
            let at = |i: usize, j: usize| seen.rows[i].wrapping_add(j * channels + c);
            // SAFETY: these channels of pixels inside the image, or zeros, of which there are as many; `to` has room. Columns outside are
            // not read.
            unsafe {
                let put = |i: usize, j: usize, v: L| {
                    v.store_eights(to.add((F::SIDE * i + j) * 8), F::BLOCK);
                };
                match inside {
                    true => F::pixels(|i, j| L::load(at(i, j)), put),
                    false => F::pixels(|i, j| L::load_if(at(i, j), seen.columns[j]), put),
                }
            }
        }
    }

    /// Writes tiles' places, channels `o..o + 8 V`, from products `[tile][channel / 8][point][8]`.
    ///
    /// # Safety
    /// `destination` has the slide's sizes, `from` the products; `is_wide` where the CPU has registers of 512 bits.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
    unsafe fn place<F: Transforms, const V: usize>(
        &self,
        is_wide: bool,
        from: *const f32,
        ends: &Ends,
        o: usize,
        tiles: &[Tile],
        destination: *mut f32,
    ) {
        #[cfg(target_arch = "x86_64")]
        if V == 2 && is_wide {
            // SAFETY: the caller's promise.
            return unsafe { self.place_wide::<F>(from, ends, o, tiles, destination) };
        }
        for v in 0..V {
            let from = from.wrapping_add(v * F::BLOCK);
            // SAFETY: the caller's promise.
            unsafe {
                self.filters::<F, F8>(from, V * F::BLOCK, ends, o + 8 * v, tiles, destination)
            };
        }
    }

    /// As [`Tiles::place`], of sixteen filters at once.
    ///
    /// # Safety
    /// As there; the CPU has registers of 512 bits.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512vl")]
    unsafe fn place_wide<F: Transforms>(
        &self,
        from: *const f32,
        ends: &Ends,
        o: usize,
        tiles: &[Tile],
        destination: *mut f32,
    ) {
        ran_wide();
        // SAFETY: the caller's promise.
        unsafe { self.filters::<F, F16>(from, 2 * F::BLOCK, ends, o, tiles, destination) };
    }

    /// Writes tiles' places of the filters from `o` on, from products that are `step` elements from tile to tile.
    ///
    /// # Safety
    /// As [`Tiles::place`]; the CPU has these registers.
    #[inline(always)]
    unsafe fn filters<F: Transforms, L: Lanes>(
        &self,
        from: *const f32,
        step: usize,
        ends: &Ends,
        o: usize,
        tiles: &[Tile],
        destination: *mut f32,
    ) {
        let s = self.slide;
        let pitch = s.destination[1] * s.channels;
        let mut scales = [1.0; 2 * (SIDE - 2) - 1];
        for i in 1..scales.len() {
            scales[i] = scales[i - 1] * F::SCALE;
        }
        let rails = rails(ends.activation);
        let bias = ends.bias.and_then(|bias| bias.get(o..o + L::COUNT));
        // SAFETY: as many elements as there are lanes.
        let bias = bias.map(|bias| unsafe { L::load(bias.as_ptr()) });
        for (t, tile) in tiles.iter().enumerate() {
            let from = from.wrapping_add(t * step);
            let row = tile.n * s.destination[0] + tile.y;
            let to = destination.wrapping_add(row * pitch + tile.x * s.channels + o);
            let (rows, columns) = (s.count[0] - tile.y, s.count[1] - tile.x);
            // SAFETY: inside the products.
            let product = |i: usize, j: usize| unsafe {
                L::load_eights(from.add((i * F::SIDE + j) * 8), F::BLOCK)
            };
            let at = |i: usize, j: usize| to.wrapping_add(i * pitch + j * s.channels);
            let scaled = |i: usize, j: usize, sum: L, start: L| {
                L::mul_add(scales[i + j], sum, start).clamp(rails)
            };
            let is_whole = rows >= F::PLACES && columns >= F::PLACES && tile.zeros == 0;
            // SAFETY: these channels of a pixel of the destination.
            unsafe {
                match bias {
                    Some(bias) if is_whole => F::places(product, |i, j, sum| {
                        scaled(i, j, sum, bias).store(at(i, j));
                    }),
                    None if is_whole => F::places(product, |i, j, sum| {
                        scaled(i, j, sum, L::load(at(i, j))).store(at(i, j));
                    }),
                    _ => {
                        let mut sums = [[L::splat(0.0); SIDE - 2]; SIDE - 2];
                        F::places(product, |i, j, sum| sums[i][j] = sum);
                        for (i, sums) in sums.iter().enumerate().take(F::PLACES.min(rows)) {
                            for (j, &sum) in sums.iter().enumerate().take(F::PLACES.min(columns)) {
                                let start = match bias {
                                    Some(bias) => bias,
                                    None => L::load(at(i, j)),
                                };
                                let y = match tile.zeros >> (4 * i + j) & 1 {
                                    0 => L::mul_add(scales[i + j], sum, start),
                                    _ => start,
                                };
                                y.clamp(rails).store(at(i, j));
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Transforms the weights of destination channels `o..o + 8 V`: to `[point][channel][8 V]`.
///
/// # Safety
/// The weights have the slide's sizes, `to` has room for as many points times [`Transforms::pitch`] elements.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
unsafe fn pack<F: Transforms, const V: usize>(
    s: &Slide,
    weights: &Weights,
    o: usize,
    to: *mut f32,
) {
    let pitch = F::pitch(s.source_channels, V);
    for c in (0..s.source_channels).step_by(8) {
        let mut cells = [[[F8::zero(); 8]; V]; 9];
        for (cell, w) in cells.iter_mut().enumerate() {
            for (v, w) in w.iter_mut().enumerate() {
                // SAFETY: the caller's promise; `takes` wants whole vectors of both channels.
                *w = unsafe { s.eight(weights, [cell / 3, cell % 3], c, o + 8 * v) };
            }
        }
        for k in 0..8 {
            for v in 0..V {
                let mut g = [[F8::zero(); 3]; 3];
                for (cell, w) in cells.iter().enumerate() {
                    g[cell / 3][cell % 3] = w[v][k];
                }
                let to = to.wrapping_add(((c + k) * V + v) * 8);
                // SAFETY: inside `to`.
                unsafe { F::weights(g, |i, j, g| g.store(to.add((i * F::SIDE + j) * pitch))) };
            }
        }
    }
}

/// As [`run`], with tiles of one size.
///
/// # Safety
/// As [`Slide::run`].
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
unsafe fn run_tiles<F: Transforms>(s: &Slide, work: &Work) {
    let Work {
        source,
        weights,
        ends,
        destination,
    } = *work;
    let (mut packed, mut strip) = (Scratch::<ROOM>::new(), Scratch::<STRIP>::new());
    let mut products = Scratch::<{ SIDE * SIDE * TILES * WIDE * PANELS }>::new();
    let (packed, strip, products) = (packed.start(), strip.start(), products.start());
    let channels = s.source_channels;
    let columns = s.count[1].div_ceil(F::PLACES);
    let tiles = Tiles {
        slide: s,
        columns,
        count: columns * s.count[0].div_ceil(F::PLACES),
    };
    let all = s.batch * tiles.count;
    // in whole blocks of six where not all fit, or a little less
    let at_once = match STRIP / F::tile_pitch(channels) {
        TILES.. => TILES,
        fit => all.div_ceil(all.div_ceil(fit.min(6))),
    };
    let panel = F::POINTS * F::pitch(channels, 2);
    let panels = s.channels.div_ceil(WIDE);
    let pack = |panels: Range<usize>, to: *mut f32| {
        for (i, p) in panels.enumerate() {
            let to = to.wrapping_add(i * panel);
            // SAFETY: the caller has room for so many panels.
            unsafe {
                match s.channels - p * WIDE {
                    8 => pack::<F, 1>(s, weights, p * WIDE, to),
                    _ => pack::<F, 2>(s, weights, p * WIDE, to),
                }
            }
        }
    };
    let loops = (Loops::Winograd, F::PLACES);
    // SAFETY: all of the panels that is read is written.
    let kept = unsafe { s.kept(weights, loops, panels * panel, |to| pack(0..panels, to)) };
    let group = match kept {
        Some(_) => panels,
        None => ROOM / panel,
    };
    let found = simd::found();
    for first in (0..panels).step_by(group) {
        let end = panels.min(first + group);
        let packed = kept.unwrap_or_else(|| {
            // `group` panels fit
            pack(first..end, packed);
            packed
        });
        for t in (0..all).step_by(at_once) {
            let mut some = [Tile::default(); TILES];
            let some = &mut some[..at_once.min(all - t)];
            for (tile, t) in some.iter_mut().zip(t..) {
                *tile = tiles.at::<F>(t);
            }
            // SAFETY: so many tiles fit in the strip and their products in theirs, the panels are packed; all else is the caller's
            // promise.
            unsafe {
                tiles.transform::<F>(found.wide, source, some, strip);
                let mut p = first;
                while p < end {
                    let b = (packed.add((p - first) * panel), panel);
                    let o = p * WIDE;
                    let count = some.len();
                    match s.channels - o {
                        8 => {
                            multiply::<F, 1>(found.wide, channels, count, strip, b, products);
                            tiles.place::<F, 1>(false, products, ends, o, some, destination);
                        }
                        TWICE.. if found.wide && p + 1 < end => {
                            multiply::<F, 4>(true, channels, count, strip, b, products);
                            for (products, o) in
                                [(products, o), (products.add(to_panel::<F>()), o + WIDE)]
                            {
                                tiles.place::<F, 2>(
                                    found.wide,
                                    products,
                                    ends,
                                    o,
                                    some,
                                    destination,
                                );
                            }
                            p += 1;
                        }
                        _ => {
                            multiply::<F, 2>(found.wide, channels, count, strip, b, products);
                            tiles.place::<F, 2>(found.wide, products, ends, o, some, destination);
                        }
                    }
                    p += 1;
                }
            }
        }
    }
}
