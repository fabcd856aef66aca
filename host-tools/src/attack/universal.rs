//! One perturbation for all inputs: Moosavi-Dezfooli, Fawzi, Fawzi, Frossard, "Universal adversarial perturbations" (CVPR 2017).
//!
//! Three ways to fit it:
//! - `universal`: stochastic gradient ascent, as in Shafahi et al., "Universal adversarial training" (AAAI 2020), algorithm 2, with
//!   the momentum of Dong et al. (CVPR 2018), equation 6. Only samples that are not fooled yet pull. 20 passes over batches of 50, steps
//!   that fall from epsilon / 4 to zero, and the best of the passes counts.
//! - `universal-deepfool`: algorithm 1 of the 2017 paper. Sample after sample, the shortest step that DeepFool finds is added
//!   where the sample is not fooled yet; it ends when 80 % are (`delta = 0.2`, the paper's), or after 10 passes.
//!
//! A perturbation says nothing about the samples that it was fitted on, so every sample is judged by one that never saw it: of the
//! first `fit` samples one is made for all others, and of the following `fit` one for the first. By default that is half and half.
//!
//! - `universal-online`: gradient ascent with one sample after the other, in their order, none stored: what a chip can do, and
//!   what a chip does, to the bit. It is judged on the samples that it was fitted on; steps fall from epsilon / 4 over 5 passes.
//!
//! With a goal that names a class to reach the perturbation is a targeted one.
//!
//! Costs, for each sample that is fitted on: a gradient and two queries in every pass of `universal` (one comes with the gradient, one
//! says whether the pass was the best so far), as many as DeepFool asks and one more in every pass of `universal-deepfool`; then a
//! query for every sample. A budget of all samples together pays for those last queries first, in the samples' order, and what is left is shared by
//! those that are fitted on.

use super::run::{Attacked, Found, Run, least, norms, unasked};
use super::white::deepfool::DeepFool;
use super::{Aim, Hunt, Problem, Stop, random};
use crate::classifier::{Classifier, Inputs};
use foolproof::attack::universal::{apply, climb, into_ball, judge, learn, step_of};
use foolproof::attack::{AttackError, AttackRng, Ball, Outcome, Spec, rng};
use foolproof::loss::{Goal, Loss, Objective};
use foolproof::memory::Mode;
use foolproof::session::{Session, SessionError};
use foolproof::threat::{Budget, Element, GradientOracle, LabelOracle};
use rayon::prelude::*;

/// The universal perturbation with its settings.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Universal {
    /// How it is found.
    pub method: Method,
    /// Passes over the samples that it is fitted on.
    pub steps: u16,
    /// Samples to fit on; `None` for half of them.
    pub fit: Option<u32>,
}

/// How a universal perturbation is found.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Method {
    /// By gradient ascent.
    Gradient,
    /// Sample after sample by DeepFool.
    DeepFool,
}

/// Samples of one gradient step.
const BATCH: usize = 50;
/// How much of the older gradients stays.
const MOMENTUM: f32 = 0.9;
/// The first step, as a share of epsilon; the last is all but zero.
const FIRST_STEP: f32 = 0.25;
/// DeepFool's way ends when no more than this share is not fooled.
const UNFOOLED: f64 = 0.2;

impl Universal {
    /// On one sample there is nothing to generalize to: plain gradient ascent.
    ///
    /// # Errors
    /// The oracle's, which is also how a hunt ends.
    pub fn alone<E: Element, O: GradientOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
    ) -> Result<(), O::Error> {
        let n = problem.x.len();
        let (mut delta, mut v, mut out) = (vec![0.0; n], vec![0.0; n], problem.x.to_vec());
        let objective = objective(problem.goal);
        for pass in 0..self.steps {
            let step = self.step(&problem.ball, f32::from(pass) / f32::from(self.steps));
            let terms = (&problem.ball, objective, step);
            learn(oracle, terms, problem.x, &mut delta, (&mut v, &mut out))?;
        }
        apply(&problem.ball, &delta, problem.x, &mut v, &mut out);
        oracle.classify(&out)?;
        Ok(())
    }

    fn step(&self, ball: &Ball, done: f32) -> f32 {
        FIRST_STEP * ball.epsilon * (1.0 - done)
    }
}

