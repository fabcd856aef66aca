//! The JSON documents that every command prints with `--json`: one shape, versioned, with a schema in
//! `host-tools/schema/foolproof-1.json`. Reports and terminal tables are views of the same values.

pub mod summary;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the shape. A field may be added within a version; none changes its meaning or goes away.
pub const SCHEMA: &str = "foolproof-1";

/// One document. Parts that a command has nothing to say about are absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// [`SCHEMA`].
    pub schema: String,
    /// The command as it is typed: `evaluate`, `device run`.
    pub command: String,
    /// foolproof's version.
    pub version: String,
    /// The model that the document is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
    /// The black box that was asked instead of a model in this process, as `--target` takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The samples that it was measured on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    /// The seed of every random choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Accuracy on unchanged samples (in boxes: on their middles); in `demo`, the int8 model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Accuracy>,
    /// Accuracy of the float model that the int8 model was made of, where both were measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_float: Option<Accuracy>,
    /// One entry per attack, epsilon and arithmetic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attacks: Vec<Attack>,
    /// The float model that the int8 model was made of, where the user gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub float_model: Option<Model>,
    /// How good the gradients are that white-box attacks climbed, one entry per objective.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gradients: Vec<GradientQuality>,
    /// How often what fools the float model fools the model, one entry per epsilon.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transfer: Vec<Transfer>,
    /// The classes that samples are of, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<Class>,
    /// How near the nearest adversarial inputs are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<Nearest>,
    /// Whether the robust accuracies can be believed, one entry per check.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// With surrogates: one entry per attack.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub surrogates: Vec<SurrogateUse>,
    /// One entry per board that was run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device: Vec<Device>,
    /// What training did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<Train>,
    /// What `inspect` found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inspect: Option<Inspect>,
    /// What `bench` measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bench: Option<Bench>,
    /// What `infer` saw of every tensor on the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dump: Option<Dump>,
    /// The boards that `device list` knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boards: Vec<Board>,
    /// The attacks that `attacks` lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub catalog: Vec<AttackKind>,
    /// The data sets that `data` lists, or the one that it was asked about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<DataSet>,
    /// Files that the command wrote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// What a reader should know before believing the figures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Document {
    /// A document of this version with nothing in it yet.
    pub fn new(command: &str) -> Self {
        Self {
            schema: SCHEMA.into(),
            command: command.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            model: None,
            target: None,
            data: None,
            seed: None,
            accuracy: None,
            accuracy_float: None,
            attacks: Vec::new(),
            float_model: None,
            gradients: Vec::new(),
            transfer: Vec::new(),
            classes: Vec::new(),
            nearest: None,
            checks: Vec::new(),
            surrogates: Vec::new(),
            device: Vec::new(),
            train: None,
            inspect: None,
            bench: None,
            dump: None,
            boards: Vec::new(),
            catalog: Vec::new(),
            sets: Vec::new(),
            outputs: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// A data set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSet {
    /// Its name, or the user's words for it.
    pub name: String,
    /// What is in it.
    pub about: String,
    /// Under which terms; empty where that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub licence: String,
    /// How to get it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub get: Vec<String>,
    /// What to give as `--data`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// Its files.
    pub files: Vec<DataFile>,
}

/// A file of a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFile {
    /// Its name or path.
    pub path: String,
    /// `sha256:` and the hash of its content, gunzipped, or `md5:` and that of the file.
    pub checksum: String,
    /// The known data set that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known: Option<String>,
}

/// Which model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The path that the user gave, or a name where there is no file.
    pub path: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// The arithmetic: `f32`, or for int8 the runtime that is reproduced to the bit: `tflm`.
    pub numerics: String,
}

/// Which samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// The path that the user gave, or the name of embedded data.
    pub path: String,
    /// Number of samples used.
    pub n: usize,
}

/// A share of samples that were classified correctly.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    /// Between 0 and 1.
    pub clean: f64,
    /// Number of samples.
    pub n: usize,
    /// 95 % confidence (Wilson score interval): low, high.
    pub interval: [f64; 2],
}

/// One attack that foolproof knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttackKind {
    /// Its name, as `--attack` takes it.
    pub name: String,
    /// What it asks of the model: `labels`, `scores` or `gradients`.
    pub access: String,
    /// The norms that it can search in, as `--norm` takes them.
    pub norms: Vec<String>,
    /// Whether it looks for the nearest adversarial input, so that epsilon may be left out.
    pub nearest: bool,
    /// What it is, with its source.
    pub about: String,
    /// What `--set` takes.
    pub settings: Vec<Setting>,
}

/// A setting of an attack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// What it is unless it is set.
    pub default: String,
}

