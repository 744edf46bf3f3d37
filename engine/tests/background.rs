//! Background mode: submitted tasks run by themselves, in program order per client, whatever makes them run.

use proptest::prelude::*;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tarragon_engine::{Batch, Context, Error, ErrorKind, Status, Task, Workers, tasks};
use tarragon_transport::Place;

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn executors() -> [Workers; 3] {
    [Workers::Serial, Workers::Threads(1), Workers::Threads(2)]
}

fn batch(workers: Workers) -> Batch {
    Batch::builder().workers(workers).build().expect("a batch")
}

/// A task reads what another writes, both submitted before; a third takes the reader's result, a fourth writes again.
/// The fourth waits for the reader, which is known for two reasons.
#[test]
fn a_later_writer_waits_for_a_reader_whose_result_is_an_argument() {
    for threads in [2, 4] {
        let batch = batch(Workers::Threads(threads));
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        let to = path.clone();
        let write = batch.closure(move || {
            std::thread::sleep(Duration::from_millis(30));
            fs::write(&to, "first").expect("a file");
        });
        let from = path.clone();
        let read = batch.closure(move || {
            std::thread::sleep(Duration::from_millis(100));
            fs::read_to_string(&from).expect("a file")
        });
        let (write, read) = (write.writes(&path), read.reads(&path));
        batch.submit(tasks![write, read]).expect("they are queued");
        let _ = write.result().get_timeout(Duration::from_micros(1));
        let take = batch.function(|text: String| text, (read.result(),));
        let again = path.clone();
        let write_again = batch.closure(move || fs::write(&again, "second").expect("a file")).writes(&path);
        batch.submit(tasks![take, write_again]).expect("they are queued");
        batch.fence().expect("all succeed");
        assert_eq!(take.result().get().expect("it ran"), "first");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "second");
    }
}

#[test]
fn each_trigger_runs_what_is_queued() {
    for workers in executors() {
        let batch = batch(workers);
        let dir = tempfile::tempdir().expect("a directory");
        let got = batch.function(|| 7u64, ());
        batch.submit(&got).expect("it is queued");
        assert_eq!(got.result().get().expect("it runs"), 7);

        let path = dir.path().join("f");
        let to = path.clone();
        let write = batch.closure(move || fs::write(&to, "written").expect("a file")).writes(&path);
        batch.submit(&write).expect("it is queued");
        assert_eq!(batch.file(&path).expect("a file").read_to_string().expect("it is written"), "written");

        let fenced = batch.function(|| 8u64, ());
        batch.submit(&fenced).expect("it is queued");
        batch.fence().expect("it succeeds");
        assert_eq!(fenced.status(), Status::Done);

        let idle = batch.function(|| 9u64, ());
        batch.submit(&idle).expect("it is queued");
        wait_until("an idle queue runs", || idle.status() == Status::Done);

        let many: Vec<_> = (0..1024u64).map(|i| batch.function(|i: u64| i, (i,))).collect();
        batch.submit(&many).expect("they are queued");
        assert!(many.iter().all(|t| t.status() != Status::Queued), "a full window is compiled at once");

        let timed = batch.process("echo").arg("x");
        batch.submit(&timed).expect("it is queued");
        assert_eq!(timed.stdout().get().expect("it runs"), "x\n");
    }
}

#[test]
fn data_in_a_segment_is_read_after_those_who_write_it() {
    for workers in executors() {
        let batch = batch(workers);
        let place = |uid, bytes: &[u8]| Place { uid, bytes: bytes.to_vec(), home: None };
        let cell = Arc::new(AtomicU64::new(0));
        for value in 1..=20u64 {
            let to = Arc::clone(&cell);
            let write = batch.closure(move || {
                std::thread::sleep(Duration::from_micros(50));
                assert_eq!(to.swap(value, Ordering::Relaxed), value - 1, "writers keep their order");
            });
            batch.submit(write.writes(place(7, b"k"))).expect("it is queued");
        }
        let submitted = batch.submitted();
        submitted.written(place(8, b"k")).expect("nobody writes it");
        submitted.written(place(7, b"other")).expect("nobody writes it");
        submitted.written(place(7, b"k")).expect("they succeed");
        assert_eq!(cell.load(Ordering::Relaxed), 20);

        let fails = batch.try_function(|| Err::<(), String>("no".into()), ()).writes(place(7, b"k"));
        batch.submit(&fails).expect("it is queued");
        assert!(matches!(submitted.written(place(7, b"k")), Err(Error::Task(_))));
    }
}

