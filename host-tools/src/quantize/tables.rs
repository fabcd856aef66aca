//! int8 functions of one element as tables: 256 outputs, and the real function's slope at each input.
//!
//! Entry `q + 128` belongs to the input `q`. The outputs are those of TFLite Micro's own arithmetic for the
//! operator (`activations.cc`, `leaky_relu.h`, `integer_ops/{tanh,logistic}.h`, `requantize.h`), so a table is
//! not an approximation of it. Slopes are the derivatives in real units; they are 0 where the output is held at
//! an end of its range, where the function itself would go on: no small change of the input shows there.

use super::fixed;
use super::multiplier::{self, input_radius, quantize_multiplier};
use foolproof::kernels::fixed_point::{requantize, rounding_shift};
use foolproof::ops::{Multiplier, Rounding, Unary};

/// Bits before the point in TFLite's fixed-point tanh and logistic function.
const FIXED_INTEGER_BITS: i32 = 4;

/// A grid: real = scale (q - zero_point).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Real units per step, positive and finite.
    pub scale: f32,
    /// The integer that stands for 0, in -128..=127.
    pub zero_point: i32,
}

impl Grid {
    /// The grid that TFLite demands of a softmax's or a logistic function's output: 0..=255/256.
    pub const PROBABILITY: Grid = Grid {
        scale: 1.0 / 256.0,
        zero_point: -128,
    };
    /// The grid that TFLite demands of a tanh's output.
    pub const TANH: Grid = Grid {
        scale: 1.0 / 128.0,
        zero_point: 0,
    };
}

/// The constants of an int8 [`Unary`] operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Outputs.
    pub values: Vec<i8>,
    /// Derivatives, real units per real unit.
    pub slopes: Vec<f32>,
}

/// The table of a function from one grid to another. `None`: the ratio of the scales is one that the fixed-point
/// arithmetic cannot hold, or (tanh, sigmoid) the output's grid is not the one that TFLite demands.
pub fn table(function: Unary, x: Grid, y: Grid, rounding: Rounding) -> Option<Table> {
    let entry: Entry = match function {
        Unary::Relu => clamped(x, y, rounding, f32::INFINITY)?,
        Unary::Relu6 => clamped(x, y, rounding, 6.0)?,
        Unary::LeakyRelu { alpha } => leaky(x, y, rounding, alpha)?,
        Unary::Tanh => {
            let f = fixed_point(x, rounding, fixed::tanh, 7);
            (y == Grid::TANH).then_some(())?;
            Box::new(move |q| {
                let t = f64::from(x.scale) * f64::from(q);
                (f(q), (1.0 - t.tanh().powi(2)) as f32)
            })
        }
        Unary::Sigmoid => {
            let f = fixed_point(x, rounding, fixed::logistic, 8);
            (y == Grid::PROBABILITY).then_some(())?;
            Box::new(move |q| {
                let s = 1.0 / (1.0 + (-f64::from(x.scale) * f64::from(q)).exp());
                (f(q), (s * (1.0 - s)) as f32)
            })
        }
        Unary::Requantize => {
            let m = multiplier::requantize(x.scale, y.scale)?;
            Box::new(move |q| (y.zero_point.saturating_add(scaled(q, m, rounding)), 1.0))
        }
        _ => return None,
    };
    let saturates = !matches!(function, Unary::Tanh | Unary::Sigmoid);
    let (values, slopes) = (-128..=127)
        .map(|q| {
            let (value, slope) = entry(q - x.zero_point);
            let held = saturates && !(-128..=127).contains(&value);
            let slope = if held { 0.0 } else { slope };
            (value.clamp(-128, 127) as i8, slope)
        })
        .unzip();
    Some(Table { values, slopes })
}

