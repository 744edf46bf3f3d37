//! Results and arguments live as long as somebody needs them, are dropped once, and are copied only where they must.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::atomic::{AtomicUsize, Ordering};
use tarragon_engine::{Batch, Builder, ErrorKind, Handle, Status, Task, Workers, tasks};

/// What happened to the values of one test.
struct Tally {
    made: AtomicUsize,
    dropped: AtomicUsize,
    copied: AtomicUsize,
}

const TESTS: usize = 40;
static TALLIES: [Tally; TESTS] = [const {
    Tally { made: AtomicUsize::new(0), dropped: AtomicUsize::new(0), copied: AtomicUsize::new(0) }
}; TESTS];

/// A value of test `K` that counts what happens to it.
#[derive(Debug)]
struct Counted<const K: usize>(u64);

impl<const K: usize> Counted<K> {
    fn new(x: u64) -> Self {
        TALLIES[K].made.fetch_add(1, Ordering::SeqCst);
        Self(x)
    }
}

impl<const K: usize> Drop for Counted<K> {
    fn drop(&mut self) {
        TALLIES[K].dropped.fetch_add(1, Ordering::SeqCst);
    }
}

impl<const K: usize> Serialize for Counted<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        TALLIES[K].copied.fetch_add(1, Ordering::SeqCst);
        if self.0 == UNWILLING {
            Err(serde::ser::Error::custom("unwilling"))
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de, const K: usize> Deserialize<'de> for Counted<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(u64::deserialize(deserializer)?))
    }
}

/// A value that serde refuses.
const UNWILLING: u64 = 404;

fn live<const K: usize>() -> usize {
    let dropped = TALLIES[K].dropped.load(Ordering::SeqCst);
    TALLIES[K].made.load(Ordering::SeqCst) - dropped
}

fn copied<const K: usize>() -> usize {
    TALLIES[K].copied.load(Ordering::SeqCst)
}

/// Runs `test` on every number of workers; afterwards everything must be gone.
fn leaves_nothing<const K: usize>(test: impl Fn(&Batch)) {
    let all = [Workers::Serial, Workers::Threads(1), Workers::Threads(2), Workers::Threads(8)];
    for workers in all {
        let batch = Builder::default().workers(workers).build().expect("a batch");
        TALLIES[K].copied.store(0, Ordering::SeqCst);
        test(&batch);
        drop(batch);
        assert_eq!(live::<K>(), 0, "values are left on {workers:?}");
        assert!(TALLIES[K].made.load(Ordering::SeqCst) > 0, "the test made nothing");
    }
}

fn make<const K: usize>(x: u64) -> Counted<K> {
    Counted::new(x)
}

fn look<const K: usize>(x: &Counted<K>) -> u64 {
    x.0
}

fn consume<const K: usize>(x: Counted<K>) -> u64 {
    x.0
}

fn pass<const K: usize>(x: Counted<K>) -> Counted<K> {
    x
}

/// How many values are alive, some time after `_`.
fn count<const K: usize>(_: u64) -> usize {
    live::<K>()
}

fn got<T: tarragon_engine::Data>(handle: &Handle<T>) -> T {
    handle.get().expect("it succeeded")
}

#[test]
fn a_value_goes_with_its_last_consumer_in_the_middle_of_the_run() {
    leaves_nothing::<0>(|batch| {
        let a = batch.function(make::<0>, (1u64,));
        let b = batch.function(look::<0>, (a.result(),));
        let seen = batch.function(count::<0>, (b.result(),));
        let compiled = batch.compile(tasks![a, b, seen]).expect("compiles");
        drop(a);
        for _ in 0..3 {
            compiled.run().expect("runs");
            assert_eq!(got(&seen.result()), 0);
            assert_eq!(copied::<0>(), 0);
        }
    });
}

