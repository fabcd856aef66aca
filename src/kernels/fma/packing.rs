//! The weights of a slide, and the order in which loops read them: made once a session where there is room, else once a call.

use super::conv::Slide;
use super::tile::WIDE;
use crate::kernels::f32x8::F8;
use crate::kernels::kept::{Key, Loops};
use crate::kernels::{Constant, Place, WeightsI8};

/// Where the weights come from.
#[derive(Clone, Copy)]
pub(super) enum Weights<'a> {
    F32(Constant<'a, f32>),
    /// Times the scale of the filter, which is the source's channel: only gradients take them.
    I8(WeightsI8<'a>),
}

impl Weights<'_> {
    pub fn len(&self) -> usize {
        match self {
            Weights::F32(w) => w.len(),
            Weights::I8(w) => w.w.len(),
        }
    }

    /// Where they are kept in another order.
    fn place(&self) -> Place<'_> {
        match self {
            Weights::F32(w) => w.place(),
            Weights::I8(w) => w.w.place(),
        }
    }

    /// What makes them these and no others.
    fn identity(&self) -> [usize; 3] {
        match self {
            Weights::F32(w) => [w.as_ptr() as usize, 0, 0],
            Weights::I8(WeightsI8 { w, quant }) => {
                let scales = quant.channel_scales.as_ptr() as usize;
                let scale = quant.scale.to_bits() as usize;
                [w.as_ptr() as usize, scales, scale]
            }
        }
    }

    #[inline(always)]
    pub fn get(&self, i: usize, source: usize) -> f32 {
        match self {
            Weights::F32(w) => w[i],
            Weights::I8(w) => f32::from(w.w[i]) * w.quant.scale_of(source),
        }
    }
}

impl Slide {
    /// Weights in the order that `loops` read, whose `len` elements `pack` writes: where they are kept, if they can be.
    ///
    /// # Safety
    /// `pack` writes all of the `len` elements that are read, and they follow from the loops, `detail`, the weights, their steps, the window's
    /// cells and the channels: from nothing else of the slide.
    #[inline]
    pub(super) unsafe fn kept(
        &self,
        weights: &Weights,
        (loops, detail): (Loops, usize),
        len: usize,
        pack: impl FnOnce(*mut f32),
    ) -> Option<*const f32> {
        let place = weights.place()?;
        let [address, scales, scale] = weights.identity();
        let [row, column, from, to] = self.weight_step.map(|step| step as usize);
        let [high, wide] = self.kernel;
        let channels = [self.source_channels, self.channels];
        let key = Key::new(
            loops,
            &[
                detail,
                address,
                scales,
                scale,
                self.weight,
                row,
                column,
                from,
                to,
                high,
                wide,
                channels[0],
                channels[1],
            ],
        );
        // SAFETY: the caller's promise; the loops' number stands for their type.
        unsafe { place.get(&key, len, pack) }
    }

    /// The same; where they cannot be kept, in `room` for as many.
    ///
    /// # Safety
    /// As [`Slide::kept`], and `pack` may write to `room`.
    #[inline]
    pub(super) unsafe fn in_order(
        &self,
        weights: &Weights,
        loops: (Loops, usize),
        (len, room): (usize, *mut f32),
        pack: impl Fn(*mut f32),
    ) -> *const f32 {
        // SAFETY: the caller's promise.
        let kept = unsafe { self.kept(weights, loops, len, &pack) };
        kept.unwrap_or_else(|| {
            pack(room);
            room
        })
    }

    /// The weights of one cell that channels `c..c + 8` have for destination channels `o..o + 8`: a vector of these for each of those.
    ///
    /// # Safety
    /// The weights have the slide's sizes; the channels exist.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    #[inline]
    pub(super) unsafe fn eight(
        &self,
        weights: &Weights,
        [i, j]: [usize; 2],
        c: usize,
        o: usize,
    ) -> [F8; 8] {
        let [row, column, source, destination] = self.weight_step;
        let cell = self.weight as isize + i as isize * row + j as isize * column;
        let first = cell + c as isize * source + o as isize * destination;
        let mut out = [F8::zero(); 8];
        match weights {
            Weights::F32(w) if destination == 1 || source == 1 => {
                let step = if source == 1 { destination } else { source };
                let mut at = w.as_ptr().wrapping_offset(first);
                for row in &mut out {
                    // SAFETY: the caller's promise; channels of one side lie beside each other.
                    *row = unsafe { F8::load(at) };
                    at = at.wrapping_offset(step);
                }
                if source == 1 {
                    out = F8::transpose(out);
                }
            }
            _ => {
                for (k, out) in out.iter_mut().enumerate() {
                    let at = first + k as isize * source;
                    let w = |lane: isize| weights.get((at + lane * destination) as usize, c + k);
                    *out = F8::from_array([0, 1, 2, 3, 4, 5, 6, 7].map(w));
                }
            }
        }
        out
    }

    /// The weights of channels `c..c + block` for destination channels `first..first + lanes`; `step` from term to term, and from
    /// channel to channel. Lanes up to 16 that do not exist are zero where terms are 16 apart.
    ///
    /// # Safety
    /// The weights have the slide's sizes, `to` has room for `kernel * block` terms of 16 channels, or of `lanes`.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    pub(super) unsafe fn pack(
        &self,
        weights: &Weights,
        [c, block]: [usize; 2],
        [first, lanes]: [usize; 2],
        step: [usize; 2],
        to: *mut f32,
    ) {
        let [row, column, source, destination] = self.weight_step;
        let all = if step[0] == WIDE { WIDE } else { lanes };
        let whole = step[0] == WIDE && lanes == WIDE && block.is_multiple_of(8);
        let mut cell_to = to;
        for i in 0..self.kernel[0] as isize {
            for j in 0..self.kernel[1] as isize {
                let cell = self.weight as isize + i * row + j * column;
                if whole {
                    for k in (0..block).step_by(8) {
                        for lane in (0..WIDE).step_by(8) {
                            let to = cell_to.wrapping_add(k * WIDE + lane);
                            let cell = [i as usize, j as usize];
                            // SAFETY: `whole`; eight terms of this cell, eight lanes of each.
                            unsafe {
                                let w = self.eight(weights, cell, c + k, first + lane);
                                for (k, w) in w.iter().enumerate() {
                                    w.store(to.add(k * WIDE));
                                }
                            }
                        }
                    }
                    cell_to = cell_to.wrapping_add(block * WIDE);
                    continue;
                }
                for lane in 0..all {
                    let o = first + lane;
                    let at = cell + o as isize * destination;
                    for k in 0..block {
                        let i = (at + (c + k) as isize * source) as usize;
                        let w = match lane < lanes {
                            true => weights.get(i, c + k),
                            false => 0.0,
                        };
                        // SAFETY: term `k` of this cell, a lane of `all`.
                        unsafe { cell_to.add(k * step[0] + lane * step[1]).write(w) };
                    }
                }
                cell_to = cell_to.wrapping_add(block * step[0]);
            }
        }
    }
}
