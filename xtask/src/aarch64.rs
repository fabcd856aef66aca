//! The engine on 64-bit Arm: its tests under QEMU's user-mode emulation, so that the NEON kernels run where no such machine is at hand.
//!
//! Programs are linked statically by LLD, without a C compiler. Tried in this order: Rust's musl target, installed or from rustup, which brings
//! all it needs; Debian's compiler ([`crate::source`]) with the standard library and the C library of Debian's arm64.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

use crate::apt::Apt;
use crate::emulator;
use crate::setup::{self, Toolchain, Way};
use crate::source::{self, Compiler};
use crate::tool::{cache_dir, exists, lock, output, put, root, run, scratch, step, target_dir};

/// Rustup's target, whose standard library holds the C library.
const MUSL: &str = "aarch64-unknown-linux-musl";
/// Debian's target.
const GNU: &str = "aarch64-unknown-linux-gnu";

/// Processors that the tests run on: one with all that the emulator knows, and one with nothing but what every 64-bit Arm has.
const PROCESSORS: [&str; 2] = ["max", "cortex-a53"];

/// What the engine's unit tests are compiled with besides the default: all that has tests.
pub const FEATURES: &str = "std,link,train";

/// What builds for an emulated 64-bit Arm, and the emulator.
pub struct Machine {
    target: &'static str,
    toolchain: Toolchain,
    emulator: PathBuf,
}

/// Makes this machine able to emulate the other; the error says why it cannot.
pub fn set_up(way: Way) -> Result<Machine> {
    if cfg!(target_arch = "aarch64") {
        bail!("this is a 64-bit Arm: `cargo test` runs the NEON kernels");
    }
    if !cfg!(target_os = "linux") {
        bail!("only Linux runs another processor's programs in QEMU's user mode");
    }
    let cache = cache_dir()?;
    let _lock = lock(&cache)?;
    let emulator = emulator::user_mode(&cache)?;
    let (target, toolchain) = match way {
        Way::Any if by_rustup(&cache)? => (MUSL, of_rustup()),
        _ => (GNU, of_debian(&cache)?),
    };
    Ok(Machine {
        target,
        toolchain,
        emulator,
    })
}

impl Machine {
    /// The engine alone, without `std`.
    pub fn build(&self) -> Result<()> {
        let mut build = self.toolchain.cargo();
        run(self.library(&mut build, &["build", "--no-default-features"])?)
    }

    /// Lints, of which those on the host do not see what is for this target only.
    pub fn lint(&self) -> Result<()> {
        let mut clippy = self.toolchain.clippy();
        let clippy = self.library(&mut clippy, &["--tests", "--all-features"])?;
        run(clippy.args(["--", "-D", "warnings"]))
    }

    /// The engine's unit tests, on each of the processors.
    pub fn test(&self) -> Result<()> {
        for processor in PROCESSORS {
            step(format!("tests on an emulated {processor}"));
            let runner = format!(
                "target.{}.runner = ['{}', '-cpu', '{processor}']",
                self.target,
                self.emulator.display()
            );
            let mut test = self.toolchain.cargo();
            let test = self.library(&mut test, &["test", "--features", FEATURES])?;
            run(test.args(["--config", &runner]))
                .with_context(|| format!("on an emulated {processor}"))?;
        }
        Ok(())
    }

    /// `cargo` for the engine's library and this target, in a folder of its own: the compiler may be another one than the host's.
    fn library<'a>(&self, cargo: &'a mut Command, first: &[&str]) -> Result<&'a mut Command> {
        let folder = target_dir().join("aarch64");
        let manifest = alone(&folder.join("engine"))?;
        Ok(cargo
            .current_dir(root())
            .args(first)
            .args([
                "--lib",
                "--release",
                "--target",
                self.target,
                "--target-dir",
            ])
            .arg(&folder)
            .arg("--manifest-path")
            .arg(manifest))
    }
}

/// Writes a package to `folder` that is the engine without its integration tests, and so without what only they need: more than a hundred
/// crates, the host tools among them, half an hour of processor time for another target. The answer is its manifest.
pub fn alone(folder: &Path) -> Result<PathBuf> {
    let text = fs::read_to_string(root().join("Cargo.toml")).context("the engine's Cargo.toml")?;
    let mut manifest: Table = text.parse().context("the engine's Cargo.toml")?;
    manifest.remove("dev-dependencies");
    // What it says of packages would be about none.
    manifest.remove("profile");
    let workspace = manifest.get_mut("workspace").and_then(Value::as_table_mut);
    let workspace = workspace.context("the engine's Cargo.toml has no workspace")?;
    workspace.retain(|key, _| ["package", "lints"].contains(&key));
    let source = root().join("src/lib.rs").display().to_string();
    let library = Table::from_iter([("path".to_string(), source.into())]);
    manifest.insert("lib".to_string(), library.into());

    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let path = folder.join("Cargo.toml");
    fs::write(&path, toml::to_string(&manifest)?)?;
    fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock"))?;
    // A file that is written again would have the engine compiled again.
    let script = fs::read(root().join("build.rs"))?;
    let copy = folder.join("build.rs");
    if fs::read(&copy).ok().as_ref() != Some(&script) {
        fs::write(copy, script)?;
    }
    Ok(path)
}