#[test]
fn what_was_never_submitted_is_an_error() {
    let batch = batch(Workers::Threads(1));
    let task = batch.function(|| 1u8, ());
    assert_eq!(task.result().get().expect_err("never submitted").kind(), ErrorKind::NotStarted);
    batch.submit(&task).expect("it is queued");
    assert!(matches!(batch.submit(&task), Err(Error::AlreadyStarted(_))));
    assert!(matches!(task.start(), Err(Error::AlreadyStarted(_))));
    let error = batch.compile(tasks![task]).map(drop).expect_err("it is submitted");
    assert!(error.to_string().contains("was already compiled, submitted or started"), "{error}");
    task.wait().expect("it runs once");
    assert!(matches!(batch.submit(&task), Err(Error::AlreadyStarted(_))));
    let foreground = Batch::builder().background(false).build().expect("a batch");
    let task = foreground.function(|| 1u8, ());
    assert!(matches!(foreground.submit(&task), Err(Error::NoBackground)));
    let wrong = batch.process("true").cpus(0);
    let error = batch.submit(&wrong).expect_err("a mistake");
    assert!(error.to_string().contains("asks for 0 of cpus"), "{error}");
    let missing = batch.process("no-such-program-anywhere");
    let error = batch.submit(&missing).expect_err("a mistake");
    assert!(error.to_string().contains("no program `no-such-program-anywhere` in PATH"), "{error}");
    let other = self::batch(Workers::Threads(1));
    let foreign = other.function(|| 1u8, ());
    assert!(batch.submit(&foreign).expect_err("a mistake").to_string().contains("belongs to another batch"));
}

