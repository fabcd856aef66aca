//! QEMU as a chip: the firmware runs under a time limit, its serial line is a socket, its log is
//! decoded.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pty_process::Error as PtyError;

use super::guard::{Folder, Leash, spawn_on_leash};
use super::log::Decoder;
use super::{Board, Line};

/// How an emulator runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The emulator is killed after this time.
    pub limit: Duration,
    /// The bytes of the board's slot; empty: an empty slot.
    pub slot: Vec<u8>,
    /// Whether log lines also go to stderr.
    pub verbose: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            limit: Duration::from_secs(120),
            slot: Vec::new(),
            verbose: false,
        }
    }
}

/// How a firmware ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The exit code; `None` if the emulator was killed.
    pub code: Option<i32>,
    /// Whether it was killed because its time was over.
    pub timed_out: bool,
    /// The firmware's log, as "level: text".
    pub log: Vec<String>,
}

/// A running emulator. Dropping it kills it and removes its files; it never outlives this process.
pub struct Emulator {
    name: String,
    limit: Duration,
    shared: Arc<Mutex<Shared>>,
    socket: UnixStream,
    watchdog: Option<(Sender<()>, JoinHandle<()>)>,
    readers: Vec<JoinHandle<()>>,
    _leash: Leash,
    _folder: Folder,
}

/// What the emulator's threads share.
struct Shared {
    child: Child,
    timed_out: bool,
    log: Vec<String>,
    /// The emulator's own last complaints.
    complaints: VecDeque<String>,
}

impl Emulator {
    /// Starts the firmware `elf` on an emulated `board`.
    pub fn start(board: &Board, elf: &Path, options: Options) -> Result<Self> {
        let decoder = std::fs::read(elf)
            .with_context(|| format!("reading {}", elf.display()))
            .and_then(|bytes| Decoder::new(&bytes))?;
        ensure!(
            options.slot.len() <= board.slot.size as usize,
            "{} bytes do not fit the slot of {}, which has {}",
            options.slot.len(),
            board.name,
            board.slot.size
        );
        let folder = Folder::new()?;
        let path = folder.path().join("uart");
        let listener = UnixListener::bind(&path)
            .with_context(|| format!("listening on {}", path.display()))?;
        listener.set_nonblocking(true)?;

        let mut command = Command::new(&board.qemu);
        command
            .args(["-machine", &board.machine, "-icount", &board.icount])
            .args(&board.args)
            .args(["-nodefaults", "-display", "none", "-monitor", "none"])
            .args(["-semihosting-config", "enable=on,target=native"])
            .arg("-chardev")
            .arg(joined("socket,id=uart,path=", &path))
            .args(["-serial", "chardev:uart", "-kernel"])
            .arg(elf);
        if !options.slot.is_empty() {
            let file = folder.path().join("slot");
            std::fs::write(&file, &options.slot).context("writing the slot's file")?;
            let mut device = joined("loader,force-raw=on,file=", &file);
            device.push(format!(",addr={:#x}", board.slot.address));
            command.arg("-device").arg(device);
        }
        let (mut child, leash) = match spawn_on_leash(command, Stdio::null(), Stdio::piped()) {
            Err(PtyError::Io(error)) if error.kind() == io::ErrorKind::NotFound => bail!(
                "{} is not installed; `cargo xtask setup --board {}` installs it or names its package",
                board.qemu,
                board.name
            ),
            result => result.with_context(|| format!("starting {}", board.qemu))?,
        };
        let pipes = (child.stdout.take(), child.stderr.take());
        let shared = Arc::new(Mutex::new(Shared {
            child,
            timed_out: false,
            log: Vec::new(),
            complaints: VecDeque::new(),
        }));
        let (stop, stopped) = channel();
        let watchdog = spawn({
            let shared = Arc::clone(&shared);
            move || watch(&shared, options.limit, &stopped)
        });
        let mut readers = Vec::new();
        if let (Some(stdout), Some(stderr)) = pipes {
            readers.push(spawn({
                let shared = Arc::clone(&shared);
                move || {
                    decoder.run(stdout, |line| {
                        if options.verbose {
                            let _ = writeln!(std::io::stderr(), "chip: {line}");
                        }
                        lock(&shared).log.push(line);
                    });
                }
            }));
            readers.push(spawn({
                let shared = Arc::clone(&shared);
                move || complaints(&shared, stderr)
            }));
        }
        let socket = accept(&listener, &shared);
        let mut emulator = Emulator {
            name: board.name.clone(),
            limit: options.limit,
            shared,
            // Until the emulator has connected, a socket that nobody else holds.
            socket: UnixStream::pair()?.0,
            watchdog: Some((stop, watchdog)),
            readers,
            _leash: leash,
            _folder: folder,
        };
        match socket {
            Some(socket) => emulator.socket = socket,
            None => bail!("{}", emulator.why_silent()),
        }
        Ok(emulator)
    }

