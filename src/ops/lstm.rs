//! Long short-term memory over a whole sequence (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000):
//! `c = f c + i g`, `h = o tanh(c)`, gates from the input and the `h` of the step before.
//!
//! Gates stand in the order input, forget, cell, output in all weights and notes. The state is `h` and then `c` of the last
//! step, per sample. int8 is TFLite Micro's arithmetic: gates in 16 bits with 12 (before) and 15 (behind the
//! nonlinearity) of them after the point, the cell in 16 bits with a power of two as its scale.
//!
//! Backward runs through time from the last step to the first, over the whole sequence.

use super::{Context, Memory, Multiplier, OpError, Saved, activation, check};
use crate::kernels::fixed_point::requantize;
use crate::kernels::lut;
use crate::kernels::scalar::{self, LANES, dense, dot_f32, sum_lanes};
use crate::tensor::{DType, Data, DataMut, Operand, Shape, StateMut};
use zerocopy::FromBytes;

/// Gates: input, forget, cell, output.
const GATES: usize = 4;
/// Which of them is the cell gate: tanh, where the others are sigmoids.
const CELL: usize = 2;
/// Numbers per unit and step in the note: the gates, and the cell before the step.
const KEPT: usize = GATES + 1;
/// f32 numbers per unit and sample in front of them: gradients of the gates, of the cell, and the first `h`.
const ROOM: usize = GATES + 2;

/// Long short-term memory.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Lstm {
    /// The cell stays within plus and minus this; 0: it is free. Finite, not negative.
    pub clip: f32,
    /// int8: the cell's scale is 2 to this power, in -15..=0. f32: 0.
    pub cell_power: i32,
    /// int8: `clip` in the cell's steps, in 0..=32767. f32: 0.
    pub clip_steps: i32,
    /// int8: forget gate times cell to cell. f32: 0.
    pub forget: Multiplier,
    /// int8: input gate times cell gate to cell. f32: 0.
    pub input: Multiplier,
    /// int8: tanh of the cell times output gate to output. f32: 0.
    pub output: Multiplier,
}

/// Sizes of one sample.
#[derive(Clone, Copy)]
struct Sizes {
    steps: usize,
    inputs: usize,
    units: usize,
}

impl Sizes {
    fn of(inputs: &[Operand]) -> Option<Sizes> {
        let [x, state, ..] = inputs else { return None };
        Some(Sizes {
            steps: x.shape.dim(1),
            inputs: x.shape.dim(2),
            units: state.shape.dim(1) / 2,
        })
    }
}

/// The note: gates and the cell before, as 16 bits or f32.
pub(super) fn note(int8: bool) -> Saved {
    Saved::Steps {
        element: (KEPT * if int8 { 2 } else { 4 }) as u8,
        channel: (ROOM * 4) as u8,
    }
}

/// `[N, T, S]`.
pub(super) fn output_shape(inputs: &[Shape]) -> Result<Shape, OpError> {
    let (x, state) = (check::shape(inputs, 0)?, check::shape(inputs, 1)?);
    if x.rank() != 3 {
        return Err(OpError::Shape { operand: 0 });
    }
    if state.rank() != 2 || state.dim(0) != x.dim(0) || !state.dim(1).is_multiple_of(2) {
        return Err(OpError::Shape { operand: 1 });
    }
    check::output_shape(&[x.dim(0) as u32, x.dim(1) as u32, (state.dim(1) / 2) as u32])
}

