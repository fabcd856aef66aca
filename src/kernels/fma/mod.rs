//! f32 with fused multiply-adds, on AVX2 and FMA or on NEON: sums in an order of their own, and so results that differ from `scalar`'s by
//! rounding, within [`tolerance`]. int8 is that of [`Simd`], to the bit.
//!
//! What a sample gets does not depend on how many run at once: every sum goes over its terms in an order that only the layer's
//! sizes decide. Weights are packed once a session where its buffer has room for them (`kept`), else once a call on the stack. Windows of 3x3 that move by one pixel, over whole vectors of
//! channels, take 16 products for four places where the sum as written has 36, or in gradients 36 for sixteen (`winograd`). Layers in groups, depthwise ones with several filters a channel,
//! strides with dilations, and gradients of depthwise weights go through [`Simd`]'s loops.
// where the registers are part of every CPU nobody has to promise that they are there
#![cfg_attr(target_arch = "aarch64", allow(unused_unsafe))]
#![allow(unsafe_code)] // loads and stores of vectors, behind sizes that are checked once a layer

mod conv;
mod conv_weights;
mod dense;
mod depthwise;
mod gemm;
mod lanes;
mod one;
mod packing;
mod peak;
mod stem;
#[cfg(test)]
mod tests;
mod three;
mod tile;
#[cfg(target_arch = "x86_64")]
mod wide;
mod winograd;

use super::{
    AddI8, Constant, ConvF32, ConvI8, DenseF32, DenseI8, Simd, Spread, WeightsI8, Window, simd,
};
use conv::{ADD, Ends, Slide, Work};
use gemm::Onto;
use packing::Weights;
pub(super) use peak::round;
pub(super) use winograd::winograd_room;

/// How far a sum of `terms` products may be from the exact one, as a part of the sum of the products' magnitudes: the one
/// statement of what [`Kernels::Fma`](super::Kernels::Fma) and the scalar kernels may differ by, each. Rounding errors add up like a
/// random walk, hence the root; never-seen worst cases (all errors of one sign) reach `terms * 2^-24`.
///
/// Where windows of 3x3 move by one pixel (`winograd`), pixels and weights meet crosswise, and the pixels are all that a tile of places sees,
/// 4x4 or, around 4x4 places, 6x6: what counts as magnitudes there is, for each channel, the sum of the tile's pixels times the sum of the
/// weights'. Of that the tests see errors of at most an eighth of the tolerance. Where numbers are alike, the usual error is 1.6 times that of
/// the scalar kernels with the smaller tiles, and five times with the larger ones. Windows of nothing but zeros have none with either.
pub fn tolerance(terms: usize) -> f32 {
    (4.0 + 2.0 * libm::sqrtf(terms as f32)) * (f32::EPSILON / 2.0)
}

/// Proof that this CPU has AVX2 and FMA, or NEON: one exists only where [`Fma::new`] found them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Fma {
    simd: Simd,
}

/// How often a loop of this folder ran, for the test that the forced kernels are those that run.
#[cfg(test)]
static RUNS: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);

/// Counts a run in tests.
#[inline(always)]
fn ran() {
    #[cfg(test)]
    RUNS.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
}

/// One group, a window that the loops can do, and slices as long as the sizes say.
fn takes(spread: Spread, g: &Window, weights: usize, image: usize, places: usize) -> bool {
    let cells = g.kernel[0] * g.kernel[1];
    spread.groups == 1
        && conv::takes(g)
        && weights == cells * g.in_channels * g.out_channels
        && conv::images(g) == [image, places]
}

/// What sums start from that are not added to anything; layers with more channels are.
static ZEROS: [f32; 512] = [0.0; 512];

/// A plain convolution.
const PLAIN: Spread = Spread {
    groups: 1,
    transposed: false,
};

/// The steps of the weights `[O, kh, kw, C]`: along a row's cells, and along channels of the image that the window slides over and of
/// what lies at its places.
fn steps(spread: Spread, g: &Window) -> (usize, usize, usize) {
    let cells = g.kernel[0] * g.kernel[1];
    match spread.transposed {
        false => (g.in_channels, 1, cells * g.in_channels),
        true => (g.out_channels, cells * g.out_channels, 1),
    }
}

