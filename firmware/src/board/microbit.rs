//! BBC micro:bit (version 1): nRF51822, Cortex-M0, 256 KB of flash, 16 KB of RAM.

use embedded_hal::digital::{ErrorType as PinErrorType, OutputPin};
use embedded_io::{ErrorType, Read, Write};

use super::{Counter, ticks_per_instruction};
use crate::mmio::Registers;

/// The board\'s name in `boards.toml`.
pub const NAME: &str = "microbit";

/// The slot for a bundle: address and size in bytes.
pub const SLOT: (usize, usize) = (0x0002_c000, 0x0001_4000);
/// The longest frame that the serial line can receive, in bytes.
pub const FRAME: usize = 1024;
/// Memory for a session, in bytes.
pub const SESSION: usize = 9216;
/// Memory for a streamed model, in bytes.
pub const MODEL: usize = 0;

const UART: usize = 0x4000_2000;
const TIMER: usize = 0x4000_8000;
const GPIO: usize = 0x5000_0000;
/// The timers' clock in Hz.
const CLOCK: u64 = 16_000_000;

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
        // SAFETY: the addresses of the chip's manual; none of these devices writes to memory.
        let (uart, timer, gpio) = unsafe {
            (
                Registers::at(UART),
                Registers::at(TIMER),
                Registers::at(GPIO),
            )
        };
        Board {
            serial: Uart::new(uart),
            led: Led::new(gpio),
            counter: Timer::new(timer),
        }
    }
}

/// The serial line: pins 24 (out) and 25 (in), 115,200 baud. Reading sleeps until a byte arrives.
pub struct Uart {
    registers: Registers,
}

const START_RX: usize = 0x000;
const START_TX: usize = 0x008;
const RX_READY: usize = 0x108;
const TX_READY: usize = 0x11c;
const INTERRUPT_SET: usize = 0x304;
const ENABLE: usize = 0x500;
const PIN_TX: usize = 0x50c;
const PIN_RX: usize = 0x514;
const RX: usize = 0x518;
const TX: usize = 0x51c;
const BAUD: usize = 0x524;

/// The UART's interrupt line.
#[derive(Clone, Copy)]
struct UartInterrupt;

// SAFETY: the number of the chip's manual.
unsafe impl cortex_m::interrupt::InterruptNumber for UartInterrupt {
    fn number(self) -> u16 {
        2
    }
}

impl Uart {
    fn new(registers: Registers) -> Self {
        registers.write(PIN_TX, 24);
        registers.write(PIN_RX, 25);
        registers.write(BAUD, 0x01d7_e000);
        registers.write(ENABLE, 4);
        registers.write(RX_READY, 0);
        registers.write(TX_READY, 0);
        registers.write(START_RX, 1);
        registers.write(START_TX, 1);
        registers.write(INTERRUPT_SET, 1 << 2);
        // Interrupts only wake the core: no handler runs.
        cortex_m::interrupt::disable();
        // SAFETY: with interrupts disabled no handler can break a critical section.
        unsafe { cortex_m::peripheral::NVIC::unmask(UartInterrupt) };
        Uart { registers }
    }
}

impl ErrorType for Uart {
    type Error = core::convert::Infallible;
}

impl Read for Uart {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
        let Some(first) = bytes.first_mut() else {
            return Ok(0);
        };
        while self.registers.read(RX_READY) == 0 {
            cortex_m::asm::wfi();
            cortex_m::peripheral::NVIC::unpend(UartInterrupt);
        }
        self.registers.write(RX_READY, 0);
        *first = self.registers.read(RX) as u8;
        Ok(1)
    }
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        for &byte in bytes {
            self.registers.write(TX_READY, 0);
            self.registers.write(TX, byte.into());
            while self.registers.read(TX_READY) == 0 {}
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// The light in the top left corner: row on pin 13, column on pin 4 (low: on).
pub struct Led {
    registers: Registers,
}

const OUT_SET: usize = 0x508;
const OUT_CLEAR: usize = 0x50c;
const DIRECTION_SET: usize = 0x518;
const ROW: u32 = 1 << 13;
const COLUMN: u32 = 1 << 4;

impl Led {
    fn new(registers: Registers) -> Self {
        registers.write(OUT_CLEAR, ROW | COLUMN);
        registers.write(DIRECTION_SET, ROW | COLUMN);
        Led { registers }
    }
}

impl PinErrorType for Led {
    type Error = core::convert::Infallible;
}

impl OutputPin for Led {
    fn set_low(&mut self) -> Result<(), Self::Error> {
        self.registers.write(OUT_CLEAR, ROW);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Self::Error> {
        self.registers.write(OUT_SET, ROW);
        Ok(())
    }
}

/// TIMER0, 32 bits, 16 MHz.
pub struct Timer {
    registers: Registers,
}

const TIMER_START: usize = 0x000;
const TIMER_CLEAR: usize = 0x00c;
const TIMER_CAPTURE: usize = 0x040;
const TIMER_BITS: usize = 0x508;
const TIMER_PRESCALER: usize = 0x510;
const TIMER_CAPTURED: usize = 0x540;

impl Timer {
    fn new(registers: Registers) -> Self {
        registers.write(TIMER_BITS, 3);
        registers.write(TIMER_PRESCALER, 0);
        registers.write(TIMER_START, 1);
        Timer { registers }
    }
}

impl Counter for Timer {
    const TICKS: (u64, u64) = ticks_per_instruction(CLOCK);

    fn start(&mut self) {
        self.registers.write(TIMER_CLEAR, 1);
    }

    fn ticks(&mut self) -> u64 {
        self.registers.write(TIMER_CAPTURE, 1);
        self.registers.read(TIMER_CAPTURED).into()
    }
}
