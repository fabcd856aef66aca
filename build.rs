//! Finds out whether the target has the Cortex-M DSP extension. `cfg(target_feature = "dsp")` is never true on stable
//! Rust, so this compiles one of its instructions, with the flags that the crate itself is compiled with, and sets
//! `cfg(foolproof_dsp)` where that works.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const PROBE: &str = r#"#![no_std]
pub fn probe(a: u32, b: u32, mut c: u32) -> u32 {
    unsafe { core::arch::asm!("smlad {c}, {a}, {b}, {c}", a = in(reg) a, b = in(reg) b, c = inout(reg) c) };
    c
}
"#;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(foolproof_dsp)");
    if variable("CARGO_CFG_TARGET_ARCH") == "arm" && compiles() {
        println!("cargo::rustc-cfg=foolproof_dsp");
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn compiles() -> bool {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let source = out.join("dsp.rs");
    fs::write(&source, PROBE).expect("OUT_DIR is writable");
    let flags = variable("CARGO_ENCODED_RUSTFLAGS");
    let done = Command::new(variable("RUSTC"))
        .args(["--edition=2024", "--crate-type=lib", "--emit=obj"])
        .args(["--target", &variable("TARGET")])
        .args(flags.split('\x1f').filter(|flag| !flag.is_empty()))
        .arg("-o")
        .arg(out.join("dsp.o"))
        .arg(&source)
        .stderr(Stdio::null())
        .status();
    done.is_ok_and(|status| status.success())
}
