//! Depthwise convolution: sixteen channels of a pixel, or eight of two, two cells of the window at a time.

use super::super::ConvI8;
use super::conv::{Layout, conv_of};
use super::strip::{Cut, Pixels, STRIP, Strip};
use super::{Lanes, Rails, Scratch, narrow, store, takes};
use core::arch::x86_64::*;

/// The most cells of a window.
const CELLS: usize = 64;

/// The integer depthwise convolution; false where it was left undone.
#[target_feature(enable = "avx2")]
pub(in super::super) fn depthwise(p: &ConvI8, y: &mut [i8]) -> bool {
    let g = p.window;
    let (c, outputs) = (g.in_channels, g.out_channels);
    if c == 1 {
        // every filter sees the one channel
        let layout = Layout {
            filter: 1,
            element: outputs,
        };
        return conv_of(p, layout, y);
    }
    let cells = g.kernel[0] * g.kernel[1];
    let sized = c == p.output.bias.len() && p.w.len() == cells * c;
    let shaped = g.dilation == [1, 1] && c == outputs && c >= 8 && cells <= CELLS;
    if !shaped || !sized || !takes(&p.output) {
        return false;
    }
    let Some(cut) = Cut::new(g) else { return false };
    let rails = Rails::new(p.output.zero_point, p.output.range);
    let mut widened = Scratch::<STRIP>::new();
    for strip in cut.strips(g) {
        let x = widened.zeroed(strip.len(g));
        strip.fill(p, x);
        if c < 16 {
            for o in [0, c - 8] {
                part::<2>(p, &rails, &strip, x, o, y);
            }
        } else {
            // the last channels again, where they do not fill a vector
            for o in (0..c).step_by(16).map(|o| o.min(c - 16)) {
                part::<1>(p, &rails, &strip, x, o, y);
            }
        }
    }
    true
}

/// Two cells of a window: where they are in the strip, and their weights, interleaved.
#[derive(Clone, Copy)]
struct Pair {
    at: [usize; 2],
    w: [__m256i; 2],
}

/// All pixels of a strip, `16 / S` channels from `o` on of `S` pixels at a time.
#[target_feature(enable = "avx2")]
fn part<const S: usize>(
    p: &ConvI8,
    rails: &Rails,
    strip: &Strip,
    x: &[i16],
    o: usize,
    y: &mut [i8],
) {
    let g = p.window;
    let c = g.in_channels;
    let halves = if S == 1 { [o, o + 8] } else { [o, o] };
    let lanes = [
        Lanes::new(&p.output, halves),
        Lanes::new(&p.output, halves.map(|o| o + 4)),
    ];
    let weights = |cell: usize| {
        let eight = |o: usize| {
            let w = &p.w[cell * c + o..][..8];
            // SAFETY: `w` is 8 bytes long.
            _mm_cvtepi8_epi16(unsafe { _mm_loadl_epi64(w.as_ptr().cast()) })
        };
        _mm256_set_m128i(eight(halves[1]), eight(halves[0]))
    };
    let cells = g.kernel[0] * g.kernel[1];
    let place = |cell: usize| cell / g.kernel[1] * strip.pitch + cell % g.kernel[1] * c + o;
    let zero = _mm256_setzero_si256();
    let mut pairs = [Pair {
        at: [0; 2],
        w: [zero; 2],
    }; CELLS / 2];
    let pairs = &mut pairs[..cells.div_ceil(2)];
    for (i, pair) in pairs.iter_mut().enumerate() {
        let (first, second) = (2 * i, 2 * i + 1);
        let w = match second < cells {
            true => weights(second),
            false => zero,
        };
        *pair = Pair {
            at: [place(first), place(second.min(cells - 1))],
            w: [
                _mm256_unpacklo_epi16(weights(first), w),
                _mm256_unpackhi_epi16(weights(first), w),
            ],
        };
    }
    let mut finish = |at: [usize; S], sums: [__m256i; 2]| {
        let a = lanes[0].finish(rails, sums[0]);
        let q = narrow(a, lanes[1].finish(rails, sums[1]));
        store(q, &mut y[at[0] * c + o..][..16 / S]);
        if S == 2 {
            store(_mm_unpackhi_epi64(q, q), &mut y[at[1] * c + o..][..8]);
        }
    };
    let mut pixels = Pixels {
        strip: *strip,
        window: g,
        row: 0,
        column: 0,
    };
    // two vectors at once share the loads of the weights
    let take = |pixels: &mut Pixels| -> Option<[(usize, usize); S]> { pixels.take() };
    while let Some(a) = take(&mut pixels) {
        let Some(b) = take(&mut pixels) else {
            let [sums] = sums::<1, S>(x, [a.map(|a| a.0)], pairs);
            finish(a.map(|a| a.1), sums);
            break;
        };
        let [first, second] = sums::<2, S>(x, [a.map(|a| a.0), b.map(|b| b.0)], pairs);
        finish(a.map(|a| a.1), first);
        finish(b.map(|b| b.1), second);
    }
    // one pixel is left over where there are two to a vector: it meets itself
    if let Some([last]) = pixels.take::<1>() {
        let [sums] = sums::<1, S>(x, [[last.0; S]], pairs);
        finish([last.1; S], sums);
    }
}

/// Accumulators of `P` vectors of pixels, which begin at `at` in the strip: channels 0..4 and 8..12, then the others.
#[target_feature(enable = "avx2")]
#[inline]
fn sums<const P: usize, const S: usize>(
    x: &[i16],
    at: [[usize; S]; P],
    pairs: &[Pair],
) -> [[__m256i; 2]; P] {
    let mut sums = [[_mm256_setzero_si256(); 2]; P];
    for pair in pairs {
        for (sums, at) in sums.iter_mut().zip(at) {
            let a = load(x, at.map(|at| at + pair.at[0]));
            let b = load(x, at.map(|at| at + pair.at[1]));
            let low = _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), pair.w[0]);
            let high = _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), pair.w[1]);
            sums[0] = _mm256_add_epi32(sums[0], low);
            sums[1] = _mm256_add_epi32(sums[1], high);
        }
    }
    sums
}

/// Sixteen elements at one place, or eight at each of two.
#[target_feature(enable = "avx2")]
#[inline]
fn load<const S: usize>(x: &[i16], at: [usize; S]) -> __m256i {
    if S == 1 {
        let x = &x[at[0]..][..16];
        // SAFETY: `x` is 32 bytes long.
        return unsafe { _mm256_loadu_si256(x.as_ptr().cast()) };
    }
    let (a, b) = (&x[at[0]..][..8], &x[at[S - 1]..][..8]);
    // SAFETY: both are 16 bytes long.
    unsafe {
        _mm256_set_m128i(
            _mm_loadu_si128(b.as_ptr().cast()),
            _mm_loadu_si128(a.as_ptr().cast()),
        )
    }
}
