//! What does one empty function task cost, with its argument and result, and do bodies of 1-10 µs run at full speed?
//!
//! Numbers to beat: `rerun` at 2 threads at most 1/3 of a rayon scope with counters on every shape; at 1 thread at
//! most 1.5x a serial loop over the same counters and bodies; `declare` (stencil: 3 reads and 1 write per task, dense
//! integer keys, 10^5) at most 1/2 of what rayon takes to box its closures and run them with the edges given; a chain
//! of 1 µs bodies at most 1.05x the plain loop; independent 10 µs bodies on 2 threads at least 0.95x of what a bare
//! two-thread loop gains; idle for 5 s: at most 1 ms of CPU time; to note when and where each task runs (`traced`): at
//! most 100 ns per task.
//!
//! Results are read back and summed inside the timed work of every system, and checked.
//!
//! What was learned. Two cores on empty bodies lose to one on every shape with edges (a counter lowered by both is a
//! cache line that travels: 25-60 ns per task against 5), so a run begins on one worker and is opened when the clock
//! says so; an interrupt makes one or two slow windows of 64 nodes, so four must follow each other. Missed: one thread
//! against the serial loop on independent, chain and tree, at 2-4x. Alone on the machine it is 7 ns against 3.6-6, but
//! here six systems share the caches and a record is a line of 64 bytes where the loop reads 24; at 10^4 tasks the
//! hand-over to the worker adds 5 ns per task. Prefetching 12 records ahead changed nothing. A system that is always
//! timed right after another finds that one's workers still looking for work: hence the changing order, and a pause.

mod measure;
mod peers;

use measure::{Figure, Options, System, compare, median, report, time};
use peers::shapes::{NAMES, Shape};
use peers::{Prebuilt, body, rayon_boxed, rayon_pool};
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::{Duration, Instant};
use tarragon::{Batch, Compiled, Keys, Task, Workers, results};

fn main() {
    let options = Options::parse();
    let sizes: &[(usize, usize)] =
        if options.quick { &[(10_000, 7)] } else { &[(10_000, 41), (100_000, 21), (1_000_000, 7)] };
    for (n, rounds) in sizes {
        for case in NAMES.into_iter().filter(|c| options.wants(c)) {
            rerun(&options, case, *n, *rounds);
            declare(&options, case, *n, *rounds);
        }
    }
    if options.wants("chain_1us") {
        chain_of_1us(&options);
    }
    if options.wants("independent_10us") {
        independent_10us(&options);
    }
    if options.wants("traced") {
        [1, 2].into_iter().for_each(|threads| traced(&options, threads));
    }
    if options.wants("idle") {
        idle(&options);
    }
}

fn batch(threads: usize) -> Batch {
    Batch::builder().workers(Workers::Threads(threads)).build().expect("a batch")
}

/// Declares the tasks of a shape: each reads what its sources write.
fn tasks(batch: &Batch, keys: &Keys, shape: &Shape) -> Vec<Task<u64>> {
    (0..shape.len())
        .map(|i| {
            let task = batch.function(body, (i as u64,));
            shape.reads[i].iter().fold(task, |t, k| t.reads(keys.at(*k))).writes(keys.at(shape.writes[i]))
        })
        .collect()
}

/// Runs and reads every result back.
fn run_and_sum(compiled: &Compiled, tasks: &[Task<u64>]) -> u64 {
    compiled.run().expect("no task fails");
    results(tasks).expect("every task ran").iter().fold(0, |sum, r| sum.wrapping_add(*r))
}

