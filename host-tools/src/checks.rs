//! Whether robust accuracies can be believed.
//!
//! An attack that fails proves nothing: gradients that vanish or lead astray make any model look robust. These checks follow
//! Athalye, Carlini and Wagner 2018 ("Obfuscated gradients give a false sense of security", section 3.1, "A1" below) and Carlini et
//! al. 2019 ("On evaluating adversarial robustness", sections 4 and 5, "C" below). Each names what should be so, decides by figures that it
//! gives, and says "not measured" rather than nothing.

use crate::attack::Aim;
use crate::classifier::Answer;
use crate::document::{Check, GradientQuality};
use crate::evaluate::{AttackResult, Threat};
use crate::report::format::{number, percent};
use std::collections::BTreeMap;

/// A difference counts where chance alone gives it this rarely.
const SIGNIFICANT: f64 = 0.01;
/// An unbounded attack may leave this share of samples.
const UNBOUNDED_LEAVES: f64 = 0.01;
/// More elements of a gradient than this are not zero in a model that can be climbed.
const MOSTLY_ZERO: f64 = 0.5;
/// More samples than this have a gradient.
const VANISHED: f64 = 0.01;
/// More starts may win this share of the samples that one did not.
const RESTARTS_WIN: f64 = 0.05;
/// PGD may win this share of the samples that the evaluated attacks do not.
const COMMON_WINS: f64 = 0.05;
/// The loss must rise on this share of the samples.
const LOSS_RISES: f64 = 0.95;
/// A float model of the same meaning says the same about this share of clean samples.
const SAME_LABELS: f64 = 0.9;

/// What checks are decided by.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Every attack on the model, of any threat and size.
    pub attacks: &'a [&'a AttackResult],
    /// Single steps of several sizes, run for the checks alone.
    pub probes: &'a [AttackResult],
    /// The longest white-box attack in a ball as large as the input's box.
    pub unbounded: Option<&'a AttackResult>,
    /// An iterated attack with one random start, and the same with several.
    pub restarts: Option<(&'a AttackResult, &'a AttackResult)>,
    /// What an iterated attack makes of the loss.
    pub path: Option<Path>,
    /// The gradient that the attacks climb first.
    pub gradient: Option<&'a GradientQuality>,
    /// What model and float model say about clean samples.
    pub twins: Option<(&'a [Answer], &'a [Answer])>,
}

/// The loss at samples that were right, and where an iterated attack on them ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Path {
    /// The ball's radius.
    pub epsilon: f64,
    /// Samples.
    pub n: usize,
    /// Mean cross-entropy at the samples.
    pub before: f64,
    /// Mean cross-entropy where the attack ended.
    pub after: f64,
    /// Share of the samples where it is larger there.
    pub risen: f64,
}

/// Every check, in the order in which a reader should see them.
pub fn all(evidence: &Evidence<'_>) -> Vec<Check> {
    // where no white-box attack was run to its end, a common one stands for it
    let common = evidence.restarts.map(|(one, _)| one).filter(|common| {
        !full_strength(evidence.attacks).any(|a| same_ball(a, common) && a.plan.name != "fgsm")
    });
    let with_common: Vec<&AttackResult> = evidence.attacks.iter().copied().chain(common).collect();
    let with_probes: Vec<&AttackResult> =
        with_common.iter().copied().chain(evidence.probes).collect();
    let mut checks = vec![
        gradient_free_is_no_stronger(&with_common),
        iterated_is_no_weaker(&with_probes),
        evaluated_are_no_weaker(evidence.attacks, evidence.restarts),
        larger_balls_are_no_safer(&with_probes),
        unbounded_reaches_zero(evidence.unbounded),
        restarts_change_little(evidence.restarts),
        the_loss_rises(evidence.path),
        there_is_a_gradient(evidence.gradient),
    ];
    if let Some((model, float)) = evidence.twins {
        checks.push(transfer_is_no_stronger(evidence.attacks));
        checks.push(float_is_a_twin(model, float));
    }
    checks
}

/// One line for each check that failed.
pub fn warnings(checks: &[Check]) -> Vec<String> {
    checks
        .iter()
        .filter(|check| check.passed == Some(false))
        .map(|check| {
            format!(
                "robust accuracy may be overstated: a check failed, namely that {}",
                check.name
            )
        })
        .collect()
}

