//! `.onnx` files: float models and int8 ones (QDQ and QOperator), opset 7 and later.
//!
//! The file sees images channels first, the engine channels last. An activation keeps its order in memory beside the file's axes
//! (`value::Layout`), so that TRANSPOSE costs nothing, FLATTEN in front of a dense layer permutes the columns of its weights,
//! and elements are moved at run time only where nothing else helps.
//!
//! | in the file | becomes |
//! |---|---|
//! | the input, where convolutions or pools read it | channels last: `[N, C, H, W]` is filled as `[N, H, W, C]` ([`Imported::file_shape`]) |
//! | Conv, pools of sequences `[N, C, L]` | the same of images `[N, L, 1, C]` |
//! | Gemm, MatMul with constant weights | `Dense` |
//! | BatchNormalization, Add, Sub, Mul, Div of constants | part of the layer before, else `Mul` and `Add` |
//! | Relu, Clip(0, 6) | part of the layer before, else `Unary` |
//! | ReduceMean over rows and columns | `AvgPool2d` |
//! | Shape, Gather, Concat, ... of constants | computed here |
//! | QuantizeLinear, DequantizeLinear | the grid of int8 tensors; `Quantize` and `Dequantize` between int8 and f32 |
//! | Conv, Gemm, MatMul, Add, Mul, Concat between them; QLinearConv, QGemm, ... | the same operators in int8 |
//! | averages of int8 onto another grid | `DepthwiseConv2d` with weights 1: a sum, and one factor with 1/n in it |
//! | uint8 | int8: `q - 128`, with the zero point moved by as much |
//! | two blocks of axes swapped, where unavoidable | `Conv2d` with weights 0 and 1 |

mod arithmetic;
mod batch;
mod emit;
mod fold;
mod functions;
mod layers;
mod movement;
mod node;
mod order;
mod pick;
mod pool;
mod proto;
mod qlinear;
mod quantized;
mod reduce;
mod value;

use super::{ImportError, Missing};
use crate::graph::{Graph, Quant, Tensor, TensorData, TensorId};
use foolproof::model::format::{MAX_OPS, TensorRole};
use foolproof::ops::{Numerics, Op, Transpose};
use foolproof::tensor::{DType, MAX_RANK, Shape};
use node::Node;
pub use order::SampleOrder;
use prost::Message;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use value::{Const, Slot, Value, type_name};

/// Why one operator cannot be imported.
type Reason = String;

/// The range of the input, of which the file says nothing: the user is asked about it by `--input-range`.
const FLOAT_RANGE: (f32, f32) = (0.0, 1.0);

/// The first opset whose operators are known.
const FIRST_OPSET: i64 = 7;

/// Operators of one file, constants among them: more than the engine takes, since many are folded.
const MAX_NODES: usize = 16 * MAX_OPS;

/// A model, and how its input is filled.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The model.
    pub graph: Graph,
    /// The input's dimensions in the file, the batch (1) included.
    pub file_shape: Vec<u32>,
    /// Whether the graph's input has the channels last where the file has them first.
    pub channels_moved: bool,
    /// The batch that the file fixes, where the graph takes one sample of it.
    pub fixed_batch: Option<u32>,
}

impl Imported {
    /// How samples in the order of the file's input become the graph's, and back.
    pub fn order(&self) -> SampleOrder {
        SampleOrder::new(&self.file_shape, self.channels_moved)
    }
}

/// Reads a model. Its input range is what the grid of its input holds, and 0 to 1 where it has none: these files do not say it, and
/// hold no labels. int8 sums are rounded once, which is what ONNX's real numbers between two grids come to.
///
/// # Errors
/// [`ImportError::Malformed`] for bytes that are no ONNX model, [`ImportError::Invalid`] for a model that makes no sense;
/// [`ImportError::Unsupported`] names all operators that cannot be imported.
pub fn import(bytes: &[u8]) -> Result<Graph, ImportError> {
    read(bytes).map(|imported| imported.graph)
}

