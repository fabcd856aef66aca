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
            Loss::Margin => {
                let Some(rival) = rival(logits, class) else {
                    logits.fill(0.0);
                    return 0.0;
                };
                let value = logits[rival] - logits[class];
                logits.fill(0.0);
                logits[rival] = 1.0;
                logits[class] = -1.0;
                value
            }
        }
    }
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