impl Lstm {
    pub(super) fn check(&self, inputs: &[Operand], output: &Operand) -> Result<(), OpError> {
        let [x, state, w, recurrent, bias, factors @ ..] = inputs else {
            return check::count(inputs.len(), 5);
        };
        let dtype = check::activation_types(x, output)?;
        let int8 = dtype == DType::I8;
        check::count(inputs.len(), if int8 { 7 } else { 5 })?;
        let kept = if int8 { DType::I32 } else { DType::F32 };
        check::dtype(state, 1, kept)?;
        let (depth, units) = (x.shape.dim(2), state.shape.dim(1) / 2);
        for (t, i, columns) in [(w, 2, depth), (recurrent, 3, units)] {
            let rows = GATES.saturating_mul(units);
            check::constant(t, i, dtype, rows.saturating_mul(columns))?;
            if t.shape.dims() != [rows as u32, columns as u32] {
                return Err(OpError::Shape { operand: i });
            }
            let scales = if int8 { GATES } else { 0 };
            if t.quant.zero_point != 0 || t.quant.channel_scales.len() != scales {
                return Err(OpError::Quantization { operand: i });
            }
        }
        check::constant(bias, 4, kept, GATES * units)?;
        if !self.clip.is_finite() || self.clip < 0.0 {
            return Err(OpError::Attribute);
        }
        if let [mantissas, shifts] = factors {
            check::constant(mantissas, 5, DType::I32, 2 * GATES)?;
            check::constant(shifts, 6, DType::I32, 2 * GATES)?;
            let mut pairs = mantissas.i32().iter().zip(shifts.i32());
            if !pairs.all(|(&mantissa, &shift)| Multiplier { mantissa, shift }.is_valid()) {
                return Err(OpError::Quantization { operand: 5 });
            }
            let own = [self.forget, self.input, self.output];
            let in_range = own.iter().all(|f| f.is_valid())
                && lut::POWERS.contains(&self.cell_power)
                && (0..=i32::from(i16::MAX)).contains(&self.clip_steps);
            if !in_range {
                return Err(OpError::Attribute);
            }
        }
        Ok(())
    }

    pub(super) fn advance(
        &self,
        cx: &Context,
        inputs: &[Operand],
        output: &Operand,
        y: DataMut,
        memory: Memory,
    ) {
        let (Some(s), [x, _, ..]) = (Sizes::of(inputs), inputs) else {
            return;
        };
        let samples = x.shape.dim(0);
        let room = 4 * ROOM * s.units * samples;
        let (first, note) = memory.saved.split_at_mut(room.min(memory.saved.len()));
        let first = <[f32]>::mut_from_bytes(first).unwrap_or_default();
        let mut first = first.chunks_exact_mut(ROOM * s.units);
        let rows = s.steps * s.units;
        match (y, memory.state) {
            (DataMut::F32(y), StateMut::F32(state)) => {
                let note = <[f32]>::mut_from_bytes(note).unwrap_or_default();
                let mut note = note.chunks_exact_mut(KEPT * rows);
                let samples = x.f32().chunks_exact(s.steps * s.inputs);
                let kept = state.chunks_exact_mut(2 * s.units);
                for ((x, y), state) in samples.zip(y.chunks_exact_mut(rows)).zip(kept) {
                    if let Some(room) = first.next() {
                        room[(ROOM - 1) * s.units..].copy_from_slice(&state[..s.units]);
                    }
                    self.sequence_f32(s, inputs, x, state, y, note.next().unwrap_or_default());
                }
            }
            (DataMut::I8(y), StateMut::I32(state)) => {
                let note = <[i16]>::mut_from_bytes(note).unwrap_or_default();
                let mut note = note.chunks_exact_mut(KEPT * rows);
                let layer = LayerI8 {
                    lstm: self,
                    cx,
                    inputs,
                    output,
                    s,
                };
                let samples = x.i8().chunks_exact(s.steps * s.inputs);
                let kept = state.chunks_exact_mut(2 * s.units);
                for ((x, y), state) in samples.zip(y.chunks_exact_mut(rows)).zip(kept) {
                    layer.sequence(x, state, y, note.next().unwrap_or_default());
                }
            }
            _ => {}
        }
    }

    fn sequence_f32(
        &self,
        s: Sizes,
        inputs: &[Operand],
        x: &[f32],
        state: &mut [f32],
        y: &mut [f32],
        note: &mut [f32],
    ) {
        let [_, _, w, recurrent, bias, ..] = inputs else {
            return;
        };
        let (w, r, bias) = (w.f32(), recurrent.f32(), bias.f32());
        let (hidden, cell) = state.split_at_mut(s.units);
        let mut note = note.chunks_exact_mut(KEPT * s.units);
        for (t, x) in x.chunks_exact(s.inputs).enumerate() {
            let (past, now) = y.split_at_mut(t * s.units);
            let h = match t {
                0 => &*hidden,
                _ => &past[(t - 1) * s.units..],
            };
            let note = note.next().unwrap_or_default();
            for (j, (y, c)) in now.iter_mut().zip(cell.iter_mut()).enumerate() {
                let gates: [f32; GATES] = core::array::from_fn(|gate| {
                    let row = gate * s.units + j;
                    let z = dot(x, &w[row * s.inputs..][..s.inputs])
                        + bias[row]
                        + dot(h, &r[row * s.units..][..s.units]);
                    match gate {
                        CELL => crate::math::tanh(z),
                        _ => 1.0 / (1.0 + crate::math::exp(-z)),
                    }
                });
                let [i, f, g, o] = gates;
                keep(note, s.units, j, [i, f, g, o, *c]);
                *c = self.clipped(f * *c + i * g).0;
                *y = crate::math::tanh(*c) * o;
            }
        }
        if let Some(last) = y.chunks_exact(s.units).last() {
            hidden.copy_from_slice(last);
        }
    }

