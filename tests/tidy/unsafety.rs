//! Rules about `unsafe`: which files may hold it, that they opt in by name, and that each use says why it is sound.

use super::source::Source;
use super::token::Kind;
use super::tree::{Breach, Tree};

/// The files that may hold `unsafe`. Edit it together with the code; an entry whose file is not there yet is no breach.
const UNSAFE_FILES: &[&str] = &[
    "benches/beside/page.rs",
    "benches/channels/zeromq.rs",
    "benches/floor/mod.rs",
    "benches/measure/alloc.rs",
    "benches/stores/lmdb.rs",
    "ddict/src/store/layout.rs",
    "ddict/src/store/value.rs",
    "ddict/src/view.rs",
    "engine/src/body/function.rs",
    "engine/src/function/identity.rs",
    "engine/src/function/kept.rs",
    "engine/src/function/travel.rs",
    "engine/src/function/wire.rs",
    "engine/src/gather/inputs.rs",
    "engine/src/run/hoard.rs",
    "engine/src/run/worker.rs",
    "engine/src/shared.rs",
    "engine/src/task/builder.rs",
    "engine/src/task/bytes.rs",
    "engine/src/task/chunk.rs",
    "engine/src/task/command.rs",
    "engine/src/task/handle.rs",
    "engine/src/task/input.rs",
    "engine/src/task/record.rs",
    "faults/src/sys.rs",
    "faults/src/words.rs",
    "queue/src/bytes.rs",
    "queue/src/layout.rs",
    "supervisor/benches/floor.rs",
    "supervisor/src/boot.rs",
    "supervisor/src/serve/reap.rs",
    "supervisor/src/serve/setup.rs",
    "supervisor/src/serve/spawn.rs",
    "testbed/src/cable.rs",
    "transport/src/agent.rs",
    "transport/src/agent/local.rs",
    "transport/src/agent/record.rs",
    "transport/src/agent/seat.rs",
    "transport/src/bootstrap/lifeline.rs",
    "transport/src/bootstrap/pmi/beside.rs",
    "transport/src/bootstrap/pmi/socket.rs",
    "transport/src/bootstrap/pmix/result.rs",
    "transport/src/bootstrap/pmix/sys.rs",
    "transport/src/dynamic.rs",
    "transport/src/copy.rs",
    "transport/src/doorbell.rs",
    "transport/src/fabric/shm/layout.rs",
    "transport/src/fabric/shm/payload.rs",
    "transport/src/fabric/ucx/memory.rs",
    "transport/src/fabric/ucx/result.rs",
    "transport/src/fabric/ucx/sys.rs",
    "transport/src/fabric/ucx/worker.rs",
    "transport/src/heap/layout.rs",
    "transport/src/lock.rs",
    "transport/src/prefetch.rs",
    "transport/src/ring.rs",
    "transport/src/segment.rs",
    "transport/src/segment/plan.rs",
    "transport/src/segment/system.rs",
    "transport/src/signals/system.rs",
    "transport/src/world/library.rs",
    "transport/src/world/slice.rs",
    "transport/tests/beside_mpi.rs",
];

/// How far above an `unsafe` its `// SAFETY:` may be, in lines.
const SAFETY_LINES_MAX: usize = 8;

/// `unsafe` stands in listed files only, each listed file has some, and opts in with `#![expect(unsafe_code, …)]`.
pub(crate) fn unsafe_files(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, source) in &tree.sources {
        let mut breach =
            |line: usize, what: &str| breaches.push(Breach::new(path, line, "unsafe_files", what));
        let uses = source.places(&["unsafe"]).filter(|&index| !is_pointer_type(source, index));
        let uses: Vec<usize> = uses.map(|index| source.line(index)).collect();
        match (UNSAFE_FILES.contains(&path.as_str()), uses.first()) {
            (true, None) => breach(1, "listed as unsafe, but holds no `unsafe`"),
            (true, Some(_)) if !opts_in(tree, path, source) => {
                breach(1, "no `expect(unsafe_code, reason = …)` at the top or at `mod`");
            }
            (false, Some(_)) => uses.iter().for_each(|&line| breach(line, "not on the list of unsafe files")),
            _ => {}
        }
    }
    breaches
}

