//! Recurrent layers: UNIDIRECTIONAL_SEQUENCE_LSTM and SVDF. What they keep from one run to the next is a tensor of role
//! `State`.

use super::file::{Info, Kind, Step};
use super::schema::{LstmOptions, SvdfOptions};
use super::{Importer, Reason, fused, per_tensor, shape};
use crate::graph::{Quant, Tensor, TensorData, TensorId};
use crate::quantize::multiplier;
use foolproof::model::format::TensorRole;
use foolproof::ops::{Activation, Lstm, Multiplier, Numerics, Op, Svdf};
use foolproof::tensor::{DType, Shape};

const TOO_FAR: &str = "the scales of its operands are too far apart for 32-bit fixed point";
/// The scale of a gate before its nonlinearity, and behind it.
const BEFORE: f32 = 1.0 / 4096.0;
const BEHIND: f32 = 1.0 / 32768.0;
/// Operands of the LSTM, by number: weights, recurrent weights and biases of the four gates in order (input, forget, cell,
/// output), the states, and what only variants have.
const WEIGHTS: [usize; 4] = [1, 2, 3, 4];
const RECURRENT: [usize; 4] = [5, 6, 7, 8];
const BIASES: [usize; 4] = [12, 13, 14, 15];
const HIDDEN: usize = 18;
const CELL: usize = 19;
const VARIANTS: [(usize, &str); 9] = [
    (9, "peephole weights"),
    (10, "peephole weights"),
    (11, "peephole weights"),
    (16, "a projection"),
    (17, "a projection"),
    (20, "layer normalization"),
    (21, "layer normalization"),
    (22, "layer normalization"),
    (23, "layer normalization"),
];

impl<'a> Importer<'a> {
    pub(super) fn lstm(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        self.no_uint8(step)?;
        let options = step.table.options::<LstmOptions<'a>>();
        let options = options.ok_or("it has no options")?;
        for (i, what) in VARIANTS {
            if step.inputs.get(i).copied().flatten().is_some() {
                return Err(format!("it has {what}"));
            }
        }
        // the schema's TANH
        if options.activation() != Some(4) {
            return Err("its activation is not TANH".into());
        }
        if options.diagonal() == Some(true) || options.projection_clip().unwrap_or(0.0) != 0.0 {
            return Err("it has diagonal weights or a clipped projection".into());
        }
        let x = self.operand(step, 0)?;
        let own = self.graph.tensors[x].shape;
        let [samples, steps] = match options.time_major().unwrap_or(false) {
            true => [own.dim(1), own.dim(0)],
            false => [own.dim(0), own.dim(1)],
        };
        if own.rank() != 3 || samples != 1 {
            return Err("its input is not one sequence [1, steps, inputs]".into());
        }
        let depth = own.dim(2);
        let (hidden, cell) = (self.variable(step, HIDDEN)?, self.variable(step, CELL)?);
        let units = shape(hidden)?.len();
        if shape(cell)?.len() != units {
            return Err("its two states have different sizes".into());
        }
        let x = self.reshaped(x, &[1, steps as u32, depth as u32])?;
        let clip = options.cell_clip().unwrap_or(0.0);
        let (op, operands) = match self.dtype(x) {
            DType::I8 => self.lstm_i8(step, t, x, (hidden, cell), clip)?,
            _ => self.lstm_f32(step, (hidden, cell), clip)?,
        };
        let mut inputs = vec![x];
        inputs.extend(operands);
        self.emit_reshaped(Op::Lstm(op), inputs, t)
    }

