//! QEMU from the system's package manager.

use std::process::Command;

use anyhow::{Result, bail};

use crate::boards::Board;
use crate::tool::{exists, output, step};

/// A package manager and what QEMU's two programs are called in it.
struct Manager {
    program: &'static str,
    install: &'static [&'static str],
    arm: &'static str,
    riscv: &'static str,
}

const MANAGERS: [Manager; 5] = [
    Manager {
        program: "apt-get",
        install: &["install", "-y", "-qq", "--no-install-recommends"],
        arm: "qemu-system-arm",
        riscv: "qemu-system-misc",
    },
    Manager {
        program: "dnf",
        install: &["install", "-y"],
        arm: "qemu-system-arm",
        riscv: "qemu-system-riscv",
    },
    Manager {
        program: "pacman",
        install: &["-S", "--noconfirm"],
        arm: "qemu-system-arm",
        riscv: "qemu-system-riscv",
    },
    Manager {
        program: "zypper",
        install: &["--non-interactive", "install"],
        arm: "qemu-arm",
        riscv: "qemu-extra",
    },
    Manager {
        program: "brew",
        install: &["install"],
        arm: "qemu",
        riscv: "qemu",
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
    if output(command.args(manager.install).args(&packages)).is_err() {
        bail!("the emulator could not be installed: install the {word} {names}");
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