    /// A cell within its bounds, and whether the gradient passes.
    fn clipped(&self, c: f32) -> (f32, bool) {
        if self.clip > 0.0 && c > self.clip {
            (self.clip, false)
        } else if self.clip > 0.0 && c < -self.clip {
            (-self.clip, false)
        } else {
            (c, true)
        }
    }

    /// See [`super::Op::unrolled_gradient`].
    pub(super) fn input_gradient(
        &self,
        inputs: &[Operand],
        output: &Operand,
        saved: &mut [u8],
        gy: &mut [f32],
        gx: &mut [f32],
    ) {
        let (Some(s), [x, _, w, recurrent, ..]) = (Sizes::of(inputs), inputs) else {
            return;
        };
        let (room, note) =
            saved.split_at_mut((4 * ROOM * s.units * x.shape.dim(0)).min(saved.len()));
        let Ok(room) = <[f32]>::mut_from_bytes(room) else {
            return;
        };
        let weights = Weights { w, recurrent, s };
        let rows = s.steps * s.units;
        let samples = gx
            .chunks_exact_mut(s.steps * s.inputs)
            .zip(gy.chunks_exact_mut(rows))
            .zip(room.chunks_exact_mut(ROOM * s.units));
        if output.dtype == DType::I8 {
            let Ok(note) = <[i16]>::mut_from_bytes(note) else {
                return;
            };
            for (((gx, gy), room), note) in samples.zip(note.chunks_exact_mut(KEPT * rows)) {
                self.unroll(&weights, output, Note::I16(note), (room, gy, gx));
            }
        } else if let Ok(note) = <[f32]>::mut_from_bytes(note) {
            for (((gx, gy), room), note) in samples.zip(note.chunks_exact_mut(KEPT * rows)) {
                self.unroll(&weights, output, Note::F32(note), (room, gy, gx));
            }
        }
    }

    /// One sample: `room`, the output's gradient, the input's.
    fn unroll(
        &self,
        weights: &Weights,
        output: &Operand,
        mut note: Note,
        (room, gy, gx): (&mut [f32], &mut [f32], &mut [f32]),
    ) {
        let s = weights.s;
        let (gates, rest) = room.split_at_mut(GATES * s.units);
        let (cell, _) = rest.split_at_mut(s.units);
        cell.fill(0.0);
        for (t, gx) in gx.chunks_exact_mut(s.inputs).enumerate().rev() {
            let (past, now) = gy.split_at_mut(t * s.units);
            for (j, (gh, gc)) in now.iter().zip(cell.iter_mut()).enumerate() {
                let [i, f, g, o, before] = note.read(s.units, t, j, self.cell_power);
                let (c, free) = self.clipped(f * before + i * g);
                let tanh = crate::math::tanh(c);
                let gh = if saturated(tanh * o, output) {
                    0.0
                } else {
                    *gh
                };
                *gc += gh * o * (1.0 - tanh * tanh);
                if !free {
                    *gc = 0.0;
                }
                let all = [
                    *gc * g * i * (1.0 - i),
                    *gc * before * f * (1.0 - f),
                    *gc * i * (1.0 - g * g),
                    gh * tanh * o * (1.0 - o),
                ];
                for (gate, g) in all.into_iter().enumerate() {
                    gates[gate * s.units + j] = g;
                }
                *gc *= f;
            }
            note.replace_gates(s.units, t, gates);
            weights.back(weights.w, s.inputs, gates, gx);
            if let Some(from) = t.checked_sub(1) {
                weights.back(
                    weights.recurrent,
                    s.units,
                    gates,
                    &mut past[from * s.units..],
                );
            }
        }
    }
}

