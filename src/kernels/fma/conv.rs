//! Convolutions, and what is a convolution in disguise: the gradient of one with respect to its input, and transposed ones.
//!
//! All are one sum: a window slides over a *source* image, every place of it gives one pixel of the *destination*. The gradient of a
//! convolution of stride s is s x s of them, each with every s-th weight, for every s-th pixel. What differs are the weights'
//! steps, and they matter only when weights are packed.

use super::packing::Weights;
use super::tile::{Outcome, Rails, Scratch, Segment, Sides, TWICE, WIDE, WIDE_ROWS, block, dots};
use super::{one, stem, winograd};
use crate::kernels::f32x8::{F4, F8};
use crate::kernels::kept::Loops;
use crate::kernels::{Activation, Window, simd};
use core::ops::Range;

/// Elements of packed weights on the stack: 128 KiB.
pub(super) const PACKED: usize = 32 * 1024;
/// Elements of a strip of the source on the stack: 64 KiB.
pub(super) const STRIP: usize = 16 * 1024;
/// Cells of the largest window.
pub(super) const CELLS: usize = 128;
/// The longest sum that runs without a stop: its weights of 16 channels fill half a first-level cache.
pub(super) const DEPTH: usize = 512;
/// With so few channels at the destination sums run along the lanes.
const FEW: usize = 3;

/// One slide of a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slide {
    pub batch: usize,
    /// Rows, columns and channels of the source.
    pub source: [usize; 2],
    pub source_channels: usize,
    /// Rows, columns and channels of the destination.
    pub destination: [usize; 2],
    pub channels: usize,
    /// The pixels written: first, step and number along each axis.
    pub first: [usize; 2],
    pub step: [usize; 2],
    pub count: [usize; 2],
    /// Cells of the window.
    pub kernel: [usize; 2],
    /// Pixels of the source between places, and between cells.
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// Cell 0 of place 0 lies so far before pixel 0.
    pub padding: [isize; 2],
    /// The weight of cell 0 and channels 0, and the steps along rows, columns, source and destination channels.
    pub weight: usize,
    pub weight_step: [isize; 4],
}

/// A convolution as a slide; `steps` are the weights' along source and destination channels.
pub(super) fn forward(g: &Window, channels: [usize; 2], row: usize, steps: [usize; 2]) -> Slide {
    Slide {
        batch: g.batch,
        source: g.input,
        source_channels: channels[0],
        destination: g.output,
        channels: channels[1],
        first: [0; 2],
        step: [1; 2],
        count: g.output,
        kernel: g.kernel,
        stride: g.stride,
        dilation: g.dilation,
        padding: g.padding.map(|p| p as isize),
        weight: 0,
        weight_step: [
            (g.kernel[1] * row) as isize,
            row as isize,
            steps[0] as isize,
            steps[1] as isize,
        ],
    }
}

/// What remains along one axis of a gradient with respect to the image that the window slides over, for the pixels `first`,
/// `first + stride`, ...
struct Phase {
    /// Cells that meet them.
    cells: usize,
    /// The last of the cells: weights go backwards.
    last_cell: usize,
    count: usize,
    padding: isize,
}

impl Phase {
    fn new(g: &Window, axis: usize, first: usize) -> Phase {
        let (s, d, kernel) = (g.stride[axis], g.dilation[axis], g.kernel[axis]);
        let count = g.input[axis].saturating_sub(first).div_ceil(s);
        if s == 1 {
            return Phase {
                cells: kernel,
                last_cell: kernel - 1,
                count,
                padding: ((kernel - 1) * d) as isize - g.padding[axis] as isize,
            };
        }
        // dilation 1: pixel `first + s q` meets cells `i0 + s t` of places `base + q - t`
        let reach = first + g.padding[axis];
        let (i0, base) = (reach % s, reach / s);
        let cells = kernel.saturating_sub(i0).div_ceil(s);
        Phase {
            cells,
            last_cell: i0 + s * cells.saturating_sub(1),
            count,
            padding: cells as isize - 1 - base as isize,
        }
    }
}

