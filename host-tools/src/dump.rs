//! Every tensor of a model on the way from its input to its output, on the host or on a chip, and the first one that differs
//! between two such dumps.
//!
//! A dump is an `.npz` file: one array `[N, ...]` per tensor in running order, the input first, in the tensor's own number type,
//! named by its place in that order; and `info`, UTF-8 JSON as uint8: what each array is.

use crate::classifier::{Classifier, Inputs};
use crate::data::npy::{Array, Values, View};
use crate::data::npz::{self, Entry};
use crate::device::{Chip, Line};
use crate::document::Differing;
use crate::error::{Error, Result};
use crate::files;
use foolproof::link::Input;
use foolproof::memory::Mode;
use foolproof::model::Model;
use foolproof::session::SessionError;
use foolproof::tensor::{DType, Data};
use serde::{Deserialize, Serialize};
use std::path::Path;
use zerocopy::IntoBytes;

/// What an array of a dump is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// The array's name in the archive.
    pub array: String,
    /// The tensor's name in the model; may be empty.
    pub tensor: String,
    /// The operator that made it; `input` for the input.
    pub operator: String,
    /// Its shape for one sample.
    pub shape: Vec<usize>,
    /// `f32` or `i8`.
    pub r#type: String,
    /// Real units per step; 1 where it is not quantized.
    pub scale: f32,
    /// The integer that stands for 0.
    pub zero_point: i32,
}

/// One tensor, of all samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// What it is.
    pub info: Info,
    /// Its elements, little-endian, sample after sample.
    pub bytes: Vec<u8>,
}

/// All tensors of a run in running order.
#[derive(Debug, Clone, PartialEq)]
pub struct Dump {
    /// How many samples ran.
    pub samples: usize,
    /// The tensors, the input first.
    pub tensors: Vec<Tensor>,
}

/// The most bytes that a dump may have: it is held in memory.
const MAX_BYTES: usize = 1 << 30;

