//! int8 loops with AVX-512's sums of four products of bytes (VNNI): one instruction multiplies 64 pairs and adds them up to sixteen sums of 32
//! bits, none of which saturates. The sums of `scalar` in another order, which for integers modulo 2^32 gives the same bits, and
//! requantization sixteen lanes at a time, exact for every input.
//!
//! One of the factors is unsigned: inputs get 128 added. What this and the zero point bring is the same whatever the input, so that sums begin
//! with the bias less that. A layer is a list of blocks ([`block_len`]): weights, and all that requantization needs of a channel, are put in
//! order once a session where its buffer has room for them (`kept`). Without, and with other roundings than [`Rounding::Double`], with
//! dilations and with windows that do not fit the buffers on the stack, the layer is left to AVX2's loops.
//!
//! Channels come in blocks of one, two or four registers with sixteen each, in an order that packing to bytes undoes ([`channel`]).
#![allow(clippy::needless_range_loop)] // rows are registers: numbered, in loops that are unrolled
#![allow(unsafe_code)] // loads and stores of vectors; every one is inside a slice or behind a slice that is cut to what the loop reads

mod add;
mod conv;
mod depthwise;
mod mul;
#[cfg(test)]
mod tests;
mod vector;

pub(super) use add::add;
pub(super) use conv::{DEPTH, conv, conv_with, dense, in_order};
pub(super) use depthwise::{depthwise, depthwise_with, in_order as depthwise_in_order};
pub(super) use mul::mul;

use super::strip::Strip;
use super::{ConvI8, Multiplier, Requantize, Rounding};
use core::arch::x86_64::*;
use core::mem::MaybeUninit;

/// Sums in a register.
const LANES: usize = 16;

/// Sums of four: as many outputs as bytes fit a register.
const WIDE: usize = 4 * LANES;

/// Registers of constants for sixteen channels, in this order: where sums begin, factors, what is added to the upper halves of their products,
/// and shifts to the right: all that [`Form::Plain`] reads, next to each other. Then shifts to the left, the bit of a sum's sign, and for even lanes and for odd ones what is added to
/// whole products (two registers) and their shifts (two again). [`OfLane::write`] writes them, [`plain`] and [`any`] read them.
const CONSTANTS: usize = 10;

/// Numbers before a block's constants: its [`Form`], and what fills a line.
const HEAD: usize = LANES;

/// Numbers of a block: its [`Form`], the constants of so many registers of channels, register by register, and `quads` times four weights of
/// each channel, all registers' of one quad side by side.
fn block_len(registers: usize, quads: usize) -> usize {
    HEAD + registers * LANES * (CONSTANTS + quads)
}

/// Registers of the block that comes next where so many channels are left.
fn registers(left: usize) -> usize {
    match left {
        0..=16 => 1,
        17..=32 => 2,
        _ => 4,
    }
}

/// Numbers of all blocks of so many channels.
pub(super) fn numbers(channels: usize, quads: usize) -> usize {
    let (whole, left) = (channels / WIDE, channels % WIDE);
    let rest = match left {
        0 => 0,
        _ => block_len(registers(left), quads),
    };
    whole * block_len(4, quads) + rest
}

/// The same of a depthwise layer, whose blocks have 64 lanes each.
pub(super) fn depthwise_numbers(channels: usize, quads: usize) -> usize {
    channels.div_ceil(WIDE) * block_len(4, quads)
}

/// Which of a block's channels is in a lane of one of its registers: [`Finish::pack`] puts them in order.
fn channel(registers: usize, register: usize, lane: usize) -> usize {
    lane / 4 * 4 * registers + 4 * register + lane % 4
}

/// How a block's sums become outputs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
enum Form {
    /// The layer is left to others.
    NotTaken = 0,
    /// Factors are below one half and no sum comes near the limits of an i32, as in nearly every layer.
    Plain = 1,
    Any = 2,
}

impl Form {
    fn of(code: i32) -> Form {
        match code {
            1 => Form::Plain,
            2 => Form::Any,
            _ => Form::NotTaken,
        }
    }
}

/// Whether these loops can requantize the layer at all.
fn takes(p: &Requantize) -> bool {
    let is_i8 = |q: i32| (-128..=127).contains(&q);
    let n = p.bias.len();
    n > 0
        && (p.multiplier.len(), p.shift.len()) == (n, n)
        && p.rounding == Rounding::Double
        && is_i8(p.range.0)
        && is_i8(p.range.1)
        && is_i8(p.zero_point)
        && p.multiplier.iter().all(|&mantissa| mantissa >= 0)
        && p.shift.iter().all(|shift| (-31..=30).contains(shift))
}

