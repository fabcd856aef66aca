//! Chips: the boards, their firmware, their emulators, and the line to them.
//!
//! [`Board`] says what a board is, [`prepare`] installs its emulator and builds its firmware, [`Emulator`] runs it, and
//! [`Chip`] talks to it, emulated or real, through [`foolproof::link`].

mod boards;
mod bundle;
mod chip;
mod compare;
mod elf;
mod emulator;
mod firmware;
mod fit;
mod guard;
mod log;
mod serial;

pub use boards::{Board, Slot, board, boards};
pub use bundle::Payload;
pub use chip::{Chip, ChipInfo, Crafted, Inferred, Line};
pub use compare::{AttackFigures, Comparison, Work, compare, compare_emulated};
pub use elf::{Footprint, compiler, footprint};
pub use emulator::{Emulator, Options, Outcome};
pub use firmware::{firmware_elf, prepare};
pub use fit::{attack_room, fitted};
pub use guard::remove_folders_on_signals;
pub(crate) use guard::{Leash, spawn_on_leash};
pub use serial::{BAUD, Serial};
