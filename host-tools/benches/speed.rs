//! `cargo bench -p foolproof-host`: what `foolproof bench` measures, by the same program; `-- MODEL`, `-- --only gemm-512` and its other arguments
//! as there. Its harness is the command's own (`host-tools/src/bench/`): figures of one run, to be compared with each other.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    // Cargo tells every benchmark that it is one
    let args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let mut bench = Command::new(env!("CARGO_BIN_EXE_foolproof"));
    match bench.arg("bench").args(args).status() {
        Ok(status) => ExitCode::from(status.code().unwrap_or(1) as u8),
        Err(error) => {
            eprintln!("{}: {error}", bench.get_program().display());
            ExitCode::FAILURE
        }
    }
}
