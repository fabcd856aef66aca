//! Inner loops only. A kernel sees slices and numbers, never a model. `scalar` is the reference: it is
//! what runs on a chip without special instructions, and what every faster kernel is compared with.
//!
//! The functions at this level are the one dispatch point: they hand over to the implementation that
//! [`Kernels`] names. Loops that take no noticeable time (most elementwise ones) have one portable form,
//! beside their operator in `ops`.

mod activation;
#[cfg(foolproof_dsp)]
mod arm;
mod batch_norm;
#[cfg(foolproof_dsp)]
mod chip;
mod constant;
#[cfg(target_arch = "x86_64")]
mod f32_avx2;
#[cfg(target_arch = "x86_64")]
mod f32_avx512;
#[cfg(all(foolproof_simd, target_arch = "aarch64"))]
mod f32_neon;
#[cfg(foolproof_simd)]
mod f32x8;
pub mod fixed_point;
#[cfg(foolproof_simd)]
pub mod fma;
#[cfg(target_arch = "x86_64")]
mod int8_avx2;
#[cfg(target_arch = "x86_64")]
mod int8_avx512;
#[cfg(all(foolproof_simd, target_arch = "aarch64"))]
mod int8_neon;
#[cfg(all(test, foolproof_simd))]
mod int8_tests;
#[cfg(foolproof_simd)]
pub(crate) mod kept;
mod layers;
pub mod lut;
#[cfg(foolproof_mve)]
mod mve;
#[cfg(foolproof_mve)]
mod mve_conv;
#[cfg(foolproof_mve)]
mod mve_pairs;
#[cfg(any(test, foolproof_dsp))]
mod plain;
#[cfg(foolproof_simd)]
mod prepared;
pub mod scalar;
#[cfg(foolproof_simd)]
pub mod simd;
#[cfg(all(test, foolproof_simd))]
mod simd_tests;
#[cfg(foolproof_simd)]
mod strip;
#[cfg(all(test, foolproof_simd))]
mod wide_in_tests;
pub mod window;

pub use window::Window;
#[cfg(foolproof_simd)]
pub use {fma::Fma, simd::Simd};

pub use activation::Activation;
pub use batch_norm::{
    BatchNormF32, NORMALIZED, batch_norm_f32, batch_norm_input_gradient_f32,
    batch_norm_statistics_f32, batch_norm_sums_f32,
};
pub use constant::Constant;
pub(crate) use constant::Place;
pub use fixed_point::{Multiplier, Rounding};
pub use layers::{AddI8, ConvF32, ConvI8, DenseF32, DenseI8, MulI8, Requantize};
#[cfg(foolproof_simd)]
pub(crate) use prepared::{Kind, Layer, Numbers, NumbersF32, NumbersI8, Prepared};
pub use scalar::spread::Spread;

/// Whether the f32 layers are compiled in. Where they are not, [`crate::ops::Op::check`] refuses them, and the functions here do nothing.
pub(crate) const F32: bool = cfg!(feature = "f32");

/// Which implementation of the inner loops runs. The one dispatch point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Kernels {
    /// Portable Rust: the same operations in the same order on every machine, so the same bits.
    Scalar,
    /// The same operations in the same order, eight at a time: the same bits again.
    #[cfg(foolproof_simd)]
    Simd(Simd),
    /// int8 as the others; f32 with fused multiply-adds in an order of its own, so within [`fma::tolerance`] of the others.
    #[cfg(foolproof_simd)]
    Fma(Fma),
}

impl Kernels {
    /// The fastest kernels that this machine can run. Without feature `std` nothing is detected at run time: it
    /// is what the compiler was told about the machine. Their f32 results are not a chip's to the bit: see
    /// [`Kernels::detect_exact`].
    pub fn detect() -> Kernels {
        #[cfg(foolproof_simd)]
        if let Some(fma) = Fma::new() {
            return Kernels::Fma(fma);
        }
        Kernels::detect_exact()
    }

    /// The fastest of those that give the same bits on every machine.
    pub fn detect_exact() -> Kernels {
        #[cfg(foolproof_simd)]
        if let Some(simd) = Simd::new() {
            return Kernels::Simd(simd);
        }
        Kernels::Scalar
    }

