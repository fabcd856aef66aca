//! The parameters that were best so far.

use crate::train::TrainError;
use crate::train::run::Checkpoint;

/// The parameters that were best on the held-out samples; the first of equals.
#[derive(Default)]
pub(super) struct Best {
    figure: f64,
    pub epoch: usize,
    pub parameters: Vec<f32>,
    /// What goes with them: the ranges of the activations, in quantization-aware training.
    pub ranges: Vec<f32>,
}

impl Best {
    pub fn offer(&mut self, figure: f64, epoch: usize, parameters: &[f32], ranges: &[f32]) {
        if self.epoch == 0 || figure > self.figure {
            *self = Best {
                figure,
                epoch,
                parameters: parameters.to_vec(),
                ranges: ranges.to_vec(),
            };
        }
    }

    pub fn save(&self, checkpoint: &mut Checkpoint) {
        if self.epoch == 0 {
            return;
        }
        let numbers = [
            ("best.figure", self.figure),
            ("best.epoch", self.epoch as f64),
        ];
        for (name, number) in numbers {
            checkpoint.numbers.insert(name.into(), number);
        }
        let arrays = [
            ("best.parameters", &self.parameters),
            ("best.ranges", &self.ranges),
        ];
        for (name, array) in arrays {
            checkpoint.arrays.insert(name.into(), array.clone());
        }
    }

    /// `lens`: how many parameters and numbers of ranges there are.
    pub fn restored(checkpoint: &Checkpoint, lens: [usize; 2]) -> Result<Best, TrainError> {
        let epoch = checkpoint.number("best.epoch") as usize;
        Ok(match epoch {
            0 => Best::default(),
            _ => Best {
                figure: checkpoint.number("best.figure"),
                epoch,
                parameters: checkpoint.array("best.parameters", lens[0])?.to_vec(),
                ranges: checkpoint.array("best.ranges", lens[1])?.to_vec(),
            },
        })
    }
}
