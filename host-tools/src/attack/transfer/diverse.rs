//! Input diversity: the input shrunk a little, by nearest neighbours, and padded to its old size at a random place (Xie et
//! al. 2019, section 3.3).

use super::super::Stream;
use super::super::random::{below, uniform};
use crate::classifier::InputForm;
use foolproof::attack::{AttackRng, rng};

/// The smallest size, of the full one (the paper's 299 of 330).
const SMALLEST: f32 = 0.9;

/// Draws windows.
#[derive(Clone, Debug)]
pub struct Diversity {
    probability: f32,
    shape: [usize; 3],
    padding: f32,
    rng: AttackRng,
}

impl Diversity {
    /// For images of this form; the form has three dimensions.
    pub fn new(probability: f32, form: &InputForm, stream: Stream) -> Diversity {
        let dim = |i: usize| form.shape.get(i).copied().unwrap_or(1);
        let (low, high) = form.range;
        Diversity {
            probability,
            shape: [dim(0), dim(1), dim(2)],
            padding: 0.0_f32.min(high).max(low),
            // a stream of its own: the attack's random choices stay what they are without diversity
            rng: rng(stream.seed ^ 0x64_69_76_65_72_73_65, stream.sample),
        }
    }

    /// A window, or none where the input stays as it is.
    pub fn draw(&mut self) -> Option<Window> {
        if uniform(&mut self.rng) >= self.probability {
            return None;
        }
        let [height, width, channels] = self.shape;
        let share = SMALLEST + (1.0 - SMALLEST) * uniform(&mut self.rng);
        let shrunk = |side: usize| ((side as f32 * share) as usize).clamp(1, side.max(1));
        let (h, w) = (shrunk(height), shrunk(width));
        let top = below(&mut self.rng, height - h + 1);
        let left = below(&mut self.rng, width - w + 1);
        let mut source = vec![None; height * width * channels];
        for i in 0..h {
            for j in 0..w {
                let from = (i * height / h) * width + j * width / w;
                let to = (top + i) * width + left + j;
                for c in 0..channels {
                    source[to * channels + c] = Some(from * channels + c);
                }
            }
        }
        Some(Window {
            source,
            padding: self.padding,
        })
    }
}

/// Where each element of the shrunk and padded image comes from; `None` is padding.
#[derive(Clone, Debug)]
pub struct Window {
    source: Vec<Option<usize>>,
    padding: f32,
}

impl Window {
    /// The image as it is seen through the window.
    pub fn show(&self, x: &[f32], seen: &mut [f32]) {
        for (seen, source) in seen.iter_mut().zip(&self.source) {
            *seen = source.map_or(self.padding, |i| x[i]);
        }
    }

    /// Adds the gradient with respect to the image, given the one with respect to what was seen.
    pub fn pull_back(&self, seen: &[f32], gradient: &mut [f32]) {
        for (g, source) in seen.iter().zip(&self.source) {
            if let Some(i) = source {
                gradient[*i] += g;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_linear_and_its_pull_back_is_the_transpose() {
        let form = InputForm {
            shape: vec![10, 12, 2],
            grid: None,
            range: (0.0, 1.0),
        };
        let stream = Stream { seed: 1, sample: 2 };
        let mut diversity = Diversity::new(0.5, &form, stream);
        let mut draws = rng(5, 6);
        let mut number = || uniform(&mut draws) - 0.5;
        let mut windows = 0;
        for _ in 0..100 {
            let Some(window) = diversity.draw() else {
                continue;
            };
            windows += 1;
            let x: Vec<f32> = (0..240).map(|_| number()).collect();
            let y: Vec<f32> = (0..240).map(|_| number()).collect();
            let (mut seen, mut back) = (vec![0.0; 240], vec![0.0; 240]);
            window.show(&x, &mut seen);
            window.pull_back(&y, &mut back);
            let dot = |a: &[f32], b: &[f32]| -> f64 {
                a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum()
            };
            assert!((dot(&seen, &y) - dot(&x, &back)).abs() < 1e-5);
            let padded = seen.iter().filter(|&&v| v == 0.0).count();
            // at least 9 of 10 rows and 10 of 12 columns are left
            assert!(padded <= 240 - 9 * 10 * 2, "{padded}");
        }
        assert!((30..70).contains(&windows), "{windows} of 100");
    }
}