    /// Whether some of them can write a gradient into a buffer that was not cleared. Chips' cannot: there it is a constant, and no code.
    pub(crate) fn set_gradients(self) -> bool {
        match self {
            #[cfg(foolproof_simd)]
            Kernels::Fma(_) => true,
            #[cfg(foolproof_simd)]
            Kernels::Simd(_) => false,
            Kernels::Scalar => false,
        }
    }

    /// The fastest that this CPU multiplies and adds, to be timed: some fused multiply-adds in registers, `rounds` times. How many they were;
    /// None where these kernels have no fused ones.
    pub fn peak(self, rounds: usize) -> Option<usize> {
        match self {
            #[cfg(foolproof_simd)]
            Kernels::Fma(fma) => {
                core::hint::black_box(fma.peak(rounds));
                Some(rounds * fma::round())
            }
            #[cfg(foolproof_simd)]
            Kernels::Simd(_) => None,
            Kernels::Scalar => {
                let _ = rounds;
                None
            }
        }
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Kernels::Scalar => "scalar",
            #[cfg(foolproof_simd)]
            Kernels::Simd(_) => Simd::NAME,
            #[cfg(foolproof_simd)]
            Kernels::Fma(_) => "fma",
        }
    }
}

/// Forward of a convolution in f32.
pub fn conv_f32(kernels: Kernels, p: &ConvF32, y: &mut [f32]) {
    if !F32 {
        return;
    }
    match kernels {
        Kernels::Scalar => scalar::conv::forward_f32(p, y),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.conv_f32(p, y),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.conv_f32(p, y),
    }
}

/// Forward of a convolution in int8.
pub fn conv_i8(kernels: Kernels, p: &ConvI8, y: &mut [i8]) {
    match kernels {
        #[cfg(foolproof_dsp)]
        Kernels::Scalar => chip::conv_i8(p, y),
        #[cfg(not(foolproof_dsp))]
        Kernels::Scalar => scalar::conv::forward_i8(p, y),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.conv_i8(p, y),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.conv_i8(p, y),
    }
}

/// Average pooling in f32: `y` is the activation of the average of the cells of each window that are inside the image, summed in their order.
pub fn average_pool_f32(
    kernels: Kernels,
    g: &Window,
    x: &[f32],
    activation: Activation,
    y: &mut [f32],
) {
    if !F32 {
        return;
    }
    match kernels {
        Kernels::Scalar => scalar::pool::average_f32(g, x, activation, y),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.average_pool_f32(g, x, activation, y),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.simd().average_pool_f32(g, x, activation, y),
    }
}

/// Average pooling in int8, each channel for itself: `y` is the average of the cells of each window that are inside the image, halves away from
/// zero, in `range`. Input and output have one scale and zero point.
pub fn average_pool_i8(kernels: Kernels, g: &Window, x: &[i8], range: (i32, i32), y: &mut [i8]) {
    match kernels {
        Kernels::Scalar => scalar::pool::average_i8(g, x, range, y),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.average_pool_i8(g, x, range, y),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.simd().average_pool_i8(g, x, range, y),
    }
}

/// Max pooling in f32, each channel for itself: `y` is the activation of the greatest cell of each window. Not-a-number is greater than
/// everything.
pub fn max_pool_f32(
    kernels: Kernels,
    g: &Window,
    x: &[f32],
    activation: Activation,
    y: &mut [f32],
) {
    match kernels {
        Kernels::Scalar => scalar::pool::maximum_f32(g, x, activation, y),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.max_pool_f32(g, x, activation, y),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.simd().max_pool_f32(g, x, activation, y),
    }
}

/// The number of the cell, in its window, that max pooling took: the first of equals. Windows have at most 256 cells.
pub fn max_pool_index_f32(kernels: Kernels, g: &Window, x: &[f32], index: &mut [u8]) {
    match kernels {
        Kernels::Scalar => scalar::pool::argmax(g, x, scalar::pool::greater, index),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.max_pool_index_f32(g, x, index),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.simd().max_pool_index_f32(g, x, index),
    }
}

