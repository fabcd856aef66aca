//! Early stop: training ends when samples have not become better for a while, and the best generator is kept.

use crate::error::Result;
use crate::train::run::Checkpoint;

/// What tells better samples from worse, in figures after an epoch; less is better.
const MEASURES: [&str; 2] = ["js", "frechet"];

/// The best generator so far.
#[derive(Clone, Debug)]
pub struct Early {
    patience: usize,
    /// Its measure; infinite before the first.
    value: f64,
    /// Its epoch; 0 before the first.
    epoch: usize,
    /// Judgements since.
    misses: usize,
    parameters: Vec<f32>,
}

impl Early {
    /// Stops after `patience` judgements without a better one; with 0 never, and keeps nothing. `parameters` is how many a
    /// generator has.
    pub fn new(patience: usize, parameters: usize) -> Early {
        Early {
            patience,
            value: f64::INFINITY,
            epoch: 0,
            misses: 0,
            parameters: vec![0.0; if patience > 0 { parameters } else { 0 }],
        }
    }

    /// Takes the figures after an epoch, and the generator's parameters if they are the best. Figures without a measure say nothing.
    pub fn judge(&mut self, epoch: usize, figures: &[(&str, f64)], parameters: &[f32]) {
        let measure = figures.iter().find(|(name, _)| MEASURES.contains(name));
        let Some(&(_, value)) = measure.filter(|_| self.patience > 0) else {
            return;
        };
        if value < self.value {
            (self.value, self.epoch, self.misses) = (value, epoch, 0);
            self.parameters.copy_from_slice(parameters);
        } else {
            self.misses += 1;
        }
    }

    /// Whether training ends here.
    pub fn is_over(&self) -> bool {
        self.patience > 0 && self.misses >= self.patience
    }

    /// The best generator's epoch and parameters, if there is one.
    pub fn best(&self) -> Option<(usize, &[f32])> {
        (self.epoch > 0).then_some((self.epoch, &self.parameters))
    }

    /// Puts it into a checkpoint.
    pub fn save(&self, checkpoint: &mut Checkpoint) {
        if self.epoch > 0 {
            let numbers = [
                ("best.value", self.value),
                ("best.epoch", self.epoch as f64),
                ("best.misses", self.misses as f64),
            ];
            checkpoint
                .numbers
                .extend(numbers.map(|(name, value)| (name.to_string(), value)));
            checkpoint
                .arrays
                .insert("best.parameters".into(), self.parameters.clone());
        }
    }

    /// Takes it back.
    ///
    /// # Errors
    /// The checkpoint is of another network.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        self.epoch = checkpoint.number("best.epoch") as usize;
        if self.epoch > 0 {
            self.value = checkpoint.number("best.value");
            self.misses = checkpoint.number("best.misses") as usize;
            let parameters = checkpoint.array("best.parameters", self.parameters.len())?;
            self.parameters.copy_from_slice(parameters);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stops_after_misses_and_keeps_the_best() {
        let mut early = Early::new(2, 1);
        early.judge(1, &[("loss", 0.1)], &[1.0]);
        assert!(early.best().is_none());
        early.judge(2, &[("loss", 0.1), ("js", 0.5)], &[2.0]);
        early.judge(3, &[("js", 0.6)], &[3.0]);
        assert!(!early.is_over());
        early.judge(4, &[("js", 0.4)], &[4.0]);
        early.judge(5, &[("js", f64::NAN)], &[5.0]);
        let mut checkpoint = Checkpoint::default();
        early.save(&mut checkpoint);
        let mut again = Early::new(2, 1);
        again.restore(&checkpoint).unwrap();
        again.judge(6, &[("js", 0.4)], &[6.0]);
        assert!(again.is_over());
        assert_eq!(again.best(), Some((4, &[4.0f32][..])));
        // and without patience it never stops
        let mut never = Early::new(0, 1);
        never.judge(1, &[("js", 0.5)], &[1.0]);
        never.judge(2, &[("js", 0.6)], &[1.0]);
        assert!(!never.is_over() && never.best().is_none());
    }
}
