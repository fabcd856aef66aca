//! The attributes of each operator, and how the model image stores them: [`WORDS`](super::WORDS) 32-bit words
//! per operator, one attribute per word, unused words 0.

use super::{
    Activation, ConvTranspose2d, LogSoftmax, Lstm, Multiplier, Op, ReduceMax, Slice, Svdf,
    Transpose, WORDS,
};
use crate::tensor::MAX_RANK;

/// Rows and columns added around an image before a window slides over it: zeros (int8: the zero point) for
/// convolutions, nothing for pooling (which counts the valid cells only).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Padding {
    /// Rows above.
    pub top: u16,
    /// Columns to the left.
    pub left: u16,
    /// Rows below.
    pub bottom: u16,
    /// Columns to the right.
    pub right: u16,
}

impl Padding {
    /// No padding (TFLite's `VALID`).
    pub const VALID: Padding = Padding {
        top: 0,
        left: 0,
        bottom: 0,
        right: 0,
    };

    /// Padding along one axis, `(before, after)`, so that the output has `ceil(input / stride)` cells: TFLite's
    /// `SAME`. An odd total puts the extra cell after.
    pub const fn same(input: u32, kernel: u32, stride: u32, dilation: u32) -> (u32, u32) {
        if stride == 0 || kernel == 0 {
            return (0, 0);
        }
        let out = input.div_ceil(stride) as u64;
        let reach = (kernel as u64 - 1) * dilation as u64 + 1;
        let total = (out.saturating_sub(1) * stride as u64 + reach).saturating_sub(input as u64);
        let total = if total > u32::MAX as u64 {
            u32::MAX
        } else {
            total as u32
        };
        (total / 2, total - total / 2)
    }
}

/// 2-D convolution. Groups follow from the shapes: with weights of `C / groups` channels, output channel `o` of `O` sees group
/// `o / (O / groups)` of the input's channels only.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Conv2d {
    /// Rows, columns between windows; at least 1.
    pub stride: [u16; 2],
    /// Rows, columns between the cells of a window; at least 1.
    pub dilation: [u16; 2],
    /// Added around the input.
    pub padding: Padding,
    /// Fused activation.
    pub activation: Activation,
}

/// Depthwise 2-D convolution: output channel `c * m + j` sees input channel `c` only. The depth multiplier `m`
/// follows from the shapes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DepthwiseConv2d {
    /// Rows, columns between windows; at least 1.
    pub stride: [u16; 2],
    /// Rows, columns between the cells of a window; at least 1.
    pub dilation: [u16; 2],
    /// Added around the input.
    pub padding: Padding,
    /// Fused activation.
    pub activation: Activation,
}

/// Fully connected layer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Dense {
    /// Fused activation.
    pub activation: Activation,
}

/// Elementwise sum.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Add {
    /// Fused activation.
    pub activation: Activation,
    /// int8: both inputs are first shifted left by this much (TFLite: 20), in 0..=22. f32: 0.
    pub left_shift: u8,
    /// int8: `scale_i / (2 max(scale_0, scale_1))`. f32: 0.
    pub inputs: [Multiplier; 2],
    /// int8: `2 max(scale_0, scale_1) / (2^left_shift scale_out)`. f32: 0.
    pub output: Multiplier,
}

impl Add {
    /// The sum of f32 tensors.
    pub const fn float(activation: Activation) -> Add {
        let zero = Multiplier {
            mantissa: 0,
            shift: 0,
        };
        Add {
            activation,
            left_shift: 0,
            inputs: [zero; 2],
            output: zero,
        }
    }
}

/// Elementwise product.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Mul {
    /// Fused activation.
    pub activation: Activation,
    /// int8: `scale_0 scale_1 / scale_out`. f32: 0.
    pub output: Multiplier,
}

impl Mul {
    /// The product of f32 tensors.
    pub const fn float(activation: Activation) -> Mul {
        Mul {
            activation,
            output: Multiplier {
                mantissa: 0,
                shift: 0,
            },
        }
    }
}

/// Average or maximum over windows. Padding cells do not count; padding is smaller than the window.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pool2d {
    /// Rows, columns of a window; at most 256 cells for the maximum (255 with a fused activation).
    pub window: [u16; 2],
    /// Rows, columns between windows; at least 1.
    pub stride: [u16; 2],
    /// Around the input.
    pub padding: Padding,
    /// Fused activation.
    pub activation: Activation,
}

/// Zeros (int8: the zero point) around a tensor.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pad {
    /// How many before, by axis; 0 from the rank on.
    pub before: [u16; MAX_RANK],
    /// How many after, by axis; 0 from the rank on.
    pub after: [u16; MAX_RANK],
}