/// [`max_pool_f32`] and [`max_pool_index_f32`], the same bits: vector loops read `x` once. Chips keep to the two.
#[cfg(foolproof_simd)]
pub fn max_pool_and_index_f32(
    kernels: Kernels,
    g: &Window,
    x: &[f32],
    activation: Activation,
    y: &mut [f32],
    index: &mut [u8],
) {
    match kernels {
        Kernels::Scalar => {
            scalar::pool::maximum_f32(g, x, activation, y);
            scalar::pool::argmax(g, x, scalar::pool::greater, index);
        }
        Kernels::Simd(simd) => simd.max_pool_and_index_f32(g, x, activation, y, index),
        Kernels::Fma(fma) => {
            fma.simd()
                .max_pool_and_index_f32(g, x, activation, y, index);
        }
    }
}

/// `gx += gy` at the cells that `index` names; a number that is no cell's adds nothing.
pub fn max_pool_gradient(kernels: Kernels, g: &Window, index: &[u8], gy: &[f32], gx: &mut [f32]) {
    match kernels {
        Kernels::Scalar => scalar::pool::maximum_gradient(g, index, gy, gx),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.max_pool_gradient(g, index, gy, gx),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.simd().max_pool_gradient(g, index, gy, gx),
    }
}

/// [`max_pool_gradient`] into a buffer that was not cleared: cells that no index names become zero. False where these kernels can only
/// add, or windows leave cells out or meet; then nothing is done.
pub fn max_pool_set_gradient(
    kernels: Kernels,
    g: &Window,
    index: &[u8],
    gy: &[f32],
    gx: &mut [f32],
) -> bool {
    #[cfg(foolproof_simd)]
    if let Kernels::Fma(fma) = kernels {
        return fma.simd().max_pool_set_gradient(g, index, gy, gx);
    }
    let _ = (kernels, g, index, gy, gx);
    false
}

/// `y = activation(a + b)`, all of one length.
pub fn add_f32(kernels: Kernels, x: [&[f32]; 2], activation: Activation, y: &mut [f32]) {
    match kernels {
        Kernels::Scalar => scalar::elementwise::add_f32(x, activation, y),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.add_f32(x, activation, y),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.simd().add_f32(x, activation, y),
    }
}

/// One bit per element of an activation's output, lowest first: whether the gradient passes. Bits behind the last element are 0.
pub fn passing_f32(kernels: Kernels, activation: Activation, y: &[f32], bits: &mut [u8]) {
    match kernels {
        Kernels::Scalar => scalar::elementwise::passing_f32(activation, y, bits),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.passing_f32(activation, y, bits),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.simd().passing_f32(activation, y, bits),
    }
}

/// Multiplies the gradient by `blocked` where the bit is 0; by 0 it becomes 0, whatever it was.
pub fn block_f32(kernels: Kernels, bits: &[u8], blocked: f32, gy: &mut [f32]) {
    match kernels {
        Kernels::Scalar => scalar::elementwise::block_f32(bits, blocked, gy),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.block_f32(bits, blocked, gy),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.simd().block_f32(bits, blocked, gy),
    }
}

/// `y = tanh(x)`, as [`crate::math::tanh`] has it, to the bit.
pub fn tanh_f32(kernels: Kernels, x: &[f32], y: &mut [f32]) {
    match kernels {
        Kernels::Scalar => scalar::elementwise::tanh_f32(x, y),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.tanh_f32(x, y),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.simd().tanh_f32(x, y),
    }
}

/// One step of Adam: see [`crate::optim::Adam`].
#[derive(Clone, Copy, Debug)]
pub struct AdamF32 {
    /// Decays of the two moments.
    pub betas: [f32; 2],
    /// What the moments are divided by, `1 - beta^t`.
    pub corrections: [f32; 2],
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Learning rate.
    pub rate: f32,
    /// Decoupled weight decay.
    pub decay: f32,
}

/// One step of Adam. The gradient is the sum of the shards' `gradients`, in their order; the first of `parameters` and the two `moments`
/// are stepped, and the other `parameters` are copies that become equal to the first. All slices are equally long (of longer ones the
/// rest stays as it is). Every implementation gives the same bits.
pub fn adam_f32(
    kernels: Kernels,
    adam: &AdamF32,
    gradients: &[&[f32]],
    parameters: &mut [&mut [f32]],
    moments: [&mut [f32]; 2],
) {
    match kernels {
        Kernels::Scalar => {
            let all = 0..shared(gradients, parameters, &moments);
            scalar::elementwise::adam_f32(adam, gradients, parameters, moments, all);
        }
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.adam_f32(adam, gradients, parameters, moments),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => {
            fma.simd().adam_f32(adam, gradients, parameters, moments);
        }
    }
}

