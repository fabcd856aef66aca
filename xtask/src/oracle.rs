//! Other people's interpreters, for tests: a Python environment below the target folder.
//!
//! `tests/oracle/requirements.txt` pins what lies in it. The tests look for it beside their own outputs, or where the
//! environment variable FOOLPROOF_ORACLE says.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tool::{find, output, root, step, target_dir};

/// Where the tests find the environment.
pub const VARIABLE: &str = "FOOLPROOF_ORACLE";

/// What came of it.
pub enum Oracle {
    /// The environment's folder.
    Ready(PathBuf),
    /// It cannot be had on this machine: why.
    Unavailable(String),
}

/// Makes the environment, unless it is there with the packages that are pinned now.
pub fn install() -> Result<Oracle> {
    if let Some(folder) = env::var_os(VARIABLE).filter(|folder| !folder.is_empty()) {
        let folder = PathBuf::from(folder);
        if !python_in(&folder).is_file() {
            bail!(
                "{VARIABLE} is {}, which is no Python environment",
                folder.display()
            );
        }
        return Ok(Oracle::Ready(folder));
    }
    let list = root().join("tests/oracle/requirements.txt");
    let pinned =
        fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
    let folder = target_dir().join("oracle");
    // Written last: a half-made environment has no such file.
    let stamp = folder.join("installed.txt");
    let installed = fs::read_to_string(&stamp).unwrap_or_default();
    if installed == pinned && output(Command::new(python_in(&folder)).arg("--version")).is_ok() {
        return Ok(Oracle::Ready(folder));
    }
    let Some(python) = find_python() else {
        return Ok(Oracle::Unavailable(
            "no python3 of version 3.11 to 3.13 is on the path".to_string(),
        ));
    };
    step(format!(
        "interpreters to compare with, in {}",
        folder.display()
    ));
    let mut make = Command::new(python);
    if let Err(error) = output(make.args(["-m", "venv", "--clear"]).arg(&folder)) {
        return Ok(Oracle::Unavailable(last_line(&error)));
    }
    let mut pip = Command::new(python_in(&folder));
    pip.args(["-m", "pip", "install", "--quiet", "--no-input"]);
    pip.args(["--only-binary", ":all:", "--retries", "2", "--requirement"])
        .arg(&list);
    if let Err(error) = output(&mut pip) {
        let text = format!("{error:#}");
        let unreachable = [
            "connection",
            "Connection",
            "timed out",
            "ProxyError",
            "Max retries",
            "name resolution",
        ];
        if unreachable.iter().any(|word| text.contains(word)) {
            return Ok(Oracle::Unavailable(
                "the Python package index cannot be reached".to_string(),
            ));
        }
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Ok(Oracle::Unavailable(last_line(&error)));
        }
        return Err(error.context("installing tests/oracle/requirements.txt"));
    }
    fs::write(&stamp, pinned).with_context(|| format!("writing {}", stamp.display()))?;
    Ok(Oracle::Ready(folder))
}

/// The environment's interpreter.
fn python_in(folder: &Path) -> PathBuf {
    let program = if cfg!(windows) {
        "Scripts/python.exe"
    } else {
        "bin/python"
    };
    folder.join(program)
}

/// A Python that the pinned packages are built for.
fn find_python() -> Option<PathBuf> {
    let fits = "import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))";
    [
        "python3",
        "python3.13",
        "python3.12",
        "python3.11",
        "python",
    ]
    .into_iter()
    .filter_map(find)
    .find(|python| output(Command::new(python).args(["-c", fits])).is_ok())
}

fn last_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.lines().last().unwrap_or_default().trim().to_string()
}
