//! Convolution, of which a dense layer is one: some pixels meet a block of filters, four elements at a time.

use super::super::kept::{Kept, Key, Loops};
use super::super::simd::ran_wide;
use super::super::strip::{Cut, Layout, Scratch, Strip, flattened};
use super::super::{ConvI8, DenseI8, Rounding, Window};
use super::{
    Finish, Form, LANES, WIDE, Weights, block_len, both, channel, describe, numbers, raise,
    registers, row_of_bytes, store, store_all, takes, vector::vector,
};
use core::arch::x86_64::*;
use core::mem::MaybeUninit;

/// The longest input of a dense layer.
pub(in super::super) const DEPTH: usize = STRIP - BEHIND;

/// Bytes of a strip: what is left of a first-level cache are weights.
const STRIP: usize = 24 * 1024;

/// Bytes behind it: the last quad of a window may end there.
const BEHIND: usize = 4;

/// The integer convolution, weights in any order; false where it was left undone.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
pub(in super::super) fn conv(p: &ConvI8, layout: Layout, y: &mut [i8]) -> bool {
    let Some(blocks) = p.w.place().and_then(|kept| in_order(p, layout, kept)) else {
        return false;
    };
    conv_with(p, blocks, y);
    true
}

/// The same, with all blocks of the layer, as [`in_order`] gave them for it.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
pub(in super::super) fn conv_with(p: &ConvI8, blocks: &[i32], y: &mut [i8]) {
    let g = p.window;
    if is_flat(g)
        && g.batch * g.input[0] * g.input[1] == 1
        && let (Some(x), Some(y)) = (p.x.get(..g.in_channels), y.get_mut(..g.out_channels))
    {
        return vector(&p.output, blocks, x, y);
    }
    of_strips(p, blocks, y);
}

/// The same, strip by strip. No part of its caller, which would keep room for one on the stack.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
#[inline(never)]
fn of_strips(p: &ConvI8, blocks: &[i32], y: &mut [i8]) {
    let g = p.window;
    let mut room = Scratch::<STRIP, u8>::new();
    let pixels = g.batch * g.input[0] * g.input[1];
    let len = pixels * g.in_channels;
    if is_flat(g)
        && len <= STRIP - BEHIND
        && let Some(input) = p.x.get(..len)
    {
        // the whole input, as it lies
        let strip = Strip {
            n: 0,
            at: [0, 0],
            rows: 1,
            columns: pixels,
            pitch: len,
        };
        let x = room.uncleared(len + BEHIND);
        let (whole, behind) = x.split_at_mut(len);
        raise(input, whole);
        behind.fill(MaybeUninit::new(0));
        // SAFETY: all of it has been written.
        return outputs(p, &strip, blocks, unsafe { x.assume_init_ref() }, y);
    }
    let flat = flattened(g);
    let p = &ConvI8 {
        window: &flat,
        ..*p
    };
    let g = p.window;
    // `in_order` saw that a window fits
    let Some(cut) = Cut::new(g, STRIP - BEHIND) else {
        return;
    };
    for strip in cut.strips(g) {
        let rows = strip.input_rows(g);
        let x = room.uncleared(rows * strip.pitch + BEHIND);
        let (whole, behind) = x.split_at_mut(rows * strip.pitch);
        behind.fill(MaybeUninit::new(0));
        for (r, row) in whole.chunks_exact_mut(strip.pitch).enumerate() {
            row_of_bytes(&strip, p, r, row);
        }
        // SAFETY: all rows have been written, and what is behind them.
        outputs(p, &strip, blocks, unsafe { x.assume_init_ref() }, y);
    }
}

/// Whether each pixel of the output is made of the pixel of the input that has its number. Of pairs products are compared: both numbers at
/// once, just written, would have to be waited for.
fn is_flat(g: &Window) -> bool {
    let product = |[a, b]: [usize; 2]| a * b;
    product(g.kernel) == 1
        && product(g.stride) == 1
        && product(g.dilation) == 1
        && g.padding[0] + g.padding[1] == 0
        && product(g.input) == product(g.output)
}

/// All outputs of a strip, whose input is `x`.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
fn outputs(p: &ConvI8, strip: &Strip, blocks: &[i32], x: &[u8], y: &mut [i8]) {
    let g = p.window;
    let (mut blocks, mut first) = (blocks, 0);
    while first < g.out_channels {
        let registers = registers(g.out_channels - first);
        let (block, rest) = blocks.split_at(block_len(registers, quads(g)));
        let layer = Block {
            p,
            strip,
            x,
            block,
            first,
        };
        match registers {
            4 => layer.of_four(y),
            2 => layer.of_two(y),
            _ => layer.of_one(y),
        }
        (blocks, first) = (rest, first + registers * LANES);
    }
}

