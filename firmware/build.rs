//! Hands the linker the chosen board's memory map.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let source = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets the folder"));
    println!("cargo:rerun-if-changed=memory");

    // None or several boards: src/board/mod.rs refuses that with a message.
    let maps = fs::read_dir(source.join("memory")).expect("the folder memory/ is part of firmware");
    let chosen = maps.flatten().map(|map| map.path()).find(|map| {
        let name = map.file_stem().unwrap_or_default().to_string_lossy();
        let feature = name.to_uppercase().replace('-', "_");
        env::var_os(format!("CARGO_FEATURE_{feature}")).is_some()
    });
    if let Some(map) = chosen {
        fs::copy(map, out.join("memory.x")).expect("OUT_DIR is writable");
    }
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
    println!("cargo:rustc-link-arg-bins=-Tdefmt.x");
    println!("cargo:rustc-link-arg-bins=--nmagic");
}