    /// The firmware's log so far, as "level: text".
    pub fn log(&self) -> Vec<String> {
        lock(&self.shared).log.clone()
    }

    /// Kills the emulator at once.
    pub fn kill(&mut self) {
        // An emulator that has ended already cannot be killed: that is as good.
        let _ = lock(&self.shared).child.kill();
    }

    /// Waits until the firmware ends by itself, or its time is over.
    pub fn wait(mut self) -> Result<Outcome> {
        loop {
            let code = lock(&self.shared).child.try_wait()?;
            if let Some(status) = code {
                self.join();
                let shared = lock(&self.shared);
                return Ok(Outcome {
                    code: status.code(),
                    timed_out: shared.timed_out,
                    log: shared.log.clone(),
                });
            }
            sleep(PAUSE);
        }
    }

    /// Ends the threads; the emulator must have ended.
    fn join(&mut self) {
        if let Some((stop, thread)) = self.watchdog.take() {
            drop(stop);
            // A thread that panicked has said so on stderr.
            let _ = thread.join();
        }
        for thread in self.readers.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.kill();
        // Reaps the process.
        let _ = lock(&self.shared).child.wait();
        self.join();
    }
}

impl Read for Emulator {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.socket.read(bytes)
    }
}

impl Write for Emulator {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

impl Line for Emulator {
    fn why_silent(&mut self) -> String {
        let name = self.name.clone();
        // A line that broke and an exit code that can be read are not the same instant.
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut status = None;
        while status.is_none() && Instant::now() < deadline {
            status = lock(&self.shared).child.try_wait().ok().flatten();
            sleep(PAUSE);
        }
        if status.is_some() {
            self.join();
        }
        let shared = lock(&self.shared);
        let said = shared
            .log
            .iter()
            .rev()
            .find(|line| line.starts_with("error"))
            .or(shared.complaints.front())
            .map_or(String::new(), |line| format!(": {line}"));
        match status {
            _ if shared.timed_out => {
                let limit = self.limit.as_secs_f32();
                format!("the emulated {name} was stopped: its time limit is {limit} s")
            }
            Some(status) => match status.code() {
                Some(code) => format!("the emulated {name} ended with code {code}{said}"),
                None => format!("the emulator of {name} was killed ({status})"),
            },
            None => format!("the emulated {name} closed its serial line"),
        }
    }
}

/// How often something is looked at that cannot be waited for.
const PAUSE: Duration = Duration::from_millis(3);

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn joined(start: &str, path: &Path) -> OsString {
    // QEMU takes a doubled comma for a comma.
    let path = path.to_string_lossy().replace(',', ",,");
    OsString::from(format!("{start}{path}"))
}

/// Waits for the emulator to connect; `None` if it ended before that.
fn accept(listener: &UnixListener, shared: &Mutex<Shared>) -> Option<UnixStream> {
    loop {
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(false).ok()?;
                return Some(socket);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
        if !matches!(lock(shared).child.try_wait(), Ok(None)) {
            return None;
        }
        sleep(PAUSE);
    }
}

/// Kills the emulator when its time is over.
fn watch(shared: &Mutex<Shared>, limit: Duration, stopped: &Receiver<()>) {
    if stopped.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
        let mut shared = lock(shared);
        if let Ok(None) = shared.child.try_wait() {
            shared.timed_out = true;
            // Reaped by whoever waits.
            let _ = shared.child.kill();
        }
    }
}

/// Keeps the emulator's last complaints; warnings that say nothing here are left out.
fn complaints(shared: &Mutex<Shared>, stderr: impl Read) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if line.contains("has no peer") || line.contains("no active timers") {
            continue;
        }
        let complaints = &mut lock(shared).complaints;
        complaints.push_back(line);
        if complaints.len() > 8 {
            complaints.pop_front();
        }
    }
}
