//! Random lists on every number of workers: each task sees what the sequential program would have shown it, and ends
//! as it would have ended, whatever fails, however lists are nested, and whoever else runs.

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use tarragon_engine::{Batch, Builder, Compiled, Error, Status, Task, TaskList, Workers, tasks};

/// Cells that each datum stands for: a directory stands for the files below it, too.
const DATA: [(&str, &[usize]); 8] = [
    ("x", &[0]),
    ("y", &[1]),
    ("rows[3]", &[2]),
    ("rows[4]", &[3]),
    ("/q/d", &[4, 5, 6]),
    ("/q/d/f", &[5]),
    ("/q/d/g", &[6]),
    ("/q/e", &[7]),
];
const CELLS: usize = 8;

/// What tasks share: per cell the last writer and how often it was written, and who is inside.
#[derive(Default)]
struct World {
    cells: [AtomicU64; CELLS],
    /// Readers inside, or -1 for a writer.
    inside: [AtomicI32; CELLS],
    seen: Mutex<Vec<Seen>>,
}

static WORLDS: LazyLock<Mutex<Vec<Arc<World>>>> = LazyLock::new(Mutex::default);

impl World {
    fn new() -> (usize, Arc<World>) {
        let mut worlds = WORLDS.lock().expect("not poisoned");
        worlds.push(Arc::default());
        (worlds.len() - 1, Arc::clone(&worlds[worlds.len() - 1]))
    }

    /// As before the first run; returns what the last one has seen.
    fn reset(&self) -> Vec<Seen> {
        self.cells.iter().for_each(|c| c.store(0, Ordering::Relaxed));
        let mut seen = std::mem::take(&mut *self.seen.lock().expect("not poisoned"));
        seen.sort_by_key(|s| s.id);
        seen
    }
}

/// How a body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum End {
    Well,
    Fails,
    Panics,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Step {
    id: usize,
    reads: Vec<usize>,
    writes: Vec<usize>,
    takes: Vec<usize>,
    end: End,
    by_reference: bool,
}

/// What a body saw: its own id, the contents of the cells it read, and what its arguments saw, as one number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Seen {
    id: usize,
    cells: Vec<u64>,
    inputs: Vec<u64>,
}

impl Seen {
    fn digest(&self) -> u64 {
        let words = self.cells.iter().chain(&self.inputs);
        words.fold(self.id as u64 + 1, |d, w| (d ^ w).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23))
    }
}

fn cells<'a>(data: &'a [usize], but: &'a [usize]) -> impl Iterator<Item = usize> + 'a {
    let of = |data: &'a [usize]| data.iter().flat_map(|d| DATA[*d].1.iter().copied());
    let mut all: Vec<usize> = of(data).filter(move |c| !of(but).any(|b| b == *c)).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter()
}

/// What every body does.
fn perform(world: &World, step: &Step, inputs: Vec<u64>) -> Seen {
    let seen = Seen {
        id: step.id,
        cells: cells(&step.reads, &[]).map(|c| world.cells[c].load(Ordering::Relaxed)).collect(),
        inputs,
    };
    for cell in cells(&step.writes, &[]) {
        let version = world.cells[cell].load(Ordering::Relaxed) & 0xffff_ffff;
        world.cells[cell].store(((step.id as u64 + 1) << 32) | (version + 1), Ordering::Relaxed);
    }
    world.seen.lock().expect("not poisoned").push(seen.clone());
    seen
}

fn body(world: usize, step: &Step, inputs: &[Seen]) -> Result<Seen, String> {
    let world = Arc::clone(&WORLDS.lock().expect("not poisoned")[world]);
    for cell in cells(&step.writes, &[]) {
        assert_eq!(world.inside[cell].swap(-1, Ordering::SeqCst), 0, "task {} writes alone", step.id);
    }
    for cell in cells(&step.reads, &step.writes) {
        assert!(
            world.inside[cell].fetch_add(1, Ordering::SeqCst) >= 0,
            "task {} is no writer's peer",
            step.id
        );
    }
    let seen = perform(&world, step, inputs.iter().map(Seen::digest).collect());
    if step.id.is_multiple_of(7) {
        std::thread::yield_now();
    }
    cells(&step.writes, &[]).for_each(|c| world.inside[c].store(0, Ordering::SeqCst));
    cells(&step.reads, &step.writes).for_each(|c| {
        world.inside[c].fetch_sub(1, Ordering::SeqCst);
    });
    match step.end {
        End::Well => Ok(seen),
        End::Fails => Err(format!("{} was told to fail", step.id)),
        End::Panics => panic!("{} was told to panic", step.id),
    }
}

fn body_by_value(world: usize, step: Step, inputs: Vec<Seen>) -> Result<Seen, String> {
    body(world, &step, &inputs)
}

/// How a task ended, and the failed task that it was skipped for.
type Outcome = (Status, Option<String>);

