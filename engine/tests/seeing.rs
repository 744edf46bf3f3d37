//! What is seen of a run: its report as table, page and trace; why a task waits; how far a list is.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tarragon_engine::{Batch, Compiled, Counts, Error, Report, Status, Task, Workers, tasks};

fn measuring(workers: Workers) -> Batch {
    Batch::builder().workers(workers).assume_cpus(2).timing(true).build().expect("a batch")
}

fn report(compiled: &Compiled) -> Report {
    compiled.report().expect("the batch measures, and a run has ended")
}

/// The slices of a trace: name and what else it says.
fn slices(report: &Report) -> Vec<(String, Value)> {
    let events = events(report);
    let slices = events.into_iter().filter(|event| event["ph"] == "X");
    slices.map(|slice| (slice["name"].as_str().expect("a name").to_string(), slice)).collect()
}

fn events(report: &Report) -> Vec<Value> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("trace.json");
    report.write_trace(&path).expect("a trace");
    let trace: Value = serde_json::from_slice(&fs::read(&path).expect("the file")).expect("JSON");
    assert_eq!(fs::read_dir(dir.path()).expect("the directory").count(), 1, "nothing else is left there");
    trace["traceEvents"].as_array().expect("events").clone()
}

fn add(a: u64, b: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(2));
    a + b
}

fn fails() -> Result<u64, String> {
    Err("no luck today".to_string())
}

#[test]
fn a_report_shows_every_kind_of_task_and_ending() {
    for workers in [Workers::Serial, Workers::Threads(2)] {
        let batch = measuring(workers);
        let a = batch.function(add, (1u64, 2u64)).name("first");
        let b = batch.closure(|| std::thread::sleep(Duration::from_millis(2))).name("second");
        let c = batch.process("sh").args(["-c", "echo hi; sleep 0.01"]).arg(a.result()).name("third");
        let d = batch.try_function(fails, ()).name("fourth");
        let e = batch.function(add, (a.result(), d.result())).name("fifth");
        let f = batch.process("sh").args(["-c", "echo told >&2; exit 3"]).retries(2).name("sixth");
        let compiled = batch.compile(tasks![a, b, c, d, e, f]).expect("a list");
        assert!(compiled.report().is_none(), "nothing has run");
        compiled.run().expect_err("two tasks fail");
        let report = report(&compiled);
        let slices = slices(&report);
        let of =
            |name: &str| &slices.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("{name} ran")).1;
        assert_eq!(of("first")["cat"], "function");
        assert_eq!(of("second")["cat"], "closure");
        assert_eq!(of("third")["cat"], "process");
        assert_eq!(of("third")["args"]["detail"], "sh -c 'echo hi; sleep 0.01' $(first)");
        assert!(of("third")["args"]["max_rss_bytes"].as_u64() > Some(0), "measured by the kernel");
        assert_eq!(of("fourth")["args"]["ending"], "failed");
        assert_eq!(of("fourth")["args"]["detail"], "no luck today");
        assert_eq!(of("sixth")["args"]["attempts"], 3);
        let detail = of("sixth")["args"]["detail"].as_str().expect("text");
        assert!(detail.starts_with("exit code 3; its last lines:\n    told\nsh -c"), "{detail}");
        assert!(slices.iter().all(|(name, _)| name != "fifth"), "a skipped task has no slice");
        let table = report.to_string();
        assert!(table.contains("3 done, 2 failed, 1 skipped"), "{table}");
        assert!(table.contains("#3 fourth: no luck today"), "{table}");
        assert!(table.contains("#5 sixth, 3 attempts: exit code 3"), "{table}");
        assert!(report.table(40).lines().all(|line| line.chars().count() <= 40));
        // A task failed, so the output of all stays.
        let output = f.stderr().path().expect("a file");
        let run = output.parent().and_then(std::path::Path::parent).expect("the run directory");
        std::fs::remove_dir_all(run).expect("it is there");
    }
}

#[test]
fn processes_and_functions_lie_on_lanes_of_their_own() {
    let batch = measuring(Workers::Threads(2));
    let function = batch.function(add, (1u64, 2u64)).name("function");
    let process = batch.process("sleep").arg("0.02").name("process");
    let compiled = batch.compile(tasks![function, process]).expect("a list");
    compiled.run().expect("both succeed");
    let report = report(&compiled);
    let events = events(&report);
    let lane_of = |name: &str| {
        let slice = events.iter().find(|e| e["ph"] == "X" && e["name"] == name).expect("it ran");
        let lane = events.iter().find(|e| e["name"] == "thread_name" && e["tid"] == slice["tid"]);
        lane.expect("its lane has a name")["args"]["name"].as_str().expect("text").to_string()
    };
    assert!(lane_of("function").starts_with("worker "), "{}", lane_of("function"));
    assert_eq!(lane_of("process"), "slot 0");
    let slice = events.iter().find(|e| e["ph"] == "X" && e["name"] == "process").expect("it ran");
    assert!(slice["dur"].as_f64() >= Some(19_000.0), "it slept for 20 ms: {slice}");
}

