//! A model as a classifier on the host: it converts inputs to what the model takes, and answers for many samples
//! at once.

use crate::lines::Lines;
use foolproof::attack::{Ball, Norm};
use foolproof::kernels::Kernels;
use foolproof::loss;
use foolproof::memory::Mode;
use foolproof::model::Model;
use foolproof::session::{Options, Session, SessionError};
use foolproof::tensor::{DType, Data};
use rayon::prelude::*;
use zerocopy::IntoBytes;

/// The most samples that one session answers for, one after the other: what kernels keep of the weights they keep for so many.
const TOGETHER: usize = 32;

/// A model and the inner loops it runs with.
#[derive(Clone, Copy, Debug)]
pub struct Classifier<'a> {
    model: Model<'a>,
    kernels: Kernels,
}

/// Samples in the model's own element type, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub enum Inputs {
    /// In real units.
    F32(Vec<f32>),
    /// On the model's int8 grid.
    I8(Vec<i8>),
}

impl From<Vec<f32>> for Inputs {
    fn from(x: Vec<f32>) -> Inputs {
        Inputs::F32(x)
    }
}

impl From<Vec<i8>> for Inputs {
    fn from(x: Vec<i8>) -> Inputs {
        Inputs::I8(x)
    }
}

impl Inputs {
    /// Elements in all.
    pub fn len(&self) -> usize {
        match self {
            Inputs::F32(x) => x.len(),
            Inputs::I8(x) => x.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `count` samples of `n` elements.
    pub fn truncated(&self, count: usize, n: usize) -> Inputs {
        let end = (count * n).min(self.len());
        match self {
            Inputs::F32(x) => Inputs::F32(x[..end].to_vec()),
            Inputs::I8(x) => Inputs::I8(x[..end].to_vec()),
        }
    }

    /// Sample `i` of `n` elements as bytes, as the model's memory has it (f32 little-endian).
    pub fn bytes(&self, i: usize, n: usize) -> Vec<u8> {
        match self {
            Inputs::F32(x) => x[i * n..(i + 1) * n]
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect(),
            Inputs::I8(x) => x[i * n..(i + 1) * n].iter().map(|&v| v as u8).collect(),
        }
    }
}

/// What the model says about one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The label: the first of the largest output elements; an anomaly detector's verdict.
    pub label: usize,
    /// Class scores before a final softmax, real units.
    pub logits: Vec<f32>,
    /// The output's bytes as the device has them (int8, or f32 little-endian).
    pub output: Vec<u8>,
}

impl Answer {
    /// Softmax of the logits at the label.
    pub fn confidence(&self) -> f32 {
        let mut p = self.logits.clone();
        loss::softmax(&mut p);
        p.get(self.label).copied().unwrap_or(0.0)
    }
}

/// What an input of a model looks like from outside: all that a data set, a ball or a black box needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct InputForm {
    /// Dimensions of one input, without the batch.
    pub shape: Vec<usize>,
    /// The grid of int8 inputs; `None` for f32.
    pub grid: Option<Grid>,
    /// Smallest and largest real value of an element.
    pub range: (f32, f32),
}

/// `real = scale * (q - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Real units per step.
    pub scale: f32,
    /// The integer that stands for 0.
    pub zero_point: i32,
}

impl Grid {
    /// The grid point nearest to a real value.
    pub fn quantize(&self, real: f32) -> i8 {
        let q = (real / self.scale).round() + self.zero_point as f32;
        q.clamp(-128.0, 127.0) as i8
    }

    /// The real value of a grid point.
    pub fn dequantize(&self, q: i8) -> f32 {
        self.scale * (i32::from(q) - self.zero_point) as f32
    }
}

