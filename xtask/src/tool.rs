//! Running other programs, and where things lie.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the repository")
}

/// The folder for build outputs, as cargo sees it.
pub fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => env::current_dir().unwrap_or_default().join(dir),
        None => root().join("target"),
    }
}

/// The user's cache folder for foolproof, created.
pub fn cache_dir() -> Result<PathBuf> {
    let base = match (env::var_os("XDG_CACHE_HOME"), env::home_dir()) {
        (Some(dir), _) if Path::new(&dir).is_absolute() => PathBuf::from(dir),
        (_, Some(home)) => home.join(".cache"),
        _ => bail!("neither XDG_CACHE_HOME nor HOME says where a cache may lie"),
    };
    let dir = base.join("foolproof");
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    Ok(dir)
}

/// Waits until no other xtask changes the cache; the lock is held until it is dropped.
pub fn lock(cache: &Path) -> Result<File> {
    let lock = File::create(cache.join("setup.lock")).context("the cache's lock file")?;
    lock.lock().context("locking the cache")?;
    Ok(lock)
}

/// A folder that is removed again.
pub struct Scratch {
    pub path: PathBuf,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A folder in the cache for work in progress.
pub fn scratch(cache: &Path, name: &str) -> Result<Scratch> {
    let path = cache.join(format!("tmp-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
    Ok(Scratch { path })
}

/// Moves a finished folder to its place in one step.
pub fn put(ready: &Path, place: &Path) -> Result<()> {
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::rename(ready, place).with_context(|| format!("moving to {}", place.display()))
}

/// The cargo that runs this xtask.
pub fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Whether `program` can be found on the path.
pub fn exists(program: &str) -> bool {
    find(program).is_some()
}

/// Where `program` lies on the path.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Runs `command` and returns what it printed; the error holds its last words.
pub fn output(command: &mut Command) -> Result<String> {
    let name = describe(command);
    let result = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {name}"))?;
    if !result.status.success() {
        let stderr = String::from_utf8_lossy(&result.stderr);
        let tail: Vec<&str> = stderr.lines().rev().take(12).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("{name} failed ({}): {}", result.status, tail.join("\n"));
    }
    String::from_utf8(result.stdout).with_context(|| format!("{name} printed no text"))
}

/// Runs `command` with its output on our stderr, so that our stdout stays ours.
pub fn run(command: &mut Command) -> Result<()> {
    let name = describe(command);
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("starting {name}"))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}

/// Says what is being done, on stderr.
pub fn step(text: impl AsRef<str>) {
    eprintln!("xtask: {}", text.as_ref());
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut words = vec![program.file_name().unwrap_or_default()];
    words.extend(command.get_args().take(4));
    words
        .iter()
        .map(|word: &&OsStr| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
