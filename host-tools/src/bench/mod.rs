//! How fast: the time that a model's runs, gradients and attacks take, and that training takes.
//!
//! Every figure is a distribution over many runs of the same work. Machines are noisy and differ: compare figures of one run of the
//! command, or put them beside another program's, measured in turns with these (`tests/oracle/bench_peers.py`).

pub mod machine;
pub mod model;
pub mod training;

use crate::document::{BenchRow, summary};
use std::time::{Duration, Instant};

/// Runs that are measured at least, unless they take [`PATIENCE`] times as long as a row should.
const LEAST_RUNS: usize = 3;
/// How many times longer than wanted a row may take for the sake of [`LEAST_RUNS`].
const PATIENCE: f64 = 4.0;
/// Threads that meet after every run do so this rarely: work of one run, where it would be less.
const LEAST_TOGETHER: f64 = 0.005;

/// What is measured in one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// The work: `infer`, `pgd-40`.
    pub work: &'static str,
    /// Which inner loops run, by name; empty where that is no question.
    pub kernels: &'static str,
    /// Samples in one call of the engine.
    pub batch: usize,
    /// Threads.
    pub threads: usize,
    /// What is counted.
    pub unit: &'static str,
    /// How many of them one run does.
    pub amount: f64,
}

impl Subject {
    /// A row of the document.
    pub fn row(self, seconds: &[f64]) -> Option<BenchRow> {
        let spread = summary::quantiles(seconds.iter().copied())?;
        Some(BenchRow {
            work: self.work.into(),
            kernels: self.kernels.into(),
            batch: self.batch,
            threads: self.threads,
            unit: self.unit.into(),
            amount: self.amount,
            runs: seconds.len(),
            seconds: spread,
            per_second: self.amount / spread.median.max(f64::MIN_POSITIVE),
        })
    }
}

/// Seconds that each of many runs took, for about `seconds` in all, after one run that does not count.
///
/// # Errors
/// The work's.
pub fn measure<E>(seconds: f64, mut run: impl FnMut() -> Result<(), E>) -> Result<Vec<f64>, E> {
    run()?;
    let (start, mut times) = (Instant::now(), Vec::new());
    loop {
        let begun = Instant::now();
        run()?;
        times.push(begun.elapsed().as_secs_f64());
        if is_enough(times.len(), start.elapsed().as_secs_f64(), seconds) {
            return Ok(times);
        }
    }
}

/// Whether to stop after so many runs that took `spent` seconds where `seconds` were wanted.
fn is_enough(runs: usize, spent: f64, seconds: f64) -> bool {
    spent >= seconds && (runs >= LEAST_RUNS || spent >= PATIENCE * seconds)
}

/// How often a run should repeat work that takes `once`, so that `threads` threads spend little of it on meeting.
fn repeats(threads: usize, once: Duration) -> usize {
    match threads {
        1 => 1,
        _ => (LEAST_TOGETHER / once.as_secs_f64().max(1e-9))
            .ceil()
            .clamp(1.0, 1e6) as usize,
    }
}

/// A pool of so many threads.
///
/// # Errors
/// The machine does not give them.
pub fn pool(threads: usize) -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_work_is_measured_often_and_long_work_at_least_thrice_unless_it_is_very_long() {
        for (runs, spent, enough) in [
            (500, 0.9, false),
            (1000, 1.0, true),
            (2, 2.0, false),
            (3, 2.0, true),
            (1, 4.0, true),
        ] {
            assert_eq!(is_enough(runs, spent, 1.0), enough, "{runs} runs");
        }
    }

    #[test]
    fn a_failed_run_ends_the_measurement() {
        let mut runs = 0;
        let failed = measure(1.0, || {
            runs += 1;
            if runs < 3 { Ok(()) } else { Err("third") }
        });
        assert_eq!(failed, Err("third"));
    }

    #[test]
    fn a_row_counts_what_the_median_run_does() {
        let subject = Subject {
            work: "infer",
            kernels: "scalar",
            batch: 4,
            threads: 2,
            unit: "images",
            amount: 8.0,
        };
        let row = subject.clone().row(&[0.5, 2.0, 1.0]).unwrap();
        assert_eq!((row.runs, row.per_second), (3, 8.0));
        assert_eq!((row.seconds.least, row.seconds.most), (0.5, 2.0));
        assert!(subject.row(&[]).is_none());
    }
}
