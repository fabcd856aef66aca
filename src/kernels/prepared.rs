//! An int8 layer of which all is known but its input, looked at once: which loops take it, and where its weights are in their order. To ask
//! anew at each run takes longer than the products of a small layer.
//!
//! Only for the widest loops (`int8_avx512`), which need nothing else. All others are asked at each run.
#![allow(unsafe_code)] // calls of functions for which the CPU was asked

use super::int8_avx2::{live::Live, seen};
use super::kept::Kept;
use super::strip::Layout;
use super::{Constant, ConvI8, Kernels, Requantize, Window, int8_avx512, simd};

/// An int8 layer, all but its input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerI8<'a> {
    /// Which one.
    pub kind: KindI8,
    /// Sizes; of a fully connected layer as [`Window::of_dense`] says.
    pub window: Window,
    /// As in [`ConvI8`].
    pub x_zero_point: i16,
    /// As in [`ConvI8`].
    pub w: &'a [i8],
    /// As in [`ConvI8`].
    pub output: Requantize<'a>,
}

/// Whose loops a layer runs through: [`conv_i8`](super::conv_i8)'s, [`depthwise_i8`](super::depthwise_i8)'s or
/// [`dense_i8`](super::dense_i8)'s.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KindI8 {
    Conv,
    Depthwise,
    Dense,
}

/// A layer that is ready to run.
#[derive(Debug)]
pub(crate) struct PreparedI8<'a> {
    window: Window,
    x_zero_point: i16,
    output: Requantize<'a>,
    /// Weights and constants, as the loops read them.
    blocks: &'a [i32],
    is_depthwise: bool,
}

