//! First layers: 3x3 windows over one or three channels that move by one pixel. Windows are so short that loops over their rows cost as much as
//! the products; here nothing of them is left but products.

use super::conv::{Ends, PACKED, STRIP, Slide, Strip, Work};
#[cfg(target_arch = "x86_64")]
use super::lanes::F16;
use super::lanes::Lanes;
use super::packing::Weights;
use super::tile::{Scratch, WIDE, rails};
use crate::kernels::f32x8::F8;
use crate::kernels::kept::Loops;
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{found, ran_wide};

/// Whether the loops below can do this slide: the sizes of a layer decide, not of a batch.
pub(super) fn takes(s: &Slide, ends: &Ends) -> bool {
    s.kernel == [3; 2]
        && [s.stride, s.dilation, s.step] == [[1; 2]; 3]
        && s.first == [0; 2]
        && s.count == s.destination
        && s.count[1] >= PLACES
        && matches!(s.source_channels, 1 | 3)
        && s.channels.is_multiple_of(8)
        && 9 * s.source_channels * s.channels <= PACKED
        && ends.bias.is_some()
}

/// The most places at once, of eight filters.
const PLACES: usize = 7;
/// The places at once of sixteen filters in one register.
#[cfg(target_arch = "x86_64")]
const WIDE_PLACES: usize = 8;

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
    let (mut packed, mut strip) = (Scratch::<PACKED>::new(), Scratch::<STRIP>::new());
    let (packed, strip) = (packed.start(), strip.start());
    let channels = s.source_channels;
    let (_, rows) = s.cut(9 * channels);
    let pack = |to: *mut f32| {
        for o in (0..s.channels).step_by(WIDE) {
            let to = to.wrapping_add(9 * channels * o);
            // SAFETY: `takes` saw that all weights fit.
            unsafe { pack(s, weights, o, to) };
        }
    };
    let loops = (Loops::Stem, 0);
    let room = (9 * channels * s.channels, packed);
    // SAFETY: all weights are written.
    let packed = unsafe { s.in_order(weights, loops, room, pack) };
    #[cfg(target_arch = "x86_64")]
    let is_wide = found().wide && s.count[1] >= WIDE_PLACES;
    for n in 0..s.batch {
        for y in (0..s.count[0]).step_by(rows) {
            let rows = rows.min(s.count[0] - y);
            // SAFETY: `cut` gave the rows, for all channels.
            let strip = unsafe { s.strip(source, n, [y, rows], [0, channels], strip) };
            for o in (0..s.channels).step_by(WIDE) {
                let part = Part {
                    slide: s,
                    strip,
                    weights: packed.wrapping_add(9 * channels * o),
                    ends,
                    o,
                };
                let first = (n * s.count[0] + y) * s.count[1] * s.channels + o;
                let to = destination.wrapping_add(first);
                // SAFETY: the strip holds the windows of these rows, the panel has the filters' weights; the rest is the caller's promise.
                unsafe {
                    match (channels, s.channels - o) {
                        (1, 8) => part.rows::<1, PLACES, 1>(rows, to),
                        (_, 8) => part.rows::<3, PLACES, 1>(rows, to),
                        #[cfg(target_arch = "x86_64")]
                        (1, _) if is_wide => part.wide_rows::<1>(rows, to),
                        #[cfg(target_arch = "x86_64")]
                        _ if is_wide => part.wide_rows::<3>(rows, to),
                        (1, _) => part.rows::<1, 4, 2>(rows, to),
                        _ => part.rows::<3, 4, 2>(rows, to),
                    }
                }
            }
        }
    }
}

/// The weights of up to 16 filters, from `o` on: to `[term][filter]`.
///
/// # Safety
/// The filters exist, and `to` has room.
unsafe fn pack(s: &Slide, weights: &Weights, o: usize, to: *mut f32) {
    let [row, column, source, destination] = s.weight_step;
    let lanes = WIDE.min(s.channels - o);
    let mut to = to;
    for i in 0..3 {
        for j in 0..3 {
            let cell = s.weight as isize + i * row + j * column;
            for c in 0..s.source_channels {
                for lane in 0..lanes {
                    let at = cell + c as isize * source + (o + lane) as isize * destination;
                    // SAFETY: the caller's promise.
                    unsafe { to.write(weights.get(at as usize, c)) };
                    to = to.wrapping_add(1);
                }
            }
        }
    }
}

