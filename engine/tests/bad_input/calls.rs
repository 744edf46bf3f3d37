//! Calls that come too often, too early, too late or from the wrong place.

use crate::{batch, batches, message, named, next, within_time};
use expect_test::expect;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tarragon_engine::{Builder, Compiled, Error, ErrorKind, Workers, tasks};

#[test]
fn a_task_started_twice() {
    for batch in batches() {
        let task = named(&batch, "task");
        task.start().expect("starts");
        message(
            task.start(),
            &expect![[r#"
            task `task` was started or compiled before: a task runs once, or again as part of its compiled batch
        "#]],
        );
        message(
            task.run(),
            &expect![[r#"
            task `task` was started or compiled before: a task runs once, or again as part of its compiled batch
        "#]],
        );
        assert_eq!(task.result().get().expect("ran once"), 1);
        message(
            batch.compile(&task),
            &expect![[r#"
            the task list has 1 mistake
              task #0 `task` was already compiled, submitted or started: list the compiled batch it is in, or
                make a new task
        "#]],
        );
    }
}

#[test]
fn a_result_taken_twice() {
    for batch in batches() {
        let task = named(&batch, "task");
        let compiled = batch.compile(&task).expect("compiles");
        compiled.run().expect("runs");
        let (first, second, third) = (task.result(), task.result(), task.result());
        assert_eq!(first.take().expect("there"), 1);
        let error = second.take().expect_err("taken");
        assert_eq!(error.kind(), ErrorKind::Taken);
        message(
            Err::<(), _>(error),
            &expect![[r#"
            task #0 `task` failed: its result was taken before: a result can be taken once
        "#]],
        );
        message(
            third.get(),
            &expect![[r#"
            task #0 `task` failed: its result was taken before: a result can be taken once
        "#]],
        );
        message(
            third.with(|x| *x),
            &expect![[r#"
            task #0 `task` failed: its result was taken before: a result can be taken once
        "#]],
        );
        let reader = batch.function(next, (third,)).name("reader");
        message(
            reader.run(),
            &expect![[r#"
            task #0 `reader` was skipped because task #0 `task` failed: the result of task `task` was taken
                before this task read it
        "#]],
        );
        compiled.run().expect("runs again");
        assert_eq!(task.result().get().expect("there again"), 1);
    }
}

#[test]
fn waiting_for_what_nobody_started() {
    for batch in batches() {
        within_time(|| {
            let task = named(&batch, "task");
            for error in [
                task.result().get().expect_err("not started"),
                task.result().get_timeout(Duration::from_secs(1000)).expect_err("not started"),
                task.result().take().expect_err("not started"),
                task.result().with(|x| *x).expect_err("not started"),
                task.result().wait().expect_err("not started"),
                task.wait().expect_err("not started"),
                task.stdout().get().expect_err("not started"),
            ] {
                assert_eq!(error.kind(), ErrorKind::NotStarted);
                message(
                    Err::<(), _>(error),
                    &expect![[r#"
                    task `task` failed: nobody compiled and started it, so its result would never come
                "#]],
                );
            }
            let compiled = batch.compile(&task).expect("compiles");
            message(
                task.result().get(),
                &expect![[r#"
                task #0 `task` failed: nobody compiled and started it, so its result would never come
            "#]],
            );
            assert!(matches!(compiled.wait(), Err(Error::NotStarted)));
            message(
                compiled.wait(),
                &expect![[r#"
                this compiled batch was never started: call `start` or `run`
            "#]],
            );
            assert!(compiled.failures().is_empty());
            compiled.run().expect("runs");
        });
    }
}

#[test]
fn a_timeout_beyond_the_end_of_time_waits() {
    for batch in batches() {
        let task = named(&batch, "task");
        task.start().expect("starts");
        assert_eq!(task.result().get_timeout(Duration::MAX).expect("ends"), 1);
    }
}

#[test]
fn a_timeout_that_passes_says_so() {
    let batch = batch();
    let gate = Arc::new(OnceLock::<()>::new());
    let opened = Arc::clone(&gate);
    let slow = batch.closure(move || *opened.wait()).name("slow");
    slow.start().expect("starts");
    let error = slow.result().get_timeout(Duration::from_millis(5)).expect_err("not open yet");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    message(
        Err::<(), _>(error),
        &expect![[r#"
        task #0 `slow` failed: it has not ended in the time given
    "#]],
    );
    gate.set(()).expect("opened once");
    slow.result().get().expect("ends");
}

#[test]
fn numbers_of_workers() {
    let with = |workers| Builder::default().workers(workers).build().map(|batch| batch.workers());
    message(
        with(Workers::Threads(0)),
        &expect![[r#"
        a batch needs at least one worker thread; give `Workers::Threads(1)` or more, or leave the default
    "#]],
    );
    message(
        with(Workers::Threads(1 << 15)),
        &expect![[r#"
        32768 worker threads asked for, at most 32767 are possible
    "#]],
    );
    message(
        with(Workers::Threads(usize::MAX)),
        &expect![[r#"
        18446744073709551615 worker threads asked for, at most 32767 are possible
    "#]],
    );
    assert_eq!(with(Workers::Threads(64)).expect("many"), 64);
    assert_eq!(with(Workers::Serial).expect("none"), 1);
}

#[test]
fn declarations_after_compile() {
    let batch = batch();
    let mut task = named(&batch, "task");
    task.read("/a").expect("still open").write("/b").expect("still open");
    let compiled = batch.compile(&task).expect("compiles");
    message(
        task.read("/c"),
        &expect![[r#"
        task `task` is compiled: its reads, writes and options can no longer change
    "#]],
    );
    message(
        task.write("/c"),
        &expect![[r#"
        task `task` is compiled: its reads, writes and options can no longer change
    "#]],
    );
    compiled.run().expect("runs");
    message(
        task.write(""),
        &expect![[r#"
        task `task` is compiled: its reads, writes and options can no longer change
    "#]],
    );
    assert_eq!(compiled.edges(), 0);
}

#[test]
fn running_a_compiled_batch_that_is_running() {
    for batch in [batch(), Builder::default().workers(Workers::Serial).build().expect("a batch")] {
        within_time(|| {
            let slot = Arc::new(OnceLock::<Weak<Compiled>>::new());
            let own = Arc::clone(&slot);
            let inside = batch.closure(move || {
                let own = own.get().and_then(Weak::upgrade).expect("set before the run");
                [own.run(), own.start()].map(|r| r.expect_err("it is running").to_string())
            });
            let compiled = Arc::new(batch.compile(&inside).expect("compiles"));
            let outer = batch.compile(tasks![*compiled]).expect("compiles");
            slot.set(Arc::downgrade(&compiled)).expect("set once");
            for run in [&*compiled, &outer] {
                run.run().expect("runs");
                let errors = inside.result().take().expect("it ended");
                for error in &errors {
                    message(
                        Err::<(), _>(error),
                        &expect![[r#"
                        this compiled batch is already running: wait for it before starting it again
                    "#]],
                    );
                }
            }
        });
    }
}

#[test]
fn compiling_a_list_with_a_compiled_batch_that_is_running() {
    let batch = batch();
    let gate = Arc::new(OnceLock::<()>::new());
    let opened = Arc::clone(&gate);
    let slow = batch.closure(move || *opened.wait()).name("slow");
    let compiled = batch.compile(&slow).expect("compiles");
    compiled.start().expect("starts");
    let other = named(&batch, "other");
    message(
        batch.compile(tasks![other, compiled]),
        &expect![[r#"
        this compiled batch is already running: wait for it before starting it again
    "#]],
    );
    message(
        compiled.start(),
        &expect![[r#"
        this compiled batch is already running: wait for it before starting it again
    "#]],
    );
    gate.set(()).expect("opened once");
    compiled.wait().expect("ends");
    batch.compile(tasks![other, compiled]).expect("usable").run().expect("runs");
}

/// A start that is refused because one compiled batch in the list runs leaves the others as they were.
#[test]
fn a_refused_start_keeps_the_failures_of_earlier_runs() {
    within_time(|| {
        let batch = batch();
        let fails = batch.try_function(|| Err::<u64, _>(std::io::Error::other("no")), ()).name("fails");
        let first = batch.compile(&fails).expect("compiles");
        let gate = Arc::new(OnceLock::<()>::new());
        let opened = Arc::clone(&gate);
        let slow = batch.closure(move || *opened.wait()).name("slow");
        let second = batch.compile(&slow).expect("compiles");
        let both = batch.compile(tasks![first, second]).expect("compiles");
        first.run().expect_err("it fails");
        second.start().expect("starts");
        message(
            both.start(),
            &expect![[r#"
            this compiled batch is already running: wait for it before starting it again
        "#]],
        );
        message(
            fails.result().get(),
            &expect![[r#"
            task #0 `fails` failed: no
        "#]],
        );
        message(
            first.wait(),
            &expect![[r#"
            task #0 `fails` failed: no
        "#]],
        );
        assert_eq!(first.failures().len(), 1);
        gate.set(()).expect("opened once");
        second.wait().expect("ends");
    });
}

#[test]
fn run_once_of_a_shared_compiled_batch() {
    let batch = batch();
    let a = named(&batch, "a");
    let inner = batch.compile(&a).expect("compiles");
    let outer = batch.compile(&inner).expect("compiles");
    message(
        inner.run_once(),
        &expect![[r#"
            other lists share tasks with this compiled batch, so it cannot run for the only time: use `run`
        "#]],
    );
    message(
        outer.run_once(),
        &expect![[r#"
            other lists share tasks with this compiled batch, so it cannot run for the only time: use `run`
        "#]],
    );
}

#[test]
fn an_empty_list_works() {
    for batch in batches() {
        let compiled = batch.compile(tasks![]).expect("compiles");
        assert!(compiled.is_empty());
        (0..3).for_each(|_| compiled.run().expect("runs"));
        let outer = batch.compile(tasks![compiled, compiled]).expect("compiles");
        outer.run().expect("runs");
        assert_eq!((outer.len(), outer.edges(), outer.graph().width()), (0, 0, 0));
        outer.run_once().expect("runs");
    }
}

/// A list of ten million tasks; takes seconds and a gigabyte.
#[test]
fn long_ten_million_tasks() {
    if std::env::var_os("TARRAGON_TEST_LONG").is_none() {
        return eprintln!("skipped: ten million tasks: TARRAGON_TEST_LONG is not set");
    }
    let batch = batch();
    let rows = batch.keys("rows");
    let tasks: Vec<_> = (0..10_000_000u64)
        .map(|i| batch.function(next, (i,)).reads(rows.at(i / 2)).writes(rows.at(i)))
        .collect();
    let compiled = batch.compile(&tasks).expect("compiles");
    compiled.run().expect("runs");
    assert_eq!(tasks[9_999_999].result().get().expect("ran"), 10_000_000);
}

/// The closure has the last client, and goes at the end of the only run: nothing is left to wait for.
#[test]
fn a_closure_that_holds_the_last_batch() {
    for batch in batches() {
        within_time(|| {
            let own = batch.clone();
            let task = batch.closure(move || own.workers());
            let handle = task.result();
            drop(batch);
            task.start().expect("starts");
            assert!(handle.get().expect("ran") > 0);
        });
    }
}
