//! In flat parts of an image windows are equal, and a maximum over them takes the first: loops that compute them by another way must not
//! make a difference where there is none.

use super::*;

/// Windows of 3x3 over eight channels, which vector loops take in tiles; with a maximum behind them, or an average.
pub(super) fn network(has_maximum: bool) -> Graph {
    let mut b = Builder::new(&[7, 7, 8], (-1.0, 1.0), 5).unwrap();
    let x = b.conv2d(b.input(), 16, Window::same(3), Activation::None);
    let halves = Window::same(2).stride(2);
    let x = match has_maximum {
        true => b.max_pool2d(x.unwrap(), halves),
        false => b.avg_pool2d(x.unwrap(), halves),
    };
    let x = b.dense(x.unwrap(), 4, Activation::None).unwrap();
    b.finish(x)
}

/// The gradient at a flat image.
fn gradient(model: &Model<'_>, kernels: Kernels) -> Vec<f32> {
    let options = Options {
        kernels,
        ..Options::new(Mode::Attack)
    };
    let mut buffer = buffer(model, Mode::Attack, 1);
    let mut session = Session::with_options(model, options, bytes(&mut buffer)).unwrap();
    let pixel = sample(8, 3);
    session.forward_f32(&pixel.repeat(7 * 7)).unwrap();
    session.backward(&[1.0, -2.0, 0.5, 0.25]).unwrap().to_vec()
}

#[test]
fn the_gradient_of_a_maximum_goes_where_the_scalar_loops_send_it() {
    for has_maximum in [true, false] {
        let image = to_image(&network(has_maximum)).unwrap();
        let model = image.model().unwrap();
        let expected = gradient(&model, Kernels::Scalar);
        let largest = expected.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
        for (a, b) in gradient(&model, Kernels::detect()).iter().zip(&expected) {
            assert!((a - b).abs() <= 1e-5 * largest, "{a}, not {b}");
        }
    }
}

/// Where nothing tells ties the larger tiles run, whose weights are the longer.
#[test]
fn ties_are_kept_where_a_maximum_tells_them() {
    let kept = |has_maximum: bool| {
        let image = to_image(&network(has_maximum)).unwrap();
        let model = image.model().unwrap();
        let preferred = model.preferred_buffer_for(Mode::Infer, 1).unwrap();
        preferred - model.required_buffer(Mode::Infer)
    };
    let (with, without) = (kept(true), kept(false));
    // whoever asks does not say which loops will run
    match cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        // 36 points of eight channels by sixteen filters for 16
        true => assert!(2 * with < without && with > 0, "{with}, {without}"),
        false => assert_eq!([with, without], [0; 2]),
    }
}