/// Two attacks on the same samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paired {
    /// Samples that only the first one wins.
    pub only_first: usize,
    /// Samples that only the second one wins.
    pub only_second: usize,
    /// Samples that both win, or neither.
    pub same: usize,
    /// How often chance alone would let the first one win so many of those that the two differ on, were they equally strong: the
    /// exact one-sided McNemar test (McNemar 1947).
    pub p: f64,
}

impl Paired {
    /// Compares what withstood, sample by sample.
    pub fn of(first: &[bool], second: &[bool]) -> Self {
        let count = |withstood: (bool, bool)| {
            let pairs = first.iter().zip(second);
            pairs.filter(|&(&f, &s)| (f, s) == withstood).count()
        };
        let (only_first, only_second) = (count((false, true)), count((true, false)));
        Self {
            only_first,
            only_second,
            same: count((true, true)) + count((false, false)),
            p: upper_tail(only_first, only_first + only_second),
        }
    }

    /// Whether the first attack is stronger beyond chance.
    pub fn is_stronger(&self) -> bool {
        self.only_first > self.only_second && self.p < SIGNIFICANT
    }

    /// Whether the first attack is no stronger; `None` where it looks so, and so few samples could not show it.
    pub fn is_no_stronger(&self) -> Option<bool> {
        let most = self.only_first + self.only_second + self.same;
        let can_tell = upper_tail(most, most) < SIGNIFICANT;
        match self.is_stronger() {
            true => Some(false),
            false if self.only_first > self.only_second && !can_tell => None,
            false => Some(true),
        }
    }
}

/// The chance of at least `hits` heads in `n` throws of a fair coin.
fn upper_tail(hits: usize, n: usize) -> f64 {
    let mut log_choose = 0.0;
    let mut sum = 0.0;
    for k in 0..=n {
        if k > 0 {
            log_choose += ((n - k + 1) as f64 / k as f64).ln();
        }
        if k >= hits {
            sum += (log_choose - n as f64 * std::f64::consts::LN_2).exp();
        }
    }
    sum.min(1.0)
}

fn check(
    name: &str,
    passed: Option<bool>,
    figures: &[(&str, f64)],
    explanation: impl Into<String>,
) -> Check {
    Check {
        name: name.into(),
        passed,
        figures: figures
            .iter()
            .map(|&(name, value)| (name.to_string(), value))
            .collect::<BTreeMap<_, _>>(),
        explanation: explanation.into(),
    }
}

/// The share that withstood.
fn share(robust: &[bool]) -> f64 {
    robust.iter().filter(|&&r| r).count() as f64 / robust.len().max(1) as f64
}

/// What to add where figures would speak for the first attack, were there more samples.
fn too_few(paired: &Paired) -> &'static str {
    match paired.is_no_stronger() {
        None => "; so few samples prove nothing",
        Some(_) => "",
    }
}

fn untargeted<'a>(
    attacks: &[&'a AttackResult],
    threat: Threat,
) -> impl Iterator<Item = &'a AttackResult> {
    attacks
        .iter()
        .copied()
        .filter(move |a| a.threat == threat && a.plan.target.is_none())
}

fn same_ball(a: &AttackResult, b: &AttackResult) -> bool {
    a.plan.norm == b.plan.norm && a.plan.epsilon == b.plan.epsilon
}

/// White-box attacks that can be held to what they ought to do: that search the ball of single samples, as long as their settings say.
/// A perturbation that must do for all samples is weaker, and so are a search for the nearest input wherever that lies, and an attack that
/// its budget ended.
fn full_strength<'a>(attacks: &[&'a AttackResult]) -> impl Iterator<Item = &'a AttackResult> {
    untargeted(attacks, Threat::WhiteBox)
        .filter(|a| a.plan.aim == Aim::Any)
        .filter(|a| !a.plan.attack.is_universal() && ran_to_its_end(a))
}

/// Whether no limit ended it. Black boxes have a number of queries by nature.
fn ran_to_its_end(attack: &AttackResult) -> bool {
    attack.threat != Threat::WhiteBox || attack.cut_short(attack.plan.budget) == 0
}

/// What withstands every attack; `None` where there was none.
fn together<'a>(attacks: impl Iterator<Item = &'a AttackResult>) -> Option<Vec<bool>> {
    let and = |all: Vec<bool>, attack: &AttackResult| {
        let pairs = all.iter().zip(&attack.robust);
        pairs.map(|(a, r)| a & r).collect()
    };
    attacks.fold(None, |all, attack| match all {
        None => Some(attack.robust.clone()),
        Some(all) => Some(and(all, attack)),
    })
}

