//! How good samples are. On densities that are known: modes, the share near a mode, and the Jensen-Shannon divergence of
//! histograms. On images: distances in the feature space of a classifier, and the nearest training sample.

use super::source::Mixture;
use super::{TrainError, answers};
use crate::graph::Graph;
use foolproof::ops::Op;
use nalgebra::DMatrix;
use rayon::prelude::*;

/// Samples beside a mixture of Gaussians.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Points {
    /// Parts of the mixture that have at least a tenth of their share of samples within 3 standard deviations of their centre.
    pub modes: usize,
    /// The share of samples within 3 standard deviations of a centre (Srivastava et al., "VEEGAN", 2017, section 4.1).
    pub high_quality: f64,
    /// Jensen-Shannon divergence, nats, of the samples' histogram from the mixture's exact masses.
    pub divergence: f64,
}

/// Judges points `[n, dimensions]` by cells of side `cell` between `low` and `high` along every axis; what lies outside of all
/// cells counts as one cell more.
pub fn points(samples: &[f32], mixture: &Mixture, (low, high, cell): (f64, f64, f64)) -> Points {
    let axes = mixture.dimensions;
    let side = ((high - low) / cell).round() as usize;
    let cells = side.pow(axes as u32);
    let mut counts = vec![0usize; cells + 1];
    let mut near = vec![0usize; mixture.parts.len()];
    let n = (samples.len() / axes).max(1);
    for x in samples.chunks_exact(axes) {
        let mut at = Some(0);
        for &v in x {
            let i = ((f64::from(v) - low) / cell).floor();
            let inside = i >= 0.0 && i < side as f64;
            at = at.filter(|_| inside).map(|at| at * side + i as usize);
        }
        counts[at.unwrap_or(cells)] += 1;
        let distance = |centre: &[f64]| -> f64 {
            x.iter()
                .zip(centre)
                .map(|(x, c)| (f64::from(*x) - c).powi(2))
                .sum::<f64>()
                .sqrt()
        };
        let within = mixture
            .parts
            .iter()
            .enumerate()
            .filter(|(_, (_, std, c))| distance(c) <= 3.0 * std);
        let nearest = within.min_by(|a, b| distance(&a.1.2).total_cmp(&distance(&b.1.2)));
        if let Some((part, _)) = nearest {
            near[part] += 1;
        }
    }
    let mut exact: Vec<f64> = (0..cells)
        .map(|mut i| {
            let mut corner = vec![0.0; axes];
            for c in corner.iter_mut().rev() {
                *c = low + cell * (i % side) as f64;
                i /= side;
            }
            let far: Vec<f64> = corner.iter().map(|c| c + cell).collect();
            mixture.mass(&corner, &far)
        })
        .collect();
    exact.push((1.0 - exact.iter().sum::<f64>()).max(0.0));
    let counted: Vec<f64> = counts.iter().map(|&c| c as f64 / n as f64).collect();
    let enough =
        |(near, part): (&usize, &(f64, f64, Vec<f64>))| *near as f64 >= 0.1 * part.0 * n as f64;
    Points {
        modes: near
            .iter()
            .zip(&mixture.parts)
            .filter(|&pair| enough(pair))
            .count(),
        high_quality: near.iter().sum::<usize>() as f64 / n as f64,
        divergence: divergence(&exact, &counted),
    }
}

/// Jensen-Shannon divergence of two distributions over the same cells, nats, between 0 and ln 2.
pub fn divergence(p: &[f64], q: &[f64]) -> f64 {
    let part = |a: f64, mean: f64| if a > 0.0 { a * (a / mean).ln() } else { 0.0 };
    let sum: f64 = p
        .iter()
        .zip(q)
        .map(|(&p, &q)| part(p, 0.5 * (p + q)) + part(q, 0.5 * (p + q)))
        .sum();
    (0.5 * sum).max(0.0)
}

/// A classifier up to its features: what its last dense layer reads.
#[derive(Clone, Debug)]
pub struct Features {
    graph: Graph,
    /// Class scores of the whole classifier.
    whole: Graph,
}

