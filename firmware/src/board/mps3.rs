//! Arm MPS3 with AN547: Cortex-M55 in an SSE-300 subsystem, secure.

use super::cmsdk::{Interrupt, Led, Uart};
use super::{Counter, ticks_per_instruction};
use crate::mmio::Registers;

/// The board\'s name in `boards.toml`.
pub const NAME: &str = "mps3-an547";

/// The slot for a bundle: address and size in bytes.
pub const SLOT: (usize, usize) = (0x1100_0000, 0x0020_0000);
/// The longest frame that the serial line can receive, in bytes.
pub const FRAME: usize = 32768;
/// Memory for a session, in bytes.
pub const SESSION: usize = 0x40000;
/// Memory for a streamed model, in bytes.
pub const MODEL: usize = 0x20000;

const UART: usize = 0x5930_3000;
const UART_RX: u16 = 33;
const FPGA: usize = 0x5930_2000;
const COUNTER: usize = 0x5810_0000;
const CLOCK: u64 = 32_000_000;

/// The board's devices.
pub struct Board {
    /// The serial line to the host.
    pub serial: Uart,
    /// The light.
    pub led: Led,
    /// The instruction counter.
    pub counter: SystemCounter,
}

impl Board {
    /// Switches the devices on.
    pub fn take() -> Self {
        // SAFETY: the addresses of the board's manual; none of these devices writes to memory.
        let (uart, fpga, counter) = unsafe {
            (
                Registers::at(UART),
                Registers::at(FPGA),
                Registers::at(COUNTER),
            )
        };
        counter.write(0, 1);
        Board {
            serial: Uart::new(uart, Interrupt(UART_RX), (CLOCK / 115_200) as u32),
            led: Led::new(fpga),
            counter: SystemCounter {
                registers: counter,
                start: 0,
            },
        }
    }
}

/// The SSE-300's system counter, 64 bits.
pub struct SystemCounter {
    registers: Registers,
    start: u64,
}

impl SystemCounter {
    fn now(&self) -> u64 {
        loop {
            let high = self.registers.read(0xc);
            let low = self.registers.read(0x8);
            if self.registers.read(0xc) == high {
                return u64::from(high) << 32 | u64::from(low);
            }
        }
    }
}

impl Counter for SystemCounter {
    const TICKS: (u64, u64) = ticks_per_instruction(CLOCK);

    fn start(&mut self) {
        self.start = self.now();
    }

    fn ticks(&mut self) -> u64 {
        self.now() - self.start
    }
}
