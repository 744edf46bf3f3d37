//! Resources, timeouts, further attempts and cancelling, of functions and processes.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tarragon_engine::{Batch, Context, Error, ErrorKind, Exit, Status, Task, Workers, tasks};

fn batch(cpus: u32) -> Batch {
    Batch::builder().workers(Workers::Threads(2)).assume_cpus(cpus).build().expect("a batch")
}

fn sh(batch: &Batch, script: &str) -> Task<Exit> {
    batch.process("/bin/sh").arg("-c").arg(script)
}

/// A task failed, so the run directory stays; the test removes it.
fn remove_kept(task: &Task<Exit>) {
    if let Some(path) = task.stdout().path() {
        let run = path.parent().and_then(Path::parent).expect("the run directory");
        fs::remove_dir_all(run).expect("the run directory is there");
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Counts how many are inside at a time.
#[derive(Default)]
struct Inside {
    now: AtomicU32,
    most: AtomicU32,
}

impl Inside {
    fn enter(&self, n: u32) {
        let now = self.now.fetch_add(n, Ordering::SeqCst) + n;
        self.most.fetch_max(now, Ordering::SeqCst);
    }

    fn leave(&self, n: u32) {
        self.now.fetch_sub(n, Ordering::SeqCst);
    }
}

#[test]
fn functions_with_cpus_never_hold_more_than_there_are() {
    let batch = batch(3);
    let inside = Arc::new(Inside::default());
    let all: Vec<_> = (0..60u32)
        .map(|i| {
            let (inside, cpus) = (Arc::clone(&inside), i % 3 + 1);
            let body = move || {
                inside.enter(cpus);
                std::thread::sleep(Duration::from_millis(2));
                inside.leave(cpus);
            };
            batch.closure(body).cpus(cpus)
        })
        .collect();
    batch.compile(&all).expect("a list").run().expect("all succeed");
    let most = inside.most.load(Ordering::SeqCst);
    assert!((2..=3).contains(&most), "{most} cpus at a time");
}

#[test]
fn processes_hold_cpus_memory_and_named_resources() {
    let dir = tempfile::tempdir().expect("a directory");
    let batch =
        Batch::builder().assume_cpus(8).memory(1000 << 20).resource("licence", 1.5).build().expect("a batch");
    let script = |kind: &str, most: usize| {
        format!(
            "mkdir {kind}.$$; n=$(ls -d {kind}.* | wc -l); sleep 0.03; rmdir {kind}.$$; test $n -le {most}"
        )
    };
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(sh(&batch, &script("cpus", 2)).cpus(4));
        all.push(sh(&batch, &script("memory", 3)).memory(300 << 20));
        all.push(sh(&batch, &script("licence", 3)).resource("licence", 0.5));
    }
    let all: Vec<_> = all.into_iter().map(|t| t.cwd(dir.path())).collect();
    batch.compile(&all).expect("a list").run().expect("never more than there is");
}

#[test]
fn two_batches_draw_on_one_ledger() {
    let dir = tempfile::tempdir().expect("a directory");
    let (a, b) = (Batch::new().expect("a batch"), Batch::new().expect("a batch"));
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
    let script = format!("mkdir in.$$; n=$(ls -d in.* | wc -l); sleep 0.02; rmdir in.$$; test $n -le {cpus}");
    let lists = [&a, &b].map(|batch| {
        let all: Vec<_> = (0..20).map(|_| sh(batch, &script).cwd(dir.path())).collect();
        let compiled = batch.compile(&all).expect("a list");
        compiled.start().expect("it starts");
        (all, compiled)
    });
    lists.iter().for_each(|(_, compiled)| compiled.wait().expect("never more than there are"));
}

#[test]
fn a_share_of_its_own_is_taken_from_the_others() {
    let granted = std::thread::available_parallelism().map_or(1, |n| n.get()) as u32;
    let own = Batch::builder().cpus(granted).build().expect("all of them");
    let error = Batch::builder().cpus(1).build().map(drop).expect_err("nothing is left");
    assert!(matches!(error, Error::NotEnoughCpus { asked: 1, left: 0, .. }), "{error}");
    assert!(Batch::new().is_err(), "nothing is left to share");
    drop(own);
    Batch::new().expect("they are free again").process("true").run().expect("it runs");
}

#[test]
fn functions_and_processes_share_the_cpus() {
    let dir = tempfile::tempdir().expect("a directory");
    let batch = Batch::builder().workers(Workers::Threads(1)).assume_cpus(1).build().expect("a batch");
    let path = dir.path().to_path_buf();
    let mut all: Vec<Box<dyn tarragon_engine::TaskList>> = Vec::new();
    let alone = Arc::new(AtomicBool::new(true));
    for i in 0..40 {
        all.push(Box::new(sh(&batch, "mkdir in && sleep 0.002 && rmdir in").cwd(&path)));
        let (path, alone) = (path.clone(), Arc::clone(&alone));
        all.push(Box::new(batch.closure(move || {
            let is_alone = fs::create_dir(path.join("in")).is_ok();
            std::thread::sleep(Duration::from_millis(i % 3));
            let _ = fs::remove_dir(path.join("in"));
            alone.fetch_and(is_alone, Ordering::SeqCst);
        })));
    }
    batch.compile(&all).expect("a list").run().expect("one at a time");
    assert!(alone.load(Ordering::SeqCst), "a function ran beside a process on one cpu");
}

fn waits_for_a_process(ctx: &Context) -> String {
    let inner = ctx.batch().expect("a batch").process("echo").arg("inner");
    inner.start().expect("it starts");
    inner.stdout().get().expect("its output")
}

#[test]
fn a_body_that_waits_for_a_process_gives_it_its_cpu() {
    for workers in [Workers::Serial, Workers::Threads(1)] {
        let batch = Batch::builder().workers(workers).assume_cpus(1).build().expect("a batch");
        let plain = batch.function(waits_for_a_process, ());
        let limited = batch.function(waits_for_a_process, ()).timeout(Duration::from_secs(60));
        batch.compile(tasks![plain, limited]).expect("a list").run().expect("both succeed");
        assert_eq!(plain.result().get().expect("a result"), "inner\n");
        assert_eq!(limited.result().get().expect("a result"), "inner\n");
    }
}

#[test]
fn a_process_with_two_cpus_is_bound_to_two() {
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
    if cpus < 2 {
        println!("skipped: binding: this machine grants one cpu");
        return;
    }
    let batch = Batch::builder().build().expect("a batch");
    let show = "grep Cpus_allowed_list /proc/self/status";
    let bound = sh(&batch, show).cpus(2);
    batch.compile(tasks![bound]).expect("a list").run().expect("it succeeds");
    let list = bound.stdout().get().expect("its output");
    let list = list.trim().rsplit(['\t', ' ']).next().expect("a list").to_string();
    let n: u32 = list
        .split(',')
        .map(|part| match part.split_once('-') {
            Some((a, b)) => b.parse::<u32>().expect("a cpu") - a.parse::<u32>().expect("a cpu") + 1,
            None => 1,
        })
        .sum();
    assert_eq!(n, 2, "bound to {list}");
}

#[test]
fn a_process_over_its_timeout_is_ended_with_its_tree() {
    let dir = tempfile::tempdir().expect("a directory");
    let batch = batch(2);
    let script =
        "trap '' TERM; (trap '' TERM; setsid sh -c 'echo $$ > pid; exec sleep 1000') & echo talks; wait";
    let task = sh(&batch, script)
        .cwd(dir.path())
        .timeout(Duration::from_millis(300))
        .grace(Duration::from_millis(50));
    task.run().expect_err("it is over its timeout");
    let error = task.wait().expect_err("it is over its timeout");
    assert_eq!(error.kind(), ErrorKind::OverTime);
    assert!(error.to_string().contains("over its timeout of 300ms, so it was ended"), "{error}");
    assert_eq!(error.last_lines(), Some("talks"));
    let pid = fs::read_to_string(dir.path().join("pid")).expect("the pid");
    wait_until("the grandchild is gone", || !Path::new("/proc").join(pid.trim()).exists());
    remove_kept(&task);
}

#[test]
fn a_process_over_its_memory_is_killed() {
    let batch = batch(2);
    let script = "x=0123456789abcdef; while :; do x=$x$x; done";
    let task = sh(&batch, script).memory(64 << 20).timeout(Duration::from_secs(60));
    task.run().expect_err("it is over its memory");
    let error = task.wait().expect_err("it is over its memory");
    assert_eq!(error.kind(), ErrorKind::OverMemory, "{error}");
    assert!(error.to_string().contains("over its memory of 67108864 bytes"), "{error}");
    remove_kept(&task);
}

fn asks(ctx: &Context) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !ctx.cancelled() {
        if Instant::now() > deadline {
            return Err("nobody asked".to_string());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

#[test]
fn a_function_is_asked_to_return_when_its_time_is_up() {
    for workers in [Workers::Serial, Workers::Threads(2)] {
        let batch = Batch::builder().workers(workers).build().expect("a batch");
        let task = batch.try_function(asks, ()).timeout(Duration::from_millis(20));
        let after = batch.function(|(): ()| 1u8, (task.result(),));
        let compiled = batch.compile(tasks![task, after]).expect("a list");
        compiled.run().expect_err("it is over its timeout");
        let error = task.result().get().expect_err("it is over its timeout");
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::OverTime, 1));
        assert_eq!(error.to_string(), format!("task #0 `{}` failed: over its timeout of 20ms", error.task()));
        assert_eq!(after.status(), Status::Skipped);
        wait_until("the body returns", || !matches!(compiled.start(), Err(Error::BodyStillRuns)));
        compiled.wait().expect_err("again");
    }
}

/// Ignores its timeout until it is let go, and touches what it was given all the time.
#[test]
fn a_body_that_ignores_its_timeout_is_replaced() {
    let batch = Batch::builder().workers(Workers::Threads(1)).assume_cpus(1).build().expect("a batch");
    let go = Arc::new(AtomicBool::new(false));
    let drops = Arc::new(AtomicU32::new(0));
    struct Counted(Arc<AtomicU32>, Vec<u8>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (waits, counted) = (Arc::clone(&go), Counted(Arc::clone(&drops), vec![7; 1000]));
    let stuck = batch.closure(move || {
        let mut sum = 0u64;
        while !waits.load(Ordering::SeqCst) {
            sum += counted.1.iter().map(|b| u64::from(*b)).sum::<u64>();
        }
        vec![sum]
    });
    let stuck = stuck.timeout(Duration::from_millis(30));
    let others: Vec<_> = (0..20u32).map(|i| batch.closure(move || i).cpus(1)).collect();
    let compiled = batch.compile(tasks![stuck, others]).expect("a list");
    compiled.run().expect_err("one is over its timeout");
    assert!(others.iter().all(|t| t.status() == Status::Done), "a stuck body keeps others from running");
    assert_eq!(stuck.result().with(|_| ()).expect_err("it failed").kind(), ErrorKind::OverTime);
    assert!(matches!(compiled.start(), Err(Error::BodyStillRuns)));
    assert_eq!(drops.load(Ordering::SeqCst), 0, "its captures were dropped under it");
    drop((compiled, stuck, others, batch));
    assert_eq!(drops.load(Ordering::SeqCst), 0, "its captures were dropped under it");
    go.store(true, Ordering::SeqCst);
    wait_until("the captures are dropped once the body returns", || drops.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_failed_task_is_tried_again_with_the_same_arguments() {
    for workers in [Workers::Serial, Workers::Threads(2)] {
        let batch = Batch::builder().workers(workers).build().expect("a batch");
        let tries = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&tries);
        let flaky = batch.try_closure(move || match count.fetch_add(1, Ordering::SeqCst) {
            n if n < 2 => Err(format!("attempt {n}")),
            n => Ok(n),
        });
        let flaky = flaky.retries(3).back_off(Duration::from_millis(1));
        fn text() -> String {
            "given".to_string()
        }
        static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
        SEEN.lock().expect("seen").clear();
        fn fails_twice(given: String, own: String) -> Result<usize, String> {
            let mut seen = SEEN.lock().expect("seen");
            seen.push(given + &own);
            if seen.len() < 3 { Err("not yet".to_string()) } else { Ok(seen.len()) }
        }
        let given = batch.function(text, ());
        let again = batch.try_function(fails_twice, (given.result(), "own".to_string())).retries(5);
        let never = batch
            .try_function(|| -> Result<(), String> { Err("always".into()) }, ())
            .retries(2)
            .name("never");
        let compiled = batch.compile(tasks![flaky, given, again, never]).expect("a list");
        let error = compiled.run_once().expect_err("one never succeeds");
        assert_eq!(error.to_string(), "task #3 `never` failed 3 times, at last: always");
        assert_eq!(flaky.result().get().expect("the third attempt"), 2);
        assert_eq!(again.result().get().expect("the third attempt"), 3);
        assert_eq!(*SEEN.lock().expect("seen"), ["givenown", "givenown", "givenown"]);
    }
}

#[test]
fn only_failures_that_are_worth_it_are_tried_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let batch = batch(2);
    let script = "echo x >> tries; exit $(wc -l < tries)";
    let task = sh(&batch, script).cwd(dir.path()).retries(9).retry_if(|error| error.exit_code() != Some(4));
    task.run().expect_err("the fourth attempt is the last");
    let error = task.wait().expect_err("it fails");
    assert_eq!((error.exit_code(), error.attempts()), (Some(4), 4));
    let again = sh(&batch, "echo x >> other; test $(wc -l < other) -eq 3; r=$?; echo attempt; exit $r");
    let again = again.cwd(dir.path()).retries(2).back_off(Duration::from_millis(5));
    again.run().expect("the third attempt succeeds");
    assert_eq!(
        again.stdout().get().expect("its output"),
        "attempt\n",
        "each attempt starts with empty output"
    );
    remove_kept(&task);
}

#[test]
fn cancelling_a_list_ends_what_runs_and_skips_the_rest() {
    let dir = tempfile::tempdir().expect("a directory");
    let batch = batch(2);
    let first = sh(&batch, "echo $$ > pid; sleep 1000").cwd(dir.path()).writes(dir.path().join("x"));
    let asked = batch.try_function(asks, ());
    let after = sh(&batch, "true").reads(dir.path().join("x"));
    let waiting: Vec<_> = (0..50).map(|_| sh(&batch, "sleep 1000")).collect();
    let compiled = batch.compile(tasks![asked, first, after, waiting]).expect("a list");
    compiled.start().expect("it starts");
    wait_until("the process runs", || dir.path().join("pid").exists());
    compiled.cancel();
    compiled.wait().expect_err("it was cancelled");
    assert_eq!(first.wait().expect_err("it was ended").kind(), ErrorKind::Cancelled);
    assert!(first.wait().expect_err("it was ended").to_string().contains("cancelled while it ran"));
    assert_eq!(after.status(), Status::Skipped);
    let mut kinds = waiting.iter().map(|t| t.wait().expect_err("cancelled").kind());
    assert!(kinds.all(|kind| kind == ErrorKind::Cancelled));
    assert_eq!(compiled.status(), Status::Failed);
    remove_kept(&first);
}

#[test]
fn cancelling_a_task_skips_what_needs_it() {
    for workers in [Workers::Threads(1), Workers::Threads(2)] {
        let batch = Batch::builder().workers(workers).build().expect("a batch");
        let gate = Arc::new(AtomicBool::new(false));
        let wait = Arc::clone(&gate);
        let first = batch.closure(move || {
            while !wait.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let (x, y) = (batch.datum("x"), batch.datum("y"));
        let first = first.writes(x);
        let second = batch.function(|| 5u64, ()).reads(x).writes(y);
        let third = batch.function(|n: u64| n, (second.result(),));
        let fourth = batch.function(|| 6u64, ()).writes(x);
        let compiled = batch.compile(tasks![first, second, third, fourth]).expect("a list");
        compiled.start().expect("it starts");
        second.cancel();
        gate.store(true, Ordering::SeqCst);
        compiled.wait().expect_err("one was cancelled");
        assert_eq!(second.result().get().expect_err("cancelled").kind(), ErrorKind::Cancelled);
        let error = third.result().get().expect_err("it needs the second");
        assert_eq!((error.kind(), error.chain().len()), (ErrorKind::Skipped, 2));
        assert_eq!(fourth.result().get().expect("it only overwrites"), 6);
        compiled.run().expect("a new run is not cancelled");
        assert_eq!(third.result().get().expect("a result"), 5);
    }
}

#[test]
fn everything_can_be_cancelled() {
    let batch = batch(1);
    let lists: Vec<_> = (0..5)
        .map(|_| {
            let all: Vec<_> = (0..10).map(|_| sh(&batch, "sleep 1000")).collect();
            let compiled = batch.compile(&all).expect("a list");
            compiled.start().expect("it starts");
            (all, compiled)
        })
        .collect();
    batch.cancel();
    for (all, compiled) in &lists {
        compiled.wait().expect_err("cancelled");
        assert!(all.iter().all(|t| t.wait().expect_err("cancelled").kind() == ErrorKind::Cancelled));
    }
    sh(&batch, "true").run().expect("what comes later is not cancelled");
    lists
        .iter()
        .flat_map(|(all, _)| all.iter())
        .find(|t| t.stdout().path().is_some())
        .into_iter()
        .for_each(remove_kept);
}

#[test]
fn a_timeout_beyond_the_clock_never_comes() {
    let batch = batch(1);
    let function = batch.function(|| 1u8, ()).timeout(Duration::MAX).grace(Duration::MAX);
    let process = sh(&batch, "true").timeout(Duration::MAX).grace(Duration::MAX);
    batch.compile(tasks![function, process]).expect("a list").run().expect("both succeed");
}
