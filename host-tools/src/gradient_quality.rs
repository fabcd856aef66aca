//! What a model's input gradient is worth: how much of it is zero, and how well it agrees with the gradient of the float
//! model that an int8 model was made of.
//!
//! The gradient of an integer graph is zero nearly everywhere; what a session gives is the straight-through estimate (Bengio et al.
//! 2013). Whether that is a direction worth climbing is a question of measurement, model by model.

use crate::classifier::{Classifier, Inputs};
use crate::document::summary::{estimate, share_of};
use crate::document::{FloatAgreement, GradientQuality};
use foolproof::loss::{Goal, Loss, Objective};
use foolproof::memory::Mode;
use foolproof::session::SessionError;
use rayon::prelude::*;
use zerocopy::IntoBytes;

/// A loss, as documents write it.
fn objective_name(loss: Loss) -> &'static str {
    match loss {
        Loss::Margin => "margin",
        _ => "cross-entropy",
    }
}

/// The gradient at one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleGradient {
    /// Elements.
    pub n: usize,
    /// Elements that are exactly zero.
    pub zeros: usize,
    /// Beside the float model's gradient.
    pub float: Option<Beside>,
}

/// Two gradients at one point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beside {
    /// Elements of the float gradient that are exactly zero.
    pub zeros: usize,
    /// Elements that are zero in neither.
    pub comparable: usize,
    /// Of these, the ones whose signs agree.
    pub agree: usize,
    /// Cosine of the angle between the two; `None` where either vanishes.
    pub cosine: Option<f64>,
    /// `sum |f| sign(f) sign(g)` over `sum |f|` for the float gradient f and the other one g; `None` where either vanishes.
    pub ascent: Option<f64>,
}

impl SampleGradient {
    /// Figures of a gradient, beside the float model's where there is one.
    pub fn of(gradient: &[f32], float: Option<&[f32]>) -> Self {
        Self {
            n: gradient.len(),
            zeros: zeros(gradient),
            float: float.map(|float| Beside::of(gradient, float)),
        }
    }

    /// Whether there is nothing to climb.
    pub fn vanished(&self) -> bool {
        self.zeros == self.n
    }
}

fn zeros(gradient: &[f32]) -> usize {
    gradient.iter().filter(|&&g| g == 0.0).count()
}

impl Beside {
    fn of(gradient: &[f32], float: &[f32]) -> Self {
        let pairs = || {
            gradient
                .iter()
                .zip(float)
                .map(|(&g, &f)| (f64::from(g), f64::from(f)))
        };
        let sum = |term: &dyn Fn(f64, f64) -> f64| pairs().map(|(g, f)| term(g, f)).sum::<f64>();
        let comparable = pairs().filter(|&(g, f)| g != 0.0 && f != 0.0).count();
        let agree = pairs().filter(|&(g, f)| g * f > 0.0).count();
        // squares of small gradients must not vanish: both are scaled to a largest element of 1
        let largest = |v: &[f32]| v.iter().fold(0f64, |m, &x| m.max(f64::from(x).abs()));
        let (top_g, top_f) = (largest(gradient), largest(float));
        let both = top_g > 0.0 && top_f > 0.0;
        let cosine = both.then(|| {
            let dot = sum(&|g, f| g / top_g * (f / top_f));
            let squares_g = sum(&|g, _| (g / top_g) * (g / top_g));
            let squares_f = sum(&|_, f| (f / top_f) * (f / top_f));
            (dot / (squares_g * squares_f).sqrt()).clamp(-1.0, 1.0)
        });
        let sign = |v: f64| if v == 0.0 { 0.0 } else { v.signum() };
        let ascent = both.then(|| sum(&|g, f| f * sign(g)) / sum(&|_, f| f.abs()));
        Self {
            zeros: zeros(float),
            comparable,
            agree,
            cosine,
            ascent,
        }
    }
}

/// The gradients of a loss of the right class at all samples, as untargeted attacks climb it, and beside them those of `float` at the same real points.
///
/// # Errors
/// A label that a model does not have, or inputs of the wrong type or length.
pub fn measure(
    classifier: &Classifier<'_>,
    float: Option<&Classifier<'_>>,
    (inputs, labels): (&Inputs, &[usize]),
    loss: Loss,
) -> Result<Vec<SampleGradient>, SessionError> {
    let own = gradients(classifier, inputs, labels, loss)?;
    let float = match float {
        Some(float) => Some(gradients(
            float,
            &Inputs::F32(classifier.real(inputs)),
            labels,
            loss,
        )?),
        None => None,
    };
    let beside = |i: usize| float.as_ref().map(|float| float[i].as_slice());
    let all = own.iter().enumerate();
    Ok(all
        .map(|(i, gradient)| SampleGradient::of(gradient, beside(i)))
        .collect())
}

