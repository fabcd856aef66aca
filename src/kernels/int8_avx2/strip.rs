//! Part of an input image, widened to 16 bits less the zero point: cells outside the image are zero.

use super::super::{ConvI8, Window};

/// Elements of a strip: 24 KiB, of which the first-level cache keeps the greater part.
pub(super) const STRIP: usize = 12 * 1024;

/// How an image is cut into strips.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// Rows of outputs in a strip.
    pub rows: usize,
    /// Columns of outputs in a strip.
    pub columns: usize,
}

/// One strip: outputs `rows` by `columns` from `at` on, of sample `n`.
#[derive(Clone, Copy)]
pub(super) struct Strip {
    pub n: usize,
    pub at: [usize; 2],
    pub rows: usize,
    pub columns: usize,
    /// Elements from one row of the strip's input to the next.
    pub pitch: usize,
}

impl Cut {
    /// `None` where a single window is too large for a strip.
    pub(super) fn new(g: &Window) -> Option<Cut> {
        let c = g.in_channels;
        let (sx, sy) = (g.stride[1], g.stride[0]);
        // one element more: sums of pairs may look at it
        let room = STRIP - 1;
        let widest = (room / g.kernel[0].checked_mul(c)?).checked_sub(g.kernel[1])? / sx + 1;
        let columns = widest.min(g.output[1]);
        let pitch = ((columns - 1) * sx + g.kernel[1]) * c;
        let rows = match columns == g.output[1] {
            true => ((room / pitch).checked_sub(g.kernel[0])? / sy + 1).min(g.output[0]),
            false => 1,
        };
        Some(Cut { rows, columns })
    }

    /// All strips of all samples.
    pub(super) fn strips<'a>(&self, g: &'a Window) -> impl Iterator<Item = Strip> + use<'a> {
        let cut = *self;
        let starts = move |axis: usize, step: usize| (0..g.output[axis]).step_by(step.max(1));
        (0..g.batch).flat_map(move |n| {
            starts(0, cut.rows).flat_map(move |oy| {
                starts(1, cut.columns).map(move |ox| {
                    let columns = cut.columns.min(g.output[1] - ox);
                    Strip {
                        n,
                        at: [oy, ox],
                        rows: cut.rows.min(g.output[0] - oy),
                        columns,
                        pitch: ((columns - 1) * g.stride[1] + g.kernel[1]) * g.in_channels,
                    }
                })
            })
        })
    }
}

impl Strip {
    /// Elements that it takes.
    pub(super) fn len(&self, g: &Window) -> usize {
        ((self.rows - 1) * g.stride[0] + g.kernel[0]) * self.pitch + 1
    }

    /// Writes the strip's input to `to`, which is zero.
    #[inline(always)]
    pub(super) fn fill(&self, p: &ConvI8, to: &mut [i16]) {
        let g = p.window;
        let c = g.in_channels;
        let row = g.input[1] * c;
        // where the strip's first column is in the image, and how much of the strip lies left of it
        let origin = self.at[1] * g.stride[1];
        let left = g.padding[1].saturating_sub(origin) * c;
        let from = origin.saturating_sub(g.padding[1]) * c;
        let count = row
            .saturating_sub(from)
            .min(self.pitch.saturating_sub(left));
        if count == 0 {
            return;
        }
        for (r, to) in to.chunks_exact_mut(self.pitch).enumerate() {
            let Some(iy) = (self.at[0] * g.stride[0] + r).checked_sub(g.padding[0]) else {
                continue;
            };
            if iy >= g.input[0] {
                break;
            }
            let x = &p.x[(self.n * g.input[0] + iy) * row + from..][..count];
            for (to, &x) in to[left..][..count].iter_mut().zip(x) {
                *to = i16::from(x) - p.x_zero_point;
            }
        }
    }

    /// Where output pixel `i` of the strip begins in the strip, and which pixel of the output it is.
    #[inline(always)]
    pub(super) fn pixel(&self, g: &Window, row: usize, column: usize) -> (usize, usize) {
        let at = row * g.stride[0] * self.pitch + column * g.stride[1] * g.in_channels;
        let y = (self.n * g.output[0] + self.at[0] + row) * g.output[1] + self.at[1] + column;
        (at, y)
    }
}

/// Pixels of a strip, in order.
pub(super) struct Pixels<'a> {
    pub strip: Strip,
    pub window: &'a Window,
    pub row: usize,
    pub column: usize,
}

impl Pixels<'_> {
    /// The next `P` pixels (start in the strip, number in the output); `None` where fewer are left.
    #[inline(always)]
    pub(super) fn take<const P: usize>(&mut self) -> Option<[(usize, usize); P]> {
        let done = self.row * self.strip.columns + self.column;
        if self.strip.rows * self.strip.columns - done < P {
            return None;
        }
        let mut pixels = [(0, 0); P];
        for pixel in &mut pixels {
            *pixel = self.strip.pixel(self.window, self.row, self.column);
            self.column += 1;
            if self.column == self.strip.columns {
                (self.row, self.column) = (self.row + 1, 0);
            }
        }
        Some(pixels)
    }
}
