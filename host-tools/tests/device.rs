//! The emulated chips: does every board answer, and does every way to fail end in one clear line?

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use foolproof::link::{CALIBRATION_INSTRUCTIONS, Input};
use foolproof_host::device::{
    Board, Chip, Emulator, Line, Options, Payload, board, boards, compiler, firmware_elf, footprint,
};

/// The firmware for `board`, built once at a time.
fn elf(board: &Board) -> PathBuf {
    firmware_elf(board).unwrap_or_else(|error| panic!("{error:#}"))
}

fn default_elf() -> &'static (Board, PathBuf) {
    static ELF: OnceLock<(Board, PathBuf)> = OnceLock::new();
    ELF.get_or_init(|| {
        let board = board("mps2-an386").unwrap().clone();
        let elf = elf(&board);
        (board, elf)
    })
}

fn start(options: Options) -> Chip<Emulator> {
    let (board, elf) = default_elf();
    Chip::new(Emulator::start(board, elf, options).unwrap())
}

#[test]
fn every_board_says_hello_counts_and_quits() {
    for board in boards() {
        let elf = elf(board);
        let payload = Payload {
            image: b"not a model".to_vec(),
            ..Payload::default()
        };
        let options = Options {
            limit: Duration::from_secs(30),
            slot: payload.for_board(board).unwrap(),
            ..Options::default()
        };
        let mut chip = Chip::new(Emulator::start(board, &elf, options).unwrap());
        let info = chip
            .hello()
            .unwrap_or_else(|error| panic!("{}: {error:#}", board.name));
        assert_eq!(info.board, board.name);
        assert_eq!(info.slot, board.slot.size as usize);
        // What `foolproof inspect` tells people without asking a chip.
        assert_eq!(
            info.session_ram, board.session_ram as usize,
            "{}",
            board.name
        );
        // What a loop of known length counts: the counter's formula is right.
        let error = info.calibration.abs_diff(CALIBRATION_INSTRUCTIONS);
        assert!(error <= 10, "{}: counted {}", board.name, info.calibration);

        // The slot holds a sound bundle, so what is wrong with it is the model in it.
        let error = chip.use_slot().unwrap_err().to_string();
        assert!(
            error.contains("the model image is malformed"),
            "{}: {error}",
            board.name
        );
        let error = chip.infer(Input::Bytes(&[0; 64])).unwrap_err().to_string();
        assert!(error.contains("no model"), "{}: {error}", board.name);

        let stats = chip.stats().unwrap();
        assert!(
            stats.stack_used > 100 && stats.stack_used < stats.stack_size,
            "{stats:?}"
        );
        assert_eq!(stats.bad_frames, 0);
        let compiler = compiler(&elf).unwrap();
        assert!(compiler.starts_with("rustc 1."), "{compiler}");
        let footprint = footprint(&elf).unwrap();
        assert!(footprint.flash > 5000 && footprint.flash < board.flash.into());
        let room = (info.session_ram + info.model_ram) as u64;
        assert_eq!(footprint.reserved, room, "{}", board.name);
        assert!(footprint.ram > 100 && footprint.ram + room < board.ram.into());

        let outcome = chip.quit().unwrap().wait().unwrap();
        assert_eq!(outcome.code, Some(0), "{}: {:?}", board.name, outcome.log);
        assert!(
            outcome.log.iter().any(|line| line.contains(&board.name)),
            "{:?}",
            outcome.log
        );
    }
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_both_sizes() {
    let (board, _) = default_elf();
    let mut chip = start(Options::default());
    let info = chip.hello().unwrap();
    let error = chip
        .load(&vec![0; info.model_ram + 1])
        .unwrap_err()
        .to_string();
    assert!(error.contains(&info.model_ram.to_string()), "{error}");
    assert!(error.contains(&(info.model_ram + 1).to_string()), "{error}");
    let payload = Payload {
        image: vec![0; board.slot.size as usize],
        ..Payload::default()
    };
    let error = payload.for_board(board).unwrap_err().to_string();
    assert!(error.contains(&board.slot.size.to_string()), "{error}");
}

#[test]
fn an_empty_slot_is_named() {
    let mut chip = start(Options::default());
    let error = chip.use_slot().unwrap_err().to_string();
    assert!(error.contains("the slot holds no sound bundle"), "{error}");
}

#[test]
fn garbage_on_the_line_is_survived() {
    let mut chip = start(Options::default());
    let line = chip.line();
    // No COBS, no message, and a frame far longer than the buffer.
    let mut garbage: Vec<u8> = (0..20_000u32)
        .map(|index| (index % 255) as u8 + 1)
        .collect();
    garbage.extend([0, 3, 0, 9, 9, 9, 0, 0]);
    line.write_all(&garbage).unwrap();
    let mut zeros = 0;
    let mut byte = [0];
    while zeros < 3 {
        line.read_exact(&mut byte).unwrap();
        zeros += u32::from(byte[0] == 0);
    }
    assert_eq!(chip.hello().unwrap().board, "mps2-an386");
    assert_eq!(chip.stats().unwrap().bad_frames, 3);
}

#[test]
fn a_killed_emulator_is_an_error_and_not_a_hang() {
    let mut chip = start(Options::default());
    chip.hello().unwrap();
    chip.line().kill();
    let error = chip.stats().unwrap_err().to_string();
    assert!(
        error.contains("mps2-an386") && error.contains("killed"),
        "{error}"
    );
    assert!(!chip.line().why_silent().is_empty());
}

#[test]
fn the_time_limit_ends_an_emulator_that_waits() {
    let begin = Instant::now();
    let mut chip = start(Options {
        limit: Duration::from_secs(2),
        ..Options::default()
    });
    chip.hello().unwrap();
    // Nobody asks: the chip would wait for ever.
    let mut byte = [0];
    let read = chip.line().read(&mut byte);
    assert!(matches!(read, Ok(0) | Err(_)));
    let error = chip.stats().unwrap_err().to_string();
    assert!(error.contains("time limit is 2 s"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(90));
}

#[test]
fn an_emulator_that_is_not_installed_is_named() {
    let (board, elf) = default_elf();
    let mut board = board.clone();
    board.qemu = "qemu-system-nonesuch".to_string();
    let error = Emulator::start(&board, elf, Options::default())
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .contains("qemu-system-nonesuch is not installed"),
        "{error}"
    );
}

#[test]
fn an_emulator_that_does_not_start_says_why() {
    let (board, elf) = default_elf();
    let mut board = board.clone();
    board.machine = "nonesuch".to_string();
    let error = Emulator::start(&board, elf, Options::default())
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("unsupported machine type"),
        "{error}"
    );
}

