//! What can be typed.

use super::target::TargetSpec;
use crate::attack::{Choice, Settings, Terms, catalog, suite};
use clap::{Args, Parser, Subcommand};
use foolproof::attack::Norm;
use foolproof::kernels::Kernels;
use foolproof::ops::Numerics;
use foolproof::threat::Budget;
use std::path::PathBuf;

/// Can your edge classifier be fooled? Find out on the device itself.
#[derive(Debug, Parser)]
#[command(
    name = "foolproof",
    version,
    about,
    subcommand_required = true,
    arg_required_else_help = false
)]
pub struct Cli {
    /// Print one machine-readable document on stdout and nothing else there
    #[arg(long, global = true)]
    pub json: bool,
    /// Seed of every random choice
    #[arg(long, global = true, default_value_t = 1, value_name = "N", allow_hyphen_values = true, value_parser = seed)]
    pub seed: u64,
    /// Threads to use [default: one for each core]; results do not depend on it
    #[arg(long, global = true, value_name = "N", allow_hyphen_values = true, value_parser = threads)]
    pub threads: Option<usize>,
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train, quantize, fool, flash and compare, on handwritten digits that come with foolproof
    Demo(DemoArgs),
    /// Show what is inside a model: operators, shapes, quantization, buffer sizes
    Inspect(InspectArgs),
    /// Run a model on inputs and write its outputs
    Infer(InferArgs),
    /// Craft adversarial inputs and write them
    Attack(AttackArgs),
    /// List the attacks and suites
    Attacks,
    /// Measure clean and robust accuracy, and write a report
    Evaluate(EvaluateArgs),
    /// Answer as a black box on stdin and stdout: see docs/targets.md
    Serve(ServeArgs),
    /// Train a network on foolproof's own engine
    Train(TrainArgs),
    /// Turn an f32 model into an int8 model
    Quantize(QuantizeArgs),
    /// Write a model as an image to flash, or as a TensorFlow Lite model
    Pack(PackArgs),
    /// Measure how fast a model runs, is differentiated and attacked; without MODEL, how fast networks train
    Bench(BenchArgs),
    /// Run a model on a chip and compare it with the host, bit for bit
    Device(DeviceArgs),
}

/// A model, and how data becomes its input.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// A TensorFlow Lite model (.tflite) or a model image (.fpi), told by its content
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    #[command(flatten)]
    pub input: InputArgs,
    /// int8 .tflite models: the runtime whose results are reproduced, tflm (TFLite Micro), tflm-single (built with single
    /// rounding), litert-ref (LiteRT's reference kernels) or xnnpack (LiteRT's default) [default: tflm; images hold theirs]
    #[arg(long, value_name = "RUNTIME", value_parser = numerics)]
    pub numerics: Option<Numerics>,
    /// Inner loops: scalar (the reference, the same bits as on a chip), avx2 (the same bits, faster), fma (f32 within rounding
    /// of them, int8 the same bits), or auto: the fastest, for infer the fastest with a chip's bits
    #[arg(long, value_name = "WHICH", default_value = "auto", value_parser = kernels)]
    pub kernels: Which,
}

/// How data becomes a model's input.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct InputArgs {
    /// uint8 samples: the real values that bytes 0 and 255 stand for [default: as the model says]; other samples: their smallest
    /// and largest possible value, which become the model's (with --mean or --std: the values before these)
    #[arg(long, value_name = "LO,HI", allow_hyphen_values = true, value_parser = range)]
    pub input_range: Option<(f32, f32)>,
    /// Subtract this from every value, one number or one for each channel
    #[arg(
        long,
        value_name = "M,..",
        allow_hyphen_values = true,
        value_delimiter = ','
    )]
    pub mean: Vec<f32>,
    /// Divide every value by this, one number or one for each channel
    #[arg(
        long,
        value_name = "S,..",
        allow_hyphen_values = true,
        value_delimiter = ','
    )]
    pub std: Vec<f32>,
    /// The model is an autoencoder, and an input is an anomaly (label 1, otherwise 0) where the mean squared difference
    /// between output and input is above this, in real units
    #[arg(long, value_name = "E", allow_hyphen_values = true, value_parser = threshold)]
    pub anomaly_above: Option<f32>,
}

/// How much memory an attack may have.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct MemoryArgs {
    /// Cut backward into passes so that an attack's buffer has at most this many bytes: the same gradients, computed again in part
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = positive)]
    pub max_buffer: Option<usize>,
}

