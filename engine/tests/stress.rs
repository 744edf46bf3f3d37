//! Everything at once, for a few seconds: small lists from several threads, users who wait for single tasks, take,
//! let go and start again while runs go on, bodies that submit tasks, failures in between. A test that hangs is
//! killed by its watchdog.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};
use tarragon_engine::{Batch, Builder, Context, ErrorKind, Handle, Status, Task, Workers, tasks};

/// How long each test goes on.
fn span() -> Duration {
    let long = std::env::var_os("TARRAGON_TEST_LONG").is_some();
    Duration::from_millis(if long { 60_000 } else { 600 })
}

/// Calls `f` with a round number for a while on each number of workers; ends the process if a call hangs.
fn for_a_while(f: impl Fn(&Batch, u64)) {
    let all = [Workers::Threads(1), Workers::Threads(2), Workers::Threads(8)];
    let (beat, wait) = mpsc::channel();
    let watchdog = std::thread::spawn(move || {
        while match wait.recv_timeout(Duration::from_secs(30)) {
            Err(RecvTimeoutError::Timeout) => std::process::abort(),
            Err(RecvTimeoutError::Disconnected) => false,
            Ok(()) => true,
        } {}
    });
    for workers in all {
        let batch = Builder::default().workers(workers).build().expect("a batch");
        let start = Instant::now();
        for round in 0.. {
            f(&batch, round);
            beat.send(()).expect("the watchdog waits");
            if start.elapsed() > span() / all.len() as u32 {
                break;
            }
        }
    }
    drop(beat);
    watchdog.join().expect("the watchdog ends");
}

fn add(x: u64, y: u64) -> u64 {
    if y.is_multiple_of(5) {
        std::thread::yield_now();
    }
    x + y
}

fn add_to(x: &[u64], y: u64) -> Vec<u64> {
    x.iter().map(|x| x + y).collect()
}

/// A chain of `n` tasks, each of which adds its index.
fn chain(batch: &Batch, n: u64) -> Vec<Task<u64>> {
    let mut all = vec![batch.function(add, (0u64, 0u64))];
    for i in 1..n {
        let last = all[all.len() - 1].result();
        all.push(batch.function(add, (last, i)));
    }
    all
}

#[test]
fn many_small_lists_from_several_threads() {
    for_a_while(|batch, round| {
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                scope.spawn(move || {
                    for i in 0..10 {
                        let n = 1 + (round + i + thread) % 7;
                        let all = chain(batch, n);
                        let compiled = batch.compile(&all).expect("compiles");
                        for _ in 0..3 {
                            compiled.start().expect("starts");
                            let last = all[all.len() - 1].result();
                            assert_eq!(last.get().expect("ran"), n * (n - 1) / 2);
                            compiled.wait().expect("ends");
                        }
                    }
                });
            }
        });
    });
}

#[test]
fn users_wait_for_single_tasks_while_the_run_goes_on() {
    for_a_while(|batch, round| {
        let all = chain(batch, 60);
        let compiled = batch.compile(&all).expect("compiles");
        let gate = Barrier::new(5);
        std::thread::scope(|scope| {
            for user in 0..4usize {
                let (all, gate) = (&all, &gate);
                scope.spawn(move || {
                    gate.wait();
                    for i in (user..60).step_by(1 + user) {
                        let wanted = (i * (i + 1) / 2) as u64;
                        match user {
                            0 => assert_eq!(all[i].result().get().expect("ran"), wanted),
                            1 => all[i].wait().expect("ran"),
                            2 => assert_eq!(all[i].result().with(|x| *x).expect("ran"), wanted),
                            _ => loop {
                                match all[i].result().get_timeout(Duration::from_micros(round % 50)) {
                                    Ok(value) => break assert_eq!(value, wanted),
                                    Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut),
                                }
                            },
                        }
                        assert_eq!(all[i].status(), Status::Done);
                    }
                });
            }
            compiled.start().expect("starts");
            gate.wait();
        });
        compiled.wait().expect("ends");
    });
}

