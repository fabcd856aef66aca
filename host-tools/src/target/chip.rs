//! A chip at the end of a line: an emulator, or a board on a serial port. It answers with its model's output, as it
//! is: probabilities where the model ends in a softmax. An anomaly detector's output is a reconstruction: its two scores are what
//! the host makes of it and of the input, as it does for a model of its own.

use super::{Sample, Target, described};
use crate::attack::Access;
use crate::classifier::{Grid, InputForm};
use crate::device::{Chip, Line};
use crate::error::{Error, Result};
use foolproof::link::{Input, Port, Ready};
use zerocopy::IntoBytes;

/// A chip that serves a model.
pub struct ChipTarget<L: Line> {
    name: String,
    chip: Chip<L>,
    form: InputForm,
    classes: usize,
    /// What the chip said of its model.
    ready: Ready,
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
        let input = &ready.input;
        let shape: Vec<usize> = input.dims().iter().map(|&d| d as usize).collect();
        let classes = classes_of(&ready).map_err(|what| {
            Error::new(
                what,
                &name,
                "a classifier's scores, or an anomaly detector's output of its input's shape",
            )
        })?;
        Ok(ChipTarget {
            form: InputForm {
                shape,
                grid: grid(input),
                range: ready.input_range,
            },
            classes,
            ready,
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
        format!("{} image crc {:08x}", described(self), self.ready.image_crc)
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
        let nonsense = |what: String| Error::new(what, &self.name, "foolproof's firmware");
        let label = usize::from(inferred.label);
        if label >= self.classes {
            return Err(nonsense(format!(
                "label {label} of a model with {} classes",
                self.classes
            )));
        }
        let given = self
            .scores_of(bytes, &inferred.output)
            .filter(|given| given.len() == scores.len() && given.iter().all(|s| s.is_finite()))
            .ok_or_else(|| {
                nonsense(format!(
                    "an answer of {} bytes that is not {} finite scores",
                    inferred.output.len(),
                    scores.len()
                ))
            })?;
        scores.copy_from_slice(&given);
        Ok(label)
    }
}

impl<L: Line> ChipTarget<L> {
    /// The scores that the chip's output means; `None` where it has another length than the model's.
    fn scores_of(&self, input: &[u8], output: &[u8]) -> Option<Vec<f32>> {
        let ready = &self.ready;
        if output.len() != ready.output_bytes as usize {
            return None;
        }
        match ready.anomaly_above {
            Some(_) => ready
                .anomaly_scores(input, output)
                .map(|scores| scores.to_vec()),
            None => (0..self.classes)
                .map(|i| ready.output.real(output, i))
                .collect(),
        }
    }
}

/// How many classes a chip's model has, if what the chip says of it makes sense.
fn classes_of(ready: &Ready) -> std::result::Result<usize, String> {
    let classes = ready.classes as usize;
    let (input, output) = (ready.input.len(), ready.output.len());
    let makes_sense = match ready.anomaly_above {
        Some(threshold) => classes == 2 && output == input && threshold > 0.0,
        None => output == Some(classes),
    };
    // a label has 16 bits on the line
    match makes_sense && (1..=1 << 16).contains(&classes) {
        true => Ok(classes),
        false => Err(format!(
            "{classes} classes of an output of shape {:?}",
            ready.output.dims()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classifier::{Classifier, Inputs};
    use crate::graph::{Builder, Graph, to_image};
    use foolproof::kernels::Kernels;
    use foolproof::link::{self, Deframer, Hello, Logits, PROTOCOL, Request, Response};
    use foolproof::memory::Mode;
    use foolproof::model::Model;
    use foolproof::ops::Activation;
    use std::collections::VecDeque;
    use std::io::{self, Read, Write};

    /// A chip in this process, which answers as the firmware does, but for `lie`.
    struct Firmware<'m> {
        classifier: Classifier<'m>,
        frame: Vec<u8>,
        answers: VecDeque<u8>,
        lie: Lie,
    }

    /// What is wrong with what it says of its model, with an output, and with a label.
    type Lie = fn(&mut Ready, &mut Vec<u8>, &mut u16);

    impl<'m> Firmware<'m> {
        fn new(model: Model<'m>, lie: Lie) -> Firmware<'m> {
            Firmware {
                classifier: Classifier::new(model, Kernels::Scalar),
                frame: Vec::new(),
                answers: VecDeque::new(),
                lie,
            }
        }

        fn ready(&self) -> Ready {
            let model = self.classifier.model();
            let tables = model.tables();
            let bytes = |t: usize| (tables.shape(t).len() * tables.dtype(t).size()) as u32;
            Ready {
                input: Port::of(tables, tables.input()),
                input_range: model.input_range(),
                output: Port::of(tables, tables.output()),
                classes: model.classes() as u32,
                anomaly_above: model.anomaly_above(),
                image_crc: 0x1234,
                input_bytes: bytes(tables.input()),
                output_bytes: bytes(tables.output()),
                infer_buffer: model.required_buffer(Mode::Infer) as u32,
                attack_buffer: 0,
                samples: 0,
            }
        }

        fn answer(&mut self, request: &Request<'_>) {
            let mut ready = self.ready();
            let (mut output, mut label) = (Vec::new(), 0);
            if let Request::Infer {
                input: Input::Bytes(bytes),
            } = request
            {
                let x = bytes.as_chunks().0.iter().map(|&v| f32::from_le_bytes(v));
                let answers = self.classifier.answers(&Inputs::F32(x.collect())).unwrap();
                output = answers[0].output.clone();
                label = answers[0].label as u16;
            }
            (self.lie)(&mut ready, &mut output, &mut label);
            let response = match request {
                Request::Hello => Response::Hello(Hello {
                    protocol: PROTOCOL,
                    board: "here",
                    max_data: 1 << 16,
                    model_ram: 0,
                    session_ram: 1 << 16,
                    slot: 0,
                    calibration: 0,
                }),
                Request::UseSlot => Response::Ready(ready),
                _ => Response::Logits(Logits {
                    output: &output,
                    label,
                    instructions: 1,
                }),
            };
            let answers = &mut self.answers;
            let sent: std::result::Result<(), ()> = link::encode(&response, |part| {
                answers.extend(part);
                Ok(())
            });
            sent.unwrap();
        }
    }

    impl Read for Firmware<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            self.answers.read(bytes)
        }
    }

    impl Write for Firmware<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.frame.extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            let mut room = vec![0; 1 << 16];
            let mut deframer = Deframer::new(&mut room);
            for byte in std::mem::take(&mut self.frame) {
                if let Some(frame) = deframer.push(byte) {
                    let request = link::decode::<Request<'_>>(frame.unwrap()).unwrap();
                    self.answer(&request);
                }
            }
            Ok(())
        }
    }