/// One channel's weights, added up.
struct Weights {
    sum: i64,
    /// The sum of their absolute values.
    size: i64,
}

impl Weights {
    fn of(weights: impl Iterator<Item = i8>) -> Weights {
        let none = Weights { sum: 0, size: 0 };
        weights.fold(none, |all, w| Weights {
            sum: all.sum + i64::from(w),
            size: all.size + i64::from(w).abs(),
        })
    }
}

/// Whether the short way gives what two roundings do: sums that are `most` at most stay within 2^30, and what is added to their products before the
/// shift, a half and the zero point, does not bring them out of 32 bits: 2^30 + 2^21 + 2^29 where it is a shift by 22.
fn is_plain(factor: Multiplier, zero_point: i32, most: i64) -> bool {
    factor.mantissa >= 0
        && (-22..0).contains(&factor.shift)
        && (-128..=127).contains(&zero_point)
        && most <= 1 << 30
}

/// The factor of channel `o`.
fn factor(p: &Requantize, o: usize) -> Multiplier {
    Multiplier {
        mantissa: p.multiplier[o],
        shift: p.shift[o],
    }
}

/// Writes a block's form and constants. `channels`: which channel of the layer each lane has, register by register; `weights` adds up a
/// channel's.
fn describe(
    p: &Requantize,
    x_zero_point: i16,
    channels: &[usize],
    weights: impl Fn(usize) -> Weights,
    to: &mut [i32],
) {
    let (head, constants) = to.split_at_mut(HEAD);
    let all_plain = channels.iter().all(|&o| {
        let most = i64::from(p.bias[o]).abs() + 255 * weights(o).size;
        is_plain(factor(p, o), p.zero_point, most)
    });
    let form = if all_plain { Form::Plain } else { Form::Any };
    head[0] = form as i32;
    let registers = constants.chunks_exact_mut(CONSTANTS * LANES);
    for (constants, channels) in registers.zip(channels.chunks_exact(LANES)) {
        for (lane, &o) in channels.iter().enumerate() {
            let above = i64::from(x_zero_point) + 128;
            let start = i64::from(p.bias[o]) - above * weights(o).sum;
            let of_lane = match form {
                Form::Plain => plain_constants(factor(p, o), p.zero_point, start),
                _ => any_constants(factor(p, o), start),
            };
            of_lane.write(lane, constants);
        }
    }
}

/// A lane's constants.
struct OfLane {
    start: i32,
    factor: i32,
    /// Of [`Form::Plain`]: added to the upper half of its product.
    high: i32,
    /// Of [`Form::Any`]: added to all of it.
    more: i64,
    /// Of [`Form::Any`] the bit of its sign, where it counts.
    sign: i32,
    right: i32,
    left: i32,
}

impl OfLane {
    /// To where [`plain`] and [`any`] read them.
    fn write(&self, lane: usize, to: &mut [i32]) {
        let is_odd = lane % 2;
        // two numbers of 32 bits, the lower one first
        let wide = |at: usize, value: i64, to: &mut [i32]| {
            let at = at * LANES + lane / 2 * 2;
            (to[at], to[at + 1]) = (value as i32, (value >> 32) as i32);
        };
        let numbers = [
            self.start,
            self.factor,
            self.high,
            self.right,
            self.left,
            self.sign,
        ];
        for (register, number) in numbers.into_iter().enumerate() {
            to[register * LANES + lane] = number;
        }
        wide(6 + is_odd, self.more, to);
        wide(8 + is_odd, 31 + i64::from(self.right), to);
    }
}

/// Sums are kept unsigned, 2^31 above what they are, and meet twice the mantissa, unsigned, too: the upper half of the product, rounded, is
/// gemmlowp's doubling high multiply, and the mantissa. That is taken off, and the half of the second rounding and the zero point are added before the shift, in one
/// addition; a second one adds the 1 that a sum that is not negative has more (gemmlowp's rounding shift takes halves away from zero).
fn plain_constants(factor: Multiplier, zero_point: i32, start: i64) -> OfLane {
    let (mantissa, right) = (factor.mantissa, -factor.shift);
    let half = 1 << (right - 1);
    let high = half - 1 + (i64::from(zero_point) << right) - i64::from(mantissa);
    OfLane {
        start: (start as i32).wrapping_add(i32::MIN),
        factor: mantissa << 1,
        high: high as i32,
        more: 0,
        sign: 0,
        right,
        left: 0,
    }
}

