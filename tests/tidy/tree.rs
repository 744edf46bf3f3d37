//! The workspace in memory: every Rust file and every manifest by its path, and the breaches found in them.
//!
//! A tree comes from the disk or from a test that plants texts; rules cannot tell which.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use super::source::Source;

/// All files the rules look at. Paths are relative to the workspace, with `/` between their parts.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Rust files.
    pub(crate) sources: BTreeMap<String, Source>,
    /// Manifests, as text.
    pub(crate) manifests: BTreeMap<String, String>,
}

/// One place where a rule is broken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Breach {
    path: String,
    line: usize,
    rule: &'static str,
    what: String,
}

/// A rule: finds its breaches in a tree.
pub(crate) type Rule = fn(&Tree) -> Vec<Breach>;

/// What a file is for, by the folder it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Area {
    /// A library's or a binary's own code.
    Src,
    /// Integration tests.
    Tests,
    /// Benches.
    Benches,
    /// Examples.
    Examples,
    /// A build script.
    Build,
}

impl Breach {
    /// A breach of `rule` at `path:line`.
    pub(crate) fn new(path: &str, line: usize, rule: &'static str, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, what: what.into() }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.what)
    }
}

impl Tree {
    /// The workspace on disk at `root`, without `target` and hidden folders.
    pub(crate) fn load(root: &Path) -> io::Result<Self> {
        let mut texts = BTreeMap::new();
        collect(root, "", &mut texts)?;
        Ok(Self::new(texts))
    }

    /// A tree of these paths and texts.
    pub(crate) fn new(texts: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut tree = Self::default();
        for (path, text) in texts {
            if path.ends_with(".rs") {
                tree.sources.insert(path, Source::new(&text));
            } else {
                tree.manifests.insert(path, text);
            }
        }
        tree.mark_test_files();
        tree
    }

    /// A file declared by `#[cfg(test)] mod name;` is compiled for tests alone, and so is all below it.
    fn mark_test_files(&mut self) {
        let mut modules = Vec::new();
        for (path, source) in &self.sources {
            let tests = source.child_modules().filter(|&(index, _)| source.is_test(index));
            modules.extend(tests.map(|(_, name)| format!("{}{name}", child_folder(path))));
        }
        for module in modules {
            for (path, source) in &mut self.sources {
                source.test_only |=
                    *path == format!("{module}.rs") || path.starts_with(&format!("{module}/"));
            }
        }
    }
}

/// The folder, with its `/`, in which the modules that `path` declares live.
fn child_folder(path: &str) -> String {
    let (folder, name) = path.rfind('/').map_or(("", path), |slash| path.split_at(slash + 1));
    match name {
        "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
        _ => format!("{}/", path.trim_end_matches(".rs")),
    }
}

/// What the file at `path` is for.
pub(crate) fn area(path: &str) -> Area {
    let known = path.split('/').find_map(|part| match part {
        // A crate for tests alone.
        "tests" | "testbed" => Some(Area::Tests),
        "src" => Some(Area::Src),
        "benches" => Some(Area::Benches),
        "examples" => Some(Area::Examples),
        "build.rs" => Some(Area::Build),
        _ => None,
    });
    known.unwrap_or(Area::Src)
}

fn collect(folder: &Path, prefix: &str, texts: &mut BTreeMap<String, String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&entry.path(), &format!("{path}/"), texts)?;
            }
        } else if name.ends_with(".rs") || name == "Cargo.toml" {
            texts.insert(path, fs::read_to_string(entry.path())?);
        }
    }
    Ok(())
}

/// `text` as it would stand in a file: where it starts with a line break, that break and the indent it is written
/// with go.
pub(crate) fn unindented(text: &str) -> String {
    let Some(block) = text.strip_prefix('\n') else { return text.to_owned() };
    let indent = |line: &str| line.len() - line.trim_start().len();
    let depth = block.lines().filter(|line| !line.trim().is_empty()).map(indent).min().unwrap_or(0);
    block.trim_end_matches(' ').lines().map(|line| format!("{}\n", line.get(depth..).unwrap_or(""))).collect()
}

/// Asserts that `rule` finds `expected`, one breach a line, in a tree of these paths and texts.
pub(crate) fn check(rule: Rule, files: &[(&str, &str)], expected: &expect_test::Expect) {
    let tree = Tree::new(files.iter().map(|&(path, text)| (path.to_owned(), unindented(text))));
    let found: Vec<String> = rule(&tree).iter().map(|breach| format!("{breach}\n")).collect();
    expected.assert_eq(&found.concat());
}

/// Asserts that `rule` finds nothing in a tree of these paths and texts.
pub(crate) fn check_clean(rule: Rule, files: &[(&str, &str)]) {
    check(rule, files, &expect_test::expect![""]);
}