/// How many elements all slices of a step of Adam have.
fn shared(gradients: &[&[f32]], parameters: &[&mut [f32]], moments: &[&mut [f32]; 2]) -> usize {
    let lengths = parameters.iter().map(|p| p.len());
    let lengths = lengths.chain(gradients.iter().map(|g| g.len()));
    let shortest = lengths.chain(moments.iter().map(|m| m.len())).min();
    shortest.unwrap_or(0)
}

/// Forward of a product in int8.
pub fn mul_i8(kernels: Kernels, p: &MulI8, y: &mut [i8]) {
    match kernels {
        Kernels::Scalar => {
            for ((y, &a), &b) in y.iter_mut().zip(p.x[0]).zip(p.x[1]) {
                *y = p.finish(a, b);
            }
        }
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.mul_i8(p, y),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.simd().mul_i8(p, y),
    }
}

/// Forward of a sum in int8.
pub fn add_i8(kernels: Kernels, p: &AddI8, y: &mut [i8]) {
    match kernels {
        Kernels::Scalar => {
            for ((y, &a), &b) in y.iter_mut().zip(p.x[0]).zip(p.x[1]) {
                *y = p.finish(a, b);
            }
        }
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.add_i8(p, y),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.add_i8(p, y),
    }
}

/// `gx += w^T gy` of a convolution in f32.
pub fn conv_input_gradient_f32(
    kernels: Kernels,
    g: &Window,
    w: Constant<f32>,
    gy: &[f32],
    gx: &mut [f32],
) {
    match kernels {
        Kernels::Scalar => scalar::conv::input_gradient_f32(g, &w, gy, gx),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.conv_input_gradient_f32(g, w, gy, gx),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.conv_input_gradient_f32(g, w, gy, gx),
    }
}

/// `gx = w^T gy` of a convolution in f32, whatever `gx` held. False where these kernels can only add; then nothing is done.
pub fn conv_set_input_gradient_f32(
    kernels: Kernels,
    g: &Window,
    w: Constant<f32>,
    gy: &[f32],
    gx: &mut [f32],
) -> bool {
    #[cfg(foolproof_simd)]
    if let Kernels::Fma(fma) = kernels {
        return fma.conv_set_input_gradient_f32(g, w, gy, gx);
    }
    let _ = (kernels, g, w, gy, gx);
    false
}

/// Weights in int8 with the scale of each output channel, for gradients.
#[derive(Clone, Copy, Debug)]
pub struct WeightsI8<'a> {
    /// The integers.
    pub w: Constant<'a, i8>,
    /// Their quantization.
    pub quant: crate::tensor::Quant<'a>,
}

/// `gx += w^T gy` of a convolution with dequantized int8 weights.
pub fn conv_input_gradient_i8(
    kernels: Kernels,
    g: &Window,
    w: WeightsI8,
    gy: &[f32],
    gx: &mut [f32],
) {
    match kernels {
        Kernels::Scalar => {
            scalar::conv::input_gradient_i8(g, &w.w, |o| w.quant.scale_of(o), gy, gx)
        }
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.conv_input_gradient_i8(g, w, gy, gx),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.conv_input_gradient_i8(g, w, gy, gx),
    }
}

/// `gw += gy x^T` of a convolution in f32.
pub fn conv_weight_gradient_f32(
    kernels: Kernels,
    g: &Window,
    x: &[f32],
    gy: &[f32],
    gw: &mut [f32],
) {
    match kernels {
        Kernels::Scalar => scalar::conv::weight_gradient_f32(g, x, gy, gw),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.conv_weight_gradient_f32(g, x, gy, gw),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.conv_weight_gradient_f32(g, x, gy, gw),
    }
}

/// Forward of a depthwise convolution in f32.
pub fn depthwise_f32(kernels: Kernels, p: &ConvF32, y: &mut [f32]) {
    if !F32 {
        return;
    }
    match kernels {
        Kernels::Scalar => scalar::depthwise::forward_f32(p, y),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.depthwise_f32(p, y),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.depthwise_f32(p, y),
    }
}

