//! Evaluates a quantized classifier on the chip: how often is it right, and can it be fooled?
//!
//! One program for every board. The payload (model, test vectors, attacks) lies in a fixed slot of
//! memory, so one build serves every model; `boards.toml` says where the slot is. With a
//! self-contained payload the chip prints its own verdict; otherwise it serves the host over a
//! serial line.
#![no_std]
#![no_main]

mod board;
mod log;
mod memory;
mod meter;
mod mmio;
mod server;
mod stack;

use semihosting::process::exit;

use crate::board::Board;
use crate::memory::Memory;
use crate::meter::Meter;
use crate::server::Server;

#[cfg_attr(target_arch = "arm", cortex_m_rt::entry)]
#[cfg_attr(target_arch = "riscv32", riscv_rt::entry)]
fn main() -> ! {
    stack::paint();
    let Some(memory) = Memory::take() else {
        defmt::panic!("the memory was taken before");
    };
    let board = Board::new();
    let meter = Meter::new(board.counter);
    let mut server = Server::new(board.serial, board.led, meter);
    server.run(memory);
    exit(0)
}
