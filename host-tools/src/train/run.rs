//! What every trainer shares: its configuration as TOML with every default written out, a log, checkpoints that survive a kill
//! at any moment, and the way back to where a run was.
//!
//! A resumed run ends with the bytes of an uninterrupted one: a checkpoint holds all that a step depends on, and everything
//! random is drawn from the seed and the step's number. Wall-clock time is in no file that is compared: the log holds none.

use crate::error::{Error, Result};
use crate::files;
use crate::report::Picture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The file of the last checkpoint, in the run's folder.
pub const CHECKPOINT: &str = "checkpoint.bin";
/// The folder of pictures after every epoch, in the run's folder.
const PICTURES: &str = "samples";
/// The configuration that the run used, every default written out.
pub const CONFIG: &str = "config.toml";
/// One line per record, for spreadsheets (RFC 4180).
pub const LOG: &str = "log.csv";
/// First bytes of a checkpoint; the number changes with the format.
const MAGIC: &[u8; 16] = b"foolproof ckpt 2";

/// What a run is, apart from where it stands.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    /// Its folder, which exists.
    pub out: &'a Path,
    /// The trainer: `gan`, `classifier`.
    pub trainer: &'a str,
    /// The whole configuration, as [`to_toml`] writes it.
    pub config: String,
    /// The seed of every random choice.
    pub seed: u64,
    /// What tells the data (and a model that training starts from) apart: see [`digest`].
    pub data: String,
    /// Whether to go on from the folder's checkpoint.
    pub resume: bool,
    /// How often [`Run::is_due`] asks for a checkpoint.
    pub every: Duration,
}

/// All that the next step depends on, besides configuration, data and seed. Arrays and numbers go by names that the trainer
/// chooses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Steps done.
    pub step: u64,
    /// Parameters, the optimizer's state.
    pub arrays: BTreeMap<String, Vec<f32>>,
    /// Sums of the epoch so far, the best figure so far.
    pub numbers: BTreeMap<String, f64>,
}

impl Checkpoint {
    /// The array of this name, which must have `len` elements.
    ///
    /// # Errors
    /// It is not there, or has another length.
    pub fn array(&self, name: &str, len: usize) -> Result<&[f32]> {
        match self.arrays.get(name) {
            Some(array) if array.len() == len => Ok(array),
            Some(array) => Err(Error::new(
                format!(
                    "the checkpoint's {name:?} has {} elements, the run needs {len}",
                    array.len()
                ),
                CHECKPOINT,
                FRESH,
            )),
            None => Err(Error::new(
                format!("the checkpoint has no {name:?}"),
                CHECKPOINT,
                FRESH,
            )),
        }
    }

    /// The number of this name; 0 where there is none.
    pub fn number(&self, name: &str) -> f64 {
        self.numbers.get(name).copied().unwrap_or(0.0)
    }
}

const FRESH: &str =
    "the checkpoint of the same version of foolproof, or another folder and no --resume";

/// One line of the log: a step, and figures by name in the order in which they were given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Steps done.
    pub step: u64,
    /// The figures.
    pub figures: Vec<(String, f64)>,
}

/// A file of a run: what it belongs to, where it stands, what was logged.
#[derive(Serialize, Deserialize)]
struct Stored {
    identity: String,
    checkpoint: Checkpoint,
    records: Vec<Record>,
}

/// A run under way.
#[derive(Debug)]
pub struct Run {
    out: PathBuf,
    config: String,
    identity: String,
    is_new: bool,
    every: Duration,
    saved: Instant,
    records: Vec<Record>,
}

