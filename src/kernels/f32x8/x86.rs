//! With AVX2 and FMA.

use core::arch::x86_64::*;

/// Eight lanes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(in super::super) struct F8(__m256);

/// Four lanes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(in super::super) struct F4(__m128);

/// Some of eight lanes: what is loaded and stored of a vector.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(in super::super) struct Mask(__m256i);

impl Mask {
    /// The first `lanes`, or all.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn first(lanes: usize) -> Mask {
        let numbers = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let lanes = _mm256_set1_epi32(lanes.min(8) as i32);
        Mask(_mm256_cmpgt_epi32(lanes, numbers))
    }

    /// All lanes, or none.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn all_if(all: bool) -> Mask {
        Mask(_mm256_set1_epi32(-i32::from(all)))
    }
}

impl From<__m256> for F8 {
    #[inline(always)]
    fn from(lanes: __m256) -> F8 {
        F8(lanes)
    }
}

impl From<F8> for __m256 {
    #[inline(always)]
    fn from(lanes: F8) -> __m256 {
        lanes.0
    }
}

impl F8 {
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn zero() -> F8 {
        F8(_mm256_setzero_ps())
    }

    /// `x` in every lane.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn splat(x: f32) -> F8 {
        F8(_mm256_set1_ps(x))
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn from_array(x: [f32; 8]) -> F8 {
        // SAFETY: eight elements.
        unsafe { F8::load(x.as_ptr()) }
    }

    /// # Safety
    /// Eight elements can be read.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub unsafe fn load(from: *const f32) -> F8 {
        // SAFETY: the caller's promise.
        F8(unsafe { _mm256_loadu_ps(from) })
    }

    /// Lanes that the mask has not are zero, and not read.
    ///
    /// # Safety
    /// The mask's elements can be read.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub unsafe fn load_some(from: *const f32, mask: Mask) -> F8 {
        // SAFETY: the caller's promise.
        F8(unsafe { _mm256_maskload_ps(from, mask.0) })
    }

    /// # Safety
    /// Eight elements can be written.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    /// Lanes that the mask has not are not written.
    ///
    /// # Safety
    /// The mask's elements can be written.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub unsafe fn store_some(self, to: *mut f32, mask: Mask) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_maskstore_ps(to, mask.0, self.0) }
    }

    /// `a b + c`, rounded once.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn mul_add(a: F8, b: F8, c: F8) -> F8 {
        F8(_mm256_fmadd_ps(a.0, b.0, c.0))
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn add(a: F8, b: F8) -> F8 {
        F8(_mm256_add_ps(a.0, b.0))
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn sub(a: F8, b: F8) -> F8 {
        F8(_mm256_sub_ps(a.0, b.0))
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn mul(a: F8, b: F8) -> F8 {
        F8(_mm256_mul_ps(a.0, b.0))
    }

    /// The first where it is greater; the second where not, or where one is not-a-number.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn max(a: F8, b: F8) -> F8 {
        F8(_mm256_max_ps(a.0, b.0))
    }

    /// The first where it is less; the second where not, or where one is not-a-number.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn min(a: F8, b: F8) -> F8 {
        F8(_mm256_min_ps(a.0, b.0))
    }

    /// Lane 0.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn first(self) -> f32 {
        _mm256_cvtss_f32(self.0)
    }

    /// Lanes 0 to 3.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn lower(self) -> F4 {
        F4(_mm256_castps256_ps128(self.0))
    }

    /// Four lanes, and four that do not matter.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn from_lower(x: F4) -> F8 {
        F8(_mm256_castps128_ps256(x.0))
    }

    /// The sum of eight lanes, as a tree.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn sum(self) -> f32 {
        let x = self.0;
        let half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
        _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
    }

    /// [`F8::sum`] of four at once, to the bit.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn sum_4(x: [F8; 4]) -> F4 {
        // of two: lanes 0 to 3 of the first and 4 to 7 of the second, each plus its opposite
        let halves = |a: F8, b: F8| {
            let (straight, crossed) = (
                _mm256_blend_ps::<0xf0>(a.0, b.0),
                _mm256_permute2f128_ps::<0x21>(a.0, b.0),
            );
            _mm256_add_ps(straight, crossed)
        };
        let (ab, cd) = (halves(x[0], x[1]), halves(x[2], x[3]));
        let pairs = _mm256_add_ps(_mm256_unpacklo_ps(ab, cd), _mm256_unpackhi_ps(ab, cd));
        // a, c, a, c and b, d, b, d
        let (ac, bd) = (
            _mm256_castps256_ps128(pairs),
            _mm256_extractf128_ps::<1>(pairs),
        );
        F4(_mm_add_ps(_mm_unpacklo_ps(ac, bd), _mm_unpackhi_ps(ac, bd)))
    }

    /// Rows as columns.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn transpose(rows: [F8; 8]) -> [F8; 8] {
        let rows = rows.map(|row| row.0);
        let mut pairs = rows;
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
        }
        let mut fours = pairs;
        for i in 0..2 {
            let [a, b, c, d] = [0, 1, 2, 3].map(|k| pairs[4 * i + k]);
            fours[4 * i] = _mm256_shuffle_ps::<0x44>(a, c);
            fours[4 * i + 1] = _mm256_shuffle_ps::<0xee>(a, c);
            fours[4 * i + 2] = _mm256_shuffle_ps::<0x44>(b, d);
            fours[4 * i + 3] = _mm256_shuffle_ps::<0xee>(b, d);
        }
        let mut columns = fours;
        for i in 0..4 {
            columns[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
            columns[i + 4] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
        }
        columns.map(F8)
    }
}

impl F4 {
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn splat(x: f32) -> F4 {
        F4(_mm_set1_ps(x))
    }

    /// # Safety
    /// Four elements can be read.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub unsafe fn load(from: *const f32) -> F4 {
        // SAFETY: the caller's promise.
        F4(unsafe { _mm_loadu_ps(from) })
    }

    /// # Safety
    /// Four elements can be written.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm_storeu_ps(to, self.0) }
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn add(a: F4, b: F4) -> F4 {
        F4(_mm_add_ps(a.0, b.0))
    }
}

/// `a b + c` of single numbers, rounded once.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(in super::super) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c)))
}

/// Asks for the cache line at `from`, wherever that may be.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(in super::super) fn prefetch(from: *const f32) {
    _mm_prefetch::<_MM_HINT_T0>(from.cast());
}