/// The integer fully connected layer; false where it was left undone.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
pub(in super::super) fn dense(p: &DenseI8, y: &mut [i8]) -> bool {
    if p.depth == 0 || p.x.is_empty() {
        return false;
    }
    let samples = p.x.len() / p.depth;
    let window = Window::of_dense(p.depth, samples, p.output.bias.len());
    let layer = ConvI8 {
        window: &window,
        x: p.x,
        x_zero_point: p.x_zero_point,
        w: p.w,
        output: p.output,
    };
    conv(&layer, Layout::of(&window), y)
}

/// Four elements each of a filter: those of a row, and zeros behind the last.
fn quads(g: &Window) -> usize {
    g.kernel[0] * (g.kernel[1] * g.in_channels).div_ceil(4)
}

/// All blocks, one behind the other: found, or written now. None where there is no room for them or the layer is left to others.
pub(in super::super) fn in_order<'a>(
    p: &ConvI8,
    layout: Layout,
    kept: &Kept<'a>,
) -> Option<&'a [i32]> {
    let g = p.window;
    let [high, wide] = g.kernel;
    let filter = g.filter_len();
    let sized = g.out_channels == p.output.bias.len() && p.w.len() == filter * g.out_channels;
    let rounds_twice = p.output.rounding == Rounding::Double;
    if !sized || filter == 0 || !matches!(g.dilation, [1, 1]) || !rounds_twice {
        return None;
    }
    // room for what no strip holds would be lost to others; single pixels need none, but nobody reserves room for such long ones
    Cut::new(&flattened(g), STRIP - BEHIND)?;
    let shape = [
        both(layout.filter, layout.element),
        both(high, wide),
        both(g.in_channels, g.out_channels),
    ];
    let key = Key::of_constants(Loops::IntegerQuads, &p.w, shape, p.x_zero_point, &p.output);
    let len = numbers(g.out_channels, quads(g));
    let found = kept.numbers(&key, len, |to| write(p, layout, to))?;
    (Form::of(found[0]) != Form::NotTaken).then_some(found)
}

/// Writes the blocks, if the layer is taken.
fn write(p: &ConvI8, layout: Layout, to: &mut [i32]) {
    let g = p.window;
    let run = g.kernel[1] * g.in_channels;
    if !takes(&p.output) {
        return;
    }
    let weight = |o: usize, k: usize| p.w[o * layout.filter + k * layout.element];
    let (mut to, mut first) = (to, 0);
    while first < g.out_channels {
        let registers = registers(g.out_channels - first);
        let (block, rest) = to.split_at_mut(block_len(registers, quads(g)));
        // a channel that does not exist is the last one again
        let mut channels = [0; WIDE];
        let channels = &mut channels[..registers * LANES];
        for (i, o) in channels.iter_mut().enumerate() {
            let o_in_block = channel(registers, i / LANES, i % LANES);
            *o = (first + o_in_block).min(g.out_channels - 1);
        }
        let weights = |o| Weights::of((0..g.filter_len()).map(|k| weight(o, k)));
        let (head, packed) = block.split_at_mut(block_len(registers, 0));
        describe(&p.output, p.x_zero_point, channels, weights, head);
        let vectors = packed.chunks_exact_mut(registers * LANES);
        let per_row = run.div_ceil(4);
        for (i, vectors) in vectors.enumerate() {
            let (row, at) = (i / per_row, i % per_row * 4);
            for (to, &o) in vectors.iter_mut().zip(&*channels) {
                let quad = core::array::from_fn(|k| match at + k < run {
                    true => weight(o, row * run + at + k) as u8,
                    false => 0,
                });
                *to = i32::from_le_bytes(quad);
            }
        }
        (to, first) = (rest, first + registers * LANES);
    }
}

/// A strip, and a block of filters that meets all its pixels.
struct Block<'a> {
    p: &'a ConvI8<'a>,
    strip: &'a Strip,
    x: &'a [u8],
    block: &'a [i32],
    /// The block's first filter.
    first: usize,
}

