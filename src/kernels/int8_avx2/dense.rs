//! Fully connected layers: four rows of weights, as they lie in the image, meet one input.
//!
//! `vpmaddubsw` multiplies bytes as they are, twice as many as `vpmaddwd` and without widening any, but its sums of 16 bits saturate. Where
//! it is known of the weights that nearly none do, the input stays `whole`. Otherwise an input, less its zero point, comes in two
//! parts, `v = 16 high + low`: products of the parts are small enough for several to be added, exactly, before anything is widened.
//!
//! One of the factors has to be unsigned. Where the zero point is -128 both parts are; otherwise the weights get 128 added,
//! and 128 times the sum of the inputs is taken off at the end.

use super::super::strip::bytes;
use super::super::{DenseI8, Requantize, int8_avx512, simd};
use super::{Finish, eight, store, whole};
use core::arch::x86_64::*;
use core::mem::MaybeUninit;

/// The longest input: 16 KiB on the stack.
pub(super) const DEPTH: usize = 8 * 1024;

/// Rows at once.
pub(super) const ROWS: usize = 4;

/// Elements at once.
pub(super) const STEP: usize = 32;

/// Of so many products of a weight and a part 16 lanes of 16 bits hold the sums. A part is at least -16 and at most 15, but never negative
/// where weights are signed, so no product is beyond 255 times 16.
const BLOCK: usize = 4 * STEP;

/// Bytes that weights are fetched ahead: each is read once a run, and may lie in a third-level cache.
pub(super) const AHEAD: usize = 2048;

/// Rows whose sums wait to be requantized: that takes long for a few and little longer for many.
const WAITING: usize = 128;

/// Two parts of 32 elements, in order.
#[derive(Clone, Copy)]
struct Parts {
    high: __m256i,
    low: __m256i,
}

/// The sums of four rows, in eight lanes each.
pub(super) type Four = [__m256i; ROWS];

/// The integer fully connected layer; false where it was left undone.
#[target_feature(enable = "avx2")]
pub(in super::super) fn dense(p: &DenseI8, y: &mut [i8]) -> bool {
    // SAFETY: the CPU has what they need.
    if simd::found().wide_products && unsafe { int8_avx512::dense(p, y) } {
        return true;
    }
    let (depth, outputs) = (p.depth, p.output.bias.len());
    let sized = p.w.len() == depth * outputs && (-128..=127).contains(&p.x_zero_point);
    if depth == 0 || depth > DEPTH || outputs < ROWS || !sized {
        return false;
    }
    let samples = p.x.chunks_exact(depth).zip(y.chunks_exact_mut(outputs));
    if let Some(known) = whole::Known::of(p) {
        of_whole(p, &Finish::of(&p.output, known.kind), known, samples);
        return true;
    }
    let Some(finish) = Finish::new(&p.output, depth) else {
        return false;
    };
    of_parts(p, &finish, samples);
    true
}

/// Inputs as they are.
#[target_feature(enable = "avx2")]
fn of_whole<'s>(
    p: &DenseI8,
    finish: &Finish,
    known: whole::Known,
    samples: impl Iterator<Item = (&'s [i8], &'s mut [i8])>,
) {
    let mut room = [MaybeUninit::uninit(); DEPTH / STEP];
    for (x, y) in samples {
        let whole = whole::Dense::new(known, x, finish.doubling(), &mut room);
        outputs(p, finish, &Input::Whole(whole), y);
    }
}

/// Inputs in two parts.
#[target_feature(enable = "avx2")]
fn of_parts<'s>(
    p: &DenseI8,
    finish: &Finish,
    samples: impl Iterator<Item = (&'s [i8], &'s mut [i8])>,
) {
    let mut room = [MaybeUninit::uninit(); DEPTH / STEP];
    for (x, y) in samples {
        let parts = split(x, p.x_zero_point, finish.doubling(), &mut room);
        outputs(p, finish, &parts, y);
    }
}

