//! What `foolproof evaluate` takes.

use super::values::{Epsilons, choice, epsilons, queries, share};
use super::{DataArgs, MemoryArgs, ModelArgs, SettingArgs};
use crate::attack::Choice;
use clap::Args;
use std::path::PathBuf;

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
