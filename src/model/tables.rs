//! The tables of an image: parsed and bounds-checked, before anything is said about their meaning.

use super::format::{
    self, ALIGN, Header, MAGIC, MAX_ACTIVATIONS, MAX_OPS, MAX_TENSORS, NO_OP, OpRecord, Span,
    TensorRecord, TensorRole, VERSION,
};
use super::{ModelError, Part};
use crate::memory::{Mode, Role};
use crate::ops::{MAX_INPUTS, Needs, Op, Rounding};
use crate::tensor::{DType, Data, MAX_RANK, Operand, Quant, Shape, typed};
use zerocopy::FromBytes;

/// An image whose tables, constants and names lie inside it and whose records decode. The order of the
/// operators, their operands and the memory plan are checked by [`super::Model::from_bytes`].
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a> {
    bytes: &'a [u8],
    header: &'a Header,
    tensors: &'a [TensorRecord],
    ops: &'a [OpRecord],
    plan: &'a [Span],
}

/// One operator with the tensors it reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// The tensor it writes.
    pub output: usize,
    inputs: [u16; MAX_INPUTS],
    input_count: u8,
}

impl Node {
    /// The tensors it reads, in order.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.inputs[..self.input_count as usize]
            .iter()
            .map(|&t| t as usize)
    }
}

