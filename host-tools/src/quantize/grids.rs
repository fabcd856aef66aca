//! Which grid each activation lives on.

use super::ranges::Range;
use super::tables::Grid;
use super::{Options, QuantizeError, unsupported};
use crate::graph::{Graph, Node, TensorId};
use foolproof::model::format::TensorRole;
use foolproof::ops::{Op, Unary};

/// The smallest step that a grid may have: products of two steps stay normal numbers in single precision.
const SMALLEST_STEP: f32 = f32::from_bits((127 - 60) << 23);
/// A fixed-point factor stays below 2^30; with room for rounding.
const LARGEST_FACTOR: f64 = (1_u32 << 29) as f64;
/// Between a step of a table's input and one of its output: 255 steps of the input still fit in 32 bits.
const LARGEST_TABLE_FACTOR: f64 = (1_u32 << 21) as f64;

/// A grid for every activation.
pub(super) struct Grids {
    of: Vec<Option<Grid>>,
}

impl Grids {
    /// The grid of an activation.
    pub fn get(&self, t: TensorId) -> Grid {
        // every activation has one; a constant is never asked for
        self.of[t].unwrap_or(Grid::PROBABILITY)
    }
}

/// The grid whose 256 steps span a range, 0 included exactly (TFLite's `ChooseQuantizationParams`): the zero
/// point is computed from the end where it loses less, and rounded. A range of 0 alone counts as 0..1.
pub(super) fn spanning(range: Range) -> Grid {
    let low = f64::from(range.low).min(0.0);
    let mut high = f64::from(range.high).max(0.0);
    if low == 0.0 && high == 0.0 {
        high = 1.0;
    }
    let step = (high - low) / 255.0;
    let scale = (step as f32).max(SMALLEST_STEP);
    let step = f64::from(scale);
    let from_low = -128.0 - low / step;
    let from_high = 127.0 - high / step;
    let zero_point = match 128.0 + (low / step).abs() < 127.0 + (high / step).abs() {
        true => from_low,
        false => from_high,
    };
    Grid {
        scale,
        zero_point: zero_point.round().clamp(-128.0, 127.0) as i32,
    }
}

/// Tensors that share a grid, as a forest: every tensor points towards its group's root.
struct Groups {
    parent: Vec<TensorId>,
}

impl Groups {
    fn root(&self, mut t: TensorId) -> TensorId {
        while self.parent[t] != t {
            t = self.parent[t];
        }
        t
    }

    fn unite(&mut self, a: TensorId, b: TensorId) {
        let (a, b) = (self.root(a), self.root(b));
        self.parent[b] = a;
    }
}

/// Whether the operator moves values without rescaling them.
fn keeps_grid(op: &Op) -> bool {
    matches!(
        op,
        Op::MaxPool2d(_) | Op::AvgPool2d(_) | Op::Reshape | Op::Pad(_) | Op::Slice(_)
    )
}

/// The grid that TFLite demands of an operator's output.
fn demanded(op: &Op) -> Option<Grid> {
    match op {
        Op::Softmax(_) | Op::Unary(Unary::Sigmoid) => Some(Grid::PROBABILITY),
        Op::Unary(Unary::Tanh) => Some(Grid::TANH),
        _ => None,
    }
}

/// Chooses all grids.
pub(super) fn assign(
    graph: &Graph,
    ranges: &[Range],
    options: &Options,
) -> Result<Grids, QuantizeError> {
    let mut groups = Groups {
        parent: (0..graph.tensors.len()).collect(),
    };
    for node in graph.nodes.iter().filter(|n| keeps_grid(&n.op)) {
        groups.unite(node.inputs[0], node.output);
    }
    // grids that are given, by their group's root
    let mut given = vec![None; graph.tensors.len()];
    if options.input_from_range {
        let (low, high) = graph.input_range;
        given[groups.root(graph.input)] = Some(spanning(Range { low, high }));
    }
    for node in &graph.nodes {
        if let Some(grid) = demanded(&node.op) {
            given[groups.root(node.output)] = Some(grid);
        }
    }
    // a concatenation's inputs take its grid, unless they have a given one
    for node in &graph.nodes {
        if matches!(node.op, Op::Concat(_)) {
            for &t in activations(graph, node) {
                if given[groups.root(t)].is_none() {
                    groups.unite(node.output, t);
                }
            }
        }
    }
    let mut group_ranges = vec![Range::EMPTY; graph.tensors.len()];
    for (t, &range) in ranges.iter().enumerate() {
        let root = groups.root(t);
        group_ranges[root] = group_ranges[root].union(range);
    }
    let mut by_root: Vec<Grid> = group_ranges.into_iter().map(spanning).collect();
    for (grid, given) in by_root.iter_mut().zip(&given) {
        *grid = given.unwrap_or(*grid);
    }
    widen(graph, &groups, &given, &mut by_root)?;
    let of = (0..graph.tensors.len())
        .map(|t| {
            let activation = graph.tensors[t].role == TensorRole::Activation;
            activation.then(|| by_root[groups.root(t)])
        })
        .collect();
    Ok(Grids { of })
}