#[test]
fn edges_are_those_of_the_list_through_joins_too() {
    let batch = measuring(Workers::Threads(2));
    let datum = batch.datum("shared");
    let first = batch.function(add, (0u64, 0u64)).name("w").writes(datum);
    let readers: Vec<_> = (0..6u64).map(|i| batch.function(add, (i, i)).reads(datum)).collect();
    let writers: Vec<_> =
        (0..3).map(|_| batch.function(add, (1u64, 1u64)).reads(datum).writes(datum)).collect();
    let compiled = batch.compile(tasks![first, readers, writers]).expect("a list");
    compiled.run().expect("all succeed");
    let report = report(&compiled);
    let arrows = events(&report).iter().filter(|event| event["ph"] == "s").count();
    // Seven after the first, six from readers to the first of the three writers, and those one after the other.
    assert_eq!(arrows, 15);
    let table = report.to_string();
    assert!(table.contains("over 5 tasks"), "the critical path: {table}");
}

#[test]
fn a_page_needs_nothing_else_and_replaces_an_old_one() {
    let batch = measuring(Workers::Threads(1));
    let task = batch.function(add, (1u64, 2u64)).name("<b>bold</b>");
    let compiled = batch.compile(tasks![task]).expect("a list");
    compiled.run().expect("it succeeds");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("run.html");
    fs::write(&path, "old").expect("a file");
    report(&compiled).write_html(&path).expect("a page");
    let page = fs::read_to_string(&path).expect("the page");
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"), "the whole page");
    assert!(!page.contains("<b>bold") && page.contains("&lt;b&gt;bold"), "names are text");
    let rights = |path: &std::path::Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    let plain = dir.path().join("plain");
    fs::write(&plain, "").expect("a file");
    assert_eq!(rights(&path), rights(&plain), "as readable as any new file");
}

#[test]
fn a_report_that_cannot_be_written_says_where() {
    let batch = measuring(Workers::Threads(1));
    let task = batch.function(add, (1u64, 2u64));
    let compiled = batch.compile(tasks![task]).expect("a list");
    compiled.run().expect("it succeeds");
    let error = report(&compiled).write_html("/nowhere/at/all.html").expect_err("no such directory");
    assert_eq!(error.to_string(), "cannot write /nowhere/at/all.html");
    assert!(matches!(error, Error::File { .. }));
}

#[test]
fn a_batch_that_does_not_measure_has_no_report() {
    let batch = Batch::builder().workers(Workers::Threads(1)).build().expect("a batch");
    let task = batch.function(add, (1u64, 2u64));
    let compiled = batch.compile(tasks![task]).expect("a list");
    compiled.run().expect("it succeeds");
    assert!(compiled.report().is_none());
}

#[test]
fn a_report_of_a_second_run_waits_for_its_end() {
    let batch = measuring(Workers::Threads(2));
    let gate = Gate::new();
    let task = batch.closure(gate.body()).name("held");
    let compiled = batch.compile(tasks![task]).expect("a list");
    gate.open();
    compiled.run().expect("it succeeds");
    gate.shut();
    compiled.start().expect("it starts again");
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| report(&compiled));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!asked.is_finished(), "its tasks are not in place");
        gate.open();
        assert_eq!(slices(&asked.join().expect("a report")).len(), 1);
    });
}

#[test]
fn a_function_that_ignores_its_timeout_has_its_time_in_the_report() {
    let batch = measuring(Workers::Threads(2));
    let gate = Gate::new();
    let task = batch.closure(gate.body()).timeout(Duration::from_millis(30)).name("deaf");
    let compiled = batch.compile(tasks![task]).expect("a list");
    compiled.run().expect_err("it is over its time");
    let slices = slices(&report(&compiled));
    assert_eq!(slices.len(), 1);
    assert_eq!(slices[0].1["args"]["ending"], "failed");
    assert!(slices[0].1["dur"].as_f64() >= Some(29_000.0), "{}", slices[0].1);
    gate.open();
}