    fn lstm_f32(
        &mut self,
        step: &Step<'a>,
        (hidden, cell): (&Info<'a>, &Info<'a>),
        clip: f32,
    ) -> Result<(Lstm, Vec<TensorId>), Reason> {
        if (hidden.kind, cell.kind) != (Kind::F32, Kind::F32) {
            return Err(states_of("float32", hidden, cell));
        }
        let units = shape(hidden)?.len();
        let state = TensorData::F32(vec![0.0; 2 * units]);
        let mut operands = vec![self.state(&cell.name, &[1, 2 * units as u32], state)?];
        for numbers in [WEIGHTS, RECURRENT, BIASES] {
            let mut all = Vec::new();
            for i in numbers {
                let id = self.operand(step, i)?;
                match &self.graph.tensors[id].data {
                    TensorData::F32(v) => all.extend_from_slice(v),
                    _ => return Err(format!("its input {i} is not a constant float32")),
                }
            }
            operands.push(self.rows(step, numbers, Quant::default(), TensorData::F32(all))?);
        }
        let zero = Multiplier::default();
        let lstm = Lstm {
            clip,
            cell_power: 0,
            clip_steps: 0,
            forget: zero,
            input: zero,
            output: zero,
        };
        Ok((lstm, operands))
    }

    fn lstm_i8(
        &mut self,
        step: &Step<'a>,
        t: usize,
        x: TensorId,
        (hidden, cell): (&Info<'a>, &Info<'a>),
        clip: f32,
    ) -> Result<(Lstm, Vec<TensorId>), Reason> {
        if (hidden.kind, cell.kind) != (Kind::I8, Kind::I16) {
            return Err(states_of("int8 and int16", hidden, cell));
        }
        let (h, y) = (per_tensor(hidden)?, per_tensor(self.info(t))?);
        if h != y {
            return Err("its output has another grid than its hidden state".into());
        }
        let cell_scale = match cell.scales[..] {
            [scale] if scale > 0.0 && scale.is_finite() => scale,
            _ => return Err(format!("its cell state `{}` has no scale", cell.name)),
        };
        let power = f64::from(cell_scale).log2().round();
        if power.exp2() != f64::from(cell_scale) || !(-15.0..=0.0).contains(&power) {
            return Err(format!(
                "the scale of its cell state is {cell_scale}, not a power of two from 2^-15 to 1"
            ));
        }
        self.only_tflm()?;
        let units = shape(hidden)?.len();
        // after a reset the hidden state is 0 in real units
        let mut first = vec![h.zero_point; units];
        first.resize(2 * units, 0);
        let first = TensorData::I32(first);
        let mut operands = vec![self.state(&cell.name, &[1, 2 * units as u32], first)?];
        let x_scale = self.scale(x);
        let mut factors = Vec::new();
        for (numbers, from) in [(WEIGHTS, x_scale), (RECURRENT, h.scale)] {
            let (mut all, mut scales) = (Vec::new(), Vec::new());
            for i in numbers {
                let info = self.info(self.input(step, i)?);
                let (Kind::I8, Some(bytes), None) = (info.kind, info.data, info.trouble) else {
                    return Err(format!("its input {i} is not a constant int8"));
                };
                let quant = per_tensor(info)?;
                if quant.zero_point != 0 {
                    return Err(format!(
                        "weights `{}` have a zero point that is not 0",
                        info.name
                    ));
                }
                let factor = multiplier::dense_per_tensor(from, quant.scale, BEFORE);
                factors.push(factor.ok_or(TOO_FAR)?);
                scales.push(quant.scale);
                self.spend(bytes.len())?;
                all.extend(bytes.iter().map(|&b| b as i8));
            }
            let quant = Quant {
                channel_scales: scales,
                ..Quant::default()
            };
            operands.push(self.rows(step, numbers, quant, TensorData::I8(all))?);
        }
        let mut bias = Vec::new();
        for i in BIASES {
            let info = step.inputs.get(i).copied().flatten();
            let info = info.map(|b| self.info(b));
            bias.extend(self.bias(info, units)?.1);
        }
        operands.push(self.rows(step, BIASES, Quant::default(), TensorData::I32(bias))?);
        let (mantissas, shifts) = factors.iter().map(|f| (f.mantissa, f.shift)).unzip();
        for (what, values) in [("multiplier", mantissas), ("shift", shifts)] {
            let name = format!("{}.{what}", cell.name);
            let data = TensorData::I32(values);
            operands.push(self.vector(name, Quant::default(), factors.len(), data)?);
        }
        let product =
            |a: f32, b: f32, y: f32| multiplier::mul(Numerics::Tflm, a, b, y).ok_or(TOO_FAR);
        let clip_steps = (f64::from(clip) / f64::from(cell_scale)).clamp(-32768.0, 32767.0) as i32;
        let lstm = Lstm {
            clip,
            cell_power: power as i32,
            clip_steps: clip_steps.max(0),
            forget: product(BEHIND, cell_scale, cell_scale)?,
            input: product(BEHIND, BEHIND, cell_scale)?,
            output: product(BEHIND, BEHIND, h.scale)?,
        };
        Ok((lstm, operands))
    }

