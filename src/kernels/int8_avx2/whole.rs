//! Dense layers of whole inputs: `vpmaddubsw` adds the products of two neighbours in 16 bits, where those of nearly all trained weights
//! fit, whatever the input. Pairs that may saturate are listed once a session, where its buffer has room for the list; what they lost
//! is added to their row's sum afterwards.
//!
//! Inputs get 128 added, so that they are unsigned. This and their zero point bring the same whatever the input: sums begin with the bias
//! less that, which is kept, too.

use super::super::DenseI8;
use super::super::kept::{Key, Loops};
use super::super::strip::bytes;
use super::Kind;
use super::dense::{AHEAD, DEPTH, Four, ROWS, STEP};
use core::arch::x86_64::*;
use core::mem::MaybeUninit;

/// Of so many weights one pair may saturate: where more do, giving back takes the time that whole inputs save.
const RARE: usize = 128;

/// What is kept of a layer that is left to others, instead of its [`Kind`].
const NOT_TAKEN: i32 = -1;

/// Room for an input.
pub(super) type Room = [MaybeUninit<__m256i>; DEPTH / STEP];

/// What is known of a layer.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// What its factors and biases say.
    pub kind: Kind,
    /// Where the sum of each row begins, doubled or not.
    pub starts: &'a [i32],
    /// Row and first element of each pair that may saturate.
    saturating: &'a [[i32; 2]],
}

/// Numbers to be kept of so many weights in so many rows.
pub(in super::super) fn numbers(weights: usize, rows: usize) -> usize {
    rows + 2 + weights / RARE * 2
}

impl<'a> Known<'a> {
    /// None where there is no place to keep it, too many pairs may saturate, or [`Kind`] knows nothing of the layer. Like the weights, biases and
    /// factors stay what and where they are: those of an image are constants ([`check::weights`](crate::ops)).
    #[target_feature(enable = "avx2")]
    pub fn of(p: &DenseI8<'a>) -> Option<Known<'a>> {
        let (w, output) = (p.w, &p.output);
        let rows = output.bias.len();
        let key = Key::of_constants(
            Loops::IntegerDense,
            &w,
            [p.depth, 0, 0],
            p.x_zero_point,
            output,
        );
        let found = w.place()?.numbers(&key, numbers(w.len(), rows), |to| {
            list(p, Kind::of(output, p.depth), to);
        })?;
        let ([code, count], rest) = found.split_first_chunk()?;
        let (starts, pairs) = rest.split_at(rows);
        Some(Known {
            kind: from_code(*code)?,
            starts,
            saturating: &pairs.as_chunks().0[..*count as usize],
        })
    }
}

#[cfg(test)]
impl Known<'_> {
    pub fn pairs(&self) -> usize {
        self.saturating.len()
    }
}

/// A code for the layer's kind, the number of pairs, where sums begin, and the pairs.
fn list(p: &DenseI8, kind: Option<Kind>, to: &mut [i32]) {
    let bias = p.output.bias;
    let Some(([code, count], rest)) = to.split_first_chunk_mut() else {
        return;
    };
    *code = NOT_TAKEN;
    let Some(kind) = kind else { return };
    let (starts, pairs) = rest.split_at_mut(bias.len());
    let above = 128 + i32::from(p.x_zero_point);
    let mut room = pairs.as_chunks_mut().0.iter_mut();
    let rows = p.w.chunks_exact(p.depth).zip(bias);
    for (row, ((w, &bias), start)) in rows.zip(starts).enumerate() {
        let sum = w.iter().map(|&w| i32::from(w)).sum::<i32>();
        *start = bias.wrapping_sub(above * sum) << kind.doubling();
        for (i, &pair) in w.as_chunks().0.iter().enumerate() {
            if !may_saturate(pair) {
                continue;
            }
            let Some(room) = room.next() else { return };
            *room = [row as i32, 2 * i as i32];
            *count += 1;
        }
    }
    *code = i32::from(kind.is_plain) | i32::from(kind.is_uniform) << 1;
}

/// The kind that [`list`] wrote.
fn from_code(code: i32) -> Option<Kind> {
    (code != NOT_TAKEN).then_some(Kind {
        is_plain: code & 1 != 0,
        is_uniform: code & 2 != 0,
    })
}

/// Whether the sum of their products with some two of 0 to 255 is beyond 16 bits.
pub(super) fn may_saturate(pair: [i8; 2]) -> bool {
    let [v, w] = pair.map(i32::from);
    let (least, most) = (v.min(0) + w.min(0), v.max(0) + w.max(0));
    255 * least < i16::MIN.into() || 255 * most > i16::MAX.into()
}

