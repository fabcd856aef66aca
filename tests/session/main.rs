//! Sessions on whole networks: gradients, batches, modes, buffers, errors.

mod preferred;
mod state;
mod ties;

use foolproof::attack::{Ball, Norm, Spec, Task};
use foolproof::kernels::Kernels;
use foolproof::loss::{Goal, Loss, Objective};
use foolproof::memory::Mode;
use foolproof::model::{Model, required_buffer};
use foolproof::ops::{Activation, Unary};
use foolproof::session::{Buffer, Options, Session, SessionError};
use foolproof::threat::{Budget, Counted, CountedError, GradientOracle, LabelOracle, ScoreOracle};
use foolproof_host::graph::{Builder, Graph, Image, Window, to_image};

/// A network with every kind of memory life: a residual sum, a concatenation, pools, a reshape in the middle, smooth and
/// clamped activations, batch norm, a softmax after the logits.
fn network() -> Graph {
    let mut b = Builder::new(&[6, 6, 2], (-1.0, 1.0), 5).unwrap();
    let x = b
        .conv2d(b.input(), 4, Window::same(3), Activation::Relu)
        .unwrap();
    let x = b.batch_norm(x).unwrap();
    let side = b
        .depthwise_conv2d(x, 1, Window::same(3), Activation::None)
        .unwrap();
    let side = b.unary(side, Unary::Tanh).unwrap();
    let x = b.add(x, side, Activation::Relu6).unwrap();
    let smooth = b.unary(x, Unary::Sigmoid).unwrap();
    let x = b.mul(x, smooth, Activation::None).unwrap();
    let pooled = b.max_pool2d(x, Window::same(2).stride(2)).unwrap();
    let mean = b.avg_pool2d(x, Window::same(2).stride(2)).unwrap();
    let x = b.concat(vec![pooled, mean], 3).unwrap();
    let x = b.reshape(x, &[1, 9, 1, 8]).unwrap();
    let x = b.unary(x, Unary::LeakyRelu { alpha: 0.2 }).unwrap();
    let x = b.dense(x, 5, Activation::None).unwrap();
    let x = b.softmax(x).unwrap();
    b.finish(x)
}

fn sample(n: usize, seed: u64) -> Vec<f32> {
    use rand_core::Rng;
    let mut rng = foolproof::attack::rng(seed, 0);
    (0..n)
        .map(|_| (rng.next_u32() >> 8) as f32 / 8_388_608.0 - 1.0)
        .collect()
}

fn buffer(model: &Model<'_>, mode: Mode, batch: usize) -> Vec<u128> {
    let bytes = model.required_buffer_for(mode, batch).unwrap();
    vec![0; bytes.div_ceil(16)]
}

fn open<'a>(
    model: &Model<'a>,
    (mode, batch, kernels): (Mode, usize, Kernels),
    buffer: &'a mut [u128],
) -> Session<'a> {
    let options = Options {
        mode,
        batch,
        kernels,
    };
    Session::with_options(model, options, bytes(buffer)).unwrap()
}

fn bytes(buffer: &mut [u128]) -> &mut [u8] {
    zerocopy::IntoBytes::as_mut_bytes(buffer)
}

fn objective_value(session: &mut Session<'_>, x: &[f32], objective: Objective) -> f64 {
    session.forward_f32(x).unwrap();
    let mut z = vec![0.0; session.model().classes()];
    session.logits(&mut z).unwrap();
    f64::from(objective.differentiate(&mut z))
}

