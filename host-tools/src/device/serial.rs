//! A board on a serial port.

use std::io::{self, Read, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use serial2::SerialPort;

use super::Line;

/// The firmware's own speed.
pub const BAUD: u32 = 115_200;

/// An open serial port.
pub struct Serial {
    name: String,
    port: SerialPort,
}

impl Serial {
    /// Opens `name` (`/dev/ttyACM0`, `COM3`) at `baud`, 8N1; an answer may take `patience`.
    ///
    /// # Errors
    /// There is no such port, or it may not be opened.
    pub fn open(name: &str, baud: u32, patience: Duration) -> Result<Serial> {
        let mut port = SerialPort::open(name, baud)
            .with_context(|| format!("the serial port {name} cannot be opened"))?;
        port.set_read_timeout(patience)
            .and_then(|()| port.set_write_timeout(patience))
            .and_then(|()| port.discard_buffers())
            .with_context(|| format!("the serial port {name} cannot be set up"))?;
        Ok(Serial {
            name: name.into(),
            port,
        })
    }
}

impl Read for Serial {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.port.read(buffer)
    }
}

impl Write for Serial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.port.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.port.flush()
    }
}

impl Line for Serial {
    fn why_silent(&mut self) -> String {
        format!("nothing answers on {}", self.name)
    }
}