/// What withstands every white-box attack in the ball of `other`; `None` where there was none.
fn white_box(attacks: &[&AttackResult], other: &AttackResult) -> Option<Vec<bool>> {
    together(full_strength(attacks).filter(|a| same_ball(a, other)))
}

/// The pair in which the first attack comes off best against the second; of equals the one where they differ most.
fn worst(pairs: impl Iterator<Item = (f64, Paired, f64, f64)>) -> Option<(f64, Paired, f64, f64)> {
    pairs.min_by(|a, b| {
        let differ = |p: &Paired| p.only_first + p.only_second;
        a.1.p
            .total_cmp(&b.1.p)
            .then(differ(&b.1).cmp(&differ(&a.1)))
    })
}

/// Attacks of `threat` against all white-box attacks in the same ball. One that was not asked about every sample shows no strength
/// of the white box, but may show its weakness.
fn beaten_by(attacks: &[&AttackResult], threat: Threat) -> Option<(f64, Paired, f64, f64)> {
    worst(untargeted(attacks, threat).filter_map(|attack| {
        let white = white_box(attacks, attack)?;
        let paired = Paired::of(&attack.robust, &white);
        if !attack.asked_about_all() && !paired.is_stronger() {
            return None;
        }
        let eps = f64::from(attack.plan.epsilon);
        Some((eps, paired, share(&attack.robust), share(&white)))
    }))
}

/// A1 "black-box attacks are better than white-box attacks"; C 4.8 and 5.
fn gradient_free_is_no_stronger(attacks: &[&AttackResult]) -> Check {
    let name = "the white box is no weaker than a gradient-free attack";
    let Some((eps, paired, free, white)) = beaten_by(attacks, Threat::BlackBox) else {
        return check(
            name,
            None,
            &[],
            "not both a white-box attack (to its end, on single samples) and a gradient-free one were run in one ball",
        );
    };
    let queries = untargeted(attacks, Threat::BlackBox)
        .flat_map(|a| &a.attacked.outcomes)
        .map(|o| o.queries)
        .max()
        .unwrap_or(0);
    let figures = [
        ("eps", eps),
        ("white_box_accuracy", white),
        ("gradient_free_accuracy", free),
        ("only_white_box_wins", paired.only_second as f64),
        ("only_gradient_free_wins", paired.only_first as f64),
        ("p", paired.p),
        ("queries_at_most", queries as f64),
    ];
    let found = format!(
        "at eps {}, {} withstand the white box and {} an attacker who sees no gradients (and asks up to {queries} times)",
        number(eps),
        percent(white),
        percent(free)
    );
    let explanation = match paired.is_stronger() {
        true => format!(
            "{found}; who knows more cannot do worse, so the gradients lead astray: they are masked"
        ),
        false => found + too_few(&paired),
    };
    check(name, paired.is_no_stronger(), &figures, explanation)
}

/// A1 "one-step attacks perform better than iterative attacks"; C 4.10.
fn iterated_is_no_weaker(attacks: &[&AttackResult]) -> Check {
    let name = "many steps are no weaker than one";
    let of =
        |single: bool| full_strength(attacks).filter(move |a| (a.plan.name == "fgsm") == single);
    let pairs = of(true).flat_map(|one| {
        of(false).filter(|many| same_ball(one, many)).map(|many| {
            let eps = f64::from(one.plan.epsilon);
            let paired = Paired::of(&one.robust, &many.robust);
            (eps, paired, share(&one.robust), share(&many.robust))
        })
    });
    let Some((eps, paired, one, many)) = worst(pairs) else {
        return check(
            name,
            None,
            &[],
            "not both a single-step and an iterated attack were run",
        );
    };
    let figures = [
        ("eps", eps),
        ("single_step_accuracy", one),
        ("iterated_accuracy", many),
        ("only_single_step_wins", paired.only_first as f64),
        ("only_iterated_wins", paired.only_second as f64),
        ("p", paired.p),
    ];
    let found = format!(
        "at eps {}, {} withstand one step and {} many",
        number(eps),
        percent(one),
        percent(many)
    );
    let explanation = match paired.is_stronger() {
        true => format!(
            "{found}; iterations are stuck where a single leap is not: the gradients are masked"
        ),
        false => found + too_few(&paired),
    };
    check(name, paired.is_no_stronger(), &figures, explanation)
}

