//! The boards: each gives a serial line, a light, an instruction counter and its memory sizes.
//!
//! Addresses are those of the boards' manuals: Arm application notes AN382 to AN386, AN399, AN505
//! and AN547, Nordic's nRF51 Series Reference Manual, and QEMU's `virt` machine.

#[cfg(any(
    feature = "mps2-an385",
    feature = "mps2-an386",
    feature = "mps2-an500",
    feature = "mps2-an505",
    feature = "mps3-an547"
))]
mod cmsdk;
#[cfg(feature = "microbit")]
mod microbit;
#[cfg(any(
    feature = "mps2-an385",
    feature = "mps2-an386",
    feature = "mps2-an500",
    feature = "mps2-an505"
))]
mod mps2;
#[cfg(feature = "mps3-an547")]
mod mps3;
#[cfg(feature = "virt")]
mod virt;

#[cfg(feature = "microbit")]
pub use microbit::*;
#[cfg(any(
    feature = "mps2-an385",
    feature = "mps2-an386",
    feature = "mps2-an500",
    feature = "mps2-an505"
))]
pub use mps2::*;
#[cfg(feature = "mps3-an547")]
pub use mps3::*;
#[cfg(feature = "virt")]
pub use virt::*;

/// How many of the board features are on.
const CHOSEN: usize = cfg!(feature = "mps2-an385") as usize
    + cfg!(feature = "mps2-an386") as usize
    + cfg!(feature = "mps2-an500") as usize
    + cfg!(feature = "mps2-an505") as usize
    + cfg!(feature = "mps3-an547") as usize
    + cfg!(feature = "microbit") as usize
    + cfg!(feature = "virt") as usize;
const _: () = assert!(
    CHOSEN == 1,
    "choose exactly one board as a cargo feature; `cargo xtask boards` lists them"
);

/// A counter that advances with executed instructions, [`Meter`](crate::meter::Meter) makes
/// instructions of it.
///
/// Under QEMU's `-icount shift=7` each instruction takes 128 ns of the machine's time, so a timer
/// of `f` Hz advances `f * 128e-9` ticks per instruction. They are instructions and not cycles:
/// the emulator has no pipeline. On real hardware a timer gives time instead.
pub trait Counter {
    /// Ticks per instruction, as a fraction.
    const TICKS: (u64, u64);
    /// Starts counting from zero.
    fn start(&mut self);
    /// Ticks since [`Counter::start`].
    fn ticks(&mut self) -> u64;
}

/// Nanoseconds of the machine's time per instruction: 2^7, as `icount` in `boards.toml` has it.
#[cfg(not(feature = "virt"))]
const NANOSECONDS: u64 = 1 << 7;

/// The ticks per instruction of a timer of `clock` Hz.
#[cfg(not(feature = "virt"))]
const fn ticks_per_instruction(clock: u64) -> (u64, u64) {
    (clock / 1000 * NANOSECONDS, 1_000_000)
}
