//! What a batch takes from the machine: as many threads as it was given, whatever bodies use; nothing while it idles;
//! nothing once it is gone.
//!
//! The tests look at this whole process, so they take turns.

use rayon::prelude::*;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};
use tarragon_engine::{Batch, Builder, Context, Task, Workers};

fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn batch(threads: usize) -> Batch {
    Builder::default().workers(Workers::Threads(threads)).build().expect("a batch")
}

/// Every thread of this process: its number, name and state.
fn threads() -> Vec<(u32, String, char)> {
    let all = fs::read_dir("/proc/self/task").expect("the system lists threads");
    let one = |entry: fs::DirEntry| {
        let id = entry.file_name().into_string().ok()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
        Some((id, name.to_string(), rest.chars().next()?))
    };
    // A thread that ends meanwhile has no files any more.
    all.filter_map(|entry| one(entry.ok()?)).collect()
}

fn workers() -> Vec<String> {
    let mut names: Vec<String> =
        threads().into_iter().map(|(_, name, _)| name).filter(|name| name.starts_with("tarragon-")).collect();
    names.sort();
    names
}

/// Waits until `test` holds, at most ten seconds.
fn soon(what: &str, test: impl Fn() -> bool) {
    let start = Instant::now();
    while !test() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}: {:?}", threads());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn spin(rounds: u64) -> u64 {
    (0..rounds)
        .fold(1, |x: u64, i| std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(i)))
}

fn alone(rounds: u64) -> u64 {
    spin(rounds)
}

fn with_rayon(rounds: u64) -> u64 {
    let part = |_| {
        let thread = std::thread::current();
        assert!(
            thread.name().is_some_and(|name| name.starts_with("tarragon-")),
            "{thread:?} is not the batch's"
        );
        spin(rounds / 64)
    };
    (0..64u64).into_par_iter().map(part).reduce(|| 0, u64::wrapping_add)
}

/// Samples how many threads could run, beside the sampler, while `work` goes on.
fn runnable(work: impl FnOnce()) -> Vec<usize> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let own = fs::read_link("/proc/thread-self").expect("a thread has a number");
            let own = own.file_name().and_then(|n| n.to_str()?.parse().ok()).expect("a number");
            let mut samples = Vec::new();
            while !over.load(Ordering::Relaxed) {
                samples.push(threads().iter().filter(|(id, _, state)| *id != own && *state == 'R').count());
                std::thread::sleep(Duration::from_micros(500));
            }
            samples
        });
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        worked.expect("the work ends well");
        sampler.join().expect("the sampler ends")
    })
}

#[test]
fn bodies_that_use_rayon_share_the_batchs_threads() {
    let _turn = turn();
    for n in [1, 2, 4] {
        let batch = batch(n);
        let body = |i: u64| if i.is_multiple_of(2) { alone as fn(u64) -> u64 } else { with_rayon };
        // A run takes long enough for its user, who is runnable only between runs, not to count.
        let rounds = 2_000_000;
        let tasks: Vec<Task<u64>> = (0..64u64)
            .map(|i| {
                let body = body(i);
                batch.closure(move || body(rounds))
            })
            .collect();
        let compiled = batch.compile(&tasks).expect("compiles");
        let mut names = Vec::new();
        let samples = runnable(|| {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(400) {
                compiled.run().expect("runs");
            }
            names = workers();
        });
        assert_eq!(names, (0..n).map(|i| format!("tarragon-{i}")).collect::<Vec<_>>());
        let many = samples.iter().filter(|s| **s > n).count();
        assert!(many * 20 <= samples.len(), "{many} of {} samples show more than {n} threads", samples.len());
        assert!(samples.iter().any(|s| *s >= n), "all {n} threads work at some time: {samples:?}");
        drop((compiled, tasks, batch));
        soon("the workers end", || workers().is_empty());
    }
}

/// Nanoseconds that the workers have been on a CPU.
fn cpu_of_workers() -> u64 {
    let own = threads().into_iter().filter(|(_, name, _)| name.starts_with("tarragon-"));
    let on_cpu = |id: u32| {
        let text = fs::read_to_string(format!("/proc/self/task/{id}/schedstat")).expect("times of a thread");
        text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).expect("a number")
    };
    own.map(|(id, ..)| on_cpu(id)).sum()
}