/// C, section 5: attacks that leave more than a common one does, with settings that anyone would try, say little about the model.
fn evaluated_are_no_weaker(
    attacks: &[&AttackResult],
    restarts: Option<(&AttackResult, &AttackResult)>,
) -> Check {
    let name = "the attacks are no weaker than a common one";
    let found = restarts.and_then(|(common, _)| {
        let ball = attacks.iter().copied();
        let ball = ball.filter(|a| a.plan.target.is_none() && same_ball(a, common));
        Some((common, together(ball)?))
    });
    let Some((common, evaluated)) = found else {
        return check(name, None, &[], "there is none in their ball");
    };
    let (eps, left) = (f64::from(common.plan.epsilon), share(&evaluated));
    let left_of_common = share(&common.robust);
    let passed = left - left_of_common <= COMMON_WINS;
    let found = format!(
        "at eps {}, {} withstand what was run and {} PGD with one random start",
        number(eps),
        percent(left),
        percent(left_of_common)
    );
    let explanation = match passed {
        true => found,
        false => format!(
            "{found}; more steps, more starts or a larger budget would say more of the model"
        ),
    };
    let figures = [
        ("eps", eps),
        ("accuracy", left),
        ("common_accuracy", left_of_common),
    ];
    check(name, Some(passed), &figures, explanation)
}

/// A1 "increasing distortion bound does not increase success"; C 4.3. A larger ball holds the smaller one.
fn larger_balls_are_no_safer(attacks: &[&AttackResult]) -> Check {
    let name = "a larger ball is no safer than a smaller one";
    let kin = |a: &AttackResult, b: &AttackResult| {
        a.plan.name == b.plan.name && a.threat == b.threat && a.plan.norm == b.plan.norm
    };
    let whole = |a: &&AttackResult| a.plan.target.is_none() && ran_to_its_end(a);
    let all = || attacks.iter().copied().filter(whole);
    let pairs = all().flat_map(|small| {
        all()
            .filter(move |large| kin(small, large) && small.plan.epsilon < large.plan.epsilon)
            .map(move |large| {
                let paired = Paired::of(&small.robust, &large.robust);
                (small, large, paired)
            })
    });
    let steepest = pairs.min_by(|a, b| a.2.p.total_cmp(&b.2.p));
    let Some((small, large, paired)) = steepest else {
        return check(name, None, &[], "only one size of ball was tried");
    };
    let (eps, eps_large) = (f64::from(small.plan.epsilon), f64::from(large.plan.epsilon));
    let figures = [
        ("eps", eps),
        ("eps_larger", eps_large),
        ("accuracy", share(&small.robust)),
        ("accuracy_larger", share(&large.robust)),
        ("only_smaller_wins", paired.only_first as f64),
        ("only_larger_wins", paired.only_second as f64),
        ("p", paired.p),
    ];
    let explanation = match paired.is_stronger() {
        true => format!(
            "{} leaves {} at eps {} and {} at eps {}, although the larger ball holds the smaller one: its gradients lead astray",
            small.plan.name.to_uppercase(),
            percent(share(&small.robust)),
            number(eps),
            percent(share(&large.robust)),
            number(eps_large)
        ),
        false => {
            "no attack leaves more samples unfooled where it may change them more, beyond chance"
                .to_string()
                + too_few(&paired)
        }
    };
    check(name, paired.is_no_stronger(), &figures, explanation)
}

/// A1 "unbounded attacks do not reach 100 % success"; C 4.2.
fn unbounded_reaches_zero(unbounded: Option<&AttackResult>) -> Check {
    let name = "an unbounded attack fools everything";
    let Some(attack) = unbounded else {
        return check(name, None, &[], "no unbounded white-box attack was run");
    };
    let left = share(&attack.robust);
    let passed = left <= UNBOUNDED_LEAVES;
    let eps = f64::from(attack.plan.epsilon);
    let found = format!(
        "{} with a ball as large as the input's whole range (eps {}) leaves {}",
        attack.plan.name.to_uppercase(),
        number(eps),
        percent(left)
    );
    let explanation = match passed {
        true => found,
        false => format!(
            "{found}; any input can be reached there, so it is the search that fails, not the attacker's reach"
        ),
    };
    check(
        name,
        Some(passed),
        &[("eps", eps), ("accuracy", left)],
        explanation,
    )
}

