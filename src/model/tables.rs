//! The tables of an image: parsed and bounds-checked, before anything is said about their meaning.

use super::format::{
    self, ALIGN, Header, MAGIC, MAX_ACTIVATIONS, MAX_OPS, MAX_PASSES, MAX_TENSORS, NO_OP, OpRecord,
    PassRecord, PassSpan, Span, TensorRecord, TensorRole, VERSION,
};
use super::{ModelError, Part};
use crate::memory::{Mode, Pass, Role};
use crate::ops::{MAX_INPUTS, Needs, Numerics, Op};
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
    passes: &'a [PassRecord],
    pass_spans: &'a [PassSpan],
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
        let spans = tensor_count * plan_columns(header);
        let pass_count = header.pass_count.get() as usize;
        if pass_count > MAX_PASSES {
            let part = Part::Passes;
            return Err(ModelError::Count {
                part,
                got: pass_count,
            });
        }
        let passes: &[PassRecord] = table(bytes, header.passes.get(), pass_count, Part::Passes)?;
        let spans_at = header.passes.get() as usize + pass_count * size_of::<PassRecord>();
        let pass_spans = passes
            .last()
            .map_or(0, |pass| pass.spans_end.get() as usize);
        let tables = Tables {
            bytes,
            header,
            tensors: table(bytes, header.tensors.get(), tensor_count, Part::Tensors)?,
            ops: table(bytes, header.ops.get(), op_count, Part::Ops)?,
            plan: table(bytes, header.plan.get(), spans, Part::Plan)?,
            passes,
            pass_spans: table(bytes, spans_at as u32, pass_spans, Part::Passes)?,
        };
        tables.check_header()?;
        tables.check_passes()?;
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
        let ok = Numerics::from_code(h.numerics).is_some()
            && h.reserved == 0
            && (h.pass_count.get() > 0 || h.passes.get() == 0)
            && (h.pass_count.get() == 0 || h.attack_bytes.get() > 0)
            && low.is_finite()
            && high.is_finite()
            && low < high
            && h.infer_bytes.get() > 0
            && h.anomaly_above.get().is_finite()
            && h.anomaly_above.get() >= 0.0
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

    /// The passes cover all operators, one after the other, and their slots are in order, so that each can be found.
    fn check_passes(&self) -> Result<(), ModelError> {
        let bad = |tensor| ModelError::Range {
            part: Part::Passes,
            tensor,
        };
        let (mut start, mut spans) = (0, 0);
        for (i, pass) in self.passes.iter().enumerate() {
            let (end, spans_end) = (pass.end.get() as usize, pass.spans_end.get() as usize);
            if pass.start.get() as usize != start || end <= start || spans_end < spans {
                return Err(bad(0));
            }
            (start, spans) = (end, spans_end);
            let slots = self.slots_of_pass(i);
            if !slots.is_sorted_by(|a, b| pass_key(a) < pass_key(b)) {
                return Err(bad(0));
            }
            for slot in slots {
                let tensor = slot.tensor.get() as usize;
                let activation = self
                    .tensors
                    .get(tensor)
                    .is_some_and(|t| t.role == TensorRole::Activation as u8);
                let known = Role::ALL.get(slot.role as usize).is_some();
                if !activation || !known || slot.reserved != 0 {
                    return Err(bad(tensor));
                }
            }
        }
        match self.passes.is_empty() || start == self.ops.len() {
            true => Ok(()),
            false => Err(bad(0)),
        }
    }

    fn slots_of_pass(&self, pass: usize) -> &'a [PassSpan] {
        let end = |i: usize| self.passes.get(i).map_or(0, |p| p.spans_end.get() as usize);
        let start = pass.checked_sub(1).map_or(0, end);
        self.pass_spans.get(start..end(pass)).unwrap_or(&[])
    }

    /// Checks one tensor's record; true for an activation or a state.
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
            TensorRole::State => shape.rank() > 0,
        };
        if !type_ok {
            return Err(bad);
        }
        // only f32 is trained. What `Quantize` makes of it may be int8 on its way to `Dequantize` (fake quantization): any other
        // operator would make more int8 of it
        let in_buffer = activation || role == TensorRole::State;
        let trained = self.header.train_bytes.get() > 0;
        let rounded = || {
            let producer = self.ops.get(producer as usize);
            producer.is_some_and(|op| op.code == Op::Quantize.code())
        };
        if in_buffer && dtype != DType::F32 && trained && !rounded() {
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
            Some(Ok(_)) => Ok(in_buffer),
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

    /// An anomaly detector's threshold; see [`Header::anomaly_above`].
    pub fn anomaly_above(&self) -> Option<f32> {
        Some(self.header.anomaly_above.get()).filter(|&above| above > 0.0)
    }

    /// Whose int8 arithmetic the model has.
    pub fn numerics(&self) -> Numerics {
        Numerics::from_code(self.header.numerics).unwrap_or_default()
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
    #[inline]
    pub fn shape(&self, t: usize) -> Shape {
        // [`Tables::parse`] has checked it
        let r = &self.tensors[t];
        Shape::checked(r.dims.map(|d| d.get()), r.rank)
    }

    /// A tensor's element type.
    pub fn dtype(&self, t: usize) -> DType {
        DType::from_code(self.tensors[t].dtype).unwrap_or(DType::F32)
    }

    /// What a tensor is for.
    pub fn role(&self, t: usize) -> TensorRole {
        TensorRole::from_code(self.tensors[t].role).unwrap_or(TensorRole::Constant)
    }

    /// Whether an operator reads a tensor's elements from the image: constants and parameters, not states, of which
    /// the image holds the first values only.
    pub fn is_in_image(&self, t: usize) -> bool {
        !matches!(self.role(t), TensorRole::Activation | TensorRole::State)
    }

    /// A tensor's quantization.
    pub fn quant(&self, t: usize) -> Quant<'a> {
        let r = &self.tensors[t];
        let channel_scales = match r.scales_len.get() {
            0 => None,
            n => self.slice(r.scales.get(), n as usize * 4),
        };
        Quant {
            scale: r.scale.get(),
            zero_point: r.zero_point.get(),
            channel_scales: channel_scales
                .and_then(|b| <[f32]>::ref_from_bytes(b).ok())
                .unwrap_or(&[]),
        }
    }

    /// A constant's bytes, or a state's first value; empty for an activation.
    pub fn data(&self, t: usize) -> &'a [u8] {
        if self.role(t) == TensorRole::Activation {
            return &[];
        }
        let len = self.shape(t).len() * self.dtype(t).size();
        self.slice(self.tensors[t].data.get(), len).unwrap_or(&[])
    }

    /// A tensor as an operator sees it; the elements are there only if they are in the image.
    #[cfg_attr(target_arch = "x86_64", inline(always))]
    pub fn operand(&self, t: usize) -> Operand<'a> {
        let (dtype, shape) = (self.dtype(t), self.shape(t));
        let data = match self.is_in_image(t) {
            true => self.slice(self.tensors[t].data.get(), shape.len() * dtype.size()),
            false => None,
        };
        Operand {
            dtype,
            shape,
            quant: self.quant(t),
            data: data.map_or(Data::Absent, |bytes| typed(dtype, bytes)),
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

    /// Multiply-accumulates of operator `k`, for one sample.
    pub fn macs(&self, k: usize) -> u64 {
        let node = self.node(k);
        let mut shapes = [Shape::SCALAR; MAX_INPUTS];
        let mut count = 0;
        for (shape, t) in shapes.iter_mut().zip(node.inputs()) {
            *shape = self.shape(t);
            count += 1;
        }
        node.op.macs(&shapes[..count], &self.shape(node.output))
    }

    /// What an operator's backward needs in this mode.
    pub fn needs(&self, node: &Node, mode: Mode) -> Needs {
        let dtype = self.dtype(node.inputs().next().unwrap_or(0));
        let mut needs = node.op.needs(dtype, mode.trains());
        if let Op::Mul(_) = node.op
            && !mode.trains()
        {
            // a factor is needed for the gradient of the other one, and nobody asks for a constant's
            let constant = |i: usize| node.inputs().nth(i).is_some_and(|t| self.is_in_image(t));
            for i in (0..2).filter(|&i| constant(1 - i)) {
                needs.inputs &= !(1 << i);
            }
        }
        needs
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

    /// How many passes a run takes: 1, or more where the backward of Attack mode is cut.
    pub fn pass_count(&self, mode: Mode) -> usize {
        match mode {
            Mode::Attack => self.passes.len().max(1),
            Mode::Infer | Mode::Train => 1,
        }
    }

    /// The operators of one pass. The last pass runs first.
    pub fn pass(&self, mode: Mode, pass: usize) -> Pass {
        match self.passes.get(pass) {
            Some(record) if mode == Mode::Attack => Pass {
                start: record.start.get() as usize,
                end: record.end.get() as usize,
            },
            _ => Pass {
                start: 0,
                end: self.ops.len(),
            },
        }
    }

    /// Where a tensor's slot lies in a pass, if it has one in this mode.
    pub fn span(&self, mode: Mode, pass: usize, t: usize, role: Role) -> Option<Span> {
        if mode == Mode::Attack && !self.passes.is_empty() {
            let key = (self.storage_of(t) as u16, role as u8);
            let slots = self.slots_of_pass(pass);
            let found = slots.binary_search_by_key(&key, pass_key).ok()?;
            return slots
                .get(found)
                .map(|slot| slot.span)
                .filter(Span::is_present);
        }
        let index = span_index(self.tensors.len(), self.column(mode, role)?, t);
        self.plan.get(index).copied().filter(Span::is_present)
    }

    /// Every slot of an activation that a plan has in a pass, each once: tensor, role, place.
    pub(super) fn slots(
        &self,
        mode: Mode,
        pass: usize,
    ) -> impl Iterator<Item = (usize, Role, Span)> + '_ {
        let cut = mode == Mode::Attack && !self.passes.is_empty();
        let listed = if cut { self.slots_of_pass(pass) } else { &[] };
        let listed = listed.iter().filter_map(|slot| {
            let role = *Role::ALL.get(slot.role as usize)?;
            Some((slot.tensor.get() as usize, role, slot.span))
        });
        let tensors = if cut { 0 } else { self.tensors.len() };
        let dense = (0..tensors)
            .filter(|&t| !self.is_in_image(t) && !self.is_alias(t))
            .flat_map(move |t| {
                Role::ALL
                    .iter()
                    .filter_map(move |&role| Some((t, role, self.span(mode, pass, t, role)?)))
            });
        listed.chain(dense).filter(|(_, _, span)| span.is_present())
    }

    /// The column of the plan table: Infer has values only, the other modes value, gradient, saved.
    fn column(&self, mode: Mode, role: Role) -> Option<Column> {
        let attack = if self.passes.is_empty() { 3 } else { 0 };
        match mode {
            Mode::Infer => (role == Role::Value).then_some(Column {
                before: 0,
                of: 1,
                at: 0,
            }),
            Mode::Attack => (attack > 0).then_some(Column {
                before: 1,
                of: 3,
                at: role as usize,
            }),
            Mode::Train => Some(Column {
                before: 1 + attack,
                of: 3,
                at: role as usize,
            }),
        }
    }
}

/// A place in the plan table: column `at` of the `of` columns of a mode, behind `before` columns of other modes.
struct Column {
    before: usize,
    of: usize,
    at: usize,
}

fn span_index(tensor_count: usize, column: Column, t: usize) -> usize {
    tensor_count * column.before + column.of * t + column.at
}

/// Spans per tensor in the plan table.
fn plan_columns(header: &Header) -> usize {
    let attack = if header.pass_count.get() == 0 { 3 } else { 0 };
    let train = if header.train_bytes.get() > 0 { 3 } else { 0 };
    1 + attack + train
}

fn pass_key(slot: &PassSpan) -> (u16, u8) {
    (slot.tensor.get(), slot.role)
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

    /// For writers of images: where the span of a slot is stored, bytes from the image's start.
    pub fn span_position(&self, mode: Mode, t: usize, role: Role) -> Option<usize> {
        let index = span_index(self.tensors.len(), self.column(mode, role)?, t);
        Some(self.plan_offset() + index * size_of::<format::Span>())
    }
}
