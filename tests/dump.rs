//! Every tensor on the way: the host's are the chip's, and the first one that differs is found.

use foolproof::kernels::Kernels;
use foolproof::ops::Activation;
use foolproof_host::classifier::{Classifier, Inputs};
use foolproof_host::device::{Chip, Emulator, Options, Payload, board, prepare};
use foolproof_host::dump::Dump;
use foolproof_host::graph::{Builder, Graph, Image, TensorData, Window, to_image};
use foolproof_host::quantize::quantize;
use std::path::Path;

/// A small int8 network with a reshape and a residual sum, whose tensors share memory.
fn network() -> Graph {
    let mut b = Builder::new(&[6, 6, 2], (-1.0, 1.0), 5).unwrap();
    let x = b
        .conv2d(b.input(), 4, Window::same(3), Activation::Relu)
        .unwrap();
    let side = b
        .depthwise_conv2d(x, 1, Window::same(3), Activation::None)
        .unwrap();
    let x = b.add(x, side, Activation::Relu6).unwrap();
    let x = b.max_pool2d(x, Window::same(2).stride(2)).unwrap();
    let x = b.reshape(x, &[1, 36]).unwrap();
    let x = b.dense(x, 5, Activation::None).unwrap();
    let x = b.softmax(x).unwrap();
    let float = b.finish(x);
    quantize(&float, &samples(16), &Default::default()).unwrap()
}

fn samples(count: usize) -> Vec<f32> {
    use rand_core::Rng;
    let mut rng = foolproof::attack::rng(3, 0);
    (0..72 * count)
        .map(|_| (rng.next_u32() >> 8) as f32 / 8_388_608.0 - 1.0)
        .collect()
}

fn inputs(image: &Image, count: usize) -> Inputs {
    Classifier::new(image.model().unwrap(), Kernels::Scalar).inputs(&samples(count))
}

fn on_host(image: &Image, count: usize) -> Dump {
    let classifier = Classifier::new(image.model().unwrap(), Kernels::detect_exact());
    Dump::of_host(&classifier, &inputs(image, count)).unwrap()
}

fn on_chip(image: &Image, count: usize) -> Dump {
    let board = board("mps2-an386").unwrap();
    let elf = prepare(board).unwrap_or_else(|error| panic!("{error:#}"));
    let payload = Payload {
        image: image.bytes().to_vec(),
        ..Payload::default()
    };
    let options = Options {
        slot: payload.for_board(board).unwrap(),
        ..Options::default()
    };
    let mut chip = Chip::new(Emulator::start(board, &elf, options).unwrap());
    chip.hello().unwrap();
    chip.use_slot().unwrap();
    let model = image.model().unwrap();
    let dump = Dump::of_chip(&mut chip, &model, &inputs(image, count), &|_| {}).unwrap();
    assert_eq!(chip.quit().unwrap().wait().unwrap().code, Some(0));
    dump
}

/// The network with one weight of its dense layer moved by one step.
fn changed() -> (Image, usize) {
    let mut graph = network();
    let at = graph
        .nodes
        .iter()
        .position(|node| node.op.name() == "dense")
        .unwrap();
    let weights = graph.nodes[at].inputs[1];
    let TensorData::I8(values) = &mut graph.tensors[weights].data else {
        panic!("int8 weights");
    };
    values
        .iter_mut()
        .for_each(|v| *v = if *v > 0 { *v - 1 } else { *v + 1 });
    // the input is tensor 0 of a dump
    (to_image(&graph).unwrap(), at + 1)
}

const HERE: &str = "other.npz";

#[test]
fn the_hosts_tensors_are_the_chips_and_one_that_differs_is_found() {
    let image = to_image(&network()).unwrap();
    let host = on_host(&image, 3);
    let ops = image.model().unwrap().tables().op_count();
    assert_eq!((host.samples, host.tensors.len()), (3, ops + 1));
    for tensor in &host.tensors {
        let size: usize = tensor.info.shape.iter().product();
        assert_eq!(tensor.bytes.len(), 3 * size, "{:?}", tensor.info);
    }
    let chip = on_chip(&image, 3);
    assert_eq!(host.first_difference(&chip, Path::new(HERE)), Ok(None));
    assert_eq!(host, chip);

    let (other, place) = changed();
    let found = on_chip(&other, 3)
        .first_difference(&host, Path::new(HERE))
        .unwrap()
        .expect("other weights give other tensors");
    assert_eq!((found.index, found.operator.as_str()), (place, "dense"));
    assert!(found.elements > 0 && found.elements <= found.of && found.of == 15);
    assert!(found.max_difference.is_some_and(|d| d >= 1.0));
    assert!(found.sample < 3 && found.element < 5);
}

#[test]
fn what_is_written_is_read_and_what_does_not_belong_together_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.npz");
    let image = to_image(&network()).unwrap();
    let dump = on_host(&image, 2);
    dump.write(&path).unwrap();
    assert_eq!(Dump::read(&path).unwrap(), dump);
    let refused = |other: &Dump| {
        let error = dump.first_difference(other, &path).unwrap_err().to_string();
        assert!(
            error.contains("t.npz") && error.contains("the same model"),
            "{error}"
        );
    };
    refused(&on_host(&image, 3));
    let mut fewer = dump.clone();
    fewer.tensors.pop();
    refused(&fewer);
    let mut reshaped = dump.clone();
    reshaped.tensors[2].info.shape[0] = 7;
    refused(&reshaped);
    // an archive that is no dump
    std::fs::write(&path, b"PK").unwrap();
    assert!(Dump::read(&path).is_err());
    let numbers = [1_i64, 2];
    let x = foolproof_host::data::npz::Entry {
        name: "x",
        shape: &[2],
        values: foolproof_host::data::npy::View::I64(&numbers),
    };
    foolproof_host::data::npz::write(&path, &[x]).unwrap();
    let error = Dump::read(&path).unwrap_err().to_string();
    assert!(error.contains("--dump-tensors"), "{error}");
}
