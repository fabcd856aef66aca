//! One network in training: a session per shard of the batch, all with the same parameters, and Adam.

use super::run::Checkpoint;
use super::{ParameterTable, Replica, TrainError, replicas};
use crate::lines::Lines;
use foolproof::kernels::{self, AdamF32, Kernels};
use foolproof::model::Model;
use foolproof::model::format::TensorRole;
use foolproof::optim::Adam;
use foolproof::session::SessionError;
use rayon::prelude::*;
use std::ops::Range;

/// How far running statistics move towards a batch's in one step (PyTorch's default momentum).
const STATISTICS_MOMENTUM: f32 = 0.1;

/// Parameters that a thread steps at a time.
const PART: usize = 4096;

/// A network in training.
pub struct Player<'a> {
    /// One session per shard, in shard order; at least one. The first one's parameters are the network's, the others' are copies.
    pub replicas: Vec<Replica<'a>>,
    table: ParameterTable,
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
        let count = replicas[0].session.parameters()?.len();
        Ok(Player {
            replicas,
            table,
            moments: vec![0.0; Adam::state_len(count)],
            updates: 0,
            betas,
        })
    }

    /// All parameters and running statistics, in tensor order: the first session's.
    ///
    /// # Errors
    /// Never for a player.
    pub fn parameters(&mut self) -> std::result::Result<&mut [f32], SessionError> {
        self.replicas[0].session.parameters()
    }

    /// Where each tensor's elements are among the parameters, and these, as [`super::store`] takes them.
    ///
    /// # Errors
    /// Never for a player.
    pub fn tensors(&mut self) -> std::result::Result<(&ParameterTable, &[f32]), SessionError> {
        Ok((&self.table, self.replicas[0].session.parameters()?))
    }

    /// The sessions take the parameters as they are now, and forget their gradients.
    ///
    /// # Errors
    /// Never for a player.
    pub fn spread(&mut self) -> std::result::Result<(), SessionError> {
        let (first, others) = self.replicas.split_at_mut(1);
        let parameters = first[0].session.parameters()?;
        for replica in others {
            replica.session.parameters()?.copy_from_slice(parameters);
        }
        for replica in &mut self.replicas {
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
        let sessions: Vec<_> = sessions.collect::<std::result::Result<_, _>>()?;
        let count = self.moments.len() / 2;
        let (first, second) = self.moments.split_at_mut(count);
        let mut parts: Vec<Part<'_>> = first
            .chunks_mut(PART)
            .zip(second.chunks_mut(PART))
            .enumerate()
            .map(|(i, (first, second))| Part {
                first: i * PART,
                moments: [first, second],
                parameters: Vec::with_capacity(sessions.len()),
                gradients: Vec::with_capacity(sessions.len()),
            })
            .collect();
        for (parameters, gradients) in sessions {
            let both = parameters.chunks_mut(PART).zip(gradients.chunks(PART));
            for (part, (parameters, gradients)) in parts.iter_mut().zip(both) {
                part.parameters.push(parameters);
                part.gradients.push(gradients);
            }
        }
        let adam = adam.at(self.updates);
        parts
            .into_par_iter()
            .for_each(|part| part.step(&adam, (&statistics, share)));
        for replica in &mut self.replicas {
            replica.session.zero_parameter_gradients()?;
        }
        Ok(())
    }

    /// Puts everything that the next step depends on into a checkpoint, under `name`.
    ///
    /// # Errors
    /// Never for a player.
    pub fn save(
        &mut self,
        name: &str,
        checkpoint: &mut Checkpoint,
    ) -> std::result::Result<(), SessionError> {
        checkpoint
            .arrays
            .insert(format!("{name}.parameters"), self.parameters()?.to_vec());
        checkpoint
            .arrays
            .insert(format!("{name}.moments"), self.moments.clone());
        checkpoint
            .numbers
            .insert(format!("{name}.updates"), f64::from(self.updates));
        Ok(())
    }

    /// Takes it back; [`Player::spread`] makes it the sessions'.
    ///
    /// # Errors
    /// The checkpoint is of another network.
    pub fn restore(
        &mut self,
        name: &str,
        checkpoint: &Checkpoint,
    ) -> std::result::Result<(), TrainError> {
        let own = self.parameters()?;
        own.copy_from_slice(checkpoint.array(&format!("{name}.parameters"), own.len())?);
        let moments = checkpoint.array(&format!("{name}.moments"), self.moments.len())?;
        self.moments.copy_from_slice(moments);
        self.updates = checkpoint.number(&format!("{name}.updates")) as u32;
        Ok(())
    }
}