#[test]
fn a_value_with_a_handle_stays_until_the_handle_goes() {
    leaves_nothing::<1>(|batch| {
        let a = batch.function(make::<1>, (1u64,));
        let b = batch.function(look::<1>, (a.result(),));
        let seen = batch.function(count::<1>, (b.result(),));
        let compiled = batch.compile(tasks![a, b, seen]).expect("compiles");
        let handle = a.result();
        drop(a);
        compiled.run().expect("runs");
        assert_eq!(got(&seen.result()), 1);
        assert_eq!(handle.with(|v| v.0).expect("there"), 1);
        drop(compiled);
        assert_eq!(live::<1>(), 1);
        drop(handle);
        assert_eq!(live::<1>(), 0);
    });
}

#[test]
fn a_value_nobody_wants_goes_at_once() {
    leaves_nothing::<2>(|batch| {
        let a = batch.function(make::<2>, (1u64,)).writes("/x");
        let seen = batch.function(count::<2>, (0u64,)).reads("/x");
        let compiled = batch.compile(tasks![a, seen]).expect("compiles");
        drop(a);
        compiled.run().expect("runs");
        assert_eq!(got(&seen.result()), 0);
    });
}

#[test]
fn a_value_moves_into_its_only_consumer() {
    leaves_nothing::<3>(|batch| {
        let mut last = batch.function(make::<3>, (7u64,));
        let mut all: Vec<Task<Counted<3>>> = Vec::new();
        for _ in 0..10 {
            let next = batch.function(pass::<3>, (last.result(),));
            all.push(std::mem::replace(&mut last, next));
        }
        let seen = batch.function(consume::<3>, (last.result(),));
        let compiled = batch.compile(tasks![all, last, seen]).expect("compiles");
        drop((all, last));
        for _ in 0..3 {
            compiled.run().expect("runs");
            assert_eq!(got(&seen.result()), 7);
            assert_eq!((copied::<3>(), live::<3>()), (0, 0));
        }
    });
}

#[test]
fn a_value_with_a_handle_is_copied() {
    leaves_nothing::<4>(|batch| {
        let a = batch.function(make::<4>, (7u64,));
        let seen = batch.function(consume::<4>, (a.result(),));
        let compiled = batch.compile(tasks![a, seen]).expect("compiles");
        compiled.run().expect("runs");
        assert_eq!((copied::<4>(), live::<4>()), (1, 1));
        assert_eq!(got(&a.result()).0, 7);
        assert_eq!((copied::<4>(), live::<4>()), (2, 1));
    });
}

#[test]
fn of_two_consumers_at_least_one_copies_and_none_more_than_once() {
    leaves_nothing::<5>(|batch| {
        let a = batch.function(make::<5>, (7u64,));
        let both = [batch.function(consume::<5>, (a.result(),)), batch.function(consume::<5>, (a.result(),))];
        let compiled = batch.compile(tasks![a, both]).expect("compiles");
        drop(a);
        compiled.run().expect("runs");
        assert!((1..=2).contains(&copied::<5>()), "{} copies", copied::<5>());
        assert_eq!(both.map(|t| got(&t.result())), [7, 7]);
    });
}

#[test]
fn a_taken_value_is_the_users() {
    leaves_nothing::<6>(|batch| {
        let a = batch.function(make::<6>, (7u64,));
        let compiled = batch.compile(&a).expect("compiles");
        compiled.run().expect("runs");
        let value = a.result().take().expect("there");
        compiled.run().expect("runs");
        assert_eq!((value.0, live::<6>(), copied::<6>()), (7, 2, 0));
        drop((compiled, a));
        assert_eq!(live::<6>(), 1);
    });
}

#[test]
fn a_rerun_drops_the_old_value_once() {
    leaves_nothing::<7>(|batch| {
        let a = batch.function(make::<7>, (7u64,));
        let compiled = batch.compile(&a).expect("compiles");
        for _ in 0..10 {
            compiled.run().expect("runs");
            assert_eq!(live::<7>(), 1);
        }
    });
}

