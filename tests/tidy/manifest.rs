//! Rules about manifests: which crate may depend on which, what crates are called, where versions live.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::tree::{Breach, Tree};

/// The layout: each crate's folder, and the folders of the workspace crates it may depend on. The root is `""`.
const LAYOUT: &[(&str, &[&str])] = &[
    ("faults", &[]),
    ("testbed", &[]),
    ("transport", &["faults", "testbed"]),
    ("queue", &["transport", "faults", "testbed"]),
    ("ddict", &["transport", "faults", "testbed"]),
    ("supervisor", &[]),
    ("engine", &["supervisor", "transport", "faults", "testbed"]),
    ("ptd", &["engine", "transport"]),
    ("", &["ptd", "engine", "supervisor", "ddict", "queue", "transport", "faults", "testbed"]),
    ("benches", &["", "ptd", "engine", "supervisor", "ddict", "queue", "transport", "faults", "testbed"]),
];

/// Crates for tests alone: no library may depend on them but as a dev-dependency.
const FOR_TESTS: &[&str] = &["faults", "testbed"];

/// Crates that take long to build and are only compared with: benches alone depend on them.
const PEERS: &[&str] = &["iceoryx2", "lmdb-master-sys"];

/// The tables of a manifest that name dependencies.
const DEPENDENCY_TABLES: &[&str] = &["dependencies", "dev-dependencies", "build-dependencies"];

/// One dependency of one crate.
struct Dependency<'a> {
    name: &'a str,
    line: usize,
    is_for_tests: bool,
    value: &'a DeValue<'a>,
}

impl<'a> Dependency<'a> {
    /// The crate it means, whatever it is called here.
    fn package(&self) -> &'a str {
        self.text_at("package").unwrap_or(self.name)
    }

    fn text_at(&self, key: &str) -> Option<&'a str> {
        self.value.get(key)?.get_ref().as_str()
    }
}

/// A crate is in the layout, bears its folder's name, and depends downwards only.
pub(crate) fn directions(tree: &Tree) -> Vec<Breach> {
    let folders = workspace_folders(tree);
    let mut breaches = Vec::new();
    for (path, text) in &tree.manifests {
        let folder = path.trim_end_matches("Cargo.toml").trim_end_matches('/');
        let Some((_, allowed)) = LAYOUT.iter().find(|(known, _)| *known == folder) else {
            breaches.push(Breach::new(path, 1, "directions", format!("the layout has no crate `{folder}`")));
            continue;
        };
        let manifest = match DeTable::parse(text) {
            Ok(manifest) => manifest.into_inner(),
            Err(error) => {
                breaches.push(Breach::new(path, 1, "directions", error.message()));
                continue;
            }
        };
        breaches.extend(misnamed(path, text, folder, &manifest));
        for dependency in dependencies(text, &manifest) {
            if folder != "benches" && PEERS.contains(&dependency.package()) {
                let what = format!("{} may not depend on {}", spoken(folder), dependency.package());
                breaches.push(Breach::new(path, dependency.line, "directions", what));
            }
            let Some(target) = target_folder(&dependency, &folders) else { continue };
            let what = if !allowed.contains(&target.as_str()) {
                format!("{} may not depend on {}", spoken(folder), spoken(&target))
            } else if FOR_TESTS.contains(&target.as_str()) && !dependency.is_for_tests {
                format!("{} may depend on {} in its tests only", spoken(folder), spoken(&target))
            } else {
                continue;
            };
            breaches.push(Breach::new(path, dependency.line, "directions", what));
        }
    }
    breaches
}

/// A dependency takes its version from the workspace.
pub(crate) fn versions(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, text) in &tree.manifests {
        // A manifest that does not parse is reported by `directions`.
        let Ok(manifest) = DeTable::parse(text) else { continue };
        for dependency in dependencies(text, manifest.get_ref()) {
            if dependency.value.get("workspace").and_then(|it| it.get_ref().as_bool()) != Some(true) {
                let what = format!(
                    "`{}` is not `workspace = true`; versions live in the root table",
                    dependency.name
                );
                breaches.push(Breach::new(path, dependency.line, "versions", what));
            }
        }
    }
    breaches
}

