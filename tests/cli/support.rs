//! Runs the `foolproof` binary.

use std::path::PathBuf;
use std::process::{Command, Output};

/// A folder of inputs that goes away with it, and the binary run inside it.
pub struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `foolproof` with the words of `line`.
    pub fn run(&self, line: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_foolproof"))
            .args(line.split_whitespace())
            .current_dir(self.folder.path())
            .output()
            .expect("the foolproof binary runs")
    }

    // not every test binary trains
    #[allow(dead_code)]
    /// Trains a model for one epoch into `trained/model.fpi`: a valid model, of no use.
    pub fn train(&self) {
        let output = self.run("train classifier --data digits --epochs 1 --out trained");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
