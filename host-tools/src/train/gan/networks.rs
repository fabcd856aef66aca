//! The two players' networks.
//!
//! On images weights and biases begin as PyTorch's do (uniform in `±1 / sqrt(fan_in)`), so that figures can stand beside the peer's; on points
//! as He et al. 2015 say.

use super::config::{Config, Network};
use crate::graph::{Builder, Graph, TensorData, TensorId, Window};
use crate::train::source::uniform;
use foolproof::ops::{Activation, Op, OpError, Slice, Unary};
use std::ops::Range;

/// Slope of leaky ReLU below 0.
const LEAK: f32 = 0.2;
/// How steep a code is: of 10,000 numbers, two end between -2 and 2.
const CODE_GAIN: f32 = 1e4;
/// Channels of the convolutional networks' outer and inner layers.
const CHANNELS: [u32; 2] = [32, 64];

/// The shape of a sample, and whether it is an image, whose elements lie in -1 to 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Without the batch: `[H, W, C]` or `[n]`.
    pub shape: Vec<u32>,
    /// Whether elements lie in -1 to 1.
    pub image: bool,
}

impl Form {
    /// Elements.
    pub fn len(&self) -> usize {
        self.shape.iter().map(|&d| d as usize).product()
    }

    /// Never: a shape has elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// From noise (and `classes` more numbers) to a sample.
///
/// # Errors
/// The shapes do not fit.
pub fn generator(form: &Form, config: &Config, classes: u32, seed: u64) -> Result<Graph, OpError> {
    generator_to(form, config, classes, (seed, form.image))
}

/// The same without the tanh that images end with.
///
/// # Errors
/// The shapes do not fit.
pub fn trunk(form: &Form, config: &Config, classes: u32, seed: u64) -> Result<Graph, OpError> {
    generator_to(form, config, classes, (seed, false))
}

fn generator_to(
    form: &Form,
    config: &Config,
    classes: u32,
    (seed, bounded): (u64, bool),
) -> Result<Graph, OpError> {
    let mut b = Builder::new(&[config.latent + classes], (-8.0, 8.0), seed)?;
    let mut x = b.input();
    if config.codes > 0 {
        x = coded(&mut b, x, config.codes)?;
    }
    x = match config.network {
        Network::Mlp => {
            for &units in &config.hidden {
                x = b.dense(x, units, Activation::None)?;
                x = b.unary(x, Unary::LeakyRelu { alpha: LEAK })?;
            }
            b.dense(x, form.len() as u32, Activation::None)?
        }
        Network::Dcgan => {
            let [h, w, c] = image(form)?;
            let [outer, inner] = CHANNELS;
            x = b.dense(x, h / 4 * (w / 4) * inner, Activation::None)?;
            x = b.reshape(x, &[1, h / 4, w / 4, inner])?;
            x = normalized(&mut b, x)?;
            x = b.conv_transpose2d(x, outer, Window::same(4).stride(2), Activation::None)?;
            x = normalized(&mut b, x)?;
            b.conv_transpose2d(x, c, Window::same(4).stride(2), Activation::None)?
        }
    };
    if bounded {
        x = b.unary(x, Unary::Tanh)?;
    }
    let dims: Vec<u32> = [1].into_iter().chain(form.shape.iter().copied()).collect();
    if config.network == Network::Mlp && form.shape.len() > 1 {
        x = b.reshape(x, &dims)?;
    }
    Ok(begun(b.finish(x), form.image, seed))
}

/// From a sample (with the class, see [`super::condition`]) to one number: the logit of "real".
///
/// # Errors
/// The shapes do not fit.
pub fn discriminator(
    form: &Form,
    config: &Config,
    classes: u32,
    seed: u64,
) -> Result<Graph, OpError> {
    let range = if form.image { (-1.0, 1.0) } else { (-8.0, 8.0) };
    let x = match config.network {
        Network::Mlp => {
            let mut b = Builder::new(&[form.len() as u32 + classes], range, seed)?;
            let mut x = b.input();
            for &units in &config.hidden {
                x = b.dense(x, units, Activation::None)?;
                x = b.unary(x, Unary::LeakyRelu { alpha: LEAK })?;
            }
            let x = b.dense(x, 1, Activation::None)?;
            let mut graph = b.finish(x);
            if !form.image && !config.hidden.is_empty() {
                spread(&mut graph, SPREAD, seed);
            }
            graph
        }
        Network::Dcgan => {
            let [h, w, c] = image(form)?;
            let mut b = Builder::new(&[h, w, c + classes], range, seed)?;
            let mut x = b.input();
            for (i, channels) in CHANNELS.into_iter().enumerate() {
                x = b.conv2d(x, channels, Window::same(4).stride(2), Activation::None)?;
                if i > 0 && !config.penalizes() {
                    x = b.batch_norm(x)?;
                }
                x = b.unary(x, Unary::LeakyRelu { alpha: LEAK })?;
            }
            let x = b.dense(x, 1, Activation::None)?;
            b.finish(x)
        }
    };
    Ok(begun(x, form.image, seed))
}

/// The first `codes` of the noise become 2 or -2 each. So a generator, which is continuous, can make
/// samples that fall into separate parts: it needs no slope to get from one to the next. Gurumurthy et al., "DeLiGAN" (2017) draw
/// noise from a mixture to this end; here normal noise stays the input.
fn coded(b: &mut Builder, x: TensorId, codes: u32) -> Result<TensorId, OpError> {
    let all = b.shape(x).len() as u32;
    // apart from the rest, so that an int8 generator has a scale for either
    let signs = part(b, x, 0..codes)?;
    let gain = b.scalar(CODE_GAIN)?;
    let steep = b.mul(signs, gain, Activation::None)?;
    let (low, high) = (-2.0, 2.0);
    let coded = b.unary(steep, Unary::Clip { low, high })?;
    if codes == all {
        return Ok(coded);
    }
    let rest = part(b, x, codes..all)?;
    b.concat(vec![coded, rest], 1)
}

/// Some of a vector's elements.
fn part(b: &mut Builder, x: TensorId, range: Range<u32>) -> Result<TensorId, OpError> {
    let slice = Slice {
        axis: 1,
        begin: range.start,
        count: range.len() as u32,
        step: 1,
    };
    b.op(Op::Slice(slice), vec![x])
}

fn image(form: &Form) -> Result<[u32; 3], OpError> {
    match *form.shape.as_slice() {
        [h, w, c] if h % 4 == 0 && w % 4 == 0 && form.image => Ok([h, w, c]),
        _ => Err(OpError::Shape { operand: 0 }),
    }
}

fn normalized(b: &mut Builder, x: TensorId) -> Result<TensorId, OpError> {
    let x = b.batch_norm(x)?;
    b.unary(x, Unary::Relu)
}

/// On images: weights and biases as PyTorch's layers begin, uniform in `±1 / sqrt(fan_in)`. Of a transposed convolution it takes
/// outputs times window for the fan-in.
fn begun(mut graph: Graph, image: bool, seed: u64) -> Graph {
    if !image {
        return graph;
    }
    let mut rng = foolproof::attack::rng(seed, 2);
    let layers: Vec<(usize, usize, usize)> = graph
        .nodes
        .iter()
        .filter_map(|node| {
            let [_, weights, bias] = node.inputs[..] else {
                return None;
            };
            let shape = graph.tensors[weights].shape;
            let kept = match node.op {
                Op::Dense(_) | Op::Conv2d(_) => shape.dims().first(),
                Op::ConvTranspose2d(_) => shape.dims().last(),
                _ => None,
            }?;
            Some((weights, bias, shape.len() / *kept as usize))
        })
        .collect();
    for (weights, bias, fan_in) in layers {
        let bound = 1.0 / (fan_in as f32).sqrt();
        for tensor in [weights, bias] {
            if let TensorData::F32(data) = &mut graph.tensors[tensor].data {
                data.iter_mut()
                    .for_each(|v| *v = bound * (2.0 * uniform(&mut rng) as f32 - 1.0));
            }
        }
    }
    graph
}

/// The units of a first layer on points begin to bend between minus and plus this, along every axis.
const SPREAD: f32 = 5.0;

/// Moves the units of the first layer, which is dense, from the origin to places all over the data: `bias = -w . place`.
pub fn spread(graph: &mut Graph, reach: f32, seed: u64) {
    let [weights, bias] = [graph.nodes[0].inputs[1], graph.nodes[0].inputs[2]];
    let axes = graph.tensors[graph.input].shape.len();
    let mut rng = foolproof::attack::rng(seed, 1);
    let offsets = graph.f32(weights).chunks_exact(axes).map(|w| {
        let at = |w: &f32| -w * (2.0 * uniform(&mut rng) as f32 - 1.0) * reach;
        w.iter().map(at).sum()
    });
    let offsets = offsets.collect();
    graph.tensors[bias].data = TensorData::F32(offsets);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_two_values_and_stay_so() {
        let form = Form {
            shape: vec![2],
            image: false,
        };
        let config = Config {
            latent: 3,
            codes: 2,
            hidden: vec![],
            ..Config::for_points()
        };
        let mut graph = generator(&form, &config, 0, 1).unwrap();
        let joined = graph
            .nodes
            .iter()
            .position(|n| matches!(n.op, Op::Concat(_)));
        graph.nodes.truncate(joined.unwrap() + 1);
        graph.output = graph.nodes[joined.unwrap()].output;
        graph.prune();
        let made = crate::train::gan::draw(&graph, (1000, 0), 1).unwrap();
        let between = made
            .chunks_exact(3)
            .flat_map(|z| &z[..2])
            .filter(|z| z.abs() < 2.0);
        assert!(between.count() < 5);
        let free = made.chunks_exact(3).filter(|z| z[2].abs() < 2.0);
        assert!(free.count() > 900);
    }

    #[test]
    fn layers_on_images_begin_as_pytorchs() {
        let form = Form {
            shape: vec![28, 28, 1],
            image: true,
        };
        let config = Config {
            network: Network::Dcgan,
            ..Config::for_samples()
        };
        let graph = generator(&form, &config, 0, 1).unwrap();
        // a dense layer of 64 inputs; of transposed convolutions the bound is of 32 and 1 filters of 4x4
        let bounds = [1.0 / 8.0, 1.0 / 512f32.sqrt(), 0.25];
        let layers = graph
            .nodes
            .iter()
            .filter(|node| matches!(node.op, Op::Dense(_) | Op::ConvTranspose2d(_)));
        let mut seen = 0;
        for (node, bound) in layers.zip(bounds) {
            let weights = graph.f32(node.inputs[1]);
            let largest = weights.iter().fold(0f32, |m, v| m.max(v.abs()));
            assert!(
                largest <= bound && largest > 0.98 * bound,
                "{largest} {bound}"
            );
            let bias = graph.f32(node.inputs[2]);
            assert!(bias.iter().all(|v| v.abs() <= bound && *v != 0.0));
            seen += 1;
        }
        assert_eq!(seen, 3);
    }
}
