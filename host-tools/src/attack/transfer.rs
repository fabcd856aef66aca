//! Gray box: adversarial inputs are crafted on surrogates, of which everything is known, and tried on a target that only
//! answers with labels (Szegedy et al. 2013, section 4.2; Papernot et al., "Practical black-box attacks against machine learning", 2017).
//!
//! [`Surrogates`] are one or more models as one [`GradientOracle`]: their logits are averaged (Dong et al., "Boosting adversarial
//! attacks with momentum", 2018, section 3.3.1, ensemble in logits, with equal weights), and the gradient is that of the mean. With `diverse` above 0 each
//! gradient is, with that probability, taken at the input shrunk to between 90 and 100 % and padded at random (Xie et al., "Improving
//! transferability of adversarial examples with input diversity", 2019, equation 4; probability 0.5 is the paper's default, the 90 % its ratio of
//! sizes): with the attack `mi-fgsm` that is the paper's M-DI-FGSM.
//!
//! The surrogates are asked about the target's own inputs: on an int8 target the search is on its grid, and what is tried is what was
//! crafted, not its rounding.
//!
//! Two ways to use the target: it is asked once, about the crafted input ([`craft`]); or at every step for its label, with the
//! gradients of the surrogates ([`Gray`]).

mod diverse;

use crate::classifier::{Classifier, Grid, InputForm};
use crate::error::{Error, Result};
use diverse::{Diversity, Window};
use foolproof::loss::{Objective, argmax};
use foolproof::memory::Mode;
use foolproof::session::{Session, SessionError};
use foolproof::threat::{Element, Gradient, GradientOracle, LabelOracle, ScoreOracle};
use zerocopy::IntoBytes;

use super::{Hunt, Problem, Stop, Stream};
use crate::evaluate::Plan;
use crate::lines::Lines;
use foolproof::attack::Outcome;
use foolproof::threat::Budget;

use super::run::{Found, hunt};

/// Models of which everything is known, and how they are asked.
#[derive(Clone, Debug)]
pub struct Surrogates<'a> {
    members: Vec<Classifier<'a>>,
    /// What inputs look like to the target.
    form: InputForm,
    classes: usize,
    diverse: f32,
}

impl<'a> Surrogates<'a> {
    /// Surrogates of a target with inputs of this form and this many classes. `diverse` is the probability of a random
    /// resizing, 0 to 1.
    ///
    /// # Errors
    /// No surrogate, one that does not fit the target, or diversity of inputs that are no images.
    pub fn new(
        members: Vec<Classifier<'a>>,
        form: InputForm,
        classes: usize,
        diverse: f32,
    ) -> Result<Surrogates<'a>> {
        let right = "models with the target's inputs and classes";
        if members.is_empty() {
            return Err(Error::new("no surrogate", "--surrogate", right));
        }
        for member in &members {
            let (n, own) = (member.input_len(), member.model().classes());
            let scores = member.model().anomaly_above().is_none();
            if n != form.input_len() || own != classes || !scores {
                let what = format!(
                    "a surrogate of {n} inputs and {own} classes for a target of {} and {classes}",
                    form.input_len()
                );
                return Err(Error::new(what, "--surrogate", right));
            }
        }
        if diverse > 0.0 && form.shape.len() != 3 {
            return Err(Error::new(
                format!("inputs of shape {:?} cannot be resized", form.shape),
                "--diverse",
                "images [height, width, channels]",
            ));
        }
        Ok(Surrogates {
            members,
            form,
            classes,
            diverse,
        })
    }

    /// Memory for [`Surrogates::ensemble`].
    pub fn buffers(&self) -> Vec<Lines> {
        let buffer = |member: &Classifier<'_>| member.buffer(Mode::Attack);
        self.members.iter().map(buffer).collect()
    }

    /// The surrogates as one white box, with the random numbers of one sample.
    ///
    /// # Errors
    /// As [`Session::with_options`].
    pub fn ensemble<'s>(
        &'s self,
        buffers: &'s mut [Lines],
        stream: Stream,
    ) -> std::result::Result<Ensemble<'s>, SessionError> {
        let n = self.form.input_len();
        let members = self
            .members
            .iter()
            .zip(buffers)
            .map(|(member, buffer)| {
                Ok(Member {
                    session: member.session(Mode::Attack, buffer)?,
                    grid: member.form().grid,
                })
            })
            .collect::<std::result::Result<_, SessionError>>()?;
        Ok(Ensemble {
            members,
            grid: self.form.grid,
            diversity: (self.diverse > 0.0)
                .then(|| Diversity::new(self.diverse, &self.form, stream)),
            real: vec![0.0; n],
            seen: vec![0.0; n],
            logits: vec![0.0; self.classes],
            own: vec![0.0; self.classes],
            gradient: vec![0.0; n],
        })
    }
}

