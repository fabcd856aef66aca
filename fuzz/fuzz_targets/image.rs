//! Any bytes as a model image: checked, and run if they pass. The checksum is put right first, since nobody finds
//! one by chance.
#![no_main]

#[path = "../../tests/support/exercise.rs"]
mod exercise;

use exercise::{Arena, exercise, reseal};
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use zerocopy::IntoBytes;

thread_local! {
    static ARENA: RefCell<Arena> = RefCell::new(Arena::new());
}

fuzz_target!(|data: &[u8]| {
    let mut words = vec![0_u128; data.len().div_ceil(16)];
    let image = &mut words.as_mut_bytes()[..data.len()];
    image.copy_from_slice(data);
    reseal(image);
    let noise = data.iter().rev().take(8).fold(data.len() as u64, |n, &b| {
        n.wrapping_mul(257).wrapping_add(u64::from(b))
    });
    ARENA.with(|arena| exercise(image, &mut arena.borrow_mut(), noise));
});
