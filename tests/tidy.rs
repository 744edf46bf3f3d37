//! Checks the rules that no compiler checks, over every Rust file and manifest of the workspace.
//!
//! A rule is a function from a `Tree` to its breaches; it lives under `tidy/` with tests that plant breaches. The lists
//! a contributor edits are constants there: `UNSAFE_FILES` (unsafety), `LAYOUT` (manifest), `PURE_MODULES` (purity).

mod tidy {
    pub(crate) mod habits;
    pub(crate) mod manifest;
    pub(crate) mod purity;
    pub(crate) mod shape;
    pub(crate) mod source;
    pub(crate) mod token;
    pub(crate) mod tree;
    pub(crate) mod unsafety;
}

use std::path::Path;

use tidy::tree::{Breach, Rule, Tree};
use tidy::{habits, manifest, purity, shape, unsafety};

/// All rules: shape, words, `unsafe`, features and lints, crates.
const RULES: &[Rule] = &[
    shape::opening,
    shape::file_length,
    shape::function_length,
    shape::line_length,
    habits::names,
    habits::dead_code,
    habits::unwraps,
    habits::printing,
    unsafety::unsafe_files,
    unsafety::safety,
    habits::features,
    habits::silences,
    manifest::directions,
    manifest::versions,
    purity::purity,
];

#[test]
fn workspace_keeps_the_rules() {
    let tree = Tree::load(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("the workspace can be read");
    assert!(tree.sources.contains_key("tests/tidy.rs"), "the walk did not even find this file");
    assert!(tree.manifests.contains_key("Cargo.toml"), "the walk did not find the root manifest");
    let mut breaches: Vec<Breach> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    breaches.sort();
    let list: Vec<String> = breaches.iter().map(|breach| format!("{breach}\n")).collect();
    assert!(list.is_empty(), "{} breaches of the rules:\n{}", list.len(), list.concat());
}
