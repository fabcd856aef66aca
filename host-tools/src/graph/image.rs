//! Graph to image and back. Writing makes the memory plan; reading gives back all but the plan.

use super::{Graph, Node, Quant, Tensor, TensorData};
use foolproof::memory::{self, Mode, Request, Role};
use foolproof::model::format::{
    self, ALIGN, Header, MAGIC, NO_OP, OpRecord, Span, TensorRecord, TensorRole, VERSION,
};
use foolproof::model::{Model, ModelError, Tables};
use foolproof::ops::{MAX_INPUTS, WORDS};
use foolproof::tensor::MAX_RANK;
use rand_core::Rng;
use std::collections::{BTreeMap, HashMap};
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
    /// The image was written and its own check refuses it: the graph is not well formed.
    #[error("the model is not well formed: {0}")]
    Invalid(#[from] ModelError),
}

/// An image in memory, aligned as [`Model::from_bytes`] asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    words: Vec<u128>,
    len: usize,
}

impl Image {
    /// Copies bytes to an aligned place.
    pub fn from_bytes(bytes: &[u8]) -> Image {
        let mut image = Image {
            words: vec![0; bytes.len().div_ceil(ALIGN)],
            len: bytes.len(),
        };
        image.bytes_mut().copy_from_slice(bytes);
        image
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.words.as_bytes()[..self.len]
    }

    /// The bytes, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        &mut self.words.as_mut_bytes()[..len]
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
    let limit = |what, got: usize, limit: usize| match got > limit {
        true => Err(GraphError::TooMany { what, got, limit }),
        false => Ok(()),
    };
    limit("tensors", graph.tensors.len(), format::MAX_TENSORS)?;
    limit("operators", graph.nodes.len(), format::MAX_OPS)?;
    for node in &graph.nodes {
        limit("inputs of one operator", node.inputs.len(), MAX_INPUTS)?;
    }
    let trainable = !graph.is_quantized();
    let count = graph.tensors.len();
    let tensors_at = size_of::<Header>().next_multiple_of(ALIGN);
    let ops_at = tensors_at + count * size_of::<TensorRecord>();
    let plan_at = ops_at + graph.nodes.len() * size_of::<OpRecord>();
    let spans = count * if trainable { 7 } else { 4 };
    let mut bytes = vec![0; plan_at + spans * size_of::<Span>()];

    let mut records = Vec::with_capacity(count);
    for (t, tensor) in graph.tensors.iter().enumerate() {
        let producer = graph.nodes.iter().position(|n| n.output == t);
        records.push(tensor_record(tensor, producer, &mut bytes));
    }
    let labels = graph.labels.join("\n");
    let labels_at = append(&mut bytes, labels.as_bytes(), 1);
    limit("bytes", bytes.len(), i32::MAX as usize)?;
    bytes[tensors_at..ops_at].copy_from_slice(records.as_bytes());
    let ops: Vec<OpRecord> = graph.nodes.iter().map(op_record).collect();
    bytes[ops_at..plan_at].copy_from_slice(ops.as_bytes());
    for span in 0..spans {
        put_span(&mut bytes, plan_at + span * size_of::<Span>(), Span::ABSENT);
    }
    let header = Header {
        magic: MAGIC,
        version: U16::new(VERSION),
        rounding: graph.rounding as u8,
        reserved: 0,
        total_len: U32::new(bytes.len() as u32),
        crc: U32::new(0),
        tensor_count: U16::new(count as u16),
        op_count: U16::new(graph.nodes.len() as u16),
        input: U16::new(graph.input as u16),
        output: U16::new(graph.output as u16),
        logits: U16::new(graph.logits() as u16),
        reserved2: U16::new(0),
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
    };
    bytes[..size_of::<Header>()].copy_from_slice(header.as_bytes());
    let mut image = Image::from_bytes(&bytes);
    make_plans(&mut image, header, trainable)?;
    image.model()?;
    Ok(image)
}