#[test]
fn an_idle_batch_uses_no_cpu() {
    let _turn = turn();
    let batch = batch(4);
    let tasks: Vec<_> = (0..1000u64).map(|_| batch.function(alone, (100u64,))).collect();
    let compiled = batch.compile(&tasks).expect("compiles");
    compiled.run().expect("runs");
    assert!(cpu_of_workers() > 0, "the system measures");
    let long = std::env::var_os("TARRAGON_TEST_LONG").is_some();
    std::thread::sleep(Duration::from_millis(100));
    let before = cpu_of_workers();
    std::thread::sleep(Duration::from_secs(if long { 5 } else { 2 }));
    let used = Duration::from_nanos(cpu_of_workers() - before);
    assert!(used <= Duration::from_millis(1), "{used:?} while there was nothing to do");
}

#[test]
fn nothing_is_left_of_a_batch() {
    let _turn = turn();
    let count = |folder: &str| fs::read_dir(folder).expect("readable").count();
    let state = || (workers().len(), count("/proc/self/fd"), count("/dev/shm"));
    let round = || {
        let batch = batch(3);
        let big = |ctx: &Context| {
            use std::io::Write;
            ctx.out().write_all(&vec![b'x'; 3 << 20]).expect("output");
        };
        let tasks: Vec<_> = (0..50).map(|_| batch.function(big, ())).collect();
        let compiled = batch.compile(&tasks).expect("compiles");
        compiled.run().expect("runs");
        assert!(tasks[0].stdout().get().expect("text").len() == 3 << 20);
        let inner = batch.function(|ctx: &Context| ctx.batch().expect("it has one").workers(), ());
        inner.run().expect("runs");
    };
    round();
    soon("the workers end", || workers().is_empty());
    let before = state();
    (0..5).for_each(|_| round());
    soon("all is as before", || state() == before);
}

#[test]
fn tasks_and_handles_keep_the_workers_no_longer_than_they_live() {
    let _turn = turn();
    let batch = batch(2);
    let task = batch.function(alone, (1u64,));
    let handle = task.result();
    let compiled = batch.compile(&task).expect("compiles");
    drop((batch, task));
    compiled.run().expect("runs without its batch");
    assert_eq!(handle.get().expect("ran"), spin(1));
    soon("both workers are there", || workers().len() == 2);
    drop((compiled, handle));
    soon("the workers end", || workers().is_empty());
}

#[test]
fn dropping_the_last_batch_finishes_what_was_started() {
    let _turn = turn();
    static ENDED: AtomicU64 = AtomicU64::new(0);
    fn slow(x: u64) -> u64 {
        std::thread::sleep(Duration::from_millis(1));
        ENDED.fetch_add(1, Ordering::SeqCst);
        x
    }
    let batch = batch(4);
    let clone = batch.clone();
    let tasks: Vec<_> = (0..100u64).map(|i| batch.function(slow, (i,))).collect();
    let compiled = batch.compile(&tasks).expect("compiles");
    compiled.start().expect("starts");
    drop((compiled, tasks));
    drop(batch);
    drop(clone);
    assert_eq!(ENDED.load(Ordering::SeqCst), 100);
    soon("the workers end", || workers().is_empty());
}

/// A body has a client of its own, which must not make the user's last one return early.
#[test]
fn dropping_the_last_batch_waits_for_bodies_that_hold_it() {
    let _turn = turn();
    static ENDED: AtomicBool = AtomicBool::new(false);
    let batch = batch(2);
    let (inside, wait) = mpsc::channel();
    let inside = Mutex::new(inside);
    let clients = batch.function(
        |ctx: &Context| {
            let batch = ctx.batch().expect("it runs in a batch");
            let inner = batch.closure(|| {
                std::thread::sleep(Duration::from_millis(50));
                ENDED.store(true, Ordering::SeqCst);
            });
            inner.run().expect("runs");
        },
        (),
    );
    let signal =
        batch.closure(move || inside.lock().expect("not poisoned").send(()).expect("the test waits"));
    let compiled = batch.compile((&signal, &clients)).expect("compiles");
    compiled.start().expect("starts");
    drop((compiled, signal, clients));
    wait.recv().expect("the run has begun");
    std::thread::sleep(Duration::from_millis(10));
    drop(batch);
    assert!(ENDED.load(Ordering::SeqCst));
    soon("the workers end", || workers().is_empty());
}
