//! What recurrent models keep from run to run.

use super::*;

/// An LSTM over `steps` frames, a mean over them, and a dense layer.
fn recurrent(steps: u32) -> Graph {
    let mut b = Builder::new(&[steps, 3], (-1.0, 1.0), 8).unwrap();
    let h = b.lstm(b.input(), 4).unwrap();
    let h = b.reshape(h, &[1, steps, 1, 4]).unwrap();
    let h = b.global_avg_pool2d(h).unwrap();
    let y = b.dense(h, 3, Activation::None).unwrap();
    b.finish(y)
}

#[test]
fn a_state_goes_on_from_run_to_run_until_it_is_reset() {
    let image = to_image(&recurrent(1)).unwrap();
    let model = image.model().unwrap();
    assert!(model.is_stateful());
    let mut memory = buffer(&model, Mode::Infer, 1);
    let mut session = Session::new(&model, Mode::Infer, bytes(&mut memory)).unwrap();
    let frames = sample(4 * 3, 3);
    let run = |session: &mut Session<'_>| -> Vec<Vec<f32>> {
        let frames = frames.chunks(3);
        frames
            .map(|x| session.forward_f32(x).unwrap().to_vec())
            .collect()
    };
    let first = run(&mut session);
    let second = run(&mut session);
    assert_ne!(first[0], second[0]);
    session.reset_state();
    assert_eq!(run(&mut session), first);

    // frame after frame, or all at once: the hidden state behind the last one is the same
    let whole = to_image(&recurrent(4)).unwrap();
    let whole = whole.model().unwrap();
    let lstm = whole.tables().node(0).output;
    let mut memory = buffer(&whole, Mode::Infer, 1);
    let mut session = Session::new(&whole, Mode::Infer, bytes(&mut memory)).unwrap();
    let mut hidden = Vec::new();
    let x = zerocopy::IntoBytes::as_bytes(&frames[..]);
    let mut keep = |t: usize, data: foolproof::tensor::Data<'_>| {
        if let (true, foolproof::tensor::Data::F32(h)) = (t == lstm, data) {
            hidden = h[3 * 4..].to_vec();
        }
    };
    session.trace(x, &mut keep).unwrap();
    let tables = model.tables();
    let mut memory = buffer(&model, Mode::Infer, 1);
    let mut session = Session::new(&model, Mode::Infer, bytes(&mut memory)).unwrap();
    let mut last = Vec::new();
    for x in frames.chunks(3) {
        let x = zerocopy::IntoBytes::as_bytes(x);
        let mut keep = |t: usize, data: foolproof::tensor::Data<'_>| {
            if let (true, foolproof::tensor::Data::F32(h)) = (t == tables.node(0).output, data) {
                last = h.to_vec();
            }
        };
        session.trace(x, &mut keep).unwrap();
    }
    assert_eq!(last, hidden);
}

/// An attacker asks about one window: what came before must not matter, or the same input had two answers.
#[test]
fn attacks_begin_every_run_with_the_reset_state() {
    let image = to_image(&recurrent(5)).unwrap();
    let model = image.model().unwrap();
    let mut memory = buffer(&model, Mode::Attack, 1);
    let mut session = Session::new(&model, Mode::Attack, bytes(&mut memory)).unwrap();
    let x = sample(15, 4);
    let objective = Objective {
        loss: Loss::CrossEntropy,
        goal: Goal::Avoid(1),
    };
    let (mut a, mut b) = (vec![0.0; 3], vec![0.0; 3]);
    session.scores(&x, &mut a).unwrap();
    let first = session.gradient(&x, objective).unwrap().input.to_vec();
    session.forward_f32(&sample(15, 5)).unwrap();
    session.scores(&x, &mut b).unwrap();
    assert_eq!(a, b);
    assert_eq!(session.gradient(&x, objective).unwrap().input, first);

    // and the gradient through time is the real one
    let mut worst = 0_f64;
    for i in 0..x.len() {
        let mut side = |delta: f32| {
            let mut moved = x.clone();
            moved[i] += delta;
            session.reset_state();
            objective_value(&mut session, &moved, objective)
        };
        let difference = (side(1e-2) - side(-1e-2)) / 2e-2;
        worst = worst.max((difference - f64::from(first[i])).abs());
    }
    let largest = first.iter().fold(0.0_f32, |m, g| m.max(g.abs()));
    assert!(
        worst < 2e-3 * f64::from(largest).max(0.1),
        "{worst} of {largest}"
    );
}

#[test]
fn every_sample_of_a_batch_has_its_own_state() {
    let image = to_image(&recurrent(2)).unwrap();
    let model = image.model().unwrap();
    assert!(model.is_batchable());
    let x = sample(2 * 6, 6);
    let gy = sample(6, 7);
    let mut alone = Vec::new();
    for (x, gy) in x.chunks(6).zip(gy.chunks(3)) {
        let mut memory = buffer(&model, Mode::Attack, 1);
        let mut session = Session::new(&model, Mode::Attack, bytes(&mut memory)).unwrap();
        session.forward_f32(x).unwrap();
        let y = session.forward_f32(x).unwrap().to_vec();
        alone.push((y, session.backward(gy).unwrap().to_vec()));
    }
    let options = Options {
        batch: 2,
        ..Options::new(Mode::Attack)
    };
    let mut memory = buffer(&model, Mode::Attack, 2);
    let mut session = Session::with_options(&model, options, bytes(&mut memory)).unwrap();
    session.forward_f32(&x).unwrap();
    let y = session.forward_f32(&x).unwrap().to_vec();
    let gx = session.backward(&gy).unwrap().to_vec();
    for (i, (one_y, one_gx)) in alone.iter().enumerate() {
        assert_eq!(&y[3 * i..3 * i + 3], one_y);
        assert_eq!(&gx[6 * i..6 * i + 6], one_gx);
    }
}

/// Training a recurrent network: its parameters' gradients lead downhill.
#[test]
fn a_recurrent_network_learns() {
    let image = to_image(&recurrent(3)).unwrap();
    let model = image.model().unwrap();
    let mut memory = buffer(&model, Mode::Train, 1);
    let mut session = Session::new(&model, Mode::Train, bytes(&mut memory)).unwrap();
    let x = sample(9, 9);
    let objective = Objective {
        loss: Loss::CrossEntropy,
        goal: Goal::Reach(2),
    };
    let mut losses = Vec::new();
    for _ in 0..60 {
        session.forward_f32(&x).unwrap();
        session.zero_parameter_gradients().unwrap();
        losses.push(session.differentiate(objective).unwrap().0);
        let (parameters, gradients) = session.parameters_and_gradients().unwrap();
        for (p, g) in parameters.iter_mut().zip(gradients) {
            *p -= 0.2 * *g;
        }
    }
    assert!(losses[59] < 0.3 * losses[0], "{losses:?}");
}
