//! What a model is made of, what it needs, and on which boards it fits.

use crate::device::{Board, attack_room};
use crate::document::{self, BoardFit, CutBuffer, Inspect, Operator, Port};
use crate::graph::{Cut, Image, from_image, to_image_smallest, to_image_within};
use crate::report::format::count;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use foolproof::bundle::{ALIGN, Header};
use foolproof::memory::Mode;
use foolproof::model::{Model, Tables};
use foolproof::tensor::DType;
use std::collections::{BTreeMap, BTreeSet};

/// What a board has room for, bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoardMemory {
    /// The board's name.
    pub name: String,
    /// Flash for a model image.
    pub flash: usize,
    /// RAM for a session's buffer.
    pub ram: usize,
}

impl From<&Board> for BoardMemory {
    /// The image lies in the board's slot, behind the bundle's header.
    fn from(board: &Board) -> Self {
        let slot = board.slot.size as usize;
        let image = slot.saturating_sub(size_of::<Header>().next_multiple_of(ALIGN));
        Self {
            name: board.name.clone(),
            flash: image / ALIGN * ALIGN,
            ram: board.session_ram as usize,
        }
    }
}

/// The modes by the names that documents give them.
const MODES: [(&str, Mode); 3] = [
    ("infer", Mode::Infer),
    ("attack", Mode::Attack),
    ("train", Mode::Train),
];

/// Takes a model apart. Byte counts are for one sample.
pub fn inspect(model: &Model<'_>, boards: &[BoardMemory]) -> Inspect {
    let tables = model.tables();
    let ops: Vec<Operator> = (0..tables.op_count())
        .map(|k| operator(tables, k))
        .collect();
    // A constant that several operators read counts once.
    let constants: BTreeSet<usize> = (0..tables.op_count())
        .flat_map(|k| tables.node(k).inputs().collect::<Vec<_>>())
        .filter(|&t| tables.is_in_image(t))
        .collect();
    let buffers: BTreeMap<String, usize> = MODES
        .into_iter()
        .filter(|(_, mode)| model.supports(*mode))
        .map(|(name, mode)| (name.to_string(), model.required_buffer(mode)))
        .collect();
    let image_bytes = tables.bytes().len();
    let graph = from_image(model);
    let attack = model.required_buffer(Mode::Attack);
    // an image that passed its checks can be written again
    let smallest = to_image_smallest(&graph).ok();
    let smallest_attack = smallest
        .as_ref()
        .and_then(|image| cut_buffer(&image.model().ok()?))
        .filter(|cut| cut.bytes < attack);
    let within = |room: usize| to_image_within(&graph, room).ok();
    Inspect {
        smallest_attack,
        cut: cut_buffer(model),
        input: Some(Port {
            range: Some(model.input_range().into()),
            ..port(tables, tables.input())
        }),
        output: Some(port(tables, tables.output())),
        classes: model.classes(),
        labels: model.labels().map(str::to_string).collect(),
        macs: ops.iter().map(|op| op.macs).sum(),
        ops,
        constant_bytes: constants.into_iter().map(|t| tables.data(t).len()).sum(),
        image_bytes,
        checksum: format!("{:08x}", tables.header().crc.get()),
        boards: boards
            .iter()
            .map(|board| fit(board, model, &buffers, &within))
            .collect(),
        buffers,
        // An image that passed its checks holds nothing else.
        unsupported: Vec::new(),
    }
}

/// The model's arithmetic, as documents name it: `f32`, or the name of int8 [`Numerics`](foolproof::ops::Numerics).
pub fn numerics(model: &Model<'_>) -> &'static str {
    let tables = model.tables();
    let int8 =
        (0..tables.tensor_count()).any(|t| !tables.is_in_image(t) && tables.dtype(t) == DType::I8);
    match int8 {
        false => "f32",
        true => model.numerics().name(),
    }
}

fn operator(tables: &Tables<'_>, k: usize) -> Operator {
    let node = tables.node(k);
    let shapes: Vec<_> = node.inputs().map(|t| tables.shape(t)).collect();
    let output = port(tables, node.output);
    Operator {
        name: node.op.name().to_string(),
        shape: output.shape,
        r#type: output.r#type,
        scale: output.scale,
        zero_point: output.zero_point,
        inputs: node.inputs().map(|t| port(tables, t)).collect(),
        macs: node.op.macs(&shapes, &tables.shape(node.output)),
        constant_bytes: node.inputs().map(|t| tables.data(t).len()).sum(),
    }
}

fn port(tables: &Tables<'_>, t: usize) -> Port {
    let dtype = tables.dtype(t);
    let quant = tables.quant(t);
    let int8 = dtype == DType::I8;
    let channels = quant.channel_scales.len();
    let shape = tables.shape(t);
    Port {
        name: tables.name(t).to_string(),
        shape: (0..shape.rank()).map(|i| shape.dim(i)).collect(),
        r#type: match dtype {
            DType::F32 => "f32",
            DType::I8 => "i8",
            DType::I32 => "i32",
        }
        .to_string(),
        constant: tables.is_in_image(t),
        scale: int8.then(|| quant.scale_of(0)),
        zero_point: int8.then_some(quant.zero_point),
        channel_scales: (channels > 0).then_some(channels),
        range: None,
    }
}

