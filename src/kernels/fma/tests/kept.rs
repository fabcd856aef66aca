//! Kept weights give the bits of weights packed anew, whatever loops read them, and fit the memory that is asked for them.

use super::*;
use crate::kernels::Constant;
use crate::kernels::kept::{Kept, Sizes};

/// A convolution of some kind, with numbers to run it on.
struct Case {
    window: Window,
    kind: Kind,
    keeps_ties: bool,
    x: Vec<f32>,
    w: Vec<f32>,
    w8: Vec<i8>,
    bias: Vec<f32>,
    gy: Vec<f32>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Plain,
    Depthwise,
    Transposed,
}

impl Case {
    fn new(window: Window, kind: Kind, keeps_ties: bool) -> Case {
        let g = &window;
        let [image, places] = conv::images(g);
        let channels = if kind == Kind::Depthwise {
            1
        } else {
            g.in_channels
        };
        let weights = g.kernel[0] * g.kernel[1] * channels * g.out_channels;
        let (x, gy, filters) = match kind {
            Kind::Transposed => (places, image, g.in_channels),
            _ => (image, places, g.out_channels),
        };
        let mut numbers = Numbers(7);
        let w = numbers.floats(weights);
        Case {
            window,
            kind,
            keeps_ties,
            x: numbers.floats(x),
            w8: w.iter().map(|w| (w * 127.0) as i8).collect(),
            w,
            bias: numbers.floats(filters),
            gy: numbers.floats(gy),
        }
    }

    /// Forward, the gradient with respect to the input, and the same of int8 weights.
    fn run(&self, fma: Fma, kept: Option<&Kept>) -> [Vec<f32>; 3] {
        let (k, g) = (Kernels::Fma(fma), &self.window);
        let w = Constant::new(&self.w, kept);
        let w8 = WeightsI8 {
            w: Constant::new(&self.w8, kept),
            quant: Quant {
                scale: 0.25,
                zero_point: 0,
                channel_scales: &self.bias,
            },
        };
        let p = ConvF32 {
            window: g,
            x: &self.x,
            w,
            bias: &self.bias,
            activation: Activation::Relu,
            keeps_ties: self.keeps_ties,
        };
        let mut y = std::vec![9.0; self.gy.len()];
        let (mut gx, mut gx8) = (self.x.clone(), self.x.clone());
        let gy = &self.gy;
        match self.kind {
            Kind::Plain => {
                kernels::conv_f32(k, &p, &mut y);
                kernels::conv_input_gradient_f32(k, g, w, gy, &mut gx);
                kernels::conv_input_gradient_i8(k, g, w8, gy, &mut gx8);
            }
            Kind::Depthwise => {
                kernels::depthwise_f32(k, &p, &mut y);
                kernels::depthwise_input_gradient_f32(k, g, w, gy, &mut gx);
                kernels::depthwise_input_gradient_i8(k, g, w8, gy, &mut gx8);
            }
            Kind::Transposed => {
                let spread = Spread {
                    groups: 1,
                    transposed: true,
                };
                kernels::spread_f32(k, spread, &p, &mut y);
                kernels::spread_input_gradient_f32(k, spread, g, w, gy, &mut gx);
                kernels::spread_input_gradient_i8(k, spread, g, w8, gy, &mut gx8);
            }
        }
        [y, gx, gx8]
    }

    /// What a session asks for: of f32 weights forward and back, and as much again for the gradients of int8 ones.
    fn bytes(&self) -> usize {
        let g = &self.window;
        let channels = match self.kind {
            Kind::Plain => [g.in_channels, g.out_channels],
            Kind::Transposed => [g.out_channels, g.in_channels],
            Kind::Depthwise => [1, g.out_channels],
        };
        let [from, to] = channels;
        let backward = if self.kind == Kind::Depthwise {
            channels
        } else {
            [to, from]
        };
        let sizes = |weight: usize| Sizes {
            kernel: g.kernel,
            weight,
            forward: channels,
            backward: Some(backward),
            images: match self.kind {
                Kind::Transposed => [g.input, g.output],
                _ => [g.output, g.input],
            },
            keeps_ties: self.keeps_ties,
            phases: g.stride[0].min(g.kernel[0]) * g.stride[1].min(g.kernel[1]),
        };
        64 + sizes(4).bytes() + sizes(1).bytes()
    }
}

fn bits(all: &[Vec<f32>; 3]) -> Vec<u32> {
    all.iter().flatten().map(|x| x.to_bits()).collect()
}