/// What the layer makes of one input.
#[target_feature(enable = "avx2")]
#[inline(never)]
fn outputs(p: &DenseI8, finish: &Finish, input: &Input, y: &mut [i8]) {
    let depth = p.depth;
    let layer = Layer { input, depth };
    let mut waiting = [MaybeUninit::uninit(); WAITING / ROWS];
    for (i, y) in y.chunks_mut(WAITING).enumerate() {
        let first = i * WAITING;
        let sums = match p.x_zero_point {
            -128 => layer.sums::<false>(&p.w, first, y.len(), &mut waiting),
            _ => layer.sums::<true>(&p.w, first, y.len(), &mut waiting),
        };
        let mut room;
        let starts = match input {
            Input::Whole(whole) => &whole.known.starts[first..],
            Input::Parts { behind, .. } => {
                room = [0; WAITING];
                starts(&p.output, first, finish.doubling(), *behind, &mut room)
            }
        };
        match finish.kind.is_plain && finish.kind.is_uniform {
            true => requantize::<true>(finish, &p.output, first, sums, starts, y),
            false => requantize::<false>(finish, &p.output, first, sums, starts, y),
        }
    }
}

/// Where the sums of rows from `first` on begin: with their biases and `behind`.
#[target_feature(enable = "avx2")]
fn starts<'a>(
    p: &Requantize,
    first: usize,
    doubling: u32,
    behind: i32,
    to: &'a mut [i32; WAITING],
) -> &'a [i32] {
    for (to, bias) in to.iter_mut().zip(&p.bias[first..]) {
        *to = (bias << doubling).wrapping_add(behind);
    }
    to
}

/// Outputs `first..first + y.len()` from the sums of their rows without `starts`, which begin with the first one's.
#[target_feature(enable = "avx2")]
#[inline(never)]
fn requantize<const SIMPLE: bool>(
    finish: &Finish,
    p: &Requantize,
    first: usize,
    sums: &[Four],
    starts: &[i32],
    y: &mut [i8],
) {
    let common = finish.lanes(p, first);
    let whole = sums.as_chunks::<4>().0.iter();
    for (i, (sums, y)) in whole.zip(y.chunks_mut(16)).enumerate() {
        let at = first + 16 * i;
        let [s, t, u, v] = sums;
        let sums = [
            _mm256_add_epi32(across(s, t), eight(starts, 16 * i)),
            _mm256_add_epi32(across(u, v), eight(starts, 16 * i + 8)),
        ];
        let q = if SIMPLE {
            finish.narrow_plain([&common; 2], sums)
        } else {
            let lanes = [finish.lanes(p, at), finish.lanes(p, at + 8)];
            finish.narrow([&lanes[0], &lanes[1]], sums)
        };
        store(q, y);
    }
}

/// The sum of the lanes of each of eight vectors.
#[target_feature(enable = "avx2")]
#[inline]
fn across(&[a, b, c, d]: &Four, &[e, f, g, h]: &Four) -> __m256i {
    // of each pair one is in the lower half then
    let halves = |x, y| {
        let crossed = _mm256_permute2x128_si256::<0x21>(x, y);
        _mm256_add_epi32(_mm256_blend_epi32::<0b1111_0000>(x, y), crossed)
    };
    let quarters = |x, y| {
        let crossed = _mm256_alignr_epi8::<8>(y, x);
        _mm256_add_epi32(_mm256_blend_epi32::<0b1100_1100>(x, y), crossed)
    };
    let (even, odd) = (
        quarters(halves(a, e), halves(c, g)),
        quarters(halves(b, f), halves(d, h)),
    );
    let crossed = _mm256_blend_epi32::<0b1010_1010>(odd, even);
    _mm256_add_epi32(
        _mm256_blend_epi32::<0b1010_1010>(even, odd),
        _mm256_shuffle_epi32::<0b10_11_00_01>(crossed),
    )
}