/// Samples to judge a model by.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// Samples: .npz (x, y), .npy, idx or idx.gz, IMAGES,LABELS, CIFAR-10 binary, or digits[:train|:test|:all]
    #[arg(long, value_name = "D")]
    pub data: String,
    /// Use only the first N samples
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = positive)]
    pub limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A TensorFlow Lite model (.tflite) or a model image (.fpi), told by its content
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// int8 .tflite models: the runtime whose results are reproduced, tflm (TFLite Micro), tflm-single (built with single
    /// rounding), litert-ref (LiteRT's reference kernels) or xnnpack (LiteRT's default) [default: tflm; images hold theirs]
    #[arg(long, value_name = "RUNTIME", value_parser = numerics)]
    pub numerics: Option<Numerics>,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// A TensorFlow Lite model (.tflite), an ONNX model (.onnx) or a model image (.fpi) [default: measure training and the machine]
    #[arg(value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// Measure only these: infer, gradient, fgsm, pgd-40; without MODEL train-classifier, train-gan-mlp,
    /// train-gan-dcgan, peak-fma, gemm-256, gemm-512, gemm-1024, triad
    #[arg(long, value_name = "WORK,..", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Samples in one call
    #[arg(long, value_name = "N,..", default_value = "1,8,32", value_delimiter = ',', allow_hyphen_values = true, value_parser = batch, requires = "model")]
    pub batch: Vec<usize>,
    /// Measure each row for about this many seconds
    #[arg(long, value_name = "S", default_value_t = 0.5, allow_hyphen_values = true, value_parser = measured)]
    pub seconds: f64,
    /// int8 .tflite models: the runtime whose results are reproduced, tflm (TFLite Micro), tflm-single (built with single
    /// rounding), litert-ref (LiteRT's reference kernels) or xnnpack (LiteRT's default) [default: tflm; images hold theirs]
    #[arg(long, value_name = "RUNTIME", value_parser = numerics, requires = "model")]
    pub numerics: Option<Numerics>,
    /// Inner loops: scalar (the reference, the same bits as on a chip), avx2 (the same bits, faster), fma (f32 within rounding
    /// of them, int8 the same bits), or auto: the fastest
    #[arg(long, value_name = "WHICH", default_value = "auto", value_parser = kernels, requires = "model")]
    pub kernels: Which,
}

