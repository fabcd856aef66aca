//! A program that answers on stdin and stdout, one JSON object per line:
//!
//! ```text
//! > {"hello": 1}
//! < {"protocol": 1, "name": "my model", "shape": [28, 28, 1], "classes": 10, "answers": "scores",
//! <  "type": "f32", "range": [0, 1]}
//! > {"x": [0.0, 0.25, ...]}
//! < {"label": 7, "scores": [-3.1, 0.4, ...]}
//! ```
//!
//! `shape` is that of one input without the batch, and `x` has its elements in that order. `type` is `f32` (with the
//! `range` of an element's values) or `i8` (with `scale` and `zero_point`; `x` holds integers from -128 to 127, and `range` may
//! be left out). `answers` is `scores` or `labels`; with `labels` the answers have no `scores`. Scores are logits, or anything
//! that grows with the model's belief. A program that cannot answer says `{"error": "why"}`. It ends when its
//! stdin ends. What it writes to stderr goes to the user.

use super::{Sample, Target};
use crate::attack::Access;
use crate::classifier::{Grid, InputForm};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// The version of the line protocol.
pub const PROTOCOL: u32 = 1;

/// The longest line that a program may answer.
const MAX_LINE: u64 = 16 << 20;

/// A program that runs and answers.
#[derive(Debug)]
pub struct Program {
    command: String,
    child: Child,
    stdin: Option<ChildStdin>,
    /// Lines that the program wrote; a thread reads them, so that one that hangs can be given up.
    lines: Receiver<std::io::Result<String>>,
    patience: Duration,
    form: InputForm,
    classes: usize,
    access: Access,
}

#[derive(Serialize)]
struct Hello {
    hello: u32,
}

#[derive(Serialize)]
struct Question<T> {
    x: T,
}

#[derive(Deserialize)]
struct Introduction {
    protocol: u32,
    shape: Vec<usize>,
    classes: usize,
    answers: Answers,
    r#type: Type,
    range: Option<(f32, f32)>,
    scale: Option<f32>,
    zero_point: Option<i32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answers {
    Labels,
    Scores,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    F32,
    I8,
}

#[derive(Deserialize)]
struct Reply {
    label: Option<usize>,
    scores: Option<Vec<f32>>,
    error: Option<String>,
}

impl Program {
    /// Starts `command` (split at blanks, quotes as in a shell) and lets it introduce itself. Any answer may take `patience`.
    ///
    /// # Errors
    /// It cannot be started, or does not speak the protocol.
    pub fn start(command: &str, patience: Duration) -> Result<Program> {
        let place = format!("--target program:{command}");
        let words = shlex::split(command).filter(|words| !words.is_empty());
        let words = words.ok_or_else(|| {
            Error::new(
                "no command, or a quote that is not closed",
                &place,
                "a program and its arguments",
            )
        })?;
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| {
                Error::new(
                    format!("cannot start {} ({error})", words[0]),
                    &place,
                    "a program that can be run",
                )
            })?;
        let stdin = child.stdin.take();
        let (send, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || read_lines(stdout, &send));
        }
        let mut program = Program {
            command: command.into(),
            child,
            stdin,
            lines,
            patience,
            form: InputForm {
                shape: Vec::new(),
                grid: None,
                range: (0.0, 1.0),
            },
            classes: 0,
            access: Access::Labels,
        };
        let line = program.exchange(&Hello { hello: PROTOCOL })?;
        program.introduce(&line)?;
        Ok(program)
    }

    fn introduce(&mut self, line: &str) -> Result<()> {
        let said: Introduction = serde_json::from_str(line).map_err(|error| {
            self.nonsense(&format!("its introduction is not understood ({error})"))
        })?;
        if said.protocol != PROTOCOL {
            return Err(self.nonsense(&format!(
                "it speaks protocol {}, this is protocol {PROTOCOL}",
                said.protocol
            )));
        }
        let len = said
            .shape
            .iter()
            .try_fold(1_usize, |len, &d| len.checked_mul(d))
            .filter(|&len| len > 0 && len <= 1 << 24);
        if len.is_none() || !(1..=1 << 16).contains(&said.classes) {
            return Err(self.nonsense(&format!(
                "inputs of shape {:?} and {} classes",
                said.shape, said.classes
            )));
        }
        let grid = match (said.r#type, said.scale, said.zero_point) {
            (Type::F32, _, _) => None,
            (Type::I8, Some(scale), Some(zero_point))
                if scale > 0.0 && scale.is_finite() && (-128..=127).contains(&zero_point) =>
            {
                Some(Grid { scale, zero_point })
            }
            (Type::I8, _, _) => {
                return Err(self.nonsense("i8 inputs need a scale above 0 and a zero_point"));
            }
        };
        let range = match (said.range, grid) {
            (Some((low, high)), _) if low.is_finite() && high.is_finite() && low < high => {
                (low, high)
            }
            (None, Some(grid)) => (grid.dequantize(-128), grid.dequantize(127)),
            _ => return Err(self.nonsense("f32 inputs need a range [low, high]")),
        };
        self.form = InputForm {
            shape: said.shape,
            grid,
            range,
        };
        self.classes = said.classes;
        self.access = match said.answers {
            Answers::Labels => Access::Labels,
            Answers::Scores => Access::Scores,
        };
        Ok(())
    }

    /// Sends one line and waits for one.
    fn exchange(&mut self, what: &impl Serialize) -> Result<String> {
        let mut line = serde_json::to_string(what)
            .map_err(|error| self.nonsense(&format!("a question cannot be written ({error})")))?;
        line.push('\n');
        // a program that is gone may still have said why
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin
                .write_all(line.as_bytes())
                .and_then(|()| stdin.flush());
        }
        match self.lines.recv_timeout(self.patience) {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(error)) => Err(self.nonsense(&format!("its answer cannot be read ({error})"))),
            Err(RecvTimeoutError::Disconnected) => Err(self.gone()),
            Err(RecvTimeoutError::Timeout) => Err(Error::new(
                format!("no answer within {} s", self.patience.as_secs()),
                self.name(),
                "one line for every line, flushed; --timeout sets the patience",
            )),
        }
    }

    fn gone(&mut self) -> Error {
        let status = match self.child.wait() {
            Ok(status) => format!("the program ended ({status})"),
            Err(_) => "the program ended".to_string(),
        };
        Error::new(
            status,
            self.name(),
            "a program that answers until its stdin ends",
        )
    }

    fn nonsense(&self, what: &str) -> Error {
        Error::new(what, self.name(), "the line protocol of docs/targets.md")
    }
}

