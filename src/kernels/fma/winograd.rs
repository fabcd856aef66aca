//! 3x3 windows that move by one pixel: Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray, "Fast algorithms for convolutional
//! neural networks" (2015), section 4.1), 16 products for four places where the plain sum has 36.
//!
//! A tile of four places sees 4x4 pixels `d`. `Y = A^T [(G g G^T) * (B^T d B)] A`: what is between the brackets is sixteen products of matrices,
//! tiles by channels and channels by filters. Each place still depends on its own nine pixels alone, so where those are zero it gets an
//! exact zero, as from the plain sum.

use super::conv::{Ends, PACKED, STRIP, Slide, Weights};
use super::tile::{Scratch, WIDE, activate};
use core::arch::x86_64::*;

/// Elements of a transformed tile: 4x4.
const POINTS: usize = 16;
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
        && POINTS * WIDE * s.source_channels <= PACKED
}

/// One vector of channels of a tile's 4x4 pixels, `B^T d B`.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn transform(d: [[__m256; 4]; 4]) -> [[__m256; 4]; 4] {
    let along = |d: [__m256; 4]| {
        [
            _mm256_sub_ps(d[0], d[2]),
            _mm256_add_ps(d[1], d[2]),
            _mm256_sub_ps(d[2], d[1]),
            _mm256_sub_ps(d[1], d[3]),
        ]
    };
    transposed(transposed(d.map(along)).map(along))
}

/// `A^T m A`: four places, rows first.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn places(m: [[__m256; 4]; 4]) -> [[__m256; 2]; 2] {
    let along = |m: [__m256; 4]| {
        let sum = _mm256_add_ps(m[1], m[2]);
        let difference = _mm256_sub_ps(m[1], m[2]);
        [_mm256_add_ps(m[0], sum), _mm256_sub_ps(difference, m[3])]
    };
    let rows = m.map(along);
    let column = |j: usize| along([rows[0][j], rows[1][j], rows[2][j], rows[3][j]]);
    let (left, right) = (column(0), column(1));
    [[left[0], right[0]], [left[1], right[1]]]
}

/// Eight filters' weights of one channel of the source, `G g G^T`.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn filters(g: [[__m256; 3]; 3]) -> [[__m256; 4]; 4] {
    let half = _mm256_set1_ps(0.5);
    let along = |g: [__m256; 3]| {
        let ends = _mm256_mul_ps(half, _mm256_add_ps(g[0], g[2]));
        let middle = _mm256_mul_ps(half, g[1]);
        [
            g[0],
            _mm256_add_ps(ends, middle),
            _mm256_sub_ps(ends, middle),
            g[2],
        ]
    };
    let rows = g.map(along);
    let column = |j: usize| along([rows[0][j], rows[1][j], rows[2][j]]);
    transposed([column(0), column(1), column(2), column(3)])
}

#[inline(always)]
fn transposed<T: Copy, const N: usize>(m: [[T; N]; N]) -> [[T; N]; N] {
    core::array::from_fn(|i| core::array::from_fn(|j| m[j][i]))
}

/// Elements of a transformed tile, of eight channels: `[point][lane]`.
const BLOCK: usize = POINTS * 8;

