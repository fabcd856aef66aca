//! `.tflite` files: float and int8 models as TensorFlow Lite's converter writes them.
//!
//! The schema is TensorFlow's (`tensorflow/lite/schema/schema.fbs`, version 3). The file is verified before anything is
//! read, with bounds on depth and work, so that hostile bytes end in an error. int8 operators get the constants that TFLite
//! Micro would compute when it loads the model ([`crate::quantize::multiplier`]), and then its results, bit for bit.
//!
//! Some operators are imported as others that compute the same bits:
//!
//! | in the file | becomes |
//! |---|---|
//! | RESHAPE, SQUEEZE, EXPAND_DIMS | `Reshape` to the shape that the file declares (shape arithmetic before it is dropped) |
//! | MEAN of int8 | `DepthwiseConv2d` with weights 1: a sum, and one fixed-point factor with 1/n in it |
//! | MEAN of f32 | `AvgPool2d` |
//! | SLICE, STRIDED_SLICE, SPLIT, SPLIT_V, UNPACK | `Slice` along one axis after the other |
//! | PACK | `Concat` along a new axis |
//! | SHAPE and what is made of it | numbers, known here |
//! | READ_VARIABLE, ASSIGN_VARIABLE | `Recall` at the first read of a run, `Remember` of what was assigned last |
//! | TRANSPOSE before FULLY_CONNECTED | the columns of its weights in another order |
//! | float layers with int8 weights | the layer with dequantized weights (a runtime may also round its input to int8) |
//! | uint8 at the ends, and where elements move or the largest is taken | int8: `q - 128`, with the zero point moved by as much |
//! | DEQUANTIZE of a constant (float16 or int8 weights) | a float32 constant |

mod elementwise;
mod file;
mod layers;
mod movement;
pub(crate) mod names;
mod operators;
mod recurrent;
pub(crate) mod schema;
mod shuffle;
mod variables;
mod window;

pub use operators::{Backward, OPERATORS, Operator};

use super::{ImportError, Missing};
use crate::graph::{Graph, Node, Quant, Tensor, TensorData, TensorId};
use file::{File, Info, Kind, Step};
use foolproof::model::format::{MAX_OPS, TensorRole};
use foolproof::ops::{Activation, Numerics, Op};
use foolproof::tensor::{DType, Data, Operand, Shape};
use std::collections::{BTreeSet, HashMap};

/// What a file holds at byte 4.
pub const IDENTIFIER: &[u8; 4] = b"TFL3";

/// Why one operator cannot be imported.
type Reason = String;

/// The range of a float model's input where nothing in the file says it: the model is asked about it by `--input-range`.
const FLOAT_RANGE: (f32, f32) = (0.0, 1.0);

/// Reads a model, with TFLite Micro's arithmetic ([`import_for`]).
///
/// # Errors
/// As [`import_for`].
pub fn import(bytes: &[u8]) -> Result<Graph, ImportError> {
    import_for(bytes, Numerics::Tflm)
}

/// Reads a model to run it as this runtime does.
///
/// Its input range is what the input's grid (or that of a QUANTIZE right behind a float input) can hold, and 0 to 1 for a float
/// input of which the file says nothing. Labels are not in these files.
///
/// # Errors
/// [`ImportError::Malformed`] and [`ImportError::Invalid`] for files that are damaged; [`ImportError::Unsupported`] names all
/// operators that cannot be imported.
pub fn import_for(bytes: &[u8], numerics: Numerics) -> Result<Graph, ImportError> {
    let file = File::read(bytes)?;
    Importer::new(&file, bytes.len(), numerics)?.run()
}

/// The names of the operators that a file has, in all of its graphs, whether they are imported or not.
///
/// # Errors
/// The file is damaged.
pub fn operators_of(bytes: &[u8]) -> Result<BTreeSet<String>, ImportError> {
    let file = File::read(bytes)?;
    let others = file.others.iter().flat_map(|graph| &graph.steps);
    Ok(file
        .steps
        .iter()
        .chain(others)
        .map(|s| s.name.clone())
        .collect())
}

