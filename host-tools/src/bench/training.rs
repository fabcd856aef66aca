//! What a step of training takes, on images of 28x28 pixels made at random: the default classifier, and the default networks of
//! `train gan`. It is the trainers' own code that runs, data handling and optimizer included.

use super::{Subject, pool};
use crate::document::BenchRow;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::networks;
use crate::train::gan::config::Network;
use crate::train::gan::networks::Form;
use crate::train::gan::{self, Config, Game, Stand, Watch};
use crate::train::source::{Set, Source};
use crate::train::{TrainError, classifier, run};
use foolproof::kernels::Kernels;
use rand_core::Rng;
use std::time::{Duration, Instant};

const SIDE: u32 = 28;
const CLASSES: usize = 10;
/// Steps that the first, unmeasured, run takes to find how long one is.
const TRIAL: usize = 4;

/// What is trained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// The default classifier.
    Classifier,
    /// A GAN of dense layers: one step of either player.
    GanMlp,
    /// A convolutional GAN: one step of either player.
    GanDcgan,
}

impl Work {
    /// All.
    pub const ALL: [Work; 3] = [Work::Classifier, Work::GanMlp, Work::GanDcgan];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Work::Classifier => "train-classifier",
            Work::GanMlp => "train-gan-mlp",
            Work::GanDcgan => "train-gan-dcgan",
        }
    }

    /// One row: steps on so many threads for about `seconds`.
    ///
    /// # Errors
    /// There is no place for temporary files, or the machine does not give the threads.
    pub fn row(self, threads: usize, seconds: f64, seed: u64) -> Result<Option<BenchRow>> {
        let pool =
            pool(threads).map_err(|error| Error::new(error, "--threads", "fewer threads"))?;
        let steps = |count: usize| {
            pool.install(|| match self {
                Work::Classifier => classifier_steps(count, seed),
                Work::GanMlp => gan_steps(Network::Mlp, count, seed),
                Work::GanDcgan => gan_steps(Network::Dcgan, count, seed),
            })
            .map_err(|error| Error::new(error, self.name(), ""))
        };
        let trial = steps(TRIAL)?;
        let one = trial.iter().copied().fold(f64::MAX, f64::min).max(1e-6);
        let times = steps(((seconds / one).ceil() as usize).clamp(TRIAL, 100_000))?;
        let batch = match self {
            Work::Classifier => classifier::Config::default().batch,
            _ => Config::for_samples().batch,
        };
        let subject = Subject {
            work: self.name(),
            kernels: Kernels::detect().name(),
            batch,
            threads,
            unit: "images",
            amount: batch as f64,
        };
        Ok(subject.row(&times))
    }
}

fn pixels(images: usize, seed: u64) -> Vec<f32> {
    let mut rng = foolproof::attack::rng(seed, 0);
    let one = |_| (rng.next_u32() >> 8) as f32 / 8_388_608.0 - 1.0;
    (0..images * (SIDE * SIDE) as usize).map(one).collect()
}

/// Seconds of each of so many steps, counted by epochs of one batch.
fn classifier_steps(count: usize, seed: u64) -> std::result::Result<Vec<f64>, TrainError> {
    let config = classifier::Config {
        epochs: count,
        ..classifier::Config::default()
    };
    let labels = (0..CLASSES).map(|class| class.to_string()).collect();
    let mut graph = networks::default_for(&[SIDE, SIDE, 1], (-1.0, 1.0), labels, seed)
        .map_err(|error| TrainError::Config(error.to_string()))?;
    let (x, y) = (
        pixels(config.batch, seed),
        (0..config.batch).map(|i| i % CLASSES).collect::<Vec<_>>(),
    );
    let samples = classifier::Samples { x: &x, y: &y };
    let mut clock = Clock::start();
    classifier::train(&mut graph, samples, &config, seed, &mut |_| clock.lap())?;
    Ok(clock.seconds())
}

/// Seconds of each of so many steps.
fn gan_steps(
    network: Network,
    count: usize,
    seed: u64,
) -> std::result::Result<Vec<f64>, TrainError> {
    let config = Config {
        network,
        epochs: 1,
        ..Config::for_samples()
    };
    let images = config.batch * count.min(EPOCH);
    let config = Config {
        epochs: count.div_ceil(EPOCH),
        ..config
    };
    let source = Source::Set(Set {
        form: Form {
            shape: vec![SIDE, SIDE, 1],
            image: true,
        },
        x: pixels(images, seed),
        labels: Vec::new(),
        classes: 0,
    });
    let folder = tempfile::tempdir()
        .map_err(|error| Error::new(error, "the folder for temporary files", ""))?;
    let settings = run::Settings {
        out: folder.path(),
        trainer: "bench",
        config: run::to_toml(&config)?,
        seed,
        data: String::new(),
        resume: false,
        every: Duration::MAX,
    };
    let (mut run, _) = run::begin(&settings)?;
    let game = Game {
        source: &source,
        config: &config,
        seed,
    };
    let mut clock = Clock::start();
    gan::train(game, None, &mut run, None, &mut clock)?;
    Ok(clock.seconds())
}

/// Steps of a GAN's epoch here; less often than the epochs of a real run, so that little of the time is the log's.
const EPOCH: usize = 50;

/// When steps ended.
struct Clock(Vec<Instant>);

impl Clock {
    fn start() -> Clock {
        Clock(Vec::new())
    }

    fn lap(&mut self) {
        self.0.push(Instant::now());
    }

    /// Between one step's end and the next one's: the first step, with all that goes before it, does not count.
    fn seconds(&self) -> Vec<f64> {
        let pairs = self.0.windows(2);
        pairs.map(|w| (w[1] - w[0]).as_secs_f64()).collect()
    }
}

impl Watch for Clock {
    fn step(&mut self, _: &Stand) {
        self.lap();
    }

    fn epoch(
        &mut self,
        _: &Stand,
        _: &Graph,
    ) -> std::result::Result<Vec<(&'static str, f64)>, TrainError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_steps_are_timed_as_were_asked_for_less_the_first() {
        assert_eq!(classifier_steps(5, 1).unwrap().len(), 4);
        assert_eq!(gan_steps(Network::Mlp, 3, 1).unwrap().len(), 2);
    }
}
