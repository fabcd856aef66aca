//! Graph to image and back. Writing makes the memory plan; reading gives back all but the plan.

use super::plan::{AttackPlan, Passes, Plan};
use super::{Graph, Node, Quant, Tensor, TensorData};
use crate::lines::{LINE, Lines};
use foolproof::memory::{Mode, Role};
use foolproof::model::format::{
    self, ALIGN, Header, MAGIC, NO_OP, OpRecord, Span, TensorRecord, TensorRole, VERSION,
};
use foolproof::model::{Model, ModelError, Tables};
use foolproof::ops::{MAX_INPUTS, WORDS};
use foolproof::tensor::MAX_RANK;
use zerocopy::little_endian::{F32, I32, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Why a graph cannot become an image.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum GraphError {
    /// More tensors, operators, inputs or bytes than the format has room for.
    #[error("the model has too many {what} for an image: {got}, the limit is {limit}")]
    TooMany {
        /// What.
        what: &'static str,
        /// How many.
        got: usize,
        /// The most there may be.
        limit: usize,
    },
    /// An attack's buffer cannot be made that small.
    #[error(
        "an attack needs a buffer of {needed} bytes at least, however its backward is cut; the limit is {limit}"
    )]
    AttackBuffer {
        /// The smallest buffer, bytes.
        needed: usize,
        /// What was asked for, bytes.
        limit: usize,
    },
    /// The image was written and its own check refuses it: the graph is not well formed.
    #[error("the model is not well formed: {0}")]
    Invalid(#[from] ModelError),
}

/// Constants of this many bytes or more begin with a cache line; the space in front of them would be much beside fewer.
const LARGE: usize = 1024;

/// An image in memory, aligned as [`Model::from_bytes`] asks for, and more (see [`Lines`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    bytes: Lines,
}

impl Image {
    /// Copies bytes to an aligned place.
    pub fn from_bytes(bytes: &[u8]) -> Image {
        Image {
            bytes: Lines::from(bytes),
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Checks the bytes and gives a view of them.
    ///
    /// # Errors
    /// As [`Model::from_bytes`].
    pub fn model(&self) -> Result<Model<'_>, ModelError> {
        Model::from_bytes(self.bytes())
    }
}

/// Writes a graph as an image, with memory plans for Infer and Attack, and for Train where all of it is f32.
///
/// # Errors
/// The graph is too large for the format, or not well formed.
pub fn to_image(graph: &Graph) -> Result<Image, GraphError> {
    to_image_within(graph, usize::MAX)
}

/// The same, where an attack's buffer may have `attack_limit` bytes per sample: if it takes more, backward is cut into
/// as few recomputed multiply-accumulates as fit (see [`foolproof::memory::Pass`]). Gradients stay the same to the bit.
///
/// # Errors
/// As [`to_image`]; or no cut makes it fit.
pub fn to_image_within(graph: &Graph, attack_limit: usize) -> Result<Image, GraphError> {
    let limit = |what, got: usize, limit: usize| match got > limit {
        true => Err(GraphError::TooMany { what, got, limit }),
        false => Ok(()),
    };
    limit("tensors", graph.tensors.len(), format::MAX_TENSORS)?;
    limit("operators", graph.nodes.len(), format::MAX_OPS)?;
    for node in &graph.nodes {
        limit("inputs of one operator", node.inputs.len(), MAX_INPUTS)?;
    }
    let draft = lay_out(graph, &Passes::default())?;
    // the planner reads the tables, which are there before the plan is
    let tables = Tables::parse(draft.bytes())?;
    let plans = Plans {
        infer: Plan::make(&tables, Mode::Infer),
        attack: AttackPlan::make(&tables, attack_limit).map_err(|needed| {
            GraphError::AttackBuffer {
                needed,
                limit: attack_limit,
            }
        })?,
        train: graph
            .is_trainable()
            .then(|| Plan::make(&tables, Mode::Train)),
    };
    let mut image = match &plans.attack {
        AttackPlan::Plain(_) => draft.clone(),
        AttackPlan::Cut(passes) => lay_out(graph, passes)?,
    };
    put_plans(&mut image, &plans)?;
    image.model()?;
    Ok(image)
}

/// The image whose buffer for an attack is the smallest that the search for cuts finds.
///
/// # Errors
/// As [`to_image`].
pub fn to_image_smallest(graph: &Graph) -> Result<Image, GraphError> {
    match to_image_within(graph, 0) {
        Err(GraphError::AttackBuffer { needed, .. }) => to_image_within(graph, needed),
        other => other,
    }
}

/// How the backward of Attack mode is cut to save memory, and what that costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cut {
    /// Passes; each but the first to run starts with a forward of its own.
    pub passes: usize,
    /// What is computed again for one gradient, in forwards of the whole model (by multiply-accumulates).
    pub extra_forwards: f64,
}