fn activations<'a>(graph: &'a Graph, node: &'a Node) -> impl Iterator<Item = &'a TensorId> {
    let activation = |t: &&TensorId| graph.tensors[**t].role == TensorRole::Activation;
    node.inputs.iter().filter(activation)
}

/// Steps that are so small against those of the operator's inputs that the fixed-point factor between them would
/// overflow are made larger. That happens where values cancel out, or where calibration saw almost nothing.
fn widen(
    graph: &Graph,
    groups: &Groups,
    given: &[Option<Grid>],
    by_root: &mut [Grid],
) -> Result<(), QuantizeError> {
    // each round can only enlarge, by powers of the limits; a cycle through a shared grid settles at once
    for _ in 0..=graph.nodes.len() {
        let mut changed = false;
        for (operator, node) in graph.nodes.iter().enumerate() {
            let scale_of = |t: TensorId| match graph.tensors[t].role {
                TensorRole::Activation => by_root[groups.root(t)].scale,
                _ => spanning(Range::of(graph.f32(t))).scale,
            };
            let Some((t, least)) = least_scale(graph, node, &scale_of) else {
                continue;
            };
            let root = groups.root(t);
            if by_root[root].scale >= least {
                continue;
            }
            if given[root].is_some() || !least.is_finite() {
                let reason = "the scales of its operands are too far apart for 32-bit fixed point";
                return Err(unsupported(graph, operator, reason));
            }
            by_root[root].scale = least;
            changed = true;
        }
        if !changed {
            break;
        }
    }
    Ok(())
}

/// The tensor whose step an operator bounds from below, and the bound.
fn least_scale(
    graph: &Graph,
    node: &Node,
    scale_of: &dyn Fn(TensorId) -> f32,
) -> Option<(TensorId, f32)> {
    let input = |i: usize| f64::from(scale_of(node.inputs[i]));
    let bound = match &node.op {
        Op::Add(_) => 2.0 * input(0).max(input(1)) / f64::from(1_u32 << 19),
        Op::Mul(_) => input(0) * input(1) / LARGEST_FACTOR,
        Op::Conv2d(_) | Op::ConvTranspose2d(_) | Op::DepthwiseConv2d(_) | Op::Dense(_) => {
            let largest = |t: TensorId| {
                let range = Range::of(graph.f32(t));
                f64::from(range.high.max(-range.low))
            };
            let product = input(0) * largest(node.inputs[1]) / 127.0;
            let bias = largest(node.inputs[2]) / super::lower::BIAS_LIMIT;
            product.max(bias) / LARGEST_FACTOR
        }
        Op::Softmax(softmax) => {
            // the factor beta s_x 2^26 must be above 1
            let least = 2_f64.powi(-25) / f64::from(softmax.beta);
            return Some((node.inputs[0], least as f32));
        }
        Op::Unary(Unary::Tanh | Unary::Sigmoid) => return None,
        Op::Unary(Unary::LeakyRelu { alpha }) => {
            input(0) * f64::from(alpha.max(1.0)) / LARGEST_TABLE_FACTOR
        }
        Op::Unary(_) => input(0) / LARGEST_TABLE_FACTOR,
        _ => return None,
    };
    Some((node.output, bound as f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(low: f32, high: f32) -> Grid {
        spanning(Range { low, high })
    }

    #[test]
    fn zero_is_always_on_the_grid() {
        for (low, high) in [
            (0.0, 1.0),
            (-1.0, 0.0),
            (-1.0, 1.0),
            (-0.3, 7.0),
            (2.0, 5.0),
            (-9.0, -4.0),
        ] {
            let grid = span(low, high);
            assert!(
                (-128..=127).contains(&grid.zero_point),
                "{low} {high}: {grid:?}"
            );
            let ends = [-128, 127].map(|q| grid.scale * (q - grid.zero_point) as f32);
            // the ends are at most half a step away after the zero point is rounded
            assert!(
                ends[0] <= low.min(0.0) + 0.5001 * grid.scale,
                "{low} {high}: {ends:?}"
            );
            assert!(
                ends[1] >= high.max(0.0) - 0.5001 * grid.scale,
                "{low} {high}: {ends:?}"
            );
        }
        assert_eq!(
            span(0.0, 1.0),
            Grid {
                scale: 1.0 / 255.0,
                zero_point: -128
            }
        );
        assert_eq!(span(2.0, 5.0).zero_point, -128);
        assert_eq!(span(-9.0, -4.0).zero_point, 127);
        assert_eq!(span(-1.0, 1.0).scale, 2.0 / 255.0);
    }

    #[test]
    fn degenerate_ranges_give_usable_grids() {
        assert_eq!(
            span(0.0, 0.0),
            Grid {
                scale: 1.0 / 255.0,
                zero_point: -128
            }
        );
        assert_eq!(spanning(Range::EMPTY), span(0.0, 0.0));
        for (low, high) in [
            (0.0, 1e-45),
            (-1e-40, 1e-40),
            (-f32::MAX, f32::MAX),
            (0.0, f32::MAX),
        ] {
            let grid = span(low, high);
            assert!(grid.scale.is_finite() && grid.scale >= SMALLEST_STEP);
            assert!((-128..=127).contains(&grid.zero_point));
        }
    }
}
