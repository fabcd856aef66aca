//! Runs one model once, and links only what that model needs: `cargo xtask flash` names its operators as features. The model's image and
//! an input are compiled in, each in a section of its own. It prints instructions, the deepest use of the stack, the label and
//! the output's bytes in hexadecimal.
#![no_std]
#![no_main]

use core::cell::UnsafeCell;

use foolproof::memory::Mode;
use foolproof::model::{Model, required_buffer};
use foolproof::session::{Buffer, Session};
use foolproof::tensor::Data;
use foolproof_firmware::board::Board;
use foolproof_firmware::meter::Meter;
use foolproof_firmware::stack;
use semihosting::process::exit;
use semihosting::{print, println};
use zerocopy::IntoBytes;

const IMAGE_BYTES: &[u8] = include_bytes!(env!("FOOLPROOF_IMAGE"));
const INPUT_BYTES: &[u8] = include_bytes!(env!("FOOLPROOF_INPUT"));

#[unsafe(link_section = ".model")]
static IMAGE: Buffer<{ IMAGE_BYTES.len() }> = Buffer(*include_bytes!(env!("FOOLPROOF_IMAGE")));

#[unsafe(link_section = ".input")]
static INPUT: [u8; INPUT_BYTES.len()] = *include_bytes!(env!("FOOLPROOF_INPUT"));

/// Exactly what the model needs.
const BUFFER: usize = match required_buffer(IMAGE_BYTES, Mode::Infer) {
    Some(bytes) => bytes,
    None => panic!("FOOLPROOF_IMAGE is no model image"),
};

struct Memory(UnsafeCell<Buffer<BUFFER>>);

// SAFETY: `main` runs once and takes the only reference.
unsafe impl Sync for Memory {}

static SESSION: Memory = Memory(UnsafeCell::new(Buffer::new()));

#[cfg_attr(target_arch = "arm", cortex_m_rt::entry)]
#[cfg_attr(target_arch = "riscv32", riscv_rt::entry)]
fn main() -> ! {
    stack::paint();
    let model = match Model::from_bytes(&IMAGE.0) {
        Ok(model) => model,
        Err(error) => {
            println!("error: {}", error);
            exit(1)
        }
    };
    // SAFETY: `main` runs once, so this is the only reference.
    let buffer = unsafe { &mut (*SESSION.0.get()).0 };
    let mut session = match Session::new(&model, Mode::Infer, buffer) {
        Ok(session) => session,
        Err(error) => {
            println!("error: {}", error);
            exit(1)
        }
    };
    let mut meter = Meter::new(Board::take().counter);
    meter.start();
    if let Err(error) = session.forward_bytes(&INPUT) {
        println!("error: {}", error);
        exit(1)
    }
    let instructions = meter.stop();
    let label = session.label();
    println!("instructions {}", instructions);
    println!("stack {} {}", stack::used(), stack::size());
    println!("label {}", label);
    let output = match session.output() {
        Data::I8(y) => y.as_bytes(),
        Data::F32(y) => y.as_bytes(),
        Data::I32(_) | Data::Absent => &[],
    };
    print!("output ");
    for byte in output {
        print!("{:02x}", byte);
    }
    println!();
    exit(i32::from(stack::overflowed()))
}
