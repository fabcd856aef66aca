//! Losses: from logits to a value and the gradient with respect to the logits, in place.

/// A function of the logits `z` that training descends and attacks climb.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[cfg_attr(feature = "link", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Loss {
    /// `log(sum_j exp z_j) - z_class`.
    CrossEntropy,
    /// `max_{j != class} z_j - z_class` (Carlini and Wagner 2017, section V: f6 without the clamp).
    Margin,
    /// The same of the probabilities `softmax(z)`: `max_{j != class} p_j - p_class` (Carlini and Wagner 2017,
    /// section V: f4 up to a constant).
    ProbabilityMargin,
    /// Difference of logits ratio: the margin over `z_(1) - z_(3)`, the largest minus the third largest logit
    /// (Croce and Hein 2020, "Reliable evaluation of adversarial robustness", equation 6). Two classes have no third: the
    /// plain margin. Where an attack is to reach a class, the denominator is that of equation 7.
    Dlr,
    /// Towards one other class: `(z_other - z_class) / (z_(1) - (z_(3) + z_(4)) / 2)` (Croce and Hein 2020,
    /// equation 7). With fewer than four classes the plain difference.
    DlrToward(u16),
    /// `z_other - z_class`: the boundary between two classes (DeepFool, FAB).
    Difference(u16),
    /// `z_other`, whatever the class: one row of the Jacobian.
    Logit(u16),
}

/// What an attacker wants of the label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Goal {
    /// Any label but this one.
    Avoid(usize),
    /// This label.
    Reach(usize),
}

impl Goal {
    /// Whether an answer is what the attacker wants.
    pub fn is_met(self, label: usize) -> bool {
        match self {
            Goal::Avoid(class) => label != class,
            Goal::Reach(class) => label == class,
        }
    }

    /// The class that the goal names.
    pub fn class(self) -> usize {
        match self {
            Goal::Avoid(class) | Goal::Reach(class) => class,
        }
    }
}

/// What an attack climbs: a loss of the label to avoid, or minus the loss of the label to reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Objective {
    /// The loss.
    pub loss: Loss,
    /// The goal.
    pub goal: Goal,
}

impl Objective {
    /// Replaces logits by the gradient of the objective with respect to them, and returns the objective's
    /// value. A class that does not exist gives 0 and a zero gradient.
    pub fn differentiate(&self, logits: &mut [f32]) -> f32 {
        if let (Goal::Reach(class), Loss::Dlr) = (self.goal, self.loss) {
            // over z_(1) - z_(3) the ratio would be flat for a class that is third
            let Some(rival) = rival(logits, class).filter(|_| class < logits.len()) else {
                return nothing(logits);
            };
            return Loss::DlrToward(class as u16).differentiate(rival, logits);
        }
        let value = self.loss.differentiate(self.goal.class(), logits);
        match self.goal {
            Goal::Avoid(_) => value,
            Goal::Reach(_) => {
                logits.iter_mut().for_each(|g| *g = -*g);
                -value
            }
        }
    }
}

impl Loss {
    /// Replaces logits by the gradient of the loss with respect to them, and returns the loss.
    pub fn differentiate(self, class: usize, logits: &mut [f32]) -> f32 {
        if class >= logits.len() {
            logits.fill(0.0);
            return 0.0;
        }
        match self {
            Loss::CrossEntropy => {
                let true_logit = logits[class];
                let log_sum = softmax(logits);
                logits[class] -= 1.0;
                log_sum - true_logit
            }
            Loss::Margin => match rival(logits, class) {
                Some(rival) => difference(logits, rival, class),
                None => nothing(logits),
            },
            Loss::ProbabilityMargin => {
                softmax(logits);
                let Some(rival) = rival(logits, class) else {
                    return nothing(logits);
                };
                let (p, q) = (logits[rival], logits[class]);
                // d(p - q)/dz_j = p (1[j = rival] - p_j) - q (1[j = class] - p_j)
                logits.iter_mut().for_each(|g| *g *= q - p);
                logits[rival] += p;
                logits[class] -= q;
                p - q
            }
            Loss::Dlr => match rival(logits, class) {
                Some(rival) => {
                    let [first, _, third, _] = ranks(logits);
                    ratio(logits, (rival, class), first, &[third])
                }
                None => nothing(logits),
            },
            Loss::DlrToward(other) => {
                let [first, _, third, fourth] = ranks(logits);
                ratio(logits, (usize::from(other), class), first, &[third, fourth])
            }
            Loss::Difference(other) => difference(logits, usize::from(other), class),
            Loss::Logit(other) => match logits.get(usize::from(other)) {
                Some(&z) => {
                    logits.fill(0.0);
                    logits[usize::from(other)] = 1.0;
                    z
                }
                None => nothing(logits),
            },
        }
    }
}

