//! Other people's interpreters (`tests/oracle/README.md`).

use std::path::{Path, PathBuf};

/// The interpreter of the Python environment that FOOLPROOF_ORACLE names, else of the one that `cargo xtask setup
/// --oracle` made. Says that nothing is compared where there is none.
pub fn python() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("FOOLPROOF_ORACLE").filter(|folder| !folder.is_empty()) {
        return Some(Path::new(&folder).join("bin/python"));
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("oracle");
    let python = folder.join("bin/python");
    if folder.join("installed.txt").is_file() && python.is_file() {
        return Some(python);
    }
    eprintln!(
        "SKIPPED: `cargo xtask setup --oracle` did not run, so nothing was compared with the vendor's interpreter"
    );
    None
}
