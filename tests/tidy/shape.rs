//! Rules about a file's shape: how it opens, and how long it, its functions and its lines are.

use super::source::Source;
use super::token::Kind;
use super::tree::{Breach, Tree};

/// Lines a file may have, its trailing test module not counted.
const FILE_LINES_MAX: usize = 600;
/// Lines a function may have, from its `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Characters a line may have.
const LINE_CHARS_MAX: usize = 120;
/// In the first paragraph of a file's docs, these words lift the limit on its length.
const LONG_FILE_WORDS: &str = "a table";

/// Every Rust file opens with `//!`.
pub(crate) fn opening(tree: &Tree) -> Vec<Breach> {
    let silent = tree.sources.iter().filter(|(_, source)| !opens_with_doc(source));
    silent.map(|(path, _)| Breach::new(path, 1, "opening", "the file does not open with `//!`")).collect()
}

/// Shebang and inner attributes may come first, other comments may not.
fn opens_with_doc(source: &Source) -> bool {
    let mut start = 0;
    while let Some(attribute) = source.attributes.iter().find(|it| it.inner && it.whole.start == start) {
        start = attribute.whole.end;
    }
    let first_item = source.code.get(start).map_or(source.text.len(), |token| token.offset);
    source
        .comments
        .first()
        .is_some_and(|comment| comment.kind == Kind::InnerDoc && comment.offset < first_item)
}

/// A file is short, unless it is a table and says so.
pub(crate) fn file_length(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, source) in &tree.sources {
        let lines = source.text.lines().count() - trailing_test_lines(source);
        if lines > FILE_LINES_MAX && !first_paragraph(source).contains(LONG_FILE_WORDS) {
            let what = format!("{lines} lines without tests; at most {FILE_LINES_MAX}");
            breaches.push(Breach::new(path, FILE_LINES_MAX + 1, "file_length", what));
        }
    }
    breaches
}

/// The lines of the `#[cfg(test)] mod … {…}` that ends the file; zero without one.
fn trailing_test_lines(source: &Source) -> usize {
    let Some(last) = source.test_items.iter().find(|item| item.end >= source.code.len()) else { return 0 };
    let is_module = last.clone().any(|index| source.is(index, "mod") && source.is(index + 2, "{"));
    if is_module { source.line(last.end - 1) + 1 - source.line(last.start) } else { 0 }
}

fn first_paragraph(source: &Source) -> String {
    let docs = source.comments.iter().filter(|comment| comment.kind == Kind::InnerDoc);
    let lines = docs.flat_map(|doc| doc.text.lines()).map(|line| line.trim_start_matches("//!").trim());
    lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A function is short.
pub(crate) fn function_length(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, source) in &tree.sources {
        for function in source.functions() {
            let lines = function.last_line + 1 - function.line;
            if lines > FUNCTION_LINES_MAX {
                let what = format!("`{}` has {lines} lines; at most {FUNCTION_LINES_MAX}", function.name);
                breaches.push(Breach::new(path, function.line, "function_length", what));
            }
        }
    }
    breaches
}

/// A line is short, in manifests too.
pub(crate) fn line_length(tree: &Tree) -> Vec<Breach> {
    let sources = tree.sources.iter().map(|(path, source)| (path, source.text.as_str()));
    let manifests = tree.manifests.iter().map(|(path, text)| (path, text.as_str()));
    let mut breaches = Vec::new();
    for (path, text) in sources.chain(manifests) {
        for (index, line) in text.lines().enumerate() {
            let chars = line.chars().count();
            if chars > LINE_CHARS_MAX {
                let what = format!("{chars} characters; at most {LINE_CHARS_MAX}");
                breaches.push(Breach::new(path, index + 1, "line_length", what));
            }
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::tree::{check, check_clean};
    use super::{file_length, function_length, line_length, opening};

    #[test]
    fn opening_reports_a_file_without_docs() {
        check(
            opening,
            &[
                ("src/a.rs", "use std::fmt;\n//! Late.\n"),
                ("src/b.rs", "// A licence.\n//! Doc.\n"),
                ("src/c.rs", ""),
                ("src/d.rs", "/// Of an item.\nfn d() {}\n"),
            ],
            &expect![[r#"
                src/a.rs:1: opening: the file does not open with `//!`
                src/b.rs:1: opening: the file does not open with `//!`
                src/c.rs:1: opening: the file does not open with `//!`
                src/d.rs:1: opening: the file does not open with `//!`
            "#]],
        );
    }

    #[test]
    fn opening_passes_docs_after_shebang_and_attributes() {
        let first = "#!/usr/bin/env run\n#![no_std]\n#![expect(x, reason = \"y\")]\n//! Doc.\nfn a() {}\n";
        check_clean(opening, &[("src/a.rs", first), ("src/b.rs", "//! Doc.\n")]);
    }

    fn file_of(doc: &str, lines: usize, end: &str) -> String {
        format!("//! {doc}\n{}{end}", "const A: u8 = 1;\n".repeat(lines - 1))
    }

    #[test]
    fn file_length_reports_one_line_too_many() {
        check(
            file_length,
            &[
                ("src/a.rs", &file_of("Doc.\n//!\n//! Not a table.", 599, "")),
                ("src/b.rs", &file_of("Doc.", 600, "#[cfg(test)]\nmod tests {\n}\nconst B: u8 = 1;\n")),
            ],
            &expect![[r#"
                src/a.rs:601: file_length: 601 lines without tests; at most 600
                src/b.rs:601: file_length: 604 lines without tests; at most 600
            "#]],
        );
    }

    #[test]
    fn file_length_passes_tests_and_tables() {
        let tested =
            file_of("Doc.", 600, &format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "// x\n".repeat(900)));
        let table = file_of("The registers,\n//! a table of the standard.", 700, "");
        check_clean(file_length, &[("src/a.rs", &tested), ("src/b.rs", &table)]);
    }

    fn function_of(lines: usize) -> String {
        format!(
            "//! Doc.\n\npub fn long()\nwhere\n    u8: Copy,\n{{\n{}}}\n",
            "    g(\"}\");\n".repeat(lines - 5)
        )
    }

    #[test]
    fn function_length_reports_one_line_too_many() {
        check(
            function_length,
            &[("src/a.rs", &function_of(71))],
            &expect![[r#"
                src/a.rs:3: function_length: `long` has 71 lines; at most 70
            "#]],
        );
    }

    #[test]
    fn function_length_passes_the_limit() {
        check_clean(function_length, &[("src/a.rs", &function_of(70))]);
    }

    #[test]
    fn line_length_reports_one_character_too_many() {
        let long = format!("//! Doc.\n// {}\n", "é".repeat(118));
        check(
            line_length,
            &[("src/a.rs", &long), ("queue/Cargo.toml", &format!("# {}\n", "x".repeat(119)))],
            &expect![[r#"
                src/a.rs:2: line_length: 121 characters; at most 120
                queue/Cargo.toml:1: line_length: 121 characters; at most 120
            "#]],
        );
    }

    #[test]
    fn line_length_counts_characters_not_bytes() {
        check_clean(line_length, &[("src/a.rs", &format!("// {}\n", "é".repeat(117)))]);
    }
}
