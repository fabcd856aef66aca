//! Tests run the same layer with and without 512-bit loops, and see which of them ran, and whether vector loops did at all. A thread has
//! counts of its own: others go on as they like.

extern crate std;
use super::simd::Found;
use core::cell::Cell;

std::thread_local! {
    static LEFT_OUT: Cell<bool> = const { Cell::new(false) };
    static RUNS: Cell<usize> = const { Cell::new(0) };
    static OF_SIMD: Cell<usize> = const { Cell::new(0) };
}

/// What this thread may use of what the CPU has.
pub(super) fn allowed(found: Found) -> Found {
    let may = !LEFT_OUT.get();
    Found {
        wide: found.wide && may,
        wide_products: found.wide_products && may,
        ..found
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) fn ran() {
    RUNS.set(RUNS.get() + 1);
}

pub(super) fn ran_simd() {
    OF_SIMD.set(OF_SIMD.get() + 1);
}

/// How many functions of [`Simd`](super::Simd) `run` went through.
pub(super) fn counted_simd(run: impl FnOnce()) -> usize {
    let before = OF_SIMD.get();
    run();
    OF_SIMD.get() - before
}

/// How many 512-bit loops `run` went through.
pub(super) fn counted(run: impl FnOnce()) -> usize {
    let before = RUNS.get();
    run();
    RUNS.get() - before
}

/// What `run` returns without 512-bit loops.
pub(super) fn without<T>(run: impl FnOnce() -> T) -> T {
    LEFT_OUT.set(true);
    let before = RUNS.get();
    let result = run();
    LEFT_OUT.set(false);
    assert_eq!(RUNS.get(), before, "512-bit loops ran that were left out");
    result
}