impl Features {
    /// Of an f32 classifier.
    ///
    /// # Errors
    /// It is an int8 model, or has no dense layer behind another layer.
    pub fn of(classifier: &Graph) -> Result<Features, TrainError> {
        let refuse = |what: &str| {
            Err(TrainError::Config(format!(
                "the classifier for features {what}; an f32 classifier that ends with a dense layer would be right"
            )))
        };
        if classifier.is_quantized() {
            return refuse("is an int8 model");
        }
        if classifier.tensors[classifier.logits()].shape.len() < 2 {
            return refuse("tells no classes apart: it has one output");
        }
        let last = classifier
            .nodes
            .iter()
            .rposition(|node| matches!(node.op, Op::Dense(_)));
        let Some(last) = last.filter(|&i| i > 0) else {
            return refuse("has no dense layer behind another layer");
        };
        let mut graph = classifier.clone();
        graph.output = graph.nodes[last].inputs[0];
        graph.nodes.truncate(last);
        graph.labels.clear();
        graph.prune();
        Ok(Features {
            graph,
            whole: classifier.clone(),
        })
    }

    /// Elements of a sample.
    pub fn input_len(&self) -> usize {
        self.graph.tensors[self.graph.input].shape.len()
    }

    /// Smallest and largest value of an element.
    pub fn input_range(&self) -> (f32, f32) {
        self.graph.input_range
    }

    /// Features of samples `[n, ...]` in the classifier's range, `[n, len]`.
    ///
    /// # Errors
    /// The graph is not well formed.
    pub fn run(&self, x: &[f32]) -> Result<Vec<f32>, TrainError> {
        answers(&self.graph, x)
    }

    /// What the whole classifier says.
    ///
    /// # Errors
    /// The graph is not well formed.
    pub fn scores(&self, x: &[f32]) -> Result<Vec<f32>, TrainError> {
        answers(&self.whole, x)
    }
}

/// The Fréchet distance between two sets of features `[n, d]`, each taken as a Gaussian (Heusel et al. 2017, equation 6):
/// `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`.
pub fn frechet(a: &[f32], b: &[f32], d: usize) -> f64 {
    let (mean_a, cov_a) = gaussian(a, d);
    let (mean_b, cov_b) = gaussian(b, d);
    let apart: f64 = mean_a
        .iter()
        .zip(&mean_b)
        .map(|(a, b)| (a - b).powi(2))
        .sum();
    // tr (C1 C2)^(1/2) = tr (R C2 R)^(1/2) with R the symmetric root of C1
    let eigen = cov_a.clone().symmetric_eigen();
    let roots = eigen.eigenvalues.map(|v| v.max(0.0).sqrt());
    let root =
        &eigen.eigenvectors * DMatrix::from_diagonal(&roots) * eigen.eigenvectors.transpose();
    let inner = &root * &cov_b * &root;
    let symmetric = (&inner + inner.transpose()) * 0.5;
    let cross: f64 = symmetric
        .symmetric_eigenvalues()
        .iter()
        .map(|v| v.max(0.0).sqrt())
        .sum();
    apart + cov_a.trace() + cov_b.trace() - 2.0 * cross
}

/// Mean and unbiased covariance.
fn gaussian(x: &[f32], d: usize) -> (Vec<f64>, DMatrix<f64>) {
    let n = (x.len() / d).max(1);
    let mut mean = vec![0.0; d];
    for row in x.chunks_exact(d) {
        mean.iter_mut()
            .zip(row)
            .for_each(|(m, &v)| *m += f64::from(v) / n as f64);
    }
    let centred = DMatrix::from_fn(n, d, |i, j| f64::from(x[i * d + j]) - mean[j]);
    let cov = centred.transpose() * &centred / (n.max(2) - 1) as f64;
    (mean, cov)
}

/// How many nearest neighbours of a point its ball holds.
pub const NEIGHBOURS: usize = 3;

/// Precision: the share of generated features inside the real ones' manifold; recall: the share of real ones inside the generated
/// one's. A manifold is the union of balls around its points that reach to their third nearest neighbour (Kynkäänniemi et al.,
/// "Improved precision and recall metric", 2019, equations 1 and 2, k = 3).
pub fn precision_recall(real: &[f32], made: &[f32], d: usize) -> (f64, f64) {
    let share = |inside: &[f32], manifold: &[f32]| {
        let radii = radii(manifold, d);
        let hits = inside.par_chunks_exact(d).filter(|x| {
            manifold
                .chunks_exact(d)
                .zip(&radii)
                .any(|(m, &r)| squared(x, m) <= r)
        });
        hits.count() as f64 / (inside.len() / d).max(1) as f64
    };
    (share(made, real), share(real, made))
}