impl Cut {
    /// `None` where the model's backward is not cut.
    pub fn of(model: &Model<'_>) -> Option<Cut> {
        let tables = model.tables();
        let passes = tables.pass_count(Mode::Attack);
        let macs: u64 = (0..tables.op_count()).map(|k| tables.macs(k)).sum();
        (passes > 1).then(|| Cut {
            passes,
            extra_forwards: model.recomputed_macs() as f64 / macs.max(1) as f64,
        })
    }
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Cut {
            passes,
            extra_forwards,
        } = self;
        write!(
            f,
            "{passes} passes, {extra_forwards:.2} forwards more for each gradient"
        )
    }
}

struct Plans {
    infer: Plan,
    attack: AttackPlan,
    train: Option<Plan>,
}

/// An image without its plans, except for passes, which have a table of their own.
fn lay_out(graph: &Graph, passes: &Passes) -> Result<Image, GraphError> {
    let trainable = graph.is_trainable();
    let count = graph.tensors.len();
    let tensors_at = size_of::<Header>().next_multiple_of(ALIGN);
    let ops_at = tensors_at + count * size_of::<TensorRecord>();
    let plan_at = ops_at + graph.nodes.len() * size_of::<OpRecord>();
    let plain = passes.records.is_empty();
    let spans = count * (1 + if plain { 3 } else { 0 } + if trainable { 3 } else { 0 });
    let passes_at = plan_at + spans * size_of::<Span>();
    let mut bytes = vec![0; passes_at];
    bytes.extend_from_slice(passes.records.as_bytes());
    bytes.extend_from_slice(passes.spans.as_bytes());

    let mut records = Vec::with_capacity(count);
    for (t, tensor) in graph.tensors.iter().enumerate() {
        let producer = graph.nodes.iter().position(|n| n.output == t);
        records.push(tensor_record(tensor, producer, &mut bytes));
    }
    let labels = graph.labels.join("\n");
    let labels_at = append(&mut bytes, labels.as_bytes(), 1);
    if bytes.len() > i32::MAX as usize {
        return Err(GraphError::TooMany {
            what: "bytes",
            got: bytes.len(),
            limit: i32::MAX as usize,
        });
    }
    bytes[tensors_at..ops_at].copy_from_slice(records.as_bytes());
    let ops: Vec<OpRecord> = graph.nodes.iter().map(op_record).collect();
    bytes[ops_at..plan_at].copy_from_slice(ops.as_bytes());
    for span in 0..spans {
        put_span(&mut bytes, plan_at + span * size_of::<Span>(), Span::ABSENT);
    }
    let header = Header {
        magic: MAGIC,
        version: U16::new(VERSION),
        numerics: graph.numerics as u8,
        reserved: 0,
        total_len: U32::new(bytes.len() as u32),
        crc: U32::new(0),
        tensor_count: U16::new(count as u16),
        op_count: U16::new(graph.nodes.len() as u16),
        input: U16::new(graph.input as u16),
        output: U16::new(graph.output as u16),
        logits: U16::new(graph.logits() as u16),
        pass_count: U16::new(passes.records.len() as u16),
        tensors: U32::new(tensors_at as u32),
        ops: U32::new(ops_at as u32),
        plan: U32::new(plan_at as u32),
        infer_bytes: U32::new(1),
        attack_bytes: U32::new(1),
        train_bytes: U32::new(u32::from(trainable)),
        parameter_bytes: U32::new(0),
        input_low: F32::new(graph.input_range.0),
        input_high: F32::new(graph.input_range.1),
        labels: U32::new(labels_at),
        labels_len: U32::new(labels.len() as u32),
        anomaly_above: F32::new(graph.anomaly_above.unwrap_or(0.0)),
        passes: U32::new(if plain { 0 } else { passes_at as u32 }),
    };
    bytes[..size_of::<Header>()].copy_from_slice(header.as_bytes());
    Ok(Image::from_bytes(&bytes))
}