/// The plan needs the tables, so it is made from the image's own and then written into it.
fn make_plans(image: &mut Image, mut header: Header, trainable: bool) -> Result<(), GraphError> {
    let unplanned = image.clone();
    let tables = Tables::parse(unplanned.bytes())?;
    let bytes = image.bytes_mut();
    for (mode, total) in [
        (Mode::Infer, &mut header.infer_bytes),
        (Mode::Attack, &mut header.attack_bytes),
        (Mode::Train, &mut header.train_bytes),
    ] {
        if mode == Mode::Train && !trainable {
            continue;
        }
        let plan = Plan::make(&tables, mode);
        *total = U32::new(plan.total.max(1) as u32);
        for t in 0..tables.tensor_count() {
            let storage = tables.storage_of(t);
            for role in [Role::Value, Role::Gradient, Role::Saved] {
                let from = if role == Role::Saved { t } else { storage };
                let span = plan.spans.get(&(from, role as u8));
                if let (Some(&span), Some(at)) = (span, tables.span_position(mode, t, role)) {
                    put_span(bytes, at, span);
                }
            }
        }
    }
    if trainable {
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

/// The spans of one mode and the bytes that they need.
struct Plan {
    spans: HashMap<(usize, u8), Span>,
    total: usize,
}

impl Plan {
    fn make(tables: &Tables<'_>, mode: Mode) -> Plan {
        let mut lives: BTreeMap<(usize, u8), (Role, u16, u16)> = BTreeMap::new();
        memory::uses(tables, mode, &mut |t, role, time| {
            let life = lives.entry((t, role as u8)).or_insert((role, time, time));
            life.1 = life.1.min(time);
            life.2 = life.2.max(time);
        });
        let keys: Vec<(usize, u8)> = lives.keys().copied().collect();
        let wanted: Vec<Request> = lives
            .iter()
            .map(|(&(t, _), &(role, first, last))| Request {
                size: memory::slot_bytes(tables, t, role, mode),
                first,
                last,
                offset: 0,
            })
            .collect();
        let (placed, total) = best_placement(&wanted);
        let spans = keys
            .into_iter()
            .zip(placed)
            .map(|(key, r)| {
                let span = Span {
                    offset: U32::new(r.offset as u32),
                    first: U16::new(r.first),
                    last: U16::new(r.last),
                };
                (key, span)
            })
            .collect();
        Plan { spans, total }
    }
}

/// Requests placed in some order.
struct Placement {
    order: Vec<usize>,
    placed: Vec<Request>,
    total: usize,
}

impl Placement {
    fn of(wanted: &[Request], order: Vec<usize>) -> Placement {
        let mut requests: Vec<Request> = order.iter().map(|&i| wanted[i]).collect();
        let total = memory::place(&mut requests);
        let mut placed = wanted.to_vec();
        for (&i, r) in order.iter().zip(&requests) {
            placed[i] = *r;
        }
        Placement {
            order,
            placed,
            total,
        }
    }
}

/// How many small changes to the best order are tried.
const PLACEMENT_TRIES: usize = 400;

/// The smallest of several placements: by size, by life, by both, then small changes to the best order by a
/// fixed sequence. No order is best for every graph; each try costs microseconds.
fn best_placement(wanted: &[Request]) -> (Vec<Request>, usize) {
    let life = |r: &Request| u64::from(r.last - r.first) + 1;
    let size = |r: &Request| r.size as u64;
    let sorted = |key: &dyn Fn(&Request) -> u64| {
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(key(&wanted[i])));
        Placement::of(wanted, order)
    };
    let mut best = sorted(&|r| size(r) << 16 | life(r));
    let mut offer = |other: Placement| {
        if other.total < best.total {
            best = other;
        }
        (best.total, best.order.clone())
    };
    offer(sorted(&|r| life(r) << 32 | size(r)));
    offer(sorted(&|r| size(r) * life(r)));
    let (mut total, mut order) = offer(sorted(&|r| u64::from(u16::MAX - r.first) << 32 | size(r)));
    // nothing can be smaller than what is alive at the busiest moment
    let alive_at = |time: u16| -> usize {
        let alive = wanted.iter().filter(|r| r.first <= time && time <= r.last);
        alive.map(|r| r.size).sum()
    };
    let bound = wanted.iter().map(|r| alive_at(r.first)).max().unwrap_or(0);
    let mut random = foolproof::attack::rng(0, 0);
    for _ in 0..PLACEMENT_TRIES {
        if total == bound {
            break;
        }
        let from = random.next_u32() as usize % order.len();
        let moved = order.remove(from);
        let to = random.next_u32() as usize % (order.len() + 1);
        order.insert(to, moved);
        (total, order) = offer(Placement::of(wanted, order));
    }
    (best.placed, best.total)
}

fn tensor_record(tensor: &Tensor, producer: Option<usize>, bytes: &mut Vec<u8>) -> TensorRecord {
    let data = match &tensor.data {
        TensorData::Runtime(_) => 0,
        TensorData::F32(v) => append(bytes, v.as_bytes(), 4),
        TensorData::I8(v) => append(bytes, v.as_bytes(), 4),
        TensorData::I32(v) => append(bytes, v.as_bytes(), 4),
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
        rounding: tables.rounding(),
        input_range: model.input_range(),
        labels: model.labels().map(str::to_string).collect(),
    }
}

fn read<T: FromBytes + Immutable + Clone>(bytes: &[u8]) -> Vec<T> {
    // constants were checked for length and alignment
    <[T]>::ref_from_bytes(bytes)
        .map(<[T]>::to_vec)
        .unwrap_or_default()
}
