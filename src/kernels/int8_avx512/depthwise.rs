//! Depthwise convolution: four columns of a row of the window at a time, 64 outputs side by side.
//!
//! Rows of the input come as quads: each element beside those of the next three columns. The few rows that a row of outputs reads are kept until the
//! next one has read them. Columns of fewer than 64 channels lie side by side in a vector; more channels than that come 64 at a time.

use super::super::kept::{Kept, Key, Loops};
use super::super::simd::ran_wide;
use super::super::strip::{Cut, Scratch, Strip};
use super::super::{ConvI8, Rounding, Window};
use super::{
    Finish, Form, LANES, WIDE, Weights, block_len, both, channel, depthwise_numbers, describe,
    fill, outside, raise, row_of_bytes, store, takes,
};
use core::arch::x86_64::*;
use core::mem::MaybeUninit;

/// Bytes of a row of the input, its columns sorted by what the stride leaves of their number.
const ROW: usize = 8 * 1024;

/// Bytes of all rows that a row of outputs reads, as quads.
const QUADS: usize = 64 * 1024;

/// A depthwise layer's sizes, as these loops see it.
struct Sizes {
    /// From one column to the next, in bytes: a power of two up to 64, or a multiple of 64.
    pitch: usize,
    /// Quads of columns in a row of the window.
    quads: usize,
    /// Columns of one plane. There are as many planes as a stride has columns: column `i` is in plane `i % stride`, number `i / stride` of it.
    plane: usize,
    /// Vectors of 64 outputs in a part of a row.
    vectors: usize,
}

impl Sizes {
    fn of(g: &Window, columns: usize) -> Sizes {
        let c = g.in_channels;
        let pitch = if c > WIDE {
            c.next_multiple_of(WIDE)
        } else {
            c.next_power_of_two()
        };
        let quads = g.kernel[1].div_ceil(4);
        Sizes {
            pitch,
            quads,
            plane: columns + (4 * quads - 1) / g.stride[1],
            vectors: (columns * pitch).div_ceil(WIDE),
        }
    }

    /// Columns of outputs whose planes and quads fit the buffers; a column of none may not.
    fn widest(g: &Window) -> usize {
        let Sizes { pitch, quads, .. } = Sizes::of(g, 0);
        let planes = (ROW - WIDE) / (g.stride[1] * pitch);
        let by_planes = planes.saturating_sub((4 * quads - 1) / g.stride[1]);
        let vectors = QUADS / (4 * WIDE * quads * g.kernel[0]);
        by_planes.min(vectors * WIDE / pitch)
    }

    /// Bytes of all planes, and of what the last vector may read behind them.
    fn row(&self, g: &Window) -> usize {
        g.stride[1] * self.plane * self.pitch + WIDE
    }

    /// Bytes of a row's quads.
    fn quad_row(&self) -> usize {
        self.quads * self.vectors * 4 * WIDE
    }
}

/// The integer depthwise convolution; false where it was left undone.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
pub(in super::super) fn depthwise(p: &ConvI8, y: &mut [i8]) -> bool {
    let Some(blocks) = p.w.place().and_then(|kept| in_order(p, kept)) else {
        return false;
    };
    depthwise_with(p, blocks, y);
    true
}

/// The same, with all blocks of the layer, as [`in_order`] gave them for it.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
pub(in super::super) fn depthwise_with(p: &ConvI8, blocks: &[i32], y: &mut [i8]) {
    let g = p.window;
    let columns = Sizes::widest(g).min(g.output[1]);
    let (mut planes, mut quads) = (Scratch::<ROW, u8>::new(), Scratch::<QUADS, u8>::new());
    let cut = Cut {
        rows: g.output[0],
        columns,
    };
    for strip in cut.strips(g) {
        let sizes = Sizes::of(g, strip.columns);
        let planes = planes.uncleared(sizes.row(g));
        let quad_row = sizes.quad_row();
        let quads = quads.uncleared(g.kernel[0] * quad_row);
        // behind and between columns, where weights are zeros
        planes.fill(MaybeUninit::new(0));
        let mut there = 0;
        for oy in 0..strip.rows {
            let first = oy * g.stride[0];
            for row in there.max(first)..first + g.kernel[0] {
                sorted(p, &strip, row, &sizes, planes);
                // SAFETY: all of it has been written.
                let planes = unsafe { planes.assume_init_ref() };
                let to = &mut quads[row % g.kernel[0] * quad_row..][..quad_row];
                side_by_side(planes, g, &sizes, to);
            }
            there = first + g.kernel[0];
            // SAFETY: rows `first..there` have been written, as many as there is room for.
            let quads = unsafe { quads.assume_init_ref() };
            let pixel = (strip.n * g.output[0] + oy) * g.output[1] + strip.at[1];
            let y = &mut y[pixel * g.in_channels..][..strip.columns * g.in_channels];
            let row = Row {
                p,
                sizes: &sizes,
                quads,
                oldest: first % g.kernel[0],
            };
            row.outputs(blocks, y);
        }
    }
}

