//! The engine as a user meets it: values, handles, failures, order.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tarragon_engine::{Batch, Builder, Context, ErrorKind, Status, Workers, tasks, value};

fn batches() -> Vec<Batch> {
    let make = |w| Builder::default().workers(w).build().expect("a batch");
    vec![
        make(Workers::Serial),
        make(Workers::Threads(1)),
        make(Workers::Threads(2)),
        make(Workers::Threads(8)),
    ]
}

fn square(x: u64) -> u64 {
    x * x
}

fn sum(xs: Vec<u64>) -> u64 {
    xs.iter().sum()
}

fn sum_slice(xs: &[u64]) -> u64 {
    xs.iter().sum()
}

fn describe(name: &str, pair: (u64, f64)) -> String {
    format!("{name} {} {}", pair.0, pair.1)
}

#[test]
fn results_flow_through_handles_of_every_shape() {
    for batch in batches() {
        let squares: Vec<_> = (0..10u64).map(|i| batch.function(square, (i,))).collect();
        let handles = || squares.iter().map(|t| t.result()).collect::<Vec<_>>();
        let total = batch.function(sum, (handles(),));
        let again = batch.function(sum_slice, (handles(),));
        let array = batch.function(|x: [u64; 2]| x[0] + x[1], ([squares[1].result(), squares[2].result()],));
        let option = batch.function(|x: Option<u64>| x.unwrap_or(0), (Some(&squares[3]),));
        let text = batch.function(describe, ("n".to_string(), (squares[3].result(), value(0.5))));
        let shout = batch.function(|t: &str| t.to_uppercase(), (text.result(),));
        batch
            .compile(tasks![squares, total, again, array, option, text, shout])
            .expect("compiles")
            .run()
            .expect("runs");
        assert_eq!(total.result().get().expect("total"), 285);
        assert_eq!(again.result().get().expect("again"), 285);
        assert_eq!(array.result().get().expect("array"), 5);
        assert_eq!(option.result().get().expect("option"), 9);
        assert_eq!(shout.result().get().expect("shout"), "N 9 0.5");
    }
}

#[test]
fn ten_thousand_tasks_in_a_chain_keep_order() {
    static LAST: AtomicU64 = AtomicU64::new(0);
    fn step(i: u64) -> u64 {
        let before = LAST.swap(i, Ordering::SeqCst);
        before + 1 - i
    }
    for batch in batches() {
        let datum = batch.datum("chain");
        let tasks: Vec<_> =
            (1..=10_000u64).map(|i| batch.function(step, (i,)).reads(datum).writes(datum)).collect();
        let compiled = batch.compile(&tasks).expect("compiles");
        for _ in 0..3 {
            LAST.store(0, Ordering::SeqCst);
            compiled.run().expect("runs");
            assert!(tasks.iter().all(|t| t.result().get().expect("ran") == 0));
        }
    }
}

#[test]
fn a_failure_skips_what_needs_it_and_nothing_else() {
    fn fails() -> Result<u64, std::io::Error> {
        Err(std::io::Error::other("disk on fire"))
    }
    for batch in batches() {
        let a = batch.function(fails, ()).writes("/x").name("a");
        let b = batch.function(square, (2u64,)).reads("/x").name("b");
        let c = batch.function(square, (3u64,)).writes("/x").name("c");
        let d = batch.function(square, (b.result(),)).name("d");
        let e = batch.function(square, (4u64,)).reads("/x").name("e");
        let compiled = batch.compile(tasks![a, b, c, d, e]).expect("compiles");
        for _ in 0..2 {
            let error = compiled.run().expect_err("a fails");
            assert_eq!(error.to_string(), "task #0 `a` failed: disk on fire");
            assert_eq!(c.result().get().expect("c runs: WAW and WAR do not need a"), 9);
            assert_eq!(e.result().get().expect("e reads what c wrote"), 16);
            let error = d.result().get().expect_err("d needs b needs a");
            assert_eq!(error.kind(), ErrorKind::Skipped);
            assert_eq!(error.chain(), ["d", "b", "a"]);
            assert_eq!(
                error.to_string(),
                "task #3 `d` was skipped because task #1 `b` was skipped because task #0 `a` failed: disk on fire"
            );
            assert!(error.downcast_ref::<std::io::Error>().is_some());
            assert_eq!((a.status(), b.status(), c.status()), (Status::Failed, Status::Skipped, Status::Done));
            assert_eq!(compiled.failures().len(), 3);
        }
    }
}