/// Products of 64 bits hold everything: both roundings are one shift to the right of what their halves were added to, less 2^31 where the sum is
/// negative and there is a second rounding. (Where the first one leaves zero of a negative sum, the second leaves zero of it, less 2^31 or not.)
fn any_constants(factor: Multiplier, start: i64) -> OfLane {
    let right = (-factor.shift).max(0);
    let half = if right > 0 { 1i64 << (right - 1) } else { 0 };
    OfLane {
        start: start as i32,
        factor: factor.mantissa,
        high: 0,
        more: (1 << 30) + (half << 31),
        sign: if right > 0 { i32::MIN } else { 0 },
        right,
        left: factor.shift.max(0),
    }
}

/// A block's constants, where they lie, and what its layer's outputs may be.
#[derive(Clone, Copy)]
struct Finish<'a> {
    form: Form,
    constants: &'a [[[i32; LANES]; CONSTANTS]],
    zero_point: __m512i,
    low: __m512i,
    high: __m512i,
}

impl<'a> Finish<'a> {
    /// Of a block of `registers` and the weights behind its constants.
    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    #[inline]
    fn of(p: &Requantize, registers: usize, block: &'a [i32]) -> (Finish<'a>, &'a [i32]) {
        let (head, rest) = block.split_at(HEAD);
        let (constants, weights) = rest.split_at(registers * CONSTANTS * LANES);
        let constants = constants.as_chunks().0.as_chunks().0;
        let finish = Finish::new(Form::of(head[0]), constants, p.zero_point, p.range);
        (finish, weights)
    }

    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    #[inline]
    fn new(
        form: Form,
        constants: &'a [[[i32; LANES]; CONSTANTS]],
        zero_point: i32,
        range: (i32, i32),
    ) -> Finish<'a> {
        Finish {
            form,
            constants,
            zero_point: _mm512_set1_epi32(zero_point),
            low: _mm512_set1_epi8(range.0 as i8),
            high: _mm512_set1_epi8(range.1 as i8),
        }
    }

    /// Where the sums of register `t` begin.
    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    #[inline]
    fn start(&self, t: usize) -> __m512i {
        load(&self.constants[t][0])
    }

    /// The outputs for four registers of sums, those of `4 / T` pixels, in order. Of [`Form::Plain`].
    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    #[inline]
    fn plain<const T: usize>(&self, sums: &[__m512i; 4]) -> __m512i {
        let mut q = *sums;
        let constants = &self.constants[..T];
        for i in 0..4 {
            q[i] = plain(&constants[i % T], sums[i]);
        }
        self.pack::<T>(q)
    }

    /// The same of whatever form.
    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    #[inline(never)]
    fn any<const T: usize>(&self, sums: &[__m512i; 4]) -> __m512i {
        let mut q = *sums;
        let constants = &self.constants[..T];
        for i in 0..4 {
            q[i] = _mm512_add_epi32(any(&constants[i % T], sums[i]), self.zero_point);
        }
        self.pack::<T>(q)
    }

    /// Four registers as bytes that are in range: their channels in order, pixel by pixel.
    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    #[inline]
    fn pack<const T: usize>(&self, q: [__m512i; 4]) -> __m512i {
        let words = [
            _mm512_packs_epi32(q[0], q[1]),
            _mm512_packs_epi32(q[2], q[3]),
        ];
        let bytes = _mm512_packs_epi16(words[0], words[1]);
        // each quarter has four channels of each register
        let bytes = match T {
            1 => {
                let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
                _mm512_permutexvar_epi32(order, bytes)
            }
            2 => _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), bytes),
            _ => bytes,
        };
        _mm512_min_epi8(_mm512_max_epi8(bytes, self.low), self.high)
    }
}

