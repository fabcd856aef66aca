//! Charts as inline SVG. Colours are classes of the page's style sheet, so that they follow light and dark.

use super::format::number;
use maud::{Markup, html};
use std::fmt::Write;

/// One line of a chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Which of the style sheet's colours, counted from 0.
    pub colour: usize,
    /// Which of the style sheet's kinds of line, counted from 0: whole, and three that are broken.
    pub kind: usize,
    /// x, y, and the ends of y's interval.
    pub points: Vec<Point>,
}

/// One point of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Position.
    pub x: f64,
    /// Value.
    pub y: f64,
    /// The ends of its interval, where it has one.
    pub interval: Option<[f64; 2]>,
}

/// A line chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Lines {
    /// Read aloud by screen readers.
    pub title: String,
    /// Name and unit of the x axis.
    pub x_axis: String,
    /// Smallest y.
    pub y_min: f64,
    /// Largest y.
    pub y_max: f64,
    /// Whether y is a share, written in percent.
    pub percent: bool,
    /// The lines.
    pub series: Vec<Series>,
}

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;

impl Lines {
    /// The chart, with its legend.
    pub fn render(&self) -> Markup {
        let xs = || {
            self.series
                .iter()
                .flat_map(|series| series.points.iter().map(|point| point.x))
        };
        let low = xs().fold(f64::INFINITY, f64::min);
        let high = xs().fold(f64::NEG_INFINITY, f64::max);
        if !low.is_finite() || !high.is_finite() {
            return html! {};
        }
        let span = if high > low { high - low } else { 1.0 };
        let y_min = if self.y_min.is_finite() {
            self.y_min
        } else {
            0.0
        };
        let y_max = match self.y_max > y_min && self.y_max.is_finite() {
            true => self.y_max,
            false => y_min + 1.0,
        };
        let px = |x: f64| LEFT + (x - low) / span * (WIDTH - LEFT - RIGHT);
        let py = |y: f64| {
            TOP + (1.0 - ((y - y_min) / (y_max - y_min)).clamp(0.0, 1.0)) * (HEIGHT - TOP - BOTTOM)
        };
        let ticks = thin(xs().collect(), |a, b| (px(b) - px(a)) >= 50.0);
        html! {
            figure.chart {
                ul.legend {
                    @for series in &self.series {
                        li {
                            svg viewBox="0 0 26 10" aria-hidden="true" {
                                line class=(line_class(series)) x1="1" y1="5" x2="25" y2="5" {}
                            }
                            (series.name)
                        }
                    }
                }
                svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(self.title) {
                    @for step in 0..=4 {
                        @let y = y_min + (y_max - y_min) * f64::from(step) / 4.0;
                        line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(round(py(y))) y2=(round(py(y))) {}
                        text.tick x=(LEFT - 8.0) y=(round(py(y) + 4.0)) text-anchor="end" {
                            @if self.percent { (format!("{:.0} %", 100.0 * y)) } @else { (number(y)) }
                        }
                    }
                    @for x in &ticks {
                        text.tick x=(round(px(*x))) y=(HEIGHT - BOTTOM + 18.0) text-anchor="middle" { (number(*x)) }
                    }
                    text.axis x=(round((LEFT + WIDTH - RIGHT) / 2.0)) y=(HEIGHT - 6.0) text-anchor="middle" { (self.x_axis) }
                    @for series in &self.series {
                        @if let Some(band) = band(series, &px, &py) {
                            path class=(format!("band c{}", series.colour)) d=(band) {}
                        }
                    }
                    @for series in &self.series {
                        path class=(line_class(series)) d=(path(series.points.iter().map(|p| (px(p.x), py(p.y))))) {}
                        @if series.points.len() <= 24 {
                            @for point in &series.points {
                                circle class=(format!("dot c{}", series.colour)) cx=(round(px(point.x))) cy=(round(py(point.y))) r="3.2" {
                                    title { (series.name) ", " (number(point.x)) ": "
                                        @if self.percent { (super::percent(point.y)) } @else { (number(point.y)) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn line_class(series: &Series) -> String {
    format!("line c{} k{}", series.colour, series.kind)
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Sorted, without repeats, and without what would stand too close to its left neighbour.
fn thin(mut values: Vec<f64>, far_enough: impl Fn(f64, f64) -> bool) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    let mut kept: Vec<f64> = Vec::new();
    for value in values {
        if kept.last().is_none_or(|&last| far_enough(last, value)) {
            kept.push(value);
        }
    }
    kept
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut out = String::new();
    for (i, (x, y)) in points.enumerate() {
        let command = if i == 0 { 'M' } else { 'L' };
        // Writing to a string cannot fail.
        let _ = write!(out, "{command}{x:.1} {y:.1}");
    }
    out
}

/// The area between the ends of the intervals.
fn band(series: &Series, px: &dyn Fn(f64) -> f64, py: &dyn Fn(f64) -> f64) -> Option<String> {
    let ends: Vec<(f64, [f64; 2])> = series
        .points
        .iter()
        .filter_map(|p| Some((p.x, p.interval?)))
        .collect();
    if ends.len() < 2 {
        return None;
    }
    let upper = ends.iter().map(|&(x, [_, high])| (px(x), py(high)));
    let lower = ends.iter().rev().map(|&(x, [low, _])| (px(x), py(low)));
    Some(path(upper.chain(lower)) + "Z")
}

/// A confusion matrix: rows are right classes, columns what the model said.
pub fn matrix(title: &str, classes: &[String], counts: &[usize]) -> Markup {
    let n = classes.len();
    if n == 0 || counts.len() != n * n {
        return html! {};
    }
    const SIDE: f64 = 360.0;
    const MARGIN: f64 = 40.0;
    let cell = (SIDE - MARGIN) / n as f64;
    let short = |name: &str| name.chars().take(4).collect::<String>();
    let size = (cell * 0.42).clamp(5.0, 13.0);
    html! {
        figure.chart {
            figcaption { (title) }
            svg viewBox=(format!("0 0 {SIDE} {SIDE}")) role="img" aria-label=(title) {
                text.axis x=(MARGIN + (SIDE - MARGIN) / 2.0) y="11" text-anchor="middle" { "the model said" }
                text.axis x="10" y=(MARGIN + (SIDE - MARGIN) / 2.0) text-anchor="middle"
                    transform=(format!("rotate(-90 10 {})", MARGIN + (SIDE - MARGIN) / 2.0)) { "it was" }
                @for (row, name) in classes.iter().enumerate() {
                    @let middle = MARGIN + (row as f64 + 0.5) * cell;
                    text.class-name x=(MARGIN - 6.0) y=(round(middle + size / 3.0)) font-size=(size) text-anchor="end" { (short(name)) }
                    text.class-name x=(round(middle)) y=(MARGIN - 7.0) font-size=(size) text-anchor="middle" { (short(name)) }
                    @let total = counts[row * n..(row + 1) * n].iter().sum::<usize>().max(1);
                    @for (column, answer) in classes.iter().enumerate() {
                        @let count = counts[row * n + column];
                        @let share = count as f64 / total as f64;
                        @let x = MARGIN + column as f64 * cell;
                        @let y = MARGIN + row as f64 * cell;
                        @let kind = if row == column { "right" } else { "wrong" };
                        rect.cell x=(round(x + 0.5)) y=(round(y + 0.5)) width=(round(cell - 1.0)) height=(round(cell - 1.0)) rx="2" {}
                        @if count > 0 {
                            rect class=(kind) x=(round(x + 0.5)) y=(round(y + 0.5)) width=(round(cell - 1.0)) height=(round(cell - 1.0)) rx="2"
                                fill-opacity=(format!("{:.2}", 0.15 + 0.85 * share)) {
                                title { (count) " of " (total) " of class " (name) " taken for " (answer) }
                            }
                            text class=(if share > 0.55 { "count strong" } else { "count" }) x=(round(x + cell / 2.0)) y=(round(y + cell / 2.0 + size / 3.0))
                                font-size=(size) text-anchor="middle" { (count) }
                        }
                    }
                }
            }
        }
    }
}