fn nothing(logits: &mut [f32]) -> f32 {
    logits.fill(0.0);
    0.0
}

/// `z_other - z_class` and its gradient.
fn difference(logits: &mut [f32], other: usize, class: usize) -> f32 {
    if other >= logits.len() || other == class {
        return nothing(logits);
    }
    let value = logits[other] - logits[class];
    logits.fill(0.0);
    logits[other] = 1.0;
    logits[class] = -1.0;
    value
}

/// The indices of the four largest logits; of equals the first comes first. Where there are fewer, the last
/// repeats.
fn ranks(z: &[f32]) -> [usize; 4] {
    let mut ranks = [0; 4];
    let mut found = 0;
    while found < z.len().min(4) {
        let mut best: Option<usize> = None;
        for (i, &v) in z.iter().enumerate() {
            if !ranks[..found].contains(&i) && best.is_none_or(|b| v > z[b]) {
                best = Some(i);
            }
        }
        ranks[found] = best.unwrap_or(0);
        found += 1;
    }
    for i in found.max(1)..4 {
        ranks[i] = ranks[i - 1];
    }
    ranks
}

/// `(z_other - z_class) / (z_first - mean of z_low)` and its gradient; the plain difference where the
/// denominator is no positive number, or where there are too few classes.
fn ratio(logits: &mut [f32], (other, class): (usize, usize), first: usize, low: &[usize]) -> f32 {
    let share = 1.0 / low.len() as f32;
    let below: f32 = low
        .iter()
        .map(|&i| logits.get(i).copied().unwrap_or(0.0))
        .sum();
    let spread = logits.get(first).copied().unwrap_or(0.0) - below * share;
    let enough = spread > 1e-12 && spread.is_finite() && logits.len() > low.len() + 1;
    let top = difference(logits, other, class);
    if !enough {
        return top;
    }
    let value = top / spread;
    logits.iter_mut().for_each(|g| *g /= spread);
    let pull = value / spread;
    logits[first] -= pull;
    for &i in low {
        logits[i] += pull * share;
    }
    value
}

/// Replaces logits by their softmax and returns `log(sum_j exp z_j)`.
pub fn softmax(z: &mut [f32]) -> f32 {
    let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for v in z.iter_mut() {
        *v = crate::math::exp(*v - max);
        sum += *v;
    }
    for v in z.iter_mut() {
        *v /= sum;
    }
    max + libm::logf(sum)
}

/// The largest logit of another class; the first of equals. `None` where there is only one class.
pub fn rival(z: &[f32], class: usize) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (i, &v) in z.iter().enumerate() {
        if i != class && best.is_none_or(|b| v > z[b]) {
            best = Some(i);
        }
    }
    best
}