/// Whether an int8 output lies on a rail, where no gradient passes.
fn saturated(h: f32, output: &Operand) -> bool {
    if output.dtype != DType::I8 {
        return false;
    }
    let steps = h / output.quant.scale + output.quant.zero_point as f32;
    !(steps > -127.5 && steps < 126.5)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    dot_f32(&mut lanes, a, b);
    sum_lanes(&lanes)
}

/// Writes what backward needs of unit `j` of one step; nothing where there is no room for it.
fn keep<T: Copy>(note: &mut [T], units: usize, j: usize, values: [T; KEPT]) {
    for (k, value) in values.into_iter().enumerate() {
        if let Some(place) = note.get_mut(k * units + j) {
            *place = value;
        }
    }
}

/// What forward kept of one sample.
enum Note<'a> {
    F32(&'a mut [f32]),
    I16(&'a mut [i16]),
}

impl Note<'_> {
    /// Gates and the cell before step `t`, as real numbers.
    fn read(&self, units: usize, t: usize, j: usize, cell_power: i32) -> [f32; KEPT] {
        let at = |k: usize| (t * KEPT + k) * units + j;
        match self {
            Note::F32(note) => core::array::from_fn(|k| note[at(k)]),
            Note::I16(note) => core::array::from_fn(|k| {
                let power = if k < GATES { -15 } else { cell_power };
                f32::from(note[at(k)]) / (1u32 << (-power).clamp(0, 31)) as f32
            }),
        }
    }

    /// The gates' gradients in the place of the gates, for the parameters' gradients.
    fn replace_gates(&mut self, units: usize, t: usize, gates: &[f32]) {
        if let Note::F32(note) = self {
            note[t * KEPT * units..][..gates.len()].copy_from_slice(gates);
        }
    }
}

/// Weights for backward.
struct Weights<'a> {
    w: &'a Operand<'a>,
    recurrent: &'a Operand<'a>,
    s: Sizes,
}

impl Weights<'_> {
    /// `gx += w^T gates`.
    fn back(&self, w: &Operand, depth: usize, gates: &[f32], gx: &mut [f32]) {
        let gx = &mut gx[..depth];
        match w.data {
            Data::F32(w) => dense::input_gradient_f32(depth, w, gates, gx),
            Data::I8(rows) => {
                let scale = |row: usize| w.quant.scale_of(row / self.s.units);
                dense::input_gradient_i8(depth, rows, scale, gates, gx);
            }
            _ => {}
        }
    }
}

/// Gradients of the weights (2), the recurrent weights (3) and the bias (4), after `unroll` left the gates' gradients.
pub(super) fn parameter_gradient(
    which: usize,
    inputs: &[Operand],
    output: &Operand,
    saved: &[u8],
    gw: &mut [f32],
) {
    let (Some(s), [x, ..]) = (Sizes::of(inputs), inputs) else {
        return;
    };
    let (room, note) = saved.split_at((4 * ROOM * s.units * x.shape.dim(0)).min(saved.len()));
    let (Ok(room), Ok(note)) = (<[f32]>::ref_from_bytes(room), <[f32]>::ref_from_bytes(note))
    else {
        return;
    };
    let rows = s.steps * s.units;
    let samples = x.f32().chunks_exact(s.steps * s.inputs);
    let samples = samples
        .zip(output.f32().chunks_exact(rows))
        .zip(room.chunks_exact(ROOM * s.units))
        .zip(note.chunks_exact(KEPT * rows));
    for (((x, y), room), note) in samples {
        let steps = x
            .chunks_exact(s.inputs)
            .zip(note.chunks_exact(KEPT * s.units));
        for (t, (x, note)) in steps.enumerate() {
            let gates = &note[..GATES * s.units];
            let h = match t {
                0 => &room[(ROOM - 1) * s.units..],
                _ => &y[(t - 1) * s.units..][..s.units],
            };
            match which {
                2 => dense::weight_gradient_f32(s.inputs, x, gates, gw),
                3 => dense::weight_gradient_f32(s.units, h, gates, gw),
                _ => activation::accumulate(gw, gates),
            }
        }
    }
}

/// An int8 layer at work.
struct LayerI8<'a> {
    lstm: &'a Lstm,
    cx: &'a Context<'a>,
    inputs: &'a [Operand<'a>],
    output: &'a Operand<'a>,
    s: Sizes,
}

