//! `foolproof inspect`: what is inside a model, and which boards it fits.

use super::Ended;
use super::args::InspectArgs;
use super::console::Console;
use super::model::ModelFile;
use crate::device;
use crate::document::{Document, Inspect, Model};
use crate::error::Result;
use crate::inspect::{BoardMemory, inspect, render};

pub(crate) fn run(args: &InspectArgs, console: &Console) -> Result<Ended> {
    let file = match ModelFile::read(&args.model, args.runtime.numerics) {
        Ok(file) => file.within(args.memory)?,
        Err(error) => {
            say_what_is_missing(args, console)?;
            return Err(error);
        }
    };
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

/// A model that cannot be run for want of operators: with `--json` a document says which, all of them, beside the error.
fn say_what_is_missing(args: &InspectArgs, console: &Console) -> Result<()> {
    let Some((unsupported, sha256)) = ModelFile::unsupported(&args.model) else {
        return Ok(());
    };
    let mut text = vec!["foolproof has no".to_string()];
    text.extend(unsupported.iter().map(|line| format!("  {line}")));
    let mut document = Document::new("inspect");
    document.model = Some(Model {
        path: args.model.display().to_string(),
        sha256,
        numerics: "unknown".into(),
    });
    document.inspect = Some(Inspect {
        unsupported,
        ..Inspect::default()
    });
    console.finish(&document, || text.join("\n"))
}