fn cut_buffer(model: &Model<'_>) -> Option<CutBuffer> {
    Cut::of(model).map(|cut| CutBuffer {
        bytes: model.required_buffer(Mode::Attack),
        passes: cut.passes,
        extra_forwards: cut.extra_forwards,
    })
}

fn fit(
    board: &BoardMemory,
    model: &Model<'_>,
    buffers: &BTreeMap<String, usize>,
    within: &dyn Fn(usize) -> Option<Image>,
) -> BoardFit {
    let image = model.tables().bytes().len();
    let mut reasons = Vec::new();
    let mut fits = |what: &str, needed: Option<usize>, has: usize| match needed {
        Some(needed) if needed <= has => true,
        Some(needed) => {
            let (needed, has) = (count(needed as u64), count(has as u64));
            reasons.push(format!("{what}: {needed} bytes, the board has {has}"));
            false
        }
        None => {
            reasons.push(format!("{what}: the image has no memory plan for it"));
            false
        }
    };
    let flash = fits("flash for the image", Some(image), board.flash);
    let infer = buffers.get("infer").copied();
    let infer = fits("RAM to infer", infer, board.ram);
    // beside the session the chip keeps the input and the crafted input
    let room = attack_room(board.ram, model, &[]);
    let needed = buffers.get("attack").copied();
    let cut = match needed {
        Some(needed) if needed > room => within(room)
            .filter(|image| image.bytes().len() <= board.flash)
            .and_then(|image| cut_buffer(&image.model().ok()?)),
        _ => None,
    };
    let attack = match cut {
        Some(_) => true,
        None => fits(
            "RAM to attack, beside the input and the crafted one",
            needed,
            room,
        ),
    };
    BoardFit {
        board: board.name.clone(),
        infer: flash && infer,
        attack: flash && attack,
        cut: cut.filter(|_| flash),
        image_room_bytes: board.flash,
        session_room_bytes: board.ram,
        reasons,
    }
}

// --- for a terminal --------------------------------------------------------------------------------------

/// What `inspect` found, for people.
pub fn render(model: &document::Model, found: &Inspect) -> String {
    let bytes = |bytes: usize| format!("{} bytes", count(bytes as u64));
    let mut lines = vec![
        format!("model    {}", model.path),
        format!(
            "image    {}, {} of them constants; sha256 {}, CRC-32 {}",
            bytes(found.image_bytes),
            count(found.constant_bytes as u64),
            model.sha256.get(..12).unwrap_or(&model.sha256),
            found.checksum
        ),
        format!("numbers  {}", explained(&model.numerics)),
    ];
    if let Some(input) = &found.input {
        let range = input.range.map_or(String::new(), |[low, high]| {
            format!(", values {low} to {high}")
        });
        lines.push(format!("input    {}{range}", tensor(input)));
    }
    if let Some(output) = &found.output {
        let classes = found.classes;
        lines.push(format!("output   {}, {classes} classes", tensor(output)));
    }
    if !found.labels.is_empty() {
        lines.push(format!("labels   {}", found.labels.join(" ")));
    }
    lines.push(format!(
        "work     {} multiply-accumulates per inference",
        count(found.macs)
    ));
    let buffers = MODES.map(|(name, _)| match found.buffers.get(name) {
        Some(&needed) => format!("{} to {name}", bytes(needed)),
        None => format!("not made to {name}"),
    });
    lines.push(format!("buffer   {}", buffers.join(", ")));
    if let Some(cut) = found.cut {
        lines.push(format!(
            "         to attack, backward is cut: {}",
            cost(cut)
        ));
    }
    if let Some(cut) = found.smallest_attack {
        lines.push(format!(
            "         {} to attack at least, with backward cut: {}",
            bytes(cut.bytes),
            cost(cut)
        ));
    }
    lines.push(operators(&found.ops).to_string());
    if !found.boards.is_empty() {
        let infer = found.boards.iter().filter(|b| b.infer).count();
        let attack = found.boards.iter().filter(|b| b.attack).count();
        let all = found.boards.len();
        lines.push(format!(
            "Inference fits {infer} of {all} boards; an attack on the chip fits {attack}."
        ));
        lines.push(boards(&found.boards).to_string());
    }
    lines.join("\n")
}

