//! Convolutions of single pixels with filters that answer the same whatever they see, as those that training or pruning has silenced do:
//! where they are half of a layer or more, they are found once a session and left out of the products, and what they answer is filled in.

use super::super::kept::{Key, Loops};
use super::super::strip::{Layout, flattened};
use super::super::{Constant, ConvI8, Requantize, Rounding, Window};
use super::conv::conv_of;
use core::arch::x86_64::*;
use zerocopy::{FromBytes, IntoBytes};

/// Outputs that are filled in at once.
const GROUP: usize = 16;

/// Bytes for the answers of the filters that are left, of as many pixels at a time as there is room for.
const ROOM: usize = 4096;

/// Of so many filters the answers for sixteen pixels have room: with fewer at a time their weights would be gone through too often.
const MOST: usize = ROOM / 16;

/// No answer of a filter that is left: `vpshufb` makes it zero.
const NONE: i8 = -128;

/// The filters that are left of a layer's.
pub(in super::super) struct Live<'a> {
    /// One behind the other.
    w: &'a [i8],
    output: Requantize<'a>,
    /// For each group of outputs, which of the filters that are left comes first in it.
    first: &'a [i32],
    /// How far behind that one an output's is, or [`NONE`].
    place: &'a [i8],
    /// What an output without one is, else zero.
    constant: &'a [i8],
}

/// Numbers that are kept of so many filters of `run` weights, of which so many are left.
pub(in super::super) fn numbers(filters: usize, left: usize, run: usize) -> usize {
    3 * left + filters / GROUP + 2 * filters / 4 + (left * run).div_ceil(4)
}

