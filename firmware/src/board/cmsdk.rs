//! Devices of Arm's Cortex-M System Design Kit (ARM DDI 0479), which all MPS boards have.

use embedded_hal::digital::{ErrorType as PinErrorType, OutputPin};
use embedded_io::{ErrorType, Read, Write};

use crate::mmio::Registers;

const DATA: usize = 0x0;
const STATE: usize = 0x4;
const STATE_TX_FULL: u32 = 1;
const STATE_RX_FULL: u32 = 2;
const CONTROL: usize = 0x8;
/// Transmitter and receiver on, interrupt on reception.
const CONTROL_ON: u32 = 0b1011;
const INTERRUPTS: usize = 0xc;
const INTERRUPT_RX: u32 = 2;
const BAUD_DIVIDER: usize = 0x10;

/// A serial line; reading sleeps until a byte arrives.
pub struct Uart {
    registers: Registers,
    interrupt: Interrupt,
}

/// The number of an interrupt line.
#[derive(Clone, Copy)]
pub struct Interrupt(pub u16);

// SAFETY: the boards' modules pass the numbers of their manuals.
unsafe impl cortex_m::interrupt::InterruptNumber for Interrupt {
    fn number(self) -> u16 {
        self.0
    }
}

impl Uart {
    /// Switches the UART at `registers` on; its reception raises `interrupt`.
    pub fn new(registers: Registers, interrupt: Interrupt, divider: u32) -> Self {
        registers.write(BAUD_DIVIDER, divider);
        registers.write(CONTROL, CONTROL_ON);
        // Interrupts only wake the core: no handler runs.
        cortex_m::interrupt::disable();
        // SAFETY: with interrupts disabled no handler can break a critical section.
        unsafe { cortex_m::peripheral::NVIC::unmask(interrupt) };
        Uart {
            registers,
            interrupt,
        }
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
        while self.registers.read(STATE) & STATE_RX_FULL == 0 {
            cortex_m::asm::wfi();
        }
        *first = self.registers.read(DATA) as u8;
        self.registers.write(INTERRUPTS, INTERRUPT_RX);
        cortex_m::peripheral::NVIC::unpend(self.interrupt);
        Ok(1)
    }
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        for &byte in bytes {
            while self.registers.read(STATE) & STATE_TX_FULL != 0 {}
            self.registers.write(DATA, byte.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// The first light of the board's FPGA system controller.
pub struct Led {
    registers: Registers,
}

impl Led {
    /// The light of the controller at `registers`.
    pub fn new(registers: Registers) -> Self {
        Led { registers }
    }
}

impl PinErrorType for Led {
    type Error = core::convert::Infallible;
}

impl OutputPin for Led {
    fn set_low(&mut self) -> Result<(), Self::Error> {
        let lights = self.registers.read(0);
        self.registers.write(0, lights & !1);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Self::Error> {
        let lights = self.registers.read(0);
        self.registers.write(0, lights | 1);
        Ok(())
    }
}