#[test]
fn users_look_while_lists_are_run_again() {
    for_a_while(|batch, _| {
        let all = chain(batch, 8);
        let compiled = batch.compile(&all).expect("compiles");
        compiled.run().expect("runs");
        std::thread::scope(|scope| {
            for user in 0..3usize {
                let all = &all;
                scope.spawn(move || {
                    for i in 0..50 {
                        let i = (i + user) % 8;
                        assert_eq!(all[i].result().get().expect("some run"), (i * (i + 1) / 2) as u64);
                    }
                });
            }
            (0..20).for_each(|_| compiled.run().expect("runs"));
        });
    });
}

#[test]
fn handles_go_during_the_run() {
    for_a_while(|batch, round| {
        let first = batch.function(|| (0..100u64).collect::<Vec<_>>(), ());
        let middle: Vec<_> = (0..20u64).map(|i| batch.function(add_to, (first.result(), i))).collect();
        let ends: Vec<_> =
            middle.iter().map(|m| batch.function(|x: Vec<u64>| x[99], (m.result(),))).collect();
        let compiled = batch.compile(tasks![first, middle, ends]).expect("compiles");
        let handles: Vec<Handle<Vec<u64>>> = middle.iter().map(Task::result).collect();
        compiled.start().expect("starts");
        std::thread::scope(|scope| {
            scope.spawn(|| drop((first, middle)));
            scope.spawn(|| {
                for (i, handle) in handles.into_iter().enumerate() {
                    if (i as u64 + round).is_multiple_of(3) {
                        assert_eq!(handle.take().expect("nobody else takes it")[0], i as u64);
                    }
                }
            });
            if round.is_multiple_of(2) {
                drop(compiled);
            }
        });
        let sum: u64 = ends.iter().map(|t| t.result().get().expect("ran")).sum();
        assert_eq!(sum, (99..119).sum());
    });
}