/// A compiled graph, run again.
fn rerun(options: &Options, case: &str, n: usize, rounds: usize) {
    let graph = Prebuilt::new(Shape::new(case, n));
    let expected = (0..n as u64).fold(0u64, |sum, i| sum.wrapping_add(body(i)));
    let batches = [batch(1), batch(2)];
    let built: Vec<(Vec<Task<u64>>, Compiled)> = batches
        .iter()
        .map(|batch| {
            let tasks = tasks(batch, &batch.keys("data"), &graph.shape);
            let compiled = batch.compile(&tasks).expect("the list is right");
            (tasks, compiled)
        })
        .collect();
    let pool = rayon_pool(2);
    let (mut counters, mut results) = (Vec::new(), vec![0; n]);
    let checked = |sum: u64| assert_eq!(sum, expected, "a result is wrong");
    let graph = &graph;
    let systems = vec![
        System::new("tarragon", 2, || time(|| checked(run_and_sum(&built[1].1, &built[1].0)))),
        System::new("tarragon_1", 1, || time(|| checked(run_and_sum(&built[0].1, &built[0].0)))),
        System::new("serial", 1, || time(|| checked(graph.serial(&mut counters, &mut results)))),
        System::new("rayon", 2, || time(|| checked(graph.rayon(&pool)))),
        System::new("rayon_inline", 2, || time(|| checked(graph.rayon_inline(&pool)))),
        System::new("crossbeam", 2, || time(|| checked(graph.crossbeam(2)))),
    ];
    let figure = Figure { bench: "tasks", case, mode: "rerun", n, unit: "ns/task", operations: n };
    compare(options, figure, rounds, systems);
}

/// Declare, compile, run, read back, drop.
fn declare(options: &Options, case: &str, n: usize, rounds: usize) {
    let shape = Shape::new(case, n);
    let expected = (0..n as u64).fold(0u64, |sum, i| sum.wrapping_add(body(i)));
    let checked = |sum: u64| assert_eq!(sum, expected, "a result is wrong");
    let ours = batch(2);
    let keys = ours.keys("data");
    let pool = rayon_pool(2);
    let counters: Vec<AtomicU32> = shape.in_degree.iter().map(|d| AtomicU32::new(*d)).collect();
    let results: Vec<AtomicU64> = (0..n).map(|_| AtomicU64::new(0)).collect();
    let systems = vec![
        System::new("tarragon", 2, || {
            time(|| {
                let tasks = tasks(&ours, &keys, &shape);
                let compiled = ours.compile(&tasks).expect("the list is right");
                checked(run_and_sum(&compiled, &tasks));
            })
        }),
        System::new("rayon", 2, || time(|| checked(rayon_boxed(&shape, &counters, &results, &pool)))),
    ];
    let figure = Figure { bench: "tasks", case, mode: "declare", n, unit: "ns/task", operations: n };
    compare(options, figure, rounds, systems);
}

/// Iterations of [`spin`] that take about a microsecond here.
fn spins_per_us() -> u64 {
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let elapsed = time(|| spin(1_000_000));
        best = best.min(elapsed.as_secs_f64());
    }
    (1.0 / best) as u64
}

/// Work that takes time in proportion to `n` and touches no memory.
fn spin(n: u64) -> u64 {
    let mut x = n | 1;
    for _ in 0..n {
        x = black_box(x.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(7));
    }
    x
}

/// A chain of bodies of 1 µs on two threads against the plain loop.
fn chain_of_1us(options: &Options) {
    let n = if options.quick { 2_000 } else { 10_000 };
    let spins = spins_per_us();
    let ours = batch(2);
    let datum = ours.datum("chain");
    let tasks: Vec<Task<u64>> =
        (0..n).map(|_| ours.function(spin, (spins,)).reads(datum).writes(datum)).collect();
    let compiled = ours.compile(&tasks).expect("the list is right");
    let expected = spin(spins).wrapping_mul(n as u64);
    let systems = vec![
        System::new("tarragon", 2, || time(|| assert_eq!(run_and_sum(&compiled, &tasks), expected))),
        System::new("loop", 1, || {
            time(|| assert_eq!((0..n).fold(0u64, |s, _| s.wrapping_add(spin(black_box(spins)))), expected))
        }),
    ];
    let figure =
        Figure { bench: "tasks", case: "chain_1us", mode: "rerun", n, unit: "ns/task", operations: n };
    compare(options, figure, if options.quick { 7 } else { 41 }, systems);
}

