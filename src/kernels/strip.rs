//! What the int8 vector kernels of every CPU share: parts of an input image, for most of them widened to 16 bits less the zero point (cells outside
//! the image are zero), and where weights and constants lie.

use super::kept::{Key, Loops};
use super::{ConvI8, Window};
use core::mem::MaybeUninit;

/// Elements of a strip: 24 KiB, of which the first-level cache keeps the greater part.
pub(super) const STRIP: usize = 12 * 1024;

/// Where a weight of a convolution is: filter `o`, element `k` of its window at `o * filter + k * element`.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub filter: usize,
    pub element: usize,
}

impl Layout {
    /// Of a convolution: filter by filter.
    pub fn of(g: &Window) -> Layout {
        Layout {
            filter: g.filter_len(),
            element: 1,
        }
    }
}

/// Widened weights in the order that `loops` read, whose `len` elements `pack` writes: where they are kept, if they can be.
#[inline]
pub(super) fn kept<'a>(
    p: &ConvI8<'a>,
    (loops, layout): (Loops, Layout),
    len: usize,
    pack: impl FnOnce(&mut [MaybeUninit<i16>]),
) -> Option<&'a [MaybeUninit<i16>]> {
    let place = p.w.place()?;
    let g = p.window;
    let [high, wide] = g.kernel;
    let (address, count) = (p.w.as_ptr() as usize, p.w.len());
    let channels = [g.in_channels, g.out_channels];
    let key = Key::new(
        loops,
        &[
            address,
            count,
            layout.filter,
            layout.element,
            high,
            wide,
            channels[0],
            channels[1],
        ],
    );
    place.widened(&key, len, pack)
}

/// The first channel of a depthwise layer's group `i` of eight: of `c` the last eight again, where fewer are left.
pub(super) fn first_of(i: usize, c: usize) -> usize {
    (8 * i).min(c - 8)
}

/// Constants of channels `first..first + 8`; the last one where there are fewer, from `room` then.
#[inline(always)]
pub(super) fn eight<'a>(
    constants: &'a [i32],
    first: usize,
    room: &'a mut [i32; 8],
) -> &'a [i32; 8] {
    if let Some(eight) = constants.get(first..).and_then(|c| c.first_chunk()) {
        return eight;
    }
    for (i, c) in room.iter_mut().enumerate() {
        *c = constants[(first + i).min(constants.len() - 1)];
    }
    room
}

/// The first `N` bytes; where there are fewer, `room` with those at its start.
#[inline(always)]
pub(super) fn bytes<'a, const N: usize>(x: &'a [i8], room: &'a mut [i8; N]) -> &'a [i8; N] {
    if let Some(bytes) = x.first_chunk() {
        return bytes;
    }
    room[..x.len()].copy_from_slice(x);
    room
}

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
    /// For strips of at most `room` elements; `None` where a single window is too large for one.
    pub(super) fn new(g: &Window, room: usize) -> Option<Cut> {
        let c = g.in_channels;
        let (sx, sy) = (g.stride[1], g.stride[0]);
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
    /// Rows of the input that it spans.
    pub(super) fn input_rows(&self, g: &Window) -> usize {
        (self.rows - 1) * g.stride[0] + g.kernel[0]
    }

    /// Writes row `r` of the strip's input to all of `to`, which is one `pitch` long. Shifted to the left by `doubling`.
    #[inline(always)]
    pub(super) fn row(&self, p: &ConvI8, doubling: u32, r: usize, to: &mut [MaybeUninit<i16>]) {
        let (left, x) = self.image_row(p, r, to.len());
        let (before, rest) = to.split_at_mut(left);
        let (there, behind) = rest.split_at_mut(x.len());
        before.fill(MaybeUninit::new(0));
        for (to, &x) in there.iter_mut().zip(x) {
            to.write((i16::from(x) - p.x_zero_point) << doubling);
        }
        behind.fill(MaybeUninit::new(0));
    }

    /// How much of a row of `len` elements lies left of the image, and what of row `r` is in it.
    #[inline(always)]
    pub(super) fn image_row<'x>(&self, p: &ConvI8<'x>, r: usize, len: usize) -> (usize, &'x [i8]) {
        let g = p.window;
        let c = g.in_channels;
        let row = g.input[1] * c;
        // where the strip's first column is in the image, and how much of the strip lies left of it
        let origin = self.at[1] * g.stride[1];
        let left = (g.padding[1].saturating_sub(origin) * c).min(len);
        let from = (origin.saturating_sub(g.padding[1]) * c).min(row);
        let count = (row - from).min(len - left);
        let image_row = (self.at[0] * g.stride[0] + r).checked_sub(g.padding[0]);
        match image_row.filter(|&iy| iy < g.input[0]) {
            Some(iy) => (
                left,
                &p.x[(self.n * g.input[0] + iy) * row + from..][..count],
            ),
            None => (0, &[]),
        }
    }
}

/// Pixels of a strip, in order.
pub(super) struct Pixels {
    left: usize,
    columns: usize,
    column: usize,
    /// Where the next pixel's window begins in the strip, and which pixel of the output it is.
    next: (usize, usize),
    /// Where the first one's of the row does.
    row: (usize, usize),
    /// To the next column, and to the next row.
    step: (usize, usize),
    width: usize,
}

impl Pixels {
    /// Of a strip whose rows are `pitch` elements long and hold `channels` to the column.
    pub(super) fn new(strip: &Strip, g: &Window, pitch: usize, channels: usize) -> Pixels {
        let y = (strip.n * g.output[0] + strip.at[0]) * g.output[1] + strip.at[1];
        Pixels {
            left: strip.rows * strip.columns,
            columns: strip.columns,
            column: 0,
            next: (0, y),
            row: (0, y),
            step: (g.stride[1] * channels, g.stride[0] * pitch),
            width: g.output[1],
        }
    }

    /// The next `P` pixels (start in the strip, number in the output); `None` where fewer are left.
    #[inline(always)]
    pub(super) fn take<const P: usize>(&mut self) -> Option<[(usize, usize); P]> {
        self.left = self.left.checked_sub(P)?;
        let mut pixels = [(0, 0); P];
        for pixel in &mut pixels {
            *pixel = self.next;
            self.column += 1;
            self.next = (self.next.0 + self.step.0, self.next.1 + 1);
            if self.column == self.columns {
                self.column = 0;
                self.row = (self.row.0 + self.step.1, self.row.1 + self.width);
                self.next = self.row;
            }
        }
        Some(pixels)
    }
}

/// A convolution whose windows are single pixels has one long row of them.
pub(super) fn flattened(g: &Window) -> Window {
    if g.kernel == [1, 1] && g.stride == [1, 1] && g.padding == [0, 0] && g.input == g.output {
        let pixels = g.batch * g.input[0] * g.input[1];
        return Window {
            batch: 1,
            input: [1, pixels],
            output: [1, pixels],
            dilation: [1, 1],
            ..*g
        };
    }
    *g
}

/// A buffer on the stack. In cache lines of its own, so that few loads straddle two.
#[repr(C, align(64))]
pub(super) struct Scratch<const N: usize, T = i16> {
    elements: [MaybeUninit<T>; N],
}

impl<const N: usize, T: Copy> Scratch<N, T> {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Scratch {
            elements: [MaybeUninit::uninit(); N],
        }
    }

    /// The first `n` elements, `N` at most, as they are.
    #[inline(always)]
    pub(super) fn uncleared(&mut self, n: usize) -> &mut [MaybeUninit<T>] {
        &mut self.elements[..n.min(N)]
    }
}
