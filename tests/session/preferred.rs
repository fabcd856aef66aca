//! Buffers longer than a session requires: what they hold, and how long they are.

use super::*;
use foolproof::tensor::{DType, Data};
use foolproof_host::lines::Lines;
use foolproof_host::quantize::quantize;

/// Every kind of convolution whose weights are put in order: minimal filtering, a stride, single pixels, each channel alone, transposed.
fn convolutions() -> Graph {
    let mut b = Builder::new(&[12, 12, 3], (-1.0, 1.0), 5).unwrap();
    let same = Window::same(3);
    let x = b.conv2d(b.input(), 16, same, Activation::Relu).unwrap();
    let x = b.conv2d(x, 24, same, Activation::Relu).unwrap();
    let x = b.depthwise_conv2d(x, 1, same, Activation::Relu).unwrap();
    let x = b.conv2d(x, 33, same.stride(2), Activation::Relu).unwrap();
    let x = b.conv2d(x, 10, Window::same(1), Activation::Relu).unwrap();
    let wide = Window::same(4).stride(2);
    let x = b.conv_transpose2d(x, 6, wide, Activation::Relu).unwrap();
    let x = b.dense(x, 4, Activation::None).unwrap();
    b.finish(x)
}

/// A convolution that comes out smaller than it goes in: backward its tiles are the larger ones.
fn shrinking() -> Graph {
    let mut b = Builder::new(&[7, 7, 8], (-1.0, 1.0), 5).unwrap();
    let valid = Window {
        same: false,
        ..Window::same(3)
    };
    let x = b.conv2d(b.input(), 32, valid, Activation::Relu).unwrap();
    let x = b.dense(x, 4, Activation::None).unwrap();
    b.finish(x)
}

/// Whether the CPU has AVX-512's sums of integer products.
fn has_products() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512vl")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vnni");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// What is in order fits the buffer that a model prefers, nothing is written behind it, and no bit depends on it.
#[test]
fn a_preferred_buffer_holds_all_weights_in_order() {
    const MORE: usize = 1 << 20;
    let float = convolutions();
    let samples: Vec<Vec<f32>> = (0..4).map(|seed| sample(12 * 12 * 3, seed)).collect();
    let int8 = quantize(&float, &samples.concat(), &Default::default()).unwrap();
    for graph in [float, int8, shrinking(), ties::network(true)] {
        let image = to_image(&graph).unwrap();
        let model = image.model().unwrap();
        let is_int8 = model.tables().dtype(model.tables().input()) == DType::I8;
        for mode in [Mode::Infer, Mode::Attack] {
            let options = Options {
                kernels: Kernels::detect(),
                ..Options::new(mode)
            };
            let required = model.required_buffer(mode);
            let preferred = model.preferred_buffer_for(mode, 1).unwrap();
            // whoever asks does not say which loops will run
            let asks = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
            assert_eq!(preferred > required, asks);
            let keeps = Kernels::detect() != Kernels::Scalar;
            let run = |buffer: &mut [u8]| {
                let mut session = Session::with_options(&model, options, buffer).unwrap();
                let mut bits = Vec::new();
                for x in &samples {
                    let x = &x[..model.input_shape().len()];
                    let mut logits = [0.0; 4];
                    let bytes: Vec<u8> = match is_int8 {
                        true => x.iter().map(|v| (v * 127.0) as i8 as u8).collect(),
                        false => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
                    };
                    session.forward_bytes(&bytes).unwrap();
                    session.logits(&mut logits).unwrap();
                    bits.extend(logits.map(f32::to_bits));
                    if mode == Mode::Attack {
                        let gradient = session.backward(&[1.0, -2.0, 0.5, 0.25]).unwrap();
                        bits.extend(gradient.iter().map(|v| v.to_bits()));
                    }
                }
                bits
            };
            let mut ample = Lines::zeroed(preferred + MORE);
            ample.fill(0xa5);
            let expected = run(&mut ample[..required]);
            // an int8 network's weights are put in order before the first run, by loops that need them so
            let _ = Session::with_options(&model, options, &mut ample).unwrap();
            let is_ready = ample[required..preferred].iter().any(|&b| b != 0xa5);
            assert_eq!(is_ready, is_int8 && mode == Mode::Infer && has_products());
            assert_eq!(run(&mut ample), expected);
            assert!(ample[preferred..].iter().all(|&byte| byte == 0xa5));
            assert_eq!(ample[required..preferred].iter().any(|&b| b != 0xa5), keeps);
        }
    }
}

