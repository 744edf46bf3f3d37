//! What does a journal cost a task?
//!
//! Numbers to beat: 10^5 journaled tasks at most 2 µs each with the default (written at once, on the disk at most a
//! second later), beside the same tasks without a journal. Also shown: each record on the disk before the next task
//! (mode `each_record`, for few tasks), and resuming a list of which all is done.
//!
//! Tasks are functions of one `u64` whose result is recorded; they touch no files, since what the state of a file costs
//! is one `stat` each (about 1 µs).
//!
//! What was learned. 0.62 µs per task: half of it for the identity (name, arguments, a hash), half for the record. With
//! each record on the disk a task takes what the disk takes, 0.14 ms here.

mod measure;

use measure::{Figure, Options, System, compare, report, time};
use std::path::Path;
use std::time::Duration;
use tarragon::{Batch, JournalSync, Task, Workers, results};

fn main() {
    let options = Options::parse();
    let dir = tempfile::tempdir().expect("a directory");
    let (n, rounds) = if options.quick { (10_000, 5) } else { (100_000, 9) };
    if options.wants("functions") {
        functions(&options, dir.path(), n, rounds);
    }
    if options.wants("resume") {
        resume(&options, dir.path(), n);
    }
}

fn twice(x: u64) -> u64 {
    2 * x
}

fn batch(journal: Option<(&Path, JournalSync)>) -> Batch {
    let builder = Batch::builder().workers(Workers::Threads(2));
    match journal {
        None => builder.build(),
        Some((path, sync)) => builder.journal(path).resume(true).journal_sync(sync).build(),
    }
    .expect("a batch")
}

/// Declares, compiles and runs `n` tasks and reads their results back; only that is timed.
fn run(journal: Option<(&Path, JournalSync)>, n: usize) -> Duration {
    let batch = batch(journal);
    let took = time(|| {
        let all: Vec<Task<u64>> = (0..n as u64).map(|i| batch.function(twice, (i,))).collect();
        let compiled = batch.compile(&all).expect("a list");
        compiled.run().expect("all succeed");
        let sum: u64 = results(&all).expect("results").iter().sum();
        assert_eq!(sum, (n * (n - 1)) as u64);
        batch.flush_journal().expect("the journal is written");
    });
    batch.join().expect("the journal is whole");
    took
}

fn functions(options: &Options, dir: &Path, n: usize, rounds: usize) {
    let every = JournalSync::Every(Duration::from_secs(1));
    let fresh = |name: &str| {
        let path = dir.join(name);
        let _ = std::fs::remove_file(&path);
        path
    };
    for (mode, sync, n) in [
        ("default", every, n),
        ("never", JournalSync::Never, n),
        ("each_record", JournalSync::EachRecord, n / 1000),
    ] {
        let figure = Figure { bench: "journal", case: "functions", mode, n, unit: "ns/task", operations: n };
        compare(
            options,
            figure,
            rounds,
            vec![
                System::new("tarragon", 2, || run(Some((&fresh(mode), sync)), n)),
                System::new("no_journal", 2, || run(None, n)),
            ],
        );
    }
}

fn resume(options: &Options, dir: &Path, n: usize) {
    let path = dir.join("resume");
    let sync = JournalSync::Every(Duration::from_secs(1));
    run(Some((&path, sync)), n);
    let took = time(|| run(Some((&path, sync)), n));
    let figure = Figure { bench: "journal", case: "resume", mode: "-", n, unit: "ns/task", operations: n };
    report(options, figure, "tarragon", 2, took.as_nanos() as f64 / n as f64);
}
