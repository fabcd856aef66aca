//! One network in training: a session per shard of the batch, the parameters that they share, and Adam.

use super::run::Checkpoint;
use super::{ParameterTable, Replica, TrainError, reduce, replicas};
use crate::error::Result;
use foolproof::kernels::Kernels;
use foolproof::model::Model;
use foolproof::model::format::TensorRole;
use foolproof::optim::Adam;
use foolproof::session::SessionError;

/// How far running statistics move towards a batch's in one step (PyTorch's default momentum).
const STATISTICS_MOMENTUM: f32 = 0.1;

/// A network in training.
pub struct Player<'a> {
    /// One session per shard, in shard order.
    pub replicas: Vec<Replica<'a>>,
    /// All parameters and running statistics, in tensor order.
    pub parameters: Vec<f32>,
    /// Where each tensor's elements are among them.
    pub table: ParameterTable,
    gradients: Vec<f32>,
    moments: Vec<f32>,
    updates: u32,
    betas: [f32; 2],
}

impl<'a> Player<'a> {
    /// A player with the image's parameters; one session per buffer (see [`super::buffers`]), each for `shard` samples.
    ///
    /// # Errors
    /// The model cannot be trained.
    pub fn new(
        model: &Model<'a>,
        memory: &'a mut [Vec<u128>],
        shard: usize,
        betas: [f32; 2],
    ) -> std::result::Result<Player<'a>, TrainError> {
        let mut replicas = replicas(model, shard, Kernels::detect(), memory)?;
        let table: ParameterTable = replicas[0].session.parameter_table().collect();
        let parameters = replicas[0].session.parameters()?.to_vec();
        let count = parameters.len();
        Ok(Player {
            replicas,
            parameters,
            table,
            gradients: vec![0.0; count],
            moments: vec![0.0; Adam::state_len(count)],
            updates: 0,
            betas,
        })
    }

    /// The sessions take the parameters as they are now, and forget their gradients.
    ///
    /// # Errors
    /// Never for a player.
    pub fn spread(&mut self) -> std::result::Result<(), SessionError> {
        for replica in &mut self.replicas {
            let (parameters, gradients) = replica.session.parameters_and_gradients()?;
            parameters.copy_from_slice(&self.parameters);
            gradients.fill(0.0);
        }
        Ok(())
    }

    /// Adds the shards' gradients in their order and takes one step of Adam. `passes` is how many backward passes every
    /// shard ran: running statistics take a plain step towards their mean.
    ///
    /// # Errors
    /// Never for a player.
    pub fn step(&mut self, rate: f32, passes: usize) -> std::result::Result<(), SessionError> {
        reduce(&mut self.replicas, &mut self.gradients)?;
        self.updates += 1;
        let share = STATISTICS_MOMENTUM / (self.replicas.len() * passes.max(1)) as f32;
        let statistics: Vec<(usize, f32)> = self
            .table
            .iter()
            .filter(|(_, role, _)| *role == TensorRole::Statistic)
            .flat_map(|(_, _, range)| range.clone())
            .map(|i| (i, self.parameters[i] - share * self.gradients[i]))
            .collect();
        let adam = Adam {
            beta1: self.betas[0],
            beta2: self.betas[1],
            ..Adam::new(rate)
        };
        adam.step(
            self.updates,
            &mut self.parameters,
            &self.gradients,
            &mut self.moments,
        );
        for (i, value) in statistics {
            self.parameters[i] = value;
        }
        Ok(())
    }

    /// Puts everything that the next step depends on into a checkpoint, under `name`.
    pub fn save(&self, name: &str, checkpoint: &mut Checkpoint) {
        checkpoint
            .arrays
            .insert(format!("{name}.parameters"), self.parameters.clone());
        checkpoint
            .arrays
            .insert(format!("{name}.moments"), self.moments.clone());
        checkpoint
            .numbers
            .insert(format!("{name}.updates"), f64::from(self.updates));
    }

    /// Takes it back.
    ///
    /// # Errors
    /// The checkpoint is of another network.
    pub fn restore(&mut self, name: &str, checkpoint: &Checkpoint) -> Result<()> {
        let count = self.parameters.len();
        let parameters = checkpoint.array(&format!("{name}.parameters"), count)?;
        let moments = checkpoint.array(&format!("{name}.moments"), self.moments.len())?;
        self.parameters.copy_from_slice(parameters);
        self.moments.copy_from_slice(moments);
        self.updates = checkpoint.number(&format!("{name}.updates")) as u32;
        Ok(())
    }
}

/// An exponential moving average of parameters, taken after every step: smoother samples than the last iterate's.
/// Yazici et al., "The unusual effectiveness of averaging in GAN training" (2019), equation 4.
#[derive(Clone, Debug, PartialEq)]
pub struct Average {
    /// The average.
    pub parameters: Vec<f32>,
    decay: f32,
}

impl Average {
    /// An average that starts at these parameters; `decay` 0 is the last iterate itself.
    pub fn new(parameters: &[f32], decay: f32) -> Average {
        Average {
            parameters: parameters.to_vec(),
            decay,
        }
    }

    /// One step: `average += (1 - decay) (parameters - average)`.
    pub fn step(&mut self, parameters: &[f32]) {
        for (a, &p) in self.parameters.iter_mut().zip(parameters) {
            *a = if self.decay == 0.0 {
                p
            } else {
                *a + (1.0 - self.decay) * (p - *a)
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_follows_and_decay_zero_is_the_iterate() {
        let mut slow = Average::new(&[0.0], 0.5);
        slow.step(&[1.0]);
        slow.step(&[1.0]);
        assert_eq!(slow.parameters, [0.75]);
        let mut last = Average::new(&[0.0], 0.0);
        last.step(&[0.3]);
        assert_eq!(last.parameters, [0.3]);
    }
}
