//! Counting the instructions of a piece of work.

use foolproof::link::CALIBRATION_INSTRUCTIONS;

use crate::board::Counter;

/// Counts instructions: `round(ticks / ticks per instruction) - overhead`, where the overhead is
/// what counting nothing counts.
pub struct Meter<C> {
    counter: C,
    overhead: u64,
}

impl<C: Counter> Meter<C> {
    /// Measures the overhead of measuring.
    pub fn new(counter: C) -> Self {
        let mut meter = Meter {
            counter,
            overhead: 0,
        };
        meter.start();
        meter.overhead = meter.stop();
        meter
    }

    /// Starts counting from zero.
    #[inline(never)]
    pub fn start(&mut self) {
        self.counter.start();
    }

    /// Instructions since [`Meter::start`].
    #[inline(never)]
    pub fn stop(&mut self) -> u64 {
        let (ticks, instructions) = C::TICKS;
        let counted = self.counter.ticks() * instructions;
        ((counted + ticks / 2) / ticks).saturating_sub(self.overhead)
    }

    /// What is counted for a loop of [`CALIBRATION_INSTRUCTIONS`].
    pub fn calibrate(&mut self) -> u64 {
        self.start();
        let rounds = CALIBRATION_INSTRUCTIONS / 2;
        // SAFETY: a loop of two instructions that touches one register and the flags.
        unsafe {
            #[cfg(target_arch = "arm")]
            core::arch::asm!("2:", "subs {n}, {n}, #1", "bne 2b", n = inout(reg) rounds => _,
                options(nomem, nostack));
            #[cfg(target_arch = "riscv32")]
            core::arch::asm!("2:", "addi {n}, {n}, -1", "bnez {n}, 2b",
                n = inout(reg) rounds => _, options(nomem, nostack));
        }
        self.stop()
    }
}
