//! int8 functions of one element as tables: 256 outputs, and the real function's slope at each input. The engine
//! computes them ([`Unary::table`]) as TFLite Micro would compute each element; here they meet the graph's grids.

use foolproof::ops::{Numerics, Unary};
use foolproof::tensor::Quant;

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
pub fn table(function: Unary, x: Grid, y: Grid, numerics: Numerics) -> Option<Table> {
    let quant = |grid: Grid| Quant {
        scale: grid.scale,
        zero_point: grid.zero_point,
        channel_scales: &[],
    };
    let table = function.table(&quant(x), &quant(y), numerics)?;
    Some(Table {
        values: table.values.to_vec(),
        slopes: table.slopes.to_vec(),
    })
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
        let double = distance(table(function, x, y, Numerics::Tflm), x, y, &f);
        assert!(double <= 0.75 + 1e-5);
        distance(table(function, x, y, Numerics::TflmSingle), x, y, &f)
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
            Numerics::Tflm,
        )
        .unwrap();
        assert_eq!(t.slopes[(127 + 128) as usize], 0.0);
        assert_eq!(t.slopes[(50 + 128) as usize], 1.0);
        let t = table(Unary::Relu, grid(0.1, 0), grid(0.1, -128), Numerics::Tflm).unwrap();
        assert_eq!(
            (t.slopes[127], t.slopes[128], t.slopes[129]),
            (0.0, 0.0, 1.0)
        );
        let leaky = Unary::LeakyRelu { alpha: 0.25 };
        let t = table(leaky, grid(0.1, 0), grid(0.1, 0), Numerics::Tflm).unwrap();
        assert_eq!((t.slopes[127], t.slopes[129]), (0.25, 1.0));
        let t = table(Unary::Tanh, grid(0.1, 0), Grid::TANH, Numerics::Tflm).unwrap();
        assert_eq!(t.slopes[128], 1.0);
        assert!((t.slopes[138] - (1.0 - 1_f32.tanh().powi(2))).abs() < 1e-6);
        let t = table(
            Unary::Sigmoid,
            grid(0.1, 0),
            Grid::PROBABILITY,
            Numerics::Tflm,
        )
        .unwrap();
        assert_eq!(t.slopes[128], 0.25);
    }

    #[test]
    fn the_identity_between_equal_grids_changes_nothing() {
        for rounding in [Numerics::Tflm, Numerics::TflmSingle] {
            let same = grid(0.0123, 9);
            let t = table(Unary::Requantize, same, same, rounding).unwrap();
            let all: Vec<i8> = (-128..=127).collect();
            assert_eq!(t.values, all);
        }
    }

    #[test]
    fn impossible_grids_are_refused() {
        let x = grid(0.1, 0);
        let double = Numerics::Tflm;
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
        let t = table(Unary::Tanh, grid(1e10, 0), Grid::TANH, Numerics::Tflm).unwrap();
        assert_eq!((t.values[0], t.values[255]), (-128, 127));
        let t = table(
            Unary::Sigmoid,
            grid(1e-30, 0),
            Grid::PROBABILITY,
            Numerics::Tflm,
        )
        .unwrap();
        assert!(t.values.iter().all(|&v| v == 0));
    }
}
