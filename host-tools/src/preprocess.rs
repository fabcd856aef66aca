//! From a data set's values to a model's input.

use crate::classifier::{InputForm, Inputs};
use crate::data::{Dataset, Samples};
use crate::error::{Error, Result};

/// How a data set's values map to the model's input where the files do not say it (`--input-range`, `--mean`, `--std`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preprocess {
    /// uint8 samples: the real values that bytes 0 and 255 stand for. Without it: the model's input range for an f32 model,
    /// and the int8 grid itself (`q = v - 128`) for an int8 model. Any other samples: the smallest and the largest value that
    /// they may hold, mapped onto the model's input range, or (where there is a mean or a standard deviation) onto itself.
    pub range: Option<(f32, f32)>,
    /// Subtracted afterwards, per channel or one for all.
    pub mean: Vec<f32>,
    /// Divided by afterwards, per channel or one for all.
    pub std: Vec<f32>,
    /// Whether values outside the model's input range are taken as they are: for a float model whose range nobody stated,
    /// where nothing depends on it.
    pub any_values: bool,
}

/// How far outside a range values may lie, as a share of it: resampling and normalizing overshoot a little.
const SLACK: f32 = 0.01;

impl Preprocess {
    /// All samples as the model takes them.
    ///
    /// # Errors
    /// Samples of another shape than the model's input, values outside its range, int8 samples for an f32 model, or a mean
    /// or standard deviation that does not fit the channels.
    pub fn inputs(&self, data: &Dataset, form: &InputForm) -> Result<Inputs> {
        check_shape(data, &form.shape)?;
        self.check_normalization(form.channels())?;
        let quantized = form.grid.is_some();
        let normalizes = !self.mean.is_empty() || !self.std.is_empty();
        let plain = self.range.is_none() && !normalizes;
        let (low, high) = form.range;
        let step = form.grid.map_or(0.0, |grid| grid.scale);
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
            (Samples::U8(_), _) if normalizes && self.range.is_none() => {
                return Err(Error::new(
                    "nothing says which real values uint8 samples have before --mean and --std",
                    data.name(),
                    "--input-range 0,1 or --input-range 0,255",
                ));
            }
            (Samples::U8(x), _) => {
                let from = self.range.unwrap_or((low, high));
                x.iter()
                    .map(|&v| between(from, f32::from(v) / 255.0))
                    .collect()
            }
            (Samples::F32(x), _) => match self.range {
                None => x.clone(),
                Some(range) => {
                    let extremes = extremes(x);
                    if is_outside(extremes, range, 0.0) {
                        return Err(Error::new(
                            format!(
                                "values go from {} to {}, --input-range says {} to {}",
                                extremes.0, extremes.1, range.0, range.1
                            ),
                            data.name(),
                            "the smallest and the largest value that the samples may hold",
                        ));
                    }
                    match normalizes || range == (low, high) {
                        true => x.clone(),
                        false => {
                            let share = |v: f32| (v - range.0) / (range.1 - range.0);
                            x.iter().map(|&v| between((low, high), share(v))).collect()
                        }
                    }
                }
            },
        };
        let real = self.normalized(real, form.channels());
        let extremes = extremes(&real);
        if is_outside(extremes, (low, high), step) && !self.any_values {
            return Err(Error::new(
                format!(
                    "values go from {} to {}, the model takes {low} to {high}",
                    extremes.0, extremes.1
                ),
                data.name(),
                "give uint8 samples, scale the values, or say what they are by --input-range LO,HI",
            ));
        }
        Ok(form.inputs(&real))
    }

    /// The range of a model's input that samples between `--input-range` (0 to 1 without it) fill after `--mean` and `--std`;
    /// `None` where the user said none of the three.
    pub fn spanned(&self) -> Option<(f32, f32)> {
        if *self == Self::default() {
            return None;
        }
        let (low, high) = self.range.unwrap_or((0.0, 1.0));
        let count = self.mean.len().max(self.std.len()).max(1);
        let at = |values: &[f32], i: usize, otherwise: f32| match values {
            [] => otherwise,
            [one] => *one,
            many => many.get(i).copied().unwrap_or(otherwise),
        };
        let ends = (0..count).flat_map(|i| {
            let (mean, std) = (at(&self.mean, i, 0.0), at(&self.std, i, 1.0));
            [(low - mean) / std, (high - mean) / std]
        });
        let ends: Vec<f32> = ends.collect();
        let (low, high) = extremes(&ends);
        (low.is_finite() && high.is_finite() && low < high).then_some((low, high))
    }

    fn check_normalization(&self, channels: usize) -> Result<()> {
        for (what, values) in [("--mean", &self.mean), ("--std", &self.std)] {
            if values.len() > 1 && values.len() != channels {
                return Err(Error::new(
                    format!("{} values for {channels} channels", values.len()),
                    what,
                    format!("one number, or one for each of {channels} channels"),
                ));
            }
            let usable = |v: f32| v.is_finite() && (what == "--mean" || v > 0.0);
            if let Some(wrong) = values.iter().find(|&&v| !usable(v)) {
                return Err(Error::new(
                    format!("{wrong} cannot be used"),
                    what,
                    match what {
                        "--mean" => "finite numbers",
                        _ => "finite numbers above 0: values are divided by them",
                    },
                ));
            }
        }
        Ok(())
    }

    fn normalized(&self, mut real: Vec<f32>, channels: usize) -> Vec<f32> {
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
        real
    }
}

fn between((low, high): (f32, f32), share: f32) -> f32 {
    low + (high - low) * share
}

fn extremes(values: &[f32]) -> (f32, f32) {
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (low, high)
}