/// The sequential program, without the engine: what each task sees and how it ends.
fn sequential(steps: &[Step]) -> (Vec<Seen>, Vec<Outcome>) {
    let world = World::default();
    let mut values: Vec<Option<Seen>> = vec![None; steps.len()];
    let mut roots: Vec<Option<usize>> = vec![None; steps.len()];
    let mut outcomes = Vec::new();
    for step in steps {
        let mut needs = step.takes.clone();
        step.reads.iter().for_each(|datum| needs.extend(sources(steps, step.id, *datum)));
        let root = needs.iter().filter_map(|n| roots[*n]).min();
        if root.is_some() {
            roots[step.id] = root;
            outcomes.push((Status::Skipped, root.map(|r| format!("t{r}"))));
            continue;
        }
        let inputs = step.takes.iter().map(|t| values[*t].as_ref().expect("it ended well").digest());
        let seen = perform(&world, step, inputs.collect());
        if step.end == End::Well {
            values[step.id] = Some(seen);
            outcomes.push((Status::Done, None));
        } else {
            roots[step.id] = Some(step.id);
            outcomes.push((Status::Failed, Some(format!("t{}", step.id))));
        }
    }
    (world.reset(), outcomes)
}

/// The latest writer of a datum or a directory above it, and later writers of what is below.
fn sources(steps: &[Step], at: usize, datum: usize) -> Vec<usize> {
    let covers = |above: usize, below: usize| DATA[below].1.iter().all(|c| DATA[above].1.contains(c));
    let whole = (0..at).rev().find(|s| steps[*s].writes.iter().any(|w| covers(*w, datum)));
    let since = whole.map_or(0, |w| w + 1);
    let parts = (since..at).filter(|s| steps[*s].writes.iter().any(|w| covers(datum, *w)));
    whole.into_iter().chain(parts).collect()
}

/// Makes the tasks of a list.
fn make(batch: &Batch, world: usize, steps: &[Step]) -> Vec<Task<Seen>> {
    let mut made: Vec<Task<Seen>> = Vec::new();
    for step in steps {
        let inputs: Vec<_> = step.takes.iter().map(|t| made[*t].result()).collect();
        let mut task = if step.by_reference {
            batch.try_function(body, (world, step, inputs))
        } else {
            batch.try_function(body_by_value, (world, step, inputs))
        };
        for (data, writes) in [(&step.reads, false), (&step.writes, true)] {
            for datum in data {
                let name = DATA[*datum].0;
                let id = match name.strip_prefix("rows[") {
                    Some(key) => batch.keys("rows").at(key.trim_end_matches(']').parse().expect("a number")),
                    None if name.starts_with('/') => batch.file(name).expect("an absolute path").id(),
                    None => batch.datum(name),
                };
                task = if writes { task.writes(id) } else { task.reads(id) };
            }
        }
        made.push(task.name(format!("t{}", step.id)));
    }
    made
}

/// How the latest run ended, as the handles tell.
fn outcomes(made: &[Task<Seen>]) -> Vec<Outcome> {
    let one = |task: &Task<Seen>| {
        let root = task.wait().err().map(|e| e.chain().last().expect("itself, at least").to_string());
        (task.status(), root)
    };
    made.iter().map(one).collect()
}

/// Compiles with some ranges of the list as compiled batches of their own; `ranges` lie inside each other or apart.
fn nest(batch: &Batch, made: &[Task<Seen>], whole: Range<usize>, ranges: &[Range<usize>]) -> Compiled {
    let mut parts: Vec<Box<dyn TaskList + '_>> = Vec::new();
    let mut at = whole.start;
    while at < whole.end {
        let inner = |r: &&Range<usize>| r.start == at && r.end <= whole.end && **r != whole;
        match ranges.iter().filter(inner).max_by_key(|r| r.len()) {
            Some(range) => {
                parts.push(Box::new(nest(batch, made, range.clone(), ranges)));
                at = range.end;
            }
            None => {
                parts.push(Box::new(&made[at]));
                at += 1;
            }
        }
    }
    batch.compile(parts).expect("no mistakes")
}

/// Runs a list three times and compares each run with the sequential program.
fn agrees(batch: &Batch, steps: &[Step], ranges: &[Range<usize>]) {
    let (world_id, world) = World::new();
    let wanted = sequential(steps);
    let made = make(batch, world_id, steps);
    let compiled = nest(batch, &made, 0..made.len(), ranges);
    assert_eq!(compiled.len(), steps.len());
    compiled.graph().check().expect("edges go up");
    for run in 0..3 {
        let result = compiled.run();
        assert_eq!((world.reset(), outcomes(&made)), wanted, "run {run} of {steps:#?} with {ranges:?}");
        let failed = wanted.1.iter().position(|(status, _)| *status == Status::Failed);
        assert_eq!(result.is_err(), failed.is_some());
        if let (Err(Error::Task(error)), Some(_)) = (&result, failed) {
            assert_eq!(error.chain().len(), 1, "the error of a run is a task that failed itself: {error}");
        }
        assert_eq!(compiled.failures().len(), wanted.1.iter().filter(|o| o.0 != Status::Done).count());
        for (task, seen) in made.iter().zip(&wanted.1) {
            assert_eq!(task.result().get().is_ok(), seen.0 == Status::Done);
        }
    }
}

