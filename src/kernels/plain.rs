//! Requantization with two roundings as a chip does it best: what nearly all layers need, checked once a layer.

use super::{Requantize, Rounding};

/// A bias below this and a sum of [`DEPTH`] products stay below 2^30 together, so that their double is an i32.
const BIAS: u32 = 1 << 29;
/// `DEPTH * 255 * 128` is below 2^29.
const DEPTH: usize = 1 << 14;

/// Whether `arm::finish` gives what [`Requantize::finish`] does, for sums of `depth` products: two roundings, factors below
/// one half, and no sum that comes near the limits of an i32.
pub fn is_plain(p: &Requantize, depth: usize) -> bool {
    depth <= DEPTH
        && p.rounding == Rounding::Double
        && (-128..=127).contains(&p.range.0)
        && (-128..=127).contains(&p.range.1)
        && p.shift.iter().all(|shift| (-31..0).contains(shift))
        && p.bias.iter().all(|bias| bias.unsigned_abs() < BIAS)
}

/// An int8 output of a plain layer from its accumulator, bias added: what `arm::finish` computes, for the tests.
///
/// `(2 s m + 2^31) >> 32` is gemmlowp's doubling high multiply of `s` and `m` in one instruction of the DSP extension. What
/// follows rounds halves away from zero: less one below zero, halves go up.
#[cfg(test)]
fn finish(sum: i32, mantissa: i32, shift: i32, zero_point: i32, range: (i32, i32)) -> i8 {
    let double = i64::from(sum.wrapping_mul(2));
    let high = ((double * i64::from(mantissa) + (1 << 31)) >> 32) as i32;
    let floor = high.wrapping_add(high >> 31) >> (!shift & 31);
    let q = (floor.wrapping_add(1) >> 1).wrapping_add(zero_point);
    q.max(range.0).min(range.1) as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_requantization_is_the_general_one() {
        let mut state = 7u64;
        let mut next = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) as i32
        };
        for round in 0..200_000 {
            let mantissa = [0, 1 << 30, i32::MAX, (1 << 30) + next() / 2][round % 4].max(0);
            let shift = -1 - (next() & 31).min(30);
            let bias = next() % (1 << 29);
            let sum = match round % 3 {
                0 => next() % 1000,
                // halves, exactly
                1 => (next() % 64) << (-shift - 1).min(20),
                _ => next() % (1 << 29) * if round % 2 == 0 { 1 } else { -1 },
            };
            let p = Requantize {
                bias: &[bias],
                multiplier: &[mantissa],
                shift: &[shift],
                rounding: Rounding::Double,
                zero_point: next() % 256 - 128,
                range: (-128, 127),
            };
            assert!(is_plain(&p, DEPTH));
            let y = finish(sum + bias, mantissa, shift, p.zero_point, p.range);
            assert_eq!(y, p.finish(sum, 0), "{p:?} of {sum}");
        }
    }

    #[test]
    fn what_is_not_plain() {
        let plain = Requantize {
            bias: &[0, 5],
            multiplier: &[1 << 30; 2],
            shift: &[-1, -31],
            rounding: Rounding::Double,
            zero_point: 0,
            range: (-128, 127),
        };
        assert!(is_plain(&plain, 9));
        assert!(!is_plain(&plain, DEPTH + 1));
        assert!(!is_plain(
            &Requantize {
                shift: &[-1, 0],
                ..plain
            },
            9
        ));
        assert!(!is_plain(
            &Requantize {
                bias: &[0, i32::MIN],
                ..plain
            },
            9
        ));
        let rounding = Rounding::Single;
        assert!(!is_plain(&Requantize { rounding, ..plain }, 9));
    }
}
