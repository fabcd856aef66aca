//! Attacks over many samples: one session per thread, the same result for any number of threads.

use crate::classifier::{Classifier, Inputs};
use foolproof::attack::{AttackError, Ball, Norm, Outcome, Spec, Task};
use foolproof::memory::Mode;
use foolproof::session::{Session, SessionError};
use foolproof::threat::{Element, GradientOracle};
use rayon::prelude::*;

/// What an attack on a data set is told.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// The attack, in units of the model's input elements (see [`Classifier::spec`]).
    pub spec: Spec,
    /// For each sample the label to avoid, or the target.
    pub classes: &'a [usize],
    /// Seed.
    pub seed: u64,
    /// Called with 1 after every sample.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// What came of attacking every sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Attacked {
    /// The adversarial inputs, sample after sample.
    pub inputs: Inputs,
    /// One outcome per sample.
    pub outcomes: Vec<Outcome>,
    /// Size of each perturbation, in real units of the input.
    pub norms: Vec<Norms>,
}

/// Size of one perturbation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norms {
    /// Euclidean.
    pub l2: f64,
    /// Largest element.
    pub linf: f64,
}

/// Attacks every sample of `inputs` with a white box.
///
/// # Errors
/// The first sample (in order) that cannot be attacked: a class that the model does not have, impossible parameters.
pub fn attack(
    classifier: &Classifier<'_>,
    inputs: &Inputs,
    run: &Run<'_>,
) -> Result<Attacked, AttackError<SessionError>> {
    let n = classifier.input_len();
    let scale = classifier.input_scale();
    match inputs {
        Inputs::F32(x) => {
            let (adversarial, outcomes) = attack_elements(classifier, x, run)?;
            let norms = norms(x, &adversarial, n, 1.0);
            Ok(Attacked {
                inputs: Inputs::F32(adversarial),
                outcomes,
                norms,
            })
        }
        Inputs::I8(x) => {
            let (adversarial, outcomes) = attack_elements(classifier, x, run)?;
            let norms = norms(x, &adversarial, n, f64::from(scale));
            Ok(Attacked {
                inputs: Inputs::I8(adversarial),
                outcomes,
                norms,
            })
        }
    }
}

fn attack_elements<E>(
    classifier: &Classifier<'_>,
    x: &[E],
    run: &Run<'_>,
) -> Result<(Vec<E>, Vec<Outcome>), AttackError<SessionError>>
where
    E: Element + Default + Send + Sync,
    for<'s> Session<'s>: GradientOracle<E, Error = SessionError>,
{
    let n = classifier.input_len();
    let mut out = vec![E::default(); x.len()];
    let scratch_len = run.spec.scratch_len(n);
    let outcomes: Vec<Result<Outcome, AttackError<SessionError>>> = out
        .par_chunks_mut(n)
        .zip(x.par_chunks(n))
        .zip(run.classes)
        .enumerate()
        .map_init(
            || (classifier.buffer(Mode::Attack), vec![0.0; scratch_len]),
            |(buffer, scratch), (i, ((out, x), &class))| {
                let mut session = classifier
                    .session(Mode::Attack, buffer)
                    .map_err(AttackError::Oracle)?;
                let task = Task {
                    x,
                    class,
                    seed: run.seed,
                    sample: i as u64,
                    scratch,
                };
                let outcome = run.spec.run(&mut session, task, out);
                (run.progress)(1);
                outcome
            },
        )
        .collect();
    let outcomes = outcomes.into_iter().collect::<Result<_, _>>()?;
    Ok((out, outcomes))
}

/// Sizes of the differences between two lists of samples of `n` elements, times `scale`.
pub fn norms<E: Element>(x: &[E], y: &[E], n: usize, scale: f64) -> Vec<Norms> {
    x.chunks(n)
        .zip(y.chunks(n))
        .map(|(x, y)| {
            let differences = || {
                x.iter()
                    .zip(y)
                    .map(|(x, y)| scale * f64::from(y.to_f32() - x.to_f32()).abs())
            };
            Norms {
                l2: differences().map(|d| d * d).sum::<f64>().sqrt(),
                linf: differences().fold(0.0, f64::max),
            }
        })
        .collect()
}

impl Classifier<'_> {
    /// The ball of radius `epsilon` (real units of the input) in the units of the model's input elements: real
    /// for f32; for int8 whole LSB in the linf norm, so that no point outside the real ball is ever tried.
    pub fn ball(&self, norm: Norm, epsilon: f32) -> Ball {
        let (low, high) = self.element_range();
        let epsilon = match (self.is_quantized(), norm) {
            (false, _) => epsilon,
            (true, Norm::Linf) => whole_steps(epsilon / self.input_scale()),
            (true, _) => epsilon / self.input_scale(),
        };
        Ball {
            norm,
            epsilon,
            low,
            high,
        }
    }

    /// An attack with epsilon in real units, in the units of the model's input elements.
    pub fn spec(&self, make: impl Fn(Ball) -> Spec, norm: Norm, epsilon: f32) -> Spec {
        let spec = make(self.ball(norm, epsilon));
        match self.is_quantized() {
            true => spec.on_lattice(),
            false => spec,
        }
    }
}

/// The largest whole number of steps in `steps`, where a hair below a whole number (8/255 over 1/255) counts as it.
fn whole_steps(steps: f32) -> f32 {
    (steps * (1.0 + 4.0 * f32::EPSILON)).floor()
}
