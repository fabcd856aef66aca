//! 3x3 windows that move by one pixel: Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray, "Fast algorithms for convolutional
//! neural networks" (2015), section 4.1), 16 products for four places where the plain sum has 36.
//!
//! A tile of four places sees 4x4 pixels `d`. `Y = A^T [(G g G^T) * (B^T d B)] A`: what is between the brackets is sixteen products of matrices,
//! tiles by channels and channels by filters. Each place still depends on its own nine pixels alone, so where those are zero it gets an
//! exact zero, as from the plain sum.

use super::conv::{Ends, PACKED, STRIP, Slide, Weights, Work};
use super::tile::{Scratch, WIDE, activate};
use crate::kernels::f32x8::{F8, Mask};
use crate::kernels::kept::Loops;
use core::ops::Range;

/// Elements of a transformed tile: 4x4.
const POINTS: usize = 16;
/// The pixels of a row outside the image, four of them.
static ZEROS: [f32; 4 * CHANNELS] = [0.0; 4 * CHANNELS];
/// The most channels of the source.
const CHANNELS: usize = 128;
/// Elements of packed weights on the stack: 132 KiB.
const ROOM: usize = PACKED + PACKED / 32;
/// Tiles at once: their transforms fit a first-level cache where channels are few.
const TILES: usize = 12;

/// Whether the loops below can do this slide, and pay: the sizes of a layer decide, not of a batch.
pub(super) fn takes(s: &Slide) -> bool {
    let vectors = |n: usize| n > 0 && n.is_multiple_of(8);
    s.kernel == [3; 2]
        && [s.stride, s.dilation, s.step] == [[1; 2]; 3]
        && s.first == [0; 2]
        && s.count.iter().all(|&n| n > 1)
        && vectors(s.source_channels)
        && vectors(s.channels)
        && s.source_channels <= CHANNELS
}

/// One vector of channels of a tile's 4x4 pixels, `B^T d B`: to `to[point][8]`. Pixels are read as they are needed, twice: all sixteen and
/// what becomes of them do not fit the registers.
///
/// # Safety
/// `pixel` can read all sixteen, and `to` can be written.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
#[inline]
unsafe fn transform(pixel: impl Fn(usize, usize) -> F8, to: *mut f32) {
    for i in 0..4 {
        let mut d = [F8::zero(); 4];
        for (j, d) in d.iter_mut().enumerate() {
            *d = match i {
                0 => F8::sub(pixel(0, j), pixel(2, j)),
                1 => F8::add(pixel(1, j), pixel(2, j)),
                2 => F8::sub(pixel(2, j), pixel(1, j)),
                _ => F8::sub(pixel(1, j), pixel(3, j)),
            };
        }
        let row = [
            F8::sub(d[0], d[2]),
            F8::add(d[1], d[2]),
            F8::sub(d[2], d[1]),
            F8::sub(d[1], d[3]),
        ];
        for (j, v) in row.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { v.store(to.add((4 * i + j) * 8)) };
        }
    }
}

/// `A^T m A`: four places, rows first.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
#[inline]
fn places(m: impl Fn(usize, usize) -> F8) -> [[F8; 2]; 2] {
    let along = |m: [F8; 4]| {
        let sum = F8::add(m[1], m[2]);
        let difference = F8::sub(m[1], m[2]);
        [F8::add(m[0], sum), F8::sub(difference, m[3])]
    };
    // [column][row], then the other way
    let mut rows = [[F8::zero(); 2]; 4];
    for (j, rows) in rows.iter_mut().enumerate() {
        *rows = along([m(0, j), m(1, j), m(2, j), m(3, j)]);
    }
    let row = |i: usize| along([rows[0][i], rows[1][i], rows[2][i], rows[3][i]]);
    [row(0), row(1)]
}

/// Eight filters' weights of one channel of the source, `G g G^T`.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
#[inline]
fn filters(g: [[F8; 3]; 3]) -> [[F8; 4]; 4] {
    let half = F8::splat(0.5);
    let along = |g: [F8; 3]| {
        let ends = F8::mul(half, F8::add(g[0], g[2]));
        let middle = F8::mul(half, g[1]);
        [g[0], F8::add(ends, middle), F8::sub(ends, middle), g[2]]
    };
    let rows = g.map(along);
    let column = |j: usize| along([rows[0][j], rows[1][j], rows[2][j]]);
    transposed([column(0), column(1), column(2), column(3)])
}

#[inline(always)]
fn transposed<T: Copy, const N: usize>(m: [[T; N]; N]) -> [[T; N]; N] {
    core::array::from_fn(|i| core::array::from_fn(|j| m[j][i]))
}

/// Elements from point to point of packed weights of `8 V` filters: a cache line more than they are, since sixteen steps of a power of two
/// share one place in the cache.
fn pitch(channels: usize, v: usize) -> usize {
    channels * 8 * v + 16
}