/// How many instructions for int8 sums a firmware's code has.
#[derive(Debug, Default)]
struct Fast {
    /// Multiply-adds of two 16-bit halves, SMLAD: Armv7-M Architecture Reference Manual, A7.7.150, encoding T1.
    smlad: usize,
    /// Widenings of two bytes, SXTB16 and SXTAB16: the same, A7.7.180 and A7.7.185, encodings T1.
    widen: usize,
    /// Sums of sixteen products of signed bytes, VMLADAVA.S8: Armv8-M Architecture Reference Manual, encoding T1, without exchange.
    helium: usize,
}

fn fast_instructions(elf: &std::path::Path) -> Fast {
    use object::{Object, ObjectSection};
    let bytes = std::fs::read(elf).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let text = file.section_by_name(".text").unwrap();
    let code = text.data().unwrap().as_chunks().0;
    let mut code = code.iter().map(|bytes| u16::from_le_bytes(*bytes));
    let mut fast = Fast::default();
    while let Some(first) = code.next() {
        // 32-bit instructions begin with 0b11101, 0b11110 or 0b11111 (A5.1).
        if first >> 11 < 0b11101 {
            continue;
        }
        let second = code.next().unwrap_or_default();
        let multiplies = first & 0xfff0 == 0xfb20 && second & 0x00f0 == 0 && second >> 12 != 15;
        fast.smlad += usize::from(multiplies);
        fast.widen += usize::from(first & 0xfff0 == 0xfa20 && second & 0xf0c0 == 0xf080);
        fast.helium += usize::from(first & 0xfff1 == 0xeef0 && second & 0x1ff1 == 0x0f20);
    }
    fast
}

#[test]
fn boards_use_the_fast_instructions_that_they_have() {
    let fast = |name: &str| fast_instructions(&elf(board(name).unwrap()));
    for name in ["mps2-an386", "mps2-an505"] {
        let fast = fast(name);
        assert!(fast.smlad >= 16 && fast.widen >= 16, "{name}: {fast:?}");
        assert!(fast.helium < 4, "{name}: {fast:?}");
    }
    // Convolutions and dense layers take Helium there; depthwise layers stay with the halves.
    let helium = fast("mps3-an547");
    assert!(helium.helium >= 4 && helium.widen >= 16, "{helium:?}");
    // Where the core lacks the instructions only constants between the functions can look like them.
    let none = fast("mps2-an385");
    assert!(
        none.smlad < 4 && none.widen < 4 && none.helium < 4,
        "{none:?}"
    );
}