    /// Other runtimes have recurrent layers of their own, with other roundings.
    fn only_tflm(&self) -> Result<(), Reason> {
        match self.graph.numerics {
            Numerics::Tflm | Numerics::TflmSingle => Ok(()),
            other => Err(format!(
                "its int8 arithmetic in {} is not supported; tflm is",
                other.name()
            )),
        }
    }

    /// Four operands of the file, one below the other, as one constant.
    fn rows(
        &mut self,
        step: &Step<'a>,
        numbers: [usize; 4],
        quant: Quant,
        data: TensorData,
    ) -> Result<TensorId, Reason> {
        let first = self.info(self.input(step, numbers[0])?);
        let mut dims = shape(first)?.dims().to_vec();
        for i in numbers {
            let info = self.info(self.input(step, i)?);
            if shape(info)?.dims() != dims {
                return Err("its gates have different shapes".into());
            }
        }
        if let Some(rows) = dims.first_mut() {
            *rows = rows.saturating_mul(4);
        }
        let shape = Shape::new(&dims).ok_or("a shape that no tensor can have")?;
        self.constant(first.name.clone(), shape, quant, data)
    }

    /// A variable operand.
    fn variable(&self, step: &Step<'a>, i: usize) -> Result<&'a Info<'a>, Reason> {
        let info = self.info(self.input(step, i)?);
        match info.is_variable {
            true => Ok(info),
            false => Err(format!("its state `{}` is not a variable", info.name)),
        }
    }

    /// A tensor that lives from one run to the next, with its first value.
    pub(super) fn state(
        &mut self,
        name: &str,
        dims: &[u32],
        data: TensorData,
    ) -> Result<TensorId, Reason> {
        let shape = Shape::new(dims).ok_or("a state without elements")?;
        self.spend(shape.len() * data.dtype().size())?;
        Ok(self.graph.add(Tensor {
            name: name.to_string(),
            shape,
            role: TensorRole::State,
            quant: Quant::default(),
            data,
        }))
    }

