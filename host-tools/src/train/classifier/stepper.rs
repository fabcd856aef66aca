//! The optimizer with its state.

use super::config::{Config, Optimizer};
use crate::train::ParameterTable;
use foolproof::model::format::TensorRole;
use foolproof::optim::{Adam, Sgd};

/// The optimizer with its state; running statistics take a plain step of a tenth towards the batch's.
pub(super) struct Stepper<'a> {
    config: &'a Config,
    table: &'a ParameterTable,
    pub state: Vec<f32>,
    count: usize,
}

/// How far running statistics move towards the batch's in one step (PyTorch's default momentum).
const STATISTICS_MOMENTUM: f32 = 0.1;

impl<'a> Stepper<'a> {
    pub fn new(config: &'a Config, table: &'a ParameterTable, count: usize) -> Stepper<'a> {
        let state = match config.optimizer {
            Optimizer::Adam => Adam::state_len(count),
            Optimizer::Sgd => Sgd::state_len(count),
        };
        Stepper {
            config,
            table,
            state: vec![0.0; state],
            count,
        }
    }

    pub fn step(&mut self, t: u32, rate: f32, parameters: &mut [f32], gradients: &[f32]) {
        let shards = (self.config.batch / self.config.shard) as f32;
        let old: Vec<(usize, f32)> = self
            .table
            .iter()
            .filter(|(_, role, _)| *role == TensorRole::Statistic)
            .flat_map(|(_, _, range)| range.clone())
            .map(|i| {
                (
                    i,
                    parameters[i] - STATISTICS_MOMENTUM * gradients[i] / shards,
                )
            })
            .collect();
        match self.config.optimizer {
            Optimizer::Adam => {
                let adam = Adam {
                    decay: self.config.weight_decay,
                    ..Adam::new(rate)
                };
                adam.step(t, parameters, gradients, &mut self.state);
            }
            Optimizer::Sgd => {
                let sgd = Sgd {
                    rate,
                    momentum: self.config.momentum,
                    decay: self.config.weight_decay,
                };
                sgd.step(parameters, gradients, &mut self.state[..self.count]);
            }
        }
        for (i, value) in old {
            parameters[i] = value;
        }
    }
}
