//! `foolproof attacks`: the attacks and suites by name.

use super::Ended;
use super::console::Console;
use crate::attack::catalog::{self, norm_name};
use crate::attack::suite::SUITES;
use crate::document::{AttackKind, Document, Setting};
use crate::error::Result;
use comfy_table::{ContentArrangement, Table, presets};

pub(crate) fn run(console: &Console) -> Result<Ended> {
    let mut document = Document::new("attacks");
    document.catalog = catalog::all()
        .map(|entry| AttackKind {
            name: entry.name.into(),
            access: entry.access.name().into(),
            norms: entry.norms.iter().map(|&n| norm_name(n).into()).collect(),
            nearest: entry.nearest,
            about: entry.about.into(),
            settings: entry
                .settings
                .iter()
                .map(|(name, default)| Setting {
                    name: (*name).into(),
                    default: (*default).into(),
                })
                .collect(),
        })
        .collect();
    console.finish(&document, || render(&document))?;
    Ok(Ended::Well)
}

fn render(document: &Document) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["attack", "asks for", "norms", "what it is", "settings"]);
    for kind in &document.catalog {
        let settings: Vec<String> = kind
            .settings
            .iter()
            .map(|setting| format!("{}={}", setting.name, setting.default))
            .collect();
        let about = match kind.nearest {
            true => format!(
                "{}; looks for the nearest, --eps may be left out",
                kind.about
            ),
            false => kind.about.clone(),
        };
        table.add_row([
            kind.name.clone(),
            kind.access.clone(),
            kind.norms.join(" "),
            about,
            settings.join(", "),
        ]);
    }
    let suites: Vec<String> = SUITES
        .iter()
        .map(|suite| format!("{}: {}", suite.name, suite.about))
        .collect();
    format!("{table}\nsuites:\n{}", suites.join("\n"))
}