/// The parts of `x` less its zero point. Zeros are behind the last one.
#[target_feature(enable = "avx2")]
fn split<'a>(
    x: &[i8],
    zero_point: i16,
    doubling: u32,
    parts: &'a mut [MaybeUninit<Parts>; DEPTH / STEP],
) -> Input<'a> {
    let zero_points = _mm256_set1_epi16(zero_point);
    let (one, fifteen) = (_mm256_set1_epi16(1), _mm256_set1_epi16(15));
    let mut sum = _mm256_setzero_si256();
    let parts = &mut parts[..x.len().div_ceil(STEP)];
    for (x, to) in x.chunks(STEP).zip(parts.iter_mut()) {
        let mut room = [zero_point as i8; STEP];
        let x = bytes(x, &mut room);
        let half = |x: &[i8]| {
            let x = &x[..16];
            // SAFETY: `x` is 16 bytes long.
            let x = unsafe { _mm_loadu_si128(x.as_ptr().cast()) };
            _mm256_sub_epi16(_mm256_cvtepi8_epi16(x), zero_points)
        };
        let (a, b) = (half(x), half(&x[16..]));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_add_epi16(a, b), one));
        let in_order = |a, b| _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(a, b));
        to.write(Parts {
            high: in_order(_mm256_srai_epi16::<4>(a), _mm256_srai_epi16::<4>(b)),
            low: in_order(_mm256_and_si256(a, fifteen), _mm256_and_si256(b, fifteen)),
        });
    }
    let mut lanes = [0i32; 8];
    // SAFETY: `lanes` is 32 bytes long.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum) };
    let sum = lanes.iter().sum::<i32>();
    Input::Parts {
        // SAFETY: the loop has written as many as `x` has pieces of 32 elements, the last one perhaps shorter.
        parts: unsafe { parts.assume_init_ref() },
        low: 1 << doubling,
        behind: match zero_point {
            -128 => 0,
            _ => (-128 * sum) << doubling,
        },
    }
}

/// What the rows of a layer meet.
struct Layer<'a> {
    input: &'a Input<'a>,
    /// Its length.
    depth: usize,
}

/// An input as the loops that were chosen take it.
enum Input<'a> {
    Parts {
        parts: &'a [Parts],
        /// What a lower part counts: 1, or 2 where sums are doubled.
        low: i16,
        /// What 128 more in each weight have brought, to be added to every row's sum.
        behind: i32,
    },
    Whole(whole::Dense<'a>),
}