fn put_plans(image: &mut Image, plans: &Plans) -> Result<(), GraphError> {
    let unplanned = image.clone();
    let tables = Tables::parse(unplanned.bytes())?;
    let mut header = *tables.header();
    let bytes = image.bytes_mut();
    let (attack, attack_bytes) = match &plans.attack {
        AttackPlan::Plain(plan) => (Some(plan), plan.total),
        AttackPlan::Cut(passes) => (None, passes.total),
    };
    let train_bytes = plans.train.as_ref().map_or(0, |plan| plan.total.max(1));
    header.infer_bytes = U32::new(plans.infer.total.max(1) as u32);
    header.attack_bytes = U32::new(attack_bytes.max(1) as u32);
    header.train_bytes = U32::new(train_bytes as u32);
    for (mode, plan) in [
        (Mode::Infer, Some(&plans.infer)),
        (Mode::Attack, attack),
        (Mode::Train, plans.train.as_ref()),
    ] {
        let Some(plan) = plan else { continue };
        for t in 0..tables.tensor_count() {
            let storage = tables.storage_of(t);
            for role in Role::ALL {
                let from = if role == Role::Saved { t } else { storage };
                let span = plan.spans.get(&(from, role as u8));
                if let (Some(&span), Some(at)) = (span, tables.span_position(mode, t, role)) {
                    put_span(bytes, at, span);
                }
            }
        }
    }
    if plans.train.is_some() {
        header.parameter_bytes = U32::new(put_parameters(&tables, bytes));
    }
    bytes[..size_of::<Header>()].copy_from_slice(header.as_bytes());
    seal(bytes);
    Ok(())
}

/// Writes the checksum that belongs to the rest of the bytes.
pub fn seal(image: &mut [u8]) {
    let crc = format::checksum(image);
    let at = std::mem::offset_of!(Header, crc);
    if let Some(field) = image.get_mut(at..at + 4) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
}

/// Values first, then gradients, in tensor order; returns the bytes of both.
fn put_parameters(tables: &Tables<'_>, bytes: &mut [u8]) -> u32 {
    let is_parameter = |&t: &usize| {
        matches!(
            tables.role(t),
            TensorRole::Parameter | TensorRole::Statistic
        )
    };
    let mut at = 0;
    for role in [Role::Value, Role::Gradient] {
        for t in (0..tables.tensor_count()).filter(is_parameter) {
            let span = Span {
                offset: U32::new(at),
                ..Span::ABSENT
            };
            if let Some(position) = tables.span_position(Mode::Train, t, role) {
                put_span(bytes, position, span);
            }
            at += 4 * tables.shape(t).len() as u32;
        }
    }
    at
}