/// Surrogates at work: a white box that takes the target's inputs.
#[derive(Debug)]
pub struct Ensemble<'s> {
    members: Vec<Member<'s>>,
    grid: Option<Grid>,
    diversity: Option<Diversity>,
    /// The input in real units, and as it is shown to the surrogates.
    real: Vec<f32>,
    seen: Vec<f32>,
    /// Mean logits, and one member's.
    logits: Vec<f32>,
    own: Vec<f32>,
    gradient: Vec<f32>,
}

#[derive(Debug)]
struct Member<'s> {
    session: Session<'s>,
    grid: Option<Grid>,
}

impl Member<'_> {
    fn forward(
        &mut self,
        real: &[f32],
        logits: &mut [f32],
    ) -> std::result::Result<(), SessionError> {
        match self.grid {
            None => self.session.forward_bytes(real.as_bytes())?,
            Some(grid) => {
                let x: Vec<i8> = real.iter().map(|&v| grid.quantize(v)).collect();
                self.session.forward_bytes(x.as_bytes())?
            }
        };
        self.session.logits(logits)
    }
}

impl Ensemble<'_> {
    /// The mean logits of the members at `x`, seen through a window if there is one. Returns their label.
    fn look<E: Element>(
        &mut self,
        x: &[E],
        window: Option<&Window>,
    ) -> std::result::Result<usize, SessionError> {
        for (real, x) in self.real.iter_mut().zip(x) {
            *real = match self.grid {
                None => x.to_f32(),
                Some(grid) => grid.scale * (x.to_f32() - grid.zero_point as f32),
            };
        }
        match window {
            None => self.seen.copy_from_slice(&self.real),
            Some(window) => window.show(&self.real, &mut self.seen),
        }
        self.logits.fill(0.0);
        let share = 1.0 / self.members.len() as f32;
        for member in &mut self.members {
            member.forward(&self.seen, &mut self.own)?;
            for (sum, own) in self.logits.iter_mut().zip(&self.own) {
                *sum += share * own;
            }
        }
        Ok(argmax(&self.logits))
    }
}

impl<E: Element> LabelOracle<E> for Ensemble<'_> {
    type Error = SessionError;
    fn input_len(&self) -> usize {
        self.real.len()
    }
    fn classes(&self) -> usize {
        self.logits.len()
    }
    fn classify(&mut self, x: &[E]) -> std::result::Result<usize, SessionError> {
        self.look(x, None)
    }
}

impl<E: Element> ScoreOracle<E> for Ensemble<'_> {
    fn scores(&mut self, x: &[E], scores: &mut [f32]) -> std::result::Result<usize, SessionError> {
        let label = self.look(x, None)?;
        scores.copy_from_slice(&self.logits);
        Ok(label)
    }
}

impl<E: Element> GradientOracle<E> for Ensemble<'_> {
    fn gradient(
        &mut self,
        x: &[E],
        objective: Objective,
    ) -> std::result::Result<Gradient<'_>, SessionError> {
        let label = self.look(x, None)?;
        let window = self.diversity.as_mut().and_then(Diversity::draw);
        if window.is_some() {
            // the label stays that of the input itself
            self.look(x, window.as_ref())?;
        }
        let value = objective.differentiate(&mut self.logits);
        let share = 1.0 / self.members.len() as f32;
        self.logits.iter_mut().for_each(|g| *g *= share);
        self.gradient.fill(0.0);
        for member in &mut self.members {
            let own = member.session.backward(&self.logits)?;
            match &window {
                None => {
                    for (sum, g) in self.gradient.iter_mut().zip(own) {
                        *sum += g;
                    }
                }
                Some(window) => window.pull_back(own, &mut self.gradient),
            }
        }
        Ok(Gradient {
            label,
            value,
            input: &self.gradient,
        })
    }
}

/// A white box by its surrogate, a black box by its target: gradients and scores are the surrogate's, every label is the target's. The
/// target need not be able to do more than [`LabelOracle`] says.
#[derive(Debug)]
pub struct Gray<'o, S, T> {
    /// Where gradients come from.
    pub surrogate: &'o mut S,
    /// Who is to be fooled.
    pub target: T,
}

/// What went wrong in a gray box.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GrayError<S, T> {
    /// The surrogate failed.
    Surrogate(S),
    /// The target failed, or its watcher has seen enough.
    Target(T),
}

