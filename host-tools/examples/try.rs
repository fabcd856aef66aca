//! scratch
use foolproof_host::{classifier::*, data::*, evaluate::*, graph::*, networks, train::classifier as tc};
use foolproof::kernels::Kernels;
fn main() {
    let train = digits::load(digits::Part::Train).unwrap();
    let test = digits::load(digits::Part::Test).unwrap();
    let Samples::F32(tx) = train.samples() else { panic!() };
    let Samples::F32(ex) = test.samples() else { panic!() };
    let (ty, ey) = (train.labels().unwrap(), test.labels().unwrap());
    for (epochs, lr, noise, wd, shift, batch) in [(40, 8e-3, 0.3, 1e-2, 0, 32)] {
        for seed in 0..6 {
    let mut g = networks::digits(seed).unwrap();
    let t = std::time::Instant::now();
    let c = tc::Config { epochs, learning_rate: lr, noise, weight_decay: wd, shift, batch, ..Default::default() };
    let h = tc::train(&mut g, tc::Samples { x: tx, y: ty }, &c, seed, &mut |_e| {}).unwrap();
    let secs = t.elapsed().as_secs_f64();
    let image = to_image(&g).unwrap();
    let c = Classifier::new(image.model().unwrap(), Kernels::Scalar);
    let m = c.model();
    let inputs = c.inputs(ex);
    let plans = [Plan::fgsm(0.1), Plan::fgsm(0.2), Plan::fgsm(0.25), Plan::fgsm(0.3), Plan::pgd(0.1, 10), Plan::pgd(0.2, 10)];
    let t = std::time::Instant::now();
    let e = evaluate(&c, &inputs, ey, &plans, 0, &|_| {}).unwrap();
    println!("wd {wd} shift {shift} b {batch} noise {noise} seed {seed}: {secs:.1}s loss {:.4} acc {:.4} test {:.4}; {:?} ({:.1}s) image {} infer {} attack {}", h.last().unwrap().loss, h.last().unwrap().accuracy,
        accuracy(&e.clean, ey), e.attacks.iter().map(|a| format!("{:.3}", a.robust_accuracy())).collect::<Vec<_>>(), t.elapsed().as_secs_f64(), image.bytes().len(),
        m.required_buffer(foolproof::memory::Mode::Infer), m.required_buffer(foolproof::memory::Mode::Attack));
    }}
}