impl Layer<'_> {
    /// Of rows `first..first + count` of `w`, and of the last ones again up to a multiple of 16; `SIGNED`: with 128 more in each weight, where inputs
    /// come in parts.
    #[target_feature(enable = "avx2")]
    fn sums<'a, const SIGNED: bool>(
        &self,
        w: &[i8],
        first: usize,
        count: usize,
        to: &'a mut [MaybeUninit<Four>; WAITING / ROWS],
    ) -> &'a [Four] {
        let (whole, rest) = (count / ROWS, count % ROWS);
        self.groups::<SIGNED>(&w[first * self.depth..], &mut to[..whole]);
        let mut groups = whole;
        if rest > 0 {
            // the last four rows, without those that are there already
            let last = (first + count - ROWS) * self.depth;
            let mut four = [MaybeUninit::uninit()];
            let four = self.groups::<SIGNED>(&w[last..], &mut four)[0];
            to[whole].write(core::array::from_fn(|i| {
                four[(i + ROWS - rest).min(ROWS - 1)]
            }));
            groups += 1;
        }
        let n = groups.next_multiple_of(4);
        for i in groups..n {
            to[i] = to[groups - 1];
        }
        // SAFETY: the first `n` have been written.
        let sums = unsafe { to[..n].assume_init_mut() };
        if let Input::Whole(whole) = self.input {
            let w = &w[first * self.depth..];
            whole.restore(w, first, &mut sums.as_flattened_mut()[..count]);
        }
        sums
    }

    /// Of the first rows of `w`, four at a time. All of `to` has been written then.
    #[target_feature(enable = "avx2")]
    #[inline(never)]
    fn groups<'a, const SIGNED: bool>(
        &self,
        w: &[i8],
        to: &'a mut [MaybeUninit<Four>],
    ) -> &'a [Four] {
        let depth = self.depth;
        let (parts, low) = match self.input {
            Input::Parts { parts, low, .. } => (*parts, *low),
            Input::Whole(whole) => return whole.groups(w, to),
        };
        let four = ROWS * depth;
        // without a last part of fewer than 32 elements
        let blocks = parts[..depth / STEP].as_chunks::<{ BLOCK / STEP }>().0;
        let whole = &w[..to.len() * four];
        for (to, w) in to.iter_mut().zip(whole.chunks_exact(four)) {
            let w = w.as_ptr();
            let mut sums = [_mm256_setzero_si256(); ROWS];
            for (i, x) in blocks.iter().enumerate() {
                let mut of_high = [_mm256_setzero_si256(); ROWS];
                let mut of_low = of_high;
                for (k, x) in x.iter().enumerate() {
                    // as many bytes as are read here, of rows that follow
                    let ahead = w.wrapping_add(AHEAD + ROWS * (i * BLOCK + k * STEP));
                    _mm_prefetch::<_MM_HINT_T0>(ahead);
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64));
                    for r in 0..ROWS {
                        // SAFETY: elements from `i BLOCK + k STEP` on of row `r`, of which there are `BLOCK` for each of `blocks`.
                        let w = unsafe {
                            let w = w.add(r * depth + i * BLOCK + k * STEP);
                            _mm256_loadu_si256(w.cast())
                        };
                        of_high[r] = _mm256_add_epi16(of_high[r], times::<SIGNED>(w, x.high));
                        of_low[r] = _mm256_add_epi16(of_low[r], times::<SIGNED>(w, x.low));
                    }
                }
                for r in 0..ROWS {
                    sums[r] = _mm256_add_epi32(sums[r], widen(low, of_high[r], of_low[r]));
                }
            }
            to.write(sums);
        }
        // SAFETY: the loop has written each one.
        let to = unsafe { to.assume_init_mut() };
        let there = blocks.len() * BLOCK;
        if there < depth {
            rests::<SIGNED>(&parts[there / STEP..], low, &w[there..], depth, to);
        }
        to
    }
}

/// Adds what the last elements bring, in `parts`, of rows whose weights for them are `depth` apart.
#[target_feature(enable = "avx2")]
#[inline(never)]
fn rests<const SIGNED: bool>(parts: &[Parts], low: i16, w: &[i8], depth: usize, to: &mut [Four]) {
    for (k, x) in parts.iter().enumerate() {
        for (row, sum) in to.as_flattened_mut().iter_mut().enumerate() {
            // what follows the row meets zeros
            let mut room = [0; STEP];
            let w = bytes(&w[row * depth + k * STEP..], &mut room);
            // SAFETY: `w` is 32 bytes long.
            let w = unsafe { _mm256_loadu_si256(w.as_ptr().cast()) };
            let more = widen(low, times::<SIGNED>(w, x.high), times::<SIGNED>(w, x.low));
            *sum = _mm256_add_epi32(*sum, more);
        }
    }
}

/// Sums of lanes, of which lower parts count `low`.
#[target_feature(enable = "avx2")]
#[inline]
fn widen(low: i16, of_high: __m256i, of_low: __m256i) -> __m256i {
    let low = _mm256_set1_epi16(low);
    let high = _mm256_slli_epi16::<4>(low);
    _mm256_add_epi32(
        _mm256_madd_epi16(of_high, high),
        _mm256_madd_epi16(of_low, low),
    )
}

/// Sums of two products each.
#[target_feature(enable = "avx2")]
#[inline]
fn times<const SIGNED: bool>(w: __m256i, part: __m256i) -> __m256i {
    match SIGNED {
        true => _mm256_maddubs_epi16(_mm256_xor_si256(w, _mm256_set1_epi8(-128)), part),
        false => _mm256_maddubs_epi16(part, w),
    }
}