/// From the image that the window slides over to its places.
fn to_places(spread: Spread, g: &Window) -> Slide {
    let (row, image, places) = steps(spread, g);
    conv::forward(g, [g.in_channels, g.out_channels], row, [image, places])
}

/// From places to the image.
///
/// # Safety
/// [`Fma::new`] gave a token, [`takes`] said yes to the slices that `work` is of.
unsafe fn to_image(spread: Spread, g: &Window, work: &Work) {
    let (row, image_step, place_step) = steps(spread, g);
    let channels = [g.out_channels, g.in_channels];
    conv::backward(g, channels, row, [place_step, image_step], |slide| {
        // SAFETY: the caller's promise.
        unsafe { slide.run(work) }
    });
}

impl Fma {
    /// The token, where the CPU has AVX2 and FMA, or NEON.
    pub fn new() -> Option<Fma> {
        let simd = Simd::new()?;
        simd::found().fma.then_some(Fma { simd })
    }

    /// The kernels with the scalar ones' bits on the same CPU.
    pub fn simd(self) -> Simd {
        self.simd
    }

    /// The fastest that this CPU multiplies and adds, to be timed: [`round`] times `rounds` of both, in registers. Returns
    /// a sum that depends on all of them.
    pub(super) fn peak(self, rounds: usize) -> f32 {
        // SAFETY: `self` exists, so the CPU has what they need.
        unsafe { peak::multiply_adds(rounds) }
    }

    /// As the function of this name in [`kernels`](super).
    pub fn conv_f32(self, p: &ConvF32, y: &mut [f32]) {
        self.spread_f32(PLAIN, p, y);
    }

    /// As the function of this name in [`kernels`](super).
    pub fn conv_i8(self, p: &ConvI8, y: &mut [i8]) {
        self.simd.conv_i8(p, y);
    }

    /// As the function of this name in [`kernels`](super).
    pub fn add_i8(self, p: &AddI8, y: &mut [i8]) {
        self.simd.add_i8(p, y);
    }

    /// As the function of this name in [`kernels`](super).
    pub fn conv_input_gradient_f32(self, g: &Window, w: Constant<f32>, gy: &[f32], gx: &mut [f32]) {
        self.spread_input_gradient_f32(PLAIN, g, w, gy, gx);
    }

    /// As the function of this name in [`kernels`](super).
    pub fn conv_set_input_gradient_f32(
        self,
        g: &Window,
        w: Constant<f32>,
        gy: &[f32],
        gx: &mut [f32],
    ) -> bool {
        let Some(zeros) = ZEROS.get(..g.in_channels) else {
            return false;
        };
        let ends = Ends {
            bias: Some(zeros),
            ..ADD
        };
        self.input_gradient(PLAIN, g, &Weights::F32(w), &ends, gy, gx)
    }

    /// As the function of this name in [`kernels`](super).
    pub fn conv_input_gradient_i8(self, g: &Window, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
        self.spread_input_gradient_i8(PLAIN, g, w, gy, gx);
    }

    /// As the function of this name in [`kernels`](super).
    pub fn conv_weight_gradient_f32(self, g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
        self.spread_weight_gradient_f32(PLAIN, g, x, gy, gw);
    }

    /// As the function of this name in [`kernels`](super).
    pub fn depthwise_f32(self, p: &ConvF32, y: &mut [f32]) {
        let g = p.window;
        let takes = depthwise::takes(g, p.w.len(), p.x.len(), y.len());
        if !takes || p.bias.len() != g.out_channels {
            return self.simd.depthwise_f32(p, y);
        }
        ran();
        let (slide, weights) = (depthwise::forward(g), Weights::F32(p.w));
        let ends = Ends {
            bias: Some(p.bias),
            activation: p.activation,
            keeps_ties: p.keeps_ties,
        };
        let work = Work::new(p.x, &weights, &ends, y);
        // SAFETY: `self` exists, so the CPU has what they need; the slices have the window's sizes.
        unsafe { depthwise::run(&slide, &work) }
    }

    /// As the function of this name in [`kernels`](super).
    pub fn depthwise_i8(self, p: &ConvI8, y: &mut [i8]) {
        self.simd.depthwise_i8(p, y);
    }