/// The work in progress.
struct Importer<'a> {
    file: &'a File<'a>,
    graph: Graph,
    /// The graph's tensor for each of the file's, where there is one by now.
    ids: Vec<Option<TensorId>>,
    /// Transposed tensors that are not computed, by the file's index.
    transposed: HashMap<usize, shuffle::Transposed>,
    /// Lists of whole numbers that follow from shapes, by the file's index.
    folded: HashMap<usize, Vec<i64>>,
    variables: variables::Variables<'a>,
    /// Bytes of constants that may still be made: the file could name one buffer many times.
    budget: usize,
}

impl<'a> Importer<'a> {
    fn new(
        file: &'a File<'a>,
        file_len: usize,
        numerics: Numerics,
    ) -> Result<Importer<'a>, ImportError> {
        let invalid = |what: String| ImportError::Invalid {
            place: "model".into(),
            what,
        };
        let ([input], [output]) = (&file.inputs[..], &file.outputs[..]) else {
            let (i, o) = (file.inputs.len(), file.outputs.len());
            return Err(invalid(format!(
                "{i} inputs and {o} outputs; a classifier has one of each"
            )));
        };
        if file.steps.len() > MAX_OPS {
            let got = file.steps.len();
            return Err(invalid(format!(
                "{got} operators; at most {MAX_OPS} are supported"
            )));
        }
        let mut importer = Importer {
            file,
            graph: Graph {
                tensors: Vec::new(),
                nodes: Vec::new(),
                input: 0,
                output: 0,
                numerics,
                input_range: FLOAT_RANGE,
                anomaly_above: None,
                labels: Vec::new(),
            },
            ids: vec![None; file.tensors.len()],
            transposed: HashMap::new(),
            folded: HashMap::new(),
            variables: variables::Variables::default(),
            budget: file_len.saturating_mul(4).saturating_add(1 << 20),
        };
        let place = |what: Reason| ImportError::Invalid {
            place: format!("input `{}`", file.tensors[*input].name),
            what,
        };
        if file.tensors[*input].data.is_some() {
            return Err(place("it is a constant".into()));
        }
        importer.graph.input = importer.define(*input).map_err(place)?;
        if file.tensors[*output].data.is_some() {
            return Err(invalid("the output is a constant".into()));
        }
        Ok(importer)
    }

    fn run(mut self) -> Result<Graph, ImportError> {
        let mut missing: Vec<Missing> = Vec::new();
        for &k in &self.live() {
            let step = &self.file.steps[k];
            let Err(reason) = self.step(step) else {
                continue;
            };
            // what comes after can still be looked at
            for &t in &step.outputs {
                if self.ids[t].is_none() {
                    // an output without a usable shape is then missing for its readers, who say so
                    let _ = self.define(t);
                }
            }
            let same = |m: &&mut Missing| m.operator == step.name && m.reason == reason;
            match missing.iter_mut().find(same) {
                Some(m) => m.count += 1,
                None => missing.push(Missing {
                    operator: step.name.clone(),
                    reason,
                    output: step
                        .outputs
                        .first()
                        .map(|&t| self.info(t).name.clone())
                        .unwrap_or_default(),
                    count: 1,
                }),
            }
        }
        if !missing.is_empty() {
            return Err(ImportError::Unsupported(missing));
        }
        let output = self.file.outputs[0];
        let end = self
            .remember()
            .and_then(|()| match self.transposed.contains_key(&output) {
                true => self.tensor(output).map(drop),
                false => Ok(()),
            });
        end.map_err(|what| ImportError::Invalid {
            place: "the end of the model".into(),
            what,
        })?;
        let Some(id) = self.ids[output] else {
            return Err(ImportError::Invalid {
                place: format!("output `{}`", self.info(output).name),
                what: "no operator computes it".into(),
            });
        };
        self.graph.output = id;
        self.graph.input_range = self.input_range();
        if !self.graph.is_quantized() {
            for tensor in &mut self.graph.tensors {
                if tensor.role == TensorRole::Constant {
                    tensor.role = TensorRole::Parameter;
                }
            }
        }
        self.drop_unread();
        self.graph.prune();
        Ok(self.graph)
    }

    /// The operators that the output depends on, in order. Shape arithmetic in front of a RESHAPE is not among them: shapes are
    /// known here.
    fn live(&self) -> Vec<usize> {
        let mut wanted: BTreeSet<usize> = self.file.outputs.iter().copied().collect();
        let mut live = Vec::new();
        for (k, step) in self.file.steps.iter().enumerate().rev() {
            // what a run leaves behind for the next one counts as much as its output
            let lasts = matches!(step.code, variables::ASSIGN | variables::CALL_ONCE);
            if !lasts && !step.outputs.iter().any(|t| wanted.contains(t)) {
                continue;
            }
            live.push(k);
            let inputs = step.inputs.iter().flatten();
            match movement::only_reshapes(step.code) {
                true => wanted.extend(inputs.take(1)),
                false => wanted.extend(inputs),
            }
        }
        live.reverse();
        live
    }

    /// Imports one operator.
    fn step(&mut self, step: &Step<'a>) -> Result<(), Reason> {
        if !operators::is_known(step.code) {
            return Err("it is not supported".into());
        }
        match step.code {
            49 | 88 | 102 => return self.split(step),
            variables::CALL_ONCE => return self.call_once(step),
            variables::ASSIGN => return self.assign_variable(step),
            _ => {}
        }
        let [t] = step.outputs[..] else {
            return Err(match step.outputs.len() {
                0 => "it has no output".into(),
                n => format!("it is not supported (it has {n} outputs)"),
            });
        };
        self.only_once(t)?;
        match step.code {
            0 => self.add(step, t),
            1 => self.pool(step, t, false),
            2 => self.concat(step, t),
            3 => self.conv2d(step, t),
            4 => self.depthwise(step, t),
            6 => self.dequantize(step, t),
            9 => self.dense(step, t),
            14 => self.unary(foolproof::ops::Unary::Sigmoid, step, t),
            17 => self.pool(step, t, true),
            18 => self.mul(step, t),
            19 => self.unary(foolproof::ops::Unary::Relu, step, t),
            21 => self.unary(foolproof::ops::Unary::Relu6, step, t),
            25 => self.softmax(step, t),
            27 => self.svdf(step, t),
            28 => self.unary(foolproof::ops::Unary::Tanh, step, t),
            34 | 60 => self.pad(step, t),
            39 => self.transpose(step, t),
            40 => self.mean(step, t),
            44 => self.lstm(step, t),
            45 => self.strided_slice(step, t),
            50 => self.log_softmax(step, t),
            65 => self.slice(step, t),
            77 => self.shape_of(step, t),
            82 => self.reduce_max(step, t),
            83 => self.pack(step, t),
            98 => self.leaky_relu(step, t),
            114 => self.quantize(step, t),
            variables::VAR_HANDLE => self.var_handle(step, t),
            variables::READ => self.read_variable(step, t),
            code if movement::only_reshapes(code) => self.reshape(step, t),
            _ => Err("it is not supported".into()),
        }
    }

    /// Takes out operators whose results nobody reads: parts of a SPLIT, mostly.
    fn drop_unread(&mut self) {
        let mut read = vec![false; self.graph.tensors.len()];
        read[self.graph.output] = true;
        let mut nodes = std::mem::take(&mut self.graph.nodes);
        nodes.reverse();
        nodes.retain(|node| {
            let wanted = read[node.output] || node.op.writes_state();
            if wanted {
                node.inputs.iter().for_each(|&t| read[t] = true);
            }
            wanted
        });
        nodes.reverse();
        self.graph.nodes = nodes;
    }

    /// Refuses a tensor that is there already.
    fn only_once(&self, t: usize) -> Result<(), Reason> {
        let there = self.ids[t].is_some()
            || self.transposed.contains_key(&t)
            || self.folded.contains_key(&t)
            || self.info(t).data.is_some();
        match there {
            true => Err("its output is computed twice".into()),
            false => Ok(()),
        }
    }

    /// SHAPE: known here.
    fn shape_of(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        let x = shape(self.info(self.input(step, 0)?))?;
        let dims = x.dims().iter().map(|&d| i64::from(d)).collect();
        self.folded.insert(t, dims);
        Ok(())
    }

    /// A short list of whole numbers that is known here: a constant, or made of shapes.
    fn whole_numbers(&self, t: usize) -> Option<Vec<i64>> {
        if let Some(list) = self.folded.get(&t) {
            return Some(list.clone());
        }
        let info = self.info(t);
        let bytes = info.data?;
        // amounts per axis: nothing that is read here is longer
        match (info.kind, bytes.len()) {
            (Kind::I32, ..=64) => {
                let words = bytes.chunks_exact(4).filter_map(|b| b.try_into().ok());
                Some(words.map(|b| i64::from(i32::from_le_bytes(b))).collect())
            }
            (Kind::I64, ..=128) => {
                let words = bytes.chunks_exact(8).filter_map(|b| b.try_into().ok());
                Some(words.map(i64::from_le_bytes).collect())
            }
            _ => None,
        }
    }

    fn info(&self, t: usize) -> &'a Info<'a> {
        &self.file.tensors[t]
    }

    /// The file's index of input `i` of an operator.
    fn input(&self, step: &Step<'a>, i: usize) -> Result<usize, Reason> {
        let input = step.inputs.get(i).copied().flatten();
        input.ok_or_else(|| format!("it has no input {i}"))
    }

    /// Input `i` of an operator as a tensor of the graph.
    fn operand(&mut self, step: &Step<'a>, i: usize) -> Result<TensorId, Reason> {
        let t = self.input(step, i)?;
        self.tensor(t)
    }

    /// A tensor of the file as one of the graph: computed before, or a constant.
    fn tensor(&mut self, t: usize) -> Result<TensorId, Reason> {
        if let Some(id) = self.ids[t] {
            return Ok(id);
        }
        let info = self.info(t);
        if let Some(id) = self.transposed_tensor(t)? {
            return Ok(id);
        }
        let Some(bytes) = info.data else {
            return Err(format!(
                "it reads `{}`, which nothing computes before it",
                info.name
            ));
        };
        if let Some(trouble) = info.trouble {
            return Err(format!("input `{}`: {trouble}", info.name));
        }
        self.spend(bytes.len())?;
        let words = || bytes.chunks_exact(4).filter_map(|b| b.try_into().ok());
        let data = match info.kind {
            Kind::F32 => TensorData::F32(words().map(f32::from_le_bytes).collect()),
            Kind::I32 => TensorData::I32(words().map(i32::from_le_bytes).collect()),
            Kind::I8 => TensorData::I8(bytes.iter().map(|&b| b as i8).collect()),
            Kind::U8 => TensorData::I8(bytes.iter().map(|&b| (b ^ 0x80) as i8).collect()),
            other => return Err(format!("input `{}` is {}", info.name, other.name())),
        };
        let quant = match info.kind {
            Kind::I8 => per_tensor(info)?,
            Kind::U8 => moved(per_tensor(info)?),
            _ => Quant::default(),
        };
        let shape = shape(info)?;
        let id = self.constant(info.name.clone(), shape, quant, data)?;
        self.ids[t] = Some(id);
        Ok(id)
    }

    /// Makes the graph's tensor for one that is computed.
    fn define(&mut self, t: usize) -> Result<TensorId, Reason> {
        let info = self.info(t);
        if let Some(trouble) = info.trouble {
            return Err(format!("`{}`: {trouble}", info.name));
        }
        let (dtype, quant) = match info.kind {
            Kind::F32 => (DType::F32, Quant::default()),
            Kind::I8 => (DType::I8, per_tensor(info)?),
            Kind::U8 => (DType::I8, moved(per_tensor(info)?)),
            other => {
                return Err(format!(
                    "`{}` is {}; float32 and int8 are supported",
                    info.name,
                    other.name()
                ));
            }
        };
        let id = self.graph.add(Tensor {
            name: info.name.clone(),
            shape: shape(info)?,
            role: TensorRole::Activation,
            quant,
            data: TensorData::Runtime(dtype),
        });
        self.ids[t] = Some(id);
        Ok(id)
    }

    fn constant(
        &mut self,
        name: String,
        shape: Shape,
        quant: Quant,
        data: TensorData,
    ) -> Result<TensorId, Reason> {
        Ok(self.graph.add(Tensor {
            name,
            shape,
            role: TensorRole::Constant,
            quant,
            data,
        }))
    }

    /// Counts bytes of constants against what a file of this size can mean.
    fn spend(&mut self, bytes: usize) -> Result<(), Reason> {
        let left = self.budget.checked_sub(bytes);
        self.budget = left.ok_or("its constants are many times as large as the file")?;
        Ok(())
    }

    /// Adds an operator whose result is the file's tensor `t`.
    fn emit(&mut self, op: Op, inputs: Vec<TensorId>, t: usize) -> Result<(), Reason> {
        let output = self.define(t)?;
        self.push(op, inputs, output)
            .inspect_err(|_| self.ids[t] = None)
    }

    /// Adds an operator whose result has the elements of the file's tensor `t`, and perhaps another shape.
    fn emit_reshaped(&mut self, op: Op, inputs: Vec<TensorId>, t: usize) -> Result<(), Reason> {
        let info = self.info(t);
        let shapes: Vec<Shape> = inputs
            .iter()
            .map(|&i| self.graph.tensors[i].shape)
            .collect();
        let rule = op
            .output_shape(&shapes)
            .map_err(|error| error.to_string())?;
        if rule == shape(info)? {
            return self.emit(op, inputs, t);
        }
        if rule.len() != shape(info)?.len() {
            return Err(format!(
                "its output is declared as {:?} and is {:?}",
                shape(info)?.dims(),
                rule.dims()
            ));
        }
        let id = self.define(t)?;
        let like = self.graph.tensors[id].clone();
        let flat = self.graph.add(Tensor {
            name: format!("{}.computed", like.name),
            shape: rule,
            ..like
        });
        self.push(op, inputs, flat)
            .and_then(|()| self.push(Op::Reshape, vec![flat], id))
            .inspect_err(|_| self.ids[t] = None)
    }

    /// A view of an activation in another shape.
    fn reshaped(&mut self, x: TensorId, dims: &[u32]) -> Result<TensorId, Reason> {
        let like = self.graph.tensors[x].clone();
        if like.shape.dims() == dims {
            return Ok(x);
        }
        let shape = Shape::new(dims).ok_or("a shape that no tensor can have")?;
        let id = self.graph.add(Tensor {
            name: format!("{}.reshaped", like.name),
            shape,
            ..like
        });
        self.push(Op::Reshape, vec![x], id)?;
        Ok(id)
    }

    /// Adds an operator after its own check.
    fn push(&mut self, op: Op, inputs: Vec<TensorId>, output: TensorId) -> Result<(), Reason> {
        let operands: Vec<Operand<'_>> = inputs
            .iter()
            .map(|&t| operand(&self.graph.tensors[t]))
            .collect();
        op.check(
            self.graph.numerics,
            &operands,
            &operand(&self.graph.tensors[output]),
        )
        .map_err(|error| error.to_string())?;
        self.graph.nodes.push(Node { op, inputs, output });
        Ok(())
    }

    fn dtype(&self, id: TensorId) -> DType {
        self.graph.tensors[id].data.dtype()
    }

    /// The scale of an int8 tensor.
    fn scale(&self, id: TensorId) -> f32 {
        self.graph.tensors[id].quant.scale
    }

    /// The whole numbers of a constant int32 or int64 input.
    fn integers(&self, step: &Step<'a>, i: usize) -> Result<Vec<i64>, Reason> {
        let t = self.input(step, i)?;
        let known = self.whole_numbers(t);
        known.ok_or_else(|| match self.info(t).data {
            None => format!("input {i} must be a constant"),
            Some(_) => format!("input {i} must be a short list of whole numbers"),
        })
    }

    /// Refuses uint8, which is supported where the same steps, moved by 128, give the same bits.
    fn no_uint8(&self, step: &Step<'a>) -> Result<(), Reason> {
        let mut all = step.inputs.iter().flatten().chain(&step.outputs);
        match all.any(|&t| self.info(t).kind == Kind::U8) {
            true => Err("it computes in uint8; float32 and int8 are supported".into()),
            false => Ok(()),
        }
    }

    /// See [`import`].
    fn input_range(&self) -> (f32, f32) {
        let graph = &self.graph;
        let on_grid = |id: TensorId| {
            let q = &graph.tensors[id].quant;
            let real = |step: i32| q.scale * (step - q.zero_point) as f32;
            (real(-128), real(127))
        };
        if self.dtype(graph.input) == DType::I8 {
            return on_grid(graph.input);
        }
        let quantize = graph
            .nodes
            .iter()
            .find(|n| n.op == Op::Quantize && n.inputs[0] == graph.input);
        quantize.map_or(FLOAT_RANGE, |n| on_grid(n.output))
    }
}

