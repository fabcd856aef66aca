//! Data sets: what a classifier is trained on and judged by.
//!
//! [`load`] tells a file by its content, never by its extension: `.npy`, `.npz` (`x`, `y`), idx and gzipped idx, the
//! CIFAR-10 binary format, and the digits that ship with foolproof (`digits`). Everything that a hostile file can claim
//! (sizes, counts, labels, values) is checked here, so that the rest of the tools may trust a [`Dataset`].

pub mod cifar;
pub mod digits;
pub mod idx;
pub mod known;
pub mod npy;
pub mod npz;

use crate::error::{Error, Result};
use crate::files;
use std::path::{Path, PathBuf};

/// The values of all samples, one after another, in the type in which the file holds them.
#[derive(Debug, Clone, PartialEq)]
pub enum Samples {
    /// Real values; never NaN, never infinite.
    F32(Vec<f32>),
    /// Raw bytes, as images are stored.
    U8(Vec<u8>),
    /// A quantized model's own input type.
    I8(Vec<i8>),
}

impl Samples {
    /// Number of values over all samples.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::U8(values) => values.len(),
            Self::I8(values) => values.len(),
        }
    }

    /// Whether there is no value at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// NumPy's name of the element type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::F32(_) => "float32",
            Self::U8(_) => "uint8",
            Self::I8(_) => "int8",
        }
    }
}

/// Samples of one shape, with labels where the file has them. Never empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    name: String,
    shape: Vec<usize>,
    samples: Samples,
    labels: Option<Vec<usize>>,
}

/// What the samples are for. It decides which part of a data set with a fixed split is meant where the user did not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Training, or calibrating a quantization.
    Learn,
    /// Evaluating, attacking: samples that the model has not been trained on.
    Judge,
}

/// The user's words for a data set: a path, `IMAGES,LABELS`, or `digits[:train|:test|:all]`.
pub fn load(spec: &str, purpose: Purpose) -> Result<Dataset> {
    match spec {
        "digits" => return digits::load(digits::Part::of(purpose)),
        "digits:train" => return digits::load(digits::Part::Train),
        "digits:test" => return digits::load(digits::Part::Test),
        "digits:all" => return digits::load(digits::Part::All),
        _ => {}
    }
    if let Some(part) = spec.strip_prefix("digits:") {
        return Err(Error::new(
            format!("unknown part {part:?} of the digits"),
            spec,
            "digits, digits:train, digits:test or digits:all",
        ));
    }
    let path = Path::new(spec);
    if !path.exists()
        && let Some((images, labels)) = spec.split_once(',')
    {
        return idx::load_pair(Path::new(images), Path::new(labels));
    }
    let content = files::read(path)?;
    from_bytes(content, path).map_err(|error| error.within(path.display()))
}

/// The files that [`load`] reads for `spec`, as far as they are there; none for the embedded digits.
pub fn files_of(spec: &str) -> Vec<PathBuf> {
    let path = Path::new(spec);
    match spec.split_once(',') {
        Some((images, labels)) if !path.exists() => vec![images.into(), labels.into()],
        _ if is_embedded(spec) => Vec::new(),
        _ => [path.to_path_buf()]
            .into_iter()
            .chain(idx::labels_of(path))
            .collect(),
    }
}

fn is_embedded(spec: &str) -> bool {
    spec == "digits" || spec.starts_with("digits:")
}

/// Tells the format by the first bytes. `path` names the data set, and finds an idx file's labels.
fn from_bytes(content: Vec<u8>, path: &Path) -> Result<Dataset> {
    let name = path.display().to_string();
    if content.is_empty() {
        return Err(Error::new("the file is empty", "", FORMATS));
    }
    if content.starts_with(npy::MAGIC) {
        return Dataset::from_array(npy::parse(&content)?, None, name);
    }
    if content.starts_with(b"PK") {
        return npz::parse(&content, name);
    }
    let content = idx::inflate(content)?;
    if content.starts_with(npy::MAGIC) {
        return Dataset::from_array(npy::parse(&content)?, None, name);
    }
    if idx::looks_like(&content) {
        let images = idx::parse(&content)?;
        let labels = match idx::labels_of(path) {
            Some(labels) => Some(idx::parse_file(&labels)?),
            None => None,
        };
        return Dataset::from_array(images, labels, name);
    }
    if cifar::looks_like(&content) {
        return cifar::parse(&content, name);
    }
    Err(Error::new("not a data set in a known format", "", FORMATS))
}

