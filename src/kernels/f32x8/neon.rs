//! With NEON, which every aarch64 CPU that this is compiled for has: `build.rs` looks.

use core::arch::aarch64::*;
use core::arch::asm;

/// Eight lanes.
#[derive(Clone, Copy)]
pub(in super::super) struct F8([float32x4_t; 2]);

/// Four lanes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(in super::super) struct F4(float32x4_t);

/// The first of eight lanes, so many: what is loaded and stored of a vector.
#[derive(Clone, Copy)]
pub(in super::super) struct Mask(usize);

impl Mask {
    /// The first `lanes`, or all.
    #[inline(always)]
    pub fn first(lanes: usize) -> Mask {
        Mask(lanes.min(8))
    }

    /// All lanes, or none.
    #[inline(always)]
    pub fn all_if(all: bool) -> Mask {
        Mask(8 * usize::from(all))
    }
}

/// Both halves.
#[inline(always)]
fn halves(f: impl Fn(usize) -> float32x4_t) -> F8 {
    F8([f(0), f(1)])
}

impl F8 {
    #[inline(always)]
    pub fn zero() -> F8 {
        F8::splat(0.0)
    }

    /// `x` in every lane.
    #[inline(always)]
    pub fn splat(x: f32) -> F8 {
        // SAFETY: NEON is there.
        F8([unsafe { vdupq_n_f32(x) }; 2])
    }

    #[inline(always)]
    pub fn from_array(x: [f32; 8]) -> F8 {
        // SAFETY: eight elements.
        unsafe { F8::load(x.as_ptr()) }
    }

    /// # Safety
    /// Eight elements can be read.
    #[inline(always)]
    pub unsafe fn load(from: *const f32) -> F8 {
        // SAFETY: the caller's promise.
        halves(|i| unsafe { vld1q_f32(from.add(4 * i)) })
    }

    /// Lanes that the mask has not are zero, and not read.
    ///
    /// # Safety
    /// The mask's elements can be read.
    #[inline(always)]
    pub unsafe fn load_some(from: *const f32, mask: Mask) -> F8 {
        if mask.0 == 8 {
            // SAFETY: the caller's promise.
            return unsafe { F8::load(from) };
        }
        let mut all = [0.0; 8];
        for (i, x) in all.iter_mut().enumerate().take(mask.0) {
            // SAFETY: the caller's promise.
            *x = unsafe { from.add(i).read() };
        }
        F8::from_array(all)
    }

    /// # Safety
    /// Eight elements can be written.
    #[inline(always)]
    pub unsafe fn store(self, to: *mut f32) {
        for i in 0..2 {
            // SAFETY: the caller's promise.
            unsafe { vst1q_f32(to.add(4 * i), self.0[i]) }
        }
    }

    /// Lanes that the mask has not are not written.
    ///
    /// # Safety
    /// The mask's elements can be written.
    #[inline(always)]
    pub unsafe fn store_some(self, to: *mut f32, mask: Mask) {
        let mut all = [0.0; 8];
        // SAFETY: eight elements.
        unsafe { self.store(all.as_mut_ptr()) };
        for (i, x) in all.iter().enumerate().take(mask.0) {
            // SAFETY: the caller's promise.
            unsafe { to.add(i).write(*x) };
        }
    }

    /// `a b + c`, rounded once.
    #[inline(always)]
    pub fn mul_add(a: F8, b: F8, c: F8) -> F8 {
        // SAFETY: NEON is there.
        halves(|i| unsafe { vfmaq_f32(c.0[i], a.0[i], b.0[i]) })
    }

    #[inline(always)]
    pub fn add(a: F8, b: F8) -> F8 {
        // SAFETY: NEON is there.
        halves(|i| unsafe { vaddq_f32(a.0[i], b.0[i]) })
    }

    #[inline(always)]
    pub fn sub(a: F8, b: F8) -> F8 {
        // SAFETY: NEON is there.
        halves(|i| unsafe { vsubq_f32(a.0[i], b.0[i]) })
    }

    #[inline(always)]
    pub fn mul(a: F8, b: F8) -> F8 {
        // SAFETY: NEON is there.
        halves(|i| unsafe { vmulq_f32(a.0[i], b.0[i]) })
    }

    /// The first where it is greater; the second where not, or where one is not-a-number.
    #[inline(always)]
    pub fn max(a: F8, b: F8) -> F8 {
        // SAFETY: NEON is there.
        halves(|i| unsafe { vbslq_f32(vcgtq_f32(a.0[i], b.0[i]), a.0[i], b.0[i]) })
    }