#[test]
fn the_input_gradient_of_a_whole_network_is_its_finite_difference() {
    let image = to_image(&network()).unwrap();
    let model = image.model().unwrap();
    let mut memory = buffer(&model, Mode::Attack, 1);
    let mut session = Session::new(&model, Mode::Attack, bytes(&mut memory)).unwrap();
    let x = sample(72, 1);
    let objective = Objective {
        loss: Loss::CrossEntropy,
        goal: Goal::Avoid(2),
    };
    session.forward_f32(&x).unwrap();
    let gradient = session.differentiate(objective).unwrap().1.to_vec();
    let (mut difference, mut size) = (0.0_f64, 0.0_f64);
    let h = 1e-2_f32;
    for i in 0..x.len() {
        let mut moved = x.clone();
        moved[i] = x[i] + h;
        let up = objective_value(&mut session, &moved, objective);
        moved[i] = x[i] - h;
        let down = objective_value(&mut session, &moved, objective);
        let numeric = (up - down) / (2.0 * f64::from(h));
        difference += (numeric - f64::from(gradient[i])).powi(2);
        size += numeric.powi(2);
    }
    assert!(size > 1e-4, "the gradient must not be masked: {size}");
    let relative = (difference / size).sqrt();
    // f32 differences through kinks of a whole network: loose; the operators have tight tests of their own
    assert!(relative < 0.05, "{relative}");
}

#[test]
fn attack_and_train_mode_give_the_same_input_gradient_without_batch_norm() {
    let mut b = Builder::new(&[5, 5, 1], (0.0, 1.0), 3).unwrap();
    let x = b
        .conv2d(b.input(), 3, Window::same(3), Activation::Relu)
        .unwrap();
    let x = b.dense(x, 4, Activation::None).unwrap();
    let image = to_image(&b.finish(x)).unwrap();
    let model = image.model().unwrap();
    let x = sample(25, 9);
    let gradients: Vec<Vec<f32>> = [Mode::Attack, Mode::Train]
        .iter()
        .map(|&mode| {
            let mut memory = buffer(&model, mode, 1);
            let mut session = Session::new(&model, mode, bytes(&mut memory)).unwrap();
            session.forward_f32(&x).unwrap();
            session.backward(&[1.0, -2.0, 0.5, 0.0]).unwrap().to_vec()
        })
        .collect();
    assert_eq!(gradients[0], gradients[1]);
}

#[test]
fn the_input_gradient_alone_leaves_the_parameters_gradients_as_they_are() {
    let mut b = Builder::new(&[5, 5, 1], (0.0, 1.0), 3).unwrap();
    let x = b
        .conv2d(b.input(), 3, Window::same(3), Activation::None)
        .unwrap();
    let x = b.batch_norm(x).unwrap();
    let x = b.dense(x, 4, Activation::None).unwrap();
    let image = to_image(&b.finish(x)).unwrap();
    let model = image.model().unwrap();
    let x = sample(25, 9);
    let mut memory = buffer(&model, Mode::Train, 1);
    let mut session = Session::new(&model, Mode::Train, bytes(&mut memory)).unwrap();
    let mut run = |alone: bool| {
        session.zero_parameter_gradients().unwrap();
        session.forward_f32(&x).unwrap();
        let seed = [1.0, -2.0, 0.5, 0.0];
        let input = match alone {
            true => session.input_gradient(&seed).unwrap().to_vec(),
            false => session.backward(&seed).unwrap().to_vec(),
        };
        (input, session.parameter_gradients().unwrap().to_vec())
    };
    let (both, parameters) = run(false);
    assert!(parameters.iter().any(|&g| g != 0.0));
    let (alone, untouched) = run(true);
    assert_eq!(both, alone);
    assert!(untouched.iter().all(|&g| g == 0.0));
}

#[test]
fn the_parameters_gradients_alone_are_those_of_both() {
    // the input goes through a reshape to two layers
    let mut b = Builder::new(&[5, 5, 1], (0.0, 1.0), 3).unwrap();
    let flat = b.reshape(b.input(), &[1, 25]).unwrap();
    let left = b.dense(flat, 6, Activation::Relu).unwrap();
    let right = b.dense(flat, 6, Activation::None).unwrap();
    let x = b.add(left, right, Activation::None).unwrap();
    let x = b.dense(x, 4, Activation::None).unwrap();
    for (graph, x, seed) in [
        (b.finish(x), sample(25, 9), sample(4, 2)),
        (network(), sample(72, 9), sample(5, 2)),
    ] {
        let image = to_image(&graph).unwrap();
        let model = image.model().unwrap();
        let mut memory = buffer(&model, Mode::Train, 1);
        let mut session = Session::new(&model, Mode::Train, bytes(&mut memory)).unwrap();
        let mut run = |alone: bool| {
            session.zero_parameter_gradients().unwrap();
            session.forward_f32(&x).unwrap();
            match alone {
                true => session.backward_parameters(&seed).unwrap(),
                false => drop(session.backward(&seed).unwrap().to_vec()),
            }
            session.parameter_gradients().unwrap().to_vec()
        };
        let both = run(false);
        assert!(both.iter().any(|&g| g != 0.0));
        assert_eq!(both, run(true));
    }
    let image = to_image(&network()).unwrap();
    let model = image.model().unwrap();
    let mut memory = buffer(&model, Mode::Attack, 1);
    let mut session = Session::new(&model, Mode::Attack, bytes(&mut memory)).unwrap();
    session.forward_f32(&sample(72, 9)).unwrap();
    let mode = Mode::Attack;
    assert_eq!(
        session.backward_parameters(&[0.0; 5]),
        Err(SessionError::WrongMode { mode })
    );
}

