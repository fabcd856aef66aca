//! Model files, told by their content.

use super::args::{InputArgs, MemoryArgs};
use crate::classifier::{Classifier, Inputs};
use crate::data::{Dataset, Samples};
use crate::document;
use crate::error::{Error, Result};
use crate::export;
use crate::files;
use crate::graph::{Graph, GraphError, Image, from_image, to_image, to_image_within};
use crate::import::{ImportError, onnx, tflite};
use crate::inspect::numerics;
use crate::preprocess::Preprocess;
use foolproof::kernels::Kernels;
use foolproof::model::Model;
use foolproof::model::format::MAGIC;
use foolproof::ops::Numerics;
use sha2::{Digest, Sha256};
use std::path::Path;

/// A model that was read and checked.
#[derive(Debug)]
pub(crate) struct ModelFile {
    path: String,
    sha256: String,
    file_bytes: usize,
    image: Image,
    /// What a user should know about how its input is filled.
    note: Option<String>,
    /// Whether the file says which values its input takes.
    says_range: bool,
    /// How the file orders a sample's elements, where that is not the graph's order.
    order: Option<FileOrder>,
}

/// The order of elements in a file that has channels first.
#[derive(Debug)]
struct FileOrder {
    order: onnx::SampleOrder,
    /// Dimensions of one sample.
    shape: Vec<usize>,
}

impl ModelFile {
    /// Reads a model to feed it samples. The input of a float model of a file format without ranges takes what
    /// `--input-range`, `--mean` and `--std` say, 0 to 1 without them.
    pub fn read_for(path: &Path, input: &InputArgs, numerics: Option<Numerics>) -> Result<Self> {
        let mut file = Self::read(path, numerics)?;
        if !file.says_range
            && let Some(range) = preprocess(input).spanned()
        {
            let mut graph = from_image(&file.model()?);
            graph.input_range = range;
            file.image = to_image(&graph)
                .map_err(|error| Error::new(error, path.display(), "another --input-range"))?;
            file.says_range = true;
        }
        if let Some(above) = input.anomaly_above {
            file.detect_anomalies(above)?;
        }
        Ok(file)
    }

    fn detect_anomalies(&mut self, above: f32) -> Result<()> {
        let (input, output) = {
            let model = self.model()?;
            (model.input_shape().len(), model.output_shape().len())
        };
        if input != output {
            return Err(Error::new(
                format!("the model takes {input} values and answers with {output}"),
                "--anomaly-above",
                "an autoencoder, which answers with as many as it takes",
            ));
        }
        let mut graph = from_image(&self.model()?);
        graph.anomaly_above = Some(above);
        self.image =
            to_image(&graph).map_err(|error| Error::new(error, &self.path, "another model"))?;
        Ok(())
    }

    /// What to say about an autoencoder that is used as if it were a classifier.
    fn taken_for_a_classifier(&self) -> Option<String> {
        let model = self.image.model().ok()?;
        let autoencoder = model.anomaly_above().is_none()
            && model.output_shape().len() == model.input_shape().len()
            && model.input_shape().len() > 1;
        autoencoder.then(|| {
            "the model answers with as many values as it takes, and the largest was taken for a class: for an autoencoder, --anomaly-above makes it an anomaly detector".to_string()
        })
    }

    /// The model with a buffer for attacks within the limit, where there is one.
    pub fn within(mut self, memory: MemoryArgs) -> Result<Self> {
        let Some(limit) = memory.max_buffer else {
            return Ok(self);
        };
        self.image = to_image_within(&from_image(&self.model()?), limit).map_err(|error| {
            let right = match error {
                GraphError::AttackBuffer { needed, .. } => format!("{needed} or more"),
                _ => "a model that foolproof can plan".into(),
            };
            Error::new(error, "--max-buffer", right)
        })?;
        Ok(self)
    }

