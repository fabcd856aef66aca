//! Finds out whether there are loops for the registers of a PC's CPU (`cfg(foolproof_simd)`: x86-64, whose features are looked for at
//! run time, and aarch64 with NEON), and whether the target has the Cortex-M DSP extension, and Helium. `cfg(target_feature = "dsp")` is never true on
//! stable Rust, so this compiles one instruction of each, with the flags that the crate itself is compiled with, and sets
//! `cfg(foolproof_dsp)` and `cfg(foolproof_mve)` where that works.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const DSP: &str = r#"#![no_std]
pub fn probe(a: u32, b: u32, mut c: u32) -> u32 {
    unsafe { core::arch::asm!("smlad {c}, {a}, {b}, {c}", a = in(reg) a, b = in(reg) b, c = inout(reg) c) };
    c
}
"#;

const MVE: &str = r#"#![no_std]
pub fn probe(a: *const u8, mut c: u32) -> u32 {
    unsafe {
        core::arch::asm!("vldrb.8 q0, [{a}]", "vmladava.s8 r0, q0, q0", a = in(reg) a, inout("r0") c, out("d0") _, out("d1") _)
    };
    c
}
"#;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(foolproof_dsp)");
    println!("cargo::rustc-check-cfg=cfg(foolproof_mve)");
    println!("cargo::rustc-check-cfg=cfg(foolproof_simd)");
    let has_neon = variable("CARGO_CFG_TARGET_FEATURE")
        .split(',')
        .any(|feature| feature == "neon");
    let is_little = variable("CARGO_CFG_TARGET_ENDIAN") == "little";
    match &*variable("CARGO_CFG_TARGET_ARCH") {
        "arm" => arm(),
        "x86_64" => println!("cargo::rustc-cfg=foolproof_simd"),
        "aarch64" if has_neon && is_little => println!("cargo::rustc-cfg=foolproof_simd"),
        _ => {}
    }
}

/// The extensions of Cortex-M.
fn arm() {
    let dsp = compiles("dsp", DSP);
    if dsp {
        println!("cargo::rustc-cfg=foolproof_dsp");
    }
    if dsp && compiles("mve", MVE) {
        println!("cargo::rustc-cfg=foolproof_mve");
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn compiles(name: &str, probe: &str) -> bool {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let source = out.join(format!("{name}.rs"));
    fs::write(&source, probe).expect("OUT_DIR is writable");
    let flags = variable("CARGO_ENCODED_RUSTFLAGS");
    let done = Command::new(variable("RUSTC"))
        .args(["--edition=2024", "--crate-type=lib", "--emit=obj"])
        .args(["--target", &variable("TARGET")])
        .args(flags.split('\x1f').filter(|flag| !flag.is_empty()))
        .arg("-o")
        .arg(out.join(format!("{name}.o")))
        .arg(&source)
        .stderr(Stdio::null())
        .status();
    done.is_ok_and(|status| status.success())
}