/// Whether values leave a range by more than a hundredth of it and `step`. What is no number is outside.
fn is_outside((least, most): (f32, f32), (low, high): (f32, f32), step: f32) -> bool {
    let slack = SLACK * (high - low) + step;
    !(least >= low - slack && most <= high + slack)
}

/// Samples may leave out or add axes of size 1, or be flat, and a flat input takes samples of any shape; anything else is
/// another layout, whose values would be mixed up.
fn check_shape(data: &Dataset, wanted: &[usize]) -> Result<()> {
    let axes = |shape: &[usize]| -> Vec<usize> {
        shape.iter().copied().filter(|&size| size != 1).collect()
    };
    let (mut has, mut wants) = (axes(data.shape()), axes(wanted));
    let count: usize = wanted.iter().product();
    let same_count = data.sample_len() == count;
    if has == wants || (same_count && (has.len() <= 1 || wants.len() <= 1)) {
        return Ok(());
    }
    has.sort_unstable();
    wants.sort_unstable();
    let hint = match has == wants {
        true => "; transpose it to channels-last",
        false => "",
    };
    Err(Error::new(
        format!("samples of shape {:?}", data.shape()),
        data.name(),
        format!("samples of shape {wanted:?}, as the model takes them{hint}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classifier::Classifier;
    use crate::graph::{Image, to_image};
    use crate::networks;
    use crate::quantize::{Options, quantize};
    use foolproof::kernels::Kernels;

    fn data(shape: &[usize], samples: Samples) -> Dataset {
        Dataset::new("d.npz", shape.to_vec(), samples, None).unwrap()
    }

    fn images() -> [Image; 2] {
        let labels = vec!["0".into(), "1".into()];
        let graph = networks::default_for(&[4, 4, 3], (0.0, 1.0), labels, 1).unwrap();
        let calibration: Vec<f32> = (0..96).map(|i| i as f32 / 95.0).collect();
        let int8 = quantize(&graph, &calibration, &Options::default()).unwrap();
        [to_image(&graph).unwrap(), to_image(&int8).unwrap()]
    }

    fn ramp(low: f32, high: f32) -> Samples {
        Samples::F32(
            (0..48)
                .map(|i| low + (high - low) * i as f32 / 47.0)
                .collect(),
        )
    }

    #[test]
    fn values_outside_the_models_range_are_refused_or_mapped() {
        for image in images() {
            let classifier = Classifier::new(image.model().unwrap(), Kernels::Scalar);
            let inputs = |preprocess: &Preprocess, samples: Samples| {
                preprocess.inputs(&data(&[4, 4, 3], samples), &classifier.form())
            };
            let plain = Preprocess::default();
            let right = inputs(&plain, ramp(0.0, 1.0)).unwrap();
            assert!(inputs(&plain, ramp(-0.005, 1.005)).is_ok());
            let error = inputs(&plain, ramp(0.0, 16.0)).unwrap_err().to_string();
            assert!(
                error.contains("0 to 16") && error.contains("takes") && error.contains("d.npz"),
                "{error}"
            );
            let mapped = Preprocess {
                range: Some((0.0, 16.0)),
                ..plain.clone()
            };
            let (mapped_inputs, right) = (
                classifier.real(&inputs(&mapped, ramp(0.0, 16.0)).unwrap()),
                classifier.real(&right),
            );
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1.01 / 255.0;
            assert!(mapped_inputs.iter().zip(&right).all(close));
            assert!(inputs(&mapped, ramp(0.0, 255.0)).is_err());
            // torchvision's way
            let normalized = Preprocess {
                range: Some((0.0, 255.0)),
                mean: vec![127.5],
                std: vec![255.0],
                any_values: false,
            };
            assert_eq!(normalized.spanned(), Some((-0.5, 0.5)));
            assert!(inputs(&normalized, Samples::U8(vec![0; 48])).is_err());
            let bytes = Preprocess {
                std: vec![1.0],
                ..plain
            };
            let error = inputs(&bytes, Samples::U8(vec![0; 48])).unwrap_err();
            assert!(error.to_string().contains("--input-range"));
            let zero = Preprocess {
                std: vec![0.0],
                ..Preprocess::default()
            };
            let error = inputs(&zero, ramp(0.0, 1.0)).unwrap_err().to_string();
            assert!(
                error.contains("--std") && error.contains("above 0"),
                "{error}"
            );
        }
    }

    #[test]
    fn only_layouts_that_mean_the_same_are_taken() {
        let [image, _] = images();
        let classifier = Classifier::new(image.model().unwrap(), Kernels::Scalar);
        let inputs = |shape: &[usize]| {
            Preprocess::default().inputs(&data(shape, ramp(0.0, 1.0)), &classifier.form())
        };
        for right in [
            &[4usize, 4, 3][..],
            &[48],
            &[1, 4, 4, 3],
            &[4, 1, 4, 3],
            &[48, 1],
        ] {
            assert!(inputs(right).is_ok(), "{right:?}");
        }
        let error = inputs(&[3, 4, 4]).unwrap_err().to_string();
        assert!(
            error.contains("[3, 4, 4]")
                && error.contains("[4, 4, 3]")
                && error.contains("transpose it to channels-last"),
            "{error}"
        );
        let error = inputs(&[2, 8, 3]).unwrap_err().to_string();
        assert!(
            error.contains("[2, 8, 3]") && !error.contains("transpose"),
            "{error}"
        );
        assert!(inputs(&[16, 3]).is_err() && inputs(&[24]).is_err());
        let flat = |wanted: &[usize]| check_shape(&data(&[6, 8], ramp(0.0, 1.0)), wanted);
        assert!(flat(&[48]).is_ok() && flat(&[1, 48, 1]).is_ok() && flat(&[24]).is_err());
    }
}