impl Block<'_> {
    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    fn of_four(&self, y: &mut [i8]) {
        let mut pixels = Pixels::new(self);
        self.all::<6, 4>(&mut pixels, 5, y);
        self.all::<4, 4>(&mut pixels, 4, y);
        self.all::<3, 4>(&mut pixels, 3, y);
        self.all::<2, 4>(&mut pixels, 2, y);
        self.all::<1, 4>(&mut pixels, 1, y);
    }

    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    fn of_two(&self, y: &mut [i8]) {
        let mut pixels = Pixels::new(self);
        self.all::<12, 2>(&mut pixels, 9, y);
        self.all::<8, 2>(&mut pixels, 5, y);
        self.all::<4, 2>(&mut pixels, 3, y);
        self.all::<2, 2>(&mut pixels, 1, y);
    }

    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    fn of_one(&self, y: &mut [i8]) {
        let mut pixels = Pixels::new(self);
        self.all::<SHARING, 1>(&mut pixels, 5, y);
        self.all::<4, 1>(&mut pixels, 1, y);
    }

    /// `P` pixels at a time, as long as `enough` are left. Of `P T` registers, a multiple of four.
    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    fn all<const P: usize, const T: usize>(
        &self,
        pixels: &mut Pixels,
        enough: usize,
        y: &mut [i8],
    ) {
        if pixels.left < enough {
            return;
        }
        let outputs = self.p.window.out_channels;
        let (finish, w) = Finish::of(&self.p.output, T, self.block);
        let per_group = 4 / T * outputs;
        let shares = T == 1 && P == SHARING && self.shares();
        while pixels.left >= enough {
            ran_wide();
            let (number, there) = (pixels.number, pixels.left.min(P));
            let overlap = shares && pixels.is_run(P);
            let at = pixels.take();
            let sums = match overlap {
                true => self.shared_sums(at[0], &finish, w),
                false => self.sums::<P, T>(at, &finish, w),
            };
            let y = &mut y[number * outputs..][..there * outputs];
            // in a loop of its own, whose sums stay in registers
            if there == P && outputs == T * LANES && finish.form == Form::Plain {
                let (y, _) = y.as_chunks_mut();
                for i in 0..P * T / 4 {
                    let sum = |k: usize| sums[(4 * i + k) / T][(4 * i + k) % T];
                    let sums = [sum(0), sum(1), sum(2), sum(3)];
                    if let Some(y) = y.get_mut(i) {
                        store_all(finish.plain::<T>(&sums), y);
                    }
                }
                continue;
            }
            let mut left = y;
            for sums in sums.as_flattened().as_chunks::<4>().0 {
                let (y, rest) = left.split_at_mut(per_group.min(left.len()));
                left = rest;
                if y.is_empty() {
                    break;
                }
                let q = match finish.form {
                    Form::Plain => finish.plain::<T>(sums),
                    _ => finish.any::<T>(sums),
                };
                match y.as_mut_array() {
                    Some(y) if outputs == T * LANES => store_all(q, y),
                    _ if outputs == T * LANES => store(q, y),
                    _ => self.write::<T>(q, y),
                }
            }
        }
    }

    /// Whether windows of a row overlap so that each pixel is in three of them, quad by quad. With one register of filters a quad that is
    /// loaded for one window is a load for each product, which takes longer than the product.
    fn shares(&self) -> bool {
        let g = self.p.window;
        g.kernel[1] == 3 && g.stride[1] == 1 && g.in_channels.is_multiple_of(4)
    }

    /// As [`Block::sums`], of [`SHARING`] windows one pixel apart, where [`Block::shares`] says yes and there is one register of filters.
    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    #[inline]
    fn shared_sums<const P: usize, const T: usize>(
        &self,
        at: usize,
        finish: &Finish,
        w: &[i32],
    ) -> [[__m512i; T]; P] {
        let g = self.p.window;
        let (rows, pitch, channels) = (g.kernel[0], self.strip.pitch, g.in_channels);
        let quads = channels / 4;
        // what the loops read, and no more
        let w = w[..rows * 3 * quads * LANES].as_ptr();
        let x = self.x[at..][..(rows - 1) * pitch + (SHARING + 2) * channels].as_ptr();
        let mut sums = [finish.start(0); SHARING];
        for row in 0..rows {
            for k in 0..quads {
                let mut weights = [_mm512_setzero_si512(); 3];
                for (column, weights) in weights.iter_mut().enumerate() {
                    let vector = (3 * row + column) * quads + k;
                    // SAFETY: the vectors are `rows` times three times `quads`.
                    *weights = unsafe { _mm512_loadu_si512(w.add(LANES * vector).cast()) };
                }
                let mut from = x.wrapping_add(row * pitch + 4 * k);
                let mut pixels = [_mm512_setzero_si512(); SHARING + 2];
                for pixel in &mut pixels {
                    // SAFETY: four elements of a pixel of the row.
                    let quad = unsafe { from.cast::<i32>().read_unaligned() };
                    *pixel = _mm512_set1_epi32(quad);
                    from = from.wrapping_add(channels);
                }
                for column in 0..3 {
                    for i in 0..SHARING {
                        let pixel = pixels[i + column];
                        sums[i] = _mm512_dpbusd_epi32(sums[i], pixel, weights[column]);
                    }
                }
            }
        }
        let mut all = [[_mm512_setzero_si512(); T]; P];
        for (all, sum) in all.iter_mut().zip(sums) {
            all[0] = sum;
        }
        all
    }

    /// Writes the channels of `4 / T` pixels, or fewer, of which a pixel has others, too, or not all of the block's.
    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    #[inline]
    fn write<const T: usize>(&self, q: __m512i, y: &mut [i8]) {
        let outputs = self.p.window.out_channels;
        let count = (outputs - self.first).min(T * LANES);
        let upper = _mm512_shuffle_i64x2::<0b11_10_11_10>(q, q);
        let second = _mm512_shuffle_i64x2::<0b01_01_01_01>(q, q);
        let last = _mm512_shuffle_i64x2::<0b11_11_11_11>(q, q);
        let pixels = match T {
            1 => [q, second, upper, last],
            _ => [q, upper, q, q],
        };
        for (y, q) in y.chunks_mut(outputs).zip(pixels) {
            store(q, &mut y[self.first..][..count]);
        }
    }

    /// The sums of `P` windows, which begin at `at` in the strip.
    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    #[inline]
    fn sums<const P: usize, const T: usize>(
        &self,
        at: [usize; P],
        finish: &Finish,
        w: &[i32],
    ) -> [[__m512i; T]; P] {
        let g = self.p.window;
        let (rows, pitch) = (g.kernel[0], self.strip.pitch);
        let quads = (g.kernel[1] * g.in_channels).div_ceil(4);
        // what the loops read, and no more
        let mut w = w[..rows * quads * T * LANES].as_ptr();
        let reach = (rows - 1) * pitch + 4 * quads;
        // no window begins behind the last one: `Pixels::take` goes forward
        let x = &self.x[..at[P - 1] + reach];
        let mut start = [x.as_ptr(); P];
        for i in 0..P {
            start[i] = x.as_ptr().wrapping_add(at[i]);
        }
        let mut sums = [[_mm512_setzero_si512(); T]; P];
        for sums in &mut sums {
            for t in 0..T {
                sums[t] = finish.start(t);
            }
        }
        for row in 0..rows {
            for k in 0..quads {
                let at = row * pitch + 4 * k;
                let mut weights = [_mm512_setzero_si512(); T];
                for t in 0..T {
                    // SAFETY: the loops read `rows quads T` vectors from the start of `w`, which has them.
                    weights[t] = unsafe { _mm512_loadu_si512(w.add(LANES * t).cast()) };
                }
                // SAFETY: as above; at the end of the loops this is the end of `w`.
                w = unsafe { w.add(LANES * T) };
                for i in 0..P {
                    // SAFETY: four elements of `x`, which ends `reach` behind the last start: `row pitch + 4k + 3` is `reach - 1` at most.
                    let quad = unsafe { start[i].add(at).cast::<i32>().read_unaligned() };
                    let quad = _mm512_set1_epi32(quad);
                    for t in 0..T {
                        sums[i][t] = _mm512_dpbusd_epi32(sums[i][t], quad, weights[t]);
                    }
                }
            }
        }
        sums
    }
}