impl Dump {
    /// A dump of `samples` samples with nothing in it yet.
    ///
    /// # Errors
    /// It would be too large.
    fn new(model: &Model<'_>, samples: usize) -> Result<Dump> {
        let tables = model.tables();
        let outputs = (0..tables.op_count()).map(|k| {
            let node = tables.node(k);
            (node.output, node.op.name())
        });
        let tensors: Vec<Tensor> = [(tables.input(), "input")]
            .into_iter()
            .chain(outputs)
            .enumerate()
            .map(|(place, (t, operator))| {
                let (shape, quant) = (tables.shape(t), tables.quant(t));
                Tensor {
                    info: Info {
                        array: format!("{place:04}_{operator}"),
                        tensor: tables.name(t).to_string(),
                        operator: operator.to_string(),
                        shape: shape.dims().iter().map(|&d| d as usize).collect(),
                        r#type: if tables.dtype(t) == DType::F32 {
                            "f32"
                        } else {
                            "i8"
                        }
                        .into(),
                        scale: quant.scale,
                        zero_point: quant.zero_point,
                    },
                    bytes: Vec::new(),
                }
            })
            .collect();
        let size = |tensor: &Tensor| {
            let width = if tensor.info.r#type == "f32" { 4 } else { 1 };
            width * tensor.info.shape.iter().product::<usize>()
        };
        let one: usize = tensors.iter().map(size).sum();
        match one.checked_mul(samples) {
            Some(bytes) if bytes <= MAX_BYTES => Ok(Dump { samples, tensors }),
            _ => Err(Error::new(
                format!(
                    "{samples} samples with {one} bytes of tensors each are too much for a dump"
                ),
                "--dump-tensors and --compare",
                format!("at most {} samples", MAX_BYTES / one.max(1)),
            )),
        }
    }

    /// Runs every sample on the host.
    ///
    /// # Errors
    /// The inputs are not the model's, or too many.
    pub fn of_host(classifier: &Classifier<'_>, inputs: &Inputs) -> Result<Dump> {
        let n = classifier.input_len();
        let mut dump = Dump::new(classifier.model(), inputs.len() / n)?;
        let refuse = |error: SessionError| Error::new(error, "running the model", "");
        let mut buffer = classifier.buffer(Mode::Infer);
        let mut session = classifier
            .session(Mode::Infer, &mut buffer)
            .map_err(refuse)?;
        for sample in 0..dump.samples {
            let mut tensors = dump.tensors.iter_mut();
            session
                .trace(&inputs.bytes(sample, n), &mut |_, data| {
                    if let Some(tensor) = tensors.next() {
                        tensor.bytes.extend_from_slice(bytes_of(data));
                    }
                })
                .map_err(refuse)?;
        }
        Ok(dump)
    }

    /// Runs every sample on a chip that has the model.
    ///
    /// # Errors
    /// The chip refuses, or there are too many samples.
    pub fn of_chip<L: Line>(
        chip: &mut Chip<L>,
        model: &Model<'_>,
        inputs: &Inputs,
        progress: &dyn Fn(u64),
    ) -> Result<Dump> {
        let n = model.input_shape().len();
        let mut dump = Dump::new(model, inputs.len() / n)?;
        for sample in 0..dump.samples {
            let mut tensors = dump.tensors.iter_mut();
            chip.trace(Input::Bytes(&inputs.bytes(sample, n)), |_, bytes| {
                if let Some(tensor) = tensors.next() {
                    tensor.bytes.extend_from_slice(bytes);
                }
            })
            .map_err(|error| Error::new(format!("{error:#}"), "the chip", ""))?;
            progress(1);
        }
        Ok(dump)
    }

    /// Writes an `.npz` file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let infos: Vec<&Info> = self.tensors.iter().map(|tensor| &tensor.info).collect();
        let json = serde_json::to_vec(&infos)
            .map_err(|error| Error::new(error, path.display(), "tensors with finite scales"))?;
        let values: Vec<Elements> = self.tensors.iter().map(Tensor::elements).collect();
        let shapes: Vec<Vec<usize>> = self
            .tensors
            .iter()
            .map(|tensor| {
                let dims = &tensor.info.shape;
                let rest = if dims.first() == Some(&1) {
                    &dims[1..]
                } else {
                    dims
                };
                [&[self.samples], rest].concat()
            })
            .collect();
        let info_shape = [json.len()];
        let mut entries = vec![Entry {
            name: "info",
            shape: &info_shape,
            values: View::U8(&json),
        }];
        for ((tensor, values), shape) in self.tensors.iter().zip(&values).zip(&shapes) {
            entries.push(Entry {
                name: &tensor.info.array,
                shape,
                values: match values {
                    Elements::F32(values) => View::F32(values),
                    Elements::I8(values) => View::I8(values),
                },
            });
        }
        npz::write(path, &entries)
    }

    /// Reads what [`Dump::write`] wrote.
    ///
    /// # Errors
    /// The file is no dump.
    pub fn read(path: &Path) -> Result<Dump> {
        let file = files::read(path)?;
        let right = "a file that --dump-tensors wrote";
        let refuse = |what: String| Error::new(what, path.display(), right);
        let array = |name: &str| -> Result<Array> {
            npz::read_array(&file, name)
                .map_err(|error| error.within(path.display()))?
                .ok_or_else(|| refuse(format!("no array {name:?}")))
        };
        let Values::U8(json) = array("info")?.values else {
            return Err(refuse("the array \"info\" is not uint8".into()));
        };
        let infos: Vec<Info> = serde_json::from_slice(&json)
            .map_err(|error| refuse(format!("the array \"info\" is damaged ({error})")))?;
        let mut samples = None;
        let mut tensors = Vec::with_capacity(infos.len());
        for info in infos {
            let found = array(&info.array)?;
            let bytes = match found.values {
                Values::F32(values) if info.r#type == "f32" => values.as_bytes().to_vec(),
                Values::I8(values) if info.r#type == "i8" => values.as_bytes().to_vec(),
                _ => {
                    return Err(refuse(format!(
                        "array {:?} is no {}",
                        info.array, info.r#type
                    )));
                }
            };
            let count = found.shape.first().copied().unwrap_or(0);
            let width = if info.r#type == "f32" { 4 } else { 1 };
            let size = info
                .shape
                .iter()
                .try_fold(width, |size: usize, &d| size.checked_mul(d));
            let fits = size.and_then(|size| size.checked_mul(count)) == Some(bytes.len());
            if !fits || *samples.get_or_insert(count) != count {
                return Err(refuse(format!(
                    "array {:?} has another shape than its info",
                    info.array
                )));
            }
            tensors.push(Tensor { info, bytes });
        }
        match samples {
            Some(samples) if samples > 0 => Ok(Dump { samples, tensors }),
            _ => Err(refuse("a dump without tensors".into())),
        }
    }

    /// The first tensor in running order that is not the same in `other`, to the bit.
    ///
    /// # Errors
    /// The two are not of one model and the same number of samples.
    pub fn first_difference(&self, other: &Dump, place: &Path) -> Result<Option<Differing>> {
        let right = "a dump of the same model and the same samples";
        let refuse = |what: String| Err(Error::new(what, place.display(), right));
        let (mine, theirs) = (self.tensors.len(), other.tensors.len());
        if mine != theirs {
            return refuse(format!("{theirs} tensors where this run has {mine}"));
        }
        if self.samples != other.samples {
            return refuse(format!(
                "{} samples where this run has {}",
                other.samples, self.samples
            ));
        }
        let mut first = None;
        for (place, (a, b)) in self.tensors.iter().zip(&other.tensors).enumerate() {
            let form = |info: &Info| format!("{:?} {}", info.shape, info.r#type);
            if form(&a.info) != form(&b.info) {
                return refuse(format!(
                    "tensor {place} is {} where this run has {}",
                    form(&b.info),
                    form(&a.info)
                ));
            }
            if first.is_none() && a.bytes != b.bytes {
                first = Some(a.differing(b, place, self.samples));
            }
        }
        Ok(first)
    }
}

