//! `foolproof inspect`: what is inside a model.

use super::Ended;
use super::args::InspectArgs;
use super::console::Console;
use super::model::ModelFile;
use crate::document::{Document, Inspect, Operator, Port};
use crate::error::Result;
use comfy_table::{Cell, CellAlignment, Table, presets};
use foolproof::memory::Mode;
use foolproof::model::Model;
use foolproof::tensor::{DType, Shape};

pub(crate) fn run(args: &InspectArgs, console: &Console) -> Result<Ended> {
    let file = ModelFile::read(&args.model)?;
    let model = file.model()?;
    let mut document = Document::new("inspect");
    document.model = Some(file.describe()?);
    let found = inspect(&model, file.image().bytes().len());
    let text = render(&document, &found);
    document.inspect = Some(found);
    console.finish(&document, || text)?;
    Ok(Ended::Well)
}

fn inspect(model: &Model<'_>, image_bytes: usize) -> Inspect {
    let tables = model.tables();
    let ops: Vec<Operator> = (0..tables.op_count())
        .map(|k| {
            let node = tables.node(k);
            let inputs: Vec<Shape> = node.inputs().map(|t| tables.shape(t)).collect();
            let output = tables.shape(node.output);
            Operator {
                name: node.op.name().into(),
                shape: dims(output),
                r#type: type_name(tables.dtype(node.output)).into(),
                macs: node.op.macs(&inputs, &output),
            }
        })
        .collect();
    let modes = [
        ("infer", Mode::Infer),
        ("attack", Mode::Attack),
        ("train", Mode::Train),
    ];
    Inspect {
        input: Port {
            range: Some(model.input_range().into()),
            ..port(model, tables.input())
        },
        output: port(model, tables.output()),
        classes: model.classes(),
        labels: model.labels().map(str::to_string).collect(),
        macs: ops.iter().map(|op| op.macs).sum(),
        ops,
        constant_bytes: (0..tables.tensor_count())
            .filter(|&t| tables.is_in_image(t))
            .map(|t| tables.data(t).len())
            .sum(),
        image_bytes,
        buffers: modes
            .into_iter()
            .filter(|(_, mode)| model.supports(*mode))
            .map(|(name, mode)| (name.to_string(), model.required_buffer(mode)))
            .collect(),
        // An image that passed its checks holds nothing else.
        unsupported: Vec::new(),
    }
}

fn dims(shape: Shape) -> Vec<usize> {
    (0..shape.rank()).map(|i| shape.dim(i)).collect()
}

fn port(model: &Model<'_>, t: usize) -> Port {
    let tables = model.tables();
    let dtype = tables.dtype(t);
    let quant = tables.quant(t);
    let quantized = dtype != DType::F32;
    Port {
        shape: dims(tables.shape(t)),
        r#type: type_name(dtype).into(),
        scale: quantized.then_some(quant.scale),
        zero_point: quantized.then_some(quant.zero_point),
        range: None,
    }
}

fn type_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f32",
        DType::I8 => "i8",
        DType::I32 => "i32",
    }
}

fn render(document: &Document, found: &Inspect) -> String {
    let mut lines = Vec::new();
    if let Some(model) = &document.model {
        lines.push(format!(
            "{} ({}, {} bytes, sha256 {})",
            model.path,
            model.numerics,
            found.image_bytes,
            &model.sha256[..12]
        ));
    }
    let port = |port: &Port| {
        let quant = match (port.scale, port.zero_point) {
            (Some(scale), Some(zero)) => format!(", scale {scale}, zero point {zero}"),
            _ => String::new(),
        };
        let range = port.range.map_or(String::new(), |[low, high]| {
            format!(", values {low} to {high}")
        });
        format!("{} {:?}{quant}{range}", port.r#type, port.shape)
    };
    lines.push(format!("input    {}", port(&found.input)));
    lines.push(format!(
        "output   {}, {} classes",
        port(&found.output),
        found.classes
    ));
    if !found.labels.is_empty() {
        lines.push(format!("labels   {}", found.labels.join(" ")));
    }
    lines.push(format!(
        "work     {} multiply-accumulates, {} bytes of constants",
        found.macs, found.constant_bytes
    ));
    let buffers: Vec<String> = ["infer", "attack", "train"]
        .iter()
        .filter_map(|mode| {
            found
                .buffers
                .get(*mode)
                .map(|bytes| format!("{mode} {bytes}"))
        })
        .collect();
    lines.push(format!("buffer   {} bytes", buffers.join(", ")));
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["operator", "output", "type", "MACs"]);
    for op in &found.ops {
        table.add_row(vec![
            Cell::new(&op.name),
            Cell::new(format!("{:?}", op.shape)),
            Cell::new(&op.r#type),
            Cell::new(op.macs).set_alignment(CellAlignment::Right),
        ]);
    }
    lines.push(table.to_string());
    lines.join("\n")
}
