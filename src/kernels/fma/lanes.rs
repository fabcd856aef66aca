//! Eight lanes, or sixteen: what loops are written in whose lanes are channels, each of its own, so that the bits are the same.

use crate::kernels::f32x8::{F8, Mask};
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

/// A register: one exists only where the CPU has such, and functions that make one are for functions that are compiled for it.
pub(super) trait Lanes: Copy {
    /// How many there are.
    const COUNT: usize;

    /// # Safety
    /// The CPU has such registers.
    unsafe fn splat(x: f32) -> Self;

    fn add(a: Self, b: Self) -> Self;

    fn sub(a: Self, b: Self) -> Self;

    /// `x a + b`, rounded once.
    fn mul_add(x: f32, a: Self, b: Self) -> Self;

    /// The same, each lane with an `x` of its own.
    fn mul_add_each(x: Self, a: Self, b: Self) -> Self;

    /// At least the first, at most the second, as [`Rails::clamp`](crate::kernels::fma::tile::Rails::clamp).
    fn clamp(self, rails: [f32; 2]) -> Self;

    /// # Safety
    /// The CPU has such registers, and as many elements can be read.
    unsafe fn load(from: *const f32) -> Self;

    /// Zeros where there is nothing to be read.
    ///
    /// # Safety
    /// As [`Lanes::load`], if it is there.
    unsafe fn load_if(from: *const f32, there: bool) -> Self;

    /// # Safety
    /// As many elements can be written.
    unsafe fn store(self, to: *mut f32);

    /// Eight elements, and where there are more lanes eight that begin `step` elements further on.
    ///
    /// # Safety
    /// As [`Lanes::load`].
    unsafe fn load_eights(from: *const f32, step: usize) -> Self;

    /// As [`Lanes::load_eights`].
    ///
    /// # Safety
    /// As [`Lanes::store`].
    unsafe fn store_eights(self, to: *mut f32, step: usize);
}

impl Lanes for F8 {
    const COUNT: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> F8 {
        // SAFETY: the caller's promise.
        unsafe { F8::splat(x) }
    }

    #[inline(always)]
    fn add(a: F8, b: F8) -> F8 {
        // SAFETY: there are registers.
        unsafe { F8::add(a, b) }
    }

    #[inline(always)]
    fn sub(a: F8, b: F8) -> F8 {
        // SAFETY: there are registers.
        unsafe { F8::sub(a, b) }
    }

    #[inline(always)]
    fn mul_add(x: f32, a: F8, b: F8) -> F8 {
        // SAFETY: there are registers.
        unsafe { F8::mul_add(F8::splat(x), a, b) }
    }

    #[inline(always)]
    fn mul_add_each(x: F8, a: F8, b: F8) -> F8 {
        // SAFETY: there are registers.
        unsafe { F8::mul_add(x, a, b) }
    }

    #[inline(always)]
    fn clamp(self, [low, high]: [f32; 2]) -> F8 {
        // SAFETY: there are registers.
        unsafe { F8::min(F8::splat(high), F8::max(F8::splat(low), self)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> F8 {
        // SAFETY: the caller's promise.
        unsafe { F8::load(from) }
    }

    #[inline(always)]
    unsafe fn load_if(from: *const f32, there: bool) -> F8 {
        // SAFETY: the caller's promise.
        unsafe { F8::load_some(from, Mask::all_if(there)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { F8::store(self, to) }
    }

    #[inline(always)]
    unsafe fn load_eights(from: *const f32, _: usize) -> F8 {
        // SAFETY: the caller's promise.
        unsafe { F8::load(from) }
    }

    #[inline(always)]
    unsafe fn store_eights(self, to: *mut f32, _: usize) {
        // SAFETY: the caller's promise.
        unsafe { F8::store(self, to) }
    }
}

/// Sixteen lanes, of AVX-512.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct F16(__m512);

#[cfg(target_arch = "x86_64")]
impl Lanes for F16 {
    const COUNT: usize = 16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> F16 {
        // SAFETY: the caller's promise.
        F16(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    fn add(a: F16, b: F16) -> F16 {
        // SAFETY: there are registers.
        F16(unsafe { _mm512_add_ps(a.0, b.0) })
    }

    #[inline(always)]
    fn sub(a: F16, b: F16) -> F16 {
        // SAFETY: there are registers.
        F16(unsafe { _mm512_sub_ps(a.0, b.0) })
    }

    #[inline(always)]
    fn mul_add(x: f32, a: F16, b: F16) -> F16 {
        // SAFETY: there are registers.
        F16(unsafe { _mm512_fmadd_ps(_mm512_set1_ps(x), a.0, b.0) })
    }

    #[inline(always)]
    fn mul_add_each(x: F16, a: F16, b: F16) -> F16 {
        // SAFETY: there are registers.
        F16(unsafe { _mm512_fmadd_ps(x.0, a.0, b.0) })
    }

    #[inline(always)]
    fn clamp(self, [low, high]: [f32; 2]) -> F16 {
        // SAFETY: there are registers.
        unsafe {
            let low = _mm512_max_ps(_mm512_set1_ps(low), self.0);
            F16(_mm512_min_ps(_mm512_set1_ps(high), low))
        }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> F16 {
        // SAFETY: the caller's promise.
        F16(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_if(from: *const f32, there: bool) -> F16 {
        let mask = if there { 0xffff } else { 0 };
        // SAFETY: the caller's promise.
        F16(unsafe { _mm512_maskz_loadu_ps(mask, from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn load_eights(from: *const f32, step: usize) -> F16 {
        // SAFETY: the caller's promise.
        unsafe {
            let first = _mm512_castps_pd(_mm512_castps256_ps512(_mm256_loadu_ps(from)));
            let second = _mm256_castps_pd(_mm256_loadu_ps(from.add(step)));
            F16(_mm512_castpd_ps(_mm512_insertf64x4::<1>(first, second)))
        }
    }

    #[inline(always)]
    unsafe fn store_eights(self, to: *mut f32, step: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let second = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0));
            _mm256_storeu_ps(to, _mm512_castps512_ps256(self.0));
            _mm256_storeu_ps(to.add(step), _mm256_castpd_ps(second));
        }
    }
}
