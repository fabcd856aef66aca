//! A fully connected layer of one sample, or a convolution of a single pixel. Each weight is used once, so that how fast they come from memory
//! decides: blocks are read one behind the other, two at once where a layer has them, and nothing is put in order before or after.

use super::super::Requantize;
use super::super::simd::ran_wide;
use super::{Finish, Form, LANES, WIDE, block_len, registers, store};
use core::arch::x86_64::*;

/// All outputs of one input. `blocks` are of as many quads as it has, the last one perhaps begun.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
pub(super) fn vector(output: &Requantize, blocks: &[i32], x: &[i8], y: &mut [i8]) {
    let quads = x.len().div_ceil(4);
    let layer = Vector { output, quads, x };
    let (mut blocks, mut y) = (blocks, y);
    while !y.is_empty() {
        let registers = registers(y.len());
        let count = match registers {
            4 if y.len() > WIDE && self::registers(y.len() - WIDE) == 4 => 2,
            _ => 1,
        };
        let (some, rest) = blocks.split_at(count * block_len(registers, quads));
        let (now, later) = y.split_at_mut((count * registers * LANES).min(y.len()));
        match (count, registers) {
            (2, _) => layer.outputs::<2, 4, 1>(some, now),
            (_, 4) => layer.outputs::<1, 4, 2>(some, now),
            (_, 2) => layer.outputs::<1, 2, 4>(some, now),
            _ => layer.outputs::<1, 1, 8>(some, now),
        }
        (blocks, y) = (rest, later);
    }
}

/// An input, and what its layer's blocks have in common.
struct Vector<'a> {
    output: &'a Requantize<'a>,
    quads: usize,
    x: &'a [i8],
}

impl Vector<'_> {
    /// The outputs of `B` blocks of `T` registers. So that sums need not wait for each other, each is added up in `C` parts.
    #[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
    #[inline]
    fn outputs<const B: usize, const T: usize, const C: usize>(
        &self,
        blocks: &[i32],
        y: &mut [i8],
    ) {
        ran_wide();
        let len = block_len(T, self.quads);
        let mut parts = [Finish::of(self.output, T, &blocks[..len]); B];
        for b in 1..B {
            parts[b] = Finish::of(self.output, T, &blocks[b * len..][..len]);
        }
        let mut sums = [[[_mm512_setzero_si512(); T]; C]; B];
        let mut w = [blocks.as_ptr(); B];
        for b in 0..B {
            let (finish, weights) = &parts[b];
            w[b] = weights[..self.quads * T * LANES].as_ptr();
            for t in 0..T {
                sums[b][0][t] = finish.start(t);
            }
        }
        let (whole, last) = self.x.as_chunks::<4>();
        let mut groups = whole.chunks_exact(C);
        for group in &mut groups {
            for c in 0..C {
                let x = quad(group[c]);
                for b in 0..B {
                    for t in 0..T {
                        // SAFETY: `T` vectors a quad, of which the slice has `self.quads`.
                        let w = unsafe { _mm512_loadu_si512(w[b].add((c * T + t) * LANES).cast()) };
                        sums[b][c][t] = _mm512_dpbusd_epi32(sums[b][c][t], x, w);
                    }
                }
            }
            for b in 0..B {
                // SAFETY: as above; at the end of the loops this is the end of the slice.
                w[b] = unsafe { w[b].add(C * T * LANES) };
            }
        }
        let begun = (!last.is_empty()).then(|| {
            let mut quad = [0; 4];
            quad[..last.len()].copy_from_slice(last);
            quad
        });
        for four in groups.remainder().iter().copied().chain(begun) {
            let x = quad(four);
            for b in 0..B {
                for t in 0..T {
                    // SAFETY: as above.
                    let w = unsafe { _mm512_loadu_si512(w[b].add(t * LANES).cast()) };
                    sums[b][0][t] = _mm512_dpbusd_epi32(sums[b][0][t], x, w);
                }
                // SAFETY: as above.
                w[b] = unsafe { w[b].add(T * LANES) };
            }
        }
        for (b, y) in y.chunks_mut(T * LANES).take(B).enumerate() {
            let (finish, _) = &parts[b];
            let mut four = [_mm512_setzero_si512(); 4];
            for t in 0..T {
                four[t] = sums[b][0][t];
                for c in 1..C {
                    four[t] = _mm512_add_epi32(four[t], sums[b][c][t]);
                }
            }
            let q = match finish.form {
                Form::Plain => finish.plain::<T>(&four),
                _ => finish.any::<T>(&four),
            };
            store(q, y);
        }
    }
}

/// Four elements, 128 more each, in every lane.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
#[inline]
fn quad(x: [i8; 4]) -> __m512i {
    let above = i32::from_le_bytes([0x80; 4]);
    let x = _mm512_set1_epi32(i32::from_le_bytes(x.map(|x| x as u8)));
    _mm512_xor_si512(x, _mm512_set1_epi32(above))
}