fn tensor_record(tensor: &Tensor, producer: Option<usize>, bytes: &mut Vec<u8>) -> TensorRecord {
    let data = match &tensor.data {
        TensorData::Runtime(_) => 0,
        TensorData::F32(v) => append_constants(bytes, v.as_bytes()),
        TensorData::I8(v) => append_constants(bytes, v.as_bytes()),
        TensorData::I32(v) => append_constants(bytes, v.as_bytes()),
    };
    let scales = append(bytes, tensor.quant.channel_scales.as_bytes(), 4);
    let name: String = tensor.name.chars().take(MAX_NAME).collect();
    let name_at = append(bytes, name.as_bytes(), 1);
    let mut dims = [U32::new(1); MAX_RANK];
    for (d, &dim) in dims.iter_mut().zip(tensor.shape.dims()) {
        *d = U32::new(dim);
    }
    TensorRecord {
        dims,
        dtype: tensor.data.dtype() as u8,
        rank: tensor.shape.rank() as u8,
        role: tensor.role as u8,
        reserved: 0,
        data: U32::new(data),
        scale: F32::new(tensor.quant.scale),
        zero_point: I32::new(tensor.quant.zero_point),
        scales: U32::new(scales),
        scales_len: U32::new(tensor.quant.channel_scales.len() as u32),
        name: U32::new(name_at),
        name_len: U16::new(name.len() as u16),
        producer: U16::new(producer.map_or(NO_OP, |k| k as u16)),
    }
}

/// Names are for people; a longer one is cut (characters).
const MAX_NAME: usize = 64;

fn op_record(node: &Node) -> OpRecord {
    let mut inputs = [U16::new(0); MAX_INPUTS];
    for (i, &t) in inputs.iter_mut().zip(&node.inputs) {
        *i = U16::new(t as u16);
    }
    let mut words = [U32::new(0); WORDS];
    for (w, word) in words.iter_mut().zip(node.op.words()) {
        *w = U32::new(word);
    }
    OpRecord {
        code: node.op.code(),
        input_count: node.inputs.len() as u8,
        output: U16::new(node.output as u16),
        inputs,
        words,
    }
}

fn append_constants(bytes: &mut Vec<u8>, constants: &[u8]) -> u32 {
    let is_large = constants.len() >= LARGE;
    append(bytes, constants, if is_large { LINE } else { 4 })
}

fn append(bytes: &mut Vec<u8>, part: &[u8], align: usize) -> u32 {
    bytes.resize(bytes.len().next_multiple_of(align), 0);
    let at = bytes.len() as u32;
    bytes.extend_from_slice(part);
    at
}

fn put_span(bytes: &mut [u8], at: usize, span: Span) {
    bytes[at..at + size_of::<Span>()].copy_from_slice(span.as_bytes());
}

/// The graph behind a model image.
pub fn from_image(model: &Model<'_>) -> Graph {
    let tables = model.tables();
    let tensors = (0..tables.tensor_count())
        .map(|t| {
            let quant = tables.quant(t);
            let dtype = tables.dtype(t);
            let bytes = tables.data(t);
            let role = tables.role(t);
            let data = match (role, dtype) {
                (TensorRole::Activation, _) => TensorData::Runtime(dtype),
                (_, foolproof::tensor::DType::F32) => TensorData::F32(read(bytes)),
                (_, foolproof::tensor::DType::I8) => TensorData::I8(read(bytes)),
                (_, foolproof::tensor::DType::I32) => TensorData::I32(read(bytes)),
            };
            Tensor {
                name: tables.name(t).to_string(),
                shape: tables.shape(t),
                role,
                quant: Quant {
                    scale: quant.scale,
                    zero_point: quant.zero_point,
                    channel_scales: quant.channel_scales.to_vec(),
                },
                data,
            }
        })
        .collect();
    let nodes = (0..tables.op_count())
        .map(|k| {
            let node = tables.node(k);
            Node {
                op: node.op,
                inputs: node.inputs().collect(),
                output: node.output,
            }
        })
        .collect();
    Graph {
        tensors,
        nodes,
        input: tables.input(),
        output: tables.output(),
        numerics: tables.numerics(),
        input_range: model.input_range(),
        anomaly_above: model.anomaly_above(),
        labels: model.labels().map(str::to_string).collect(),
    }
}

fn read<T: FromBytes + Immutable + Clone>(bytes: &[u8]) -> Vec<T> {
    // constants were checked for length and alignment
    <[T]>::ref_from_bytes(bytes)
        .map(<[T]>::to_vec)
        .unwrap_or_default()
}
