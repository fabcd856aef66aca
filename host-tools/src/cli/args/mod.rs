//! What can be typed: the commands, and what several of them take. The arguments of attack, evaluate, train and device are in
//! files of their own, and so are the parsers of values.

mod attack;
mod device;
mod evaluate;
mod train;
mod values;

pub(crate) use attack::{AttackArgs, SettingArgs};
pub(crate) use device::{DeviceArgs, DeviceRunArgs, DeviceWhat};
pub(crate) use evaluate::EvaluateArgs;
pub(crate) use train::{
    ClassifierArgs, ClassifierPreset, GanArgs, SurrogateArgs, TrainArgs, TrainWhat,
};

use clap::{Args, Parser, Subcommand};
use foolproof::ops::Numerics;
use std::path::PathBuf;
use values::{
    Which, batch, kernels, measured, numerics, positive, range, seed, threads, threshold,
};

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
    /// List known data sets, how to get them and their checksums, or say what a data set is
    Data(super::data::DataArgs),
    /// Run a model on a chip and compare it with the host, bit for bit
    Device(DeviceArgs),
}

/// Whose arithmetic int8 models have.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct RuntimeArgs {
    /// int8 .tflite models: the runtime whose results are reproduced, tflm (TFLite Micro), tflm-single (built with single
    /// rounding), litert-ref (LiteRT's reference kernels) or xnnpack (LiteRT's default) [default: tflm; images hold theirs]
    #[arg(long, value_name = "RUNTIME", value_parser = numerics)]
    pub numerics: Option<Numerics>,
}

/// Which inner loops.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct KernelArgs {
    /// Inner loops: scalar (the reference, the same bits as on a chip), avx2 or neon (the same bits, faster), fma (f32 within rounding
    /// of them, int8 the same bits), or auto: the fastest, for infer the fastest with a chip's bits
    #[arg(long, value_name = "WHICH", default_value = "auto", value_parser = kernels)]
    pub kernels: Which,
}

/// What samples can be.
const SAMPLES: &str = "Samples: .npz (x, y), .npy, idx or idx.gz, IMAGES,LABELS, CIFAR-10 binary, or digits[:train|:test|:all]";

/// A model, and how data becomes its input.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// A TensorFlow Lite model (.tflite), an ONNX model (.onnx) or a model image (.fpi), told by its content
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    #[command(flatten)]
    pub loops: KernelArgs,
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
    #[arg(long, help = SAMPLES, value_name = "D")]
    pub data: String,
    /// Use only the first N samples
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = positive)]
    pub limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A TensorFlow Lite model (.tflite), an ONNX model (.onnx) or a model image (.fpi), told by its content
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    #[command(flatten)]
    pub memory: MemoryArgs,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
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
    /// Inner loops: scalar (the reference, the same bits as on a chip), avx2 or neon (the same bits, faster), fma (f32 within rounding
    /// of them, int8 the same bits), or auto: the fastest
    #[arg(long, value_name = "WHICH", default_value = "auto", value_parser = kernels, requires = "model")]
    pub kernels: Which,
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
pub(crate) struct PackArgs {
    /// A model, told by its content
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    #[command(flatten)]
    pub memory: MemoryArgs,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