/// Forward of a depthwise convolution in int8.
pub fn depthwise_i8(kernels: Kernels, p: &ConvI8, y: &mut [i8]) {
    match kernels {
        #[cfg(foolproof_dsp)]
        Kernels::Scalar => chip::depthwise_i8(p, y),
        #[cfg(not(foolproof_dsp))]
        Kernels::Scalar => scalar::depthwise::forward_i8(p, y),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.depthwise_i8(p, y),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.depthwise_i8(p, y),
    }
}

/// `gx += w^T gy` of a depthwise convolution in f32.
pub fn depthwise_input_gradient_f32(
    kernels: Kernels,
    g: &Window,
    w: Constant<f32>,
    gy: &[f32],
    gx: &mut [f32],
) {
    match kernels {
        Kernels::Scalar => scalar::depthwise::input_gradient_f32(g, &w, gy, gx),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.depthwise_input_gradient_f32(g, w, gy, gx),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.depthwise_input_gradient_f32(g, w, gy, gx),
    }
}

/// `gx += w^T gy` of a depthwise convolution with dequantized int8 weights.
pub fn depthwise_input_gradient_i8(
    kernels: Kernels,
    g: &Window,
    w: WeightsI8,
    gy: &[f32],
    gx: &mut [f32],
) {
    match kernels {
        Kernels::Scalar => {
            scalar::depthwise::input_gradient_i8(g, &w.w, |o| w.quant.scale_of(o), gy, gx)
        }
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.depthwise_input_gradient_i8(g, w, gy, gx),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.depthwise_input_gradient_i8(g, w, gy, gx),
    }
}

/// `gw += gy x^T` of a depthwise convolution in f32.
pub fn depthwise_weight_gradient_f32(
    kernels: Kernels,
    g: &Window,
    x: &[f32],
    gy: &[f32],
    gw: &mut [f32],
) {
    match kernels {
        Kernels::Scalar => scalar::depthwise::weight_gradient_f32(g, x, gy, gw),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.depthwise_weight_gradient_f32(g, x, gy, gw),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.depthwise_weight_gradient_f32(g, x, gy, gw),
    }
}

/// Forward of a fully connected layer in f32.
pub fn dense_f32(kernels: Kernels, p: &DenseF32, y: &mut [f32]) {
    if !F32 {
        return;
    }
    match kernels {
        Kernels::Scalar => scalar::dense::forward_f32(p, y),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.dense_f32(p, y),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.dense_f32(p, y),
    }
}

/// Forward of a fully connected layer in int8.
pub fn dense_i8(kernels: Kernels, p: &DenseI8, y: &mut [i8]) {
    match kernels {
        #[cfg(foolproof_dsp)]
        Kernels::Scalar => chip::dense_i8(p, y),
        #[cfg(not(foolproof_dsp))]
        Kernels::Scalar => scalar::dense::forward_i8(p, y),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.dense_i8(p, y),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.dense_i8(p, y),
    }
}

/// `gx += w^T gy` of a fully connected layer in f32.
pub fn dense_input_gradient_f32(
    kernels: Kernels,
    depth: usize,
    w: &[f32],
    gy: &[f32],
    gx: &mut [f32],
) {
    match kernels {
        Kernels::Scalar => scalar::dense::input_gradient_f32(depth, w, gy, gx),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.dense_input_gradient_f32(depth, w, gy, gx),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.dense_input_gradient_f32(depth, w, gy, gx),
    }
}

/// `gx += w^T gy` of a fully connected layer with dequantized int8 weights.
pub fn dense_input_gradient_i8(
    kernels: Kernels,
    depth: usize,
    w: WeightsI8,
    gy: &[f32],
    gx: &mut [f32],
) {
    match kernels {
        Kernels::Scalar => {
            scalar::dense::input_gradient_i8(depth, &w.w, |o| w.quant.scale_of(o), gy, gx)
        }
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.dense_input_gradient_i8(depth, w, gy, gx),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.dense_input_gradient_i8(depth, w, gy, gx),
    }
}