/// Layers that write the first gradient of a tensor, in every order: convolutions with one and two readers, sums (of a tensor and itself too), 2x2
/// pools with and without a remainder, vectors of channels and fewer.
fn first_writers(channels: u32) -> Graph {
    let mut b = Builder::new(&[10, 10, 3], (-1.0, 1.0), 7).unwrap();
    let same = Window::same(3);
    let pool = Window {
        same: false,
        ..Window::same(2).stride(2)
    };
    let x = b
        .conv2d(b.input(), channels, same, Activation::Relu)
        .unwrap();
    let side = b.conv2d(x, channels, same, Activation::None).unwrap();
    let x = b.add(x, side, Activation::Relu).unwrap();
    let x = b.max_pool2d(x, pool).unwrap();
    let x = b.add(x, x, Activation::None).unwrap();
    let x = b.max_pool2d(x, pool).unwrap();
    let strided = Window::same(3).stride(2);
    let x = b
        .conv2d(x, 2 * channels, strided, Activation::Relu)
        .unwrap();
    let x = b.reshape(x, &[1, 2 * channels]).unwrap();
    let x = b.dense(x, 5, Activation::None).unwrap();
    b.finish(x)
}

#[test]
fn what_was_in_the_buffer_changes_no_gradient() {
    for channels in [3, 8] {
        let image = to_image(&first_writers(channels)).unwrap();
        let model = image.model().unwrap();
        for (mode, batch) in [Mode::Attack, Mode::Train]
            .into_iter()
            .flat_map(|mode| [(mode, 1), (mode, 3)])
        {
            let (x, seed) = (sample(300 * batch, 9), sample(5 * batch, 2));
            let run = |kernels, before: u128| {
                let mut memory = buffer(&model, mode, batch);
                memory.fill(before);
                let mut session = open(&model, (mode, batch, kernels), &mut memory);
                let mut found = Vec::new();
                // the second time after a backward has used the slots
                for _ in 0..2 {
                    if mode == Mode::Train {
                        session.zero_parameter_gradients().unwrap();
                    }
                    session.forward_f32(&x).unwrap();
                    found.extend_from_slice(session.backward(&seed).unwrap());
                    if mode == Mode::Train {
                        found.extend_from_slice(session.parameter_gradients().unwrap());
                    }
                }
                found
            };
            let exact = run(Kernels::detect_exact(), 0);
            let clean = run(Kernels::detect(), 0);
            // all bits set are no numbers
            let used = run(Kernels::detect(), u128::MAX);
            assert_eq!(bits(&clean), bits(&used), "{mode:?} {batch} {channels}");
            let (first, second) = clean.split_at(clean.len() / 2);
            assert_eq!(bits(first), bits(second), "{mode:?} {batch} {channels}");
            let largest = exact.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            assert!(largest > 0.0);
            for (a, b) in clean.iter().zip(&exact) {
                assert!((a - b).abs() <= 1e-4 * largest, "{a} {b}");
            }
        }
    }
}