fn misnamed(path: &str, text: &str, folder: &str, manifest: &DeTable<'_>) -> Option<Breach> {
    let wanted = if folder.is_empty() { "tarragon".to_owned() } else { format!("tarragon-{folder}") };
    let package = manifest.get("package")?.get_ref().as_table()?;
    let Some(name) = package.get("name") else {
        return Some(Breach::new(path, 1, "directions", format!("the crate has no name; it is `{wanted}`")));
    };
    let line = line_of(text, name.span().start);
    let is_wanted = name.get_ref().as_str() == Some(&wanted);
    (!is_wanted).then(|| Breach::new(path, line, "directions", format!("the crate's name is not `{wanted}`")))
}

/// All dependencies in a manifest: of the crate, of its tests and build script, for any target.
fn dependencies<'a>(text: &str, manifest: &'a DeTable<'a>) -> Vec<Dependency<'a>> {
    let targets = manifest.get("target").and_then(|it| it.get_ref().as_table());
    let per_target = targets.into_iter().flat_map(|it| it.values()).filter_map(|it| it.get_ref().as_table());
    let mut found = Vec::new();
    for owner in std::iter::once(manifest).chain(per_target) {
        for table in DEPENDENCY_TABLES {
            let Some(entries) = owner.get(*table).and_then(|it| it.get_ref().as_table()) else { continue };
            let is_for_tests = *table == "dev-dependencies";
            found.extend(entries.iter().map(|(name, value)| {
                let line = line_of(text, name.span().start);
                Dependency { name: name.get_ref(), line, is_for_tests, value: value.get_ref() }
            }));
        }
    }
    found
}

/// The folder of each workspace dependency that is a crate of this workspace, by the key it is used under.
fn workspace_folders(tree: &Tree) -> BTreeMap<String, String> {
    let Some(root) = tree.manifests.get("Cargo.toml").and_then(|text| DeTable::parse(text).ok()) else {
        return BTreeMap::new();
    };
    let workspace = root.get_ref().get("workspace").and_then(|it| it.get_ref().get("dependencies"));
    let entries = workspace.and_then(|it| it.get_ref().as_table()).into_iter().flat_map(|table| table.iter());
    let folder =
        |value: &DeValue<'_>| value.get("path").and_then(|path| Some(folder_at(path.get_ref().as_str()?)));
    entries.filter_map(|(name, value)| Some((name.get_ref().to_string(), folder(value.get_ref())?))).collect()
}

/// The folder of the workspace crate that a dependency means, whatever it is called here; none for other crates.
fn target_folder(dependency: &Dependency<'_>, folders: &BTreeMap<String, String>) -> Option<String> {
    let package = dependency.package();
    let by_path = dependency.text_at("path").map(folder_at);
    let by_name = package.strip_prefix("tarragon-").map(str::to_owned);
    let is_root = package == "tarragon";
    by_path.or_else(|| folders.get(package).cloned()).or(by_name).or_else(|| is_root.then(String::new))
}

/// The folder that a path means, as the layout spells it: the root is `""`.
fn folder_at(path: &str) -> String {
    path.trim_start_matches("../").trim_end_matches(['/', '.']).to_owned()
}

fn spoken(folder: &str) -> &str {
    if folder.is_empty() { "the root" } else { folder }
}

fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::tree::{check, check_clean};
    use super::{directions, versions};

    const ROOT: &str = r#"
[workspace.dependencies]
store = { path = "ddict", package = "tarragon-ddict" }
tarragon = { path = "." }
tarragon-engine = { path = "engine", version = "0.1.0" }
serde = "1"

[package]
name = "tarragon"

[dependencies]
tarragon-engine.workspace = true
store.workspace = true

[dev-dependencies]
serde = { workspace = true, features = ["derive"] }
"#;

    const ENGINE: &str = r#"
[package]
name = "tarragon-engine"

[dependencies]
tarragon-transport.workspace = true

[target.'cfg(loom)'.dependencies]
serde.workspace = true
"#;

    const UPWARD: &str = r#"
[package]
name = "tarragon-queue"

[dependencies]
tarragon-transport.workspace = true

[dependencies.tarragon]
workspace = true

