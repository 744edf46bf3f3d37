//! Lists with mistakes in them: what is listed, what it takes, what it declares.

use crate::{batch, message, named, next};
use expect_test::expect;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tarragon_engine::tasks;

#[test]
fn a_handle_of_a_later_task() {
    let batch = batch();
    let late = named(&batch, "late");
    let early = batch.function(next, (late.result(),)).name("early");
    message(
        batch.compile(tasks![early, late]),
        &expect![[r#"
        the task list has 1 mistake
          task #0 `early` takes the result of task #1 `late`, which comes later in the list: move the
            producer before it
    "#]],
    );
    batch.compile(tasks![late, early]).expect("the other way round").run().expect("runs");
}

#[test]
fn a_handle_of_a_task_in_no_list() {
    let batch = batch();
    let missing = named(&batch, "missing");
    let task = batch.function(next, (missing.result(),)).name("task");
    message(
        batch.compile(&task),
        &expect![[r#"
        the task list has 1 mistake
          task #0 `task` takes the result of `missing`, which is neither in the list nor started: add it to
            the list before this task
    "#]],
    );
    message(
        task.start(),
        &expect![[r#"
        the task list has 1 mistake
          task #0 `task` takes the result of `missing`, which is neither in the list nor started: add it to
            the list before this task
    "#]],
    );
    drop(missing);
    message(
        batch.compile(&task),
        &expect![[r#"
        the task list has 1 mistake
          task #0 `task` takes the result of `missing`, which is neither in the list nor started: add it to
            the list before this task
    "#]],
    );
}

#[test]
fn a_handle_of_a_task_that_is_compiled_but_not_started() {
    let batch = batch();
    let a = named(&batch, "a");
    let compiled = batch.compile(&a).expect("compiles");
    let b = batch.function(next, (a.result(),)).name("b");
    message(
        batch.compile(&b),
        &expect![[r#"
        the task list has 1 mistake
          task #0 `b` takes the result of `a`, which is neither in the list nor started: add it to the list
            before this task
    "#]],
    );
    batch.compile(tasks![compiled, b]).expect("both in one list").run().expect("runs");
    assert_eq!(b.result().get().expect("ran"), 2);
}

#[test]
fn a_handle_of_another_batch() {
    let (here, there) = (batch(), batch());
    let foreign = named(&there, "foreign");
    let task = here.function(next, (foreign.result(),)).name("task");
    message(
        here.compile(&task),
        &expect![[r#"
        the task list has 1 mistake
          task #0 `task` takes the result of `foreign`, which belongs to another batch: get() it there and
            pass the value
    "#]],
    );
    foreign.run().expect("runs there");
    message(
        here.compile(&task),
        &expect![[r#"
        the task list has 1 mistake
          task #0 `task` takes the result of `foreign`, which belongs to another batch: get() it there and
            pass the value
    "#]],
    );
}

/// Both batches number their compiled lists alike, and that must not make one batch's tasks the other's.
#[test]
fn a_handle_of_another_batch_beside_a_compiled_batch() {
    let (here, there) = (batch(), batch());
    let foreign = [named(&there, "f0"), named(&there, "f1")];
    let theirs = there.compile(&foreign).expect("compiles");
    let own = [named(&here, "o0"), named(&here, "o1")];
    let ours = here.compile(&own).expect("compiles");
    let task = here.function(next, (foreign[1].result(),)).name("task");
    message(
        here.compile(tasks![ours, task]),
        &expect![[r#"
        the task list has 1 mistake
          task #2 `task` takes the result of `f1`, which belongs to another batch: get() it there and pass
            the value
    "#]],
    );
    theirs.run().expect("runs");
    ours.run().expect("runs");
}

#[test]
fn a_task_of_another_batch() {
    let (here, there) = (batch(), batch());
    let foreign = named(&there, "foreign");
    message(
        here.compile(tasks![named(&here, "own"), foreign]),
        &expect![[r#"
        the task list has 1 mistake
          task #1 `foreign` belongs to another batch: make it with the batch that compiles it
    "#]],
    );
    let compiled = there.compile(&foreign).expect("compiles at home");
    message(
        here.compile(&compiled),
        &expect![[r#"
        the task list has 1 mistake
          task #0 `a compiled batch` belongs to another batch: make it with the batch that compiles it
    "#]],
    );
}

#[test]
fn a_datum_of_another_batch() {
    let (here, there) = (batch(), batch());
    let task = named(&here, "task").reads(there.datum("x")).writes(there.keys("rows").at(3));
    message(
        here.compile(&task),
        &expect![[r#"
        the task list has 2 mistakes
          task `task` declares datum 1, made by another batch: make the datum with the batch of the task
          task `task` declares datum 2, made by another batch: make the datum with the batch of the task
    "#]],
    );
}

#[test]
fn a_task_compiled_twice() {
    let batch = batch();
    let task = named(&batch, "task");
    let compiled = batch.compile(&task).expect("compiles");
    message(
        batch.compile(&task),
        &expect![[r#"
            the task list has 1 mistake
              task #0 `task` was already compiled, submitted or started: list the compiled batch it is in, or
                make a new task
        "#]],
    );
    message(
        task.start(),
        &expect![[r#"
        task `task` was started or compiled before: a task runs once, or again as part of its compiled batch
    "#]],
    );
    compiled.run().expect("still runs");
}

#[test]
fn a_task_listed_twice() {
    let batch = batch();
    let (a, b) = (named(&batch, "a"), named(&batch, "b"));
    message(
        batch.compile(tasks![a, b, a]),
        &expect![[r#"
        the task list has 1 mistake
          task #2 `a` is in the list twice, first as #0: a task runs once per run of its list
    "#]],
    );
    batch.compile(tasks![a, b]).expect("usable").run().expect("runs");
}

#[test]
fn a_compiled_batch_listed_twice() {
    let batch = batch();
    let (a, b, c) = (named(&batch, "a"), named(&batch, "b"), named(&batch, "c"));
    let inner = batch.compile(tasks![a, b]).expect("compiles");
    message(
        batch.compile(tasks![c, inner, inner]),
        &expect![[r#"
        the task list has 1 mistake
          task #3 `a` is in the list twice, first as #1: a task runs once per run of its list
    "#]],
    );
    message(
        batch.compile(tasks![c, inner, b]),
        &expect![[r#"
        the task list has 1 mistake
          task #3 `b` is in the list twice, first as #2: a task runs once per run of its list
    "#]],
    );
    message(
        batch.compile(tasks![c, b, inner]),
        &expect![[r#"
            the task list has 1 mistake
              task #1 `b` was already compiled, submitted or started: list the compiled batch it is in, or make
                a new task
        "#]],
    );
    let outer = batch.compile(tasks![c, inner]).expect("usable");
    message(
        batch.compile(tasks![outer, inner]),
        &expect![[r#"
        the task list has 1 mistake
          task #3 `a` is in the list twice, first as #1: a task runs once per run of its list
    "#]],
    );
    message(
        batch.compile(tasks![inner, outer]),
        &expect![[r#"
        the task list has 1 mistake
          task #2 `a` is in the list twice, first as #0: a task runs once per run of its list
    "#]],
    );
    outer.run().expect("runs");
}

#[test]
fn empty_names() {
    let batch = batch();
    let task = named(&batch, "task")
        .reads("")
        .writes(batch.datum(""))
        .reads(Path::new(""))
        .writes(("dir", ""))
        .reads(String::new());
    message(
        batch.compile(&task),
        &expect![[r#"
        the task list has 5 mistakes
          task `task` declares a datum with an empty name: give it a name or a path
          task `task` declares a datum with an empty name: give it a name or a path
          task `task` declares a datum with an empty name: give it a name or a path
          task `task` declares a datum with an empty name: give it a name or a path
          task `task` declares a datum with an empty name: give it a name or a path
    "#]],
    );
    message(
        batch.file(""),
        &expect![[r#"
        the task list has 1 mistake
          task `batch.file` declares a datum with an empty name: give it a name or a path
    "#]],
    );
    let odd = named(&batch, "odd").reads(("", "name")).writes(batch.keys("").bytes(""));
    odd.run().expect("an empty directory is the current one, an empty key is a key");
}

#[test]
fn a_path_that_is_not_utf_8_works() {
    let batch = batch();
    let path = Path::new(OsStr::from_bytes(b"/tmp/\xff\xfe/x"));
    let a = named(&batch, "a").writes(path);
    let b = named(&batch, "b").reads((path.parent().expect("a directory"), "x"));
    let c = named(&batch, "c").reads(path.with_file_name(OsStr::from_bytes(b"\xff")));
    let compiled = batch.compile(tasks![a, b, c]).expect("compiles");
    assert_eq!(compiled.edges(), 1);
    compiled.run().expect("runs");
    assert!(compiled.graph().to_dot().contains("RAW /tmp/\u{fffd}\u{fffd}/x"));
}

#[test]
fn bad_costs() {
    let batch = batch();
    let costs = [0.0, -0.0, f32::NAN, f32::INFINITY, -1.5];
    let bad: Vec<_> = costs.iter().map(|cost| named(&batch, "bad").cost(*cost)).collect();
    message(
        batch.compile(&bad),
        &expect![[r#"
        the task list has 5 mistakes
          task `bad` has a cost of 0: give a positive, finite number
          task `bad` has a cost of -0: give a positive, finite number
          task `bad` has a cost of NaN: give a positive, finite number
          task `bad` has a cost of inf: give a positive, finite number
          task `bad` has a cost of -1.5: give a positive, finite number
    "#]],
    );
    let good = [named(&batch, "tiny").cost(f32::MIN_POSITIVE), named(&batch, "huge").cost(f32::MAX)];
    batch.compile(&good).expect("compiles").run().expect("runs");
}

#[test]
fn every_mistake_is_reported_at_once_and_the_tasks_stay_usable() {
    let (here, there) = (batch(), batch());
    let foreign = named(&there, "foreign");
    let unlisted = named(&here, "unlisted");
    let last = named(&here, "last");
    let a = here.function(next, (last.result(),)).name("a");
    let b = here.function(|x: u64, y: u64| x + y, (unlisted.result(), foreign.result())).name("b");
    let c = named(&here, "c").reads("").cost(-1.0);
    let d = named(&here, "d").writes(there.datum("x"));
    message(
        here.compile(tasks![a, b, a, foreign, c, d, last]),
        &expect![[r#"
            the task list has 8 mistakes
              task #2 `a` is in the list twice, first as #0: a task runs once per run of its list
              task #2 `foreign` belongs to another batch: make it with the batch that compiles it
              task `c` declares a datum with an empty name: give it a name or a path
              task `c` has a cost of -1: give a positive, finite number
              task `d` declares datum 1, made by another batch: make the datum with the batch of the task
              task #0 `a` takes the result of task #4 `last`, which comes later in the list: move the producer
                before it
              task #1 `b` takes the result of `unlisted`, which is neither in the list nor started: add it to
                the list before this task
              task #1 `b` takes the result of `foreign`, which belongs to another batch: get() it there and pass
                the value
        "#]],
    );
    assert!(matches!(last.status(), tarragon_engine::Status::New));
    here.compile(tasks![last, a]).expect("compiles").run().expect("runs");
    foreign.run().expect("runs");
    assert_eq!(a.result().get().expect("ran"), 2);
}