/// The index of the largest element, the first of equals; 0 for none.
pub fn argmax<T: PartialOrd + Copy>(z: &[T]) -> usize {
    let mut best = 0;
    for (i, v) in z.iter().enumerate() {
        if *v > z[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_is_minus_log_probability_and_its_gradient_is_p_minus_onehot() {
        let mut z = [1.0, 2.0, 3.0];
        let value = Loss::CrossEntropy.differentiate(0, &mut z);
        // log(e + e^2 + e^3) - 1 = 2.407605964...
        assert!((value - 2.407_606).abs() < 1e-6);
        let expected = [0.090_030_57 - 1.0, 0.244_728_47, 0.665_240_94];
        for (g, e) in z.iter().zip(expected) {
            assert!((g - e).abs() < 1e-6);
        }
    }

    #[test]
    fn margin_is_negative_while_the_class_wins() {
        let mut z = [1.0, 5.0, 3.0];
        assert_eq!(Loss::Margin.differentiate(1, &mut z), -2.0);
        assert_eq!(z, [0.0, -1.0, 1.0]);
    }

    #[test]
    fn a_target_turns_the_sign() {
        let objective = Objective {
            loss: Loss::Margin,
            goal: Goal::Reach(0),
        };
        let mut z = [1.0, 5.0, 3.0];
        assert_eq!(objective.differentiate(&mut z), -4.0);
        assert_eq!(z, [1.0, -1.0, 0.0]);
    }

    #[test]
    fn no_class_to_reach_is_on_a_plateau_of_the_ratio() {
        for z in [[4.0, 3.0, 2.0, 1.0, 0.5].as_slice(), &[4.0, 3.0, 2.0]] {
            for class in 1..z.len() {
                let objective = Objective {
                    loss: Loss::Dlr,
                    goal: Goal::Reach(class),
                };
                let mut gradient = [0.0; 5];
                let gradient = &mut gradient[..z.len()];
                gradient.copy_from_slice(z);
                let value = objective.differentiate(gradient);
                assert!(value < 0.0);
                assert!(gradient[class] > 0.0);
            }
        }
    }

    #[test]
    fn every_gradient_is_the_slope_of_its_value() {
        let z = [0.3, 2.0, -1.0, 1.2, 0.7];
        for loss in [
            Loss::CrossEntropy,
            Loss::Margin,
            Loss::ProbabilityMargin,
            Loss::Dlr,
            Loss::DlrToward(4),
            Loss::DlrToward(1),
            Loss::Difference(3),
            Loss::Logit(2),
        ] {
            for class in [0, 1, 4] {
                let mut gradient = z;
                loss.differentiate(class, &mut gradient);
                for i in 0..z.len() {
                    let at = |step: f32| {
                        let mut moved = z;
                        moved[i] += step;
                        f64::from(loss.differentiate(class, &mut moved))
                    };
                    let slope = (at(0.01) - at(-0.01)) / 0.02;
                    let error = (slope - f64::from(gradient[i])).abs();
                    assert!(
                        error < 1e-3,
                        "{loss:?} {class} {i}: {slope} {}",
                        gradient[i]
                    );
                }
            }
        }
    }

    #[test]
    fn ratios_do_not_depend_on_scale_or_shift_and_small_models_have_margins() {
        let mut z = [1.0, 5.0, 3.0, 0.0];
        assert_eq!(Loss::Dlr.differentiate(1, &mut z), -0.5);
        let mut z = [107.0, 115.0, 111.0, 105.0];
        assert_eq!(Loss::Dlr.differentiate(1, &mut z), -0.5);
        let mut z = [1.0, 5.0];
        assert_eq!(Loss::Dlr.differentiate(1, &mut z), -4.0);
        let mut z = [1.0];
        assert_eq!(Loss::Dlr.differentiate(0, &mut z), 0.0);
        let mut z = [2.0, 2.0, 2.0, 2.0];
        assert_eq!(Loss::DlrToward(3).differentiate(0, &mut z), 0.0);
        assert!(z.iter().all(|g| g.is_finite()));
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let mut z = [1e30, -1e30, 0.0];
        assert!(Loss::CrossEntropy.differentiate(1, &mut z).is_finite());
        assert!(z.iter().all(|g| g.is_finite()));
    }

    #[test]
    fn a_class_that_does_not_exist_gives_no_gradient() {
        let mut z = [1.0, 2.0];
        assert_eq!(Loss::CrossEntropy.differentiate(2, &mut z), 0.0);
        assert_eq!(z, [0.0, 0.0]);
    }
}
