//! Autoencoders that detect anomalies: two scores from the difference between output and input, and attacks on them.

use foolproof::attack::{Ball, Norm, Spec, Task};
use foolproof::loss::{Goal, Loss, Objective};
use foolproof::memory::Mode;
use foolproof::model::{Model, ModelError};
use foolproof::ops::Activation;
use foolproof::session::{Options, Session};
use foolproof::threat::{LabelOracle, ScoreOracle};
use foolproof_host::graph::{Builder, Graph, GraphError, to_image, to_image_smallest};
use foolproof_host::quantize::quantize;
use zerocopy::IntoBytes;

const N: usize = 12;
const ABOVE: f32 = 0.2;

fn autoencoder() -> Graph {
    let mut b = Builder::new(&[N as u32], (-1.0, 1.0), 3).unwrap();
    let x = b.dense(b.input(), 6, Activation::Relu).unwrap();
    let x = b.dense(x, 4, Activation::Relu).unwrap();
    let x = b.dense(x, N as u32, Activation::None).unwrap();
    let mut graph = b.finish(x);
    graph.anomaly_above = Some(ABOVE);
    graph
}

fn sample(seed: u64) -> Vec<f32> {
    use rand_core::Rng;
    let mut rng = foolproof::attack::rng(seed, 0);
    (0..N)
        .map(|_| (rng.next_u32() >> 8) as f32 / 8_388_608.0 - 1.0)
        .collect()
}

fn buffer(model: &Model<'_>, mode: Mode, batch: usize) -> Vec<u128> {
    let bytes = model.required_buffer_for(mode, batch).unwrap();
    vec![0x5a5a_5a5a; bytes.div_ceil(16)]
}

fn mean_squared(x: &[f32], y: &[f32]) -> f64 {
    let squares = x.iter().zip(y).map(|(x, y)| f64::from(x - y).powi(2));
    squares.sum::<f64>() / x.len() as f64
}

#[test]
fn scores_and_label_say_how_far_the_output_is_from_the_input() {
    let image = to_image(&autoencoder()).unwrap();
    let model = image.model().unwrap();
    assert_eq!((model.classes(), model.anomaly_above()), (2, Some(ABOVE)));
    let mut memory = buffer(&model, Mode::Infer, 1);
    let mut session = Session::new(&model, Mode::Infer, memory.as_mut_bytes()).unwrap();
    let mut seen = [0, 0];
    for seed in 0..40 {
        let mut x = sample(seed);
        x.iter_mut().for_each(|v| *v *= 0.3 + seed as f32 / 40.0);
        let mut scores = [0.0; 2];
        let label = session.scores(&x[..], &mut scores).unwrap();
        let y = session.forward_f32(&x).unwrap().to_vec();
        let error = mean_squared(&x, &y);
        let r = (error / f64::from(ABOVE)).ln();
        assert!((f64::from(scores[1]) - r).abs() < 1e-4, "{scores:?} {r}");
        assert_eq!(scores[0], -scores[1]);
        assert!((f64::from(session.reconstruction_error(0)) - error).abs() < 1e-5);
        if r.abs() > 1e-4 {
            assert_eq!(label, usize::from(error > f64::from(ABOVE)));
        }
        seen[label] += 1;
    }
    assert!(seen[0] > 3 && seen[1] > 3, "{seen:?}");
}

#[test]
fn the_gradient_is_the_finite_difference_of_the_scores() {
    let graph = autoencoder();
    let plain = to_image(&graph).unwrap();
    let small = to_image_smallest(&graph).unwrap();
    for image in [plain, small] {
        let model = image.model().unwrap();
        let mut memory = buffer(&model, Mode::Attack, 1);
        let mut session = Session::new(&model, Mode::Attack, memory.as_mut_bytes()).unwrap();
        let x = sample(1);
        for loss in [Loss::CrossEntropy, Loss::Margin] {
            let goal = Goal::Avoid(0);
            let objective = Objective { loss, goal };
            session.forward_f32(&x).unwrap();
            let (value, gradient) = session.differentiate(objective).unwrap();
            let gradient = gradient.to_vec();
            let mut at = |x: &[f32]| {
                let mut z = [0.0; 2];
                session.scores(x, &mut z).unwrap();
                f64::from(objective.differentiate(&mut z))
            };
            assert!((f64::from(value) - at(&x)).abs() < 1e-5);
            let (mut difference, mut size) = (0.0, 0.0);
            for i in 0..N {
                let h = 1e-3;
                let mut moved = x.clone();
                moved[i] = x[i] + h;
                let up = at(&moved);
                moved[i] = x[i] - h;
                let numeric = (up - at(&moved)) / (2.0 * f64::from(h));
                difference += (numeric - f64::from(gradient[i])).powi(2);
                size += numeric.powi(2);
            }
            let relative = (difference / size).sqrt();
            assert!(size > 1e-3 && relative < 0.01, "{loss:?}: {relative}");
        }
    }
}

