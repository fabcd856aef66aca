//! The loops everything else is made of: a block of outputs that stays in registers while the sum runs.

#![allow(clippy::needless_range_loop)] // rows and vectors are registers: numbered, in loops that are unrolled

#[cfg(target_arch = "x86_64")]
use super::wide;
use crate::kernels::Activation;
use crate::kernels::f32x8::{F8, Mask};

/// Rows of a block of sixteen lanes where registers have 512 bits: so many sums hide how long a multiply-add takes. Others have room for six.
pub(super) const WIDE_ROWS: usize = 8;

/// Channels, or lanes, of a panel.
pub(super) const WIDE: usize = 16;

/// The same of two panels.
pub(super) const TWICE: usize = 2 * WIDE;

/// A run of the sum: where it starts behind each row of `a`, where in `b`, and how many terms it has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Segment {
    pub a: usize,
    pub b: usize,
    pub len: usize,
}

/// The two sides of a block of sums, `M` rows by up to 16 lanes, or by two panels of up to 16: `sum[r][lane] = sum_k a[r][k a_step]
/// b[k b_step + lane]`, over all segments. Offsets and steps count elements.
#[derive(Clone, Copy)]
pub(super) struct Sides<'a, const M: usize> {
    pub a: [*const f32; M],
    pub a_step: usize,
    pub b: *const f32,
    pub b_step: usize,
    /// From a panel's first element to the next panel's.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub b_panel: usize,
    pub segments: &'a [Segment],
}

/// Where a block of sums goes, and what happens to it.
#[derive(Clone, Copy)]
pub(super) struct Outcome<'a, const M: usize> {
    pub to: [*mut f32; M],
    /// From where a panel's first lane goes to where the next panel's does.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub to_panel: usize,
    /// How many of the rows, the first ones, are written.
    pub rows: usize,
    /// How many lanes are written.
    pub lanes: usize,
    /// What the sums start from; without it what is at `to`.
    pub bias: Option<&'a [f32; TWICE]>,
    pub activation: Activation,
}

/// The least and the greatest that passes.
pub(super) fn rails(activation: Activation) -> [f32; 2] {
    match activation {
        Activation::None => [f32::NEG_INFINITY, f32::INFINITY],
        Activation::Relu => [0.0, f32::INFINITY],
        Activation::Relu6 => [0.0, 6.0],
    }
}

/// [`Activation::apply`] in eight lanes, without a branch: the least and the greatest that passes. (Of two numbers that do not compare `max`
/// and `min` give the second.)
#[derive(Clone, Copy)]
pub(super) struct Rails {
    low: F8,
    high: F8,
}

impl Rails {
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    #[inline]
    pub fn new(activation: Activation) -> Rails {
        let [low, high] = rails(activation);
        Rails {
            low: F8::splat(low),
            high: F8::splat(high),
        }
    }

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    #[inline]
    pub fn clamp(self, x: F8) -> F8 {
        F8::min(self.high, F8::max(self.low, x))
    }
}

/// A block of sums, `M` rows by `8 V` lanes. [`WIDE_ROWS`] rows of sixteen or, in two panels, of 32 are for CPUs with registers of 512 bits
/// alone.
///
/// # Safety
/// Every element of `a` and `b` that the segments name can be read (of `b` only the first `lanes` of a row where `MASKED`), and the
/// first `rows` of `to` can be read and written for `lanes` elements. No element of `to` is an element of `a` or `b`.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
#[inline]
pub(super) unsafe fn block<const M: usize, const V: usize, const MASKED: bool>(
    sides: &Sides<M>,
    out: &Outcome<M>,
) {
    #[cfg(target_arch = "x86_64")]
    if V >= 2 && M == WIDE_ROWS {
        // SAFETY: the caller's promise.
        return unsafe {
            match V {
                2 => wide::block::<M, 1>(sides, out),
                _ => wide::block::<M, 2>(sides, out),
            }
        };
    }
    let mut masks = [Mask::first(0); V];
    for (v, m) in masks.iter_mut().enumerate() {
        *m = Mask::first(out.lanes.saturating_sub(8 * v));
    }
    let full = out.lanes >= 8 * V;
    let mut sums = [[F8::zero(); V]; M];
    for r in 0..M {
        for v in 0..V {
            sums[r][v] = match out.bias {
                // SAFETY: `bias` has 32 elements and `8 V` is at most that.
                Some(bias) => unsafe { F8::load(bias.as_ptr().add(8 * v)) },
                None if r >= out.rows => sums[r][v],
                // SAFETY: the caller's promise about `to`.
                None if full => unsafe { F8::load(out.to[r].add(8 * v)) },
                // SAFETY: the same; lanes that are not there are not read.
                None => unsafe { F8::load_some(out.to[r].wrapping_add(8 * v), masks[v]) },
            };
        }
    }
    for segment in sides.segments {
        let mut at = segment.a;
        let mut b = sides.b.wrapping_add(segment.b);
        for _ in 0..segment.len {
            let mut lanes = [F8::zero(); V];
            for v in 0..V {
                lanes[v] = match MASKED {
                    // SAFETY: the caller's promise about `b`; lanes that are not there are not read.
                    true => unsafe { F8::load_some(b.wrapping_add(8 * v), masks[v]) },
                    // SAFETY: the caller's promise about `b`.
                    false => unsafe { F8::load(b.add(8 * v)) },
                };
            }
            for r in 0..M {
                // SAFETY: the caller's promise about `a`.
                let x = unsafe { F8::splat(*sides.a[r].add(at)) };
                for v in 0..V {
                    sums[r][v] = F8::mul_add(x, lanes[v], sums[r][v]);
                }
            }
            at += sides.a_step;
            b = b.wrapping_add(sides.b_step);
        }
    }
    let rails = Rails::new(out.activation);
    for r in 0..M {
        if r >= out.rows {
            continue;
        }
        for v in 0..V {
            let y = rails.clamp(sums[r][v]);
            match full {
                // SAFETY: the caller's promise about `to`.
                true => unsafe { y.store(out.to[r].add(8 * v)) },
                // SAFETY: the same; lanes that are not there are not written.
                false => unsafe { y.store_some(out.to[r].wrapping_add(8 * v), masks[v]) },
            }
        }
    }
}