/// Begins a run, or goes on with one: gives back the checkpoint to go on from. A run that is resumed before its first checkpoint
/// begins anew. Nothing is written before [`Run::open`].
///
/// # Errors
/// The folder's checkpoint cannot be read, is damaged or belongs to another run.
pub fn begin(settings: &Settings<'_>) -> Result<(Run, Option<Checkpoint>)> {
    let path = settings.out.join(CHECKPOINT);
    let identity = digest(&[
        settings.trainer.as_bytes(),
        settings.config.as_bytes(),
        &settings.seed.to_le_bytes(),
        settings.data.as_bytes(),
    ]);
    let mut run = Run {
        out: settings.out.to_path_buf(),
        config: settings.config.clone(),
        identity,
        is_new: true,
        every: settings.every,
        saved: Instant::now(),
        records: Vec::new(),
    };
    let mut checkpoint = None;
    if settings.resume && path.exists() {
        let stored = unpack(&files::read(&path)?).map_err(|error| error.within(path.display()))?;
        if stored.identity != run.identity {
            return Err(Error::new(
                "the checkpoint is of a run with another configuration, seed or data",
                path.display(),
                format!("the options of that run (its {CONFIG} lies beside it), or no --resume"),
            ));
        }
        run.records = stored.records;
        checkpoint = Some(stored.checkpoint);
        run.is_new = false;
    }
    Ok((run, checkpoint))
}

impl Run {
    /// Writes `config.toml`, and removes what an earlier run has left and a later step would take for this one's: its checkpoint and
    /// its pictures. A trainer calls it when nothing is left to be refused, so that what is refused destroys nothing.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn open(&self) -> Result<()> {
        files::write(&self.out.join(CONFIG), self.config.as_bytes())?;
        if !self.is_new {
            return Ok(());
        }
        let mut stale = vec![self.out.join(CHECKPOINT)];
        let is_picture = |path: &PathBuf| {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let epoch = stem.and_then(|stem| stem.parse().ok());
            epoch.is_some_and(|epoch| *path == self.picture(epoch))
        };
        if let Ok(folder) = std::fs::read_dir(self.out.join(PICTURES)) {
            let paths = folder.flatten().map(|entry| entry.path());
            stale.extend(paths.filter(is_picture));
        }
        for path in stale.iter().filter(|path| path.exists()) {
            std::fs::remove_file(path).map_err(|error| {
                Error::new(
                    format!("cannot remove what an earlier run has left ({error})"),
                    path.display(),
                    "another folder",
                )
            })?;
        }
        Ok(())
    }

    /// The file of the picture after an epoch, counted from 1.
    pub fn picture(&self, epoch: usize) -> PathBuf {
        picture(&self.out, epoch)
    }

    /// All pictures so far, of resumed runs from their beginning.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn pictures(&self) -> Result<Vec<Picture>> {
        let paths = (1..).map(|epoch| self.picture(epoch));
        let paths = paths.take_while(|path| path.exists());
        let read = |path: PathBuf| {
            Picture::from_png(&files::read(&path)?).map_err(|error| {
                Error::new(error, path.display(), "the picture that training wrote")
            })
        };
        paths.map(read).collect()
    }

    /// The run's folder.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// Adds a line to the log. It is in the file from the next checkpoint on.
    pub fn record(&mut self, step: u64, figures: &[(&str, f64)]) {
        self.records.push(Record {
            step,
            figures: figures
                .iter()
                .map(|&(name, value)| (name.to_string(), value))
                .collect(),
        });
    }

    /// The log so far, of resumed runs from their beginning.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Whether the last checkpoint is older than the user wants it to be.
    pub fn is_due(&self) -> bool {
        self.saved.elapsed() >= self.every
    }

    /// Writes the checkpoint and the log, each in one step: a kill leaves the old file or the new one.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save(&mut self, checkpoint: Checkpoint) -> Result<()> {
        let path = self.out.join(CHECKPOINT);
        let stored = Stored {
            identity: self.identity.clone(),
            checkpoint,
            records: std::mem::take(&mut self.records),
        };
        let packed = pack(&stored);
        self.records = stored.records;
        files::write(
            &path,
            &packed.map_err(|error| error.within(path.display()))?,
        )?;
        files::write(&self.out.join(LOG), csv(&self.records).as_bytes())?;
        self.saved = Instant::now();
        Ok(())
    }
}