#[test]
fn kept_weights_give_the_same_bits() {
    let Some(fma) = Fma::new() else { return };
    let mut numbers = Numbers(11);
    for (input, channels, kernel, stride, padding) in [
        // minimal filtering, of one and of two vectors, of more panels than the stack holds
        ([6, 7], [8, 8], [3, 3], [1, 1], 1),
        ([5, 9], [24, 40], [3, 3], [1, 1], 1),
        ([4, 4], [128, 136], [3, 3], [1, 1], 1),
        // the same, of larger tiles
        ([8, 8], [8, 8], [3, 3], [1, 1], 1),
        ([11, 12], [24, 40], [3, 3], [1, 1], 1),
        ([7, 8], [72, 64], [3, 3], [1, 1], 1),
        // first layers and their gradients
        ([9, 9], [1, 16], [3, 3], [1, 1], 1),
        ([9, 9], [3, 8], [3, 3], [1, 1], 1),
        ([9, 9], [3, 5], [3, 3], [1, 1], 1),
        // strides: an order for each phase
        ([9, 8], [16, 24], [3, 3], [2, 2], 1),
        ([9, 8], [5, 19], [3, 2], [2, 3], 0),
        // single pixels; a sum that is cut, in one strip and in several
        ([5, 5], [17, 33], [1, 1], [1, 1], 0),
        ([3, 3], [600, 20], [1, 1], [1, 1], 0),
        ([30, 30], [24, 5], [5, 5], [1, 1], 2),
        ([6, 6], [64, 2], [3, 3], [1, 1], 1),
    ] {
        let padding = [[padding; 2]; 2];
        let g = window(2, input, channels, kernel, stride, [1; 2], padding).unwrap();
        let both = window(1, input, [channels[1]; 2], kernel, stride, [1; 2], padding).unwrap();
        for (window, kind, keeps_ties) in [
            (g, Kind::Plain, true),
            (g, Kind::Plain, false),
            (g, Kind::Transposed, false),
            (both, Kind::Depthwise, false),
        ] {
            let case = Case::new(window, kind, keeps_ties);
            let expected = bits(&case.run(fma, None));
            let mut ample = std::vec![0xff; 2 * case.bytes() + (1 << 20)];
            let kept = Kept::new(&mut ample);
            let made = bits(&case.run(fma, Some(&kept)));
            assert!(made == expected, "made: {kind:?} {window:?}");
            let all = kept.used();
            assert!(all > 0, "nothing kept: {kind:?} {window:?}");
            for _ in 0..2 {
                let found = bits(&case.run(fma, Some(&kept)));
                assert!(found == expected, "found: {kind:?} {window:?}");
            }
            assert_eq!(kept.used(), all, "made twice: {kind:?} {window:?}");
            // all that is kept fits what is asked for
            assert!(
                all <= case.bytes() - 64,
                "{all} of {}: {kind:?} {window:?}",
                case.bytes()
            );
            // and some of it fits less
            let mut little = std::vec![0xff; numbers.within(0, all)];
            let kept = Kept::new(&mut little);
            for _ in 0..2 {
                let some = bits(&case.run(fma, Some(&kept)));
                assert!(some == expected, "some: {kind:?} {window:?}");
            }
        }
    }
}

/// Layers that share weights and differ in all else do not take each other's order.
#[test]
fn one_order_is_not_taken_for_another() {
    let Some(fma) = Fma::new() else { return };
    let mut memory = std::vec![0; 1 << 20];
    let kept = Kept::new(&mut memory);
    let w: Vec<f32> = Numbers(3).floats(9 * 16 * 16);
    for (channels, kernel, stride, size, keeps_ties) in [
        ([16, 16], [3, 3], [1, 1], 10, true),
        ([16, 16], [3, 3], [1, 1], 10, false),
        ([16, 16], [3, 3], [2, 2], 6, true),
        ([16, 16], [9, 1], [1, 1], 20, true),
        ([16, 16], [1, 9], [1, 1], 20, true),
        ([8, 32], [3, 3], [1, 1], 6, true),
        ([144, 16], [1, 1], [1, 1], 6, true),
    ] {
        let g = window(1, [size; 2], channels, kernel, stride, [1; 2], [[0; 2]; 2]).unwrap();
        let mut case = Case::new(g, Kind::Plain, keeps_ties);
        case.w.copy_from_slice(&w);
        let expected = bits(&case.run(fma, None));
        // the same address for all
        let constant = Constant::new(&w, Some(&kept));
        let p = ConvF32 {
            window: &g,
            x: &case.x,
            w: constant,
            bias: &case.bias,
            activation: Activation::Relu,
            keeps_ties,
        };
        let (mut y, mut gx) = (std::vec![9.0; case.gy.len()], case.x.clone());
        kernels::conv_f32(Kernels::Fma(fma), &p, &mut y);
        kernels::conv_input_gradient_f32(Kernels::Fma(fma), &g, constant, &case.gy, &mut gx);
        let got = bits(&[y, gx, Vec::new()]);
        assert!(got == expected[..got.len()], "{g:?}");
    }
}
