//! Elementwise product of two tensors of one shape.

use super::super::MulI8;
use super::super::simd::ran_wide;
use super::super::strip::bytes;
use super::add::sixteen;
use super::{CONSTANTS, Finish, Form, LANES, WIDE, is_plain, plain_constants, store};
use core::arch::x86_64::*;

/// The largest product of two elements less their zero points.
const MOST: i64 = 255 * 255;

/// TFLite Micro's integer product, two roundings; false where it was left undone.
#[target_feature(enable = "avx512vl,avx512bw,avx512vnni")]
pub(in super::super) fn mul(p: &MulI8, y: &mut [i8]) -> bool {
    let in_range = p.zero_points.iter().all(|z| (-128..=127).contains(z));
    if !in_range || !is_plain(p.output, p.zero_point, MOST) {
        return false;
    }
    let mut constants = [[0; LANES]; CONSTANTS];
    for lane in 0..LANES {
        let of_lane = plain_constants(p.output, p.zero_point, 0);
        of_lane.write(lane, constants.as_flattened_mut());
    }
    ran_wide();
    let constants = core::slice::from_ref(&constants);
    let finish = Finish::new(Form::Plain, constants, p.zero_point, p.range);
    let zero_points = p.zero_points.map(|z| _mm512_set1_epi32(z));
    let [a, b] = p.x.map(|x| x.chunks(WIDE));
    for ((a, b), y) in a.zip(b).zip(y.chunks_mut(WIDE)) {
        let mut room = [[0; WIDE]; 2];
        let [room, more_room] = &mut room;
        let (a, b) = (bytes(a, room), bytes(b, more_room));
        let mut sums = [finish.start(0); 4];
        for (i, sum) in sums.iter_mut().enumerate() {
            let a = _mm512_sub_epi32(sixteen(a, i), zero_points[0]);
            let b = _mm512_sub_epi32(sixteen(b, i), zero_points[1]);
            *sum = _mm512_add_epi32(*sum, _mm512_mullo_epi32(a, b));
        }
        store(finish.plain::<1>(&sums), y);
    }
    true
}