    /// The first where it is less; the second where not, or where one is not-a-number.
    #[inline(always)]
    pub fn min(a: F8, b: F8) -> F8 {
        // SAFETY: NEON is there.
        halves(|i| unsafe { vbslq_f32(vcltq_f32(a.0[i], b.0[i]), a.0[i], b.0[i]) })
    }

    /// Lane 0.
    #[inline(always)]
    pub fn first(self) -> f32 {
        // SAFETY: NEON is there.
        unsafe { vgetq_lane_f32::<0>(self.0[0]) }
    }

    /// Lanes 0 to 3.
    #[inline(always)]
    pub fn lower(self) -> F4 {
        F4(self.0[0])
    }

    /// Four lanes, and four that do not matter.
    #[inline(always)]
    pub fn from_lower(x: F4) -> F8 {
        F8([x.0; 2])
    }

    /// The sum of eight lanes, as a tree.
    #[inline(always)]
    pub fn sum(self) -> f32 {
        F8::sum_4([self; 4]).first()
    }

    /// [`F8::sum`] of four at once, to the bit.
    #[inline(always)]
    pub fn sum_4(x: [F8; 4]) -> F4 {
        // SAFETY: NEON is there.
        unsafe {
            let half = x.map(|x| vaddq_f32(x.0[0], x.0[1]));
            // of two: lanes 0 and 1 of the first and 2 and 3 of the second, each plus its opposite
            let pairs = |a: float32x4_t, b: float32x4_t| {
                let (a, b) = (vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b));
                let low = vreinterpretq_f32_f64(vzip1q_f64(a, b));
                let high = vreinterpretq_f32_f64(vzip2q_f64(a, b));
                vaddq_f32(low, high)
            };
            F4(vpaddq_f32(pairs(half[0], half[1]), pairs(half[2], half[3])))
        }
    }

    /// Rows as columns.
    #[inline(always)]
    pub fn transpose(rows: [F8; 8]) -> [F8; 8] {
        // a quarter: four rows of one half
        let quarter = |row: usize, half: usize| {
            let [a, b, c, d] = [0, 1, 2, 3].map(|k| rows[row + k].0[half]);
            // SAFETY: NEON is there.
            unsafe {
                let twos = [
                    vtrn1q_f32(a, b),
                    vtrn2q_f32(a, b),
                    vtrn1q_f32(c, d),
                    vtrn2q_f32(c, d),
                ]
                .map(|two| vreinterpretq_f64_f32(two));
                [
                    vtrn1q_f64(twos[0], twos[2]),
                    vtrn1q_f64(twos[1], twos[3]),
                    vtrn2q_f64(twos[0], twos[2]),
                    vtrn2q_f64(twos[1], twos[3]),
                ]
                .map(|column| vreinterpretq_f32_f64(column))
            }
        };
        let [a, b, c, d] = [quarter(0, 0), quarter(4, 0), quarter(0, 1), quarter(4, 1)];
        core::array::from_fn(|k| match k {
            0..4 => F8([a[k], b[k]]),
            _ => F8([c[k - 4], d[k - 4]]),
        })
    }
}

impl F4 {
    #[inline(always)]
    pub fn splat(x: f32) -> F4 {
        // SAFETY: NEON is there.
        F4(unsafe { vdupq_n_f32(x) })
    }

    /// # Safety
    /// Four elements can be read.
    #[inline(always)]
    pub unsafe fn load(from: *const f32) -> F4 {
        // SAFETY: the caller's promise.
        F4(unsafe { vld1q_f32(from) })
    }

    /// # Safety
    /// Four elements can be written.
    #[inline(always)]
    pub unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { vst1q_f32(to, self.0) }
    }

    #[inline(always)]
    pub fn add(a: F4, b: F4) -> F4 {
        // SAFETY: NEON is there.
        F4(unsafe { vaddq_f32(a.0, b.0) })
    }

    #[inline(always)]
    fn first(self) -> f32 {
        // SAFETY: NEON is there.
        unsafe { vgetq_lane_f32::<0>(self.0) }
    }
}

/// `a b + c` of single numbers, rounded once.
#[inline(always)]
pub(in super::super) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    F8::mul_add(F8::splat(a), F8::splat(b), F8::splat(c)).first()
}

/// Asks for the cache line at `from`, wherever that may be.
#[inline(always)]
pub(in super::super) fn prefetch(from: *const f32) {
    // SAFETY: a prefetch changes nothing, whatever the address.
    unsafe {
        asm!("prfm pldl1keep, [{from}]", from = in(reg) from, options(readonly, nostack, preserves_flags));
    }
}