const FORMATS: &str = "a .npy or .npz file with samples x [N, ...] and labels y [N], an idx file (.gz or not), or a CIFAR-10 binary file";

impl Dataset {
    /// Checks and builds a data set of `samples.len() / product(shape)` samples of `shape` (without the batch).
    pub fn new(
        name: impl Into<String>,
        shape: Vec<usize>,
        samples: Samples,
        labels: Option<Vec<usize>>,
    ) -> Result<Self> {
        let size = npy::checked_count(&shape)?;
        if size == 0 || samples.is_empty() {
            return Err(Error::new(
                "no samples",
                "x",
                "at least one sample of at least one value",
            ));
        }
        if !samples.len().is_multiple_of(size) {
            return Err(Error::new(
                format!(
                    "{} values do not fill samples of shape {shape:?}",
                    samples.len()
                ),
                "x",
                format!("a multiple of {size} values"),
            ));
        }
        let count = samples.len() / size;
        if let Some(labels) = &labels
            && labels.len() != count
        {
            return Err(Error::new(
                format!("{count} samples, but {} labels", labels.len()),
                "x and y",
                "one label for each sample",
            ));
        }
        if let Samples::F32(values) = &samples
            && let Some(at) = values.iter().position(|value| !value.is_finite())
        {
            return Err(Error::new(
                format!("a value is {}", values[at]),
                format!(
                    "x, sample {}, index {:?}",
                    at / size,
                    coordinates(at % size, &shape)
                ),
                "finite numbers",
            ));
        }
        Ok(Self {
            name: name.into(),
            shape,
            samples,
            labels,
        })
    }

    /// From arrays as they stand in a file: `x [N, ...]`, and `y [N]` or `[N, 1]`.
    pub fn from_array(x: npy::Array, y: Option<npy::Array>, name: String) -> Result<Self> {
        let (&count, shape) = x
            .shape
            .split_first()
            .ok_or_else(|| Error::new("a single number", "x", "an array of samples [N, ...]"))?;
        if count == 0 {
            return Err(Error::new("no samples", "x", "at least one sample"));
        }
        if shape.is_empty() {
            return Err(Error::new(
                format!("an array of shape [{count}] has no axis for the values of a sample"),
                "x",
                "samples [N, ...], for example [N, height, width, channels]",
            ));
        }
        let labels = match y {
            None => None,
            Some(y) => Some(labels(y)?),
        };
        Self::new(name, shape.to_vec(), x.values.into_samples()?, labels)
    }

    /// What the user called it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shape of one sample, without the batch.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Values in one sample.
    pub fn sample_len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Number of samples; at least 1.
    #[allow(clippy::len_without_is_empty, reason = "a data set is never empty")]
    pub fn len(&self) -> usize {
        self.samples.len() / self.sample_len()
    }

    /// All values, sample after sample.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// The labels, one a sample.
    pub fn labels(&self) -> Option<&[usize]> {
        self.labels.as_deref()
    }

    /// The labels, or an error that says that `purpose` (for example "evaluate") needs them.
    pub fn require_labels(&self, purpose: &str) -> Result<&[usize]> {
        self.labels().ok_or_else(|| {
            Error::new(
                format!("no labels, and {purpose} needs them"),
                &self.name,
                "an .npz file with x and y, or an idx pair IMAGES,LABELS",
            )
        })
    }

    /// Checks that every label is below `classes`, the number of the model's outputs.
    pub fn check_labels(&self, classes: usize) -> Result<()> {
        let labels = self.labels().unwrap_or_default();
        match labels.iter().position(|&label| label >= classes) {
            None => Ok(()),
            Some(at) => Err(Error::new(
                format!(
                    "label {} is out of range for a model of {classes} classes",
                    labels[at]
                ),
                format!("{}, y[{at}]", self.name),
                format!("labels 0 to {}", classes.saturating_sub(1)),
            )),
        }
    }

