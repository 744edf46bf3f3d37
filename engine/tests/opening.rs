//! A run begins on one worker; these tests make it open to the others at every kind of moment: by a long body at the
//! start, in the middle, after many short ones, by slow bodies, with failures before and after.

use std::sync::Mutex;
use std::time::{Duration, Instant};
use tarragon_engine::{Batch, Builder, ErrorKind, Task, Workers, results, tasks};

fn batch(workers: Workers) -> Batch {
    Builder::default().workers(workers).build().expect("a batch")
}

/// Bodies that must be inside at the same time: how many are, by meeting.
static INSIDE: Mutex<[usize; 64]> = Mutex::new([0; 64]);

/// Waits until `all` bodies of a meeting are inside; false if they do not come in time.
fn meet(meeting: usize, all: usize) -> bool {
    INSIDE.lock().expect("nobody panics with the lock")[meeting] += 1;
    let start = Instant::now();
    while INSIDE.lock().expect("nobody panics with the lock")[meeting] < all {
        if start.elapsed() > Duration::from_secs(20) {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

fn tiny(i: u64) -> u64 {
    i
}

/// `before` tiny tasks, then as many bodies as there are workers, which must all be inside at once, then tiny tasks.
fn long_bodies_meet(workers: usize, before: u64, meeting: usize) {
    let batch = batch(Workers::Threads(workers));
    let first: Vec<_> = (0..before).map(|i| batch.function(tiny, (i,))).collect();
    let long: Vec<_> = (0..workers).map(|_| batch.function(meet, (meeting, workers))).collect();
    let last: Vec<_> = (0..500).map(|i| batch.function(tiny, (i,))).collect();
    batch.compile(tasks![first, long, last]).expect("compiles").run().expect("runs");
    assert!(
        results(&long).expect("they ran").iter().all(|met| *met),
        "a worker was not let in: {workers} workers, {before} tasks before"
    );
    assert_eq!(results(&last).expect("they ran").iter().sum::<u64>(), 499 * 500 / 2);
}

#[test]
fn a_long_body_never_keeps_the_others_from_working() {
    for (meeting, (workers, before)) in
        [(2, 0), (2, 1), (2, 9), (2, 100), (2, 5_000), (2, 100_000), (4, 0), (4, 3_000), (8, 1_000)]
            .into_iter()
            .enumerate()
    {
        long_bodies_meet(workers, before, meeting);
    }
}

#[test]
fn a_long_body_behind_a_dependence_lets_the_others_in() {
    let batch = batch(Workers::Threads(2));
    for meeting in 40..44 {
        let datum = batch.datum("chain");
        let chain: Vec<_> =
            (0..3_000).map(|i| batch.function(tiny, (i,)).reads(datum).writes(datum)).collect();
        let pair: Vec<_> = (0..2).map(|_| batch.function(meet, (meeting, 2)).reads(datum)).collect();
        let end = batch.function(tiny, (7,)).writes(datum);
        batch.compile(tasks![chain, pair, end]).expect("compiles").run().expect("runs");
        assert_eq!(results(&pair).expect("they ran"), [true, true]);
    }
}

/// A small generator: the lists must be the same on every executor.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Mixes what it is given; sleeps or fails when told to.
fn mix(own: u64, sleep_us: u64, fails: bool, inputs: Vec<u64>) -> Result<u64, String> {
    if sleep_us > 0 {
        std::thread::sleep(Duration::from_micros(sleep_us));
    }
    if fails {
        return Err(format!("{own} fails"));
    }
    Ok(inputs.iter().fold(own, |sum, i| sum.wrapping_mul(31).wrapping_add(*i)))
}

/// A list of tasks that take results of earlier ones; few of them are slow, few fail.
fn list(batch: &Batch, seed: u64, len: u64) -> Vec<Task<u64>> {
    let mut random = Random(seed | 1);
    let mut tasks: Vec<Task<u64>> = Vec::new();
    for i in 0..len {
        let sources = if i == 0 { 0 } else { random.below(4) };
        let inputs: Vec<_> = (0..sources).map(|_| tasks[random.below(i) as usize].result()).collect();
        let sleep_us = if random.below(60) == 0 { random.below(400) } else { 0 };
        let fails = random.below(80) == 0;
        tasks.push(batch.try_function(mix, (i, sleep_us, fails, inputs)));
    }
    tasks
}

/// What became of each task: its value, or how it ended and who was to blame.
fn outcomes(tasks: &[Task<u64>]) -> Vec<Result<u64, (ErrorKind, String)>> {
    let blame =
        |e: &tarragon_engine::TaskError| e.to_string().rsplit("failed: ").next().unwrap_or("").to_string();
    tasks.iter().map(|t| t.result().get().map_err(|e| (e.kind(), blame(&e)))).collect()
}

#[test]
fn opening_changes_no_outcome() {
    for seed in 1..40u64 {
        let serial = batch(Workers::Serial);
        let tasks = list(&serial, seed * 7919, 400);
        let _ = serial.compile(&tasks).expect("compiles").run();
        let wanted = outcomes(&tasks);
        for workers in [2, 3] {
            let batch = batch(Workers::Threads(workers));
            let tasks = list(&batch, seed * 7919, 400);
            let compiled = batch.compile(&tasks).expect("compiles");
            for run in 0..3 {
                let _ = compiled.run();
                assert_eq!(outcomes(&tasks), wanted, "seed {seed}, {workers} workers, run {run}");
            }
        }
    }
}