impl InputForm {
    /// Elements of one input.
    pub fn input_len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Channels: the last dimension.
    pub fn channels(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Real units per unit of an element: a step of an int8 input, 1 for f32.
    pub fn unit(&self) -> f32 {
        self.grid.map_or(1.0, |grid| grid.scale)
    }

    /// Smallest and largest value of an element, in the element's own units.
    pub fn element_range(&self) -> (f32, f32) {
        let (low, high) = self.range;
        match self.grid {
            None => (low, high),
            Some(grid) => (
                f32::from(grid.quantize(low)),
                f32::from(grid.quantize(high)),
            ),
        }
    }

    /// Real inputs as the model takes them.
    pub fn inputs(&self, real: &[f32]) -> Inputs {
        match self.grid {
            None => Inputs::F32(real.to_vec()),
            Some(grid) => Inputs::I8(real.iter().map(|&v| grid.quantize(v)).collect()),
        }
    }

    fn dequantize(&self, q: i8) -> f32 {
        self.grid.map_or(f32::from(q), |grid| grid.dequantize(q))
    }

    /// The ball of radius `epsilon` (real units of the input) in the units of the model's input elements: real
    /// for f32; for int8 whole LSB in the linf norm, so that no point outside the real ball is ever tried. In the l0
    /// norm epsilon is a number of elements.
    pub fn ball(&self, norm: Norm, epsilon: f32) -> Ball {
        let (low, high) = self.element_range();
        let epsilon = match (self.grid, norm) {
            (None, _) | (Some(_), Norm::L0) => epsilon,
            (Some(grid), Norm::Linf) => whole_steps(epsilon / grid.scale),
            (Some(grid), _) => epsilon / grid.scale,
        };
        Ball {
            norm,
            epsilon,
            low,
            high,
        }
    }
}

/// The largest whole number of steps in `steps`, where a hair below a whole number (8/255 over 1/255) counts as it.
fn whole_steps(steps: f32) -> f32 {
    (steps * (1.0 + 4.0 * f32::EPSILON)).floor()
}

impl<'a> Classifier<'a> {
    /// A classifier on this model.
    pub fn new(model: Model<'a>, kernels: Kernels) -> Classifier<'a> {
        Classifier { model, kernels }
    }

    /// The model.
    pub fn model(&self) -> &Model<'a> {
        &self.model
    }

    /// Which inner loops run.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// Elements of one input.
    pub fn input_len(&self) -> usize {
        self.model.input_shape().len()
    }

    /// Dimensions of one input, without the batch.
    pub fn sample_shape(&self) -> Vec<usize> {
        let shape = self.model.input_shape();
        shape.dims()[1..].iter().map(|&d| d as usize).collect()
    }

    /// What an input looks like from outside.
    pub fn form(&self) -> InputForm {
        let tables = self.model.tables();
        let quant = tables.quant(tables.input());
        let quantized = tables.dtype(tables.input()) == DType::I8;
        InputForm {
            shape: self.sample_shape(),
            grid: quantized.then_some(Grid {
                scale: quant.scale,
                zero_point: quant.zero_point,
            }),
            range: self.model.input_range(),
        }
    }

    /// Whether inputs are int8.
    pub fn is_quantized(&self) -> bool {
        let model = &self.model;
        model.tables().dtype(model.tables().input()) == DType::I8
    }

    /// Real units per step of an int8 input; 1 for f32.
    pub fn input_scale(&self) -> f32 {
        self.form().unit()
    }

    /// Smallest and largest value of an input element, in the element's own units.
    pub fn element_range(&self) -> (f32, f32) {
        self.form().element_range()
    }

    /// Real inputs as the model takes them.
    pub fn inputs(&self, real: &[f32]) -> Inputs {
        self.form().inputs(real)
    }

    /// Inputs as real numbers.
    pub fn real(&self, inputs: &Inputs) -> Vec<f32> {
        match inputs {
            Inputs::F32(x) => x.clone(),
            Inputs::I8(x) => {
                let form = self.form();
                x.iter().map(|&q| form.dequantize(q)).collect()
            }
        }
    }

