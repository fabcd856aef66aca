//! A layer of which all is known but its input, looked at once: to read its constants' shapes and where they are at each run takes longer than
//! the products of a small layer.
//!
//! The widest int8 loops (`int8_avx512`) need nothing else than their blocks, so these are found beforehand, too. All other loops are asked at each
//! run, and look for their weights' order then.
#![allow(unsafe_code)] // calls of functions for which the CPU was asked

use super::kept::Kept;
use super::{
    Activation, Constant, ConvF32, ConvI8, DenseF32, DenseI8, Kernels, Requantize, Window,
};
use super::{conv_f32, conv_i8, dense_f32, dense_i8, depthwise_f32, depthwise_i8};
#[cfg(target_arch = "x86_64")]
use super::{int8_avx2, int8_avx512, simd, strip::Layout};
use crate::tensor::{DType, Data, DataMut};

/// A layer, all but its input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer<'a> {
    /// Which one.
    pub kind: Kind,
    /// Sizes; of a fully connected layer as [`Window::of_dense`] says.
    pub window: Window,
    /// Its constants.
    pub numbers: Numbers<'a>,
}

/// Whose loops a layer runs through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Conv,
    Depthwise,
    Dense,
}

/// A layer's constants.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numbers<'a> {
    F32(NumbersF32<'a>),
    I8(NumbersI8<'a>),
}

/// As in [`ConvF32`]; a fully connected layer keeps ties in any case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NumbersF32<'a> {
    pub w: &'a [f32],
    pub bias: &'a [f32],
    pub activation: Activation,
    pub keeps_ties: bool,
}

/// As in [`ConvI8`] and [`DenseI8`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct NumbersI8<'a> {
    pub x_zero_point: i16,
    pub w: &'a [i8],
    pub output: Requantize<'a>,
}

impl Layer<'_> {
    /// The type of its input and its output.
    pub fn dtype(&self) -> DType {
        match self.numbers {
            Numbers::F32(_) => DType::F32,
            Numbers::I8(_) => DType::I8,
        }
    }

    /// The outputs for an input of its type.
    fn run(&self, kernels: Kernels, kept: &Kept, x: Data, y: DataMut) {
        let (window, depth) = (&self.window, self.window.in_channels);
        match (self.numbers, x, y) {
            (Numbers::F32(n), Data::F32(x), DataMut::F32(y)) => {
                let p = ConvF32 {
                    window,
                    x,
                    w: Constant::new(n.w, Some(kept)),
                    bias: n.bias,
                    activation: n.activation,
                    keeps_ties: n.keeps_ties,
                };
                match self.kind {
                    Kind::Conv => conv_f32(kernels, &p, y),
                    Kind::Depthwise => depthwise_f32(kernels, &p, y),
                    Kind::Dense => {
                        let p = DenseF32 {
                            depth,
                            x,
                            w: n.w,
                            bias: n.bias,
                            activation: n.activation,
                        };
                        dense_f32(kernels, &p, y);
                    }
                }
            }
            (Numbers::I8(n), Data::I8(x), DataMut::I8(y)) => {
                let p = ConvI8 {
                    window,
                    x,
                    x_zero_point: n.x_zero_point,
                    w: Constant::new(n.w, Some(kept)),
                    output: n.output,
                };
                match self.kind {
                    Kind::Conv => conv_i8(kernels, &p, y),
                    Kind::Depthwise => depthwise_i8(kernels, &p, y),
                    Kind::Dense => {
                        let p = DenseI8 {
                            depth,
                            x,
                            x_zero_point: n.x_zero_point,
                            w: p.w,
                            output: n.output,
                        };
                        dense_i8(kernels, &p, y);
                    }
                }
            }
            _ => {}
        }
    }
}