#[derive(Debug, Args)]
pub(crate) struct InferArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Samples, in any format that --data takes elsewhere
    #[arg(long, value_name = "X")]
    pub inputs: String,
    /// Where to write the outputs [N, ...], in the model's own output type
    #[arg(long, value_name = "Y.npy")]
    pub outputs: PathBuf,
    /// Run on this emulated board instead of the host
    #[arg(long, value_name = "B")]
    pub board: Option<String>,
    /// Write every tensor on the way from input to output, in running order, and what each is
    #[arg(long, value_name = "T.npz")]
    pub dump_tensors: Option<PathBuf>,
    /// Find the first tensor that differs from those that --dump-tensors wrote elsewhere; exit with 1 where one does
    #[arg(long, value_name = "OTHER.npz")]
    pub compare: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Answer with labels only
    #[arg(long)]
    pub labels_only: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AttackArgs {
    /// A model, told by its content (.tflite, .onnx or .fpi); may be left out with --target program: and serial:
    #[arg(value_name = "MODEL", required_unless_present = "target")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub input: InputArgs,
    /// int8 .tflite models: the runtime whose results are reproduced, tflm (TFLite Micro), tflm-single (built with single
    /// rounding), litert-ref (LiteRT's reference kernels) or xnnpack (LiteRT's default) [default: tflm; images hold theirs]
    #[arg(long, value_name = "RUNTIME", value_parser = numerics)]
    pub numerics: Option<Numerics>,
    /// Inner loops: scalar (the reference, the same bits as on a chip), avx2 (the same bits, faster), fma (f32 within rounding
    /// of them, int8 the same bits), or auto: the fastest, for infer the fastest with a chip's bits
    #[arg(long, value_name = "WHICH", default_value = "auto", value_parser = kernels)]
    pub kernels: Which,
    /// Attack this black box instead: program:COMMAND (see docs/targets.md), serial:PORT[@BAUD] (a board with foolproof's
    /// firmware; MODEL is streamed to it, without MODEL it runs the one in its flash), or emulator:BOARD
    #[arg(long, value_name = "TARGET", value_parser = super::target::parse, conflicts_with = "boxes")]
    pub target: Option<TargetSpec>,
    /// Seconds that the target may take for an answer (an emulated board: for everything)
    #[arg(long, value_name = "S", default_value_t = 600, allow_hyphen_values = true, value_parser = seconds, requires = "target")]
    pub timeout: u64,
    /// Take gradients from this model and only ask MODEL or the target for labels; may be repeated, then their mean
    /// counts
    #[arg(long, value_name = "MODEL", conflicts_with = "boxes")]
    pub surrogate: Vec<PathBuf>,
    /// Ask for the label at every step; otherwise once, about the input that was crafted on the surrogates
    #[arg(long, requires = "surrogate")]
    pub feedback: bool,
    /// Probability with which the surrogates see the input resized and padded at random (input diversity)
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_hyphen_values = true, value_parser = share, requires = "surrogate")]
    pub diverse: f64,
    /// Samples: .npz (x, y), .npy, idx or idx.gz, IMAGES,LABELS, CIFAR-10 binary, or digits[:train|:test|:all]
    #[arg(long, value_name = "D", required_unless_present = "boxes")]
    pub data: Option<String>,
    /// Boxes lo, hi [n, d] and label [n] instead of samples and a ball, in the model's own units and the file's order of
    /// elements: a row is broken by a point of its box with another label (with --targeted: with that label)
    #[arg(long = "box", value_name = "BOX.npz", conflicts_with_all = ["data", "eps", "norm", "input_range", "mean", "std"])]
    pub boxes: Option<PathBuf>,
    /// Use only the first N samples or boxes
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = positive)]
    pub limit: Option<usize>,
    #[command(flatten)]
    pub attack: AttackChoice,
    /// Size of the ball, real units of the model's input: 0.1 or 8/255; an attack that looks for the nearest adversarial
    /// input can do without
    #[arg(long, value_name = "E", allow_hyphen_values = true, value_parser = epsilon)]
    pub eps: Option<f32>,
    /// Find the nearest adversarial input by bisection over the size of the ball, for attacks that search a ball of fixed size
    #[arg(long, conflicts_with = "boxes")]
    pub nearest: bool,
    /// Make the model say this class instead of any wrong one; with --box no class: each row's label is the target
    #[arg(long, value_name = "CLASS", allow_negative_numbers = true, value_parser = class, num_args = 0..=1)]
    pub targeted: Option<Option<usize>>,
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// Where to write x (adversarial), y, fooled and predicted
    #[arg(long, value_name = "ADV.npz", required_unless_present = "boxes")]
    pub out: Option<PathBuf>,
    /// Go on where the same command was interrupted: what it had done is in ADV.npz.partial
    #[arg(long, conflicts_with_all = ["boxes", "target", "surrogate"])]
    pub resume: bool,
}

/// Which attack, and what it is told.
#[derive(Debug, Args)]
pub(crate) struct AttackChoice {
    /// An attack or a suite by name; foolproof attacks lists them
    #[arg(long, value_name = "NAME", value_parser = choice)]
    pub attack: Choice,
    #[command(flatten)]
    pub settings: SettingArgs,
}

/// What attacks are told.
#[derive(Debug, Clone, Args)]
pub(crate) struct SettingArgs {
    /// How perturbations are measured: linf, l2, l1 or l0
    #[arg(long, default_value = "linf", value_parser = norm)]
    pub norm: Norm,
    /// Steps of each start [default: the attack's own]
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = steps)]
    pub steps: Option<u16>,
    /// Starts, the best counts [default: the attack's own]
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = starts)]
    pub starts: Option<u16>,
    /// Another setting of the attack, as foolproof attacks lists them; may be repeated
    #[arg(long, value_name = "NAME=VALUE", allow_hyphen_values = true, value_parser = setting)]
    pub set: Vec<(String, f64)>,
    /// Forward passes that each sample may cost
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = count)]
    pub max_queries: Option<u64>,
    /// Backward passes that each sample may cost
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = count)]
    pub max_gradients: Option<u64>,
    /// Forward passes that all samples of an attack together may cost; they are served in their order
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = count)]
    pub max_total_queries: Option<u64>,
    /// Backward passes that all samples of an attack together may cost
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = count)]
    pub max_total_gradients: Option<u64>,
}

