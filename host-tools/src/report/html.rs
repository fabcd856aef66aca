//! The page. Everything is in it: no script, no font, no picture comes from elsewhere.

use super::chart::{self, Lines, Point, Series};
use super::format::{cosine, count, decimal, mean_percent, number, optional, percent};
use super::{Example, Outcome, ReportData, agreement, arithmetic, title, verdict};
use crate::attack::Choice;
use crate::document::{Attack, Check, Class, Device, Document, Nearest, Transfer};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// The whole report as one HTML document.
pub fn page(data: &ReportData) -> String {
    let document = &data.document;
    let model = document.model.as_ref();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "foolproof: " (model.map_or("report", |model| &model.path)) }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                main {
                    (head(data))
                    (tiles(data))
                    @for warning in &document.warnings { p.warning { "Warning: " (warning) } }
                    div.cards { (robustness(data)) (training(data)) }
                    (checks(&document.checks))
                    (gallery(&data.gallery))
                    (attacks(&document.attacks))
                    (gradients(document))
                    (devices(&document.device))
                    div.cards { (nearest(document.nearest.as_ref())) (classes(&document.classes)) }
                    (confusion(data))
                    (reproduce(data))
                }
            }
        }
    }
    .into_string()
}

fn head(data: &ReportData) -> Markup {
    let document = &data.document;
    let (class, word) = match data.outcome() {
        Outcome::Fooled => ("fooled", "Fooled"),
        Outcome::Weakened => ("weakened", "Weakened"),
        Outcome::Held => ("held", "Held"),
        Outcome::NothingToFool => ("untested", "Nothing to fool"),
        Outcome::Untested => ("untested", "Not tested"),
        Outcome::Doubtful => ("weakened", "Doubtful"),
    };
    let sentence = verdict(document);
    let sentence = sentence
        .strip_prefix(&format!("{word}: "))
        .unwrap_or(&sentence);
    html! {
        header {
            p.brand {
                b { "foolproof" }
                @if let Some(model) = &document.model { span { (model.path) " (" (arithmetic(&model.numerics)) ")" } }
                @if let Some(data) = &document.data { span { (data.path) ", " (count(data.n as u64)) " samples" } }
            }
            p { span class=(format!("badge {class}")) { (word) } }
            h1 { (capital(sentence)) }
        }
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

fn tiles(data: &ReportData) -> Markup {
    let document = &data.document;
    let interval = |[low, high]: [f64; 2]| {
        format!("95 % interval {:.1} to {:.1} %", 100.0 * low, 100.0 * high)
    };
    let model = document
        .model
        .as_ref()
        .map_or("model", |model| arithmetic(&model.numerics));
    let mismatches = document
        .device
        .iter()
        .map(|d| d.logit_mismatches + d.adversarial_mismatches)
        .sum::<usize>();
    let compared = document
        .device
        .iter()
        .map(|d| d.logits_compared + d.adversarial_compared)
        .sum::<usize>();
    html! {
        div.tiles {
            @if let Some(accuracy) = document.accuracy_float {
                (tile("", "Clean accuracy, float", percent(accuracy.clean), interval(accuracy.interval)))
            }
            @if let Some(accuracy) = document.accuracy {
                (tile("", &format!("Clean accuracy, {model}"), percent(accuracy.clean), interval(accuracy.interval)))
            }
            @if let Some(worst) = data.worst() {
                @let class = match data.outcome() { Outcome::Held => "good", Outcome::Weakened | Outcome::NothingToFool | Outcome::Untested | Outcome::Doubtful => "", _ => "bad" };
                (tile(class, "Accuracy under attack", percent(worst.robust_accuracy), capital(&title(worst))))
            }
            @if !document.device.is_empty() {
                (tile(if mismatches == 0 && compared > 0 { "good" } else { "bad" }, "Host and chip differ in", count(mismatches as u64),
                    format!("of {} outputs and inputs compared", count(compared as u64))))
            } @else if let Some(train) = &document.train {
                (tile("", "Training", format!("{:.1} s", train.seconds), format!("{} steps", count(train.steps))))
            }
        }
    }
}

fn tile(class: &str, name: &str, value: String, note: String) -> Markup {
    html! {
        div class=(format!("tile {class}")) { p.name { (name) } p.value { (value) } p.note { (note) } }
    }
}

fn robustness(data: &ReportData) -> Markup {
    let document = &data.document;
    let mut series: Vec<Series> = Vec::new();
    for attack in document.attacks.iter().filter(|attack| !attack.targeted) {
        let norm = if attack.norm == "linf" {
            String::new()
        } else {
            format!(" {}", attack.norm.to_uppercase())
        };
        let name = format!(
            "{}{norm}, {}",
            attack.name.to_uppercase(),
            arithmetic(&attack.numerics)
        );
        let Some(eps) = attack.eps else {
            continue;
        };
        let point = Point {
            x: eps,
            y: attack.robust_accuracy,
            interval: Some(attack.interval),
        };
        if let Some(existing) = series.iter_mut().find(|series| series.name == name) {
            existing.points.push(point);
            continue;
        }
        let float = attack.numerics == "f32";
        let is_main = document
            .model
            .as_ref()
            .is_none_or(|model| model.numerics == attack.numerics);
        let clean = if is_main {
            document.accuracy
        } else {
            document.accuracy_float
        };
        let start = clean.map(|clean| Point {
            x: 0.0,
            y: clean.clean,
            interval: Some(clean.interval),
        });
        // What the attacker knows and the arithmetic have the colour, the attack the kind of line; several together are ink.
        let colour = match attack.threat.as_str() {
            _ if matches!(Choice::find(&attack.name), Some(Choice::Suite(_))) => 4,
            "black-box" => 2,
            "gray-box" => 3,
            _ => usize::from(float),
        };
        let before = series.iter().filter(|line| line.colour == colour);
        series.push(Series {
            name,
            colour,
            kind: before.count() % 4,
            points: start.into_iter().chain([point]).collect(),
        });
    }
    if series.is_empty() {
        return html! {};
    }
    for line in &mut series {
        line.points.sort_by(|a, b| a.x.total_cmp(&b.x));
    }
    let chart = Lines {
        title: "Accuracy under attack by size of the perturbation".into(),
        x_axis: "eps: largest perturbation, in units of the input".into(),
        y_min: 0.0,
        y_max: 1.0,
        percent: true,
        series,
    };
    html! {
        section.card {
            h2 { "Accuracy under attack" }
            p.lead { "The further an attacker may move the input, the fewer samples are still classified correctly. Shaded: 95 % Wilson intervals." }
            (chart.render())
        }
    }
}

fn training(data: &ReportData) -> Markup {
    if data.training.is_empty() {
        return html! {};
    }
    let line = |name: &str, colour, value: fn(&super::Progress) -> f64| Series {
        name: name.into(),
        colour,
        kind: 0,
        points: data
            .training
            .iter()
            .map(|p| Point {
                x: p.epoch as f64,
                y: value(p),
                interval: None,
            })
            .collect(),
    };
    let largest = data.training.iter().map(|p| p.loss).fold(1.0, f64::max);
    let chart = Lines {
        title: "Loss and accuracy by epoch".into(),
        x_axis: "epoch".into(),
        y_min: 0.0,
        y_max: (largest * 2.0).ceil() / 2.0,
        percent: false,
        series: vec![
            line("training loss", 0, |p| p.loss),
            line("training accuracy", 1, |p| p.accuracy),
        ],
    };
    html! {
        section.card {
            h2 { "Training" }
            @if let Some(train) = &data.document.train {
                p.lead { (count(train.steps)) " steps in " (format!("{:.1}", train.seconds)) " s, " (count(train.samples_per_second.max(0.0) as u64)) " samples a second, on foolproof's own engine." }
            }
            (chart.render())
        }
    }
}

fn gallery(examples: &[Example]) -> Markup {
    if examples.is_empty() {
        return html! {};
    }
    html! {
        section.card {
            h2 { "What fooled it" }
            p.lead { "Left the sample, right the sample plus the perturbation in the middle (red: brighter, blue: darker). Below each: what the model says, and how sure it is." }
            div.gallery { @for example in examples { (card(example)) } }
        }
    }
}

fn card(example: &Example) -> Markup {
    let picture = |picture: &super::Picture, alt: String| html! { img src=(picture.data_uri()) alt=(alt) width=(picture.width) height=(picture.height); };
    html! {
        div.example {
            p.what { "Sample " (example.sample) ", really " (example.label) ". " (example.attack) }
            div.triple {
                figure {
                    (picture(&example.original, format!("sample {}", example.sample)))
                    figcaption { b { (example.before.0) } (percent(example.before.1)) " sure" }
                }
                figure {
                    (picture(&example.perturbation, "perturbation".into()))
                    figcaption { b { "× " (decimal(example.amplification)) } "change, amplified" }
                }
                figure.lie {
                    (picture(&example.adversarial, format!("adversarial sample {}", example.sample)))
                    figcaption { b { (example.after.0) } (percent(example.after.1)) " sure" }
                }
            }
        }
    }
}

fn checks(checks: &[Check]) -> Markup {
    if checks.is_empty() {
        return html! {};
    }
    html! {
        section.card {
            h2 { "Can these figures be believed?" }
            p.lead { "An attack that fails proves nothing: gradients that vanish or lead astray make any model look robust. What should be so, and is it?" }
            ul.checks {
                @for check in checks {
                    @let (class, word) = match check.passed {
                        Some(true) => ("ok", "yes"),
                        Some(false) => ("no", "no"),
                        None => ("faint", "not measured"),
                    };
                    li {
                        span class=(format!("mark {class}")) { (word) }
                        div { b { (capital(&check.name)) } p.faint { (capital(&check.explanation)) "." } }
                    }
                }
            }
        }
    }
}

fn gradients(document: &Document) -> Markup {
    if document.gradients.is_empty() {
        return html! {};
    }
    let beside_float = document.gradients.iter().any(|g| g.float.is_some());
    html! {
        section.card {
            h2 { "The gradients" }
            p.lead {
                "At the unchanged samples. Zero: elements that are exactly zero. Vanished: samples whose whole gradient is zero."
                @if beside_float {
                    " Beside the float model's gradient at the same points: the cosine of the angle, the signs that agree, and the ascent, which is what a small step along these signs gains on the float model as a share of what its own signs gain. In brackets 95 % intervals."
                }
            }
            div.scroll {
                table {
                    thead { tr {
                        th { "gradient of" } th { "zero" } th { "vanished" }
                        @if beside_float { th { "cosine with float's" } th { "signs agree" } th { "ascent on float" } }
                    } }
                    tbody {
                        @for gradient in &document.gradients {
                            tr {
                                td { (gradient.objective) }
                                td { (percent(gradient.zero.mean)) }
                                td { (percent(gradient.vanished.share)) " of " (count(gradient.n as u64)) }
                                @if beside_float {
                                    @let float = gradient.float.as_ref();
                                    td { (cosine(float.and_then(|f| f.cosine))) }
                                    td { (mean_percent(float.and_then(|f| f.sign_agreement))) }
                                    td { (mean_percent(float.and_then(|f| f.ascent))) }
                                }
                            }
                        }
                    }
                }
            }
            @if !document.transfer.is_empty() { (transfer(&document.transfer)) }
        }
    }
}

fn transfer(transfer: &[Transfer]) -> Markup {
    html! {
        h3 { "What fools the float model, and this one too" }
        p.lead { "Crafted on the float model, rounded to this model's input grid, tried on this model: of the samples that both had right and that fooled the float model." }
        div.scroll {
            table {
                thead { tr { th { "crafted by" } th { "eps" } th { "fooled the float model" } th { "fools this one too" } th { "95 % interval" } } }
                tbody {
                    @for entry in transfer {
                        tr {
                            td { (entry.attack.to_uppercase()) }
                            td { (number(entry.eps)) }
                            td { (count(entry.carried_over.map_or(0, |share| share.n) as u64)) }
                            td { (entry.carried_over.map_or("–".into(), |share| percent(share.share))) }
                            td.faint { (entry.carried_over.map_or(String::new(), |share| format!("{:.1} to {:.1}", 100.0 * share.interval[0], 100.0 * share.interval[1]))) }
                        }
                    }
                }
            }
        }
    }
}

fn attacks(attacks: &[Attack]) -> Markup {
    if attacks.is_empty() {
        return html! {};
    }
    html! {
        section.card {
            h2 { "Every attack" }
            p.lead { "Accuracy counts all samples. Success counts the samples that could be won: those that were right before. Norms are means over what won; “won after” is the median of the forward passes that a success took." }
            div.scroll {
                table {
                    thead { tr {
                        th { "attack" } th.text { "model" } th.text { "knows" } th { "eps" } th { "accuracy" } th { "95 % interval" } th { "success" }
                        th { "mean L2" } th { "mean L∞" } th { "forward" } th { "backward" } th { "won after" }
                    } }
                    tbody { @for attack in attacks { (attack_row(attack)) } }
                }
            }
        }
    }
}

fn attack_row(attack: &Attack) -> Markup {
    let norm = |pick: fn(&crate::document::MeanNorm) -> f64| {
        attack
            .mean_norm
            .as_ref()
            .map_or("–".into(), |norm| number(pick(norm)))
    };
    html! {
        tr {
            td {
                (attack.name.to_uppercase()) " " span.faint { (match attack.norm.as_str() { "linf" => "L∞", "l2" => "L2", "l1" => "L1", _ => "L0" }) }
                @if attack.targeted { " targeted" }
            }
            td.text { (arithmetic(&attack.numerics)) }
            td.text { (match attack.threat.as_str() { "black-box" => "scores", "gray-box" => "float model", _ => "gradients" }) }
            td { (attack.eps.map_or("–".into(), number)) }
            td {
                (percent(attack.robust_accuracy))
                span.meter aria-hidden="true" { i style=(format!("width:{:.1}%", 100.0 * attack.robust_accuracy)) {} }
            }
            td.faint { (format!("{:.1} to {:.1}", 100.0 * attack.interval[0], 100.0 * attack.interval[1])) }
            td { (attack.success_rate.map_or("–".into(), percent)) }
            td { (norm(|n| n.l2)) }
            td { (norm(|n| n.linf)) }
            td { (decimal(attack.queries_mean)) }
            td { (decimal(attack.gradients_mean)) }
            td { (attack.queries_to_success.map_or("–".into(), |q| number(q.median))) }
        }
    }
}

fn devices(devices: &[Device]) -> Markup {
    if devices.is_empty() {
        return html! {};
    }
    let bytes = |value: Option<usize>| optional(value.map(|value| value as u64));
    html! {
        section.card {
            h2 { "On the chip" }
            p.lead { "The same model image, evaluated by the firmware. Emulated boards count instructions, not cycles. Sizes in bytes; stack by painting." }
            div.scroll {
                table.dense {
                    thead { tr {
                        th { "board" } th { "samples" } th { "outputs" br; "that differ" } th { "attacks" br; "that differ" }
                        th { "instructions" br; "per inference" } th { "instructions" br; "per FGSM" } th { "instructions" br; "per PGD" }
                        th { "buffer for" br; "inference" } th { "buffer for" br; "attacks" } th { "stack" } th { "static" br; "RAM" } th { "flash" }
                    } }
                    tbody {
                        @for device in devices {
                            tr {
                                td { (device.board) small { (device.core.as_deref().unwrap_or("")) @if let Some(ran) = &device.ran { ", " (ran) } } }
                                td { (count(device.samples as u64)) }
                                td { (differ(device.logit_mismatches, device.logits_compared)) }
                                td { (differ(device.adversarial_mismatches, device.adversarial_compared)) }
                                td { (optional(device.instructions_per_inference)) }
                                td { (optional(device.instructions_per_fgsm)) }
                                td { (optional(device.instructions_per_pgd)) }
                                td { (bytes(device.infer_buffer_bytes)) }
                                td { (bytes(device.attack_buffer_bytes)) }
                                td { (bytes(device.stack_bytes)) }
                                td { (bytes(device.static_ram_bytes)) }
                                td { (bytes(device.flash_bytes)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn differ(mismatches: usize, compared: usize) -> Markup {
    html! {
        @if compared == 0 { span.faint { "not compared" } }
        @else { span class=(if mismatches == 0 { "ok" } else { "no" }) { (mismatches) " of " (count(compared as u64)) } }
    }
}

/// How many samples are still right within a distance: a staircase.
fn nearest(nearest: Option<&Nearest>) -> Markup {
    let Some(nearest) = nearest else {
        return html! {};
    };
    let n = nearest.distances.len();
    let mut found: Vec<f64> = nearest.distances.iter().flatten().copied().collect();
    found.sort_by(f64::total_cmp);
    let Some(&largest) = found.last() else {
        return html! {};
    };
    let point = |x: f64, fooled: usize| Point {
        x,
        y: 1.0 - fooled as f64 / n as f64,
        interval: None,
    };
    let steps = found
        .iter()
        .enumerate()
        .flat_map(|(k, &x)| [point(x, k), point(x, k + 1)]);
    let points: Vec<Point> = [point(0.0, 0)].into_iter().chain(steps).collect();
    let norm = if nearest.norm == "linf" { "L∞" } else { "L2" };
    let chart = Lines {
        title: "Samples without an adversarial input within a distance".into(),
        x_axis: format!("{norm} distance, in units of the input"),
        y_min: 0.0,
        y_max: 1.0,
        percent: true,
        series: vec![Series {
            name: format!("{}, bisection", nearest.attack.to_uppercase()),
            colour: 0,
            kind: 0,
            points,
        }],
    };
    let median = found[(found.len() - 1) / 2];
    html! {
        section.card {
            h2 { "How near the nearest are" }
            p.lead {
                "Of the first " (count(n as u64)) " samples, those that no adversarial input was found for within a distance. Half of what was found lies within "
                (number(median)) ", all within " (number(largest)) "."
                @if let Some(carried) = nearest.carried_over {
                    " Of the nearest inputs that fool the float model " (percent(1.0 - carried.share))
                    (format!(" ({:.1} to {:.1}, n {})", 100.0 * (1.0 - carried.interval[1]), 100.0 * (1.0 - carried.interval[0]), carried.n))
                    " no longer fool this model once they lie on its grid."
                }
            }
            (chart.render())
        }
    }
}

fn classes(classes: &[Class]) -> Markup {
    if classes.is_empty() {
        return html! {};
    }
    html! {
        section.card {
            h2 { "Class by class" }
            p.lead { "Under the attack that leaves the least accuracy." }
            div.scroll {
                table {
                    thead { tr { th { "class" } th { "samples" } th { "clean" } th { "under attack" } th { "95 % interval" } } }
                    tbody {
                        @for class in classes {
                            tr {
                                td { (class.name) }
                                td { (count(class.n as u64)) }
                                td { (percent(class.clean)) }
                                td {
                                    (percent(class.robust))
                                    span.meter aria-hidden="true" { i style=(format!("width:{:.1}%", 100.0 * class.robust)) {} }
                                }
                                td.faint { (format!("{:.1} to {:.1}", 100.0 * class.interval[0], 100.0 * class.interval[1])) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn confusion(data: &ReportData) -> Markup {
    let Some(confusion) = &data.confusion else {
        return html! {};
    };
    html! {
        section.card {
            h2 { "What was taken for what" }
            p.lead { "Blue on the diagonal is right, orange is wrong; the stronger, the larger the share of the row." }
            div.two {
                (chart::matrix("Clean samples", &confusion.classes, &confusion.clean))
                (chart::matrix(&format!("Under {}", confusion.attack), &confusion.classes, &confusion.adversarial))
            }
        }
    }
}

fn reproduce(data: &ReportData) -> Markup {
    let document = &data.document;
    html! {
        section.card {
            h2 { "Do it again" }
            p.lead { "The same command, seed and version give the same figures, whatever the number of threads." }
            pre { (data.command_line) }
            dl {
                @if let Some(seed) = document.seed { dt { "seed" } dd { (seed) } }
                @if let Some(model) = &document.model {
                    dt { "model" } dd { (model.path) }
                    dt { "SHA-256" } dd { (model.sha256) }
                    dt { "arithmetic" } dd { (model.numerics) }
                }
                @if let Some(data) = &document.data { dt { "data" } dd { (data.path) ", " (count(data.n as u64)) " samples" } }
                @for (name, version) in &data.versions { dt { (name) } dd { (version) } }
                @if let Some(agreement) = agreement(document) { dt { "chip" } dd { (agreement) } }
            }
        }
        footer { "Made by foolproof " (document.version) ". This page is self-contained: it loads nothing." }
    }
}
