//! The reference kernels: portable Rust. They *define* the f32 results: no fused multiply-add, sums in a fixed
//! order, so every machine gives the same bits.
//!
//! The order of a dot product: element `i` of each contiguous run goes to lane `i % 8`, and the eight lanes are
//! summed as a tree at the end. That is what an 8-wide vector unit does, so the compiler may vectorise it, and
//! a chip without one does the same additions one by one.

pub mod batch_norm;
pub mod conv;
pub mod dense;
pub mod depthwise;
pub mod elementwise;
pub mod pool;
pub mod spread;

/// Lanes of a dot product.
pub const LANES: usize = 8;

/// How many filters run over the same input at once. It changes the speed, never the bits: vector registers are
/// many on a PC and few on a chip.
pub(crate) const FILTERS: usize = if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
    4
} else {
    1
};

/// `lanes[i % 8] += a[i] b[i]`.
#[inline(always)]
pub fn dot_f32(lanes: &mut [f32; LANES], a: &[f32], b: &[f32]) {
    let (a8, a_rest) = a.as_chunks::<LANES>();
    let (b8, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a8.iter().zip(b8) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    for ((lane, &a), &b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane += a * b;
    }
}

/// The sum of the lanes, as a tree.
#[inline(always)]
pub fn sum_lanes(l: &[f32; LANES]) -> f32 {
    ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

/// `y[i] += a x[i]`.
#[inline(always)]
pub fn axpy_f32(y: &mut [f32], a: f32, x: &[f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

/// `y[i] += a x[i]` with int8 `x`.
#[inline(always)]
pub fn axpy_i8(y: &mut [f32], a: f32, x: &[i8]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += a * x as f32;
    }
}

/// The same for the rows of int8 weights whose factor is not zero, `terms` in order, row `o` at `w[o stride..]`: a few at a time,
/// so that each element of `y` is loaded once for all of them. The sums are those of one row after the other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    rows: [usize; ROWS_I8],
    factors: [f32; ROWS_I8],
    count: usize,
}

impl Terms {
    /// The rows with their factors `factor(o, gy[o])`, those with a zero `gy` left out; each full set is handed to `f`, and
    /// the rest.
    #[inline(always)]
    pub fn for_each(gy: &[f32], factor: impl Fn(usize, f32) -> f32, mut f: impl FnMut(&Terms)) {
        let mut terms = Terms::default();
        for (o, &gy) in gy.iter().enumerate() {
            if gy == 0.0 {
                continue;
            }
            terms.rows[terms.count] = o;
            terms.factors[terms.count] = factor(o, gy);
            terms.count += 1;
            if terms.count == ROWS_I8 {
                f(&terms);
                terms.count = 0;
            }
        }
        if terms.count > 0 {
            f(&terms);
        }
    }

    /// `y[i] += the sum of factors[k] w[rows[k] stride + i]`, term by term.
    #[inline(always)]
    pub fn add(&self, y: &mut [f32], w: &[i8], stride: usize) {
        if self.count == ROWS_I8 {
            let rows = self.rows.map(|row| &w[row * stride..][..y.len()]);
            return axpys_i8(y, &self.factors, rows);
        }
        for (&row, &a) in self.rows.iter().zip(&self.factors).take(self.count) {
            axpy_i8(y, a, &w[row * stride..]);
        }
    }
}

/// `y[i] += a[0] x[0][i]`, then `a[1] x[1][i]` and so on; the rows are as long as `y`.
#[cfg_attr(any(target_arch = "arm", target_arch = "riscv32"), inline(never))]
#[cfg_attr(not(any(target_arch = "arm", target_arch = "riscv32")), inline(always))]
#[cfg(not(all(foolproof_dsp, target_abi = "eabihf")))]
fn axpys_i8(y: &mut [f32], a: &[f32; ROWS_I8], x: [&[i8]; ROWS_I8]) {
    let n = y.len();
    let [x0, x1, x2, x3] = x.map(|x| &x[..n]);
    for (i, y) in y.iter_mut().enumerate() {
        let mut sum = *y;
        sum += a[0] * f32::from(x0[i]);
        sum += a[1] * f32::from(x1[i]);
        sum += a[2] * f32::from(x2[i]);
        sum += a[3] * f32::from(x3[i]);
        *y = sum;
    }
}
#[cfg(all(foolproof_dsp, target_abi = "eabihf"))]
use crate::kernels::arm::axpys_i8;

/// The sum of `(x[i] - zero_point) w[i]`, modulo 2^32. The differences fit in 16 bits, which lets compilers
/// use a 16-bit multiply-add.
#[inline(always)]
pub fn dot_i8(x: &[i8], zero_point: i16, w: &[i8]) -> i32 {
    let mut sum = 0i32;
    for (&x, &w) in x.iter().zip(w) {
        let x = x as i16 - zero_point;
        sum = sum.wrapping_add(x as i32 * w as i32);
    }
    sum
}

/// How many rows of int8 weights meet the same input at once.
pub(crate) const ROWS_I8: usize = 4;

/// The first rows of the blocks of [`ROWS_I8`] that cover `rows` rows: the last block may cover again what the one
/// before it did. None where there are fewer rows than a block has.
#[inline(always)]
pub(crate) fn blocks(rows: usize) -> impl Iterator<Item = usize> {
    let last = rows.wrapping_sub(ROWS_I8);
    let count = if rows < ROWS_I8 {
        0
    } else {
        rows.div_ceil(ROWS_I8)
    };
    (0..count).map(move |i| (i * ROWS_I8).min(last))
}

/// `sums[k] += (x - zero_point) . w[k stride..]`, modulo 2^32. `w` holds all rows as far as `x` reaches.
// Row by row where vectors hold many elements; elsewhere each input element is loaded once for all rows.
#[cfg_attr(any(target_arch = "arm", target_arch = "riscv32"), inline(never))]
#[cfg_attr(not(any(target_arch = "arm", target_arch = "riscv32")), inline(always))]
#[cfg(not(foolproof_dsp))]
pub fn dots_i8(x: &[i8], zero_point: i16, w: &[i8], stride: usize, sums: &mut [i32; ROWS_I8]) {
    let n = x.len();
    if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        for (k, sum) in sums.iter_mut().enumerate() {
            *sum = sum.wrapping_add(dot_i8(x, zero_point, &w[k * stride..][..n]));
        }
        return;
    }
    let row = |k: usize| &w[k * stride..][..n];
    let (a, b, c, d) = (row(0), row(1), row(2), row(3));
    let [mut s0, mut s1, mut s2, mut s3] = *sums;
    let zero_point = i32::from(zero_point);
    for i in 0..n {
        let x = i32::from(x[i]) - zero_point;
        s0 = s0.wrapping_add(x * i32::from(a[i]));
        s1 = s1.wrapping_add(x * i32::from(b[i]));
        s2 = s2.wrapping_add(x * i32::from(c[i]));
        s3 = s3.wrapping_add(x * i32::from(d[i]));
    }
    *sums = [s0, s1, s2, s3];
}
#[cfg(foolproof_dsp)]
pub use crate::kernels::arm::dots_i8;