fn objective(goal: Goal) -> Objective {
    Objective {
        loss: Loss::Margin,
        goal,
    }
}

/// Fits perturbations and judges every sample by one that never saw it.
///
/// # Errors
/// A class that the model does not have, or inputs of another type than the model's.
pub fn attack(
    classifier: &Classifier<'_>,
    inputs: &Inputs,
    run: &Run<'_>,
    universal: &Universal,
) -> Result<Attacked, AttackError<SessionError>> {
    let n = classifier.input_len();
    let scale = f64::from(classifier.input_scale());
    Ok(match inputs {
        Inputs::F32(x) => {
            let (adversarial, outcomes, unfinished) = elements(classifier, x, run, universal)?;
            Attacked {
                norms: norms(x, &adversarial, n, 1.0),
                inputs: Inputs::F32(adversarial),
                outcomes,
                unfinished,
            }
        }
        Inputs::I8(x) => {
            let (adversarial, outcomes, unfinished) = elements(classifier, x, run, universal)?;
            Attacked {
                norms: norms(x, &adversarial, n, scale),
                inputs: Inputs::I8(adversarial),
                outcomes,
                unfinished,
            }
        }
    })
}

/// Fits a perturbation on one sample after the other, in their order, and judges it on the same ones: the chip's way, in one
/// session. What a sample costs is bounded by the budgets, which shorten the schedule.
///
/// # Errors
/// As [`attack`].
pub(super) fn online(
    classifier: &Classifier<'_>,
    inputs: &Inputs,
    run: &Run<'_>,
    spec: Spec,
) -> Result<Attacked, AttackError<SessionError>> {
    let n = classifier.input_len();
    let scale = f64::from(classifier.input_scale());
    Ok(match inputs {
        Inputs::F32(x) => {
            let (adversarial, outcomes, unfinished) = one_by_one(classifier, x, run, spec)?;
            Attacked {
                norms: norms(x, &adversarial, n, 1.0),
                inputs: Inputs::F32(adversarial),
                outcomes,
                unfinished,
            }
        }
        Inputs::I8(x) => {
            let (adversarial, outcomes, unfinished) = one_by_one(classifier, x, run, spec)?;
            Attacked {
                norms: norms(x, &adversarial, n, scale),
                inputs: Inputs::I8(adversarial),
                outcomes,
                unfinished,
            }
        }
    })
}

fn one_by_one<E>(
    classifier: &Classifier<'_>,
    x: &[E],
    run: &Run<'_>,
    spec: Spec,
) -> Result<Answers<E>, AttackError<SessionError>>
where
    E: Element + Default,
    for<'s> Session<'s>: GradientOracle<E, Error = SessionError>,
{
    let (n, classes) = (classifier.input_len(), classifier.model().classes());
    if let Some(&class) = run.classes.iter().find(|&&class| class >= classes) {
        return Err(AttackError::Class { class, classes });
    }
    if !spec.is_valid() {
        return Err(AttackError::Parameters);
    }
    let chosen: Vec<usize> = (0..run.classes.len())
        .filter(|&i| run.skip.get(i) != Some(&true))
        .collect();
    let share = |total: u64| total / chosen.len().max(1) as u64;
    let queries = run.budget.queries.min(share(run.total.queries));
    let gradients = run.budget.gradients.min(share(run.total.gradients));
    let passes = gradients
        .min(queries.saturating_sub(1))
        .min(u64::from(spec.steps)) as u16;
    let mut out: Vec<E> = x[..run.classes.len() * n].to_vec();
    let mut outcomes: Vec<Outcome> = (0..run.classes.len())
        .map(|i| unasked(&x[i * n..(i + 1) * n], run.classes[i], run.targeted).outcome)
        .collect();
    if passes == 0 {
        return Ok((out, outcomes, true));
    }
    let steps = spec.steps;
    let spec = Spec {
        steps: passes,
        targeted: run.targeted,
        ..spec
    };
    let mut buffer = classifier.buffer(Mode::Attack);
    let mut session = classifier
        .session(Mode::Attack, &mut buffer)
        .map_err(AttackError::Oracle)?;
    let (mut delta, mut v, mut asked) = (vec![0.0; n], vec![0.0; n], vec![E::default(); n]);
    for pass in 0..passes {
        for &i in &chosen {
            let objective = Objective {
                loss: spec.loss,
                goal: spec.goal(run.classes[i]),
            };
            let terms = (&spec.ball, objective, step_of(&spec, pass));
            let x = &x[i * n..(i + 1) * n];
            learn(&mut session, terms, x, &mut delta, (&mut v, &mut asked))
                .map_err(AttackError::Oracle)?;
        }
    }
    for &i in &chosen {
        let range = i * n..(i + 1) * n;
        let scratch = (&mut v[..], &mut out[range.clone()]);
        let label = judge(&mut session, &spec.ball, &delta, &x[range], scratch)
            .map_err(AttackError::Oracle)?;
        outcomes[i] = Outcome {
            label,
            fooled: spec.goal(run.classes[i]).is_met(label),
            queries: u64::from(passes) + 1,
            gradients: u64::from(passes),
        };
        (run.progress)(1);
    }
    Ok((out, outcomes, passes < steps))
}