impl SettingArgs {
    /// What every attack is told; epsilon in real units.
    pub fn terms(&self, epsilon: f32, target: Option<usize>) -> Terms {
        let mut settings = Settings::new(self.norm);
        let mut set = |name: &str, value: f64| settings.values.insert(name.into(), value);
        if let Some(steps) = self.steps {
            set("steps", f64::from(steps));
        }
        if let Some(starts) = self.starts {
            set("starts", f64::from(starts));
        }
        for (name, value) in &self.set {
            set(name, *value);
        }
        Terms {
            settings,
            epsilon,
            nearest: false,
            target,
            budget: Budget {
                queries: self.max_queries.unwrap_or(u64::MAX),
                gradients: self.max_gradients.unwrap_or(u64::MAX),
            },
        }
    }

    /// What all samples of an attack together may cost.
    pub fn total(&self) -> Budget {
        Budget {
            queries: self.max_total_queries.unwrap_or(u64::MAX),
            gradients: self.max_total_gradients.unwrap_or(u64::MAX),
        }
    }

    /// Whether anything but the norm was said.
    pub fn is_empty(&self) -> bool {
        let SettingArgs {
            norm: _,
            steps,
            starts,
            set,
            max_queries,
            max_gradients,
            max_total_queries,
            max_total_gradients,
        } = self;
        steps.is_none()
            && starts.is_none()
            && set.is_empty()
            && max_queries.is_none()
            && max_gradients.is_none()
            && max_total_queries.is_none()
            && max_total_gradients.is_none()
    }
}

#[derive(Debug, Args)]
pub(crate) struct EvaluateArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub data: DataArgs,
    /// Attacks: a suite, or one by name; foolproof attacks lists them
    #[arg(long, value_name = "SUITE", default_value = "quick", value_parser = choice)]
    pub suite: Choice,
    #[command(flatten)]
    pub settings: SettingArgs,
    /// Sizes of the ball, real units of the model's input: 0.1, 8/255, a list 0.1,0.2, or a range: 1/255..8/255
    /// goes in steps of 1/255, a range of numbers without a common denominator (0..0.3) is cut into 8 sizes
    #[arg(long, value_name = "E,..", allow_hyphen_values = true, value_parser = epsilons)]
    pub eps: Epsilons,
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// The float model that an int8 MODEL was made of (.tflite, .onnx or .fpi, the same input): its gradients are compared
    /// with those through the integer graph, and what fools it is tried on MODEL
    #[arg(long, value_name = "FLOAT_MODEL")]
    pub float: Option<PathBuf>,
    /// Queries that the gradient-free control may ask for each sample; 0 leaves it out [default: as many passes, forward and
    /// backward, as a white-box attack took, at least 100]
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = queries)]
    pub control_queries: Option<u32>,
    /// For how many samples, the first ones, the nearest adversarial input is looked for (PGD, bisection over its ball); 0 leaves it out
    #[arg(long, value_name = "N", default_value_t = 25)]
    pub nearest: usize,
    /// Write report.html, results.json, results.csv and junit.xml into this folder
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Exit with 1 where any robust accuracy is below this share (0 to 1)
    #[arg(long, value_name = "R", allow_hyphen_values = true, value_parser = share)]
    pub fail_under: Option<f64>,
    /// Exit with 1 where a robust accuracy is below that of an earlier evaluation (results.json, or what --json printed)
    #[arg(long, value_name = "OLD.json")]
    pub baseline: Option<PathBuf>,
    /// By how much a robust accuracy may fall below the baseline's (0 to 1)
    #[arg(long, value_name = "R", default_value_t = 0.0, allow_hyphen_values = true, value_parser = share, requires = "baseline")]
    pub tolerance: f64,
}

