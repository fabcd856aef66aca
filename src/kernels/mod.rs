//! Inner loops only. A kernel sees slices and numbers, never a model. `scalar` is the reference: it is
//! what runs on a chip without special instructions, and what every faster kernel is compared with.

pub mod scalar;

/// Which implementation of the inner loops runs. The one dispatch point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Kernels {
    /// Portable Rust: the same operations in the same order on every machine, so the same bits.
    Scalar,
}

impl Kernels {
    /// The fastest kernels that this machine can run.
    pub fn detect() -> Kernels {
        Kernels::Scalar
    }
}
