//! Bare-metal targets without rustup: Rust's `core` built from source.
//!
//! `core` can be built by a stable compiler of exactly the sources' version. Debian ships such a
//! pair (`rustc-web`, `rust-web-src`). Their packages are downloaded and unpacked in the user's
//! cache, so this needs no root. `core`, `alloc` and `compiler_builtins` are then built once per
//! target into a sysroot of our own; a plain `cargo build --target T` with `--sysroot` works after
//! that, and nothing unstable reaches the firmware's own build.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt::Apt;
use crate::setup::Toolchain;
use crate::tool::{cache_dir, cargo, find, lock, output, put, scratch, step};

/// The oldest compiler that can build foolproof: `rust-version` of the workspace.
const OLDEST: (u32, u32) = (1, 95);

/// Builds what is missing and says how to call cargo for `targets`.
pub fn toolchain(targets: &[&str]) -> Result<Toolchain> {
    let cache = cache_dir()?;
    let _lock = lock(&cache)?;
    let compiler = Compiler::ensure(&cache)?;
    let sysroot = cache.join(format!("sysroot-{}", compiler.version));
    for target in targets {
        compiler.build_core(&sysroot, target)?;
    }
    let linker = linker()?;

    let mut env = compiler.env();
    for target in targets {
        let name = target.to_uppercase().replace(['-', '.'], "_");
        let flag = format!("--sysroot={}", sysroot.display());
        env.push((format!("CARGO_TARGET_{name}_RUSTFLAGS"), flag.into()));
        env.push((format!("CARGO_TARGET_{name}_LINKER"), linker.clone()));
    }
    Ok(Toolchain {
        env,
        clippy: Some(compiler.clippy()),
    })
}

/// Whether `core` was built from source before, for all of `targets`.
pub fn is_ready(targets: &[&str]) -> bool {
    let Ok(cache) = cache_dir() else {
        return false;
    };
    let sysroots: Vec<PathBuf> = fs::read_dir(cache)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("sysroot-"))
        .map(|entry| entry.path().join("lib/rustlib"))
        .collect();
    sysroots.iter().any(|sysroot| {
        targets
            .iter()
            .all(|target| has_core(&sysroot.join(target).join("lib")))
    })
}

/// Whether `dir` holds a compiled `core`.
pub fn has_core(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

/// The distribution's compiler, unpacked in the cache.
pub struct Compiler {
    root: PathBuf,
    /// Three numbers, as `rustc --version` prints them.
    pub version: String,
    /// The folder of the compiler's own shared libraries.
    libraries: PathBuf,
}

impl Compiler {
    /// Downloads the compiler if it is not in the cache, whose lock the caller holds.
    pub fn ensure(cache: &Path) -> Result<Self> {
        let root = cache.join("rustc-web");
        if !root.join("usr/bin/rustc").is_file() {
            download(cache, &root).context(
                "Rust's core from source needs the packages rustc-web and rust-web-src (Debian)",
            )?;
        }
        let lib = root.join("usr/lib");
        let libraries = fs::read_dir(&lib)
            .with_context(|| format!("reading {}", lib.display()))?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().ends_with("-linux-gnu"))
            .with_context(|| format!("no shared libraries in {}", lib.display()))?;
        let mut compiler = Compiler {
            root,
            version: String::new(),
            libraries,
        };
        let mut ask = Command::new(compiler.rustc());
        ask.env("LD_LIBRARY_PATH", &compiler.libraries)
            .arg("--version");
        let text = output(&mut ask)?;
        compiler.version = text
            .split_whitespace()
            .nth(1)
            .with_context(|| format!("rustc --version printed {text:?}"))?
            .to_string();
        Ok(compiler)
    }

    fn rustc(&self) -> PathBuf {
        self.root.join("usr/bin/rustc")
    }

    /// The `cargo-clippy` of the same version.
    pub fn clippy(&self) -> PathBuf {
        self.root.join("usr/bin/cargo-clippy")
    }

    /// What cargo must find in its environment to use this compiler.
    pub fn env(&self) -> Vec<(String, PathBuf)> {
        vec![
            ("RUSTC".to_string(), self.rustc()),
            ("LD_LIBRARY_PATH".to_string(), self.libraries.clone()),
        ]
    }

    /// Builds `core`, `alloc` and `compiler_builtins` for `target`, unless that was done before.
    fn build_core(&self, sysroot: &Path, target: &str) -> Result<()> {
        let place = sysroot.join("lib/rustlib").join(target).join("lib");
        if has_core(&place) {
            return Ok(());
        }
        step(format!("building core {} for {target}", self.version));
        let work = scratch(&cache_dir()?, "core")?;
        fs::create_dir_all(work.path.join("src"))?;
        fs::write(work.path.join("src/lib.rs"), "#![no_std]\n")?;
        fs::write(work.path.join("Cargo.toml"), SEED)?;
        let mut build = cargo();
        build
            .current_dir(&work.path)
            .env("RUSTC", self.rustc())
            .env("LD_LIBRARY_PATH", &self.libraries)
            // Lets a stable compiler build its own standard library, here only.
            .env("RUSTC_BOOTSTRAP", "1")
            // Link-time optimisation needs the bitcode.
            .env("RUSTFLAGS", "-Cembed-bitcode=yes")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("CARGO_BUILD_TARGET")
            .args([
                "build",
                "--quiet",
                "--release",
                "-Zbuild-std=core,alloc",
                "--target",
            ])
            .arg(target)
            .arg("--target-dir")
            .arg(work.path.join("target"));
        output(&mut build).with_context(|| format!("building core for {target}"))?;

        let ready = work.path.join("ready");
        fs::create_dir_all(&ready)?;
        let deps = work.path.join("target").join(target).join("release/deps");
        for entry in fs::read_dir(&deps)?.flatten() {
            let name = entry.file_name();
            let wanted = ["libcore-", "liballoc-", "libcompiler_builtins-"]
                .iter()
                .any(|prefix| name.to_string_lossy().starts_with(prefix));
            if wanted && entry.path().extension() == Some(OsStr::new("rlib")) {
                fs::copy(entry.path(), ready.join(entry.file_name()))?;
            }
        }
        if !has_core(&ready) {
            bail!("the build of core for {target} left no libcore");
        }
        put(&ready, &place)
    }
}