/// As [`Run::picture`], of the run in a folder.
pub fn picture(out: &Path, epoch: usize) -> PathBuf {
    out.join(PICTURES).join(format!("{epoch:05}.png"))
}

fn pack(stored: &Stored) -> Result<Vec<u8>> {
    let body = postcard::to_stdvec(stored)
        .map_err(|error| Error::new(format!("cannot write a checkpoint ({error})"), "", ""))?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&Sha256::digest(&body));
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn unpack(bytes: &[u8]) -> Result<Stored> {
    let Some((magic, rest)) = bytes.split_at_checked(MAGIC.len()) else {
        return Err(Error::new(
            "the file is too short for a checkpoint",
            "",
            FRESH,
        ));
    };
    if magic != MAGIC {
        return Err(Error::new("not a checkpoint of this version", "", FRESH));
    }
    let sound = rest
        .split_at_checked(32)
        .filter(|(hash, body)| *hash == Sha256::digest(body).as_slice());
    let Some((_, body)) = sound else {
        return Err(Error::new("the checkpoint is damaged", "", FRESH));
    };
    postcard::from_bytes(body).map_err(|error| {
        Error::new(
            format!("the checkpoint cannot be read ({error})"),
            "",
            FRESH,
        )
    })
}

/// The log as CSV: a column for every figure, in the order of their first appearance; empty where a line has none.
pub fn csv(records: &[Record]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in records.iter().flat_map(|record| &record.figures) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut out = String::from("step");
    for name in &names {
        out.push(',');
        out.push_str(name);
    }
    out.push_str("\r\n");
    for record in records {
        // writing to a string cannot fail
        let _ = write!(out, "{}", record.step);
        for name in &names {
            out.push(',');
            if let Some((_, value)) = record.figures.iter().find(|(n, _)| n == name) {
                let _ = write!(out, "{value}");
            }
        }
        out.push_str("\r\n");
    }
    out
}