#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
#[inline]
fn load(from: &[i32; LANES]) -> __m512i {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// Sixteen outputs with their zero point, of sums as [`plain_constants`] has them.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
#[inline]
fn plain(constants: &[[i32; LANES]; CONSTANTS], sum: __m512i) -> __m512i {
    let [_, factor, more, right, ..] = constants;
    let factor = load(factor);
    let even = _mm512_mul_epu32(sum, factor);
    let odd = _mm512_srli_epi64::<32>(sum);
    let odd = _mm512_mul_epu32(odd, _mm512_srli_epi64::<32>(factor));
    let half = _mm512_set1_epi64(1 << 31);
    let even = _mm512_add_epi64(even, half);
    let odd = _mm512_add_epi64(odd, half);
    let high = _mm512_mask_shuffle_epi32::<0b11_11_01_01>(odd, 0x5555, even);
    let high = _mm512_add_epi32(high, load(more));
    let high = _mm512_add_epi32(high, _mm512_srli_epi32::<31>(sum));
    _mm512_srav_epi32(high, load(right))
}

/// Sixteen outputs without their zero point, of any sums.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
#[inline]
fn any(constants: &[[i32; LANES]; CONSTANTS], sum: __m512i) -> __m512i {
    let [
        _,
        factor,
        _,
        _,
        left,
        sign,
        more,
        more_odd,
        right,
        right_odd,
    ] = constants;
    let sum = _mm512_sllv_epi32(sum, load(left));
    let negative = _mm512_and_si512(sum, load(sign));
    let even = _mm512_mul_epi32(sum, load(factor));
    let of_odd = _mm512_srli_epi64::<32>(load(factor));
    let odd = _mm512_mul_epi32(_mm512_srli_epi64::<32>(sum), of_odd);
    let even = _mm512_add_epi64(even, load(more));
    let odd = _mm512_add_epi64(odd, load(more_odd));
    // the sign's bit counts 2^31 in a lane of 64
    let lower = _mm512_maskz_mov_epi32(0x5555, negative);
    let even = _mm512_sub_epi64(even, lower);
    let odd = _mm512_sub_epi64(odd, _mm512_srli_epi64::<32>(negative));
    let even = _mm512_srav_epi64(even, load(right));
    let odd = _mm512_srav_epi64(odd, load(right_odd));
    _mm512_mask_shuffle_epi32::<0b10_10_00_00>(even, 0xaaaa, odd)
}

/// Two numbers of a layer's shape, of which an image has none beyond 31 bits, in one word of a key.
fn both(a: usize, b: usize) -> usize {
    a << 32 | b
}

/// The first `count` bytes, or all.
fn first(count: usize) -> __mmask64 {
    match count {
        0 => 0,
        _ => !0 >> 64_usize.saturating_sub(count),
    }
}

/// Writes row `r` of the strip's input to all of `to`, 128 added to each element, which is unsigned then.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
#[inline]
fn row_of_bytes(strip: &Strip, p: &ConvI8, r: usize, to: &mut [MaybeUninit<u8>]) {
    let (left, x) = strip.image_row(p, r, to.len());
    let (before, rest) = to.split_at_mut(left);
    let (there, behind) = rest.split_at_mut(x.len());
    fill(outside(p), before);
    raise(x, there);
    fill(outside(p), behind);
}

/// What cells outside the image hold: the zero point.
fn outside(p: &ConvI8) -> u8 {
    (p.x_zero_point + 128) as u8
}

/// Writes all of `to`.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
#[inline]
fn fill(value: u8, to: &mut [MaybeUninit<u8>]) {
    let value = _mm512_set1_epi8(value as i8);
    for to in to.chunks_mut(64) {
        // SAFETY: as many bytes as `to` has.
        unsafe { _mm512_mask_storeu_epi8(to.as_mut_ptr().cast(), first(to.len()), value) }
    }
}

/// Writes 128 more than each element of `x` to as many bytes.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
#[inline]
fn raise(x: &[i8], to: &mut [MaybeUninit<u8>]) {
    let n = x.len().min(to.len());
    let (x, to) = (x.as_ptr(), to.as_mut_ptr().cast::<i8>());
    let above = _mm512_set1_epi8(-128);
    let Some(last) = n.checked_sub(64) else {
        // SAFETY: the first `n` bytes.
        unsafe {
            let v = _mm512_maskz_loadu_epi8(first(n), x);
            _mm512_mask_storeu_epi8(to, first(n), _mm512_xor_si512(v, above));
        }
        return;
    };
    // the last 64 bytes perhaps once more
    for k in (0..n).step_by(64) {
        let k = k.min(last);
        // SAFETY: 64 bytes from `k` on, which is 64 before the end at most.
        unsafe {
            let v = _mm512_loadu_si512(x.add(k).cast());
            _mm512_storeu_si512(to.add(k).cast(), _mm512_xor_si512(v, above));
        }
    }
}

#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
#[inline]
fn store_all(bytes: __m512i, y: &mut [i8; WIDE]) {
    // SAFETY: 64 bytes.
    unsafe { _mm512_storeu_si512(y.as_mut_ptr().cast(), bytes) }
}

/// Writes all of `y`, which is 64 bytes long at most.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
#[inline]
fn store(bytes: __m512i, y: &mut [i8]) {
    let to = y.as_mut_ptr();
    // SAFETY: each writes as many bytes as `y` has.
    unsafe {
        match y.len() {
            64 => _mm512_storeu_si512(to.cast(), bytes),
            32 => _mm256_storeu_si256(to.cast(), _mm512_castsi512_si256(bytes)),
            16 => _mm_storeu_si128(to.cast(), _mm512_castsi512_si128(bytes)),
            n => _mm512_mask_storeu_epi8(to, first(n), bytes),
        }
    }
}
