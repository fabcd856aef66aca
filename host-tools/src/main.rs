//! The `foolproof` command.

fn main() -> std::process::ExitCode {
    foolproof_host::cli::run()
}