fn cost(cut: CutBuffer) -> Cut {
    Cut {
        passes: cut.passes,
        extra_forwards: cut.extra_forwards,
    }
}

fn explained(numerics: &str) -> String {
    let meaning = match numerics {
        "tflm" => ": int8, rounded twice as TFLite Micro does by default",
        "tflm-single" => ": int8, rounded once, as TFLite Micro built with single rounding does",
        "litert-ref" => ": int8, as LiteRT's reference kernels compute",
        "xnnpack" => ": int8, as LiteRT with XNNPACK computes (f32 factors)",
        _ => "",
    };
    format!("{numerics}{meaning}")
}

fn tensor(port: &Port) -> String {
    let quant = match (port.channel_scales, port.scale, port.zero_point) {
        (Some(scales), ..) if port.r#type == "i8" => format!(", {scales} scales"),
        (None, Some(scale), Some(zero)) => format!(", {}", grid(scale, zero)),
        _ => String::new(),
    };
    format!("{} {}{quant}", dims(&port.shape), port.r#type)
}

fn grid(scale: f32, zero_point: i32) -> String {
    format!("scale {scale:.5}, zero point {zero_point}")
}

fn dims(shape: &[usize]) -> String {
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    dims.join("x")
}

fn operators(ops: &[Operator]) -> Table {
    let mut table = table(&["operator", "constants", "output", "MACs", "bytes"]);
    for op in ops {
        let constants = op.inputs.iter().filter(|input| input.constant);
        let mut constants: Vec<String> = constants.map(tensor).collect();
        // int8 operators keep bias, multipliers and shifts: three alike.
        let all = constants.clone();
        constants.dedup();
        for text in &mut constants {
            let alike = all.iter().filter(|other| *other == text).count();
            if alike > 1 {
                *text = format!("{text} ({alike} of these)");
            }
        }
        let quant = match (op.scale, op.zero_point) {
            (Some(scale), Some(zero)) => format!("\n{}", grid(scale, zero)),
            _ => String::new(),
        };
        table.add_row(vec![
            op.name.clone(),
            constants.join("\n"),
            format!("{} {}{quant}", dims(&op.shape), op.r#type),
            count(op.macs),
            count(op.constant_bytes as u64),
        ]);
    }
    right(&mut table, &[3, 4]);
    table
}

fn boards(boards: &[BoardFit]) -> Table {
    let mut table = table(&[
        "board",
        "infer",
        "attack",
        "image room",
        "buffer room",
        "why not",
    ]);
    let verdict = |fits: bool| if fits { "fits" } else { "no" }.to_string();
    for board in boards {
        table.add_row(vec![
            board.board.clone(),
            verdict(board.infer),
            match board.cut {
                Some(cut) => format!(
                    "fits, backward cut:\n{} bytes,\n{} passes,\n{:.2} forwards more",
                    count(cut.bytes as u64),
                    cut.passes,
                    cut.extra_forwards
                ),
                None => verdict(board.attack),
            },
            count(board.image_room_bytes as u64),
            count(board.session_room_bytes as u64),
            board.reasons.join("\n"),
        ]);
    }
    right(&mut table, &[3, 4]);
    table
}

fn right(table: &mut Table, columns: &[usize]) {
    for &column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.to_vec());
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Samples;
    use crate::data::digits::{self, Part};
    use crate::graph::to_image;
    use crate::networks;
    use crate::quantize::{Options, quantize};

    fn text(found: &Inspect) -> String {
        let model = document::Model {
            path: "m.fpi".to_string(),
            sha256: "0123456789abcdef".to_string(),
            numerics: "tflm".to_string(),
        };
        render(&model, found)
    }

    fn board(name: &str, flash: usize, ram: usize) -> BoardMemory {
        BoardMemory {
            name: name.to_string(),
            flash,
            ram,
        }
    }

    #[test]
    fn counts_are_those_of_the_network() {
        let image = to_image(&networks::digits(1).unwrap()).unwrap();
        let model = image.model().unwrap();
        let seen = inspect(&model, &[]);
        // two 3x3 convolutions of 12 and 24 filters on 8x8 and 4x4, a dense layer on 2x2x24
        assert_eq!(seen.macs, 8 * 8 * 9 * 12 + 4 * 4 * 9 * 12 * 24 + 96 * 10);
        let weights = 9 * 12 + 12 + 9 * 12 * 24 + 24 + 960 + 10;
        assert_eq!(seen.constant_bytes, 4 * weights);
        assert_eq!(
            seen.constant_bytes,
            seen.ops.iter().map(|o| o.constant_bytes).sum::<usize>()
        );
        assert_eq!(numerics(&model), "f32");
        assert_eq!(seen.ops.len(), model.tables().op_count());
        let input = seen.input.as_ref().unwrap();
        assert_eq!(input.shape, [1, 8, 8, 1]);
        assert_eq!((input.scale, input.zero_point), (None, None));
        assert_eq!(seen.image_bytes, image.bytes().len());
        assert!(seen.buffers["train"] > seen.buffers["attack"]);
        let text = text(&seen);
        for part in ["conv2d", "max_pool2d", "dense", &seen.checksum, "8x8x1 f32"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn a_board_fits_to_the_byte_and_says_why_not() {
        let image = to_image(&networks::digits(1).unwrap()).unwrap();
        let model = image.model().unwrap();
        let (flash, infer) = (image.bytes().len(), model.required_buffer(Mode::Infer));
        let attack = model.required_buffer(Mode::Attack);
        assert!(attack > infer);
        // beside the session's aligned buffer the chip keeps the input twice: 8x8 f32
        let room = attack.next_multiple_of(16) + 2 * 256;
        assert_eq!(
            to_image_smallest(&networks::digits(1).unwrap()),
            Ok(image.clone())
        );
        let boards = [
            board("just", flash, room),
            board("no attack", flash, room - 1),
            board("no ram", flash, infer - 1),
            board("no flash", flash - 1, attack),
        ];
        let seen = inspect(&model, &boards);
        let verdicts: Vec<_> = seen.boards.iter().map(|b| (b.infer, b.attack)).collect();
        assert_eq!(
            verdicts,
            [(true, true), (true, false), (false, false), (false, false)]
        );
        assert!(seen.boards[0].reasons.is_empty());
        let why = |i: usize| seen.boards[i].reasons.join("; ");
        assert!(why(1).contains(&count(attack as u64)) && why(1).contains("attack"));
        assert!(why(2).contains(&count(infer as u64)) && why(2).contains("infer"));
        assert!(why(3).contains(&count(flash as u64)) && why(3).contains("flash"));
        let text = text(&seen);
        assert!(
            text.contains("Inference fits 2 of 4 boards; an attack on the chip fits 1."),
            "{text}"
        );
        let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap();
        assert_eq!(line("just").matches("fits").count(), 2);
        assert_eq!(line("no attack").matches("fits").count(), 1);
        assert_eq!(line("no flash").matches("fits").count(), 0);
    }

    #[test]
    fn a_slot_takes_exactly_the_image_that_its_room_promises() {
        for board in crate::device::boards() {
            let room = BoardMemory::from(board).flash;
            let payload = |bytes: usize| crate::device::Payload {
                image: vec![0; bytes],
                ..Default::default()
            };
            assert!(payload(room).for_board(board).is_ok(), "{}", board.name);
            assert!(
                payload(room + 1).for_board(board).is_err(),
                "{}",
                board.name
            );
        }
    }

    #[test]
    fn an_int8_model_shows_its_grids_and_does_not_train() {
        let data = digits::load(Part::Train).unwrap().take(50).unwrap();
        let Samples::F32(calibration) = data.samples() else {
            panic!("the digits are f32");
        };
        let graph = networks::digits(1).unwrap();
        let graph = quantize(&graph, calibration, &Options::default()).unwrap();
        let image = to_image(&graph).unwrap();
        let model = image.model().unwrap();
        let seen = inspect(&model, &[]);
        assert_eq!(numerics(&model), "tflm");
        let input = seen.ops[0].inputs.iter().find(|i| !i.constant).unwrap();
        assert!(input.scale.unwrap() > 0.0 && input.zero_point.is_some());
        let weights = seen.ops.iter().flat_map(|op| &op.inputs);
        let per_channel: Vec<usize> = weights.filter_map(|i| i.channel_scales).collect();
        assert!(
            per_channel.contains(&12) && per_channel.contains(&24),
            "{per_channel:?}"
        );
        assert!(!seen.buffers.contains_key("train"));
        let text = text(&seen);
        for part in [
            "12 scales",
            "zero point",
            "rounded twice",
            "not made to train",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
