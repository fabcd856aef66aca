//! One network in training: a session per shard of the batch, the parameters that they share, and Adam.

use super::run::Checkpoint;
use super::{ParameterTable, Replica, TrainError, replicas};
use crate::error::Result;
use crate::lines::Lines;
use foolproof::kernels::Kernels;
use foolproof::model::Model;
use foolproof::model::format::TensorRole;
use foolproof::optim::Adam;
use foolproof::session::SessionError;
use rayon::prelude::*;
use std::ops::Range;

/// How far running statistics move towards a batch's in one step (PyTorch's default momentum).
const STATISTICS_MOMENTUM: f32 = 0.1;

/// Parameters that are stepped together: what a step touches of them, in all shards, stays in a second-level cache.
const PART: usize = 4096;

/// A network in training.
pub struct Player<'a> {
    /// One session per shard, in shard order.
    pub replicas: Vec<Replica<'a>>,
    /// All parameters and running statistics, in tensor order.
    pub parameters: Vec<f32>,
    /// Where each tensor's elements are among them.
    pub table: ParameterTable,
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
        memory: &'a mut [Lines],
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
            let parameters = replica.session.parameters()?;
            parameters.copy_from_slice(&self.parameters);
            replica.session.zero_parameter_gradients()?;
        }
        Ok(())
    }

    /// Adds the shards' gradients in their order and takes one step of Adam. `passes` is how many backward passes every
    /// shard ran: running statistics take a plain step towards their mean. The sessions then have the new parameters, and no
    /// gradients, as after [`Player::spread`].
    ///
    /// # Errors
    /// Never for a player.
    pub fn step(&mut self, rate: f32, passes: usize) -> std::result::Result<(), SessionError> {
        self.updates += 1;
        let adam = Adam {
            beta1: self.betas[0],
            beta2: self.betas[1],
            ..Adam::new(rate)
        };
        let share = STATISTICS_MOMENTUM / (self.replicas.len() * passes.max(1)) as f32;
        let statistics: Vec<Range<usize>> = self
            .table
            .iter()
            .filter(|(_, role, _)| *role == TensorRole::Statistic)
            .map(|(_, _, range)| range.clone())
            .collect();
        let sessions = self
            .replicas
            .iter_mut()
            .map(|replica| replica.session.parameters_and_gradients());
        let mut sessions: Vec<_> = sessions
            .map(|both| both.map(|(p, g)| p.chunks_mut(PART).zip(g.chunks(PART))))
            .collect::<std::result::Result<_, _>>()?;
        let (first, second) = self.moments.split_at_mut(self.parameters.len());
        let parts: Vec<Part<'_>> = self
            .parameters
            .chunks_mut(PART)
            .zip(first.chunks_mut(PART).zip(second.chunks_mut(PART)))
            .enumerate()
            .map(|(i, (parameters, (first, second)))| Part {
                first: i * PART,
                parameters,
                moments: [first, second],
                sessions: sessions.iter_mut().filter_map(Iterator::next).collect(),
            })
            .collect();
        let updates = self.updates;
        parts
            .into_par_iter()
            .for_each(|part| part.step(&adam, updates, (&statistics, share)));
        for replica in &mut self.replicas {
            replica.session.zero_parameter_gradients()?;
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

/// Some of the parameters, with all that their step touches.
struct Part<'p> {
    /// The first one's number.
    first: usize,
    parameters: &'p mut [f32],
    moments: [&'p mut [f32]; 2],
    /// Each shard's parameters and gradients.
    sessions: Vec<(&'p mut [f32], &'p [f32])>,
}

impl Part<'_> {
    fn step(self, adam: &Adam, updates: u32, (statistics, share): (&[Range<usize>], f32)) {
        let mut sums = [0.0; PART];
        let sums = &mut sums[..self.parameters.len()];
        for (_, gradients) in &self.sessions {
            sums.iter_mut()
                .zip(*gradients)
                .for_each(|(sum, g)| *sum += g);
        }
        let end = self.first + self.parameters.len();
        let moved: Vec<(usize, f32)> = statistics
            .iter()
            .flat_map(|range| range.start.max(self.first)..range.end.min(end))
            .map(|i| i - self.first)
            .map(|i| (i, self.parameters[i] - share * sums[i]))
            .collect();
        adam.step_part(updates, self.parameters, sums, self.moments);
        for (i, value) in moved {
            self.parameters[i] = value;
        }
        for (parameters, _) in self.sessions {
            parameters.copy_from_slice(self.parameters);
        }
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
    use crate::graph::{Builder, to_image};
    use crate::train::buffers;
    use foolproof::ops::Activation;

    #[test]
    fn a_step_is_adams_with_the_sum_of_the_shards_in_every_session() {
        let mut b = Builder::new(&[120], (-1.0, 1.0), 1).unwrap();
        let x = b.dense(b.input(), 80, Activation::None).unwrap();
        let image = to_image(&b.finish(x)).unwrap();
        let model = image.model().unwrap();
        let mut memory = buffers(&model, 1, 3).unwrap();
        let mut player = Player::new(&model, &mut memory, 1, [0.5, 0.999]).unwrap();
        player.spread().unwrap();
        let mut expected = player.parameters.clone();
        let count = expected.len();
        assert!(!count.is_multiple_of(PART) && count > 2 * PART);
        let mut state = vec![0.0; Adam::state_len(count)];
        for step in 1..=2u32 {
            let mut sum = vec![0.0; count];
            for (shard, replica) in player.replicas.iter_mut().enumerate() {
                let gradients = replica.session.parameter_gradients().unwrap();
                assert!(gradients.iter().all(|&g| g == 0.0));
                for (i, (g, sum)) in gradients.iter_mut().zip(&mut sum).enumerate() {
                    *g = ((i * (shard + 3) + step as usize) % 17) as f32 * 0.3 - 2.4;
                    *sum += *g;
                }
            }
            let adam = Adam {
                beta1: 0.5,
                ..Adam::new(0.01)
            };
            adam.step(step, &mut expected, &sum, &mut state);
            player.step(0.01, 1).unwrap();
            assert_eq!(player.parameters, expected);
            for replica in &mut player.replicas {
                assert_eq!(replica.session.parameters().unwrap(), expected);
            }
        }
    }

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