#[test]
fn values_do_not_wait_for_consumers_that_fail_or_are_skipped() {
    fn fails<const K: usize>(x: Counted<K>) -> std::io::Result<Counted<K>> {
        if x.0 == 1 { Err(std::io::Error::other("no")) } else { Ok(x) }
    }
    fn panics<const K: usize>(x: &Counted<K>, _: Counted<K>) -> u64 {
        panic!("no {}", x.0)
    }
    fn both<const K: usize>(x: Counted<K>, y: &Counted<K>) -> u64 {
        x.0 + y.0
    }
    leaves_nothing::<8>(|batch| {
        let [a, b] = [1u64, 2].map(|x| batch.function(make::<8>, (x,)));
        let c = batch.function(fails::<8>, (a.result(),));
        let d = batch.function(both::<8>, (b.result(), c.result()));
        let e = batch.function(panics::<8>, (b.result(), b.result()));
        let seen = batch.function(count::<8>, (0u64,));
        let compiled = batch.compile(tasks![a, b, c, d, e, seen]).expect("compiles");
        drop((a, b));
        for _ in 0..3 {
            compiled.run().expect_err("two fail");
            assert_eq!(
                (c.status(), d.status(), e.status()),
                (Status::Failed, Status::Skipped, Status::Failed)
            );
            assert_eq!(live::<8>(), 0);
        }
    });
}

#[test]
fn a_value_of_an_earlier_run_goes_when_its_task_fails_or_is_skipped() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    fn sometimes<const K: usize>() -> std::io::Result<Counted<K>> {
        let run = RUNS.fetch_add(1, Ordering::SeqCst);
        if run.is_multiple_of(2) { Ok(Counted::new(1)) } else { Err(std::io::Error::other("odd")) }
    }
    leaves_nothing::<9>(|batch| {
        RUNS.store(0, Ordering::SeqCst);
        let a = batch.function(sometimes::<9>, ());
        let b = batch.function(pass::<9>, (a.result(),));
        let compiled = batch.compile(tasks![a, b]).expect("compiles");
        for _ in 0..3 {
            compiled.run().expect("runs");
            assert_eq!(live::<9>(), 2);
            compiled.run().expect_err("odd");
            assert_eq!(live::<9>(), 0);
        }
    });
}

#[test]
fn closures_and_their_values() {
    leaves_nothing::<10>(|batch| {
        let captured = Counted::<10>::new(3);
        let a = batch.closure(move || {
            let whole: &Counted<10> = &captured;
            Counted::<10>::new(whole.0)
        });
        let compiled = batch.compile(&a).expect("compiles");
        for _ in 0..3 {
            compiled.run().expect("runs");
            assert_eq!(live::<10>(), 2);
        }
        assert_eq!(a.result().take().expect("there").0, 3);
        assert_eq!(live::<10>(), 1);
        drop(compiled);
        assert_eq!(live::<10>(), 0, "the closure goes with the compiled batch");
        let never = Counted::<10>::new(4);
        drop(batch.closure(move || {
            let whole: &Counted<10> = &never;
            whole.0
        }));
        assert_eq!((live::<10>(), copied::<10>()), (0, 0));
    });
}

#[test]
fn arguments_are_kept_for_every_run_and_dropped_once() {
    leaves_nothing::<11>(|batch| {
        let new = || Counted::<11>::new(1);
        let a = batch.function(consume::<11>, (new(),));
        let b = batch.function(look::<11>, (new(),));
        let compiled = batch.compile(tasks![a, b]).expect("compiles");
        for run in 1..4 {
            compiled.run().expect("runs");
            assert_eq!((live::<11>(), copied::<11>()), (2, run), "one is copied, one is lent");
        }
        let handle = a.result();
        drop(compiled);
        assert_eq!((live::<11>(), got(&handle)), (0, 1));
    });
}

