//! What a stranger's image can make the engine do: checked, and if it passes, run in every mode that it claims.
//! Shared by `tests/hostile_images.rs` and the fuzz target `fuzz/fuzz_targets/image.rs`.

use foolproof::kernels::Kernels;
use foolproof::loss::{Goal, Loss, Objective};
use foolproof::memory::Mode;
use foolproof::model::format::{Header, checksum};
use foolproof::model::{Model, ModelError};
use foolproof::session::{Options, Session};
use foolproof::tensor::{DType, Data};
use zerocopy::IntoBytes;

/// Only models that need less buffer than this are run.
pub const MAX_BUFFER: usize = 64 * 1024;
/// Only models with fewer multiply-accumulates than this are run.
pub const MAX_MACS: u64 = 100_000;

/// What became of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// The check refused it.
    Rejected(ModelError),
    /// It is well formed, but too large to run here.
    TooLarge,
    /// It ran.
    Ran {
        /// How often forward.
        forward: u32,
        /// How often backward.
        backward: u32,
    },
}

/// A buffer for any model that is run; reused, since clearing it costs more than most models.
pub struct Arena(Vec<u128>);

impl Arena {
    /// All zero.
    pub fn new() -> Arena {
        Arena(vec![0; 2 * MAX_BUFFER / 16])
    }
}

/// Checks an image and runs what passes. `bytes` starts at a multiple of 16; `noise` chooses the inputs.
pub fn exercise(bytes: &[u8], arena: &mut Arena, noise: u64) -> Verdict {
    let model = match Model::from_bytes(bytes) {
        Ok(model) => model,
        Err(error) => return Verdict::Rejected(error),
    };
    let tables = model.tables();
    let macs: u64 = (0..tables.op_count())
        .map(|k| {
            let node = tables.node(k);
            let shapes: Vec<_> = node.inputs().map(|t| tables.shape(t)).collect();
            node.op.macs(&shapes, &tables.shape(node.output))
        })
        .sum();
    let (mut forward, mut backward) = (0, 0);
    let mut reference = None;
    // the reference loops in as much memory as they need, and this machine's in as much as they like
    let scalar = |mode, batch| {
        (
            Options {
                batch,
                ..Options::new(mode)
            },
            model.required_buffer_for(mode, batch),
        )
    };
    let fast = |mode, batch| {
        let (options, _) = scalar(mode, batch);
        let kernels = Kernels::detect();
        (
            Options { kernels, ..options },
            model.preferred_buffer_for(mode, batch),
        )
    };
    for (options, needed) in [
        scalar(Mode::Infer, 1),
        scalar(Mode::Attack, 1),
        scalar(Mode::Attack, 2),
        scalar(Mode::Train, 1),
        scalar(Mode::Train, 2),
        fast(Mode::Infer, 1),
        fast(Mode::Attack, 2),
    ] {
        let Options { mode, batch, .. } = options;
        let Some(needed) = needed else {
            continue;
        };
        if batch > 1 && !model.is_batchable() {
            continue;
        }
        if needed >= MAX_BUFFER || macs >= MAX_MACS {
            continue;
        }
        let buffer = &mut arena.0.as_mut_bytes()[..needed];
        let mut session = Session::with_options(&model, options, buffer).expect("it fits");
        let answer = run(&model, &mut session, noise);
        // the same input gets the same answer, whatever the loops
        if mode == Mode::Infer && answer.is_some() {
            let reference = reference.get_or_insert_with(|| answer.clone());
            assert_eq!(&answer, reference);
        }
        forward += 1;
        backward += u32::from(mode != Mode::Infer);
    }
    match forward {
        0 => Verdict::TooLarge,
        _ => Verdict::Ran { forward, backward },
    }
}

/// What an int8 model answers; None of what has f32 in it, where loops differ in the last bits.
fn run(model: &Model<'_>, session: &mut Session<'_>, noise: u64) -> Option<Vec<i8>> {
    let tables = model.tables();
    let Options { mode, batch, .. } = session.options();
    let mut random = Noise(noise | 1);
    let input = tables.input();
    let size = tables.dtype(input).size();
    let mut x = vec![0_u8; model.input_shape().len() * batch * size];
    match (tables.dtype(input), noise % 4) {
        // real numbers, most of the time; else any bits, NaN and infinity among them
        (DType::F32, 1..) => {
            for v in x.chunks_exact_mut(4) {
                let real = (random.next() as i8) as f32 / 64.0;
                v.copy_from_slice(&real.to_le_bytes());
            }
        }
        _ => x.iter_mut().for_each(|v| *v = random.next() as u8),
    }
    let answer = match session
        .forward_bytes(&x)
        .expect("the input has the right length")
    {
        Data::I8(y) => Some(y.to_vec()),
        _ => None,
    };
    let is_i8 = |t: usize| tables.dtype(t) != DType::F32;
    let answer = answer.filter(|_| (0..tables.tensor_count()).all(is_i8));
    let mut logits = vec![0.0; model.classes() * batch];
    session
        .logits(&mut logits)
        .expect("the logits have the right length");
    if mode == Mode::Infer {
        let mut seen = 0;
        session
            .trace(&x, &mut |_, _| seen += 1)
            .expect("the input has the right length");
        assert_eq!(seen, 1 + tables.op_count());
        return answer;
    }
    let n = model.input_shape().len() * batch;
    logits
        .iter_mut()
        .for_each(|g| *g = random.next() as f32 / 65536.0);
    assert_eq!(session.backward(&logits).expect("runs").len(), n);
    session
        .forward_bytes(&x)
        .expect("the input has the right length");
    let output = vec![1.0; model.output_shape().len() * batch];
    assert_eq!(
        session.backward_from_output(&output).expect("runs").len(),
        n
    );
    if batch == 1 {
        session
            .forward_bytes(&x)
            .expect("the input has the right length");
        let objective = Objective {
            loss: [Loss::CrossEntropy, Loss::Margin][random.below(2)],
            goal: Goal::Avoid(random.below(model.classes() + 1)),
        };
        assert_eq!(session.differentiate(objective).expect("runs").1.len(), n);
    }
    if mode == Mode::Train {
        let (parameters, gradients) = session.parameters_and_gradients().expect("Train mode");
        assert_eq!(parameters.len(), gradients.len());
        session.zero_parameter_gradients().expect("Train mode");
    }
    answer
}

/// Numbers without pattern; small and fast.
pub struct Noise(pub u64);

impl Noise {
    /// 32 bits.
    pub fn next(&mut self) -> u32 {
        // xorshift64* (Vigna 2016)
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// In `0..n`, for n > 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.next()) * n as u64) >> 32) as usize
    }
}

/// Writes the checksum that makes the image get past the checksum: over as much as its header says it has.
pub fn reseal(bytes: &mut [u8]) {
    let field = |at: usize| at..at + 4;
    let total = field(std::mem::offset_of!(Header, total_len));
    let Some(&[a, b, c, d]) = bytes.get(total) else {
        return;
    };
    let end = (u32::from_le_bytes([a, b, c, d]) as usize).min(bytes.len());
    let crc = checksum(&bytes[..end]);
    if let Some(place) = bytes.get_mut(field(std::mem::offset_of!(Header, crc))) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}
