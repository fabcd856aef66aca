//! The page about a training: figures, curves, pictures, configuration. Everything is in it, as in the evaluation's report.

use super::Picture;
use super::chart::{Lines, Point, Series};
use crate::train::run::Record;
use maud::{DOCTYPE, PreEscaped, html};
use std::path::Path;

/// What the page shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Learning {
    /// One sentence about the run.
    pub title: String,
    /// Name, value, note.
    pub tiles: Vec<[String; 3]>,
    /// Curves.
    pub charts: Vec<Chart>,
    /// Pictures with heading and text.
    pub pictures: Vec<(String, String, Picture)>,
    /// The configuration, as TOML.
    pub config: String,
    /// The command that made it.
    pub command: String,
}

/// A chart with its words.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// Heading.
    pub heading: String,
    /// What it shows.
    pub lead: String,
    /// The lines.
    pub lines: Lines,
}

impl Chart {
    /// The figures of these names in a log, by step. `None` where the log has none of them.
    pub fn of_log(heading: &str, lead: &str, records: &[Record], names: &[&str]) -> Option<Chart> {
        let series: Vec<Series> = names
            .iter()
            .enumerate()
            .map(|(colour, &name)| Series {
                name: name.replace('_', " "),
                colour: colour % 4,
                kind: 0,
                points: records
                    .iter()
                    .filter_map(|record| {
                        let (_, y) = record.figures.iter().find(|(n, _)| n == name)?;
                        Some(point(record.step as f64, *y))
                    })
                    .collect(),
            })
            .filter(|series| !series.points.is_empty())
            .collect();
        (!series.is_empty()).then(|| Chart {
            heading: heading.into(),
            lead: lead.into(),
            lines: fitted(heading, "step", series),
        })
    }
}

/// The name of a file, of the first of several with commas between, or of something else: as a title has room for it.
pub fn without_folders(path: &str) -> &str {
    let first = path.split(',').next().unwrap_or(path);
    let name = Path::new(first).file_name();
    name.and_then(|name| name.to_str()).unwrap_or(path)
}

/// A point without an interval.
pub fn point(x: f64, y: f64) -> Point {
    Point {
        x,
        y,
        interval: None,
    }
}

/// Lines with an axis that holds them all, and 0.
pub fn fitted(title: &str, x_axis: &str, series: Vec<Series>) -> Lines {
    let ys = || {
        series
            .iter()
            .flat_map(|s| s.points.iter().map(|p| p.y))
            .filter(|y| y.is_finite())
    };
    let (low, high) = (ys().fold(0.0, f64::min), ys().fold(0.0, f64::max));
    // four steps of a round size that hold everything
    let least = ((high - low) / 4.0).max(1e-9);
    let decade = 10f64.powf(least.log10().floor());
    let holds = |step: &f64| low_end(low, *step) + 4.0 * step >= high * (1.0 - 1e-9);
    let step = [1.0, 2.0, 2.5, 5.0, 10.0, 20.0, 50.0]
        .map(|factor| factor * decade)
        .into_iter()
        .find(|step| *step >= least * (1.0 - 1e-9) && holds(step))
        .unwrap_or(least);
    Lines {
        title: title.into(),
        x_axis: x_axis.into(),
        y_min: low_end(low, step),
        y_max: low_end(low, step) + 4.0 * step,
        percent: false,
        series,
    }
}

fn low_end(low: f64, step: f64) -> f64 {
    (low / step).floor() * step
}

/// The page as one HTML document.
pub fn page(data: &Learning) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "foolproof: training" }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                main {
                    header {
                        p.brand { b { "foolproof" } span { (data.command) } }
                        h1 { (data.title) }
                    }
                    div.tiles {
                        @for [name, value, note] in &data.tiles {
                            div.tile { p.name { (name) } p.value { (value) } p.note { (note) } }
                        }
                    }
                    div.cards {
                        @for chart in &data.charts {
                            section.card { h2 { (chart.heading) } p.lead { (chart.lead) } (chart.lines.render()) }
                        }
                    }
                    @for (heading, lead, picture) in &data.pictures {
                        section.card {
                            h2 { (heading) } p.lead { (lead) }
                            img src=(picture.data_uri()) alt=(heading) width=(picture.width) height=(picture.height)
                                style="max-width: 100%; height: auto; image-rendering: pixelated";
                        }
                    }
                    section.card {
                        h2 { "Configuration" }
                        p.lead { "Every value that the run used; give it back with --config." }
                        pre { (data.config) }
                    }
                }
            }
        }
    }
    .into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_name_files_and_not_where_they_lie() {
        let names = [
            "data/train.gz,data/labels.gz",
            "digits",
            "digits:train",
            "/",
        ];
        let short = names.map(without_folders);
        assert_eq!(short, ["train.gz", "digits", "digits:train", "/"]);
    }

    #[test]
    fn curves_of_a_log_are_drawn_and_the_axis_holds_them() {
        let record = |step, y| Record {
            step,
            figures: vec![("a_b".into(), y)],
        };
        let records = [record(1, -0.3), record(2, 1.7)];
        let chart = Chart::of_log("Loss", "", &records, &["a_b", "none"]).unwrap();
        assert_eq!((chart.lines.y_min, chart.lines.y_max), (-1.0, 3.0));
        assert!(Chart::of_log("Loss", "", &records, &["none"]).is_none());
        let html = page(&Learning {
            title: "A <run>".into(),
            charts: vec![chart],
            ..Learning::default()
        });
        assert!(html.contains("a b") && html.contains("A &lt;run&gt;"));
    }
}
