//! `foolproof attack --surrogate`: gradients from models that the attacker has, labels from the one that it has not.

use super::super::args::AttackArgs;
use super::super::model::ModelFile;
use crate::attack::transfer::Surrogates;
use crate::classifier::{Classifier, Inputs};
use crate::document::{Document, SurrogateUse};
use crate::error::Result;
use crate::evaluate::{Evaluation, Plan, Threat};
use crate::target::{Feedback, Target, Work, evaluate_with};

/// Reads the surrogates.
pub(super) fn read(args: &AttackArgs) -> Result<Vec<ModelFile>> {
    args.surrogate
        .iter()
        .map(|path| ModelFile::read_for(path, &args.input, None)?.within(args.memory))
        .collect()
}

/// Attacks the target with them.
pub(super) fn evaluate(
    args: &AttackArgs,
    files: &[ModelFile],
    target: &mut dyn Target,
    (inputs, labels, plans): (&Inputs, &[usize], &[Plan]),
    work: &Work<'_>,
) -> Result<(Evaluation, Vec<SurrogateUse>)> {
    let members = files
        .iter()
        .map(|file| Ok(Classifier::new(file.model()?, args.loops.kernels.fast())))
        .collect::<Result<Vec<_>>>()?;
    let diverse = args.diverse as f32;
    let surrogates = Surrogates::new(members, target.form().clone(), target.classes(), diverse)?;
    let feedback = match args.feedback {
        true => Feedback::EveryStep,
        false => Feedback::Once,
    };
    let task = (&surrogates, feedback);
    let (mut evaluation, carried) = evaluate_with(target, task, inputs, labels, plans, work)?;
    for result in &mut evaluation.attacks {
        result.threat = Threat::GrayBox;
    }
    let used = plans
        .iter()
        .enumerate()
        .map(|(i, plan)| SurrogateUse {
            attack: plan.name.into(),
            surrogates: files.iter().map(|file| file.path().into()).collect(),
            feedback: args.feedback,
            crafted: carried.get(i).map(|carried| carried.crafted),
            carried: carried.get(i).map(|carried| carried.carried),
        })
        .collect();
    Ok((evaluation, used))
}

/// One line for each attack that was crafted on surrogates alone; none without surrogates.
pub(super) fn describe(document: &Document) -> String {
    document
        .surrogates
        .iter()
        .filter_map(|used| {
            let (crafted, carried) = (used.crafted?, used.carried?);
            Some(format!(
                "{}: {crafted} inputs fool the surrogates, {carried} of them the target too\n",
                used.attack
            ))
        })
        .collect()
}