#[derive(Debug, Args)]
#[command(arg_required_else_help = false)]
pub(crate) struct TrainArgs {
    #[command(subcommand)]
    pub what: TrainWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TrainWhat {
    /// A classifier: two convolutions for images, two dense layers for anything else
    Classifier(ClassifierArgs),
    /// A generative adversarial network: a generator of samples, and a discriminator that tells them from real ones
    Gan(GanArgs),
    /// A variational autoencoder: an encoder from samples to codes, and a decoder that is a generator
    Vae(super::train::vae::VaeArgs),
    /// A generator that turns an input into one that fools a classifier, in a single forward pass
    Advgan(super::train::advgan::AdvGanArgs),
    /// A classifier that imitates a model of which only labels are asked: a surrogate for attack --surrogate
    Surrogate(SurrogateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SurrogateArgs {
    /// The model to imitate, told by its content; may be left out with --target program: and serial:
    #[arg(value_name = "MODEL", required_unless_present = "target")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub input: InputArgs,
    /// Imitate this black box, as attack --target takes it
    #[arg(long, value_name = "TARGET", value_parser = super::target::parse)]
    pub target: Option<TargetSpec>,
    /// Seconds that the target may take for an answer (an emulated board: for everything)
    #[arg(long, value_name = "S", default_value_t = 600, allow_hyphen_values = true, value_parser = seconds, requires = "target")]
    pub timeout: u64,
    /// Samples to begin with, a few of each class; their labels are not read
    #[arg(long, value_name = "D")]
    pub data: String,
    /// Use only the first N samples
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = positive)]
    pub limit: Option<usize>,
    /// Questions to the target, at most
    #[arg(long, value_name = "N", default_value_t = 6400, allow_hyphen_values = true, value_parser = positive)]
    pub queries: usize,
    /// Trainings; between two of them every sample is joined by a new one
    #[arg(long, value_name = "N", default_value_t = 6, allow_hyphen_values = true, value_parser = positive)]
    pub rounds: usize,
    /// How far new samples are from old ones, share of the input's range
    #[arg(long, value_name = "L", default_value_t = 0.1, allow_hyphen_values = true, value_parser = share)]
    pub lambda: f64,
    /// Folder for model.fpi, train.json and history.json
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Learning rate, epochs and so on, as TOML
    #[arg(long, value_name = "F.toml")]
    pub config: Option<PathBuf>,
    /// Passes over the data in each training, instead of the configuration's
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = positive)]
    pub epochs: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct ClassifierArgs {
    /// Samples to learn from: as elsewhere; plain digits means digits:train
    #[arg(long, value_name = "D")]
    pub data: String,
    /// Samples to test on [default: digits:test for the digits, otherwise none]
    #[arg(long, value_name = "D")]
    pub test: Option<String>,
    /// Folder for model.fpi, train.json and history.json
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Learning rate, epochs and so on, as TOML
    #[arg(long, value_name = "F.toml")]
    pub config: Option<PathBuf>,
    /// Passes over the data, instead of the configuration's
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = positive)]
    pub epochs: Option<usize>,
    /// Start from the weights in DIR/model.fpi; the optimizer starts anew
    #[arg(long)]
    pub resume: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GanArgs {
    /// Real samples: as elsewhere (plain digits means digits:train); mixture (three Gaussians on a line, with a check of the
    /// theory) or grid25 (25 Gaussians on a plane)
    #[arg(long, value_name = "D")]
    pub data: String,
    /// Folder for generator.fpi, discriminator.fpi, samples, log.csv, report.html and the checkpoint
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Networks, objective, learning rates and so on, as TOML; DIR/config.toml of any run holds all keys
    #[arg(long, value_name = "F.toml")]
    pub config: Option<PathBuf>,
    /// Passes over the data (mixture, grid25: thousands of steps), instead of the configuration's
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = positive)]
    pub epochs: Option<usize>,
    /// A float classifier in whose feature space samples are judged: Fréchet distance, precision and recall
    #[arg(long, value_name = "MODEL")]
    pub features: Option<PathBuf>,
    /// Real samples to judge by [default: digits:test for the digits, otherwise the training samples]
    #[arg(long, value_name = "D", requires = "features")]
    pub test: Option<String>,
    /// Judge after every N epochs, not only after the last
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = positive, requires = "features")]
    pub judge_every: Option<usize>,
    /// A generator (.fpi) of the configuration's form to start from, for example a VAE's decoder
    #[arg(long, value_name = "MODEL")]
    pub start: Option<PathBuf>,
    /// Seconds between checkpoints
    #[arg(long, value_name = "S", default_value_t = 20.0, allow_hyphen_values = true, value_parser = pause)]
    pub checkpoint: f64,
    /// Go on from DIR's checkpoint, to the same bytes as without the interruption
    #[arg(long)]
    pub resume: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PackArgs {
    /// A model, told by its content
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// int8 .tflite models: the runtime whose results are reproduced, tflm (TFLite Micro), tflm-single (built with single
    /// rounding), litert-ref (LiteRT's reference kernels) or xnnpack (LiteRT's default) [default: tflm; images hold theirs]
    #[arg(long, value_name = "RUNTIME", value_parser = numerics)]
    pub numerics: Option<Numerics>,
    /// Where to write it: an image, or a TensorFlow Lite model where the name ends in .tflite
    #[arg(long, value_name = "M.fpi")]
    pub out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Board to run on, may be repeated; all for every one [default: mps2-an386, left out where it cannot be emulated]
    #[arg(long, value_name = "B")]
    pub board: Vec<String>,
    /// Run no chip
    #[arg(long, conflicts_with = "board")]
    pub no_chip: bool,
    /// Folder for report.html, report.json and the two models
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub report: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct QuantizeArgs {
    /// An f32 model, told by its content
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    #[command(flatten)]
    pub input: InputArgs,
    /// Typical samples, a few hundred: as --data elsewhere; plain digits means digits:train
    #[arg(long, value_name = "D")]
    pub calibrate: String,
    /// Use only the first N samples
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = positive)]
    pub limit: Option<usize>,
    /// Where to write the int8 model: an image, or a TensorFlow Lite model where the name ends in .tflite
    #[arg(long, value_name = "M.fpi")]
    pub out: PathBuf,
}

