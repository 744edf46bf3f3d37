//! What does inference cost: declare tasks with reads and writes and compile them, without running?
//!
//! Numbers to beat: 3 reads and 1 write per task; time per task from 10^4 to 10^6 tasks grows less than 1.5x for dense
//! integer keys and less than 8x for random ones; file paths cost at most 8x dense keys; 10^4 readers between two
//! writes cost no more per access than anything else (edges are counted).
//!
//! `vs` of a case holds its ratio to `dense` in the same round. A graph that one worker runs alone never needs its
//! arrays; they are made here by asking for the number of edges, so that the whole of inference is in the clock.

mod measure;

use measure::{Figure, Options, System, compare, report, time};
use std::hint::black_box;
use std::path::PathBuf;
use tarragon::{Batch, DataId, Task, Workers};

fn main() {
    let options = Options::parse();
    let sizes: &[(usize, usize)] =
        if options.quick { &[(10_000, 5)] } else { &[(10_000, 41), (100_000, 15), (1_000_000, 5)] };
    let mut dense = Vec::new();
    for (n, rounds) in sizes {
        if options.wants("dense") {
            dense.push(all_names(&options, *n, *rounds));
        }
    }
    growth(&options, sizes, &dense);
    if options.wants("readers") {
        readers(&options);
    }
}

fn batch() -> Batch {
    Batch::builder().workers(Workers::Threads(1)).build().expect("a batch")
}

fn body(i: u64) -> u64 {
    i
}

/// Where task `i` of a grid 100 wide reads and writes: three cells of the row before, its own cell.
fn cells(i: usize) -> ([usize; 3], usize) {
    let above = i.saturating_sub(100);
    ([above.saturating_sub(1), above, above + 1], i)
}

/// The names of `n` data, by what they are made of.
fn names(batch: &Batch, case: &str, n: usize) -> Vec<DataId> {
    let keys = batch.keys(case);
    (0..=n as u64)
        .map(|i| match case {
            "dense" => keys.at(i),
            _ => keys.at(scatter(i)),
        })
        .collect()
}

/// A random-looking integer key, different for every `i`.
fn scatter(i: u64) -> u64 {
    let x = (i ^ (i >> 31)).wrapping_mul(0x7FB5_D329_728E_A185);
    (x ^ (x >> 27)).wrapping_mul(0x81DA_DEF4_BC2D_D44D) | 1 << 63
}

/// Declares, compiles, makes the arrays; returns the number of edges.
fn compile(batch: &Batch, tasks: &[Task<u64>]) -> usize {
    batch.compile(tasks).expect("the list is right").edges()
}

/// Dense keys, random keys and paths side by side; returns their medians in ns per task.
fn all_names(options: &Options, n: usize, rounds: usize) -> Vec<f64> {
    let (dense, random, files) = (batch(), batch(), batch());
    let paths: Vec<PathBuf> =
        (0..=n).map(|i| PathBuf::from(format!("/data/run/{:03}/cell_{i:07}.bin", i / 1000))).collect();
    let (dense_keys, random_keys) = (dense.keys("dense"), random.keys("random"));
    drop((names(&dense, "dense", n), names(&random, "random", n)));
    let by_key = |batch: &Batch, name: &dyn Fn(usize) -> DataId| {
        let tasks: Vec<Task<u64>> = (0..n)
            .map(|i| {
                let (reads, write) = cells(i);
                let task = batch.function(body, (i as u64,));
                let task = task.reads(name(reads[0])).reads(name(reads[1])).reads(name(reads[2]));
                task.writes(name(write))
            })
            .collect();
        black_box(compile(batch, &tasks))
    };
    let by_path = || {
        let tasks: Vec<Task<u64>> = (0..n)
            .map(|i| {
                let (reads, write) = cells(i);
                let task = files.function(body, (i as u64,));
                let task = task.reads(&paths[reads[0]]).reads(&paths[reads[1]]).reads(&paths[reads[2]]);
                task.writes(&paths[write])
            })
            .collect();
        black_box(compile(&files, &tasks))
    };
    let mut medians = Vec::new();
    let dense_round = || time(|| by_key(&dense, &|i| dense_keys.at(i as u64)));
    let cases: [(&str, System<'_>); 2] = [
        (
            "random",
            System::new("tarragon", 1, || time(|| by_key(&random, &|i| random_keys.at(scatter(i as u64))))),
        ),
        ("paths", System::new("tarragon", 1, || time(by_path))),
    ];
    for (case, system) in cases {
        let figure = Figure { bench: "compile", case, mode: "declare", n, unit: "ns/task", operations: n };
        let dense = System::new("dense", 1, dense_round);
        let times = compare(options, figure, rounds, vec![system, dense]);
        if medians.is_empty() {
            let figure = Figure { case: "dense", ..figure };
            report(options, figure, "tarragon", 1, times[1]);
            medians.push(times[1]);
        }
        medians.push(times[0]);
    }
    medians
}

/// How much more a task costs in the largest list than in the smallest.
fn growth(options: &Options, sizes: &[(usize, usize)], medians: &[Vec<f64>]) {
    if medians.len() < 2 {
        return;
    }
    let n = sizes[sizes.len() - 1].0;
    for (i, case) in ["dense", "random", "paths"].into_iter().enumerate() {
        let ratio = medians[medians.len() - 1][i] / medians[0][i];
        let figure = Figure { bench: "compile", case, mode: "growth", n, unit: "x", operations: 1 };
        report(options, figure, "tarragon", 1, ratio);
    }
}

/// 10^4 readers between two writes, again and again.
fn readers(options: &Options) {
    let (readers, times) = if options.quick { (1_000, 10) } else { (10_000, 10) };
    let n = (readers + 1) * times;
    let ours = batch();
    let datum = ours.datum("shared");
    let declare = || {
        let tasks: Vec<Task<u64>> = (0..n)
            .map(|i| {
                let task = ours.function(body, (i as u64,));
                if i % (readers + 1) == 0 { task.writes(datum) } else { task.reads(datum) }
            })
            .collect();
        compile(&ours, &tasks)
    };
    let edges = declare();
    let figure =
        Figure { bench: "compile", case: "readers", mode: "declare", n, unit: "ns/task", operations: n };
    let systems = vec![System::new("tarragon", 1, || time(declare))];
    compare(options, figure, if options.quick { 5 } else { 15 }, systems);
    let figure = Figure { mode: "edges", unit: "per access", ..figure };
    report(options, figure, "tarragon", 1, edges as f64 / n as f64);
}
