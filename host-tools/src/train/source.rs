//! Where real samples come from: a data set, or a density that is known in closed form and never ends.

use super::TrainError;
use super::gan::networks::Form;
use crate::data::{Dataset, Samples};
use foolproof::attack::AttackRng;
pub use foolproof::latent::normal;
use rand_core::Rng;

/// A mixture of Gaussians, each round: the same standard deviation along every axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture {
    /// Axes.
    pub dimensions: usize,
    /// Weight (they add up to 1), standard deviation, centre.
    pub parts: Vec<(f64, f64, Vec<f64>)>,
}

impl Mixture {
    /// Parts of equal weight and width on one axis or more.
    pub fn even(std: f64, centres: Vec<Vec<f64>>) -> Mixture {
        let weight = 1.0 / centres.len().max(1) as f64;
        Mixture {
            dimensions: centres.first().map_or(1, Vec::len),
            parts: centres
                .into_iter()
                .map(|centre| (weight, std, centre))
                .collect(),
        }
    }

    /// Three humps on a line.
    pub fn line() -> Mixture {
        Mixture {
            dimensions: 1,
            parts: vec![
                (0.3, 0.6, vec![-2.0]),
                (0.4, 0.7, vec![0.0]),
                (0.3, 0.6, vec![2.2]),
            ],
        }
    }

    /// 25 Gaussians on a 5 by 5 grid, 2 apart, standard deviation 0.05 (Srivastava et al., "VEEGAN", 2017, section 4.1).
    pub fn grid25() -> Mixture {
        let place = |i: usize| 2.0 * i as f64 - 4.0;
        Mixture::even(
            0.05,
            (0..25).map(|i| vec![place(i / 5), place(i % 5)]).collect(),
        )
    }

    /// The density at a point.
    pub fn density(&self, x: &[f64]) -> f64 {
        let root = (2.0 * std::f64::consts::PI).sqrt();
        self.parts
            .iter()
            .map(|(weight, std, centre)| {
                let distance: f64 = x.iter().zip(centre).map(|(x, c)| (x - c).powi(2)).sum();
                weight * (-0.5 * distance / (std * std)).exp()
                    / (std * root).powi(self.dimensions as i32)
            })
            .sum()
    }

    /// The probability of a box, exactly.
    pub fn mass(&self, low: &[f64], high: &[f64]) -> f64 {
        let below =
            |v: f64, c: f64, std: f64| 0.5 * (1.0 + libm::erf((v - c) / (std * 2f64.sqrt())));
        self.parts
            .iter()
            .map(|(weight, std, centre)| {
                let sides = low.iter().zip(high).zip(centre);
                weight
                    * sides
                        .map(|((l, h), c)| below(*h, *c, *std) - below(*l, *c, *std))
                        .product::<f64>()
            })
            .sum()
    }

    /// One sample, appended.
    pub fn draw(&self, rng: &mut AttackRng, out: &mut Vec<f32>) {
        let mut left = uniform(rng);
        let chosen = self.parts.iter().find(|(weight, ..)| {
            left -= weight;
            left < 0.0
        });
        if let Some((_, std, centre)) = chosen.or(self.parts.last()) {
            let mut noise = vec![0.0; self.dimensions];
            normal(rng, &mut noise);
            out.extend(
                noise
                    .iter()
                    .zip(centre)
                    .map(|(z, c)| (c + std * f64::from(*z)) as f32),
            );
        }
    }
}

/// A uniform number in [0, 1), multiples of 2^-32.
pub fn uniform(rng: &mut AttackRng) -> f64 {
    f64::from(rng.next_u32()) / 4_294_967_296.0
}

/// Real samples.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A data set in memory.
    Set(Set),
    /// A density.
    Points(Mixture),
}

/// A data set as GANs learn it.
#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    /// The shape of a sample.
    pub form: Form,
    /// Elements, sample after sample; of images in -1 to 1.
    pub x: Vec<f32>,
    /// Labels, one a sample; empty without.
    pub labels: Vec<usize>,
    /// Classes; 0 without labels.
    pub classes: usize,
}

