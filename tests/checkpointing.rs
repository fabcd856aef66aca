//! Backward cut into passes (`memory::Pass`): a smaller buffer, and the same bits.

use foolproof::kernels::Kernels;
use foolproof::memory::Mode;
use foolproof::model::Model;
use foolproof::model::format::{PassRecord, PassSpan};
use foolproof::ops::{Activation, Unary};
use foolproof::session::{Options, Session};
use foolproof_host::graph::{Builder, Graph, GraphError, Window, seal, to_image, to_image_within};
use foolproof_host::import::tflite;
use std::mem::offset_of;
use std::path::Path;
use zerocopy::IntoBytes;

/// A network with every kind of memory life: a residual sum, a concatenation, pools, a reshape in the middle, smooth and
/// clamped activations, a softmax after the logits.
fn network() -> Graph {
    let mut b = Builder::new(&[12, 12, 2], (-1.0, 1.0), 5).unwrap();
    let x = b
        .conv2d(b.input(), 4, Window::same(3), Activation::Relu)
        .unwrap();
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
    let x = b.reshape(x, &[1, 36, 1, 8]).unwrap();
    let x = b.unary(x, Unary::LeakyRelu { alpha: 0.2 }).unwrap();
    let x = b.unary(x, Unary::Sigmoid).unwrap();
    let x = b.dense(x, 5, Activation::None).unwrap();
    let x = b.softmax(x).unwrap();
    b.finish(x)
}

/// Bytes that any input may hold: int8, or f32 between -1 and 1.
fn sample(model: &Model<'_>, seed: u64) -> Vec<u8> {
    use rand_core::Rng;
    let mut rng = foolproof::attack::rng(seed, 0);
    let n = model.input_shape().len();
    match model.tables().dtype(model.tables().input()).size() {
        1 => (0..n).map(|_| rng.next_u32() as u8).collect(),
        _ => (0..n)
            .flat_map(|_| ((rng.next_u32() >> 8) as f32 / 8_388_608.0 - 1.0).to_le_bytes())
            .collect(),
    }
}

/// The answer, the input gradients of two runs from the logits, and one from the output.
fn answers(model: &Model<'_>, batch: usize) -> Vec<Vec<u8>> {
    let mut memory = vec![
        0xa5a5_a5a5_u128;
        model
            .required_buffer_for(Mode::Attack, batch)
            .unwrap()
            .div_ceil(16)
    ];
    let options = Options {
        batch,
        kernels: Kernels::Scalar,
        ..Options::new(Mode::Attack)
    };
    let mut session = Session::with_options(model, options, memory.as_mut_bytes()).unwrap();
    let mut found = Vec::new();
    for seed in 0..2 {
        let x: Vec<u8> = (0..batch)
            .flat_map(|i| sample(model, 10 * seed + i as u64))
            .collect();
        session.forward_bytes(&x).unwrap();
        let g: Vec<f32> = (0..batch * model.classes())
            .map(|i| (i as f32 * 0.7).sin())
            .collect();
        found.push(session.backward(&g).unwrap().as_bytes().to_vec());
        let mut z = vec![0.0; batch * model.classes()];
        session.logits(&mut z).unwrap();
        found.push(z.as_bytes().to_vec());
        session.forward_bytes(&x).unwrap();
        let g: Vec<f32> = (0..batch * model.output_shape().len())
            .map(|i| (i as f32 * 0.3).cos())
            .collect();
        found.push(
            session
                .backward_from_output(&g)
                .unwrap()
                .as_bytes()
                .to_vec(),
        );
    }
    found
}

/// The least that an attack on this model needs.
fn least(graph: &Graph) -> usize {
    match to_image_within(graph, 0) {
        Err(GraphError::AttackBuffer { needed, limit: 0 }) => needed,
        other => panic!("no buffer at all cannot be enough: {:?}", other.map(|_| ())),
    }
}

