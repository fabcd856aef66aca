//! A session behind the threat traits: the white box that is at hand in this process, on the host or on the chip.

use crate::loss::Objective;
use crate::session::{Session, SessionError};
use crate::threat::{Gradient, GradientOracle, LabelOracle, ScoreOracle};

impl LabelOracle<f32> for Session<'_> {
    type Error = SessionError;
    fn input_len(&self) -> usize {
        self.model().input_shape().len()
    }
    fn classes(&self) -> usize {
        self.model().classes()
    }
    fn classify(&mut self, x: &[f32]) -> Result<usize, SessionError> {
        self.run_f32_alone(x)?;
        Ok(self.label())
    }
}

impl ScoreOracle<f32> for Session<'_> {
    fn scores(&mut self, x: &[f32], scores: &mut [f32]) -> Result<usize, SessionError> {
        self.run_f32_alone(x)?;
        self.logits(scores)?;
        Ok(self.label())
    }
}

impl GradientOracle<f32> for Session<'_> {
    fn gradient(&mut self, x: &[f32], objective: Objective) -> Result<Gradient<'_>, SessionError> {
        self.run_f32_alone(x)?;
        let label = self.label();
        let (value, input) = self.differentiate(objective)?;
        Ok(Gradient {
            label,
            value,
            input,
        })
    }
}

impl LabelOracle<i8> for Session<'_> {
    type Error = SessionError;
    fn input_len(&self) -> usize {
        self.model().input_shape().len()
    }
    fn classes(&self) -> usize {
        self.model().classes()
    }
    fn classify(&mut self, x: &[i8]) -> Result<usize, SessionError> {
        self.run_i8_alone(x)?;
        Ok(self.label())
    }
}

impl ScoreOracle<i8> for Session<'_> {
    fn scores(&mut self, x: &[i8], scores: &mut [f32]) -> Result<usize, SessionError> {
        self.run_i8_alone(x)?;
        self.logits(scores)?;
        Ok(self.label())
    }
}

impl GradientOracle<i8> for Session<'_> {
    fn gradient(&mut self, x: &[i8], objective: Objective) -> Result<Gradient<'_>, SessionError> {
        self.run_i8_alone(x)?;
        let label = self.label();
        let (value, input) = self.differentiate(objective)?;
        Ok(Gradient {
            label,
            value,
            input,
        })
    }
}
