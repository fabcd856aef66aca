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
//! (Here the introduction is folded; a program writes it on one line.) `name` is what reports call the program, beside its
//! command; it may be left out. `shape` is that of one input without the batch, and `x` has its elements in that order. `type` is
//! `f32` (with the `range` of an element's values) or `i8` (with `scale` and `zero_point`; `x` holds integers from -128 to 127, and
//! `range` may be left out). `answers` is `scores` or `labels`; with `labels` the answers have no `scores`. Scores are logits, or
//! anything that grows with the model's belief. A program that cannot answer says `{"error": "why"}`. A line that answers no
//! question ends the run: whose answer is whose could not be told any more. A program ends when its stdin ends; one that does not is
//! killed with its process group. What it writes to stderr goes to the user.

use super::process::{Process, Silence};
use super::{Sample, Target};
use crate::attack::Access;
use crate::classifier::{Grid, InputForm};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The version of the line protocol.
pub const PROTOCOL: u32 = 1;

/// How much is shown of what a program says, in characters.
const SHOWN: usize = 300;

/// How much of the name that it gives itself.
const SHOWN_NAME: usize = 100;

/// A program that runs and answers.
#[derive(Debug)]
pub struct Program {
    command: String,
    /// What it calls itself.
    called: Option<String>,
    process: Process,
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
    name: Option<String>,
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
        let process = Process::start(&words[0], &words[1..]).map_err(|error| {
            Error::new(
                format!("cannot start {} ({error})", words[0]),
                &place,
                "a program that can be run",
            )
        })?;
        let mut program = Program {
            command: command.into(),
            called: None,
            process,
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
        self.called = said.name.map(|name| shown(&name, SHOWN_NAME));
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
        self.process
            .exchange(line, self.patience)
            .map_err(|silence| self.failed(&silence))
    }

    fn failed(&self, silence: &Silence) -> Error {
        let seconds = self.patience.as_secs();
        match silence {
            Silence::Late => Error::new(
                format!("no answer within {seconds} s"),
                self.place(),
                "one line for every line, flushed; --timeout sets the patience",
            ),
            Silence::Unread(length) => Error::new(
                format!("a question of {length} bytes was not read within {seconds} s"),
                self.place(),
                "a program that reads every line; --timeout sets the patience",
            ),
            Silence::Ended(_) | Silence::Closed => Error::new(
                silence,
                self.place(),
                "a program that answers until its stdin ends",
            ),
            Silence::Unasked => Error::new(
                silence,
                self.place(),
                "exactly one line for every line, and nothing else on stdout",
            ),
            Silence::Unreadable(_) => self.nonsense(&silence.to_string()),
        }
    }

    fn nonsense(&self, what: &str) -> Error {
        let what = shown(what, SHOWN);
        Error::new(what, self.place(), "the line protocol of docs/targets.md")
    }

    /// The command, for errors.
    fn place(&self) -> String {
        format!("program:{}", self.command)
    }
}

/// At most `most` characters of what a program said; those that do not print are escaped.
fn shown(text: &str, most: usize) -> String {
    let mut shown = String::new();
    let mut room = most;
    for c in text.trim().chars() {
        let piece: String = match c {
            ' '..='~' => c.into(),
            _ => c.escape_debug().collect(),
        };
        match room.checked_sub(piece.chars().count()) {
            Some(left) => room = left,
            None => {
                shown.push_str(" ...");
                break;
            }
        }
        shown.push_str(&piece);
    }
    shown
}

