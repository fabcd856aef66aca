//! What the firmware's programs share: the board, the log, counting instructions, watching the stack.
#![no_std]

pub mod board;
pub mod log;
pub mod meter;
pub mod mmio;
pub mod stack;
