//! Any bytes as an `.onnx` file: an error in one line, or a graph that becomes an image which the engine accepts and, where it is
//! small, runs.
#![no_main]

use foolproof::memory::Mode;
use foolproof::session::Session;
use foolproof_host::graph::to_image;
use foolproof_host::import::onnx;
use libfuzzer_sys::fuzz_target;
use zerocopy::IntoBytes;

/// Multiply-accumulates, and bytes of buffer: more is not run.
const MOST: usize = 1 << 22;

fn try_one(imported: Result<onnx::Imported, foolproof_host::import::ImportError>) {
    let graph = match imported {
        Ok(imported) => imported.graph,
        Err(error) => {
            assert!(!error.to_string().contains('\n'));
            return;
        }
    };
    let Ok(image) = to_image(&graph) else { return };
    let model = image.model().expect("an image that was checked when it was made");
    let needed = model.required_buffer(Mode::Attack);
    if needed == 0 || needed > MOST || graph.macs() > MOST as u64 {
        return;
    }
    let mut buffer = vec![0_u128; needed.div_ceil(16)];
    let Ok(mut session) = Session::new(&model, Mode::Attack, buffer.as_mut_bytes()) else {
        return;
    };
    let input = model.tables().input();
    let x = vec![7_u8; model.input_shape().len() * model.tables().dtype(input).size()];
    session.forward_bytes(&x).expect("a forward");
    let gradient = vec![1.0; model.classes()];
    session.backward(&gradient).expect("a backward");
}

fuzz_target!(|data: &[u8]| {
    try_one(onnx::read(data));
    try_one(onnx::read_whole(data));
});
