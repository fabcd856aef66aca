//! Counts the instructions of a whole model: of one run forward, and of one forward and back to the input. In the slot lie, little-endian,
//! the image's length (u32), zeros up to offset 16, and the image. One line: both counts, and the CRC-32 of output and gradient, which
//! is the same on every machine. The numbers that go in are random, so that no gradient is zero by chance.
#![no_std]
#![no_main]

use core::cell::UnsafeCell;

use foolproof::link::CRC32;
use foolproof::memory::Mode;
use foolproof::model::Model;
use foolproof::session::{Session, SessionError};
use foolproof::tensor::Data;
use foolproof_firmware::board::{self, Board};
use foolproof_firmware::meter::Meter;
use semihosting::println;
use semihosting::process::exit;

/// Where the image begins in the slot.
const IMAGE: usize = 16;

/// The most logits that a gradient is given for: `ad01` has 640.
const LOGITS: usize = 1024;

#[repr(align(16))]
struct Memory(UnsafeCell<[u8; board::SESSION]>);

// SAFETY: `main` runs once and takes the only reference.
unsafe impl Sync for Memory {}

static SESSION: Memory = Memory(UnsafeCell::new([0; board::SESSION]));

#[cfg_attr(target_arch = "arm", cortex_m_rt::entry)]
#[cfg_attr(target_arch = "riscv32", riscv_rt::entry)]
fn main() -> ! {
    let (address, length) = board::SLOT;
    // SAFETY: the slot is memory that the linker script leaves alone and that nothing writes while this runs.
    let slot = unsafe {
        core::slice::from_raw_parts::<u8>(core::ptr::with_exposed_provenance(address), length)
    };
    // SAFETY: `main` runs once, so this is the only reference.
    let arena = unsafe { &mut *SESSION.0.get() };
    let image = slot
        .first_chunk()
        .and_then(|length| slot[IMAGE..].get(..u32::from_le_bytes(*length) as usize));
    let Some(image) = image else {
        println!("no image in the slot");
        exit(1);
    };
    match Model::from_bytes(image) {
        Ok(model) => match measure(&model, arena) {
            Ok(()) => exit(0),
            Err(error) => println!("{}", error),
        },
        Err(error) => println!("{}", error),
    }
    exit(1)
}

fn measure(model: &Model, arena: &mut [u8]) -> Result<(), SessionError> {
    let mut meter = Meter::new(Board::take().counter);
    let mut random = Random(1);
    let mut input = [0; 32 * 1024];
    let tables = model.tables();
    let bytes = model.input_shape().len() * tables.dtype(tables.input()).size();
    let input = &mut input[..bytes];
    input.fill_with(|| random.next() as u8);

    let mut session = Session::new(model, Mode::Infer, arena)?;
    meter.start();
    session.forward_bytes(input)?;
    let forward = meter.stop();
    let mut digest = CRC32.digest();
    match session.output() {
        Data::I8(y) => y.iter().for_each(|y| digest.update(&y.to_le_bytes())),
        Data::F32(y) => y.iter().for_each(|y| digest.update(&y.to_le_bytes())),
        _ => {}
    }

    let mut gradient = [0.0; LOGITS];
    let gradient = &mut gradient[..tables.shape(tables.logits()).len()];
    gradient.fill_with(|| f32::from(random.next() as i8) / 128.0);
    let mut session = Session::new(model, Mode::Attack, arena)?;
    meter.start();
    session.forward_bytes(input)?;
    session.backward(gradient)?;
    let both = meter.stop();
    // Once more, to look at what came of it: a second time gives the same.
    session.forward_bytes(input)?;
    let gradient = session.backward(gradient)?;
    gradient
        .iter()
        .for_each(|g| digest.update(&g.to_le_bytes()));
    println!("{} {} {}", forward, both, digest.finalize());
    Ok(())
}

/// Numbers that look random.
struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 24
    }
}