/// As [`import`], with what the file says about the input.
///
/// # Errors
/// As [`import`].
pub fn read(bytes: &[u8]) -> Result<Imported, ImportError> {
    let model = decode(bytes)?;
    let single = import_as(&model, bytes.len(), Batch::One)?;
    if let Some(count) = single.fixed_batch {
        let whole = import_as(&model, bytes.len(), Batch::Whole)?;
        batch::check(&single.graph, &whole.graph, count)
            .map_err(|why| invalid("model", format!("its batch is fixed to {count}, and {why}")))?;
    }
    Ok(single)
}

/// As [`read`], but a fixed batch is part of the one sample that the graph takes: `[8, 3, 32, 32]` is one input of eight images. For
/// models whose samples depend on each other, and to run a file as it is.
///
/// # Errors
/// As [`import`].
pub fn read_whole(bytes: &[u8]) -> Result<Imported, ImportError> {
    import_as(&decode(bytes)?, bytes.len(), Batch::Whole)
}

/// Whether an operator (`Conv`, `com.microsoft.QGemm`) can be imported, in some form at least.
pub fn knows(operator: &str) -> bool {
    match operator.strip_prefix("com.microsoft.") {
        Some(extension) => node::is_extension(extension),
        None => node::is_known(operator),
    }
}

/// What becomes of a batch that the file fixes.
#[derive(Clone, Copy, PartialEq)]
enum Batch {
    /// One sample of it.
    One,
    /// All of it is one sample.
    Whole,
}

fn malformed(what: String) -> ImportError {
    ImportError::Malformed {
        format: "ONNX",
        what,
    }
}

fn decode(bytes: &[u8]) -> Result<proto::Model, ImportError> {
    proto::Model::decode(bytes).map_err(|error| malformed(clean(&error.to_string())))
}

fn import_as(model: &proto::Model, file_len: usize, batch: Batch) -> Result<Imported, ImportError> {
    let graph = model.graph.as_ref().filter(|g| !g.output.is_empty());
    let graph = graph.ok_or_else(|| malformed("it has no graph".into()))?;
    if graph.node.len() > MAX_NODES {
        let got = graph.node.len();
        return Err(invalid(
            "model",
            format!("{got} operators; at most {MAX_NODES} are supported"),
        ));
    }
    let main = |o: &&proto::OperatorSet| is_standard(o.domain.as_deref());
    let opset = model.opset_import.iter().find(main).and_then(|o| o.version);
    let opset = opset.unwrap_or(1);
    if opset < FIRST_OPSET {
        return Err(invalid(
            "model",
            format!("opset {opset}; {FIRST_OPSET} and later are supported"),
        ));
    }
    let nodes: Vec<Node<'_>> = graph.node.iter().map(Node::new).collect();
    Importer::new(graph, &nodes, (opset, file_len), batch)?.run()
}

fn invalid(place: &str, what: String) -> ImportError {
    ImportError::Invalid {
        place: place.into(),
        what,
    }
}

/// Whether operators of this domain are ONNX's own.
fn is_standard(domain: Option<&str>) -> bool {
    matches!(domain, None | Some("" | "ai.onnx"))
}

/// Text of a file as part of a message: one line, not too long.
fn clean(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { '?' } else { c });
    printable.take(120).collect()
}

/// The work in progress.
struct Importer<'a> {
    nodes: &'a [Node<'a>],
    opset: i64,
    graph: Graph,
    slots: HashMap<&'a str, Slot<'a>>,
    /// How often the operators that matter read a name, and the caller.
    readers: HashMap<&'a str, usize>,
    output: &'a proto::ValueInfo,
    live: Vec<usize>,
    /// Which of the live operators read a name.
    consumers: HashMap<&'a str, Vec<usize>>,
    /// Names that stand for whole numbers, and whether the file has them as uint8.
    raw: HashMap<&'a str, bool>,
    /// Names whose tensor was made for them, and is not another name's too.
    own: HashSet<&'a str>,
    file_shape: Vec<u32>,
    channels_moved: bool,
    fixed_batch: Option<u32>,
    /// Bytes of constants that may still be made: the file could name one constant many times.
    budget: usize,
}