/// 16 bits, saturating.
fn narrow(x: i32) -> i32 {
    x.clamp(i16::MIN.into(), i16::MAX.into())
}

impl LayerI8<'_> {
    fn sequence(&self, x: &[i8], state: &mut [i32], y: &mut [i8], note: &mut [i16]) {
        let s = self.s;
        let (hidden, cell) = state.split_at_mut(s.units);
        let mut note = note.chunks_exact_mut(KEPT * s.units);
        for (t, x) in x.chunks_exact(s.inputs).enumerate() {
            let (past, now) = y.split_at_mut(t * s.units);
            let h = match t {
                0 => Hidden::State(hidden),
                _ => Hidden::Row(&past[(t - 1) * s.units..]),
            };
            let note = note.next().unwrap_or_default();
            for (j, (y, c)) in now.iter_mut().zip(cell.iter_mut()).enumerate() {
                let gates = self.gates(x, &h, j);
                let before = narrow(*c);
                let [i, f, g, o] = gates;
                keep(note, s.units, j, [i, f, g, o, before as i16]);
                (*y, *c) = self.unit(gates, before);
            }
        }
        if let Some(last) = y.chunks_exact(s.units).last() {
            for (h, &q) in hidden.iter_mut().zip(last) {
                *h = q.into();
            }
        }
    }

    /// The four gates of unit `j`, with 15 bits behind the point.
    fn gates(&self, x: &[i8], h: &Hidden, j: usize) -> [i16; GATES] {
        let [input, _, w, recurrent, bias, mantissas, shifts] = self.inputs else {
            return [0; GATES];
        };
        let s = self.s;
        let mut from_x = [0; GATES];
        let rows = &w.i8()[j * s.inputs..];
        let stride = s.units * s.inputs;
        scalar::dots_i8(x, input.quant.zero_point as i16, rows, stride, &mut from_x);
        let mut from_h = [0; GATES];
        let rows = &recurrent.i8()[j * s.units..];
        let stride = s.units * s.units;
        h.dots(self.output.quant.zero_point, rows, stride, &mut from_h);
        let scaled = |sum: i32, k: usize| {
            let factor = Multiplier {
                mantissa: mantissas.i32()[k],
                shift: shifts.i32()[k],
            };
            narrow(requantize(sum, factor, self.cx.rounding()))
        };
        core::array::from_fn(|gate| {
            let sum = from_x[gate].wrapping_add(bias.i32()[gate * s.units + j]);
            let z = narrow(scaled(sum, gate) + scaled(from_h[gate], GATES + gate)) as i16;
            match gate {
                CELL => lut::tanh(z, -12),
                _ => lut::sigmoid(z),
            }
        })
    }

    /// Output and cell behind the gates.
    fn unit(&self, [i, f, g, o]: [i16; GATES], before: i32) -> (i8, i32) {
        let lstm = self.lstm;
        let product = |a: i32, b: i32, factor| requantize(a * b, factor, self.cx.rounding());
        let kept = narrow(product(f.into(), before, lstm.forget));
        let new = narrow(product(i.into(), g.into(), lstm.input));
        let mut c = narrow(kept + new);
        if lstm.clip_steps > 0 {
            c = c.clamp(-lstm.clip_steps, lstm.clip_steps);
        }
        let tanh = lut::tanh(c as i16, lstm.cell_power);
        let h = product(tanh.into(), o.into(), lstm.output)
            .saturating_add(self.output.quant.zero_point);
        (h.clamp(-128, 127) as i8, c)
    }
}

/// The output of the step before.
enum Hidden<'a> {
    /// Of an earlier run.
    State(&'a [i32]),
    /// Of this one.
    Row(&'a [i8]),
}

impl Hidden<'_> {
    fn dots(&self, zero_point: i32, w: &[i8], stride: usize, sums: &mut [i32; GATES]) {
        match self {
            Hidden::Row(h) => scalar::dots_i8(h, zero_point as i16, w, stride, sums),
            Hidden::State(h) => {
                for (gate, sum) in sums.iter_mut().enumerate() {
                    for (&h, &w) in h.iter().zip(&w[gate * stride..]) {
                        // an image may hold anything
                        let h = h.clamp(-128, 127) - zero_point;
                        *sum = sum.wrapping_add(h * i32::from(w));
                    }
                }
            }
        }
    }
}
