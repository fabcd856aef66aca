//! What `foolproof device` takes.

use super::super::device;
use super::values::{choice, epsilon, seconds};
use super::{DataArgs, InputArgs, MemoryArgs, RuntimeArgs, SettingArgs};
use crate::attack::Choice;
use clap::{Args, Subcommand};
use std::path::PathBuf;

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
    Sample(device::sample::SampleArgs),
    /// A generator of train advgan makes adversarial inputs on the chip, and the chip classifies them: how many are fooled, and does the host say the same?
    Advgan(device::advgan::AdvGanArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DeviceRunArgs {
    /// Board to run on, may be repeated; all for every one
    #[arg(long, value_name = "B", default_value = "mps2-an386")]
    pub board: Vec<String>,
    /// A TensorFlow Lite model (.tflite), an ONNX model (.onnx) or a model image (.fpi), told by its content
    #[arg(long, value_name = "M")]
    pub model: PathBuf,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Attacks that host and chip both craft, where --eps is given: fgsm, bim, pgd, square, nes, universal-online, or quick (fgsm, pgd)
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