[dev-dependencies]
store.workspace = true

[target.'cfg(unix)'.dependencies]
near = { path = "../engine" }
"#;

    #[test]
    fn directions_report_each_way_up() {
        check(
            directions,
            &[("Cargo.toml", ROOT), ("queue/Cargo.toml", UPWARD)],
            &expect![[r#"
                queue/Cargo.toml:7: directions: queue may not depend on the root
                queue/Cargo.toml:11: directions: queue may not depend on ddict
                queue/Cargo.toml:14: directions: queue may not depend on engine
            "#]],
        );
    }

    #[test]
    fn directions_report_names_and_places_outside_the_layout() {
        check(
            directions,
            &[
                ("ddict/Cargo.toml", "[package]\nname = \"dict\"\n"),
                ("engine/Cargo.toml", "[package\n"),
                ("extra/Cargo.toml", "[package]\nname = \"tarragon-extra\"\n"),
            ],
            &expect![[r#"
                ddict/Cargo.toml:2: directions: the crate's name is not `tarragon-ddict`
                engine/Cargo.toml:1: directions: unclosed table, expected `]`
                extra/Cargo.toml:1: directions: the layout has no crate `extra`
            "#]],
        );
    }

    #[test]
    fn directions_report_crates_for_tests_in_libraries() {
        let transport = r#"
            [package]
            name = "tarragon-transport"

            [dependencies]
            tarragon-faults.workspace = true

            [dev-dependencies]
            tarragon-faults.workspace = true

            [target.'cfg(unix)'.build-dependencies]
            tarragon-faults.workspace = true
        "#;
        check(
            directions,
            &[("transport/Cargo.toml", transport)],
            &expect![[r#"
                transport/Cargo.toml:5: directions: transport may depend on faults in its tests only
                transport/Cargo.toml:11: directions: transport may depend on faults in its tests only
            "#]],
        );
    }

    #[test]
    fn directions_report_peers_outside_the_benches() {
        let peers = r#"
            [dev-dependencies]
            iceoryx2.workspace = true
            lmdb = { workspace = true, package = "lmdb-master-sys" }
        "#;
        check(
            directions,
            &[("Cargo.toml", peers), ("benches/Cargo.toml", peers), ("queue/Cargo.toml", peers)],
            &expect![[r#"
                Cargo.toml:2: directions: the root may not depend on iceoryx2
                Cargo.toml:3: directions: the root may not depend on lmdb-master-sys
                queue/Cargo.toml:2: directions: queue may not depend on iceoryx2
                queue/Cargo.toml:3: directions: queue may not depend on lmdb-master-sys
            "#]],
        );
    }

    #[test]
    fn directions_report_benches_as_a_dependency() {
        let root = r#"
            [dev-dependencies]
            tarragon-benches = { path = "benches/" }
        "#;
        check(
            directions,
            &[("Cargo.toml", root)],
            &expect![[r#"
                Cargo.toml:2: directions: the root may not depend on benches
            "#]],
        );
    }

    #[test]
    fn directions_pass_the_layout() {
        let benches = r#"
            [package]
            name = "tarragon-benches"

            [dev-dependencies]
            tarragon.workspace = true
            store.workspace = true
        "#;
        let files = [("Cargo.toml", ROOT), ("engine/Cargo.toml", ENGINE), ("benches/Cargo.toml", benches)];
        check_clean(directions, &files);
    }

    #[test]
    fn versions_report_what_the_root_table_does_not_hold() {
        let own = r#"
            [dependencies]
            serde = "1"

            [target.'cfg(unix)'.dev-dependencies]
            x = { path = "../x" }
        "#;
        check(
            versions,
            &[("ddict/Cargo.toml", own)],
            &expect![[r#"
                ddict/Cargo.toml:2: versions: `serde` is not `workspace = true`; versions live in the root table
                ddict/Cargo.toml:5: versions: `x` is not `workspace = true`; versions live in the root table
            "#]],
        );
    }

    #[test]
    fn versions_pass_the_workspace_table() {
        check_clean(versions, &[("Cargo.toml", ROOT), ("engine/Cargo.toml", ENGINE)]);
    }
}
