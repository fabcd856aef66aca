//! Talking to a chip: requests and their answers, over any line.

use std::io::{self, Read, Write};

use anyhow::{Context, Result, bail, ensure};
use foolproof::attack::Spec;
use foolproof::link::{
    self, Deframer, FrameError, Input, PROTOCOL, Ready, Request, Response, Stats, Turn,
};

/// A line to a chip: an emulator's socket, a serial port.
pub trait Line: Read + Write {
    /// Why nothing arrives any more, in one line.
    fn why_silent(&mut self) -> String;
}

/// What a chip says of itself; sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChipInfo {
    /// The board's name.
    pub board: String,
    /// The most bytes of model or input in one request.
    pub max_data: usize,
    /// RAM for a streamed model.
    pub model_ram: usize,
    /// RAM for a session.
    pub session_ram: usize,
    /// The slot's size.
    pub slot: usize,
    /// What the chip counted for a loop of [`link::CALIBRATION_INSTRUCTIONS`].
    pub calibration: u32,
}

/// An inference on the chip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inferred {
    /// The output in the model's own number type, little-endian.
    pub output: Vec<u8>,
    /// The predicted label.
    pub label: u16,
    /// Instructions executed.
    pub instructions: u64,
}

/// An attack on the chip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crafted {
    /// The crafted input in the model's own number type, little-endian.
    pub bytes: Vec<u8>,
    /// What the model says about it.
    pub label: u16,
    /// Whether the attack reached its goal.
    pub fooled: bool,
    /// Forward passes used.
    pub queries: u32,
    /// Backward passes used.
    pub gradients: u32,
    /// Instructions executed.
    pub instructions: u64,
}

/// A chip at the end of a line.
pub struct Chip<L> {
    line: L,
    frame: Vec<u8>,
    /// Bytes that arrived after the end of a frame.
    rest: Vec<u8>,
    max_data: usize,
}

/// The longest answer that a host accepts.
const FRAME: usize = 4 << 20;

impl<L: Line> Chip<L> {
    /// A chip at the end of `line`; [`Chip::hello`] comes first.
    pub fn new(line: L) -> Self {
        Chip {
            line,
            frame: vec![0; FRAME],
            rest: Vec::new(),
            max_data: 0,
        }
    }

    /// Asks who is there, and checks that it speaks this protocol.
    pub fn hello(&mut self) -> Result<ChipInfo> {
        // A zero first: whatever a previous host left half said ends here.
        self.send(&[0])?;
        self.ask(&Request::Hello, |response| match response {
            Response::Hello(hello) => Some(hello.protocol).map(|protocol| {
                let info = ChipInfo {
                    board: hello.board.to_string(),
                    max_data: hello.max_data as usize,
                    model_ram: hello.model_ram as usize,
                    session_ram: hello.session_ram as usize,
                    slot: hello.slot as usize,
                    calibration: hello.calibration,
                };
                (protocol, info)
            }),
            _ => None,
        })
        .and_then(|(protocol, info)| {
            ensure!(
                protocol == PROTOCOL,
                "the chip speaks protocol {protocol}, this program {PROTOCOL}: build the firmware again"
            );
            self.max_data = info.max_data;
            Ok(info)
        })
    }

    /// Uses the model of the bundle in the slot.
    pub fn use_slot(&mut self) -> Result<Ready> {
        self.ask(&Request::UseSlot, ready)
    }

    /// Streams a model image to the chip's RAM and uses it.
    pub fn load(&mut self, image: &[u8]) -> Result<Ready> {
        ensure!(self.max_data > 0, "hello comes before load");
        let length = u32::try_from(image.len()).context("a model of 4 GB or more")?;
        let loading = |response: &Response| match response {
            Response::Loading { received } => Some(*received),
            _ => None,
        };
        self.ask(&Request::LoadBegin { length }, loading)?;
        let mut offset = 0;
        for bytes in image.chunks(self.max_data) {
            let received = self.ask(&Request::LoadData { offset, bytes }, loading)?;
            offset += bytes.len() as u32;
            ensure!(
                received == offset,
                "the chip has {received} bytes of the model, {offset} were sent"
            );
        }
        self.ask(&Request::LoadEnd, ready)
    }

    /// Classifies `input`.
    pub fn infer(&mut self, input: Input) -> Result<Inferred> {
        self.ask(&Request::Infer { input }, inferred)
    }

    /// Has the chip draw noise and make a sample of it: see [`foolproof::latent::Latent`].
    pub fn generate(&mut self, (seed, index): (u64, u32), classes: u16) -> Result<Inferred> {
        let request = Request::Generate {
            seed,
            index,
            classes,
        };
        self.ask(&request, inferred)
    }