/// A package whose only purpose is to have its standard library built.
const SEED: &str = r#"[package]
name = "seed"
version = "0.0.0"
edition = "2021"

[profile.release]
panic = "abort"
opt-level = 3
codegen-units = 1
debug = "line-tables-only"

[profile.release.package.compiler_builtins]
codegen-units = 10000

[workspace]
"#;

/// Downloads the distribution's compiler and its sources and unpacks them to `root`.
fn download(cache: &Path, root: &Path) -> Result<()> {
    let is_new = |version: &str| major_minor(version).is_ok_and(|number| number >= OLDEST);
    let apt = Apt::with(cache, "rustc-web", is_new)?;
    let Some(version) = apt.candidate("rustc-web")? else {
        bail!("apt knows no package rustc-web");
    };
    let number = major_minor(&version)?;
    if number < OLDEST {
        bail!(
            "rustc-web is version {version}, {}.{} or later is needed",
            OLDEST.0,
            OLDEST.1
        );
    }
    let runtime = format!("libstd-rust-web-{}.{}", number.0, number.1);
    let mut packages: Vec<String> = [
        "rustc-web",
        &runtime,
        "libstd-rust-web-dev",
        "rust-web-src",
        "rust-web-clippy",
    ]
    .iter()
    .map(|name| format!("{name}={version}"))
    .collect();
    packages.push(apt.dependency(&runtime, "libllvm")?);

    let work = scratch(cache, "compiler")?;
    apt.unpack(cache, &packages, &work.path)?;
    link_sources(&work.path)?;
    put(&work.path, root)
}

/// Puts the sources where the compiler's sysroot has them.
fn link_sources(tree: &Path) -> Result<()> {
    let sources = fs::read_dir(tree.join("usr/src"))?
        .flatten()
        .map(|entry| entry.file_name())
        .find(|name| name.to_string_lossy().starts_with("rustc-"))
        .context("rust-web-src holds no sources")?;
    let place = tree.join("usr/lib/rustlib/src");
    fs::create_dir_all(&place)?;
    let link = place.join("rust");
    // The package's own link, if any, is absolute and points out of the cache.
    let _ = fs::remove_file(&link);
    #[cfg(unix)]
    std::os::unix::fs::symlink(Path::new("../../../src").join(sources), &link)?;
    #[cfg(not(unix))]
    bail!("unpacking Debian's {sources:?} needs a Unix");
    Ok(())
}

fn major_minor(version: &str) -> Result<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => bail!("cannot read the version {version:?}"),
    }
}

/// The distribution's compiler comes without a linker for other machines: any LLD will do.
pub fn linker() -> Result<PathBuf> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let host = output(Command::new("rustc").arg("-vV"))?;
    let host = host
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .unwrap_or_default();
    let own = Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(host)
        .join("bin/rust-lld");
    if own.is_file() {
        return Ok(own);
    }
    ["ld.lld", "ld.lld-22", "ld.lld-21", "ld.lld-20", "ld.lld-19"]
        .into_iter()
        .find_map(find)
        .context("no linker for other machines: install the package lld")
}