#[test]
fn cancelled_tasks_are_told_from_failed_ones() {
    let batch = measuring(Workers::Threads(2));
    let process = batch.process("sleep").arg(600).name("long");
    let after = batch.process("true").arg(process.stdout()).name("after");
    let compiled = batch.compile(tasks![process, after]).expect("a list");
    compiled.start().expect("it starts");
    wait_for("the process runs", || process.status() == Status::Running);
    compiled.cancel();
    compiled.wait().expect_err("it was cancelled");
    let table = report(&compiled).to_string();
    assert!(!table.contains("failed") && table.contains("cancelled"), "{table}");
}

// ── why a task waits ────────────────────────────────────────────────────────────────────────────────────────────────

fn batch(threads: usize) -> Batch {
    Batch::builder().workers(Workers::Threads(threads)).assume_cpus(2).build().expect("a batch")
}

/// Waits until the task says that it waits for what contains `words`.
fn wait_for_words<T>(task: &Task<T>, words: &str) {
    let is_so = || task.why_waiting().is_some_and(|why| why.contains(words));
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "expected `{words}`, found {:?}", task.why_waiting());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_task_that_nobody_started_says_so() {
    let batch = batch(1);
    let task = batch.function(add, (1u64, 2u64));
    wait_for_words(&task, "nobody has started it: it is in no list");
    let compiled = batch.compile(tasks![task]).expect("a list");
    wait_for_words(&task, "it is compiled, but nobody has started");
    compiled.run().expect("it succeeds");
    assert_eq!(task.why_waiting(), None);
    assert_eq!(task.result().why_waiting(), None);
}

#[test]
fn a_submitted_task_waits_in_its_queue_or_for_earlier_ones() {
    let batch = batch(1);
    let gate = Gate::new();
    let datum = batch.datum("d");
    let first = batch.closure(gate.body()).name("first").writes(datum);
    batch.submit(&first).expect("it is queued");
    wait_for("it runs", || first.status() == Status::Running);
    let second = batch.function(add, (1u64, 2u64)).reads(datum);
    batch.submit(&second).expect("it is queued");
    // It stands behind a gate for the first, which is of another list.
    wait_for_words(&second, "it waits for task #0 `first` (runs)");
    gate.open();
    batch.fence().expect("both succeed");
    assert_eq!(second.why_waiting(), None);
}

#[test]
fn a_queued_task_says_what_makes_the_queue_run() {
    let batch = batch(1);
    // An idle queue runs after 5 ms, so one look may come too late.
    wait_for("a look comes before the queue runs", || {
        let task = batch.function(add, (1u64, 2u64));
        batch.submit(&task).expect("it is queued");
        task.why_waiting().is_some_and(|why| why.contains("stands in a queue"))
    });
}

#[test]
fn a_task_names_those_before_it_through_joins_too() {
    let batch = batch(2);
    let gate = Gate::new();
    let datum = batch.datum("d");
    let first = batch.closure(gate.body()).name("first").writes(datum);
    let readers: Vec<_> =
        (0..8u64).map(|i| batch.function(add, (i, i)).reads(datum).name("reader")).collect();
    let writers: Vec<_> =
        (0..8u64).map(|i| batch.function(add, (i, i)).writes(datum).name("writer")).collect();
    let compiled = batch.compile(tasks![first, readers, writers]).expect("a list");
    compiled.start().expect("it starts");
    wait_for_words(&readers[7], "it waits for task #0 `first` (runs)");
    wait_for_words(&writers[0], "task #1 `reader`, task #2 `reader`, task #3 `reader`, task #4 `reader`");
    wait_for_words(&writers[0], "and 3 more");
    wait_for_words(&writers[1], "it waits for task #9 `writer`");
    assert_eq!(first.why_waiting(), None, "it runs");
    gate.open();
    compiled.wait().expect("all succeed");
    assert_eq!(writers[7].why_waiting(), None);
}

#[test]
fn a_ready_task_waits_for_a_worker() {
    let batch = batch(1);
    let gate = Gate::new();
    let held = batch.closure(gate.body());
    let ready = batch.function(add, (1u64, 2u64));
    let compiled = batch.compile(tasks![held, ready]).expect("a list");
    compiled.start().expect("it starts");
    wait_for_words(&ready, "it is ready and waits for a worker: the batch has 1 worker, all at other tasks");
    gate.open();
    compiled.wait().expect("both succeed");
}