#[test]
fn the_only_run_moves_arguments() {
    leaves_nothing::<12>(|batch| {
        let new = || Counted::<12>::new(1);
        let a = batch.function(pass::<12>, (new(),));
        batch.compile(&a).expect("compiles").run_once().expect("runs");
        assert_eq!((live::<12>(), copied::<12>()), (1, 0));
        let b = batch.function(consume::<12>, (new(),));
        b.run().expect("runs");
        assert_eq!((live::<12>(), copied::<12>()), (1, 0));
        drop(batch.function(consume::<12>, (new(),)));
        assert_eq!((live::<12>(), copied::<12>()), (1, 0));
    });
}

#[test]
fn the_only_run_drops_arguments_of_what_fails_or_is_skipped() {
    fn fails<const K: usize>(_: Counted<K>, y: &Counted<K>, _: Counted<K>) -> std::io::Result<Counted<K>> {
        Err(std::io::Error::other(format!("no {}", y.0)))
    }
    fn three<const K: usize>(_: Counted<K>, _: Counted<K>, _: Counted<K>) -> u64 {
        1
    }
    leaves_nothing::<13>(|batch| {
        let new = || Counted::<13>::new(1);
        let a = batch.function(fails::<13>, (new(), new(), new()));
        let b = batch.function(three::<13>, (new(), a.result(), new()));
        let compiled = batch.compile(tasks![a, b]).expect("compiles");
        compiled.run_once().expect_err("it fails");
        assert_eq!((live::<13>(), a.status(), b.status()), (0, Status::Failed, Status::Skipped));
    });
}

/// The first argument has moved when the second cannot be made; the third must still be dropped.
#[test]
fn arguments_beside_one_that_cannot_be_copied_are_dropped() {
    fn three<const K: usize>(_: Counted<K>, _: Counted<K>, _: Counted<K>) -> u64 {
        1
    }
    leaves_nothing::<14>(|batch| {
        let new = || Counted::<14>::new(1);
        let a = batch.function(make::<14>, (UNWILLING,));
        let b = batch.function(three::<14>, (new(), a.result(), new()));
        batch.compile(tasks![a, b]).expect("compiles").run_once().expect_err("unwilling");
        assert_eq!(b.result().get().expect_err("unwilling").kind(), ErrorKind::Failed);
        assert_eq!(a.result().get().expect_err("unwilling").kind(), ErrorKind::Unreadable);
        assert_eq!(live::<14>(), 1, "the unwilling result itself");
    });
}

#[test]
fn everything_may_be_dropped_in_any_order() {
    for order in 0..6 {
        leaves_nothing::<15>(|batch| {
            let own = batch.clone();
            let a = own.function(make::<15>, (1u64,));
            let b = own.function(pass::<15>, (a.result(),));
            let c = own.function(look::<15>, (Counted::<15>::new(2),));
            let handles = (a.result(), b.result());
            let compiled = own.compile(tasks![a, b, c]).expect("compiles");
            compiled.start().expect("starts");
            match order {
                0 => drop((compiled, a, b, c, handles)),
                1 => drop((handles, a, b, c, compiled)),
                2 => drop((a, b, c, compiled, handles)),
                3 => {
                    drop((own, compiled));
                    assert_eq!(handles.1.with(|x| x.0).expect("ran"), 1);
                }
                4 => {
                    drop((a, b, c, own));
                    assert_eq!(handles.1.take().expect("ran").0, 1);
                    compiled.wait().expect("ends");
                    compiled.run().expect("runs");
                }
                _ => {
                    drop((handles, a, b, c));
                    compiled.wait().expect("ends");
                }
            }
        });
    }
}

#[test]
fn the_batch_may_go_first() {
    let batch = Builder::default().workers(Workers::Threads(2)).build().expect("a batch");
    let a = batch.function(make::<16>, (1u64,));
    let compiled = batch.compile(&a).expect("compiles");
    compiled.start().expect("starts");
    drop(batch);
    assert_eq!(a.status(), Status::Done, "what was started has ended");
    compiled.run().expect("and can run again");
    assert_eq!(got(&a.result()).0, 1);
    drop((compiled, a));
    assert_eq!(live::<16>(), 0);
}

