//! Arm MPS2: AN385 (Cortex-M3), AN386 (Cortex-M4F), AN500 (Cortex-M7), AN505 (Cortex-M33, secure).

use super::cmsdk::{Interrupt, Led, Uart};
use super::{Counter, ticks_per_instruction};
use crate::mmio::Registers;

/// The board\'s name in `boards.toml`.
#[cfg(feature = "mps2-an385")]
pub const NAME: &str = "mps2-an385";
/// The board\'s name in `boards.toml`.
#[cfg(feature = "mps2-an386")]
pub const NAME: &str = "mps2-an386";
/// The board\'s name in `boards.toml`.
#[cfg(feature = "mps2-an500")]
pub const NAME: &str = "mps2-an500";
/// The board\'s name in `boards.toml`.
#[cfg(feature = "mps2-an505")]
pub const NAME: &str = "mps2-an505";

/// The slot for a bundle: address and size in bytes.
#[cfg(not(feature = "mps2-an505"))]
pub const SLOT: (usize, usize) = (0x0020_0000, 0x0020_0000);
/// The slot for a bundle: address and size in bytes.
#[cfg(feature = "mps2-an505")]
pub const SLOT: (usize, usize) = (0x1020_0000, 0x0020_0000);
/// The longest frame that the serial line can receive, in bytes.
pub const FRAME: usize = 65536;
/// Memory for a session, in bytes.
pub const SESSION: usize = 0x180000;
/// Memory for a streamed model, in bytes.
pub const MODEL: usize = 0x100000;

/// Where the devices are.
#[cfg(not(feature = "mps2-an505"))]
mod map {
    pub const UART: usize = 0x4000_4000;
    pub const UART_RX: u16 = 0;
    pub const TIMER: usize = 0x4000_0000;
    pub const FPGA: usize = 0x4002_8000;
    pub const CLOCK: u64 = 25_000_000;
}
/// Where the devices are: secure aliases.
#[cfg(feature = "mps2-an505")]
mod map {
    pub const UART: usize = 0x5020_0000;
    pub const UART_RX: u16 = 32;
    pub const TIMER: usize = 0x5000_0000;
    pub const FPGA: usize = 0x5030_2000;
    pub const CLOCK: u64 = 20_000_000;
}

/// The board's devices.
pub struct Board {
    /// The serial line to the host.
    pub serial: Uart,
    /// The light.
    pub led: Led,
    /// The instruction counter.
    pub counter: Timer,
}

impl Board {
    /// Switches the devices on.
    pub fn take() -> Self {
        // SAFETY: the addresses of the board's manual; none of these devices writes to memory.
        let (uart, timer, fpga) = unsafe {
            (
                Registers::at(map::UART),
                Registers::at(map::TIMER),
                Registers::at(map::FPGA),
            )
        };
        Board {
            serial: Uart::new(uart, Interrupt(map::UART_RX), (map::CLOCK / 115_200) as u32),
            led: Led::new(fpga),
            counter: Timer::new(timer),
        }
    }
}

const CONTROL: usize = 0x0;
const CONTROL_ON: u32 = 1;
const CONTROL_INTERRUPT: u32 = 8;
const VALUE: usize = 0x4;
const RELOAD: usize = 0x8;
const INTERRUPT: usize = 0xc;

/// TIMER0 of the CMSDK, 32 bits, counting down at the board's clock.
pub struct Timer {
    registers: Registers,
}

impl Timer {
    fn new(registers: Registers) -> Self {
        registers.write(RELOAD, u32::MAX);
        Timer { registers }
    }
}

impl Counter for Timer {
    const TICKS: (u64, u64) = ticks_per_instruction(map::CLOCK);

    fn start(&mut self) {
        self.registers.write(CONTROL, 0);
        self.registers.write(INTERRUPT, 1);
        self.registers.write(VALUE, u32::MAX);
        self.registers
            .write(CONTROL, CONTROL_ON | CONTROL_INTERRUPT);
    }

    fn ticks(&mut self) -> u64 {
        let value = self.registers.read(VALUE);
        let wrapped = self.registers.read(INTERRUPT) & 1;
        u64::from(wrapped) << 32 | u64::from(u32::MAX - value)
    }
}