#[test]
fn a_batch_gives_each_sample_what_it_gets_alone() {
    let image = to_image(&autoencoder()).unwrap();
    let model = image.model().unwrap();
    let batch = 3;
    let x: Vec<f32> = (0..batch).flat_map(|i| sample(i as u64)).collect();
    let g = [0.5, 1.0, -2.0, 0.0, 1.5, -1.0];
    let options = Options {
        batch,
        ..Options::new(Mode::Attack)
    };
    let mut memory = buffer(&model, Mode::Attack, batch);
    let mut together = Session::with_options(&model, options, memory.as_mut_bytes()).unwrap();
    together.forward_f32(&x).unwrap();
    let mut scores = [0.0; 6];
    together.logits(&mut scores).unwrap();
    let gradients = together.backward(&g).unwrap().to_vec();
    let mut memory = buffer(&model, Mode::Attack, 1);
    let mut alone = Session::new(&model, Mode::Attack, memory.as_mut_bytes()).unwrap();
    for i in 0..batch {
        alone.forward_f32(&x[i * N..][..N]).unwrap();
        let mut own = [0.0; 2];
        alone.logits(&mut own).unwrap();
        assert_eq!(own, scores[2 * i..][..2]);
        let own = alone.backward(&g[2 * i..][..2]).unwrap();
        assert_eq!(own, &gradients[i * N..][..N]);
    }
    assert!(
        alone.backward(&[1.0, 2.0]).is_err(),
        "one forward serves one backward"
    );
    alone.forward_f32(&x[..N]).unwrap();
    assert!(alone.backward(&[1.0; N]).is_err(), "there are two scores");
}

#[test]
fn an_attack_hides_an_anomaly_and_raises_a_false_alarm() {
    let float = autoencoder();
    let calibration: Vec<f32> = (0..16).flat_map(sample).collect();
    let int8 = quantize(&float, &calibration, &Default::default()).unwrap();
    assert_eq!(int8.anomaly_above, Some(ABOVE));
    let image = to_image(&int8).unwrap();
    let model = image.model().unwrap();
    let mut memory = buffer(&model, Mode::Attack, 1);
    let mut session = Session::new(&model, Mode::Attack, memory.as_mut_bytes()).unwrap();
    let ball = Ball {
        norm: Norm::Linf,
        epsilon: 40.0,
        low: -128.0,
        high: 127.0,
    };
    let spec = Spec::pgd(ball, 20).on_lattice();
    let (mut tried, mut fooled) = ([0, 0], [0, 0]);
    for seed in 0..40 {
        let x: Vec<i8> = sample(seed).iter().map(|v| (v * 127.0) as i8).collect();
        let label = session.classify(&x[..]).unwrap();
        let before = session.reconstruction_error(0);
        let mut out = [0_i8; N];
        let task = Task {
            x: &x[..],
            class: label,
            seed: 1,
            sample: seed,
            scratch: &mut [],
        };
        let outcome = spec.run(&mut session, task, &mut out[..]).unwrap();
        assert_eq!(session.classify(&out[..]).unwrap(), outcome.label);
        let after = session.reconstruction_error(0);
        assert_eq!(outcome.label, usize::from(after > ABOVE));
        tried[label] += 1;
        fooled[label] += usize::from(outcome.fooled);
        match label {
            0 => assert!(after > before, "a false alarm is looked for"),
            _ => assert!(after < before, "an anomaly is to be hidden"),
        }
    }
    assert!(fooled[0] > 0 && fooled[1] > 0, "{fooled:?} of {tried:?}");
}

#[test]
fn a_model_that_answers_with_another_number_of_values_is_no_detector() {
    let mut b = Builder::new(&[N as u32], (-1.0, 1.0), 3).unwrap();
    let x = b.dense(b.input(), 6, Activation::None).unwrap();
    let mut graph = b.finish(x);
    for above in [0.5, f32::NAN, -1.0, f32::INFINITY] {
        graph.anomaly_above = Some(above);
        let error = to_image(&graph).unwrap_err();
        match above {
            0.5 => assert!(matches!(
                error,
                GraphError::Invalid(ModelError::Tensor { .. })
            )),
            _ => assert_eq!(error, GraphError::Invalid(ModelError::Header)),
        }
    }
}
