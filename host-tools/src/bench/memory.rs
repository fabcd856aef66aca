//! How fast memory is: a ceiling for work that reads much and computes little.

use super::{Subject, measure, pool};
use crate::document::BenchRow;
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::hint::black_box;

/// f32 elements that each thread writes in a run: twelve times as many bytes are touched, more than caches hold.
const ELEMENTS: usize = 8 << 20;

/// `a[i] = b[i] + scalar * c[i]` on arrays larger than the caches: STREAM's triad (McCalpin, "Memory bandwidth and machine balance
/// in current high performance computers", 1995). The bytes are those of the two arrays read and the one written.
///
/// # Errors
/// The machine does not give the threads.
pub fn triad(threads: usize, seconds: f64) -> Result<Option<BenchRow>> {
    let pool = pool(threads).map_err(|error| Error::new(error, "--threads", "fewer threads"))?;
    let mut arrays: Vec<[Vec<f32>; 3]> = pool.install(|| {
        (0..threads)
            .into_par_iter()
            .map(|_| [0.0, 1.0, 2.0].map(|value| vec![value; ELEMENTS]))
            .collect()
    });
    let scalar = black_box(3.0);
    let times = measure(seconds, || {
        pool.install(|| {
            arrays.par_iter_mut().with_max_len(1).for_each(|[a, b, c]| {
                for ((a, b), c) in a.iter_mut().zip(b.iter()).zip(c.iter()) {
                    *a = b + scalar * c;
                }
                black_box(a);
            });
        });
        Ok::<(), Error>(())
    })?;
    let subject = Subject {
        work: "triad",
        kernels: "",
        batch: 1,
        threads,
        unit: "bytes",
        amount: (threads * 3 * 4 * ELEMENTS) as f64,
    };
    Ok(subject.row(&times))
}
