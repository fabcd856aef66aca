//! What `f32_avx2` has loops of its own for: on aarch64 the portable ones are compiled to NEON, which is part of every such CPU.

use super::scalar::{elementwise, pool};
use super::simd::{Simd, ran};
use super::{Activation, AdamF32, Window, shared};

impl Simd {
    /// As the function of this name in [`kernels`](crate::kernels).
    pub fn max_pool_f32(self, g: &Window, x: &[f32], activation: Activation, y: &mut [f32]) {
        ran();
        pool::maximum_f32(g, x, activation, y);
    }

    /// As the function of this name in [`kernels`](crate::kernels).
    pub fn max_pool_index_f32(self, g: &Window, x: &[f32], index: &mut [u8]) {
        ran();
        pool::argmax(g, x, pool::greater, index);
    }

    /// As the function of this name in [`kernels`](crate::kernels).
    pub fn max_pool_and_index_f32(
        self,
        g: &Window,
        x: &[f32],
        activation: Activation,
        y: &mut [f32],
        index: &mut [u8],
    ) {
        self.max_pool_f32(g, x, activation, y);
        self.max_pool_index_f32(g, x, index);
    }

    /// As the function of this name in [`kernels`](crate::kernels).
    pub fn max_pool_gradient(self, g: &Window, index: &[u8], gy: &[f32], gx: &mut [f32]) {
        ran();
        pool::maximum_gradient(g, index, gy, gx);
    }

    /// As the function of this name in [`kernels`](crate::kernels): these loops can only add.
    pub fn max_pool_set_gradient(
        self,
        _g: &Window,
        _index: &[u8],
        _gy: &[f32],
        _gx: &mut [f32],
    ) -> bool {
        false
    }

    /// As the function of this name in [`kernels`](crate::kernels).
    pub fn add_f32(self, x: [&[f32]; 2], activation: Activation, y: &mut [f32]) {
        ran();
        elementwise::add_f32(x, activation, y);
    }

    /// As the function of this name in [`kernels`](crate::kernels).
    pub fn passing_f32(self, activation: Activation, y: &[f32], bits: &mut [u8]) {
        ran();
        elementwise::passing_f32(activation, y, bits);
    }

    /// As the function of this name in [`kernels`](crate::kernels).
    pub fn block_f32(self, bits: &[u8], blocked: f32, gy: &mut [f32]) {
        ran();
        elementwise::block_f32(bits, blocked, gy);
    }

    /// As the function of this name in [`kernels`](crate::kernels).
    pub fn tanh_f32(self, x: &[f32], y: &mut [f32]) {
        ran();
        elementwise::tanh_f32(x, y);
    }

    /// As the function of this name in [`kernels`](crate::kernels).
    pub fn adam_f32(
        self,
        adam: &AdamF32,
        gradients: &[&[f32]],
        parameters: &mut [&mut [f32]],
        moments: [&mut [f32]; 2],
    ) {
        ran();
        let all = 0..shared(gradients, parameters, &moments);
        elementwise::adam_f32(adam, gradients, parameters, moments, all);
    }
}