/// Writes row `r` of the strip's input, columns sorted into planes.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
fn sorted(p: &ConvI8, strip: &Strip, r: usize, sizes: &Sizes, to: &mut [MaybeUninit<u8>]) {
    let g = p.window;
    let (c, stride) = (g.in_channels, g.stride[1]);
    if stride == 1 && sizes.pitch == c {
        return row_of_bytes(strip, p, r, &mut to[..strip.pitch]);
    }
    let (left, x) = strip.image_row(p, r, strip.pitch);
    let (left, mut x) = (left / c, x.chunks_exact(c));
    for column in 0..strip.pitch / c {
        let at = (column % stride * sizes.plane + column / stride) * sizes.pitch;
        let to = &mut to[at..][..c];
        let x = if column < left { None } else { x.next() };
        match x {
            Some(x) => raise(x, to),
            None => fill(outside(p), to),
        }
    }
}

/// All elements of the planes in quads with those of the next three columns: `[quad of columns][64 outputs][register][16][4]`.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
fn side_by_side(planes: &[u8], g: &Window, sizes: &Sizes, to: &mut [MaybeUninit<u8>]) {
    let stride = g.stride[1];
    let mut to = to.as_chunks_mut::<{ 4 * WIDE }>().0.iter_mut();
    for quad in 0..sizes.quads {
        let mut columns = [planes; 4];
        for (k, column) in (4 * quad..).zip(&mut columns) {
            let at = k % stride * sizes.plane + k / stride;
            *column = &planes[at * sizes.pitch..][..sizes.vectors * WIDE];
        }
        for (at, to) in (0..).step_by(WIDE).take(sizes.vectors).zip(&mut to) {
            let mut v = [_mm512_setzero_si512(); 4];
            for k in 0..4 {
                // SAFETY: the vectors of which each has `sizes.vectors`.
                v[k] = unsafe { _mm512_loadu_si512(columns[k].as_ptr().add(at).cast()) };
            }
            let low = [
                _mm512_unpacklo_epi8(v[0], v[1]),
                _mm512_unpacklo_epi8(v[2], v[3]),
            ];
            let high = [
                _mm512_unpackhi_epi8(v[0], v[1]),
                _mm512_unpackhi_epi8(v[2], v[3]),
            ];
            let quads = [
                _mm512_unpacklo_epi16(low[0], low[1]),
                _mm512_unpackhi_epi16(low[0], low[1]),
                _mm512_unpacklo_epi16(high[0], high[1]),
                _mm512_unpackhi_epi16(high[0], high[1]),
            ];
            for (i, quads) in quads.into_iter().enumerate() {
                // SAFETY: four vectors of 64 bytes.
                unsafe { _mm512_storeu_si512(to.as_mut_ptr().add(WIDE * i).cast(), quads) }
            }
        }
    }
}

/// All blocks, one behind the other: found, or written now. None where there is no room for them or the layer is left to others.
pub(in super::super) fn in_order<'a>(p: &ConvI8, kept: &Kept<'a>) -> Option<&'a [i32]> {
    let g = p.window;
    let (c, cells) = (g.in_channels, g.kernel[0] * g.kernel[1]);
    let shaped = c > 0 && cells > 0 && g.stride[1] > 0;
    let sized = c == g.out_channels && c == p.output.bias.len() && p.w.len() == cells * c;
    let rounds_twice = p.output.rounding == Rounding::Double;
    let fits = shaped && Sizes::widest(g) > 0;
    if !fits || !sized || !matches!(g.dilation, [1, 1]) || !rounds_twice {
        return None;
    }
    let shape = [both(g.kernel[0], g.kernel[1]), c, 0];
    let key = Key::of_constants(
        Loops::IntegerDepthwiseQuads,
        &p.w,
        shape,
        p.x_zero_point,
        &p.output,
    );
    let quads = g.kernel[0] * g.kernel[1].div_ceil(4);
    let len = depthwise_numbers(g.in_channels, quads);
    let found = kept.numbers(&key, len, |to| write(p, quads, to))?;
    (Form::of(found[0]) != Form::NotTaken).then_some(found)
}

/// Writes the blocks, if the layer is taken.
fn write(p: &ConvI8, quads: usize, to: &mut [i32]) {
    let g = p.window;
    let (c, cells) = (g.in_channels, g.kernel[0] * g.kernel[1]);
    if !takes(&p.output) {
        return;
    }
    let pitch = Sizes::of(g, 1).pitch;
    let blocks = to.chunks_exact_mut(block_len(4, quads));
    for (i, block) in blocks.take(pitch.div_ceil(WIDE)).enumerate() {
        // a channel that does not exist is the last one again
        let channels: [usize; WIDE] = core::array::from_fn(|lane| {
            let in_block = channel(4, lane / LANES, lane % LANES);
            (i * WIDE + in_block % pitch).min(c - 1)
        });
        let weights = |o| Weights::of((0..cells).map(|cell| p.w[cell * c + o]));
        let (head, packed) = block.split_at_mut(block_len(4, 0));
        describe(&p.output, p.x_zero_point, &channels, weights, head);
        let per_row = g.kernel[1].div_ceil(4);
        for (k, vectors) in packed.chunks_exact_mut(WIDE).enumerate() {
            let (row, column) = (k / per_row, k % per_row * 4);
            for (to, &o) in vectors.iter_mut().zip(&channels) {
                let quad = core::array::from_fn(|k| match column + k < g.kernel[1] {
                    true => p.w[(row * g.kernel[1] + column + k) * c + o] as u8,
                    false => 0,
                });
                *to = i32::from_le_bytes(quad);
            }
        }
    }
}

