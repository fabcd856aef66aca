//! Answers the host's requests over the serial line.

use embedded_hal::digital::OutputPin;
use embedded_io::{Read, Write};
use foolproof::bundle::Bundle;
use foolproof::latent::Latent;
use foolproof::link::{
    self, Adversarial, CRC32, Deframer, Fault, FaultCode, Hello, Input, Logits, PROTOCOL, Port,
    Ready, Request, Response, Stats,
};
use foolproof::memory::Mode;
use foolproof::model::Model;

use crate::evaluator::{Attacked, Evaluator, Inference, Sample};
use crate::memory::Memory;
use foolproof_firmware::board::{self, Counter};
use foolproof_firmware::meter::Meter;
use foolproof_firmware::stack;

/// A serial line that carries messages, and a light that is on while the chip works.
pub struct Host<S, P> {
    serial: S,
    led: P,
    calibration: u64,
    bad_frames: u32,
}

/// What the server does next; a model borrows memory, so changing it starts a new stage.
enum Stage {
    /// There is no model.
    Empty,
    /// A model of this many bytes is about to arrive.
    Load(usize),
    /// A model of this many bytes has arrived.
    UseRam(usize),
    /// The slot's model shall be used.
    UseSlot,
    /// The host is done, or the line broke.
    Done,
}

/// What a stage works with.
enum Subject<'m, C> {
    Nothing,
    Loading {
        ram: &'m mut [u8],
        received: usize,
    },
    Model {
        evaluator: Evaluator<'m, C>,
        bundle: Option<Bundle<'m>>,
    },
}

/// What follows an answer.
enum Next {
    Listen,
    Go(Stage),
}

/// Serves until the host says that it is done or the line breaks.
pub fn serve<S: Read + Write, P: OutputPin, C: Counter>(
    serial: S,
    led: P,
    mut meter: Meter<C>,
    memory: Memory,
) {
    defmt::info!("{=str} serves, protocol {=u16}", board::NAME, PROTOCOL);
    let Memory {
        frame,
        session,
        model: ram,
        slot,
    } = memory;
    let mut host = Host {
        serial,
        led,
        calibration: meter.calibrate(),
        bad_frames: 0,
    };
    let mut deframer = Deframer::new(frame);
    let mut stage = Stage::Empty;
    loop {
        let subject = match stage {
            Stage::Done => break,
            Stage::Empty => Ok(Subject::Nothing),
            Stage::Load(length) => start_loading(&mut host, ram, length),
            Stage::UseRam(length) => {
                let image = ram.get(..length).unwrap_or_default();
                start_model(&mut host, image, None, session, &mut meter)
            }
            Stage::UseSlot => match Bundle::from_bytes(slot) {
                Ok(bundle) => {
                    let image = bundle.image();
                    start_model(&mut host, image, Some(bundle), session, &mut meter)
                }
                Err(error) => {
                    defmt::warn!("slot: {}", error);
                    Err(Fault::new(FaultCode::BadBundle, 0, 0))
                }
            },
        };
        let subject = subject.unwrap_or_else(|fault| {
            host.refuse(fault);
            Subject::Nothing
        });
        let _ = host.led.set_low();
        stage = host.listen(&mut deframer, subject);
    }
    // Nobody listens any more if this fails.
    let _ = host.serial.flush();
}

fn start_loading<'m, S: Read + Write, P: OutputPin, C: Counter>(
    host: &mut Host<S, P>,
    ram: &'m mut [u8],
    length: usize,
) -> Result<Subject<'m, C>, Fault> {
    let got = ram.len();
    let ram = ram
        .get_mut(..length)
        .ok_or(Fault::new(FaultCode::ModelTooLarge, got, length))?;
    host.send(&Response::Loading { received: 0 });
    Ok(Subject::Loading { ram, received: 0 })
}