/// One gradient per sample, in real units.
fn gradients(
    classifier: &Classifier<'_>,
    inputs: &Inputs,
    labels: &[usize],
    loss: Loss,
) -> Result<Vec<Vec<f32>>, SessionError> {
    let n = classifier.input_len();
    if !inputs.len().is_multiple_of(n) {
        let got = inputs.len() % n;
        return Err(SessionError::Length { needed: n, got });
    }
    (0..inputs.len() / n)
        .into_par_iter()
        .map_init(
            || classifier.buffer(Mode::Attack),
            |buffer, i| {
                let mut session = classifier.session(Mode::Attack, buffer)?;
                let range = i * n..(i + 1) * n;
                match inputs {
                    Inputs::F32(x) => session.forward_bytes(x[range.clone()].as_bytes())?,
                    Inputs::I8(x) => session.forward_bytes(x[range.clone()].as_bytes())?,
                };
                let class = labels.get(i).copied().unwrap_or(usize::MAX);
                let goal = Goal::Avoid(class);
                Ok(session.differentiate(Objective { loss, goal })?.1.to_vec())
            },
        )
        .collect()
}

/// The document's entry; `None` without samples.
pub fn summarise(loss: Loss, samples: &[SampleGradient]) -> Option<GradientQuality> {
    let n = samples.len();
    let zero_share = |zeros: usize, n: usize| zeros as f64 / n.max(1) as f64;
    let beside = || samples.iter().filter_map(|s| Some((s.n, s.float?)));
    let float = match beside().count() {
        0 => None,
        _ => Some(FloatAgreement {
            cosine: estimate(beside().filter_map(|(_, b)| b.cosine), [-1.0, 1.0]),
            sign_agreement: estimate(
                beside()
                    .filter(|(_, b)| b.comparable > 0)
                    .map(|(_, b)| b.agree as f64 / b.comparable as f64),
                [0.0, 1.0],
            ),
            ascent: estimate(beside().filter_map(|(_, b)| b.ascent), [-1.0, 1.0]),
            zero: estimate(beside().map(|(n, b)| zero_share(b.zeros, n)), [0.0, 1.0])?,
            vanished: share_of(beside().filter(|(n, b)| b.zeros == *n).count(), n)?,
        }),
    };
    Some(GradientQuality {
        objective: objective_name(loss).into(),
        n,
        zero: estimate(samples.iter().map(|s| zero_share(s.zeros, s.n)), [0.0, 1.0])?,
        vanished: share_of(samples.iter().filter(|s| s.vanished()).count(), n)?,
        float,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_compared_element_by_element() {
        let g = [1.0, -2.0, 0.0, 3.0, 0.0];
        let f = [2.0, 4.0, 1.0, 0.0, 0.0];
        let sample = SampleGradient::of(&g, Some(&f));
        let beside = sample.float.unwrap();
        assert_eq!((sample.zeros, beside.zeros), (2, 2));
        assert_eq!((beside.comparable, beside.agree), (2, 1));
        // g.f = 2 - 8, |g| = sqrt 14, |f| = sqrt 21
        let cosine = -6.0 / (14.0f64 * 21.0).sqrt();
        assert!((beside.cosine.unwrap() - cosine).abs() < 1e-12);
        // of |f| = 7 in all, 2 is climbed and 4 descended
        assert!((beside.ascent.unwrap() + 2.0 / 7.0).abs() < 1e-12);
    }

    #[test]
    fn tiny_gradients_have_a_direction_and_zero_ones_have_none() {
        let tiny = [1e-30, -1e-30];
        let beside = SampleGradient::of(&tiny, Some(&[1.0, -1.0])).float.unwrap();
        assert!((beside.cosine.unwrap() - 1.0).abs() < 1e-12);
        let nothing = SampleGradient::of(&[0.0, -0.0], Some(&[1.0, 2.0]));
        assert!(nothing.vanished());
        assert_eq!(nothing.float.unwrap().cosine, None);
    }

    #[test]
    fn samples_without_a_gradient_are_counted_and_left_out_of_means() {
        let samples = [
            SampleGradient::of(&[1.0, 1.0], Some(&[1.0, 1.0])),
            SampleGradient::of(&[1.0, 0.0], Some(&[1.0, 0.0])),
            SampleGradient::of(&[0.0, 0.0], Some(&[1.0, 1.0])),
            SampleGradient::of(&[1.0, 1.0], Some(&[0.0, 0.0])),
        ];
        let quality = summarise(Loss::Margin, &samples).unwrap();
        assert_eq!((quality.n, quality.objective.as_str()), (4, "margin"));
        assert_eq!((quality.vanished.share, quality.zero.mean), (0.25, 0.375));
        let float = quality.float.unwrap();
        assert_eq!(float.vanished.share, 0.25);
        let cosine = float.cosine.unwrap();
        assert_eq!((cosine.mean, cosine.n), (1.0, 2));
        assert_eq!(float.sign_agreement.unwrap().n, 2);
        assert_eq!(summarise(Loss::Margin, &[]), None);
    }
}
