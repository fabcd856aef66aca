//! What a model is made of, what it needs, and on which boards it fits.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use foolproof::memory::Mode;
use foolproof::model::Model;
use foolproof::model::Tables;
use foolproof::ops::Rounding;
use foolproof::tensor::DType;
use serde::Serialize;
use std::fmt;

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

/// A model image, taken apart. Byte counts are for one sample.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// Length of the image.
    pub image_bytes: usize,
    /// CRC-32 of the image, as it stores it; eight hexadecimal digits.
    pub checksum: String,
    /// `f32`, or how int8 rounds: `tflm` (twice, TFLite Micro's default) or `tflm-single`.
    pub numerics: &'static str,
    /// What the caller fills.
    pub input: TensorInfo,
    /// What the model answers with.
    pub output: TensorInfo,
    /// Smallest and largest value of an input element, real units.
    pub input_range: (f32, f32),
    /// Number of class scores.
    pub classes: usize,
    /// Class names; may be empty.
    pub labels: Vec<String>,
    /// Operators in running order.
    pub operators: Vec<OperatorInfo>,
    /// Multiply-accumulates of one run.
    pub macs: u64,
    /// Constants of all operators, each counted once.
    pub constant_bytes: usize,
    /// Buffers a session needs.
    pub buffers: Buffers,
    /// One per board.
    pub boards: Vec<BoardFit>,
}

/// One operator.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperatorInfo {
    /// What it computes.
    pub name: &'static str,
    /// What it reads, constants included.
    pub inputs: Vec<TensorInfo>,
    /// What it writes.
    pub output: TensorInfo,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Its constants.
    pub constant_bytes: usize,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorInfo {
    /// Its name; may be empty.
    pub name: String,
    /// Dimensions, batch first.
    pub shape: Vec<u32>,
    /// `f32`, `i8` or `i32`.
    pub dtype: &'static str,
    /// Whether it is stored in the image.
    pub constant: bool,
    /// int8: real units per step (of the first channel, where there are several scales).
    pub scale: Option<f32>,
    /// int8: the integer that stands for 0.
    pub zero_point: Option<i32>,
    /// How many scales per channel there are; 0: one for all.
    pub channel_scales: usize,
    /// Bytes of its elements.
    pub bytes: usize,
}

/// Bytes of a session's buffer by mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Buffers {
    /// Forward.
    pub infer: usize,
    /// Forward and the input gradient; `None`: not possible.
    pub attack: Option<usize>,
    /// Training; `None`: not possible (an int8 model).
    pub train: Option<usize>,
}

/// Whether a model fits a board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BoardFit {
    /// The board's name.
    pub board: String,
    /// Whether image and inference buffer fit.
    pub infer: bool,
    /// Whether image and attack buffer fit.
    pub attack: bool,
    /// What does not fit, with both sizes; empty where everything does.
    pub reasons: Vec<String>,
}

/// Takes a model apart.
pub fn inspect(model: &Model<'_>, boards: &[BoardMemory]) -> Inspection {
    let tables = model.tables();
    let operators: Vec<OperatorInfo> = (0..tables.op_count())
        .map(|k| operator(tables, k))
        .collect();
    let mut shared = std::collections::BTreeSet::new();
    for k in 0..tables.op_count() {
        shared.extend(tables.node(k).inputs().filter(|&t| tables.is_in_image(t)));
    }
    let bytes = |mode| Some(model.required_buffer(mode)).filter(|&b| b > 0);
    let buffers = Buffers {
        infer: model.required_buffer(Mode::Infer),
        attack: bytes(Mode::Attack),
        train: bytes(Mode::Train),
    };
    let image_bytes = tables.bytes().len();
    Inspection {
        image_bytes,
        checksum: format!("{:08x}", tables.header().crc.get()),
        numerics: numerics(model),
        input: tensor(tables, tables.input()),
        output: tensor(tables, tables.output()),
        input_range: model.input_range(),
        classes: model.classes(),
        labels: model.labels().map(str::to_string).collect(),
        macs: operators.iter().map(|o| o.macs).sum(),
        constant_bytes: shared.into_iter().map(|t| tables.data(t).len()).sum(),
        operators,
        buffers,
        boards: boards
            .iter()
            .map(|b| fit(b, image_bytes, &buffers))
            .collect(),
    }
}

