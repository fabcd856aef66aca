//! How much stack was used: it is painted at the start, and what lost its paint was in use.

use core::ptr::{addr_of, with_exposed_provenance, with_exposed_provenance_mut};

const PAINT: u32 = 0xa5c3_5a3c;
/// Not painted: the frames of the painting function itself and what it calls.
const MARGIN: usize = 64;

unsafe extern "C" {
    static __sheap: u32;
    static _stack_start: u32;
}

/// The lowest address of the stack: statics end here.
fn low() -> usize {
    addr_of!(__sheap).addr().next_multiple_of(4)
}

/// The address just above the stack.
fn high() -> usize {
    addr_of!(_stack_start).addr()
}

/// Paints the free part of the stack; to be called once, at the start.
#[inline(never)]
pub fn paint() {
    let here: usize;
    // SAFETY: copies the stack pointer.
    unsafe {
        #[cfg(target_arch = "arm")]
        core::arch::asm!("mov {}, sp", out(reg) here, options(nomem, nostack, preserves_flags));
        #[cfg(target_arch = "riscv32")]
        core::arch::asm!("mv {}, sp", out(reg) here, options(nomem, nostack, preserves_flags));
    }
    for address in (low()..here.saturating_sub(MARGIN)).step_by(4) {
        // SAFETY: between the statics and the stack pointer no Rust object lies.
        unsafe { with_exposed_provenance_mut::<u32>(address).write_volatile(PAINT) }
    }
}

/// The most stack that was in use since [`paint`], in bytes.
pub fn used() -> usize {
    (low()..high())
        .step_by(4)
        // SAFETY: aligned words of RAM; frames that change meanwhile lie above the first hit.
        .find(
            |&address| unsafe { with_exposed_provenance::<u32>(address).read_volatile() } != PAINT,
        )
        .map_or(0, |lowest| high() - lowest)
}

/// The stack's size in bytes: what the statics leave.
pub fn size() -> usize {
    high() - low()
}

/// Whether the stack grew into the statics, whose values can then not be trusted.
pub fn overflowed() -> bool {
    (low()..low() + 16)
        .step_by(4)
        // SAFETY: as in `used`.
        .any(|address| unsafe { with_exposed_provenance::<u32>(address).read_volatile() } != PAINT)
}
