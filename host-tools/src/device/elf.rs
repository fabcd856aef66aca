//! What a firmware's ELF file says about memory.

use std::path::Path;

use anyhow::{Context, Result};
use object::elf::{SHF_ALLOC, SHF_WRITE, SHT_NOBITS};
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags};

/// The memory that a firmware occupies before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Footprint {
    /// Flash in bytes: code, constants and the initial values of statics.
    pub flash: u64,
    /// Static RAM in bytes, the frame's buffer included; the stack, and the room for sessions and streamed
    /// models, not.
    pub ram: u64,
    /// Bytes set aside for sessions and streamed models of any size: as much as the board has to spare.
    pub reserved: u64,
}

/// Reads the footprint of the ELF file at `path`.
pub fn footprint(path: &Path) -> Result<Footprint> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let file = object::File::parse(&*bytes)
        .with_context(|| format!("{} is no ELF file", path.display()))?;
    let mut footprint = Footprint::default();
    for section in file.sections() {
        let SectionFlags::Elf { sh_type, sh_flags } = section.flags() else {
            continue;
        };
        let name = section.name().unwrap_or_default();
        if !sh_flags.contains(SHF_ALLOC) || is_reserve(name) {
            continue;
        }
        if sh_type != SHT_NOBITS {
            footprint.flash += section.size();
        }
        if sh_flags.contains(SHF_WRITE) {
            footprint.ram += section.size();
        }
    }
    footprint.reserved = file
        .symbols()
        .filter(|symbol| symbol.name().is_ok_and(is_room))
        .map(|symbol| symbol.size())
        .sum();
    footprint.ram = footprint.ram.saturating_sub(footprint.reserved);
    Ok(footprint)
}

/// The compiler that built the ELF file at `path`, as "rustc 1.95.0": instruction counts depend on it.
pub fn compiler(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let file = object::File::parse(&*bytes)
        .with_context(|| format!("{} is no ELF file", path.display()))?;
    let comments = file
        .section_by_name(".comment")
        .and_then(|section| section.data().ok())
        .unwrap_or_default();
    String::from_utf8_lossy(comments)
        .split('\0')
        .find_map(|comment| comment.strip_prefix("rustc version "))
        .and_then(|version| version.split_whitespace().next())
        .map(|version| format!("rustc {version}"))
        .with_context(|| format!("{} does not name its compiler", path.display()))
}

/// The firmware's `memory::SESSION` and `memory::MODEL`, mangled.
fn is_room(symbol: &str) -> bool {
    symbol.contains("6memory7SESSION") || symbol.contains("6memory5MODEL")
}

/// Sections by which riscv-rt's linker script marks what is left for heap and stack.
fn is_reserve(name: &str) -> bool {
    matches!(name, ".heap" | ".stack")
}