/// Tensors joined along one axis.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Concat {
    /// Which axis.
    pub axis: u8,
}

/// `softmax(beta x)` over the last axis.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Softmax {
    /// Inverse temperature, finite; used by f32 and by the gradient.
    pub beta: f32,
    /// int8: `beta scale 2^26`, with a shift in 0..=30. f32: 0.
    pub input: Multiplier,
    /// int8: differences from the maximum below this many LSB count as exp = 0; not positive. f32: 0.
    pub diff_min: i32,
}

/// A function of each element. In f32 it is computed, in int8 it is a table made by the host.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum Unary {
    /// max(0, x).
    Relu,
    /// min(6, max(0, x)).
    Relu6,
    /// x where x > 0, else alpha x.
    LeakyRelu {
        /// Slope below 0: finite, not negative.
        alpha: f32,
    },
    /// Hyperbolic tangent.
    Tanh,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
    /// The identity: from one quantization to another.
    Requantize,
    /// min(high, max(low, x)).
    Clip {
        /// Smallest result; may be minus infinity.
        low: f32,
        /// Largest result, not below `low`; may be infinity.
        high: f32,
    },
    /// x where x > 0, else alpha (exp(x) - 1).
    Elu {
        /// Finite.
        alpha: f32,
    },
    /// |x|; its slope at 0 counts as 0.
    Abs,
    /// e^x.
    Exp,
    /// Natural logarithm.
    Log,
    /// Square root.
    Sqrt,
    /// 1 / x.
    Reciprocal,
    /// log(1 + exp(x)).
    Softplus,
    /// The error function.
    Erf,
}

/// Batch normalization over the last axis: `gamma (x - mean) / sqrt(variance + epsilon) + beta`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BatchNorm {
    /// Added to the variance; positive and finite.
    pub epsilon: f32,
}

/// Reads words in order; remembers whether one was out of range.
struct Reader<'a> {
    words: &'a [u32; WORDS],
    at: usize,
    ok: bool,
}

impl Reader<'_> {
    fn word(&mut self) -> u32 {
        let word = self.words.get(self.at).copied();
        self.at += 1;
        self.ok &= word.is_some();
        word.unwrap_or(0)
    }

    fn int(&mut self) -> i32 {
        self.word() as i32
    }

    fn float(&mut self) -> f32 {
        f32::from_bits(self.word())
    }

    fn u16(&mut self) -> u16 {
        let word = self.word();
        self.ok &= word <= u16::MAX as u32;
        word as u16
    }

    fn u8(&mut self) -> u8 {
        let word = self.word();
        self.ok &= word <= u8::MAX as u32;
        word as u8
    }

    fn flag(&mut self) -> bool {
        let word = self.word();
        self.ok &= word <= 1;
        word == 1
    }

    fn pair(&mut self) -> [u16; 2] {
        [self.u16(), self.u16()]
    }

    fn padding(&mut self) -> Padding {
        Padding {
            top: self.u16(),
            left: self.u16(),
            bottom: self.u16(),
            right: self.u16(),
        }
    }

    fn multiplier(&mut self) -> Multiplier {
        Multiplier {
            mantissa: self.int(),
            shift: self.int(),
        }
    }

    fn activation(&mut self) -> Activation {
        let activation = Activation::from_code(self.word());
        self.ok &= activation.is_some();
        activation.unwrap_or(Activation::None)
    }

    /// Whether every value was in range and every word after the last one read is 0.
    fn finish(mut self) -> bool {
        while self.at < WORDS {
            self.ok &= self.word() == 0;
        }
        self.ok
    }
}

/// Writes words in order.
struct Writer {
    words: [u32; WORDS],
    at: usize,
}

impl Writer {
    fn put(&mut self, values: &[u32]) -> &mut Writer {
        for &value in values {
            if let Some(word) = self.words.get_mut(self.at) {
                *word = value;
            }
            self.at += 1;
        }
        self
    }

    fn pair(&mut self, pair: [u16; 2]) -> &mut Writer {
        self.put(&[pair[0] as u32, pair[1] as u32])
    }

    fn padding(&mut self, p: Padding) -> &mut Writer {
        self.put(&[p.top as u32, p.left as u32, p.bottom as u32, p.right as u32])
    }

    fn multiplier(&mut self, m: Multiplier) -> &mut Writer {
        self.put(&[m.mantissa as u32, m.shift as u32])
    }
}