/// `unsafe fn(…)` is the type of a pointer; who calls it needs a block.
fn is_pointer_type(source: &Source, index: usize) -> bool {
    source.reads(index, &["unsafe", "fn", "("])
}

fn opts_in(tree: &Tree, path: &str, source: &Source) -> bool {
    let at_top = source.attributes.iter().any(|it| it.inner && expects_unsafe(source, it.body.clone()));
    at_top || tree.sources.iter().any(|(parent, text)| declares_unsafe(parent, text, path))
}

fn expects_unsafe(source: &Source, mut body: std::ops::Range<usize>) -> bool {
    source.reads(body.start, &["expect", "(", "unsafe_code"]) && body.any(|index| source.is(index, "reason"))
}

/// True when `parent` declares the module in `path` with an `expect(unsafe_code, …)` on it.
fn declares_unsafe(parent: &str, source: &Source, path: &str) -> bool {
    let folders = [folder_of(parent), parent.trim_end_matches(".rs")];
    source.child_modules().any(|(index, name)| {
        let is_it = folders.iter().any(|folder| {
            let base = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            path == format!("{base}.rs") || path == format!("{base}/mod.rs")
        });
        let head = source.head(index)..index;
        let mut attributes =
            source.attributes.iter().filter(|it| !it.inner && head.contains(&it.whole.start));
        is_it && attributes.any(|it| expects_unsafe(source, it.body.clone()))
    })
}

fn folder_of(path: &str) -> &str {
    path.rfind('/').map_or("", |slash| &path[..slash])
}

/// Each `unsafe` block and impl has its `// SAFETY:`, each `unsafe fn` and trait its `# Safety`.
pub(crate) fn safety(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, source) in &tree.sources {
        for index in source.places(&["unsafe"]) {
            let what = match unsafe_use(source, index) {
                Use::Does(what) if !has_safety_comment(source, index) => {
                    format!("no `// SAFETY:` within {SAFETY_LINES_MAX} lines above {what}")
                }
                Use::Demands(what) if !has_safety_section(source, index) => {
                    format!("no `# Safety` section in the docs of {what}")
                }
                _ => continue,
            };
            breaches.push(Breach::new(path, source.line(index), "safety", what));
        }
    }
    breaches
}