/// Elements from tile to tile of transformed pixels, for the same reason.
fn tile_pitch(channels: usize) -> usize {
    channels * POINTS + 16
}

/// Elements of a transformed tile, of eight channels: `[point][lane]`.
const BLOCK: usize = POINTS * 8;

/// One point of `M` tiles: `to[r] = sum_k a[r][k] b[k]`. Rows of `a` are tiles' `[channel / 8][point][8]`, of `b` `8 V` filters, of `to`
/// `[filter / 8][point][8]`.
///
/// # Safety
/// The rows can be read and written.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
#[inline]
unsafe fn product<const M: usize, const V: usize>(
    channels: usize,
    a: *const f32,
    b: *const f32,
    to: *mut f32,
) {
    let mut sums = [[F8::zero(); V]; M];
    let (mut a, mut b, row) = (a, b, tile_pitch(channels));
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
        (a, b) = (a.wrapping_add(BLOCK), b.wrapping_add(8 * V * 8));
    }
    for (r, sums) in sums.iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { sum.store(to.add((r * V + v) * BLOCK)) };
        }
    }
}

/// A slide, and how its tiles lie.
struct Tiles<'a> {
    slide: &'a Slide,
    columns: usize,
    count: usize,
}

impl Tiles<'_> {
    /// The first row and column of a tile's places.
    fn at(&self, tile: usize) -> [usize; 2] {
        [2 * (tile / self.columns), 2 * (tile % self.columns)]
    }

    /// Transforms tiles `first..first + tiles` of sample `n`: to `[tile][channel / 8][point][8]`.
    ///
    /// # Safety
    /// `source` has the slide's sizes, `to` room for `tiles` of [`tile_pitch`] elements.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    unsafe fn transform(
        &self,
        source: *const f32,
        n: usize,
        [first, tiles]: [usize; 2],
        to: *mut f32,
    ) {
        let s = self.slide;
        let channels = s.source_channels;
        let pitch = s.source[1] * channels;
        let image = source.wrapping_add(n * s.source[0] * pitch);
        let [height, width] = s.source.map(|n| n as isize);
        for tile in 0..tiles {
            let [y, x] = self.at(first + tile);
            let (y, x) = (y as isize - s.padding[0], x as isize - s.padding[1]);
            // where the four rows of the tile begin; rows outside are zeros
            let mut rows = [ZEROS.as_ptr(); 4];
            for (row, y) in rows.iter_mut().zip(y..) {
                if (0..height).contains(&y) {
                    *row = image.wrapping_offset(y * pitch as isize + x * channels as isize);
                }
            }
            let mut columns = [Mask::first(0); 4];
            for (column, x) in columns.iter_mut().zip(x..) {
                *column = Mask::all_if((0..width).contains(&x));
            }
            let inside = x >= 0 && x + 4 <= width;
            for c in (0..channels).step_by(8) {
                let to = to.wrapping_add(tile * tile_pitch(channels) + c * POINTS);
                let at = |i: usize, j: usize| rows[i].wrapping_add(j * channels + c);
                // SAFETY: eight channels of pixels inside the image, or zeros, of which there are four times as many as channels; `to` has
                // room. Columns outside are not read.
                unsafe {
                    match inside {
                        true => transform(|i, j| F8::load(at(i, j)), to),
                        false => transform(|i, j| F8::load_some(at(i, j), columns[j]), to),
                    }
                }
            }
        }
    }

    /// Writes the places of tiles `first..first + tiles` of sample `n`, channels `o..o + 8 V`, from products
    /// `[tile][channel / 8][point][8]`.
    ///
    /// # Safety
    /// `destination` has the slide's sizes, `from` the products.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    unsafe fn place<const V: usize>(
        &self,
        from: *const f32,
        ends: &Ends,
        [n, o]: [usize; 2],
        [first, tiles]: [usize; 2],
        destination: *mut f32,
    ) {
        let s = self.slide;
        let pitch = s.destination[1] * s.channels;
        let image = destination.wrapping_add(n * s.destination[0] * pitch + o);
        for v in 0..V {
            let bias = ends
                .bias
                .and_then(|bias| bias.get(o + 8 * v..)?.first_chunk());
            // SAFETY: eight elements.
            let bias = bias.map(|bias: &[f32; 8]| unsafe { F8::load(bias.as_ptr()) });
            for tile in 0..tiles {
                let [y, x] = self.at(first + tile);
                let from = from.wrapping_add((tile * V + v) * BLOCK);
                // SAFETY: inside the products.
                let sums = unsafe { places(|i, j| F8::load(from.add((i * 4 + j) * 8))) };
                let to = image.wrapping_add(y * pitch + x * s.channels + 8 * v);
                let (rows, columns) = (s.count[0] - y, s.count[1] - x);
                let at = |i: usize, j: usize| to.wrapping_add(i * pitch + j * s.channels);
                for (i, sums) in sums.iter().enumerate() {
                    for (j, &sum) in sums.iter().enumerate() {
                        if i >= rows || j >= columns {
                            continue;
                        }
                        // SAFETY: eight channels of a pixel of the destination.
                        unsafe {
                            let start = match bias {
                                Some(bias) => bias,
                                None => F8::load(at(i, j)),
                            };
                            let y = activate(ends.activation, F8::add(start, sum));
                            y.store(at(i, j));
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
/// The weights have the slide's sizes, `to` has room for `POINTS` of [`pitch`] elements.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
unsafe fn pack<const V: usize>(s: &Slide, weights: &Weights, o: usize, to: *mut f32) {
    let pitch = pitch(s.source_channels, V);
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
                for (i, row) in filters(g).iter().enumerate() {
                    for (j, g) in row.iter().enumerate() {
                        let at = (i * 4 + j) * pitch + ((c + k) * V + v) * 8;
                        // SAFETY: inside `to`.
                        unsafe { g.store(to.add(at)) };
                    }
                }
            }
        }
    }
}

/// As [`Slide::run`], for slides that [`takes`] names.
///
/// # Safety
/// As [`Slide::run`].
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
pub(super) unsafe fn run(s: &Slide, work: &Work) {
    let Work {
        source,
        weights,
        ends,
        destination,
    } = *work;
    let (mut packed, mut strip) = (Scratch::<ROOM>::new(), Scratch::<STRIP>::new());
    let mut products = Scratch::<{ POINTS * TILES * WIDE }>::new();
    let (packed, strip, products) = (packed.start(), strip.start(), products.start());
    let channels = s.source_channels;
    let columns = s.count[1].div_ceil(2);
    let tiles = Tiles {
        slide: s,
        columns,
        count: columns * s.count[0].div_ceil(2),
    };
    // in whole blocks of six where not all fit
    let at_once = match STRIP / tile_pitch(channels) {
        TILES.. => TILES,
        fit => fit.min(6),
    };
    let panel = POINTS * pitch(channels, 2);
    let panels = s.channels.div_ceil(WIDE);
    let pack = |panels: Range<usize>, to: *mut f32| {
        for (i, p) in panels.enumerate() {
            let to = to.wrapping_add(i * panel);
            // SAFETY: the caller has room for so many panels.
            unsafe {
                match s.channels - p * WIDE {
                    8 => pack::<1>(s, weights, p * WIDE, to),
                    _ => pack::<2>(s, weights, p * WIDE, to),
                }
            }
        }
    };
    let loops = (Loops::Winograd, 0);
    // SAFETY: all of the panels that is read is written.
    let kept = unsafe { s.kept(weights, loops, panels * panel, |to| pack(0..panels, to)) };
    let group = match kept {
        Some(_) => panels,
        None => ROOM / panel,
    };
    for first in (0..panels).step_by(group) {
        let end = panels.min(first + group);
        let packed = kept.unwrap_or_else(|| {
            // `group` panels fit
            pack(first..end, packed);
            packed
        });
        for n in 0..s.batch {
            for t in (0..tiles.count).step_by(at_once) {
                let count = at_once.min(tiles.count - t);
                // SAFETY: so many tiles fit in the strip and their products in theirs, the panels are packed; all else is the
                // caller's promise.
                unsafe {
                    tiles.transform(source, n, [t, count], strip);
                    for p in first..end {
                        let b = packed.add((p - first) * panel);
                        let at = [n, p * WIDE];
                        match s.channels - p * WIDE {
                            8 => {
                                multiply::<1>(channels, count, strip, b, products);
                                tiles.place::<1>(products, ends, at, [t, count], destination);
                            }
                            _ => {
                                multiply::<2>(channels, count, strip, b, products);
                                tiles.place::<2>(products, ends, at, [t, count], destination);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The sixteen products: `[tile][channel / 8][point][8]` by `[point][channel][8 V]` to `[tile][filter / 8][point][8]`.
///
/// # Safety
/// All three are so long.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
unsafe fn multiply<const V: usize>(
    channels: usize,
    tiles: usize,
    a: *const f32,
    b: *const f32,
    to: *mut f32,
) {
    for point in 0..POINTS {
        let b = b.wrapping_add(point * pitch(channels, V));
        let mut t = 0;
        while t < tiles {
            let a = a.wrapping_add(t * tile_pitch(channels) + point * 8);
            let to = to.wrapping_add(t * V * BLOCK + point * 8);
            // SAFETY: so many tiles are left.
            unsafe {
                t += match tiles - t {
                    // one vector of filters leaves registers for more tiles
                    12.. if V == 1 => {
                        product::<12, V>(channels, a, b, to);
                        12
                    }
                    6.. => {
                        product::<6, V>(channels, a, b, to);
                        6
                    }
                    4.. => {
                        product::<4, V>(channels, a, b, to);
                        4
                    }
                    2.. => {
                        product::<2, V>(channels, a, b, to);
                        2
                    }
                    _ => {
                        product::<1, V>(channels, a, b, to);
                        1
                    }
                };
            }
        }
    }
}
