//! Answers the host's requests over the serial line.

use embedded_hal::digital::OutputPin;
use embedded_io::{Read, Write};
use foolproof::bundle::Bundle;
use foolproof::link::{
    self, Deframer, Fault, FaultCode, Hello, PROTOCOL, Request, Response, Stats,
};

use crate::board::{self, Counter};
use crate::memory::Memory;
use crate::meter::Meter;
use crate::stack;

/// One host's server, on any serial line, with a light that is on while it works.
pub struct Server<S, P, C> {
    serial: S,
    led: P,
    meter: Meter<C>,
    calibration: u64,
    bad_frames: u32,
}

impl<S: Read + Write, P: OutputPin, C: Counter> Server<S, P, C> {
    /// A server on the given devices.
    pub fn new(serial: S, led: P, mut meter: Meter<C>) -> Self {
        let calibration = meter.calibrate();
        Server {
            serial,
            led,
            meter,
            calibration,
            bad_frames: 0,
        }
    }

    /// Serves until the host says that it is done or the line breaks.
    pub fn run(&mut self, memory: Memory) {
        defmt::info!("{=str} serves, protocol {=u16}", board::NAME, PROTOCOL);
        let mut deframer = Deframer::new(memory.frame);
        let mut byte = [0];
        while let Ok(1..) = self.serial.read(&mut byte) {
            let Some(frame) = deframer.push(byte[0]) else {
                continue;
            };
            // A light that cannot be switched is no reason to stop.
            let _ = self.led.set_high();
            let request = frame.map(link::decode::<Request>);
            let go_on = match request {
                Ok(Some(Request::Quit)) => {
                    self.send(&Response::Bye);
                    false
                }
                Ok(Some(request)) => self.answer(&request, memory.slot),
                Ok(None) => self.refuse(Fault::new(FaultCode::UnknownRequest, PROTOCOL.into(), 0)),
                Err(error) => {
                    self.bad_frames = self.bad_frames.saturating_add(1);
                    self.refuse(error.into())
                }
            };
            let _ = self.led.set_low();
            if !go_on {
                break;
            }
        }
        let _ = self.serial.flush();
    }

    fn answer(&mut self, request: &Request, slot: &[u8]) -> bool {
        match request {
            Request::Hello => self.hello(),
            Request::Stats => self.stats(),
            Request::UseSlot => match Bundle::from_bytes(slot) {
                Ok(_) => self.refuse(Fault::new(FaultCode::Unsupported, 0, 0)),
                Err(error) => {
                    defmt::warn!("{}", error);
                    self.refuse(Fault::new(FaultCode::BadBundle, 0, 0))
                }
            },
            _ => self.refuse(Fault::new(FaultCode::NoModel, 0, 0)),
        }
    }

    fn hello(&mut self) -> bool {
        let hello = Hello {
            protocol: PROTOCOL,
            board: board::NAME,
            max_data: (board::FRAME - FRAME_OVERHEAD) as u32,
            model_ram: board::MODEL as u32,
            session_ram: board::SESSION as u32,
            slot: board::SLOT.1 as u32,
            calibration: self.calibration as u32,
        };
        self.send(&Response::Hello(hello))
    }

    fn stats(&mut self) -> bool {
        let stats = Stats {
            stack_used: stack::used() as u32,
            stack_size: stack::size() as u32,
            session_ram: board::SESSION as u32,
            model_ram: board::MODEL as u32,
            bad_frames: self.bad_frames,
        };
        self.send(&Response::Stats(stats))
    }

    fn refuse(&mut self, fault: Fault) -> bool {
        self.send(&Response::Error(fault))
    }

    /// Sends a response; whether the line still works.
    fn send(&mut self, response: &Response) -> bool {
        let response = if stack::overflowed() {
            let fault = Fault::new(FaultCode::StackOverflow, stack::size(), stack::used());
            &Response::Error(fault)
        } else {
            response
        };
        link::encode(response, |part| self.serial.write_all(part)).is_ok()
    }
}

/// What a frame needs beside the data of its request: the request's other fields, the checksum
/// and COBS' own bytes.
const FRAME_OVERHEAD: usize = 64 + board::FRAME / 254;