/// A layer that is ready to run.
#[derive(Debug)]
pub(crate) enum Prepared<'a> {
    /// Loops look at it at each run.
    Layer(Layer<'a>),
    /// The widest int8 loops, with all that they read.
    #[cfg(target_arch = "x86_64")]
    InBlocks(InBlocks<'a>),
}

impl<'a> Prepared<'a> {
    pub fn new(kernels: Kernels, layer: Layer<'a>, kept: &Kept<'a>) -> Prepared<'a> {
        #[cfg(target_arch = "x86_64")]
        if let Some(blocks) = InBlocks::new(kernels, &layer, kept) {
            return Prepared::InBlocks(blocks);
        }
        let _ = (kernels, kept);
        Prepared::Layer(layer)
    }

    /// The type of its input and its output.
    pub fn dtype(&self) -> DType {
        match self {
            Prepared::Layer(layer) => layer.dtype(),
            #[cfg(target_arch = "x86_64")]
            Prepared::InBlocks(_) => DType::I8,
        }
    }

    /// The layer's outputs for an input of its type, with kernels and memory as it was made for.
    pub fn run(&self, kernels: Kernels, kept: &Kept, x: Data, y: DataMut) {
        match self {
            Prepared::Layer(layer) => layer.run(kernels, kept, x, y),
            #[cfg(target_arch = "x86_64")]
            Prepared::InBlocks(layer) => {
                if let (Data::I8(x), DataMut::I8(y)) = (x, y) {
                    layer.run(x, y);
                }
            }
        }
    }
}

/// An int8 layer of the widest loops.
#[cfg(target_arch = "x86_64")]
#[derive(Debug)]
pub(crate) struct InBlocks<'a> {
    window: Window,
    x_zero_point: i16,
    output: Requantize<'a>,
    /// Weights and constants, as the loops read them.
    blocks: &'a [i32],
    is_depthwise: bool,
}