/// One attack on all samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attack {
    /// The attack: `fgsm`, `pgd`; `signhunter`, the gradient-free control; `transfer-pgd`, crafted on the float model.
    pub name: String,
    /// What the attacker may touch: `white-box`, `gray-box` or `black-box`.
    #[serde(default = "white_box")]
    pub threat: String,
    /// The arithmetic of the attacked model, as in [`Model::numerics`].
    pub numerics: String,
    /// `linf` or `l2`.
    pub norm: String,
    /// Radius of the ball, real units of the model's input; `null` where only the box of possible values, or a given
    /// box, was the bound.
    pub eps: Option<f64>,
    /// Whether a class was to be reached rather than the right one left.
    pub targeted: bool,
    /// Share of all samples that were classified correctly and that the attack did not win.
    pub robust_accuracy: f64,
    /// 95 % confidence of `robust_accuracy` (Wilson score interval): low, high.
    pub interval: [f64; 2],
    /// Share of the samples that could be won (classified correctly before and, for a targeted attack, not of the
    /// target class) where the attack reached its goal. Absent where there were none, where epsilon let nothing be changed, or where nothing
    /// was asked.
    pub success_rate: Option<f64>,
    /// Mean size of the perturbations that won, real units of the input. Absent where none did.
    pub mean_norm: Option<MeanNorm>,
    /// Mean number of forward passes per sample.
    pub queries_mean: f64,
    /// Mean number of backward passes per sample.
    pub gradients_mean: f64,
    /// Forward passes spent on each sample that was won; attacks that look for the nearest input go on after the first
    /// success. Absent where none was won.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queries_to_success: Option<Quantiles>,
    /// Per sample, whether the adversarial input has a wrong label (targeted: the target's).
    pub fooled: Vec<bool>,
}

/// How fast a model or training is on this machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bench {
    /// Multiply-accumulates of one sample's forward run, where a model was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub macs: Option<u64>,
    /// Whether an int8 model's answers have the bits of the scalar kernels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<BenchBits>,
    /// One entry per work, batch and number of threads.
    pub rows: Vec<BenchRow>,
}

/// Answers of the kernels that were measured beside those of the scalar ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenchBits {
    /// Random inputs that both answered.
    pub inputs: usize,
    /// How many got other bits.
    pub different: usize,
}

/// How long one kind of work takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenchRow {
    /// The work: `infer`, `gradient`, `fgsm`, `pgd-40`; `train-classifier`, `train-gan-mlp`, `train-gan-dcgan`;
    /// `peak-fma`, `gemm-256`, `gemm-512`, `gemm-1024`, `triad`.
    pub work: String,
    /// The inner loops that ran; empty where that is no question.
    pub kernels: String,
    /// Samples in one call of the engine; of training, in a step.
    pub batch: usize,
    /// Threads.
    pub threads: usize,
    /// What is counted: `images`, `flop`, `bytes`.
    pub unit: String,
    /// How many of them one run does.
    pub amount: f64,
    /// Runs that were measured.
    pub runs: usize,
    /// Seconds that a run takes.
    pub seconds: Quantiles,
    /// `amount` over the median of `seconds`.
    pub per_second: f64,
}

/// How values are spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantiles {
    /// The smallest.
    pub least: f64,
    /// A quarter are no larger.
    pub quarter: f64,
    /// Half are no larger.
    pub median: f64,
    /// Three quarters are no larger.
    pub three_quarters: f64,
    /// The largest.
    pub most: f64,
}

/// The samples of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// Its name, or its number where the model has no names.
    pub name: String,
    /// How many samples are of it, at least 1.
    pub n: usize,
    /// Share of them that is classified correctly.
    pub clean: f64,
    /// Share of them that also withstands the attack that leaves the least accuracy.
    pub robust: f64,
    /// 95 % confidence of `robust` (Wilson score interval): low, high.
    pub interval: [f64; 2],
}

/// How near the nearest adversarial inputs are that were found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nearest {
    /// The attack whose ball was made smaller and smaller by bisection.
    pub attack: String,
    /// How distances are measured.
    pub norm: String,
    /// For the first samples, the distance of the nearest adversarial input that was found, real units of the model's input;
    /// 0 where the sample itself is classified wrongly, `null` where none was found.
    pub distances: Vec<Option<f64>>,
    /// With the float model: of the nearest inputs that fool it, rounded to the model's grid, the share that fools the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried_over: Option<Share>,
}

/// What surrogates did for one attack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SurrogateUse {
    /// The attack, as in `attacks` and in the same order.
    pub attack: String,
    /// The surrogates' files.
    pub surrogates: Vec<String>,
    /// Whether the target was asked for its label at every step; otherwise once, about the crafted input.
    pub feedback: bool,
    /// Samples, classified correctly before, whose crafted input fools the surrogates. Absent with `feedback`.
    pub crafted: Option<usize>,
    /// Those of them whose crafted input fools the target too. Absent with `feedback`.
    pub carried: Option<usize>,
}

