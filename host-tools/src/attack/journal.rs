//! What a run has done so far, in a file beside its output, so that an interrupted run can be resumed.
//!
//! One line per sample and attack, appended as it is done. A sample's result depends on nothing but the sample, so a
//! resumed run ends with the same bytes as one that was never interrupted. A line that was cut off by a kill is not counted.

use super::Found;
use crate::error::{Error, Result};
use crate::files;
use foolproof::attack::Outcome;
use foolproof::threat::Element;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// A file of results. One that holds none goes away with this.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Mutex<File>,
    known: Known,
    /// Whether results of another run were thrown away.
    discarded: bool,
    /// Whether the file holds anything worth keeping.
    kept: AtomicBool,
}

/// The first line is shorter.
const LONGEST_HEAD: u64 = 1024;

/// Results by the attack's and the sample's number.
type Known = HashMap<(usize, usize), Line>;

#[derive(Serialize, Deserialize)]
struct Head {
    foolproof: String,
    key: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    attack: usize,
    sample: usize,
    label: usize,
    fooled: bool,
    queries: u64,
    gradients: u64,
    /// The elements' bits.
    x: Vec<u32>,
}

/// Elements that a journal can hold.
pub trait Kept: Element {
    /// The bits.
    fn to_bits(self) -> u32;
    /// The element of these bits.
    fn of_bits(bits: u32) -> Self;
}

impl Kept for f32 {
    fn to_bits(self) -> u32 {
        f32::to_bits(self)
    }
    fn of_bits(bits: u32) -> f32 {
        f32::from_bits(bits)
    }
}

impl Kept for i8 {
    fn to_bits(self) -> u32 {
        u32::from(self as u8)
    }
    fn of_bits(bits: u32) -> i8 {
        bits as u8 as i8
    }
}

