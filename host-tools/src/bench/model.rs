//! What a model's runs, input gradients and attacks take.
//!
//! The attacks here do all their steps, whatever comes of them, as other libraries' do: `foolproof attack` stops where it has won.
//! Samples are random; a run takes the same time for any.

use super::{Subject, measure, pool, repeats};
use crate::document::BenchRow;
use crate::error::{Error, Result};
use crate::lines::Lines;
use foolproof::kernels::Kernels;
use foolproof::loss::{Loss, argmax};
use foolproof::memory::Mode;
use foolproof::model::Model;
use foolproof::session::{Options, Session, SessionError};
use foolproof::tensor::{DType, Data};
use rand_core::Rng;
use rayon::prelude::*;
use std::time::Instant;
use zerocopy::IntoBytes;

/// Steps of PGD, Madry et al. 2017.
pub const STEPS: usize = 40;
/// Radius of the attacks' balls, as a share of the range that an input element has.
const EPSILON: f32 = 8.0 / 255.0;

/// What is done with a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// One forward run.
    Infer,
    /// One forward run, and cross-entropy's gradient with respect to the input.
    Gradient,
    /// That, and the step: Goodfellow et al. 2014.
    Fgsm,
    /// A random start and [`STEPS`] steps with projection.
    Pgd,
}

impl Work {
    /// All, from little to much.
    pub const ALL: [Work; 4] = [Work::Infer, Work::Gradient, Work::Fgsm, Work::Pgd];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Work::Infer => "infer",
            Work::Gradient => "gradient",
            Work::Fgsm => "fgsm",
            Work::Pgd => "pgd-40",
        }
    }

    fn mode(self) -> Mode {
        match self {
            Work::Infer => Mode::Infer,
            _ => Mode::Attack,
        }
    }
}

/// How a model runs.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// The model.
    pub model: Model<'a>,
    /// Its inner loops.
    pub kernels: Kernels,
    /// Samples in one call, at least 1.
    pub batch: usize,
    /// Threads, each with a session of its own, at least 1.
    pub threads: usize,
    /// The seed of the samples.
    pub seed: u64,
}

/// Samples in the model's element type.
#[derive(Clone)]
enum Samples {
    F32(Vec<f32>),
    I8(Vec<i8>),
}

/// A session with a batch of its own.
struct Worker<'s> {
    session: Session<'s>,
    clean: Samples,
    x: Samples,
    labels: Vec<usize>,
    scores: Vec<f32>,
    /// Radius, and smallest and largest value of an element, in units of the input.
    ball: (f32, f32, f32),
    rng: foolproof::attack::AttackRng,
}

