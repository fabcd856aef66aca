//! What makes an evaluation worth believing: beside white-box attacks a gradient-free one, an unbounded one, a look at the
//! gradients themselves, and (where the float model is given) transfer from it.

use crate::attack::catalog::norm_name;
use crate::attack::labels::Labels;
use crate::attack::labels::noise::{Kind, Noise};
use crate::attack::scores::{Scores, SignHunter};
use crate::attack::{Access, Aim, Attack, Portable};
use crate::checks::{self, Evidence, Path};
use crate::classifier::{Answer, Classifier, Inputs};
use crate::document::summary::{accuracy, attack as attack_entry};
use crate::document::{Document, GradientQuality, Nearest};
use crate::evaluate::{
    AttackResult, Conditions, Evaluation, Plan, Threat, evaluate, evaluate_under,
};
use crate::gradient_quality::{measure, summarise};
use crate::inspect::numerics;
use crate::transfer::{self, Pair, Transferred, transfer};
use foolproof::attack::{AttackError, Norm};
use foolproof::loss::Loss;
use foolproof::session::SessionError;
use foolproof::threat::Budget;

type Result<T> = std::result::Result<T, AttackError<SessionError>>;

/// A control with fewer queries says nothing.
pub const LEAST_QUERIES: u32 = 100;

/// Steps of PGD in a ball without bounds.
const UNBOUNDED_STEPS: u16 = 20;

/// Steps of PGD where it is run for the checks and the nearest alone.
const PROBE_STEPS: u16 = 20;

/// What is examined, and how hard.
#[derive(Clone, Copy)]
pub struct Examination<'a> {
    /// The model.
    pub classifier: &'a Classifier<'a>,
    /// The samples as it takes them.
    pub inputs: &'a Inputs,
    /// The right labels.
    pub labels: &'a [usize],
    /// The attacks that were run; untargeted.
    pub plans: &'a [Plan],
    /// The float model that an int8 model was made of. It takes the same real values.
    pub float: Option<&'a Classifier<'a>>,
    /// Most queries of the gradient-free control for each sample; 0 runs none. Without a number as many as the white box made
    /// passes, forward and backward, but no fewer than [`LEAST_QUERIES`].
    pub queries: Option<u32>,
    /// What all samples of an attack together may cost. What is run for the checks alone is not bounded.
    pub total: Budget,
    /// For how many samples, the first ones, the nearest adversarial input is looked for; 0 for none.
    pub nearest: usize,
    /// Seed.
    pub seed: u64,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Findings {
    /// In a ball as large as the input's box.
    pub unbounded: Option<AttackResult>,
    /// PGD in the largest ball with one random start and with several.
    pub restarts: Option<(AttackResult, AttackResult)>,
    /// What the former makes of the loss.
    pub path: Option<Path>,
    /// The nearest adversarial inputs of the first samples.
    pub nearest: Option<Nearest>,
    /// Single steps of several sizes up to the largest that was evaluated.
    pub probes: Vec<AttackResult>,
    /// Of the cross-entropy, which the attacks climb, and of the margin.
    pub gradients: Vec<GradientQuality>,
    /// What the float model says about the same real values.
    pub float_clean: Option<Vec<Answer>>,
    /// One for each size of ball.
    pub transferred: Vec<Transferred>,
}