    /// Number of classes that the labels imply: the largest label and one; 0 without labels.
    pub fn classes(&self) -> usize {
        self.labels()
            .and_then(|labels| labels.iter().max())
            .map_or(0, |&largest| largest + 1)
    }

    /// The samples at `indices`, in that order; indices past the end are an error.
    pub fn select(&self, indices: &[usize]) -> Result<Self> {
        let size = self.sample_len();
        if let Some(&index) = indices.iter().find(|&&index| index >= self.len()) {
            return Err(Error::new(
                format!("no sample {index}"),
                &self.name,
                format!("samples 0 to {}", self.len() - 1),
            ));
        }
        fn pick<T: Copy>(values: &[T], indices: &[usize], size: usize) -> Vec<T> {
            indices
                .iter()
                .flat_map(|&i| &values[i * size..][..size])
                .copied()
                .collect()
        }
        let samples = match &self.samples {
            Samples::F32(values) => Samples::F32(pick(values, indices, size)),
            Samples::U8(values) => Samples::U8(pick(values, indices, size)),
            Samples::I8(values) => Samples::I8(pick(values, indices, size)),
        };
        let labels = self
            .labels()
            .map(|labels| indices.iter().map(|&i| labels[i]).collect());
        Self::new(self.name.clone(), self.shape.clone(), samples, labels)
    }

    /// At most the first `count` samples.
    pub fn take(self, count: usize) -> Result<Self> {
        if count >= self.len() {
            return Ok(self);
        }
        self.select(&(0..count).collect::<Vec<_>>())
    }

    /// The same samples with other values: what an attack makes of them. `values` must be as many as there are.
    pub fn with_samples(&self, samples: Samples) -> Result<Self> {
        Self::new(
            self.name.clone(),
            self.shape.clone(),
            samples,
            self.labels.clone(),
        )
    }

    /// The same samples with their elements arranged otherwise. `shape` is that of one sample, without the batch.
    pub fn with_shape(&self, shape: Vec<usize>, samples: Samples) -> Result<Self> {
        Self::new(self.name.clone(), shape, samples, self.labels.clone())
    }

    /// Writes `x` and, where there are labels, `y` as an `.npz` file that NumPy reads.
    pub fn write_npz(&self, path: &Path) -> Result<()> {
        let mut shape = vec![self.len()];
        shape.extend_from_slice(&self.shape);
        let labels: Option<Vec<i64>> = self
            .labels()
            .map(|labels| labels.iter().map(|&label| label as i64).collect());
        let x = npy::View::of_samples(&self.samples);
        let mut arrays = vec![npz::Entry {
            name: "x",
            shape: &shape,
            values: x,
        }];
        let count = [self.len()];
        if let Some(labels) = &labels {
            arrays.push(npz::Entry {
                name: "y",
                shape: &count,
                values: npy::View::I64(labels),
            });
        }
        npz::write(path, &arrays)
    }
}

/// Labels are whole numbers, 0 and up, in one dimension (or `[N, 1]`).
fn labels(y: npy::Array) -> Result<Vec<usize>> {
    if !matches!(y.shape.as_slice(), [_] | [_, 1]) {
        return Err(Error::new(
            format!("labels of shape {:?}", y.shape),
            "y",
            "one whole number for each sample: shape [N]",
        ));
    }
    let integers = y
        .values
        .into_integers()
        .map_err(|error| error.within("y"))?;
    integers
        .iter()
        .enumerate()
        .map(|(at, &label)| {
            // No model has a million classes; a label like that is a file of something else.
            usize::try_from(label)
                .ok()
                .filter(|&label| label < 1_000_000)
                .ok_or_else(|| {
                    Error::new(
                        format!("label {label} is out of range"),
                        format!("y[{at}]"),
                        "labels 0, 1, 2, ...",
                    )
                })
        })
        .collect()
}

/// Where the flat index `at` lies in an array of `shape`.
fn coordinates(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut place: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&size| {
            let here = at % size;
            at /= size;
            here
        })
        .collect();
    place.reverse();
    place
}

/// A path with another file name.
fn with_name(path: &Path, name: &str) -> PathBuf {
    path.with_file_name(name)
}

#[cfg(test)]
mod tests;