impl Setup<'_> {
    /// Whether the model can do this at all.
    pub fn supports(&self, work: Work) -> bool {
        self.model.supports(work.mode()) && (self.batch == 1 || self.model.is_batchable())
    }

    /// One row: batches on every thread, again and again for about `seconds`.
    ///
    /// # Errors
    /// The model cannot do this, or the machine does not give the threads.
    pub fn row(&self, work: Work, seconds: f64) -> Result<Option<BenchRow>> {
        let fail = |error: SessionError| Error::new(error, work.name(), "a smaller batch");
        let bytes = self
            .model
            .preferred_buffer_for(work.mode(), self.batch)
            .ok_or_else(|| fail(SessionError::Batch { batch: self.batch }))?;
        let mut buffers = vec![Lines::zeroed(bytes); self.threads];
        let workers: std::result::Result<Vec<Worker<'_>>, SessionError> = buffers
            .iter_mut()
            .enumerate()
            .map(|(i, buffer)| self.worker(work, i, buffer))
            .collect();
        let mut workers = workers.map_err(fail)?;
        let pool =
            pool(self.threads).map_err(|error| Error::new(error, "--threads", "fewer threads"))?;
        let begun = Instant::now();
        workers[0].run(work).map_err(fail)?;
        let repeats = repeats(self.threads, begun.elapsed());
        let times = match workers.as_mut_slice() {
            [alone] => measure(seconds, || alone.run(work)),
            workers => measure(seconds, || {
                pool.install(|| {
                    workers
                        .par_iter_mut()
                        .with_max_len(1)
                        .try_for_each(|worker| (0..repeats).try_for_each(|_| worker.run(work)))
                })
            }),
        };
        let subject = Subject {
            work: work.name(),
            kernels: self.kernels.name(),
            batch: self.batch,
            threads: self.threads,
            unit: "images",
            amount: (self.batch * self.threads * repeats) as f64,
        };
        Ok(subject.row(&times.map_err(fail)?))
    }

    fn worker<'s>(
        &'s self,
        work: Work,
        number: usize,
        buffer: &'s mut [u8],
    ) -> std::result::Result<Worker<'s>, SessionError> {
        let options = Options {
            mode: work.mode(),
            batch: self.batch,
            kernels: self.kernels,
        };
        let session = Session::with_options(&self.model, options, buffer)?;
        let mut rng = foolproof::attack::rng(self.seed, number as u64);
        let clean = self.samples(self.batch, &mut rng);
        let (low, high) = match clean {
            Samples::F32(_) => self.model.input_range(),
            Samples::I8(_) => (-128.0, 127.0),
        };
        let mut worker = Worker {
            session,
            x: clean.clone(),
            clean,
            labels: vec![0; self.batch],
            scores: vec![0.0; self.batch * self.model.classes()],
            ball: (EPSILON * (high - low), low, high),
            rng,
        };
        worker.forward()?;
        worker.session.logits(&mut worker.scores)?;
        let rows = worker.scores.chunks_exact(self.model.classes());
        worker.labels = rows.map(argmax).collect();
        Ok(worker)
    }

    fn samples(&self, count: usize, rng: &mut impl Rng) -> Samples {
        let shape = self.model.input_shape();
        let n = count * shape.len();
        match self.model.tables().dtype(self.model.tables().input()) {
            DType::I8 => Samples::I8((0..n).map(|_| (rng.next_u32() >> 24) as i8).collect()),
            _ => {
                let (low, high) = self.model.input_range();
                let one = |_| low + (high - low) * unit(rng);
                Samples::F32((0..n).map(one).collect())
            }
        }
    }

    /// Of so many random inputs, how many get an answer whose bits are not those of the scalar kernels.
    ///
    /// # Errors
    /// The model cannot run.
    pub fn different_answers(&self, inputs: usize) -> std::result::Result<usize, SessionError> {
        let alone = Setup { batch: 1, ..*self };
        let scalar = Setup {
            kernels: Kernels::Scalar,
            ..alone
        };
        let bytes = self.model.preferred_buffer_for(Mode::Infer, 1).unwrap_or(0);
        let (mut ours, mut reference) = (Lines::zeroed(bytes), Lines::zeroed(bytes));
        let mut ours = alone.worker(Work::Infer, 0, &mut ours)?;
        let mut reference = scalar.worker(Work::Infer, 0, &mut reference)?;
        let mut rng = foolproof::attack::rng(self.seed, u64::MAX);
        let mut different = 0;
        for _ in 0..inputs {
            let x = self.samples(1, &mut rng);
            different += usize::from(ours.bits(&x)? != reference.bits(&x)?);
        }
        Ok(different)
    }
}

/// Uniform in [0, 1).
fn unit(rng: &mut impl Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / 16_777_216.0
}

