//! Evaluates a quantized classifier on the chip: how often is it right, and can it be fooled?
//!
//! One program for every board. The payload (model, test vectors, attacks) lies in a fixed slot of
//! memory, so one build serves every model; `boards.toml` says where the slot is. With a
//! self-contained payload the chip prints its own verdict; otherwise it serves the host over a
//! serial line. The exit code is 0 when all went well, 1 when the evaluation could not be done,
//! 101 after a panic or a fault.
#![no_std]
#![no_main]

mod evaluator;
mod memory;
mod server;
mod standalone;

use foolproof::bundle::Bundle;
use foolproof_firmware::board::Board;
use foolproof_firmware::meter::Meter;
use foolproof_firmware::stack;
use semihosting::process::exit;

use crate::memory::Memory;

#[cfg_attr(target_arch = "arm", cortex_m_rt::entry)]
#[cfg_attr(target_arch = "riscv32", riscv_rt::entry)]
fn main() -> ! {
    stack::paint();
    let Some(memory) = Memory::take() else {
        defmt::panic!("the memory was taken before");
    };
    let board = Board::take();
    let meter = Meter::new(board.counter);
    match Bundle::from_bytes(memory.slot) {
        Ok(bundle) if bundle.is_self_contained() => {
            match standalone::evaluate(&bundle, memory.session, meter, board.led) {
                Ok(()) => exit(0),
                Err(fault) => {
                    defmt::error!("{}", defmt::Display2Format(&fault));
                    exit(1)
                }
            }
        }
        _ => {
            server::serve(board.serial, board.led, meter, memory);
            exit(0)
        }
    }
}
