//! Every attack says where it comes from: its file names a paper with its year, the equation, section or algorithm that it
//! follows, and where its default parameters come from.

use foolproof_host::attack::catalog;
use std::fs;
use std::path::{Path, PathBuf};

/// Files beside the attacks that are none, and why.
const NO_ATTACKS: &[(&str, &str)] = &[
    ("mod.rs", "lists the attacks of its folder"),
    ("tests.rs", "tests of several attacks"),
    ("analytic.rs", "classifiers to test attacks on"),
    ("penalty.rs", "what attacks with a penalty share"),
    ("hyperplane.rs", "what attacks on linear boundaries share"),
    ("rank.rs", "the order of the other classes"),
    ("asked.rs", "what attacks on scores share"),
    ("ground.rs", "what attacks on labels share"),
    ("ball.rs", "where attacks search"),
    ("asked.rs", "what attacks on scores share"),
    ("ground.rs", "what decision-based attacks share"),
];

/// Words that a number, a numeral or a letter must follow.
const PLACES: [&str; 6] = [
    "equation",
    "section",
    "algorithm",
    "theorem",
    "appendix",
    "table",
];

/// The documentation of a file: its `//!` lines as one text.
fn documentation(source: &str) -> String {
    let lines = source.lines().filter_map(|line| line.strip_prefix("//!"));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

/// A year from 1950 to 2039 between a bracket, a comma or a space and a bracket: `(2017)`, `Xu, 2018)`.
fn has_year(text: &str) -> bool {
    text.match_indices(')').any(|(end, _)| {
        let year = end.checked_sub(4).and_then(|start| text.get(start..end));
        let year = year.and_then(|year| year.parse::<u32>().ok());
        year.is_some_and(|year| (1950..2040).contains(&year))
    })
}

/// `section 4.1`, `equation (7)`, `algorithm 1`, `section VI.A`.
fn has_place(text: &str) -> bool {
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    words.windows(2).any(|pair| {
        let word = pair[0].trim_matches(|c: char| !c.is_alphanumeric());
        let number = pair[1].trim_start_matches(['(', '"']);
        let roman = number
            .chars()
            .take_while(|c| c.is_alphanumeric())
            .all(|c| "ivxlc".contains(c));
        let numbered = number.starts_with(|c: char| c.is_ascii_digit())
            || number.starts_with(|c: char| c.is_ascii_alphabetic())
                && (roman || number.chars().nth(1).is_none_or(|c| !c.is_alphabetic()));
        let singular = word.strip_suffix('s').unwrap_or(word);
        numbered && PLACES.contains(&singular)
    })
}

/// What is missing in a documentation.
fn missing(text: &str) -> Vec<&'static str> {
    let says = |word: &str| text.to_lowercase().contains(word);
    [
        (has_year(text), "a paper with its year, as (2017)"),
        (
            has_place(text),
            "the equation, section or algorithm, with its number",
        ),
        (
            says("default") || says("no parameter"),
            "where the defaults come from (the word default)",
        ),
    ]
    .into_iter()
    .filter_map(|(there, what)| (!there).then_some(what))
    .collect()
}

/// The files that define attacks: `FOLDER/NAME.rs` and `FOLDER/NAME/mod.rs`.
fn attacks() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let host = root.join("host-tools/src/attack");
    let mut found = vec![host.join("universal.rs")];
    for folder in [
        root.join("src/attack"),
        host.join("white"),
        host.join("scores"),
        host.join("labels"),
    ] {
        for entry in fs::read_dir(&folder).expect("the attacks are there") {
            let path = entry.expect("a readable folder").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            if path.is_dir() {
                found.push(path.join("mod.rs"));
            } else if NO_ATTACKS.iter().all(|(file, _)| *file != name) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn every_attack_names_its_paper_its_equation_and_its_defaults() {
    let files = attacks();
    assert!(files.len() >= 6, "only {} attacks were read", files.len());
    let mut broken = Vec::new();
    for path in files {
        let source = fs::read_to_string(&path).expect("sources are text");
        for what in missing(&documentation(&source)) {
            broken.push(format!("{}: {what}", path.display()));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_line_of_the_catalog_says_who_published_it() {
    let mut count = 0;
    for entry in catalog::all() {
        count += 1;
        let sourced =
            has_year(&format!("{})", entry.about.trim_end_matches(')'))) || has_year(entry.about);
        // baselines that nobody published say so
        let plain = entry.about.contains("baseline") || entry.about.contains("floor");
        assert!(sourced || plain, "{}: {}", entry.name, entry.about);
    }
    assert!(count >= 7, "{count} attacks");
}

#[test]
fn the_rules_find_what_is_missing() {
    let good = "Carlini and Wagner (2017), section VI.A. Defaults are those of the authors' code.";
    assert_eq!(missing(good), Vec::<&str>::new());
    for (text, count) in [
        (
            "Carlini and Wagner, section VI.A. Defaults: the paper's.",
            1,
        ),
        (
            "Carlini and Wagner (2017), in a section. Defaults: the paper's.",
            1,
        ),
        ("Carlini and Wagner (2017), equation 3.", 1),
        ("Something that works (well).", 3),
    ] {
        assert_eq!(missing(text).len(), count, "{text}");
    }
}
