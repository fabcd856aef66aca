//! The gradient of a convolution with respect to its weights: patches of the image that the window slides over, times what lies at
//! the window's places. Sums run over places; six elements of a patch meet sixteen channels; with AVX-512 eight
//! meet sixteen, or 32.

use super::conv::{CELLS, DEPTH, PACKED, STRIP, Slide};
use super::tile::{Outcome, Scratch, Segment, Sides, TWICE, WIDE, WIDE_ROWS, block};
use crate::kernels::{Activation, simd};

/// `gw += ` patches of `image` times `places`; the slide's source is the image, its destination what lies at the places.
///
/// # Safety
/// `takes` said yes; `image` and `places` have the slide's sizes.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
pub(super) unsafe fn run(slide: &Slide, image: *const f32, places: *const f32, gw: &mut [f32]) {
    let (mut sums, mut strip) = (Scratch::<PACKED>::new(), Scratch::<STRIP>::new());
    let (sums, strip) = (sums.start(), strip.start());
    let cells = slide.kernel[0] * slide.kernel[1];
    let (depth, rows) = slide.cut(DEPTH);
    let rows = rows.min(CELLS);
    let panels = slide.channels.div_ceil(WIDE);
    let found = simd::found();
    let at_once = (PACKED / (cells * depth * WIDE)).min(panels);
    for c in (0..slide.source_channels).step_by(depth) {
        let depth = depth.min(slide.source_channels - c);
        let panel = cells * depth * WIDE;
        for first in (0..panels).step_by(at_once) {
            let panels = at_once.min(panels - first);
            // SAFETY: `at_once` panels fit.
            unsafe { sums.write_bytes(0, panels * panel) };
            for n in 0..slide.batch {
                for y in (0..slide.count[0]).step_by(rows) {
                    let rows = rows.min(slide.count[0] - y);
                    // SAFETY: `cut` gave depth and rows.
                    let strip = unsafe { slide.strip(image, n, [y, rows], [c, depth], strip) };
                    let columns = slide.count[1];
                    let mut segments = [Segment::default(); CELLS];
                    for (r, s) in segments.iter_mut().enumerate().take(rows) {
                        *s = Segment {
                            a: r * slide.stride[0] * strip.row,
                            b: r * columns * slide.channels,
                            len: columns,
                        };
                    }
                    let mut window = [Segment::default(); CELLS];
                    let runs = slide.segments(&strip, depth, 1, &mut window);
                    let pixel = (n * slide.count[0] + y) * columns;
                    let mut p = 0;
                    while p < panels {
                        let o = (first + p) * WIDE;
                        let two = found.wide && p + 1 < panels;
                        let piece = Piece {
                            patch: &window[..runs],
                            image: strip.start,
                            step: slide.stride[1] * strip.pixel,
                            places: places.wrapping_add(pixel * slide.channels + o),
                            channels: slide.channels,
                            lanes: (slide.channels - o).min(if two { TWICE } else { WIDE }),
                            segments: &segments[..rows],
                            sums: sums.wrapping_add(p * panel),
                            panel,
                        };
                        // SAFETY: the strip holds the windows of all these places; the sums of a panel are its own.
                        unsafe {
                            match piece.lanes {
                                _ if two => piece.blocks::<WIDE_ROWS, 4, true>(),
                                9.. if found.wide => piece.blocks::<WIDE_ROWS, 2, true>(),
                                WIDE => piece.blocks::<6, 2, false>(),
                                9.. => piece.blocks::<6, 2, true>(),
                                8 => piece.blocks::<8, 1, false>(),
                                _ => piece.blocks::<8, 1, true>(),
                            }
                        }
                        p += 1 + usize::from(two);
                    }
                }
            }
            for p in 0..panels {
                let o = (first + p) * WIDE;
                let lanes = WIDE.min(slide.channels - o);
                // SAFETY: written above, all of it.
                let sums = unsafe { core::slice::from_raw_parts(sums.add(p * panel), panel) };
                add(slide, [c, depth], [o, lanes], sums, gw);
            }
        }
    }
}

/// Adds the sums of a panel to the weights that they belong to.
fn add(
    slide: &Slide,
    [c, depth]: [usize; 2],
    [first, lanes]: [usize; 2],
    sums: &[f32],
    gw: &mut [f32],
) {
    let [row, column, source, destination] = slide.weight_step.map(|s| s as usize);
    for (cell, sums) in sums.chunks_exact(depth * WIDE).enumerate() {
        let at = cell / slide.kernel[1] * row + cell % slide.kernel[1] * column + c * source;
        for lane in 0..lanes {
            let at = at + (first + lane) * destination;
            for k in 0..depth {
                gw[at + k * source] += sums[k * WIDE + lane];
            }
        }
    }
}

/// Some rows of places of one sample, for one panel of channels or two.
struct Piece<'a> {
    /// Runs of the patch: `a` in the strip, `b` in the patch.
    patch: &'a [Segment],
    image: *const f32,
    step: usize,
    places: *const f32,
    channels: usize,
    lanes: usize,
    segments: &'a [Segment],
    /// A panel's, and how many elements it has.
    sums: *mut f32,
    panel: usize,
}

impl Piece<'_> {
    /// # Safety
    /// The patches of all places lie in the strip; `sums` has room for a patch times 16, or for two of these.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    unsafe fn blocks<const M: usize, const V: usize, const MASKED: bool>(&self) {
        let mut runs = self.patch.iter();
        let mut run = runs.next().copied().unwrap_or_default();
        let mut k = 0;
        loop {
            let mut a = [self.image; M];
            let mut to = [self.sums; M];
            let mut rows = 0;
            for r in 0..M {
                if k == run.len {
                    match runs.next() {
                        Some(next) => (run, k) = (*next, 0),
                        None => break,
                    }
                }
                a[r] = self.image.wrapping_add(run.a + k);
                to[r] = self.sums.wrapping_add((run.b + k) * WIDE);
                k += 1;
                rows += 1;
            }
            if rows == 0 {
                return;
            }
            let sides = Sides {
                a,
                a_step: self.step,
                b: self.places,
                b_step: self.channels,
                b_panel: WIDE,
                segments: self.segments,
            };
            let out = Outcome {
                to,
                to_panel: self.panel,
                rows,
                lanes: self.lanes,
                bias: None,
                activation: Activation::None,
            };
            // SAFETY: rows without an element of the patch read the strip's first windows; the rest is the caller's promise.
            unsafe { block::<M, V, MASKED>(&sides, &out) };
        }
    }
}