impl Worker<'_> {
    fn run(&mut self, work: Work) -> std::result::Result<(), SessionError> {
        match work {
            Work::Infer => self.forward(),
            Work::Gradient => {
                self.differentiate()?;
                self.session.backward(&self.scores).map(|_| ())
            }
            Work::Fgsm => {
                self.start(0.0);
                self.step(self.ball.0)
            }
            Work::Pgd => {
                self.start(self.ball.0);
                let step = 2.5 * self.ball.0 / STEPS as f32;
                (0..STEPS).try_for_each(|_| self.step(step))
            }
        }
    }

    fn forward(&mut self) -> std::result::Result<(), SessionError> {
        self.session.reset_state();
        match &self.x {
            Samples::F32(x) => self.session.forward_bytes(x.as_bytes())?,
            Samples::I8(x) => self.session.forward_bytes(x.as_bytes())?,
        };
        Ok(())
    }

    /// The bits of the answer to one sample.
    fn bits(&mut self, x: &Samples) -> std::result::Result<Vec<u32>, SessionError> {
        self.x = x.clone();
        self.forward()?;
        Ok(match self.session.output() {
            Data::F32(y) => y.iter().map(|v| v.to_bits()).collect(),
            Data::I8(y) => y.iter().map(|&v| v as u32).collect(),
            Data::I32(y) => y.iter().map(|&v| v as u32).collect(),
            Data::Absent => return Err(SessionError::NotRun),
        })
    }

    /// A forward run; the scores become cross-entropy's gradient with respect to them.
    fn differentiate(&mut self) -> std::result::Result<(), SessionError> {
        self.forward()?;
        self.session.logits(&mut self.scores)?;
        let classes = self.scores.len() / self.labels.len();
        let rows = self.scores.chunks_exact_mut(classes);
        for (row, &label) in rows.zip(&self.labels) {
            Loss::CrossEntropy.differentiate(label, row);
        }
        Ok(())
    }

    /// Where an attack begins: the clean samples, moved at random by up to `far`.
    fn start(&mut self, far: f32) {
        let (_, low, high) = self.ball;
        let rng = &mut self.rng;
        let mut moved = |v: f32| (v + far * (2.0 * unit(rng) - 1.0)).clamp(low, high);
        match (&mut self.x, &self.clean) {
            (Samples::F32(x), Samples::F32(clean)) if far == 0.0 => x.copy_from_slice(clean),
            (Samples::I8(x), Samples::I8(clean)) if far == 0.0 => x.copy_from_slice(clean),
            (Samples::F32(x), Samples::F32(clean)) => {
                x.iter_mut().zip(clean).for_each(|(x, c)| *x = moved(*c));
            }
            (Samples::I8(x), Samples::I8(clean)) => {
                let lattice = x.iter_mut().zip(clean);
                lattice.for_each(|(x, c)| *x = moved(f32::from(*c)) as i8);
            }
            _ => {}
        }
    }

    /// One step along the gradient's signs, back into the ball and the box.
    fn step(&mut self, step: f32) -> std::result::Result<(), SessionError> {
        self.differentiate()?;
        let slopes = self.session.backward(&self.scores)?;
        let (radius, low, high) = self.ball;
        match (&mut self.x, &self.clean) {
            (Samples::F32(x), Samples::F32(clean)) => {
                for ((x, &c), &g) in x.iter_mut().zip(clean).zip(slopes) {
                    let ball = between(*x + along(g, step), c - radius, c + radius);
                    *x = between(ball, low, high);
                }
            }
            (Samples::I8(x), Samples::I8(clean)) => {
                // on the grid a step is at least one
                let (step, radius) = (step.max(1.0) as i32, radius as i32);
                for ((x, &c), &g) in x.iter_mut().zip(clean).zip(slopes) {
                    let (moved, c) = (i32::from(*x) + step * sign(g), i32::from(c));
                    *x = moved.clamp(c - radius, c + radius).clamp(-128, 127) as i8;
                }
            }
            // samples are copies of the clean ones
            _ => {}
        }
        Ok(())
    }
}

/// A step along the sign of `v`.
fn along(v: f32, step: f32) -> f32 {
    let up = if v > 0.0 { step } else { 0.0 };
    up - if v < 0.0 { step } else { 0.0 }
}

/// `v`, `low` or `high`. Of numbers only, so that it is two instructions.
fn between(v: f32, low: f32, high: f32) -> f32 {
    let v = if v < low { low } else { v };
    if v > high { high } else { v }
}

fn sign(v: f32) -> i32 {
    i32::from(v > 0.0) - i32::from(v < 0.0)
}
