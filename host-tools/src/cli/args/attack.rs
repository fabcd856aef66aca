//! What `foolproof attack` takes, and what every attack is told.

use super::super::target::{self, TargetSpec};
use super::values::{
    choice, class, count, epsilon, norm, positive, seconds, setting, share, starts, steps,
};
use super::{InputArgs, KernelArgs, MemoryArgs, RuntimeArgs, SAMPLES};
use crate::attack::{Choice, Settings, Terms};
use clap::Args;
use foolproof::attack::Norm;
use foolproof::threat::Budget;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct AttackArgs {
    /// A model, told by its content (.tflite, .onnx or .fpi); may be left out with --target program: and serial:
    #[arg(value_name = "MODEL", required_unless_present = "target")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    #[command(flatten)]
    pub loops: KernelArgs,
    /// Attack this black box instead: program:COMMAND (see docs/targets.md), serial:PORT[@BAUD] (a board with foolproof's
    /// firmware; MODEL is streamed to it, without MODEL it runs the one in its flash), or emulator:BOARD
    #[arg(long, value_name = "TARGET", value_parser = target::parse, conflicts_with = "boxes")]
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
    #[arg(long, help = SAMPLES, value_name = "D", required_unless_present = "boxes")]
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
    /// Size of the ball, real units of the model's input: 0.1 or 8/255 (with --norm l0 a number of elements); an attack that
    /// looks for the nearest adversarial input can do without
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
    #[arg(long, requires = "out")]
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
            budget: self.each(),
        }
    }

    /// What each sample may cost.
    pub fn each(&self) -> Budget {
        Budget {
            queries: self.max_queries.unwrap_or(u64::MAX),
            gradients: self.max_gradients.unwrap_or(u64::MAX),
        }
    }

    /// What all samples of an attack together may cost.
    pub fn total(&self) -> Budget {
        Budget {
            queries: self.max_total_queries.unwrap_or(u64::MAX),
            gradients: self.max_total_gradients.unwrap_or(u64::MAX),
        }
    }

    /// Whether anything bounds what attacks may cost.
    pub fn are_limits(&self) -> bool {
        self.each() != Budget::UNLIMITED || self.total() != Budget::UNLIMITED
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
