//! `foolproof inspect`: what is inside a model, and which boards it fits.

use super::Ended;
use super::args::InspectArgs;
use super::console::Console;
use super::model::ModelFile;
use crate::device;
use crate::document::Document;
use crate::error::Result;
use crate::inspect::{BoardMemory, inspect, render};

pub(crate) fn run(args: &InspectArgs, console: &Console) -> Result<Ended> {
    let file = ModelFile::read(&args.model, args.numerics)?.within(args.memory)?;
    let boards: Vec<BoardMemory> = device::boards().iter().map(BoardMemory::from).collect();
    let found = inspect(&file.model()?, &boards);
    let model = file.describe()?;
    let mut text = render(&model, &found);
    if let Some(note) = file.note() {
        text = format!("{text}\nnote: {note}");
    }
    let mut document = Document::new("inspect");
    document.model = Some(model);
    document.inspect = Some(found);
    console.finish(&document, || text)?;
    Ok(Ended::Well)
}
