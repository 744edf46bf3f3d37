//! Bodies that wait for what cannot come: each is told so, nothing hangs.

use std::sync::{Arc, Mutex};
use tarragon_engine::{Batch, Builder, Compiled, Error, ErrorKind, Handle, Workers, tasks};

fn batches() -> Vec<Batch> {
    let make = |w| Builder::default().workers(w).build().expect("a batch");
    vec![make(Workers::Serial), make(Workers::Threads(1)), make(Workers::Threads(2))]
}

/// A place for what a body needs and gets only after the list is compiled; emptied at the end, since a body that keeps
/// its own list would keep itself.
struct Later<T>(Arc<Mutex<Option<Arc<T>>>>);

impl<T> Later<T> {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn set(&self, value: T) {
        *self.0.lock().expect("nobody panics with the lock") = Some(Arc::new(value));
    }

    fn get(&self) -> Arc<T> {
        self.0.lock().expect("nobody panics with the lock").clone().expect("set before anything runs")
    }

    /// The same place, for a body.
    fn see(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    fn empty(&self) {
        *self.0.lock().expect("nobody panics with the lock") = None;
    }
}

#[test]
fn a_body_that_waits_for_its_own_list_is_told_so() {
    for batch in batches() {
        let itself: Later<Compiled> = Later::new();
        let seen = itself.see();
        let task = batch.closure(move || match seen.get().wait() {
            Err(error @ Error::WaitsForItself) => error.to_string(),
            other => panic!("{other:?}"),
        });
        itself.set(batch.compile(&task).expect("compiles"));
        itself.get().run().expect("runs");
        assert_eq!(
            task.result().get().expect("it ran"),
            "a body waits for the compiled batch that it is part of, which would never end: wait for single tasks"
        );
        itself.empty();
    }
}

#[test]
fn a_body_that_draws_its_own_list_fails() {
    for batch in batches() {
        let itself: Later<Compiled> = Later::new();
        let seen = itself.see();
        let task = batch.closure(move || seen.get().graph().width());
        itself.set(batch.compile(&task).expect("compiles"));
        let error = itself.get().run().expect_err("it panics");
        assert!(error.to_string().contains("a body looks at the whole of the compiled batch"), "{error}");
        itself.empty();
    }
}

#[test]
fn a_body_that_waits_for_itself_is_told_so() {
    for batch in batches() {
        let itself: Later<Handle<bool>> = Later::new();
        let seen = itself.see();
        let task = batch.closure(move || {
            let error = seen.get().wait().expect_err("it cannot end now");
            error.kind() == ErrorKind::WaitsForItself
        });
        itself.set(task.result());
        task.run().expect("runs");
        assert!(task.result().get().expect("it ran"));
        itself.empty();
    }
}

#[test]
fn bodies_that_wait_for_each_other_on_one_stack_are_told_so() {
    for batch in batches() {
        let y: Later<Handle<bool>> = Later::new();
        let (x, seen) = (Later::<Handle<bool>>::new(), y.see());
        // x waits for y, and where its thread runs y meanwhile, y waits for x.
        let first = batch.closure(move || seen.get().wait().is_ok());
        let seen = x.see();
        let second = batch.closure(move || match seen.get().wait() {
            Ok(()) => false,
            Err(error) => error.kind() == ErrorKind::WaitsForItself,
        });
        x.set(first.result());
        y.set(second.result());
        if batch.workers() == 1 {
            batch.compile(tasks![first, second]).expect("compiles").run().expect("runs");
            let told = second.result().get().expect("it ran") || !first.result().get().expect("it ran");
            assert!(told, "one of the two must have been told");
        }
        x.empty();
        y.empty();
    }
}

#[test]
fn a_serial_body_that_waits_for_a_later_task_is_told_so() {
    let batch = batches().remove(0);
    let later: Later<Handle<u8>> = Later::new();
    let seen = later.see();
    let early = batch.closure(move || {
        let error = seen.get().get().expect_err("it comes later");
        error.kind() == ErrorKind::WaitsForItself
    });
    let late = batch.function(|| 1u8, ());
    later.set(late.result());
    batch.compile(tasks![early, late]).expect("compiles").run().expect("runs");
    assert!(early.result().get().expect("it ran"));
    later.empty();
}

#[test]
fn a_body_that_takes_what_others_need_is_told_so() {
    for batch in batches() {
        let producer = batch.function(|| vec![1u64, 2], ());
        let handle: Later<Handle<Vec<u64>>> = Later::new();
        let seen = handle.see();
        let datum = batch.datum("order");
        let taker = batch
            .closure(move || {
                let handle = Handle::clone(&seen.get());
                handle.take().expect_err("the next task needs it").kind() == ErrorKind::WaitsForItself
            })
            .writes(datum);
        let reader = batch.function(|v: &[u64]| v.len(), (producer.result(),)).reads(datum);
        handle.set(producer.result());
        let reads_first = batch.function(|v: &[u64]| v.len(), (producer.result(),)).writes(datum);
        batch.compile(tasks![producer, reads_first, taker, reader]).expect("compiles").run().expect("runs");
        assert!(taker.result().get().expect("it ran"));
        assert_eq!(reader.result().get().expect("it ran"), 2);
        handle.empty();
    }
}

#[test]
fn a_body_that_restarts_what_its_run_reads_is_told_so() {
    for batch in batches() {
        let producer = batch.function(|| 1u8, ());
        let first = Arc::new(batch.compile(&producer).expect("compiles"));
        first.run().expect("runs");
        let again = Arc::clone(&first);
        let restarter = batch.closure(move || matches!(again.start(), Err(Error::BeingRead)));
        let reader = batch.function(|x: u8| x, (producer.result(),));
        batch.compile(tasks![restarter, reader]).expect("compiles").run().expect("runs");
        assert!(restarter.result().get().expect("it ran"));
    }
}