    /// As the function of this name in [`kernels`](super).
    pub fn depthwise_input_gradient_f32(
        self,
        g: &Window,
        w: Constant<f32>,
        gy: &[f32],
        gx: &mut [f32],
    ) {
        if !self.depthwise_gradient(g, &Weights::F32(w), gy, gx) {
            self.simd.depthwise_input_gradient_f32(g, w, gy, gx);
        }
    }

    /// As the function of this name in [`kernels`](super).
    pub fn depthwise_input_gradient_i8(self, g: &Window, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
        if !self.depthwise_gradient(g, &Weights::I8(w), gy, gx) {
            self.simd.depthwise_input_gradient_i8(g, w, gy, gx);
        }
    }

    /// Whether it could, and if so did.
    fn depthwise_gradient(self, g: &Window, weights: &Weights, gy: &[f32], gx: &mut [f32]) -> bool {
        if !depthwise::takes(g, weights.len(), gx.len(), gy.len()) {
            return false;
        }
        ran();
        let work = Work::new(gy, weights, &ADD, gx);
        depthwise::backward(g, |slide| {
            // SAFETY: `self` exists, so the CPU has what they need; the slices have the window's sizes.
            unsafe { depthwise::run(slide, &work) }
        });
        true
    }

    /// As the function of this name in [`kernels`](super).
    pub fn depthwise_weight_gradient_f32(self, g: &Window, x: &[f32], gy: &[f32], gw: &mut [f32]) {
        self.simd.depthwise_weight_gradient_f32(g, x, gy, gw);
    }

    /// As the function of this name in [`kernels`](super).
    pub fn dense_f32(self, p: &DenseF32, y: &mut [f32]) {
        let outputs = p.w.len() / p.depth.max(1);
        if p.bias.len() != outputs || !dense::takes(p.depth, p.w.len(), p.x.len(), y.len()) {
            return self.simd.dense_f32(p, y);
        }
        ran();
        // SAFETY: `self` exists, so the CPU has what they need; the slices were checked.
        unsafe { dense::forward(p, y) }
    }

    /// As the function of this name in [`kernels`](super).
    pub fn dense_i8(self, p: &DenseI8, y: &mut [i8]) {
        self.simd.dense_i8(p, y);
    }

    /// As the function of this name in [`kernels`](super).
    pub fn dense_input_gradient_f32(self, depth: usize, w: &[f32], gy: &[f32], gx: &mut [f32]) {
        if !dense::takes(depth, w.len(), gx.len(), gy.len()) {
            return self.simd.dense_input_gradient_f32(depth, w, gy, gx);
        }
        ran();
        // SAFETY: `self` exists, so the CPU has what they need; the slices were checked.
        unsafe { dense::input_gradient(depth, w, gy, gx, Onto::Sums) }
    }

    /// As the function of this name in [`kernels`](super).
    pub fn dense_set_input_gradient_f32(
        self,
        depth: usize,
        w: &[f32],
        gy: &[f32],
        gx: &mut [f32],
    ) -> bool {
        if !dense::takes(depth, w.len(), gx.len(), gy.len()) {
            return false;
        }
        ran();
        // SAFETY: `self` exists, so the CPU has what they need; the slices were checked.
        unsafe { dense::input_gradient(depth, w, gy, gx, Onto::Nothing) }
        true
    }

    /// As the function of this name in [`kernels`](super).
    pub fn dense_input_gradient_i8(self, depth: usize, w: WeightsI8, gy: &[f32], gx: &mut [f32]) {
        self.simd.dense_input_gradient_i8(depth, w, gy, gx);
    }

    /// As the function of this name in [`kernels`](super).
    pub fn dense_weight_gradient_f32(self, depth: usize, x: &[f32], gy: &[f32], gw: &mut [f32]) {
        if !dense::takes(depth, gw.len(), x.len(), gy.len()) {
            return self.simd.dense_weight_gradient_f32(depth, x, gy, gw);
        }
        ran();
        // SAFETY: `self` exists, so the CPU has what they need; the slices were checked.
        unsafe { dense::weight_gradient(depth, x, gy, gw, Onto::Sums) }
    }

    /// As the function of this name in [`kernels`](super).
    pub fn dense_set_weight_gradient_f32(
        self,
        depth: usize,
        x: &[f32],
        gy: &[f32],
        gw: &mut [f32],
    ) -> bool {
        if !dense::takes(depth, gw.len(), x.len(), gy.len()) {
            return false;
        }
        ran();
        // SAFETY: `self` exists, so the CPU has what they need; the slices were checked.
        unsafe { dense::weight_gradient(depth, x, gy, gw, Onto::Nothing) }
        true
    }

