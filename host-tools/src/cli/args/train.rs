//! What `foolproof train` takes.

use super::super::target::{self, TargetSpec};
use super::super::train;
use super::InputArgs;
use super::values::{pause, positive, seconds, share};
use clap::{Args, Subcommand};
use std::path::PathBuf;

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
    Vae(train::vae::VaeArgs),
    /// A generator that turns an input into one that fools a classifier, in a single forward pass
    Advgan(train::advgan::AdvGanArgs),
    /// A classifier that imitates a model of which only labels are asked: a surrogate for attack --surrogate
    Surrogate(SurrogateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ClassifierArgs {
    /// Samples to learn from: as elsewhere; plain digits means digits:train
    #[arg(long, value_name = "D")]
    pub data: String,
    /// Samples to test on [default: digits:test for the digits, otherwise none]
    #[arg(long, value_name = "D")]
    pub test: Option<String>,
    /// Folder for model.fpi, the int8 model, log.csv, report.html and the checkpoint
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The settings to begin with: fast-mnist is fast adversarial training on MNIST in the largest norm, 0.3
    #[arg(long, value_name = "NAME", value_enum, default_value = "standard")]
    pub preset: ClassifierPreset,
    /// Network, method, learning rate and so on, as TOML; DIR/config.toml of any run holds all keys
    #[arg(long, value_name = "F.toml")]
    pub config: Option<PathBuf>,
    /// Passes over the data, instead of the configuration's
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = positive)]
    pub epochs: Option<usize>,
    /// An f32 model whose network and weights to start from
    #[arg(long, value_name = "MODEL")]
    pub start: Option<PathBuf>,
    /// Seconds between checkpoints
    #[arg(long, value_name = "S", default_value_t = 20.0, allow_hyphen_values = true, value_parser = pause)]
    pub checkpoint: f64,
    /// Go on from DIR's checkpoint, to the same bytes as without the interruption
    #[arg(long)]
    pub resume: bool,
}

/// Settings of a classifier's training to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ClassifierPreset {
    Standard,
    FastMnist,
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
pub(crate) struct SurrogateArgs {
    /// The model to imitate, told by its content; may be left out with --target program: and serial:
    #[arg(value_name = "MODEL", required_unless_present = "target")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub input: InputArgs,
    /// Imitate this black box, as attack --target takes it
    #[arg(long, value_name = "TARGET", value_parser = target::parse)]
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
