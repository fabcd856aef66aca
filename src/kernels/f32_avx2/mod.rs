//! f32 loops without sums, eight elements at a time: the bits of `scalar`'s. Compilers leave branches in those, and which way they go
//! follows the data.
#![allow(unsafe_code)] // loads and stores of vectors, inside slices whose lengths are looked at first

mod adam;
mod elementwise;
mod pool;
mod pool_2x2;
mod tanh;
#[cfg(test)]
mod tests;

use super::Activation;
use core::arch::x86_64::*;

pub(super) use adam::adam;
pub(super) use elementwise::{add, block, passing};
pub(super) use pool::{argmax, fits, maximum, maximum_gradient};
pub(super) use pool_2x2::{
    covers, find as find_2x2, maximum_gradient as maximum_gradient_2x2, takes as is_2x2,
};
pub(super) use tanh::tanh;

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
