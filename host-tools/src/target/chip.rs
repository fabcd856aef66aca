//! A chip at the end of a line: an emulator, or a board on a serial port. It answers with its model's output, as it
//! is: probabilities where the model ends in a softmax.

use super::{Sample, Target, described};
use crate::attack::Access;
use crate::classifier::{Grid, InputForm};
use crate::device::{Chip, Line};
use crate::error::{Error, Result};
use foolproof::link::{Input, Port};
use zerocopy::IntoBytes;

/// A chip that serves a model.
pub struct ChipTarget<L: Line> {
    name: String,
    chip: Chip<L>,
    form: InputForm,
    classes: usize,
    output: Option<Grid>,
    /// CRC-32 of the model that it runs.
    image_crc: u32,
}

impl<L: Line> ChipTarget<L> {
    /// A chip that runs the model in its slot, or `image` streamed to its RAM. `name` is what people call it.
    ///
    /// # Errors
    /// The chip does not answer, has no model, or has no room for this one.
    pub fn new(name: String, mut chip: Chip<L>, image: Option<&[u8]>) -> Result<ChipTarget<L>> {
        let refuse = |error: anyhow::Error| {
            Error::new(
                format!("{error:#}"),
                &name,
                "foolproof's firmware with a model that fits",
            )
        };
        chip.hello().map_err(refuse)?;
        let ready = match image {
            Some(image) => chip.load(image).map_err(refuse)?,
            None => chip.use_slot().map_err(refuse)?,
        };
        let grid = |port: &Port| {
            port.is_int8.then_some(Grid {
                scale: port.scale,
                zero_point: port.zero_point,
            })
        };
        let (input, output) = (&ready.input, &ready.output);
        let shape: Vec<usize> = input.dims().iter().map(|&d| d as usize).collect();
        let classes: usize = output.dims().iter().map(|&d| d as usize).product();
        Ok(ChipTarget {
            form: InputForm {
                shape,
                grid: grid(input),
                range: ready.input_range,
            },
            classes,
            output: grid(output),
            image_crc: ready.image_crc,
            name,
            chip,
        })
    }

    /// Ends the firmware and gives the line back.
    ///
    /// # Errors
    /// The chip does not answer.
    pub fn quit(self) -> Result<L> {
        let name = self.name;
        self.chip
            .quit()
            .map_err(|error| Error::new(format!("{error:#}"), name, ""))
    }
}

impl<L: Line> Target for ChipTarget<L> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn form(&self) -> &InputForm {
        &self.form
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn access(&self) -> Access {
        Access::Scores
    }

    fn describe(&self) -> String {
        format!("{} image crc {:08x}", described(self), self.image_crc)
    }

    fn ask(&mut self, x: Sample<'_>, scores: &mut [f32]) -> Result<usize> {
        let bytes = match x {
            Sample::F32(x) => x.as_bytes(),
            Sample::I8(x) => x.as_bytes(),
        };
        let inferred = self
            .chip
            .infer(Input::Bytes(bytes))
            .map_err(|error| Error::new(format!("{error:#}"), &self.name, ""))?;
        let output = &inferred.output;
        match self.output {
            Some(grid) => {
                for (score, &byte) in scores.iter_mut().zip(output) {
                    *score = grid.dequantize(byte as i8);
                }
            }
            None => {
                for (score, &bytes) in scores.iter_mut().zip(output.as_chunks::<4>().0) {
                    *score = f32::from_le_bytes(bytes);
                }
            }
        }
        Ok(usize::from(inferred.label))
    }
}