/// `sum[r][c] = sum_k a[r][k] b[c][k]` over all segments, eight terms at a time, for results with too few channels to fill lanes.
/// [`WIDE_ROWS`] rows and more than one channel are for CPUs with registers of 512 bits alone, and for segments of whole eights.
///
/// # Safety
/// Every element of `a` and `b` that the segments name can be read.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
#[inline]
pub(super) unsafe fn dots<const M: usize, const C: usize>(
    a: &[*const f32; M],
    b: &[*const f32; C],
    segments: &[Segment],
) -> [[f32; C]; M] {
    #[cfg(target_arch = "x86_64")]
    if C > 1 && M == WIDE_ROWS {
        // SAFETY: the caller's promise.
        return unsafe { wide::dots(a, b, segments) };
    }
    let mut sums = [[F8::zero(); C]; M];
    for segment in segments {
        let whole = segment.len / 8 * 8;
        let mut k = 0;
        while k < whole {
            let mut y = [F8::zero(); C];
            for c in 0..C {
                // SAFETY: inside the segment.
                y[c] = unsafe { F8::load(b[c].add(segment.b + k)) };
            }
            for r in 0..M {
                // SAFETY: inside the segment.
                let x = unsafe { F8::load(a[r].add(segment.a + k)) };
                for c in 0..C {
                    sums[r][c] = F8::mul_add(x, y[c], sums[r][c]);
                }
            }
            k += 8;
        }
        if whole < segment.len {
            let m = Mask::first(segment.len - whole);
            let mut y = [F8::zero(); C];
            for c in 0..C {
                // SAFETY: inside the segment, as the mask has it.
                y[c] = unsafe { F8::load_some(b[c].add(segment.b + k), m) };
            }
            for r in 0..M {
                // SAFETY: inside the segment, as the mask has it.
                let x = unsafe { F8::load_some(a[r].add(segment.a + k), m) };
                for c in 0..C {
                    sums[r][c] = F8::mul_add(x, y[c], sums[r][c]);
                }
            }
        }
    }
    let mut out = [[0.0; C]; M];
    for c in 0..C {
        let fours = M / 4 * 4;
        for r in (0..fours).step_by(4) {
            let mut four = [0.0; 4];
            let sums = F8::sum_4([0, 1, 2, 3].map(|i| sums[r + i][c]));
            // SAFETY: four elements.
            unsafe { sums.store(four.as_mut_ptr()) };
            for i in 0..4 {
                out[r + i][c] = four[i];
            }
        }
        for r in fours..M {
            out[r][c] = sums[r][c].sum();
        }
    }
    out
}

/// A buffer on the stack that is not cleared: whoever reads an element has written it. It begins with a cache line, so that vectors in
/// it cross none.
#[repr(align(64))]
pub(super) struct Scratch<const N: usize>(core::mem::MaybeUninit<[f32; N]>);

impl<const N: usize> Scratch<N> {
    #[inline(always)]
    pub fn new() -> Self {
        Scratch(core::mem::MaybeUninit::uninit())
    }

    /// Its first element.
    #[inline(always)]
    pub fn start(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }
}