/// `destination += ` the gradient with respect to the image that the window slides over, as slides. `channels` of what comes
/// back and of that image.
pub(super) fn backward(
    g: &Window,
    channels: [usize; 2],
    row: usize,
    steps: [usize; 2],
    mut each: impl FnMut(&Slide),
) {
    for y in 0..g.stride[0].min(g.input[0]) {
        for x in 0..g.stride[1].min(g.input[1]) {
            let (rows, columns) = (Phase::new(g, 0, y), Phase::new(g, 1, x));
            let sign = |axis: usize| -((row * g.stride[axis]) as isize);
            each(&Slide {
                batch: g.batch,
                source: g.output,
                source_channels: channels[0],
                destination: g.input,
                channels: channels[1],
                first: [y, x],
                step: g.stride,
                count: [rows.count, columns.count],
                kernel: [rows.cells, columns.cells],
                stride: [1; 2],
                dilation: [0, 1].map(|i| if g.stride[i] == 1 { g.dilation[i] } else { 1 }),
                padding: [rows.padding, columns.padding],
                weight: (rows.last_cell * g.kernel[1] + columns.last_cell) * row,
                weight_step: [
                    sign(0) * g.kernel[1] as isize,
                    sign(1),
                    steps[0] as isize,
                    steps[1] as isize,
                ],
            });
        }
    }
}

/// Whether slides can do these sizes: a strip of one row with one channel fits, and gradients have whole phases.
pub(super) fn takes(g: &Window) -> bool {
    let whole = |axis: usize| g.stride[axis] == 1 || g.dilation[axis] == 1;
    let cells = g.kernel[0] * g.kernel[1];
    let reach = |axis: usize| (g.kernel[axis].max(1) - 1) * g.dilation[axis] + 1;
    let wide = (g.input[1] + reach(1)).max(g.output[1].max(1) * g.stride[1] + reach(1));
    let sizes = [g.batch, g.in_channels, g.out_channels, cells];
    let images = [g.input, g.output].into_iter().flatten();
    whole(0)
        && whole(1)
        && cells <= CELLS
        && sizes.into_iter().chain(images).all(|n| n > 0)
        && g.stride.iter().all(|&s| s > 0)
        && reach(0) * wide <= STRIP
}

/// The sizes that the slices must have: of the image that the window slides over, and of what comes out at its places.
pub(super) fn images(g: &Window) -> [usize; 2] {
    [
        g.batch * g.input[0] * g.input[1] * g.in_channels,
        g.batch * g.output[0] * g.output[1] * g.out_channels,
    ]
}

/// What the sums of a slide start from and what happens to them.
#[derive(Clone, Copy)]
pub(super) struct Ends<'a> {
    /// One number per channel; without it what is there.
    pub bias: Option<&'a [f32]>,
    pub activation: Activation,
    /// As [`ConvF32::keeps_ties`]; no gradient must.
    pub keeps_ties: bool,
}

/// Adds a gradient to what is there, and does nothing else.
pub(super) const ADD: Ends = Ends {
    bias: None,
    activation: Activation::None,
    keeps_ties: false,
};

/// What a slide goes from, what it multiplies by, and where it goes to.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub source: *const f32,
    pub weights: &'a Weights<'a>,
    pub ends: &'a Ends<'a>,
    pub destination: *mut f32,
}

impl<'a> Work<'a> {
    pub fn new(
        source: &[f32],
        weights: &'a Weights<'a>,
        ends: &'a Ends<'a>,
        destination: &mut [f32],
    ) -> Work<'a> {
        Work {
            source: source.as_ptr(),
            weights,
            ends,
            destination: destination.as_mut_ptr(),
        }
    }
}

/// A strip of the source: rows of pixels that hold no edge.
#[derive(Clone, Copy)]
pub(super) struct Strip {
    pub start: *const f32,
    /// Elements between rows, and between pixels.
    pub row: usize,
    pub pixel: usize,
}

impl Slide {
    /// Rows and columns of the source under `rows` rows of places.
    fn under(&self, rows: usize) -> [usize; 2] {
        let along = |axis: usize, places: usize| {
            (places - 1) * self.stride[axis] + (self.kernel[axis] - 1) * self.dilation[axis] + 1
        };
        [along(0, rows), along(1, self.count[1])]
    }

    /// How many channels of the source at once, and how many rows of places, so that strip and weights fit.
    pub(super) fn cut(&self, depth: usize) -> (usize, usize) {
        let cells = self.kernel[0] * self.kernel[1];
        let [rows, columns] = self.under(1);
        let fit = (depth / cells).min(STRIP / (rows * columns)).max(1);
        let blocks = self.source_channels.div_ceil(fit);
        // equal blocks, of whole vectors where there is a choice
        let block = self.source_channels.div_ceil(blocks);
        let block = match block.next_multiple_of(8) {
            even if even <= fit => even.min(self.source_channels),
            _ => block,
        };
        let room = STRIP / (columns * block);
        let more = (room - rows.min(room)) / self.stride[0].max(1);
        (block, (1 + more).min(self.count[0]))
    }