/// Pixels of a row whose windows share what is loaded.
const SHARING: usize = 8;

/// Pixels of a strip, in order.
struct Pixels {
    left: usize,
    /// Which pixel of the output the next one is. Those of a strip follow each other: one of several rows spans them.
    number: usize,
    columns: usize,
    column: usize,
    /// Where the row's first window begins in the strip.
    row: usize,
    /// To the next column, and to the next row.
    step: [usize; 2],
}

impl Pixels {
    fn new(block: &Block) -> Pixels {
        let (strip, g) = (block.strip, block.p.window);
        Pixels {
            left: strip.rows * strip.columns,
            number: (strip.n * g.output[0] + strip.at[0]) * g.output[1] + strip.at[1],
            columns: strip.columns,
            column: 0,
            row: 0,
            step: [g.stride[1] * g.in_channels, g.stride[0] * strip.pitch],
        }
    }

    /// Whether there are as many in this row.
    #[inline(always)]
    fn is_run(&self, count: usize) -> bool {
        count <= self.left && self.column + count <= self.columns
    }

    /// Where the windows of the next `P` begin; of the last one again where fewer are left.
    #[inline(always)]
    fn take<const P: usize>(&mut self) -> [usize; P] {
        let mut at = [self.row + self.column * self.step[0]; P];
        let there = self.left.min(P);
        if self.is_run(P) {
            for i in 0..P {
                at[i] += i * self.step[0];
            }
            self.skip(P);
        } else {
            for i in 0..P {
                at[i] = self.row + self.column * self.step[0];
                if i + 1 < there {
                    self.skip(1);
                }
            }
            self.skip(1);
        }
        self.left -= there;
        self.number += there;
        at
    }

    /// Goes on by so many columns of the row.
    #[inline(always)]
    fn skip(&mut self, columns: usize) {
        self.column += columns;
        if self.column == self.columns {
            self.column = 0;
            self.row += self.step[1];
        }
    }
}