/// Mean size of perturbations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeanNorm {
    /// Euclidean length.
    pub l2: f64,
    /// Largest change of a value.
    pub linf: f64,
}

/// A share of samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Between 0 and 1.
    pub share: f64,
    /// Of how many samples, at least 1.
    pub n: usize,
    /// 95 % confidence (Wilson score interval): low, high.
    pub interval: [f64; 2],
}

/// A mean over samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Over how many samples, at least 1.
    pub n: usize,
    /// 95 % confidence of the mean (1.96 standard errors): low, high.
    pub interval: [f64; 2],
}

/// The model's input gradient at the unchanged samples. Through an int8 graph it is the straight-through estimate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GradientQuality {
    /// What is differentiated: `cross-entropy` of the right class, or `margin` of the best wrong class over the right one.
    pub objective: String,
    /// Samples.
    pub n: usize,
    /// Share of a sample's gradient elements that are exactly zero.
    pub zero: Estimate,
    /// Samples whose whole gradient is zero: nothing to climb.
    pub vanished: Share,
    /// Beside the float model's gradient at the same points, where the float model is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub float: Option<FloatAgreement>,
}

/// A gradient beside the float model's. Means are over the samples where neither gradient vanishes altogether; absent
/// where there are none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FloatAgreement {
    /// Cosine of the angle between the two.
    pub cosine: Option<Estimate>,
    /// Share of elements whose signs agree, of those that are zero in neither.
    pub sign_agreement: Option<Estimate>,
    /// How much a small step along the signs of the model's gradient raises the float model's objective, as a share of what
    /// the float gradient's own signs would: 1 is perfect, 0 no better than chance.
    pub ascent: Option<Estimate>,
    /// Share of the float gradient's elements that are exactly zero.
    pub zero: Estimate,
    /// Samples where the float model's whole gradient is zero.
    pub vanished: Share,
}

/// Adversarial inputs crafted on the float model, rounded to the model's grid and tried on the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// The attack on the float model.
    pub attack: String,
    /// `linf` or `l2`.
    pub norm: String,
    /// Radius of the ball, real units of the model's input.
    pub eps: f64,
    /// Of the samples that both models had right and that were won on the float model, the share that fools the model
    /// too; absent where there were none.
    pub carried_over: Option<Share>,
}

/// Whether the figures can be believed, in one respect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What should be so.
    pub name: String,
    /// Whether it is; `null` where what it needs was not measured.
    pub passed: Option<bool>,
    /// What it was decided by.
    pub figures: BTreeMap<String, f64>,
    /// What was found, and what that means, in a sentence or two.
    pub explanation: String,
}

/// What one board did. Figures that the board cannot give are absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// The board's name.
    pub board: String,
    /// Its processor core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core: Option<String>,
    /// `emulated` or `hardware`: how the figures came about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ran: Option<String>,
    /// Samples that host and device both evaluated.
    pub samples: usize,
    /// Outputs that differ in any byte.
    pub logit_mismatches: usize,
    /// Outputs compared: of the samples, and of the host's adversarial inputs.
    #[serde(default)]
    pub logits_compared: usize,
    /// Adversarial inputs crafted on the device that differ from the host's in any byte.
    pub adversarial_mismatches: usize,
    /// Adversarial inputs compared (attacks times samples); 0 means that none was crafted.
    #[serde(default)]
    pub adversarial_compared: usize,
    /// Share of samples that the device classified correctly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Instructions (not cycles) per inference, mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions_per_inference: Option<u64>,
    /// Instructions (not cycles) per FGSM example, mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions_per_fgsm: Option<u64>,
    /// Instructions (not cycles) per PGD example, mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions_per_pgd: Option<u64>,
    /// Bytes of the buffer in use: the larger of the next two that the run needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffer_bytes: Option<usize>,
    /// Bytes of buffer for inference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub infer_buffer_bytes: Option<usize>,
    /// Bytes of buffer for attacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attack_buffer_bytes: Option<usize>,
    /// Passes into which the backward of attacks was cut to fit the RAM; absent where it was not cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attack_passes: Option<usize>,
    /// What such an attack computes again for each gradient, in forwards of the whole model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attack_extra_forwards: Option<f64>,
    /// Deepest stack use in bytes, measured by painting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_bytes: Option<usize>,
    /// Bytes of flash that the firmware occupies, model included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flash_bytes: Option<usize>,
    /// Bytes of static RAM (data and bss), without the room set aside for sessions and streamed models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub static_ram_bytes: Option<usize>,
}

/// What training did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// Optimizer steps.
    pub steps: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Training samples per second, counted over all epochs.
    pub samples_per_second: f64,
    /// Final figures by name: `loss`, `accuracy`, `test_accuracy`.
    pub metrics: BTreeMap<String, f64>,
}