/// What an `unsafe` stands for.
enum Use {
    /// It promises that something is sound.
    Does(&'static str),
    /// It demands a promise of its users.
    Demands(String),
    /// It is part of a type, or implements a trait's method, whose docs are the trait's.
    Neither,
}

fn unsafe_use(source: &Source, index: usize) -> Use {
    let mut next = index + 1;
    if source.is(next, "extern") {
        next += 1 + usize::from(source.code.get(next + 1).is_some_and(|token| token.kind == Kind::Literal));
        if source.is(next, "{") {
            return Use::Does("an `unsafe extern` block");
        }
    }
    let name =
        source.code.get(next + 1).filter(|token| token.kind == Kind::Word).map(|token| token.text.as_str());
    match (source.code.get(next).map(|token| token.text.as_str()), name) {
        (Some("{"), _) => Use::Does("an `unsafe` block"),
        (Some("impl"), _) => Use::Does("an `unsafe impl`"),
        (Some("("), _) => Use::Does("an `unsafe` attribute"),
        (Some("trait"), Some(name)) => Use::Demands(format!("`unsafe trait {name}`")),
        (Some("fn"), Some(name)) if !source.trait_impls().iter().any(|body| body.contains(&index)) => {
            Use::Demands(format!("`unsafe fn {name}`"))
        }
        _ => Use::Neither,
    }
}

fn has_safety_comment(source: &Source, index: usize) -> bool {
    let line = source.line(index);
    let near = |at: usize| at <= line && at + SAFETY_LINES_MAX >= line;
    let mut plain = source.comments.iter().filter(|comment| comment.kind == Kind::Comment);
    plain.any(|comment| near(comment.line) && comment.text.contains("SAFETY:"))
}

fn has_safety_section(source: &Source, index: usize) -> bool {
    let mut docs = source.comments_above(index).filter(|comment| comment.kind == Kind::OuterDoc);
    docs.any(|doc| doc.text.contains("# Safety"))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::tree::{check, check_clean};
    use super::{safety, unsafe_files};

    const OPTED_IN: &str = r#"
        //! Doc.
        #![expect(unsafe_code, reason = "x")]
        fn a() { unsafe { b() } }
    "#;

    #[test]
    fn unsafe_files_report_what_is_not_listed_or_not_opted_in() {
        check(
            unsafe_files,
            &[
                ("engine/src/graph.rs", OPTED_IN),
                ("engine/src/run/hoard.rs", "//! Doc.\n// No unsafe here, \"unsafe\" neither.\n"),
                ("engine/src/task/chunk.rs", "//! Doc.\nfn a() {\n    unsafe { b() }\n}\n"),
                (
                    "engine/src/task/handle.rs",
                    "//! Doc.\n#![expect(unsafe_code)]\nfn a() { unsafe { b() } }\n",
                ),
            ],
            &expect![[r#"
                engine/src/graph.rs:3: unsafe_files: not on the list of unsafe files
                engine/src/run/hoard.rs:1: unsafe_files: listed as unsafe, but holds no `unsafe`
                engine/src/task/chunk.rs:1: unsafe_files: no `expect(unsafe_code, reason = …)` at the top or at `mod`
                engine/src/task/handle.rs:1: unsafe_files: no `expect(unsafe_code, reason = …)` at the top or at `mod`
            "#]],
        );
    }

    #[test]
    fn unsafe_files_pass_both_ways_to_opt_in() {
        let bare = "//! Doc.\nfn a() { unsafe { b() } }\n";
        let parent = r#"
            //! Doc.
            #[expect(unsafe_code, reason = "x")]
            pub(crate) mod record;
            mod safe;
        "#;
        check_clean(
            unsafe_files,
            &[
                ("engine/src/run/worker.rs", OPTED_IN),
                ("engine/src/task.rs", parent),
                ("engine/src/task/record.rs", bare),
                ("benches/measure/mod.rs", "//! Doc.\n#[expect(unsafe_code, reason = \"x\")]\nmod alloc;\n"),
                ("benches/measure/alloc.rs", bare),
            ],
        );
    }

    #[test]
    fn safety_reports_what_says_no_reason() {
        let silent = r#"
            //! Doc.
            // SAFETY: too far away.








            fn a() { unsafe { b() } }
            unsafe impl A for B {}
            /// Doc.
            #[inline]
            pub unsafe fn c() {}
            unsafe extern "C" { fn d(); }
            unsafe trait E {}
            #[unsafe(no_mangle)]
            extern "C" fn f() {}
        "#;
        check(
            safety,
            &[("src/a.rs", silent)],
            &expect![[r#"
                src/a.rs:11: safety: no `// SAFETY:` within 8 lines above an `unsafe` block
                src/a.rs:12: safety: no `// SAFETY:` within 8 lines above an `unsafe impl`
                src/a.rs:15: safety: no `# Safety` section in the docs of `unsafe fn c`
                src/a.rs:16: safety: no `// SAFETY:` within 8 lines above an `unsafe extern` block
                src/a.rs:17: safety: no `# Safety` section in the docs of `unsafe trait E`
                src/a.rs:18: safety: no `// SAFETY:` within 8 lines above an `unsafe` attribute
            "#]],
        );
    }

    #[test]
    fn safety_passes_reasons_types_and_trait_methods() {
        let sound = r#"
            //! Doc.
            struct A(unsafe fn(u8), unsafe extern "C" fn());
            /// Doc.
            ///
            /// # Safety
            ///
            /// Keep it.
            #[inline]
            pub(crate) const unsafe extern "C" fn c() {
                // SAFETY: kept.







                unsafe { d() }
            }
            // SAFETY: it keeps.
            unsafe impl GlobalAlloc for A {
                unsafe fn alloc(&self) {}
            }
        "#;
        check_clean(safety, &[("src/a.rs", sound)]);
    }
}