/// A step of the input, at most 255, times a factor. From 2^22 on the shifted step does not fit in 32 bits; the
/// product is then far outside of int8, and only its sign counts.
fn scaled(q: i32, m: Multiplier, rounding: Rounding) -> i32 {
    match m.shift > 22 {
        true => q.signum() * (1 << 22),
        false => requantize(q, m, rounding),
    }
}

type Entry = Box<dyn Fn(i32) -> (i32, f32)>;

/// max(0, x), or also min(6, x). The ratio of the scales is taken in single precision.
fn clamped(x: Grid, y: Grid, rounding: Rounding, top: f32) -> Option<Entry> {
    let m = quantize_multiplier(f64::from(x.scale / y.scale))?;
    let top_q = f64::from(y.zero_point) + f64::from((top / y.scale).round());
    let top_q = top_q.min(127.0) as i32;
    Some(Box::new(move |q| {
        let real = x.scale * q as f32;
        let value = y.zero_point.saturating_add(scaled(q, m, rounding));
        let inside = real > 0.0 && real < top;
        let slope = if inside && value <= 127 { 1.0 } else { 0.0 };
        (value.max(y.zero_point).min(top_q), slope)
    }))
}

/// x where x >= 0, else alpha x. The ratios are taken in single precision.
fn leaky(x: Grid, y: Grid, rounding: Rounding, alpha: f32) -> Option<Entry> {
    let identity = quantize_multiplier(f64::from(x.scale / y.scale))?;
    let below = quantize_multiplier(f64::from(x.scale * alpha / y.scale))?;
    Some(Box::new(move |q| {
        let (m, slope) = if q >= 0 {
            (identity, 1.0)
        } else {
            (below, alpha)
        };
        let slope = if q == 0 { alpha } else { slope };
        (y.zero_point.saturating_add(scaled(q, m, rounding)), slope)
    }))
}