/// Inputs, outcomes, and whether a budget ended the fitting.
type Answers<E> = (Vec<E>, Vec<Outcome>, bool);

fn elements<E>(
    classifier: &Classifier<'_>,
    x: &[E],
    run: &Run<'_>,
    universal: &Universal,
) -> Result<Answers<E>, AttackError<SessionError>>
where
    E: Element + Default + Send + Sync,
    for<'s> Session<'s>: GradientOracle<E, Error = SessionError>,
{
    let classes = classifier.model().classes();
    if let Some(&class) = run.classes.iter().find(|&&class| class >= classes) {
        return Err(AttackError::Class { class, classes });
    }
    let n = classifier.input_len();
    // who is not attacked, or not even asked about, takes no part
    let attacked = |i: &usize| run.skip.get(*i) != Some(&true);
    let attacked: Vec<usize> = (0..run.classes.len()).filter(attacked).collect();
    let most = match run.budget.queries {
        0 => 0,
        _ => usize::try_from(run.total.queries).unwrap_or(usize::MAX),
    };
    let chosen = &attacked[..most.min(attacked.len())];
    let samples: Vec<Sample<'_, E>> = chosen
        .iter()
        .map(|&i| Sample {
            x: &x[i * n..(i + 1) * n],
            goal: match run.targeted {
                true => Goal::Reach(run.classes[i]),
                false => Goal::Avoid(run.classes[i]),
            },
        })
        .collect();
    let most = universal
        .fit
        .map_or(samples.len().div_ceil(2), |fit| fit as usize);
    let fit = most.clamp(1, samples.len().max(2) - 1);
    let (first, others) = samples.split_at(fit.min(samples.len()));
    let second = &others[..fit.min(others.len())];
    let fitted = (first.len() + second.len()).max(1) as u64;
    let share = Budget {
        queries: ((run.total.queries - chosen.len() as u64) / fitted).saturating_add(1),
        gradients: run.total.gradients / fitted,
    };
    let work = |fold| Fitting {
        classifier,
        run,
        universal,
        budget: least(run.budget, share),
        rng: rng(run.seed, u64::MAX - fold),
    };
    // a single sample has no other to learn from
    let for_others = work(0).delta(first)?;
    let for_first = match second.is_empty() {
        true => for_others.clone(),
        false => work(1).delta(second)?,
    };
    let mut found = work(0).judge(first, &for_first)?;
    found.extend(work(0).judge(others, &for_others)?);
    for (i, found) in found.iter_mut().enumerate() {
        let (fitted, i) = match i.checked_sub(first.len()) {
            None => (&for_others, i),
            Some(i) => (&for_first, i),
        };
        if let Some((queries, gradients)) = fitted.spent.get(i) {
            found.outcome.queries += queries;
            found.outcome.gradients += gradients;
        }
    }
    let unfinished = chosen.len() < attacked.len() || for_others.unfinished || for_first.unfinished;
    let mut all: Vec<Found<E>> = (0..run.classes.len())
        .map(|i| unasked(&x[i * n..(i + 1) * n], run.classes[i], run.targeted))
        .collect();
    for (found, &i) in found.into_iter().zip(chosen) {
        all[i] = found;
    }
    (run.progress)((all.len() - chosen.len()) as u64);
    let outcomes = all.iter().map(|found| found.outcome).collect();
    let x = all.into_iter().flat_map(|found| found.x).collect();
    Ok((x, outcomes, unfinished))
}

