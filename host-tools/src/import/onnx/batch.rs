//! Files whose batch is fixed: whether one sample can be taken out of it.

use crate::graph::{Graph, to_image};
use crate::lines::Lines;
use foolproof::kernels::Kernels;
use foolproof::memory::Mode;
use foolproof::model::Model;
use foolproof::session::{Options, Session};
use foolproof::tensor::{DType, Data};
use zerocopy::IntoBytes;

/// Multiply-accumulates of a whole batch; more would take longer to try than anybody waits for.
const MAX_MACS: u64 = 1 << 31;

/// How often it is tried.
const TRIALS: u64 = 2;

/// Runs both graphs on noise: `single` on each sample, `whole` on all at once.
///
/// # Errors
/// Why the first does not stand for the second.
pub(super) fn check(single: &Graph, whole: &Graph, count: u32) -> Result<(), String> {
    let count = count as usize;
    let depends = || {
        "the samples of a batch depend on each other, or their order in memory is not the batch's"
            .to_string()
    };
    if whole.macs() > MAX_MACS {
        return Err(format!(
            "it is too large to find out whether its samples depend on each other ({} multiply-accumulates; at most {MAX_MACS})",
            whole.macs()
        ));
    }
    let (one, all) = (to_image(single), to_image(whole));
    let (one, all) = (
        one.map_err(|e| e.to_string())?,
        all.map_err(|e| e.to_string())?,
    );
    let one = one.model().map_err(|e| e.to_string())?;
    let all = all.model().map_err(|e| e.to_string())?;
    let bytes = |m: &Model<'_>| {
        let input = m.tables().input();
        (m.input_shape().len(), m.tables().dtype(input).size())
    };
    let ((n, size), (total, _)) = (bytes(&one), bytes(&all));
    if n.checked_mul(count) != Some(total) {
        return Err(depends());
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..TRIALS {
        let mut noise = Vec::with_capacity(total * size);
        let (low, high) = single.input_range;
        for _ in 0..total {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let step = (state >> 56) as u8;
            match size {
                1 => noise.push(step),
                _ => {
                    let share = f32::from(step) / 255.0;
                    noise.extend((low + (high - low) * share).to_le_bytes());
                }
            }
        }
        let expected = run(&all, &noise)?;
        let mut got = Vec::with_capacity(expected.len());
        for sample in noise.chunks_exact(n * size) {
            got.extend(run(&one, sample)?);
        }
        if got != expected {
            return Err(depends());
        }
    }
    Ok(())
}

/// The output's bytes.
fn run(model: &Model<'_>, x: &[u8]) -> Result<Vec<u8>, String> {
    let options = Options {
        // byte for byte, whatever the layers' sizes
        kernels: Kernels::detect_exact(),
        ..Options::new(Mode::Infer)
    };
    let mut buffer = Lines::zeroed(model.required_buffer(Mode::Infer));
    let mut session =
        Session::with_options(model, options, &mut buffer).map_err(|error| error.to_string())?;
    match session
        .forward_bytes(x)
        .map_err(|error| error.to_string())?
    {
        Data::F32(y) => Ok(y.as_bytes().to_vec()),
        Data::I8(y) => Ok(y.as_bytes().to_vec()),
        _ => Err(format!(
            "its output is neither {:?} nor {:?}",
            DType::F32,
            DType::I8
        )),
    }
}