/// `gw += gy x^T` of a fully connected layer in f32.
pub fn dense_weight_gradient_f32(
    kernels: Kernels,
    depth: usize,
    x: &[f32],
    gy: &[f32],
    gw: &mut [f32],
) {
    match kernels {
        Kernels::Scalar => scalar::dense::weight_gradient_f32(depth, x, gy, gw),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.dense_weight_gradient_f32(depth, x, gy, gw),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.dense_weight_gradient_f32(depth, x, gy, gw),
    }
}

/// [`dense_input_gradient_f32`] into a buffer that was not cleared, with the bits of one that was. False where these kernels can only add;
/// then nothing is done.
pub fn dense_set_input_gradient_f32(
    kernels: Kernels,
    depth: usize,
    w: &[f32],
    gy: &[f32],
    gx: &mut [f32],
) -> bool {
    #[cfg(foolproof_simd)]
    if let Kernels::Fma(fma) = kernels {
        return fma.dense_set_input_gradient_f32(depth, w, gy, gx);
    }
    let _ = (kernels, depth, w, gy, gx);
    false
}

/// [`dense_weight_gradient_f32`] into a buffer that was not cleared, with the bits of one that was. False where these kernels can only add;
/// then nothing is done.
pub fn dense_set_weight_gradient_f32(
    kernels: Kernels,
    depth: usize,
    x: &[f32],
    gy: &[f32],
    gw: &mut [f32],
) -> bool {
    #[cfg(foolproof_simd)]
    if let Kernels::Fma(fma) = kernels {
        return fma.dense_set_weight_gradient_f32(depth, x, gy, gw);
    }
    let _ = (kernels, depth, x, gy, gw);
    false
}

/// Forward of a convolution in groups, or of a transposed one, in f32.
pub fn spread_f32(kernels: Kernels, spread: Spread, p: &ConvF32, y: &mut [f32]) {
    if !F32 {
        return;
    }
    match kernels {
        Kernels::Scalar => scalar::spread::forward_f32(spread, p, y),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.spread_f32(spread, p, y),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.spread_f32(spread, p, y),
    }
}

/// The same in int8.
pub fn spread_i8(kernels: Kernels, spread: Spread, p: &ConvI8, y: &mut [i8]) {
    match kernels {
        Kernels::Scalar => scalar::spread::forward_i8(spread, p, y),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.spread_i8(spread, p, y),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.spread_i8(spread, p, y),
    }
}

/// `gx += w^T gy` of a convolution in groups, or of a transposed one, in f32.
pub fn spread_input_gradient_f32(
    kernels: Kernels,
    spread: Spread,
    g: &Window,
    w: Constant<f32>,
    gy: &[f32],
    gx: &mut [f32],
) {
    match kernels {
        Kernels::Scalar => scalar::spread::input_gradient_f32(spread, g, &w, gy, gx),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.spread_input_gradient_f32(spread, g, w, gy, gx),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.spread_input_gradient_f32(spread, g, w, gy, gx),
    }
}

/// The same with dequantized int8 weights.
pub fn spread_input_gradient_i8(
    kernels: Kernels,
    spread: Spread,
    g: &Window,
    w: WeightsI8,
    gy: &[f32],
    gx: &mut [f32],
) {
    match kernels {
        Kernels::Scalar => {
            scalar::spread::input_gradient_i8(spread, g, &w.w, |o| w.quant.scale_of(o), gy, gx)
        }
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.spread_input_gradient_i8(spread, g, w, gy, gx),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.spread_input_gradient_i8(spread, g, w, gy, gx),
    }
}

/// `gw += gy x^T` of a convolution in groups, or of a transposed one, in f32.
pub fn spread_weight_gradient_f32(
    kernels: Kernels,
    spread: Spread,
    g: &Window,
    x: &[f32],
    gy: &[f32],
    gw: &mut [f32],
) {
    match kernels {
        Kernels::Scalar => scalar::spread::weight_gradient_f32(spread, g, x, gy, gw),
        #[cfg(foolproof_simd)]
        Kernels::Simd(simd) => simd.spread_weight_gradient_f32(spread, g, x, gy, gw),
        #[cfg(foolproof_simd)]
        Kernels::Fma(fma) => fma.spread_weight_gradient_f32(spread, g, x, gy, gw),
    }
}