/// One sample to fool.
#[derive(Clone, Copy)]
struct Sample<'a, E> {
    x: &'a [E],
    goal: Goal,
}

/// A perturbation, and the queries and gradients that each sample cost that it was fitted on.
#[derive(Clone)]
struct Fitted {
    delta: Vec<f32>,
    spent: Vec<(u64, u64)>,
    /// Whether its budget ended it.
    unfinished: bool,
}

struct Fitting<'a, 'c> {
    classifier: &'a Classifier<'c>,
    run: &'a Run<'a>,
    universal: &'a Universal,
    /// What each sample may cost, its last query too.
    budget: Budget,
    rng: AttackRng,
}

impl Fitting<'_, '_> {
    /// Asks about every sample, in parallel; answers come in order.
    fn ask<E, T>(
        &self,
        samples: &[Sample<'_, E>],
        about: impl Fn(&mut Session<'_>, Sample<'_, E>) -> Result<T, SessionError> + Sync,
    ) -> Result<Vec<T>, AttackError<SessionError>>
    where
        E: Element + Sync,
        T: Send,
    {
        let answers: Vec<Result<T, SessionError>> = samples
            .par_iter()
            .map_init(
                || self.classifier.buffer(Mode::Attack),
                |buffer, &sample| {
                    about(&mut self.classifier.session(Mode::Attack, buffer)?, sample)
                },
            )
            .collect();
        let answers: Result<Vec<T>, SessionError> = answers.into_iter().collect();
        answers.map_err(AttackError::Oracle)
    }

    fn placed<E: Element>(&self, sample: Sample<'_, E>, delta: &[f32]) -> Vec<E> {
        let (mut v, mut out) = (vec![0.0; delta.len()], sample.x.to_vec());
        apply(&self.run.ball, delta, sample.x, &mut v, &mut out);
        out
    }

    /// The label of every sample with the perturbation.
    fn labels<E>(
        &self,
        samples: &[Sample<'_, E>],
        delta: &[f32],
    ) -> Result<Vec<usize>, AttackError<SessionError>>
    where
        E: Element + Sync,
        for<'s> Session<'s>: LabelOracle<E, Error = SessionError>,
    {
        self.ask(samples, |session, sample| {
            session.classify(&self.placed(sample, delta))
        })
    }

    fn delta<E>(mut self, samples: &[Sample<'_, E>]) -> Result<Fitted, AttackError<SessionError>>
    where
        E: Element + Send + Sync,
        for<'s> Session<'s>: GradientOracle<E, Error = SessionError>,
    {
        let mut fitted = Fitted {
            delta: vec![0.0; self.classifier.input_len()],
            spent: vec![(0, 0); samples.len()],
            unfinished: false,
        };
        let mut best = (fitted.delta.clone(), 0);
        for pass in 0..self.universal.steps {
            // a pass asks at least twice, and the last query is kept for the end
            let can_go_on = |&(queries, gradients): &(u64, u64)| {
                queries + 2 < self.budget.queries && gradients < self.budget.gradients
            };
            if !fitted.spent.iter().all(can_go_on) {
                fitted.unfinished = true;
                break;
            }
            match self.universal.method {
                Method::Gradient => self.ascend(samples, &mut fitted, pass)?,
                Method::DeepFool => self.add_steps(samples, &mut fitted)?,
            }
            let labels = self.labels(samples, &fitted.delta)?;
            fitted.spent.iter_mut().for_each(|spent| spent.0 += 1);
            let pairs = samples.iter().zip(&labels);
            let fooled = pairs.filter(|(s, label)| s.goal.is_met(**label)).count();
            if fooled >= best.1 {
                best = (fitted.delta.clone(), fooled);
            }
            let unfooled = (samples.len() - fooled) as f64;
            if self.universal.method == Method::DeepFool
                && unfooled <= UNFOOLED * samples.len() as f64
            {
                break;
            }
        }
        fitted.delta = best.0;
        Ok(fitted)
    }

    /// The samples in random order.
    fn shuffled(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            order.swap(i, random::below(&mut self.rng, i + 1));
        }
        order
    }

    /// One pass of gradient ascent.
    fn ascend<E>(
        &mut self,
        samples: &[Sample<'_, E>],
        fitted: &mut Fitted,
        pass: u16,
    ) -> Result<(), AttackError<SessionError>>
    where
        E: Element + Sync,
        for<'s> Session<'s>: GradientOracle<E, Error = SessionError>,
    {
        let order = self.shuffled(samples.len());
        let mut sum = vec![0.0; fitted.delta.len()];
        for (k, batch) in order.chunks(BATCH).enumerate() {
            let chosen: Vec<Sample<'_, E>> = batch.iter().map(|&i| samples[i]).collect();
            let gradients = self.ask(&chosen, |session, sample| {
                let out = self.placed(sample, &fitted.delta);
                let answer = session.gradient(&out, objective(sample.goal))?;
                let pulls = !sample.goal.is_met(answer.label);
                Ok(pulls.then(|| answer.input.to_vec()))
            })?;
            for &i in batch {
                fitted.spent[i].0 += 1;
                fitted.spent[i].1 += 1;
            }
            let mut total = vec![0.0; sum.len()];
            for gradient in gradients.iter().flatten() {
                total.iter_mut().zip(gradient).for_each(|(t, g)| *t += g);
            }
            let size: f32 = total.iter().map(|t| t.abs()).sum();
            if size > 0.0 {
                let pairs = sum.iter_mut().zip(&total);
                pairs.for_each(|(s, t)| *s = MOMENTUM * *s + t / size);
            }
            let passes = f32::from(self.universal.steps);
            let done = f32::from(pass) + (k * BATCH) as f32 / samples.len() as f32;
            let step = self.universal.step(&self.run.ball, done / passes);
            climb(&self.run.ball, step, &sum, &mut fitted.delta);
        }
        Ok(())
    }

    /// One pass of the 2017 paper's algorithm 1.
    fn add_steps<E>(
        &mut self,
        samples: &[Sample<'_, E>],
        fitted: &mut Fitted,
    ) -> Result<(), AttackError<SessionError>>
    where
        E: Element,
        for<'s> Session<'s>: GradientOracle<E, Error = SessionError>,
    {
        let mut buffer = self.classifier.buffer(Mode::Attack);
        let mut session = self
            .classifier
            .session(Mode::Attack, &mut buffer)
            .map_err(AttackError::Oracle)?;
        for i in self.shuffled(samples.len()) {
            let moved = self.placed(samples[i], &fitted.delta);
            let problem = Problem {
                x: &moved,
                goal: samples[i].goal,
                ball: Ball {
                    epsilon: f32::INFINITY,
                    ..self.run.ball
                },
                unit: self.classifier.input_scale(),
                classes: self.classifier.model().classes(),
                shape: self.classifier.image_shape(),
            };
            let (queries, gradients) = fitted.spent[i];
            // two queries are left for the end of the pass and of all
            let budget = Budget {
                queries: DEEPFOOL_COST.min(self.budget.queries - queries - 2),
                gradients: DEEPFOOL_COST.min(self.budget.gradients - gradients),
            };
            let mut hunt = Hunt::new(&mut session, problem, Aim::Any, budget);
            if let Err(Stop::Oracle(error)) = DeepFool::default().run(&mut hunt, &problem) {
                return Err(AttackError::Oracle(error));
            }
            fitted.spent[i].0 += hunt.queries;
            fitted.spent[i].1 += hunt.gradients;
            let Found { x, outcome } = hunt.into_found();
            let short = budget.queries.min(budget.gradients) < DEEPFOOL_COST;
            fitted.unfinished |= short && !outcome.fooled;
            if outcome.fooled {
                let ways = fitted.delta.iter_mut().zip(x.iter().zip(&moved));
                ways.for_each(|(d, (to, from))| *d += to.to_f32() - from.to_f32());
                into_ball(&self.run.ball, &mut fitted.delta);
            }
        }
        Ok(())
    }

    fn judge<E>(
        self,
        samples: &[Sample<'_, E>],
        fitted: &Fitted,
    ) -> Result<Vec<Found<E>>, AttackError<SessionError>>
    where
        E: Element + Send + Sync,
        for<'s> Session<'s>: GradientOracle<E, Error = SessionError>,
    {
        (self.run.progress)(samples.len() as u64);
        let labels = self.labels(samples, &fitted.delta)?;
        let found = |(&sample, label): (&Sample<'_, E>, usize)| Found {
            x: self.placed(sample, &fitted.delta),
            outcome: Outcome {
                label,
                fooled: sample.goal.is_met(label),
                queries: 1,
                gradients: 0,
            },
        };
        Ok(samples.iter().zip(labels).map(found).collect())
    }
}

/// What DeepFool may ask about one sample in one pass.
const DEEPFOOL_COST: u64 = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Samples, digits};
    use crate::graph::to_image;
    use crate::networks;
    use foolproof::attack::Norm;
    use foolproof::kernels::Kernels;

    const SAMPLES: usize = 30;

    /// Attacks what an untrained network says about digits.
    fn attacked(
        universal: Universal,
        ball: Ball,
        targeted: bool,
        budget: Budget,
    ) -> (Vec<f32>, Attacked) {
        attacked_within(universal, ball, targeted, (budget, Budget::UNLIMITED))
    }

    fn attacked_within(
        universal: Universal,
        ball: Ball,
        targeted: bool,
        (budget, total): (Budget, Budget),
    ) -> (Vec<f32>, Attacked) {
        let image = to_image(&networks::digits(3).unwrap()).unwrap();
        let classifier = Classifier::new(image.model().unwrap(), Kernels::Scalar);
        let data = digits::load(digits::Part::Test).unwrap();
        let Samples::F32(x) = data.samples() else {
            panic!("the digits are f32");
        };
        let x = x[..SAMPLES * classifier.input_len()].to_vec();
        let inputs = classifier.inputs(&x);
        let answers = classifier.answers(&inputs).unwrap();
        // the class that scores second on the first sample
        let second = foolproof::loss::rival(&answers[0].logits, answers[0].label).unwrap();
        let classes: Vec<usize> = answers
            .iter()
            .map(|answer| if targeted { second } else { answer.label })
            .collect();
        let run = Run {
            attack: crate::attack::Attack::Universal(universal),
            aim: Aim::Any,
            ball,
            classes: &classes,
            targeted,
            budget,
            seed: 5,
            progress: &|_| {},
            total,
            skip: &[],
            page: None,
        };
        let attacked = crate::attack::attack(&classifier, &inputs, &run).unwrap();
        (x, attacked)
    }

    fn ball(norm: Norm, epsilon: f32) -> Ball {
        Ball {
            norm,
            epsilon,
            low: 0.0,
            high: 1.0,
        }
    }

    #[test]
    fn others_are_fooled_by_one_perturbation_inside_the_ball() {
        for method in [Method::Gradient, Method::DeepFool] {
            for ball in [ball(Norm::Linf, 0.4), ball(Norm::L2, 5.0)] {
                let universal = Universal {
                    method,
                    steps: 5,
                    fit: Some(10),
                };
                let (x, attacked) = attacked(universal, ball, false, Budget::UNLIMITED);
                // an untrained network has few labels, and what leads away from one leads to another
                let least = if ball.norm == Norm::Linf { 5 } else { 2 };
                let fooled = attacked.outcomes.iter().filter(|o| o.fooled).count();
                assert!(fooled > least, "{method:?} {:?}: {fooled}", ball.norm);
                let Inputs::F32(y) = &attacked.inputs else {
                    panic!("a float model");
                };
                let n = x.len() / SAMPLES;
                for i in 0..SAMPLES {
                    let range = i * n..(i + 1) * n;
                    assert!(ball.contains(&x[range.clone()], &y[range]));
                }
                // two samples of one fold, where neither is cut to the box: one perturbation
                if ball.norm == Norm::Linf {
                    let change = |i: usize, k: usize| y[i * n + k] - x[i * n + k];
                    let free = |i: usize, k: usize| y[i * n + k] > 0.0 && y[i * n + k] < 1.0;
                    for k in (0..n).filter(|&k| free(15, k) && free(20, k)) {
                        assert!((change(15, k) - change(20, k)).abs() < 1e-6);
                    }
                }
            }
        }
    }

    #[test]
    fn a_targeted_one_leads_to_its_class() {
        let universal = Universal {
            method: Method::Gradient,
            steps: 5,
            fit: None,
        };
        let (_, attacked) = attacked(universal, ball(Norm::Linf, 0.5), true, Budget::UNLIMITED);
        let fooled = attacked.outcomes.iter().filter(|o| o.fooled).count();
        assert!(fooled > SAMPLES / 2, "{fooled}");
        let label = attacked.outcomes.iter().find(|o| o.fooled).unwrap().label;
        let outcomes = attacked.outcomes.iter();
        assert!(outcomes.into_iter().all(|o| o.fooled == (o.label == label)));
    }

    #[test]
    fn each_sample_costs_what_it_may() {
        for method in [Method::Gradient, Method::DeepFool] {
            for (queries, gradients) in [(0, 0), (1, 0), (6, 100), (500, 1)] {
                let universal = Universal {
                    method,
                    steps: 5,
                    fit: None,
                };
                let budget = Budget { queries, gradients };
                let (_, attacked) = attacked(universal, ball(Norm::Linf, 0.2), false, budget);
                let spends = queries >= 3 && gradients >= 1;
                for outcome in attacked.outcomes {
                    assert!(outcome.queries <= queries && outcome.gradients <= gradients);
                    assert_eq!(outcome.gradients > 0, spends, "{method:?} {queries}");
                }
            }
        }
    }

    #[test]
    fn all_samples_together_cost_what_they_may() {
        let universal = |method, fit| Universal {
            method,
            steps: 5,
            fit,
        };
        // a gradient and two queries in each pass, and one query at the end
        let gradient = universal(Method::Gradient, Some(10));
        let ball = ball(Norm::Linf, 0.2);
        let (_, free) = attacked(gradient, ball, false, Budget::UNLIMITED);
        for (i, outcome) in free.outcomes.iter().enumerate() {
            let passes = if i < 20 { 5 } else { 0 };
            let cost = (outcome.queries, outcome.gradients);
            assert_eq!(cost, (2 * passes + 1, passes), "sample {i}");
        }
        for method in [Method::Gradient, Method::DeepFool] {
            for (queries, gradients) in [(0, 0), (7, 9), (30, 100), (100, 70), (500, 30)] {
                let total = Budget { queries, gradients };
                let limits = (Budget::UNLIMITED, total);
                let (x, few) = attacked_within(universal(method, None), ball, false, limits);
                let outcomes = few.outcomes.iter();
                let spent = outcomes.clone().map(|o| o.queries).sum::<u64>();
                let climbed = outcomes.clone().map(|o| o.gradients).sum::<u64>();
                assert!(
                    spent <= queries && climbed <= gradients,
                    "{spent} {climbed}"
                );
                // the first ones are judged
                let asked = outcomes.take_while(|o| o.queries > 0).count() as u64;
                assert_eq!(asked, queries.min(SAMPLES as u64));
                let passed = queries >= 3 * SAMPLES as u64 && gradients >= SAMPLES as u64;
                // what DeepFool asks first is no gradient
                let passed = passed && (method == Method::Gradient || queries > 100);
                assert_eq!(climbed > 0, passed, "{method:?} {queries} {gradients}");
                let n = x.len() / SAMPLES;
                let Inputs::F32(y) = &few.inputs else {
                    panic!("a float model");
                };
                let asked = asked as usize * n;
                assert_eq!(
                    x[asked..],
                    y[asked..],
                    "nobody touched what was not asked about"
                );
            }
        }
    }
}
