//! A Rust toolchain that can build for the bare-metal targets.
//!
//! Tried in this order: the targets are installed; `rustup target add`; Rust's `core` built from
//! source by a compiler of the same version ([`crate::source`]).

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::boards::Board;
use crate::source;
use crate::tool::{self, cargo, exists, output, step};

/// How a missing target may be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Installed, else rustup, else from source.
    Any,
    /// From source only; rustup is never called.
    FromSource,
}

impl Way {
    /// The way that the flag or the environment variable FOOLPROOF_SETUP asks for.
    pub fn from_flag(from_source: bool) -> Result<Self> {
        match env::var("FOOLPROOF_SETUP").as_deref() {
            Ok("from-source") => Ok(Way::FromSource),
            Ok(other) if !other.is_empty() => {
                bail!("FOOLPROOF_SETUP is {other:?}; it may be \"from-source\" or unset")
            }
            _ if from_source => Ok(Way::FromSource),
            _ => Ok(Way::Any),
        }
    }
}

/// How cargo must be called to build for the bare-metal targets.
#[derive(Debug, Default, Clone)]
pub struct Toolchain {
    /// Environment variables for cargo.
    pub env: Vec<(String, PathBuf)>,
    /// The `cargo-clippy` that matches the compiler, where it is not the active one.
    pub clippy: Option<PathBuf>,
}

/// Flags of the compiler, in cargo's form for any flag; it goes before all other places where flags can be.
pub const ENCODED: &str = "CARGO_ENCODED_RUSTFLAGS";

/// `flags` in that form: one flag between two separators, since paths may have spaces.
pub fn encoded(flags: &[OsString]) -> OsString {
    flags.join(OsStr::new("\x1f"))
}

/// A panic says where it is, and so do logs: without the folders that sources lie in, which differ from machine to machine. What is built
/// is then as large everywhere.
fn short_paths() -> impl Iterator<Item = OsString> {
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| Some(env::home_dir()?.join(".cargo")));
    let registry = cargo.map(|home| (home.join("registry/src"), "registry"));
    let own = (tool::root().to_path_buf(), "foolproof");
    [Some(own), registry]
        .into_iter()
        .flatten()
        .map(|(from, to)| {
            let mut flag = OsString::from("--remap-path-prefix=");
            flag.push(from);
            flag.push("=");
            flag.push(to);
            flag
        })
}

impl Toolchain {
    /// A cargo that can build for the targets this toolchain was made for.
    pub fn cargo(&self) -> Command {
        self.prepare(cargo())
    }

    /// A cargo that builds for `board`'s core: for its target, with its flags.
    pub fn cargo_for(&self, board: &Board) -> Command {
        self.with_flags(self.cargo(), board)
    }

    /// A clippy that sees what is built for `board`; its first argument must be a cargo option.
    pub fn clippy_for(&self, board: &Board) -> Command {
        self.with_flags(self.clippy(), board)
    }

    fn with_flags(&self, mut command: Command, board: &Board) -> Command {
        let target = board.target.to_uppercase().replace(['-', '.'], "_");
        let name = format!("CARGO_TARGET_{target}_RUSTFLAGS");
        let own = self.env.iter().find(|(own, _)| *own == name);
        let mut flags: Vec<OsString> = own.iter().map(|(_, flag)| flag.into()).collect();
        flags.extend(board.rustflags.iter().map(OsString::from));
        flags.extend(short_paths());
        command.env(ENCODED, encoded(&flags));
        command
    }

    /// A clippy of the same compiler; its first argument must be a cargo option.
    pub fn clippy(&self) -> Command {
        let mut command = match &self.clippy {
            Some(program) => Command::new(program),
            None => cargo(),
        };
        command.arg("clippy");
        self.prepare(command)
    }

    fn prepare(&self, mut command: Command) -> Command {
        // Flags from the user's environment would replace the target's own.
        for name in ["RUSTFLAGS", ENCODED, "RUSTC", "RUSTC_WRAPPER"] {
            command.env_remove(name);
        }
        for (name, value) in &self.env {
            command.env(name, value);
        }
        command
    }
}

/// Makes `targets` buildable and says how to call cargo for them.
pub fn toolchain(targets: &[&str], way: Way) -> Result<Toolchain> {
    if way == Way::FromSource {
        return source::toolchain(targets);
    }
    let missing = missing(targets)?;
    if missing.is_empty() {
        return Ok(Toolchain::default());
    }
    if source::is_ready(&missing) {
        // rustup failed here before; asking it each time would only take time.
        return source::toolchain(targets);
    }
    let names = missing.join(" ");
    let Some(reason) = add(&missing)? else {
        return Ok(Toolchain::default());
    };
    step(format!("{reason}; building core from source instead"));
    source::toolchain(targets).with_context(|| {
        format!("the bare-metal targets {names} cannot be had; `rustup target add {names}` on a machine with network would do")
    })
}

/// Asks rustup for `targets`; the answer is why the active toolchain cannot have them.
pub fn add(targets: &[&str]) -> Result<Option<String>> {
    if !exists("rustup") {
        return Ok(Some("rustup is not installed".to_string()));
    }
    step(format!("rustup target add {}", targets.join(" ")));
    let mut rustup = Command::new("rustup");
    Ok(match output(rustup.args(["target", "add"]).args(targets)) {
        Ok(_) if missing(targets)?.is_empty() => None,
        Ok(_) => {
            Some("rustup added the targets to another toolchain than the active one".to_string())
        }
        Err(error) => Some(first_line(&error)),
    })
}

/// The targets that the active toolchain cannot build for.
pub fn missing<'a>(targets: &[&'a str]) -> Result<Vec<&'a str>> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut missing = Vec::new();
    for target in targets {
        let mut command = Command::new(&rustc);
        command.args(["--print", "target-libdir", "--target", target]);
        let dir = PathBuf::from(tool::output(&mut command)?.trim());
        if !source::has_core(&dir) {
            missing.push(*target);
        }
    }
    Ok(missing)
}

/// The first line of what went wrong.
pub fn first_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.lines().next().unwrap_or_default().to_string()
}
