//! Quantization-aware training: the network in f32, its weights and activations rounded to the values that the int8 model will
//! have (fake quantization; Jacob et al. 2018, section 3).
//!
//! Activations go through [`Op::Quantize`] and [`Op::Dequantize`], so the engine's own backward passes the gradient straight through
//! the rounding and stops it where a value is beyond its range. Weights are rounded before a step ([`Aware::round`]); the step
//! then moves the unrounded ones. The logits stay unrounded: the gradient of one that is beyond its range would vanish.

use super::grids::{self, Grids};
use super::lower::layer_steps;
use super::ranges::Range;
use super::tables::Grid;
use super::{Options, QuantizeError, Ranges, lower, units};
use crate::graph::{Graph, Node, Quant, Tensor, TensorData};
use foolproof::ops::Op;
use foolproof::tensor::DType;

/// A network and the grids that it is trained on.
pub struct Aware {
    graph: Graph,
    grids: Grids,
    options: Options,
}

impl Aware {
    /// Of a network without batch normalizations ([`super::fold::fold`]) and what its activations reach.
    ///
    /// # Errors
    /// An operator has no int8 form.
    pub fn new(graph: &Graph, ranges: &Ranges, options: Options) -> Result<Aware, QuantizeError> {
        let grids = grids::assign(graph, &ranges.0, &options)?;
        // what has no int8 form is refused before training, not after it
        lower::lower(graph, &grids, &options)?;
        Ok(Aware {
            graph: graph.clone(),
            grids,
            options,
        })
    }

    /// The network with every activation rounded, but for the input and the logits. Its first tensors are those of the network.
    pub fn rounded(&self) -> Graph {
        let mut out = self.graph.clone();
        out.numerics = self.options.numerics;
        out.nodes.clear();
        let exact = [self.graph.output, self.graph.logits()];
        let mut now: Vec<usize> = (0..self.graph.tensors.len()).collect();
        for node in &self.graph.nodes {
            let inputs = node.inputs.iter().map(|&t| now[t]).collect();
            out.nodes.push(Node {
                inputs,
                ..node.clone()
            });
            let t = node.output;
            // these move values that are rounded already
            let moves = matches!(node.op, Op::MaxPool2d(_) | Op::Reshape | Op::Pad(_));
            if moves || exact.contains(&t) {
                continue;
            }
            let grid = self.grids.get(t);
            let tensor = &self.graph.tensors[t];
            let step = |suffix: &str, quant: Quant, dtype: DType| Tensor {
                name: format!("{}.{suffix}", tensor.name),
                quant,
                data: TensorData::Runtime(dtype),
                ..tensor.clone()
            };
            let quant = Quant {
                scale: grid.scale,
                zero_point: grid.zero_point,
                channel_scales: Vec::new(),
            };
            let int8 = out.add(step("int8", quant, DType::I8));
            let real = out.add(step("rounded", Quant::default(), DType::F32));
            for (op, from, to) in [(Op::Quantize, t, int8), (Op::Dequantize, int8, real)] {
                out.nodes.push(Node {
                    op,
                    inputs: vec![from],
                    output: to,
                });
            }
            now[t] = real;
        }
        out
    }

    /// The constants that the int8 model will have for these parameters, in real units: writes over the elements in `parameters`.
    /// `place` says where those of a tensor stand, `None` for tensors that are no parameters.
    pub fn round(
        &self,
        parameters: &mut [f32],
        place: &dyn Fn(usize) -> Option<std::ops::Range<usize>>,
    ) {
        for node in &self.graph.nodes {
            match node.op {
                Op::Conv2d(_) | Op::DepthwiseConv2d(_) | Op::Dense(_) => {
                    let (Some(w), Some(b)) = (place(node.inputs[1]), place(node.inputs[2])) else {
                        continue;
                    };
                    let x_scale = self.grids.get(node.inputs[0]).scale;
                    let y_scale = self.grids.get(node.output).scale;
                    let (weights, bias) = (&parameters[w.clone()], &parameters[b.clone()]);
                    let steps =
                        layer_steps(&node.op, weights, bias, [x_scale, y_scale], &self.options);
                    let [weights, bias] = steps.real(x_scale);
                    parameters[w].copy_from_slice(&weights);
                    parameters[b].copy_from_slice(&bias);
                }
                Op::Add(_) | Op::Mul(_) | Op::Concat(_) => {
                    for place in node.inputs.iter().filter_map(|&t| place(t)) {
                        let values = &mut parameters[place];
                        let grid = match node.op {
                            Op::Concat(_) => self.grids.get(node.output),
                            _ => grids::spanning(Range::of(values)),
                        };
                        to_grid(values, grid);
                    }
                }
                _ => {}
            }
        }
    }

    /// Rounds inputs, in real units, to those that the int8 model can be given.
    pub fn round_inputs(&self, x: &mut [f32]) {
        to_grid(x, self.grids.get(self.graph.input));
    }
}

fn to_grid(values: &mut [f32], Grid { scale, zero_point }: Grid) {
    for v in values {
        *v = units::dequantize(units::quantize(*v, scale, zero_point), scale, zero_point);
    }
}

impl Ranges {
    /// As numbers, for a file: low and high of each tensor.
    pub fn to_numbers(&self) -> Vec<f32> {
        self.0.iter().flat_map(|r| [r.low, r.high]).collect()
    }

    /// From what [`Ranges::to_numbers`] gave.
    pub fn from_numbers(numbers: &[f32]) -> Ranges {
        let (pairs, _) = numbers.as_chunks();
        Ranges(
            pairs
                .iter()
                .map(|&[low, high]| Range { low, high })
                .collect(),
        )
    }
}
