//! Rules about what code may say where: features, `unwrap`, dead code in comments, silenced lints, names, printing.

use super::source::{Attribute, Source};
use super::token::Kind;
use super::tree::{Area, Breach, Tree, area};

/// Names that answer no question.
const EMPTY_NAMES: &[&str] = &["utils", "common", "helpers", "manager", "misc", "core", "impl2"];
/// Macros that print.
const PRINT_MACROS: &[&str] = &["print", "println", "eprint", "eprintln"];
/// Words that start a statement or an item, as its first word.
const CODE_WORDS: &[&str] =
    &["let", "use", "pub", "fn", "return", "mod", "const", "static", "impl", "struct", "enum"];
/// Words that start a statement with a block.
const BLOCK_WORDS: &[&str] = &["if", "for", "while", "match", "loop", "else", "unsafe", "async"];

/// `cfg(feature)` is read in files called mod.rs, and in build scripts.
pub(crate) fn features(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, source) in
        tree.sources.iter().filter(|(path, _)| !["mod.rs", "build.rs"].contains(&file_name(path)))
    {
        let names = ["cfg", "cfg_attr", "cfg_select"]
            .iter()
            .flat_map(|name| source.places(std::slice::from_ref(name)));
        let reads_feature = |index: usize| {
            let open = index + 1 + usize::from(source.is(index + 1, "!"));
            let opens = source.is(open, "(") || source.is(open, "{");
            opens && (open..source.closing(open)).any(|at| source.reads(at, &["feature", "="]))
        };
        for index in names.filter(|&index| reads_feature(index)) {
            let what = "`cfg(feature)` outside a mod.rs";
            breaches.push(Breach::new(path, source.line(index), "features", what));
        }
    }
    breaches
}

/// No `.unwrap()` outside tests.
pub(crate) fn unwraps(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, source) in tree.sources.iter().filter(|(path, _)| area(path) != Area::Tests) {
        for index in source.places(&[".", "unwrap", "("]).filter(|&index| !source.is_test(index)) {
            let what = "`.unwrap()` outside tests; `expect` states the invariant";
            breaches.push(Breach::new(path, source.line(index), "unwraps", what));
        }
    }
    breaches
}

/// No code kept as a comment.
pub(crate) fn dead_code(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, source) in &tree.sources {
        for comment in source.comments.iter().filter(|comment| comment.kind == Kind::Comment) {
            for (step, line) in comment.text.lines().enumerate() {
                let text = line.trim().trim_start_matches(['/', '*']).trim_end_matches("*/").trim();
                if looks_like_code(text) {
                    let what = format!("code kept as a comment: `{text}`");
                    breaches.push(Breach::new(path, comment.line + step, "dead_code", what));
                }
            }
        }
    }
    breaches
}

/// Code ends like code, and starts, calls or assigns like code. Prose that quotes code does so in backticks.
fn looks_like_code(text: &str) -> bool {
    if !text.ends_with([';', '{', '}']) || text.contains('`') {
        return false;
    }
    let body = text.trim_end_matches([';', '{', '}', ',']).trim();
    if body.trim_matches([')', ']', '}', ' ']).is_empty() {
        return true;
    }
    let first = body.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
    let is_statement = CODE_WORDS.contains(&first) && text.ends_with([';', '{']);
    let is_block = (BLOCK_WORDS.contains(&first) || body.starts_with('}')) && text.ends_with('{');
    is_statement || is_block || body.starts_with("#[") || is_call(body) || is_assignment(body)
}

/// `place.call(…)`, `path::call(…)?`, `call!(…)`: no blank before the parenthesis, nothing after its end.
fn is_call(body: &str) -> bool {
    let Some((callee, _)) = body.split_once('(') else { return false };
    let callee_end = callee.trim_end_matches('!');
    let named = callee_end.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '>');
    named && !callee.contains(' ') && body.trim_end_matches('?').ends_with(')')
}

/// `place = value` and its kin, with one place on the left.
fn is_assignment(body: &str) -> bool {
    let signs = [" = ", " += ", " -= ", " *= ", " |= ", " &= ", " => "];
    let place = signs.iter().find_map(|sign| body.split_once(sign)).map(|(place, _)| place);
    place.is_some_and(|place| !place.contains(' '))
}

/// Lints are expected with a reason, never allowed; tests are never ignored.
pub(crate) fn silences(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, source) in &tree.sources {
        for attribute in &source.attributes {
            if let Some(what) = silence(source, attribute) {
                breaches.push(Breach::new(path, attribute.line, "silences", what));
            }
        }
    }
    breaches
}