impl<'a> PreparedI8<'a> {
    /// None where these loops or the CPU leave the layer to others, or there is no room to keep its weights.
    pub fn new(kernels: Kernels, layer: &LayerI8<'a>, kept: &Kept<'a>) -> Option<PreparedI8<'a>> {
        let has_registers = match kernels {
            Kernels::Scalar => false,
            Kernels::Simd(_) | Kernels::Fma(_) => simd::found().wide_products,
        };
        if !has_registers {
            return None;
        }
        let (window, layout) = match layer.kind {
            KindI8::Conv | KindI8::Dense => (layer.window, Some(Layout::of(&layer.window))),
            KindI8::Depthwise => seen(&layer.window),
        };
        let p = ConvI8 {
            window: &window,
            x: &[],
            x_zero_point: layer.x_zero_point,
            w: Constant::new(layer.w, Some(kept)),
            output: layer.output,
        };
        if layer.kind == KindI8::Conv && Live::of(&p).is_some() {
            return None;
        }
        let blocks = match layout {
            Some(layout) => int8_avx512::in_order(&p, layout, kept),
            None => int8_avx512::depthwise_in_order(&p, kept),
        }?;
        Some(PreparedI8 {
            window,
            x_zero_point: layer.x_zero_point,
            output: layer.output,
            blocks,
            is_depthwise: layout.is_none(),
        })
    }

    /// The layer's outputs for an input.
    pub fn run(&self, x: &[i8], y: &mut [i8]) {
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

#[cfg(test)]
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

    /// Room for one layer, no more than a session asks for.
    fn room(g: &Window, kind: KindI8) -> Vec<u8> {
        let channels = match kind {
            KindI8::Depthwise => 1,
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
            KindI8::Dense => dense_bytes(g.in_channels * g.out_channels, g.out_channels),
            _ => sizes.bytes(),
        };
        std::vec![0; bytes]
    }

    #[test]
    fn prepared_layers_are_the_scalar_ones_bit_for_bit() {
        let Some(kernels) = kernels() else { return };
        let mut random = Random(31);
        for (kind, g) in [
            (KindI8::Conv, window([9, 7], 5, 40, [3, 3])),
            (KindI8::Conv, window([1, 1], 70, 12, [1, 1])),
            (
                KindI8::Conv,
                Window {
                    batch: 3,
                    ..window([1, 1], 70, 12, [1, 1])
                },
            ),
            (KindI8::Conv, window([6, 6], 16, 64, [1, 1])),
            (KindI8::Depthwise, window([9, 7], 24, 24, [3, 3])),
            // a column, which is turned, and a single channel
            (KindI8::Depthwise, window([20, 1], 24, 24, [10, 1])),
            (KindI8::Depthwise, window([9, 7], 1, 8, [3, 3])),
            (KindI8::Dense, Window::of_dense(130, 1, 196)),
            (KindI8::Dense, Window::of_dense(65, 3, 10)),
        ] {
            let g = match kind {
                KindI8::Dense => g,
                _ => sized(g, [0, 0]),
            };
            let weights = match kind {
                KindI8::Depthwise => g.kernel[0] * g.kernel[1] * g.out_channels,
                _ => g.filter_len() * g.out_channels,
            };
            let w = random.bytes(weights);
            let constants = Constants::new(g.out_channels, &mut random);
            let layer = LayerI8 {
                kind,
                window: g,
                x_zero_point: -5,
                w: &w,
                output: constants.requantize(),
            };
            let mut memory = room(&g, kind);
            let kept = Kept::new(&mut memory);
            let prepared = PreparedI8::new(kernels, &layer, &kept).unwrap();
            // asked for again, as after a change of the batch, it is what is there
            let used = kept.used();
            assert!(PreparedI8::new(kernels, &layer, &kept).is_some());
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
                    output: layer.output,
                };
                let dense = |w| DenseI8 {
                    depth: g.in_channels,
                    x: &x,
                    x_zero_point: -5,
                    w,
                    output: p.output,
                };
                match kind {
                    KindI8::Conv => scalar::conv::forward_i8(&p, &mut expected),
                    KindI8::Depthwise => scalar::depthwise::forward_i8(&p, &mut expected),
                    KindI8::Dense => scalar::dense::forward_i8(&dense(p.w), &mut expected),
                }
                assert_eq!(got, expected, "{kind:?} {g:?}");
                assert!(runs > 0, "{kind:?} {g:?}");
                // whoever asks at each run finds the same order
                let w = Constant::new(&w[..], Some(&kept));
                let p = ConvI8 { w, ..p };
                got.fill(0);
                match kind {
                    KindI8::Conv => conv_i8(kernels, &p, &mut got),
                    KindI8::Depthwise => depthwise_i8(kernels, &p, &mut got),
                    KindI8::Dense => dense_i8(kernels, &dense(w), &mut got),
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
        let layer = LayerI8 {
            kind: KindI8::Conv,
            window: g,
            x_zero_point: 3,
            w: &w,
            output: constants.requantize(),
        };
        let mut memory = room(&g, KindI8::Conv);
        let is_prepared = |kernels: Kernels, layer: LayerI8, memory: &mut [u8]| {
            PreparedI8::new(kernels, &layer, &Kept::new(memory)).is_some()
        };
        assert!(is_prepared(kernels, layer, &mut memory));
        assert!(!is_prepared(Kernels::Scalar, layer, &mut memory));
        assert!(!without(|| is_prepared(kernels, layer, &mut memory)));
        assert!(!is_prepared(kernels, layer, &mut memory[..1024]));
        assert!(!is_prepared(kernels, layer, &mut []));
        let alike = LayerI8 { w: &none, ..layer };
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
            (KindI8::Conv, three, float),
            (KindI8::Conv, dilated, some(16)),
            // a window of 25,000 elements, in a row and at one pixel
            (KindI8::Conv, window([1, 5], 5000, 4, [1, 5]), some(4)),
            (KindI8::Dense, Window::of_dense(25_000, 1, 4), some(4)),
            (KindI8::Depthwise, dilated, some(16)),
            (KindI8::Depthwise, apart(wide), some(576)),
            // two filters for each channel
            (
                KindI8::Depthwise,
                Window {
                    out_channels: 32,
                    ..three
                },
                some(32),
            ),
        ] {
            let g = match kind {
                KindI8::Dense => g,
                _ => sized(g, [0, 0]),
            };
            let weights = match kind {
                KindI8::Depthwise => g.kernel[0] * g.kernel[1] * g.out_channels,
                _ => g.filter_len() * g.out_channels,
            };
            let layer = LayerI8 {
                kind,
                window: g,
                x_zero_point: 3,
                w: &w[..weights],
                output,
            };
            let mut memory = std::vec![0; 1 << 20];
            let kept = Kept::new(&mut memory);
            let prepared = PreparedI8::new(kernels, &layer, &kept);
            assert!(prepared.is_none(), "{kind:?} {g:?}");
            // no more than what is known of which filters are left
            assert!(kept.used() <= 1024, "{kind:?} {g:?} {}", kept.used());
        }
    }
}