/// What a part of a row of outputs is made of.
struct Row<'a> {
    p: &'a ConvI8<'a>,
    sizes: &'a Sizes,
    /// Rows of quads, in a ring.
    quads: &'a [u8],
    /// The place in it of the first that the window sees.
    oldest: usize,
}

impl Row<'_> {
    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    fn outputs(&self, blocks: &[i32], y: &mut [i8]) {
        let Sizes { pitch, vectors, .. } = *self.sizes;
        let g = self.p.window;
        let per_column = pitch.div_ceil(WIDE);
        let len = block_len(4, g.kernel[0] * self.sizes.quads);
        for (i, block) in blocks.chunks_exact(len).take(per_column).enumerate() {
            let mut at = i;
            while at < vectors {
                let there = (vectors - at).div_ceil(per_column).min(6);
                match there {
                    6 => self.some::<6>(block, at, per_column, y),
                    5 => self.some::<5>(block, at, per_column, y),
                    4 => self.some::<4>(block, at, per_column, y),
                    3 => self.some::<3>(block, at, per_column, y),
                    2 => self.some::<2>(block, at, per_column, y),
                    _ => self.some::<1>(block, at, per_column, y),
                }
                at += there * per_column;
            }
        }
    }

    /// `P` vectors of outputs from number `at` on, each `step` behind the one before.
    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    #[inline(never)]
    fn some<const P: usize>(&self, block: &[i32], at: usize, step: usize, y: &mut [i8]) {
        ran_wide();
        let (finish, w) = Finish::of(&self.p.output, 4, block);
        let sums = self.sums::<P>(&finish, w, at, step);
        let mut outputs = [_mm512_setzero_si512(); P];
        for (output, sums) in outputs.iter_mut().zip(&sums) {
            *output = match finish.form {
                Form::Plain => finish.plain::<4>(sums),
                _ => finish.any::<4>(sums),
            };
        }
        for (i, output) in outputs.into_iter().enumerate() {
            self.write(output, at + i * step, y);
        }
    }

    /// Their sums.
    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    #[inline]
    fn sums<const P: usize>(
        &self,
        finish: &Finish,
        w: &[i32],
        at: usize,
        step: usize,
    ) -> [[__m512i; 4]; P] {
        let Sizes { quads, vectors, .. } = *self.sizes;
        let rows = self.p.window.kernel[0];
        let mut w = w.as_chunks::<WIDE>().0[..rows * quads].iter();
        let mut sums = [[_mm512_setzero_si512(); 4]; P];
        for sums in &mut sums {
            for t in 0..4 {
                sums[t] = finish.start(t);
            }
        }
        let ring = self.quads.as_chunks::<{ 4 * WIDE }>().0;
        // from the oldest row to the end of the ring, and from its start
        let (start, end) = ring.split_at(self.oldest * quads * vectors);
        for row in [end, start]
            .into_iter()
            .flat_map(|part| part.chunks_exact(quads * vectors))
        {
            for (row, w) in row.chunks_exact(vectors).zip(&mut w) {
                let there = &row[at..][..(P - 1) * step + 1];
                for t in 0..4 {
                    // SAFETY: register `t` of four.
                    let w = unsafe { _mm512_loadu_si512(w.as_ptr().add(LANES * t).cast()) };
                    for i in 0..P {
                        // SAFETY: register `t` of four of an element of `there`, whose last one is `(P - 1) step`.
                        let x = unsafe {
                            let from = there.as_ptr().add(i * step).cast::<u8>();
                            _mm512_loadu_si512(from.add(WIDE * t).cast())
                        };
                        sums[i][t] = _mm512_dpbusd_epi32(sums[i][t], x, w);
                    }
                }
            }
        }
        sums
    }

    /// Writes those of 64 outputs that exist to where they belong.
    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    #[inline]
    fn write(&self, outputs: __m512i, number: usize, y: &mut [i8]) {
        let (c, pitch) = (self.p.window.in_channels, self.sizes.pitch);
        if c == pitch {
            let y = &mut y[number * WIDE..];
            let count = y.len().min(WIDE);
            return store(outputs, &mut y[..count]);
        }
        if pitch > WIDE {
            let (column, channel) = (number * WIDE / pitch, number * WIDE % pitch);
            let count = (c - channel).min(WIDE);
            return store(outputs, &mut y[column * c + channel..][..count]);
        }
        let mut all = [0; WIDE];
        store(outputs, &mut all);
        let columns = y.chunks_exact_mut(c).skip(number * WIDE / pitch);
        for (y, all) in columns.zip(all.chunks_exact(pitch)) {
            y.copy_from_slice(&all[..c]);
        }
    }
}