    /// The source under places `first..first + rows` of sample `n`, channels `c..c + block`: as it lies if nothing of it is
    /// outside, else a copy with zeros.
    ///
    /// # Safety
    /// `source` has the slide's sizes, `buffer` has room for `STRIP` elements, and `cut` gave `block` and `rows`.
    pub(super) unsafe fn strip(
        &self,
        source: *const f32,
        n: usize,
        [first, rows]: [usize; 2],
        [c, block]: [usize; 2],
        buffer: *mut f32,
    ) -> Strip {
        let channels = self.source_channels;
        let [high, wide] = self.under(rows);
        let top = (first * self.stride[0]) as isize - self.padding[0];
        let left = -self.padding[1];
        let [height, width] = self.source.map(|n| n as isize);
        let pitch = self.source[1] * channels;
        let image = source.wrapping_add(n * self.source[0] * pitch + c);
        let inside =
            top >= 0 && left >= 0 && top + high as isize <= height && left + wide as isize <= width;
        if inside {
            let first = top as usize * pitch + left as usize * channels;
            return Strip {
                start: image.wrapping_add(first),
                row: pitch,
                pixel: channels,
            };
        }
        let before = (-left).clamp(0, wide as isize) as usize;
        let from = left.max(0) as usize;
        let end = (width - left).clamp(before as isize, wide as isize) as usize;
        for y in 0..high {
            let row = buffer.wrapping_add(y * wide * block);
            let at = top + y as isize;
            // SAFETY: `row` has `wide * block` elements inside the buffer; of the image only pixels inside it are read.
            unsafe {
                if at < 0 || at >= height {
                    row.write_bytes(0, wide * block);
                    continue;
                }
                row.write_bytes(0, before * block);
                row.add(end * block).write_bytes(0, (wide - end) * block);
                let from = image.add(at as usize * pitch + from * channels);
                let to = row.add(before * block);
                if block == channels {
                    core::ptr::copy_nonoverlapping(from, to, (end - before) * block);
                } else {
                    for x in 0..end - before {
                        let (from, to) = (from.add(x * channels), to.add(x * block));
                        core::ptr::copy_nonoverlapping(from, to, block);
                    }
                }
            }
        }
        Strip {
            start: buffer,
            row: wide * block,
            pixel: block,
        }
    }

    /// The runs of a window in a strip, against packed weights of `lanes` per term.
    pub(super) fn segments(
        &self,
        strip: &Strip,
        block: usize,
        lanes: usize,
        out: &mut [Segment; CELLS],
    ) -> usize {
        let joined = self.dilation[1] == 1 && strip.pixel == block;
        let [rows, columns] = self.kernel;
        let (runs, cells) = if joined { (1, columns) } else { (columns, 1) };
        let mut n = 0;
        for i in 0..rows {
            for j in 0..runs {
                out[n] = Segment {
                    a: i * self.dilation[0] * strip.row + j * self.dilation[1] * strip.pixel,
                    b: (i * columns + j) * block * lanes,
                    len: cells * block,
                };
                n += 1;
            }
        }
        n
    }

    /// Pixels that no window reaches: nothing is added, and what starts from a bias is the bias.
    ///
    /// # Safety
    /// As [`Slide::run`].
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    unsafe fn unreached(&self, ends: &Ends, destination: *mut f32) {
        let Some(bias) = ends.bias else { return };
        let rails = Rails::new(ends.activation);
        let (eights, rest) = bias[..self.channels].as_chunks::<8>();
        for n in 0..self.batch {
            for y in 0..self.count[0] {
                for x in 0..self.count[1] {
                    let row = n * self.destination[0] + self.first[0] + y * self.step[0];
                    let pixel = row * self.destination[1] + self.first[1] + x * self.step[1];
                    let mut to = destination.wrapping_add(pixel * self.channels);
                    for &eight in eights {
                        // SAFETY: eight of the pixel's channels.
                        unsafe { rails.clamp(F8::from_array(eight)).store(to) };
                        to = to.wrapping_add(8);
                    }
                    for &b in rest {
                        // SAFETY: one of the pixel's channels.
                        unsafe { to.write(ends.activation.apply(b)) };
                        to = to.wrapping_add(1);
                    }
                }
            }
        }
    }