impl Op {
    /// The number that stands for the operator in a model image. Never changes.
    pub fn code(&self) -> u8 {
        match self {
            Op::Conv2d(_) => 1,
            Op::DepthwiseConv2d(_) => 2,
            Op::Dense(_) => 3,
            Op::Add(_) => 4,
            Op::Mul(_) => 5,
            Op::AvgPool2d(_) => 6,
            Op::MaxPool2d(_) => 7,
            Op::Pad(_) => 8,
            Op::Reshape => 9,
            Op::Concat(_) => 10,
            Op::Softmax(_) => 11,
            Op::Unary(_) => 12,
            Op::BatchNorm(_) => 13,
            Op::Quantize => 14,
            Op::Dequantize => 15,
            Op::ConvTranspose2d(_) => 16,
            Op::LogSoftmax(_) => 20,
            Op::ReduceMax(_) => 21,
            Op::Transpose(_) => 22,
            Op::Slice(_) => 23,
            Op::Lstm(_) => 24,
            Op::Svdf(_) => 25,
            Op::Remember => 26,
            Op::Recall => 27,
        }
    }

    /// The attributes as a model image stores them.
    pub fn words(&self) -> [u32; WORDS] {
        let mut w = Writer {
            words: [0; WORDS],
            at: 0,
        };
        match self {
            Op::Conv2d(Conv2d {
                stride,
                dilation,
                padding,
                activation,
            })
            | Op::DepthwiseConv2d(DepthwiseConv2d {
                stride,
                dilation,
                padding,
                activation,
            }) => {
                w.pair(*stride)
                    .pair(*dilation)
                    .padding(*padding)
                    .put(&[*activation as u32]);
            }
            Op::ConvTranspose2d(conv) => {
                w.pair(conv.stride)
                    .pair(conv.dilation)
                    .padding(conv.padding)
                    .pair(conv.extra)
                    .put(&[conv.activation as u32]);
            }
            Op::Dense(dense) => {
                w.put(&[dense.activation as u32]);
            }
            Op::Add(add) => {
                w.put(&[add.activation as u32, add.left_shift as u32])
                    .multiplier(add.inputs[0])
                    .multiplier(add.inputs[1])
                    .multiplier(add.output);
            }
            Op::Mul(mul) => {
                w.put(&[mul.activation as u32]).multiplier(mul.output);
            }
            Op::AvgPool2d(pool) | Op::MaxPool2d(pool) => {
                w.pair(pool.window)
                    .pair(pool.stride)
                    .padding(pool.padding)
                    .put(&[pool.activation as u32]);
            }
            Op::Pad(pad) => {
                w.put(&pad.before.map(u32::from))
                    .put(&pad.after.map(u32::from));
            }
            Op::Concat(concat) => {
                w.put(&[concat.axis as u32]);
            }
            Op::Softmax(softmax) => {
                w.put(&[softmax.beta.to_bits()])
                    .multiplier(softmax.input)
                    .put(&[softmax.diff_min as u32]);
            }
            Op::Unary(unary) => {
                match unary {
                    Unary::Relu => w.put(&[0]),
                    Unary::Relu6 => w.put(&[1]),
                    Unary::LeakyRelu { alpha } => w.put(&[2, alpha.to_bits()]),
                    Unary::Tanh => w.put(&[3]),
                    Unary::Sigmoid => w.put(&[4]),
                    Unary::Requantize => w.put(&[5]),
                    Unary::Clip { low, high } => w.put(&[6, low.to_bits(), high.to_bits()]),
                    Unary::Elu { alpha } => w.put(&[7, alpha.to_bits()]),
                    Unary::Abs => w.put(&[8]),
                    Unary::Exp => w.put(&[9]),
                    Unary::Log => w.put(&[10]),
                    Unary::Sqrt => w.put(&[11]),
                    Unary::Reciprocal => w.put(&[12]),
                    Unary::Softplus => w.put(&[13]),
                    Unary::Erf => w.put(&[14]),
                };
            }
            Op::BatchNorm(norm) => {
                w.put(&[norm.epsilon.to_bits()]);
            }
            Op::LogSoftmax(softmax) => {
                w.multiplier(softmax.input)
                    .put(&[softmax.diff_min as u32])
                    .multiplier(softmax.back);
            }
            Op::ReduceMax(reduce) => {
                w.put(&[reduce.axis as u32]);
            }
            Op::Transpose(transpose) => {
                w.put(&transpose.axes.map(u32::from));
            }
            Op::Slice(slice) => {
                let Slice {
                    axis,
                    begin,
                    count,
                    step,
                } = *slice;
                w.put(&[axis as u32, begin, count, step as u32]);
            }
            Op::Lstm(lstm) => {
                w.put(&[
                    lstm.clip.to_bits(),
                    lstm.cell_power as u32,
                    lstm.clip_steps as u32,
                ])
                .multiplier(lstm.forget)
                .multiplier(lstm.input)
                .multiplier(lstm.output);
            }
            Op::Svdf(svdf) => {
                w.put(&[svdf.rank as u32, svdf.activation as u32, svdf.narrow as u32])
                    .put(&[svdf.state_zero_point as u32])
                    .multiplier(svdf.feature)
                    .multiplier(svdf.output);
            }
            Op::Reshape | Op::Quantize | Op::Dequantize | Op::Remember | Op::Recall => {}
        }
        w.words
    }