    impl Line for Firmware<'_> {
        fn why_silent(&mut self) -> String {
            "silent".into()
        }
    }

    const N: usize = 12;

    fn network(outputs: u32, anomaly_above: Option<f32>) -> Graph {
        let mut b = Builder::new(&[N as u32], (-1.0, 1.0), 3).unwrap();
        let x = b.dense(b.input(), 6, Activation::Relu).unwrap();
        let x = b.dense(x, outputs, Activation::None).unwrap();
        let mut graph = b.finish(x);
        graph.anomaly_above = anomaly_above;
        graph
    }

    fn opened(model: Model<'_>, lie: Lie) -> Result<ChipTarget<Firmware<'_>>> {
        let chip = Chip::new(Firmware::new(model, lie));
        ChipTarget::new("here".into(), chip, None)
    }

    #[test]
    fn a_chip_says_of_a_classifier_and_of_a_detector_what_the_host_says() {
        for (outputs, above) in [(5, None), (N as u32, None), (N as u32, Some(0.2))] {
            let image = to_image(&network(outputs, above)).unwrap();
            let host = Classifier::new(image.model().unwrap(), Kernels::Scalar);
            let mut chip = opened(image.model().unwrap(), |_, _, _| {}).unwrap();
            assert_eq!(chip.classes(), host.model().classes());
            let mut seen = std::collections::BTreeSet::new();
            for i in 0..40 {
                let size = 0.05 * i as f32;
                let x: Vec<f32> = (0..N).map(|j| size * ((i + 5 * j) as f32).sin()).collect();
                let mut scores = vec![0.0; chip.classes()];
                let label = chip.ask(Sample::F32(&x), &mut scores).unwrap();
                let expected = host.answers(&Inputs::F32(x)).unwrap();
                assert_eq!(
                    (label, scores),
                    (expected[0].label, expected[0].logits.clone())
                );
                seen.insert(label);
            }
            assert!(seen.len() > 1, "{above:?}: always {seen:?}");
        }
    }

    #[test]
    fn a_chip_that_talks_nonsense_gets_one_line() {
        let image = to_image(&network(5, None)).unwrap();
        let asked = |lie: Lie| {
            let mut chip = opened(image.model().unwrap(), lie)?;
            chip.ask(Sample::F32(&[0.5; N]), &mut [0.0; 5])
        };
        assert!(asked(|_, _, _| {}).is_ok());
        let complaint = |lie: Lie| asked(lie).unwrap_err().to_string();
        for (error, says) in [
            (complaint(|_, _, label| *label = 5), "label 5"),
            (
                complaint(|_, output, _| {
                    output.pop();
                }),
                "19 bytes",
            ),
            (complaint(|_, output, _| output.fill(0xff)), "finite"),
            (complaint(|ready, _, _| ready.classes = 4), "4 classes"),
            (
                complaint(|ready, _, _| ready.anomaly_above = Some(0.5)),
                "5 classes",
            ),
        ] {
            assert!(error.contains(says), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
    }
}