fn batches() -> Vec<Batch> {
    let all = [Workers::Serial, Workers::Threads(1), Workers::Threads(2), Workers::Threads(8)];
    all.iter().map(|w| Builder::default().workers(*w).build().expect("a batch")).collect()
}

/// Lists of up to `tasks`, a part of which fails, and ranges to be compiled on their own.
fn lists(tasks: usize, failing: u32) -> impl Strategy<Value = (Vec<Step>, Vec<Range<usize>>)> {
    let end = prop_oneof![
        100 - failing => Just(End::Well), failing.div_ceil(2) => Just(End::Fails), failing / 2 => Just(End::Panics),
    ];
    let data = || prop::collection::vec(0..DATA.len(), 0..3);
    let takes = prop::collection::vec(0usize..10_000, 0..3);
    let step = (data(), data(), takes, end, any::<bool>(), 0u8..4);
    let cuts = prop::collection::vec((0..tasks, 1..tasks), 0..4);
    (prop::collection::vec(step, 0..=tasks), cuts).prop_map(|(steps, cuts)| {
        let n = steps.len();
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for (start, len) in cuts {
            let range = start.min(n)..(start + len).min(n);
            let apart = |r: &Range<usize>| r.end <= range.start || range.end <= r.start;
            let inside = |r: &Range<usize>, o: &Range<usize>| o.start <= r.start && r.end <= o.end;
            let fits = |r: &Range<usize>| apart(r) || inside(r, &range) || inside(&range, r);
            if !range.is_empty() && ranges.iter().all(fits) {
                ranges.push(range);
            }
        }
        let innermost =
            |at: usize| ranges.iter().filter(|r| r.contains(&at)).map(|r| r.start).max().unwrap_or(0);
        type Drawn = (Vec<usize>, Vec<usize>, Vec<usize>, End, bool, u8);
        let make = |(id, drawn): (usize, Drawn)| {
            let (reads, mut writes, takes, end, by_reference, few) = drawn;
            let floor = innermost(id);
            let takes: Vec<usize> =
                takes.into_iter().filter(|_| id > floor).map(|t| floor + t % (id - floor)).collect();
            if few > 0 {
                writes.clear();
            }
            Step { id, reads, writes, takes, end, by_reference }
        };
        (steps.into_iter().enumerate().map(make).collect(), ranges)
    })
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 400, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn every_task_sees_what_the_sequential_program_shows((steps, _) in lists(60, 0)) {
        batches().iter().for_each(|batch| agrees(batch, &steps, &[]));
    }

    #[test]
    fn failures_skip_the_same_tasks_on_any_number_of_workers((steps, _) in lists(60, 12)) {
        batches().iter().for_each(|batch| agrees(batch, &steps, &[]));
    }

    #[test]
    fn nested_compiled_batches_change_nothing((steps, ranges) in lists(40, 8)) {
        batches().iter().for_each(|batch| agrees(batch, &steps, &ranges));
    }
}

proptest! {
    #![proptest_config(config(15))]

    #[test]
    fn runs_at_the_same_time_do_not_disturb_each_other(all in prop::collection::vec(lists(40, 8), 4)) {
        for batch in batches() {
            std::thread::scope(|scope| {
                for (steps, ranges) in &all {
                    scope.spawn(|| agrees(&batch, steps, ranges));
                }
            });
        }
    }

    #[test]
    fn long_lists_agree((steps, ranges) in lists(600, 1)) {
        batches().iter().for_each(|batch| agrees(batch, &steps, &ranges));
    }
}

#[test]
fn a_compiled_batch_runs_alone_and_as_part_of_another() {
    for batch in batches() {
        let (world_id, world) = World::new();
        let one = |id, takes| Step {
            id,
            reads: vec![0],
            writes: vec![0],
            takes,
            end: End::Well,
            by_reference: id % 2 == 0,
        };
        let steps = vec![one(0, vec![]), one(1, vec![0]), one(2, vec![0, 1]), one(3, vec![1])];
        let made = make(&batch, world_id, &steps);
        let inner = batch.compile(&made[..2]).expect("compiles");
        let outer = batch.compile(tasks![inner, &made[2..]]).expect("compiles");
        for _ in 0..3 {
            inner.run().expect("runs");
            assert_eq!(world.reset(), sequential(&steps[..2]).0);
            outer.run().expect("runs");
            assert_eq!(world.reset(), sequential(&steps).0);
        }
    }
}