impl Journal {
    /// Beside `output`. `key` says what is run: a journal of something else is not resumed. Without `resume` an old journal is
    /// thrown away. A file that is no journal stays what it is.
    ///
    /// # Errors
    /// The file cannot be written, is no journal, or is to be resumed and was left by another run.
    pub fn beside(output: &Path, key: &str, resume: bool) -> Result<Journal> {
        let mut name = output.as_os_str().to_owned();
        name.push(".partial");
        let path = PathBuf::from(name);
        let refuse = |error: std::io::Error| {
            Error::new(
                format!("cannot write beside it ({error})"),
                output.display(),
                "a path in a folder that exists and can be written",
            )
        };
        let mut old = Old::default();
        if path.exists() {
            old = read(&path, key, resume)?;
        }
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(refuse)?;
        // a line that was cut off goes away
        file.set_len(old.valid).map_err(refuse)?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).map_err(refuse)?;
        if old.valid == 0 {
            let head = Head {
                foolproof: env!("CARGO_PKG_VERSION").into(),
                key: key.into(),
            };
            let mut text = serde_json::to_string(&head).map_err(|e| refuse(e.into()))?;
            text.push('\n');
            file.write_all(text.as_bytes()).map_err(refuse)?;
        }
        Ok(Journal {
            path,
            file: Mutex::new(file),
            kept: AtomicBool::new(!old.known.is_empty()),
            known: old.known,
            discarded: old.discarded,
        })
    }

    /// Whether the results of an interrupted run were thrown away.
    pub fn has_discarded(&self) -> bool {
        self.discarded
    }

    /// Number of results that it began with.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether it began empty.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// What attack number `attack` came to on sample number `sample` of `n` elements, if that is known.
    pub fn find<E: Kept>(&self, attack: usize, sample: usize, n: usize) -> Option<Found<E>> {
        let line = self.known.get(&(attack, sample))?;
        (line.x.len() == n).then(|| Found {
            x: line.x.iter().map(|&bits| E::of_bits(bits)).collect(),
            outcome: Outcome {
                label: line.label,
                fooled: line.fooled,
                queries: line.queries,
                gradients: line.gradients,
            },
        })
    }

    /// Writes a result down. One that cannot be written is not lost for this run, only for a resumed one.
    pub fn note<E: Kept>(&self, attack: usize, sample: usize, found: &Found<E>) {
        let Outcome {
            label,
            fooled,
            queries,
            gradients,
        } = found.outcome;
        let line = Line {
            attack,
            sample,
            label,
            fooled,
            queries,
            gradients,
            x: found.x.iter().map(|x| x.to_bits()).collect(),
        };
        let Ok(mut text) = serde_json::to_string(&line) else {
            return;
        };
        text.push('\n');
        self.kept.store(true, Ordering::Relaxed);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = file.write_all(text.as_bytes());
    }

    /// Removes the file: the run is done and its output written.
    pub fn finish(self) {
        self.kept.store(false, Ordering::Relaxed);
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if !*self.kept.get_mut() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What a journal held before.
#[derive(Default)]
struct Old {
    known: Known,
    /// How many of its bytes are whole lines of this run.
    valid: u64,
    /// Whether results were thrown away.
    discarded: bool,
}

/// What is in a journal; all of it where it is resumed.
fn read(path: &Path, key: &str, resume: bool) -> Result<Old> {
    let unreadable =
        |error: std::io::Error| Error::new(error, path.display(), "a readable journal");
    let mut reader = BufReader::new(files::open(path)?);
    let mut text = Vec::new();
    let mut valid = (&mut reader)
        .take(LONGEST_HEAD)
        .read_until(b'\n', &mut text)
        .map_err(unreadable)?;
    if valid == 0 {
        return Ok(Old::default());
    }
    let head: Head = serde_json::from_slice(&text).map_err(|_| {
        Error::new(
            "there is a file, and it is no journal of a run",
            path.display(),
            "another --out, or move the file away: results are kept there until all are done",
        )
    })?;
    let mut known = HashMap::new();
    if !text.ends_with(b"\n") {
        return Ok(Old::default());
    }
    loop {
        text.clear();
        let count = reader.read_until(b'\n', &mut text).map_err(unreadable)?;
        if !resume {
            return Ok(Old {
                discarded: count > 0,
                ..Old::default()
            });
        }
        if head.key != key || head.foolproof != env!("CARGO_PKG_VERSION") {
            return Err(Error::new(
                "the interrupted run was another one",
                path.display(),
                "the same command line with --resume, or no --resume to begin anew",
            ));
        }
        if count == 0 || !text.ends_with(b"\n") {
            break;
        }
        let Ok(line) = serde_json::from_slice::<Line>(&text) else {
            break;
        };
        known.insert((line.attack, line.sample), line);
        valid += count;
    }
    Ok(Old {
        known,
        valid: valid as u64,
        discarded: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(label: usize) -> Found<f32> {
        Found {
            x: vec![0.1, -2.5, f32::MIN_POSITIVE],
            outcome: Outcome {
                label,
                fooled: true,
                queries: 7,
                gradients: 3,
            },
        }
    }

    #[test]
    fn what_was_noted_is_found_again_and_a_torn_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("adv.npz");
        let journal = Journal::beside(&output, "key", false).unwrap();
        journal.note(0, 4, &found(2));
        journal.note(1, 4, &found(3));
        drop(journal);
        let path = folder.path().join("adv.npz.partial");
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 5);
        fs::write(&path, &bytes).unwrap();

        assert!(Journal::beside(&output, "other", true).is_err());
        let journal = Journal::beside(&output, "key", true).unwrap();
        assert_eq!(journal.find(0, 4, 3), Some(found(2)));
        assert_eq!(journal.find::<f32>(1, 4, 3), None);
        assert_eq!(journal.find::<f32>(0, 4, 2), None);
        journal.note(1, 4, &found(5));
        drop(journal);
        let journal = Journal::beside(&output, "key", true).unwrap();
        assert_eq!((journal.len(), journal.find(1, 4, 3)), (2, Some(found(5))));
        drop(journal);
        let journal = Journal::beside(&output, "key", false).unwrap();
        assert!(journal.is_empty() && journal.has_discarded());
        drop(journal);
        assert!(!path.exists(), "nothing was noted");
        let journal = Journal::beside(&output, "key", true).unwrap();
        assert!(journal.is_empty() && !journal.has_discarded());
    }

    #[test]
    fn what_is_no_journal_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("adv.npz");
        let path = folder.path().join("adv.npz.partial");
        for content in ["my notes\n", "{\"key\": 3}\n", "no end of line"] {
            fs::write(&path, content).unwrap();
            for resume in [false, true] {
                let refused = Journal::beside(&output, "key", resume).unwrap_err();
                assert!(refused.to_string().contains("no journal"), "{refused}");
                assert_eq!(fs::read_to_string(&path).unwrap(), content);
            }
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(Journal::beside(&output, "key", false).is_err());
        let nowhere = folder.path().join("no/adv.npz");
        let refused = Journal::beside(&nowhere, "key", false).unwrap_err();
        assert!(!refused.to_string().contains("partial"), "{refused}");
    }

    #[test]
    fn steps_keep_their_sign() {
        for q in i8::MIN..=i8::MAX {
            assert_eq!(i8::of_bits(q.to_bits()), q);
        }
    }
}