fn silence(source: &Source, attribute: &Attribute) -> Option<&'static str> {
    let calls = |name: &str| attribute.body.clone().find(|&at| source.reads(at, &[name, "("]));
    let conditional = source.is(attribute.body.start, "cfg_attr");
    let ignores = |at: usize| source.is(at, "ignore");
    if calls("allow").is_some() {
        return Some("`allow` hides a lint; `expect` it with a reason");
    }
    if ignores(attribute.body.start) || (conditional && attribute.body.clone().any(ignores)) {
        return Some("an ignored test; skip by name at run time instead");
    }
    let expects = calls("expect")?;
    let reasoned = (expects..source.closing(expects + 1)).any(|at| source.reads(at, &["reason", "="]));
    (!reasoned).then_some("`expect` without a reason")
}

/// No file, folder or module bears a name that answers no question.
pub(crate) fn names(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, source) in &tree.sources {
        let mut parts = path.trim_end_matches(".rs").split('/');
        if let Some(part) = parts.find(|part| EMPTY_NAMES.contains(part)) {
            breaches.push(Breach::new(
                path,
                1,
                "names",
                format!("`{part}` says nothing; name the question it answers"),
            ));
        }
        for index in source.places(&["mod"]) {
            if let Some(name) = EMPTY_NAMES.iter().find(|name| source.is(index + 1, name)) {
                let what = format!("module `{name}` says nothing; name the question it answers");
                breaches.push(Breach::new(path, source.line(index), "names", what));
            }
        }
    }
    breaches
}

