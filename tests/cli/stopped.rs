//! A command that is stopped from outside leaves no emulator behind, and no files where a signal lets it clean up.
#![cfg(target_os = "linux")]

mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::Bench;

/// The processes that run and name `word` in their command line; one that has ended and waits to be reaped has none.
fn processes_that_name(word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        // A process may end while it is read.
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(word) && line.contains("qemu") {
            found.push(line);
        }
    }
    found
}

/// Whether this process, and so its children, ignores `signal`: under `nohup`, or in the background of a script.
fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = u64::from_str_radix(mask.unwrap().trim(), 16).unwrap();
    mask >> (signal.as_raw() - 1) & 1 == 1
}

/// Waits until `is_so`, at most `limit`; whether it came to be so.
fn wait_until(limit: Duration, is_so: impl Fn() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        if is_so() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    is_so()
}

#[test]
fn nothing_outlives_a_command_that_is_stopped() {
    let bench = Bench::new();
    bench.train();
    for way in ["run", "eval"] {
        for signal in [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP] {
            let name = format!("{way}-{}", signal.as_raw());
            if is_ignored(signal) {
                eprintln!("SKIPPED: {name}: whoever runs this test has it ignore the signal");
                continue;
            }
            let folder = bench.path(&name);
            fs::create_dir(&folder).unwrap();
            let mark = format!("{}/foolproof-", folder.display());
            // Minutes of work for the chip.
            let line = format!(
                "device {way} --model trained/model.fpi --data digits --attack pgd --steps 500 --eps 0.3"
            );
            let mut child = Command::new(env!("CARGO_BIN_EXE_foolproof"))
                .args(line.split_whitespace())
                .current_dir(bench.path("."))
                .env("TMPDIR", &folder)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // The firmware may have to be built first.
            let started = wait_until(Duration::from_secs(300), || {
                !processes_that_name(&mark).is_empty()
            });
            assert!(started, "{name}: no emulator was started");
            kill_process(Pid::from_child(&child), signal).unwrap();
            let status = child.wait().unwrap();
            assert_eq!(
                std::os::unix::process::ExitStatusExt::signal(&status),
                Some(signal.as_raw()),
                "{name}: {status}"
            );
            let is_gone = wait_until(Duration::from_secs(2), || {
                processes_that_name(&mark).is_empty()
            });
            assert!(is_gone, "{name}: {:?}", processes_that_name(&mark));
            let left = fs::read_dir(&folder).unwrap().count();
            assert!(
                signal == Signal::KILL || left == 0,
                "{name}: {left} files left"
            );
        }
    }
}