#[test]
fn a_panic_is_an_outcome_with_message_and_place() {
    fn panics(x: u32) -> u32 {
        if x == 7 { panic!("seven is right out") } else { x }
    }
    for batch in batches() {
        let task = batch.function(panics, (7u32,));
        assert!(task.run().is_err());
        let error = task.result().get().expect_err("it panics");
        assert_eq!(error.kind(), ErrorKind::Panicked);
        assert!(error.to_string().contains("seven is right out"), "{error}");
        assert!(error.place().expect("a place").contains("basics.rs:"), "{error}");
    }
}

#[test]
fn a_context_writes_to_the_tasks_output() {
    use std::io::Write;
    fn hello(ctx: &Context, name: String) {
        writeln!(ctx.out(), "hello {name}").expect("output");
        writeln!(ctx.err(), "warned").expect("output");
    }
    fn length(text: String) -> usize {
        text.len()
    }
    for batch in batches() {
        let a = batch.function(hello, ("you",));
        let b = batch.function(length, (a.stdout(),));
        let compiled = batch.compile((&a, &b)).expect("compiles");
        for _ in 0..2 {
            compiled.run().expect("runs");
            assert_eq!(a.stdout().get().expect("text"), "hello you\n");
            assert_eq!(a.stderr().get().expect("text"), "warned\n");
            assert_eq!(b.result().get().expect("length"), 10);
        }
    }
}

#[test]
fn a_closure_captures_and_runs_again() {
    for batch in batches() {
        let log = std::sync::Arc::new(Mutex::new(Vec::new()));
        let captured = std::sync::Arc::clone(&log);
        let mut n = 0;
        let task = batch.closure(move || {
            n += 1;
            captured.lock().expect("not poisoned").push(n);
            n
        });
        let compiled = batch.compile(&task).expect("compiles");
        (0..3).for_each(|_| compiled.run().expect("runs"));
        assert_eq!(*log.lock().expect("not poisoned"), [1, 2, 3]);
        assert_eq!(task.result().take().expect("n"), 3);
    }
}

#[test]
fn results_pass_from_one_submission_to_the_next() {
    for batch in batches() {
        let a = batch.function(square, (3u64,));
        a.start().expect("starts");
        let b = batch.function(square, (a.result(),));
        let compiled = batch.compile(tasks![b]).expect("a is started");
        compiled.run().expect("runs");
        assert_eq!(b.result().get().expect("b"), 81);
    }
}

#[test]
fn a_body_may_submit_tasks_and_wait_for_them() {
    fn outer(ctx: &Context, n: u64) -> u64 {
        let batch = ctx.batch().expect("it runs in a batch");
        let inner: Vec<_> = (0..n).map(|i| batch.function(square, (i,))).collect();
        batch.compile(&inner).expect("compiles").run().expect("runs");
        inner.iter().map(|t| t.result().get().expect("ran")).sum()
    }
    for batch in batches() {
        let tasks: Vec<_> = (0..20u64).map(|_| batch.function(outer, (10u64,))).collect();
        batch.compile(&tasks).expect("compiles").run().expect("runs");
        assert!(tasks.iter().all(|t| t.result().get().expect("ran") == 285));
    }
}

#[test]
fn a_compiled_batch_says_how_far_it_is() {
    fn fails_first(ctx: &Context) -> Result<u8, String> {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        match RUNS.fetch_add(1, Ordering::SeqCst) % 2 {
            0 => Err(format!("{} fails the first time", ctx.name())),
            _ => Ok(1),
        }
    }
    for batch in batches() {
        let task = batch.try_function(fails_first, ()).name("shy");
        let compiled = batch.compile(&task).expect("compiles");
        assert_eq!(compiled.status(), Status::Compiled);
        let error = compiled.run().expect_err("it fails the first time");
        assert_eq!(format!("{error:?}"), "task #0 `shy` failed: shy fails the first time");
        assert_eq!(compiled.status(), Status::Failed);
        compiled.run().expect("the second time it works");
        assert_eq!(compiled.status(), Status::Done);
    }
}