#[test]
fn a_list_waits_for_results_of_another() {
    let batch = batch(2);
    let gate = Gate::new();
    let mut hold = gate.body();
    let maker = batch.closure(move || {
        hold();
        7u64
    });
    let maker = maker.name("maker");
    maker.start().expect("it starts");
    let taker = batch.function(add, (maker.result(), 1u64));
    let compiled = batch.compile(tasks![taker]).expect("a list");
    compiled.start().expect("it starts");
    wait_for_words(
        &taker,
        "its list begins when results from outside of it are there; missing: task #0 `maker`",
    );
    gate.open();
    compiled.wait().expect("it succeeds");
}

#[test]
fn a_job_waits_for_cpus_memory_and_named_resources() {
    let builder = Batch::builder().workers(Workers::Threads(2)).assume_cpus(2).memory(1 << 30);
    let batch = builder.resource("licence", 1.5).build().expect("a batch");
    let go = Go::new();
    let hold = |mebibytes: u64| {
        let process = batch.process("sh").arg("-c").arg(go.script());
        process.cpus(2).memory(mebibytes << 20).resource("licence", 1.0)
    };
    let first = hold(600);
    let second = hold(601).priority(-1);
    let third = batch.process("true").priority(-2);
    let compiled = batch.compile(tasks![first, second, third]).expect("a list");
    compiled.start().expect("it starts");
    wait_for_words(&third, "1 cpu (0 free); 1 task is before it");
    wait_for_words(
        &second,
        "2 cpus (0 free), 630194176 bytes of memory (444596224 free), 1 of licence (0.5 free)",
    );
    wait_for_words(&second, "it is the next");
    assert_eq!(first.why_waiting(), None, "it runs");
    drop(go);
    compiled.wait().expect("all succeed");
    assert_eq!(second.why_waiting(), None);
}

#[test]
fn a_process_stands_behind_others_of_its_kind() {
    let batch = batch(1);
    let go = Go::new();
    let all: Vec<_> = (0..4).map(|_| batch.process("sh").arg("-c").arg(go.script())).collect();
    let compiled = batch.compile(&all).expect("a list");
    compiled.start().expect("it starts");
    wait_for_words(&all[3], "it is ready, and next when a process of its kind ends");
    drop(go);
    compiled.wait().expect("all succeed");
}

#[test]
fn a_failed_task_rests_before_its_next_attempt() {
    let batch = batch(2);
    let process = batch.process("false").retries(3).back_off(Duration::from_secs(600));
    let function = batch.try_function(fails, ()).retries(3).back_off(Duration::from_secs(600));
    let compiled = batch.compile(tasks![process, function]).expect("a list");
    compiled.start().expect("it starts");
    wait_for_words(&process, "it failed, and rests until its second attempt");
    wait_for_words(&function, "it failed, and rests until its second attempt");
    compiled.cancel();
    compiled.wait().expect_err("both were cancelled");
}

// ── how far a list is ───────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn counts_tell_every_state_and_add_up() {
    let batch = batch(2);
    let gate = Gate::new();
    let done = batch.function(add, (1u64, 2u64));
    let failed = batch.try_function(fails, ());
    let skipped = batch.function(add, (failed.result(), done.result()));
    let running = batch.closure(gate.body());
    let part = batch.compile(tasks![done, failed]).expect("a list");
    let waiting = batch.function(|_: ()| (), (running.result(),));
    let compiled = batch.compile(tasks![part, skipped, running, waiting]).expect("a list");
    let counts = |done, failed, skipped, running, waiting| Counts {
        total: 5,
        done,
        failed,
        skipped,
        running,
        waiting,
    };
    assert_eq!(compiled.progress(), counts(0, 0, 0, 0, 5));
    let watch = compiled.watch();
    for _ in 0..2 {
        gate.shut();
        compiled.start().expect("it starts");
        wait_for("all but two have ended", || compiled.progress() == counts(1, 1, 1, 1, 1));
        assert_eq!(watch.progress().ended(), 3);
        gate.open();
        compiled.wait().expect_err("one fails");
        assert_eq!(compiled.progress(), counts(3, 1, 1, 0, 0));
        assert!(watch.progress().is_over());
    }
}

// ── what tests wait for ─────────────────────────────────────────────────────────────────────────────────────────────

/// A body that waits until it is let go.
struct Gate(Arc<AtomicBool>);

impl Gate {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn open(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn shut(&self) {
        self.0.store(false, Ordering::Release);
    }

    fn body(&self) -> impl FnMut() + Send + Sync + 'static {
        let is_open = Arc::clone(&self.0);
        move || wait_for("somebody opens the gate", || is_open.load(Ordering::Acquire))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

/// Processes that wait until it is dropped.
struct Go(tempfile::TempDir);

impl Go {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn script(&self) -> String {
        format!("while [ -e {} ]; do sleep 0.01; done", self.0.path().display())
    }
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
