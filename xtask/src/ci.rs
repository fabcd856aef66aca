//! Every check that must pass before a change is merged.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::oracle::{self, Oracle};
use crate::setup::{self, Toolchain, Way};
use crate::tool::{cargo, root, step};
use crate::{aarch64, bench_chip, boards, emulator, firmware, flash, targets};

/// The outcome of one check.
struct Check {
    name: String,
    outcome: Outcome,
    time: Duration,
}

enum Outcome {
    Passed,
    /// Not possible on this machine: why.
    Skipped(String),
    Failed,
}

/// Runs all checks, prints a table, and fails if any check failed.
pub fn run(way: Way) -> Result<ExitCode> {
    let boards = boards::select(&[])?;
    let mut checks = Checks::default();

    checks.cargo("format", &["fmt", "--all", "--check"]);
    checks.run("format, firmware", || {
        let firmware = root().join("firmware");
        crate::tool::run(cargo().current_dir(firmware).args(["fmt", "--check"]))
    });
    checks.cargo(
        "lints",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--locked",
            "--",
            "-D",
            "warnings",
        ],
    );
    checks.run("docs", || {
        // The engine's library and the host's program have one name: libraries only.
        let mut doc = cargo();
        doc.current_dir(root()).env("RUSTDOCFLAGS", "-D warnings");
        doc.args(["doc", "-p", "foolproof", "-p", "foolproof-host"]);
        crate::tool::run(doc.args(["--lib", "--no-deps", "--locked"]))
    });

    let mut toolchain = None;
    checks.run("bare-metal targets", || {
        toolchain = Some(setup::toolchain(&targets(&boards), way)?);
        Ok(())
    });
    checks.run("emulators", || emulator::install(&boards));
    if let Some(toolchain) = &toolchain {
        bare_metal(&mut checks, toolchain, &boards);
    }
    emulated(&mut checks, way);
    let mut oracle = None;
    checks.run_or_skip("vendors' interpreters", || match oracle::install()? {
        Oracle::Ready(folder) => {
            oracle = Some(folder);
            Ok(None)
        }
        Oracle::Unavailable(why) => Ok(Some(why)),
    });
    // The tests build firmware themselves: let them go the same way.
    checks.run("tests", || {
        let mut test = cargo();
        test.current_dir(root());
        if way == Way::FromSource {
            test.env("FOOLPROOF_SETUP", "from-source");
        }
        if let Some(folder) = &oracle {
            test.env(oracle::VARIABLE, folder);
        }
        crate::tool::run(test.args(["test", "--workspace", "--no-fail-fast", "--locked"]))
    });
    Ok(checks.verdict())
}

/// The boards that a program with one model is built for: M4F and M55.
const FLASHED: [&str; 2] = ["mps2-an386", "mps3-an547"];

/// The checks that need a bare-metal compiler.
fn bare_metal(checks: &mut Checks, toolchain: &Toolchain, boards: &[boards::Board]) {
    // Features that another package turns on would hide a `std` that slipped into the engine.
    checks.run("engine alone, no_std", || {
        let mut build = toolchain.cargo();
        build
            .current_dir(root())
            .args(["build", "--package", "foolproof", "--lib", "--release"]);
        build.args([
            "--no-default-features",
            "--locked",
            "--target",
            "thumbv6m-none-eabi",
        ]);
        build.arg("--target-dir").arg(firmware::folder());
        crate::tool::run(&mut build)
    });
    checks.run("instructions of layers", || {
        bench_chip::run(boards, toolchain, false)
    });
    checks.run_or_skip("flash of one model", || {
        let model = root().join("../shared/data/models/person_detect.tflite");
        if !model.is_file() {
            return Ok(Some(format!("{} is not there", model.display())));
        }
        let boards = boards
            .iter()
            .filter(|board| FLASHED.contains(&&*board.name));
        let boards: Vec<_> = boards.cloned().collect();
        flash::check(&boards, toolchain, &model).map(|()| None)
    });
    for board in boards {
        checks.run(format!("firmware, {}", board.name), || {
            firmware::build_with(board, toolchain).map(|_| ())
        });
        checks.run(format!("lints, {}", board.name), || {
            let mut clippy = toolchain.clippy_for(board);
            clippy.current_dir(root().join("firmware"));
            clippy.args(["--release", "--locked", "--quiet"]);
            clippy.args(firmware::board_arguments(board));
            // `infer` has a model compiled in: any will do
            let golden = root().join("tests/golden/dense.fpi");
            clippy.args(["--features", "infer"]);
            for name in ["FOOLPROOF_IMAGE", "FOOLPROOF_INPUT"] {
                clippy.env(name, &golden);
            }
            clippy.arg("--target-dir").arg(firmware::builds(board));
            crate::tool::run(clippy.args(["--", "-D", "warnings"]))
        });
    }
}

/// The checks of the engine on another processor than the host's.
fn emulated(checks: &mut Checks, way: Way) {
    let mut machine = None;
    checks.run_or_skip("aarch64 under emulation", || match aarch64::set_up(way) {
        Ok(ready) => {
            machine = Some(ready);
            Ok(None)
        }
        Err(error) => Ok(Some(setup::first_line(&error))),
    });
    if let Some(machine) = &machine {
        checks.run("engine alone, aarch64", || machine.build());
        checks.run("lints, aarch64", || machine.lint());
        checks.run("tests, aarch64", || machine.test());
    }
}

#[derive(Default)]
struct Checks {
    done: Vec<Check>,
}

impl Checks {
    fn run(&mut self, name: impl Into<String>, check: impl FnOnce() -> Result<()>) {
        self.run_or_skip(name, || check().map(|()| None));
    }

    /// `check` may answer why it cannot be made on this machine.
    fn run_or_skip(
        &mut self,
        name: impl Into<String>,
        check: impl FnOnce() -> Result<Option<String>>,
    ) {
        let name = name.into();
        step(format!("check: {name}"));
        let start = Instant::now();
        let outcome = match check() {
            Ok(None) => Outcome::Passed,
            Ok(Some(why)) => {
                step(format!("SKIPPED: {name}: {why}"));
                Outcome::Skipped(why)
            }
            Err(error) => {
                step(format!("FAILED: {name}: {error:#}"));
                Outcome::Failed
            }
        };
        self.done.push(Check {
            name,
            outcome,
            time: start.elapsed(),
        });
    }

    fn cargo(&mut self, name: &str, arguments: &[&str]) {
        self.run(name, || {
            crate::tool::run(cargo().current_dir(root()).args(arguments))
        });
    }

    /// The table of all checks, and the exit code.
    fn verdict(&self) -> ExitCode {
        eprintln!();
        for check in &self.done {
            let (mark, why) = match &check.outcome {
                Outcome::Passed => ("ok", ""),
                Outcome::Skipped(why) => ("SKIPPED", why.as_str()),
                Outcome::Failed => ("FAILED", ""),
            };
            let seconds = check.time.as_secs_f32();
            eprintln!("{:<28} {mark:<8}{seconds:>7.1} s  {why}", check.name);
        }
        let count =
            |wanted: fn(&Outcome) -> bool| self.done.iter().filter(|c| wanted(&c.outcome)).count();
        let failed = count(|outcome| matches!(outcome, Outcome::Failed));
        let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
        let total = self.done.len();
        match (failed, skipped) {
            (0, 0) => eprintln!("all {total} checks passed"),
            (0, _) => eprintln!("{} checks passed, {skipped} SKIPPED", total - skipped),
            _ => eprintln!("{failed} of {total} checks failed"),
        }
        if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