impl Examination<'_> {
    /// How often `progress` will be called.
    pub fn steps(&self) -> u64 {
        let control = match self.queries {
            Some(0) => 0,
            _ => self.uncontrolled().len(),
        };
        let transferred = match self.float {
            Some(_) => self.white_box().len(),
            None => 0,
        };
        let twice = 1 + usize::from(self.float.is_some());
        let nearest = match self.largest() {
            Some(_) => twice * self.nearest.min(self.labels.len()),
            None => 0,
        };
        ((control + transferred + self.extra().len()) * self.labels.len() + nearest) as u64
    }

    /// For each ball the white-box attack that stands for all of them: PGD where it was run, else the last.
    fn white_box(&self) -> Vec<Plan> {
        let mut chosen: Vec<Plan> = Vec::new();
        let white = |plan: &&Plan| {
            plan.attack.access() == Access::Gradients
                && plan.aim == Aim::Any
                && plan.epsilon.is_finite()
        };
        for plan in self.plans.iter().filter(white) {
            match chosen.iter_mut().find(|known| same_ball(known, plan)) {
                Some(known) if known.name == "pgd" => {}
                Some(known) => *known = *plan,
                None => chosen.push(*plan),
            }
        }
        chosen
    }

    /// For each ball with white-box attacks on single samples and no gradient-free one: one of them.
    fn uncontrolled(&self) -> Vec<Plan> {
        let free = |plan: &Plan| plan.attack.access() != Access::Gradients;
        let mut balls: Vec<Plan> = Vec::new();
        let white =
            |plan: &&Plan| !free(plan) && !plan.attack.is_universal() && plan.epsilon.is_finite();
        for plan in self.plans.iter().filter(white) {
            let controlled = self.plans.iter().any(|p| free(p) && same_ball(p, plan));
            if !controlled && !balls.iter().any(|known| same_ball(known, plan)) {
                balls.push(*plan);
            }
        }
        balls
    }

    /// The gradient-free attack in the ball of `white`: of the norms that SignHunter does not have, the floor.
    fn control(white: &Plan, queries: u32) -> Plan {
        let steps = queries.min(LEAST_QUERIES);
        let noise = |kind| {
            Attack::Labels(Labels::Noise(Noise {
                kind,
                repeats: queries / steps.max(1),
                steps,
            }))
        };
        let (name, attack) = match white.norm {
            Norm::L0 => ("salt-and-pepper", noise(Kind::SaltAndPepper)),
            Norm::L1 => ("gaussian-noise", noise(Kind::Gaussian)),
            _ => (
                "signhunter",
                Attack::Scores(Scores::SignHunter(SignHunter { queries })),
            ),
        };
        Plan {
            name,
            attack,
            aim: Aim::Any,
            budget: Budget {
                queries: u64::from(queries).min(white.budget.queries),
                gradients: 0,
            },
            ..*white
        }
    }

    /// What is run for the checks alone: PGD in a ball without bounds, then single steps. Where one step fools less the longer
    /// it is, the gradients are masked, and a single epsilon does not show it.
    fn extra(&self) -> Vec<Plan> {
        let Some(Plan { norm, epsilon, .. }) = self.largest() else {
            return Vec::new();
        };
        let step = |share: f32| Plan {
            norm,
            ..Plan::fgsm(share * epsilon)
        };
        let unbounded = Plan {
            norm,
            ..Plan::pgd(self.whole_range(norm), UNBOUNDED_STEPS)
        };
        let one = Plan {
            norm,
            ..Plan::pgd(epsilon, PROBE_STEPS)
        };
        let several = Plan {
            attack: match one.attack {
                Attack::Portable(Portable::Pgd {
                    steps,
                    step,
                    random_start,
                    loss,
                    ..
                }) => Attack::Portable(Portable::Pgd {
                    steps,
                    step,
                    random_start,
                    loss,
                    starts: checks::RESTARTS,
                }),
                other => other,
            },
            ..one
        };
        vec![unbounded, one, several, step(0.25), step(0.5), step(1.0)]
    }

    /// The white-box attack in the largest ball that PGD can search.
    fn largest(&self) -> Option<Plan> {
        let white = |plan: &&Plan| {
            plan.attack.access() == Access::Gradients
                && plan.epsilon.is_finite()
                && matches!(plan.norm, Norm::Linf | Norm::L2 | Norm::L1)
        };
        let plans = self.plans.iter().filter(white);
        plans
            .max_by(|a, b| a.epsilon.total_cmp(&b.epsilon))
            .copied()
    }

    /// The cross-entropy at samples that were right, and where an attack on them ended; `None` where there were none.
    fn path(&self, clean: &[Answer], result: &AttackResult) -> Result<Option<Path>> {
        if !result.can_change_anything() {
            return Ok(None);
        }
        let ended = self
            .classifier
            .answers(&result.attacked.inputs)
            .map_err(AttackError::Oracle)?;
        let loss = |answer: &Answer, label: usize| {
            let mut logits = answer.logits.clone();
            f64::from(Loss::CrossEntropy.differentiate(label, &mut logits))
        };
        let pairs: Vec<(f64, f64)> = clean
            .iter()
            .zip(&ended)
            .zip(self.labels)
            .filter(|((before, _), label)| before.label == **label)
            .map(|((before, after), &label)| (loss(before, label), loss(after, label)))
            .collect();
        let n = pairs.len();
        let mean = |pick: fn(&(f64, f64)) -> f64| pairs.iter().map(pick).sum::<f64>() / n as f64;
        Ok((n > 0).then(|| Path {
            epsilon: f64::from(result.plan.epsilon),
            n,
            before: mean(|pair| pair.0),
            after: mean(|pair| pair.1),
            risen: mean(|pair| f64::from(u8::from(pair.1 > pair.0))),
        }))
    }

    /// The nearest adversarial inputs of the first samples, by bisection over the ball of PGD.
    fn find_nearest(
        &self,
        clean: &[Answer],
        float_clean: Option<&[Answer]>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Option<Nearest>> {
        let count = self.nearest.min(self.labels.len());
        let Some(Plan { norm, .. }) = self.largest().filter(|_| count > 0) else {
            return Ok(None);
        };
        let plan = Plan {
            norm,
            aim: Aim::Shrink,
            ..Plan::pgd(self.whole_range(norm), PROBE_STEPS)
        };
        let first = self.inputs.truncated(count, self.classifier.input_len());
        let labels = &self.labels[..count];
        let found = evaluate(
            self.classifier,
            &first,
            labels,
            &[plan],
            self.seed,
            progress,
        )?;
        let attacked = &found.attacks[0].attacked;
        let distances = attacked.outcomes.iter().zip(&attacked.norms);
        let distances = distances
            .map(|(outcome, norms)| outcome.fooled.then(|| norms.get(norm)))
            .collect();
        let carried_over = match (self.float, float_clean) {
            (Some(float), Some(float_clean)) => {
                let pair = Pair {
                    target: self.classifier,
                    inputs: &first,
                    clean: &clean[..count],
                    float,
                    float_clean: &float_clean[..count],
                    labels,
                };
                let transferred = transfer(&pair, &plan, (self.seed, Budget::UNLIMITED), progress)?;
                transfer::summarise(&pair, &transferred).carried_over
            }
            _ => None,
        };
        Ok(Some(Nearest {
            attack: plan.name.into(),
            norm: norm_name(norm).into(),
            distances,
            carried_over,
        }))
    }

    /// The radius of a ball that holds every input, real units.
    fn whole_range(&self, norm: Norm) -> f32 {
        let (low, high) = self.classifier.element_range();
        let range = match self.inputs {
            Inputs::F32(_) => high - low,
            Inputs::I8(_) => (high - low) * self.classifier.input_scale(),
        };
        match norm {
            Norm::L2 => range * (self.classifier.input_len() as f32).sqrt(),
            Norm::L1 => range * self.classifier.input_len() as f32,
            _ => range,
        }
    }

    /// The most passes, forward and backward, that a white-box attack took for a sample.
    fn control_queries(&self, evaluation: &Evaluation) -> u32 {
        let white = evaluation
            .attacks
            .iter()
            .filter(|result| result.threat == Threat::WhiteBox);
        let passes = white
            .flat_map(|result| &result.attacked.outcomes)
            .map(|outcome| outcome.queries + outcome.gradients)
            .max()
            .unwrap_or(0);
        let asked = u32::try_from(passes).unwrap_or(u32::MAX);
        self.queries.unwrap_or(asked.max(LEAST_QUERIES))
    }

    /// Runs everything. The control's and the transferred attacks join those of `evaluation`. `progress` is called with 1
    /// after every sample of every attack.
    ///
    /// # Errors
    /// As [`evaluate`].
    pub fn run(
        &self,
        evaluation: &mut Evaluation,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Findings> {
        let extra = self.extra();
        let mut probes = evaluate(
            self.classifier,
            self.inputs,
            self.labels,
            &extra,
            self.seed,
            progress,
        )?
        .attacks;
        let unbounded = (!probes.is_empty()).then(|| probes.remove(0));
        let restarts = (probes.len() > 1).then(|| (probes.remove(0), probes.remove(0)));
        let path = match &restarts {
            Some((one, _)) => self.path(&evaluation.clean, one)?,
            None => None,
        };
        let queries = self.control_queries(evaluation);
        if queries > 0 {
            let balls = self.uncontrolled();
            let controls: Vec<Plan> = balls
                .iter()
                .map(|white| Self::control(white, queries))
                .collect();
            let conditions = Conditions {
                seed: self.seed,
                progress,
                journal: None,
                cascade: false,
                total: self.total,
            };
            let controlled = evaluate_under(
                self.classifier,
                self.inputs,
                self.labels,
                &controls,
                &conditions,
            )?;
            evaluation.attacks.extend(controlled.attacks);
        }
        let mut gradients = Vec::new();
        for loss in [Loss::CrossEntropy, Loss::Margin] {
            let samples = (self.inputs, self.labels);
            let measured =
                measure(self.classifier, self.float, samples, loss).map_err(AttackError::Oracle)?;
            gradients.extend(summarise(loss, &measured));
        }
        let mut findings = Findings {
            unbounded,
            restarts,
            path,
            nearest: None,
            probes,
            gradients,
            float_clean: None,
            transferred: Vec::new(),
        };
        if let Some(float) = self.float {
            let real = Inputs::F32(self.classifier.real(self.inputs));
            let float_clean = float.answers(&real).map_err(AttackError::Oracle)?;
            for plan in &self.white_box() {
                let clean = &evaluation.clean;
                let pair = self.pair(float, clean, &float_clean);
                let transferred = transfer(&pair, plan, (self.seed, self.total), progress)?;
                evaluation.attacks.push(transferred.on_target.clone());
                findings.transferred.push(transferred);
            }
            findings.float_clean = Some(float_clean);
        }
        let float_clean = findings.float_clean.as_deref();
        findings.nearest = self.find_nearest(&evaluation.clean, float_clean, progress)?;
        Ok(findings)
    }

    fn pair<'b>(
        &'b self,
        float: &'b Classifier<'b>,
        clean: &'b [Answer],
        float_clean: &'b [Answer],
    ) -> Pair<'b> {
        Pair {
            target: self.classifier,
            inputs: self.inputs,
            clean,
            float,
            float_clean,
            labels: self.labels,
        }
    }

    /// Adds what was found to the document: attacks, gradients, checks, and a warning for each check that failed.
    pub fn describe(&self, evaluation: &Evaluation, findings: &Findings, document: &mut Document) {
        let arithmetic = numerics(self.classifier.model());
        let known = document.attacks.len();
        let entry = |result: &AttackResult, clean: &[Answer], numerics: &str| {
            attack_entry(result, clean, self.labels, numerics)
        };
        for result in evaluation.attacks.iter().skip(known) {
            let attack = entry(result, &evaluation.clean, arithmetic);
            document.attacks.push(attack);
        }
        document.gradients.clone_from(&findings.gradients);
        document.nearest.clone_from(&findings.nearest);
        if let (Some(float), Some(clean)) = (self.float, &findings.float_clean) {
            let said: Vec<usize> = clean.iter().map(|answer| answer.label).collect();
            document.accuracy_float = Some(accuracy(&said, self.labels));
            let pair = self.pair(float, &evaluation.clean, clean);
            for transferred in &findings.transferred {
                let attack = entry(&transferred.on_float, clean, "f32");
                document.attacks.push(attack);
                document
                    .transfer
                    .push(transfer::summarise(&pair, transferred));
            }
        }
        let twins = findings.float_clean.as_deref();
        let attacks: Vec<&AttackResult> = evaluation.attacks.iter().collect();
        document.checks = checks::all(&Evidence {
            attacks: &attacks,
            probes: &findings.probes,
            unbounded: findings.unbounded.as_ref(),
            restarts: findings
                .restarts
                .as_ref()
                .map(|(one, several)| (one, several)),
            path: findings.path,
            gradient: findings.gradients.first(),
            twins: twins.map(|float| (evaluation.clean.as_slice(), float)),
        });
        document.warnings.extend(checks::warnings(&document.checks));
    }
}

fn same_ball(a: &Plan, b: &Plan) -> bool {
    a.norm == b.norm && a.epsilon == b.epsilon
}
