//! What a verified file says, with every index and size checked.

use super::super::ImportError;
use super::names;
use super::schema::{self, Buffer, Model, Operator, SubGraph};
use flatbuffers::{ForwardsUOffset, Vector};
use foolproof::tensor::Shape;

/// The version of the schema that all files have.
const VERSION: u32 = 3;
/// Graphs besides the main one.
const MAX_GRAPHS: usize = 8;
/// Names are for people; longer ones are cut (bytes).
const MAX_NAME: usize = 64;

/// Element types, as the schema numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    F32,
    I32,
    U8,
    I64,
    I8,
    I16,
    F16,
    Other(i8),
}

impl Kind {
    fn new(code: i8) -> Kind {
        match code {
            0 => Kind::F32,
            1 => Kind::F16,
            2 => Kind::I32,
            3 => Kind::U8,
            4 => Kind::I64,
            7 => Kind::I16,
            9 => Kind::I8,
            other => Kind::Other(other),
        }
    }

    /// Its name, for messages.
    pub fn name(self) -> String {
        match self {
            Kind::F32 => "float32".into(),
            Kind::I32 => "int32".into(),
            Kind::U8 => "uint8".into(),
            Kind::I64 => "int64".into(),
            Kind::I8 => "int8".into(),
            Kind::F16 => "float16".into(),
            Kind::I16 => "int16".into(),
            Kind::Other(6) => "bool".into(),
            Kind::Other(17) => "int4".into(),
            Kind::Other(code) => format!("element type {code}"),
        }
    }

    fn size(self) -> Option<usize> {
        match self {
            Kind::F32 | Kind::I32 => Some(4),
            Kind::U8 | Kind::I8 => Some(1),
            Kind::I16 | Kind::F16 => Some(2),
            Kind::I64 => Some(8),
            Kind::Other(_) => None,
        }
    }
}

/// A tensor as the file describes it.
#[derive(Clone, Debug)]
pub(super) struct Info<'a> {
    pub name: String,
    pub kind: Kind,
    /// `None`: not one that a tensor can have here.
    pub shape: Option<Shape>,
    pub scales: Vec<f32>,
    pub zero_points: Vec<i64>,
    /// Which axis has a scale per index, where there are several.
    pub axis: i32,
    /// The bytes of a constant.
    pub data: Option<&'a [u8]>,
    /// Why its elements cannot be used, whatever they are.
    pub trouble: Option<&'static str>,
    /// Whether it keeps its elements from one run to the next.
    pub is_variable: bool,
}

/// An operator as the file describes it.
#[derive(Clone, Debug)]
pub(super) struct Step<'a> {
    /// What the schema calls it.
    pub name: String,
    /// Its code in the schema; custom operators have 32.
    pub code: i32,
    /// Indices of tensors; `None` where an optional input is left out.
    pub inputs: Vec<Option<usize>>,
    /// Indices of tensors.
    pub outputs: Vec<usize>,
    pub table: Operator<'a>,
}

/// Tensors and operators of a graph.
#[derive(Clone, Debug)]
pub(super) struct Graph<'a> {
    pub tensors: Vec<Info<'a>>,
    pub steps: Vec<Step<'a>>,
}

/// The main graph of a file.
#[derive(Clone, Debug)]
pub(super) struct File<'a> {
    pub tensors: Vec<Info<'a>>,
    pub steps: Vec<Step<'a>>,
    /// The graphs behind the main one, from number 1 on.
    pub others: Vec<Graph<'a>>,
    pub inputs: Vec<usize>,
    pub outputs: Vec<usize>,
}

fn invalid(place: impl Into<String>, what: impl Into<String>) -> ImportError {
    ImportError::Invalid {
        place: place.into(),
        what: what.into(),
    }
}

impl<'a> File<'a> {
    pub fn read(bytes: &'a [u8]) -> Result<File<'a>, ImportError> {
        let model = schema::root(bytes).map_err(|error| ImportError::Malformed {
            format: "TensorFlow Lite",
            // the first line; the others trace the path to it
            what: error
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .trim()
                .to_string(),
        })?;
        let version = model.version().unwrap_or(0);
        if version != VERSION {
            return Err(invalid(
                "model",
                format!("schema version {version}; all TensorFlow Lite files have {VERSION}"),
            ));
        }
        let mut graphs = model.subgraphs().into_iter().flat_map(|list| list.iter());
        let graph = graphs
            .next()
            .ok_or_else(|| invalid("model", "it has no graph"))?;
        let others: Vec<SubGraph<'a>> = graphs.collect();
        if others.len() > MAX_GRAPHS {
            let got = others.len() + 1;
            return Err(invalid(
                "model",
                format!("{got} graphs; at most {} are supported", MAX_GRAPHS + 1),
            ));
        }
        let others = others.iter().map(|graph| {
            let tensors = tensors(&model, graph, bytes)?;
            Ok(Graph {
                steps: steps(&model, graph, tensors.len())?,
                tensors,
            })
        });
        let others = others.collect::<Result<Vec<Graph<'a>>, ImportError>>()?;
        let tensors = tensors(&model, &graph, bytes)?;
        let inside = |place: &str, list: Option<Vector<'a, i32>>| {
            indices(list)
                .map(|i| i.filter(|&i| i < tensors.len()))
                .collect::<Option<Vec<usize>>>()
                .ok_or_else(|| invalid(place, "an index of a tensor that is not there"))
        };
        Ok(File {
            inputs: inside("inputs of the model", graph.inputs())?,
            outputs: inside("outputs of the model", graph.outputs())?,
            steps: steps(&model, &graph, tensors.len())?,
            others,
            tensors,
        })
    }
}

