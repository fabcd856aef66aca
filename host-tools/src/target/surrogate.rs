//! A target attacked with the gradients of surrogates (see [`crate::attack::transfer`]).

use super::{Asked, Remote, Target, Work, problem, run_plans};
use crate::attack::run::Found;
use crate::attack::transfer::{Carried, GrayError, Surrogates, craft, deliver, with_feedback};
use crate::attack::{Access, Stream};
use crate::classifier::Inputs;
use crate::error::{Error, Result};
use crate::evaluate::{Evaluation, Plan};
use foolproof::session::SessionError;
use rayon::prelude::*;

/// What the target is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feedback {
    /// One question: the label of the crafted input.
    Once,
    /// The label of every step.
    EveryStep,
}

/// Runs every plan on every sample: gradients from the surrogates, labels from the target. With [`Feedback::Once`] also
/// says, for every plan, how many of the inputs that fool the surrogates fool the target.
///
/// # Errors
/// An attack that asks for no gradients, or what the target or a surrogate does wrong.
pub fn evaluate_with(
    target: &mut dyn Target,
    (surrogates, feedback): (&Surrogates<'_>, Feedback),
    inputs: &Inputs,
    labels: &[usize],
    plans: &[Plan],
    work: &Work<'_>,
) -> Result<(Evaluation, Vec<Carried>)> {
    let needless = |plan: &&Plan| plan.attack.access() != Access::Gradients;
    if let Some(plan) = plans.iter().find(needless) {
        return Err(Error::new(
            format!("{} asks for no gradients", plan.name),
            "--surrogate",
            "an attack that asks for gradients; foolproof attacks lists them",
        ));
    }
    let gray = GrayBox {
        surrogates,
        labels,
        plans,
    };
    match (inputs, feedback) {
        (Inputs::F32(x), Feedback::Once) => gray.once(target, x, work),
        (Inputs::I8(x), Feedback::Once) => gray.once(target, x, work),
        (Inputs::F32(x), Feedback::EveryStep) => gray.every_step(target, x, work),
        (Inputs::I8(x), Feedback::EveryStep) => gray.every_step(target, x, work),
    }
}

struct GrayBox<'a, 's> {
    surrogates: &'a Surrogates<'s>,
    labels: &'a [usize],
    plans: &'a [Plan],
}

impl GrayBox<'_, '_> {
    fn once<E: Asked + Send + Sync>(
        &self,
        target: &mut dyn Target,
        x: &[E],
        work: &Work<'_>,
    ) -> Result<(Evaluation, Vec<Carried>)>
    where
        Inputs: From<Vec<E>>,
    {
        // crafting needs no target, so it runs on all threads
        let n = target.form().input_len();
        let mut crafted: Vec<Vec<Found<E>>> = Vec::new();
        for (attack, plan) in self.plans.iter().enumerate() {
            let samples: Vec<_> = x
                .chunks(n)
                .zip(self.labels)
                .map(|(x, &label)| problem(target, (x, label), plan))
                .collect();
            let found: Vec<Result<Found<E>>> = samples
                .par_iter()
                .enumerate()
                .map_init(
                    || self.surrogates.buffers(),
                    |buffers, (i, problem)| {
                        let stream = Stream {
                            seed: work.seed,
                            sample: i as u64,
                        };
                        let found = work.once((attack, i), n, || {
                            let ensemble = self.surrogates.ensemble(buffers, stream);
                            let mut ensemble = ensemble.map_err(surrogate)?;
                            craft(&mut ensemble, problem, plan, stream).map_err(surrogate)
                        });
                        (work.progress)(1);
                        found
                    },
                )
                .collect();
            crafted.push(found.into_iter().collect::<Result<_>>()?);
        }
        // samples come in order, one plan after the other
        let mut next = crafted.iter().flatten();
        let evaluation = run_plans(
            target,
            x,
            self.labels,
            self.plans,
            // the journal holds what was crafted; the one question about each is asked again
            &Work {
                progress: &|_| (),
                journal: None,
                ..*work
            },
            &mut |target, problem, plan, _| match next.next() {
                Some(found) => deliver(Remote::new(target), problem, plan, &found.x),
                None => Err(Error::new(
                    "more samples than were crafted",
                    "--surrogate",
                    "",
                )),
            },
        )?;
        let carried = self
            .plans
            .iter()
            .zip(&crafted)
            .zip(&evaluation.attacks)
            .map(|((plan, crafted), result)| {
                let right = evaluation.clean.iter().zip(self.labels);
                // as everywhere, a sample of the target class cannot be won
                let right = right
                    .map(|(answer, &label)| answer.label == label && plan.target != Some(label));
                let fooled: Vec<bool> = crafted.iter().map(|found| found.outcome.fooled).collect();
                Carried::count(right, &fooled, &result.attacked.outcomes)
            })
            .collect();
        Ok((evaluation, carried))
    }

    fn every_step<E: Asked>(
        &self,
        target: &mut dyn Target,
        x: &[E],
        work: &Work<'_>,
    ) -> Result<(Evaluation, Vec<Carried>)>
    where
        Inputs: From<Vec<E>>,
    {
        let mut buffers = self.surrogates.buffers();
        let evaluation = run_plans(
            target,
            x,
            self.labels,
            self.plans,
            work,
            &mut |target, problem, plan, stream| {
                let ensemble = self.surrogates.ensemble(&mut buffers, stream);
                let mut ensemble = ensemble.map_err(surrogate)?;
                let found =
                    with_feedback(&mut ensemble, Remote::new(target), problem, plan, stream);
                found.map_err(|error| match error {
                    GrayError::Target(error) => error,
                    GrayError::Surrogate(error) => surrogate(error),
                })
            },
        )?;
        Ok((evaluation, Vec::new()))
    }
}

fn surrogate(error: SessionError) -> Error {
    Error::new(error, "--surrogate", "a model that gives gradients")
}