#[cfg(target_arch = "x86_64")]
impl<'a> InBlocks<'a> {
    /// None where these loops or the CPU leave the layer to others, or there is no room to keep its weights.
    fn new(kernels: Kernels, layer: &Layer<'a>, kept: &Kept<'a>) -> Option<InBlocks<'a>> {
        let has_registers = match kernels {
            Kernels::Scalar => false,
            Kernels::Simd(_) | Kernels::Fma(_) => simd::found().wide_products,
        };
        let Numbers::I8(numbers) = layer.numbers else {
            return None;
        };
        if !has_registers {
            return None;
        }
        let (window, layout) = match layer.kind {
            Kind::Conv | Kind::Dense => (layer.window, Some(Layout::of(&layer.window))),
            Kind::Depthwise => int8_avx2::seen(&layer.window),
        };
        let p = ConvI8 {
            window: &window,
            x: &[],
            x_zero_point: numbers.x_zero_point,
            w: Constant::new(numbers.w, Some(kept)),
            output: numbers.output,
        };
        if layer.kind == Kind::Conv && int8_avx2::live::Live::of(&p).is_some() {
            return None;
        }
        let blocks = match layout {
            Some(layout) => int8_avx512::in_order(&p, layout, kept),
            None => int8_avx512::depthwise_in_order(&p, kept),
        }?;
        Some(InBlocks {
            window,
            x_zero_point: numbers.x_zero_point,
            output: numbers.output,
            blocks,
            is_depthwise: layout.is_none(),
        })
    }

    /// The layer's outputs for an input.
    fn run(&self, x: &[i8], y: &mut [i8]) {
        simd::ran();
        let p = ConvI8 {
            window: &self.window,
            x,
            x_zero_point: self.x_zero_point,
            // they are in the blocks
            w: [].as_slice().into(),
            output: self.output,
        };
        // SAFETY: `new` saw that the CPU has what they need.
        unsafe {
            match self.is_depthwise {
                true => int8_avx512::depthwise_with(&p, self.blocks, y),
                false => int8_avx512::conv_with(&p, self.blocks, y),
            }
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    extern crate std;
    use super::super::int8_tests::{Constants, Random, sized, window};
    use super::super::kept::{Sizes, dense_bytes};
    use super::super::wide_in_tests::{counted, without};
    use super::super::{DenseI8, Rounding, Simd, conv_i8, dense_i8, depthwise_i8, scalar};
    use super::*;
    use std::vec::Vec;

    fn kernels() -> Option<Kernels> {
        let kernels = Simd::new().map(Kernels::Simd);
        let kernels = kernels.filter(|_| simd::found().wide_products);
        if kernels.is_none() {
            std::eprintln!("SKIPPED: AVX-512 with VNNI is not there");
        }
        kernels
    }

    fn int8<'a>(
        kind: Kind,
        window: Window,
        x_zero_point: i16,
        (w, output): (&'a [i8], Requantize<'a>),
    ) -> Layer<'a> {
        Layer {
            kind,
            window,
            numbers: Numbers::I8(NumbersI8 {
                x_zero_point,
                w,
                output,
            }),
        }
    }

    /// Room for one layer, no more than a session asks for.
    fn room(g: &Window, kind: Kind) -> Vec<u8> {
        let channels = match kind {
            Kind::Depthwise => 1,
            _ => g.in_channels,
        };
        let sizes = Sizes {
            kernel: g.kernel,
            weight: 1,
            forward: [channels, g.out_channels],
            backward: None,
            images: [g.output, g.input],
            keeps_ties: false,
            phases: 1,
        };
        let bytes = match kind {
            Kind::Dense => dense_bytes(g.in_channels * g.out_channels, g.out_channels),
            _ => sizes.bytes(),
        };
        std::vec![0; bytes]
    }

    #[test]
    fn prepared_layers_are_the_scalar_ones_bit_for_bit() {
        let Some(kernels) = kernels() else { return };
        let mut random = Random(31);
        for (kind, g) in [
            (Kind::Conv, window([9, 7], 5, 40, [3, 3])),
            (Kind::Conv, window([1, 1], 70, 12, [1, 1])),
            (
                Kind::Conv,
                Window {
                    batch: 3,
                    ..window([1, 1], 70, 12, [1, 1])
                },
            ),
            (Kind::Conv, window([6, 6], 16, 64, [1, 1])),
            (Kind::Depthwise, window([9, 7], 24, 24, [3, 3])),
            // a column, which is turned, and a single channel
            (Kind::Depthwise, window([20, 1], 24, 24, [10, 1])),
            (Kind::Depthwise, window([9, 7], 1, 8, [3, 3])),
            (Kind::Dense, Window::of_dense(130, 1, 196)),
            (Kind::Dense, Window::of_dense(65, 3, 10)),
        ] {
            let g = match kind {
                Kind::Dense => g,
                _ => sized(g, [0, 0]),
            };
            let weights = match kind {
                Kind::Depthwise => g.kernel[0] * g.kernel[1] * g.out_channels,
                _ => g.filter_len() * g.out_channels,
            };
            let w = random.bytes(weights);
            let constants = Constants::new(g.out_channels, &mut random);
            let output = constants.requantize();
            let layer = int8(kind, g, -5, (&w, output));
            let mut memory = room(&g, kind);
            let kept = Kept::new(&mut memory);
            let prepared = InBlocks::new(kernels, &layer, &kept).unwrap();
            // asked for again, as after a change of the batch, it is what is there
            let used = kept.used();
            assert!(InBlocks::new(kernels, &layer, &kept).is_some());
            assert_eq!(kept.used(), used);
            for _ in 0..3 {
                let x = random.bytes(g.batch * g.input[0] * g.input[1] * g.in_channels);
                let outputs = g.batch * g.output[0] * g.output[1] * g.out_channels;
                let (mut expected, mut got) = (std::vec![99; outputs], std::vec![0; outputs]);
                let runs = counted(|| prepared.run(&x, &mut got));
                let p = ConvI8 {
                    window: &g,
                    x: &x,
                    x_zero_point: -5,
                    w: w[..].into(),
                    output,
                };
                let dense = |w| DenseI8 {
                    depth: g.in_channels,
                    x: &x,
                    x_zero_point: -5,
                    w,
                    output: p.output,
                };
                match kind {
                    Kind::Conv => scalar::conv::forward_i8(&p, &mut expected),
                    Kind::Depthwise => scalar::depthwise::forward_i8(&p, &mut expected),
                    Kind::Dense => scalar::dense::forward_i8(&dense(p.w), &mut expected),
                }
                assert_eq!(got, expected, "{kind:?} {g:?}");
                assert!(runs > 0, "{kind:?} {g:?}");
                // whoever asks at each run finds the same order
                let w = Constant::new(&w[..], Some(&kept));
                let p = ConvI8 { w, ..p };
                got.fill(0);
                match kind {
                    Kind::Conv => conv_i8(kernels, &p, &mut got),
                    Kind::Depthwise => depthwise_i8(kernels, &p, &mut got),
                    Kind::Dense => dense_i8(kernels, &dense(w), &mut got),
                }
                assert_eq!(got, expected, "{kind:?} {g:?}");
                assert_eq!(kept.used(), used, "{kind:?} {g:?}");
            }
        }
    }

    /// Without the registers or room, with other loops, and where most filters are alike, whoever runs the layer asks anew.
    #[test]
    fn what_is_not_prepared() {
        let Some(kernels) = kernels() else { return };
        let mut random = Random(32);
        let g = sized(window([4, 4], 16, 32, [1, 1]), [0, 0]);
        let (w, none) = (random.bytes(16 * 32), std::vec![0; 16 * 32]);
        let constants = Constants::new(32, &mut random);
        let output = constants.requantize();
        let layer = int8(Kind::Conv, g, 3, (&w, output));
        let mut memory = room(&g, Kind::Conv);
        let is_prepared = |kernels: Kernels, layer: Layer, memory: &mut [u8]| {
            InBlocks::new(kernels, &layer, &Kept::new(memory)).is_some()
        };
        assert!(is_prepared(kernels, layer, &mut memory));
        assert!(!is_prepared(Kernels::Scalar, layer, &mut memory));
        assert!(!without(|| is_prepared(kernels, layer, &mut memory)));
        assert!(!is_prepared(kernels, layer, &mut memory[..1024]));
        assert!(!is_prepared(kernels, layer, &mut []));
        let alike = int8(Kind::Conv, g, 3, (&none, output));
        assert!(!is_prepared(kernels, alike, &mut memory));
    }

    /// Layers that the loops leave to others take no room either.
    #[test]
    fn what_no_loop_takes_takes_no_room() {
        let Some(kernels) = kernels() else { return };
        let mut random = Random(33);
        let constants = Constants::new(576, &mut random);
        let output = constants.requantize();
        let w = random.bytes(25_000 * 4);
        let some = |n: usize| Requantize {
            bias: &output.bias[..n],
            multiplier: &output.multiplier[..n],
            shift: &output.shift[..n],
            ..output
        };
        let three = window([9, 9], 16, 16, [3, 3]);
        let wide = window([33, 33], 576, 576, [3, 3]);
        let apart = |g: Window| Window {
            stride: [16, 16],
            ..g
        };
        let dilated = Window {
            dilation: [2, 2],
            ..three
        };
        let float = Requantize {
            rounding: Rounding::Float32,
            ..some(16)
        };
        for (kind, g, output) in [
            (Kind::Conv, three, float),
            (Kind::Conv, dilated, some(16)),
            // a window of 25,000 elements, in a row and at one pixel
            (Kind::Conv, window([1, 5], 5000, 4, [1, 5]), some(4)),
            (Kind::Dense, Window::of_dense(25_000, 1, 4), some(4)),
            (Kind::Depthwise, dilated, some(16)),
            (Kind::Depthwise, apart(wide), some(576)),
            // two filters for each channel
            (
                Kind::Depthwise,
                Window {
                    out_channels: 32,
                    ..three
                },
                some(32),
            ),
        ] {
            let g = match kind {
                Kind::Dense => g,
                _ => sized(g, [0, 0]),
            };
            let weights = match kind {
                Kind::Depthwise => g.kernel[0] * g.kernel[1] * g.out_channels,
                _ => g.filter_len() * g.out_channels,
            };
            let layer = int8(kind, g, 3, (&w[..weights], output));
            let mut memory = std::vec![0; 1 << 20];
            let kept = Kept::new(&mut memory);
            let prepared = InBlocks::new(kernels, &layer, &kept);
            assert!(prepared.is_none(), "{kind:?} {g:?}");
            // no more than what is known of which filters are left
            assert!(kept.used() <= 1024, "{kind:?} {g:?} {}", kept.used());
        }
    }
}
