//! `foolproof data`: the data sets that many know and how to get them, or what a data set at hand is.

use super::Ended;
use super::console::Console;
use crate::data::{self, Purpose, known};
use crate::document::{Data, DataFile, DataSet, Document};
use crate::error::Result;
use crate::files;
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// Samples as commands take them; without, the known data sets and how to get them
    #[arg(value_name = "D")]
    pub data: Option<String>,
}

pub(crate) fn run(args: &DataArgs, console: &Console) -> Result<Ended> {
    match &args.data {
        Some(spec) => describe(spec, console),
        None => list(console),
    }
}

fn list(console: &Console) -> Result<Ended> {
    let mut document = Document::new("data");
    document.sets = known::ALL
        .iter()
        .map(|known| DataSet {
            name: known.name.into(),
            about: known.about.into(),
            licence: known.licence.into(),
            get: known.get.iter().map(|&way| way.into()).collect(),
            data: known.data.into(),
            files: known
                .files
                .iter()
                .map(|file| DataFile {
                    path: file.name.into(),
                    checksum: file.checksum.into(),
                    known: Some(known.name.into()),
                })
                .collect(),
        })
        .collect();
    console.finish(&document, || {
        let sets: Vec<String> = document.sets.iter().map(render).collect();
        let note = "sha256 is of the content, gunzipped; foolproof data FILE computes and compares it. Nothing is downloaded.";
        format!("{}\n{note}", sets.join("\n"))
    })?;
    Ok(Ended::Well)
}

fn render(set: &DataSet) -> String {
    let mut lines = vec![format!("{}: {}; {}", set.name, set.about, set.licence)];
    lines.extend(set.get.iter().map(|way| format!("  get it: {way}")));
    lines.push(format!("  --data: {}", set.data));
    lines.extend(
        set.files
            .iter()
            .map(|file| format!("  {:<24} {}", file.path, file.checksum)),
    );
    lines.join("\n")
}

/// What a data set at hand is: as it would be read, and whether its files are those of a known one.
fn describe(spec: &str, console: &Console) -> Result<Ended> {
    let data = data::load(spec, Purpose::Judge)?;
    let mut found = Vec::new();
    for path in data::files_of(spec) {
        let checksum = known::checksum(files::read(&path)?)?;
        let known =
            known::find(&checksum).map(|(known, file)| format!("{} {}", known.name, file.name));
        found.push(DataFile {
            path: path.display().to_string(),
            checksum,
            known,
        });
    }
    let mut document = Document::new("data");
    document.data = Some(Data {
        path: data.name().into(),
        n: data.len(),
    });
    document.sets.push(DataSet {
        name: data.name().into(),
        about: format!(
            "{} samples of shape {:?}, {}, {}",
            data.len(),
            data.shape(),
            data.samples().type_name(),
            match data.labels() {
                Some(_) => format!("labels of {} classes", data.classes()),
                None => "no labels".into(),
            }
        ),
        files: found,
        ..DataSet::default()
    });
    console.finish(&document, || {
        let set = &document.sets[0];
        let mut lines = vec![format!("{}: {}", set.name, set.about)];
        for file in &set.files {
            let known = file.known.as_deref().unwrap_or("no known file");
            lines.push(format!("  {}\n    {}: {known}", file.path, file.checksum));
        }
        lines.join("\n")
    })?;
    Ok(Ended::Well)
}