/// Layers that a session looks at once see as many samples as there are now, and those behind the first ones are looked at each time.
#[test]
fn a_session_can_take_fewer_samples_and_go_through_many_layers() {
    const LAYERS: u32 = 40;
    let mut b = Builder::new(&[30], (-1.0, 1.0), 3).unwrap();
    let mut x = b.input();
    for i in 0..LAYERS {
        x = b.dense(x, 17 + i % 3, Activation::None).unwrap();
    }
    let long = b.finish(x);
    for float in [long, convolutions()] {
        let len = float.tensors[float.input].shape.len();
        let calibration = sample(4 * len, 7);
        let int8 = quantize(&float, &calibration, &Default::default()).unwrap();
        for graph in [float, int8] {
            let image = to_image(&graph).unwrap();
            let model = image.model().unwrap();
            let is_int8 = model.tables().dtype(model.tables().input()) == DType::I8;
            let bytes = |x: &[f32]| -> Vec<u8> {
                match is_int8 {
                    true => x.iter().map(|v| (v * 127.0) as i8 as u8).collect(),
                    false => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
                }
            };
            let answers = |kernels: Kernels, batches: &[usize]| {
                let mut memory = Lines::zeroed(model.preferred_buffer_for(Mode::Infer, 4).unwrap());
                let options = Options {
                    mode: Mode::Infer,
                    batch: 4,
                    kernels,
                };
                let mut session = Session::with_options(&model, options, &mut memory).unwrap();
                let (mut left, mut all) = (&calibration[..], Vec::new());
                for &batch in batches {
                    let (now, rest) = left.split_at(batch * len);
                    session.set_batch(batch).unwrap();
                    match session.forward_bytes(&bytes(now)).unwrap() {
                        Data::F32(y) => all.extend(y.iter().map(|y| y.to_bits())),
                        Data::I8(y) => all.extend(y.iter().map(|&y| y as u32)),
                        other => panic!("{other:?}"),
                    }
                    left = rest;
                }
                all
            };
            let scalar = answers(Kernels::Scalar, &[1; 4]);
            let fused = answers(Kernels::detect(), &[1; 4]);
            for batches in [&[4][..], &[1, 3], &[2, 1, 1], &[3, 1]] {
                assert_eq!(answers(Kernels::detect_exact(), batches), scalar);
                assert_eq!(answers(Kernels::detect(), batches), fused);
            }
            let first = &scalar[..scalar.len() / 4];
            assert!(first.iter().any(|&y| y != first[0]));
        }
    }
}

/// What attacks see of a network is what inference answers, to the bit.
#[test]
fn both_modes_have_the_same_logits() {
    for graph in [convolutions(), shrinking(), ties::network(true)] {
        let image = to_image(&graph).unwrap();
        let model = image.model().unwrap();
        let x = sample(model.input_shape().len(), 3);
        let logits = |mode: Mode| {
            let options = Options {
                kernels: Kernels::detect(),
                ..Options::new(mode)
            };
            let mut memory = Lines::zeroed(model.preferred_buffer_for(mode, 1).unwrap());
            let mut session = Session::with_options(&model, options, &mut memory).unwrap();
            bits(session.forward_f32(&x).unwrap())
        };
        assert_eq!(logits(Mode::Infer), logits(Mode::Attack));
    }
}

/// Strides beyond the window ask for no memory that nobody has a use for, and batches near the limit of 31 bits for none behind it.
#[test]
fn a_small_model_prefers_a_small_buffer() {
    let mut b = Builder::new(&[1, 1, 2], (-1.0, 1.0), 5).unwrap();
    let wide = Window::same(3).stride(65535);
    let x = b.conv2d(b.input(), 4, wide, Activation::None).unwrap();
    let image = to_image(&b.finish(x)).unwrap();
    let model = image.model().unwrap();
    let preferred = model.preferred_buffer_for(Mode::Attack, 1).unwrap();
    assert!(preferred < 64 * 1024, "{preferred}");
    let image = to_image(&convolutions()).unwrap();
    let model = image.model().unwrap();
    let largest = i32::MAX as usize / model.required_buffer(Mode::Infer);
    let required = model.required_buffer_for(Mode::Infer, largest).unwrap();
    let preferred = model.preferred_buffer_for(Mode::Infer, largest).unwrap();
    assert_eq!(preferred, required);
    assert_eq!(model.preferred_buffer_for(Mode::Infer, largest + 1), None);
}
