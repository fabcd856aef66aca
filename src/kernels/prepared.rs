//! An int8 layer of which all is known but its input, looked at once: which loops take it, and where its weights are in their order. To ask
//! anew at each run takes longer than the products of a small layer.
//!
//! Only for the widest loops (`int8_avx512`), which need nothing else. All others are asked at each run.
#![allow(unsafe_code)] // calls of functions for which the CPU was asked

use super::int8_avx2::{live::Live, turned};
use super::kept::Kept;
use super::strip::Layout;
use super::{Constant, ConvI8, Kernels, Requantize, Window, int8_avx512, simd};

/// An int8 layer, all but its input. A fully connected one is a convolution of as many pixels as there are samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerI8<'a> {
    /// Which one.
    pub kind: KindI8,
    /// Sizes.
    pub window: Window,
    /// As in [`ConvI8`].
    pub x_zero_point: i16,
    /// As in [`ConvI8`].
    pub w: &'a [i8],
    /// As in [`ConvI8`].
    pub output: Requantize<'a>,
}

/// Whose loops a layer runs through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KindI8 {
    Conv,
    Depthwise,
    Dense,
}

/// A layer that is ready to run.
#[derive(Debug)]
pub(crate) struct PreparedI8<'a> {
    layer: LayerI8<'a>,
    /// Weights and constants, as its loops read them.
    blocks: &'a [i32],
    /// Whether they are those for depthwise layers.
    loops_are_depthwise: bool,
}

impl<'a> PreparedI8<'a> {
    /// None where these loops or the CPU leave the layer to others, or there is no room to keep its weights.
    pub fn new(
        kernels: Kernels,
        mut layer: LayerI8<'a>,
        kept: &Kept<'a>,
    ) -> Option<PreparedI8<'a>> {
        if kernels == Kernels::Scalar || !simd::found().wide_products {
            return None;
        }
        if layer.kind == KindI8::Depthwise {
            layer.window = turned(&layer.window);
        }
        let g = &layer.window;
        let p = ConvI8 {
            window: g,
            x: &[],
            x_zero_point: layer.x_zero_point,
            w: Constant::new(layer.w, Some(kept)),
            output: layer.output,
        };
        let (layout, loops_are_depthwise) = match layer.kind {
            // every filter sees the one channel
            KindI8::Depthwise if g.in_channels == 1 => (
                Layout {
                    filter: 1,
                    element: g.out_channels,
                },
                false,
            ),
            kind => (
                Layout {
                    filter: g.filter_len(),
                    element: 1,
                },
                kind == KindI8::Depthwise,
            ),
        };
        if layer.kind == KindI8::Conv && Live::of(&p).is_some() {
            return None;
        }
        let blocks = match loops_are_depthwise {
            true => int8_avx512::depthwise_in_order(&p, kept),
            false => int8_avx512::in_order(&p, layout, kept),
        }?;
        Some(PreparedI8 {
            layer,
            blocks,
            loops_are_depthwise,
        })
    }

    /// The layer's outputs for an input; false where they were left undone.
    pub fn run(&self, x: &[i8], y: &mut [i8]) -> bool {
        simd::ran();
        let layer = &self.layer;
        let p = ConvI8 {
            window: &layer.window,
            x,
            x_zero_point: layer.x_zero_point,
            w: layer.w.into(),
            output: layer.output,
        };
        // SAFETY: `new` saw that the CPU has what they need.
        unsafe {
            match self.loops_are_depthwise {
                true => int8_avx512::depthwise_of(&p, self.blocks, y),
                false => int8_avx512::conv_of(&p, self.blocks, y),
            }
        }
    }
}
