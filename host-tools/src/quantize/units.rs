//! Between real units and steps (LSB) of an int8 grid.

/// How much of a step may be missing: the rounding of `scale` and of epsilon themselves, in single precision.
const TOLERANCE: f64 = 1e-5;

/// An epsilon in real units as a whole number of steps of a grid with this scale: the most steps that stay
/// within it. 8/255 on a grid of 1/255 is exactly 8, although neither is exact in binary. Less than one step
/// gives 0: the device cannot see so small a change.
///
/// `scale` is positive and finite, `epsilon` is not negative; anything else gives 0.
pub fn lsb_epsilon(epsilon: f32, scale: f32) -> f32 {
    let usable = scale.is_finite() && scale > 0.0 && epsilon.is_finite() && epsilon > 0.0;
    if !usable {
        return 0.0;
    }
    let steps = f64::from(epsilon) / f64::from(scale);
    // no int8 grid has more than 255 steps
    (steps * (1.0 + TOLERANCE)).floor().min(255.0) as f32
}

/// An integer of a grid in real units.
pub fn dequantize(q: i8, scale: f32, zero_point: i32) -> f32 {
    scale * (i32::from(q) - zero_point) as f32
}

/// The nearest integer of a grid (halves away from zero, as TFLite), saturating. NaN gives the zero point.
pub fn quantize(real: f32, scale: f32, zero_point: i32) -> i8 {
    let steps = f64::from(real) / f64::from(scale);
    if steps.is_nan() {
        return zero_point.clamp(-128, 127) as i8;
    }
    (steps.round() + f64::from(zero_point)).clamp(-128.0, 127.0) as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_steps_are_exact_for_every_usual_grid() {
        for steps in 0..=255_u32 {
            let epsilon = steps as f32 / 255.0;
            assert_eq!(lsb_epsilon(epsilon, 1.0 / 255.0), steps as f32);
            // the grid of inputs in -1..1, and the epsilon that spans as many steps of it
            assert_eq!(lsb_epsilon(2.0 * epsilon, 2.0 / 255.0), steps as f32);
            // an epsilon that was read in double precision, with a scale from a file
            let scale = 0.003_921_568_6_f32;
            assert_eq!(
                lsb_epsilon((f64::from(steps) / 255.0) as f32, scale),
                steps as f32
            );
        }
    }

    #[test]
    fn parts_of_a_step_do_not_count() {
        assert_eq!(lsb_epsilon(7.99 / 255.0, 1.0 / 255.0), 7.0);
        assert_eq!(lsb_epsilon(0.9 / 255.0, 1.0 / 255.0), 0.0);
        assert_eq!(lsb_epsilon(0.25, 1.0 / 16.0), 4.0);
        assert_eq!(lsb_epsilon(0.3, 1.0 / 16.0), 4.0);
    }

    #[test]
    fn nonsense_gives_no_room() {
        for (epsilon, scale) in [
            (-1.0, 1.0),
            (f32::NAN, 1.0),
            (1.0, 0.0),
            (1.0, -1.0),
            (1.0, f32::NAN),
            (f32::INFINITY, 1.0),
        ] {
            assert_eq!(lsb_epsilon(epsilon, scale), 0.0);
        }
        assert_eq!(lsb_epsilon(1e30, 1e-30), 255.0);
    }

    #[test]
    fn every_integer_survives_the_way_there_and_back() {
        for q in i8::MIN..=i8::MAX {
            let real = dequantize(q, 0.017, -5);
            assert_eq!(quantize(real, 0.017, -5), q);
        }
        assert_eq!(quantize(1e9, 0.017, -5), 127);
        assert_eq!(quantize(-1e9, 0.017, -5), -128);
        assert_eq!(quantize(0.5, 1.0, 0), 1);
        assert_eq!(quantize(-0.5, 1.0, 0), -1);
    }
}