impl<'a> Tables<'a> {
    /// Reads the header and the tables.
    ///
    /// # Errors
    /// Anything that lies outside the bytes, an unknown version, type or operator.
    pub fn parse(bytes: &'a [u8]) -> Result<Tables<'a>, ModelError> {
        let truncated = |needed| ModelError::Truncated {
            needed,
            got: bytes.len(),
        };
        let (header, _) =
            Header::ref_from_prefix(bytes).map_err(|_| truncated(size_of::<Header>()))?;
        if header.magic != MAGIC {
            return Err(ModelError::Magic);
        }
        if header.version.get() != VERSION {
            return Err(ModelError::Version {
                got: header.version.get(),
            });
        }
        if !(bytes.as_ptr() as usize).is_multiple_of(ALIGN) {
            return Err(ModelError::Misaligned);
        }
        let total = header.total_len.get() as usize;
        let bytes = bytes.get(..total).ok_or_else(|| truncated(total))?;
        let count = |part, got: u16, max: usize| match got as usize {
            0 => Err(ModelError::Count { part, got: 0 }),
            n if n > max => Err(ModelError::Count { part, got: n }),
            n => Ok(n),
        };
        let tensor_count = count(Part::Tensors, header.tensor_count.get(), MAX_TENSORS)?;
        let op_count = count(Part::Ops, header.op_count.get(), MAX_OPS)?;
        let spans = tensor_count * if header.train_bytes.get() > 0 { 7 } else { 4 };
        let tables = Tables {
            bytes,
            header,
            tensors: table(bytes, header.tensors.get(), tensor_count, Part::Tensors)?,
            ops: table(bytes, header.ops.get(), op_count, Part::Ops)?,
            plan: table(bytes, header.plan.get(), spans, Part::Plan)?,
        };
        tables.check_header()?;
        let mut activations = 0;
        for t in 0..tensor_count {
            activations += usize::from(tables.check_tensor(t)?);
        }
        if activations > MAX_ACTIVATIONS {
            return Err(ModelError::Count {
                part: Part::Tensors,
                got: activations,
            });
        }
        for (k, record) in tables.ops.iter().enumerate() {
            tables.check_op(k, record)?;
        }
        Ok(tables)
    }

    fn check_header(&self) -> Result<(), ModelError> {
        let h = self.header;
        let (low, high) = (h.input_low.get(), h.input_high.get());
        let arenas = [
            &h.infer_bytes,
            &h.attack_bytes,
            &h.train_bytes,
            &h.parameter_bytes,
        ];
        let ok = h.rounding <= 1
            && h.reserved == 0
            && h.reserved2.get() == 0
            && low.is_finite()
            && high.is_finite()
            && low < high
            && h.infer_bytes.get() > 0
            && (h.train_bytes.get() > 0 || h.parameter_bytes.get() == 0)
            && arenas.iter().all(|a| a.get() <= i32::MAX as u32)
            && [&h.input, &h.output, &h.logits]
                .iter()
                .all(|t| (t.get() as usize) < self.tensors.len());
        if !ok {
            return Err(ModelError::Header);
        }
        let labels = self.slice(h.labels.get(), h.labels_len.get() as usize);
        match labels.map(core::str::from_utf8) {
            Some(Ok(_)) => Ok(()),
            _ => Err(ModelError::Range {
                part: Part::Labels,
                tensor: 0,
            }),
        }
    }

    /// Checks one tensor's record; true for an activation.
    fn check_tensor(&self, t: usize) -> Result<bool, ModelError> {
        let r = &self.tensors[t];
        let range = |part| ModelError::Range { part, tensor: t };
        let bad = ModelError::Tensor { tensor: t };
        let dtype = DType::from_code(r.dtype).ok_or(bad)?;
        let role = TensorRole::from_code(r.role).ok_or(bad)?;
        // elements and gradients are counted in bytes, on 32-bit machines too
        let fits = |s: &Shape| s.len() <= i32::MAX as usize / 4;
        let shape = self.try_shape(t).filter(fits).ok_or(bad)?;
        let zero_point = r.zero_point.get();
        let zero_point_ok = match dtype {
            DType::I8 => (-128..=127).contains(&zero_point),
            DType::F32 | DType::I32 => zero_point == 0,
        };
        if r.reserved != 0 || !usable_scale(r.scale.get()) || !zero_point_ok {
            return Err(bad);
        }
        let activation = role == TensorRole::Activation;
        let producer = r.producer.get();
        let computed = activation && t != self.input();
        let producer_ok = match self.ops.get(producer as usize) {
            Some(op) => computed && op.output.get() as usize == t,
            None => producer == NO_OP && !computed,
        };
        if !producer_ok {
            return Err(ModelError::NotComputed { tensor: t });
        }
        let type_ok = match role {
            TensorRole::Activation => dtype != DType::I32 && shape.rank() > 0,
            TensorRole::Constant => true,
            TensorRole::Parameter | TensorRole::Statistic => dtype == DType::F32,
        };
        if !type_ok {
            return Err(bad);
        }
        // only f32 is trained, so nothing in Train mode needs to know about int8
        if activation && dtype != DType::F32 && self.header.train_bytes.get() > 0 {
            return Err(bad);
        }
        if !activation {
            let len = shape.len().checked_mul(dtype.size()).ok_or(bad)?;
            if !r.data.get().is_multiple_of(4) || self.slice(r.data.get(), len).is_none() {
                return Err(range(Part::Data));
            }
        }
        let scales_len = (r.scales_len.get() as usize).checked_mul(4).ok_or(bad)?;
        if scales_len > 0 {
            let scales = self
                .slice(r.scales.get(), scales_len)
                .and_then(|b| <[f32]>::ref_from_bytes(b).ok())
                .ok_or(range(Part::Scales))?;
            if !scales.iter().all(|&s| usable_scale(s)) {
                return Err(bad);
            }
        }
        match self
            .slice(r.name.get(), r.name_len.get().into())
            .map(core::str::from_utf8)
        {
            Some(Ok(_)) => Ok(activation),
            _ => Err(range(Part::Name)),
        }
    }

    fn check_op(&self, k: usize, r: &OpRecord) -> Result<(), ModelError> {
        let unknown = ModelError::UnknownOp {
            op: k,
            code: r.code,
        };
        if r.input_count as usize > MAX_INPUTS || r.input_count == 0 {
            return Err(unknown);
        }
        decode(r).ok_or(unknown)?;
        let used = &r.inputs[..r.input_count as usize];
        for t in used.iter().chain([&r.output]) {
            let tensor = t.get() as usize;
            if tensor >= self.tensors.len() {
                return Err(ModelError::TensorIndex { op: k, tensor });
            }
        }
        Ok(())
    }

    fn slice(&self, offset: u32, len: usize) -> Option<&'a [u8]> {
        let start = offset as usize;
        self.bytes.get(start..start.checked_add(len)?)
    }