/// SHA-256 over several parts (their lengths included), in hexadecimal.
pub fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A configuration: the defaults, with what a TOML file says instead. Tables are merged key by key.
///
/// # Errors
/// The file cannot be read, is not TOML, or has a key or a value that the configuration does not take.
pub fn configure<T: Serialize + DeserializeOwned>(defaults: &T, file: Option<&Path>) -> Result<T> {
    let place = |error: &dyn std::fmt::Display| {
        let right = "a TOML file with some of the keys that config.toml of any run holds";
        Error::new(
            error,
            file.map_or(String::new(), |path| path.display().to_string()),
            right,
        )
    };
    let mut table = toml::Table::try_from(defaults).map_err(|error| place(&error))?;
    if let Some(path) = file {
        let bytes = files::read(path)?;
        let text = std::str::from_utf8(&bytes).map_err(|error| place(&error))?;
        let given: toml::Table = toml::from_str(text).map_err(|error| place(&error.message()))?;
        merge(&mut table, given);
    }
    table
        .try_into()
        // the message, and on a line of its own the key
        .map_err(|error: toml::de::Error| place(&error.to_string().trim().replace('\n', " ")))
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(into)), toml::Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// The configuration with every value written out.
///
/// # Errors
/// It holds something that TOML has no word for.
pub fn to_toml<T: Serialize>(config: &T) -> Result<String> {
    toml::to_string(config).map_err(|error| {
        Error::new(
            format!("cannot write the configuration ({error})"),
            CONFIG,
            "",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        rate: f32,
        name: String,
        inner: Inner,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        a: u32,
        b: u32,
    }

    fn defaults() -> Config {
        Config {
            rate: 0.5,
            name: "x".into(),
            inner: Inner { a: 1, b: 2 },
        }
    }

    fn settings(out: &Path, resume: bool) -> Settings<'_> {
        Settings {
            out,
            trainer: "test",
            config: to_toml(&defaults()).unwrap(),
            seed: 1,
            data: digest(&[b"data"]),
            resume,
            every: Duration::ZERO,
        }
    }

    #[test]
    fn a_file_changes_what_it_names_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        std::fs::write(&file, "rate = 0.25\n[inner]\nb = 7\n").unwrap();
        let read = configure(&defaults(), Some(&file)).unwrap();
        let expected = Config {
            rate: 0.25,
            inner: Inner { a: 1, b: 7 },
            ..defaults()
        };
        assert_eq!(read, expected);
        assert_eq!(configure(&defaults(), None).unwrap(), defaults());
        std::fs::write(&file, "wrong = 1\n").unwrap();
        let error = configure(&defaults(), Some(&file)).unwrap_err().to_string();
        assert!(
            error.contains("wrong") && error.contains("c.toml"),
            "{error}"
        );
    }

    #[test]
    fn a_run_goes_on_where_its_checkpoint_is() {
        let folder = tempfile::tempdir().unwrap();
        let (mut run, none) = begin(&settings(folder.path(), true)).unwrap();
        assert_eq!(none, None);
        let mut checkpoint = Checkpoint {
            step: 3,
            ..Checkpoint::default()
        };
        checkpoint
            .arrays
            .insert("p".into(), vec![f32::MIN_POSITIVE, -0.0]);
        run.record(3, &[("loss", 0.5)]);
        run.save(checkpoint.clone()).unwrap();
        let (run, found) = begin(&settings(folder.path(), true)).unwrap();
        let found = found.unwrap();
        assert_eq!(found, checkpoint);
        assert_eq!(
            found.array("p", 2).unwrap()[1].to_bits(),
            (-0.0f32).to_bits()
        );
        assert!(found.array("p", 3).is_err() && found.array("q", 1).is_err());
        assert_eq!(run.records().len(), 1);
        let log = std::fs::read_to_string(folder.path().join(LOG)).unwrap();
        assert_eq!(log, "step,loss\r\n3,0.5\r\n");
    }

    #[test]
    fn another_runs_checkpoint_and_a_damaged_one_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (mut run, _) = begin(&settings(folder.path(), false)).unwrap();
        run.save(Checkpoint::default()).unwrap();
        let other = Settings {
            seed: 2,
            ..settings(folder.path(), true)
        };
        assert!(
            begin(&other)
                .unwrap_err()
                .to_string()
                .contains("another configuration")
        );
        let path = folder.path().join(CHECKPOINT);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let error = begin(&settings(folder.path(), true))
            .unwrap_err()
            .to_string();
        assert!(error.contains("damaged"), "{error}");
        std::fs::write(&path, b"x").unwrap();
        assert!(begin(&settings(folder.path(), true)).is_err());
        // a new run leaves nothing of an old one to be resumed or shown, once nothing can refuse it any more
        let pictures = [1, 2, 5].map(|epoch| picture(folder.path(), epoch));
        let other = folder.path().join(PICTURES).join("mine.png");
        std::fs::create_dir(folder.path().join(PICTURES)).unwrap();
        pictures
            .iter()
            .chain([&other])
            .for_each(|p| std::fs::write(p, b"x").unwrap());
        let (run, _) = begin(&settings(folder.path(), false)).unwrap();
        assert!(path.exists() && !folder.path().join(CONFIG).exists());
        run.open().unwrap();
        assert!(!path.exists() && folder.path().join(CONFIG).exists());
        assert!(!pictures.iter().any(|path| path.exists()) && other.exists());
    }

    #[test]
    fn lines_of_the_log_may_have_different_figures() {
        let record = |step, figures: &[(&str, f64)]| Record {
            step,
            figures: figures.iter().map(|&(n, v)| (n.to_string(), v)).collect(),
        };
        let text = csv(&[
            record(1, &[("a", 1.0)]),
            record(2, &[("b", 2.5), ("a", 0.0)]),
        ]);
        assert_eq!(text, "step,a,b\r\n1,1,\r\n2,0,2.5\r\n");
    }
}