/// A result that was an argument from outside of a list, and then is inside of a larger one.
#[test]
fn a_compiled_batch_runs_alone_after_its_producer_was_listed_with_it() {
    leaves_nothing::<17>(|batch| {
        let a = batch.function(make::<17>, (5u64,));
        let first = batch.compile(&a).expect("compiles");
        first.run().expect("runs");
        let b = batch.function(consume::<17>, (a.result(),));
        let second = batch.compile(&b).expect("compiles");
        second.run().expect("runs");
        let both = batch.compile(tasks![first, second]).expect("compiles");
        for _ in 0..3 {
            both.run().expect("runs");
            second.run().expect("runs alone");
            first.run().expect("runs alone");
            second.run().expect("runs alone");
            assert_eq!(got(&b.result()), 5);
        }
        assert_eq!(a.result().take().expect("nobody needs it").0, 5);
    });
}

#[test]
fn a_value_needed_by_another_list_stays() {
    leaves_nothing::<18>(|batch| {
        let a = batch.function(make::<18>, (5u64,));
        a.start().expect("starts");
        let b = batch.function(consume::<18>, (a.result(),));
        let compiled = batch.compile(&b).expect("compiles");
        drop(a);
        for _ in 0..3 {
            compiled.run().expect("runs");
            assert_eq!((got(&b.result()), live::<18>()), (5, 1));
        }
        drop(compiled);
        assert_eq!(live::<18>(), 0);
    });
}

#[test]
fn a_long_chain_of_tasks_that_never_ran_is_dropped_on_a_shallow_stack() {
    fn step(x: u64, _: Counted<19>) -> u64 {
        x
    }
    let batch = Builder::default().workers(Workers::Serial).build().expect("a batch");
    let mut last = batch.function(|| 1u64, ());
    for _ in 0..1_000_000 {
        last = batch.function(step, (last.result(), Counted::<19>::new(1)));
    }
    drop(batch);
    assert_eq!(live::<19>(), 1_000_000);
    drop(last);
    assert_eq!(live::<19>(), 0);
}

#[test]
fn a_long_chain_of_results_moves_through_its_tasks() {
    leaves_nothing::<20>(|batch| {
        let mut tasks = vec![batch.function(make::<20>, (3u64,))];
        for _ in 0..100_000 {
            let last = tasks[tasks.len() - 1].result();
            tasks.push(batch.function(pass::<20>, (last,)));
        }
        let end = tasks[tasks.len() - 1].result();
        let compiled = batch.compile(&tasks).expect("compiles");
        drop(tasks);
        compiled.run().expect("runs");
        assert_eq!((live::<20>(), copied::<20>(), end.with(|x| x.0).expect("there")), (1, 0, 3));
        drop((compiled, end));
    });
}

#[test]
fn a_long_chain_of_skipped_tasks_is_dropped_on_a_shallow_stack() {
    fn fails() -> std::io::Result<u64> {
        Err(std::io::Error::other("no"))
    }
    for workers in [Workers::Serial, Workers::Threads(1), Workers::Threads(2)] {
        let batch = Builder::default().workers(workers).build().expect("a batch");
        let mut tasks = vec![batch.function(fails, ())];
        for _ in 0..300_000 {
            let last = tasks[tasks.len() - 1].result();
            tasks.push(batch.function(|x: u64| x, (last,)));
        }
        let compiled = batch.compile(&tasks).expect("compiles");
        compiled.run().expect_err("the first fails");
        compiled.run().expect_err("the first fails again, and the old chain goes");
        let error = tasks[tasks.len() - 1].result().get().expect_err("skipped");
        drop((compiled, tasks, batch));
        assert_eq!(error.chain().len(), 300_001);
    }
}
