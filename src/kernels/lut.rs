//! Sigmoid and tanh of 16-bit numbers, by a table and straight lines between its entries: what recurrent layers of TFLite
//! Micro compute with (`reference_integer_ops::Logistic` and `Tanh` for int16).

/// `65536 sigmoid(i / 24)`. The runtime's own table, which every implementation must share to give the same bits: 44 of
/// its entries lie one above the rounded value.
static SIGMOID: [u16; 256] = [
    32768, 33451, 34133, 34813, 35493, 36169, 36843, 37513, 38180, 38841, 39498, 40149, 40794,
    41432, 42064, 42688, 43304, 43912, 44511, 45102, 45683, 46255, 46817, 47369, 47911, 48443,
    48964, 49475, 49975, 50464, 50942, 51409, 51865, 52311, 52745, 53169, 53581, 53983, 54374,
    54755, 55125, 55485, 55834, 56174, 56503, 56823, 57133, 57433, 57724, 58007, 58280, 58544,
    58800, 59048, 59288, 59519, 59743, 59959, 60168, 60370, 60565, 60753, 60935, 61110, 61279,
    61441, 61599, 61750, 61896, 62036, 62172, 62302, 62428, 62549, 62666, 62778, 62886, 62990,
    63090, 63186, 63279, 63368, 63454, 63536, 63615, 63691, 63765, 63835, 63903, 63968, 64030,
    64090, 64148, 64204, 64257, 64308, 64357, 64405, 64450, 64494, 64536, 64576, 64614, 64652,
    64687, 64721, 64754, 64786, 64816, 64845, 64873, 64900, 64926, 64950, 64974, 64997, 65019,
    65039, 65060, 65079, 65097, 65115, 65132, 65149, 65164, 65179, 65194, 65208, 65221, 65234,
    65246, 65258, 65269, 65280, 65291, 65301, 65310, 65319, 65328, 65337, 65345, 65352, 65360,
    65367, 65374, 65381, 65387, 65393, 65399, 65404, 65410, 65415, 65420, 65425, 65429, 65433,
    65438, 65442, 65445, 65449, 65453, 65456, 65459, 65462, 65465, 65468, 65471, 65474, 65476,
    65479, 65481, 65483, 65485, 65488, 65489, 65491, 65493, 65495, 65497, 65498, 65500, 65501,
    65503, 65504, 65505, 65507, 65508, 65509, 65510, 65511, 65512, 65513, 65514, 65515, 65516,
    65517, 65517, 65518, 65519, 65520, 65520, 65521, 65522, 65522, 65523, 65523, 65524, 65524,
    65525, 65525, 65526, 65526, 65526, 65527, 65527, 65528, 65528, 65528, 65529, 65529, 65529,
    65529, 65530, 65530, 65530, 65530, 65531, 65531, 65531, 65531, 65531, 65532, 65532, 65532,
    65532, 65532, 65532, 65533, 65533, 65533, 65533, 65533, 65533, 65533, 65533, 65534, 65534,
    65534, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65535,
];

/// The table at `x 2^-fraction` for `x >= 0`, scaled by `2^fraction`; the largest value that 16 bits hold behind its end.
#[inline(always)]
fn between(x: u32, fraction: u32) -> i32 {
    let i = (x >> fraction) as usize;
    let (Some(&a), Some(&b)) = (SIGMOID.get(i), SIGMOID.get(i + 1)) else {
        return i32::MAX;
    };
    let part = (x & ((1 << fraction) - 1)) as i32;
    (i32::from(a) << fraction) + part * (i32::from(b) - i32::from(a))
}

/// Sigmoid of a number with 12 bits behind the point; the result has 15.
#[inline]
pub fn sigmoid(x: i16) -> i16 {
    let x = 3 * i32::from(x);
    let y = between(x.unsigned_abs(), 9).min(0x7fff << 10);
    let y = match x >= 0 {
        true => y + (1 << 9),
        false => (1 << 25) - y + (1 << 9) - 1,
    };
    (y >> 10) as i16
}

/// Tanh of `x 2^power`, for a power in [`POWERS`]; the result has 15 bits behind the point.
#[inline]
pub fn tanh(x: i16, power: i32) -> i16 {
    let shift = power + 12;
    let x = 3 * i32::from(x);
    let x = match shift >= 0 {
        true => x << shift.min(12),
        false => (x + (1 << (-shift - 1))) >> -shift,
    };
    let y = between(x.unsigned_abs(), 8).min(0xffff << 8);
    let y = match x >= 0 {
        true => y - (1 << 23) + (1 << 7),
        false => (1 << 23) - y + (1 << 7) - 1,
    };
    (y >> 8) as i16
}

/// The powers of two that [`tanh`] takes as its input's scale.
pub const POWERS: core::ops::RangeInclusive<i32> = -15..=0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_sigmoid() {
        let mut above = 0;
        for (i, &entry) in SIGMOID.iter().enumerate() {
            let exact = (65536.0 / (1.0 + (-(i as f64) / 24.0).exp())).min(65535.0);
            let off = f64::from(entry) - exact;
            assert!((-0.51..1.3).contains(&off), "entry {i} is {entry}");
            above += u32::from(f64::from(entry) > exact.round());
        }
        assert_eq!(above, 44);
    }

    #[test]
    fn both_functions_are_close_to_the_real_ones() {
        for x in i16::MIN..=i16::MAX {
            let real = f64::from(x) / 4096.0;
            let got = f64::from(sigmoid(x)) / 32768.0;
            assert!((got - 1.0 / (1.0 + (-real).exp())).abs() < 1.5e-4, "{x}");
            for power in POWERS {
                let real = f64::from(x) * f64::from(power).exp2();
                let got = f64::from(tanh(x, power)) / 32768.0;
                assert!((got - real.tanh()).abs() < 4e-4, "{x} {power}: {got}");
            }
        }
    }
}
