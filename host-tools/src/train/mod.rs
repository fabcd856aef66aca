//! Training on the engine's own forward and backward.
//!
//! A batch is cut into shards of a fixed size. Shards run on any number of threads, each on a session of its own;
//! their gradients are added in shard order. So the result does not depend on the number of threads.

pub mod advgan;
pub mod classifier;
pub mod gan;
pub mod pictures;
pub mod player;
pub mod quality;
pub mod run;
pub mod source;
pub mod surrogate;
pub mod theory;
pub mod vae;

use crate::graph::{Graph, GraphError, TensorData, to_image};
use crate::lines::Lines;
use crate::quantize::QuantizeError;
use foolproof::kernels::Kernels;
use foolproof::memory::Mode;
use foolproof::model::Model;
use foolproof::model::format::TensorRole;
use foolproof::session::{Options, Session, SessionError};
use rayon::prelude::*;
use std::ops::Range;

/// Why training stopped.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TrainError {
    /// The network cannot be made.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The engine refused something: the model cannot be trained.
    #[error("the model cannot be trained: {0}")]
    Session(#[from] SessionError),
    /// The network cannot be rounded to int8.
    #[error("quantization-aware training: {0}")]
    Quantize(#[from] QuantizeError),
    /// There is not so much memory.
    #[error(
        "no memory for {count} shards of {shard} samples, {bytes} bytes each: a smaller batch or smaller networks would be right"
    )]
    Memory {
        /// Of each shard.
        bytes: usize,
        /// Samples of a shard.
        shard: usize,
        /// Shards.
        count: usize,
    },
    /// The loss is no longer a number.
    #[error(
        "training diverged: the loss is not finite from step {step} (epoch {epoch}); a smaller learning rate would be right"
    )]
    Diverged {
        /// The first step, counted from 1, whose loss is not finite.
        step: u64,
        /// Its epoch, counted from 1.
        epoch: usize,
    },
    /// A parameter of the configuration or the data is out of range.
    #[error("{0}")]
    Config(String),
    /// A checkpoint or the log cannot be written or read.
    #[error(transparent)]
    Run(#[from] crate::error::Error),
}

/// Samples per shard. Fixed: it is part of the result.
pub const SHARD: usize = 8;

/// One shard's session, in Train mode.
pub struct Replica<'a> {
    /// The session.
    pub session: Session<'a>,
    /// Loss over the shard's samples in this step.
    pub loss: f64,
}

/// Buffers for `count` replicas of a model.
///
/// # Errors
/// The model cannot be trained with this many samples at once, or there is not so much memory.
pub fn buffers(model: &Model<'_>, shard: usize, count: usize) -> Result<Vec<Lines>, TrainError> {
    let bytes = model
        .required_buffer_for(Mode::Train, shard)
        .ok_or(SessionError::ModeUnsupported { mode: Mode::Train })?;
    let all: Option<Vec<Lines>> = (0..count).map(|_| Lines::try_zeroed(bytes)).collect();
    all.ok_or(TrainError::Memory {
        bytes,
        shard,
        count,
    })
}

/// One replica per buffer.
///
/// # Errors
/// As [`Session::with_options`].
pub fn replicas<'a>(
    model: &Model<'a>,
    shard: usize,
    kernels: Kernels,
    buffers: &'a mut [Lines],
) -> Result<Vec<Replica<'a>>, SessionError> {
    let options = Options {
        mode: Mode::Train,
        batch: shard,
        kernels,
    };
    buffers
        .iter_mut()
        .map(|buffer| {
            Ok(Replica {
                session: Session::with_options(model, options, buffer)?,
                loss: 0.0,
            })
        })
        .collect()
}

/// Adds the shards' gradients in shard order into `sum`.
pub fn reduce(replicas: &mut [Replica<'_>], sum: &mut [f32]) -> Result<(), SessionError> {
    sum.fill(0.0);
    for replica in replicas {
        for (s, g) in sum.iter_mut().zip(replica.session.parameter_gradients()?) {
            *s += *g;
        }
    }
    Ok(())
}

/// Samples that are asked about at once.
const TOGETHER: usize = 50;

/// What a network answers to `inputs`, sample after sample.
///
/// # Errors
/// The inputs are not the network's.
pub fn answers(graph: &Graph, inputs: &[f32]) -> Result<Vec<f32>, TrainError> {
    let image = to_image(graph)?;
    let model = image.model().map_err(GraphError::Invalid)?;
    let len = model.input_shape().len();
    let bytes = model
        .required_buffer_for(Mode::Infer, TOGETHER)
        .ok_or(SessionError::Batch { batch: TOGETHER })?;
    let parts: Vec<Result<Vec<f32>, SessionError>> = inputs
        .par_chunks(TOGETHER * len)
        .map(|z| {
            let mut buffer = Lines::zeroed(bytes);
            let options = Options {
                mode: Mode::Infer,
                batch: z.len() / len,
                kernels: Kernels::detect(),
            };
            let mut session = Session::with_options(&model, options, &mut buffer)?;
            Ok(session.forward_f32(z)?.to_vec())
        })
        .collect();
    let mut out = Vec::new();
    for part in parts {
        out.extend(part?);
    }
    Ok(out)
}

/// The most passes over the data that a configuration can ask for.
pub const EPOCHS: usize = 1_000_000;

/// Parameters with their place among all parameters of a session: (tensor, role, range).
pub type ParameterTable = Vec<(usize, TensorRole, Range<usize>)>;

/// Writes trained parameters back into the graph that the image was made of.
pub fn store(graph: &mut Graph, table: &ParameterTable, parameters: &[f32]) {
    for (t, _, range) in table {
        if let TensorData::F32(data) = &mut graph.tensors[*t].data {
            data.copy_from_slice(&parameters[range.clone()]);
        }
    }
}