#[derive(Debug, Args)]
#[command(arg_required_else_help = false)]
pub(crate) struct DeviceArgs {
    #[command(subcommand)]
    pub what: DeviceWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceWhat {
    /// Name the boards
    List,
    /// The host asks, the chip answers: every output and every crafted input is compared
    Run(DeviceRunArgs),
    /// Model, samples and attacks are flashed; the chip evaluates alone and the host checks its verdict
    Eval(DeviceRunArgs),
    /// A generator draws samples on the chip, from noise that the chip makes itself: every one is compared with the host's
    Sample(super::device::sample::SampleArgs),
    /// A generator of train advgan makes adversarial inputs on the chip, and the chip classifies them: how many are fooled, and does the host say the same?
    Advgan(super::device::advgan::AdvGanArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DeviceRunArgs {
    /// Board to run on, may be repeated; all for every one
    #[arg(long, value_name = "B", default_value = "mps2-an386")]
    pub board: Vec<String>,
    /// A TensorFlow Lite model (.tflite) or a model image (.fpi), told by its content
    #[arg(long, value_name = "M")]
    pub model: PathBuf,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub input: InputArgs,
    /// int8 .tflite models: the runtime whose results are reproduced, tflm (TFLite Micro), tflm-single (built with single
    /// rounding), litert-ref (LiteRT's reference kernels) or xnnpack (LiteRT's default) [default: tflm; images hold theirs]
    #[arg(long, value_name = "RUNTIME", value_parser = numerics)]
    pub numerics: Option<Numerics>,
    /// Attacks that host and chip both craft, where --eps is given: fgsm, bim, pgd, or quick (fgsm, pgd)
    #[arg(long, value_name = "NAME", default_value = "quick", value_parser = choice)]
    pub attack: Choice,
    #[command(flatten)]
    pub settings: SettingArgs,
    /// Size of the ball, real units of the model's input; without it nothing is attacked
    #[arg(long, value_name = "E", allow_hyphen_values = true, value_parser = epsilon)]
    pub eps: Option<f32>,
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// Give up on a board after this many seconds
    #[arg(long, value_name = "S", default_value_t = 600, allow_hyphen_values = true, value_parser = seconds)]
    pub timeout: u64,
}

/// Sizes of balls, ascending.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Epsilons(pub Vec<f32>);

fn choice(text: &str) -> Result<Choice, String> {
    Choice::find(text).ok_or_else(|| {
        let suites = suite::SUITES.iter().map(|suite| suite.name);
        let names: Vec<&str> = suites.chain(catalog::all().map(|e| e.name)).collect();
        format!(
            "no such attack or suite; one of these would be right: {}",
            names.join(", ")
        )
    })
}

fn norm(text: &str) -> Result<Norm, String> {
    match text {
        "linf" => Ok(Norm::Linf),
        "l2" => Ok(Norm::L2),
        "l1" => Ok(Norm::L1),
        "l0" => Ok(Norm::L0),
        _ => Err("no such norm; linf, l2, l1 or l0 would be right".into()),
    }
}

fn setting(text: &str) -> Result<(String, f64), String> {
    let right = "NAME=NUMBER would be right, for example kappa=5";
    let (name, value) = text.split_once('=').ok_or(right)?;
    match value.trim().parse::<f64>() {
        Ok(value) if value.is_finite() && !name.trim().is_empty() => {
            Ok((name.trim().into(), value))
        }
        _ => Err(right.into()),
    }
}

fn count(text: &str) -> Result<u64, String> {
    whole(text, 0, u64::MAX)
}

/// Which inner loops.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    /// The fastest that serve the purpose.
    Auto,
    /// These.
    These(Kernels),
}

impl Which {
    /// For what needs speed.
    pub fn fast(self) -> Kernels {
        match self {
            Which::Auto => Kernels::detect(),
            Which::These(kernels) => kernels,
        }
    }

    /// For what is compared with a chip.
    pub fn exact(self) -> Kernels {
        match self {
            Which::Auto => Kernels::detect_exact(),
            Which::These(kernels) => kernels,
        }
    }
}

fn kernels(text: &str) -> Result<Which, String> {
    let all = [Kernels::Scalar, Kernels::detect_exact(), Kernels::detect()];
    match all.into_iter().find(|kernels| kernels.name() == text) {
        Some(kernels) => Ok(Which::These(kernels)),
        None if text == "auto" => Ok(Which::Auto),
        None => {
            let mut names = all.map(Kernels::name).to_vec();
            names.dedup();
            Err(format!(
                "no such kernels on this machine; auto, {} would be right",
                names.join(" or ")
            ))
        }
    }
}

fn numerics(text: &str) -> Result<Numerics, String> {
    let found = Numerics::ALL.into_iter().find(|n| n.name() == text);
    found.ok_or_else(|| {
        let names = Numerics::ALL.map(Numerics::name);
        format!(
            "no such runtime; one of these would be right: {}",
            names.join(", ")
        )
    })
}

fn whole(text: &str, least: u64, most: u64) -> Result<u64, String> {
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!(
            "a whole number from {least} to {most} would be right"
        )),
    }
}