/// The model's arithmetic, as documents name it.
pub fn numerics(model: &Model<'_>) -> &'static str {
    let tables = model.tables();
    let int8 =
        (0..tables.tensor_count()).any(|t| !tables.is_in_image(t) && tables.dtype(t) == DType::I8);
    match (int8, model.rounding()) {
        (false, _) => "f32",
        (true, Rounding::Double) => "tflm",
        (true, Rounding::Single) => "tflm-single",
    }
}

fn operator(tables: &Tables<'_>, k: usize) -> OperatorInfo {
    let node = tables.node(k);
    let shapes: Vec<_> = node.inputs().map(|t| tables.shape(t)).collect();
    let constants = node.inputs().map(|t| tables.data(t).len());
    OperatorInfo {
        name: node.op.name(),
        inputs: node.inputs().map(|t| tensor(tables, t)).collect(),
        output: tensor(tables, node.output),
        macs: node.op.macs(&shapes, &tables.shape(node.output)),
        constant_bytes: constants.sum(),
    }
}

fn tensor(tables: &Tables<'_>, t: usize) -> TensorInfo {
    let dtype = tables.dtype(t);
    let quant = tables.quant(t);
    let int8 = dtype == DType::I8;
    TensorInfo {
        name: tables.name(t).to_string(),
        shape: tables.shape(t).dims().to_vec(),
        dtype: match dtype {
            DType::F32 => "f32",
            DType::I8 => "i8",
            DType::I32 => "i32",
        },
        constant: tables.is_in_image(t),
        scale: int8.then(|| quant.scale_of(0)),
        zero_point: int8.then_some(quant.zero_point),
        channel_scales: quant.channel_scales.len(),
        bytes: tables.shape(t).len() * dtype.size(),
    }
}

fn fit(board: &BoardMemory, image: usize, buffers: &Buffers) -> BoardFit {
    let mut reasons = Vec::new();
    if image > board.flash {
        let has = board.flash;
        reasons.push(format!(
            "the image takes {image} bytes of flash, the board has {has}"
        ));
    }
    let mut fits = |mode: &str, needed: Option<usize>| match needed {
        Some(needed) if needed <= board.ram => true,
        Some(needed) => {
            let has = board.ram;
            reasons.push(format!(
                "{mode} takes {needed} bytes of RAM, the board has {has}"
            ));
            false
        }
        None => {
            reasons.push(format!("the image has no memory plan for {mode}"));
            false
        }
    };
    let infer = fits("inference", Some(buffers.infer));
    let attack = fits("an attack", buffers.attack);
    let flash = image <= board.flash;
    BoardFit {
        board: board.name.clone(),
        infer: flash && infer,
        attack: flash && attack,
        reasons,
    }
}

// --- for a terminal --------------------------------------------------------------------------------------

impl fmt::Display for TensorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self.shape.iter().map(u32::to_string).collect();
        write!(f, "{} {}", dims.join("x"), self.dtype)?;
        if let (Some(scale), Some(zero_point)) = (self.scale, self.zero_point) {
            match self.channel_scales {
                0 => write!(f, " {scale:.5}, zero {zero_point}")?,
                n => write!(f, " {n} scales")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut operators = table(&[
            "",
            "operator",
            "reads",
            "constants",
            "writes",
            "MACs",
            "bytes",
        ]);
        for (k, o) in self.operators.iter().enumerate() {
            let list = |constant: bool| {
                let tensors = o.inputs.iter().filter(|t| t.constant == constant);
                tensors
                    .map(TensorInfo::to_string)
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            operators.add_row(vec![
                k.to_string(),
                o.name.to_string(),
                list(false),
                list(true),
                o.output.to_string(),
                o.macs.to_string(),
                o.constant_bytes.to_string(),
            ]);
        }
        for i in [0, 5, 6] {
            if let Some(column) = operators.column_mut(i) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(f, "{operators}")?;
        let (low, high) = self.input_range;
        writeln!(f, "input      {} in {low} to {high}", self.input)?;
        writeln!(f, "output     {} for {} classes", self.output, self.classes)?;
        writeln!(f, "numerics   {}", self.numerics)?;
        writeln!(f, "MACs       {}", self.macs)?;
        let (image, constants, crc) = (self.image_bytes, self.constant_bytes, &self.checksum);
        writeln!(
            f,
            "image      {image} bytes ({constants} of constants), CRC-32 {crc}"
        )?;
        let or_none = |b: Option<usize>| match b {
            Some(b) => format!("{b} bytes"),
            None => "not possible".to_string(),
        };
        writeln!(
            f,
            "buffer     inference {} bytes, attack {}, training {}",
            self.buffers.infer,
            or_none(self.buffers.attack),
            or_none(self.buffers.train)
        )?;
        if self.boards.is_empty() {
            return Ok(());
        }
        let mut boards = table(&["board", "inference", "attack", "why not"]);
        let verdict = |fits: bool| if fits { "fits" } else { "does not fit" };
        for b in &self.boards {
            let reasons = b.reasons.join("\n");
            boards.add_row(vec![
                &b.board,
                verdict(b.infer),
                verdict(b.attack),
                &reasons,
            ]);
        }
        write!(f, "{boards}")
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
    use crate::graph::to_image;
    use crate::networks;

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
            seen.operators
                .iter()
                .map(|o| o.constant_bytes)
                .sum::<usize>()
        );
        assert_eq!(seen.numerics, "f32");
        assert_eq!(seen.operators.len(), model.tables().op_count());
        assert_eq!(seen.input.shape, [1, 8, 8, 1]);
        assert_eq!((seen.input.scale, seen.input.zero_point), (None, None));
        assert_eq!(seen.image_bytes, image.bytes().len());
        assert!(seen.buffers.train.unwrap() > seen.buffers.attack.unwrap());
        let text = seen.to_string();
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
        let boards = [
            board("just", flash, attack),
            board("no attack", flash, attack - 1),
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
        assert!(why(1).contains(&attack.to_string()) && why(1).contains("attack"));
        assert!(why(2).contains(&infer.to_string()) && why(2).contains("inference"));
        assert!(why(3).contains(&flash.to_string()) && why(3).contains("flash"));
        assert!(seen.to_string().contains("does not fit"));
    }
}