impl Target for Program {
    fn name(&self) -> String {
        match &self.called {
            Some(called) => format!("program:{} ({called})", self.command),
            None => self.place(),
        }
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
                format!("the program says: {}", shown(&error, SHOWN)),
                self.place(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::time::Instant;

    const LABELS: &str = r#"{"protocol": 1, "shape": [2], "classes": 3, "answers": "labels", "type": "f32", "range": [0, 1]}"#;

    /// A program of the shell: it introduces itself by `said`, and then does `rest`.
    fn shell(folder: &Path, said: &str, rest: &str, seconds: u64) -> Result<Program> {
        let script = folder.join("script.sh");
        std::fs::write(&script, format!("read hello\necho '{said}'\n{rest}\n")).unwrap();
        let command = format!("sh '{}'", script.display());
        Program::start(&command, Duration::from_secs(seconds))
    }

    /// The error that comes up at the latest at the tenth question.
    fn complaint(program: &mut Program) -> String {
        let n = program.form.input_len();
        for _ in 0..10 {
            if let Err(error) = program.ask(Sample::F32(&vec![0.5; n]), &mut []) {
                return error.to_string();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("ten questions went well")
    }

    /// Scripts that would go on for minutes are given up after their second.
    #[test]
    fn no_program_is_waited_for_longer_than_it_may_take() {
        let folder = tempfile::tempdir().unwrap();
        let wide = LABELS.replace("[2]", "[300000]");
        for (said, rest, says) in [
            (LABELS, "exec >&-; sleep 300", "closed its stdout"),
            (LABELS, "read x; sleep 300", "no answer within 1 s"),
            (&wide, "sleep 300", "not read within 1 s"),
        ] {
            let start = Instant::now();
            let mut program = shell(folder.path(), said, rest, 1).unwrap();
            let error = complaint(&mut program);
            assert!(error.contains(says), "{rest}: {error}");
            drop(program);
            assert!(start.elapsed() < Duration::from_secs(60), "{rest}");
        }
    }

    #[test]
    fn a_line_that_answers_no_question_ends_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let one = r#"echo '{"label": 0}'"#;
        let together = r#"printf '{"label": 0}\n{"label": 1}\n'"#;
        let mut right = shell(
            folder.path(),
            LABELS,
            &format!("while read x; do {one}; done"),
            60,
        )
        .unwrap();
        assert_eq!(right.ask(Sample::F32(&[0.5; 2]), &mut []).unwrap(), 0);
        for rest in [
            format!("while read x; do {one}; {one}; done"),
            format!("while read x; do {one}; echo; done"),
            format!("while read x; do {together}; done"),
            format!("while :; do {one}; done"),
        ] {
            let error = match shell(folder.path(), LABELS, &rest, 60) {
                Ok(mut program) => complaint(&mut program),
                Err(error) => error.to_string(),
            };
            assert!(error.contains("more than one line"), "{rest}: {error}");
        }
    }

    #[test]
    fn what_a_program_floods_us_with_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let done = folder.path().join("done");
        // far more than a pipe holds: it can only be written if somebody reads it
        let flood = "head -c 8000000 /dev/zero | tr '\\0' '\\n' && : >";
        let rest = format!("sleep 0.3; {flood} '{}'; sleep 300", done.display());
        let program = shell(folder.path(), LABELS, &rest, 60).unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        assert!(!done.exists());
        drop(program);
    }

    /// Whether the process runs; one that has ended and waits to be reaped does not.
    #[cfg(target_os = "linux")]
    fn runs(id: &str) -> bool {
        // not its command line: that is empty for a moment where a process becomes another program
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let state = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_a_program_started_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("id");
        // it survives the end of the shell that leads its session: only a signal to the group ends it
        let started = format!("trap '' HUP; sleep 300 & echo $! > '{}';", file.display());
        for rest in [
            // the shell hangs; ends when its stdin ends; ends at once
            format!("{started} read x; echo '{{\"label\": 0}}'; wait"),
            format!("{started} while read x; do echo '{{\"label\": 0}}'; done"),
            format!("{started} read x; echo '{{\"label\": 0}}'"),
        ] {
            let mut program = shell(folder.path(), LABELS, &rest, 60).unwrap();
            let _ = program.ask(Sample::F32(&[0.5; 2]), &mut []);
            let id = std::fs::read_to_string(&file).unwrap();
            let comes_to = |expected: bool| {
                let start = Instant::now();
                while runs(id.trim()) != expected && start.elapsed() < Duration::from_secs(20) {
                    std::thread::sleep(Duration::from_millis(10));
                }
                runs(id.trim()) == expected
            };
            assert!(comes_to(true), "{rest}");
            drop(program);
            assert!(comes_to(false), "{rest}");
        }
    }

    #[test]
    fn what_a_program_says_is_shown_in_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let long = "x".repeat(5000);
        for answer in [
            format!(r#"{{"error": "red \\u001b[31m\\n{long}"}}"#),
            format!(r#"{{"label": "\\u001b[31m{long}"}}"#),
        ] {
            let rest = format!(
                "read x; cat <<'END'\n{}\nEND\n",
                answer.replace("\\\\", "\\")
            );
            let mut program = shell(folder.path(), LABELS, &rest, 60).unwrap();
            let error = complaint(&mut program);
            assert!(error.contains(r"\u{1b}[31m"), "{error}");
            assert!(error.contains("xxx ..."), "{error}");
            let bound = SHOWN + program.place().len() + 100;
            assert!(error.len() < bound, "{error}");
        }
    }

    #[test]
    fn a_program_is_called_what_it_calls_itself() {
        let folder = tempfile::tempdir().unwrap();
        let mut names = Vec::new();
        for name in [None, Some("lenet".to_string()), Some("y".repeat(5000))] {
            let said = match &name {
                None => LABELS.to_string(),
                Some(name) => LABELS.replacen('{', &format!("{{\"name\": \"{name}\", "), 1),
            };
            let program = shell(folder.path(), &said, "read x", 60).unwrap();
            assert!(program.describe().contains(&program.name()));
            names.push(program.name());
        }
        assert!(names[0].starts_with("program:sh"));
        assert_eq!(names[1], format!("{} (lenet)", names[0]));
        assert!(names[2].len() < names[0].len() + SHOWN_NAME + 20);
    }
}