    /// Slides: `destination = activation(start + sum source w)`.
    ///
    /// # Safety
    /// [`takes`] said yes; source, destination and weights have the slide's sizes, and do not overlap.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    pub(super) unsafe fn run(&self, work: &Work) {
        // SAFETY: the caller's promise.
        unsafe {
            if winograd::takes(self) {
                winograd::run(self, work);
            } else if stem::takes(self, work.ends) {
                stem::run(self, work);
            } else if one::takes(self, work.ends) {
                one::run(self, work);
            } else {
                self.run_plain(work);
            }
        }
    }

    /// The sum as it is written.
    ///
    /// # Safety
    /// As [`Slide::run`].
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    pub(super) unsafe fn run_plain(&self, work: &Work) {
        if self.kernel.contains(&0) {
            // SAFETY: the caller's promise.
            unsafe { self.unreached(work.ends, work.destination) };
            return;
        }
        if self.count.contains(&0) {
            return;
        }
        let plain = Plain::of(self);
        let Plain {
            wide,
            block,
            cells,
            panels,
            ..
        } = plain;
        let all = cells * wide * panels * self.source_channels;
        // SAFETY: all of them are written; `cut` depends on the width of the source, too. The rest is the caller's promise.
        unsafe {
            let kept = self.kept(work.weights, (Loops::Plain, block), all, |to| {
                for c in (0..self.source_channels).step_by(block) {
                    let block = block.min(self.source_channels - c);
                    let to = to.add(cells * wide * panels * c);
                    self.pack_panels(work.weights, &plain, [c, block], 0..panels, to);
                }
            });
            match kept {
                Some(kept) => self.sums(work, &plain, Panels::Kept(kept)),
                None => self.run_unkept(work, &plain),
            }
        }
    }

    /// The same, with panels of weights in order on the stack. No part of its caller, which would keep room for them.
    ///
    /// # Safety
    /// As [`Slide::run`].
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    #[inline(never)]
    unsafe fn run_unkept(&self, work: &Work, plain: &Plain) {
        let mut packed = Scratch::<PACKED>::new();
        // SAFETY: the caller's promise.
        unsafe { self.sums(work, plain, Panels::Room(packed.start())) }
    }

    /// Packs panels of some of the source's channels.
    ///
    /// # Safety
    /// As [`Slide::run`], and `to` has room for so many panels.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    unsafe fn pack_panels(
        &self,
        weights: &Weights,
        plain: &Plain,
        [c, block]: [usize; 2],
        panels: Range<usize>,
        to: *mut f32,
    ) {
        let Plain { few, wide, .. } = *plain;
        let panel = plain.cells * block * wide;
        for (i, p) in panels.enumerate() {
            let o = p * wide;
            let lanes = wide.min(self.channels - o);
            let step = if few { [1, panel / wide] } else { [WIDE, 1] };
            // SAFETY: the caller's promise.
            unsafe { self.pack(weights, [c, block], [o, lanes], step, to.add(i * panel)) };
        }
    }

    /// All sums.
    ///
    /// # Safety
    /// As [`Slide::run`], and the panels are what they are said to be.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    unsafe fn sums(&self, work: &Work, plain: &Plain, weights_at: Panels) {
        let Work {
            source,
            weights,
            ends,
            destination,
        } = *work;
        let Plain {
            few,
            wide,
            block,
            rows,
            cells,
            panels,
        } = *plain;
        let mut strip = Scratch::<STRIP>::new();
        let strip = strip.start();
        let found = simd::found();
        let at_once = match weights_at {
            Panels::Kept(_) => panels,
            Panels::Room(_) => (PACKED / (cells * block * wide)).min(panels),
        };
        for c in (0..self.source_channels).step_by(block) {
            let block = block.min(self.source_channels - c);
            let panel = cells * block * wide;
            // of places, eight terms each
            let pairs = found.wide && block.is_multiple_of(8);
            let bias = ends.bias.filter(|_| c == 0);
            let last = c + block == self.source_channels;
            let activation = match last {
                true => ends.activation,
                false => Activation::None,
            };
            let ends = Ends {
                bias,
                activation,
                ..*ends
            };
            for first in (0..panels).step_by(at_once) {
                let panels = at_once.min(panels - first);
                let packed = match weights_at {
                    Panels::Kept(kept) => {
                        kept.wrapping_add(cells * wide * self.channels.div_ceil(wide) * c)
                    }
                    Panels::Room(packed) => {
                        let panels = first..first + panels;
                        // SAFETY: `at_once` panels fit; the rest is the caller's promise.
                        unsafe { self.pack_panels(weights, plain, [c, block], panels, packed) };
                        packed.cast_const()
                    }
                };
                for n in 0..self.batch {
                    for y in (0..self.count[0]).step_by(rows) {
                        let rows = rows.min(self.count[0] - y);
                        // SAFETY: `cut` gave block and rows.
                        let strip = unsafe { self.strip(source, n, [y, rows], [c, block], strip) };
                        let mut segments = [Segment::default(); CELLS];
                        let count =
                            self.segments(&strip, block, if few { 1 } else { WIDE }, &mut segments);
                        let segments = &segments[..count];
                        let mut p = 0;
                        while p < panels {
                            let o = (first + p) * wide;
                            let two = found.wide && !few && p + 1 < panels;
                            let piece = Piece {
                                slide: self,
                                strip,
                                segments,
                                weights: packed.wrapping_add(p * panel),
                                panel,
                                n,
                                y,
                                rows,
                                o,
                                ends,
                                destination,
                            };
                            // SAFETY: the strip holds what its places see, the panel its weights.
                            unsafe {
                                match self.channels - o {
                                    1 if few => piece.dots::<8, 1>(panel),
                                    2 if few && pairs => piece.dots::<WIDE_ROWS, 2>(panel / 2),
                                    3 if few && pairs => piece.dots::<WIDE_ROWS, 3>(panel / 3),
                                    2 if few => piece.dots::<4, 2>(panel / 2),
                                    _ if few => piece.dots::<4, 3>(panel / 3),
                                    ..=8 => piece.blocks::<8, 1>(),
                                    _ if two => piece.blocks::<WIDE_ROWS, 4>(),
                                    _ if found.wide => piece.blocks::<WIDE_ROWS, 2>(),
                                    _ => piece.blocks::<6, 2>(),
                                }
                            }
                            p += 1 + usize::from(two);
                        }
                    }
                }
            }
        }
    }
}