impl Set {
    /// Images (two or three axes) are brought to -1 to 1: from 0 to 255 where they are bytes, else from `range`.
    ///
    /// # Errors
    /// int8 samples have no real values; a sample has more than three axes.
    pub fn of(data: &Dataset, range: (f32, f32)) -> Result<Set, TrainError> {
        let axes: Vec<u32> = data.shape().iter().map(|&d| d as u32).collect();
        let (shape, image) = match *axes.as_slice() {
            [n] => (vec![n], false),
            [h, w] => (vec![h, w, 1], true),
            [h, w, c] => (vec![h, w, c], true),
            _ => {
                return Err(TrainError::Config(format!(
                    "samples of {} axes; at most three would be right",
                    axes.len()
                )));
            }
        };
        let centred = |v: f32, (low, high): (f32, f32)| 2.0 * (v - low) / (high - low) - 1.0;
        let x = match data.samples() {
            Samples::U8(bytes) => bytes
                .iter()
                .map(|&v| centred(f32::from(v), (0.0, 255.0)))
                .collect(),
            Samples::F32(values) if image => values.iter().map(|&v| centred(v, range)).collect(),
            Samples::F32(values) => values.clone(),
            Samples::I8(_) => {
                return Err(TrainError::Config(
                    "int8 samples have no real values; float32 or uint8 would be right".into(),
                ));
            }
        };
        Ok(Set {
            form: Form { shape, image },
            x,
            labels: data.labels().unwrap_or_default().to_vec(),
            classes: data.classes(),
        })
    }

    /// Samples.
    pub fn len(&self) -> usize {
        self.x.len() / self.form.len().max(1)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.x.is_empty()
    }
}

impl Source {
    /// The shape of a sample.
    pub fn form(&self) -> Form {
        match self {
            Source::Set(set) => set.form.clone(),
            Source::Points(mixture) => Form {
                shape: vec![mixture.dimensions as u32],
                image: false,
            },
        }
    }

    /// Samples in one pass over the data; `None` where it never ends.
    pub fn rows(&self) -> Option<usize> {
        match self {
            Source::Set(set) => Some(set.len()),
            Source::Points(_) => None,
        }
    }

    /// Classes; 0 without labels.
    pub fn classes(&self) -> usize {
        match self {
            Source::Set(set) => set.classes,
            Source::Points(_) => 0,
        }
    }

    /// `count` samples and their labels (0 without): those of these rows, or fresh ones.
    pub fn take(
        &self,
        rows: &[usize],
        count: usize,
        rng: &mut AttackRng,
    ) -> (Vec<f32>, Vec<usize>) {
        let mut x = Vec::new();
        match self {
            Source::Set(set) => {
                let len = set.form.len();
                rows.iter()
                    .for_each(|&row| x.extend_from_slice(&set.x[row * len..(row + 1) * len]));
                let label = |&row: &usize| set.labels.get(row).copied().unwrap_or(0);
                (x, rows.iter().map(label).collect())
            }
            Source::Points(mixture) => {
                (0..count).for_each(|_| mixture.draw(rng, &mut x));
                (x, vec![0; count])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_density_integrates_to_one_and_its_boxes_agree_with_its_samples() {
        let p = Mixture::line();
        let h = 0.01;
        let sum: f64 = (-1000..1000)
            .map(|i| h * p.density(&[h * (f64::from(i) + 0.5)]))
            .sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        let exact = p.mass(&[-1.0], &[0.5]);
        let sum: f64 = (-100..50)
            .map(|i| h * p.density(&[h * (f64::from(i) + 0.5)]))
            .sum();
        assert!((sum - exact).abs() < 1e-4, "{sum} {exact}");
        let mut rng = foolproof::attack::rng(1, 1);
        let mut x = Vec::new();
        (0..20_000).for_each(|_| p.draw(&mut rng, &mut x));
        let inside = x.iter().filter(|x| (-1.0..0.5).contains(*x)).count() as f64 / 20_000.0;
        assert!((inside - exact).abs() < 0.015, "{inside} {exact}");
    }

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let mut z = vec![0.0; 20_001];
        normal(&mut foolproof::attack::rng(2, 0), &mut z);
        let n = z.len() as f64;
        let mean = z.iter().map(|&z| f64::from(z)).sum::<f64>() / n;
        let variance = z.iter().map(|&z| f64::from(z).powi(2)).sum::<f64>() / n;
        assert!(
            mean.abs() < 0.03 && (variance - 1.0).abs() < 0.04,
            "{mean} {variance}"
        );
    }
}