/// The squared distance of each point to its third nearest neighbour.
fn radii(x: &[f32], d: usize) -> Vec<f32> {
    x.par_chunks_exact(d)
        .enumerate()
        .map(|(i, a)| {
            let mut least = [f32::INFINITY; NEIGHBOURS];
            for (j, b) in x.chunks_exact(d).enumerate() {
                let mut distance = squared(a, b);
                if i == j || distance >= least[NEIGHBOURS - 1] {
                    continue;
                }
                for place in &mut least {
                    if distance < *place {
                        std::mem::swap(place, &mut distance);
                    }
                }
            }
            least[NEIGHBOURS - 1]
        })
        .collect()
}

fn squared(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (a8, a1) = a.as_chunks::<8>();
    let (b8, b1) = b.as_chunks::<8>();
    for (a, b) in a8.iter().zip(b8) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += (a - b) * (a - b);
        }
    }
    let rest: f32 = a1.iter().zip(b1).map(|(a, b)| (a - b) * (a - b)).sum();
    lanes.iter().sum::<f32>() + rest
}

/// For each of the samples `made [m, d]`: the nearest of `real [n, d]` and how far it is (Euclidean). Generated samples that lie
/// on training samples were memorized.
pub fn nearest(made: &[f32], real: &[f32], d: usize) -> Vec<(usize, f32)> {
    made.par_chunks_exact(d)
        .map(|a| {
            let distances = real.chunks_exact(d).map(|b| squared(a, b)).enumerate();
            let (i, distance) = distances
                .min_by(|a, b| a.1.total_cmp(&b.1))
                .unwrap_or((0, 0.0));
            (i, distance.sqrt())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::source::normal;

    #[test]
    fn the_mixtures_own_samples_are_good_and_a_collapse_is_seen() {
        let mixture = Mixture::grid25();
        let mut rng = foolproof::attack::rng(1, 0);
        let mut x = Vec::new();
        (0..20_000).for_each(|_| mixture.draw(&mut rng, &mut x));
        let good = points(&x, &mixture, (-5.0, 5.0, 0.4));
        assert_eq!(good.modes, 25);
        assert!(
            good.high_quality > 0.98 && good.divergence < 0.001,
            "{good:?}"
        );
        let collapsed: Vec<f32> = [0.01, -0.02].repeat(1000);
        let bad = points(&collapsed, &mixture, (-5.0, 5.0, 0.4));
        assert_eq!((bad.modes, bad.high_quality), (1, 1.0));
        assert!(bad.divergence > 0.5, "{bad:?}");
    }

    #[test]
    fn frechet_distance_of_gaussians_is_the_closed_form() {
        // independent axes: |m|^2 + sum (s1 - s2)^2
        let mut rng = foolproof::attack::rng(3, 0);
        let mut a = vec![0.0; 40_000];
        normal(&mut rng, &mut a);
        let mut b = vec![0.0; 40_000];
        normal(&mut rng, &mut b);
        assert!(frechet(&a, &b, 2).abs() < 0.01);
        b.chunks_exact_mut(2).for_each(|x| {
            x[0] = 3.0 * x[0] + 1.0;
            x[1] -= 2.0;
        });
        let distance = frechet(&a, &b, 2);
        assert!((distance - (1.0 + 4.0 + 4.0)).abs() < 0.2, "{distance}");
    }

    #[test]
    fn precision_and_recall_tell_a_collapse_from_a_spread() {
        let mut rng = foolproof::attack::rng(4, 0);
        let mut real = vec![0.0; 2000];
        normal(&mut rng, &mut real);
        let mut same = vec![0.0; 2000];
        normal(&mut rng, &mut same);
        let (precision, recall) = precision_recall(&real, &same, 2);
        assert!(precision > 0.85 && recall > 0.85, "{precision} {recall}");
        let collapsed: Vec<f32> = same.iter().map(|v| 0.1 * v).collect();
        let (precision, recall) = precision_recall(&real, &collapsed, 2);
        assert!(precision > 0.9 && recall < 0.2, "{precision} {recall}");
        let found = nearest(&real[20..22], &real, 2);
        assert_eq!(found, [(10, 0.0)]);
    }
}
