//! Nothing that was started for an emulation, and no program that is attacked, outlives the program that asked for it.
//!
//! Two ends must be met. An orderly one, or SIGINT, SIGTERM or SIGHUP: [`remove_folders_on_signals`] removes what lies in the
//! folder for temporary files. And SIGKILL, after which no code of ours runs. Files are then left until the next run: each folder holds
//! a file that is locked as long as its owner lives, and a new run removes the folders whose lock is free. Only the kernel can end the emulator. So it
//! is the leader of a session of its own, on a pseudo-terminal whose other end nobody but this process holds. When this
//! process ends, however it does, the kernel closes that end, and the emulator gets SIGHUP, upon which QEMU quits.
//!
//! The other ways were weighed. QEMU 7.2 ends at the end of no pipe or socket that it was given. Linux's `PR_SET_PDEATHSIG`
//! is Linux's alone, fires when the *thread* ends that started the child, and wants `unsafe` here. A supervising process would
//! have to be a program of its own, which a library does not have.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::spawn;

use anyhow::{Context, Result};
use pty_process::blocking::{Command, Pty, open};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// The folders that exist now.
static FOLDERS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// How the names of our temporary folders begin.
const PREFIX: &str = "foolproof-";

/// The file in each of them that its owner keeps locked.
const LOCK: &str = "lock";

/// A temporary folder. Dropping it removes it, and so does a signal; after SIGKILL the next run does.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Locked; the system lets go when this process ends, however it does.
    _lock: File,
}

impl Folder {
    pub fn new() -> Result<Self> {
        // Held while the folder is made: after a signal there are no new ones.
        let mut folders = folders();
        remove_abandoned(&std::env::temp_dir());
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir()
            .context("creating a temporary folder")?;
        let lock = lock(folder.path()).context("locking a temporary folder")?;
        let path = folder.keep();
        folders.insert(path.clone());
        Ok(Folder { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let mut folders = folders();
        // What cannot be removed is left to the system, which empties this place now and then.
        let _ = std::fs::remove_dir_all(&self.path);
        folders.remove(&self.path);
    }
}

/// The file of [`LOCK`], locked before it has that name: nobody sees it unlocked while its owner lives.
fn lock(folder: &Path) -> std::io::Result<File> {
    let early = folder.join("lock.new");
    let file = File::create(&early)?;
    file.lock()?;
    std::fs::rename(early, folder.join(LOCK))?;
    Ok(file)
}

/// Removes what runs left behind that were killed. What cannot be read, locked or removed is somebody else's, or in use.
fn remove_abandoned(place: &Path) {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    for entry in entries {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !ours || !is_folder {
            continue;
        }
        let Ok(lock) = File::open(entry.path().join(LOCK)) else {
            continue;
        };
        if lock.try_lock().is_ok() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Holding it keeps the child alive.
pub(crate) struct Leash {
    _end: Pty,
}

impl std::fmt::Debug for Leash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Leash")
    }
}

/// Starts `command`, which gets SIGHUP when the leash goes, or this process with it. It leads a session and a process group
/// of its own. Its stdout is a pipe.
pub(crate) fn spawn_on_leash(
    command: std::process::Command,
    stdin: Stdio,
    stderr: Stdio,
) -> pty_process::Result<(Child, Leash)> {
    let (end, other) = open()?;
    if is_ignored(SIGHUP) {
        // as by `nohup`; the child would ignore it too. A signal that does nothing here is the child's to die of.
        flag::register(SIGHUP, Arc::default())?;
    }
    // What is not set here would be the pseudo-terminal.
    let child = Command::from(command)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn(other)?;
    Ok((child, Leash { _end: end }))
}

/// From now on SIGINT, SIGTERM and SIGHUP remove the temporary folders before they end this process, as they would have anyway.
/// A signal that this process was started to ignore (as by `nohup`) stays ignored, where the system tells.
///
/// # Errors
/// The system refuses a handler.
pub fn remove_folders_on_signals() -> Result<()> {
    let handled = [SIGINT, SIGTERM, SIGHUP]
        .into_iter()
        .filter(|&signal| !is_ignored(signal));
    let mut signals = Signals::new(handled).context("handling signals")?;
    spawn(move || {
        for signal in signals.forever() {
            let folders = folders();
            for folder in folders.iter() {
                // What cannot be removed stays: there is nobody left to tell.
                let _ = std::fs::remove_dir_all(folder);
            }
            // Ends this process as the signal does where nobody handles it; the emulators follow.
            let _ = emulate_default_handler(signal);
        }
    });
    Ok(())
}

/// Whether this process ignores a signal; no where the system does not say.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or(0) >> (signal - 1) & 1 == 1
}

fn folders() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_is_removed_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let folder = place.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("image.fpi"), b"x").unwrap();
            folder
        };
        let (killed, alive) = (make("foolproof-killed"), make("foolproof-alive"));
        let (unlocked, other) = (make("foolproof-other"), make("other"));
        drop(lock(&killed).unwrap());
        let held = lock(&alive).unwrap();
        drop(lock(&other).unwrap());
        remove_abandoned(place.path());
        assert!(!killed.exists());
        assert!(alive.exists() && unlocked.exists() && other.exists());
        drop(held);
        remove_abandoned(place.path());
        assert!(!alive.exists() && unlocked.exists() && other.exists());
        remove_abandoned(&place.path().join("nothing"));
    }
}
