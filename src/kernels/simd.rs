//! Wide registers: AVX2 on x86-64, NEON on aarch64. The portable loops, compiled for them: a dot product has eight lanes in both,
//! nothing is reordered and nothing is fused, so the results are those of `scalar` to the bit. The int8 forward kernels have
//! loops of their own, in `int8_avx2` and `int8_neon`, and on x86-64 so have f32 loops without sums, in `f32_avx2` and `f32_avx512`.
// where the registers are part of every CPU nobody has to promise that they are there
#![cfg_attr(target_arch = "aarch64", allow(unused_unsafe))]
#![allow(unsafe_code)] // calls of functions that need a CPU feature; the token proves that it is there

#[cfg(target_arch = "x86_64")]
use super::int8_avx2 as int8;
#[cfg(target_arch = "aarch64")]
use super::int8_neon as int8;
use super::scalar::{batch_norm, conv, dense, depthwise, pool, spread};
use super::{
    Activation, AddI8, BatchNormF32, Constant, ConvF32, ConvI8, DenseF32, DenseI8, MulI8,
    NORMALIZED, Spread, WeightsI8, Window,
};

/// Proof that this CPU has AVX2, or NEON: one exists only where [`Simd::new`] found it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Simd(());

impl Simd {
    /// What they are called on the command line.
    pub const NAME: &'static str = if cfg!(target_arch = "x86_64") {
        "avx2"
    } else {
        "neon"
    };

    /// The token, where the CPU has them.
    pub fn new() -> Option<Simd> {
        found().registers.then_some(Simd(()))
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn conv_f32(self, p: &ConvF32, y: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { conv_f32(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn conv_i8(self, p: &ConvI8, y: &mut [i8]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { conv_i8(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn add_i8(self, p: &AddI8, y: &mut [i8]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { int8::add(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn mul_i8(self, p: &MulI8, y: &mut [i8]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { int8::mul(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn batch_norm_statistics_f32(self, p: &BatchNormF32) -> [[f64; NORMALIZED]; 2] {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { batch_norm_statistics_f32(p) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn batch_norm_f32(
        self,
        p: &BatchNormF32,
        constants: [&[f32; NORMALIZED]; 3],
        y: &mut [f32],
    ) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { batch_norm_f32(p, constants, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn batch_norm_sums_f32(
        self,
        p: &BatchNormF32,
        normalizer: [&[f32; NORMALIZED]; 2],
        gy: &[f32],
    ) -> [[f64; NORMALIZED]; 2] {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { batch_norm_sums_f32(p, normalizer, gy) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn batch_norm_input_gradient_f32(
        self,
        p: &BatchNormF32,
        constants: [&[f32; NORMALIZED]; 5],
        gy: &[f32],
        gx: &mut [f32],
    ) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { batch_norm_input_gradient_f32(p, constants, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn average_pool_f32(self, g: &Window, x: &[f32], activation: Activation, y: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { average_pool_f32(g, x, activation, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn average_pool_i8(self, g: &Window, x: &[i8], range: (i32, i32), y: &mut [i8]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { average_pool_i8(g, x, range, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn conv_input_gradient_f32(self, g: &Window, w: Constant<f32>, gy: &[f32], gx: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { conv_input_gradient_f32(g, &w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn conv_input_gradient_i8(self, g: &Window, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { conv_input_gradient_i8(g, w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn conv_weight_gradient_f32(self, g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { conv_weight_gradient_f32(g, x, gy, gw) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn depthwise_f32(self, p: &ConvF32, y: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { depthwise_f32(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn depthwise_i8(self, p: &ConvI8, y: &mut [i8]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { depthwise_i8(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn depthwise_input_gradient_f32(
        self,
        g: &Window,
        w: Constant<f32>,
        gy: &[f32],
        gx: &mut [f32],
    ) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { depthwise_input_gradient_f32(g, &w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn depthwise_input_gradient_i8(self, g: &Window, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { depthwise_input_gradient_i8(g, w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn depthwise_weight_gradient_f32(self, g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { depthwise_weight_gradient_f32(g, x, gy, gw) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn dense_f32(self, p: &DenseF32, y: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { dense_f32(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn dense_i8(self, p: &DenseI8, y: &mut [i8]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { dense_i8(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn dense_input_gradient_f32(self, depth: usize, w: &[f32], gy: &[f32], gx: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { dense_input_gradient_f32(depth, w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn dense_input_gradient_i8(self, depth: usize, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { dense_input_gradient_i8(depth, w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn dense_weight_gradient_f32(self, depth: usize, x: &[f32], gy: &[f32], gw: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { dense_weight_gradient_f32(depth, x, gy, gw) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn spread_f32(self, spread: Spread, p: &ConvF32, y: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { spread_f32(spread, p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn spread_i8(self, spread: Spread, p: &ConvI8, y: &mut [i8]) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { spread_i8(spread, p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn spread_input_gradient_f32(
        self,
        spread: Spread,
        g: &Window,
        w: Constant<f32>,
        gy: &[f32],
        gx: &mut [f32],
    ) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { spread_input_gradient_f32(spread, g, &w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn spread_input_gradient_i8(
        self,
        spread: Spread,
        g: &Window,
        w: WeightsI8,
        gy: &[f32],
        gx: &mut [f32],
    ) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { spread_input_gradient_i8(spread, g, w, gy, gx) }
    }

    /// As the function of this name in [`kernels`](super).
    #[inline]
    pub fn spread_weight_gradient_f32(
        self,
        spread: Spread,
        g: &Window,
        x: &[f32],
        gy: &[f32],
        gw: &mut [f32],
    ) {
        ran();
        // SAFETY: `self` exists, so the CPU has the registers.
        unsafe { spread_weight_gradient_f32(spread, g, x, gy, gw) }
    }
}

/// What the CPU has.
pub(super) struct Found {
    pub registers: bool,
    /// Multiply-adds that round once.
    pub fma: bool,
    /// AVX-512: registers of 512 bits. Inner loops that have them go twice as wide, to the same bits.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub wide: bool,
    /// Those, and AVX-512's sums of integer products (VNNI).
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub wide_products: bool,
}

/// What this CPU has, of which a test may leave out the widest registers.
pub(super) fn found() -> Found {
    let found = look();
    #[cfg(test)]
    let found = super::wide_in_tests::allowed(found);
    found
}

/// Looks at run time; without feature `std` it is what the compiler was told.
fn look() -> Found {
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    {
        extern crate std;
        Found {
            registers: std::arch::is_x86_feature_detected!("avx2"),
            fma: std::arch::is_x86_feature_detected!("fma"),
            wide: std::arch::is_x86_feature_detected!("avx512vl"),
            wide_products: std::arch::is_x86_feature_detected!("avx512vl")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512vnni"),
        }
    }
    #[cfg(all(not(feature = "std"), target_arch = "x86_64"))]
    {
        Found {
            registers: cfg!(target_feature = "avx2"),
            fma: cfg!(target_feature = "fma"),
            wide: cfg!(target_feature = "avx512vl"),
            wide_products: cfg!(all(
                target_feature = "avx512vl",
                target_feature = "avx512bw",
                target_feature = "avx512vnni"
            )),
        }
    }
    // NEON is both, and `build.rs` saw that it is there
    #[cfg(target_arch = "aarch64")]
    {
        Found {
            registers: true,
            fma: true,
            wide: false,
            wide_products: false,
        }
    }
}

/// Counts a run of a 512-bit loop in tests.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn ran_wide() {
    #[cfg(test)]
    super::wide_in_tests::ran();
}

/// Counts a run in tests.
#[inline(always)]
pub(super) fn ran() {
    #[cfg(test)]
    super::wide_in_tests::ran_simd();
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn conv_f32(p: &ConvF32, y: &mut [f32]) {
    conv::forward_f32(p, y);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
#[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
fn conv_i8(p: &ConvI8, y: &mut [i8]) {
    if !int8::conv(p, y) {
        conv::forward_i8(p, y);
    }
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn batch_norm_statistics_f32(p: &BatchNormF32) -> [[f64; NORMALIZED]; 2] {
    batch_norm::statistics(p)
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn batch_norm_f32(p: &BatchNormF32, constants: [&[f32; NORMALIZED]; 3], y: &mut [f32]) {
    batch_norm::normalize(p, constants, y);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn batch_norm_sums_f32(
    p: &BatchNormF32,
    normalizer: [&[f32; NORMALIZED]; 2],
    gy: &[f32],
) -> [[f64; NORMALIZED]; 2] {
    batch_norm::gradient_sums(p, normalizer, gy)
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn batch_norm_input_gradient_f32(
    p: &BatchNormF32,
    constants: [&[f32; NORMALIZED]; 5],
    gy: &[f32],
    gx: &mut [f32],
) {
    batch_norm::add_gradient(p, constants, gy, gx);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn average_pool_f32(g: &Window, x: &[f32], activation: Activation, y: &mut [f32]) {
    // sums stay in registers
    const C: usize = 32;
    if !g.out_channels.is_multiple_of(C) {
        return pool::average_f32(g, x, activation, y);
    }
    for ((n, rows, columns), y) in g.windows().zip(y.chunks_exact_mut(g.out_channels)) {
        let count = (rows.count * columns.count) as f32;
        for (block, y) in y.as_chunks_mut::<C>().0.iter_mut().enumerate() {
            let mut sums = [0.0; C];
            for cell in g.cells(n, rows, columns) {
                let at = cell.pixel * g.in_channels + block * C;
                for (sum, &x) in sums.iter_mut().zip(&x[at..][..C]) {
                    *sum += x;
                }
            }
            for (y, sum) in y.iter_mut().zip(sums) {
                *y = activation.apply(sum / count);
            }
        }
    }
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn average_pool_i8(g: &Window, x: &[i8], range: (i32, i32), y: &mut [i8]) {
    // a window of more cells than that is no window
    let fits = g.kernel[0].saturating_mul(g.kernel[1]) <= 1 << 16;
    match g.out_channels % 64 {
        0 if fits => averages::<64>(g, x, range, y),
        16 | 32 | 48 if fits => averages::<16>(g, x, range, y),
        _ => pool::average_i8(g, x, range, y),
    }
}

/// Averages of windows of at most 2^16 cells, `C` channels at once.
#[inline(always)]
fn averages<const C: usize>(g: &Window, x: &[i8], (low, high): (i32, i32), y: &mut [i8]) {
    for ((n, rows, columns), y) in g.windows().zip(y.chunks_exact_mut(g.out_channels)) {
        let count = ((rows.count * columns.count) as i32).max(1);
        for (block, y) in y.as_chunks_mut::<C>().0.iter_mut().enumerate() {
            let mut sums = [0i32; C];
            for cell in g.cells(n, rows, columns) {
                let at = cell.pixel * g.in_channels + block * C;
                for (sum, &x) in sums.iter_mut().zip(&x[at..][..C]) {
                    *sum += i32::from(x);
                }
            }
            for (y, sum) in y.iter_mut().zip(sums) {
                *y = average(sum, count).max(low).min(high) as i8;
            }
        }
    }
}

/// The average of 2^16 elements or fewer, halves away from zero. There are vectors of this division, not of integers': it rounds by 2^-17 at most
/// below 256, and a quotient that is no integer is 2^-16 away from one at least.
#[inline(always)]
pub(super) fn average(sum: i32, count: i32) -> i32 {
    let half = if sum > 0 { count / 2 } else { -(count / 2) };
    ((sum + half) as f32 / count as f32) as i32
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn conv_input_gradient_f32(g: &Window, w: &[f32], gy: &[f32], gx: &mut [f32]) {
    conv::input_gradient_f32(g, w, gy, gx);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn conv_input_gradient_i8(g: &Window, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
    conv::input_gradient_i8(g, &w.w, |o| w.quant.scale_of(o), gy, gx);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn conv_weight_gradient_f32(g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    conv::weight_gradient_f32(g, x, gy, gw);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn depthwise_f32(p: &ConvF32, y: &mut [f32]) {
    depthwise::forward_f32(p, y);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
#[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
fn depthwise_i8(p: &ConvI8, y: &mut [i8]) {
    if !int8::depthwise(p, y) {
        depthwise::forward_i8(p, y);
    }
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn depthwise_input_gradient_f32(g: &Window, w: &[f32], gy: &[f32], gx: &mut [f32]) {
    depthwise::input_gradient_f32(g, w, gy, gx);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn depthwise_input_gradient_i8(g: &Window, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
    depthwise::input_gradient_i8(g, &w.w, |o| w.quant.scale_of(o), gy, gx);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn depthwise_weight_gradient_f32(g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    depthwise::weight_gradient_f32(g, x, gy, gw);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn dense_f32(p: &DenseF32, y: &mut [f32]) {
    dense::forward_f32(p, y);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
#[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
fn dense_i8(p: &DenseI8, y: &mut [i8]) {
    if !int8::dense(p, y) {
        dense::forward_i8(p, y);
    }
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn dense_input_gradient_f32(depth: usize, w: &[f32], gy: &[f32], gx: &mut [f32]) {
    dense::input_gradient_f32(depth, w, gy, gx);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn dense_input_gradient_i8(depth: usize, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
    dense::input_gradient_i8(depth, &w.w, |o| w.quant.scale_of(o), gy, gx);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn dense_weight_gradient_f32(depth: usize, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    dense::weight_gradient_f32(depth, x, gy, gw);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn spread_f32(spread: Spread, p: &ConvF32, y: &mut [f32]) {
    spread::forward_f32(spread, p, y);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn spread_i8(spread: Spread, p: &ConvI8, y: &mut [i8]) {
    spread::forward_i8(spread, p, y);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn spread_input_gradient_f32(spread: Spread, g: &Window, w: &[f32], gy: &[f32], gx: &mut [f32]) {
    spread::input_gradient_f32(spread, g, w, gy, gx);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn spread_input_gradient_i8(spread: Spread, g: &Window, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
    spread::input_gradient_i8(spread, g, &w.w, |o| w.quant.scale_of(o), gy, gx);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn spread_weight_gradient_f32(spread: Spread, g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    spread::weight_gradient_f32(spread, g, x, gy, gw);
}
