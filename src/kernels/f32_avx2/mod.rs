//! f32 loops without sums, eight elements at a time: the bits of `scalar`'s. Compilers leave branches in those, and which way they go
//! follows the data. Those that divide and masks of activations go sixteen at a time where the CPU has
//! AVX-512 (`f32_avx512`).
#![allow(unsafe_code)] // loads and stores of vectors, inside slices whose lengths are looked at first

mod adam;
mod elementwise;
mod pool;
mod pool_2x2;
pub(super) mod tanh;
#[cfg(test)]
mod tests;

use super::scalar::pool as portable;
use super::simd::{Simd, found, ran};
use super::{Activation, AdamF32, Window, f32_avx512, shared};
use core::arch::x86_64::*;
use pool::{argmax, fits, maximum, maximum_and_index, maximum_gradient};

/// Loops that the other vectors leave to the portable ones.
impl Simd {
    /// As the function of this name in [`kernels`](crate::kernels).
    #[inline]
    pub fn max_pool_f32(self, g: &Window, x: &[f32], activation: Activation, y: &mut [f32]) {
        if !fits(g, x.len(), y.len()) {
            return portable::maximum_f32(g, x, activation, y);
        }
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2; the slices were checked.
        unsafe { maximum(g, x, activation, y) }
    }

    /// As the function of this name in [`kernels`](crate::kernels).
    #[inline]
    pub fn max_pool_index_f32(self, g: &Window, x: &[f32], index: &mut [u8]) {
        if !fits(g, x.len(), index.len()) {
            return portable::argmax(g, x, portable::greater, index);
        }
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2; the slices were checked.
        unsafe { argmax(g, x, index) }
    }

    /// As the function of this name in [`kernels`](crate::kernels).
    #[inline]
    pub fn max_pool_and_index_f32(
        self,
        g: &Window,
        x: &[f32],
        activation: Activation,
        y: &mut [f32],
        index: &mut [u8],
    ) {
        if y.len() != index.len() || !fits(g, x.len(), y.len()) {
            self.max_pool_f32(g, x, activation, y);
            return self.max_pool_index_f32(g, x, index);
        }
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2; the slices were checked.
        unsafe { maximum_and_index(g, x, activation, y, index) }
    }

    /// As the function of this name in [`kernels`](crate::kernels).
    #[inline]
    pub fn max_pool_gradient(self, g: &Window, index: &[u8], gy: &[f32], gx: &mut [f32]) {
        if index.len() != gy.len() || !fits(g, gx.len(), gy.len()) {
            return portable::maximum_gradient(g, index, gy, gx);
        }
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2; the slices were checked.
        unsafe { maximum_gradient(g, index, gy, gx) }
    }

    /// As the function of this name in [`kernels`](crate::kernels).
    #[inline]
    pub fn max_pool_set_gradient(
        self,
        g: &Window,
        index: &[u8],
        gy: &[f32],
        gx: &mut [f32],
    ) -> bool {
        let fits = index.len() == gy.len() && fits(g, gx.len(), gy.len());
        if !fits || !pool_2x2::covers(g) {
            return false;
        }
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2; the slices and the window were checked.
        unsafe { pool_2x2::maximum_gradient::<true>(g, index, gy, gx) };
        true
    }

    /// As the function of this name in [`kernels`](crate::kernels).
    #[inline]
    pub fn add_f32(self, x: [&[f32]; 2], activation: Activation, y: &mut [f32]) {
        ran();
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { elementwise::add(x, activation, y) }
    }

    /// As the function of this name in [`kernels`](crate::kernels).
    #[inline]
    pub fn passing_f32(self, activation: Activation, y: &[f32], bits: &mut [u8]) {
        ran();
        let done = match found().wide && activation != Activation::None {
            // SAFETY: the CPU has AVX-512.
            true => unsafe { f32_avx512::passing(activation, y, bits) },
            false => 0,
        };
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { elementwise::passing(activation, &y[done..], &mut bits[done / 8..]) }
    }

    /// As the function of this name in [`kernels`](crate::kernels).
    #[inline]
    pub fn block_f32(self, bits: &[u8], blocked: f32, gy: &mut [f32]) {
        ran();
        let done = match found().wide {
            // SAFETY: the CPU has AVX-512.
            true => unsafe { f32_avx512::block(bits, blocked, gy) },
            false => 0,
        };
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { elementwise::block(&bits[done / 8..], blocked, &mut gy[done..]) }
    }

    /// As the function of this name in [`kernels`](crate::kernels).
    #[inline]
    pub fn tanh_f32(self, x: &[f32], y: &mut [f32]) {
        ran();
        let done = match found().wide && !cfg!(feature = "micromath") {
            // SAFETY: the CPU has AVX-512.
            true => unsafe { f32_avx512::tanh(x, y) },
            false => 0,
        };
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { tanh::tanh(&x[done..], &mut y[done..]) }
    }

    /// As the function of this name in [`kernels`](crate::kernels).
    #[inline]
    pub fn adam_f32(
        self,
        adam: &AdamF32,
        gradients: &[&[f32]],
        parameters: &mut [&mut [f32]],
        moments: [&mut [f32]; 2],
    ) {
        ran();
        let mut all = 0..shared(gradients, parameters, &moments);
        let [first, second] = moments;
        if found().wide {
            let moments = [&mut *first, &mut *second];
            // SAFETY: the CPU has AVX-512; all slices have these elements.
            all.start =
                unsafe { f32_avx512::adam(adam, gradients, parameters, moments, all.clone()) };
        }
        // SAFETY: `self` exists, so the CPU has AVX2; all slices have these elements.
        unsafe { adam::adam(adam, gradients, parameters, [first, second], all) }
    }
}

/// The first `lanes` of eight.
#[target_feature(enable = "avx2")]
#[inline]
fn mask(lanes: usize) -> __m256i {
    let numbers = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes.min(8) as i32), numbers)
}

/// [`Activation::apply`] in eight lanes. (Of two numbers that do not compare `max` and `min` give the second.)
#[target_feature(enable = "avx2")]
#[inline]
fn activate(activation: Activation, x: __m256) -> __m256 {
    let zero = _mm256_setzero_ps();
    match activation {
        Activation::None => x,
        Activation::Relu => _mm256_max_ps(zero, x),
        Activation::Relu6 => _mm256_min_ps(_mm256_set1_ps(6.0), _mm256_max_ps(zero, x)),
    }
}