impl<'a> Live<'a> {
    /// None where there is no place to keep it, where too many are left, and of layers of other forms. Weights, biases and factors stay what
    /// and where they are: those of an image are constants ([`check::weights`](crate::ops)).
    pub fn of(p: &ConvI8<'a>) -> Option<Live<'a>> {
        let g = p.window;
        let (run, filters) = (g.in_channels, g.out_channels);
        let sized = [p.output.bias, p.output.multiplier, p.output.shift]
            .iter()
            .all(|all| all.len() == filters);
        if !is_pointwise(g)
            || run == 0
            || filters == 0
            || !filters.is_multiple_of(2 * GROUP)
            || p.w.len() != run * filters
            || !sized
        {
            return None;
        }
        let place = p.w.place()?;
        let key = Key::of_constants(
            Loops::IntegerLive,
            &p.w,
            [run, 0, 0],
            p.x_zero_point,
            &p.output,
        );
        let left = place.numbers(&key, 1, |to| {
            to[0] = (0..filters).filter(|&o| answer(p, o).is_none()).count() as i32;
        })?[0] as usize;
        if left > (filters / 2).min(MOST) {
            return None;
        }
        let found = place.numbers(&key, numbers(filters, left, run), |to| {
            list(p, left, to);
        })?;
        let (bias, rest) = found.split_at(left);
        let (multiplier, rest) = rest.split_at(left);
        let (shift, rest) = rest.split_at(left);
        let (first, rest) = rest.split_at(filters / GROUP);
        let (places, w) = <[i8]>::ref_from_bytes(rest.as_bytes())
            .ok()?
            .split_at(2 * filters);
        let (place, constant) = places.split_at(filters);
        Some(Live {
            w: &w[..left * run],
            output: Requantize {
                bias,
                multiplier,
                shift,
                ..p.output
            },
            first,
            place,
            constant,
        })
    }

    /// The layer; false where it was left undone.
    #[target_feature(enable = "avx2")]
    pub fn conv(&self, p: &ConvI8<'a>, y: &mut [i8]) -> bool {
        let (run, filters, left) = (
            p.window.in_channels,
            p.window.out_channels,
            self.output.bias.len(),
        );
        let mut room = [0; ROOM + GROUP];
        let pixels = ROOM / left.max(1);
        let samples = p.x.chunks(pixels * run);
        for (x, y) in samples.zip(y.chunks_mut(pixels * filters)) {
            let here = x.len() / run;
            let window = Window {
                batch: 1,
                input: [1, here],
                output: [1, here],
                out_channels: left,
                ..*p.window
            };
            let layer = ConvI8 {
                window: &window,
                x,
                w: Constant::new(self.w, p.w.place()),
                output: self.output,
                ..*p
            };
            let layout = Layout {
                filter: run,
                element: 1,
            };
            if left > 0 && !conv_of(&layer, layout, &mut room[..here * left]) {
                return false;
            }
            for (pixel, y) in y.chunks_exact_mut(filters).enumerate() {
                self.fill(&room[pixel * left..], y);
            }
        }
        true
    }

    /// All outputs of a pixel from those that are left, which `from` begins with.
    #[target_feature(enable = "avx2")]
    fn fill(&self, from: &[i8], y: &mut [i8]) {
        let (place, constant) = (
            self.place.as_chunks::<GROUP>().0,
            self.constant.as_chunks::<GROUP>().0,
        );
        let groups = y.as_chunks_mut::<GROUP>().0.iter_mut().zip(self.first);
        for ((y, &first), (place, constant)) in groups.zip(place.iter().zip(constant)) {
            let left = load(&from[first as usize..]);
            let q = _mm_or_si128(_mm_shuffle_epi8(left, load(place)), load(constant));
            // SAFETY: `y` is 16 bytes long.
            unsafe { _mm_storeu_si128(y.as_mut_ptr().cast(), q) }
        }
    }
}

#[cfg(test)]
impl Live<'_> {
    pub fn left(&self) -> usize {
        self.output.bias.len()
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(from: &[i8]) -> __m128i {
    let from = &from[..GROUP];
    // SAFETY: 16 bytes.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

/// Whether a pixel of the output is made of one of the input, in order.
fn is_pointwise(g: &Window) -> bool {
    let flat = flattened(g);
    g.kernel == [1, 1] && flat.output == flat.input && flat.batch == 1 && flat.stride == [1, 1]
}

/// What filter `o` answers, if that is the same for every input: requantization with two roundings and no shift to the left never makes less of
/// more, so it is the same in between where it is for the least sum and the greatest.
fn answer(p: &ConvI8, o: usize) -> Option<i8> {
    let output = &p.output;
    let monotonic = output.rounding == Rounding::Double
        && output.multiplier[o] >= 0
        && (-31..=0).contains(&output.shift[o])
        && [output.zero_point, output.range.0, output.range.1]
            .iter()
            .all(|q| (-128..=127).contains(q));
    if !monotonic {
        return None;
    }
    let run = p.window.in_channels;
    let ends = [-128, 127].map(|x| x - i64::from(p.x_zero_point));
    let (mut least, mut most) = (0, 0);
    for &w in &p.w[o * run..][..run] {
        let products = ends.map(|x| x * i64::from(w));
        least += products[0].min(products[1]);
        most += products[0].max(products[1]);
    }
    // nothing wraps around, not even when the zero point is added
    let bias = i64::from(output.bias[o]);
    let limit = i64::from(i32::MAX) - 128;
    if bias + least < -limit || bias + most > limit {
        return None;
    }
    let [low, high] = [least, most].map(|sum| i32::try_from(sum).ok());
    let (low, high) = (output.finish(low?, o), output.finish(high?, o));
    (low == high).then_some(low)
}

/// What [`Live::of`] finds.
fn list(p: &ConvI8, left: usize, to: &mut [i32]) {
    let (run, filters) = (p.window.in_channels, p.window.out_channels);
    let (bias, rest) = to.split_at_mut(left);
    let (multiplier, rest) = rest.split_at_mut(left);
    let (shift, rest) = rest.split_at_mut(left);
    let (first, rest) = rest.split_at_mut(filters / GROUP);
    let Ok(bytes) = <[i8]>::mut_from_bytes(rest.as_mut_bytes()) else {
        return;
    };
    let (place, rest) = bytes.split_at_mut(filters);
    let (constant, w) = rest.split_at_mut(filters);
    let mut next = 0;
    for o in 0..filters {
        if o % GROUP == 0 {
            first[o / GROUP] = next as i32;
        }
        match answer(p, o) {
            Some(answer) => (place[o], constant[o]) = (NONE, answer),
            None => {
                place[o] = (next - first[o / GROUP] as usize) as i8;
                w[next * run..][..run].copy_from_slice(&p.w[o * run..][..run]);
                bias[next] = p.output.bias[o];
                multiplier[next] = p.output.multiplier[o];
                shift[next] = p.output.shift[o];
                next += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::super::super::int8_tests::{Random, range};
    use super::super::super::kept::{Kept, Sizes};
    use super::super::super::{Simd, scalar};
    use super::super::conv::conv;
    use super::*;
    use std::vec::Vec;

    /// A layer and all that it borrows.
    struct Layer {
        window: Window,
        x: Vec<i8>,
        x_zero_point: i16,
        w: Vec<i8>,
        bias: Vec<i32>,
        multiplier: Vec<i32>,
        shift: Vec<i32>,
    }

    impl Layer {
        /// Of `filters` for so many pixels of `run` channels; those that `is_silent` answer the same whatever they see, for four reasons.
        fn new(
            [pixels, run, filters]: [usize; 3],
            is_silent: impl Fn(usize) -> bool,
            x_zero_point: i16,
        ) -> Layer {
            let mut random = Random((pixels + run + filters) as u64);
            let mut any = |n: usize| -> Vec<i8> {
                let number = |r: i32| (r >> 16) as i8;
                (0..n).map(|_| number(random.next())).collect()
            };
            let mut layer = Layer {
                window: Window {
                    batch: 1,
                    input: [1, pixels],
                    in_channels: run,
                    output: [1, pixels],
                    out_channels: filters,
                    kernel: [1, 1],
                    stride: [1, 1],
                    dilation: [1, 1],
                    padding: [0, 0],
                },
                x: any(pixels * run),
                x_zero_point,
                w: any(filters * run),
                bias: (0..filters).map(|o| 100 * (o % 20) as i32 - 900).collect(),
                multiplier: std::vec![3 << 29; filters],
                shift: std::vec![-7; filters],
            };
            for o in (0..filters).filter(|&o| is_silent(o)) {
                match o % 4 {
                    // nothing to add up
                    0 => layer.w[o * run..][..run].fill(0),
                    // beyond the rails, whatever is added
                    1 => layer.bias[o] = 1 << 28,
                    2 => layer.bias[o] = -(1 << 30),
                    // steps too small to be seen, far from where they would be rounded the other way
                    _ => (layer.bias[o], layer.shift[o]) = (1 << 30, -31),
                }
            }
            layer
        }

        fn layer<'a>(&'a self, kept: Option<&'a Kept<'a>>) -> ConvI8<'a> {
            ConvI8 {
                window: &self.window,
                x: &self.x,
                x_zero_point: self.x_zero_point,
                w: Constant::new(&self.w, kept),
                output: Requantize {
                    bias: &self.bias,
                    multiplier: &self.multiplier,
                    shift: &self.shift,
                    rounding: Rounding::Double,
                    zero_point: -5,
                    range: (-128, 127),
                },
            }
        }
    }

    /// What vector loops make of a layer, which must be what the scalar ones do, with so many filters left.
    fn compare(p: &ConvI8, left: Option<usize>) {
        assert_eq!(Live::of(p).map(|live| live.left()), left);
        let outputs = p.window.out_channels;
        let mut expected = std::vec![0; p.x.len() / p.window.in_channels * outputs];
        scalar::conv::forward_i8(p, &mut expected);
        let mut got = std::vec![77; expected.len()];
        // SAFETY: the CPU has AVX2.
        assert!(unsafe { conv(p, &mut got) });
        assert_eq!(got, expected, "{:?}", p.window);
    }

    #[test]
    fn silent_filters_are_left_out_and_filled_in() {
        if Simd::new().is_none() {
            return;
        }
        for (sizes, alive) in [
            ([9, 40, 32], 0),
            ([9, 40, 32], 1),
            ([36, 24, 32], 16),
            ([37, 16, 64], 31),
            ([20, 15, 64], 32),
            ([300, 8, 64], 32),
            // more pixels than there is room for at a time
            ([150, 5, 96], 40),
        ] {
            let [pixels, run, filters] = sizes;
            // of the first eight all, of others some
            let order = |o: usize| match o {
                0..8 => o,
                _ => 8 + (o * 5) % (filters - 8),
            };
            let bytes = Sizes {
                kernel: [1, 1],
                weight: 1,
                forward: [run, filters],
                backward: None,
                images: [[1, pixels]; 2],
                keeps_ties: false,
                phases: 1,
            };
            for x_zero_point in [-128, 0, 127] {
                let layer = Layer::new(sizes, |o| order(o) >= alive, x_zero_point);
                let left = (0..filters).filter(|&o| order(o) < alive).count();
                // more than enough, and what a model asks for, which begins with a cache line
                let used = [1 << 20, bytes.bytes() + 63].map(|room| {
                    let mut memory = std::vec![0xa5; room];
                    let kept = Kept::new(&mut memory);
                    let p = layer.layer(Some(&kept));
                    // found out, and found
                    compare(&p, Some(left));
                    let used = kept.used();
                    compare(&p, Some(left));
                    assert_eq!(used, kept.used(), "kept once more");
                    used
                });
                assert_eq!(used[0], used[1], "not all is kept: {sizes:?}");
                compare(&layer.layer(None), None);
                let mut small = std::vec![0xa5; 300];
                let kept = Kept::new(&mut small);
                compare(&layer.layer(Some(&kept)), None);
            }
        }
    }

    #[test]
    fn layers_with_more_to_say_stay_whole() {
        if Simd::new().is_none() {
            return;
        }
        for (sizes, silent, left) in [
            ([10, 12, 32], 16, Some(16)),
            ([10, 12, 32], 15, None),
            ([10, 12, 48], 48, None),
            // as many as may be left, and more
            ([35, 4, 576], 576 - 256, Some(256)),
            ([35, 4, 576], 576 - 257, None),
        ] {
            let layer = Layer::new(sizes, |o| o < silent, 3);
            let mut memory = std::vec![0; 1 << 20];
            let kept = Kept::new(&mut memory);
            compare(&layer.layer(Some(&kept)), left);
        }
    }

    /// What is kept is of a layer of its own: each differs from the first in one thing.
    #[test]
    fn what_is_left_is_a_layers_own() {
        if Simd::new().is_none() {
            return;
        }
        let mut first = Layer::new([20, 6, 64], |o| o >= 10 && o != 40, 3);
        // beyond the rails, if only just
        first.w[63 * 6..].fill(127);
        (first.bias[63], first.shift[63]) = (123_000, -7);
        let mut other = first.w.clone();
        other[12 * 6..][..6].fill(90);
        let (bias, multiplier) = (std::vec![1 << 29; 64], std::vec![0; 64]);
        let shift = std::vec![-31; 64];
        let wide = Window {
            input: [1, 10],
            output: [1, 10],
            in_channels: 12,
            out_channels: 32,
            ..first.window
        };
        let half = Window {
            out_channels: 32,
            ..first.window
        };
        let mut memory = std::vec![0; 1 << 18];
        let kept = Kept::new(&mut memory);
        let p = first.layer(Some(&kept));
        let q = p.output;
        let with = |output| ConvI8 { output, ..p };
        // the same constants, as far as there are filters
        let few = Requantize {
            bias: &q.bias[..32],
            multiplier: &q.multiplier[..32],
            shift: &q.shift[..32],
            ..q
        };
        let rounding = Rounding::Single;
        for _ in 0..2 {
            compare(&p, Some(11));
            compare(&with(Requantize { bias: &bias, ..q }), Some(0));
            let multiplier = &multiplier;
            compare(&with(Requantize { multiplier, ..q }), Some(0));
            compare(&with(Requantize { shift: &shift, ..q }), Some(0));
            compare(&with(Requantize { range: (4, 4), ..q }), Some(0));
            let range = (4, 127);
            compare(&with(Requantize { range, ..q }), Some(11));
            let zero_point = 90;
            compare(&with(Requantize { zero_point, ..q }), Some(11));
            let x_zero_point = 90;
            compare(&ConvI8 { x_zero_point, ..p }, Some(12));
            let w = Constant::new(&other[..], Some(&kept));
            compare(&ConvI8 { w, ..p }, Some(12));
            // the same weights as other filters, and the first half of them
            let output = few;
            let window = &wide;
            let seen = ConvI8 {
                window,
                output,
                ..p
            };
            compare(
                &seen,
                Some((0..32).filter(|&o| answer(&seen, o).is_none()).count()),
            );
            let w = Constant::new(&first.w[..32 * 6], Some(&kept));
            let window = &half;
            compare(
                &ConvI8 {
                    window,
                    w,
                    output,
                    ..p
                },
                Some(10),
            );
            // left to others
            let single = with(Requantize { rounding, ..q });
            assert!(Live::of(&single).is_none());
            // SAFETY: the CPU has AVX2.
            assert!(!unsafe { conv(&single, &mut [0; 20 * 64]) });
        }
    }

    /// For every input of one channel: the same answer, if one is known, and different ones, if none is and nothing wraps around.
    #[test]
    fn an_answer_is_known_where_there_is_one() {
        let mut random = Random(3);
        let window = Layer::new([1, 1, 1], |_| false, 0).window;
        let x: Vec<i8> = (i8::MIN..=i8::MAX).collect();
        let (mut known, mut wrap) = (0, 0);
        for round in 0..40_000 {
            let w = [random.next() as i8];
            let bias = match round % 3 {
                0 => [random.extreme()],
                1 => [random.next() >> 12],
                _ => [i32::MAX - (random.next() & 0xffff)],
            };
            let multiplier = [random.mantissa()];
            let shift = [random.next().rem_euclid(62) - 31];
            let p = ConvI8 {
                window: &window,
                x: &x,
                x_zero_point: (random.next() % 128) as i16,
                w: w[..].into(),
                output: Requantize {
                    bias: &bias,
                    multiplier: &multiplier,
                    shift: &shift,
                    rounding: Rounding::Double,
                    zero_point: random.next() % 128,
                    range: range(round),
                },
            };
            let sum = |x: i8| (i32::from(x) - i32::from(p.x_zero_point)) * i32::from(w[0]);
            let mut all = x.iter().map(|&x| p.output.finish(sum(x), 0));
            let one = p.output.finish(sum(-128), 0);
            let same = all.all(|y| y == one);
            match answer(&p, 0) {
                Some(answer) => {
                    assert!(same && answer == one, "{p:?}");
                    known += 1;
                }
                None if shift[0] <= 0 => {
                    let near = i64::from(bias[0]).abs() > i64::from(i32::MAX) - 70_000;
                    assert!(!same || near, "{p:?}");
                    wrap += i32::from(same);
                }
                None => {}
            }
            let rounding = Rounding::Single;
            let output = Requantize {
                rounding,
                ..p.output
            };
            assert_eq!(answer(&ConvI8 { output, ..p }, 0), None);
        }
        assert!(known > 5_000 && wrap > 100, "{known} {wrap}");
    }
}
