//! `--target`: which black box is attacked.

use super::console::Console;
use super::device::leave_nothing_behind;
use super::model::ModelFile;
use super::spinner::Spinner;
use crate::device::{self, BAUD, Board, Chip, Emulator, Options, Payload, Serial};
use crate::error::{Error, Result};
use crate::target::{ChipTarget, Program, Target};
use std::time::Duration;

/// A target as it is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TargetSpec {
    /// A program and its arguments.
    Program(String),
    /// A serial port and its speed.
    Serial(String, u32),
    /// An emulated board.
    Emulator(String),
}

/// `program:CMD`, `serial:PORT[@BAUD]` or `emulator:BOARD`.
pub(crate) fn parse(text: &str) -> std::result::Result<TargetSpec, String> {
    let right = "program:COMMAND, serial:PORT, serial:PORT@BAUD or emulator:BOARD would be right";
    match text.split_once(':') {
        Some((_, "")) | None => Err(right.into()),
        Some(("program", command)) => Ok(TargetSpec::Program(command.into())),
        Some(("emulator", board)) => Ok(TargetSpec::Emulator(board.into())),
        Some(("serial", port)) => match port.rsplit_once('@') {
            None => Ok(TargetSpec::Serial(port.into(), BAUD)),
            Some((port, baud)) => match baud.parse() {
                Ok(baud @ 1..) if !port.is_empty() => Ok(TargetSpec::Serial(port.into(), baud)),
                _ => Err(right.into()),
            },
        },
        Some(_) => Err(right.into()),
    }
}

/// Starts or opens the target. `model` is what an emulated board gets, and a board that has none.
pub(crate) fn open(
    spec: &TargetSpec,
    model: Option<&ModelFile>,
    patience: Duration,
    console: &Console,
) -> Result<Box<dyn Target>> {
    match spec {
        TargetSpec::Program(command) => Ok(Box::new(Program::start(command, patience)?)),
        TargetSpec::Serial(port, baud) => {
            let name = format!("serial:{port}");
            let line = Serial::open(port, *baud, patience).map_err(|error| {
                Error::new(
                    format!("{error:#}"),
                    "--target",
                    "a port that exists and that you may open",
                )
            })?;
            let image = model.map(|model| model.image().bytes());
            let target = ChipTarget::new(name, Chip::new(line), image)?;
            Ok(Box::new(target))
        }
        TargetSpec::Emulator(name) => {
            let model = model.ok_or_else(|| {
                Error::new(
                    "an emulated board has no model of its own",
                    "--target",
                    "foolproof attack MODEL --target emulator:BOARD",
                )
            })?;
            emulated(name, model, patience, console)
        }
    }
}

fn board(name: &str) -> Result<&'static Board> {
    device::board(name).map_err(|_| {
        let known: Vec<&str> = device::boards().iter().map(|b| b.name.as_str()).collect();
        Error::new(
            format!("unknown board {name:?}"),
            format!("--target emulator:{name}"),
            format!("emulator: and one of {}", known.join(", ")),
        )
    })
}

fn emulated(
    name: &str,
    model: &ModelFile,
    patience: Duration,
    console: &Console,
) -> Result<Box<dyn Target>> {
    let board = board(name)?;
    leave_nothing_behind()?;
    let refuse = |error: anyhow::Error| {
        Error::new(
            format!("{error:#}"),
            format!("board {}", board.name),
            "foolproof inspect says which boards a model fits",
        )
    };
    console.say(format!("build the firmware for {} ...", board.name));
    let spinner = Spinner::new("building");
    let elf = device::prepare(board).map_err(refuse)?;
    drop(spinner);
    let payload = Payload {
        image: model.image().bytes().to_vec(),
        ..Payload::default()
    };
    let options = Options {
        limit: patience,
        slot: payload.for_board(board).map_err(refuse)?,
        ..Options::default()
    };
    let emulator = Emulator::start(board, &elf, options).map_err(refuse)?;
    let target = ChipTarget::new(
        format!("emulator:{}", board.name),
        Chip::new(emulator),
        None,
    )?;
    Ok(Box::new(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_programs_ports_and_boards() {
        assert_eq!(
            parse("program:python3 it.py a:b"),
            Ok(TargetSpec::Program("python3 it.py a:b".into()))
        );
        assert_eq!(
            parse("serial:/dev/ttyACM0"),
            Ok(TargetSpec::Serial("/dev/ttyACM0".into(), BAUD))
        );
        assert_eq!(
            parse("serial:COM3@9600"),
            Ok(TargetSpec::Serial("COM3".into(), 9600))
        );
        for wrong in [
            "",
            "program:",
            "serial:",
            "serial:x@",
            "serial:@5",
            "chip:x",
            "emulator",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_unknown_board_is_blamed_on_the_target() {
        assert_eq!(board("microbit").unwrap().name, "microbit");
        for name in ["esp32", "all"] {
            let error = board(name).unwrap_err().to_string();
            assert!(
                error.contains(&format!("--target emulator:{name}")),
                "{error}"
            );
            assert!(
                error.contains("mps2-an386, ") && !error.contains("--board"),
                "{error}"
            );
        }
    }
}
