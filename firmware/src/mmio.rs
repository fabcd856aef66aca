//! Device registers.

/// The block of 32-bit registers of one device.
#[derive(Clone, Copy)]
pub struct Registers {
    base: usize,
}

impl Registers {
    /// The device at address `base`.
    ///
    /// # Safety
    /// `base` must be the address of a device whose registers below `base + 0x1000` may be read and
    /// written without harm to memory safety (no DMA into memory that Rust owns).
    pub const unsafe fn at(base: usize) -> Self {
        Registers { base }
    }

    /// The register `offset` bytes into the block.
    pub fn read(self, offset: usize) -> u32 {
        debug_assert!(offset < 0x1000 && offset.is_multiple_of(4));
        // SAFETY: a register of the device that `at` was promised.
        unsafe { core::ptr::with_exposed_provenance::<u32>(self.base + offset).read_volatile() }
    }

    /// Writes the register `offset` bytes into the block.
    pub fn write(self, offset: usize, value: u32) {
        debug_assert!(offset < 0x1000 && offset.is_multiple_of(4));
        // SAFETY: a register of the device that `at` was promised.
        unsafe {
            core::ptr::with_exposed_provenance_mut::<u32>(self.base + offset).write_volatile(value)
        }
    }
}
