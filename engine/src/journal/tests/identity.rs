//! Identities: equal for equal fields, in every run; different for anything else.

use super::super::{Identity, IdentityHasher};
use expect_test::expect;
use std::collections::HashSet;

fn of(build: impl FnOnce(&mut IdentityHasher)) -> Identity {
    let mut hasher = IdentityHasher::new("process");
    build(&mut hasher);
    hasher.finish()
}

#[test]
fn is_the_same_in_every_run_and_version() {
    let identity = of(|it| {
        it.text("name", b"solve").number("rows", 7);
    });
    expect!["fedf55d0dcc21b4442906fb21d8cb501"].assert_eq(&identity.to_string());
    expect!["9ecff7729b13669809d2ef66961501c5"].assert_eq(&identity.nth(1).to_string());
}

#[test]
fn every_difference_of_fields_counts() {
    let all = [
        of(|_| {}),
        IdentityHasher::new("function").finish(),
        of(|it| {
            it.text("a", b"bc");
        }),
        of(|it| {
            it.text("ab", b"c");
        }),
        of(|it| {
            it.text("a", b"b").text("a", b"c");
        }),
        of(|it| {
            it.text("a", b"c").text("a", b"b");
        }),
        of(|it| {
            it.text("a", b"");
        }),
        of(|it| {
            it.text("a", b"").text("a", b"");
        }),
        of(|it| {
            it.number("a", 0);
        }),
        of(|it| {
            it.text("a", &0_u64.to_le_bytes());
        }),
        of(|it| {
            it.number("a", 1);
        }),
        of(|it| {
            it.identity("a", Identity(1));
        }),
    ];
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len(), "{all:?}");
}

#[test]
fn tasks_of_equal_identity_are_numbered() {
    let first = of(|it| {
        it.text("name", b"twice");
    });
    assert_eq!(first.nth(0), first);
    let all: HashSet<Identity> = (0..100).map(|n| first.nth(n)).collect();
    assert_eq!(all.len(), 100);
    assert_ne!(first.nth(2), first.nth(1).nth(1), "the count is from the first, not from the one before");
}

#[test]
fn a_result_is_not_its_task_nor_one_of_its_elements() {
    let task = Identity(5);
    let all = [task, task.of_result(None), task.of_result(Some(0)), task.of_result(Some(1)), task.nth(1)];
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
}