fn start_model<'m, S: Read + Write, P: OutputPin, C: Counter>(
    host: &mut Host<S, P>,
    image: &'m [u8],
    bundle: Option<Bundle<'m>>,
    session: &'m mut [u8],
    meter: &'m mut Meter<C>,
) -> Result<Subject<'m, C>, Fault> {
    let model = Model::from_bytes(image).map_err(|error| {
        defmt::error!("model: {}", error);
        Fault::new(FaultCode::BadModel, 0, image.len())
    })?;
    let evaluator = Evaluator::new(model, session, meter)?;
    let tables = evaluator.model().tables();
    let ready = Ready {
        input: Port::of(tables, tables.input()),
        input_range: evaluator.model().input_range(),
        output: Port::of(tables, tables.output()),
        classes: evaluator.model().classes() as u32,
        anomaly_above: evaluator.model().anomaly_above(),
        image_crc: CRC32.checksum(image),
        input_bytes: evaluator.input_bytes() as u32,
        output_bytes: evaluator.output_bytes() as u32,
        infer_buffer: evaluator.model().required_buffer(Mode::Infer) as u32,
        attack_buffer: evaluator.model().required_buffer(Mode::Attack) as u32,
        samples: bundle.map_or(0, |bundle| bundle.len()) as u32,
    };
    host.send(&Response::Ready(ready));
    Ok(Subject::Model { evaluator, bundle })
}

impl<S: Read + Write, P: OutputPin> Host<S, P> {
    /// Answers requests about `subject` until another one is needed.
    fn listen<C: Counter>(&mut self, deframer: &mut Deframer, mut subject: Subject<C>) -> Stage {
        let mut byte = [0];
        loop {
            if !matches!(self.serial.read(&mut byte), Ok(1..)) {
                return Stage::Done;
            }
            let Some(frame) = deframer.push(byte[0]) else {
                continue;
            };
            // A light that cannot be switched is no reason to stop.
            let _ = self.led.set_high();
            let answered = match frame.map(link::decode::<Request>) {
                Ok(Some(request)) => self.answer(request, &mut subject),
                Ok(None) => Err(Fault::new(FaultCode::UnknownRequest, PROTOCOL.into(), 0)),
                Err(error) => {
                    self.bad_frames = self.bad_frames.saturating_add(1);
                    Err(error.into())
                }
            };
            match answered {
                Ok(Next::Listen) => {}
                Ok(Next::Go(stage)) => return stage,
                Err(fault) => self.refuse(fault),
            }
            let _ = self.led.set_low();
        }
    }

    fn answer<C: Counter>(
        &mut self,
        request: Request,
        subject: &mut Subject<C>,
    ) -> Result<Next, Fault> {
        match request {
            Request::Hello => self.hello(),
            Request::Stats => self.stats(),
            Request::Quit => {
                self.send(&Response::Bye);
                return Ok(Next::Go(Stage::Done));
            }
            Request::UseSlot => return Ok(Next::Go(Stage::UseSlot)),
            Request::LoadBegin { length } => return Ok(Next::Go(Stage::Load(length as usize))),
            Request::LoadData { offset, bytes } => self.load(subject, offset as usize, bytes)?,
            Request::LoadEnd => {
                return match subject {
                    Subject::Loading { ram, received } if *received == ram.len() => {
                        Ok(Next::Go(Stage::UseRam(*received)))
                    }
                    Subject::Loading { ram, received } => {
                        Err(Fault::new(FaultCode::OutOfOrder, ram.len(), *received))
                    }
                    _ => Err(Fault::new(FaultCode::OutOfOrder, 0, 0)),
                };
            }
            Request::Infer { input } => self.infer(subject, input)?,
            Request::Generate {
                seed,
                index,
                classes,
            } => {
                let Subject::Model { evaluator, .. } = subject else {
                    return Err(Fault::new(FaultCode::NoModel, 0, 0));
                };
                let latent = Latent {
                    seed,
                    index: index.into(),
                    classes: classes.into(),
                };
                self.show(&evaluator.generate(&latent)?);
            }
            Request::Trace { input } => self.trace(subject, input)?,
            Request::Attack {
                spec,
                label,
                seed,
                index,
                input,
            } => {
                let Subject::Model { evaluator, bundle } = subject else {
                    return Err(Fault::new(FaultCode::NoModel, 0, 0));
                };
                let sample = Sample {
                    input: resolve(input, bundle.as_ref())?,
                    class: label.into(),
                    seed,
                    index: index.into(),
                };
                self.send_crafted(&evaluator.attack(&spec, sample)?);
            }
            Request::Universal {
                turn,
                spec,
                label,
                input,
            } => {
                let Subject::Model { evaluator, bundle } = subject else {
                    return Err(Fault::new(FaultCode::NoModel, 0, 0));
                };
                let sample = Sample {
                    input: resolve(input, bundle.as_ref())?,
                    class: label.into(),
                    seed: 0,
                    index: 0,
                };
                self.send_crafted(&evaluator.universal(turn, &spec, sample)?);
            }
        }
        Ok(Next::Listen)
    }

