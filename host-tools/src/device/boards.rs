//! The boards that the firmware supports: `firmware/boards.toml`.

use std::sync::LazyLock;

use anyhow::{Result, bail};
use serde::Deserialize;

/// A board, and how it is emulated.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// The name used everywhere.
    pub name: String,
    /// The processor core, for people.
    pub core: String,
    /// Rust's target triple.
    pub target: String,
    /// The emulator's program.
    pub qemu: String,
    /// The emulator's machine.
    pub machine: String,
    /// More arguments for the emulator.
    #[serde(default)]
    pub args: Vec<String>,
    /// The emulator's `-icount`: makes time a count of instructions.
    pub icount: String,
    /// Where the payload lies.
    pub slot: Slot,
    /// Bytes of flash that the firmware may fill.
    pub flash: u32,
    /// Bytes of RAM.
    pub ram: u32,
    /// Bytes of that RAM that the firmware sets aside for a session's buffer.
    pub session_ram: u32,
    /// What the compiler is told about the core beyond the target.
    #[serde(default)]
    pub rustflags: Vec<String>,
    /// Cargo's `opt-level` for the firmware; `None`: 3.
    pub optimize: Option<String>,
    /// How the board was tested: "emulator", "hardware" or "compiled only".
    pub tested: String,
}

/// The place of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// The first byte's address.
    pub address: u32,
    /// The size in bytes.
    pub size: u32,
}

static BOARDS: LazyLock<Vec<Board>> = LazyLock::new(|| {
    #[derive(Deserialize)]
    struct File {
        board: Vec<Board>,
    }
    let text = include_str!("../../../firmware/boards.toml");
    // Part of this program, not input: a test reads it too.
    let file: File = toml::from_str(text).expect("firmware/boards.toml is well-formed");
    file.board
});

/// All boards; the first one is the default.
pub fn boards() -> &'static [Board] {
    &BOARDS
}

/// The board called `name`.
pub fn board(name: &str) -> Result<&'static Board> {
    match boards().iter().find(|board| board.name == name) {
        Some(board) => Ok(board),
        None => {
            let names: Vec<&str> = boards().iter().map(|board| board.name.as_str()).collect();
            bail!("unknown board {name:?}; one of: {}", names.join(", "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boards_are_consistent() {
        assert_eq!(boards().len(), 7);
        assert_eq!(boards()[0].name, "mps2-an386");
        for board in boards() {
            assert_eq!(super::board(&board.name).unwrap(), board);
            assert_eq!(board.slot.address % 16, 0, "{}", board.name);
            assert!(board.slot.size >= 80 << 10, "{}", board.name);
            assert!(board.session_ram > 0 && board.session_ram < board.ram);
        }
    }

    #[test]
    fn an_unknown_board_is_told_the_known_ones() {
        let error = super::board("esp32").unwrap_err().to_string();
        assert!(
            error.contains("esp32") && error.contains("microbit"),
            "{error}"
        );
    }
}