fn seed(text: &str) -> Result<u64, String> {
    whole(text, 0, u64::MAX)
}

fn seconds(text: &str) -> Result<u64, String> {
    whole(text, 1, 86_400).map_err(|right| format!("seconds: {right}"))
}

fn measured(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds from 0.001 to 3600 would be right".into()),
    }
}

fn batch(text: &str) -> Result<usize, String> {
    whole(text, 1, 4096).map(|number| number as usize)
}

fn steps(text: &str) -> Result<u16, String> {
    whole(text, 1, 10_000).map(|number| number as u16)
}

fn pause(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..=86_400.0).contains(&number) => Ok(number),
        _ => Err("seconds from 0 to 86400 would be right".into()),
    }
}

fn starts(text: &str) -> Result<u16, String> {
    whole(text, 1, 1_000).map(|number| number as u16)
}

fn queries(text: &str) -> Result<u32, String> {
    whole(text, 0, 1_000_000).map(|number| number as u32)
}

fn class(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| "the number of a class, from 0, would be right".into())
}

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads @ 1..=1024) => Ok(threads),
        _ => Err("a whole number from 1 to 1024 would be right".into()),
    }
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err("a whole number from 1 would be right".into()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share between 0 and 1 would be right, for example 0.5".into()),
    }
}

fn range(text: &str) -> Result<(f32, f32), String> {
    let parse = |part: &str| {
        part.trim()
            .parse::<f32>()
            .ok()
            .filter(|value| value.is_finite())
    };
    text.split_once(',')
        .and_then(|(low, high)| Some((parse(low)?, parse(high)?)))
        .filter(|(low, high)| low < high)
        .ok_or_else(|| {
            "two finite numbers, the smaller first, would be right, for example 0,1".into()
        })
}

/// Sums of squares of such sizes still fit an f32.
const LARGEST_EPSILON: f32 = 1e9;

/// `0.1` or `8/255`.
fn epsilon(text: &str) -> Result<f32, String> {
    let right = "a number from 0 such as 0.1 or 8/255 would be right";
    let number = |part: &str| part.trim().parse::<f64>().map_err(|_| right.to_string());
    let value = match text.split_once('/') {
        None => number(text)?,
        Some((above, below)) => {
            let below = number(below)?;
            if below == 0.0 {
                return Err(format!("division by zero; {right}"));
            }
            number(above)? / below
        }
    };
    match value as f32 {
        value if value > LARGEST_EPSILON => Err(format!(
            "larger than any input's range; a number from 0 to {LARGEST_EPSILON:e} would be right"
        )),
        value if value.is_finite() && value >= 0.0 && !value.is_sign_negative() => Ok(value),
        value => Err(format!("{value} is no size; {right}")),
    }
}

fn threshold(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(value) if (f32::MIN_POSITIVE..=LARGEST_EPSILON).contains(&value) => Ok(value),
        _ => Err(format!(
            "a number above 0, at most {LARGEST_EPSILON:e}, would be right"
        )),
    }
}

