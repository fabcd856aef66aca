//! What the engine's sources must not contain: `unsafe` outside the kernels, `std` or an allocator, and ways to panic.
//!
//! The sources are read as Rust tokens, so comments, documentation and strings do not count; nor does what is compiled
//! for tests only.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Ways to panic that may stay: the file, what occurs in it, and why nothing can go wrong there.
const ALLOWED: &[(&str, &str, &str)] = &[];

const PANICKING_MACROS: [&str; 10] = [
    "panic",
    "unreachable",
    "todo",
    "unimplemented",
    "assert",
    "assert_eq",
    "assert_ne",
    "debug_assert",
    "debug_assert_eq",
    "debug_assert_ne",
];
const PANICKING_METHODS: [&str; 4] = ["unwrap", "expect", "unwrap_err", "expect_err"];

/// Something that a rule forbids.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    rule: Rule,
    what: String,
    line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Unsafe,
    Std,
    Panic,
    /// A test-only part whose end this test cannot tell.
    Unclear,
}

/// Reads one file's tokens.
#[derive(Default)]
struct Reader {
    findings: Vec<Finding>,
    /// Modules in files of their own that are compiled for tests only.
    test_modules: Vec<String>,
}

impl Reader {
    fn of(source: &str) -> Reader {
        let tokens: TokenStream = source.parse().expect("the sources are Rust");
        let mut reader = Reader::default();
        reader.read(tokens, false);
        reader
    }

    /// `with_std`: within a part that exists only with feature `std`.
    fn read(&mut self, tokens: TokenStream, with_std: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut i = 0;
        while i < tokens.len() {
            if let Some((attribute, after)) = attribute(&tokens, i) {
                self.read_attribute(&attribute);
                i = after;
                let (for_tests, for_std) = (gates(&attribute, "test"), is_feature_std(&attribute));
                if !for_tests && !for_std {
                    continue;
                }
                while let Some((more, after)) = self::attribute(&tokens, i) {
                    self.read_attribute(&more);
                    i = after;
                }
                let end = self.end_of_item(&tokens, i);
                let item = &tokens[i..end];
                if for_tests {
                    self.test_modules.extend(module_in_a_file(item));
                } else {
                    self.read(item.iter().cloned().collect(), true);
                }
                i = end;
                continue;
            }
            self.look(&tokens, i, with_std);
            if let TokenTree::Group(group) = &tokens[i] {
                self.read(group.stream(), with_std);
            }
            i += 1;
        }
    }

    /// `unsafe` hides in attributes too: `#[unsafe(no_mangle)]`, `#[allow(unsafe_code)]`.
    fn read_attribute(&mut self, attribute: &[TokenTree]) {
        let words = words(attribute);
        let is_unsafe = words.first().is_some_and(|word| word == "unsafe")
            || words.iter().any(|word| word == "unsafe_code")
                && words.iter().any(|word| word == "allow" || word == "expect");
        if is_unsafe {
            self.find(Rule::Unsafe, &words.join(" "), &attribute[0]);
        }
    }

    fn look(&mut self, tokens: &[TokenTree], i: usize, with_std: bool) {
        let TokenTree::Ident(ident) = &tokens[i] else {
            return;
        };
        let word = ident.to_string();
        let before = |n: usize, text: &str| {
            i.checked_sub(n)
                .is_some_and(|j| tokens[j].to_string() == text)
        };
        let after = |n: usize, text: &str| tokens.get(i + n).is_some_and(|t| t.to_string() == text);
        match word.as_str() {
            "unsafe" => self.find(Rule::Unsafe, &word, &tokens[i]),
            "std" | "alloc" if !with_std => {
                let is_root = after(1, ":") && after(2, ":") && !before(1, ":");
                if is_root || before(1, "crate") && before(2, "extern") {
                    self.find(Rule::Std, &word, &tokens[i]);
                }
            }
            _ => {}
        }
        let is_call = matches!(tokens.get(i + 1), Some(TokenTree::Group(g)) if g.delimiter() == Delimiter::Parenthesis);
        // `.unwrap()`, and `Option::unwrap` handed to a function.
        let is_method = before(1, ".") && is_call || before(1, ":") && before(2, ":");
        let is_macro = after(1, "!") && matches!(tokens.get(i + 2), Some(TokenTree::Group(_)));
        if is_macro && PANICKING_MACROS.contains(&word.as_str()) {
            self.find(Rule::Panic, &format!("{word}!"), &tokens[i]);
        }
        if is_method && PANICKING_METHODS.contains(&word.as_str()) {
            self.find(Rule::Panic, &word, &tokens[i]);
        }
    }

