//! The rule that keeps parts of the engine pure: no IO, no threads, no clock, outside their tests.

use std::collections::BTreeSet;

use super::source::Source;
use super::tree::{Breach, Tree};

/// Modules that are pure: the file of this name and all files of the folder of this name.
const PURE_MODULES: &[&str] = &["engine/src/compile", "engine/src/graph", "engine/src/schedule"];
/// What of `std` they may not name.
const IMPURE_STD: &[&str] = &["thread", "time", "fs", "io", "net", "process", "env"];
/// Words they may not use.
const IMPURE_WORDS: &[&str] = &["Instant", "SystemTime", "rayon", "rayon_core", "parking_lot"];
/// Macros they may not call.
const IMPURE_MACROS: &[&str] = &["print", "println", "eprint", "eprintln"];

/// Pure modules name nothing impure.
pub(crate) fn purity(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, source) in tree.sources.iter().filter(|(path, _)| is_pure(path)) {
        for (line, what) in impurities(source) {
            breaches.push(Breach::new(path, line, "purity", format!("`{what}` in a pure module")));
        }
    }
    breaches
}

fn is_pure(path: &str) -> bool {
    let below =
        |module: &str| path.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'));
    PURE_MODULES.iter().any(|module| below(module))
}

/// The impure names in the part of `source` that is not for tests, by line.
fn impurities(source: &Source) -> BTreeSet<(usize, String)> {
    let mut found = Vec::new();
    for (index, path) in source.imports() {
        let module = IMPURE_STD.iter().map(|module| format!("std::{module}"));
        let named =
            module.into_iter().find(|module| path == *module || path.starts_with(&format!("{module}::")));
        found.extend(named.map(|module| (index, module)));
    }
    for module in IMPURE_STD {
        found
            .extend(source.places(&["std", ":", ":", module]).map(|index| (index, format!("std::{module}"))));
    }
    for word in IMPURE_WORDS {
        found.extend(source.places(&[word]).map(|index| (index, (*word).to_owned())));
    }
    for name in IMPURE_MACROS {
        found.extend(source.places(&[name, "!"]).map(|index| (index, format!("{name}!"))));
    }
    found.retain(|(index, _)| !source.is_test(*index));
    found.into_iter().map(|(index, what)| (source.line(index), what)).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::tree::{check, check_clean};
    use super::purity;

    #[test]
    fn purity_reports_each_impure_name() {
        let impure = r#"
            //! Doc.
            use std::{fmt, io::{self, Read}};
            use std::time::Duration;
            fn a() {
                rayon::join(b, c);
                println!("");
                ::std::thread::park();
            }
        "#;
        check(
            purity,
            &[
                ("engine/src/graph.rs", impure),
                ("engine/src/compile/hazard.rs", "//! Doc.\nfn a(at: Instant) {}\n"),
            ],
            &expect![[r#"
                engine/src/compile/hazard.rs:2: purity: `Instant` in a pure module
                engine/src/graph.rs:2: purity: `std::io` in a pure module
                engine/src/graph.rs:3: purity: `std::time` in a pure module
                engine/src/graph.rs:5: purity: `rayon` in a pure module
                engine/src/graph.rs:6: purity: `println!` in a pure module
                engine/src/graph.rs:7: purity: `std::thread` in a pure module
            "#]],
        );
    }

    #[test]
    fn purity_passes_tests_comments_and_other_modules() {
        let pure =
            "//! Reads no `std::time`.\nuse std::fmt;\n#[cfg(test)]\nmod tests {\n    use std::io;\n}\n";
        let parent = r#"
            //! Doc.
            #[cfg(test)]
            mod random;
        "#;
        check_clean(
            purity,
            &[
                ("engine/src/schedule/ready.rs", pure),
                ("engine/src/graphics.rs", "//! Doc.\nuse std::io;\n"),
                ("engine/src/compile/mod.rs", parent),
                ("engine/src/compile/random.rs", "//! Doc.\nuse std::io;\n"),
            ],
        );
    }
}
