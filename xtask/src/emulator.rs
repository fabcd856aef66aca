//! QEMU from the system's package manager.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt::Apt;
use crate::boards::Board;
use crate::tool::{exists, find, output, put, scratch, step};

/// A package manager and what QEMU's programs are called in it.
struct Manager {
    program: &'static str,
    install: &'static [&'static str],
    arm: &'static str,
    riscv: &'static str,
    /// Programs of other processors on this system, if it can have them.
    user: Option<&'static str>,
}

const MANAGERS: [Manager; 5] = [
    Manager {
        program: "apt-get",
        install: &["install", "-y", "-qq", "--no-install-recommends"],
        arm: "qemu-system-arm",
        riscv: "qemu-system-misc",
        user: Some("qemu-user-static"),
    },
    Manager {
        program: "dnf",
        install: &["install", "-y"],
        arm: "qemu-system-arm",
        riscv: "qemu-system-riscv",
        user: Some("qemu-user-static"),
    },
    Manager {
        program: "pacman",
        install: &["-S", "--noconfirm"],
        arm: "qemu-system-arm",
        riscv: "qemu-system-riscv",
        user: Some("qemu-user-static"),
    },
    Manager {
        program: "zypper",
        install: &["--non-interactive", "install"],
        arm: "qemu-arm",
        riscv: "qemu-extra",
        user: Some("qemu-linux-user"),
    },
    Manager {
        program: "brew",
        install: &["install"],
        arm: "qemu",
        riscv: "qemu",
        user: None,
    },
];

/// The emulator of `board`, which ends by itself after some seconds: exact instruction counts, no devices but the board's own,
/// semihosting. `-kernel ELF` is still to be added.
pub fn command(board: &Board, seconds: u32) -> Command {
    let mut emulator = Command::new("timeout");
    emulator.arg(seconds.to_string()).arg(&board.qemu);
    emulator.args(["-machine", &board.machine, "-icount", &board.icount]);
    emulator.args(&board.args);
    emulator.args(["-nodefaults", "-display", "none", "-monitor", "none"]);
    emulator.args(["-semihosting-config", "enable=on,target=native"]);
    emulator
}

/// Installs the emulators of `boards` that are missing, or says which package has them.
pub fn install(boards: &[Board]) -> Result<()> {
    let arm = is_missing(boards, "qemu-system-arm");
    let riscv = is_missing(boards, "qemu-system-riscv32");
    if !arm && !riscv {
        return Ok(());
    }
    let Some(manager) = MANAGERS.iter().find(|manager| exists(manager.program)) else {
        let programs = [(arm, "qemu-system-arm"), (riscv, "qemu-system-riscv32")];
        let missing = programs.iter().filter(|(is_missing, _)| *is_missing);
        let names: Vec<&str> = missing.map(|(_, name)| *name).collect();
        bail!(
            "the emulator is missing: install QEMU with {}",
            names.join(" and ")
        );
    };
    let mut packages = Vec::new();
    if arm {
        packages.push(manager.arm);
    }
    if riscv {
        packages.push(riscv_package(manager));
    }
    install_packages(manager, &packages)
}

fn install_packages(manager: &Manager, packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    let word = if packages.len() == 1 {
        "package"
    } else {
        "packages"
    };
    let Some(mut command) = as_root(manager.program) else {
        bail!("the emulator is missing: install the {word} {names}");
    };
    if manager.program == "apt-get" {
        if !has_candidate(manager.arm)
            && let Some(mut update) = as_root(manager.program)
        {
            step("fetching the package lists");
            output(update.args(["-qq", "update"]))?;
        }
        command.env("DEBIAN_FRONTEND", "noninteractive");
    }
    step(format!("installing {names}"));
    if output(command.args(manager.install).args(packages)).is_err() {
        bail!("the emulator could not be installed: install the {word} {names}");
    }
    Ok(())
}

/// What the user-mode emulator of 64-bit Arm is called: linked statically, as Debian has it, or not.
const USER_MODE: [&str; 2] = ["qemu-aarch64-static", "qemu-aarch64"];

/// The emulator of 64-bit Arm's Linux programs, installed if it is missing; on Debian and its relatives it is unpacked in the cache.
pub fn user_mode(cache: &Path) -> Result<PathBuf> {
    let own = cache.join("qemu-user");
    let unpacked = |name| Some(own.join(name)).filter(|file| file.is_file());
    let there = || {
        let mut names = USER_MODE.into_iter();
        names.find_map(|name| find(name).or_else(|| unpacked(name)))
    };
    if let Some(program) = there() {
        return Ok(program);
    }
    let manager = MANAGERS.iter().find(|manager| exists(manager.program));
    match manager.and_then(|manager| Some((manager, manager.user?))) {
        Some((Manager { program, .. }, package)) if *program == "apt-get" => {
            unpack(cache, package, &own)?;
        }
        Some((manager, package)) => install_packages(manager, &[package])?,
        None => {}
    }
    there().with_context(|| {
        format!(
            "the emulator is missing: install {}",
            USER_MODE.join(" or ")
        )
    })
}

/// Unpacks the user-mode emulator of Debian's `package` to the folder `own`, and nothing else of the many that it holds.
fn unpack(cache: &Path, package: &str, own: &Path) -> Result<()> {
    let apt = Apt::with(cache, package, |_| true)?;
    let work = scratch(cache, "emulator")?;
    // In newer versions the first package holds links to the programs of the second.
    for package in [package, "qemu-user"] {
        apt.unpack(cache, &[package.to_string()], &work.path)?;
        for name in USER_MODE {
            let program = work.path.join("usr/bin").join(name);
            if program.is_file() {
                let ready = work.path.join("ready");
                fs::create_dir_all(&ready)?;
                fs::copy(program, ready.join(name))?;
                return put(&ready, own);
            }
        }
    }
    Ok(())
}

fn is_missing(boards: &[Board], program: &str) -> bool {
    boards.iter().any(|board| board.qemu == program) && !exists(program)
}

/// Debian moved RISC-V from `qemu-system-misc` to a package of its own.
fn riscv_package(manager: &Manager) -> &'static str {
    if manager.program == "apt-get" && has_candidate("qemu-system-riscv") {
        "qemu-system-riscv"
    } else {
        manager.riscv
    }
}

fn has_candidate(package: &str) -> bool {
    let mut ask = Command::new("apt-cache");
    ask.env("LC_ALL", "C").args(["policy", package]);
    output(&mut ask).is_ok_and(|text| {
        text.lines()
            .filter_map(|line| line.trim().strip_prefix("Candidate: "))
            .any(|version| version != "(none)")
    })
}

/// `program`, run as root if that needs no password; Homebrew wants no root.
fn as_root(program: &str) -> Option<Command> {
    let is_root = output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if is_root || program == "brew" {
        return Some(Command::new(program));
    }
    output(Command::new("sudo").args(["-n", "true"])).ok()?;
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    Some(command)
}