/// What a task does to the cells: for each write, a value made of its number and of all it read.
fn apply(cells: &[AtomicU64], number: u64, reads: &[usize], writes: &[usize]) {
    let mut value = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for read in reads {
        value = value.rotate_left(7) ^ cells[*read].load(Ordering::Relaxed);
    }
    for write in writes {
        cells[*write].store(value, Ordering::Relaxed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn program_order_holds_across_batches(
        program in prop::collection::vec(
            (prop::collection::vec(0usize..6, 0..3), prop::collection::vec(0usize..6, 0..2), 0u8..12), 1..120
        ),
        workers in 0usize..3,
    ) {
        let batch = batch(executors()[workers]);
        let keys = batch.keys("cell");
        let cells: Arc<Vec<AtomicU64>> = Arc::new((0..6).map(|_| AtomicU64::new(0)).collect());
        let plain: Vec<AtomicU64> = (0..6).map(|_| AtomicU64::new(0)).collect();
        for (number, (reads, writes, what)) in program.iter().enumerate() {
            apply(&plain, number as u64, reads, writes);
            let (cells, r, w) = (Arc::clone(&cells), reads.clone(), writes.clone());
            let mut task = batch.closure(move || {
                if w.len() % 2 == 1 {
                    std::thread::yield_now();
                }
                apply(&cells, number as u64, &r, &w);
            });
            for read in reads {
                task = task.reads(keys.at(*read as u64));
            }
            for write in writes {
                task = task.writes(keys.at(*write as u64));
            }
            batch.submit(&task).expect("it is queued");
            match what {
                0 => batch.fence().expect("all succeed"),
                1 => task.wait().expect("it succeeds"),
                2 => std::thread::sleep(Duration::from_micros(200)),
                3 | 4 => drop(batch.file("/nowhere").expect("a path").wait()),
                _ => {}
            }
        }
        batch.fence().expect("all succeed");
        let shown = |cells: &[AtomicU64]| cells.iter().map(|c| c.load(Ordering::Relaxed)).collect::<Vec<_>>();
        prop_assert_eq!(shown(&cells), shown(&plain));
    }
}

#[test]
fn directories_keep_their_order_across_batches() {
    for workers in executors() {
        let batch = batch(workers);
        let log = Arc::new(Mutex::new(Vec::new()));
        let note = |what: &'static str| {
            let log = Arc::clone(&log);
            move || {
                std::thread::sleep(Duration::from_millis(3));
                log.lock().expect("the log").push(what);
            }
        };
        let submit = |task: Task<()>| {
            batch.submit(&task).expect("it is queued");
            // The first of several batches: everything so far is compiled now.
            batch.file("/elsewhere").expect("a path").wait().expect("nothing writes it");
        };
        submit(batch.closure(note("write a/f")).writes("/a/f"));
        submit(batch.closure(note("read a")).reads("/a"));
        submit(batch.closure(note("write a")).writes("/a"));
        submit(batch.closure(note("read a/g")).reads("/a/g"));
        submit(batch.closure(note("write a/g/h")).writes("/a/g/h"));
        batch.fence().expect("all succeed");
        let log = log.lock().expect("the log").clone();
        assert_eq!(log, ["write a/f", "read a", "write a", "read a/g", "write a/g/h"]);
    }
}

#[test]
fn a_program_may_be_made_by_an_earlier_submission() {
    let batch = batch(Workers::Threads(2));
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("made");
    let script = "echo '#!/bin/sh\necho made' > made; chmod +x made";
    let make = batch.process("/bin/sh").arg("-c").arg(script).cwd(dir.path()).writes(&program);
    batch.submit(&make).expect("it is queued");
    batch.file("/elsewhere").expect("a path").wait().expect("nothing writes it");
    let run = batch.process(&program).reads(&program);
    batch.submit(&run).expect("it is queued");
    assert_eq!(run.stdout().get().expect("it runs"), "made\n");
}

#[test]
fn a_failure_reaches_readers_in_later_batches() {
    for workers in executors() {
        let batch = batch(workers);
        let (x, y) = (batch.datum("x"), batch.datum("y"));
        let now = || batch.file("/elsewhere").expect("a path").wait().expect("nothing writes it");
        let fails =
            batch.try_function(|| -> Result<u64, String> { Err("no".into()) }, ()).writes(x).name("fails");
        batch.submit(&fails).expect("it is queued");
        now();
        let reads = batch.function(|| 1u64, ()).reads(x).writes(y).name("reads");
        batch.submit(&reads).expect("it is queued");
        now();
        fails.wait().expect_err("it fails");
        let late = batch.function(|| 2u64, ()).reads(y).name("late");
        let takes = batch.function(|n: u64| n, (fails.result(),)).name("takes");
        let over = batch.function(|| 3u64, ()).writes(x);
        batch.submit(tasks![late, takes, over]).expect("they are queued");
        let fine = batch.function(|| 4u64, ()).reads(x);
        batch.submit(&fine).expect("it is queued");
        assert_eq!(late.result().get().expect_err("skipped").chain(), ["late", "reads", "fails"]);
        assert_eq!(takes.result().get().expect_err("skipped").chain(), ["takes", "fails"]);
        assert_eq!(over.result().get().expect("it only overwrites"), 3);
        assert_eq!(fine.result().get().expect("it reads what was overwritten"), 4);
        let error = batch.fence().expect_err("one failed");
        assert!(error.to_string().contains("`fails` failed: no"), "{error}");
        batch.fence().expect("told once");
        let after = batch.function(|| 5u64, ()).reads(y);
        batch.submit(&after).expect("it is queued");
        assert_eq!(after.result().get().expect("a fence empties the frontier"), 5);
    }
}

#[test]
fn results_are_arguments_across_batches_and_clients() {
    for workers in executors() {
        let first = batch(workers);
        let second = first.clone();
        let mut last = first.function(|| 0u64, ());
        first.submit(&last).expect("it is queued");
        for i in 1..200u64 {
            let client = if i % 3 == 0 { &second } else { &first };
            let next = client.function(|n: u64| n + 1, (last.result(),));
            client.submit(&next).expect("it is queued");
            if i % 17 == 0 {
                next.wait().expect("it succeeds");
            }
            last = next;
        }
        assert_eq!(last.result().get().expect("a result"), 199);
    }
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|l| l.starts_with("VmRSS")).expect("a line");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// Ten times as many submissions need no more memory.
#[test]
fn a_stream_of_submissions_needs_bounded_memory() {
    let n: u64 = if std::env::var_os("TARRAGON_TEST_LONG").is_some() { 1_000_000 } else { 200_000 };
    let batch = batch(Workers::Threads(2));
    let keys = batch.keys("cell");
    let sum = Arc::new(AtomicU64::new(0));
    let stream = |from: u64, to: u64| {
        for i in from..to {
            let sum = Arc::clone(&sum);
            let body = move || {
                sum.fetch_add(i, Ordering::Relaxed);
            };
            let task = batch.closure(body).reads(keys.at(i % 1000)).writes(keys.at((i * 7) % 1000));
            batch.submit(&task).expect("it is queued");
        }
    };
    stream(0, n / 10);
    let before = resident_kib();
    stream(n / 10, n);
    let after = resident_kib();
    batch.fence().expect("all succeed");
    assert_eq!(sum.load(Ordering::Relaxed), n * (n - 1) / 2);
    println!("{n} submissions: {before} KiB after a tenth, {after} KiB at the end");
    assert!(after < before + 40_000, "{before} KiB after a tenth, {after} KiB at the end");
}

#[test]
fn tasks_that_are_dropped_still_run() {
    let count = Arc::new(AtomicU64::new(0));
    let batch = batch(Workers::Threads(2));
    for _ in 0..10 {
        let count = Arc::clone(&count);
        let task = batch.closure(move || count.fetch_add(1, Ordering::Relaxed));
        batch.submit(&task).expect("it is queued");
    }
    drop(batch);
    assert_eq!(count.load(Ordering::Relaxed), 10, "the last client waits for what it submitted");
}

#[test]
fn a_closed_client_submits_no_more_and_others_go_on() {
    let batch = batch(Workers::Threads(2));
    let other = batch.clone();
    let queued = batch.function(|| 1u64, ());
    batch.submit(&queued).expect("it is queued");
    batch.close().expect("it closes");
    batch.close().expect("it is closed");
    let late = batch.function(|| 2u64, ());
    assert!(matches!(batch.submit(&late), Err(Error::Closed)));
    assert!(matches!(batch.compile(tasks![late]).map(drop), Err(Error::Closed)));
    assert_eq!(queued.result().get().expect("what was submitted runs"), 1);
    other.submit(&late).expect("another client goes on");
    assert_eq!(late.result().get().expect("it runs"), 2);
}

#[test]
fn join_waits_for_every_client_and_all_work() {
    let batch = batch(Workers::Threads(2));
    let ended = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (client, ended) = (batch.clone(), Arc::clone(&ended));
            std::thread::spawn(move || {
                for _ in 0..50 {
                    let ended = Arc::clone(&ended);
                    let task = client.closure(move || ended.fetch_add(1, Ordering::SeqCst));
                    client.submit(&task).expect("it is queued");
                    std::thread::sleep(Duration::from_micros(100));
                }
                // Dropped without `close`: counts as closed.
            })
        })
        .collect();
    batch.join().expect("all succeed");
    assert_eq!(ended.load(Ordering::SeqCst), 200, "join came back before the clients were done");
    threads.into_iter().for_each(|t| t.join().expect("the thread ends"));
}

