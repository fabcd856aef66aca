//! A process that answers lines on its stdin with lines on its stdout. Nothing here waits longer than it was told to, whatever
//! the process does, and nothing that the process started outlives it, as long as it stays in the process's group.

use crate::device::{Leash, spawn_on_leash};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// The longest line that a process may answer, in bytes.
const MAX_LINE: u64 = 16 << 20;

/// How long a process whose stdin has ended may take to end by itself, and one whose stdout has ended.
const FAREWELL: Duration = Duration::from_millis(500);

/// How often something is looked at that cannot be waited for.
const PAUSE: Duration = Duration::from_millis(10);

/// A running process. Dropping it ends it and its group.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Lines for its stdin: a thread writes them, so that a process that reads nothing can be given up. Dropped, its stdin ends.
    questions: Option<SyncSender<String>>,
    /// Whether the thread is writing.
    writing: Arc<AtomicBool>,
    /// Lines of its stdout: a thread reads them, so that a process that hangs can be given up. It reads no further ahead
    /// than one line.
    answers: Receiver<Result<String, Silence>>,
    /// It failed to answer: it gets no time to say goodbye.
    given_up: bool,
    is_reaped: bool,
    _leash: Leash,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Silence {
    /// Nothing came in time.
    Late,
    /// The question, of so many bytes, was not even read in time.
    Unread(usize),
    /// The process ended.
    Ended(Option<ExitStatus>),
    /// It closed its stdout, and goes on running.
    Closed,
    /// It wrote a line that answers no question.
    Unasked,
    /// Its line cannot be read.
    Unreadable(String),
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Silence::Late => write!(f, "no answer in time"),
            Silence::Unread(length) => {
                write!(f, "a question of {length} bytes was not read in time")
            }
            Silence::Ended(Some(status)) => write!(f, "the program ended ({status})"),
            Silence::Ended(None) => write!(f, "the program ended"),
            Silence::Closed => write!(f, "the program closed its stdout and goes on running"),
            Silence::Unasked => write!(f, "the program wrote more than one line for a question"),
            Silence::Unreadable(why) => write!(f, "its answer cannot be read ({why})"),
        }
    }
}

impl Process {
    /// Starts a program. What it writes to stderr goes where ours goes.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(program: &str, arguments: &[String]) -> pty_process::Result<Process> {
        let mut command = Command::new(program);
        command.args(arguments);
        let (mut child, leash) = spawn_on_leash(command, Stdio::piped(), Stdio::inherit())?;
        let (ask, questions) = sync_channel(1);
        let writing = Arc::new(AtomicBool::new(false));
        if let Some(stdin) = child.stdin.take() {
            let writing = Arc::clone(&writing);
            thread::spawn(move || write_lines(stdin, &questions, &writing));
        }
        let (answer, answers) = sync_channel(1);
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || read_lines(stdout, &answer));
        }
        Ok(Process {
            child,
            questions: Some(ask),
            writing,
            answers,
            given_up: false,
            is_reaped: false,
            _leash: leash,
        })
    }

    /// Sends `question`, which ends with a line feed, and waits for one line. Both together take `patience` at most.
    ///
    /// # Errors
    /// There is none, or one too many; the process is of no use any more.
    pub fn exchange(&mut self, question: String, patience: Duration) -> Result<String, Silence> {
        let length = question.len();
        let start = Instant::now();
        let answer = match self.answers.try_recv() {
            Ok(line) => line.and(Err(Silence::Unasked)),
            // a process that is gone may still have said why, so a question that cannot be sent is no reason to stop
            Err(_) => {
                if let Some(questions) = &self.questions {
                    let _ = questions.try_send(question);
                }
                match self.answers.recv_timeout(patience) {
                    Ok(line) => line,
                    Err(RecvTimeoutError::Disconnected) => {
                        let left = patience.saturating_sub(start.elapsed());
                        Err(self.gone(left.min(4 * FAREWELL)))
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        Err(match self.writing.load(Ordering::Relaxed) {
                            true => Silence::Unread(length),
                            false => Silence::Late,
                        })
                    }
                }
            }
        };
        self.given_up |= answer.is_err();
        answer
    }

    /// What became of a process whose stdout has ended.
    fn gone(&mut self, limit: Duration) -> Silence {
        match self.ends_within(limit) {
            true => Silence::Ended(self.end()),
            false => Silence::Closed,
        }
    }

    /// Whether it ends by itself in that time. It stays to be reaped: until then nobody else gets its number.
    fn ends_within(&self, limit: Duration) -> bool {
        let start = Instant::now();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        loop {
            let id = WaitId::Pid(Pid::from_child(&self.child));
            if !matches!(waitid(id, options), Ok(None)) {
                return true;
            }
            if start.elapsed() >= limit {
                return false;
            }
            thread::sleep(PAUSE);
        }
    }

    /// Ends its group, if it has not ended, and reaps it.
    fn end(&mut self) -> Option<ExitStatus> {
        if !std::mem::replace(&mut self.is_reaped, true) {
            // a group in which nobody lives any more cannot be killed: that is as good
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        self.child.wait().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // its stdin ends first, so that a process that behaves ends by itself
        drop(self.questions.take());
        if !(self.given_up || self.is_reaped) {
            self.ends_within(FAREWELL);
        }
        self.end();
    }
}

fn write_lines(mut stdin: ChildStdin, questions: &Receiver<String>, writing: &AtomicBool) {
    for question in questions {
        writing.store(true, Ordering::Relaxed);
        let written = stdin
            .write_all(question.as_bytes())
            .and_then(|()| stdin.flush());
        writing.store(false, Ordering::Relaxed);
        if written.is_err() {
            return;
        }
    }
}

fn read_lines(stdout: ChildStdout, answers: &SyncSender<Result<String, Silence>>) {
    let mut reader = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line);
        let line = match read {
            Ok(0) => return,
            Ok(_) if line.len() as u64 == MAX_LINE => Err(format!("more than {MAX_LINE} bytes")),
            Ok(_) => String::from_utf8(line).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let line = match line {
            // the next line was there before anybody saw this one
            Ok(_) if !reader.buffer().is_empty() => Err(Silence::Unasked),
            line => line.map_err(Silence::Unreadable),
        };
        let is_last = line.is_err();
        if answers.send(line).is_err() || is_last {
            return;
        }
    }
}