/// Pools among other operators, over numbers that are often equal: what scalar loops write in two steps vector loops write at once.
#[test]
fn the_exact_kernels_have_the_gradients_of_the_scalar_ones() {
    for channels in [3, 8] {
        let image = to_image(&first_writers(channels)).unwrap();
        let model = image.model().unwrap();
        for (mode, batch) in [(Mode::Attack, 1), (Mode::Train, 3)] {
            let x: Vec<f32> = sample(300 * batch, 6).iter().map(|v| v.round()).collect();
            let run = |kernels| {
                let mut memory = buffer(&model, mode, batch);
                let mut session = open(&model, (mode, batch, kernels), &mut memory);
                let mut found = session.forward_f32(&x).unwrap().to_vec();
                found.extend_from_slice(session.backward(&sample(5 * batch, 2)).unwrap());
                if mode == Mode::Train {
                    found.extend_from_slice(session.parameter_gradients().unwrap());
                }
                found
            };
            let expected = run(Kernels::Scalar);
            assert!(expected[5 * batch..].iter().any(|&v| v != 0.0));
            let got = run(Kernels::detect_exact());
            assert_eq!(bits(&expected), bits(&got), "{mode:?} {batch} {channels}");
        }
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn a_batch_gives_each_sample_what_it_gets_alone() {
    let image = to_image(&network()).unwrap();
    let model = image.model().unwrap();
    assert!(model.is_batchable());
    let batch = 3;
    let x = sample(72 * batch, 4);
    let g = sample(5 * batch, 8);
    let mut memory = buffer(&model, Mode::Attack, batch);
    let options = Options {
        batch,
        ..Options::new(Mode::Attack)
    };
    let mut together = Session::with_options(&model, options, bytes(&mut memory)).unwrap();
    let y = together.forward_f32(&x).unwrap().to_vec();
    let gx = together.backward(&g).unwrap().to_vec();
    let mut memory = buffer(&model, Mode::Attack, 1);
    let mut alone = Session::new(&model, Mode::Attack, bytes(&mut memory)).unwrap();
    for i in 0..batch {
        assert_eq!(
            alone.forward_f32(&x[i * 72..][..72]).unwrap(),
            &y[i * 5..][..5]
        );
        assert_eq!(
            alone.backward(&g[i * 5..][..5]).unwrap(),
            &gx[i * 72..][..72]
        );
    }
}

#[test]
fn samples_in_several_slices_are_one_batch() {
    let image = to_image(&network()).unwrap();
    let model = image.model().unwrap();
    let batch = 3;
    let x = sample(72 * batch, 4);
    let mut memory = buffer(&model, Mode::Infer, batch);
    let options = Options {
        batch,
        ..Options::new(Mode::Infer)
    };
    let mut session = Session::with_options(&model, options, bytes(&mut memory)).unwrap();
    let y = session.forward_f32(&x).unwrap().to_vec();
    let cuts: [&[usize]; 4] = [&[], &[72], &[0, 100, 100], &[1, 144, 216]];
    for cuts in cuts {
        session.forward_f32(&sample(72 * batch, 5)).unwrap();
        let ends = cuts.iter().copied().chain([x.len()]);
        let starts = [0].into_iter().chain(cuts.iter().copied());
        let parts: Vec<&[f32]> = starts.zip(ends).map(|(from, to)| &x[from..to]).collect();
        assert_eq!(session.forward_f32_parts(&parts).unwrap(), y, "{cuts:?}");
    }
    for (parts, got) in [(&[&x[..], &x[..1]][..], 217), (&[&x[1..]], 215), (&[], 0)] {
        let length = SessionError::Length { needed: 216, got };
        assert_eq!(session.forward_f32_parts(parts), Err(length));
    }
}

/// Four layers of dense weights.
fn dense_network() -> Graph {
    let mut b = Builder::new(&[30], (-1.0, 1.0), 3).unwrap();
    let x = b.dense(b.input(), 20, Activation::Relu).unwrap();
    let x = b.dense(x, 20, Activation::None).unwrap();
    let x = b.dense(x, 20, Activation::None).unwrap();
    let x = b.dense(x, 1, Activation::None).unwrap();
    b.finish(x)
}

#[test]
fn a_session_can_take_fewer_samples_and_dense_layers_sum_two_halves_as_one_whole() {
    let image = to_image(&dense_network()).unwrap();
    let model = image.model().unwrap();
    let half = 5;
    let (x, seed) = (sample(30 * 2 * half, 4), sample(2 * half, 8));
    for kernels in [Kernels::Scalar, Kernels::detect_exact(), Kernels::detect()] {
        let mut memory = buffer(&model, Mode::Train, 2 * half);
        let options = Options {
            mode: Mode::Train,
            batch: 2 * half,
            kernels,
        };
        let mut session = Session::with_options(&model, options, bytes(&mut memory)).unwrap();
        session.zero_parameter_gradients().unwrap();
        let together = session.forward_f32(&x).unwrap().to_vec();
        session.backward_parameters(&seed).unwrap();
        let whole = session.parameter_gradients().unwrap().to_vec();
        session.set_batch(half).unwrap();
        assert_eq!(session.options().batch, half);
        session.zero_parameter_gradients().unwrap();
        for part in 0..2 {
            let x = &x[part * 30 * half..][..30 * half];
            let seed = &seed[part * half..][..half];
            let alone = session.forward_f32(x).unwrap();
            assert_eq!(bits(alone), bits(&together[part * half..][..half]));
            session.backward_parameters(seed).unwrap();
        }
        let halves = session.parameter_gradients().unwrap();
        assert_eq!(bits(halves), bits(&whole), "{kernels:?}");
        assert!(whole.iter().any(|&g| g != 0.0));
    }
}

/// More operators and tensors than a session looks at beforehand: each sum doubles, which is exact.
#[test]
fn long_networks_run_and_go_back_through_all_their_operators() {
    const SUMS: i32 = 70;
    let mut b = Builder::new(&[3], (-1.0, 1.0), 1).unwrap();
    let mut x = b.input();
    for _ in 0..SUMS {
        x = b.add(x, x, Activation::None).unwrap();
    }
    let image = to_image(&b.finish(x)).unwrap();
    let model = image.model().unwrap();
    let doubled = |x: &[f32]| x.iter().map(|x| x * 2.0_f32.powi(SUMS)).collect::<Vec<_>>();
    for kernels in [Kernels::Scalar, Kernels::detect_exact(), Kernels::detect()] {
        let mut memory = buffer(&model, Mode::Attack, 4);
        let options = Options {
            mode: Mode::Attack,
            batch: 4,
            kernels,
        };
        let mut session = Session::with_options(&model, options, bytes(&mut memory)).unwrap();
        for batch in [4, 1, 3] {
            session.set_batch(batch).unwrap();
            let (x, seed) = (sample(3 * batch, 2), sample(3 * batch, 9));
            assert_eq!(session.forward_f32(&x).unwrap(), doubled(&x));
            assert_eq!(session.backward(&seed).unwrap(), doubled(&seed));
        }
    }
}

#[test]
fn a_session_takes_no_more_samples_than_its_buffer_is_for() {
    let image = to_image(&dense_network()).unwrap();
    let model = image.model().unwrap();
    let required = |batch| model.required_buffer_for(Mode::Train, batch).unwrap();
    // the buffer that is lent may be larger
    let mut memory = buffer(&model, Mode::Train, 8);
    let options = Options {
        batch: 4,
        ..Options::new(Mode::Train)
    };
    let mut session = Session::with_options(&model, options, bytes(&mut memory)).unwrap();
    session.forward_f32(&sample(120, 1)).unwrap();
    let refused = SessionError::BufferTooSmall {
        needed: required(5),
        got: required(4),
    };
    assert_eq!(session.set_batch(5), Err(refused));
    let batch = 0;
    assert_eq!(session.set_batch(0), Err(SessionError::Batch { batch }));
    // what was refused changed nothing
    assert_eq!(session.options().batch, 4);
    session.backward_parameters(&sample(4, 2)).unwrap();
    session.forward_f32(&sample(120, 1)).unwrap();
    let gradients = session.parameter_gradients().unwrap().to_vec();
    session.set_batch(3).unwrap();
    let not_run = session.backward_parameters(&sample(3, 2));
    assert_eq!(not_run, Err(SessionError::NotRun));
    assert_eq!(session.parameter_gradients().unwrap(), gradients);
    let short = session.forward_f32(&sample(120, 1)).map(drop);
    assert_eq!(
        short,
        Err(SessionError::Length {
            needed: 90,
            got: 120
        })
    );
    session.set_batch(4).unwrap();
    session.forward_f32(&sample(120, 1)).unwrap();
}

/// Parameters' gradients that were cleared are set by whoever comes first to them. Layers that share weights, weights that nobody
/// has any more, and all kinds of layers.
#[test]
fn cleared_parameter_gradients_are_zeros_that_nobody_had_to_write() {
    let mut shared = dense_network();
    let weights = shared.nodes[1].inputs[1];
    shared.nodes[2].inputs[1] = weights;
    for (name, graph) in [
        ("dense", dense_network()),
        ("shared", shared),
        ("all kinds", network()),
    ] {
        let image = to_image(&graph).unwrap();
        let model = image.model().unwrap();
        let batch = 3;
        let x = sample(model.input_shape().len() * batch, 4);
        let seed = sample(model.classes() * batch, 8);
        for kernels in [Kernels::detect_exact(), Kernels::detect()] {
            let options = Options {
                mode: Mode::Train,
                batch,
                kernels,
            };
            let run = |looks: bool| {
                let mut memory = buffer(&model, Mode::Train, batch);
                memory.fill(u128::MAX);
                let memory = bytes(&mut memory);
                let mut session = Session::with_options(&model, options, memory).unwrap();
                session.zero_parameter_gradients().unwrap();
                if looks {
                    let gradients = session.parameter_gradients().unwrap();
                    assert!(gradients.iter().all(|&g| g == 0.0));
                }
                session.forward_f32(&x).unwrap();
                // leaves them alone
                session.input_gradient(&seed).unwrap();
                for _ in 0..2 {
                    session.forward_f32(&x).unwrap();
                    session.backward_parameters(&seed).unwrap();
                }
                session.parameter_gradients().unwrap().to_vec()
            };
            let (set, added) = (run(false), run(true));
            assert_eq!(bits(&set), bits(&added), "{name} {kernels:?}");
            assert!(set.iter().any(|&g| g != 0.0));
        }
    }
}

#[test]
fn one_forward_serves_one_backward() {
    let image = to_image(&network()).unwrap();
    let model = image.model().unwrap();
    let mut memory = buffer(&model, Mode::Attack, 1);
    let mut session = Session::new(&model, Mode::Attack, bytes(&mut memory)).unwrap();
    assert_eq!(session.backward(&[0.0; 5]), Err(SessionError::NotRun));
    session.forward_f32(&sample(72, 0)).unwrap();
    let mut before = [0.0; 5];
    session.logits(&mut before).unwrap();
    session.backward(&[1.0; 5]).unwrap();
    assert_eq!(session.backward(&[1.0; 5]), Err(SessionError::NotRun));
    let mut after = [0.0; 5];
    session.logits(&mut after).unwrap();
    assert_eq!(before, after, "backward leaves the logits in place");
}

#[test]
fn the_gradient_through_the_softmax_is_that_of_the_probabilities() {
    let image = to_image(&network()).unwrap();
    let model = image.model().unwrap();
    let mut memory = buffer(&model, Mode::Attack, 1);
    let mut session = Session::new(&model, Mode::Attack, bytes(&mut memory)).unwrap();
    let x = sample(72, 2);
    let p = session.forward_f32(&x).unwrap().to_vec();
    // d p_1 / d z_j = p_1 (delta_1j - p_j)
    let by_hand: Vec<f32> = (0..5)
        .map(|j| p[1] * (f32::from(u8::from(j == 1)) - p[j]))
        .collect();
    let through = session
        .backward_from_output(&[0.0, 1.0, 0.0, 0.0, 0.0])
        .unwrap()
        .to_vec();
    session.forward_f32(&x).unwrap();
    let direct = session.backward(&by_hand).unwrap();
    for (a, b) in through.iter().zip(direct) {
        assert!((a - b).abs() <= 1e-6 + 1e-4 * b.abs(), "{a} {b}");
    }
}

#[test]
fn buffers_of_the_wrong_size_are_refused_with_both_numbers() {
    let image = to_image(&network()).unwrap();
    let model = image.model().unwrap();
    for mode in [Mode::Infer, Mode::Attack, Mode::Train] {
        let needed = model.required_buffer(mode);
        assert_eq!(Some(needed), required_buffer(image.bytes(), mode));
        let mut memory = buffer(&model, mode, 1);
        let memory = bytes(&mut memory);
        for got in [0, 1, needed - 1] {
            let refused = Session::new(&model, mode, &mut memory[..got]).err();
            assert_eq!(refused, Some(SessionError::BufferTooSmall { needed, got }));
        }
        assert!(Session::new(&model, mode, &mut memory[..needed]).is_ok());
    }
    let mut memory = vec![0_u128; model.required_buffer(Mode::Infer) / 16 + 2];
    let refused = Session::new(&model, Mode::Infer, &mut bytes(&mut memory)[4..]).err();
    assert_eq!(refused, Some(SessionError::BufferMisaligned));
}

/// The image in `golden/dense.fpi`: one dense layer. With FOOLPROOF_BLESS=1 the file is written anew.
#[test]
fn the_format_has_not_changed_unnoticed() {
    let mut b = Builder::new(&[3], (-1.0, 1.0), 1).unwrap();
    let x = b.dense(b.input(), 2, Activation::Relu).unwrap();
    let image = to_image(&b.finish(x)).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/dense.fpi");
    if std::env::var_os("FOOLPROOF_BLESS").is_some() {
        std::fs::write(path, image.bytes()).unwrap();
    }
    assert!(
        std::fs::read(path).unwrap() == image.bytes(),
        "the bytes of an image changed: raise format::VERSION, then bless"
    );
}

#[test]
fn a_static_buffer_can_have_exactly_the_right_size() {
    const IMAGE: &[u8] = include_bytes!("../golden/dense.fpi");
    const SIZE: usize = match required_buffer(IMAGE, Mode::Attack) {
        Some(size) => size,
        None => panic!("not an image"),
    };
    let image = Image::from_bytes(IMAGE);
    let model = image.model().unwrap();
    let mut memory = Buffer::<SIZE>::new();
    let mut session = Session::new(&model, Mode::Attack, &mut memory.0).unwrap();
    assert_eq!(session.buffer_bytes(), SIZE);
    assert!(session.forward_f32(&[0.5, -0.5, 1.0]).is_ok());
}

#[test]
fn inputs_and_gradients_of_the_wrong_length_or_mode_are_refused() {
    let image = to_image(&network()).unwrap();
    let model = image.model().unwrap();
    let mut memory = buffer(&model, Mode::Infer, 1);
    let mut session = Session::new(&model, Mode::Infer, bytes(&mut memory)).unwrap();
    let length = SessionError::Length {
        needed: 72,
        got: 71,
    };
    assert_eq!(session.forward_f32(&[0.0; 71]), Err(length));
    assert!(matches!(
        session.forward_i8(&[0; 72]),
        Err(SessionError::Type { .. })
    ));
    session.forward_f32(&[0.0; 72]).unwrap();
    assert!(matches!(
        session.backward(&[0.0; 5]),
        Err(SessionError::WrongMode { .. })
    ));
    assert!(matches!(
        session.parameters(),
        Err(SessionError::WrongMode { .. })
    ));
    let mut memory = buffer(&model, Mode::Attack, 1);
    let mut session = Session::new(&model, Mode::Attack, bytes(&mut memory)).unwrap();
    session.forward_f32(&[0.0; 72]).unwrap();
    assert!(matches!(
        session.backward(&[0.0; 4]),
        Err(SessionError::Length { needed: 5, got: 4 })
    ));
}

#[test]
fn a_step_down_the_parameter_gradient_lowers_the_loss() {
    let image = to_image(&network()).unwrap();
    let model = image.model().unwrap();
    let batch = 4;
    let mut memory = buffer(&model, Mode::Train, batch);
    let options = Options {
        batch,
        ..Options::new(Mode::Train)
    };
    let mut session = Session::with_options(&model, options, bytes(&mut memory)).unwrap();
    let x = sample(72 * batch, 6);
    let mut losses = Vec::new();
    for _ in 0..20 {
        session.zero_parameter_gradients().unwrap();
        session.forward_f32(&x).unwrap();
        let mut z = vec![0.0; 5 * batch];
        session.logits(&mut z).unwrap();
        let loss: f32 = z
            .chunks_mut(5)
            .enumerate()
            .map(|(label, z)| Loss::CrossEntropy.differentiate(label, z))
            .sum();
        losses.push(loss);
        session.backward(&z).unwrap();
        let table: Vec<_> = session.parameter_table().collect();
        let (parameters, gradients) = session.parameters_and_gradients().unwrap();
        for (_, role, range) in table {
            if role == foolproof::model::format::TensorRole::Parameter {
                for i in range {
                    parameters[i] -= 0.05 * gradients[i];
                }
            }
        }
    }
    assert!(losses[19] < 0.5 * losses[0], "{losses:?}");
}

#[test]
fn budgets_are_exact() {
    let image = to_image(&network()).unwrap();
    let model = image.model().unwrap();
    let mut memory = buffer(&model, Mode::Attack, 1);
    let session = Session::new(&model, Mode::Attack, bytes(&mut memory)).unwrap();
    let budget = Budget {
        queries: 3,
        gradients: 1,
    };
    let mut oracle = Counted::new(session, budget);
    let x = sample(72, 3);
    let objective = Objective {
        loss: Loss::Margin,
        goal: Goal::Avoid(0),
    };
    oracle.gradient(&x, objective).unwrap();
    assert!(matches!(
        oracle.gradient(&x, objective),
        Err(CountedError::BudgetSpent)
    ));
    oracle.classify(&x).unwrap();
    oracle.scores(&x, &mut [0.0; 5]).unwrap();
    assert_eq!(oracle.classify(&x), Err(CountedError::BudgetSpent));
    assert_eq!((oracle.queries, oracle.gradients), (3, 1));
}

#[test]
fn attacks_stay_in_the_ball_and_in_the_box_and_raise_the_loss() {
    let image = to_image(&network()).unwrap();
    let model = image.model().unwrap();
    let mut memory = buffer(&model, Mode::Attack, 1);
    let options = Options {
        kernels: Kernels::Scalar,
        ..Options::new(Mode::Attack)
    };
    let mut session = Session::with_options(&model, options, bytes(&mut memory)).unwrap();
    for (norm, epsilon) in [(Norm::Linf, 0.1), (Norm::L2, 0.6)] {
        let ball = Ball {
            norm,
            epsilon,
            low: -1.0,
            high: 1.0,
        };
        for spec in [
            Spec::fgsm(ball),
            Spec::pgd(ball, 10),
            Spec::pgd(ball, 10).targeted(),
        ] {
            for seed in 0..10 {
                let x = sample(72, seed);
                let label = session.classify(&x).unwrap();
                let class = if spec.targeted {
                    (label + 1) % 5
                } else {
                    label
                };
                let objective = Objective {
                    loss: Loss::CrossEntropy,
                    goal: spec.goal(class),
                };
                let before = objective_value(&mut session, &x, objective);
                let mut out = vec![0.0; 72];
                let mut scratch = vec![0.0; spec.scratch_len(72, session.model().classes())];
                let task = Task {
                    x: &x,
                    class,
                    seed,
                    sample: seed,
                    scratch: &mut scratch,
                };
                let outcome = spec.run(&mut session, task, &mut out).unwrap();
                let after = objective_value(&mut session, &out, objective);
                assert!(after > before, "{norm:?} {after} {before}");
                let size = match norm {
                    Norm::L2 => x
                        .iter()
                        .zip(&out)
                        .map(|(a, b)| (a - b).powi(2))
                        .sum::<f32>()
                        .sqrt(),
                    _ => x
                        .iter()
                        .zip(&out)
                        .map(|(a, b)| (a - b).abs())
                        .fold(0.0, f32::max),
                };
                assert!(size <= epsilon * 1.00001, "{norm:?} {size}");
                assert!(out.iter().all(|v| (-1.0..=1.0).contains(v)));
                assert_eq!(outcome.fooled, spec.goal(class).is_met(outcome.label));
                assert_eq!(session.classify(&out).unwrap(), outcome.label);
            }
        }
    }
}