    /// Reads the float model that `int8` was made of. What its file does not say, the range of its input, is that model's.
    pub fn read_twin(path: &Path, int8: &Classifier<'_>) -> Result<Self> {
        let mut file = Self::read(path, None)?;
        let right = "the float model that MODEL was made of";
        let refuse = |what: String| Error::new(what, path.display(), right);
        let mut graph = from_image(&file.model()?);
        if graph.is_quantized() {
            return Err(refuse("--float names an int8 model".into()));
        }
        let sizes = |model: &Model<'_>| {
            let output = model.output_shape().len();
            (model.input_shape().len(), output)
        };
        let (own, wanted) = (sizes(&file.model()?), sizes(int8.model()));
        if own != wanted {
            return Err(refuse(format!(
                "the float model takes {} values and answers with {}, MODEL {} and {}",
                own.0, own.1, wanted.0, wanted.1
            )));
        }
        graph.anomaly_above = int8.model().anomaly_above();
        let (form, (low, high)) = (int8.form(), int8.element_range());
        graph.input_range = match form.grid {
            Some(grid) => (grid.dequantize(low as i8), grid.dequantize(high as i8)),
            None => (low, high),
        };
        file.image = to_image(&graph).map_err(|error| refuse(error.to_string()))?;
        file.says_range = true;
        Ok(file)
    }

    /// What was assumed about the model because neither the file nor the user says it.
    pub fn assumptions(&self) -> Vec<String> {
        let range = (!self.says_range).then(|| {
            "the model's file does not say which values its input takes: 0 to 1 was assumed; --input-range says otherwise".to_string()
        });
        range
            .into_iter()
            .chain(self.taken_for_a_classifier())
            .collect()
    }

    /// Reads a model. `numerics` is whose int8 arithmetic the user wants.
    pub fn read(path: &Path, numerics: Option<Numerics>) -> Result<Self> {
        let file = Self::read_any(path, numerics)?;
        let refuse = |what: String, right: &str| Error::new(what, "--numerics", right);
        match (numerics, crate::inspect::numerics(&file.model()?)) {
            (Some(_), "f32") => Err(refuse(
                format!("{} is a float model", path.display()),
                "int8 models have the arithmetic of a runtime; leave it out",
            )),
            (Some(wanted), had) if wanted.name() != had => Err(refuse(
                format!(
                    "the arithmetic of {} is {had}, not {}",
                    path.display(),
                    wanted.name()
                ),
                "the .tflite file that it was made from, or none",
            )),
            _ => Ok(file),
        }
    }

    fn read_any(path: &Path, numerics: Option<Numerics>) -> Result<Self> {
        let bytes = files::read(path)?;
        let refuse = |what: String| {
            Error::new(
                what,
                path.display(),
                "a TensorFlow Lite model (.tflite), an ONNX model (.onnx), or a model image (.fpi) that foolproof wrote",
            )
        };
        if bytes.get(4..8) == Some(tflite::IDENTIFIER) {
            return Self::of_tflite(path, &bytes, numerics.unwrap_or_default());
        }
        if !bytes.starts_with(&MAGIC) {
            // an ONNX file begins with nothing special
            return match onnx::read(&bytes) {
                Err(ImportError::Malformed { .. }) => {
                    Err(refuse("not a model in a known format".into()))
                }
                imported => Self::of_onnx(path, &bytes, imported),
            };
        }
        let image = Image::from_bytes(&bytes);
        image.model().map_err(|error| refuse(error.to_string()))?;
        Ok(Self::of_image(path.display().to_string(), image))
    }

    /// What a model file needs that foolproof does not have, one line each, and the file's SHA-256; `None` where that is not
    /// what is wrong with it.
    pub fn unsupported(path: &Path) -> Option<(Vec<String>, String)> {
        let bytes = files::read(path).ok()?;
        let refused = match bytes.get(4..8) == Some(tflite::IDENTIFIER) {
            true => tflite::import(&bytes).err()?,
            false => onnx::read(&bytes).err()?,
        };
        match refused {
            ImportError::Unsupported(missing) => Some((
                missing.iter().map(ToString::to_string).collect(),
                hex_digest(&bytes),
            )),
            _ => None,
        }
    }

    fn of_tflite(path: &Path, bytes: &[u8], numerics: Numerics) -> Result<Self> {
        let refuse = |what: &dyn std::fmt::Display| {
            Error::new(
                what,
                path.display(),
                "a float or int8 TensorFlow Lite model of the operators that foolproof has",
            )
        };
        let graph = tflite::import_for(bytes, numerics).map_err(|error| refuse(&error))?;
        let image = to_image(&graph).map_err(|error| refuse(&error))?;
        Ok(Self {
            sha256: hex_digest(bytes),
            file_bytes: bytes.len(),
            says_range: graph.is_quantized(),
            ..Self::of_image(path.display().to_string(), image)
        })
    }

    fn of_onnx(
        path: &Path,
        bytes: &[u8],
        imported: std::result::Result<onnx::Imported, ImportError>,
    ) -> Result<Self> {
        let refuse = |what: &dyn std::fmt::Display| {
            Error::new(
                what,
                path.display(),
                "a float ONNX model of the operators that foolproof has",
            )
        };
        let imported = imported.map_err(|error| refuse(&error))?;
        let image = to_image(&imported.graph).map_err(|error| refuse(&error))?;
        let shape = imported.graph.tensors[imported.graph.input].shape;
        let note = imported.channels_moved.then(|| {
            format!(
                "the file's input is {:?}, channels first; data are taken like that, flat in that order, or channels last, {:?}",
                imported.file_shape,
                shape.dims()
            )
        });
        Ok(Self {
            sha256: hex_digest(bytes),
            file_bytes: bytes.len(),
            note,
            says_range: imported.graph.is_quantized(),
            order: (!imported.order().is_same()).then(|| FileOrder {
                order: imported.order(),
                shape: imported.file_shape[1..]
                    .iter()
                    .map(|&d| d as usize)
                    .collect(),
            }),
            ..Self::of_image(path.display().to_string(), image)
        })
    }

    /// Writes a graph, as a TensorFlow Lite model where the name ends in `.tflite`, else as an image.
    pub fn write(path: &Path, graph: &Graph) -> Result<Self> {
        let refuse =
            |error: &dyn std::fmt::Display, right: &str| Error::new(error, path.display(), right);
        if Self::is_tflite(path) {
            let bytes = export::tflite::export(graph).map_err(|error| {
                refuse(&error, "a name that ends in .fpi: images hold every model")
            })?;
            files::write(path, &bytes)?;
            return Self::of_tflite(path, &bytes, graph.numerics);
        }
        let image = to_image(graph).map_err(|error| refuse(&error, "a smaller model"))?;
        Self::write_image(path, image)
    }

    /// Writes an image as it is.
    pub fn write_image(path: &Path, image: Image) -> Result<Self> {
        files::write(path, image.bytes())?;
        Ok(Self::of_image(path.display().to_string(), image))
    }

    /// Whether a file of this name is written as a TensorFlow Lite model.
    pub fn is_tflite(path: &Path) -> bool {
        path.extension()
            .is_some_and(|extension| extension == "tflite")
    }

    /// A model that is not a file: `name` stands for its path.
    pub fn of_image(name: String, image: Image) -> Self {
        Self {
            path: name,
            sha256: hex_digest(image.bytes()),
            file_bytes: image.bytes().len(),
            image,
            note: None,
            says_range: true,
            order: None,
        }
    }

    pub fn image(&self) -> &Image {
        &self.image
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// What a user should know about how its input is filled, in one line.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Length of the file.
    pub fn file_bytes(&self) -> usize {
        self.file_bytes
    }

    pub fn model(&self) -> Result<Model<'_>> {
        self.image
            .model()
            .map_err(|error| Error::new(error, &self.path, "a model image that foolproof wrote"))
    }

    /// What documents say about it.
    pub fn describe(&self) -> Result<document::Model> {
        Ok(document::Model {
            path: self.path.clone(),
            sha256: self.sha256.clone(),
            numerics: numerics(&self.model()?).into(),
        })
    }

    /// The model as a classifier, and the samples as it takes them; labels are checked against its classes.
    pub fn with_data(
        &self,
        input: &InputArgs,
        kernels: Kernels,
        data: &Dataset,
    ) -> Result<(Classifier<'_>, Inputs)> {
        self.with_preprocessed(&preprocess(input), kernels, data)
    }

    /// The same where a range that nobody stated bounds nothing: to infer, not to attack.
    pub fn with_any_data(
        &self,
        input: &InputArgs,
        kernels: Kernels,
        data: &Dataset,
    ) -> Result<(Classifier<'_>, Inputs)> {
        let preprocess = Preprocess {
            any_values: !self.says_range,
            ..preprocess(input)
        };
        self.with_preprocessed(&preprocess, kernels, data)
    }

    fn with_preprocessed(
        &self,
        preprocess: &Preprocess,
        kernels: Kernels,
        data: &Dataset,
    ) -> Result<(Classifier<'_>, Inputs)> {
        let classifier = Classifier::new(self.model()?, kernels);
        data.check_labels(classifier.model().classes())?;
        let inputs = match self.given_order(data.shape()) {
            None => preprocess.inputs(data, &classifier.form())?,
            Some(file) => {
                let samples = match data.samples() {
                    Samples::F32(x) => Samples::F32(file.order.to_graph(x)),
                    Samples::U8(x) => Samples::U8(file.order.to_graph(x)),
                    Samples::I8(x) => Samples::I8(file.order.to_graph(x)),
                };
                let turned = data.with_shape(classifier.sample_shape(), samples)?;
                preprocess.inputs(&turned, &classifier.form())?
            }
        };
        Ok((classifier, inputs))
    }

    /// The file's order of elements, if samples of this shape come in it: flat ones, and those of the file's own shape.
    fn given_order(&self, shape: &[usize]) -> Option<&FileOrder> {
        let without_ones =
            |shape: &[usize]| -> Vec<usize> { shape.iter().copied().filter(|&d| d != 1).collect() };
        let file = self.order.as_ref()?;
        let len: usize = file.shape.iter().product();
        let given = without_ones(shape);
        (given == [len] || given == without_ones(&file.shape)).then_some(file)
    }

    /// Samples of the graph's order, in the order in which samples of this shape come.
    pub fn as_given(&self, shape: &[usize], inputs: Inputs) -> Inputs {
        match self.given_order(shape) {
            None => inputs,
            Some(_) => self.in_file_order(inputs),
        }
    }

    /// Samples of the graph's order in the file's.
    pub fn in_file_order(&self, inputs: Inputs) -> Inputs {
        match (&self.order, inputs) {
            (None, inputs) => inputs,
            (Some(file), Inputs::F32(x)) => Inputs::F32(file.order.to_file(&x)),
            (Some(file), Inputs::I8(x)) => Inputs::I8(file.order.to_file(&x)),
        }
    }

    /// Rows of the file's order in the graph's.
    pub fn to_graph_order(&self, rows: &[f32]) -> Vec<f32> {
        match &self.order {
            None => rows.to_vec(),
            Some(file) => file.order.to_graph(rows),
        }
    }
}

/// How the user's words map data to inputs.
pub(super) fn preprocess(args: &InputArgs) -> Preprocess {
    Preprocess {
        range: args.input_range,
        mean: args.mean.clone(),
        std: args.std.clone(),
        any_values: false,
    }
}

fn hex_digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