impl<'a> Importer<'a> {
    fn new(
        file: &'a proto::Graph,
        nodes: &'a [Node<'a>],
        (opset, file_len): (i64, usize),
        batch: Batch,
    ) -> Result<Importer<'a>, ImportError> {
        let mut slots = HashMap::new();
        for tensor in &file.initializer {
            let name = tensor.name.as_deref().unwrap_or("");
            slots.insert(name, Slot::Stored(tensor));
        }
        let name = |v: &'a proto::ValueInfo| v.name.as_deref().unwrap_or("");
        let mut inputs = file.input.iter().filter(|v| !slots.contains_key(name(v)));
        let (Some(input), None, [output]) = (inputs.next(), inputs.next(), &file.output[..]) else {
            let count = file
                .input
                .iter()
                .filter(|v| !slots.contains_key(name(v)))
                .count();
            let outputs = file.output.len();
            return Err(invalid(
                "model",
                format!("{count} inputs and {outputs} outputs; a classifier has one of each"),
            ));
        };
        let place = format!("input `{}`", clean(name(input)));
        let (mut file_shape, kind) = input_shape(input).map_err(|what| invalid(&place, what))?;
        let mut fixed_batch = None;
        if let (Batch::One, Some(first)) = (batch, file_shape.first_mut())
            && *first > 1
        {
            fixed_batch = Some(std::mem::replace(first, 1));
        }
        let moved = file_shape.len() >= 3 && reads_channels_first(nodes, name(input));
        let mut axes: Vec<usize> = (0..file_shape.len()).collect();
        if moved {
            axes[1..].rotate_left(1);
        }
        let stored: Vec<u32> = axes.iter().map(|&a| file_shape[a]).collect();
        let shape = Shape::new(if stored.is_empty() { &[1] } else { &stored })
            .ok_or_else(|| invalid(&place, "a shape that no tensor can have".into()))?;
        let live = live(nodes, name(output));
        let mut readers: HashMap<&str, usize> = HashMap::new();
        *readers.entry(name(output)).or_default() += 1;
        let mut consumers: HashMap<&str, Vec<usize>> = HashMap::new();
        for &k in &live {
            for input in &nodes[k].inputs {
                *readers.entry(input).or_default() += 1;
                consumers.entry(input).or_default().push(k);
            }
        }
        slots.insert(
            name(input),
            Slot::Value(Value::new(0, file_shape.clone(), &axes)),
        );
        let mut importer = Importer {
            nodes,
            opset,
            graph: Graph {
                tensors: vec![Tensor {
                    name: clean(name(input)),
                    shape,
                    role: TensorRole::Activation,
                    quant: Default::default(),
                    data: TensorData::Runtime(DType::F32),
                }],
                nodes: Vec::new(),
                input: 0,
                output: 0,
                // ONNX rounds a real product once
                numerics: Numerics::TflmSingle,
                input_range: FLOAT_RANGE,
                anomaly_above: None,
                labels: Vec::new(),
            },
            slots,
            readers,
            consumers,
            raw: HashMap::new(),
            output,
            live,
            own: HashSet::new(),
            channels_moved: stored != file_shape,
            file_shape,
            fixed_batch,
            budget: file_len.saturating_mul(64).saturating_add(1 << 22),
        };
        if kind != FLOAT {
            // a grid is not part of a tensor's type: whoever reads it says it
            let grid = importer.grid_of_input(name(input)).unwrap_or(Quant {
                zero_point: if kind == UINT8 { -128 } else { 0 },
                ..Quant::default()
            });
            let tensor = &mut importer.graph.tensors[0];
            tensor.data = TensorData::Runtime(DType::I8);
            tensor.quant = grid;
            importer.raw.insert(name(input), kind == UINT8);
        }
        Ok(importer)
    }

    fn run(mut self) -> Result<Imported, ImportError> {
        let mut missing: Vec<Missing> = Vec::new();
        for k in std::mem::take(&mut self.live) {
            let node = &self.nodes[k];
            let output = node.outputs.first().copied().unwrap_or("");
            let before = self.graph.tensors.len();
            let result = match self.slots.contains_key(output) {
                true => Err("its output is computed twice".into()),
                false => self.step(node),
            };
            let slot = match result {
                Ok(slot) => slot,
                Err(reason) => {
                    report(&mut missing, node, reason);
                    Slot::Broken
                }
            };
            // a tensor of its own: made here, or taken over from a name that nobody else reads
            let same = |i: usize, id| matches!(self.value(node, i), Ok(x) if x.id == id);
            let inherits = |id| (0..node.inputs.len()).any(|i| self.is_own(node, i) && same(i, id));
            if matches!(&slot, Slot::Value(value) if value.id >= before || inherits(value.id)) {
                self.own.insert(output);
            }
            self.slots.insert(output, slot);
        }
        if !missing.is_empty() {
            return Err(ImportError::Unsupported(missing));
        }
        self.finish()
    }

    /// The output as the file has it.
    fn finish(mut self) -> Result<Imported, ImportError> {
        let name = self.output.name.as_deref().unwrap_or("");
        let place = format!("output `{}`", clean(name));
        let Some(Slot::Value(value)) = self.slots.get(name).cloned() else {
            return Err(invalid(
                &place,
                "no operator computes it from the input".into(),
            ));
        };
        let mut id = self.plain(&value).map_err(|what| invalid(&place, what))?;
        if !self.raw.contains_key(name) {
            id = self.real_id(id).map_err(|what| invalid(&place, what))?;
        }
        let dims = if value.dims.is_empty() {
            &[1]
        } else {
            &value.dims[..]
        };
        self.graph.output = self
            .shaped(id, dims)
            .map_err(|what| invalid(&place, what))?;
        self.drop_unread();
        if self.graph.nodes.is_empty() {
            // nothing to do is an operator too
            let mut axes = [0; MAX_RANK];
            let rank = self.graph.tensors[self.graph.output].shape.rank();
            for (i, axis) in axes.iter_mut().enumerate().take(rank) {
                *axis = i as u8;
            }
            let op = Op::Transpose(Transpose { axes });
            let id = self.emit(op, vec![self.graph.output], clean(name));
            self.graph.output = id.map_err(|what| invalid(&place, what))?;
        }
        self.graph.input_range = self.input_range();
        if self.graph.is_quantized() {
            for tensor in &mut self.graph.tensors {
                if tensor.role == TensorRole::Parameter {
                    tensor.role = TensorRole::Constant;
                }
            }
        } else {
            // nothing is rounded; who quantizes the model later has the usual choice
            self.graph.numerics = Numerics::Tflm;
        }
        Ok(Imported {
            graph: self.graph,
            file_shape: self.file_shape,
            channels_moved: self.channels_moved,
            fixed_batch: self.fixed_batch,
        })
    }

    /// Imports one operator: what its first output stands for.
    fn step(&mut self, node: &'a Node<'a>) -> Result<Slot<'a>, Reason> {
        let known = match is_standard(node.domain) {
            true => node::is_known(node.operator),
            false => node.domain == Some("com.microsoft") && node::is_extension(node.operator),
        };
        if !known {
            return Err("it is not supported".into());
        }
        if node.outputs.first().is_none_or(|name| name.is_empty()) {
            return Err("it has no output".into());
        }
        let broken = |name: &&str| matches!(self.slots.get(name), Some(Slot::Broken));
        if node.inputs.iter().any(broken) {
            return Ok(Slot::Broken);
        }
        if let Some(constant) = self.fold(node)? {
            return Ok(Slot::Const(Rc::new(constant)));
        }
        let value = match node.operator {
            "Conv" => self.conv(node)?,
            "Gemm" => self.gemm(node)?,
            "MatMul" => self.matmul(node)?,
            "Add" | "Sub" | "Mul" | "Div" => self.arithmetic(node)?,
            "BatchNormalization" => self.batch_norm(node)?,
            "Max" | "Min" | "Sum" | "Mean" => self.several(node)?,
            "ConvTranspose" => self.conv_transpose(node)?,
            "Softmax" | "LogSoftmax" => self.softmax(node)?,
            "Slice" => self.slice_of(node)?,
            "Split" => self.split(node)?,
            "Gather" => self.gather_of(node)?,
            "Tile" => self.tile(node)?,
            "Expand" => self.expand(node)?,
            "DepthToSpace" | "SpaceToDepth" => self.depth_and_space(node)?,
            name if node::is_function(name) => self.function(node)?,
            name if name.starts_with("Reduce") => self.reduce(node)?,
            "MaxPool" | "AveragePool" => self.pool(node)?,
            "GlobalAveragePool" | "GlobalMaxPool" => self.global_pool(node)?,
            "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => self.reshape(node)?,
            "Transpose" => self.transpose(node)?,
            "Concat" => self.concat(node)?,
            "Pad" => self.pad(node)?,
            "Dropout" if node.has_input(2) && self.drops(node)? => {
                return Err("it drops elements at random, as in training".into());
            }
            "Identity" | "Dropout" => self.any(node, 0)?,
            "Cast" if node.int("to", 0) == 1 => self.value(node, 0)?,
            "QuantizeLinear" => self.quantize(node)?,
            "DequantizeLinear" => self.dequantize(node)?,
            name if node::is_quantized(name) => self.qlinear(node)?,
            _ => return Err("it is supported with constants only".into()),
        };
        // whole numbers that were only moved still are
        if node::moves(node.operator)
            || matches!(
                node.operator,
                "MaxPool"
                    | "GlobalMaxPool"
                    | "Concat"
                    | "Pad"
                    | "Slice"
                    | "Split"
                    | "Gather"
                    | "Tile"
                    | "Expand"
                    | "DepthToSpace"
                    | "SpaceToDepth"
            )
        {
            let raw = node.input(0).ok().and_then(|name| self.raw.get(name));
            if let (Some(&unsigned), Some(&output)) = (raw, node.outputs.first()) {
                self.raw.insert(output, unsigned);
            }
        }
        Ok(Slot::Value(value))
    }

    /// Input `i` as an activation of real numbers; in the graph it may be int8.
    fn value(&self, node: &Node<'a>, i: usize) -> Result<Value, Reason> {
        match self.raw.contains_key(node.input(i)?) {
            true => Err(format!(
                "its input {i} is of whole numbers; float is supported"
            )),
            false => self.any(node, i),
        }
    }

    /// Input `i` as an activation of real numbers, f32 in the graph.
    fn real(&mut self, node: &Node<'a>, i: usize) -> Result<Value, Reason> {
        let x = self.value(node, i)?;
        let id = self.real_id(x.id)?;
        Ok(Value { id, ..x })
    }

    /// Input `i` as an activation, of real or of whole numbers.
    fn any(&self, node: &Node<'a>, i: usize) -> Result<Value, Reason> {
        match self.slots.get(node.input(i)?) {
            Some(Slot::Value(value)) => Ok(value.clone()),
            Some(_) => Err(format!("its input {i} is a constant")),
            None => Err(unknown(node.input(i)?)),
        }
    }

    /// Input `i` as a constant; `None` where there is no such input, or it is computed at run time.
    fn constant(&mut self, node: &Node<'a>, i: usize) -> Result<Option<Rc<Const>>, Reason> {
        let Ok(name) = node.input(i) else {
            return Ok(None);
        };
        match self.slots.get(name) {
            Some(Slot::Const(constant)) => Ok(Some(constant.clone())),
            Some(Slot::Stored(tensor)) => {
                let tensor = *tensor;
                self.spend(prost_len(tensor))?;
                let constant = Rc::new(Const::read(tensor)?);
                self.slots.insert(name, Slot::Const(constant.clone()));
                Ok(Some(constant))
            }
            Some(_) => Ok(None),
            None => Err(unknown(name)),
        }
    }

    /// Input `i`, which must be a constant.
    fn needed(&mut self, node: &Node<'a>, i: usize, what: &str) -> Result<Rc<Const>, Reason> {
        self.constant(node, i)?
            .ok_or_else(|| format!("its {what} must be a constant"))
    }

    /// Whether a Dropout is one of training: input 2 says so, and its ratio is not 0.
    fn drops(&mut self, node: &Node<'a>) -> Result<bool, Reason> {
        let training = self.needed(node, 2, "mode")?;
        let ratio = match node.has_input(1) {
            true => self.needed(node, 1, "ratio")?.scalar(),
            false => None,
        };
        Ok(training.whole(0) != 0 && ratio != Some(0.0))
    }

    /// Counts bytes of constants against what a file of this size can mean.
    fn spend(&mut self, bytes: usize) -> Result<(), Reason> {
        let left = self.budget.checked_sub(bytes);
        self.budget = left.ok_or("its constants are many times as large as the file")?;
        Ok(())
    }

    /// Whether the operator is the only reader of its input `i`, and that has a tensor of its own.
    fn is_own(&self, node: &Node<'a>, i: usize) -> bool {
        let name = node.input(i).unwrap_or("");
        self.readers.get(name) == Some(&1) && self.own.contains(name)
    }

    /// The grid that the first operator which needs it says the whole numbers of a name lie on.
    fn grid_of_input(&mut self, name: &'a str) -> Option<Quant> {
        let nodes = self.nodes;
        let mut name = name;
        // as far as a chain of operators can go
        for _ in 0..16 {
            let k = *self.consumers.get(name)?.first()?;
            let node = &nodes[k];
            let i = node.inputs.iter().position(|input| *input == name)?;
            let with_scales =
                node.operator == "DequantizeLinear" || node::is_quantized(node.operator);
            if with_scales {
                return self.grid_at(node, i + 1, i + 2).ok().map(|(grid, _)| grid);
            }
            if !node::moves(node.operator) && node.operator != "MaxPool" {
                return None;
            }
            name = node.outputs.first().copied()?;
        }
        None
    }

    /// What the input's grid can hold, or that of a Quantize right behind a float input.
    fn input_range(&self) -> (f32, f32) {
        let graph = &self.graph;
        let on_grid = |id: TensorId| {
            let q = &graph.tensors[id].quant;
            let real = |step: i32| q.scale * (step - q.zero_point) as f32;
            (real(-128), real(127))
        };
        if self.is_int8(graph.input) {
            return on_grid(graph.input);
        }
        let reads = |n: &&crate::graph::Node| n.inputs[0] == graph.input;
        let mut behind = graph.nodes.iter().filter(reads);
        let view = behind.clone().find(|n| n.op == Op::Reshape);
        let quantize = match view {
            Some(view) => {
                let reads = |n: &&crate::graph::Node| n.inputs[0] == view.output;
                graph.nodes.iter().find(reads)
            }
            None => behind.next(),
        };
        match quantize {
            Some(n) if n.op == Op::Quantize => on_grid(n.output),
            _ => FLOAT_RANGE,
        }
    }

    /// Removes operators whose result nobody reads.
    fn drop_unread(&mut self) {
        let mut read = HashSet::from([self.graph.output]);
        let mut nodes = std::mem::take(&mut self.graph.nodes);
        nodes.reverse();
        nodes.retain(|node| {
            let wanted = read.contains(&node.output);
            if wanted {
                read.extend(&node.inputs);
            }
            wanted
        });
        nodes.reverse();
        self.graph.nodes = nodes;
        self.graph.prune();
    }
}