/// How the sum as it is written is cut.
#[derive(Clone, Copy)]
struct Plain {
    /// Whether there are too few channels to fill lanes with.
    few: bool,
    /// Channels of a panel: terms by 16 channels, or all channels by terms.
    wide: usize,
    /// Channels of the source, and rows of places, at once.
    block: usize,
    rows: usize,
    /// Of a window.
    cells: usize,
    panels: usize,
}

/// Where panels of weights are.
#[derive(Clone, Copy)]
enum Panels {
    /// All of them, those of some of the source's channels behind those of the channels before.
    Kept(*const f32),
    /// Nowhere yet: there is room for [`PACKED`] elements.
    Room(*mut f32),
}

impl Plain {
    fn of(s: &Slide) -> Plain {
        let few = s.channels <= FEW && s.source_channels * s.kernel[1] >= 8;
        let wide = if few { s.channels } else { WIDE };
        let (block, rows) = s.cut(if few { PACKED / FEW } else { DEPTH });
        Plain {
            few,
            wide,
            block,
            rows,
            cells: s.kernel[0] * s.kernel[1],
            panels: s.channels.div_ceil(wide),
        }
    }
}

/// Some rows of places of one sample, for one panel of channels or two.
struct Piece<'a> {
    slide: &'a Slide,
    strip: Strip,
    segments: &'a [Segment],
    /// A panel of packed weights, and how many elements it has.
    weights: *const f32,
    panel: usize,
    n: usize,
    y: usize,
    rows: usize,
    o: usize,
    ends: Ends<'a>,
    destination: *mut f32,
}

/// Goes through places, row by row.
struct Places {
    columns: usize,
    left: usize,
    column: usize,
    row_start: [usize; 2],
    at: [usize; 2],
    step: [usize; 2],
    row_step: [usize; 2],
}

impl Places {
    /// The next place: its first element in the strip, and in the destination.
    #[inline(always)]
    fn next(&mut self) -> [usize; 2] {
        let at = self.at;
        self.left -= 1;
        self.column += 1;
        if self.column == self.columns {
            self.column = 0;
            self.row_start = [0, 1].map(|i| self.row_start[i] + self.row_step[i]);
            self.at = self.row_start;
        } else {
            self.at = [0, 1].map(|i| self.at[i] + self.step[i]);
        }
        at
    }