/// Some of the parameters, with all that their step touches.
struct Part<'p> {
    /// The first one's number.
    first: usize,
    moments: [&'p mut [f32]; 2],
    /// Each shard's.
    parameters: Vec<&'p mut [f32]>,
    gradients: Vec<&'p [f32]>,
}

impl Part<'_> {
    fn step(mut self, adam: &AdamF32, (statistics, share): (&[Range<usize>], f32)) {
        // running statistics take a plain step
        let (start, end) = (self.first, self.first + self.moments[0].len());
        let here = statistics
            .iter()
            .flat_map(|range| range.start.max(start)..range.end.min(end));
        let moved: Vec<(usize, f32)> = here
            .map(|i| i - start)
            .map(|i| {
                let shards = self.gradients.iter().map(|gradients| gradients[i]);
                let sum = shards.reduce(|sum, g| sum + g).unwrap_or(0.0);
                (i, self.parameters[0][i] - share * sum)
            })
            .collect();
        kernels::adam_f32(
            Kernels::detect_exact(),
            adam,
            &self.gradients,
            &mut self.parameters,
            self.moments,
        );
        for parameters in self.parameters {
            moved.iter().for_each(|&(i, value)| parameters[i] = value);
        }
    }
}

/// An exponential moving average of parameters, taken after every step: smoother samples than the last iterate's.
/// Yazici et al., "The unusual effectiveness of averaging in GAN training" (2019), equation 4.
#[derive(Clone, Debug, PartialEq)]
pub struct Average {
    /// With a decay above 0; without, it is the last iterate.
    parameters: Option<Vec<f32>>,
    decay: f32,
}

impl Average {
    /// An average that starts at these parameters; `decay` 0 is the last iterate itself.
    pub fn new(parameters: &[f32], decay: f32) -> Average {
        Average {
            parameters: (decay != 0.0).then(|| parameters.to_vec()),
            decay,
        }
    }

    /// One step: `average += (1 - decay) (parameters - average)`.
    pub fn step(&mut self, parameters: &[f32]) {
        let new = 1.0 - self.decay;
        let Some(average) = &mut self.parameters else {
            return;
        };
        average
            .par_chunks_mut(PART)
            .zip(parameters.par_chunks(PART))
            .for_each(|(average, parameters)| {
                for (a, &p) in average.iter_mut().zip(parameters) {
                    *a += new * (p - *a);
                }
            });
    }

    /// The average of the iterates, of which `last` is the last.
    pub fn of<'p>(&'p self, last: &'p [f32]) -> &'p [f32] {
        self.parameters.as_deref().unwrap_or(last)
    }

    /// Goes on from such an average.
    pub fn restore(&mut self, average: &[f32]) {
        if let Some(own) = &mut self.parameters {
            own.copy_from_slice(average);
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
        // running statistics that begin in one part and end in the next
        let x = b.dense(b.input(), 33, Activation::None).unwrap();
        let x = b.batch_norm(x).unwrap();
        let x = b.dense(x, 300, Activation::None).unwrap();
        let image = to_image(&b.finish(x)).unwrap();
        let model = image.model().unwrap();
        let mut memory = buffers(&model, 1, 3).unwrap();
        let mut player = Player::new(&model, &mut memory, 1, [0.5, 0.999]).unwrap();
        player.spread().unwrap();
        let mut expected = player.parameters().unwrap().to_vec();
        let count = expected.len();
        assert!(!count.is_multiple_of(PART) && count > 2 * PART);
        let statistics: Vec<usize> = player
            .table
            .iter()
            .filter(|(_, role, _)| *role == TensorRole::Statistic)
            .flat_map(|(_, _, range)| range.clone())
            .collect();
        assert!(statistics.contains(&(PART - 1)) && statistics.contains(&PART));
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
            let before = expected.clone();
            adam.step(step, &mut expected, &sum, &mut state);
            for &i in &statistics {
                expected[i] = before[i] - STATISTICS_MOMENTUM / 6.0 * sum[i];
            }
            player.step(0.01, 2).unwrap();
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
        assert_eq!(slow.of(&[1.0]), [0.75]);
        slow.restore(&[0.25]);
        assert_eq!(slow.of(&[1.0]), [0.25]);
        let mut last = Average::new(&[0.0], 0.0);
        last.step(&[0.3]);
        last.restore(&[0.0]);
        assert_eq!(last.of(&[0.3]), [0.3]);
    }
}