fn unknown(name: &str) -> Reason {
    format!(
        "it reads `{}`, which nothing computes before it",
        clean(name)
    )
}

/// Bytes of a tensor's elements in memory, about.
fn prost_len(tensor: &proto::Tensor) -> usize {
    let raw = tensor.raw_data.as_ref().map_or(0, Vec::len);
    raw + 4 * tensor.float_data.len()
        + 8 * (tensor.int32_data.len() + tensor.int64_data.len() + tensor.double_data.len())
}

fn report(missing: &mut Vec<Missing>, node: &Node<'_>, reason: Reason) {
    let operator = match is_standard(node.domain) {
        true => clean(node.operator),
        false => clean(&format!("{}.{}", node.domain.unwrap_or(""), node.operator)),
    };
    let same = |m: &&mut Missing| m.operator == operator && m.reason == reason;
    match missing.iter_mut().find(same) {
        Some(m) => m.count += 1,
        None => missing.push(Missing {
            operator,
            reason,
            output: clean(node.outputs.first().copied().unwrap_or("")),
            count: 1,
        }),
    }
}

/// The operators that the output depends on, in order.
fn live(nodes: &[Node<'_>], output: &str) -> Vec<usize> {
    let mut wanted = HashSet::from([output]);
    let mut live = Vec::new();
    for (k, node) in nodes.iter().enumerate().rev() {
        let mut names = node.outputs.iter().filter(|name| !name.is_empty());
        if names.any(|name| wanted.contains(name)) {
            live.push(k);
            wanted.extend(node.inputs.iter().filter(|name| !name.is_empty()));
        }
    }
    live.reverse();
    live
}

/// Codes of element types.
const FLOAT: i32 = 1;
const UINT8: i32 = 2;
const INT8: i32 = 3;

/// The input's dimensions for one sample, and the code of its element type.
fn input_shape(input: &proto::ValueInfo) -> Result<(Vec<u32>, i32), Reason> {
    let tensor = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let tensor = tensor.ok_or("it is not a tensor")?;
    let element = tensor.elem_type.unwrap_or(0);
    if ![FLOAT, UINT8, INT8].contains(&element) {
        return Err(format!(
            "it is {}; float, int8 and uint8 are supported",
            type_name(element)
        ));
    }
    let shape = tensor.shape.as_ref().ok_or("its shape is not known")?;
    let mut dims = Vec::new();
    for (i, dim) in shape.dim.iter().enumerate() {
        dims.push(match (i, dim.value) {
            (0, None | Some(..=1)) => 1,
            (_, Some(d)) if d > 0 => u32::try_from(d).map_err(|_| format!("dimension {i} is {d}"))?,
            _ => {
                let symbol = clean(dim.parameter.as_deref().unwrap_or("?"));
                return Err(format!("dimension {i} is not known (`{symbol}`); only the first, the batch, may be open"));
            }
        });
    }
    match dims.len() {
        0..=6 => Ok((dims, element)),
        rank => Err(format!("it has {rank} dimensions; at most 6 are supported")),
    }
}

/// Whether the operators that look at the input's axes first are those that take channels first.
fn reads_channels_first(nodes: &[Node<'_>], input: &str) -> bool {
    let mut names = HashSet::from([input]);
    for node in nodes {
        if !node.inputs.iter().any(|name| names.contains(name)) {
            continue;
        }
        if node::takes_channels_first(node.operator) {
            return true;
        }
        if node::keeps_axes(node.operator) {
            names.extend(node.outputs.iter().filter(|name| !name.is_empty()));
        }
    }
    false
}