/// Only the umbrella's binary, examples, benches and tests print; a build script prints to cargo.
pub(crate) fn printing(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let libraries =
        tree.sources.iter().filter(|(path, _)| area(path) == Area::Src && !path.starts_with("src/"));
    for (path, source) in libraries {
        for name in PRINT_MACROS {
            for index in source.places(&[name, "!"]) {
                let what = format!("`{name}!` in a library");
                breaches.push(Breach::new(path, source.line(index), "printing", what));
            }
        }
    }
    breaches
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::tree::{check, check_clean};
    use super::{dead_code, features, names, printing, silences, unwraps};

    #[test]
    fn features_report_cfg_outside_mod_files() {
        let text = r#"
            //! Doc.
            #[cfg(all(unix, feature = "gpu"))]
            mod a;
            fn b() {
                cfg!(feature = "gpu");
            }
        "#;
        check(
            features,
            &[("engine/src/gpu.rs", text)],
            &expect![[r#"
                engine/src/gpu.rs:2: features: `cfg(feature)` outside a mod.rs
                engine/src/gpu.rs:5: features: `cfg(feature)` outside a mod.rs
            "#]],
        );
    }

    #[test]
    fn features_pass_mod_files_and_other_cfgs() {
        let text = r#"
            //! Doc.
            #[cfg(feature = "gpu")]
            mod enabled;
        "#;
        let other =
            "//! Not `cfg(feature = \"gpu\")`.\n#[cfg(unix)]\nfn a() { let feature = \"cfg(feature)\"; }\n";
        check_clean(
            features,
            &[("engine/src/gpu/mod.rs", text), ("engine/src/a.rs", other), ("build.rs", text)],
        );
    }

    #[test]
    fn unwraps_are_reported_outside_tests() {
        let text = r#"
            //! Doc.
            fn a() {
                b()
                    .unwrap();
            }
        "#;
        check(
            unwraps,
            &[("engine/src/a.rs", text), ("examples/a.rs", text)],
            &expect![[r#"
                engine/src/a.rs:4: unwraps: `.unwrap()` outside tests; `expect` states the invariant
                examples/a.rs:4: unwraps: `.unwrap()` outside tests; `expect` states the invariant
            "#]],
        );
    }

    #[test]
    fn unwraps_pass_in_tests_docs_and_texts() {
        let text = r#"
            //! Never `a.unwrap()`.
            fn a() { b(".unwrap()").unwrap_or(1); }
            #[cfg(test)]
            mod tests { fn c() { d().unwrap(); } }
        "#;
        check_clean(unwraps, &[("src/a.rs", text), ("tests/a.rs", "//! Doc.\nfn a() { b().unwrap(); }\n")]);
    }

    #[test]
    fn dead_code_is_reported() {
        let text = r#"
            //! Doc.
            // let x = 1;
            // ring.push(&a, b)?;
            fn a() {} // }
            /* if x < 1 {
               count += 1;
             */
            // } else {
            // println!("");
            // Some(x) => y;
        "#;
        check(
            dead_code,
            &[("src/a.rs", text)],
            &expect![[r#"
                src/a.rs:2: dead_code: code kept as a comment: `let x = 1;`
                src/a.rs:3: dead_code: code kept as a comment: `ring.push(&a, b)?;`
                src/a.rs:4: dead_code: code kept as a comment: `}`
                src/a.rs:5: dead_code: code kept as a comment: `if x < 1 {`
                src/a.rs:6: dead_code: code kept as a comment: `count += 1;`
                src/a.rs:8: dead_code: code kept as a comment: `} else {`
                src/a.rs:9: dead_code: code kept as a comment: `println!("");`
                src/a.rs:10: dead_code: code kept as a comment: `Some(x) => y;`
            "#]],
        );
    }

    #[test]
    fn dead_code_passes_prose() {
        let text = r#"
            //! let x = 1;
            /// let x = 1;
            // The reader has the slot (it took it);
            // if the ring is full, wait;
            // This store pairs with `wake();`
            // one of {empty, full}
            // for both, x = y holds;
            let a = "// b();";
            // State (in order);
            // ----
        "#;
        check_clean(dead_code, &[("src/a.rs", text)]);
    }

    #[test]
    fn silences_are_reported() {
        let text = r#"
            //! Doc.
            #![allow(dead_code)]
            #[cfg_attr(unix, allow(x))]
            #[expect(clippy::y)]
            #[test]
            #[ignore = "slow"]
            fn a() {}
            #[cfg_attr(unix, ignore)]
            fn b() {}
        "#;
        check(
            silences,
            &[("tests/a.rs", text)],
            &expect![[r#"
                tests/a.rs:2: silences: `allow` hides a lint; `expect` it with a reason
                tests/a.rs:3: silences: `allow` hides a lint; `expect` it with a reason
                tests/a.rs:4: silences: `expect` without a reason
                tests/a.rs:6: silences: an ignored test; skip by name at run time instead
                tests/a.rs:8: silences: an ignored test; skip by name at run time instead
            "#]],
        );
    }

    #[test]
    fn silences_pass_expectations_with_a_reason() {
        let text = r##"
            //! No `#[allow(x)]`.
            #![expect(clippy::y, reason = "it is so")]
            #[should_panic(expected = "z")]
            fn a() { "#[ignore]"; }
        "##;
        check_clean(silences, &[("src/a.rs", text)]);
    }

    #[test]
    fn names_report_files_folders_and_modules() {
        check(
            names,
            &[
                ("engine/src/common/ring.rs", "//! Doc.\n"),
                ("src/utils.rs", "//! Doc.\n"),
                ("src/lib.rs", "//! Doc.\npub(crate) mod helpers {}\n"),
            ],
            &expect![[r#"
                engine/src/common/ring.rs:1: names: `common` says nothing; name the question it answers
                src/lib.rs:2: names: module `helpers` says nothing; name the question it answers
                src/utils.rs:1: names: `utils` says nothing; name the question it answers
            "#]],
        );
    }

    #[test]
    fn names_pass_words_that_merely_contain_one() {
        check_clean(names, &[("engine/src/core_count.rs", "//! Doc.\nuse core::fmt;\nmod managers {}\n")]);
    }

    #[test]
    fn printing_is_reported_in_libraries() {
        let text = r#"
            //! Doc.
            fn a() {
                println!("a");
                eprint!("b");
            }
        "#;
        check(
            printing,
            &[("ddict/src/a.rs", text)],
            &expect![[r#"
                ddict/src/a.rs:3: printing: `println!` in a library
                ddict/src/a.rs:4: printing: `eprint!` in a library
            "#]],
        );
    }

    #[test]
    fn printing_passes_where_users_read() {
        let text = "//! Doc.\nfn a() { println!(\"a\"); }\n";
        let places = ["src/main.rs", "examples/a.rs", "benches/a.rs", "engine/tests/a.rs", "engine/build.rs"];
        check_clean(printing, &places.map(|path| (path, text)));
        check_clean(
            printing,
            &[("engine/src/a.rs", "//! println!(\"a\");\nfn a() { writeln!(f, \"println!()\"); }\n")],
        );
    }
}