    /// A buffer for [`Classifier::session`], with room for weights in the order in which kernels read them.
    pub fn buffer(&self, mode: Mode) -> Lines {
        Lines::zeroed(self.model.preferred_buffer_for(mode, 1).unwrap_or(0))
    }

    /// A session for one sample at a time.
    ///
    /// # Errors
    /// As [`Session::with_options`].
    pub fn session<'s>(&self, mode: Mode, buffer: &'s mut [u8]) -> Result<Session<'s>, SessionError>
    where
        'a: 's,
    {
        let options = Options {
            kernels: self.kernels,
            ..Options::new(mode)
        };
        Session::with_options(&self.model, options, buffer)
    }

    /// What the model says about every sample, each on its own: one that keeps a state begins each time with the reset one.
    ///
    /// # Errors
    /// The inputs are of another type than the model's, or not whole samples.
    pub fn answers(&self, inputs: &Inputs) -> Result<Vec<Answer>, SessionError> {
        let n = self.input_len();
        let samples: Vec<usize> = (0..self.samples(inputs)?).collect();
        // some for every thread, whatever their number
        let part = samples.len() / (4 * rayon::current_num_threads());
        let parts: Result<Vec<Vec<Answer>>, SessionError> = samples
            .par_chunks(part.clamp(1, TOGETHER))
            .map_init(
                || self.buffer(Mode::Infer),
                |buffer, samples| {
                    let mut session = self.session(Mode::Infer, buffer)?;
                    let one = |&i: &usize| {
                        session.reset_state();
                        run(&mut session, inputs, i * n..(i + 1) * n)
                    };
                    samples.iter().map(one).collect()
                },
            )
            .collect();
        Ok(parts?.into_iter().flatten().collect())
    }

    /// What the model says about every sample, one after the other: what it keeps from one run to the next (recurrent layers,
    /// streaming models) goes on, as in a device that is fed window after window. The same as [`Classifier::answers`]
    /// for a model that keeps nothing.
    ///
    /// # Errors
    /// As [`Classifier::answers`].
    pub fn stream(&self, inputs: &Inputs) -> Result<Vec<Answer>, SessionError> {
        if !self.model.is_stateful() {
            return self.answers(inputs);
        }
        let n = self.input_len();
        let mut buffer = self.buffer(Mode::Infer);
        let mut session = self.session(Mode::Infer, &mut buffer)?;
        (0..self.samples(inputs)?)
            .map(|i| run(&mut session, inputs, i * n..(i + 1) * n))
            .collect()
    }

    /// How many samples there are.
    fn samples(&self, inputs: &Inputs) -> Result<usize, SessionError> {
        let n = self.input_len();
        match inputs.len() % n {
            0 => Ok(inputs.len() / n),
            got => Err(SessionError::Length { needed: n, got }),
        }
    }
}

fn run(
    session: &mut Session<'_>,
    inputs: &Inputs,
    sample: std::ops::Range<usize>,
) -> Result<Answer, SessionError> {
    // the output may be of another type than the input
    match inputs {
        Inputs::F32(x) => session.forward_bytes(x[sample].as_bytes())?,
        Inputs::I8(x) => session.forward_bytes(x[sample].as_bytes())?,
    };
    answer(session)
}

fn answer(session: &Session<'_>) -> Result<Answer, SessionError> {
    let mut logits = vec![0.0; session.model().classes()];
    session.logits(&mut logits)?;
    let bytes = match session.output() {
        Data::F32(y) => y.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Data::I8(y) => y.iter().map(|&v| v as u8).collect(),
        Data::I32(_) | Data::Absent => return Err(SessionError::NotRun),
    };
    Ok(Answer {
        label: session.label(),
        logits,
        output: bytes,
    })
}

/// The share of answers whose label is right.
pub fn accuracy(answers: &[Answer], labels: &[usize]) -> f64 {
    let right = answers
        .iter()
        .zip(labels)
        .filter(|(a, y)| a.label == **y)
        .count();
    right as f64 / labels.len().max(1) as f64
}