fn submits(ctx: &Context, depth: u64) -> u64 {
    if depth == 0 {
        return 1;
    }
    let batch = ctx.batch().expect("a batch");
    let parts: Vec<_> = (0..3).map(|_| batch.function(submits, (depth - 1,))).collect();
    batch.submit(&parts).expect("they are queued");
    parts.iter().map(|p| p.result().get().expect("a result")).sum()
}

#[test]
fn tasks_submit_tasks() {
    for workers in executors() {
        let batch = batch(workers);
        let top = batch.function(submits, (4u64,));
        batch.submit(&top).expect("it is queued");
        assert_eq!(top.result().get().expect("a result"), 81);
    }
}

#[test]
fn a_body_that_fences_its_own_client_is_told() {
    let batch = batch(Workers::Threads(1));
    let own = Arc::new(Mutex::new(Some(batch.clone())));
    let told = Arc::new(AtomicBool::new(false));
    let client = Arc::clone(&own);
    let (inside, tells) = (Arc::clone(&own), Arc::clone(&told));
    let task = batch.closure(move || {
        let client = inside.lock().expect("the client");
        let result = client.as_ref().expect("a client").fence();
        tells.store(matches!(result, Err(Error::WaitsForItself)), Ordering::SeqCst);
    });
    client.lock().expect("the client").as_ref().expect("a client").submit(&task).expect("it is queued");
    task.wait().expect("it succeeds");
    assert!(told.load(Ordering::SeqCst));
    own.lock().expect("the client").take();
}