    fn load<C>(
        &mut self,
        subject: &mut Subject<C>,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        let Subject::Loading { ram, received } = subject else {
            return Err(Fault::new(FaultCode::OutOfOrder, 0, offset));
        };
        let out_of_order = Fault::new(FaultCode::OutOfOrder, *received, offset);
        if offset != *received {
            return Err(out_of_order);
        }
        let place = ram
            .get_mut(offset..)
            .and_then(|rest| rest.get_mut(..bytes.len()))
            .ok_or(out_of_order)?;
        place.copy_from_slice(bytes);
        *received += bytes.len();
        let received = *received as u32;
        self.send(&Response::Loading { received });
        Ok(())
    }

    fn infer<C: Counter>(&mut self, subject: &mut Subject<C>, input: Input) -> Result<(), Fault> {
        let Subject::Model { evaluator, bundle } = subject else {
            return Err(Fault::new(FaultCode::NoModel, 0, 0));
        };
        let input = resolve(input, bundle.as_ref())?;
        self.show(&evaluator.infer(input)?);
        Ok(())
    }

    fn show(&mut self, inference: &Inference) {
        let logits = Logits {
            output: inference.output,
            label: inference.label as u16,
            instructions: inference.instructions,
        };
        self.send(&Response::Logits(logits));
    }

    fn send_crafted(&mut self, attacked: &Attacked) {
        let found = Adversarial {
            bytes: attacked.bytes,
            label: attacked.outcome.label as u16,
            fooled: attacked.outcome.fooled,
            queries: attacked.outcome.queries as u32,
            gradients: attacked.outcome.gradients as u32,
            instructions: attacked.instructions,
        };
        self.send(&Response::Adversarial(found));
    }

    fn trace<C: Counter>(&mut self, subject: &mut Subject<C>, input: Input) -> Result<(), Fault> {
        let Subject::Model { evaluator, bundle } = subject else {
            return Err(Fault::new(FaultCode::NoModel, 0, 0));
        };
        let input = resolve(input, bundle.as_ref())?;
        let tensors = evaluator.trace(input, &mut |tensor, bytes| {
            let tensor = tensor as u32;
            self.send(&Response::Tensor { tensor, bytes });
        })? as u32;
        self.send(&Response::Traced { tensors });
        Ok(())
    }

    fn hello(&mut self) {
        let hello = Hello {
            protocol: PROTOCOL,
            board: board::NAME,
            max_data: (board::FRAME - FRAME_OVERHEAD) as u32,
            model_ram: board::MODEL as u32,
            session_ram: board::SESSION as u32,
            slot: board::SLOT.1 as u32,
            calibration: self.calibration as u32,
        };
        self.send(&Response::Hello(hello));
    }

    fn stats(&mut self) {
        let stats = Stats {
            stack_used: stack::used() as u32,
            stack_size: stack::size() as u32,
            session_ram: board::SESSION as u32,
            model_ram: board::MODEL as u32,
            bad_frames: self.bad_frames,
        };
        self.send(&Response::Stats(stats));
    }

    fn refuse(&mut self, fault: Fault) {
        self.send(&Response::Error(fault));
    }

    /// Sends a response. A line that broke shows when it is read next.
    fn send(&mut self, response: &Response) {
        let overflow = Response::Error(Fault::new(
            FaultCode::StackOverflow,
            stack::size(),
            stack::size(),
        ));
        let response = match stack::overflowed() {
            true => &overflow,
            false => response,
        };
        let _ = link::encode(response, |part| self.serial.write_all(part));
    }
}

/// The bytes of an input, its own or the bundle's.
fn resolve<'a>(input: Input<'a>, bundle: Option<&Bundle<'a>>) -> Result<&'a [u8], Fault> {
    match input {
        Input::Bytes(bytes) => Ok(bytes),
        Input::Sample(index) => {
            let samples = bundle.map_or(0, Bundle::len);
            bundle
                .and_then(|bundle| bundle.sample(index as usize))
                .map(|(input, _)| input)
                .ok_or(Fault::new(FaultCode::NoSample, samples, index as usize))
        }
    }
}

/// What a frame needs beside the data of its request: the request's other fields, the checksum
/// and COBS' own bytes.
const FRAME_OVERHEAD: usize = 64 + board::FRAME / 254;