/// Independent bodies of 10 µs on two threads against a bare loop on two threads.
fn independent_10us(options: &Options) {
    let n: usize = if options.quick { 2_000 } else { 10_000 };
    let spins = spins_per_us() * 10;
    let ours = batch(2);
    let tasks: Vec<Task<u64>> = (0..n).map(|_| ours.function(spin, (spins,))).collect();
    let compiled = ours.compile(&tasks).expect("the list is right");
    let expected = spin(spins).wrapping_mul(n as u64);
    let half = |len: usize| (0..len).fold(0u64, |s, _| s.wrapping_add(spin(black_box(spins))));
    let systems = vec![
        System::new("tarragon", 2, || time(|| assert_eq!(run_and_sum(&compiled, &tasks), expected))),
        System::new("two_loops", 2, || {
            time(|| {
                let sum = std::thread::scope(|scope| {
                    let other = scope.spawn(|| half(n / 2));
                    half(n - n / 2).wrapping_add(other.join().expect("the loop ends"))
                });
                assert_eq!(sum, expected);
            })
        }),
        System::new("loop", 1, || time(|| assert_eq!(half(n), expected))),
    ];
    let figure =
        Figure { bench: "tasks", case: "independent_10us", mode: "rerun", n, unit: "ns/task", operations: n };
    compare(options, figure, if options.quick { 5 } else { 15 }, systems);
}

/// What it costs to note when and where each task runs: empty tasks with and without, in turn.
fn traced(options: &Options, threads: usize) {
    let n: usize = if options.quick { 10_000 } else { 100_000 };
    let rounds = if options.quick { 11 } else { 41 };
    let built = [false, true].map(|timing| {
        let batch =
            Batch::builder().workers(Workers::Threads(threads)).timing(timing).build().expect("a batch");
        let tasks: Vec<Task<u64>> = (0..n as u64).map(|i| batch.function(body, (i,))).collect();
        let compiled = batch.compile(&tasks).expect("the list is right");
        (tasks, compiled)
    });
    let expected = (0..n as u64).fold(0u64, |sum, i| sum.wrapping_add(body(i)));
    let run = |traced: usize| {
        let (tasks, compiled) = &built[traced];
        let took = time(|| assert_eq!(run_and_sum(compiled, tasks), expected, "a result is wrong"));
        std::thread::sleep(Duration::from_micros(500));
        took.as_nanos() as f64 / n as f64
    };
    let pairs: Vec<[f64; 2]> = (0..rounds)
        .map(|round| {
            // Whoever comes second finds warmer caches, so they take turns.
            let first = run(round % 2);
            let second = run(1 - round % 2);
            if round % 2 == 0 { [first, second] } else { [second, first] }
        })
        .collect();
    let figure =
        || Figure { bench: "tasks", case: "independent", mode: "traced", n, unit: "ns/task", operations: n };
    let of = |value: fn(&[f64; 2]) -> f64| median(pairs.iter().map(value).collect());
    report(options, figure(), "off", threads, of(|[off, _]| *off));
    report(options, figure(), "on", threads, of(|[_, on]| *on));
    report(options, figure(), "on_minus_off", threads, of(|[off, on]| on - off));
}

/// CPU time of this process while a batch that has just worked is idle.
fn idle(options: &Options) {
    let seconds = if options.quick { 1 } else { 5 };
    let ours = batch(2);
    let tasks: Vec<Task<u64>> = (0..10_000u64).map(|i| ours.function(body, (i,))).collect();
    let compiled = ours.compile(&tasks).expect("the list is right");
    black_box(run_and_sum(&compiled, &tasks));
    std::thread::sleep(Duration::from_millis(50));
    let (cpu, start) = (cpu_time(), Instant::now());
    while let Some(left) = Duration::from_secs(seconds).checked_sub(start.elapsed()) {
        std::thread::sleep(left);
    }
    let used = cpu_time() - cpu;
    let figure = Figure { bench: "tasks", case: "idle", mode: "idle", n: 0, unit: "us CPU", operations: 1 };
    report(options, figure, "tarragon", 2, used.as_secs_f64() * 1e6);
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