/// One input, and what is known of the weights that it meets.
pub(super) struct Dense<'a> {
    pub known: Known<'a>,
    x: &'a [i8],
    /// 128 more than its elements; zeros behind the last one.
    unsigned: &'a [__m256i],
    /// How far sums are to be shifted to the left.
    doubling: u32,
}

impl<'a> Dense<'a> {
    #[target_feature(enable = "avx2")]
    pub fn new(known: Known<'a>, x: &'a [i8], doubling: u32, room: &'a mut Room) -> Dense<'a> {
        let to = &mut room[..x.len().div_ceil(STEP)];
        for (x, to) in x.chunks(STEP).zip(to.iter_mut()) {
            let mut room = [-128; STEP];
            let x = bytes(x, &mut room);
            // SAFETY: `x` is 32 bytes long.
            let x = unsafe { _mm256_loadu_si256(x.as_ptr().cast()) };
            to.write(_mm256_xor_si256(x, _mm256_set1_epi8(-128)));
        }
        Dense {
            known,
            x,
            // SAFETY: the loop has written as many as `x` has pieces of 32 elements, the last one perhaps shorter.
            unsigned: unsafe { to.assume_init_ref() },
            doubling,
        }
    }

    /// As `dense::Layer::groups`: the sums of the first rows of `w`, four at a time; all of `to` has been written then. Pairs that
    /// saturated have lost something.
    #[target_feature(enable = "avx2")]
    #[inline(never)]
    pub fn groups<'b>(&self, w: &[i8], to: &'b mut [MaybeUninit<Four>]) -> &'b [Four] {
        let depth = self.x.len();
        let factor = _mm256_set1_epi16(1 << self.doubling);
        let times = |x, w| _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), factor);
        let (four, steps) = (ROWS * depth, depth / STEP);
        let whole = &w[..to.len() * four];
        for (to, w) in to.iter_mut().zip(whole.chunks_exact(four)) {
            let w = w.as_ptr();
            let mut sums = [_mm256_setzero_si256(); ROWS];
            for (k, &x) in self.unsigned[..steps].iter().enumerate() {
                // as many bytes as are read here, of rows that follow
                let ahead = w.wrapping_add(AHEAD + ROWS * k * STEP);
                _mm_prefetch::<_MM_HINT_T0>(ahead);
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64));
                for (r, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: elements from `k STEP` on of row `r`, which has `steps STEP` and perhaps a few more.
                    let w = unsafe { _mm256_loadu_si256(w.add(r * depth + k * STEP).cast()) };
                    *sum = _mm256_add_epi32(*sum, times(x, w));
                }
            }
            to.write(sums);
        }
        // SAFETY: the loop has written each one.
        let to = unsafe { to.assume_init_mut() };
        if let Some(&x) = self.unsigned.get(steps) {
            for (sum, w) in to.as_flattened_mut().iter_mut().zip((0..).step_by(depth)) {
                // what follows the row meets zeros
                let mut room = [0; STEP];
                let w = bytes(&whole[w + steps * STEP..], &mut room);
                // SAFETY: `w` is 32 bytes long.
                let w = unsafe { _mm256_loadu_si256(w.as_ptr().cast()) };
                *sum = _mm256_add_epi32(*sum, times(x, w));
            }
        }
        to
    }

    /// Gives back what pairs lost to the sums of rows from `first` on, whose weights begin with `w`.
    #[target_feature(enable = "avx2")]
    pub fn restore(&self, w: &[i8], first: usize, sums: &mut [__m256i]) {
        let rows = first as i32..(first + sums.len()) as i32;
        let pairs = self.known.saturating;
        let from = pairs.partition_point(|&[row, _]| row < rows.start);
        for &[row, at] in pairs[from..].iter().take_while(|[row, _]| *row < rows.end) {
            let (row, at) = (row as usize - first, at as usize);
            let product = |k| (i32::from(self.x[k]) + 128) * i32::from(w[row * self.x.len() + k]);
            let sum = product(at) + product(at + 1);
            let lost = sum - sum.clamp(i16::MIN.into(), i16::MAX.into());
            let lost = _mm256_zextsi128_si256(_mm_cvtsi32_si128(lost << self.doubling));
            sums[row] = _mm256_add_epi32(sums[row], lost);
        }
    }
}