/// How many sizes a range without a common denominator is cut into.
const RANGE_STEPS: u32 = 8;

/// `a`, `a,b`, `a..b`, and lists of those. A range of fractions over one denominator goes in steps of one numerator
/// (`1/255..8/255`: eight sizes), any other in eight equal steps. The result is ascending and has no size twice.
fn epsilons(text: &str) -> Result<Epsilons, String> {
    let mut sizes = Vec::new();
    for part in text.split(',') {
        match part.split_once("..") {
            None => sizes.push(epsilon(part)?),
            Some((from, to)) => sizes.extend(epsilon_range(from.trim(), to.trim())?),
        }
    }
    sizes.sort_by(f32::total_cmp);
    sizes.dedup();
    if sizes.len() > 64 {
        return Err(format!("{} sizes; at most 64 would be right", sizes.len()));
    }
    Ok(Epsilons(sizes))
}

fn epsilon_range(from: &str, to: &str) -> Result<Vec<f32>, String> {
    let (low, high) = (epsilon(from)?, epsilon(to)?);
    if low >= high {
        return Err(format!(
            "{from}..{to} is empty; the smaller size first would be right"
        ));
    }
    let whole = |text: &str| {
        let (above, below) = text.split_once('/')?;
        Some((
            above.trim().parse::<u32>().ok()?,
            below.trim().parse::<u32>().ok()?,
        ))
    };
    if let (Some((a, below)), Some((b, below_too))) = (whole(from), whole(to))
        && below == below_too
    {
        if b - a > 64 {
            return Err(format!("{} sizes; at most 64 would be right", b - a + 1));
        }
        return Ok((a..=b)
            .map(|above| (f64::from(above) / f64::from(below)) as f32)
            .collect());
    }
    let step = |i: u32| low + (high - low) * i as f32 / (RANGE_STEPS - 1) as f32;
    Ok((0..RANGE_STEPS).map(step).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_fractions_lists_and_ranges() {
        assert_eq!(epsilons("0.25").unwrap().0, [0.25]);
        assert_eq!(epsilons("8/255").unwrap().0, [(8.0f64 / 255.0) as f32]);
        assert_eq!(epsilons("0.2,0.1,0.2").unwrap().0, [0.1, 0.2]);
        let range = epsilons("1/255..8/255").unwrap().0;
        assert_eq!(
            (range.len(), range[0], range[7]),
            (8, (1.0f64 / 255.0) as f32, (8.0f64 / 255.0) as f32)
        );
        let range = epsilons("0..0.7").unwrap().0;
        assert_eq!((range.len(), range[0], range[7]), (8, 0.0, 0.7));
        for wrong in [
            "-0.1",
            "NaN",
            "inf",
            "1/0",
            "",
            "a",
            "0.1,",
            "8/255..1/255",
            "-1/255",
            "1/-255",
            "1e99",
            "3e38",
            "0/255..4000000000/255",
        ] {
            assert!(epsilons(wrong).is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn shares_threads_and_ranges() {
        assert_eq!(
            (share("0.5"), range("-1,1"), threads("4")),
            (Ok(0.5), Ok((-1.0, 1.0)), Ok(4))
        );
        assert!(
            ["50", "-0.1", "NaN"]
                .iter()
                .all(|text| share(text).is_err())
        );
        assert!(
            ["1,0", "0", "0,inf", "0,NaN"]
                .iter()
                .all(|text| range(text).is_err())
        );
        for wrong in ["-1", "18446744073709551616", "1.5", ""] {
            assert!(seed(wrong).unwrap_err().contains("from 0"), "{wrong}");
        }
        assert_eq!(seed("18446744073709551615"), Ok(u64::MAX));
        assert!(
            ["nan", "0", "-1", "86401"]
                .iter()
                .all(|text| seconds(text).is_err())
        );
        assert!(class("-1").is_err() && steps("0").is_err() && starts("1001").is_err());
        assert_eq!(setting("kappa=5"), Ok(("kappa".into(), 5.0)));
        for wrong in ["kappa", "=5", "kappa=", "kappa=inf", "kappa=x"] {
            assert!(setting(wrong).is_err(), "{wrong}");
        }
        assert!(choice("pgdd").unwrap_err().contains("fgsm, bim, pgd"));
        assert!(
            ["0", "-1", "1025", "x"]
                .iter()
                .all(|text| threads(text).is_err())
        );
    }
}