impl<E: Element, S: GradientOracle<E>, T: LabelOracle<E>> LabelOracle<E> for Gray<'_, S, T> {
    type Error = GrayError<S::Error, T::Error>;
    fn input_len(&self) -> usize {
        self.target.input_len()
    }
    fn classes(&self) -> usize {
        self.target.classes()
    }
    fn classify(&mut self, x: &[E]) -> std::result::Result<usize, Self::Error> {
        self.target.classify(x).map_err(GrayError::Target)
    }
}

impl<E: Element, S: GradientOracle<E>, T: LabelOracle<E>> ScoreOracle<E> for Gray<'_, S, T> {
    fn scores(&mut self, x: &[E], scores: &mut [f32]) -> std::result::Result<usize, Self::Error> {
        let label = self.target.classify(x).map_err(GrayError::Target)?;
        let scored = self.surrogate.scores(x, scores);
        scored.map_err(GrayError::Surrogate)?;
        Ok(label)
    }
}

impl<E: Element, S: GradientOracle<E>, T: LabelOracle<E>> GradientOracle<E> for Gray<'_, S, T> {
    fn gradient(
        &mut self,
        x: &[E],
        objective: Objective,
    ) -> std::result::Result<Gradient<'_>, Self::Error> {
        let label = self.target.classify(x).map_err(GrayError::Target)?;
        let answer = self.surrogate.gradient(x, objective);
        let answer = answer.map_err(GrayError::Surrogate)?;
        Ok(Gradient { label, ..answer })
    }
}

/// Crafts an adversarial input on the surrogate alone. Nobody's budget counts.
///
/// # Errors
/// The surrogate's.
pub fn craft<E: Element, S: GradientOracle<E>>(
    surrogate: &mut S,
    problem: &Problem<'_, E>,
    plan: &Plan,
    stream: Stream,
) -> std::result::Result<Found<E>, S::Error> {
    hunt(surrogate, problem, (plan.aim, Budget::UNLIMITED), |hunt| {
        if let Some((loss, kappa)) = plan.attack.demand() {
            hunt.demand(loss, kappa);
        }
        plan.attack.on_gradients(hunt, problem, stream)
    })
}

/// Asks the target about a crafted input: one query.
///
/// # Errors
/// The target's.
pub fn deliver<E: Element, T: LabelOracle<E>>(
    target: T,
    problem: &Problem<'_, E>,
    plan: &Plan,
    crafted: &[E],
) -> std::result::Result<Found<E>, T::Error> {
    hunt(target, problem, (plan.aim, plan.budget), |hunt| {
        hunt.classify(crafted).map(drop)
    })
}

/// Attacks the target with the surrogate's gradients, asking it for its label at every step; counts and budget are
/// those of the target's queries.
///
/// # Errors
/// The target's or the surrogate's.
pub fn with_feedback<E: Element, S: GradientOracle<E>, T: LabelOracle<E>>(
    surrogate: &mut S,
    target: T,
    problem: &Problem<'_, E>,
    plan: &Plan,
    stream: Stream,
) -> std::result::Result<Found<E>, GrayError<S::Error, T::Error>> {
    let mut failed = None;
    let found = hunt(
        target,
        problem,
        (plan.aim, plan.budget),
        |hunt: &mut Hunt<'_, E, T>| {
            let mut gray = Gray {
                surrogate,
                target: hunt,
            };
            match plan.attack.on_gradients(&mut gray, problem, stream) {
                Ok(()) => Ok(()),
                Err(GrayError::Target(stop)) => Err(stop),
                Err(GrayError::Surrogate(error)) => {
                    failed = Some(error);
                    Err(Stop::BudgetSpent)
                }
            }
        },
    );
    match failed {
        Some(error) => Err(GrayError::Surrogate(error)),
        None => found.map_err(GrayError::Target),
    }
}

/// How far crafted inputs carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Inputs that fool the surrogates.
    pub crafted: usize,
    /// Those of them that fool the target too.
    pub carried: usize,
}

impl Carried {
    /// Counts samples that were right before.
    pub fn count(
        clean_is_right: impl Iterator<Item = bool>,
        on_surrogates: &[bool],
        on_target: &[Outcome],
    ) -> Carried {
        let mut carried = Carried::default();
        for ((right, &crafted), outcome) in clean_is_right.zip(on_surrogates).zip(on_target) {
            carried.crafted += usize::from(right && crafted);
            carried.carried += usize::from(right && crafted && outcome.fooled);
        }
        carried
    }
}

#[cfg(test)]
mod tests;
