//! What adversarial inputs that were made elsewhere are worth: who is fooled, and whether they are inside of ball and box.

use crate::classifier::Classifier;
use foolproof::session::SessionError;

/// Counts over samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Samples.
    pub samples: usize,
    /// Those that the classifier gets right as they are.
    pub right: usize,
    /// Of these, the ones whose adversarial input reaches the goal and is inside of ball and box.
    pub fooled: usize,
    /// Of all, those whose adversarial input the classifier still gets right.
    pub robust: usize,
    /// Adversarial inputs outside of ball or box.
    pub outside: usize,
}

impl Verdict {
    /// Judges `after` beside `before` (real units). The goal is `class`, or any class but the true one where that is below 0.
    ///
    /// # Errors
    /// The inputs are not the classifier's.
    pub fn of(
        target: &Classifier<'_>,
        (before, after): (&[f32], &[f32]),
        labels: &[usize],
        (epsilon, class): (f64, i64),
    ) -> Result<Verdict, SessionError> {
        let clean = target.answers(&target.inputs(before))?;
        let answers = target.answers(&target.inputs(after))?;
        let clean: Vec<usize> = clean.iter().map(|a| a.label).collect();
        let said: Vec<usize> = answers.iter().map(|a| a.label).collect();
        let range = target.form().range;
        let n = target.input_len();
        let inside: Vec<bool> = before
            .chunks_exact(n)
            .zip(after.chunks_exact(n))
            .map(|(x, y)| inside(x, y, epsilon, range))
            .collect();
        Ok(Verdict::count((&clean, &said), &inside, labels, class))
    }

    /// The same of labels that are known: of the inputs as they are, and of the adversarial ones.
    pub fn count(
        (clean, said): (&[usize], &[usize]),
        inside: &[bool],
        labels: &[usize],
        class: i64,
    ) -> Verdict {
        let mut verdict = Verdict::default();
        for (((&clean, &said), &inside), &label) in clean.iter().zip(said).zip(inside).zip(labels) {
            // what is of the class to reach already says nothing
            if i64::try_from(label) == Ok(class) {
                continue;
            }
            let goal = match class {
                ..0 => said != label,
                _ => i64::try_from(said) == Ok(class),
            };
            verdict.samples += 1;
            verdict.right += usize::from(clean == label);
            verdict.fooled += usize::from(clean == label && goal && inside);
            verdict.robust += usize::from(said == label);
            verdict.outside += usize::from(!inside);
        }
        verdict
    }

    /// Of the samples that the classifier gets right, the share that was fooled.
    pub fn success(&self) -> f64 {
        self.fooled as f64 / self.right.max(1) as f64
    }

    /// By name, for documents and reports.
    pub fn figures(&self) -> Vec<(String, f64)> {
        let share = |count: usize| count as f64 / self.samples.max(1) as f64;
        [
            ("test_accuracy", share(self.right)),
            ("test_robust_accuracy", share(self.robust)),
            ("test_success", self.success()),
            ("outside_ball_or_box", self.outside as f64),
        ]
        .map(|(name, value)| (name.to_string(), value))
        .to_vec()
    }
}

/// Whether `y` is in the linf ball around `x` and in the box, up to the rounding of f32.
pub fn inside(x: &[f32], y: &[f32], epsilon: f64, (low, high): (f32, f32)) -> bool {
    let slack = 1e-6 * f64::from(high - low);
    x.iter().zip(y).all(|(&x, &y)| {
        let off = (f64::from(x) - f64::from(y)).abs();
        off <= epsilon + slack
            && f64::from(y) >= f64::from(low) - slack
            && f64::from(y) <= f64::from(high) + slack
    })
}