    fn try_shape(&self, t: usize) -> Option<Shape> {
        let r = self.tensors.get(t)?;
        let mut dims = [1; MAX_RANK];
        for (d, word) in dims.iter_mut().zip(&r.dims) {
            *d = word.get();
        }
        let rank = r.rank as usize;
        if rank > MAX_RANK || dims[rank..].iter().any(|&d| d != 1) {
            return None;
        }
        Shape::new(&dims[..rank])
    }

    /// The image's bytes, without anything that follows it.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The header.
    pub fn header(&self) -> &'a Header {
        self.header
    }

    /// Number of tensors.
    pub fn tensor_count(&self) -> usize {
        self.tensors.len()
    }

    /// Number of operators.
    pub fn op_count(&self) -> usize {
        self.ops.len()
    }

    /// The tensor that the caller fills.
    pub fn input(&self) -> usize {
        self.header.input.get() as usize
    }

    /// The tensor that the model answers with.
    pub fn output(&self) -> usize {
        self.header.output.get() as usize
    }

    /// The tensor of class scores before a final softmax.
    pub fn logits(&self) -> usize {
        self.header.logits.get() as usize
    }

    /// How int8 requantization rounds.
    pub fn rounding(&self) -> Rounding {
        match self.header.rounding {
            1 => Rounding::Single,
            _ => Rounding::Double,
        }
    }

    /// Class names, one per line.
    pub fn labels(&self) -> &'a str {
        self.text(self.header.labels.get(), self.header.labels_len.get())
    }

    /// A tensor's name; may be empty.
    pub fn name(&self, t: usize) -> &'a str {
        self.text(
            self.tensors[t].name.get(),
            self.tensors[t].name_len.get().into(),
        )
    }

    fn text(&self, offset: u32, len: u32) -> &'a str {
        self.slice(offset, len as usize)
            .and_then(|b| core::str::from_utf8(b).ok())
            .unwrap_or("")
    }

    /// A tensor's shape, for one sample.
    pub fn shape(&self, t: usize) -> Shape {
        self.try_shape(t).unwrap_or(Shape::SCALAR)
    }

    /// A tensor's element type.
    pub fn dtype(&self, t: usize) -> DType {
        DType::from_code(self.tensors[t].dtype).unwrap_or(DType::F32)
    }

    /// What a tensor is for.
    pub fn role(&self, t: usize) -> TensorRole {
        TensorRole::from_code(self.tensors[t].role).unwrap_or(TensorRole::Constant)
    }

    /// Whether a tensor's elements are stored in the image.
    pub fn is_in_image(&self, t: usize) -> bool {
        self.role(t) != TensorRole::Activation
    }

    /// A tensor's quantization.
    pub fn quant(&self, t: usize) -> Quant<'a> {
        let r = &self.tensors[t];
        let scales = self
            .slice(r.scales.get(), r.scales_len.get() as usize * 4)
            .and_then(|b| <[f32]>::ref_from_bytes(b).ok());
        Quant {
            scale: r.scale.get(),
            zero_point: r.zero_point.get(),
            channel_scales: match r.scales_len.get() {
                0 => &[],
                _ => scales.unwrap_or(&[]),
            },
        }
    }

    /// A constant's bytes; empty for an activation.
    pub fn data(&self, t: usize) -> &'a [u8] {
        if !self.is_in_image(t) {
            return &[];
        }
        let len = self.shape(t).len() * self.dtype(t).size();
        self.slice(self.tensors[t].data.get(), len).unwrap_or(&[])
    }

    /// A tensor as an operator sees it; the elements are there only if they are in the image.
    pub fn operand(&self, t: usize) -> Operand<'a> {
        let dtype = self.dtype(t);
        Operand {
            dtype,
            shape: self.shape(t),
            quant: self.quant(t),
            data: match self.is_in_image(t) {
                true => typed(dtype, self.data(t)),
                false => Data::Absent,
            },
        }
    }

    /// Operator `k`.
    pub fn node(&self, k: usize) -> Node {
        let r = &self.ops[k];
        let mut inputs = [0; MAX_INPUTS];
        for (i, t) in inputs.iter_mut().zip(&r.inputs) {
            *i = t.get();
        }
        Node {
            op: decode(r).unwrap_or(Op::Reshape),
            output: r.output.get() as usize,
            inputs,
            input_count: r.input_count,
        }
    }

    /// What an operator's backward needs in this mode.
    pub fn needs(&self, node: &Node, mode: Mode) -> Needs {
        let dtype = self.dtype(node.inputs().next().unwrap_or(0));
        node.op.needs(dtype, mode == Mode::Train)
    }

    /// The operator that computes a tensor.
    pub fn producer(&self, t: usize) -> Option<usize> {
        let k = self.tensors[t].producer.get() as usize;
        (k < self.ops.len()).then_some(k)
    }

    /// The tensor in whose slots this one lives: an output of `Reshape` shares those of its input.
    pub fn storage_of(&self, t: usize) -> usize {
        let mut root = t;
        // an operator reads only what earlier ones wrote: after so many steps there is no more to follow
        for _ in 0..self.ops.len() {
            match self.producer(root) {
                Some(k) if self.is_reshape(k) => root = self.ops[k].inputs[0].get() as usize,
                _ => break,
            }
        }
        root
    }

    /// Whether operator `k` only gives another shape to the same bytes.
    pub fn is_reshape(&self, k: usize) -> bool {
        self.ops[k].code == Op::Reshape.code()
    }

    /// Whether a tensor has no slots of its own but lives in another's.
    pub(super) fn is_alias(&self, t: usize) -> bool {
        self.producer(t).is_some_and(|k| self.is_reshape(k))
    }

    /// Buffer bytes per sample in a mode; 0 where the mode is not supported.
    pub fn arena_bytes(&self, mode: Mode) -> usize {
        let h = self.header;
        let bytes = match mode {
            Mode::Infer => h.infer_bytes,
            Mode::Attack => h.attack_bytes,
            Mode::Train => h.train_bytes,
        };
        bytes.get() as usize
    }

    /// Where a tensor's slot lies, if it has one in this mode.
    pub fn span(&self, mode: Mode, t: usize, role: Role) -> Option<Span> {
        let span = self
            .plan
            .get(span_index(self.tensors.len(), mode, t, role)?)?;
        span.is_present().then_some(*span)
    }
}

