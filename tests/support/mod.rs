//! What the operator tests share: random numbers, owned tensors, and the references.
#![allow(dead_code)] // each test binary uses its own part

pub mod allocation;
pub mod oracle;
pub mod reference;
pub mod reference_i8;

use foolproof::ops::{Context, Memory, Op};
use foolproof::tensor::{DType, Data, DataMut, Operand, Quant, Shape, StateMut};

/// SplitMix64: small, and the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In 0..n.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// In low..=high.
    pub fn int(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }

    /// Uniform in [low, high).
    pub fn float(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * ((self.next() >> 40) as f32 / (1u64 << 24) as f32)
    }

    pub fn floats(&mut self, n: usize, low: f32, high: f32) -> Vec<f32> {
        (0..n).map(|_| self.float(low, high)).collect()
    }

    pub fn int8s(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| self.next() as i8).collect()
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Elements that a test owns.
#[derive(Clone, Debug)]
pub enum Values {
    F32(Vec<f32>),
    I8(Vec<i8>),
    I32(Vec<i32>),
}

/// A tensor that a test owns.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub shape: Shape,
    pub values: Values,
    pub scale: f32,
    pub zero_point: i32,
    pub channel_scales: Vec<f32>,
    /// A constant of the model, else an activation.
    pub constant: bool,
}

pub fn shape(dims: &[u32]) -> Shape {
    Shape::new(dims).expect("a valid shape")
}

impl Tensor {
    pub fn new(dims: &[u32], values: Values) -> Tensor {
        let tensor = Tensor {
            shape: shape(dims),
            values,
            scale: 1.0,
            zero_point: 0,
            channel_scales: Vec::new(),
            constant: false,
        };
        assert_eq!(tensor.len(), tensor.shape.len());
        tensor
    }

    pub fn constant(mut self) -> Tensor {
        self.constant = true;
        self
    }

    pub fn quantized(mut self, scale: f32, zero_point: i32) -> Tensor {
        (self.scale, self.zero_point) = (scale, zero_point);
        self
    }

    pub fn len(&self) -> usize {
        match &self.values {
            Values::F32(v) => v.len(),
            Values::I8(v) => v.len(),
            Values::I32(v) => v.len(),
        }
    }

    pub fn dtype(&self) -> DType {
        match self.values {
            Values::F32(_) => DType::F32,
            Values::I8(_) => DType::I8,
            Values::I32(_) => DType::I32,
        }
    }

    pub fn quant(&self) -> Quant<'_> {
        Quant {
            scale: self.scale,
            zero_point: self.zero_point,
            channel_scales: &self.channel_scales,
        }
    }

    pub fn operand(&self) -> Operand<'_> {
        Operand {
            dtype: self.dtype(),
            shape: self.shape,
            quant: self.quant(),
            data: match &self.values {
                Values::F32(v) => Data::F32(v),
                Values::I8(v) => Data::I8(v),
                Values::I32(v) => Data::I32(v),
            },
        }
    }

    /// Without its elements.
    pub fn absent(&self) -> Operand<'_> {
        Operand {
            data: Data::Absent,
            ..self.operand()
        }
    }

    /// The real numbers that the elements stand for.
    pub fn real(&self) -> Vec<f64> {
        let last = self.shape.channels();
        match &self.values {
            Values::F32(v) => v.iter().map(|&x| x as f64).collect(),
            Values::I32(v) => v.iter().map(|&x| x as f64).collect(),
            Values::I8(v) => {
                let first = v.len() / self.channel_scales.len().max(1);
                let scale = |i: usize| match self.channel_scales.len() {
                    0 => self.scale,
                    // Depthwise: channels last. Convolution, dense: output channels first.
                    n if self.shape.dim(0) == n => self.channel_scales[i / first],
                    _ => self.channel_scales[i % last],
                };
                v.iter()
                    .enumerate()
                    .map(|(i, &q)| (q as i32 - self.zero_point) as f64 * scale(i) as f64)
                    .collect()
            }
        }
    }

    pub fn f32s(&self) -> &[f32] {
        match &self.values {
            Values::F32(v) => v,
            _ => panic!("not f32"),
        }
    }

    pub fn i8s(&self) -> &[i8] {
        match &self.values {
            Values::I8(v) => v,
            _ => panic!("not int8"),
        }
    }

    pub fn i32s(&self) -> &[i32] {
        match &self.values {
            Values::I32(v) => v,
            _ => panic!("not int32"),
        }
    }
}

/// Runs any operator; the one that keeps a state goes on with it. `saved` is as `Op::needs` wants it, or empty; what
/// [`Op::prepare`] writes is already there.
pub fn forward(
    op: &Op,
    cx: &Context,
    inputs: &mut [Tensor],
    output: &Tensor,
    saved: &mut [u8],
) -> Values {
    let n = output.shape.len();
    let (mut f32s, mut int8s) = (Vec::new(), Vec::new());
    let y = match output.dtype() {
        DType::I8 => {
            int8s = vec![99; n];
            DataMut::I8(&mut int8s)
        }
        _ => {
            f32s = vec![f32::NAN; n];
            DataMut::F32(&mut f32s)
        }
    };
    if op.writes_state() {
        let which = op.state_operand().expect("a state");
        let mut kept = inputs[which].values.clone();
        let operands: Vec<Operand> = inputs
            .iter()
            .enumerate()
            .map(|(i, t)| if i == which { t.absent() } else { t.operand() })
            .collect();
        let state = match &mut kept {
            Values::F32(v) => StateMut::F32(v),
            Values::I8(v) => StateMut::I8(v),
            Values::I32(v) => StateMut::I32(v),
        };
        let memory = Memory { state, saved };
        op.advance(cx, &operands, &output.absent(), y, memory);
        inputs[which].values = kept;
    } else {
        let operands: Vec<Operand> = inputs.iter().map(|t| t.operand()).collect();
        op.forward(cx, &operands, saved, &output.absent(), y);
    }
    match output.dtype() {
        DType::I8 => Values::I8(int8s),
        _ => Values::F32(f32s),
    }
}
