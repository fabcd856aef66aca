//! From a data set's values to a model's input.

use crate::classifier::{Classifier, Inputs};
use crate::data::{Dataset, Samples};
use crate::error::{Error, Result};

/// How a data set's values map to the model's input where the files do not say it (`--input-range`, `--mean`, `--std`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preprocess {
    /// The real values that bytes 0 and 255 stand for. Without it: the model's input range for an f32 model, and the int8
    /// grid itself (`q = v - 128`) for an int8 model.
    pub range: Option<(f32, f32)>,
    /// Subtracted afterwards, per channel or one for all.
    pub mean: Vec<f32>,
    /// Divided by afterwards, per channel or one for all.
    pub std: Vec<f32>,
}

impl Preprocess {
    /// All samples as the model takes them.
    ///
    /// # Errors
    /// Samples of another size than the model's input, int8 samples for an f32 model, or a mean or standard deviation
    /// that does not fit the channels.
    pub fn inputs(&self, data: &Dataset, classifier: &Classifier<'_>) -> Result<Inputs> {
        let shape = classifier.model().input_shape();
        let wanted = &shape.dims()[1..];
        if data.sample_len() != shape.len() {
            return Err(Error::new(
                format!("samples of shape {:?}", data.shape()),
                data.name(),
                format!("samples of shape {wanted:?}, as the model takes them"),
            ));
        }
        if let [channels, rest @ ..] = data.shape()
            && wanted.len() > 1
            && *channels > 1
            && data
                .shape()
                .iter()
                .map(|&d| d as u32)
                .ne(wanted.iter().copied())
            && rest
                .iter()
                .chain([channels])
                .map(|&d| d as u32)
                .eq(wanted.iter().copied())
        {
            return Err(Error::new(
                format!("samples of shape {:?}, channels first", data.shape()),
                data.name(),
                format!("samples of shape {wanted:?}, channels last"),
            ));
        }
        let quantized = classifier.is_quantized();
        let plain = self.range.is_none() && self.mean.is_empty() && self.std.is_empty();
        let (low, high) = self.range.unwrap_or(classifier.model().input_range());
        let real: Vec<f32> = match (data.samples(), quantized) {
            (Samples::I8(x), true) if plain => return Ok(Inputs::I8(x.clone())),
            (Samples::U8(x), true) if plain => {
                return Ok(Inputs::I8(x.iter().map(|&v| (v ^ 0x80) as i8).collect()));
            }
            (Samples::I8(_), _) => {
                return Err(Error::new(
                    "int8 samples are steps of a quantized model's own grid",
                    data.name(),
                    "an int8 model without --input-range, --mean or --std; or samples in f32 or u8",
                ));
            }
            (Samples::U8(x), _) => x
                .iter()
                .map(|&v| low + (high - low) * f32::from(v) / 255.0)
                .collect(),
            (Samples::F32(x), _) => x.clone(),
        };
        let real = self.normalized(real, shape.channels())?;
        Ok(classifier.inputs(&real))
    }

    fn normalized(&self, mut real: Vec<f32>, channels: usize) -> Result<Vec<f32>> {
        for (what, values) in [("--mean", &self.mean), ("--std", &self.std)] {
            let count_ok = values.len() <= 1 || values.len() == channels;
            let finite = values.iter().all(|v| v.is_finite());
            let positive = what == "--mean" || values.iter().all(|&v| v > 0.0);
            if !count_ok || !finite || !positive {
                return Err(Error::new(
                    format!("{} values that cannot be used", values.len()),
                    what,
                    format!(
                        "one finite number, or one for each of {channels} channels; a standard deviation above 0"
                    ),
                ));
            }
        }
        let at = |values: &[f32], i: usize, otherwise: f32| match values {
            [] => otherwise,
            [one] => *one,
            many => many[i % channels],
        };
        if !self.mean.is_empty() || !self.std.is_empty() {
            for (i, v) in real.iter_mut().enumerate() {
                *v = (*v - at(&self.mean, i, 0.0)) / at(&self.std, i, 1.0);
            }
        }
        Ok(real)
    }
}