/// Some rows of places, for one panel of filters.
struct Part<'a> {
    slide: &'a Slide,
    strip: Strip,
    weights: *const f32,
    ends: &'a Ends<'a>,
    o: usize,
}

impl Part<'_> {
    /// `C` channels, `M` places at a time, `8 V` filters.
    ///
    /// # Safety
    /// The strip holds the windows of `rows` rows of places, which are written from `to` on; the weights are of `8 V` filters.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    unsafe fn rows<const C: usize, const M: usize, const V: usize>(
        &self,
        rows: usize,
        to: *mut f32,
    ) {
        // SAFETY: the caller's promise.
        unsafe { self.slide::<F8, C, M, V>(rows, to) }
    }

    /// As [`Part::rows`], of sixteen filters.
    ///
    /// # Safety
    /// As there; the CPU has registers of 512 bits.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512vl")]
    unsafe fn wide_rows<const C: usize>(&self, rows: usize, to: *mut f32) {
        ran_wide();
        // SAFETY: the caller's promise.
        unsafe { self.slide::<F16, C, WIDE_PLACES, 1>(rows, to) }
    }

    /// `C` channels, `M` places at a time, `V` registers of filters.
    ///
    /// # Safety
    /// As [`Part::rows`]; the CPU has these registers.
    #[inline(always)]
    unsafe fn slide<L: Lanes, const C: usize, const M: usize, const V: usize>(
        &self,
        rows: usize,
        to: *mut f32,
    ) {
        let (columns, channels) = (self.slide.count[1], self.slide.channels);
        // SAFETY: the caller's promise.
        let mut bias = unsafe { [L::splat(0.0); V] };
        for (v, bias) in bias.iter_mut().enumerate() {
            let from = self.o + L::COUNT * v;
            let from = self
                .ends
                .bias
                .and_then(|bias| bias.get(from..from + L::COUNT));
            if let Some(from) = from {
                // SAFETY: as many elements as there are lanes.
                *bias = unsafe { L::load(from.as_ptr()) };
            }
        }
        for y in 0..rows {
            let pixels = self.strip.start.wrapping_add(y * self.strip.row);
            for x in (0..columns).step_by(M) {
                // the last ones of a row are computed again where they do not fill a block
                let x = x.min(columns - M);
                let to = to.wrapping_add((y * columns + x) * channels);
                // SAFETY: the caller's promise.
                unsafe {
                    self.places::<L, C, M, V>(pixels.add(x * C), &bias, to);
                }
            }
        }
    }

    /// # Safety
    /// The windows from `pixels` on can be read, and `M` pixels from `to` on be written; the CPU has these registers.
    #[inline(always)]
    unsafe fn places<L: Lanes, const C: usize, const M: usize, const V: usize>(
        &self,
        pixels: *const f32,
        bias: &[L; V],
        to: *mut f32,
    ) {
        let mut sums = [*bias; M];
        for i in 0..3 {
            let pixels = pixels.wrapping_add(i * self.strip.row);
            let weights = self.weights.wrapping_add(i * 3 * C * L::COUNT * V);
            for k in 0..3 * C {
                // SAFETY: the caller's promise.
                let mut lanes = unsafe { [L::splat(0.0); V] };
                for (v, lanes) in lanes.iter_mut().enumerate() {
                    // SAFETY: the caller's promise.
                    *lanes = unsafe { L::load(weights.add((k * V + v) * L::COUNT)) };
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: the caller's promise.
                    let x = unsafe { *pixels.add(r * C + k) };
                    for (sum, lanes) in sums.iter_mut().zip(lanes) {
                        *sum = L::mul_add(x, lanes, *sum);
                    }
                }
            }
        }
        let rails = rails(self.ends.activation);
        for (r, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                let y = sum.clamp(rails);
                // SAFETY: the caller's promise.
                unsafe { y.store(to.add(r * self.slide.channels + L::COUNT * v)) };
            }
        }
    }
}
