//! Autoencoders that detect anomalies: how far the output is from the input is what the model says.
//!
//! With the threshold `t` of [`Model::anomaly_above`](crate::model::Model::anomaly_above) and the mean squared difference
//! `e`, the scores are `-r` (normal) and `r` (anomaly) with `r = ln(e / t)`. The logarithm keeps their gradient alive however
//! far `e` is from `t`. The gradient has two parts: through the model, and of the input that the output is compared with.

use super::backward::Wanted;
use super::{Session, SessionError};
use crate::memory::Role;
use crate::tensor::{Data, Quant};
use zerocopy::FromBytes;

impl Session<'_> {
    /// The mean squared difference between output and input of one sample of the batch, in real units, after a run of an
    /// anomaly detector; 0 for other models.
    pub fn reconstruction_error(&self, sample: usize) -> f32 {
        let tables = self.model.tables();
        if tables.anomaly_above().is_none() {
            return 0.0;
        }
        let n = self.model.input_shape().len();
        let (x, y) = (self.value(tables.input()), self.value(tables.output()));
        let (x_grid, y_grid) = (tables.quant(tables.input()), tables.quant(tables.output()));
        let at = |i| sample * n + i;
        mean_squared_difference(n, |i| (real(x, x_grid, at(i)), real(y, y_grid, at(i))))
    }

    /// `ln(error / threshold)` of one sample.
    pub(super) fn anomaly_score(&self, sample: usize, threshold: f32) -> f32 {
        score_of(self.reconstruction_error(sample), threshold)
    }

    /// Backward from gradients with respect to the two scores of each sample, after `begin_backward`.
    pub(super) fn backward_scores(
        &mut self,
        scores: &[f32],
        wanted: Wanted,
    ) -> Result<&[f32], SessionError> {
        let tables = *self.model.tables();
        let (input, output) = (tables.input(), tables.output());
        let needed = 2 * self.options.batch;
        if scores.len() != needed {
            let got = scores.len();
            return Err(SessionError::Length { needed, got });
        }
        self.begin_backward(output)?;
        self.add_differences(output, scores, 1.0);
        self.finish_backward(output, wanted);
        self.add_differences(input, scores, -1.0);
        let range = self.slot(input, Role::Gradient).unwrap_or(0..0);
        Ok(<[f32]>::ref_from_bytes(&self.buffer[range]).unwrap_or(&[]))
    }

    /// Adds to a tensor's gradient `sign` times what the scores' gradients mean for the output.
    fn add_differences(&mut self, tensor: usize, scores: &[f32], sign: f32) {
        let tables = *self.model.tables();
        let n = self.model.input_shape().len();
        let (x_grid, y_grid) = (tables.quant(tables.input()), tables.quant(tables.output()));
        for (sample, g) in scores.as_chunks().0.iter().enumerate() {
            let [normal, anomaly]: [f32; 2] = *g;
            let error = self.reconstruction_error(sample).max(f32::MIN_POSITIVE);
            // d r / d error = 1 / error, d error / d y = 2 (y - x) / n
            let slope = sign * 2.0 * (anomaly - normal) / (error * n as f32);
            self.with_output(tensor, Role::Gradient, |s, rest, out| {
                let Ok(gradient) = <[f32]>::mut_from_bytes(out) else {
                    return;
                };
                let x = s.operand(rest, tables.input(), true).data;
                let y = s.operand(rest, tables.output(), true).data;
                for (i, g) in gradient.iter_mut().enumerate().skip(sample * n).take(n) {
                    *g += slope * (real(y, y_grid, i) - real(x, x_grid, i));
                }
            });
        }
    }
}

/// The mean of `(y - x)^2` over `n` pairs `(x, y)`, summed in their order.
pub(crate) fn mean_squared_difference(n: usize, pair: impl Fn(usize) -> (f32, f32)) -> f32 {
    let mut sum = 0.0;
    for i in 0..n {
        let (x, y) = pair(i);
        let difference = y - x;
        sum += difference * difference;
    }
    sum / n as f32
}

/// `ln(error / threshold)`: above 0 for an anomaly.
pub(crate) fn score_of(error: f32, threshold: f32) -> f32 {
    libm::logf(error.max(f32::MIN_POSITIVE) / threshold)
}

/// Element `i` as a real number; 0 where it is not there.
fn real(data: Data<'_>, grid: Quant<'_>, i: usize) -> f32 {
    match data {
        Data::F32(values) => values.get(i).copied().unwrap_or(0.0),
        Data::I8(values) => values.get(i).map_or(0.0, |&q| {
            grid.scale * (i32::from(q) - grid.zero_point) as f32
        }),
        Data::I32(_) | Data::Absent => 0.0,
    }
}