/// Indices of tensors; `None` for one that is left out.
fn indices<'a>(list: Option<Vector<'a, i32>>) -> impl Iterator<Item = Option<usize>> + 'a {
    let values = list.into_iter().flat_map(|list| list.iter());
    values.map(|i| usize::try_from(i).ok())
}

fn values<'a, T: flatbuffers::Follow<'a> + 'a>(list: Option<Vector<'a, T>>) -> Vec<T::Inner> {
    list.map(|list| list.iter().collect()).unwrap_or_default()
}

/// Bytes as a name that is safe to print.
fn text(bytes: Option<Vector<'_, u8>>) -> String {
    let bytes = bytes.map(|b| b.bytes()).unwrap_or_default();
    let cut = bytes.get(..MAX_NAME).unwrap_or(bytes);
    String::from_utf8_lossy(cut)
        .chars()
        .map(|c| if c.is_control() { '_' } else { c })
        .collect()
}

fn tensors<'a>(
    model: &Model<'a>,
    graph: &SubGraph<'a>,
    bytes: &'a [u8],
) -> Result<Vec<Info<'a>>, ImportError> {
    let buffers = model.buffers();
    let mut all = Vec::new();
    for (t, tensor) in graph
        .tensors()
        .into_iter()
        .flat_map(|list| list.iter())
        .enumerate()
    {
        let name = text(tensor.name());
        let place = || format!("tensor {t} (`{name}`)");
        let kind = Kind::new(tensor.kind().unwrap_or(0));
        let dims: Option<Vec<u32>> = values(tensor.shape())
            .into_iter()
            .map(|d| u32::try_from(d).ok())
            .collect();
        let shape = dims.and_then(|dims| Shape::new(&dims));
        let data = elements(buffers, tensor.buffer().unwrap_or(0), bytes)
            .map_err(|what| invalid(place(), what))?;
        if let (Some(data), Some(size), Some(shape)) = (data, kind.size(), shape) {
            let needed = shape.len().saturating_mul(size);
            if data.len() != needed {
                return Err(invalid(
                    place(),
                    format!(
                        "{} bytes of elements; its type and shape need {needed}",
                        data.len()
                    ),
                ));
            }
        }
        let quantization = tensor.quantization();
        let is_variable = tensor.is_variable() == Some(true);
        let trouble = if is_variable {
            Some("it is a variable, which keeps its value from one run to the next")
        } else if tensor.sparsity().is_some() {
            Some("it is stored as a sparse tensor")
        } else {
            None
        };
        all.push(Info {
            kind,
            shape,
            scales: values(quantization.and_then(|q| q.scale())),
            zero_points: values(quantization.and_then(|q| q.zero_point())),
            axis: quantization.and_then(|q| q.axis()).unwrap_or(0),
            data,
            trouble,
            is_variable,
            name,
        });
    }
    Ok(all)
}

/// The bytes of a buffer: in its table, or (files that are larger than a table can be) elsewhere in the file.
fn elements<'a>(
    buffers: Option<Vector<'a, ForwardsUOffset<Buffer<'a>>>>,
    index: u32,
    bytes: &'a [u8],
) -> Result<Option<&'a [u8]>, &'static str> {
    // buffer 0 is empty by definition
    if index == 0 {
        return Ok(None);
    }
    let buffers = buffers.filter(|b| (index as usize) < b.len());
    let buffers = buffers.ok_or("an index of a buffer that is not there")?;
    let buffer = buffers.get(index as usize);
    let (offset, size) = (buffer.offset().unwrap_or(0), buffer.size().unwrap_or(0));
    // the schema: offsets 0 and 1 mean that there is no such place
    if offset > 1 {
        let outside = "its elements lie outside of the file";
        let start = usize::try_from(offset).map_err(|_| outside)?;
        let len = usize::try_from(size).map_err(|_| outside)?;
        let end = start.checked_add(len).ok_or(outside)?;
        return bytes.get(start..end).map(Some).ok_or(outside);
    }
    Ok(buffer.data().map(|d| d.bytes()).filter(|d| !d.is_empty()))
}

fn steps<'a>(
    model: &Model<'a>,
    graph: &SubGraph<'a>,
    tensors: usize,
) -> Result<Vec<Step<'a>>, ImportError> {
    let codes = model.operator_codes();
    let mut all = Vec::new();
    for (k, table) in graph
        .operators()
        .into_iter()
        .flat_map(|list| list.iter())
        .enumerate()
    {
        let index = table.opcode_index() as usize;
        let code = codes
            .filter(|codes| index < codes.len())
            .map(|codes| codes.get(index));
        let code = code.ok_or_else(|| {
            invalid(
                format!("operator {k}"),
                "an index of an operator code that is not there",
            )
        })?;
        let old = i32::from(code.deprecated_builtin_code().unwrap_or(0));
        let builtin = code.builtin_code().unwrap_or(0).max(old);
        let name = match code.custom_code() {
            Some(custom) if builtin == CUSTOM => format!("custom operator {}", text(Some(custom))),
            _ => names::name(builtin),
        };
        let outside = || {
            invalid(
                format!("operator {k} ({name})"),
                "an index of a tensor that is not there",
            )
        };
        let inputs: Vec<Option<usize>> = indices(table.inputs()).collect();
        let outputs: Option<Vec<usize>> = indices(table.outputs()).collect();
        let outputs = outputs.ok_or_else(outside)?;
        if !inputs
            .iter()
            .flatten()
            .chain(&outputs)
            .all(|&t| t < tensors)
        {
            return Err(outside());
        }
        all.push(Step {
            code: builtin,
            inputs,
            outputs,
            table,
            name,
        });
    }
    Ok(all)
}

/// The code that all custom operators share.
const CUSTOM: i32 = 32;
