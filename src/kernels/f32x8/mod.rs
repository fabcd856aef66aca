//! Eight f32 side by side: what the loops of [`fma`](super::fma) are written in. One register of AVX2, two of NEON; the same
//! operations in the same lanes, so that what is computed has the same bits on both.
#![allow(unsafe_code)] // loads and stores of vectors

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub(super) use neon::{F4, F8, Mask, mul_add, prefetch};
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{F4, F8, Mask, mul_add, prefetch};

#[cfg(test)]
mod tests;