    /// The next `M` places, or as many as there are: what they are, and how many. Those that do not exist are like the first of all.
    #[inline(always)]
    fn next_few<const M: usize>(&mut self) -> ([[usize; 2]; M], usize) {
        if self.column + M < self.columns {
            let (at, step) = (self.at, self.step);
            let places = core::array::from_fn(|r| [at[0] + r * step[0], at[1] + r * step[1]]);
            self.at = [at[0] + M * step[0], at[1] + M * step[1]];
            self.column += M;
            self.left -= M;
            return (places, M);
        }
        let count = self.left.min(M);
        let mut places = [[0; 2]; M];
        for place in places.iter_mut().take(count) {
            *place = self.next();
        }
        (places, count)
    }
}

impl Piece<'_> {
    fn places(&self) -> Places {
        let s = self.slide;
        let pitch = s.destination[1] * s.channels;
        let row = s.first[0] + s.step[0] * self.y;
        let start = (self.n * s.destination[0] + row) * pitch + s.first[1] * s.channels + self.o;
        Places {
            columns: s.count[1],
            left: self.rows * s.count[1],
            column: 0,
            row_start: [0, start],
            at: [0, start],
            step: [s.stride[1] * self.strip.pixel, s.step[1] * s.channels],
            row_step: [s.stride[0] * self.strip.row, s.step[0] * pitch],
        }
    }

    /// # Safety
    /// As [`Slide::run`]; the strip holds the windows of all places, and the weights are a panel of 16 channels, or two.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    unsafe fn blocks<const M: usize, const V: usize>(&self) {
        let lanes = (self.slide.channels - self.o).min(8 * V);
        let mut bias = [0.0; TWICE];
        let bias = self.ends.bias.map(|b| {
            bias[..lanes].copy_from_slice(&b[self.o..][..lanes]);
            &bias
        });
        let mut places = self.places();
        while places.left > 0 {
            let (at, rows) = places.next_few::<M>();
            let a = at.map(|[from, _]| self.strip.start.wrapping_add(from));
            let to = at.map(|[_, into]| self.destination.wrapping_add(into));
            let sides = Sides {
                a,
                a_step: 1,
                b: self.weights,
                b_step: WIDE,
                b_panel: self.panel,
                segments: self.segments,
            };
            let out = Outcome {
                to,
                to_panel: WIDE,
                rows,
                lanes,
                bias,
                activation: self.ends.activation,
            };
            // SAFETY: rows without a place read the strip's first window; the rest is the caller's promise.
            unsafe { block::<M, V, false>(&sides, &out) };
        }
    }

    /// `C` channels, all there are: `M` places at a time, eight terms at a time.
    ///
    /// # Safety
    /// As [`Slide::run`]; the strip holds the windows of all places, and the weights of channel `c` begin at `c * terms`.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    unsafe fn dots<const M: usize, const C: usize>(&self, terms: usize) {
        let mut weights = [self.weights; C];
        for (c, w) in weights.iter_mut().enumerate() {
            *w = w.wrapping_add(c * terms);
        }
        let s = self.slide;
        // places that lie beside each other
        let dense = s.step == [1; 2]
            && s.first == [0; 2]
            && s.count == s.destination
            && self.ends.activation == Activation::None;
        let bias = self.ends.bias.and_then(|bias| bias.get(self.o..));
        let start = bias.and_then(|bias| Some([*bias.first_chunk::<C>()?; M]));
        let mut places = self.places();
        while places.left > 0 {
            let (at, rows) = places.next_few::<M>();
            let a = at.map(|[from, _]| self.strip.start.wrapping_add(from));
            let to = at.map(|[_, into]| self.destination.wrapping_add(into));
            // SAFETY: rows without a place read the strip's first window; the rest is the caller's promise.
            let sums = unsafe { dots(&a, &weights, self.segments) };
            if dense && rows == M {
                let from = match &start {
                    Some(start) => start.as_flattened().as_ptr(),
                    None => to[0],
                };
                let (fours, _) = sums.as_flattened().as_chunks::<4>();
                for (i, four) in fours.iter().enumerate() {
                    // SAFETY: `M` places of `C` channels lie beside each other, and `M` is a multiple of four.
                    unsafe {
                        let start = F4::load(from.add(4 * i));
                        let y = F4::add(start, F4::load(four.as_ptr()));
                        y.store(to[0].add(4 * i));
                    }
                }
                continue;
            }
            for (to, sums) in to.iter().zip(&sums).take(rows) {
                for (c, sum) in sums.iter().enumerate() {
                    // SAFETY: an element of the destination.
                    unsafe {
                        let y = to.add(c);
                        let start = match self.ends.bias {
                            Some(bias) => bias[self.o + c],
                            None => y.read(),
                        };
                        y.write(self.ends.activation.apply(start + sum));
                    }
                }
            }
        }
    }
}
