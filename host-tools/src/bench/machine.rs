//! What the machine can do at most, and what share of it a product of matrices reaches: the roofline of everything else.

use super::{Subject, measure, pool};
use crate::document::BenchRow;
use crate::error::{Error, Result};
use crate::lines::Lines;
use foolproof::kernels::{Activation, DenseF32, Kernels, dense_f32};
use rayon::prelude::*;
use std::convert::Infallible;
use std::hint::black_box;

/// f32 elements that each thread writes in a run of [`Work::Triad`]: twelve times as many bytes are touched, more than caches hold.
const ELEMENTS: usize = 8 << 20;
/// Rounds of [`Kernels::peak`] in a run: a millisecond or so.
const ROUNDS: usize = 500_000;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Fused multiply-adds in registers.
    Peak,
    /// A product of two square f32 matrices of so many rows, as a fully connected layer computes it: one thread.
    Gemm(usize),
    /// `a[i] = b[i] + scalar * c[i]` on arrays larger than the caches: STREAM's triad (McCalpin, "Memory bandwidth and machine balance
    /// in current high performance computers", 1995). The bytes are those of the two arrays read and the one written.
    Triad,
}

impl Work {
    /// All.
    pub const ALL: [Work; 5] = [
        Work::Peak,
        Work::Gemm(256),
        Work::Gemm(512),
        Work::Gemm(1024),
        Work::Triad,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Work::Peak => "peak-fma",
            Work::Gemm(256) => "gemm-256",
            Work::Gemm(512) => "gemm-512",
            Work::Gemm(_) => "gemm-1024",
            Work::Triad => "triad",
        }
    }

    /// One row; `None` for work of one thread on several, and for a peak that this CPU has not.
    ///
    /// # Errors
    /// The machine does not give the threads.
    pub fn row(self, threads: usize, seconds: f64) -> Result<Option<BenchRow>> {
        let kernels = match self {
            Work::Triad => "",
            _ => Kernels::detect().name(),
        };
        let (unit, amount, times) = match self {
            Work::Peak => match peak(threads, seconds)? {
                None => return Ok(None),
                Some((amount, times)) => ("flop", amount, times),
            },
            Work::Gemm(_) if threads > 1 => return Ok(None),
            Work::Gemm(n) => ("flop", 2.0 * (n as f64).powi(3), gemm(n, seconds)),
            Work::Triad => {
                let bytes = threads * 3 * size_of::<f32>() * ELEMENTS;
                ("bytes", bytes as f64, triad(threads, seconds)?)
            }
        };
        let subject = Subject {
            work: self.name(),
            kernels,
            batch: 1,
            threads,
            unit,
            amount,
        };
        Ok(subject.row(&times))
    }
}

fn threads_of(threads: usize) -> Result<rayon::ThreadPool> {
    pool(threads).map_err(|error| Error::new(error, "--threads", "fewer threads"))
}

/// Runs that cannot fail.
fn timed(seconds: f64, mut run: impl FnMut()) -> Vec<f64> {
    let times = measure(seconds, || {
        run();
        Ok::<(), Infallible>(())
    });
    match times {
        Ok(times) => times,
        Err(never) => match never {},
    }
}

/// Floating-point operations of a run, and the seconds of many; `None` where the CPU has no FMA that we know.
fn peak(threads: usize, seconds: f64) -> Result<Option<(f64, Vec<f64>)>> {
    let kernels = Kernels::detect();
    let Some(each) = kernels.peak(ROUNDS) else {
        return Ok(None);
    };
    let pool = threads_of(threads)?;
    let times = timed(seconds, || {
        pool.broadcast(|_| black_box(kernels.peak(black_box(ROUNDS))));
    });
    Ok(Some((2.0 * (threads * each) as f64, times)))
}

fn gemm(n: usize, seconds: f64) -> Vec<f64> {
    // as a session's tensors lie
    let matrix = |scale: usize| {
        let mut matrix = Lines::zeroed(n * n * size_of::<f32>());
        let elements = matrix.floats_mut().iter_mut().enumerate();
        elements.for_each(|(i, v)| *v = (i * scale % 17) as f32 / 17.0);
        matrix
    };
    let (mut x, mut w, mut y) = (matrix(3), matrix(5), matrix(0));
    let y = y.floats_mut();
    let bias = vec![0.0; n];
    let layer = DenseF32 {
        depth: n,
        x: x.floats_mut(),
        w: w.floats_mut(),
        bias: &bias,
        activation: Activation::None,
    };
    let kernels = Kernels::detect();
    timed(seconds, || {
        dense_f32(kernels, black_box(&layer), y);
        black_box(&mut *y);
    })
}

fn triad(threads: usize, seconds: f64) -> Result<Vec<f64>> {
    let pool = threads_of(threads)?;
    let mut arrays: Vec<[Vec<f32>; 3]> = pool.install(|| {
        (0..threads)
            .into_par_iter()
            .map(|_| [0.0, 1.0, 2.0].map(|value| vec![value; ELEMENTS]))
            .collect()
    });
    let scalar = black_box(3.0);
    Ok(timed(seconds, || {
        pool.install(|| {
            arrays.par_iter_mut().with_max_len(1).for_each(|[a, b, c]| {
                for ((a, b), c) in a.iter_mut().zip(b.iter()).zip(c.iter()) {
                    *a = b + scalar * c;
                }
                black_box(a);
            });
        });
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_matrices_count_their_operations_on_one_thread_only() {
        let row = Work::Gemm(256).row(1, 0.001).unwrap().unwrap();
        assert_eq!((row.amount, row.unit.as_str()), (33_554_432.0, "flop"));
        assert_eq!(Work::Gemm(256).row(2, 0.001).unwrap(), None);
    }

    #[test]
    fn twice_the_threads_do_twice_the_multiply_adds() {
        let rows = [1, 2].map(|threads| Work::Peak.row(threads, 0.001).unwrap());
        if let [Some(one), Some(two)] = rows {
            assert_eq!(two.amount, 2.0 * one.amount);
        }
    }
}