    fn find(&mut self, rule: Rule, what: &str, at: &TokenTree) {
        self.findings.push(Finding {
            rule,
            what: what.to_string(),
            line: at.span().start().line,
        });
    }

    /// Where the item or statement that starts at `i` ends: behind its braces or its semicolon.
    fn end_of_item(&mut self, tokens: &[TokenTree], i: usize) -> usize {
        for (j, token) in tokens.iter().enumerate().skip(i) {
            match token {
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return j + 1,
                TokenTree::Punct(punct) if punct.as_char() == ';' => return j + 1,
                TokenTree::Punct(punct) if punct.as_char() == ',' => {
                    // A match arm or a field; commas of generic parameters end here too, and then ask to be written differently.
                    self.find(Rule::Unclear, "cfg(test) or cfg(feature)", token);
                    return j + 1;
                }
                _ => {}
            }
        }
        tokens.len()
    }
}

/// What stands in the brackets of the attribute at `i`, and where it ends.
fn attribute(tokens: &[TokenTree], i: usize) -> Option<(Vec<TokenTree>, usize)> {
    let is = |j: usize, sign: char| matches!(tokens.get(j), Some(TokenTree::Punct(p)) if p.as_char() == sign);
    if !is(i, '#') {
        return None;
    }
    let j = if is(i + 1, '!') { i + 2 } else { i + 1 };
    match tokens.get(j) {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Bracket => {
            let inner: Vec<TokenTree> = group.stream().into_iter().collect();
            Some((inner, j + 1))
        }
        _ => None,
    }
}

/// All identifiers and strings, in order, of all depths.
fn words(tokens: &[TokenTree]) -> Vec<String> {
    let mut words = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                words.extend(self::words(&inner));
            }
            TokenTree::Punct(_) => {}
            other => words.push(other.to_string()),
        }
    }
    words
}

/// `cfg(WORD)` or `cfg(all(.., WORD, ..))`.
fn gates(attribute: &[TokenTree], word: &str) -> bool {
    let words = words(attribute);
    let is_sure = !words.iter().any(|w| w == "not" || w == "any");
    is_sure && words.first().is_some_and(|w| w == "cfg") && words.iter().any(|w| w == word)
}

fn is_feature_std(attribute: &[TokenTree]) -> bool {
    gates(attribute, "\"std\"")
}