    pub(super) fn svdf(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        self.no_uint8(step)?;
        let options = step.table.options::<SvdfOptions<'a>>();
        let options = options.ok_or("it has no options")?;
        let rank = options.rank().unwrap_or(0);
        let rank = u16::try_from(rank).map_err(|_| format!("its rank is {rank}"))?;
        let activation = fused(options.activation())?;
        let x = self.operand(step, 0)?;
        let state = self.variable(step, 4)?;
        let (w, time) = (
            self.info(self.input(step, 1)?),
            self.info(self.input(step, 2)?),
        );
        let (w_shape, time_shape) = (shape(w)?, shape(time)?);
        let filters = w_shape.dim(0);
        if w_shape.rank() != 2 || time_shape.rank() != 2 || rank == 0 {
            return Err("its weights are not matrices, or its rank is 0".into());
        }
        let memory = filters.saturating_mul(time_shape.dim(1));
        if shape(state)?.len() != memory {
            return Err("its state has another size than its weights say".into());
        }
        let units = filters / usize::from(rank);
        if units == 0 {
            return Err("it has fewer filters than its rank".into());
        }
        let flat = [1, memory as u32];
        let zero = Multiplier::default();
        let mut svdf = Svdf {
            rank,
            activation,
            narrow: false,
            state_zero_point: 0,
            feature: zero,
            output: zero,
        };
        let bias = step.inputs.get(3).copied().flatten();
        let inputs = match self.dtype(x) {
            DType::F32 => {
                if state.kind != Kind::F32 {
                    return Err(format!("its state is {}, not float32", state.kind.name()));
                }
                let first = TensorData::F32(vec![0.0; memory]);
                let bias = match bias {
                    Some(b) => self.tensor(b)?,
                    None => {
                        let data = TensorData::F32(vec![0.0; units]);
                        self.vector("no bias".into(), Quant::default(), units, data)?
                    }
                };
                vec![
                    x,
                    self.state(&state.name, &flat, first)?,
                    self.operand(step, 1)?,
                    self.operand(step, 2)?,
                    bias,
                ]
            }
            _ => {
                self.only_tflm()?;
                // TFLite Micro does not look at it: the output's range clamps
                svdf.activation = Activation::None;
                svdf.narrow = match (state.kind, time.kind) {
                    (Kind::I8, Kind::I8) => true,
                    (Kind::I16, Kind::I16) => false,
                    (a, b) => {
                        return Err(format!(
                            "its state is {} and its time weights {}; both int16 or both int8 are supported",
                            a.name(),
                            b.name()
                        ));
                    }
                };
                let ([kept], [zero]) = (&state.scales[..], &state.zero_points[..]) else {
                    return Err(format!("its state `{}` has not one scale", state.name));
                };
                svdf.state_zero_point =
                    i32::try_from(*zero).map_err(|_| "its state's zero point")?;
                let time_scale = match time.scales[..] {
                    [scale] => scale,
                    _ => return Err(format!("weights `{}` have not one scale", time.name)),
                };
                let w_id = self.operand(step, 1)?;
                let (x_scale, w_scale) = (self.scale(x), self.scale(w_id));
                let y_scale = per_tensor(self.info(t))?.scale;
                // products and quotients in single precision, as TFLite Micro takes them
                let factor =
                    |real: f32| multiplier::quantize_multiplier(f64::from(real)).ok_or(TOO_FAR);
                svdf.feature = factor(x_scale * w_scale / kept)?;
                svdf.output = factor(kept * time_scale / y_scale)?;
                let first = match svdf.narrow {
                    true => svdf.state_zero_point,
                    false => 0,
                };
                let bias = bias.map(|b| self.info(b));
                let (name, bias) = self.bias(bias, units)?;
                vec![
                    x,
                    self.state(&state.name, &flat, TensorData::I32(vec![first; memory]))?,
                    w_id,
                    self.time_weights(time, time_scale)?,
                    self.vector(name, Quant::default(), units, TensorData::I32(bias))?,
                ]
            }
        };
        self.emit(Op::Svdf(svdf), inputs, t)
    }

    /// int16 or int8 weights as int32.
    fn time_weights(&mut self, info: &'a Info<'a>, scale: f32) -> Result<TensorId, Reason> {
        let (Some(bytes), None) = (info.data, info.trouble) else {
            return Err(format!("weights `{}` are not a constant", info.name));
        };
        if info.zero_points.iter().any(|&z| z != 0) || !(scale.is_finite() && scale > 0.0) {
            return Err(format!(
                "weights `{}` are on a grid that is not supported",
                info.name
            ));
        }
        let values: Vec<i32> = match info.kind {
            Kind::I8 => bytes.iter().map(|&b| i32::from(b as i8)).collect(),
            _ => {
                let pairs = bytes.chunks_exact(2).filter_map(|b| b.try_into().ok());
                pairs.map(|b| i32::from(i16::from_le_bytes(b))).collect()
            }
        };
        self.spend(4 * values.len())?;
        let quant = Quant {
            scale,
            ..Quant::default()
        };
        self.constant(
            info.name.clone(),
            shape(info)?,
            quant,
            TensorData::I32(values),
        )
    }
}

fn states_of(wanted: &str, hidden: &Info<'_>, cell: &Info<'_>) -> Reason {
    format!(
        "its hidden and cell states are {} and {}; {wanted} are supported",
        hidden.kind.name(),
        cell.kind.name()
    )
}
