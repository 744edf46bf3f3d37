//! What does a task cost more when a template makes it than when it is built by hand, and how fast are rows planned?
//!
//! Numbers to beat: at most 1 µs more per call than the same task built by hand, in the same round; 10^5 rows of a
//! parameter sweep planned in 1 s and 100 MB.
//!
//! Tasks are made and dropped, neither compiled nor run. `over` is the difference of the medians.

mod measure;

use measure::{Figure, Options, System, compare, report, time};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tarragon::ptd::workflow::{self, Planned, Range};
use tarragon::ptd::{Imported, Source, Template, function, selector};
use tarragon::{Batch, Exit, Given, Workers};

fn main() {
    let options = Options::parse();
    let rounds = if options.quick { 7 } else { 41 };
    let n = if options.quick { 2_000 } else { 20_000 };
    if options.wants("plain") {
        plain(&options, n, rounds);
    }
    if options.wants("guide") {
        guide(&options, n, rounds);
    }
    if options.wants("process") {
        process(&options, n, rounds);
    }
    if options.wants("sweep") {
        sweep(&options);
    }
}

fn batch() -> Batch {
    Batch::builder().workers(Workers::Threads(1)).build().expect("a batch")
}

fn load<R: 'static>(
    text: &str,
    bind: impl FnOnce(tarragon::ptd::Import) -> tarragon::ptd::Import,
) -> Imported<R> {
    let template = Template::of_text("bench.yml", text).expect("the template is right");
    bind(template.import()).load().expect("what is given fits")
}

/// A template's calls against tasks built by hand.
fn versus(options: &Options, case: &str, n: usize, rounds: usize, call: impl Fn(u64), by_hand: impl Fn(u64)) {
    let figure = Figure { bench: "ptd", case, mode: "make", n, unit: "ns/task", operations: n };
    let systems = vec![
        System::new("tarragon", 1, || time(|| (0..n as u64).for_each(&call))),
        System::new("by hand", 1, || time(|| (0..n as u64).for_each(&by_hand))),
    ];
    let medians = compare(options, figure, rounds, systems);
    report(options, Figure { mode: "over", ..figure }, "tarragon", 1, medians[0] - medians[1]);
}

/// A function of two numbers.
fn plain(options: &Options, n: usize, rounds: usize) {
    fn add(a: u64, b: u64) -> u64 {
        a + b
    }
    let ours = batch();
    let text =
        "{import_args: [add], args: [a, b], type: function, executables: [{target: add, args: [a, b]}]}";
    let add_lazy = load::<u64>(text, |import| import.function(function(add)));
    let call = |i| drop(black_box(add_lazy.task(&ours, (i, 7)).expect("a task")));
    versus(options, "plain", n, rounds, call, |i| drop(black_box(ours.function(add, (i, 7)))));
}

/// The template of the guide: a large argument, two files that a selector names, a name and a timeout.
fn guide(options: &Options, n: usize, rounds: usize) {
    #[expect(clippy::ptr_arg, reason = "the value that is shared is a vector")]
    fn multiply(matrix: &Vec<f64>, i: u64) -> f64 {
        matrix[i as usize % matrix.len()]
    }
    fn file(dir: &Path, i: u64, next: u64) -> PathBuf {
        dir.join(format!("file_{}", i + next))
    }
    let text = include_str!("../ptd/tests/data/gpu_matmul_ptd.yml");
    let (ours, theirs, matrix) = (batch(), batch(), Arc::new(vec![1.0; 1 << 20]));
    let dir = PathBuf::from("/data/runs/powers");
    let get_file = selector(|dir: PathBuf, i: u64, next: u64| file(&dir, i, next));
    let multiply_lazy =
        load::<f64>(text, |import| import.function(function(multiply)).arg(&dir).selector(get_file));
    let call = |i| drop(black_box(multiply_lazy.task(&ours, (&matrix, i)).expect("a task")));
    let by_hand = |i| {
        let task = theirs.function(multiply, (Given::Value(Arc::clone(&matrix)), i));
        let task = task.reads(file(&dir, i, 0)).writes(file(&dir, i, 1));
        drop(black_box(task.name("gpu_matmul_task").timeout(Duration::from_secs(30))));
    };
    versus(options, "guide", n, rounds, call, by_hand);
}

/// A process with arguments, a variable and a file.
fn process(options: &Options, n: usize, rounds: usize) {
    let text = "
args: [i]
type: process
executables: [{target: ./solve, args: [--step, i, --out, {format: ['out/{i}.dat']}], env: {OMP_NUM_THREADS: 1}}]
writes: [{files: [{format: ['out/{i}.dat']}]}]
name: {format: ['solve {i}']}
";
    let (ours, theirs) = (batch(), batch());
    let solve = load::<Exit>(text, |import| import);
    let call = |i: u64| drop(black_box(solve.task(&ours, (i,)).expect("a task")));
    let by_hand = |i: u64| {
        let out = format!("out/{i}.dat");
        let task =
            theirs.process("./solve").arg("--step").arg(i).arg("--out").arg(&out).env("OMP_NUM_THREADS", 1);
        drop(black_box(task.writes(&out).name(format!("solve {i}"))));
    };
    versus(options, "process", n, rounds, call, by_hand);
}

/// Rows of a parameter sweep: planned, that is their commands and data known; and made tasks of a list.
fn sweep(options: &Options) {
    let n = if options.quick { 10_000 } else { 100_000 };
    let text = "
args: [i, j]
type: process
executables: [{target: ./solve, args: [--i, i, --j, j], cwd: runs}]
reads: [{files: [input.dat]}]
writes: [{files: [{format: ['runs/{i}_{j}.dat']}]}]
name: {format: ['solve {i} {j}']}
";
    let mut given = workflow::Options::new();
    given.ranges =
        vec![("i".into(), Range::integers(0, n as i64 / 10)), ("j".into(), Range::integers(0, 10))];
    let source = Arc::new(Source::of_text("sweep.yml", text));
    let ours = batch();
    let figure = Figure { bench: "ptd", case: "sweep", mode: "plan", n, unit: "s", operations: 1 };
    let mut tasks = Vec::new();
    let before = resident();
    let elapsed = time(|| {
        let flow = workflow::parse(&source, &given).expect("the workflow is right");
        for planned in flow.calls() {
            let Planned::Call(call) = planned else { continue };
            tasks.push(call.task(&ours).expect("a task"));
        }
    });
    report(options, figure, "tarragon", 1, elapsed.as_secs_f64());
    report(options, Figure { unit: "MB", ..figure }, "tarragon", 1, (resident() - before) / 1e6);
    assert_eq!(tasks.len(), n);
}

/// Resident bytes of this process, of pages of 4 KiB.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4096.0
}
