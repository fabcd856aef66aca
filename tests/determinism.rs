//! Same seed, same result, whatever the number of threads.

use foolproof::attack::Norm;
use foolproof::kernels::Kernels;
use foolproof_host::attack::{Choice, Terms};
use foolproof_host::classifier::{Classifier, Inputs};
use foolproof_host::data::{Samples, digits};
use foolproof_host::evaluate::evaluate;
use foolproof_host::graph::{Graph, to_image};
use foolproof_host::networks;
use foolproof_host::train::classifier::{Config, Samples as TrainSamples, train};

fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.unwrap().install(work)
}

fn trained(seed: u64) -> Graph {
    let data = digits::load(digits::Part::Train).unwrap();
    let Samples::F32(x) = data.samples() else {
        panic!("the digits are f32");
    };
    let samples = TrainSamples {
        x,
        y: data.labels().unwrap(),
    };
    let config = Config {
        epochs: 2,
        noise: 0.1,
        shift: 1,
        ..Config::default()
    };
    let mut graph = networks::digits(seed).unwrap();
    train(&mut graph, samples, &config, seed, &mut |_| {}).unwrap();
    graph
}

#[test]
fn training_does_not_depend_on_the_number_of_threads() {
    let one = with_threads(1, || trained(3));
    assert_eq!(one, with_threads(2, || trained(3)));
    assert_eq!(one, with_threads(5, || trained(3)));
    assert_ne!(one, with_threads(1, || trained(4)), "the seed matters");
}

#[test]
fn attacks_do_not_depend_on_the_number_of_threads() {
    let image = to_image(&trained(3)).unwrap();
    let classifier = Classifier::new(image.model().unwrap(), Kernels::Scalar);
    let data = digits::load(digits::Part::Test).unwrap();
    let Samples::F32(x) = data.samples() else {
        panic!("the digits are f32");
    };
    let x = &x[..40 * classifier.input_len()];
    let run = |name: &str, threads, seed| -> Inputs {
        with_threads(threads, || {
            let inputs = classifier.inputs(x);
            let labels = &data.labels().unwrap()[..40];
            let mut terms = Terms::new(Norm::Linf, 0.1);
            terms.settings.values.insert("steps".into(), 5.0);
            let plans = Choice::find(name).unwrap().plans(&terms).unwrap();
            let e = evaluate(&classifier, &inputs, labels, &plans, seed, &|_| {}).unwrap();
            e.attacks[0].attacked.inputs.clone()
        })
    };
    for (name, is_random) in [
        ("pgd", true),
        ("apgd-t", true),
        // from the sample itself; and one batch of all samples
        ("fab-t", false),
        ("universal", false),
    ] {
        let one = run(name, 1, 7);
        assert_eq!(one, run(name, 2, 7), "{name}");
        assert_eq!(one, run(name, 5, 7), "{name}");
        if is_random {
            assert_ne!(one, run(name, 1, 8), "{name}: the seed matters");
        }
    }
}