/// A tensor's elements, typed.
enum Elements {
    F32(Vec<f32>),
    I8(Vec<i8>),
}

impl Tensor {
    fn elements(&self) -> Elements {
        match self.info.r#type.as_str() {
            "f32" => {
                let words = self.bytes.as_chunks().0.iter();
                Elements::F32(words.map(|&b| f32::from_le_bytes(b)).collect())
            }
            _ => Elements::I8(self.bytes.iter().map(|&b| b as i8).collect()),
        }
    }

    /// Numbers to compare: bits, so that a NaN is itself, and the value.
    fn numbers(&self) -> Vec<(u32, f64)> {
        match self.elements() {
            Elements::F32(v) => v.iter().map(|&v| (v.to_bits(), f64::from(v))).collect(),
            Elements::I8(v) => v.iter().map(|&v| (v as u32, f64::from(v))).collect(),
        }
    }

    fn differing(&self, other: &Tensor, place: usize, samples: usize) -> Differing {
        let (mine, theirs) = (self.numbers(), other.numbers());
        let pairs = || mine.iter().zip(&theirs).filter(|(a, b)| a.0 != b.0);
        let at = mine.iter().zip(&theirs).position(|(a, b)| a.0 != b.0);
        let at = at.unwrap_or(0);
        let each = (mine.len() / samples.max(1)).max(1);
        let largest = pairs().map(|(a, b)| (a.1 - b.1).abs()).fold(0.0, f64::max);
        Differing {
            index: place,
            tensor: self.info.tensor.clone(),
            operator: self.info.operator.clone(),
            elements: pairs().count(),
            of: mine.len(),
            // a difference to infinity or NaN is no number that JSON has
            max_difference: Some(largest).filter(|d| d.is_finite()),
            sample: at / each,
            element: at % each,
        }
    }
}

fn bytes_of(data: Data<'_>) -> &[u8] {
    match data {
        Data::F32(values) => values.as_bytes(),
        Data::I8(values) => values.as_bytes(),
        Data::I32(values) => values.as_bytes(),
        Data::Absent => &[],
    }
}