/// The place of a span in the plan table: Infer has values only, the other modes value, gradient, saved.
pub fn span_index(tensor_count: usize, mode: Mode, t: usize, role: Role) -> Option<usize> {
    let role = match role {
        Role::Value => 0,
        Role::Gradient => 1,
        Role::Saved => 2,
    };
    match mode {
        Mode::Infer => (role == 0).then_some(t),
        Mode::Attack => Some(tensor_count + 3 * t + role),
        Mode::Train => Some(4 * tensor_count + 3 * t + role),
    }
}

fn usable_scale(s: f32) -> bool {
    s.is_finite() && s > 0.0
}

fn table<T: FromBytes + zerocopy::Immutable + zerocopy::KnownLayout + zerocopy::Unaligned>(
    bytes: &[u8],
    offset: u32,
    count: usize,
    part: Part,
) -> Result<&[T], ModelError> {
    bytes
        .get(offset as usize..)
        .and_then(|b| <[T]>::ref_from_prefix_with_elems(b, count).ok())
        .map(|(table, _)| table)
        .ok_or(ModelError::Range { part, tensor: 0 })
}

fn decode(r: &OpRecord) -> Option<Op> {
    let mut words = [0; crate::ops::WORDS];
    for (w, word) in words.iter_mut().zip(&r.words) {
        *w = word.get();
    }
    Op::decode(r.code, &words)
}

/// The part of an image that a planner needs before there is a plan: `total_len`, checksum and plan are not looked at.
impl Tables<'_> {
    /// Where the plan table starts, bytes from the image's start.
    pub fn plan_offset(&self) -> usize {
        self.header.plan.get() as usize
    }

    /// Re-exported for writers of images: see `span_index`.
    pub fn span_position(&self, mode: Mode, t: usize, role: Role) -> Option<usize> {
        let index = span_index(self.tensors.len(), mode, t, role)?;
        Some(self.plan_offset() + index * size_of::<format::Span>())
    }
}