fn read_lines(stdout: ChildStdout, send: &std::sync::mpsc::Sender<std::io::Result<String>>) {
    let mut reader = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line);
        let line = match read {
            Ok(0) => return,
            Ok(_) if line.len() as u64 == MAX_LINE => Err(std::io::Error::other(format!(
                "a line of more than {MAX_LINE} bytes"
            ))),
            Ok(_) => String::from_utf8(line).map_err(std::io::Error::other),
            Err(error) => Err(error),
        };
        let broken = line.is_err();
        if send.send(line).is_err() || broken {
            return;
        }
    }
}

impl Target for Program {
    fn name(&self) -> String {
        format!("program:{}", self.command)
    }

    fn form(&self) -> &InputForm {
        &self.form
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn access(&self) -> Access {
        self.access
    }

    fn ask(&mut self, x: Sample<'_>, scores: &mut [f32]) -> Result<usize> {
        let line = match x {
            Sample::F32(x) => self.exchange(&Question { x })?,
            Sample::I8(x) => self.exchange(&Question { x })?,
        };
        let reply: Reply = serde_json::from_str(&line)
            .map_err(|error| self.nonsense(&format!("its answer is not understood ({error})")))?;
        if let Some(error) = reply.error {
            return Err(Error::new(
                format!(
                    "the program says: {}",
                    error.lines().next().unwrap_or_default()
                ),
                self.name(),
                "",
            ));
        }
        let label = reply
            .label
            .filter(|&label| label < self.classes)
            .ok_or_else(|| {
                self.nonsense(&format!(
                    "no label from 0 to {} in its answer",
                    self.classes - 1
                ))
            })?;
        if self.access == Access::Scores {
            let given = reply.scores.unwrap_or_default();
            if given.len() != scores.len() || given.iter().any(|s| !s.is_finite()) {
                return Err(self.nonsense(&format!(
                    "{} scores in its answer, {} finite ones are needed",
                    given.len(),
                    scores.len()
                )));
            }
            scores.copy_from_slice(&given);
        }
        Ok(label)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // its stdin ends first, so that a program that behaves ends by itself
        drop(self.stdin.take());
        for _ in 0..20 {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(25)),
                _ => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