    /// The operator with this code and these attributes. `None`: the code or an enum value is unknown, a value
    /// does not fit its attribute, or an unused word is not 0. Ranges that depend on shapes are for
    /// [`check`](Op::check).
    pub fn decode(code: u8, words: &[u32; WORDS]) -> Option<Op> {
        let mut r = Reader {
            words,
            at: 0,
            ok: true,
        };
        let op = match code {
            1 => Op::Conv2d(Conv2d {
                stride: r.pair(),
                dilation: r.pair(),
                padding: r.padding(),
                activation: r.activation(),
            }),
            2 => Op::DepthwiseConv2d(DepthwiseConv2d {
                stride: r.pair(),
                dilation: r.pair(),
                padding: r.padding(),
                activation: r.activation(),
            }),
            3 => Op::Dense(Dense {
                activation: r.activation(),
            }),
            4 => Op::Add(Add {
                activation: r.activation(),
                left_shift: r.u8(),
                inputs: [r.multiplier(), r.multiplier()],
                output: r.multiplier(),
            }),
            5 => Op::Mul(Mul {
                activation: r.activation(),
                output: r.multiplier(),
            }),
            6 | 7 => {
                let pool = Pool2d {
                    window: r.pair(),
                    stride: r.pair(),
                    padding: r.padding(),
                    activation: r.activation(),
                };
                if code == 6 {
                    Op::AvgPool2d(pool)
                } else {
                    Op::MaxPool2d(pool)
                }
            }
            8 => Op::Pad(Pad {
                before: core::array::from_fn(|_| r.u16()),
                after: core::array::from_fn(|_| r.u16()),
            }),
            9 => Op::Reshape,
            10 => Op::Concat(Concat { axis: r.u8() }),
            11 => Op::Softmax(Softmax {
                beta: r.float(),
                input: r.multiplier(),
                diff_min: r.int(),
            }),
            12 => Op::Unary(match r.word() {
                0 => Unary::Relu,
                1 => Unary::Relu6,
                2 => Unary::LeakyRelu { alpha: r.float() },
                3 => Unary::Tanh,
                4 => Unary::Sigmoid,
                5 => Unary::Requantize,
                6 => Unary::Clip {
                    low: r.float(),
                    high: r.float(),
                },
                7 => Unary::Elu { alpha: r.float() },
                8 => Unary::Abs,
                9 => Unary::Exp,
                10 => Unary::Log,
                11 => Unary::Sqrt,
                12 => Unary::Reciprocal,
                13 => Unary::Softplus,
                14 => Unary::Erf,
                _ => return None,
            }),
            13 => Op::BatchNorm(BatchNorm { epsilon: r.float() }),
            14 => Op::Quantize,
            15 => Op::Dequantize,
            16 => Op::ConvTranspose2d(ConvTranspose2d {
                stride: r.pair(),
                dilation: r.pair(),
                padding: r.padding(),
                extra: r.pair(),
                activation: r.activation(),
            }),
            20 => Op::LogSoftmax(LogSoftmax {
                input: r.multiplier(),
                diff_min: r.int(),
                back: r.multiplier(),
            }),
            21 => Op::ReduceMax(ReduceMax { axis: r.u8() }),
            22 => Op::Transpose(Transpose {
                axes: core::array::from_fn(|_| r.u8()),
            }),
            23 => Op::Slice(Slice {
                axis: r.u8(),
                begin: r.word(),
                count: r.word(),
                step: r.int(),
            }),
            24 => Op::Lstm(Lstm {
                clip: r.float(),
                cell_power: r.int(),
                clip_steps: r.int(),
                forget: r.multiplier(),
                input: r.multiplier(),
                output: r.multiplier(),
            }),
            25 => Op::Svdf(Svdf {
                rank: r.u16(),
                activation: r.activation(),
                narrow: r.flag(),
                state_zero_point: r.int(),
                feature: r.multiplier(),
                output: r.multiplier(),
            }),
            26 => Op::Remember,
            27 => Op::Recall,
            _ => return None,
        };
        r.finish().then_some(op)
    }
}