/// The name in `mod NAME;`.
fn module_in_a_file(item: &[TokenTree]) -> Option<String> {
    let text: Vec<String> = item.iter().map(TokenTree::to_string).collect();
    match text.as_slice() {
        [module, name, end] if module == "mod" && end == ";" => Some(name.clone()),
        _ => None,
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("the sources can be listed").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// All findings in the engine's sources, each with its file's path below `src/`, and the number of files read.
fn findings() -> (Vec<(String, Finding)>, usize) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut read = Vec::new();
    let mut for_tests = BTreeSet::new();
    for path in files(&root) {
        let reader = Reader::of(&fs::read_to_string(&path).expect("sources are text"));
        let is_root = path
            .file_stem()
            .is_some_and(|stem| stem == "mod" || stem == "lib");
        let folder = if is_root {
            path.parent().expect("it lies in src").to_path_buf()
        } else {
            path.with_extension("")
        };
        for module in &reader.test_modules {
            for_tests.insert(folder.join(format!("{module}.rs")));
        }
        read.push((path, reader.findings));
    }
    read.retain(|(path, _)| !for_tests.contains(path));
    let count = read.len();
    let mut all = Vec::new();
    for (path, findings) in read {
        let name = path.strip_prefix(&root).expect("it lies in src");
        let name = name.to_string_lossy().replace('\\', "/");
        all.extend(findings.into_iter().map(|finding| (name.clone(), finding)));
    }
    (all, count)
}

#[test]
fn the_engine_keeps_the_rules() {
    let (findings, files) = findings();
    assert!(files > 30, "only {files} files were read");
    let allowed = |name: &str, what: &str| {
        ALLOWED
            .iter()
            .any(|(file, text, _)| *file == name && *text == what)
    };
    let broken: Vec<String> = findings
        .iter()
        .filter(|(name, finding)| match finding.rule {
            Rule::Unsafe => !name.starts_with("kernels/"),
            Rule::Panic => !allowed(name, &finding.what),
            Rule::Std | Rule::Unclear => true,
        })
        .map(|(name, f)| format!("src/{name}:{}: {:?}: {}", f.line, f.rule, f.what))
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
    // The kernels do use it: a reader that sees nothing would not pass.
    assert!(findings.iter().any(|(_, f)| f.rule == Rule::Unsafe));
    for (file, what, _) in ALLOWED {
        assert!(
            findings
                .iter()
                .any(|(name, f)| name == file && f.what == *what),
            "{what} in src/{file} is allowed but not there any more"
        );
    }
}

#[test]
fn every_rule_finds_what_it_forbids() {
    for (source, rule, what) in [
        ("fn f() { unsafe { g() } }", Rule::Unsafe, "unsafe"),
        ("unsafe impl Send for X {}", Rule::Unsafe, "unsafe"),
        (
            "#[unsafe(no_mangle)] fn f() {}",
            Rule::Unsafe,
            "unsafe no_mangle",
        ),
        ("#![allow(unsafe_code)]", Rule::Unsafe, "allow unsafe_code"),
        ("extern crate alloc;", Rule::Std, "alloc"),
        ("use std::vec::Vec;", Rule::Std, "std"),
        ("fn f() -> alloc::vec::Vec<u8> { g() }", Rule::Std, "alloc"),
        (
            "#[cfg(not(feature = \"std\"))] use std::fs;",
            Rule::Std,
            "std",
        ),
        (
            "#[cfg(any(test, x))] fn f() { panic!() }",
            Rule::Panic,
            "panic!",
        ),
        ("fn f() { g(|| x.unwrap()) }", Rule::Panic, "unwrap"),
        ("fn f() { x.map(Option::unwrap); }", Rule::Panic, "unwrap"),
        ("fn f() { x.expect(\"it\"); }", Rule::Panic, "expect"),
        (
            "macro_rules! m { () => { unreachable!() } }",
            Rule::Panic,
            "unreachable!",
        ),
        ("fn f() { assert_eq!(a, b); }", Rule::Panic, "assert_eq!"),
        (
            "#[cfg(feature = \"std\")] fn f() { std::x(); panic!(\"no\") }",
            Rule::Panic,
            "panic!",
        ),
        (
            "#[cfg(test)] mod tests { } fn f() { panic!() }",
            Rule::Panic,
            "panic!",
        ),
        (
            "match x { #[cfg(test)] A => b, C => todo!() }",
            Rule::Unclear,
            "cfg(test) or cfg(feature)",
        ),
    ] {
        let found = Reader::of(source).findings;
        let first = found.first().unwrap_or_else(|| panic!("{source}"));
        assert_eq!((first.rule, first.what.as_str()), (rule, what), "{source}");
    }
}

#[test]
fn what_is_allowed_is_not_found() {
    for source in [
        "//! unsafe, std::vec and panic!\n/// x.unwrap()\nfn f() { g(\"panic!() unsafe\") }",
        "#![no_std]\n#![deny(unsafe_code)]",
        "#[cfg(test)] mod tests { extern crate std; fn f() { unsafe { x.unwrap() } } }",
        "#[cfg(test)] #[allow(x)] static N: std::x = std::x::new();",
        "#[cfg(all(test, target_arch = \"x86_64\"))] fn f() { panic!() }",
        "fn f() { #[cfg(feature = \"std\")] { extern crate std; std::f() } }",
        "fn f() { x.unwrap_or(1); x.expected(); core::f(); self::alloc::f(); unwrap(x) }",
    ] {
        assert_eq!(Reader::of(source).findings, [], "{source}");
    }
    let modules = Reader::of("#[cfg(test)] mod a; mod b; #[cfg(test)] mod c {}").test_modules;
    assert_eq!(modules, ["a"]);
}
