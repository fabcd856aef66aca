//! Decoding the firmware's defmt log.

use std::io::Read;

use anyhow::{Context, Result};
use defmt_decoder::{DecodeError, Table};

/// The strings of one ELF, which its log lines refer to.
pub struct Decoder {
    table: Table,
}

impl Decoder {
    /// The decoder for the program `elf`.
    pub fn new(elf: &[u8]) -> Result<Self> {
        let table = Table::parse(elf)
            .context("the firmware's log strings")?
            .context("the firmware has no log strings")?;
        Ok(Decoder { table })
    }

    /// Decodes `source` to its end and hands each line to `line`, as "level: text".
    pub fn run(&self, mut source: impl Read, mut line: impl FnMut(String)) {
        let mut decoder = self.table.new_stream_decoder();
        let mut bytes = [0; 1024];
        loop {
            match source.read(&mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(count) => decoder.received(&bytes[..count]),
            }
            loop {
                match decoder.decode() {
                    Ok(frame) => {
                        let level = frame.level().map_or("print", |level| level.as_str());
                        line(format!("{level}: {}", frame.display_message()));
                    }
                    Err(DecodeError::UnexpectedEof) => break,
                    // The next frame starts after the next zero byte.
                    Err(DecodeError::Malformed) => line("a damaged log line".to_string()),
                }
            }
        }
    }
}
