//! Fully connected layers: four rows of weights, as they lie in the image, meet one input.

use super::super::DenseI8;
use super::super::strip::bytes;
use super::{Eight, Finish, Lanes, multiply_add, store};
use core::arch::aarch64::*;
use core::mem::MaybeUninit;

/// The longest input: 16 KiB on the stack.
const DEPTH: usize = 8 * 1024;

/// Rows at once.
const ROWS: usize = 4;

/// Elements at once.
const STEP: usize = 16;

/// Sixteen elements of an input, less its zero point.
type Sixteen = [int16x8_t; 2];

/// The integer fully connected layer; false where it was left undone.
#[target_feature(enable = "neon")]
pub(in super::super) fn dense(p: &DenseI8, y: &mut [i8]) -> bool {
    let (depth, outputs) = (p.depth, p.output.bias.len());
    let sized = p.w.len() == depth * outputs && (-128..=127).contains(&p.x_zero_point);
    if depth == 0 || depth > DEPTH || outputs < ROWS || !sized {
        return false;
    }
    let Some(finish) = Finish::of(&p.output) else {
        return false;
    };
    let mut widened = [MaybeUninit::uninit(); DEPTH / STEP];
    for (x, y) in p.x.chunks_exact(depth).zip(y.chunks_exact_mut(outputs)) {
        let layer = Layer {
            x: less(x, p.x_zero_point, &mut widened),
            depth,
            w: &p.w,
            outputs,
        };
        for (i, y) in y.chunks_mut(8).enumerate() {
            let lanes = Lanes::new(&p.output, 8 * i);
            let mut sums = lanes.bias;
            for (half, sums) in sums.iter_mut().enumerate() {
                if half * ROWS < y.len() {
                    *sums = vaddq_s32(*sums, layer.sums(8 * i + half * ROWS));
                }
            }
            store(finish.requantize(&lanes, sums), y);
        }
    }
    true
}

/// `x` less its zero point, zeros behind it.
#[target_feature(enable = "neon")]
fn less<'a>(
    x: &[i8],
    zero_point: i16,
    to: &'a mut [MaybeUninit<Sixteen>; DEPTH / STEP],
) -> &'a [Sixteen] {
    let zero_points = vdupq_n_s16(zero_point);
    let to = &mut to[..x.len().div_ceil(STEP)];
    for (x, to) in x.chunks(STEP).zip(to.iter_mut()) {
        let x = load(x, zero_point as i8);
        to.write([
            vsubq_s16(vmovl_s8(vget_low_s8(x)), zero_points),
            vsubq_s16(vmovl_high_s8(x), zero_points),
        ]);
    }
    // SAFETY: the loop has written as many as `x` has pieces of 16 elements, the last one perhaps shorter.
    unsafe { to.assume_init_ref() }
}

/// The first sixteen elements, `behind` where there are fewer.
#[target_feature(enable = "neon")]
#[inline]
fn load(x: &[i8], behind: i8) -> int8x16_t {
    let mut room = [behind; STEP];
    let x = bytes(x, &mut room);
    // SAFETY: `x` is 16 bytes long.
    unsafe { vld1q_s8(x.as_ptr()) }
}

/// What meets an input.
struct Layer<'a> {
    x: &'a [Sixteen],
    /// Its length.
    depth: usize,
    w: &'a [i8],
    /// Rows of `w`.
    outputs: usize,
}

impl Layer<'_> {
    /// Of rows `first..first + 4`; the last one again where there are fewer.
    #[target_feature(enable = "neon")]
    fn sums(&self, first: usize) -> int32x4_t {
        let depth = self.depth;
        let rows: [&[i8]; ROWS] =
            core::array::from_fn(|r| &self.w[(first + r).min(self.outputs - 1) * depth..]);
        // what the loop reads, and no more
        let start = rows.map(|row| row[..depth].as_ptr());
        let (whole, rest) = self.x.split_at(depth / STEP);
        let mut sums = [[vdupq_n_s32(0); 2]; ROWS];
        for (k, &x) in whole.iter().enumerate() {
            for r in 0..ROWS {
                // SAFETY: elements from `k STEP` on, of which there are `STEP` for each of `whole`.
                let w = unsafe { vld1q_s8(start[r].add(k * STEP)) };
                sums[r] = products(sums[r], x, w);
            }
        }
        for &x in rest {
            for r in 0..ROWS {
                // what follows the row meets zeros
                let w = load(&rows[r][whole.len() * STEP..], 0);
                sums[r] = products(sums[r], x, w);
            }
        }
        let [a, b, c, d] = sums.map(|[low, high]| vaddq_s32(low, high));
        vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))
    }
}

/// Adds sixteen products.
#[target_feature(enable = "neon")]
#[inline]
fn products(sums: Eight, x: Sixteen, w: int8x16_t) -> Eight {
    let sums = multiply_add(sums, x[0], vmovl_s8(vget_low_s8(w)));
    multiply_add(sums, x[1], vmovl_high_s8(w))
}