/// What is inside a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inspect {
    /// Shape and type of the input; absent, like the output, where the model has unsupported operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Port>,
    /// Shape and type of the output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Port>,
    /// Number of classes.
    pub classes: usize,
    /// Class names; may be empty.
    pub labels: Vec<String>,
    /// Operators in running order.
    pub ops: Vec<Operator>,
    /// Multiply-accumulates of one inference.
    pub macs: u64,
    /// Bytes of weights, biases and other constants.
    pub constant_bytes: usize,
    /// Bytes of the model image.
    pub image_bytes: usize,
    /// CRC-32 of the image, as it stores it; eight hexadecimal digits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub checksum: String,
    /// Bytes of buffer per mode (`infer`, `attack`, `train`); a mode that the model does not support is absent.
    pub buffers: BTreeMap<String, usize>,
    /// The smallest buffer for attacks, where cutting backward into passes makes it smaller than `buffers` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smallest_attack: Option<CutBuffer>,
    /// How the model's image has its backward cut, where it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut: Option<CutBuffer>,
    /// What foolproof cannot run, one line each; empty means that everything is supported.
    pub unsupported: Vec<String>,
    /// One per board that foolproof knows: what fits it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boards: Vec<BoardFit>,
}

/// A buffer for attacks that is smaller because backward is cut into passes, and what that costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutBuffer {
    /// Bytes of buffer.
    pub bytes: usize,
    /// Passes.
    pub passes: usize,
    /// What is computed again for each gradient, in forwards of the whole model.
    pub extra_forwards: f64,
}

/// Every tensor of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dump {
    /// Where it ran: a board's name, or `host`.
    pub ran_on: String,
    /// How many tensors there are, the input included.
    pub tensors: usize,
    /// The dump that it was compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared_with: Option<String>,
    /// The first tensor that differs from that one's; absent where all are the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_difference: Option<Differing>,
}

/// A tensor that differs between two dumps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Differing {
    /// Its place in running order; the input's is 0.
    pub index: usize,
    /// Its name in the model; may be empty.
    pub tensor: String,
    /// The operator that made it.
    pub operator: String,
    /// Elements that differ, over all samples.
    pub elements: usize,
    /// Elements compared.
    pub of: usize,
    /// The largest difference, in steps for int8; absent where it is not finite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_difference: Option<f64>,
    /// The first sample that differs.
    pub sample: usize,
    /// The first element of that sample that differs.
    pub element: usize,
}

/// Whether a model fits a board.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoardFit {
    /// The board's name.
    pub board: String,
    /// Whether image and inference buffer fit.
    pub infer: bool,
    /// Whether image and attack buffer fit.
    pub attack: bool,
    /// How backward is cut to make the attack buffer fit; absent where it fits as it is, or does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut: Option<CutBuffer>,
    /// Bytes that the board has for a model image.
    pub image_room_bytes: usize,
    /// Bytes of RAM that the board has for a session's buffer.
    pub session_room_bytes: usize,
    /// What does not fit, with both sizes; empty where everything does.
    pub reasons: Vec<String>,
}

/// A tensor: an input or output of a model or an operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Its name, where it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Shape, the batch of 1 included.
    pub shape: Vec<usize>,
    /// `f32`, `i8` or `i32`.
    pub r#type: String,
    /// Whether the model image holds its values.
    #[serde(default, skip_serializing_if = "is_false")]
    pub constant: bool,
    /// Real units per step, where it is quantized; of the first channel, where there is one for each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
    /// The integer that stands for 0, where it is quantized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zero_point: Option<i32>,
    /// Number of scales, where each channel has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel_scales: Option<usize>,
    /// Smallest and largest real value of an element, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<[f32; 2]>,
}

/// One operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// Its name.
    pub name: String,
    /// Shape of its output.
    pub shape: Vec<usize>,
    /// Element type of its output.
    pub r#type: String,
    /// Real units per step of its output, where that is quantized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
    /// The integer that stands for 0 in its output, where that is quantized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zero_point: Option<i32>,
    /// What it reads, constants included.
    #[serde(default)]
    pub inputs: Vec<Port>,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Bytes of its constants.
    #[serde(default)]
    pub constant_bytes: usize,
}

/// One board that foolproof knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// The name to give to `--board`.
    pub name: String,
    /// Its processor core.
    pub core: String,
    /// How it is tested: `run in an emulator` or `only compiled`.
    pub tested: String,
    /// Bytes of flash for the firmware.
    pub flash_bytes: usize,
    /// Bytes of the slot beside it, for a model and its samples.
    #[serde(default)]
    pub slot_bytes: usize,
    /// Bytes of RAM.
    pub ram_bytes: usize,
    /// Bytes of that RAM that the firmware sets aside for a session's buffer.
    #[serde(default)]
    pub session_bytes: usize,
}

fn white_box() -> String {
    "white-box".into()
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests;