/// Whether the active toolchain has Rust's target, or rustup can add it.
fn by_rustup(cache: &Path) -> Result<bool> {
    if setup::missing(&[MUSL])?.is_empty() {
        return Ok(true);
    }
    let unpacked = fs::read_dir(cache)?.flatten();
    if unpacked
        .map(|entry| entry.file_name())
        .any(|name| name.to_string_lossy().starts_with(UNPACKED))
    {
        // rustup failed here before; asking it each time would only take time.
        return Ok(false);
    }
    let Some(reason) = setup::add(&[MUSL])? else {
        return Ok(true);
    };
    step(format!("{reason}; Debian's packages instead"));
    Ok(false)
}

fn of_rustup() -> Toolchain {
    let linker = ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", "rust-lld");
    Toolchain {
        env: vec![(linker.0.to_string(), linker.1.into())],
        clippy: None,
    }
}

/// How the folder begins that Debian's libraries are unpacked in; the compiler's version follows.
const UNPACKED: &str = "aarch64-";

fn of_debian(cache: &Path) -> Result<Toolchain> {
    let compiler = Compiler::ensure(cache)?;
    let tree = cache.join(format!("{UNPACKED}{}", compiler.version));
    if !tree.exists() {
        download(cache, &compiler, &tree)
            .context("64-bit Arm needs Debian's libraries for arm64")?;
    }
    let mut env = compiler.env();
    env.push((
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER".to_string(),
        source::linker()?,
    ));
    let flags = flags(&tree.join("usr"))?;
    env.push((setup::ENCODED.to_string(), setup::encoded(&flags).into()));
    Ok(Toolchain {
        env,
        clippy: Some(compiler.clippy()),
    })
}

/// What the compiler is told so that LLD does a C compiler's part of the linking: a program that is linked statically and can lie anywhere
/// (`libc.a` has what a fixed one may not have twice). `usr` is the folder that Debian's libraries are unpacked in.
fn flags(usr: &Path) -> Result<Vec<OsString>> {
    let libc = usr.join("lib/aarch64-linux-gnu");
    let versions = usr.join("lib/gcc/aarch64-linux-gnu");
    let gcc = fs::read_dir(&versions)
        .with_context(|| format!("reading {}", versions.display()))?
        .flatten()
        .map(|entry| entry.path())
        .next()
        .with_context(|| format!("{} is empty", versions.display()))?;
    let flag = |name: &str, path: &Path| {
        let mut flag = OsString::from(name);
        flag.push(path);
        flag
    };
    let mut flags = vec![
        flag("--sysroot=", usr),
        flag("-Lnative=", &libc),
        flag("-Lnative=", &gcc),
    ];
    let fixed = [
        "-Ctarget-feature=+crt-static",
        "-Clinker-flavor=ld.lld",
        "-Clink-arg=-pie",
        "-Clink-arg=--no-dynamic-linker",
        "-Clink-arg=-ztext",
    ];
    flags.extend(fixed.map(OsString::from));
    let objects = [
        libc.join("rcrt1.o"),
        libc.join("crti.o"),
        gcc.join("crtbeginS.o"),
        gcc.join("crtendS.o"),
        libc.join("crtn.o"),
    ];
    flags.extend(objects.iter().map(|path| flag("-Clink-arg=", path)));
    Ok(flags)
}

/// Unpacks the libraries that a program for arm64 is linked with: Rust's of the compiler's version, the C library, and GCC's, which unwinds.
fn download(cache: &Path, compiler: &Compiler, tree: &Path) -> Result<()> {
    if !exists("dpkg") {
        bail!("dpkg is missing: this way works on Debian and its relatives only");
    }
    let own = output(Command::new("dpkg").arg("--print-architecture"))?;
    let apt = Apt::fresh(cache, &[own.trim(), "arm64"])?;
    let library = "libstd-rust-web-dev:arm64";
    let Some(version) = apt.candidate(library)? else {
        bail!("apt knows no package {library}");
    };
    if version.split(['+', '-']).next() != Some(&compiler.version) {
        bail!(
            "{library} is version {version} and the compiler in the cache {}; remove {} to have both anew",
            compiler.version,
            cache.join("rustc-web").display()
        );
    }
    let packages = [
        format!("{library}={version}"),
        "libc6-dev:arm64".to_string(),
        apt.newest("libgcc-", "-dev:arm64")?,
    ];
    let work = scratch(cache, "aarch64")?;
    apt.unpack(cache, &packages, &work.path)?;
    put(&work.path, tree)
}