#[test]
fn take_races_get() {
    for_a_while(|batch, _| {
        let task = batch.function(|| "value".to_string(), ());
        let compiled = batch.compile(&task).expect("compiles");
        let taken = AtomicU64::new(0);
        std::thread::scope(|scope| {
            compiled.start().expect("starts");
            for user in 0..4 {
                let (task, taken) = (&task, &taken);
                scope.spawn(move || {
                    let result = if user < 2 { task.result().take() } else { task.result().get() };
                    match result {
                        Ok(text) => {
                            assert_eq!(text, "value");
                            taken.fetch_add(u64::from(user < 2), Ordering::Relaxed);
                        }
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Taken),
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 1, "one of two who take gets the value");
        compiled.wait().expect("ends");
        compiled.run().expect("runs again");
        assert_eq!(task.result().get().expect("there again"), "value");
    });
}

#[test]
fn bodies_submit_tasks_and_wait_for_them() {
    fn fibonacci(ctx: &Context, n: u64) -> u64 {
        if n < 2 {
            return n;
        }
        let batch = ctx.batch().expect("it runs in a batch");
        let [a, b] = [n - 1, n - 2].map(|n| batch.function(fibonacci, (n,)));
        batch.compile((&a, &b)).expect("compiles").run().expect("runs");
        a.result().get().expect("ran") + b.result().get().expect("ran")
    }
    for_a_while(|batch, _| {
        let all: Vec<_> = (0..4).map(|_| batch.function(fibonacci, (8u64,))).collect();
        batch.compile(&all).expect("compiles").run().expect("runs");
        assert!(all.iter().all(|t| t.result().get().expect("ran") == 21));
    });
}

#[test]
fn failures_panics_and_skips_between_runs() {
    static ROUND: AtomicU64 = AtomicU64::new(0);
    fn moody(x: u64) -> std::io::Result<u64> {
        match (ROUND.load(Ordering::Relaxed) + x) % 5 {
            0 => Err(std::io::Error::other("moody")),
            1 => panic!("moody"),
            _ => Ok(x),
        }
    }
    for_a_while(|batch, _| {
        let all: Vec<_> = (0..20u64).map(|i| batch.function(moody, (i,))).collect();
        let next: Vec<_> = all.iter().map(|t| batch.function(add, (t.result(), 1u64))).collect();
        let compiled = batch.compile(tasks![all, next]).expect("compiles");
        for round in 0..5 {
            ROUND.store(round, Ordering::Relaxed);
            compiled.start().expect("starts");
            for (i, task) in next.iter().enumerate() {
                match task.result().get() {
                    Ok(value) => assert_eq!(value, i as u64 + 1),
                    Err(error) => assert_eq!((error.kind(), error.chain().len()), (ErrorKind::Skipped, 2)),
                }
            }
            compiled.wait().expect_err("some are moody");
            assert_eq!(compiled.failures().len(), 16);
        }
    });
}

#[test]
fn results_of_runs_under_way_feed_other_lists() {
    for_a_while(|batch, _| {
        let first = chain(batch, 20);
        let compiled = batch.compile(&first).expect("compiles");
        compiled.start().expect("starts");
        let second: Vec<_> = first.iter().map(|t| batch.function(add, (t.result(), 1u64))).collect();
        let next = batch.compile(&second).expect("compiles");
        next.start().expect("starts");
        let third =
            batch.function(|xs: Vec<u64>| xs.iter().sum::<u64>(), (second.iter().collect::<Vec<_>>(),));
        third.start().expect("starts");
        drop((compiled, first));
        assert_eq!(third.result().get().expect("ran"), (0..20u64).map(|i| i * (i + 1) / 2 + 1).sum());
        next.wait().expect("ends");
    });
}

/// Each waiting body leaves room for others on its stack, but not without bound.
#[test]
fn ten_thousand_bodies_that_wait_need_no_deep_stack() {
    fn outer(ctx: &Context, x: u64) -> u64 {
        let inner = ctx.batch().expect("it runs in a batch").function(add, (x, 1u64));
        inner.run().expect("runs");
        inner.result().get().expect("ran")
    }
    for threads in [1, 2, 8] {
        let batch = Builder::default().workers(Workers::Threads(threads)).build().expect("a batch");
        let all: Vec<_> = (0..10_000u64).map(|i| batch.function(outer, (i,))).collect();
        let compiled = Arc::new(batch.compile(&all).expect("compiles"));
        compiled.run().expect("runs");
        assert_eq!(all[9_999].result().get().expect("ran"), 10_000);
    }
}

/// Both lists need both producers to themselves, and name them in different order.
#[test]
fn a_list_of_two_compiled_batches_and_a_reader_of_both_take_turns() {
    for_a_while(|batch, _| {
        let [a, b] = [1u64, 2].map(|x| batch.function(add, (x, 1u64)));
        let [first, second] = [&a, &b].map(|task| batch.compile(task).expect("compiles"));
        let both = batch.compile(tasks![second, first]).expect("compiles");
        both.run().expect("runs");
        let sum = batch.function(add, (a.result(), b.result()));
        let reader = batch.compile(&sum).expect("compiles");
        std::thread::scope(|scope| {
            scope.spawn(|| (0..20).for_each(|_| both.run().expect("runs")));
            scope.spawn(|| (0..20).for_each(|_| reader.run().expect("runs")));
        });
        assert_eq!(sum.result().get().expect("ran"), 5);
    });
}

/// A list ends, cohort by cohort: what it sweeps must not be what a list inside of it, started again, has just made.
#[test]
fn an_inner_list_runs_again_while_the_outer_one_ends() {
    let batch = tarragon_engine::Builder::default()
        .workers(tarragon_engine::Workers::Threads(2))
        .build()
        .expect("two threads");
    for round in 0..200 {
        let text = batch.function(|i: u64| format!("{i:0>64}"), (round,));
        let length = batch.function(|t: &str| t.len(), (text.result(),));
        let inner = batch.compile((&text, &length)).expect("compiles");
        drop(text);
        let mut outer_tasks: Vec<_> =
            (0..8u64).map(|i| batch.function(|i: u64| i.to_string(), (i,))).collect();
        let outer = batch.compile((&inner, &outer_tasks)).expect("compiles");
        std::thread::scope(|scope| {
            outer.start().expect("nothing else runs yet");
            scope.spawn(|| outer_tasks.clear());
            for _ in 0..20 {
                if inner.start().is_ok() {
                    inner.wait().expect("its text is there while it is read");
                }
            }
        });
        outer.wait().expect("runs");
        assert_eq!(length.result().get().expect("it ran"), 64);
    }
}