/// A tensor as operators check it.
fn operand(tensor: &Tensor) -> Operand<'_> {
    Operand {
        dtype: tensor.data.dtype(),
        shape: tensor.shape,
        quant: foolproof::tensor::Quant {
            scale: tensor.quant.scale,
            zero_point: tensor.quant.zero_point,
            channel_scales: &tensor.quant.channel_scales,
        },
        data: match &tensor.data {
            TensorData::Runtime(_) => Data::Absent,
            TensorData::F32(v) => Data::F32(v),
            TensorData::I8(v) => Data::I8(v),
            TensorData::I32(v) => Data::I32(v),
        },
    }
}

fn shape(info: &Info<'_>) -> Result<Shape, Reason> {
    info.shape.ok_or_else(|| {
        format!("`{}` has a shape that is not supported: every dimension must be known and at least 1, and at most 6 of them", info.name)
    })
}

/// The grid of a tensor with one scale.
fn per_tensor(info: &Info<'_>) -> Result<Quant, Reason> {
    let ([scale], [zero_point]) = (&info.scales[..], &info.zero_points[..]) else {
        let (s, z) = (info.scales.len(), info.zero_points.len());
        return Err(format!(
            "`{}` has {s} scales and {z} zero points; one of each is supported",
            info.name
        ));
    };
    let (low, high) = match info.kind {
        Kind::U8 => (0, 255),
        _ => (-128, 127),
    };
    if !(scale.is_finite() && *scale > 0.0 && (low..=high).contains(zero_point)) {
        return Err(format!(
            "`{}` has scale {scale} and zero point {zero_point}",
            info.name
        ));
    }
    Ok(Quant {
        scale: *scale,
        zero_point: *zero_point as i32,
        channel_scales: Vec::new(),
    })
}

/// The grid of int8 steps that stand for what these uint8 steps stand for, 128 above them.
fn moved(quant: Quant) -> Quant {
    Quant {
        zero_point: quant.zero_point - 128,
        ..quant
    }
}

/// A fused activation by its code.
fn fused(code: Option<i8>) -> Result<Activation, Reason> {
    match code.unwrap_or(0) {
        0 => Ok(Activation::None),
        1 => Ok(Activation::Relu),
        3 => Ok(Activation::Relu6),
        2 => Err("its fused activation RELU_N1_TO_1 is not supported".into()),
        4 => Err("its fused activation TANH is not supported".into()),
        other => Err(format!("its fused activation {other} is not supported")),
    }
}
