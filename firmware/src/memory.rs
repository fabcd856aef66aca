//! The large buffers, each handed out once.

use core::cell::UnsafeCell;

use critical_section::with;

use foolproof_firmware::board;

/// A buffer with the alignment that sessions and models need.
#[repr(align(16))]
struct Buffer<const N: usize> {
    bytes: UnsafeCell<[u8; N]>,
}

// SAFETY: `take` gives the only reference away, once.
unsafe impl<const N: usize> Sync for Buffer<N> {}

impl<const N: usize> Buffer<N> {
    const fn new() -> Self {
        Buffer {
            bytes: UnsafeCell::new([0; N]),
        }
    }
}

static FRAME: Buffer<{ board::FRAME }> = Buffer::new();
static SESSION: Buffer<{ board::SESSION }> = Buffer::new();
static MODEL: Buffer<{ board::MODEL }> = Buffer::new();

/// The firmware's memory.
pub struct Memory {
    /// For the frames that arrive.
    pub frame: &'static mut [u8],
    /// For a session.
    pub session: &'static mut [u8],
    /// For a streamed model.
    pub model: &'static mut [u8],
    /// The slot: flash, or memory that nothing else uses.
    pub slot: &'static [u8],
}

impl Memory {
    /// The buffers, the first time; `None` after that.
    pub fn take() -> Option<Self> {
        static TAKEN: critical_section::Mutex<core::cell::Cell<bool>> =
            critical_section::Mutex::new(core::cell::Cell::new(false));
        if with(|section| TAKEN.borrow(section).replace(true)) {
            return None;
        }
        let (address, length) = board::SLOT;
        // SAFETY: `TAKEN` lets this run once, so the references are the only ones. The slot is
        // memory that the linker script leaves alone and that nothing writes while this runs.
        unsafe {
            Some(Memory {
                frame: &mut *FRAME.bytes.get(),
                session: &mut *SESSION.bytes.get(),
                model: &mut *MODEL.bytes.get(),
                slot: core::slice::from_raw_parts(
                    core::ptr::with_exposed_provenance(address),
                    length,
                ),
            })
        }
    }
}