/// A fixed-point function behind TFLite's input scaling, rounded to `output_bits`.
fn fixed_point(
    x: Grid,
    rounding: Rounding,
    f: fn(i32) -> i32,
    output_bits: u32,
) -> impl Fn(i32) -> i32 {
    let factor = f64::from(x.scale) * f64::from(1_u32 << (31 - FIXED_INTEGER_BITS));
    let (m, radius) = match quantize_multiplier(factor) {
        Some(m) => (m, input_radius(FIXED_INTEGER_BITS, m.shift)),
        // a step of 8 and more: TFLite's radius is below one step, and everything lies outside it
        None => (Multiplier::default(), 0.0),
    };
    // the logistic function's least value is the zero point, tanh's is -1
    let offset = if output_bits == 8 { -128 } else { 0 };
    move |q: i32| {
        let steps = f64::from(q);
        if steps <= -radius {
            -128
        } else if steps >= radius {
            127
        } else {
            rounding_shift(f(requantize(q, m, rounding)), 31 - output_bits) + offset
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(scale: f32, zero_point: i32) -> Grid {
        Grid { scale, zero_point }
    }

    /// Every entry against the real function, in steps of the output.
    fn worst(function: Unary, x: Grid, y: Grid, f: impl Fn(f64) -> f64) -> f64 {
        // two roundings: the first one at half a step or finer
        let double = distance(table(function, x, y, Rounding::Double), x, y, &f);
        assert!(double <= 0.75 + 1e-5);
        distance(table(function, x, y, Rounding::Single), x, y, &f)
    }

    fn distance(table: Option<Table>, x: Grid, y: Grid, f: &dyn Fn(f64) -> f64) -> f64 {
        let table = table.unwrap();
        assert_eq!((table.values.len(), table.slopes.len()), (256, 256));
        (-128..=127)
            .map(|q: i32| {
                let real = f64::from(x.scale) * f64::from(q - x.zero_point);
                let ideal = f(real) / f64::from(y.scale) + f64::from(y.zero_point);
                let got = f64::from(table.values[(q + 128) as usize]);
                (got - ideal.clamp(-128.0, 127.0)).abs()
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn entries_are_within_half_a_step_of_the_function() {
        let x = grid(0.05, -7);
        let y = grid(0.031, 12);
        // half a step, and the rounding of the scales' ratio to single precision
        let limit = 0.5 + 1e-5;
        assert!(worst(Unary::Relu, x, y, |v| v.max(0.0)) <= limit);
        let six = grid(6.0 / 255.0, -128);
        assert!(worst(Unary::Relu6, grid(0.1, 3), six, |v| v.clamp(0.0, 6.0)) <= limit);
        let leaky = Unary::LeakyRelu { alpha: 0.1 };
        assert!(worst(leaky, x, y, |v| if v > 0.0 { v } else { 0.1 * v }) <= limit);
        assert!(worst(Unary::Requantize, x, y, |v| v) <= limit);
        assert!(worst(Unary::Tanh, x, Grid::TANH, f64::tanh) <= limit);
        let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
        assert!(worst(Unary::Sigmoid, x, Grid::PROBABILITY, sigmoid) <= limit);
    }

    #[test]
    fn slopes_are_the_derivative_and_vanish_where_the_output_is_held() {
        let t = table(
            Unary::Requantize,
            grid(1.0, 0),
            grid(0.5, 0),
            Rounding::Double,
        )
        .unwrap();
        assert_eq!(t.slopes[(127 + 128) as usize], 0.0);
        assert_eq!(t.slopes[(50 + 128) as usize], 1.0);
        let t = table(Unary::Relu, grid(0.1, 0), grid(0.1, -128), Rounding::Double).unwrap();
        assert_eq!(
            (t.slopes[127], t.slopes[128], t.slopes[129]),
            (0.0, 0.0, 1.0)
        );
        let leaky = Unary::LeakyRelu { alpha: 0.25 };
        let t = table(leaky, grid(0.1, 0), grid(0.1, 0), Rounding::Double).unwrap();
        assert_eq!((t.slopes[127], t.slopes[129]), (0.25, 1.0));
        let t = table(Unary::Tanh, grid(0.1, 0), Grid::TANH, Rounding::Double).unwrap();
        assert_eq!(t.slopes[128], 1.0);
        assert!((t.slopes[138] - (1.0 - 1_f32.tanh().powi(2))).abs() < 1e-6);
        let t = table(
            Unary::Sigmoid,
            grid(0.1, 0),
            Grid::PROBABILITY,
            Rounding::Double,
        )
        .unwrap();
        assert_eq!(t.slopes[128], 0.25);
    }

    #[test]
    fn the_identity_between_equal_grids_changes_nothing() {
        for rounding in [Rounding::Double, Rounding::Single] {
            let same = grid(0.0123, 9);
            let t = table(Unary::Requantize, same, same, rounding).unwrap();
            let all: Vec<i8> = (-128..=127).collect();
            assert_eq!(t.values, all);
        }
    }

    #[test]
    fn impossible_grids_are_refused() {
        let x = grid(0.1, 0);
        let double = Rounding::Double;
        assert_eq!(table(Unary::Tanh, x, Grid::PROBABILITY, double), None);
        assert_eq!(table(Unary::Sigmoid, x, Grid::TANH, double), None);
        assert_eq!(
            table(Unary::Requantize, grid(1e20, 0), grid(1e-20, 0), double),
            None
        );
        assert_eq!(
            table(Unary::Relu, grid(1e30, 0), grid(1e-30, 0), double),
            None
        );
    }

    #[test]
    fn huge_and_tiny_steps_saturate_instead_of_failing() {
        let t = table(Unary::Tanh, grid(1e10, 0), Grid::TANH, Rounding::Double).unwrap();
        assert_eq!((t.values[0], t.values[255]), (-128, 127));
        let t = table(
            Unary::Sigmoid,
            grid(1e-30, 0),
            Grid::PROBABILITY,
            Rounding::Double,
        )
        .unwrap();
        assert!(t.values.iter().all(|&v| v == 0));
    }
}