/// Every buffer from the plain one to the least, in steps: within the limit, and the same bits.
fn same_bits_in_less(name: &str, graph: &Graph, steps: usize, batch: usize) {
    let plain = to_image(graph).unwrap();
    let plain = plain.model().unwrap();
    let needed = plain.required_buffer(Mode::Attack);
    let expected = answers(&plain, batch);
    assert!(
        expected.iter().all(|bytes| bytes.iter().any(|&b| b != 0)),
        "{name}"
    );
    let least = least(graph);
    assert!(least <= needed, "{name}");
    for step in 0..=steps {
        let limit = needed - (needed - least) * step / steps;
        let image = to_image_within(graph, limit).unwrap_or_else(|error| panic!("{name}: {error}"));
        let model = image.model().unwrap();
        let tables = model.tables();
        let (got, passes) = (
            model.required_buffer(Mode::Attack),
            tables.pass_count(Mode::Attack),
        );
        let macs: u64 = (0..tables.op_count()).map(|k| tables.macs(k)).sum();
        eprintln!(
            "{name}: at most {limit}: {got} bytes, {passes} passes, {:.2} forwards more, image {} bytes",
            model.recomputed_macs() as f64 / macs as f64,
            image.bytes().len()
        );
        assert!(
            got <= limit,
            "{name}: {got} bytes where {limit} are the limit"
        );
        assert_eq!(passes > 1, limit < needed, "{name}");
        assert_eq!(
            answers(&model, batch),
            expected,
            "{name} within {limit} bytes"
        );
    }
}

#[test]
fn a_cut_backward_gives_the_same_bits_in_less_memory() {
    let graph = network();
    assert!(
        2 * least(&graph)
            < 3 * to_image(&graph)
                .unwrap()
                .model()
                .unwrap()
                .required_buffer(Mode::Attack)
    );
    same_bits_in_less("network", &graph, 12, 1);
    same_bits_in_less("network, three at once", &graph, 3, 3);
}

#[test]
fn shared_models_give_the_same_bits_in_less_memory() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/models");
    if !models.is_dir() {
        eprintln!("SKIPPED: {} is not there", models.display());
        return;
    }
    for name in [
        "kws_ref_model",
        "kws_ref_model_float32",
        "pretrainedResnet_quant",
        "pretrainedResnet",
        "ad01_int8",
        "micro_speech_quantized",
        "magic_wand_imu_int8",
        "magic_wand_imu_float",
        "tinymaix_mnist_resnet_int8",
        "arm_cifar10_int8",
        "str_ww_ref_model",
        "vww_96_int8",
        "vww_96_float",
    ] {
        let file = std::fs::read(models.join(format!("{name}.tflite"))).expect(name);
        let graph = tflite::import(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        same_bits_in_less(name, &graph, 3, 1);
    }
}

/// Every slot of a cut plan, moved, or alive a moment shorter: refused, or harmless.
#[test]
fn a_plan_that_was_tampered_with_is_refused_or_gives_the_same_bits() {
    let graph = network();
    let image = to_image_within(&graph, least(&graph)).unwrap();
    let model = image.model().unwrap();
    let expected = answers(&model, 1);
    let header = *model.tables().header();
    let passes = header.pass_count.get() as usize;
    assert!(passes > 1);
    let spans_at = header.passes.get() as usize + passes * size_of::<PassRecord>();
    let last = spans_at - size_of::<PassRecord>() + offset_of!(PassRecord, spans_end);
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
    let spans = word(image.bytes(), last) as usize;
    assert!(spans > 20, "{spans}");
    let (mut refused, mut harmless) = (0, 0);
    for i in 0..spans {
        let span = spans_at + i * size_of::<PassSpan>() + offset_of!(PassSpan, span);
        let record = word(image.bytes(), span + 4);
        let (first, last) = (record & 0xffff, record >> 16);
        let shorter = [
            (first + 1) | last << 16,
            first | last.saturating_sub(1) << 16,
        ];
        let offset = word(image.bytes(), span);
        let moved = [0, offset.wrapping_sub(4), offset + 4, offset + 512];
        let changes = shorter
            .map(|value| (span + 4, value))
            .into_iter()
            .chain(moved.map(|value| (span, value)));
        for (at, value) in changes {
            let mut tampered = image.clone();
            tampered.bytes_mut()[at..at + 4].copy_from_slice(&value.to_le_bytes());
            seal(tampered.bytes_mut());
            match tampered.model() {
                Err(_) => refused += 1,
                Ok(model) => {
                    // a life of one moment at time 0 cannot get shorter at its end
                    if value == record {
                        continue;
                    }
                    assert_eq!(at, span, "slot {i} is alive for too short a time");
                    assert_eq!(answers(&model, 1), expected, "slot {i} at {value}");
                    harmless += 1;
                }
            }
        }
    }
    eprintln!("{refused} changes refused, {harmless} harmless");
    assert!(refused > 4 * spans);
}
