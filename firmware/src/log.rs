//! defmt's log and the last words: everything leaves the chip by semihosting.
//!
//! A log line is collected in a small buffer, since each semihosting call stops the core.

use core::cell::UnsafeCell;
use core::panic::PanicInfo;

use critical_section::RestoreState;
use semihosting::io::{Stdout, Write};
use semihosting::process::exit;

/// The exit code of a panic or a fault.
const CRASHED: i32 = 101;
const CAPACITY: usize = 64;

struct State {
    output: Option<Stdout>,
    encoder: defmt::Encoder,
    restore: RestoreState,
    taken: bool,
    buffer: [u8; CAPACITY],
    filled: usize,
}

struct Shared(UnsafeCell<State>);

// SAFETY: `acquire` enters a critical section on a single core and refuses to be entered twice.
unsafe impl Sync for Shared {}

static STATE: Shared = Shared(UnsafeCell::new(State {
    output: None,
    encoder: defmt::Encoder::new(),
    restore: RestoreState::invalid(),
    taken: false,
    buffer: [0; CAPACITY],
    filled: 0,
}));

impl State {
    fn put(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.filled == CAPACITY {
                self.flush();
            }
            self.buffer[self.filled % CAPACITY] = byte;
            self.filled += 1;
        }
    }

    fn flush(&mut self) {
        if self.output.is_none() {
            self.output = semihosting::io::stdout().ok();
        }
        let text = &self.buffer[..self.filled.min(CAPACITY)];
        if let Some(output) = &mut self.output {
            // Where a log line cannot be written there is nowhere to say so.
            let _ = output.write_all(text);
        }
        self.filled = 0;
    }
}

#[defmt::global_logger]
struct Logger;

// SAFETY: between `acquire` and `release` the critical section gives exclusive access to STATE.
unsafe impl defmt::Logger for Logger {
    fn acquire() {
        // SAFETY: `release` restores the state saved here.
        let restore = unsafe { critical_section::acquire() };
        // SAFETY: exclusive, as said above.
        let state = unsafe { &mut *STATE.0.get() };
        if state.taken {
            // Logging while logging: a bug that defmt cannot report.
            exit(CRASHED);
        }
        state.taken = true;
        state.restore = restore;
        state.encoder.start_frame(write);
    }

    unsafe fn flush() {
        // SAFETY: exclusive, as said above.
        unsafe { &mut *STATE.0.get() }.flush();
    }

    unsafe fn release() {
        // SAFETY: exclusive, as said above.
        let state = unsafe { &mut *STATE.0.get() };
        state.encoder.end_frame(write);
        state.flush();
        state.taken = false;
        let restore = state.restore;
        // SAFETY: saved by `acquire`.
        unsafe { critical_section::release(restore) };
    }

    unsafe fn write(bytes: &[u8]) {
        // SAFETY: exclusive, as said above.
        unsafe { &mut *STATE.0.get() }.encoder.write(bytes, write);
    }
}

fn write(bytes: &[u8]) {
    // SAFETY: called by the encoder only, between `acquire` and `release`. The encoder is a field
    // beside `buffer`; a raw pointer keeps the two borrows apart.
    unsafe { (*STATE.0.get()).put(bytes) }
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    defmt::error!("panic: {}", defmt::Display2Format(info));
    exit(CRASHED)
}

#[cfg(target_arch = "arm")]
#[cortex_m_rt::exception]
unsafe fn HardFault(frame: &cortex_m_rt::ExceptionFrame) -> ! {
    defmt::error!("hard fault at {=u32:#x}", frame.pc());
    exit(CRASHED)
}

#[cfg(target_arch = "arm")]
#[cortex_m_rt::exception]
unsafe fn DefaultHandler(interrupt: i16) -> ! {
    defmt::error!("unexpected interrupt {}", interrupt);
    exit(CRASHED)
}

#[cfg(target_arch = "riscv32")]
#[unsafe(export_name = "ExceptionHandler")]
fn exception(_: &riscv_rt::TrapFrame) -> ! {
    defmt::error!(
        "exception {=usize} at {=usize:#x}",
        riscv::register::mcause::read().code(),
        riscv::register::mepc::read()
    );
    exit(CRASHED)
}