/// One point of `M` tiles: `to[r] = sum_k a[r][k] b[k]`. Rows of `a` are tiles' `[channel / 8][point][8]`, of `b` `8 V` filters, of `to`
/// `[filter / 8][point][8]`.
///
/// # Safety
/// The rows can be read and written.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn product<const M: usize, const V: usize>(
    channels: usize,
    a: *const f32,
    b: *const f32,
    to: *mut f32,
) {
    let mut sums = [[_mm256_setzero_ps(); V]; M];
    let (mut a, mut b, row) = (a, b, channels * POINTS);
    for _ in 0..channels / 8 {
        for k in 0..8 {
            let mut lanes = [_mm256_setzero_ps(); V];
            for (v, lanes) in lanes.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *lanes = unsafe { _mm256_loadu_ps(b.add((k * V + v) * 8)) };
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                let x = unsafe { _mm256_broadcast_ss(&*a.add(r * row + k)) };
                for (sum, lanes) in sums.iter_mut().zip(lanes) {
                    *sum = _mm256_fmadd_ps(x, lanes, *sum);
                }
            }
        }
        (a, b) = (a.wrapping_add(BLOCK), b.wrapping_add(8 * V * 8));
    }
    for (r, sums) in sums.iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { _mm256_storeu_ps(to.add((r * V + v) * BLOCK), *sum) };
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
    /// `source` has the slide's sizes, `to` room for `POINTS * tiles * source_channels` elements.
    #[target_feature(enable = "avx2,fma")]
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
            let inside = y >= 0 && x >= 0 && y + 4 <= height && x + 4 <= width;
            for c in (0..channels).step_by(8) {
                let mut d = [[_mm256_setzero_ps(); 4]; 4];
                if inside {
                    let first = image.wrapping_add(y as usize * pitch + x as usize * channels + c);
                    for (i, d) in d.iter_mut().enumerate() {
                        for (j, d) in d.iter_mut().enumerate() {
                            // SAFETY: a pixel inside the image, eight channels of it.
                            *d = unsafe { _mm256_loadu_ps(first.add(i * pitch + j * channels)) };
                        }
                    }
                } else {
                    for (i, d) in d.iter_mut().enumerate() {
                        for (j, d) in d.iter_mut().enumerate() {
                            let (y, x) = (y + i as isize, x + j as isize);
                            if y >= 0 && x >= 0 && y < height && x < width {
                                let at = y as usize * pitch + x as usize * channels + c;
                                // SAFETY: a pixel inside the image, eight channels of it.
                                *d = unsafe { _mm256_loadu_ps(image.add(at)) };
                            }
                        }
                    }
                }
                let to = to.wrapping_add((tile * channels + c) * POINTS);
                for (i, row) in transform(d).iter().enumerate() {
                    for (j, v) in row.iter().enumerate() {
                        // SAFETY: inside `to`.
                        unsafe { _mm256_storeu_ps(to.add((i * 4 + j) * 8), *v) };
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
    #[target_feature(enable = "avx2,fma")]
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
            let bias = bias.map(|bias: &[f32; 8]| unsafe { _mm256_loadu_ps(bias.as_ptr()) });
            for tile in 0..tiles {
                let [y, x] = self.at(first + tile);
                let from = from.wrapping_add((tile * V + v) * BLOCK);
                let mut m = [[_mm256_setzero_ps(); 4]; 4];
                for (i, m) in m.iter_mut().enumerate() {
                    for (j, m) in m.iter_mut().enumerate() {
                        // SAFETY: inside the products.
                        *m = unsafe { _mm256_loadu_ps(from.add((i * 4 + j) * 8)) };
                    }
                }
                let sums = places(m);
                for (i, sums) in sums.iter().enumerate().take(s.count[0] - y) {
                    for (j, &sum) in sums.iter().enumerate().take(s.count[1] - x) {
                        let at = (y + i) * pitch + (x + j) * s.channels + 8 * v;
                        // SAFETY: eight channels of a pixel of the destination.
                        unsafe {
                            let to = image.add(at);
                            let start = match bias {
                                Some(bias) => bias,
                                None => _mm256_loadu_ps(to),
                            };
                            let y = activate(ends.activation, _mm256_add_ps(start, sum));
                            _mm256_storeu_ps(to, y);
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
/// `to` has room for `POINTS * source_channels * 8 V` elements.
#[target_feature(enable = "avx2,fma")]
unsafe fn pack<const V: usize>(s: &Slide, weights: &Weights, o: usize, to: *mut f32) {
    match weights {
        // SAFETY: the caller's promise.
        Weights::F32(w) => unsafe { pack_from::<V>(s, |i, _| w[i], o, to) },
        // SAFETY: the caller's promise.
        Weights::I8(_) => unsafe { pack_from::<V>(s, |i, c| weights.get(i, c), o, to) },
    }
}

/// # Safety
/// As [`pack`].
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn pack_from<const V: usize>(
    s: &Slide,
    weight: impl Fn(usize, usize) -> f32,
    o: usize,
    to: *mut f32,
) {
    let [row, column, source, destination] = s.weight_step;
    for c in 0..s.source_channels {
        for v in 0..V {
            let first =
                s.weight as isize + c as isize * source + (o + 8 * v) as isize * destination;
            let mut g = [[_mm256_setzero_ps(); 3]; 3];
            for (i, g) in g.iter_mut().enumerate() {
                for (j, g) in g.iter_mut().enumerate() {
                    let cell = first + i as isize * row + j as isize * column;
                    let w = |lane: isize| weight((cell + lane * destination) as usize, c);
                    *g = _mm256_setr_ps(w(0), w(1), w(2), w(3), w(4), w(5), w(6), w(7));
                }
            }
            for (i, row) in filters(g).iter().enumerate() {
                for (j, g) in row.iter().enumerate() {
                    let at = (((i * 4 + j) * s.source_channels + c) * V + v) * 8;
                    // SAFETY: inside `to`.
                    unsafe { _mm256_storeu_ps(to.add(at), *g) };
                }
            }
        }
    }
}

/// As [`Slide::run`], for slides that [`takes`] names.
///
/// # Safety
/// As [`Slide::run`].
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run(
    s: &Slide,
    source: *const f32,
    weights: &Weights,
    ends: &Ends,
    destination: *mut f32,
) {
    let (mut packed, mut strip) = (Scratch::<PACKED>::new(), Scratch::<STRIP>::new());
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
    let at_once = match STRIP / (POINTS * channels) {
        TILES.. => TILES,
        fit => fit.min(6),
    };
    let panel = POINTS * channels * WIDE;
    let panels = s.channels.div_ceil(WIDE);
    let group = PACKED / panel;
    for first in (0..panels).step_by(group) {
        let end = panels.min(first + group);
        for p in first..end {
            let to = packed.wrapping_add((p - first) * panel);
            // SAFETY: `group` panels fit.
            unsafe {
                match s.channels - p * WIDE {
                    8 => pack::<1>(s, weights, p * WIDE, to),
                    _ => pack::<2>(s, weights, p * WIDE, to),
                }
            }
        }
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
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply<const V: usize>(
    channels: usize,
    tiles: usize,
    a: *const f32,
    b: *const f32,
    to: *mut f32,
) {
    for point in 0..POINTS {
        let b = b.wrapping_add(point * channels * 8 * V);
        let mut t = 0;
        while t < tiles {
            let a = a.wrapping_add(t * channels * POINTS + point * 8);
            let to = to.wrapping_add(t * V * BLOCK + point * 8);
            // SAFETY: so many tiles are left.
            unsafe {
                t += match tiles - t {
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
