//! How much memory does a compiled graph take beside the user's arguments and results?
//!
//! Number to beat: 64 bytes per task plus 4 per edge, for 10^5 tasks of each shape; allocations are counted. Everything
//! counts that compile and the tasks themselves allocate and keep (declared reads and writes too), except 8 bytes for
//! each task's argument and 8 for its result; measured after a run by two workers, so that every array is there.

mod measure;
#[expect(dead_code, reason = "the shapes alone are needed here")]
mod peers;

use measure::alloc::Counting;
use measure::{Figure, Options, report};
use peers::body;
use peers::shapes::{NAMES, Shape};
use tarragon::{Batch, Keys, Task, Workers};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes of argument and result, both `u64`.
const USERS_BYTES: usize = 16;

fn main() {
    let options = Options::parse();
    let n = if options.quick { 10_000 } else { 100_000 };
    for case in NAMES.into_iter().filter(|c| options.wants(c)) {
        let shape = Shape::new(case, n);
        let batch = Batch::builder().workers(Workers::Threads(2)).build().expect("a batch");
        let keys = batch.keys("data");
        // Names of data and the buffers of compile belong to the batch: a first list, kept, brings them.
        let first = declare(&batch, &keys, &shape);
        let first_compiled = batch.compile(&first).expect("the list is right");
        let mut tasks = Vec::with_capacity(n);
        let before = Counting::kept();
        declare_into(&mut tasks, &batch, &keys, &shape);
        let compiled = batch.compile(&tasks).expect("the list is right");
        compiled.run().expect("no task fails");
        let edges = compiled.edges();
        report_one(&options, case, n, edges, Counting::kept() - before);
        drop((first, first_compiled));
    }
}

fn declare(batch: &Batch, keys: &Keys, shape: &Shape) -> Vec<Task<u64>> {
    let mut tasks = Vec::new();
    declare_into(&mut tasks, batch, keys, shape);
    tasks
}

fn declare_into(tasks: &mut Vec<Task<u64>>, batch: &Batch, keys: &Keys, shape: &Shape) {
    tasks.extend((0..shape.len()).map(|i| {
        let task = batch.function(body, (i as u64,));
        shape.reads[i].iter().fold(task, |t, k| t.reads(keys.at(*k))).writes(keys.at(shape.writes[i]))
    }));
}

fn report_one(options: &Options, case: &str, n: usize, edges: usize, kept: usize) {
    let per_task = (kept as f64 - (USERS_BYTES * n) as f64 - 4.0 * edges as f64) / n as f64;
    let figure = Figure { bench: "memory", case, mode: "compiled", n, unit: "B/task", operations: 1 };
    report(options, figure, "tarragon", 2, per_task);
    let figure = Figure { mode: "edges", unit: "edges/task", ..figure };
    report(options, figure, "tarragon", 2, edges as f64 / n as f64);
}