/// C 5.2: where other starts win much more, one start was caught in local maxima, and more still would win more.
fn restarts_change_little(restarts: Option<(&AttackResult, &AttackResult)>) -> Check {
    let name = "more random starts change little";
    let Some((one, several)) = restarts else {
        return check(name, None, &[], "no attack was run with several starts");
    };
    let (left, left_of_several) = (share(&one.robust), share(&several.robust));
    let passed = left - left_of_several <= RESTARTS_WIN;
    let eps = f64::from(one.plan.epsilon);
    let found = format!(
        "at eps {}, {} withstand PGD with one random start and {} with {RESTARTS}",
        number(eps),
        percent(left),
        percent(left_of_several)
    );
    let explanation = match passed {
        true => found,
        false => format!("{found}; the loss is rugged, and figures of one start are too good"),
    };
    let figures = [
        ("eps", eps),
        ("one_start_accuracy", left),
        ("several_starts_accuracy", left_of_several),
    ];
    check(name, Some(passed), &figures, explanation)
}

/// How many starts several are.
pub const RESTARTS: u16 = 5;

/// C 4.9 and 5.1: an attack that climbs a loss must end higher than it began.
fn the_loss_rises(path: Option<Path>) -> Check {
    let name = "the loss rises along the path of an attack";
    let Some(path) = path else {
        return check(name, None, &[], "no iterated attack was followed");
    };
    let passed = path.risen >= LOSS_RISES;
    let found = format!(
        "PGD at eps {} takes the cross-entropy from {:.3} to {:.3} in the mean; it rises on {} of {} samples that were right",
        number(path.epsilon),
        path.before,
        path.after,
        percent(path.risen),
        path.n
    );
    let explanation = match passed {
        true => found,
        false => format!("{found}: the steps lead nowhere"),
    };
    let figures = [
        ("eps", path.epsilon),
        ("loss_before", path.before),
        ("loss_after", path.after),
        ("risen_share", path.risen),
    ];
    check(name, Some(passed), &figures, explanation)
}

/// A1 and C 4.9: vanishing gradients.
fn there_is_a_gradient(gradient: Option<&GradientQuality>) -> Check {
    let name = "there is a gradient to climb";
    let Some(gradient) = gradient else {
        return check(name, None, &[], "no gradient was looked at");
    };
    let (zero, vanished) = (gradient.zero.mean, gradient.vanished.share);
    let passed = zero <= MOSTLY_ZERO && vanished <= VANISHED;
    let found = format!(
        "of an input gradient {} is zero in the mean; it vanishes altogether on {} of {} samples",
        percent(zero),
        percent(vanished),
        gradient.n
    );
    let explanation = match passed {
        true => found,
        false => format!("{found}: gradient attacks cannot see where to go"),
    };
    check(
        name,
        Some(passed),
        &[("zero_share", zero), ("vanished_share", vanished)],
        explanation,
    )
}

/// A1, with the float model as the substitute.
fn transfer_is_no_stronger(attacks: &[&AttackResult]) -> Check {
    let name = "the white box is no weaker than transfer from the float model";
    let Some((eps, paired, gray, white)) = beaten_by(attacks, Threat::GrayBox) else {
        return check(name, None, &[], "nothing was crafted on the float model");
    };
    let figures = [
        ("eps", eps),
        ("white_box_accuracy", white),
        ("transfer_accuracy", gray),
        ("only_white_box_wins", paired.only_second as f64),
        ("only_transfer_wins", paired.only_first as f64),
        ("p", paired.p),
    ];
    let found = format!(
        "at eps {}, {} withstand the white box through the integer graph and {} what was crafted on the float model",
        number(eps),
        percent(white),
        percent(gray)
    );
    let explanation = match paired.is_stronger() {
        true => format!("{found}; the integer graph's own gradient is the worse guide"),
        false => found + too_few(&paired),
    };
    check(name, paired.is_no_stronger(), &figures, explanation)
}

/// Whether the float model means the same by its input and its classes.
fn float_is_a_twin(model: &[Answer], float: &[Answer]) -> Check {
    let n = model.len().min(float.len());
    let same = model
        .iter()
        .zip(float)
        .filter(|(m, f)| m.label == f.label)
        .count();
    let same = same as f64 / n.max(1) as f64;
    let passed = same >= SAME_LABELS;
    let found = format!(
        "model and float model give {} of {n} clean samples the same label",
        percent(same)
    );
    let explanation = match passed {
        true => found,
        false => format!(
            "{found}: the float model is another model, or means something else by its input; compare no gradients"
        ),
    };
    check(
        "the float model answers the same",
        Some(passed),
        &[("same_label_share", same)],
        explanation,
    )
}

#[cfg(test)]
mod tests;
