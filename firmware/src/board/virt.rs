//! QEMU's `virt` machine with a 32-bit RISC-V core: a 16550 UART and the core's own counters.

use embedded_hal::digital::{ErrorType as PinErrorType, OutputPin};
use embedded_io::{ErrorType, Read, Write};
use riscv::register::minstret;

use super::Counter;
use crate::mmio::Registers;

/// The board\'s name in `boards.toml`.
pub const NAME: &str = "virt";

/// The slot for a bundle: address and size in bytes.
pub const SLOT: (usize, usize) = (0x8040_0000, 0x0040_0000);
/// The longest frame that the serial line can receive, in bytes.
pub const FRAME: usize = 65536;
/// Memory for a session, in bytes.
pub const SESSION: usize = 0x180000;
/// Memory for a streamed model, in bytes.
pub const MODEL: usize = 0x100000;

const UART: usize = 0x1000_0000;
/// The UART's line at the platform-level interrupt controller (PLIC).
const UART_INTERRUPT: usize = 10;
const PLIC: usize = 0x0c00_0000;
/// The PLIC's registers for hart 0 in machine mode, relative to [`PLIC`].
const PLIC_ENABLE: usize = 0x2000;
const PLIC_CONTEXT: usize = 0x20_0000;
/// Within the context: the claim register.
const CLAIM: usize = 4;

/// The board's devices.
pub struct Board {
    /// The serial line to the host.
    pub serial: Uart,
    /// The light.
    pub led: NoLed,
    /// The instruction counter.
    pub counter: Retired,
}

impl Board {
    /// Switches the devices on.
    pub fn take() -> Self {
        Board {
            serial: Uart::new(),
            led: NoLed,
            counter: Retired { start: 0 },
        }
    }
}

/// The serial line; its registers are bytes. Reading sleeps until a byte arrives.
pub struct Uart {
    interrupts: Registers,
}

const DATA: usize = 0;
const INTERRUPT_ENABLE: usize = 1;
const FIFO: usize = 2;
const LINE_STATUS: usize = 5;
const RECEIVED: u8 = 0x01;
const CAN_SEND: u8 = 0x20;
const SENT: u8 = 0x40;

impl Uart {
    fn new() -> Self {
        // SAFETY: the addresses of the machine's PLIC, which never writes to memory.
        let (priorities, enable, context) = unsafe {
            (
                Registers::at(PLIC),
                Registers::at(PLIC + PLIC_ENABLE),
                Registers::at(PLIC + PLIC_CONTEXT),
            )
        };
        priorities.write(4 * UART_INTERRUPT, 1);
        enable.write(0, 1 << UART_INTERRUPT);
        context.write(0, 0);
        // Interrupts only wake the core: `mstatus.MIE` stays off and no handler runs.
        // SAFETY: as said, no handler can break a critical section.
        unsafe { riscv::register::mie::set_mext() };
        let mut uart = Uart {
            interrupts: context,
        };
        uart.put(FIFO, 1);
        uart.put(INTERRUPT_ENABLE, 1);
        uart
    }

    fn get(&self, offset: usize) -> u8 {
        // SAFETY: a register of the machine's UART, which never writes to memory.
        unsafe { core::ptr::with_exposed_provenance::<u8>(UART + offset).read_volatile() }
    }

    fn put(&mut self, offset: usize, value: u8) {
        // SAFETY: a register of the machine's UART, which never writes to memory.
        unsafe { core::ptr::with_exposed_provenance_mut::<u8>(UART + offset).write_volatile(value) }
    }
}

impl ErrorType for Uart {
    type Error = core::convert::Infallible;
}

impl Read for Uart {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
        if bytes.is_empty() {
            return Ok(0);
        }
        while self.get(LINE_STATUS) & RECEIVED == 0 {
            riscv::asm::wfi();
            let claimed = self.interrupts.read(CLAIM);
            self.interrupts.write(CLAIM, claimed);
        }
        let mut count = 0;
        while count < bytes.len() && self.get(LINE_STATUS) & RECEIVED != 0 {
            bytes[count] = self.get(DATA);
            count += 1;
        }
        Ok(count)
    }
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        for &byte in bytes {
            while self.get(LINE_STATUS) & CAN_SEND == 0 {}
            self.put(DATA, byte);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        while self.get(LINE_STATUS) & SENT == 0 {}
        Ok(())
    }
}

/// The machine has no light.
pub struct NoLed;

impl PinErrorType for NoLed {
    type Error = core::convert::Infallible;
}

impl OutputPin for NoLed {
    fn set_low(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// The core's counter of retired instructions, 64 bits.
pub struct Retired {
    start: u64,
}

impl Counter for Retired {
    const TICKS: (u64, u64) = (1, 1);

    fn start(&mut self) {
        self.start = minstret::read64();
    }

    fn ticks(&mut self) -> u64 {
        minstret::read64() - self.start
    }
}
