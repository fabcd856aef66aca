//! What values tensors take: constants by looking, activations by running the calibration set.

use super::QuantizeError;
use crate::graph::{Graph, TensorData, to_image};
use crate::lines::Lines;
use foolproof::memory::Mode;
use foolproof::session::Session;
use foolproof::tensor::Data;
use zerocopy::IntoBytes;

/// The smallest and largest value seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub low: f32,
    pub high: f32,
}

impl Range {
    /// Nothing seen yet.
    pub const EMPTY: Range = Range {
        low: f32::INFINITY,
        high: f32::NEG_INFINITY,
    };

    /// Of these values.
    pub fn of(values: &[f32]) -> Range {
        let mut range = Range::EMPTY;
        for &v in values {
            range.low = range.low.min(v);
            range.high = range.high.max(v);
        }
        range
    }

    /// The smallest range that holds both.
    pub fn union(self, other: Range) -> Range {
        Range {
            low: self.low.min(other.low),
            high: self.high.max(other.high),
        }
    }
}

/// Every f32 constant is finite.
pub(super) fn check_constants(graph: &Graph) -> Result<(), QuantizeError> {
    for tensor in &graph.tensors {
        let TensorData::F32(values) = &tensor.data else {
            continue;
        };
        if let Some(element) = values.iter().position(|v| !v.is_finite()) {
            return Err(QuantizeError::ConstantValue {
                tensor: tensor.name.clone(),
                element,
                value: values[element],
            });
        }
    }
    Ok(())
}

/// Runs every sample through the f32 graph; the range of each tensor, empty for constants.
pub(super) fn observe(graph: &Graph, samples: &[f32]) -> Result<Vec<Range>, QuantizeError> {
    let input_len = graph.tensors[graph.input].shape.len();
    if samples.is_empty() || !samples.len().is_multiple_of(input_len) {
        return Err(QuantizeError::CalibrationLength {
            len: samples.len(),
            input_len,
        });
    }
    if let Some(i) = samples.iter().position(|v| !v.is_finite()) {
        return Err(QuantizeError::CalibrationValue {
            sample: i / input_len,
            element: i % input_len,
            value: samples[i],
        });
    }
    let mut ranges = vec![Range::EMPTY; graph.tensors.len()];
    ranges[graph.input] = Range::of(samples);
    let image = to_image(graph)?;
    let model = image.model().map_err(crate::graph::GraphError::from)?;
    let mut buffer = Lines::zeroed(model.required_buffer(Mode::Infer));
    let mut session = Session::new(&model, Mode::Infer, &mut buffer)?;
    for (sample, x) in samples.chunks_exact(input_len).enumerate() {
        let mut bad = None;
        session.trace(x.as_bytes(), &mut |t, data| {
            let Data::F32(values) = data else { return };
            // min and max skip NaN, so it is looked for
            if let Some(&value) = values.iter().find(|v| !v.is_finite()) {
                bad.get_or_insert((t, value));
            }
            ranges[t] = ranges[t].union(Range::of(values));
        })?;
        if let Some((t, value)) = bad {
            return Err(QuantizeError::ActivationValue {
                tensor: graph.tensors[t].name.clone(),
                sample,
                value,
            });
        }
    }
    Ok(ranges)
}
