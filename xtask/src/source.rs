//! Bare-metal targets without rustup: Rust's `core` built from source.
//!
//! `core` can be built by a stable compiler of exactly the sources' version. Debian ships such a
//! pair (`rustc-web`, `rust-web-src`). Their packages are downloaded and unpacked in the user's
//! cache, so this needs no root. `core`, `alloc` and `compiler_builtins` are then built once per
//! target into a sysroot of our own; a plain `cargo build --target T` with `--sysroot` works after
//! that, and nothing unstable reaches the firmware's own build.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::Toolchain;
use crate::tool::{cache_dir, cargo, exists, find, output, step};

/// The oldest compiler that can build foolproof: `rust-version` of the workspace.
const OLDEST: (u32, u32) = (1, 95);

/// Builds what is missing and says how to call cargo for `targets`.
pub fn toolchain(targets: &[&str]) -> Result<Toolchain> {
    let cache = cache_dir()?;
    let lock = File::create(cache.join("setup.lock")).context("the cache's lock file")?;
    lock.lock().context("locking the cache")?;

    let compiler = Compiler::ensure(&cache)?;
    let sysroot = cache.join(format!("sysroot-{}", compiler.version));
    for target in targets {
        compiler.build_core(&sysroot, target)?;
    }
    let linker = linker()?;

    let mut env = vec![
        ("RUSTC".to_string(), compiler.rustc()),
        ("LD_LIBRARY_PATH".to_string(), compiler.libraries.clone()),
    ];
    for target in targets {
        let name = target.to_uppercase().replace(['-', '.'], "_");
        let flag = format!("--sysroot={}", sysroot.display());
        env.push((format!("CARGO_TARGET_{name}_RUSTFLAGS"), flag.into()));
        env.push((format!("CARGO_TARGET_{name}_LINKER"), linker.clone()));
    }
    Ok(Toolchain {
        env,
        clippy: Some(compiler.root.join("usr/bin/cargo-clippy")),
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
struct Compiler {
    root: PathBuf,
    version: String,
    /// The folder of the compiler's own shared libraries.
    libraries: PathBuf,
}

impl Compiler {
    fn ensure(cache: &Path) -> Result<Self> {
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
    for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
        if !exists(tool) {
            bail!("{tool} is missing: this way works on Debian and its relatives only");
        }
    }
    let mut apt = Apt::default();
    if apt.candidate("rustc-web")?.is_none() {
        apt = Apt::private(cache)?;
    }
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

    step(format!("downloading {}", packages.join(" ")));
    let work = scratch(cache, "packages")?;
    output(
        apt.command("apt-get")
            .current_dir(&work.path)
            .args(["-qq", "download"])
            .args(&packages),
    )?;
    let tree = work.path.join("tree");
    for entry in fs::read_dir(&work.path)?.flatten() {
        if entry.path().extension() == Some(OsStr::new("deb")) {
            output(
                Command::new("dpkg-deb")
                    .arg("-x")
                    .arg(entry.path())
                    .arg(&tree),
            )?;
        }
    }
    link_sources(&tree)?;
    put(&tree, root)
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

/// How apt is called: with the system's package lists, or with lists of our own.
#[derive(Default)]
struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// Fresh lists in the cache, of the sources that the system is configured for.
    fn private(cache: &Path) -> Result<Self> {
        let dir = cache.join("apt");
        fs::create_dir_all(dir.join("lists/partial"))?;
        fs::create_dir_all(dir.join("cache/archives/partial"))?;
        let apt = Apt {
            options: vec![
                format!("-oDir::State::lists={}", dir.join("lists").display()),
                format!("-oDir::Cache={}", dir.join("cache").display()),
            ],
        };
        step("fetching the package lists");
        output(apt.command("apt-get").args(["-qq", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).env("LC_ALL", "C");
        command
    }

    /// The version of `package` that apt would install.
    fn candidate(&self, package: &str) -> Result<Option<String>> {
        let text = output(self.command("apt-cache").args(["policy", package]))?;
        Ok(text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Candidate: "))
            .find(|version| *version != "(none)")
            .map(str::to_string))
    }

    /// The dependency of `package` whose name starts with `prefix`.
    fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let text = output(self.command("apt-cache").args(["depends", package]))?;
        text.lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with(prefix))
            .map(str::to_string)
            .with_context(|| format!("{package} depends on no {prefix}"))
    }
}

fn major_minor(version: &str) -> Result<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => bail!("cannot read the version {version:?}"),
    }
}

/// The distribution's compiler comes without a linker for bare metal: any LLD will do.
fn linker() -> Result<PathBuf> {
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
        .context("no linker for bare metal: install the package lld")
}

/// A folder that is removed again.
struct Scratch {
    path: PathBuf,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn scratch(cache: &Path, name: &str) -> Result<Scratch> {
    let path = cache.join(format!("tmp-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
    Ok(Scratch { path })
}

/// Moves a finished folder to its place in one step.
fn put(ready: &Path, place: &Path) -> Result<()> {
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::rename(ready, place).with_context(|| format!("moving to {}", place.display()))
}
