//! Kills at random moments, of children that are executed or forked, and guards that leave no process behind.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tarragon_faults::{Fault, Nursery, Role, Words, playing, random_kill};

fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// A forked child is reaped by its parent, soon after it is dead.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|text| !text.contains(") Z ") && !text.contains(") X "))
}

fn role(test: &str, words: &Words) -> Role {
    Role::new(test).with_argument(words.path().to_str().expect("the path is ASCII"))
}

fn open(path: &str) -> Words {
    Words::open(Path::new(path)).expect("the test has the words")
}

#[test]
fn executed_children_work_until_they_are_killed() {
    const TEST: &str = "executed_children_work_until_they_are_killed";
    if let Some(part) = playing(TEST) {
        let words = open(part.argument());
        words.word(0).fetch_add(1, SeqCst);
        part.ready();
        loop {
            words.word(1).fetch_add(1, SeqCst);
        }
    }
    let words = Words::create().unwrap();
    let mut done = 0;
    for round in 1..=10 {
        let pid = random_kill(&role(TEST, &words), Duration::from_micros(round * 150)).unwrap();
        assert!(!is_there(pid));
        assert_eq!(words.word(0).load(SeqCst), round, "ready comes after the first word");
        done += words.word(1).swap(0, SeqCst);
    }
    assert!(done > 0, "they work between ready and death");
}

#[test]
fn forked_children_work_until_they_are_killed() {
    const TEST: &str = "forked_children_work_until_they_are_killed";
    if let Some(part) = playing(TEST) {
        let prepare = |path: &str| {
            let words = open(path);
            words.word(0).fetch_add(1, SeqCst);
            words
        };
        part.serve(prepare, |words| {
            words.word(1).fetch_add(1, SeqCst);
        });
    }
    let words = Words::create().unwrap();
    let mut nursery = Nursery::start(&role(TEST, &words)).unwrap();
    let mut done = 0;
    for round in 1..=100 {
        let pid = nursery.kill_after(Duration::from_micros(round * 5)).unwrap();
        assert_eq!(words.word(0).load(SeqCst), round, "each prepares itself");
        assert!(!lives(pid));
        let now = words.word(1).load(SeqCst);
        std::thread::yield_now();
        assert_eq!(words.word(1).swap(0, SeqCst), now, "it is dead");
        done += now;
    }
    assert!(done > 0, "they work until they are killed");
}

#[test]
fn children_that_end_by_themselves_are_told() {
    const TEST: &str = "children_that_end_by_themselves_are_told";
    if let Some(part) = playing(TEST) {
        if part.argument() == "before" {
            return;
        }
        part.ready();
        std::process::exit(3);
    }
    let role = Role::new(TEST);
    let before = random_kill(&role.clone().with_argument("before"), Duration::ZERO);
    assert!(matches!(before, Err(Fault::NotPlayed { .. })), "{before:?}");
    let after = random_kill(&role, Duration::from_millis(500));
    assert!(matches!(&after, Err(Fault::Ended { what, .. }) if what.contains('3')), "{after:?}");
}

#[test]
fn no_child_outlives_its_guard() {
    const TEST: &str = "no_child_outlives_its_guard";
    if let Some(part) = playing(TEST) {
        part.ready();
        loop {
            std::thread::park();
        }
    }
    let mut pid = 0;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut child = Role::new(TEST).start().unwrap();
        child.wait_ready().unwrap();
        pid = child.pid();
        assert!(is_there(pid));
        std::panic::panic_any(());
    }));
    assert!(panicked.is_err() && pid != 0 && !is_there(pid));
}