    /// As the function of this name in [`kernels`](super).
    pub fn spread_f32(self, spread: Spread, p: &ConvF32, y: &mut [f32]) {
        let g = p.window;
        let (image, places, filters) = match spread.transposed {
            false => (p.x.len(), y.len(), g.out_channels),
            true => (y.len(), p.x.len(), g.in_channels),
        };
        if !takes(spread, g, p.w.len(), image, places) || p.bias.len() != filters {
            return match spread {
                PLAIN => self.simd.conv_f32(p, y),
                _ => self.simd.spread_f32(spread, p, y),
            };
        }
        ran();
        let weights = Weights::F32(p.w);
        let ends = Ends {
            bias: Some(p.bias),
            activation: p.activation,
            keeps_ties: p.keeps_ties,
        };
        let work = Work::new(p.x, &weights, &ends, y);
        // SAFETY: `self` exists, so the CPU has what they need; the slices have the window's sizes.
        unsafe {
            match spread.transposed {
                false => to_places(spread, g).run(&work),
                true => to_image(spread, g, &work),
            }
        }
    }

    /// As the function of this name in [`kernels`](super).
    pub fn spread_i8(self, spread: Spread, p: &ConvI8, y: &mut [i8]) {
        self.simd.spread_i8(spread, p, y);
    }

    /// As the function of this name in [`kernels`](super).
    pub fn spread_input_gradient_f32(
        self,
        spread: Spread,
        g: &Window,
        w: Constant<f32>,
        gy: &[f32],
        gx: &mut [f32],
    ) {
        if !self.input_gradient(spread, g, &Weights::F32(w), &ADD, gy, gx) {
            match spread {
                PLAIN => self.simd.conv_input_gradient_f32(g, w, gy, gx),
                _ => self.simd.spread_input_gradient_f32(spread, g, w, gy, gx),
            }
        }
    }

    /// As the function of this name in [`kernels`](super).
    pub fn spread_input_gradient_i8(
        self,
        spread: Spread,
        g: &Window,
        w: WeightsI8,
        gy: &[f32],
        gx: &mut [f32],
    ) {
        // filters are the output's channels: what comes back is the source of the slide
        if !self.input_gradient(spread, g, &Weights::I8(w), &ADD, gy, gx) {
            match spread {
                PLAIN => self.simd.conv_input_gradient_i8(g, w, gy, gx),
                _ => self.simd.spread_input_gradient_i8(spread, g, w, gy, gx),
            }
        }
    }

    /// Whether it could, and if so did.
    fn input_gradient(
        self,
        spread: Spread,
        g: &Window,
        weights: &Weights,
        ends: &Ends,
        gy: &[f32],
        gx: &mut [f32],
    ) -> bool {
        let (image, places) = match spread.transposed {
            false => (gx.len(), gy.len()),
            true => (gy.len(), gx.len()),
        };
        if !takes(spread, g, weights.len(), image, places) {
            return false;
        }
        ran();
        let work = Work::new(gy, weights, ends, gx);
        // SAFETY: `self` exists, so the CPU has what they need; the slices have the window's sizes.
        unsafe {
            match spread.transposed {
                false => to_image(spread, g, &work),
                true => to_places(spread, g).run(&work),
            }
        }
        true
    }

    /// As the function of this name in [`kernels`](super).
    pub fn spread_weight_gradient_f32(
        self,
        spread: Spread,
        g: &Window,
        x: &[f32],
        gy: &[f32],
        gw: &mut [f32],
    ) {
        let (image, places) = if spread.transposed { (gy, x) } else { (x, gy) };
        if !takes(spread, g, gw.len(), image.len(), places.len()) {
            return match spread {
                PLAIN => self.simd.conv_weight_gradient_f32(g, x, gy, gw),
                _ => self.simd.spread_weight_gradient_f32(spread, g, x, gy, gw),
            };
        }
        ran();
        // SAFETY: `self` exists, so the CPU has what they need; the slices have the window's sizes.
        unsafe {
            conv_weights::run(&to_places(spread, g), image.as_ptr(), places.as_ptr(), gw);
        }
    }
}