    /// Classifies `input` and hands every tensor on the way to `show`, with its number in the model: the input, then the
    /// output of each operator in running order.
    pub fn trace(&mut self, input: Input, mut show: impl FnMut(usize, &[u8])) -> Result<()> {
        self.tell(&Request::Trace { input })?;
        let mut seen = 0;
        loop {
            let tensor = self.receive(|response| match response {
                Response::Tensor { tensor, bytes } => {
                    Some(Some((*tensor as usize, bytes.to_vec())))
                }
                Response::Traced { tensors } if *tensors == seen => Some(None),
                _ => None,
            })?;
            match tensor {
                Some((tensor, bytes)) => show(tensor, &bytes),
                None => return Ok(()),
            }
            seen += 1;
        }
    }

    /// Crafts an adversarial input on the chip, from `input` with `label`. `seed` and `index` fix
    /// every random choice.
    pub fn attack(
        &mut self,
        spec: Spec,
        (input, label): (Input, u16),
        (seed, index): (u64, u32),
    ) -> Result<Crafted> {
        let request = Request::Attack {
            spec,
            label,
            seed,
            index,
            input,
        };
        self.ask(&request, crafted)
    }

    /// One turn of the universal perturbation that the chip keeps.
    pub fn universal(
        &mut self,
        turn: Turn,
        spec: Spec,
        (input, label): (Input, u16),
    ) -> Result<Crafted> {
        let request = Request::Universal {
            turn,
            spec,
            label,
            input,
        };
        self.ask(&request, crafted)
    }

    /// Asks how much memory is in use.
    pub fn stats(&mut self) -> Result<Stats> {
        self.ask(&Request::Stats, |response| match response {
            Response::Stats(stats) => Some(*stats),
            _ => None,
        })
    }

    /// Ends the firmware and gives the line back.
    pub fn quit(mut self) -> Result<L> {
        self.ask(&Request::Quit, |response| {
            (*response == Response::Bye).then_some(())
        })?;
        Ok(self.line)
    }

    /// The line itself, for what is beyond the protocol.
    pub fn line(&mut self) -> &mut L {
        &mut self.line
    }

    /// Sends `request` and takes from its response what `pick` wants.
    fn ask<T>(&mut self, request: &Request, pick: impl Fn(&Response) -> Option<T>) -> Result<T> {
        self.tell(request)?;
        self.receive(pick)
    }

    fn tell(&mut self, request: &Request) -> Result<()> {
        let mut bytes = Vec::new();
        let framed: Result<(), std::convert::Infallible> = link::encode(request, |part| {
            bytes.extend_from_slice(part);
            Ok(())
        });
        let Ok(()) = framed;
        self.send(&bytes)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let sent = self.line.write_all(bytes).and_then(|()| self.line.flush());
        sent.map_err(|error| self.broken(&error))
    }

    fn receive<T>(&mut self, pick: impl Fn(&Response) -> Option<T>) -> Result<T> {
        let mut deframer = Deframer::new(&mut self.frame);
        let mut bytes = std::mem::take(&mut self.rest);
        loop {
            for (index, &byte) in bytes.iter().enumerate() {
                if let Some(frame) = deframer.push(byte) {
                    let answer = understand(frame, pick);
                    self.rest = bytes.split_off(index + 1);
                    return answer;
                }
            }
            bytes.resize(4096, 0);
            match self.line.read(&mut bytes) {
                Ok(0) => bail!("{}", self.line.why_silent()),
                Ok(count) => bytes.truncate(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => bytes.clear(),
                Err(error) => return Err(self.broken(&error)),
            }
        }
    }

    fn broken(&mut self, error: &io::Error) -> anyhow::Error {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                anyhow::anyhow!("{}", self.line.why_silent())
            }
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                anyhow::anyhow!("the chip does not answer")
            }
            _ => anyhow::anyhow!("the line to the chip broke: {error}"),
        }
    }
}

fn inferred(response: &Response) -> Option<Inferred> {
    match response {
        Response::Logits(logits) => Some(Inferred {
            output: logits.output.to_vec(),
            label: logits.label,
            instructions: logits.instructions,
        }),
        _ => None,
    }
}

fn crafted(response: &Response) -> Option<Crafted> {
    match response {
        Response::Adversarial(found) => Some(Crafted {
            bytes: found.bytes.to_vec(),
            label: found.label,
            fooled: found.fooled,
            queries: found.queries,
            gradients: found.gradients,
            instructions: found.instructions,
        }),
        _ => None,
    }
}

fn ready(response: &Response) -> Option<Ready> {
    match response {
        Response::Ready(ready) => Some(*ready),
        _ => None,
    }
}

fn understand<T>(
    frame: Result<&[u8], FrameError>,
    pick: impl Fn(&Response) -> Option<T>,
) -> Result<T> {
    let bytes = frame.context("the chip's answer")?;
    let response: Response =
        link::decode(bytes).context("the chip's answer is none of this protocol")?;
    if let Response::Error(fault) = response {
        bail!("the chip refuses: {fault}");
    }
    pick(&response).context("the chip answered something else than was asked")
}
