//! The two players' networks.
//!
//! On images weights begin as PyTorch's do (uniform in `±1 / sqrt(fan_in)`), so that figures can stand beside the peer's; on points
//! as He et al. 2015 say.

use super::config::{Config, Network};
use crate::graph::{Builder, Graph, TensorData, TensorId, Window};
use crate::train::source::uniform;
use foolproof::model::format::TensorRole;
use foolproof::ops::{Activation, OpError, Unary};

/// Slope of leaky ReLU below 0.
const LEAK: f32 = 0.2;
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
    let mut b = Builder::new(&[config.latent + classes], (-8.0, 8.0), seed)?;
    let mut x = b.input();
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
    if form.image {
        x = b.unary(x, Unary::Tanh)?;
    }
    let dims: Vec<u32> = [1].into_iter().chain(form.shape.iter().copied()).collect();
    if config.network == Network::Mlp && form.shape.len() > 1 {
        x = b.reshape(x, &dims)?;
    }
    Ok(begun(b.finish(x), form.image))
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
    Ok(begun(x, form.image))
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

/// From the builder's He weights to PyTorch's.
fn begun(mut graph: Graph, image: bool) -> Graph {
    let scale = if image { 1.0 / 6f32.sqrt() } else { 1.0 };
    for tensor in &mut graph.tensors {
        if let (TensorRole::Parameter, TensorData::F32(data), true) =
            (tensor.role, &mut tensor.data, tensor.shape.rank() > 1)
        {
            data.iter_mut().for_each(|w| *w *= scale);
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
