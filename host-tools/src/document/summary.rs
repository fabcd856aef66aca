//! From what attacks did to the figures that documents give.

use super::{Accuracy, Attack, Class, Estimate, MeanNorm, Quantiles, Share};
use crate::attack::catalog::norm_name;
use crate::classifier::Answer;
use crate::evaluate::AttackResult;

/// The 95 % Wilson score interval of `hits` out of `n` (Wilson 1927, "Probable inference, the law of succession, and statistical
/// inference"; equation 4 in Brown, Cai and DasGupta 2001). Without samples nothing is known: 0 to 1.
pub fn wilson(hits: usize, n: usize) -> [f64; 2] {
    if n == 0 {
        return [0.0, 1.0];
    }
    // The 0.975 quantile of the normal distribution.
    let z = 1.959_963_984_540_054_f64;
    let (hits, n) = (hits.min(n) as f64, n as f64);
    let share = hits / n;
    let centre = (hits + z * z / 2.0) / (n + z * z);
    let half = z / (n + z * z) * (n * share * (1.0 - share) + z * z / 4.0).sqrt();
    // At 0 and n the ends are exact; rounding must not say otherwise.
    let low = if hits == 0.0 {
        0.0
    } else {
        (centre - half).max(0.0)
    };
    let high = if hits == n {
        1.0
    } else {
        (centre + half).min(1.0)
    };
    [low, high]
}

/// The accuracy of answers.
pub fn accuracy(answers: &[usize], labels: &[usize]) -> Accuracy {
    let n = answers.len().min(labels.len());
    let hits = answers
        .iter()
        .zip(labels)
        .filter(|(answer, label)| answer == label)
        .count();
    Accuracy {
        clean: share(hits, n).unwrap_or(0.0),
        n,
        interval: wilson(hits, n),
    }
}

/// A share of `n` and its interval; `None` of nothing.
pub fn share_of(part: usize, n: usize) -> Option<Share> {
    Some(Share {
        share: share(part, n)?,
        n,
        interval: wilson(part, n),
    })
}

/// The mean of `values` and its 95 % interval, mean plus and minus 1.96 standard errors within `bounds`, the least and the
/// largest value that there can be. `None` without values; one value alone says nothing about its error.
pub fn estimate(values: impl IntoIterator<Item = f64>, bounds: [f64; 2]) -> Option<Estimate> {
    let values: Vec<f64> = values.into_iter().collect();
    let n = values.len();
    if n == 0 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    let interval = match n {
        1 => bounds,
        _ => {
            let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
            let error = 1.959_963_984_540_054 * (squares / (n - 1) as f64 / n as f64).sqrt();
            [(mean - error).max(bounds[0]), (mean + error).min(bounds[1])]
        }
    };
    Some(Estimate { mean, n, interval })
}

fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The document's entry for an attack. `numerics` is the model's arithmetic, as in [`super::Model::numerics`].
pub fn attack(result: &AttackResult, clean: &[Answer], labels: &[usize], numerics: &str) -> Attack {
    let outcomes = &result.attacked.outcomes;
    let n = outcomes.len();
    let withstood = result.robust.iter().filter(|&&robust| robust).count();
    let winnable = |i: usize| {
        result.can_change_anything()
            && clean[i].label == labels[i]
            && result.plan.target != Some(labels[i])
    };
    let asked = outcomes.iter().any(|o| o.queries > 0 || o.fooled);
    let attempts = (0..n).filter(|&i| asked && winnable(i)).count();
    let won: Vec<usize> = (0..n)
        .filter(|&i| winnable(i) && outcomes[i].fooled)
        .collect();
    let mean_norm = (!won.is_empty()).then(|| {
        let mean = |size: &dyn Fn(usize) -> f64| {
            won.iter().map(|&i| size(i)).sum::<f64>() / won.len() as f64
        };
        MeanNorm {
            l2: mean(&|i| result.attacked.norms[i].l2),
            linf: mean(&|i| result.attacked.norms[i].linf),
        }
    });
    let per_sample = |total: u64| total as f64 / n.max(1) as f64;
    Attack {
        name: result.plan.name.into(),
        threat: result.threat.name().into(),
        numerics: numerics.into(),
        norm: norm_name(result.plan.norm).into(),
        eps: result
            .plan
            .epsilon
            .is_finite()
            .then(|| decimal(result.plan.epsilon)),
        targeted: result.plan.target.is_some(),
        robust_accuracy: share(withstood, n).unwrap_or(0.0),
        interval: wilson(withstood, n),
        success_rate: share(won.len(), attempts),
        mean_norm,
        queries_mean: per_sample(outcomes.iter().map(|outcome| outcome.queries).sum()),
        gradients_mean: per_sample(outcomes.iter().map(|outcome| outcome.gradients).sum()),
        queries_to_success: quantiles(won.iter().map(|&i| outcomes[i].queries as f64)),
        fooled: outcomes.iter().map(|outcome| outcome.fooled).collect(),
    }
}

/// How `values` are spread (the smallest value that so many are no larger than); `None` where there are none.
pub fn quantiles(values: impl IntoIterator<Item = f64>) -> Option<Quantiles> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let at = |share: f64| {
        values[((share * values.len() as f64).ceil() as usize)
            .saturating_sub(1)
            .min(last)]
    };
    Some(Quantiles {
        least: values[0],
        quarter: at(0.25),
        median: at(0.5),
        three_quarters: at(0.75),
        most: values[last],
    })
}

/// Accuracy class by class, before and under an attack; classes without samples are left out.
pub fn classes(
    names: &[String],
    result: &AttackResult,
    clean: &[Answer],
    labels: &[usize],
) -> Vec<Class> {
    let of = |class: usize| (0..labels.len()).filter(move |&i| labels[i] == class);
    let class = |(class, name): (usize, &String)| {
        let n = of(class).count();
        let robust = of(class).filter(|&i| result.robust[i]).count();
        Some(Class {
            name: name.clone(),
            n,
            clean: share(of(class).filter(|&i| clean[i].label == class).count(), n)?,
            robust: share(robust, n)?,
            interval: wilson(robust, n),
        })
    };
    names.iter().enumerate().filter_map(class).collect()
}

/// The f64 with the fewest digits that is this f32: 0.1, not 0.10000000149.
pub(crate) fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
